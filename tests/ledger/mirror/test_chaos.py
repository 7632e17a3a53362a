"""Whatever the node, the chain and the processes do: the mirror ends as one that was built in peace."""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, make_url, select

from ledger.chain.client import Chain, NodeDown, NodeError, WrongChain
from ledger.chain.deploy import Deployment
from ledger.chain.fetch import Fetcher, RangeRefused
from ledger.chain.prepared import prepare
from ledger.chain.send import broadcast, wait
from ledger.cli.processes import Processes
from ledger.core.database import Target
from ledger.core.events import Block
from ledger.core.ids import Hash32, hash_of
from ledger.core.terms import AuthorizationTerms, UsageHead
from ledger.mirror import queries, schema
from ledger.mirror.follow import Follower, catch_up
from ledger.mirror.queries import Cursor
from ledger.mirror.store import followed, open_mirror
from ledger.mirror.work import EventOutOfPlace, Work
from ledger.mirror.writer import LEASE, FinalityViolated, StandingBy, Writer
from tests.chaos import LIES, WORDINGS, ChaosNode, Fault
from tests.databases import fresh_database
from tests.listener import Listener, places
from tests.world import World, log_tree

EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "200"))  # schedules in all: seven of ten on SQLite
SLOTS = 4
WINDOW = 2 * SLOTS  # blocks that are not final
TABLES = (*schema.STATE, *schema.FACTS, schema.events)


# ------------------------------------------------------------------------------------------------ comparing


