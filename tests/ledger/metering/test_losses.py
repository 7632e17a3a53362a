"""Who can lose what (protocol, section 9), and what brings it back: the window, the ceiling, the watch, the copy."""

import base64
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from ledger.chain.decode import Reverted
from ledger.core.errors import Conflict, NotFound, VerificationFailed
from ledger.core.ids import hash_of
from ledger.core.merkle import verify_inclusion
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Tier
from ledger.core.terms import Quad, UsageCeiling, UsageHead
from ledger.metering import x402
from ledger.metering.client import UseRefused
from ledger.metering.duty import SILENT, HeadDuty, Waiting, waiting
from ledger.metering.log import SignedHead, UsageLog, ceiling_of, open_usage, read_entries
from ledger.metering.redeem import Chosen, Redeeming, Settled, choose, settlement_of, why_now
from ledger.metering.restore import restore_log
from tests.exchange import Exchange
from tests.ledger.metering.test_admission import ADDRESS, NOW, standing
from tests.world import digest


def use(consumer: Any, running: Exchange, rows: int = 5) -> Any:
    return consumer.use(running.version, "RESEARCH", {"from": "2026-01-01T00:00:00", "limit": str(rows)})


# ------------------------------------------------------------------------------------------- the provider


def test_a_consumer_that_never_signs_gets_the_window_and_no_more(running: Exchange) -> None:
    window: Quad = (4, 17, 0, 0)
    terms = running.open(credit_units=window)
    consumer = running.consumer(terms)
    served = 0
    for rows in (5, 5, 5, 5, 2, 1, 1, 1):
        with suppress(UseRefused):
            use(consumer, running, rows)
            served += 1
    log = running.gateway.log(running.world.id(terms))
    assert all(n <= most for n, most in zip(log.units, window, strict=True))
    assert served == log.units[0] == 4
    # What the provider may lose is the price of the window, and it is known beforehand.
    assert running.world.card().price(log.units) <= running.world.card().price(window)


def test_under_a_ceiling_the_provider_loses_nothing_and_takes_no_more_than_it_says(running: Exchange) -> None:
    terms, world = running.open(credit_units=(1, 0, 0, 0)), running.world
    consumer = running.consumer(terms)
    use(consumer, running)
    ceiling = consumer.pay_ahead(max_due=70_000, seconds=7_200)
    for _ in range(4):
        use(consumer, running)
    signature = world.consumer.sign(ceiling, world.domain(terms))
    honest = running.gateway.head_over(world.id(terms), 5)
    greedy = replace(honest.head, units=(6, 30, 0, 0), size=6)
    lie = SignedHead(greedy, world.provider.sign(greedy, world.domain(terms)), None)
    for head in (lie, honest):
        with running.usage.connect() as connection:
            made = settlement_of(connection, terms, None, Chosen(honest, (ceiling, signature)))
        made |= {"head": head.head.as_json(), "providerSignature": head.provider_signature}
        if head is lie:
            with pytest.raises(Reverted):
                world.send(world.provider, "settle.one", settlement=made)
        else:
            world.send(world.stranger, "settle.one", settlement=made)
    assert world.reservation(terms)["paid"] == 70_000


def test_after_acknowledging_the_consumer_pays_what_it_signed_and_nothing_else(running: Exchange) -> None:
    terms, world = running.open(), running.world
    consumer = running.consumer(terms)
    use(consumer, running)
    signed = consumer.sign_head()
    for _ in range(3):
        use(consumer, running)
    more = running.gateway.head(world.id(terms))
    with running.usage.connect() as connection:
        forged = settlement_of(
            connection, terms, None, Chosen(replace(more, consumer_signature=signed.consumer_signature))
        )
        honest = settlement_of(connection, terms, None, Chosen(signed))
    with pytest.raises(Reverted):
        world.send(world.provider, "settle.one", settlement=forged)
    world.send(world.stranger, "settle.one", settlement=honest)
    assert world.reservation(terms)["paid"] == 14_000


# ------------------------------------------------------------------------------------------------ x402


