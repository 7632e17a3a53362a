"""Signatures: the port through which keys are used, and recovery of who signed.

A floor that must sign takes a `Signer`; none but `ledger.wallet` knows how one is made.
"""

from typing import Protocol

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from coincurve.flags import EC_UNCOMPRESSED

from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, parse_bytes, raw
from ledger.core.typed_data import Domain, Message

# Of secp256k1 (SEC 2), big-endian: bytes of one length compare as the numbers they are.
_ORDER = bytes.fromhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
_HALF_ORDER = bytes.fromhex("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
_ZERO = bytes(32)

_PARSED = ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_KEY = ffi.typeof("secp256k1_pubkey *")
_POINT = ffi.typeof("unsigned char[65]")
_LENGTH = ffi.typeof("size_t *")


class Signer(Protocol):
    """Something that signs for one address and never shows its key."""

    @property
    def address(self) -> Address: ...

    def sign(self, message: Message, domain: Domain) -> str:
        """65 bytes r ‖ s ‖ v as 0x-hex, v 27 or 28, low s."""
        ...


def recover(digest: Hash32, signature: str) -> Address:
    """Who signed. Takes what the contracts take: 65 bytes, low s (EIP-2), v 27 or 28.

    Raises:
        InputInvalid: the signature has another form or recovers to nobody.
    """
    data = parse_bytes(signature, "signature")
    if len(data) != 65 or data[64] not in (27, 28):
        raise InputInvalid("a signature is 65 bytes as 0x-hex, ending in 1b or 1c", field="signature")
    if not _ZERO < data[32:64] <= _HALF_ORDER or not _ZERO < data[:32] < _ORDER:
        raise InputInvalid("the signature is not in its one accepted form (low s, EIP-2)", field="signature")
    try:
        public = _public_key(raw(digest), data)
    except Exception:
        raise InputInvalid("the signature recovers to no key", field="signature") from None
    return Address("0x" + keccak256(public)[12:].hex())


def _public_key(digest: bytes, signature: bytes) -> bytes:
    """The point x ‖ y, 64 bytes, of the key that signed; `signature` is 65 bytes, v 27 or 28.

    Straight from libsecp256k1: coincurve's objects would cost a twentieth more. It runs without the interpreter's lock,
    so every call has memory of its own.

    Raises:
        ValueError: there is no such key.
    """
    if len(digest) != 32:  # C would read beyond it
        raise ValueError
    context, parsed, key, point = GLOBAL_CONTEXT.ctx, ffi.new(_PARSED), ffi.new(_KEY), ffi.new(_POINT)
    if not lib.secp256k1_ecdsa_recoverable_signature_parse_compact(context, parsed, signature, signature[64] - 27):
        raise ValueError
    if not lib.secp256k1_ecdsa_recover(context, key, parsed, digest):
        raise ValueError
    lib.secp256k1_ec_pubkey_serialize(context, point, ffi.new(_LENGTH, 65), key, EC_UNCOMPRESSED)
    found: bytes = ffi.buffer(point)[1:]  # without the byte that says uncompressed
    return found


def is_signed_by(address: Address, message: Message, domain: Domain, signature: str) -> bool:
    """True if `address` signed `message` in `domain`; false for anything else, malformed included."""
    try:
        return recover(message.digest(domain), signature) == address
    except InputInvalid:
        return False
