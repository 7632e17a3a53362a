"""Is the server well, and how fresh is what it says?"""

import time
from typing import Any

from fastapi import APIRouter, Response

from api.deps import StateDep
from ledger.mirror import queries

router = APIRouter(prefix="/v1", tags=["health"])


@router.get("/health", summary="State of node and mirror; 503 while reads are old")
def health(here: StateDep, response: Response) -> dict[str, Any]:
    follower = here.follower
    with here.mirror.connect() as connection:
        tip = queries.position(connection)
    answer: dict[str, Any] = {
        "status": "ok" if follower.well() else "degraded",
        "mirror": follower.state,
        "chainId": here.deployment.chain_id,
        "block": tip.number if tip else None,
        "blockHash": tip.hash if tip else None,
        "head": follower.progress.head if follower.progress else None,
        "nodeAnsweredSecondsAgo": round(time.time() - follower.checked_at, 1) if follower.checked_at else None,
    }
    if follower.problem is not None:
        answer["problem"] = {"code": follower.problem.code, "detail": follower.problem.message}
    if not follower.well():
        response.status_code = 503
    return answer
