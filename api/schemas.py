"""The wire: names in camelCase, amounts and long numbers as text. Ids and addresses are lower-case 0x-hex."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from ledger.core import codes
from ledger.mirror.queries import Row, status_of

T = TypeVar("T")


def _text(pattern: str, example: str, words: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example], "description": words})


# Rows come from the mirror, checked when they were read: here the forms are only described.
HASH_EXAMPLE = "0x6b1f0cf2b1a0e1f6d9c63a4f6c1f0f5e7a52a4b4c1be1e8ab2f4a5d0c3e7f901"
ADDRESS_EXAMPLE = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
Hash = Annotated[str, _text("^0x[0-9a-f]{64}$", HASH_EXAMPLE, "32 bytes")]
Address = Annotated[str, _text("^0x[0-9a-f]{40}$", ADDRESS_EXAMPLE, "20 bytes")]
Number = Annotated[str, _text("^[0-9]{1,39}$", "1250000", "a whole number as text")]
Signed = Annotated[str, _text("^-?[0-9]{1,40}$", "-1250", "a whole number as text")]
Bytes = Annotated[str, _text("^0x([0-9a-f]{2})*$", "0x1b", "bytes")]
OffsetText = Annotated[str, _text("^[0-9]+-[0-9]+-[0-9a-f]{16}$", "41-2-6b1f0cf2b1a0e1f6", "how far a reader has come")]
Block = Annotated[int, Field(ge=-1, examples=[4711], description="block number")]
Seconds = Annotated[int, Field(ge=0, examples=[1795449600], description="seconds since 1970, UTC")]
Mode = Literal["escrowed", "invoiced"]
Status = Literal["OPEN", "ENDED", "CLOSED"]
Basis = Literal["NONE", "CONSUMER", "AGENT", "AGENT_CAPPED", "CEILING"]
LedgerName = Literal["UsageLedger", "InvoiceLedger"]


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Page(Wire, Generic[T]):
    """`next` is what to pass as `after` for the next page; null at the end."""

    items: list[T]
    next: str | None


class Problem(BaseModel):
    """An error, RFC 9457: `code` for programs, `detail` for people."""

    type: str = Field(examples=["urn:sluice:problem:not_found"])
    title: str = Field(examples=["not found"])
    status: int = Field(examples=[404])
    code: str = Field(examples=["not_found"])
    detail: str = Field(examples=[f"there is no space {HASH_EXAMPLE}"])
    details: dict[str, Any] | None = Field(default=None, description="values a program may want")


# --------------------------------------------------------------------------------------------- registries


class Code(Wire):
    number: int = Field(description="the bit's position, or the number itself for reasons")
    code: str = Field(examples=["RESEARCH"])
    zh: str = Field(examples=["科学研究"])
    en: str = Field(examples=["research"])


class CodeLists(Wire):
    digest: Hash
    roles: list[Code]
    rights: list[Code]
    purposes: list[Code]
    modalities: list[Code]
    reasons: list[Code]


class Requirement(Wire):
    approver: Address
    approval_type: int = Field(examples=[1])


class Space(Wire):
    space: Hash
    operator: Address
    proposed_operator: Address | None
    policy_digest: Hash
    code_lists: Hash
    approvers: list[Requirement]
    since: Block = Field(description="block of the last change")


class Participant(Wire):
    space: Hash
    wallet: Address
    roles: list[str] = Field(examples=[["PROVIDER"]])
    suspended: bool
    reason: str | None = Field(examples=[None])
    digest: Hash
    since: Block


class Credential(Wire):
    space: Hash
    wallet: Address
    credential_type: int
    digest: Hash
    valid_until: Seconds = Field(description="seconds, inclusive")
    revoked: bool
    reason: str | None = Field(examples=["BREACH"])
    since: Block


class SessionKey(Wire):
    wallet: Address = Field(description="whom the key signs for")
    key: Address
    registered_at: Seconds
    expiry: Seconds = Field(description="seconds, inclusive")
    revoked_at: Seconds | None = Field(examples=[None])
    max_due: Number = Field(description="what heads it signs may come to on any one authorization, in token units")
    since: Block


class Product(Wire):
    product: Hash
    space: Hash
    provider: Address
    metadata: Hash = Field(description="SHA-256 of the canonical metadata")
    approvers: list[Requirement] = Field(description="who must approve")
    since: Block


class Digest(Wire):
    algorithm: int = Field(description="multihash code: sha-256 18, keccak-256 27, sm3-256 21325", examples=[18])
    value: Hash


class Version(Wire):
    version: Hash
    product: Hash
    digests: list[Digest]
    metadata: Hash
    policy_hash: Hash
    parents: list[Hash] = Field(description="versions it was derived from")
    status: Literal["LISTED", "RETIRED", "RECALLED"]
    reason: str | None = Field(examples=["BREACH"])
    published: Block
    since: Block


class Tier(Wire):
    up_to: Number
    price: Number = Field(description="token units for `unitScale` units")


class Meter(Wire):
    unit_scale: Number
    free_units: Number
    tiers: list[Tier]


class RateCard(Wire):
    rate_card: Hash
    token: Address
    decimals: int = Field(examples=[6])
    meters: list[Meter]


class SplitShare(Wire):
    payee: Address
    bps: int = Field(ge=1, le=10_000, description="hundredths of a percent", examples=[3500])


class Split(Wire):
    split: Hash
    shares: list[SplitShare]


# ------------------------------------------------------------------------------------------ authorizations


class Scope(Wire):
    space: Hash
    code_lists: Hash
    product: Hash
    version: Hash
    policy_hash: Hash
    parent: Hash
    supersedes: Hash
    purposes: Number = Field(description="bits")
    modalities: int = Field(description="bits")
    rights: int = Field(description="bits")
    credit_units: list[Number]
    approvers_hash: Hash


class Terms(Wire):
    """What both wallets signed; its EIP-712 digest is the authorization's id."""

    scope: Scope
    provider: Address
    consumer: Address
    metering_agent: Address
    token: Address
    rate_card: Hash
    split: Hash
    max_units: list[Number]
    valid_from: Seconds
    valid_until: Seconds = Field(description="seconds, exclusive")
    thaw_seconds: int
    revoke_grace: int
    flags: int = Field(description="bits: 1 FAST, 2 AGENT_CAPPED, 4 INVOICED")
    salt: Hash


