"""One catch-up of a mirror in a process of its own: `python -m bench.follow URL deployment.json DATABASE FIRST`.

Mirrors everything before block FIRST, then measures the rest; prints seconds, the digest and the most memory it took.
"""

import json
import resource
import sys
import time
from pathlib import Path

from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.mirror import queries
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror


def main() -> None:
    url, deployment_file, database, first = sys.argv[1:5]
    deployment = Deployment.load(Path(deployment_file))
    engine = open_mirror(database if "://" in database else Path(database), deployment)
    catch_up(engine, Chain(url), deployment, until=int(first) - 1)
    began = time.perf_counter()
    catch_up(engine, Chain(url), deployment)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(200):
        digest, block = queries.contents_digest(engine)
    answer = {
        "seconds": seconds,
        "digest": digest,
        "block": block,
        "digestMs": (time.perf_counter() - began) / 200 * 1000,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
