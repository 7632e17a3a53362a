"""The consumer's side: use data without trusting the provider's counting.

Every receipt is checked when it arrives (signature, leaf, payload, what was really received) and kept. A head is
signed only if every leaf under it is one of these, the totals add up, and it extends the last head signed.
"""

import base64
import csv
import io
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from ledger.core.codes import code
from ledger.core.database import writing
from ledger.core.errors import InputInvalid, Refused, SluiceError, VerificationFailed
from ledger.core.hashing import canonical_json, keccak256, sha256
from ledger.core.ids import Hash32, hash_of, parse_bytes, parse_hash
from ledger.core.merkle import Tree
from ledger.core.parse import load_json
from ledger.core.signing import Signer, is_signed_by
from ledger.core.terms import AuthorizationTerms, GatewaySession, UsageHead
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind, UsageLeaf, payload_hash, use_id_hash
from ledger.metering import heads, schema
from ledger.metering.log import (
    NO_UNITS,
    Entry,
    SignedHead,
    first_gap,
    head_after,
    insert_entry,
    read_entries,
    receipt_of,
)

SESSION_SECONDS = 2700  # less than a gateway allows: the two clocks may differ
CLOCK_TOLERANCE = 900  # seconds a provider's clock may be ahead of this one


class GatewayProblem(Refused):
    """The gateway answered with a problem."""

    code = "gateway_problem"


class GatewayDown(GatewayProblem):
    """No answer: what was asked may or may not be counted. It can be asked again, with the same use id."""

    code = "gateway_down"


class UseRefused(Refused):
    """The gateway refused a use; `details` hold reason and leaf index. The refusal's receipt is kept."""

    code = "use_refused"


class Disputed(VerificationFailed):
    """What the provider recorded is not what happened; `details` name the leaf. Nothing was signed."""

    code = "disputed"


@dataclass(frozen=True, slots=True)
class Use:
    """Data received, and the entry that counts it."""

    body: bytes
    media_type: str
    entry: Entry


def count(body: bytes, media_type: str) -> dict[str, int]:
    """The consumer's own count of what it received."""
    if media_type.startswith("application/json"):
        rows = len(load_json(body, "response")["rows"])
    else:
        rows = max(0, sum(1 for row in csv.reader(io.StringIO(body.decode())) if row) - 1)
    return {"calls": 1, "rows": rows, "bytes": len(body)}


