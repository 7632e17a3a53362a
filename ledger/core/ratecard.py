"""Rate cards and splits: their bytes, their ids, and the integers that follow from them.

The bytes are those of `contracts/libraries/Pricing.sol` and `Splits.sol`; an id is the Keccak-256 of the creation code
that stores them (`CodeStore.sol`). `tests/vectors/ratecard.json` holds both languages to the same results.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, hash_of, parse_address, raw
from ledger.core.parse import parse_uint
from ledger.core.terms import Quad

MAX_UNITS = 2**64 - 1
WHOLE_BPS = 10_000

_CREATION_CODE = bytes.fromhex("600b5981380380925939f3") + b"\x00"


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and including `up_to` cost `price` token units per `unit_scale` units."""

    up_to: int
    price: int


@dataclass(frozen=True, slots=True)
class Meter:
    unit_scale: int
    free_units: int
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """What one tier of one meter comes to. `tier` is None for free units."""

    meter: int
    tier: int | None
    units: int
    price: int  # token units per `unit_scale` units
    unit_scale: int
    amount: int  # token units


@dataclass(frozen=True, slots=True)
class RateCard:
    """Prices in smallest token units; `token` is an ERC-20, or an ISO 4217 code in invoiced mode."""

    token: Address
    decimals: int
    meters: tuple[Meter, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.meters) <= 4 or not 0 <= self.decimals <= 255:
            raise InputInvalid("a rate card has one to four meters, and decimals up to 255", field="meters")
        for m, meter in enumerate(self.meters):
            bounds = [tier.up_to for tier in meter.tiers]
            if not 1 <= len(bounds) <= 8 or not 0 < meter.unit_scale <= MAX_UNITS:
                raise InputInvalid(f"meter {m} needs one to eight tiers and a unit scale above zero", field="meters")
            if bounds[-1] != MAX_UNITS or any(a >= b for a, b in itertools.pairwise(bounds)):
                raise InputInvalid(f"meter {m}: tiers must rise, and the last must have no end", field="tiers")
            if (
                bounds[0] < 1
                or any(not 0 <= tier.price < 2**128 for tier in meter.tiers)
                or not 0 <= meter.free_units <= MAX_UNITS
            ):
                raise InputInvalid(f"meter {m}: a price or the free units are out of range", field="tiers")

    def encode(self) -> bytes:
        out = [b"\x01", raw(self.token), bytes((self.decimals, len(self.meters)))]
        for meter in self.meters:
            out.append(meter.unit_scale.to_bytes(8, "big") + meter.free_units.to_bytes(8, "big"))
            out.append(bytes((len(meter.tiers),)))
            out.extend(tier.up_to.to_bytes(8, "big") + tier.price.to_bytes(16, "big") for tier in meter.tiers)
        return b"".join(out)

    @staticmethod
    def decode(data: bytes) -> "RateCard":
        """Raises InputInvalid if these are not exactly the bytes of a valid card."""
        try:
            token, decimals, count = Address("0x" + data[1:21].hex()), data[21], data[22]
            meters, at = [], 23
            for _ in range(count):
                scale, free, tiers = int.from_bytes(data[at : at + 8]), int.from_bytes(data[at + 8 : at + 16]), []
                many = data[at + 16]
                at += 17
                for _ in range(many):
                    tiers.append(Tier(int.from_bytes(data[at : at + 8]), int.from_bytes(data[at + 8 : at + 24])))
                    at += 24
                meters.append(Meter(scale, free, tuple(tiers)))
            card = RateCard(token, decimals, tuple(meters))
        except IndexError:
            raise InputInvalid("the rate card's bytes end too early", field="rateCard") from None
        if card.encode() != data:
            raise InputInvalid("these are not the bytes of a rate card", field="rateCard")
        return card

    def id(self) -> Hash32:
        return hash_of(keccak256(_CREATION_CODE + self.encode()))

    def price(self, units: Quad) -> int:
        """C(units): the price of lifetime totals, floored once per meter, in token units."""
        total = 0
        for meter, used in zip(self.meters, units, strict=False):
            left = used - meter.free_units
            start, exact = 0, 0
            for tier in meter.tiers:
                if left <= start:
                    break
                exact += (min(left, tier.up_to) - start) * tier.price
                start = tier.up_to
            total += exact // meter.unit_scale
        return total

    def charges(self, before: Quad, after: Quad) -> list[Charge]:
        """What using up from `before` to `after` costs, tier by tier. Sums exactly to the difference of the prices.

        The floor is taken on each meter's running total, so a tier's amount is the growth of that floor while the
        tier fills up: no fraction is lost or charged twice, however a period is cut.
        """
        charges = []
        for m, meter in enumerate(self.meters):
            low, high = before[m], after[m]
            free = min(high, meter.free_units) - min(low, meter.free_units)
            if free:
                charges.append(Charge(m, None, free, 0, meter.unit_scale, 0))
            low, high = max(0, low - meter.free_units), max(0, high - meter.free_units)
            start, exact = 0, 0
            for t, tier in enumerate(meter.tiers):
                a, b = (min(max(x, start), tier.up_to) - start for x in (low, high))
                if b > a:
                    amount = (exact + b * tier.price) // meter.unit_scale - (exact + a * tier.price) // meter.unit_scale
                    charges.append(Charge(m, t, b - a, tier.price, meter.unit_scale, amount))
                exact += (tier.up_to - start) * tier.price
                start = tier.up_to
        return charges

    def worth(self, units: Quad, after: Quad) -> int:
        """What a leaf's units cost at their place: the price of the totals with them, less the price without."""
        a, b, c, d = (total - one for total, one in zip(after, units, strict=True))
        return self.price(after) - self.price((a, b, c, d))

    def due(self, units: Quad, credits: int) -> int:
        """max(0, C(units) − credits), as the ledgers compute it."""
        return max(0, self.price(units) - credits)

    def as_abi(self) -> tuple[Any, ...]:
        return (
            self.token,
            self.decimals,
            [(m.unit_scale, m.free_units, [(t.up_to, t.price) for t in m.tiers]) for m in self.meters],
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "token": self.token,
            "decimals": self.decimals,
            "meters": [
                {
                    "unitScale": str(m.unit_scale),
                    "freeUnits": str(m.free_units),
                    "tiers": [{"upTo": str(t.up_to), "price": str(t.price)} for t in m.tiers],
                }
                for m in self.meters
            ],
        }

    @staticmethod
    def from_json(data: Any) -> "RateCard":
        """Raises InputInvalid if the form is not that of `as_json`."""
        try:
            meters = []
            for m in data["meters"]:
                tiers = [
                    Tier(parse_uint(t["upTo"], "upTo", 64), parse_uint(t["price"], "price", 128)) for t in m["tiers"]
                ]
                scale, free = (parse_uint(m[name], name, 64) for name in ("unitScale", "freeUnits"))
                meters.append(Meter(scale, free, tuple(tiers)))
            token = parse_address(data["token"], "token")
            return RateCard(token, parse_uint(data["decimals"], "decimals", 8), tuple(meters))
        except (KeyError, TypeError, ValueError) as problem:
            raise InputInvalid(f"the rate card is malformed: {problem}", field="rateCard") from None


