"""Who reads: signing in with a key or a contract wallet, what only some may see, and how often anybody may ask."""

import hashlib
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import event, func, insert, select

from api import sessions as module
from api.limits import BURST, Limits
from api.observe import log_json
from api.sessions import MOST_NONCES, NONCE_SECONDS, SECONDS, NotSignedIn, Sessions, open_sessions
from ledger.billing.statements import SHANGHAI
from ledger.core import codes, siwe
from ledger.core.database import Target, writing
from ledger.core.errors import InputInvalid
from ledger.core.ids import Address, Hash32
from ledger.core.siwe import SignIn, written
from ledger.core.terms import AuthorizationTerms
from ledger.mirror import queries
from tests.exchange import Exchange, api, sign_in
from tests.world import Key, World, digest

ORIGIN = "https://ledger.example"
BEGAN = 1_700_000_000
ROOT = Path(__file__).parents[2]
CHAIN_ID = 31337


@dataclass
class Door:
    """Sessions whose clock stands until it is moved."""

    world: World
    target: Target
    now: float = BEGAN

    def __post_init__(self) -> None:
        self.engine = open_sessions(self.target, self.world.deployment)
        self.sessions = self.another(ORIGIN)

    def another(self, origin: str) -> Sessions:
        """Another server on the same database."""
        return Sessions(self.engine, self.world.chain, CHAIN_ID, origin, clock=lambda: self.now)

    def message(self, wallet: Address, **changes: Any) -> SignIn:
        usual: dict[str, Any] = {
            "domain": "ledger.example",
            "address": wallet,
            "uri": ORIGIN,
            "chain_id": CHAIN_ID,
            "issued_at": written(self.now),
        }
        if "nonce" not in changes:
            changes["nonce"] = self.sessions.nonce()[0]
        return SignIn(**usual | changes)

    def open(self, key: Key, **changes: Any) -> str:
        text = self.message(key.address, **changes).text()
        return self.sessions.open(text, key.sign_text(text))[0]


@pytest.fixture
def door(world: World, database: Target) -> Iterator[Door]:
    made = Door(world, database)
    yield made
    made.engine.dispose()


@pytest.fixture
def narrow(world: World, tmp_path: Path) -> Iterator[Door]:
    """On SQLite only."""
    made = Door(world, tmp_path / "sessions.db")
    yield made
    made.engine.dispose()


def test_who_signs_is_known_until_the_session_ends(door: Door) -> None:
    key = door.world.consumer
    text = door.message(key.address).text()
    token, made = door.sessions.open(text, key.sign_text(text))
    assert (made.wallet, made.expires_at) == (key.address, BEGAN + SECONDS)
    for server in (door.sessions, door.another(ORIGIN)):
        assert server.find(token) == made
        door.now = BEGAN + SECONDS - 1
        assert server.find(token) == made
        door.now = BEGAN + SECONDS
        assert server.find(token) is None
        door.now = BEGAN
    for wrong in ("", token[:-1], token + "=", token.swapcase(), "é", "' OR 1=1"):
        assert door.sessions.find(wrong) is None


def test_a_session_ends_when_its_message_does(door: Door) -> None:
    token = door.open(door.world.consumer, expiration_time=written(BEGAN + 100))
    door.now += 99
    assert door.sessions.find(token) is not None
    door.now += 1
    assert door.sessions.find(token) is None


def test_signing_out_ends_one_session_and_no_other(door: Door) -> None:
    first, second = door.open(door.world.consumer), door.open(door.world.consumer)
    assert first != second
    assert door.sessions.find(first)
    door.sessions.close(first)
    assert (door.sessions.find(first), door.another(ORIGIN).find(first)) == (None, None)
    assert door.sessions.find(second) is not None
    door.sessions.close(first)


def test_a_request_that_comes_while_its_session_is_signed_out_does_not_keep_it(door: Door) -> None:
    token = door.open(door.world.consumer)
    asked: list[object] = []

    @event.listens_for(door.engine, "before_cursor_execute")
    def meanwhile(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("DELETE FROM sessions"):
            asked.append(door.sessions.find(token))

    door.sessions.close(token)
    assert len(asked) == 1
    assert door.sessions.find(token) is None


def test_what_a_session_is_known_by_is_not_in_the_database(narrow: Door, tmp_path: Path) -> None:
    token = narrow.open(narrow.world.consumer)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("sessions.db*"))
    assert hashlib.sha256(token.encode()).digest() in stored
    assert token.encode() not in stored


