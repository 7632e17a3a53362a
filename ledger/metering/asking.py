"""What a request asks for, read from its headers and recorded in one form: the same for who asks and who serves.

`Sluice-Use-Id` (at least 32 characters of randomness), `Sluice-Purpose` (a code), and where the policy asks for them
`Sluice-Region` and `Sluice-Evidence: name=0x…, …` (digests of 32 bytes).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from ledger.core.codes import Code, code
from ledger.core.errors import InputInvalid
from ledger.core.hashing import sha256
from ledger.core.ids import Hash32, parse_hash
from ledger.metering.personal import refuse_personal

LONGEST = 4_096  # characters of path and query
MOST_EVIDENCE = 8
SHORTEST_ID, LONGEST_ID = 32, 200

USE_ID, PURPOSE, REGION, EVIDENCE = "sluice-use-id", "sluice-purpose", "sluice-region", "sluice-evidence"


def asked_of(
    method: str,
    path: str,
    query: str,
    purpose: Code,
    *,
    region: str = "",
    evidence: Mapping[str, Hash32] | None = None,
    range_: str = "",
    body: bytes = b"",
) -> dict[str, Any]:
    """The request as it is recorded. `path` is relative to the gateway's origin, decoded; `query` as it was sent;
    `range_` the Range it asks for.

    Raises:
        InputInvalid: it is too long, or holds personal data.
    """
    if len(path) + len(query) > LONGEST:
        raise InputInvalid(f"path and query may have {LONGEST} characters", field="path")
    if len(region) > 64:
        raise InputInvalid("a region is a short code", field="region")
    asked: dict[str, Any] = {"method": method, "path": path, "query": query, "purpose": purpose.code}
    if region:
        asked["region"] = region
    if evidence:
        asked["evidence"] = dict(evidence)
    if range_:
        asked["range"] = range_[:100]
    if body:
        asked["bodySha256"] = "0x" + sha256(body).hex()
    refuse_personal(asked, "request")
    if query:
        for name, value in parse_qsl(query, keep_blank_values=True):  # what the escapes stand for
            refuse_personal({name: value}, "query")
    return asked


def check_use_id(use_id: str) -> str:
    """Raises InputInvalid if it has not the room for 128 bits of randomness, or holds personal data."""
    if not SHORTEST_ID <= len(use_id) <= LONGEST_ID:
        words = f"a use id must carry at least {SHORTEST_ID} characters of randomness, and at most {LONGEST_ID}"
        raise InputInvalid(words, field="useId")
    refuse_personal(use_id, "useId")
    return use_id


def parse_evidence(text: str) -> dict[str, Hash32]:
    """`subjectAuthorization=0x…, outputReview=0x…`. Raises InputInvalid for any other form."""
    if not text:
        return {}
    found: dict[str, Hash32] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if not name.isidentifier() or len(name) > 64 or name in found:
            raise InputInvalid("evidence is given as name=0x…, each name once", field="evidence")
        found[name] = parse_hash(value, f"evidence {name}")
    if len(found) > MOST_EVIDENCE:
        raise InputInvalid(f"a use carries at most {MOST_EVIDENCE} pieces of evidence", field="evidence")
    return found


def purpose_of(text: str) -> Code:
    return code("purposes", text)
