// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IAuthorizations} from "./interfaces/IAuthorizations.sol";
import {IProductRegistry} from "./interfaces/IProductRegistry.sol";
import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {Pricing} from "./libraries/Pricing.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {Splits} from "./libraries/Splits.sol";
import {AuthorizationTerms, CompactTerms, Offer, Scope, Terms, UsageHead} from "./libraries/Terms.sol";
import {UsageLog} from "./libraries/UsageLog.sol";

/// @title Authorizations and heads
/// @notice The manual is IAuthorizations.
/// @dev The two ledgers fill in what a reservation, a payment and a release are.
abstract contract Authorizations is IAuthorizations, EIP712 {
    using Terms for *;

    uint32 internal constant PROVIDER_ROLE = 1;
    uint32 internal constant CONSUMER_ROLE = 2;
    uint256 internal constant MIN_THAW = 24 hours;
    uint256 internal constant MAX_THAW = 30 days;
    uint256 internal constant MAX_GRACE = 30 days;
    /// @dev A gateway's clock may run ahead of the block that ends an authorization, and it learns of the end only when
    /// the block reaches it. What both wallets signed in that gap must stay payable.
    uint256 internal constant CLOCK_SKEW = 15 minutes;

    ISpaceRegistry public immutable spaces;
    IProductRegistry public immutable products;
    address public immutable rateCards;

    /// @dev `root`, `units` and {size, asOf, credits} are the settled head: three words a settlement writes.
    struct Record {
        bytes32 root;
        uint64[4] units;
        uint64 size;
        uint40 asOf;
        uint128 credits;
        uint40 endedAt;
        uint16 reason;
        Status status; // NONE, OPEN, CLOSED or CANCELLED; ENDED follows from the time
    }

    mapping(bytes32 authorizationId => Record) internal records;
    mapping(address provider => mapping(bytes32 offerDigest => uint256 count)) private acceptances;

    constructor(ISpaceRegistry spaces_, IProductRegistry products_, address rateCards_) EIP712("Sluice", "1") {
        require(block.timestamp < 1e11, ClockNotInSeconds(block.timestamp));
        spaces = spaces_;
        products = products_;
        rateCards = rateCards_;
    }

    // ------------------------------------------------------------------------------------------------ open

    /// @inheritdoc IAuthorizations
    function open(Opening calldata opening) external returns (bytes32 id) {
        AuthorizationTerms calldata terms = opening.terms;
        CompactTerms memory compact = terms.compact();
        bytes32 structHash = compact.hash();
        id = _hashTypedDataV4(structHash);
        require(records[id].status == Status.NONE, AuthorizationStatus(id, statusOf(id)));
        require(block.timestamp < terms.validUntil, TermsExpired(terms.validUntil, block.timestamp));
        checkTerms(terms);
        checkParties(terms);
        checkProduct(terms);
        checkPrice(terms);
        bytes32 offerDigest = checkSignatures(opening, compact, id);

        Record storage record = records[id];
        record.status = Status.OPEN;
        record.endedAt = terms.validUntil;
        _reserve(id, terms, opening.acceptance.reserve);

        emit Opened(id, terms.provider, terms.consumer, terms, opening.acceptance.reserve, offerDigest);
    }

    function checkTerms(AuthorizationTerms calldata terms) private pure {
        require(terms.validFrom < terms.validUntil, TermsInvalid("validFrom"));
        require(terms.thawSeconds >= MIN_THAW && terms.thawSeconds <= MAX_THAW, TermsInvalid("thawSeconds"));
        require(terms.revokeGrace <= MAX_GRACE, TermsInvalid("revokeGrace"));
        require(terms.flags & ~(Terms.FAST | Terms.INVOICED) == 0, TermsInvalid("flags"));
        // Not built yet, so refused rather than ignored: nobody may sign for a protection that is not there.
        require(terms.meteringAgent == address(0), TermsInvalid("meteringAgent"));
        require(terms.scope.parent == 0, TermsInvalid("scope.parent"));
        require(terms.scope.supersedes == 0, TermsInvalid("scope.supersedes"));
        require(terms.scope.approversHash == 0, TermsInvalid("scope.approversHash"));
    }

    function checkParties(AuthorizationTerms calldata terms) private view {
        bytes32 space = terms.scope.space;
        require(terms.provider != terms.consumer, TermsInvalid("consumer"));
        require(
            spaces.isActive(space, terms.provider, PROVIDER_ROLE),
            PartyNotActive(space, terms.provider, PROVIDER_ROLE)
        );
        require(
            spaces.isActive(space, terms.consumer, CONSUMER_ROLE),
            PartyNotActive(space, terms.consumer, CONSUMER_ROLE)
        );
    }

    function checkProduct(AuthorizationTerms calldata terms) private view {
        Scope calldata scope = terms.scope;
        IProductRegistry.Product memory product = products.productOf(scope.product);
        require(product.provider == terms.provider, TermsInvalid("scope.product"));
        require(product.space == scope.space, TermsInvalid("scope.space"));
        require(spaces.spaceOf(scope.space).codeLists == scope.codeLists, TermsInvalid("scope.codeLists"));
        if (scope.version != 0) {
            IProductRegistry.Version memory version = products.versionOf(scope.version);
            require(version.product == scope.product, TermsInvalid("scope.version"));
            require(version.status == IProductRegistry.VersionStatus.LISTED, VersionNotListed(scope.version));
        }
    }

    function checkPrice(AuthorizationTerms calldata terms) private view {
        bytes memory card = CodeStore.read(rateCards, terms.rateCard);
        require(card.length > 0 && card[0] == 0x01, TermsInvalid("rateCard"));
        require(Pricing.token(card) == terms.token, TermsInvalid("token"));
        for (uint256 m = Pricing.meterCount(card); m < 4; ++m) {
            require(terms.maxUnits[m] == 0, TermsInvalid("maxUnits"));
        }
        bytes memory split = CodeStore.read(rateCards, terms.split);
        require(split.length > 0 && split[0] == 0x02, TermsInvalid("split"));
        require(Splits.bpsOf(split, address(this)) == 0, TermsInvalid("split"));
    }

    /// @return offerDigest zero if the provider signed the terms themselves
    function checkSignatures(
        Opening calldata opening,
        CompactTerms memory compact,
        bytes32 id
    ) private returns (bytes32 offerDigest) {
        Offer calldata offer = opening.offer;
        if (offer.termsTemplateHash != 0) {
            bytes32 expected = compact.templateHash();
            require(offer.termsTemplateHash == expected, OfferMismatch(offer.termsTemplateHash, expected));
            offerDigest = _hashTypedDataV4(offer.hash());
            require(block.timestamp <= offer.offerUntil, OfferExpired(offerDigest, offer.offerUntil));
            uint256 count = ++acceptances[compact.provider][offerDigest];
            require(count <= offer.maxAcceptances, OfferExhausted(offerDigest, offer.maxAcceptances));
        }
        require(
            Signatures.isBy(compact.provider, offerDigest == 0 ? id : offerDigest, opening.providerSignature),
            SignatureInvalid(compact.provider)
        );
        require(
            opening.acceptance.authorizationId == id && block.timestamp <= opening.acceptance.deadline,
            AcceptanceInvalid(opening.acceptance.authorizationId, opening.acceptance.deadline)
        );
        bytes32 acceptanceDigest = _hashTypedDataV4(opening.acceptance.hash());
        require(
            Signatures.isBy(compact.consumer, id, opening.consumerSignature) &&
                Signatures.isBy(compact.consumer, acceptanceDigest, opening.acceptanceSignature),
            SignatureInvalid(compact.consumer)
        );
    }

    // ---------------------------------------------------------------------------------------------- settle

    /// @inheritdoc IAuthorizations
    function settle(Settlement calldata settlement) external {
        bytes memory problem = trySettle(settlement);
        if (problem.length > 0) {
            // Memory-safe: reads `problem` only, and ends the call.
            assembly ("memory-safe") {
                revert(add(problem, 0x20), mload(problem))
            }
        }
    }

    /// @inheritdoc IAuthorizations
    function settleMany(Settlement[] calldata settlements) external {
        for (uint256 i = 0; i < settlements.length; ++i) {
            bytes memory problem = trySettle(settlements[i]);
            if (problem.length > 0) emit SettlementSkipped(i, settlements[i].head.authorizationId, problem);
        }
    }

    /// @dev Returns the error instead of reverting with it, so that a batch can go on. Nothing is written before the
    /// last check has passed.
    function trySettle(Settlement calldata settlement) private returns (bytes memory problem) {
        CompactTerms memory terms = settlement.terms;
        bytes32 id = _hashTypedDataV4(terms.hash());
        Record storage record = records[id];
        UsageHead memory head = settlement.head;
        problem = checkHead(id, record, terms, head);
        if (problem.length > 0) return problem;

        bytes32 digest = _hashTypedDataV4(head.hash());
        if (terms.provider != msg.sender && !Signatures.isBy(terms.provider, digest, settlement.providerSignature)) {
            return abi.encodeWithSelector(SignatureInvalid.selector, terms.provider);
        }
        if (!Signatures.isBy(terms.consumer, digest, settlement.consumerSignature)) {
            return abi.encodeWithSelector(SignatureInvalid.selector, terms.consumer);
        }
        if (
            terms.flags & Terms.FAST == 0 &&
            !UsageLog.extends(record.size, record.root, head.size, head.root, settlement.consistency)
        ) {
            return abi.encodeWithSelector(HeadInconsistent.selector, id, record.size, head.size);
        }
        uint256 due = dueOf(terms.rateCard, head.units, head.credits);
        if (due > type(uint128).max) return abi.encodeWithSelector(AmountTooLarge.selector, due);

        record.root = head.root;
        record.units = head.units;
        record.size = head.size;
        record.asOf = head.asOf;
        record.credits = head.credits;
        uint128 paid = _pay(id, terms, uint128(due));

        emit Settled(id, head, uint128(due), paid, due > paid ? uint128(due) - paid : 0, msg.sender);
    }

    function checkHead(
        bytes32 id,
        Record storage record,
        CompactTerms memory terms,
        UsageHead memory head
    ) private view returns (bytes memory) {
        if (head.authorizationId != id) {
            return abi.encodeWithSelector(HeadForeign.selector, id, head.authorizationId);
        }
        if (record.status != Status.OPEN) {
            return abi.encodeWithSelector(AuthorizationStatus.selector, id, record.status);
        }
        uint256 windowEnd = uint256(record.endedAt) + terms.thawSeconds;
        if (block.timestamp > windowEnd) {
            return abi.encodeWithSelector(WindowOver.selector, id, windowEnd, block.timestamp);
        }
        if (head.size <= record.size) {
            return abi.encodeWithSelector(HeadStale.selector, id, record.size, head.size);
        }
        if (head.credits < record.credits || head.asOf < record.asOf) {
            return abi.encodeWithSelector(HeadLower.selector, id);
        }
        if (head.asOf > block.timestamp) {
            return abi.encodeWithSelector(HeadInFuture.selector, id, head.asOf, block.timestamp);
        }
        bool rose = false;
        for (uint256 m = 0; m < 4; ++m) {
            uint64 settled = record.units[m];
            uint64 units = head.units[m];
            if (units < settled) return abi.encodeWithSelector(HeadLower.selector, id);
            if (units > settled) rose = true;
            if (units > terms.maxUnits[m]) {
                return abi.encodeWithSelector(HeadOverQuota.selector, id, m, units, terms.maxUnits[m]);
            }
        }
        // A head that only adds credits or refusals may be signed after the end.
        if (rose && head.asOf > record.endedAt + CLOCK_SKEW) {
            return abi.encodeWithSelector(HeadAfterEnd.selector, id, head.asOf, record.endedAt);
        }
        return "";
    }

    /// @dev max(0, C(units) − credits), in token units.
    function dueOf(bytes32 rateCard, uint64[4] memory units, uint128 credits) internal view returns (uint256) {
        uint256 price = Pricing.price(CodeStore.read(rateCards, rateCard), units);
        return price > credits ? price - credits : 0;
    }

    // ------------------------------------------------------------------------------------------------- end

    /// @inheritdoc IAuthorizations
    function revoke(AuthorizationTerms calldata terms, uint16 reason) external {
        bytes32 id = _hashTypedDataV4(terms.compact().hash());
        require(
            msg.sender == terms.provider || msg.sender == spaces.spaceOf(terms.scope.space).operator,
            AuthorizationNotYours(id, msg.sender)
        );

        uint40 endedAt = end(id, uint256(terms.revokeGrace) + block.timestamp, reason);

        emit Revoked(id, msg.sender, endedAt, reason);
    }

    /// @inheritdoc IAuthorizations
    function close(CompactTerms calldata terms, uint16 reason) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        require(msg.sender == terms.provider || msg.sender == terms.consumer, AuthorizationNotYours(id, msg.sender));

        // The grace is the consumer's: closing gives the provider no way around it.
        uint256 grace = msg.sender == terms.consumer ? 0 : terms.revokeGrace;
        uint40 endedAt = end(id, block.timestamp + grace, reason);

        emit ClosedEarly(id, msg.sender, endedAt, reason);
    }

    function end(bytes32 id, uint256 endsAt, uint16 reason) private returns (uint40 endedAt) {
        requireStatus(id, Status.OPEN);
        Record storage record = records[id];
        // A later end never prolongs an earlier one, nor takes its reason.
        require(endsAt < record.endedAt, AuthorizationEnding(id, record.endedAt));

        endedAt = SafeCast.toUint40(endsAt);
        record.endedAt = endedAt;
        record.reason = reason;
    }

    /// @inheritdoc IAuthorizations
    function finalize(CompactTerms calldata terms) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        Record storage record = records[id];
        require(record.status == Status.OPEN, AuthorizationStatus(id, record.status));
        uint256 windowEnd = uint256(record.endedAt) + terms.thawSeconds;
        require(block.timestamp > windowEnd, WindowNotOver(id, windowEnd, block.timestamp));

        record.status = Status.CLOSED;
        uint128 released = _release(id, terms);

        emit Finalized(id, released);
    }

    /// @inheritdoc IAuthorizations
    function cancelOffer(Offer calldata offer) external {
        bytes32 digest = _hashTypedDataV4(offer.hash());

        // One more than any count an offer can allow.
        acceptances[msg.sender][digest] = type(uint32).max;

        emit OfferCancelled(digest, msg.sender);
    }

    /// @inheritdoc IAuthorizations
    function cancelTerms(CompactTerms calldata terms) external {
        bytes32 id = _hashTypedDataV4(terms.hash());
        require(msg.sender == terms.provider || msg.sender == terms.consumer, AuthorizationNotYours(id, msg.sender));
        require(records[id].status == Status.NONE, AuthorizationStatus(id, statusOf(id)));

        records[id].status = Status.CANCELLED;

        emit TermsCancelled(id, msg.sender);
    }

    // ----------------------------------------------------------------------------------------------- views

    /// @inheritdoc IAuthorizations
    function authorizationOf(bytes32 id) external view returns (Authorization memory) {
        Record storage record = records[id];
        return
            Authorization({
                root: record.root,
                units: record.units,
                size: record.size,
                credits: record.credits,
                asOf: record.asOf,
                status: statusOf(id),
                endedAt: record.endedAt,
                reason: record.reason
            });
    }

    /// @inheritdoc IAuthorizations
    function idOf(AuthorizationTerms calldata terms) external view returns (bytes32) {
        return _hashTypedDataV4(terms.compact().hash());
    }

    /// @inheritdoc IAuthorizations
    function priceOf(bytes32 rateCard, uint64[4] calldata units) external view returns (uint256) {
        bytes memory card = CodeStore.read(rateCards, rateCard);
        require(card.length > 0 && card[0] == 0x01, TermsInvalid("rateCard"));
        return Pricing.price(card, units);
    }

    function statusOf(bytes32 id) internal view returns (Status) {
        Record storage record = records[id];
        bool over = record.status == Status.OPEN && block.timestamp >= record.endedAt;
        return over ? Status.ENDED : record.status;
    }

    function requireStatus(bytes32 id, Status wanted) internal view {
        Status status = statusOf(id);
        require(status == wanted, AuthorizationStatus(id, status));
    }

    // ------------------------------------------------------------------------- what the two ledgers fill in

    /// @dev Sets the reservation aside, or reverts.
    function _reserve(bytes32 id, AuthorizationTerms calldata terms, uint128 amount) internal virtual;

    /// @dev Pays what is newly due as far as possible and returns the total paid. Calls no other contract.
    function _pay(bytes32 id, CompactTerms memory terms, uint128 due) internal virtual returns (uint128 paid);

    /// @dev Gives back what was reserved and never paid, and returns the amount.
    function _release(bytes32 id, CompactTerms calldata terms) internal virtual returns (uint128 released);
}
