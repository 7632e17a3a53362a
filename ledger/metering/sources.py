"""Published files, checked against their digests before the first byte leaves, and not served once they changed."""

import csv
import io
import mimetypes
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.core.errors import InputInvalid, NotFound
from ledger.core.hashing import ALGORITHMS, canonical_json, content_digests, file_chunks
from ledger.core.ids import Hash32, raw
from ledger.core.parse import parse_uint

MOST_ROWS = 1_000  # an answer
MOST_BYTES = 64 << 20  # a piece

Stamp = tuple[int, int, int, int]


class ContentDiffers(InputInvalid):
    """A file is not the product version it claims to be."""

    code = "content_differs"


@dataclass(frozen=True, slots=True)
class Source:
    """A published version. `kind` rows: ranges of a CSV, by its first column; file: the file, whole or in pieces."""

    version: Hash32
    product: Hash32
    kind: str
    path: Path
    media_type: str
    header: tuple[str, ...]  # of kind rows
    rows: tuple[tuple[str, ...], ...]
    content: bytes | mmap.mmap  # of kind file
    stamp: Stamp  # of the file as it was checked

    @property
    def modality(self) -> str:
        return "API_PULL" if self.kind == "rows" else "DATASET"

    def select(self, query: Mapping[str, str]) -> bytes:
        """Rows as JSON: {columns, rows}. Raises InputInvalid or NotFound for a query that cannot be answered."""
        odd = sorted(set(query) - {"from", "limit"})
        if odd:
            # Ignoring it would charge for something nobody asked for.
            raise InputInvalid(f"there is no parameter {odd[0]!r}", field=odd[0])
        first, limit = query.get("from", self.rows[0][0]), parse_uint(query.get("limit", "24"), "limit", 16)
        if not 1 <= limit <= MOST_ROWS:
            raise InputInvalid(f"limit must be a number from 1 to {MOST_ROWS}", field="limit")
        start = next((i for i, row in enumerate(self.rows) if row[0] >= first), None)
        if start is None:
            raise NotFound(f"there are no rows from {first} on")
        rows = self.rows[start : start + limit]
        return canonical_json({"columns": list(self.header), "rows": [list(row) for row in rows]})

    def piece(self, first: int, end: int) -> bytes:
        """Bytes of the file. Raises InputInvalid if they are too many, ContentDiffers if the file has changed."""
        if end - first > MOST_BYTES:
            words = f"the file has {len(self.content):,} bytes; ask for ranges of at most {MOST_BYTES >> 20} MiB"
            raise InputInvalid(words, field="Range")
        if not isinstance(self.content, bytes) and _stamp(self.path.stat()) != self.stamp:
            raise ContentDiffers(f"{self.path} has changed since it was checked", version=self.version)
        return self.content[first:end]


def open_source(
    path: Path, kind: str, product: Hash32, version: Hash32, digests: Sequence[Mapping[str, Any]]
) -> Source:
    """Compares a file with every digest of the version, and makes it ready to be served.

    Raises:
        ContentDiffers: a digest does not match.
        NotFound: there is no such file.
        InputInvalid: an unknown kind; rows of what is no CSV.
    """
    if kind not in ("rows", "file"):
        raise InputInvalid(f"a source is of kind rows or file, not {kind!r}", field="kind")
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    content: bytes | mmap.mmap = b""
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        if kind == "rows" or stamp[0] == 0:
            content = file.read()  # read once: what is checked is what is served
            chunks: Iterable[bytes] = [content]
        else:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            chunks = file_chunks(path)
        found = content_digests(chunks, [int(d["algorithm"]) for d in digests])
    for digest in digests:
        algorithm = int(digest["algorithm"])
        if found[algorithm] != raw(digest["value"]):
            words = f"{path} is not version {version}: its {ALGORITHMS[algorithm]} is 0x{found[algorithm].hex()}"
            raise ContentDiffers(f"{words}, published was {digest['value']}", version=version)
    if kind == "rows":
        assert isinstance(content, bytes)
        header, rows = _table(path, content)
        content = b""
    return Source(version, product, kind, path, media_type, header, rows, content, stamp)


def _table(path: Path, content: bytes) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    try:
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8")))
    except (UnicodeDecodeError, ValueError, csv.Error) as problem:
        raise InputInvalid(f"{path} is not a CSV file: {problem}") from None
    rows = [row for row in rows if row]
    if not rows:
        raise InputInvalid(f"{path} has no rows")
    return tuple(header), tuple(tuple(row) for row in rows)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
