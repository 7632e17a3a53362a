"""`sluice settle`: heads to the chain."""

from pathlib import Path

import click

from ledger.chain.decode import decode_revert
from ledger.cli.app import App, pass_app
from ledger.cli.head import settlement
from ledger.core.ids import raw
from ledger.core.money import format_yuan
from ledger.metering.log import open_usage


@click.group()
def settle() -> None:
    """Settlement 结算: the contract prices the units and pays."""


def _shown(app: App, done: dict[str, object]) -> None:
    events = done["events"]
    assert isinstance(events, list)
    settled = [e["args"] for e in events if e["event"] == "Settled"]
    skipped = [
        {"row": e["args"]["row"], "reason": decode_revert(raw(e["args"]["problem"])).sentence}
        for e in events
        if e["event"] == "SettlementSkipped"
    ]
    more: dict[str, object] = {"settled": settled, "skipped": skipped}
    if app.as_json:
        app.show(done | more)
        return
    lines = {}
    for args in settled:
        lines["due"] = f"{format_yuan(int(args['due']))} CNY"
        lines["paid"] = f"{format_yuan(int(args['paid']))} CNY"
        lines["arrears"] = f"{format_yuan(int(args['arrears']))} CNY"
    for row in skipped:
        lines[f"skipped {row['row']}"] = str(row["reason"])
    app.show_write(done, **lines)


@settle.command()
@click.argument("authorization")
@pass_app
def one(app: App, authorization: str) -> None:
    """Settle the newest head of this home's usage log that both signed.

    \b
    Example:  sluice --wallet provider.json settle one 0x…
    """
    wanted, terms = app.terms(authorization)
    row = app.get(f"/v1/authorizations/{wanted}")
    usage = open_usage(app.settings.usage)
    made = settlement(usage, terms, wanted, row, None)
    if terms.provider == app.address:
        made["providerSignature"] = "0x"  # calling counts as signing, and saves gas
    _shown(app, app.write("settle.one", {"settlement": made}))


@settle.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def relay(app: App, file: Path) -> None:
    """Settle a head somebody handed you (`head export`); anyone may.

    \b
    Example:  sluice --wallet anyone.json settle relay head.json
    """
    _shown(app, app.write("settle.one", {"settlement": app.require_file(file)}))


@settle.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@pass_app
def many(app: App, files: tuple[Path, ...]) -> None:
    """Settle several heads of one ledger; bad rows are skipped with their reason.

    \b
    Example:  sluice --wallet anyone.json settle many a.json b.json
    """
    _shown(app, app.write("settle.many", {"settlements": [app.require_file(file) for file in files]}))
