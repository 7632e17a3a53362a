"""What was tried against the meter, by who tried it: for data that nobody pays for, for money that nobody owes, or for
what nobody may know. Each of these worked once."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

import ledger.metering.log as log_module
from ledger.core import codes
from ledger.core.database import Target, writing
from ledger.core.errors import Conflict, VerificationFailed
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import hash_of
from ledger.core.terms import AGENT_CAPPED, AuthorizationTerms, Quad, UsageHead
from ledger.core.usage_leaf import Kind, payload_hash
from ledger.metering import heads, schema
from ledger.metering.asking import asked_of, purpose_of
from ledger.metering.client import Consumer, GatewayDown, GatewayProblem
from ledger.metering.copy import Copy, Disputed
from ledger.metering.log import Entry, SignedHead, open_usage, receipt_of
from ledger.metering.middleware import Metered, MeterMiddleware
from ledger.metering.personal import PersonalData
from ledger.metering.policy import read_policy
from ledger.metering.proxy import Proxy
from ledger.metering.recorder import LogUnavailable, Recorded, Recorder, UnderWay
from ledger.metering.reporter import ReportFailed
from tests.databases import fresh_database
from tests.exchange import CREDITED, Exchange, served, serving_of
from tests.ledger.metering import test_recorder as recording
from tests.ledger.metering.test_agreements import AGENT, YUAN, agent, reason, register, use
from tests.ledger.metering.test_exchange import between
from tests.ledger.metering.test_reports import entries, job, reporter_of
from tests.world import DAY, Key, digest

NOTHING: Quad = (0, 0, 0, 0)
FAR: Quad = (9_000, 900_000, 0, 0)  # what nobody used


def bearer(consumer: Consumer) -> dict[str, str]:
    """A session of this consumer, for who asks without its client."""
    if not consumer._token:
        consumer._run(consumer._open_session())
    return {"Authorization": f"Bearer {consumer._token}"}


def asking(consumer: Consumer, use_id: str, **more: str) -> dict[str, str]:
    return bearer(consumer) | {"Sluice-Use-Id": use_id * 64, "Sluice-Purpose": "RESEARCH"} | more


def until(holds: Callable[[], Any]) -> None:
    """Waits for it."""
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert holds()


def together(work: Callable[[], Any]) -> list[Any]:
    """What comes of it in four threads."""
    with ThreadPoolExecutor(4) as pool:
        return [one.result() for one in [pool.submit(work) for _ in range(4)]]


def revoke(running: Exchange, terms: AuthorizationTerms) -> None:
    running.world.send(running.world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
    running.world.pass_time(5)
    running.follow()


@contextmanager
def metered(running: Exchange, app: Any, path: str, **rule: Any) -> Iterator[str]:
    with served(MeterMiddleware(app, running.gateway, [Metered(path, version=running.version, **rule)])) as url:
        yield url


def answering(path: str, answer: Callable[[], Any], method: str = "GET") -> FastAPI:
    app = FastAPI()
    app.add_api_route(path, answer, methods=[method], response_model=None)
    return app


def document(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


class Upstream:
    """Notes what reaches it, and sets a cookie."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.seen.append((scope["path"], {k.decode(): v.decode() for k, v in scope["headers"]}))
            headers = {"set-cookie": f"session={len(self.seen)}; Path=/"}
            answer = Response(b'{"rows": [1]}', media_type="application/json", headers=headers)
            await answer(scope, receive, send)


class Tape:
    """A stream that is another each time: one piece at once, the rest when it may run."""

    def __init__(self) -> None:
        self.pieces = 0
        self.runs = threading.Event()
        self.runs.set()

    @contextmanager
    def served(self, running: Exchange, **rule: Any) -> Iterator[str]:
        async def stream() -> Response:
            return StreamingResponse(self._body(), media_type="application/octet-stream")

        app = FastAPI()
        app.add_api_route("/stream", stream, methods=["GET", "POST"])
        options = {"stream": True, "counts": ("calls",), "methods": ("GET", "POST")} | rule
        with metered(running, app, "/stream", **options) as url:
            yield f"{url}/stream"

    async def _body(self) -> Any:
        for piece in range(3):
            self.pieces += 1
            yield b"%08d" % self.pieces
            while piece == 0 and not self.runs.is_set():
                await asyncio.sleep(0.01)


def pull(running: Exchange, url: str, headers: Mapping[str, str], method: str = "GET") -> tuple[int, bytes]:
    """Status and data of a stream; no data of a problem."""
    response = running.http.request(method, url, headers=dict(headers))
    return response.status_code, b"" if "problem" in response.headers["content-type"] else response.content


