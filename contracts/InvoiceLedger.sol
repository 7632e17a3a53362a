// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Authorizations} from "./Authorizations.sol";
import {IAdmission} from "./interfaces/IAdmission.sol";
import {IInvoiceLedger} from "./interfaces/IInvoiceLedger.sol";
import {ISessionKeys} from "./interfaces/ISessionKeys.sol";
import {AuthorizationTerms, CompactTerms, Terms} from "./libraries/Terms.sol";

/// @title Invoiced money
/// @notice The manual is IInvoiceLedger.
contract InvoiceLedger is IInvoiceLedger, Authorizations {
    using Terms for CompactTerms;

    /// @dev Stands in `recorded` for a payment that was taken back: its reference stays used.
    uint128 private constant REVERSED = type(uint128).max;

    mapping(bytes32 authorizationId => mapping(bytes32 referenceHash => uint128 amount)) private recorded;
    mapping(bytes32 authorizationId => mapping(bytes32 referenceHash => uint128 amount)) private claims;
    mapping(bytes32 authorizationId => uint96) private claimedOf;

    constructor(
        IAdmission admission_,
        ISessionKeys sessionKeys_,
        address forwarder
    ) Authorizations(admission_, sessionKeys_, forwarder) {}

    /// @inheritdoc IInvoiceLedger
    function recordPayment(CompactTerms calldata terms, bytes32 referenceHash, uint128 amount) external {
        bytes32 id = partyId(terms, terms.provider);
        uint128 known = recorded[id][referenceHash];
        requireAmount(id, referenceHash, known, amount);
        if (known == amount) return;

        recorded[id][referenceHash] = amount;
        uint96 paid = toAmount(uint256(records[id].paid) + amount);
        records[id].paid = paid;

        emit PaymentRecorded(id, referenceHash, amount, paid);
    }

    /// @inheritdoc IInvoiceLedger
    function reversePayment(CompactTerms calldata terms, bytes32 referenceHash) external {
        bytes32 id = partyId(terms, terms.provider);
        uint128 amount = recorded[id][referenceHash];
        require(amount > 0 && amount != REVERSED, PaymentUnknown(id, referenceHash));

        recorded[id][referenceHash] = REVERSED;
        // Only what was recorded is taken back.
        uint96 paid = records[id].paid -= uint96(amount);

        emit PaymentReversed(id, referenceHash, amount, paid);
    }

    /// @inheritdoc IInvoiceLedger
    function claimPayment(CompactTerms calldata terms, bytes32 referenceHash, uint128 amount) external {
        bytes32 id = partyId(terms, terms.consumer);
        uint128 known = claims[id][referenceHash];
        requireAmount(id, referenceHash, known, amount);
        if (known == amount) return;

        claims[id][referenceHash] = amount;
        uint96 claimed = toAmount(uint256(claimedOf[id]) + amount);
        claimedOf[id] = claimed;

        emit PaymentClaimed(id, referenceHash, amount, claimed);
    }

    /// @inheritdoc IInvoiceLedger
    function invoicedOf(bytes32 authorizationId) external view returns (Invoiced memory) {
        Record storage record = records[authorizationId];
        return Invoiced({due: record.amount, paid: record.paid, claimed: claimedOf[authorizationId]});
    }

    /// @dev The same reference and amount again is a retry; anything else under a known reference is a mistake.
    function requireAmount(bytes32 id, bytes32 referenceHash, uint128 known, uint128 amount) private pure {
        bool sane = referenceHash != 0 && amount > 0 && amount != REVERSED;
        require(sane && (known == 0 || known == amount), PaymentInvalid(id, referenceHash, known, amount));
    }

    /// @dev Bank payments arrive after the end as well, so a closed authorization still takes records.
    function partyId(CompactTerms calldata terms, address party) private view returns (bytes32 id) {
        id = _hashTypedDataV4(terms.hash());
        Status status = records[id].status;
        require(status == Status.OPEN || status == Status.CLOSED, AuthorizationStatus(id, status));
        require(_msgSender() == party, AuthorizationNotYours(id, _msgSender()));
    }

    /// @inheritdoc Authorizations
    function _reserve(AuthorizationTerms calldata terms, uint128 amount) internal pure override {
        require(terms.flags & Terms.INVOICED != 0, IAdmission.TermsInvalid("flags"));
        // An ISO 4217 code is three bytes: anything longer is a token address that escaped from escrow.
        require(uint160(terms.token) >> 24 == 0 && uint160(terms.token) >> 16 != 0, IAdmission.TermsInvalid("token"));
        require(amount == 0, IAdmission.TermsInvalid("reserve"));
    }

    /// @inheritdoc Authorizations
    function _pay(
        Record storage record,
        CompactTerms calldata,
        uint256 due
    ) internal view override returns (uint256, uint256) {
        return (due, record.paid);
    }

    /// @inheritdoc Authorizations
    function _payFinally(
        bytes32 id,
        Record storage record,
        CompactTerms calldata,
        uint128 finalPaid,
        uint256 due
    ) internal override returns (uint128) {
        require(finalPaid <= due, CloseInvalid(id, finalPaid, due));
        record.amount = toAmount(finalPaid);
        return finalPaid;
    }

    /// @inheritdoc Authorizations
    function _release(bytes32, Record storage, CompactTerms calldata) internal pure override returns (uint128) {
        return 0;
    }

    /// @inheritdoc Authorizations
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IInvoiceLedger).interfaceId || super.supportsInterface(id);
    }
}
