"""Accounts, reservations, thaws, the end, and shares: where money is and who can move it."""

import pytest

from ledger.chain.decode import Reverted
from ledger.core.ids import ZERO_ADDRESS, raw
from ledger.core.terms import Quad
from tests.world import DAY, Key, World

UNITS: Quad = (60, 1440, 0, 0)


def refused(world: World, error: str, who: Key, operation: str, **arguments: object) -> None:
    with pytest.raises(Reverted) as caught:
        world.send(who, operation, **arguments)
    assert caught.value.details["error"] == error


def balance(world: World, key: Key) -> int:
    return int(world.read("DemoYuan", "balanceOf", key.address))


def test_what_is_deposited_can_be_withdrawn_by_its_owner_alone(world: World) -> None:
    world.fund(100)
    money = {"token": world.token, "amount": "100"}
    refused(world, "BalanceTooLow", world.stranger, "account.withdraw", **money, to=world.stranger.address)
    world.send(world.consumer, "account.withdraw", **money, to=world.holder.address)
    assert (world.free(), balance(world, world.holder), world.ledger_balance()) == (0, 100, 0)


def test_money_is_not_sent_where_nobody_could_take_it(world: World) -> None:
    ledger = world.deployment.address("UsageLedger")
    world.fund(100)
    for owner in (ZERO_ADDRESS, ledger):
        refused(world, "ReceiverInvalid", world.consumer, "account.deposit", owner=owner, token=world.token, amount="1")
    refused(world, "ReceiverInvalid", world.consumer, "account.withdraw", token=world.token, amount="1", to=ledger)
    refused(world, "AmountZero", world.consumer, "account.withdraw", token=world.token, amount="0", to=ledger)


def test_reserved_money_cannot_be_withdrawn_before_settlement(world: World) -> None:
    """x402-foundation/x402#3464: the payer empties its deposit between use and settlement."""
    terms = world.open(5_000_000)
    head = world.head(terms, 60, UNITS)
    money = {"token": world.token, "amount": "1", "to": world.consumer.address}
    refused(world, "BalanceTooLow", world.consumer, "account.withdraw", **money)
    world.send(world.stranger, "settle.one", settlement=world.settlement(terms, head))
    assert world.reservation(terms)["paid"] == world.card().price(UNITS)


def test_value_acknowledged_before_a_thaw_is_payable_until_it_matures(world: World) -> None:
    terms = world.open(5_000_000)
    head = world.head(terms, 60, UNITS)
    world.send(world.consumer, "authorization.thaw", terms=terms.as_json(), amount="5000000")
    refused(world, "ThawNotOver", world.consumer, "authorization.release", terms=terms.as_json())
    world.pass_time(DAY - 60)
    world.send(world.stranger, "settle.one", settlement=world.settlement(terms, head))
    due = world.card().price(UNITS)
    world.pass_time(120)
    world.send(world.stranger, "authorization.release", terms=terms.as_json())
    assert world.free() == 5_000_000 - due
    found = world.reservation(terms)
    assert (found["reserved"], found["paid"], found["thawing"]) == (due, due, 0)


def test_only_the_consumer_thaws_and_never_more_than_is_unpaid(world: World) -> None:
    terms = world.open(5_000_000)
    for who in (world.provider, world.stranger):
        refused(world, "AuthorizationNotYours", who, "authorization.thaw", terms=terms.as_json(), amount="1")
    refused(world, "ThawTooLarge", world.consumer, "authorization.thaw", terms=terms.as_json(), amount="5000001")


def test_a_thaw_covers_what_was_unpaid_before_a_top_up_not_the_new_money(world: World) -> None:
    terms = world.open(10_000_000)
    world.send(world.consumer, "authorization.thaw", terms=terms.as_json(), amount="10000000")
    world.settle(terms, 60, UNITS)
    due = world.card().price(UNITS)
    world.fund(7_000_000)
    world.send(
        world.consumer, "authorization.top-up", terms=terms.as_json(), settled=world.last(terms), amount="7000000"
    )
    assert world.reservation(terms)["thawing"] == 10_000_000 - due
    world.pass_time(DAY)
    world.send(world.stranger, "authorization.release", terms=terms.as_json())
    assert world.reservation(terms)["reserved"] == due + 7_000_000


