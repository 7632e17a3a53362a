"""`sluice use`: metered uses through a provider's gateway, every receipt checked and kept."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import click
import httpx
from rich.progress import track

from ledger.cli.agent import grant_option, read_grant
from ledger.cli.app import App, pass_app
from ledger.cli.authorization import Agreement, read_agreement
from ledger.core.errors import InputInvalid, Refused, VerificationFailed
from ledger.core.ids import Address, Hash32, parse_hash
from ledger.core.parse import load_json
from ledger.core.terms import AgentGrant
from ledger.metering.client import Accept, Consumer
from ledger.metering.copy import Copy
from ledger.metering.log import Entry, open_usage
from ledger.metering.reporter import Reporter

copy_option = click.option(
    "--copy",
    "copies",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="usage.db of another who uses data for the same consumer: its uses are signed too.",
)


@click.group()
def use() -> None:
    """Uses 用量: get data, receipt by receipt."""


def consumer_of(
    app: App,
    authorization: str,
    gateway: str,
    connections: int = 1,
    grant_file: Path | None = None,
    copies: Sequence[Path] = (),
) -> Consumer:
    """The client over this home's copy of the usage log and what was agreed here; of an agent, by its grant.

    Args:
        copies: usage databases of others who use data for the same consumer: they tell which leaves were theirs.
    """
    wanted = parse_hash(authorization, "authorization")
    agreed, grant = _agreed(app, wanted, grant_file)
    terms = agreed.terms
    context = click.get_current_context()
    usage = open_usage(app.settings.usage)
    context.call_on_close(usage.dispose)
    others = [open_usage(path) for path in copies]
    for other in others:
        context.call_on_close(other.dispose)
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return Consumer(
        gateway=gateway,
        terms=terms,
        domain=app.domain(terms),
        meters=agreed.meters,
        signer=app.wallet,
        usage=usage,
        card=agreed.card,
        grant=grant,
        accept=_asked_by_others([Copy(other, wanted) for other in others], grant[0].key if grant else None),
        http=context.with_resource(httpx.Client(timeout=30, limits=limits)),
    )


def _agreed(app: App, wanted: Hash32, grant_file: Path | None) -> tuple[Agreement, tuple[AgentGrant, str] | None]:
    """What was agreed under an authorization, and the grant by which this wallet uses it, if it is an agent's."""
    if grant_file is None:
        agreed = read_agreement(app, app.agreement(wanted))
        if agreed.terms.digest(app.domain(agreed.terms)) != wanted:
            raise VerificationFailed(f"the agreement kept for {wanted} has other terms")
        return agreed, None
    granted = read_grant(app, grant_file)
    grant = granted.grant
    if grant.authorization_id != wanted:
        raise InputInvalid(f"the grant is for authorization {grant.authorization_id}", field="grant")
    if grant.key != app.address:
        raise InputInvalid(f"the grant is for the key {grant.key}, this wallet is {app.address}", field="grant")
    return granted.agreement, (grant, granted.signature)


def _asked_by_others(copies: Sequence[Copy], me: Address | None) -> Accept:
    """What to make of leaves that were not asked for here: `me` is the agent's key, None the consumer's own wallet.

    Whoever asked has the receipt, and its copy tells. Without that copy nobody here can know: such a leaf is neither
    signed nor disputed, for a dispute may be credited at once.
    """

    def accept(entry: Entry) -> bool:
        leaf, asked = entry.leaf, (entry.payload or {}).get("agent")
        for copy in copies:
            dispute = copy.disputed().get(leaf.index)
            if copy.holds(leaf) and (dispute is None or dispute["answer"] == "CREDITED"):
                return True
        if asked == me:
            return False
        who = "the consumer's own wallet" if asked is None else f"the agent {asked}"
        words = f"leaf {leaf.index} was asked for by {who}, not here: give its copy of the log with --copy usage.db"
        raise Refused(words, leaf=leaf.index)

    return accept


@use.command()
@click.argument("authorization")
@click.option("--gateway", required=True)
@click.option("--version", required=True)
@click.option("--purpose", required=True)
@click.option("--query", "query", multiple=True, help="NAME=VALUE, such as from=2010-01-01T01:00:00.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the data goes.")
@grant_option
@pass_app
def get(
    app: App,
    authorization: str,
    gateway: str,
    version: str,
    purpose: str,
    query: tuple[str, ...],
    output: Path | None,
    grant_file: Path | None,
) -> None:
    """One metered use.

    \b
    Example:  sluice --wallet consumer.json use get 0x… --gateway http://127.0.0.1:8490 --version 0x… \\
                --purpose RESEARCH --query limit=24
    An agent: sluice --wallet agent.json use get 0x… --grant grant.json --gateway …
    """
    client = consumer_of(app, authorization, gateway, grant_file=grant_file)
    if any("=" not in pair for pair in query):
        raise InputInvalid("--query must look like NAME=VALUE", field="query")
    pairs = dict(pair.split("=", 1) for pair in query)
    got = client.use(parse_hash(version, "version"), purpose, pairs)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(got.body)
    leaf = got.entry.leaf
    found = {"leaf": leaf.index, "units": list(leaf.units), "bytes": len(got.body), "cumUnits": list(leaf.cum_units)}

    def human() -> None:
        if output is None:
            click.echo(got.body.decode(errors="replace"))
        click.echo(f"✓ leaf {leaf.index}, units {list(leaf.units)}, {len(got.body):,} bytes; receipt checked", err=True)

    app.show(found, human)