class Authorization(Wire):
    authorization: Hash
    ledger: LedgerName
    mode: Mode
    space: Hash
    product: Hash
    version: Hash = Field(description="zero: any that is listed when it is served")
    provider: Address
    consumer: Address
    token: Address
    split: Hash
    status: Status = Field(description="as of the block that is named, or now")
    opened: Block
    ended_at: Seconds = Field(description="seconds: validUntil, or earlier")
    ended_how: str = Field(examples=["revoked"])
    ended_block: Block | None
    reason: str | None = Field(examples=["BREACH"])
    size: Number = Field(description="leaves settled")
    units: list[Number]
    credits: Number
    as_of: Seconds
    root: Hash
    basis: Basis = Field(description="who vouched for the settled head")
    due: Number
    paid: Number
    arrears: Number
    reserved: Number
    thawing: Number
    thaw_end: Seconds
    refunded: Number
    claimed: Number
    terms: Terms
    since: Block


class UsageHead(Wire):
    authorization_id: Hash
    size: Number
    units: list[Number]
    credits: Number
    as_of: Seconds
    root: Hash


class Settlement(Wire):
    """A change of an authorization's head, of what is due for it, or of what its reservation paid."""

    authorization: Hash
    event: Literal["Settled", "ArrearsPaid", "ClosedTogether"]
    head: UsageHead
    due: Number
    paid: Number
    arrears: Number
    provider_signer: Address = Field(description="zero: the provider was the caller")
    consumer_signer: Address
    basis: Basis
    transaction: Hash
    block: Block
    log_index: int
    time: Seconds


class Payment(Wire):
    authorization: Hash
    kind: Literal["recorded", "reversed", "claimed"]
    reference_hash: Hash
    amount: Number
    transaction: Hash
    block: Block
    log_index: int


class Leaf(Wire):
    """One entry of a usage log: 230 bytes on chain."""

    authorization_id: Hash
    index: int
    use_id_hash: Hash
    units: list[Number]
    cum_units: list[Number]
    cum_credits: Number
    event_time: Seconds
    served_at: Seconds
    kind: int = Field(description="0 use, 1 credit, 2 period fee, 3 note, 4 refusal", examples=[0])
    purpose: int
    modality: int
    version: Hash
    payload_hash: Hash


