"""The typed client against the API: it has every route, speaks its problems, signs in, turns pages and follows."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest

from ledger.client import LedgerClient, ServerDown, ServerProblem
from ledger.client.routes import Routes
from ledger.core.terms import AuthorizationTerms
from tests.exchange import Exchange, api, exchange
from tests.world import World

CHAIN_ID = 31337


@pytest.fixture
def used(running: Exchange) -> AuthorizationTerms:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(3):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    running.settle(terms, consumer.sign_head())
    running.follow()
    return terms


@pytest.fixture
def server(running: Exchange, used: AuthorizationTerms) -> Iterator[httpx.Client]:
    with api(running) as client:
        yield client


@pytest.fixture
def client(server: httpx.Client) -> Iterator[LedgerClient]:
    with LedgerClient(str(server.base_url), notice=lambda _: None, sleep=lambda _: None) as made:
        yield made


def test_the_written_client_is_the_one_the_api_describes() -> None:
    command = [sys.executable, "-m", "api.generate_client", "--check"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_every_route_has_a_method_and_every_method_a_type(server: httpx.Client) -> None:
    operations = {
        operation["operationId"]
        for verbs in server.get("/openapi.json").json()["paths"].values()
        for operation in verbs.values()
    }
    methods = {n: m for n, m in vars(Routes).items() if inspect.isfunction(m) and n != "request"}
    assert operations - {"stream", "sign_in", "sign_out"} == set(methods) - {"open_session", "close_session"}
    for name, method in methods.items():
        assert "return" in get_type_hints(method), name


def test_a_reader_signs_in_and_reads_what_is_its_own(
    client: LedgerClient, running: Exchange, used: AuthorizationTerms
) -> None:
    id_ = running.world.id(used)
    with pytest.raises(ServerProblem) as refused:
        client.bill(id_)
    assert (refused.value.code, refused.value.details["status"]) == ("not_signed_in", 401)
    client.sign_in(running.world.consumer, CHAIN_ID)
    bill = client.bill(id_)
    assert bill["due"] == client.authorization(id_)["due"]
    assert client.session()["wallet"] == running.world.consumer.address
    assert [use["leaf"]["index"] for use in client.every(client.uses, authorization=id_)] == [0, 1, 2]
    assert client.purposes()["items"][0]["purpose"] == "RESEARCH"
    client.close_session()
    with pytest.raises(ServerProblem):
        client.bill(id_)


def test_replies_say_what_they_are_as_of(client: LedgerClient, running: Exchange, used: AuthorizationTerms) -> None:
    head = running.world.chain.block("latest")
    assert head is not None
    client.authorization(running.world.id(used), min_block=head.number)
    assert client.as_of is not None
    assert (client.as_of.block, client.as_of.block_hash) == (head.number, head.hash)
    assert (client.as_of.finality, client.as_of.warning) == ("seen", None)
    with pytest.raises(ServerProblem) as problem:
        client.spaces(at_block=10**9)
    assert problem.value.code == "behind"


def test_lists_are_read_to_their_end(client: LedgerClient, running: Exchange) -> None:
    ids = {running.world.id(running.open(0)) for _ in range(4)}
    found = [row["authorization"] for row in client.every(client.authorizations, limit=2, status="OPEN")]
    assert ids < set(found)
    assert len(found) == len(set(found)) == 5
    assert len(list(client.every(client.settlements_of, found[0]))) <= 1
    assert list(client.every(client.usage, by="product"))


def test_events_are_followed_across_a_reorg(own_world: World, tmp_path: Path) -> None:
    with exchange(own_world, tmp_path) as running, api(running) as server:
        with LedgerClient(str(server.base_url)) as client:
            told: Iterator[Any] = client.follow(from_block=0, event="Opened")
            lost = running.open(0)
            first = next(told)
            assert first["args"]["authorizationId"] == own_world.id(lost)
            own_world.chain.rpc("anvil_reorg", 3, [])
            kept = own_world.open(0)
            assert [next(told)["retracted"] for _ in range(2)] == [True, False]
        with LedgerClient(str(server.base_url)) as again:
            resumed: Iterator[Any] = again.follow(first["offset"], event="Opened")
            assert next(resumed)["retracted"] is True
            assert next(resumed)["args"]["authorizationId"] == own_world.id(kept)


def test_an_offset_of_nowhere_is_a_problem(client: LedgerClient) -> None:
    with pytest.raises(ServerProblem) as problem:
        next(client.follow("7-0-0123456789abcdef"))
    assert problem.value.code == "offset_unknown"


def test_a_server_that_is_away_is_named_after_some_attempts() -> None:
    said: list[str] = []
    with LedgerClient("http://127.0.0.1:9", notice=said.append, sleep=lambda _: None) as client:
        with pytest.raises(ServerDown):
            client.spaces()
        assert len(said) == 3
        with pytest.raises(ServerDown):
            next(client.follow())


def test_too_many_requests_are_asked_again_when_the_server_says(running: Exchange) -> None:
    waited: list[float] = []

    def ask_often(client: LedgerClient) -> None:
        for _ in range(40):
            client.spaces()

    with api(running, rate=1) as server, LedgerClient(str(server.base_url), sleep=waited.append) as client:
        with pytest.raises(ServerProblem) as problem:
            ask_often(client)
        assert problem.value.code == "too_many_requests"
    assert waited == [1.0, 1.0, 1.0]
