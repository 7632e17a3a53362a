"""Messages hash as an independent implementation of EIP-712 hashes them, and a number that does not fit never does."""

from dataclasses import replace
from enum import IntEnum
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.core import terms
from ledger.core.errors import InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, hash_of, parse_hash, raw
from ledger.core.parse import parse_uint
from ledger.core.terms import Acceptance, ForwardRequest, UsageHead
from ledger.core.typed_data import Domain, Member, Message, members

MESSAGES: list[Any] = [
    found
    for found in vars(terms).values()
    if isinstance(found, type) and issubclass(found, Message) and found is not Message
]
DOMAIN = Domain(31337, Address("0x" + "5f" * 20))
ID = parse_hash("0x" + "11" * 32)
HEAD = UsageHead(authorization_id=ID, size=1, units=(1, 24, 0, 0), credits=0, as_of=1, root=ID)
ACCEPTANCE = Acceptance(authorization_id=ID, reserve=1, deadline=1)


class Small(IntEnum):
    ONE = 1


def filled(cls: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({m.field: value(cls, m) for m in members(cls)}).map(lambda values: cls(**values))


def value(cls: Any, member: Member) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if member.kind == "bytes32":
        one = st.binary(min_size=32, max_size=32).map(hash_of)
    elif member.kind == "address":
        one = st.binary(min_size=20, max_size=20).map(lambda data: "0x" + data.hex())
    elif member.kind == "bytes":
        one = st.binary(max_size=100)
    elif member.kind.startswith("uint"):
        most = 2 ** int(member.kind[4:]) - 1
        one = st.integers(0, most) | st.sampled_from([0, most])
    else:
        one = filled(cls.STRUCTS[member.kind])
    return one if member.count is None else st.tuples(*[one] * member.count)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: str(cls.__name__))
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_messages_hash_as_eth_account_hashes_them(cls: Any, data: st.DataObject) -> None:
    message = data.draw(filled(cls))
    signable = encode_typed_data(full_message=message.typed_data(DOMAIN))
    assert message.struct_hash() == signable.body
    assert raw(message.digest(DOMAIN)) == keccak256(b"\x19\x01" + signable.header + signable.body)


def test_every_message_was_tried() -> None:
    assert len(MESSAGES) >= 12


@pytest.mark.parametrize("wrong", [-1, 2**300, 10**80, True, False, 1.0, None, "x", "01", "-1", "", b"\x01", (1,)])
@pytest.mark.parametrize(
    ("message", "field", "kind"),
    [
        (HEAD, "size", "uint64"),
        (HEAD, "credits", "uint128"),
        (HEAD, "as_of", "uint40"),
        (ACCEPTANCE, "reserve", "uint128"),
    ],
)
def test_a_number_that_does_not_fit_is_refused_by_its_kind(message: Any, field: str, kind: str, wrong: Any) -> None:
    bits = int(kind[4:])
    for number in (wrong, 2**bits, -(2**bits)):
        with pytest.raises(InputInvalid) as expected:
            parse_uint(number, kind, bits)
        for hashed in (replace(message, **{field: number}).struct_hash, replace(message, **{field: number}).words):
            with pytest.raises(InputInvalid, match=kind) as caught:
                hashed()
            assert (str(caught.value), caught.value.details) == (str(expected.value), expected.value.details)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("wrong", [-1, 2**64, True, 1.0, None, "x"])
def test_a_number_in_a_list_that_does_not_fit_is_refused_by_its_kind(wrong: Any, place: int) -> None:
    units: Any = [1, 1, 1, 1]
    units[place] = wrong
    with pytest.raises(InputInvalid, match="uint64"):
        replace(HEAD, units=tuple(units)).struct_hash()


def test_numbers_as_text_and_of_other_whole_types_hash_as_their_value() -> None:
    plain = replace(HEAD, size=1, credits=5).struct_hash()
    other: Any = {"size": Small.ONE, "credits": "5", "units": ["1", 24, 0, Small.ONE - 1]}
    assert replace(HEAD, **other).struct_hash() == plain


def test_bounds_are_hashed() -> None:
    for size in (0, 2**64 - 1):
        assert replace(HEAD, size=size).words()[1] == size.to_bytes(32, "big")


def test_a_struct_within_a_message_is_checked_too() -> None:
    assert "Scope" in terms.AuthorizationTerms.STRUCTS
    scope: Any = {m.field: ID if m.kind == "bytes32" else 0 for m in members(terms.Scope)}
    wrong = terms.Scope(**scope | {"credit_units": (0, 0, 0, 0), "rights": 2**32})
    with pytest.raises(InputInvalid, match="uint32"):
        wrong.struct_hash()


def test_bytes_of_any_length_hash_to_one_word() -> None:
    some = Address("0x" + "22" * 20)
    request = ForwardRequest(from_=some, to=some, value=2**256 - 1, gas=0, nonce=0, deadline=0, data=b"\x01" * 33)
    assert request.words()[-1] == keccak256(b"\x01" * 33)
    with pytest.raises(InputInvalid, match="uint256"):
        replace(request, value=2**256).struct_hash()
