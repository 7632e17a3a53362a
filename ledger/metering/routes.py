"""The gateway's own routes, beside those it meters.

Who may call: `/v1/sessions` and `/v1/grants` anyone, but only a signature opens or grants anything; `POST /v1/uses` the
provider's sessions; everything else the sessions of the authorization's consumer, its agents, and the provider.
"""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from ledger.core.errors import InputInvalid, NotFound, SluiceError
from ledger.core.ids import ZERO_HASH, Hash32, parse_hash
from ledger.core.parse import load_json, parse_uint
from ledger.core.tiles import WIDTH, parse_groups
from ledger.metering import reports
from ledger.metering.gateway import Gateway
from ledger.metering.problems import problem_of
from ledger.metering.sessions import PROVIDER, NotAuthenticated, Session
from ledger.metering.standing import MIRROR_SECONDS

Index = Annotated[int, Query(ge=0, lt=2**62)]
Count = Annotated[int, Query(ge=1, le=1000)]
Size = Annotated[int, Query(ge=0, lt=2**62)]
MOST_BODY = 64 * 1024
LOG = "/v1/authorizations/{authorization_id}"


def create_gateway(gateway: Gateway) -> FastAPI:
    """The HTTP face of a gateway."""
    app = FastAPI(title="Sluice gateway", version="1", summary="Metered delivery of data products")

    @app.exception_handler(SluiceError)
    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, SluiceError)
        return problem_of(error)

    def session(request: Request) -> Session:
        return gateway.sessions.of_header(request.headers.get("authorization", ""))

    def of(request: Request, authorization_id: str) -> Hash32:
        """The authorization, if this session is for it."""
        found, asked = session(request).authorization_id, parse_hash(authorization_id, "authorization")
        if found not in (asked, ZERO_HASH):
            raise NotAuthenticated("the session is for another authorization")
        return asked

    @app.post("/v1/sessions", summary="Open a session with a signature")
    async def open_session(request: Request) -> dict[str, Any]:
        return await run_sync(gateway.sessions.open, await _json(request))

    @app.post("/v1/grants", summary="Let an agent spend, or less than before: signed by its principal")
    async def grant(request: Request) -> dict[str, Any]:
        body = await _json(request)
        if not isinstance(body, dict) or set(body) != {"grant", "grantSignature"}:
            raise InputInvalid("send the members grant and grantSignature")
        return (await run_sync(gateway.sessions.grant, body)).as_json()

    @app.post("/v1/uses", summary="Report uses metered elsewhere, one batch, one receipt")
    async def uses(request: Request) -> Response:
        who = session(request)
        body = await _body(request, reports.MOST_BYTES)
        batch = reports.read_batch(body, request.headers.get("content-type", ""))
        wanted = parse_hash(batch.authorization, "authorization")
        if who.role != PROVIDER or who.authorization_id not in (wanted, ZERO_HASH):
            raise NotAuthenticated("uses are reported in a session of the provider")
        return JSONResponse(await run_sync(reports.report, gateway, batch))

    @app.get("/v1/uses/{use_id}", summary="The receipt of a use, by its id")
    async def use(use_id: str, request: Request) -> dict[str, Any]:
        return (await run_sync(gateway.use, session(request).authorization_id, use_id)).as_json()

    @app.get(LOG + "/head", summary="The head to sign next")
    async def head(authorization_id: str, request: Request) -> dict[str, Any]:
        return (await run_sync(gateway.head, of(request, authorization_id))).as_json()

    @app.post(LOG + "/head", summary="Add the consumer's signature")
    async def sign(authorization_id: str, request: Request) -> dict[str, Any]:
        wanted = of(request, authorization_id)
        return (await run_sync(gateway.add_signature, wanted, await _json(request))).as_json()

    @app.post(LOG + "/ceiling", summary="Pay ahead: uses up to a ceiling")
    async def ceiling(authorization_id: str, request: Request) -> dict[str, Any]:
        wanted = of(request, authorization_id)
        return (await run_sync(gateway.take_ceiling, wanted, await _json(request))).as_json()

    @app.post(LOG + "/disputes", summary="Say that a leaf is not what happened")
    async def dispute(authorization_id: str, request: Request) -> dict[str, Any]:
        wanted = of(request, authorization_id)
        return await run_sync(gateway.dispute, wanted, await _json(request))

    @app.get(LOG + "/leaves", summary="Entries of the usage log")
    async def leaves(authorization_id: str, request: Request, first: Index = 0, limit: Count = 1000) -> dict[str, Any]:
        return {"entries": await run_sync(gateway.entries, of(request, authorization_id), first, limit)}

    @app.get(LOG + "/log/checkpoint", summary="The newest signed head, as a C2SP checkpoint")
    async def checkpoint(authorization_id: str, request: Request, size: Size | None = None) -> Response:
        return PlainTextResponse(await run_sync(gateway.checkpoint, of(request, authorization_id), size))

    @app.get(LOG + "/log/tile/{path:path}", summary="A tile of the tree or of leaves, as C2SP tlog-tiles names them")
    async def tile(authorization_id: str, path: str, request: Request) -> Response:
        wanted, level, index, width = of(request, authorization_id), *_tile(path)
        if level is None:
            data = await run_sync(gateway.entry_bundle, wanted, index, width)
        else:
            data = await run_sync(gateway.tile, wanted, level, index, width)
        return Response(data, media_type="application/octet-stream")

    @app.get(LOG + "/log/inclusion", summary="Proof that a leaf is in the tree")
    async def inclusion(authorization_id: str, request: Request, index: Index, size: Size) -> dict[str, Any]:
        return await run_sync(gateway.inclusion, of(request, authorization_id), index, size)

    @app.get(LOG + "/log/consistency", summary="Proof that one tree begins another")
    async def consistency(authorization_id: str, request: Request, first: Size, second: Size) -> dict[str, Any]:
        return await run_sync(gateway.consistency, of(request, authorization_id), first, second)

    @app.get("/health", summary="Is the gateway serving; 503 while its mirror is behind")
    async def health(response: Response) -> dict[str, Any]:
        age = gateway.standings.age()
        response.status_code = 200 if age <= MIRROR_SECONDS else 503
        return {"status": "ok" if age <= MIRROR_SECONDS else "degraded", "mirrorSecondsAgo": age}

    return app


def _tile(path: str) -> tuple[int | None, int, int]:
    """Level (None: a bundle of leaves), index and width. Raises NotFound for another form."""
    try:
        kind, _, rest = path.partition("/")
        level = None if kind == "entries" else parse_uint(kind, "level", 6)
        groups, partial, width = rest.partition(".p/")
        index = parse_groups(groups)
        if index >> 54:
            raise InputInvalid("there is no such tile", field="tile")
        return level, index, parse_uint(width, "width", 8) if partial else WIDTH
    except InputInvalid as problem:
        raise NotFound(f"there is no tile {path[:60]!r}: {problem}") from None


async def _json(request: Request) -> Any:
    return load_json(await _body(request, MOST_BODY), "body")


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise InputInvalid(f"the body is longer than {most} bytes")
    return bytes(body)
