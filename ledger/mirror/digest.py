"""One hash for all a mirror holds: two mirrors, or a mirror and a rebuild, compare by asking for it.

The rows of the mirror are only ever added: what a block writes is fixed by the block and what was there before. So a
chain over blocks with logs is enough, and going back is looking up an earlier one:

    D(0) = SHA-256("sluice-mirror-1" ‖ the deployment, RFC 8785)
    D(n) = SHA-256(D(n-1) ‖ block hash ‖ SHA-256(packed logs) ‖ SHA-256(state rows))

Packed logs are those of `mirror.packing`; they stand for settlements and all other facts, which repeat them. State rows
are those that hold from this block on, each as one line of JSON, sorted: [table, column, column, …] in the order of
the schema without `until`, amounts as text. The same lines come from a mirror's rows, which is how `fsck` checks them.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Table

from ledger.chain.deploy import Deployment
from ledger.core.database import Amount
from ledger.core.hashing import canonical_json
from ledger.core.ids import Hash32, raw

_encoder = msgspec.json.Encoder(order="deterministic")
_columns: dict[Table, list[tuple[str, bool]]] = {}


def start(deployment: Deployment) -> bytes:
    """The digest of an empty mirror."""
    return hashlib.sha256(b"sluice-mirror-1" + canonical_json(deployment.as_json())).digest()


def extend(before: bytes, block_hash: Hash32, packed: bytes, lines: Iterable[bytes]) -> bytes:
    """The digest after a block with logs."""
    rows = hashlib.sha256(b"\n".join(sorted(lines))).digest()
    return hashlib.sha256(before + raw(block_hash) + hashlib.sha256(packed).digest() + rows).digest()


def line(table: Table, row: dict[str, Any]) -> bytes:
    """A state row, `since` included, as it is hashed."""
    columns = _columns.get(table)
    if columns is None:
        columns = [(c.name, isinstance(c.type, Amount)) for c in table.c if c.name != "until"]
        _columns[table] = columns
    values = [str(row[name]) if amount else row[name] for name, amount in columns]
    return _encoder.encode([str(table.name), *values])
