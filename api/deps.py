"""What routes ask for: the state of this server, and a connection that says as of which block it reads."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from sqlalchemy import Connection, Engine

from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.core.errors import MirrorError
from ledger.mirror import queries
from ledger.mirror.follow import Follower


@dataclass(frozen=True, slots=True)
class State:
    """One server: it reads the mirror and the usage log, asks the node, and holds no key."""

    mirror: Engine
    usage: Engine
    chain: Chain
    deployment: Deployment
    follower: Follower


def state(request: Request) -> State:
    found: State = request.app.state.sluice
    return found


class Behind(MirrorError):
    """The mirror has not come to the block that was asked for."""

    code = "behind"


MinBlock = Annotated[
    int | None,
    Header(alias="Ledger-Min-Block", ge=0, lt=2**62, description="wait until the mirror has this block, then 425"),
]
WAIT = 2.0  # seconds


def mirror(
    response: Response, here: Annotated[State, Depends(state)], min_block: MinBlock = None
) -> Iterator[Connection]:
    """A read of one state of the mirror; the reply's headers name its block.

    Raises:
        Behind: the mirror did not come to `Ledger-Min-Block` in WAIT seconds.
    """
    deadline = time.monotonic() + WAIT
    while True:
        with here.mirror.connect() as connection:
            tip = queries.cursor(connection)
            if min_block is None or tip.number >= min_block:
                if not tip.empty:
                    response.headers["Ledger-Block"] = str(tip.number)
                    response.headers["Ledger-Block-Hash"] = tip.hash
                    response.headers["Ledger-Finality"] = tip.finality(tip.number)
                if tip.violated is not None:
                    response.headers["Ledger-Warning"] = "finality-violated"
                yield connection
                return
        if time.monotonic() >= deadline:
            raise Behind(f"the mirror stands at block {tip.number}, not yet at {min_block}", block=tip.number)
        time.sleep(0.02)


def usage(here: Annotated[State, Depends(state)]) -> Iterator[Connection]:
    with here.usage.connect() as connection:
        yield connection


StateDep = Annotated[State, Depends(state)]
MirrorDep = Annotated[Connection, Depends(mirror)]
UsageDep = Annotated[Connection, Depends(usage)]


def page(items: list[dict[str, Any]], key: str, limit: int) -> dict[str, Any]:
    """A list with the cursor for the next one; None at the end."""
    return {"items": items, "next": items[-1][key] if len(items) == limit else None}
