// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Authorizations} from "./Authorizations.sol";
import {IProductRegistry} from "./interfaces/IProductRegistry.sol";
import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";
import {IUsageLedger} from "./interfaces/IUsageLedger.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {Splits} from "./libraries/Splits.sol";
import {AuthorizationTerms, CompactTerms, Terms} from "./libraries/Terms.sol";

/// @title Escrowed money
/// @notice The manual is IUsageLedger.
contract UsageLedger is IUsageLedger, Authorizations, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using Terms for CompactTerms;

    mapping(address owner => mapping(address token => uint256)) private free;
    mapping(bytes32 authorizationId => Reservation) private reservations;
    mapping(bytes32 split => mapping(address token => uint256)) private accrued;
    mapping(bytes32 split => mapping(address token => mapping(address payee => uint256))) private sent;

    constructor(
        ISpaceRegistry spaces_,
        IProductRegistry products_,
        address rateCards_
    ) Authorizations(spaces_, products_, rateCards_) {}

    // -------------------------------------------------------------------------------------------- accounts

    /// @inheritdoc IUsageLedger
    function depositFor(address owner, address token, uint256 amount) external nonReentrant {
        require(amount > 0, AmountZero());
        require(token.code.length > 0, TokenNotContract(token));
        require(owner != address(0) && owner != address(this), ReceiverInvalid(owner));

        // Credited after the transfer because only then is it known what arrived; nonReentrant covers the gap.
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        require(received == amount, TokenTransferInexact(token, amount, received));
        free[owner][token] += amount;

        emit Deposited(owner, token, msg.sender, amount);
    }

    /// @inheritdoc IUsageLedger
    function withdraw(address token, uint256 amount, address to) external nonReentrant {
        require(amount > 0, AmountZero());
        require(to != address(this), ReceiverInvalid(to));

        take(msg.sender, token, amount);

        emit Withdrawn(msg.sender, token, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    function take(address owner, address token, uint256 amount) private {
        uint256 balance = free[owner][token];
        require(balance >= amount, BalanceTooLow(owner, token, balance, amount));
        unchecked {
            // The line above: balance >= amount.
            free[owner][token] = balance - amount;
        }
    }

    // ---------------------------------------------------------------------------------------- reservations

    /// @inheritdoc IUsageLedger
    function topUp(CompactTerms calldata terms, uint128 amount) external nonReentrant {
        bytes32 id = openId(terms);
        require(amount > 0, AmountZero());
        Record storage record = records[id];
        uint256 windowEnd = uint256(record.endedAt) + terms.thawSeconds;
        require(block.timestamp <= windowEnd, WindowOver(id, windowEnd, block.timestamp));

        take(msg.sender, terms.token, amount);
        Reservation storage reservation = reservations[id];
        // A thaw covers what was unpaid before this money came, not the new money.
        reservation.thawing = thawingOf(reservation);
        reservation.reserved += amount;
        // Arrears come first: nothing that is owed can be thawed or released. Range-checked when the head settled.
        uint128 due = uint128(dueOf(terms.rateCard, record.units, record.credits));
        uint128 before = reservation.paid;
        uint128 paid = _pay(id, terms, due);

        emit ToppedUp(id, msg.sender, amount);
        if (paid > before) emit ArrearsPaid(id, due, paid);
    }

    /// @inheritdoc IUsageLedger
    function thaw(CompactTerms calldata terms, uint128 amount) external nonReentrant {
        bytes32 id = openId(terms);
        require(msg.sender == terms.consumer, AuthorizationNotYours(id, msg.sender));
        Reservation storage reservation = reservations[id];
        uint128 unpaid = reservation.reserved - reservation.paid;
        require(amount <= unpaid, ThawTooLarge(id, amount, unpaid));

        uint40 thawEnd = uint40(block.timestamp + terms.thawSeconds);
        reservation.thawing = amount;
        reservation.thawEnd = thawEnd;

        emit ThawStarted(id, amount, thawEnd);
    }

    /// @inheritdoc IUsageLedger
    function releaseThawed(CompactTerms calldata terms) external nonReentrant {
        bytes32 id = openId(terms);
        Reservation storage reservation = reservations[id];
        uint128 amount = thawingOf(reservation);
        require(amount > 0, AmountZero());
        uint40 thawEnd = reservation.thawEnd;
        require(block.timestamp >= thawEnd, ThawNotOver(id, thawEnd, block.timestamp));

        reservation.thawing = 0;
        reservation.reserved -= amount;
        free[terms.consumer][terms.token] += amount;

        emit Thawed(id, amount);
    }

    /// @dev What a thaw would release: settlements since may have used part of it.
    function thawingOf(Reservation storage reservation) private view returns (uint128) {
        uint128 unpaid = reservation.reserved - reservation.paid;
        return reservation.thawing < unpaid ? reservation.thawing : unpaid;
    }

    /// @dev The id of terms that are open or ended and not yet finalized.
    function openId(CompactTerms calldata terms) private view returns (bytes32 id) {
        id = _hashTypedDataV4(terms.hash());
        require(records[id].status == Status.OPEN, AuthorizationStatus(id, statusOf(id)));
    }

    /// @inheritdoc Authorizations
    function _reserve(bytes32 id, AuthorizationTerms calldata terms, uint128 amount) internal override {
        require(terms.flags & Terms.INVOICED == 0, TermsInvalid("flags"));
        require(terms.token.code.length > 0, TokenNotContract(terms.token));
        take(terms.consumer, terms.token, amount);
        reservations[id].reserved = amount;
    }

    /// @inheritdoc Authorizations
    function _pay(bytes32 id, CompactTerms memory terms, uint128 due) internal override returns (uint128 paid) {
        Reservation storage reservation = reservations[id];
        uint128 before = reservation.paid;
        uint128 reserved = reservation.reserved;
        // paid' = min(max(due, paid), reserved): it never falls, and never exceeds what was set aside.
        paid = due > before ? due : before;
        if (paid > reserved) paid = reserved;
        if (paid > before) {
            reservation.paid = paid;
            accrued[terms.split][terms.token] += paid - before;
        }
    }

    /// @inheritdoc Authorizations
    function _release(bytes32 id, CompactTerms calldata terms) internal override returns (uint128 released) {
        Reservation storage reservation = reservations[id];
        released = reservation.reserved - reservation.paid;
        reservation.reserved = reservation.paid;
        reservation.thawing = 0;
        free[terms.consumer][terms.token] += released;
    }

    // ---------------------------------------------------------------------------------------------- shares

    /// @inheritdoc IUsageLedger
    function payShare(bytes32 split, address token, address payee) external nonReentrant returns (uint256 amount) {
        amount = shareOf(split, token, payee);
        require(amount > 0, AmountZero());

        sent[split][token][payee] += amount;

        emit SharePaid(split, token, payee, amount);

        IERC20(token).safeTransfer(payee, amount);
    }

    /// @inheritdoc IUsageLedger
    function shareOf(bytes32 split, address token, address payee) public view returns (uint256) {
        bytes memory encoded = CodeStore.read(rateCards, split);
        uint256 bps = encoded.length > 0 && encoded[0] == 0x02 ? Splits.bpsOf(encoded, payee) : 0;
        require(bps > 0, ShareUnknown(split, payee));
        return (accrued[split][token] * bps) / Splits.WHOLE - sent[split][token][payee];
    }

    // ----------------------------------------------------------------------------------------------- views

    /// @inheritdoc IUsageLedger
    function freeOf(address owner, address token) external view returns (uint256) {
        return free[owner][token];
    }

    /// @inheritdoc IUsageLedger
    function reservationOf(bytes32 id) external view returns (Reservation memory reservation) {
        reservation = reservations[id];
        reservation.thawing = thawingOf(reservations[id]);
    }

    /// @inheritdoc IUsageLedger
    function accruedOf(bytes32 split, address token) external view returns (uint256) {
        return accrued[split][token];
    }
}
