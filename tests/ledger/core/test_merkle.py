"""RFC 9162 trees of every size: against the recursive definition, and with every proof bent."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.merkle import EMPTY_ROOT, Tree, node_hash, verify_consistency, verify_inclusion

LEAVES = [hashlib.sha256(bytes([n])).digest() for n in range(200)]


def naive(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1.1, on leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(naive(leaves[:k]), naive(leaves[k:]))


def test_roots_are_those_of_the_definition_for_every_size_to_200() -> None:
    tree = Tree()
    assert tree.root() == EMPTY_ROOT
    for n, leaf in enumerate(LEAVES, 1):
        tree.append(leaf)
        assert tree.root() == naive(LEAVES[:n])
    assert all(tree.root(n) == naive(LEAVES[:n]) for n in range(1, 201))


def test_every_inclusion_proof_to_size_40_holds_for_its_leaf_alone() -> None:
    tree = Tree(LEAVES)
    for size in range(1, 41):
        for index in range(size):
            proof = tree.inclusion(index, size)
            assert verify_inclusion(tree.root(size), size, index, LEAVES[index], proof)
            assert not verify_inclusion(tree.root(size), size, index, LEAVES[(index + 1) % 200], proof)
            assert not verify_inclusion(tree.root(size), size, index, LEAVES[index], [*proof, LEAVES[0]])
            assert not verify_inclusion(tree.root(size), size, size, LEAVES[index], proof)


def test_every_consistency_proof_to_size_40_holds() -> None:
    tree = Tree(LEAVES)
    for second in range(1, 41):
        for first in range(1, second + 1):
            proof = tree.consistency(first, second)
            roots = tree.root(first), tree.root(second)
            assert verify_consistency(first, roots[0], second, roots[1], proof)
            if first < second:
                assert not verify_consistency(first, roots[1], second, roots[1], proof)
                assert not verify_consistency(first, roots[0], second, roots[0], proof)
                assert not verify_consistency(first, roots[0], second, roots[1], proof[:-1])


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_a_bent_proof_never_holds(a: int, b: int, data: st.DataObject) -> None:
    tree = Tree(LEAVES)
    first, second = min(a, b), max(a, b)
    proof = tree.consistency(first, second)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        bent = int.from_bytes(proof[at]) ^ (1 << bit)
        proof[at] = bent.to_bytes(32, "big")
        assert not verify_consistency(first, tree.root(first), second, tree.root(second), proof)


def test_a_tree_knows_its_bounds() -> None:
    tree = Tree(LEAVES[:3])
    for call in (
        lambda: tree.root(4),
        lambda: tree.inclusion(3),
        lambda: tree.consistency(4),
        lambda: tree.consistency(2, 9),
    ):
        with pytest.raises(ValueError):
            call()