# ----------------------------------------------------------------------------------- a consumer, at a stream


def nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("terms", "meanwhile", "statuses", "kind"),
    [
        ({}, nothing, [200, 410], Kind.USE),
        ({}, revoke, [200, 410], Kind.USE),
        ({"purposes": 0b10}, nothing, [403, 403], Kind.REFUSAL),
    ],
)
def test_a_use_id_that_is_known_streams_nothing(
    running: Exchange, terms: Any, meanwhile: Any, statuses: list[int], kind: Kind
) -> None:
    tape, terms = Tape(), running.open(**terms)
    headers = asking(running.consumer(terms), "a")
    with tape.served(running) as url:
        first = pull(running, url, headers)
        meanwhile(running, terms)
        again = pull(running, url, headers)
    assert ([first[0], again[0]], again[1]) == (statuses, b"")
    assert tape.pieces == (3 if kind == Kind.USE else 0)
    assert [entry.leaf.kind for entry in entries(running, terms)] == [kind]


def test_a_stream_beyond_the_quota_is_refused_before_it_begins(running: Exchange) -> None:
    tape, consumer = Tape(), running.consumer(running.open(max_units=(1, 100, 0, 0)))
    with tape.served(running) as url:
        assert [pull(running, url, asking(consumer, name))[0] for name in "abc"] == [200, 403, 403]
    assert tape.pieces == 3