@dataclass(frozen=True, slots=True)
class Split:
    """Who gets how much of what is settled: (payee, basis points), payees ascending, 10,000 in all."""

    shares: tuple[tuple[Address, int], ...]

    @staticmethod
    def of(shares: Sequence[tuple[Address, int]]) -> "Split":
        """Sorts the payees; raises InputInvalid if the parts are not a whole or a payee is named twice."""
        split = Split(tuple(sorted(shares, key=lambda share: raw(share[0]))))
        payees = [payee for payee, _ in split.shares]
        if not 1 <= len(payees) <= 16 or len(set(payees)) != len(payees) or int(payees[0], 16) == 0:
            raise InputInvalid("a split has one to sixteen payees, each once, none zero", field="split")
        if any(bps <= 0 for _, bps in split.shares) or sum(bps for _, bps in split.shares) != WHOLE_BPS:
            raise InputInvalid("a split's parts must add up to 10000 basis points", field="split")
        return split

    def encode(self) -> bytes:
        parts = (raw(payee) + bps.to_bytes(2, "big") for payee, bps in self.shares)
        return bytes((2, len(self.shares))) + b"".join(parts)

    @staticmethod
    def decode(data: bytes) -> "Split":
        """Raises InputInvalid if these are not exactly the bytes of a valid split."""
        parts = [data[at : at + 22] for at in range(2, len(data), 22)]
        split = Split.of([(Address("0x" + p[:20].hex()), int.from_bytes(p[20:])) for p in parts if len(p) == 22])
        if split.encode() != data:
            raise InputInvalid("these are not the bytes of a split", field="split")
        return split

    def id(self) -> Hash32:
        return hash_of(keccak256(_CREATION_CODE + self.encode()))

    def amounts(self, accrued: int) -> dict[Address, int]:
        """Payee → its part of what was accrued, each floored as the ledger floors it; the dust stays unpaid."""
        return {payee: accrued * bps // WHOLE_BPS for payee, bps in self.shares}

    def as_abi(self) -> list[tuple[Any, ...]]:
        return [(payee, bps) for payee, bps in self.shares]

    def as_json(self) -> list[dict[str, Any]]:
        return [{"payee": payee, "bps": bps} for payee, bps in self.shares]

    @staticmethod
    def from_json(data: Any) -> "Split":
        try:
            return Split.of(
                [(parse_address(part["payee"], "payee"), parse_uint(part["bps"], "bps", 16)) for part in data]
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise InputInvalid(f"the split is malformed: {problem}", field="split") from None
