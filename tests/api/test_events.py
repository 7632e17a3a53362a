"""Events from outside: as a list, and as a stream that tells what was taken back and resumes where it was left."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
import pytest

from tests.exchange import Exchange, api, exchange, sign_in
from tests.world import World


@pytest.fixture
def client(running: Exchange) -> Iterator[httpx.Client]:
    with api(running) as made:
        yield made


@pytest.fixture
def alone(own_world: World, tmp_path: Path) -> Iterator[tuple[Exchange, httpx.Client]]:
    """An exchange on a chain of its own, which can be reorganised."""
    folder = tmp_path / "exchange"
    folder.mkdir()
    with exchange(own_world, folder) as made, api(made) as client:
        yield made, client


class Stream:
    """Reads Server-Sent Events (WHATWG HTML, 9.2) in a thread."""

    def __init__(self, client: httpx.Client, **asked: Any) -> None:
        headers = {"Last-Event-ID": asked.pop("last")} if "last" in asked else {}
        self.messages: Queue[dict[str, Any]] = Queue()
        self.last = ""
        self._http = httpx.Client(base_url=client.base_url, timeout=30)
        self._request = self._http.stream("GET", "/v1/events/stream", params=asked, headers=headers)
        self._answer = self._request.__enter__()
        assert self._answer.status_code == 200
        assert self._answer.headers["content-type"].startswith("text/event-stream")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        message: dict[str, Any] = {}
        try:
            for line in self._answer.iter_lines():
                name, _, value = line.partition(": ")
                if line == "":
                    self.last = message.get("id", self.last)
                    if "data" in message:
                        self.messages.put(message | {"data": json.loads(message["data"])})
                    message = {}
                elif name:
                    message[name] = value
        except httpx.HTTPError:
            pass

    def next(self, seconds: float = 10) -> dict[str, Any]:
        return self.messages.get(timeout=seconds)

    def close(self) -> None:
        self._http.close()


def test_the_list_of_events_turns_pages_to_the_end_and_goes_on_from_there(
    client: httpx.Client, running: Exchange
) -> None:
    running.open(0)
    whole = client.get("/v1/events", params={"limit": 1000}).json()
    assert (whole["more"], whole["items"][-1]["event"]) == (False, "Opened")
    turned: list[Any] = []
    page = {"next": None, "more": True}
    while page["more"]:
        page = client.get("/v1/events", params={"limit": 3} | ({"after": page["next"]} if page["next"] else {})).json()
        turned += page["items"]
    assert turned == whole["items"]
    assert client.get("/v1/events", params={"after": page["next"]}).json()["items"] == []
    terms = running.open(0)
    fresh = client.get("/v1/events", params={"after": page["next"]}).json()["items"]
    assert [item["args"]["authorizationId"] for item in fresh if item["event"] == "Opened"] == [running.world.id(terms)]
    about = client.get("/v1/events", params={"about": running.world.id(terms)}).json()["items"]
    assert [item["event"] for item in about] == ["Opened"]
    assert about[0]["args"]["terms"]["validUntil"] == str(terms.valid_until)  # every number is text
    block = fresh[0]["block"]
    assert client.get("/v1/events", params={"from_block": block}).json()["items"] == fresh


def test_a_stream_tells_what_happens_and_resumes_where_it_was_left(client: httpx.Client, running: Exchange) -> None:
    stream = Stream(client, event="Opened")
    first = running.open(0)
    told = stream.next()
    assert (told["event"], told["data"]["args"]["authorizationId"]) == ("event", running.world.id(first))
    assert told["id"] == told["data"]["offset"]
    stream.close()
    second, third = running.open(0), running.open(0)
    resumed = Stream(client, event="Opened", last=told["id"])
    assert [resumed.next()["data"]["args"]["authorizationId"] for _ in range(2)] == [
        running.world.id(second),
        running.world.id(third),
    ]
    resumed.close()
    whole = Stream(client, event="Opened", from_block=0)
    assert len([whole.next() for _ in range(3)]) == 3
    whole.close()


def test_a_reorg_is_told_as_retractions_before_what_comes_instead(alone: tuple[Exchange, httpx.Client]) -> None:
    running, client = alone
    world = running.world
    stream = Stream(client, event="Opened")
    careful = Stream(client, event="Opened", final="true")
    lost = running.open(0)
    told = stream.next()
    assert told["data"]["args"]["authorizationId"] == world.id(lost)
    world.chain.rpc("anvil_reorg", 3, [])
    kept = world.open(0)
    back, instead = stream.next(), stream.next()
    assert (back["event"], back["data"]["retracted"], back["data"]["blockHash"]) == (
        "retraction",
        True,
        told["data"]["blockHash"],
    )
    assert instead["data"]["args"]["authorizationId"] == world.id(kept)
    # Whoever was away meanwhile is told the same.
    resumed = Stream(client, event="Opened", last=told["id"])
    assert [resumed.next()["event"] for _ in range(2)] == ["retraction", "event"]
    with pytest.raises(Empty):
        careful.next(0.3)
    world.chain.rpc("anvil_mine", hex(80))
    final = careful.next()
    assert (final["event"], final["data"]["args"]["authorizationId"]) == ("event", world.id(kept))
    for each in (stream, careful, resumed):
        each.close()


def test_a_stream_from_a_place_that_is_none_is_refused(client: httpx.Client) -> None:
    for asked, status in (({"after": "soon"}, 422), ({"after": "7-0-0123456789abcdef"}, 410), ({"about": "0x1"}, 422)):
        answer = client.get("/v1/events/stream", params=asked)
        assert answer.status_code == status, asked


def test_a_webhook_is_registered_seen_and_taken_away_by_its_owner(client: httpx.Client, running: Exchange) -> None:
    assert client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).status_code == 401
    mine, theirs = (sign_in(client, key) for key in (running.world.consumer, running.world.provider))
    made = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/x", "event": "Settled"}, headers=mine)
    assert made.status_code == 201, made.text
    webhook = made.json()["webhook"]
    assert made.json()["secret"].startswith("whsec_")
    (listed,) = client.get("/v1/webhooks", headers=mine).json()
    assert "secret" not in listed
    assert (listed["webhook"], listed["event"], listed["final"]) == (webhook, "Settled", True)
    assert client.get("/v1/webhooks", headers=theirs).json() == []
    for verb, path in (("GET", ""), ("DELETE", ""), ("GET", "/dead-letters")):
        assert client.request(verb, f"/v1/webhooks/{webhook}{path}", headers=theirs).status_code == 404
    replayed = client.post(f"/v1/webhooks/{webhook}/replay", json={}, headers=mine)
    assert replayed.json()["offset"] == "0-0-" + "0" * 16
    assert client.delete(f"/v1/webhooks/{webhook}", headers=mine).status_code == 204
    assert client.get("/v1/webhooks", headers=mine).json() == []
