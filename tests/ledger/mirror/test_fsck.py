"""Checking a mirror against the chain: row by row, and by proofs from the contracts' storage."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from ledger.chain.client import Chain
from ledger.chain.settled import read_settled, read_settled_by_abi
from ledger.core.database import Target, writing
from ledger.mirror import packing, schema
from ledger.mirror.follow import catch_up
from ledger.mirror.fsck import fsck
from ledger.mirror.store import open_mirror, upgrade
from ledger.mirror.verify import BlockGone, ProofInvalid, verify
from tests.world import World, digest


@pytest.fixture
def mirror(world: World, database: Target) -> Iterator[Engine]:
    """A mirror with some of everything: escrow, invoices, a thaw, shares, a refund, a close."""
    terms = world.open(6_000_000)
    world.settle(terms, 5, (5, 120, 0, 0))
    world.settle(terms, 60, (60, 1440, 0, 0), 5)
    world.send(world.consumer, "authorization.thaw", terms=terms.as_json(), amount="1000")
    world.send(world.holder, "share.pay", split=terms.split, token=terms.token, payee=world.holder.address)
    invoiced = world.open(invoiced=True)
    world.settle(invoiced, 7, (7, 170, 0, 0))
    payment = {"terms": invoiced.as_json(), "referenceHash": digest("bank"), "amount": "1000"}
    world.send(world.provider, "payment.record", **payment)
    closed = world.open(2_000_000)
    world.send(world.consumer, "authorization.close", terms=closed.as_json(), reason=101)
    engine = open_mirror(database, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    yield engine
    engine.dispose()


def test_every_row_is_what_another_reader_makes_of_the_chain(mirror: Engine, world: World) -> None:
    found = fsck(mirror, world.chain, world.deployment)
    assert found.differences == []
    assert found.rows > 50


@pytest.mark.parametrize(
    ("table", "change", "column"),
    [
        ("accounts", "free = free + 1", "free"),
        ("settlements", "due = due + 1", "due"),
        ("authorizations", "ended_how = 'revoked'", "ended_how"),
        ("events", "event = 'Other'", "event"),
    ],
)
def test_a_changed_row_is_found(mirror: Engine, world: World, table: str, change: str, column: str) -> None:
    with writing(mirror) as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET {change}")
    found = fsck(mirror, world.chain, world.deployment)
    assert {d.table for d in found.differences} >= {table}
    one = next(d for d in found.differences if d.table == table)
    assert one.mine is not None
    assert one.chain is not None
    assert {name for name in one.mine if one.mine[name] != one.chain[name]} == {column}


def test_a_row_that_is_missing_and_one_too_many_are_found(mirror: Engine, world: World) -> None:
    with writing(mirror) as connection:
        connection.execute(schema.payments.delete())
        row = {"split": digest("s"), "token": world.token, "payee": world.token, "since": 1, "until": None, "sent": 5}
        connection.execute(schema.shares.insert(), [row])
    found = fsck(mirror, world.chain, world.deployment).differences
    assert [d.mine for d in found if d.table == "payments"] == [None]
    assert [d.chain for d in found if d.table == "shares"] == [None]
    assert {d.table for d in found} <= {"payments", "shares", "blocks"}


def test_changed_logs_and_digests_are_found(mirror: Engine, world: World) -> None:
    with writing(mirror) as connection:
        number, logs = connection.execute(
            schema.blocks.select().with_only_columns(schema.blocks.c.number, schema.blocks.c.logs).limit(1)
        ).one()
        cut = packing.compress(packing.pack(packing.unpack(logs)[:-1]))
        connection.execute(schema.blocks.update().where(schema.blocks.c.number == number).values(logs=cut))
    found = fsck(mirror, world.chain, world.deployment).differences
    assert ("blocks", (number,)) in {(d.table, d.key) for d in found}


def test_an_empty_mirror_has_nothing_to_compare(world: World, database: Target) -> None:
    engine = open_mirror(database, world.deployment)
    assert fsck(engine, world.chain, world.deployment).block == -1
    engine.dispose()


def test_both_readers_of_settlements_say_the_same(mirror: Engine) -> None:
    with mirror.connect() as connection:
        packed = connection.execute(schema.blocks.select().with_only_columns(schema.blocks.c.logs)).scalars()
        logs = [log for block in packed for log in packing.unpack(block)]
    settled = []
    for log in logs:
        try:
            settled.append((read_settled(log), log))
        except Exception:
            continue
    assert len(settled) == 3
    assert all(read_settled_by_abi(log) == found for found, log in settled)


# -------------------------------------------------------------------------------------------------- proofs


def test_rows_are_proved_from_the_contracts_storage(mirror: Engine, world: World) -> None:
    with mirror.connect() as connection:
        found = verify(connection, world.chain, world.deployment)
    assert found.differences == []
    assert found.header_hashed
    assert found.words > 10


@pytest.mark.parametrize(
    ("table", "change"),
    [("accounts", "free = free + 1"), ("settlements", "paid = paid - 1"), ("authorizations", "refunded = 1")],
)
def test_a_row_that_the_contract_does_not_have_is_found(mirror: Engine, world: World, table: str, change: str) -> None:
    with writing(mirror) as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET {change}")
    with mirror.connect() as connection:
        assert verify(connection, world.chain, world.deployment).differences


class Forging(Chain):
    """A node that changes a proof: `where` is accountProof, a storage proof's node or the header's root."""

    def __init__(self, url: str, where: str) -> None:
        super().__init__(url)
        self._where = where

    def rpc(self, method: str, *params: Any) -> Any:
        answer = super().rpc(method, *params)
        if method == "eth_getProof":
            nodes = answer["accountProof"] if self._where == "account" else answer["storageProof"][0]["proof"]
            if self._where in ("account", "storage"):
                nodes[-1] = nodes[-1][:-2] + ("00" if nodes[-1][-2:] != "00" else "01")
            if self._where == "no RLP":
                nodes[-1] = "0x8100"  # a single byte in a longer form than it has
        if method == "eth_getBlockByNumber" and self._where == "root" and answer:
            answer["stateRoot"] = "0x" + "11" * 32
        return answer


@pytest.mark.parametrize("where", ["account", "storage", "root", "no RLP"])
def test_a_forged_proof_proves_nothing(mirror: Engine, world: World, where: str) -> None:
    with mirror.connect() as connection, pytest.raises(ProofInvalid):
        verify(connection, Forging(world.chain.url, where), world.deployment)


def test_a_node_without_the_mirrors_block_proves_nothing(mirror: Engine, world: World) -> None:
    with writing(mirror) as connection:
        connection.execute(schema.cursor.update().values(number=10**9))
    with mirror.connect() as connection, pytest.raises(BlockGone):
        verify(connection, world.chain, world.deployment)


# ---------------------------------------------------------------------------------------------- migrations


def test_an_upgrade_makes_what_is_missing_and_says_so(world: World, database: Target) -> None:
    assert upgrade(database, world.deployment) == (None, "0001")
    assert upgrade(database, world.deployment) == ("0001", "0001")
    engine = open_mirror(database, world.deployment)
    catch_up(engine, world.chain, world.deployment)
    assert fsck(engine, world.chain, world.deployment).differences == []
    engine.dispose()
