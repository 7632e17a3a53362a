"""The border: numbers and JSON from outside, parsed once, refused with the field's name."""

import json
from typing import Any

from ledger.core.errors import InputInvalid


def parse_uint(value: Any, what: str, bits: int) -> int:
    """A whole number from an int or its plain decimal text; no sign, no leading zero, no float, no other digits.

    Raises:
        InputInvalid: it is not one, or does not fit into `bits` bits.
    """
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    # Long digit strings are refused unread: Python itself will not parse more than 4,300.
    if not (text.isascii() and text.isdigit() and len(text) <= 78) or (text != "0" and text[0] == "0"):
        shown = repr(value)
        raise InputInvalid(f"{what} must be a whole number, got {shown[:60]}", field=what)
    number = int(text)
    if number >> bits:
        raise InputInvalid(f"{what} does not fit into {bits} bits: {number}", field=what)
    return number


def load_json(data: bytes | str, what: str = "document") -> Any:
    """Raises InputInvalid for what is not JSON, names a member twice, or nests absurdly deep."""
    try:
        return json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as problem:
        reason = "nests too deep" if isinstance(problem, RecursionError) else str(problem)
        raise InputInvalid(f"{what} is not JSON: {reason}", field=what) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found
