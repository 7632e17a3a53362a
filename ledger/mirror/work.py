"""What a run of blocks changes: read once, folded in memory, written in bulk. The only writer of the mirror's rows.

Nothing is written before `flush`, and everything in the caller's transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update

from ledger.core.database import plain_amount
from ledger.core.errors import MirrorError
from ledger.core.events import Block, Log
from ledger.mirror import digest, packing, schema

Row = dict[str, Any]
Key = tuple[Any, ...]

ASK = 500  # keys a query


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items, so many at a time."""
    return (items[at : at + size] for at in range(0, len(items), size))


class EventOutOfPlace(MirrorError):
    """An event speaks of something the mirror has never seen: blocks are missing, or the deployment is another."""

    code = "event_out_of_place"


@dataclass(slots=True)
class _Held:
    """The row that holds: as it is stored, or as it will be."""

    row: Row
    since: int
    stored: bool


@dataclass(slots=True)
class Standing:
    """What a settlement needs to know of its authorization."""

    number: int
    split: str
    token: str
    escrowed: bool
    paid: int


@dataclass(slots=True)
class _Pending:
    """What becomes of one state table."""

    held: dict[Key, _Held | None] = field(default_factory=dict)
    over: list[Row] = field(default_factory=list)  # rows that no longer hold, with since and until, never stored
    ended: list[Row] = field(default_factory=list)  # keys and until, of stored rows that no longer hold


