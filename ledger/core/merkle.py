"""RFC 9162 Merkle trees over SHA-256: roots, inclusion and consistency proofs, and their verification."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Section 2.1.1: SHA-256(0x00 ‖ data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Section 2.1.1: SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


class Nodes(ABC):
    """A tree whose full subtrees can be asked for: roots and proofs of any of its sizes follow."""

    @abstractmethod
    def __len__(self) -> int:
        """How many leaves there are."""

    @abstractmethod
    def node(self, level: int, index: int) -> bytes:
        """The root of the full subtree over leaves index·2^level to (index+1)·2^level."""

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves; of all by default.

        Raises:
            ValueError: the tree has fewer leaves.
        """
        size = self._checked(size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Section 2.1.3.1: PATH(index, D[size])."""
        size = self._checked(size)
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a tree of {size}")
        path = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, first: int, second: int | None = None) -> list[bytes]:
        """Section 2.1.4.1: PROOF(first, D[second]). Empty if `first` is 0 or equals `second`."""
        second = self._checked(second)
        if not 0 <= first <= second:
            raise ValueError(f"{first} leaves are not the start of {second}")
        if first in (0, second):
            return []
        path = []
        low, high = 0, second
        whole = True  # the part left of `first` is one the verifier knows
        while high != first:
            middle = low + _split(high - low)
            if first <= middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low = middle
                whole = False
        if not whole:
            path.append(self._hash(low, high))
        return path[::-1]

    def _hash(self, low: int, high: int) -> bytes:
        size = high - low
        if size & (size - 1) == 0:
            # Splits fall on powers of two, so `low` is a multiple of `size` and the subtree is full.
            level = size.bit_length() - 1
            return self.node(level, low >> level)
        middle = low + _split(size)
        return node_hash(self._hash(low, middle), self._hash(middle, high))

    def _checked(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise ValueError(f"the tree has {len(self)} leaves, not {size}")
        return size


class Tree(Nodes):
    """An append-only tree that keeps every full subtree: appending costs one hash on average, a proof O(log² n)."""

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for value in leaf_hashes:
            self.append(value)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, value: bytes) -> None:
        """Adds a leaf by its hash."""
        level = 0
        while True:
            nodes = self._levels[level]
            nodes.append(value)
            if len(nodes) % 2:
                return
            value = node_hash(nodes[-2], nodes[-1])
            level += 1
            if level == len(self._levels):
                self._levels.append([])

    def leaf(self, index: int) -> bytes:
        return self._levels[0][index]

    def node(self, level: int, index: int) -> bytes:
        return self._levels[level][index]


class CompactRange:
    """The full subtrees that make up a tree, largest first: all that is needed to go on and to know the root.

    Of a tree of any length that is at most 64 hashes.
    """

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """Raises ValueError if it is not one hash for each bit of the size."""
        if size < 0 or len(nodes) != size.bit_count() or any(len(node) != 32 for node in nodes):
            raise ValueError(f"a tree of {size} leaves is not made up of {len(nodes)} full subtrees")
        self.size = size
        self.nodes = list(nodes)

    def append(self, value: bytes) -> None:
        """Adds a leaf by its hash."""
        nodes, size = self.nodes, self.size
        while size & 1:
            value = node_hash(nodes.pop(), value)
            size >>= 1
        nodes.append(value)
        self.size += 1

    def root(self) -> bytes:
        if not self.nodes:
            return EMPTY_ROOT
        value = self.nodes[-1]
        for node in self.nodes[-2::-1]:
            value = node_hash(node, value)
        return value


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def verify_inclusion(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Section 2.1.3.2; `leaf` is the leaf's hash."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    return sn == 0 and r == root


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> bool:
    """Section 2.1.4.2. Every tree extends the empty one."""
    if not 0 <= size1 <= size2:
        return False
    if size1 == size2:
        return root1 == root2 and not proof
    if size1 == 0:
        return not proof
    whole = size1 & (size1 - 1) == 0
    if not proof:
        return False
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = root1 if whole else proof[0]
    for c in proof if whole else proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, c)
        fn >>= 1
        sn >>= 1
    return sn == 0 and fr == root1 and sr == root2
