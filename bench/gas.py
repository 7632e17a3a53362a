"""`make gas`: whole-transaction gas of what people do most, against its ceilings and the last snapshot.

Every figure is `gasUsed` of a real transaction on Anvil in the steady state: accounts, accruals and heads are there
already, as they are on any but the first day. Writes `build/gas.json`; fails if a figure is above its ceiling, or more
than TOLERANCE above `tests/snapshots/gas.json` (`--update` writes that one anew).
"""

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger.chain.client import Chain
from ledger.cli.processes import Processes
from ledger.core.ids import hash_of
from ledger.core.merkle import Tree
from ledger.core.ratecard import MAX_UNITS, Meter, Split, Tier
from ledger.core.terms import FAST, AuthorizationTerms, Quad, UsageHead, approvers_hash
from ledger.core.usage_leaf import UsageLeaf
from tests.world import Key, World, digest

CEILINGS = {
    "settle_single_full": 82_000,
    "settle_single_provider": 76_000,
    "settle_batch25_per_head": 40_000,
    "settle_consistency_1m": 98_000,
    "prove_use_1m": 60_000,
    "open_authorization": 173_000,
    "publish_version": 100_000,
    "deposit": 52_000,
}
SNAPSHOT = Path("tests/snapshots/gas.json")
TOLERANCE = 0.005  # times and signatures have more or fewer zero bytes from run to run
MILLION = 1_000_000

METERS = tuple(
    Meter(scale, free, (Tier(1_000, 3 * price), Tier(100_000, 2 * price), Tier(MAX_UNITS, price)))
    for scale, free, price in ((1, 10, 2_000), (1000, 0, 900_000), (1, 0, 50), (1, 1, 7_000))
)
UNITS: Quad = (5_000, 120_000, 86_400, 30)
MORE: Quad = (5_137, 123_288, 88_000, 31)
RESERVE = 10_000_000_000


class Measured(World):
    """The world with a full rate card and four payees."""

    def split(self) -> Split:
        rest = [(Key.named(f"payee {n}").address, 2_500) for n in range(3)]
        return Split.of([(self.provider.address, 2_500), *rest])


def full(world: World, **changes: Any) -> AuthorizationTerms:
    """Open terms with four meters of three tiers, reserved."""
    terms = world.terms(card=world.card(meters=METERS), max_units=(10**7, 10**9, 10**8, 1_000), **changes)
    world.send(world.stranger, "authorization.open", opening=world.opening(terms, RESERVE))
    return terms


def warm(world: World, terms: AuthorizationTerms, size: int = 10) -> None:
    """A first head, so that the next one finds what steady use finds."""
    head = replace(world.head(terms, 1, UNITS), size=size)
    world.send(world.stranger, "settle.one", settlement=world.settlement(terms, head, consistency=[]))


def singles(world: World) -> dict[str, int]:
    found = {}
    for name, sender, signed in (
        ("settle_single_full", world.stranger, {}),
        ("settle_single_provider", world.provider, {"providerSignature": "0x"}),
    ):
        terms = full(world, flags=FAST)
        warm(world, terms)
        settlement = world.settlement(terms, world.head(terms, 147, MORE), 10, consistency=[], **signed)
        found[name] = world.send(sender, "settle.one", settlement=settlement).gas_used
    return found


