// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Requirement} from "./Terms.sol";

/// @title Lists of required approvers
library Requirements {
    uint256 internal constant MAX_APPROVERS = 8;

    /// @notice True if the list is short enough to be checked in one opening, and names wallets.
    function areSound(Requirement[] calldata approvers) internal pure returns (bool) {
        if (approvers.length > MAX_APPROVERS) return false;
        for (uint256 i = 0; i < approvers.length; ++i) {
            if (approvers[i].approver == address(0)) return false;
        }
        return true;
    }

    /// @notice Puts a new list in place of the old one.
    function replaceBy(Requirement[] storage list, Requirement[] calldata approvers) internal {
        while (list.length > 0) list.pop();
        for (uint256 i = 0; i < approvers.length; ++i) list.push(approvers[i]);
    }

    /// @notice True if the list names the wallet, in any capacity.
    function name(Requirement[] memory approvers, address wallet) internal pure returns (bool) {
        for (uint256 i = 0; i < approvers.length; ++i) {
            if (approvers[i].approver == wallet) return true;
        }
        return false;
    }
}
