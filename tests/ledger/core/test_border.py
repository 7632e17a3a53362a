"""Bad input gets a clear error at the border, and nothing else."""

import re
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from ledger.core import codes
from ledger.core.errors import InputInvalid
from ledger.core.hashing import KECCAK256, SHA256, SM3, content_digests
from ledger.core.ids import checksum, parse_address, parse_bytes, parse_hash
from ledger.core.money import currency_token, format_fen, format_yuan, parse_yuan, round_to_fen
from ledger.core.parse import load_json, parse_uint
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Split, Tier
from ledger.core.signing import is_signed_by, recover
from ledger.core.terms import Acceptance
from ledger.core.typed_data import Domain
from tests.world import Key

A = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1
HALF_ORDER = ORDER // 2


def test_addresses_are_kept_lower_and_shown_with_their_checksum() -> None:
    assert parse_address(A) == A.lower()
    assert checksum(parse_address(A)) == A
    assert parse_address("0x" + A[2:].upper()) == A.lower()


@pytest.mark.parametrize(
    "text", ["", "0x", A[:-1], A + "0", A[2:], "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", None, 7]
)
def test_an_address_that_is_none_is_refused(text: Any) -> None:
    with pytest.raises(InputInvalid, match="wallet"):
        parse_address(text, "wallet")


@pytest.mark.parametrize("text", ["", "0x" + "0" * 63, "0x" + "g" * 64, " 0x" + "0" * 64, "0x" + "0" * 64 + "\n", None])
def test_a_hash_that_is_none_is_refused(text: Any) -> None:
    with pytest.raises(InputInvalid):
        parse_hash(text)


@pytest.mark.parametrize("text", ["", "0", "0x0", "0xzz", "0X11", "11", "1111", "0x１１", "0x\ud800"])
@pytest.mark.parametrize("white", ["", " ", "\n", "\x00"])
def test_text_that_is_no_bytes_is_refused(text: str, white: str) -> None:
    for wrong in (text, f"{text}{white}", f"{white}{text}", f"0x{white or ' '}11", f"0x11{white or ' '}22"):
        with pytest.raises(InputInvalid):
            parse_bytes(wrong)


@pytest.mark.parametrize("text", ["0x0", "0x 11", "11", "0xzz", None, 1, b"0x11", [], {}, ["0x"], 1.5])
def test_bytes_that_are_none_are_refused(text: Any) -> None:
    with pytest.raises(InputInvalid):
        parse_bytes(text)
    with pytest.raises(InputInvalid, match="must be 3 bytes"):
        parse_bytes("0x1122", "salt", 3)


@given(st.text("0123456789abcdefABCDEFxX \n\t_g", max_size=12).map(lambda text: "0x" + text) | st.text(max_size=8))
def test_bytes_are_read_exactly_where_they_are_pairs_of_hex_digits(text: str) -> None:
    if re.fullmatch("0x([0-9a-fA-F]{2})*", text):
        assert "0x" + parse_bytes(text).hex() == text.lower()
    else:
        with pytest.raises(InputInvalid):
            parse_bytes(text)


@pytest.mark.parametrize("value", ["", "-1", "+1", "01", "1.0", "1e3", "²", "9" * 5000, 1.5, True, None, [], -1, 256])
def test_a_number_that_is_none_or_too_wide_is_refused(value: Any) -> None:
    with pytest.raises(InputInvalid, match="limit"):
        parse_uint(value, "limit", 8)


def test_numbers_are_read_from_text_and_int() -> None:
    assert (parse_uint("255", "n", 8), parse_uint(0, "n", 8)) == (255, 0)


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":1,"a":2}', b"[" * 100_000, b"\xff\xfe\x00"])
def test_json_that_is_none_is_refused_and_nothing_crashes(data: bytes) -> None:
    with pytest.raises(InputInvalid):
        load_json(data)


@pytest.mark.parametrize(("text", "uy"), [("12.50", 12_500_000), ("0.0028", 2_800), ("-1", -1_000_000), ("0", 0)])
def test_yuan_are_read_exactly(text: str, uy: int) -> None:
    assert parse_yuan(text, signed=True) == uy


@pytest.mark.parametrize("text", ["", "-1", "1,000", "1.0000001", "1e3", "¥5", "1.", ".5", "abc", "9" * 30])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid):
        parse_yuan(text)