def test_what_has_ended_is_cleared_away(door: Door) -> None:
    for _ in range(3):
        door.open(door.world.consumer)
        door.sessions.nonce()
    door.now += SECONDS
    door.sessions.nonce()
    with door.engine.connect() as connection:
        left = [connection.execute(select(func.count()).select_from(t)).scalar() for t in module.metadata.sorted_tables]
    assert sorted(left, key=str) == [0, 1]


def test_a_nonce_is_used_once(door: Door) -> None:
    key = door.world.consumer
    text = door.message(key.address).text()
    door.sessions.open(text, key.sign_text(text))
    for server in (door.sessions, door.another(ORIGIN)):
        with pytest.raises(NotSignedIn):
            server.open(text, key.sign_text(text))
    other = Key.named("stranger")
    stolen = SignIn.parse(text)
    again = replace(stolen, address=other.address).text()
    with pytest.raises(NotSignedIn):
        door.sessions.open(again, other.sign_text(again))


def test_a_nonce_never_given_too_old_or_of_another_server_is_refused(door: Door, tmp_path: Path) -> None:
    key = door.world.consumer
    elsewhere = Door(door.world, tmp_path / "elsewhere.db")
    foreign = elsewhere.sessions.nonce()[0]
    elsewhere.engine.dispose()
    for nonce in ("A" * 20, "12345678", foreign):
        with pytest.raises(NotSignedIn):
            door.open(key, nonce=nonce)
    nonce, until = door.sessions.nonce()
    assert until == door.now + NONCE_SECONDS
    door.now = until
    with pytest.raises(NotSignedIn):
        door.open(key, nonce=nonce)


def test_who_asks_for_many_nonces_keeps_nobody_out(door: Door) -> None:
    """As many as there may be are open, and none of them is ever used; the newest stay."""
    key, table = door.world.consumer, module.nonces
    with writing(door.engine) as connection:
        rows = [{"nonce": f"{n:020}", "expires_at": BEGAN + NONCE_SECONDS - 1} for n in range(MOST_NONCES)]
        connection.execute(insert(table), rows)
    for _ in range(3):
        assert door.sessions.find(door.open(key))
    mine = [door.sessions.nonce()[0] for _ in range(3)]
    with door.engine.connect() as connection:
        there = set(connection.execute(select(table.c.nonce)).scalars())
    assert len(there) == MOST_NONCES
    assert there.issuperset(mine)


@pytest.mark.parametrize(
    "change",
    [
        {"domain": "evil.example"},
        {"uri": "https://evil.example"},
        {"uri": "http://ledger.example"},
        {"scheme": "http"},
        {"version": "2"},
        {"chain_id": 1},
        {"issued_at": written(BEGAN + siwe.SKEW + 1)},
        {"issued_at": written(BEGAN - siwe.MAX_AGE - 1)},
        {"expiration_time": written(BEGAN)},
        {"not_before": written(BEGAN + 1)},
    ],
)
def test_a_message_for_another_server_or_time_signs_nobody_in(narrow: Door, change: dict[str, Any]) -> None:
    with pytest.raises(InputInvalid):
        narrow.open(narrow.world.consumer, **change)


def test_a_signature_of_another_key_or_form_signs_nobody_in(narrow: Door) -> None:
    key = narrow.world.consumer
    text = narrow.message(key.address).text()
    good = key.sign_text(text)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    r, s, v = good[2:66], int(good[66:130], 16), int(good[130:], 16)
    high = f"0x{r}{order - s:064x}{55 - v:02x}"
    compact = f"0x{r}{s | (v - 27) << 255:064x}"  # EIP-2098
    other = narrow.world.stranger.sign_text(text)
    of_another_text = key.sign_text(text + " ")
    zeros, ones = "0x" + "00" * 64 + "1b", "0x" + "ff" * 64 + "1b"
    forms = [high, compact, other, of_another_text, zeros, ones, "0x", good + "00", f"{good[:-2]}00", f"{good[:-2]}1d"]
    for signature in (*forms, "0x" + "ab" * 9000):
        with pytest.raises(NotSignedIn):
            narrow.sessions.open(text, signature)
    for malformed in ("", "0x1", "text", good[2:], good + "0", good + "\n", " " + good):
        with pytest.raises(InputInvalid):
            narrow.sessions.open(text, malformed)
    assert narrow.sessions.find(narrow.sessions.open(text, good)[0])


