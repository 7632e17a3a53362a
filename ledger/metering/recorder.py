"""Decides uses and records them: many at once, in one transaction, before anybody hears of them.

Whoever waits is committed together with all others that wait: one flush of the disk for as many uses as came while the
last one took. A use is decided under the lock of its log, from what every gateway process recorded before it. What a
crash leaves is what was committed: a use that was not answered is in the log or it is not, and asking again with its id
tells which.
"""

import asyncio
import dataclasses
import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import msgspec
import psycopg
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import SQLAlchemyError

from ledger.core import codes
from ledger.core.database import insert_unless, keep_writing
from ledger.core.errors import Conflict, SluiceError
from ledger.core.hashing import canonical_json
from ledger.core.ids import Address, Hash32
from ledger.core.signing import Signer
from ledger.core.terms import AuthorizationTerms, Quad, UsageCeiling
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import SALT_BYTES, Kind, UsageLeaf, payload_hash
from ledger.metering import admission, heads, schema
from ledger.metering.admission import Count, Decision, Position, Request, Standing
from ledger.metering.log import NO_UNITS, Entry, Grown, SignedHead, UsageLog, find_entries, head_after, receipt_of
from ledger.metering.standing import Moment, Standings

MOST = 2**128 - 1
BEGUN_SECONDS = 3_600  # after that, whoever began a delivery has died
TOGETHER = 1_000  # uses committed at once, at most
OPEN_LOGS = 1_000  # views kept in memory; a log that is not among them is read again

Counted: TypeAlias = dict[Count, int]
Found: TypeAlias = dict[tuple[Hash32, Hash32], "Standing | SluiceError"]
Make: TypeAlias = Callable[[Connection, UsageLog], Entry | None]


class UnderWay(Conflict):
    """This use was begun and is not over: asked again now, it would be done twice."""

    code = "under_way"


