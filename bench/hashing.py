"""Hashing's figures: signatures verified and leaves hashed a second, and proofs from a log of ten million leaves.

The log is its tiles as a gateway would have left them, over pseudo-random leaf hashes, and the leaves of its last tile:
that one is not full, so it is made from the rows.
"""

import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coincurve
from rich.progress import Progress
from sqlalchemy import Connection, Engine, insert

from ledger.core.database import writing
from ledger.core.ids import raw
from ledger.core.merkle import CompactRange, verify_inclusion
from ledger.core.signing import is_signed_by
from ledger.core.terms import UsageHead
from ledger.core.tiles import HASH, WIDTH, TiledTree, subtree_root
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind, UsageLeaf
from ledger.metering.log import Entry, insert_entry, open_usage, read_tile
from ledger.metering.schema import logs, tiles
from tests.world import Key, digest

LEAVES = 10_000_000
PROOFS = 1_000
ID = digest("bench")
AT_ONCE = 1_024  # tiles a transaction, 8 MiB

Hashes = list[bytes]


def hashing(folder: Path, size: int = LEAVES) -> dict[str, Any]:
    return signatures() | leaves() | proofs(folder, size)


def signatures(many: int = 1_000) -> dict[str, float]:
    """Heads a second of which it is known who signed: digest, recovery, address. The floor is coincurve's recovery."""
    key = Key.named("bench")
    domain = Domain(31337, key.address)
    heads = [
        UsageHead(authorization_id=ID, size=n, units=(n, 24 * n, 0, 0), credits=n, as_of=n, root=digest(f"root {n}"))
        for n in range(1, many + 1)
    ]
    signed = [(head, key.sign(head, domain)) for head in heads]
    plain = [(raw(head.digest(domain)), raw(it[:-2]) + bytes([int(it[-2:], 16) - 27])) for head, it in signed]
    address, recovered = key.address, coincurve.PublicKey.from_signature_and_message
    mine = _rate(many, lambda: [is_signed_by(address, head, domain, signature) for head, signature in signed])
    floor = _rate(many, lambda: [recovered(signature, hashed, hasher=None) for hashed, signature in plain])
    return {"signatures_verified_per_s": mine, "signatures_recovered_per_s": floor}


def leaves(many: int = 10_000) -> dict[str, float]:
    """Leaves a second, from their fields to their hash. The floor is one SHA-256 of as many bytes."""
    made = [_leaf(n) for n in range(many)]
    encoded = [b"\0" + leaf.encode() for leaf in made]
    mine = _rate(many, lambda: [leaf.hash() for leaf in made])
    floor = _rate(many, lambda: [hashlib.sha256(data).digest() for data in encoded])
    return {"leaves_hashed_per_s": mine, "leaves_sha256_per_s": floor}


def proofs(folder: Path, size: int = LEAVES, many: int = PROOFS) -> dict[str, float]:
    """Milliseconds to make an inclusion proof of a random leaf, from a tree that has read nothing, and to verify it."""
    engine = open_usage(folder / "usage.db")
    began = time.perf_counter()
    root = _write(engine, size)
    wrote = time.perf_counter() - began
    made, verified = [], []
    for index in random.Random(2).sample(range(size), min(many, size)):
        with engine.connect() as connection:
            began = time.perf_counter()
            tree = TiledTree(size, lambda level, at: read_tile(connection, ID, level, at, size))
            proof = tree.inclusion(index)
            made.append(1000 * (time.perf_counter() - began))
            leaf = tree.node(0, index)
        began = time.perf_counter()
        assert verify_inclusion(root, size, index, leaf, proof)
        verified.append(1000 * (time.perf_counter() - began))
    engine.dispose()
    return {
        "proof_ms_of_10m": statistics.median(made),
        "proof_ms_of_10m_p99": _p99(made),
        "proof_verify_ms_of_10m": statistics.median(verified),
        "proof_verify_ms_of_10m_p99": _p99(verified),
        "proof_leaves": size,
        "proof_log_written_s": wrote,
    }


def _write(engine: Engine, size: int) -> bytes:
    """The log; its root. Of the hashes no more is in memory than a transaction's and one in 256."""
    full, rest = divmod(size, WIDTH)
    some, above, grown = random.Random(1), [], CompactRange()
    with Progress() as bar:
        task = bar.add_task("writing tiles 写入哈希块", total=full)
        for first in range(0, full, AT_ONCE):
            rows = [some.randbytes(WIDTH * HASH) for _ in range(first, min(first + AT_ONCE, full))]
            with writing(engine) as connection:
                _insert(connection, 0, first, rows)
            above += [subtree_root(row) for row in rows]
            bar.advance(task, len(rows))
    for node in above:
        grown.append(node)
    last = CompactRange()
    with writing(engine) as connection:
        for level, rows in _levels(above):
            _insert(connection, level, 0, rows)
        for n in range(size - rest, size):
            insert_entry(connection, Entry(_leaf(n), digest("request"), None, None, "0x"))
            last.append(_leaf(n).hash())
        whole = CompactRange(size, grown.nodes + last.nodes)
        connection.execute(insert(logs).values(authorization=ID, size=size, nodes=b"".join(whole.nodes)))
    return whole.root()


def _levels(hashes: Hashes) -> Iterator[tuple[int, Hashes]]:
    """The tiles of each level above the leaves; the last of a level may be partial."""
    level = 1
    while hashes:
        rows = [b"".join(hashes[at : at + WIDTH]) for at in range(0, len(hashes), WIDTH)]
        yield level, rows
        hashes = [subtree_root(row) for row in rows if len(row) == WIDTH * HASH]
        level += 1


def _insert(connection: Connection, level: int, first: int, rows: Hashes) -> None:
    values = [{"authorization": ID, "level": level, "index": first + n, "hashes": row} for n, row in enumerate(rows)]
    connection.execute(insert(tiles), values)


def _leaf(index: int) -> UsageLeaf:
    use = digest(f"use {index}")
    return UsageLeaf(
        authorization_id=ID,
        index=index,
        use_id_hash=use,
        units=(1, 24, 0, 0),
        cum_units=(index + 1, 24 * (index + 1), 0, 0),
        cum_credits=0,
        event_time=1_767_225_600 + index,
        served_at=1_767_225_600 + index,
        kind=Kind.USE,
        purpose=1,
        modality=1,
        version=ID,
        payload_hash=use,
    )


def _rate(items: int, work: Callable[[], list[Any]], times: int = 20) -> float:
    """Items a second, best of `times`; what is made of each must be true."""
    best = 0.0
    for _ in range(times):
        began = time.perf_counter()
        done = work()
        best = max(best, items / (time.perf_counter() - began))
        assert all(done)
    return best


def _p99(taken: list[float]) -> float:
    return sorted(taken)[int(len(taken) * 0.99)]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        print(json.dumps(hashing(Path(folder)), indent=1))


if __name__ == "__main__":
    main()
