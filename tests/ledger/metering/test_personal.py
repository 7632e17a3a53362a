"""What looks like personal data is found before it is recorded, wherever it is; what is none passes."""

import base64
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.errors import InputInvalid
from ledger.metering.personal import MAX_DEPTH, Finding, Kind, PersonalData, find_personal, refuse_personal

HASH = "0x" + "1380013800041111" * 4
PAYLOAD = {
    "path": f"/v1/data/{HASH}",
    "query": {"from": "2026-01-01T00:00:00", "limit": "24"},
    "purpose": "RESEARCH",
    "outcome": "served",
    "meters": ["calls", "rows"],
    "responseSha256": HASH,
    "bytes": 812,
}


def kind_of(value: Any) -> Kind | None:
    found = find_personal(value)
    return None if found is None else found.kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("11010519491231002X", Kind.RESIDENT_ID),
        ("11010519491231002x", Kind.RESIDENT_ID),
        ("110105 19491231 002X", Kind.RESIDENT_ID),
        ("身份证号：１１０１０５１９４９１２３１００２Ｘ，已核验", Kind.RESIDENT_ID),
        ("110105491231002", Kind.RESIDENT_ID),
        ("13800138000", Kind.PHONE),
        ("138 0013 8000", Kind.PHONE),
        ("138-0013-8000", Kind.PHONE),
        ("138\u20110013\u20148000", Kind.PHONE),
        ("138\u200b00138000", Kind.PHONE),
        ("+8613800138000", Kind.PHONE),
        ("(+86) 138 0013 8000", Kind.PHONE),
        ("8613800138000", Kind.PHONE),
        ("008613800138000", Kind.PHONE),
        ("请回电13800138000谢谢", Kind.PHONE),
        ("tel_13800138000.", Kind.PHONE),
        ("１３８００１３８０００", Kind.PHONE),
        ("4111111111111111", Kind.BANK_CARD),
        ("4111 1111 1111 1111", Kind.BANK_CARD),
        ("4111-1111-1111-1111 123", Kind.BANK_CARD),
        ("2026 4111 1111 1111 1111", Kind.BANK_CARD),
        ("6222 0202 0000 0000 014", Kind.BANK_CARD),
        ("3782 822463 10005", Kind.BANK_CARD),
        ("E12345678", Kind.PASSPORT),
        ("护照EA1234567", Kind.PASSPORT),
        ("passport: G12345678", Kind.PASSPORT),
        ("HJ1234567", Kind.PASSPORT),
        ("a@b.cn", Kind.EMAIL),
        ("Some One <some.one+data@mail.example.org>", Kind.EMAIL),
        ("ｓｏｍｅ＠ｅｘａｍｐｌｅ．ｃｏｍ", Kind.EMAIL),
    ],
)
def test_what_is_found(text: str, kind: Kind) -> None:
    assert find_personal({"note": text}, "query") == Finding(kind, "query/note")
    assert find_personal({"note": {text: 1}}) == Finding(kind, "payload/note/*")


@pytest.mark.parametrize(
    "value",
    [
        *(PAYLOAD, {}, [], "", None, True, 0, -13800138000, 13800138000.5, float("nan"), float("inf"), 10**30),
        *("11010519491231002", "110105194912310021", "110105194913310021", "110105491331002", "900105491231002"),
        *(
            "12800138000",
            "138001380001",
            "1380013800",
            "x13800138000",
            "13800138000a",
            "39.13800138000",
            "13800138000.5",
        ),
        *("4111111111111112", "9111111111111111", "411111111111", "E1234567", "E123456789", "B12345678", "P20260101"),
        *("user@host", "@example.org", "some @ example.org", "react@18.2.0", "@types/node"),
        *("2026-01-01T00:00:00.123456789Z", "2026-01-01 00:00:00", "20260101123000", "2026-01-01 - 2026-12-31"),
        *(1_767_225_600, 1_767_225_600_123, 1_767_225_600_123_456, 1_767_225_600_123_456_789, 1_767_225_600.123),
        *("1767225600", "1767225600123", "1767225600123456", "1767225600123456789", "1.10.1380013800"),
        *(
            "39.90420001234,116.40740001234",
            [116.40740001234, 39.90420001234],
            "v1.2.3-20260101.1234",
            "2600:1f18::1380",
        ),
        *("550e8400-e29b-41d4-a716-446655440000", HASH, HASH[2:], "sha256:" + HASH[2:], [1380, 138, 8000]),
        *(
            {"bytes": 13800138000},
            {"cumUnits": ["13800138000"]},
            {"responseSize": 13800138000},
            {"total_rows": 1.38e10},
        ),
    ],
)
def test_what_passes(value: Any) -> None:
    assert find_personal(value) is None


