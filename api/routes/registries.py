"""Spaces, participants, credentials, session keys, products, versions, rate cards and splits."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy import Table
from starlette.responses import Response

from api import schemas
from api.deps import AddressText, After, HashText, Limit
from api.problems import PROBLEMS, READ
from api.reading import Format, Items, ReadDep, View
from ledger.core import codes
from ledger.mirror import queries, schema
from ledger.mirror.queries import key_of

router = APIRouter(prefix="/v1", tags=["registries"], responses=READ)

Role = Annotated[str | None, Query(max_length=64, description="has this role: a code of /v1/codes")]


def listed(table: Table, wire: Any, where: Any = (), **equal: Any) -> Any:
    """A page of a state table."""

    def fetch(view: View, after: str, limit: int) -> Items:
        rows = queries.rows(view.db, table, after=after, limit=limit, at_block=view.at_block, where=where, **equal)
        return [wire(row) for row in rows], key_of(table, rows[-1]) if len(rows) == limit else None

    return fetch


@router.get("/codes", summary="The code lists: what purposes, modalities, roles and reasons mean", responses=PROBLEMS)
async def code_lists() -> schemas.CodeLists:
    tables = {
        table: [schemas.Code(number=c.number, code=c.code, zh=c.zh, en=c.en) for c in codes.codes(table)]
        for table in ("roles", "rights", "purposes", "modalities", "reasons")
    }
    return schemas.CodeLists(digest=codes.digest(), **tables)


@router.get("/spaces", summary="Spaces, by operator", response_model=schemas.Page[schemas.Space])
async def spaces(
    read: ReadDep, operator: AddressText | None = None, after: After = "", limit: Limit = 100, format: Format = None
) -> Response:
    fetch = listed(schema.spaces, lambda row: schemas.Space(**row), operator=operator)
    return await read.page(fetch, schemas.Space, after=after, limit=limit, format=format)


@router.get("/spaces/{space}", summary="One space", response_model=schemas.Space)
async def space(read: ReadDep, space: HashText) -> Response:
    return await read.one(
        lambda view: schemas.Space(**queries.one(view.db, schema.spaces, "space", view.at_block, space=space))
    )


@router.get(
    "/participants",
    summary="Participants, by space, wallet, role or suspension",
    response_model=schemas.Page[schemas.Participant],
)
async def participants(
    read: ReadDep,
    space: HashText | None = None,
    wallet: AddressText | None = None,
    role: Role = None,
    suspended: bool | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    table = schema.participants
    where = [table.c.roles.bitwise_and(codes.code("roles", role).bit) != 0] if role else []
    held = None if suspended is None else int(suspended)
    fetch = listed(table, schemas.participant, where, space=space, wallet=wallet, suspended=held)
    return await read.page(fetch, schemas.Participant, after=after, limit=limit, format=format)


@router.get("/credentials", summary="Credentials, by space or wallet", response_model=schemas.Page[schemas.Credential])
async def credentials(
    read: ReadDep,
    space: HashText | None = None,
    wallet: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    fetch = listed(schema.credentials, schemas.credential, space=space, wallet=wallet)
    return await read.page(fetch, schemas.Credential, after=after, limit=limit, format=format)


@router.get("/session-keys", summary="Session keys, by wallet or key", response_model=schemas.Page[schemas.SessionKey])
async def session_keys(
    read: ReadDep,
    wallet: AddressText | None = None,
    key: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    fetch = listed(schema.session_keys, schemas.session_key, wallet=wallet, key=key)
    return await read.page(fetch, schemas.SessionKey, after=after, limit=limit, format=format)


@router.get("/products", summary="Products, by space or provider", response_model=schemas.Page[schemas.Product])
async def products(
    read: ReadDep,
    space: HashText | None = None,
    provider: AddressText | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    fetch = listed(schema.products, lambda row: schemas.Product(**row), space=space, provider=provider)
    return await read.page(fetch, schemas.Product, after=after, limit=limit, format=format)


@router.get("/products/{product}", summary="One product", response_model=schemas.Product)
async def product(read: ReadDep, product: HashText) -> Response:
    def make(view: View) -> schemas.Product:
        return schemas.Product(**queries.one(view.db, schema.products, "product", view.at_block, product=product))

    return await read.one(make)


@router.get("/versions", summary="Versions, by product or status", response_model=schemas.Page[schemas.Version])
async def versions(
    read: ReadDep,
    product: HashText | None = None,
    status: Literal["LISTED", "RETIRED", "RECALLED"] | None = None,
    after: After = "",
    limit: Limit = 100,
    format: Format = None,
) -> Response:
    fetch = listed(schema.versions, schemas.version, product=product, status=status)
    return await read.page(fetch, schemas.Version, after=after, limit=limit, format=format)


@router.get("/versions/{version}", summary="One version", response_model=schemas.Version)
async def version(read: ReadDep, version: HashText) -> Response:
    return await read.one(
        lambda view: schemas.version(queries.one(view.db, schema.versions, "version", view.at_block, version=version))
    )


@router.get("/rate-cards/{rate_card}", summary="A rate card, decoded", response_model=schemas.RateCard)
async def rate_card(read: ReadDep, rate_card: HashText) -> Response:
    card: Any = rate_card
    return await read.one(lambda view: {"rateCard": card} | queries.rate_card(view.db, card, view.at_block).as_json())


@router.get("/splits/{split}", summary="A split, decoded", response_model=schemas.Split)
async def split(read: ReadDep, split: HashText) -> Response:
    found: Any = split
    return await read.one(
        lambda view: {"split": found, "shares": queries.split(view.db, found, view.at_block).as_json()}
    )
