// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title Play money for demonstrations and tests: one unit is a millionth of a yuan, and anyone may mint it
/// @dev Not for use outside a local chain.
contract DemoYuan is ERC20Permit, ERC3009 {
    constructor() ERC20("Demo Yuan", "DCNY") ERC20Permit("Demo Yuan") {}

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 6;
    }

    /// @notice Creates `amount` out of nothing.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}
