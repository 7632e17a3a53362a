// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Approval, AuthorizationTerms, Requirement} from "../libraries/Terms.sol";
import {IProductRegistry} from "./IProductRegistry.sol";

/// @title What terms must satisfy to be opened, and who may end them
/// @notice Asked by the ledgers when they open or revoke, and by anyone who wants to know beforehand. It holds nothing.
interface IAdmission {
    /// @notice A field of the terms breaks a rule; `field` is its name.
    error TermsInvalid(string field);
    /// @notice The wallet is not admitted to the space in this role, or is suspended.
    error PartyNotActive(bytes32 space, address wallet, uint32 role);
    error VersionNotListed(bytes32 version);
    /// @notice The product has price ceilings, and none in this currency.
    error PriceCeilingMissing(bytes32 product, address token);
    error PriceAboveCeiling(bytes32 product, uint256 meter, uint256 tier);
    /// @notice An approval that the space, the product, the terms or the parent's provider asks for is not there.
    error ApprovalMissing(address approver, uint16 approvalType);
    /// @notice An approval is over, or the approver did not sign it for this scope and these parties.
    error ApprovalInvalid(address approver, uint16 approvalType, uint40 validUntil);
    /// @notice The child goes beyond its parent in this field.
    error ChildTooWide(string field);

    /// @notice Reverts with the first reason why `ledger` may not open these terms: their own fields; parties distinct and
    /// active in the space; product owned, or sublicensed under the parent; version listed; space and code lists match;
    /// every tier's price at most the product's ceiling; card and split registered; every required approval there.
    /// @param approvers the list that `terms.scope.approversHash` names
    /// @param parents the terms that `terms.scope.parent` names; none or one
    function check(
        address ledger,
        AuthorizationTerms calldata terms,
        Requirement[] calldata approvers,
        Approval[] calldata approvals,
        AuthorizationTerms[] calldata parents
    ) external view;

    /// @notice True for the provider, the space's operator, and every approver that opening would ask for now: a dismissed
    /// approver loses the right, its successor has it. A parent's provider ends a child through the parent (endByParent).
    /// @param approvers the list that `terms.scope.approversHash` names; may be empty if the caller is not on it
    function mayRevoke(
        address caller,
        AuthorizationTerms calldata terms,
        Requirement[] calldata approvers
    ) external view returns (bool);

    function products() external view returns (IProductRegistry);

    function rateCards() external view returns (address);
}
