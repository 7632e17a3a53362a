"""The usage log's tables, the same at the provider's gateway and in the consumer's own copy."""

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, MetaData, SmallInteger, String, Table

SCHEMA_VERSION = 2

metadata = MetaData()

leaves = Table(
    "leaves",
    metadata,
    Column("authorization", String(66), primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("use_id_hash", String(66), nullable=False),
    Column("leaf", JSON, nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("kind", SmallInteger, nullable=False),  # of the leaf, as are the next four: to be asked for
    Column("purpose", SmallInteger, nullable=False),
    Column("modality", SmallInteger, nullable=False),
    Column("version", String(66), nullable=False),
    Column("served_at", BigInteger, nullable=False),  # seconds; never falls from one index to the next
    Column("request_hash", String(66), nullable=False),  # what was asked for: the same use id must ask the same
    Column("salt", LargeBinary(16)),  # salt and payload go when a use is erased
    Column("payload", JSON),
    Column("signature", String, nullable=False),  # the provider's, over the receipt
)
Index("leaves_by_use_id", leaves.c.authorization, leaves.c.use_id_hash, unique=True)
Index("leaves_by_purpose", leaves.c.authorization, leaves.c.purpose, leaves.c.index)
Index("leaves_by_time", leaves.c.authorization, leaves.c.served_at, leaves.c.index)

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
    Column("version", String(66), nullable=False),
    Column("purpose", String, nullable=False),
    Column("query", JSON, nullable=False),
)

disputes = Table(
    "disputes",  # the consumer's evidence: receipts that do not fit what happened
    metadata,
    Column("authorization", String(66), primary_key=True),
    Column("receipt_hash", String(66), primary_key=True),
    Column("reason", String, nullable=False),
    Column("receipt", String, nullable=False),
)
