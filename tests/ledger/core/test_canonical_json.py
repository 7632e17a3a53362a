"""The quick way of writing canonical JSON and the rfc8785 package agree on every byte and every refusal."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.core.hashing import canonical_json
from ledger.core.usage_leaf import Kind

LIMIT = 2**53


class Text(str):
    __slots__ = ()


class Colour(StrEnum):
    RED = "red"


EDGES = st.sampled_from(
    list('\x00\x08\x09\x0a\x0b\x0c\x0d\x1f "\\/<&\x7f\x80é\u2028\ud7ff\ud800\udfff\ue000\uffff𝄞\U0010ffff')
)
TEXTS = st.text(EDGES, max_size=8) | st.text(st.characters(exclude_categories=()), max_size=8) | st.text(max_size=80)
INTEGERS = st.integers() | st.integers(-3, 3).flatmap(lambda n: st.sampled_from([n, LIMIT + n, -LIMIT + n, 2**64 + n]))
OTHERS = [b"a", bytearray(b"a"), Decimal("1.5"), UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC), {1}, object, 1j]
FOREIGN = st.sampled_from([*OTHERS, Kind.USE, Text("a"), Colour.RED])
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS
NAMES = st.sampled_from(["a", "b", "A", "", "é", "\ue000", "𝄞"]) | TEXTS


def nested(scalars: st.SearchStrategy[Any], names: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(names, inner, max_size=5)
            | st.dictionaries(names, inner, max_size=2).map(OrderedDict)
        ),
        max_leaves=12,
    )


def outcome(write: Callable[[Any], bytes], value: Any) -> Any:
    try:
        return write(value)
    except Exception as problem:
        return type(problem), str(problem)


def same(value: Any) -> bool:
    return bool(outcome(canonical_json, value) == outcome(rfc8785.dumps, value))


@settings(max_examples=400, deadline=None)
@given(nested(SCALARS, NAMES))
def test_any_json_is_written_or_refused_as_rfc8785_does(value: Any) -> None:
    assert same(value)


EXACT = st.integers(-LIMIT + 1, LIMIT - 1) | st.sampled_from([-LIMIT + 1, LIMIT - 1])


@settings(max_examples=400, deadline=None)
@given(nested(st.none() | st.booleans() | EXACT | TEXTS, st.text("abAB_0\x00\x7f", max_size=4)))
def test_what_is_plain_is_written_or_refused_as_rfc8785_does(value: Any) -> None:
    assert same(value)


@pytest.mark.parametrize("half", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(half: str) -> None:
    for value in (half, [half], {"a": (1, half)}):
        with pytest.raises(rfc8785.CanonicalizationError, match="non-UTF-8"):
            canonical_json(value)
    assert same({half: 1})
    assert same([{"a": 1, half: 2}])


@settings(max_examples=200, deadline=None)
@given(nested(SCALARS | FOREIGN, NAMES | st.integers() | st.none() | st.sampled_from([Text("a"), b"a", Colour.RED])))
@example({1: 2})
@example({None: 1, "a": float("nan")})
@example({Text("b"): 1, "a": 2})
def test_what_is_no_json_is_refused_in_the_same_words(value: Any) -> None:
    assert same(value)


@pytest.mark.parametrize("number", [LIMIT, -LIMIT, 2**64, 10**30, float("nan"), float("inf"), -float("inf")])
def test_a_number_without_a_form_is_refused_wherever_it_stands(number: Any) -> None:
    for value in (number, [number], {"a": {"b": (number,)}}):
        with pytest.raises(rfc8785.CanonicalizationError):
            canonical_json(value)
        assert same(value)


def test_every_character_is_escaped_as_rfc8785_escapes_it() -> None:
    every = [chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n <= 0xDFFF]
    assert canonical_json("".join(every)) == rfc8785.dumps("".join(every))
    assert canonical_json(every[:0x300]) == rfc8785.dumps(every[:0x300])
    assert canonical_json(dict.fromkeys(every[:0x200], 1)) == rfc8785.dumps(dict.fromkeys(every[:0x200], 1))
    assert canonical_json(dict.fromkeys(every[:0x80], 1)) == rfc8785.dumps(dict.fromkeys(every[:0x80], 1))


def test_names_are_in_the_order_of_utf16() -> None:
    assert canonical_json({"\ue000": 1, "𝄞": 2, "b": 3, "B": 4}) == '{"B":4,"b":3,"𝄞":2,"\ue000":1}'.encode()


@pytest.mark.parametrize("deep", [1, 31, 32, 33, 34, 200])
def test_nesting_changes_nothing(deep: int) -> None:
    listed: Any = "x"
    named: Any = {}
    for _ in range(deep):
        listed, named = [listed], {"a": named, "b": 1.5 if deep == 34 else 1}
    assert same(listed)
    assert same(named)


def test_what_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(RecursionError):
        canonical_json(ring)
