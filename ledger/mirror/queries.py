"""Reading the mirror: every answer is as of one block."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    bindparam,
    func,
    literal,
    select,
    tuple_,
)

from ledger.chain.decode import decode_log, event_name
from ledger.chain.deploy import Deployment
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.events import Block, Log
from ledger.core.ids import ZERO_HASH, Address, Hash32, raw
from ledger.core.parse import parse_uint
from ledger.core.ratecard import RateCard, Split
from ledger.core.terms import AuthorizationTerms
from ledger.mirror import digest, packing, schema
from ledger.mirror.schema import BASIS, SETTLEMENT_EVENTS, holds
from ledger.mirror.work import ASK, batches

Row = dict[str, Any]

NEAR = 4_000  # settlements looked through for those of a party


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the mirror stands. Heights are block numbers, -1 for none; times are seconds."""

    nonce: int
    number: int
    hash: Hash32
    parent_hash: Hash32
    timestamp: int
    digest: bytes
    safe: int
    final: int
    final_hash: Hash32 | None
    checked: int
    differences: int
    violated: dict[str, Any] | None
    writer: str
    seen_at: int
    checked_at: int

    @property
    def empty(self) -> bool:
        """Nothing has been applied yet."""
        return self.hash == ZERO_HASH

    def block(self) -> Block:
        return Block(self.number, self.hash, self.parent_hash, self.timestamp)

    def finality(self, number: int) -> str:
        """`seen`, `safe` or `final`, as far as the node says."""
        return "final" if number <= self.final else "safe" if number <= self.safe else "seen"


_CURSOR = select(*(schema.cursor.c[name] for name in Cursor.__dataclass_fields__))


def cursor(connection: Connection) -> Cursor:
    return Cursor(*connection.execute(_CURSOR).one())


def position(connection: Connection) -> Block | None:
    """The last applied block."""
    found = cursor(connection)
    return None if found.empty else found.block()


def has_block(connection: Connection, number: int, block_hash: Hash32) -> bool:
    """True if the mirror has applied this very block. Final ones are not forgotten, though not all are kept."""
    found = cursor(connection)
    if number <= found.final:
        return True
    table = schema.blocks
    return connection.execute(select(table.c.number).where(table.c.hash == block_hash)).first() is not None


def checked_at(connection: Connection) -> int:
    """When the mirror last stood at the chain's head, seconds; 0 if never."""
    return connection.execute(select(schema.cursor.c.checked_at)).scalar() or 0


def digest_at(connection: Connection, deployment: Deployment, number: int) -> bytes:
    """The digest of all that was applied up to a block."""
    table = schema.blocks
    query = select(table.c.digest).where(table.c.number <= number).order_by(table.c.number.desc()).limit(1)
    return connection.execute(query).scalar() or digest.start(deployment)


def rows(
    connection: Connection,
    table: Table,
    *,
    after: str = "",
    limit: int = 100,
    at_block: int | None = None,
    where: Sequence[ColumnElement[bool]] = (),
    **equal: Any,
) -> list[Row]:
    """Rows that hold, by key, after the key `after` (see `key_of`); `equal` filters by column, None meaning any.

    Raises:
        InputInvalid: `after` is not a key of this table.
    """
    keys = [table.c[name] for name in table.info["keys"]]
    query = select(table).where(holds(table, at_block), *where).order_by(*keys).limit(limit)
    for name, value in equal.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    if after:
        query = query.where(tuple_(*keys) > key(keys, after))
    return [plain(row) for row in connection.execute(query).mappings()]


def key_of(table: Table, row: Row) -> str:
    """A row's key as a cursor for turning pages."""
    return ":".join(str(row[name]) for name in table.info["keys"])


def key(keys: Sequence[ColumnElement[Any]], after: str) -> ColumnElement[Any]:
    """A cursor as values to compare with its columns. Raises InputInvalid."""
    parts = after.split(":")
    try:
        if len(parts) != len(keys):
            raise ValueError
        read = [
            int(p) if isinstance(k.type, Integer) else "0x" + bytes.fromhex(p.removeprefix("0x")).hex()
            for k, p in zip(keys, parts, strict=True)
        ]
        if any(isinstance(value, int) and value >= 1 << 62 for value in read):
            raise ValueError
    except ValueError:
        raise InputInvalid(f"after is what the page before gave as `next`, got {after[:80]!r}", field="after") from None
    return tuple_(*(literal(value, key.type) for key, value in zip(keys, read, strict=True)))


