// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Forwarder} from "@openzeppelin/contracts/metatx/ERC2771Forwarder.sol";

/// @title Calls signed by one wallet and paid for by another (ERC-2771)
/// @notice A user without native coin signs a ForwardRequest; anyone may submit it, once, until its deadline. Every
/// Sluice contract takes the signer for the caller. OpenZeppelin's forwarder as it is: it has no owner and no upgrade.
contract Forwarder is ERC2771Forwarder {
    constructor() ERC2771Forwarder("Sluice") {}
}
