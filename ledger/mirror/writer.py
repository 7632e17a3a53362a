"""Writing the mirror: read, check, fold, write, all of a step in one transaction; rewind on a reorg.

Where the mirror stands is one row, the cursor, and every write moves its nonce from the value that was read: of two
writers one wins, and the other stands by until the first is silent. A crash costs a re-read and nothing else. A log of
our own contracts that cannot be decoded stops the mirror; nothing is skipped.

Final blocks are read by range, and only those with logs are kept. Nearer to the head every block is read by its hash
and kept, so that a reorg of any depth down to finality finds the last shared block. A chain that takes back what was
final is not followed: the mirror latches, and goes on only when every stored hash is on the chain again. A second pass
reads every range once more after it is final, and repairs what differs.
"""

import gc
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, delete, select, update

from ledger.chain.client import Chain, NodeError
from ledger.chain.deploy import Deployment
from ledger.chain.fetch import Fetcher, Range
from ledger.chain.settled import read_settled
from ledger.core.database import writing
from ledger.core.errors import MirrorError
from ledger.core.events import Block
from ledger.core.ids import Hash32
from ledger.mirror import packing, queries, schema
from ledger.mirror.apply import Reader, apply_block, authorizations_of
from ledger.mirror.queries import Cursor
from ledger.mirror.store import analyse, followed
from ledger.mirror.work import EventOutOfPlace, Work, rewind

ANALYSE = 20_000  # rows
LEASE = 10  # seconds without a sign of life after which another writer takes over


class StandingBy(MirrorError):
    """Another writer keeps this mirror."""

    code = "standing_by"