@use.command()
@click.argument("authorization")
@click.option("--gateway", required=True)
@click.option("--version", required=True)
@click.option("--purpose", required=True)
@click.option("--count", default=100, show_default=True, type=click.IntRange(1))
@click.option("--start", help="First `from`, such as 2010-01-01T01:00:00; none for whole files.")
@click.option("--step-hours", default=1, show_default=True)
@click.option("--limit", default=24, show_default=True, help="Rows a use.")
@click.option("--connections", default=4, show_default=True, type=click.IntRange(1, 64))
@grant_option
@pass_app
def run(
    app: App,
    authorization: str,
    gateway: str,
    version: str,
    purpose: str,
    count: int,
    start: str | None,
    step_hours: int,
    limit: int,
    connections: int,
    grant_file: Path | None,
) -> None:
    """Many metered uses, each a real HTTP call with its own receipt; the data itself is not kept.

    \b
    Example:  sluice --wallet consumer.json use run 0x… --gateway http://127.0.0.1:8490 --version 0x… \\
                --purpose RESEARCH --count 2000 --start 2010-01-01T01:00:00
    """
    client = consumer_of(app, authorization, gateway, connections, grant_file)
    found = parse_hash(version, "version")
    queries: list[dict[str, str]] = [{}] * count
    if start is not None:
        try:
            first = datetime.fromisoformat(start)
        except ValueError:
            raise InputInvalid(f"--start must look like 2010-01-01T01:00:00, got {start!r}", field="start") from None
        step = timedelta(hours=step_hours)
        queries = [{"from": (first + i * step).isoformat(), "limit": str(limit)} for i in range(count)]
    began = time.perf_counter()
    received = 0
    with ThreadPoolExecutor(connections) as pool:
        work = pool.map(lambda q: len(client.use(found, purpose, q).body), queries)
        for size in work if app.as_json else track(work, "using 使用中", total=count, console=app.console):
            received += size
    seconds = time.perf_counter() - began
    result: dict[str, Any] = {
        "uses": count,
        "bytes": received,
        "seconds": round(seconds, 3),
        "perSecond": round(count / seconds, 1),
    }
    app.show(result, lambda: click.echo(f"✓ {count:,} uses, {received:,} bytes, {count / seconds:,.0f} a second"))


@use.command()
@click.argument("authorization")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--gateway", required=True)
@click.option("--ask", is_flag=True, help="Only ask whether they may be done; refusals are recorded all the same.")
@click.option("--batch", default=2_000, show_default=True, type=click.IntRange(1, 10_000), help="Uses at once.")
@pass_app
def report(app: App, authorization: str, file: TextIO, gateway: str, ask: bool, batch: int) -> None:
    """Report uses metered elsewhere, one JSON object a line, as docs/gateway.md has it. Provider.

    The same file again counts nothing: after an error send it again as it is.

    \b
    Example:  sluice --wallet provider.json use report 0x… jobs.jsonl --gateway http://127.0.0.1:8490
    """
    wanted = parse_hash(authorization, "authorization")
    uses = [load_json(line, f"line {n}") for n, line in enumerate(file, 1) if line.strip()]
    context = click.get_current_context()
    http = context.with_resource(httpx.Client(timeout=120))
    reporter = Reporter(gateway=gateway, signer=app.wallet, domain=app.deployment.domain("UsageLedger"), http=http)
    done: dict[str, Any] = {"uses": len(uses), "refused": [], "failed": [], "receipt": None}
    starts = range(0, len(uses), batch)
    for at in starts if app.as_json else track(starts, "reporting 上报中", console=app.console):
        answer = reporter.report(wanted, uses[at : at + batch], ask=ask)
        for what in ("refused", "failed"):
            done[what] += [one | {"use": one["use"] + at} for one in answer[what]]
        done["receipt"] = answer["receipt"] or done["receipt"]

    def human() -> None:
        for one in (*done["refused"], *done["failed"]):
            click.echo(f"✗ use 用量 {one['use'] + 1}: {one.get('reason') or one['detail']}", err=True)
        size = done["receipt"]["head"]["size"] if done["receipt"] else 0
        kept = len(uses) - len(done["refused"]) - len(done["failed"])
        click.echo(f"✓ {kept:,} of {len(uses):,} uses {'may be done' if ask else f'stand in the log of {size} leaves'}")

    app.show(done, human)


@use.command(name="list")
@click.argument("authorization")
@click.option("--first", default=0, show_default=True)
@click.option("--limit", default=20, show_default=True)
@pass_app
def list_(app: App, authorization: str, first: int, limit: int) -> None:
    """Leaves of the usage log, as the server has them.

    \b
    Example:  sluice use list 0x… --first 1990
    """
    wanted = parse_hash(authorization, "authorization")
    items = app.get("/v1/uses", authorization=wanted, first=first, limit=limit)["items"]
    kinds = ("use", "credit", "period fee", "note", "refusal")
    rows = [
        (
            i["leaf"]["index"],
            kinds[i["leaf"]["kind"]],
            " ".join(i["leaf"]["units"]),
            " ".join(i["leaf"]["cumUnits"]),
            (i["payload"] or {}).get("reason", ""),
        )
        for i in items
    ]
    app.show(items, lambda: app.table("Uses 用量", ("leaf", "kind", "units", "totals", "reason"), rows))
