"""The compiled contracts the package ships, and their ABI by name, topic and selector."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ledger.core.hashing import keccak256

CORE = (
    "Forwarder",
    "SpaceRegistry",
    "ProductRegistry",
    "RateCards",
    "Admission",
    "SessionKeys",
    "UsageLedger",
    "InvoiceLedger",
    "UsageEvidence",
    "SubsidyPool",
)
DEMO_TOKEN = "DemoYuan"  # noqa: S105 - a contract's name

type_names = dict[str, str]


@dataclass(frozen=True, slots=True)
class Item:
    """A function, event or error of a contract's ABI."""

    contract: str
    name: str
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(abi_type(i) for i in self.inputs)})"

    @property
    def hash(self) -> bytes:
        """Keccak-256 of the signature: an event's topic; its first four bytes a selector."""
        return keccak256(self.signature.encode())


@cache
def artifact(contract: str) -> Any:
    return json.loads((Path(__file__).parent / "artifacts" / f"{contract}.json").read_text())


def storage(contract: str) -> dict[str, int]:
    """State variable → storage slot."""
    found: dict[str, int] = artifact(contract)["storage"]
    return found


@cache
def items(contract: str, kind: str) -> dict[str, Item]:
    """Name → item, for `kind` function, event or error."""
    return {
        entry["name"]: Item(contract, entry["name"], entry.get("inputs", ()), entry.get("outputs", ()))
        for entry in artifact(contract)["abi"]
        if entry["type"] == kind
    }


@cache
def events(contract: str) -> dict[bytes, Item]:
    """Topic → event."""
    return {item.hash: item for item in items(contract, "event").values()}


@cache
def errors() -> dict[bytes, Item]:
    """Selector → error, of all contracts."""
    return {item.hash[:4]: item for name in (*CORE, DEMO_TOKEN) for item in items(name, "error").values()}


def abi_type(entry: Mapping[str, Any]) -> str:
    """The canonical type: tuples written out."""
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(abi_type(c) for c in entry['components'])}){kind[5:]}"
    return kind
