"""Reading the mirror: every answer is as of one block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, func, select

from ledger.chain.decode import decode_log, event_name
from ledger.chain.deploy import Deployment
from ledger.core.errors import NotFound
from ledger.core.events import Block, Log
from ledger.core.ids import ZERO_HASH, Address, Hash32, raw
from ledger.core.ratecard import RateCard, Split
from ledger.core.terms import AuthorizationTerms
from ledger.mirror import digest, packing, schema
from ledger.mirror.schema import BASIS, holds
from ledger.mirror.work import ASK, batches

Row = dict[str, Any]


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


_CURSOR = [schema.cursor.c[name] for name in Cursor.__dataclass_fields__]


def cursor(connection: Connection) -> Cursor:
    return Cursor(*connection.execute(select(*_CURSOR)).one())


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
    """Rows that hold, by key, after the key `after`; `equal` filters by column, None meaning any."""
    keys = table.info["keys"]
    query = select(table).where(holds(table, at_block), *where).order_by(*(table.c[k] for k in keys)).limit(limit)
    for name, value in equal.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    if after:
        query = query.where(table.c[keys[-1]] > after)
    return [_plain(row) for row in connection.execute(query).mappings()]


def one(connection: Connection, table: Table, what: str, **keys: Any) -> Row:
    """The row that holds now. Raises NotFound, naming `what`."""
    where = [table.c[name] == value for name, value in keys.items()]
    row = connection.execute(select(table).where(*where, holds(table))).mappings().first()
    if row is None:
        raise NotFound(f"there is no {what} {', '.join(str(k) for k in keys.values())}")
    return _plain(row)


def terms_of(row: Row) -> AuthorizationTerms:
    return AuthorizationTerms.from_json(row["terms"])


def status_of(row: Row, now: int) -> str:
    """OPEN, ENDED or CLOSED at a time in seconds."""
    return "ENDED" if row["status"] == "OPEN" and now >= row["ended_at"] else str(row["status"])


def authorization(connection: Connection, authorization_id: Hash32) -> Row:
    """An authorization with the head that is settled."""
    row = one(connection, schema.authorizations, "authorization", authorization=authorization_id)
    return with_heads(connection, [row])[0]


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


def with_heads(connection: Connection, found: list[Row], at_block: int | None = None) -> list[Row]:
    """The rows of authorizations with what their last settlement says: head, due and paid."""
    table = schema.settlements
    heads: dict[int, Any] = {}
    for some in batches([row["number"] for row in found], ASK):
        last = func.row_number().over(
            partition_by=table.c.authorization, order_by=(table.c.block_number.desc(), table.c.log_index.desc())
        )
        query = select(table, last.label("last")).where(table.c.authorization.in_(some))
        if at_block is not None:
            query = query.where(table.c.block_number <= at_block)
        latest = query.subquery()
        for head in connection.execute(select(latest).where(latest.c.last == 1)).mappings():
            heads[head["authorization"]] = head
    return [_with_head(row, heads.get(row["number"])) for row in found]


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


def rate_card(connection: Connection, card: Hash32) -> RateCard:
    return RateCard.decode(raw(one(connection, schema.rate_cards, "rate card", rate_card=card)["encoded"]))


def split(connection: Connection, split_id: Hash32) -> Split:
    return Split.decode(raw(one(connection, schema.splits, "split", split=split_id)["encoded"]))


def settlements(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Settled heads, oldest first; a head that is only paid later is no new one."""
    found, size = [], 0
    for row in settlement_rows(connection, authorization_id):
        if row["kind"] == schema.ARREARS or row["size"] == size:
            continue
        size = row["size"]
        head = {
            "authorizationId": authorization_id,
            "size": str(row["size"]),
            "units": [str(row[f"units{n}"]) for n in range(4)],
            "credits": str(row["credits"]),
            "asOf": row["as_of"],
            "root": row["root"],
        }
        names = ("due", "paid", "provider_signer", "consumer_signer", "block_number", "log_index", "transaction_hash")
        more = {"head": head, "basis": BASIS[row["basis"]], "arrears": max(0, row["due"] - row["paid"])}
        found.append({"authorization": authorization_id} | {n: row[n] for n in names} | more)
    return found


def settlement_rows(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Every row of an authorization's settlements, oldest first, with its transaction's hash and its block's time."""
    table, blocks, opened = schema.settlements, schema.blocks, schema.authorizations
    number = select(opened.c.number).where(opened.c.authorization == authorization_id, holds(opened)).scalar_subquery()
    query = (
        select(table, blocks.c.transactions, blocks.c.timestamp)
        .join(blocks, blocks.c.number == table.c.block_number)
        .where(table.c.authorization == number)
        .order_by(table.c.block_number, table.c.log_index)
    )
    found = []
    for row in connection.execute(query).mappings():
        at = 32 * row["transaction"]
        found.append({**row, "transaction_hash": "0x" + row["transactions"][at : at + 32].hex()})
    return found


def payments(connection: Connection, authorization_id: Hash32) -> list[Row]:
    """Bank payments recorded, reversed and claimed, oldest first."""
    table = schema.payments
    query = select(table).where(table.c.authorization == authorization_id)
    return [dict(r) for r in connection.execute(query.order_by(table.c.block_number, table.c.log_index)).mappings()]


def shares(connection: Connection, split_id: Hash32, token: Address) -> dict[str, dict[str, int]]:
    """Payee → accrued (its part of all that was settled to the split), sent, and left to withdraw."""
    found = rows(connection, schema.accruals, split=split_id, token=token)
    accrued = found[0]["accrued"] if found else 0
    sent = {r["payee"]: r["sent"] for r in rows(connection, schema.shares, split=split_id, token=token)}
    amounts = split(connection, split_id).amounts(accrued)
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


def _plain(row: Any) -> Row:
    return {k: v for k, v in row.items() if k not in ("row", "until")}
