"""What a policy demands of each use: the terms pin its digest, both parties have read it, the gateway holds to it.

A policy is a JSON document, of ODRL or any other vocabulary. Two of its members are read here: `meters` says what each
meter of the rate card counts (ledger.metering.counting), `duties` what else must hold at every use. A duty that is not
known here is refused when the policy is read: it would be promised and not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger.core.errors import InputInvalid
from ledger.core.parse import load_json, parse_uint
from ledger.core.terms import Quad
from ledger.metering.counting import Counter, parse_counter, parse_counters

PROVIDER_YEAR, AUTHORIZATION = "provider-year", "authorization"
REVENUE = "revenue"  # counted in token units, from prices; every other limit counts what uses state


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a count may come to across uses: of a provider in a calendar year (Beijing), or ever under one
    authorization."""

    counter: str  # a word that uses state, such as persons or epsilon; or `revenue`
    label: str  # what tells two limits of one word apart, such as SENSITIVE_PI; may be empty
    per: str
    most: int

    @property
    def name(self) -> str:
        return f"{self.counter}/{self.label}" if self.label else self.counter


@dataclass(frozen=True, slots=True)
class Policy:
    """What is demanded; what is not named is not demanded."""

    meters: tuple[Counter, ...]
    regions: frozenset[str] = frozenset()
    minimum: int = 0  # of `count`, which a use states: results about fewer are suppressed
    evidence: tuple[str, ...] = ()  # names of the digests each use carries
    credentials: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # party → types it must hold
    per_use: Quad | None = None
    per_day: Quad | None = None
    limits: tuple[Limit, ...] = ()


def read_policy(document: bytes | str) -> Policy:
    """Raises InputInvalid, naming the member, if meters are missing or a duty cannot be held to."""
    policy = load_json(document, "policy")
    if not isinstance(policy, dict):
        raise InputInvalid("a policy is a JSON object", field="policy")
    counters = parse_counters(policy.get("meters"))
    duties = policy.get("duties", {})
    if not isinstance(duties, dict):
        raise InputInvalid("duties is an object of what must hold at every use", field="duties")
    if odd := sorted(set(duties) - set(_DUTIES)):
        raise InputInvalid(f"no gateway holds to the duty {odd[0][:60]!r}; known: {', '.join(_DUTIES)}", field="duties")
    kept: dict[str, Any] = {name: read(duties[key]) for key, (name, read) in _DUTIES.items() if key in duties}
    return Policy(counters, **kept)


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and 0 < len(v) <= 64 for v in value):
        raise InputInvalid(f"{what} must be a list of names", field=what)
    return tuple(value)


def _regions(value: Any) -> frozenset[str]:
    return frozenset(_texts(value, "regions"))


def _evidence(value: Any) -> tuple[str, ...]:
    return _texts(value, "evidence")


def _minimum(value: Any) -> int:
    return parse_uint(value, "minimumCount", 64)


def _credentials(value: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict) or not value or set(value) - {"provider", "consumer"}:
        raise InputInvalid("credentials names types for provider and consumer", field="credentials")
    if not all(isinstance(types, list) and types for types in value.values()):
        raise InputInvalid("credentials names types for provider and consumer", field="credentials")
    return {party: tuple(parse_uint(t, "credentials", 16) for t in types) for party, types in value.items()}


def _units(value: Any) -> Quad:
    if not isinstance(value, list) or not 1 <= len(value) <= 4:
        raise InputInvalid("a cap is a list of units, one for each meter", field="duties")
    # A meter that is not named is not capped.
    a, b, c, d = ([parse_uint(v, "cap", 64) for v in value] + [2**64 - 1] * 4)[:4]
    return a, b, c, d


def _limits(value: Any) -> tuple[Limit, ...]:
    if not isinstance(value, list) or not value:
        raise InputInvalid("limits is a list of {counter, label, per, most}", field="limits")
    found = []
    for item in value:
        if not isinstance(item, dict) or set(item) - {"label"} != {"counter", "per", "most"}:
            raise InputInvalid("a limit has counter, per, most, and perhaps a label", field="limits")
        if item["per"] not in (PROVIDER_YEAR, AUTHORIZATION):
            raise InputInvalid(f"a limit is per {PROVIDER_YEAR} or per {AUTHORIZATION}", field="limits")
        counter = item["counter"]
        if counter != REVENUE and parse_counter(counter).of_response:
            raise InputInvalid(f"a limit counts what uses state, or {REVENUE}, not {counter!r}", field="limits")
        label = item.get("label", "")
        if not isinstance(label, str) or len(label) > 64:
            raise InputInvalid("a limit's label is a short text", field="limits")
        found.append(Limit(counter, label, item["per"], parse_uint(item["most"], "most", 128)))
    return tuple(found)


_DUTIES = {  # member → field, and how it is read
    "regions": ("regions", _regions),
    "minimumCount": ("minimum", _minimum),
    "evidence": ("evidence", _evidence),
    "credentials": ("credentials", _credentials),
    "perUse": ("per_use", _units),
    "perDay": ("per_day", _units),
    "limits": ("limits", _limits),
}
