"""A process that keeps the mirror and is killed at any moment leaves nothing half done."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.core.database import Target
from ledger.mirror.store import open_mirror
from ledger.mirror.writer import LEASE
from tests.ledger.mirror.test_chaos import cursor_of, same_as_rebuilt, settle_down
from tests.world import World

KILLS = 10


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_a_mirror_killed_while_it_writes_is_a_rebuild_in_the_end(database: Target, tmp_path: Path) -> None:
    """Each start reads some hundred blocks that are there already, and the chain grows and turns back meanwhile."""
    with Processes(tmp_path / "logs") as processes:
        chain = Chain(processes.anvil(tmp_path / "state.json", slots=4))
        world = World.on(chain)
        (tmp_path / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
        terms = world.open(90_000_000)
        size = 0
        heights = []
        for n in range(KILLS):
            for _ in range(12):
                size += 1
                world.settle(terms, size, (size, 24 * size, 0, 0), size - 1)
            ahead = str((n + 1) * 2 * LEASE)
            process = processes.start(
                "mirror",
                [
                    sys.executable,
                    "-m",
                    "tests.following",
                    str(database),
                    chain.url,
                    str(tmp_path / "deployment.json"),
                    ahead,
                ],
                read=True,
            )
            assert process.stdout.readline() == "following\n"
            # Sooner and later: while it opens its first transaction, in one, between two, at the head.
            pause(0.008 * n)
            if n >= KILLS // 2:
                # A branch of five blocks instead of the last five; they are not final.
                snapshot = chain.rpc("evm_snapshot")
                for _ in range(5):
                    chain.rpc("evm_mine")
                pause(0.004 * n)
                chain.rpc("evm_revert", snapshot)
                chain.rpc("evm_mine")
            assert process.poll() is None
            processes.kill_last()
            engine = open_mirror(database, world.deployment)
            heights.append(cursor_of(engine).number)
            engine.dispose()
        for _ in range(9):
            chain.rpc("evm_mine")
        engine = open_mirror(database, world.deployment)
        settle_down(engine, chain, world.deployment, lambda: time.time() + (KILLS + 1) * 2 * LEASE)
        assert cursor_of(engine).differences == 0
        assert len(set(heights)) > 1
        same_as_rebuilt(engine, chain, world.deployment, tmp_path / "again.db")
        engine.dispose()
