"""Uses metered elsewhere: training rounds, joint computations, sandbox hours; reported in batches by the provider.

A report names what was counted, and the digests of job and result; CloudEvents 1.0 batches are taken as they are. A
batch is one transaction and gets one signed receipt: the head of the log, and the place of each of its uses in it. The
same batch again gives the same places.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from ledger.core import codes
from ledger.core.errors import InputInvalid
from ledger.core.hashing import canonical_json, sha256
from ledger.core.ids import Hash32, hash_of, parse_hash
from ledger.core.terms import Quad
from ledger.core.usage_leaf import use_id_hash
from ledger.metering.admission import Request
from ledger.metering.asking import check_use_id
from ledger.metering.counting import Counter, parse_counter
from ledger.metering.gateway import Gateway
from ledger.metering.personal import refuse_personal
from ledger.metering.recorder import Recorded, Use

MOST_USES = 10_000  # of a batch
MOST_BYTES = 16 << 20
MOST_UNITS = 2**64 - 1

EVENT_TYPE = "cn.sluice.use"


class Report(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """One use. `counts` holds every word the policy's meters name, and what else the policy limits."""

    use_id: str
    purpose: str
    modality: str
    version: str
    counts: dict[str, int]
    event_time: str | int | None = None  # RFC 3339, or seconds
    job: str | None = None  # digests
    result: str | None = None
    algorithm: str | None = None
    region: str = ""
    evidence: dict[str, str] = {}
    note: dict[str, Any] = {}  # what else belongs into the payload; no personal data


class Batch(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `POST /v1/uses` takes."""

    authorization: str
    uses: list[Report]
    ask: bool = False  # only ask whether they may be done; refusals are recorded all the same


class Event(msgspec.Struct, frozen=True):
    """A CloudEvent; attributes that are not named here have no meaning for us."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    data: Any
    time: str | None = None


_BATCH = msgspec.json.Decoder(Batch)
_EVENT, _EVENTS = msgspec.json.Decoder(Event), msgspec.json.Decoder(list[Event])


def read_batch(body: bytes, media_type: str) -> Batch:
    """Raises InputInvalid, in words, for what is not a batch of one authorization."""
    kind = media_type.partition(";")[0].strip().lower()
    try:
        if kind in ("application/cloudevents+json", "application/cloudevents-batch+json"):
            events = _EVENTS.decode(body) if kind.endswith("batch+json") else [_EVENT.decode(body)]
            return _from_events(events)
        batch = _BATCH.decode(body)
    except (msgspec.DecodeError, RecursionError) as problem:  # a ValidationError is one, too
        raise InputInvalid(f"this is not a batch of uses: {problem}", field="uses") from None
    if not 1 <= len(batch.uses) <= MOST_USES:
        raise InputInvalid(f"a batch has 1 to {MOST_USES:,} uses", field="uses")
    return batch


def _from_events(events: Sequence[Event]) -> Batch:
    if not 1 <= len(events) <= MOST_USES:
        raise InputInvalid(f"a batch has 1 to {MOST_USES:,} events", field="uses")
    if any(event.specversion != "1.0" or event.type != EVENT_TYPE for event in events):
        raise InputInvalid(f"an event of a use is a CloudEvent 1.0 of type {EVENT_TYPE}", field="type")
    if len({event.subject for event in events}) != 1:
        raise InputInvalid("all events of a batch have one subject: the authorization", field="subject")
    uses = []
    for event in events:
        if not isinstance(event.data, dict) or {"useId", "eventTime"} & set(event.data):
            raise InputInvalid(
                "an event's data is a use without useId and eventTime: these are id and time", field="data"
            )
        uses.append(msgspec.convert({**event.data, "useId": event.id, "eventTime": event.time}, Report))
    return Batch(events[0].subject, uses)


def report(gateway: Gateway, batch: Batch) -> dict[str, Any]:
    """Decides and records a batch. Blocks: it is called in a thread.

    Raises:
        InputInvalid: a use is malformed or holds personal data; nothing was recorded.
        MirrorBehind, LogUnavailable: nothing was recorded.
    """
    authorization_id = parse_hash(batch.authorization, "authorization")
    meters = gateway.meters(authorization_id)
    uses = []
    for place, item in enumerate(batch.uses):
        try:
            uses.append(_use(authorization_id, item, meters, batch.ask))
        except InputInvalid as problem:
            problem.message = f"use {place}: {problem.message}"
            raise
    outcomes, signed = gateway.recorder.record_batch(uses)
    leaves: list[int | None] = []
    refused, failed = [], []
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Recorded):
            leaves.append(None if outcome.entry is None else outcome.entry.leaf.index)
            if outcome.reason is not None:
                refused.append({"use": place, "reason": codes.reason(outcome.reason).code})
        else:
            leaves.append(None)
            failed.append({"use": place, "code": outcome.code, "detail": outcome.message})
    head = signed.get(authorization_id)
    if head is None and any(leaf is not None for leaf in leaves):
        head = gateway.head_over(authorization_id, max(leaf for leaf in leaves if leaf is not None) + 1)
    return {
        "authorization": authorization_id,
        "leaves": leaves,
        "refused": refused,
        "failed": failed,
        "receipt": None if head is None else head.as_json(),
    }


