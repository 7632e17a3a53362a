"""An existing HTTP API behind the gateway, in any language: requests go on to it, answers come back as they come."""

from collections.abc import Awaitable, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import quote

import httpx
from starlette.types import Receive, Scope, Send

from ledger.core.codes import codes
from ledger.core.errors import NotFound, SluiceError
from ledger.metering.problems import problem_of

# RFC 9110 section 7.6.1: these are between two neighbours. A session's token is the gateway's, not the upstream's.
_NEIGHBOURS = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
_OURS = {b"host", b"authorization", b"content-length", b"accept-encoding"}


class UpstreamFailed(SluiceError):
    """The API behind the gateway did not answer; nothing was counted."""

    code = "upstream_failed"


class Proxy:
    """ASGI: asks `upstream` what it is asked. Only what the gateway meters gets here: other paths are not found."""

    def __init__(self, upstream: str, seconds: float = 30) -> None:
        """`seconds`: how long the upstream may be silent."""
        self._upstream = upstream.rstrip("/")
        # A jar that takes nothing: one consumer's cookies are not another's.
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._http = httpx.AsyncClient(timeout=seconds, follow_redirects=False, trust_env=False, cookies=jar)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send, self.aclose)
            return
        if scope["type"] != "http":
            return
        told = scope.get("sluice")
        if told is None:
            path = scope["path"]
            await problem_of(NotFound(f"{path[:200]} is no metered route of this gateway"))(scope, receive, send)
            return
        # What a request says of itself under our names is not ours: only the gateway says who is served.
        kept = [
            (name, value)
            for name, value in scope["headers"]
            if name not in _NEIGHBOURS | _OURS and not name.replace(b"_", b"-").startswith(b"sluice-")
        ]
        purpose = next(c.code for c in codes("purposes") if c.number == told["purpose"])
        kept.append((b"accept-encoding", b"identity"))
        kept.append((b"sluice-authorization", told["authorization"].encode()))
        kept.append((b"sluice-purpose", purpose.encode()))
        query = scope["query_string"].decode("latin-1")
        url = self._upstream + quote(scope["path"], safe="/:@!$&'()*+,;=~-._") + (f"?{query}" if query else "")
        content = await _content(receive) if scope["method"] not in ("GET", "HEAD") else None
        request = self._http.build_request(scope["method"], url, headers=kept, content=content)
        if request.url.path != httpx.URL(self._upstream).path.rstrip("/") + scope["path"]:
            # It would be asked for something else than what is metered.
            await problem_of(NotFound("this path has no plain form"))(scope, receive, send)
            return
        begun = False
        try:
            response = await self._http.send(request, stream=True)
            try:
                headers = [(k.lower(), v) for k, v in response.headers.raw if k.lower() not in _NEIGHBOURS]
                await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
                begun = True
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                await response.aclose()
        except httpx.HTTPError as problem:
            failed = UpstreamFailed(f"the API behind this gateway does not answer: {type(problem).__name__}")
            if begun:
                raise failed from problem  # the answer breaks off here, for whoever reads it too
            await problem_of(failed)(scope, receive, send)


async def _live(receive: Receive, send: Send, close: Callable[[], Awaitable[None]]) -> None:
    while True:
        phase = (await receive())["type"].removeprefix("lifespan.")
        if phase == "shutdown":
            await close()
        await send({"type": f"lifespan.{phase}.complete"})
        if phase == "shutdown":
            return


async def _content(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)
