"""`sluice account`, `share` and `payment`: money in, money out."""

import click

from ledger.cli.app import App, pass_app
from ledger.core.hashing import sha256
from ledger.core.ids import hash_of, parse_address, parse_hash
from ledger.core.money import format_yuan, parse_yuan


@click.group()
def account() -> None:
    """Accounts 账户 in the escrow ledger: deposit, withdraw."""


@account.command()
@click.option("--amount", required=True, help="Yuan, such as 500.00.")
@pass_app
def mint(app: App, amount: str) -> None:
    """Make demo money for yourself (demo token only).

    \b
    Example:  sluice --wallet consumer.json account mint --amount 500
    """
    app.show_write(app.write("token.mint", {"to": app.address, "amount": str(parse_yuan(amount))}))


@account.command()
@click.option("--amount", required=True, help="Yuan, such as 500.00.")
@click.option("--token", help="ERC-20 address; the demo token if left out.")
@click.option("--for", "owner", help="Whose account; your own if left out.")
@pass_app
def deposit(app: App, amount: str, token: str | None, owner: str | None) -> None:
    """Pay tokens into an account: an approval, then the deposit.

    \b
    Example:  sluice --wallet consumer.json account deposit --amount 200
    """
    value = str(parse_yuan(amount))
    currency = parse_address(token, "token") if token else app.deployment.address("DemoYuan")
    spender = app.deployment.address("UsageLedger")
    approved = app.write("token.approve", {"spender": spender, "amount": value})
    to = parse_address(owner, "for") if owner else app.address
    done = app.write("account.deposit", {"owner": to, "token": currency, "amount": value})
    app.show_write(done, approvedBy=approved["transaction"])


@account.command()
@click.option("--amount", required=True)
@click.option("--token", help="ERC-20 address; the demo token if left out.")
@click.option("--to", help="Receiver; your own wallet if left out.")
@pass_app
def withdraw(app: App, amount: str, token: str | None, to: str | None) -> None:
    """Take free money out of your account.

    \b
    Example:  sluice --wallet consumer.json account withdraw --amount 20
    """
    arguments = {
        "token": parse_address(token, "token") if token else app.deployment.address("DemoYuan"),
        "amount": str(parse_yuan(amount)),
        "to": parse_address(to, "to") if to else app.address,
    }
    app.show_write(app.write("account.withdraw", arguments))


@account.command()
@click.option("--owner", help="Your own if left out.")
@pass_app
def show(app: App, owner: str | None) -> None:
    """Free money of an account.

    \b
    Example:  sluice account show --owner 0x…
    """
    found = app.get(f"/v1/accounts/{parse_address(owner, 'owner') if owner else app.address}")
    rows = [(token, format_yuan(int(free))) for token, free in found["free"].items()]
    app.show(found, lambda: app.table("Free 可用余额", ("token", "amount"), rows))


@click.group()
def share() -> None:
    """Shares 分账: what payees accrued and withdraw."""


@share.command()
@click.option("--split", "split_id", required=True)
@click.option("--payee", help="Your own wallet if left out.")
@click.option("--token", help="ERC-20 address; the demo token if left out.")
@pass_app
def pay(app: App, split_id: str, payee: str | None, token: str | None) -> None:
    """Send a payee all that its share has accrued; anyone may.

    \b
    Example:  sluice --wallet holder.json share pay --split 0x…
    """
    arguments = {
        "split": parse_hash(split_id, "split"),
        "token": parse_address(token, "token") if token else app.deployment.address("DemoYuan"),
        "payee": parse_address(payee, "payee") if payee else app.address,
    }
    done = app.write("share.pay", arguments)
    app.show_write(done, amount=f"{format_yuan(int(done['result']))} CNY")


@share.command(name="show")
@click.option("--split", "split_id", required=True)
@click.option("--token", help="ERC-20 address; the demo token if left out.")
@pass_app
def show_shares(app: App, split_id: str, token: str | None) -> None:
    """What each payee accrued, was sent and has left.

    \b
    Example:  sluice share show --split 0x…
    """
    currency = parse_address(token, "token") if token else app.deployment.address("DemoYuan")
    found = app.get(f"/v1/shares/{parse_hash(split_id, 'split')}/{currency}")
    rows = [
        (payee, *(format_yuan(int(amounts[name])) for name in ("accrued", "sent", "left")))
        for payee, amounts in found["payees"].items()
    ]
    app.show(found, lambda: app.table("Shares 分账", ("payee", "accrued", "sent", "left"), rows))


@click.group()
def payment() -> None:
    """Bank payments 银行付款 against invoiced authorizations."""


def _payment(app: App, operation: str, authorization: str, reference: str, amount: str | None) -> None:
    _, terms = app.terms(authorization)
    # Only the digest of the bank's reference goes on chain.
    arguments = {"terms": terms.as_json(), "referenceHash": hash_of(sha256(reference.encode()))}
    if amount is not None:
        arguments["amount"] = str(parse_yuan(amount))
    app.show_write(app.write(operation, arguments), referenceHash=arguments["referenceHash"])


@payment.command()
@click.argument("authorization")
@click.option("--reference", required=True, help="The bank's reference; only its digest goes on chain.")
@click.option("--amount", required=True)
@pass_app
def record(app: App, authorization: str, reference: str, amount: str) -> None:
    """Record a bank payment received. Provider only.

    \b
    Example:  sluice --wallet provider.json payment record 0x… --reference CMB-20260731-0001 --amount 25.00
    """
    _payment(app, "payment.record", authorization, reference, amount)


@payment.command()
@click.argument("authorization")
@click.option("--reference", required=True)
@pass_app
def reverse(app: App, authorization: str, reference: str) -> None:
    """Take a recorded payment back. Provider only.

    \b
    Example:  sluice --wallet provider.json payment reverse 0x… --reference CMB-20260731-0001
    """
    _payment(app, "payment.reverse", authorization, reference, None)


@payment.command()
@click.argument("authorization")
@click.option("--reference", required=True)
@click.option("--amount", required=True)
@pass_app
def claim(app: App, authorization: str, reference: str, amount: str) -> None:
    """State that you paid. Consumer only.

    \b
    Example:  sluice --wallet consumer.json payment claim 0x… --reference CMB-20260731-0001 --amount 25.00
    """
    _payment(app, "payment.claim", authorization, reference, amount)
