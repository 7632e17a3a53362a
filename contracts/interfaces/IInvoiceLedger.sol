// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CompactTerms} from "../libraries/Terms.sol";
import {IAuthorizations} from "./IAuthorizations.sol";

/// @title Invoiced money: what is due, and the payments recorded against it
/// @notice The same authorizations and heads where money moves through banks. Nothing is reserved. The provider
/// records what it received; the consumer may claim what it paid; both views are shown side by side. Amounts are the
/// smallest units of the rate card: millionths of a yuan for a card in CNY with six decimals.
interface IInvoiceLedger is IAuthorizations {
    struct Invoiced {
        uint128 due; // price of the settled head less its credits
        uint128 paid; // recorded by the provider, less what it reversed
        uint128 claimed; // claimed by the consumer
    }

    /// @param referenceHash digest of the bank's reference
    event PaymentRecorded(bytes32 indexed authorizationId, bytes32 indexed referenceHash, uint128 amount, uint128 paid);
    event PaymentReversed(bytes32 indexed authorizationId, bytes32 indexed referenceHash, uint128 amount, uint128 paid);
    event PaymentClaimed(
        bytes32 indexed authorizationId,
        bytes32 indexed referenceHash,
        uint128 amount,
        uint128 claimed
    );

    /// @notice Amount or reference is zero, or the reference is known with another amount; `known` is 2^128 - 1 if that
    /// payment was reversed.
    error PaymentInvalid(bytes32 authorizationId, bytes32 referenceHash, uint128 known, uint128 amount);
    error PaymentUnknown(bytes32 authorizationId, bytes32 referenceHash);

    /// @notice Records a bank payment. Provider only. The same reference and amount again change nothing, and a reversed
    /// reference stays used, so that a late retry cannot revive it: a transfer sent again has a new reference.
    function recordPayment(CompactTerms calldata terms, bytes32 referenceHash, uint128 amount) external;

    /// @notice Takes a recorded payment back, as when a transfer bounces. Provider only.
    function reversePayment(CompactTerms calldata terms, bytes32 referenceHash) external;

    /// @notice The consumer's own statement that it paid; changes nothing the provider recorded.
    function claimPayment(CompactTerms calldata terms, bytes32 referenceHash, uint128 amount) external;

    function invoicedOf(bytes32 authorizationId) external view returns (Invoiced memory);
}