def test_an_x402_client_pays_with_the_signature_that_is_asked_for(running: Exchange) -> None:
    terms, world = running.open(credit_units=(1, 0, 0, 0)), running.world
    consumer = running.consumer(terms)
    use(consumer, running, 1)
    sent = {"Authorization": f"Bearer {consumer._token}", "Sluice-Purpose": "RESEARCH"}
    url = f"{running.url}/v1/data/{running.version}?limit=1"
    refused = running.http.get(url, headers=sent | {"Sluice-Use-Id": "1" * 64})
    assert refused.status_code == 402
    required = json.loads(base64.b64decode(refused.headers["payment-required"]))
    by_scheme = {one["scheme"]: one for one in required["accepts"]}
    assert set(by_scheme) == {x402.HEAD, x402.CEILING}
    chosen = by_scheme[x402.HEAD]
    assert (chosen["network"], chosen["asset"]) == (f"eip155:{world.deployment.chain_id}", terms.token)
    message = UsageHead.from_json(chosen["extra"]["typedData"]["message"])
    assert message.typed_data(world.domain(terms)) == chosen["extra"]["typedData"]
    payment = {
        "x402Version": 2,
        "accepted": chosen,
        "payload": {"message": message.as_json(), "signature": world.consumer.sign(message, world.domain(terms))},
    }
    paid = sent | {"Sluice-Use-Id": "2" * 64, "Payment-Signature": x402.encode(payment)}
    answer = running.http.get(url, headers=paid)
    assert answer.status_code == 200
    assert "sluice-receipt" in answer.headers


@pytest.mark.parametrize(
    "header",
    ["", "x", "e30=", x402.encode({"x402Version": 1, "accepted": {"scheme": "exact"}, "payload": {}}), "W10="],
)
def test_a_payment_of_another_kind_is_refused_in_words(running: Exchange, header: str) -> None:
    consumer = running.consumer(running.open())
    use(consumer, running, 1)
    sent = {
        "Authorization": f"Bearer {consumer._token}",
        "Sluice-Purpose": "RESEARCH",
        "Sluice-Use-Id": "3" * 64,
        "Payment-Signature": header,
    }
    answer = running.http.get(f"{running.url}/v1/data/{running.version}?limit=1", headers=sent)
    assert answer.status_code == (422 if header else 200)


# --------------------------------------------------------------------------------------- asking, redeeming


def test_a_signature_is_asked_for_after_a_while_and_a_silent_consumer_is_told_of_once(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running)
    now, told = [running.clock()], list[tuple[Waiting, int]]()
    duty = HeadDuty(running.usage, 100, lambda: now[0], lambda one, seconds: told.append((one, seconds)))
    duty.look()
    assert duty.asked == frozenset()
    now[0] += 150
    duty.look()
    assert duty.asked == {running.world.id(terms)}
    now[0] += 100 * SILENT
    for _ in range(3):
        duty.look()
    assert [one.units for one, _ in told] == [(1, 5, 0, 0)]
    running.gateway.duty = duty
    again = running.consumer(terms, sign_when_asked=True)
    use(again, running)  # the answer asks, and the client signs
    with running.usage.connect() as connection:
        assert list(waiting(connection)) == []
    duty.look()
    assert duty.asked == frozenset()


CARD = RateCard(ADDRESS, 6, (Meter(1, 0, (Tier(MAX_UNITS, 10),)),))


def head_of(units: int, credits: int = 0, size: int = 5, as_of: int = NOW) -> UsageHead:
    return UsageHead(
        authorization_id=digest("a"), size=size, units=(units, 0, 0, 0), credits=credits, as_of=as_of, root=digest("r")
    )


@pytest.mark.parametrize(
    ("settled", "head", "at", "why"),
    [
        ({}, head_of(100), NOW, "VALUE"),
        ({}, head_of(99), NOW, None),
        ({}, head_of(99, as_of=NOW - 3_600), NOW, "AGE"),
        ({}, head_of(99), NOW + 3_600, "AGE"),
        ({"thawing": 1}, head_of(1), NOW, "THAW"),
        ({"ended_at": NOW}, head_of(1), NOW, "END"),
        ({"ended_at": NOW}, head_of(1), NOW + 86_400, "END"),
        ({"ended_at": NOW}, head_of(1), NOW + 86_401, None),  # too late
        ({"status": "CLOSED"}, head_of(100), NOW, None),
        ({"head": head_of(100, size=5)}, head_of(100, size=5), NOW, None),
        ({"head": head_of(50, size=3)}, head_of(149, size=5), NOW, None),
        ({"head": head_of(50, size=3)}, head_of(150, size=5), NOW, "VALUE"),
        ({"head": head_of(50, size=3), "ended_at": NOW}, head_of(50, size=5), NOW, None),  # refusals only
        # A credit the provider might leave out is taken to the chain by the consumer.
        ({"head": head_of(50, size=3), "ended_at": NOW}, head_of(50, credits=100, size=5), NOW, "END"),
    ],
)
def test_a_head_is_settled_when_it_is_time(settled: Any, head: UsageHead, at: int, why: str | None) -> None:
    given = Settled(**{"head": None, "status": "OPEN", "ended_at": NOW + 10**6, "thawing": 0} | settled)
    chosen = Chosen(SignedHead(head, "0x", "0x"))
    assert why_now(given, chosen, CARD, standing().terms, Redeeming(1_000, 3_600), at) == why


