"""What the two sides sign besides heads: grants for agents, ceilings to pay ahead, keys that sign for wallets; and what
becomes of a leaf that is disputed."""

import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Response

from ledger.core.errors import InputInvalid
from ledger.core.ids import hash_of
from ledger.core.terms import AgentGrant, AuthorizationTerms, SessionKey, UsageHead, UseReceipt
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind
from ledger.metering.client import Consumer, GatewayProblem, UseRefused
from ledger.metering.copy import Disputed
from ledger.metering.gateway import Gateway
from ledger.metering.log import read_entries
from ledger.wallet import ExternalSigner, SignerFailed
from tests.exchange import Exchange, served, serving_of
from tests.world import Key

AGENT = Key.named("agent")
YUAN = 1_000_000


def register(running: Exchange, wallet: Key, key: Key, *, days: int = 5, max_due: int = 50 * YUAN) -> None:
    """A key that may sign for a wallet."""
    world = running.world
    asked = SessionKey(wallet=wallet.address, key=key.address, expiry=world.now() + days * 86_400, max_due=max_due)
    signature = key.sign(asked, world.deployment.domain("SessionKeys"))
    options = {"key": key.address, "expiry": asked.expiry, "maxDue": str(max_due), "possession": signature}
    world.send(wallet, "session-key.register", **options)
    running.follow()


def grant(running: Exchange, terms: AuthorizationTerms, **changes: Any) -> tuple[AgentGrant, str]:
    given = AgentGrant(
        authorization_id=running.world.id(terms),
        key=AGENT.address,
        per_use=15_000,
        per_day=40_000,
        uses_per_day=10,
        issued_at=int(running.clock()),
        expiry=int(running.clock()) + 86_400,
    )
    given = replace(given, **changes)
    return given, running.world.consumer.sign(given, running.world.domain(terms))


def agent(running: Exchange, terms: AuthorizationTerms, given: Any = None, name: str = "agent") -> Consumer:
    return running.consumer(terms, name, signer=AGENT, grant=given or grant(running, terms))


def use(consumer: Consumer, running: Exchange, rows: int = 5) -> Any:
    return consumer.use(running.version, "RESEARCH", {"from": "2026-01-01T00:00:00", "limit": str(rows)})


def reason(consumer: Consumer, running: Exchange, rows: int = 5) -> str:
    with pytest.raises(UseRefused) as caught:
        use(consumer, running, rows)
    return str(caught.value.details["reason"])


# ------------------------------------------------------------------------------------------------- agents


def test_an_agent_spends_within_its_grant_and_signs_what_it_used(running: Exchange) -> None:
    terms = running.open()
    register(running, running.world.consumer, AGENT)
    mine = agent(running, terms)
    got = use(mine, running)  # 5 rows: 14,000
    assert got.entry.payload is not None
    assert got.entry.payload["agent"] == AGENT.address
    assert reason(mine, running, 6) == "AGENT_CALL_CAP"
    use(mine, running)
    assert reason(mine, running) == "AGENT_DAY_CAP"
    # The principal itself can still buy, and its client knows nothing of what the agent used.
    principal = running.consumer(terms, accept=lambda entry: (entry.payload or {}).get("agent") == AGENT.address)
    use(principal, running, 20)
    assert principal.sign_head().head.units == (3, 30, 0, 0)


def test_what_an_agent_signs_settles(running: Exchange) -> None:
    terms = running.open()
    register(running, running.world.consumer, AGENT)
    mine = agent(running, terms)
    use(mine, running)
    signed = mine.sign_head()
    running.settle(terms, signed)
    assert running.world.reservation(terms)["paid"] == 14_000


def test_an_agent_without_a_grant_or_key_opens_no_session(running: Exchange) -> None:
    terms = running.open()
    with pytest.raises(GatewayProblem, match="not signed by the consumer"):
        use(agent(running, terms), running)
    register(running, running.world.consumer, AGENT)
    with pytest.raises(GatewayProblem, match="needs a grant"):
        use(running.consumer(terms, "bare", signer=AGENT), running)
    forged = grant(running, terms)[0], AGENT.sign(grant(running, terms)[0], running.world.domain(terms))
    with pytest.raises(GatewayProblem, match="not signed by the consumer"):
        use(agent(running, terms, forged, "forger"), running)


