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
from anyio import CancelScope
from anyio.to_thread import run_sync
from msgspec.structs import replace
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.core.codes import code
from ledger.core.errors import InputInvalid, NotFound, SluiceError
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
from ledger.metering.counting import Counter, Delivered, NotCountable, count, parse_counter, parse_stated
from ledger.metering.gateway import Gateway
from ledger.metering.log import NO_UNITS, Entry
from ledger.metering.personal import refuse_personal
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
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        found = self._find(scope, path)
        if found is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # what is metered is metered answer by answer
        elif isinstance(found, Response):
            await found(scope, receive, send)
        else:
            begun = Begun(send)
            try:
                await self._metered(*found, scope, receive, begun)
            except SluiceError as problem:
                if begun.yes:
                    raise  # half an answer cannot become a problem
                # Who brings nothing at all is told how to begin.
                nothing = isinstance(problem, NotAuthenticated) and not first(scope["headers"], b"authorization")
                required = self._gateway.authorization_required(path) if nothing else None
                await problem_of(problem, required)(scope, receive, send)

    def _find(self, scope: Scope, path: str) -> "tuple[_Route, Mapping[str, str]] | Response | None":
        """The rule for a request; None: it is none of ours.

        Applications read a path in their own ways, with `//` and `..` in it: whatever may come to a metered route
        without having its form is not found.
        """
        known = False
        for route in self._routes:
            found = route.match(path)
            if found is not None:
                if scope["type"] == "websocket" or route.takes(scope["method"]):
                    return route, found
                known = True
        if known:
            return problem_of(NotFound("this route is metered for other methods"))
        plain = plain_path(path)
        if plain != path and any(route.match(plain) is not None for route in self._routes):
            return problem_of(NotFound(f"there is no {path[:200]!r}"))
        return None

    async def _metered(
        self, route: "_Route", parameters: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        gateway, rule, safe = self._gateway, route.rule, scope["method"] in SAFE
        session = self._session(scope)
        body = b"" if safe else await read_body(receive, MOST_BODY)
        receive = receive if safe else again(body, receive)
        use = self._asked(route, parameters, scope, session, body)
        id_, record = use.authorization_id, gateway.recorder.record
        # For the application: who is served, under what, for what.
        scope = {**scope, "sluice": {"authorization": id_, "purpose": use.request.purpose}}
        payment = first(scope["headers"], PAYMENT)
        if payment:
            await run_sync(gateway.take_payment, id_, payment)
        begun = rule.stream or not safe
        if begun or id_ in self._refused:
            # Asked before the application works, or streams: who is refused anyway costs it nothing.
            units = route.least(gateway.meters(id_)) if rule.stream else NO_UNITS
            asking_ = replace(use, only_ask=True, begin=begun, request=replace(use.request, units=units))
            before = await record(asking_)
            counted = before.known and before.reason is None and before.entry and before.entry.leaf.kind == Kind.USE
            if before.entry is not None and not (counted and safe and not rule.stream):
                await self._refuse(before, use, scope, receive, send, None)
                return
        try:
            if rule.stream:
                await self._stream(route, use, scope, receive, send)
                return
            began = time.monotonic()
            answer = await capture(self._app, scope, receive)
            if answer.status >= 400 and not rule.count_failures:
                await self._failed(use, answer, scope, receive, send, begun)
                return
            stated = parse_stated(answer.header(STATED))
            given = Delivered(answer.body, answer.header(b"content-type"), time.monotonic() - began, stated)
            use = self._delivered(route, use, answer.status, given, len(answer.body), sha256(answer.body).hex())
            recorded = await record(use)
        except BaseException:
            if begun:
                await self._give_up(use)
            raise
        if recorded.known or recorded.reason is not None:
            await self._refuse(recorded, use, scope, receive, send, answer)
            return
        self._refused.discard(id_)
        self._answers.keep(id_, use.use_id_hash, answer)
        await answer.send(send, self._receipt(recorded))

    async def _failed(self, use: Use, answer: Answer, scope: Scope, receive: Receive, send: Send, begun: bool) -> None:
        """A failed answer is no use; and it is for who might have used, only."""
        if begun:
            await self._give_up(use)
        else:
            asked = await self._gateway.recorder.record(replace(use, only_ask=True))
            if asked.entry is not None and not (asked.known and asked.reason is None):
                await self._refuse(asked, use, scope, receive, send, None)
                return
        await answer.send(send)

    async def _give_up(self, use: Use) -> None:
        """Whatever was held for it is free again, even if whoever asked has gone."""
        with CancelScope(shield=True):
            await run_sync(self._gateway.recorder.give_up, use.authorization_id, use.use_id_hash)

    async def _stream(self, route: "_Route", use: Use, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the answer on, and holds its end back until it is recorded. One that breaks off has no end.

        What was handed over counts when the reader went away; when the source broke off only if the rule says so.
        """
        recorder, id_ = self._gateway.recorder, use.authorization_id
        relay, began, broke = Relay(send, route.rule.count_failures), time.monotonic(), False
        try:
            await self._app(uncompressed(scope), receive, relay)
        except BaseException:
            broke = True
            if not (relay.counts and relay.length and route.rule.count_aborted):
                raise  # given up by whoever began it
        if not relay.counts or not (relay.complete or relay.length):
            await self._give_up(use)
            return
        media, stated = first(relay.headers, b"content-type"), parse_stated(first(relay.headers, STATED))
        given = Delivered(b"", media, time.monotonic() - began, stated, length=relay.length)
        done = self._delivered(route, use, relay.status, given, relay.length, relay.digest.hexdigest())
        recorded = await recorder.record(done)
        if recorded.reason is not None:
            self._refused.add(id_)
        elif relay.complete and not broke:
            await relay.finish()
        if broke:
            raise InputInvalid("the source of this stream broke off")

    # --------------------------------------------------------------------------------------------- parts

    def _session(self, scope: Scope) -> Session:
        session = self._gateway.sessions.of_header(first(scope["headers"], b"authorization"), to_use=True)
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
            route_path(scope),
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
            if agent is None:
                raise NotAuthenticated("this agent has no grant")
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
        meters = self._gateway.meters(use.authorization_id)
        units = route.count(meters, given)
        delivered: dict[str, Any] = {"status": status, "responseSha256": "0x" + digest, "bytes": length}
        if given.stated:
            refuse_personal(list(given.stated), "Sluice-Count")
            delivered["stated"] = {word: str(n) for word, n in given.stated.items()}
        # A word that is metered may be limited, too.
        said = {meter.word: n for meter, n in zip(meters, units, strict=False)} | dict(given.stated)
        return replace(use, request=replace(use.request, units=units, stated=said), delivered=delivered)

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
            head, required = await run_sync(self._gateway.payment_required, use.authorization_id, scope["path"])
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

    def match(self, path: str) -> Mapping[str, str] | None:
        """The path's parameters; None if this is another route."""
        found = self._pattern.match(path)
        return found.groupdict() if found else None

    def takes(self, method: str) -> bool:
        """HEAD is what GET would be, without its body."""
        return method in self.rule.methods or (method == "HEAD" and "GET" in self.rule.methods)

    def least(self, meters: Sequence[Counter]) -> Quad:
        """What a stream comes to at least: its hold, and something on every meter it moves.

        Raises:
            NotCountable: a meter looks into the body, which a stream does not keep.
        """
        moved = [meter for meter in meters if self._moves is None or meter in self._moves]
        for meter in moved:
            if meter.of_response and meter.word not in ("calls", "bytes"):
                raise NotCountable(f"{meter} of a stream cannot be counted: let this route move other meters")
        a, b, c, d = [
            max(hold, 1 if n < len(meters) and meters[n] in moved else 0) for n, hold in enumerate(self.rule.hold)
        ]
        return a, b, c, d

    def count(self, meters: Sequence[Counter], given: Delivered) -> Quad:
        """Units per meter of the policy; a meter that this route does not move stays."""
        if self._moves is None:
            return count(meters, given)
        moved = [meter for meter in meters if meter in self._moves]
        counted = iter(count(moved, given))
        a, b, c, d = [next(counted) if meter in self._moves else 0 for meter in meters] + [0] * (4 - len(meters))
        return a, b, c, d


class Begun:
    """Passes messages on, and knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.yes = send, False

    async def __call__(self, message: Message) -> None:
        self.yes = True
        await self._send(message)


def route_path(scope: Scope) -> str:
    """The path as an application's router sees it: without where the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def plain_path(path: str) -> str:
    """A path without empty, `.` and `..` segments: what others may read it as."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and kept:
            kept.pop()
        elif part not in ("", ".", ".."):
            kept.append(part)
    return "/" + "/".join(kept)


def encode_receipt(entry: Entry) -> bytes:
    """An entry as it stands in a header."""
    return base64.urlsafe_b64encode(msgspec.json.encode(entry.as_json()))
