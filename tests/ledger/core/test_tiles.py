"""Compact ranges and tiles give the roots and proofs of the whole tree."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.core import tiles
from ledger.core.errors import InputInvalid
from ledger.core.merkle import EMPTY_ROOT, CompactRange, Tree, verify_consistency, verify_inclusion
from ledger.core.tiles import HASH, WIDTH, TiledTree


def leaf(n: int) -> bytes:
    return hashlib.sha256(b"leaf %d" % n).digest()


LARGE = Tree(leaf(n) for n in range(70_000))


def tiled(size: int, asked: list[tuple[int, int]] | None = None) -> TiledTree:
    """The first leaves of the large tree in tiles, each level made from the full tiles below it."""
    rows = [[LARGE.leaf(n) for n in range(size)]]
    while len(rows[-1]) >= WIDTH:
        below = rows[-1]
        full = [b"".join(below[at : at + WIDTH]) for at in range(0, len(below) - WIDTH + 1, WIDTH)]
        rows.append([tiles.subtree_root(hashes) for hashes in full])
    assert [len(row) for row in rows if row] == tiles.widths(size)

    def read(level: int, index: int) -> bytes:
        if asked is not None:
            asked.append((level, index))
        return b"".join(rows[level][index * WIDTH : (index + 1) * WIDTH])

    return TiledTree(size, read)


@given(st.integers(0, 600))
def test_a_compact_range_has_the_root_and_goes_on_from_what_was_kept(size: int) -> None:
    grown = CompactRange()
    for n in range(size):
        grown = CompactRange(grown.size, grown.nodes)  # as it is stored and read again
        grown.append(LARGE.leaf(n))
    assert grown.root() == LARGE.root(size)
    assert len(grown.nodes) == size.bit_count()


@pytest.mark.parametrize(("size", "nodes"), [(1, []), (2, [b"x" * 32] * 2), (3, [b"x" * 31] * 2), (-1, [])])
def test_a_compact_range_that_is_none_is_refused(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="not made up of"):
        CompactRange(size, nodes)


def test_the_empty_range_has_the_empty_root() -> None:
    assert CompactRange().root() == EMPTY_ROOT


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_tiles_give_the_proofs_of_the_whole_tree(data: st.DataObject) -> None:
    size = data.draw(st.one_of(st.integers(1, 70_000), st.sampled_from([255, 256, 257, 65_535, 65_536, 65_537])))
    tree = tiled(size)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    assert tree.root() == LARGE.root(size)
    assert tree.inclusion(index) == LARGE.inclusion(index, size)
    assert tree.consistency(first) == LARGE.consistency(first, size)
    assert verify_inclusion(LARGE.root(size), size, index, LARGE.leaf(index), tree.inclusion(index))
    assert verify_consistency(first, LARGE.root(first), size, LARGE.root(size), tree.consistency(first))


def test_a_proof_reads_a_handful_of_tiles() -> None:
    asked: list[tuple[int, int]] = []
    tree = tiled(70_000, asked)
    tree.inclusion(12_345)
    assert len(asked) == len(set(asked)) <= 6


def test_a_tile_that_is_too_short_is_no_tile() -> None:
    tree = TiledTree(300, lambda level, index: LARGE.leaf(0) * 17)
    with pytest.raises(ValueError, match="too short"):
        tree.inclusion(200)


def test_tiles_are_called_as_c2sp_calls_them() -> None:
    """The examples of C2SP tlog-tiles."""
    assert tiles.tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tiles.tile_path(1, 0, 17) == "tile/1/000.p/17"
    assert tiles.entries_path(273, 112) == "tile/entries/273.p/112"
    assert tiles.bundle([b"a", b"bc"]) == b"\x00\x01a\x00\x02bc"


@given(st.integers(0, 10**12))
def test_a_tiles_name_is_read_as_it_is_written(number: int) -> None:
    name = tiles.tile_path(0, number).removeprefix("tile/0/")
    assert tiles.parse_groups(name) == number


@pytest.mark.parametrize(
    "text", ["", "1", "0001", "x000/001", "001/002", "x1/002", "²²²", "x001x002", "00a", "x001//002"]
)
def test_a_name_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid):
        tiles.parse_groups(text)


def test_a_tile_is_eight_kibibytes() -> None:
    assert WIDTH * HASH == 8192
