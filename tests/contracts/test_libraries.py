"""Proofs and prices on the chain against Python's: every case where that is possible, random ones where it is not."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode

from ledger.chain import artifacts
from ledger.chain.prepared import PreparedTransaction
from ledger.chain.send import broadcast, wait
from ledger.core.ids import Address
from ledger.core.merkle import EMPTY_ROOT, Tree, node_hash
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Tier
from ledger.core.terms import Quad
from tests.world import World

MANY = 400  # questions a call
Inclusion = tuple[bytes, int, int, bytes, list[bytes]]
Consistency = tuple[int, bytes, int, bytes, list[bytes]]


@pytest.fixture(scope="session")
def reader(deployed: World) -> Address:
    """The libraries behind a contract of their own."""
    who = deployed.operator
    prepared = PreparedTransaction(
        operation="deploy",
        chain_id=deployed.deployment.chain_id,
        sender=who.address,
        to=None,
        data=artifacts.artifact("LogReader")["bytecode"],
        nonce=deployed.chain.nonce(who.address),
        gas=5_000_000,
        max_fee_per_gas=10**11,
        max_priority_fee_per_gas=0,
        summary={},
        result=None,
    )
    receipt = wait(deployed.chain, broadcast(deployed.chain, who.sign_transaction(prepared)))
    assert receipt.contract is not None
    return receipt.contract


def ask(world: World, reader: Address, function: str, *arguments: Any) -> list[Any]:
    item = artifacts.items("LogReader", "function")[function]
    data = item.hash[:4] + abi_encode([artifacts.abi_type(i) for i in item.inputs], arguments)
    (answers,) = abi_decode([artifacts.abi_type(o) for o in item.outputs], world.chain.call(reader, data))
    return list(answers)


def batches(questions: Iterator[Any]) -> Iterator[list[Any]]:
    batch = []
    for question in questions:
        batch.append(question)
        if len(batch) == MANY:
            yield batch
            batch = []
    if batch:
        yield batch


def leaves(count: int) -> list[bytes]:
    return [node_hash(n.to_bytes(32, "big"), bytes(32)) for n in range(count)]


def damaged(proof: list[bytes], chance: random.Random) -> list[bytes]:
    """The proof with one node changed, missing, doubled or in another place; always another proof."""
    node = bytes(b ^ 1 for b in proof[0]) if proof else bytes(32)
    if not proof:
        return [node]
    at = chance.randrange(len(proof))
    changed = bytes(b ^ 1 for b in proof[at])
    return chance.choice(
        [
            [*proof[:at], changed, *proof[at + 1 :]],
            [*proof[:at], *proof[at + 1 :]],
            [*proof[:at], proof[at], *proof[at:]],
            [*proof, node],
        ]
    )


# ------------------------------------------------------------------------------------------ sizes up to two hundred


def test_every_inclusion_proof_up_to_two_hundred_leaves_holds_and_no_damaged_one(world: World, reader: Address) -> None:
    hashes, chance = leaves(200), random.Random(9162)
    tree = Tree(hashes)

    def questions() -> Iterator[Inclusion]:
        for size in range(1, 201):
            root = tree.root(size)
            for index in range(size):
                proof = tree.inclusion(index, size)
                yield (root, size, index, hashes[index], proof)
                yield (root, size, index, hashes[index], damaged(proof, chance))
                # The same proof for the next leaf of the tree.
                yield (root, size, (index + 1) % (size + 1), hashes[index], proof)

    count = 0
    for batch in batches(questions()):
        expected = [(count + n) % 3 == 0 for n in range(len(batch))]
        assert ask(world, reader, "include", batch) == expected
        count += len(batch)
    assert count == 3 * 20_100


def test_every_consistency_proof_up_to_two_hundred_leaves_holds_and_no_damaged_one(
    world: World, reader: Address
) -> None:
    tree, chance = Tree(leaves(200)), random.Random(9162)

    def questions() -> Iterator[Consistency]:
        for second in range(1, 201):
            for first in range(1, second + 1):
                proof = tree.consistency(first, second)
                roots = tree.root(first), tree.root(second)
                yield (first, roots[0], second, roots[1], proof)
                yield (first, roots[0], second, roots[1], damaged(proof, chance))
                yield (first, EMPTY_ROOT, second, roots[1], proof)

    count = 0
    for batch in batches(questions()):
        expected = [(count + n) % 3 == 0 for n in range(len(batch))]
        assert ask(world, reader, "extend", batch) == expected
        count += len(batch)
    assert count == 3 * 20_100


# ------------------------------------------------------------------- shapes of trees that nobody can build, to 2^40


def split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_shape(index: int, size: int, leaf: bytes, chance: random.Random) -> tuple[bytes, list[bytes]]:
    """(root, proof) by RFC 9162 section 2.1.3.1, with random hashes for the subtrees beside the path."""
    if size == 1:
        return leaf, []
    k, beside = split(size), chance.randbytes(32)
    if index < k:
        below, proof = inclusion_shape(index, k, leaf, chance)
        return node_hash(below, beside), [*proof, beside]
    below, proof = inclusion_shape(index - k, size - k, leaf, chance)
    return node_hash(beside, below), [*proof, beside]


def consistency_shape(first: int, size: int, whole: bool, chance: random.Random) -> tuple[bytes, bytes, list[bytes]]:
    """(first root, second root, proof) by section 2.1.4.1, likewise."""
    if first == size:
        node = chance.randbytes(32)
        return node, node, [] if whole else [node]
    k = split(size)
    if first <= k:
        old, new, proof = consistency_shape(first, k, whole, chance)
        beside = chance.randbytes(32)
        return old, node_hash(new, beside), [*proof, beside]
    old, new, proof = consistency_shape(first - k, size - k, False, chance)
    beside = chance.randbytes(32)
    return node_hash(beside, old), node_hash(beside, new), [*proof, beside]


def sizes(chance: random.Random, count: int) -> Iterator[int]:
    """Powers of two and their neighbours, and numbers of every length up to forty bits."""
    for bits in range(1, 41):
        yield from (n for n in ((1 << bits) - 1, 1 << bits, (1 << bits) + 1) if n > 1)
    for _ in range(count):
        yield chance.randrange(2, 1 << chance.randrange(2, 41))


def test_inclusion_proofs_of_any_shape_hold_and_no_damaged_one(world: World, reader: Address) -> None:
    chance = random.Random(40)

    def questions() -> Iterator[Inclusion]:
        for size in sizes(chance, 2_000):
            leaf, index = chance.randbytes(32), chance.randrange(size)
            root, proof = inclusion_shape(index, size, leaf, chance)
            yield (root, size, index, leaf, proof)
            yield (root, size, index, leaf, damaged(proof, chance))

    for batch in batches(questions()):
        assert ask(world, reader, "include", batch) == [True, False] * (len(batch) // 2)


def test_consistency_proofs_of_any_shape_hold_and_no_damaged_one(world: World, reader: Address) -> None:
    chance = random.Random(41)

    def questions() -> Iterator[Consistency]:
        for second in sizes(chance, 2_000):
            first = chance.randrange(1, second)
            old, new, proof = consistency_shape(first, second, True, chance)
            yield (first, old, second, new, proof)
            yield (first, old, second, new, damaged(proof, chance))

    for batch in batches(questions()):
        assert ask(world, reader, "extend", batch) == [True, False] * (len(batch) // 2)


# ------------------------------------------------------------------------------------------------------------ prices


def random_card(chance: random.Random) -> RateCard:
    def meter() -> Meter:
        bounds = sorted({chance.randrange(1, 1 << chance.randrange(1, 64)) for _ in range(chance.randrange(8))})
        wide = chance.choice([8, 32, 128])
        tiers = [Tier(bound, chance.randrange(1 << wide)) for bound in (*bounds, MAX_UNITS)]
        free = chance.choice([0, chance.randrange(1 << chance.randrange(1, 65))])
        return Meter(chance.randrange(1, 1 << chance.randrange(1, 65)), free, tuple(tiers))

    return RateCard(Address("0x" + "11" * 20), 6, tuple(meter() for _ in range(chance.randrange(1, 5))))


def random_units(card: RateCard, chance: random.Random) -> Quad:
    """Any number, or one at or beside a border of the card."""
    found: list[int] = []
    for meter in card.meters:
        borders = [meter.free_units, *(min(meter.free_units + t.up_to, MAX_UNITS) for t in meter.tiers)]
        border = chance.choice(borders) + chance.randrange(-1, 2)
        found.append(chance.choice([min(max(border, 0), MAX_UNITS), chance.randrange(MAX_UNITS + 1)]))
    a, b, c, d = [*found, 0, 0, 0][:4]
    return a, b, c, d


def test_a_price_on_the_chain_is_pythons_for_random_cards_and_units(world: World, reader: Address) -> None:
    chance = random.Random(8)
    cards: Sequence[RateCard] = [random_card(chance) for _ in range(1_000)]
    for start in range(0, len(cards), 200):
        some = [card for card in cards[start : start + 200] for _ in range(3)]
        units = [random_units(card, chance) for card in some]
        prices = ask(world, reader, "price", [card.encode() for card in some], units)
        assert prices == [card.price(u) for card, u in zip(some, units, strict=True)]


def test_a_price_never_falls_as_units_rise(world: World, reader: Address) -> None:
    chance = random.Random(9)
    for _ in range(20):
        card = random_card(chance)
        steps = sorted(chance.randrange(MAX_UNITS + 1) for _ in range(20))
        units = [(step, 0, 0, 0) for step in steps]
        prices = ask(world, reader, "price", [card.encode()] * len(units), units)
        assert prices == sorted(prices)
