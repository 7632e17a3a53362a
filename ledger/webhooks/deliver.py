"""Delivering: in order, at least once. An offset moves only when the receiver said 2xx.

A receiver that does not answer, is overloaded or broken (408, 425, 429, 5xx) is tried again after 1 s, 2 s, 4 s … up to
an hour, and paused after three days. A receiver that refuses an event for good (any other answer) is asked five times;
then the event is a dead letter, kept for its owner, and the next one is delivered. 410 pauses at once.

Several deliverers may share the database: each works on a webhook only while it holds its lease, and moves an offset
only from the one it began with. What a receiver does holds up no other: its answer has a time, a webhook has its turn,
and nothing of it (cookies, connections) is kept.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sqlalchemy import ColumnElement, Engine, and_, insert, select, update

from ledger.core.database import writing
from ledger.core.errors import InputInvalid, SluiceError
from ledger.mirror import journal
from ledger.mirror.journal import Offset, Told, Wanted
from ledger.webhooks import schema, targets
from ledger.webhooks.cloudevents import cloud_event, headers

LEASE = 60  # seconds
AT_A_TIME = 20  # events of one webhook before others have their turn
REFUSALS = 5  # of one event, failures of other kinds not counted, before it is a dead letter
LONGEST = 3600  # seconds between attempts
PATIENCE = 3 * 86_400  # seconds without a delivery before a webhook is paused
WORKERS = 8
TIMEOUT = 10.0  # seconds for a receiver to answer, and for a webhook to begin deliveries in its turn

Row = dict[str, Any]

log = logging.getLogger("sluice.webhooks")


class Deliverer:
    """Delivers what is due. `private`: receivers may be in one's own network (`targets`)."""

    def __init__(
        self,
        webhooks: Engine,
        mirror: Engine,
        chain_id: int,
        *,
        private: bool = False,
        clock: Callable[[], float] = time.time,
        look_up: targets.Resolve = targets.resolve,
        interval: float = 0.5,
        timeout: float = TIMEOUT,
    ) -> None:
        self._webhooks, self._mirror, self._chain_id = webhooks, mirror, chain_id
        self._private, self._clock, self._look_up = private, clock, look_up
        self._interval, self._timeout = interval, timeout
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._busy: set[str] = set()  # webhooks that have a turn, or wait for it
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._timeout + 5)

    def _run(self) -> None:
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="webhook") as workers:
            while not self._stop.is_set():
                try:
                    for webhook in self.due():
                        if webhook not in self._busy:
                            self._busy.add(webhook)
                            workers.submit(self._turn, webhook, workers)
                except Exception:
                    log.exception("webhooks cannot be delivered")
                self._stop.wait(self._interval)

    def _turn(self, webhook: str, workers: ThreadPoolExecutor) -> None:
        """One turn, and if something was delivered another one after everybody who waits."""
        delivered = 0
        try:
            delivered = 0 if self._stop.is_set() else self.work_on(webhook)
        except Exception:
            # The database is away, or our own mistake: said, and tried again. Nothing was moved.
            log.exception("webhook %s cannot be delivered", webhook)
        if delivered and not self._stop.is_set():
            workers.submit(self._turn, webhook, workers)
        else:
            self._busy.discard(webhook)

    def due(self) -> list[str]:
        """Webhooks that may be worked on now."""
        table = schema.webhooks
        query = select(table.c.webhook).where(self._is_due()).order_by(table.c.next_attempt)
        with self._webhooks.connect() as connection:
            return list(connection.execute(query).scalars())

    def _is_due(self) -> ColumnElement[bool]:
        table, now = schema.webhooks, int(self._clock())
        return (table.c.status != "paused") & (table.c.next_attempt <= now) & (table.c.leased_until <= now)

    def work_on(self, webhook: str) -> int:
        """Delivers some events of one webhook, if it is due; how many."""
        table, began, delivered = schema.webhooks, self._clock(), 0
        with self._webhooks.connect() as connection:
            found = (
                connection.execute(select(table).where(table.c.webhook == webhook, self._is_due())).mappings().first()
            )
        if found is None:
            return 0
        row = dict(found)
        # Most of the time there is nothing to tell; then nothing is written.
        events = self._events(row)
        if not events or not self._lease(row):
            return 0
        try:
            for told, reached in events:
                if self._stop.is_set() or (delivered and self._clock() - began >= self._timeout):
                    break
                if (told is not None and not self._deliver(row, told)) or not self._move(row, reached):
                    break
                delivered += told is not None
        finally:
            self._release(row)
        return delivered

    def _lease(self, row: Row) -> bool:
        """False if it is not as it was read, or not due any more."""
        table, until = schema.webhooks, int(self._clock()) + LEASE
        same = _held(row) & (table.c.failures == row["failures"]) & self._is_due()
        with writing(self._webhooks) as connection:
            taken = connection.execute(update(table).where(same).values(leased_until=until))
        row["leased_until"] = until
        return bool(taken.rowcount == 1)

    def _release(self, row: Row) -> None:
        table = schema.webhooks
        with writing(self._webhooks) as connection:
            mine = (table.c.webhook == row["webhook"]) & (table.c.leased_until == row["leased_until"])
            connection.execute(update(table).where(mine).values(leased_until=0))

    def _events(self, row: Row) -> list[tuple[Told | None, Offset]]:
        """What comes next, each with how far one is after it; last of all how far there was nothing wanted."""
        wanted = Wanted(row["contract"], row["event"], row["about"])
        begin = Offset.parse(row["offset"])
        try:
            with self._mirror.connect() as connection:
                found = journal.read(connection, begin, AT_A_TIME, wanted, final=row["final"])
        except SluiceError as problem:
            self._failed(row, problem.message, pause=problem.code == "offset_unknown")
            return []
        events: list[tuple[Told | None, Offset]] = [(told, told.offset) for told in found.events]
        if found.reached != (events[-1][1] if events else begin):
            events.append((None, found.reached))
        return events

    def _deliver(self, row: Row, told: Told) -> bool:
        """True if the receiver has it, or will not have it."""
        event = cloud_event(told, self._chain_id)
        try:
            status = self._post(row, event)
        except InputInvalid as problem:  # the name leads into a private network now
            self._failed(row, problem.message, pause=True)
            return False
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as problem:
            self._failed(row, f"{type(problem).__name__}: {problem}"[:300])
            return False
        if 200 <= status < 300:
            return True
        text = f"the receiver answered {status}"
        if status in (408, 425, 429) or status >= 500:
            self._failed(row, text)
            return False
        if status == 410:
            self._failed(row, text, pause=True)
            return False
        if row["refusals"] + 1 < REFUSALS:
            self._failed(row, text, refused=True)
            return False
        return self._bury(row, event, text)

    def _post(self, row: Row, event: Row) -> int:
        place = targets.target(row["url"], private=self._private, look_up=self._look_up)
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        signed = headers(row["secret"], event["id"], int(self._clock()), body)
        return asyncio.run(self._ask(place, body, signed | {"host": place.host, "user-agent": "sluice-webhooks"}))

    async def _ask(self, place: targets.Target, body: bytes, sent: dict[str, str]) -> int:
        """The answer's status. Asynchronous because only so there is a limit to all of it, not to each of its bytes."""
        tls = {"sni_hostname": place.name}
        async with asyncio.timeout(self._timeout):
            # The answer's body is of no interest, and may have no end.
            async with (
                httpx.AsyncClient(verify=self._tls, timeout=self._timeout, trust_env=False) as http,
                http.stream("POST", place.url, content=body, headers=sent, extensions=tls) as answer,
            ):
                return answer.status_code

    def _move(self, row: Row, reached: Offset) -> bool:
        """Moves the offset from the one this began with; False if somebody else moved it."""
        table = schema.webhooks
        now = int(self._clock())
        with writing(self._webhooks) as connection:
            moved = connection.execute(
                update(table)
                .where(_held(row))
                .values(
                    offset=str(reached),
                    status="active",
                    failures=0,
                    refusals=0,
                    failing_since=None,
                    last_error=None,
                    next_attempt=now,
                    leased_until=now + LEASE,
                )
            )
        row |= {
            "offset": str(reached),
            "failures": 0,
            "refusals": 0,
            "failing_since": None,
            "leased_until": now + LEASE,
        }
        return bool(moved.rowcount == 1)

    def _failed(self, row: Row, error: str, *, pause: bool = False, refused: bool = False) -> None:
        """Notes it, and when to try again; not if the webhook is another's by now, or begins elsewhere."""
        table, now = schema.webhooks, int(self._clock())
        since = row["failing_since"] or now
        failures = row["failures"] + 1
        paused = pause or now - since >= PATIENCE
        values = {
            "status": "paused" if paused else "retrying",
            "failures": failures,
            "refusals": row["refusals"] + refused,
            "failing_since": since,
            "last_error": error,
            "next_attempt": now + min(LONGEST, 1 << min(failures - 1, 12)),
        }
        with writing(self._webhooks) as connection:
            connection.execute(update(table).where(_held(row)).values(**values))
        log.warning("webhook %s: %s%s", row["webhook"], error, "; paused" if paused else "")

    def _bury(self, row: Row, event: Row, error: str) -> bool:
        """Keeps a dead letter; False if the webhook is another's by now, begins elsewhere, or is gone."""
        table = schema.dead_letters
        letter = {"webhook": row["webhook"], "offset": event["id"], "at": int(self._clock())}
        letter |= {"attempts": row["failures"] + 1, "error": error, "event": event}
        with writing(self._webhooks) as connection:
            mine = select(schema.webhooks.c.webhook).where(_held(row)).with_for_update()
            if connection.execute(mine).first() is None:
                return False
            # Replayed and refused again: the newer letter stands.
            where = (table.c.webhook == row["webhook"]) & (table.c.offset == event["id"])
            connection.execute(table.delete().where(where))
            connection.execute(insert(table).values(**letter))
        log.warning("webhook %s: %s; event %s is a dead letter", row["webhook"], error, event["id"])
        return True


def _held(row: Row) -> ColumnElement[bool]:
    """It is where this row says, under the lease that this row says."""
    table = schema.webhooks
    return and_(*(table.c[name] == row[name] for name in ("webhook", "offset", "leased_until")))
