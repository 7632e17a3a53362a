"""Replies that say as of which block they are, and are kept as long as they are true.

What is read from the mirror alone is a function of the mirror's digest and of which authorizations have ended by now.
So a reply is kept until one of the two changes, and an ETag is a digest of its bytes: strong (RFC 9110, 8.8.1).
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.tips import Tips
from ledger.mirror.queries import Cursor

MOST = 64 << 20  # bytes of replies kept
LARGEST = 256 << 10  # bytes of one of them
JSON = "application/json"

Headers = list[tuple[bytes, bytes]]


def block_headers(tip: Cursor, number: int | None = None, block_hash: str | None = None) -> Headers:
    """Which block a reply is as of: the mirror's last, or an earlier one."""
    if tip.empty:
        return []
    if number is None:
        number, block_hash = tip.number, tip.hash
    found = [(b"ledger-block", str(number).encode()), (b"ledger-finality", tip.finality(number).encode())]
    if block_hash is not None:
        found.append((b"ledger-block-hash", block_hash.encode()))
    if tip.violated is not None:
        found.append((b"ledger-warning", b"finality-violated"))
    return found


class Reply(Response):
    """One body from the mirror.

    Args:
        fixed: it is as of this earlier block, and of no other.
        until: seconds; when it stops to be true though no block comes. None: the reply is not to be kept.
        settled: of a final block it will never be another.
        private: for one reader only.
    """

    def __init__(
        self,
        body: bytes,
        tip: Cursor,
        *,
        fixed: tuple[int, str | None] | None = None,
        until: float | None = None,
        settled: bool = False,
        private: bool = False,
    ) -> None:
        super().__init__(body, media_type=JSON)
        self.tip, self.fixed, self.until = tip, fixed, until
        self.etag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
        forever = settled and fixed is not None and fixed[0] <= tip.final and not private
        control = b"max-age=31536000, immutable" if forever else b"private, no-cache" if private else b"no-cache"
        self._always: Headers = [
            (b"etag", self.etag),
            (b"cache-control", control),
            (b"vary", b"accept, authorization"),
        ]
        self._whole: Headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keep: Callable[[Reply], None] | None = scope.get("sluice.keep")
        if keep is not None and self.until is not None:
            keep(self)
        await self.answer(scope, send, self.tip)

    async def answer(self, scope: Scope, send: Send, tip: Cursor) -> None:
        """Sends it, or 304 to those who have it."""
        blocks = block_headers(tip, *self.fixed) if self.fixed else block_headers(tip)
        if same(self.etag, asked(scope, b"if-none-match")):
            await send({"type": "http.response.start", "status": 304, "headers": self._always + blocks})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self._whole + self._always + blocks})
        await send({"type": "http.response.body", "body": self.body})


def same(etag: bytes, wanted: bytes | None) -> bool:
    """If-None-Match, RFC 9110 13.1.2: compared weakly, `*` matches anything."""
    if wanted is None:
        return False
    return any(one.strip().removeprefix(b"W/") in (etag, b"*") for one in wanted.split(b","))


def asked(scope: Scope, name: bytes) -> bytes | None:
    """A header of the request."""
    return next((value for key, value in scope["headers"] if key == name), None)


class Replies:
    """ASGI: answers from what is kept, else asks the app and keeps what it may."""

    def __init__(self, app: ASGIApp, tips: Tips, clock: Callable[[], float] = time.time) -> None:
        self._app, self._tips, self._clock = app, tips, clock
        self._kept: dict[tuple[bytes, bytes, bytes | None], tuple[Reply, Any]] = {}
        self._size = 0
        self._digest = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or asked(scope, b"ledger-min-block") is not None:
            await self._app(scope, receive, send)
            return
        key = (scope["raw_path"], scope["query_string"], asked(scope, b"accept"))
        found = self._kept.get(key)
        if found is not None:
            reply, scope["route"] = found
            tip = await self._tips.now()
            if tip.digest == reply.tip.digest and reply.until is not None and self._clock() < reply.until:
                await reply.answer(scope, send, tip)
                return
        scope["sluice.keep"] = lambda reply: self._keep(key, reply, scope.get("route"))
        await self._app(scope, receive, send)

    def _keep(self, key: tuple[bytes, bytes, bytes | None], reply: Reply, route: Any) -> None:
        if len(reply.body) > LARGEST:
            return
        if reply.tip.digest != self._digest or self._size > MOST:
            # All that is kept was true of another state, or there is too much of it.
            self._kept.clear()
            self._size, self._digest = 0, reply.tip.digest
        self._size += len(reply.body) + 1024
        self._kept[key] = (reply, route)
