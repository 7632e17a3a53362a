"""Settling: the contract prices the units of a head both wallets signed, and pays from the reservation."""

from dataclasses import replace
from typing import Any

import pytest

from ledger.chain.decode import Reverted, decode_revert
from ledger.chain.deploy import Deployment
from ledger.chain.operations import encode
from ledger.chain.send import Receipt
from ledger.core.ids import ZERO_HASH, Address, Hash32, raw
from ledger.core.terms import FAST, AuthorizationTerms, Quad
from tests.world import DAY, World, digest

UNITS: Quad = (60, 1440, 0, 0)


def price(world: World, units: Quad) -> int:
    return world.card().price(units)


def refused(world: World, error: str, settlement: dict[str, Any]) -> None:
    with pytest.raises(Reverted) as caught:
        world.send(world.stranger, "settle.one", settlement=settlement)
    assert caught.value.details["error"] == error


def test_settle_pays_the_price_of_the_units(world: World) -> None:
    terms = world.open(10_000_000)
    world.settle(terms, 60, UNITS)
    due = price(world, UNITS)
    assert due == 50 * 10_000 + 1440 * 2_800
    assert world.reservation(terms)["paid"] == due
    assert world.read("UsageLedger", "accruedOf", raw(terms.split), terms.token) == due
    assert world.settled(terms, 60)


def test_settle_grows_by_consistency_proof(world: World) -> None:
    terms = world.open(10_000_000)
    world.settle(terms, 3, (3, 72, 0, 0))
    world.settle(terms, 7, (7, 168, 0, 0), settled=3)
    head = world.head(terms, 12, (12, 288, 0, 0))
    refused(world, "HeadInconsistent", world.settlement(terms, head, 7, consistency=[]))
    forked = replace(head, root=digest("another history"))
    refused(world, "HeadInconsistent", world.settlement(terms, forked, 7))
    world.send(world.stranger, "settle.one", settlement=world.settlement(terms, head, 7))


def test_fast_settles_without_a_proof(world: World) -> None:
    terms = world.open(10_000_000, flags=FAST)
    world.settle(terms, 3, (3, 72, 0, 0))
    head = world.head(terms, 7, (7, 168, 0, 0))
    world.send(world.stranger, "settle.one", settlement=world.settlement(terms, head, 3, consistency=[]))
    assert world.settled(terms, 7)


@pytest.mark.parametrize("cuts", [[60], [1, 60], [10, 11, 30, 59, 60]])
def test_how_often_one_settles_does_not_matter(world: World, cuts: list[int]) -> None:
    terms = world.open(10_000_000)
    settled = 0
    for n in cuts:
        world.settle(terms, n, (n, n * 24, 0, 0), settled)
        settled = n
    assert world.reservation(terms)["paid"] == price(world, (60, 1440, 0, 0))


def test_a_settled_head_cannot_be_settled_again(world: World) -> None:
    terms = world.open(10_000_000)
    head = world.head(terms, 60, UNITS)
    settlement = world.settlement(terms, head)
    world.send(world.stranger, "settle.one", settlement=settlement)
    refused(world, "HeadMoved", settlement)
    refused(world, "HeadStale", settlement | {"previous": head.as_json()})
    assert world.reservation(terms)["paid"] == price(world, UNITS)


@pytest.mark.parametrize(
    ("error", "change"),
    [
        ("HeadLower", {"units": (4, 200, 0, 0)}),
        ("HeadLower", {"as_of": 5}),
        ("HeadInFuture", {"as_of": 2**40 - 1}),
        ("HeadOverQuota", {"units": (10_001, 200, 0, 0)}),
    ],
)
def test_settle_refuses_a_head_that_breaks_a_rule(world: World, error: str, change: dict[str, Any]) -> None:
    terms = world.open(10_000_000)
    world.settle(terms, 5, (5, 120, 0, 0), credits=7)
    head = replace(world.head(terms, 9, (9, 216, 0, 0), credits=7), **change)
    refused(world, error, world.settlement(terms, head, 5))
    assert world.reservation(terms)["paid"] == price(world, (5, 120, 0, 0)) - 7


