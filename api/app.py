"""The query and transaction API. It reads, prepares and passes on; it holds no key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from api import problems
from api.deps import State
from api.routes import authorizations, health, money, registries, transactions


def create_app(state: State) -> FastAPI:
    """The app over an open mirror; follows the chain while it runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.follower.start()
        yield
        state.follower.stop()

    # The page at /docs comes from this package, not from a content network: it works without one.
    app = FastAPIOffline(
        title="Sluice 数据计量账本",
        version="0.1.0",
        summary="A ledger for metered data exchange: what was authorized, what was used, what is owed, and proof",
        lifespan=lifespan,
    )
    app.state.sluice = state
    problems.install(app)
    for router in (registries.router, authorizations.router, money.router, transactions.router, health.router):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
