"""Spaces, participants, products and versions: who may do what, and that a version never changes."""

from typing import Any

import pytest

from ledger.chain.decode import Reverted
from ledger.chain.operations import version_id
from ledger.chain.prepared import prepare
from ledger.core import codes
from ledger.core.ids import raw
from tests.world import Key, World, digest


def refused(world: World, error: str, who: Key, operation: str, **arguments: Any) -> None:
    with pytest.raises(Reverted) as caught:
        world.send(who, operation, **arguments)
    assert caught.value.details["error"] == error


def test_a_space_is_made_once_and_governed_by_its_operator(world: World) -> None:
    space = {"salt": digest("world"), "policyDigest": digest("p"), "codeLists": codes.digest()}
    refused(world, "SpaceExists", world.operator, "space.create", **space)
    update = {"space": world.space, "policyDigest": digest("new"), "codeLists": codes.digest()}
    refused(world, "SpaceNotOperator", world.stranger, "space.update", **update)
    refused(world, "SpaceUnknown", world.operator, "space.update", **update | {"space": digest("none")})
    world.send(world.operator, "space.update", **update)
    assert world.read("SpaceRegistry", "spaceOf", raw(world.space))["policyDigest"] == digest("new")


def test_a_space_is_handed_over_in_two_steps(world: World) -> None:
    step = {"space": world.space}
    world.send(world.operator, "space.propose-operator", **step, proposedOperator=world.holder.address)
    refused(world, "SpaceNotProposed", world.stranger, "space.accept-operator", **step)
    world.send(world.holder, "space.accept-operator", **step)
    assert world.read("SpaceRegistry", "spaceOf", raw(world.space))["operator"] == world.holder.address
    refused(
        world,
        "SpaceNotOperator",
        world.operator,
        "space.propose-operator",
        **step,
        proposedOperator=world.operator.address,
    )


def test_admission_needs_a_role_and_suspension_an_admission(world: World) -> None:
    party = {"space": world.space, "wallet": world.stranger.address}
    refused(world, "ParticipantInvalid", world.operator, "participant.admit", **party, roles=0, digest=digest("d"))
    refused(world, "ParticipantUnknown", world.operator, "participant.suspend", **party, reason=100)
    refused(world, "SpaceNotOperator", world.stranger, "participant.admit", **party, roles=1, digest=digest("d"))


def test_new_roles_do_not_lift_a_suspension(world: World) -> None:
    party = {"space": world.space, "wallet": world.consumer.address}
    world.send(world.operator, "participant.suspend", **party, reason=100)
    world.send(world.operator, "participant.admit", **party, roles=3, digest=digest("d"))
    assert not world.read("SpaceRegistry", "isActive", raw(world.space), world.consumer.address, 2)


def test_only_an_active_provider_registers_products(world: World) -> None:
    product = {"space": world.space, "salt": digest("x"), "metadata": digest("m")}
    refused(world, "ProductProviderNotActive", world.consumer, "product.register", **product)
    refused(world, "ProductExists", world.provider, "product.register", **product | {"salt": digest("one")})


@pytest.mark.parametrize(
    "digests",
    [
        [],
        [{"algorithm": 1, "value": digest("c")}],
        [{"algorithm": 0x12, "value": "0x" + "00" * 32}],
        [{"algorithm": 0x12, "value": digest("c")}, {"algorithm": 0x12, "value": digest("d")}],
    ],
)
def test_a_version_needs_known_digests_each_once(world: World, digests: list[dict[str, Any]]) -> None:
    version = {
        "product": world.product,
        "digests": digests,
        "metadata": digest("m"),
        "policyHash": digest("p"),
        "parents": [],
    }
    refused(world, "DigestInvalid", world.provider, "product.publish", **version)


def test_a_version_is_named_by_what_it_contains(world: World) -> None:
    digests = [{"algorithm": 0x12, "value": digest("c")}, {"algorithm": 0x534D, "value": digest("s")}]
    version = {
        "product": world.product,
        "digests": digests,
        "metadata": digest("m"),
        "policyHash": digest("p"),
        "parents": [],
    }
    made = prepare(world.chain, world.deployment, "product.publish", version, world.provider.address)
    assert made.result == version_id(world.product, digests, digest("m"), digest("p"), [])
    refused(world, "ProductNotProvider", world.stranger, "product.publish", **version)
    world.send(world.provider, "product.publish", **version)
    refused(world, "VersionExists", world.provider, "product.publish", **version)


def test_a_recalled_version_stays_recalled(world: World) -> None:
    refused(world, "ProductNotProvider", world.stranger, "product.recall", version=world.version, reason=102)
    world.send(world.provider, "product.recall", version=world.version, reason=102)
    refused(world, "VersionIsRecalled", world.provider, "product.retire", version=world.version, reason=0)
    refused(world, "VersionUnknown", world.provider, "product.retire", version=digest("none"), reason=0)
