"""Contract events as values: what the chain floor hands up and the mirror applies."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ledger.core.ids import Address, Hash32


@dataclass(frozen=True, slots=True)
class Block:
    """A block header, as far as the mirror keeps it. `timestamp` in seconds."""

    number: int
    hash: Hash32
    parent_hash: Hash32
    timestamp: int


class Log(NamedTuple):
    """A raw log, as bytes: what the node returned, in the one form it is kept and hashed in."""

    log_index: int  # in the block
    transaction: bytes  # 32
    address: bytes  # 20
    topics: tuple[bytes, ...]  # 32 each
    data: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded log. `args` by name: ids and addresses as lower-case hex, numbers as int, structs as dicts."""

    contract: str
    name: str
    args: dict[str, Any]
    log: Log

    @property
    def transaction(self) -> Hash32:
        return Hash32("0x" + self.log.transaction.hex())

    @property
    def address(self) -> Address:
        return Address("0x" + self.log.address.hex())
