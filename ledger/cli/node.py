"""`sluice deploy`, `mirror`, `db`, `tx`: the machines behind an exchange."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress
from sqlalchemy import Engine

from ledger.chain.client import Chain
from ledger.chain.deploy import deploy
from ledger.cli.app import App, pass_app
from ledger.core.errors import Conflict, VerificationFailed
from ledger.core.ids import parse_hash
from ledger.mirror import queries
from ledger.mirror.follow import catch_up
from ledger.mirror.fsck import fsck
from ledger.mirror.store import open_mirror, rebuilding, take_over, upgrade
from ledger.mirror.verify import verify
from ledger.mirror.writer import Progress as MirrorProgress


@click.command(name="deploy")
@click.option("--demo-token", is_flag=True, help="Also put play money there (local chains only).")
@pass_app
def deploy_command(app: App, demo_token: bool) -> None:
    """Put the contracts on a chain and write deployment.json. Never replaces one.

    \b
    Example:  sluice --home build/sluice --rpc http://127.0.0.1:8545 --wallet operator.json deploy --demo-token
    """
    path = app.settings.deployment
    if path.exists():
        raise Conflict(f"{path} exists already; a deployment is never replaced")
    chain = Chain(app.settings.rpc, notice=app.note)
    made: dict[str, Any] = {}

    def told(name: str, receipt: Any) -> None:
        made[name] = {"transaction": receipt.transaction, "gasUsed": receipt.gas_used}
        if not app.as_json:
            click.echo(f"✓ {name:<16} {receipt.contract}  gas {receipt.gas_used:,}")

    deployment = deploy(chain, app.address, app.wallet.sign_transaction, demo_token=demo_token, notice=told)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(deployment.as_json(), indent=1) + "\n")
    result = deployment.as_json() | {"file": str(path), "transactions": made}
    app.show(result, lambda: click.echo(f"✓ {path}"))


@click.group()
def mirror() -> None:
    """The mirror 镜像库 of the chain: status, rebuild, check, prove."""


@mirror.command()
@pass_app
def status(app: App) -> None:
    """Where the mirror stands, from the server.

    \b
    Example:  sluice mirror status
    """
    app.show(app.get("/v1/health"))


@mirror.command()
@pass_app
def rebuild(app: App) -> None:
    """Build the mirror anew from the chain; the old one is kept beside it. Stop `sluice-api` first.

    \b
    Example:  sluice --home build/sluice --rpc http://127.0.0.1:8545 mirror rebuild
    """
    target, deployment = app.settings.mirror, app.deployment
    chain = Chain(app.settings.rpc, notice=app.note)
    deployment.check(chain)
    if isinstance(target, Path):
        digest, height = _rebuild_file(app, target, chain)
    else:
        digest, height = _build(app, rebuilding(target, deployment), chain)
        take_over(target, deployment)
    app.show({"block": height, "digest": digest}, lambda: click.echo(f"✓ rebuilt to block {height}, {digest}"))


def _rebuild_file(app: App, path: Path, chain: Chain) -> tuple[str, int]:
    fresh = path.with_suffix(".rebuilt.db")
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    made = _build(app, open_mirror(fresh, app.deployment), chain)
    if path.exists():
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(path.with_name(f"{path.stem}.old.db{suffix}"))
    fresh.rename(path)
    return made


@mirror.command(name="fsck")
@pass_app
def fsck_command(app: App) -> None:
    """Rebuild the mirror beside itself with another reader, and compare every row and digest. Only reads.

    \b
    Example:  sluice --home build/sluice --rpc http://127.0.0.1:8545 mirror fsck
    """
    chain = Chain(app.settings.rpc, notice=app.note)
    app.deployment.check(chain)
    engine = open_mirror(app.settings.mirror, app.deployment)
    with _bar(app) as tell:
        found = fsck(engine, chain, app.deployment, tell)
    engine.dispose()
    if found.differences:
        first = found.differences[0]
        raise VerificationFailed(
            f"{len(found.differences)} rows differ from the chain, the first is {first.table} {first.key}",
            differences=[{"table": d.table, "key": [str(k) for k in d.key]} for d in found.differences],
        )
    answer = {"holds": True, "block": found.block, "digest": found.digest, "rows": found.rows}
    app.show(answer, lambda: click.echo(f"✓ block {found.block}, {found.rows} rows, {found.digest}"))


@mirror.command(name="verify")
@click.option("--samples", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Rows of each kind.")
@pass_app
def verify_command(app: App, samples: int) -> None:
    """Prove a sample of the mirror's rows from the contracts' storage, under the block's state root.

    \b
    Example:  sluice --home build/sluice --rpc http://127.0.0.1:8545 mirror verify --samples 500
    """
    chain = Chain(app.settings.rpc, notice=app.note)
    app.deployment.check(chain)
    engine = open_mirror(app.settings.mirror, app.deployment)
    with engine.connect() as connection:
        found = verify(connection, chain, app.deployment, samples)
    engine.dispose()
    if found.differences:
        what, mine, there = found.differences[0]
        raise VerificationFailed(f"{len(found.differences)} of {found.words} words differ: {what}: {mine}, not {there}")
    answer = {"holds": True, "block": found.block, "words": found.words, "headerHashed": found.header_hashed}
    app.show(answer, lambda: click.echo(f"✓ block {found.block}, {found.words} storage words proved"))


@click.group(name="db")
def database() -> None:
    """The mirror's database 数据库: a SQLite file, or PostgreSQL by SLUICE_DATABASE."""


@database.command(name="upgrade")
@pass_app
def upgrade_command(app: App) -> None:
    """Bring the mirror's tables up to date with this version. Stop `sluice-api` first.

    \b
    Example:  sluice --home build/sluice db upgrade
    """
    before, now = upgrade(app.settings.mirror, app.deployment)
    said = f"✓ {before or 'nothing'} → {now}" if before != now else f"✓ {now} already"
    app.show({"before": before, "now": now}, lambda: click.echo(said))


@contextmanager
def _bar(app: App) -> Iterator[Callable[[MirrorProgress], None]]:
    with Progress(console=app.console, disable=app.as_json) as bar:
        task = bar.add_task("reading the chain 读链中", total=None)

        def tell(p: MirrorProgress) -> None:
            first = app.deployment.block
            bar.update(task, completed=p.height - first, total=p.head - first)

        yield tell


def _build(app: App, engine: Engine, chain: Chain) -> tuple[str, int]:
    with _bar(app) as tell:
        catch_up(engine, chain, app.deployment, tell)
    found = queries.contents_digest(engine)
    engine.dispose()
    return found


@click.command(name="tx")
@click.argument("transaction_hash")
@pass_app
def transaction(app: App, transaction_hash: str) -> None:
    """What became of a transaction.

    \b
    Example:  sluice tx 0x…
    """
    app.show(app.get(f"/v1/transactions/{parse_hash(transaction_hash, 'transaction')}"))
