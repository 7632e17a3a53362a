"""The mirror's cursor, read once for all who ask at the same time."""

import asyncio
from contextlib import suppress

import anyio

from api.tips import Tips
from ledger.mirror.queries import Cursor
from tests.exchange import Exchange


def test_who_goes_away_while_it_asks_takes_nobody_along(running: Exchange) -> None:
    """A reader that hangs up is cancelled; those who asked in the same turn are answered."""
    tips = Tips(running.mirror)

    async def ask() -> list[Cursor]:
        asked = [asyncio.create_task(tips.now()) for _ in range(3)]
        await asyncio.sleep(0)
        asked[0].cancel()
        with suppress(asyncio.CancelledError):
            await asked[0]
        return [await task for task in asked[1:]]

    first, second = anyio.run(ask)
    assert first == second
    assert not first.empty
