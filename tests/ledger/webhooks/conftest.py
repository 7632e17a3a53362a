"""A mirror with the events of a deployment, a receiver, and deliverers whose clock stands until it is moved."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from ledger.core.database import Target
from ledger.core.ids import Address
from ledger.mirror import journal
from ledger.mirror.follow import catch_up
from ledger.mirror.journal import BEGINNING, Offset
from ledger.mirror.store import open_mirror
from ledger.webhooks import schema, store
from ledger.webhooks.deliver import AT_A_TIME, Deliverer
from ledger.webhooks.store import Registration, open_webhooks, register
from tests.ledger.webhooks.receivers import Receiver, receiving
from tests.world import Key, World

OWNER = Key.named("consumer").address
BEGAN = 1_700_000_000


@dataclass
class Clock:
    now: float = BEGAN

    def __call__(self) -> float:
        return self.now


@dataclass
class Post:
    """The webhooks of one mirror, and whoever delivers them."""

    mirror: Engine
    webhooks: Engine
    chain_id: int
    clock: Clock = field(default_factory=Clock)
    deliverers: list[Deliverer] = field(default_factory=list)

    def deliverer(self, **options: Any) -> Deliverer:
        usual: dict[str, Any] = {"private": True, "clock": self.clock, "interval": 0.01}
        made = Deliverer(self.webhooks, self.mirror, self.chain_id, **usual | options)
        self.deliverers.append(made)
        return made

    def register(self, url: str, begin: Offset = BEGINNING, **wanted: Any) -> dict[str, Any]:
        """Wants everything from the beginning on, whether it is final or not."""
        options: dict[str, Any] = {"owner": OWNER, "url": url, "final": False}
        return register(self.webhooks, Registration(**options | wanted), begin, int(self.clock()), private=True)

    def row(self, webhook: dict[str, Any], owner: Address = OWNER) -> dict[str, Any]:
        with self.webhooks.connect() as connection:
            return store.one(connection, owner, webhook["webhook"])

    def leased_until(self, webhook: dict[str, Any]) -> int:
        table = schema.webhooks
        with self.webhooks.connect() as connection:
            query = select(table.c.leased_until).where(table.c.webhook == webhook["webhook"])
            return int(connection.execute(query).scalar_one())

    def offsets(self, **options: Any) -> list[str]:
        """Of everything there is to tell."""
        with self.mirror.connect() as connection:
            return [str(told.offset) for told in journal.read(connection, BEGINNING, 1000, **options).events]

    def work(self, deliverer: Deliverer) -> int:
        """One turn for each webhook that is due; how many events were delivered."""
        return sum(deliverer.work_on(webhook) for webhook in deliverer.due())

    def finish(self, deliverer: Deliverer) -> None:
        """Turn after turn, until nothing more is delivered."""
        while self.work(deliverer):
            pass


@pytest.fixture(scope="session")
def told(deployed: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A mirror with more events than are delivered in one turn. Nothing of them stays on the chain."""
    mirror = open_mirror(tmp_path_factory.mktemp("told") / "mirror.db", deployed.deployment)
    snapshot = deployed.chain.rpc("evm_snapshot")
    for n in range(AT_A_TIME // 2):
        deployed.publish(f"told {n}", b"")
    catch_up(mirror, deployed.chain, deployed.deployment)
    deployed.chain.rpc("evm_revert", snapshot)
    deployed.chain.rpc("anvil_setTime", int(time.time()))
    yield mirror
    mirror.dispose()


def posting(target: Target, mirror: Engine, world: World) -> Iterator[Post]:
    webhooks = open_webhooks(target, world.deployment)
    made = Post(mirror, webhooks, world.deployment.chain_id)
    yield made
    for deliverer in made.deliverers:
        deliverer.stop()
    webhooks.dispose()


@pytest.fixture
def post(deployed: World, told: Engine, tmp_path: Path) -> Iterator[Post]:
    yield from posting(tmp_path / "webhooks.db", told, deployed)


@pytest.fixture
def anywhere(deployed: World, told: Engine, database: Target) -> Iterator[Post]:
    """On each kind of database."""
    yield from posting(database, told, deployed)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made