@given(st.integers(-(10**20), 10**20))
def test_amounts_survive_being_shown(uy: int) -> None:
    assert parse_yuan(format_yuan(uy).replace(",", ""), signed=True) == uy


@pytest.mark.parametrize(("uy", "fen"), [(4_999, 0), (5_000, 1), (14_999, 1), (15_000, 2), (-5_000, -1), (0, 0)])
def test_fen_are_rounded_half_away_from_zero(uy: int, fen: int) -> None:
    assert round_to_fen(uy) == fen
    assert format_fen(123_456) == "1,234.56"


def test_a_currency_is_three_capitals() -> None:
    assert currency_token("CNY").endswith("434e59")
    with pytest.raises(InputInvalid):
        currency_token("yuan")


def test_sm3_and_the_others_are_those_of_their_standards() -> None:
    found = content_digests([b"a", b"bc"], [SM3, SHA256, KECCAK256])
    assert found[SM3].hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"  # GB/T 32905 A.1
    assert found[SHA256].hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert found[KECCAK256].hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"


def test_codes_have_bits_and_unknown_ones_are_named() -> None:
    assert codes.names("roles", codes.bits("roles", ["provider", "auditor"])) == ["PROVIDER", "AUDITOR"]
    assert codes.names("roles", 1 << 31) == ["bit 31"]
    assert codes.reason(4711).code == "REASON_4711"
    with pytest.raises(InputInvalid, match="RESEARCH"):
        codes.code("purposes", "FUN")


@pytest.mark.parametrize(
    "card",
    [
        {"token": A, "decimals": 6, "meters": []},
        {"token": A, "decimals": 256, "meters": [{"unitScale": "1", "freeUnits": "0", "tiers": []}]},
        {"token": A, "decimals": 6, "meters": [{"unitScale": 1.9, "freeUnits": "0", "tiers": []}]},
        {
            "token": A,
            "decimals": 6,
            "meters": [{"unitScale": "1", "freeUnits": "0", "tiers": [{"upTo": "5", "price": "1"}]}],
        },
        {"token": A, "decimals": 6},
        [],
    ],
)
def test_a_card_that_breaks_a_rule_is_refused(card: Any) -> None:
    with pytest.raises(InputInvalid):
        RateCard.from_json(card)


def test_bytes_that_are_no_card_or_split_are_refused() -> None:
    card = RateCard(parse_address(A), 6, (Meter(1, 0, (Tier(MAX_UNITS, 1),)),))
    for data in (b"", card.encode()[:-1], card.encode() + b"\0", b"\x02" + card.encode()[1:]):
        with pytest.raises(InputInvalid):
            RateCard.decode(data)
    for data in (b"", b"\x02\x01", b"\x02\x01" + b"\0" * 22):
        with pytest.raises(InputInvalid):
            Split.decode(data)


@pytest.mark.parametrize(
    "shares", [[], [(A, 9_999)], [(A, 5_000), (A, 5_000)], [("0x" + "00" * 20, 10_000)], [(A, 10_001)]]
)
def test_a_split_that_is_no_whole_is_refused(shares: Any) -> None:
    with pytest.raises(InputInvalid):
        Split.of([(parse_address(payee), bps) for payee, bps in shares])


@pytest.mark.parametrize("change", [{"reserve": "-1"}, {"reserve": str(2**128)}, {"more": 1}, {"deadline": None}])
def test_a_message_with_a_wrong_member_names_it(change: dict[str, Any]) -> None:
    data = {"authorizationId": "0x" + "11" * 32, "reserve": "1", "deadline": 1} | change
    with pytest.raises(InputInvalid) as caught:
        Acceptance.from_json(data)
    assert caught.value.details["field"] in change
    with pytest.raises(InputInvalid):
        Acceptance.from_json({"reserve": "1"})
    with pytest.raises(InputInvalid):
        Acceptance.from_json("text")


