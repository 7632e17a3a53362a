"""The journal: whoever reads it, in pieces and across reorgs, ends with the mirror's events and no others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ledger.core.database import Target, writing
from ledger.core.errors import InputInvalid
from ledger.mirror import journal, queries, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.journal import BEGINNING, Offset, OffsetUnknown, Wanted
from ledger.mirror.store import open_mirror
from ledger.mirror.work import rewind
from tests.listener import Listener, places
from tests.world import World


@pytest.fixture
def followed(own_world: World, database: Target) -> Iterator[tuple[World, Engine]]:
    mirror = open_mirror(database, own_world.deployment)
    catch_up(mirror, own_world.chain, own_world.deployment)
    yield own_world, mirror
    mirror.dispose()


def test_listeners_of_any_pace_end_with_the_mirrors_events(followed: tuple[World, Engine]) -> None:
    world, mirror = followed
    terms = world.open(5_000_000)
    quick, slow, late = Listener(), Listener(limit=1), Listener(limit=1000)
    quick.listen(mirror)
    for n in range(1, 7):
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
        catch_up(mirror, world.chain, world.deployment)
        quick.listen(mirror)
        if n == 3:
            slow.listen(mirror)
    world.chain.rpc("anvil_reorg", 8, [])
    world.chain.rpc("evm_mine")
    catch_up(mirror, world.chain, world.deployment)
    world.fund(5)
    catch_up(mirror, world.chain, world.deployment)
    for listener in (quick, slow, late):
        listener.listen(mirror)
        assert listener.has == places(mirror)
    assert quick.retractions == late.retractions > 0
    assert slow.retractions > 0
    world.chain.rpc("anvil_mine", hex(80))
    catch_up(mirror, world.chain, world.deployment)
    quick.listen(mirror)
    assert quick.has == places(mirror)


def test_who_listens_to_final_events_only_never_hears_of_a_reorg(followed: tuple[World, Engine]) -> None:
    world, mirror = followed
    careful = Listener(final=True)
    terms = world.open(5_000_000)
    for n in range(1, 5):
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
        catch_up(mirror, world.chain, world.deployment)
        careful.listen(mirror)
        with mirror.connect() as connection:
            assert careful.has == places(mirror, queries.cursor(connection).final)
    before = len(careful.has)
    world.chain.rpc("anvil_reorg", 4, [])
    world.chain.rpc("anvil_mine", hex(70))
    catch_up(mirror, world.chain, world.deployment)
    careful.listen(mirror)
    assert careful.has == places(mirror)
    assert (careful.retractions, len(careful.has) > before) == (0, True)


def test_a_repair_of_final_blocks_is_told_to_the_careful_as_well(followed: tuple[World, Engine]) -> None:
    world, mirror = followed
    world.chain.rpc("anvil_mine", hex(80))
    catch_up(mirror, world.chain, world.deployment)
    careful, swift = Listener(final=True), Listener()
    careful.listen(mirror)
    swift.listen(mirror)
    assert careful.has == swift.has == places(mirror)
    with writing(mirror) as connection:
        found = queries.cursor(connection)
        back = found.number - 90
        parent = world.chain.block(back)
        assert parent is not None
        rewind(connection, back, found.final)
        connection.execute(
            schema.cursor.update().values(
                number=back, hash=parent.hash, digest=queries.digest_at(connection, world.deployment, back), final=back
            )
        )
    catch_up(mirror, world.chain, world.deployment)
    for listener in (careful, swift, Listener(final=True)):
        listener.listen(mirror)
        assert listener.has == places(mirror)
        assert listener.retractions > 0


def test_what_a_reorg_took_away_is_still_there_to_read(followed: tuple[World, Engine]) -> None:
    world, mirror = followed
    terms = world.open(5_000_000)
    world.settle(terms, 9, (9, 216, 0, 0))
    catch_up(mirror, world.chain, world.deployment)
    with mirror.connect() as connection:
        start = journal.before_block(connection, queries.cursor(connection).number - 3)
    world.chain.rpc("anvil_reorg", 3, [])
    world.chain.rpc("evm_mine")
    catch_up(mirror, world.chain, world.deployment)
    with mirror.connect() as connection:
        found = journal.read(connection, start, 100, Wanted(event="Settled"))
    assert [told.retracted for told in found.events] == [False, True]
    assert found.events[0].row == found.events[1].row
    assert found.events[0].row["args"]["head"]["size"] == 9


def test_events_are_chosen_by_contract_name_and_what_they_are_about(followed: tuple[World, Engine]) -> None:
    world, mirror = followed
    terms, other = world.open(5_000_000), world.open(5_000_000)
    world.settle(terms, 9, (9, 216, 0, 0))
    catch_up(mirror, world.chain, world.deployment)

    def names(wanted: Wanted) -> list[str]:
        with mirror.connect() as connection:
            return [told.row["event"] for told in journal.read(connection, BEGINNING, 1000, wanted).events]

    everything = names(Wanted())
    assert names(Wanted(contract="UsageLedger", event="Opened")) == ["Opened", "Opened"]
    assert names(Wanted(about=world.id(terms)))[-1] == "Settled"
    assert "Settled" not in names(Wanted(about=world.id(other)))
    for party in (world.consumer.address, world.provider.address, world.space, world.product):
        found = names(Wanted(about=party))
        assert found.count("Settled") == 1
        assert found.count("Opened") == 2
    assert names(Wanted(about=world.stranger.address)) == []
    assert "SpaceCreated" in everything
    spaces = ["SpaceCreated", "ParticipantAdmitted", "ParticipantAdmitted"]
    assert names(Wanted(contract="SpaceRegistry")) == spaces


def test_an_offset_is_found_again_in_a_rebuilt_mirror(followed: tuple[World, Engine], tmp_path: Path) -> None:
    world, mirror = followed
    world.open(5_000_000)
    catch_up(mirror, world.chain, world.deployment)
    world.chain.rpc("anvil_reorg", 1, [])
    world.fund(3)
    catch_up(mirror, world.chain, world.deployment)
    listener = Listener()
    listener.listen(mirror)
    rebuilt = open_mirror(tmp_path / "rebuilt.db", world.deployment)
    catch_up(rebuilt, world.chain, world.deployment)
    with rebuilt.connect() as connection:
        assert journal.end(connection) != listener.offset
        found = journal.read(connection, listener.offset, 10)
    assert (found.events, found.more) == ([], False)
    world.fund(4)
    catch_up(rebuilt, world.chain, world.deployment)
    listener.listen(rebuilt)
    assert listener.has == places(rebuilt)
    rebuilt.dispose()


def test_an_offset_of_another_chain_is_refused(followed: tuple[World, Engine]) -> None:
    _, mirror = followed
    with mirror.connect() as connection, pytest.raises(OffsetUnknown):
        journal.read(connection, Offset(3, 0, "0123456789abcdef"), 10)


@pytest.mark.parametrize("text", ["", "1", "1-2", "1-2-3", "-1-0-0123456789abcdef", "1-0-0123456789ABCDEF"])
def test_text_that_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid):
        Offset.parse(text)


def test_the_beginning_of_a_block_and_the_end_are_offsets(followed: tuple[World, Engine]) -> None:
    _, mirror = followed
    with mirror.connect() as connection:
        everything = journal.read(connection, BEGINNING, 1000).events
        for number in {told.row["block_number"] for told in everything}:
            start = journal.before_block(connection, number)
            found = journal.read(connection, start, 1000).events
            assert found == [told for told in everything if told.row["block_number"] >= number]
        assert journal.before_block(connection, 10**9) == journal.end(connection) == everything[-1].offset
