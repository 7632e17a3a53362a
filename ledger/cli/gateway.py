"""`sluice gateway`: a provider's data, metered: its files, an existing API, or what is metered elsewhere."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import msgspec
from fastapi import FastAPI
from rich.progress import track
from sqlalchemy import Engine, select
from starlette.types import ASGIApp, Receive, Scope, Send

from ledger.cli.app import App, pass_app, short
from ledger.core import loopback
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.hashing import ALGORITHMS, content_digests, file_chunks, sha256
from ledger.core.ids import Address, Hash32, hash_of, parse_address, parse_hash
from ledger.core.parse import parse_uint
from ledger.core.signing import Signer
from ledger.metering.config import Settings, SignerSettings, SourceSettings, read_settings, rule_of
from ledger.metering.duty import waiting
from ledger.metering.files import Files, metered
from ledger.metering.gateway import Gateway
from ledger.metering.log import open_usage
from ledger.metering.middleware import MeterMiddleware
from ledger.metering.policy import Policy, read_policy
from ledger.metering.proxy import Proxy
from ledger.metering.restore import restore_log
from ledger.metering.routes import create_gateway
from ledger.metering.sources import Source, open_source
from ledger.mirror import queries
from ledger.mirror import schema as mirror_schema
from ledger.mirror.store import open_mirror
from ledger.wallet import ExternalSigner

OWN = ("/v1/sessions", "/v1/grants", "/v1/uses", "/v1/authorizations", "/health")


@click.group(invoke_without_command=True)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="gateway.yaml; see docs/gateway.md.")
@click.option("--upstream", help="URL of the API behind the gateway; its routes are in the configuration.")
@click.option("--files", "folder", type=click.Path(file_okay=False, path_type=Path), help="Serve published files.")
@click.option("--port", default=8490, show_default=True, help="0 for a free one.")
@click.pass_context
def gateway(
    context: click.Context, config_file: Path | None, upstream: str | None, folder: Path | None, port: int
) -> None:
    """Put the gateway in front of data: every use checked, counted, receipted. Reads the mirror of the same home.

    \b
    Files:   sluice --wallet provider.json gateway --files published/ --config gateway.yaml
    An API:  sluice --wallet provider.json gateway --upstream http://127.0.0.1:9000 --config gateway.yaml
    """
    if context.invoked_subcommand is not None:
        return
    app: App = context.find_object(App) or context.obj
    if config_file is None:
        raise InputInvalid("give --config: at least the policies of what is served", field="config")
    settings = read_settings(config_file)
    if upstream is not None:
        settings = msgspec.structs.replace(settings, upstream=upstream)
    base = config_file.parent
    _serve(app, settings, base, folder or (base / settings.files if settings.files else None), port)


def _serve(app: App, settings: Settings, base: Path, folder: Path | None, port: int) -> None:
    mirror = open_mirror(app.settings.mirror, app.deployment)
    usage = open_usage(app.settings.usage)
    signer: Signer = app.wallet if settings.signer is None else _external(settings.signer)
    provider = parse_address(settings.provider, "provider") if settings.provider else signer.address
    policies = _policies(base, settings)
    sources = [*_sources(mirror, base, settings.sources, provider)]
    if folder is not None:
        sources += _published(app, mirror, folder, provider, {source.version for source in sources})
    rules = [*metered(sources), *(rule_of(route) for route in settings.routes)]
    if not rules and not settings.policies:
        raise InputInvalid("nothing is served: give --files, sources, or an upstream with routes", field="config")
    for rule in rules:
        if rule.path.startswith(OWN):
            raise InputInvalid(f"{rule.path} is a path of the gateway itself", field="path")
    if (settings.upstream is None) != (not settings.routes):
        raise InputInvalid("an upstream has routes, and routes have an upstream", field="upstream")

    def make(url: str) -> ASGIApp:
        made = Gateway(
            mirror=mirror,
            usage=usage,
            provider=provider,
            signer=signer,
            domains={name: app.deployment.domain(name) for name in ("UsageLedger", "InvoiceLedger")},
            policies=policies,
            origin=settings.origin or url,
            finality="final" if settings.finality == "final" else "seen",
            sign_after=settings.sign_after,
            credit_up_to=parse_uint(settings.credit_up_to, "credit-up-to", 128),
        )
        return serving(made, rules, sources, settings.upstream)

    def ready(url: str) -> None:
        shown = {"url": url, "what": "gateway", "routes": [rule.path for rule in rules]}
        app.show(shown, lambda: click.echo(f"✓ gateway at {url}, {len(rules)} routes metered (Ctrl-C stops it)"))

    loopback.run(make, port, ready)


def _external(signer: SignerSettings) -> ExternalSigner:
    return ExternalSigner(signer.url, parse_address(signer.address, "signer"))


def serving(made: Gateway, rules: Sequence[Any], sources: Sequence[Source], upstream: str | None) -> ASGIApp:
    """The gateway's own routes, and behind the meter its files and the API upstream."""
    own, files = create_gateway(made), Files(sources)
    proxy = Proxy(upstream) if upstream else None

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        made.duty.start()
        yield
        made.close()
        if proxy is not None:
            await proxy.aclose()

    own.router.lifespan_context = life

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        if "sluice" not in scope:
            await own(scope, receive, send)
        elif proxy is None or scope["path"].startswith("/v1/data/"):
            await files(scope, receive, send)
        else:
            await proxy(scope, receive, send)

    return MeterMiddleware(behind, made, rules)


