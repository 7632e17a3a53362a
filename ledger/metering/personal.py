"""Personal data has no place in the usage log: what would be recorded is looked through first.

It is a net, not a proof. It knows the written forms below and the names members usually have; it does not know names of
people, addresses, faces, foreign documents, what is encoded (base64, percent, UTF-16), encrypted or spelt out, digits
grouped in unusual ways or with letters beside them, nor whether a hash is salted. And what it finds may be another
number that looks the same: of random numbers of 11 digits 1 in 13 passes for a mobile number, of those of 16 digits
1 in 40 for a bank card. Where such numbers are recorded, they stand under a name that holds counts, or hashed.
"""

import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Any

from ledger.core.errors import InputInvalid

MAX_DEPTH = 64  # of lists and objects within each other

# The last word of a member's name that holds counts (rows, cumUnits, size_bytes): digits alone are no person's there.
COUNTS = frozenset(
    {"amount", "bytes", "calls", "count", "credits", "first", "hits", "index", "limit", "offset"}
    | {"price", "results", "rows", "samples", "seconds", "size", "total", "units"}
)


class Kind(StrEnum):
    """What was found."""

    RESIDENT_ID = "RESIDENT_ID"
    PHONE = "PHONE"
    BANK_CARD = "BANK_CARD"
    PASSPORT = "PASSPORT"
    EMAIL = "EMAIL"
    PERSON_KEY = "PERSON_KEY"


_WORDS = {
    Kind.RESIDENT_ID: "what looks like a resident identity number",
    Kind.PHONE: "what looks like a mobile number",
    Kind.BANK_CARD: "what looks like a bank card number",
    Kind.PASSPORT: "what looks like a passport number",
    Kind.EMAIL: "what looks like an e-mail address",
    Kind.PERSON_KEY: "by its name what identifies a person",
}


class PersonalData(InputInvalid):
    """What would be recorded seems to hold personal data; `details` say where and of which kind, never the value."""

    code = "personal_data"


@dataclass(frozen=True, slots=True)
class Finding:
    """Where something was found, as a path with slashes (RFC 6901's escapes); `/*` is the name of a member there."""

    kind: Kind
    where: str


def refuse_personal(value: Any, where: str = "payload") -> None:
    """Raises PersonalData for what `find_personal` finds, InputInvalid for what it cannot look through."""
    found = find_personal(value, where)
    if found is not None:
        raise PersonalData(
            f"{found.where} holds {_WORDS[found.kind]}; personal data has no place in the usage log: record a salted "
            "commitment instead, the SHA-256 of 16 random bytes and the value",
            field=found.where,
            kind=found.kind.value,
        )


def find_personal(value: Any, where: str = "payload") -> Finding | None:
    """The first personal data in a JSON value, member names included; None if there is none that this net knows.

    Looked for: identity numbers of 18 characters (GB 11643: date and checksum) and of 15 digits (province and date);
    mainland mobile numbers; bank cards (issuer, length, Luhn); mainland, Hong Kong and Macao passports; e-mail
    addresses; members that say they hold a person's id, name or number and hold neither null, true, false nor 0x and
    the 64 hex digits of a hash. Full-width letters and digits count as the usual ones. A letter or digit beside it
    makes it something else.

    Raises:
        InputInvalid: it nests deeper than 64, or holds what JSON cannot.
    """
    found = _look(value, 0, False)
    return None if found is None else Finding(found[0], where + found[1])


_Found = tuple[Kind, str]  # the path is put together on the way out: what is clean does not pay for it


