"""`sluice demo`: run the exchange, serve what it left, and native coin on a local chain."""

import fcntl
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ledger.chain.client import Chain
from ledger.cli.app import App, pass_app
from ledger.cli.exchange import Demo
from ledger.cli.processes import PartyFailed, Processes
from ledger.core.errors import Conflict, NotFound, VerificationFailed
from ledger.core.ids import parse_address


@click.group()
def demo() -> None:
    """A whole exchange on a local chain, with real weather data."""


@demo.command(name="run")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/demo"), show_default=True)
@click.option("--uses", default=2000, show_default=True, type=click.IntRange(8))
@pass_app
def run_(app: App, folder: Path, uses: int) -> None:
    """Run the exchange from nothing, verify its audit bundle, stop everything.

    \b
    Example:  sluice demo run
    """
    with in_use(folder):
        _fresh(folder)
        Demo(app, folder, uses).run()


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """One demo or server a folder at a time. Raises Conflict if another is at it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"{folder} is in use by another demo or server; stop that first") from None
        yield


def _fresh(folder: Path) -> None:
    """An empty folder; what an earlier demo left is removed, anything else is not."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "logs").is_dir():
            raise VerificationFailed(f"{folder} is not a demo's folder; it is left as it is")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


@demo.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/demo"), show_default=True)
@click.option("--rpc-port", default=8545, show_default=True, help="0 for a free one.")
@click.option("--port", default=8480, show_default=True, help="0 for a free one.")
@pass_app
def serve(app: App, folder: Path, rpc_port: int, port: int) -> None:
    """Chain, mirror and API over what the demo left, until Ctrl-C.

    \b
    Example:  sluice demo serve
    """
    home = folder / "provider"
    if not (folder / "transactions.json").exists():  # written last
        raise NotFound(f"there is no finished demo in {folder}; run `sluice demo run` first")
    with in_use(folder), Processes(folder / "logs") as processes:
        rpc = processes.anvil(folder / "chain.json", rpc_port)
        command = [sys.executable, "-m", "api", "--home", str(home), "--rpc", rpc, "--port", str(port), "--json"]
        url = processes.server("api", command)

        def human() -> None:
            click.echo(f"链 chain       {rpc}")
            click.echo(f"接口 API       {url}/docs")
            click.echo(f"停止 stop      Ctrl-C\n试试 try       sluice --home {home} --api {url} authorization list")

        app.show({"rpc": rpc, "url": url}, human)
        try:
            while all(process.poll() is None for process in processes.running):
                time.sleep(0.5)
            raise PartyFailed(f"chain or server ended; see {folder / 'logs'}")
        except KeyboardInterrupt:
            app.note("停止 stopping")


@demo.command()
@click.argument("addresses", nargs=-1, required=True)
@pass_app
def faucet(app: App, addresses: tuple[str, ...]) -> None:
    """Give wallets native coin for gas, on a local chain (anvil) only.

    \b
    Example:  sluice --rpc http://127.0.0.1:8545 demo faucet 0x…
    """
    chain = Chain(app.settings.rpc, notice=app.note)
    for address in addresses:
        chain.rpc("anvil_setBalance", parse_address(address), hex(10**18))
    app.show({"funded": list(addresses)}, lambda: click.echo(f"✓ {len(addresses)} wallets have 1 coin each"))
