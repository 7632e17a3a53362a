"""Errors as RFC 9457 problem details: one table from codes to HTTP."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ledger.core.errors import SluiceError

# Anything not here is 500: a code nobody has thought about is our fault, not the caller's.
STATUS: dict[str, int] = {
    "input_invalid": 422,
    "content_differs": 422,
    "not_found": 404,
    "conflict": 409,
    "refused": 403,
    "reverted": 409,
    "wrong_chain": 409,
    "bill_differs": 409,
    "still_pending": 425,
    "behind": 425,
    "not_signed_in": 401,
    "too_many_requests": 429,
    "busy": 503,
    "offset_unknown": 410,
    "node_down": 503,
    "node_error": 502,
    "not_deployed": 503,
    "deployment_differs": 503,
    "schema_outdated": 503,
    "finality_violated": 503,
    "database_corrupt": 503,
    "verification_failed": 409,
}

MEDIA_TYPE = "application/problem+json"


def described(words: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in words.items()}


PROBLEMS = described(
    {
        422: "malformed: `details.field` says which part",
        429: "too many requests: wait for `Retry-After` seconds",
        500: "the server made a mistake; nothing was changed",
        503: "the server cannot answer now",
    }
)
READ = PROBLEMS | described({404: "there is none", 425: "the mirror has not come to that block yet"})
READ |= {304: {"description": "what `If-None-Match` names is still so"}}
PRIVATE = described({401: "sign in first", 403: "somebody else's", 409: "what was recorded contradicts itself"})
WRITE = PROBLEMS | described(
    {404: "there is none", 409: "it clashes with what is recorded", 425: "not yet", 502: "the node answered nonsense"}
)


def problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    """A problem-details response."""
    body = {"type": f"urn:sluice:problem:{code}", "title": code.replace("_", " "), "status": status, "code": code}
    return JSONResponse(body | {"detail": detail} | more, status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Registers the handlers."""

    @app.exception_handler(SluiceError)
    async def _sluice(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, SluiceError)
        details = {"details": error.details} if error.details else {}
        answer = problem(STATUS.get(error.code, 500), error.code, error.message, **details)
        if answer.status_code == 401:
            answer.headers["www-authenticate"] = "Bearer"
        if answer.status_code in (425, 503):
            answer.headers["retry-after"] = "1"
        return answer

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, "input_invalid", f"{where}: {first['msg']}", details={"field": where})

    @app.exception_handler(Exception)
    async def _unforeseen(_: Request, error: Exception) -> JSONResponse:
        return problem(500, "unforeseen", f"the server made a mistake ({type(error).__name__}); nothing was changed")

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed", 400: "input_invalid"}.get(error.status_code, "http_error")
        answer = problem(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer
