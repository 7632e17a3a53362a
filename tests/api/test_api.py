"""The API from outside: every read, every write by a wallet elsewhere, every error in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.chain.operations import OPERATIONS
from ledger.chain.prepared import PreparedTransaction
from ledger.core.database import writing
from ledger.core.ids import Address
from ledger.core.terms import Acceptance, AuthorizationTerms, Offer
from ledger.mirror import queries, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.exchange import Exchange, api, sign_in
from tests.world import Key, World, digest


@pytest.fixture
def client(running: Exchange) -> Iterator[httpx.Client]:
    """Signed in as the consumer."""
    with api(running) as made:
        made.headers.update(sign_in(made, running.world.consumer))
        yield made


@pytest.fixture
def used(running: Exchange) -> AuthorizationTerms:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(12):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    running.settle(terms, consumer.sign_head())
    running.follow()
    return terms


def test_every_read_answers_and_names_its_block(
    client: httpx.Client, running: Exchange, used: AuthorizationTerms
) -> None:
    world = running.world
    ids = {
        "space": world.space,
        "product": world.product,
        "version": world.version,
        "authorization": world.id(used),
        "rate_card": used.rate_card,
        "split": used.split,
        "token": used.token,
        "owner": world.consumer.address,
        "webhook": client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["webhook"],
        "party": world.consumer.address,
    }
    queries: dict[str, dict[str, str]] = {
        "/v1/participants": {"space": world.space},
        "/v1/uses": {"authorization": world.id(used)},
        "/v1/heads": {"authorization": world.id(used)},
        "/v1/statements/{party}": {"month": "2026-11"},
    }
    of_no_block = (
        "/v1/codes",
        "/v1/operations",
        "/v1/deployment",
        "/v1/health",
        "/health",
        "/v1/session",
        "/v1/webhooks",
    )
    paths = [p for p, verbs in client.get("/openapi.json").json()["paths"].items() if "get" in verbs]
    assert len(paths) >= 36
    for path in paths:
        if "{transaction}" in path or path.endswith("/stream"):
            continue
        answer = client.get(path.format(**ids), params=queries.get(path))
        assert answer.status_code == 200, (path, answer.text)
        if not path.startswith(of_no_block):
            assert answer.headers["etag"].startswith('"')
            assert int(answer.headers["ledger-block"]) > 0, path
            assert answer.headers["ledger-finality"] in ("seen", "safe", "final")


def test_the_page_of_the_api_needs_no_network(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    assert "Sluice 数据计量账本" in page.text
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"


def test_amounts_are_text_and_equal_the_chain(
    client: httpx.Client, running: Exchange, used: AuthorizationTerms
) -> None:
    found = client.get(f"/v1/authorizations/{running.world.id(used)}").json()
    paid = running.world.reservation(used)["paid"]
    assert (found["due"], found["paid"], found["arrears"]) == (str(paid), str(paid), "0")
    assert (found["size"], found["units"], found["status"], found["mode"]) == (
        "12",
        ["12", "60", "0", "0"],
        "OPEN",
        "escrowed",
    )
    bill = client.get(f"/v1/bills/{running.world.id(used)}").json()
    assert bill["due"] == str(paid)
    uses = client.get("/v1/uses", params={"authorization": running.world.id(used), "first": 10}).json()
    assert [u["leaf"]["index"] for u in uses["items"]] == [10, 11]


def test_lists_turn_pages(client: httpx.Client, running: Exchange) -> None:
    for _ in range(3):
        running.open(0)
    first = client.get("/v1/authorizations", params={"limit": 2}).json()
    second = client.get("/v1/authorizations", params={"limit": 2, "after": first["next"]}).json()
    everything = client.get("/v1/authorizations").json()
    ids = [i["authorization"] for i in first["items"] + second["items"]]
    assert ids == [i["authorization"] for i in everything["items"]]
    assert (len(ids), second["next"], everything["next"]) == (3, None, None)
    mine = client.get("/v1/authorizations", params={"consumer": running.world.stranger.address}).json()
    assert mine["items"] == []


def test_transactions_turn_pages_newest_first(client: httpx.Client, running: Exchange) -> None:
    running.open()
    first = client.get("/v1/transactions", params={"blocks": 2}).json()
    assert first["items"][0]["events"] == ["UsageLedger.Opened"]
    seen = [item["transaction"] for item in first["items"]]
    while first["next"] is not None:
        first = client.get("/v1/transactions", params={"blocks": 2, "after": first["next"]}).json()
        seen += [item["transaction"] for item in first["items"]]
    everything = client.get("/v1/transactions", params={"blocks": 1000}).json()["items"]
    assert seen == [item["transaction"] for item in everything]
    assert len(set(seen)) == len(seen) > 5


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/spaces/0x12", 422, "input_invalid"),
        ("/v1/spaces/0x" + "00" * 32, 404, "not_found"),
        ("/v1/authorizations/0x" + "00" * 32, 404, "not_found"),
        ("/v1/bills/0x" + "00" * 32, 404, "not_found"),
        ("/v1/accounts/0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", 422, "input_invalid"),
        ("/v1/statements/0x" + "11" * 20 + "?month=2026-13", 422, "input_invalid"),
        ("/v1/statements/0x" + "11" * 20 + "?month=0000-01", 422, "input_invalid"),
        ("/v1/statements/0x" + "11" * 20 + "?month=2026-01", 403, "refused"),
        ("/v1/transactions/0x" + "00" * 32, 404, "not_found"),
        ("/v1/uses?authorization=0x" + "00" * 32 + "&first=100000000000000000000", 422, "input_invalid"),
        ("/v1/spaces?at_block=100000000000000000000", 422, "input_invalid"),
        ("/v1/spaces?at_block=1000000000", 425, "behind"),
        ("/v1/participants?after=0x12", 422, "input_invalid"),
        ("/v1/settlements?after=1:x", 422, "input_invalid"),
        ("/v1/events?after=soon", 422, "input_invalid"),
        ("/v1/events?after=1-0-0123456789abcdef", 410, "offset_unknown"),
        ("/v1/aggregates/usage?by=weather", 422, "input_invalid"),
        ("/v1/spaces?limit=0", 422, "input_invalid"),
        ("/v1/nothing", 404, "not_found"),
    ],
)
def test_a_bad_read_is_a_problem_in_words(client: httpx.Client, path: str, status: int, code: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.json()["detail"]) > 10


def test_uses_are_bounded_by_their_bill(client: httpx.Client, running: Exchange) -> None:
    terms = running.open()
    answer = client.get(f"/v1/bills/{running.world.id(terms)}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# ------------------------------------------------------------------------------------------------- writes


def prepare(client: httpx.Client, sender: Key, operation: str, **arguments: Any) -> httpx.Response:
    body = {"operation": operation, "arguments": arguments, "sender": sender.address}
    return client.post("/v1/transactions/prepare", json=body)


def signed(world: World, sender: Key, answer: dict[str, Any], **changes: Any) -> str:
    made = answer["transaction"]
    fields: dict[str, Any] = {
        "operation": answer["operation"],
        "chain_id": int(made["chainId"]),
        "sender": sender.address,
        "to": Address(made["to"]),
        "data": made["data"],
        "nonce": int(made["nonce"]),
        "gas": int(made["gas"]),
        "max_fee_per_gas": int(made["maxFeePerGas"]),
        "max_priority_fee_per_gas": int(made["maxPriorityFeePerGas"]),
        "summary": answer["summary"],
        "result": None,
    }
    return sender.sign_transaction(PreparedTransaction(**fields | changes))


def test_a_wallet_signs_what_the_server_prepared_and_follows_it(client: httpx.Client, running: Exchange) -> None:
    world = running.world
    space = {"salt": digest("via api"), "policyDigest": digest("p"), "codeLists": digest("c")}
    answer = prepare(client, world.operator, "space.create", **space).json()
    assert answer["transaction"]["type"] == 2
    assert answer["summary"]["zh"].startswith("创建数据空间")
    assert int(answer["gas"]) > 21_000
    sent = client.post("/v1/transactions", json={"signed": signed(world, world.operator, answer)})
    assert sent.status_code == 202
    transaction = sent.json()["transaction"]
    again = client.post("/v1/transactions", json={"signed": signed(world, world.operator, answer)})
    assert again.json()["transaction"] == transaction  # sending twice is harmless
    for _ in range(200):
        status = client.get(f"/v1/transactions/{transaction}").json()
        if status["mirrored"]:
            break
    assert status["status"] in ("seen", "safe", "final")
    assert status["events"][0]["event"] == "SpaceCreated"
    assert client.get(f"/v1/spaces/{answer['result']}").json()["operator"] == world.operator.address
    world.chain.rpc("anvil_mine", hex(64))
    assert client.get(f"/v1/transactions/{transaction}").json()["status"] == "final"


def test_what_would_fail_is_refused_before_anything_is_signed(client: httpx.Client, running: Exchange) -> None:
    world = running.world
    admit = {"space": world.space, "wallet": world.holder.address, "roles": 32, "digest": digest("d")}
    answer = prepare(client, world.stranger, "participant.admit", **admit)
    assert (answer.status_code, answer.json()["code"]) == (409, "reverted")
    assert answer.json()["detail"] == f"{world.stranger.address} is not the operator of space {world.space}"


def test_a_revoked_authorization_is_named_with_its_block(client: httpx.Client, running: Exchange) -> None:
    world, terms = running.world, running.open()
    receipt = world.send(world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
    running.follow()
    answer = prepare(client, world.provider, "authorization.revoke", terms=terms.as_json(), approvers=[], reason=100)
    assert answer.json()["detail"] == f"authorization {world.id(terms)} was revoked at block {receipt.block}"


def test_a_transaction_that_fails_on_chain_says_why(client: httpx.Client, running: Exchange) -> None:
    """The chain moved between signing and sending."""
    world, terms = running.world, running.open()
    answer = prepare(client, world.consumer, "authorization.close", terms=terms.as_json(), reason=101).json()
    world.send(world.provider, "authorization.close", terms=terms.as_json(), reason=101)
    sent = client.post("/v1/transactions", json={"signed": signed(world, world.consumer, answer)}).json()
    status = client.get(f"/v1/transactions/{sent['transaction']}").json()
    assert status["status"] == "failed"
    assert status["reason"].endswith("has ended")


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("nothing.at-all", {}),
        ("space.create", {}),
        ("space.create", {"salt": "0x1", "policyDigest": digest("p"), "codeLists": digest("c")}),
        ("space.create", {"salt": digest("s"), "policyDigest": digest("p"), "codeLists": digest("c"), "more": 1}),
        ("token.mint", {"to": "0x12", "amount": "1"}),
        ("token.mint", {"to": "0x" + "11" * 20, "amount": "-1"}),
        ("token.mint", {"to": "0x" + "11" * 20, "amount": "9" * 5000}),
        ("token.mint", {"to": "0x" + "11" * 20, "amount": 1.5}),
        ("product.retire", {"version": digest("v"), "reason": "²"}),
        ("price.register-split", {"shares": "text"}),
        ("price.register-card", {"card": {"token": "0x" + "11" * 20, "decimals": 999, "meters": []}}),
        ("authorization.open", {"opening": {}}),
        ("settle.one", {"settlement": None}),
        ("settle.many", {"settlements": []}),
        (
            "product.publish",
            {"product": digest("p"), "digests": 5, "metadata": digest("m"), "policyHash": digest("p"), "parents": []},
        ),
    ],
)
def test_a_malformed_write_is_a_problem_in_words(
    client: httpx.Client, running: Exchange, operation: str, arguments: dict[str, Any]
) -> None:
    answer = prepare(client, running.world.operator, operation, **arguments)
    assert answer.status_code in (404, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("field", ["consistency", "head", "terms", "providerSignature"])
@pytest.mark.parametrize("value", [None, 7, "text", []])
def test_a_malformed_settlement_is_a_problem_in_words(
    client: httpx.Client, running: Exchange, field: str, value: Any
) -> None:
    terms = running.open()
    settlement = running.world.settlement(terms, running.world.head(terms, 3, (3, 9, 0, 0)))
    if field == "consistency" and value == []:
        return
    answer = prepare(client, running.world.stranger, "settle.one", settlement=settlement | {field: value})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("bytes_", ["", "0x", "0x02", "0x02c0", "0xf8", "text", "0x" + "00" * 200])
def test_bytes_that_are_no_transaction_are_refused(client: httpx.Client, bytes_: str) -> None:
    answer = client.post("/v1/transactions", json={"signed": bytes_})
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid")


def test_a_transaction_for_another_chain_is_refused(client: httpx.Client, running: Exchange) -> None:
    world = running.world
    space = {"salt": digest("x"), "policyDigest": digest("p"), "codeLists": digest("c")}
    answer = prepare(client, world.operator, "space.create", **space).json()
    foreign = signed(world, world.operator, answer, chain_id=1)
    refused = client.post("/v1/transactions", json={"signed": foreign})
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_chain")


def test_typed_data_is_what_a_wallet_signs(client: httpx.Client, running: Exchange) -> None:
    from eth_account import Account
    from eth_account.messages import encode_typed_data

    world, terms = running.world, running.world.terms()
    body = {"primaryType": "AuthorizationTerms", "message": terms.as_json()}
    answer = client.post("/v1/typed-data", json=body).json()
    assert answer["digest"] == world.id(terms)
    assert world.consumer.address in answer["summary"]["zh"]
    head = world.head(terms, 3, (3, 9, 0, 0))
    offer = Offer.of(terms, 1, 2)
    acceptance = Acceptance(authorization_id=world.id(terms), reserve=5, deadline=1)
    for message in (head, offer, acceptance):
        asked = {"primaryType": type(message).__name__, "message": message.as_json()}
        shown = client.post("/v1/typed-data", json=asked).json()
        assert shown["digest"] == message.digest(world.domain(terms))
        assert shown["summary"]["en"]
    signature = world.consumer.sign(terms, world.domain(terms))
    recovered = Account.recover_message(encode_typed_data(full_message=answer["typedData"]), signature=signature)
    assert recovered.lower() == world.consumer.address
    for bad in ({"primaryType": "Nothing", "message": {}}, {"primaryType": "Offer", "message": {}}):
        assert client.post("/v1/typed-data", json=bad).status_code == 422


def test_operations_are_listed_with_their_arguments(client: httpx.Client) -> None:
    listed = client.get("/v1/operations").json()
    assert set(listed) == set(OPERATIONS)
    assert all(o["zh"] and o["en"] for o in listed.values())


def test_reads_go_on_and_health_says_so_when_the_node_is_gone(running: Exchange) -> None:
    from ledger.chain.client import Chain

    running.follow()
    world = running.world
    gone = Chain("http://127.0.0.1:9", attempts=1)
    before = world.chain
    world.chain = gone
    try:
        with api(running) as client:
            assert client.get("/v1/spaces").json()["items"]
            health = client.get("/v1/health")
            assert (health.status_code, health.json()["status"]) == (503, "degraded")
            answer = prepare(client, world.operator, "space.accept-operator", space=world.space)
            assert (answer.status_code, answer.json()["code"]) == (503, "node_down")
    finally:
        world.chain = before


def test_a_read_waits_for_the_block_that_is_asked_for(client: httpx.Client, running: Exchange) -> None:
    running.world.chain.rpc("evm_mine")
    head = running.world.chain.block("latest")
    assert head is not None
    answer = client.get("/v1/spaces", headers={"Ledger-Min-Block": str(head.number)})
    assert answer.status_code == 200
    assert int(answer.headers["ledger-block"]) >= head.number


def test_a_block_that_does_not_come_is_too_early(client: httpx.Client) -> None:
    answer = client.get("/v1/spaces", headers={"Ledger-Min-Block": str(10**9)})
    assert (answer.status_code, answer.json()["code"]) == (425, "behind")
    assert client.get("/v1/spaces", headers={"Ledger-Min-Block": "soon"}).status_code == 422


def test_the_digest_is_that_of_a_rebuild_now_and_before(
    client: httpx.Client, running: Exchange, used: AuthorizationTerms, tmp_path: Path
) -> None:
    assert used
    rebuilt = open_mirror(tmp_path / "again.db", running.world.deployment)
    first = running.world.deployment.block
    for until in (first, first + 20, None):
        progress = catch_up(rebuilt, running.world.chain, running.world.deployment, until=until)
        found = client.get("/v1/digest", params={"at_block": progress.height}).json()
        assert found == {"block": progress.height, "digest": "0x" + queries.contents_digest(rebuilt)[0]}
    rebuilt.dispose()


def test_the_server_is_live_and_ready_and_measured(client: httpx.Client, running: Exchange) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reasons": []})
    lines = client.get("/metrics").text.splitlines()
    values = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    assert values["sluice_mirror_block"] >= running.world.deployment.block
    assert values["sluice_mirror_latched"] == 0
    assert values["sluice_mirror_following"] == 1
    assert values["sluice_mirror_reorgs_total"] >= 0


def test_a_latched_mirror_warns_and_is_not_ready(client: httpx.Client, running: Exchange) -> None:
    with writing(running.mirror) as connection:
        connection.execute(schema.cursor.update().values(final_hash="0x" + "11" * 32, violated={"block": 1}))
    answer = client.get("/v1/spaces")
    assert (answer.status_code, answer.headers["ledger-warning"]) == (200, "finality-violated")
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "finality was violated" in ready.json()["reasons"]
    assert client.get("/v1/health").json()["finalityViolated"] == {"block": 1}


def test_authorizations_are_found_by_purpose_modality_status_and_end(
    client: httpx.Client, running: Exchange, used: AuthorizationTerms
) -> None:
    id_, end = running.world.id(used), used.valid_until

    def found(**asked: Any) -> bool:
        answer = client.get("/v1/authorizations", params={"limit": 1000} | asked)
        assert answer.status_code == 200, answer.text
        return id_ in {row["authorization"] for row in answer.json()["items"]}

    assert found(purpose="RESEARCH", status="OPEN", ends_after=end, ends_before=end + 1)
    lists = client.get("/v1/codes").json()
    for table, bits, name in (
        ("purposes", used.scope.purposes, "purpose"),
        ("modalities", used.scope.modalities, "modality"),
    ):
        for entry in lists[table]:
            assert found(**{name: entry["code"]}) == bool(bits >> entry["number"] & 1), entry
    assert not found(status="CLOSED")
    assert not found(status="ENDED")
    assert not found(ends_before=end)
    assert not found(ends_after=end + 1)
    assert client.get("/v1/authorizations", params={"purpose": "ANYTHING"}).status_code == 422
    assert client.get("/v1/authorizations", params={"status": "GONE"}).status_code == 422


def test_the_highest_purpose_is_a_bit_like_any_other(running: Exchange) -> None:
    terms = running.open(purposes=1 << 63 | 1)
    with running.mirror.connect() as connection:
        for bit, there in ((63, True), (0, True), (62, False)):
            where = queries.allows(1 << bit)
            rows = queries.authorizations(connection, where=where, authorization=running.world.id(terms))
            assert bool(rows) == there, bit
        assert queries.authorization(connection, running.world.id(terms))["purposes"] == 1 << 63 | 1


def test_a_transaction_without_our_events_is_mirrored_also_when_it_is_final(
    client: httpx.Client, running: Exchange
) -> None:
    key = running.world.stranger
    receipt = running.world.send(key, "token.mint", to=key.address, amount="1")  # a token's events are not ours
    for _ in range(12):
        answer = client.get(f"/v1/transactions/{receipt.transaction}", headers={"Ledger-Min-Block": str(receipt.block)})
        assert answer.json()["mirrored"] is True, answer.json()
        running.world.chain.rpc("evm_mine")
    running.follow()
    with running.mirror.connect() as connection:
        assert queries.cursor(connection).final > receipt.block
    assert client.get(f"/v1/transactions/{receipt.transaction}").json()["mirrored"] is True
