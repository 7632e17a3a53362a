"""`sluice events` and `webhook`: what happens on the ledger, here and elsewhere."""

import json
from collections.abc import Iterator
from typing import Any

import click

from ledger.cli.app import App, pass_app, short
from ledger.client.types import Event

_contract = click.option("--contract", help="UsageLedger, SpaceRegistry …")
_event = click.option("--event", help="Settled, Opened …")
_about = click.option("--about", help="An id or wallet.")


@click.command()
@_contract
@_event
@_about
@click.option("--from-block", type=click.IntRange(0), help="From this block on; without it from the beginning.")
@click.option("--after", help="After this event's offset.")
@click.option("--final", is_flag=True, help="Only what is final: nothing of it is taken back.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C; JSON lines with --json.")
@pass_app
def events(
    app: App,
    contract: str | None,
    event: str | None,
    about: str | None,
    from_block: int | None,
    after: str | None,
    final: bool,
    follow: bool,
) -> None:
    """Events in the order in which they became known; one that a reorg took back is told again, as retracted.

    \b
    Example:  sluice events --event Settled --about 0x… --follow
    """
    asked: dict[str, Any] = {"contract": contract, "event": event, "about": about}
    if follow:
        for told in app.client.follow(after, from_block=from_block, final=final, **asked):
            click.echo(json.dumps(told, ensure_ascii=False) if app.as_json else _line(told))
        return
    found = list(_until_now(app, after, from_block, final, asked))
    app.show(found, lambda: click.echo("\n".join(_line(told) for told in found)))


def _until_now(app: App, after: str | None, from_block: int | None, final: bool, asked: Any) -> Iterator[Event]:
    page = app.client.events(after=after, from_block=from_block, final=final, limit=1000, **asked)
    yield from page["items"]
    while page["more"]:
        page = app.client.events(after=page["next"], final=final, limit=1000, **asked)
        yield from page["items"]


def _line(told: Event) -> str:
    sign = "✗ 撤回 retracted " if told["retracted"] else ""
    id_ = told["args"].get("authorizationId") or next(iter(told["args"].values()), "")
    return f"{told['block']:>8}  {sign}{told['contract']}.{told['event']}  {short(str(id_))}  {told['offset']}"


@click.group()
def webhook() -> None:
    """Webhooks 事件推送: events delivered to a URL of yours, signed, at least once, in order."""


@webhook.command()
@click.argument("url")
@_contract
@_event
@_about
@click.option("--seen", is_flag=True, help="Sooner: also what is not final, and retractions when it is taken back.")
@click.option("--after", help="Begin after this offset; without it with what comes now.")
@pass_app
def add(
    app: App, url: str, contract: str | None, event: str | None, about: str | None, seen: bool, after: str | None
) -> None:
    """Register a webhook; its secret is shown this once.

    \b
    Example:  sluice --wallet provider.json webhook add https://receiver.example/sluice --event Settled
    """
    body = {"url": url, "contract": contract, "event": event, "about": about, "final": not seen, "after": after}
    made = app.post("/v1/webhooks", body)
    app.show(made, lambda: click.echo(f"✓ {made['webhook']}\n  secret  {made['secret']}"))


@webhook.command(name="list")
@pass_app
def list_(app: App) -> None:
    """Your webhooks, and how far each has come.

    \b
    Example:  sluice --wallet provider.json webhook list
    """
    found = app.get("/v1/webhooks")
    rows = [(w["webhook"], w["url"], w["status"], w["offset"], w["deadLetters"], w["lastError"] or "") for w in found]
    columns = ("webhook", "url", "status", "offset", "dead letters", "last error")
    app.show(found, lambda: app.table("Webhooks 事件推送", columns, rows))


@webhook.command()
@click.argument("webhook_id")
@pass_app
def remove(app: App, webhook_id: str) -> None:
    """Take a webhook away.

    \b
    Example:  sluice --wallet provider.json webhook remove wh_2f6c0b1a9d3e4f55
    """
    app.delete(f"/v1/webhooks/{webhook_id}")
    app.show({"removed": webhook_id}, lambda: click.echo(f"✓ {webhook_id} is gone"))


@webhook.command()
@click.argument("webhook_id")
@click.option("--after", help="After this offset; without it from the beginning.")
@pass_app
def replay(app: App, webhook_id: str, after: str | None) -> None:
    """Deliver everything after an offset again, and wake a webhook that was paused.

    \b
    Example:  sluice --wallet provider.json webhook replay wh_2f6c0b1a9d3e4f55 --after 41-2-6b1f0cf2b1a0e1f6
    """
    found = app.post(f"/v1/webhooks/{webhook_id}/replay", {"after": after})
    app.show(found, lambda: click.echo(f"✓ {webhook_id} goes on after {found['offset']}"))


@webhook.command(name="dead-letters")
@click.argument("webhook_id")
@pass_app
def dead_letters(app: App, webhook_id: str) -> None:
    """Events the receiver refused for good.

    \b
    Example:  sluice --wallet provider.json webhook dead-letters wh_2f6c0b1a9d3e4f55
    """
    found = app.get(f"/v1/webhooks/{webhook_id}/dead-letters")
    rows = [(d["offset"], d["event"]["type"], d["attempts"], d["error"]) for d in found]
    app.show(found, lambda: app.table("Dead letters 死信", ("offset", "event", "attempts", "error"), rows))
