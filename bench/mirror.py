"""The mirror's figures: events a second from a busy chain into SQLite and PostgreSQL, against the node and Ponder.

200,000 real settlements in 500 blocks, as they are: versioned rows, indexes, digests and raw logs, fsync'd.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import ponder
from bench.settlements import busy_chain, settle_often
from ledger.chain.client import Chain
from ledger.chain.fetch import Fetcher
from ledger.cli.processes import Processes
from ledger.mirror.store import followed, open_mirror
from tests.databases import fresh_database, postgres_server
from tests.world import World

AUTHORIZATIONS, BLOCKS = 400, 500
ROUNDS = 3


def mirror(folder: Path, authorizations: int = AUTHORIZATIONS, blocks: int = BLOCKS) -> dict[str, Any]:
    """Best of ROUNDS in each database, a new database and a new process each time."""
    with Processes(folder / "logs") as processes, postgres_server(folder / "postgres") as server:
        url = busy_chain(processes)
        world = World.on(Chain(url))
        busy = settle_often(world, authorizations, blocks)
        deployment = folder / "deployment.json"
        deployment.write_text(json.dumps(world.deployment.as_json()))
        began = time.perf_counter()
        fetcher = Fetcher(world.chain, list(followed(world.deployment)))
        at = busy.first
        while at <= busy.last - 64:
            at = fetcher.range(at, busy.last - 64).last.number + 1
        served = busy.settlements * (blocks - 64) / blocks / (time.perf_counter() - began)
        fetcher.close()
        runs: dict[str, list[dict[str, Any]]] = {"sqlite": [], "postgres": []}
        for n in range(ROUNDS):
            for kind, database in (("sqlite", str(folder / f"{n}.db")), ("postgres", fresh_database(server))):
                command = [sys.executable, "-m", "bench.follow", url, str(deployment), database, str(busy.first)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[kind].append(json.loads(done.stdout))
        ours = open_mirror(folder / "0.db", world.deployment)
        peer = ponder.measure(url, world.deployment, busy, ours, folder / "ponder", fresh_database(server))
    assert len({run["digest"] for every in runs.values() for run in every}) == 1
    rates = {kind: busy.settlements / min(run["seconds"] for run in every) for kind, every in runs.items()}
    theirs = {kind: run.settlements / run.seconds for kind, run in peer.items()}
    return {
        "mirror_events_per_s_sqlite": rates["sqlite"],
        "mirror_events_per_s_postgres": rates["postgres"],
        "mirror_events_per_s_read_only": served,
        "mirror_megabytes": max(run["megabytes"] for every in runs.values() for run in every),
        "mirror_digest_ms": min(run["digestMs"] for every in runs.values() for run in every),
        "ponder_events_per_s_embedded": theirs["embedded"],
        "ponder_events_per_s_postgres": theirs["postgres"],
        "ponder_runs": {kind: asdict(run) for kind, run in peer.items()},
        "mirror_vs_ponder": min(rates["sqlite"] / theirs["embedded"], rates["postgres"] / theirs["postgres"]),
    }