def _use(authorization_id: Hash32, item: Report, meters: Sequence[Counter], ask: bool) -> Use:
    purpose, modality = codes.code("purposes", item.purpose), codes.code("modalities", item.modality)
    version = parse_hash(item.version, "version")
    units, stated = _units(item.counts, meters)
    asked: dict[str, Any] = {
        "reported": True,
        "purpose": purpose.code,
        "modality": modality.code,
        "version": version,
        "counts": {word: str(n) for word, n in item.counts.items()},  # numbers beyond 2^53 are text in RFC 8785
    }
    for name in ("job", "result", "algorithm"):
        digest = getattr(item, name)
        if digest is not None:
            asked[name] = parse_hash(digest, name)
    if item.region:
        asked["region"] = item.region[:64]
    if item.evidence:
        asked["evidence"] = {name: parse_hash(value, "evidence") for name, value in item.evidence.items()}
    seconds = None
    if item.event_time is not None:
        seconds = asked["eventTime"] = _seconds(item.event_time)
    if item.note:
        asked["note"] = item.note
    if item.region or item.evidence or item.note:
        # Everything else is a digest, a number, a code or a word that is looked at once.
        refuse_personal({"region": item.region, "evidence": list(item.evidence), "note": item.note}, "use")
    written = _written(asked)
    return Use(
        authorization_id=authorization_id,
        version=version,
        use_id_hash=use_id_hash(check_use_id(item.use_id)),
        request_hash=hash_of(sha256(written)),
        request=Request(purpose.number, modality.number, units, item.region, frozenset(item.evidence), stated),
        asked=written,
        event_time=seconds,
        only_ask=ask,
    )


def _written(asked: dict[str, Any]) -> bytes:
    try:
        return canonical_json(asked)
    except (ValueError, RecursionError) as problem:  # rfc8785's errors are ValueErrors
        raise InputInvalid(f"the note has no canonical form: {problem}", field="note") from None


def _units(counts: dict[str, int], meters: Sequence[Counter]) -> tuple[Quad, dict[str, int]]:
    """Units by meter, and all that is stated: a word may be metered and limited."""
    words = {meter.word for meter in meters}
    if missing := words.difference(counts):
        word = sorted(missing)[0]
        raise InputInvalid(f"counts lacks {word!r}, which a meter of the policy counts", field="counts")
    units = [counts[meter.word] for meter in meters]
    for word in counts:
        if word not in words:
            _stated_word(word)
    for n in counts.values():
        if not 0 <= n <= MOST_UNITS:
            raise InputInvalid("counts are whole numbers from 0 to 2^64-1", field="counts")
    a, b, c, d = [*units, 0, 0, 0, 0][:4]
    return (a, b, c, d), counts


@lru_cache(1_024)
def _stated_word(word: str) -> None:
    if parse_counter(word).of_response:
        raise InputInvalid(f"{word} is no meter of this policy, and nothing that uses state", field="counts")
    refuse_personal(word, "counts")


def _seconds(value: str | int) -> int:
    seconds = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            seconds = int(moment.timestamp())
        except (ValueError, OverflowError):
            words = f"eventTime must name its zone, as RFC 3339 does: {value[:40]!r}"
            raise InputInvalid(words, field="eventTime") from None
    assert isinstance(seconds, int)
    if not 0 <= seconds < 2**40:
        raise InputInvalid("eventTime is a time since 1970", field="eventTime")
    return seconds
