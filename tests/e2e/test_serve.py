"""`make serve`: what the demo left, served again until it is told to stop."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from ledger.core.errors import NotFound
from tests.e2e.running import command_lines

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ledger.cli.main", "--json", "demo", "serve", "--folder", str(folder)]
    return subprocess.Popen([*command, "--rpc-port", "0", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_what_the_demo_left_is_served_and_stops_with_everything_it_started(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "ledger.cli.main", "demo", "run", "--folder", str(folder), "--uses", "8"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    process = start(folder)
    assert process.stdout is not None
    where = json.loads(process.stdout.readline())
    found = httpx.get(f"{where['url']}/v1/authorizations", timeout=10).json()["items"]
    assert {a["mode"]: a["status"] for a in found} == {"escrowed": "CLOSED", "invoiced": "OPEN"}
    assert httpx.get(f"{where['url']}/docs", timeout=10).status_code == 200
    assert str(folder) in command_lines()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    process.stdout.close()
    assert str(folder) not in command_lines()


def test_serving_nothing_says_what_to_do_first(tmp_path: Path) -> None:
    process = start(tmp_path / "none")
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    assert answer["error"]["code"] == NotFound.code
    assert "demo run" in answer["error"]["message"]
    assert process.wait(timeout=30) == 1
    process.stdout.close()
