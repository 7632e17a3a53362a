"""A stranger's client signs what we sign: viem and `cast` know nothing of ours but the typed data as published."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from ledger.cli.processes import foundry_binary
from ledger.core.ids import raw
from ledger.core.signing import recover
from ledger.core.terms import GatewaySession
from ledger.core.typed_data import Message
from tests.ledger.core.test_vectors import MESSAGES, domain_of, load
from tests.world import Key

NODE = Path(sys.executable).parent / "node"
SIGNED = [
    "AuthorizationTerms",
    "Acceptance",
    "GatewaySession",
    "UseReceipt",
    "UsageHead",
    "UsageCeiling",
    "Close",
    "AuthorizationTerms",  # escrowed; those of the golden vectors are invoiced
]


@pytest.fixture
def strangers(vectors: Path) -> Any:
    return load(vectors, "strangers")


@pytest.fixture
def key(strangers: Any) -> Key:
    return Key(Account.from_key(raw(strangers["key"])))


@pytest.fixture
def golden(vectors: Path) -> list[dict[str, Any]]:
    """Typed data and digest of every golden message that is signed, the largest values among them."""
    data = load(vectors, "typed_data")
    domain = domain_of(data)
    found = []
    for vector in data["messages"]:
        if vector["digest"] is not None:  # a scope is signed within its terms only
            message = MESSAGES[vector["primaryType"]].from_json(vector["message"])
            found.append({"typedData": message.typed_data(domain), "digest": vector["digest"]})
    assert len(found) == 21
    return found


def parse(typed_data: Any) -> Message:
    kinds: dict[str, type[Message]] = MESSAGES | {"GatewaySession": GatewaySession}
    return kinds[typed_data["primaryType"]].from_json(typed_data["message"])


def our_signature(key: Key, typed_data: Any) -> str:
    return key.sign(parse(typed_data), domain_of(typed_data))


def viem(vectors: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(NODE), str(vectors / "strangers.mjs"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def cast(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [foundry_binary("cast"), "wallet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_what_we_publish_hash_and_sign_is_what_viem_did(strangers: Any, key: Key) -> None:
    assert [m["typedData"]["primaryType"] for m in strangers["messages"]] == SIGNED
    assert key.address == strangers["address"]
    for vector in strangers["messages"]:
        message, domain = parse(vector["typedData"]), domain_of(vector["typedData"])
        assert message.typed_data(domain) == vector["typedData"]
        assert message.digest(domain) == vector["digest"]
        assert key.sign(message, domain) == vector["signature"]
        assert recover(vector["digest"], vector["signature"]) == key.address


def test_the_messages_are_the_golden_ones(strangers: Any, golden: list[dict[str, Any]]) -> None:
    known = {vector["digest"] for vector in golden}
    new = [m["typedData"] for m in strangers["messages"] if m["digest"] not in known]
    session, escrowed = (parse(typed_data) for typed_data in new)
    assert isinstance(session, GatewaySession)
    assert escrowed.as_json() == strangers["messages"][0]["typedData"]["message"] | {"flags": 1}


def test_viem_still_makes_the_very_same_file(vectors: Path) -> None:
    done = viem(vectors, "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("size", "line"),
    [
        ('"138"', '"digest"'),
        ("9007199254740993", '"size": 9007199254740992'),  # rounded by JavaScript: why integers are published as text
    ],
)
def test_a_file_that_viem_would_not_make_is_noticed(vectors: Path, tmp_path: Path, size: str, line: str) -> None:
    text = (vectors / "strangers.json").read_text()
    assert text.count('"size": "137"') == 1
    file = tmp_path / "changed.json"
    file.write_text(text.replace('"size": "137"', f'"size": {size}'))
    done = viem(vectors, "--check", str(file))
    assert done.returncode == 1
    assert f"is not what viem makes: {line}" in " ".join(done.stderr.split())


def test_viem_signs_every_golden_message_as_we_do(
    vectors: Path, strangers: Any, key: Key, golden: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "golden.json"
    bare = [{"typedData": vector["typedData"]} for vector in golden]
    file.write_text(json.dumps({"key": strangers["key"], "messages": bare}))
    done = viem(vectors, str(file))
    assert done.returncode == 0, done.stderr
    made = json.loads(file.read_text())
    assert made["address"] == key.address
    for vector, signed in zip(golden, made["messages"], strict=True):
        assert signed["typedData"] == vector["typedData"]
        assert signed["digest"] == vector["digest"]
        assert signed["signature"] == our_signature(key, vector["typedData"])


def test_cast_signs_the_same_bytes_and_names_the_same_key(
    strangers: Any, key: Key, golden: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert cast("address", strangers["key"]).stdout.strip().lower() == key.address
    file = tmp_path / "message.json"
    read = ["--data", "--from-file", str(file)]
    for vector in [*strangers["messages"], *golden]:
        file.write_text(json.dumps(vector["typedData"]))
        signed = cast("sign", "--private-key", strangers["key"], *read)
        assert signed.returncode == 0, signed.stderr
        signature = signed.stdout.strip()
        assert signature == vector.get("signature", our_signature(key, vector["typedData"]))
        verified = cast("verify", "--address", key.address, *read, signature)
        assert verified.returncode == 0, verified.stderr
        assert cast("verify", "--address", Key.named("other").address, *read, signature).returncode == 1
