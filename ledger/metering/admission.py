"""May this use be served? Decided at every use, from values, before anything is delivered.

What is made anew for every use is a msgspec struct: one is made in a tenth of the time of a frozen dataclass.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import msgspec

from ledger.core.ids import ZERO_HASH, Hash32
from ledger.core.ratecard import RateCard
from ledger.core.terms import AgentGrant, AuthorizationTerms, Quad, UsageCeiling
from ledger.metering.policy import AUTHORIZATION, REVENUE, Policy

# Numbers of the reasons in ledger/core/codelists.
REVOKED, CLOSED, EXPIRED, NOT_YET_VALID, PARTY_SUSPENDED = 1, 2, 3, 4, 5
PURPOSE_NOT_ALLOWED, MODALITY_NOT_ALLOWED, VERSION_NOT_ALLOWED, VERSION_NOT_LISTED = 6, 7, 8, 9
QUOTA_EXCEEDED, RESERVATION_EXCEEDED, CREDIT_WINDOW_FULL = 10, 11, 12
APPROVAL_EXPIRED, PARENT_ENDED, CREDENTIAL_MISSING, SIGNER_CAP_EXCEEDED = 13, 14, 15, 16
AGENT_NOT_ALLOWED, AGENT_CALL_CAP, AGENT_DAY_CAP, CALL_CAP, DAY_CAP = 17, 18, 19, 20, 21
REGION_NOT_ALLOWED, EVIDENCE_MISSING, BELOW_MINIMUM, LIMIT_REACHED = 22, 23, 24, 25

BEIJING = timezone(timedelta(hours=8))
NO_UNITS: Quad = (0, 0, 0, 0)
TO_SETTLE = 3_600  # seconds that must be left of a ceiling: heads under it settle until its expiry, not after
COUNT = "count"  # how many people a result is about, stated by the use


@dataclass(frozen=True, slots=True)
class Standing:
    """What the mirror and the policy say, now, of an authorization and a version to be used under it."""

    authorization_id: Hash32
    product: Hash32
    version: Hash32
    version_status: str  # LISTED, RETIRED, RECALLED
    terms: AuthorizationTerms
    card: RateCard
    policy: Policy
    status: str  # OPEN, ENDED, CLOSED
    ended_how: str  # as the mirror has it
    ended_at: int  # seconds
    reserved: int  # token units; less what is thawing
    suspended: bool  # provider, consumer or metering agent
    approved_until: int | None = None  # seconds, inclusive: when the first of its approvals runs out
    parents_end: int | None = None  # seconds: when the first of those it derives from ends
    credentialed_until: int | None = None  # seconds, inclusive: when the first credential the policy asks for runs out
    signer_cap: int | None = None  # token units: what heads signed by the gateway's key may come to; None: a wallet's
    signer_until: int | None = None  # seconds, inclusive: when that key expires
    agents_until: Mapping[str, int] = field(default_factory=dict)  # session key of the consumer → last second


class Request(msgspec.Struct, frozen=True):
    """One use as asked for; `units` is what it would count."""

    purpose: int
    modality: int
    units: Quad
    region: str = ""
    evidence: frozenset[str] = frozenset()  # names of the digests it carries
    stated: dict[str, int] | None = None  # every count it states; None: nothing is delivered yet, so nothing is known
    agent: AgentGrant | None = None


class Position(msgspec.Struct, frozen=True):
    """Where the log stands before this use."""

    units: Quad
    credits: int  # token units
    acknowledged: Quad  # units in the last head the consumer signed
    ceiling: UsageCeiling | None = None
    held: Quad = NO_UNITS  # units of deliveries under way


class Count(NamedTuple):
    """A counter across uses: what, of whom, when."""

    counter: str
    subject: str
    period: str  # a day or year in Beijing; empty: for ever


class Decision(msgspec.Struct, frozen=True):
    """The one reason not to serve, or None; and what the use adds to counters if it is served."""

    reason: int | None
    counts: dict[Count, int] = {}


def counters_of(standing: Standing, request: Request, now: int) -> list[Count]:
    """The counters this use may move: to be read before it is decided."""
    return [count for count, _, _, _ in _limits(standing, request, now, 0)]


def decide(
    standing: Standing, request: Request, position: Position, counted: Mapping[Count, int], now: int
) -> Decision:
    """Args:
    counted: what stands on the counters of `counters_of`; absent: nothing.
    now: seconds.
    """
    reason = _outside(standing, request, now)
    if reason is not None:
        return Decision(reason)
    terms, card, units = standing.terms, standing.card, request.units
    before = position.units if position.held == NO_UNITS else _plus(position.units, position.held)
    after = _plus(before, units)
    if _beyond(after, terms.max_units):
        return Decision(QUOTA_EXCEEDED)
    due = card.due(after, position.credits)
    # What this use alone costs is asked for by few: agents' caps and limits on revenue.
    price = due - card.due(before, position.credits) if request.agent or standing.policy.limits else 0
    if not terms.invoiced and due > standing.reserved:
        return Decision(RESERVATION_EXCEEDED)
    if standing.signer_cap is not None and (due > standing.signer_cap or now > (standing.signer_until or 0)):
        return Decision(SIGNER_CAP_EXCEEDED)
    if request.agent is not None and price > request.agent.per_use:
        return Decision(AGENT_CALL_CAP)
    if standing.policy.per_use is not None and _beyond(units, standing.policy.per_use):
        return Decision(CALL_CAP)
    counts: dict[Count, int] = {}
    if request.stated is not None and any(
        limit.counter != REVENUE and limit.counter not in request.stated for limit in standing.policy.limits
    ):
        return Decision(EVIDENCE_MISSING)  # what is limited has to be said
    for count, adds, most, over in _limits(standing, request, now, price):
        if counted.get(count, 0) + adds > most:
            return Decision(over)
        if adds:
            counts[count] = adds
    if _unpaid(position, terms, after, due, now):
        return Decision(CREDIT_WINDOW_FULL)
    return Decision(None, counts)


def _outside(standing: Standing, request: Request, now: int) -> int | None:
    """What terms, registries and policy say, whatever was used before."""
    terms, scope, policy = standing.terms, standing.terms.scope, standing.policy
    if standing.status != "OPEN" or now >= standing.ended_at:
        ends = {
            "revoked": REVOKED,
            "closed": CLOSED,
            "closed together": CLOSED,
            "ended by its parent": PARENT_ENDED,
        }
        return ends.get(standing.ended_how, EXPIRED)
    if standing.parents_end is not None and now >= standing.parents_end:
        return PARENT_ENDED
    if now < terms.valid_from:
        return NOT_YET_VALID
    if standing.suspended:
        return PARTY_SUSPENDED
    if standing.approved_until is not None and now > standing.approved_until:
        return APPROVAL_EXPIRED
    if standing.credentialed_until is not None and now > standing.credentialed_until:
        return CREDENTIAL_MISSING
    agent = request.agent
    if agent is not None and now > min(agent.expiry, standing.agents_until.get(agent.key, 0)):
        return AGENT_NOT_ALLOWED
    if not scope.purposes >> request.purpose & 1:
        return PURPOSE_NOT_ALLOWED
    if not scope.modalities >> request.modality & 1:
        return MODALITY_NOT_ALLOWED
    pinned = standing.version == scope.version
    if standing.product != scope.product or not (pinned or scope.version == ZERO_HASH):
        return VERSION_NOT_ALLOWED
    # A retired version still serves the authorizations that pinned it; a recalled one serves nobody.
    if standing.version_status == "RECALLED" or (standing.version_status != "LISTED" and not pinned):
        return VERSION_NOT_LISTED
    if policy.regions and request.region not in policy.regions:
        return REGION_NOT_ALLOWED
    if not request.evidence.issuperset(policy.evidence):
        return EVIDENCE_MISSING
    # A use that says how many its result is about must be about enough; one that does not say it is no count.
    if policy.minimum and (request.stated or {}).get(COUNT, policy.minimum) < policy.minimum:
        return BELOW_MINIMUM
    return None


def _limits(standing: Standing, request: Request, now: int, price: int) -> Iterator[tuple[Count, int, int, int]]:
    """Counters this use touches: which, what it adds, the most it may come to, the reason if it would be more."""
    policy, agent = standing.policy, request.agent
    if policy.per_day is None and agent is None and not policy.limits:
        return
    id_, today = standing.authorization_id, datetime.fromtimestamp(now, BEIJING)
    day, year = today.strftime("%Y-%m-%d"), today.strftime("%Y")
    if policy.per_day is not None:
        for meter, (units, most) in enumerate(zip(request.units, policy.per_day, strict=True)):
            yield Count(f"units/{meter}", id_, day), units, most, DAY_CAP
    if agent is not None:
        whose = f"{id_}:{agent.key}"
        yield Count("agent/spent", whose, day), price, agent.per_day, AGENT_DAY_CAP
        yield Count("agent/uses", whose, day), 1, agent.uses_per_day, AGENT_DAY_CAP
    for limit in policy.limits:
        adds = price if limit.counter == REVENUE else (request.stated or {}).get(limit.counter, 0)
        subject, period = (id_, "") if limit.per == AUTHORIZATION else (standing.terms.provider, year)
        yield Count(limit.name, subject, period), adds, limit.most, LIMIT_REACHED


def _unpaid(position: Position, terms: AuthorizationTerms, after: Quad, due: int, now: int) -> bool:
    """More than was agreed waits for a signature, and no ceiling covers it."""
    if terms.scope.credit_units == NO_UNITS:
        return False
    windows = zip(after, position.acknowledged, terms.scope.credit_units, strict=True)
    # A window of 0: none was agreed for this meter.
    if not any(window and n - acknowledged > window for n, acknowledged, window in windows):
        return False
    ceiling = position.ceiling
    return (
        ceiling is None
        or now + TO_SETTLE > ceiling.expiry
        or due > ceiling.max_due
        or position.credits < ceiling.min_credits
        or _beyond(after, ceiling.max_units)
    )


def _plus(one: Quad, other: Quad) -> Quad:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _beyond(units: Quad, most: Quad) -> bool:
    return units[0] > most[0] or units[1] > most[1] or units[2] > most[2] or units[3] > most[3]
