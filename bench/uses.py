"""Uses a second, durable: leaf, totals and receipt committed (fsync) before the answer, load from another process.

`batch`: jobs reported 2,000 at once over HTTP, one signed receipt a batch, on each database, checks and canonical JSON
included. `http`: single uses through the middleware under wrk with 32 connections, each with a signed receipt of its
own; beside it the same route without the meter, and what the meter adds to one request, one connection.
"""

import argparse
import json
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.cli.processes import Processes
from ledger.core.database import Target
from ledger.core.hashing import sha256
from ledger.core.ids import Hash32, hash_of
from ledger.core.loopback import HOST, collect_seldom, listen
from ledger.core.terms import AuthorizationTerms, GatewaySession
from ledger.metering.gateway import Gateway
from ledger.metering.log import open_usage
from ledger.metering.middleware import Metered, MeterMiddleware
from ledger.metering.policy import read_policy
from ledger.metering.reporter import Reporter
from ledger.metering.routes import create_gateway
from ledger.metering.sessions import origin_hash
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.databases import fresh_database, postgres_server
from tests.world import POLICY, Key, World

SECONDS, CONNECTIONS = 8, 32
BATCH, BATCHES = 2_000, 30
ROWS = json.dumps({"rows": [[n, n * n] for n in range(24)]}).encode()

LUA = """
local bytes = assert(io.open("/dev/urandom", "rb"))
local hex = bytes:read(12):gsub(".", function(c) return string.format("%%02x", c:byte()) end)
local n = 0
wrk.headers["Authorization"] = "Bearer %s"
wrk.headers["Sluice-Purpose"] = "RESEARCH"
request = function()
  n = n + 1
  wrk.headers["Sluice-Use-Id"] = hex .. string.format("%%040d", n)
  return wrk.format("GET", "/metered")
end
"""


def uses(folder: Path) -> dict[str, Any]:
    """All figures of this file."""
    with Processes(folder / "logs") as processes, postgres_server(folder / "postgres") as server:
        world = World.on(Chain(processes.anvil(folder / "state.json")))
        terms = world.open(10**18, max_units=(2**60, 2**60, 0, 0))
        deployment = folder / "deployment.json"
        deployment.write_text(json.dumps(world.deployment.as_json()))
        found: dict[str, Any] = {}
        with _followed(world, folder / "mirror.db"):
            for kind in ("sqlite", "postgres"):
                target: Target = folder / "usage.db" if kind == "sqlite" else fresh_database(server)
                with _server(folder, target, world.version) as (url, megabytes):
                    before = megabytes()
                    found |= _batch(world, terms, url, kind)
                    if shutil.which("wrk") is None:
                        found["uses_per_s_http"] = "wrk is not installed (Debian: apt-get install wrk)"
                    else:
                        found |= _http(world, terms, url, folder, kind)
                    # Of these, answers kept for who asks again are up to 64.
                    found[f"gateway_megabytes_{kind}"] = {"at the start": before, "at the end": megabytes()}
    return found


def _batch(world: World, terms: AuthorizationTerms, url: str, kind: str) -> dict[str, Any]:
    reporter = Reporter(
        gateway=url, signer=world.provider, domain=world.deployment.domain("UsageLedger"), http=httpx.Client(timeout=60)
    )
    version, id_ = world.version, world.id(terms)
    batches = [[_job(version) for _ in range(BATCH)] for _ in range(BATCHES)]
    reporter.report(id_, [_job(version)])
    taken = []
    for batch in batches:
        began = time.perf_counter()
        answer = reporter.report(id_, batch)
        taken.append(time.perf_counter() - began)
        assert answer["refused"] == answer["failed"] == [], answer
        assert int(answer["receipt"]["head"]["size"]) == answer["leaves"][-1] + 1
    name = "uses_per_s_batch" if kind == "sqlite" else "uses_per_s_batch_postgres"
    return {name: BATCH / statistics.median(taken), f"{name}_slowest": BATCH / max(taken)}


def _job(version: Hash32) -> dict[str, Any]:
    return {
        "useId": secrets.token_hex(32),
        "purpose": "RESEARCH",
        "modality": "API_PULL",
        "version": version,
        "counts": {"calls": 1, "rows": 24},
        "eventTime": 1_750_000_000,
        "job": hash_of(secrets.token_bytes(32)),
        "result": hash_of(secrets.token_bytes(32)),
    }