def number_after(after: str) -> int:
    """The first number after a cursor that is a number; 0 without one. Raises InputInvalid."""
    return parse_uint(after, "after", 62) + 1 if after else 0


def one(connection: Connection, table: Table, what: str, at_block: int | None = None, **keys: Any) -> Row:
    """The row that holds. Raises NotFound, naming `what`."""
    asked = {"at_block": at_block} | keys if at_block is not None else keys
    row = connection.execute(_one(table, at_block is not None, tuple(keys)), asked).mappings().first()
    if row is None:
        then = "" if at_block is None else f" at block {at_block}"
        raise NotFound(f"there is no {what} {', '.join(str(k) for k in keys.values())}{then}")
    return plain(row)


@cache
def _one(table: Table, earlier: bool, names: tuple[str, ...]) -> Select[Any]:
    holding = holds(table, bindparam("at_block") if earlier else None)
    return select(table).where(*(table.c[name] == bindparam(name) for name in names), holding)


def terms_of(row: Row) -> AuthorizationTerms:
    return AuthorizationTerms.from_json(row["terms"])


def status_of(row: Row, now: int) -> str:
    """OPEN, ENDED or CLOSED at a time in seconds."""
    return "ENDED" if row["status"] == "OPEN" and now >= row["ended_at"] else str(row["status"])


def authorization(connection: Connection, authorization_id: Hash32, at_block: int | None = None) -> Row:
    """An authorization with the head that is settled."""
    row = one(connection, schema.authorizations, "authorization", at_block, authorization=authorization_id)
    return with_heads(connection, [row], at_block)[0]


def authorizations(connection: Connection, **filters: Any) -> list[Row]:
    """As `rows`, each with its settled head."""
    found = rows(connection, schema.authorizations, **filters)
    return with_heads(connection, found, filters.get("at_block"))


def allows(purpose: int | None = None, modality: int | None = None) -> list[ColumnElement[bool]]:
    """Conditions for authorizations whose terms have these bits."""
    table = schema.authorizations
    asked = ((table.c.purposes, purpose), (table.c.modalities, modality))
    return [column.bitwise_and(bits) != 0 for column, bits in asked if bits is not None]


def with_status(status: str, now: int) -> list[ColumnElement[bool]]:
    """Conditions for authorizations that are OPEN, ENDED or CLOSED at a time in seconds."""
    table = schema.authorizations
    if status == "CLOSED":
        return [table.c.status == "CLOSED"]
    return [table.c.status == "OPEN", table.c.ended_at > now if status == "OPEN" else table.c.ended_at <= now]


def ending(after: int | None = None, before: int | None = None) -> list[ColumnElement[bool]]:
    """Conditions for authorizations that end, or ended, from `after` on and before `before`; seconds."""
    column = schema.authorizations.c.ended_at
    bounds = ((column >= after) if after is not None else None, (column < before) if before is not None else None)
    return [bound for bound in bounds if bound is not None]


def next_ending(connection: Connection, now: int) -> float:
    """When the next authorization ends by time, seconds; infinity if none does."""
    found = connection.execute(_NEXT_ENDING, {"now": now}).scalar()
    return math.inf if found is None else found


_NEXT_ENDING = select(func.min(schema.authorizations.c.ended_at)).where(
    holds(schema.authorizations), schema.authorizations.c.ended_at > bindparam("now")
)


def last_ending(connection: Connection, now: int) -> int:
    """When the last authorization ended by time, seconds; 0 if none did."""
    table = schema.authorizations
    query = select(func.max(table.c.ended_at)).where(holds(table), table.c.ended_at <= now)
    return connection.execute(query).scalar() or 0


def block_at(connection: Connection, number: int) -> Block | None:
    """A stored block; None where it was not kept: it is final and has no event of ours."""
    table = schema.blocks
    row = connection.execute(select(table.c.hash, table.c.timestamp).where(table.c.number == number)).first()
    return None if row is None else Block(number, row.hash, ZERO_HASH, row.timestamp)


def time_before(connection: Connection, number: int) -> int:
    """The time of the last stored block up to this one, in seconds; 0 if there is none."""
    table = schema.blocks
    query = select(table.c.timestamp).where(table.c.number <= number).order_by(table.c.number.desc()).limit(1)
    return connection.execute(query).scalar() or 0


def with_heads(connection: Connection, found: list[Row], at_block: int | None = None) -> list[Row]:
    """The rows of authorizations with what their last settlement says: head, due and paid."""
    before = 1 << 62 if at_block is None else at_block + 1
    heads = last_settlements(connection, [row["number"] for row in found], before)
    return [_with_head(row, heads.get(row["number"])) for row in found]


