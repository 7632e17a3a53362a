"""What routes ask for: the state of this server, who reads, and the parameters that many of them share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Header, Query, Request
from pydantic import AfterValidator, WithJsonSchema
from sqlalchemy import Engine

from api.schemas import ADDRESS_EXAMPLE, HASH_EXAMPLE
from api.sessions import NotSignedIn, Session, Sessions
from api.tips import Tips
from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.core.ids import Address, parse_address, parse_hash
from ledger.mirror.follow import Follower

THREADS = 8


@dataclass(frozen=True, slots=True)
class State:
    """One server: it reads the mirror and the usage log, asks the node, and holds no key of anybody.

    `origin` is the server as its readers see it; `rate` is requests a second of one reader, 0 without limit;
    `private_webhooks` lets webhooks go to addresses of one's own network.
    """

    mirror: Engine
    usage: Engine
    webhooks: Engine
    sessions: Sessions
    chain: Chain
    deployment: Deployment
    follower: Follower
    tips: Tips
    origin: str
    rate: float = 0
    private_webhooks: bool = False
    clock: Callable[[], float] = time.time  # seconds
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(THREADS))  # for what blocks


# FastAPI runs what is not async in a thread, which costs more than the whole read.


async def state(request: Request) -> State:
    found: State = request.app.state.sluice
    return found


async def session(request: Request) -> Session:
    """Raises NotSignedIn."""
    found: Session | None = request.scope.get("sluice.session")
    if found is None:
        raise NotSignedIn("sign in first: POST /v1/session/nonce, then POST /v1/session (EIP-4361)")
    return found


async def viewer(found: Annotated[Session, Depends(session)]) -> Address:
    return found.wallet


StateDep = Annotated[State, Depends(state)]
SessionDep = Annotated[Session, Depends(session)]
Viewer = Annotated[Address, Depends(viewer)]


def _hash(text: str) -> str:
    return parse_hash(text)


def _address(text: str) -> str:
    return parse_address(text)


def _id(text: str) -> str:
    return parse_hash(text) if len(text) > 42 else parse_address(text)


_HASH = WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-f]{64}$", "examples": [HASH_EXAMPLE]})
_ADDRESS = WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-f]{40}$", "examples": [ADDRESS_EXAMPLE]})
_ID = WithJsonSchema({"type": "string", "pattern": "^0x([0-9a-f]{40}|[0-9a-f]{64})$", "examples": [HASH_EXAMPLE]})

HashText = Annotated[str, AfterValidator(_hash), _HASH]
"""An id in a path or query; upper-case digits are taken too."""
AddressText = Annotated[str, AfterValidator(_address), _ADDRESS]
"""An address; mixed case must be its EIP-55 checksum."""
IdText = Annotated[str, AfterValidator(_id), _ID]
"""Either."""

Limit = Annotated[int, Query(ge=1, le=1000, description="items a page; csv and jsonl have all that follow")]
After = Annotated[str, Query(max_length=200, description="`next` of the page before")]
AtBlock = Annotated[int | None, Query(ge=0, lt=2**62, description="as it was at the end of this block; 425 if later")]
MinBlock = Annotated[
    int | None,
    Header(alias="Ledger-Min-Block", ge=0, lt=2**62, description="wait until the mirror has this block, then 425"),
]
Second = Annotated[int | None, Query(ge=0, lt=2**62, description="seconds since 1970")]
