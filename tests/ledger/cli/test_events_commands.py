"""`sluice events`, `webhook` and `report` over a running server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ledger.cli.main import cli
from tests.exchange import Exchange, api
from tests.ledger.cli.test_cli import Shell, _light


@pytest.fixture
def provider(
    running: Exchange, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.setattr("eth_account.account.Account.encrypt", _light)
    terms = running.open()
    running.world.settle(terms, 60, (60, 1440, 0, 0))
    running.follow()
    with api(running) as client:
        shell = Shell(tmp_path / "provider", str(client.base_url), running.world.provider, capsys)
        (tmp_path / "provider" / "deployment.json").write_text(json.dumps(running.world.deployment.as_json()))
        yield shell


def test_events_are_listed_and_chosen(provider: Shell, running: Exchange) -> None:
    everything = provider("events")
    assert [told["event"] for told in everything][-2:] == ["Opened", "Settled"]
    assert provider("events", "--event", "Settled") == everything[-1:]
    assert provider("events", "--after", everything[-2]["offset"]) == everything[-1:]
    assert provider("events", "--about", running.world.stranger.address) == []


def test_webhooks_are_kept_by_their_owner(provider: Shell) -> None:
    made = provider("webhook", "add", "http://127.0.0.1:9/", "--event", "Settled", "--seen")
    (listed,) = provider("webhook", "list")
    assert (listed["webhook"], listed["final"], listed["event"]) == (made["webhook"], False, "Settled")
    assert provider("webhook", "replay", made["webhook"])["offset"].startswith("0-0-")
    assert provider("webhook", "dead-letters", made["webhook"]) == []
    provider("webhook", "remove", made["webhook"])
    assert provider("webhook", "list") == []


def test_reports_are_the_sums(provider: Shell, running: Exchange) -> None:
    (row,) = provider("report", "usage", "--by", "day,consumer")
    assert (row["consumer"], row["uses"]) == (running.world.consumer.address, "60")
    assert len(provider("report", "revenue")) == 3
    assert provider("report", "arrears") == []
    assert [r["authorization"] for r in provider("report", "expiring", "--days", "11")] == [
        r["authorization"] for r in provider("authorization", "list", "--status", "OPEN", "--purpose", "RESEARCH")
    ]
    assert provider("report", "expiring", "--days", "1") == []


@pytest.mark.parametrize("words", [["events"], ["report", "usage"], ["report", "revenue"], ["report", "expiring"]])
def test_people_get_a_table(provider: Shell, words: list[str]) -> None:
    done: Any = CliRunner().invoke(cli, ["--home", str(provider.home), "--api", provider.url, *words])
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) >= 1
    assert "Traceback" not in done.output
