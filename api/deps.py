"""What routes ask for: the state of this server, and a connection that says as of which block it reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from sqlalchemy import Connection, Engine

from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
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


def mirror(response: Response, here: Annotated[State, Depends(state)]) -> Iterator[Connection]:
    """A read of one state of the mirror; the reply's headers name its block."""
    with here.mirror.connect() as connection:
        tip = queries.cursor(connection)
        if not tip.empty:
            response.headers["Ledger-Block"] = str(tip.number)
            response.headers["Ledger-Block-Hash"] = tip.hash
            response.headers["Ledger-Finality"] = tip.finality(tip.number)
        yield connection


def usage(here: Annotated[State, Depends(state)]) -> Iterator[Connection]:
    with here.usage.connect() as connection:
        yield connection


StateDep = Annotated[State, Depends(state)]
MirrorDep = Annotated[Connection, Depends(mirror)]
UsageDep = Annotated[Connection, Depends(usage)]


def page(items: list[dict[str, Any]], key: str, limit: int) -> dict[str, Any]:
    """A list with the cursor for the next one; None at the end."""
    return {"items": items, "next": items[-1][key] if len(items) == limit else None}
