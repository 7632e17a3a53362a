"""The usage log's tables, the same at the provider's gateway and in the consumer's own copy.

A log is its row in `logs` (where it stands), its leaves, and the full tiles of its tree. A consumer's copy has leaves
only: receipts come in any order.
"""

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, MetaData, SmallInteger, String, Table

from ledger.core.database import Hex

SCHEMA_VERSION = 3

metadata = MetaData()

logs = Table(
    "logs",
    metadata,
    Column("authorization", Hex, primary_key=True),
    Column("size", BigInteger, nullable=False),  # leaves; a writer moves it from what it knew, or has lost
    Column("nodes", LargeBinary, nullable=False),  # the compact range of the tree: 32 bytes for each bit of the size
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
    Column("payload", JSON),
    Column("signature", Hex, nullable=False),  # the provider's, over the receipt
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
