"""What is signed: terms, offers, acceptances, approvals, receipts, heads, ceilings, closes (protocol section 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

from ledger.core.hashing import keccak256
from ledger.core.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, hash_of, raw
from ledger.core.typed_data import Message

Quad: TypeAlias = tuple[int, int, int, int]
"""One value per meter, four meters, unused ones zero."""

FAST = 1  # heads settle without a consistency proof
AGENT_CAPPED = 2
INVOICED = 4  # money moves through banks

MIN_THAW = 24 * 3600  # seconds
MAX_THAW = 30 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope(Message):
    """What may be used, and for what. `version` zero: any version listed when it is served."""

    TYPE: ClassVar[str] = (
        "Scope(bytes32 space,bytes32 codeLists,bytes32 product,bytes32 version,bytes32 policyHash,bytes32 parent,"
        "bytes32 supersedes,uint64 purposes,uint32 modalities,uint32 rights,uint64[4] creditUnits,"
        "bytes32 approversHash)"
    )
    space: Hash32
    code_lists: Hash32
    product: Hash32
    version: Hash32
    policy_hash: Hash32
    parent: Hash32 = ZERO_HASH
    supersedes: Hash32 = ZERO_HASH
    purposes: int
    modalities: int
    rights: int
    credit_units: Quad
    approvers_hash: Hash32 = ZERO_HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationTerms(Message):
    """What both wallets sign; its digest is the authorization's id. Times in seconds, `valid_until` exclusive."""

    TYPE: ClassVar[str] = (
        "AuthorizationTerms(Scope scope,address provider,address consumer,address meteringAgent,address token,"
        "bytes32 rateCard,bytes32 split,uint64[4] maxUnits,uint40 validFrom,uint40 validUntil,uint32 thawSeconds,"
        "uint32 revokeGrace,uint8 flags,bytes32 salt)"
    )
    STRUCTS: ClassVar[Mapping[str, type[Message]]] = {"Scope": Scope}
    scope: Scope
    provider: Address
    consumer: Address
    metering_agent: Address = ZERO_ADDRESS
    token: Address
    rate_card: Hash32
    split: Hash32
    max_units: Quad
    valid_from: int
    valid_until: int
    thaw_seconds: int
    revoke_grace: int
    flags: int
    salt: Hash32

    def template(self) -> "AuthorizationTerms":
        """The terms as the provider offers them: consumer and salt still zero."""
        return replace(self, consumer=ZERO_ADDRESS, salt=ZERO_HASH)

    def compact_abi(self) -> tuple[Any, ...]:
        """The tuple of Solidity's CompactTerms: the scope given by its hash."""
        return (self.scope.struct_hash(), *self.as_abi()[1:])

    @property
    def invoiced(self) -> bool:
        return bool(self.flags & INVOICED)

    @property
    def ledger(self) -> str:
        """The contract that holds authorizations under these terms."""
        return "InvoiceLedger" if self.invoiced else "UsageLedger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Message):
    """The provider's offer of template terms to any admitted consumer."""

    TYPE: ClassVar[str] = "Offer(bytes32 termsTemplateHash,uint32 maxAcceptances,uint40 offerUntil)"
    terms_template_hash: Hash32
    max_acceptances: int
    offer_until: int

    @staticmethod
    def of(terms: AuthorizationTerms, max_acceptances: int, offer_until: int) -> "Offer":
        return Offer(
            terms_template_hash=hash_of(terms.template().struct_hash()),
            max_acceptances=max_acceptances,
            offer_until=offer_until,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance(Message):
    """The consumer's consent to reserve exactly this much, in token units."""

    TYPE: ClassVar[str] = "Acceptance(bytes32 authorizationId,uint128 reserve,uint40 deadline)"
    authorization_id: Hash32
    reserve: int
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UseReceipt(Message):
    """The provider's word for one use, given with the response."""

    TYPE: ClassVar[str] = (
        "UseReceipt(bytes32 authorizationId,uint64 index,bytes32 leafHash,uint64[4] cumUnits,uint40 servedAt)"
    )
    authorization_id: Hash32
    index: int
    leaf_hash: Hash32
    cum_units: Quad
    served_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageHead(Message):
    """The state of a usage log that both wallets sign."""

    TYPE: ClassVar[str] = (
        "UsageHead(bytes32 authorizationId,uint64 size,uint64[4] units,uint128 credits,uint40 asOf,bytes32 root)"
    )
    authorization_id: Hash32
    size: int
    units: Quad
    credits: int
    as_of: int
    root: Hash32

    def state_abi(self) -> tuple[Any, ...]:
        """The tuple of Solidity's Head: the ledger knows the id."""
        return self.as_abi()[1:]


NO_HEAD_ABI = (0, (0, 0, 0, 0), 0, 0, bytes(32))
"""Solidity's Head before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Message):
    """An approver's consent to a scope between two parties; the price is not part of it. `valid_until` inclusive."""

    TYPE: ClassVar[str] = (
        "Approval(bytes32 scopeHash,address provider,address consumer,uint16 approvalType,bytes32 documentHash,"
        "uint40 validUntil)"
    )
    scope_hash: Hash32
    provider: Address
    consumer: Address
    approval_type: int
    document_hash: Hash32
    valid_until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCeiling(Message):
    """The consumer's consent to heads it has not seen, up to these bounds. `expiry`: the last second to settle."""

    TYPE: ClassVar[str] = (
        "UsageCeiling(bytes32 authorizationId,uint64[4] maxUnits,uint128 minCredits,uint128 maxDue,uint40 expiry)"
    )
    authorization_id: Hash32
    max_units: Quad
    min_credits: int
    max_due: int
    expiry: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Message):
    """Both wallets' consent to close for ever at this head and amount, in token units."""

    TYPE: ClassVar[str] = "Close(bytes32 authorizationId,bytes32 headDigest,uint128 finalPaid,uint40 deadline)"
    authorization_id: Hash32
    head_digest: Hash32
    final_paid: int
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKey(Message):
    """A key's own word that it will sign for a wallet: its proof of possession. Domain: the SessionKeys contract."""

    TYPE: ClassVar[str] = "SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)"
    wallet: Address
    key: Address
    expiry: int
    max_due: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRequest(Message):
    """A call that its wallet signs and somebody else pays for (ERC-2771). Domain: the Forwarder contract."""

    TYPE: ClassVar[str] = (
        "ForwardRequest(address from,address to,uint256 value,uint256 gas,uint256 nonce,uint48 deadline,bytes data)"
    )
    from_: Address
    to: Address
    value: int
    gas: int
    nonce: int
    deadline: int
    data: bytes


