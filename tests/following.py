"""A process that follows a chain until it is killed: database, node, deployment, and how far its clock is ahead.

It says so when it begins. Each start is given a later clock, so that it need not wait for the one before it to be
silent long enough.
"""

import sys
import time
from pathlib import Path

from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.mirror.store import open_mirror
from ledger.mirror.writer import Writer


def main(target: str, url: str, deployment: str, ahead: str) -> None:
    known = Deployment.load(Path(deployment))
    engine = open_mirror(target if "://" in target else Path(target), known)
    writer = Writer(engine, Chain(url), known, clock=lambda: time.time() + int(ahead))
    print("following", flush=True)
    while True:
        progress = writer.step()
        if progress.height >= progress.head:
            while writer.second_pass():
                pass


if __name__ == "__main__":
    main(*sys.argv[1:])
