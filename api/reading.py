"""One read: of one state of the mirror, as of one block.

A route says what it wants of a `View`; here it is waited for the block that was asked for, read, encoded and sent as
JSON, or line by line as CSV or JSON Lines, all pages of a list in one state.

A brief read of a SQLite file takes a third of a millisecond, less than it takes to hand it to a thread and back: it is
done at once. Everything else, and whatever waits for a server, is done in a thread.
"""

import csv
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import anyio
import msgspec
from anyio.to_thread import run_sync
from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Connection
from starlette.responses import Response

from api.deps import AtBlock, MinBlock, State, StateDep
from api.replies import Reply, asked, block_headers, same
from ledger.core.errors import MirrorError
from ledger.mirror import queries
from ledger.mirror.queries import Cursor

WAIT = 2.0  # seconds for a block that was asked for
FAR = 1000  # blocks
STREAMED = 1000  # items of a list at a time
BRIEF = 100  # items of a page

T = TypeVar("T")
Items = tuple[Sequence[Any], str | None]
"""Models or dicts of one page, and the cursor for the next."""

Format = Annotated[
    Literal["json", "csv", "jsonl"] | None,
    Query(description="csv or jsonl: everything from `after` on, streamed; or by Accept: text/csv, application/jsonl"),
]
MEDIA = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}

_encode = msgspec.json.Encoder(enc_hook=lambda value: value.model_dump(by_alias=True)).encode


class Behind(MirrorError):
    """The mirror has not come to the block that was asked for."""

    code = "behind"


@dataclass(frozen=True, slots=True)
class View:
    """A state of the mirror. `now` is the time it is judged by, seconds; `at_block` None: the mirror's last block."""

    db: Connection
    tip: Cursor
    at_block: int | None
    now: int

    def version(self) -> bytes:
        """Of everything that can be read from this view: 32 bytes."""
        endings = queries.last_ending(self.db, self.now) if self.at_block is None else self.at_block
        return hashlib.sha256(self.tip.digest + b"%d" % endings).digest()

    def fixed(self) -> tuple[int, str | None] | None:
        if self.at_block is None:
            return None
        block = queries.block_at(self.db, self.at_block)
        last = self.tip.hash if self.at_block == self.tip.number else None
        return self.at_block, block.hash if block else last


