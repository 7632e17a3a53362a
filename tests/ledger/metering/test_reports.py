"""Uses metered elsewhere: one batch, one transaction, one signed receipt; and the log as strangers read it."""

import base64
import json
import secrets
from typing import Any

import httpx
import pytest

from ledger.core.checkpoint import read_checkpoint
from ledger.core.ids import ZERO_HASH, hash_of, raw
from ledger.core.merkle import Tree, verify_consistency, verify_inclusion
from ledger.core.terms import AuthorizationTerms, GatewaySession, UsageHead
from ledger.core.tiles import TiledTree, entries_path, tile_path
from ledger.core.usage_leaf import Kind, UsageLeaf
from ledger.metering.copy import Disputed
from ledger.metering.log import Entry, read_entries
from ledger.metering.reporter import Reporter, ReportFailed
from ledger.metering.sessions import origin_hash
from tests.exchange import Exchange
from tests.world import Key, digest

NAME = "A" * 40


@pytest.fixture
def reporter(running: Exchange) -> Reporter:
    return reporter_of(running, running.world.provider)


def reporter_of(running: Exchange, signer: Key) -> Reporter:
    domain = running.world.deployment.domain("UsageLedger")
    return Reporter(gateway=running.url, signer=signer, domain=domain, http=running.http, clock=running.clock)


def job(running: Exchange, n: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "useId": f"{NAME}{n:06d}",
        "purpose": "RESEARCH",
        "modality": "API_PULL",
        "version": running.version,
        "counts": {"calls": 1, "rows": 60},
        "eventTime": "2026-07-01T08:00:00+08:00",
        "job": digest(f"job {n}"),
        "result": digest(f"result {n}"),
    } | changes


def entries(running: Exchange, terms: AuthorizationTerms) -> list[Entry]:
    with running.usage.connect() as connection:
        return read_entries(connection, running.world.id(terms))


def test_a_batch_is_one_transaction_with_one_receipt(running: Exchange, reporter: Reporter) -> None:
    terms = running.open(500_000_000)
    answer = reporter.report(running.world.id(terms), [job(running, n) for n in range(300)])
    assert answer["leaves"] == list(range(300))
    found = entries(running, terms)
    head = UsageHead.from_json(answer["receipt"]["head"])
    assert (head.size, head.units) == (300, (300, 18_000, 0, 0))
    assert head.root == hash_of(Tree(entry.leaf.hash() for entry in found).root())
    assert all(entry.signature is None for entry in found)  # the head answers for them
    payload = found[7].payload
    assert payload is not None
    assert payload["asked"]["job"] == digest("job 7")
    assert payload["asked"]["counts"] == {"calls": "1", "rows": "60"}
    assert found[7].leaf.event_time == 1_782_864_000


def test_the_same_batch_again_counts_nothing_and_has_the_same_places(running: Exchange, reporter: Reporter) -> None:
    terms = running.open()
    id_ = running.world.id(terms)
    first = reporter.report(id_, [job(running, n) for n in range(20)])
    again = reporter.report(id_, [job(running, n) for n in range(10, 30)])
    assert again["leaves"] == list(range(10, 30))
    assert len(entries(running, terms)) == 30
    assert reporter.report(id_, [job(running, n) for n in range(20)])["leaves"] == first["leaves"]
    changed = reporter.report(id_, [job(running, 1, counts={"calls": 1, "rows": 61}), job(running, 99)])
    assert changed["failed"][0]["code"] == "conflict"
    assert changed["leaves"] == [None, 30]


def test_cloudevents_are_taken_as_they_are(running: Exchange, reporter: Reporter) -> None:
    terms = running.open()
    id_ = running.world.id(terms)
    reporter.report(id_, [job(running, 1)])  # opens the session
    events = []
    for n in range(3):
        data = {k: v for k, v in job(running, n).items() if k not in ("useId", "eventTime")}
        events.append(
            {
                "specversion": "1.0",
                "id": f"{secrets.token_hex(32)}",
                "source": "/jobs/federated",
                "type": "cn.sluice.use",
                "subject": id_,
                "time": "2026-07-01T00:00:00Z",
                "datacontenttype": "application/json",
                "data": data,
            }
        )
    headers = {"Authorization": f"Bearer {reporter._token}", "Content-Type": "application/cloudevents-batch+json"}
    answer = running.http.post(f"{running.url}/v1/uses", content=json.dumps(events), headers=headers)
    assert answer.json()["leaves"] == [1, 2, 3]
    one = headers | {"Content-Type": "application/cloudevents+json"}
    again = running.http.post(f"{running.url}/v1/uses", content=json.dumps(events[0]), headers=one)
    assert again.json()["leaves"] == [1]
    wrong = running.http.post(
        f"{running.url}/v1/uses", content=json.dumps([events[0] | {"type": "com.example.other"}]), headers=headers
    )
    assert (wrong.status_code, wrong.json()["code"]) == (422, "input_invalid")


