"""A gateway that is killed at any moment loses no acknowledged use and counts none twice."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_keyfile.keyfile import create_keyfile_json

from ledger.cli.processes import Processes
from ledger.core.ids import raw
from ledger.core.loopback import listen
from ledger.metering.client import GatewayDown, GatewayProblem
from ledger.metering.log import UsageLog, read_entries
from tests.exchange import Exchange
from tests.world import POLICY

USES = 120


@pytest.fixture
def home(running: Exchange) -> Path:
    """What a gateway process needs: deployment, mirror, wallet, configuration."""
    folder, world = running.folder, running.world
    (folder / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
    key = create_keyfile_json(bytes(world.provider.account.key), b"password", kdf="pbkdf2", iterations=10)
    (folder / "wallet.json").write_text(json.dumps(key))
    (folder / "password").write_text("password\n")
    (folder / "password").chmod(0o600)
    (folder / "policy.json").write_text(POLICY)
    source = {"version": running.version, "file": "data.csv", "kind": "rows", "policy": "policy.json"}
    (folder / "gateway.json").write_text(json.dumps({"sources": [source]}))
    return folder


def test_a_gateway_killed_while_serving_loses_and_doubles_nothing(running: Exchange, home: Path) -> None:
    terms = running.open(500_000_000)
    with listen(0) as probe:
        port = probe.getsockname()[1]
    options = ["--home", home, "--wallet", home / "wallet.json", "--password-file", home / "password"]
    command = [sys.executable, "-m", "ledger.cli.main", "--json", *map(str, options)]
    command += ["gateway", "--config", str(home / "gateway.json"), "--port", str(port)]
    done = threading.Event()

    def beat() -> None:
        while not done.wait(1):
            running.follow()

    follower = threading.Thread(target=beat)
    follower.start()
    received: list[str] = []
    try:
        with Processes(home / "logs") as processes:
            url = processes.server("gateway-1", command)
            consumer = running.consumer(terms, "crash", gateway=url, clock=time.time)

            def use(n: int) -> None:
                for _ in range(40):
                    try:
                        got = consumer.use(running.version, "RESEARCH", {"limit": "3"}, use_id=f"{n:064x}")
                        received.append(got.entry.leaf.use_id_hash)
                        return
                    except (GatewayDown, GatewayProblem):
                        time.sleep(0.25)
                raise AssertionError(f"use {n} never came through")

            with ThreadPoolExecutor(4) as pool:
                uses = [pool.submit(use, n) for n in range(USES)]
                for wait in (20, 60):
                    while len(received) < wait:
                        time.sleep(0.005)
                    processes.kill_last()
                    assert processes.server(f"gateway-again-{wait}", command) == url
                for one in uses:
                    one.result()
            signed = consumer.sign_head()
    finally:
        done.set()
        follower.join()
    assert signed.head.size == USES
    assert signed.head.units == (USES, 3 * USES, 0, 0)
    assert len(set(received)) == USES
    log = UsageLog(running.usage, running.world.id(terms))
    assert "0x" + log.tree.root().hex() == signed.head.root
    with running.usage.connect() as connection:
        entries = read_entries(connection, running.world.id(terms))
    assert len({entry.leaf.use_id_hash for entry in entries}) == USES
    assert all(entry.signature is not None and raw(entry.signature) for entry in entries)
