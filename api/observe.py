"""What the server did: a line of JSON and a measurement for each request, without anything secret.

Lines have the route, not the query, and never a header: tokens, signatures and filters stay out of them.
"""

import json
import logging
import secrets
import sys
import time
from datetime import UTC, datetime
from itertools import count
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("sluice.requests")

METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_json(level: str = "INFO") -> None:
    """Sends what Sluice logs to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    top = logging.getLogger("sluice")
    top.handlers, top.propagate = [handler], False
    top.setLevel(level)


class Observe:
    """ASGI, outermost: counts, times and logs."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ["method", "route", "status"]
        self._seconds = Histogram(
            "sluice_request_seconds", "until the reply began", labels, buckets=BUCKETS, registry=registry
        )
        self._bytes = Counter("sluice_reply_bytes", "of bodies", labels[:2], registry=registry)
        self._open = Gauge("sluice_requests_open", "requests that are being answered", registry=registry)
        self._name, self._numbers = secrets.token_hex(4), count(1)  # of this process, and of its requests
        self._children: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, size, first = time.perf_counter(), 500, 0, 0.0
        identity = f"{self._name}-{next(self._numbers)}"
        scope["sluice.request"] = identity

        async def counted(message: Message) -> None:
            nonlocal status, size, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter() - began
                message["headers"] = [*message.get("headers", ()), (b"request-id", identity.encode())]
            else:
                size += len(message.get("body", b""))
            await send(message)

        self._open.inc()
        try:
            await self._app(scope, receive, counted)
        finally:
            self._open.dec()
            self._note(scope, status, size, first, time.perf_counter() - began, identity)

    def _note(self, scope: Scope, status: int, size: int, first: float, whole: float, identity: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "OTHER"  # anybody can make up methods
        key = (method, route, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = (self._seconds.labels(*map(str, key)), self._bytes.labels(*key[:2]))
        child[0].observe(first or whole)
        child[1].inc(size)
        if log.isEnabledFor(logging.INFO):
            fields = {
                "request": identity,
                "method": method,
                "route": route,
                "status": status,
                "milliseconds": round(whole * 1000, 2),
                "bytes": size,
                "signedIn": scope.get("sluice.session") is not None,
            }
            log.info("%s %s %s", method, route, status, extra={"fields": fields})