@pytest.mark.parametrize("value", [13800138000, 13800138000.0, 4111111111111111, 110105491231002])
def test_a_number_is_looked_at_as_its_digits(value: float) -> None:
    assert find_personal({"q": [value]}) is not None
    assert find_personal({"rows": [value]}) is None


def test_a_name_that_holds_counts_hides_only_digits() -> None:
    assert kind_of({"bytes": "138 0013 8000"}) is Kind.PHONE
    assert kind_of({"bytes": {"from": 13800138000}}) is Kind.PHONE


@pytest.mark.parametrize(
    "name",
    [
        *(
            "phone",
            "Phone_Number",
            "userMobile",
            "mobile-no",
            "tel",
            "idCard",
            "id_card",
            "id_no",
            "identity",
            "IDNumber",
        ),
        *("patientName", "personName", "patientId", "patient_id", "subjectId", "personId", "patient", "studentNo"),
        *("realName", "surname", "email", "contactEmail", "passport", "passportNo", "bankCard", "card_number", "ssn"),
        *(
            "姓名",
            "患者姓名",
            "身份证",
            "身份证号码",
            "手机",
            "手机号",
            "联系电话",
            "患者",
            "患者编号",
            "病历号",
            "银行卡号",
        ),
        *("ｐｈｏｎｅ", "患者ＩＤ"),
    ],
)
def test_a_member_that_names_a_person_holds_a_commitment(name: str) -> None:
    assert find_personal({"query": {name: "7"}}) == Finding(Kind.PERSON_KEY, f"payload/query/{name}")
    for value in (7, "", {}, ["7"], [HASH, 7], {"ref": HASH}, HASH[:-1], HASH[2:]):
        assert kind_of({name: value}) is Kind.PERSON_KEY
    for nobody in (None, True, HASH, [], [HASH, None]):
        assert find_personal({name: nobody}) is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "name",
            "id",
            "productName",
            "fileName",
            "identifier",
            "idle",
            "telemetry",
            "mobility",
            "phoneModel",
            "subject",
        ),
        *(
            "personCount",
            "patients",
            "headphone",
            "user",
            "userId",
            "customerId",
            "host",
            "hotel",
            "title",
            "card",
            "emailed",
        ),
        *("名称", "患者数", "站点", "身份", "编号"),
    ],
)
def test_a_member_that_names_something_else_holds_anything(name: str) -> None:
    assert find_personal({name: "7"}) is None


def test_where_it_is_stands_in_the_finding_and_the_value_nowhere() -> None:
    value = {"a/b": [{}, {"m~n": ["x", "call 138-0013-8000 now"]}]}
    assert find_personal(value, "notes") == Finding(Kind.PHONE, "notes/a~1b/1/m~0n/1")
    with pytest.raises(PersonalData) as refused:
        refuse_personal(value, "notes")
    assert refused.value.code == "personal_data"
    assert refused.value.details == {"field": "notes/a~1b/1/m~0n/1", "kind": "PHONE"}
    assert "notes/a~1b/1/m~0n/1 holds what looks like a mobile number" in refused.value.message
    assert "8000" not in refused.value.message


def test_a_name_that_is_personal_is_not_repeated_either() -> None:
    for _ in range(2):
        with pytest.raises(PersonalData) as refused:
            refuse_personal({"query": {"13800138000": "served"}})
        assert refused.value.details["field"] == "payload/query/*"
        assert "13800138000" not in str(refused.value)


def test_what_is_clean_is_not_refused() -> None:
    refuse_personal(PAYLOAD)


def nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def test_absurd_nesting_is_refused_and_not_followed() -> None:
    assert find_personal(nested("x", MAX_DEPTH)) is None
    assert kind_of(nested("13800138000", MAX_DEPTH)) is Kind.PHONE
    endless: list[Any] = []
    endless.append(endless)
    for value in (nested("x", MAX_DEPTH + 1), nested("x", 100_000), endless, {"phone": [endless]}):
        with pytest.raises(InputInvalid):
            refuse_personal(value)


@pytest.mark.parametrize("value", [b"13800138000", {1, 2}, date(2026, 1, 1), {1: "a"}, {None: 1}, object()])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(InputInvalid, match="not"):
        find_personal({"a": [value]})


# --------------------------------------------------------------------------------------------------- generated

dates = st.dates(date(1900, 1, 1), date(2099, 12, 31)).map(lambda day: f"{day:%Y%m%d}")


