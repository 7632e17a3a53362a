"""Reading the mirror: every answer is as of one block."""

import hashlib
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select

from ledger.core.errors import NotFound
from ledger.core.events import Block
from ledger.core.hashing import canonical_json
from ledger.core.ids import ZERO_HASH, Address, Hash32, raw
from ledger.core.ratecard import RateCard, Split
from ledger.core.terms import AuthorizationTerms
from ledger.mirror import schema
from ledger.mirror.schema import holds

Row = dict[str, Any]


def position(connection: Connection) -> Block | None:
    """The last applied block."""
    row = connection.execute(select(schema.blocks).order_by(schema.blocks.c.number.desc()).limit(1)).first()
    return Block(row.number, row.hash, row.parent_hash, row.timestamp) if row else None


def has_block(connection: Connection, block_hash: Hash32) -> bool:
    """True if the mirror has applied this very block."""
    return (
        connection.execute(select(schema.blocks.c.number).where(schema.blocks.c.hash == block_hash)).first() is not None
    )


def checked_at(connection: Connection) -> int:
    """When the mirror last stood at the chain's head, seconds; 0 if never."""
    return connection.execute(select(schema.watch.c.checked_at)).scalar() or 0


def rows(
    connection: Connection,
    table: Table,
    *,
    after: str = "",
    limit: int = 100,
    at_block: int | None = None,
    **equal: Any,
) -> list[Row]:
    """Rows that hold, by key, after the key `after`; `equal` filters by column, None meaning any."""
    keys = table.info["keys"]
    query = select(table).where(holds(table, at_block)).order_by(*(table.c[k] for k in keys)).limit(limit)
    for name, value in equal.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    if after:
        query = query.where(table.c[keys[-1]] > after)
    return [_plain(row) for row in connection.execute(query).mappings()]


def one(connection: Connection, table: Table, what: str, **keys: Any) -> Row:
    """The row that holds now. Raises NotFound, naming `what`."""
    where = [table.c[name] == value for name, value in keys.items()]
    row = connection.execute(select(table).where(*where, holds(table))).mappings().first()
    if row is None:
        raise NotFound(f"there is no {what} {', '.join(keys.values())}")
    return _plain(row)


def terms_of(row: Row) -> AuthorizationTerms:
    return AuthorizationTerms.from_json(row["terms"])


def status_of(row: Row, now: int) -> str:
    """OPEN, ENDED or CLOSED at a time in seconds."""
    return "ENDED" if row["status"] == "OPEN" and now >= row["ended_at"] else str(row["status"])


def authorization(connection: Connection, authorization_id: Hash32) -> Row:
    return one(connection, schema.authorizations, "authorization", authorization=authorization_id)


def approved_until(connection: Connection, authorization_id: Hash32) -> int | None:
    """When the first of an authorization's approvals runs out, in seconds, inclusive; None if it needed none."""
    table = schema.approvals
    query = select(func.min(table.c.valid_until)).where(table.c.authorization == authorization_id)
    found: int | None = connection.execute(query).scalar()
    return found


def parents_end(connection: Connection, terms: AuthorizationTerms) -> int | None:
    """When the first of those an authorization derives from ends, in seconds; None if it derives from none."""
    first: int | None = None
    while terms.scope.parent != ZERO_HASH:
        row = authorization(connection, terms.scope.parent)
        first = row["ended_at"] if first is None else min(first, row["ended_at"])
        terms = terms_of(row)
    return first


def rate_card(connection: Connection, card: Hash32) -> RateCard:
    return RateCard.decode(raw(one(connection, schema.rate_cards, "rate card", rate_card=card)["encoded"]))


def split(connection: Connection, split_id: Hash32) -> Split:
    return Split.decode(raw(one(connection, schema.splits, "split", split=split_id)["encoded"]))


