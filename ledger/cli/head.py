"""`sluice head`: the signed state of a usage log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine

from ledger.cli.agent import grant_option
from ledger.cli.app import App, pass_app, settled_head
from ledger.cli.use import consumer_of, copy_option
from ledger.core.errors import NotFound
from ledger.core.ids import Hash32
from ledger.core.terms import AuthorizationTerms
from ledger.metering import heads
from ledger.metering.log import ceiling_of, open_usage
from ledger.metering.redeem import Chosen, choose, settlement_of


@click.group()
def head() -> None:
    """Usage heads 用量头: both wallets sign them, anyone may settle them."""


@head.command()
@click.argument("authorization")
@click.option("--gateway", required=True)
@grant_option
@copy_option
@pass_app
def sign(app: App, authorization: str, gateway: str, grant_file: Path | None, copies: tuple[Path, ...]) -> None:
    """Check every leaf against what was received, then sign the head. Consumer, or its agent.

    \b
    Example:  sluice --wallet consumer.json head sign 0x… --gateway http://127.0.0.1:8490
    """
    signed = consumer_of(app, authorization, gateway, grant_file=grant_file, copies=copies).sign_head()
    shown = signed.head
    app.show(
        signed.as_json(),
        lambda: click.echo(f"✓ {shown.size:,} leaves checked and signed, units {list(shown.units)}, root {shown.root}"),
    )


def settlement(
    usage: Engine, terms: AuthorizationTerms, authorization: Hash32, row: Mapping[str, Any], size: int | None
) -> dict[str, Any]:
    """What `settle` takes, of the newest head that can be settled or the one of this size.

    Raises:
        NotFound: no head beyond the settled one is signed by both, or covered by a ceiling.
    """
    previous = settled_head(row)
    with usage.connect() as connection:
        if size is None:
            ceiling = ceiling_of(connection, authorization)
            chosen = choose(connection, authorization, row["endedAt"], previous.size if previous else 0, ceiling)
        else:
            signed = heads.at_size(connection, authorization, size)
            if signed.consumer_signature is None or (previous is not None and size <= previous.size):
                raise NotFound(f"the head of {size} leaves is not signed by both, or settled already")
            chosen = Chosen(signed)
        return settlement_of(connection, terms, previous, chosen)


@head.command()
@click.argument("authorization")
@click.option("--size", type=int, help="Which head; the newest both signed if left out.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@pass_app
def export(app: App, authorization: str, size: int | None, output: Path) -> None:
    """A signed head as a file that anyone can settle, from this home's usage log.

    \b
    Example:  sluice head export 0x… -o head.json
    """
    wanted, terms = app.terms(authorization)
    row = app.get(f"/v1/authorizations/{wanted}")
    usage = open_usage(app.settings.usage)
    made = settlement(usage, terms, wanted, row, size)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(made, indent=1) + "\n")
    app.show({"file": str(output), "size": made["head"]["size"]}, lambda: click.echo(f"✓ {output}"))


@head.command(name="list")
@click.argument("authorization")
@pass_app
def list_(app: App, authorization: str) -> None:
    """Heads of a usage log, as the server has them.

    \b
    Example:  sluice head list 0x…
    """
    wanted, _ = app.terms(authorization)
    items = app.all("/v1/heads", authorization=wanted)
    rows = [
        (i["head"]["size"], " ".join(i["head"]["units"]), i["head"]["root"], "✓" if i["consumerSignature"] else "—")
        for i in items
    ]
    app.show(items, lambda: app.table("Heads 用量头", ("leaves", "units", "root", "consumer signed"), rows))
