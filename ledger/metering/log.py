"""A usage log: append-only, one leaf per use id, tree and totals kept beside the rows.

The log of one authorization has one writer at a time (the gateway holds it behind a lock). A leaf is in the database
before anybody hears of it; nothing is ever rewritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select

from ledger.core.database import open_database, writing
from ledger.core.errors import Conflict, NotFound, VerificationFailed
from ledger.core.ids import Hash32, hash_of
from ledger.core.merkle import Tree
from ledger.core.terms import Quad, UsageHead, UseReceipt
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


def open_usage(path: Path) -> Engine:
    """Opens or creates the file of usage logs and heads: a gateway's, or a consumer's own copy."""
    return open_database(path, schema.metadata, schema.SCHEMA_VERSION)


def receipt_of(leaf: UsageLeaf) -> UseReceipt:
    """What the provider signs with every use."""
    return UseReceipt(
        authorization_id=leaf.authorization_id,
        index=leaf.index,
        leaf_hash=hash_of(leaf.hash()),
        cum_units=leaf.cum_units,
        served_at=leaf.served_at,
    )


def head_of(leaves: Sequence[UsageLeaf], tree: Tree, size: int) -> UsageHead:
    """The head over the first `size` leaves; its totals are the last leaf's."""
    last = leaves[size - 1]
    return UsageHead(
        authorization_id=last.authorization_id,
        size=size,
        units=last.cum_units,
        credits=last.cum_credits,
        as_of=last.served_at,
        root=hash_of(tree.root(size)),
    )


class UsageLog:
    """The writer's view of one authorization's log."""

    def __init__(self, engine: Engine, authorization_id: Hash32) -> None:
        """Loads the log and checks that its indices have no gap."""
        self._engine = engine
        self.authorization_id = authorization_id
        with engine.connect() as connection:
            self._leaves = [entry.leaf for entry in read_entries(connection, authorization_id)]
        if [leaf.index for leaf in self._leaves] != list(range(len(self._leaves))):
            raise VerificationFailed(f"the usage log of {authorization_id} has a gap", authorization=authorization_id)
        self.tree = Tree(leaf.hash() for leaf in self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def last(self) -> UsageLeaf | None:
        return self._leaves[-1] if self._leaves else None

    @property
    def units(self) -> Quad:
        return self._leaves[-1].cum_units if self._leaves else NO_UNITS

    @property
    def credits(self) -> int:
        return self._leaves[-1].cum_credits if self._leaves else 0

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
    ) -> UsageLeaf:
        """The leaf that would come next; `served_at` never runs backwards."""
        before = self.last
        a, b, c, d = (total + one for total, one in zip(self.units, units, strict=True))
        return UsageLeaf(
            authorization_id=self.authorization_id,
            index=len(self),
            use_id_hash=use_id_hash,
            units=units,
            cum_units=(a, b, c, d),
            cum_credits=self.credits + credit,
            event_time=event_time,
            served_at=max(now, before.served_at if before else 0),
            kind=kind,
            purpose=purpose,
            modality=modality,
            version=version,
            payload_hash=payload_hash,
        )

    def append(self, entry: Entry) -> None:
        """Commits the leaf, then adds it to tree and totals. Raises Conflict if it is not the next one."""
        if entry.leaf.index != len(self):
            raise Conflict(f"leaf {entry.leaf.index} is not the next of {len(self)}")
        with writing(self._engine) as connection:
            insert_entry(connection, entry)
        self._leaves.append(entry.leaf)
        self.tree.append(entry.leaf.hash())

    def find(self, use_id_hash: Hash32) -> Entry | None:
        """The entry with this use id, if there is one."""
        table = schema.leaves
        query = select(table).where(table.c.authorization == self.authorization_id, table.c.use_id_hash == use_id_hash)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return _entry(row) if row else None

    def head(self, size: int | None = None) -> UsageHead:
        """Raises NotFound if the log is empty or shorter."""
        if not self._leaves:
            raise NotFound(f"nothing is recorded on authorization {self.authorization_id} yet")
        size = len(self) if size is None else size
        if not 0 < size <= len(self):
            raise NotFound(f"the usage log of {self.authorization_id} has {len(self)} leaves, not {size}")
        return head_of(self._leaves, self.tree, size)

    def size_at(self, seconds: int) -> int:
        """How many leaves were served up to this time, inclusive."""
        return sum(leaf.served_at <= seconds for leaf in self._leaves)


def insert_entry(connection: Connection, entry: Entry) -> None:
    """Raises IntegrityError if index or use id are taken."""
    leaf = entry.leaf
    connection.execute(
        insert(schema.leaves).values(
            authorization=leaf.authorization_id,
            index=leaf.index,
            use_id_hash=leaf.use_id_hash,
            leaf=leaf.as_json(),
            leaf_hash=leaf.hash(),
            kind=leaf.kind,
            purpose=leaf.purpose,
            modality=leaf.modality,
            version=leaf.version,
            served_at=leaf.served_at,
            request_hash=entry.request_hash,
            salt=entry.salt,
            payload=entry.payload,
            signature=entry.signature,
        )
    )


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
    for name in ("purpose", "modality", "version"):
        if getattr(wanted, name) is not None:
            query = query.where(table.c[name] == getattr(wanted, name))
    if wanted.kind is not None:
        query = query.where(table.c.kind == Kind[wanted.kind].value)
    # Times never fall from one index to the next: a time is an index, and the index is the order.
    for time, low in ((wanted.served_after, True), (wanted.served_before, False)):
        if time is not None:
            at = _first_served(authorization_id, time)
            query = query.where(table.c.index >= at if low else table.c.index < at)
    query = query.order_by(table.c.index)
    if limit >= 0:
        query = query.limit(limit)
    return [_entry(row) for row in connection.execute(query).mappings()]


def _first_served(authorization_id: Hash32, seconds: int) -> ColumnElement[int]:
    """The index of the first leaf served at a time or later; beyond all if there is none."""
    table = schema.leaves
    query = select(table.c.index).where(table.c.authorization == authorization_id, table.c.served_at >= seconds)
    return func.coalesce(query.order_by(table.c.served_at, table.c.index).limit(1).scalar_subquery(), 1 << 62)


def _entry(row: Any) -> Entry:
    return Entry(UsageLeaf.from_json(row["leaf"]), row["request_hash"], row["salt"], row["payload"], row["signature"])


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
        for purpose, modality, kind, leaf in connection.execute(query.execution_options(yield_per=5_000)):
            empty = {"purpose": purpose, "modality": modality, "uses": 0, "refusals": 0, "units": [0] * 4}
            total = found.setdefault((purpose, modality), empty)
            total["uses" if kind == Kind.USE else "refusals"] += 1
            total["units"] = [have + int(more) for have, more in zip(total["units"], leaf["units"], strict=True)]
    return [found[key] for key in sorted(found)]
