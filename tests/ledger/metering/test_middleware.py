"""A provider's own application, metered by one line a route: what is delivered is what is counted."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import OperationalError

from ledger.core.terms import AuthorizationTerms
from ledger.core.usage_leaf import Kind
from ledger.metering.client import AsyncConsumer, Consumer, GatewayProblem, UseRefused
from ledger.metering.copy import Disputed
from ledger.metering.log import UsageLog, open_usage, read_entries
from ledger.metering.middleware import Metered, MeterMiddleware
from ledger.metering.proxy import Proxy
from tests.exchange import Exchange, served

LOTS = [{"lot": n, "free": n % 7} for n in range(5)]


def parking(calls: list[str]) -> FastAPI:
    """What a provider has already: it knows nothing of metering."""
    app = FastAPI()

    @app.get("/lots/{area}")
    async def lots(area: str, limit: int = 5) -> Any:
        calls.append(area)
        return {"area": area, "rows": LOTS[:limit]}

    @app.get("/fails")
    async def fails() -> Response:
        return Response('{"sorry": true}', 503, media_type="application/json")

    @app.post("/match")
    async def match(body: dict[str, Any]) -> Any:
        calls.append("match")
        return Response(json.dumps({"hit": body["name"] == "known"}), media_type="application/json")

    @app.get("/changing")
    async def changing() -> Any:
        calls.append("changing")
        return {"rows": [len(calls)]}

    @app.get("/stream")
    async def stream(pieces: int = 4, breaks: bool = False) -> StreamingResponse:
        async def body() -> Any:
            for n in range(pieces):
                yield b"%08d" % n
                if breaks:
                    raise RuntimeError("the source broke off")

        return StreamingResponse(body(), media_type="application/octet-stream", headers={"Sluice-Count": "persons=4"})

    @app.get("/counted")
    async def counted() -> Response:
        return Response(b"{}", headers={"Sluice-Count": "persons=3"}, media_type="application/json")

    @app.get("/open")
    async def open_() -> Any:
        return {"free": "for all"}

    return app


@contextmanager
def metered(running: Exchange, calls: list[str], *, upstream: bool = False) -> Iterator[str]:
    version = running.version
    routes = [
        Metered("/lots/{area}", version=version),
        Metered("/fails", version=version),
        Metered("/match", version=version, methods=("POST",), counts=("calls",)),
        Metered("/changing", version=version),
        Metered("/stream", version=version, stream=True, counts=("calls",), hold=(1, 0, 0, 0)),
    ]
    app: Any = parking(calls)
    if not upstream:
        with served(MeterMiddleware(app, running.gateway, routes)) as url:
            yield url
        return
    with served(app) as behind, served(MeterMiddleware(Proxy(behind), running.gateway, routes)) as url:
        yield url


@pytest.fixture(params=["middleware", "proxy"])
def front(request: pytest.FixtureRequest, running: Exchange) -> Iterator[tuple[str, list[str]]]:
    """The application's URL behind the meter, in one process or two, and what reached it."""
    calls: list[str] = []
    with metered(running, calls, upstream=request.param == "proxy") as url:
        yield url, calls


def consumer_of(running: Exchange, url: str, terms: AuthorizationTerms | None = None, **options: Any) -> Consumer:
    return running.consumer(terms or running.open(), data=url, **options)


def entries(running: Exchange, consumer: Consumer) -> list[Any]:
    with running.usage.connect() as connection:
        return read_entries(connection, consumer.authorization_id)


def test_one_line_a_route_counts_what_is_delivered(running: Exchange, front: Any) -> None:
    url, calls = front
    consumer = consumer_of(running, url)
    got = consumer.request("GET", "/lots/pudong", purpose="RESEARCH", query={"limit": "3"})
    assert json.loads(got.body) == {"area": "pudong", "rows": LOTS[:3]}
    assert got.entry.leaf.units == (1, 3, 0, 0)
    assert calls == ["pudong"]
    assert consumer.sign_head().head.units == (1, 3, 0, 0)


def test_other_routes_are_none_of_the_meter(running: Exchange, front: Any, request: pytest.FixtureRequest) -> None:
    url, _ = front
    answer = running.http.get(f"{url}/open")
    if "proxy" in request.node.name:
        assert answer.status_code == 404  # of an upstream only what is metered can be reached
    else:
        assert answer.json() == {"free": "for all"}
    assert "sluice-receipt" not in answer.headers


def test_without_a_session_nothing_reaches_the_application(running: Exchange, front: Any) -> None:
    url, calls = front
    for given in ("Bearer nonsense", "Basic eA=="):
        answer = running.http.get(f"{url}/lots/pudong", headers={"Authorization": given})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    # Who brings nothing is told how to begin, in x402's terms.
    answer = running.http.get(f"{url}/lots/pudong")
    assert (answer.status_code, answer.headers["content-type"]) == (402, "application/problem+json")
    required = json.loads(base64.b64decode(answer.headers["payment-required"]))
    assert (required["x402Version"], required["accepts"][0]["scheme"]) == (2, "sluice-authorization")
    assert required["accepts"][0]["extra"]["sessions"] == f"{running.url}/v1/sessions"
    assert calls == []


