"""The provider's side of reporting: uses metered elsewhere, sent to its gateway in batches."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from ledger.core.errors import InputInvalid, Refused, VerificationFailed
from ledger.core.ids import ZERO_HASH, Hash32
from ledger.core.parse import load_json
from ledger.core.signing import Signer
from ledger.core.terms import UsageHead
from ledger.core.typed_data import Domain
from ledger.metering.sessions import session_request


class ReportFailed(Refused):
    """The gateway did not take a batch; nothing of it was recorded, and it can be sent again as it is."""

    code = "report_failed"


class Reporter:
    """Reports for one provider, with its wallet or a session key of it."""

    def __init__(
        self,
        *,
        gateway: str,
        signer: Signer,
        domain: Domain,
        http: httpx.Client,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`domain` is UsageLedger's: that is where sessions for all authorizations are signed."""
        self._gateway, self._signer, self._domain = gateway.rstrip("/"), signer, domain
        self._http, self._clock = http, clock
        self._token = ""

    def report(
        self, authorization_id: Hash32, uses: Sequence[Mapping[str, Any]], *, ask: bool = False
    ) -> dict[str, Any]:
        """One batch: `leaves` (the place of each use in the log), `refused`, `failed`, `receipt` (the signed head).

        Args:
            uses: as `POST /v1/uses` takes them: useId, purpose, modality, version, counts, digests of job and result.
            ask: only ask whether they may be done; refusals are recorded all the same.

        Raises:
            ReportFailed: nothing was recorded.
            VerificationFailed: the answer is not about these uses.
        """
        body = {"authorization": authorization_id, "uses": list(uses), "ask": ask}
        for again in (True, False):
            if not self._token:
                self._open_session()
            headers = {"Authorization": f"Bearer {self._token}"}
            response = self._post("/v1/uses", body, headers)
            if response.status_code != 401 or not again:
                break
            self._token = ""
        answer: dict[str, Any] = _json(response)
        try:
            places = [leaf for leaf in answer["leaves"] if leaf is not None]
            fits = len(answer["leaves"]) == len(uses) and answer["authorization"] == authorization_id
            if places:
                head = UsageHead.from_json(answer["receipt"]["head"])
                fits &= head.authorization_id == authorization_id and head.size > max(places)
        except (KeyError, TypeError, InputInvalid):
            fits = False
        if not fits:
            raise VerificationFailed("the gateway's answer is not about the uses that were reported")
        return answer

    def _open_session(self) -> None:
        body = session_request(ZERO_HASH, self._gateway, self._signer, self._domain, self._clock())
        self._token = _json(self._post("/v1/sessions", body, {}))["token"]

    def _post(self, path: str, body: Any, headers: Mapping[str, str]) -> httpx.Response:
        try:
            return self._http.post(self._gateway + path, json=body, headers=headers)
        except httpx.HTTPError as problem:
            raise ReportFailed(f"the gateway at {self._gateway} does not answer: {problem}") from problem


def _json(response: httpx.Response) -> Any:
    found = load_json(response.content, "response")
    if response.status_code != 200:
        detail = found.get("detail") if isinstance(found, dict) else None
        raise ReportFailed(f"the gateway refused: {detail or response.status_code}", status=response.status_code)
    return found
