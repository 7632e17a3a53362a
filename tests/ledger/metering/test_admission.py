"""What ends a use, decided from values alone: every reason, and the last value that is still allowed."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from ledger.core.codes import codes, reason
from ledger.core.ids import Address
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Tier
from ledger.core.terms import AgentGrant, AuthorizationTerms, Quad, Scope, UsageCeiling
from ledger.metering import admission
from ledger.metering.admission import Count, Decision, Position, Request, Standing, counters_of, decide
from ledger.metering.counting import parse_counter
from ledger.metering.policy import Limit, Policy
from tests.world import digest

NOW = 1_800_000_000  # 2027-01-15 16:00 in Beijing
ADDRESS, CONSUMER, AGENT = (Address("0x" + n * 20) for n in ("11", "22", "33"))
ID = digest("authorization")
CALLS = (parse_counter("calls"),)


def standing(terms: dict[str, Any] | None = None, policy: dict[str, Any] | None = None, **changes: Any) -> Standing:
    card = RateCard(ADDRESS, 6, (Meter(1, 0, (Tier(MAX_UNITS, 10),)),))
    scope = Scope(
        space=digest("space"),
        code_lists=digest("codes"),
        product=digest("product"),
        version=digest("version"),
        policy_hash=digest("policy"),
        purposes=1,
        modalities=1,
        rights=1,
        credit_units=(0, 0, 0, 0),
    )
    given_terms = AuthorizationTerms(
        scope=replace(scope, **{k: v for k, v in (terms or {}).items() if hasattr(scope, k)}),
        provider=ADDRESS,
        consumer=CONSUMER,
        token=ADDRESS,
        rate_card=card.id(),
        split=digest("split"),
        max_units=(100, 0, 0, 0),
        valid_from=NOW - 100,
        valid_until=NOW + 100,
        thaw_seconds=86_400,
        revoke_grace=0,
        flags=0,
        salt=digest("salt"),
    )
    given_terms = replace(given_terms, **{k: v for k, v in (terms or {}).items() if not hasattr(scope, k)})
    values: dict[str, Any] = {
        "authorization_id": ID,
        "product": digest("product"),
        "version": digest("version"),
        "version_status": "LISTED",
        "terms": given_terms,
        "card": card,
        "policy": Policy(CALLS, **(policy or {})),
        "status": "OPEN",
        "ended_how": "",
        "ended_at": NOW + 100,
        "reserved": 1_000,
        "suspended": False,
    }
    return Standing(**values | changes)


REQUEST = Request(0, 0, (1, 0, 0, 0))
START = Position((0, 0, 0, 0), 0, (0, 0, 0, 0))
GRANT = AgentGrant(
    authorization_id=ID, key=AGENT, per_use=50, per_day=80, uses_per_day=3, issued_at=NOW - 10, expiry=NOW + 10
)
DAY = "2027-01-15"


def refused(
    at: Standing,
    request: Request = REQUEST,
    position: Position = START,
    counted: dict[Count, int] | None = None,
    now: int = NOW,
) -> str | None:
    number = decide(at, request, position, counted or {}, now).reason
    return None if number is None else reason(number).code


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"approved_until": NOW}, None),
        ({"approved_until": NOW - 1}, "APPROVAL_EXPIRED"),
        ({"credentialed_until": NOW}, None),
        ({"credentialed_until": NOW - 1}, "CREDENTIAL_MISSING"),
        ({"credentialed_until": 0}, "CREDENTIAL_MISSING"),
        ({"parents_end": NOW + 1}, None),
        ({"parents_end": NOW}, "PARENT_ENDED"),
        ({"status": "CLOSED", "ended_how": "closed together"}, "CLOSED"),
        ({"ended_at": NOW, "ended_how": "ended by its parent"}, "PARENT_ENDED"),
        ({"ended_at": NOW, "ended_how": "revoked"}, "REVOKED"),
        ({"ended_at": NOW, "ended_how": ""}, "EXPIRED"),
        ({"suspended": True}, "PARTY_SUSPENDED"),
        ({"reserved": 9}, "RESERVATION_EXCEEDED"),
        ({"reserved": 10}, None),
        ({"signer_cap": 9}, "SIGNER_CAP_EXCEEDED"),
        ({"signer_cap": 10}, "SIGNER_CAP_EXCEEDED"),
        ({"signer_cap": 10, "signer_until": NOW}, None),
        ({"signer_cap": 10, "signer_until": NOW - 1}, "SIGNER_CAP_EXCEEDED"),
        ({"product": digest("other")}, "VERSION_NOT_ALLOWED"),
        ({"version": digest("other")}, "VERSION_NOT_ALLOWED"),
        ({"version_status": "RETIRED"}, None),
        ({"version_status": "RECALLED"}, "VERSION_NOT_LISTED"),
    ],
)
def test_a_use_is_refused_for_the_one_reason(changes: dict[str, Any], expected: str | None) -> None:
    assert refused(standing(**changes)) == expected


def test_a_retired_version_serves_who_pinned_it_only() -> None:
    any_version = {"version": "0x" + "00" * 32}
    assert refused(standing(terms=any_version)) is None
    assert refused(standing(terms=any_version, version_status="RETIRED")) == "VERSION_NOT_LISTED"


@pytest.mark.parametrize(
    ("policy", "request_", "expected"),
    [
        ({"regions": frozenset({"CN-SH"})}, {"region": "CN-SH"}, None),
        ({"regions": frozenset({"CN-SH"})}, {"region": "SG"}, "REGION_NOT_ALLOWED"),
        ({"regions": frozenset({"CN-SH"})}, {}, "REGION_NOT_ALLOWED"),
        ({"evidence": ("subjectAuthorization",)}, {"evidence": frozenset({"subjectAuthorization"})}, None),
        ({"evidence": ("subjectAuthorization",)}, {"evidence": frozenset({"outputReview"})}, "EVIDENCE_MISSING"),
        ({"minimum": 10}, {"stated": {"count": 10}}, None),
        ({"minimum": 10}, {"stated": {"count": 9}}, "BELOW_MINIMUM"),
        ({"minimum": 10}, {}, None),
        ({"per_use": (2, 0, 0, 0)}, {"units": (2, 0, 0, 0)}, None),
        ({"per_use": (2, 0, 0, 0)}, {"units": (3, 0, 0, 0)}, "CALL_CAP"),
    ],
)
def test_duties_of_the_policy_hold_at_each_use(policy: Any, request_: Any, expected: str | None) -> None:
    assert refused(standing(policy=policy), changed(REQUEST, **request_)) == expected


def test_a_day_is_a_day_in_beijing() -> None:
    at = standing(policy={"per_day": (5, 0, 0, 0)}, ended_at=NOW + 10**6)
    today, tomorrow = (Count("units/0", ID, day) for day in (DAY, "2027-01-16"))
    assert today in counters_of(at, REQUEST, NOW)
    assert decide(at, REQUEST, START, {today: 4}, NOW) == Decision(None, {today: 1})
    assert refused(at, counted={today: 5}) == "DAY_CAP"
    # 16:00 in Beijing and eight hours more are the next day there, and still today in Greenwich.
    assert decide(at, REQUEST, START, {today: 5}, NOW + 8 * 3600).counts == {tomorrow: 1}


def test_persons_are_counted_for_the_provider_and_the_year_whatever_the_authorization() -> None:
    limit = Limit("persons", "SENSITIVE_PI", "provider-year", 9_999)
    year = Count("persons/SENSITIVE_PI", ADDRESS, "2027")
    one, other = (standing(policy={"limits": (limit,)}, authorization_id=digest(name)) for name in ("one", "other"))
    three = changed(REQUEST, stated={"persons": 3})
    assert counters_of(one, three, NOW) == counters_of(other, three, NOW) == [year]
    assert decide(one, three, START, {year: 9_996}, NOW).counts == {year: 3}
    assert refused(other, three, counted={year: 9_997}) == "LIMIT_REACHED"
    assert refused(other, changed(REQUEST, stated={"persons": 0}), counted={year: 9_999}) is None  # about nobody
    assert refused(other, changed(REQUEST, stated={})) == "EVIDENCE_MISSING"  # what is limited has to be said


def test_revenue_is_counted_in_money_and_a_privacy_budget_per_authorization() -> None:
    revenue, budget = Limit("revenue", "", "provider-year", 25), Limit("epsilon", "", "authorization", 3_000_000)
    at = standing(policy={"limits": (revenue, budget)})
    year, spent = Count("revenue", ADDRESS, "2027"), Count("epsilon", ID, "")
    two = changed(REQUEST, units=(2, 0, 0, 0), stated={"epsilon": 1_000_000})
    assert decide(at, two, START, {spent: 2_000_000}, NOW).counts == {year: 20, spent: 1_000_000}
    assert refused(at, two, counted={spent: 2_000_001}) == "LIMIT_REACHED"
    assert refused(at, two, counted={year: 6}) == "LIMIT_REACHED"


@pytest.mark.parametrize(
    ("units", "spent", "uses", "changes", "expected"),
    [
        (5, 0, 0, {}, None),
        (6, 0, 0, {}, "AGENT_CALL_CAP"),
        (5, 30, 0, {}, None),
        (5, 31, 0, {}, "AGENT_DAY_CAP"),
        (1, 0, 2, {}, None),
        (1, 0, 3, {}, "AGENT_DAY_CAP"),
        (1, 0, 0, {"agents_until": {AGENT: NOW - 1}}, "AGENT_NOT_ALLOWED"),
        (1, 0, 0, {"agents_until": {}}, "AGENT_NOT_ALLOWED"),
    ],
)
def test_an_agent_spends_what_its_principal_allows(
    units: int, spent: int, uses: int, changes: Any, expected: str | None
) -> None:
    at = standing(**{"agents_until": {AGENT: NOW}} | changes)
    counted = {Count("agent/spent", f"{ID}:{AGENT}", DAY): spent, Count("agent/uses", f"{ID}:{AGENT}", DAY): uses}
    request = changed(REQUEST, units=(units, 0, 0, 0), agent=GRANT)
    assert refused(at, request, counted=counted) == expected
    # The principal itself can still buy when its agent is capped.
    assert refused(at, changed(request, agent=None), counted=counted) is None


def test_a_grant_that_has_run_out_serves_nobody() -> None:
    at = standing(agents_until={AGENT: NOW + 100})
    assert refused(at, changed(REQUEST, agent=replace(GRANT, expiry=NOW))) is None
    assert refused(at, changed(REQUEST, agent=replace(GRANT, expiry=NOW - 1))) == "AGENT_NOT_ALLOWED"


CEILING = UsageCeiling(authorization_id=ID, max_units=(20, 0, 0, 0), min_credits=0, max_due=200, expiry=NOW + 3_600)


@pytest.mark.parametrize(
    ("used", "ceiling", "credits", "expected"),
    [
        (4, None, 0, None),
        (5, None, 0, "CREDIT_WINDOW_FULL"),
        (5, CEILING, 0, None),
        (19, CEILING, 0, None),
        (20, CEILING, 0, "CREDIT_WINDOW_FULL"),
        (5, replace(CEILING, expiry=NOW + 3_599), 0, "CREDIT_WINDOW_FULL"),
        (5, replace(CEILING, max_due=59), 0, "CREDIT_WINDOW_FULL"),
        (5, replace(CEILING, max_due=60), 0, None),
        (5, replace(CEILING, min_credits=1), 0, "CREDIT_WINDOW_FULL"),
        (5, replace(CEILING, min_credits=1), 1, None),
    ],
)
def test_what_waits_for_a_signature_stays_within_the_window_or_under_a_ceiling(
    used: int, ceiling: UsageCeiling | None, credits: int, expected: str | None
) -> None:
    at = standing(terms={"credit_units": (5, 0, 0, 0)})
    position = Position((used, 0, 0, 0), credits, (0, 0, 0, 0), ceiling)
    assert refused(at, position=position) == expected


def test_deliveries_under_way_count_as_used() -> None:
    assert refused(standing(), position=changed(START, held=(99, 0, 0, 0))) is None
    assert refused(standing(), position=changed(START, held=(100, 0, 0, 0))) == "QUOTA_EXCEEDED"


def test_an_invoiced_authorization_needs_no_reservation() -> None:
    assert refused(standing(terms={"flags": 4}, reserved=0)) is None


def test_every_number_is_in_the_code_list() -> None:
    numbers = {
        value for name, value in vars(admission).items() if name.isupper() and isinstance(value, int) and value < 100
    }
    assert numbers == {code.number for code in codes("reasons") if 0 < code.number < 100}


units = st.tuples(*[st.integers(0, 200)] * 4)


@given(units, units, units, units, st.integers(0, 500), st.integers(0, 3000))
def test_whatever_is_served_stays_within_quota_reservation_and_window(
    used: Quad, asked: Quad, acknowledged: Quad, window: Quad, credits: int, reserved: int
) -> None:
    at = standing(terms={"credit_units": window, "max_units": (300, 300, 300, 300)}, reserved=reserved)
    position = Position(used, credits, acknowledged)
    if decide(at, changed(REQUEST, units=asked), position, {}, NOW).reason is None:
        after = [a + b for a, b in zip(used, asked, strict=True)]
        assert all(n <= 300 for n in after)
        assert max(0, after[0] * 10 - credits) <= reserved
        assert all(not w or n - a <= w for n, a, w in zip(after, acknowledged, window, strict=True))
