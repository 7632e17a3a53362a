"""What a meter counts of one response: named in the policy both parties signed, counted by provider and consumer alike.

The same bytes give the same number wherever they are counted, or are refused: what parsers read differently (a member
named twice where it matters, a byte order mark, NaN, what is not UTF-8) is not countable.
"""

import codecs
import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from ledger.core.errors import InputInvalid
from ledger.core.parse import parse_uint
from ledger.core.terms import Quad

MAX_STATED = 16  # entries of a Sluice-Count header
MAX_POINTER = 256  # characters
MAX_UNITS = (1 << 64) - 1
MAX_JSON_INTEGER = (1 << 53) - 1  # beyond it JSON parsers differ (RFC 8259, section 6)

_JSON = "application/json"
_ARRAYS = {"rows", "results"}
_OF_RESPONSE = {"calls", "bytes", "hits"} | _ARRAYS
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_POINTER = re.compile(r"(?:/(?:[^/~]|~[01])*)+\Z")  # RFC 6901
_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,9})\Z")


class NotCountable(InputInvalid):
    """The response cannot be counted as the policy says; what was done for it counts nothing."""

    code = "not_countable"


@dataclass(frozen=True, slots=True)
class Counter:
    """One meter's rule. `pointer` is an RFC 6901 pointer into a JSON body; None: the word's own place."""

    word: str
    pointer: str | None = None

    @property
    def of_response(self) -> bool:
        """Whether the receiver can count it itself; otherwise whoever did the work states it."""
        return self.word in _OF_RESPONSE

    def __str__(self) -> str:
        return self.word if self.pointer is None else f"{self.word}:{self.pointer}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """One response as it was sent, or received. `seconds` it took; `stated` as the application counted its work;
    `length` of one that was passed on and not kept: its body is not here.
    """

    body: bytes
    media_type: str
    seconds: float = 0
    stated: Mapping[str, int] = field(default_factory=dict)
    length: int | None = None  # bytes


def parse_counter(text: Any) -> Counter:
    """`word` or `word:/json/pointer`; only rows, results and hits take a pointer. Raises InputInvalid otherwise."""
    word, colon, pointer = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not _WORD.match(word):
        raise InputInvalid("a meter is a word of small letters, digits and hyphens", field="meters")
    if not colon:
        return Counter(word)
    if word not in _ARRAYS and word != "hits":
        raise InputInvalid(f"the meter {word} takes no pointer: only rows, results and hits do", field="meters")
    if len(pointer) > MAX_POINTER or not _POINTER.match(pointer):
        raise InputInvalid(f"the meter {word} needs a JSON pointer that begins with /, as {word}:/data", field="meters")
    return Counter(word, pointer)


def parse_counters(meters: Any) -> tuple[Counter, ...]:
    """A policy's `meters`, in the rate card's order. Raises InputInvalid if they are not one to four."""
    if not isinstance(meters, list) or not 1 <= len(meters) <= 4:
        raise InputInvalid("the policy must name `meters`: a list of one to four texts", field="meters")
    return tuple(map(parse_counter, meters))


def parse_stated(header: str) -> dict[str, int]:
    """The counts of a response header `Sluice-Count: rounds=3, samples=120000`; empty if it is empty.

    Raises:
        InputInvalid: not of this form, a word twice, more than 16, or a word the receiver counts itself.
    """
    stated: dict[str, int] = {}
    entries = header.split(",", MAX_STATED) if header.strip(" \t") else []
    if len(entries) > MAX_STATED:
        raise InputInvalid(f"Sluice-Count has more than {MAX_STATED} entries", field="Sluice-Count")
    for entry in entries:
        word, _, number = entry.strip(" \t").partition("=")
        if not _WORD.match(word) or word in stated:
            raise InputInvalid("Sluice-Count must be word=number, each word once, with commas", field="Sluice-Count")
        if word in _OF_RESPONSE:
            # Passing over it would leave the application believing in a count that nobody uses.
            raise InputInvalid(f"Sluice-Count cannot state {word}: it is counted from the response", field=word)
        stated[word] = parse_uint(number, word, 64)
    return stated


def count(counters: Sequence[Counter], delivered: Delivered) -> Quad:
    """Units per meter, in the counters' order; unused meters 0. JSON is opened once, and only if a counter needs it.

    Raises:
        NotCountable: a body that is not what a counter speaks of, a count nobody stated, or more than four counters.
    """
    if len(counters) > 4:
        raise NotCountable(f"a rate card has four meters, got {len(counters)}")
    units, content = [0, 0, 0, 0], None
    for meter, counter in enumerate(counters):
        word = counter.word
        if word == "calls":
            units[meter] = 1
        elif word == "bytes":
            units[meter] = len(delivered.body) if delivered.length is None else delivered.length
        elif word in _OF_RESPONSE:
            if delivered.length is not None:
                raise NotCountable(f"{counter} of a stream cannot be counted: it is not kept")
            content = content or _Content(delivered)
            units[meter] = content.hits(counter) if word == "hits" else content.items(counter)
        else:
            units[meter] = _stated(word, delivered)
    a, b, c, d = units
    return a, b, c, d


def _stated(word: str, delivered: Delivered) -> int:
    number = delivered.stated.get(word)
    if number is None and word == "seconds" and 0 <= delivered.seconds <= MAX_JSON_INTEGER:
        return math.ceil(delivered.seconds)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_UNITS:
        raise NotCountable(f"whoever did the work must state {word}, as a whole number", field=word)
    return number


class _Name:
    """A member's name. No two are equal, so that a dict keeps a member that is named twice."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


