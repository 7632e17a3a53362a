"""Uses through real HTTP: each counted once, delivered only while allowed, and trusted by nobody unchecked."""

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from ledger.core.database import writing
from ledger.core.errors import Conflict, InputInvalid, VerificationFailed
from ledger.core.ids import hash_of
from ledger.core.terms import AuthorizationTerms, approvers_hash
from ledger.core.usage_leaf import Kind
from ledger.metering import heads, schema
from ledger.metering.client import Consumer, GatewayDown, GatewayProblem, UseRefused
from ledger.metering.copy import Disputed
from ledger.metering.log import UsageLog, read_entries
from ledger.metering.sessions import SESSION_SECONDS
from ledger.metering.sources import ContentDiffers, open_source
from ledger.mirror import schema as mirror_schema
from tests.exchange import CSV, Exchange
from tests.world import DAY, Key, World, digest

USE_ID = "a" * 64


def use(consumer: Consumer, running: Exchange, **changes: Any) -> Any:
    query = {"from": "2026-01-01T00:00:00", "limit": "5"} | changes.pop("query", {})
    return consumer.use(running.version, changes.pop("purpose", "RESEARCH"), query, **changes)


def test_a_use_is_counted_delivered_and_receipted(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    got = use(consumer, running)
    assert len(json.loads(got.body)["rows"]) == 5
    assert got.entry.leaf.units == (1, 5, 0, 0)
    again = use(consumer, running)
    assert again.entry.leaf.cum_units == (2, 10, 0, 0)
    signed = consumer.sign_head()
    assert (signed.head.size, signed.head.units) == (2, (2, 10, 0, 0))
    running.settle(terms, signed)
    assert running.world.reservation(terms)["paid"] == running.world.card().price((2, 10, 0, 0))


def test_the_same_use_id_is_counted_once_and_another_request_under_it_is_a_conflict(running: Exchange) -> None:
    consumer = running.consumer(running.open())
    first = use(consumer, running, use_id=USE_ID)
    second = use(consumer, running, use_id=USE_ID)
    assert first.entry == second.entry
    assert first.body == second.body
    with pytest.raises(GatewayProblem, match="another request"):
        use(consumer, running, use_id=USE_ID, query={"limit": "6"})
    assert consumer.sign_head().head.size == 1


def refused(consumer: Consumer, running: Exchange, **changes: Any) -> str:
    with pytest.raises(UseRefused) as caught:
        use(consumer, running, **changes)
    return str(caught.value.details["reason"])


def test_when_an_approval_expires_the_next_use_is_refused(running: Exchange) -> None:
    world, approver = running.world, Key.named("approver")
    terms = world.terms(approvers_hash=approvers_hash([(approver.address, 3)]))
    world.fund(1_000_000)
    until = world.now() + 3600
    opening = world.opening(terms, 1_000_000) | world.approved(terms, [(approver, 3)], until)
    world.send(world.stranger, "authorization.open", opening=opening)
    running.follow()
    consumer = running.consumer(terms)
    use(consumer, running)
    world.pass_time(3700)
    running.follow()
    assert refused(consumer, running) == "APPROVAL_EXPIRED"


def test_after_revocation_nothing_is_served_and_the_refusal_is_a_leaf(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running, use_id=USE_ID)
    running.world.send(running.world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
    running.world.pass_time(5)
    running.follow()
    assert refused(consumer, running) == "REVOKED"
    # What was delivered before is not delivered again either, and not counted twice.
    with pytest.raises(GatewayProblem, match="not delivered again"):
        use(consumer, running, use_id=USE_ID)
    first = consumer.sign_head()
    assert first.head.size == 1
    second = consumer.sign_head()
    assert (second.head.size, second.head.units) == (2, first.head.units)
    with running.usage.connect() as connection:
        leaf = read_entries(connection, running.world.id(terms))[1].leaf
    assert (leaf.kind, leaf.units) == (Kind.REFUSAL, (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("reason", "terms", "request_"),
    [
        ("PURPOSE_NOT_ALLOWED", {"purposes": 0b10}, {}),
        ("MODALITY_NOT_ALLOWED", {"modalities": 0b1}, {}),
        ("QUOTA_EXCEEDED", {"max_units": (1, 4, 0, 0)}, {}),
        ("CREDIT_WINDOW_FULL", {"credit_units": (0, 4, 0, 0)}, {}),
        ("NOT_YET_VALID", {"valid_from": 2**33}, {}),
    ],
)
def test_each_term_is_checked_at_each_use(running: Exchange, reason: str, terms: Any, request_: Any) -> None:
    if reason == "NOT_YET_VALID":
        now = running.world.now()
        terms = {"valid_from": now + DAY, "valid_until": now + 2 * DAY}
    consumer = running.consumer(running.open(**terms))
    assert refused(consumer, running, **request_) == reason


def test_a_reservation_that_does_not_cover_the_use_refuses_it(running: Exchange) -> None:
    consumer = running.consumer(running.open(reserve=13_999))
    assert refused(consumer, running) == "RESERVATION_EXCEEDED"


def test_a_signed_head_opens_the_credit_window_again(running: Exchange) -> None:
    consumer = running.consumer(running.open(credit_units=(0, 5, 0, 0)))
    use(consumer, running)
    assert refused(consumer, running) == "CREDIT_WINDOW_FULL"
    consumer.sign_head()
    assert use(consumer, running).entry.leaf.cum_units == (2, 10, 0, 0)


def test_suspension_and_recall_stop_serving_at_once(running: Exchange) -> None:
    world = running.world
    consumer = running.consumer(running.open())
    party = {"space": world.space, "wallet": world.consumer.address}
    world.send(world.operator, "participant.suspend", **party, reason=100)
    running.follow()
    assert refused(consumer, running) == "PARTY_SUSPENDED"
    world.send(world.operator, "participant.reinstate", **party)
    world.send(world.provider, "product.retire", version=world.version, reason=0)
    running.follow()
    use(consumer, running)  # retired: authorizations that pinned it go on
    world.send(world.provider, "product.recall", version=world.version, reason=102)
    running.follow()
    assert refused(consumer, running) == "VERSION_NOT_LISTED"


def test_an_expired_authorization_serves_nothing(running: Exchange) -> None:
    now = running.world.now()
    terms = running.open(valid_until=now + 3600)
    consumer = running.consumer(terms)
    use(consumer, running)
    running.world.pass_time(3600)
    running.follow()
    assert refused(consumer, running) == "EXPIRED"


def test_nothing_is_served_by_a_mirror_that_stands_still(running: Exchange) -> None:
    consumer = running.consumer(running.open())
    use(consumer, running)
    with writing(running.mirror) as connection:
        connection.execute(mirror_schema.cursor.update().values(checked_at=1))
    with pytest.raises(GatewayProblem, match="last stood at the chain's head"):
        use(consumer, running)
    assert running.http.get(f"{running.url}/health").status_code == 503
    running.follow()
    assert use(consumer, running).entry.leaf.index == 1


# ------------------------------------------------------------------------------------------------ trust


def test_only_the_consumer_opens_a_session_and_only_for_its_authorization(running: Exchange) -> None:
    world = running.world
    terms, other = running.open(), running.open()
    thief = running.consumer(terms, "thief", signer=world.stranger)
    with pytest.raises(GatewayProblem, match="not signed by the consumer"):
        use(thief, running)
    honest = running.consumer(terms)
    use(honest, running)
    headers = {"Authorization": f"Bearer {honest._token}"}
    answer = running.http.get(f"{running.url}/v1/authorizations/{world.id(other)}/head", headers=headers)
    assert answer.status_code == 401
    assert running.http.get(f"{running.url}/v1/data/{running.version}").status_code == 402


def session(running: Exchange, terms: AuthorizationTerms, **changes: Any) -> dict[str, Any]:
    from ledger.core.hashing import keccak256
    from ledger.core.terms import GatewaySession

    asked = GatewaySession(
        authorization_id=running.world.id(terms),
        gateway=hash_of(keccak256(running.url.encode())),
        nonce=digest("nonce"),
        expires_at=int(running.clock()) + SESSION_SECONDS,
    )
    asked = replace(asked, **changes)
    return {"session": asked.as_json(), "signature": running.world.consumer.sign(asked, running.world.domain(terms))}


def test_a_session_request_works_once_here_and_now(running: Exchange) -> None:
    terms = running.open()

    def post(body: Any) -> int:
        return running.http.post(f"{running.url}/v1/sessions", json=body).status_code

    assert post(session(running, terms)) == 200
    assert post(session(running, terms)) == 401
    assert post(session(running, terms, nonce=digest("2"), gateway=digest("elsewhere"))) == 401
    assert post(session(running, terms, nonce=digest("3"), expires_at=int(running.clock()) + DAY)) == 401
    assert post(session(running, terms, nonce=digest("4"), expires_at=int(running.clock()) - 1)) == 401


@pytest.mark.parametrize("body", [b"", b"[" * 50_000, b'{"session": 1}', b'{"a":1,"a":2}', b"\xff\xfe", b"x" * 70_000])
def test_a_body_that_is_not_a_session_request_is_refused_in_words(running: Exchange, body: bytes) -> None:
    answer = running.http.post(f"{running.url}/v1/sessions", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert running.http.get(f"{running.url}/health").status_code == 200


class Between(httpx.BaseTransport):
    """Stands between consumer and gateway and changes what comes back."""

    def __init__(self, change: Any) -> None:
        self._inner = httpx.HTTPTransport()
        self._change = change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        response.read()
        changed: httpx.Response = self._change(request, response)
        return changed


def between(running: Exchange, change: Any) -> httpx.Client:
    client = httpx.Client(transport=Between(change))
    running.closing.append(client)
    return client


def receipt(response: httpx.Response) -> Any:
    return json.loads(base64.urlsafe_b64decode(response.headers["sluice-receipt"]))


def with_receipt(response: httpx.Response, entry: Any, body: bytes | None = None) -> httpx.Response:
    text = base64.urlsafe_b64encode(json.dumps(entry).encode()).decode()
    headers = {"content-type": response.headers["content-type"], "sluice-receipt": text}
    return httpx.Response(response.status_code, headers=headers, content=body if body is not None else response.content)


@pytest.mark.parametrize(
    "how",
    ["units", "purpose", "version", "served_at", "payload", "salt", "signature", "body", "garbage"],
)
def test_a_receipt_that_does_not_fit_is_disputed_kept_and_never_signed(running: Exchange, how: str) -> None:
    terms = running.open()

    def change(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if "sluice-receipt" not in response.headers:
            return response
        entry = receipt(response)
        leaf = entry["leaf"]
        if how == "units":
            leaf["units"] = leaf["cumUnits"] = ["1", "500", "0", "0"]
        elif how == "purpose":
            leaf["purpose"] = 1
        elif how == "version":
            leaf["version"] = digest("other")
        elif how == "served_at":
            leaf["servedAt"] = 2**39
        elif how == "payload":
            entry["payload"]["path"] = "/elsewhere"
        elif how == "salt":
            entry["salt"] = "0x00"
        elif how == "signature":
            entry["signature"] = "0x" + "11" * 65
        elif how == "garbage":
            return with_receipt(response, [1, 2])
        elif how == "body":
            return with_receipt(response, entry, response.content.replace(b"1", b"2"))
        # A provider that lies signs its lie.
        if how != "signature":
            from ledger.core.usage_leaf import UsageLeaf
            from ledger.metering.log import receipt_of

            lie = receipt_of(UsageLeaf.from_json(leaf))
            entry["signature"] = running.world.provider.sign(lie, running.world.domain(terms))
        return with_receipt(response, entry)

    consumer = running.consumer(terms, http=between(running, change))
    with pytest.raises(Disputed):
        use(consumer, running)
    with consumer._copy._usage.connect() as connection:
        disputes = connection.execute(select(schema.disputes)).mappings().all()
        assert len(disputes) == 1
        # What the provider signed is kept as it is: it is evidence, and stands in its log.
        signed_lies = read_entries(connection, consumer.authorization_id)
        assert [entry.leaf.index for entry in signed_lies] == [d["index"] for d in disputes if d["index"] is not None]
        assert len(signed_lies) == (0 if how in ("signature", "garbage") else 1)
        assert heads.latest_signed(connection, consumer.authorization_id) is None
    if how in ("signature", "payload", "salt", "body"):
        # The log itself is right: what was disputed is worth little, and credited without asking.
        signed = running.consumer(terms).sign_head()
        assert running.world.card().due(signed.head.units, signed.head.credits) == (14_000 if how == "signature" else 0)
    else:
        with pytest.raises(Disputed):
            consumer.sign_head()


def test_meters_are_those_of_the_policy_not_those_of_the_day(running: Exchange) -> None:
    """A provider that starts to count bytes where rows were agreed is found out at the first use."""
    consumer = running.consumer(running.open(), meters=("calls", "bytes"))
    with pytest.raises(Disputed, match="counts"):
        use(consumer, running)


def test_an_answer_that_is_lost_is_asked_for_again_and_counted_once(running: Exchange) -> None:
    lost = {"left": 2}

    def change(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if "sluice-receipt" in response.headers and lost["left"]:
            lost["left"] -= 1
            raise httpx.ReadTimeout("lost on the way", request=request)
        return response

    consumer = running.consumer(running.open(), http=between(running, change))
    assert use(consumer, running).entry.leaf.index == 0
    assert consumer.sign_head().head.size == 1


def test_a_use_whose_answer_never_came_is_recovered_before_a_head_is_signed(running: Exchange) -> None:
    broken = {"now": False}

    def change(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if "sluice-receipt" in response.headers and broken["now"]:
            raise httpx.ReadTimeout("lost on the way", request=request)
        return response

    terms = running.open()
    consumer = running.consumer(terms, http=between(running, change))
    use(consumer, running)
    broken["now"] = True
    with pytest.raises(GatewayDown):
        use(consumer, running)
    broken["now"] = False
    use(consumer, running)
    # A new process over the same files, as after a crash.
    signed = running.consumer(terms).sign_head()
    assert (signed.head.size, signed.head.units) == (3, (3, 15, 0, 0))


@pytest.mark.parametrize("field", ["size", "units", "credits", "asOf", "root"])
def test_a_head_that_does_not_follow_from_the_receipts_is_not_signed(running: Exchange, field: str) -> None:
    terms = running.open()

    def change(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if not request.url.path.endswith("/head"):
            return response
        from ledger.core.terms import UsageHead

        body = response.json()
        body["head"] |= {
            "size": {"size": "3"},
            "units": {"units": ["2", "11", "0", "0"]},
            "credits": {"credits": "5"},
            "asOf": {"asOf": body["head"]["asOf"] + 1},
            "root": {"root": digest("other")},
        }[field]
        lie = UsageHead.from_json(body["head"])
        body["providerSignature"] = running.world.provider.sign(lie, running.world.domain(terms))
        return httpx.Response(200, json=body)

    consumer = running.consumer(terms, http=between(running, change))
    use(consumer, running)
    use(consumer, running)
    with pytest.raises(Disputed):
        consumer.sign_head()
    with consumer._copy._usage.connect() as connection:
        assert heads.latest_signed(connection, consumer.authorization_id) is None


def test_a_use_that_the_consumer_never_made_is_not_signed(running: Exchange) -> None:
    terms = running.open()
    use(running.consumer(terms, "twin"), running)
    mine = running.consumer(terms)
    use(mine, running)
    with pytest.raises(Disputed, match="no receipt"):
        mine.sign_head()


# ------------------------------------------------------------------------------------------------ gateway


def test_a_log_is_read_again_as_it_was_written(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(3):
        use(consumer, running)
    before = running.gateway.log(running.world.id(terms))
    again = UsageLog(running.usage, running.world.id(terms))
    assert (len(again), again.units, again.tree.root()) == (3, before.units, before.tree.root())
    entry = again.find(before.last.use_id_hash) if before.last else None
    assert entry is not None
    with pytest.raises(Conflict):
        again.append(entry)


def test_a_gap_in_a_log_is_found(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(3):
        use(consumer, running)
    with writing(running.usage) as connection:
        connection.execute(schema.leaves.delete().where(schema.leaves.c.index == 1))
    with pytest.raises(VerificationFailed, match="gap"):
        UsageLog(running.usage, running.world.id(terms))


def test_a_failed_write_serves_nothing_counts_nothing_and_heals(
    running: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running)

    def fails(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("disk full"))

    with monkeypatch.context() as broken:
        broken.setattr(UsageLog, "write", fails)
        with pytest.raises(GatewayProblem, match="could not be written"):
            use(consumer, running, use_id=USE_ID)
    assert use(consumer, running, use_id=USE_ID).entry.leaf.index == 1
    assert consumer.sign_head().head.size == 2


def test_a_second_writer_is_noticed_and_the_log_read_again(running: Exchange) -> None:
    """Another process appended to the same log: this gateway's memory is stale."""
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running)
    other = UsageLog(running.usage, running.world.id(terms))
    first = other.find(other.last.use_id_hash) if other.last else None
    assert first is not None
    leaf = replace(first.leaf, index=1, use_id_hash=digest("theirs"), cum_units=(2, 10, 0, 0))
    other.append(replace(first, leaf=leaf))
    assert use(consumer, running).entry.leaf.index == 2
    assert len(UsageLog(running.usage, running.world.id(terms))) == 3


def test_a_file_that_is_not_the_product_is_not_served(world: World, running: Exchange) -> None:
    path = running.folder / "data.csv"
    digests = [{"algorithm": 0x534D, "value": digest("other content")}]
    with pytest.raises(ContentDiffers, match="sm3-256"):
        open_source(path, "rows", world.product, world.version, digests)
    assert path.read_bytes() == CSV


@pytest.mark.parametrize(
    "query", [{"limt": "2"}, {"limit": "0"}, {"limit": "1001"}, {"limit": "²"}, {"limit": "9" * 5000}, {"from": "2027"}]
)
def test_a_query_that_cannot_be_answered_counts_nothing(running: Exchange, query: dict[str, str]) -> None:
    terms = running.open()
    with pytest.raises((GatewayProblem, InputInvalid)):
        use(running.consumer(terms), running, query=query)
    assert len(running.gateway.log(running.world.id(terms))) == 0