def test_a_failed_answer_is_passed_on_and_counts_nothing(running: Exchange, front: Any) -> None:
    url, _ = front
    consumer = consumer_of(running, url)
    with pytest.raises(GatewayProblem) as caught:
        consumer.request("GET", "/fails", purpose="RESEARCH")
    assert caught.value.details["status"] == 503
    assert entries(running, consumer) == []


def test_an_upstream_that_is_down_counts_nothing(running: Exchange) -> None:
    routes = [Metered("/lots/{area}", version=running.version)]
    dead = Proxy("http://127.0.0.1:9")
    with served(MeterMiddleware(dead, running.gateway, routes)) as url:
        consumer = consumer_of(running, url)
        with pytest.raises(GatewayProblem, match="does not answer"):
            consumer.request("GET", "/lots/pudong", purpose="RESEARCH")
    assert entries(running, consumer) == []


def test_the_same_use_of_data_that_changes_gives_the_same_data(running: Exchange, front: Any) -> None:
    url, _ = front
    consumer = consumer_of(running, url)
    first, second = (consumer.request("GET", "/changing", purpose="RESEARCH", use_id="c" * 64) for _ in range(2))
    assert first == second
    assert len(entries(running, consumer)) == 1


def test_what_must_not_be_done_twice_is_asked_for_first(running: Exchange, front: Any) -> None:
    url, calls = front
    consumer = consumer_of(running, url)
    options: dict[str, Any] = {
        "purpose": "RESEARCH",
        "content": b'{"name": "known"}',
        "headers": {"content-type": "application/json"},
        "use_id": "d" * 64,
    }
    first, second = (consumer.request("POST", "/match", **options) for _ in range(2))
    assert first == second
    assert first.entry.leaf.units == (1, 0, 0, 0)  # this route moves one meter only
    assert calls == ["match"]
    with pytest.raises(GatewayProblem, match="another request"):
        consumer.request("POST", "/match", **options | {"content": b'{"name": "unknown"}'})


