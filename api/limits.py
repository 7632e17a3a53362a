"""How often one reader may ask: a bucket of tokens for each, filled at a steady rate (RFC 6585, 429).

A reader is its wallet if it signed in, else its address. What costs more than a read takes more tokens.
"""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem
from api.replies import asked
from api.sessions import Sessions

BURST = 4  # seconds of the rate that may be asked at once
MOST = 50_000  # readers remembered

FREE = ("/health", "/v1/health", "/metrics")  # what restarts and watches a server must not be kept out

COSTS = (  # method, beginning of the path, tokens
    ("POST", "/v1/session", 10),
    ("POST", "/v1/transactions", 10),
    ("POST", "/v1/webhooks", 20),
    ("GET", "/v1/aggregates", 10),
    ("GET", "/v1/events", 3),
)


class Limits:
    """ASGI: refuses whoever asks more than `rate` times a second in the long run; 0 is no limit."""

    def __init__(
        self, app: ASGIApp, sessions: Sessions, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._sessions, self._rate, self._clock = app, sessions, rate, clock
        self._buckets: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(FREE):
            await self._app(scope, receive, send)
            return
        reader = self._reader(scope)
        if self._rate:
            wait = self._take(reader, _cost(scope))
            if wait > 0:
                text = f"too many requests: this server answers {self._rate:g} a second"
                refusal = problem(429, "too_many_requests", text)
                refusal.headers["retry-after"] = str(max(1, round(wait + 0.5)))
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _reader(self, scope: Scope) -> str:
        """Also looks up the session, for whoever comes after."""
        given = asked(scope, b"authorization")
        if given is not None and given[:7].lower() == b"bearer ":
            scope["sluice.session"] = session = self._sessions.find(given[7:].decode("latin-1").strip())
            if session is not None:
                return session.wallet
        client = scope.get("client")
        return client[0] if client else ""

    def _take(self, reader: str, cost: float) -> float:
        """Takes tokens; seconds to wait if there are not enough."""
        now, full = self._clock(), self._rate * BURST
        left, since = self._buckets.get(reader, (full, now))
        left = min(full, left + (now - since) * self._rate)
        cost = min(cost, full)
        if left < cost:
            self._buckets[reader] = (left, now)
            return (cost - left) / self._rate
        if len(self._buckets) >= MOST:
            # Whoever has not asked for so long has a full bucket again.
            self._buckets = {r: (t, s) for r, (t, s) in self._buckets.items() if now - s < BURST}
        self._buckets[reader] = (left - cost, now)
        return 0


def _cost(scope: Scope) -> float:
    method, path = scope["method"], scope["path"]  # as routes see it: decoded
    return next((tokens for verb, begin, tokens in COSTS if verb == method and path.startswith(begin)), 1)
