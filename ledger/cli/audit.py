"""`sluice audit`: bundles that anyone can check alone."""

from pathlib import Path

import click
from rich.progress import Progress

from ledger.audit.export import export as export_bundle
from ledger.audit.verify import tell
from ledger.audit.verify import verify as verify_bundle
from ledger.cli.app import App, pass_app
from ledger.core.ids import parse_hash
from ledger.metering.log import open_usage
from ledger.mirror.store import open_mirror


@click.group()
def audit() -> None:
    """Audit bundles 审计包: taken away, checked alone."""


@audit.command()
@click.option("--authorization", "authorizations", multiple=True, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new folder.")
@pass_app
def export(app: App, authorizations: tuple[str, ...], output: Path) -> None:
    """Write a bundle over authorizations, from this home's mirror and usage log.

    \b
    Example:  sluice --home build/sluice audit export --authorization 0x… -o audit-2026-07
    """
    wanted = [parse_hash(a, "authorization") for a in authorizations]
    usage = open_usage(app.settings.usage)
    mirror = open_mirror(app.settings.mirror, app.deployment)
    with mirror.connect() as chain, usage.connect() as log, Progress(console=app.console, disable=app.as_json) as bar:
        task = bar.add_task("exporting 导出中", total=len(wanted))
        export_bundle(output, chain, log, app.deployment.as_json(), wanted, lambda _: bar.advance(task))
    files = sum(path.is_file() for path in output.rglob("*"))
    app.show({"folder": str(output), "files": files}, lambda: click.echo(f"✓ {output}, {files} files"))


@audit.command()
@click.argument("folder", type=click.Path(path_type=Path))
@pass_app
def verify(app: App, folder: Path) -> None:
    """Check a bundle: no node, no database. Exit code 1 if anything does not hold.

    \b
    Example:  sluice audit verify audit-2026-07
              python -m ledger.audit.verify audit-2026-07
    """
    report = verify_bundle(folder)
    app.show(report.as_json(), lambda: tell(report, click.echo))
    if report.faults:
        raise click.exceptions.Exit(1)
