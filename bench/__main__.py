"""`make bench`: figures into build/bench.json, as ratios against a peer or a floor in the same run.

Nothing here passes or fails: speed is read, not asserted.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data

from bench.api import api
from bench.fresh import fresh
from bench.hashing import hashing
from bench.lists import lists
from bench.mirror import mirror
from bench.uses import uses
from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.core.merkle import Tree
from ledger.core.signing import recover
from tests.world import Key, World


def rate(work: Callable[[], Any], times: int) -> float:
    """Calls a second, best of three."""
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(times):
            work()
        best = max(best, times / (time.perf_counter() - began))
    return best


def core(world: World) -> dict[str, Any]:
    terms = world.terms()
    domain, key = world.domain(terms), Key.named("bench")
    head = world.head(terms, 60, (60, 1440, 0, 0))
    data = head.typed_data(domain)
    digest, signature = head.digest(domain), key.sign(head, domain)
    signable = encode_typed_data(full_message=data)
    mine, peer = (
        rate(lambda: head.digest(domain), 3000),
        rate(lambda: _hash_eip191_message(encode_typed_data(full_message=data)), 300),
    )
    ours, theirs = (
        rate(lambda: recover(digest, signature), 2000),
        rate(lambda: Account.recover_message(signable, signature=signature), 300),
    )
    leaves = [os.urandom(32) for _ in range(50_000)]
    began = time.perf_counter()
    Tree(leaves).root()
    tree = len(leaves) / (time.perf_counter() - began)
    floor = rate(lambda: hashlib.sha256(b"\x01" + leaves[0] + leaves[1]).digest(), 100_000)
    card, units = world.card(), (5_000, 120_000, 0, 0)
    return {
        "EIP-712 digest of a head": {"a second": mine, "eth_account": peer, "ratio": mine / peer},
        "signer of a digest": {"a second": ours, "eth_account": theirs, "ratio": ours / theirs},
        "leaves into a tree": {"a second": tree, "floor: one SHA-256 each": floor, "ratio": tree / floor},
        "price of two meters": {"a second": rate(lambda: card.price(units), 20_000)},
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        world = World.on(Chain(processes.anvil(Path(folder) / "state.json")))
        found: dict[str, Any] = {"core": core(world)}
    for measure in (hashing, uses, mirror, api, fresh, lists):
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            found |= measure(Path(folder))
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
