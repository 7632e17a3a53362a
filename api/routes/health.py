"""Is the server well, and how fresh is what it says? For people, for what restarts it, and for Prometheus."""

import time
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from api import schemas
from api.deps import State, StateDep
from api.problems import PROBLEMS, READ
from api.reading import ReadDep, View, run
from ledger.mirror import queries

router = APIRouter(tags=["health"])

BEHIND = 10  # blocks behind the chain with which it is still ready
READY = ("following", "standing_by")  # standing by, another process writes what this one reads


@router.get(
    "/v1/health",
    summary="State of node and mirror; 503 while reads are old",
    responses=PROBLEMS | {503: {"model": schemas.Health, "description": "reads are old"}},
)
async def health(here: StateDep, response: Response) -> schemas.Health:
    follower, tip = here.follower, await here.tips.now()
    if not follower.well():
        response.status_code = 503
    problem = follower.problem
    return schemas.Health(
        status="ok" if follower.well() else "degraded",
        mirror=follower.state,
        chain_id=here.deployment.chain_id,
        block=None if tip.empty else tip.number,
        block_hash=None if tip.empty else tip.hash,
        safe=tip.safe,
        final=tip.final,
        checked_again=tip.checked,
        head=follower.progress.head if follower.progress else None,
        node_answered_seconds_ago=round(time.time() - follower.checked_at, 1) if follower.checked_at else None,
        finality_violated=tip.violated,
        problem=schemas.HealthProblem(code=problem.code, detail=problem.message) if problem is not None else None,
    )


@router.get("/health/live", summary="The process answers")
async def live() -> schemas.Live:
    return schemas.Live(status="ok")


@router.get(
    "/health/ready",
    summary="Reads are fresh: 503 while the mirror is behind, latched or cut off",
    responses={503: {"model": schemas.Ready, "description": "why it is not ready"}},
)
async def ready(here: StateDep, response: Response) -> schemas.Ready:
    reasons = await _not_ready(here)
    if reasons:
        response.status_code = 503
    return schemas.Ready(status="not ready" if reasons else "ready", reasons=reasons)


async def _not_ready(here: State) -> list[str]:
    follower, tip = here.follower, await here.tips.now()
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


@router.get(
    "/v1/digest",
    summary="One hash for all that is mirrored, now or at a block: equal for equal contents",
    response_model=schemas.DigestAt,
    responses=READ,
)
async def digest(read: ReadDep, here: StateDep) -> Response:
    def make(view: View) -> schemas.DigestAt:
        block = view.tip.number if view.at_block is None else view.at_block
        found = view.tip.digest if block == view.tip.number else queries.digest_at(view.db, here.deployment, block)
        return schemas.DigestAt(block=block, digest="0x" + found.hex())

    return await read.one(make, keep=False)


@router.get("/metrics", summary="For Prometheus", include_in_schema=False)
async def metrics(here: StateDep, request: Request) -> Response:
    registry: CollectorRegistry = request.app.state.registry
    text = await run(here, lambda: generate_latest(registry))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


class Mirror(Collector):
    """What the mirror says of itself."""

    def __init__(self, here: State) -> None:
        self._here = here

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is known before it is asked for; without this, registering would ask."""
        return iter(())

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