def test_the_last_grant_counts_and_an_older_one_is_refused(running: Exchange) -> None:
    terms = running.open()
    register(running, running.world.consumer, AGENT)
    wide, narrow = grant(running, terms), grant(running, terms, per_use=1, issued_at=int(running.clock()) + 1)
    mine = agent(running, terms, wide)
    use(mine, running)
    body = {"grant": narrow[0].as_json(), "grantSignature": narrow[1]}
    assert running.http.post(f"{running.url}/v1/grants", json=body).status_code == 200
    assert reason(mine, running) == "AGENT_CALL_CAP"  # in the session that was open already
    body = {"grant": wide[0].as_json(), "grantSignature": wide[1]}
    assert running.http.post(f"{running.url}/v1/grants", json=body).status_code == 403
    with pytest.raises(GatewayProblem, match="a later grant"):
        use(agent(running, terms, wide, "again"), running)


def test_of_two_grants_of_one_second_the_one_that_is_known_stays(running: Exchange) -> None:
    terms = running.open()
    now = int(running.clock())

    def push(**changes: int) -> int:
        given = grant(running, terms, **{"issued_at": now, "expiry": now + 86_400} | changes)
        body = {"grant": given[0].as_json(), "grantSignature": given[1]}
        return running.http.post(f"{running.url}/v1/grants", json=body).status_code

    assert [push(), push(), push(per_use=YUAN), push(per_use=YUAN, issued_at=now + 1)] == [200, 200, 403, 200]


def test_nothing_is_taken_from_a_key_beyond_what_it_signs_for_on_chain(running: Exchange) -> None:
    terms = running.open()
    register(running, running.world.consumer, AGENT, max_due=20_000)
    mine = agent(running, terms)
    use(mine, running)
    assert mine.sign_head().head.size == 1  # 14,000
    use(mine, running)
    with pytest.raises(GatewayProblem, match="signs for at most 20000 token units, this comes to 28000"):
        mine.sign_head()
    with pytest.raises(GatewayProblem, match="its wallet must sign"):
        mine.pay_ahead(max_due=20_001, seconds=7_200)
    mine.pay_ahead(max_due=20_000, seconds=7_200)
    principal = running.consumer(terms, accept=lambda entry: (entry.payload or {}).get("agent") == AGENT.address)
    assert principal.sign_head().head.size == 2


@pytest.mark.parametrize("path", ["{}?limit=1", "{}#x", "/x/..{}", "{}/%41", "@elsewhere.example{}", ":1{}"])
def test_a_path_that_would_be_recorded_otherwise_is_never_asked_for(running: Exchange, path: str) -> None:
    consumer = running.consumer(running.open())
    with pytest.raises(InputInvalid, match="a path begins with /"):
        consumer.request("GET", path.format(f"/v1/data/{running.version}"), purpose="RESEARCH")
    assert consumer.spent().leaves == 0


def test_revoking_the_key_stops_the_agent_at_once(running: Exchange) -> None:
    terms, world = running.open(), running.world
    register(running, world.consumer, AGENT)
    mine = agent(running, terms)
    got = "r" * 64
    mine.use(running.version, "RESEARCH", {"from": "2026-01-01T00:00:00", "limit": "5"}, use_id=got)
    world.send(world.consumer, "session-key.revoke", key=AGENT.address)
    running.follow()
    assert reason(mine, running) == "AGENT_NOT_ALLOWED"  # refused in the log, in the session that was open
    with pytest.raises(GatewayProblem, match="not delivered again"):
        mine.use(running.version, "RESEARCH", {"from": "2026-01-01T00:00:00", "limit": "5"}, use_id=got)
    for one in (mine.sign_head, lambda: use(agent(running, terms, name="again"), running)):
        with pytest.raises(GatewayProblem, match="not signed by the consumer"):
            one()


# --------------------------------------------------------------------------------------------- pay ahead


def test_a_ceiling_lets_uses_go_on_beyond_the_window_and_settles_without_the_consumer(running: Exchange) -> None:
    terms = running.open(credit_units=(2, 0, 0, 0))
    consumer = running.consumer(terms)
    for _ in range(2):
        use(consumer, running)
    assert reason(consumer, running) == "CREDIT_WINDOW_FULL"
    ceiling = consumer.pay_ahead(max_due=60_000, seconds=7_200)
    for _ in range(2):
        use(consumer, running)
    assert reason(consumer, running) == "CREDIT_WINDOW_FULL"  # 5 uses would be 70,000
    world, id_ = running.world, running.world.id(terms)
    head = running.gateway.head_over(id_, 3)  # of the two first uses and the refusal between
    assert head.head.units == (2, 10, 0, 0)
    signature = world.consumer.sign(ceiling, world.domain(terms))
    settlement = {
        "terms": terms.as_json(),
        "previous": None,
        "head": head.head.as_json(),
        "providerSignature": head.provider_signature,
        "consumerSignature": "0x",
        "ceilings": [{"ceiling": ceiling.as_json(), "signature": signature}],
        "consistency": [],
    }
    world.send(world.provider, "settle.one", settlement=settlement)
    assert world.reservation(terms)["paid"] == 28_000