MAGIC = "63 1626ba7e 60e0 1b 5f 52"  # memory[0:32] = 0x1626ba7e and 28 zero bytes
WALLETS = {  # in opcodes: the code is what the wallet says to every signature
    "no": "63 ffffffff 60e0 1b 5f 52 6020 5f f3",
    "zero": "6020 5f f3",
    "one": "6001 5f 52 6020 5f f3",
    "nothing": "00",
    "short": f"{MAGIC} 6004 5f f3",
    "long": f"{MAGIC} 6040 5f f3",
    "very long": f"{MAGIC} 62030d40 5f f3",
    "more than memory": f"{MAGIC} 67ffffffffffffffff 5f f3",
    "unclean": "63 1626ba7e 60e0 1b 6001 17 5f 52 6020 5f f3",
    "at the other end": "63 1626ba7e 5f 52 6020 5f f3",
    "burns": "5b 5f 56",
    "reverts": "5f 5f fd",
    "reverts with yes": f"{MAGIC} 6020 5f fd",
    "invalid": "fe",
    "echoes": "36 5f 5f 37 36 5f f3",
}
YES = f"{MAGIC} 6020 5f f3"
# Yes to the right call only: selector, digest, offset and length of the signature as EIP-1271 encodes them.
ASKS = "6044 35 6003 14 6024 35 6040 14 16 5f 35 60e0 1c 63 1626ba7e 14 16 60e0 1b 63 1626ba7e 02 5f 52 6020 5f f3"


def install(world: World, wallet: Address, code: str) -> None:
    world.chain.rpc("anvil_setCode", wallet, "0x" + code.replace(" ", ""))


def test_a_contract_wallet_signs_in_by_its_own_word(door: Door) -> None:
    wallet = Address("0x" + "c0" * 20)
    for code in (YES, ASKS):
        install(door.world, wallet, code)
        token, made = door.sessions.open(door.message(wallet).text(), "0x112233")
        assert made.wallet == wallet
        assert door.sessions.find(token) == made
    with pytest.raises(NotSignedIn):
        door.sessions.open(door.message(wallet).text(), "0x1122")


@pytest.mark.parametrize("answer", WALLETS)
def test_a_contract_wallet_that_does_not_say_yes_in_its_one_form_does_not(narrow: Door, answer: str) -> None:
    wallet = Address("0x" + "c1" * 20)
    install(narrow.world, wallet, WALLETS[answer])
    text = narrow.message(wallet).text()
    for signature in ("0x", "0x112233", narrow.world.consumer.sign_text(text)):
        with pytest.raises(NotSignedIn):
            narrow.sessions.open(text, signature)


@pytest.mark.parametrize("number", [*range(1, 11), 0x100, 0xDEAD])
def test_an_address_that_is_no_wallet_signs_nobody_in(narrow: Door, number: int) -> None:
    """Precompiled contracts answer everything; where there is no code, there is no answer."""
    wallet = Address(f"0x{number:040x}")
    text = narrow.message(wallet).text()
    for signature in ("0x", "0x" + "11" * 65):
        with pytest.raises(NotSignedIn):
            narrow.sessions.open(text, signature)


# ------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture
def client(running: Exchange) -> Iterator[httpx.Client]:
    """Nobody."""
    with api(running) as made:
        yield made