class Consumer:
    """One authorization's use at one gateway. Safe for several threads if its HTTP client and engine are."""

    def __init__(
        self,
        *,
        gateway: str,
        terms: AuthorizationTerms,
        domain: Domain,
        meters: Sequence[str],
        signer: Signer,
        usage: Engine,
        http: httpx.Client,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`meters` names what each meter counts (calls, rows, bytes): from the policy whose digest the terms pin."""
        self._gateway, self._terms, self._domain = gateway.rstrip("/"), terms, domain
        self._meters = tuple(meters)
        self._signer, self._usage, self._http, self._clock = signer, usage, http, clock
        self.authorization_id = terms.digest(domain)
        self._token = ""
        # One writer at a time: SQLite's own waiting sleeps far longer than a commit takes.
        self._writing = threading.Lock()

    # ---------------------------------------------------------------------------------------------- uses

    def use(self, version: Hash32, purpose: str, query: Mapping[str, str], use_id: str | None = None) -> Use:
        """One metered use. What is asked for is stored before it is sent: a lost answer can be asked for again.

        Raises:
            UseRefused: with the reason; the refusal is in the log and its receipt kept.
            Disputed: the receipt does not fit what was received; it is kept as evidence.
            GatewayProblem: the gateway answered otherwise.
        """
        use_id = use_id or secrets.token_hex(32)
        pending = {
            "authorization": self.authorization_id,
            "use_id": use_id,
            "use_id_hash": use_id_hash(use_id),
            "version": version,
            "purpose": purpose,
            "query": dict(query),
        }
        with self._writing, writing(self._usage) as connection:
            connection.execute(insert(schema.requests).prefix_with("OR IGNORE").values(**pending))
        return self._ask(pending)

    def _ask(self, pending: Mapping[str, Any]) -> Use:
        """Sends a stored request, as often as it takes to get an answer (three times), and checks the answer."""
        version, purpose, query = pending["version"], pending["purpose"], pending["query"]
        headers = {"Sluice-Use-Id": pending["use_id"], "Sluice-Purpose": purpose}
        for attempt in (1, 2, 3):
            try:
                response = self._send("GET", f"/v1/data/{version}", params=query, headers=headers)
                break
            except GatewayDown:
                if attempt == 3:
                    raise
                time.sleep(0.2 * attempt)
        receipt = response.headers.get("sluice-receipt")
        if receipt is None:
            raise _problem(response)
        asked = {"path": f"/v1/data/{version}", "query": query, "purpose": purpose}
        try:
            entry = _entry(receipt)
            self._check(entry, pending["use_id"], version, asked, response)
        except Disputed as problem:
            self._keep(receipt, problem)
            raise
        except (SluiceError, ValueError, KeyError, TypeError, csv.Error) as problem:
            # A receipt or response so odd that checking it fails is not what was asked for.
            disputed = Disputed(f"the answer cannot be checked: {problem}", authorization=self.authorization_id)
            self._keep(receipt, disputed)
            raise disputed from problem
        try:
            with self._writing, writing(self._usage) as connection:
                insert_entry(connection, entry)
                connection.execute(delete(schema.requests).where(schema.requests.c.use_id == pending["use_id"]))
        except IntegrityError:
            self._must_be_known(entry)
        if response.status_code != 200:
            detail = str(load_json(response.content, "response").get("detail", "use refused"))
            reason = str((entry.payload or {}).get("reason", ""))
            raise UseRefused(detail, reason=reason, leaf=entry.leaf.index, authorization=self.authorization_id)
        return Use(response.content, response.headers["content-type"], entry)

    def _keep(self, receipt: str, problem: Disputed) -> None:
        row = {
            "authorization": self.authorization_id,
            "receipt_hash": hash_of(sha256(receipt.encode())),
            "reason": problem.message,
            "receipt": receipt,
        }
        with self._writing, writing(self._usage) as connection:
            connection.execute(insert(schema.disputes).prefix_with("OR IGNORE").values(**row))

    def recover(self, first: int, size: int) -> None:
        """Asks again for what was asked and never answered: the gateway's leaves say which of it was counted."""
        while first < size:
            path = f"/v1/authorizations/{self.authorization_id}/leaves"
            page = self._ok(self._send("GET", path, params={"first": first, "limit": 1000}))["entries"]
            if not page:
                return
            hashes = {str(e["leaf"]["useIdHash"]) for e in page}
            table = schema.requests
            with self._usage.connect() as connection:
                rows = connection.execute(
                    select(table).where(table.c.authorization == self.authorization_id)
                ).mappings()
                pending = [dict(row) for row in rows if row["use_id_hash"] in hashes]
            for request in pending:
                with suppress(UseRefused):
                    self._ask(request)
            first += len(page)

    def _check(
        self, entry: Entry, use_id: str, version: Hash32, asked: dict[str, Any], response: httpx.Response
    ) -> None:
        leaf, terms = entry.leaf, self._terms

        def must(holds: bool, what: str) -> None:
            if not holds:
                raise Disputed(f"leaf {leaf.index}: {what}", leaf=leaf.index, authorization=self.authorization_id)

        signature_holds = is_signed_by(terms.provider, receipt_of(leaf), self._domain, entry.signature)
        must(leaf.authorization_id == self.authorization_id, "is of another authorization")
        must(signature_holds, "its receipt is not signed by the provider")
        must(leaf.use_id_hash == use_id_hash(use_id), "is for another use id")
        must(leaf.version == version, "names another version")
        must(leaf.purpose == code("purposes", asked["purpose"]).number, "names another purpose")
        must(leaf.event_time <= leaf.served_at, "happened after it was served")
        must(leaf.served_at <= self._clock() + CLOCK_TOLERANCE, "is dated in the future")
        if entry.salt is None or entry.payload is None:
            raise Disputed(f"leaf {leaf.index}: its payload is missing", leaf=leaf.index)
        must(leaf.payload_hash == payload_hash(entry.salt, entry.payload), "its payload is not the one it commits to")
        must(all(entry.payload.get(k) == v for k, v in asked.items()), "its payload speaks of another request")
        must(entry.request_hash == hash_of(sha256(canonical_json(asked))), "answers another request")
        if response.status_code != 200:
            must(leaf.kind == Kind.REFUSAL and leaf.units == NO_UNITS, "is counted, and its data was not delivered")
            return
        must(leaf.kind == Kind.USE, "is not a use")
        must(bool(terms.scope.modalities >> leaf.modality & 1), "names a modality outside the terms")
        got = "0x" + sha256(response.content).hex()
        must(entry.payload.get("responseSha256") == got, "speaks of other data than was received")
        mine = count(response.content, response.headers["content-type"])
        # What each meter counts is in the policy both signed for, not in the provider's word of today.
        units = [mine[name] for name in self._meters]
        must(list(leaf.units) == (units + [0] * 4)[:4], f"counts {list(leaf.units)} units, received were {units}")

    def _must_be_known(self, entry: Entry) -> None:
        with self._usage.connect() as connection:
            known = read_entries(connection, self.authorization_id, entry.leaf.index, 1)
        if not known or known[0].leaf != entry.leaf:
            raise Disputed(
                f"leaf {entry.leaf.index}: the provider signed another leaf at this index before",
                leaf=entry.leaf.index,
            )

    # --------------------------------------------------------------------------------------------- heads

    def sign_head(self) -> SignedHead:
        """Fetches the next head, checks every leaf under it, signs it and hands the signature back.

        Raises:
            Disputed: a leaf is not one this consumer received, or the head is not what follows from the leaves.
        """
        answer = self._ok(self._send("GET", f"/v1/authorizations/{self.authorization_id}/head"))
        head, signature = UsageHead.from_json(answer["head"]), str(answer["providerSignature"])
        with self._usage.connect() as connection:
            gap = first_gap(connection, self.authorization_id, head.size)
        if gap < head.size:
            self.recover(gap, head.size)
        self.check_head(head, signature)
        mine = self._signer.sign(head, self._domain)
        body = {"head": head.as_json(), "consumerSignature": mine}
        self._ok(self._send("POST", f"/v1/authorizations/{self.authorization_id}/head", json=body))
        signed = SignedHead(head, signature, mine)
        heads.save(self._usage, signed)
        return signed

    def check_head(self, head: UsageHead, provider_signature: str) -> None:
        """Raises Disputed if this head is not exactly what the kept receipts add up to."""
        if not is_signed_by(self._terms.provider, head, self._domain, provider_signature):
            raise Disputed(f"the head of {head.size} leaves is not signed by the provider")
        with self._usage.connect() as connection:
            leaves = [e.leaf for e in read_entries(connection, self.authorization_id, 0, head.size)]
            last = heads.latest_signed(connection, self.authorization_id)
        check_chain(leaves, head.size)
        tree = Tree(leaf.hash() for leaf in leaves)
        expected = head_after(leaves[-1], tree.root())
        if expected != head:
            wrong = next(k for k, v in head.as_json().items() if expected.as_json()[k] != v)
            raise Disputed(f"the head of {head.size} leaves: {wrong} is not what the receipts add up to", field=wrong)
        if last is not None and last.head.size <= head.size and hash_of(tree.root(last.head.size)) != last.head.root:
            raise Disputed(f"the head of {head.size} leaves does not extend the one of {last.head.size}")

    # ------------------------------------------------------------------------------------------ transport

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self._token:
            self._open_session()
        headers = options.pop("headers", {}) | {"Authorization": f"Bearer {self._token}"}
        response = self._request(method, path, headers=headers, **options)
        if response.status_code == 401:  # the session ran out
            self._open_session()
            headers["Authorization"] = f"Bearer {self._token}"
            response = self._request(method, path, headers=headers, **options)
        return response

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, self._gateway + path, **options)
        except httpx.HTTPError as problem:
            raise GatewayDown(f"the gateway at {self._gateway} does not answer: {problem}") from problem

    def _open_session(self) -> None:
        session = GatewaySession(
            authorization_id=self.authorization_id,
            gateway=hash_of(keccak256(self._gateway.encode())),
            nonce=hash_of(secrets.token_bytes(32)),
            expires_at=int(self._clock()) + SESSION_SECONDS,
        )
        body = {"session": session.as_json(), "signature": self._signer.sign(session, self._domain)}
        self._token = self._ok(self._request("POST", "/v1/sessions", json=body))["token"]

    def _ok(self, response: httpx.Response) -> Any:
        if response.status_code != 200:
            raise _problem(response)
        return load_json(response.content, "response")


