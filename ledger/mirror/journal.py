"""Events in the order in which readers learn them, those that a reorg took back included.

The journal has an entry for every block with logs that was applied, and one for every such block that was taken back.
An *offset* says how far a reader has come: the entry, how many of its events were told, and the beginning of its
block's hash. It holds for ever: a reader that was away for a reorg is told what was taken back before it is told what
came instead. A rebuilt mirror numbers its entries anew; there an offset is found again by its block's hash.

With `final` a reader learns only what is final, and of reorgs nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from ledger.core.errors import InputInvalid, MirrorError
from ledger.core.events import Log
from ledger.core.ids import Address, Hash32
from ledger.mirror import packing, queries, schema
from ledger.mirror.queries import Row, decoded
from ledger.mirror.schema import APPLIED, RETRACTED, holds

BLOCKS = 200  # entries looked at in one reading

_OFFSET = re.compile(r"([0-9]{1,18})-([0-9]{1,9})-([0-9a-f]{16})\Z")


class OffsetUnknown(MirrorError):
    """The offset is of a block this mirror never had: another deployment, or a branch that a rebuild does not know."""

    code = "offset_unknown"


@dataclass(frozen=True, slots=True)
class Offset:
    """After `told` events of an entry; `mark` is the first 8 bytes of its block's hash, as hex."""

    entry: int
    told: int
    mark: str

    def __str__(self) -> str:
        return f"{self.entry}-{self.told}-{self.mark}"

    @staticmethod
    def parse(text: str) -> "Offset":
        """Raises InputInvalid."""
        found = _OFFSET.match(text)
        if found is None:
            raise InputInvalid(f"an offset is what the event before was told with, got {text[:60]!r}", field="after")
        return Offset(int(found[1]), int(found[2]), found[3])


BEGINNING = Offset(0, 0, "0" * 16)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: of a contract, of a name, about an id; None: any.

    `about` is a space, product, version, authorization, wallet or another id. An event is about it if it names it, or
    names an authorization whose space, product, provider or consumer it is.
    """

    contract: str | None = None
    event: str | None = None
    about: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An event that happened; or `retracted`: what was told of this very event before is not so any more."""

    offset: Offset
    retracted: bool
    row: Row


@dataclass(frozen=True, slots=True)
class Reading:
    """What was told and how far it came, which may be further than the last event. `more`: there may be more now."""

    events: list[Told]
    reached: Offset
    more: bool


def end(connection: Connection) -> Offset:
    """After everything there is now."""
    table = schema.journal
    return _after(connection, select(table).order_by(table.c.entry.desc()).limit(1))


def before_block(connection: Connection, number: int) -> Offset:
    """Before the first entry of this block or a later one."""
    table = schema.journal
    first = select(func.min(table.c.entry)).where(table.c.number >= number).scalar_subquery()
    query = select(table).where(or_(first.is_(None), table.c.entry < first))
    return _after(connection, query.order_by(table.c.entry.desc()).limit(1))


def _after(connection: Connection, query: Select[Any]) -> Offset:
    found = _entries(connection, connection.execute(query).mappings().all())
    return found[0].place(len(found[0].logs)) if found else BEGINNING


def read(
    connection: Connection, after: Offset, limit: int, wanted: Wanted | None = None, *, final: bool = False
) -> Reading:
    """At most `limit` events after an offset, in order.

    Raises:
        OffsetUnknown: the offset is of a block that this mirror does not know.
    """
    table, height = schema.journal, queries.cursor(connection).final
    reached = _known(connection, after)
    query = select(table).where(table.c.entry >= reached.entry).order_by(table.c.entry).limit(BLOCKS)
    entries = _entries(connection, connection.execute(query).mappings().all())
    choice = _Choice(connection, wanted or Wanted())
    events: list[Told] = []
    for entry in entries:
        unsettled = entry.kind == APPLIED and entry.number > height
        if final and unsettled and entry.fate != RETRACTED:
            return Reading(events, reached, more=False)
        # Whoever learns of final blocks only never heard of those that a reorg took back.
        passed = final and RETRACTED in (entry.kind, entry.fate)
        told = len(entry.logs) if passed else reached.told if entry.entry == reached.entry else 0
        for place, log in enumerate(entry.logs[told:], told + 1):
            row = choice.row(entry, log)
            if row is None:
                continue
            if len(events) == limit:
                return Reading(events, reached, more=True)
            reached = entry.place(place)
            events.append(Told(reached, entry.kind != APPLIED, row))
        reached = entry.place(len(entry.logs))
    return Reading(events, reached, more=len(entries) == BLOCKS)