def test_a_session_over_http(client: httpx.Client, running: Exchange) -> None:
    assert client.get("/v1/session").status_code == 401
    assert client.get("/v1/session").headers["www-authenticate"] == "Bearer"
    bearer = sign_in(client, running.world.consumer)
    found = client.get("/v1/session", headers=bearer)
    assert found.json()["wallet"] == running.world.consumer.address
    assert client.get("/v1/session", headers={"Authorization": bearer["Authorization"].lower()}).status_code == 401
    token = bearer["Authorization"].split()[1]
    assert client.get("/v1/session", headers={"authorization": f"bearer  {token}"}).status_code == 200
    for wrong in (b"Bearer", f"Basic {token}".encode(), token.encode(), f"Bearer {token}x".encode(), b"Bearer \xe9"):
        refused = client.get("/v1/session", headers=[(b"Authorization", wrong)])
        assert refused.status_code == 401, wrong
    assert client.get("/v1/session", params={"access_token": token, "token": token}).status_code == 401
    assert client.get("/v1/session", headers={"Cookie": f"token={token}"}).status_code == 401
    assert client.delete("/v1/session", headers=bearer).status_code == 204
    assert client.get("/v1/session", headers=bearer).status_code == 401
    assert client.delete("/v1/session", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"message": 5, "signature": "0x"}',
        b'{"message": "text", "signature": "0x"}',
        b'{"message": "\\ud800", "signature": "0x"}',
        b'{"message": "' + b"x" * 5000 + b'", "signature": "0x"}',
        b'{"message": "", "signature": "0x' + b"00" * 11_000 + b'"}',
    ],
)
def test_a_malformed_sign_in_is_a_problem_in_words(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/session", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid")


def test_no_line_of_the_log_has_what_is_secret(
    running: Exchange, capsys: pytest.CaptureFixture[str], terms: AuthorizationTerms
) -> None:
    top = logging.getLogger("sluice")
    before = top.handlers, top.propagate, top.level
    log_json("DEBUG")
    try:
        with api(running) as client:
            key = running.world.consumer
            origin = str(client.base_url).rstrip("/")
            nonce = client.post("/v1/session/nonce").json()["nonce"]
            message = SignIn(
                domain=origin.split("//")[1],
                address=key.address,
                uri=origin,
                chain_id=CHAIN_ID,
                nonce=nonce,
                issued_at=written(time.time()),
            ).text()
            signature = key.sign_text(message)
            token = client.post("/v1/session", json={"message": message, "signature": signature}).json()["token"]
            assert client.post("/v1/session", json={"message": message, "signature": signature}).status_code == 401
            bearer = {"Authorization": f"Bearer {token}"}
            uses = client.get("/v1/uses", params={"authorization": running.world.id(terms)}, headers=bearer)
            assert uses.status_code == 200
            client.get(f"/v1/nothing/{token}", params={"token": token}, headers=bearer)
            client.request(token.upper()[:20], "/v1/spaces", headers=bearer)
            hook = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/hook-of-mine"}, headers=bearer).json()
            client.post(f"/v1/webhooks/{hook['webhook']}/replay", json={"after": None}, headers=bearer)
            deadline = time.monotonic() + 20
            while client.get("/v1/webhooks", headers=bearer).json()[0]["status"] != "retrying":
                assert time.monotonic() < deadline
            client.delete("/v1/session", headers=bearer)
    finally:
        top.handlers, top.propagate = before[:2]
        top.setLevel(before[2])
    said = capsys.readouterr().err
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"/v1/session", "/v1/uses", "/v1/webhooks", "other"} <= {line.get("route") for line in lines}
    assert any(line.get("signedIn") for line in lines)
    assert any(line["logger"] == "sluice.webhooks" for line in lines)
    secrets = (token, token.upper()[:20], nonce, signature, signature[2:], hook["secret"], "hook-of-mine")
    assert [secret for secret in secrets if secret in said] == []


# ------------------------------------------------------------------------------------------- private


@pytest.fixture
def terms(running: Exchange) -> AuthorizationTerms:
    """With uses, and a settlement of them."""
    made = running.open()
    consumer = running.consumer(made)
    for _ in range(3):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    running.settle(made, consumer.sign_head())
    running.follow()
    return made


AUDITOR, SUSPENDED, FOREIGN, AGENT = (Key.named(name) for name in ("auditor", "suspended", "foreign auditor", "agent"))


def admit(world: World, operator: Key, space: Hash32, who: Key, *roles: str) -> None:
    bits = codes.bits("roles", list(roles))
    world.send(operator, "participant.admit", space=space, wallet=who.address, roles=bits, digest=digest("who"))


