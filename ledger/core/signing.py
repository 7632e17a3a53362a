"""Signatures: the port through which keys are used, and recovery of who signed.

A floor that must sign takes a `Signer`; none but `ledger.wallet` knows how one is made.
"""

from typing import Protocol

import coincurve

from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, parse_bytes, raw
from ledger.core.typed_data import Domain, Message

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


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
    s = int.from_bytes(data[32:64], "big")
    if not 0 < s <= _HALF_ORDER or not 0 < int.from_bytes(data[:32], "big") < _ORDER:
        raise InputInvalid("the signature is not in its one accepted form (low s, EIP-2)", field="signature")
    try:
        public = coincurve.PublicKey.from_signature_and_message(
            data[:64] + bytes([data[64] - 27]), raw(digest), hasher=None
        )
    except Exception:
        raise InputInvalid("the signature recovers to no key", field="signature") from None
    return Address("0x" + keccak256(public.format(compressed=False)[1:])[12:].hex())


def is_signed_by(address: Address, message: Message, domain: Domain, signature: str) -> bool:
    """True if `address` signed `message` in `domain`; false for anything else, malformed included."""
    try:
        return recover(message.digest(domain), signature) == address
    except InputInvalid:
        return False
