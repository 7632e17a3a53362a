"""Spaces, participants, products and versions."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api import schemas
from api.deps import MirrorDep, page
from ledger.core import codes
from ledger.core.ids import parse_address, parse_hash
from ledger.mirror import queries, schema

router = APIRouter(prefix="/v1", tags=["registries"])

Limit = Annotated[int, Query(ge=1, le=1000, description="items a page")]
After = Annotated[str, Query(description="`next` of the page before")]
AtBlock = Annotated[int | None, Query(ge=0, lt=2**62, description="as it was at the end of this block")]


@router.get("/codes", summary="The code lists: what purposes, modalities, roles and reasons mean")
def code_lists() -> dict[str, Any]:
    tables = ("roles", "rights", "purposes", "modalities", "reasons")
    return {"digest": codes.digest()} | {
        table: [{"number": c.number, "code": c.code, "zh": c.zh, "en": c.en} for c in codes.codes(table)]
        for table in tables
    }


@router.get("/spaces", summary="Spaces")
def spaces(db: MirrorDep, after: After = "", limit: Limit = 100, at_block: AtBlock = None) -> dict[str, Any]:
    rows = queries.rows(db, schema.spaces, after=after, limit=limit, at_block=at_block)
    return page([schemas.Space(**row).model_dump(by_alias=True) for row in rows], "space", limit)


@router.get("/spaces/{space}", summary="One space")
def space(db: MirrorDep, space: str) -> schemas.Space:
    return schemas.Space(**queries.one(db, schema.spaces, "space", space=parse_hash(space, "space")))


@router.get("/participants", summary="Participants of a space")
def participants(
    db: MirrorDep, space: str, after: After = "", limit: Limit = 100, at_block: AtBlock = None
) -> dict[str, Any]:
    rows = queries.rows(
        db, schema.participants, after=after, limit=limit, at_block=at_block, space=parse_hash(space, "space")
    )
    return page([schemas.participant(row).model_dump(by_alias=True) for row in rows], "wallet", limit)


@router.get("/products", summary="Products, by space or provider")
def products(
    db: MirrorDep,
    space: str | None = None,
    provider: str | None = None,
    after: After = "",
    limit: Limit = 100,
    at_block: AtBlock = None,
) -> dict[str, Any]:
    rows = queries.rows(
        db,
        schema.products,
        after=after,
        limit=limit,
        at_block=at_block,
        space=space and parse_hash(space, "space"),
        provider=provider and parse_address(provider, "provider"),
    )
    return page([schemas.Product(**row).model_dump(by_alias=True) for row in rows], "product", limit)


@router.get("/products/{product}", summary="One product")
def product(db: MirrorDep, product: str) -> schemas.Product:
    return schemas.Product(**queries.one(db, schema.products, "product", product=parse_hash(product, "product")))


@router.get("/versions", summary="Versions, of one product or all")
def versions(
    db: MirrorDep, product: str | None = None, after: After = "", limit: Limit = 100, at_block: AtBlock = None
) -> dict[str, Any]:
    rows = queries.rows(
        db,
        schema.versions,
        after=after,
        limit=limit,
        at_block=at_block,
        product=product and parse_hash(product, "product"),
    )
    return page([schemas.version(row).model_dump(by_alias=True) for row in rows], "version", limit)


@router.get("/versions/{version}", summary="One version")
def version(db: MirrorDep, version: str) -> schemas.Version:
    return schemas.version(queries.one(db, schema.versions, "version", version=parse_hash(version, "version")))


@router.get("/rate-cards/{rate_card}", summary="A rate card, decoded")
def rate_card(db: MirrorDep, rate_card: str) -> dict[str, Any]:
    card = parse_hash(rate_card, "rateCard")
    return {"rateCard": card} | queries.rate_card(db, card).as_json()


@router.get("/splits/{split}", summary="A split, decoded")
def split(db: MirrorDep, split: str) -> dict[str, Any]:
    found = parse_hash(split, "split")
    return {"split": found, "shares": queries.split(db, found).as_json()}