def _policies(base: Path, settings: Settings) -> dict[Hash32, Policy]:
    """Policies by the digest of their bytes: what versions and terms pin."""
    named = [*settings.policies, *(source.policy for source in settings.sources if source.policy)]
    found = {}
    for name in named:
        path = base / name
        if not path.is_file():
            raise NotFound(f"there is no policy {path}")
        content = path.read_bytes()
        found[hash_of(sha256(content))] = read_policy(content)
    if not found:
        raise InputInvalid("name the policies of what is served: they say what is counted", field="policies")
    return found


def _sources(mirror: Engine, base: Path, named: Sequence[SourceSettings], provider: Address) -> list[Source]:
    found = []
    with mirror.connect() as connection:
        for item in named:
            version = parse_hash(item.version, "version")
            row = queries.one(connection, mirror_schema.versions, "version", version=version)
            owner = queries.one(connection, mirror_schema.products, "product", product=row["product"])["provider"]
            if owner != provider:
                raise InputInvalid(f"version {version} is {owner}'s, not this provider's", field="version")
            if item.policy and hash_of(sha256((base / item.policy).read_bytes())) != row["policy_hash"]:
                words = f"{item.policy} is not the policy version {version} was published with"
                raise InputInvalid(words, field="policy")
            found.append(open_source(base / item.file, item.kind, row["product"], version, row["digests"]))
    return found


def _published(app: App, mirror: Engine, folder: Path, provider: Address, known: set[Hash32]) -> list[Source]:
    """The files of a folder that are published versions of this provider, found by their digests."""
    versions: dict[tuple[int, str], list[Any]] = {}
    table = mirror_schema.versions
    with mirror.connect() as connection:
        for row in connection.execute(select(table).where(mirror_schema.holds(table))).mappings():
            owner = queries.one(connection, mirror_schema.products, "product", product=row["product"])["provider"]
            if owner == provider:
                for digest in row["digests"]:
                    versions.setdefault((int(digest["algorithm"]), digest["value"]), []).append(row)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise NotFound(f"there are no files in {folder}")
    found: list[Source] = []
    for path in paths if app.as_json else track(paths, "checking files 校验文件", console=app.console):
        digests = content_digests(file_chunks(path), ALGORITHMS)
        rows = {row["version"]: row for a, value in digests.items() for row in versions.get((a, hash_of(value)), [])}
        for version, row in rows.items():
            if version not in known:
                found.append(open_source(path, "file", row["product"], version, row["digests"]))
                known.add(version)
        if not rows:
            app.note(f"{path.name} is no published version of this provider; it is not served")
    return found


# ------------------------------------------------------------------------------------------------- disputes


def _gateway(app: App) -> Gateway:
    """Over this home's databases, to look after its logs: nothing is served."""
    return Gateway(
        mirror=open_mirror(app.settings.mirror, app.deployment),
        usage=open_usage(app.settings.usage),
        provider=app.address,
        signer=app.wallet,
        domains={name: app.deployment.domain(name) for name in ("UsageLedger", "InvoiceLedger")},
        policies={},
        origin="",
    )


