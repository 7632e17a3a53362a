"""A usage log on either database: one tree, however it was written, by however many."""

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from ledger.core.database import Target, writing
from ledger.core.errors import Conflict, InputInvalid, NotFound, VerificationFailed
from ledger.core.ids import Hash32, hash_of
from ledger.core.merkle import Tree, verify_inclusion
from ledger.core.usage_leaf import LEAF_BYTES, Kind, UsageLeaf
from ledger.metering import schema
from ledger.metering.log import (
    Entry,
    LogMovedOn,
    UsageLog,
    insert_entry,
    open_usage,
    read_entries,
    read_tile,
    served_before,
    tree_of,
)
from tests.world import digest

ID = digest("authorization")


@pytest.fixture
def usage(database: Target) -> Iterator[Engine]:
    engine = open_usage(database)
    yield engine
    engine.dispose()


def entries(log: UsageLog, count: int, name: str = "use") -> list[Entry]:
    """The next so many, with units that tell them apart."""
    made: list[Entry] = []
    for _ in range(count):
        after = made[-1].leaf if made else log.last
        index = after.index + 1 if after else 0
        leaf = log.next_leaf(
            use_id_hash=digest(f"{name} {index}"),
            units=(1, index % 7, 0, 0),
            kind=Kind.REFUSAL if index % 50 == 49 else Kind.USE,
            purpose=index % 3,
            modality=1,
            version=digest("version"),
            payload_hash=digest(f"payload {index}"),
            event_time=1_000 + index,
            now=1_000 + index // 3,
            after=after,
        )
        made.append(Entry(leaf, digest("request"), bytes(16), b"{}", "0x" + "ab" * 65))
    return made


def whole(usage: Engine, id_: Hash32 = ID) -> Tree:
    with usage.connect() as connection:
        return Tree(entry.leaf.hash() for entry in read_entries(connection, id_))


def test_a_log_written_in_pieces_and_read_again_is_one_tree(usage: Engine) -> None:
    some = random.Random(7)
    sizes = [1, 255, 1, 256, 2, *(some.randrange(1, 700) for _ in range(5))]
    for count in sizes:
        log = UsageLog(usage, ID)  # as after a restart
        log.append_all(entries(log, count))
        log.append(entries(log, 1)[0])
    again, tree = UsageLog(usage, ID), whole(usage)
    size = len(again)
    assert size == len(tree) == sum(sizes) + len(sizes)
    assert again.tree.root() == tree.root() == log.tree.root()
    for at in sorted({1, 255, 256, 257, 512, size - 1, size, *(some.randrange(1, size) for _ in range(10))}):
        assert again.tree.root(at) == tree.root(at)
        assert again.head(at).root == hash_of(tree.root(at))
        assert (again.head(at).size, again.head(at).units[0]) == (at, at)
        index = some.randrange(at)
        proof = again.tree.inclusion(index, at)
        assert proof == tree.inclusion(index, at)
        assert verify_inclusion(tree.root(at), at, index, tree.leaf(index), proof)
        assert again.tree.consistency(index, at) == tree.consistency(index, at)
    assert again.last == log.last


def test_tiles_are_those_of_the_log_at_any_of_its_sizes(usage: Engine) -> None:
    log = UsageLog(usage, ID)
    log.append_all(entries(log, 600))
    tree = whole(usage)
    with usage.connect() as connection:
        for size in (1, 255, 256, 300, 512, 600):
            hashes = b"".join(read_tile(connection, ID, 0, index, size) for index in range(3))
            assert hashes == b"".join(tree.leaf(n) for n in range(size))
            assert read_tile(connection, ID, 1, 0, size) == b"".join(tree.node(8, n) for n in range(size // 256))


def test_a_copy_has_the_tree_of_its_log(usage: Engine, tmp_path: Path) -> None:
    """A consumer keeps leaves as they come, and no tiles."""
    log = UsageLog(usage, ID)
    made = entries(log, 600)
    log.append_all(made)
    copy = open_usage(tmp_path / "copy.db")
    with writing(copy) as connection:
        for entry in reversed(made[:-1]):
            insert_entry(connection, entry)
    with copy.connect() as theirs, usage.connect() as mine:
        for size in (1, 256, 599):
            assert tree_of(theirs, ID, size).root() == tree_of(mine, ID, size).root() == log.tree.root(size)
            assert tree_of(theirs, ID, size).consistency(size // 2) == log.tree.consistency(size // 2, size)
        with pytest.raises(NotFound, match="only 599"):
            tree_of(theirs, ID, 600)
    copy.dispose()


def test_many_writers_make_no_fork(usage: Engine) -> None:
    """Each decides on what it knows; who was too late reads again and decides anew."""
    late = [0]

    def write(name: str) -> None:
        log = UsageLog(usage, ID)
        for number in range(25):
            while True:
                made = entries(log, 1 + number % 3, name)
                try:
                    log.append_all(made)
                    break
                except LogMovedOn:
                    late[0] += 1
                    log = UsageLog(usage, ID)

    writers = [threading.Thread(target=write, args=(f"writer {n}",)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log, tree = UsageLog(usage, ID), whole(usage)
    assert len(log) == 4 * sum(1 + number % 3 for number in range(25))
    assert log.tree.root() == tree.root()
    assert late[0] > 0
    with usage.connect() as connection:
        leaves = [entry.leaf for entry in read_entries(connection, ID)]
    assert [leaf.index for leaf in leaves] == list(range(len(log)))
    assert [leaf.cum_units[0] for leaf in leaves] == list(range(1, len(log) + 1))


def test_what_is_not_next_is_refused_and_leaves_nothing(usage: Engine) -> None:
    log = UsageLog(usage, ID)
    first = entries(log, 3)
    log.append_all(first)
    for wrong in (first, entries(log, 2)[1:], [*entries(log, 1), first[0]]):
        with pytest.raises(Conflict):
            log.append_all(wrong)
    assert len(UsageLog(usage, ID)) == len(log) == 3


def test_a_use_id_that_is_taken_takes_the_whole_batch_back(usage: Engine) -> None:
    log = UsageLog(usage, ID)
    log.append_all(entries(log, 300))
    made = entries(log, 10)
    twice = UsageLeaf.decode(
        made[4].leaf.encode()[:40] + bytes.fromhex(digest("use 0")[2:]) + made[4].leaf.encode()[72:]
    )
    made[4] = Entry(twice, made[4].request_hash, made[4].salt, made[4].written, made[4].signature)
    with pytest.raises(Exception, match=r"(?i)unique"):
        log.append_all(made)
    assert (len(log), len(UsageLog(usage, ID))) == (300, 300)
    log.append_all(entries(log, 10))
    assert UsageLog(usage, ID).tree.root() == whole(usage).root()


def test_a_lost_leaf_is_noticed_when_the_log_is_read(usage: Engine) -> None:
    log = UsageLog(usage, ID)
    log.append_all(entries(log, 5))
    for index in (4, 2):
        with usage.begin() as connection:
            connection.execute(schema.leaves.delete().where(schema.leaves.c.index == index))
        with pytest.raises(VerificationFailed, match="gap"):
            UsageLog(usage, ID)


def test_logs_of_two_authorizations_do_not_meet(usage: Engine) -> None:
    other = digest("another")
    mine, theirs = UsageLog(usage, ID), UsageLog(usage, other)
    for _ in range(3):
        mine.append_all(entries(mine, 130))
        theirs.append_all(entries(theirs, 90))
    assert (len(UsageLog(usage, ID)), len(UsageLog(usage, other))) == (390, 270)
    assert UsageLog(usage, other).tree.root() == whole(usage, other).root()
    with usage.connect() as connection:
        assert connection.execute(select(schema.logs.c.size).order_by(schema.logs.c.size)).scalars().all() == [270, 390]


def test_a_time_is_found_by_halving(usage: Engine) -> None:
    log = UsageLog(usage, ID)
    log.append_all(entries(log, 400))
    with usage.connect() as connection:
        times = [entry.leaf.served_at for entry in read_entries(connection, ID)]
        for seconds in (0, 999, 1_000, 1_001, 1_050, times[-1], times[-1] + 1):
            assert served_before(connection, ID, seconds) == sum(time < seconds for time in times)
        assert served_before(connection, digest("nobody"), 5) == 0
    assert log.size_at(1_000) == sum(time <= 1_000 for time in times)


@given(st.data())
def test_a_leaf_is_read_as_it_was_written(data: st.DataObject) -> None:
    def number(bits: int) -> int:
        return data.draw(st.integers(0, (1 << bits) - 1))

    def id_() -> Hash32:
        return hash_of(hashlib.sha256(data.draw(st.binary(max_size=4))).digest())

    leaf = UsageLeaf(
        authorization_id=id_(),
        index=number(64),
        use_id_hash=id_(),
        units=(number(64), number(64), number(64), number(64)),
        cum_units=(number(64), number(64), number(64), number(64)),
        cum_credits=number(128),
        event_time=number(40),
        served_at=number(40),
        kind=number(8),
        purpose=number(8),
        modality=number(8),
        version=id_(),
        payload_hash=id_(),
    )
    assert UsageLeaf.decode(leaf.encode()) == leaf


@pytest.mark.parametrize("size", [0, LEAF_BYTES - 1, LEAF_BYTES + 1])
def test_bytes_that_are_no_leaf_are_refused(size: int) -> None:
    with pytest.raises(InputInvalid):
        UsageLeaf.decode(bytes(size))


def test_what_a_writer_keeps_does_not_grow_with_the_log(usage: Engine) -> None:
    log = UsageLog(usage, ID)
    for count in (10, 300, 3_000):
        log.append_all(entries(log, count))
        again = UsageLog(usage, ID)
        for view in (log, again):
            assert len(view._range.nodes) <= len(view).bit_length()
            assert view._row is not None
            assert len(view._row) == len(view) % 256


def test_a_log_that_others_wrote_is_seen_when_it_is_held(usage: Engine) -> None:
    """Two views take turns, within a tile and over its end."""
    mine, theirs = UsageLog(usage, ID), UsageLog(usage, ID)
    for turn in range(8):
        for log in (mine, theirs):
            with writing(usage) as connection:
                assert log.hold(connection) == (turn > 0 or log is theirs)
                grown = log.write(connection, entries(log, 70, f"turn {turn}"))
            log.take(grown)
    assert len(theirs) == 8 * 2 * 70
    assert UsageLog(usage, ID).tree.root() == theirs.tree.root() == whole(usage).root()
    with writing(usage) as connection:
        assert mine.hold(connection)
        assert not mine.hold(connection)
    assert (mine.last, mine.root()) == (theirs.last, theirs.root())
