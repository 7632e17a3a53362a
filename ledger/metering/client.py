"""The consumer's side: use data without trusting the provider's counting.

Every receipt is checked when it arrives (signature, leaf, payload, what was really received) and kept. A head is signed
only if every leaf under it is one of these or was accepted, the totals add up, and it extends what was checked before.
What does not hold is disputed by its index; a credit leaf settles that.

`Consumer` and `AsyncConsumer` do the same: what they do is written once, as steps that ask for a response and get it.
"""

import asyncio
import base64
import secrets
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import httpx
from sqlalchemy import Engine

from ledger.core.errors import InputInvalid, Refused, SluiceError
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Address, Hash32, hash_of, parse_bytes, parse_hash
from ledger.core.parse import load_json, parse_uint
from ledger.core.ratecard import RateCard
from ledger.core.signing import Signer, is_signed_by
from ledger.core.terms import AgentGrant, AuthorizationTerms, Quad, UsageCeiling, UsageHead
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind, UsageLeaf, payload_hash, use_id_hash
from ledger.metering import asking
from ledger.metering.copy import Copy, Disputed
from ledger.metering.counting import Delivered, count, parse_counter
from ledger.metering.log import NO_UNITS, Entry, SignedHead, receipt_of
from ledger.metering.sessions import session_request

CLOCK_TOLERANCE = 900  # seconds a provider's clock may be ahead of this one
TRIES = 3
PAGE = 1_000  # leaves

T = TypeVar("T")
Steps: TypeAlias = Generator[httpx.Request | float, httpx.Response, T]
"""Asks for the response to a request, or to wait so many seconds."""

Accept: TypeAlias = Callable[[Entry], bool]
"""Says of a leaf that was not asked for here (a reported job, another client of this consumer) whether it is right."""


class GatewayProblem(Refused):
    """The gateway answered with a problem."""

    code = "gateway_problem"


class GatewayDown(GatewayProblem):
    """No answer: what was asked may or may not be counted. It can be asked again, with the same use id."""

    code = "gateway_down"


class UseRefused(Refused):
    """The gateway refused a use; `details` hold reason and leaf index. The refusal's receipt is kept."""

    code = "use_refused"


@dataclass(frozen=True, slots=True)
class Use:
    """Data received, and the entry that counts it."""

    body: bytes
    media_type: str
    entry: Entry
    status: int = 200


@dataclass(frozen=True, slots=True)
class Spent:
    """What this copy of the log comes to. Amounts in token units; `due` None: the rate card is not known here."""

    leaves: int
    units: Quad
    credits: int
    due: int | None
    acknowledged: Quad  # units in the last head signed here


