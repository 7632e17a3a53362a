// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

import {IRateCards} from "./interfaces/IRateCards.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {Pricing, RateCard} from "./libraries/Pricing.sol";
import {Share, Splits} from "./libraries/Splits.sol";

/// @title Rate cards and splits
/// @notice The manual is IRateCards.
contract RateCards is IRateCards, ERC165 {
    /// @inheritdoc IRateCards
    function registerRateCard(RateCard calldata card) external returns (bytes32 rateCard) {
        bytes memory encoded = Pricing.encode(card);

        rateCard = CodeStore.write(encoded);

        emit RateCardRegistered(rateCard, encoded);
    }

    /// @inheritdoc IRateCards
    function registerSplit(Share[] calldata shares) external returns (bytes32 split) {
        bytes memory encoded = Splits.encode(shares);

        split = CodeStore.write(encoded);

        emit SplitRegistered(split, encoded);
    }

    /// @inheritdoc IRateCards
    function read(bytes32 id) external view returns (bytes memory encoded) {
        return CodeStore.read(address(this), id);
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IRateCards).interfaceId || super.supportsInterface(id);
    }
}
