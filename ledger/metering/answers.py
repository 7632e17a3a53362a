"""An application's answer, caught before it leaves: whole, or chunk by chunk; some are kept for who asks again."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.core.errors import InputInvalid, SluiceError
from ledger.core.ids import Hash32

Header = tuple[bytes, bytes]

RECEIPT, SIGN, STATED = b"sluice-receipt", b"sluice-sign", b"sluice-count"
MOST_ANSWER = 64 << 20  # bytes that are counted before they are sent
KEPT = 64 << 20  # bytes of answers kept
TOO_BIG_TO_KEEP = 1 << 20


class TooLarge(SluiceError):
    """More than a gateway takes in one piece."""

    code = "too_large"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    def header(self, name: bytes) -> str:
        """Its first value; empty if there is none."""
        return first(self.headers, name)

    async def send(self, send: Send, more: Iterable[Header] = ()) -> None:
        ours = (RECEIPT, SIGN, b"content-length")
        kept = [h for h in self.headers if h[0].lower() not in ours]  # nobody but the gateway gives receipts
        length = (b"content-length", b"%d" % len(self.body))
        await send({"type": "http.response.start", "status": self.status, "headers": [*kept, length, *more]})
        await send({"type": "http.response.body", "body": self.body})


def first(headers: Iterable[Header], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


async def capture(app: ASGIApp, scope: Scope, receive: Receive) -> Answer:
    """Runs the application and keeps its answer. Raises TooLarge beyond what is counted in one piece."""
    start: list[Message] = []
    body = bytearray()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.append(message)
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if len(body) > MOST_ANSWER:
                raise TooLarge(f"an answer of more than {MOST_ANSWER >> 20} MiB: ask for a range, or stream this route")

    await app(uncompressed(scope), receive, send)
    if not start:
        raise RuntimeError("the application gave no answer")
    return Answer(start[0]["status"], tuple(start[0].get("headers", ())), bytes(body))


def uncompressed(scope: Scope) -> Scope:
    """The request without its wish for compression: what is counted is the data itself."""
    kept = [h for h in scope["headers"] if h[0] != b"accept-encoding"]
    return {**scope, "headers": kept}


class Relay:
    """Passes an answer on as it comes, and holds its end back until `finish`: an end that comes was recorded."""

    def __init__(self, send: Send, count_failures: bool) -> None:
        self._send, self._count_failures = send, count_failures
        self.status, self.headers = 0, tuple[Header, ...]()
        self.length, self.complete = 0, False
        self.digest = hashlib.sha256()

    @property
    def counts(self) -> bool:
        return 0 < self.status < 400 or (self.status >= 400 and self._count_failures)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], tuple(message.get("headers", ()))
            if self.counts:
                # The end is held back: with a length the reader would not wait for it.
                kept = [h for h in self.headers if h[0].lower() not in (RECEIPT, SIGN, b"content-length")]
                message = {**message, "headers": kept}
        elif message["type"] == "http.response.body":
            chunk = message.get("body", b"")
            self.length += len(chunk)
            self.digest.update(chunk)
            if not message.get("more_body", False):
                self.complete = True
                if self.counts:
                    message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Answers:
    """The last answers that were counted, for who lost one and asks again. Forgotten with the process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Hash32, Hash32], Answer] = OrderedDict()
        self._bytes = 0

    def keep(self, authorization_id: Hash32, use_id_hash: Hash32, answer: Answer) -> None:
        if len(answer.body) > TOO_BIG_TO_KEEP:
            return
        self._kept[authorization_id, use_id_hash] = answer
        self._bytes += _size(answer)
        while self._bytes > KEPT:
            self._bytes -= _size(self._kept.popitem(last=False)[1])

    def find(self, authorization_id: Hash32, use_id_hash: Hash32) -> Answer | None:
        return self._kept.get((authorization_id, use_id_hash))


def _size(answer: Answer) -> int:
    return len(answer.body) + 1_024  # headers and what Python needs


async def read_body(receive: Receive, most: int) -> bytes:
    """The request's body. Raises InputInvalid if it is longer than `most` bytes, or breaks off."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InputInvalid("the request broke off")
        body += message.get("body", b"")
        if len(body) > most:
            raise InputInvalid(f"the body is longer than {most} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read by the application."""
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay
