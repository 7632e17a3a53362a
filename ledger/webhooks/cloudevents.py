"""An event as a CloudEvent 1.0 in structured mode, signed as Standard Webhooks asks (HMAC-SHA256)."""

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import Any

from ledger.core.errors import VerificationFailed
from ledger.mirror.journal import Told

MEDIA_TYPE = "application/cloudevents+json"
PREFIX = "whsec_"


def event_json(told: Told) -> dict[str, Any]:
    """An event as people read it: names in camelCase, every number among its arguments as text."""
    row = told.row
    return {
        "offset": str(told.offset),
        "retracted": told.retracted,
        "contract": row["contract"],
        "event": row["event"],
        "args": numbers_as_text(row["args"]),
        "block": row["block_number"],
        "blockHash": row["block_hash"],
        "time": row["timestamp"],
        "logIndex": row["log_index"],
        "transaction": row["transaction_hash"],
        "address": row["address"],
        "topics": row["topics"],
        "data": row["data"],
    }


def numbers_as_text(value: Any) -> Any:
    """JavaScript would round long numbers."""
    if isinstance(value, dict):
        return {name: numbers_as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbers_as_text(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def cloud_event(told: Told, chain_id: int) -> dict[str, Any]:
    """`id` is the event's offset: the same event delivered twice has the same one."""
    row = told.row
    kind = f"sluice.{row['contract']}.{row['event']}" + (".retracted" if told.retracted else "")
    return {
        "specversion": "1.0",
        "id": str(told.offset),
        "source": f"/chains/{chain_id}/{row['address']}",
        "type": kind,
        "subject": row["transaction_hash"],
        "time": datetime.fromtimestamp(row["timestamp"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datacontenttype": "application/json",
        "data": event_json(told),
    }


def headers(secret: str, identity: str, at: int, body: bytes) -> dict[str, str]:
    """What goes with a delivery. `at` is in seconds."""
    return {
        "content-type": MEDIA_TYPE,
        "webhook-id": identity,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + _sign(secret, identity, str(at), body),
    }


def verify(secret: str, given: Any, body: bytes, now: float, tolerance: int = 300) -> None:
    """For receivers: raises VerificationFailed unless the headers `given` are of this secret, body and time."""
    identity, at = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not re.fullmatch(r"[0-9]{1,12}", at) or abs(now - int(at)) > tolerance:
        raise VerificationFailed("the delivery is not of now")
    mine = b"v1," + _sign(secret, identity, at, body).encode()
    signatures = [s.encode(errors="replace") for s in given.get("webhook-signature", "").split()]
    if not any(hmac.compare_digest(mine, theirs) for theirs in signatures):
        raise VerificationFailed("the delivery is not signed with this webhook's secret")


def _sign(secret: str, identity: str, at: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.new(key, f"{identity}.{at}.".encode() + body, hashlib.sha256).digest()).decode()
