"""A usage log: append-only, one leaf per use id, its tree kept in tiles beside the rows.

A leaf is in the database before anybody hears of it; nothing is ever rewritten. What a writer keeps in memory does not
grow with the log.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Select, func, insert, select, update

from ledger.core.database import Target, ask, insert_unless, open_database, writing
from ledger.core.errors import Conflict, NotFound, VerificationFailed
from ledger.core.ids import Hash32, hash_of, raw
from ledger.core.merkle import CompactRange, Nodes, Tree, leaf_hash
from ledger.core.terms import Quad, UsageCeiling, UsageHead, UseReceipt
from ledger.core.tiles import HASH, HEIGHT, WIDTH, TiledTree, subtree_root
from ledger.core.usage_leaf import Kind, UsageLeaf
from ledger.metering import schema

NO_UNITS: Quad = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf with what stays off it. `salt` and `written` are None once erased.

    `written` is the payload as RFC 8785 writes it: with the salt before it, what the leaf commits to. `signature` is
    the provider's over the receipt; None where one signed head answers for a batch of leaves.
    """

    leaf: UsageLeaf
    request_hash: Hash32
    salt: bytes | None
    written: bytes | None
    signature: str | None

    @property
    def payload(self) -> dict[str, Any] | None:
        """The payload, read anew each time."""
        if self.written is None:
            return None
        found: dict[str, Any] = json.loads(self.written)
        return found

    def as_json(self) -> dict[str, Any]:
        """The wire form: what a receipt header and `/leaves` carry."""
        return {
            "leaf": self.leaf.as_json(),
            "requestHash": self.request_hash,
            "salt": None if self.salt is None else "0x" + self.salt.hex(),
            "payload": self.payload,
            "signature": self.signature,
        }


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head with its signatures; the consumer's is None until it has signed."""

    head: UsageHead
    provider_signature: str
    consumer_signature: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "head": self.head.as_json(),
            "providerSignature": self.provider_signature,
            "consumerSignature": self.consumer_signature,
        }


def open_usage(target: Target) -> Engine:
    """Opens or creates the database of usage logs and heads: a gateway's, or a consumer's own copy."""
    return open_database(target, schema.metadata, schema.SCHEMA_VERSION, "sluice_usage")


def receipt_of(leaf: UsageLeaf) -> UseReceipt:
    """What the provider signs with every use."""
    return UseReceipt(
        authorization_id=leaf.authorization_id,
        index=leaf.index,
        leaf_hash=hash_of(leaf.hash()),
        cum_units=leaf.cum_units,
        served_at=leaf.served_at,
    )


def head_after(last: UsageLeaf, root: bytes) -> UsageHead:
    """The head over all leaves up to this one; its totals are the leaf's."""
    return UsageHead(
        authorization_id=last.authorization_id,
        size=last.index + 1,
        units=last.cum_units,
        credits=last.cum_credits,
        as_of=last.served_at,
        root=hash_of(root),
    )


class LogMovedOn(Conflict):
    """Another writer appended to this log: read it again before writing."""

    code = "log_moved_on"


