"""Authorizations and their settlements and payments, for anyone; their uses and heads, for those concerned."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import access, schemas
from api.deps import AddressText, After, HashText, Limit, Second, StateDep, Viewer
from api.problems import PRIVATE, READ
from api.reading import Format, Items, ReadDep, View
from ledger.core import codes
from ledger.core.ids import Hash32
from ledger.metering import heads
from ledger.metering.log import Wanted, read_entries
from ledger.mirror import queries
from ledger.mirror import schema as mirror

router = APIRouter(prefix="/v1", tags=["authorizations"], responses=READ)

Purpose = Annotated[str | None, Query(max_length=64, description="a code of /v1/codes", examples=["RESEARCH"])]
Modality = Annotated[str | None, Query(max_length=64, description="a code of /v1/codes", examples=["API_PULL"])]
First = Annotated[int, Query(ge=0, lt=2**62, description="leaf to begin with")]
Kind = Annotated[
    Literal["USE", "CREDIT", "PERIOD_FEE", "NOTE", "REFUSAL"] | None, Query(description="what a leaf records")
]


def _place(row: dict[str, Any]) -> str:
    return f"{row['block_number']}:{row['log_index']}"


@router.get(
    "/authorizations",
    summary="Authorizations, by party, product, version, space, token, purpose, modality, status or end",
    response_model=schemas.Page[schemas.Authorization],
)
async def authorizations(
    read: ReadDep,
    provider: AddressText | None = None,
    consumer: AddressText | None = None,
    product: HashText | None = None,
    version: HashText | None = None,
    space: HashText | None = None,
    token: AddressText | None = None,
    purpose: Purpose = None,
    modality: Modality = None,
    status: schemas.Status | None = None,
    ends_after: Second = None,
    ends_before: Second = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    bits = queries.allows(
        purpose=codes.code("purposes", purpose).bit if purpose else None,
        modality=codes.code("modalities", modality).bit if modality else None,
    )
    where = [*bits, *queries.ending(ends_after, ends_before)]

    def fetch(view: View, after: str, limit: int) -> Items:
        rows = queries.authorizations(
            view.db,
            where=where + (queries.with_status(status, view.now) if status else []),
            after=after,
            limit=limit,
            at_block=view.at_block,
            provider=provider,
            consumer=consumer,
            product=product,
            version=version,
            space=space,
            token=token,
        )
        following = queries.key_of(mirror.authorizations, rows[-1]) if len(rows) == limit else None
        return [schemas.authorization(row, view.now) for row in rows], following

    return await read.page(fetch, schemas.Authorization, after=after, limit=limit, format=format)


@router.get("/authorizations/{authorization}", summary="One authorization", response_model=schemas.Authorization)
async def authorization(read: ReadDep, authorization: HashText) -> Response:
    found = Hash32(authorization)
    return await read.one(
        lambda view: schemas.authorization(queries.authorization(view.db, found, view.at_block), view.now)
    )


@router.get(
    "/authorizations/{authorization}/settlements",
    summary="What was settled on it, oldest first",
    response_model=schemas.Page[schemas.Settlement],
)
async def settlements_of(
    read: ReadDep, authorization: HashText, after: After = "", limit: Limit = 100, format: Format = None
) -> Response:
    def fetch(view: View, after: str, limit: int) -> Items:
        queries.authorization(view.db, Hash32(authorization), view.at_block)
        return _settled(view, after, limit, authorization=authorization)

    return await read.page(fetch, schemas.Settlement, after=after, limit=limit, format=format)


@router.get(
    "/settlements",
    summary="What was settled, by party, product, space, token or time, oldest first",
    response_model=schemas.Page[schemas.Settlement],
)
async def settlements(
    read: ReadDep,
    provider: AddressText | None = None,
    consumer: AddressText | None = None,
    product: HashText | None = None,
    space: HashText | None = None,
    token: AddressText | None = None,
    first: Second = None,
    before: Second = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    of = {"provider": provider, "consumer": consumer, "product": product, "space": space, "token": token}

    def fetch(view: View, after: str, limit: int) -> Items:
        return _settled(view, after, limit, first=first, before=before, **of)

    return await read.page(fetch, schemas.Settlement, after=after, limit=limit, format=format)


def _settled(view: View, after: str, limit: int, **of: Any) -> Items:
    rows = queries.settled(view.db, after=after, limit=limit, at_block=view.at_block, **of)
    return [schemas.settlement(row) for row in rows], _place(rows[-1]) if len(rows) == limit else None


@router.get(
    "/authorizations/{authorization}/payments",
    summary="Bank payments recorded, reversed and claimed, oldest first",
    response_model=schemas.Page[schemas.Payment],
)
async def payments(
    read: ReadDep, authorization: HashText, after: After = "", limit: Limit = 100, format: Format = None
) -> Response:
    found = Hash32(authorization)

    def fetch(view: View, after: str, limit: int) -> Items:
        queries.authorization(view.db, found, view.at_block)
        rows = queries.payments(view.db, found, view.at_block, after, limit)
        return [schemas.payment(row) for row in rows], _place(rows[-1]) if len(rows) == limit else None

    return await read.page(fetch, schemas.Payment, after=after, limit=limit, format=format)


@router.get(
    "/uses",
    summary="The usage log of an authorization: uses, credits and refusals; at_block: what was settled then",
    response_model=schemas.Page[schemas.Use],
    responses=PRIVATE,
)
async def uses(
    read: ReadDep,
    here: StateDep,
    viewer: Viewer,
    authorization: HashText,
    purpose: Purpose = None,
    modality: Modality = None,
    kind: Kind = None,
    version: HashText | None = None,
    served_after: Second = None,
    served_before: Second = None,
    first: First = 0,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    found = Hash32(authorization)
    wanted = Wanted(
        purpose=codes.code("purposes", purpose).number if purpose else None,
        modality=codes.code("modalities", modality).number if modality else None,
        kind=kind,
        version=version,
        served_after=served_after,
        served_before=served_before,
    )

    def fetch(view: View, after: str, limit: int) -> Items:
        row = access.authorization(view.db, viewer, found, view.at_block)
        size = int(row["size"]) if view.at_block is not None else None
        begin = max(first, queries.number_after(after))
        with here.usage.connect() as log:
            entries = read_entries(log, found, begin, limit, wanted, below=size)
        following = str(entries[-1].leaf.index) if len(entries) == limit else None
        return [schemas.Use(**entry.as_json()) for entry in entries], following

    return await read.page(fetch, schemas.Use, after=after, limit=limit, format=format, private=True)


@router.get(
    "/heads",
    summary="Heads of a usage log with their signatures, smallest first; at_block: what was settled then",
    response_model=schemas.Page[schemas.Head],
    responses=PRIVATE,
)
async def signed_heads(
    read: ReadDep,
    here: StateDep,
    viewer: Viewer,
    authorization: HashText,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    found = Hash32(authorization)

    def fetch(view: View, after: str, limit: int) -> Items:
        row = access.authorization(view.db, viewer, found, view.at_block)
        size = int(row["size"]) if view.at_block is not None else None
        with here.usage.connect() as log:
            rows = heads.read(log, found, above=queries.number_after(after) - 1, limit=limit, most=size)
        following = str(rows[-1].head.size) if len(rows) == limit else None
        return [schemas.Head(**signed.as_json()) for signed in rows], following

    return await read.page(fetch, schemas.Head, after=after, limit=limit, format=format, private=True)