def settlements(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Settled heads, oldest first."""
    table = schema.settlements
    query = select(table).where(table.c.authorization == authorization_id)
    return [dict(r) for r in connection.execute(query.order_by(table.c.block_number, table.c.log_index)).mappings()]


def payments(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Bank payments recorded, reversed and claimed, oldest first."""
    table = schema.payments
    query = select(table).where(table.c.authorization == authorization_id)
    return [dict(r) for r in connection.execute(query.order_by(table.c.block_number, table.c.log_index)).mappings()]


def shares(connection: Connection, split_id: Hash32, token: Address) -> dict[str, dict[str, int]]:
    """Payee → accrued (its part of all that was settled to the split), sent, and left to withdraw."""
    found = rows(connection, schema.accruals, split=split_id, token=token)
    accrued = found[0]["accrued"] if found else 0
    sent = {r["payee"]: r["sent"] for r in rows(connection, schema.shares, split=split_id, token=token)}
    amounts = split(connection, split_id).amounts(accrued)
    return {
        payee: {"accrued": amount, "sent": sent.get(payee, 0), "left": amount - sent.get(payee, 0)}
        for payee, amount in amounts.items()
    }


def events(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Raw and decoded logs that name this authorization, oldest first."""
    query = select(schema.logs, schema.blocks.c.hash.label("block_hash"), schema.blocks.c.timestamp).join(schema.blocks)
    query = query.where(schema.logs.c.args["authorizationId"].as_string() == authorization_id)
    ordered = query.order_by(schema.logs.c.block_number, schema.logs.c.log_index)
    return [dict(r) for r in connection.execute(ordered).mappings()]


def transactions(connection: Connection, before: int | None, limit: int) -> list[Row]:
    """Transactions that changed something here, newest block first, all of a block or none of it.

    Args:
        before: only blocks below this one; None for the newest.
        limit: blocks, not transactions.
    """
    table = schema.logs
    numbers = select(table.c.block_number).distinct().order_by(table.c.block_number.desc()).limit(limit)
    if before is not None:
        numbers = numbers.where(table.c.block_number < before)
    found = [n for (n,) in connection.execute(numbers)]
    query = select(table).where(table.c.block_number.in_(found))
    done: dict[str, Row] = {}
    for row in connection.execute(query.order_by(table.c.block_number.desc(), table.c.log_index)).mappings():
        one = {"transaction": row["transaction_hash"], "block": row["block_number"], "events": []}
        done.setdefault(row["transaction_hash"], one)["events"].append(f"{row['contract']}.{row['event']}")
    return list(done.values())


def transaction_events(connection: Connection, transaction: Hash32) -> list[Row]:
    """What a transaction did, as decoded events."""
    query = select(schema.logs).where(schema.logs.c.transaction_hash == transaction).order_by(schema.logs.c.log_index)
    return [dict(r) for r in connection.execute(query).mappings()]


def end_note(engine: Engine, authorization_id: str) -> str:
    """How an authorization ended, for error sentences: "was revoked at block 41". Empty if it did not."""
    with engine.connect() as connection:
        try:
            row = authorization(connection, Hash32(authorization_id))
        except NotFound:
            return ""
    return f"was {row['ended_how']} at block {row['ended_block']}" if row["ended_how"] else ""


def contents_digest(engine: Engine) -> tuple[str, int]:
    """(SHA-256, height): over every row of every table in a fixed order, equal for equal contents."""
    digest = hashlib.sha256()
    with engine.connect() as connection:
        tip = position(connection)
        for table in (schema.blocks, schema.logs, *schema.STATE, *schema.FACTS):
            columns = [column for column in table.c if column.name != "row"]
            ordered = [c for c in columns if c.name in {*table.info.get("keys", ()), "since"}] or list(
                table.primary_key
            )
            digest.update(table.name.encode())
            for row in connection.execute(select(*columns).order_by(*ordered)):
                digest.update(canonical_json([str(v) if isinstance(v, int) else v for v in row]))
    return digest.hexdigest(), tip.number if tip else -1


def _plain(row: Any) -> Row:
    return {k: v for k, v in row.items() if k not in ("row", "until")}
