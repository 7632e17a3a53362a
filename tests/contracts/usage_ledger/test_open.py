"""Opening: what both wallets signed, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from ledger.chain.decode import Reverted
from ledger.core.ids import ZERO_HASH
from ledger.core.terms import AGENT_CAPPED, INVOICED, Acceptance, Offer
from tests.world import DAY, Key, World, digest


def refused(world: World, error: str, opening: dict[str, Any]) -> None:
    with pytest.raises(Reverted) as caught:
        world.send(world.stranger, "authorization.open", opening=opening)
    assert caught.value.details["error"] == error


def test_open_reserves_exactly_what_was_accepted(world: World) -> None:
    world.fund(1_000_000)
    terms = world.terms()
    world.send(world.stranger, "authorization.open", opening=world.opening(terms, 400_000))
    assert world.free() == 600_000
    assert world.reservation(terms) == {"reserved": 400_000, "paid": 0, "thawing": 0, "thawEnd": 0, "refunded": 0}
    assert world.state(terms)["status"] == 1


def test_a_relayer_cannot_reserve_more_than_was_accepted(world: World) -> None:
    world.fund(1_000_000)
    terms = world.terms()
    opening = world.opening(terms, 400_000)
    opening["acceptance"] = opening["acceptance"] | {"reserve": "1000000"}
    refused(world, "SignatureInvalid", opening)
    assert world.free() == 1_000_000


def test_open_refuses_the_same_terms_twice(world: World) -> None:
    terms = world.open()
    refused(world, "AuthorizationStatus", world.opening(terms))


def test_open_refuses_more_than_the_account_holds(world: World) -> None:
    world.fund(100)
    refused(world, "BalanceTooLow", world.opening(world.terms(), 101))


def test_one_deposit_is_not_promised_twice(world: World) -> None:
    world.fund(100)
    world.send(world.stranger, "authorization.open", opening=world.opening(world.terms(), 100))
    refused(world, "BalanceTooLow", world.opening(world.terms(), 1))


def test_open_refuses_a_late_acceptance(world: World) -> None:
    terms = world.terms()
    opening = world.opening(terms)
    late = Acceptance(authorization_id=world.id(terms), reserve=0, deadline=world.now() - 100)
    signature = world.consumer.sign(late, world.domain(terms))
    refused(world, "AcceptanceInvalid", opening | {"acceptance": late.as_json(), "acceptanceSignature": signature})


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("validFrom", {"valid_from": 2**40 - 1}),
        ("thawSeconds", {"thaw_seconds": DAY - 1}),
        ("thawSeconds", {"thaw_seconds": 30 * DAY + 1}),
        ("revokeGrace", {"revoke_grace": 30 * DAY + 1}),
        ("flags", {"flags": AGENT_CAPPED}),
        ("token", {"flags": INVOICED}),  # goes to the invoice ledger, which takes no ERC-20
        ("flags", {"flags": 128}),
        ("scope.approversHash", {"approvers_hash": digest("approvers")}),
        ("scope.product", {"product": digest("other product")}),
        ("scope.codeLists", {"code_lists": digest("other codes")}),
        ("scope.version", {"version": digest("other version")}),
        ("rateCard", {"rate_card": digest("no card")}),
        ("split", {"split": digest("no split")}),
        ("token", {"token": Key.named("no token").address}),
        ("maxUnits", {"max_units": (1, 1, 1, 0)}),
    ],
)
def test_open_names_the_field_that_breaks_a_rule(world: World, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(Reverted) as caught:
        world.send(world.stranger, "authorization.open", opening=world.opening(world.terms(**change)))
    assert caught.value.details["error"] == "TermsInvalid"
    assert caught.value.details["args"] == {"field": field}


def test_a_split_is_no_rate_card_and_a_card_no_split(world: World) -> None:
    card, split = world.card().id(), world.split().id()
    refused(world, "TermsInvalid", world.opening(world.terms(rate_card=split)))
    refused(world, "TermsInvalid", world.opening(world.terms(split=card)))


def test_open_refuses_terms_that_ran_out(world: World) -> None:
    now = world.now()
    refused(world, "TermsExpired", world.opening(world.terms(valid_from=now - 100, valid_until=now - 50)))


def test_open_refuses_a_suspended_party_until_it_is_reinstated(world: World) -> None:
    terms = world.terms()
    party = {"space": world.space, "wallet": world.consumer.address}
    world.send(world.operator, "participant.suspend", **party, reason=100)
    refused(world, "PartyNotActive", world.opening(terms))
    world.send(world.operator, "participant.reinstate", **party)
    world.send(world.stranger, "authorization.open", opening=world.opening(terms))


def test_open_refuses_a_retired_version(world: World) -> None:
    world.send(world.provider, "product.retire", version=world.version, reason=0)
    refused(world, "VersionNotListed", world.opening(world.terms()))


@pytest.mark.parametrize("which", ["providerSignature", "consumerSignature", "acceptanceSignature"])
@pytest.mark.parametrize("how", ["another's", "64 bytes", "trailing byte", "high s", "empty"])
def test_open_refuses_a_signature_that_is_not_the_wallets(world: World, which: str, how: str) -> None:
    terms = world.terms()
    opening = world.opening(terms)
    good = opening[which]
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = int(good[66:130], 16)
    flipped = {"1b": "1c", "1c": "1b"}[good[130:]]
    bad = {
        "another's": world.stranger.sign(terms, world.domain(terms)),
        "64 bytes": good[:130],
        "trailing byte": good + "00",
        "high s": f"{good[:66]}{order - s:064x}{flipped}",
        "empty": "0x",
    }
    refused(world, "SignatureInvalid", opening | {which: bad[how]})


def test_signatures_for_one_ledger_open_nothing_on_the_other(world: World) -> None:
    """The domain names the contract: terms signed for the invoice ledger are another id here."""
    terms = world.terms()
    elsewhere = world.deployment.domain("InvoiceLedger")
    signed = {
        "providerSignature": world.provider.sign(terms, elsewhere),
        "consumerSignature": world.consumer.sign(terms, elsewhere),
    }
    refused(world, "SignatureInvalid", world.opening(terms) | signed)


def test_an_offer_is_open_to_as_many_as_it_says(world: World) -> None:
    first = world.terms()
    second = replace(first, salt=digest("second"))
    third = replace(first, salt=digest("third"))
    offer = Offer.of(first, 2, world.now() + DAY)
    for terms in (first, second):
        world.send(world.stranger, "authorization.open", opening=world.opening(terms, offer=offer))
    refused(world, "OfferExhausted", world.opening(third, offer=offer))


def test_an_offer_is_for_its_terms_only(world: World) -> None:
    terms = world.terms()
    offer = Offer.of(terms, 1, world.now() + DAY)
    refused(world, "OfferMismatch", world.opening(replace(terms, max_units=(10_001, 1, 0, 0)), offer=offer))


def test_an_offer_runs_out_and_can_be_cancelled(world: World) -> None:
    terms = world.terms()
    refused(world, "OfferExpired", world.opening(terms, offer=Offer.of(terms, 1, world.now() - 10)))
    offer = Offer.of(terms, 1, world.now() + DAY)
    world.send(world.stranger, "authorization.cancel-offer", offer=offer.as_json())  # not the provider: no effect
    world.send(world.provider, "authorization.cancel-offer", offer=offer.as_json())
    refused(world, "OfferExhausted", world.opening(terms, offer=offer))


def test_cancelled_terms_open_nothing(world: World) -> None:
    terms = world.terms()
    with pytest.raises(Reverted) as caught:
        world.send(world.stranger, "authorization.cancel", terms=terms.as_json())
    assert caught.value.details["error"] == "AuthorizationNotYours"
    world.send(world.consumer, "authorization.cancel", terms=terms.as_json())
    refused(world, "AuthorizationStatus", world.opening(terms))


def test_a_provider_cannot_be_its_own_consumer(world: World) -> None:
    refused(world, "TermsInvalid", world.opening(world.terms(consumer=world.provider.address)))


def test_version_zero_opens_for_any_listed_version(world: World) -> None:
    terms = world.open(version=ZERO_HASH)
    assert world.state(terms)["status"] == 1
