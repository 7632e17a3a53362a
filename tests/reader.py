"""Another reader of the same chain: PyPI's `cryo`, and the events as the Solidity sources define them.

Nothing here is shared with the product: cryo fetches logs and decodes what is one word or bytes, and a decoder that
knows the ABI's rules and the text of the sources, no compiler's artifact, takes structs and lists, which cryo leaves
out. What both can decode they must decode alike.
"""

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

cryo = pytest.importorskip("cryo", reason="cryo has no wheel for Python 3.13, nor for Linux on ARM")

ROOT = Path(__file__).parents[1]
OPEN_ZEPPELIN = ROOT / "node_modules" / "@openzeppelin" / "contracts"
SOURCES = (
    *sorted((ROOT / "contracts" / "interfaces").glob("I*.sol")),
    ROOT / "contracts" / "libraries" / "Terms.sol",
    OPEN_ZEPPELIN / "metatx" / "ERC2771Forwarder.sol",
    OPEN_ZEPPELIN / "token" / "ERC20" / "IERC20.sol",
)
DONE = {"n_completed": 1, "n_skipped": 0, "n_errored": 0}


@dataclass(frozen=True)
class Parameter:
    kind: str
    name: str
    indexed: bool


@dataclass(frozen=True)
class Definition:
    """An event as a source defines it."""

    name: str
    parameters: tuple[Parameter, ...]

    @property
    def topic(self) -> str:
        return "0x" + keccak(text=f"{self.name}({','.join(canonical(p.kind) for p in self.parameters)})").hex()

    def for_cryo(self) -> str:
        """Tuples without the names of their members: cryo takes no others."""
        words = [f"{canonical(p.kind)}{' indexed' if p.indexed else ''} {p.name}" for p in self.parameters]
        return f"event {self.name}({', '.join(words)})"


@dataclass(frozen=True)
class Found:
    """A log of the chain; `name` is "" where no source knows it."""

    block: int
    index: int
    transaction: str
    address: str
    topics: tuple[str, ...]
    data: str
    name: str
    args: dict[str, Any]

    @property
    def raw(self) -> tuple[Any, ...]:
        return self.block, self.index, self.transaction, self.address, self.topics, self.data


# ----------------------------------------------------------------------------------------------- the sources


@cache
def _text() -> str:
    text = "\n".join(path.read_text() for path in SOURCES)
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


@cache
def structs() -> dict[str, tuple[Parameter, ...]]:
    return {name: _parameters(body, ";") for name, body in re.findall(r"\bstruct (\w+) \{(.*?)\}", _text(), re.DOTALL)}


@cache
def enums() -> dict[str, tuple[str, ...]]:
    found = re.findall(r"\benum (\w+) \{(.*?)\}", _text(), re.DOTALL)
    return {name: tuple(re.findall(r"\w+", body)) for name, body in found}


@cache
def definitions() -> dict[str, Definition]:
    """By topic."""
    found = re.findall(r"\bevent (\w+)\((.*?)\);", _text(), re.DOTALL)
    return {d.topic: d for d in (Definition(name, _parameters(body, ",")) for name, body in found)}


def _parameters(text: str, end: str) -> tuple[Parameter, ...]:
    words = [part.split() for part in text.split(end) if part.strip()]
    return tuple(Parameter(w[0], w[-1], "indexed" in w) for w in words)


def canonical(kind: str) -> str:
    base, brackets = re.fullmatch(r"(\w+)(.*)", kind).groups()  # type: ignore[union-attr]
    if base in structs():
        base = f"({','.join(canonical(p.kind) for p in structs()[base])})"
    return ("uint8" if base in enums() else base) + brackets


# -------------------------------------------------------------------------------------------------- decoding


def _inner(kind: str) -> tuple[str, str]:
    """What an array is of, and how many, as text."""
    element, _, count = kind[:-1].rpartition("[")
    return element, count


@cache
def _width(kind: str) -> int:
    """Bytes in place; 0: the value is elsewhere, and its offset is here."""
    if kind in ("bytes", "string") or kind.endswith("[]"):
        return 0
    if kind.endswith("]"):
        element, count = _inner(kind)
        return _width(element) * int(count)
    if kind in structs():
        widths = [_width(p.kind) for p in structs()[kind]]
        return sum(widths) if all(widths) else 0
    return 32


def _values(kinds: list[str], data: bytes) -> list[Any]:
    found, at = [], 0
    for kind in kinds:
        width = _width(kind)
        found.append(value(kind, data[at:] if width else data[int.from_bytes(data[at : at + 32], "big") :]))
        at += width or 32
    return found


