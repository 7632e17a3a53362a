"""Money is integers: micro-yuan (millionths of a yuan, `uy`) inside, fen (hundredths) on an invoice."""

import re

from ledger.core.errors import InputInvalid

UY_PER_YUAN = 1_000_000
UY_PER_FEN = 10_000
CURRENCY = "CNY"
DECIMALS = 6

_YUAN = re.compile(r"(-?)(\d{1,18})(?:\.(\d{1,6}))?\Z")


def currency_token(code: str) -> str:
    """An ISO 4217 code as a rate card's token: right-aligned in an address.

    Raises:
        InputInvalid: not three capital letters.
    """
    if not re.fullmatch(r"[A-Z]{3}", code):
        raise InputInvalid(f"currency must be an ISO 4217 code such as CNY, got {code!r}", field="currency")
    return "0x" + code.encode().rjust(20, b"\0").hex()


def parse_yuan(text: str, what: str = "amount", *, signed: bool = False) -> int:
    """`"12.50"` → 12_500_000 micro-yuan; negative only where `signed`.

    Raises:
        InputInvalid: not a plain decimal number of yuan with at most six places.
    """
    match = _YUAN.match(text.strip())
    if not match or (match[1] and not signed):
        raise InputInvalid(f"{what} must be yuan with at most six decimals, such as 12.50; got {text!r}", field=what)
    sign, whole, part = match.groups()
    value = int(whole) * UY_PER_YUAN + int((part or "").ljust(6, "0"))
    return -value if sign else value


def format_yuan(uy: int) -> str:
    """Exact: at least two places, up to six, thousands grouped. 12_500_000 → `12.50`."""
    sign = "-" if uy < 0 else ""
    whole, part = divmod(abs(uy), UY_PER_YUAN)
    places = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole:,}.{places}"


def round_to_fen(uy: int) -> int:
    """Micro-yuan to fen, half away from zero: the rounding of invoices in invoiced mode, once per line."""
    fen = (abs(uy) + UY_PER_FEN // 2) // UY_PER_FEN
    return -fen if uy < 0 else fen


def format_fen(fen: int) -> str:
    return format_yuan(fen * UY_PER_FEN)
