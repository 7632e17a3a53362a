"""`sluice-api`: follow the chain and serve the API, on loopback.

Example:  sluice-api --home build/sluice --rpc http://127.0.0.1:8545 --port 8480
"""

import argparse
import json
import sys

from api.app import create_app
from api.deps import State
from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.config import settings
from ledger.core import loopback
from ledger.core.errors import SluiceError
from ledger.metering.log import open_usage
from ledger.mirror.follow import Follower, open_mirror


def main() -> int:
    parser = argparse.ArgumentParser(prog="sluice-api", description=__doc__)
    parser.add_argument("--home", help="folder with deployment.json, mirror.db and usage.db [SLUICE_HOME]")
    parser.add_argument("--rpc", help="the node's JSON-RPC [SLUICE_RPC]")
    parser.add_argument("--port", type=int, default=8480, help="0 for a free one (default 8480)")
    parser.add_argument(
        "--final-depth",
        type=int,
        help="blocks below the head that are final, where the node does not know `finalized`; 0: instant finality",
    )
    parser.add_argument("--json", action="store_true", help="say where it listens as JSON")
    options = parser.parse_args()
    here = settings(options.home, options.rpc)

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def ready(url: str) -> None:
        print(json.dumps({"url": url, "what": "API"}) if options.json else f"✓ API at {url}/docs", flush=True)

    try:
        deployment = Deployment.load(here.deployment)
        mirror = open_mirror(here.mirror, deployment)
        usage = open_usage(here.usage)
        follower = Follower(mirror, Chain(here.rpc, attempts=1), deployment, final_depth=options.final_depth)
        state = State(mirror, usage, Chain(here.rpc, notice=tell), deployment, follower)
        loopback.run(lambda _: create_app(state), options.port, ready)
    except SluiceError as problem:
        tell(f"✗ {problem.message} [{problem.code}]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