def last_settlements(connection: Connection, numbers: Sequence[int], before: int = 1 << 62) -> dict[int, Any]:
    """The last settlement below a block of each authorization, by its number: one look into the index each."""
    found: dict[int, Any] = {}
    for some in batches(numbers, ASK):
        for row in connection.execute(_LAST_SETTLEMENTS, {"numbers": some, "before": before}).mappings():
            known = found.get(row["authorization"])
            if known is None or known["log_index"] < row["log_index"]:
                found[row["authorization"]] = row
    return found


def _last_settlements() -> Select[Any]:
    # Built once: building it takes longer than asking. It goes out from authorizations and finds each settlement by
    # its key: adding nothing to a number keeps SQLite from going through all settlements of these authorizations.
    opened, table, inner = schema.authorizations, schema.settlements, schema.settlements.alias()
    last = (
        select(func.max(inner.c.block_number))
        .where(inner.c.authorization == opened.c.number, inner.c.block_number < bindparam("before"))
        .correlate(opened)
        .scalar_subquery()
    )
    return (
        select(table)
        .select_from(opened)
        .join(table, (table.c.authorization == opened.c.number + 0) & (table.c.block_number == last))
        .where(opened.c.number.in_(bindparam("numbers", expanding=True)), holds(opened))
    )


_LAST_SETTLEMENTS = _last_settlements()


def _with_head(row: Row, head: Any) -> Row:
    escrowed = row["ledger"] == "UsageLedger"
    paid = (head["paid"] if head else 0) if escrowed else row["recorded"]
    return row | {
        "size": str(head["size"]) if head else "0",
        "units": [str(head[f"units{n}"]) for n in range(4)] if head else ["0"] * 4,
        "credits": head["credits"] if head else 0,
        "as_of": head["as_of"] if head else 0,
        "root": head["root"] if head else ZERO_HASH,
        "basis": BASIS[head["basis"]] if head else BASIS[0],
        "due": head["due"] if head else 0,
        "paid": paid,
        # What a thaw would release shrinks as the reservation is used.
        "thawing": min(row["thaw"], row["reserved"] - paid) if escrowed else 0,
    }


def approved_until(connection: Connection, authorization_id: Hash32) -> int | None:
    """When the first of an authorization's approvals runs out, in seconds, inclusive; None if it needed none."""
    table = schema.approvals
    query = select(func.min(table.c.valid_until)).where(table.c.authorization == authorization_id)
    found: int | None = connection.execute(query).scalar()
    return found


def parents_end(connection: Connection, terms: AuthorizationTerms) -> int | None:
    """When the first of those an authorization derives from ends, in seconds; None if it derives from none."""
    first: int | None = None
    while terms.scope.parent != ZERO_HASH:
        row = authorization(connection, terms.scope.parent)
        first = row["ended_at"] if first is None else min(first, row["ended_at"])
        terms = terms_of(row)
    return first


def rate_card(connection: Connection, card: Hash32, at_block: int | None = None) -> RateCard:
    return RateCard.decode(raw(one(connection, schema.rate_cards, "rate card", at_block, rate_card=card)["encoded"]))


def split(connection: Connection, split_id: Hash32, at_block: int | None = None) -> Split:
    return Split.decode(raw(one(connection, schema.splits, "split", at_block, split=split_id)["encoded"]))


def settlements(connection: Connection, authorization_id: Hash32, at_block: int | None = None) -> list[Row]:
    """Settled heads, oldest first; a head that is only paid later is no new one."""
    found, size = [], 0
    for row in settlement_rows(connection, authorization_id, at_block):
        if row["kind"] == schema.ARREARS or row["size"] == size:
            continue
        size = row["size"]
        found.append(_settlement(row, authorization_id))
    return found


def _settlement(row: Row, authorization_id: Hash32) -> Row:
    head = {
        "authorizationId": authorization_id,
        "size": str(row["size"]),
        "units": [str(row[f"units{n}"]) for n in range(4)],
        "credits": str(row["credits"]),
        "asOf": row["as_of"],
        "root": row["root"],
    }
    names = (
        *("due", "paid", "provider_signer", "consumer_signer"),
        *("block_number", "log_index", "transaction_hash", "timestamp"),
    )
    more = {
        "event": SETTLEMENT_EVENTS[row["kind"]],
        "head": head,
        "basis": BASIS[row["basis"]],
        "arrears": max(0, row["due"] - row["paid"]),
    }
    return {"authorization": authorization_id} | {n: row[n] for n in names} | more


