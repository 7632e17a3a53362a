"""Who reads: Sign-In with Ethereum (EIP-4361), for wallets with a key and for contract wallets (EIP-1271).

A nonce is given once and taken once. What a session is known by is a random token; the database has its digest only.
"""

import secrets
import string
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import BigInteger, Column, Engine, LargeBinary, MetaData, String, Table, delete, insert, select

from ledger.chain.client import Chain, NodeError
from ledger.chain.decode import Reverted
from ledger.chain.deploy import Deployment
from ledger.core import siwe
from ledger.core.database import Target, open_database, writing
from ledger.core.errors import InputInvalid, SluiceError
from ledger.core.hashing import sha256
from ledger.core.ids import Address, Hash32, parse_bytes, raw
from ledger.core.signing import recover
from ledger.core.siwe import SignIn
from ledger.mirror.store import schema_name

SECONDS = 12 * 3600  # a session's
NONCE_SECONDS = siwe.MAX_AGE
MOST_NONCES = 10_000  # at a time
REMEMBERED = 30  # seconds a token that was looked up is not looked up again
GAS = 200_000  # for a contract wallet's isValidSignature
MAGIC = bytes.fromhex("1626ba7e")  # EIP-1271

metadata = MetaData()

nonces = Table(
    "nonces",
    metadata,
    Column("nonce", String(32), primary_key=True),
    Column("expires_at", BigInteger, nullable=False, index=True),  # seconds
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("wallet", String(42), nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),  # seconds
)


class NotSignedIn(SluiceError):
    """The reader must say who it is."""

    code = "not_signed_in"


class Busy(SluiceError):
    """Too much of something at once; try again later."""

    code = "busy"


@dataclass(frozen=True, slots=True)
class Session:
    wallet: Address
    expires_at: int


def open_sessions(target: Target, deployment: Deployment) -> Engine:
    """Opens or creates the database of sessions."""
    return open_database(target, metadata, 1, f"{schema_name(deployment)}_sessions")


class Sessions:
    """Signs readers in. `origin` is this server as its readers see it, scheme and host."""

    def __init__(
        self, engine: Engine, chain: Chain, chain_id: int, origin: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine, self._chain, self._chain_id, self._origin = engine, chain, chain_id, origin
        self._clock = clock
        self._known: dict[bytes, tuple[Session, float]] = {}
        self._closings = 0
        self._lock = threading.Lock()

    def nonce(self) -> tuple[str, int]:
        """A new nonce, and until when it may be used."""
        now = int(self._clock())
        letters = string.ascii_letters + string.digits
        made = "".join(secrets.choice(letters) for _ in range(20))
        with writing(self._engine) as connection:
            connection.execute(delete(nonces).where(nonces.c.expires_at <= now))
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            # The oldest give way: whoever asks for nonces and does not use them keeps nobody else out.
            newest_first = select(nonces.c.nonce).order_by(nonces.c.expires_at.desc(), nonces.c.nonce)
            connection.execute(delete(nonces).where(nonces.c.nonce.in_(newest_first.offset(MOST_NONCES - 1))))
            connection.execute(insert(nonces).values(nonce=made, expires_at=now + NONCE_SECONDS))
        return made, now + NONCE_SECONDS

    def open(self, text: str, signature: str) -> tuple[str, Session]:
        """A session's token for a signed message.

        Raises:
            InputInvalid: the message is malformed, or for another server, chain or time.
            NotSignedIn: its nonce is not open, or the wallet did not sign it.
        """
        message, now = SignIn.parse(text), self._clock()
        domain = urlsplit(self._origin).netloc
        message.check(domain=domain, uri=self._origin, chain_id=self._chain_id, now=now)
        open_nonce = select(nonces).where(nonces.c.nonce == message.nonce, nonces.c.expires_at > int(now))
        with self._engine.connect() as connection:
            if connection.execute(open_nonce).first() is None:  # before a contract wallet is asked
                raise NotSignedIn("the message's nonce was used before, or is too old: ask for another")
        if not self.signed(message.address, siwe.personal_digest(text), signature):
            raise NotSignedIn(f"the message is not signed by {message.address}")
        expires = int(now) + SECONDS
        if message.expiration_time is not None:
            expires = min(expires, int(siwe.seconds(message.expiration_time)))
        token = secrets.token_urlsafe(32)
        made = Session(message.address, expires)
        with writing(self._engine) as connection:
            taken = connection.execute(
                delete(nonces).where(nonces.c.nonce == message.nonce, nonces.c.expires_at > int(now))
            )
            if taken.rowcount != 1:
                raise NotSignedIn("the message's nonce was used before, or is too old: ask for another")
            row = {"token_hash": sha256(token.encode()), "wallet": made.wallet, "expires_at": expires}
            connection.execute(insert(sessions).values(**row))
        return token, made

    def signed(self, wallet: Address, digest: Hash32, signature: str) -> bool:
        """By the wallet's key, else by the word of the contract at its address."""
        try:
            if recover(digest, signature) == wallet:
                return True
        except InputInvalid:
            pass
        data = parse_bytes(signature, "signature")
        padded = data + bytes(-len(data) % 32)
        call = MAGIC + raw(digest) + (64).to_bytes(32, "big") + len(data).to_bytes(32, "big") + padded
        request = {"to": wallet, "data": "0x" + call.hex(), "gas": hex(GAS)}
        try:
            answer = bytes.fromhex(self._chain.rpc("eth_call", request, "latest")[2:])
        except (Reverted, NodeError):
            return False
        return len(answer) == 32 and answer == MAGIC + bytes(28)

    def find(self, token: str) -> Session | None:
        """The session a token is of, if it is still open."""
        now, key = self._clock(), sha256(token.encode())
        known = self._known.get(key)
        if known is not None and now < known[1]:
            return known[0]
        closings = self._closings
        with self._engine.connect() as connection:
            row = connection.execute(select(sessions).where(sessions.c.token_hash == key)).first()
        if row is None or row.expires_at <= now:
            self._known.pop(key, None)
            return None
        found = Session(Address(row.wallet), row.expires_at)
        with self._lock:
            if len(self._known) > 10_000:
                self._known.clear()
            if self._closings == closings:  # else it may have been closed since it was read
                self._known[key] = (found, min(now + REMEMBERED, row.expires_at))
        return found

    def close(self, token: str) -> None:
        """Ends a session."""
        key = sha256(token.encode())
        with writing(self._engine) as connection:
            connection.execute(delete(sessions).where(sessions.c.token_hash == key))
        with self._lock:
            self._closings += 1
            self._known.pop(key, None)