def _known(connection: Connection, offset: Offset) -> Offset:
    """The offset as this mirror counts."""
    if offset == BEGINNING:
        return offset
    table = schema.journal
    found = connection.execute(select(table.c.hash).where(table.c.entry == offset.entry)).scalar()
    if found is not None and found[2:18] == offset.mark:
        return offset
    first, last = (f"0x{offset.mark}{byte * 24}" for byte in ("00", "ff"))
    query = select(func.max(table.c.entry)).where(table.c.hash.between(first, last), table.c.kind == APPLIED)
    entry = connection.execute(query).scalar()
    if entry is None:
        raise OffsetUnknown(f"the mirror has no block that begins with 0x{offset.mark}; begin with a block's number")
    return Offset(entry, offset.told, offset.mark)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry with its logs, in the order in which they are told; `fate` is how it was taken back, None if not."""

    entry: int
    kind: int
    fate: int | None
    number: int
    hash: Hash32
    timestamp: int
    logs: list[Log]

    def place(self, told: int) -> Offset:
        return Offset(self.entry, told, self.hash[2:18])


def _entries(connection: Connection, rows: Sequence[Any]) -> list[_Entry]:
    """Rows of the journal with the logs of their blocks."""
    journal, blocks = schema.journal, schema.blocks
    hashes = {row["hash"] for row in rows if row["kind"] == APPLIED}
    stored = select(blocks.c.hash, blocks.c.logs).where(blocks.c.hash.in_(hashes))
    standing = {row.hash: row.logs for row in connection.execute(stored)}
    gone = select(journal).where(journal.c.hash.in_(hashes), journal.c.kind != APPLIED).order_by(journal.c.entry)
    taken_back = connection.execute(gone).mappings().all()
    found = []
    for row in rows:
        kind, packed, fate = row["kind"], row["logs"], None
        if kind == APPLIED:
            # A block may come back after a reorg: the first time it was taken back is this entry's.
            later = [r for r in taken_back if r["hash"] == row["hash"] and r["entry"] > row["entry"]]
            fate, packed = (later[0]["kind"], later[0]["logs"]) if later else (None, standing[row["hash"]])
        logs = packing.unpack(packed)
        ordered = logs if kind == APPLIED else logs[::-1]
        found.append(_Entry(row["entry"], kind, fate, row["number"], row["hash"], row["timestamp"], ordered))
    return found


class _Choice:
    """Decodes logs, and keeps those that are wanted."""

    def __init__(self, connection: Connection, wanted: Wanted) -> None:
        self._names = queries.contract_names(connection)
        self._wanted = wanted
        about = wanted.about
        self._ids = {about}
        if about is not None:
            table = schema.authorizations
            parties = (table.c.space, table.c.product) if len(about) == 66 else (table.c.provider, table.c.consumer)
            query = select(table.c.authorization).where(holds(table), or_(*(column == about for column in parties)))
            self._ids |= set(connection.execute(query).scalars())

    def row(self, entry: _Entry, log: Log) -> Row | None:
        wanted = self._wanted
        if wanted.contract is not None and self._names[Address("0x" + log.address.hex())] != wanted.contract:
            return None
        row = decoded(log, self._names, entry.number, entry.hash, entry.timestamp)
        if wanted.event is not None and row["event"] != wanted.event:
            return None
        if wanted.about is not None and self._ids.isdisjoint(_texts(row["args"])):
            return None
        return row


def _texts(value: Any) -> set[str]:
    """Every text in an event's arguments."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for item in inner for text in _texts(item)}
