"""Problems (RFC 9457) a gateway answers with: one status for each code, one reason for each refusal."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from ledger.core import codes
from ledger.core.errors import SluiceError
from ledger.core.usage_leaf import Kind
from ledger.metering import admission, x402
from ledger.metering.log import Entry, SignedHead

STATUS = {
    "not_authenticated": 401,
    "refused": 403,
    "not_found": 404,
    "conflict": 409,
    "under_way": 409,
    "verification_failed": 409,
    "input_invalid": 422,
    "personal_data": 422,
    "not_countable": 502,  # the application's answer, not the request
    "too_large": 502,
    "mirror_behind": 425,
    "not_final": 425,
    "too_many_requests": 429,
    "log_unavailable": 503,
    "signer_failed": 503,
    "upstream_failed": 502,
}
RETRY = {425: "2", 503: "1"}  # seconds


def problem_of(error: SluiceError, required: Mapping[str, Any] | None = None) -> Response:
    """`required`: what x402's clients are told where there is no session yet; the status is then 402."""
    if required is not None:
        said = {"type": "urn:sluice:authorization_required", "title": "authorization required", "status": 402}
        said |= {"code": error.code, "detail": str(error)}
        return _response(
            402, {**said, **required}, {x402.REQUIRED: x402.encode(dict(required)), "www-authenticate": "Bearer"}
        )
    status = STATUS.get(error.code, 500)
    body = {"type": f"urn:sluice:{error.code}", "title": error.code, "status": status, "code": error.code}
    headers = {"retry-after": RETRY[status]} if status in RETRY else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if "wait" in error.details:
        headers["retry-after"] = str(error.details["wait"])
    return _response(status, body | {"detail": str(error)}, headers)


def refusal_of(
    entry: Entry,
    reason: int | None,
    headers: Iterable[tuple[bytes, bytes]],
    head: SignedHead | None = None,
    required: Mapping[str, Any] | None = None,
) -> Response:
    """A refusal that is in the log, or a use that was counted and is not delivered again; its receipt with it.

    Args:
        reason: why it is not served now; None: it was delivered before, and what was delivered is gone.
        head: to be signed, where a signature opens the credit window again; `required`: the same in x402's terms.
    """
    ours = {name.decode(): value.decode() for name, value in headers}
    leaf = entry.leaf
    if leaf.kind != Kind.REFUSAL:
        words = f"this use was counted as leaf {leaf.index}; it is not delivered again"
        code, title, zh = "DELIVERED_BEFORE", "delivered before", "已交付"
        why: dict[str, Any] = {} if reason is None else {"reason": codes.reason(reason).code}
        return _response(410, _titled(410, code, title, zh) | why | {"detail": words}, ours)
    number = int((entry.payload or {}).get("reasonNumber", 0))
    found = codes.reason(number)
    status = 402 if number == admission.CREDIT_WINDOW_FULL else 403
    words = f"use refused: {found.en}; recorded as leaf {leaf.index} of the usage log"
    body = _titled(status, found.code, found.en, found.zh) | {"detail": words, "leaf": leaf.index}
    if head is not None:
        body |= {"head": head.head.as_json(), "providerSignature": head.provider_signature}
    if required is not None:
        ours[x402.REQUIRED] = x402.encode(dict(required))
    return _response(status, body, ours)


def _titled(status: int, code: str, title: str, zh: str) -> dict[str, Any]:
    return {"type": f"urn:sluice:refusal:{code}", "title": title, "titleZh": zh, "status": status, "code": code}


def _response(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, dict(headers), "application/problem+json")
