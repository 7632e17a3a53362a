"""Reading blocks and logs for the mirror: in ranges far behind the head, block by block near it, checked either way.

A node can answer short without an error (go-ethereum#24078): near the head logs are asked for by block hash and held
against the header's bloom filter; behind finality they are asked for by range, and a second pass asks again later.
What cannot be true is refused: logs of other contracts or blocks, out of order, or not in the header's bloom.
"""

from binascii import a2b_hex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from ledger.chain.client import Chain, NodeDown, NodeError
from ledger.core.events import Block, Log
from ledger.core.hashing import keccak256
from ledger.core.ids import ZERO_HASH, Address, Hash32, raw

HEADERS = 100  # a request
TARGET = 20_000  # logs a request
LONGEST = 100_000  # blocks a request
NEAR = 64  # blocks a step near the head
NO_RECEIPTS = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"  # root of an empty trie

Fetched = list[tuple[Block, list[Log]]]


class _Log(msgspec.Struct, rename="camel", gc=False):
    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    log_index: str
    block_timestamp: str = ""  # most nodes
    removed: bool = False


class _Header(msgspec.Struct, rename="camel", gc=False):
    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str = "0x"
    receipts_root: str = ""


class _Logs(msgspec.Struct):
    result: list[_Log] | None = None
    error: Any = None
    id: Any = None


class _Headers(msgspec.Struct):
    result: _Header | None = None
    error: Any = None
    id: Any = None