def test_finalize_waits_for_the_window_and_gives_back_what_is_left(world: World) -> None:
    terms = world.open(5_000_000)
    world.settle(terms, 60, UNITS)
    due = world.card().price(UNITS)
    refused(world, "WindowNotOver", world.stranger, "authorization.finalize", terms=terms.as_json())
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    refused(world, "WindowNotOver", world.stranger, "authorization.finalize", terms=terms.as_json())
    world.pass_time(DAY + 60)
    world.send(world.stranger, "authorization.finalize", terms=terms.as_json())
    assert world.free() == 5_000_000 - due
    assert world.state(terms)["status"] == 3
    refused(world, "AuthorizationStatus", world.stranger, "authorization.finalize", terms=terms.as_json())


def test_nobody_tops_up_after_the_window(world: World) -> None:
    terms = world.open(1_000)
    world.fund(500)
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    world.pass_time(DAY + 60)
    refused(
        world,
        "WindowOver",
        world.consumer,
        "authorization.top-up",
        terms=terms.as_json(),
        settled=world.last(terms),
        amount="500",
    )


def test_a_provider_has_no_way_around_the_grace(world: World) -> None:
    terms = world.open(1_000, revoke_grace=DAY)
    now = world.now()
    world.send(world.provider, "authorization.close", terms=terms.as_json(), reason=100)
    assert world.state(terms)["endedAt"] >= now + DAY
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    assert world.state(terms)["endedAt"] < now + DAY


def test_an_end_is_never_prolonged(world: World) -> None:
    terms = world.open(1_000)
    world.send(world.operator, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=103)
    refused(
        world,
        "AuthorizationStatus",
        world.provider,
        "authorization.revoke",
        terms=terms.as_json(),
        approvers=[],
        reason=0,
    )

    slow = world.open(1_000, revoke_grace=DAY)
    world.send(world.provider, "authorization.revoke", terms=slow.as_json(), approvers=[], reason=103)
    world.pass_time(60)
    refused(
        world,
        "AuthorizationEnding",
        world.provider,
        "authorization.revoke",
        terms=slow.as_json(),
        approvers=[],
        reason=0,
    )


def test_only_provider_and_operator_revoke(world: World) -> None:
    terms = world.open(1_000)
    for who in (world.consumer, world.stranger):
        refused(
            world, "AuthorizationNotYours", who, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100
        )


def test_each_payee_takes_its_share_and_order_does_not_matter(world: World) -> None:
    terms = world.open(5_000_000)
    world.settle(terms, 60, UNITS)
    due = world.card().price(UNITS)
    split = world.split()
    for key in (world.operator, world.holder, world.provider):
        world.send(world.stranger, "share.pay", split=terms.split, token=terms.token, payee=key.address)
        assert balance(world, key) == split.amounts(due)[key.address]
        refused(world, "AmountZero", key, "share.pay", split=terms.split, token=terms.token, payee=key.address)
    refused(
        world,
        "ShareUnknown",
        world.stranger,
        "share.pay",
        split=terms.split,
        token=terms.token,
        payee=world.stranger.address,
    )
    accrued = world.read("UsageLedger", "accruedOf", raw(terms.split), terms.token)
    paid_out = sum(balance(world, key) for key in (world.operator, world.holder, world.provider))
    assert 0 <= accrued - paid_out < len(split.shares)


def test_the_ledger_holds_exactly_what_it_owes(world: World) -> None:
    """Invariant 1, with equality: nobody sent tokens around the ledger."""
    terms = world.open(5_000_000)
    world.fund(123)
    world.settle(terms, 60, UNITS)
    world.send(world.holder, "share.pay", split=terms.split, token=terms.token, payee=world.holder.address)
    found = world.reservation(terms)
    accrued = world.read("UsageLedger", "accruedOf", raw(terms.split), terms.token)
    owed = world.free() + found["reserved"] - found["paid"] + accrued - balance(world, world.holder)
    assert world.ledger_balance() == owed


def test_a_suspended_provider_is_still_paid(world: World) -> None:
    terms = world.open(5_000_000)
    party = {"space": world.space, "wallet": world.provider.address}
    world.send(world.operator, "participant.suspend", **party, reason=100)
    world.settle(terms, 60, UNITS)
    world.send(world.provider, "share.pay", split=terms.split, token=terms.token, payee=world.provider.address)
    assert balance(world, world.provider) == world.split().amounts(world.card().price(UNITS))[world.provider.address]
