"""Agents: another key uses data for a consumer within caps, is stopped at once, and signs what it received."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from ledger import wallet
from ledger.cli import mcp as tools
from ledger.cli.main import run
from ledger.cli.processes import Processes
from ledger.core.terms import AuthorizationTerms
from tests.exchange import Exchange, api
from tests.ledger.cli.test_cli import PASSWORD, Shell, _light
from tests.world import POLICY, Key

YUAN = 10**6


@dataclass
class Scene:
    """A consumer, its agent and a provider's gateway; the agent has a home, a key and a grant, and nothing else."""

    running: Exchange
    terms: AuthorizationTerms
    provider: Shell
    consumer: Shell
    agent: Shell
    gateway: str
    grants: Path
    issued: int = 0

    @property
    def authorization(self) -> str:
        return self.running.world.id(self.terms)

    @property
    def key(self) -> str:
        return Key.named("agent").address

    def grant(self, name: str, *options: object, code: int = 0, push: bool = True) -> Path:
        """A grant in a file; each is issued in a second of its own."""
        time.sleep(max(0.0, self.issued + 1.01 - time.time()))
        self.issued = int(time.time())
        path = self.grants / f"{name}.json"
        key = ["--key-file", self.agent.file, "--key-password-file", self.agent.home / "password"]
        told = ["--gateway", self.gateway] if push else []
        self.answer = self.consumer("agent", "grant", self.authorization, *key, *told, *options, "-o", path, code=code)
        return path

    def use(self, who: Shell, grant: Path | None = None, rows: int = 1, code: int = 0) -> Any:
        by = ["--grant", grant] if grant else []
        what = ["--version", self.running.version, "--purpose", "RESEARCH", "--query", f"limit={rows}"]
        to = ["-o", who.home / "got.json"]
        return who("use", "get", self.authorization, "--gateway", self.gateway, *what, *by, *to, code=code)

    def refused(self, who: Shell, grant: Path, rows: int = 1) -> str:
        error = self.use(who, grant, rows, code=1)["error"]
        assert error["code"] == "use_refused", error
        return str(error["details"]["reason"])

    def sign(self, who: Shell, *options: object, code: int = 0) -> Any:
        return who("head", "sign", self.authorization, "--gateway", self.gateway, *options, code=code)

    def revoke(self) -> None:
        self.consumer("agent", "revoke", self.key)
        self.running.follow()