def test_a_ceiling_is_never_taken_back_and_nobody_else_signs_it(running: Exchange) -> None:
    terms = running.open(credit_units=(2, 0, 0, 0))
    consumer = running.consumer(terms)
    use(consumer, running)
    consumer.pay_ahead(max_due=60_000, seconds=7_200)
    with pytest.raises(GatewayProblem, match="cannot be taken back"):
        consumer.pay_ahead(max_due=50_000, seconds=7_200)
    ceiling = consumer.pay_ahead(max_due=70_000, seconds=7_200)
    forged = {"ceiling": ceiling.as_json(), "signature": AGENT.sign(ceiling, running.world.domain(terms))}
    headers = {"Authorization": f"Bearer {consumer._token}"}
    url = f"{running.url}/v1/authorizations/{running.world.id(terms)}/ceiling"
    assert running.http.post(url, json=forged, headers=headers).status_code == 409


def test_a_client_that_is_asked_to_signs_and_goes_on(running: Exchange) -> None:
    terms = running.open(credit_units=(4, 0, 0, 0))
    consumer = running.consumer(terms, sign_when_asked=True)
    for _ in range(20):
        use(consumer, running, 1)
    signed = consumer._copy.latest_signed()
    assert signed is not None
    assert signed.head.units[0] >= 18
    with running.usage.connect() as connection:
        kinds = [e.leaf.kind for e in read_entries(connection, running.world.id(terms))]
    assert kinds == [Kind.USE] * 20  # asked for at half the window: nothing was ever refused


def test_a_full_window_is_answered_with_the_head_to_sign(running: Exchange) -> None:
    terms = running.open(credit_units=(1, 0, 0, 0))
    consumer = running.consumer(terms)
    use(consumer, running, 1)
    headers = {
        "Authorization": f"Bearer {consumer._token}",
        "Sluice-Use-Id": "f" * 64,
        "Sluice-Purpose": "RESEARCH",
    }
    answer = running.http.get(f"{running.url}/v1/data/{running.version}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (402, "CREDIT_WINDOW_FULL")
    assert answer.json()["head"]["units"] == ["1", "1", "0", "0"]
    # A client that signs when it is told to goes on by itself.
    again = running.consumer(terms, sign_when_asked=True)
    assert use(again, running, 1).entry.leaf.units == (1, 1, 0, 0)


# ------------------------------------------------------------------------------------- the gateway's key


def test_a_gateway_signs_with_a_session_key_up_to_its_cap(running: Exchange) -> None:
    world, key = running.world, Key.named("gateway key")
    register(running, world.provider, key, max_due=30_000)
    with serving_of(running, signer=key) as (gateway, url):
        assert isinstance(gateway, Gateway)
        terms = running.open()
        stranger = running.consumer(terms, "wary", gateway=url)
        with pytest.raises(Disputed, match="not signed by the provider"):
            use(stranger, running)
        consumer = running.consumer(terms, gateway=url, provider_keys=[key.address])
        assert use(consumer, running).entry.leaf.index == 1
        assert reason(consumer, running) == "SIGNER_CAP_EXCEEDED"  # the third would be 42,000
        accepted = running.consumer(terms, gateway=url, provider_keys=[key.address], accept=lambda _: True)
        running.settle(terms, accepted.sign_head())
    assert world.reservation(terms)["paid"] == 28_000


# ----------------------------------------------------------------------------------------------- disputes


def test_a_dispute_worth_little_is_credited_and_the_head_is_signed(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    for _ in range(2):
        use(consumer, running)  # 14,000 each; up to 20,000 is credited at once
    assert consumer.dispute(1, "half of it was missing") == "CREDITED"
    assert consumer.dispute(1, "half of it was missing") == "CREDITED"  # once
    signed = consumer.sign_head()
    assert (signed.head.size, signed.head.units, signed.head.credits) == (3, (2, 10, 0, 0), 14_000)
    running.settle(terms, signed)
    assert running.world.reservation(terms)["paid"] == 14_000


def test_a_larger_dispute_waits_for_the_provider(running: Exchange) -> None:
    terms = running.open()
    id_ = running.world.id(terms)
    consumer = running.consumer(terms)
    use(consumer, running)
    use(consumer, running, 20)
    assert consumer.dispute(1, "it was empty") == "OPEN"
    with pytest.raises(Disputed, match="no credit answers it"):
        consumer.sign_head()
    assert [(d["index"], d["answer"]) for d in running.gateway.disputes(id_)] == [(1, None)]
    running.gateway.credit(id_, 1, "our source was down")
    assert consumer.sign_head().head.credits == 56_000


def test_a_dispute_that_is_rejected_is_not_signed(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running, 20)
    consumer.dispute(0, "it was empty")
    running.gateway.reject(running.world.id(terms), 0)
    assert consumer.dispute(0, "it was empty") == "REJECTED"
    with pytest.raises(Disputed):
        consumer.sign_head()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"index": 9, "reason": "x"}, 404),
        ({"index": 0}, 422),
        ({"index": -1, "reason": "x"}, 422),
        ({"index": 0, "reason": "ask 13800138000"}, 422),
        ({"index": 0, "reason": "x", "more": 1}, 422),
    ],
)
def test_a_dispute_in_another_form_is_refused(running: Exchange, body: Any, status: int) -> None:
    consumer = running.consumer(running.open())
    use(consumer, running)
    headers = {"Authorization": f"Bearer {consumer._token}"}
    url = f"{running.url}/v1/authorizations/{consumer.authorization_id}/disputes"
    answer = running.http.post(url, json=body, headers=headers)
    assert answer.status_code == status
    assert "13800138000" not in answer.text


