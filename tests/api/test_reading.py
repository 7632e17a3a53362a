"""Reads: as of one block, kept while they are true, page after page, and as lines."""

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ledger.metering.client import UseRefused
from tests.exchange import Exchange, api, sign_in
from tests.world import DAY


@pytest.fixture
def client(running: Exchange) -> Iterator[httpx.Client]:
    with api(running) as made:
        yield made


def behind(client: httpx.Client, running: Exchange) -> dict[str, str]:
    """Headers that wait for the chain's head."""
    head = running.world.chain.block("latest")
    assert head is not None
    return {"Ledger-Min-Block": str(head.number)}


# ------------------------------------------------------------------------------------------------- freshness


def test_what_is_kept_is_never_older_than_the_mirror(client: httpx.Client, running: Exchange) -> None:
    """Reads that are kept, between writes: every one shows what was written before it was asked."""
    world, terms = running.world, running.open()
    path = f"/v1/authorizations/{world.id(terms)}"
    for n in range(1, 6):
        assert client.get(path).json()["size"] == client.get(path).json()["size"] == str(n - 1 if n > 1 else 0)
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
        running.follow()
        assert client.get(path).json()["size"] == str(n)


def test_an_etag_is_of_the_bytes_and_holds_as_long_as_they_do(client: httpx.Client, running: Exchange) -> None:
    world, terms = running.world, running.open()
    path = f"/v1/authorizations/{world.id(terms)}"
    first = client.get(path)
    etag = first.headers["etag"]
    assert etag.startswith('"')
    same = client.get(path, headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == etag
    assert int(same.headers["ledger-block"]) >= int(first.headers["ledger-block"])
    assert client.get(path, headers={"If-None-Match": f'W/{etag}, "other"'}).status_code == 304
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    world.chain.rpc("evm_mine")  # a block without an event of ours changes the block that is named, and nothing else
    later = client.get(path, headers={"If-None-Match": etag} | behind(client, running))
    assert later.status_code == 304
    assert int(later.headers["ledger-block"]) > int(first.headers["ledger-block"])
    world.settle(terms, 3, (3, 72, 0, 0))
    running.follow()
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_an_authorization_that_ends_by_time_ends_in_what_is_kept_too(running: Exchange) -> None:
    later = [0]
    terms = running.open()
    path = f"/v1/authorizations/{running.world.id(terms)}"
    with api(running, clock=lambda: time.time() + later[0]) as client:
        assert client.get(path).json()["status"] == "OPEN"
        etag = client.get("/v1/authorizations?format=csv").headers["etag"]
        later[0] = 11 * DAY
        # No block came, and the reply is still kept: it is its time that is over.
        assert client.get(path).json()["status"] == "ENDED"
        assert client.get("/v1/authorizations?format=csv").headers["etag"] != etag


def test_readers_at_the_same_time_all_see_what_was_written_before(client: httpx.Client, running: Exchange) -> None:
    world, terms = running.world, running.open()
    path, wrong = f"{client.base_url}/v1/authorizations/{world.id(terms)}", []
    written, over = [0], threading.Event()

    def read() -> None:
        with httpx.Client(timeout=10) as mine:
            while not over.is_set():
                before = written[0]
                found = int(mine.get(path).json()["size"])
                if found < before:
                    wrong.append((before, found))

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for n in range(1, 8):
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
        running.follow()
        written[0] = n
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []


# -------------------------------------------------------------------------------------------------- at_block


def test_every_read_shows_an_earlier_block_as_it_was(client: httpx.Client, running: Exchange) -> None:
    """What each path said when a block was the last one is what it says of that block later."""
    world = running.world
    terms = running.open(50_000_000)
    consumer = running.consumer(terms)
    signed = {"provider": sign_in(client, world.provider)}
    paths = [
        "/v1/spaces",
        f"/v1/spaces/{world.space}",
        "/v1/participants",
        "/v1/products",
        "/v1/versions",
        "/v1/authorizations",
        f"/v1/authorizations/{world.id(terms)}",
        f"/v1/authorizations/{world.id(terms)}/settlements",
        "/v1/settlements",
        f"/v1/accounts/{world.consumer.address}",
        f"/v1/shares/{terms.split}/{terms.token}",
        f"/v1/rate-cards/{terms.rate_card}",
        f"/v1/splits/{terms.split}",
        "/v1/transactions",
        "/v1/digest",
        "/v1/aggregates/usage?by=product,consumer",
        "/v1/aggregates/revenue",
        "/v1/aggregates/reservations",
        "/v1/aggregates/arrears",
        f"/v1/bills/{world.id(terms)}",
        f"/v1/statements/{world.provider.address}?month=2026-11",
    ]

    def read(path: str, **more: Any) -> Any:
        answer = client.get(path, params=more or None, headers=signed["provider"])
        if more:
            answer = client.get(httpx.URL(path).copy_merge_params(more), headers=signed["provider"])
            assert answer.headers.get("ledger-block", str(more["at_block"])) == str(more["at_block"])
        return answer.json() if answer.status_code == 200 else answer.status_code

    then: dict[int, dict[str, Any]] = {}
    for n in range(3):
        for _ in range(4):
            consumer.use(running.version, "RESEARCH", {"limit": "5"})
        before = int(client.get(f"/v1/authorizations/{world.id(terms)}").json()["size"])
        running.settle(terms, consumer.sign_head(), before)
        if n == 1:
            world.send(world.holder, "share.pay", split=terms.split, token=terms.token, payee=world.holder.address)
            world.publish("another", b"x")
        running.follow()
        block = int(client.get("/v1/spaces").headers["ledger-block"])
        then[block] = {path: read(path) for path in paths}
    world.send(world.provider, "authorization.close", terms=terms.as_json(), reason=101)
    running.follow()
    for block, said in then.items():
        for path in paths:
            assert read(path, at_block=block) == said[path], (path, block)
    first, last = min(then), max(then)
    assert then[first]["/v1/digest"] != then[last]["/v1/digest"]
    uses = [
        len(
            client.get(
                "/v1/uses", params={"authorization": world.id(terms), "at_block": b}, headers=signed["provider"]
            ).json()["items"]
        )
        for b in then
    ]
    assert uses == [4, 8, 12]
    heads = client.get(
        "/v1/heads", params={"authorization": world.id(terms), "at_block": first}, headers=signed["provider"]
    )
    assert [h["head"]["size"] for h in heads.json()["items"]] == ["4"]


def test_what_is_final_may_be_kept_for_ever_and_says_so(client: httpx.Client, running: Exchange) -> None:
    head = running.world.chain.block("latest")
    assert head is not None
    running.world.chain.rpc("anvil_mine", hex(80))
    running.follow()
    old = client.get("/v1/spaces", params={"at_block": head.number})
    assert "immutable" in old.headers["cache-control"]
    assert old.headers["ledger-finality"] == "final"
    assert client.get("/v1/spaces").headers["cache-control"] == "no-cache"
    # Of an old block more may become known: it is taken back, or told again.
    events = client.get("/v1/events", params={"at_block": head.number, "limit": 1000})
    assert events.headers["cache-control"] == "no-cache"
    assert {event["block"] <= head.number for event in events.json()["items"]} == {True}
    earlier = client.get("/v1/events", params={"at_block": head.number - 5, "limit": 1000}).json()["items"]
    assert 0 < len(earlier) < len(events.json()["items"])


# ----------------------------------------------------------------------------------------------------- pages


def test_pages_hold_still_while_rows_come_in_between(client: httpx.Client, running: Exchange) -> None:
    """Nothing that was there is shown twice or left out, whatever is opened meanwhile."""
    there = {running.world.id(running.open(0)) for _ in range(5)}
    seen: list[str] = []
    after = ""
    while True:
        page = client.get("/v1/authorizations", params={"limit": 2, "after": after}).json()
        seen += [row["authorization"] for row in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
        running.open(0)
    assert len(seen) == len(set(seen))
    assert there <= set(seen)
    assert seen == sorted(seen)


def test_pages_of_composite_keys_and_of_places_turn(client: httpx.Client, running: Exchange) -> None:
    world, terms = running.world, running.open()
    for n in range(1, 4):
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
    running.follow()
    for path in ("/v1/participants", "/v1/settlements", f"/v1/authorizations/{world.id(terms)}/settlements"):
        whole = client.get(path, params={"limit": 1000}).json()["items"]
        assert len(whole) >= 2, path
        page = client.get(path, params={"limit": 1}).json()
        turned = page["items"]
        while page["next"] is not None:
            page = client.get(path, params={"limit": 1, "after": page["next"]}).json()
            turned += page["items"]
        assert turned == whole, path


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_list_as_lines_is_the_list(client: httpx.Client, running: Exchange, form: str) -> None:
    world, terms = running.world, running.open()
    running.open(0)
    world.settle(terms, 3, (3, 72, 0, 0))
    running.follow()
    for path in ("/v1/authorizations", "/v1/settlements", "/v1/participants", "/v1/versions", "/v1/aggregates/usage"):
        whole = (
            client.get(path, params={"limit": 1000}).json()["items"]
            if "usage" not in path
            else client.get(path).json()["items"]
        )
        answer = client.get(path, params={"format": form})
        assert answer.headers["content-type"].startswith({"csv": "text/csv", "jsonl": "application/jsonl"}[form])
        assert int(answer.headers["ledger-block"]) > 0
        if form == "jsonl":
            assert [json.loads(line) for line in answer.text.splitlines()] == whole
        else:
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            assert len(rows) == len(whole)
            for row, item in zip(rows, whole, strict=True):
                assert set(row) == set(item)
                for name, value in item.items():
                    shown = (
                        ""
                        if value is None
                        else value
                        if isinstance(value, str)
                        else json.dumps(value, ensure_ascii=False)
                    )
                    assert row[name].replace(" ", "") == shown.replace(" ", ""), (path, name)
        again = client.get(path, params={"format": form}, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    accept = {"csv": "text/csv", "jsonl": "application/x-ndjson"}[form]
    assert (
        client.get("/v1/spaces", headers={"Accept": accept})
        .headers["content-type"]
        .startswith(("text/csv", "application/jsonl"))
    )


def test_lines_are_of_one_state_however_long_they_take(
    client: httpx.Client, running: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.reading.STREAMED", 1)
    there = {running.world.id(running.open(0)) for _ in range(3)}
    with client.stream("GET", "/v1/authorizations", params={"format": "jsonl"}) as answer:
        lines = answer.iter_lines()
        seen = [json.loads(next(lines))["authorization"]]
        for _ in range(3):
            running.open(0)
        seen += [json.loads(line)["authorization"] for line in lines]
    assert set(seen) == there


def test_settlements_are_found_by_party_and_time(client: httpx.Client, running: Exchange) -> None:
    world, terms, other = running.world, running.open(), running.open()
    times = []
    for n in (1, 2, 3):
        world.pass_time(3600)
        world.settle(terms, n, (n, 24 * n, 0, 0), n - 1)
        block = world.chain.block("latest")
        assert block is not None
        times.append(block.timestamp)
    world.settle(other, 1, (1, 24, 0, 0))
    running.follow()

    def sizes(**asked: Any) -> list[str]:
        items = client.get("/v1/settlements", params=asked).json()["items"]
        return [i["head"]["size"] for i in items]

    assert sizes() == ["1", "2", "3", "1"]
    assert sizes(first=times[1], before=times[2]) == ["2"]
    assert sizes(first=times[2] + 100_000) == []
    assert sizes(consumer=world.consumer.address) == ["1", "2", "3", "1"]
    assert sizes(consumer=world.stranger.address) == []
    assert sizes(product=world.product, token=terms.token, first=times[1]) == ["2", "3", "1"]
    items = client.get("/v1/settlements").json()["items"]
    assert {i["event"] for i in items} == {"Settled"}
    assert [i["time"] for i in items[:3]] == times


def test_uses_are_found_by_purpose_kind_and_time(client: httpx.Client, running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(2):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    with pytest.raises(UseRefused):
        consumer.use(running.version, "PUBLIC_SAFETY", {"limit": "5"})
    asked = {"authorization": running.world.id(terms)}
    reader = sign_in(client, running.world.consumer)

    def indices(**more: Any) -> list[int]:
        answer = client.get("/v1/uses", params=asked | more, headers=reader)
        assert answer.status_code == 200, answer.text
        return [i["leaf"]["index"] for i in answer.json()["items"]]

    everything = indices()
    refusals = indices(kind="REFUSAL")
    assert indices(purpose="RESEARCH") == indices(kind="USE") == [i for i in everything if i not in refusals]
    uses = client.get("/v1/uses", params=asked, headers=reader).json()["items"]
    last = uses[-1]["leaf"]["servedAt"]
    assert indices(served_after=last + 1) == []
    assert indices(served_before=last + 1) == everything
    assert indices(version=running.version) == everything
    assert indices(modality="DATASET") == [i["leaf"]["index"] for i in uses if i["leaf"]["modality"] == 0]