def contents(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of what the mirror tells of, in the order of its keys."""
    queries_of = {table.name: select(table) for table in TABLES}
    queries_of["blocks"] = select(schema.blocks).where(schema.blocks.c.log_count > 0)
    found = {}
    with engine.connect() as connection:
        for name, query in queries_of.items():
            ordered = query.order_by(*schema.metadata.tables[name].primary_key)
            found[name] = [dict(row) for row in connection.execute(ordered).mappings()]
    return found


def same_as_rebuilt(engine: Engine, chain: Chain, deployment: Deployment, path: Path) -> None:
    """Digest, height and rows are those of a new mirror, read from the node itself."""
    fresh = open_mirror(path, deployment)
    try:
        catch_up(fresh, chain, deployment)
        mine, theirs = contents(engine), contents(fresh)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name] == theirs[name], name
        assert queries.contents_digest(engine) == queries.contents_digest(fresh)
        listener = Listener(limit=50)
        listener.listen(engine)
        assert listener.has == places(fresh)
    finally:
        fresh.dispose()


def cursor_of(engine: Engine) -> Cursor:
    with engine.connect() as connection:
        return queries.cursor(connection)


def settle_down(engine: Engine, chain: Chain, deployment: Deployment, clock: Callable[[], float] = time.time) -> None:
    """Follows to the head and reads everything again, until there is no difference left."""
    writer = Writer(engine, chain, deployment, clock=clock)
    try:
        while True:
            before = writer.counts["differences"]
            read_whole(writer)
            while writer.second_pass():
                pass
            if writer.counts["differences"] == before:
                return
    finally:
        writer.close()


def read_whole(writer: Writer) -> None:
    """Steps to the head."""
    while (progress := writer.step()).height < progress.head or progress.rewound:
        pass


def patient(url: str, attempts: int = 2) -> Chain:
    """A client that does not wait between its attempts."""
    return Chain(url, attempts=attempts, sleep=lambda _: None)


# ------------------------------------------------------------------------------------------------- the chain


@dataclass(repr=False)
class Ground:
    """A chain that every schedule starts from, and empty mirrors of it to be copied."""

    world: World
    node: ChaosNode
    folder: Path
    empty: Path
    terms: list[AuthorizationTerms]
    openings: dict[Hash32, dict[str, Any]]
    snapshot: str = ""
    template: tuple[str, str] = ("", "")  # server and database

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text("the ground")  # what Hypothesis shows of a schedule is the schedule

    def reset(self) -> None:
        """Back to where every schedule starts."""
        chain = self.world.chain
        chain.rpc("evm_revert", self.snapshot)
        self.snapshot = chain.rpc("evm_snapshot")
        self.node.forget()
        self.node.upstream = chain.url

    @contextmanager
    def database(self, kind: str) -> Iterator[Target]:
        """A mirror in which nothing is written yet."""
        name = f"chaos_{uuid.uuid4().hex}"
        if kind == "sqlite":
            path = self.folder / f"{name}.db"
            shutil.copy(self.empty, path)
            yield path
            for left in self.folder.glob(f"{name}.db*"):
                left.unlink()
            return
        server, template = self.template
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def same_as_rebuilt(self, engine: Engine) -> None:
        with self.database("sqlite") as path:
            assert isinstance(path, Path)
            same_as_rebuilt(engine, Chain(self.node.upstream), self.world.deployment, path)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("chaos")
    with Processes(folder / "logs") as processes:
        world = World.on(Chain(processes.anvil(folder / "state.json", slots=SLOTS)))
        terms = [world.open(5_000_000), *(world.terms() for _ in range(3))]
        spender = world.deployment.address("UsageLedger")
        world.fund(100_000_000)
        world.send(world.consumer, "token.mint", to=world.consumer.address, amount="1000000000")
        world.send(world.consumer, "token.approve", spender=spender, amount="1000000000")
        openings = {world.id(each): world.opening(each, 5_000_000) for each in terms[1:]}
        for _ in range(WINDOW):
            world.chain.rpc("evm_mine")  # all of it is final, so that it is read by range
        empty = folder / "empty.db"
        open_mirror(empty, world.deployment).dispose()
        with ChaosNode(world.chain.url) as node:
            made = Ground(world, node, folder, empty, terms, openings)
            made.snapshot = world.chain.rpc("evm_snapshot")
            yield made


@pytest.fixture(scope="module")
def on_server(ground: Ground, postgres: str) -> Ground:
    """With a template on a PostgreSQL server, too."""
    url = fresh_database(postgres)
    open_mirror(url, ground.world.deployment).dispose()
    ground.template = (postgres, str(make_url(url).database))
    return ground


@pytest.fixture(params=["sqlite", "postgres"])
def fresh(request: pytest.FixtureRequest) -> Iterator[tuple[Ground, Target]]:
    """The chain as it is at the start, and an empty mirror of each kind."""
    kind: str = request.param
    where: Ground = request.getfixturevalue("ground" if kind == "sqlite" else "on_server")
    where.reset()
    with where.database(kind) as target:
        yield where, target
    where.reset()


Heads = dict[Hash32, UsageHead | None]


@dataclass
class Branches:
    """The chain's growth from the start on, a block at a time, each of which can be undone."""

    ground: Ground
    heads: Heads = field(default_factory=dict)  # authorization → head settled, of those that are open
    levels: list[tuple[str, Heads]] = field(default_factory=list)  # before each block: snapshot, heads
    start: int = 0
    highest: int = 0

    def __post_init__(self) -> None:
        self.ground.reset()
        self.start = self.highest = self.tip().number
        self.heads = {self.ground.world.id(self.ground.terms[0]): None}

    def tip(self) -> Block:
        found = self.ground.world.chain.block("latest")
        assert found is not None
        return found

    @property
    def height(self) -> int:
        return self.start + len(self.levels)

    def mine(self, what: str, which: int) -> None:
        """One block, with one transaction or none."""
        world = self.ground.world
        self.levels.append((world.chain.rpc("evm_snapshot"), dict(self.heads)))
        terms = self.ground.terms[which % len(self.ground.terms)]
        if what in ("open", "deposit and open") and world.id(terms) in self.heads:
            what = "settle"
        if what == "settle" and world.id(terms) not in self.heads:
            what = "open"
        if what == "open":
            world.send_unchecked(world.stranger, "authorization.open", opening=self.ground.openings[world.id(terms)])
            self.heads[world.id(terms)] = None
        elif what == "deposit and open":
            self._two(world.id(terms))
        elif what == "settle":
            world.send_unchecked(world.stranger, "settle.one", settlement=self._next(terms))
        elif what == "settle many":
            known = [each for each in self.ground.terms if world.id(each) in self.heads]
            rows = [self._next(each) for each in known] + [self._next(known[0])]
            world.send_unchecked(world.stranger, "settle.many", settlements=rows)
        elif what == "deposit":
            owner, amount = world.consumer, str(which + 1)
            world.send_unchecked(owner, "account.deposit", owner=owner.address, token=world.token, amount=amount)
        else:
            world.chain.rpc("evm_mine")
        self.highest = max(self.highest, self.height)
        assert self.tip().number == self.height

    def _two(self, opened: Hash32) -> None:
        """Two transactions in one block, the opening last."""
        world = self.ground.world
        owner = world.consumer
        deposit = {"owner": owner.address, "token": world.token, "amount": "1"}
        made = [
            (owner, prepare(world.chain, world.deployment, "account.deposit", deposit, owner.address)),
            (
                world.stranger,
                prepare(
                    world.chain,
                    world.deployment,
                    "authorization.open",
                    {"opening": self.ground.openings[opened]},
                    world.stranger.address,
                ),
            ),
        ]
        world.chain.rpc("evm_setAutomine", False)
        sent = [broadcast(world.chain, who.sign_transaction(prepared)) for who, prepared in made]
        world.chain.rpc("evm_mine")
        world.chain.rpc("evm_setAutomine", True)
        assert {wait(world.chain, each).block for each in sent} == {self.height}
        self.heads[opened] = None

    def _next(self, terms: AuthorizationTerms) -> dict[str, Any]:
        world, id_ = self.ground.world, self.ground.world.id(terms)
        before = self.heads[id_]
        size = (before.size if before else 0) + 1
        root = hash_of(log_tree(size).root())
        head = UsageHead(
            authorization_id=id_,
            size=size,
            units=(size, 24 * size, 0, 0),
            credits=0,
            as_of=self.tip().timestamp,
            root=root,
        )
        if before:
            world.heads[id_, before.size] = before
        self.heads[id_] = head
        return world.settlement(terms, head, size - 1)

    def reorg(self, depth: int) -> None:
        """Undoes that many blocks and mines another; what was ever final stays."""
        depth = min(depth, len(self.levels), self.height - (self.highest - WINDOW))
        if depth < 1:
            return
        snapshot, self.heads = self.levels[-depth]
        del self.levels[-depth:]
        assert self.ground.world.chain.rpc("evm_revert", snapshot)
        self.mine("nothing", 0)

    def bury(self) -> None:
        """Makes everything final."""
        for _ in range(self.highest - self.height + WINDOW + 1):
            self.mine("nothing", 0)


# --------------------------------------------------------------------------------------------------- crashes


class Crash(BaseException):
    """The process ends here."""


BOUNDARIES = ("before the transaction", "after the rows", "before the commit", "after the commit")


def crash(*_: Any, **__: Any) -> Any:
    raise Crash


@contextmanager
def crashing(engine: Engine, boundary: str) -> Iterator[None]:
    """The process ends when it comes to this boundary."""
    commit: Callable[[Any], None] = engine.dialect.do_commit
    flush = Work.flush

    def after_the_rows(work: Work) -> None:
        flush(work)
        raise Crash

    def after_the_commit(connection: Any) -> None:
        commit(connection)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        if boundary == "before the transaction":
            patch.setattr("ledger.mirror.writer.writing", crash)
        elif boundary == "after the rows":
            patch.setattr(Work, "flush", after_the_rows)
        else:
            patch.setattr(engine.dialect, "do_commit", crash if boundary == "before the commit" else after_the_commit)
        yield


# ------------------------------------------------------------------------------------------------- schedules


@dataclass
class Process:
    """A process that writes: an engine of its own and a writer."""

    target: Target
    ground: Ground
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self.engine = open_mirror(self.target, self.ground.world.deployment)
        chain = patient(self.ground.node.url)
        self.writer = Writer(self.engine, chain, self.ground.world.deployment, clock=self.clock)

    def die(self) -> None:
        """Without a word to the others."""
        self.writer._fetcher.close()
        self.engine.dispose()


class Run:
    """One schedule: what the node, the chain and the processes do, one after the other."""

    def __init__(self, ground: Ground, target: Target) -> None:
        self.ground, self.target = ground, target
        self.branches = Branches(ground)
        self.now = 1_000_000
        self.process = self.start()
        self.lied = False

    def start(self) -> Process:
        return Process(self.target, self.ground, lambda: self.now)

    def step(self, name: str, *arguments: Any) -> None:
        getattr(self, name)(*arguments)

    def mine(self, what: str, which: int) -> None:
        self.branches.mine(what, which)

    def reorg(self, depth: int) -> None:
        self.branches.reorg(depth)

    def fault(self, fault: Fault) -> None:
        self.ground.node.start(fault)
        self.lied |= fault.kind in LIES

    def calm(self, kind: str) -> None:
        self.ground.node.stop(kind)

    def write(self, steps: int) -> None:
        for _ in range(steps):
            self._step(self.process.writer)

    def _step(self, writer: Writer) -> None:
        """A step does its work or changes nothing, and finality is never doubted."""
        before = queries.contents_digest(self.process.engine)
        try:
            writer.step()
        except (NodeDown, NodeError):
            assert queries.contents_digest(self.process.engine) == before
        except EventOutOfPlace:
            assert self.lied
            assert queries.contents_digest(self.process.engine) == before

    def check(self) -> None:
        """A second pass, if it is told the truth: it does not ask a third time."""
        if not self.ground.node.active(*LIES):
            with suppress(NodeDown, NodeError):
                self.process.writer.second_pass()

    def crash(self, boundary: str) -> None:
        try:
            with crashing(self.process.engine, boundary):
                self._step(self.process.writer)
        except Crash:
            pass
        self.process.die()
        self.now += LEASE
        self.process = self.start()

    def rival(self) -> None:
        """A second writer changes nothing while the first is alive."""
        other = self.start()
        try:
            before = cursor_of(other.engine)
            if before.writer == self.process.writer.name and self.now - before.seen_at < LEASE:
                with pytest.raises(StandingBy):
                    other.writer.step()
                assert cursor_of(other.engine) == before
        finally:
            other.die()

    def take_over(self) -> None:
        """A second writer goes on after the first was silent; if it wrote, the first gives way."""
        first, self.now = self.process, self.now + LEASE
        self.process = self.start()
        try:
            self._step(self.process.writer)
            before = cursor_of(first.engine)
            if before.writer == self.process.writer.name:
                with pytest.raises(StandingBy):
                    first.writer.step()
                assert cursor_of(first.engine) == before
        finally:
            first.die()

    def end(self) -> None:
        """In peace again: the mirror is what a new one would be."""
        self.ground.node.stop()
        last = self.branches.highest
        self.branches.bury()
        self.process.die()
        engine = open_mirror(self.target, self.ground.world.deployment)
        try:
            settle_down(engine, patient(self.ground.node.url), self.ground.world.deployment)
            found = cursor_of(engine)
            assert found.violated is None
            assert found.final == found.checked > last
            self.ground.same_as_rebuilt(engine)
        finally:
            engine.dispose()


SHORT = st.builds(
    Fault, st.sampled_from(["short_range", "short_hash"]), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2)
)
FAULTS = st.one_of(
    SHORT,
    st.builds(Fault, st.sampled_from(["silent", "busy", "broken"]), st.integers(2, 4), st.integers(0, 3)),
    st.builds(Fault, st.just("stale"), st.integers(1, 4), st.integers(0, 3)),
    st.builds(Fault, st.just("narrow"), st.integers(1, 2), st.integers(0, 1), st.sampled_from([1, 2, 5, 16])),
    st.builds(Fault, st.sampled_from(["mixed_case", "no_newest", "no_tags", "no_receipts"]), st.integers(1, 2)),
)
BLOCKS = ["settle", "settle", "settle many", "open", "deposit", "deposit and open", "nothing"]
STEPS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "mine": st.tuples(st.just("mine"), st.sampled_from(BLOCKS), st.integers(0, 3)),
    "reorg": st.tuples(st.just("reorg"), st.integers(1, WINDOW)),
    "fault": st.tuples(st.just("fault"), FAULTS),
    "calm": st.tuples(st.just("calm"), FAULTS.map(lambda fault: fault.kind)),
    "write": st.tuples(st.just("write"), st.integers(1, 4)),
    "crash": st.tuples(st.just("crash"), st.sampled_from(BOUNDARIES)),
    "other": st.tuples(st.sampled_from(["check", "rival", "take_over"])),
}
OFTEN = {"mine": 8, "write": 6, "reorg": 2, "fault": 3, "calm": 1, "crash": 2, "other": 2}
STEP = st.sampled_from([name for name, times in OFTEN.items() for _ in range(times)]).flatmap(STEPS.__getitem__)
# Most begin with something wrong: the first steps are those that read by range.
BEGINNINGS: st.SearchStrategy[list[Fault]] = st.one_of(
    st.just([]),
    st.tuples(FAULTS).map(list),
    st.tuples(SHORT).map(list),
    st.lists(FAULTS, min_size=2, max_size=2, unique_by=lambda fault: fault.kind),
)
SCHEDULES = st.builds(
    lambda first, steps: [*(("fault", fault) for fault in first), *steps],
    BEGINNINGS,
    st.lists(STEP, min_size=6, max_size=20),
)


