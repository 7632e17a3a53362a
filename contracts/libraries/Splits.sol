// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Pricing} from "./Pricing.sol";

/// @notice A payee's part of what is settled, in basis points.
struct Share {
    address payee;
    uint16 bps;
}

/// @title A split as bytes
/// @dev Layout: 0x02 ‖ payees 1 ‖ { payee 20 ‖ bps 2 }. The same bytes as ledger/core/split.py.
library Splits {
    uint256 internal constant MAX_PAYEES = 16;
    uint256 internal constant WHOLE = 10_000;

    /// @notice The split breaks a rule at `index`, or its parts do not add up to 10,000 basis points.
    error SplitInvalid(uint256 index, uint256 sum);

    function encode(Share[] calldata shares) internal pure returns (bytes memory encoded) {
        uint256 count = shares.length;
        require(count > 0 && count <= MAX_PAYEES, SplitInvalid(count, 0));
        encoded = abi.encodePacked(bytes1(0x02), uint8(count));
        address previous = address(0);
        uint256 sum = 0;
        for (uint256 i = 0; i < count; ++i) {
            // Strictly ascending also refuses the zero address and a payee named twice.
            require(shares[i].payee > previous && shares[i].bps > 0, SplitInvalid(i, sum));
            previous = shares[i].payee;
            sum += shares[i].bps;
            encoded = abi.encodePacked(encoded, shares[i].payee, shares[i].bps);
        }
        require(sum == WHOLE, SplitInvalid(count, sum));
    }

    /// @notice The payee's basis points; zero if it has no part.
    function bpsOf(bytes memory split, address payee) internal pure returns (uint256) {
        uint256 count = Pricing.read(split, 1, 1);
        for (uint256 i = 0; i < count; ++i) {
            if (Pricing.read(split, 2 + i * 22, 20) == uint160(payee)) return Pricing.read(split, 22 + i * 22, 2);
        }
        return 0;
    }
}
