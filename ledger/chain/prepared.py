"""Prepared transactions: a value a person can read, and a wallet elsewhere can sign.

`operations.encode` turns name and arguments into a call; `prepare` adds nonce, gas, fees and a simulated result from a
node.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger.chain import artifacts
from ledger.chain.client import Chain
from ledger.chain.decode import decode_output
from ledger.chain.operations import encode
from ledger.core.ids import Address

if TYPE_CHECKING:
    from ledger.chain.deploy import Deployment

_NO_OFFER = (b"\0" * 32, 0, 0)


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """An unsigned EIP-1559 transaction. Fees in wei; `result` is what a simulation returned; no key in it."""

    operation: str
    chain_id: int
    sender: Address
    to: Address | None
    data: str
    nonce: int
    gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    summary: dict[str, str]
    result: Any

    def unsigned(self) -> dict[str, Any]:
        """The fields a wallet signs, as `eth_account` and JSON-RPC name them."""
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": self.nonce,
            "value": 0,
            "data": self.data,
            "gas": self.gas,
            "maxFeePerGas": self.max_fee_per_gas,
            "maxPriorityFeePerGas": self.max_priority_fee_per_gas,
        }
        return fields if self.to is None else fields | {"to": self.to}


def prepare(
    chain: Chain, deployment: "Deployment", name: str, arguments: Mapping[str, Any], sender: Address
) -> PreparedTransaction:
    """Simulates and prices a call. Raises Reverted with the contract's reason if it would fail."""
    call = encode(deployment, name, arguments)
    request = {"from": sender, "to": call.to, "data": "0x" + call.data.hex()}
    # On the pending block: its time is now, while the latest block may be old on a quiet chain.
    output = chain.call(call.to, call.data, sender, "pending")
    gas = int(chain.rpc("eth_estimateGas", request, "pending"), 16)
    tip, most = fees(chain)
    return PreparedTransaction(
        operation=name,
        chain_id=deployment.chain_id,
        sender=sender,
        to=call.to,
        data=request["data"],
        nonce=chain.nonce(sender),
        gas=gas * 6 // 5,
        max_fee_per_gas=most,
        max_priority_fee_per_gas=tip,
        summary=call.summary,
        result=decode_output(artifacts.items(call.contract, "function")[call.function], output),
    )


def fees(chain: Chain) -> tuple[int, int]:
    """(priority fee, maximum fee) in wei: room for the base fee to double. Zero on chains without a fee market."""
    block = chain.rpc("eth_getBlockByNumber", "latest", False)
    base = int(block.get("baseFeePerGas", "0x0"), 16)
    tip = min(int(chain.rpc("eth_gasPrice"), 16), 10**9) if base else 0
    return tip, 2 * base + tip