def approvers_hash(requirements: Sequence[tuple[Address, int]]) -> Hash32:
    """What a scope names its approvers by: Keccak-256 of the ABI form of (approver, approval type)[]; none: zero."""
    if not requirements:
        return ZERO_HASH
    words = [(32).to_bytes(32, "big"), len(requirements).to_bytes(32, "big")]
    for approver, approval_type in requirements:
        words += [raw(approver).rjust(32, b"\0"), approval_type.to_bytes(32, "big")]
    return hash_of(keccak256(b"".join(words)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySession(Message):
    """The consumer opens a session at a gateway: `gateway` is Keccak-256 of its origin, `expires_at` in seconds."""

    TYPE: ClassVar[str] = "GatewaySession(bytes32 authorizationId,bytes32 gateway,bytes32 nonce,uint40 expiresAt)"
    authorization_id: Hash32
    gateway: Hash32
    nonce: Hash32
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentGrant(Message):
    """What a consumer lets the holder of one of its session keys spend, in token units and uses a day (Beijing).

    The last one issued counts. `expiry`: the last second.
    """

    TYPE: ClassVar[str] = (
        "AgentGrant(bytes32 authorizationId,address key,uint128 perUse,uint128 perDay,uint64 usesPerDay,"
        "uint40 issuedAt,uint40 expiry)"
    )
    authorization_id: Hash32
    key: Address
    per_use: int
    per_day: int
    uses_per_day: int
    issued_at: int
    expiry: int