def test_a_value_out_of_range_is_never_hashed() -> None:
    wide = Acceptance(authorization_id=parse_hash("0x" + "11" * 32), reserve=2**128, deadline=1)
    with pytest.raises(InputInvalid):
        wide.struct_hash()


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "11" * 64, "0x" + "11" * 65, "0x" + "00" * 64 + "1b", "zz"])
def test_a_signature_in_another_form_is_refused(signature: str) -> None:
    with pytest.raises(InputInvalid):
        recover(parse_hash("0x" + "11" * 32), signature)


def test_a_high_s_signature_is_refused() -> None:
    key = Key.named("x")
    message = Acceptance(authorization_id=parse_hash("0x" + "11" * 32), reserve=1, deadline=1)
    domain = Domain(1, key.address)
    good = key.sign(message, domain)
    assert recover(message.digest(domain), good) == key.address
    high = f"{good[:66]}{ORDER - int(good[66:130], 16):064x}{'1c' if good[130:] == '1b' else '1b'}"
    with pytest.raises(InputInvalid, match="low s"):
        recover(message.digest(domain), high)


@pytest.mark.parametrize(
    ("r", "s", "v", "words"),
    [
        (1, HALF_ORDER + 1, "1b", "low s"),
        (1, ORDER, "1b", "low s"),
        (1, 2**256 - 1, "1b", "low s"),
        (1, 0, "1b", "low s"),
        (0, 1, "1b", "low s"),
        (ORDER, 1, "1b", "low s"),
        (2**256 - 1, 1, "1b", "low s"),
        (1, 1, "00", "1b or 1c"),
        (1, 1, "01", "1b or 1c"),
        (1, 1, "1a", "1b or 1c"),
        (1, 1, "1d", "1b or 1c"),
        (1, 1, "", "65 bytes"),
        (1, 1, "1b1b", "65 bytes"),
        (5, 1, "1b", "recovers to no key"),  # no point of the curve has this x
        (ORDER - 1, HALF_ORDER, "1b", "recovers to no key"),
    ],
)
def test_a_signature_has_one_form(r: int, s: int, v: str, words: str) -> None:
    signature = f"0x{r:064x}{s:064x}{v}"
    with pytest.raises(InputInvalid, match=words):
        recover(parse_hash("0x" + "11" * 32), signature)


@pytest.mark.parametrize(("r", "s"), [(1, 1), (1, HALF_ORDER)])
def test_the_ends_of_the_range_are_signatures(r: int, s: int) -> None:
    signature, digest = f"0x{r:064x}{s:064x}1b", "0x" + "11" * 32
    assert recover(parse_hash(digest), signature) == Account._recover_hash(digest, signature=signature).lower()


@pytest.mark.parametrize("digest", ["0x", "0x" + "11" * 31, "0x" + "11" * 33, "0x" + "zz" * 32])
def test_what_is_no_digest_was_signed_by_nobody(digest: Any) -> None:
    with pytest.raises(InputInvalid, match="recovers to no key"):
        recover(digest, f"0x{1:064x}{1:064x}1b")


def test_only_the_signer_of_this_message_in_this_domain_signed_it() -> None:
    key, other = Key.named("x"), Key.named("y")
    message = Acceptance(authorization_id=parse_hash("0x" + "11" * 32), reserve=1, deadline=1)
    domain = Domain(1, key.address)
    good = key.sign(message, domain)
    assert is_signed_by(key.address, message, domain, good)
    assert not is_signed_by(other.address, message, domain, good)
    assert not is_signed_by(key.address, replace(message, reserve=2), domain, good)
    assert not is_signed_by(key.address, message, Domain(2, key.address), good)
    assert not is_signed_by(key.address, replace(message, reserve=2**128), domain, good)
    for bad in ("", "0x", good[:-2], good + "00", good[:-2] + "1d", good[2:]):
        assert not is_signed_by(key.address, message, domain, bad)
