"""The gateway a provider puts in front of its data: admit, deliver, and record every use before the answer leaves.

Who may call: `/v1/sessions` anyone, but only the consumer's signature opens one; everything else the holder of that
session's token, for its one authorization. What a request without a session asks for is neither served nor recorded.

Headers of a use: `Authorization: Bearer <token>`, `Sluice-Use-Id` (at least 32 characters of randomness),
`Sluice-Purpose` (a code). The answer carries `Sluice-Receipt`: base64url of the entry as JSON. The same use id asked
again with the same request gives the same receipt; with another request it is a conflict.
"""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ledger.core import codes
from ledger.core.errors import Conflict, InputInvalid, NotFound, SluiceError
from ledger.core.events import Block
from ledger.core.hashing import canonical_json, keccak256, sha256
from ledger.core.ids import ZERO_ADDRESS, Hash32, hash_of, parse_hash
from ledger.core.parse import load_json
from ledger.core.signing import Signer, recover
from ledger.core.terms import GatewaySession, Quad, UsageHead
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind, payload_hash, use_id_hash
from ledger.metering import admission, heads
from ledger.metering.admission import Standing
from ledger.metering.log import NO_UNITS, Entry, LogMovedOn, SignedHead, UsageLog, read_entries, receipt_of
from ledger.metering.sources import Served, Source
from ledger.mirror import queries, schema

SESSION_SECONDS = 3600
WRITERS = 10  # times another gateway may be faster before a use is given up
MIRROR_SECONDS = 30  # how long ago the mirror may have stood at the chain's head
Index = Annotated[int, Query(ge=0, lt=2**62)]
Count = Annotated[int, Query(ge=1, le=1000)]
MAX_BODY = 64 * 1024
RECEIPT_HEADER = "Sluice-Receipt"


class NotAuthenticated(SluiceError):
    """No session, or one that has ended."""

    code = "not_authenticated"


@dataclass(slots=True)
class Session:
    authorization_id: Hash32
    expires_at: float


class MirrorBehind(SluiceError):
    """The mirror may be older than an end of this authorization: nothing is served by it."""

    code = "mirror_behind"


class LogUnavailable(SluiceError):
    """The usage log could not be written; the use was neither served nor counted."""

    code = "log_unavailable"


_STATUS = {
    "not_authenticated": 401,
    "not_found": 404,
    "conflict": 409,
    "verification_failed": 409,
    "input_invalid": 422,
    "mirror_behind": 503,
    "log_unavailable": 503,
}


