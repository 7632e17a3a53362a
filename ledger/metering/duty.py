"""The provider's duty to ask: which logs wait for the consumer's signature, how long, and who is silent."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from ledger.core.ids import Hash32
from ledger.core.terms import Quad
from ledger.metering import heads, schema
from ledger.metering.log import NO_UNITS, read_entries

SILENT = 4  # times the seconds after which a signature is asked for: then the consumer is silent

_log = logging.getLogger("sluice.gateway")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A log with uses that the consumer has not signed for."""

    authorization_id: Hash32
    size: int
    signed: int  # leaves in the last head it signed
    since: int  # seconds: when the first leaf beyond was served
    units: Quad  # that wait


def waiting(connection: Connection) -> Iterator[Waiting]:
    """All logs that wait, in no order. Refusals wait for nobody: they count nothing."""
    for row in connection.execute(select(schema.logs.c.authorization, schema.logs.c.size)).all():
        signed = heads.latest_signed(connection, row.authorization)
        size, had = (signed.head.size, signed.head.units) if signed else (0, NO_UNITS)
        if size >= row.size:
            continue
        first = read_entries(connection, row.authorization, size, 1)[0].leaf
        last = read_entries(connection, row.authorization, row.size - 1, 1)[0].leaf
        a, b, c, d = (n - before for n, before in zip(last.cum_units, had, strict=True))
        if (a, b, c, d) != NO_UNITS:
            yield Waiting(row.authorization, row.size, size, first.served_at, (a, b, c, d))


class HeadDuty:
    """Looks from time to time. `asked` are the authorizations whose next answer asks for a signature."""

    def __init__(
        self,
        usage: Engine,
        after: int,
        clock: Callable[[], float],
        alert: Callable[[Waiting, int], None] | None = None,
    ) -> None:
        """Args:
        after: seconds that uses may wait before a signature is asked for.
        alert: told once of each silent consumer, with the seconds it has been; by default a warning is logged.
        """
        self._usage, self._after, self._clock = usage, after, clock
        self._alert = alert or _warn
        self._told: set[Hash32] = set()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self.asked: frozenset[Hash32] = frozenset()

    def look(self) -> None:
        now = self._clock()
        with self._usage.connect() as connection:
            found = list(waiting(connection))
        self.asked = frozenset(w.authorization_id for w in found if now - w.since >= self._after)
        silent = {w.authorization_id: w for w in found if now - w.since >= SILENT * self._after}
        for id_, one in silent.items():
            if id_ not in self._told:
                self._alert(one, int(now - one.since))
        self._told = set(silent)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="head duty", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(max(1.0, self._after / 4)):
            try:
                self.look()
            except Exception:
                _log.exception("the logs that wait for signatures could not be read")


def _warn(one: Waiting, seconds: int) -> None:
    words = "authorization %s: %s units wait for the consumer's signature, the first for %d s"
    _log.warning(words, one.authorization_id, ", ".join(map(str, one.units)), seconds)
