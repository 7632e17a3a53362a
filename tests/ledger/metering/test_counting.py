"""What a response counts: the same for everybody who holds its bytes, or nothing."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.errors import InputInvalid
from ledger.core.parse import load_json
from ledger.metering.counting import (
    Counter,
    Delivered,
    NotCountable,
    count,
    parse_counter,
    parse_counters,
    parse_stated,
)

JSON, CSV, LINES = "application/json", "text/csv", "application/jsonl"
NAN, INFINITY = float("nan"), float("inf")


def counted(meter: str, body: bytes | str, media_type: str = JSON) -> int:
    content = body.encode() if isinstance(body, str) else body
    return count([parse_counter(meter)], Delivered(content, media_type))[0]


@pytest.mark.parametrize(
    ("meter", "body", "expected"),
    [
        ("calls", "anything", 1),
        ("bytes", "四字", 6),
        ("bytes", "", 0),
        ("rows", "[]", 0),
        ("rows", " [1, [2, 3], null] ", 3),
        ("rows", '{"columns": ["a"], "rows": [[1], [2]]}', 2),
        ("rows:/data/items", '{"data": {"items": [1, 2, 3]}}', 3),
        ("rows:/0/a~1b/m~0n", '[{"a/b": {"m~n": [1]}}]', 1),
        ("rows:/", '{"": [1, 2]}', 2),
        ("rows:/d", '{"\\u0064": [1, 2]}', 2),
        ("results", '{"results": [{}, {}]}', 2),
        ("results", "[1]", 1),
        ("hits", '{"hit": true}', 1),
        ("hits", '{"hit": false}', 0),
        ("hits", '{"hit": null}', 0),
        ("hits", "{}", 0),
        ("hits", "[true]", 0),
        ("hits:/0", "[true]", 1),
        ("hits:/1", "[true]", 0),
        ("hits:/00", "[true]", 0),
        ("hits", '{"hit": 7}', 7),
        ("hits", '{"hit": 9007199254740991}', 2**53 - 1),
        ("hits", '{"hit": [1, 2]}', 2),
        ("hits:/a/matched", '{"a": {"matched": true}}', 1),
        ("hits:/a/matched", '{"a": 1}', 0),
    ],
)
def test_what_a_response_counts(meter: str, body: str, expected: int) -> None:
    assert counted(meter, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", 0),
        ("a,b\n", 0),
        ("a,b\n1,2\n3,4", 2),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n\n", 2),
        ("a,b\r1,2\r", 1),
        ('a,b\n1,"two\nlines"\n3,4\n', 2),
        ('\ufeff"a\nb",c\n1,2\n', 1),
        ("a\n \n", 1),
    ],
)
def test_csv_counts_the_records_after_its_header(body: str, expected: int) -> None:
    assert counted("rows", body, CSV) == counted("results", body, "Text/CSV; header=absent") == expected


def test_json_lines_count_the_lines_that_are_not_empty() -> None:
    body = b'{"a": 1}\n\n{"a": 2}\r\n \r\n{"a": 3}'
    assert counted("rows", body, LINES) == counted("results", body, "application/x-ndjson; charset=utf-8") == 3


@pytest.mark.parametrize("media_type", [JSON, "Application/JSON ; charset=utf-8", "application/geo+json"])
def test_json_is_known_by_its_media_type(media_type: str) -> None:
    assert counted("rows", "[1]", media_type) == 1


@pytest.mark.parametrize(
    ("meter", "body", "media_type"),
    [
        ("rows", "", JSON),
        ("rows", "{", JSON),
        ("rows", "[1] x", JSON),
        ("rows", "[NaN]", JSON),
        ("rows", "[01]", JSON),
        ("rows", "[1,]", JSON),
        ("rows", '["\\x"]', JSON),
        ("rows", '["\\ud800"]', JSON),
        ("rows", '["\x01"]', JSON),
        ("rows", "\ufeff[1]", JSON),
        ("rows", b'["\xff"]', JSON),
        ("rows", "[1]".encode("utf-16"), JSON),
        ("rows", "{}", JSON),
        ("rows", "1", JSON),
        ("rows", '{"rows": {"a": 1}}', JSON),
        ("rows:/data", "[1]", JSON),
        ("rows", "[" * 100_000, JSON),
        ("rows", "[" * 100_000 + "]" * 100_000, JSON),
        ("rows", '{"a":' * 100_000 + "1" + "}" * 100_000, JSON),
        ("rows", '{"rows": [1], "rows": [1, 2]}', JSON),
        ("rows", '{"rows": [1], "\\u0072ows": [1, 2]}', JSON),
        ("hits", '{"hit": 1, "a": 0, "a": 0}', JSON),
        ("hits:/a/b", '{"a": {"b": 1, "b": 2}}', JSON),
        ("hits", '{"hit": -1}', JSON),
        ("hits", '{"hit": 1.0}', JSON),
        ("hits", '{"hit": 1e400}', JSON),
        ("hits", '{"hit": "1"}', JSON),
        ("hits", '{"hit": {}}', JSON),
        ("hits", '{"hit": 9007199254740992}', JSON),
        ("hits", '{"hit": ' + "9" * 5000 + "}", JSON),
        ("hits", "a\n1", CSV),
        ("rows", "[1]", "text/html"),
        ("rows", "[1]", ""),
        ("rows:/rows", "a\n1", CSV),
        ("rows", b"a\n\xff", CSV),
        ("rows", 'a\n"1', CSV),
        ("rows", 'a\n"1"2', CSV),
        ("rows", b"\xff", LINES),
    ],
)
def test_what_two_might_count_differently_is_refused(meter: str, body: bytes | str, media_type: str) -> None:
    with pytest.raises(NotCountable):
        counted(meter, body, media_type)


def test_what_lies_beside_the_pointer_changes_no_count() -> None:
    beside = '{"a": 1, "a": 2}, 1e999, ' + "9" * 5000
    assert counted("rows", f'{{"rows": [{beside}], "other": [{beside}]}}') == 3


def test_a_refusal_does_not_repeat_the_body() -> None:
    with pytest.raises(NotCountable) as refused:
        counted("rows", '{"rows": "secret"}')
    assert "secret" not in refused.value.message
    assert refused.value.code == "not_countable"


def test_meters_keep_the_rate_cards_order_and_the_rest_are_zero() -> None:
    delivered = Delivered(b'{"rows": [1, 2], "hit": true}', JSON, 2.5, {"rounds": 9})
    assert count(parse_counters(["rows", "calls", "hits"]), delivered) == (2, 1, 1, 0)
    assert count(parse_counters(["rounds", "seconds", "bytes", "rows"]), delivered) == (9, 3, 29, 2)
    assert count([], delivered) == (0, 0, 0, 0)
    with pytest.raises(NotCountable):
        count([Counter("calls")] * 5, delivered)


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0), (0.000001, 1), (1, 1), (1.5, 2), (3600.0, 3600)])
def test_seconds_are_those_begun(seconds: float, expected: int) -> None:
    assert count([Counter("seconds")], Delivered(b"", "", seconds)) == (expected, 0, 0, 0)


def test_seconds_that_are_stated_win() -> None:
    assert count([Counter("seconds")], Delivered(b"", "", 7.2, {"seconds": 5})) == (5, 0, 0, 0)


@pytest.mark.parametrize("seconds", [-1, NAN, INFINITY, -INFINITY, 1e300])
def test_a_duration_that_is_none_counts_nothing(seconds: float) -> None:
    with pytest.raises(NotCountable):
        count([Counter("seconds")], Delivered(b"", "", seconds))


@pytest.mark.parametrize("stated", [{}, {"samples": 1}, {"rounds": -1}, {"rounds": 1 << 64}, {"rounds": True}])
def test_what_nobody_stated_counts_nothing(stated: dict[str, int]) -> None:
    with pytest.raises(NotCountable):
        count([Counter("rounds")], Delivered(b"", "", 1, stated))


def test_what_the_receiver_counts_itself_is_not_stated() -> None:
    assert [parse_counter(word).of_response for word in ("calls", "bytes", "rows", "results", "hits")] == [True] * 5
    assert [parse_counter(word).of_response for word in ("seconds", "rounds", "call")] == [False] * 3
    assert count([Counter("calls")], Delivered(b"", "", 0, {"calls": 9})) == (1, 0, 0, 0)


@pytest.mark.parametrize("text", ["calls", "rows", "rows:/a/b", "hits:/", "results:/a~0b~1c/数", "x-9", "a" * 32])
def test_a_counter_has_one_written_form(text: str) -> None:
    assert str(parse_counter(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "Rows", "9rows", "-rows", "rows ", "rows\n", "a" * 33, "行", "rows:", "rows:a", "rows:/~", "rows:/~2"),
        *("rows:#/a", "calls:/a", "bytes:/a", "seconds:/a", "rounds:/a", "rows:/" + "a" * 256, None, 1, ["rows"]),
    ],
)
def test_what_is_no_counter_is_refused(text: Any) -> None:
    with pytest.raises(InputInvalid):
        parse_counter(text)


@pytest.mark.parametrize("meters", [None, [], "rows", {"rows": 1}, ["calls"] * 5, ["calls", None]])
def test_a_policy_names_one_to_four(meters: Any) -> None:
    with pytest.raises(InputInvalid):
        parse_counters(meters)


def test_what_an_application_states_is_read() -> None:
    assert parse_stated("rounds=3, samples=120000") == {"rounds": 3, "samples": 120000}
    assert parse_stated(f" seconds={2**64 - 1}\t,x-1=0 ") == {"seconds": 2**64 - 1, "x-1": 0}
    assert parse_stated("") == {}
    assert len(parse_stated(",".join(f"w{n}=1" for n in range(16)))) == 16


@pytest.mark.parametrize(
    "header",
    [
        *("rounds", "rounds=", "=3", "rounds=-1", "rounds=+1", "rounds=1.0", "rounds=0x1", "rounds=01", "rounds=1_0"),
        *("rounds=３", "rounds=1,", "rounds=1,,samples=2", "rounds=1, rounds=1", "Rounds=1", "rounds =1", "rounds= 1"),
        *(f"rounds={2**64}", "rounds=1;samples=2", "rows=1", "calls=1", ",".join(f"w{n}=1" for n in range(17))),
    ],
)
def test_what_is_no_statement_is_refused(header: str) -> None:
    with pytest.raises(InputInvalid):
        parse_stated(header)


# ------------------------------------------------------------------------------------------------- for any bytes

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
names = st.sampled_from(["rows", "results", "hit", "a", "0", "", "a/b"])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
plain = ["calls", "bytes", "rows", "results", "hits", "seconds", "rounds"]
pointing = ["rows:/a", "rows:/a/0", "results:/0/rows", "hits:/a", "hits:/a~1b", "hits:/0/1"]
meters = st.sampled_from(plain + pointing)
# Objects whose members are written one after the other: some are named twice.
twice = st.lists(st.tuples(names, documents), max_size=4).map(
    lambda members: "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}"
)
texts = (
    documents.map(json.dumps)
    | twice
    | st.text(alphabet='[]{}",:\\u0d8 \n1e-.tfn', max_size=30)
    | st.text(alphabet='ab,"\r\n \ufeff\0', max_size=40)
)
media_types = st.sampled_from([JSON, CSV, LINES, "application/problem+json;x=y", "text/html", ""]) | st.text(
    max_size=20
)


@given(
    st.lists(meters, max_size=4),
    st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    media_types,
    st.floats(),
)
def test_whatever_comes_gives_four_numbers_or_a_refusal(
    words: list[str], body: bytes, media_type: str, seconds: float
) -> None:
    counters = [parse_counter(word) for word in words]
    delivered = Delivered(body, media_type, seconds, {"rounds": 2})
    try:
        units = count(counters, delivered)
    except NotCountable:
        return
    assert len(units) == 4
    assert all(type(n) is int and 0 <= n < 1 << 64 for n in units)
    assert not any(units[len(words) :])
    assert units == count(counters, delivered)
    # One counter's number does not depend on the others.
    assert [count([counter], delivered)[0] for counter in counters] == list(units[: len(words)])


@given(meters.filter(lambda meter: parse_counter(meter).of_response), documents.map(json.dumps) | twice)
def test_a_count_is_what_any_other_parser_would_count(meter: str, text: str) -> None:
    try:
        mine = counted(meter, text)
    except NotCountable:
        return
    try:
        document = load_json(text)  # refuses a member named twice anywhere
    except InputInvalid:
        document = json.loads(text)
    assert mine == elsewhere(parse_counter(meter), document, text)


def elsewhere(counter: Counter, document: Any, text: str) -> int:
    if counter.word in ("calls", "bytes"):
        return 1 if counter.word == "calls" else len(text.encode())
    if counter.word != "hits" and counter.pointer is None and isinstance(document, list):
        return len(document)
    here = document
    for token in (counter.pointer or {"hits": "/hit"}.get(counter.word, f"/{counter.word}"))[1:].split("/"):
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list):
            here = here[int(name)] if name.isdigit() and int(name) < len(here) else None
        else:
            here = here.get(name) if isinstance(here, dict) else None
    if isinstance(here, list):
        return len(here)
    assert counter.word == "hits"
    return int(here or 0)


@given(st.text(alphabet="ab, \r\n\0\ufeff", max_size=60))
def test_a_csv_without_quotes_counts_as_the_csv_module_reads_it(text: str) -> None:
    records = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    assert counted("rows", text, CSV) == max(0, sum(1 for record in records if record) - 1)


@given(st.text() | st.text(alphabet="abrowsclt-09=, \t", max_size=60))
def test_whatever_is_stated_is_read_or_refused(header: str) -> None:
    try:
        stated = parse_stated(header)
    except InputInvalid:
        return
    assert parse_stated(", ".join(f"{word}={number}" for word, number in stated.items())) == stated
    assert all(str(parse_counter(word)) == word and 0 <= number < 1 << 64 for word, number in stated.items())