class Gateway:
    """What the routes share: sources, logs, sessions, and the provider's signer."""

    def __init__(
        self,
        *,
        mirror: Engine,
        usage: Engine,
        signer: Signer,
        domains: Mapping[str, Domain],
        sources: Sequence[Source],
        origin: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`domains` maps a ledger's name to its signing domain; `origin` is the URL consumers see."""
        self._mirror, self._usage, self._signer, self._domains = mirror, usage, signer, domains
        self._sources = {source.version: source for source in sources}
        self._origin = hash_of(keccak256(origin.encode()))
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}
        self._nonces: dict[str, int] = {}
        self._logs: dict[Hash32, UsageLog] = {}
        self._locks: dict[Hash32, asyncio.Lock] = {}
        self._standings: dict[tuple[Hash32, Hash32], tuple[Block | None, Standing, str]] = {}
        self._signed: dict[Hash32, Quad] = {}

    # ------------------------------------------------------------------------------------------ sessions

    def open_session(self, body: Any) -> dict[str, Any]:
        """Takes {session, signature}: the consumer's signature over GatewaySession, used once."""
        if not isinstance(body, dict) or set(body) != {"session", "signature"}:
            raise InputInvalid("a session request has the members session and signature")
        asked = GatewaySession.from_json(body["session"])
        now = int(self._clock())
        if asked.gateway != self._origin:
            raise NotAuthenticated("the session is signed for another gateway")
        if not now < asked.expires_at <= now + SESSION_SECONDS + 60:
            raise NotAuthenticated(f"a session ends within {SESSION_SECONDS} seconds from now")
        self._nonces = {n: until for n, until in self._nonces.items() if until > now}
        if asked.nonce in self._nonces:
            raise NotAuthenticated("this session request was used before")
        with self._mirror.connect() as connection:
            row = queries.authorization(connection, asked.authorization_id)
        if row["provider"] != self._signer.address:
            raise NotFound(f"authorization {asked.authorization_id} is not of this provider")
        if recover(asked.digest(self._domains[row["ledger"]]), str(body["signature"])) != row["consumer"]:
            raise NotAuthenticated("the session is not signed by the consumer")
        self._nonces[asked.nonce] = asked.expires_at
        token = secrets.token_urlsafe(32)
        self._sessions = {k: s for k, s in self._sessions.items() if s.expires_at > now}
        self._sessions[sha256(token.encode())] = Session(asked.authorization_id, asked.expires_at)
        return {"token": token, "expiresAt": asked.expires_at}

    def authenticate(self, request: Request, authorization_id: str | None = None) -> Hash32:
        """The authorization whose session token the request carries."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        session = self._sessions.get(sha256(token.encode()))
        if session is None or session.expires_at <= self._clock():
            raise NotAuthenticated("open a session first: POST /v1/sessions")
        if authorization_id is not None and parse_hash(authorization_id) != session.authorization_id:
            raise NotAuthenticated("the session is for another authorization")
        return session.authorization_id

    # ---------------------------------------------------------------------------------------------- uses

    def log(self, authorization_id: Hash32) -> UsageLog:
        if authorization_id not in self._logs:
            self._logs[authorization_id] = UsageLog(self._usage, authorization_id)
        return self._logs[authorization_id]

    def lock(self, authorization_id: Hash32) -> asyncio.Lock:
        return self._locks.setdefault(authorization_id, asyncio.Lock())

    async def use(self, request: Request, version: str) -> Response:
        """One use: served or refused, and in the log either way."""
        authorization_id = self.authenticate(request)
        use_id = request.headers.get("sluice-use-id", "")
        if len(use_id) < 32:
            raise InputInvalid("Sluice-Use-Id must carry at least 32 characters of randomness", field="Sluice-Use-Id")
        purpose = codes.code("purposes", request.headers.get("sluice-purpose", ""))
        source = self._sources.get(parse_hash(version, "version"))
        if source is None:
            raise NotFound(f"this gateway does not serve version {version}")
        served = source.answer(request.query_params)
        asked = {"path": request.url.path, "query": dict(request.query_params), "purpose": purpose.code}
        async with self.lock(authorization_id):
            for _ in range(WRITERS):
                try:
                    return self._record(authorization_id, use_id, purpose, source, served, asked)
                except LogMovedOn:
                    # Another gateway appended: what is next, and whether it may be, is decided anew.
                    self._logs.pop(authorization_id, None)
                    self._signed.pop(authorization_id, None)
                except SQLAlchemyError as problem:
                    # What the database holds now is not known here: read the log again before it is written again.
                    self._logs.pop(authorization_id, None)
                    words = "the usage log could not be written; ask again with the same use id"
                    raise LogUnavailable(words) from problem
        raise LogUnavailable("others write to this usage log all the time; ask again with the same use id")

    def _record(
        self,
        authorization_id: Hash32,
        use_id: str,
        purpose: codes.Code,
        source: Source,
        served: Served,
        asked: dict[str, Any],
    ) -> Response:
        """Decides, appends the leaf, and answers."""
        request_hash = hash_of(sha256(canonical_json(asked)))
        log = self.log(authorization_id)
        known = log.find(use_id_hash(use_id))
        if known is not None and known.request_hash != request_hash:
            raise Conflict("this use id was used for another request", useId=use_id)
        standing, version_status, chain_time = self._standing(authorization_id, source)
        # A chain may run ahead of this clock; its time decides what has ended.
        now = max(int(self._clock()), chain_time)
        signed = self._signed_units(authorization_id)
        # A use asked for again counts nothing, and is delivered again only while it would be allowed.
        units = served.units(source.meters) if known is None else NO_UNITS
        wanted = admission.Request(
            purpose.number, source.modality, source.product, source.version, version_status, units
        )
        refused = admission.refusal(standing, wanted, log.units, log.credits, signed, now)
        if known is not None:
            return _answer(known, served if refused is None else None)
        payload = asked | (
            {"outcome": "refused", "reason": codes.reason(refused).code, "reasonNumber": refused}
            if refused is not None
            else {
                "outcome": "served",
                "meters": list(source.meters),
                "responseSha256": "0x" + sha256(served.body).hex(),
                "bytes": len(served.body),
            }
        )
        salt = secrets.token_bytes(16)
        leaf = log.next_leaf(
            use_id_hash=use_id_hash(use_id),
            units=NO_UNITS if refused is not None else units,
            kind=Kind.USE if refused is None else Kind.REFUSAL,
            purpose=purpose.number,
            modality=source.modality,
            version=source.version,
            payload_hash=payload_hash(salt, payload),
            event_time=now,
            now=now,
        )
        domain = self._domains[standing.terms.ledger]
        entry = Entry(leaf, request_hash, salt, payload, self._signer.sign(receipt_of(leaf), domain))
        log.append(entry)
        return _answer(entry, served)

    def _standing(self, authorization_id: Hash32, source: Source) -> tuple[Standing, str, int]:
        """What the mirror says now, the version's status, and the time of the mirror's last block.

        Asked at every use, computed anew whenever the mirror has moved.
        """
        with self._mirror.connect() as connection:
            tip = queries.position(connection)
            age = _age(connection)
            if age > MIRROR_SECONDS:
                raise MirrorBehind(f"the mirror last stood at the chain's head {age} s ago; nothing is served by it")
            known = self._standings.get((authorization_id, source.version))
            if known is not None and known[0] == tip:
                return known[1], known[2], tip.timestamp if tip else 0
            row = queries.authorization(connection, authorization_id)
            terms = queries.terms_of(row)
            parties = [
                queries.one(connection, schema.participants, "participant", space=row["space"], wallet=wallet)
                for wallet in (row["provider"], row["consumer"], terms.metering_agent)
                if wallet != ZERO_ADDRESS
            ]
            version = queries.one(connection, schema.versions, "version", version=source.version)
            standing = Standing(
                terms,
                queries.rate_card(connection, terms.rate_card),
                row["status"],
                row["ended_how"],
                row["ended_at"],
                row["reserved"] - row["thawing"],
                any(party["suspended"] for party in parties),
                queries.approved_until(connection, authorization_id),
                queries.parents_end(connection, terms),
            )
        self._standings[authorization_id, source.version] = (tip, standing, version["status"])
        return standing, version["status"], tip.timestamp if tip else 0

    def mirror_age(self) -> int:
        """Seconds since the mirror last stood at the chain's head."""
        with self._mirror.connect() as connection:
            return _age(connection)

    def _signed_units(self, authorization_id: Hash32) -> Quad:
        """Units in the last head the consumer signed."""
        if authorization_id not in self._signed:
            with self._usage.connect() as connection:
                signed = heads.latest_signed(connection, authorization_id)
            self._signed[authorization_id] = signed.head.units if signed else NO_UNITS
        return self._signed[authorization_id]

    # --------------------------------------------------------------------------------------------- heads

    async def head(self, authorization_id: Hash32) -> SignedHead:
        """The head to sign next, signed by the provider.

        Leaves after the end of an authorization (refusals) go into a head of their own: one that adds units must not
        be dated after the end.
        """
        async with self.lock(authorization_id):
            log = self.log(authorization_id)
            with self._mirror.connect() as connection:
                row = queries.authorization(connection, authorization_id)
            with self._usage.connect() as connection:
                signed = heads.latest_signed(connection, authorization_id)
            size = len(log)
            in_time = log.size_at(row["ended_at"])
            if signed is None or in_time > signed.head.size:
                size = in_time or size
            head = log.head(size)
            made = SignedHead(head, self._signer.sign(head, self._domains[row["ledger"]]), None)
            heads.save(self._usage, made)
            return made

    def add_signature(self, authorization_id: Hash32, body: Any) -> SignedHead:
        """The consumer's signature under a head this gateway made."""
        if not isinstance(body, dict) or set(body) != {"head", "consumerSignature"}:
            raise InputInvalid("send the members head and consumerSignature")
        head = UsageHead.from_json(body["head"])
        if head.authorization_id != authorization_id or head.size >> 62:
            raise InputInvalid("the head is not one of this authorization", field="head")
        with self._mirror.connect() as connection:
            row = queries.authorization(connection, authorization_id)
        with self._usage.connect() as connection:
            known = heads.at_size(connection, authorization_id, head.size)
        if known.head != head:
            raise Conflict("this is not the head the gateway made", size=head.size)
        signature = str(body["consumerSignature"])
        heads.check_signature(head, row["consumer"], self._domains[row["ledger"]], signature)
        signed = SignedHead(head, known.provider_signature, signature)
        heads.save(self._usage, signed)
        self._signed.pop(authorization_id, None)
        return signed

    def entries(self, authorization_id: Hash32, first: int, limit: int) -> list[dict[str, Any]]:
        with self._usage.connect() as connection:
            return [e.as_json() for e in read_entries(connection, authorization_id, first, limit)]