def test_a_provider_alone_cannot_hide_a_credit(world: World) -> None:
    terms = world.open(10_000_000)
    world.settle(terms, 5, (5, 120, 0, 0), credits=7)
    refused(world, "HeadLower", world.settlement(terms, world.head(terms, 9, (9, 216, 0, 0)), 5))


@pytest.mark.parametrize("who", ["providerSignature", "consumerSignature"])
def test_settle_needs_both_signatures(world: World, who: str) -> None:
    terms = world.open(10_000_000)
    head = world.head(terms, 60, UNITS)
    forged = world.stranger.sign(head, world.domain(terms))
    refused(world, "SignatureInvalid", world.settlement(terms, head) | {who: forged})
    refused(world, "SignatureInvalid", world.settlement(terms, head) | {who: "0x"})
    assert world.reservation(terms)["paid"] == 0


def test_calling_counts_as_the_providers_signature_and_only_the_providers(world: World) -> None:
    terms = world.open(10_000_000)
    head = world.head(terms, 60, UNITS)
    without = world.settlement(terms, head, providerSignature="0x")
    with pytest.raises(Reverted) as caught:
        world.send(world.consumer, "settle.one", settlement=without)
    assert caught.value.details["error"] == "SignatureInvalid"
    world.send(world.provider, "settle.one", settlement=without)
    assert world.reservation(terms)["paid"] == price(world, UNITS)


def test_a_head_signed_for_another_chain_or_deployment_is_worth_nothing_here(world: World) -> None:
    terms = world.open(10_000_000)
    head = world.head(terms, 60, UNITS)
    elsewhere = replace(world.domain(terms), chain_id=1)
    other = world.deployment.domain("InvoiceLedger")
    for domain in (elsewhere, other):
        signatures = {
            "providerSignature": world.provider.sign(head, domain),
            "consumerSignature": world.consumer.sign(head, domain),
        }
        refused(world, "SignatureInvalid", world.settlement(terms, head) | signatures)


def test_what_the_reservation_cannot_cover_stays_as_arrears_and_is_paid_by_a_top_up(world: World) -> None:
    terms = world.open(1_000)
    world.settle(terms, 60, UNITS)
    due = price(world, UNITS)
    assert world.reservation(terms)["paid"] == 1_000
    world.fund(due, world.stranger)
    world.send(
        world.stranger, "authorization.top-up", terms=terms.as_json(), settled=world.last(terms), amount=str(due)
    )
    found = world.reservation(terms)
    assert (found["paid"], found["reserved"]) == (due, due + 1_000)


def test_a_one_unit_top_up_in_front_does_not_disturb_a_settlement(world: World) -> None:
    terms = world.open(10_000_000)
    settlement = world.settlement(terms, world.head(terms, 60, UNITS))
    world.fund(1, world.stranger)
    world.send(world.stranger, "authorization.top-up", terms=terms.as_json(), settled=None, amount="1")
    world.send(world.stranger, "settle.one", settlement=settlement)
    assert world.reservation(terms)["paid"] == price(world, UNITS)


def test_credits_lower_what_is_due_but_never_what_was_paid(world: World) -> None:
    terms = world.open(10_000_000)
    world.settle(terms, 60, UNITS)
    paid = world.reservation(terms)["paid"]
    world.settle(terms, 61, UNITS, 60, credits=500_000)
    assert world.reservation(terms)["paid"] == paid
    world.settle(terms, 100, (100, 2400, 0, 0), 61, credits=500_000)
    assert world.reservation(terms)["paid"] == price(world, (100, 2400, 0, 0)) - 500_000


def test_a_head_signed_while_the_end_was_on_its_way_stays_payable(world: World) -> None:
    """The gateway's clock runs ahead of the block that ends the authorization."""
    terms = world.open(10_000_000)
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    world.pass_time(14 * 60)
    world.settle(terms, 60, UNITS)
    assert world.reservation(terms)["paid"] == price(world, UNITS)


def test_units_after_the_end_are_refused_and_refusals_after_the_end_are_not(world: World) -> None:
    terms = world.open(10_000_000)
    world.settle(terms, 5, (5, 120, 0, 0))
    world.send(world.provider, "authorization.close", terms=terms.as_json(), reason=101)
    world.pass_time(16 * 60)
    refused(world, "HeadAfterEnd", world.settlement(terms, world.head(terms, 9, (9, 216, 0, 0)), 5))
    world.settle(terms, 6, (5, 120, 0, 0), settled=5)
    assert world.settled(terms, 6)


