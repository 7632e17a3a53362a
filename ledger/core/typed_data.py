"""EIP-712 typed data: one class per message, hashed as the contracts hash it.

A message class names its EIP-712 type in `TYPE` and holds one field per member, in the same order, in snake case.
Struct hashes follow EIP-712: members are 32-byte words, arrays hash to the Keccak-256 of their words, structs to their
struct hash. `tests/vectors/typed_data.json` holds Python and Solidity to the same bytes.
"""

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter, methodcaller
from typing import Any, ClassVar, Self, TypeAlias

from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, hash_of, parse_address, parse_bytes, parse_hash, raw
from ledger.core.parse import parse_uint

_MEMBER = re.compile(r"(\w+)(\[(\d+)\])? (\w+)")

_Encode: TypeAlias = Callable[[Any], bytes]
"""A value as its 32-byte word."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a struct type."""

    kind: str  # bytes32, bytes, address, uintN or a struct's name
    count: int | None  # length, if it is an array
    name: str  # camelCase, as signed
    field: str  # snake_case, as in Python


@dataclass(frozen=True, slots=True)
class Domain:
    """What binds a signature to a chain and a contract (name "Sluice", version "1")."""

    chain_id: int
    verifying_contract: Address

    def separator(self) -> bytes:
        """EIP-712 domainSeparator, 32 bytes."""
        return keccak256(
            _DOMAIN_TYPEHASH + _NAME_HASH + _VERSION_HASH + _word(self.chain_id) + _address(self.verifying_contract)
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "name": "Sluice",
            "version": "1",
            "chainId": self.chain_id,
            "verifyingContract": self.verifying_contract,
        }