class Work:
    """The changes of one transaction."""

    def __init__(self, connection: Connection, before: bytes) -> None:
        """`before` is the digest so far."""
        self.connection = connection
        self.digest = before
        self._states: dict[Table, _Pending] = {table: _Pending() for table in schema.STATE}
        self._touched: dict[tuple[Table, Key], Row] = {}
        self._facts: dict[Table, list[Row]] = {table: [] for table in schema.FACTS}
        self.settlements: list[tuple[Any, ...]] = []  # rows, ids as bytes, in the order of the columns
        self._events: list[Row] = []
        self._blocks: list[Row] = []
        self._journal: list[Row] = []
        self.standings: dict[bytes, Standing] = {}
        self._accrued: dict[tuple[str, str], int] = {}  # in this block, by split and token
        self.transactions: dict[bytes, int] = {}  # of this block: hash → place
        self._opened: int | None = None  # how many authorizations there are

    # ------------------------------------------------------------------------------------------- states

    def get(self, table: Table, *key: Any) -> Row | None:
        """The row that holds, without its bookkeeping columns."""
        held = self._held(table, key)
        return held.row if held else None

    def existing(self, table: Table, *key: Any) -> Row:
        """Raises EventOutOfPlace if no row holds."""
        row = self.get(table, *key)
        if row is None:
            raise EventOutOfPlace(f"an event changes {table.name} {key}, which the mirror does not have")
        return row

    def put(self, table: Table, block: int, row: Row) -> None:
        """Makes `row` hold from `block` on; replaces what held until now."""
        key = tuple(row[name] for name in table.info["keys"])
        pending, before = self._states[table], self._held(table, key)
        # Twice in one block: the first of the two never held at a block's end.
        if before is not None and before.since != block:
            if before.stored:
                pending.ended.append(dict(zip(table.info["keys"], key, strict=True)) | {"until": block})
            else:
                pending.over.append(before.row | {"since": before.since, "until": block})
        pending.held[key] = _Held(row, block, stored=False)
        self._touched[table, key] = row

    def change(self, table: Table, block: int, key: Key, **changes: Any) -> None:
        self.put(table, block, self.existing(table, *key) | changes)

    def _held(self, table: Table, key: Key) -> _Held | None:
        held = self._states[table].held
        if key not in held:
            where = [table.c[name] == value for name, value in zip(table.info["keys"], key, strict=True)]
            found = self.connection.execute(select(table).where(*where, schema.holds(table))).mappings().first()
            held[key] = _stored(found) if found else None
        return held[key]

    # -------------------------------------------------------------------------------------------- facts

    def fact(self, table: Table, block: Block, log: Log, **values: Any) -> None:
        """Something that happened once."""
        self._facts[table].append(_place(block, log) | values)

    def event(self, block: Block, log: Log, contract: str, name: str, authorization: str | None) -> None:
        """A place in the index of logs."""
        self.place(log.transaction)
        row = _place(block, log) | {"contract": contract, "event": name, "authorization": authorization}
        self._events.append(row)

    def accrue(self, split: str, token: str, amount: int) -> None:
        """Adds to what a split's payees share."""
        self._accrued[split, token] = self._accrued.get((split, token), 0) + amount

    def standing(self, authorization: bytes) -> Standing:
        """Raises EventOutOfPlace if the authorization was never opened."""
        found = self.standings.get(authorization)
        if found is None:
            self.expect([authorization])
            found = self.standings.get(authorization)
        if found is None:
            raise EventOutOfPlace(f"a settlement on 0x{authorization.hex()}, which the mirror does not have")
        return found

    def next_number(self) -> int:
        """Of the authorization that is opened now."""
        if self._opened is None:
            table = schema.authorizations
            highest = select(func.max(table.c.number)).where(schema.holds(table))
            self._opened = self.connection.execute(highest).scalar() or 0
        self._opened += 1
        return self._opened

    def opened(self, authorization: bytes, row: Row) -> None:
        escrowed = row["ledger"] == "UsageLedger"
        self.standings[authorization] = Standing(row["number"], row["split"], row["token"], escrowed, 0)

    def place(self, transaction: bytes) -> int:
        """Of a transaction among this block's."""
        return self.transactions.setdefault(transaction, len(self.transactions))

    def last_settlement(self, authorization: bytes) -> tuple[Any, ...]:
        """The latest row of settlements, ids as bytes. Raises EventOutOfPlace if there is none."""
        row: tuple[Any, ...]
        number = self.standing(authorization).number
        for row in reversed(self.settlements):
            if row[3] == number:
                return row
        table = schema.settlements
        query = select(table).where(table.c.authorization == number)
        found = self.connection.execute(
            query.order_by(table.c.block_number.desc(), table.c.log_index.desc()).limit(1)
        ).first()
        if found is None:
            raise EventOutOfPlace(f"arrears on 0x{authorization.hex()}, of which nothing is settled")
        return tuple(bytes.fromhex(v[2:]) if isinstance(v, str) else v for v in found)

    def expect(self, authorizations: Iterable[bytes]) -> None:
        """Reads the standings of many authorizations at once."""
        wanted = [a for a in dict.fromkeys(authorizations) if a not in self.standings]
        table, heads = schema.authorizations, schema.settlements
        paid = (
            select(heads.c.paid)
            .where(heads.c.authorization == table.c.number)
            .order_by(heads.c.block_number.desc(), heads.c.log_index.desc())
            .limit(1)
            .scalar_subquery()
        )
        columns = (table.c.authorization, table.c.number, table.c.split, table.c.token, table.c.ledger)
        for some in batches(wanted, ASK):
            ids = ["0x" + a.hex() for a in some]
            query = select(*columns, paid.label("paid")).where(table.c.authorization.in_(ids), schema.holds(table))
            for row in self.connection.execute(query):
                escrowed = row.ledger == "UsageLedger"
                key = bytes.fromhex(row.authorization[2:])
                self.standings[key] = Standing(row.number, row.split, row.token, escrowed, row.paid or 0)

    # ------------------------------------------------------------------------------------------- blocks

    def block(self, block: Block, logs: Sequence[Log]) -> None:
        """Ends a block: what was put since the last one is its."""
        for (split, token), amount in self._accrued.items():
            before = self.get(schema.accruals, split, token) or {"accrued": 0}
            if amount:
                row = {"split": split, "token": token, "accrued": before["accrued"] + amount}
                self.put(schema.accruals, block.number, row)
        self._accrued.clear()
        packed = packing.pack(logs)
        if logs:
            row = {"kind": schema.APPLIED, "number": block.number, "hash": block.hash, "timestamp": block.timestamp}
            self._journal.append(row)
            lines = [digest.line(table, row | {"since": block.number}) for (table, _), row in self._touched.items()]
            self.digest = digest.extend(self.digest, block.hash, packed, lines)
            self._touched.clear()
        self._blocks.append(
            {
                "number": block.number,
                "hash": block.hash,
                "timestamp": block.timestamp,
                "log_count": len(logs),
                "logs": packing.compress(packed),
                "transactions": b"".join(self.transactions),
                "digest": self.digest,
            }
        )
        self.transactions = {}

    # -------------------------------------------------------------------------------------------- flush

    def flush(self) -> None:
        """Writes everything, rows that end before rows that begin."""
        for table in (schema.blocks, schema.events):
            self._insert(table, self._blocks if table is schema.blocks else self._events)
        for table, pending in self._states.items():
            if pending.ended:
                keys = table.info["keys"]
                where = [table.c[name] == bindparam(f"key_{name}") for name in keys]
                rows = [{f"key_{n}": row[n] for n in keys} | {"_until": row["until"]} for row in pending.ended]
                ended = update(table).where(*where, schema.holds(table)).values(until=bindparam("_until"))
                self.connection.execute(ended, rows)
            begun = [h.row | {"since": h.since, "until": None} for h in pending.held.values() if h and not h.stored]
            self._insert(table, pending.over + begun)
        for table, facts in self._facts.items():
            self._insert(table, facts)
        write_settlements(self.connection, self.settlements)
        write_journal(self.connection, self._journal)

    def _insert(self, table: Table, rows: list[Row]) -> None:
        if rows:
            self.connection.execute(insert(table), rows)


