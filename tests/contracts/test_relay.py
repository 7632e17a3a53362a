"""A wallet without native coin does everything through somebody who has some."""

from dataclasses import replace
from typing import Any

import pytest

from ledger.chain.decode import Reverted
from ledger.chain.relay import forward_request
from ledger.chain.send import Receipt
from ledger.core.terms import ForwardRequest, SessionKey
from tests.world import DAY, Key, World, digest


def penniless(world: World, key: Key) -> None:
    world.chain.rpc("anvil_setBalance", key.address, "0x0")


def relayed(world: World, who: Key, operation: str, **arguments: Any) -> Receipt:
    """Signed by who, sent and paid for by a stranger."""
    request = forward_request(world.chain, world.deployment, operation, arguments, who.address, world.now() + 600)
    return submit(world, request, who)


def submit(world: World, request: ForwardRequest, who: Key) -> Receipt:
    signature = who.sign(request, world.deployment.domain("Forwarder"))
    document = {"request": request.as_json(), "signature": signature}
    return world.send(world.stranger, "relay.execute", request=document)


def test_a_consumer_without_coin_withdraws_thaws_and_closes(world: World) -> None:
    terms = world.open(5_000_000)
    world.fund(1_000)
    penniless(world, world.consumer)
    relayed(world, world.consumer, "authorization.thaw", terms=terms.as_json(), amount="2000000")
    assert world.reservation(terms)["thawing"] == 2_000_000
    call = {"token": world.token, "amount": "1000", "to": world.consumer.address}
    relayed(world, world.consumer, "account.withdraw", **call)
    assert world.free() == 0
    relayed(world, world.consumer, "authorization.close", terms=terms.as_json(), reason=1)
    assert world.state(terms)["status"] == 2


def test_a_provider_without_coin_publishes_settles_and_revokes(world: World) -> None:
    penniless(world, world.provider)
    arguments = {"space": world.space, "salt": digest("relayed"), "metadata": digest("m")}
    relayed(world, world.provider, "product.register", **arguments)
    world.chain.rpc("anvil_setBalance", world.provider.address, hex(10**18))
    terms = world.open(10_000_000)
    penniless(world, world.provider)
    head = world.head(terms, 60, (60, 1440, 0, 0))
    settlement = world.settlement(terms, head, providerSignature="0x")
    # Being the caller is the provider's word, also through the forwarder.
    relayed(world, world.provider, "settle.one", settlement=settlement)
    assert world.settled(terms, 60)
    relayed(world, world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
    assert world.state(terms)["status"] == 2


def test_an_operator_without_coin_runs_its_space(world: World) -> None:
    penniless(world, world.operator)
    someone = Key.named("someone")
    call = {"space": world.space, "wallet": someone.address, "roles": 2, "digest": digest("who")}
    relayed(world, world.operator, "participant.admit", **call)
    assert world.read("SpaceRegistry", "isActive", world.space, someone.address, 2)


def test_a_wallet_without_coin_names_a_session_key(world: World) -> None:
    penniless(world, world.consumer)
    key = Key.named("session")
    named = SessionKey(wallet=world.consumer.address, key=key.address, expiry=world.now() + DAY, max_due=1_000_000)
    call = {"key": key.address, "expiry": named.expiry, "maxDue": "1000000"}
    possession = key.sign(named, world.deployment.domain("SessionKeys"))
    relayed(world, world.consumer, "session-key.register", **call, possession=possession)
    cap = world.read("SessionKeys", "capOf", world.consumer.address, key.address, world.now())
    assert cap == 1_000_000


def test_a_relayed_call_is_made_once_and_as_it_was_signed(world: World) -> None:
    world.fund(3_000)
    call = {"token": world.token, "amount": "1000", "to": world.consumer.address}
    request = forward_request(
        world.chain, world.deployment, "account.withdraw", call, world.consumer.address, world.now() + 600
    )
    submit(world, request, world.consumer)
    signature = world.consumer.sign(request, world.deployment.domain("Forwarder"))
    for changed in (request, replace(request, nonce=1, data=request.data[:-1] + b"\x01")):
        document = {"request": changed.as_json(), "signature": signature}
        with pytest.raises(Reverted) as caught:
            world.send(world.stranger, "relay.execute", request=document)
        assert caught.value.details["error"] == "ERC2771ForwarderInvalidSigner"
    assert world.free() == 2_000


def test_a_call_that_would_fail_is_refused_before_it_is_signed(world: World) -> None:
    call = {"token": world.token, "amount": "1000", "to": world.consumer.address}
    with pytest.raises(Reverted) as caught:
        forward_request(
            world.chain, world.deployment, "account.withdraw", call, world.consumer.address, world.now() + 600
        )
    assert caught.value.details["error"] == "BalanceTooLow"
