"""A block's logs as one value: packed the same way on every machine, so that they can be hashed, and compressed.

The form is MessagePack: an array of [index, transaction, address, [topics], data] in the order of the block.
"""

from collections.abc import Sequence

import msgspec
import zstandard

from ledger.core.events import Log

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Log])


def pack(logs: Sequence[Log]) -> bytes:
    """What is hashed."""
    return _encoder.encode(logs)


def compress(packed: bytes) -> bytes:
    """What is stored."""
    return zstandard.ZstdCompressor(level=1).compress(packed)


def unpack(stored: bytes) -> list[Log]:
    """The logs of a block's `logs` column."""
    return _decoder.decode(zstandard.ZstdDecompressor().decompress(stored))