class _Client:
    """What both clients are: one authorization's use at one gateway."""

    def __init__(
        self,
        *,
        gateway: str,
        terms: AuthorizationTerms,
        domain: Domain,
        meters: Sequence[str],
        signer: Signer,
        usage: Engine,
        data: str | None = None,
        card: RateCard | None = None,
        grant: tuple[AgentGrant, str] | None = None,
        provider_keys: Collection[Address] = (),
        accept: Accept | None = None,
        sign_when_asked: bool = False,
        count_failures: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        gateway: the URL of the gateway; `data`: of what it meters, if that is another.
        meters: what each meter counts: from the policy whose digest the terms pin.
        signer: the consumer's wallet, or a session key of it; with a key, `grant` and its signature say what it may.
        usage: the database of this consumer's copy (`open_usage`).
        provider_keys: session keys of the provider, as the chain has them, whose receipts count as its own.
        accept: judges leaves that were not asked for here; without it every such use is disputed.
        count_failures: it was agreed that failed answers (400 and more) count, too.
        sign_when_asked: sign the head when the gateway asks for it, or refuses because too much waits for it.
        """
        self._gateway, self._terms, self._domain = gateway.rstrip("/"), terms, domain
        self._data = (data or gateway).rstrip("/")
        self._base = httpx.URL(self._data).path.rstrip("/")
        self._meters = tuple(parse_counter(meter) for meter in meters)
        self._signer, self._card, self._grant, self._accept = signer, card, grant, accept
        self._sign_when_asked, self._clock = sign_when_asked, clock
        self._count_failures = count_failures
        self.authorization_id = terms.digest(domain)
        self._signers = {terms.provider, *provider_keys}
        self._copy = Copy(usage, self.authorization_id, clock)
        self._token = ""

    # ---------------------------------------------------------------------------------------------- uses

    def _use(
        self,
        method: str,
        path: str,
        purpose: str,
        query: Mapping[str, str],
        content: bytes,
        headers: Mapping[str, str],
        use_id: str | None,
        version: Hash32 | None,
    ) -> Steps[Use]:
        pending = self._pending(method, path, purpose, query, content, headers, use_id, version)
        self._copy.ask(pending)
        try:
            return (yield from self._ask(pending))
        except UseRefused as refused:
            if not self._sign_when_asked or refused.details["reason"] != "CREDIT_WINDOW_FULL" or use_id is not None:
                raise
        # The refusal is in the log under its id: once the head is signed, it is asked for under another.
        yield from self._sign_head()
        pending = self._pending(method, path, purpose, query, content, headers, None, version)
        self._copy.ask(pending)
        return (yield from self._ask(pending))

    def _pending(
        self,
        method: str,
        path: str,
        purpose: str,
        query: Mapping[str, str],
        content: bytes,
        headers: Mapping[str, str],
        use_id: str | None,
        version: Hash32 | None,
    ) -> dict[str, Any]:
        """The request in the form that is kept, and that its hash is taken of."""
        url = httpx.URL(self._data + path) if path.startswith("/") else None
        if url is None or url.path != self._base + path or url.query or url.fragment:
            # What is asked for and what is recorded must be the same, or the receipt would look like a lie.
            raise InputInvalid("a path begins with /, is not escaped, walks up nowhere, and has no query", field="path")
        use_id = asking.check_use_id(use_id or secrets.token_hex(32))
        sent = {name.lower(): value for name, value in headers.items()}
        asked = asking.asked_of(
            method,
            path,
            str(httpx.QueryParams(dict(query))),
            asking.purpose_of(purpose),
            region=sent.get(asking.REGION, ""),
            evidence=asking.parse_evidence(sent.get(asking.EVIDENCE, "")),
            range_=sent.get("range", ""),
            body=content,
        )
        if version is not None:
            sent["sluice-version"] = version
        return {
            "authorization": self.authorization_id,
            "use_id": use_id,
            "use_id_hash": use_id_hash(use_id),
            "asked": asked,
            "body": content or None,
            "asked_at": int(self._clock()),
            "headers": sent,
        }

    def _ask(self, pending: Mapping[str, Any]) -> Steps[Use]:
        """Sends a stored request, as often as it takes to get an answer (three times), and checks the answer."""
        asked, use_id, sent = pending["asked"], pending["use_id"], dict(pending["headers"])
        version = sent.pop("sluice-version", None)
        query = f"?{asked['query']}" if asked["query"] else ""
        headers = sent | {asking.USE_ID: use_id, asking.PURPOSE: asked["purpose"]}
        url, response = self._data + asked["path"] + query, None
        for attempt in range(1, TRIES + 1):
            try:
                response = yield from self._send(asked["method"], url, headers, pending["body"])
                if response.status_code != 409 or attempt == TRIES or _code(response) != "under_way":
                    break
                yield 1.0  # it was begun before its answer was lost, and goes on
            except GatewayDown:
                if attempt == TRIES:
                    raise
                yield 0.2 * attempt
        assert response is not None
        receipt = response.headers.get("sluice-receipt")
        if receipt is None and response.status_code < 400:
            receipt = yield from self._fetch_receipt(use_id)  # of a stream
        if receipt is None:
            raise _problem(response)
        entry = None
        try:
            entry = _entry(receipt)
            if response.status_code == 410 and self._copy.holds(entry.leaf):
                raise _problem(response)  # received before, receipt and all
            self._check(entry, use_id, version, asked, response, pending["asked_at"])
            self._copy.keep(entry, use_id)
        except GatewayProblem:
            raise
        except Disputed as problem:
            self._note(receipt, problem, entry)
            raise
        except (SluiceError, ValueError, KeyError, TypeError) as problem:
            # A receipt or response so odd that checking it fails is not what was asked for.
            disputed = Disputed(f"the answer cannot be checked: {problem}", authorization=self.authorization_id)
            self._note(receipt, disputed, entry)
            raise disputed from problem
        if response.status_code >= 400 and entry.leaf.kind == Kind.REFUSAL:
            detail = _problem(response).message
            reason = str((entry.payload or {}).get("reason", ""))
            raise UseRefused(detail, reason=reason, leaf=entry.leaf.index, authorization=self.authorization_id)
        if self._sign_when_asked and "sluice-sign" in response.headers:
            yield from self._sign_head()
        return Use(response.content, response.headers.get("content-type", ""), entry, response.status_code)

    def _fetch_receipt(self, use_id: str) -> Steps[str | None]:
        response = yield from self._send("GET", f"{self._gateway}/v1/uses/{use_id}", {}, None)
        return base64.urlsafe_b64encode(response.content).decode() if response.status_code == 200 else None

    def _note(self, receipt: str, problem: Disputed, entry: Entry | None) -> None:
        """Keeps evidence; with the leaf, if the provider stands by it: it is in the tree, right or wrong."""
        if entry is not None and entry.leaf.authorization_id == self.authorization_id and self._receipted(entry):
            with suppress(Disputed):
                self._copy.keep(entry, dispute=(receipt, problem))
            self._copy.dispute(receipt, problem, entry.leaf.index)
        else:
            self._copy.dispute(receipt, problem, None)

    def _receipted(self, entry: Entry) -> bool:
        """The provider, or a key that signs for it, stands by this leaf."""
        return entry.signature is not None and self._by_provider(receipt_of(entry.leaf), entry.signature)

    def _by_provider(self, message: Any, signature: str) -> bool:
        return any(is_signed_by(signer, message, self._domain, signature) for signer in self._signers)

    def _check(
        self,
        entry: Entry,
        use_id: str,
        version: Hash32 | None,
        asked: dict[str, Any],
        response: httpx.Response,
        asked_at: int,
    ) -> None:
        """Raises Disputed if a receipt does not say what was asked and received."""
        leaf, terms = entry.leaf, self._terms

        def must(holds: bool, what: str) -> None:
            if not holds:
                raise Disputed(f"leaf {leaf.index}: {what}", leaf=leaf.index, authorization=self.authorization_id)

        must(leaf.authorization_id == self.authorization_id, "is of another authorization")
        must(self._receipted(entry), "its receipt is not signed by the provider")
        must(leaf.use_id_hash == use_id_hash(use_id), "is for another use id")
        pinned = None if int(terms.scope.version, 16) == 0 else terms.scope.version
        must(leaf.version == (version or pinned or leaf.version), "names another version")
        must(leaf.purpose == asking.purpose_of(asked["purpose"]).number, "names another purpose")
        must(leaf.event_time <= leaf.served_at, "happened after it was served")
        must(leaf.served_at <= self._clock() + CLOCK_TOLERANCE, "is dated in the future")
        payload = self._committed(entry)
        must(payload.get("asked") == asked, "its payload speaks of another request")
        must(entry.request_hash == hash_of(sha256(canonical_json(asked))), "answers another request")
        if leaf.kind == Kind.REFUSAL:
            must(leaf.units == NO_UNITS, "is a refusal, and counts something")
            must(response.status_code >= 400, "is a refusal of what was delivered")
            return
        must(leaf.kind == Kind.USE, "is not a use")
        must(bool(terms.scope.modalities >> leaf.modality & 1), "names a modality outside the terms")
        got = "0x" + sha256(response.content).hex()
        must(payload.get("responseSha256") == got, "is counted, and its data was not delivered")
        must(payload.get("status") == response.status_code, "speaks of another answer")
        must(response.status_code < 400 or self._count_failures, "counts an answer that failed")
        self._check_units(leaf, payload, response, asked_at)

    def _check_units(
        self, leaf: UsageLeaf, payload: Mapping[str, Any], response: httpx.Response, asked_at: int
    ) -> None:
        """What each meter counts is in the policy both signed for, not in the provider's word of today.

        A count that only the provider can know is its word, kept in the payload; nothing is also right: a route need
        not move every meter.
        """
        stated = payload.get("stated", {})
        if not isinstance(stated, dict):
            raise Disputed(f"leaf {leaf.index}: what it states has no form", leaf=leaf.index)
        for n, meter in enumerate(self._meters):
            if leaf.units[n] == 0:
                continue
            if meter.of_response:
                mine = count([meter], Delivered(response.content, response.headers.get("content-type", "")))[0]
            elif meter.word in stated:
                mine = parse_uint(stated[meter.word], meter.word, 64)
            else:
                # Seconds that nobody stated: no more than have passed here. Any other word must be stated.
                passed = int(self._clock()) - asked_at + 2 if meter.word == "seconds" else 0
                mine = min(leaf.units[n], max(0, passed))
            if leaf.units[n] != mine:
                words = f"leaf {leaf.index}: counts {leaf.units[n]} {meter.word}, received were {mine}"
                raise Disputed(words, leaf=leaf.index, authorization=self.authorization_id)
        if any(leaf.units[len(self._meters) :]):
            raise Disputed(f"leaf {leaf.index}: counts on a meter there is not", leaf=leaf.index)

    def _committed(self, entry: Entry) -> dict[str, Any]:
        """The payload, if it is the one the leaf commits to."""
        payload = entry.payload
        if entry.salt is None or entry.written is None or payload is None:
            raise Disputed(f"leaf {entry.leaf.index}: its payload is missing", leaf=entry.leaf.index)
        if entry.leaf.payload_hash != payload_hash(entry.salt, entry.written):
            words = f"leaf {entry.leaf.index}: its payload is not the one it commits to"
            raise Disputed(words, leaf=entry.leaf.index)
        return payload

    # --------------------------------------------------------------------------------------------- heads

    def _sign_head(self) -> Steps[SignedHead]:
        for index, dispute in sorted(self._copy.disputed().items()):
            if dispute["answer"] is None:
                yield from self._tell(index, dispute["reason"])
        answer = yield from self._ok("GET", self._log("head"))
        head, signature = UsageHead.from_json(answer["head"]), str(answer["providerSignature"])
        if head.authorization_id != self.authorization_id or head.size >> 62 or not self._by_provider(head, signature):
            raise Disputed(f"the head of {head.size} leaves is not signed by the provider")
        if head.as_of > self._clock() + CLOCK_TOLERANCE:
            raise Disputed(f"the head of {head.size} leaves is dated in the future")
        yield from self._recover(head.size)
        self._copy.check(head, self._card)
        mine = self._signer.sign(head, self._domain)
        yield from self._ok("POST", self._log("head"), {"head": head.as_json(), "consumerSignature": mine})
        signed = SignedHead(head, signature, mine)
        self._copy.save(signed)
        return signed

    def _recover(self, size: int) -> Steps[None]:
        """Fetches leaves that are not here: lost answers are asked for again, others are judged."""
        first = self._copy.gap(size)
        while first < size:
            path = f"{self._log('leaves')}?first={first}&limit={min(PAGE, size - first)}"
            page = [_parse_entry(item) for item in (yield from self._ok("GET", path))["entries"]]
            if not page:
                return
            pending = {row["use_id_hash"]: row for row in self._copy.asked(e.leaf.use_id_hash for e in page)}
            for entry in page:
                mine = pending.get(entry.leaf.use_id_hash)
                if mine is not None:
                    try:
                        yield from self._ask(mine)
                    except UseRefused:
                        pass
                    except GatewayDown:
                        raise
                    except GatewayProblem as problem:
                        # It stands in the log, and nothing is delivered for it.
                        told = Disputed(f"leaf {entry.leaf.index}: {problem.message}", leaf=entry.leaf.index)
                        self._committed(entry)
                        self._copy.keep(entry, mine["use_id"], dispute=(f"leaf {entry.leaf.index}", told))
                        raise told from problem
                elif not self._copy.holds(entry.leaf):
                    self._judge(entry)
            first = self._copy.gap(size)
            if first == page[0].leaf.index:
                return  # what was given is not what is missing: the check says so

    def _judge(self, entry: Entry) -> None:
        """Takes a leaf that was not asked for here, if it counts nothing, or whoever knows says that it is right."""
        leaf = entry.leaf
        if leaf.authorization_id != self.authorization_id or (entry.signature and not self._receipted(entry)):
            raise Disputed(f"leaf {leaf.index}: its receipt is not signed by the provider", leaf=leaf.index)
        self._committed(entry)
        if leaf.units == NO_UNITS or (self._accept is not None and self._accept(entry)):
            self._copy.keep(entry)
            return
        problem = Disputed(f"leaf {leaf.index}: there is no receipt for it: it was not asked for here", leaf=leaf.index)
        self._copy.keep(entry, dispute=(f"leaf {leaf.index}", problem))
        raise problem

    def _dispute(self, index: int, reason: str) -> Steps[str]:
        self._copy.dispute_leaf(index, reason)
        return (yield from self._tell(index, reason))

    def _tell(self, index: int, reason: str) -> Steps[str]:
        told = yield from self._ok("POST", self._log("disputes"), {"index": index, "reason": reason[:500]})
        return str(told["answer"])

    def _pay_ahead(self, max_due: int, seconds: int, max_units: Quad | None) -> Steps[UsageCeiling]:
        ceiling = UsageCeiling(
            authorization_id=self.authorization_id,
            max_units=max_units or self._terms.max_units,
            min_credits=self._copy.totals()[2],
            max_due=max_due,
            expiry=int(self._clock()) + seconds,
        )
        body = {"ceiling": ceiling.as_json(), "signature": self._signer.sign(ceiling, self._domain)}
        yield from self._ok("POST", self._log("ceiling"), body)
        return ceiling

    def check_head(self, head: UsageHead, provider_signature: str) -> None:
        """Raises Disputed if this head is not exactly what the kept receipts add up to."""
        if not self._by_provider(head, provider_signature):
            raise Disputed(f"the head of {head.size} leaves is not signed by the provider")
        self._copy.check(head, self._card)

    def spent(self) -> Spent:
        """What the receipts kept here come to."""
        leaves, units, credits = self._copy.totals()
        signed = self._copy.latest_signed()
        due = None if self._card is None else self._card.due(units, credits)
        return Spent(leaves, units, credits, due, signed.head.units if signed else NO_UNITS)

    # ------------------------------------------------------------------------------------------ transport

    def _log(self, what: str) -> str:
        return f"{self._gateway}/v1/authorizations/{self.authorization_id}/{what}"

    def _send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Steps[httpx.Response]:
        if not self._token:
            yield from self._open_session()
        for again in (True, False):
            sent = {**headers, "Authorization": f"Bearer {self._token}"}
            response = yield httpx.Request(method, url, headers=sent, content=content)
            if response.status_code != 401 or not again:
                return response
            yield from self._open_session()  # the session ran out
        raise AssertionError("unreachable")

    def _open_session(self) -> Steps[None]:
        body = session_request(self.authorization_id, self._gateway, self._signer, self._domain, self._clock())
        if self._grant is not None:
            body |= {"grant": self._grant[0].as_json(), "grantSignature": self._grant[1]}
        response = yield httpx.Request("POST", f"{self._gateway}/v1/sessions", json=body)
        self._token = _json(response)["token"]

    def _ok(self, method: str, url: str, body: Any = None) -> Steps[Any]:
        content = None if body is None else httpx.Request("POST", url, json=body).content
        return _json((yield from self._send(method, url, {"content-type": "application/json"}, content)))


def send_grant(http: httpx.Client, gateway: str, grant: AgentGrant, signature: str) -> None:
    """Tells a gateway what an agent may spend from now on.

    Raises:
        GatewayProblem: it knows a later grant, or the consumer did not sign this one.
    """
    url = gateway.rstrip("/")
    try:
        answer = http.post(f"{url}/v1/grants", json={"grant": grant.as_json(), "grantSignature": signature})
    except httpx.HTTPError as problem:
        raise _down(url, problem) from problem
    _json(answer)


class Consumer(_Client):
    """Uses data over a blocking HTTP client. Safe for several threads if its HTTP client and database are."""

    def __init__(self, *, http: httpx.Client, **settings: Any) -> None:
        """As `_Client`."""
        super().__init__(**settings)
        self._http = http
        self._writing = threading.Lock()

    def use(self, version: Hash32, purpose: str, query: Mapping[str, str], use_id: str | None = None) -> Use:
        """One metered use of a published file. As `request`."""
        return self._run(self._use("GET", f"/v1/data/{version}", purpose, query, b"", {}, use_id, version))

    def request(
        self,
        method: str,
        path: str,
        *,
        purpose: str,
        query: Mapping[str, str] | None = None,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        use_id: str | None = None,
        version: Hash32 | None = None,
    ) -> Use:
        """One metered use. What is asked for is stored before it is sent: a lost answer can be asked for again.

        Args:
            path: at the gateway, such as /parking/12.
            headers: Sluice-Region and Sluice-Evidence where the policy asks for them; Range; Content-Type.
            version: that must be served, where the terms do not pin one.

        Raises:
            UseRefused: with the reason; the refusal is in the log and its receipt kept.
            Disputed: the receipt does not fit what was received; it is kept as evidence.
            GatewayProblem: the gateway answered otherwise.
        """
        return self._run(self._use(method, path, purpose, query or {}, content, headers or {}, use_id, version))

    def sign_head(self) -> SignedHead:
        """Fetches the next head, checks every leaf under it, signs it and hands the signature back.

        Raises:
            Disputed: a leaf is not one this consumer received, or the head is not what follows from the leaves.
        """
        return self._run(self._sign_head())

    def recover(self, size: int) -> None:
        """Fetches leaves below `size` that are not here: lost answers are asked for again."""
        self._run(self._recover(size))

    def dispute(self, index: int, reason: str) -> str:
        """Tells the provider that a leaf is not what happened; its answer: OPEN, CREDITED or REJECTED."""
        return self._run(self._dispute(index, reason))

    def withdraw(self, index: int) -> None:
        """A leaf is not disputed any more: the next head may be signed with it."""
        self._copy.withdraw(index)

    def pay_ahead(self, max_due: int, seconds: int, max_units: Quad | None = None) -> UsageCeiling:
        """Signs a ceiling: uses up to so many token units need no head first, for so many seconds."""
        return self._run(self._pay_ahead(max_due, seconds, max_units))

    def _run(self, steps: Steps[T]) -> T:
        step, answer, problem = None, None, None
        while True:
            try:
                step = steps.throw(problem) if problem else steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as done:
                result: T = done.value
                return result
            answer = problem = None
            if isinstance(step, float):
                time.sleep(step)
                continue
            try:
                answer = self._http.send(step)
            except httpx.HTTPError as found:
                problem = _down(self._gateway, found)


class AsyncConsumer(_Client):
    """The same over an asynchronous HTTP client. Its database is asked in threads."""

    def __init__(self, *, http: httpx.AsyncClient, **settings: Any) -> None:
        """As `_Client`."""
        super().__init__(**settings)
        self._http = http

    async def use(self, version: Hash32, purpose: str, query: Mapping[str, str], use_id: str | None = None) -> Use:
        """As `Consumer.use`."""
        return await self._run(self._use("GET", f"/v1/data/{version}", purpose, query, b"", {}, use_id, version))

    async def request(
        self,
        method: str,
        path: str,
        *,
        purpose: str,
        query: Mapping[str, str] | None = None,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        use_id: str | None = None,
        version: Hash32 | None = None,
    ) -> Use:
        """As `Consumer.request`."""
        return await self._run(self._use(method, path, purpose, query or {}, content, headers or {}, use_id, version))

    async def sign_head(self) -> SignedHead:
        """As `Consumer.sign_head`."""
        return await self._run(self._sign_head())

    async def dispute(self, index: int, reason: str) -> str:
        """As `Consumer.dispute`."""
        return await self._run(self._dispute(index, reason))

    async def pay_ahead(self, max_due: int, seconds: int, max_units: Quad | None = None) -> UsageCeiling:
        """As `Consumer.pay_ahead`."""
        return await self._run(self._pay_ahead(max_due, seconds, max_units))

    async def _run(self, steps: Steps[T]) -> T:
        answer: httpx.Response | None = None
        problem: GatewayDown | None = None
        while True:
            step, result, done = await asyncio.to_thread(_advance, steps, answer, problem)
            if done:
                finished: T = result
                return finished
            answer = problem = None
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            assert step is not None
            try:
                answer = await self._http.send(step)
            except httpx.HTTPError as found:
                problem = _down(self._gateway, found)


def _advance(
    steps: Steps[T], answer: httpx.Response | None, problem: GatewayDown | None
) -> tuple[httpx.Request | float | None, Any, bool]:
    """The next step; or the result, and True. StopIteration must not cross a thread."""
    try:
        return (steps.throw(problem) if problem else steps.send(answer)), None, False  # type: ignore[arg-type]
    except StopIteration as done:
        return None, done.value, True


def _code(response: httpx.Response) -> str:
    try:
        return str(load_json(response.content, "response")["code"])
    except (InputInvalid, KeyError, TypeError):
        return ""


def _down(gateway: str, problem: httpx.HTTPError) -> GatewayDown:
    return GatewayDown(f"the gateway at {gateway} does not answer: {problem}")


def _entry(receipt: str) -> Entry:
    try:
        return _parse_entry(load_json(base64.urlsafe_b64decode(receipt), "receipt"))
    except (ValueError, InputInvalid) as problem:
        raise Disputed(f"the receipt is malformed: {problem}") from None


def _parse_entry(data: Any) -> Entry:
    try:
        payload, salt = data["payload"], data["salt"]
        if payload is not None and not isinstance(payload, dict):
            raise TypeError("payload must be an object")
        return Entry(
            UsageLeaf.from_json(data["leaf"]),
            parse_hash(data["requestHash"], "requestHash"),
            None if salt is None else parse_bytes(salt, "salt"),
            None if payload is None else canonical_json(payload),
            None if data["signature"] is None else str(data["signature"]),
        )
    except (KeyError, TypeError, InputInvalid) as problem:
        raise Disputed(f"the receipt is malformed: {problem}") from None


def _json(response: httpx.Response) -> Any:
    if response.status_code != 200:
        raise _problem(response)
    return load_json(response.content, "response")


def _problem(response: httpx.Response) -> GatewayProblem:
    try:
        detail = load_json(response.content, "response")["detail"]
    except (InputInvalid, KeyError, TypeError):
        detail = f"HTTP {response.status_code}"
    return GatewayProblem(f"the gateway refused: {detail}", status=response.status_code)
