"""A tree in tiles (C2SP tlog-tiles): 256 hashes each, so that a log of any length is served as small files that never
change, and a proof reads a handful of them.

A tile of level L holds the roots of full subtrees of 256^L leaves, in order. A tile with all its 256 hashes is full and
final; the last one of a level may be partial.
"""

from collections.abc import Callable

from ledger.core.errors import InputInvalid
from ledger.core.merkle import Nodes, node_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT  # hashes a tile
HASH = 32  # bytes


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """`tile/1/x001/067` or, for the first 17 hashes, `tile/1/x001/067.p/17`."""
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{_groups(index)}{partial}"


def entries_path(index: int, width: int = WIDTH) -> str:
    """Of a bundle of leaves."""
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/entries/{_groups(index)}{partial}"


def _groups(index: int) -> str:
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    return "/".join(groups)


def parse_groups(text: str) -> int:
    """`x001/x234/067` → 1234067. Raises InputInvalid if it is not the one form of a number."""
    digits = text.replace("/", "").replace("x", "")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18 or _groups(int(digits)) != text:
        raise InputInvalid(f"a tile is called like x001/x234/067, not {text[:60]!r}", field="tile")
    return int(digits)


def bundle(leaves: list[bytes]) -> bytes:
    """Leaves as an entry bundle: each with its length before it, two bytes, big-endian."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def widths(size: int) -> list[int]:
    """How many hashes each level of a tree of `size` leaves has, from the leaves up."""
    found = []
    while size:
        found.append(size)
        size >>= HEIGHT
    return found


class TiledTree(Nodes):
    """A tree of `size` leaves over tiles; `read(level, index)` gives a tile's hashes, as many as there are.

    Tiles are asked for once. Raises ValueError where a tile has fewer hashes than the size needs.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._size, self._read = size, read
        self._tiles: dict[tuple[int, int], bytes] = {}

    def __len__(self) -> int:
        return self._size

    def node(self, level: int, index: int) -> bytes:
        tile_level, rest = divmod(level, HEIGHT)
        first = index << rest  # of the hashes of that tile level
        tile, place = divmod(first, WIDTH)
        if (tile_level, tile) not in self._tiles:
            self._tiles[tile_level, tile] = self._read(tile_level, tile)
        data = self._tiles[tile_level, tile][place * HASH : (place + (1 << rest)) * HASH]
        if len(data) != HASH << rest:
            raise ValueError(f"tile {tile_path(tile_level, tile)} is too short for a tree of {self._size}")
        return subtree_root(data)


def subtree_root(hashes: bytes) -> bytes:
    """What a full tile adds to the tile above it."""
    row = [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]
