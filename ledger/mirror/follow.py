"""Following the chain: fetch by block hash, check the parent, apply in one transaction, rewind on a reorg.

A crash costs a re-read and nothing else: block, logs, rows and position are one transaction. A log of our own
contracts that cannot be decoded stops the mirror; nothing is skipped.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, delete, func, insert, select

from ledger.chain.client import Chain, NodeDown, NodeError
from ledger.chain.decode import decode_log
from ledger.chain.deploy import Deployment
from ledger.core.database import open_database, writing
from ledger.core.errors import MirrorError, SluiceError
from ledger.core.events import Block, Log
from ledger.core.ids import Address
from ledger.mirror import queries, schema
from ledger.mirror.apply import apply_block

BATCH = 64  # blocks a request


class DeploymentDiffers(MirrorError):
    """The mirror's file belongs to another deployment."""

    code = "deployment_differs"


class ReorgTooDeep(MirrorError):
    """Not even the first mirrored block is on the chain any more."""

    code = "reorg_too_deep"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did. `head` is the chain's height, `height` the mirror's."""

    height: int
    head: int
    applied: int
    rewound: int


def open_mirror(path: Path, deployment: Deployment) -> Engine:
    """Opens or creates the mirror of this deployment. Raises DeploymentDiffers if the file mirrors another."""
    engine = open_database(path, schema.metadata, schema.SCHEMA_VERSION)
    with writing(engine) as connection:
        known = connection.execute(select(schema.deployment.c.document)).scalar()
        if known is None:
            connection.execute(insert(schema.deployment).values(id=1, document=deployment.as_json()))
        elif known != deployment.as_json():
            raise DeploymentDiffers(f"{path} mirrors another deployment; use another file or remove it", path=str(path))
    return engine


def step(engine: Engine, chain: Chain, deployment: Deployment, until: int | None = None) -> Progress:
    """Applies up to BATCH blocks, none after `until`, after rewinding to the last shared one."""
    head = chain.block("latest" if until is None else until)
    if head is None:
        raise NodeError(f"the node has no block {'latest' if until is None else until}")
    rewound = _rewind_to_shared(engine, chain)
    tip = _tip(engine)
    first = tip.number + 1 if tip else deployment.block
    if first > head.number:
        return Progress(tip.number if tip else -1, head.number, 0, rewound)
    blocks = chain.blocks(first, min(head.number, first + BATCH - 1))
    names = deployment.names()
    every = chain.logs(blocks, list(deployment.contracts.values()))
    applied = 0
    with writing(engine) as connection:
        if queries.position(connection) != tip:
            # Another writer was faster: what was read here no longer follows on the mirror's last block.
            return Progress(tip.number if tip else -1, head.number, 0, rewound)
        for block, found in zip(blocks, every, strict=True):
            if tip is not None and block.parent_hash != tip.hash:
                break  # the chain moved under us: the next step rewinds
            _check(block, found, names)
            apply_block(connection, block, [decode_log(log, names) for log in found])
            tip = block
            applied += 1
    return Progress(tip.number if tip else -1, head.number, applied, rewound)


def _check(block: Block, found: Sequence[Log], names: Mapping[Address, str]) -> None:
    """What the node returned must be this block's logs of our contracts, in order."""
    indices = [log.log_index for log in found]
    foreign = any(log.block_hash != block.hash or log.address not in names for log in found)
    if foreign or indices != sorted(set(indices)):
        raise NodeError(f"the node returned logs that are not block {block.number}'s")


def _tip(engine: Engine) -> Block | None:
    with engine.connect() as connection:
        return queries.position(connection)


def _rewind_to_shared(engine: Engine, chain: Chain) -> int:
    """Goes back to the last block that is still on the chain; returns how many blocks were undone."""
    tip = _tip(engine)
    if tip is None:
        return 0
    with engine.connect() as connection:
        rows = connection.execute(select(schema.blocks).order_by(schema.blocks.c.number.desc()))
        for row in rows:
            block = chain.block(row.number)
            if block is not None and block.hash == row.hash:
                shared = row.number
                break
        else:
            first = connection.execute(select(func.min(schema.blocks.c.number))).scalar_one()
            raise ReorgTooDeep(f"block {first}, the mirror's first, is not on the chain; is it the same chain?")
    if shared < tip.number:
        with writing(engine) as connection:
            schema.rewind(connection, shared)
    return int(tip.number - shared)


def catch_up(
    engine: Engine,
    chain: Chain,
    deployment: Deployment,
    tell: Callable[[Progress], None] = lambda _: None,
    until: int | None = None,
) -> Progress:
    """Steps until the mirror stands at the chain's head, or at block `until`."""
    while True:
        progress = step(engine, chain, deployment, until)
        tell(progress)
        if progress.height >= progress.head:
            return progress
        if not progress.applied:
            time.sleep(0.05)  # the node has a head and not yet its blocks


def heartbeat(engine: Engine) -> None:
    """Notes that the mirror stood at the head now: who serves by the mirror must know how old it may be."""
    with writing(engine) as connection:
        connection.execute(delete(schema.watch))
        connection.execute(insert(schema.watch).values(id=1, checked_at=int(time.time())))


class Follower:
    """A thread that keeps the mirror at the head. `state` is `starting`, `following`, `node_down` or `stopped`."""

    def __init__(self, engine: Engine, chain: Chain, deployment: Deployment, interval: float = 0.1) -> None:
        self._engine, self._chain, self._deployment, self._interval = engine, chain, deployment, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self.state = "starting"
        self.problem: SluiceError | None = None
        self.progress: Progress | None = None
        self.checked_at = 0.0  # time.time() of the last answer from the node
        self._safe = self._final = -1  # heights

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def well(self) -> bool:
        """Following, alive, and answered by the node within the last ten seconds."""
        return self.state == "following" and self._thread.is_alive() and time.time() - self.checked_at < 10

    def finality(self, height: int) -> str:
        """`seen`, `safe` or `final`, as far as the node says."""
        return "final" if height <= self._final else "safe" if height <= self._safe else "seen"

    def _ask_finality(self) -> None:
        safe, final = self._chain.block("safe"), self._chain.block("finalized")
        self._safe, self._final = safe.number if safe else -1, final.number if final else -1

    def _run(self) -> None:
        checked, beat = False, 0.0
        while not self._stop.is_set():
            try:
                if not checked:
                    self._deployment.check(self._chain)
                    checked = True
                self.progress = step(self._engine, self._chain, self._deployment)
                self.state, self.problem, self.checked_at = "following", None, time.time()
                if self.progress.height < self.progress.head:
                    continue
                if self.progress.applied or self.progress.rewound:
                    self._ask_finality()
                if self.checked_at - beat >= 1:
                    heartbeat(self._engine)
                    beat = self.checked_at
            except NodeDown as problem:
                # Reads go on as of the last block. The node may come back as another: check again then.
                self.state, self.problem, checked = "node_down", problem, False
            except SluiceError as problem:
                # Named, kept and shown; tried again, never passed over.
                self.state, self.problem = "stopped", problem
            except Exception as problem:
                # Not foreseen: a node that answers nonsense, another writer, our own mistake. The thread must not end
                # in silence while readers are told that all is well.
                self.state, self.problem = "stopped", MirrorError(f"{type(problem).__name__}: {problem}")
            self._stop.wait(self._interval if self.state == "following" else 1.0)