class Message:
    """Base of everything that is signed. Subclasses are frozen dataclasses with a `TYPE`."""

    __slots__ = ()
    TYPE: ClassVar[str]
    STRUCTS: ClassVar[Mapping[str, type["Message"]]] = {}

    def struct_hash(self) -> bytes:
        """hashStruct, 32 bytes. Raises InputInvalid, naming the kind, for a number that does not fit its member."""
        cls: Any = type(self)
        typehash, plan = _plan(cls)
        return keccak256(typehash + b"".join([encode(get(self)) for get, encode in plan]))

    def digest(self, domain: Domain) -> Hash32:
        """What a wallet signs: Keccak-256 of 0x1901 ‖ domain separator ‖ struct hash."""
        return hash_of(keccak256(b"\x19\x01" + _separator(domain) + self.struct_hash()))

    def as_json(self) -> dict[str, Any]:
        """camelCase; integers as text where JavaScript would round them (more than 48 bits wide)."""
        return {member.name: _to_json(member, getattr(self, member.field)) for member in members(type(self))}

    def as_abi(self) -> tuple[Any, ...]:
        """The tuple an ABI encoder wants."""
        return tuple(_to_abi(member, getattr(self, member.field)) for member in members(type(self)))

    def words(self) -> list[bytes]:
        """The message as ABI-encoded static words, as an event carries it."""
        out: list[bytes] = []
        for member in members(type(self)):
            value = getattr(self, member.field)
            if isinstance(value, Message):
                out.extend(value.words())
            else:
                out.extend(map(_encoder(member.kind), value if member.count is not None else [value]))
        return out

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises InputInvalid if a member is missing, unknown, malformed or out of range; the error names it."""
        if not isinstance(data, Mapping):
            raise InputInvalid(f"{cls.__name__} must be an object, got {type(data).__name__}", field=cls.__name__)
        unknown = set(data) - {member.name for member in members(cls)}
        if unknown:
            raise InputInvalid(f"{cls.__name__} has no member {sorted(unknown)[0]!r}", field=sorted(unknown)[0])
        values = {}
        for member in members(cls):
            if member.name not in data:
                raise InputInvalid(f"{cls.__name__} lacks {member.name!r}", field=member.name)
            values[member.field] = _from_json(cls, member, data[member.name])
        return cls(**values)

    def typed_data(self, domain: Domain) -> dict[str, Any]:
        """The JSON that `eth_signTypedData_v4` takes."""
        types = {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ]
        }
        for struct in (type(self), *type(self).STRUCTS.values()):
            types[struct.__name__] = [
                {"name": m.name, "type": m.kind + (f"[{m.count}]" if m.count is not None else "")}
                for m in members(struct)
            ]
        return {
            "types": types,
            "primaryType": type(self).__name__,
            "domain": domain.as_json(),
            "message": self.as_json(),
        }


def members(cls: Any) -> tuple[Member, ...]:
    """The members of a message class, checked against its fields."""
    return _members(cls)


@cache
def _members(cls: Any) -> tuple[Member, ...]:
    body = cls.TYPE[cls.TYPE.index("(") + 1 : cls.TYPE.index(")")]
    found = []
    for part in body.split(","):
        match = _MEMBER.fullmatch(part)
        if not match:
            raise AssertionError(f"{cls.__name__}: cannot read member {part!r}")
        kind, _, count, name = match.groups()
        field = re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
        if keyword.iskeyword(field):
            field += "_"
        found.append(Member(kind, int(count) if count else None, name, field))
    if [m.field for m in found] != [f.name for f in fields(cls)]:
        raise AssertionError(f"{cls.__name__}: fields and TYPE differ")
    return tuple(found)


def type_hash(cls: Any) -> bytes:
    """Keccak-256 of encodeType: the type, then the structs it refers to, by name."""
    return _type_hash(cls)


@cache
def _type_hash(cls: Any) -> bytes:
    return keccak256((cls.TYPE + "".join(struct.TYPE for _, struct in sorted(cls.STRUCTS.items()))).encode())


@cache
def _separator(domain: Domain) -> bytes:
    return domain.separator()


@cache
def _plan(cls: Any) -> tuple[bytes, tuple[tuple[Callable[[Any], Any], _Encode], ...]]:
    """The type hash of a message class, and for each member how it is read and encoded."""
    encoders = [_encoder(m.kind) if m.count is None else _array(_encoder(m.kind)) for m in members(cls)]
    return type_hash(cls), tuple(zip([attrgetter(m.field) for m in members(cls)], encoders, strict=True))


@cache
def _encoder(kind: str) -> _Encode:
    known: dict[str, _Encode] = {"bytes32": raw, "address": _address, "bytes": keccak256}
    if kind in known:
        return known[kind]
    return _uint(kind) if kind.startswith("uint") else methodcaller("struct_hash")


def _uint(kind: str) -> _Encode:
    bits = int(kind[4:])

    def encode(value: Any) -> bytes:
        # What is plainly in range is not parsed; a shift leaves something of a negative number too.
        number = value if type(value) is int and not value >> bits else parse_uint(value, kind, bits)
        return number.to_bytes(32, "big")

    return encode


def _array(encode: _Encode) -> _Encode:
    return lambda items: keccak256(b"".join(map(encode, items)))


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _address(value: str) -> bytes:
    return raw(value).rjust(32, b"\0")


def _to_json(member: Member, value: Any) -> Any:
    if member.count is not None:
        return [str(item) for item in value]
    if isinstance(value, Message):
        return value.as_json()
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and int(member.kind[4:]) > 48:
        return str(value)
    return value


def _to_abi(member: Member, value: Any) -> Any:
    if member.kind == "bytes32":
        return raw(value)
    if isinstance(value, Message):
        return value.as_abi()
    return value


def _from_json(cls: type[Message], member: Member, value: Any) -> Any:
    if member.count is not None:
        if not isinstance(value, list | tuple) or len(value) != member.count:
            raise InputInvalid(f"{member.name} must be a list of {member.count}", field=member.name)
        return tuple(parse_uint(item, member.name, int(member.kind[4:])) for item in value)
    parse: dict[str, Callable[[Any, str], Any]] = {
        "bytes32": parse_hash,
        "bytes": parse_bytes,
        "address": parse_address,
    }
    if member.kind in parse:
        return parse[member.kind](value, member.name)
    if member.kind in cls.STRUCTS:
        return cls.STRUCTS[member.kind].from_json(value)
    return parse_uint(value, member.name, int(member.kind[4:]))


_DOMAIN_TYPEHASH = keccak256(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
)
_NAME_HASH = keccak256(b"Sluice")
_VERSION_HASH = keccak256(b"1")
