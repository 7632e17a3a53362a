"""The mirror's tables: the same on SQLite and PostgreSQL.

A *state* row holds from block `since` to block `until` (exclusive; NULL while it holds): history, `at_block` reads and
rewinding are one mechanism. A *fact* row happened in one block and never changes. Both are written by `mirror.work`
only, from decoded events only. What can be derived is not stored: an authorization's head is its last settlement, and
the bytes of a log are in its block.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)

from ledger.core.database import Amount, Flags, Hex

metadata = MetaData()

deployment = Table(
    "deployment",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("document", JSON, nullable=False),
)

cursor = Table(
    "cursor",  # where the mirror stands: one row, written in the transaction that writes the blocks
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("nonce", BigInteger, nullable=False),  # one more with every write: a writer that missed one has lost
    Column("number", BigInteger, nullable=False),  # the last block applied; it may have no log of ours
    Column("hash", Hex, nullable=False),
    Column("parent_hash", Hex, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of all that was applied so far: mirror.digest
    Column("safe", BigInteger, nullable=False),  # height, -1: the node does not say
    Column("final", BigInteger, nullable=False),  # height: never rewound below; -1: nothing yet
    Column("final_hash", Hex),
    Column("checked", BigInteger, nullable=False),  # height up to which the second pass has read again
    Column("differences", BigInteger, nullable=False),  # blocks in which the second pass found other logs
    Column("violated", JSON),  # finality was violated: what was found; NULL: it was not
    Column("writer", String, nullable=False),  # who writes
    Column("seen_at", BigInteger, nullable=False),  # seconds, the writer's clock: it was alive
    Column("checked_at", BigInteger, nullable=False),  # seconds, the writer's clock: it stood at the chain's head
)

blocks = Table(
    "blocks",  # every block with a log of ours; of the others, those that are not final
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Hex, nullable=False, unique=True),
    Column("timestamp", BigInteger, nullable=False, index=True),
    Column("log_count", Integer, nullable=False),
    Column("logs", LargeBinary, nullable=False),  # as they were: mirror.packing
    Column("transactions", LargeBinary, nullable=False),  # hashes of those with logs, 32 bytes each, in order
    Column("digest", LargeBinary, nullable=False),  # after this block
)

APPLIED, RETRACTED, REVOKED = 0, 1, 2

journal = Table(
    "journal",  # what readers were told, in order: blocks with logs as they were applied and taken back
    metadata,
    Column("entry", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 …
    Column("kind", SmallInteger, nullable=False),  # APPLIED; taken back: RETRACTED, or REVOKED if it was final already
    Column("number", BigInteger, nullable=False),
    Column("hash", Hex, nullable=False, index=True),
    Column("timestamp", BigInteger, nullable=False),
    Column("logs", LargeBinary),  # of what was taken back, as they were: nothing is lost; NULL: they are in `blocks`
)

events = Table(
    "events",  # every log but settlements, which have a table of their own
    metadata,
    Column(
        "block_number",
        BigInteger,
        ForeignKey("blocks.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("log_index", Integer, primary_key=True, autoincrement=False),
    Column("transaction_hash", Hex, nullable=False),
    Column("contract", String, nullable=False),
    Column("event", String, nullable=False),
    Column("authorization", Hex),  # the one it is about
)
Index("events_by_authorization", events.c.authorization, events.c.block_number)


def _state(name: str, keys: list[Column[Any]], *columns: Column[Any]) -> Table:
    for key in keys:
        key.primary_key, key.nullable = True, False
    table = Table(
        name,
        metadata,
        *keys,
        Column("since", BigInteger, primary_key=True, autoincrement=False),
        Column("until", BigInteger),
        *columns,
        info={"keys": [key.name for key in keys]},
    )
    now = text("until IS NULL")
    Index(f"{name}_now", *keys, unique=True, sqlite_where=now, postgresql_where=now)
    Index(f"{name}_by_since", table.c.since)
    return table


def _now(table: Table, *columns: str) -> None:
    """An index over the rows that hold."""
    now = text("until IS NULL")
    name = f"{table.name}_by_{columns[0]}"
    Index(name, *(table.c[c] for c in columns), sqlite_where=now, postgresql_where=now)


def _fact(name: str, *columns: Column[Any]) -> Table:
    # Kept in the order of the chain: reading by key needs no second index, and adding goes to the end.
    return Table(
        name,
        metadata,
        Column("block_number", BigInteger, primary_key=True, autoincrement=False),
        Column("log_index", Integer, primary_key=True, autoincrement=False),
        *columns,
        sqlite_with_rowid=False,
    )


spaces = _state(
    "spaces",
    [Column("space", Hex)],
    Column("operator", Hex, nullable=False),
    Column("proposed_operator", Hex),
    Column("policy_digest", Hex, nullable=False),
    Column("code_lists", Hex, nullable=False),
    Column("approvers", JSON, nullable=False),  # [{approver, approvalType}]
)

credentials = _state(
    "credentials",
    [Column("space", Hex), Column("wallet", Hex), Column("credential_type", Integer)],
    Column("digest", Hex, nullable=False),
    Column("valid_until", BigInteger, nullable=False),  # seconds, inclusive
    Column("revoked", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
)

session_keys = _state(
    "session_keys",
    [Column("wallet", Hex), Column("key", Hex)],
    Column("registered_at", BigInteger, nullable=False),  # seconds
    Column("expiry", BigInteger, nullable=False),
    Column("revoked_at", BigInteger, nullable=False),  # seconds, 0: not revoked
    Column("max_due", Amount, nullable=False),
)

participants = _state(
    "participants",
    [Column("space", Hex), Column("wallet", Hex)],
    Column("roles", BigInteger, nullable=False),
    Column("suspended", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("digest", Hex, nullable=False),
)

products = _state(
    "products",
    [Column("product", Hex)],
    Column("space", Hex, nullable=False),
    Column("provider", Hex, nullable=False),
    Column("metadata", Hex, nullable=False),
    Column("approvers", JSON, nullable=False),  # [{approver, approvalType}]
)
_now(products, "space", "product")
_now(products, "provider", "product")

price_ceilings = _state(
    "price_ceilings",
    [Column("product", Hex), Column("token", Hex)],
    Column("ceilings", JSON, nullable=False),  # token units per million units, per meter, 0: none
)

versions = _state(
    "versions",
    [Column("version", Hex)],
    Column("product", Hex, nullable=False),
    Column("digests", JSON, nullable=False),
    Column("metadata", Hex, nullable=False),
    Column("policy_hash", Hex, nullable=False),
    Column("parents", JSON, nullable=False),
    Column("status", String, nullable=False),  # LISTED, RETIRED, RECALLED
    Column("reason", Integer, nullable=False),
    Column("published", BigInteger, nullable=False),  # block
)
_now(versions, "product", "version")

rate_cards = _state("rate_cards", [Column("rate_card", Hex)], Column("encoded", Hex, nullable=False))
splits = _state("splits", [Column("split", Hex)], Column("encoded", Hex, nullable=False))

authorizations = _state(
    "authorizations",  # what settlements do not change
    [Column("authorization", Hex)],
    Column("number", Integer, nullable=False),  # the n-th that was opened: what settlements call it by
    Column("ledger", String, nullable=False),  # UsageLedger, InvoiceLedger
    Column("space", Hex, nullable=False),
    Column("product", Hex, nullable=False),
    Column("version", Hex, nullable=False),  # zero: any that is listed
    Column("provider", Hex, nullable=False),
    Column("consumer", Hex, nullable=False),
    Column("token", Hex, nullable=False),
    Column("split", Hex, nullable=False),
    Column("purposes", Flags, nullable=False),
    Column("modalities", Flags, nullable=False),
    Column("terms", JSON, nullable=False),
    Column("opened", BigInteger, nullable=False),  # block
    Column("status", String, nullable=False),  # OPEN, CLOSED; ENDED follows from the time
    Column("ended_at", BigInteger, nullable=False),  # seconds
    Column("ended_how", String, nullable=False),  # "", revoked, closed, ended by its parent, closed together
    Column("ended_block", BigInteger),
    Column("reason", Integer, nullable=False),
    Column("reserved", Amount, nullable=False),  # escrowed: set aside, paid part included
    Column("thaw", Amount, nullable=False),  # asked to be thawed; what is paid meanwhile comes off
    Column("thaw_end", BigInteger, nullable=False),
    Column("refunded", Amount, nullable=False),
    Column("recorded", Amount, nullable=False),  # invoiced: bank payments recorded, less those reversed
    Column("claimed", Amount, nullable=False),
)
for _column in ("space", "product", "provider", "consumer"):
    _now(authorizations, _column, "authorization")
_now(authorizations, "ended_at", "authorization")
_now(authorizations, "number")

accounts = _state("accounts", [Column("owner", Hex), Column("token", Hex)], Column("free", Amount, nullable=False))
accruals = _state("accruals", [Column("split", Hex), Column("token", Hex)], Column("accrued", Amount, nullable=False))
shares = _state(
    "shares",
    [Column("split", Hex), Column("token", Hex), Column("payee", Hex)],
    Column("sent", Amount, nullable=False),
)

pools = _state(
    "pools",
    [Column("pool", Hex)],
    Column("sponsor", Hex, nullable=False),
    Column("rule", JSON, nullable=False),
    Column("products", JSON, nullable=False),
    Column("splits", JSON, nullable=False),
    Column("remaining", Amount, nullable=False),
)

subsidies = _state(
    "subsidies",
    [Column("pool", Hex), Column("authorization", Hex)],
    Column("status", String, nullable=False),  # objected, paid
    Column("consumer", Hex),
    Column("credential", Hex),
    Column("base", Amount, nullable=False),
    Column("amount", Amount, nullable=False),
    Column("reason", Integer, nullable=False),
)

offers = _state(
    "offers",
    [Column("provider", Hex), Column("offer", Hex)],  # the offer's digest
    Column("accepted", BigInteger, nullable=False),
    Column("cancelled", Integer, nullable=False),
)

cancelled_terms = _state("cancelled_terms", [Column("authorization", Hex)], Column("by", Hex, nullable=False))

SETTLED, ARREARS, CLOSED = 0, 1, 2
SETTLEMENT_EVENTS = ("Settled", "ArrearsPaid", "ClosedTogether")  # the event of each kind
BASIS = ("NONE", "CONSUMER", "AGENT", "AGENT_CAPPED", "CEILING")  # who vouched for a head

settlements = _fact(
    "settlements",  # every change of an authorization's head, of what is due for it, or of what escrow paid for it
    # Most rows by far are here: numbers instead of 32 bytes make them a third narrower.
    Column("transaction", Integer, nullable=False),  # place in the block's `transactions`
    Column("authorization", Integer, nullable=False),  # its number
    Column("kind", SmallInteger, nullable=False),  # SETTLED, ARREARS paid by a top-up, CLOSED together
    Column("size", Amount, nullable=False),  # leaves
    Column("units0", Amount, nullable=False),
    Column("units1", Amount, nullable=False),
    Column("units2", Amount, nullable=False),
    Column("units3", Amount, nullable=False),
    Column("credits", Amount, nullable=False),
    Column("as_of", BigInteger, nullable=False),  # seconds
    Column("root", Hex, nullable=False),
    Column("due", Amount, nullable=False),
    Column("paid", Amount, nullable=False),
    Column("provider_signer", Hex, nullable=False),  # zero: the provider was the caller
    Column("consumer_signer", Hex, nullable=False),
    Column("basis", SmallInteger, nullable=False),  # Basis of the contract: who vouched for the head
)
Index("settlements_by_authorization", settlements.c.authorization, settlements.c.block_number, settlements.c.log_index)

share_payments = _fact(
    "share_payments",
    Column("transaction_hash", Hex, nullable=False),
    Column("split", Hex, nullable=False),
    Column("token", Hex, nullable=False),
    Column("payee", Hex, nullable=False, index=True),
    Column("amount", Amount, nullable=False),
)

approvals = _fact(
    "approvals",
    Column("transaction_hash", Hex, nullable=False),
    Column("authorization", Hex, nullable=False, index=True),
    Column("approver", Hex, nullable=False, index=True),
    Column("approval_type", Integer, nullable=False),
    Column("document_hash", Hex, nullable=False),
    Column("valid_until", BigInteger, nullable=False),  # seconds, inclusive
)

evidence = _fact(
    "evidence",
    Column("transaction_hash", Hex, nullable=False),
    Column("authorization", Hex, nullable=False, index=True),
    Column("fact", String, nullable=False),  # Fact of the contract
    Column("against", Hex, nullable=False),  # zero: nobody
    Column("index", Amount, nullable=False),
    Column("evidence", Hex, nullable=False),
)

payments = _fact(
    "payments",
    Column("transaction_hash", Hex, nullable=False),
    Column("authorization", Hex, nullable=False, index=True),
    Column("kind", String, nullable=False),  # recorded, reversed, claimed
    Column("reference_hash", Hex, nullable=False),
    Column("amount", Amount, nullable=False),
    Column("total", Amount, nullable=False),  # recorded or claimed in all, after this
)

STATE = tuple(table for table in metadata.sorted_tables if "since" in table.c)
FACTS = (settlements, payments, approvals, evidence, share_payments)


def holds(table: Table, at_block: Any = None) -> Any:
    """The condition for rows that hold now, or held at the end of `at_block`, a number or a parameter."""
    if at_block is None:
        return table.c.until.is_(None)
    return (table.c.since <= at_block) & (table.c.until.is_(None) | (table.c.until > at_block))
