"""The command line: every command explains itself, and bad input ends in one sentence and a code."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ledger import wallet
from ledger.cli.main import cli, run
from ledger.cli.processes import Processes
from tests.exchange import Exchange, api
from tests.world import Key, digest

PASSWORD = "correct horse battery"


def commands(group: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), group


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_command_has_help_with_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert "Example:" in command.help, name


class Shell:
    """A party at the command line, in this process."""

    def __init__(self, home: Path, url: str, key: Key, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.url, self._capsys = home, url, capsys
        home.mkdir()
        (home / "password").write_text(PASSWORD + "\n")
        (home / "password").chmod(0o600)
        self.file = home / "wallet.json"
        if not self.file.exists():
            wallet._save(self.file, key.account, PASSWORD)

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        options = ["--home", self.home, "--api", self.url, "--wallet", self.file]
        options += ["--password-file", self.home / "password", "--json", "--yes"]
        status = run([str(a) for a in (*options, *arguments)])
        out = self._capsys.readouterr().out
        assert status == code, out
        return json.loads(out)


@pytest.fixture
def parties(
    running: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Shell]]:
    # Scrypt as strong as it is for people takes a second a wallet.
    monkeypatch.setattr("eth_account.account.Account.encrypt", _light)
    with api(running) as client:
        made = {}
        for name in ("operator", "provider", "consumer", "stranger"):
            key = getattr(running.world, name)
            made[name] = Shell(tmp_path / name, str(client.base_url), key, capsys)
            (tmp_path / name / "deployment.json").write_text(json.dumps(running.world.deployment.as_json()))
        yield made


def _light(private_key: Any, password: str, *_: Any, **__: Any) -> Any:
    from eth_keyfile.keyfile import create_keyfile_json

    return create_keyfile_json(bytes(private_key), password.encode(), kdf="pbkdf2", iterations=10)


def test_the_exchange_by_hand(running: Exchange, parties: dict[str, Shell], tmp_path: Path) -> None:
    """What the demonstration does, typed by each party: from a space to a settled, audited, revoked authorization."""
    operator, provider, consumer = parties["operator"], parties["provider"], parties["consumer"]
    world = running.world
    rules = tmp_path / "rules.md"
    rules.write_text("rules")
    space = operator("space", "create", "--policy", rules)["space"]
    for name in ("provider", "consumer"):
        address = getattr(world, name).address
        operator("participant", "admit", "--space", space, "--wallet-address", address, "--role", name)
    assert {p["wallet"] for p in operator("participant", "list", "--space", space)} == {
        world.provider.address,
        world.consumer.address,
    }
    metadata, policy, card = tmp_path / "m.json", tmp_path / "p.json", tmp_path / "card.json"
    metadata.write_text(json.dumps({"name": {"zh": "一", "en": "one"}}))
    policy.write_text(json.dumps({"meters": ["calls", "rows"]}))
    card.write_text(
        json.dumps({"meters": [{"tiers": [{"price": "0.01"}]}, {"per": 1000, "tiers": [{"price": "2.8"}]}]})
    )
    data = running.folder / "data.csv"
    product = provider("product", "register", "--space", space, "--metadata", metadata)["product"]
    published = provider("product", "publish", product, "--file", data, "--metadata", metadata, "--policy", policy)
    version = published["version"]
    assert provider("product", "check", version, data)["holds"]
    rules_failed = provider("product", "check", version, rules, code=1)
    assert rules_failed["error"]["code"] == "verification_failed"
    rate_card = provider("price", "card", card)["rateCard"]
    split = provider("price", "split", "--share", f"{world.provider.address}=10000")["split"]
    assert provider("price", "cost", rate_card, "100", "1000")["amount"] == str(1_000_000 + 2_800_000)

    offer, opening = tmp_path / "offer.json", tmp_path / "opening.json"
    named = ["--space", space, "--product", product, "--version", version, "--policy", policy]
    priced = ["--card", rate_card, "--split", split, "--quota", "100,10000", "--thaw-hours", "24"]
    allowed = ["--purpose", "RESEARCH", "--modality", "API_PULL"]
    provider("authorization", "offer", *named, *priced, *allowed, "-o", offer)
    consumer("account", "mint", "--amount", "50")
    consumer("account", "deposit", "--amount", "20")
    authorization = consumer("authorization", "accept", offer, "--reserve", "5", "-o", opening)["authorization"]
    opened = provider("authorization", "open", opening)
    assert opened["authorization"] == authorization
    assert consumer("account", "show")["free"] == {world.token: "15000000"}
    assert provider("authorization", "show", authorization)["status"] == "OPEN"
    assert [a["authorization"] for a in provider("authorization", "list", "--product", product)] == [authorization]

    config = tmp_path / "gateway.yaml"
    source = {"version": version, "file": str(data), "kind": "rows"}
    config.write_text(json.dumps({"policies": [str(policy)], "sources": [source]}))
    (running.folder / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
    options = ["--home", running.folder, "--wallet", provider.file, "--password-file", provider.home / "password"]
    command = [
        sys.executable,
        "-m",
        "ledger.cli.main",
        "--json",
        *options,
        "gateway",
        "--config",
        config,
        "--port",
        "0",
    ]
    with Processes(tmp_path / "logs") as processes:
        gateway = processes.server("gateway", [str(word) for word in command])
        at = ["--gateway", gateway, "--version", version, "--purpose", "RESEARCH"]
        got = consumer("use", "get", authorization, *at, "--query", "limit=3", "-o", tmp_path / "got.json")
        assert got["units"] == [1, 3, 0, 0]
        ran = consumer("use", "run", authorization, *at, "--count", 5, "--start", "2026-01-01T00:00:00", "--limit", 4)
        assert ran["uses"] == 5
        signed = consumer("head", "sign", authorization, "--gateway", gateway)
        assert signed["head"]["units"] == ["6", "23", "0", "0"]
        settled = provider_settles(running, parties, authorization, tmp_path)
        due = int(settled["settled"][0]["due"])
        assert due == 60_000 + 23 * 2_800
        assert provider("bill", "show", authorization)["due"] == str(due)
        paid = provider("share", "pay", "--split", split)
        assert paid["amount"] == "0.1244 CNY"
        provider("authorization", "revoke", authorization, "--reason", "MISUSE")
        world.pass_time(2)
        running.follow()
        refused = consumer("use", "get", authorization, *at, code=1)
        assert (refused["error"]["code"], refused["error"]["details"]["reason"]) == ("use_refused", "REVOKED")


def provider_settles(running: Exchange, parties: dict[str, Shell], authorization: str, tmp_path: Path) -> Any:
    """A third party settles what the consumer handed it."""
    handed = tmp_path / "head.json"
    parties["consumer"]("head", "export", authorization, "-o", handed)
    return parties["stranger"]("settle", "relay", handed)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["space", "show", "0x12"], "input_invalid"),
        (["space", "show", "0x" + "00" * 32], "not_found"),
        (
            ["participant", "admit", "--space", digest("s"), "--wallet-address", "0x12", "--role", "provider"],
            "input_invalid",
        ),
        (
            ["participant", "admit", "--space", digest("s"), "--wallet-address", "0x" + "11" * 20, "--role", "king"],
            "input_invalid",
        ),
        (["account", "deposit", "--amount", "1,5"], "input_invalid"),
        (["account", "withdraw", "--amount", "999999"], "reverted"),
        (["price", "split", "--share", "0x" + "11" * 20 + "=1"], "input_invalid"),
        (["authorization", "accept", "nowhere.json", "-o", "x"], "not_found"),
        (["authorization", "open", "nowhere.json"], "not_found"),
        (
            ["use", "get", digest("a"), "--gateway", "http://127.0.0.1:9", "--version", digest("v"), "--purpose", "X"],
            "not_found",
        ),
        (["audit", "verify", "nowhere"], "input_invalid"),
        (["tx", "0x" + "00" * 32], "not_found"),
        (["bill", "show", digest("a")], "not_found"),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(parties: dict[str, Shell], arguments: list[str], code: str) -> None:
    answer = parties["consumer"](*arguments, code=1)
    assert answer["error"]["code"] == code
    assert "Traceback" not in answer["error"]["message"]


def test_a_bundle_that_does_not_hold_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert run(["audit", "verify", str(tmp_path)]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert run(["--json", "audit", "verify", str(tmp_path)]) == 1
    assert run(["--help"]) == 0
    capsys.readouterr()


def test_nothing_is_signed_where_nobody_can_be_asked(
    parties: dict[str, Shell], capsys: pytest.CaptureFixture[str]
) -> None:
    consumer = parties["consumer"]
    options = ["--home", consumer.home, "--api", consumer.url, "--wallet", consumer.file]
    options += ["--password-file", consumer.home / "password", "account", "mint", "--amount", "1"]
    assert run([str(o) for o in options]) == 1
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "card",
    [
        {"meters": [{"per": 1.5, "tiers": [{"price": "1"}]}]},
        {"meters": [{"fre": 100, "tiers": [{"price": "1"}]}]},
        {"meters": [{"tiers": [{"upto": 5, "price": "1"}, {"price": "1"}]}]},
        {"meters": [{"tiers": [{"price": "-1"}]}]},
        {"meters": [{"tiers": [{}]}]},
        {"meters": [{"tiers": {"price": "1"}}]},
        {"meters": [5]},
        {"meters": []},
        {},
        [],
    ],
)
def test_a_card_is_read_strictly_before_it_goes_on_chain(parties: dict[str, Shell], tmp_path: Path, card: Any) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card))
    assert parties["provider"]("price", "card", path, code=1)["error"]["code"] == "input_invalid"


def test_a_wrong_password_signs_nothing(parties: dict[str, Shell]) -> None:
    (parties["consumer"].home / "password").write_text("another password\n")
    assert parties["consumer"]("account", "mint", "--amount", "1", code=1)["error"]["code"] == "wrong_password"


def test_a_missing_deployment_server_or_wallet_is_named(parties: dict[str, Shell], tmp_path: Path) -> None:
    consumer = parties["consumer"]
    (consumer.home / "deployment.json").rename(tmp_path / "moved.json")
    assert consumer("account", "mint", "--amount", "1", code=1)["error"]["code"] == "not_deployed"
    (tmp_path / "moved.json").rename(consumer.home / "deployment.json")
    consumer.url = "http://127.0.0.1:9"
    assert consumer("space", "list", code=1)["error"]["code"] == "server_down"
    consumer.file = tmp_path / "none.json"
    assert consumer("account", "mint", "--amount", "1", code=1)["error"]["code"] == "not_found"


def test_an_offer_that_was_changed_is_not_accepted(
    parties: dict[str, Shell], running: Exchange, tmp_path: Path
) -> None:
    world = running.world
    policy, card, offer = tmp_path / "p.json", tmp_path / "c.json", tmp_path / "offer.json"
    policy.write_text(json.dumps({"meters": ["calls"]}))
    card.write_text(json.dumps({"meters": [{"tiers": [{"price": "1"}]}]}))
    provider, consumer = parties["provider"], parties["consumer"]
    rate_card = provider("price", "card", card)["rateCard"]
    split = provider("price", "split", "--share", f"{world.provider.address}=10000")["split"]
    named = ["--space", world.space, "--product", world.product, "--policy", policy, "--card", rate_card]
    rest = ["--split", split, "--quota", "100", "--purpose", "RESEARCH", "--modality", "API_PULL", "-o", offer]
    wrong = provider("authorization", "offer", *named, "--version", world.version, *rest, code=1)
    assert wrong["error"]["code"] == "verification_failed"  # the pinned version was published under another policy
    provider("authorization", "offer", *named, *rest)
    good = json.loads(offer.read_text())

    def accepts(change: dict[str, Any]) -> str:
        offer.write_text(json.dumps(good | change))
        return str(consumer("authorization", "accept", offer, "-o", tmp_path / "o.json", code=1)["error"]["code"])

    dearer = json.loads(json.dumps(good["rateCard"]).replace('"1000000"', '"1"'))
    assert accepts({"rateCard": dearer}) == "verification_failed"
    assert accepts({"policy": '{"meters": ["bytes"]}'}) == "verification_failed"
    assert accepts({"terms": good["terms"] | {"maxUnits": ["1", "0", "0", "0"]}}) == "verification_failed"
    assert accepts({"providerSignature": "0x" + "11" * 65}) == "verification_failed"
    assert accepts({"terms": None}) == "input_invalid"
    offer.write_text(json.dumps(good))
    assert consumer("authorization", "accept", offer, "--reserve", "-1", "-o", tmp_path / "o.json", code=1)["error"]


class Lies:
    """A server that prepares something else than it was asked."""

    def __init__(self, real: Any, change: dict[str, Any]) -> None:
        self._real, self._change = real, change

    def __call__(self, app: Any, path: str, body: Any) -> Any:
        answer = self._real(app, path, body)
        if path.endswith("/prepare"):
            answer["transaction"] |= self._change
        return answer


@pytest.mark.parametrize(
    "change",
    [
        {"to": "0x" + "11" * 20},
        {"data": "0x1234"},
        {"value": "1000"},
        {"chainId": "1"},
        {"maxFeePerGas": str(10**15)},
        {"accessList": []},
        {"type": 0},
    ],
)
def test_a_server_that_prepares_something_else_gets_no_signature(
    parties: dict[str, Shell], running: Exchange, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    from ledger.cli.app import App

    monkeypatch.setattr(App, "post", lambda app, path, body: Lies(_post, change)(app, path, body))
    nonce = running.world.chain.nonce(running.world.consumer.address)
    answer = parties["consumer"]("account", "mint", "--amount", "1", code=1)
    assert answer["error"]["code"] == "verification_failed"
    assert running.world.chain.nonce(running.world.consumer.address) == nonce


def _post(app: Any, path: str, body: Any) -> Any:
    return app._request("POST", path, json=body)
