"""Lists at a million uses and a million settlements: the 95th percentile of each kind, over HTTP, on each database.

The authorizations are real; uses and settlements are rows written in bulk as the mirror and the gateway would have
written them. No two requests are the same, so that nothing that was kept answers.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, insert

from bench.api import serve
from bench.settlements import busy_chain, settle_often
from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.config import settings
from ledger.core.database import writing
from ledger.core.ids import Hash32, hash_of
from ledger.core.usage_leaf import Kind, UsageLeaf
from ledger.metering.log import open_usage
from ledger.metering.schema import leaves
from ledger.mirror import packing, queries, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from ledger.mirror.work import write_settlements
from tests.databases import fresh_database, postgres_server
from tests.exchange import sign_in
from tests.world import World, digest

AUTHORIZATIONS, EACH = 200, 5_000  # a million of both
REQUESTS = 200


def lists(folder: Path, authorizations: int = AUTHORIZATIONS, each: int = EACH) -> dict[str, Any]:
    """Milliseconds at the 95th percentile, and the slowest list of all."""
    with Processes(folder / "logs") as processes, postgres_server(folder / "postgres") as server:
        url = busy_chain(processes)
        Chain(url).rpc("anvil_mine", hex(each + 1))  # room for blocks before the contracts
        world = World.on(Chain(url))
        settle_often(world, authorizations, 2)
        found: dict[str, Any] = {}
        for kind in ("sqlite", "postgres"):
            home = folder / f"home-{kind}"
            home.mkdir()
            (home / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
            database = fresh_database(server) if kind == "postgres" else None
            ids = _fill(world, database or settings(str(home)).mirror, home, each)
            base = serve(processes, url, home, kind, database)
            times = _measure(world, base, ids, each)
            found[f"list_p95_ms_{kind}"] = max(taken for name, taken in times.items() if not name.startswith("sum"))
            found[f"lists_{kind}"] = times
        return found


def _fill(world: World, target: Path | str, home: Path, each: int) -> list[Hash32]:
    engine = open_mirror(target, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    with engine.connect() as connection:
        rows = queries.authorizations(connection, limit=1_000)
        tip = queries.cursor(connection)
    _settlements(engine, tip, rows, each)
    engine.dispose()
    ids = [row["authorization"] for row in rows]
    usage = open_usage(home / "usage.db")
    with writing(usage) as connection:
        for id_ in ids:
            connection.execute(insert(leaves), list(_leaves(world, id_, each)))
    usage.dispose()
    return ids


def _settlements(engine: Engine, tip: queries.Cursor, rows: list[dict[str, Any]], each: int) -> None:
    """Blocks before the chain's own, with one settlement of every authorization in each: as if it were older."""
    empty = packing.compress(packing.pack([]))
    with writing(engine) as connection:
        for at in range(0, each, 500):
            blocks, settled = [], []
            for n in range(at, min(at + 500, each)):
                number, time_ = n + 1, tip.timestamp - (each - n) * 12
                blocks.append(
                    {
                        "number": number,
                        "hash": digest(f"block {n}"),
                        "timestamp": time_,
                        "log_count": len(rows),
                        "logs": empty,
                        "transactions": bytes(32 * 8),
                        "digest": bytes(32),
                    }
                )
                for index, row in enumerate(rows):
                    paid, signer = 50 * (n + 1), bytes(20)
                    units = (n + 1, 24 * (n + 1), 0, 0)
                    place = (number, index, index % 8, row["number"], schema.SETTLED, n + 1)
                    settled.append((*place, *units, 0, time_, bytes(32), paid, paid, signer, signer, 1))
            connection.execute(insert(schema.blocks), blocks)
            write_settlements(connection, settled)


def _leaves(world: World, id_: Hash32, each: int) -> Iterator[dict[str, Any]]:
    began = world.now() - each * 60
    for index in range(each):
        use = digest(f"{id_} {index}")
        leaf = UsageLeaf(
            authorization_id=id_,
            index=index,
            use_id_hash=use,
            units=(1, 24, 0, 0),
            cum_units=(index + 1, 24 * (index + 1), 0, 0),
            cum_credits=0,
            event_time=began + index * 60,
            served_at=began + index * 60,
            kind=Kind.REFUSAL if index % 50 == 49 else Kind.USE,
            purpose=index % 7,
            modality=1,
            version=world.version,
            payload_hash=use,
        )
        yield {
            "authorization": id_,
            "index": index,
            "use_id_hash": use,
            "leaf": leaf.encode(),
            "kind": leaf.kind,
            "purpose": leaf.purpose,
            "modality": leaf.modality,
            "request_hash": use,
            "salt": bytes(16),
            "payload": {"path": f"/v1/data/{world.version}", "query": {"limit": "24"}, "purpose": "RESEARCH"},
            "signature": "0x" + "ab" * 65,
        }


def _measure(world: World, base: str, ids: list[Hash32], each: int) -> dict[str, float]:
    now, some = int(time.time()), random.Random(1)
    party = world.consumer.address

    def settled(**asked: Any) -> tuple[str, dict[str, Any]]:
        return "/v1/settlements", {"limit": 100} | asked

    def uses(**asked: Any) -> tuple[str, dict[str, Any]]:
        return "/v1/uses", {"limit": 100, "authorization": some.choice(ids)} | asked

    kinds: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
        "authorizations": lambda: ("/v1/authorizations", {"limit": 100, "after": some.choice(ids)}),
        "authorizations of a party": lambda: ("/v1/authorizations", {"consumer": party, "after": some.choice(ids)}),
        "settlements": lambda: settled(after=f"{some.randrange(each)}:{some.randrange(200)}"),
        "settlements of a party": lambda: settled(consumer=party, after=f"{some.randrange(each)}:0"),
        "settlements of nobody": lambda: settled(consumer=hash_of(some.randbytes(32))[:42]),
        "settlements of a time": lambda: settled(first=now - some.randrange(each) * 12),
        "settlements of one": lambda: (
            f"/v1/authorizations/{some.choice(ids)}/settlements",
            {"limit": 100, "after": f"{some.randrange(each)}:0"},
        ),
        "uses": lambda: uses(first=some.randrange(each)),
        "uses by purpose": lambda: uses(purpose="PUBLIC_SAFETY", first=some.randrange(each)),
        "refusals": lambda: uses(kind="REFUSAL", first=some.randrange(each)),
        "uses of a time": lambda: uses(served_after=now - some.randrange(each) * 60),
        "sum of use by product of a time": lambda: (
            "/v1/aggregates/usage",
            {"by": "product", "first": now - some.randrange(each) * 12},
        ),
    }
    with httpx.Client(base_url=base, timeout=60) as client:
        client.headers.update(sign_in(client, world.consumer, world.deployment.chain_id))
        return {name: _p95(client, make) for name, make in kinds.items()}


def _p95(client: httpx.Client, make: Callable[[], tuple[str, dict[str, Any]]]) -> float:
    taken = []
    for _ in range(REQUESTS):
        path, asked = make()
        began = time.perf_counter()
        answer = client.get(path, params=asked)
        taken.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, answer.text
    return sorted(taken)[int(REQUESTS * 0.95)]
