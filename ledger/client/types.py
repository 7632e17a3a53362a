"""What the API sends and takes, as types. Written by `make client`: do not edit."""

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

T = TypeVar("T")


class Page(TypedDict, Generic[T]):
    """`next` is what to pass as `after` for the next page; None at the end."""

    items: list[T]
    next: str | None


class Account(TypedDict):
    owner: str
    free: dict[str, str]


class Arrears(TypedDict):
    authorization: str
    mode: Literal["escrowed", "invoiced"]
    provider: str
    consumer: str
    token: str
    due: str
    paid: str
    arrears: str


class Scope(TypedDict):
    space: str
    codeLists: str
    product: str
    version: str
    policyHash: str
    parent: str
    supersedes: str
    purposes: str
    modalities: int
    rights: int
    creditUnits: list[str]
    approversHash: str


class Terms(TypedDict):
    """What both wallets signed; its EIP-712 digest is the authorization's id."""

    scope: Scope
    provider: str
    consumer: str
    meteringAgent: str
    token: str
    rateCard: str
    split: str
    maxUnits: list[str]
    validFrom: int
    validUntil: int
    thawSeconds: int
    revokeGrace: int
    flags: int
    salt: str


class Authorization(TypedDict):
    authorization: str
    ledger: Literal["UsageLedger", "InvoiceLedger"]
    mode: Literal["escrowed", "invoiced"]
    space: str
    product: str
    version: str
    provider: str
    consumer: str
    token: str
    split: str
    status: Literal["OPEN", "ENDED", "CLOSED"]
    opened: int
    endedAt: int
    endedHow: str
    endedBlock: int | None
    reason: str | None
    size: str
    units: list[str]
    credits: str
    asOf: int
    root: str
    basis: Literal["NONE", "CONSUMER", "AGENT", "AGENT_CAPPED", "CEILING"]
    due: str
    paid: str
    arrears: str
    reserved: str
    thawing: str
    thawEnd: int
    refunded: str
    claimed: str
    terms: Terms
    since: int


class BillHead(TypedDict):
    size: int
    units: list[str]
    asOf: int
    root: str


class BillSettlement(TypedDict):
    transaction: str
    block: int


class BillLine(TypedDict):
    meter: int
    tier: int
    units: str
    price: str
    unitScale: str
    amount: str
    firstLeaf: int
    lastLeaf: int


class Bill(TypedDict):
    """Derived from leaves and checked against the chain; `digest` is SHA-256 of the rest, RFC 8785."""

    bill: Literal["sluice-bill"]
    formatVersion: int
    authorization: str
    ledger: Literal["UsageLedger", "InvoiceLedger"]
    provider: str
    consumer: str
    product: str
    token: str
    rateCard: str
    head: BillHead
    settlement: BillSettlement
    lines: list[BillLine]
    subtotal: str
    credits: str
    due: str
    paid: str
    arrears: str
    split: dict[str, str]
    payableFen: str | None
    outstandingFen: str | None
    roundingUy: str | None
    digest: str


class Code(TypedDict):
    number: int
    code: str
    zh: str
    en: str


class CodeLists(TypedDict):
    digest: str
    roles: list[Code]
    rights: list[Code]
    purposes: list[Code]
    modalities: list[Code]
    reasons: list[Code]


class Credential(TypedDict):
    space: str
    wallet: str
    credentialType: int
    digest: str
    validUntil: int
    revoked: bool
    reason: str | None
    since: int


class DeadLetter(TypedDict):
    offset: str
    at: int
    attempts: int
    error: str
    event: dict[str, Any]


class Deployment(TypedDict):
    chainId: int
    genesis: str
    block: int
    contracts: dict[str, str]
    codeHashes: dict[str, str]


class Digest(TypedDict):
    algorithm: int
    value: str


class DigestAt(TypedDict):
    block: int
    digest: str


class Event(TypedDict):
    offset: str
    retracted: bool
    contract: str
    event: str
    args: dict[str, Any]
    block: int
    blockHash: str
    time: int
    logIndex: int
    transaction: str
    address: str
    topics: list[str]
    data: str


