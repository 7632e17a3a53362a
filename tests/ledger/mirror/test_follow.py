"""The mirror: follows, rewinds, rebuilds to the same contents, and never passes over what it cannot read."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from ledger.chain.artifacts import CORE, items
from ledger.chain.client import Chain, NodeDown, NodeError, WrongChain
from ledger.chain.decode import UndecodableLog
from ledger.core.database import Target, writing
from ledger.core.errors import DatabaseCorrupt
from ledger.core.ids import ZERO_HASH, Address, raw
from ledger.core.terms import AuthorizationTerms, Quad, UsageHead
from ledger.mirror import queries, schema
from ledger.mirror.apply import _HANDLERS, _NOTED
from ledger.mirror.follow import Follower, catch_up, step
from ledger.mirror.schema import BASIS
from ledger.mirror.store import DeploymentDiffers, SchemaOutdated, open_mirror
from ledger.mirror.writer import FinalityViolated
from tests.world import DAY, World, digest

UNITS: Quad = (60, 1440, 0, 0)


@pytest.fixture
def mirror(world: World, database: Target) -> Iterator[Engine]:
    engine = open_mirror(database, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    yield engine
    engine.dispose()


def follow(mirror: Engine, world: World) -> None:
    catch_up(mirror, world.chain, world.deployment)


def rebuilt(world: World, path: Path) -> str:
    engine = open_mirror(path, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    engine.dispose()
    return queries.contents_digest(engine)[0]


def row(mirror: Engine, world: World, terms: AuthorizationTerms) -> dict[str, Any]:
    with mirror.connect() as connection:
        return queries.authorization(connection, world.id(terms))


def same_as_chain(mirror: Engine, world: World, terms: AuthorizationTerms) -> None:
    """Every number of an authorization, and the free money, as the contract has it."""
    mine, state, money = row(mirror, world, terms), world.state(terms), world.reservation(terms)
    a, b, c, d = (int(n) for n in mine["units"])
    head = UsageHead(
        authorization_id=world.id(terms),
        size=int(mine["size"]),
        units=(a, b, c, d),
        credits=mine["credits"],
        as_of=mine["as_of"],
        root=mine["root"],
    )
    assert state["headDigest"] == (head.digest(world.domain(terms)) if head.size else ZERO_HASH)
    assert (mine["ended_at"], mine["basis"]) == (state["endedAt"], BASIS[state["basis"]])
    assert (mine["reserved"], mine["paid"], mine["thawing"]) == (money["reserved"], money["paid"], money["thawing"])
    with mirror.connect() as connection:
        (account,) = queries.rows(connection, schema.accounts, owner=world.consumer.address, token=world.token)
        assert account["free"] == world.free()
        shares = queries.shares(connection, terms.split, terms.token)
    accrued = world.read("UsageLedger", "accruedOf", raw(terms.split), terms.token)
    assert {p: s["accrued"] for p, s in shares.items()} == world.split().amounts(accrued)


def test_the_mirror_says_what_the_contract_says_after_every_step(mirror: Engine, world: World) -> None:
    terms = world.open(6_000_000)
    document = {"terms": terms.as_json()}
    follow(mirror, world)
    same_as_chain(mirror, world, terms)
    world.settle(terms, 5, (5, 120, 0, 0))
    steps: list[tuple[Any, str, dict[str, Any]]] = [
        (world.consumer, "authorization.thaw", {"amount": "1000000"}),
        (world.stranger, "settle.one", {"settlement": world.settlement(terms, world.head(terms, 60, UNITS), 5)}),
        (world.consumer, "authorization.close", {"reason": 101}),
    ]
    for who, operation, arguments in steps:
        world.send(who, operation, **({} if operation == "settle.one" else document) | arguments)
        follow(mirror, world)
        same_as_chain(mirror, world, terms)
    world.fund(77)
    world.send(world.consumer, "authorization.top-up", **document, settled=world.last(terms), amount="77")
    world.send(world.holder, "share.pay", split=terms.split, token=terms.token, payee=world.holder.address)
    follow(mirror, world)
    same_as_chain(mirror, world, terms)
    world.pass_time(DAY + 60)
    world.send(world.stranger, "authorization.finalize", **document)
    world.send(world.consumer, "account.withdraw", token=world.token, amount="5", to=world.holder.address)
    follow(mirror, world)
    same_as_chain(mirror, world, terms)


def test_a_rebuild_has_the_same_contents(mirror: Engine, world: World, tmp_path: Path) -> None:
    terms = world.open(5_000_000)
    world.settle(terms, 60, UNITS)
    follow(mirror, world)
    assert rebuilt(world, tmp_path / "again.db") == queries.contents_digest(mirror)[0]


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_a_reorg_rewinds_to_the_last_shared_block(
    own_world: World, database: Target, tmp_path: Path, depth: int
) -> None:
    world = own_world
    mirror = open_mirror(database, world.deployment)
    terms = world.open(5_000_000)
    follow(mirror, world)
    before = row(mirror, world, terms)
    for n in range(1, 7):
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
    follow(mirror, world)
    assert row(mirror, world, terms)["size"] == "6"
    # Each settlement is one block, and reading the time for it mines another.
    world.chain.rpc("anvil_reorg", 2 * depth, [])
    world.chain.rpc("evm_mine")
    follow(mirror, world)
    left = 6 - depth
    assert row(mirror, world, terms)["size"] == str(left)
    if left == 0:
        assert row(mirror, world, terms) == before
    same_as_chain(mirror, world, terms)
    assert rebuilt(world, tmp_path / "again.db") == queries.contents_digest(mirror)[0]
    mirror.dispose()


def test_a_rollback_to_a_shorter_chain_is_followed_too(mirror: Engine, world: World, tmp_path: Path) -> None:
    terms = world.open(5_000_000)
    follow(mirror, world)
    snapshot = world.chain.rpc("evm_snapshot")
    world.settle(terms, 60, UNITS)
    follow(mirror, world)
    world.chain.rpc("evm_revert", snapshot)
    progress = step(mirror, world.chain, world.deployment)
    assert progress.rewound > 0
    assert row(mirror, world, terms)["size"] == "0"
    assert rebuilt(world, tmp_path / "again.db") == queries.contents_digest(mirror)[0]


def test_history_is_kept_by_block(mirror: Engine, world: World) -> None:
    terms = world.open(5_000_000)
    first = world.settle(terms, 5, (5, 120, 0, 0))
    second = world.settle(terms, 60, UNITS, 5)
    follow(mirror, world)

    def size_at(block: int | None) -> list[str]:
        with mirror.connect() as connection:
            found = queries.authorizations(connection, at_block=block, authorization=world.id(terms))
        return [r["size"] for r in found]

    assert size_at(None) == size_at(second.block) == ["60"]
    assert size_at(second.block - 1) == size_at(first.block) == ["5"]
    assert size_at(world.deployment.block) == []


def test_two_changes_in_one_block_leave_one_row(mirror: Engine, world: World) -> None:
    terms = world.open(5_000_000)
    rows = [world.settlement(terms, world.head(terms, n, (n, 24 * n, 0, 0)), n - 1) for n in (1, 2, 3)]
    receipt = world.send(world.stranger, "settle.many", settlements=rows)
    follow(mirror, world)
    with mirror.connect() as connection:
        table = schema.accruals
        found = connection.execute(select(table.c.since).where(table.c.since == receipt.block)).all()
        heads = queries.settlements(connection, world.id(terms))
    assert [tuple(r) for r in found] == [(receipt.block,)]
    assert [h["head"]["size"] for h in heads] == ["1", "2", "3"]


class Lying(Chain):
    """A node whose logs are changed by a test before they arrive, where `when` says so of the request."""

    def __init__(self, url: str, change: Callable[[list[Any]], Any], when: str = "") -> None:
        super().__init__(url, attempts=1)
        self._change, self._when = change, when

    def ask(self, method: str, params: Sequence[Any]) -> bytes:
        answer = super().ask(method, params)
        if method != "eth_getLogs" or (self._when and self._when not in params[0]):
            return answer
        found = json.loads(answer)
        return json.dumps(found | {"result": self._change(found["result"])}).encode()


def test_a_log_that_cannot_be_decoded_stops_the_mirror_and_is_never_skipped(mirror: Engine, world: World) -> None:
    terms = world.open(5_000_000)
    follow(mirror, world)
    world.settle(terms, 60, UNITS)

    def cut(logs: list[Any]) -> list[Any]:
        for log in logs:
            log["data"] = log["data"][:-64]
        return logs

    before = queries.contents_digest(mirror)
    with pytest.raises(UndecodableLog):
        catch_up(mirror, Lying(world.chain.url, cut), world.deployment)
    assert queries.contents_digest(mirror)[0] == before[0]
    follow(mirror, world)
    assert row(mirror, world, terms)["size"] == "60"


@pytest.mark.parametrize("field", ["address", "blockHash"])
def test_logs_of_another_contract_or_block_are_refused(mirror: Engine, world: World, field: str) -> None:
    world.open(5_000_000)

    def foreign(logs: list[Any]) -> list[Any]:
        for log in logs:
            log[field] = "0x" + "11" * (20 if field == "address" else 32)
        return logs

    before = queries.contents_digest(mirror)
    with pytest.raises(NodeError):
        catch_up(mirror, Lying(world.chain.url, foreign), world.deployment)
    assert queries.contents_digest(mirror)[0] == before[0]


def test_a_short_answer_near_the_head_is_noticed_by_the_bloom_filter(
    mirror: Engine, world: World, tmp_path: Path
) -> None:
    terms = world.open(5_000_000)
    world.settle(terms, 60, UNITS)
    catch_up(mirror, Lying(world.chain.url, lambda logs: [], "blockHash"), world.deployment)
    assert row(mirror, world, terms)["size"] == "60"
    assert rebuilt(world, tmp_path / "again.db") == queries.contents_digest(mirror)[0]


def test_another_deployment_is_refused(world: World, tmp_path: Path) -> None:
    open_mirror(tmp_path / "mirror.db", world.deployment).dispose()
    other = type(world.deployment)(1, world.deployment.genesis, 1, world.deployment.contracts, {})
    with pytest.raises(DeploymentDiffers):
        open_mirror(tmp_path / "mirror.db", other)
    with pytest.raises(WrongChain):
        other.check(world.chain)


@pytest.mark.parametrize(
    "content", [b"this is no database at all, but long enough to look at" * 100, b"SQLite format 3\0junk"]
)
def test_a_corrupt_file_is_named_and_left_alone(world: World, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt) as caught:
        open_mirror(path, world.deployment)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused(world: World, tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(DatabaseCorrupt, match="another program"):
        open_mirror(tmp_path / "other.db", world.deployment)


def test_a_damaged_page_is_found_when_the_file_is_opened(world: World, tmp_path: Path) -> None:
    path = tmp_path / "mirror.db"
    engine = open_mirror(path, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    engine.dispose()
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 6] = b"\xff" * (4096 * 4)
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt):
        open_mirror(path, world.deployment)


def test_a_node_that_is_down_is_tried_again_with_growing_pauses() -> None:
    pauses: list[float] = []
    notices: list[str] = []
    chain = Chain("http://127.0.0.1:9", attempts=4, notice=notices.append, sleep=pauses.append)
    with pytest.raises(NodeDown):
        chain.chain_id()
    assert pauses == [0.2, 0.4, 0.8]
    assert len(notices) == 3


def until(condition: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_the_follower_lives_through_what_it_did_not_foresee(mirror: Engine, world: World) -> None:
    healthy = Chain(world.chain.url, attempts=1)
    answers: dict[str, Any] = {"now": lambda every: None}
    follower = Follower(mirror, Lying(world.chain.url, lambda every: answers["now"](every)), world.deployment, 0.02)
    world.chain.rpc("evm_mine")
    follower.start()
    until(lambda: follower.state == "stopped")
    assert follower.problem is not None
    assert not follower.well()
    answers["now"] = lambda every: every
    until(follower.well)
    head = healthy.block("latest")
    assert head is not None
    assert follower.progress is not None
    assert follower.progress.height == head.number
    follower.stop()


def test_the_follower_keeps_reads_and_says_so_when_the_node_is_down(mirror: Engine, world: World) -> None:
    follower = Follower(mirror, Chain("http://127.0.0.1:9", attempts=1), world.deployment, 0.02)
    follower.start()
    until(lambda: follower.state == "node_down")
    with mirror.connect() as connection:
        assert queries.position(connection) is not None
    follower.stop()


def test_a_connection_reads_one_state(world: World, database: Target) -> None:
    engine = open_mirror(database, world.deployment)
    with engine.connect() as reader:
        assert queries.position(reader) is None
        catch_up(engine, world.chain, world.deployment)
        assert queries.position(reader) is None
    with engine.connect() as reader:
        assert queries.position(reader) is not None
    engine.dispose()


def test_opening_twice_keeps_what_is_there(world: World, database: Target) -> None:
    first = open_mirror(database, world.deployment)
    catch_up(first, world.chain, world.deployment)
    found = queries.contents_digest(first)
    first.dispose()
    second = open_mirror(database, world.deployment)
    assert queries.contents_digest(second) == found
    with writing(second) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    second.dispose()
    with pytest.raises(SchemaOutdated, match="9999"):
        open_mirror(database, world.deployment)


def test_unknown_things_are_not_found(mirror: Engine, world: World) -> None:
    assert queries.end_note(mirror, digest("nothing")) == ""


def test_a_latched_mirror_of_another_writer_has_not_caught_up(mirror: Engine, world: World) -> None:
    with writing(mirror) as connection:
        latched = {"violated": {"block": 1}, "writer": "another", "seen_at": int(time.time())}
        connection.execute(schema.cursor.update().values(**latched))
    with pytest.raises(FinalityViolated):
        follow(mirror, world)


def test_two_writers_apply_each_block_once(world: World, database: Target, tmp_path: Path) -> None:
    import threading

    engines = [open_mirror(database, world.deployment) for _ in range(2)]
    problems: list[BaseException] = []

    def write(engine: Engine) -> None:
        try:
            for _ in range(20):
                catch_up(engine, Chain(world.chain.url, attempts=1), world.deployment)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for _ in range(10):
        world.chain.rpc("evm_mine")
    for thread in threads:
        thread.join()
    assert problems == []
    catch_up(engines[0], world.chain, world.deployment)
    found = queries.contents_digest(engines[0])
    for engine in engines:
        engine.dispose()
    assert found[0] == rebuilt(world, tmp_path / "again.db")


def test_a_deployment_that_is_not_there_or_not_the_same_is_refused(world: World) -> None:
    from dataclasses import replace

    from ledger.chain.deploy import NotDeployed
    from ledger.core.ids import ZERO_HASH

    here = world.deployment
    here.check(world.chain)
    moved = replace(here, contracts=here.contracts | {"UsageLedger": Address("0x" + "11" * 20)})
    with pytest.raises(NotDeployed, match="there is no UsageLedger"):
        moved.check(world.chain)
    other = replace(here, code_hashes=here.code_hashes | {"RateCards": ZERO_HASH})
    with pytest.raises(NotDeployed, match="not that of RateCards"):
        other.check(world.chain)
    with pytest.raises(WrongChain, match="genesis"):
        replace(here, genesis=ZERO_HASH).check(world.chain)


def test_every_event_of_the_contracts_changes_something_or_is_known_not_to() -> None:
    known = {*_HANDLERS, *_NOTED} | {("", "Settled")}
    events = [(contract, name) for contract in CORE for name in items(contract, "event")]
    assert len(events) > 60
    assert [e for e in events if e not in known and ("", e[1]) not in known] == []
