"""The wire: names in camelCase, amounts and long numbers as text."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ledger.core import codes
from ledger.mirror.queries import status_of


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Space(Wire):
    space: str
    operator: str
    proposed_operator: str | None
    policy_digest: str
    code_lists: str
    approvers: list[dict[str, Any]]
    since: int = Field(description="block of the last change")


class Participant(Wire):
    space: str
    wallet: str
    roles: list[str]
    suspended: bool
    reason: str | None
    digest: str
    since: int


class Product(Wire):
    product: str
    space: str
    provider: str
    metadata: str = Field(description="SHA-256 of the canonical metadata")
    approvers: list[dict[str, Any]] = Field(description="who must approve: {approver, approvalType}")
    since: int


class Digest(Wire):
    algorithm: int = Field(description="multihash code: sha-256 18, keccak-256 27, sm3-256 21325")
    value: str


class Version(Wire):
    version: str
    product: str
    digests: list[Digest]
    metadata: str
    policy_hash: str
    parents: list[str] = Field(description="versions it was derived from")
    status: str = Field(description="LISTED, RETIRED or RECALLED")
    reason: str | None
    published: int = Field(description="block")
    since: int


class Authorization(Wire):
    authorization: str
    ledger: str
    mode: str = Field(description="escrowed or invoiced")
    space: str
    product: str
    provider: str
    consumer: str
    token: str
    split: str
    status: str = Field(description="OPEN, ENDED or CLOSED, now")
    opened: int = Field(description="block")
    ended_at: int = Field(description="seconds: validUntil, or earlier")
    ended_how: str
    ended_block: int | None
    reason: str | None
    size: str = Field(description="leaves settled")
    units: list[str]
    credits: str
    as_of: int
    root: str
    basis: str = Field(description="who vouched for the settled head: CONSUMER, AGENT, AGENT_CAPPED or CEILING")
    due: str
    paid: str
    arrears: str
    reserved: str
    thawing: str
    thaw_end: int
    refunded: str
    claimed: str
    terms: dict[str, Any]
    since: int


class Settlement(Wire):
    authorization: str
    head: dict[str, Any]
    due: str
    paid: str
    arrears: str
    provider_signer: str = Field(description="zero: the provider was the caller")
    consumer_signer: str
    basis: str
    transaction: str
    block: int


class Payment(Wire):
    authorization: str
    kind: str
    reference_hash: str
    amount: str
    transaction: str
    block: int


class Use(Wire):
    leaf: dict[str, Any]
    request_hash: str
    salt: str | None
    payload: dict[str, Any] | None
    signature: str


class Head(Wire):
    head: dict[str, Any]
    provider_signature: str
    consumer_signature: str | None


class PrepareRequest(Wire):
    """`operation` is one of the names at /v1/operations."""

    operation: str
    arguments: dict[str, Any]
    sender: str


class PreparedTransaction(Wire):
    operation: str
    summary: dict[str, str] = Field(description="what a wallet should show before it signs, zh and en")
    transaction: dict[str, Any] = Field(description="the unsigned EIP-1559 transaction")
    result: Any = Field(description="what a simulation on the pending block returned")
    gas: str


class TypedDataRequest(Wire):
    """Terms to sign (AuthorizationTerms), or Offer, Acceptance, UsageHead for the ledger named."""

    ledger: str = "UsageLedger"
    primary_type: str
    message: dict[str, Any]


class SendRequest(Wire):
    signed: str = Field(description="signed EIP-1559 bytes as 0x-hex")


class TransactionStatus(Wire):
    transaction: str
    status: str = Field(description="unknown, pending, seen, safe, final or failed")
    block: int | None = None
    block_hash: str | None = None
    gas_used: str | None = None
    gas_price: str | None = None
    reason: str | None = None
    mirrored: bool = Field(default=False, description="the mirror has its block: reads show its effect")
    events: list[dict[str, Any]] = []


def reason_text(number: int) -> str | None:
    """The reason's code, None if there is none."""
    return codes.reason(number).code if number else None


def participant(row: dict[str, Any]) -> Participant:
    return Participant(
        **row
        | {
            "roles": codes.names("roles", row["roles"]),
            "suspended": bool(row["suspended"]),
            "reason": reason_text(row["reason"]),
        }
    )


def version(row: dict[str, Any]) -> Version:
    return Version(**row | {"reason": reason_text(row["reason"])})


def authorization(row: dict[str, Any], now: int) -> Authorization:
    texts = {k: str(row[k]) for k in ("credits", "due", "paid", "reserved", "thawing", "refunded", "claimed")}
    inner = ("number", "purposes", "modalities", "thaw", "recorded")  # in the terms, or part of another number
    return Authorization(
        **{k: v for k, v in row.items() if k not in inner}
        | texts
        | {
            "mode": "invoiced" if row["ledger"] == "InvoiceLedger" else "escrowed",
            "status": status_of(row, now),
            "reason": reason_text(row["reason"]),
            "arrears": str(max(0, row["due"] - row["paid"])),
        }
    )


def settlement(row: dict[str, Any]) -> Settlement:
    return Settlement(
        authorization=row["authorization"],
        head=row["head"],
        due=str(row["due"]),
        paid=str(row["paid"]),
        arrears=str(row["arrears"]),
        provider_signer=row["provider_signer"],
        consumer_signer=row["consumer_signer"],
        basis=row["basis"],
        transaction=row["transaction_hash"],
        block=row["block_number"],
    )


def payment(row: dict[str, Any]) -> Payment:
    return Payment(
        authorization=row["authorization"],
        kind=row["kind"],
        reference_hash=row["reference_hash"],
        amount=str(row["amount"]),
        transaction=row["transaction_hash"],
        block=row["block_number"],
    )
