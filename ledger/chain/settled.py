"""Reading settlements fast: most of what a busy ledger emits is one event of fourteen words, always laid out alike.

Every other event, and every check of this reader, goes through eth_abi (chain.decode).
"""

import struct
from typing import Any

from ledger.chain import artifacts
from ledger.chain.decode import UndecodableLog, decode_log
from ledger.core.events import Log
from ledger.core.ids import Address, raw

_SIGNATURE = "Settled(bytes32,(uint64,uint64[4],uint128,uint40,bytes32),uint128,uint128,uint128,address,address,uint8)"
_ITEM = artifacts.items("UsageLedger", "event")["Settled"]
assert _ITEM.signature == _SIGNATURE
TOPIC = _ITEM.hash

# size, four units, credits, asOf, root, due, paid, arrears, two signers, basis; a uint128 as its two halves.
_WORDS = struct.Struct(">24xQ" + "24xQ" * 4 + "16xQQ" + "24xQ" + "32s" + "16xQQ" * 3 + "12x20s" * 2 + "31xB")
_BITS = (64, 64, 64, 64, 64, 128, 40, 256, 128, 128, 128, 160, 160, 8)
_PADDING = int.from_bytes(b"".join(((1 << 256) - (1 << bits)).to_bytes(32, "big") for bits in _BITS), "big")
_MOST_BASIS = 4


Settled = tuple[Any, ...]
"""Size, four units, credits, asOf, root, due, paid, the provider's and the consumer's signer, basis."""

DUE, PAID = 8, 9  # places in it


def read_settled_by_abi(log: Log) -> Settled:
    """The same by eth_abi: what `read_settled` is checked against."""
    address = Address("0x" + log.address.hex())
    a = decode_log(log, {address: "UsageLedger"}).args
    head, signers = a["head"], (raw(a["providerSigner"]), raw(a["consumerSigner"]))
    values = (head["size"], *head["units"], head["credits"], head["asOf"], raw(head["root"]))
    return (*values, a["due"], a["paid"], *signers, a["basis"])


def read_settled(log: Log) -> Settled:
    """What a settlement says; its authorization is the log's second topic.

    Raises UndecodableLog: another length, bits where there must be none, an unknown basis.
    """
    data = log.data
    if len(log.topics) != 2 or len(data) != _WORDS.size or int.from_bytes(data, "big") & _PADDING:
        raise UndecodableLog("a Settled event does not fit its ABI", log=log.log_index)
    n, a, b, c, d, c1, c0, as_of, root, d1, d0, p1, p0, r1, r0, provider, consumer, basis = _WORDS.unpack(data)
    if basis > _MOST_BASIS:
        raise UndecodableLog(f"a Settled event has basis {basis}", log=log.log_index)
    due, paid, arrears = d1 << 64 | d0, p1 << 64 | p0, r1 << 64 | r0
    if arrears != (due - paid if due > paid else 0):
        raise UndecodableLog(f"a Settled event has arrears of {arrears}", log=log.log_index)
    return n, a, b, c, d, c1 << 64 | c0, as_of, root, due, paid, provider, consumer, basis
