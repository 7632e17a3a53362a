"""The mirror's tables, and the two ways a row is written.

A *state* row holds from block `since` to block `until` (exclusive; NULL while it holds): history, `at_block` reads and
rewinding are one mechanism. A *fact* row happened in one block and never changes. Both are written by `mirror.apply`
only, from decoded events only.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from ledger.core.database import Amount

SCHEMA_VERSION = 2

metadata = MetaData()

deployment = Table(
    "deployment",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("document", JSON, nullable=False),
)

watch = Table(
    "watch",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("checked_at", BigInteger, nullable=False),  # seconds, this machine's clock: the mirror stood at the head
)

blocks = Table(
    "blocks",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(66), nullable=False, unique=True),
    Column("parent_hash", String(66), nullable=False),
    Column("timestamp", BigInteger, nullable=False),
)

logs = Table(
    "logs",
    metadata,
    Column("block_number", BigInteger, ForeignKey("blocks.number", ondelete="CASCADE"), primary_key=True),
    Column("log_index", Integer, primary_key=True),
    Column("transaction_hash", String(66), nullable=False, index=True),
    Column("address", String(42), nullable=False),
    Column("topics", JSON, nullable=False),
    Column("data", String, nullable=False),
    Column("contract", String, nullable=False),
    Column("event", String, nullable=False),
    Column("args", JSON, nullable=False),
)


def _state(name: str, keys: list[str], *columns: Column[Any]) -> Table:
    table = Table(
        name,
        metadata,
        Column("row", Integer, primary_key=True),
        *(Column(key, String, nullable=False) for key in keys),
        *columns,
        Column("since", BigInteger, nullable=False),
        Column("until", BigInteger),
        info={"keys": keys},
    )
    Index(f"{name}_by_key", *(table.c[key] for key in keys), table.c.until)
    Index(f"{name}_by_since", table.c.since)
    return table


def _fact(name: str, *columns: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("block_number", BigInteger, primary_key=True),
        Column("log_index", Integer, primary_key=True),
        Column("transaction_hash", String(66), nullable=False),
        *columns,
    )


spaces = _state(
    "spaces",
    ["space"],
    Column("operator", String, nullable=False),
    Column("proposed_operator", String),
    Column("policy_digest", String, nullable=False),
    Column("code_lists", String, nullable=False),
    Column("approvers", JSON, nullable=False),  # [{approver, approvalType}]
)

credentials = _state(
    "credentials",
    ["space", "wallet", "credential_type"],
    Column("digest", String, nullable=False),
    Column("valid_until", BigInteger, nullable=False),  # seconds, inclusive
    Column("revoked", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
)

session_keys = _state(
    "session_keys",
    ["wallet", "key"],
    Column("registered_at", BigInteger, nullable=False),  # seconds
    Column("expiry", BigInteger, nullable=False),
    Column("revoked_at", BigInteger, nullable=False),  # seconds, 0: not revoked
    Column("max_due", Amount, nullable=False),
)

participants = _state(
    "participants",
    ["space", "wallet"],
    Column("roles", BigInteger, nullable=False),
    Column("suspended", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("digest", String, nullable=False),
)

products = _state(
    "products",
    ["product"],
    Column("space", String, nullable=False, index=True),
    Column("provider", String, nullable=False, index=True),
    Column("metadata", String, nullable=False),
    Column("approvers", JSON, nullable=False),  # [{approver, approvalType}]
)

price_ceilings = _state(
    "price_ceilings",
    ["product", "token"],
    Column("ceilings", JSON, nullable=False),  # token units per million units, per meter, 0: none
)

versions = _state(
    "versions",
    ["version"],
    Column("product", String, nullable=False, index=True),
    Column("digests", JSON, nullable=False),
    Column("metadata", String, nullable=False),
    Column("policy_hash", String, nullable=False),
    Column("parents", JSON, nullable=False),
    Column("status", String, nullable=False),  # LISTED, RETIRED, RECALLED
    Column("reason", Integer, nullable=False),
    Column("published", BigInteger, nullable=False),  # block
)

rate_cards = _state("rate_cards", ["rate_card"], Column("encoded", String, nullable=False))
splits = _state("splits", ["split"], Column("encoded", String, nullable=False))

authorizations = _state(
    "authorizations",
    ["authorization"],
    Column("ledger", String, nullable=False),  # UsageLedger, InvoiceLedger
    Column("space", String, nullable=False),
    Column("product", String, nullable=False, index=True),
    Column("provider", String, nullable=False, index=True),
    Column("consumer", String, nullable=False, index=True),
    Column("terms", JSON, nullable=False),
    Column("opened", BigInteger, nullable=False),  # block
    Column("status", String, nullable=False),  # OPEN, CLOSED; ENDED follows from the time
    Column("ended_at", BigInteger, nullable=False),  # seconds
    Column("ended_how", String, nullable=False),  # "", revoked, closed, ended by its parent, closed together
    Column("ended_block", BigInteger),
    Column("reason", Integer, nullable=False),
    Column("size", String, nullable=False),  # the settled head
    Column("units", JSON, nullable=False),
    Column("credits", Amount, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("root", String, nullable=False),
    Column("basis", String, nullable=False),  # who vouched for the settled head: Basis of the contract
    Column("due", Amount, nullable=False),
    Column("paid", Amount, nullable=False),
    Column("reserved", Amount, nullable=False),
    Column("thawing", Amount, nullable=False),
    Column("thaw_end", BigInteger, nullable=False),
    Column("refunded", Amount, nullable=False),
    Column("claimed", Amount, nullable=False),
)

accounts = _state("accounts", ["owner", "token"], Column("free", Amount, nullable=False))
accruals = _state("accruals", ["split", "token"], Column("accrued", Amount, nullable=False))
shares = _state("shares", ["split", "token", "payee"], Column("sent", Amount, nullable=False))

pools = _state(
    "pools",
    ["pool"],
    Column("sponsor", String, nullable=False),
    Column("rule", JSON, nullable=False),
    Column("products", JSON, nullable=False),
    Column("splits", JSON, nullable=False),
    Column("remaining", Amount, nullable=False),
)

subsidies = _state(
    "subsidies",
    ["pool", "authorization"],
    Column("status", String, nullable=False),  # objected, paid
    Column("consumer", String, nullable=False),
    Column("credential", String, nullable=False),
    Column("base", Amount, nullable=False),
    Column("amount", Amount, nullable=False),
    Column("reason", Integer, nullable=False),
)

offers = _state(
    "offers",
    ["provider", "offer"],  # the offer's digest
    Column("accepted", BigInteger, nullable=False),
    Column("cancelled", Integer, nullable=False),
)

cancelled_terms = _state("cancelled_terms", ["authorization"], Column("by", String, nullable=False))

settlements = _fact(
    "settlements",
    Column("authorization", String, nullable=False, index=True),
    Column("head", JSON, nullable=False),
    Column("due", Amount, nullable=False),
    Column("paid", Amount, nullable=False),
    Column("arrears", Amount, nullable=False),
    Column("provider_signer", String, nullable=False),  # zero: the provider was the caller
    Column("consumer_signer", String, nullable=False),
    Column("basis", String, nullable=False),
)

approvals = _fact(
    "approvals",
    Column("authorization", String, nullable=False, index=True),
    Column("approver", String, nullable=False, index=True),
    Column("approval_type", Integer, nullable=False),
    Column("document_hash", String, nullable=False),
    Column("valid_until", BigInteger, nullable=False),  # seconds, inclusive
)

evidence = _fact(
    "evidence",
    Column("authorization", String, nullable=False, index=True),
    Column("fact", String, nullable=False),  # Fact of the contract
    Column("against", String, nullable=False),  # zero: nobody
    Column("index", String, nullable=False),
    Column("evidence", String, nullable=False),
)

payments = _fact(
    "payments",
    Column("authorization", String, nullable=False, index=True),
    Column("kind", String, nullable=False),  # recorded, reversed, claimed
    Column("reference_hash", String, nullable=False),
    Column("amount", Amount, nullable=False),
)

STATE = tuple(table for table in metadata.sorted_tables if "since" in table.c)
FACTS = (settlements, payments, approvals, evidence)


def holds(table: Table, at_block: int | None = None) -> Any:
    """The condition for rows that hold now, or held at the end of `at_block`."""
    if at_block is None:
        return table.c.until.is_(None)
    return (table.c.since <= at_block) & (table.c.until.is_(None) | (table.c.until > at_block))


def current(connection: Connection, table: Table, **keys: str) -> dict[str, Any] | None:
    """The row that holds now, without its bookkeeping columns."""
    where = [table.c[name] == value for name, value in keys.items()]
    row = connection.execute(select(table).where(*where, holds(table))).mappings().first()
    return None if row is None else {k: v for k, v in row.items() if k not in ("row", "since", "until")}


def put(connection: Connection, table: Table, block: int, row: dict[str, Any]) -> None:
    """Makes `row` hold from `block` on; replaces what held until now."""
    where = [table.c[key] == row[key] for key in table.info["keys"]]
    # Twice in one block: the first of the two never held at a block's end.
    connection.execute(delete(table).where(*where, table.c.since == block))
    connection.execute(update(table).where(*where, holds(table)).values(until=block))
    connection.execute(insert(table).values(since=block, **row))


def rewind(connection: Connection, to_block: int) -> None:
    """Undoes every block after `to_block`."""
    for table in STATE:
        connection.execute(delete(table).where(table.c.since > to_block))
        connection.execute(update(table).where(table.c.until > to_block).values(until=None))
    for table in FACTS:
        connection.execute(delete(table).where(table.c.block_number > to_block))
    connection.execute(delete(logs).where(logs.c.block_number > to_block))
    connection.execute(delete(blocks).where(blocks.c.number > to_block))
