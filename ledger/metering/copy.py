"""A consumer's own copy of a usage log: what it asked for, the receipts it got, the heads it signed, what it disputes.

Receipts come in any order. How far they have been checked is kept beside them, with the tree over them: a head is
checked from the last one on, and what has been checked is not read again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select, update

from ledger.core.database import insert_unless, writing
from ledger.core.errors import VerificationFailed
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Hash32, hash_of
from ledger.core.ratecard import RateCard
from ledger.core.terms import Quad, UsageHead
from ledger.core.usage_leaf import Kind, UsageLeaf
from ledger.metering import heads, schema
from ledger.metering.log import (
    NO_UNITS,
    Entry,
    SignedHead,
    UsageLog,
    first_gap,
    head_after,
    insert_entry,
    read_entries,
)

PAGE = 1_000  # leaves


class Disputed(VerificationFailed):
    """What the provider recorded is not what happened; `details` name the leaf. Nothing was signed."""

    code = "disputed"


class Copy:
    """One authorization's copy. Safe for several threads."""

    def __init__(self, usage: Engine, authorization_id: Hash32, clock: Callable[[], float] = time.time) -> None:
        self._usage, self.authorization_id, self._clock = usage, authorization_id, clock

    # ------------------------------------------------------------------------------------------- requests

    def ask(self, pending: Mapping[str, Any]) -> None:
        """Keeps a request before it is sent: a lost answer can be asked for again."""
        with writing(self._usage) as connection:
            insert_unless(connection, schema.requests, pending)

    def asked(self, use_id_hashes: Iterable[Hash32]) -> list[dict[str, Any]]:
        """Requests without a receipt among these use ids."""
        table = schema.requests
        query = select(table).where(
            table.c.authorization == self.authorization_id, table.c.use_id_hash.in_(list(use_id_hashes))
        )
        with self._usage.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # -------------------------------------------------------------------------------------------- entries

    def keep(self, entry: Entry, use_id: str | None = None, dispute: tuple[str, "Disputed"] | None = None) -> None:
        """Keeps a receipt; its request is answered. With it, in one transaction, why it is disputed if it is.

        Raises:
            Disputed: the provider signed another leaf at this index, or this use at another index.
        """
        leaf, table = entry.leaf, schema.requests
        with writing(self._usage) as connection:
            known = read_entries(connection, self.authorization_id, leaf.index, 1)
            if known and known[0].leaf.index == leaf.index:
                if known[0].leaf != leaf:
                    words = f"leaf {leaf.index}: the provider signed another leaf at this index before"
                    raise Disputed(words, leaf=leaf.index)
            else:
                twice = connection.execute(
                    select(schema.leaves.c.index).where(
                        schema.leaves.c.authorization == self.authorization_id,
                        schema.leaves.c.use_id_hash == leaf.use_id_hash,
                    )
                ).scalar()
                if twice is not None:
                    raise Disputed(f"leaf {leaf.index}: this use is leaf {twice} already", leaf=leaf.index)
                insert_entry(connection, entry)
            if dispute is not None:
                self._note(connection, *dispute, leaf.index)
            if use_id is not None:
                mine = (table.c.authorization == self.authorization_id) & (table.c.use_id == use_id)
                connection.execute(delete(table).where(mine))

    def holds(self, leaf: UsageLeaf) -> bool:
        """True if this very leaf is kept."""
        with self._usage.connect() as connection:
            found = read_entries(connection, self.authorization_id, leaf.index, 1)
        return bool(found) and found[0].leaf == leaf

    def gap(self, size: int) -> int:
        """The first index below `size` that is not there; `size` if none is missing."""
        with self._usage.connect() as connection:
            return first_gap(connection, self.authorization_id, size, self._checked_size())

    def totals(self) -> tuple[int, Quad, int]:
        """Leaves in a row from the first on, and the units and credits they come to."""
        with self._usage.connect() as connection:
            size = first_gap(connection, self.authorization_id, 1 << 62, self._checked_size())
            if not size:
                return 0, NO_UNITS, 0
            last = read_entries(connection, self.authorization_id, size - 1, 1)[0].leaf
        return size, last.cum_units, last.cum_credits

    def backwards(self) -> Iterator[Entry]:
        """Entries that are kept, the last one first; some may be missing between them."""
        table = schema.leaves
        last = select(func.max(table.c.index)).where(table.c.authorization == self.authorization_id)
        with self._usage.connect() as connection:
            found = connection.execute(last).scalar()
        end = 0 if found is None else found + 1
        while end > 0:
            with self._usage.connect() as connection:
                entries = read_entries(connection, self.authorization_id, max(0, end - PAGE), below=end)
            yield from reversed(entries)
            end -= PAGE

    # ------------------------------------------------------------------------------------------- disputes

    def dispute(self, receipt: str, problem: Disputed, index: int | None) -> None:
        """Keeps evidence."""
        with writing(self._usage) as connection:
            self._note(connection, receipt, problem, index)

    def _note(self, connection: Connection, receipt: str, problem: Disputed, index: int | None) -> None:
        row = {
            "authorization": self.authorization_id,
            "receipt_hash": hash_of(sha256(receipt.encode())),
            "index": index,
            "reason": problem.message,
            "receipt": receipt,
            "raised_at": int(self._clock()),
        }
        insert_unless(connection, schema.disputes, row)

    def withdraw(self, index: int) -> None:
        """A leaf is not disputed any more."""
        table = schema.disputes
        mine = (table.c.authorization == self.authorization_id) & (table.c.index == index)
        with writing(self._usage) as connection:
            connection.execute(delete(table).where(mine))

    def dispute_leaf(self, index: int, reason: str) -> None:
        """Disputes a leaf that is there, or that is known by its index only."""
        self.dispute(canonical_json({"index": index}).decode(), Disputed(reason), index)

    def disputed(self) -> dict[int, dict[str, Any]]:
        """Leaves that are disputed, by index, with what was said and answered."""
        table = schema.disputes
        query = select(table).where(table.c.authorization == self.authorization_id, table.c.index.is_not(None))
        with self._usage.connect() as connection:
            return {row["index"]: dict(row) for row in connection.execute(query).mappings()}

    def answer(self, index: int, answer: str) -> None:
        table = schema.disputes
        mine = (table.c.authorization == self.authorization_id) & (table.c.index == index)
        with writing(self._usage) as connection:
            connection.execute(update(table).where(mine).values(answer=answer))

    # ---------------------------------------------------------------------------------------------- heads

    def latest_signed(self) -> SignedHead | None:
        with self._usage.connect() as connection:
            return heads.latest_signed(connection, self.authorization_id)

    def save(self, signed: SignedHead) -> None:
        heads.save(self._usage, signed)

    def check(self, head: UsageHead, card: RateCard | None) -> None:
        """Checks every leaf up to this head that was not checked before, and the head itself.

        Args:
            card: what the head would come to without the leaves that are disputed follows from it.

        Raises:
            Disputed: the head is not exactly what the kept receipts add up to, or it charges for a leaf that is
                disputed. What was checked before stands.
        """
        with writing(self._usage) as connection:
            log = UsageLog(self._usage, self.authorization_id)
            log.hold(connection)
            if 0 < head.size < len(log):
                # A head of before: it must be the one that follows from the tree as it was.
                self._same(log.head(head.size), head)
            else:
                checker = _Checker(log.last)
                while len(log) < head.size:
                    entries = read_entries(connection, self.authorization_id, len(log), min(PAGE, head.size - len(log)))
                    checker.check(entries, len(log))
                    # What is adopted is kept only if the whole head holds: until then nothing is committed.
                    log.take(log.adopt(connection, [entry.leaf for entry in entries]))
                if log.last is None:
                    raise Disputed("the head has no leaves")
                self._same(head_after(log.last, log.root()), head)
            self._without_disputed(connection, head, card)

    def _without_disputed(self, connection: Connection, head: UsageHead, card: RateCard | None) -> None:
        """A head comes to no more than it would without the leaves that are disputed: however they are credited."""
        disputed = sorted(index for index in self.disputed() if index < head.size)
        if not disputed:
            return
        if card is None:
            raise Disputed(f"leaf {disputed[0]} is disputed, and without the rate card no credit can be judged")
        units = list(head.units)
        for index in disputed:
            leaf = read_entries(connection, self.authorization_id, index, 1)[0].leaf
            units = [n - mine for n, mine in zip(units, leaf.units, strict=True)]
        a, b, c, d = units
        if card.due(head.units, head.credits) > card.price((a, b, c, d)):
            words = f"leaf {disputed[0]}: it is disputed, and no credit answers it"
            raise Disputed(words, leaf=disputed[0])

    def _same(self, expected: UsageHead, head: UsageHead) -> None:
        if expected != head:
            wrong = next(k for k, v in head.as_json().items() if expected.as_json()[k] != v)
            raise Disputed(f"the head of {head.size} leaves: {wrong} is not what the receipts add up to", field=wrong)

    def _checked_size(self) -> int:
        with self._usage.connect() as connection:
            found = connection.execute(
                select(schema.logs.c.size).where(schema.logs.c.authorization == self.authorization_id)
            ).scalar()
        return found or 0