def _age(mirror: Connection) -> int:
    return int(time.time()) - queries.checked_at(mirror)


def _answer(entry: Entry, served: Served | None) -> Response:
    """The data with its receipt, or a problem with it; `served` None: counted once, not delivered again."""
    receipt = base64.urlsafe_b64encode(json.dumps(entry.as_json(), separators=(",", ":")).encode()).decode()
    headers = {RECEIPT_HEADER: receipt}
    payload = entry.payload or {}
    if entry.leaf.kind == Kind.USE and served is not None:
        return Response(served.body, media_type=served.media_type, headers=headers)
    if entry.leaf.kind == Kind.USE:
        detail = f"this use was counted as leaf {entry.leaf.index}; it is not delivered again"
        return _problem(410, "DELIVERED_BEFORE", "delivered before", "已交付", detail, headers)
    number = int(payload.get("reasonNumber", 0))
    reason = codes.reason(number)
    status = 402 if number == admission.CREDIT_WINDOW_FULL else 403
    detail = f"use refused: {reason.en}; recorded as leaf {entry.leaf.index} of the usage log"
    return _problem(status, reason.code, reason.en, reason.zh, detail, headers)


def _problem(status: int, code: str, title: str, title_zh: str, detail: str, headers: dict[str, str]) -> Response:
    body = {"type": f"urn:sluice:refusal:{code}", "title": title, "titleZh": title_zh, "status": status, "code": code}
    return Response(json.dumps(body | {"detail": detail}), status, headers, "application/problem+json")


