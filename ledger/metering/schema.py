"""The usage log's tables, the same at the provider's gateway and in the consumer's own copy.

A log is its row in `logs` (where it stands), its leaves, and the full tiles of its tree. Receipts come to a consumer in
any order: the row of its copy says how far the leaves have been checked.
"""

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, MetaData, SmallInteger, String, Table, Text

from ledger.core.database import Amount, Hex

SCHEMA_VERSION = 4

metadata = MetaData()

logs = Table(
    "logs",
    metadata,
    Column("authorization", Hex, primary_key=True),
    Column("size", BigInteger, nullable=False),  # leaves; a writer moves it from what it knew, or has lost
    Column("nodes", LargeBinary, nullable=False),  # the compact range of the tree: 32 bytes for each bit of the size
    Column("acknowledged", LargeBinary),  # units in the last head the consumer signed: four times 8 bytes; null: none
    Column("ceiling", JSON),  # {ceiling, signature}: the last one the consumer signed, to pay ahead
    Column("under_way", BigInteger, nullable=False, server_default="0"),  # rows in the table of that name
)

under_way = Table(
    "under_way",  # deliveries that have begun and are not recorded yet: one for a use id, its units held
    metadata,
    Column("authorization", Hex, primary_key=True),
    Column("use_id_hash", Hex, primary_key=True),
    Column("units", LargeBinary, nullable=False),  # four times 8 bytes
    Column("until", BigInteger, nullable=False),  # seconds: after that, whoever began it has died
)

leaves = Table(
    "leaves",
    metadata,
    Column("authorization", Hex, primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("use_id_hash", Hex, nullable=False),
    Column("leaf", LargeBinary, nullable=False),  # its 229 bytes
    Column("kind", SmallInteger, nullable=False),  # of the leaf, as are the next two: to be asked for
    Column("purpose", SmallInteger, nullable=False),
    Column("modality", SmallInteger, nullable=False),
    Column("request_hash", Hex, nullable=False),  # what was asked for: the same use id must ask the same
    Column("salt", LargeBinary(16)),  # salt and payload go when a use is erased
    Column("payload", Text),  # RFC 8785: with the salt before it, the bytes the leaf commits to
    Column("signature", Hex),  # the provider's, over the receipt; null: one signed head answers for a whole batch
    sqlite_with_rowid=False,  # rows are kept in the order of the log
)
Index("leaves_by_use_id", leaves.c.authorization, leaves.c.use_id_hash, unique=True)
Index("leaves_by_purpose", leaves.c.authorization, leaves.c.purpose, leaves.c.index)

tiles = Table(
    "tiles",  # core.tiles: those of the leaves once they are full, of the levels above as they grow
    metadata,
    Column("authorization", Hex, primary_key=True),
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

counters = Table(
    "counters",  # what is limited beyond one use: of an agent's day, an exporter's year, an operator's revenue
    metadata,
    Column("counter", String, primary_key=True),
    Column("subject", String, primary_key=True),  # whom it counts for
    Column("period", String, primary_key=True),  # a day or year in Beijing; empty: for ever
    Column("value", Amount, nullable=False),
)

sessions = Table(
    "sessions",  # open at this gateway, whichever of its processes was asked
    metadata,
    Column("token_hash", Hex, primary_key=True),
    Column("nonce", Hex, nullable=False, unique=True),  # of the signed request: it opens one session
    Column("authorization", Hex, nullable=False),  # zero: all of the provider's
    Column("signer", Hex, nullable=False),
    Column("wallet", Hex, nullable=False),  # whose word the signer's is: its own, or the one it is a session key of
    Column("role", String, nullable=False),  # CONSUMER, AGENT, PROVIDER
    Column("expires_at", BigInteger, nullable=False),  # seconds
)

grants = Table(
    "grants",  # what a consumer lets its agents spend, as it signed it last
    metadata,
    Column("authorization", Hex, primary_key=True),
    Column("key", Hex, primary_key=True),
    Column("grant", JSON, nullable=False),
)

heads = Table(
    "heads",
    metadata,
    Column("authorization", String(66), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("head", JSON, nullable=False),
    Column("provider_signature", String, nullable=False),
    Column("consumer_signature", String),
)

requests = Table(
    "requests",  # the consumer's: asked for, and no receipt yet
    metadata,
    Column("authorization", String(66), primary_key=True),
    Column("use_id", String, primary_key=True),
    Column("use_id_hash", String(66), nullable=False, index=True),
    Column("asked", JSON, nullable=False),  # the request in the form that its hash is taken of
    Column("body", LargeBinary),
    Column("asked_at", BigInteger, nullable=False),  # seconds
    Column("headers", JSON, nullable=False),
)

disputes = Table(
    "disputes",  # the consumer's evidence, and what a provider was told of it: receipts that do not fit what happened
    metadata,
    Column("authorization", String(66), primary_key=True),
    Column("receipt_hash", String(66), primary_key=True),
    Column("index", BigInteger),  # of the leaf, where the receipt could be read
    Column("reason", String, nullable=False),
    Column("receipt", String, nullable=False),  # the consumer's evidence
    Column("raised_at", BigInteger, nullable=False),  # seconds
    Column("answer", String),  # the provider's: CREDITED or REJECTED
)