def test_a_newer_head_settles_after_a_stale_one_at_close(world: World) -> None:
    terms = world.open(10_000_000)
    newer = world.head(terms, 9, (9, 216, 0, 0))
    world.settle(terms, 5, (5, 120, 0, 0), as_of=newer.as_of - 1)
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    world.send(world.stranger, "settle.one", settlement=world.settlement(terms, newer, 5))
    assert world.reservation(terms)["paid"] == price(world, (9, 216, 0, 0))


def test_nothing_settles_after_the_window(world: World) -> None:
    terms = world.open(10_000_000)
    head = world.head(terms, 60, UNITS)
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    world.pass_time(DAY + 60)
    refused(world, "WindowOver", world.settlement(terms, head))
    world.send(world.stranger, "authorization.finalize", terms=terms.as_json())
    refused(world, "AuthorizationStatus", world.settlement(terms, head))
    assert world.free() == 10_000_000


def events(world: World, receipt: Receipt) -> list[Any]:
    from ledger.chain.decode import decode_log
    from ledger.chain.fetch import Fetcher
    from ledger.mirror.store import followed

    fetched = Fetcher(world.chain, list(followed(world.deployment))).near(receipt.block, receipt.block)
    assert fetched is not None
    ((_, logs),) = fetched.blocks
    return [decode_log(log, world.deployment.names()) for log in logs]


def test_a_batch_skips_bad_rows_with_their_reason_and_settles_the_others(world: World) -> None:
    world.fund(30_000_000)
    authorizations: list[AuthorizationTerms] = []
    for _ in range(5):
        terms = world.terms()
        world.send(world.stranger, "authorization.open", opening=world.opening(terms, 5_000_000))
        authorizations.append(terms)
    rows = [world.settlement(t, world.head(t, 60, UNITS)) for t in authorizations]
    rows[1]["consumerSignature"] = rows[0]["consumerSignature"]
    rows[3]["head"] = rows[3]["head"] | {"asOf": 2**40 - 1}
    receipt = world.send(world.stranger, "settle.many", settlements=rows)
    found = events(world, receipt)
    reasons = {e.args["row"]: e.args["problem"] for e in found if e.name == "SettlementSkipped"}
    skipped = {row: decode_revert(raw(problem)).error for row, problem in reasons.items()}
    assert skipped == {1: "SignatureInvalid", 3: "HeadInFuture"}
    paid = [world.reservation(t)["paid"] for t in authorizations]
    due = price(world, UNITS)
    assert paid == [due, 0, due, 0, due]


def test_a_batch_is_its_rows_one_by_one(world: World) -> None:
    terms = world.open(10_000_000)
    rows = []
    for before, n in ((0, 5), (5, 9), (9, 60)):
        rows.append(world.settlement(terms, world.head(terms, n, (n, n * 24, 0, 0)), before))
    world.send(world.stranger, "settle.many", settlements=rows)
    assert world.settled(terms, 60)
    assert world.reservation(terms)["paid"] == price(world, (60, 1440, 0, 0))


def test_what_happens_on_one_authorization_changes_nothing_on_another(world: World) -> None:
    first, second = world.open(5_000_000), world.open(5_000_000)
    world.settle(first, 60, UNITS)
    assert world.reservation(second) == {"reserved": 5_000_000, "paid": 0, "thawing": 0, "thawEnd": 0, "refunded": 0}
    assert world.state(second)["headDigest"] == ZERO_HASH


def test_calldata_is_bound_to_the_deployment(world: World) -> None:
    """Encoding the same operation for another deployment goes to another address."""
    terms = world.terms()
    moved = Deployment(
        world.deployment.chain_id,
        world.deployment.genesis,
        0,
        {name: Address("0x" + "11" * 20) for name in world.deployment.contracts},
        {name: Hash32(ZERO_HASH) for name in world.deployment.contracts},
    )
    call = encode(moved, "authorization.finalize", {"terms": terms.as_json()})
    assert call.to == "0x" + "11" * 20
