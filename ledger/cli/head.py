"""`sluice head`: the signed state of a usage log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine

from ledger.cli.app import App, pass_app, settled_head
from ledger.cli.use import consumer_of
from ledger.core.errors import NotFound
from ledger.core.ids import Hash32, hash_of
from ledger.core.terms import FAST, AuthorizationTerms
from ledger.metering import heads
from ledger.metering.log import open_usage, tree_of


@click.group()
def head() -> None:
    """Usage heads 用量头: both wallets sign them, anyone may settle them."""


@head.command()
@click.argument("authorization")
@click.option("--gateway", required=True)
@pass_app
def sign(app: App, authorization: str, gateway: str) -> None:
    """Check every leaf against what was received, then sign the head. Consumer.

    \b
    Example:  sluice --wallet consumer.json head sign 0x… --gateway http://127.0.0.1:8490
    """
    signed = consumer_of(app, authorization, gateway).sign_head()
    shown = signed.head
    app.show(
        signed.as_json(),
        lambda: click.echo(f"✓ {shown.size:,} leaves checked and signed, units {list(shown.units)}, root {shown.root}"),
    )


def settlement_of(
    usage: Engine, terms: AuthorizationTerms, authorization: Hash32, row: Mapping[str, Any], size: int | None
) -> Any:
    """What `settle` takes: terms, the settled head, the new one, both signatures, and the proof that the log grew.

    The newest head both signed; one dated after the end (it holds refusals) only when none from before it is left, for
    units must not rise after the end.

    Raises:
        NotFound: no head beyond the settled one is signed by both.
    """
    previous = settled_head(row)
    settled = previous.size if previous else 0
    with usage.connect() as connection:
        signed = [s for s in heads.read(connection, authorization) if s.consumer_signature and s.head.size > settled]
    if size is not None:
        signed = [s for s in signed if s.head.size == size]
    if not signed:
        raise NotFound(f"no head beyond the {settled} settled leaves is signed by both wallets")
    chosen = ([s for s in signed if s.head.as_of <= row["endedAt"]] or signed)[-1]
    proof: list[bytes] = []
    if not terms.flags & FAST:
        with usage.connect() as connection:
            proof = tree_of(connection, authorization, chosen.head.size).consistency(settled)
    return {
        "terms": terms.as_json(),
        "previous": previous.as_json() if previous else None,
        "head": chosen.head.as_json(),
        "providerSignature": chosen.provider_signature,
        "consumerSignature": chosen.consumer_signature,
        "consistency": [hash_of(p) for p in proof],
    }


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
    made = settlement_of(usage, terms, wanted, row, size)
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
