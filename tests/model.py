"""UsageLedger's money in plain Python: what the contract must do, said a second time.

The model knows no storage, no gas and no call data. Each method does what the ledger would do, or says with which error
it would refuse; the state machine in tests/contracts/test_model.py drives both side by side.
"""

from dataclasses import dataclass, field, replace

from ledger.core.ids import Address, Hash32
from ledger.core.ratecard import RateCard, Split
from ledger.core.terms import AuthorizationTerms, UsageHead

SKEW = 15 * 60  # seconds


@dataclass
class Held:
    """One authorization. Amounts in token units, times in seconds."""

    terms: AuthorizationTerms
    reserved: int
    ended_at: int
    paid: int = 0
    refunded: int = 0
    thawing: int = 0
    thaw_end: int = 0
    head: UsageHead | None = None
    closed: bool = False

    def status(self, now: int) -> int:
        """The number of IAuthorizations.Status."""
        if self.closed:
            return 3
        return 2 if now >= self.ended_at else 1

    @property
    def window_end(self) -> int:
        return self.ended_at + self.terms.thaw_seconds

    @property
    def releasable(self) -> int:
        return min(self.thawing, self.reserved - self.paid)


@dataclass
class Model:
    """The whole ledger, for one token and one split."""

    card: RateCard
    split: Split
    free: dict[Address, int] = field(default_factory=dict)
    held: dict[Hash32, Held] = field(default_factory=dict)
    accrued: int = 0
    sent: dict[Address, int] = field(default_factory=dict)

    def price(self, head: UsageHead | None) -> int:
        return 0 if head is None else max(0, self.card.price(head.units) - head.credits)

    def give(self, owner: Address, amount: int) -> None:
        self.free[owner] = self.free.get(owner, 0) + amount

    def take(self, owner: Address, amount: int) -> str | None:
        if self.free.get(owner, 0) < amount:
            return "BalanceTooLow"
        self.free[owner] -= amount
        return None

    def open(self, id_: Hash32, terms: AuthorizationTerms, reserve: int) -> str | None:
        if id_ in self.held:
            return "AuthorizationStatus"
        refusal = self.take(terms.consumer, reserve)
        if refusal is None:
            self.held[id_] = Held(terms, reserve, terms.valid_until)
        return refusal

    def settle(self, id_: Hash32, previous: UsageHead | None, head: UsageHead, now: int) -> str | None:
        held = self.held[id_]
        refusal = self._refuses(held, previous, head, now)
        if refusal is None:
            held.head = head
            self._pay(held, self.price(head))
        return refusal

    def _refuses(self, held: Held, previous: UsageHead | None, head: UsageHead, now: int) -> str | None:
        if held.closed:
            return "AuthorizationStatus"
        if previous != held.head:
            return "HeadMoved"
        if now > held.window_end:
            return "WindowOver"
        before = held.head or replace(head, size=0, units=(0, 0, 0, 0), credits=0, as_of=0)
        if head.size <= before.size:
            return "HeadStale"
        if head.credits < before.credits or head.as_of < before.as_of:
            return "HeadLower"
        if head.as_of > now:
            return "HeadInFuture"
        if any(b < a for a, b in zip(before.units, head.units, strict=True)):
            return "HeadLower"
        if any(b > most for b, most in zip(head.units, held.terms.max_units, strict=True)):
            return "HeadOverQuota"
        if head.units != before.units and head.as_of > held.ended_at + SKEW:
            return "HeadAfterEnd"
        return None

    def _pay(self, held: Held, due: int) -> None:
        paid = min(max(due, held.paid), held.reserved)
        self.accrued += paid - held.paid
        held.paid = paid

    def top_up(self, id_: Hash32, who: Address, amount: int, now: int) -> str | None:
        held = self.held[id_]
        if held.closed:
            return "AuthorizationStatus"
        if amount == 0:
            return "AmountZero"
        if now > held.window_end:
            return "WindowOver"
        refusal = self.take(who, amount)
        if refusal is None:
            held.thawing = held.releasable
            held.reserved += amount
            self._pay(held, self.price(held.head))
        return refusal

    def thaw(self, id_: Hash32, amount: int, now: int) -> str | None:
        held = self.held[id_]
        if held.closed:
            return "AuthorizationStatus"
        if amount > held.reserved - held.paid:
            return "ThawTooLarge"
        held.thawing, held.thaw_end = amount, now + held.terms.thaw_seconds
        return None

    def release(self, id_: Hash32, now: int) -> str | None:
        held = self.held[id_]
        if held.closed:
            return "AuthorizationStatus"
        amount = held.releasable
        if amount == 0:
            return "AmountZero"
        if now < held.thaw_end:
            return "ThawNotOver"
        held.thawing = 0
        held.reserved -= amount
        self.give(held.terms.consumer, amount)
        return None

    def refund(self, id_: Hash32, amount: int) -> str | None:
        held = self.held[id_]
        if amount == 0:
            return "AmountZero"
        if amount > held.paid - held.refunded:
            return "RefundTooLarge"
        refusal = self.take(held.terms.provider, amount)
        if refusal is None:
            held.refunded += amount
            self.give(held.terms.consumer, amount)
        return refusal

    def close(self, id_: Hash32, by_consumer: bool, now: int) -> str | None:
        held = self.held[id_]
        ends_at = now + (0 if by_consumer else held.terms.revoke_grace)
        if held.status(now) != 1:
            return "AuthorizationStatus"
        if ends_at >= held.ended_at:
            return "AuthorizationEnding"
        held.ended_at = ends_at
        return None

    def close_together(self, id_: Hash32, head: UsageHead | None, final_paid: int, now: int) -> str | None:
        held = self.held[id_]
        if held.closed:
            return "AuthorizationStatus"
        if head != held.head:
            assert head is not None
            refusal = self._refuses(held, held.head, head, now)
            if refusal is not None:
                return refusal
        if not held.paid <= final_paid <= min(held.reserved, max(self.price(head), held.paid)):
            return "CloseInvalid"
        held.head = head
        self._pay(held, final_paid)
        held.ended_at = min(held.ended_at, now)
        self._release(held)
        return None

    def finalize(self, id_: Hash32, now: int) -> str | None:
        held = self.held[id_]
        if held.closed:
            return "AuthorizationStatus"
        if now <= held.window_end:
            return "WindowNotOver"
        self._release(held)
        return None

    def _release(self, held: Held) -> None:
        self.give(held.terms.consumer, held.reserved - held.paid)
        held.reserved, held.thawing, held.closed = held.paid, 0, True

    def share(self, payee: Address) -> int:
        return self.split.amounts(self.accrued)[payee] - self.sent.get(payee, 0)

    def pay_share(self, payee: Address) -> str | None:
        amount = self.share(payee)
        if amount == 0:
            return "AmountZero"
        self.sent[payee] = self.sent.get(payee, 0) + amount
        return None

    def owed(self) -> int:
        """What the ledger must hold: free, reserved and unpaid, accrued and unsent."""
        unpaid = sum(h.reserved - h.paid for h in self.held.values())
        return sum(self.free.values()) + unpaid + self.accrued - sum(self.sent.values())
