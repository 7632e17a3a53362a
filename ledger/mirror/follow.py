"""Keeping the mirror at the chain's head: once, or in a thread for as long as a server runs."""

import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine

from ledger.chain.client import Chain, NodeDown
from ledger.chain.deploy import Deployment
from ledger.core.errors import MirrorError, SluiceError
from ledger.mirror.writer import FinalityViolated, Progress, StandingBy, Writer


def step(engine: Engine, chain: Chain, deployment: Deployment, until: int | None = None) -> Progress:
    """One step of a writer that comes and goes."""
    writer = Writer(engine, chain, deployment)
    try:
        return writer.step(until)
    finally:
        writer.close()


def catch_up(
    engine: Engine,
    chain: Chain,
    deployment: Deployment,
    tell: Callable[[Progress], None] = lambda _: None,
    until: int | None = None,
) -> Progress:
    """Steps until the mirror stands at the chain's head, or at block `until`; another writer may do the steps."""
    writer = Writer(engine, chain, deployment)
    try:
        while True:
            try:
                progress = writer.step(until)
            except StandingBy:
                progress = writer.others(until)
                tell(progress)
                if progress.height >= progress.head:
                    return progress
                time.sleep(0.02)
                continue
            tell(progress)
            if progress.height >= progress.head and not progress.rewound:
                return progress
            if not progress.applied and not progress.rewound:
                time.sleep(0.05)  # the node has a head and not yet its blocks
    finally:
        writer.close()


class Follower:
    """A thread that keeps the mirror at the head.

    `state` is `starting`, `following`, `standing_by`, `node_down`, `violated` or `stopped`.
    """

    def __init__(
        self,
        engine: Engine,
        chain: Chain,
        deployment: Deployment,
        interval: float = 0.1,
        final_depth: int | None = None,
    ) -> None:
        self._engine, self._chain, self._deployment, self._interval = engine, chain, deployment, interval
        self.writer = Writer(engine, chain, deployment, final_depth=final_depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self.state = "starting"
        self.problem: SluiceError | None = None
        self.progress: Progress | None = None
        self.checked_at = 0.0  # time.time() of the last answer from the node

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self.writer.close()

    def well(self) -> bool:
        """Alive, and within the last ten seconds answered by the node, or by another writer's sign of life."""
        keeping = self.state in ("following", "standing_by")
        return keeping and self._thread.is_alive() and time.time() - self.checked_at < 10

    def _run(self) -> None:
        checked = False
        while not self._stop.is_set():
            try:
                if not checked:
                    self._deployment.check(self._chain)
                    checked = True
                self.progress = self.writer.step()
                self.state, self.problem, self.checked_at = "following", None, time.time()
                if self.progress.height < self.progress.head:
                    continue
                while self.writer.second_pass() and not self._stop.is_set():
                    pass
            except NodeDown as problem:
                # Reads go on as of the last block. The node may come back as another: check again then.
                self.state, self.problem, checked = "node_down", problem, False
            except StandingBy as problem:
                self.state, self.problem, self.checked_at = "standing_by", problem, time.time()
            except FinalityViolated as problem:
                self.state, self.problem = "violated", problem
            except SluiceError as problem:
                # Named, kept and shown; tried again, never passed over.
                self.state, self.problem = "stopped", problem
            except Exception as problem:
                # Not foreseen: a node that answers nonsense, another writer, our own mistake. The thread must not end
                # in silence while readers are told that all is well.
                self.state, self.problem = "stopped", MirrorError(f"{type(problem).__name__}: {problem}")
            self._stop.wait(self._interval if self.state == "following" else 1.0)