class Use(Wire):
    leaf: Leaf
    request_hash: Hash
    salt: Bytes | None = Field(description="null once erased")
    payload: dict[str, Any] | None
    signature: Bytes = Field(description="the provider's, over the receipt")


class Head(Wire):
    head: UsageHead
    provider_signature: Bytes
    consumer_signature: Bytes | None


# --------------------------------------------------------------------------------------------------- money


class Account(Wire):
    owner: Address
    free: dict[str, Number] = Field(description="by token", examples=[{ADDRESS_EXAMPLE: "1250000"}])


class Share(Wire):
    accrued: Number
    sent: Number
    left: Number


class Shares(Wire):
    split: Hash
    token: Address
    payees: dict[str, Share]


class BillHead(Wire):
    size: int
    units: list[Number]
    as_of: Seconds
    root: Hash


class BillSettlement(Wire):
    transaction: Hash
    block: Block


class BillLine(Wire):
    meter: int
    tier: int
    units: Number
    price: Number
    unit_scale: Number
    amount: Number
    first_leaf: int
    last_leaf: int


class Bill(Wire):
    """Derived from leaves and checked against the chain; `digest` is SHA-256 of the rest, RFC 8785."""

    bill: Literal["sluice-bill"]
    format_version: int
    authorization: Hash
    ledger: LedgerName
    provider: Address
    consumer: Address
    product: Hash
    token: Address
    rate_card: Hash
    head: BillHead
    settlement: BillSettlement
    lines: list[BillLine]
    subtotal: Number
    credits: Number
    due: Number
    paid: Number
    arrears: Number
    split: dict[str, Number]
    payable_fen: Number | None
    outstanding_fen: Number | None
    rounding_uy: Signed | None
    digest: Hash


class Movement(Wire):
    event: str = Field(examples=["Settled"])
    block: Block
    transaction: Hash
    due: Signed
    paid: Signed


class StatementLine(Wire):
    authorization: Hash
    role: Literal["provider", "consumer"]
    mode: Mode
    token: Address
    movements: list[Movement]
    due: Signed
    paid: Signed


class StatementShare(Wire):
    split: Hash
    token: Address
    amount: Number
    block: Block
    transaction: Hash


class Statement(Wire):
    statement: Literal["sluice-statement"]
    format_version: int
    party: Address
    month: str = Field(examples=["2026-11"])
    time_zone: Literal["Asia/Shanghai"]
    lines: list[StatementLine]
    shares: list[StatementShare]


# ---------------------------------------------------------------------------------------------- aggregates


class UsageSum(Wire):
    """What was settled. Only the members that were asked for by `by` are there, besides the sums."""

    day: str | None = Field(description="of Asia/Shanghai", examples=["2026-11-23"])
    space: Hash | None
    product: Hash | None
    provider: Address | None
    consumer: Address | None
    token: Address | None
    settlements: int
    uses: Number = Field(description="leaves, refusals and credits among them")
    units: list[Number]
    due: Number
    paid: Number = Field(description="escrowed only: what the reservation paid")


class PurposeSum(Wire):
    purpose: str = Field(examples=["RESEARCH"])
    modality: str = Field(examples=["API_PULL"])
    uses: int
    refusals: int
    units: list[Number]


class Revenue(Wire):
    payee: Address
    split: Hash
    token: Address
    accrued: Number
    sent: Number
    left: Number


class Reservation(Wire):
    authorization: Hash
    provider: Address
    consumer: Address
    token: Address
    status: Status
    reserved: Number
    paid: Number
    left: Number
    thawing: Number


class Arrears(Wire):
    authorization: Hash
    mode: Mode
    provider: Address
    consumer: Address
    token: Address
    due: Number
    paid: Number
    arrears: Number


# -------------------------------------------------------------------------------------------------- events


