"""Who is asking: sessions at a gateway, opened by a signature, kept as digests, shared by its processes.

A consumer's wallet opens a session for one authorization; a session key of it (an agent) does so within the caps its
principal signed; the provider's wallet, or a session key of it, opens one to report uses metered elsewhere.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ledger.core.database import insert_unless, writing
from ledger.core.errors import InputInvalid, NotFound, Refused, SluiceError
from ledger.core.hashing import keccak256, sha256
from ledger.core.ids import ZERO_HASH, Address, Hash32, hash_of
from ledger.core.signing import Signer, is_signed_by, recover
from ledger.core.terms import AgentGrant, GatewaySession
from ledger.core.typed_data import Domain
from ledger.metering import schema
from ledger.metering.standing import session_keys
from ledger.mirror import queries
from ledger.mirror.queries import Row

SESSION_SECONDS = 3600
REMEMBERED = 20_000  # sessions kept in memory; others are read again

CONSUMER, AGENT, PROVIDER = "CONSUMER", "AGENT", "PROVIDER"


class NotAuthenticated(SluiceError):
    """No session, or one that has ended."""

    code = "not_authenticated"


@dataclass(frozen=True, slots=True)
class Session:
    """`authorization_id` zero: all of the provider's."""

    authorization_id: Hash32
    signer: Address
    wallet: Address  # whose word the signer's is
    role: str
    expires_at: int


def origin_hash(origin: str) -> Hash32:
    """How a session names the gateway it is for: Keccak-256 of the URL its consumers see."""
    return hash_of(keccak256(origin.rstrip("/").encode()))


ASKED_SECONDS = 2700  # less than a gateway allows: the two clocks may differ


def session_request(
    authorization_id: Hash32, gateway: str, signer: Signer, domain: Domain, now: float
) -> dict[str, Any]:
    """What opens a session at a gateway: `POST /v1/sessions` takes it once."""
    session = GatewaySession(
        authorization_id=authorization_id,
        gateway=origin_hash(gateway),
        nonce=hash_of(secrets.token_bytes(32)),
        expires_at=int(now) + ASKED_SECONDS,
    )
    return {"session": session.as_json(), "signature": signer.sign(session, domain)}


