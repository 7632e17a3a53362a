"""Contract events as values: what the chain floor hands up and the mirror applies."""

from dataclasses import dataclass
from typing import Any

from ledger.core.ids import Address, Hash32


@dataclass(frozen=True, slots=True)
class Block:
    """A block header, as far as the mirror keeps it. `timestamp` in seconds."""

    number: int
    hash: Hash32
    parent_hash: Hash32
    timestamp: int


@dataclass(frozen=True, slots=True)
class Log:
    """A raw log: what the node returned, kept as it was."""

    block_number: int
    block_hash: Hash32
    log_index: int
    transaction_hash: Hash32
    address: Address
    topics: tuple[str, ...]
    data: str


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded log. `args` by name: ids and addresses as lower-case hex, numbers as int, structs as dicts."""

    contract: str
    name: str
    args: dict[str, Any]
    log: Log
