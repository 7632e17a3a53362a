"""Sums that people ask for: settled use by day, product or party, revenue by payee, reservations, arrears, endings.

Amounts may be beyond 64 bits and must be exact: the database chooses rows, the sums are made here. What was settled in
a time is what stood at its end less what stood at its beginning, so nothing is counted twice however often it settles.
Days are those of Asia/Shanghai.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select, tuple_

from ledger.core.errors import InputInvalid
from ledger.mirror import queries, schema
from ledger.mirror.queries import Row, key_of, status_of
from ledger.mirror.schema import holds
from ledger.mirror.work import ASK

BY = ("day", "space", "product", "provider", "consumer", "token")
SUMS = ("size", "units0", "units1", "units2", "units3", "due", "paid")
DAY = 86_400
SHANGHAI = 8 * 3600  # seconds east of UTC; no daylight saving since 1991


class _Stand(NamedTuple):
    """What stood settled on an authorization, on a day (0 where days do not matter)."""

    authorization: int
    day: int
    sums: tuple[int, ...]


def usage(
    connection: Connection,
    by: Sequence[str],
    *,
    first: int | None = None,
    before: int | None = None,
    at_block: int | None = None,
    **of: Any,
) -> list[Row]:
    """What was settled, by members of BY, in their order.

    Args:
        first, before: seconds; settled from then on, and before then.
        of: columns of the authorization, None meaning any.

    Raises:
        InputInvalid: `by` names something else, or the same twice.
    """
    if not set(by) <= set(BY) or len(set(by)) != len(by):
        raise InputInvalid(f"by is one or more of {', '.join(BY)}, each once", field="by")
    start, end = _block_at(connection, first), _block_at(connection, before)
    if at_block is not None:
        end = min(end, at_block + 1)
    parties = _parties(connection, **of)
    stood = {s.authorization: s.sums for s in _stood(connection, parties, start)} if first is not None else {}
    days = _days(connection, parties, start, end) if "day" in by else _stood(connection, parties, end)
    totals: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * (len(SUMS) + 1))
    for stand in days:
        was = stood.get(stand.authorization, (0,) * len(SUMS))
        stood[stand.authorization] = stand.sums
        step = [now - then for now, then in zip(stand.sums, was, strict=True)]
        if not any(step):
            continue
        party = parties[stand.authorization]
        key = tuple(_date(stand.day) if name == "day" else party[name] for name in by)
        total = totals[key]
        for n, amount in enumerate(step):
            total[n] += amount
        total[-1] += 1
    return [
        dict.fromkeys(BY) | dict(zip(by, key, strict=True)) | dict(zip((*SUMS, "steps"), total, strict=True))
        for key, total in sorted(totals.items())
    ]


def _date(day: int) -> str:
    return str((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date())


def _block_at(connection: Connection, seconds: int | None) -> int:
    """The first block at or after a time; beyond all of them if there is none."""
    if seconds is None:
        return 1 << 62
    blocks = schema.blocks
    found = connection.execute(select(func.min(blocks.c.number)).where(blocks.c.timestamp >= seconds)).scalar()
    return 1 << 62 if found is None else found


def _parties(connection: Connection, **of: Any) -> dict[int, Row]:
    """Authorizations by their number, with what they are summed by."""
    table = schema.authorizations
    query = select(table.c.number, *(table.c[name] for name in BY if name != "day"), table.c.ledger).where(holds(table))
    for name, value in of.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    return {row["number"]: dict(row) for row in connection.execute(query).mappings()}


def _stood(connection: Connection, parties: dict[int, Row], before: int) -> Iterator[_Stand]:
    """The last settlement of each before a block."""
    for number, row in queries.last_settlements(connection, list(parties), before).items():
        yield _stand([number, *(row[name] for name in SUMS)], 0, parties)


def _days(connection: Connection, parties: dict[int, Row], first: int, before: int) -> Iterator[_Stand]:
    """The last settlement of each on each day between two blocks, oldest day first."""
    table, blocks = schema.settlements, schema.blocks
    day = ((blocks.c.timestamp + SHANGHAI) // DAY).label("day")
    last = func.row_number().over(
        partition_by=(table.c.authorization, day), order_by=(table.c.block_number.desc(), table.c.log_index.desc())
    )
    ranked = (
        _columns(table)
        .add_columns(day, last.label("last"))
        .join(blocks, blocks.c.number == table.c.block_number)
        .where(table.c.block_number < before)
    )
    if first < 1 << 62:
        ranked = ranked.where(table.c.block_number >= first)
    found = ranked.subquery()
    for row in connection.execute(select(found).where(found.c.last == 1).order_by(found.c.day)):
        if row[0] in parties:
            yield _stand(tuple(row), row.day, parties)


def _columns(table: Any) -> Select[Any]:
    return select(table.c.authorization, *(table.c[name] for name in SUMS))


def _stand(row: Sequence[Any], day: int, parties: dict[int, Row]) -> _Stand:
    sums = list(row[1 : 1 + len(SUMS)])
    if parties[row[0]]["ledger"] != "UsageLedger":
        sums[SUMS.index("paid")] = 0  # invoiced: banks pay, not settlements
    return _Stand(row[0], day, tuple(sums))


def revenue(
    connection: Connection,
    *,
    payee: str | None = None,
    token: str | None = None,
    after: str = "",
    limit: int = 100,
    at_block: int | None = None,
) -> tuple[list[Row], str | None]:
    """Per payee, split and token: accrued, sent and left; of so many splits, and the cursor after them."""
    table = schema.accruals
    found = queries.rows(connection, table, after=after, limit=limit, at_block=at_block, token=token)
    items = []
    for row in found:
        for who, amounts in queries.shares(connection, row["split"], row["token"], at_block).items():
            if payee in (None, who):
                items.append({"payee": who, "split": row["split"], "token": row["token"]} | amounts)
    return items, key_of(table, found[-1]) if len(found) == limit else None


def reservations(connection: Connection, now: int, **filters: Any) -> list[Row]:
    """Escrowed authorizations that still hold money."""
    table = schema.authorizations
    where = [table.c.ledger == "UsageLedger", table.c.status != "CLOSED"]
    found = queries.authorizations(connection, where=where, **filters)
    return [row | {"status": status_of(row, now), "left": row["reserved"] - row["paid"]} for row in found]


def arrears(
    connection: Connection, *, after: str = "", limit: int = 100, **filters: Any
) -> tuple[list[Row], str | None]:
    """Authorizations on which more is due than paid, and the cursor after those looked at."""
    items: list[Row] = []
    while True:
        found = queries.authorizations(connection, after=after, limit=ASK, **filters)
        for row in found:
            if row["due"] > row["paid"]:
                if len(items) == limit:
                    return items, items[-1]["authorization"]
                items.append(row)
        if len(found) < ASK:
            return items, None
        after = found[-1]["authorization"]


def expiring(
    connection: Connection,
    now: int,
    within: int,
    *,
    after: str = "",
    limit: int = 100,
    at_block: int | None = None,
    **equal: Any,
) -> list[Row]:
    """Open authorizations that end within so many seconds from now, the next to end first.

    `after` is "second:authorization".
    """
    table = schema.authorizations
    keys = [table.c.ended_at, table.c.authorization]
    where = [*queries.with_status("OPEN", now), *queries.ending(before=now + within + 1)]
    query = select(table).where(holds(table, at_block), *where).order_by(*keys).limit(limit)
    for name, value in equal.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    if after:
        query = query.where(tuple_(*keys) > queries.key(keys, after))
    found = [queries.plain(row) for row in connection.execute(query).mappings()]
    return queries.with_heads(connection, found, at_block)
