"""One server: asked, asked again where that is safe, and its problems as exceptions."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from ledger.client.routes import Routes
from ledger.client.types import Event, Page
from ledger.core import siwe
from ledger.core.errors import ChainError, SluiceError
from ledger.core.ids import Address
from ledger.core.siwe import SignIn

ATTEMPTS = 4
LONGEST = 5.0  # seconds to wait because the server says so

T = TypeVar("T")


class ServerProblem(SluiceError):
    """The server answered with a problem; code and sentence are its own."""

    code = "server_problem"

    def __init__(self, message: str, code: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code


class ServerDown(ChainError):
    """The server does not answer."""

    code = "server_down"


class TextSigner(Protocol):
    """A wallet that signs texts (EIP-191)."""

    @property
    def address(self) -> Address: ...

    def sign_text(self, text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class AsOf:
    """What the last reply was as of. `finality` is seen, safe or final; `warning` is None if all is well."""

    block: int
    block_hash: str | None
    finality: str
    warning: str | None


class LedgerClient(Routes):
    """One server, one connection pool; not for several threads.

    Raises, of every method:
        ServerProblem: the server's own problem, by code.
        ServerDown: it does not answer, ATTEMPTS times for a read.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 60,
        notice: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`notice` is told in words when a read has to be tried again."""
        self.url = url.rstrip("/")
        self.as_of: AsOf | None = None
        self._notice, self._sleep = notice, sleep
        self.http = httpx.Client(base_url=self.url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    # ------------------------------------------------------------------------------------------- session

    def sign_in(self, signer: TextSigner, chain_id: int, statement: str = "Read the ledger as this wallet.") -> None:
        """Opens a session (EIP-4361) that lives as long as this client, at most twelve hours.

        The message is written here, for the server that was asked: its word is not taken for it.
        """
        message = SignIn(
            domain=urlsplit(self.url).netloc,
            address=signer.address,
            uri=self.url,
            chain_id=chain_id,
            nonce=self.nonce()["nonce"],
            issued_at=siwe.written(time.time()),
            statement=statement,
        ).text()
        made = self.open_session({"message": message, "signature": signer.sign_text(message)})
        self.http.headers["Authorization"] = f"Bearer {made['token']}"

    # ------------------------------------------------------------------------------------------- reading

    def every(self, read: Callable[..., Page[T]], *path: str, **asked: Any) -> Iterator[T]:
        """Every item of a list, page after page: `every(client.authorizations, consumer="0x…")`."""
        if "limit" in signature(read).parameters:
            asked = {"limit": 1000} | asked
        page = read(*path, **asked)
        yield from page["items"]
        while page["next"] is not None:
            page = read(*path, **asked | {"after": page["next"]})
            yield from page["items"]

    def follow(
        self,
        after: str | None = None,
        *,
        from_block: int | None = None,
        contract: str | None = None,
        event: str | None = None,
        about: str | None = None,
        final: bool = False,
    ) -> Iterator[Event]:
        """Events as they become known, for ever; an event that is `retracted` is not so any more.

        Begins after an offset, at a block, or with what comes now; connects again by itself where it was.
        """
        asked = {"contract": contract, "event": event, "about": about, "final": final, "from_block": from_block}
        last, failures = after, 0
        while True:
            params = {name: value for name, value in (asked | {"after": last}).items() if value is not None}
            try:
                timeout = httpx.Timeout(60, read=60)  # a sign of life comes every fifteen seconds
                with self.http.stream("GET", "/v1/events/stream", params=params, timeout=timeout) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        self._result(answer)
                    failures = 0
                    for identity, told in _messages(answer.iter_lines()):
                        last = identity
                        if told is not None:
                            yield told
            except httpx.TransportError as problem:
                failures += 1
                if failures == ATTEMPTS:
                    raise ServerDown(f"the server at {self.url} does not answer") from problem
            pause = 0.2 * 2**failures
            self._notice(f"the stream ended, connecting again in {pause:.1f} s")
            self._sleep(pause)

    # ------------------------------------------------------------------------------------------ requests

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """One request; a read is tried again while the server is away, behind or busy."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self.http.request(method, path, headers=headers, **options)
            except httpx.TransportError as problem:
                if attempt == ATTEMPTS or method != "GET":
                    raise ServerDown(f"the server at {self.url} does not answer; is `sluice-api` running?") from problem
                pause = 0.1 * 2**attempt
                self._notice(f"the server does not answer, trying again in {pause:.1f} s")
            else:
                if answer.status_code != 429 or attempt == ATTEMPTS:
                    return self._result(answer)
                pause = min(LONGEST, float(answer.headers.get("retry-after", "1")))
                self._notice(f"the server has enough to do, trying again in {pause:.1f} s")
            self._sleep(pause)
        raise AssertionError("unreachable")

    def _result(self, answer: httpx.Response) -> Any:
        if answer.status_code >= 400:
            # Health says how the server is, well or not, and it is no problem of the question.
            if answer.headers.get("content-type", "").startswith("application/json"):
                return answer.json()
            try:
                body = answer.json()
                details = body.get("details") or {}
                raise ServerProblem(body["detail"], body["code"], **details | {"status": answer.status_code})
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ServerProblem(f"the server answered {answer.status_code}", "server_problem") from None
        if "ledger-block" in answer.headers:
            given = answer.headers
            self.as_of = AsOf(
                int(given["ledger-block"]),
                given.get("ledger-block-hash"),
                given["ledger-finality"],
                given.get("ledger-warning"),
            )
        return answer.json() if answer.content else None


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Server-Sent Events (WHATWG HTML, 9.2): offset, and the event if the message has one."""
    identity, data = "", None
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            identity = value
        elif name == "data":
            data = json.loads(value)
        elif line == "" and identity:
            yield identity, data
            data = None