def test_the_newest_head_is_chosen_and_refusals_after_the_end_do_not_hide_it(running: Exchange) -> None:
    terms, world = running.open(), running.world
    id_ = world.id(terms)
    consumer = running.consumer(terms)
    use(consumer, running)
    first = consumer.sign_head()
    use(consumer, running)
    second = consumer.sign_head()
    with running.usage.connect() as connection:
        assert choose(connection, id_, 2**39, 0).signed == second
        assert choose(connection, id_, 2**39, first.head.size).signed == second
        assert ceiling_of(connection, id_) is None
        with pytest.raises(NotFound):
            choose(connection, id_, 2**39, second.head.size)
        ceiling = UsageCeiling(
            authorization_id=id_, max_units=(9, 99, 0, 0), min_credits=0, max_due=10**6, expiry=2**39
        )
        agreed = {"ceiling": ceiling.as_json(), "signature": "0x11"}
        use(consumer, running)
        newest = running.gateway.head(id_)
    with running.usage.connect() as connection:
        chosen = choose(connection, id_, 2**39, second.head.size, agreed)
    assert (chosen.signed, chosen.ceiling) == (newest, (ceiling, "0x11"))


# ------------------------------------------------------------------------------------------------ restored


def test_a_lost_log_comes_back_from_the_consumers_copy_with_the_same_root(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(4):
        use(consumer, running)
    signed = consumer.sign_head()
    use(consumer, running)
    lost = running.gateway.log(running.world.id(terms))
    fresh = open_usage(running.folder / "restored.db")
    running.engines.append(fresh)
    copy = consumer._copy._usage
    made = restore_log(copy, fresh, terms, running.world.domain(terms))
    assert (made.size, made.root) == (5, hash_of(lost.tree.root()))
    again = UsageLog(fresh, running.world.id(terms))
    assert (again.last, again.units, again.acknowledged) == (lost.last, lost.units, signed.head.units)
    with pytest.raises(Conflict, match="not overwritten"):
        restore_log(copy, fresh, terms, running.world.domain(terms))
    other = open_usage(running.folder / "other.db")
    running.engines.append(other)
    with pytest.raises(NotFound, match="no leaves"):
        restore_log(other, open_usage(running.folder / "third.db"), terms, running.world.domain(terms))
    stranger = replace(terms, provider=running.world.stranger.address)
    with pytest.raises((VerificationFailed, NotFound)):
        restore_log(copy, other, stranger, running.world.domain(terms))


def test_an_erased_use_says_nothing_and_still_proves_what_it_cost(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(3):
        use(consumer, running)
    id_ = running.world.id(terms)
    before = running.gateway.log(id_)
    note = running.gateway.erase(id_, 1, "request of the subject")
    assert note.payload == {"erased": 1, "reason": "request of the subject"}
    with running.usage.connect() as connection:
        erased, kept = read_entries(connection, id_, 1, 2)
    assert (erased.salt, erased.written, kept.written is None) == (None, None, False)
    after = running.gateway.log(id_)
    assert after.tree.root(3) == before.tree.root()
    assert after.units == before.units
    assert verify_inclusion(after.root(), 4, 1, erased.leaf.hash(), after.tree.inclusion(1))
    with pytest.raises(Conflict, match="erased already"):
        running.gateway.erase(id_, 1, "again")
    assert consumer.sign_head().head.units == (3, 15, 0, 0)  # it has its own copy
