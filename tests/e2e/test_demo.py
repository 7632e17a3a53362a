"""The whole exchange as people see it: `make demo`, each party in its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import command_lines

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "-m", "ledger.cli.main", "demo", "run", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return folder, done.stdout


def test_the_demo_runs_verifies_and_finds_the_changed_byte(demo: tuple[Path, str]) -> None:
    _, out = demo
    assert "HOLDS 验证通过" in out
    assert "DOES NOT HOLD" in out
    assert "REVOKED" in out
    assert "合约余额 ledger holds 0" in out
    assert "mirror equals its rebuild" in out


def test_at_least_two_thousand_uses_were_metered_and_the_refusal_is_among_them(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    logs = sorted((folder / "audit-bundle/data/authorizations").glob("*/leaves.jsonl"), key=lambda p: p.stat().st_size)
    leaves = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    assert sum(entry["leaf"]["kind"] == 0 for entry in leaves) == 2000
    last = leaves[-1]
    assert (last["leaf"]["kind"], last["payload"]["reason"]) == (4, "REVOKED")
    assert len({entry["leaf"]["useIdHash"] for entry in leaves}) == len(leaves)


def test_each_party_has_its_own_key_file_and_no_key_is_anywhere_else(demo: tuple[Path, str]) -> None:
    folder, out = demo
    wallets = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/wallet.json")}
    assert set(wallets) == {"operator", "provider", "consumer", "holder", "relayer"}
    assert len({w["address"] for w in wallets.values()}) == 5
    for name in wallets:
        password = (folder / name / "password").read_text().strip()
        assert password not in out
        for log in (folder / "logs").iterdir():
            assert password not in log.read_text()


def test_every_transaction_is_recorded_with_its_gas(demo: tuple[Path, str]) -> None:
    folder, out = demo
    sent = json.loads((folder / "transactions.json").read_text())
    assert len({t["transaction"] for t in sent}) == len(sent) >= 25
    assert all(t["gasUsed"] > 21_000 and t["transaction"] in out for t in sent)


def test_the_bundle_verifies_with_everything_stopped(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    command = [sys.executable, "-m", "ledger.audit.verify", str(folder / "audit-bundle")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0
    assert "2,013 leaves" in done.stdout


def test_nothing_is_left_running(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    assert str(folder) not in command_lines()