@pytest.fixture
def scene(
    running: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setattr("eth_account.account.Account.encrypt", _light)
    world = running.world
    terms = running.open()
    deployment = json.dumps(world.deployment.as_json())
    with api(running) as client:
        shells = {}
        for name, key in (
            ("provider", world.provider),
            ("consumer", world.consumer),
            ("agent", Key.named("agent")),
        ):
            shells[name] = Shell(tmp_path / name, str(client.base_url), key, capsys)
            (tmp_path / name / "deployment.json").write_text(deployment)
        kept = tmp_path / "consumer" / "agreements" / f"{world.id(terms)}.json"
        kept.parent.mkdir()
        agreed = {"terms": terms.as_json(), "policy": POLICY, "rateCard": world.card().as_json()}
        kept.write_text(json.dumps(agreed | {"split": world.split().as_json()}))
        yield Scene(running, terms, shells["provider"], shells["consumer"], shells["agent"], running.url, tmp_path)


@pytest.fixture
def apart(scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """The same with the gateway in a process of its own, started by the provider's command."""
    folder, provider = scene.running.folder, scene.provider
    (folder / "deployment.json").write_text(json.dumps(scene.running.world.deployment.as_json()))
    policy, config = tmp_path / "policy.json", tmp_path / "gateway.yaml"
    policy.write_text(POLICY)
    source = {"version": scene.running.version, "file": str(folder / "data.csv"), "kind": "rows"}
    config.write_text(json.dumps({"policies": [str(policy)], "sources": [source]}))
    options = ["--home", folder, "--wallet", provider.file, "--password-file", provider.home / "password"]
    command = [sys.executable, "-m", "ledger.cli.main", "--json", *options, "gateway", "--config", config, "--port", 0]
    with Processes(tmp_path / "logs") as processes:
        scene.gateway = processes.server("gateway", [str(word) for word in command])
        yield scene


def test_an_agent_uses_within_its_caps_and_its_principal_beyond_them(apart: Scene) -> None:
    scene = apart
    grant = scene.grant("grant", "--cap", "0.03/day", "--per-use", "0.02", "--max-due", "10")
    assert scene.answer["registered"]
    assert scene.answer["maxDue"] == str(10 * YUAN)
    assert not (scene.agent.home / "agreements").exists()  # the grant alone is enough
    assert scene.use(scene.agent, grant, rows=3)["units"] == [1, 3, 0, 0]
    assert scene.refused(scene.agent, grant, rows=8) == "AGENT_CALL_CAP"  # 8 × 0.0028: calls are still free
    assert scene.use(scene.agent, grant, rows=7)["units"] == [1, 7, 0, 0]
    assert scene.refused(scene.agent, grant, rows=1) == "AGENT_DAY_CAP"  # 0.0028 more than 0.028
    assert scene.use(scene.consumer, rows=24)["units"] == [1, 24, 0, 0]
    many = ["--version", scene.running.version, "--purpose", "RESEARCH", "--count", 1, "--limit", 1, "--grant", grant]
    start = ["--start", "2026-01-01T00:00:00"]
    ran = scene.agent("use", "run", scene.authorization, "--gateway", scene.gateway, *many, *start, code=1)
    assert ran["error"]["details"]["reason"] == "AGENT_DAY_CAP"
    wrong = scene.use(scene.consumer, grant, code=1)["error"]
    assert (wrong["code"], wrong["details"]["field"]) == ("input_invalid", "grant")  # another wallet than the key


def test_uses_a_day_are_capped_too(scene: Scene) -> None:
    grant = scene.grant("grant", "--uses", "2/day")
    for _ in range(2):
        scene.use(scene.agent, grant)
    assert scene.refused(scene.agent, grant) == "AGENT_DAY_CAP"


def test_a_revoked_agent_is_refused_at_once_and_for_ever(scene: Scene) -> None:
    grant = scene.grant("grant")
    scene.use(scene.agent, grant)
    (listed,) = scene.consumer("agent", "list")
    assert (listed["key"], listed["revokedAt"]) == (scene.key, None)
    scene.revoke()
    # A new session is not opened; what is open already is answered AGENT_NOT_ALLOWED (see the tools below).
    problem = scene.use(scene.agent, grant, code=1)["error"]
    assert (problem["code"], problem["details"]["status"]) == ("gateway_problem", 401)
    assert "not signed by the consumer" in problem["message"]
    scene.use(scene.consumer)
    (listed,) = scene.consumer("agent", "list")
    assert listed["revokedAt"] >= listed["registeredAt"] > 0
    scene.grant("again", code=1)
    assert scene.answer["error"]["code"] == "conflict"


def test_an_older_wider_grant_is_refused_after_a_newer_one(scene: Scene) -> None:
    wide = scene.grant("wide")
    scene.use(scene.agent, wide, rows=20)
    narrow = scene.grant("narrow", "--cap", "0.1", "--per-use", "0.02")
    assert not scene.answer["registered"]  # the key is on chain already
    problem = scene.use(scene.agent, wide, rows=20, code=1)["error"]
    assert (problem["code"], problem["details"]["status"]) == ("gateway_problem", 403)
    assert "later grant" in problem["message"]
    assert scene.refused(scene.agent, narrow, rows=20) == "AGENT_CALL_CAP"
    assert scene.use(scene.agent, narrow, rows=2)["units"] == [1, 2, 0, 0]


def test_an_agents_head_is_accepted_and_settles(scene: Scene) -> None:
    grant = scene.grant("grant")
    for _ in range(3):
        scene.use(scene.agent, grant, rows=5)
    signed = scene.sign(scene.agent, "--grant", grant)
    assert signed["head"]["units"] == ["3", "15", "0", "0"]
    scene.agent("head", "export", scene.authorization, "-o", scene.grants / "head.json")
    settled = scene.consumer("settle", "relay", scene.grants / "head.json")
    assert int(settled["settled"][0]["due"]) == 15 * 2_800


def test_who_did_not_ask_neither_signs_nor_disputes_without_the_others_copy(scene: Scene) -> None:
    grant = scene.grant("grant")
    scene.use(scene.agent, grant, rows=2)
    scene.use(scene.consumer, rows=3)
    for who, options in ((scene.agent, ["--grant", grant]), (scene.consumer, [])):
        for _ in range(2):  # the second would tell the gateway of a dispute, had the first raised one
            error = scene.sign(who, *options, code=1)["error"]
            assert error["code"] == "refused"
            assert "--copy" in error["message"]
    assert scene.running.gateway.disputes() == []
    signed = scene.sign(scene.consumer, "--copy", scene.agent.home / "usage.db")
    assert signed["head"]["units"] == ["2", "5", "0", "0"]
    scene.use(scene.agent, grant, rows=1)
    signed = scene.sign(scene.agent, "--grant", grant, "--copy", scene.consumer.home / "usage.db")
    assert signed["head"]["units"] == ["3", "6", "0", "0"]


def test_a_head_beyond_what_the_key_may_sign_for_is_left_to_the_wallet(scene: Scene) -> None:
    grant = scene.grant("grant", "--max-due", "0.01")
    scene.use(scene.agent, grant, rows=5)  # 0.014
    error = scene.sign(scene.agent, "--grant", grant, code=1)["error"]
    assert error["code"] == "gateway_problem"
    assert "its wallet must sign" in error["message"]
    assert scene.sign(scene.consumer, "--copy", scene.agent.home / "usage.db")["head"]["size"] == "1"


def test_a_grant_that_was_changed_is_no_grant(scene: Scene) -> None:
    grant = scene.grant("grant")
    good = json.loads(grant.read_text())
    assert set(good) == {"grant", "grantSignature", "agreement"}
    for change, code in (
        ({"grant": good["grant"] | {"perDay": str(10**12)}}, "verification_failed"),
        ({"agreement": good["agreement"] | {"policy": '{"meters": ["calls", "bytes"]}'}}, "verification_failed"),
        ({"grantSignature": "0x" + "11" * 65}, "verification_failed"),
        ({"agreement": None}, "input_invalid"),
        ({"grant": None}, "input_invalid"),
    ):
        grant.write_text(json.dumps(good | change))
        assert scene.use(scene.agent, grant, code=1)["error"]["code"] == code, change


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--per-use", "6", "--cap", "5/day"], "per-use"),
        (["--per-use", "0"], "per-use"),
        (["--uses", "many"], "uses"),
        (["--cap", "5/week"], "cap"),
    ],
)
def test_caps_are_read_strictly_before_anything_goes_on_chain(scene: Scene, options: list[str], field: str) -> None:
    scene.grant("grant", *options, code=1)
    assert scene.answer["error"]["details"]["field"] == field
    assert scene.consumer("agent", "list") == []