def test_what_was_done_and_not_recorded_can_be_asked_for_again(
    running: Exchange, front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, calls = front
    consumer = consumer_of(running, url)
    options: dict[str, Any] = {"purpose": "RESEARCH", "content": b'{"name": "known"}', "use_id": "f" * 64}
    options["headers"] = {"content-type": "application/json"}

    def fails(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("disk full"))

    with monkeypatch.context() as broken:
        broken.setattr(UsageLog, "write", fails)
        with pytest.raises(GatewayProblem, match="could not be written"):
            consumer.request("POST", "/match", **options)
    assert entries(running, consumer) == []
    assert consumer.request("POST", "/match", **options).entry.leaf.index == 0
    assert calls == ["match", "match"]


def test_who_is_refused_once_is_refused_before_the_application_works(running: Exchange, front: Any) -> None:
    url, calls = front
    consumer = consumer_of(running, url, running.open(max_units=(2, 100, 0, 0)))
    for area in ("one", "two"):
        consumer.request("GET", f"/lots/{area}", purpose="RESEARCH")
    for area in ("three", "four", "five"):
        with pytest.raises(UseRefused) as caught:
            consumer.request("GET", f"/lots/{area}", purpose="RESEARCH")
        assert caught.value.details["reason"] == "QUOTA_EXCEEDED"
    # The first refusal is known once the answer is there, which nobody gets; after it nobody asks for nothing.
    assert calls == ["one", "two", "three", "four", "five"][: len(calls)]
    assert len(calls) <= 5
    assert [e.leaf.kind for e in entries(running, consumer)] == [Kind.USE] * 2 + [Kind.REFUSAL] * 3


def test_a_revoked_authorization_reaches_the_application_once_at_most(running: Exchange, front: Any) -> None:
    url, calls = front
    terms = running.open()
    consumer = consumer_of(running, url, terms)
    consumer.request("GET", "/lots/a", purpose="RESEARCH")
    running.world.send(running.world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
    running.world.pass_time(5)
    running.follow()
    for _ in range(3):
        with pytest.raises(UseRefused):
            consumer.request("GET", "/lots/b", purpose="RESEARCH")
    assert calls in (["a"], ["a", "b"])


def test_a_stream_is_recorded_before_it_ends(running: Exchange, front: Any) -> None:
    url, _ = front
    consumer = consumer_of(running, url)
    got = consumer.request("GET", "/stream", purpose="RESEARCH", query={"pieces": "4"})
    assert got.body == b"".join(b"%08d" % n for n in range(4))
    assert got.entry.leaf.units == (1, 0, 0, 0)
    assert got.entry.payload is not None
    assert (got.entry.payload["bytes"], got.entry.payload["stated"]) == (32, {"persons": "4"})
    assert consumer.sign_head().head.size == 1


def test_a_stream_that_breaks_off_has_no_end_and_counts_nothing(running: Exchange, front: Any) -> None:
    url, _ = front
    consumer = consumer_of(running, url)
    with pytest.raises(GatewayProblem, match="does not answer"):
        consumer.request("GET", "/stream", purpose="RESEARCH", query={"breaks": "true"})
    assert entries(running, consumer) == []


def test_the_application_cannot_give_receipts_itself(running: Exchange) -> None:
    app = FastAPI()

    @app.get("/lots")
    async def lots() -> Response:
        return Response('{"rows": []}', headers={"Sluice-Receipt": "mine"}, media_type="application/json")

    with served(MeterMiddleware(app, running.gateway, [Metered("/lots", version=running.version)])) as url:
        got = consumer_of(running, url).request("GET", "/lots", purpose="RESEARCH")
    assert got.entry.leaf.units == (1, 0, 0, 0)


def test_an_upstream_learns_who_is_served_from_the_gateway_only(running: Exchange) -> None:
    seen: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append({k.decode(): v.decode() for k, v in scope["headers"]})
            await Response('{"rows": []}', media_type="application/json")(scope, receive, send)

    with served(app) as behind:
        proxy = Proxy(behind)
        with served(MeterMiddleware(proxy, running.gateway, [Metered("/x", version=running.version)])) as url:
            consumer = consumer_of(running, url)
            lie = {"Sluice-Authorization": "0x" + "00" * 32}
            consumer.request("GET", "/x", purpose="RESEARCH", headers=lie)
    assert seen[0]["sluice-authorization"] == consumer.authorization_id
    assert seen[0]["sluice-purpose"] == "RESEARCH"
    assert "authorization" not in seen[0]  # a session's token is the gateway's


def test_a_count_that_the_answer_does_not_bear_out_is_disputed(running: Exchange, front: Any) -> None:
    url, _ = front
    wrong = consumer_of(running, url, meters=("calls", "bytes"))
    with pytest.raises(Disputed, match="counts"):
        wrong.request("GET", "/lots/a", purpose="RESEARCH")


def test_the_asynchronous_client_does_the_same(running: Exchange, front: Any) -> None:
    url, _ = front
    terms = running.open(credit_units=(4, 0, 0, 0))
    engine = open_usage(running.folder / "async.db")
    running.engines.append(engine)

    async def work() -> Any:
        async with httpx.AsyncClient() as http:
            consumer = AsyncConsumer(
                gateway=running.url,
                data=url,
                terms=terms,
                domain=running.world.domain(terms),
                meters=("calls", "rows"),
                signer=running.world.consumer,
                usage=engine,
                card=running.world.card(),
                http=http,
                sign_when_asked=True,
                clock=running.clock,
            )
            for n in range(10):
                await consumer.request("GET", f"/lots/a{n}", purpose="RESEARCH")
            many = [consumer.request("GET", f"/lots/b{n}", purpose="RESEARCH") for n in range(2)]
            await asyncio.gather(*many)
            signed = await consumer.sign_head()
            return signed, consumer.spent()

    signed, spent = asyncio.run(work())
    assert signed.head.units[0] == spent.units[0] == 12
    assert spent.acknowledged == signed.head.units
    assert spent.due == running.world.card().due(spent.units, 0)


def test_a_receipt_is_asked_for_by_its_id_only_by_who_may_see_it(running: Exchange, front: Any) -> None:
    url, _ = front
    consumer, other = consumer_of(running, url), consumer_of(running, url, name="other")
    consumer.request("GET", "/lots/a", purpose="RESEARCH", use_id="e" * 64)
    other.request("GET", "/lots/a", purpose="RESEARCH")
    path = f"{running.url}/v1/uses/{'e' * 64}"
    mine, theirs = (running.http.get(path, headers={"Authorization": f"Bearer {c._token}"}) for c in (consumer, other))
    assert mine.json()["leaf"]["index"] == 0
    assert theirs.status_code == 404
    assert running.http.get(path).status_code == 401


def test_a_receipt_fits_into_a_header(running: Exchange, front: Any) -> None:
    url, _ = front
    consumer = consumer_of(running, url)
    got = consumer.request("GET", "/lots/a", purpose="RESEARCH", query={"limit": "5", "note": "x" * 3_000})
    encoded = base64.urlsafe_b64encode(json.dumps(got.entry.as_json()).encode())
    assert len(encoded) < 8_192
    with pytest.raises(Exception, match="4096 characters"):
        consumer.request("GET", "/lots/a", purpose="RESEARCH", query={"note": "x" * 4_096})
