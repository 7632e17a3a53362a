"""Who may see what is private: the parties of an authorization, the operator of its space, and the space's auditors."""

from sqlalchemy import Connection, or_, select

from ledger.core import codes
from ledger.core.errors import NotFound, Refused
from ledger.core.ids import Address, Hash32
from ledger.mirror import queries, schema
from ledger.mirror.queries import Row

AUDITOR = codes.code("roles", "AUDITOR").bit


def authorization(db: Connection, wallet: Address, wanted: Hash32, at_block: int | None = None) -> Row:
    """An authorization whose uses and bills this wallet may see.

    Raises:
        NotFound: there is no such authorization.
        Refused: it is somebody else's.
    """
    row = queries.authorization(db, wanted, at_block)
    # Who may look is asked of the present: a party of then is one still, an auditor of then perhaps not.
    if not (wallet in parties(row) or oversees(db, wallet, row["space"])):
        raise Refused(f"{wallet} is no party of authorization {wanted}, nor operator or auditor of its space")
    return row


def parties(row: Row) -> set[str]:
    return {row["provider"], row["consumer"], row["terms"]["meteringAgent"]}


def oversees(db: Connection, wallet: Address, space: Hash32) -> bool:
    """Operator or auditor of a space; an auditor that is suspended is none."""
    try:
        if queries.one(db, schema.spaces, "space", space=space)["operator"] == wallet:
            return True
        row = queries.one(db, schema.participants, "participant", space=space, wallet=wallet)
    except NotFound:
        return False
    return bool(row["roles"] & AUDITOR) and not row["suspended"]


def overseen(db: Connection, wallet: Address) -> list[Hash32]:
    """The spaces this wallet is operator or auditor of."""
    table = schema.participants
    where = [table.c.roles.bitwise_and(AUDITOR) != 0, table.c.suspended == 0]
    operated = queries.rows(db, schema.spaces, operator=wallet, limit=10_000)
    audited = queries.rows(db, table, wallet=wallet, where=where, limit=10_000)
    return sorted({row["space"] for row in (*operated, *audited)})


def authorizations(db: Connection, wallet: Address, product: str | None = None) -> list[Hash32]:
    """Every authorization whose uses and bills this wallet may see, in order."""
    table = schema.authorizations
    mine = or_(
        table.c.provider == wallet,
        table.c.consumer == wallet,
        table.c.terms["meteringAgent"].as_string() == wallet,
        table.c.space.in_(overseen(db, wallet)),
    )
    query = select(table.c.authorization).where(schema.holds(table), mine).order_by(table.c.authorization)
    if product is not None:
        query = query.where(table.c.product == product)
    return list(db.execute(query).scalars())
