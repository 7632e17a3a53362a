"""Is every row of the mirror what the chain says? Rebuilt by another reader, and compared row by row.

The rebuild decodes settlements with eth_abi, not with the mirror's own reader, so that the two cannot be wrong in the
same way; and the digests are computed again from the rows that are there, not from those that were meant.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, Table, select

from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.chain.settled import read_settled_by_abi
from ledger.mirror import digest, packing, queries, schema
from ledger.mirror.store import open_mirror
from ledger.mirror.writer import Progress, Writer

AT_A_TIME = 1_000  # rows held in memory
MOST = 100  # differences told

_TABLES = (*schema.STATE, *schema.FACTS, schema.events)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same, or that one side does not have (None)."""

    table: str
    key: tuple[Any, ...]
    mine: dict[str, Any] | None
    chain: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What was compared: up to which block, how many rows, what differs (MOST at most)."""

    block: int
    digest: str
    rows: int
    differences: list[Difference]


def fsck(
    engine: Engine, chain: Chain, deployment: Deployment, tell: Callable[[Progress], None] = lambda _: None
) -> Checked:
    """Rebuilds the mirror's blocks beside it and compares everything. The mirror is only read, and as it was when the
    check began.

    Raises:
        ChainError: the node cannot be read; nothing was found out.
    """
    with TemporaryDirectory(prefix="sluice-fsck-") as folder, engine.connect() as mine:
        cursor = queries.cursor(mine)
        if cursor.empty:
            return Checked(-1, cursor.digest.hex(), 0, [])
        fresh = open_mirror(Path(folder) / "rebuilt.db", deployment)
        try:
            writer = Writer(fresh, chain, deployment, read=read_settled_by_abi)
            try:
                progress = writer.step(cursor.number)
                while progress.height < cursor.number:
                    tell(progress)
                    progress = writer.step(cursor.number)
            finally:
                writer.close()
            with fresh.connect() as theirs:
                found = _Comparison(mine, theirs)
                found.tables()
                found.blocks()
                found.digests(deployment, cursor.digest)
        finally:
            fresh.dispose()
    return Checked(cursor.number, cursor.digest.hex(), found.rows, found.differences)


class _Comparison:
    def __init__(self, mine: Connection, theirs: Connection) -> None:
        self._mine, self._theirs = mine, theirs
        self.rows = 0
        self.differences: list[Difference] = []

    def tables(self) -> None:
        for table in _TABLES:
            keys = [column.name for column in table.primary_key]
            for mine, theirs in _merged(_rows(self._mine, table), _rows(self._theirs, table), keys):
                self._compare(table.name, keys, mine, theirs)

    def blocks(self) -> None:
        """Blocks with logs, as they were."""
        columns = ("number", "hash", "timestamp", "log_count", "logs", "transactions", "digest")
        for mine, theirs in _merged(_blocks(self._mine, columns), _blocks(self._theirs, columns), ["number"]):
            self._compare("blocks", ["number"], mine, theirs)

    def digests(self, deployment: Deployment, last: bytes) -> None:
        """The chain of digests, from the rows that are there."""
        now = digest.start(deployment)
        written = merge(*(_lines(self._mine, table) for table in schema.STATE), key=lambda line: line[0])
        since, line = next(written, (None, b""))
        for block in _blocks(self._mine, ("number", "hash", "logs", "digest")):
            lines = []
            while since is not None and since <= block["number"]:
                lines.append(line)
                since, line = next(written, (None, b""))
            now = digest.extend(now, block["hash"], packing.pack(block["logs"]), lines)
            if now != block["digest"]:
                self._differs("blocks", (block["number"],), {"digest": block["digest"].hex()}, {"digest": now.hex()})
                now = block["digest"]  # what comes after it is judged on its own
        for _ in written:
            pass  # rows after the last block: compared with the tables
        if now != last:
            self._differs("cursor", (1,), {"digest": last.hex()}, {"digest": now.hex()})

    def _compare(self, table: str, keys: list[str], mine: dict[str, Any] | None, theirs: dict[str, Any] | None) -> None:
        self.rows += 1
        if mine != theirs:
            there = mine or theirs or {}
            self._differs(table, tuple(there[k] for k in keys), mine, theirs)

    def _differs(self, table: str, key: tuple[Any, ...], mine: Any, theirs: Any) -> None:
        if len(self.differences) < MOST:
            self.differences.append(Difference(table, key, mine, theirs))


def _rows(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    query = select(table).order_by(*table.primary_key).execution_options(yield_per=AT_A_TIME)
    return (dict(row) for row in connection.execute(query).mappings())


def _lines(connection: Connection, table: Table) -> Iterator[tuple[int, bytes]]:
    """(block, line of the digest) of every row, by block."""
    query = select(table).order_by(table.c.since).execution_options(yield_per=AT_A_TIME)
    return ((row["since"], digest.line(table, dict(row))) for row in connection.execute(query).mappings())


def _blocks(connection: Connection, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    table = schema.blocks
    query = select(*(table.c[name] for name in columns)).where(table.c.log_count > 0).order_by(table.c.number)
    for row in connection.execute(query.execution_options(yield_per=AT_A_TIME)).mappings():
        # Compressed alike or not, what counts is what is in it.
        yield {**row, "logs": packing.unpack(row["logs"])}


def _merged(
    mine: Iterator[dict[str, Any]], theirs: Iterator[dict[str, Any]], keys: list[str]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Rows of both sides by key, in order; None where one side has no such row."""
    left, right = next(mine, None), next(theirs, None)
    while left is not None or right is not None:
        a = tuple(left[k] for k in keys) if left else None
        b = tuple(right[k] for k in keys) if right else None
        if b is None or (a is not None and a < b):
            yield left, None
            left = next(mine, None)
        elif a is None or b < a:
            yield None, right
            right = next(theirs, None)
        else:
            yield left, right
            left, right = next(mine, None), next(theirs, None)
