"""Registering webhooks, and what their owners may see and do: list, replay, take away."""

import base64
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from ledger.chain.deploy import Deployment
from ledger.core.database import Target, open_database, writing
from ledger.core.errors import Conflict, NotFound
from ledger.core.ids import Address
from ledger.mirror.journal import Offset
from ledger.mirror.store import schema_name
from ledger.webhooks import schema, targets
from ledger.webhooks.cloudevents import PREFIX

MOST = 20  # webhooks of one wallet

Row = dict[str, Any]


def open_webhooks(target: Target, deployment: Deployment) -> Engine:
    """Opens or creates the database of a deployment's webhooks."""
    return open_database(target, schema.metadata, schema.SCHEMA_VERSION, f"{schema_name(deployment)}_webhooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an owner asks for. `url` as in `targets.checked`; the filters as in `journal.Wanted`."""

    owner: Address
    url: str
    contract: str | None = None
    event: str | None = None
    about: str | None = None
    final: bool = True


def register(engine: Engine, wanted: Registration, begin: Offset, now: int, *, private: bool = False) -> Row:
    """A new webhook that begins after `begin`, with its secret, which nobody is shown again.

    Raises:
        InputInvalid: the URL is not one a webhook may have.
        Conflict: the owner has MOST of them.
    """
    targets.checked(wanted.url, private=private)
    table = schema.webhooks
    row = {
        "webhook": "wh_" + secrets.token_hex(8),
        "owner": wanted.owner,
        "url": wanted.url,
        "secret": PREFIX + base64.b64encode(secrets.token_bytes(24)).decode(),
        "contract": wanted.contract,
        "event": wanted.event,
        "about": wanted.about,
        "final": wanted.final,
        "offset": str(begin),
        "status": "active",
        "failures": 0,
        "refusals": 0,
        "failing_since": None,
        "last_error": None,
        "next_attempt": now,
        "leased_until": 0,
        "created": now,
    }
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            # One at a time of an owner: there is no row to lock for those that are not there yet.
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(wanted.owner, 0))))
        count = select(func.count()).select_from(table).where(table.c.owner == wanted.owner)
        if connection.execute(count).scalar_one() >= MOST:
            raise Conflict(f"a wallet has at most {MOST} webhooks; take one away first")
        connection.execute(insert(table).values(**row))
    return row | {"dead_letters": 0}


def listed(connection: Connection, owner: Address) -> list[Row]:
    """An owner's webhooks, oldest first, without their secrets."""
    table, dead = schema.webhooks, schema.dead_letters
    count = select(func.count()).where(dead.c.webhook == table.c.webhook).scalar_subquery().label("dead_letters")
    query = select(table, count).where(table.c.owner == owner).order_by(table.c.created, table.c.webhook)
    return [{k: v for k, v in row.items() if k != "secret"} for row in connection.execute(query).mappings()]


def one(connection: Connection, owner: Address, webhook: str) -> Row:
    """Raises NotFound; also if it is another owner's."""
    for row in listed(connection, owner):
        if row["webhook"] == webhook:
            return row
    raise NotFound(f"there is no webhook {webhook} of {owner}")


def remove(engine: Engine, owner: Address, webhook: str) -> None:
    table = schema.webhooks
    with writing(engine) as connection:
        one(connection, owner, webhook)
        connection.execute(delete(schema.dead_letters).where(schema.dead_letters.c.webhook == webhook))
        connection.execute(delete(table).where(table.c.webhook == webhook))


def replay(engine: Engine, owner: Address, webhook: str, after: Offset, now: int) -> Row:
    """Delivers everything after an offset (again), and wakes a webhook that was paused."""
    table = schema.webhooks
    with writing(engine) as connection:
        one(connection, owner, webhook)
        values: Row = {"offset": str(after), "status": "active", "last_error": None, "failing_since": None}
        values |= {"failures": 0, "refusals": 0, "next_attempt": now}
        # Whoever delivers now will find that it has no lease any more, and moves nothing.
        connection.execute(update(table).where(table.c.webhook == webhook).values(leased_until=0, **values))
        return one(connection, owner, webhook)


def dead_letters(connection: Connection, owner: Address, webhook: str, limit: int = 1000) -> list[Row]:
    """What the receiver refused, oldest first."""
    one(connection, owner, webhook)
    table = schema.dead_letters
    query = select(table).where(table.c.webhook == webhook).order_by(table.c.at, table.c.offset).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]
