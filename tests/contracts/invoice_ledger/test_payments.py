"""Invoiced mode: what is due follows from heads, what is paid from bank references."""

import pytest

from ledger.chain.decode import Reverted
from ledger.core.ids import Address, raw
from ledger.core.money import currency_token
from ledger.core.terms import AuthorizationTerms, Quad
from tests.world import DAY, Key, World, digest

UNITS: Quad = (60, 1440, 0, 0)


def invoiced(world: World, terms: AuthorizationTerms) -> dict[str, int]:
    found: dict[str, int] = world.read("InvoiceLedger", "invoicedOf", raw(world.id(terms)))
    return found


def refused(world: World, error: str, who: Key, operation: str, **arguments: object) -> None:
    with pytest.raises(Reverted) as caught:
        world.send(who, operation, **arguments)
    assert caught.value.details["error"] == error


@pytest.fixture
def terms(world: World) -> AuthorizationTerms:
    return world.open(invoiced=True)


def test_settling_records_what_is_due_and_moves_nothing(world: World, terms: AuthorizationTerms) -> None:
    world.settle(terms, 60, UNITS)
    due = world.card(invoiced=True).price(UNITS)
    assert invoiced(world, terms) == {"due": due, "paid": 0, "claimed": 0}
    world.settle(terms, 61, UNITS, 60, credits=1_000)
    assert invoiced(world, terms)["due"] == due - 1_000


def test_a_reservation_is_refused_and_so_is_a_token(world: World) -> None:
    terms = world.terms(invoiced=True)
    refused(world, "TermsInvalid", world.stranger, "authorization.open", opening=world.opening(terms, 1))


def test_a_payment_is_recorded_once(world: World, terms: AuthorizationTerms) -> None:
    world.settle(terms, 60, UNITS)
    payment = {"terms": terms.as_json(), "referenceHash": digest("bank 1")}
    for _ in range(2):
        world.send(world.provider, "payment.record", **payment, amount="700")
    assert invoiced(world, terms)["paid"] == 700
    refused(world, "PaymentInvalid", world.provider, "payment.record", **payment, amount="701")
    other = {"terms": terms.as_json(), "referenceHash": digest("bank 2")}
    world.send(world.provider, "payment.record", **other, amount="5")
    assert invoiced(world, terms)["paid"] == 705


def test_a_reversed_reference_is_not_revived_by_a_late_retry(world: World, terms: AuthorizationTerms) -> None:
    payment = {"terms": terms.as_json(), "referenceHash": digest("bank 1")}
    world.send(world.provider, "payment.record", **payment, amount="700")
    world.send(world.provider, "payment.reverse", **payment)
    assert invoiced(world, terms)["paid"] == 0
    refused(world, "PaymentInvalid", world.provider, "payment.record", **payment, amount="700")
    refused(world, "PaymentUnknown", world.provider, "payment.reverse", **payment)


def test_provider_and_consumer_each_have_their_own_word(world: World, terms: AuthorizationTerms) -> None:
    payment = {"terms": terms.as_json(), "referenceHash": digest("bank 1"), "amount": "9"}
    for who, operation in ((world.consumer, "payment.record"), (world.provider, "payment.claim")):
        refused(world, "AuthorizationNotYours", who, operation, **payment)
    world.send(world.consumer, "payment.claim", **payment)
    assert invoiced(world, terms) == {"due": 0, "paid": 0, "claimed": 9}


@pytest.mark.parametrize("change", [{"amount": "0"}, {"referenceHash": "0x" + "00" * 32}, {"amount": str(2**128 - 1)}])
def test_an_empty_payment_is_refused(world: World, terms: AuthorizationTerms, change: dict[str, str]) -> None:
    payment = {"terms": terms.as_json(), "referenceHash": digest("bank 1"), "amount": "9"} | change
    refused(world, "PaymentInvalid", world.provider, "payment.record", **payment)


def test_bank_payments_are_recorded_after_the_end_as_well(world: World, terms: AuthorizationTerms) -> None:
    world.send(world.consumer, "authorization.close", terms=terms.as_json(), reason=101)
    world.pass_time(DAY + 60)
    world.send(world.stranger, "authorization.finalize", terms=terms.as_json())
    payment = {"terms": terms.as_json(), "referenceHash": digest("bank 1"), "amount": "9"}
    world.send(world.provider, "payment.record", **payment)
    assert invoiced(world, terms)["paid"] == 9


def test_the_currency_is_its_iso_code() -> None:
    assert Address(currency_token("CNY")) == "0x0000000000000000000000000000000000434e59"
