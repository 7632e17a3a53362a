"""Authorizations, their uses, heads, settlements and payments.

Until readers can sign in, uses and bills are open to whoever reaches this server: it listens on loopback only.
"""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from api import schemas
from api.deps import MirrorDep, UsageDep, page
from api.routes.registries import After, AtBlock, Limit
from ledger.core import codes
from ledger.core.ids import parse_address, parse_hash
from ledger.metering import heads
from ledger.metering.log import read_entries
from ledger.mirror import queries

router = APIRouter(prefix="/v1", tags=["authorizations"])

Purpose = Annotated[str | None, Query(description="allowed for this purpose: a code of /v1/codes")]
Modality = Annotated[str | None, Query(description="allowed in this modality: a code of /v1/codes")]
Status = Annotated[Literal["OPEN", "ENDED", "CLOSED"] | None, Query(description="now")]
EndsAfter = Annotated[int | None, Query(ge=0, lt=2**62, description="ends, or ended, at this second or later")]
EndsBefore = Annotated[int | None, Query(ge=0, lt=2**62, description="ends, or ended, before this second")]
First = Annotated[int, Query(ge=0, lt=2**62, description="leaf to begin with")]


@router.get("/authorizations", summary="Authorizations, by party, product, space, purpose, modality, status or end")
def authorizations(
    db: MirrorDep,
    provider: str | None = None,
    consumer: str | None = None,
    product: str | None = None,
    space: str | None = None,
    purpose: Purpose = None,
    modality: Modality = None,
    status: Status = None,
    ends_after: EndsAfter = None,
    ends_before: EndsBefore = None,
    after: After = "",
    limit: Limit = 100,
    at_block: AtBlock = None,
) -> dict[str, Any]:
    now = int(time.time())
    where = queries.allows(
        purpose=codes.code("purposes", purpose).bit if purpose else None,
        modality=codes.code("modalities", modality).bit if modality else None,
    ) + queries.ending(ends_after, ends_before)
    rows = queries.authorizations(
        db,
        where=where + (queries.with_status(status, now) if status else []),
        after=after,
        limit=limit,
        at_block=at_block,
        provider=provider and parse_address(provider, "provider"),
        consumer=consumer and parse_address(consumer, "consumer"),
        product=product and parse_hash(product, "product"),
        space=space and parse_hash(space, "space"),
    )
    return page([schemas.authorization(r, now).model_dump(by_alias=True) for r in rows], "authorization", limit)


@router.get("/authorizations/{authorization}", summary="One authorization")
def authorization(db: MirrorDep, authorization: str) -> schemas.Authorization:
    tip = queries.position(db)
    now = max(int(time.time()), tip.timestamp if tip else 0)
    return schemas.authorization(queries.authorization(db, parse_hash(authorization, "authorization")), now)


@router.get("/authorizations/{authorization}/settlements", summary="Settled heads, oldest first")
def settlements(db: MirrorDep, authorization: str) -> list[schemas.Settlement]:
    found = parse_hash(authorization, "authorization")
    queries.authorization(db, found)
    return [schemas.settlement(row) for row in queries.settlements(db, found)]


@router.get("/authorizations/{authorization}/payments", summary="Bank payments recorded, reversed and claimed")
def payments(db: MirrorDep, authorization: str) -> list[schemas.Payment]:
    found = parse_hash(authorization, "authorization")
    queries.authorization(db, found)
    return [schemas.payment(row) for row in queries.payments(db, found)]


@router.get("/uses", summary="The usage log of an authorization: uses, credits and refusals")
def uses(db: MirrorDep, log: UsageDep, authorization: str, first: First = 0, limit: Limit = 100) -> dict[str, Any]:
    found = parse_hash(authorization, "authorization")
    queries.authorization(db, found)
    entries = read_entries(log, found, first, limit)
    items = [schemas.Use(**entry.as_json()).model_dump(by_alias=True) for entry in entries]
    return {"items": items, "next": str(entries[-1].leaf.index + 1) if len(entries) == limit else None}


@router.get("/heads", summary="Heads of a usage log with their signatures, smallest first")
def signed_heads(db: MirrorDep, log: UsageDep, authorization: str) -> list[schemas.Head]:
    found = parse_hash(authorization, "authorization")
    queries.authorization(db, found)
    return [schemas.Head(**signed.as_json()) for signed in heads.read(log, found)]