class Sessions:
    """Safe for several threads and processes: what counts is in the database."""

    def __init__(
        self,
        *,
        mirror: Engine,
        usage: Engine,
        provider: Address,
        domains: Mapping[str, Domain],
        origin: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`domains` maps a ledger's name to its signing domain; `origin` is the URL consumers see."""
        self._mirror, self._usage, self._provider, self._domains = mirror, usage, provider, domains
        self._origin, self._clock = origin_hash(origin), clock
        self._known: OrderedDict[bytes, Session] = OrderedDict()

    def open(self, body: Any) -> dict[str, Any]:
        """Takes {session, signature} and, of an agent, {grant, grantSignature}. A signed request opens one session."""
        if not isinstance(body, dict) or set(body) not in (_MEMBERS, _MEMBERS | _GRANT):
            raise InputInvalid("a session request has the members session and signature; an agent's also its grant")
        asked = GatewaySession.from_json(body["session"])
        now = int(self._clock())
        if asked.gateway != self._origin:
            raise NotAuthenticated("the session is signed for another gateway")
        if not now < asked.expires_at <= now + SESSION_SECONDS + 60:
            raise NotAuthenticated(f"a session ends within {SESSION_SECONDS} seconds from now")
        with self._mirror.connect() as connection:
            signer, wallet, role = self._who(connection, asked, str(body["signature"]), body, now)
        token = secrets.token_urlsafe(32)
        row = {
            "token_hash": hash_of(sha256(token.encode())),
            "nonce": asked.nonce,
            "authorization": asked.authorization_id,
            "signer": signer,
            "wallet": wallet,
            "role": role,
            "expires_at": asked.expires_at,
        }
        table = schema.sessions
        try:
            with writing(self._usage) as connection:
                connection.execute(delete(table).where(table.c.expires_at <= now))
                connection.execute(insert(table).values(**row))
        except IntegrityError:
            raise NotAuthenticated("this session request was used before") from None
        return {"token": token, "expiresAt": asked.expires_at, "role": role}

    def of_header(self, authorization: str, *, to_use: bool = False) -> Session:
        """As `find`, by an Authorization header (RFC 6750)."""
        if authorization[:7].lower() != "bearer ":
            raise NotAuthenticated("open a session first: POST /v1/sessions")
        return self.find(authorization[7:].strip(), to_use=to_use)

    def find(self, token: str, *, to_use: bool = False) -> Session:
        """The session with this token. A key that may not sign any more ends its sessions with it.

        Args:
            to_use: data is asked for: an agent whose key was revoked is let in, to be refused in the log.

        Raises:
            NotAuthenticated: there is none, or it has ended.
        """
        key = sha256(token.encode())
        session = self._known.get(key)
        if session is None:
            table = schema.sessions
            query = select(table).where(table.c.token_hash == hash_of(key))
            with self._usage.connect() as connection:
                row = connection.execute(query).mappings().first()
            if row is not None:
                session = Session(row["authorization"], row["signer"], row["wallet"], row["role"], row["expires_at"])
                self._known[key] = session
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        if session is None or session.expires_at <= self._clock():
            raise NotAuthenticated("open a session first: POST /v1/sessions")
        if session.signer != session.wallet and not (to_use and session.role == AGENT):
            with self._mirror.connect() as connection:
                if not self._is(connection, session.signer, session.wallet, int(self._clock())):
                    raise NotAuthenticated("the key that opened this session may not sign any more")
        return session

    def _who(
        self, connection: Connection, asked: GatewaySession, signature: str, body: Mapping[str, Any], now: int
    ) -> tuple[Address, Address, str]:
        if asked.authorization_id == ZERO_HASH:
            signer = recover(asked.digest(self._domains["UsageLedger"]), signature)
            if not self._is(connection, signer, self._provider, now):
                raise NotAuthenticated("only the provider opens a session for all of its authorizations")
            return signer, self._provider, PROVIDER
        row = queries.authorization(connection, asked.authorization_id)
        if row["provider"] != self._provider:
            raise NotFound(f"authorization {asked.authorization_id} is not of this provider")
        signer = recover(asked.digest(self._domains[row["ledger"]]), signature)
        if signer == row["consumer"]:
            return signer, signer, CONSUMER
        if self._is(connection, signer, self._provider, now):
            return signer, self._provider, PROVIDER
        if not self._is(connection, signer, row["consumer"], now):
            raise NotAuthenticated("the session is not signed by the consumer")
        if "grant" in body:
            self.grant(body, row)
        if self.granted(asked.authorization_id, signer) is None:
            raise NotAuthenticated("an agent needs a grant signed by its principal: send grant and grantSignature")
        return signer, row["consumer"], AGENT

    @staticmethod
    def _is(connection: Connection, signer: Address, wallet: Address, now: int) -> bool:
        key = session_keys(connection, wallet).get(signer)
        return signer == wallet or (key is not None and key.expiry >= now)

    # -------------------------------------------------------------------------------------------- grants

    def grant(self, body: Mapping[str, Any], row: Row | None = None) -> AgentGrant:
        """Takes {grant, grantSignature}: what the consumer lets an agent spend. The last one issued counts.

        Raises:
            Refused: not signed by the consumer, or a later one is known.
        """
        grant = AgentGrant.from_json(body["grant"])
        if row is None:
            with self._mirror.connect() as connection:
                row = queries.authorization(connection, grant.authorization_id)
        if grant.authorization_id != row["authorization"]:
            raise Refused("the grant is for another authorization")
        if not is_signed_by(row["consumer"], grant, self._domains[row["ledger"]], str(body["grantSignature"])):
            raise Refused("the grant is not signed by the consumer")
        table = schema.grants
        place = (table.c.authorization == grant.authorization_id) & (table.c.key == grant.key)
        with writing(self._usage) as connection:
            known = connection.execute(select(table.c.grant).where(place)).scalar()
            if known is not None:
                # Of two of the same second nobody knows which was meant last: the one that is here stays.
                had = AgentGrant.from_json(known)
                if had.issued_at >= grant.issued_at and had != grant:
                    raise Refused("a later grant for this agent is known, or one of the same second")
                connection.execute(update(table).where(place).values(grant=grant.as_json()))
            else:
                given = {"authorization": grant.authorization_id, "key": grant.key, "grant": grant.as_json()}
                insert_unless(connection, table, given)
        return grant

    def granted(self, authorization_id: Hash32, key: Address) -> AgentGrant | None:
        """What an agent may spend now, as its principal last signed it."""
        table = schema.grants
        query = select(table.c.grant).where(table.c.authorization == authorization_id, table.c.key == key)
        with self._usage.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else AgentGrant.from_json(found)


_MEMBERS = {"session", "signature"}
_GRANT = {"grant", "grantSignature"}
