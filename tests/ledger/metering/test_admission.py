"""What ends a use's authorization, decided from values alone."""

from typing import Any

import pytest

from ledger.core.codes import reason
from ledger.core.ids import Address
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Tier
from ledger.core.terms import AuthorizationTerms, Scope
from ledger.metering.admission import Request, Standing, refusal
from tests.world import digest

NOW = 1_800_000_000
ADDRESS = Address("0x" + "11" * 20)


def standing(**changes: Any) -> Standing:
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
    terms = AuthorizationTerms(
        scope=scope,
        provider=ADDRESS,
        consumer=Address("0x" + "22" * 20),
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
    values: dict[str, Any] = {
        "terms": terms,
        "card": card,
        "status": "OPEN",
        "ended_how": "",
        "ended_at": NOW + 100,
        "reserved": 1_000,
        "suspended": False,
    }
    return Standing(**values | changes)


def refused(at: Standing, now: int = NOW) -> str | None:
    request = Request(0, 0, digest("product"), digest("version"), "LISTED", (1, 0, 0, 0))
    number = refusal(at, request, (0, 0, 0, 0), 0, (0, 0, 0, 0), now)
    return None if number is None else reason(number).code


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"approved_until": NOW}, None),
        ({"approved_until": NOW - 1}, "APPROVAL_EXPIRED"),
        ({"parents_end": NOW + 1}, None),
        ({"parents_end": NOW}, "PARENT_ENDED"),
        ({"status": "CLOSED", "ended_how": "closed together"}, "CLOSED"),
        ({"ended_at": NOW, "ended_how": "ended by its parent"}, "PARENT_ENDED"),
        ({"ended_at": NOW, "ended_how": "revoked"}, "REVOKED"),
        ({"ended_at": NOW, "ended_how": ""}, "EXPIRED"),
        ({"suspended": True}, "PARTY_SUSPENDED"),
        ({"reserved": 9}, "RESERVATION_EXCEEDED"),
        ({"reserved": 10}, None),
    ],
)
def test_a_use_is_refused_for_the_one_reason(changes: dict[str, Any], expected: str | None) -> None:
    assert refused(standing(**changes)) == expected
