// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {AuthorizationTerms, Head} from "../libraries/Terms.sol";
import {World} from "./World.sol";

/// @title Settling heads
contract SettleTest is World {
    function test_settling_pays_the_price_of_the_units() external {
        AuthorizationTerms memory terms = opened(termsOf(), 5_000_000);
        settled(terms, 120, 500);

        (uint256 reserved, uint256 paid) = reservationOf(terms);
        assertEq(reserved, 5_000_000, "reserved");
        assertEq(paid, priceOf(120, 500), "paid");
        assertEq(ledger.accruedOf(splitId, address(yuan)), paid, "accrued");
    }
}