def batch(world: World) -> dict[str, int]:
    rows = []
    for _ in range(25):
        terms = full(world, flags=FAST)
        warm(world, terms)
        rows.append(world.settlement(terms, world.head(terms, 147, MORE), 10, consistency=[], providerSignature="0x"))
    receipt = world.send(world.provider, "settle.many", settlements=rows)
    return {"settle_batch25_per_head": receipt.gas_used // 25}


def evidence(world: World) -> dict[str, int]:
    """A head of a million leaves, one that extends it by 137, and one leaf of it proven."""
    terms = full(world)
    authorization = world.id(terms)
    leaf = UsageLeaf(
        authorization_id=authorization,
        index=654_321,
        use_id_hash=digest("use"),
        units=(1, 24, 16, 0),
        cum_units=(4_000, 96_000, 60_000, 20),
        cum_credits=0,
        event_time=world.now(),
        served_at=world.now(),
        kind=0,
        purpose=0,
        modality=1,
        version=world.version,
        payload_hash=digest("payload"),
    )
    hashes = [hashlib.sha256(n.to_bytes(8, "big")).digest() for n in range(MILLION + 137)]
    hashes[leaf.index] = leaf.hash()
    tree = Tree(hashes)

    def head(size: int, units: Quad) -> UsageHead:
        return replace(world.head(terms, 1, units), size=size, root=hash_of(tree.root(size)))

    first, second = head(MILLION, UNITS), head(MILLION + 137, MORE)
    for n, (previous, next_) in enumerate(((None, first), (first, second))):
        size = previous.size if previous else 0
        proof = [hash_of(p) for p in tree.consistency(size, next_.size)]
        settlement = world.settlement(terms, next_, consistency=proof)
        settlement["previous"] = previous.as_json() if previous else None
        gas = world.send(world.stranger, "settle.one", settlement=settlement).gas_used
        assert n or gas
    proved = world.send(
        world.stranger,
        "evidence.use",
        settled=second.as_json(),
        leaf=leaf.as_json(),
        proof=[hash_of(p) for p in tree.inclusion(leaf.index, second.size)],
    )
    return {"settle_consistency_1m": gas, "prove_use_1m": proved.gas_used}


def opening(world: World) -> dict[str, int]:
    """By an offer others have taken before, with one approval that the terms ask for."""
    approver = Key.named("approver")
    asked = [(approver.address, 3)]
    found = {}
    for _ in range(2):
        card = world.card(meters=METERS)
        terms = world.terms(card=card, max_units=(10**7, 10**9, 10**8, 1_000), approvers_hash=approvers_hash(asked))
        document = world.opening(terms, RESERVE) | world.approved(terms, [(approver, 3)], terms.valid_until)
        found["open_authorization"] = world.send(world.stranger, "authorization.open", opening=document).gas_used
    return found


def others(world: World) -> dict[str, int]:
    content = b"a version"
    published = world.send(
        world.provider,
        "product.publish",
        product=world.product,
        digests=[
            {"algorithm": 0x12, "value": hash_of(hashlib.sha256(content).digest())},
            {"algorithm": 0x534D, "value": hash_of(hashlib.new("sm3", content).digest())},
        ],
        metadata=digest("metadata"),
        policyHash=digest("policy"),
        parents=[],
    )
    # Under a standing allowance, which the token leaves as it is; not the whole balance, which would go back to zero.
    world.send(world.consumer, "token.mint", to=world.consumer.address, amount=str(10**9))
    spender = world.deployment.address("UsageLedger")
    world.send(world.consumer, "token.approve", spender=spender, amount=str(2**256 - 1))
    made = {"owner": world.consumer.address, "token": world.token, "amount": "5000000"}
    deposited = world.send(world.consumer, "account.deposit", **made)
    return {"publish_version": published.gas_used, "deposit": deposited.gas_used}


def measure(world: World) -> dict[str, int]:
    world.fund(100 * RESERVE)
    found: dict[str, int] = {}
    for part in (singles, batch, evidence, opening, others):
        found |= part(world)
    return {name: found[name] for name in CEILINGS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the snapshot anew")
    update: bool = parser.parse_args().update
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        found = measure(Measured.on(Chain(processes.anvil(Path(folder) / "state.json"))))
    Path("build").mkdir(exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    Path("build/gas.json").write_text(text)
    if update:
        SNAPSHOT.write_text(text)
    before = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    failed = False
    for name, gas in found.items():
        ceiling, last = CEILINGS[name], before.get(name, 0)
        bad = gas > ceiling or gas > last * (1 + TOLERANCE)
        failed |= bad
        print(f"{'✗' if bad else '✓'} {name:28}{gas:>9,}  ceiling {ceiling:>8,}  snapshot {last:>8,}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