class Event(Wire):
    offset: OffsetText
    retracted: bool = Field(description="true: what was told before, of this very event, is not so any more")
    contract: str = Field(examples=["UsageLedger"])
    event: str = Field(examples=["Settled"])
    args: dict[str, Any] = Field(description="every number as text")
    block: Block
    block_hash: Hash
    time: Seconds
    log_index: int
    transaction: Hash
    address: Address
    topics: list[Hash]
    data: Bytes


class EventPage(Wire):
    """`next` is how far this page came: what to pass as `after`, now or once there is more."""

    items: list[Event]
    next: OffsetText
    more: bool = Field(description="true: there may be more now")


class TransactionEvent(Wire):
    contract: str = Field(examples=["UsageLedger"])
    event: str = Field(examples=["Settled"])
    args: dict[str, Any] = Field(description="every number as text")


class Transaction(Wire):
    transaction: Hash
    block: Block
    events: list[str] = Field(examples=[["UsageLedger.Opened"]])


class TransactionStatus(Wire):
    transaction: Hash
    status: Literal["unknown", "pending", "seen", "safe", "final", "failed"]
    block: Block | None = None
    block_hash: Hash | None = None
    gas_used: Number | None = None
    gas_price: Number | None = None
    reason: str | None = Field(default=None, examples=["the authorization has ended"])
    mirrored: bool = Field(default=False, description="the mirror has its block: reads show its effect")
    events: list[TransactionEvent] = []


class WebhookRequest(Wire):
    url: str = Field(max_length=2000, examples=["https://receiver.example/sluice"])
    contract: str | None = Field(default=None, max_length=64)
    event: str | None = Field(default=None, max_length=64, examples=["Settled"])
    about: str | None = Field(default=None, max_length=66, description="an id or wallet the events are about")
    final: bool = Field(default=True, description="only what is final; false: sooner, and with retractions")
    after: OffsetText | None = Field(default=None, description="begin after this; without it with what comes now")


class Webhook(Wire):
    webhook: str = Field(examples=["wh_2f6c0b1a9d3e4f55"])
    url: str = Field(examples=["https://receiver.example/sluice"])
    contract: str | None = Field(examples=["UsageLedger"])
    event: str | None = Field(examples=["Settled"])
    about: str | None = Field(examples=[HASH_EXAMPLE])
    final: bool
    offset: OffsetText = Field(description="up to here everything was delivered or is a dead letter")
    status: Literal["active", "retrying", "paused"]
    failures: int = Field(description="in a row")
    last_error: str | None = Field(examples=["the receiver answered 503"])
    next_attempt: Seconds
    dead_letters: int
    created: Seconds


class NewWebhook(Webhook):
    secret: str = Field(
        description="signs every delivery; shown this once", examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    )


class DeadLetter(Wire):
    offset: OffsetText
    at: Seconds
    attempts: int
    error: str = Field(examples=["the receiver answered 400"])
    event: dict[str, Any] = Field(description="the CloudEvent as it was sent")


class ReplayRequest(Wire):
    after: OffsetText | None = Field(default=None, description="null: from the beginning")


# ------------------------------------------------------------------------------------------------- session


class Nonce(Wire):
    nonce: str = Field(examples=["k8Ds0fPq2mZr1xWv"])
    expires_at: Seconds


class SignInRequest(Wire):
    """The text of EIP-4361, and the wallet's signature over it (EIP-191; contract wallets by EIP-1271)."""

    message: str = Field(max_length=4096, description="the text of EIP-4361, line for line")
    signature: str = Field(max_length=20_000, examples=["0x" + "ab" * 65])


class Session(Wire):
    wallet: Address
    expires_at: Seconds


class NewSession(Session):
    token: str = Field(description="send as `Authorization: Bearer …`")


# -------------------------------------------------------------------------------------------------- writes


class OperationArguments(Wire):
    arguments: dict[str, Any]
    zh: str = Field(examples=["创建数据空间"])
    en: str = Field(examples=["Create a data space"])


class Deployment(Wire):
    chain_id: int
    genesis: Hash
    block: Block
    contracts: dict[str, Address]
    code_hashes: dict[str, Hash]


class PrepareRequest(Wire):
    """`operation` is one of the names at /v1/operations."""

    operation: str = Field(max_length=64, examples=["space.accept-operator"])
    arguments: dict[str, Any] = Field(examples=[{"space": HASH_EXAMPLE}])
    sender: str = Field(max_length=42, examples=[ADDRESS_EXAMPLE])


