"""Answers of 402 in the terms of x402 (version 2), so that its clients can pay with the signatures we ask for.

Two schemes of ours: `sluice-head`, the consumer signs the head that waits; `sluice-ceiling`, it pays ahead. What is
required goes out in `PAYMENT-REQUIRED`, the signature comes back in `PAYMENT-SIGNATURE`, each base64 of JSON. What maps
and what does not: docs/x402.md.
"""

import base64
import json
from typing import Any

from ledger.core.errors import InputInvalid
from ledger.core.parse import load_json
from ledger.core.terms import UsageCeiling, UsageHead
from ledger.core.typed_data import Domain
from ledger.metering.log import SignedHead
from ledger.mirror.queries import Row

VERSION = 2
HEAD, CEILING, AUTHORIZATION = "sluice-head", "sluice-ceiling", "sluice-authorization"
REQUIRED, SIGNATURE, RESPONSE = "payment-required", "payment-signature", "payment-response"
SECONDS = 3_600  # how long an answer may take


def to_sign(url: str, row: Row, domain: Domain, head: SignedHead, due: int, waiting: int) -> dict[str, Any]:
    """What opens the credit window again: the head to sign, as typed data for any wallet.

    Args:
        due: what the head comes to, token units; `waiting`: the part of it that no signature covers yet.
    """
    base = {
        "network": f"eip155:{domain.chain_id}",
        "asset": row["token"],
        "payTo": domain.verifying_contract,
        "maxTimeoutSeconds": SECONDS,
    }
    ceiling = UsageCeiling(
        authorization_id=head.head.authorization_id,
        max_units=(0, 0, 0, 0),
        min_credits=head.head.credits,
        max_due=due,
        expiry=0,
    )
    signing = {"typedData": head.head.typed_data(domain), "providerSignature": head.provider_signature}
    ahead = {"typedData": ceiling.typed_data(domain), "fill": ["maxUnits", "maxDue", "expiry"]}
    return {
        "x402Version": VERSION,
        "error": "too many units wait for a signed head",
        "resource": {"url": url, "description": "metered data", "mimeType": ""},
        "accepts": [
            {"scheme": HEAD, "amount": str(waiting), **base, "extra": signing},
            {"scheme": CEILING, "amount": str(waiting), **base, "extra": ahead},
        ],
    }


def to_begin(url: str, origin: str, domain: Domain) -> dict[str, Any]:
    """What somebody without a session needs first: an authorization, and a session for it."""
    how = {
        "authorization": "both wallets sign terms; see the product's offers at the ledger's API",
        "sessions": f"{origin}/v1/sessions",
        "session": "GatewaySession, signed by the consumer's wallet or a session key of it",
    }
    return {
        "x402Version": VERSION,
        "error": "data is used under an authorization",
        "resource": {"url": url, "description": "metered data", "mimeType": ""},
        "accepts": [
            {
                "scheme": AUTHORIZATION,
                "network": f"eip155:{domain.chain_id}",
                "amount": "0",
                "asset": "0x" + "00" * 20,
                "payTo": domain.verifying_contract,
                "maxTimeoutSeconds": SECONDS,
                "extra": how,
            }
        ],
    }


def read_payment(header: str) -> tuple[str, dict[str, Any]]:
    """The scheme, and what it carries in the form that the gateway's own routes take.

    Raises:
        InputInvalid: it is no payment of one of our schemes.
    """
    try:
        document = load_json(base64.b64decode(header, validate=True), SIGNATURE)
        scheme, payload = document["accepted"]["scheme"], document["payload"]
        if document["x402Version"] != VERSION or scheme not in (HEAD, CEILING):
            raise InputInvalid(f"a payment is of version {VERSION}, scheme {HEAD} or {CEILING}", field=SIGNATURE)
        signature = str(payload["signature"])
        if scheme == HEAD:
            head = UsageHead.from_json(payload["message"])
            return scheme, {"head": head.as_json(), "consumerSignature": signature}
        return scheme, {"ceiling": UsageCeiling.from_json(payload["message"]).as_json(), "signature": signature}
    except (ValueError, KeyError, TypeError) as problem:
        raise InputInvalid(f"{SIGNATURE} cannot be read: {problem}", field=SIGNATURE) from None


def encode(document: dict[str, Any]) -> str:
    """As it stands in a header."""
    return base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()