@gateway.command()
@click.argument("authorization", required=False)
@pass_app
def disputes(app: App, authorization: str | None) -> None:
    """What consumers say is not what happened.

    \b
    Example:  sluice --wallet provider.json gateway disputes
    """
    wanted = parse_hash(authorization, "authorization") if authorization else None
    found = _gateway(app).disputes(wanted)
    rows = [(short(d["authorization"]), d["index"], d["reason"], d["answer"] or "OPEN") for d in found]
    app.show(found, lambda: app.table("Disputes 争议", ("authorization", "leaf", "reason", "answer"), rows))


def _utc(seconds: int) -> str:
    return time.strftime("%F %R", time.gmtime(seconds))


@gateway.command(name="waiting")
@pass_app
def waiting_command(app: App) -> None:
    """Logs whose uses wait for the consumer's signature, the longest first.

    \b
    Example:  sluice --wallet provider.json gateway waiting
    """
    with open_usage(app.settings.usage).connect() as connection:
        found = sorted(waiting(connection), key=lambda one: one.since)
    shown = [asdict(one) | {"units": [str(n) for n in one.units]} for one in found]
    rows = [
        (
            short(w.authorization_id),
            w.size - w.signed,
            " ".join(map(str, w.units)),
            _utc(w.since),
        )
        for w in found
    ]
    columns = ("authorization", "leaves", "units", "since (UTC)")
    app.show(shown, lambda: app.table("Waiting for signatures 待签认", columns, rows))


@gateway.command()
@click.argument("authorization")
@click.argument("leaf", type=click.IntRange(0))
@click.option("--reason", required=True, help="Goes into a note leaf; no personal data.")
@pass_app
def erase(app: App, authorization: str, leaf: int, reason: str) -> None:
    """Delete salt and payload of a leaf. Units, totals and every proof stay; this cannot be undone.

    \b
    Example:  sluice --wallet provider.json gateway erase 0x… 1002 --reason "request of 2026-11-24"
    """
    app.confirm()
    made = _gateway(app).erase(parse_hash(authorization, "authorization"), leaf, reason)
    shown = {"leaf": leaf, "note": made.leaf.index}
    app.show(shown, lambda: click.echo(f"✓ leaf {leaf} is erased; note {made.leaf.index} says so"))


@gateway.command()
@click.argument("authorization")
@click.option("--copy", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="usage.db.")
@pass_app
def restore(app: App, authorization: str, copy: Path) -> None:
    """Bring back a log that was lost, from the consumer's copy: every leaf must have been this provider's word.

    \b
    Example:  sluice --wallet provider.json gateway restore 0x… --copy consumer-usage.db
    """
    wanted, terms = app.terms(authorization)
    made = restore_log(open_usage(copy), open_usage(app.settings.usage), terms, app.domain(terms))
    shown = {"authorization": wanted, "size": made.size, "root": made.root}
    app.show(shown, lambda: click.echo(f"✓ {made.size:,} leaves restored, root {made.root}"))


@gateway.command()
@click.argument("authorization")
@click.argument("leaf", type=click.IntRange(0))
@click.option("--reason", required=True, help="Goes into the credit leaf; no personal data.")
@pass_app
def credit(app: App, authorization: str, leaf: int, reason: str) -> None:
    """Give back what a leaf counted, by a credit leaf: nothing is rewritten.

    \b
    Example:  sluice --wallet provider.json gateway credit 0x… 1002 --reason "no data was delivered"
    """
    made = _gateway(app).credit(parse_hash(authorization, "authorization"), leaf, reason)
    by = None if made is None else made.leaf.index
    how = "as soon as it costs something" if by is None else f"by leaf {by}"
    shown = {"leaf": by, "corrects": leaf, "cumCredits": None if made is None else str(made.leaf.cum_credits)}
    app.show(shown, lambda: click.echo(f"✓ leaf {leaf} is credited {how}"))


@gateway.command()
@click.argument("authorization")
@click.argument("leaf", type=click.IntRange(0))
@pass_app
def reject(app: App, authorization: str, leaf: int) -> None:
    """Say that a disputed leaf stands as it is. The consumer need not sign it.

    \b
    Example:  sluice --wallet provider.json gateway reject 0x… 1002
    """
    _gateway(app).reject(parse_hash(authorization, "authorization"), leaf)
    app.show({"leaf": leaf, "answer": "REJECTED"}, lambda: click.echo(f"✓ leaf {leaf} stands"))
