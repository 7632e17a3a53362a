"""`sluice authorization`: from an offer to an open authorization, and to its end."""

import json
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from ledger.chain.operations import version_id
from ledger.cli.app import App, pass_app, settled_head, short
from ledger.cli.price import token_of
from ledger.core import codes
from ledger.core.errors import InputInvalid, NotFound, VerificationFailed
from ledger.core.hashing import sha256
from ledger.core.ids import ZERO_ADDRESS, ZERO_HASH, hash_of, parse_hash
from ledger.core.money import DECIMALS, format_yuan, parse_yuan
from ledger.core.ratecard import MAX_UNITS, RateCard, Split
from ledger.core.signing import is_signed_by
from ledger.core.terms import FAST, INVOICED, Acceptance, AuthorizationTerms, Offer, Quad, Scope
from ledger.metering.policy import read_policy

DAY = 24 * 3600


@click.group()
def authorization() -> None:
    """Authorizations 授权: offer, accept, open, revoke, close, finalize."""


def _quad(text: str, what: str) -> Quad:
    parts = text.split(",")
    if len(parts) > 4 or not all(p.strip().isdigit() for p in parts):
        raise InputInvalid(f"{what} must be up to four numbers such as 5000,120000; got {text!r}", field=what)
    a, b, c, d = ([int(p) for p in parts] + [0, 0, 0, 0])[:4]
    return a, b, c, d