def create_gateway(gateway: Gateway) -> FastAPI:
    """The HTTP face of a gateway."""
    app = FastAPI(title="Sluice gateway", version="1", summary="Metered delivery of data products")

    @app.exception_handler(SluiceError)
    async def problem(_: Request, error: Exception) -> Response:
        code = getattr(error, "code", "error")
        status = _STATUS.get(code, 500)
        body = {"type": f"urn:sluice:{code}", "title": code, "status": status, "code": code, "detail": str(error)}
        return Response(json.dumps(body), status, media_type="application/problem+json")

    @app.post("/v1/sessions", summary="Open a session with the consumer's signature")
    async def open_session(request: Request) -> dict[str, Any]:
        return gateway.open_session(await _json(request))

    @app.get("/v1/data/{version}", summary="One metered use")
    async def use(version: str, request: Request) -> Response:
        return await gateway.use(request, version)

    @app.get("/v1/authorizations/{authorization_id}/head", summary="The head to sign next")
    async def head(authorization_id: str, request: Request) -> dict[str, Any]:
        return (await gateway.head(gateway.authenticate(request, authorization_id))).as_json()

    @app.post("/v1/authorizations/{authorization_id}/head", summary="Add the consumer's signature")
    async def sign(authorization_id: str, request: Request) -> dict[str, Any]:
        session = gateway.authenticate(request, authorization_id)
        return gateway.add_signature(session, await _json(request)).as_json()

    @app.get("/v1/authorizations/{authorization_id}/leaves", summary="Entries of the usage log")
    async def leaves(authorization_id: str, request: Request, first: Index = 0, limit: Count = 1000) -> dict[str, Any]:
        session = gateway.authenticate(request, authorization_id)
        return {"entries": gateway.entries(session, first, limit)}

    @app.get("/health", summary="Is the gateway serving; 503 while its mirror is behind")
    async def health(response: Response) -> dict[str, Any]:
        age = gateway.mirror_age()
        response.status_code = 200 if age <= MIRROR_SECONDS else 503
        return {"status": "ok" if age <= MIRROR_SECONDS else "degraded", "mirrorSecondsAgo": age}

    return app


async def _json(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise InputInvalid(f"the body is longer than {MAX_BODY} bytes")
    return load_json(bytes(body), "body")