def run(ground: Ground, kind: str, schedule: list[tuple[Any, ...]]) -> None:
    with ground.database(kind) as target:
        running = Run(ground, target)
        try:
            for step in schedule:
                running.step(*step)
            running.end()
        finally:
            running.process.die()
            ground.reset()


# A failing schedule is shrunk when there is time for it: each try takes a good part of a second.
PHASES = [phase for phase in Phase if phase is not Phase.shrink or "CHAOS_SHRINK" in os.environ]
CHAOS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
    phases=PHASES,
    database=None,
)


@settings(CHAOS, max_examples=EXAMPLES * 7 // 10)
@given(schedule=SCHEDULES)
def test_any_schedule_ends_as_a_rebuild_on_sqlite(ground: Ground, schedule: list[tuple[Any, ...]]) -> None:
    run(ground, "sqlite", schedule)


@settings(CHAOS, max_examples=EXAMPLES * 3 // 10)
@given(schedule=SCHEDULES)
def test_any_schedule_ends_as_a_rebuild_on_postgresql(on_server: Ground, schedule: list[tuple[Any, ...]]) -> None:
    run(on_server, "postgres", schedule)


# ------------------------------------------------------------------------------------------------- one by one


@contextmanager
def mirrored(ground: Ground, target: Target, url: str = "", **options: Any) -> Iterator[Writer]:
    """A writer of this mirror, by way of the proxy."""
    engine = open_mirror(target, ground.world.deployment)
    writer = Writer(engine, patient(url or ground.node.url), ground.world.deployment, **options)
    try:
        yield writer
    finally:
        writer.close()
        engine.dispose()


def second_passes(writer: Writer) -> None:
    while writer.second_pass():
        pass


Fresh = tuple[Ground, Target]


def test_a_short_answer_is_repaired_by_the_second_pass(fresh: Fresh) -> None:
    ground, target = fresh
    ground.node.start(Fault("short_range", extent=1))
    with mirrored(ground, target) as writer:
        read_whole(writer)
        ground.node.stop()
        second_passes(writer)
        assert writer.counts["differences"] == cursor_of(writer.engine).differences == 1
        read_whole(writer)
        second_passes(writer)
        assert cursor_of(writer.engine).checked == cursor_of(writer.engine).final
        assert ground.node.counts["short_range"] > 0
        ground.same_as_rebuilt(writer.engine)


def test_a_second_answer_that_is_short_changes_nothing(fresh: Fresh) -> None:
    ground, target = fresh
    with mirrored(ground, target) as writer:
        read_whole(writer)
        before = contents(writer.engine)
        ground.node.start(Fault("short_range", extent=2))
        second_passes(writer)
        assert writer.counts["short"] > 0
        assert writer.counts["differences"] == cursor_of(writer.engine).differences == 0
        assert cursor_of(writer.engine).checked == cursor_of(writer.engine).final
        assert contents(writer.engine) == before


def test_a_part_of_a_blocks_logs_is_found_out_when_the_block_is_final(fresh: Fresh) -> None:
    """The bloom filter tells of nothing at all only."""
    ground, target = fresh
    branches = Branches(ground)
    with mirrored(ground, target) as writer:
        read_whole(writer)
        branches.mine("settle many", 0)
        ground.node.start(Fault("short_hash", extent=1))
        read_whole(writer)
        ground.node.stop()
        branches.bury()
        read_whole(writer)
        second_passes(writer)
        assert cursor_of(writer.engine).differences == 1
        read_whole(writer)
        ground.same_as_rebuilt(writer.engine)


def test_a_blocks_receipts_decide_between_two_answers(fresh: Fresh) -> None:
    """A node that answers short by hash, each time, has the whole of it in its receipts."""
    ground, target = fresh
    branches = Branches(ground)
    with mirrored(ground, target) as writer:
        read_whole(writer)
        branches.mine("settle many", 0)
        ground.node.start(Fault("short_hash", extent=1))
        read_whole(writer)
        branches.bury()
        read_whole(writer)
        second_passes(writer)
        assert (writer.counts["short"], cursor_of(writer.engine).differences) == (0, 1)
        read_whole(writer)
        second_passes(writer)
        ground.same_as_rebuilt(writer.engine)


def test_an_event_out_of_place_because_of_a_short_answer_is_repaired(fresh: Fresh) -> None:
    """The opening was left out, and its settlement comes: what is final is read again before the mirror gives up."""
    ground, target = fresh
    branches = Branches(ground)
    branches.mine("open", 1)
    branches.bury()
    ground.node.start(Fault("short_range", extent=0))
    with mirrored(ground, target) as writer:
        read_whole(writer)
        ground.node.stop()
        branches.mine("settle", 1)
        read_whole(writer)
        assert cursor_of(writer.engine).differences == 1
        ground.same_as_rebuilt(writer.engine)


def test_an_event_out_of_place_because_of_a_part_of_a_block_is_repaired(fresh: Fresh) -> None:
    """As before, near the head: nothing would become final while the mirror stands still."""
    ground, target = fresh
    branches = Branches(ground)
    with mirrored(ground, target) as writer:
        read_whole(writer)
        branches.mine("deposit and open", 1)
        ground.node.start(Fault("short_hash", extent=1))
        read_whole(writer)
        assert ground.node.counts["short_hash"] > 0
        ground.node.stop()
        branches.mine("settle", 1)
        read_whole(writer)
        assert cursor_of(writer.engine).differences == 1
        ground.same_as_rebuilt(writer.engine)


def test_an_event_out_of_place_is_repaired_when_the_second_pass_was_answered_short_too(fresh: Fresh) -> None:
    ground, target = fresh
    branches = Branches(ground)
    ground.node.start(Fault("short_range", extent=0))
    with mirrored(ground, target) as writer:
        read_whole(writer)
        second_passes(writer)
        branches.mine("settle", 0)
        with pytest.raises(EventOutOfPlace):
            read_whole(writer)
        ground.node.stop()
        read_whole(writer)
        assert cursor_of(writer.engine).differences == 1
        ground.same_as_rebuilt(writer.engine)


def test_an_event_out_of_place_for_which_the_chain_has_no_reason_stops_the_mirror(fresh: Fresh) -> None:
    ground, target = fresh
    branches = Branches(ground)
    ground.node.start(Fault("short_range", extent=0))
    with mirrored(ground, target) as writer:
        branches.bury()
        read_whole(writer)
        branches.mine("settle", 0)
        before = contents(writer.engine)
        for _ in range(2):
            with pytest.raises(EventOutOfPlace):
                read_whole(writer)
        assert contents(writer.engine) == before


def test_the_header_of_another_block_is_refused(fresh: Fresh) -> None:
    ground, _ = fresh
    chain = Chain(ground.node.url, attempts=1)
    first = chain.block(1)
    ground.node.start(Fault("stale"))
    with pytest.raises(NodeError, match="block 1"):
        chain.block(2)
    ground.node.stop()
    assert first != chain.block(2) != None  # noqa: E711


# -------------------------------------------------------------------------------------------------- fetching


@pytest.mark.parametrize("turn", range(len(WORDINGS)))
def test_a_refused_range_is_halved_and_learned_whatever_the_words(ground: Ground, turn: int) -> None:
    ground.reset()
    chain, last = patient(ground.node.url), Branches(ground).start
    fetcher = Fetcher(chain, list(followed(ground.world.deployment)))
    try:
        ground.node.counts["narrow"] = turn
        ground.node.start(Fault("narrow", extent=5))
        found = fetcher.range(1, last)
        assert found.last.number == 4  # 32, 16, 8, 4
        refused = ground.node.counts["narrow"]
        assert refused == turn + 3
        number, blocks = found.last.number, list(found.blocks)
        while number < last:
            found = fetcher.range(number + 1, last)
            assert found.first.number == number + 1
            number = found.last.number
            blocks += found.blocks
        assert ground.node.counts["narrow"] == refused
        ground.node.stop()
        whole = Fetcher(chain, list(followed(ground.world.deployment)), span=1000)
        every = whole.range(1, last).blocks
        assert [(b.number, b.hash, logs) for b, logs in every] == [(b.number, b.hash, logs) for b, logs in blocks]
        whole.close()
    finally:
        fetcher.close()
        ground.reset()


def test_a_single_block_that_is_refused_is_an_error(ground: Ground) -> None:
    ground.reset()
    fetcher = Fetcher(patient(ground.node.url), list(followed(ground.world.deployment)))
    ground.node.start(Fault("narrow", extent=0))
    with pytest.raises(RangeRefused):
        fetcher.range(1, 40)
    fetcher.close()
    ground.reset()


@pytest.mark.parametrize("fault", ["silent", "busy", "broken"])
def test_a_node_that_was_down_once_is_asked_for_as_much_again(ground: Ground, fault: str) -> None:
    """What a node answers for is learned from its refusals, not from its absence."""
    ground.reset()
    chain = Chain(ground.node.url, attempts=1)
    fetcher = Fetcher(chain, list(followed(ground.world.deployment)), span=8)
    ground.node.start(Fault(fault, period=1000))
    first = fetcher.range(1, 40)
    assert ground.node.counts[fault] > 0
    assert first.last.number == 4
    number, widest = 4, 0
    while number < 40:
        found = fetcher.range(number + 1, 40)
        number, widest = found.last.number, max(widest, found.last.number - number)
    assert widest > 8
    fetcher.close()
    ground.reset()


@pytest.mark.parametrize("receipts", [True, False])
def test_nothing_where_the_bloom_filter_names_us_is_asked_again(ground: Ground, receipts: bool) -> None:
    """By the block's receipts, or where there is no such method, once more."""
    branches = Branches(ground)
    branches.mine("settle many", 0)
    fetcher = Fetcher(patient(ground.node.url), list(followed(ground.world.deployment)))
    at = branches.height
    whole = fetcher.near(at, at)
    assert whole is not None
    assert len(whole.blocks[0][1]) > 1
    before = ground.node.counts["short_hash"]
    if not receipts:
        ground.node.start(Fault("no_receipts"))
    ground.node.start(Fault("short_hash", period=1 if receipts else 2, extent=0))
    assert fetcher.near(at, at) == whole
    assert ground.node.counts["short_hash"] == before + 1
    fetcher.close()
    ground.reset()


def test_addresses_with_capitals_are_the_same_addresses(fresh: Fresh) -> None:
    ground, target = fresh
    Branches(ground).mine("settle many", 0)
    ground.node.start(Fault("mixed_case"))
    ground.node.start(Fault("short_hash", extent=0))  # receipts, too
    with mirrored(ground, target) as writer:
        read_whole(writer)
        assert ground.node.counts["mixed_case"] > 0
        ground.same_as_rebuilt(writer.engine)


# --------------------------------------------------------------------------------------------------- writers


def test_a_second_writer_stands_by_and_takes_over_from_one_that_is_silent(fresh: Fresh) -> None:
    ground, target = fresh
    branches = Branches(ground)
    now = [1_000_000.0]
    with mirrored(ground, target, clock=lambda: now[0]) as a, mirrored(ground, target, clock=lambda: now[0]) as b:
        a.step()
        held = cursor_of(b.engine)
        now[0] += LEASE - 1
        with pytest.raises(StandingBy):
            b.step()
        assert cursor_of(b.engine) == held
        now[0] += 1
        assert b.step().applied > 0
        before = cursor_of(a.engine)
        assert before.writer == b.name
        branches.mine("settle", 0)
        for _ in range(2):
            with pytest.raises(StandingBy):
                a.step()
        assert cursor_of(a.engine) == before
        read_whole(b)
        ground.same_as_rebuilt(b.engine)


def test_a_writer_that_was_overtaken_while_it_read_changes_nothing(fresh: Fresh) -> None:
    """It read the cursor, another writer wrote, and it comes to write: the nonce tells."""
    ground, target = fresh
    now = [1_000_000.0]
    with mirrored(ground, target, clock=lambda: now[0]) as a, mirrored(ground, target, clock=lambda: now[0]) as b:
        a.step()
        now[0] += LEASE
        known = cursor_of(a.engine)
        found = a._fetcher.range(known.number + 1, known.number + 2)
        b.step()
        before, rows = cursor_of(b.engine), contents(b.engine)
        with pytest.raises(StandingBy):
            a._apply(known, found, found.last, None, None)
        assert (cursor_of(b.engine), contents(b.engine)) == (before, rows)


# ------------------------------------------------------------------------------------------------- finality


@dataclass
class Rewound:
    """A chain that was rewound below what was final, and how it was before."""

    ground: Ground
    target: Target
    processes: Processes
    folder: Path
    whole: str  # its state
    shorter: str  # the same without the last blocks, which were not final

    def bring_back(self, state: str) -> Chain:
        """The same URL answers for the chain as it was."""
        before = Chain(self.processes.anvil(self.folder / "before.json", slots=SLOTS))
        before.rpc("anvil_loadState", state)
        self.ground.node.upstream = before.url
        return before


@pytest.fixture
def rewound(fresh: Fresh, tmp_path: Path) -> Iterator[Rewound]:
    """The mirror stands at the end of a chain that is not there any more; all of it but the window was final."""
    ground, target = fresh
    branches = Branches(ground)
    for what in ("settle", "deposit", "settle many"):
        branches.mine(what, 0)
    branches.bury()
    shorter = ground.world.chain.rpc("anvil_dumpState")
    for _ in range(2):
        branches.mine("nothing", 0)
    with mirrored(ground, target) as writer:
        read_whole(writer)
        assert cursor_of(writer.engine).final > branches.start
    whole = ground.world.chain.rpc("anvil_dumpState")
    ground.reset()
    again = Branches(ground)
    for _ in range(2):
        again.mine("nothing", 0)
    with Processes(tmp_path / "logs") as processes:
        yield Rewound(ground, target, processes, tmp_path, whole, shorter)


@pytest.mark.parametrize("longer", [False, True])
def test_a_chain_that_takes_back_what_was_final_is_not_followed(rewound: Rewound, longer: bool) -> None:
    ground, target = rewound.ground, rewound.target
    if longer:
        for _ in range(30):
            ground.world.chain.rpc("evm_mine")
    engine = open_mirror(target, ground.world.deployment)
    rows = contents(engine)
    for _ in range(3):  # a restart each
        with mirrored(ground, target) as writer, pytest.raises(FinalityViolated):
            writer.step()
        found = cursor_of(engine)
        assert found.violated is not None
        assert found.violated["stored"] == found.final_hash != found.violated["onChain"]
        with mirrored(ground, target) as writer:
            assert not writer.second_pass()
    assert contents(engine) == rows
    with engine.connect() as connection:
        id_ = ground.world.id(ground.terms[0])
        assert queries.authorization(connection, id_)["size"] == "3"
    engine.dispose()


def test_the_latch_opens_when_the_old_chain_is_back(rewound: Rewound) -> None:
    ground, target = rewound.ground, rewound.target
    with mirrored(ground, target) as writer:
        for _ in range(2):
            with pytest.raises(FinalityViolated):
                writer.step()
        before = rewound.bring_back(rewound.whole)
        read_whole(writer)
        assert cursor_of(writer.engine).violated is None
        before.rpc("evm_mine")
        read_whole(writer)
        ground.same_as_rebuilt(writer.engine)


def test_the_second_pass_does_not_repair_by_another_chain(rewound: Rewound) -> None:
    """It may come to read when the chain was exchanged since the last step; that is not a short answer."""
    ground, target = rewound.ground, rewound.target
    for _ in range(30):
        ground.world.chain.rpc("evm_mine")
    with mirrored(ground, target) as writer:
        rows = contents(writer.engine)
        second_passes(writer)
        assert cursor_of(writer.engine).differences == 0
        assert contents(writer.engine) == rows
        with pytest.raises(FinalityViolated):
            writer.step()


def test_catching_up_after_the_latch_is_at_the_head_of_the_chain(rewound: Rewound) -> None:
    """Final blocks are back, and those after them are others than before."""
    ground, target = rewound.ground, rewound.target
    with mirrored(ground, target) as writer, pytest.raises(FinalityViolated):
        writer.step()
    before = rewound.bring_back(rewound.shorter)
    for _ in range(2):
        before.rpc("evm_mine")
    engine = open_mirror(target, ground.world.deployment)
    catch_up(engine, patient(ground.node.url), ground.world.deployment)
    tip = before.block("latest")
    assert tip is not None
    assert cursor_of(engine).hash == tip.hash
    engine.dispose()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        threading.Event().wait(0.02)


def test_another_chain_under_the_same_url_is_refused(fresh: Fresh, tmp_path: Path) -> None:
    ground, target = fresh
    engine = open_mirror(target, ground.world.deployment)
    catch_up(engine, ground.world.chain, ground.world.deployment)
    rows = contents(engine)
    with Processes(tmp_path / "logs") as processes:
        other = processes.anvil(tmp_path / "other.json")
        for _ in range(3):
            Chain(other).rpc("evm_mine")
        ground.node.upstream = other
        follower = Follower(engine, Chain(ground.node.url, attempts=1), ground.world.deployment, 0.02)
        follower.start()
        until(lambda: follower.state == "stopped")
        assert isinstance(follower.problem, WrongChain)
        assert contents(engine) == rows
        ground.node.upstream = ground.world.chain.url
        until(follower.well)
        follower.stop()
    assert contents(engine) == rows
    engine.dispose()
