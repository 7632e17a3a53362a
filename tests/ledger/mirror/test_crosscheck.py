"""The mirror and another reader of the same chain, PyPI's `cryo`, say the same: events, arguments, totals and money."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.core.database import writing
from ledger.core.ids import Hash32
from ledger.mirror import packing, queries, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.databases import fresh_database
from tests.history import History
from tests.reader import Found, definitions, read_blocks, read_logs
from tests.world import World

pytestmark = pytest.mark.xdist_group("crosscheck")  # one history for all

BASIS = ("NONE", "CONSUMER", "AGENT", "AGENT_CAPPED", "CEILING")
TOKEN = "DemoYuan"  # not one of ours: the mirror does not follow it


@dataclass
class Reading:
    """What cryo read of a chain with some of everything on it."""

    world: World
    blocks: dict[int, tuple[str, int]]
    logs: list[Found]  # of our contracts
    transfers: list[Found]  # of the token
    names: dict[str, str]  # of our contracts, by address

    def contract(self, log: Found) -> str:
        return self.names[log.address]


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reading]:
    folder = tmp_path_factory.mktemp("crosscheck")
    with Processes(folder / "processes") as processes:
        world = World.on(Chain(processes.anvil(folder / "state.json", slots=32)))
        History(world).make()
        head = world.chain.block("latest")
        assert head is not None
        blocks = read_blocks(world.chain.url, head.number, folder / "cryo")
        every = read_logs(world.chain.url, head.number, folder / "cryo")
        names: dict[str, str] = {a: name for name, a in world.deployment.contracts.items() if name != TOKEN}
        logs = [log for log in every if log.address in names]
        transfers = [log for log in every if log.address == world.token and log.name == "Transfer"]
        yield Reading(world, blocks, logs, transfers, names)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def mirror(
    request: pytest.FixtureRequest, reading: Reading, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A mirror of that chain, in a database of each kind."""
    if request.param == "sqlite":
        database: Path | str = tmp_path_factory.mktemp("mirror") / "mirror.db"
    else:
        database = fresh_database(request.getfixturevalue("postgres"))
    engine = open_mirror(database, reading.world.deployment)
    catch_up(engine, reading.world.chain, reading.world.deployment)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(mirror: Engine) -> Iterator[Connection]:
    with mirror.connect() as connection:
        yield connection


# -------------------------------------------------------------------------------------------------- events

Two = tuple[Any, Any]
"""What the mirror says, and what follows from cryo's reading; to be compared."""


def raw_logs(connection: Connection, reading: Reading) -> Two:
    mine = []
    for number, packed in connection.execute(select(schema.blocks.c.number, schema.blocks.c.logs)):
        for log in packing.unpack(packed):
            topics = tuple("0x" + topic.hex() for topic in log.topics)
            place = (number, log.log_index, "0x" + log.transaction.hex(), "0x" + log.address.hex())
            mine.append((*place, topics, "0x" + log.data.hex()))
    return sorted(mine), sorted(log.raw for log in reading.logs)


def headers(connection: Connection, reading: Reading) -> Two:
    table = schema.blocks
    rows = connection.execute(select(table.c.number, table.c.hash, table.c.timestamp, table.c.log_count)).all()
    counts = Counter(log.block for log in reading.logs)
    theirs = {number: (*reading.blocks[number], counts[number]) for number, *_ in rows} | {
        number: (*reading.blocks[number], count) for number, count in counts.items()
    }
    return {number: tuple(rest) for number, *rest in rows}, theirs


def event_rows(connection: Connection, reading: Reading) -> Two:
    """Of every event but settlements: which it is, where, and about which authorization."""
    columns = ("block_number", "log_index", "transaction_hash", "contract", "event", "authorization")
    mine = connection.execute(select(*(schema.events.c[name] for name in columns))).all()
    theirs = [
        (log.block, log.index, log.transaction, reading.contract(log), log.name, log.args.get("authorizationId"))
        for log in reading.logs
        if log.name != "Settled"
    ]
    return sorted(tuple(row) for row in mine), sorted(theirs)