class EventPage(TypedDict):
    """`next` is how far this page came: what to pass as `after`, now or once there is more."""

    items: list[Event]
    next: str
    more: bool


class UsageHead(TypedDict):
    authorizationId: str
    size: str
    units: list[str]
    credits: str
    asOf: int
    root: str


class Head(TypedDict):
    head: UsageHead
    providerSignature: str
    consumerSignature: str | None


class HealthProblem(TypedDict):
    code: str
    detail: str


class Health(TypedDict):
    status: Literal["ok", "degraded"]
    mirror: str
    chainId: int
    block: int | None
    blockHash: str | None
    safe: int
    final: int
    checkedAgain: int
    head: int | None
    nodeAnsweredSecondsAgo: float | None
    finalityViolated: NotRequired[dict[str, Any] | None]
    problem: NotRequired[HealthProblem | None]


class Leaf(TypedDict):
    """One entry of a usage log: 230 bytes on chain."""

    authorizationId: str
    index: int
    useIdHash: str
    units: list[str]
    cumUnits: list[str]
    cumCredits: str
    eventTime: int
    servedAt: int
    kind: int
    purpose: int
    modality: int
    version: str
    payloadHash: str


class Live(TypedDict):
    status: Literal["ok"]


class Tier(TypedDict):
    upTo: str
    price: str


class Meter(TypedDict):
    unitScale: str
    freeUnits: str
    tiers: list[Tier]


class Movement(TypedDict):
    event: str
    block: int
    transaction: str
    due: str
    paid: str


class NewSession(TypedDict):
    wallet: str
    expiresAt: int
    token: str


class NewWebhook(TypedDict):
    webhook: str
    url: str
    contract: str | None
    event: str | None
    about: str | None
    final: bool
    offset: str
    status: Literal["active", "retrying", "paused"]
    failures: int
    lastError: str | None
    nextAttempt: int
    deadLetters: int
    created: int
    secret: str


class Nonce(TypedDict):
    nonce: str
    expiresAt: int


class OperationArguments(TypedDict):
    arguments: dict[str, Any]
    zh: str
    en: str


class Participant(TypedDict):
    space: str
    wallet: str
    roles: list[str]
    suspended: bool
    reason: str | None
    digest: str
    since: int


class Payment(TypedDict):
    authorization: str
    kind: Literal["recorded", "reversed", "claimed"]
    referenceHash: str
    amount: str
    transaction: str
    block: int
    logIndex: int


class PrepareRequest(TypedDict):
    """`operation` is one of the names at /v1/operations."""

    operation: str
    arguments: dict[str, Any]
    sender: str


class PreparedTransaction(TypedDict):
    operation: str
    summary: dict[str, str]
    transaction: dict[str, Any]
    result: Any
    gas: str


class Problem(TypedDict):
    """An error, RFC 9457: `code` for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    details: NotRequired[dict[str, Any] | None]


class Requirement(TypedDict):
    approver: str
    approvalType: int


class Product(TypedDict):
    product: str
    space: str
    provider: str
    metadata: str
    approvers: list[Requirement]
    since: int


class PurposeSum(TypedDict):
    purpose: str
    modality: str
    uses: int
    refusals: int
    units: list[str]


class RateCard(TypedDict):
    rateCard: str
    token: str
    decimals: int
    meters: list[Meter]


class Ready(TypedDict):
    status: Literal["ready", "not ready"]
    reasons: list[str]


class ReplayRequest(TypedDict):
    after: NotRequired[str | None]


class Reservation(TypedDict):
    authorization: str
    provider: str
    consumer: str
    token: str
    status: Literal["OPEN", "ENDED", "CLOSED"]
    reserved: str
    paid: str
    left: str
    thawing: str


class Revenue(TypedDict):
    payee: str
    split: str
    token: str
    accrued: str
    sent: str
    left: str


class SendRequest(TypedDict):
    signed: str


class Sent(TypedDict):
    transaction: str


class Session(TypedDict):
    wallet: str
    expiresAt: int


class SessionKey(TypedDict):
    wallet: str
    key: str
    registeredAt: int
    expiry: int
    revokedAt: int | None
    maxDue: str
    since: int


class Settlement(TypedDict):
    """A change of an authorization's head, of what is due for it, or of what its reservation paid."""

    authorization: str
    event: Literal["Settled", "ArrearsPaid", "ClosedTogether"]
    head: UsageHead
    due: str
    paid: str
    arrears: str
    providerSigner: str
    consumerSigner: str
    basis: Literal["NONE", "CONSUMER", "AGENT", "AGENT_CAPPED", "CEILING"]
    transaction: str
    block: int
    logIndex: int
    time: int


