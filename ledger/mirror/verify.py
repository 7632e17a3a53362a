"""Are rows of the mirror what the contracts have in their storage? A sample, proved against a block's state root.

Each value comes with a Merkle-Patricia proof (`eth_getProof`, EIP-1186) and the header that holds its root; the header
is hashed again and must be the block the mirror stands at. So neither the node nor the mirror's way of reading events
is trusted: what is left to trust is that this block is the chain's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import rlp
from rlp.exceptions import RLPException
from sqlalchemy import Connection, Table, func, select
from trie.exceptions import BadTrieProof
from trie.hexary import HexaryTrie

from ledger.chain import artifacts
from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.core.errors import ChainError, MirrorError
from ledger.core.hashing import keccak256
from ledger.core.ids import ZERO_HASH, Address, raw
from ledger.core.terms import UsageHead
from ledger.mirror import queries, schema
from ledger.mirror.queries import Row

AT_A_TIME = 50  # storage words a request
STATUS = {"OPEN": 1, "CLOSED": 3}

# A header's fields in the order they are hashed (EIP-1559, 4895, 4844, 4788, 7685); later ones where there are any.
_HEADER = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom"),
    *("difficulty", "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce"),
)
_LATER = ("baseFeePerGas", "withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash")
_NUMBERS = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"}


class ProofInvalid(ChainError):
    """The node's proof does not lead to the block's state root."""

    code = "proof_invalid"


class BlockGone(MirrorError):
    """The node no longer has the state of the mirror's block."""

    code = "block_gone"


@dataclass(frozen=True, slots=True)
class Word:
    """One storage word as the mirror has it, and what it is."""

    contract: str
    slot: bytes
    value: int
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """How many words were proved at a block, and which are other on the chain: (what, mirror, chain)."""

    block: int
    hash: str
    header_hashed: bool  # False: this chain hashes its headers in another way
    words: int
    differences: list[tuple[str, int, int]]