def test_one_use_id_streams_once_at_a_time_whatever_it_asks_for(running: Exchange) -> None:
    tape, terms = Tape(), running.open()
    headers = asking(running.consumer(terms), "a")
    tape.runs.clear()
    with tape.served(running) as url, running.http.stream("GET", f"{url}?part=0", headers=headers) as first:
        chunks = first.iter_bytes()
        assert next(chunks) == b"00000001"
        for part in range(3):
            answer = running.http.get(f"{url}?part={part}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (409, "under_way")
        tape.runs.set()
        assert b"".join(chunks) == b"0000000200000003"
        assert entries(running, terms)[-1].leaf.cum_units == (1, 0, 0, 0)
        assert pull(running, f"{url}?part=1", headers)[0] == 409


def test_who_leaves_a_stream_pays_for_what_was_handed_over(running: Exchange) -> None:
    tape, terms = Tape(), running.open()
    tape.runs.clear()
    with tape.served(running) as url:
        with running.http.stream("GET", url, headers=asking(running.consumer(terms), "a")) as response:
            assert next(response.iter_bytes()) == b"00000001"
        until(lambda: entries(running, terms))
    found = entries(running, terms)[0]
    assert (found.leaf.units, (found.payload or {})["bytes"]) == ((1, 0, 0, 0), 8)


def test_a_stream_whose_meters_look_into_it_never_begins(running: Exchange) -> None:
    tape, terms = Tape(), running.open()
    with tape.served(running, counts=None) as url:
        assert pull(running, url, asking(running.consumer(terms), "a")) == (502, b"")
    assert (tape.pieces, entries(running, terms)) == (0, [])


def test_a_request_without_a_body_may_stream(running: Exchange) -> None:
    tape, terms = Tape(), running.open()
    with tape.served(running) as url:
        status, got = pull(running, url, asking(running.consumer(terms), "a"), "POST")
    assert (status, len(got)) == (200, 24)


# --------------------------------------------------------------------------- a consumer, at an application


def test_a_path_that_others_read_as_another_reaches_nothing(running: Exchange) -> None:
    upstream, terms = Upstream(), running.open()
    rules = [
        Metered("/cheap/{x:path}", version=running.version, counts=()),
        Metered("/lots/{area}", version=running.version),
    ]
    consumer = running.consumer(terms)
    with served(upstream) as behind, served(MeterMiddleware(Proxy(behind), running.gateway, rules)) as url:
        for n, path in enumerate(("cheap/%2e%2e/admin", "cheap/x/%2e%2e/%2e%2e/admin", "lots/%2e%2e", "lots//a")):
            assert running.http.get(f"{url}/{path}", headers=asking(consumer, str(n))).status_code == 404
        assert running.http.get(f"{url}/lots/a%20%25b", headers=asking(consumer, "9")).status_code == 200
    assert [path for path, _ in upstream.seen] == ["/lots/a %b"]


def test_an_upstream_gets_no_ones_cookies_and_the_gateways_names_from_it_alone(running: Exchange) -> None:
    upstream, consumers = Upstream(), [running.consumer(running.open(), name) for name in ("one", "two")]
    with served(upstream) as behind, metered(running, Proxy(behind), "/x") as url:
        for consumer in consumers:
            headers = asking(consumer, "a", Sluice_Authorization="0x" + "11" * 32)
            assert httpx.get(f"{url}/x", headers=headers).status_code == 200
    for consumer, (_, seen) in zip(consumers, upstream.seen, strict=True):
        assert "cookie" not in seen
        ours = {name: value for name, value in seen.items() if name.startswith("sluice")}
        assert ours == {"sluice-authorization": consumer.authorization_id, "sluice-purpose": "RESEARCH"}


PATHS = [("/lots/a", 402), ("//lots/a", 404), ("/lots//a", 404), ("/lots/%2e/a", 404)]


@pytest.mark.parametrize(("path", "status"), PATHS)
def test_an_application_that_is_mounted_is_metered_as_ever(running: Exchange, path: str, status: int) -> None:
    app = answering("/lots/{area}", lambda: document(b'{"rows": []}'))
    app.add_middleware(MeterMiddleware, gateway=running.gateway, routes=[Metered("/lots/{area}", running.version)])
    with served(app) as plain, served(Starlette(routes=[Mount("/api", app)])) as mounted:
        assert [running.http.get(url + path).status_code for url in (plain, f"{mounted}/api")] == [status] * 2


@pytest.mark.parametrize(("method", "path"), [("GET", "//data.csv"), ("GET", "/%2e/data.csv"), ("HEAD", "/data.csv")])
def test_a_folder_of_files_has_no_second_name(running: Exchange, tmp_path: Path, method: str, path: str) -> None:
    (tmp_path / "data.csv").write_bytes(b"time,value\n1,2\n")
    app = FastAPI()
    app.mount("/files", StaticFiles(directory=tmp_path))
    with metered(running, app, "/files/{name}") as url:
        answer = running.http.request(method, f"{url}/files{path}")
    assert answer.status_code in (402, 404)
    assert b"1,2" not in answer.content


def test_what_takes_its_time_is_done_once_however_often_it_is_asked(running: Exchange) -> None:
    done = list[int]()

    async def work() -> Response:
        done.append(1)
        await asyncio.sleep(0.5)
        return document(b'{"hit": true}')

    terms, app = running.open(), answering("/do", work, "POST")
    with metered(running, app, "/do", methods=("POST",), counts=("calls",)) as url, httpx.Client(timeout=0.2) as short:
        consumer = running.consumer(terms, data=url, http=short)  # gives up, and asks again
        got = consumer.request("POST", "/do", purpose="RESEARCH", content=b"{}")
    assert (got.body, done, len(entries(running, terms))) == (b'{"hit": true}', [1], 1)


def test_who_may_not_use_gets_no_failed_answers_either(running: Exchange) -> None:
    terms = running.open()
    revoke(running, terms)
    consumer = running.consumer(terms)
    app = answering("/people/{who}", lambda: document(b'{"detail": "has no loan"}', 404))
    with metered(running, app, "/people/{who}", counts=("calls",)) as url:
        found = [running.http.get(f"{url}/people/{n}", headers=asking(consumer, str(n))) for n in range(3)]
    assert [answer.status_code for answer in found] == [403] * 3
    assert not any("loan" in answer.text for answer in found)


# --------------------------------------------------------------------------------- a consumer, at what it owes


def takes_head_of(running: Exchange, consumer: Consumer, terms: AuthorizationTerms, key: Key) -> int:
    """What the gateway says to the head that waits, signed by this key."""
    head = running.gateway.head(running.world.id(terms)).head
    signature = key.sign(head, running.world.domain(terms))
    body = {"head": head.as_json(), "consumerSignature": signature}
    return running.http.post(consumer._log("head"), headers=bearer(consumer), json=body).status_code


def test_a_key_that_signs_for_nothing_opens_no_window(running: Exchange) -> None:
    terms, tiny = running.open(credit_units=(0, 5, 0, 0)), Key.named("tiny")
    register(running, running.world.consumer, tiny, max_due=1)
    consumer = running.consumer(terms)
    use(consumer, running)
    assert takes_head_of(running, consumer, terms, tiny) == 409
    assert reason(consumer, running) == "CREDIT_WINDOW_FULL"


def test_a_ceiling_is_taken_back_in_none_of_its_bounds(running: Exchange) -> None:
    terms = running.open(credit_units=(0, 5, 0, 0))
    consumer = running.consumer(terms)
    ceiling = consumer.pay_ahead(50 * YUAN, 7_200)
    for other in (
        replace(ceiling, max_due=50 * YUAN - 1),
        replace(ceiling, max_units=(10_000, 0, 0, 0)),
        replace(ceiling, min_credits=1),
        replace(ceiling, expiry=ceiling.expiry - 1),
    ):
        signature = running.world.consumer.sign(other, running.world.domain(terms))
        with pytest.raises(Conflict):
            running.gateway.take_ceiling(ceiling.authorization_id, {"ceiling": other.as_json(), "signature": signature})
    assert running.gateway.log(consumer.authorization_id).ceiling == ceiling


def test_a_ceiling_covers_nothing_once_it_leaves_no_time_to_settle(running: Exchange) -> None:
    terms = running.open(credit_units=(0, 5, 0, 0))
    consumer = running.consumer(terms)
    with pytest.raises(GatewayProblem, match="more than 3600 seconds"):
        consumer.pay_ahead(50 * YUAN, 3_600)
    consumer.pay_ahead(50 * YUAN, 3_700)
    for _ in range(2):
        use(consumer, running)
    running.world.pass_time(200)
    running.follow()
    assert reason(consumer, running) == "CREDIT_WINDOW_FULL"


def test_credits_that_nobody_is_asked_for_end_at_their_sum(running: Exchange) -> None:
    consumer = running.consumer(running.open())
    for _ in range(15):
        use(consumer, running, rows=3)
    answers = [consumer.dispute(n, "no") for n in range(15)]
    assert answers[-1] == "OPEN"
    log = running.gateway.log(consumer.authorization_id)
    assert 0 < log.credits <= CREDITED
    with pytest.raises(Disputed):
        consumer.sign_head()


def test_no_use_id_stands_in_the_way_of_a_credit(running: Exchange) -> None:
    terms = running.open()
    id_ = running.world.id(terms)
    consumer = running.consumer(terms)
    for _ in range(11):
        use(consumer, running, rows=20)
    consumer.use(running.version, "RESEARCH", {"limit": "1"}, f"credit of leaf 10 of {id_}")
    assert consumer.dispute(10, "empty") == "OPEN"
    running.gateway.credit(id_, 10, "sorry")
    assert consumer.sign_head().head.credits > 0


def test_a_word_that_is_limited_is_said_and_kept_to_though_it_is_metered(running: Exchange) -> None:
    limits = '{"limits": [{"counter": "persons", "per": "provider-year", "most": 100}]}'
    reporter = reporter_of(running, running.world.provider)
    for meters, counts, why in (
        ("persons", {"persons": 5_000}, "LIMIT_REACHED"),
        ("calls", {"calls": 1}, "EVIDENCE_MISSING"),
    ):
        text = f'{{"meters": ["{meters}"], "duties": {limits}}}'
        policy = hash_of(sha256(text.encode()))
        policies = running.gateway.policies
        assert isinstance(policies, dict)
        policies[policy] = read_policy(text)
        id_ = running.world.id(running.open(policy_hash=policy))
        answer = reporter.report(id_, [job(running, counts=counts)])
        assert [refusal["reason"] for refusal in answer["refused"]] == [why]


@pytest.mark.parametrize(
    "query", ["q=%31%33812345678&q=x", "q=x&q=%31%33812345678", "%70hone=x", "%E6%89%8B%E6%9C%BA=1"]
)
def test_escapes_and_names_that_are_repeated_hide_no_person(query: str) -> None:
    with pytest.raises(PersonalData):
        asked_of("GET", "/x", query, purpose_of("RESEARCH"))


def test_a_count_that_names_a_person_is_recorded_nowhere(running: Exchange) -> None:
    terms = running.open()
    named = {"Sluice-Count": "a-13800138000=3"}
    app = answering("/x", lambda: Response(b"{}", media_type="application/json", headers=named))
    with metered(running, app, "/x", counts=("calls",)) as url:
        answer = running.http.get(f"{url}/x", headers=asking(running.consumer(terms), "a"))
    assert (answer.status_code, answer.json()["code"], entries(running, terms)) == (422, "personal_data", [])


# ------------------------------------------------------------------------------------------------- an agent


def test_a_metering_agent_with_a_cap_signs_nothing_without_one(running: Exchange) -> None:
    world, meter = running.world, Key.named("metering agent")
    roles = codes.bits("roles", ["metering_agent"])
    world.send(
        world.operator, "participant.admit", space=world.space, wallet=meter.address, roles=roles, digest=digest("who")
    )
    terms = running.open(metering_agent=meter.address, flags=AGENT_CAPPED)
    consumer = running.consumer(terms)
    use(consumer, running)
    assert takes_head_of(running, consumer, terms, meter) == 409


def test_an_agent_whose_key_is_revoked_reads_and_disputes_nothing_more(running: Exchange) -> None:
    terms, world = running.open(), running.world
    register(running, world.consumer, AGENT)
    mine = agent(running, terms)
    use(mine, running)
    headers = bearer(mine)
    world.send(world.consumer, "session-key.revoke", key=AGENT.address)
    running.follow()
    body = {"index": 0, "reason": "x"}
    assert running.http.get(mine._log("leaves"), headers=headers).status_code == 401
    assert running.http.post(mine._log("disputes"), headers=headers, json=body).status_code == 401
    assert running.gateway.disputes() == []


# ----------------------------------------------------------------------------------------------- a provider


def forge(running: Exchange, terms: AuthorizationTerms, kind: Kind, units: Quad, payload: Any, **more: Any) -> None:
    """Appends a leaf that says whatever a provider wants, and signs it."""
    log = running.gateway.log(running.world.id(terms))
    log.append(forged(running, terms, log, kind, units, payload, **more))


def forged(
    running: Exchange, terms: AuthorizationTerms, log: Any, kind: Kind, units: Quad, payload: Any, later: int = 0
) -> Entry:
    salt, written, now = secrets.token_bytes(16), canonical_json(payload), int(running.clock()) + later
    leaf = log.next_leaf(
        use_id_hash=hash_of(secrets.token_bytes(32)),
        units=units,
        kind=kind,
        purpose=0,
        modality=1,
        version=running.version,
        payload_hash=payload_hash(salt, written),
        event_time=now,
        now=now,
    )
    signature = running.world.provider.sign(receipt_of(leaf), running.world.domain(terms))
    return Entry(leaf, hash_of(sha256(written)), salt, written, signature)


SERVED = {"outcome": "served"}


def lies(consumer: Consumer, times: int = 2) -> None:
    """However often it is asked, it signs nothing."""
    for _ in range(times):
        with pytest.raises(Disputed):
            consumer.sign_head()
    assert consumer._copy.latest_signed() is None


@pytest.mark.parametrize(
    "leaves",
    [
        [{"corrects": 1, "credit": "0"}, SERVED],  # answered before it is there
        [SERVED, {"corrects": 0}],
        [SERVED, {"corrects": [0]}],
        [SERVED, {"corrects": 0, "credit": "9" * 40}],
    ],
)
def test_a_credit_in_words_alone_answers_nothing(running: Exchange, leaves: list[Any]) -> None:
    terms = running.open()
    for said in leaves:
        forge(running, terms, Kind.USE if said == SERVED else Kind.CREDIT, FAR if said == SERVED else NOTHING, said)
    for name, card in (("with", running.world.card()), ("without", None)):
        lies(running.consumer(terms, name, card=card))


def test_a_leaf_disputed_after_it_was_signed_is_credited_for_what_it_costs(running: Exchange) -> None:
    terms = running.open()
    running.gateway._credit_up_to = 0
    consumer = running.consumer(terms)
    for _ in range(12):
        use(consumer, running)
    consumer.sign_head()
    consumer.dispute(11, "wrong data")
    forge(running, terms, Kind.CREDIT, NOTHING, {"corrects": 11, "credit": "0"})
    with pytest.raises(Disputed, match="no credit answers it"):
        consumer.sign_head()


def test_a_smaller_head_does_not_get_around_a_dispute(running: Exchange) -> None:
    terms = running.open()
    id_ = running.world.id(terms)

    def smaller(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        asked = request.method == "GET" and request.url.path.endswith("/head")
        return httpx.Response(200, json=running.gateway.head_over(id_, 2).as_json()) if asked else response

    running.gateway._credit_up_to = 0
    consumer = running.consumer(terms)
    for _ in range(3):
        use(consumer, running)
    head = running.gateway.head(id_)
    consumer.check_head(head.head, head.provider_signature)
    consumer.dispute(1, "wrong data")
    consumer._http = between(running, smaller)
    lies(consumer)


def test_free_units_are_not_spent_on_what_was_never_delivered(running: Exchange) -> None:
    terms, card = running.open(), running.world.card()
    forge(running, terms, Kind.USE, (10, 0, 0, 0), SERVED)
    consumer = running.consumer(terms)
    with pytest.raises(Disputed):
        consumer.sign_head()
    running.gateway.credit(consumer.authorization_id, 0, "a mistake")
    for _ in range(10):
        use(consumer, running)
    head = consumer.sign_head().head
    assert card.due(head.units, head.credits) == card.price((10, 50, 0, 0))


def test_a_dispute_outlives_the_client_that_fell_on_the_way(running: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    terms = running.open()
    forge(running, terms, Kind.USE, FAR, SERVED)
    with monkeypatch.context() as broken:
        broken.setattr(Copy, "_note", kill)
        with pytest.raises(Killed):
            running.consumer(terms).sign_head()
    lies(running.consumer(terms))


def test_an_answer_that_failed_is_paid_for_only_where_that_was_agreed(running: Exchange) -> None:
    terms = running.open()
    app = answering("/x", lambda: document(b'{"sorry": true}', 500))
    with metered(running, app, "/x", counts=("calls",), count_failures=True) as url:
        with pytest.raises(Disputed, match="an answer that failed"):
            running.consumer(terms, data=url).request("GET", "/x", purpose="RESEARCH")
        agreed = running.consumer(terms, "agreed", data=url, count_failures=True)
        assert agreed.request("GET", "/x", purpose="RESEARCH").status == 500


@pytest.mark.parametrize("status", [404, 410])
def test_a_use_that_is_counted_and_answered_with_a_problem_is_disputed(running: Exchange, status: int) -> None:
    terms = running.open()
    running.gateway._credit_up_to = 0

    def denied(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        data = request.url.path.startswith("/v1/data")
        return httpx.Response(status, json={"detail": "there is nothing"}) if data else response

    consumer = running.consumer(terms, http=between(running, denied), accept=lambda _: True)
    for _ in range(11):
        with pytest.raises(GatewayProblem):
            use(consumer, running)
    lies(consumer, times=3)  # it knows what it asked for: nobody else is asked to accept it


def test_a_free_use_that_was_lost_is_disputed_and_the_log_goes_on(running: Exchange) -> None:
    def lost(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.url.path == "/x":
            raise httpx.ReadError("lost", request=request)
        return response

    terms, app = running.open(), answering("/x", lambda: document(secrets.token_hex(8).encode()))
    with metered(running, app, "/x", counts=("calls",)) as url:
        consumer = running.consumer(terms, data=url, http=between(running, lost))
        with pytest.raises(GatewayDown):
            consumer.request("GET", "/x", purpose="RESEARCH")
    with metered(running, app, "/x", counts=("calls",)) as url:  # another process: what it delivered is forgotten
        consumer._http, consumer._data = running.http, url
        with pytest.raises(Disputed):
            consumer.sign_head()
        running.gateway.credit(consumer.authorization_id, 0, "lost on the way")
        head = consumer.sign_head().head
    assert (head.size, running.world.card().due(head.units, head.credits)) == (1, 0)


def test_seconds_that_nobody_stated_are_no_more_than_it_took(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms, meters=("calls", "seconds"))
    log = running.gateway.log(running.world.id(terms))
    entry = forged(running, terms, log, Kind.USE, (1, 10**9, 0, 0), SERVED)
    with pytest.raises(Disputed, match="seconds"):
        consumer._check_units(entry.leaf, entry.payload or {}, httpx.Response(200, content=b"{}"), int(running.clock()))


def test_a_leaf_from_the_future_is_not_signed(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running)
    forge(running, terms, Kind.NOTE, NOTHING, {"a": 1}, later=5 * DAY)
    lies(consumer)


# ----------------------------------------------------------------------------------------------- a reporter


def test_a_reporter_whose_key_is_revoked_reports_nothing_more(running: Exchange) -> None:
    world, key = running.world, Key.named("reporter")
    terms = running.open()
    register(running, world.provider, key)
    reporter = reporter_of(running, key)
    assert reporter.report(world.id(terms), [job(running, 1)])["leaves"] == [0]
    world.send(world.provider, "session-key.revoke", key=key.address)
    running.follow()
    with pytest.raises(ReportFailed):
        reporter.report(world.id(terms), [job(running, 2)])
    assert len(entries(running, terms)) == 1


def test_a_gateways_key_that_has_expired_serves_nothing(running: Exchange) -> None:
    world, key, passed = running.world, Key.named("gateway key"), {"seconds": 0}
    register(running, world.provider, key, days=1)
    clock = lambda: running.clock() + passed["seconds"]  # noqa: E731
    with serving_of(running, signer=key, clock=clock) as (_, url):
        consumer = running.consumer(running.open(), gateway=url, provider_keys=[key.address], clock=clock)
        use(consumer, running)
        passed["seconds"] = 86_401
        assert reason(consumer, running) == "SIGNER_CAP_EXCEEDED"


def test_a_use_before_1970_or_named_after_a_person_spoils_its_batch(running: Exchange) -> None:
    terms = running.open()
    reporter = reporter_of(running, running.world.provider)
    for change in (
        {"eventTime": "1960-01-01T00:00:00Z"},
        {"eventTime": -1},
        {"eventTime": 2**40},
        {"counts": {"calls": 1, "rows": 1, "a-13800138000": 1}},
    ):
        with pytest.raises(ReportFailed) as caught:
            reporter.report(running.world.id(terms), [job(running, **change)])
        assert caught.value.details["status"] == 422, change
    assert entries(running, terms) == []


@pytest.mark.parametrize(
    "change",
    [{"receipt": None}, {"receipt": []}, {"leaves": [7]}, {"leaves": None}, {"leaves": ["0"]}],
)
def test_an_answer_about_other_uses_is_none(running: Exchange, change: Any) -> None:
    def changed(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        return httpx.Response(200, json=response.json() | change) if request.url.path == "/v1/uses" else response

    reporter = reporter_of(running, running.world.provider)
    reporter._http = between(running, changed)
    with pytest.raises(VerificationFailed):
        reporter.report(running.world.id(running.open()), [job(running)])


# -------------------------------------------------------------------------------------------- hostile bytes

DEEP = b"[" * 60_000
NO_SESSION = b'{"session": {"authorizationId": "%b", "gateway": "%b", "nonce": "%b", "expiresAt": 1}, "signature": []}'
ZERO = b"0x" + b"00" * 32
FAR_TILE = "x999/x999/x999/x999/x999/999"


def test_odd_bytes_are_refused_in_words(running: Exchange) -> None:
    consumer = running.consumer(running.open())
    use(consumer, running)
    headers = bearer(consumer) | {"content-type": "application/json"}
    disputes = [
        b'{"index": 0, "reason": "x", "receipt": NaN}',
        b'{"index": %d, "reason": "x"}' % 2**70,
        b'{"index": 0, "reason": "\\ud800"}',
        b'{"index": 0, "reason": "a\\u0000b"}',
        b'{"index": 0, "reason": ' + b"[" * 900 + b"]" * 900 + b"}",
        DEEP,
    ]
    for body in disputes:
        assert running.http.post(consumer._log("disputes"), headers=headers, content=body).status_code == 422, body[:60]
    for path in ("sessions", "grants"):
        for body in (b'{"session": {}, "signature": "\\ud800"}', DEEP, NO_SESSION % (ZERO, ZERO, ZERO)):
            answer = running.http.post(f"{running.url}/v1/{path}", content=body)
            assert answer.status_code in (401, 422), (path, body[:60])
    odd = {b"Authorization": b"Bearer \xff\xfe"}
    assert running.http.get(consumer._log("head"), headers=odd).status_code == 401
    assert running.gateway.disputes() == []


def test_places_beyond_any_log_are_not_found(running: Exchange) -> None:
    consumer = running.consumer(running.open())
    use(consumer, running)
    tiles = [f"log/tile/{level}/{FAR_TILE}" for level in ("entries", 0, 5)]
    for path in (*tiles, f"log/inclusion?index=0&size={2**62 - 1}", "log/checkpoint?size=0"):
        assert running.http.get(consumer._log(path), headers=bearer(consumer)).status_code == 404, path


@pytest.mark.parametrize("checked", [False, True])
def test_a_head_of_an_odd_size_is_not_signed(running: Exchange, checked: bool) -> None:
    terms = running.open()
    id_, sizes = running.world.id(terms), iter((0, 2**62, 2**63, 2**64 - 1))
    consumer = running.consumer(terms)
    use(consumer, running)
    good = running.gateway.head(id_)
    if checked:
        consumer.check_head(good.head, good.provider_signature)

    def odd(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method != "GET" or not request.url.path.endswith("/head"):
            return response
        head = replace(good.head, size=next(sizes))
        signature = running.world.provider.sign(head, running.world.domain(terms))
        return httpx.Response(200, json={"head": head.as_json(), "providerSignature": signature})

    consumer._http = between(running, odd)
    lies(consumer, times=4)


@pytest.mark.parametrize("body", [b"[1]", b"", b"\xff", b'{"detail": []}', b"null"])
def test_a_refusal_is_read_from_its_receipt_whatever_its_body(running: Exchange, body: bytes) -> None:
    def garbled(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if response.status_code != 403:
            return response
        return httpx.Response(403, headers={"sluice-receipt": response.headers["sluice-receipt"]}, content=body)

    consumer = running.consumer(running.open(purposes=0b10), http=between(running, garbled))
    assert reason(consumer, running) == "PURPOSE_NOT_ALLOWED"


# -------------------------------------------------------------------------------------------- two processes


def test_a_delivery_that_one_process_began_is_held_in_all(database: Target) -> None:
    usage, at = open_usage(database), recording.authorization("shared", quota=1)
    mine, other = recording.use(at, "mine"), recording.use(at, "other")
    begins = msgspec.structs.replace(mine, only_ask=True, begin=True)
    with recording.recorder_of(usage, at) as one, recording.recorder_of(usage, at) as two:
        assert one.record_all([begins]) == [Recorded(None, None)]
        assert isinstance(two.record_all([begins])[0], UnderWay)
        assert two.record_all([other])[0].reason is not None  # type: ignore[union-attr]
        two.give_up(at.authorization_id, mine.use_id_hash)
        assert one.record_all([recording.use(at, "third")])[0].reason is None  # type: ignore[union-attr]
    recording.check(usage, at)
    usage.dispose()


def test_a_log_that_is_damaged_stops_no_other(database: Target) -> None:
    usage, whole, damaged = open_usage(database), recording.authorization("whole"), recording.authorization("damaged")
    with recording.recorder_of(usage, whole, damaged) as recorder:
        recorder.record_all([recording.use(at, "before") for at in (whole, damaged)])
        with writing(usage) as connection:
            connection.execute(delete(schema.leaves).where(schema.leaves.c.authorization == damaged.authorization_id))
        recorder._forget([damaged.authorization_id])
        for n in range(3):
            bad, good = recorder.record_all([recording.use(at, f"after {n}") for at in (damaged, whole)])
            assert isinstance(bad, VerificationFailed)
            assert isinstance(good, Recorded)
    assert len(recording.check(usage, whole)) == 4
    usage.dispose()


def test_a_signature_that_could_not_be_kept_leaves_the_log_as_it_is(
    running: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise OperationalError("SELECT", {}, Exception("connection lost"))

    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running)
    signed = consumer.sign_head()
    forge(running, terms, Kind.NOTE, NOTHING, {"a": 1})  # another process: this one's view is stale
    with monkeypatch.context() as broken:
        broken.setattr(log_module, "_leaf", lost)
        with pytest.raises(OperationalError):
            running.gateway.recorder.take_signature(signed)
    assert [use(consumer, running).entry.leaf.index for _ in range(2)] == [2, 3]


def test_heads_and_disputes_that_two_make_at_once_are_made_once(running: Exchange, postgres: str) -> None:
    terms, world = running.open(), running.world
    id_, usage = world.id(terms), open_usage(fresh_database(postgres))
    for size in range(1, 20):
        head = UsageHead(authorization_id=id_, size=size, units=NOTHING, credits=0, as_of=1, root=id_)
        made = SignedHead(head, "0x", None)
        assert together(partial(heads.save, usage, made)) == [None] * 4
    with serving_of(running, usage=usage) as (gateway, url):
        consumer = running.consumer(terms, gateway=url)
        use(consumer, running)
        body = {"index": 0, "reason": "wrong"}
        assert together(partial(gateway.dispute, id_, body)) == [{"index": 0, "answer": "OPEN"}] * 4
        assert len(gateway.disputes(id_)) == 1
    usage.dispose()


def test_a_long_batch_keeps_nobody_from_asking(running: Exchange) -> None:
    terms = running.open()
    consumer, found = running.consumer(terms), list[Any]()
    worker = threading.Thread(target=lambda: found.append(use(consumer, running)))
    with running.gateway.recorder._lock:
        worker.start()
        until(lambda: consumer._token)
        assert running.http.get(f"{running.url}/health").status_code == 200
        assert bearer(running.consumer(terms, "other"))
        assert found == []
    worker.join()
    assert found[0].entry.leaf.index == 0


def test_who_asks_while_a_recorder_closes_is_answered(tmp_path: Path) -> None:
    usage, at = open_usage(tmp_path / "usage.db"), recording.authorization("closing")

    class Slow(SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            if item is not None:
                closing.start()
                closing.join(0.3)  # whoever closes may come in between
            super().put(item)

    async def work(recorder: Recorder) -> None:
        outcome = await asyncio.wait_for(recorder.record(recording.use(at, "while")), 10)
        assert outcome.entry is not None
        await asyncio.to_thread(closing.join, 10)
        assert not closing.is_alive()
        with pytest.raises(LogUnavailable):
            await recorder.record(recording.use(at, "after"))

    with recording.recorder_of(usage, at) as recorder:
        recorder._waiting, closing = Slow(), threading.Thread(target=recorder.close, daemon=True)
        asyncio.run(work(recorder))
    assert len(recording.check(usage, at)) == 1
    usage.dispose()
