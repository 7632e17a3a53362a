// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RateCard} from "../libraries/Pricing.sol";
import {Share} from "../libraries/Splits.sol";

/// @title Rate cards and splits, validated once and found by their content
/// @notice Anyone may register either; registering the same again changes nothing and costs the caller only gas.
/// An id is the Keccak-256 of the creation code that stores the bytes (see CodeStore), the same on every deployment.
interface IRateCards {
    /// @notice A rate card was stored. `encoded` is its layout in Pricing.
    event RateCardRegistered(bytes32 indexed rateCard, bytes encoded);
    /// @notice A split was stored. `encoded` is its layout in Splits.
    event SplitRegistered(bytes32 indexed split, bytes encoded);

    /// @notice Stores a rate card. Reverts with RateCardInvalid if it breaks a rule of Pricing.
    function registerRateCard(RateCard calldata card) external returns (bytes32 rateCard);

    /// @notice Stores a split. Reverts with SplitInvalid if it breaks a rule of Splits.
    function registerSplit(Share[] calldata shares) external returns (bytes32 split);

    /// @notice The stored bytes of a rate card or split; empty if the id is not registered.
    function read(bytes32 id) external view returns (bytes memory encoded);
}
