"""When a signed head is taken to the chain, and as what: decided from values, for either side.

A head is worth settling when enough money waits in it, when it has waited long enough, when money it counts on begins
to thaw, and when the authorization has ended: then the newest head must be settled before the window closes, whatever
older one the other side may settle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from ledger.core.errors import NotFound
from ledger.core.ids import Hash32, hash_of
from ledger.core.ratecard import RateCard
from ledger.core.terms import FAST, AuthorizationTerms, UsageCeiling, UsageHead
from ledger.metering import heads
from ledger.metering.log import NO_UNITS, SignedHead, tree_of


@dataclass(frozen=True, slots=True)
class Redeeming:
    """What makes a head worth settling."""

    value: int  # token units that wait in it
    age: int  # seconds since its last use


@dataclass(frozen=True, slots=True)
class Settled:
    """What the ledger says of an authorization."""

    head: UsageHead | None
    status: str  # OPEN, ENDED, CLOSED
    ended_at: int  # seconds
    thawing: int  # token units on their way out of the reservation


@dataclass(frozen=True, slots=True)
class Chosen:
    """A head to settle; `ceiling` where the consumer has not signed it, and paid ahead."""

    signed: SignedHead
    ceiling: tuple[UsageCeiling, str] | None = None


def why_now(
    settled: Settled, chosen: Chosen, card: RateCard, terms: AuthorizationTerms, limits: Redeeming, now: int
) -> str | None:
    """VALUE, AGE, THAW, END, or None: it can wait; or it is too late.

    Times in seconds.
    """
    head, before = chosen.signed.head, settled.head
    if settled.status == "CLOSED" or now > settled.ended_at + terms.thaw_seconds:
        return None
    if before is not None and head.size <= before.size:
        return None
    waits = card.due(head.units, head.credits) - (card.due(before.units, before.credits) if before else 0)
    credited = head.credits - (before.credits if before else 0)
    if waits <= 0 and credited == 0:
        return None  # refusals and notes change nothing on chain
    if now >= settled.ended_at:
        return "END"
    if settled.thawing and waits > 0:
        return "THAW"
    if waits >= limits.value:
        return "VALUE"
    return "AGE" if now - head.as_of >= limits.age else None


def choose(
    connection: Connection, authorization_id: Hash32, ended_at: int, settled: int, ceiling: Any = None
) -> Chosen:
    """The newest head that can be settled beyond the `settled` leaves.

    One dated after the end (it holds refusals) only when none from before it is left, for units must not rise after the
    end.

    Raises:
        NotFound: there is none.
    """
    found = [s for s in heads.read(connection, authorization_id, above=settled) if s.consumer_signature]
    if found:
        return Chosen(([s for s in found if s.head.as_of <= ended_at] or found)[-1])
    if ceiling is not None:
        agreed, signature = UsageCeiling.from_json(ceiling["ceiling"]), str(ceiling["signature"])
        covered = [
            s
            for s in heads.read(connection, authorization_id, above=settled)
            if all(n <= most for n, most in zip(s.head.units, agreed.max_units, strict=True))
            and s.head.credits >= agreed.min_credits
            and s.head.as_of <= ended_at
            and s.head.units != NO_UNITS
        ]
        if covered:
            return Chosen(covered[-1], (agreed, signature))
    raise NotFound(f"no head beyond the {settled} settled leaves is signed by both wallets")


def settlement_of(
    connection: Connection, terms: AuthorizationTerms, previous: UsageHead | None, chosen: Chosen
) -> dict[str, Any]:
    """What `settle` takes: terms, the settled head, the new one, the signatures, and the proof that the log grew."""
    head = chosen.signed.head
    proof: list[bytes] = []
    if not terms.flags & FAST:
        tree = tree_of(connection, head.authorization_id, head.size)
        proof = tree.consistency(previous.size if previous else 0)
    made: dict[str, Any] = {
        "terms": terms.as_json(),
        "previous": previous.as_json() if previous else None,
        "head": head.as_json(),
        "providerSignature": chosen.signed.provider_signature,
        "consumerSignature": chosen.signed.consumer_signature or "0x",
        "consistency": [hash_of(p) for p in proof],
    }
    if chosen.ceiling is not None:
        agreed, signature = chosen.ceiling
        made["ceilings"] = [{"ceiling": agreed.as_json(), "signature": signature}]
    return made


def settled_of(row: Mapping[str, Any], head: UsageHead | None) -> Settled:
    """From the API's answer for an authorization."""
    return Settled(head, str(row["status"]), int(row["endedAt"]), int(row.get("thawing") or 0))
