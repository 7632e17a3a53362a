"""A running exchange for tests: mirror, API and gateway over real HTTP, on loopback and free ports."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Engine

from api.app import create_app
from api.deps import State
from api.sessions import Sessions, open_sessions
from api.tips import Tips
from ledger.chain.client import Chain
from ledger.cli.gateway import serving
from ledger.core import siwe
from ledger.core.database import Target
from ledger.core.hashing import sha256
from ledger.core.ids import Hash32, hash_of
from ledger.core.loopback import HOST, listen
from ledger.core.ratecard import MAX_UNITS, Meter, Tier
from ledger.core.siwe import SignIn
from ledger.core.terms import AuthorizationTerms, UsageHead
from ledger.metering.client import Consumer
from ledger.metering.files import metered
from ledger.metering.gateway import Gateway
from ledger.metering.log import SignedHead, open_usage
from ledger.metering.policy import read_policy
from ledger.metering.sources import Source, open_source
from ledger.mirror import queries, schema
from ledger.mirror.follow import Follower, catch_up
from ledger.mirror.store import open_mirror
from ledger.webhooks.store import open_webhooks
from tests.world import POLICY, Key, World

METERS = (
    Meter(1, 10, (Tier(100, 10_000), Tier(MAX_UNITS, 6_000))),
    Meter(1000, 0, (Tier(MAX_UNITS, 2_800_000),)),
)
CREDITED = 20_000  # token units: disputes worth no more are credited at once
POLICIES: list[str] = []  # beside the usual one
CSV = b"time,value\n" + b"".join(b"2026-01-01T%02d:00:00,%d\n" % (n, n * n) for n in range(24))


@contextmanager
def served(app: Any, listener: Any = None) -> Iterator[str]:
    """An ASGI app on a free loopback port, in a thread, stopped at the end."""
    listener = listener or listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.started
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@dataclass
class Exchange:
    """A world with a mirror, and a gateway that serves one CSV as ranges and as a file."""

    world: World
    folder: Path
    mirror: Engine
    usage: Engine
    sources: list[Source]
    gateway: Gateway
    url: str
    http: httpx.Client
    closing: list[Any] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    settled: dict[Hash32, UsageHead] = field(default_factory=dict)

    def follow(self) -> None:
        """Brings the mirror to the head, as the follower would."""
        catch_up(self.mirror, self.world.chain, self.world.deployment)

    def open(self, reserve: int = 50_000_000, **changes: Any) -> AuthorizationTerms:
        terms = self.world.open(reserve, **changes)
        self.follow()
        return terms

    def consumer(self, terms: AuthorizationTerms, name: str = "consumer", **changes: Any) -> Consumer:
        engine = open_usage(self.folder / f"{name}.db")
        self.engines.append(engine)
        options: dict[str, Any] = {
            "gateway": self.url,
            "terms": terms,
            "domain": self.world.domain(terms),
            "meters": ("calls", "rows"),
            "signer": self.world.consumer,
            "usage": engine,
            "http": self.http,
            "card": self.world.card(),
            "clock": self.clock,
        }
        return Consumer(**options | changes)

    def settle(self, terms: AuthorizationTerms, signed: SignedHead, settled: int = 0) -> None:
        """A third party settles a head both signed."""
        tree = self.gateway.log(signed.head.authorization_id).tree
        previous = self.settled.get(signed.head.authorization_id)
        self.settled[signed.head.authorization_id] = signed.head
        settlement = {
            "terms": terms.as_json(),
            "previous": previous.as_json() if previous else None,
            "head": signed.head.as_json(),
            "providerSignature": signed.provider_signature,
            "consumerSignature": signed.consumer_signature,
            "consistency": [hash_of(p) for p in tree.consistency(settled, signed.head.size)],
        }
        self.world.send(self.world.stranger, "settle.one", settlement=settlement)

    def clock(self) -> float:
        """The chain's time: tests move it."""
        block = self.world.chain.block("latest")
        assert block is not None
        return float(block.timestamp)

    @property
    def version(self) -> Hash32:
        return self.sources[0].version


