"""A usage log's head as a C2SP checkpoint (tlog-checkpoint): text that tools for transparency logs read.

The body is origin, size and root; units, credits and time stand in extension lines. A signature line carries the
EIP-712 signature over the same UsageHead, as algorithm 0xff of signed notes: who knows the domain can check it.
"""

import base64
from collections.abc import Mapping

from ledger.core.errors import InputInvalid
from ledger.core.hashing import sha256
from ledger.core.ids import Address, hash_of, parse_bytes, parse_hash, raw
from ledger.core.parse import parse_uint
from ledger.core.terms import Quad, UsageHead

ORIGIN = "sluice/"
ALGORITHM = b"\xffsluice-usage-head-v1"


def checkpoint(head: UsageHead, signatures: Mapping[Address, str]) -> str:
    """The signed note; `signatures` by whoever signed."""
    units = " ".join(map(str, head.units))
    body = (
        f"{ORIGIN}{head.authorization_id}\n{head.size}\n{base64.b64encode(raw(head.root)).decode()}\n"
        f"units {units}\ncredits {head.credits}\nas-of {head.as_of}\n"
    )
    lines = (
        f"— {signer} {base64.b64encode(_key_id(signer) + parse_bytes(signature, 'signature')).decode()}\n"
        for signer, signature in signatures.items()
    )
    return body + "\n" + "".join(lines)


def read_checkpoint(text: str) -> tuple[UsageHead, dict[str, str]]:
    """The head, and signatures by signer; they are not checked here. Raises InputInvalid for any other text."""
    body, separator, notes = text.partition("\n\n")
    lines = body.split("\n")
    names = [line.partition(" ")[0] for line in lines[3:]]
    if not separator or len(lines) != 6 or names != ["units", "credits", "as-of"] or not lines[0].startswith(ORIGIN):
        raise InputInvalid("this is not a checkpoint of a usage log", field="checkpoint")
    units = [parse_uint(n, "units", 64) for n in lines[3].split(" ")[1:]]
    if len(units) != 4:
        raise InputInvalid("a checkpoint has four units", field="units")
    a, b, c, d = units
    quad: Quad = (a, b, c, d)
    root = _decode(lines[2])
    if len(root) != 32:
        raise InputInvalid("a root is 32 bytes", field="root")
    head = UsageHead(
        authorization_id=parse_hash(lines[0].removeprefix(ORIGIN), "origin"),
        size=parse_uint(lines[1], "size", 64),
        units=quad,
        credits=parse_uint(lines[4].partition(" ")[2], "credits", 128),
        as_of=parse_uint(lines[5].partition(" ")[2], "as-of", 40),
        root=hash_of(root),
    )
    found = {}
    for line in notes.splitlines():
        mark, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        data = _decode(encoded)
        if mark != "—" or data[:4] != _key_id(signer):
            continue  # somebody else's kind of signature: notes may carry several
        found[signer] = "0x" + data[4:].hex()
    return head, found


def _key_id(signer: str) -> bytes:
    """The first four bytes of SHA-256(name ‖ 0x0A ‖ algorithm ‖ key), as signed notes name a key."""
    return sha256(signer.encode() + b"\n" + ALGORITHM + signer.encode())[:4]


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise InputInvalid("a checkpoint's hashes are base64", field="checkpoint") from None
