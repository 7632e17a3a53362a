"""Whatever the order, retries, crashes and company: the log is what was served, each use once, the totals right."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from ledger.core.database import Target
from ledger.core.errors import Conflict, NotFound, SluiceError
from ledger.core.hashing import canonical_json
from ledger.core.ids import Hash32, hash_of
from ledger.core.merkle import Tree
from ledger.core.ratecard import MAX_UNITS, Meter, RateCard, Tier
from ledger.core.signing import is_signed_by
from ledger.core.typed_data import Domain
from ledger.core.usage_leaf import Kind, payload_hash
from ledger.metering import schema
from ledger.metering.admission import Request, Standing
from ledger.metering.log import Entry, SignedHead, UsageLog, open_usage, read_entries, receipt_of
from ledger.metering.policy import Limit
from ledger.metering.recorder import LogUnavailable, Recorded, Recorder, Use, payload_of
from ledger.metering.standing import Moment, Standings
from tests.ledger.metering.test_admission import NOW, standing
from tests.world import Key, digest

PROVIDER = Key.named("provider")
DOMAIN = Domain(31_337, PROVIDER.address)
CARD = RateCard(PROVIDER.address, 6, (Meter(1, 10, (Tier(100, 10_000), Tier(MAX_UNITS, 6_000))),))


class Known(Standings):
    """Standings as a test wants them, by authorization."""

    def __init__(self, *found: Standing) -> None:
        self.found = {s.authorization_id: s for s in found}

    def look(self) -> Moment:
        return Moment(NOW, 0)

    def of(self, authorization_id: Hash32, version: Hash32, moment: Moment) -> Standing:
        if authorization_id not in self.found:
            raise NotFound(f"there is no authorization {authorization_id}")
        return self.found[authorization_id]


def authorization(name: str, quota: int = 10**6, **changes: Any) -> Standing:
    terms = {"max_units": (quota, 0, 0, 0)} | changes.pop("terms", {})
    return standing(terms=terms, authorization_id=digest(name), card=CARD, reserved=10**15, **changes)


def use(at: Standing, name: str, units: int = 1, **changes: Any) -> Use:
    asked = canonical_json({"name": name, "units": str(units)})
    values: dict[str, Any] = {
        "authorization_id": at.authorization_id,
        "version": at.version,
        "use_id_hash": digest(name),
        "request_hash": digest(asked.decode()),
        "request": Request(0, 0, (units, 0, 0, 0), **changes.pop("request", {})),
        "asked": asked,
    }
    return Use(**values | changes)


@pytest.fixture
def usage(database: Target) -> Iterator[Engine]:
    engine = open_usage(database)
    yield engine
    engine.dispose()


@contextmanager
def recorder_of(usage: Engine, *found: Standing) -> Iterator[Recorder]:
    recorder = Recorder(usage, Known(*found), PROVIDER, {"UsageLedger": DOMAIN})
    yield recorder
    recorder.close()


def check(usage: Engine, at: Standing) -> list[Entry]:
    """What must hold of any log: gapless, unique, totals that add up, receipts that hold, one tree, one price."""
    with usage.connect() as connection:
        entries = read_entries(connection, at.authorization_id)
    leaves = [entry.leaf for entry in entries]
    assert [leaf.index for leaf in leaves] == list(range(len(leaves)))
    assert len({leaf.use_id_hash for leaf in leaves}) == len(leaves)
    total = 0
    for entry in entries:
        leaf = entry.leaf
        total += leaf.units[0]
        assert leaf.cum_units == (total, 0, 0, 0)
        assert leaf.units[0] == 0 or leaf.kind == Kind.USE
        assert entry.salt is not None
        assert entry.written is not None
        assert payload_hash(entry.salt, entry.written) == leaf.payload_hash
        assert canonical_json(entry.payload) == entry.written
    log = UsageLog(usage, at.authorization_id)
    if leaves:
        head = log.head()
        assert (head.size, head.units, head.as_of) == (len(leaves), leaves[-1].cum_units, leaves[-1].served_at)
        assert head.root == hash_of(Tree(leaf.hash() for leaf in leaves).root()) == hash_of(log.tree.root())
        steps = sum(CARD.worth(leaf.units, leaf.cum_units) for leaf in leaves)
        assert steps == CARD.price(head.units) == sum(c.amount for c in CARD.charges((0, 0, 0, 0), head.units))
    return entries


# ------------------------------------------------------------------------------------------------ company


def test_sixteen_clients_and_three_gateways_write_one_log(usage: Engine) -> None:
    """16 × 1,000 uses: duplicates, retries after lost answers, refusals at the quota, jobs reported in between."""
    at = authorization("busy", quota=15_000)
    served: dict[str, int] = {}
    lock = threading.Lock()

    async def client(recorder: Recorder, number: int) -> None:
        some = random.Random(number)
        for n in range(1_000):
            # One in ten is asked by two clients, one in twenty is asked again at once.
            name = f"shared {n}" if n % 10 == 0 else f"{number} {n}"
            mine = use(at, name, 1 + n % 2)
            again = [recorder.record(mine) for _ in range(2 if some.random() < 0.05 else 1)]
            for outcome in await asyncio.gather(*again):
                assert outcome.entry is not None
                with lock:
                    assert served.setdefault(name, outcome.entry.leaf.index) == outcome.entry.leaf.index

    def gateway(numbers: list[int]) -> None:
        async def work() -> None:
            with recorder_of(usage, at) as recorder:
                await asyncio.gather(*(client(recorder, number) for number in numbers))

        asyncio.run(work())

    def jobs() -> None:
        with recorder_of(usage, at) as recorder:
            for batch in range(10):
                reported = [use(at, f"job {batch} {n}") for n in range(50)]
                outcomes, signed = recorder.record_batch(reported)
                head = signed[at.authorization_id]
                assert is_signed_by(PROVIDER.address, head.head, DOMAIN, head.provider_signature)
                last = [o.entry for o in outcomes if isinstance(o, Recorded) and o.entry][-1]
                assert head.head.size == last.leaf.index + 1

    gateways = [threading.Thread(target=gateway, args=(list(range(n, 16, 3)),)) for n in range(3)]
    threads = [*gateways, threading.Thread(target=jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = check(usage, at)
    names = {f"shared {n}" for n in range(0, 1_000, 10)}
    assert len(served) == len(names) + 16 * 900
    assert len(entries) == len(served) + 500
    uses = [e for e in entries if e.leaf.kind == Kind.USE]
    assert 14_999 <= uses[-1].leaf.cum_units[0] <= 15_000  # up to the quota, and not one more
    by_index = {entry.leaf.index: entry for entry in entries}
    assert all(by_index[index].leaf.use_id_hash == digest(name) for name, index in served.items())
    receipts = [e for e in entries if e.signature is not None]
    assert len(receipts) == len(served)
    for entry in random.Random(1).sample(receipts, 200):
        assert entry.signature is not None
        assert is_signed_by(PROVIDER.address, receipt_of(entry.leaf), DOMAIN, entry.signature)


def test_limits_across_authorizations_are_kept_whoever_writes(usage: Engine) -> None:
    """Two gateways, four authorizations in both orders, one limit for all of them; nobody waits for ever."""
    policy = {"limits": (Limit("persons", "SENSITIVE_PI", "provider-year", 300),)}
    four = [authorization(f"export {n}", policy=policy) for n in range(4)]

    def gateway(name: str, order: list[Standing]) -> None:
        with recorder_of(usage, *four) as recorder:
            for n in range(60):
                batch = [
                    use(at, f"{name} {n} {at.authorization_id}", request={"stated": {"persons": 1}}) for at in order
                ]
                recorder.record_all(batch)

    threads = [
        threading.Thread(target=gateway, args=("one", four)),
        threading.Thread(target=gateway, args=("two", four[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = [entry.leaf.kind for at in four for entry in check(usage, at)]
    assert (kinds.count(Kind.USE), kinds.count(Kind.REFUSAL)) == (300, 180)
    with usage.connect() as connection:
        assert [row.value for row in connection.execute(select(schema.counters))] == [300]


# ------------------------------------------------------------------------------------------------ crashes


class Broken(Exception):
    """What no code expects."""


@pytest.mark.parametrize("where", ["write", "take", "_grow", "hold"])
@pytest.mark.parametrize("problem", [Broken("bug"), OSError("disk full"), LogUnavailable("gone")])
def test_a_failure_at_any_step_counts_nothing_and_nobody_waits_for_ever(
    usage: Engine, where: str, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = authorization("fragile")

    async def work(recorder: Recorder) -> None:
        await recorder.record(use(at, "before"))
        with monkeypatch.context() as broken:

            def fails(*_: Any, **__: Any) -> None:
                raise problem

            broken.setattr(UsageLog, where, fails)
            for one in await asyncio.gather(
                *(recorder.record(use(at, f"lost {n}")) for n in range(5)), return_exceptions=True
            ):
                assert isinstance(one, SluiceError)
        found = await asyncio.gather(*(recorder.record(use(at, f"lost {n}")) for n in range(5)))
        assert all(outcome.entry is not None for outcome in found)

    with recorder_of(usage, at) as recorder:
        asyncio.run(asyncio.wait_for(work(recorder), 20))
    assert len(check(usage, at)) == 6


def test_who_has_gone_is_counted_and_others_are_answered(usage: Engine) -> None:
    at = authorization("impatient")

    async def work(recorder: Recorder) -> None:
        tasks = [asyncio.ensure_future(recorder.record(use(at, f"use {n}"))) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        for task in tasks[1::2]:
            assert (await task).entry is not None
        for task in tasks[::2]:
            with suppress(asyncio.CancelledError):
                await task
        again = await asyncio.gather(*(recorder.record(use(at, f"use {n}")) for n in range(20)))
        assert sorted(o.entry.leaf.index for o in again if o.entry) == list(range(20))

    with recorder_of(usage, at) as recorder:
        asyncio.run(work(recorder))
    assert len(check(usage, at)) == 20


def test_one_that_cannot_be_decided_does_not_spoil_the_others(usage: Engine) -> None:
    at, unknown = authorization("known"), authorization("unknown")

    async def work(recorder: Recorder) -> list[Any]:
        await recorder.record(use(at, "first"))
        asked = [use(at, "second"), use(unknown, "lost"), use(at, "first", 2), use(at, "third")]
        return await asyncio.gather(*map(recorder.record, asked), return_exceptions=True)

    with recorder_of(usage, at) as recorder:
        second, lost, changed, third = asyncio.run(work(recorder))
    assert isinstance(lost, NotFound)
    assert isinstance(changed, Conflict)
    assert (second.entry.leaf.index, third.entry.leaf.index) == (1, 2)
    check(usage, at)


# ------------------------------------------------------------------------------------------------ any order

names = st.sampled_from([f"use {n}" for n in range(12)])
steps = st.one_of(
    st.tuples(st.just("use"), names, st.integers(0, 40)),
    st.tuples(st.just("ask"), names, st.integers(0, 40)),
    st.tuples(st.just("batch"), st.lists(st.tuples(names, st.integers(0, 40)), min_size=1, max_size=6)),
    st.tuples(st.just("sign")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("fail"), names),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=30), st.integers(0, 50), st.integers(1, 200))
def test_any_history_gives_the_log_that_a_model_gives(
    tmp_path_factory: pytest.TempPathFactory, history: list[Any], window: int, quota: int
) -> None:
    at = authorization("history", quota, terms={"max_units": (quota, 0, 0, 0), "credit_units": (window, 0, 0, 0)})
    usage = open_usage(tmp_path_factory.mktemp("history") / "usage.db")
    model: dict[str, tuple[int, int, bool]] = {}  # name → index, units asked for, served
    total = signed = 0

    def expected(name: str, units: int, record: bool) -> Any:
        nonlocal total
        if name in model:
            return model[name] if model[name][1] == units else Conflict
        fits = total + units <= quota and not (window and total + units - signed > window)
        if not record and fits:
            return None
        model[name] = (len(model), units, fits)
        total += units if fits else 0
        return model[name]

    def agrees(outcome: Any, wanted: Any) -> None:
        if wanted is Conflict:
            assert isinstance(outcome, Conflict)
        elif wanted is None:
            assert outcome == Recorded(None, None)
        else:
            assert (outcome.entry.leaf.index, outcome.entry.leaf.kind == Kind.USE) == (wanted[0], wanted[2])

    recorder = Recorder(usage, Known(at), PROVIDER, {"UsageLedger": DOMAIN})
    for step in history:
        if step[0] in ("use", "ask"):
            wanted = expected(step[1], step[2], step[0] == "use")
            agrees(recorder.record_all([use(at, step[1], step[2], only_ask=step[0] == "ask")])[0], wanted)
        elif step[0] == "batch":
            wanted = [expected(name, units, True) for name, units in step[1]]
            outcomes, _ = recorder.record_batch([use(at, name, units) for name, units in step[1]])
            for outcome, one in zip(outcomes, wanted, strict=True):
                agrees(outcome, one)
        elif step[0] == "sign" and model:
            head = recorder.log(at.authorization_id).head()
            made = SignedHead(head, PROVIDER.sign(head, DOMAIN), "0x" + "11" * 65)
            recorder.take_signature(made)
            signed = total
        elif step[0] == "restart":
            recorder.close()
            recorder = Recorder(usage, Known(at), PROVIDER, {"UsageLedger": DOMAIN})
        elif step[0] == "fail":
            monkey = pytest.MonkeyPatch()
            monkey.setattr(UsageLog, "take", _raises)
            try:
                # Committed, and the process dies before it knows: the answer is lost, the use is not.
                with pytest.raises(Broken):
                    recorder.record_all([use(at, step[1], 1)])
                expected(step[1], 1, True)
            except BaseException:
                if step[1] not in model:
                    raise
            finally:
                monkey.undo()
    entries = check(usage, at)
    assert [(e.leaf.index, e.leaf.kind == Kind.USE) for e in entries] == [(m[0], m[2]) for m in model.values()]
    recorder.close()
    usage.dispose()


def _raises(*_: Any) -> None:
    raise Broken("the process died")


@given(
    st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="\x7f")), st.text()),
    st.sampled_from([None, 10, 12, 25]),
    st.booleans(),
    st.booleans(),
)
def test_a_payload_is_written_as_rfc_8785_writes_it(asked: Any, reason: int | None, agent: bool, plain: bool) -> None:
    given_use = use(
        authorization("payload"), "x", asked=canonical_json(asked), agent=PROVIDER.address if agent else None
    )
    delivered = {} if plain else {"status": 200, "responseSha256": digest("x"), "bytes": 5, "stated": {"persons": "3"}}

    written = payload_of(msgspec.structs.replace(given_use, delivered=delivered), reason)
    found = msgspec.json.decode(written)
    assert canonical_json(found) == written
    assert found["asked"] == asked
    assert found["outcome"] == ("served" if reason is None else "refused")
