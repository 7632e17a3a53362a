"""Signed heads: kept by both sides, one row a size, the consumer's signature added when it comes."""

from typing import Any

from sqlalchemy import Connection, Engine, select, update

from ledger.core.database import insert_unless, writing
from ledger.core.errors import Conflict, NotFound
from ledger.core.ids import Hash32
from ledger.core.terms import UsageHead
from ledger.metering import schema
from ledger.metering.log import SignedHead

table = schema.heads


def save(engine: Engine, signed: SignedHead) -> None:
    """As `put`, in a transaction of its own."""
    with writing(engine) as connection:
        put(connection, signed)


def put(connection: Connection, signed: SignedHead) -> None:
    """Stores a head, or adds the consumer's signature to it.

    Raises:
        Conflict: another head of the same size is stored: that would be a fork.
    """
    head = signed.head
    where = (table.c.authorization == head.authorization_id) & (table.c.size == head.size)
    row = {
        "authorization": head.authorization_id,
        "size": head.size,
        "head": head.as_json(),
        "provider_signature": signed.provider_signature,
        "consumer_signature": signed.consumer_signature,
    }
    insert_unless(connection, table, row)  # another process may have made it, too
    known = connection.execute(select(table).where(where)).mappings().one()
    if known["head"] != head.as_json():
        raise Conflict(f"another head of {head.size} leaves is stored", size=head.size)
    if signed.consumer_signature and not known["consumer_signature"]:
        connection.execute(update(table).where(where).values(consumer_signature=signed.consumer_signature))


def read(
    connection: Connection, authorization_id: Hash32, *, above: int = -1, most: int | None = None, limit: int = -1
) -> list[SignedHead]:
    """Heads of more than `above` leaves and at most `most`, smallest first; all of them if `limit` is negative."""
    query = select(table).where(table.c.authorization == authorization_id, table.c.size > above).order_by(table.c.size)
    if most is not None:
        query = query.where(table.c.size <= most)
    if limit >= 0:
        query = query.limit(limit)
    return [_signed(row) for row in connection.execute(query).mappings()]


def latest_signed(connection: Connection, authorization_id: Hash32) -> SignedHead | None:
    """The largest head that both wallets signed."""
    query = select(table).where(table.c.authorization == authorization_id, table.c.consumer_signature.is_not(None))
    row = connection.execute(query.order_by(table.c.size.desc()).limit(1)).mappings().first()
    return _signed(row) if row else None


def newest(connection: Connection, authorization_id: Hash32) -> SignedHead:
    """The largest head, whoever signed it. Raises NotFound."""
    query = select(table).where(table.c.authorization == authorization_id).order_by(table.c.size.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"no head of {authorization_id} is signed yet")
    return _signed(row)


def at_size(connection: Connection, authorization_id: Hash32, size: int) -> SignedHead:
    row = (
        connection.execute(select(table).where(table.c.authorization == authorization_id, table.c.size == size))
        .mappings()
        .first()
    )
    if row is None:
        raise NotFound(f"there is no head of {size} leaves for {authorization_id}")
    return _signed(row)


def _signed(row: Any) -> SignedHead:
    return SignedHead(UsageHead.from_json(row["head"]), row["provider_signature"], row["consumer_signature"])
