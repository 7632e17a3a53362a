"""Deliveries as others read them: CloudEvents 1.0, Standard Webhooks, and receivers that check both."""

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from ledger.core.errors import VerificationFailed
from ledger.mirror import journal
from ledger.mirror.journal import BEGINNING, Offset, Told
from ledger.webhooks.cloudevents import MEDIA_TYPE, cloud_event, event_json, headers, numbers_as_text, verify
from tests.ledger.webhooks.conftest import Post
from tests.ledger.webhooks.receivers import Receiver

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
AT = 1_700_000_000


def everything(mirror: Engine) -> list[Told]:
    with mirror.connect() as connection:
        return journal.read(connection, BEGINNING, 1000).events


def test_an_event_has_every_attribute_a_cloudevent_must_have(told: Engine) -> None:
    found = everything(told)
    assert len(found) > 5
    for one in found:
        event = cloud_event(one, 31337)
        assert event["specversion"] == "1.0"
        for name in ("id", "source", "type", "subject"):
            assert isinstance(event[name], str)
            assert event[name]
        assert event["source"] == f"/chains/31337/{one.row['address']}"
        assert not urlsplit(event["source"]).scheme
        assert event["type"] == f"sluice.{one.row['contract']}.{one.row['event']}"
        assert event["id"] == str(one.offset) == event["data"]["offset"]
        assert datetime.fromisoformat(event["time"]) == datetime.fromtimestamp(one.row["timestamp"], UTC)
        assert event["datacontenttype"] == "application/json"
        assert all(re.fullmatch(r"[a-z0-9]+", name) for name in event)  # CloudEvents 1.0, 3.1
    sources = {(cloud_event(one, 31337)["source"], cloud_event(one, 31337)["id"]) for one in found}
    assert len(sources) == len(found)


def test_a_retraction_is_an_event_of_another_type_with_the_same_data(told: Engine) -> None:
    one = everything(told)[0]
    later = Told(Offset(9, 1, one.offset.mark), True, one.row)
    event, back = cloud_event(one, 1), cloud_event(later, 1)
    assert back["type"] == event["type"] + ".retracted"
    assert (back["data"]["retracted"], event["data"]["retracted"]) == (True, False)
    assert back["id"] != event["id"]
    told_again = back["data"] | {"offset": str(one.offset), "retracted": False}
    assert told_again == event["data"] == event_json(one)


def test_numbers_of_an_event_are_text_and_everything_else_is_as_it_was() -> None:
    value = {"a": 2**256 - 1, "b": [1, {"c": -5}], "d": True, "e": "text", "f": None, "g": [False, []]}
    expected = {"a": str(2**256 - 1), "b": ["1", {"c": "-5"}], "d": True, "e": "text", "f": None, "g": [False, []]}
    assert numbers_as_text(value) == expected


def test_the_id_and_the_body_are_the_same_at_every_delivery(post: Post, receiver: Receiver) -> None:
    receiver.always(503)
    made, deliverer = post.register(receiver.url), post.deliverer()
    for _ in range(3):
        post.work(deliverer)
        post.clock.now += 60
    assert len({d.headers["webhook-id"] for d in receiver.deliveries}) == 1
    assert len({d.body for d in receiver.deliveries}) == 1
    times = [int(d.headers["webhook-timestamp"]) for d in receiver.deliveries]
    assert times == [AT, AT + 60, AT + 120]
    for delivery, at in zip(receiver.deliveries, times, strict=True):
        assert delivery.headers["content-type"] == MEDIA_TYPE
        verify(made["secret"], delivery.headers, delivery.body, at)


@given(st.binary(max_size=300), st.text("0123456789abcdef-", min_size=1, max_size=40), st.integers(1, 2**34))
def test_the_signature_is_that_of_standard_webhooks(body: bytes, identity: str, at: int) -> None:
    """Written here a second time, from the specification."""
    made = headers(SECRET, identity, at, body)
    signed = identity.encode() + b"." + str(at).encode() + b"." + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert made["webhook-signature"] == f"v1,{expected}"
    assert (made["webhook-id"], made["webhook-timestamp"]) == (identity, str(at))
    verify(SECRET, made, body, at)


def test_the_example_of_standard_webhooks_verifies() -> None:
    """The test vector of its reference libraries."""
    body = b'{"test": 2432232314}'
    given_headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", given_headers, body, 1614265330)


def test_a_receiver_takes_what_is_signed_now_with_its_secret() -> None:
    made = headers(SECRET, "1-1-0123456789abcdef", AT, b"{}")
    for now in (AT - 300, AT, AT + 300):
        verify(SECRET, made, b"{}", now)
    several = made | {"webhook-signature": f"v1a,AAAA v1,AAAA {made['webhook-signature']} v2,BBBB"}
    verify(SECRET, several, b"{}", AT)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "2-1-0123456789abcdef"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(AT + 1)},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": f"+{AT}"},
        {"webhook-timestamp": f" {AT}"},
        {"webhook-timestamp": f"{AT}.0"},
        {"webhook-timestamp": "²"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": "-1"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v1,\udcff"},
        {"webhook-signature": "v1,AAAA"},
    ],
)
def test_what_is_not_so_signed_is_refused(change: dict[str, str]) -> None:
    made = headers(SECRET, "1-1-0123456789abcdef", AT, b"{}")
    with pytest.raises(VerificationFailed):
        verify(SECRET, made | change, b"{}", AT)
    with pytest.raises(VerificationFailed):
        verify(SECRET, {name: value for name, value in made.items() if name not in change}, b"{}", AT)


def test_another_scheme_secret_body_or_time_is_refused() -> None:
    made = headers(SECRET, "1-1-0123456789abcdef", AT, b"{}")
    other = "whsec_" + base64.b64encode(KEY[::-1]).decode()
    unnamed = made | {"webhook-signature": made["webhook-signature"].replace("v1,", "v2,")}
    for secret, sent, body, now in (
        (other, made, b"{}", AT),
        (SECRET, made, b"{ }", AT),
        (SECRET, made, b"", AT),
        (SECRET, made, b"{}", AT + 301),
        (SECRET, made, b"{}", AT - 301),
        (SECRET, unnamed, b"{}", AT),
    ):
        with pytest.raises(VerificationFailed):
            verify(secret, sent, body, now)