def test_uses_over_the_quota_are_refused_and_stand_in_the_log(running: Exchange, reporter: Reporter) -> None:
    terms = running.open(max_units=(3, 10_000, 0, 0))
    answer = reporter.report(running.world.id(terms), [job(running, n) for n in range(5)])
    assert [r["use"] for r in answer["refused"]] == [3, 4]
    assert {r["reason"] for r in answer["refused"]} == {"QUOTA_EXCEEDED"}
    assert [e.leaf.kind for e in entries(running, terms)] == [Kind.USE] * 3 + [Kind.REFUSAL] * 2


def test_a_job_asks_before_it_begins(running: Exchange, reporter: Reporter) -> None:
    terms = running.open(max_units=(3, 100, 0, 0))
    id_ = running.world.id(terms)
    assert reporter.report(id_, [job(running, 0)], ask=True)["leaves"] == [None]
    assert entries(running, terms) == []
    asked = reporter.report(id_, [job(running, 1, counts={"calls": 1, "rows": 101})], ask=True)
    assert (asked["leaves"], asked["refused"][0]["reason"]) == ([0], "QUOTA_EXCEEDED")


@pytest.mark.parametrize(
    "changes",
    [
        {"useId": "short"},
        {"purpose": "FUN"},
        {"modality": "TELEPATHY"},
        {"version": "0x12"},
        {"counts": {"calls": 1}},
        {"counts": {"calls": -1, "rows": 1}},
        {"counts": {"calls": 1, "rows": 2**64}},
        {"counts": {"calls": 1, "rows": 1, "bytes": 5}},
        {"counts": {"calls": 1.5, "rows": 1}},
        {"eventTime": "yesterday"},
        {"eventTime": "2026-07-01T08:00:00"},
        {"job": "not a digest"},
        {"note": {"phone": "13800138000"}},
        {"note": {"who": "110101199003078515"}},
        {"note": {"ratio": float("1e400")}},
        {"surprise": 1},
    ],
)
def test_a_malformed_use_spoils_its_batch_in_words(running: Exchange, reporter: Reporter, changes: Any) -> None:
    terms = running.open()
    reporter.report(running.world.id(terms), [job(running, 0)])
    body = json.dumps({"authorization": running.world.id(terms), "uses": [job(running, 1), job(running, 2, **changes)]})
    headers = {"Authorization": f"Bearer {reporter._token}", "Content-Type": "application/json"}
    answer = running.http.post(f"{running.url}/v1/uses", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "13800138000" not in answer.text
    assert len(entries(running, terms)) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[" * 9_000, b"\xff", b'{"authorization":1}', b"null"])
def test_a_body_that_is_no_batch_is_refused(running: Exchange, reporter: Reporter, body: bytes) -> None:
    reporter.report(running.world.id(running.open()), [job(running, 0)])
    for kind in ("application/json", "application/cloudevents-batch+json", "application/cloudevents+json", ""):
        headers = {"Authorization": f"Bearer {reporter._token}", "Content-Type": kind}
        answer = running.http.post(f"{running.url}/v1/uses", content=body, headers=headers)
        assert answer.status_code == 422, (kind, answer.text)


def test_only_the_provider_reports(running: Exchange) -> None:
    terms = running.open()
    with pytest.raises(ReportFailed, match="only the provider"):
        reporter_of(running, running.world.consumer).report(running.world.id(terms), [job(running)])
    consumer = running.consumer(terms)
    consumer.use(running.version, "RESEARCH", {"limit": "1"})
    body = {"authorization": running.world.id(terms), "uses": [job(running)]}
    for headers in ({}, {"Authorization": f"Bearer {consumer._token}"}):
        assert running.http.post(f"{running.url}/v1/uses", json=body, headers=headers).status_code == 401
    assert len(entries(running, terms)) == 1


def test_a_providers_session_uses_no_data(running: Exchange, reporter: Reporter) -> None:
    reporter.report(running.world.id(running.open()), [job(running)])
    headers = {"Authorization": f"Bearer {reporter._token}", "Sluice-Use-Id": "u" * 64, "Sluice-Purpose": "RESEARCH"}
    assert running.http.get(f"{running.url}/v1/data/{running.version}", headers=headers).status_code == 401


def test_a_session_request_of_the_provider_works_once(running: Exchange) -> None:
    domain = running.world.deployment.domain("UsageLedger")
    session = GatewaySession(
        authorization_id=ZERO_HASH,
        gateway=origin_hash(running.url),
        nonce=digest("nonce of the provider"),
        expires_at=int(running.clock()) + 1_000,
    )
    body = {"session": session.as_json(), "signature": running.world.provider.sign(session, domain)}
    assert [running.http.post(f"{running.url}/v1/sessions", json=body).status_code for _ in range(2)] == [200, 401]


# ---------------------------------------------------------------------------------------- the consumer's part


def test_the_consumer_signs_reported_uses_only_if_it_knows_them(running: Exchange, reporter: Reporter) -> None:
    terms = running.open()
    id_ = running.world.id(terms)
    reporter.report(id_, [job(running, n) for n in range(3)])
    with pytest.raises(Disputed, match="not asked for here"):
        running.consumer(terms, "careful").sign_head()
    expected = {digest(f"job {n}"): (1, 60, 0, 0) for n in range(3)}

    def mine(entry: Entry) -> bool:
        payload = entry.payload or {}
        return expected.get(payload["asked"]["job"]) == entry.leaf.units

    signed = running.consumer(terms, "knowing", accept=mine).sign_head()
    assert signed.head.units == (3, 180, 0, 0)
    running.settle(terms, signed)
    assert running.world.reservation(terms)["paid"] == running.world.card().price(signed.head.units)


def test_a_leaf_of_a_batch_that_was_changed_on_the_way_is_noticed(running: Exchange, reporter: Reporter) -> None:
    terms = running.open()
    reporter.report(running.world.id(terms), [job(running, n) for n in range(3)])

    class Changed(httpx.BaseTransport):
        inner = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = self.inner.handle_request(request)
            response.read()
            if not request.url.path.endswith("/leaves"):
                return response
            body = response.json()
            body["entries"][1]["leaf"]["units"][0] = "0"
            return httpx.Response(200, json=body)

    http = httpx.Client(transport=Changed())
    running.closing.append(http)
    consumer = running.consumer(terms, http=http, accept=lambda _: True)
    with pytest.raises(Disputed):
        consumer.sign_head()


# --------------------------------------------------------------------------------------------- the tree


def read(running: Exchange, token: str, id_: str, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return running.http.get(f"{running.url}/v1/authorizations/{id_}/log/{path}", headers=headers)


def test_a_stranger_with_a_session_rebuilds_the_tree_from_tiles(running: Exchange, reporter: Reporter) -> None:
    terms = running.open(500_000_000)
    id_ = running.world.id(terms)
    reporter.report(id_, [job(running, n) for n in range(700)])
    token = reporter._token
    head, signatures = read_checkpoint(read(running, token, id_, "checkpoint").text)
    assert (head.size, list(signatures)) == (700, [running.world.provider.address])

    def tile(level: int, index: int) -> bytes:
        have = (head.size >> (8 * level)) - index * 256
        return read(running, token, id_, tile_path(level, index, min(have, 256))).content

    tree = TiledTree(700, tile)
    assert hash_of(tree.root()) == head.root
    bundle = read(running, token, id_, entries_path(2, 700 - 512)).content
    leaves = [bundle[at + 2 : at + 231] for at in range(0, len(bundle), 231)]
    assert len(leaves) == 188
    assert all(bundle[at : at + 2] == b"\x00\xe5" for at in range(0, len(bundle), 231))
    last = UsageLeaf.decode(leaves[-1])
    assert (last.index, last.cum_units) == (699, head.units)
    for index, size in ((0, 1), (3, 500), (699, 700)):
        proof = read(running, token, id_, f"inclusion?index={index}&size={size}").json()
        path = [raw(node) for node in proof["proof"]]
        assert verify_inclusion(raw(proof["root"]), size, index, tree.node(0, index), path)
    grown = read(running, token, id_, "consistency?first=300&second=700").json()
    path = [raw(node) for node in grown["proof"]]
    assert verify_consistency(300, tree.root(300), 700, raw(grown["root"]), path)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/003",
        "tile/0/002.p/200",
        "tile/0/x000/001",
        "tile/9/000",
        "tile/-1/000",
        "tile/entries/002",
        "tile/0/000.p/0",
        "tile/0/000.p/999",
        "tile/x",
        "inclusion?index=700&size=700",
        "inclusion?index=0&size=701",
        "consistency?first=5&second=4",
    ],
)
def test_what_the_log_does_not_have_is_not_found(running: Exchange, reporter: Reporter, path: str) -> None:
    terms = running.open(500_000_000)
    id_ = running.world.id(terms)
    reporter.report(id_, [job(running, n) for n in range(700)])
    assert read(running, reporter._token, id_, path).status_code == 404


def test_the_tree_is_for_its_parties(running: Exchange) -> None:
    terms, other = running.open(), running.open()
    consumer, stranger = running.consumer(terms), running.consumer(other, "other")
    for one in (consumer, stranger):
        one.use(running.version, "RESEARCH", {"limit": "1"})
    consumer.sign_head()
    id_ = running.world.id(terms)
    assert read(running, stranger._token, id_, "checkpoint").status_code == 401
    text = read(running, consumer._token, id_, "checkpoint").text
    head, signatures = read_checkpoint(text)
    assert set(signatures) == {running.world.provider.address, running.world.consumer.address}
    assert text.split("\n")[2] == base64.b64encode(raw(head.root)).decode()
