"""The mirror's cursor, read once for all who ask at the same time, and watched for all who wait."""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import Engine

from ledger.mirror import queries
from ledger.mirror.queries import Cursor

PAUSE = 0.03  # seconds between looks while somebody waits


class Tips:
    """Belongs to one event loop."""

    def __init__(self, mirror: Engine) -> None:
        self._mirror = mirror
        self._near = mirror.dialect.name == "sqlite"  # a file is read faster than a thread is woken
        self._turn: asyncio.Future[Cursor] | None = None
        self._running: asyncio.Task[Cursor] | None = None
        self._next: asyncio.Task[Cursor] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def now(self) -> Cursor:
        """As of a moment after the call: whoever wrote before it sees what was written."""
        if self._near:
            if self._turn is None:
                # Everybody whose request came with this turn of the loop is answered by one reading.
                loop = asyncio.get_running_loop()
                self._turn = loop.create_future()
                loop.call_soon(self._read_now, self._turn)
            return await asyncio.shield(self._turn)  # who is cancelled takes nobody along
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        return await asyncio.shield(self._next)

    def _read_now(self, turn: "asyncio.Future[Cursor]") -> None:
        self._turn = None
        try:
            turn.set_result(self._read())
        except Exception as problem:
            turn.set_exception(problem)

    async def _after(self, running: "asyncio.Task[Cursor] | None") -> Cursor:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await asyncio.to_thread(self._read)

    def _read(self) -> Cursor:
        with self._mirror.connect() as connection:
            return queries.cursor(connection)

    async def until(self, good: Callable[[Cursor], bool], seconds: float) -> Cursor:
        """The first cursor that is good, or the last one when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            tip = await self.now()
            left = deadline - time.monotonic()
            if good(tip) or left <= 0:
                return tip
            await asyncio.wait([self._look()], timeout=left)

    def _look(self) -> "asyncio.Future[None]":
        """Done at the next look; one task looks for everybody."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
            self._watching = asyncio.create_task(self._watch(self._waiting))
        return self._waiting

    async def _watch(self, waiting: "asyncio.Future[None]") -> None:
        await asyncio.sleep(PAUSE)
        waiting.set_result(None)
