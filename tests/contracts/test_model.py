"""The contract and the model of it, driven side by side through random histories; after every step, every balance."""

import os
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger.chain.decode import Reverted
from ledger.core.ids import ZERO_HASH, Hash32, hash_of, raw
from ledger.core.terms import FAST, Close, UsageCeiling, UsageHead
from ledger.mirror import queries, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.store import open_mirror
from tests.model import Model
from tests.world import DAY, Key, World, log_tree

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "25"))
STEPS = int(os.environ.get("MODEL_STEPS", "40"))
AMOUNTS = st.integers(0, 30_000_000)
WHICH = st.integers(0, 2)


class Ledgers(RuleBasedStateMachine):
    """Two ledgers: one on a chain, one in memory."""

    world: World
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.snapshot = self.world.chain.rpc("evm_snapshot")
        self.model = Model(self.world.card(), self.world.split())
        self.ids: list[Hash32] = []

    def teardown(self) -> None:
        """Events alone give the same state again."""
        path = self.folder / f"mirror-{time.monotonic_ns()}.db"
        mirror = open_mirror(path, self.world.deployment)
        catch_up(mirror, self.world.chain, self.world.deployment)
        with mirror.connect() as connection:
            for owner, free in self.model.free.items():
                rows = queries.rows(connection, schema.accounts, owner=owner, token=self.world.token)
                assert sum(row["free"] for row in rows) == free
            for id_, held in self.model.held.items():
                row = queries.authorization(connection, id_)
                mirrored = (row["reserved"], row["paid"], row["refunded"], row["ended_at"], row["status"] == "CLOSED")
                assert mirrored == (held.reserved, held.paid, held.refunded, held.ended_at, held.closed)
                assert row["size"] == str(held.head.size if held.head else 0)
        mirror.dispose()
        path.unlink()
        self.world.chain.rpc("evm_revert", self.snapshot)
        self.world.chain.rpc("anvil_setTime", int(time.time()))

    # ------------------------------------------------------------------------------------------- helpers

    def now(self) -> int:
        block = self.world.chain.block("latest")
        assert block is not None
        return block.timestamp

    def party(self, which: int) -> Key:
        return (self.world.consumer, self.world.provider, self.world.stranger)[which]

    def same(self, refusal: str | None, who: Key, operation: str, **arguments: Any) -> None:
        """The chain refuses with the same error, or does it."""
        try:
            self.world.send(who, operation, **arguments)
            found = None
        except Reverted as problem:
            found = problem.details["error"]
        assert found == refusal, (operation, found, refusal)

    def held(self, which: int) -> tuple[Hash32, Any]:
        id_ = self.ids[which % len(self.ids)]
        return id_, self.model.held[id_]

    def pick(self) -> bool:
        return bool(self.ids)

    # --------------------------------------------------------------------------------------------- rules

    @initialize()
    def begin(self) -> None:
        self.world.fund(60_000_000)
        self.model.give(self.world.consumer.address, 60_000_000)

    @rule(which=WHICH, amount=st.integers(1, 20_000_000))
    def deposit(self, which: int, amount: int) -> None:
        self.world.fund(amount, self.party(which))
        self.model.give(self.party(which).address, amount)

    @rule(which=WHICH, amount=AMOUNTS)
    def withdraw(self, which: int, amount: int) -> None:
        who = self.party(which)
        refusal = "AmountZero" if amount == 0 else self.model.take(who.address, amount)
        call = {"token": self.world.token, "amount": str(amount), "to": who.address}
        self.same(refusal, who, "account.withdraw", **call)

    @precondition(lambda self: len(self.ids) < 3)
    @rule(reserve=AMOUNTS, fast=st.booleans(), days=st.integers(1, 6))
    def open(self, reserve: int, fast: bool, days: int) -> None:
        # An hour off, so that no step of seven hours ends on a border.
        until = self.now() + days * DAY + 3600
        terms = self.world.terms(flags=FAST if fast else 0, valid_until=until, revoke_grace=3 * 3600)
        id_ = self.world.id(terms)
        refusal = self.model.open(id_, terms, reserve)
        opening = self.world.opening(terms, reserve)
        self.same(refusal, self.world.stranger, "authorization.open", opening=opening)
        if refusal is None:
            self.ids.append(id_)

    @precondition(pick)
    @rule(
        which=WHICH,
        calls=st.integers(0, 400),
        rows=st.integers(0, 4_000),
        credit=st.integers(0, 300_000),
        how=st.sampled_from(["both", "provider calls", "ceiling"]),
        old=st.booleans(),
    )
    def settle(self, which: int, calls: int, rows: int, credit: int, how: str, old: bool) -> None:
        id_, held = self.held(which)
        head = self.grown(id_, held, calls, rows, credit)
        # Now and then with a previous head that is not the settled one any more.
        stale = old and held.head is not None and calls % 5 == 0
        row = self.world.settlement(held.terms, head)
        row["previous"] = held.head.as_json() if held.head and not stale else None
        size = held.head.size if held.head else 0
        row["consistency"] = [hash_of(p) for p in log_tree(head.size).consistency(size)]
        who = self.world.stranger
        if how == "provider calls":
            row["providerSignature"], who = "0x", self.world.provider
        elif how == "ceiling":
            bounds = UsageCeiling(
                authorization_id=id_,
                max_units=head.units,
                min_credits=head.credits,
                max_due=self.model.price(head),
                expiry=2**40 - 1,
            )
            signature = self.world.consumer.sign(bounds, self.world.domain(held.terms))
            row["ceilings"], row["consumerSignature"] = [{"ceiling": bounds.as_json(), "signature": signature}], "0x"
        refusal = self.model.settle(id_, None if stale else held.head, head, self.now())
        self.same(refusal, who, "settle.one", settlement=row)

    def grown(self, id_: Hash32, held: Any, calls: int, rows: int, credit: int) -> UsageHead:
        before = held.head
        a, b, _, _ = before.units if before else (0, 0, 0, 0)
        size = (before.size if before else 0) + 1 + calls % 7
        return UsageHead(
            authorization_id=id_,
            size=size,
            units=(a + calls, b + rows, 0, 0),
            credits=(before.credits if before else 0) + credit,
            as_of=self.now(),
            root=hash_of(log_tree(size).root()),
        )

    @precondition(pick)
    @rule(which=WHICH, payer=WHICH, amount=AMOUNTS)
    def top_up(self, which: int, payer: int, amount: int) -> None:
        id_, held = self.held(which)
        who = self.party(payer)
        settled = held.head.as_json() if held.head else None
        refusal = self.model.top_up(id_, who.address, amount, self.now())
        call = {"terms": held.terms.as_json(), "settled": settled, "amount": str(amount)}
        self.same(refusal, who, "authorization.top-up", **call)

    @precondition(pick)
    @rule(which=WHICH, amount=AMOUNTS)
    def thaw(self, which: int, amount: int) -> None:
        id_, held = self.held(which)
        call = {"terms": held.terms.as_json(), "amount": str(amount)}
        before = (held.thawing, held.thaw_end)
        refusal = self.model.thaw(id_, amount, self.now())
        self.same(refusal, self.world.consumer, "authorization.thaw", **call)
        if refusal is None:
            held.thaw_end = self.now() + held.terms.thaw_seconds  # of the block it is in
        else:
            assert (held.thawing, held.thaw_end) == before

    @precondition(pick)
    @rule(which=WHICH)
    def release(self, which: int) -> None:
        id_, held = self.held(which)
        refusal = self.model.release(id_, self.now())
        self.same(refusal, self.world.stranger, "authorization.release", terms=held.terms.as_json())

    @precondition(pick)
    @rule(which=WHICH, amount=st.integers(0, 3_000_000))
    def refund(self, which: int, amount: int) -> None:
        id_, held = self.held(which)
        refusal = self.model.refund(id_, amount)
        call = {"terms": held.terms.as_json(), "amount": str(amount)}
        self.same(refusal, self.world.provider, "authorization.refund", **call)

    @precondition(pick)
    @rule(which=WHICH, by_consumer=st.booleans())
    def close(self, which: int, by_consumer: bool) -> None:
        id_, held = self.held(which)
        refusal = self.model.close(id_, by_consumer, self.now())
        who = self.world.consumer if by_consumer else self.world.provider
        self.same(refusal, who, "authorization.close", terms=held.terms.as_json(), reason=1)
        if refusal is None:
            held.ended_at = self.now() + (0 if by_consumer else held.terms.revoke_grace)

    @precondition(pick)
    @rule(which=WHICH, calls=st.integers(0, 200), newer=st.booleans(), extra=st.integers(0, 2_000_000))
    def close_together(self, which: int, calls: int, newer: bool, extra: int) -> None:
        id_, held = self.held(which)
        head = self.grown(id_, held, calls, 0, 0) if newer else held.head
        domain = self.world.domain(held.terms)
        close = Close(
            authorization_id=id_,
            head_digest=head.digest(domain) if head else ZERO_HASH,
            final_paid=held.paid + extra,
            deadline=2**40 - 1,
        )
        size = held.head.size if held.head else 0
        proof = log_tree(head.size).consistency(size) if head else []
        closing = {
            "terms": held.terms.as_json(),
            "previous": held.head.as_json() if held.head else None,
            "head": head.as_json() if head else None,
            "close": close.as_json(),
            "providerSignature": self.world.provider.sign(close, domain),
            "consumerSignature": self.world.consumer.sign(close, domain),
            "consistency": [hash_of(p) for p in proof],
        }
        ended_at = held.ended_at
        refusal = self.model.close_together(id_, head, close.final_paid, self.now())
        self.same(refusal, self.world.stranger, "authorization.close-together", closing=closing)
        if refusal is None:
            held.ended_at = min(ended_at, self.now())

    @precondition(pick)
    @rule(which=WHICH)
    def finalize(self, which: int) -> None:
        id_, held = self.held(which)
        refusal = self.model.finalize(id_, self.now())
        self.same(refusal, self.world.stranger, "authorization.finalize", terms=held.terms.as_json())

    @precondition(pick)
    @rule(which=WHICH)
    def pay_share(self, which: int) -> None:
        payee = self.model.split.shares[which][0]
        call = {"split": self.model.split.id(), "token": self.world.token, "payee": payee}
        self.same(self.model.pay_share(payee), self.world.stranger, "share.pay", **call)

    @rule()
    def pass_seven_hours(self) -> None:
        self.world.pass_time(7 * 3600)

    # ---------------------------------------------------------------------------------------- after each

    @invariant()
    def every_balance_is_the_same(self) -> None:
        world, model, now = self.world, self.model, self.now()
        for which in range(3):
            key = self.party(which)
            assert world.free(key) == model.free.get(key.address, 0)
        for held in model.held.values():
            found, state = world.reservation(held.terms), world.state(held.terms)
            assert found == {
                "reserved": held.reserved,
                "paid": held.paid,
                "thawing": held.releasable,
                "thawEnd": held.thaw_end,
                "refunded": held.refunded,
            }
            assert (state["status"], state["endedAt"]) == (held.status(now), held.ended_at)
            digest = held.head.digest(world.domain(held.terms)) if held.head else ZERO_HASH
            assert state["headDigest"] == digest
        if model.held:
            assert world.read("UsageLedger", "accruedOf", raw(model.split.id()), world.token) == model.accrued
        assert world.ledger_balance() == model.owed()


def test_the_contract_does_what_the_model_says(world: World, tmp_path: Path) -> None:
    world.terms()  # registers card and split
    Ledgers.world, Ledgers.folder = world, tmp_path
    run_state_machine_as_test(
        Ledgers,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
