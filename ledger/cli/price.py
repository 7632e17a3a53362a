"""`sluice price`: rate cards and splits."""

from pathlib import Path
from typing import Any

import click

from ledger.cli.app import App, pass_app
from ledger.core.errors import InputInvalid
from ledger.core.ids import Address, parse_address, parse_hash
from ledger.core.money import DECIMALS, currency_token, format_yuan, parse_yuan
from ledger.core.parse import parse_uint
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Split, Tier


@click.group()
def price() -> None:
    """Rate cards 价目表 and splits 分账方案: stored once, named by their content."""


def token_of(app: App, currency: str | None, token: str | None) -> Address:
    """An ISO 4217 code, or an ERC-20's address; the demo token if neither is given."""
    if currency and token:
        raise InputInvalid("give either --currency or --token", field="token")
    if currency:
        return Address(currency_token(currency))
    return parse_address(token, "token") if token else app.deployment.address("DemoYuan")


def read_card(data: Any, token: Address) -> RateCard:
    """The form people write: {meters: [{per, free, tiers: [{upTo, price}]}]}, prices in yuan."""
    _only(data, {"meters"}, "the card")
    meters = []
    for m, meter in enumerate(_listed(data, "meters", "the card")):
        _only(meter, {"per", "free", "tiers"}, f"meter {m}")
        tiers = []
        for tier in _listed(meter, "tiers", f"meter {m}"):
            _only(tier, {"upTo", "price"}, f"a tier of meter {m}")
            if "price" not in tier:
                raise InputInvalid(f"a tier of meter {m} has no price", field="price")
            bound = parse_uint(tier.get("upTo", MAX_UNITS), "upTo", 64)
            tiers.append(Tier(bound, parse_yuan(str(tier["price"]), "price")))
        per, free = parse_uint(meter.get("per", 1), "per", 64), parse_uint(meter.get("free", 0), "free", 64)
        meters.append(Meter(per, free, tuple(tiers)))
    return RateCard(token, DECIMALS, tuple(meters))


def _only(value: Any, known: set[str], what: str) -> None:
    """A member that is misspelt would else be a price nobody meant."""
    if not isinstance(value, dict) or set(value) - known:
        odd = sorted(set(value) - known)[0] if isinstance(value, dict) else value
        raise InputInvalid(
            f"{what} has the members {', '.join(sorted(known))} and no others, got {odd!r}", field="card"
        )


def _listed(value: dict[str, Any], name: str, what: str) -> list[Any]:
    if not isinstance(value.get(name), list):
        raise InputInvalid(f"{what} needs a list `{name}`", field=name)
    found: list[Any] = value[name]
    return found


@price.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--currency", help="ISO 4217 code, for invoiced mode.")
@click.option("--token", help="ERC-20 address, for escrowed mode; the demo token if left out.")
@pass_app
def card(app: App, file: Path, currency: str | None, token: str | None) -> None:
    """Register the rate card in FILE.

    \b
    {"meters": [{"per": 1, "free": 100, "tiers": [{"upTo": 1000, "price": "0.010"}, {"price": "0.006"}]}]}
    Example:  sluice --wallet provider.json price card feed.json
    """
    made = read_card(app.require_file(file), token_of(app, currency, token))
    done = app.write("price.register-card", {"card": made.as_json()})
    app.show_write(done, rateCard=made.id())


@price.command()
@click.option("--share", "parts", multiple=True, required=True, help="ADDRESS=BASIS_POINTS, up to sixteen.")
@pass_app
def split(app: App, parts: tuple[str, ...]) -> None:
    """Register a split of the revenue: parts of 10000.

    \b
    Example:  sluice --wallet provider.json price split --share 0x…=7000 --share 0x…=3000
    """
    shares = []
    for part in parts:
        payee, _, bps = part.partition("=")
        if not bps.isdigit():
            raise InputInvalid(f"--share must look like 0x…=3000, got {part!r}", field="share")
        shares.append((parse_address(payee, "payee"), int(bps)))
    made = Split.of(shares)
    done = app.write("price.register-split", {"shares": made.as_json()})
    app.show_write(done, split=made.id())


@price.command()
@click.argument("rate_card")
@click.argument("units", nargs=-1, type=click.IntRange(0))
@pass_app
def cost(app: App, rate_card: str, units: tuple[int, ...]) -> None:
    """What lifetime UNITS per meter cost under a registered card.

    \b
    Example:  sluice price cost 0x… 2000 48000
    """
    a, b, c, d = (list(units) + [0] * 4)[:4]
    found = app.get(f"/v1/rate-cards/{parse_hash(rate_card, 'rateCard')}")
    amount = RateCard.from_json(found).price((a, b, c, d))
    app.show({"amount": str(amount)}, lambda: click.echo(f"{format_yuan(amount)} CNY"))
