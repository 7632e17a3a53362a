"""Lines from leaves: what each tier of each meter comes to, and which leaves it comes from.

Billing writes these lines into bills; the stand-alone verifier derives them again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ledger.core.ratecard import RateCard
from ledger.core.terms import Quad
from ledger.core.usage_leaf import UsageLeaf


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill. `tier` is None for free units; leaves `first_leaf` to `last_leaf` contributed, inclusive."""

    meter: int
    tier: int | None
    units: int
    price: int  # token units per `unit_scale` units
    unit_scale: int
    amount: int  # token units
    first_leaf: int
    last_leaf: int

    def as_json(self) -> dict[str, Any]:
        return {
            "meter": self.meter,
            "tier": self.tier,
            "units": str(self.units),
            "price": str(self.price),
            "unitScale": str(self.unit_scale),
            "amount": str(self.amount),
            "firstLeaf": self.first_leaf,
            "lastLeaf": self.last_leaf,
        }


def lines(card: RateCard, before: Quad, leaves: Iterable[UsageLeaf]) -> list[Line]:
    """Lines for leaves that follow the totals `before`, by meter and tier.

    Amounts sum exactly to C(after) − C(before): leaf by leaf they telescope.
    """
    found: dict[tuple[int, int], Line] = {}
    total = before
    for leaf in leaves:
        if not any(leaf.units):
            continue
        for charge in card.charges(total, leaf.cum_units):
            key = (charge.meter, -1 if charge.tier is None else charge.tier)
            known = found.get(key)
            found[key] = Line(
                charge.meter,
                charge.tier,
                charge.units + (known.units if known else 0),
                charge.price,
                charge.unit_scale,
                charge.amount + (known.amount if known else 0),
                known.first_leaf if known else leaf.index,
                leaf.index,
            )
        total = leaf.cum_units
    return [found[key] for key in sorted(found)]
