"""Sums: settled use, revenue, reservations, arrears, endings; and by purpose, for those concerned."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import access, schemas
from api.deps import AddressText, After, HashText, Limit, Second, StateDep, Viewer
from api.problems import PRIVATE, READ
from api.reading import Format, Items, ReadDep, View
from ledger.core import codes
from ledger.core.ids import Hash32
from ledger.metering.log import sums
from ledger.mirror import aggregates, queries
from ledger.mirror import schema as mirror
from ledger.mirror.queries import Row

router = APIRouter(prefix="/v1/aggregates", tags=["aggregates"], responses=READ)

By = Annotated[
    str,
    Query(max_length=100, description="day, space, product, provider, consumer, token: one or several, comma between"),
]
Days = Annotated[int, Query(ge=0, le=3660, description="days from now")]


@router.get(
    "/usage", summary="What was settled, by day, product, party or token", response_model=schemas.Page[schemas.UsageSum]
)
async def usage(
    read: ReadDep,
    by: By = "product",
    provider: AddressText | None = None,
    consumer: AddressText | None = None,
    product: HashText | None = None,
    space: HashText | None = None,
    token: AddressText | None = None,
    first: Second = None,
    before: Second = None,
    format: Format = None,
) -> Response:
    of = {"provider": provider, "consumer": consumer, "product": product, "space": space, "token": token}

    def fetch(view: View, _after: str, _limit: int) -> Items:
        rows = aggregates.usage(view.db, by.split(","), first=first, before=before, at_block=view.at_block, **of)
        return [_usage(row) for row in rows], None

    return await read.page(fetch, schemas.UsageSum, after="", limit=0, format=format, brief=False)


def _usage(row: Row) -> schemas.UsageSum:
    return schemas.UsageSum(
        **{name: row[name] for name in aggregates.BY},
        settlements=row["steps"],
        uses=str(row["size"]),
        units=[str(row[f"units{n}"]) for n in range(4)],
        due=str(row["due"]),
        paid=str(row["paid"]),
    )


@router.get(
    "/purposes",
    summary="What was used, by purpose and modality, of the authorizations you may see",
    response_model=schemas.Page[schemas.PurposeSum],
    responses=PRIVATE,
)
async def purposes(
    read: ReadDep,
    here: StateDep,
    viewer: Viewer,
    authorization: HashText | None = None,
    product: HashText | None = None,
    format: Format = None,
) -> Response:
    def fetch(view: View, _after: str, _limit: int) -> Items:
        if authorization is not None:
            wanted = [access.authorization(view.db, viewer, Hash32(authorization), view.at_block)["authorization"]]
        else:
            wanted = access.authorizations(view.db, viewer, product)
        with here.usage.connect() as log:
            rows = sums(log, wanted)
        return [_purpose(row) for row in rows], None

    return await read.page(fetch, schemas.PurposeSum, after="", limit=0, format=format, private=True, brief=False)


def _purpose(row: Row) -> schemas.PurposeSum:
    names = {
        table: {c.number: c.code for c in codes.codes(f"{stem}")}
        for table, stem in (("purpose", "purposes"), ("modality", "modalities"))
    }
    return schemas.PurposeSum(
        purpose=names["purpose"].get(row["purpose"], f"PURPOSE_{row['purpose']}"),
        modality=names["modality"].get(row["modality"], f"MODALITY_{row['modality']}"),
        uses=row["uses"],
        refusals=row["refusals"],
        units=[str(n) for n in row["units"]],
    )


@router.get(
    "/revenue",
    summary="What each payee accrued, was sent and has left; the difference of two blocks is that of a time",
    response_model=schemas.Page[schemas.Revenue],
)
async def revenue(
    read: ReadDep,
    payee: AddressText | None = None,
    token: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    def fetch(view: View, after: str, limit: int) -> Items:
        rows, following = aggregates.revenue(
            view.db, payee=payee, token=token, after=after, limit=limit, at_block=view.at_block
        )
        return [schemas.Revenue(**{k: str(v) for k, v in row.items()}) for row in rows], following

    return await read.page(fetch, schemas.Revenue, after=after, limit=limit, format=format, brief=False)


@router.get(
    "/reservations",
    summary="Open reservations: what is set aside, paid and left",
    response_model=schemas.Page[schemas.Reservation],
)
async def reservations(
    read: ReadDep,
    provider: AddressText | None = None,
    consumer: AddressText | None = None,
    token: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    of = {"provider": provider, "consumer": consumer, "token": token}

    def fetch(view: View, after: str, limit: int) -> Items:
        rows = aggregates.reservations(view.db, view.now, after=after, limit=limit, at_block=view.at_block, **of)
        following = queries.key_of(mirror.authorizations, rows[-1]) if len(rows) == limit else None
        return [_reservation(row) for row in rows], following

    return await read.page(fetch, schemas.Reservation, after=after, limit=limit, format=format)


def _reservation(row: Row) -> schemas.Reservation:
    names: dict[str, Any] = {n: row[n] for n in ("authorization", "provider", "consumer", "token", "status")}
    names |= {n: str(row[n]) for n in ("reserved", "paid", "left", "thawing")}
    return schemas.Reservation(**names)


@router.get("/arrears", summary="Where more is due than paid", response_model=schemas.Page[schemas.Arrears])
async def arrears(
    read: ReadDep,
    provider: AddressText | None = None,
    consumer: AddressText | None = None,
    token: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    of = {"provider": provider, "consumer": consumer, "token": token}

    def fetch(view: View, after: str, limit: int) -> Items:
        rows, following = aggregates.arrears(view.db, after=after, limit=limit, at_block=view.at_block, **of)
        return [_arrears(row) for row in rows], following

    return await read.page(fetch, schemas.Arrears, after=after, limit=limit, format=format, brief=False)


def _arrears(row: Row) -> schemas.Arrears:
    names: dict[str, Any] = {n: row[n] for n in ("authorization", "provider", "consumer", "token")}
    return schemas.Arrears(
        **names,
        mode=schemas.mode_of(row["ledger"]),
        due=str(row["due"]),
        paid=str(row["paid"]),
        arrears=str(row["due"] - row["paid"]),
    )


@router.get(
    "/expiring",
    summary="Open authorizations that end soon, the next to end first",
    response_model=schemas.Page[schemas.Authorization],
)
async def expiring(
    read: ReadDep,
    days: Days = 30,
    provider: AddressText | None = None,
    consumer: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    def fetch(view: View, after: str, limit: int) -> Items:
        rows = aggregates.expiring(
            view.db,
            view.now,
            days * aggregates.DAY,
            after=after,
            limit=limit,
            at_block=view.at_block,
            provider=provider,
            consumer=consumer,
        )
        following = f"{rows[-1]['ended_at']}:{rows[-1]['authorization']}" if len(rows) == limit else None
        return [schemas.authorization(row, view.now) for row in rows], following

    # What ends within so many days changes with every second.
    return await read.page(fetch, schemas.Authorization, after=after, limit=limit, format=format, keep=False)
