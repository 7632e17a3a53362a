"""Putting the contracts on a chain, and knowing later that they are still the ones that were put there."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_abi.abi import encode as abi_encode

from ledger.chain import artifacts
from ledger.chain.client import Chain, NodeError, WrongChain
from ledger.chain.decode import decode_output
from ledger.chain.prepared import PreparedTransaction, fees
from ledger.chain.send import Receipt, broadcast, wait
from ledger.core.errors import ChainError, InputInvalid, NotFound
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, hash_of, parse_address, parse_hash, raw
from ledger.core.typed_data import Domain

# Constructor arguments, by the names of contracts deployed before.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "Forwarder": (),
    "SpaceRegistry": ("Forwarder",),
    "ProductRegistry": ("SpaceRegistry", "Forwarder"),
    "RateCards": (),
    "Admission": ("ProductRegistry", "RateCards"),
    "SessionKeys": ("Forwarder",),
    "UsageLedger": ("Admission", "SessionKeys", "Forwarder"),
    "InvoiceLedger": ("Admission", "SessionKeys", "Forwarder"),
    "UsageEvidence": ("UsageLedger", "InvoiceLedger", "SessionKeys"),
    "SubsidyPool": ("UsageLedger", "SpaceRegistry", "Forwarder"),
    artifacts.DEMO_TOKEN: (),
}


class NotDeployed(ChainError):
    """A contract of the deployment is not on the chain, or is not the one it should be."""

    code = "not_deployed"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts are. Clients pin this file: it is what they trust."""

    chain_id: int
    genesis: Hash32
    block: int  # the first block with one of our contracts
    contracts: dict[str, Address]
    code_hashes: dict[str, Hash32]

    def address(self, contract: str) -> Address:
        try:
            return self.contracts[contract]
        except KeyError:
            raise NotFound(f"the deployment has no {contract}") from None

    def domain(self, contract: str) -> Domain:
        return Domain(self.chain_id, self.address(contract))

    def names(self) -> dict[Address, str]:
        """Address → contract."""
        return {address: name for name, address in self.contracts.items()}

    def read(self, chain: Chain, contract: str, function: str, *arguments: Any) -> Any:
        """A view function's answer, straight from the contract. 32-byte arguments may be ids or bytes."""
        item = artifacts.items(contract, "function")[function]
        kinds = [artifacts.abi_type(i) for i in item.inputs]
        values = [raw(a) if k == "bytes32" and isinstance(a, str) else a for a, k in zip(arguments, kinds, strict=True)]
        data = item.hash[:4] + abi_encode(kinds, values)
        return decode_output(item, chain.call(self.address(contract), data))

    def check(self, chain: Chain) -> None:
        """Raises WrongChain or NotDeployed if the node does not have exactly this deployment."""
        found = chain.chain_id()
        if found != self.chain_id:
            raise WrongChain(f"the node is on chain {found}, the deployment on {self.chain_id}", found=found)
        genesis = chain.block(0)
        if genesis is None or genesis.hash != self.genesis:
            raise WrongChain(f"the node's chain {found} has another genesis block: it is not the same chain")
        for name, address in self.contracts.items():
            code = chain.code(address)
            if not code:
                raise NotDeployed(f"there is no {name} at {address} on chain {found}", contract=name)
            if hash_of(keccak256(code)) != self.code_hashes[name]:
                raise NotDeployed(f"the code at {address} is not that of {name}", contract=name)

    def as_json(self) -> dict[str, Any]:
        return {
            "chainId": self.chain_id,
            "genesis": self.genesis,
            "block": self.block,
            "contracts": self.contracts,
            "codeHashes": self.code_hashes,
        }

    @staticmethod
    def from_json(data: Any) -> "Deployment":
        try:
            return Deployment(
                int(data["chainId"]),
                parse_hash(data["genesis"], "genesis"),
                int(data["block"]),
                {name: parse_address(a, name) for name, a in data["contracts"].items()},
                {name: parse_hash(h, name) for name, h in data["codeHashes"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise InputInvalid(f"the deployment file is malformed: {problem}", field="deployment") from None

    @staticmethod
    def load(path: Path) -> "Deployment":
        try:
            return Deployment.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            raise NotDeployed(
                f"there is no deployment at {path}; copy the operator's deployment.json there, or run `sluice deploy`",
                path=str(path),
            ) from None
        except json.JSONDecodeError as problem:
            raise InputInvalid(f"{path} is not JSON: {problem}", field="deployment") from None


def deploy(
    chain: Chain,
    sender: Address,
    sign: Callable[[PreparedTransaction], str],
    *,
    demo_token: bool = False,
    notice: Callable[[str, Receipt], None] = lambda _name, _receipt: None,
) -> Deployment:
    """Deploys every contract in order and waits for each; `sign` returns the signed bytes as 0x-hex."""
    genesis = chain.block(0)
    if genesis is None:
        raise NodeError("the node has no genesis block")
    chain_id = chain.chain_id()
    contracts: dict[str, Address] = {}
    hashes: dict[str, Hash32] = {}
    first = 0
    for name, needs in _ARGUMENTS.items():
        if name == artifacts.DEMO_TOKEN and not demo_token:
            continue
        arguments = abi_encode(["address"] * len(needs), [contracts[n] for n in needs])
        data = artifacts.artifact(name)["bytecode"] + arguments.hex()
        gas = int(chain.rpc("eth_estimateGas", {"from": sender, "data": data}), 16)
        tip, most = fees(chain)
        receipt = wait(
            chain,
            broadcast(
                chain,
                sign(
                    PreparedTransaction(
                        operation="deploy",
                        chain_id=chain_id,
                        sender=sender,
                        to=None,
                        data=data,
                        nonce=chain.nonce(sender),
                        gas=gas * 6 // 5,
                        max_fee_per_gas=most,
                        max_priority_fee_per_gas=tip,
                        summary={"zh": f"部署合约 {name}", "en": f"Deploy the contract {name}"},
                        result=None,
                    )
                ),
            ),
        )
        if receipt.contract is None:
            raise NotDeployed(f"{name} was not created by {receipt.transaction}", contract=name)
        contracts[name] = receipt.contract
        hashes[name] = hash_of(keccak256(chain.code(receipt.contract)))
        first = first or receipt.block
        notice(name, receipt)
    return Deployment(chain_id, genesis.hash, first, contracts, hashes)
