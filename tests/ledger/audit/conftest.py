"""A bundle over a finished exchange: one escrowed authorization with a refusal, one invoiced and paid."""

from pathlib import Path

import pytest

from ledger.audit.export import export
from ledger.core.money import UY_PER_FEN
from ledger.metering.client import UseRefused
from tests.exchange import Exchange
from tests.world import digest


@pytest.fixture
def bundle(running: Exchange, tmp_path: Path) -> Path:
    world = running.world
    escrowed, invoiced = running.open(), running.open(0, invoiced=True)
    for terms in (escrowed, invoiced):
        consumer = running.consumer(terms, f"consumer-{terms.flags}")
        for n in range(12):
            query = {"from": f"2026-01-01T{n:02d}:00:00", "limit": str(1 + n)}
            consumer.use(running.version, "RESEARCH", query)
        signed = consumer.sign_head()
        running.settle(terms, signed)
    world.send(world.provider, "authorization.revoke", terms=escrowed.as_json(), approvers=[], reason=100)
    world.pass_time(5)
    running.follow()
    consumer = running.consumer(escrowed, "consumer-0")
    with pytest.raises(UseRefused):
        consumer.use(running.version, "RESEARCH", {"limit": "3"})
    running.settle(escrowed, consumer.sign_head(), 12)
    payment = {"terms": invoiced.as_json(), "referenceHash": digest("bank"), "amount": str(3 * UY_PER_FEN)}
    world.send(world.provider, "payment.record", **payment)
    running.follow()
    folder = tmp_path / "bundle"
    wanted = [world.id(escrowed), world.id(invoiced)]
    with running.mirror.connect() as mirror, running.usage.connect() as usage:
        export(folder, mirror, usage, world.deployment.as_json(), wanted)
    return folder
