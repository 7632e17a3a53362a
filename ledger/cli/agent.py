"""`sluice agent`: keys that use data for a wallet, within caps it signs, and the switch that stops them.

A grant is kept by the gateway at every use (a use, a day, so many uses a day); the key's own registration on chain
bounds what the heads it signs may come to, whatever a gateway does.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from ledger import wallet as wallets
from ledger.cli.app import App, pass_app
from ledger.cli.authorization import DAY, Agreement, agreement_of, read_agreement, write_file
from ledger.core.errors import Conflict, InputInvalid, VerificationFailed
from ledger.core.ids import Address, parse_address, parse_hash
from ledger.core.money import format_yuan, parse_yuan
from ledger.core.parse import parse_uint
from ledger.core.signing import is_signed_by
from ledger.core.terms import AgentGrant, SessionKey
from ledger.metering.client import send_grant

grant_option = click.option(
    "--grant",
    "grant_file",
    type=click.Path(path_type=Path),
    help="A principal's grant; --wallet is the key it is for.",
)


@click.group()
def agent() -> None:
    """Agents 智能体: let another key use data for this wallet, within caps; stop it at once."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant as its principal signed it, and what was agreed: all that an agent needs beside its key."""

    agreement: Agreement
    grant: AgentGrant
    signature: str

    def as_json(self) -> dict[str, Any]:
        return {
            "grant": self.grant.as_json(),
            "grantSignature": self.signature,
            "agreement": self.agreement.as_json(),
        }


def read_grant(app: App, path: Path) -> Granted:
    """Raises InputInvalid if the file is no grant, VerificationFailed if the consumer of its terms did not sign it."""
    document = app.require_file(path)
    try:
        agreement, grant = agreement_of(document["agreement"]), AgentGrant.from_json(document["grant"])
        signature = str(document["grantSignature"])
    except (KeyError, TypeError):
        raise InputInvalid(f"{path} is no grant: grant, grantSignature and agreement are needed") from None
    terms = agreement.terms
    domain = app.domain(terms)
    if terms.digest(domain) != grant.authorization_id:
        raise VerificationFailed("the terms in the file are not those of the grant, or are of another deployment")
    if not is_signed_by(terms.consumer, grant, domain, signature):
        raise VerificationFailed(f"the grant is not signed by {terms.consumer}")
    return Granted(agreement, grant, signature)


