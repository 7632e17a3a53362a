"""A statement: what one party owes, is owed and was paid in one month, from the chain alone.

Months are those of Asia/Shanghai. Every movement names its transaction.
"""

import re
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


def statement(mirror: Connection, party: Address, month: str) -> dict[str, Any]:
    """The party's statement. Amounts in token units, as text; `due` and `paid` are this month's movements."""
    first, end = month_bounds(month)
    table = schema.authorizations
    query = select(table).where(schema.holds(table), or_(table.c.provider == party, table.c.consumer == party))
    lines: list[dict[str, Any]] = []
    for row in mirror.execute(query.order_by(table.c.authorization)).mappings():
        movements = _movements(mirror, Hash32(row["authorization"]), row["ledger"], first, end)
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
        "shares": _shares(mirror, party, first, end),
    }


def _movements(mirror: Connection, authorization_id: Hash32, ledger: str, first: int, end: int) -> list[dict[str, Any]]:
    """Settlements and bank payments of the month, in order."""
    times = {b.number: b.timestamp for b in mirror.execute(select(schema.blocks.c.number, schema.blocks.c.timestamp))}
    found, due, paid = [], 0, 0
    for row in queries.events(mirror, authorization_id):
        args, kind = row["args"], row["event"]
        step = {"due": 0, "paid": 0}
        if kind == "Settled":
            step["due"] = int(args["due"]) - due
            due = int(args["due"])
        if kind in ("Settled", "ArrearsPaid", "PaymentRecorded", "PaymentReversed"):
            step["paid"] = int(args["paid"]) - paid
            paid = int(args["paid"])
        if any(step.values()) and first <= times[row["block_number"]] < end:
            found.append(
                {
                    "event": kind,
                    "block": row["block_number"],
                    "transaction": row["transaction_hash"],
                    "due": str(step["due"]),
                    "paid": str(step["paid"]),
                }
            )
    return found


def _shares(mirror: Connection, party: Address, first: int, end: int) -> list[dict[str, Any]]:
    """Shares sent to the party in the month."""
    logs, blocks = schema.logs, schema.blocks
    query = (
        select(logs, blocks.c.timestamp)
        .join(blocks)
        .where(logs.c.event == "SharePaid", logs.c.args["payee"].as_string() == party)
        .where(blocks.c.timestamp >= first, blocks.c.timestamp < end)
        .order_by(logs.c.block_number, logs.c.log_index)
    )
    return [
        {
            "split": row["args"]["split"],
            "token": row["args"]["token"],
            "amount": str(row["args"]["amount"]),
            "block": row["block_number"],
            "transaction": row["transaction_hash"],
        }
        for row in mirror.execute(query).mappings()
    ]
