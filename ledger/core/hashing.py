"""Digests, always with the algorithm's name.

Content digests carry multihash codes: sha-256 0x12 (FIPS 180-4), keccak-256 0x1b, sm3-256 0x534d (GB/T 32905).
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import rfc8785
import sha3

SHA256 = 0x12
KECCAK256 = 0x1B
SM3 = 0x534D

ALGORITHMS = {SHA256: "sha-256", KECCAK256: "keccak-256", SM3: "sm3-256"}


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
    """RFC 8785. Integers beyond 2^53 must already be text."""
    return rfc8785.dumps(value)