def resident(region: int, born: str, number: int) -> str:
    """GB 11643: ISO 7064, MOD 11-2."""
    body = f"{region}{born}{number:03}"
    rest = 0
    for digit in body:
        rest = (rest + int(digit)) * 2 % 11
    return body + "0123456789X"[(12 - rest) % 11]


def luhn(body: str) -> str:
    double = [int(digit) * (2 if at % 2 == 0 else 1) for at, digit in enumerate(reversed(body))]
    return body + str(-sum(n - 9 if n > 9 else n for n in double) % 10)


residents = st.builds(resident, st.integers(110000, 829999), dates, st.integers(0, 999))
issuers = [("62", 16), ("62", 19), ("4", 13), ("4", 16), ("4", 19), ("51", 16), ("55", 16), ("22", 16), ("27", 16)]
cards = st.sampled_from([*issuers, ("34", 15), ("37", 15), ("35", 16)]).flatmap(
    lambda issuer: st.text("0123456789", min_size=19, max_size=19).map(
        lambda digits: luhn((issuer[0] + digits)[: issuer[1] - 1])
    )
)
phones = st.builds(
    lambda prefix, network, rest, gap: prefix + gap.join([f"1{network}", rest[:4], rest[4:]]),
    st.sampled_from(["", "86", "+86", "0086", "+86 ", "86-"]),
    st.integers(30, 99),
    st.text("0123456789", min_size=8, max_size=8),
    st.sampled_from(["", " ", "-", " - "]),
)
passports = st.builds(
    lambda letters, digits: (letters + digits)[:9],
    st.sampled_from(["E", "G", "P", "S", "D", "H", "M", "EA", "EZ", "DE", "SE", "PE", "HJ", "KJ", "MA"]),
    st.text("3456789", min_size=8, max_size=8),  # no date: those pass, for batches
)
people = st.builds(lambda name, host: f"{name}@{host}.example", *[st.text("abcxyz019", min_size=1, max_size=9)] * 2)
grouped = cards.map(lambda card: " ".join(card[at : at + 4] for at in range(0, len(card), 4)))
personal = residents | cards | phones | passports | people | grouped.filter(lambda card: len(card) > 18)


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


@given(
    personal | personal.map(full_width),
    st.sampled_from(["", "号", "q=", " ", "(", "“"]),
    st.sampled_from(["", "。", ",", " ", ")", "&x=1"]),
    st.lists(st.integers(0, 3) | st.sampled_from(["query", "a", "filter"]), max_size=MAX_DEPTH),
)
def test_what_is_valid_is_found_wherever_it_is(text: str, before: str, after: str, path: list[int | str]) -> None:
    value: Any = before + text + after
    for step in path:
        value = {step: value, "more": 1} if isinstance(step, str) else [*range(step), value]
    found = find_personal(value)
    assert found is not None
    assert found.where == "".join(["payload", *(f"/{step}" for step in reversed(path))])


@given(st.integers(10**10, 10**19 - 1) | st.integers(10**14, 10**15 - 1))
def test_a_number_is_found_as_its_text_is(number: int) -> None:
    assert find_personal(number) == find_personal(str(number))


@given(
    st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.sampled_from(["", "/", "id ", "号"])
)
def test_digests_and_uuids_are_never_mistaken(digest: bytes, sixteen: bytes, before: str) -> None:
    """By their form: there is no boundary within 64 hex digits, and no groups of a UUID's lengths are looked for."""
    for text in ("0x" + digest.hex(), digest.hex(), str(UUID(bytes=sixteen)), sixteen.hex()):
        assert find_personal(before + text) is None


@given(st.sampled_from("0123456789"), st.sampled_from("0123456789"))
def test_even_digests_and_uuids_of_digits_alone_are_not(one: str, other: str) -> None:
    digits = (one + other) * 32
    for text in ("0x" + digits, digits, digits[:32], str(UUID(digits[:32]))):
        assert find_personal(text) is None


@given(st.binary(min_size=32, max_size=32))
def test_tokens_are_hardly_ever_mistaken(token: bytes) -> None:
    """A passport number between hyphens, mostly: less than 1 in 10^8 tokens of 32 random bytes."""
    assert find_personal(base64.urlsafe_b64encode(token).decode().rstrip("=")) is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text("0138 -@.aE６", max_size=40)
    | personal,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | personal, inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_whatever_is_looked_through_is_clean_or_refused_without_its_value(value: Any) -> None:
    found = find_personal(value)
    if found is None:
        refuse_personal(value)
        return
    with pytest.raises(PersonalData) as refused:
        refuse_personal(value)
    assert find_personal(refused.value.message) is None
