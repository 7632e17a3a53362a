"""ASGI middleware that meters an application's routes: what is delivered is counted, recorded, receipted, then sent.

A request to a metered route carries `Authorization: Bearer <token>` of a session, and what `ledger.metering.asking`
reads. The answer carries `Sluice-Receipt`: base64url of the entry as JSON, and `Sluice-Sign` with the log's size when
the consumer should sign a head. The application may state what only it knows: `Sluice-Count: persons=3`.

The same use id asked again with the same request gives the same receipt; with another request it is a conflict. Nothing
leaves before it is recorded. A route that streams is the exception: there the end of the answer is held back until what
was handed over is recorded, and its receipt is asked for (`GET /v1/uses/{use id}`).
"""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from re import Pattern
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from msgspec.structs import replace
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from ledger.core.codes import code
from ledger.core.errors import InputInvalid, SluiceError
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Hash32, hash_of, parse_hash
from ledger.core.terms import Quad
from ledger.core.usage_leaf import Kind, use_id_hash
from ledger.metering import admission, asking, x402
from ledger.metering.admission import Request
from ledger.metering.answers import (
    RECEIPT,
    SIGN,
    STATED,
    Answer,
    Answers,
    Header,
    Relay,
    again,
    capture,
    first,
    read_body,
    uncompressed,
)
from ledger.metering.counting import Counter, Delivered, count, parse_counter, parse_stated
from ledger.metering.gateway import Gateway
from ledger.metering.log import NO_UNITS, Entry
from ledger.metering.problems import problem_of, refusal_of
from ledger.metering.recorder import Recorded, Use
from ledger.metering.sessions import AGENT, PROVIDER, NotAuthenticated, Session

PAYMENT = x402.SIGNATURE.encode()
MOST_BODY = 1 << 20  # bytes of a request
SAFE = ("GET", "HEAD")  # may be asked of the application twice


@dataclass(frozen=True, slots=True)
class Metered:
    """A route that is metered, in one line. What its meters count is in the policy; `counts` may name those of them
    that this route moves: the others stay where they are."""

    path: str  # as Starlette writes it: /parking/{lot}
    version: Hash32 | None = None  # of the product served there; None: it is the path's {version}
    modality: str = "API_PULL"
    methods: tuple[str, ...] = ("GET",)
    counts: tuple[str, ...] | None = None
    count_failures: bool = False  # answers of 400 and more are uses too
    stream: bool = False
    count_aborted: bool = False  # of a stream that breaks off, what was handed over is a use
    hold: Quad = NO_UNITS  # units that a stream may come to, held while it runs


