"""The whole exchange on other chains than the one we develop on: Hardhat's, and one as consortia run them."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ledger.chain.client import Chain, NodeDown
from ledger.cli.processes import Processes, anvil_binary
from ledger.core.loopback import HOST, listen
from ledger.mirror import queries
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.exchange import exchange, served
from tests.world import DAY, World

NODE = Path(sys.executable).parent / "node"


def started(processes: Processes, name: str, command: list[str]) -> str:
    """The URL of a chain that this command serves on a free port."""
    with listen(0) as probe:
        port = str(probe.getsockname()[1])
    process = processes.start(name, [*command, "--port", port])
    url = f"http://{HOST}:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            Chain(url, attempts=1).chain_id()
            return url
        except NodeDown:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def consortium(url: str) -> Iterator[str]:
    """The node as Besu QBFT or FISCO BCOS show themselves: no finality tags, no filters, no push."""

    def answer(call: dict[str, Any], client: httpx.Client) -> Any:
        refused = call["method"] in ("eth_newFilter", "eth_subscribe", "eth_getFilterChanges")
        if refused or {"safe", "finalized"} & {str(p) for p in call.get("params", [])}:
            error = {"code": -32602, "message": "Invalid params: unknown block tag"}
            return {"jsonrpc": "2.0", "id": call["id"], "error": error}
        return client.post(url, json=call).json()

    def handle(body: Any) -> Any:
        with httpx.Client(timeout=20) as client:
            return [answer(call, client) for call in body] if isinstance(body, list) else answer(body, client)

    async def serve(request: Request) -> JSONResponse:
        return JSONResponse(handle(json.loads(await request.body())))

    with served(Starlette(routes=[Route("/", serve, methods=["POST"])])) as proxy:
        yield proxy


def whole_exchange(world: World, folder: Path) -> None:
    """Uses, a head, settlement, revocation, the window, the rest of the money, and the mirror from its events."""
    with exchange(world, folder) as running:
        terms = running.open(20_000_000)
        consumer = running.consumer(terms)
        for _ in range(5):
            consumer.use(running.version, "RESEARCH", {"limit": "24"})
        signed = consumer.sign_head()
        running.settle(terms, signed)
        due = world.card().price(signed.head.units)
        assert world.reservation(terms)["paid"] == due > 0
        world.send(world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
        world.pass_time(DAY + 60)
        world.send(world.stranger, "authorization.finalize", terms=terms.as_json())
        world.send(
            world.consumer,
            "account.withdraw",
            token=world.token,
            amount=str(world.free()),
            to=world.consumer.address,
        )
        for payee, _ in world.split().shares:
            world.send(world.stranger, "share.pay", split=world.split().id(), token=world.token, payee=payee)
        assert world.ledger_balance() < len(world.split().shares)
        running.follow()
        rebuilt = open_mirror(folder / "rebuilt.db", world.deployment)
        catch_up(rebuilt, world.chain, world.deployment)
        assert queries.contents_digest(rebuilt) == queries.contents_digest(running.mirror)
        rebuilt.dispose()


def test_the_exchange_on_a_hardhat_node(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        cli = "node_modules/hardhat/dist/src/cli.js"
        url = started(processes, "hardhat", [str(NODE), cli, "node", "--hostname", HOST])
        whole_exchange(World.on(Chain(url)), tmp_path)


def test_the_exchange_at_zero_gas_price_without_finality_tags(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        command = [anvil_binary(), "--host", HOST, "--silent", "--gas-price", "0", "--base-fee", "0"]
        url = started(processes, "anvil", command)
        with consortium(url) as proxy:
            # Nobody has any native coin: nobody needs any.
            world = World.on(Chain(proxy), coin=0)
            assert int(world.chain.rpc("eth_getBalance", world.consumer.address, "latest"), 16) == 0
            whole_exchange(world, tmp_path)
            mirror = open_mirror(tmp_path / "finality.db", world.deployment)
            catch_up(mirror, world.chain, world.deployment)
            with mirror.connect() as connection:
                assert queries.cursor(connection).finality(world.deployment.block) == "seen"
            mirror.dispose()


@pytest.mark.parametrize("tag", ["safe", "finalized"])
def test_the_consortium_node_really_knows_no_finality(tmp_path: Path, tag: str) -> None:
    with Processes(tmp_path / "logs") as processes:
        url = started(processes, "anvil", [anvil_binary(), "--host", HOST, "--silent"])
        with consortium(url) as proxy:
            assert Chain(url).block(tag) is not None
            assert Chain(proxy).block(tag) is None