def settlement_rows(connection: Connection, authorization_id: Hash32, at_block: int | None = None) -> list[Row]:
    """Every row of an authorization's settlements, oldest first, with its transaction's hash and its block's time."""
    table, opened = schema.settlements, schema.authorizations
    number = select(opened.c.number).where(opened.c.authorization == authorization_id, holds(opened)).scalar_subquery()
    query = select(table).where(table.c.authorization == number).order_by(table.c.block_number, table.c.log_index)
    if at_block is not None:
        query = query.where(table.c.block_number <= at_block)
    return _placed(connection, connection.execute(query).mappings().all())


def _placed(connection: Connection, found: Sequence[Any]) -> list[Row]:
    """Settlements with their transactions' hashes and their blocks' times."""
    blocks = schema.blocks
    there: dict[int, Any] = {}
    for some in batches(sorted({row["block_number"] for row in found}), ASK):
        query = select(blocks.c.number, blocks.c.transactions, blocks.c.timestamp).where(blocks.c.number.in_(some))
        there |= {row.number: row for row in connection.execute(query)}
    placed = []
    for row in found:
        block, at = there[row["block_number"]], 32 * row["transaction"]
        hash_ = "0x" + block.transactions[at : at + 32].hex()
        placed.append({**row, "transaction_hash": hash_, "timestamp": block.timestamp})
    return placed


def settled(
    connection: Connection,
    *,
    after: str = "",
    limit: int = 100,
    at_block: int | None = None,
    first: int | None = None,
    before: int | None = None,
    **of: Any,
) -> list[Row]:
    """Settlements of many authorizations in the order of the chain, after the place `after` ("block:log index").

    Args:
        first, before: only those settled from this second on, and before that one.
        of: columns of the authorization (provider, consumer, product, space, token), None meaning any.
    """
    table, opened, blocks = schema.settlements, schema.authorizations, schema.blocks
    query = select(table).order_by(table.c.block_number, table.c.log_index)
    if at_block is not None:
        query = query.where(table.c.block_number <= at_block)
    # A block's number rises with its time: times become numbers, and numbers are the key.
    for bound, low in ((first, True), (before, False)):
        if bound is not None:
            number = select(func.min(blocks.c.number)).where(blocks.c.timestamp >= bound).scalar_subquery()
            end = func.coalesce(number, 1 << 62)
            query = query.where(table.c.block_number >= end if low else table.c.block_number < end)
    if after:
        keys = [table.c.block_number, table.c.log_index]
        query = query.where(tuple_(*keys) > key(keys, after))
    wanted = [opened.c[name] == value for name, value in of.items() if value is not None]
    if not wanted:
        found = connection.execute(query.limit(limit)).mappings().all()
    else:
        of_them = select(opened.c.number).where(holds(opened), *wanted)
        numbers = connection.execute(of_them.limit(ASK + 1)).scalars().all()
        if not numbers:
            return []
        among: Any = numbers if len(numbers) <= ASK else of_them
        # Whoever settles often is found among the next rows there are; only for others is its own index asked.
        near = query.limit(NEAR).subquery()
        nearest = select(near).where(near.c.authorization.in_(among)).order_by(near.c.block_number, near.c.log_index)
        found = connection.execute(nearest.limit(limit)).mappings().all()
        if len(found) < limit:
            own = query.where(table.c.authorization.in_(among))
            found = connection.execute(own.limit(limit)).mappings().all()
    ids: dict[int, Hash32] = {}
    for some in batches(sorted({row["authorization"] for row in found}), ASK):
        named = select(opened.c.number, opened.c.authorization).where(opened.c.number.in_(some), holds(opened))
        ids |= {row.number: row.authorization for row in connection.execute(named)}
    return [_settlement(row, ids[row["authorization"]]) for row in _placed(connection, found)]


def payments(
    connection: Connection, authorization_id: Hash32, at_block: int | None = None, after: str = "", limit: int = 1000
) -> list[Row]:
    """Bank payments recorded, reversed and claimed, oldest first, after the place `after` ("block:log index")."""
    table = schema.payments
    keys = [table.c.block_number, table.c.log_index]
    query = select(table).where(table.c.authorization == authorization_id).order_by(*keys).limit(limit)
    if at_block is not None:
        query = query.where(table.c.block_number <= at_block)
    if after:
        query = query.where(tuple_(*keys) > key(keys, after))
    return [dict(row) for row in connection.execute(query).mappings()]


