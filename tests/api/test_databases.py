"""The same replies whichever database there is: SQLite files, or one PostgreSQL database for everything."""

from typing import Any

import httpx

from tests.databases import fresh_database
from tests.exchange import Exchange, api, sign_in
from tests.world import DAY


def replies(client: httpx.Client, running: Exchange, paths: list[str]) -> dict[str, Any]:
    head = running.world.chain.block("latest")
    assert head is not None
    headers = sign_in(client, running.world.consumer) | {"Ledger-Min-Block": str(head.number)}
    found: dict[str, Any] = {}
    for path in paths:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200, (path, answer.text)
        found[path] = (answer.text, answer.headers.get("etag"), answer.headers.get("ledger-block-hash"))
    return found


def test_every_reply_is_the_same_on_sqlite_and_postgresql(running: Exchange, postgres: str) -> None:
    world = running.world
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(5):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    running.settle(terms, consumer.sign_head())
    owing = world.open(90_000)
    world.settle(owing, 60, (60, 1440, 0, 0))
    invoiced = world.open(0, invoiced=True)
    world.settle(invoiced, 60, (60, 1440, 0, 0))
    world.pass_time(DAY)
    world.settle(owing, 70, (70, 1680, 0, 0), 60)
    running.follow()
    id_, party = world.id(terms), world.consumer.address
    earlier = running.world.deployment.block + 20
    paths = f"""
        /v1/spaces /v1/credentials /v1/session-keys /v1/products /v1/products/{world.product} /v1/versions?status=LISTED
        /v1/participants?role=PROVIDER /v1/participants?limit=1 /v1/rate-cards/{terms.rate_card}
        /v1/authorizations /v1/authorizations?limit=2 /v1/authorizations?purpose=RESEARCH&consumer={party}
        /v1/authorizations?status=OPEN&format=csv /v1/authorizations?at_block={earlier} /v1/authorizations/{id_}
        /v1/authorizations/{id_}/settlements /v1/authorizations/{world.id(invoiced)}/payments
        /v1/settlements /v1/settlements?limit=1 /v1/settlements?consumer={party}&format=jsonl
        /v1/accounts/{party} /v1/shares/{terms.split}/{terms.token} /v1/splits/{terms.split}
        /v1/uses?authorization={id_}&purpose=RESEARCH /v1/heads?authorization={id_} /v1/bills/{id_}
        /v1/statements/{party}?month=2026-11 /v1/aggregates/usage?by=day,consumer /v1/aggregates/usage?by=token
        /v1/aggregates/revenue /v1/aggregates/reservations /v1/aggregates/arrears /v1/aggregates/expiring
        /v1/aggregates/purposes /v1/events?limit=1000 /v1/events?about={party}&event=Settled /v1/digest
        /v1/transactions /v1/transactions?blocks=2
    """.split()
    with api(running) as client:
        files = replies(client, running, paths)
    with api(running, database=fresh_database(postgres)) as client:
        server = replies(client, running, paths)
        made = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}, headers=sign_in(client, world.holder))
        assert made.status_code == 201, made.text
    for path in paths:
        assert server[path] == files[path], path