@agent.command()
@click.argument("authorization")
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="The agent's keystore.")
@click.option("--key-password-file", type=click.Path(path_type=Path), help="File with its password (mode 600).")
@click.option("--cap", default="500/day", show_default=True, help="Yuan a day (Beijing).")
@click.option("--per-use", default="5", show_default=True, help="Yuan for one use.")
@click.option("--uses", default="1000/day", show_default=True, help="Uses a day.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 3660), help="How long it holds.")
@click.option("--max-due", help="On chain: yuan that heads it signs may come to; the day's cap times days if left out.")
@click.option("--gateway", help="Tell this gateway at once: what it allowed before ends.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@pass_app
def grant(app: App, /, authorization: str, key_file: Path, output: Path, **options: Any) -> None:
    """Let an agent's key use data under an authorization of yours, within caps. The last grant issued counts.

    \b
    Example:  sluice --wallet consumer.json agent grant 0x… --key-file agent.json --cap 50/day --per-use 2 \\
                --uses 200/day --gateway http://127.0.0.1:8490 -o grant.json
    """
    wanted = parse_hash(authorization, "authorization")
    agreement = read_agreement(app, app.agreement(wanted))
    terms = agreement.terms
    domain = app.domain(terms)
    if terms.digest(domain) != wanted:
        raise VerificationFailed(f"the agreement kept for {wanted} has other terms")
    if terms.consumer != app.address:
        raise InputInvalid(f"only the consumer grants: it is {terms.consumer}, this wallet is {app.address}")
    per_day, per_use = parse_yuan(_a_day(options["cap"]), "cap"), parse_yuan(options["per_use"], "per-use")
    uses = parse_uint(_a_day(options["uses"]), "uses", 64)
    most = per_day * options["days"] if options["max_due"] is None else parse_yuan(options["max_due"], "max-due")
    if not 0 < per_use <= per_day:
        raise InputInvalid("one use costs more than nothing, and no more than a day's cap", field="per-use")
    key, now = wallets.address_of(key_file), int(time.time())
    expiry = now + options["days"] * DAY
    known = _registered(app, key, now)
    if known is not None:
        if options["max_due"] is not None and int(known["maxDue"]) != most:
            words = f"{key} is registered for {format_yuan(int(known['maxDue']))}; other bounds need another key"
            raise InputInvalid(words, field="max-due")
        expiry, most = min(expiry, known["expiry"]), int(known["maxDue"])
    made = AgentGrant(
        authorization_id=wanted,
        key=key,
        per_use=per_use,
        per_day=per_day,
        uses_per_day=uses,
        issued_at=now,
        expiry=expiry,
    )
    _describe(app, made, most)
    if known is None:
        _register(app, key_file, options["key_password_file"], expiry, most)
    app.confirm()
    granted = Granted(agreement, made, app.wallet.sign(made, domain))
    write_file(output, granted.as_json())
    if options["gateway"] is not None:
        with httpx.Client(timeout=30) as http:
            send_grant(http, options["gateway"], made, granted.signature)
    shown = {"file": str(output), "key": key, "registered": known is None, "maxDue": str(most)}
    app.show(shown | {"grant": made.as_json()}, lambda: click.echo(f"✓ 委托已签署 granted: {output}"))


def _a_day(text: str) -> str:
    return text.strip().removesuffix("/day")


def _registered(app: App, key: Address, now: int) -> dict[str, Any] | None:
    """The key's registration for this wallet, if there is one. Raises Conflict if it has ended."""
    rows = app.get("/v1/session-keys", wallet=app.address, key=key)["items"]
    if rows and (rows[0]["revokedAt"] is not None or rows[0]["expiry"] < now):
        raise Conflict(f"the key {key} has ended, and stays so: make another with `sluice wallet new`", key=key)
    return rows[0] if rows else None


def _register(app: App, key_file: Path, password_file: Path | None, expiry: int, max_due: int) -> None:
    """On chain, with the key's own word that it is there to sign."""
    if password_file is not None:
        password = wallets.read_password(password_file)
    else:
        password = click.prompt("智能体密钥的口令 password of the agent's key", hide_input=True, err=True)
    key = wallets.unlock(key_file, password)
    proof = SessionKey(wallet=app.address, key=key.address, expiry=expiry, max_due=max_due)
    possession = key.sign(proof, app.deployment.domain("SessionKeys"))
    app.write(
        "session-key.register",
        {"key": key.address, "expiry": expiry, "maxDue": str(max_due), "possession": possession},
    )


def _describe(app: App, grant: AgentGrant, max_due: int) -> None:
    """In words, for who is about to sign."""
    if app.as_json:
        return
    rows = [
        ("授权 authorization", grant.authorization_id),
        ("智能体 agent", grant.key),
        ("单次上限 a use", f"{format_yuan(grant.per_use)} CNY"),
        ("每日上限 a day (北京 Beijing)", f"{format_yuan(grant.per_day)} CNY, {grant.uses_per_day:,} 次 uses"),
        ("有效期至 until", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(grant.expiry))),
        ("链上签署上限 on chain, signs for", f"{format_yuan(max_due)} CNY"),
    ]
    app.table("委托 Grant", ("", ""), rows)


@agent.command()
@click.argument("key")
@pass_app
def revoke(app: App, key: str) -> None:
    """Stop an agent: its key ends for every authorization of this wallet, and can never be registered again.

    \b
    Example:  sluice --wallet consumer.json agent revoke 0x…
    """
    ended = parse_address(key, "key")
    app.show_write(app.write("session-key.revoke", {"key": ended}), key=ended)


@agent.command(name="list")
@click.option("--of", "wallet", help="Another wallet's; this one's if left out.")
@pass_app
def list_(app: App, wallet: str | None) -> None:
    """Keys that may, or once might, sign for a wallet.

    \b
    Example:  sluice --wallet consumer.json agent list
    """
    of = app.address if wallet is None else parse_address(wallet, "of")
    found = app.all("/v1/session-keys", wallet=of)
    now = time.time()
    rows = [
        (
            item["key"],
            "停用 revoked" if item["revokedAt"] else "到期 expired" if item["expiry"] < now else "有效 live",
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(item["revokedAt"] or item["expiry"])),
            format_yuan(int(item["maxDue"])),
        )
        for item in found
    ]
    columns = ("密钥 key", "状态 status", "至 until", "签署上限 signs for, CNY")
    app.show(found, lambda: app.table("智能体密钥 Session keys", columns, rows))
