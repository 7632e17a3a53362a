"""A usage log: append-only, one leaf per use id, its tree kept in tiles beside the rows.

A leaf is in the database before anybody hears of it; nothing is ever rewritten. What a writer keeps in memory does not
grow with the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ledger.core.database import Target, open_database, writing
from ledger.core.errors import Conflict, NotFound, VerificationFailed
from ledger.core.ids import Hash32, hash_of, raw
from ledger.core.merkle import CompactRange, Nodes, Tree, leaf_hash
from ledger.core.terms import Quad, UsageHead, UseReceipt
from ledger.core.tiles import HASH, HEIGHT, WIDTH, TiledTree, subtree_root
from ledger.core.usage_leaf import Kind, UsageLeaf
from ledger.metering import schema

NO_UNITS: Quad = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf with what stays off it. `salt` and `payload` are None once erased."""

    leaf: UsageLeaf
    request_hash: Hash32
    salt: bytes | None
    payload: dict[str, Any] | None
    signature: str

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

    Several writers may share a log: each moves its size from what it knew, and one of two wins.
    """

    def __init__(self, engine: Engine, authorization_id: Hash32) -> None:
        """Reads where the log stands, and checks that no leaf is missing."""
        self._engine = engine
        self.authorization_id = authorization_id
        with engine.connect() as connection:
            self._range = _stands(connection, authorization_id)
            size, leaves = self._range.size, schema.leaves
            mine = select(func.count(), func.max(leaves.c.index)).where(leaves.c.authorization == authorization_id)
            if tuple(connection.execute(mine).one()) != (size, size - 1 if size else None):
                words = f"the usage log of {authorization_id} has a gap"
                raise VerificationFailed(words, authorization=authorization_id)
            self.last: UsageLeaf | None = _leaf(connection, authorization_id, size - 1) if size else None
            self._row = _hashes(connection, authorization_id, size // WIDTH * WIDTH, size)  # of the tile that grows

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
        if [entry.leaf.index for entry in entries] != list(range(size, size + len(entries))):
            raise Conflict(f"leaf {entries[0].leaf.index if entries else None} is not the next of {size}")
        grown, row = CompactRange(size, self._range.nodes), list(self._row)
        full: list[tuple[int, bytes]] = []
        for entry in entries:
            hashed = entry.leaf.hash()
            grown.append(hashed)
            row.append(hashed)
            if len(row) == WIDTH:
                full.append(((entry.leaf.index + 1) // WIDTH - 1, b"".join(row)))
                row = []
        with writing(self._engine) as connection:
            self._take(connection, size, grown)
            connection.execute(insert(schema.leaves), [_row(entry) for entry in entries])
            for index, hashes in full:
                _save_tile(connection, self.authorization_id, 0, index, hashes)
        self._range, self._row = grown, row
        self.last = entries[-1].leaf if entries else self.last

    def _take(self, connection: Connection, size: int, grown: CompactRange) -> None:
        """Moves the log's row from the size that is known here."""
        table, nodes = schema.logs, b"".join(grown.nodes)
        if size == 0 and connection.execute(_log_row(self.authorization_id)).first() is None:
            try:
                connection.execute(insert(table).values(authorization=self.authorization_id, size=0, nodes=b""))
            except IntegrityError as problem:
                raise LogMovedOn("another writer began this log") from problem
        moved = connection.execute(
            update(table)
            .where(table.c.authorization == self.authorization_id, table.c.size == size)
            .values(size=grown.size, nodes=nodes)
        )
        if moved.rowcount != 1:
            raise LogMovedOn(f"the usage log of {self.authorization_id} has more than {size} leaves by now")

    def find(self, use_id_hash: Hash32) -> Entry | None:
        """The entry with this use id, if there is one."""
        table = schema.leaves
        query = select(table).where(table.c.authorization == self.authorization_id, table.c.use_id_hash == use_id_hash)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return _entry(row) if row else None

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

    def size_at(self, seconds: int) -> int:
        """How many leaves were served up to this time, inclusive."""
        with self._engine.connect() as connection:
            return served_before(connection, self.authorization_id, seconds + 1)


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
    return CompactRange(row.size, [row.nodes[at : at + HASH] for at in range(0, len(row.nodes), HASH)])


def _log_row(authorization_id: Hash32) -> Select[Any]:
    return select(schema.logs).where(schema.logs.c.authorization == authorization_id)


def _leaf(connection: Connection, authorization_id: Hash32, index: int) -> UsageLeaf:
    table = schema.leaves
    query = select(table.c.leaf).where(table.c.authorization == authorization_id, table.c.index == index)
    return UsageLeaf.decode(connection.execute(query).scalar_one())


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
    connection.execute(insert(schema.leaves).values(**_row(entry)))


def _row(entry: Entry) -> dict[str, Any]:
    leaf = entry.leaf
    return {
        "authorization": leaf.authorization_id,
        "index": leaf.index,
        "use_id_hash": leaf.use_id_hash,
        "leaf": leaf.encode(),
        "kind": leaf.kind,
        "purpose": leaf.purpose,
        "modality": leaf.modality,
        "request_hash": entry.request_hash,
        "salt": entry.salt,
        "payload": entry.payload,
        "signature": entry.signature,
    }


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
    return Entry(UsageLeaf.decode(row["leaf"]), row["request_hash"], row["salt"], row["payload"], row["signature"])


def first_gap(connection: Connection, authorization_id: Hash32, size: int) -> int:
    """The first index below `size` that is not there; `size` if none is missing."""
    table = schema.leaves
    query = select(table.c.index).where(table.c.authorization == authorization_id, table.c.index < size)
    have = connection.execute(query.order_by(table.c.index)).scalars()
    expected = 0
    for index in have:
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