def _http(world: World, terms: AuthorizationTerms, url: str, folder: Path, kind: str) -> dict[str, Any]:
    session = GatewaySession(
        authorization_id=world.id(terms),
        gateway=origin_hash(url),
        nonce=hash_of(secrets.token_bytes(32)),
        expires_at=int(time.time()) + 3_000,
    )
    signed = {"session": session.as_json(), "signature": world.consumer.sign(session, world.domain(terms))}
    token = httpx.post(f"{url}/v1/sessions", json=signed).raise_for_status().json()["token"]
    script = folder / "uses.lua"
    script.write_text(LUA % token)
    _wrk(url, 2, "-s", str(script))
    rps, p99 = _wrk(url, SECONDS, "-s", str(script))
    bare, bare_p99 = _wrk(f"{url}/bare", SECONDS)
    suffix = "" if kind == "sqlite" else "_postgres"
    found = {
        f"uses_per_s_http{suffix}": rps,
        f"uses_http_p99_ms{suffix}": p99,
        f"uses_http_bare_route_per_s{suffix}": bare,
        f"uses_http_bare_route_p99_ms{suffix}": bare_p99,
    }
    with httpx.Client(base_url=url) as client:
        headers = {"Authorization": f"Bearer {token}", "Sluice-Purpose": "RESEARCH"}

        def once(path: str) -> float:
            sent = headers | {"Sluice-Use-Id": secrets.token_hex(32)}
            began = time.perf_counter()
            answer = client.get(path, headers=sent)
            taken = time.perf_counter() - began
            assert answer.status_code == 200
            return taken

        metered, plain = [], []
        for _ in range(1_000):  # in turns: what disturbs one disturbs the other
            metered.append(once("/metered"))
            plain.append(once("/bare"))
        added = (statistics.median(metered) - statistics.median(plain)) * 1000
    return found | {f"middleware_added_ms{suffix}": added}


def _wrk(url: str, seconds: int, *options: str) -> tuple[float, float]:
    """Requests a second, and the 99th percentile in milliseconds."""
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "--latency", *options, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rps = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    p99 = re.search(r"99%\s+([0-9.]+)(us|ms|s)", text)
    if rps is None or p99 is None or "Non-2xx" in text:
        raise RuntimeError(f"wrk: {text}")
    return float(rps[1]), float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]]


@contextmanager
def _followed(world: World, path: Path) -> Iterator[None]:
    """A mirror at the chain's head, as the API's follower keeps it."""
    mirror, done = open_mirror(path, world.deployment), threading.Event()

    def follow() -> None:
        while not done.is_set():
            catch_up(mirror, world.chain, world.deployment)
            done.wait(1)

    thread = threading.Thread(target=follow)
    catch_up(mirror, world.chain, world.deployment)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        mirror.dispose()


@contextmanager
def _server(folder: Path, target: Target, version: Hash32) -> Iterator[tuple[str, Callable[[], float]]]:
    """A provider's application behind the middleware, in a process of its own; its URL, and what memory it takes."""
    command = [sys.executable, "-m", "bench.uses", str(folder), str(target), version]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            status = Path(f"/proc/{process.pid}/status")
            yield url, lambda: int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0]) / 1024
        finally:
            process.terminate()
            process.wait()


def serve(folder: Path, usage: Target, version: Hash32) -> None:
    """The server process: the gateway's routes, and one route twice, metered and bare."""
    deployment = Deployment.from_json(json.loads((folder / "deployment.json").read_text()))
    listener = listen(0)
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    provider = Key.named("provider")
    gateway = Gateway(
        mirror=open_mirror(folder / "mirror.db", deployment),
        usage=open_usage(usage),
        provider=provider.address,
        signer=provider,
        domains={name: deployment.domain(name) for name in ("UsageLedger", "InvoiceLedger")},
        policies={hash_of(sha256(POLICY.encode())): read_policy(POLICY)},
        origin=url,
    )

    async def rows(_: Request) -> Response:
        return Response(ROWS, media_type="application/json")

    own = create_gateway(gateway)
    app = Starlette(routes=[Route("/metered", rows), Route("/bare", rows)])
    app.mount("/", own)
    metered = MeterMiddleware(app, gateway, [Metered("/metered", version=version)])
    listener.listen(128)
    print(url, flush=True)
    collect_seldom()
    config = uvicorn.Config(metered, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("usage")
    parser.add_argument("version")
    given = parser.parse_args()
    serve(given.folder, given.usage if "://" in given.usage else Path(given.usage), Hash32(given.version))
