"""Is the server well, and how fresh is what it says? For people, for what restarts it, and for Prometheus."""

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from api.deps import MirrorDep, State, StateDep
from api.routes.registries import AtBlock
from ledger.mirror import queries

router = APIRouter(tags=["health"])

BEHIND = 10  # blocks behind the chain with which it is still ready
READY = ("following", "standing_by")  # standing by, another process writes what this one reads


@router.get("/v1/health", summary="State of node and mirror; 503 while reads are old")
def health(here: StateDep, response: Response) -> dict[str, Any]:
    follower = here.follower
    with here.mirror.connect() as connection:
        tip = queries.cursor(connection)
    answer: dict[str, Any] = {
        "status": "ok" if follower.well() else "degraded",
        "mirror": follower.state,
        "chainId": here.deployment.chain_id,
        "block": None if tip.empty else tip.number,
        "blockHash": None if tip.empty else tip.hash,
        "safe": tip.safe,
        "final": tip.final,
        "checkedAgain": tip.checked,
        "head": follower.progress.head if follower.progress else None,
        "nodeAnsweredSecondsAgo": round(time.time() - follower.checked_at, 1) if follower.checked_at else None,
    }
    if tip.violated is not None:
        answer["finalityViolated"] = tip.violated
    if follower.problem is not None:
        answer["problem"] = {"code": follower.problem.code, "detail": follower.problem.message}
    if not follower.well():
        response.status_code = 503
    return answer


@router.get("/health/live", summary="The process answers")
def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/health/ready", summary="Reads are fresh: 503 while the mirror is behind, latched or cut off")
def ready(here: StateDep, response: Response) -> dict[str, Any]:
    reasons = _not_ready(here)
    if reasons:
        response.status_code = 503
    return {"status": "not ready" if reasons else "ready", "reasons": reasons}


def _not_ready(here: State) -> list[str]:
    follower = here.follower
    with here.mirror.connect() as connection:
        tip = queries.cursor(connection)
    reasons = []
    if follower.state not in READY:
        reasons.append(f"the mirror is {follower.state}")
    if tip.violated is not None:
        reasons.append("finality was violated")
    if tip.empty:
        reasons.append("nothing is mirrored yet")
    if follower.progress is not None and follower.progress.head - tip.number > BEHIND:
        reasons.append(f"the mirror is {follower.progress.head - tip.number} blocks behind")
    if time.time() - tip.checked_at > 30:
        reasons.append("the mirror has not stood at the head for 30 seconds")
    return reasons


@router.get("/v1/digest", summary="One hash for all that is mirrored, now or at a block: equal for equal contents")
def digest(here: StateDep, db: MirrorDep, at_block: AtBlock = None) -> dict[str, Any]:
    tip = queries.cursor(db)
    block = tip.number if at_block is None else min(at_block, tip.number)
    found = tip.digest if block == tip.number else queries.digest_at(db, here.deployment, block)
    return {"block": block, "digest": "0x" + found.hex()}


@router.get("/metrics", summary="For Prometheus", include_in_schema=False)
def metrics(here: StateDep) -> Response:
    registry = CollectorRegistry()
    registry.register(_Mirror(here))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Mirror(Collector):
    def __init__(self, here: State) -> None:
        self._here = here

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        follower = self._here.follower
        with self._here.mirror.connect() as connection:
            tip = queries.cursor(connection)
        head = follower.progress.head if follower.progress else tip.number
        gauges = {
            "block": ("the last mirrored block", tip.number),
            "final_block": ("the last final block", tip.final),
            "checked_block": ("up to here the second pass has read again", tip.checked),
            "lag_blocks": ("blocks behind the chain's head", max(0, head - tip.number)),
            "lag_seconds": ("seconds since it stood at the head", max(0.0, time.time() - tip.checked_at)),
            "latched": ("1 while finality is violated", int(tip.violated is not None)),
            "following": ("1 while this process writes the mirror", int(follower.state == "following")),
        }
        for name, (words, value) in gauges.items():
            yield GaugeMetricFamily(f"sluice_mirror_{name}", words, value=value)
        counts = {
            "reorgs": "reorgs followed",
            "rewound": "blocks undone by reorgs",
            "short": "short answers of the node that the second pass saw",
        }
        for name, words in counts.items():
            yield CounterMetricFamily(f"sluice_mirror_{name}", words, value=follower.writer.counts[name])
        words = "blocks that the second pass repaired"
        yield CounterMetricFamily("sluice_mirror_differences", words, value=tip.differences)