def kinds(connection: Connection, reading: Reading) -> Two:
    """How often every kind of event happened on every contract."""
    table, opened = schema.events, schema.authorizations
    counted = select(table.c.contract, table.c.event, func.count()).group_by(table.c.contract, table.c.event)
    mine = {(contract, event): count for contract, event, count in connection.execute(counted)}
    settled = (
        select(opened.c.ledger, func.count())
        .join(schema.settlements, schema.settlements.c.authorization == opened.c.number)
        .where(opened.c.until.is_(None), schema.settlements.c.kind == schema.SETTLED)
        .group_by(opened.c.ledger)
    )
    mine |= {(ledger, "Settled"): count for ledger, count in connection.execute(settled)}
    return mine, dict(Counter((reading.contract(log), log.name) for log in reading.logs))


def arguments(connection: Connection, reading: Reading) -> Two:
    """Every argument of every event, as the API gives it."""
    mine = []
    for transaction, block in sorted({(log.transaction, log.block) for log in reading.logs}):
        for event in queries.transaction_events(connection, Hash32(transaction), block):
            place = (event["block_number"], event["log_index"])
            mine.append((*place, event["contract"], event["event"], event["args"]))
    theirs = [(log.block, log.index, reading.contract(log), log.name, log.args) for log in reading.logs]
    return sorted(mine, key=lambda e: e[:2]), sorted(theirs, key=lambda e: e[:2])


def test_both_read_the_same_logs(connection: Connection, reading: Reading) -> None:
    mine, theirs = raw_logs(connection, reading)
    assert mine == theirs
    assert len(mine) > 550


def test_both_read_the_same_blocks(connection: Connection, reading: Reading) -> None:
    mine, theirs = headers(connection, reading)
    assert mine == theirs


def test_both_name_the_same_events_of_the_same_authorizations(connection: Connection, reading: Reading) -> None:
    mine, theirs = event_rows(connection, reading)
    assert mine == theirs


def test_every_kind_of_event_happened_as_often(connection: Connection, reading: Reading) -> None:
    mine, theirs = kinds(connection, reading)
    assert mine == theirs
    assert {name for _, name in theirs} == {d.name for d in definitions().values()} - {"Transfer", "Approval"}


def test_every_argument_of_every_event_is_decoded_alike(connection: Connection, reading: Reading) -> None:
    mine, theirs = arguments(connection, reading)
    assert mine == theirs


# --------------------------------------------------------------------------------------------------- money


