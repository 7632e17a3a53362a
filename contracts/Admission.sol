// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

import {IAdmission} from "./interfaces/IAdmission.sol";
import {IProductRegistry} from "./interfaces/IProductRegistry.sol";
import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {Pricing} from "./libraries/Pricing.sol";
import {Requirements} from "./libraries/Requirements.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {Splits} from "./libraries/Splits.sol";
import {Approval, AuthorizationTerms, Requirement, Scope, Terms} from "./libraries/Terms.sol";

/// @title Open checks
/// @notice The manual is IAdmission.
contract Admission is IAdmission, ERC165 {
    using Requirements for Requirement[];
    using Terms for *;

    uint32 private constant PROVIDER_ROLE = 1;
    uint32 private constant CONSUMER_ROLE = 2;
    uint32 private constant METERING_AGENT_ROLE = 16;
    uint32 private constant RIGHT_DERIVE = 2;
    uint32 private constant RIGHT_SUBLICENSE = 4;
    uint16 private constant PARENT_PROVIDER = 0; // the approval type of a parent's provider
    uint256 private constant MIN_THAW = 24 hours;
    uint256 private constant MAX_THAW = 30 days;
    uint256 private constant MAX_GRACE = 30 days;

    IProductRegistry public immutable products;
    ISpaceRegistry public immutable spaces;
    address public immutable rateCards;

    constructor(IProductRegistry products_, address rateCards_) {
        products = products_;
        spaces = products_.spaces();
        rateCards = rateCards_;
    }

    /// @inheritdoc IAdmission
    function check(
        address ledger,
        AuthorizationTerms calldata terms,
        Requirement[] calldata approvers,
        Approval[] calldata approvals,
        AuthorizationTerms[] calldata parents
    ) external view {
        checkFields(terms, approvers);
        checkParties(terms);
        IProductRegistry.Product memory product = products.productOf(terms.scope.product);
        checkProduct(terms, product, parents);
        if (parents.length > 0) checkChild(terms, parents[0]);
        checkPrice(ledger, terms, product.capped);
        checkApprovals(ledger, terms, product.approved, approvers, approvals, parents);
    }

    function checkFields(AuthorizationTerms calldata terms, Requirement[] calldata approvers) private pure {
        require(terms.validFrom < terms.validUntil, TermsInvalid("validFrom"));
        require(terms.thawSeconds >= MIN_THAW && terms.thawSeconds <= MAX_THAW, TermsInvalid("thawSeconds"));
        require(terms.revokeGrace <= MAX_GRACE, TermsInvalid("revokeGrace"));
        uint8 known = Terms.FAST | Terms.AGENT_CAPPED | Terms.INVOICED;
        bool capsNobody = terms.flags & Terms.AGENT_CAPPED != 0 && terms.meteringAgent == address(0);
        require(terms.flags & ~known == 0 && !capsNobody, TermsInvalid("flags"));
        require(
            approvers.areSound() && approvers.hash() == terms.scope.approversHash,
            TermsInvalid("scope.approversHash")
        );
    }

    function checkParties(AuthorizationTerms calldata terms) private view {
        bytes32 space = terms.scope.space;
        address agent = terms.meteringAgent;
        require(terms.provider != terms.consumer, TermsInvalid("consumer"));
        requireActive(space, terms.provider, PROVIDER_ROLE);
        requireActive(space, terms.consumer, CONSUMER_ROLE);
        if (agent != address(0)) {
            require(agent != terms.provider && agent != terms.consumer, TermsInvalid("meteringAgent"));
            requireActive(space, agent, METERING_AGENT_ROLE);
        }
    }

    function requireActive(bytes32 space, address wallet, uint32 role) private view {
        require(spaces.isActive(space, wallet, role), PartyNotActive(space, wallet, role));
    }

    function checkProduct(
        AuthorizationTerms calldata terms,
        IProductRegistry.Product memory product,
        AuthorizationTerms[] calldata parents
    ) private view {
        Scope calldata scope = terms.scope;
        bool owned = product.provider == terms.provider;
        if (!owned) {
            // The only other way to a product is a parent that lets its consumer pass this very product on.
            require(
                parents.length > 0 &&
                    parents[0].scope.product == scope.product &&
                    parents[0].scope.rights & RIGHT_SUBLICENSE != 0,
                TermsInvalid("scope.product")
            );
            bytes32 pinned = parents[0].scope.version;
            require(pinned == 0 || pinned == scope.version, ChildTooWide("version"));
        }
        require(product.space == scope.space, TermsInvalid("scope.space"));
        require(spaces.codeListsOf(scope.space) == scope.codeLists, TermsInvalid("scope.codeLists"));
        if (scope.version != 0) {
            IProductRegistry.Version memory version = products.versionOf(scope.version);
            require(version.product == scope.product, TermsInvalid("scope.version"));
            require(version.status == IProductRegistry.VersionStatus.LISTED, VersionNotListed(scope.version));
        }
    }

    /// @dev The ledger has matched `parent` to `terms.scope.parent`, and knows that it is open.
    function checkChild(AuthorizationTerms calldata terms, AuthorizationTerms calldata parent) private pure {
        Scope calldata child = terms.scope;
        Scope calldata from = parent.scope;
        require(terms.provider == parent.consumer, ChildTooWide("provider"));
        require(child.space == from.space && child.codeLists == from.codeLists, ChildTooWide("space"));
        require(child.rights & ~from.rights == 0, ChildTooWide("rights"));
        require(child.purposes & ~from.purposes == 0, ChildTooWide("purposes"));
        require(child.modalities & ~from.modalities == 0, ChildTooWide("modalities"));
        require(terms.validFrom >= parent.validFrom && terms.validUntil <= parent.validUntil, ChildTooWide("validity"));
        bool derived = child.product != from.product;
        require(!derived || from.rights & RIGHT_DERIVE != 0, ChildTooWide("product"));
    }

    function checkPrice(address ledger, AuthorizationTerms calldata terms, bool capped) private view {
        bytes memory card = CodeStore.read(rateCards, terms.rateCard);
        require(card.length > 0 && card[0] == 0x01, TermsInvalid("rateCard"));
        require(Pricing.token(card) == terms.token, TermsInvalid("token"));
        for (uint256 m = Pricing.meterCount(card); m < 4; ++m) {
            require(terms.maxUnits[m] == 0, TermsInvalid("maxUnits"));
        }
        if (capped) {
            bytes32 product = terms.scope.product;
            uint128[4] memory ceilings = products.priceCeilingsOf(product, terms.token);
            bool missing = ceilings[0] | ceilings[1] | ceilings[2] | ceilings[3] == 0;
            require(!missing, PriceCeilingMissing(product, terms.token));
            (bool above, uint256 meter, uint256 tier) = Pricing.tierAbove(card, ceilings);
            require(!above, PriceAboveCeiling(product, meter, tier));
        }
        bytes memory split = CodeStore.read(rateCards, terms.split);
        require(split.length > 0 && split[0] == 0x02, TermsInvalid("split"));
        require(Splits.bpsOf(split, ledger) == 0, TermsInvalid("split"));
    }

    function checkApprovals(
        address ledger,
        AuthorizationTerms calldata terms,
        bool productAsks,
        Requirement[] calldata approvers,
        Approval[] calldata approvals,
        AuthorizationTerms[] calldata parents
    ) private view {
        if (approvals.length > 0) {
            bytes32 separator = Terms.domainOf(ledger);
            bytes32 scopeHash = terms.scope.hash();
            for (uint256 i = 0; i < approvals.length; ++i) checkApproval(terms, approvals[i], scopeHash, separator);
        }
        requireAll(approvers, approvals);
        requireAll(spaces.spaceApproversOf(terms.scope.space), approvals);
        if (productAsks) requireAll(products.productApproversOf(terms.scope.product), approvals);
        if (parents.length > 0) requireOne(Requirement(parents[0].provider, PARENT_PROVIDER), approvals);
    }

    function checkApproval(
        AuthorizationTerms calldata terms,
        Approval calldata approval,
        bytes32 scopeHash,
        bytes32 separator
    ) private view {
        bytes32 structHash = approval.hash(scopeHash, terms.provider, terms.consumer);
        bytes32 digest = MessageHashUtils.toTypedDataHash(separator, structHash);
        require(
            block.timestamp <= approval.validUntil && Signatures.isBy(approval.by.approver, digest, approval.signature),
            ApprovalInvalid(approval.by.approver, approval.by.approvalType, approval.validUntil)
        );
    }

    function requireAll(Requirement[] memory asked, Approval[] calldata approvals) private pure {
        for (uint256 i = 0; i < asked.length; ++i) requireOne(asked[i], approvals);
    }

    function requireOne(Requirement memory asked, Approval[] calldata approvals) private pure {
        for (uint256 i = 0; i < approvals.length; ++i) {
            Requirement calldata by = approvals[i].by;
            if (by.approver == asked.approver && by.approvalType == asked.approvalType) return;
        }
        revert ApprovalMissing(asked.approver, asked.approvalType);
    }

    /// @inheritdoc IAdmission
    function mayRevoke(
        address caller,
        AuthorizationTerms calldata terms,
        Requirement[] calldata approvers
    ) external view returns (bool) {
        Scope calldata scope = terms.scope;
        if (caller == terms.provider || caller == spaces.operatorOf(scope.space)) return true;
        if (approvers.hash() == scope.approversHash && Requirements.name(approvers, caller)) return true;
        return
            Requirements.name(spaces.spaceApproversOf(scope.space), caller) ||
            Requirements.name(products.productApproversOf(scope.product), caller);
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IAdmission).interfaceId || super.supportsInterface(id);
    }
}
