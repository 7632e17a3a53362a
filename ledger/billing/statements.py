"""A statement: what one party owes, is owed and was paid in one month, from the chain alone.

Months are those of Asia/Shanghai. Every movement names its transaction.
"""

import re
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import Connection, or_, select

from ledger.core.errors import InputInvalid
from ledger.core.ids import Address, Hash32
from ledger.mirror import queries, schema

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")  # no daylight saving since 1991


def month_bounds(month: str) -> tuple[int, int]:
    """`2026-07` → first second of the month and of the next one."""
    if not re.fullmatch(r"[12]\d{3}-(0[1-9]|1[0-2])", month):
        raise InputInvalid(f"month must look like 2026-07, got {month!r}", field="month")
    year, number = int(month[:4]), int(month[5:])
    start = datetime(year, number, 1, tzinfo=SHANGHAI)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=SHANGHAI)
    return int(start.timestamp()), int(end.timestamp())


def statement(
    mirror: Connection,
    party: Address,
    month: str,
    *,
    at_block: int | None = None,
    spaces: Collection[Hash32] | None = None,
) -> dict[str, Any]:
    """The party's statement, of what had happened by `at_block`; only what concerns these spaces, if they are given.

    Amounts in token units, as text; `due` and `paid` are this month's movements. Shares are of no space.
    """
    first, end = month_bounds(month)
    table = schema.authorizations
    query = select(table).where(
        schema.holds(table, at_block), or_(table.c.provider == party, table.c.consumer == party)
    )
    if spaces is not None:
        query = query.where(table.c.space.in_(list(spaces)))
    lines: list[dict[str, Any]] = []
    for row in mirror.execute(query.order_by(table.c.authorization)).mappings():
        movements = _movements(mirror, Hash32(row["authorization"]), row["ledger"], first, end, at_block)
        if movements:
            lines.append(
                {
                    "authorization": row["authorization"],
                    "role": "provider" if row["provider"] == party else "consumer",
                    "mode": "invoiced" if row["ledger"] == "InvoiceLedger" else "escrowed",
                    "token": row["terms"]["token"],
                    "movements": movements,
                    "due": str(sum(int(m["due"]) for m in movements)),
                    "paid": str(sum(int(m["paid"]) for m in movements)),
                }
            )
    return {
        "statement": "sluice-statement",
        "formatVersion": 1,
        "party": party,
        "month": month,
        "timeZone": "Asia/Shanghai",
        "lines": lines,
        "shares": _shares(mirror, party, first, end, at_block) if spaces is None else [],
    }


def _movements(
    mirror: Connection, authorization_id: Hash32, ledger: str, first: int, end: int, at_block: int | None
) -> list[dict[str, Any]]:
    """Settlements and bank payments of the month, in order."""
    found, due, paid = [], 0, 0
    for row in _steps(mirror, authorization_id, ledger, at_block):
        step = {"due": 0, "paid": 0}
        if row["due"] is not None:
            step["due"], due = row["due"] - due, row["due"]
        if row["paid"] is not None:
            step["paid"], paid = row["paid"] - paid, row["paid"]
        if any(step.values()) and first <= row["timestamp"] < end:
            found.append(
                {
                    "event": row["event"],
                    "block": row["block_number"],
                    "transaction": row["transaction_hash"],
                    "due": str(step["due"]),
                    "paid": str(step["paid"]),
                }
            )
    return found


_PAYMENTS = {"recorded": "PaymentRecorded", "reversed": "PaymentReversed"}


def _steps(mirror: Connection, authorization_id: Hash32, ledger: str, at_block: int | None) -> list[dict[str, Any]]:
    """Everything that changed what is due or paid, in order; None where it left one of the two alone."""
    payments, blocks = schema.payments, schema.blocks
    found: list[dict[str, Any]] = []
    for row in queries.settlement_rows(mirror, authorization_id, at_block):
        # Invoiced, what is paid is what was recorded; escrowed, a settlement pays.
        paid = row["paid"] if ledger == "UsageLedger" else None
        found.append(row | {"event": schema.SETTLEMENT_EVENTS[row["kind"]], "paid": paid})
    query = select(payments, blocks.c.timestamp).join(blocks, blocks.c.number == payments.c.block_number)
    found += [
        {**row, "event": _PAYMENTS[row["kind"]], "due": None, "paid": row["total"]}
        for row in mirror.execute(query.where(payments.c.authorization == authorization_id)).mappings()
        if row["kind"] in _PAYMENTS and (at_block is None or row["block_number"] <= at_block)
    ]
    return sorted(found, key=lambda r: (r["block_number"], r["log_index"]))


def _shares(mirror: Connection, party: Address, first: int, end: int, at_block: int | None) -> list[dict[str, Any]]:
    """Shares sent to the party in the month."""
    table, blocks = schema.share_payments, schema.blocks
    query = (
        select(table, blocks.c.timestamp)
        .join(blocks, blocks.c.number == table.c.block_number)
        .where(table.c.payee == party, blocks.c.timestamp >= first, blocks.c.timestamp < end)
        .order_by(table.c.block_number, table.c.log_index)
    )
    if at_block is not None:
        query = query.where(table.c.block_number <= at_block)
    return [
        {
            "split": row["split"],
            "token": row["token"],
            "amount": str(row["amount"]),
            "block": row["block_number"],
            "transaction": row["transaction_hash"],
        }
        for row in mirror.execute(query).mappings()
    ]