@dataclass
class Told:
    """What events say, added up by somebody who knows the interfaces and not the mirror."""

    free: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))  # owner, token
    accrued: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))  # split, token
    sent: dict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))  # and payee
    pools: dict[str, int] = field(default_factory=dict)
    authorizations: dict[str, dict[str, Any]] = field(default_factory=dict)
    settlements: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def by(cls, reading: Reading, last: int | None = None) -> "Told":
        """Up to the end of block `last`."""
        told = cls()
        for log in sorted(reading.logs, key=lambda log: (log.block, log.index)):
            if last is not None and log.block > last:
                break
            told.hear(log, log.args, reading.contract(log) == "UsageLedger")
        return told

    def hear(self, log: Found, a: dict[str, Any], escrowed: bool) -> None:
        about = self.authorizations.get(a.get("authorizationId", ""), {})
        consumer = (about.get("consumer", ""), about.get("token", ""))
        match log.name:
            case "Opened":
                self.opened(log, a, escrowed)
            case "Settled":
                signers = (a["providerSigner"], a["consumerSigner"])
                self.settled(log, about, schema.SETTLED, a["head"], a["due"], a["paid"], signers, a["basis"])
                assert a["arrears"] == max(0, a["due"] - a["paid"])
            case "ArrearsPaid":
                last = about["last"]
                head = {name: last[name] for name in ("size", "units", "credits", "asOf", "root")}
                self.settled(log, about, schema.ARREARS, head, a["due"], a["paid"], last["signers"], last["basis"])
            case "ClosedTogether":
                signers, basis = (about["provider"], about["consumer"]), 1 if a["head"]["size"] else 0
                self.settled(log, about, schema.CLOSED, a["head"], a["due"], a["paid"], signers, basis)
                self.end(log, about, "closed together", a["endedAt"], 0)
                self.release(about, a["released"])
            case "Finalized":
                self.release(about, a["released"])
            case "Revoked":
                self.end(log, about, "revoked", a["endedAt"], a["reason"])
            case "ClosedEarly":
                self.end(log, about, "closed", a["endedAt"], a["reason"])
            case "EndedByParent":
                self.end(log, about, "ended by its parent", a["endedAt"], 0)
            case "ToppedUp":
                self.free[a["from"], about["token"]] -= a["amount"]
                about["thaw"] = min(about["thaw"], about["reserved"] - about["paid"])
                about["reserved"] += a["amount"]
            case "ThawStarted":
                about["thaw"] = a["amount"]
            case "Thawed":
                assert a["amount"] == min(about["thaw"], about["reserved"] - about["paid"])
                about["reserved"] -= a["amount"]
                about["thaw"] = 0
                self.free[consumer] += a["amount"]
            case "Refunded":
                about["refunded"] += a["amount"]
                assert about["refunded"] == a["refunded"]
                self.free[about["provider"], about["token"]] -= a["amount"]
                self.free[consumer] += a["amount"]
            case "Deposited":
                self.free[a["owner"], a["token"]] += a["amount"]
            case "Withdrawn":
                self.free[a["owner"], a["token"]] -= a["amount"]
            case "SharePaid":
                self.sent[a["split"], a["token"], a["payee"]] += a["amount"]
            case "PaymentRecorded" | "PaymentReversed":
                about["paid"] += a["amount"] if log.name == "PaymentRecorded" else -a["amount"]
                assert about["paid"] == a["paid"]
            case "PaymentClaimed":
                about["claimed"] += a["amount"]
                assert about["claimed"] == a["claimed"]
            case "PoolCreated":
                self.pools[a["pool"]] = a["amount"]
            case "PoolFunded":
                self.pools[a["pool"]] += a["amount"]
            case "PoolRefunded" | "Subsidised":
                self.pools[a["pool"]] -= a["amount"]

    def opened(self, log: Found, a: dict[str, Any], escrowed: bool) -> None:
        terms = a["terms"]
        assert (a["provider"], a["consumer"]) == (terms["provider"], terms["consumer"])
        self.authorizations[a["authorizationId"]] = {
            "authorization": a["authorizationId"],
            "ledger": "UsageLedger" if escrowed else "InvoiceLedger",
            "space": terms["scope"]["space"],
            "product": terms["scope"]["product"],
            "version": terms["scope"]["version"],
            "provider": terms["provider"],
            "consumer": terms["consumer"],
            "token": terms["token"],
            "split": terms["split"],
            "purposes": terms["scope"]["purposes"],
            "modalities": terms["scope"]["modalities"],
            "opened": log.block,
            "status": "OPEN",
            "ended_at": terms["validUntil"],
            "ended_how": "",
            "ended_block": None,
            "reason": 0,
            "reserved": a["reserved"],
            "thaw": 0,
            "refunded": 0,
            "claimed": 0,
            "paid": 0,
            "due": 0,
            "last": None,
        }
        if escrowed:
            self.free[terms["consumer"], terms["token"]] -= a["reserved"]

    def settled(
        self,
        log: Found,
        about: dict[str, Any],
        kind: int,
        head: dict[str, Any],
        due: int,
        paid: int,
        signers: tuple[str, str],
        basis: int,
    ) -> None:
        row = {
            "place": (log.block, log.index),
            "transaction": log.transaction,
            "authorization": about["authorization"],
            "kind": kind,
            **head,
            "due": due,
            "paid": paid,
            "signers": signers,
            "basis": basis,
        }
        self.settlements.append(row)
        about["last"], about["due"] = row, due
        if about["ledger"] == "UsageLedger":
            self.accrued[about["split"], about["token"]] += paid - about["paid"]
            about["paid"] = paid
        elif kind == schema.SETTLED:
            assert paid == about["paid"]  # by bank payments only

    def end(self, log: Found, about: dict[str, Any], how: str, ended_at: int, reason: int) -> None:
        about |= {"ended_how": how, "ended_at": ended_at, "ended_block": log.block, "reason": reason}

    def release(self, about: dict[str, Any], amount: int) -> None:
        about["status"], about["thaw"] = "CLOSED", 0
        if about["ledger"] == "UsageLedger":
            about["reserved"] -= amount
            assert about["reserved"] == about["paid"]
            self.free[about["consumer"], about["token"]] += amount

    def authorization(self, about: dict[str, Any]) -> dict[str, Any]:
        """As `queries.authorization` has it, as far as events have to do with it."""
        last = about["last"]
        known = {name: value for name, value in about.items() if name not in ("last", "thaw")}
        escrowed = about["ledger"] == "UsageLedger"
        return known | {
            "thawing": min(about["thaw"], about["reserved"] - about["paid"]) if escrowed else 0,
            "size": str(last["size"]) if last else "0",
            "units": [str(n) for n in last["units"]] if last else ["0"] * 4,
            "credits": last["credits"] if last else 0,
            "basis": BASIS[last["basis"]] if last else "NONE",
        }


