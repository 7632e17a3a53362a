"""Messages of EIP-4361: one written form, and every deviation from it is refused."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.errors import InputInvalid
from ledger.core.ids import Address, checksum, parse_address
from ledger.core.siwe import MAX_AGE, SKEW, SignIn, personal_digest, seconds, written
from tests.world import Key

EXAMPLE = """\
example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""

MESSAGE = SignIn(
    domain="example.com",
    address=parse_address("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"),
    uri="https://example.com/login",
    chain_id=1,
    nonce="32891756",
    issued_at="2021-09-30T16:25:24Z",
)
ORIGIN: dict[str, Any] = {"domain": "example.com", "uri": "https://example.com", "chain_id": 1}
NOW = seconds(MESSAGE.issued_at)

DIGITS, LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNRESERVED, SUB_DELIMITERS = DIGITS + LETTERS + "-._~", "!$&'()*+,;="  # RFC 3986
RESERVED = ":/?#[]@" + SUB_DELIMITERS


def texts(alphabet: str, least: int = 1, most: int = 30) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1900, 1, 2), datetime(9998, 12, 30), timezones=st.one_of(st.just(UTC), OFFSETS))  # noqa: DTZ001
TIMES = st.builds(
    lambda moment, zulu: moment.isoformat().replace("+00:00", "Z" if zulu else "+00:00"), MOMENTS, st.booleans()
)
URIS = st.builds(lambda scheme, rest: f"{scheme}:{rest}", texts("abcdef", 1, 6), texts(RESERVED + UNRESERVED + "%"))
MESSAGES = st.builds(
    SignIn,
    scheme=st.none() | st.sampled_from(["https", "http", "a+b-1.c"]),
    domain=texts(UNRESERVED + SUB_DELIMITERS + "@[]:").filter(lambda text: "//" not in text),
    address=st.binary(min_size=20, max_size=20).map(lambda raw: Address("0x" + raw.hex())),
    statement=st.none() | texts(RESERVED + UNRESERVED + " "),
    uri=URIS,
    version=st.just("1"),
    chain_id=st.integers(1, 2**256 - 1),
    nonce=texts(DIGITS + LETTERS, 8, 64),
    issued_at=TIMES,
    expiration_time=st.none() | TIMES,
    not_before=st.none() | TIMES,
    request_id=st.none() | texts(UNRESERVED + SUB_DELIMITERS + ":@%", 0),
    resources=st.none() | st.lists(URIS, max_size=4).map(tuple),
)


@given(MESSAGES)
def test_what_is_written_is_read_and_written_the_same(message: SignIn) -> None:
    assert SignIn.parse(message.text()) == message
    assert SignIn.parse(message.text()).text() == message.text()


@given(st.text(max_size=200), st.integers(0, len(EXAMPLE)), st.integers(0, 3))
def test_what_is_read_at_all_is_written_the_same(inserted: str, at: int, left_out: int) -> None:
    text = EXAMPLE[:at] + inserted + EXAMPLE[at + left_out :]
    with suppress(InputInvalid):
        assert SignIn.parse(text).text() == text


def test_the_example_of_the_standard_is_read() -> None:
    found = SignIn.parse(EXAMPLE)
    assert found == replace(
        MESSAGE,
        statement="I accept the ExampleOrg Terms of Service: https://example.com/tos",
        resources=(
            "ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/",
            "https://example.com/my-web2-claim.json",
        ),
    )
    assert found.text() == EXAMPLE
    found.check(now=NOW, **ORIGIN)
    with_port = EXAMPLE.replace("example.com wants", "example.com:3388 wants")
    assert SignIn.parse(with_port).domain == "example.com:3388"
    with_scheme = "https://" + EXAMPLE
    assert (SignIn.parse(with_scheme).scheme, SignIn.parse(with_scheme).domain) == ("https", "example.com")


