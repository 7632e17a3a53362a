"""The provider's commands around its gateway: files found by digest, jobs reported, disputes, waiting, the watch."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.cli.processes import Processes
from ledger.core.terms import AuthorizationTerms
from ledger.metering.log import UsageLog, open_usage
from tests.exchange import CSV, Exchange, api
from tests.ledger.cli.test_cli import Shell, _light
from tests.world import POLICY, digest


@dataclass
class Scene:
    """A provider whose gateway serves a folder of files, and a consumer with its own home."""

    running: Exchange
    terms: AuthorizationTerms
    provider: Shell
    consumer: Shell
    gateway: str

    @property
    def id(self) -> str:
        return self.running.world.id(self.terms)

    def use(self, name: str = "got.json") -> Any:
        what = ["--version", self.running.version, "--purpose", "RESEARCH", "-o", self.consumer.home / name]
        return self.consumer("use", "get", self.id, "--gateway", self.gateway, *what)

    def job(self, n: int, **changes: Any) -> dict[str, Any]:
        return {
            "useId": f"{'J' * 40}{n:06d}",
            "purpose": "RESEARCH",
            "modality": "API_PULL",
            "version": self.running.version,
            "counts": {"calls": 1, "rows": 10},
            "job": digest(f"job {n}"),
            "result": digest(f"result {n}"),
        } | changes


@pytest.fixture
def scene(
    running: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setattr("eth_account.account.Account.encrypt", _light)
    world, folder = running.world, running.folder
    terms = running.open(modalities=0b11)
    published, config = tmp_path / "published", tmp_path / "gateway.yaml"
    (published / "deep").mkdir(parents=True)
    (published / "deep" / "weather.csv").write_bytes(CSV)
    (published / "other.txt").write_text("not published")
    (tmp_path / "policy.json").write_text(POLICY)
    config.write_text("policies: [policy.json]\ncredit-up-to: '0'\n")
    deployment = json.dumps(world.deployment.as_json())
    (folder / "deployment.json").write_text(deployment)
    with api(running) as client, Processes(tmp_path / "logs") as processes:
        shells = {}
        for name in ("provider", "consumer"):
            shells[name] = Shell(tmp_path / f"{name}-home", str(client.base_url), getattr(world, name), capsys)
            (shells[name].home / "deployment.json").write_text(deployment)
        provider, consumer = shells["provider"], shells["consumer"]
        agreement = {
            "terms": terms.as_json(),
            "policy": POLICY,
            "rateCard": world.card().as_json(),
            "split": world.split().as_json(),
        }
        (consumer.home / "agreements").mkdir()
        (consumer.home / "agreements" / f"{world.id(terms)}.json").write_text(json.dumps(agreement))
        options = ["--home", folder, "--wallet", provider.file, "--password-file", provider.home / "password"]
        command = [sys.executable, "-m", "ledger.cli.main", "--json", *options, "gateway", "--files", published]
        url = processes.server("gateway", [str(word) for word in (*command, "--config", config, "--port", 0)])
        (folder / "password").write_text((provider.home / "password").read_text())
        (folder / "password").chmod(0o600)
        provider.home = folder  # it looks after its gateway's databases
        yield Scene(running, terms, provider, consumer, url)


def test_a_folder_of_published_files_is_served_by_their_digests(scene: Scene) -> None:
    got = scene.use()
    assert (scene.consumer.home / "got.json").read_bytes() == CSV
    assert got["units"] == [1, 24, 0, 0]
    signed = scene.consumer("head", "sign", scene.id, "--gateway", scene.gateway)
    assert signed["head"]["units"] == ["1", "24", "0", "0"]


def test_jobs_are_reported_from_a_file_and_again_without_counting(scene: Scene, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(scene.job(n)) + "\n" for n in range(7)))
    command = ["use", "report", scene.id, jobs, "--gateway", scene.gateway, "--batch", 3]
    for _ in range(2):
        answer = scene.provider(*command)
        assert (answer["uses"], answer["refused"], answer["failed"]) == (7, [], [])
        assert answer["receipt"]["head"]["units"] == ["7", "70", "0", "0"]
    jobs.write_text(json.dumps(scene.job(9, counts={"calls": 1, "rows": 10**7})) + "\n")
    asked = scene.provider(*command, "--ask")
    assert asked["refused"] == [{"use": 0, "reason": "QUOTA_EXCEEDED"}]
    jobs.write_text('{"useId": "x"\n')
    assert scene.provider(*command, code=1)["error"]["code"] == "input_invalid"


def test_the_watch_settles_what_is_worth_it_and_once(scene: Scene) -> None:
    scene.use()
    (waits,) = scene.provider("gateway", "waiting")
    assert (waits["authorization_id"], waits["units"]) == (scene.id, ["1", "24", "0", "0"])
    scene.consumer("head", "sign", scene.id, "--gateway", scene.gateway)
    assert scene.provider("gateway", "waiting") == []
    assert scene.consumer("watch", "--once", "--value", "1000", "--age", "100") == []
    (done,) = scene.consumer("watch", "--once", "--value", "0.01")
    assert (done["authorization"], done["size"], done["why"]) == (scene.id, 1, "VALUE")
    scene.running.follow()
    assert scene.running.world.reservation(scene.terms)["paid"] == 67_200
    assert scene.provider("watch", scene.id, "--once", "--value", "0.01") == []


def test_a_dispute_is_seen_credited_and_signed(scene: Scene) -> None:
    scene.use()
    running = scene.running
    engine = open_usage(scene.consumer.home / "usage.db")
    consumer = running.consumer(scene.terms, gateway=scene.gateway, usage=engine)
    assert consumer.dispute(0, "half of it was missing") == "OPEN"
    (dispute,) = scene.provider("gateway", "disputes")
    assert (dispute["index"], dispute["reason"], dispute["answer"]) == (0, "half of it was missing", None)
    refused = scene.consumer("head", "sign", scene.id, "--gateway", scene.gateway, code=1)
    assert refused["error"]["code"] == "disputed"
    assert scene.provider("gateway", "credit", scene.id, 0, "--reason", "our source was down")["corrects"] == 0
    signed = scene.consumer("head", "sign", scene.id, "--gateway", scene.gateway)
    assert signed["head"]["credits"] == "67200"
    assert scene.provider("gateway", "reject", scene.id, 0, code=1)["error"]["code"] == "conflict"
    engine.dispose()


def test_a_lost_log_is_restored_from_the_consumers_file(scene: Scene, tmp_path: Path) -> None:
    scene.use()
    scene.use("again.json")
    signed = scene.consumer("head", "sign", scene.id, "--gateway", scene.gateway)
    copy = scene.consumer.home / "usage.db"
    kept = scene.provider("gateway", "restore", scene.id, "--copy", copy, code=1)
    assert kept["error"]["code"] == "conflict"
    (tmp_path / "lost").mkdir()
    for part in list(scene.running.folder.glob("usage.db*")):
        part.rename(tmp_path / "lost" / part.name)
    restored = scene.provider("gateway", "restore", scene.id, "--copy", copy)
    assert (restored["size"], restored["root"]) == (2, signed["head"]["root"])
    engine = open_usage(scene.running.folder / "usage.db")
    assert UsageLog(engine, scene.running.world.id(scene.terms)).acknowledged == (2, 48, 0, 0)
    engine.dispose()


@pytest.mark.parametrize(
    "text",
    [
        "policies: [nowhere.json]",
        "sources: 5",
        "unknown: 1",
        "policies: [policy.json]\nroutes: [{path: /x, version: '0x12'}]\nupstream: http://127.0.0.1:9",
        "policies: [policy.json]\nroutes: [{path: /v1/sessions, version: '0x12'}]\nupstream: http://127.0.0.1:9",
        "policies: [policy.json]\nupstream: http://127.0.0.1:9",
        "policies: [policy.json]\nfinality: soon",
        "[",
        "\x00",
    ],
)
def test_a_configuration_that_cannot_be_served_ends_in_a_sentence(scene: Scene, tmp_path: Path, text: str) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(text)
    error = scene.provider("gateway", "--config", config, "--port", 0, code=1)["error"]
    assert error["code"] in ("input_invalid", "not_found"), error
