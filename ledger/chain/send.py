"""Signed bytes to the chain, and what became of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.exceptions import ValidationError
from hexbytes import HexBytes

from ledger.chain.client import Chain, NodeError, WrongChain
from ledger.chain.decode import Reverted
from ledger.core.errors import ChainError, Conflict, InputInvalid
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, hash_of, parse_bytes


class StillPending(ChainError):
    """The transaction is known and not in a block yet."""

    code = "still_pending"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction in a block. `gas_price` in wei."""

    transaction: Hash32
    block: int
    block_hash: Hash32
    gas_used: int
    gas_price: int
    succeeded: bool
    contract: Address | None


def broadcast(chain: Chain, signed: str) -> Hash32:
    """Sends signed EIP-1559 bytes; sending the same again is harmless.

    Raises:
        InputInvalid: not a signed type-2 transaction.
        WrongChain: signed for another chain.
        Conflict: the nonce is used, or the account cannot pay for the gas.
    """
    data = parse_bytes(signed, "transaction")
    fields = parse_signed(data)
    if fields["chainId"] != chain.chain_id():
        raise WrongChain(f"the transaction is signed for chain {fields['chainId']}, not {chain.chain_id()}")
    transaction = hash_of(keccak256(data))
    try:
        chain.rpc("eth_sendRawTransaction", signed)
    except NodeError as problem:
        text = str(problem).lower()
        if "already known" in text or "already imported" in text:
            return transaction
        if "nonce" in text or "insufficient funds" in text or "underpriced" in text:
            if "nonce" in text and receipt_of(chain, transaction) is not None:
                return transaction
            raise Conflict(f"the node refused the transaction: {problem.message}") from problem
        raise
    return transaction


def parse_signed(data: bytes) -> dict[str, Any]:
    """The fields of a signed EIP-1559 transaction, with `from`. Raises InputInvalid if it is not one."""
    try:
        if not data or data[0] != 2:
            raise ValueError("only EIP-1559 (type 2) transactions are taken")
        fields: dict[str, Any] = TypedTransaction.from_bytes(HexBytes(data)).as_dict()
        fields["from"] = Account.recover_transaction(data).lower()
    except (ValueError, TypeError, ValidationError) as problem:
        raise InputInvalid(f"this is not a signed transaction: {problem}", field="signed") from None
    except Exception as problem:  # eth_account raises RLP errors of several families
        raise InputInvalid(f"this is not a signed transaction: {type(problem).__name__}", field="signed") from None
    return fields


def receipt_of(chain: Chain, transaction: Hash32) -> Receipt | None:
    """None while it is in no block."""
    found = chain.rpc("eth_getTransactionReceipt", transaction)
    if found is None:
        return None
    contract = found.get("contractAddress")
    return Receipt(
        transaction,
        int(found["blockNumber"], 16),
        Hash32(found["blockHash"]),
        int(found["gasUsed"], 16),
        int(found.get("effectiveGasPrice", "0x0"), 16),
        int(found["status"], 16) == 1,
        Address(contract.lower()) if contract else None,
    )


def wait(
    chain: Chain, transaction: Hash32, *, seconds: float = 60, sleep: Callable[[float], None] = time.sleep
) -> Receipt:
    """Waits for a block.

    Raises:
        Reverted: it is in a block and failed; with the contract's reason where the node can say it.
        StillPending: not in a block after `seconds`.
    """
    pause, waited = 0.02, 0.0
    while True:
        receipt = receipt_of(chain, transaction)
        if receipt is not None:
            if not receipt.succeeded:
                raise Reverted(why(chain, transaction, receipt) or f"transaction {transaction} failed", error="")
            return receipt
        if waited >= seconds:
            raise StillPending(f"transaction {transaction} is in no block after {seconds:.0f} s")
        sleep(pause)
        waited += pause
        pause = min(pause * 1.5, 1.0)


def why(chain: Chain, transaction: Hash32, receipt: Receipt) -> str:
    """Asks the node to run a failed transaction again on the block before it; empty if it does not fail there."""
    found = chain.rpc("eth_getTransactionByHash", transaction)
    request = {"from": found["from"], "to": found["to"], "data": found["input"], "gas": found["gas"]}
    try:
        chain.rpc("eth_call", request, hex(receipt.block - 1))
    except Reverted as problem:
        return problem.message
    except NodeError:
        pass
    return ""


def status_of(chain: Chain, transaction: Hash32) -> dict[str, Any]:
    """`unknown`, `pending`, `seen`, `safe`, `final` or `failed`, with block and gas where there are any.

    A node without finality tags (instant finality, no reorgs) reports `seen` only.
    """
    receipt = receipt_of(chain, transaction)
    if receipt is None:
        known = chain.rpc("eth_getTransactionByHash", transaction) is not None
        return {"transaction": transaction, "status": "pending" if known else "unknown"}
    status = "seen"
    for tag, word in (("safe", "safe"), ("finalized", "final")):
        block = chain.block(tag)
        if block is not None and block.number >= receipt.block:
            status = word
    answer: dict[str, Any] = {
        "transaction": transaction,
        "status": status if receipt.succeeded else "failed",
        "block": receipt.block,
        "blockHash": receipt.block_hash,
        "gasUsed": str(receipt.gas_used),
        "gasPrice": str(receipt.gas_price),
    }
    if not receipt.succeeded:
        answer["reason"] = why(chain, transaction, receipt)
    return answer