@pytest.mark.parametrize(
    ("this", "instead"),
    [
        ("example.com wants", "wants"),
        ("example.com wants", " wants"),
        ("example.com wants", "example.com  wants"),
        ("example.com wants", "://example.com wants"),
        ("example.com wants", "1https://example.com wants"),
        ("example.com wants", "https:/example.com wants"),
        ("example.com wants", "example.com/login wants"),
        ("example.com wants", "exämple.com wants"),
        ("example.com wants", "example.com\u200b wants"),
        ("wants you", "wanted you"),
        ("account:\n", "account:"),
        ("account:\n", "account:\n\n"),
        ("account:\n", "account:\r\n"),
        ("account:\n", "account: \n"),
        ("0xC02aaA", "0xc02aaA"),
        ("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"),
        ("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "0XC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"),
        ("C756Cc2\n", "C756Cc\n"),
        ("C756Cc2\n", "C756Cc2 \n"),
        ("C756Cc2\n\n", "C756Cc2\n"),
        ("C756Cc2\n\n", "C756Cc2\n\n\n"),
        ("I accept", "I\naccept"),
        ("I accept", "I\raccept"),
        ("I accept", "I\u2028accept"),
        ("I accept", "I\taccept"),
        ("I accept", "I \u202eaccept"),
        ("I accept", "I \x00accept"),
        ("I accept", "I accept äccept"),
        ("I accept", 'I "accept"'),
        ("tos\n\n", "tos\n"),
        ("tos\n\n", "tos\n\n\n"),
        ("URI: ", "URI:"),
        ("URI: ", "Uri: "),
        ("URI: ", "URI:  "),
        ("URI: https://example.com/login", "URI: "),
        ("example.com/login", "example.com/log in"),
        ("example.com/login", "example.com/login\u00a0"),
        ("example.com/login", "example.com/登录"),
        ("example.com/login", "example.com/\x00"),
        ("example.com/login", "example.com/<login>"),
        ("Version: 1\n", ""),
        ("Version: 1\n", "Version: 1\nVersion: 1\n"),
        ("Version: 1\nChain ID: 1\n", "Chain ID: 1\nVersion: 1\n"),
        ("Chain ID: 1", "Chain ID: 01"),
        ("Chain ID: 1", "Chain ID: 0"),
        ("Chain ID: 1", "Chain ID: -1"),
        ("Chain ID: 1", "Chain ID: 0x1"),
        ("Chain ID: 1", "Chain ID: ١"),
        ("Chain ID: 1", "Chain ID: " + "1" * 79),
        ("Nonce: 32891756", "Nonce: 3289175"),
        ("Nonce: 32891756", "Nonce: 3289175-"),
        ("Nonce: 32891756", "Nonce: 3289175é"),
        ("Nonce: 32891756", "Nonce: " + "3" * 65),
        ("T16:25:24Z", " 16:25:24Z"),
        ("T16:25:24Z", "T16:25:24"),
        ("T16:25:24Z", "T16:25Z"),
        ("T16:25:24Z", "T16:25:24,5Z"),
        ("T16:25:24Z", "T24:00:00Z"),
        ("T16:25:24Z", "T16:25:60Z"),
        ("T16:25:24Z", "T16:25:24+24:00"),
        ("T16:25:24Z", "T16:25:24+00:60"),
        ("T16:25:24Z", "T16:25:24+0000"),
        ("2021-09-30", "2021-02-30"),
        ("2021-09-30", "20210930"),
        ("2021-09-30", "0000-09-30"),
        ("2021-09-30", "+2021-09-30"),
        ("24Z\n", "24Z\nExpiration Time: soon\n"),
        ("24Z\n", "24Z\nNot Before: \n"),
        ("24Z\n", "24Z\nNot Before: 2021-09-30T16:25:24Z\nExpiration Time: 2022-09-30T16:25:24Z\n"),
        ("24Z\n", "24Z\nRequest ID: a b\n"),
        ("24Z\n", "24Z\nRequest ID: a/b\n"),
        ("24Z\n", "24Z\nRequest ID: a\nRequest ID: a\n"),
        ("24Z\n", "24Z\nAnything: else\n"),
        ("24Z\n", "24Z\n\n"),
        ("Resources:\n", "Resources: \n"),
        ("Resources:\n", "resources:\n"),
        ("- ipfs", "-ipfs"),
        ("- ipfs", "* ipfs"),
        ("- ipfs", " - ipfs"),
        ("claim.json", "claim.json\n"),
        ("claim.json", "claim.json\n-"),
        ("claim.json", "claim.json\n- "),
        ("claim.json", "claim.json\nmore"),
        ("claim.json", "claim json"),
        ("claim.json", "claim.json" * 500),
    ],
)
def test_every_deviation_from_the_form_is_refused(this: str, instead: str) -> None:
    assert EXAMPLE.count(this) >= 1
    with pytest.raises(InputInvalid):
        SignIn.parse(EXAMPLE.replace(this, instead, 1))


@pytest.mark.parametrize("text", ["", "\n", EXAMPLE[:-1] + "\n", " " + EXAMPLE, "\n" + EXAMPLE, EXAMPLE + EXAMPLE])
def test_text_that_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid):
        SignIn.parse(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"domain": "example.org"}, "is for example.org"),
        ({"domain": "example.com:443"}, "is for"),
        ({"domain": "example.com.evil.example"}, "is for"),
        ({"domain": "EXAMPLE.com"}, "is for"),
        ({"uri": "https://example.org"}, "is for"),
        ({"uri": "https://example.com.evil.example/"}, "is for"),
        ({"uri": "https://example.com@evil.example/"}, "is for"),
        ({"uri": "http://example.com/login"}, "is for"),
        ({"uri": "https://example.com:8443/"}, "is for"),
        ({"scheme": "http"}, "is for http"),
        ({"scheme": "https+x"}, "is for"),
        ({"version": "2"}, "version 2"),
        ({"chain_id": 2}, "chain 2"),
        ({"issued_at": written(NOW + SKEW + 1)}, "sign a new one"),
        ({"issued_at": written(NOW - MAX_AGE - 1)}, "sign a new one"),
        ({"expiration_time": written(NOW)}, "expired"),
        ({"expiration_time": written(NOW - 1)}, "expired"),
        ({"expiration_time": "2021-09-30T18:25:24+02:00"}, "expired"),
        ({"not_before": written(NOW + 1)}, "holds from"),
    ],
)
def test_a_message_for_another_server_chain_or_time_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputInvalid, match=words):
        replace(MESSAGE, **change).check(now=NOW, **ORIGIN)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"uri": "https://example.com"},
        {"scheme": "https"},
        {"issued_at": written(NOW + SKEW)},
        {"issued_at": written(NOW - MAX_AGE)},
        {"issued_at": "2021-10-01T00:25:24.5+08:00"},
        {"expiration_time": written(NOW + 1), "not_before": written(NOW)},
    ],
)
def test_a_message_for_this_server_and_time_is_taken(change: dict[str, Any]) -> None:
    replace(MESSAGE, **change).check(now=NOW, **ORIGIN)


@given(MESSAGES.map(SignIn.text))
def test_what_a_wallet_signs_is_the_text_after_eip_191(text: str) -> None:
    """Another library recovers the wallet from what a key made of the digest."""
    key = Key.named("consumer")
    found = Account.recover_message(encode_defunct(text=text), signature=key.sign_text(text))
    assert (found.lower(), found) == (key.address, checksum(key.address))
    assert len(personal_digest(text)) == 66


@pytest.mark.parametrize("at", [0, NOW, NOW + 0.9, 4_102_444_800])
def test_a_time_is_written_in_whole_seconds_and_read(at: float) -> None:
    assert seconds(written(at)) == int(at)