class RangeRefused(NodeError):
    """The node will not answer for so many blocks, whatever words it uses."""

    code = "range_refused"


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks `first` to `last`: those with logs of ours, or all of them near the head."""

    blocks: Fetched
    first: Block
    last: Block


class Fetcher:
    """Reads one deployment's logs from one node, and learns how many blocks it answers for at a time."""

    def __init__(self, chain: Chain, addresses: Sequence[Address], span: int = 32) -> None:
        self.chain = chain
        self._addresses = sorted(addresses)
        self._ours = {raw(a) for a in addresses}
        self._blooms = {raw(a): _bits(raw(a)) for a in addresses}
        self._span, self._most, self._allowed = span, LONGEST, LONGEST
        # It only waits for bytes: reading them in a second thread would have two threads in each other's way.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mirror-fetch")
        self._ahead: tuple[int, int, Future[bytes]] | None = None

    def close(self) -> None:
        self.forget()
        self._pool.shutdown()

    def forget(self) -> None:
        """Drops what was asked for ahead."""
        if self._ahead is not None:
            self._ahead[2].cancel()
            self._ahead = None

    # ---------------------------------------------------------------------------------------- by range

    def range(self, first: int, last: int) -> Range:
        """As many of the blocks as the node answers for at once. For blocks that are final.

        The answer for the blocks after them is asked for already, and waits: the node works while we do.

        Raises:
            NodeError: the answer cannot be true, or there is none for a single block.
        """
        end = min(last, first + self._span - 1)
        while True:
            try:
                if self._ahead is not None and self._ahead[0] == first:
                    (_, end, answer), self._ahead = self._ahead, None
                    found = self._read(answer.result())
                else:
                    self.forget()
                    found = self._logs(_between(first, end))
                break
            except (RangeRefused, NodeDown) as problem:
                if end == first:
                    raise
                # The wording differs from node to node, and so does what it suggests: half is always less.
                self._most = self._span = max(1, (end - first + 1) // 2)
                if isinstance(problem, RangeRefused):
                    self._allowed = self._most
                end = first + self._span - 1
        count, width = len(found), end - first + 1
        if width == self._span:
            # It may have been too slow, or away for a moment: what it refused is final, what it missed is not.
            self._most = min(self._allowed, self._most + self._most // 8 + 1)
            wanted = self._span * 2 if count * 4 < TARGET else self._span * TARGET // max(count, 1)
            self._span = max(1, min(wanted, self._most, self._span * 2))
        grouped: dict[int, list[_Log]] = {}
        for log in found:
            grouped.setdefault(int(log.block_number, 16), []).append(log)
        if any(not first <= number <= end for number in grouped):
            raise NodeError(f"the node returned logs outside the blocks {first} to {end}")
        # Where logs tell their block's time, its header has nothing to add.
        bare = [number for number, logs in grouped.items() if not logs[0].block_timestamp]
        headers = self.headers([first, *bare, end])
        if end < last:
            after = min(last, end + self._span)
            self._ahead = (end + 1, after, self._pool.submit(self._ask, _between(end + 1, after)))
        blocks = []
        for number, logs in sorted(grouped.items()):
            header = headers.get(number)
            block = _block(header) if header else _block_of(number, logs[0])
            blocks.append((block, self._checked(block, logs, _bloom(header) if header else 0)))
        return Range(blocks, _block(headers[first]), _block(headers[end]))

    # ----------------------------------------------------------------------------------- block by block

    def near(self, first: int, last: int) -> Range | None:
        """Up to NEAR blocks, each asked for by its hash; None if the node does not have the first yet."""
        wanted = range(first, min(last, first + NEAR - 1) + 1)
        headers = self.headers(wanted, missing_ok=True)
        chained: list[_Header] = []
        for number in wanted:
            header = headers.get(number)
            if header is None or (chained and header.parent_hash != chained[-1].hash):
                break  # the chain moved between two answers: what follows on what we have comes first
            chained.append(header)
        if not chained:
            return None
        self.forget()
        asked = [
            None if self._surely_none(header) else self._pool.submit(self._ask, {"blockHash": header.hash})
            for header in chained
        ]
        blocks = [
            (_block(header), self._logs_of(header, answer)) for header, answer in zip(chained, asked, strict=True)
        ]
        return Range(blocks, blocks[0][0], blocks[-1][0])

    def certain(self, numbers: Sequence[int]) -> Iterator[tuple[Block, list[Log]]]:
        """These blocks with their logs, by their receipts: what decides between two answers."""
        for header in self.headers(numbers).values():
            yield _block(header), [] if self._surely_none(header) else self._again(header)

    def _logs_of(self, header: _Header, answer: Future[bytes] | None) -> list[Log]:
        """One block's logs, asked for by its hash: an answer can be neither short nor of another branch."""
        if answer is None:
            return []
        logs = self._checked(_block(header), self._read(answer.result()), _bloom(header))
        return self._again(header) if self._missing(header, logs) else logs

    def _surely_none(self, header: _Header) -> bool:
        """A bloom filter with bits, none of them ours, or no receipt at all. Zeros alone may be a chain without any."""
        bloom = _bloom(header)
        ours = any(bloom & bits == bits for bits in self._blooms.values())
        return header.receipts_root == NO_RECEIPTS if bloom == 0 else not ours

    def _missing(self, header: _Header, logs: list[Log]) -> bool:
        """Nothing, where the bloom filter names a contract of ours: the node may not have the receipts yet."""
        bloom = _bloom(header)
        return not logs and any(bloom & bits == bits for bits in self._blooms.values())

    def _again(self, header: _Header) -> list[Log]:
        """The block's logs from its receipts, or where the node has no such method, asked for once more.

        A bloom filter names contracts that are not there now and then: then this finds nothing either.
        """
        try:
            receipts = self.chain.rpc("eth_getBlockReceipts", header.hash)
        except NodeError:
            receipts = None
        if receipts is None:
            return self._checked(_block(header), self._logs({"blockHash": header.hash}), _bloom(header))
        every = msgspec.convert([log for receipt in receipts for log in receipt["logs"]], list[_Log])
        ours = [log for log in every if raw(log.address) in self._ours]
        return self._checked(_block(header), ours, _bloom(header))

    # ------------------------------------------------------------------------------------------ checks

    def _checked(self, block: Block, found: Sequence[_Log], bloom: int) -> list[Log]:
        """What the node returned must be this block's logs of our contracts, in order."""
        logs = [_log(entry) for entry in found]
        addresses = {log.address for log in logs}
        # A chain without bloom filters has zeros there.
        unfiltered = bloom and any(bloom & (bits := self._blooms.get(a, 0)) != bits for a in addresses)
        foreign = {entry.block_hash for entry in found} - {block.hash} or addresses - self._ours
        places = [log.log_index for log in logs]
        unordered = any(a >= b for a, b in pairwise(places))
        if foreign or unfiltered or unordered or any(entry.removed for entry in found):
            raise NodeError(f"the node returned logs that are not block {block.number}'s")
        return logs

    # -------------------------------------------------------------------------------------------- calls

    def headers(self, numbers: Sequence[int], missing_ok: bool = False) -> dict[int, _Header]:
        """Number → header. Raises NodeError if one is missing and must not be."""
        wanted = sorted(set(numbers))
        found: dict[int, _Header] = {}
        for at in range(0, len(wanted), HEADERS):
            some = wanted[at : at + HEADERS]
            calls = [("eth_getBlockByNumber", [hex(n), False]) for n in some]
            for number, header in zip(some, self._batch(calls, list[_Headers]), strict=True):
                if header is not None:
                    if int(header.number, 16) != number:
                        raise NodeError(f"the node returned block {header.number} for {hex(number)}")
                    found[number] = header
        if not missing_ok and (missing := [n for n in wanted if n not in found]):
            raise NodeError(f"the node has no block {missing[0]}")
        return found

    def _logs(self, where: dict[str, Any]) -> list[_Log]:
        return self._read(self._ask(where))

    def _ask(self, where: dict[str, Any]) -> bytes:
        return self.chain.ask("eth_getLogs", [where | {"address": self._addresses}])

    def _read(self, raw_answer: bytes) -> list[_Log]:
        answer = self.chain.read(raw_answer, _Logs)
        if answer.error is not None or answer.result is None:
            raise RangeRefused(f"eth_getLogs: {_words(answer.error)}", method="eth_getLogs")
        found: list[_Log] = answer.result
        return found

    def _batch(self, calls: Sequence[tuple[str, list[Any]]], kind: Any) -> list[Any]:
        answers = self.chain.post_batch(calls, kind)
        for answer in answers:
            if answer.error is not None:
                raise NodeError(f"{calls[0][0]}: {_words(answer.error)}", method=calls[0][0])
        return [answer.result for answer in answers]


def _between(first: int, last: int) -> dict[str, Any]:
    return {"fromBlock": hex(first), "toBlock": hex(last)}


def _bloom(header: _Header) -> int:
    return int(header.logs_bloom, 16) if len(header.logs_bloom) > 2 else 0


def _block_of(number: int, log: _Log) -> Block:
    """A block as its logs tell of it; they do not tell its parent."""
    return Block(number, Hash32(log.block_hash), ZERO_HASH, int(log.block_timestamp, 16))


def _words(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error or "no result")


def _bits(address: bytes) -> int:
    """The three bits an address sets in a header's bloom filter (Yellow Paper, 4.3.1)."""
    digest = keccak256(address)
    return sum(1 << (int.from_bytes(digest[i : i + 2], "big") & 2047) for i in (0, 2, 4))


_hex: Callable[[str], bytes] = a2b_hex
_new: Any = tuple.__new__  # a named tuple, without the call of its class


def _log(entry: _Log) -> Log:
    topics = tuple([_hex(topic[2:]) for topic in entry.topics])
    address, transaction = _hex(entry.address[2:]), _hex(entry.transaction_hash[2:])
    log: Log = _new(Log, (int(entry.log_index, 16), transaction, address, topics, _hex(entry.data[2:])))
    return log


def _block(header: _Header) -> Block:
    return Block(int(header.number, 16), Hash32(header.hash), Hash32(header.parent_hash), int(header.timestamp, 16))