def test_personal_data_is_recorded_nowhere(running: Exchange) -> None:
    terms = running.open()
    consumer = running.consumer(terms)
    use(consumer, running)
    phone = "13800138000"
    for headers, path in (
        ({"Sluice-Use-Id": phone + " " + "x" * 40}, f"/v1/data/{running.version}"),
        ({}, f"/v1/data/{running.version}?patientId={phone}"),
        ({}, f"/v1/data/{running.version}?who=%31%33%38%30%30%31%33%38%30%30%30"),
        ({"Sluice-Region": phone}, f"/v1/data/{running.version}"),
    ):
        sent = {"Authorization": f"Bearer {consumer._token}", "Sluice-Purpose": "RESEARCH", "Sluice-Use-Id": "p" * 64}
        answer = running.http.get(running.url + path, headers=sent | headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "personal_data"), path
        assert phone not in answer.text
    with running.usage.connect() as connection:
        assert len(read_entries(connection, running.world.id(terms))) == 1


def test_an_unknown_authorization_is_not_found(running: Exchange) -> None:
    with pytest.raises(Exception, match="no authorization"):
        running.gateway.head(hash_of(bytes(32)))


def test_a_gateway_without_a_key_asks_a_signer_for_each_word(running: Exchange) -> None:
    """Over Clef's JSON-RPC; what it gives is checked."""
    world = running.world
    keys = [world.provider]

    async def clef(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = json.loads((await receive())["body"])
        address, typed_data = asked["params"]
        assert (asked["method"], address.lower()) == ("account_signTypedData", world.provider.address)
        kind: Any = {"UseReceipt": UseReceipt, "UsageHead": UsageHead}[typed_data["primaryType"]]
        domain = Domain(typed_data["domain"]["chainId"], typed_data["domain"]["verifyingContract"])
        signature = keys[0].sign(kind.from_json(typed_data["message"]), domain)
        await Response(json.dumps({"jsonrpc": "2.0", "id": 1, "result": signature}))(scope, receive, send)

    with served(clef) as url:
        signer = ExternalSigner(url, world.provider.address)
        with serving_of(running, signer=signer) as (_, gateway):
            terms = running.open()
            consumer = running.consumer(terms, gateway=gateway)
            use(consumer, running)
            assert consumer.sign_head().head.size == 1
            keys[0] = AGENT
            with pytest.raises(GatewayProblem, match="another key"):
                use(consumer, running)
            keys[0] = world.provider
            assert use(consumer, running).entry.leaf.index == 1
    with pytest.raises(SignerFailed, match="gave no signature"):
        signer.sign(grant(running, terms)[0], world.domain(terms))
