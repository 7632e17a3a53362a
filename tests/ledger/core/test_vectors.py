"""Python against the golden vectors, which were derived from the protocol's text alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from ledger.core.hashing import canonical_json
from ledger.core.ids import Address, hash_of, raw
from ledger.core.merkle import Tree, verify_consistency, verify_inclusion
from ledger.core.ratecard import RateCard, Split
from ledger.core.signing import recover
from ledger.core.terms import (
    Acceptance,
    Approval,
    AuthorizationTerms,
    Close,
    ForwardRequest,
    Offer,
    Quad,
    Scope,
    SessionKey,
    UsageCeiling,
    UsageHead,
    UseReceipt,
    approvers_hash,
)
from ledger.core.typed_data import Domain, Message
from ledger.core.usage_leaf import UsageLeaf, payload_hash, use_id_hash

MESSAGES: dict[str, type[Message]] = {
    m.__name__: m
    for m in (
        Scope,
        AuthorizationTerms,
        Offer,
        Acceptance,
        UseReceipt,
        UsageHead,
        Approval,
        UsageCeiling,
        Close,
        SessionKey,
        ForwardRequest,
    )
}


def load(vectors: Path, name: str) -> Any:
    return json.loads((vectors / f"{name}.json").read_text())


def domain_of(data: Any) -> Domain:
    return Domain(data["domain"]["chainId"], Address(data["domain"]["verifyingContract"]))


def quad(values: list[str]) -> Quad:
    a, b, c, d = (int(v) for v in values)
    return a, b, c, d


def test_messages_hash_to_the_vectors(vectors: Path) -> None:
    data = load(vectors, "typed_data")
    domain = domain_of(data)
    assert "0x" + domain.separator().hex() == data["domainSeparator"]
    assert {m["primaryType"] for m in data["messages"]} == set(MESSAGES)
    for vector in data["messages"]:
        message = MESSAGES[vector["primaryType"]].from_json(vector["message"])
        assert "0x" + message.struct_hash().hex() == vector["structHash"]
        if vector["digest"] is not None:
            assert message.digest(domain) == vector["digest"]
        assert MESSAGES[vector["primaryType"]].from_json(message.as_json()) == message


def test_signatures_recover_to_their_keys(vectors: Path) -> None:
    signatures = load(vectors, "typed_data")["signatures"]
    assert len(signatures) == 10
    for vector in signatures:
        assert recover(vector["digest"], vector["signature"]) == vector["address"]


def test_lists_of_approvers_hash_to_the_vectors(vectors: Path) -> None:
    lists = load(vectors, "typed_data")["approverLists"]
    assert len(lists) == 4
    for vector in lists:
        pairs = [(Address(a["approver"]), a["approvalType"]) for a in vector["approvers"]]
        assert approvers_hash(pairs) == vector["approversHash"]


def test_leaves_encode_and_hash_to_the_vectors(vectors: Path) -> None:
    leaves = load(vectors, "usage_log")["leaves"]
    assert len(leaves) == 5
    for vector in leaves:
        leaf = UsageLeaf.from_json(vector["leaf"])
        assert "0x00" + leaf.encode().hex() == vector["encoded"]
        assert len(leaf.encode()) + 1 == 230
        assert "0x" + leaf.hash().hex() == vector["hash"]
        assert UsageLeaf.from_json(leaf.as_json()) == leaf


def test_trees_and_proofs_are_those_of_the_vectors(vectors: Path) -> None:
    data = load(vectors, "usage_log")
    tree = Tree(raw(h) for h in data["treeLeafHashes"])
    assert len(data["trees"]) == 17
    for vector in data["trees"]:
        assert hash_of(tree.root(vector["size"])) == vector["root"]
    assert len(data["inclusion"]) == 55
    for vector in data["inclusion"]:
        index, size = vector["index"], vector["size"]
        proof = tree.inclusion(index, size)
        assert [hash_of(p) for p in proof] == vector["proof"]
        assert verify_inclusion(raw(vector["root"]), size, index, tree.leaf(index), proof)
    assert len(data["consistency"]) == 65
    for vector in data["consistency"]:
        first, second = vector["first"], vector["second"]
        proof = tree.consistency(first, second)
        assert [hash_of(p) for p in proof] == vector["proof"]
        assert verify_consistency(first, raw(vector["firstRoot"]), second, raw(vector["secondRoot"]), proof)


def test_payloads_and_use_ids_commit_to_the_vectors(vectors: Path) -> None:
    data = load(vectors, "usage_log")
    assert len(data["payloads"]) == len(data["useIds"]) == 3
    for vector in data["payloads"]:
        assert payload_hash(raw(vector["salt"]), canonical_json(vector["payload"])) == vector["payloadHash"]
    for vector in data["useIds"]:
        assert use_id_hash(vector["useId"]) == vector["useIdHash"]


def test_rate_cards_encode_and_price_to_the_vectors(vectors: Path) -> None:
    cards = load(vectors, "ratecard")["cards"]
    assert sum(len(c["prices"]) for c in cards) == 143
    for vector in cards:
        card = RateCard.from_json(vector["card"])
        assert "0x" + card.encode().hex() == vector["encoded"]
        assert card.id() == vector["id"]
        assert RateCard.decode(card.encode()) == card
        for point in vector["prices"]:
            assert card.price(quad(point["units"])) == int(point["price"])


def test_splits_encode_and_share_to_the_vectors(vectors: Path) -> None:
    splits = load(vectors, "ratecard")["splits"]
    assert len(splits) == 3
    for vector in splits:
        split = Split.from_json(vector["shares"])
        assert "0x" + split.encode().hex() == vector["encoded"]
        assert split.id() == vector["id"]
        assert Split.decode(split.encode()) == split
        for point in vector["amounts"]:
            expected = {payee: int(amount) for payee, amount in point["amounts"].items()}
            assert split.amounts(int(point["accrued"])) == expected


@pytest.mark.parametrize("number", range(9))
def test_the_scenes_cost_what_they_should_to_the_fen(vectors: Path, number: int) -> None:
    scene = load(vectors, "ratecard")["scenes"][number]
    card = RateCard.from_json(scene["card"])
    units = quad(scene["units"])
    assert card.price(units) == int(scene["due"])
    assert card.due(units, int(scene["credits"])) == int(scene["net"])
    parts = [int(scene["net"]) * bps // 10_000 for bps in scene["splitBps"]]
    assert [p // 10_000 for p in parts] == [int(fen) for fen in scene["splitFen"]]
