"""`sluice watch`: a watchtower over one's own signed heads."""

import time
from collections.abc import Sequence
from typing import Any

import click
from sqlalchemy import select

from ledger.cli.app import App, pass_app, settled_head, short
from ledger.core.errors import NotFound, SluiceError
from ledger.core.ids import Hash32, parse_hash
from ledger.core.money import parse_yuan
from ledger.core.ratecard import RateCard
from ledger.core.terms import AuthorizationTerms
from ledger.metering import schema
from ledger.metering.log import ceiling_of, open_usage
from ledger.metering.redeem import Redeeming, choose, settled_of, settlement_of, why_now


@click.command()
@click.argument("authorizations", nargs=-1)
@click.option("--value", default="100", show_default=True, help="Yuan that wait in a head: settle it.")
@click.option("--age", "hours", default=24.0, show_default=True, help="Hours since a head's last use: settle it.")
@click.option("--every", default=30, show_default=True, type=click.IntRange(1), help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once, for cron.")
@pass_app
def watch(app: App, authorizations: tuple[str, ...], value: str, hours: float, every: int, once: bool) -> None:
    """Settle the newest head before it is too late: on value, age, a thaw, an end, or an older head of the other side.

    For provider and consumer alike, over the heads in this home; all of them, or those named. Heads under a ceiling
    count too. What cannot be settled is said and tried again.

    \b
    Example:  sluice --wallet provider.json watch --value 500 --age 12
    """
    limits = Redeeming(parse_yuan(value), int(hours * 3600))
    named = [parse_hash(one, "authorization") for one in authorizations]
    while True:
        done = look(app, named, limits)
        if not app.as_json:
            _said(done)
        elif done or once:
            app.show(done)
        if once:
            return
        time.sleep(every)


def look(app: App, named: Sequence[Hash32], limits: Redeeming) -> list[dict[str, Any]]:
    """One round: what was settled or could not be, and why."""
    usage = open_usage(app.settings.usage)
    try:
        with usage.connect() as connection:
            table = schema.heads
            known = connection.execute(
                select(table.c.authorization).distinct().order_by(table.c.authorization)
            ).scalars()
            wanted = named or [Hash32(id_) for id_ in known]
        done = []
        for id_ in wanted:
            row = app.get(f"/v1/authorizations/{id_}")
            terms, previous = AuthorizationTerms.from_json(row["terms"]), settled_head(row)
            card = RateCard.from_json(app.get(f"/v1/rate-cards/{terms.rate_card}"))
            with usage.connect() as connection:
                try:
                    settled = previous.size if previous else 0
                    chosen = choose(connection, id_, row["endedAt"], settled, ceiling_of(connection, id_))
                except NotFound:
                    continue
                settled_so_far = settled_of(row, previous)
                why = why_now(settled_so_far, chosen, card, terms, limits, int(time.time()))
                if why is None:
                    continue
                made = settlement_of(connection, terms, previous, chosen)
            if terms.provider == app.address:
                made["providerSignature"] = "0x"  # calling counts as signing, and saves gas
            told: dict[str, Any] = {"authorization": id_, "size": chosen.signed.head.size, "why": why}
            try:
                told["transaction"] = app.write("settle.one", {"settlement": made})["transaction"]
            except SluiceError as problem:
                told["problem"] = {"code": problem.code, "detail": problem.message}
            done.append(told)
        return done
    finally:
        usage.dispose()


def _said(done: Sequence[dict[str, Any]]) -> None:
    for one in done:
        what = f"{short(one['authorization'])} head 用量头 {one['size']:,} ({one['why']})"
        if "problem" in one:
            click.echo(f"✗ {what}: {one['problem']['detail']} [{one['problem']['code']}]", err=True)
        else:
            click.echo(f"✓ {what} settled 已结算 {one['transaction']}")
