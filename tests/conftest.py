"""One chain a test process, deployed once; every test starts from the same state of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.core.database import Target
from tests.databases import fresh_database, postgres_server
from tests.exchange import Exchange, exchange
from tests.world import World


@pytest.fixture(scope="session")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    with Processes(folder / "logs") as processes:
        yield Chain(processes.anvil(folder / "state.json"))


@pytest.fixture(scope="session")
def deployed(anvil: Chain) -> World:
    return World.on(anvil)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    """The deployed world; what the test does is undone after it."""
    snapshot = deployed.chain.rpc("evm_snapshot")
    yield deployed
    deployed.chain.rpc("evm_revert", snapshot)
    # Undoing also turns the chain's clock back to the snapshot's time.
    deployed.chain.rpc("anvil_setTime", int(time.time()))


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """A world on a chain of its own, for what rewinds it: anvil's reorgs and its snapshots do not mix."""
    with Processes(tmp_path / "logs") as processes:
        yield World.on(Chain(processes.anvil(tmp_path / "state.json", slots=32)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this test process's own; its URL.

    Not in pytest's folder: as root the server runs as another user, and every pytest that begins shuts that folder to
    others.
    """
    with TemporaryDirectory(prefix="sluice-postgres-") as folder, postgres_server(Path(folder) / "data") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """An empty database, of each kind."""
    if request.param == "sqlite":
        return tmp_path / "database.db"
    server: str = request.getfixturevalue("postgres")
    return fresh_database(server)


@pytest.fixture
def vectors() -> Path:
    return Path(__file__).parent / "vectors"


@pytest.fixture
def running(world: World, tmp_path: Path) -> Iterator[Exchange]:
    """An exchange over the world: mirror, gateway, consumer."""
    before = (world.product, world.version)
    with exchange(world, tmp_path) as made:
        yield made
    world.product, world.version = before