class MeterMiddleware:
    """`app.add_middleware(MeterMiddleware, gateway=gateway, routes=[Metered("/parking/{lot}", version="0x…")])`."""

    def __init__(self, app: ASGIApp, gateway: Gateway, routes: Sequence[Metered]) -> None:
        """Raises InputInvalid for a route that cannot be metered as it is written."""
        self._app, self._gateway = app, gateway
        self._routes = [_Route(rule) for rule in routes]
        self._answers = Answers()
        self._refused: set[Hash32] = set()  # authorizations whose last use was refused: they are asked for first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route in self._routes:
                found = route.match(scope)
                if found is not None:
                    try:
                        await self._metered(route, found, scope, receive, send)
                    except NotAuthenticated as problem:
                        # Who brings nothing at all is told how to begin.
                        nothing = not first(scope["headers"], b"authorization")
                        required = self._gateway.authorization_required(scope["path"]) if nothing else None
                        await problem_of(problem, required)(scope, receive, send)
                    except SluiceError as problem:
                        await problem_of(problem)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _metered(
        self, route: "_Route", parameters: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        safe = scope["method"] in SAFE
        session = self._session(scope)
        body = b"" if safe else await read_body(receive, MOST_BODY)
        use = self._asked(route, parameters, scope, session, body)
        # For the application: who is served, under what, for what.
        scope = {**scope, "sluice": {"authorization": use.authorization_id, "purpose": use.request.purpose}}
        payment = first(scope["headers"], PAYMENT)
        if payment:
            await run_sync(self._gateway.take_payment, use.authorization_id, payment)
        record = self._gateway.recorder.record
        if not safe or route.rule.stream or use.authorization_id in self._refused:
            # Asked before the application works, or streams: who is refused anyway costs it nothing.
            before = await record(replace(use, only_ask=True))
            if before.entry is not None and not (before.known and safe):
                await self._refuse(before, use, scope, receive, send, None)
                return
        if route.rule.stream:
            await self._stream(route, use, scope, again(body, receive) if body else receive, send)
            return
        began = time.monotonic()
        answer = await capture(self._app, scope, again(body, receive))
        if answer.status >= 400 and not route.rule.count_failures:
            await answer.send(send)  # a failed answer is no use
            return
        stated = parse_stated(answer.header(STATED))
        given = Delivered(answer.body, answer.header(b"content-type"), time.monotonic() - began, stated)
        use = self._delivered(route, use, answer.status, given, len(answer.body), sha256(answer.body).hex())
        recorded = await record(use)
        if recorded.known or recorded.reason is not None:
            await self._refuse(recorded, use, scope, receive, send, answer)
            return
        self._refused.discard(use.authorization_id)
        self._answers.keep(use.authorization_id, use.use_id_hash, answer)
        await answer.send(send, self._receipt(recorded))

    async def _stream(self, route: "_Route", use: Use, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the answer on. One that breaks off has no end."""
        recorder, hold = self._gateway.recorder, route.rule.hold
        relay, began = Relay(send, route.rule.count_failures), time.monotonic()
        recorder.hold(use.authorization_id, hold)
        try:
            await self._app(uncompressed(scope), receive, relay)
        finally:
            a, b, c, d = (-n for n in hold)
            recorder.hold(use.authorization_id, (a, b, c, d))
            if relay.counts and relay.status and (relay.complete or route.rule.count_aborted):
                media, stated = first(relay.headers, b"content-type"), parse_stated(first(relay.headers, STATED))
                given = Delivered(b"", media, time.monotonic() - began, stated, length=relay.length)
                use = self._delivered(route, use, relay.status, given, relay.length, relay.digest.hexdigest())
                recorded = await recorder.record(use)
                if recorded.reason is None and relay.complete:
                    await relay.finish()
                elif recorded.reason is not None:
                    self._refused.add(use.authorization_id)

    # --------------------------------------------------------------------------------------------- parts

    def _session(self, scope: Scope) -> Session:
        given = first(scope["headers"], b"authorization")
        if given[:7].lower() != "bearer ":
            raise NotAuthenticated("open a session first: POST /v1/sessions")
        session = self._gateway.sessions.find(given[7:].strip())
        if session.role == PROVIDER:
            raise NotAuthenticated("a provider's session reports uses; it does not use data")
        return session

    def _asked(
        self, route: "_Route", parameters: Mapping[str, str], scope: Scope, session: Session, body: bytes
    ) -> Use:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name.startswith(b"sluice-")}
        use_id = asking.check_use_id(headers.get(b"sluice-use-id", ""))
        purpose = asking.purpose_of(headers.get(b"sluice-purpose", ""))
        region, evidence = headers.get(b"sluice-region", ""), asking.parse_evidence(headers.get(b"sluice-evidence", ""))
        query = scope["query_string"].decode("latin-1")
        range_ = first(scope["headers"], b"range")
        asked = asking.asked_of(
            scope["method"],
            scope["path"],
            query,
            purpose,
            region=region,
            evidence=evidence,
            range_=range_,
            body=body,
        )
        written = canonical_json(asked)
        agent = None
        if session.role == AGENT:
            agent = self._gateway.sessions.granted(session.authorization_id, session.signer)
        return Use(
            authorization_id=session.authorization_id,
            version=route.rule.version or parse_hash(parameters.get("version", ""), "version"),
            use_id_hash=use_id_hash(use_id),
            request_hash=hash_of(sha256(written)),
            request=Request(purpose.number, route.modality, NO_UNITS, region, frozenset(evidence), agent=agent),
            asked=written,
            agent=session.signer if session.role == AGENT else None,
        )

    def _delivered(self, route: "_Route", use: Use, status: int, given: Delivered, length: int, digest: str) -> Use:
        """The use with what was really delivered: its units, and the digest of its bytes."""
        units = route.count(self._gateway.meters(use.authorization_id), given)
        delivered: dict[str, Any] = {"status": status, "responseSha256": "0x" + digest, "bytes": length}
        stated = dict(given.stated)
        if stated:
            delivered["stated"] = {word: str(n) for word, n in stated.items()}
        return replace(use, request=replace(use.request, units=units, stated=stated), delivered=delivered)

    async def _refuse(
        self, recorded: Recorded, use: Use, scope: Scope, receive: Receive, send: Send, fresh: Answer | None
    ) -> None:
        """A use that is refused; or one that was counted before: with the data it was counted for, if it is there."""
        entry = recorded.entry
        assert entry is not None
        if recorded.reason is None and entry.leaf.kind == Kind.USE:
            counted_for = (entry.payload or {}).get("responseSha256")
            for answer in (self._answers.find(use.authorization_id, use.use_id_hash), fresh):
                if answer is not None and "0x" + sha256(answer.body).hex() == counted_for:
                    await answer.send(send, self._receipt(recorded))
                    return
        if recorded.reason is not None:
            self._refused.add(use.authorization_id)
        head = required = None
        if recorded.reason == admission.CREDIT_WINDOW_FULL and not recorded.known:
            head, required = self._gateway.payment_required(use.authorization_id, scope["path"])
        refusal = refusal_of(entry, recorded.reason, self._receipt(recorded), head, required)
        await refusal(scope, receive, send)

    def _receipt(self, recorded: Recorded) -> list[Header]:
        entry = recorded.entry
        assert entry is not None
        headers = [(RECEIPT, encode_receipt(entry))]
        if recorded.sign or entry.leaf.authorization_id in self._gateway.duty.asked:
            headers.append((SIGN, b"%d" % (entry.leaf.index + 1)))
        return headers


class _Route:
    """A rule, ready to match and to count."""

    def __init__(self, rule: Metered) -> None:
        self.rule = rule
        self._pattern: Pattern[str]
        self._pattern, _, converters = compile_path(rule.path)
        if rule.version is None and "version" not in converters:
            raise InputInvalid(
                f"{rule.path} needs a version: of the product, or as {{version}} in the path", field="path"
            )
        self.modality = code("modalities", rule.modality).number
        self._moves = None if rule.counts is None else {parse_counter(text) for text in rule.counts}

    def match(self, scope: Scope) -> Mapping[str, str] | None:
        """The path's parameters; None if this is another route."""
        if scope["method"] not in self.rule.methods:
            return None
        found = self._pattern.match(scope["path"])
        return found.groupdict() if found else None

    def count(self, meters: Sequence[Counter], given: Delivered) -> Quad:
        """Units per meter of the policy; a meter that this route does not move stays."""
        if self._moves is None:
            return count(meters, given)
        moved = [meter for meter in meters if meter in self._moves]
        counted = iter(count(moved, given))
        a, b, c, d = [next(counted) if meter in self._moves else 0 for meter in meters] + [0] * (4 - len(meters))
        return a, b, c, d


def encode_receipt(entry: Entry) -> bytes:
    """An entry as it stands in a header."""
    return base64.urlsafe_b64encode(msgspec.json.encode(entry.as_json()))