class FinalityViolated(MirrorError):
    """The chain took back a block that it had called final; the mirror stays as it is until that block is back."""

    code = "finality_violated"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did. `head` is the chain's height, `height` the mirror's."""

    height: int
    head: int
    applied: int
    rewound: int


class Writer:
    """Writes one mirror from one node. `final_depth`: blocks below the head that are final on a chain whose nodes do
    not know the `finalized` tag (0 with instant finality); None: only what the node calls final is.

    Takes `clock`, seconds. Not for several threads.
    """

    def __init__(
        self,
        engine: Engine,
        chain: Chain,
        deployment: Deployment,
        *,
        final_depth: int | None = None,
        clock: Callable[[], float] = time.time,
        read: Reader = read_settled,
    ) -> None:
        self.engine, self.chain, self.deployment = engine, chain, deployment
        self.name = uuid.uuid4().hex
        self.counts: Counter[str] = Counter()  # reorgs, blocks rewound, short answers, differences
        self._names = followed(deployment)
        self._fetcher = Fetcher(chain, list(self._names))
        self._final_depth = final_depth
        self._clock = clock
        self._read = read
        self._unanalysed = ANALYSE  # rows written since the database last looked at how they are distributed
        self._known: tuple[int | None, Block, Block | None, Block | None] | None = None

    def close(self) -> None:
        """Lets another writer take over at once."""
        self._fetcher.close()
        with writing(self.engine) as connection:
            table = schema.cursor
            connection.execute(update(table).where(table.c.writer == self.name).values(writer=""))

    # --------------------------------------------------------------------------------------------- steps

    def step(self, until: int | None = None) -> Progress:
        """As `_step`, without Python's collector of cycles: it would look at every tuple there is, again and again, and
        there are hundreds of thousands and no cycle."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._step(until)
        finally:
            if collecting:
                gc.enable()

    def _step(self, until: int | None) -> Progress:
        """One transaction's worth of blocks, none after `until`, after rewinding to the last shared one.

        Raises:
            StandingBy: another writer is alive.
            FinalityViolated: the chain took back final blocks.
            ChainError, MirrorError: nothing was changed by this step.
        """
        with self.engine.connect() as connection:
            cursor = queries.cursor(connection)
        # A time far in the future is a clock that was wrong, not a sign of life.
        if cursor.writer not in ("", self.name) and abs(self._clock() - cursor.seen_at) < LEASE:
            raise StandingBy("another writer keeps this mirror", writer=cursor.writer)
        first = cursor.number + 1
        if cursor.violated is not None:
            self._known = None  # what was known was of the other chain
        head, safe, final = self._heights(until, first)
        if cursor.violated is not None:
            self._clear(cursor)
            with self.engine.connect() as connection:
                cursor = queries.cursor(connection)
        if first > head.number:
            return self._at_head(cursor, head, safe, final)
        if final is not None and final.number >= first:
            found: Range | None = self._fetcher.range(first, final.number)
        else:
            found = self._fetcher.near(first, head.number)
        if found is None:
            return Progress(cursor.number, head.number, 0, 0)
        if not cursor.empty and found.first.parent_hash != cursor.hash:
            return Progress(cursor.number, head.number, 0, self._rewind(cursor))
        try:
            self._apply(cursor, found, head, safe, final)
        except EventOutOfPlace:
            # What it speaks of may have been left out of an earlier answer.
            rewound = self._find_short(cursor)
            if not rewound:
                raise
            return Progress(cursor.number - rewound, head.number, 0, rewound)
        return Progress(found.last.number, head.number, found.last.number - cursor.number, 0)

    def others(self, until: int | None = None) -> Progress:
        """How far another writer has come. Raises FinalityViolated if it came no further for that."""
        head = self._block("latest" if until is None else until)
        with self.engine.connect() as connection:
            cursor = queries.cursor(connection)
        if cursor.violated is not None:
            raise FinalityViolated("the mirror is latched: the chain took back what was final", **cursor.violated)
        there = cursor.number > head.number or cursor.hash == head.hash
        return Progress(cursor.number if there else min(cursor.number, head.number - 1), head.number, 0, 0)

    def _heights(self, until: int | None, first: int) -> tuple[Block, Block | None, Block | None]:
        """Head, safe and final block, as far as the node says; asked again when all that was final is read."""
        if self._known is not None and self._known[0] == until:
            _, head, safe, final = self._known
            if final is not None and final.number >= first:
                return head, safe, final
        head, safe, final = self.chain.heads()
        if final is None and self._final_depth is not None and head.number >= self._final_depth:
            final = self.chain.block(head.number - self._final_depth)
        if until is not None and until < head.number:
            head = self._block(until)
        if final is not None and final.number > head.number:
            final = head
        self._known = (until, head, safe, final)
        return head, safe, final

    def _block(self, at: int | str) -> Block:
        block = self.chain.block(at)
        if block is None:
            raise NodeError(f"the node has no block {at}")
        return block

    def _at_head(self, cursor: Cursor, head: Block, safe: Block | None, final: Block | None) -> Progress:
        """Nothing new: is what we have still there?"""
        here = head if head.number == cursor.number else self.chain.block(cursor.number)
        if not cursor.empty and (here is None or here.hash != cursor.hash):
            return Progress(cursor.number, head.number, 0, self._rewind(cursor))
        if head.number >= self.deployment.block - 1:
            self._move(cursor, safe, final)
        if self._unanalysed >= ANALYSE:
            self._unanalysed = 0
            analyse(self.engine)
        return Progress(cursor.number, head.number, 0, 0)

    # --------------------------------------------------------------------------------------------- write

    def _take(self, connection: Connection, cursor: Cursor, **values: Any) -> None:
        """Moves the cursor from what was read, or gives way. Raises StandingBy."""
        table = schema.cursor
        changed = connection.execute(
            update(table)
            .where(table.c.id == 1, table.c.nonce == cursor.nonce)
            .values(nonce=cursor.nonce + 1, writer=self.name, seen_at=int(self._clock()), **values)
        )
        if changed.rowcount != 1:
            raise StandingBy("another writer was faster")

    def _apply(self, cursor: Cursor, found: Range, head: Block, safe: Block | None, final: Block | None) -> None:
        """Writes blocks, rows and cursor in one transaction."""
        with writing(self.engine) as connection:
            self._take(connection, cursor)
            work = Work(connection, cursor.digest)
            work.expect([a for _, logs in found.blocks for a in authorizations_of(logs)])
            for block, logs in found.blocks:
                apply_block(work, block, logs, self._names, self._read)
            work.flush()
            self._unanalysed += sum(len(logs) for _, logs in found.blocks)
            last = found.last
            values = {
                "number": last.number,
                "hash": last.hash,
                "parent_hash": last.parent_hash,
                "timestamp": last.timestamp,
                "digest": work.digest,
            }
            if last.number >= head.number:
                values["checked_at"] = int(self._clock())
            connection.execute(update(schema.cursor).values(**values, **self._finals(connection, last, safe, final)))

    def _finals(self, connection: Connection, last: Block, safe: Block | None, final: Block | None) -> dict[str, Any]:
        """What of the mirror is now safe and final, and with it the blocks without logs that go."""
        cursor = queries.cursor(connection)
        values: dict[str, Any] = {"safe": min(safe.number, last.number) if safe else -1}
        if final is None or final.number < self.deployment.block or final.number <= cursor.final:
            return values
        if final.number >= last.number:
            values |= {"final": last.number, "final_hash": last.hash}
        else:
            stored = connection.execute(select(schema.blocks.c.hash).where(schema.blocks.c.number == final.number))
            if stored.scalar() != final.hash:
                return values  # ours is another branch, or not stored: the next step finds out which
            values |= {"final": final.number, "final_hash": final.hash}
        blocks = schema.blocks
        connection.execute(delete(blocks).where(blocks.c.number < values["final"], blocks.c.log_count == 0))
        return values

    def _move(self, cursor: Cursor, safe: Block | None, final: Block | None) -> None:
        """Notes that the mirror stood at the head now, and what became final; at most once a second."""
        now = int(self._clock())
        settled = cursor.final >= (final.number if final else -1) or cursor.empty
        if now <= cursor.checked_at and settled and cursor.writer == self.name:
            return
        with writing(self.engine) as connection:
            self._take(connection, cursor, checked_at=now)
            if not cursor.empty:
                connection.execute(
                    update(schema.cursor).values(**self._finals(connection, cursor.block(), safe, final))
                )

    # -------------------------------------------------------------------------------------------- reorgs

    def _rewind(self, cursor: Cursor) -> int:
        """Goes back to the last block that is still on the chain; returns how many blocks were undone."""
        self._fetcher.forget()
        self._known = None
        with self.engine.connect() as connection:
            blocks = schema.blocks
            query = select(blocks.c.number, blocks.c.hash).where(blocks.c.number > cursor.final)
            stored = [(n, h) for n, h in connection.execute(query.order_by(blocks.c.number.desc()))]
        shared = self._shared(stored)
        if shared is None and cursor.final_hash is not None:
            shared = self._shared([(cursor.final, cursor.final_hash)])
        if shared is None:
            self._latch(cursor, stored)
        with writing(self.engine) as connection:
            before = self._take_back(connection, cursor, shared)
        self.counts["reorgs"] += 1
        self.counts["rewound"] += before
        return before

    def _take_back(self, connection: Connection, cursor: Cursor, shared: Block) -> int:
        self._take(connection, cursor)
        rewind(connection, shared.number, cursor.final)
        values = {
            "number": shared.number,
            "hash": shared.hash,
            "parent_hash": shared.parent_hash,
            "timestamp": shared.timestamp,
            "digest": queries.digest_at(connection, self.deployment, shared.number),
            "checked": min(cursor.checked, shared.number),
        }
        if shared.number < cursor.final:
            values |= {"final": shared.number, "final_hash": shared.hash}
        connection.execute(update(schema.cursor).values(**values))
        return cursor.number - shared.number

    def _shared(self, stored: list[tuple[int, Hash32]]) -> Block | None:
        """The highest of these blocks that is on the chain; the numbers descend."""
        for number, block_hash in stored:
            block = self.chain.block(number)
            if block is not None and block.hash == block_hash:
                return block
        return None

    def _latch(self, cursor: Cursor, stored: list[tuple[int, Hash32]]) -> NoReturn:
        """Raises FinalityViolated, also after a restart, until `_clear`."""
        number = cursor.final if cursor.final_hash is not None else stored[-1][0] if stored else cursor.number
        there = self.chain.block(number)
        found = {
            "block": number,
            "stored": cursor.final_hash or (stored[-1][1] if stored else cursor.hash),
            "onChain": there.hash if there else None,
            "since": int(self._clock()),
        }
        with writing(self.engine) as connection:
            self._take(connection, cursor, violated=found)
        raise FinalityViolated(f"block {number}, which was final, is not on the chain any more", **found)

    def _clear(self, cursor: Cursor) -> None:
        """Ends the latch if every stored block up to finality is on the chain. Raises FinalityViolated if not."""
        known = {cursor.final: cursor.final_hash} if cursor.final_hash else {}
        highest = cursor.final if cursor.final_hash else cursor.number
        blocks = schema.blocks
        with self.engine.connect() as connection:
            query = select(blocks.c.number, blocks.c.hash).where(blocks.c.number <= highest)
            known |= {row.number: row.hash for row in connection.execute(query)}
        for number, header in self._fetcher.headers(list(known), missing_ok=True).items():
            if header.hash == known[number]:
                known.pop(number)
        if known:
            number = min(known)
            raise FinalityViolated(f"{len(known)} stored blocks are not on the chain, the first is {number}")
        with writing(self.engine) as connection:
            self._take(connection, cursor, violated=None)

    # --------------------------------------------------------------------------------------- second pass

    def second_pass(self) -> bool:
        """Reads one range of final blocks again and compares; True if there is more to read.

        Where the two answers differ, the block's own receipts decide; if they are against the mirror, it goes back to
        before that block.
        """
        with self.engine.connect() as connection:
            cursor = queries.cursor(connection)
        first = max(cursor.checked + 1, self.deployment.block)
        if first > cursor.final or cursor.violated is not None:
            return False
        last, wrong = self._compare(cursor, first)
        if self._block(cursor.final).hash != cursor.final_hash:
            return False  # another chain: the next step finds out, and nothing is repaired by it
        if wrong is None:
            with writing(self.engine) as connection:
                self._take(connection, cursor, checked=last)
            return last < cursor.final
        self._repair(cursor, wrong)
        return True

    def _compare(self, cursor: Cursor, first: int) -> tuple[int, int | None]:
        """Reads a range of final blocks: its last block, and the first of which the mirror has other logs."""
        found = self._fetcher.range(first, cursor.final)
        blocks = schema.blocks
        between = (blocks.c.number >= first) & (blocks.c.number <= found.last.number) & (blocks.c.log_count > 0)
        with self.engine.connect() as connection:
            query = select(blocks.c.number, blocks.c.logs).where(between)
            mine = {number: packing.unpack(logs) for number, logs in connection.execute(query)}
        theirs = {block.number: logs for block, logs in found.blocks}
        differ = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))
        for block, logs in self._fetcher.certain(differ):
            if logs != mine.get(block.number, []):
                return found.last.number, block.number
            self.counts["short"] += 1
        return found.last.number, None

    def _find_short(self, cursor: Cursor) -> int:
        """Reads all there is again until a block is found of which logs are missing; how many blocks were undone.

        From the beginning: the second pass may have been answered short as well. It is not counted as one.
        """
        first, wrong = self.deployment.block, None
        while wrong is None and first <= cursor.final:
            last, wrong = self._compare(cursor, first)
            first = last + 1
        if cursor.final_hash is not None and self._block(cursor.final).hash != cursor.final_hash:
            return 0
        # Of what is not final, too: nothing becomes final while the mirror stands still.
        wrong = wrong or self._wrong_near(cursor)
        if wrong is None:
            return 0
        self._repair(cursor, wrong)
        return cursor.number - wrong + 1

    def _wrong_near(self, cursor: Cursor) -> int | None:
        """The first block that is not final and of which the mirror has other logs than the chain."""
        with self.engine.connect() as connection:
            blocks = schema.blocks
            query = select(blocks.c.number, blocks.c.hash, blocks.c.logs).where(blocks.c.number > cursor.final)
            mine = {number: (hash_, packing.unpack(logs)) for number, hash_, logs in connection.execute(query)}
        for block, logs in self._fetcher.certain(list(mine)):
            if block.hash != mine[block.number][0]:
                return None  # the chain moved: the next step finds out
            if logs != mine[block.number][1]:
                return block.number
        return None

    def _repair(self, cursor: Cursor, wrong: int) -> None:
        """Goes back to before a block of which the mirror has other logs than the chain."""
        shared = self._block(wrong - 1)
        self._fetcher.forget()
        with writing(self.engine) as connection:
            self._take_back(connection, cursor, shared)
            connection.execute(update(schema.cursor).values(differences=schema.cursor.c.differences + 1))
        self.counts["differences"] += 1