class Share(TypedDict):
    accrued: str
    sent: str
    left: str


class Shares(TypedDict):
    split: str
    token: str
    payees: dict[str, Share]


class SignInRequest(TypedDict):
    """The text of EIP-4361, and the wallet's signature over it (EIP-191; contract wallets by EIP-1271)."""

    message: str
    signature: str


class Space(TypedDict):
    space: str
    operator: str
    proposedOperator: str | None
    policyDigest: str
    codeLists: str
    approvers: list[Requirement]
    since: int


class SplitShare(TypedDict):
    payee: str
    bps: int


class Split(TypedDict):
    split: str
    shares: list[SplitShare]


class StatementLine(TypedDict):
    authorization: str
    role: Literal["provider", "consumer"]
    mode: Literal["escrowed", "invoiced"]
    token: str
    movements: list[Movement]
    due: str
    paid: str


class StatementShare(TypedDict):
    split: str
    token: str
    amount: str
    block: int
    transaction: str


class Statement(TypedDict):
    statement: Literal["sluice-statement"]
    formatVersion: int
    party: str
    month: str
    timeZone: Literal["Asia/Shanghai"]
    lines: list[StatementLine]
    shares: list[StatementShare]


class Transaction(TypedDict):
    transaction: str
    block: int
    events: list[str]


class TransactionEvent(TypedDict):
    contract: str
    event: str
    args: dict[str, Any]


class TransactionStatus(TypedDict):
    transaction: str
    status: Literal["unknown", "pending", "seen", "safe", "final", "failed"]
    block: NotRequired[int | None]
    blockHash: NotRequired[str | None]
    gasUsed: NotRequired[str | None]
    gasPrice: NotRequired[str | None]
    reason: NotRequired[str | None]
    mirrored: NotRequired[bool]
    events: NotRequired[list[TransactionEvent]]


class TypedData(TypedDict):
    typedData: dict[str, Any]
    digest: str
    summary: dict[str, str]


class TypedDataRequest(TypedDict):
    """Terms to sign (AuthorizationTerms), or Offer, Acceptance, UsageHead for the ledger named."""

    ledger: NotRequired[str]
    primaryType: str
    message: dict[str, Any]


class UsageSum(TypedDict):
    """What was settled. Only the members that were asked for by `by` are there, besides the sums."""

    day: str | None
    space: str | None
    product: str | None
    provider: str | None
    consumer: str | None
    token: str | None
    settlements: int
    uses: str
    units: list[str]
    due: str
    paid: str


class Use(TypedDict):
    leaf: Leaf
    requestHash: str
    salt: str | None
    payload: dict[str, Any] | None
    signature: str


class Version(TypedDict):
    version: str
    product: str
    digests: list[Digest]
    metadata: str
    policyHash: str
    parents: list[str]
    status: Literal["LISTED", "RETIRED", "RECALLED"]
    reason: str | None
    published: int
    since: int


class Webhook(TypedDict):
    webhook: str
    url: str
    contract: str | None
    event: str | None
    about: str | None
    final: bool
    offset: str
    status: Literal["active", "retrying", "paused"]
    failures: int
    lastError: str | None
    nextAttempt: int
    deadLetters: int
    created: int


class WebhookRequest(TypedDict):
    url: str
    contract: NotRequired[str | None]
    event: NotRequired[str | None]
    about: NotRequired[str | None]
    final: NotRequired[bool]
    after: NotRequired[str | None]