class LogUnavailable(SluiceError):
    """The usage log could not be written; the use was neither served nor counted."""

    code = "log_unavailable"


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One use, asked for or reported: to be decided and recorded."""

    authorization_id: Hash32
    version: Hash32
    use_id_hash: Hash32
    request_hash: Hash32
    request: Request
    asked: bytes  # the request as RFC 8785 writes it: what `request_hash` is of
    agent: Address | None = None  # whose key asked, if it was not the consumer's wallet
    delivered: dict[str, Any] = {}  # goes into the payload of what is served
    event_time: int | None = None  # seconds; None: now
    only_ask: bool = False  # record a refusal, but nothing that may be served
    begin: bool = False  # and if it may: its units are held, and nobody else begins it, until it is recorded


class Recorded(msgspec.Struct, frozen=True):
    """What became of a use. `entry` None: it may be served, and only that was asked."""

    entry: Entry | None
    reason: int | None  # why it is not served now; None: it is
    known: bool = False  # its use id was recorded before, and counts nothing again
    sign: bool = False  # half of the credit window waits for the consumer's signature


Outcome: TypeAlias = Recorded | SluiceError


class Recorder:
    """The one place that writes a provider's usage logs. Several processes may share them."""

    def __init__(self, usage: Engine, standings: Standings, signer: Signer, domains: Mapping[str, Domain]) -> None:
        """`domains` maps a ledger's name to its signing domain."""
        self._usage, self._standings, self._signer, self._domains = usage, standings, signer, domains
        self._logs: OrderedDict[Hash32, UsageLog] = OrderedDict()
        self._lock = threading.Lock()  # of what this process knows of its logs: one transaction at a time
        self._waiting: SimpleQueue[tuple[Use, asyncio.Future[Recorded]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._closed = self._ended = False  # nobody comes in any more; nothing is written any more
        self._entrance = threading.Lock()  # who comes in while the recorder closes is let in or turned away

    # ------------------------------------------------------------------------------------------ together

    async def record(self, use: Use) -> Recorded:
        """Decides and records a use, together with all that wait.

        Raises:
            Conflict: its id was used for another request.
            NotFound, MirrorBehind, NotFinal: it cannot be decided here and now.
            LogUnavailable: nothing was recorded.
        """
        future = asyncio.get_running_loop().create_future()
        with self._entrance:
            if self._closed:
                raise LogUnavailable("this gateway is closing; ask again with the same use id")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="usage log", daemon=True)
                self._thread.start()
            self._waiting.put((use, future))
        outcome: Recorded = await future
        return outcome

    def close(self) -> None:
        """Waits for what is being recorded; nothing is recorded after."""
        with self._entrance:
            self._closed = True
            thread, self._thread = self._thread, None
            if thread is not None:
                self._waiting.put(None)
        if thread is not None:
            thread.join()
        with self._lock:
            self._ended = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            with suppress(Empty):
                while len(batch) < TOGETHER:
                    more = self._waiting.get_nowait()
                    if more is None:
                        self._waiting.put(None)
                        break
                    batch.append(more)
            outcomes: Sequence[Outcome]
            try:
                outcomes = self.record_all([use for use, _ in batch])
            except SluiceError as problem:
                outcomes = [problem] * len(batch)
            except Exception as problem:  # whatever it is, nobody may wait for ever
                failed = LogUnavailable("the use could not be recorded; ask again with the same use id")
                failed.__cause__ = problem
                outcomes = [failed] * len(batch)
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Recorded], Outcome]]] = {}
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                by_loop.setdefault(future.get_loop(), []).append((future, outcome))
            for loop, told in by_loop.items():
                with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                    loop.call_soon_threadsafe(_tell, told)

    # ----------------------------------------------------------------------------------------- recording

    def record_batch(self, uses: Sequence[Use]) -> tuple[list[Outcome], dict[Hash32, SignedHead]]:
        """As `record_all`, without a receipt for each leaf: one signed head of each log answers for them."""
        signed: dict[Hash32, SignedHead] = {}
        return self.record_all(uses, signed), signed

    def record_all(self, uses: Sequence[Use], signed: dict[Hash32, SignedHead] | None = None) -> list[Outcome]:
        """Decides and records uses in one transaction, in their order; one outcome each, with a receipt for each leaf.

        Args:
            signed: if given, leaves get no receipts; the signed heads of their logs are put here instead.

        Raises:
            MirrorBehind: nothing can be decided.
            LogUnavailable: nothing was recorded.
        """
        moment = self._standings.look()
        found: Found = {}
        for use in uses:
            key = use.authorization_id, use.version
            if key not in found:
                try:
                    found[key] = self._standings.of(*key, moment)
                except SluiceError as problem:
                    found[key] = problem
        decided = [
            (n, use) for n, use in enumerate(uses) if isinstance(found[use.authorization_id, use.version], Standing)
        ]
        outcomes: dict[int, Outcome] = {}
        for n, use in enumerate(uses):
            standing = found[use.authorization_id, use.version]
            if isinstance(standing, SluiceError):
                outcomes[n] = standing
        ids = sorted({use.authorization_id for _, use in decided})
        with self._lock:
            try:
                with self._writing() as connection:
                    logs: dict[Hash32, UsageLog] = {}
                    for id_ in ids:
                        try:
                            logs[id_] = self._open(connection, id_)
                        except SluiceError as problem:
                            # A log that is damaged stops nobody else's.
                            self._forget([id_])
                            outcomes |= {n: problem for n, use in decided if use.authorization_id == id_}
                    decided = [(n, use) for n, use in decided if use.authorization_id in logs]
                    counted = _read_counts(connection, decided, found, moment)
                    had, grown = dict(counted), []
                    for id_, log in logs.items():
                        mine = [(n, use) for n, use in decided if use.authorization_id == id_]
                        made = self._decide(connection, log, mine, found, counted, moment, signed is None, outcomes)
                        if not made:
                            continue
                        grown.append((log, log.write(connection, made)))
                        if signed is not None:
                            terms = _standing(found, mine[0][1]).terms
                            signed[id_] = self._sign(connection, grown[-1][1], terms)
                    _write_counts(connection, {count: n for count, n in counted.items() if n != had.get(count, 0)})
                for log, after in grown:
                    log.take(after)
            except (SQLAlchemyError, sqlite3.Error, psycopg.Error) as problem:
                # What the database holds now is not known here: the logs are read again before they are written again.
                self._forget(ids)
                words = "the usage log could not be written; ask again with the same use id"
                raise LogUnavailable(words) from problem
            except BaseException:
                self._forget(ids)
                raise
        return [outcomes[n] for n in range(len(uses))]

    def _decide(
        self,
        connection: Connection,
        log: UsageLog,
        uses: Sequence[tuple[int, Use]],
        found: Found,
        counted: Counted,
        moment: Moment,
        receipts: bool,
        outcomes: dict[int, Outcome],
    ) -> list[Entry]:
        """The entries to be written, in order; every use gets its outcome."""
        known = {
            e.leaf.use_id_hash: e
            for e in find_entries(connection, log.authorization_id, [u.use_id_hash for _, u in uses])
        }
        made: list[Entry] = []
        way = log.held(connection, moment.now)
        position = Position(log.units, log.credits, log.acknowledged, log.ceiling)
        for n, use in uses:
            standing = _standing(found, use)
            before = known.get(use.use_id_hash)
            if before is not None:
                outcomes[n] = _again(before, use, standing, position, counted, moment.now)
                continue
            if use.begin and use.use_id_hash in way:
                outcomes[n] = UnderWay("this use is under way; ask again in a while", wait=1)
                continue
            if way:
                others = _sum(units for id_, units in way.items() if id_ != use.use_id_hash)
                position = msgspec.structs.replace(position, held=others)
            decision = admission.decide(standing, use.request, position, counted, moment.now)
            if use.only_ask and decision.reason is None:
                if use.begin:
                    log.begin(connection, use.use_id_hash, use.request.units, moment.now + BEGUN_SECONDS)
                    way[use.use_id_hash] = use.request.units
                outcomes[n] = Recorded(None, None)
                continue
            if way.pop(use.use_id_hash, None) is not None:
                log.end(connection, use.use_id_hash)
            after = made[-1].leaf if made else None
            entry = self._entry(log, use, standing, decision, moment.now, after, receipts)
            made.append(entry)
            known[use.use_id_hash] = entry
            for count, adds in decision.counts.items():
                counted[count] = counted.get(count, 0) + adds
            if decision.reason is None:
                position = msgspec.structs.replace(position, units=entry.leaf.cum_units)
            outcomes[n] = Recorded(entry, decision.reason, sign=_half(position, standing))
        return made

    def _entry(
        self,
        log: UsageLog,
        use: Use,
        standing: Standing,
        decision: Decision,
        now: int,
        after: UsageLeaf | None,
        receipts: bool,
    ) -> Entry:
        if decision.reason is None:
            units, kind = use.request.units, Kind.USE
        else:
            units, kind = NO_UNITS, Kind.REFUSAL
        salt, written = secrets.token_bytes(SALT_BYTES), payload_of(use, decision.reason)
        leaf = log.next_leaf(
            use_id_hash=use.use_id_hash,
            units=units,
            kind=kind,
            purpose=use.request.purpose,
            modality=use.request.modality,
            version=use.version,
            payload_hash=payload_hash(salt, written),
            event_time=now if use.event_time is None else min(use.event_time, now),
            now=now,
            after=after,
        )
        signature = None
        if receipts:
            signature = self._signer.sign(receipt_of(leaf), self._domains[standing.terms.ledger])
        return Entry(leaf, use.request_hash, salt, written, signature)

    def _sign(self, connection: Connection, grown: Grown, terms: AuthorizationTerms) -> SignedHead:
        """The provider's word for a log as it is in this transaction."""
        assert grown.last is not None
        head = head_after(grown.last, grown.range.root())
        signed = SignedHead(head, self._signer.sign(head, self._domains[terms.ledger]), None)
        heads.put(connection, signed)
        return signed

    def write(self, authorization_id: Hash32, make: Make) -> Entry | None:
        """Appends what `make(connection, log)` gives, under the log's lock: a credit, a note. None: nothing."""
        with self._lock:
            try:
                with self._writing() as connection:
                    log = self._open(connection, authorization_id)
                    entry = make(connection, log)
                    grown = log.write(connection, [entry]) if entry is not None else None
                if grown is not None:
                    log.take(grown)
            except BaseException:
                self._forget([authorization_id])
                raise
        return entry

    def take_signature(self, signed: SignedHead) -> None:
        """Keeps a head that the consumer has signed; its units are acknowledged from now on."""
        head = signed.head
        with self._one(head.authorization_id) as (connection, log):
            heads.put(connection, signed)
            a, b, c, d = map(max, log.acknowledged, head.units)  # signatures may come in any order
            log.agree(connection, acknowledged=(a, b, c, d))

    def take_ceiling(self, ceiling: UsageCeiling, signature: str, now: int) -> None:
        """Keeps the ceiling that counts from now on.

        Raises:
            Conflict: the one there is reaches further, and holds.
        """
        with self._one(ceiling.authorization_id) as (connection, log):
            had = log.ceiling
            if had is not None and had.expiry >= now and not _covers(ceiling, had):
                words = f"a ceiling of {had.max_due} was signed before, and cannot be taken back in any of its bounds"
                raise Conflict(words, maxDue=str(had.max_due))
            log.agree(connection, ceiling=(ceiling, signature))

    # ---------------------------------------------------------------------------------------------- logs

    def give_up(self, authorization_id: Hash32, use_id_hash: Hash32) -> None:
        """A delivery that had begun came to nothing: what was held is free again."""
        with self._one(authorization_id) as (connection, log):
            log.end(connection, use_id_hash)

    @contextmanager
    def _one(self, authorization_id: Hash32) -> Iterator[tuple[Connection, UsageLog]]:
        """One log, held for a transaction."""
        with self._lock:
            try:
                with self._writing() as connection:
                    yield connection, self._open(connection, authorization_id)
            except BaseException:
                self._forget([authorization_id])
                raise

    def log(self, authorization_id: Hash32) -> UsageLog:
        """A view of a log as it is now, for reading."""
        return UsageLog(self._usage, authorization_id)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction on the connection this recorder keeps: taking one from the pool costs as much as a query."""
        if self._ended:
            raise LogUnavailable("this gateway is closed; ask again with the same use id")
        if self._connection is None:
            self._connection = keep_writing(self._usage)
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            # Whatever broke may have been the connection.
            connection, self._connection = self._connection, None
            with suppress(SQLAlchemyError, sqlite3.Error, psycopg.Error):
                connection.close()
            raise

    def _open(self, connection: Connection, authorization_id: Hash32) -> UsageLog:
        """The log, held for this transaction."""
        log = self._logs.get(authorization_id)
        if log is None:
            log = self._logs[authorization_id] = UsageLog(self._usage, authorization_id)
            if len(self._logs) > OPEN_LOGS:
                self._logs.popitem(last=False)
        self._logs.move_to_end(authorization_id)
        log.hold(connection)
        return log

    def _forget(self, ids: Sequence[Hash32]) -> None:
        for id_ in ids:
            self._logs.pop(id_, None)


def payload_of(use: Use, reason: int | None) -> bytes:
    """What a leaf commits to, as RFC 8785 writes it: `agent`, `asked`, and what became of it.

    The request was written to be hashed, and is not written again: in the order of names only `agent` comes before it.
    """
    if reason is not None:
        why = {"outcome": "refused", "reason": codes.reason(reason).code, "reasonNumber": reason}
        rest = canonical_json(why)
    else:
        rest = canonical_json({**use.delivered, "outcome": "served"}) if use.delivered else _SERVED
    agent = b"" if use.agent is None else b'"agent":"%s",' % use.agent.encode()
    return b"{" + agent + b'"asked":' + use.asked + b"," + rest[1:]


_SERVED = canonical_json({"outcome": "served"})


def _covers(ceiling: UsageCeiling, had: UsageCeiling) -> bool:
    """Whatever settles under the one settles under the other."""
    units = all(n >= before for n, before in zip(ceiling.max_units, had.max_units, strict=True))
    money = ceiling.max_due >= had.max_due and ceiling.min_credits <= had.min_credits
    return units and money and ceiling.expiry >= had.expiry


def _tell(told: Sequence[tuple["asyncio.Future[Recorded]", Outcome]]) -> None:
    for future, outcome in told:
        if future.done():  # whoever asked has gone; what is recorded is recorded
            continue
        if isinstance(outcome, Recorded):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


def _again(before: Entry, use: Use, standing: Standing, position: Position, counted: Counted, now: int) -> Outcome:
    """A use id that is known: the same receipt, and the data only while it would be allowed."""
    if before.request_hash != use.request_hash:
        return Conflict("this use id was used for another request", leaf=before.leaf.index)
    agent = use.request.agent
    if agent is not None:  # its caps were counted before; whether it is allowed at all is asked again
        agent = dataclasses.replace(agent, per_use=MOST, per_day=MOST, uses_per_day=MOST)
    request = msgspec.structs.replace(use.request, units=NO_UNITS, stated=None, agent=agent)
    reason = admission.decide(standing, request, position, counted, now).reason
    return Recorded(before, reason, known=True)


def _standing(found: Found, use: Use) -> Standing:
    standing = found[use.authorization_id, use.version]
    assert isinstance(standing, Standing)
    return standing


def _sum(units: Iterable[Quad]) -> Quad:
    a, b, c, d = (sum(column) for column in zip(NO_UNITS, *units, strict=True))
    return a, b, c, d


def _half(position: Position, standing: Standing) -> bool:
    windows = zip(position.units, position.acknowledged, standing.terms.scope.credit_units, strict=True)
    return any(window and 2 * (n - acknowledged) >= window for n, acknowledged, window in windows)


def _read_counts(
    connection: Connection,
    uses: Sequence[tuple[int, Use]],
    found: Found,
    moment: Moment,
) -> Counted:
    """What stands on the counters these uses may move, held for this transaction; in one order for every writer."""
    wanted: set[Count] = set()
    for _, use in uses:
        standing = _standing(found, use)
        wanted.update(admission.counters_of(standing, use.request, moment.now))
    table, counted = schema.counters, {}
    for count in sorted(wanted):
        where = [table.c[name] == value for name, value in count._asdict().items()]
        query = select(table.c.value).where(*where).with_for_update()
        value = connection.execute(query).scalar()
        if value is None:
            # The row has to be there to be held.
            insert_unless(connection, table, count._asdict() | {"value": 0})
            value = connection.execute(query).scalar_one()
        counted[count] = value
    return counted


def _write_counts(connection: Connection, counted: Counted) -> None:
    table = schema.counters
    for count, value in counted.items():
        where = [table.c[name] == part for name, part in count._asdict().items()]
        connection.execute(update(table).where(*where).values(value=value))