def write_file(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Terms with the documents whose digests they pin, so that who signs sees what it means."""

    terms: AuthorizationTerms
    policy: str
    card: RateCard
    split: Split
    meters: tuple[str, ...]  # what each meter counts, from the policy

    def as_json(self) -> dict[str, Any]:
        return {
            "terms": self.terms.as_json(),
            "policy": self.policy,
            "rateCard": self.card.as_json(),
            "split": self.split.as_json(),
        }


def agreement_of(document: Any) -> Agreement:
    """Raises InputInvalid if members are missing, VerificationFailed if one is not what the terms pin."""
    try:
        terms, policy = AuthorizationTerms.from_json(document["terms"]), str(document["policy"])
        card, split = RateCard.from_json(document["rateCard"]), Split.from_json(document["split"])
    except (KeyError, TypeError):
        raise InputInvalid("this is not an offer or agreement: terms, policy, rateCard and split are needed") from None
    for holds, what in (
        (hash_of(sha256(policy.encode())) == terms.scope.policy_hash, "policy"),
        (card.id() == terms.rate_card and card.token == terms.token, "rate card"),
        (split.id() == terms.split, "split"),
    ):
        if not holds:
            raise VerificationFailed(f"the {what} in the file is not the one the terms pin")
    if card.decimals != DECIMALS:
        raise InputInvalid(f"the rate card has {card.decimals} decimals; this command speaks yuan, with {DECIMALS}")
    return Agreement(terms, policy, card, split, meters_of(policy, card))


def meters_of(policy: str, card: RateCard) -> tuple[str, ...]:
    """What the policy says each meter of the card counts."""
    meters = tuple(str(meter) for meter in read_policy(policy).meters)
    if len(meters) != len(card.meters):
        raise InputInvalid(
            f"the policy names {len(meters)} meters, the rate card has {len(card.meters)}", field="meters"
        )
    return meters


def read_agreement(app: App, path: Path) -> Agreement:
    """What this home agreed to. Raises NotFound if it was not accepted here."""
    if not path.exists():
        raise NotFound(f"no agreement is kept at {path}; accept the offer from this home first")
    return agreement_of(app.require_file(path))


def price_rows(agreement: Agreement) -> list[tuple[str, str, str]]:
    """Meter, units and price (yuan) in words, one row a tier."""
    prices = []
    for name, meter in zip(agreement.meters, agreement.card.meters, strict=True):
        start = 0
        if meter.free_units:
            prices.append((name, f"first 前 {meter.free_units:,}", "free 免费"))
        for tier in meter.tiers:
            first, last = start + meter.free_units + 1, tier.up_to + meter.free_units
            upto = "and above 以上" if tier.up_to == MAX_UNITS else f"to 至 {last:,}"
            prices.append((name, f"{first:,} {upto}", f"{format_yuan(tier.price)} / {meter.unit_scale:,}"))
            start = tier.up_to
    return prices


def describe(app: App, agreement: Agreement) -> None:
    """Terms and prices in words, for who is about to sign them."""
    if app.as_json:
        return
    terms = agreement.terms
    scope = terms.scope
    rows = [
        ("provider 提供方", terms.provider),
        ("consumer 使用方", "any admitted 任一准入方" if terms.consumer == ZERO_ADDRESS else terms.consumer),
        ("product 产品", scope.product),
        ("version 版本", scope.version if int(scope.version, 16) else "any listed 任一在售版本"),
        ("purposes 用途", ", ".join(codes.names("purposes", scope.purposes))),
        ("modalities 方式", ", ".join(codes.names("modalities", scope.modalities))),
        ("quota 配额", ", ".join(f"{n:,}" for n in terms.max_units)),
        ("valid until 有效期至", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(terms.valid_until))),
        ("money 结算", "invoiced, by bank 发票银行结算" if terms.invoiced else f"escrowed {terms.token}"),
    ]
    app.table("Terms 条款", ("", ""), rows)
    app.table("Prices 价格 (CNY)", ("meter 计量", "units 用量", "price 单价"), price_rows(agreement))
    parts = [(payee, f"{bps / 100:.2f} %") for payee, bps in agreement.split.shares]
    app.table("Split 分账", ("payee 收款方", "share 份额"), parts)


@authorization.command()
@click.option("--space", "space_id", required=True)
@click.option("--product", "product_id", required=True)
@click.option("--version", default=ZERO_HASH, help="Pin one version; any listed version if left out.")
@click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--card", required=True, help="Rate card id.")
@click.option("--split", "split_id", required=True)
@click.option("--purpose", "purposes", multiple=True, required=True)
@click.option("--modality", "modalities", multiple=True, required=True)
@click.option("--right", "rights", multiple=True, default=("USE",), show_default=True)
@click.option("--quota", required=True, help="Units per meter, such as 5000,120000.")
@click.option("--credit-window", default="0", help="Units served before a signed head is wanted; 0: no limit.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 3660), help="Validity.")
@click.option(
    "--thaw-hours",
    default=72,
    show_default=True,
    type=click.IntRange(24, 720),
    help="Settlement window after the end, 24 to 720.",
)
@click.option(
    "--grace-hours", default=0, show_default=True, type=click.IntRange(0, 720), help="Between revocation and end."
)
@click.option("--invoiced", is_flag=True, help="Money by bank (CNY) instead of escrow.")
@click.option("--token", help="ERC-20 address; the demo token if left out.")
@click.option("--fast", is_flag=True, help="Heads settle without a consistency proof.")
@click.option("--offer-days", default=7, show_default=True, type=click.IntRange(1, 3660))
@click.option("--max-acceptances", default=1, show_default=True, type=click.IntRange(1, 2**32 - 1))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@pass_app
def offer(app: App, /, product_id: str, output: Path, **options: Any) -> None:
    """Offer terms to any admitted consumer, signed by the provider's wallet, as a file to hand over.

    \b
    Example:  sluice --wallet provider.json authorization offer --space 0x… --product 0x… --version 0x… \\
                --policy policy.json --card 0x… --split 0x… --purpose RESEARCH --modality API_PULL \\
                --quota 5000,120000 -o offer.json
    """
    # The server is asked for nothing that is signed: a version's id proves what belongs to it.
    product = parse_hash(product_id, "product")
    version = parse_hash(options["version"], "version")
    policy = options["policy"].read_text(encoding="utf-8")
    policy_hash = hash_of(sha256(policy.encode()))
    if version != ZERO_HASH:
        row = app.get(f"/v1/versions/{version}")
        if version_id(product, row["digests"], row["metadata"], policy_hash, row["parents"]) != version:
            raise VerificationFailed(f"version {version} is not of this product, or has another policy")
    card = RateCard.from_json(
        {k: v for k, v in app.get(f"/v1/rate-cards/{options['card']}").items() if k != "rateCard"}
    )
    split = Split.from_json(app.get(f"/v1/splits/{options['split_id']}")["shares"])
    token = token_of(app, "CNY" if options["invoiced"] else None, options["token"])
    if card.token != token:
        how = "with --currency CNY" if options["invoiced"] else "for this token"
        raise InputInvalid(f"the rate card is in {card.token}: register one {how}", field="card")
    if options["quota"].count(",") + 1 != len(card.meters):
        raise InputInvalid(f"--quota needs a number for each of the card's {len(card.meters)} meters", field="quota")
    now = int(time.time())
    scope = Scope(
        space=parse_hash(options["space_id"], "space"),
        code_lists=codes.digest(),
        product=product,
        version=version,
        policy_hash=policy_hash,
        purposes=codes.bits("purposes", list(options["purposes"])),
        modalities=codes.bits("modalities", list(options["modalities"])),
        rights=codes.bits("rights", list(options["rights"])),
        credit_units=_quad(options["credit_window"], "credit-window"),
    )
    terms = AuthorizationTerms(
        scope=scope,
        provider=app.address,
        consumer=ZERO_ADDRESS,
        token=token,
        rate_card=parse_hash(options["card"], "card"),
        split=parse_hash(options["split_id"], "split"),
        max_units=_quad(options["quota"], "quota"),
        valid_from=now - 60,
        valid_until=now + options["days"] * DAY,
        thaw_seconds=options["thaw_hours"] * 3600,
        revoke_grace=options["grace_hours"] * 3600,
        flags=(INVOICED if options["invoiced"] else 0) | (FAST if options["fast"] else 0),
        salt=ZERO_HASH,
    )
    agreement = agreement_of(Agreement(terms, policy, card, split, ()).as_json())
    describe(app, agreement)
    app.confirm()
    made = Offer.of(terms, options["max_acceptances"], now + options["offer_days"] * DAY)
    document = agreement.as_json() | {
        "offer": made.as_json(),
        "providerSignature": app.wallet.sign(made, app.domain(terms)),
    }
    write_file(output, document)
    app.show({"file": str(output)} | document, lambda: click.echo(f"✓ offer signed: {output}"))


@authorization.command()
@click.argument("offer_file", type=click.Path(path_type=Path))
@click.option("--reserve", default="0", show_default=True, help="Yuan to reserve; exactly this much.")
@click.option("--hours", default=24, show_default=True, help="How long the acceptance may be submitted.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@pass_app
def accept(app: App, offer_file: Path, reserve: str, hours: int, output: Path) -> None:
    """Accept an offer: the consumer's wallet signs the terms and the acceptance.

    \b
    Example:  sluice --wallet consumer.json authorization accept offer.json --reserve 100 -o opening.json
    """
    document = app.require_file(offer_file)
    offered = agreement_of(document)
    template = offered.terms
    try:
        made = Offer.from_json(document["offer"])
        signature = str(document["providerSignature"])
    except (KeyError, TypeError):
        raise InputInvalid(f"{offer_file} is not an offer", field="offer") from None
    domain = app.domain(template)
    if made != Offer.of(template, made.max_acceptances, made.offer_until):
        raise VerificationFailed("the offer is for other terms than those in the file")
    if not is_signed_by(template.provider, made, domain, signature):
        raise VerificationFailed("the offer is not signed by its provider, or for another chain or ledger")
    terms = replace(template, consumer=app.address, salt=hash_of(secrets.token_bytes(32)))
    identifier = terms.digest(domain)
    agreement = replace(offered, terms=terms)
    describe(app, agreement)
    amount = parse_yuan(reserve, "reserve")
    if not app.as_json:
        app.console.print(f"reserve 预留 {format_yuan(amount)} CNY · authorization {identifier}")
    app.confirm()
    acceptance = Acceptance(authorization_id=identifier, reserve=amount, deadline=int(time.time()) + hours * 3600)
    opening = {
        "terms": terms.as_json(),
        "offer": made.as_json(),
        "acceptance": acceptance.as_json(),
        "providerSignature": signature,
        "consumerSignature": app.wallet.sign(terms, domain),
        "acceptanceSignature": app.wallet.sign(acceptance, domain),
    }
    write_file(output, opening)
    write_file(app.agreement(identifier), agreement.as_json())
    app.show({"authorization": identifier, "file": str(output)}, lambda: click.echo(f"✓ accepted: {output}"))


@authorization.command(name="open")
@click.argument("opening_file", type=click.Path(path_type=Path))
@pass_app
def open_(app: App, opening_file: Path) -> None:
    """Submit an accepted offer; anyone may pay the gas.

    \b
    Example:  sluice --wallet provider.json authorization open opening.json
    """
    opening = app.require_file(opening_file)
    done = app.write("authorization.open", {"opening": opening})
    app.show_write(done, authorization=done["result"])


@authorization.command(name="list")
@click.option("--provider")
@click.option("--consumer")
@click.option("--product")
@click.option("--purpose", help="Allowed for this purpose: RESEARCH, PUBLIC_SAFETY …")
@click.option("--status", type=click.Choice(["OPEN", "ENDED", "CLOSED"]))
@click.option("--at-block", type=click.IntRange(0), help="As it was at the end of this block.")
@pass_app
def list_(
    app: App,
    provider: str | None,
    consumer: str | None,
    product: str | None,
    purpose: str | None,
    status: str | None,
    at_block: int | None,
) -> None:
    """Authorizations, by party, product, purpose or status.

    \b
    Example:  sluice authorization list --consumer 0x… --status OPEN
    """
    asked = {"provider": provider, "consumer": consumer, "product": product, "purpose": purpose, "status": status}
    found = app.all("/v1/authorizations", **asked, at_block=at_block)
    rows = [
        (i["authorization"], i["mode"], i["status"], i["size"], format_yuan(int(i["due"])), format_yuan(int(i["paid"])))
        for i in found
    ]
    columns = ("authorization", "mode", "status", "leaves settled", "due", "paid")
    app.show(found, lambda: app.table("Authorizations 授权", columns, rows))


@authorization.command()
@click.argument("authorization_id")
@pass_app
def show(app: App, authorization_id: str) -> None:
    """One authorization.

    \b
    Example:  sluice authorization show 0x…
    """
    app.show(app.get(f"/v1/authorizations/{parse_hash(authorization_id, 'authorization')}"))


def _simple(app: App, operation: str, authorization_id: str, **arguments: Any) -> None:
    _, terms = app.terms(authorization_id)
    app.show_write(app.write(operation, {"terms": terms.as_json()} | arguments))


@authorization.command()
@click.argument("authorization_id")
@click.option("--reason", default="MISUSE", show_default=True)
@pass_app
def revoke(app: App, authorization_id: str, reason: str) -> None:
    """End it after its grace. Provider or space operator.

    \b
    Example:  sluice --wallet provider.json authorization revoke 0x… --reason MISUSE
    """
    number = codes.code("reasons", reason).number
    _simple(app, "authorization.revoke", authorization_id, approvers=[], reason=number)


@authorization.command()
@click.argument("authorization_id")
@click.option("--reason", default="CONTRACT_ENDED", show_default=True)
@pass_app
def close(app: App, authorization_id: str, reason: str) -> None:
    """End it at once. Consumer or provider.

    \b
    Example:  sluice --wallet consumer.json authorization close 0x…
    """
    _simple(app, "authorization.close", authorization_id, reason=codes.code("reasons", reason).number)


@authorization.command()
@click.argument("authorization_id")
@pass_app
def finalize(app: App, authorization_id: str) -> None:
    """After the settlement window: close for ever and release what is left. Anyone.

    \b
    Example:  sluice --wallet consumer.json authorization finalize 0x…
    """
    _simple(app, "authorization.finalize", authorization_id)


@authorization.command(name="top-up")
@click.argument("authorization_id")
@click.option("--amount", required=True)
@pass_app
def top_up(app: App, authorization_id: str, amount: str) -> None:
    """Add to a reservation from your own account. Anyone.

    \b
    Example:  sluice --wallet consumer.json authorization top-up 0x… --amount 50
    """
    wanted, _ = app.terms(authorization_id)
    settled = settled_head(app.get(f"/v1/authorizations/{wanted}"))
    shown = settled.as_json() if settled else None
    _simple(app, "authorization.top-up", authorization_id, settled=shown, amount=str(parse_yuan(amount)))


@authorization.command()
@click.argument("authorization_id")
@click.option("--amount", required=True, help="0 stops a thaw under way.")
@pass_app
def thaw(app: App, authorization_id: str, amount: str) -> None:
    """Start to take unpaid reservation back. Consumer.

    \b
    Example:  sluice --wallet consumer.json authorization thaw 0x… --amount 20
    """
    _simple(app, "authorization.thaw", authorization_id, amount=str(parse_yuan(amount)))


@authorization.command()
@click.argument("authorization_id")
@pass_app
def release(app: App, authorization_id: str) -> None:
    """Move what has thawed to the consumer's free money. Anyone.

    \b
    Example:  sluice --wallet consumer.json authorization release 0x…
    """
    _simple(app, "authorization.release", authorization_id)


@authorization.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def cancel(app: App, file: Path) -> None:
    """Withdraw an offer (its provider), or terms signed and not opened (either party).

    \b
    Example:  sluice --wallet provider.json authorization cancel offer.json
    """
    document = app.require_file(file)
    if "acceptance" in document:
        app.show_write(app.write("authorization.cancel", {"terms": document["terms"]}))
    else:
        terms = AuthorizationTerms.from_json(document.get("terms"))
        operation = "authorization.cancel-offer" + ("-invoiced" if terms.invoiced else "")
        done = app.write(operation, {"offer": document["offer"]})
        app.show_write(done, offer=short(document["offer"]["termsTemplateHash"]))
