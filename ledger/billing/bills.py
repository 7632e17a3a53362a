"""A bill: what settled units come to, derived from leaves and checked against the chain.

Same leaves, same terms → same bytes → same digest. Escrowed amounts are exact token units. In invoiced mode every line
is rounded once to fen, half away from zero; `payableFen` is the sum of the rounded lines less credits rounded the same
way, and `roundingUy` says what rounding added or took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from ledger.core.charges import Line, lines
from ledger.core.errors import NotFound, VerificationFailed
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Hash32, hash_of
from ledger.core.merkle import Tree
from ledger.core.money import DECIMALS, UY_PER_FEN, round_to_fen
from ledger.core.ratecard import RateCard, Split
from ledger.core.terms import AuthorizationTerms
from ledger.core.usage_leaf import UsageLeaf
from ledger.mirror import queries


class BillDiffers(VerificationFailed):
    """Leaves and chain do not give the same amount: nothing is billed until that is explained."""

    code = "bill_differs"


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill over all that is settled on one authorization. Amounts in token units."""

    authorization_id: Hash32
    ledger: str
    terms: AuthorizationTerms
    head: Mapping[str, Any]
    settlement: Mapping[str, Any]  # transaction and block of the last settled head
    lines: Sequence[Line]
    credits: int
    due: int
    paid: int
    arrears: int
    split: Mapping[str, int]  # payee → its part of what was paid
    payable_fen: int | None  # invoiced only
    outstanding_fen: int | None  # of it, not paid yet
    rounding_uy: int | None

    def as_json(self) -> dict[str, Any]:
        """The written form whose RFC 8785 bytes are hashed."""
        return {
            "bill": "sluice-bill",
            "formatVersion": 1,
            "authorization": self.authorization_id,
            "ledger": self.ledger,
            "provider": self.terms.provider,
            "consumer": self.terms.consumer,
            "product": self.terms.scope.product,
            "token": self.terms.token,
            "rateCard": self.terms.rate_card,
            "head": dict(self.head),
            "settlement": dict(self.settlement),
            "lines": [line.as_json() for line in self.lines],
            "subtotal": str(sum(line.amount for line in self.lines)),
            "credits": str(self.credits),
            "due": str(self.due),
            "paid": str(self.paid),
            "arrears": str(self.arrears),
            "split": {payee: str(amount) for payee, amount in self.split.items()},
            "payableFen": None if self.payable_fen is None else str(self.payable_fen),
            "outstandingFen": None if self.outstanding_fen is None else str(self.outstanding_fen),
            "roundingUy": None if self.rounding_uy is None else str(self.rounding_uy),
        }

    def digest(self) -> Hash32:
        """SHA-256 of the canonical form."""
        return hash_of(sha256(canonical_json(self.as_json())))


def derive(
    row: Mapping[str, Any], settlement: Mapping[str, Any], card: RateCard, split: Split, leaves: Sequence[UsageLeaf]
) -> Bill:
    """The bill of an authorization's mirror row, its last settlement and the leaves under the settled head.

    Raises:
        BillDiffers: the leaves are not those of the settled head, or come to another amount than the chain's.
    """
    terms = AuthorizationTerms.from_json(row["terms"])
    size = int(row["size"])
    if len(leaves) != size or hash_of(Tree(leaf.hash() for leaf in leaves).root()) != row["root"]:
        raise BillDiffers(
            f"the {len(leaves)} leaves at hand are not those under the settled head of {size}",
            authorization=row["authorization"],
        )
    found = lines(card, (0, 0, 0, 0), leaves)
    due = max(0, sum(line.amount for line in found) - row["credits"])
    if due != row["due"]:
        raise BillDiffers(
            f"the leaves come to {due}, the chain says {row['due']}", leaves=str(due), chain=str(row["due"])
        )
    payable = outstanding = rounding = None
    if terms.invoiced:
        if card.decimals != DECIMALS:
            raise BillDiffers(f"invoices are in millionths of a yuan, the rate card has {card.decimals} decimals")
        payable = max(0, sum(round_to_fen(line.amount) for line in found) - round_to_fen(row["credits"]))
        rounding = payable * UY_PER_FEN - due
        outstanding = max(0, payable - row["paid"] // UY_PER_FEN)
    basis = due if terms.invoiced else row["paid"]
    return Bill(
        authorization_id=Hash32(row["authorization"]),
        ledger=row["ledger"],
        terms=terms,
        head={"size": size, "units": row["units"], "asOf": row["as_of"], "root": row["root"]},
        settlement={"transaction": settlement["transaction_hash"], "block": settlement["block_number"]},
        lines=found,
        credits=row["credits"],
        due=due,
        paid=row["paid"],
        arrears=max(0, due - row["paid"]),
        split={str(payee): amount for payee, amount in split.amounts(basis).items()},
        payable_fen=payable,
        outstanding_fen=outstanding,
        rounding_uy=rounding,
    )


def bill_of(
    mirror: Connection, authorization_id: Hash32, leaves: Sequence[UsageLeaf], at_block: int | None = None
) -> Bill:
    """The bill as of now or of a block; `leaves` are the log's, at least up to the settled head.

    Raises:
        NotFound: unknown authorization, or nothing settled yet.
        BillDiffers: as in `derive`.
    """
    row = queries.authorization(mirror, authorization_id, at_block)
    settled = queries.settlements(mirror, authorization_id, at_block)
    if not settled:
        raise NotFound(f"nothing is settled on authorization {authorization_id} yet, so there is no bill")
    terms = queries.terms_of(row)
    card, split = queries.rate_card(mirror, terms.rate_card), queries.split(mirror, terms.split)
    return derive(row, settled[-1], card, split, leaves[: int(row["size"])])
