"""How long after a block is mined a reader sees it: the chain makes a block a second, the server is as it is run.

The clock begins when the node says that a settlement is mined, and ends when the API shows it.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from bench.api import serve
from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from tests.databases import fresh_database, postgres_server
from tests.world import World

BLOCKS = 30


def fresh(folder: Path, blocks: int = BLOCKS) -> dict[str, Any]:
    """Seconds from a block to a reply that shows its settlement: median and slowest, on each database."""
    with Processes(folder / "logs") as processes, postgres_server(folder / "postgres") as server:
        url = processes.anvil(folder / "state.json")
        world = World.on(Chain(url))
        terms = world.open(50_000_000)
        size, found = 0, {}
        for kind in ("sqlite", "postgres"):
            home = folder / f"home-{kind}"
            home.mkdir()
            (home / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
            base = serve(processes, url, home, kind, fresh_database(server) if kind == "postgres" else None)
            path, taken = f"{base}/v1/authorizations/{world.id(terms)}", []
            with httpx.Client(timeout=10) as client:
                for _ in range(blocks):
                    size += 1
                    began = time.perf_counter()
                    world.settle(terms, size, (size, 24 * size, 0, 0), size - 1)
                    mined = time.perf_counter()
                    while client.get(path).json().get("size") != str(size):
                        time.sleep(0.005)
                    taken.append(time.perf_counter() - mined)
                    time.sleep(max(0.0, 1 - (time.perf_counter() - began)))
            found[f"head_to_readable_s_{kind}"] = statistics.median(taken)
            found[f"head_to_readable_s_{kind}_slowest"] = max(taken)
        return found
