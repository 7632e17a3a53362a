"""The versioned code lists that give bits and numbers their meaning; a space pins their digest on chain."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ledger.core.errors import InputInvalid
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Hash32, hash_of


@dataclass(frozen=True, slots=True)
class Code:
    """`number` is the bit's position, or the number itself for reasons."""

    number: int
    code: str
    zh: str
    en: str

    @property
    def bit(self) -> int:
        return 1 << self.number


@cache
def _document() -> Any:
    return json.loads((Path(__file__).parent / "codelists" / "v1.json").read_text(encoding="utf-8"))


@cache
def digest() -> Hash32:
    """SHA-256 of the RFC 8785 form of the lists: what a space records as `codeLists`."""
    return hash_of(sha256(canonical_json(_document())))


@cache
def codes(table: str) -> tuple[Code, ...]:
    """All codes of `roles`, `rights`, `purposes`, `modalities` or `reasons`."""
    return tuple(Code(c.get("bit", c.get("number")), c["code"], c["zh"], c["en"]) for c in _document()[table])


@cache
def _by_code(table: str) -> dict[str, Code]:
    return {item.code: item for item in codes(table)}


def code(table: str, name: str) -> Code:
    """Raises InputInvalid, listing what there is, if the table has no such code."""
    found = _by_code(table).get(name) or _by_code(table).get(name.upper().replace("-", "_"))
    if found is not None:
        return found
    known = ", ".join(item.code for item in codes(table))
    raise InputInvalid(f"{name!r} is not one of the {table}: {known}", field=table)


def bits(table: str, names: list[str]) -> int:
    """The names as one bit field."""
    return sum({code(table, name).bit for name in names})


def names(table: str, value: int) -> list[str]:
    """The bit field as names; unknown bits as `bit N`."""
    known = {item.number: item.code for item in codes(table)}
    return [known.get(n, f"bit {n}") for n in range(value.bit_length()) if value >> n & 1]


def reason(number: int) -> Code:
    """The reason with this number, or one that says it is not in the list."""
    for item in codes("reasons"):
        if item.number == number:
            return item
    return Code(number, f"REASON_{number}", f"原因代码 {number}", f"reason code {number}")