class Read:
    """What a route reads with."""

    def __init__(self, request: Request, here: State, at_block: int | None, min_block: int | None) -> None:
        self._request, self._here, self.at_block, self._min_block = request, here, at_block, min_block

    async def one(
        self, make: Callable[[View], Any], *, private: bool = False, keep: bool = True, brief: bool = True
    ) -> Response:
        """A JSON reply.

        Args:
            keep: it comes from the mirror and nowhere else, and is the same for every reader.
            brief: it reads little, and from no server.
        """

        def read() -> Reply:
            with self._here.mirror.connect() as db:
                view = self._view(db)
                body = _encode(make(view))
                until = queries.next_ending(db, view.now) if keep and not private and self.at_block is None else None
                return Reply(body, view.tip, fixed=view.fixed(), until=until, settled=keep, private=private)

        await self._wait()
        if brief and self._here.mirror.dialect.name == "sqlite":
            return read()
        return await run(self._here, read)

    async def page(
        self,
        fetch: Callable[[View, str, int], Items],
        model: type[BaseModel],
        *,
        after: str,
        limit: int,
        format: Format,
        private: bool = False,
        keep: bool = True,
        brief: bool = True,
    ) -> Response:
        """A page of a list as JSON, or all of it from `after` on as CSV or JSON Lines."""
        form = format or self._preferred()
        if form != "json":
            return await self._stream(fetch, model, after, form, private, keep)

        def make(view: View) -> Any:
            items, following = fetch(view, after, limit)
            return {"items": items, "next": following}

        return await self.one(make, private=private, keep=keep, brief=brief and limit <= BRIEF)

    def _preferred(self) -> str:
        accept = self._request.headers.get("accept", "")
        if "text/csv" in accept:
            return "csv"
        return "jsonl" if "application/jsonl" in accept or "application/x-ndjson" in accept else "json"

    async def _wait(self) -> None:
        """Raises Behind if the mirror does not come to `Ledger-Min-Block` in WAIT seconds."""
        wanted = self._min_block
        if wanted is not None:
            # What is further away than any chain comes in that time is not waited for.
            tip = await self._here.tips.until(lambda tip: tip.number >= wanted or tip.number + FAR < wanted, WAIT)
            if tip.number < wanted:
                raise Behind(f"the mirror stands at block {tip.number}, not yet at {wanted}", block=tip.number)

    def _view(self, db: Connection) -> View:
        tip = queries.cursor(db)
        if self.at_block is None:
            return View(db, tip, None, max(int(self._here.clock()), tip.timestamp))
        if self.at_block > tip.number:
            raise Behind(f"the mirror stands at block {tip.number}, not yet at {self.at_block}", block=tip.number)
        return View(db, tip, self.at_block, queries.time_before(db, self.at_block))

    async def _stream(
        self,
        fetch: Callable[[View, str, int], Items],
        model: type[BaseModel],
        after: str,
        form: str,
        private: bool,
        keep: bool,
    ) -> Response:
        await self._wait()

        def begin() -> tuple[View, dict[str, str], Items | None]:
            view = self._view(db)
            control = "private, no-cache" if private else "no-cache"
            headers = {"vary": "accept, authorization", "cache-control": control}
            headers |= {k.decode(): v.decode() for k, v in block_headers(view.tip, *(view.fixed() or ()))}
            if keep and not private:
                target = f"{self._request.url.path}?{self._request.url.query} {form}".encode()
                etag = b'"' + hashlib.sha256(view.version() + target).hexdigest()[:32].encode() + b'"'
                headers["etag"] = etag.decode()
                if same(etag, asked(self._request.scope, b"if-none-match")):
                    return view, headers, None
            # The first page before the reply begins: what is wrong with the question is told as a problem.
            return view, headers, fetch(view, after, STREAMED)

        stack = AsyncExitStack()
        try:
            db = await run(self._here, self._here.mirror.connect)
            stack.push_async_callback(_close, self._here, db)
            view, headers, first = await run(self._here, begin)
        except BaseException:
            await stack.aclose()
            raise
        if first is None:
            await stack.aclose()
            return Response(status_code=304, headers=headers)
        lines = _lines(self._here, view, fetch, first, model, form, stack)
        return StreamingResponse(lines, media_type=MEDIA[form], headers=headers)


async def _close(here: State, db: Connection) -> None:
    with anyio.CancelScope(shield=True):
        await run(here, db.close)


async def _lines(
    here: State,
    view: View,
    fetch: Callable[[View, str, int], Items],
    page: Items,
    model: type[BaseModel],
    form: str,
    stack: AsyncExitStack,
) -> AsyncIterator[bytes]:
    async with stack:
        names = [field.alias or name for name, field in model.model_fields.items()]
        if form == "csv":
            yield _rows([names])
        while True:
            items, after = page
            yield await run(here, partial(_written, items, names, form))
            if after is None:
                return
            page = await run(here, partial(fetch, view, after, STREAMED))


def _written(items: Sequence[Any], names: list[str], form: str) -> bytes:
    """Items as lines."""
    dicts = [item if isinstance(item, dict) else item.model_dump(by_alias=True) for item in items]
    if form == "jsonl":
        return b"".join(_encode(item) + b"\n" for item in dicts)
    return _rows([_cell(item.get(name)) for name in names] for item in dicts)


def _rows(rows: Iterable[Sequence[str]]) -> bytes:
    """CSV as RFC 4180 has it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """A value as text: what is no plain value as JSON, nothing as an empty cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        # A spreadsheet would take these for formulas.
        return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def run(here: State, work: Callable[[], T]) -> T:
    """Runs what blocks in one of this server's threads."""
    return await run_sync(work, limiter=here.threads)


async def reading(request: Request, here: StateDep, at_block: AtBlock = None, min_block: MinBlock = None) -> Read:
    return Read(request, here, at_block, min_block)


ReadDep = Annotated[Read, Depends(reading)]