def check_chain(leaves: list[UsageLeaf], size: int) -> None:
    """Indices without a gap, totals that add up, times that do not run backwards. Raises Disputed, naming the leaf."""
    if len(leaves) != size or any(leaf.index != i for i, leaf in enumerate(leaves)):
        have = {leaf.index for leaf in leaves}
        gap = next(i for i in range(size + 1) if i not in have)
        raise Disputed(f"leaf {gap}: there is no receipt for it", leaf=gap)
    total, credits, served = NO_UNITS, 0, 0
    for leaf in leaves:
        expected = tuple(a + b for a, b in zip(total, leaf.units, strict=True))
        if leaf.cum_units != expected or leaf.cum_credits < credits or leaf.served_at < served:
            raise Disputed(f"leaf {leaf.index}: its totals do not follow from the leaf before", leaf=leaf.index)
        total, credits, served = leaf.cum_units, leaf.cum_credits, leaf.served_at


def _entry(receipt: str) -> Entry:
    try:
        data = load_json(base64.urlsafe_b64decode(receipt), "receipt")
        return Entry(
            UsageLeaf.from_json(data["leaf"]),
            parse_hash(data["requestHash"], "requestHash"),
            parse_bytes(data["salt"], "salt"),
            data["payload"],
            str(data["signature"]),
        )
    except (ValueError, KeyError, TypeError, InputInvalid) as problem:
        raise Disputed(f"the receipt is malformed: {problem}") from None


def _problem(response: httpx.Response) -> GatewayProblem:
    try:
        detail = load_json(response.content, "response")["detail"]
    except (InputInvalid, KeyError, TypeError):
        detail = f"HTTP {response.status_code}"
    return GatewayProblem(f"the gateway refused: {detail}", status=response.status_code)