def _look(value: Any, depth: int, counts: bool) -> _Found | None:
    """`counts`: under a name that holds counts."""
    kind: Kind | None
    if isinstance(value, str):
        if counts and value.isascii() and value.isdigit():
            return None
        return (kind, "") if (kind := _kind_of(value)) else None
    if isinstance(value, (int, float)):
        # Eleven digits, the shortest of them, to nineteen, the longest.
        if counts or not 10**10 <= value < 10**19 or value != int(value):
            return None
        return (kind, "") if (kind := _kind_of(str(int(value)))) else None
    if value is None:
        return None
    if depth == MAX_DEPTH:
        raise InputInvalid(f"what would be recorded nests deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for name, inner in value.items():
            try:
                role = _role(name)
            except _NameIs as known:
                return known.kind, "/*"
            if role is None and isinstance(inner, str):  # nearly all: saves a call
                found = (kind, "") if (kind := _kind_of(inner)) else None
            elif role is _PERSON and not _says_nothing(inner):
                found = Kind.PERSON_KEY, ""
            else:
                found = _look(inner, depth + 1, role is _COUNT)
            if found:
                return found[0], f"/{_escaped(name)}{found[1]}"
        return None
    if isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            if found := _look(inner, depth + 1, counts):
                return found[0], f"/{index}{found[1]}"
        return None
    raise InputInvalid(f"what would be recorded is not JSON: it holds a {type(value).__name__}")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")[:80]


# ------------------------------------------------------------------------------------------------- member names

_PERSON, _COUNT = "person", "count"

_WHO = "patient|person|citizen|resident|donor|student|employee"
_WHOSE = f"{_WHO}|contact|customer|holder|owner|user"  # these may be companies: their ids alone say nothing
_NO = "id|no|num|number"
# Matched against the whole name, folded, without its separators: idCard, ID_CARD and id-card are one.
_NAMES = re.compile(
    rf"(?:{_WHOSE})?(?:id(?:no|num|number)|(?:idcard|identity|identification|nationalid)(?:card)?(?:{_NO})?"
    rf"|passport(?:{_NO})?|(?:mobile|cell|tele)?phone(?:{_NO})?|(?:mobile|tel)(?:{_NO})?|email(?:address)?"
    rf"|(?:bankcard|bankaccount|socialsecurity|ssn|medicalrecord|mrn)(?:{_NO})?|card(?:no|num|number))"
    rf"|(?:{_WHOSE}|real|full|first|last|family|given)name|surname"
    rf"|(?:{_WHO}|subject)(?:{_NO})|patient|person|citizen|donor"
    r"|(?:患者|病人|用户|客户|本人|联系人|持卡人|法人|学生|员工)?"
    r"(?:姓名|名字|身份证件?|证件|手机|电话|电子邮箱|邮箱|银行卡|护照|社保|医保卡?)(?:号码?|编号|id)?"
    r"|(?:患者|病人)(?:号码?|编号|id)?|联系(?:人|方式|电话)|(?:住院|病历|病案|门诊|学|工|卡)号"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}\Z")


class _NameIs(Exception):
    """A member's name is personal data itself. Raised, for what is raised is not kept in a cache."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind


@lru_cache(1024)
def _role(name: Any) -> str | None:
    """What a member's name says of what it holds. Raises _NameIs, or InputInvalid if it is no text."""
    if not isinstance(name, str):
        raise InputInvalid("what would be recorded has a member whose name is not text")
    if kind := _kind_of(name):
        raise _NameIs(kind)
    plain = _folded(name)
    if _NAMES.fullmatch(re.sub(r"[\W_]", "", plain.casefold())):
        return _PERSON
    words = _WORD.findall(plain)
    return _COUNT if words and words[-1].lower() in COUNTS else None


def _says_nothing(value: Any) -> bool:
    """Whether it identifies nobody: null, true or false, a hash of 32 bytes, or a list of these."""
    return all(
        item is None or isinstance(item, bool) or (isinstance(item, str) and _HASH.match(item))
        for item in (value if isinstance(value, (list, tuple)) else [value])
    )


# --------------------------------------------------------------------------------------------------------- texts

# Nothing before or after: no letter, no digit, and no decimal point, that would make it part of a fraction.
_BEFORE, _AFTER, _GAP = r"(?<![0-9A-Za-z])(?<![0-9]\.)", r"(?![0-9A-Za-z]|\.[0-9])", r"[ -]{0,3}"

# All that begins with eleven digits or is a passport, and little else. It starts with a set, not with a look behind: so
# the engine runs over a digest several times as fast, and texts get a blank before them.
_SCREEN = re.compile(r"[^0-9A-Za-z](?:[0-9](?=[0-9 -]{10})(?:[ -]{0,3}[0-9]){10}|[A-Z][0-9A-Z][0-9]{7})")
_EMAIL = re.compile(r"(?<=[0-9A-Za-z._%+-])@(?:[0-9A-Za-z-]+\.)+[A-Za-z]{2}")
_PHONE = re.compile(rf"{_BEFORE}(?:(?:00)?86{_GAP})?1[3-9][0-9]{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}{_AFTER}")
_PASSPORT = re.compile(rf"{_BEFORE}(?:[DEGHKMPS]([0-9]{{8}})|(?:E[A-HJ-NP-Z]|[DPS]E|[HK]J|M[A-C])[0-9]{{7}}){_AFTER}")
_RESIDENT_15 = re.compile(
    rf"{_BEFORE}(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|8[1-3])[0-9]{{4}}{_GAP}([0-9]{{6}}){_GAP}[0-9]{{3}}{_AFTER}"
)
# One that is none may begin within what is looked at, and another end there: hence (?=…).
_RESIDENT_18 = re.compile(
    rf"{_BEFORE}(?=([1-9](?:{_GAP}[0-9]){{5}}{_GAP}(?:1{_GAP}9|2{_GAP}0)(?:{_GAP}[0-9]){{9}}{_GAP}[0-9Xx]){_AFTER})"
)
_CARDS = [
    re.compile(rf"{_BEFORE}(?=({digits}){_AFTER})")
    for digits in (
        r"[0-9]{13,19}",
        r"[0-9]{4}(?:[ -][0-9]{4}){3}",
        r"[0-9]{4}(?:[ -][0-9]{4}){3}[ -][0-9]{1,3}",
        r"[0-9]{4}[ -][0-9]{6}[ -][0-9]{5}",
    )
]
_ISSUERS = re.compile(
    r"(?:62[0-9]{14,17}|4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2[2-7][0-9]{14}|3[47][0-9]{13}|35[0-9]{14,17})\Z"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643
_FOLDS = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-") | dict.fromkeys(
    [0xAD, *range(0x200B, 0x2010), 0x2060, 0xFEFF], ""
)


def _folded(text: str) -> str:
    """Full-width forms as the usual ones, every dash as a hyphen, nothing invisible."""
    return unicodedata.normalize("NFKC", text).translate(_FOLDS)


def _kind_of(text: str) -> Kind | None:
    # None of them is as short, or of letters alone.
    if len(text) < 6 or text.isalpha():
        return None
    text = " " + (text if text.isascii() else _folded(text))
    if "@" in text and _EMAIL.search(text):
        return Kind.EMAIL
    if not _SCREEN.search(text):
        return None
    if any(_is_resident(m[1]) for m in _RESIDENT_18.finditer(text)):
        return Kind.RESIDENT_ID
    if any(_is_date("19" + m[1]) for m in _RESIDENT_15.finditer(text)):
        return Kind.RESIDENT_ID
    if _PHONE.search(text):
        return Kind.PHONE
    if any(_is_card(m[1]) for pattern in _CARDS for m in pattern.finditer(text)):
        return Kind.BANK_CARD
    # A letter and a date is how batches are numbered.
    if any(m[1] is None or not _is_date(m[1]) for m in _PASSPORT.finditer(text)):
        return Kind.PASSPORT
    return None


def _is_date(digits: str) -> bool:
    """YYYYMMDD from 1900 to 2099."""
    with suppress(ValueError):
        return 1900 <= date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year < 2100
    return False


def _is_resident(text: str) -> bool:
    digits = re.sub(r"[ -]", "", text).upper()
    check = sum(int(d) * w for d, w in zip(digits, _WEIGHTS, strict=False)) % 11
    return digits[17] == "10X98765432"[check] and _is_date(digits[6:14])


def _is_card(text: str) -> bool:
    digits = re.sub(r"[ -]", "", text)
    doubled = (sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return bool(_ISSUERS.match(digits)) and (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0
