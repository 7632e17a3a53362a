"""What webhooks there are, how far each has come, and what a receiver refused."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table

SCHEMA_VERSION = 1

metadata = MetaData()

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook", String(32), primary_key=True),
    Column("owner", String(42), nullable=False, index=True),  # the wallet that registered it
    Column("url", String, nullable=False),
    Column("secret", String, nullable=False),  # authenticates deliveries to this receiver, and nothing else
    Column("contract", String),
    Column("event", String),
    Column("about", String),
    Column("final", Boolean, nullable=False),
    Column("offset", String, nullable=False),  # of the mirror's journal: up to here all is done
    Column("status", String, nullable=False),  # active, retrying, paused
    Column("failures", Integer, nullable=False),  # in a row, of the next event
    Column("refusals", Integer, nullable=False),  # of them, those for good
    Column("failing_since", BigInteger),  # seconds
    Column("last_error", String),
    Column("next_attempt", BigInteger, nullable=False),  # seconds
    Column("leased_until", BigInteger, nullable=False),  # seconds: a deliverer works on it
    Column("created", BigInteger, nullable=False),  # seconds
)
Index("webhooks_due", webhooks.c.next_attempt)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("webhook", String(32), ForeignKey("webhooks.webhook", ondelete="CASCADE"), primary_key=True),
    Column("offset", String, primary_key=True),
    Column("at", BigInteger, nullable=False),  # seconds
    Column("attempts", Integer, nullable=False),
    Column("error", String, nullable=False),
    Column("event", JSON, nullable=False),
)
