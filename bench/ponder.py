"""Ponder, an indexer that is widely used, on the mirror's own chain: the peer of the mirror's figures.

`ponder start` as it comes, with an empty cache: each `Settled` is a row with our columns and brings its authorization's
row up to date (`bench/ponder`). The clock runs from its first word of syncing to the last event in its tables, by the
times in its own log: installing, starting Node and opening the database are not in it.
"""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, func, select

from bench.settlements import Busy
from ledger.chain import artifacts
from ledger.chain.deploy import Deployment
from ledger.cli.processes import Processes
from ledger.core.loopback import HOST, listen
from ledger.mirror.schema import settlements

PATIENCE = 600  # seconds a run may take
STARTED, RANGE, BLOCK = "Started backfill indexing", "Indexed block range", "Indexed block"
BACKFILLED = "Completed backfill indexing across all chains"


@dataclass(frozen=True)
class Run:
    """What one run of Ponder took. Up to `final` it reads by range, from there on block by block."""

    settlements: int
    final: int  # settlements that it took for final
    starting: float  # seconds from the process's start to its first word of syncing
    seconds: float  # from there to the last event
    final_seconds: float  # from there to the last event that it took for final


def measure(
    url: str, deployment: Deployment, busy: Busy, mirrored: Engine, folder: Path, postgres_url: str
) -> dict[str, Run]:
    """One run in each database; raises AssertionError if its totals are not those of our mirror."""
    shutil.copytree(Path(__file__).parent / "ponder", folder)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(install, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    databases = {
        "embedded": {"kind": "pglite"},
        "postgres": {"kind": "postgres", "connectionString": postgres_url},
    }
    runs, wanted = {}, _totals(mirrored)
    for kind, database in databases.items():
        chain = {
            "url": url,
            "id": deployment.chain_id,
            "address": deployment.address("UsageLedger"),
            "first": busy.first,
            "abi": artifacts.artifact("UsageLedger")["abi"],
            "database": database,
        }
        (folder / "chain.json").write_text(json.dumps(chain))
        runs[kind], found = _run(folder, kind, busy)
        assert found == wanted, f"Ponder ({kind}) has {found}, the mirror {wanted}"
    return runs


def _run(folder: Path, kind: str, busy: Busy) -> tuple[Run, dict[str, int]]:
    with listen(0) as probe:
        port = str(probe.getsockname()[1])
    # The program itself: what a Python package puts on PATH starts it as a child, which would outlive a signal.
    node = subprocess.run(["node", "-p", "process.execPath"], check=True, capture_output=True, text=True).stdout.strip()
    program = str(folder / "node_modules" / "ponder" / "dist" / "esm" / "bin" / "ponder.js")
    options = ["--root", str(folder), "--schema", kind, "--hostname", HOST, "--port", port, "--log-format", "json"]
    logs = folder / "logs"
    with Processes(logs) as processes:
        began = time.time()
        command = ["env", "PONDER_TELEMETRY_DISABLED=1", node, program, "start", *options]
        process = processes.start(kind, command)
        lines = _until(logs / f"{kind}.log", busy.last, process)
        answer = httpx.get(f"http://{HOST}:{port}/totals", timeout=60, trust_env=False).raise_for_status().json()
    at = {line["msg"]: line["time"] / 1000 for line in lines}
    run = Run(
        settlements=sum(line["event_count"] for line in lines if line["msg"] in (RANGE, BLOCK)),
        final=sum(line["event_count"] for line in lines if line["msg"] == RANGE),
        starting=at[STARTED] - began,
        seconds=at[BLOCK] - at[STARTED],
        final_seconds=at[BACKFILLED] - at[STARTED],
    )
    assert run.settlements == busy.settlements, f"Ponder indexed {run}"
    return run, {name: int(value) for name, value in answer.items()}


def _until(log: Path, last: int, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it logged, once it has indexed block `last`."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        # The last line may not be whole yet.
        whole = log.read_text().split("\n")[:-1]
        lines: list[dict[str, Any]] = [json.loads(line) for line in whole if line.startswith("{")]
        if any(line["msg"] == BLOCK and line["number"] == last for line in lines):
            return lines
        time.sleep(0.5)
    raise AssertionError(f"Ponder did not get to block {last}:\n{log.read_text()[-3000:]}")


def _totals(mirrored: Engine) -> dict[str, int]:
    """What Ponder's tables must come to."""
    columns = {name: settlements.c[name] for name in ("size", "units0", "units1", "credits", "as_of", "due", "paid")}
    sums = [func.sum(column).label(name) for name, column in columns.items()]
    each = select(func.max(settlements.c.paid).label("paid")).group_by(settlements.c.authorization).subquery()
    with mirrored.connect() as connection:
        found = dict(connection.execute(select(func.count().label("settlements"), *sums)).one()._mapping)
        now = dict(
            connection.execute(select(func.count().label("authorizations"), func.sum(each.c.paid).label("paid_now")))
            .one()
            ._mapping
        )
    return {name: int(value) for name, value in (found | now).items()}