class UsageLog:
    """The writer's view of one authorization's log: its last leaf and a compact range, however long it is.

    Several writers may share a log: whoever writes holds its row, and sees first what others wrote.
    """

    def __init__(self, engine: Engine, authorization_id: Hash32) -> None:
        """Reads where the log stands, and checks that the leaves of the tile that grows are all there."""
        self._engine = engine
        self.authorization_id = authorization_id
        with engine.connect() as connection:
            self._set(connection, connection.execute(_log_row(authorization_id)).first())
            first = len(self) // WIDTH * WIDTH
            self._row: list[bytes] | None = _hashes(connection, authorization_id, first, len(self))
        if len(self._row) != len(self) - first:
            raise VerificationFailed(f"the usage log of {authorization_id} has a gap", authorization=authorization_id)

    def _set(self, connection: Connection, row: Any) -> None:
        size = row.size if row is not None else 0
        # All that is read is read before anything is kept: an error in between leaves the view as it was.
        last = _leaf(connection, self.authorization_id, size - 1) if size else None
        self._range = CompactRange(size, _split(row.nodes)) if row is not None else CompactRange()
        self.last: UsageLeaf | None = last
        self._agreed(row)

    def _agreed(self, row: Any) -> None:
        signed, ceiling = (row.acknowledged, row.ceiling) if row is not None else (None, None)
        self.under_way: int = row.under_way if row is not None else 0
        self.acknowledged: Quad = struct.unpack(">4Q", signed) if signed is not None else NO_UNITS
        self.ceiling = UsageCeiling.from_json(ceiling["ceiling"]) if ceiling is not None else None

    def __len__(self) -> int:
        return self._range.size

    @property
    def units(self) -> Quad:
        return self.last.cum_units if self.last else NO_UNITS

    @property
    def credits(self) -> int:
        return self.last.cum_credits if self.last else 0

    @property
    def tree(self) -> Nodes:
        """The tree as it is now, from its tiles: for roots and proofs of any size."""
        engine, id_, size = self._engine, self.authorization_id, len(self)

        def read(level: int, index: int) -> bytes:
            with engine.connect() as connection:
                return read_tile(connection, id_, level, index, size)

        return TiledTree(size, read)

    def next_leaf(
        self,
        *,
        use_id_hash: Hash32,
        units: Quad,
        kind: Kind,
        purpose: int,
        modality: int,
        version: Hash32,
        payload_hash: Hash32,
        event_time: int,
        now: int,
        credit: int = 0,
        after: UsageLeaf | None = None,
    ) -> UsageLeaf:
        """The leaf that comes next, or after one that is not in the log yet; `served_at` never runs backwards."""
        before = after or self.last
        had, credits = (before.cum_units, before.cum_credits) if before else (NO_UNITS, 0)
        a, b, c, d = (total + one for total, one in zip(had, units, strict=True))
        return UsageLeaf(
            authorization_id=self.authorization_id,
            index=before.index + 1 if before else 0,
            use_id_hash=use_id_hash,
            units=units,
            cum_units=(a, b, c, d),
            cum_credits=credits + credit,
            event_time=event_time,
            served_at=max(now, before.served_at if before else 0),
            kind=kind,
            purpose=purpose,
            modality=modality,
            version=version,
            payload_hash=payload_hash,
        )

    def append(self, entry: Entry) -> None:
        """As `append_all`, of one."""
        self.append_all([entry])

    def append_all(self, entries: Sequence[Entry]) -> None:
        """Commits leaves, tiles and where the log stands in one transaction; then this view has them too.

        Raises:
            Conflict: they are not the next leaves.
            LogMovedOn: another writer was faster.
        """
        size = len(self)
        with writing(self._engine) as connection:
            if self.hold(connection):
                raise LogMovedOn(f"the usage log of {self.authorization_id} has more than {size} leaves by now")
            grown = self.write(connection, entries)
        self.take(grown)

    def hold(self, connection: Connection) -> bool:
        """Keeps the log for this transaction: nobody else writes it until its end. True if another wrote before.

        In a `writing` transaction only. Several logs are held in the order of their ids, so that no two writers wait
        for each other.
        """
        row = _held(connection, self.authorization_id)
        if row is None:
            empty = {"authorization": self.authorization_id, "size": 0, "nodes": b""}
            insert_unless(connection, schema.logs, empty)
            row = _held(connection, self.authorization_id)
            assert row is not None
        if row.size == len(self):
            self._agreed(row)
            return False
        self._set(connection, row)
        self._row = None
        return True

    def write(self, connection: Connection, entries: Sequence[Entry]) -> "Grown":
        """Writes the next leaves of a log that is held. The view stays as it is until `take`: commit first.

        Raises:
            Conflict: they are not the next leaves.
        """
        encoded = [entry.leaf.encode() for entry in entries]
        grown = self._grow(connection, [entry.leaf for entry in entries], encoded)
        _insert(connection, [_row(entry, data) for entry, data in zip(entries, encoded, strict=True)])
        return grown

    def adopt(self, connection: Connection, leaves: Sequence[UsageLeaf]) -> "Grown":
        """As `write`, of leaves that are in the table already: a consumer's copy, as far as it has been checked."""
        return self._grow(connection, leaves, [leaf.encode() for leaf in leaves])

    def _grow(self, connection: Connection, leaves: Sequence[UsageLeaf], encoded: Sequence[bytes]) -> "Grown":
        size, id_ = len(self), self.authorization_id
        if [leaf.index for leaf in leaves] != list(range(size, size + len(leaves))):
            raise Conflict(f"leaf {leaves[0].index if leaves else None} is not the next of {size}")
        grown = CompactRange(size, self._range.nodes)
        row = list(self._row) if self._row is not None else None
        hashes = [leaf_hash(data) for data in encoded]
        for n, hashed in enumerate(hashes):
            grown.append(hashed)
            if row is not None:
                row.append(hashed)
            if grown.size % WIDTH == 0:
                if row is None:  # others wrote the first hashes of this tile: they are in the table
                    row = _hashes(connection, id_, grown.size - WIDTH, size) + hashes[: n + 1]
                _save_tile(connection, id_, 0, grown.size // WIDTH - 1, b"".join(row))
                row = []
        ask(connection, _MOVE, (grown.size, b"".join(grown.nodes), raw(id_)))
        return Grown(grown, row, leaves[-1] if leaves else self.last)

    def take(self, grown: "Grown") -> None:
        """What `write` wrote is committed: this view has it too."""
        self._range, self._row, self.last = grown.range, grown.row, grown.last

    def agree(
        self,
        connection: Connection,
        *,
        acknowledged: Quad | None = None,
        ceiling: tuple[UsageCeiling, str] | None = None,
    ) -> None:
        """Notes what the consumer signed, on a log that is held: units of a head, or a ceiling with its signature."""
        values: dict[str, Any] = {}
        if acknowledged is not None:
            values["acknowledged"] = struct.pack(">4Q", *acknowledged)
        if ceiling is not None:
            values["ceiling"] = {"ceiling": ceiling[0].as_json(), "signature": ceiling[1]}
        table = schema.logs
        connection.execute(update(table).where(table.c.authorization == self.authorization_id).values(**values))
        self._agreed(connection.execute(_log_row(self.authorization_id)).one())

    # ------------------------------------------------------------------------------------- under way

    def held(self, connection: Connection, now: int) -> dict[Hash32, Quad]:
        """Units of deliveries under way, by use id, on a log that is held. What has died is forgotten."""
        if not self.under_way:
            return {}
        rows = ask(connection, _UNDER_WAY, (raw(self.authorization_id),))
        for id_, _, until in rows:
            if until < now:
                self.end(connection, hash_of(bytes(id_)))
        return {hash_of(bytes(id_)): struct.unpack(">4Q", units) for id_, units, until in rows if until >= now}

    def begin(self, connection: Connection, use_id_hash: Hash32, units: Quad, until: int) -> None:
        """Notes a delivery that begins: its units are held until it ends, or is given up."""
        ask(connection, _BEGIN, (raw(self.authorization_id), raw(use_id_hash), struct.pack(">4Q", *units), until))
        self._count(connection, 1)

    def end(self, connection: Connection, use_id_hash: Hash32) -> None:
        """A delivery is over, or was given up."""
        if ask(connection, _END, (raw(self.authorization_id), raw(use_id_hash))):
            self._count(connection, -1)

    def _count(self, connection: Connection, more: int) -> None:
        self.under_way += more
        ask(connection, _COUNT, (more, raw(self.authorization_id)))

    def find(self, use_id_hash: Hash32) -> Entry | None:
        """The entry with this use id, if there is one."""
        with self._engine.connect() as connection:
            found = find_entries(connection, self.authorization_id, [use_id_hash])
        return found[0] if found else None

    def head(self, size: int | None = None) -> UsageHead:
        """Raises NotFound if the log is empty or shorter."""
        if not len(self):
            raise NotFound(f"nothing is recorded on authorization {self.authorization_id} yet")
        size = len(self) if size is None else size
        if not 0 < size <= len(self):
            raise NotFound(f"the usage log of {self.authorization_id} has {len(self)} leaves, not {size}")
        if size == len(self):
            assert self.last is not None
            return head_after(self.last, self._range.root())
        with self._engine.connect() as connection:
            last = _leaf(connection, self.authorization_id, size - 1)
        return head_after(last, self.tree.root(size))

    def root(self) -> bytes:
        """Of the whole tree."""
        return self._range.root()

    def size_at(self, seconds: int) -> int:
        """How many leaves were served up to this time, inclusive."""
        with self._engine.connect() as connection:
            return served_before(connection, self.authorization_id, seconds + 1)


ASK = 10_000  # values a query asks for at once


def find_entries(connection: Connection, authorization_id: Hash32, use_id_hashes: Sequence[Hash32]) -> list[Entry]:
    """Entries with these use ids, in no order."""
    found: list[Entry] = []
    for at in range(0, len(use_id_hashes), ASK):
        some = [raw(h) for h in use_id_hashes[at : at + ASK]]
        values: list[Any]
        if connection.dialect.name == "sqlite":
            query, values = f"{_BY_USE_ID} ({', '.join('?' * len(some))})", [raw(authorization_id), *some]
        else:
            query, values = _BY_USE_ID_ANY, [raw(authorization_id), some]
        found += [_entry(dict(zip(_ENTRY, row, strict=True))) for row in ask(connection, query, values)]
    return found


_ENTRY = ("leaf", "request_hash", "salt", "payload", "signature")
_SELECT_ENTRY = f"SELECT {', '.join(_ENTRY)} FROM leaves"  # noqa: S608 (our own names)
# SQLite would rather go through all leaves of the authorization: it does not know that there are many.
_BY_USE_ID = f'{_SELECT_ENTRY} INDEXED BY leaves_by_use_id WHERE "authorization" = ? AND use_id_hash IN'
_BY_USE_ID_ANY = f'{_SELECT_ENTRY} WHERE "authorization" = ? AND use_id_hash = ANY(?)'


@dataclass(frozen=True, slots=True)
class Grown:
    """A log after leaves that are written, and not committed yet."""

    range: CompactRange
    row: list[bytes] | None  # hashes of the tile that grows; None: not known here
    last: UsageLeaf | None


def ceiling_of(connection: Connection, authorization_id: Hash32) -> Any:
    """{ceiling, signature}: the last ceiling the consumer signed; None if it signed none."""
    query = select(schema.logs.c.ceiling).where(schema.logs.c.authorization == authorization_id)
    return connection.execute(query).scalar()


def tree_of(connection: Connection, authorization_id: Hash32, size: int) -> Nodes:
    """The tree over the first `size` leaves of a log, or of a copy, which has no tiles.

    Raises:
        NotFound: a leaf is missing.
    """
    if _stands(connection, authorization_id).size >= size:
        return TiledTree(size, lambda level, index: read_tile(connection, authorization_id, level, index, size))
    hashes = _hashes(connection, authorization_id, 0, size)
    if len(hashes) != size:
        raise NotFound(f"of the {size} leaves of {authorization_id} only {len(hashes)} are at hand")
    return Tree(hashes)


def _stands(connection: Connection, authorization_id: Hash32) -> CompactRange:
    row = connection.execute(_log_row(authorization_id)).first()
    if row is None:
        return CompactRange()
    return CompactRange(row.size, _split(row.nodes))


def _split(nodes: bytes) -> list[bytes]:
    return [nodes[at : at + HASH] for at in range(0, len(nodes), HASH)]


def _log_row(authorization_id: Hash32) -> Select[Any]:
    return select(schema.logs).where(schema.logs.c.authorization == authorization_id)


class _Row(NamedTuple):
    """Of `logs`: where a log stands, what the consumer has signed, and how many deliveries are under way."""

    size: int
    nodes: bytes
    acknowledged: bytes | None
    ceiling: Any
    under_way: int


def _held(connection: Connection, authorization_id: Hash32) -> _Row | None:
    """The log's row, held until the end of the transaction; SQLite has one writer anyway."""
    found = ask(connection, _HOLD[connection.dialect.name], (raw(authorization_id),))
    if not found:
        return None
    size, nodes, acknowledged, ceiling, under_way = found[0]
    return _Row(size, nodes, acknowledged, json.loads(ceiling) if isinstance(ceiling, str) else ceiling, under_way)


_SELECT_ROW = 'SELECT size, nodes, acknowledged, ceiling, under_way FROM logs WHERE "authorization" = ?'
_HOLD = {"sqlite": _SELECT_ROW, "postgresql": _SELECT_ROW + " FOR UPDATE"}
_UNDER_WAY = 'SELECT use_id_hash, units, until FROM under_way WHERE "authorization" = ?'
_BEGIN = 'INSERT INTO under_way ("authorization", use_id_hash, units, until) VALUES (?, ?, ?, ?)'
_END = 'DELETE FROM under_way WHERE "authorization" = ? AND use_id_hash = ? RETURNING until'
_COUNT = 'UPDATE logs SET under_way = under_way + ? WHERE "authorization" = ?'
_MOVE = 'UPDATE logs SET size = ?, nodes = ? WHERE "authorization" = ?'


def _leaf(connection: Connection, authorization_id: Hash32, index: int) -> UsageLeaf:
    table = schema.leaves
    query = select(table.c.leaf).where(table.c.authorization == authorization_id, table.c.index == index)
    found = connection.execute(query).scalar()
    if found is None:
        words = f"the usage log of {authorization_id} has a gap: leaf {index} is missing"
        raise VerificationFailed(words, authorization=authorization_id)
    return UsageLeaf.decode(found)


def _hashes(connection: Connection, authorization_id: Hash32, first: int, end: int) -> list[bytes]:
    """Of leaves from one index on and before another."""
    table = schema.leaves
    between = (table.c.index >= first) & (table.c.index < end)
    query = select(table.c.leaf).where(table.c.authorization == authorization_id, between).order_by(table.c.index)
    return [leaf_hash(leaf) for leaf in connection.execute(query).scalars()]


def read_tile(connection: Connection, authorization_id: Hash32, level: int, index: int, size: int) -> bytes:
    """A tile of the log's tree as it was with `size` leaves; the last of a level may be partial."""
    have = (size >> (HEIGHT * level)) - index * WIDTH
    table = schema.tiles
    place = (table.c.authorization == authorization_id, table.c.level == level, table.c.index == index)
    stored: bytes | None = connection.execute(select(table.c.hashes).where(*place)).scalar()
    if stored is None and level == 0:
        stored = b"".join(_hashes(connection, authorization_id, index * WIDTH, min(size, (index + 1) * WIDTH)))
    return (stored or b"")[: max(0, have) * HASH]


def _save_tile(connection: Connection, authorization_id: Hash32, level: int, index: int, hashes: bytes) -> None:
    """A tile, and what it adds to the one above once it is full."""
    table = schema.tiles
    place = (table.c.authorization == authorization_id, table.c.level == level, table.c.index == index)
    changed = connection.execute(update(table).where(*place).values(hashes=hashes))
    if not changed.rowcount:
        row = {"authorization": authorization_id, "level": level, "index": index, "hashes": hashes}
        connection.execute(insert(table).values(**row))
    if len(hashes) == WIDTH * HASH:
        above, number = level + 1, index // WIDTH
        query = select(table.c.hashes).where(
            table.c.authorization == authorization_id, table.c.level == above, table.c.index == number
        )
        before: bytes = connection.execute(query).scalar() or b""
        _save_tile(connection, authorization_id, above, number, before + subtree_root(hashes))


def insert_entry(connection: Connection, entry: Entry) -> None:
    """A leaf of a copy: in any order. Raises IntegrityError if index or use id are taken."""
    _insert(connection, [_row(entry, entry.leaf.encode())])


_COLUMNS = (  # of `leaves`, with PostgreSQL's types
    ("authorization", "bytea"),
    ("index", "int8"),
    ("use_id_hash", "bytea"),
    ("leaf", "bytea"),
    ("kind", "int2"),
    ("purpose", "int2"),
    ("modality", "int2"),
    ("request_hash", "bytea"),
    ("salt", "bytea"),
    ("payload", "text"),
    ("signature", "bytea"),
)
_NAMES = ", ".join(f'"{name}"' for name, _ in _COLUMNS)
_COPY = f"COPY leaves ({_NAMES}) FROM STDIN (FORMAT BINARY)"
_INSERT = f"INSERT INTO leaves ({_NAMES}) VALUES ({', '.join(['{0}'] * len(_COLUMNS))})"  # noqa: S608 (own names)
COPY_FROM = 8  # rows; fewer are inserted faster than a copy begins


def _insert(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Rows as the driver takes them: half of a leaf's way to the disk is saved by that."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        driver.executemany(_INSERT.format("?"), rows)
    elif len(rows) < COPY_FROM:
        for row in rows:
            driver.execute(_INSERT.format("%s"), row)
    else:
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types([kind for _, kind in _COLUMNS])
            for row in rows:
                copy.write_row(row)


def _row(entry: Entry, encoded: bytes) -> tuple[Any, ...]:
    leaf = entry.leaf
    return (
        encoded[:32],
        leaf.index,
        encoded[40:72],
        encoded,
        int(leaf.kind),
        leaf.purpose,
        leaf.modality,
        raw(entry.request_hash),
        entry.salt,
        None if entry.written is None else entry.written.decode(),
        None if entry.signature is None else raw(entry.signature),
    )


def erase_payload(connection: Connection, authorization_id: Hash32, index: int) -> bool:
    """Deletes what a leaf's commitment opens to; False if it is gone already."""
    table = schema.leaves
    mine = (table.c.authorization == authorization_id) & (table.c.index == index) & table.c.salt.is_not(None)
    return bool(connection.execute(update(table).where(mine).values(salt=None, payload=None)).rowcount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which leaves; None: any. Times in seconds, from `served_after` on and before `served_before`."""

    purpose: int | None = None
    modality: int | None = None
    kind: str | None = None
    version: str | None = None
    served_after: int | None = None
    served_before: int | None = None


def read_entries(
    connection: Connection,
    authorization_id: Hash32,
    first: int = 0,
    limit: int = -1,
    wanted: Wanted = Wanted(),
    below: int | None = None,
) -> list[Entry]:
    """Entries from index `first` on and below index `below`, in order; all of them if `limit` is negative."""
    table = schema.leaves
    query = select(table).where(table.c.authorization == authorization_id, table.c.index >= first)
    if below is not None:
        query = query.where(table.c.index < below)
    for name in ("purpose", "modality"):
        if getattr(wanted, name) is not None:
            query = query.where(table.c[name] == getattr(wanted, name))
    if wanted.version is not None:
        query = query.where(func.substr(table.c.leaf, 166, 32) == raw(wanted.version))  # where it stands in a leaf
    if wanted.kind is not None:
        query = query.where(table.c.kind == Kind[wanted.kind].value)
    # Times never fall from one index to the next: a time is an index, and the index is the order.
    if wanted.served_after is not None:
        query = query.where(table.c.index >= served_before(connection, authorization_id, wanted.served_after))
    if wanted.served_before is not None:
        query = query.where(table.c.index < served_before(connection, authorization_id, wanted.served_before))
    query = query.order_by(table.c.index)
    if limit >= 0:
        query = query.limit(limit)
    return [_entry(row) for row in connection.execute(query).mappings()]


def served_before(connection: Connection, authorization_id: Hash32, seconds: int) -> int:
    """How many leaves were served before a time: found by halving, since times never fall."""
    table = schema.leaves
    last = connection.execute(select(func.max(table.c.index)).where(table.c.authorization == authorization_id)).scalar()
    low, high = 0, 0 if last is None else last + 1
    while low < high:
        middle = (low + high) // 2
        if _leaf(connection, authorization_id, middle).served_at < seconds:
            low = middle + 1
        else:
            high = middle
    return low


def _entry(row: Any) -> Entry:
    """Of a row: hashes as the driver gives them, or as text."""
    written = None if row["payload"] is None else row["payload"].encode()
    request_hash, signature = row["request_hash"], row["signature"]
    if isinstance(request_hash, bytes):
        request_hash = hash_of(request_hash)
    if isinstance(signature, bytes):
        signature = "0x" + signature.hex()
    return Entry(UsageLeaf.decode(row["leaf"]), request_hash, row["salt"], written, signature)


def first_gap(connection: Connection, authorization_id: Hash32, size: int, start: int = 0) -> int:
    """The first index below `size` that is not there; `size` if none is missing. From `start` on: before, none is."""
    table = schema.leaves
    between = (table.c.index >= start) & (table.c.index < size)
    query = select(table.c.index).where(table.c.authorization == authorization_id, between).order_by(table.c.index)
    expected = start
    for index in connection.execute(query.execution_options(yield_per=5_000)).scalars():
        if index != expected:
            break
        expected += 1
    return expected


def sums(connection: Connection, authorization_ids: Sequence[Hash32]) -> list[dict[str, Any]]:
    """Uses, refusals and units of these logs by purpose and modality; numbers of the code lists."""
    table = schema.leaves
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for authorization_id in authorization_ids:
        columns = (table.c.purpose, table.c.modality, table.c.kind, table.c.leaf)
        query = select(*columns).where(
            table.c.authorization == authorization_id, table.c.kind.in_([Kind.USE, Kind.REFUSAL])
        )
        # Units are 64 bits each and their sum may be more: it is made here.
        for purpose, modality, kind, encoded in connection.execute(query.execution_options(yield_per=5_000)):
            empty = {"purpose": purpose, "modality": modality, "uses": 0, "refusals": 0, "units": [0] * 4}
            total = found.setdefault((purpose, modality), empty)
            total["uses" if kind == Kind.USE else "refusals"] += 1
            units = UsageLeaf.decode(encoded).units
            total["units"] = [have + more for have, more in zip(total["units"], units, strict=True)]
    return [found[key] for key in sorted(found)]
