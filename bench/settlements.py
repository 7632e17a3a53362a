"""A busy chain for benchmarks: hundreds of thousands of real settlements on a real UsageLedger, in minutes.

Every settlement carries the consumer's signature over its head, prices its units and pays. What makes it quick is that
the calldata of a batch is patched, not encoded, and that the node mines a block of many batches at a time.
"""

import struct
from dataclasses import dataclass, replace
from typing import Any

import coincurve
from eth_abi.abi import encode as abi_encode
from rich.progress import Progress

from ledger.chain import artifacts
from ledger.chain.client import Chain
from ledger.chain.operations import encode
from ledger.cli.processes import Processes, anvil_binary
from ledger.core.hashing import keccak256
from ledger.core.ids import hash_of, raw
from ledger.core.loopback import HOST, listen
from ledger.core.terms import FAST, AuthorizationTerms, UsageHead
from tests.world import World, digest

BATCH = 25  # heads a transaction
ROWS = 24  # of the second meter, a use

_WORD = struct.Struct(">24xQ")
_HEAD = struct.Struct(">24xQ24xQ24xQ32x32x32x24xQ32s")  # size, calls, rows, two unused meters, credits, asOf, root
_PREVIOUS, _NEW, _SIGNATURE, _LENGTH = 544, 800, 1248, 1408  # places in a row's bytes
_ROOT = b"\x11" * 32


@dataclass
class Busy:
    """What was put on the chain: blocks `first` to `last` hold all settlements."""

    settlements: int
    first: int
    last: int


def busy_chain(processes: Processes) -> str:
    """The URL of an Anvil without fees, with large blocks."""
    with listen(0) as probe:
        port = str(probe.getsockname()[1])
    free = ["--base-fee", "0", "--gas-price", "0", "--gas-limit", "3000000000", "--prune-history"]
    processes.start("anvil", [anvil_binary(), "--host", HOST, "--port", port, "--silent", *free])
    url = f"http://{HOST}:{port}"
    Chain(url, attempts=8).chain_id()
    return url


def settle_often(world: World, authorizations: int, blocks: int) -> Busy:
    """One settlement of each authorization in each block."""
    reserve = 100_000_000
    opened = _open(world, authorizations, reserve)
    domain = world.domain(opened[0])
    separator, as_of = domain.separator(), world.now() - 1
    key = coincurve.PrivateKey(bytes(world.consumer.account.key))
    rows = [bytearray(_row(world, terms)) for terms in opened]
    prefixes = [_struct_prefix(world, terms) for terms in opened]
    world.chain.rpc("anvil_impersonateAccount", world.provider.address)
    world.chain.rpc("evm_setAutomine", False)
    head = world.chain.block("latest")
    assert head is not None
    selector = artifacts.items("UsageLedger", "function")["settleMany"].hash[:4]
    ledger = world.deployment.address("UsageLedger")
    with Progress() as bar:
        task = bar.add_task("settling 结算中", total=blocks)
        for n in range(1, blocks + 1):
            packed = _HEAD.pack(n, n, ROWS * n, as_of, _ROOT)
            for row, prefix in zip(rows, prefixes, strict=True):
                row[_PREVIOUS:_NEW] = row[_NEW : _NEW + 256] if n > 1 else bytes(256)
                row[_NEW : _NEW + 256] = packed
                signed = key.sign_recoverable(_digest(separator, prefix, packed), hasher=None)
                row[_SIGNATURE : _SIGNATURE + 65] = signed[:64] + bytes([signed[64] + 27])
            calls = []
            for at in range(0, len(rows), BATCH):
                data = selector + _array(rows[at : at + BATCH])
                fields = {
                    "from": world.provider.address,
                    "to": ledger,
                    "data": "0x" + data.hex(),
                    "gas": hex(2_500_000),
                }
                calls.append(("eth_sendTransaction", [fields | {"gasPrice": hex(0)}]))
            world.chain.batch(calls)
            world.chain.rpc("evm_mine")
            bar.advance(task)
    world.chain.rpc("evm_setAutomine", True)
    made = Busy(authorizations * blocks, head.number + 1, head.number + blocks)
    _check(world, opened, blocks)
    return made


def _open(world: World, count: int, reserve: int) -> list[AuthorizationTerms]:
    world.fund(reserve * count)
    first = world.terms(flags=FAST)
    opened = [replace(first, salt=digest(f"busy {n}")) for n in range(count)]
    for terms in opened:
        world.send_unchecked(world.stranger, "authorization.open", opening=world.opening(terms, reserve))
    return opened


def _row(world: World, terms: AuthorizationTerms) -> bytes:
    """A settlement's bytes in the ABI, with room for heads and the consumer's signature."""
    head = UsageHead(
        authorization_id=world.id(terms), size=1, units=(1, ROWS, 0, 0), credits=0, as_of=1, root=hash_of(_ROOT)
    )
    settlement = world.settlement(terms, head) | {"providerSignature": "0x", "consistency": []}
    data = encode(world.deployment, "settle.one", {"settlement": settlement}).data[4 + 32 :]
    assert len(data) == _LENGTH
    assert data[_NEW : _NEW + 256] == _HEAD.pack(1, 1, ROWS, 1, _ROOT)
    return data


def _struct_prefix(world: World, terms: AuthorizationTerms) -> bytes:
    """The first two words of a head's struct hash: its type and its authorization."""
    return keccak256(UsageHead.TYPE.encode()) + raw(world.id(terms))


def _digest(separator: bytes, prefix: bytes, packed: bytes) -> bytes:
    """EIP-712; the array of units is hashed on its own."""
    units = keccak256(packed[32:160])
    return keccak256(b"\x19\x01" + separator + keccak256(prefix + packed[:32] + units + packed[160:]))


def _array(rows: list[bytearray]) -> bytes:
    """The argument of settleMany."""
    offsets = b"".join(_WORD.pack(32 * len(rows) + _LENGTH * n) for n in range(len(rows)))
    return _WORD.pack(32) + _WORD.pack(len(rows)) + offsets + b"".join(rows)


def _check(world: World, opened: list[AuthorizationTerms], size: int) -> None:
    for terms in (opened[0], opened[-1]):
        state: dict[str, Any] = world.state(terms)
        head = UsageHead(
            authorization_id=world.id(terms),
            size=size,
            units=(size, ROWS * size, 0, 0),
            credits=0,
            as_of=0,
            root=hash_of(_ROOT),
        )
        assert state["headDigest"] != "0x" + "00" * 32, f"nothing was settled; wanted {head}"
    assert abi_encode(["uint256"], [1]) == _WORD.pack(1)
