"""One leaf of a usage log: 230 bytes, fixed width, so that a contract can rebuild it from call data."""

import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from ledger.core.errors import InputInvalid
from ledger.core.hashing import sha256
from ledger.core.ids import Hash32, hash_of, parse_hash
from ledger.core.merkle import leaf_hash
from ledger.core.parse import parse_uint
from ledger.core.terms import Quad

SALT_BYTES = 16
LEAF_BYTES = 229

# Field by field. All numbers but units are bytes here: 5 and 16 of them are no width of struct's, and what does not fit
# raises OverflowError (codes: ValueError).
_FORM = struct.Struct(">32s8s32s8Q16s5s5s3s32s32s")


class Kind(IntEnum):
    """What a leaf records."""

    USE = 0
    CREDIT = 1
    PERIOD_FEE = 2
    NOTE = 3
    REFUSAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLeaf:
    """Totals include this leaf. Times in seconds; credits in token units."""

    authorization_id: Hash32
    index: int
    use_id_hash: Hash32
    units: Quad
    cum_units: Quad
    cum_credits: int
    event_time: int
    served_at: int
    kind: int
    purpose: int
    modality: int
    version: Hash32
    payload_hash: Hash32

    def encode(self) -> bytes:
        """229 bytes; with RFC 9162's leading zero byte 230. Ids have been parsed, so they are 32 bytes each."""
        id_bytes = bytes.fromhex  # `raw`, without a call for each
        return _FORM.pack(
            id_bytes(self.authorization_id[2:]),
            self.index.to_bytes(8, "big"),
            id_bytes(self.use_id_hash[2:]),
            *self.units,
            *self.cum_units,
            self.cum_credits.to_bytes(16, "big"),
            self.event_time.to_bytes(5, "big"),
            self.served_at.to_bytes(5, "big"),
            bytes((self.kind, self.purpose, self.modality)),
            id_bytes(self.version[2:]),
            id_bytes(self.payload_hash[2:]),
        )

    @classmethod
    def decode(cls, data: bytes) -> "UsageLeaf":
        """The leaf of 229 bytes. Raises InputInvalid if there are more or fewer."""
        if len(data) != LEAF_BYTES:
            raise InputInvalid(f"a leaf is {LEAF_BYTES} bytes, got {len(data)}", field="leaf")
        id_, index, use, a, b, c, d, e, f, g, h, credits, event, served, codes, version, payload = _FORM.unpack(data)
        number = int.from_bytes
        return cls(
            authorization_id=hash_of(id_),
            index=number(index, "big"),
            use_id_hash=hash_of(use),
            units=(a, b, c, d),
            cum_units=(e, f, g, h),
            cum_credits=number(credits, "big"),
            event_time=number(event, "big"),
            served_at=number(served, "big"),
            kind=codes[0],
            purpose=codes[1],
            modality=codes[2],
            version=hash_of(version),
            payload_hash=hash_of(payload),
        )

    def hash(self) -> bytes:
        """RFC 9162 leaf hash."""
        return leaf_hash(self.encode())

    def as_json(self) -> dict[str, Any]:
        """camelCase, totals and credits as text."""
        return {
            "authorizationId": self.authorization_id,
            "index": self.index,
            "useIdHash": self.use_id_hash,
            "units": [str(n) for n in self.units],
            "cumUnits": [str(n) for n in self.cum_units],
            "cumCredits": str(self.cum_credits),
            "eventTime": self.event_time,
            "servedAt": self.served_at,
            "kind": self.kind,
            "purpose": self.purpose,
            "modality": self.modality,
            "version": self.version,
            "payloadHash": self.payload_hash,
        }

    @classmethod
    def from_json(cls, data: Any) -> "UsageLeaf":
        """Raises InputInvalid, naming the field, if the form is not exactly that of `as_json`."""
        try:
            leaf = cls(
                authorization_id=parse_hash(data["authorizationId"], "authorizationId"),
                index=parse_uint(data["index"], "index", 64),
                use_id_hash=parse_hash(data["useIdHash"], "useIdHash"),
                units=_quad(data["units"], "units"),
                cum_units=_quad(data["cumUnits"], "cumUnits"),
                cum_credits=parse_uint(data["cumCredits"], "cumCredits", 128),
                event_time=parse_uint(data["eventTime"], "eventTime", 40),
                served_at=parse_uint(data["servedAt"], "servedAt", 40),
                kind=parse_uint(data["kind"], "kind", 8),
                purpose=parse_uint(data["purpose"], "purpose", 8),
                modality=parse_uint(data["modality"], "modality", 8),
                version=parse_hash(data["version"], "version"),
                payload_hash=parse_hash(data["payloadHash"], "payloadHash"),
            )
        except (KeyError, TypeError) as problem:
            raise InputInvalid(f"leaf is malformed: {problem}", field=str(problem).strip("'")) from None
        if len(data) != len(fields(cls)):
            raise InputInvalid("leaf has members it should not have", field="leaf")
        return leaf


def use_id_hash(use_id: str) -> Hash32:
    """SHA-256 of the use id's text. Use ids carry at least 128 random bits."""
    return hash_of(sha256(use_id.encode()))


def payload_hash(salt: bytes, written: bytes) -> Hash32:
    """SHA-256(16-byte salt ‖ payload as RFC 8785 writes it). Deleting both erases the use; every proof stays."""
    if len(salt) != SALT_BYTES:
        raise InputInvalid(f"a payload's salt is {SALT_BYTES} bytes, got {len(salt)}", field="salt")
    return hash_of(sha256(salt + written))


def _quad(value: Any, what: str) -> Quad:
    if not isinstance(value, list) or len(value) != 4:
        raise InputInvalid(f"{what} must be a list of four numbers", field=what)
    a, b, c, d = (parse_uint(item, what, 64) for item in value)
    return a, b, c, d