@pytest.fixture
def elsewhere(running: Exchange) -> Iterator[Hash32]:
    """Another space, operated by the stranger, with the same parties and an auditor of its own."""
    world = running.world
    for who, role in ((AUDITOR, "auditor"), (SUSPENDED, "auditor"), (AGENT, "metering_agent")):
        admit(world, world.operator, world.space, who, role)
    suspended = {"space": world.space, "wallet": SUSPENDED.address, "reason": 100}
    world.send(world.operator, "participant.suspend", **suspended)
    salt = {"salt": digest("elsewhere"), "policyDigest": digest("rules"), "codeLists": codes.digest()}
    world.send(world.stranger, "space.create", **salt)
    running.follow()
    with api(running) as client:
        (space,) = (s["space"] for s in client.get("/v1/spaces").json()["items"] if s["space"] != world.space)
    here = world.space
    admit(world, world.stranger, space, world.provider, "provider")
    admit(world, world.stranger, space, world.consumer, "consumer")
    admit(world, world.stranger, space, FOREIGN, "auditor")
    running.follow()
    yield space
    world.space = here


def private_paths(running: Exchange, terms: AuthorizationTerms) -> dict[str, dict[str, str]]:
    id_ = running.world.id(terms)
    month = datetime.fromtimestamp(running.clock(), SHANGHAI).strftime("%Y-%m")
    return {
        "/v1/uses": {"authorization": id_},
        "/v1/heads": {"authorization": id_},
        f"/v1/bills/{id_}": {},
        "/v1/aggregates/purposes": {"authorization": id_},
        f"/v1/statements/{terms.consumer}": {"month": month},
    }


def test_what_is_private_is_for_those_concerned(
    running: Exchange, terms: AuthorizationTerms, elsewhere: Hash32
) -> None:
    world = running.world
    paths = private_paths(running, terms)
    allowed = (world.provider, world.consumer, world.operator, AUDITOR)
    refused = (world.stranger, world.holder, FOREIGN, SUSPENDED)
    with api(running) as client:
        for path, query in paths.items():
            for form in ("json", "csv", "jsonl"):
                asked = query if path.startswith(("/v1/bills", "/v1/statements")) else query | {"format": form}
                statement = path.startswith("/v1/statements")
                for _ in range(2):  # what is kept of the first answer is not told to the next reader
                    answers = {who: client.get(path, params=asked, headers=sign_in(client, who)) for who in allowed}
                    anonymous = client.get(path, params=asked)
                    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "not_signed_in"), path
                    for who, answer in answers.items():
                        # A statement is its party's; of others' an operator or auditor sees what is of its spaces.
                        expected = 403 if statement and who == world.provider else 200
                        assert answer.status_code == expected, (path, who, answer.text)
                        assert "private" in answer.headers.get("cache-control", "private")
                        assert answer.status_code != 200 or answer.headers["cache-control"] == "private, no-cache"
                    for who in refused:
                        answer = client.get(path, params=asked, headers=sign_in(client, who))
                        if statement and who in (world.stranger, FOREIGN):
                            assert answer.json()["lines"] == [], path  # nothing of it is of their space
                            continue
                        assert (answer.status_code, answer.json()["code"]) == (403, "refused"), (path, answer.text)
        etag = client.get("/v1/uses", params=paths["/v1/uses"], headers=sign_in(client, world.consumer)).headers["etag"]
        for who, status in ((world.consumer, 304), (world.stranger, 403)):
            headers = sign_in(client, who) | {"If-None-Match": etag}
            assert client.get("/v1/uses", params=paths["/v1/uses"], headers=headers).status_code == status
        assert client.get("/v1/uses", params=paths["/v1/uses"], headers={"If-None-Match": etag}).status_code == 401
    assert elsewhere


