"""One tree of errors: a `code` for machines, a sentence for people.

SluiceError
├── InputInvalid            malformed hex, address, amount, file
├── NotFound                nothing has that id
├── Conflict                clashes with what is already recorded
├── Refused                 understood, and not allowed; carries the reason
├── ChainError              ledger.chain: node down, wrong chain, not deployed, reverted
├── MirrorError             ledger.mirror: behind, reorg, corrupt
└── VerificationFailed      ledger.audit and clients: a proof, digest or signature does not hold
"""

from typing import Any


class SluiceError(Exception):
    """The root. `details` are values a program may want, all JSON-able."""

    code = "error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message


class InputInvalid(SluiceError):
    """The input is malformed; nothing was done."""

    code = "input_invalid"


class NotFound(SluiceError):
    """Nothing has that id."""

    code = "not_found"


class Conflict(SluiceError):
    """The request clashes with what is already recorded."""

    code = "conflict"


class Refused(SluiceError):
    """Understood, and not allowed."""

    code = "refused"


class ChainError(SluiceError):
    """Something about the node or the chain."""

    code = "chain_error"


class MirrorError(SluiceError):
    """Something about the mirror of the chain."""

    code = "mirror_error"


class DatabaseCorrupt(SluiceError):
    """The database file is damaged or is not one of ours."""

    code = "database_corrupt"


class VerificationFailed(SluiceError):
    """A proof, digest, sum or signature does not hold."""

    code = "verification_failed"
