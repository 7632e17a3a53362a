"""The query and transaction API. It reads, prepares and passes on; it holds no key of anybody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from api import problems, schemas
from api.deps import State
from api.limits import Limits
from api.observe import Observe
from api.replies import Replies
from api.routes import aggregates, authorizations, events, health, money, registries, session, transactions
from ledger.webhooks.deliver import Deliverer

TITLE = "Sluice 数据计量账本"
ROUTERS = (authorizations, registries, money, aggregates, events, session, transactions, health)  # by use


def create_app(state: State) -> FastAPI:
    """The app over an open mirror; follows the chain and delivers webhooks while it runs."""
    deliverer = Deliverer(state.webhooks, state.mirror, state.deployment.chain_id, private=state.private_webhooks)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.follower.start()
        deliverer.start()
        yield
        deliverer.stop()
        state.follower.stop()

    # The page at /docs comes from this package, not from a content network: it works without one.
    app = FastAPIOffline(title=TITLE, lifespan=lifespan)
    app.state.sluice = state
    app.state.registry = CollectorRegistry()
    app.state.registry.register(health.Mirror(state))
    problems.install(app)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    describe(app)
    # The last one added is the outermost.
    app.add_middleware(Replies, tips=state.tips, clock=state.clock)
    app.add_middleware(Limits, sessions=state.sessions, rate=state.rate)
    app.add_middleware(Observe, registry=app.state.registry)
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """Adds all routes, and returns what OpenAPI 3.1 says of them."""
    for module in ROUTERS:
        # Not include_router: it looks through router after router at every request.
        app.router.routes.extend(module.router.routes)
    for route in app.router.routes:
        if isinstance(route, APIRoute):
            route.operation_id = route.name  # what a client calls it
    made = get_openapi(
        title=TITLE,
        version="0.1.0",
        openapi_version="3.1.0",
        summary="A ledger for metered data exchange: what was authorized, what was used, what is owed, and proof",
        routes=app.routes,
    )
    parts = made["components"]
    parts["schemas"]["Problem"] = schemas.Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    parts["securitySchemes"] = {"session": {"type": "http", "scheme": "bearer", "description": "see POST /v1/session"}}
    for path in made["paths"].values():
        for operation in path.values():
            _complete(operation)
    app.openapi = lambda: made  # type: ignore[method-assign]
    return made


HEADERS = {
    "Ledger-Block": ("integer", "the block this is as of"),
    "Ledger-Block-Hash": ("string", "its hash; not of a block that is final and has no event of ours"),
    "Ledger-Finality": ("string", "seen, safe or final"),
    "Ledger-Warning": ("string", "finality-violated: the chain took back what it had called final"),
    "ETag": ("string", "strong: the same bytes"),
}


def _complete(operation: dict[str, Any]) -> None:
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    responses = operation["responses"]
    if "Ledger-Min-Block" in names:
        described = {n: {"schema": {"type": kind}, "description": text} for n, (kind, text) in HEADERS.items()}
        responses["200"]["headers"] = described
    if "format" in names:
        text: dict[str, Any] = {"schema": {"type": "string"}}
        responses["200"]["content"] |= {"text/csv": text, "application/jsonl": text}
    if "401" in responses and operation["operationId"] != "sign_in":
        operation["security"] = [{"session": []}]
    content = responses.get("422", {}).get("content", {})
    if content.pop("application/json", None):
        content["application/problem+json"] = {"schema": {"$ref": "#/components/schemas/Problem"}}