# One level of JSON: members and items stay bytes, checked against the grammar and never built. Numbers and texts beside
# a pointer therefore cannot make two parsers differ, whatever their size.
_LEVEL = msgspec.json.Decoder(
    list[msgspec.Raw] | dict[_Name, msgspec.Raw] | bool | int | float | str | None,
    dec_hook=lambda _, text: _Name(text),
)


def _open(data: bytes | msgspec.Raw) -> Any:
    """One level of it: a list, a dict by name, or a plain value. Raises NotCountable if it is not JSON."""
    try:
        level = _LEVEL.decode(data)
    except (ValueError, RecursionError) as problem:
        # How deep is too deep, some hundreds of levels, depends on the stack: one may refuse where another counts.
        reason = "it nests too deep" if isinstance(problem, RecursionError) else str(problem)
        raise NotCountable(f"the response is not JSON that can be counted: {reason}") from None
    if not isinstance(level, dict):
        return level
    members = {name.text: member for name, member in level.items()}
    if len(members) != len(level):
        raise NotCountable("the response names a member twice: which one counts?")
    return members


@lru_cache(256)
def _tokens(pointer: str) -> tuple[str, ...]:
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


class _Content:
    """A body that is looked into, each part of it at most once however many counters ask."""

    __slots__ = ("_body", "_kind", "_records", "_root")

    def __init__(self, delivered: Delivered) -> None:
        self._body = delivered.body
        # Parameters are not looked at: text is UTF-8, and a CSV's first record is its header.
        kind = delivered.media_type.partition(";")[0].strip().lower()
        self._kind = _JSON if kind.endswith("+json") else kind
        if not self._body.isascii():
            try:
                self._body.decode()
            except UnicodeDecodeError:
                raise NotCountable("the response is not UTF-8") from None
        self._root: Any = _open(self._body) if self._kind == _JSON else None
        self._records: int | None = None

    def items(self, counter: Counter) -> int:
        """The length of a JSON array, or the records of a CSV or of JSON lines."""
        if self._kind == _JSON:
            whole = counter.pointer is None and isinstance(self._root, list)
            found = self._root if whole else self._at(counter.pointer or f"/{counter.word}")
            if not isinstance(found, list):
                raise NotCountable(f"the response has no array where {counter} is counted")
            return len(found)
        if counter.pointer is not None or self._kind not in _RECORDS:
            raise self._refusal(counter)
        if self._records is None:
            self._records = _RECORDS[self._kind](self._body)
        return self._records

    def hits(self, counter: Counter) -> int:
        """True 1, false, null and absent 0, a number itself, an array its length: charged on hit, misses free."""
        if self._kind != _JSON:
            raise self._refusal(counter)
        found = self._at(counter.pointer or "/hit")
        if isinstance(found, list):
            return len(found)
        if found is None:
            return 0
        if not isinstance(found, int) or not 0 <= found <= MAX_JSON_INTEGER:
            raise NotCountable(f"the response has no number of hits where {counter} is counted")
        return int(found)

    def _at(self, pointer: str) -> Any:
        """The value there; None if it is null or there is none."""
        here = self._root
        for token in _tokens(pointer):
            key: Any = token
            if isinstance(here, list):
                if not _INDEX.match(token) or int(token) >= len(here):
                    return None
                key = int(token)
            elif not isinstance(here, dict) or token not in here:
                return None
            if isinstance(here[key], msgspec.Raw):
                here[key] = _open(here[key])  # the next counter finds it open
            here = here[key]
        return here

    def _refusal(self, counter: Counter) -> NotCountable:
        return NotCountable(f"{counter} cannot be counted in a response of type {self._kind[:60] or 'unknown'}")


def _csv_records(body: bytes) -> int:
    """Records after the header; empty lines are none."""
    body = body.removeprefix(codecs.BOM_UTF8)  # it would hide a quote that follows
    if b'"' not in body:
        # A record is a line then, and lines are counted six times as fast.
        return max(0, sum(map(bool, body.splitlines())) - 1)
    try:
        records = csv.reader(io.StringIO(body.decode(), newline=""), strict=True)
        return max(0, sum(map(bool, records)) - 1)
    except csv.Error as problem:
        raise NotCountable(f"the response is not CSV: {problem}") from None


def _json_lines(body: bytes) -> int:
    return sum(map(bool, (line.strip(b" \t\r") for line in body.split(b"\n"))))


_RECORDS = {"text/csv": _csv_records, "application/jsonl": _json_lines, "application/x-ndjson": _json_lines}
