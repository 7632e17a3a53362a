"""`sluice report`: sums over the ledger."""

from datetime import datetime

import click

from ledger.billing.statements import SHANGHAI
from ledger.cli.app import App, pass_app, short
from ledger.core.money import format_yuan


@click.group()
def report() -> None:
    """Sums 汇总: settled use, revenue, arrears, endings."""


@report.command()
@click.option("--by", default="product", show_default=True, help="day, space, product, provider, consumer, token.")
@click.option("--provider")
@click.option("--consumer")
@pass_app
def usage(app: App, by: str, provider: str | None, consumer: str | None) -> None:
    """What was settled, by one or several things, comma between.

    \b
    Example:  sluice report usage --by day,product --consumer 0x…
    """
    found = app.get("/v1/aggregates/usage", by=by, provider=provider, consumer=consumer)["items"]
    names = by.split(",")
    rows = [
        (*(short(str(row[n])) for n in names), row["settlements"], row["uses"], format_yuan(int(row["due"])))
        for row in found
    ]
    app.show(found, lambda: app.table("Use 用量", (*names, "changed", "leaves", "due"), rows))


@report.command()
@click.option("--payee")
@pass_app
def revenue(app: App, payee: str | None) -> None:
    """What payees accrued, were sent and have left.

    \b
    Example:  sluice report revenue --payee 0x…
    """
    found = app.all("/v1/aggregates/revenue", payee=payee)
    rows = [
        (short(r["payee"]), short(r["split"]), *(format_yuan(int(r[n])) for n in ("accrued", "sent", "left")))
        for r in found
    ]
    app.show(found, lambda: app.table("Revenue 收入", ("payee", "split", "accrued", "sent", "left"), rows))


@report.command()
@pass_app
def arrears(app: App) -> None:
    """Where more is due than paid.

    \b
    Example:  sluice report arrears
    """
    found = app.all("/v1/aggregates/arrears")
    rows = [
        (r["authorization"], r["mode"], *(format_yuan(int(r[n])) for n in ("due", "paid", "arrears"))) for r in found
    ]
    app.show(found, lambda: app.table("Arrears 欠费", ("authorization", "mode", "due", "paid", "arrears"), rows))


@report.command()
@click.option("--days", default=30, show_default=True, type=click.IntRange(0, 3660))
@pass_app
def expiring(app: App, days: int) -> None:
    """Open authorizations that end soon, the next to end first.

    \b
    Example:  sluice report expiring --days 7
    """
    found = app.all("/v1/aggregates/expiring", days=days)
    rows = [(short(r["authorization"]), short(r["consumer"]), _when(r["endedAt"]), r["size"]) for r in found]
    app.show(found, lambda: app.table("Ending soon 即将到期", ("authorization", "consumer", "ends at", "leaves"), rows))


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, SHANGHAI).strftime("%Y-%m-%d %H:%M %Z")
