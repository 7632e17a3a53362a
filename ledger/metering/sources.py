"""What a gateway serves: published files, checked against their digests before the first byte leaves."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.core.codes import code
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.hashing import ALGORITHMS, canonical_json, content_digests
from ledger.core.ids import Hash32, raw
from ledger.core.parse import load_json, parse_uint
from ledger.core.terms import Quad


class ContentDiffers(InputInvalid):
    """A file is not the product version it claims to be."""

    code = "content_differs"


@dataclass(frozen=True, slots=True)
class Served:
    """One response: its bytes, and what each counter says about it."""

    body: bytes
    media_type: str
    counts: Mapping[str, int]  # calls, rows, bytes

    def units(self, meters: Sequence[str]) -> Quad:
        """Units per meter, in the rate card's order."""
        a, b, c, d = ([self.counts[name] for name in meters] + [0, 0, 0, 0])[:4]
        return a, b, c, d


@dataclass(frozen=True, slots=True)
class Source:
    """A published version. `kind` rows: ranges of a CSV, by its first column; `kind` file: the whole file."""

    version: Hash32
    product: Hash32
    kind: str
    meters: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    content: bytes

    @property
    def modality(self) -> int:
        return code("modalities", "API_PULL" if self.kind == "rows" else "DATASET").number

    def answer(self, query: Mapping[str, str]) -> Served:
        """Raises InputInvalid or NotFound for a query this source cannot answer; nothing is counted then."""
        odd = set(query) - ({"from", "limit"} if self.kind == "rows" else set())
        if odd:
            # Ignoring it would charge for something nobody asked for.
            raise InputInvalid(f"there is no parameter {sorted(odd)[0]!r}", field=sorted(odd)[0])
        if self.kind == "file":
            return Served(self.content, "text/csv", {"calls": 1, "rows": len(self.rows), "bytes": len(self.content)})
        first, limit = query.get("from", self.rows[0][0]), parse_uint(query.get("limit", "24"), "limit", 16)
        if not 1 <= limit <= 1000:
            raise InputInvalid("limit must be a number from 1 to 1000", field="limit")
        start = next((i for i, row in enumerate(self.rows) if row[0] >= first), None)
        if start is None:
            raise NotFound(f"there are no rows from {first} on")
        rows = self.rows[start : start + limit]
        body = canonical_json({"columns": list(self.header), "rows": [list(row) for row in rows]})
        return Served(body, "application/json", {"calls": 1, "rows": len(rows), "bytes": len(body)})


COUNTERS = {"calls", "rows", "bytes"}


def policy_meters(policy: bytes | str) -> tuple[str, ...]:
    """What a policy says each meter counts, in the rate card's order. Raises InputInvalid if it does not say."""
    document = load_json(policy, "policy")
    meters = document.get("meters") if isinstance(document, dict) else None
    if not isinstance(meters, list) or not 1 <= len(meters) <= 4 or any(str(m) not in COUNTERS for m in meters):
        raise InputInvalid(f"the policy must name `meters`: one to four of {', '.join(sorted(COUNTERS))}")
    return tuple(meters)


def open_source(
    path: Path, kind: str, meters: Sequence[str], product: Hash32, version: Hash32, digests: Sequence[Mapping[str, Any]]
) -> Source:
    """Reads a file and compares it with every digest of the version.

    Raises:
        ContentDiffers: a digest does not match.
        NotFound: there is no such file.
        InputInvalid: an unknown kind or meter, or not a CSV.
    """
    if kind not in ("rows", "file") or not meters or set(meters) - COUNTERS or len(meters) > 4:
        raise InputInvalid("a source is of kind rows or file and has one to four meters: calls, rows, bytes")
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    content = path.read_bytes()  # read once: what is checked is what is served
    found = content_digests([content], [int(d["algorithm"]) for d in digests])
    for digest in digests:
        algorithm = int(digest["algorithm"])
        if found[algorithm] != raw(digest["value"]):
            raise ContentDiffers(
                f"{path} is not version {version}: its {ALGORITHMS[algorithm]} is 0x{found[algorithm].hex()}, "
                f"published was {digest['value']}",
                version=version,
            )
    try:
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8")))
    except (UnicodeDecodeError, ValueError, csv.Error) as problem:
        raise InputInvalid(f"{path} is not a CSV file: {problem}") from None
    rows = [row for row in rows if row]
    if not rows:
        raise InputInvalid(f"{path} has no rows")
    return Source(version, product, kind, tuple(meters), tuple(header), tuple(tuple(r) for r in rows), content)