class PreparedTransaction(Wire):
    operation: str = Field(examples=["space.accept-operator"])
    summary: dict[str, str] = Field(description="what a wallet should show before it signs, zh and en")
    transaction: dict[str, Any] = Field(description="the unsigned EIP-1559 transaction")
    result: Any = Field(description="what a simulation on the pending block returned")
    gas: Number


class TypedDataRequest(Wire):
    """Terms to sign (AuthorizationTerms), or Offer, Acceptance, UsageHead for the ledger named."""

    ledger: str = Field(default="UsageLedger", max_length=64)
    primary_type: str = Field(max_length=64, examples=["UsageHead"])
    message: dict[str, Any]


class TypedData(Wire):
    typed_data: dict[str, Any]
    digest: Hash
    summary: dict[str, str] = Field(description="what a wallet should show before it signs, zh and en")


class SendRequest(Wire):
    signed: str = Field(max_length=262_144, examples=["0x02f8b0"], description="signed EIP-1559 bytes as 0x-hex")


class Sent(Wire):
    transaction: Hash


# -------------------------------------------------------------------------------------------------- health


class HealthProblem(Wire):
    code: str = Field(examples=["node_down"])
    detail: str = Field(examples=["the node does not answer"])


class Health(Wire):
    status: Literal["ok", "degraded"]
    mirror: str = Field(examples=["following"])
    chain_id: int
    block: Block | None
    block_hash: Hash | None
    safe: Block
    final: Block
    checked_again: Block = Field(description="up to here the second pass has read again")
    head: Block | None
    node_answered_seconds_ago: float | None
    finality_violated: dict[str, Any] | None = None
    problem: HealthProblem | None = None


class Live(Wire):
    status: Literal["ok"]


class Ready(Wire):
    status: Literal["ready", "not ready"]
    reasons: list[str] = Field(examples=[["the mirror is 12 blocks behind"]])


class DigestAt(Wire):
    block: Block
    digest: Hash


# ---------------------------------------------------------------------------------------- from rows to wire


def reason_text(number: int) -> str | None:
    """The reason's code, None if there is none."""
    return codes.reason(number).code if number else None


def mode_of(ledger: str) -> Mode:
    return "invoiced" if ledger == "InvoiceLedger" else "escrowed"


def participant(row: Row) -> Participant:
    more = {"roles": codes.names("roles", row["roles"]), "suspended": bool(row["suspended"])}
    return Participant(**row | more | {"reason": reason_text(row["reason"])})


def credential(row: Row) -> Credential:
    return Credential(**row | {"revoked": bool(row["revoked"]), "reason": reason_text(row["reason"])})


def session_key(row: Row) -> SessionKey:
    return SessionKey(**row | {"revoked_at": row["revoked_at"] or None, "max_due": str(row["max_due"])})


def version(row: Row) -> Version:
    return Version(**row | {"reason": reason_text(row["reason"])})


def authorization(row: Row, now: int) -> Authorization:
    texts = {k: str(row[k]) for k in ("credits", "due", "paid", "reserved", "thawing", "refunded", "claimed")}
    inner = ("number", "purposes", "modalities", "thaw", "recorded")  # in the terms, or part of another number
    more = {
        "mode": mode_of(row["ledger"]),
        "status": status_of(row, now),
        "reason": reason_text(row["reason"]),
        "arrears": str(max(0, row["due"] - row["paid"])),
    }
    return Authorization(**{k: v for k, v in row.items() if k not in inner} | texts | more)


def settlement(row: Row) -> Settlement:
    names = ("authorization", "event", "head", "provider_signer", "consumer_signer", "basis", "log_index")
    return Settlement(
        **{name: row[name] for name in names},
        due=str(row["due"]),
        paid=str(row["paid"]),
        arrears=str(row["arrears"]),
        transaction=row["transaction_hash"],
        block=row["block_number"],
        time=row["timestamp"],
    )


def payment(row: Row) -> Payment:
    names = ("authorization", "kind", "reference_hash", "log_index")
    return Payment(
        **{name: row[name] for name in names},
        amount=str(row["amount"]),
        transaction=row["transaction_hash"],
        block=row["block_number"],
    )
