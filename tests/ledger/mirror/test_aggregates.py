"""Sums over the mirror: equal to a sum made by hand from every settlement, whatever they are taken by."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import Engine, update

from ledger.billing.statements import SHANGHAI
from ledger.core.database import Target, writing
from ledger.core.errors import InputInvalid
from ledger.mirror import aggregates, queries, schema
from ledger.mirror.aggregates import BY
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.world import DAY, World


@pytest.fixture
def settled(world: World, database: Target) -> Iterator[tuple[World, Engine]]:
    """Escrowed and invoiced, on three days, one of them with arrears."""
    opened = [world.open(5_000_000), world.open(90_000), world.open(0, invoiced=True)]
    sizes = [0, 0, 0]
    for day in range(3):
        for n, terms in enumerate(opened):
            if (day + n) % 3 == 2:
                continue
            for _ in range(2):
                sizes[n] += 7
                world.settle(terms, sizes[n], (sizes[n], 24 * sizes[n], 0, 0), sizes[n] - 7)
        world.pass_time(DAY)
    engine = open_mirror(database, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    yield world, engine
    engine.dispose()


def by_hand(engine: Engine, by: tuple[str, ...], first: int | None, before: int | None) -> dict[Any, list[int]]:
    """Every settlement's step, added up where it belongs."""
    totals: dict[Any, list[int]] = defaultdict(lambda: [0] * 7)
    with engine.connect() as connection:
        for row in queries.authorizations(connection, limit=1000):
            was = [0] * 7
            for one in queries.settlement_rows(connection, row["authorization"]):
                paid = one["paid"] if row["ledger"] == "UsageLedger" else 0
                now = [one["size"], *(one[f"units{n}"] for n in range(4)), one["due"], paid]
                step, was = [a - b for a, b in zip(now, was, strict=True)], now
                if (first is None or one["timestamp"] >= first) and (before is None or one["timestamp"] < before):
                    day = str(datetime.fromtimestamp(one["timestamp"], SHANGHAI).date())
                    key = tuple(day if name == "day" else row[name] for name in by)
                    totals[key] = [a + b for a, b in zip(totals[key], step, strict=True)]
    return dict(totals)


def found(engine: Engine, by: tuple[str, ...], **options: Any) -> dict[Any, list[int]]:
    with engine.connect() as connection:
        rows = aggregates.usage(connection, by, **options)
    return {tuple(row[name] for name in by): [row[name] for name in aggregates.SUMS] for row in rows}


def test_use_by_anything_is_the_sum_of_its_settlements(settled: tuple[World, Engine]) -> None:
    _, engine = settled
    with engine.connect() as connection:
        times = [row["timestamp"] for row in queries.settled(connection, limit=1000)]
    spans = [(None, None), (times[3], None), (None, times[5]), (times[2], times[-1]), (times[-1] + 1, None)]
    for count in (1, 2, 6):
        for by in combinations(BY, count):
            for first, before in spans:
                assert found(engine, by, first=first, before=before) == by_hand(engine, by, first, before), (by, first)
    assert len(found(engine, ("day",))) == 3


def test_use_can_be_of_one_party_or_token(settled: tuple[World, Engine]) -> None:
    world, engine = settled
    assert found(engine, ("consumer",), consumer=world.consumer.address) == found(engine, ("consumer",))
    assert found(engine, ("consumer",), consumer=world.stranger.address) == {}
    tokens = found(engine, ("token",))
    assert len(tokens) == 2
    assert found(engine, ("token",), token=world.token) == {(world.token,): tokens[world.token,]}


def test_use_by_something_else_is_refused(settled: tuple[World, Engine]) -> None:
    for by in (["weather"], ["day", "day"], [""]):
        with settled[1].connect() as connection, pytest.raises(InputInvalid):
            aggregates.usage(connection, by)


def test_amounts_beyond_64_bits_are_exact(settled: tuple[World, Engine]) -> None:
    _, engine = settled
    table, large = schema.settlements, 10**30 + 1
    with writing(engine) as connection:
        connection.execute(update(table).where(table.c.kind == schema.SETTLED).values(due=large))
    sums = found(engine, ("space",))
    assert next(iter(sums.values()))[5] == 3 * large


def test_revenue_is_every_payees_part_of_what_accrued(settled: tuple[World, Engine]) -> None:
    world, engine = settled
    with engine.connect() as connection:
        rows, following = aggregates.revenue(connection)
        accrued = {(r["split"], r["token"]): r["accrued"] for r in queries.rows(connection, schema.accruals)}
        mine, _ = aggregates.revenue(connection, payee=world.holder.address)
        one, after = aggregates.revenue(connection, limit=1)
    assert following is None
    assert after is not None
    assert one == rows[:3]
    total = sum(row["accrued"] for row in rows)
    assert sum(accrued.values()) - 2 <= total <= sum(accrued.values())  # what does not divide stays for the next
    assert [row["payee"] for row in mine] == [world.holder.address]
    assert all(row["left"] == row["accrued"] - row["sent"] for row in rows)


def test_reservations_and_arrears_are_those_of_the_contract(settled: tuple[World, Engine]) -> None:
    world, engine = settled
    with engine.connect() as connection:
        held = aggregates.reservations(connection, world.now())
        owing, _ = aggregates.arrears(connection)
        everything = queries.authorizations(connection)
    assert {row["authorization"] for row in held} == {
        row["authorization"] for row in everything if row["ledger"] == "UsageLedger"
    }
    assert all(row["left"] == row["reserved"] - row["paid"] for row in held)
    expected = {row["authorization"] for row in everything if row["due"] > row["paid"]}
    assert {row["authorization"] for row in owing} == expected
    assert expected


def test_arrears_turn_pages(settled: tuple[World, Engine]) -> None:
    _, engine = settled
    with engine.connect() as connection:
        whole, _ = aggregates.arrears(connection)
        first, after = aggregates.arrears(connection, limit=1)
        rest, end = aggregates.arrears(connection, limit=1000, after=after or "")
    assert first + rest == whole
    assert end is None


def test_what_ends_soon_ends_in_order(world: World, database: Target) -> None:
    now = world.now()
    ends = [now + 5 * DAY, now + 2 * DAY, now + 9 * DAY]
    ids = [world.id(world.open(0, valid_until=end)) for end in ends]
    engine = open_mirror(database, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    with engine.connect() as connection:

        def soon(days: int, **more: Any) -> list[str]:
            return [row["authorization"] for row in aggregates.expiring(connection, now, days * DAY, **more)]

        assert soon(30) == [ids[1], ids[0], ids[2]]
        assert soon(5) == [ids[1], ids[0]]
        assert soon(1) == []
        assert soon(30, limit=1, after=f"{ends[1]}:{ids[1]}") == [ids[0]]
        assert soon(30, consumer=world.stranger.address) == []
    engine.dispose()