def test_a_password_that_others_can_read_is_refused(scene: Scene) -> None:
    (scene.agent.home / "password").chmod(0o644)
    scene.grant("grant", code=1)
    assert "chmod 600" in scene.answer["error"]["message"]


def test_only_the_consumer_grants_and_other_bounds_need_another_key(scene: Scene) -> None:
    scene.grant("grant", "--max-due", "5")
    scene.grant("other", "--max-due", "6", code=1)
    assert scene.answer["error"]["details"]["field"] == "max-due"
    (scene.consumer.home / "agreements").rename(scene.agent.home / "agreements")
    key = ["--key-file", scene.agent.file, "--key-password-file", scene.agent.home / "password"]
    answer = scene.agent("agent", "grant", scene.authorization, *key, "-o", scene.grants / "mine.json", code=1)
    assert "only the consumer grants" in answer["error"]["message"]


# --------------------------------------------------------------------------------------------------- tools


def test_an_ai_agent_uses_data_by_its_tools(apart: Scene) -> None:
    scene = apart
    grant = scene.grant("grant", "--cap", "0.2/day", "--per-use", "0.06", "--max-due", "10")
    anyio.run(_talk, scene, grant)


async def _talk(scene: Scene, grant: Path) -> None:
    agent = scene.agent
    options = ["--home", agent.home, "--api", agent.url, "--wallet", agent.file]
    options += ["--password-file", agent.home / "password", "mcp", "--grant", grant, "--gateway", scene.gateway]
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "ledger.cli.main", *(str(option) for option in options)],
        env={"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )
    heard: list[str] = []
    with (agent.home / "mcp.log").open("w") as log:
        async with Client(stdio_client(server, log)) as client:

            async def call(tool: str, refused: bool = False, **arguments: Any) -> Any:
                answer = await client.call_tool(tool, arguments)
                text = "".join(part.text for part in answer.content if part.type == "text")
                heard.append(text)
                assert bool(answer.is_error) == refused, text
                return text if refused else answer.structured_content

            offered = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(offered) == {"discover_products", "my_caps", "use_data", "what_i_spent", "sign_head"}
            for tool in offered.values():
                assert tool.description
                assert tool.output_schema
                described = tool.input_schema["properties"].values()
                assert all("description" in member for member in described), tool.name
            assert offered["my_caps"].annotations.read_only_hint  # type: ignore[union-attr]
            assert not offered["use_data"].annotations.read_only_hint  # type: ignore[union-attr]
            assert "RESEARCH" not in (client.instructions or "")

            found = await call("discover_products")
            assert [p["code"] for p in found["purposes"]] == ["RESEARCH", "VEHICLE_DRIVING_ASSIST"]
            (mine,) = [p for p in found["products"] if p["product"] == scene.running.world.product]
            version = {"version": scene.running.version, "status": "LISTED", "usable": True}
            assert (mine["provider"], mine["versions"]) == (scene.terms.provider, [version])
            assert not any(v["usable"] for p in found["products"] if p is not mine for v in p["versions"])

            caps = await call("my_caps")
            assert (caps["per_use"], caps["per_day"], caps["per_day_left"]) == ("0.06", "0.20", "0.20")
            assert (caps["status"], caps["stopped"], caps["signs_for"]) == ("OPEN", False, "10.00")
            assert caps["quota"] == {"calls": 10_000, "rows": 1_000_000}

            used = await call("use_data", purpose="RESEARCH", query={"limit": 20})
            assert (used["leaf"], used["units"], used["price"]) == (0, {"calls": 1, "rows": 20}, "0.056")
            assert len(json.loads(used["data"])["rows"]) == 20
            assert used["file"] is None

            refusal = await call("use_data", refused=True, purpose="RESEARCH", query={"limit": "24"})
            assert "[AGENT_CALL_CAP]" in refusal
            assert "less in one use" in refusal
            refusal = await call("use_data", refused=True, purpose="LOAN_APPROVAL", query={"limit": "1"})
            assert "[PURPOSE_NOT_ALLOWED]" in refusal
            path = f"/v1/data/{scene.running.version}"
            for odd in (f"{path}?limit=1", "@elsewhere.example/", path.replace("/v1", "/v1/../v1"), "//elsewhere/x#y"):
                assert "[input_invalid]" in await call("use_data", refused=True, purpose="RESEARCH", path=odd), odd
            assert "[input_invalid]" in await call("use_data", refused=True, purpose="FUN")

            used = await call("use_data", purpose="RESEARCH", path=path, query={"limit": "2"})
            assert used["spent_today"] == "0.0616"
            spent = await call("what_i_spent")
            assert (spent["uses"], spent["units"], spent["spent"]) == (2, {"calls": 2, "rows": 22}, "0.0616")
            assert (spent["uses_today"], spent["spent_today"], spent["last_head"]) == (2, "0.0616", None)
            head = await call("sign_head")
            assert (head["leaves"], head["units"], head["due"]) == (4, {"calls": 2, "rows": 22}, "0.0616")
            assert (await call("what_i_spent"))["last_head"] == head
            assert (await call("my_caps"))["per_day_left"] == "0.1384"

            scene.use(scene.consumer, rows=1)
            assert "[refused] leaf 4 was asked for by the consumer's own wallet" in await call(
                "sign_head", refused=True
            )
            await anyio.to_thread.run_sync(scene.revoke)
            refusal = await call("use_data", refused=True, purpose="RESEARCH", query={"limit": "1"})
            assert "[AGENT_NOT_ALLOWED]" in refusal
            assert "only your principal" in refusal
            assert (await call("my_caps"))["stopped"]
    secret = wallet.unlock(agent.file, PASSWORD)._account.key.hex().removeprefix("0x")
    assert not any(secret in text or PASSWORD in text for text in (*heard, (agent.home / "mcp.log").read_text()))


def test_long_data_and_what_is_no_text_go_into_a_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = scene.grant("grant")
    monkeypatch.setattr(tools, "MOST_TEXT", 100)
    answers: list[Any] = []

    def instead(server: Any, _: str) -> None:
        answers.append(anyio.run(server.call_tool, "use_data", {"purpose": "RESEARCH", "query": {"limit": "24"}}))

    monkeypatch.setattr("mcp.server.mcpserver.MCPServer.run", instead)
    options = ["--home", scene.agent.home, "--api", scene.agent.url, "--wallet", scene.agent.file]
    options += ["--password-file", scene.agent.home / "password", "mcp", "--grant", grant, "--gateway", scene.gateway]
    assert run([str(option) for option in options]) == 0
    used = answers[0].structured_content
    assert used["data"] is None
    assert f"{used['size']:,} bytes" in used["note"]
    assert Path(used["file"]).is_relative_to(scene.agent.home)
    assert len(json.loads(Path(used["file"]).read_bytes())["rows"]) == 24
    options.remove("--password-file")
    options.remove(scene.agent.home / "password")
    assert run([str(option) for option in options]) == 1  # nobody could type it
