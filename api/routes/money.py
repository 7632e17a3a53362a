"""Accounts and shares, for anyone; bills and statements, for those concerned."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import access, schemas
from api.deps import AddressText, HashText, StateDep, Viewer
from api.problems import PRIVATE, READ
from api.reading import ReadDep, View
from ledger.billing.bills import bill_of
from ledger.billing.statements import statement
from ledger.core.errors import Refused
from ledger.core.ids import Address, Hash32
from ledger.metering.log import read_entries
from ledger.mirror import queries, schema

router = APIRouter(prefix="/v1", tags=["money"], responses=READ)

Month = Annotated[str, Query(pattern="^[12][0-9]{3}-(0[1-9]|1[0-2])$", examples=["2026-11"])]


@router.get(
    "/bills/{authorization}",
    summary="The bill over all that is settled, derived from leaves",
    response_model=schemas.Bill,
    responses=PRIVATE,
)
async def bill(read: ReadDep, here: StateDep, viewer: Viewer, authorization: HashText) -> Response:
    found = Hash32(authorization)

    def make(view: View) -> dict[str, Any]:
        row = access.authorization(view.db, viewer, found, view.at_block)
        with here.usage.connect() as log:
            leaves = [entry.leaf for entry in read_entries(log, found, limit=int(row["size"]))]
        made = bill_of(view.db, found, leaves, view.at_block)
        return made.as_json() | {"digest": made.digest()}

    return await read.one(make, private=True, brief=False)


@router.get(
    "/statements/{party}",
    summary="What a party owes and is owed in a month; an operator or auditor sees what is of its spaces",
    response_model=schemas.Statement,
    responses=PRIVATE,
)
async def statement_of(read: ReadDep, viewer: Viewer, party: AddressText, month: Month) -> Response:
    def make(view: View) -> dict[str, Any]:
        spaces = None if viewer == party else access.overseen(view.db, viewer)
        if spaces == []:
            raise Refused(f"{viewer} is not {party}, and neither operator nor auditor of any space")
        return statement(view.db, Address(party), month, at_block=view.at_block, spaces=spaces)

    return await read.one(make, private=True, brief=False)


@router.get("/accounts/{owner}", summary="Free money of a wallet, by token", response_model=schemas.Account)
async def account(read: ReadDep, owner: AddressText) -> Response:
    def make(view: View) -> dict[str, Any]:
        rows = queries.rows(view.db, schema.accounts, owner=owner, limit=1000, at_block=view.at_block)
        return {"owner": owner, "free": {row["token"]: str(row["free"]) for row in rows}}

    return await read.one(make)


@router.get(
    "/shares/{split}/{token}",
    summary="What each payee of a split accrued, was sent and has left",
    response_model=schemas.Shares,
)
async def shares(read: ReadDep, split: HashText, token: AddressText) -> Response:
    def make(view: View) -> dict[str, Any]:
        found = queries.shares(view.db, Hash32(split), Address(token), view.at_block)
        payees = {payee: {k: str(v) for k, v in amounts.items()} for payee, amounts in found.items()}
        return {"split": split, "token": token, "payees": payees}

    return await read.one(make)
