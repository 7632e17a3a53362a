"""Bills and statements: recomputed from leaves, equal to the chain to the last unit."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.billing.bills import BillDiffers, bill_of
from ledger.billing.statements import month_bounds, statement
from ledger.core.charges import lines
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.ids import ZERO_HASH, Address, Hash32, raw
from ledger.core.money import round_to_fen
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Tier
from ledger.core.terms import AuthorizationTerms, Quad
from ledger.core.usage_leaf import UsageLeaf
from ledger.metering.log import read_entries
from tests.exchange import Exchange
from tests.world import World


def used(running: Exchange, terms: AuthorizationTerms, uses: int) -> list[UsageLeaf]:
    consumer = running.consumer(terms, f"c{terms.flags}")
    for n in range(uses):
        consumer.use(running.version, "RESEARCH", {"limit": str(1 + n % 24)})
    running.settle(terms, consumer.sign_head())
    running.follow()
    with running.usage.connect() as connection:
        return [e.leaf for e in read_entries(connection, running.world.id(terms))]


def test_a_bill_equals_the_chain_to_the_last_unit(running: Exchange) -> None:
    terms = running.open()
    leaves = used(running, terms, 40)
    world = running.world
    with running.mirror.connect() as mirror:
        bill = bill_of(mirror, world.id(terms), leaves)
    paid = world.reservation(terms)["paid"]
    assert bill.due == bill.paid == paid == sum(line.amount for line in bill.lines)
    accrued = world.read("UsageLedger", "accruedOf", raw(terms.split), terms.token)
    assert bill.split == world.split().amounts(accrued)
    assert [(line.meter, line.tier, line.units) for line in bill.lines] == [
        (0, None, 10),
        (0, 0, 30),
        (1, 0, leaves[-1].cum_units[1]),
    ]
    assert (bill.lines[0].first_leaf, bill.lines[0].last_leaf) == (0, 9)
    assert (bill.lines[1].first_leaf, bill.lines[1].last_leaf) == (10, 39)


def test_the_same_bill_has_the_same_bytes(running: Exchange) -> None:
    terms = running.open()
    leaves = used(running, terms, 12)
    with running.mirror.connect() as mirror:
        first, second = (bill_of(mirror, running.world.id(terms), leaves) for _ in range(2))
    assert first.digest() == second.digest()


def test_leaves_that_are_not_those_of_the_settled_head_give_no_bill(running: Exchange) -> None:
    terms = running.open()
    leaves = used(running, terms, 12)
    from dataclasses import replace

    forged = [*leaves[:5], replace(leaves[5], payload_hash=ZERO_HASH), *leaves[6:]]
    with running.mirror.connect() as mirror:
        for wrong in (forged, leaves[:-1], []):
            with pytest.raises(BillDiffers):
                bill_of(mirror, running.world.id(terms), wrong)


def test_there_is_no_bill_before_a_settlement(running: Exchange) -> None:
    terms = running.open()
    with running.mirror.connect() as mirror, pytest.raises(NotFound, match="nothing is settled"):
        bill_of(mirror, running.world.id(terms), [])


def test_an_invoice_rounds_each_line_once(running: Exchange) -> None:
    terms = running.open(0, invoiced=True)
    leaves = used(running, terms, 13)
    world = running.world
    with running.mirror.connect() as mirror:
        bill = bill_of(mirror, world.id(terms), leaves)
    assert bill.due == world.read("InvoiceLedger", "invoicedOf", raw(world.id(terms)))["due"]
    assert bill.payable_fen == sum(round_to_fen(line.amount) for line in bill.lines)
    assert bill.rounding_uy == bill.payable_fen * 10_000 - bill.due
    assert bill.outstanding_fen == bill.payable_fen


def test_a_statement_adds_up_to_the_chain(running: Exchange, tmp_path: Path) -> None:
    world = running.world
    terms, invoiced = running.open(), running.open(0, invoiced=True)
    used(running, terms, 15)
    used(running, invoiced, 15)
    world.send(world.holder, "share.pay", split=terms.split, token=terms.token, payee=world.holder.address)
    running.follow()
    block = world.chain.block("latest")
    assert block is not None
    month = datetime.fromtimestamp(block.timestamp + 8 * 3600, UTC).strftime("%Y-%m")
    with running.mirror.connect() as mirror:
        mine = statement(mirror, world.consumer.address, month)
        theirs = statement(mirror, world.provider.address, month)
        holder = statement(mirror, world.holder.address, month)
        empty = statement(mirror, world.consumer.address, "1999-01")
    due = {line["mode"]: int(line["due"]) for line in mine["lines"]}
    assert due["escrowed"] == world.reservation(terms)["paid"]
    assert due["invoiced"] == world.read("InvoiceLedger", "invoicedOf", raw(world.id(invoiced)))["due"]
    assert [line | {"role": ""} for line in mine["lines"]] == [line | {"role": ""} for line in theirs["lines"]]
    (share,) = holder["shares"]
    assert int(share["amount"]) == world.read("DemoYuan", "balanceOf", world.holder.address)
    assert empty["lines"] == []


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "26-01", "0000-01", "2026-1", "2026-01-01", ""])
def test_a_month_that_is_none_is_refused(month: str) -> None:
    with pytest.raises(InputInvalid):
        month_bounds(month)


def test_months_are_those_of_shanghai() -> None:
    first, end = month_bounds("2026-12")
    assert datetime.fromtimestamp(first, UTC).isoformat() == "2026-11-30T16:00:00+00:00"
    assert datetime.fromtimestamp(end, UTC).isoformat() == "2026-12-31T16:00:00+00:00"


# ------------------------------------------------------------------------------------------------ properties

meters = st.lists(
    st.builds(
        lambda scale, free, bounds, prices: Meter(
            scale,
            free,
            tuple(Tier(b, p) for b, p in zip([*sorted(set(bounds)), MAX_UNITS], prices, strict=False)),
        ),
        st.integers(1, 5000),
        st.integers(0, 50),
        st.lists(st.integers(1, 200), min_size=3, max_size=3, unique=True),
        st.lists(st.integers(0, 10**9), min_size=4, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def leaf(index: int, units: Quad, total: Quad) -> UsageLeaf:
    zero = Hash32(ZERO_HASH)
    return UsageLeaf(
        authorization_id=zero,
        index=index,
        use_id_hash=zero,
        units=units,
        cum_units=total,
        cum_credits=0,
        event_time=0,
        served_at=0,
        kind=0,
        purpose=0,
        modality=0,
        version=zero,
        payload_hash=zero,
    )


@settings(max_examples=200, deadline=None)
@given(meters, st.lists(st.tuples(*[st.integers(0, 60)] * 4), min_size=1, max_size=12), st.data())
def test_lines_sum_to_the_price_however_a_period_is_cut(found: Any, steps: Any, data: st.DataObject) -> None:
    card = RateCard(Address("0x" + "11" * 20), 6, tuple(found))
    total: Quad = (0, 0, 0, 0)
    leaves = []
    for i, step in enumerate(steps):
        used_units = [n if m < len(found) else 0 for m, n in enumerate(step)]
        a, b, c, d = (x + y for x, y in zip(total, used_units, strict=True))
        total = (a, b, c, d)
        leaves.append(leaf(i, (used_units[0], used_units[1], used_units[2], used_units[3]), total))
    whole = sum(line.amount for line in lines(card, (0, 0, 0, 0), leaves))
    assert whole == card.price(total)
    cut = data.draw(st.integers(0, len(leaves)))
    middle = leaves[cut - 1].cum_units if cut else (0, 0, 0, 0)
    first = sum(line.amount for line in lines(card, (0, 0, 0, 0), leaves[:cut]))
    second = sum(line.amount for line in lines(card, middle, leaves[cut:]))
    assert first + second == whole


def test_the_world_prices_like_the_contract(world: World) -> None:
    """Random units through both, on the chain."""
    import random

    rng = random.Random(3)
    terms = world.terms()
    for _ in range(20):
        units = [rng.randrange(10**6), rng.randrange(10**9), 0, 0]
        assert world.read("UsageLedger", "priceOf", raw(terms.rate_card), units) == world.card().price(
            (units[0], units[1], 0, 0)
        )