class _Checker:
    """Leaves in their order: indices without a gap, totals that add up, times that do not run backwards."""

    def __init__(self, last: UsageLeaf | None) -> None:
        self._total = last.cum_units if last else NO_UNITS
        self._credits = last.cum_credits if last else 0
        self._served = last.served_at if last else 0

    def check(self, entries: list[Entry], first: int) -> None:
        if not entries:
            raise Disputed(f"leaf {first}: there is no receipt for it", leaf=first)
        for expected, entry in enumerate(entries, first):
            leaf = entry.leaf
            if leaf.index != expected:
                raise Disputed(f"leaf {expected}: there is no receipt for it", leaf=expected)
            self._leaf(leaf)
            self._total, self._credits, self._served = leaf.cum_units, leaf.cum_credits, leaf.served_at

    def _leaf(self, leaf: UsageLeaf) -> None:
        total = tuple(a + b for a, b in zip(self._total, leaf.units, strict=True))
        credited = leaf.kind == Kind.CREDIT
        credit_holds = leaf.cum_credits >= self._credits if credited else leaf.cum_credits == self._credits
        if leaf.cum_units != total or not credit_holds or leaf.served_at < self._served:
            raise Disputed(f"leaf {leaf.index}: its totals do not follow from the leaf before", leaf=leaf.index)
        if leaf.kind in (Kind.REFUSAL, Kind.CREDIT, Kind.NOTE) and leaf.units != NO_UNITS:
            raise Disputed(f"leaf {leaf.index}: a {Kind(leaf.kind).name} counts nothing", leaf=leaf.index)
