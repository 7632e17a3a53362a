"""Calls that one wallet signs and another pays for (ERC-2771): a user with no native coin can do everything.

The signer's wallet signs a ForwardRequest; anyone submits it with the operation `relay.execute`, once, until its
deadline.
The contracts take the signer for the caller.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ledger.chain.client import Chain
from ledger.chain.operations import encode
from ledger.core.ids import Address, raw
from ledger.core.terms import ForwardRequest

if TYPE_CHECKING:
    from ledger.chain.deploy import Deployment


def forward_request(
    chain: Chain,
    deployment: "Deployment",
    name: str,
    arguments: Mapping[str, Any],
    signer: Address,
    deadline: int,
) -> ForwardRequest:
    """The request to sign for an operation, simulated as the forwarder would make it. `deadline` in seconds, inclusive.

    Raises:
        Reverted: it would fail, with the contract's reason.
    """
    call = encode(deployment, name, arguments)
    forwarder = deployment.address("Forwarder")
    # The forwarder appends the signer to the call data; the contracts read it from there.
    request = {"from": forwarder, "to": call.to, "data": "0x" + (call.data + raw(signer)).hex()}
    chain.rpc("eth_call", request, "pending")
    gas = int(chain.rpc("eth_estimateGas", request, "pending"), 16)
    return ForwardRequest(
        from_=signer,
        to=call.to,
        value=0,
        gas=gas * 6 // 5,
        nonce=deployment.read(chain, "Forwarder", "nonces", signer),
        deadline=deadline,
        data=call.data,
    )