def settlement_rows(connection: Connection, reading: Reading) -> Two:
    told = Told.by(reading)
    ids = [Hash32(id_) for id_ in told.authorizations]
    mine = [_settlement(id_, row) for id_ in ids for row in queries.settlement_rows(connection, id_)]
    return sorted(mine, key=lambda row: row["place"]), told.settlements


def _settlement(authorization: Hash32, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "place": (row["block_number"], row["log_index"]),
        "transaction": row["transaction_hash"],
        "authorization": authorization,
        "kind": row["kind"],
        "size": row["size"],
        "units": [row[f"units{n}"] for n in range(4)],
        "credits": row["credits"],
        "asOf": row["as_of"],
        "root": row["root"],
        "due": row["due"],
        "paid": row["paid"],
        "signers": (row["provider_signer"], row["consumer_signer"]),
        "basis": row["basis"],
    }


def totals(connection: Connection, reading: Reading) -> Two:
    """Per authorization: how many settlements, and the sums of due, paid and units; added up by the database."""
    table, opened = schema.settlements, schema.authorizations
    summed = [table.c[name] for name in ("due", "paid", "units0", "units1", "units2", "units3")]
    query = (
        select(opened.c.authorization, func.count(), *(func.sum(column) for column in summed))
        .join(table, table.c.authorization == opened.c.number)
        .where(opened.c.until.is_(None), table.c.kind == schema.SETTLED)
        .group_by(opened.c.authorization)
    )
    mine = {id_: [int(number) for number in sums] for id_, *sums in connection.execute(query)}
    theirs: dict[str, list[int]] = defaultdict(lambda: [0] * 7)
    for log in reading.logs:
        if log.name == "Settled":
            a, before = log.args, theirs[log.args["authorizationId"]]
            added = [1, a["due"], a["paid"], *a["head"]["units"]]
            theirs[a["authorizationId"]] = [x + y for x, y in zip(before, added, strict=True)]
    return mine, dict(theirs)


def authorizations(connection: Connection, reading: Reading, at_block: int | None = None) -> Two:
    told = Told.by(reading, at_block)
    theirs = {id_: told.authorization(about) for id_, about in told.authorizations.items()}
    mine = {}
    for row in queries.authorizations(connection, limit=1_000, at_block=at_block):
        id_ = row["authorization"]
        mine[id_] = {name: row[name] for name in theirs.get(id_, row)}
    return mine, theirs


def balances(connection: Connection, reading: Reading, at_block: int | None = None) -> Two:
    """Free money, accruals, shares and pools."""
    told = Told.by(reading, at_block)

    def held(table: Any, *columns: str) -> dict[Any, int]:
        found = queries.rows(connection, table, limit=1_000, at_block=at_block)
        return {tuple(row[c] for c in columns[:-1]): row[columns[-1]] for row in found}

    mine = (
        held(schema.accounts, "owner", "token", "free"),
        held(schema.accruals, "split", "token", "accrued"),
        held(schema.shares, "split", "token", "payee", "sent"),
        held(schema.pools, "pool", "remaining"),
    )
    return mine, (dict(told.free), dict(told.accrued), dict(told.sent), {(p,): n for p, n in told.pools.items()})


def owed(connection: Connection, reading: Reading) -> Two:
    """By the mirror the ledger and the pools owe what, by the token's own events, they have."""
    everything = {t: queries.rows(connection, t, limit=1_000) for t in (schema.accounts, schema.accruals, schema.pools)}
    free = sum(row["free"] for row in everything[schema.accounts])
    accrued = sum(row["accrued"] for row in everything[schema.accruals])
    sent = sum(row["sent"] for row in queries.rows(connection, schema.shares, limit=1_000))
    opened = queries.authorizations(connection, limit=1_000)
    unpaid = sum(row["reserved"] - row["paid"] for row in opened if row["ledger"] == "UsageLedger")
    pooled = sum(row["remaining"] for row in everything[schema.pools])

    has: Counter[str] = Counter()
    for log in reading.transfers:
        has[log.args["to"]] += log.args["value"]
        has[log.args["from"]] -= log.args["value"]
    address = reading.world.deployment.address
    return (free + unpaid + accrued - sent, pooled), (has[address("UsageLedger")], has[address("SubsidyPool")])