def test_what_was_so_earlier_is_as_private(running: Exchange, terms: AuthorizationTerms, elsewhere: Hash32) -> None:
    """Also where a reply to a question as of a final block would be kept for ever."""
    world = running.world
    with running.mirror.connect() as connection:
        block = queries.cursor(connection).number
    world.chain.rpc("anvil_mine", hex(80))
    running.follow()
    with api(running) as client:
        for path, query in private_paths(running, terms).items():
            asked = query | {"at_block": str(block)}
            found = client.get(path, params=asked, headers=sign_in(client, world.consumer))
            assert (found.status_code, found.headers["cache-control"]) == (200, "private, no-cache"), path
            assert client.get(path, params=asked).status_code == 401
            if not path.startswith("/v1/statements"):
                assert client.get(path, params=asked, headers=sign_in(client, FOREIGN)).status_code == 403
    assert elsewhere


def test_a_suspended_auditor_sees_again_when_it_is_reinstated(
    running: Exchange, terms: AuthorizationTerms, elsewhere: Hash32
) -> None:
    world, path = running.world, "/v1/uses"
    query = private_paths(running, terms)[path]
    with api(running) as client:
        bearer = sign_in(client, SUSPENDED)
        assert client.get(path, params=query, headers=bearer).status_code == 403
        world.send(world.operator, "participant.reinstate", space=world.space, wallet=SUSPENDED.address)
        running.follow()
        assert client.get(path, params=query, headers=bearer).status_code == 200
        world.send(world.operator, "participant.suspend", space=world.space, wallet=SUSPENDED.address, reason=100)
        running.follow()
        assert client.get(path, params=query, headers=bearer).status_code == 403
    assert elsewhere


def test_a_metering_agent_sees_what_it_meters(running: Exchange, elsewhere: Hash32) -> None:
    terms = running.open(metering_agent=AGENT.address)
    consumer = running.consumer(terms)
    for _ in range(3):
        consumer.use(running.version, "RESEARCH", {"limit": "5"})
    other = running.open()
    paths = private_paths(running, terms)
    with api(running) as client:
        bearer = sign_in(client, AGENT)
        for path in ("/v1/uses", "/v1/heads", "/v1/aggregates/purposes"):
            assert client.get(path, params=paths[path], headers=bearer).status_code == 200
            foreign = private_paths(running, other)[path]
            assert client.get(path, params=foreign, headers=bearer).status_code == 403
        mine = client.get("/v1/aggregates/purposes", headers=bearer).json()["items"]
        assert [(row["purpose"], row["uses"]) for row in mine] == [("RESEARCH", 3)]
        assert client.get("/v1/aggregates/purposes", headers=sign_in(client, FOREIGN)).json()["items"] == []
    assert elsewhere


def test_a_statement_of_another_shows_what_is_of_ones_spaces(
    running: Exchange, terms: AuthorizationTerms, elsewhere: Hash32
) -> None:
    world = running.world
    before = world.space, world.product, world.version
    world.space = elsewhere
    world.product, world.version = world.publish("elsewhere", b"time,value\n")
    theirs = running.open()
    world.settle(theirs, 3, (3, 72, 0, 0))
    world.space, world.product, world.version = before
    running.follow()
    (path, query), *_ = ((p, q) for p, q in private_paths(running, terms).items() if "statements" in p)
    here, there = {world.id(terms)}, {world.id(theirs)}
    with api(running) as client:
        for who, seen in (
            (world.consumer, here | there),
            (world.operator, here),
            (AUDITOR, here),
            (world.stranger, there),
            (FOREIGN, there),
        ):
            found = client.get(path, params=query, headers=sign_in(client, who)).json()
            assert {line["authorization"] for line in found["lines"]} == seen, who
            assert found["shares"] == [] or who == world.consumer
        assert client.get(path, params=query, headers=sign_in(client, world.provider)).status_code == 403


# --------------------------------------------------------------------------------------------- limits


def test_who_asks_too_often_is_told_when_to_come_again(running: Exchange) -> None:
    with api(running, rate=0.5) as client:  # two tokens at once
        answers = [client.get("/v1/codes") for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 429, 429]
        refused = answers[2]
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("too_many_requests", "2")
        assert refused.headers["content-type"] == "application/problem+json"
        for path in ("/health/live", "/health/ready"):
            assert [client.get(path).status_code for _ in range(20)] == [200] * 20
        assert client.get("/v1/codes").status_code == 429


def limited(rate: float, clock: Callable[[], float]) -> Limits:
    return Limits(None, None, rate, clock)  # type: ignore[arg-type]