def verify(
    connection: Connection,
    chain: Chain,
    deployment: Deployment,
    samples: int = 100,
    tell: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Takes `samples` rows of each kind at random and proves every word of them.

    Raises:
        ProofInvalid: the node's answers do not prove what they claim.
        BlockGone: the node has forgotten the state of the mirror's block, or never had that block.
    """
    cursor = queries.cursor(connection)
    header = chain.rpc("eth_getBlockByNumber", hex(cursor.number), False)
    if cursor.empty or header is None or header["hash"] != cursor.hash:
        raise BlockGone(f"the node does not have the mirror's block {cursor.number}")
    hashed = header_hash(header) == raw(cursor.hash)
    words: dict[str, list[Word]] = {}
    for word in _words(connection, deployment, samples):
        words.setdefault(word.contract, []).append(word)
    done, differences = 0, []
    for contract, some in words.items():
        for at in range(0, len(some), AT_A_TIME):
            part = some[at : at + AT_A_TIME]
            found = _proved(chain, deployment.address(contract), part, cursor.number, raw(header["stateRoot"]))
            differences += [(w.what, w.value, v) for w, v in zip(part, found, strict=True) if w.value != v]
            done += len(part)
            tell(done)
    return Verified(cursor.number, cursor.hash, hashed, done, differences)


def header_hash(header: dict[str, Any]) -> bytes:
    """Keccak-256 of the header's RLP (Yellow Paper, 4.3)."""
    names = [*_HEADER, *(name for name in _LATER if header.get(name) is not None)]
    fields = [_field(name, header[name]) for name in names]
    return keccak256(rlp.encode(fields))


def _field(name: str, value: str) -> bytes:
    if name not in _NUMBERS:
        return raw(value)
    number = int(value, 16)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _proved(chain: Chain, address: Address, words: list[Word], block: int, root: bytes) -> list[int]:
    """The words' values under a state root."""
    slots = ["0x" + word.slot.hex() for word in words]
    answer = chain.rpc("eth_getProof", address, slots, hex(block))
    account = _decoded(_under(root, raw(address), answer["accountProof"]))
    if not account:
        raise ProofInvalid(f"there is no account {address} under the state root")
    values = []
    for word, proof in zip(words, answer["storageProof"], strict=True):
        value = _under(account[2], word.slot, proof["proof"])
        values.append(int.from_bytes(_decoded(value), "big") if value else 0)
    return values


def _under(root: bytes, key: bytes, proof: list[str]) -> bytes:
    """The value a proof shows under a root; empty if it shows that there is none."""
    nodes = [_decoded(raw(node)) for node in proof]
    try:
        value: bytes = HexaryTrie.get_from_proof(root, keccak256(key), nodes)  # type: ignore[no-untyped-call]
    except BadTrieProof as problem:
        raise ProofInvalid(f"a proof for {key.hex()} does not lead to the root {root.hex()}") from problem
    return value


def _decoded(data: bytes) -> Any:
    try:
        return rlp.decode(data)
    except RLPException as problem:
        raise ProofInvalid(f"a proof has a node that is not RLP: {problem}") from problem


# ----------------------------------------------------------------------------------------------- what is where


def _words(connection: Connection, deployment: Deployment, samples: int) -> Iterator[Word]:
    rows = _sample(connection, schema.authorizations, samples)
    for row in queries.with_heads(connection, rows):
        yield from _authorization(row, deployment)
    for row in _sample(connection, schema.accounts, samples):
        what = f"free money of {row['owner']} in {row['token']}"
        yield _word("UsageLedger", "free", (row["owner"], row["token"]), row["free"], what)
    for row in _sample(connection, schema.accruals, samples):
        what = f"accrued to split {row['split']} in {row['token']}"
        yield _word("UsageLedger", "accrued", (row["split"], row["token"]), row["accrued"], what)
    for row in _sample(connection, schema.shares, samples):
        what = f"sent to {row['payee']} of split {row['split']} in {row['token']}"
        yield _word("UsageLedger", "sent", (row["split"], row["token"], row["payee"]), row["sent"], what)


def _sample(connection: Connection, table: Table, samples: int) -> list[Row]:
    query = select(table).where(schema.holds(table)).order_by(func.random()).limit(samples)
    return [dict(row) for row in connection.execute(query).mappings()]


def _authorization(row: Row, deployment: Deployment) -> Iterator[Word]:
    """The two words of its record, and its thaw."""
    ledger, id_ = row["ledger"], row["authorization"]
    head = UsageHead(
        authorization_id=id_,
        size=int(row["size"]),
        units=tuple(int(n) for n in row["units"]),  # type: ignore[arg-type]
        credits=row["credits"],
        as_of=row["as_of"],
        root=row["root"],
    )
    digest = head.digest(deployment.domain(ledger)) if head.size else ZERO_HASH
    yield _word(ledger, "records", (id_,), int(digest, 16), f"settled head of {id_}")
    depth = _depth(row)
    amount = row["reserved"] if ledger == "UsageLedger" else row["due"]
    packed = amount | row["paid"] << 96 | row["ended_at"] << 192 | STATUS[row["status"]] << 232
    packed |= schema.BASIS.index(row["basis"]) << 240
    if depth is not None:
        what = f"amount, paid, end, status and basis of {id_}"
        yield _word(ledger, "records", (id_,), packed | depth << 248, what, 1)
    if ledger == "UsageLedger":
        thaw = row["thaw"] | row["thaw_end"] << 96 | row["refunded"] << 136
        yield _word(ledger, "thaws", (id_,), thaw, f"thaw and refunds of {id_}")


def _depth(row: Row) -> int | None:
    """Generations above it, zero for what derives from nothing; None where the mirror would have to look further."""
    return 0 if row["terms"]["scope"]["parent"] == ZERO_HASH else None


def _word(contract: str, variable: str, keys: tuple[str, ...], value: int, what: str, offset: int = 0) -> Word:
    """The word of a mapping's entry (Solidity, Layout of State Variables in Storage)."""
    slot = artifacts.storage(contract)[variable].to_bytes(32, "big")
    for key in keys:
        slot = keccak256(raw(key).rjust(32, b"\0") + slot)
    moved = (int.from_bytes(slot, "big") + offset) % (1 << 256)
    return Word(contract, moved.to_bytes(32, "big"), value, what)