def test_every_settlement_is_the_same(connection: Connection, reading: Reading) -> None:
    mine, theirs = settlement_rows(connection, reading)
    assert mine == theirs
    assert len(mine) > 430


def test_the_totals_of_every_authorization_are_the_same(connection: Connection, reading: Reading) -> None:
    mine, theirs = totals(connection, reading)
    assert mine == theirs
    assert len(mine) > 12


def test_every_authorization_stands_where_its_events_leave_it(connection: Connection, reading: Reading) -> None:
    mine, theirs = authorizations(connection, reading)
    assert mine == theirs


def test_every_balance_is_what_its_events_add_up_to(connection: Connection, reading: Reading) -> None:
    mine, theirs = balances(connection, reading)
    assert mine == theirs


def test_what_was_true_at_a_block_is_the_same_too(connection: Connection, reading: Reading) -> None:
    for number in sorted({log.block for log in reading.logs}):
        for compare in (authorizations, balances):
            mine, theirs = compare(connection, reading, number)
            assert mine == theirs, number


def test_the_mirror_owes_what_the_tokens_own_events_say_is_there(connection: Connection, reading: Reading) -> None:
    mine, theirs = owed(connection, reading)
    assert mine == theirs
    assert theirs[0] > 0


# -------------------------------------------------------------------------------------------------- damage


class Undone(Exception):
    """Takes a transaction back."""


@contextmanager
def damaging(mirror: Engine) -> Iterator[Connection]:
    """What is written here is not there afterwards."""
    with suppress(Undone), writing(mirror) as connection:
        yield connection
        raise Undone


def drop_a_log(connection: Connection) -> None:
    table = schema.blocks
    query = select(table.c.number, table.c.logs).where(table.c.log_count > 5).limit(1)
    number, packed = connection.execute(query).one()
    rest = packing.compress(packing.pack(packing.unpack(packed)[:-1]))
    connection.execute(table.update().where(table.c.number == number).values(logs=rest))


def change_a_log(connection: Connection) -> None:
    table = schema.blocks
    query = select(table.c.number, table.c.logs).where(table.c.log_count > 5).limit(1)
    number, packed = connection.execute(query).one()
    *rest, last = packing.unpack(packed)
    changed = last._replace(data=last.data[:31] + bytes([last.data[31] ^ 1]) + last.data[32:])
    logs = packing.compress(packing.pack([*rest, changed]))
    connection.execute(table.update().where(table.c.number == number).values(logs=logs))


LAST = "(SELECT max(block_number) FROM settlements)"


@pytest.mark.parametrize(
    ("damage", "compared"),
    [
        (drop_a_log, (raw_logs, arguments)),
        (change_a_log, (raw_logs, arguments)),
        ("UPDATE blocks SET timestamp = timestamp + 1", (headers,)),
        ("UPDATE events SET event = 'Thawed' WHERE event = 'ThawStarted'", (event_rows, kinds)),
        ("DELETE FROM events WHERE event = 'Withdrawn'", (event_rows, kinds)),
        (f"DELETE FROM settlements WHERE block_number = {LAST}", (settlement_rows, authorizations)),
        ("DELETE FROM settlements WHERE kind = 0 AND size = 7", (settlement_rows, totals, kinds)),
        ("UPDATE settlements SET due = due + 1 WHERE size = 7", (settlement_rows, totals)),
        (f"UPDATE settlements SET paid = paid - 1 WHERE block_number = {LAST}", (settlement_rows, owed)),
        ("UPDATE authorizations SET reserved = reserved + 1 WHERE until IS NULL", (authorizations, owed)),
        ("UPDATE accounts SET free = free + 1 WHERE until IS NULL", (balances, owed)),
        ("UPDATE accruals SET accrued = accrued - 1 WHERE until IS NULL", (balances, owed)),
        ("UPDATE shares SET sent = 0 WHERE until IS NULL", (balances, owed)),
    ],
)
def test_a_damaged_mirror_does_not_say_the_same(
    mirror: Engine, reading: Reading, damage: str | Callable[[Connection], None], compared: tuple[Any, ...]
) -> None:
    with damaging(mirror) as connection:
        if isinstance(damage, str):
            connection.exec_driver_sql(damage)
        else:
            damage(connection)
        for compare in compared:
            mine, theirs = compare(connection, reading)
            assert mine != theirs, compare.__name__
