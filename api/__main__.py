"""`sluice-api`: follow the chain and serve the API, on loopback.

Example:  sluice-api --home build/sluice --rpc http://127.0.0.1:8545 --port 8480
"""

import argparse
import json
import sys

from fastapi import FastAPI

from api.app import create_app
from api.deps import State
from api.observe import log_json
from api.sessions import Sessions, open_sessions
from api.tips import Tips
from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.config import settings
from ledger.core import loopback
from ledger.core.errors import SluiceError
from ledger.metering.log import open_usage
from ledger.mirror.follow import Follower
from ledger.mirror.store import open_mirror
from ledger.webhooks.store import open_webhooks


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
    parser.add_argument("--origin", help="this server as its readers see it, https://ledger.example; for signing in")
    parser.add_argument("--proxy", action="store_true", help="behind a reverse proxy: X-Forwarded-For names the reader")
    parser.add_argument(
        "--rate", type=float, default=100, help="requests a second of one reader, 0: no limit (default 100)"
    )
    parser.add_argument(
        "--private-webhooks", action="store_true", help="webhooks may go to plain HTTP and one's own network"
    )
    parser.add_argument("--log", action="store_true", help="a line of JSON for each request, to stderr")
    parser.add_argument("--json", action="store_true", help="say where it listens as JSON")
    options = parser.parse_args()
    log_json("INFO" if options.log else "WARNING")
    # Reads run in threads beside the event loop: each of the two gives way to the other more often than it would.
    sys.setswitchinterval(0.0005)
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
        webhooks, opened = open_webhooks(here.webhooks, deployment), open_sessions(here.sessions, deployment)
        chain = Chain(here.rpc, notice=tell)

        def make(url: str) -> FastAPI:
            origin = options.origin.rstrip("/") if options.origin else url
            state = State(
                mirror=mirror,
                usage=usage,
                webhooks=webhooks,
                sessions=Sessions(opened, chain, deployment.chain_id, origin),
                chain=chain,
                deployment=deployment,
                follower=follower,
                tips=Tips(mirror),
                origin=origin,
                rate=options.rate,
                private_webhooks=options.private_webhooks,
            )
            return create_app(state)

        loopback.run(make, options.port, ready, proxy=options.proxy)
    except SluiceError as problem:
        tell(f"✗ {problem.message} [{problem.code}]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
