// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CompactTerms, Head} from "../libraries/Terms.sol";
import {IAuthorizations} from "./IAuthorizations.sol";

/// @title Escrowed money: accounts, reservations and what they pay
/// @notice account(owner, token): free — open, topUp → reserved — thaw → thawing — thawSeconds → free — withdraw →
/// wallet. Settling moves reserved money to the split's accrual; each payee takes its part when it likes. Nobody else
/// can move a user's money: there is no owner, no pause and no upgrade. Amounts are the token's smallest units.
interface IUsageLedger is IAuthorizations {
    struct Reservation {
        uint128 reserved; // total set aside, paid part included
        uint128 paid;
        uint128 thawing; // on its way back to the consumer, still collectable
        uint40 thawEnd; // seconds
        uint128 refunded; // of what was paid, given back by the provider
    }

    event Deposited(address indexed owner, address indexed token, address from, uint256 amount);
    event Withdrawn(address indexed owner, address indexed token, address to, uint256 amount);
    event ToppedUp(bytes32 indexed authorizationId, address indexed from, uint128 amount);
    event ThawStarted(bytes32 indexed authorizationId, uint128 amount, uint40 thawEnd);
    event Thawed(bytes32 indexed authorizationId, uint128 amount);
    event ArrearsPaid(bytes32 indexed authorizationId, uint128 due, uint128 paid);
    /// @notice The provider gave back part of what was paid; `refunded` is the total.
    event Refunded(bytes32 indexed authorizationId, uint128 amount, uint128 refunded);
    event SharePaid(bytes32 indexed split, address indexed token, address indexed payee, uint256 amount);

    error AmountZero();
    /// @notice The account does not hold that much.
    error BalanceTooLow(address owner, address token, uint256 free, uint256 amount);
    /// @notice The token delivered another amount than it was asked to.
    error TokenTransferInexact(address token, uint256 asked, uint256 received);
    error TokenNotContract(address token);
    /// @notice Money sent there could never be taken out again.
    error ReceiverInvalid(address receiver);
    /// @notice More than what is reserved and not yet paid.
    error ThawTooLarge(bytes32 authorizationId, uint128 amount, uint128 unpaid);
    error ThawNotOver(bytes32 authorizationId, uint40 thawEnd, uint256 nowSeconds);
    /// @notice More than what was paid and not refunded yet.
    error RefundTooLarge(bytes32 authorizationId, uint128 amount, uint128 refundable);
    error ShareUnknown(bytes32 split, address payee);

    /// @notice Pays the caller's tokens into `owner`'s account. The amount received must equal `amount`.
    function depositFor(address owner, address token, uint256 amount) external;

    /// @notice The same with the caller's EIP-2612 permit for the ledger in place of an approval. A permit that somebody
    /// else has already submitted is as good as one that is submitted here.
    function depositWithPermit(
        address owner,
        address token,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Takes `from`'s tokens with its EIP-3009 authorization to this ledger, for `owner`'s account. By anyone:
    /// the authorization's nonce must be keccak256(abi.encode(owner, salt)), so that it says whose account is meant.
    function depositWithAuthorization(
        address from,
        address owner,
        address token,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 salt,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Takes free money out of the caller's account.
    function withdraw(address token, uint256 amount, address to) external;

    /// @notice Adds to a reservation out of the caller's own account, and pays arrears from it at once. By anyone, until
    /// the settlement window ends.
    /// @param settled the settled head, which says what is due; all zero before the first
    function topUp(CompactTerms calldata terms, Head calldata settled, uint128 amount) external;

    /// @notice Starts to take unpaid reservation back; replaces a thaw under way, 0 stops it. Consumer only.
    /// The thawing amount stays collectable until it is released.
    function thaw(CompactTerms calldata terms, uint128 amount) external;

    /// @notice Moves a thaw that is over to the consumer's free money. By anyone.
    function releaseThawed(CompactTerms calldata terms) external;

    /// @notice Gives back part of what was paid, out of the provider's own account to the consumer's: what a credit that
    /// came after the payment is worth. Provider only, also after the authorization is closed.
    function refund(CompactTerms calldata terms, uint128 amount) external;

    /// @notice Sends a payee all that its share of the split has accrued. By anyone; it always goes to the payee.
    function payShare(bytes32 split, address token, address payee) external returns (uint256 amount);

    function freeOf(address owner, address token) external view returns (uint256);

    function reservationOf(bytes32 authorizationId) external view returns (Reservation memory);

    /// @notice Total ever settled to a split, in one token.
    function accruedOf(bytes32 split, address token) external view returns (uint256);

    /// @notice What payShare would send now.
    function shareOf(bytes32 split, address token, address payee) external view returns (uint256);
}
