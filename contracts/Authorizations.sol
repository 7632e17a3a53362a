// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IAdmission} from "./interfaces/IAdmission.sol";
import {IAuthorizations} from "./interfaces/IAuthorizations.sol";
import {ISessionKeys} from "./interfaces/ISessionKeys.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {Pricing} from "./libraries/Pricing.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {
    Approval,
    AuthorizationTerms,
    Close,
    CompactTerms,
    Head,
    Offer,
    Requirement,
    Terms,
    UsageCeiling
} from "./libraries/Terms.sol";
import {UsageLog} from "./libraries/UsageLog.sol";

/// @title Authorizations and heads
/// @notice The manual is IAuthorizations.
/// @dev The two ledgers fill in what a reservation, a payment and a release are.
abstract contract Authorizations is IAuthorizations, ERC2771Context, EIP712, ERC165 {
    using Terms for *;

    uint8 internal constant MAX_DEPTH = 4;

    IAdmission public immutable admission;
    ISessionKeys public immutable sessionKeys;
    address public immutable rateCards;

    /// @dev Two words, both of which a settlement writes. The digest stands for the whole settled head.
    struct Record {
        bytes32 headDigest;
        uint96 amount; // escrowed: reserved, paid part included; invoiced: due
        uint96 paid;
        uint40 endedAt;
        Status status; // NONE, OPEN, CLOSED or CANCELLED; ENDED follows from the time
        uint8 basis; // a Basis: as a number it is written together with the amounts
        uint8 depth;
    }

    /// @dev What the rows of a batch share: heads of one product mostly have one rate card.
    struct Batch {
        bytes32 separator;
        address sender;
        bytes32 rateCard;
        bytes card;
    }

    mapping(bytes32 authorizationId => Record) internal records;
    mapping(address provider => mapping(bytes32 offerDigest => uint256 count)) private acceptances;

    constructor(
        IAdmission admission_,
        ISessionKeys sessionKeys_,
        address forwarder
    ) ERC2771Context(forwarder) EIP712("Sluice", "1") {
        require(block.timestamp < 1e11, ClockNotInSeconds(block.timestamp));
        admission = admission_;
        sessionKeys = sessionKeys_;
        rateCards = admission_.rateCards();
    }

    // ------------------------------------------------------------------------------------------------ open

    /// @inheritdoc IAuthorizations
    function open(Opening calldata opening) external returns (bytes32) {
        return _open(opening);
    }

    function _open(Opening calldata opening) private returns (bytes32 id) {
        AuthorizationTerms calldata terms = opening.terms;
        id = _hashTypedDataV4(terms.hash());
        Record storage record = records[id];
        require(record.status == Status.NONE, AuthorizationStatus(id, statusOf(record)));
        require(block.timestamp < terms.validUntil, TermsExpired(terms.validUntil, block.timestamp));
        uint8 depth = depthUnder(terms.scope.parent, opening.parents);
        admission.check(address(this), terms, opening.approvers, opening.approvals, opening.parents);
        bytes32 offerDigest = checkSignatures(opening, id);
        uint128 reserve = opening.acceptance.reserve;

        record.amount = toAmount(reserve);
        record.endedAt = terms.validUntil;
        record.status = Status.OPEN;
        record.depth = depth;
        _reserve(terms, reserve);

        emit Opened(id, terms.provider, terms.consumer, terms, reserve, offerDigest);
        for (uint256 i = 0; i < opening.approvals.length; ++i) {
            Approval calldata given = opening.approvals[i];
            emit Approved(id, given.by.approver, given.by.approvalType, given.documentHash, given.validUntil);
        }
    }

    /// @dev Generations above a child of `parent`; zero without one.
    function depthUnder(bytes32 parent, AuthorizationTerms[] calldata parents) private view returns (uint8) {
        if (parent == 0 && parents.length == 0) return 0;
        Record storage record = records[parent];
        bool shown = parents.length == 1 && _hashTypedDataV4(parents[0].hash()) == parent;
        require(
            shown && statusOf(record) == Status.OPEN && record.depth < MAX_DEPTH,
            ParentNotOpen(parent, statusOf(record), record.depth)
        );
        return record.depth + 1;
    }

    /// @return offerDigest zero if the provider signed the terms themselves
    function checkSignatures(Opening calldata opening, bytes32 id) private returns (bytes32 offerDigest) {
        AuthorizationTerms calldata terms = opening.terms;
        Offer calldata offer = opening.offer;
        if (offer.termsTemplateHash != 0) {
            bytes32 expected = terms.templateHash();
            require(offer.termsTemplateHash == expected, OfferMismatch(offer.termsTemplateHash, expected));
            offerDigest = _hashTypedDataV4(offer.hash());
            require(block.timestamp <= offer.offerUntil, OfferExpired(offerDigest, offer.offerUntil));
            uint256 count = ++acceptances[terms.provider][offerDigest];
            require(count <= offer.maxAcceptances, OfferExhausted(offerDigest, offer.maxAcceptances));
        }
        requireSigned(terms.provider, offerDigest == 0 ? id : offerDigest, opening.providerSignature);
        require(
            opening.acceptance.authorizationId == id && block.timestamp <= opening.acceptance.deadline,
            AcceptanceInvalid(opening.acceptance.authorizationId, opening.acceptance.deadline)
        );
        requireSigned(terms.consumer, id, opening.consumerSignature);
        requireSigned(terms.consumer, _hashTypedDataV4(opening.acceptance.hash()), opening.acceptanceSignature);
    }

    /// @dev The wallet itself, no session key: these signatures move money or end things.
    function requireSigned(address wallet, bytes32 digest, bytes calldata signature) private view {
        require(Signatures.isBy(wallet, digest, signature), SignatureInvalid(wallet));
    }

    // ---------------------------------------------------------------------------------------------- settle

    /// @inheritdoc IAuthorizations
    function settle(Settlement calldata settlement) external {
        Batch memory batch = newBatch();
        CompactTerms calldata terms = settlement.terms;
        bytes32 id = MessageHashUtils.toTypedDataHash(batch.separator, terms.hash());
        raise(trySettle(settlement, id, batch));
    }

    /// @inheritdoc IAuthorizations
    function settleMany(Settlement[] calldata settlements) external {
        Batch memory batch = newBatch();
        for (uint256 i = 0; i < settlements.length; ++i) {
            Settlement calldata row = settlements[i];
            CompactTerms calldata terms = row.terms;
            bytes32 id = MessageHashUtils.toTypedDataHash(batch.separator, terms.hash());
            bytes memory problem = trySettle(row, id, batch);
            if (problem.length > 0) emit SettlementSkipped(i, id, problem);
        }
    }

    function newBatch() private view returns (Batch memory batch) {
        batch.separator = _domainSeparatorV4();
        batch.sender = _msgSender();
    }

    /// @dev Returns the error instead of reverting with it, so that a batch can go on. Nothing is written before the
    /// last check has passed.
    function trySettle(
        Settlement calldata settlement,
        bytes32 id,
        Batch memory batch
    ) private returns (bytes memory problem) {
        CompactTerms calldata terms = settlement.terms;
        Head calldata head = settlement.head;
        Record storage record = records[id];
        problem = checkHead(id, batch.separator, record, terms, settlement.previous, head);
        if (problem.length > 0) return problem;
        if (batch.rateCard != terms.rateCard) {
            batch.rateCard = terms.rateCard;
            batch.card = CodeStore.read(rateCards, terms.rateCard);
        }
        uint256 due = dueUnder(batch.card, head);
        if (due > type(uint96).max) return abi.encodeWithSelector(AmountTooLarge.selector, due);

        bytes32 digest = MessageHashUtils.toTypedDataHash(batch.separator, head.hash(id));
        address providerSigner = address(0);
        if (terms.provider != batch.sender) {
            providerSigner = signerFor(terms.provider, digest, settlement.providerSignature, due, head.asOf);
            if (providerSigner == address(0)) {
                return abi.encodeWithSelector(SignatureInvalid.selector, terms.provider);
            }
        }
        (address consumerSigner, Basis basis, bytes memory refusal) = checkConsumer(settlement, id, digest, due);
        if (refusal.length > 0) return refusal;
        if (terms.flags & Terms.FAST == 0 && !isConsistent(settlement.previous, head, settlement.consistency)) {
            return abi.encodeWithSelector(HeadInconsistent.selector, id, settlement.previous.size, head.size);
        }

        (uint256 amount, uint256 paid) = _pay(record, terms, due);
        record.headDigest = digest;
        record.amount = uint96(amount);
        record.paid = uint96(paid);
        record.basis = uint8(basis);

        emitSettled(id, head, due, paid, [providerSigner, consumerSigner], basis);
    }

    /// @dev `emit Settled(…)` by hand: the compiler's encoder costs 2,000 gas more a head. Every member is one word, and
    /// the head's words were checked when they were read.
    function emitSettled(
        bytes32 id,
        Head calldata head,
        uint256 due,
        uint256 paid,
        address[2] memory signers,
        Basis basis
    ) private {
        bytes32 topic = Settled.selector;
        // Memory-safe: writes past the free pointer only, where nothing is kept.
        assembly ("memory-safe") {
            let p := mload(0x40)
            calldatacopy(p, head, 0x100)
            mstore(add(p, 0x100), due)
            mstore(add(p, 0x120), paid)
            mstore(add(p, 0x140), mul(gt(due, paid), sub(due, paid))) // arrears
            mstore(add(p, 0x160), mload(signers))
            mstore(add(p, 0x180), mload(add(signers, 0x20)))
            mstore(add(p, 0x1a0), basis)
            log2(p, 0x1c0, topic, id)
        }
    }

    function checkHead(
        bytes32 id,
        bytes32 separator,
        Record storage record,
        CompactTerms calldata terms,
        Head calldata previous,
        Head calldata head
    ) private view returns (bytes memory) {
        if (record.status != Status.OPEN) {
            return abi.encodeWithSelector(AuthorizationStatus.selector, id, record.status);
        }
        if (digestOf(previous, id, separator) != record.headDigest) {
            return abi.encodeWithSelector(HeadMoved.selector, id, record.headDigest);
        }
        uint256 endedAt = record.endedAt;
        uint256 windowEnd = endedAt + terms.thawSeconds;
        if (block.timestamp > windowEnd) {
            return abi.encodeWithSelector(WindowOver.selector, id, windowEnd, block.timestamp);
        }
        if (head.size <= previous.size) {
            return abi.encodeWithSelector(HeadStale.selector, id, previous.size, head.size);
        }
        if (head.credits < previous.credits || head.asOf < previous.asOf) {
            return abi.encodeWithSelector(HeadLower.selector, id);
        }
        if (head.asOf > block.timestamp) {
            return abi.encodeWithSelector(HeadInFuture.selector, id, head.asOf, block.timestamp);
        }
        (bool rose, bool fell, bool over) = compare(previous.units, head.units, terms.maxUnits);
        if (fell) return abi.encodeWithSelector(HeadLower.selector, id);
        if (over) return overQuota(id, head.units, terms.maxUnits);
        // A head that only adds credits or refusals may be signed after the end.
        if (rose && head.asOf > endedAt + Terms.CLOCK_SKEW) {
            return abi.encodeWithSelector(HeadAfterEnd.selector, id, head.asOf, endedAt);
        }
        return "";
    }

    /// @dev Did the units of any meter rise or fall, and is any over its quota? Reverts on words that are no uint64.
    function compare(
        uint64[4] calldata before,
        uint64[4] calldata units,
        uint64[4] calldata quota
    ) private pure returns (bool rose, bool fell, bool over) {
        // Memory-safe: touches no memory. Twelve words are read at the fixed places of static arrays.
        assembly ("memory-safe") {
            let bits := 0
            for {
                let last := add(units, 0x80)
            } lt(units, last) {
                units := add(units, 0x20)
                before := add(before, 0x20)
                quota := add(quota, 0x20)
            } {
                let a := calldataload(before)
                let b := calldataload(units)
                let c := calldataload(quota)
                bits := or(bits, or(a, or(b, c)))
                rose := or(rose, gt(b, a))
                fell := or(fell, lt(b, a))
                over := or(over, gt(b, c))
            }
            if shr(64, bits) {
                revert(0, 0)
            }
        }
    }

    function overQuota(
        bytes32 id,
        uint64[4] calldata units,
        uint64[4] calldata quota
    ) private pure returns (bytes memory) {
        uint256 m = 0;
        while (units[m] <= quota[m]) ++m;
        return abi.encodeWithSelector(HeadOverQuota.selector, id, m, units[m], quota[m]);
    }

    /// @dev Who vouched for the head on the consumer's side, or why nobody did.
    function checkConsumer(
        Settlement calldata settlement,
        bytes32 id,
        bytes32 digest,
        uint256 due
    ) private view returns (address signer, Basis basis, bytes memory problem) {
        CompactTerms calldata terms = settlement.terms;
        uint40 asOf = settlement.head.asOf;
        if (settlement.consumerSignature.length > 0) {
            signer = signerFor(terms.consumer, digest, settlement.consumerSignature, due, asOf);
            if (signer != address(0)) return (signer, Basis.CONSUMER, "");
            if (terms.meteringAgent != address(0)) {
                signer = signerFor(terms.meteringAgent, digest, settlement.consumerSignature, due, asOf);
            }
            if (signer == address(0)) {
                return (signer, basis, abi.encodeWithSelector(SignatureInvalid.selector, terms.consumer));
            }
            if (terms.flags & Terms.AGENT_CAPPED == 0) return (signer, Basis.AGENT, "");
            basis = Basis.AGENT_CAPPED;
        } else {
            basis = Basis.CEILING;
        }
        if (settlement.ceilings.length != 1) {
            problem =
                basis == Basis.CEILING
                    ? abi.encodeWithSelector(SignatureInvalid.selector, terms.consumer)
                    : abi.encodeWithSelector(CeilingMissing.selector, id);
            return (signer, basis, problem);
        }
        address under;
        (under, problem) = checkCeiling(settlement.ceilings[0], terms.consumer, settlement.head, id, due);
        if (basis == Basis.CEILING) signer = under;
    }

    function checkCeiling(
        SignedCeiling calldata signed,
        address consumer,
        Head calldata head,
        bytes32 id,
        uint256 due
    ) private view returns (address signer, bytes memory problem) {
        UsageCeiling calldata ceiling = signed.ceiling;
        bool within =
            ceiling.authorizationId == id &&
                block.timestamp <= ceiling.expiry &&
                head.credits >= ceiling.minCredits &&
                due <= ceiling.maxDue;
        for (uint256 m = 0; m < 4; ++m) within = within && head.units[m] <= ceiling.maxUnits[m];
        if (!within) return (signer, abi.encodeWithSelector(CeilingExceeded.selector, id, due));
        signer = signerFor(consumer, _hashTypedDataV4(ceiling.hash()), signed.signature, due, head.asOf);
        if (signer == address(0)) problem = abi.encodeWithSelector(SignatureInvalid.selector, consumer);
    }

    /// @dev The key that validly signed for `wallet` what comes to `due`: its own, a session key's, or the wallet's
    /// address where its code agrees (EIP-1271). Zero if none.
    function signerFor(
        address wallet,
        bytes32 digest,
        bytes calldata signature,
        uint256 due,
        uint40 asOf
    ) private view returns (address signer) {
        signer = Signatures.signerOf(digest, signature);
        if (signer == wallet) return signer;
        if (signer != address(0)) {
            uint256 cap = sessionKeys.capOf(wallet, signer, asOf);
            if (cap > 0 && due <= cap) return signer;
        }
        return Signatures.isAgreedBy(wallet, digest, signature) ? wallet : address(0);
    }

    function isConsistent(
        Head calldata previous,
        Head calldata head,
        bytes32[] calldata proof
    ) private view returns (bool) {
        return UsageLog.extends(previous.size, previous.root, head.size, head.root, proof);
    }

    /// @dev EIP-712 digest of the UsageHead; zero for the state before the first, which has nothing but zeros.
    function digestOf(Head calldata head, bytes32 id, bytes32 separator) private pure returns (bytes32) {
        return head.isEmpty() ? bytes32(0) : MessageHashUtils.toTypedDataHash(separator, head.hash(id));
    }

    /// @dev max(0, C(units) − credits), in token units.
    function dueOf(bytes32 rateCard, Head calldata head) internal view returns (uint256) {
        return dueUnder(CodeStore.read(rateCards, rateCard), head);
    }

    function dueUnder(bytes memory card, Head calldata head) private pure returns (uint256) {
        uint256 price = Pricing.price(card, head.units);
        return price > head.credits ? price - head.credits : 0;
    }

    /// @dev The same for the settled head, which the caller shows.
    function settledDue(
        bytes32 id,
        Record storage record,
        CompactTerms calldata terms,
        Head calldata head
    ) internal view returns (uint256) {
        bytes32 digest = digestOf(head, id, _domainSeparatorV4());
        require(digest == record.headDigest, HeadMoved(id, record.headDigest));
        return head.size == 0 ? 0 : dueOf(terms.rateCard, head);
    }

    /// @dev Reverts with an error that was returned; does nothing if there is none.
    function raise(bytes memory problem) private pure {
        if (problem.length == 0) return;
        // Memory-safe: reads `problem` only, and ends the call.
        assembly ("memory-safe") {
            revert(add(problem, 0x20), mload(problem))
        }
    }

    // ------------------------------------------------------------------------------------------------- end

    /// @inheritdoc IAuthorizations
    function revoke(AuthorizationTerms calldata terms, Requirement[] calldata approvers, uint16 reason) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        address by = _msgSender();
        require(admission.mayRevoke(by, terms, approvers), AuthorizationNotYours(id, by));

        uint40 endedAt = end(id, block.timestamp + terms.revokeGrace);

        emit Revoked(id, by, endedAt, reason);
    }

    /// @inheritdoc IAuthorizations
    function close(CompactTerms calldata terms, uint16 reason) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        address by = _msgSender();
        require(by == terms.provider || by == terms.consumer, AuthorizationNotYours(id, by));

        // The grace is the consumer's: closing gives the provider no way around it.
        uint40 endedAt = end(id, block.timestamp + (by == terms.consumer ? 0 : terms.revokeGrace));

        emit ClosedEarly(id, by, endedAt, reason);
    }

    /// @inheritdoc IAuthorizations
    function endByParent(AuthorizationTerms calldata child) external {
        bytes32 id = _hashTypedDataV4(child.hash());
        bytes32 parent = child.scope.parent;
        uint40 parentEnd = records[parent].endedAt;
        require(parent != 0 && parentEnd < records[id].endedAt, ParentNotEnded(parent, parentEnd));

        // Never in the past: what the child's parties acknowledged keeps its whole settlement window.
        uint40 endedAt = end(id, parentEnd > block.timestamp ? parentEnd : block.timestamp);

        emit EndedByParent(id, parent, endedAt);
    }

    function end(bytes32 id, uint256 endsAt) private returns (uint40 endedAt) {
        Record storage record = records[id];
        require(statusOf(record) == Status.OPEN, AuthorizationStatus(id, statusOf(record)));
        // A later end never prolongs an earlier one.
        require(endsAt < record.endedAt, AuthorizationEnding(id, record.endedAt));

        endedAt = SafeCast.toUint40(endsAt);
        record.endedAt = endedAt;
    }

    /// @inheritdoc IAuthorizations
    function closeTogether(Closing calldata closing) external {
        _closeTogether(closing);
    }

    function _closeTogether(Closing calldata closing) private returns (bytes32 id) {
        CompactTerms calldata terms = closing.terms;
        Head calldata head = closing.head;
        Close calldata agreed = closing.close;
        id = _hashTypedDataV4(terms.hash());
        Record storage record = standing(id);
        bytes32 separator = _domainSeparatorV4();
        bytes32 digest = digestOf(head, id, separator);
        if (digest != record.headDigest) {
            raise(checkHead(id, separator, record, terms, closing.previous, head));
            require(
                terms.flags & Terms.FAST != 0 || isConsistent(closing.previous, head, closing.consistency),
                HeadInconsistent(id, closing.previous.size, head.size)
            );
        }
        uint256 due = digest == 0 ? 0 : dueOf(terms.rateCard, head);
        require(
            agreed.authorizationId == id && agreed.headDigest == digest && block.timestamp <= agreed.deadline,
            CloseInvalid(id, agreed.finalPaid, due)
        );
        bytes32 closeDigest = _hashTypedDataV4(agreed.hash());
        requireSigned(terms.provider, closeDigest, closing.providerSignature);
        requireSigned(terms.consumer, closeDigest, closing.consumerSignature);

        record.headDigest = digest;
        if (digest != 0) record.basis = uint8(Basis.CONSUMER);
        record.status = Status.CLOSED;
        if (block.timestamp < record.endedAt) record.endedAt = uint40(block.timestamp);
        uint128 finalDue = _payFinally(id, record, terms, agreed.finalPaid, due);
        uint128 released = _release(id, record, terms);

        emit ClosedTogether(id, head, finalDue, record.paid, released, record.endedAt);
    }

    /// @inheritdoc IAuthorizations
    function renew(Closing calldata closing, Opening calldata opening) external returns (bytes32 successor) {
        bytes32 id = _closeTogether(closing);
        require(opening.terms.scope.supersedes == id, IAdmission.TermsInvalid("scope.supersedes"));
        successor = _open(opening);

        emit Renewed(id, successor);
    }

    /// @inheritdoc IAuthorizations
    function finalize(CompactTerms calldata terms) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        Record storage record = standing(id);
        uint256 windowEnd = uint256(record.endedAt) + terms.thawSeconds;
        require(block.timestamp > windowEnd, WindowNotOver(id, windowEnd, block.timestamp));

        record.status = Status.CLOSED;
        uint128 released = _release(id, record, terms);

        emit Finalized(id, released);
    }

    /// @inheritdoc IAuthorizations
    function cancelOffer(Offer calldata offer) external {
        bytes32 digest = _hashTypedDataV4(offer.hash());

        // One more than any count an offer can allow.
        acceptances[_msgSender()][digest] = type(uint32).max;

        emit OfferCancelled(digest, _msgSender());
    }

    /// @inheritdoc IAuthorizations
    function cancelTerms(CompactTerms calldata terms) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        address by = _msgSender();
        require(by == terms.provider || by == terms.consumer, AuthorizationNotYours(id, by));
        Record storage record = records[id];
        require(record.status == Status.NONE, AuthorizationStatus(id, statusOf(record)));

        record.status = Status.CANCELLED;

        emit TermsCancelled(id, by);
    }

    // ----------------------------------------------------------------------------------------------- views

    /// @inheritdoc IAuthorizations
    function authorizationOf(bytes32 id) external view returns (Authorization memory) {
        Record storage record = records[id];
        return
            Authorization({
                headDigest: record.headDigest,
                status: statusOf(record),
                basis: Basis(record.basis),
                depth: record.depth,
                endedAt: record.endedAt
            });
    }

    /// @inheritdoc IAuthorizations
    function headDigestOf(bytes32 id) external view returns (bytes32) {
        return records[id].headDigest;
    }

    /// @inheritdoc IAuthorizations
    function idOf(AuthorizationTerms calldata terms) external view returns (bytes32) {
        return _hashTypedDataV4(terms.hash());
    }

    /// @inheritdoc IAuthorizations
    function priceOf(bytes32 rateCard, uint64[4] calldata units) external view returns (uint256) {
        bytes memory card = CodeStore.read(rateCards, rateCard);
        require(card.length > 0 && card[0] == 0x01, IAdmission.TermsInvalid("rateCard"));
        return Pricing.price(card, units);
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view virtual override returns (bool) {
        return id == type(IAuthorizations).interfaceId || super.supportsInterface(id);
    }

    function statusOf(Record storage record) internal view returns (Status) {
        bool over = record.status == Status.OPEN && block.timestamp >= record.endedAt;
        return over ? Status.ENDED : record.status;
    }

    /// @dev The record of what is open or ended and not yet closed.
    function standing(bytes32 id) internal view returns (Record storage record) {
        record = records[id];
        require(record.status == Status.OPEN, AuthorizationStatus(id, record.status));
    }

    function toAmount(uint256 amount) internal pure returns (uint96) {
        require(amount <= type(uint96).max, AmountTooLarge(amount));
        return uint96(amount);
    }

    // ------------------------------------------------------------------------- what the two ledgers fill in

    /// @dev Sets the reservation aside, or reverts.
    function _reserve(AuthorizationTerms calldata terms, uint128 amount) internal virtual;

    /// @dev Pays out what is newly due as far as possible, and returns what the record's amount and paid become; both
    /// fit into 96 bits. Calls no other contract.
    function _pay(
        Record storage record,
        CompactTerms calldata terms,
        uint256 due
    ) internal virtual returns (uint256 amount, uint256 paid);

    /// @dev Brings what is paid to what both wallets agreed on, if that is within bounds; returns what is finally due.
    function _payFinally(
        bytes32 id,
        Record storage record,
        CompactTerms calldata terms,
        uint128 finalPaid,
        uint256 due
    ) internal virtual returns (uint128 finalDue);

    /// @dev Gives back what was reserved and never paid, and returns the amount.
    function _release(
        bytes32 id,
        Record storage record,
        CompactTerms calldata terms
    ) internal virtual returns (uint128 released);
}
