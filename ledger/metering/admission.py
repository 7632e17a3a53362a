"""May this use be served? Decided at every use, from values, before anything is delivered."""

from dataclasses import dataclass

from ledger.core.ratecard import RateCard
from ledger.core.terms import AuthorizationTerms, Quad

# Numbers of the reasons in ledger/core/codelists.
REVOKED, CLOSED, EXPIRED, NOT_YET_VALID, PARTY_SUSPENDED = 1, 2, 3, 4, 5
PURPOSE_NOT_ALLOWED, MODALITY_NOT_ALLOWED, VERSION_NOT_ALLOWED, VERSION_NOT_LISTED = 6, 7, 8, 9
QUOTA_EXCEEDED, RESERVATION_EXCEEDED, CREDIT_WINDOW_FULL = 10, 11, 12
APPROVAL_EXPIRED, PARENT_ENDED = 13, 14


@dataclass(frozen=True, slots=True)
class Standing:
    """What the mirror knows of an authorization now."""

    terms: AuthorizationTerms
    card: RateCard
    status: str  # OPEN, ENDED, CLOSED
    ended_how: str  # as the mirror has it
    ended_at: int  # seconds
    reserved: int  # token units; less what is thawing
    suspended: bool  # provider, consumer or metering agent
    approved_until: int | None = None  # seconds, inclusive: when the first of its approvals runs out
    parents_end: int | None = None  # seconds: when the first of those it derives from ends


@dataclass(frozen=True, slots=True)
class Request:
    """One use as asked for; `units` is what it would count."""

    purpose: int
    modality: int
    product: str
    version: str
    version_status: str
    units: Quad


def refusal(standing: Standing, request: Request, total: Quad, credits: int, signed: Quad, now: int) -> int | None:
    """The one reason not to serve, or None.

    Args:
        total: units served so far.
        credits: credits given so far, token units.
        signed: units in the last head the consumer signed.
        now: seconds.
    """
    terms, scope = standing.terms, standing.terms.scope
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
    if not scope.purposes >> request.purpose & 1:
        return PURPOSE_NOT_ALLOWED
    if not scope.modalities >> request.modality & 1:
        return MODALITY_NOT_ALLOWED
    if request.product != scope.product or (int(scope.version, 16) and request.version != scope.version):
        return VERSION_NOT_ALLOWED
    pinned = request.version == scope.version
    # A retired version still serves the authorizations that pinned it; a recalled one serves nobody.
    if request.version_status == "RECALLED" or (request.version_status != "LISTED" and not pinned):
        return VERSION_NOT_LISTED
    a, b, c, d = (have + more for have, more in zip(total, request.units, strict=True))
    after: Quad = (a, b, c, d)
    if any(n > most for n, most in zip(after, terms.max_units, strict=True)):
        return QUOTA_EXCEEDED
    if not terms.invoiced and standing.card.due(after, credits) > standing.reserved:
        return RESERVATION_EXCEEDED
    for n, acknowledged, window in zip(after, signed, scope.credit_units, strict=True):
        if window and n - acknowledged > window:  # a window of 0: none was agreed for this meter
            return CREDIT_WINDOW_FULL
    return None
