"""Digests, always with the algorithm's name.

Content digests carry multihash codes: sha-256 0x12 (FIPS 180-4), keccak-256 0x1b, sm3-256 0x534d (GB/T 32905).
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import rfc8785
import sha3

SHA256 = 0x12
KECCAK256 = 0x1B
SM3 = 0x534D

ALGORITHMS = {SHA256: "sha-256", KECCAK256: "keccak-256", SM3: "sm3-256"}

_EXACT = 2**53 - 1  # the largest whole number that RFC 8785 takes
_DEEP = 32  # levels
_write_sorted = msgspec.json.Encoder(order="sorted").encode


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not NIST SHA3-256)."""
    digest: bytes = sha3.keccak_256(data).digest()
    return digest


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def content_digests(chunks: Iterable[bytes], algorithms: Iterable[int] = (SHA256, SM3)) -> dict[int, bytes]:
    """Multihash code → digest, in one pass over the content, codes ascending."""
    makers: dict[int, Callable[[], Any]] = {
        SHA256: hashlib.sha256,
        KECCAK256: sha3.keccak_256,
        SM3: lambda: hashlib.new("sm3"),
    }
    hashes = {code: makers[code]() for code in sorted(algorithms)}
    for chunk in chunks:
        for running in hashes.values():
            running.update(chunk)
    return {code: running.digest() for code, running in hashes.items()}


def file_chunks(path: Path, size: int = 1 << 20) -> Iterable[bytes]:
    """The file in pieces of `size` bytes."""
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk


def canonical_json(value: Any) -> bytes:
    """RFC 8785. Integers beyond 2^53 must already be text.

    Raises:
        rfc8785.CanonicalizationError: a number, text or type that it has no form for.
    """
    try:
        if _is_plain(value, _DEEP):
            return _write_sorted(value)
    except UnicodeEncodeError:
        pass  # half a surrogate pair: refused below
    return rfc8785.dumps(value)


def _is_plain(value: Any, deep: int) -> bool:
    """True where msgspec's bytes are those of RFC 8785: text, whole numbers, true, false and null in lists and objects.

    The types are exact ones. Floats are written in another form; long integers and other types would not be refused;
    names are sorted as UTF-8, which is the order of UTF-16 in ASCII. What is nested deeper than `deep`, or in itself,
    is left to rfc8785.
    """
    kind = type(value)
    if kind is dict:
        for name in value:
            if type(name) is not str or not name.isascii():
                return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind is str or kind is bool or value is None or (kind is int and -_EXACT <= value <= _EXACT)
    if not deep:
        return False
    for item in value:
        if type(item) is str:  # most are
            continue
        if not _is_plain(item, deep - 1):
            return False
    return True
