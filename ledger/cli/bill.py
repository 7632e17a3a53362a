"""`sluice bill`: bills and statements, as derived from leaves and chain."""

import click

from ledger.cli.app import App, pass_app, short
from ledger.core.ids import parse_address, parse_hash
from ledger.core.money import format_fen, format_yuan


@click.group()
def bill() -> None:
    """Bills 账单 and statements 对账单."""


@bill.command()
@click.argument("authorization")
@pass_app
def show(app: App, authorization: str) -> None:
    """The bill over all that is settled: each line names its leaves.

    \b
    Example:  sluice bill show 0x…
    """
    found = app.get(f"/v1/bills/{parse_hash(authorization, 'authorization')}")

    def human() -> None:
        rows = [
            (
                line["meter"],
                "free 免费" if line["tier"] is None else f"tier {line['tier'] + 1}",
                f"{int(line['units']):,}",
                f"{format_yuan(int(line['price']))} / {int(line['unitScale']):,}",
                format_yuan(int(line["amount"])),
                f"{line['firstLeaf']}–{line['lastLeaf']}",
            )
            for line in found["lines"]
        ]
        columns = ("meter 计量", "tier 阶梯", "units 用量", "price 单价", "CNY 金额", "leaves 凭证")
        app.table(f"Bill 账单 {short(found['authorization'])} · {found['digest']}", columns, rows)
        for name, label in (("credits", "credits 抵扣"), ("due", "due 应付"), ("paid", "paid 已付")):
            click.echo(f"  {label:<14}{format_yuan(int(found[name])):>16} CNY")
        click.echo(f"  {'arrears 欠付':<14}{format_yuan(int(found['arrears'])):>16} CNY")
        if found["payableFen"] is not None:
            click.echo(f"  {'payable 开票':<14}{format_fen(int(found['payableFen'])):>16} CNY (rounded to fen a line)")
        for payee, amount in found["split"].items():
            click.echo(f"  {payee}  {format_yuan(int(amount)):>16} CNY")

    app.show(found, human)


@bill.command()
@click.option("--party", help="Whose; your own if left out.")
@click.option("--month", required=True, help="Such as 2026-07, Asia/Shanghai.")
@pass_app
def statement(app: App, party: str | None, month: str) -> None:
    """What a party owes, is owed and was paid in a month.

    \b
    Example:  sluice bill statement --party 0x… --month 2026-07
    """
    wallet = parse_address(party, "party") if party else app.address
    found = app.get(f"/v1/statements/{wallet}", month=month)

    def human() -> None:
        rows = [
            (
                short(line["authorization"]),
                line["role"],
                line["mode"],
                format_yuan(int(line["due"])),
                format_yuan(int(line["paid"])),
            )
            for line in found["lines"]
        ]
        app.table(f"Statement 对账单 {month} {wallet}", ("authorization", "role", "mode", "due", "paid"), rows)
        for part in found["shares"]:
            click.echo(f"  share 分账 {format_yuan(int(part['amount']))} CNY in {part['transaction']}")

    app.show(found, human)