async def ask(
    limits: Limits, path: str, method: str = "GET", raw: str | None = None, token: str = "", host: str = "192.0.2.1"
) -> int:
    """The status of one request, 200 where it is let through."""
    status: list[int] = []

    async def send(message: Any) -> None:
        status.append(message.get("status", 0))

    async def app(*_: Any) -> None:
        status.append(200)

    limits._app = app
    scope = {"type": "http", "method": method, "path": path, "raw_path": (raw or path).encode()}
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    await limits(scope | {"headers": headers, "client": (host, 1)}, None, send)  # type: ignore[arg-type]
    return status[0]


@pytest.mark.parametrize(
    ("method", "path", "raw", "cost"),
    [
        ("GET", "/v1/spaces", None, 1),
        ("GET", "/v1/events", None, 3),
        ("GET", "/v1/aggregates/usage", None, 10),
        ("GET", "/v1/aggregates/usage", "/v1/%61ggregates/usage", 10),
        ("POST", "/v1/session/nonce", "/v1/sessio%6e/nonce", 10),
        ("POST", "/v1/webhooks", None, 20),
        ("GET", "/v1/webhooks", None, 1),
    ],
)
def test_what_costs_more_takes_more_however_it_is_written(method: str, path: str, raw: str | None, cost: int) -> None:
    limits = limited(15, lambda: 0.0)
    answers = [anyio.run(ask, limits, path, method, raw) for _ in range(15 * BURST // cost + 1)]
    assert answers == [200] * (len(answers) - 1) + [429]


def test_a_reader_is_its_wallet_if_it_signed_in_else_its_address(narrow: Door) -> None:
    first, again, second = (narrow.open(Key.named(name)) for name in ("consumer", "consumer", "provider"))
    limits = Limits(None, narrow.sessions, 1, lambda: 0.0)  # type: ignore[arg-type]

    def asked(**options: str) -> list[int]:
        return [anyio.run(partial(ask, limits, "/v1/spaces", **options)) for _ in range(BURST + 1)]

    let_through = [200] * BURST + [429]
    assert asked() == let_through
    assert asked(host="192.0.2.2") == let_through
    assert asked(token=first) == let_through
    assert asked(token=second) == let_through
    # The same wallet from elsewhere, or with another session; and who says it is somebody, but is not.
    for known in ({"token": first, "host": "192.0.2.3"}, {"token": again}, {"token": "nobody"}):
        assert asked(**known) == [429] * (BURST + 1)


def test_a_reader_gets_new_tokens_at_the_rate() -> None:
    now = [0.0]
    limits = limited(2, lambda: now[0])
    for began in (0, 1000):
        now[0] = began
        assert [anyio.run(ask, limits, "/v1/spaces") for _ in range(2 * BURST + 1)] == [200] * 2 * BURST + [429]
        for n in range(1, 5):
            now[0] = began + n / 2
            assert [anyio.run(ask, limits, "/v1/spaces") for _ in range(2)] == [200, 429]


def test_x_forwarded_for_names_the_reader_only_where_the_operator_says_so(world: World, tmp_path: Path) -> None:
    """The server as it is started: its own process."""
    (tmp_path / "deployment.json").write_text(json.dumps(world.deployment.as_json()))
    arguments = ["--home", str(tmp_path), "--rpc", world.chain.url, "--port", "0", "--json", "--rate", "0.25", "--log"]
    for options, expected in (([], [200, 429, 429]), (["--proxy"], [200, 200, 200])):
        command = [sys.executable, "-m", "api", *arguments, *options]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = json.loads(process.stdout.readline())["url"]
                for path in ("/health/live", "/health/live"):
                    assert httpx.get(url + path).status_code == 200
                asked = [
                    httpx.get(
                        f"{url}/v1/codes", headers={"X-Forwarded-For": f"192.0.2.{n}", "Authorization": "Bearer me"}
                    )
                    for n in range(3)
                ]
                assert [answer.status_code for answer in asked] == expected
            finally:
                process.terminate()
                _, said = process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert [line["status"] for line in lines if line.get("message", "").startswith("GET ")][2:] == expected
        assert "192.0.2." not in said
        assert "Bearer" not in said