@contextmanager
def exchange(world: World, folder: Path) -> Iterator[Exchange]:
    path = folder / "data.csv"
    path.write_bytes(CSV)
    product, version = world.publish("exchange", CSV)
    world.product, world.version = product, version
    mirror = open_mirror(folder / "mirror.db", world.deployment)
    catch_up(mirror, world.chain, world.deployment)
    usage = open_usage(folder / "usage.db")
    with mirror.connect() as connection:
        row = queries.one(connection, schema.versions, "version", version=version)
    source = open_source(path, "rows", product, version, row["digests"])
    listener = listen(0)
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    made: dict[str, Exchange] = {}
    gateway = Gateway(
        mirror=mirror,
        usage=usage,
        provider=world.provider.address,
        signer=world.provider,
        domains={name: world.deployment.domain(name) for name in ("UsageLedger", "InvoiceLedger")},
        policies={hash_of(sha256(text.encode())): read_policy(text) for text in (POLICY, *POLICIES)},
        origin=url,
        credit_up_to=CREDITED,
        clock=lambda: made["exchange"].clock(),
    )
    with httpx.Client(timeout=10) as http:
        made["exchange"] = Exchange(world, folder, mirror, usage, [source], gateway, url, http)
        with served(serving(gateway, metered([source]), [source], None), listener):
            yield made["exchange"]
            for client in made["exchange"].closing:
                client.close()
            gateway.close()
            for engine in made["exchange"].engines:
                engine.dispose()
    mirror.dispose()
    usage.dispose()


@contextmanager
def serving_of(running: Exchange, **changes: Any) -> Iterator[tuple[Gateway, str]]:
    """Another gateway over the same mirror and logs; `changes` to how it is made."""
    world, listener = running.world, listen(0)
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    options: dict[str, Any] = {
        "mirror": running.mirror,
        "usage": running.usage,
        "provider": world.provider.address,
        "signer": world.provider,
        "domains": {name: world.deployment.domain(name) for name in ("UsageLedger", "InvoiceLedger")},
        "policies": running.gateway.policies,
        "origin": url,
        "clock": running.clock,
    }
    gateway = Gateway(**options | changes)
    with served(serving(gateway, metered(running.sources), running.sources, None), listener):
        yield gateway, url


@contextmanager
def api(running: Exchange, **options: Any) -> Iterator[httpx.Client]:
    """The API over this exchange's databases, or with a mirror, sessions and webhooks in another one."""
    world = running.world
    database: Target | None = options.pop("database", None)
    mirror = open_mirror(database, world.deployment) if database else running.mirror
    follower = Follower(mirror, Chain(world.chain.url, attempts=1), world.deployment, interval=0.02)
    opened = open_sessions(database or running.folder / "sessions.db", world.deployment)
    webhooks = open_webhooks(database or running.folder / "webhooks.db", world.deployment)
    listener = listen(0)
    origin = f"http://{HOST}:{listener.getsockname()[1]}"
    state = State(
        mirror=mirror,
        usage=running.usage,
        webhooks=webhooks,
        sessions=Sessions(opened, world.chain, world.deployment.chain_id, origin),
        chain=world.chain,
        deployment=world.deployment,
        follower=follower,
        tips=Tips(mirror),
        origin=origin,
        **{"private_webhooks": True} | options,
    )
    with served(create_app(state), listener) as url, httpx.Client(base_url=url, timeout=10) as client:
        yield client
    opened.dispose()
    webhooks.dispose()
    if database:
        mirror.dispose()


def sign_in(client: httpx.Client, key: Key, chain_id: int = 31337) -> dict[str, str]:
    """A session of this wallet, as headers."""
    origin = str(client.base_url).rstrip("/")
    message = SignIn(
        domain=origin.split("//")[1],
        address=key.address,
        uri=origin,
        chain_id=chain_id,
        nonce=client.post("/v1/session/nonce").json()["nonce"],
        issued_at=siwe.written(time.time()),
        statement="Read the ledger",
    )
    body = {"message": message.text(), "signature": key.sign_text(message.text())}
    answer = client.post("/v1/session", json=body)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}
