"""Sign-In with Ethereum (EIP-4361): the text a wallet signs to say who reads, and what it must say to be believed.

A message has one written form: what is parsed gives the same bytes again, or it is refused.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, checksum, hash_of, parse_address

SKEW = 60  # seconds a wallet's clock may be ahead
MAX_AGE = 600  # seconds after which a message that was signed is too old to be used

# The characters of RFC 3986, which EIP-4361 is made of: no others, that could hide or turn round what a wallet shows.
_URI = r"[!#-;=?-Z\[\]_a-z~]+"
_STATEMENT = r"[ !#$&-;=?-Z\[\]_a-z~]+"

_FORM = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<domain>[!#-.0-;=?-Z\[\]_a-z~]+)"
    r" wants you to sign in with your Ethereum account:\n"
    rf"(?P<address>0x[0-9a-fA-F]{{40}})\n\n(?:(?P<statement>{_STATEMENT})\n)?\n"
    rf"URI: (?P<uri>{_URI})\n"
    r"Version: (?P<version>[!-~]+)\nChain ID: (?P<chain_id>[1-9][0-9]{0,77})\n"
    r"Nonce: (?P<nonce>[A-Za-z0-9]{8,64})\nIssued At: (?P<issued_at>\S+)"
    r"(?:\nExpiration Time: (?P<expiration_time>\S+))?(?:\nNot Before: (?P<not_before>\S+))?"
    r"(?:\nRequest ID: (?P<request_id>[!$-.0-;=@-Z_a-z~]*))?"
    rf"(?:\nResources:(?P<resources>(?:\n- {_URI})*))?\Z"
)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-5][0-9])\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A message. Times are RFC 3339 as they were written."""

    domain: str
    address: Address
    uri: str
    chain_id: int
    nonce: str
    issued_at: str
    scheme: str | None = None
    statement: str | None = None
    version: str = "1"
    expiration_time: str | None = None
    not_before: str | None = None
    request_id: str | None = None
    resources: tuple[str, ...] | None = None

    def text(self) -> str:
        """What the wallet shows and signs."""
        origin = f"{self.scheme}://{self.domain}" if self.scheme else self.domain
        lines = [
            f"{origin} wants you to sign in with your Ethereum account:",
            checksum(self.address),
            "",
            *([self.statement] if self.statement else []),
            "",
            f"URI: {self.uri}",
            f"Version: {self.version}",
            f"Chain ID: {self.chain_id}",
            f"Nonce: {self.nonce}",
            f"Issued At: {self.issued_at}",
        ]
        if self.expiration_time is not None:
            lines.append(f"Expiration Time: {self.expiration_time}")
        if self.not_before is not None:
            lines.append(f"Not Before: {self.not_before}")
        if self.request_id is not None:
            lines.append(f"Request ID: {self.request_id}")
        if self.resources is not None:
            lines += ["Resources:", *(f"- {resource}" for resource in self.resources)]
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> "SignIn":
        """Raises InputInvalid if it is not the one written form of a message."""
        found = _FORM.match(text) if len(text) <= 4096 else None
        if found is None:
            raise InputInvalid("the message is not in the form of EIP-4361", field="message")
        fields: dict[str, Any] = found.groupdict()
        fields["address"] = parse_address(fields["address"], "message address")
        fields["chain_id"] = int(fields["chain_id"])
        if fields["resources"] is not None:
            fields["resources"] = tuple(fields["resources"].split("\n- ")[1:])
        made = cls(**fields)
        for time in (made.issued_at, made.expiration_time, made.not_before):
            if time is not None:
                seconds(time)
        if made.text() != text:
            raise InputInvalid(
                "the message is not in its one written form (is the address in EIP-55?)", field="message"
            )
        return made

    def check(self, *, domain: str, uri: str, chain_id: int, now: float) -> None:
        """Raises InputInvalid, in words, if the message is for another server or chain, or for another time."""
        if self.domain != domain or not (self.uri == uri or self.uri.startswith(uri + "/")):
            raise InputInvalid(f"the message is for {self.domain} ({self.uri}), this is {uri}", field="message")
        if self.scheme is not None and self.scheme != uri.split("://", maxsplit=1)[0]:
            raise InputInvalid(f"the message is for {self.scheme}, this is {uri}", field="message")
        if self.version != "1":
            raise InputInvalid(f"version {self.version} of EIP-4361 is not known; 1 is", field="message")
        if self.chain_id != chain_id:
            raise InputInvalid(f"the message is for chain {self.chain_id}, this is chain {chain_id}", field="message")
        issued = seconds(self.issued_at)
        if not issued - SKEW <= now <= issued + MAX_AGE:
            raise InputInvalid(f"the message was signed at {self.issued_at}: sign a new one", field="message")
        if self.expiration_time is not None and now >= seconds(self.expiration_time):
            raise InputInvalid(f"the message expired at {self.expiration_time}", field="message")
        if self.not_before is not None and now < seconds(self.not_before):
            raise InputInvalid(f"the message holds from {self.not_before} on", field="message")


def seconds(time: str) -> float:
    """RFC 3339 as seconds. Raises InputInvalid."""
    try:
        if not _TIME.match(time):
            raise ValueError
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        raise InputInvalid(f"{time[:60]!r} is not a time of RFC 3339", field="message") from None


def written(at: float) -> str:
    """Seconds as RFC 3339, UTC."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def personal_digest(text: str) -> Hash32:
    """What a wallet signs for a text (EIP-191, version 0x45)."""
    data = text.encode()
    return hash_of(keccak256(b"\x19Ethereum Signed Message:\n" + str(len(data)).encode() + data))
