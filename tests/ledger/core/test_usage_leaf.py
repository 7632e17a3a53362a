"""A leaf's bytes: every field at its place, of any value that fits, and no others."""

import struct
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.errors import InputInvalid
from ledger.core.ids import hash_of, raw
from ledger.core.usage_leaf import LEAF_BYTES, UsageLeaf

IDS = st.binary(min_size=32, max_size=32).map(hash_of)


def whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1) | st.sampled_from([0, 2**bits - 1])


LEAVES = st.builds(
    UsageLeaf,
    authorization_id=IDS,
    index=whole(64),
    use_id_hash=IDS,
    units=st.tuples(*[whole(64)] * 4),
    cum_units=st.tuples(*[whole(64)] * 4),
    cum_credits=whole(128),
    event_time=whole(40),
    served_at=whole(40),
    kind=whole(8),
    purpose=whole(8),
    modality=whole(8),
    version=IDS,
    payload_hash=IDS,
)
ZERO = UsageLeaf.decode(bytes(LEAF_BYTES))


@given(LEAVES)
def test_a_leaf_is_its_fields_one_after_another(leaf: UsageLeaf) -> None:
    numbers = [(leaf.cum_credits, 16), (leaf.event_time, 5), (leaf.served_at, 5)]
    numbers += [(leaf.kind, 1), (leaf.purpose, 1), (leaf.modality, 1)]
    parts = [raw(leaf.authorization_id), leaf.index.to_bytes(8, "big"), raw(leaf.use_id_hash)]
    parts += [unit.to_bytes(8, "big") for unit in leaf.units + leaf.cum_units]
    parts += [number.to_bytes(size, "big") for number, size in numbers]
    parts += [raw(leaf.version), raw(leaf.payload_hash)]
    assert leaf.encode() == b"".join(parts)
    assert leaf.hash() == sha256(b"\0" + leaf.encode()).digest()


@given(LEAVES)
def test_a_leaf_is_read_as_it_was_written(leaf: UsageLeaf) -> None:
    assert UsageLeaf.decode(leaf.encode()) == leaf


@given(st.binary(min_size=LEAF_BYTES, max_size=LEAF_BYTES))
def test_any_229_bytes_are_one_leaf(data: bytes) -> None:
    assert UsageLeaf.decode(data).encode() == data
    assert UsageLeaf.decode(memoryview(data)) == UsageLeaf.decode(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 228, 230])
def test_more_or_fewer_bytes_are_no_leaf(size: int) -> None:
    with pytest.raises(InputInvalid, match=f"229 bytes, got {size}"):
        UsageLeaf.decode(bytes(size))


@pytest.mark.parametrize(
    ("field", "bits"), [("index", 64), ("cum_credits", 128), ("event_time", 40), ("served_at", 40)]
)
def test_a_number_that_does_not_fit_is_never_written(field: str, bits: int) -> None:
    for number in (-1, 2**bits):
        wrong: Any = {field: number}
        with pytest.raises(OverflowError):
            replace(ZERO, **wrong).encode()


@pytest.mark.parametrize("field", ["kind", "purpose", "modality"])
@pytest.mark.parametrize("code", [-1, 256])
def test_a_code_that_does_not_fit_is_never_written(field: str, code: int) -> None:
    wrong: Any = {field: code}
    with pytest.raises(ValueError, match="range"):
        replace(ZERO, **wrong).encode()


@pytest.mark.parametrize("field", ["units", "cum_units"])
@pytest.mark.parametrize("units", [(0, 0, 0, -1), (2**64, 0, 0, 0), (0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 1.5)])
def test_units_that_do_not_fit_are_never_written(field: str, units: Any) -> None:
    with pytest.raises(struct.error):
        replace(ZERO, **{field: units}).encode()