def shares(
    connection: Connection, split_id: Hash32, token: Address, at_block: int | None = None
) -> dict[str, dict[str, int]]:
    """Payee → accrued (its part of all that was settled to the split), sent, and left to withdraw."""
    found = rows(connection, schema.accruals, split=split_id, token=token, at_block=at_block)
    accrued = found[0]["accrued"] if found else 0
    paid_out = rows(connection, schema.shares, split=split_id, token=token, at_block=at_block)
    sent = {row["payee"]: row["sent"] for row in paid_out}
    amounts = split(connection, split_id, at_block).amounts(accrued)
    return {
        payee: {"accrued": amount, "sent": sent.get(payee, 0), "left": amount - sent.get(payee, 0)}
        for payee, amount in amounts.items()
    }


def events(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Raw and decoded logs that name this authorization, oldest first."""
    table = schema.events
    named = select(table.c.block_number, table.c.log_index).where(table.c.authorization == authorization_id)
    places = {(number, index) for number, index in connection.execute(named)}
    places |= {(row["block_number"], row["log_index"]) for row in settlement_rows(connection, authorization_id)}
    return _decoded(connection, sorted({number for number, _ in places}), lambda n, log: (n, log.log_index) in places)


def transaction_events(connection: Connection, transaction: Hash32, block: int) -> list[Row]:
    """What a transaction in this block did, as decoded events."""
    return _decoded(connection, [block], lambda _, log: log.transaction == raw(transaction))


def _decoded(connection: Connection, numbers: list[int], wanted: Callable[[int, Log], bool]) -> list[Row]:
    """Those logs of these blocks that are wanted, in order."""
    names = contract_names(connection)
    return [
        decoded(log, names, block["number"], block["hash"], block["timestamp"])
        for block in _blocks(connection, numbers)
        for log in packing.unpack(block["logs"])
        if wanted(block["number"], log)
    ]


def decoded(log: Log, names: dict[Address, str], number: int, block_hash: Hash32, timestamp: int) -> Row:
    """A log as a row: where it stands, as it was, and what it says."""
    event = decode_log(log, names)
    return {
        "block_number": number,
        "block_hash": block_hash,
        "timestamp": timestamp,
        "log_index": log.log_index,
        "transaction_hash": event.transaction,
        "address": event.address,
        "topics": ["0x" + topic.hex() for topic in log.topics],
        "data": "0x" + log.data.hex(),
        "contract": event.contract,
        "event": event.name,
        "args": event.args,
    }


def contract_names(connection: Connection) -> dict[Address, str]:
    """Address → name of the contracts that are mirrored."""
    document = connection.execute(select(schema.deployment.c.document)).scalar_one()
    return {address: name for name, address in document["contracts"].items()}


def _blocks(connection: Connection, numbers: list[int]) -> Iterator[Any]:
    table = schema.blocks
    for some in batches(numbers, ASK):
        yield from connection.execute(select(table).where(table.c.number.in_(some)).order_by(table.c.number)).mappings()


def transactions(connection: Connection, before: int | None, limit: int) -> list[Row]:
    """Transactions that changed something here, newest block first, all of a block or none of it.

    Args:
        before: only blocks below this one; None for the newest.
        limit: blocks, not transactions.
    """
    table = schema.blocks
    query = select(table.c.number).where(table.c.log_count > 0).order_by(table.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.number < before)
    names = contract_names(connection)
    found: list[Row] = []
    for block in sorted(_blocks(connection, list(connection.execute(query).scalars())), key=lambda b: -b["number"]):
        done: dict[bytes, Row] = {}
        for log in packing.unpack(block["logs"]):
            one = {"transaction": "0x" + log.transaction.hex(), "block": block["number"], "events": []}
            done.setdefault(log.transaction, one)["events"].append(event_name(log, names))
        found += done.values()
    return found


def end_note(engine: Engine, authorization_id: str) -> str:
    """How an authorization ended, for error sentences: "was revoked at block 41". Empty if it did not."""
    with engine.connect() as connection:
        try:
            row = authorization(connection, Hash32(authorization_id))
        except NotFound:
            return ""
    return f"was {row['ended_how']} at block {row['ended_block']}" if row["ended_how"] else ""


def contents_digest(engine: Engine) -> tuple[str, int]:
    """(digest, height): of all that was applied, see `mirror.digest`; equal for equal contents."""
    with engine.connect() as connection:
        found = cursor(connection)
    return found.digest.hex(), -1 if found.empty else found.number


def plain(row: Any) -> Row:
    """A row of a state table without its bookkeeping."""
    return {k: v for k, v in row.items() if k not in ("row", "until")}
