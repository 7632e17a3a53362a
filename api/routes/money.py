"""Bills, statements, accounts and shares."""

from typing import Any

from fastapi import APIRouter

from api.deps import MirrorDep, UsageDep
from ledger.billing.bills import bill_of
from ledger.billing.statements import statement
from ledger.core.ids import parse_address, parse_hash
from ledger.metering.log import read_entries
from ledger.mirror import queries, schema

router = APIRouter(prefix="/v1", tags=["money"])


@router.get("/bills/{authorization}", summary="The bill over all that is settled, derived from leaves")
def bill(db: MirrorDep, log: UsageDep, authorization: str) -> dict[str, Any]:
    found = parse_hash(authorization, "authorization")
    made = bill_of(db, found, [entry.leaf for entry in read_entries(log, found)])
    return made.as_json() | {"digest": made.digest()}


@router.get("/statements/{party}", summary="What a party owes and is owed in a month")
def statement_of(db: MirrorDep, party: str, month: str) -> dict[str, Any]:
    return statement(db, parse_address(party, "party"), month)


@router.get("/accounts/{owner}", summary="Free money of a wallet, by token")
def account(db: MirrorDep, owner: str) -> dict[str, Any]:
    wallet = parse_address(owner, "owner")
    rows = queries.rows(db, schema.accounts, owner=wallet, limit=1000)
    return {"owner": wallet, "free": {row["token"]: str(row["free"]) for row in rows}}


@router.get("/shares/{split}/{token}", summary="What each payee of a split accrued, was sent and has left")
def shares(db: MirrorDep, split: str, token: str) -> dict[str, Any]:
    split_id, currency = parse_hash(split, "split"), parse_address(token, "token")
    found = queries.shares(db, split_id, currency)
    payees = {payee: {k: str(v) for k, v in amounts.items()} for payee, amounts in found.items()}
    return {"split": split_id, "token": currency, "payees": payees}
