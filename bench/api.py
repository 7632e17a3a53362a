"""The API's figures: one authorization by id under wrk with 32 connections, from one worker, on each database.

The server is a process of its own, as it is run; wrk is Debian's. Beside the figure stand what the same server gives
for a reply that reads nothing, and for authorizations at random with nothing kept, so that the share of both is seen.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.settlements import busy_chain, settle_often
from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.config import settings
from ledger.mirror import queries
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.databases import fresh_database, postgres_server
from tests.world import World

SECONDS = 8
CONNECTIONS = 32

RANDOM = """
local ids = {%s}
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", "/v1/authorizations/" .. ids[math.random(#ids)] .. "?n=" .. n)
end
"""


def api(folder: Path, authorizations: int = 200, blocks: int = 20) -> dict[str, Any]:
    """Requests a second and the 99th percentile in milliseconds; skipped with a word where wrk is not installed."""
    if shutil.which("wrk") is None:
        return {"api": "wrk is not installed (Debian: apt-get install wrk)"}
    with Processes(folder / "logs") as processes, postgres_server(folder / "postgres") as server:
        url = busy_chain(processes)
        world = World.on(Chain(url))
        settle_often(world, authorizations, blocks)
        found: dict[str, Any] = {}
        for kind in ("sqlite", "postgres"):
            home = folder / f"home-{kind}"
            home.mkdir()
            (home / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
            database = fresh_database(server) if kind == "postgres" else None
            found |= _measure(processes, world, url, home, kind, database)
        return found


def _measure(
    processes: Processes, world: World, url: str, home: Path, kind: str, database: str | None
) -> dict[str, Any]:
    target = database or settings(str(home)).mirror
    engine = open_mirror(target, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    with engine.connect() as connection:
        ids = [row["authorization"] for row in queries.authorizations(connection, limit=1000)]
    engine.dispose()
    base = serve(processes, url, home, kind, database)
    script = home / "random.lua"
    script.write_text(RANDOM % ", ".join(f'"{i}"' for i in ids))
    one = f"{base}/v1/authorizations/{ids[0]}"
    _wrk(one, 2)
    rps, p99 = _wrk(one, SECONDS)
    unkept, unkept_p99 = _wrk(base, SECONDS, "-s", str(script))
    floor, _ = _wrk(f"{base}/health/live", SECONDS)
    return {
        f"api_read_rps_{kind}": rps,
        f"api_read_p99_ms_{kind}": p99,
        f"api_read_rps_{kind}_unkept": unkept,
        f"api_read_p99_ms_{kind}_unkept": unkept_p99,
        f"api_rps_{kind}_reads_nothing": floor,
    }


def serve(processes: Processes, url: str, home: Path, kind: str, database: str | None) -> str:
    """A server without rate limits, on this database or on files in its home; its URL."""
    command = [sys.executable, "-m", "api", "--home", str(home), "--rpc", url, "--port", "0", "--rate", "0", "--json"]
    if database:
        os.environ["SLUICE_DATABASE"] = database
    try:
        return processes.server(f"api-{kind}", command)
    finally:
        os.environ.pop("SLUICE_DATABASE", None)


def _wrk(url: str, seconds: int, *options: str) -> tuple[float, float]:
    """(requests a second, 99th percentile in milliseconds). Fails if any reply was not 2xx."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", *options, url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in text, text
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    assert rate, text
    assert p99, text
    return float(rate[1]), float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]]
