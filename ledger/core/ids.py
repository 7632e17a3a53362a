"""Ids as text, parsed once at the border: lower-case hex with `0x`."""

import re
from typing import NewType

from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256

Hash32 = NewType("Hash32", str)
"""32 bytes: a space, product, version, authorization, digest, block or transaction."""

Address = NewType("Address", str)
"""20 bytes: a wallet, contract or token. Kept in lower case; `checksum` shows it as EIP-55."""

ZERO_HASH = Hash32("0x" + "00" * 32)
ZERO_ADDRESS = Address("0x" + "00" * 20)

_HASH = re.compile(r"0x[0-9a-fA-F]{64}\Z")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")


def parse_hash(text: str, what: str = "id") -> Hash32:
    """`what` names the field in the error.

    Raises:
        InputInvalid: not `0x` and 64 hex digits.
    """
    if not isinstance(text, str) or not _HASH.match(text):
        raise InputInvalid(f"{what} must be 0x and 64 hex digits, got {_shown(text)}", field=what)
    return Hash32(text.lower())


def parse_address(text: str, what: str = "address") -> Address:
    """Raises InputInvalid if it is no address, or mixed case that is not its EIP-55 checksum."""
    if not isinstance(text, str) or not _ADDRESS.match(text):
        raise InputInvalid(f"{what} must be 0x and 40 hex digits, got {_shown(text)}", field=what)
    address = Address(text.lower())
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and checksum(address) != text:
        raise InputInvalid(f"{what} {text} has a wrong EIP-55 checksum: a digit is mistyped", field=what)
    return address


def parse_bytes(text: str, what: str = "bytes", size: int | None = None) -> bytes:
    """Raises InputInvalid if it is not `0x` and hex digits, `size` bytes if given."""
    try:
        if not isinstance(text, str) or text[:2] != "0x":
            raise ValueError
        value = bytes.fromhex(text[2:])
        if len(text) != 2 + 2 * len(value):  # it reads over white space
            raise ValueError
    except ValueError:
        raise InputInvalid(f"{what} must be 0x and hex digits, got {_shown(text)}", field=what) from None
    if size is not None and len(value) != size:
        raise InputInvalid(f"{what} must be {size} bytes, got {len(value)}", field=what)
    return value


def checksum(address: Address) -> str:
    """EIP-55 form, for people."""
    digits = address[2:]
    flags = keccak256(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(f, 16) > 7 else c for c, f in zip(digits, flags, strict=False))


def hash_of(value: bytes) -> Hash32:
    """32 bytes as an id."""
    return Hash32("0x" + value.hex())


def raw(text: str) -> bytes:
    """The bytes of an id that has been parsed before."""
    return bytes.fromhex(text[2:])


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…'"
