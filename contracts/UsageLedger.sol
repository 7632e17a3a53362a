// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Authorizations} from "./Authorizations.sol";
import {IAdmission} from "./interfaces/IAdmission.sol";
import {ISessionKeys} from "./interfaces/ISessionKeys.sol";
import {IUsageLedger} from "./interfaces/IUsageLedger.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {Splits} from "./libraries/Splits.sol";
import {AuthorizationTerms, CompactTerms, Head, Terms} from "./libraries/Terms.sol";

/// @title Escrowed money
/// @notice The manual is IUsageLedger.
contract UsageLedger is IUsageLedger, Authorizations, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using Terms for CompactTerms;

    /// @dev What an authorization's record has no room for, and a settlement does not touch.
    struct Thaw {
        uint96 amount;
        uint40 end;
        uint96 refunded;
    }

    mapping(address owner => mapping(address token => uint256)) private free;
    mapping(bytes32 authorizationId => Thaw) private thaws;
    mapping(bytes32 split => mapping(address token => uint256)) private accrued;
    mapping(bytes32 split => mapping(address token => mapping(address payee => uint256))) private sent;

    constructor(
        IAdmission admission_,
        ISessionKeys sessionKeys_,
        address forwarder
    ) Authorizations(admission_, sessionKeys_, forwarder) {}

    // -------------------------------------------------------------------------------------------- accounts

    /// @inheritdoc IUsageLedger
    function depositFor(address owner, address token, uint256 amount) external nonReentrant {
        pull(owner, token, amount);
    }

    /// @inheritdoc IUsageLedger
    function depositWithPermit(
        address owner,
        address token,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        require(token.code.length > 0, TokenNotContract(token)); // a call to no code is no failure that could be caught
        // Whatever the permit's fate, the transfer below says whether there is an allowance.
        try IERC20Permit(token).permit(_msgSender(), address(this), amount, deadline, v, r, s) {} catch {}
        pull(owner, token, amount);
    }

    /// @dev Always from the caller: an allowance is no permission for others to use it.
    function pull(address owner, address token, uint256 amount) private {
        address from = _msgSender();
        uint256 before = beforeDeposit(owner, token, amount);
        IERC20(token).safeTransferFrom(from, address(this), amount);
        afterDeposit(from, owner, token, amount, before);
    }

    /// @inheritdoc IUsageLedger
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
    ) external nonReentrant {
        bytes32 nonce = keccak256(abi.encode(owner, salt));
        uint256 before = beforeDeposit(owner, token, amount);
        IERC3009(token).receiveWithAuthorization(from, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        afterDeposit(from, owner, token, amount, before);
    }

    function beforeDeposit(address owner, address token, uint256 amount) private view returns (uint256 balance) {
        require(amount > 0, AmountZero());
        require(token.code.length > 0, TokenNotContract(token));
        require(owner != address(0) && owner != address(this), ReceiverInvalid(owner));
        return IERC20(token).balanceOf(address(this));
    }

    /// @dev Credited after the transfer because only then is it known what arrived; nonReentrant covers the gap.
    function afterDeposit(address from, address owner, address token, uint256 amount, uint256 before) private {
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        require(received == amount, TokenTransferInexact(token, amount, received));

        free[owner][token] += amount;

        emit Deposited(owner, token, from, amount);
    }

    /// @inheritdoc IUsageLedger
    function withdraw(address token, uint256 amount, address to) external nonReentrant {
        require(amount > 0, AmountZero());
        require(to != address(this), ReceiverInvalid(to));

        address owner = _msgSender();
        take(owner, token, amount);

        emit Withdrawn(owner, token, to, amount);

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
    function topUp(CompactTerms calldata terms, Head calldata settled, uint128 amount) external nonReentrant {
        bytes32 id = _hashTypedDataV4(terms.hash());
        Record storage record = standing(id);
        require(amount > 0, AmountZero());
        uint256 windowEnd = uint256(record.endedAt) + terms.thawSeconds;
        require(block.timestamp <= windowEnd, WindowOver(id, windowEnd, block.timestamp));
        uint256 due = settledDue(id, record, terms, settled);

        take(_msgSender(), terms.token, amount);
        // A thaw covers what was unpaid before this money came, not the new money.
        thaws[id].amount = thawing(id, record);
        record.amount = toAmount(uint256(record.amount) + amount);
        // Arrears come first: nothing that is owed can be thawed or released.
        uint96 before = record.paid;
        (, uint256 paid) = _pay(record, terms, due);
        record.paid = uint96(paid);

        emit ToppedUp(id, _msgSender(), amount);
        if (paid > before) emit ArrearsPaid(id, uint128(due), uint128(paid));
    }

    /// @inheritdoc IUsageLedger
    function thaw(CompactTerms calldata terms, uint128 amount) external nonReentrant {
        bytes32 id = _hashTypedDataV4(terms.hash());
        Record storage record = standing(id);
        require(_msgSender() == terms.consumer, AuthorizationNotYours(id, _msgSender()));
        uint96 unpaid = record.amount - record.paid;
        require(amount <= unpaid, ThawTooLarge(id, amount, unpaid));

        uint40 thawEnd = uint40(block.timestamp + terms.thawSeconds);
        thaws[id].amount = uint96(amount);
        thaws[id].end = thawEnd;

        emit ThawStarted(id, amount, thawEnd);
    }

    /// @inheritdoc IUsageLedger
    function releaseThawed(CompactTerms calldata terms) external nonReentrant {
        bytes32 id = _hashTypedDataV4(terms.hash());
        Record storage record = standing(id);
        uint96 amount = thawing(id, record);
        require(amount > 0, AmountZero());
        uint40 thawEnd = thaws[id].end;
        require(block.timestamp >= thawEnd, ThawNotOver(id, thawEnd, block.timestamp));

        thaws[id].amount = 0;
        record.amount -= amount;
        free[terms.consumer][terms.token] += amount;

        emit Thawed(id, amount);
    }

    /// @inheritdoc IUsageLedger
    function refund(CompactTerms calldata terms, uint128 amount) external nonReentrant {
        bytes32 id = _hashTypedDataV4(terms.hash());
        require(_msgSender() == terms.provider, AuthorizationNotYours(id, _msgSender()));
        require(amount > 0, AmountZero());
        uint96 refunded = thaws[id].refunded;
        // Nothing is paid on what was never opened.
        uint96 refundable = records[id].paid - refunded;
        require(amount <= refundable, RefundTooLarge(id, amount, refundable));

        take(terms.provider, terms.token, amount);
        refunded += uint96(amount);
        thaws[id].refunded = refunded;
        free[terms.consumer][terms.token] += amount;

        emit Refunded(id, amount, refunded);
    }

    /// @dev What a thaw would release: settlements since may have used part of it.
    function thawing(bytes32 id, Record storage record) private view returns (uint96) {
        uint96 unpaid = record.amount - record.paid;
        uint96 amount = thaws[id].amount;
        return amount < unpaid ? amount : unpaid;
    }

    /// @inheritdoc Authorizations
    function _reserve(AuthorizationTerms calldata terms, uint128 amount) internal override {
        require(terms.flags & Terms.INVOICED == 0, IAdmission.TermsInvalid("flags"));
        require(terms.token.code.length > 0, TokenNotContract(terms.token));
        take(terms.consumer, terms.token, amount);
    }

    /// @inheritdoc Authorizations
    function _pay(
        Record storage record,
        CompactTerms calldata terms,
        uint256 due
    ) internal override returns (uint256 reserved, uint256 paid) {
        uint256 before = record.paid;
        reserved = record.amount;
        // paid' = min(max(due, paid), reserved): it never falls, and never exceeds what was set aside.
        paid = due > before ? due : before;
        if (paid > reserved) paid = reserved;
        if (paid > before) accrued[terms.split][terms.token] += paid - before;
    }

    /// @inheritdoc Authorizations
    function _payFinally(
        bytes32 id,
        Record storage record,
        CompactTerms calldata terms,
        uint128 finalPaid,
        uint256 due
    ) internal override returns (uint128) {
        uint256 most = due > record.paid ? due : record.paid;
        if (most > record.amount) most = record.amount;
        require(finalPaid >= record.paid && finalPaid <= most, CloseInvalid(id, finalPaid, due));
        _pay(record, terms, finalPaid);
        record.paid = uint96(finalPaid);
        return toAmount(due);
    }

    /// @inheritdoc Authorizations
    function _release(
        bytes32 id,
        Record storage record,
        CompactTerms calldata terms
    ) internal override returns (uint128 released) {
        released = record.amount - record.paid;
        record.amount = record.paid;
        thaws[id].amount = 0;
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
    function reservationOf(bytes32 id) external view returns (Reservation memory) {
        Record storage record = records[id];
        return
            Reservation({
                reserved: record.amount,
                paid: record.paid,
                thawing: thawing(id, record),
                thawEnd: thaws[id].end,
                refunded: thaws[id].refunded
            });
    }

    /// @inheritdoc IUsageLedger
    function accruedOf(bytes32 split, address token) external view returns (uint256) {
        return accrued[split][token];
    }

    /// @inheritdoc Authorizations
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IUsageLedger).interfaceId || super.supportsInterface(id);
    }
}