def _stored(found: Any) -> _Held:
    row = dict(found)
    since = row.pop("since")
    del row["until"]
    return _Held(row, since, stored=True)


def _place(block: Block, log: Log) -> Row:
    return {
        "block_number": block.number,
        "log_index": log.log_index,
        "transaction_hash": "0x" + log.transaction.hex(),
    }


_COLUMNS = [column.name for column in schema.settlements.c]
_INSERT = f"INSERT INTO settlements VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - no value in it
_COPY = "COPY settlements ({}) FROM STDIN".format(", ".join(f'"{name}"' for name in _COLUMNS))


def write_settlements(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """The one table that is written often: past SQLAlchemy, by the fastest way each database has."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(_INSERT, rows)
        except OverflowError:  # a number beyond SQLite's 64 bits: kept as text
            fitting = [tuple(plain_amount(v) if isinstance(v, int) else v for v in row) for row in rows]
            connection.exec_driver_sql(_INSERT, fitting)
        return
    raw: Any = connection.connection.driver_connection
    with raw.cursor() as cursor, cursor.copy(_COPY) as copy:
        for some in batches(rows, 2000):
            copy.write("".join(map(_copied, some)))


def _copied(r: tuple[Any, ...]) -> str:
    """A row in PostgreSQL's COPY text format."""
    return (
        f"{r[0]}\t{r[1]}\t{r[2]}\t{r[3]}\t{r[4]}\t{r[5]}\t{r[6]}\t{r[7]}\t{r[8]}\t{r[9]}\t{r[10]}"
        f"\t{r[11]}\t\\\\x{r[12].hex()}\t{r[13]}\t{r[14]}\t\\\\x{r[15].hex()}\t\\\\x{r[16].hex()}\t{r[17]}\n"
    )


def write_journal(connection: Connection, rows: Sequence[Row]) -> None:
    """Adds entries after the last one."""
    if not rows:
        return
    last = connection.execute(select(func.max(schema.journal.c.entry))).scalar() or 0
    connection.execute(insert(schema.journal), [{"logs": None, "entry": last + n, **r} for n, r in enumerate(rows, 1)])


def rewind(connection: Connection, to_block: int, final: int) -> None:
    """Undoes every block after `to_block`; up to `final` they had been called final. The journal keeps their logs."""
    blocks = schema.blocks
    columns = (blocks.c.number, blocks.c.hash, blocks.c.timestamp, blocks.c.logs)
    gone = select(*columns).where(blocks.c.number > to_block, blocks.c.log_count > 0)
    entries = [
        {**row, "kind": schema.REVOKED if row["number"] <= final else schema.RETRACTED}
        for row in connection.execute(gone.order_by(blocks.c.number.desc())).mappings()
    ]
    write_journal(connection, entries)
    for table in schema.STATE:
        keys = [table.c[name] for name in table.info["keys"]]
        again = select(*keys).where(table.c.since > to_block)
        found = list(connection.execute(again))
        connection.execute(delete(table).where(table.c.since > to_block))
        if found:
            where = [column == bindparam(f"key_{column.name}") for column in keys]
            rows = [{f"key_{c.name}": value for c, value in zip(keys, row, strict=True)} for row in set(found)]
            connection.execute(update(table).where(*where, table.c.until > to_block).values(until=None), rows)
    for table in schema.FACTS:
        connection.execute(delete(table).where(table.c.block_number > to_block))
    connection.execute(delete(schema.blocks).where(schema.blocks.c.number > to_block))
