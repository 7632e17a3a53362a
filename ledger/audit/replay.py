"""An authorization's history from its raw logs: nothing of Sluice but `ledger.core` is needed to read them.

The events of the two ledgers have only static members, so a log is its topics and a row of 32-byte words. What follows
from the logs is compared with what a bundle says; that the logs are on the chain is another question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ledger.core.errors import VerificationFailed
from ledger.core.hashing import keccak256
from ledger.core.ids import Hash32, hash_of, parse_bytes
from ledger.core.terms import AuthorizationTerms, UsageHead

_HEAD = "(uint64,uint64[4],uint128,uint40,bytes32)"
_SCOPE = "(bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint32,uint32,uint64[4],bytes32)"
_TERMS = (
    f"({_SCOPE},address,address,address,address,bytes32,bytes32,uint64[4],uint40,uint40,uint32,uint32,uint8,bytes32)"
)
SIGNATURES = {
    "Opened": f"Opened(bytes32,address,address,{_TERMS},uint128,bytes32)",
    "Approved": "Approved(bytes32,address,uint16,bytes32,uint40)",
    "Settled": f"Settled(bytes32,{_HEAD},uint128,uint128,uint128,address,address,uint8)",
    "ArrearsPaid": "ArrearsPaid(bytes32,uint128,uint128)",
    "Revoked": "Revoked(bytes32,address,uint40,uint16)",
    "ClosedEarly": "ClosedEarly(bytes32,address,uint40,uint16)",
    "EndedByParent": "EndedByParent(bytes32,bytes32,uint40)",
    "ClosedTogether": f"ClosedTogether(bytes32,{_HEAD},uint128,uint128,uint128,uint40)",
    "Finalized": "Finalized(bytes32,uint128)",
    "Refunded": "Refunded(bytes32,uint128,uint128)",
    "ToppedUp": "ToppedUp(bytes32,address,uint128)",
    "ThawStarted": "ThawStarted(bytes32,uint128,uint40)",
    "Thawed": "Thawed(bytes32,uint128)",
    "PaymentRecorded": "PaymentRecorded(bytes32,bytes32,uint128,uint128)",
    "PaymentReversed": "PaymentReversed(bytes32,bytes32,uint128,uint128)",
    "PaymentClaimed": "PaymentClaimed(bytes32,bytes32,uint128,uint128)",
}
_NAMES = {"0x" + keccak256(text.encode()).hex(): name for name, text in SIGNATURES.items()}
_PAYMENTS = {"PaymentRecorded": "recorded", "PaymentReversed": "reversed", "PaymentClaimed": "claimed"}


MEMBERS = {"event", "blockNumber", "blockHash", "logIndex", "transactionHash", "address", "topics", "data"}


_CEILING = 4  # of the contract's Basis: what vouched for the head


@dataclass(slots=True)
class History:
    """What an authorization's logs say, in the bundle's written form."""

    status: str = "OPEN"
    ended_at: int = 0
    ended_how: str = ""
    reason: int = 0
    paid: int = 0
    settlements: list[dict[str, Any]] = field(default_factory=list)
    payments: list[dict[str, Any]] = field(default_factory=list)
    under_ceiling: set[int] = field(default_factory=set)  # sizes of heads settled by what the consumer paid ahead


def replay(rows: Sequence[Mapping[str, Any]], terms: AuthorizationTerms, authorization: Hash32, ledger: str) -> History:
    """Plays the logs in order.

    Args:
        rows: records of `events.jsonl`.
        ledger: the address of the ledger that must have emitted them.

    Raises:
        VerificationFailed: a log is out of order, of another contract or authorization, unknown, or opens other terms.
    """
    history = History(ended_at=terms.valid_until)
    place = (-1, -1)
    for n, row in enumerate(rows):
        here = (int(row["blockNumber"]), int(row["logIndex"]))
        name = _NAMES.get(row["topics"][0], "")
        words = _words(row["data"])
        for holds, what in (
            (set(row) == MEMBERS, "has other members than a log"),
            (here > place, "is out of order"),
            (row["address"] == ledger, "is of another contract"),
            (bool(name) and row["event"] == name, "is not the event it is named"),
            (row["topics"][1] == authorization, "is of another authorization"),
            ((n == 0) == (name == "Opened"), "does not open the history, or opens it twice"),
        ):
            if not holds:
                raise VerificationFailed(f"event {n} {what}", record=n)
        place = here
        if name == "Opened" and words[:-2] != terms.words():
            raise VerificationFailed(f"event {n} opens other terms", record=n)
        _apply(history, name, row, [int.from_bytes(w) for w in words], words)
    return history


def _apply(history: History, name: str, row: Mapping[str, Any], numbers: list[int], words: list[bytes]) -> None:
    if name in ("Settled", "ClosedTogether"):
        a, b, c, d = numbers[1:5]
        head = UsageHead(
            authorization_id=Hash32(row["topics"][1]),
            size=numbers[0],
            units=(a, b, c, d),
            credits=numbers[5],
            as_of=numbers[6],
            root=hash_of(words[7]),
        )
        due, history.paid = numbers[8], numbers[9]
        if name == "Settled" and numbers[13] == _CEILING:
            history.under_ceiling.add(head.size)
        if name == "Settled" or head.size > (history.settlements[-1]["head"]["size"] if history.settlements else 0):
            history.settlements.append(
                {
                    "head": head.as_json(),
                    "due": str(due),
                    "paid": str(history.paid),
                    "arrears": str(max(0, due - history.paid)),
                    "transaction": row["transactionHash"],
                    "block": row["blockNumber"],
                }
            )
        if name == "ClosedTogether":
            history.status, history.ended_at, history.ended_how = "CLOSED", numbers[11], "closed together"
    elif name == "ArrearsPaid":
        history.paid = numbers[1]
    elif name in ("Revoked", "ClosedEarly"):
        history.ended_at, history.reason = numbers[0], numbers[1]
        history.ended_how = "revoked" if name == "Revoked" else "closed"
    elif name == "EndedByParent":
        history.ended_at, history.ended_how = numbers[0], "ended by its parent"
    elif name == "Finalized":
        history.status = "CLOSED"
    elif name in _PAYMENTS:
        if name != "PaymentClaimed":
            history.paid = numbers[1]
        history.payments.append(
            {
                "kind": _PAYMENTS[name],
                "reference": row["topics"][2],
                "amount": str(numbers[0]),
                "transaction": row["transactionHash"],
                "block": row["blockNumber"],
            }
        )


def _words(data: str) -> list[bytes]:
    raw = parse_bytes(data, "data")
    if len(raw) % 32:
        raise VerificationFailed("a log's data is not a row of words")
    return [raw[i : i + 32] for i in range(0, len(raw), 32)]