def value(kind: str, data: bytes) -> Any:
    """The value that begins here: numbers, 0x-hex, lists, and structs as dicts."""
    if kind in structs():
        members = structs()[kind]
        return dict(zip((m.name for m in members), _values([m.kind for m in members], data), strict=True))
    if kind.endswith("]"):
        element, count = _inner(kind)
        number = int(count) if count else int.from_bytes(data[:32], "big")
        return _values([element] * number, data if count else data[32:])
    number = int.from_bytes(data[:32], "big")
    assert len(data) >= 32
    if kind == "bytes":
        assert len(data) >= 32 + number
        return "0x" + data[32 : 32 + number].hex()
    if kind == "bytes32":
        return f"0x{number:064x}"
    if kind == "address":
        assert number < 1 << 160
        return f"0x{number:040x}"
    if kind == "bool":
        assert number < 2
        return bool(number)
    if kind in enums():
        assert number < len(enums()[kind])
        return number
    assert number < 1 << int(kind.removeprefix("uint"))
    return number


def decode(definition: Definition, topics: tuple[str, ...], data: str) -> dict[str, Any]:
    indexed = [p for p in definition.parameters if p.indexed]
    plain = [p for p in definition.parameters if not p.indexed]
    found = {p.name: value(p.kind, bytes.fromhex(t[2:])) for p, t in zip(indexed, topics[1:], strict=True)}
    values = _values([p.kind for p in plain], bytes.fromhex(data[2:]))
    return found | dict(zip((p.name for p in plain), values, strict=True))


# ------------------------------------------------------------------------------------------------------ cryo


def collect(dataset: str, url: str, last: int, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """What cryo writes down of blocks 0 to `last`, into a folder of its own."""
    folder.mkdir(parents=True)
    freeze = cryo.async_freeze(
        dataset,
        start_block=0,
        end_block=last + 1,
        rpc=url,
        output_dir=str(folder),
        file_format="json",
        verbose=False,
        no_report=True,
        chunk_size=last + 1,
        inner_request_size=last + 1,
        u256_types=["string"],
        **options,
    )

    async def done() -> Any:
        return await freeze

    assert asyncio.run(done()) == DONE
    (path,) = folder.glob("*.json")
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def read_blocks(url: str, last: int, folder: Path) -> dict[int, tuple[str, int]]:
    """Number → hash and time."""
    rows = collect("blocks", url, last, folder / "blocks")
    return {row["block_number"]: (row["block_hash"], row["timestamp"]) for row in rows}


def read_logs(url: str, last: int, folder: Path) -> list[Found]:
    """Every log of the chain, whosever it is, decoded as far as the sources know it."""
    found = []
    for row in collect("logs", url, last, folder / "logs"):
        topics = tuple(row[f"topic{n}"] for n in range(4) if row[f"topic{n}"] is not None)
        definition = definitions().get(topics[0])
        name, args = (definition.name, decode(definition, topics, row["data"])) if definition else ("", {})
        place = (row["block_number"], row["log_index"], row["transaction_hash"], row["address"])
        found.append(Found(*place, topics, row["data"], name, args))
    _decoded_alike(found, url, last, folder)
    return found


def _decoded_alike(found: list[Found], url: str, last: int, folder: Path) -> None:
    """Asks cryo for every kind of event once more, by its definition, and takes its word for what it can decode."""
    places = {(log.block, log.index): log for log in found}
    for topic, count in Counter(log.topics[0] for log in found if log.name).items():
        definition = definitions()[topic]
        rows = collect("logs", url, last, folder / topic, event_signature=definition.for_cryo())
        assert len(rows) == count, definition.name
        for row in rows:
            log = places[row["block_number"], row["log_index"]]
            assert log.topics[0] == row["topic0"] == topic
            for parameter in definition.parameters:
                if _one_word(parameter.kind) or parameter.kind == "bytes":
                    said = _as_said(parameter, row)
                    assert said == log.args[parameter.name], (definition.name, parameter.name)


def _one_word(kind: str) -> bool:
    return not kind.endswith("]") and kind not in structs() and kind != "bytes"


def _as_said(parameter: Parameter, row: dict[str, Any]) -> Any:
    name, kind = f"event__{parameter.name}", canonical(parameter.kind)
    if kind.startswith("uint"):
        return int(row[f"{name}_string"] if int(kind[4:]) > 64 else row[name])
    if kind in ("bytes", "bytes32"):
        # cryo 0.3.2 writes bytes as the ABI's array of bytes, a word each.
        return "0x" + bytes.fromhex(row[name][2:])[64 + 31 :: 32].hex()
    return row[name]
