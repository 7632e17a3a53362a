// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {RateCards} from "../RateCards.sol";
import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IInvoiceLedger} from "../interfaces/IInvoiceLedger.sol";
import {IProductRegistry} from "../interfaces/IProductRegistry.sol";
import {IRateCards} from "../interfaces/IRateCards.sol";
import {ISessionKeys} from "../interfaces/ISessionKeys.sol";
import {ISpaceRegistry} from "../interfaces/ISpaceRegistry.sol";
import {ISubsidyPool} from "../interfaces/ISubsidyPool.sol";
import {IUsageEvidence} from "../interfaces/IUsageEvidence.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {Meter, Pricing, RateCard, Tier} from "../libraries/Pricing.sol";
import {Share, Splits} from "../libraries/Splits.sol";
import {Requirement} from "../libraries/Terms.sol";
import {Checks} from "./Checks.sol";
import {World} from "./World.sol";

/// @title What the tests of the registries share
abstract contract Registries is World, Checks {
    function approversOf(uint256 count) internal pure returns (Requirement[] memory list) {
        list = new Requirement[](count);
        for (uint256 i = 0; i < count; ++i) list[i] = Requirement(address(uint160(0x1000 + i)), uint16(i));
    }
}

/// @title Spaces, participants, credentials, approvers
contract SpaceRegistryTest is Registries {
    uint16 private constant LICENCE = 7;

    // ---------------------------------------------------------------------------------------------- spaces

    function test_a_space_is_named_by_chain_registry_operator_and_salt() external {
        bytes32 expected = keccak256(abi.encode(block.chainid, address(spaces), operator, bytes32("second")));
        vm.recordLogs();
        vm.prank(operator);
        bytes32 created = spaces.createSpace("second", "rules", CODE_LISTS);
        emit ISpaceRegistry.SpaceCreated(expected, operator, "rules", CODE_LISTS);

        assertEmitted(address(spaces));
        assertEq(created, expected, "id");
    }

    function test_a_new_space_has_its_creator_as_operator_and_no_proposal() external view {
        ISpaceRegistry.Space memory found = spaces.spaceOf(space);

        assertEq(found.operator, operator, "operator");
        assertEq(found.proposedOperator, address(0), "proposed");
        assertEq(found.policyDigest, "rules", "rule book");
        assertEq(found.codeLists, CODE_LISTS, "code lists");
        assertEq(spaces.operatorOf(space), operator, "operatorOf");
        assertEq(spaces.codeListsOf(space), CODE_LISTS, "codeListsOf");
    }

    function test_a_space_is_created_once() external {
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.SpaceExists.selector, space));
        spaces.createSpace("space", "other rules", "other lists");

        assertEq(spaces.codeListsOf(space), CODE_LISTS, "code lists");
    }

    function test_a_space_that_was_handed_over_cannot_be_created_anew() external {
        vm.prank(operator);
        spaces.proposeOperator(space, stranger);
        vm.prank(stranger);
        spaces.acceptOperator(space);

        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.SpaceExists.selector, space));
        spaces.createSpace("space", "rules", CODE_LISTS);
    }

    function test_the_same_salt_of_another_operator_is_another_space() external {
        vm.prank(stranger);
        bytes32 other = spaces.createSpace("space", "rules", CODE_LISTS);

        assertTrue(other != space, "other");
        assertEq(spaces.operatorOf(space), operator, "first");
        assertEq(spaces.operatorOf(other), stranger, "second");
    }

    function test_updating_replaces_rule_book_and_code_lists_only() external {
        vm.startPrank(operator);
        spaces.proposeOperator(space, stranger);
        vm.recordLogs();
        spaces.updateSpace(space, "new rules", "new lists");
        emit ISpaceRegistry.SpaceUpdated(space, "new rules", "new lists");
        vm.stopPrank();

        assertEmitted(address(spaces));
        ISpaceRegistry.Space memory found = spaces.spaceOf(space);
        assertEq(found.policyDigest, "new rules", "rule book");
        assertEq(found.codeLists, "new lists", "code lists");
        assertEq(found.operator, operator, "operator");
        assertEq(found.proposedOperator, stranger, "proposed");
    }

    /// @dev Everything that only an operator may do, on one space.
    function operatorCalls(bytes32 in_) private view returns (bytes[8] memory calls) {
        calls[0] = abi.encodeCall(spaces.updateSpace, (in_, "r", "l"));
        calls[1] = abi.encodeCall(spaces.proposeOperator, (in_, stranger));
        calls[2] = abi.encodeCall(spaces.admit, (in_, stranger, 3, "s"));
        calls[3] = abi.encodeCall(spaces.suspend, (in_, consumer, 1));
        calls[4] = abi.encodeCall(spaces.reinstate, (in_, consumer));
        calls[5] = abi.encodeCall(spaces.setSpaceApprovers, (in_, approversOf(1)));
        calls[6] = abi.encodeCall(spaces.recordCredential, (in_, consumer, LICENCE, "d", uint40(START + DAY)));
        calls[7] = abi.encodeCall(spaces.revokeCredential, (in_, consumer, LICENCE, 1));
    }

    function test_only_the_operator_governs_a_space() external {
        bytes[8] memory calls = operatorCalls(space);
        address[3] memory others = [stranger, provider, consumer];
        for (uint256 i = 0; i < calls.length; ++i) {
            for (uint256 j = 0; j < others.length; ++j) {
                bytes memory refusal = abi.encodeWithSelector(
                    ISpaceRegistry.SpaceNotOperator.selector,
                    space,
                    others[j]
                );
                assertRefused(others[j], address(spaces), calls[i], refusal);
            }
        }
    }

    function test_a_space_that_was_never_created_is_governed_by_nobody() external {
        bytes[8] memory calls = operatorCalls("nowhere");
        bytes memory refusal = abi.encodeWithSelector(ISpaceRegistry.SpaceUnknown.selector, bytes32("nowhere"));
        for (uint256 i = 0; i < calls.length; ++i) assertRefused(operator, address(spaces), calls[i], refusal);
        assertRefused(operator, address(spaces), abi.encodeCall(spaces.acceptOperator, ("nowhere")), refusal);
    }

    // ------------------------------------------------------------------------------------------- hand-over

    function test_proposing_an_operator_changes_no_power_yet() external {
        vm.recordLogs();
        vm.prank(operator);
        spaces.proposeOperator(space, stranger);
        emit ISpaceRegistry.OperatorProposed(space, stranger);

        assertEmitted(address(spaces));
        assertEq(spaces.spaceOf(space).proposedOperator, stranger, "proposed");
        assertEq(spaces.operatorOf(space), operator, "operator");
        bytes memory refusal = abi.encodeWithSelector(ISpaceRegistry.SpaceNotOperator.selector, space, stranger);
        assertRefused(stranger, address(spaces), operatorCalls(space)[0], refusal);
    }

    function test_accepting_hands_all_power_over() external {
        vm.prank(operator);
        spaces.proposeOperator(space, stranger);
        vm.recordLogs();
        vm.prank(stranger);
        spaces.acceptOperator(space);
        emit ISpaceRegistry.OperatorChanged(space, stranger);

        assertEmitted(address(spaces));
        assertEq(spaces.operatorOf(space), stranger, "operator");
        assertEq(spaces.spaceOf(space).proposedOperator, address(0), "proposed");
        vm.prank(stranger);
        spaces.admit(space, approver, 4, "approver");
        assertTrue(spaces.isActive(space, approver, 4), "the new operator admits");
        bytes[8] memory calls = operatorCalls(space);
        bytes memory refusal = abi.encodeWithSelector(ISpaceRegistry.SpaceNotOperator.selector, space, operator);
        for (uint256 i = 0; i < calls.length; ++i) assertRefused(operator, address(spaces), calls[i], refusal);
    }

    function test_nobody_but_the_proposed_operator_can_accept() external {
        bytes memory call = abi.encodeCall(spaces.acceptOperator, (space));
        bytes memory refusal = abi.encodeWithSelector(ISpaceRegistry.SpaceNotProposed.selector, space, stranger);
        assertRefused(stranger, address(spaces), call, refusal);
        vm.prank(operator);
        spaces.proposeOperator(space, consumer);
        assertRefused(stranger, address(spaces), call, refusal);
        refusal = abi.encodeWithSelector(ISpaceRegistry.SpaceNotProposed.selector, space, operator);
        assertRefused(operator, address(spaces), call, refusal);
    }

    function test_a_withdrawn_proposal_cannot_be_accepted() external {
        vm.startPrank(operator);
        spaces.proposeOperator(space, stranger);
        spaces.proposeOperator(space, address(0));
        vm.stopPrank();

        vm.prank(stranger);
        refuses(abi.encodeWithSelector(ISpaceRegistry.SpaceNotProposed.selector, space, stranger));
        spaces.acceptOperator(space);
    }

    function test_a_replaced_proposal_cannot_be_accepted() external {
        vm.startPrank(operator);
        spaces.proposeOperator(space, stranger);
        spaces.proposeOperator(space, consumer);
        vm.stopPrank();

        vm.prank(stranger);
        refuses(abi.encodeWithSelector(ISpaceRegistry.SpaceNotProposed.selector, space, stranger));
        spaces.acceptOperator(space);
    }

    function test_a_proposal_can_be_accepted_once() external {
        vm.prank(operator);
        spaces.proposeOperator(space, stranger);
        vm.prank(stranger);
        spaces.acceptOperator(space);

        vm.prank(stranger);
        refuses(abi.encodeWithSelector(ISpaceRegistry.SpaceNotProposed.selector, space, stranger));
        spaces.acceptOperator(space);
    }

    // ---------------------------------------------------------------------------------------- participants

    function test_admitting_records_roles_and_digest() external {
        vm.recordLogs();
        vm.prank(operator);
        spaces.admit(space, stranger, 36, "stranger");
        emit ISpaceRegistry.ParticipantAdmitted(space, stranger, 36, "stranger");

        assertEmitted(address(spaces));
        ISpaceRegistry.Participant memory found = spaces.participantOf(space, stranger);
        assertEq(found.roles, 36, "roles");
        assertEq(found.digest, "stranger", "digest");
        assertTrue(!found.suspended, "not suspended");
    }

    function test_admitting_again_replaces_roles_and_digest() external {
        vm.prank(operator);
        spaces.admit(space, provider, 8, "auditor");

        ISpaceRegistry.Participant memory found = spaces.participantOf(space, provider);
        assertEq(found.roles, 8, "roles");
        assertEq(found.digest, "auditor", "digest");
        assertTrue(!spaces.isActive(space, provider, 1), "no longer a provider");
    }

    function test_admitting_again_keeps_a_suspension() external {
        vm.startPrank(operator);
        spaces.suspend(space, provider, 1);
        spaces.admit(space, provider, 3, "provider");
        vm.stopPrank();

        assertTrue(spaces.participantOf(space, provider).suspended, "suspended");
        assertTrue(!spaces.isActive(space, provider, 1), "not active");
    }

    function test_the_zero_address_cannot_be_admitted() external {
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ParticipantInvalid.selector, address(0), 1));
        spaces.admit(space, address(0), 1, "nobody");
    }

    function test_nobody_is_admitted_without_a_role() external {
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ParticipantInvalid.selector, provider, 0));
        spaces.admit(space, provider, 0, "provider");

        assertTrue(spaces.isActive(space, provider, 1), "unchanged");
    }

    function test_a_suspended_participant_is_not_active_until_reinstated() external {
        vm.recordLogs();
        vm.prank(operator);
        spaces.suspend(space, consumer, 42);
        emit ISpaceRegistry.ParticipantSuspended(space, consumer, 42);
        assertEmitted(address(spaces));
        assertTrue(!spaces.isActive(space, consumer, 2), "suspended");
        assertEq(spaces.participantOf(space, consumer).roles, 2, "roles stay");

        vm.recordLogs();
        vm.prank(operator);
        spaces.reinstate(space, consumer);
        emit ISpaceRegistry.ParticipantReinstated(space, consumer);
        assertEmitted(address(spaces));
        assertTrue(spaces.isActive(space, consumer, 2), "reinstated");
    }

    function test_who_was_never_admitted_can_be_neither_suspended_nor_reinstated() external {
        bytes memory refusal = abi.encodeWithSelector(ISpaceRegistry.ParticipantUnknown.selector, space, stranger);
        assertRefused(operator, address(spaces), abi.encodeCall(spaces.suspend, (space, stranger, 1)), refusal);
        assertRefused(operator, address(spaces), abi.encodeCall(spaces.reinstate, (space, stranger)), refusal);
    }

    function test_being_active_takes_every_role_asked() external {
        vm.prank(operator);
        spaces.admit(space, stranger, 3, "both");

        assertTrue(spaces.isActive(space, stranger, 1), "provider");
        assertTrue(spaces.isActive(space, stranger, 2), "consumer");
        assertTrue(spaces.isActive(space, stranger, 3), "both");
        assertTrue(!spaces.isActive(space, stranger, 7), "approver too");
        assertTrue(!spaces.isActive(space, stranger, 16), "agent");
    }

    function test_admission_is_to_one_space() external {
        vm.prank(operator);
        bytes32 other = spaces.createSpace("second", "rules", CODE_LISTS);

        assertTrue(!spaces.isActive(other, provider, 1), "not in the other");
    }

    function test_who_was_never_admitted_is_not_active_even_where_no_role_is_asked() external view {
        assertTrue(!spaces.isActive(space, stranger, 0), "not admitted, so not active");
    }

    // ------------------------------------------------------------------------------------------ approvers

    function test_eight_approvers_are_allowed() external {
        Requirement[] memory list = approversOf(8);
        vm.recordLogs();
        vm.prank(operator);
        spaces.setSpaceApprovers(space, list);
        emit ISpaceRegistry.SpaceApproversSet(space, list);

        assertEmitted(address(spaces));
        assertSame(abi.encode(spaces.spaceApproversOf(space)), abi.encode(list), "list");
    }

    function test_nine_approvers_are_too_many() external {
        Requirement[] memory list = approversOf(9);
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ApproversInvalid.selector, 9));
        spaces.setSpaceApprovers(space, list);

        assertEq(spaces.spaceApproversOf(space).length, 0, "unchanged");
    }

    function test_the_zero_address_is_no_approver() external {
        Requirement[] memory list = approversOf(3);
        list[2].approver = address(0);
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ApproversInvalid.selector, 3));
        spaces.setSpaceApprovers(space, list);
    }

    function test_a_shorter_list_replaces_a_longer_one() external {
        vm.startPrank(operator);
        spaces.setSpaceApprovers(space, approversOf(8));
        spaces.setSpaceApprovers(space, approversOf(2));
        vm.stopPrank();

        assertSame(abi.encode(spaces.spaceApproversOf(space)), abi.encode(approversOf(2)), "list");
    }

    function test_a_list_of_approvers_can_be_emptied() external {
        vm.startPrank(operator);
        spaces.setSpaceApprovers(space, approversOf(8));
        spaces.setSpaceApprovers(space, approversOf(0));
        vm.stopPrank();

        assertEq(spaces.spaceApproversOf(space).length, 0, "empty");
    }

    // ---------------------------------------------------------------------------------------- credentials

    function record(bytes32 digest, uint256 validUntil) private {
        vm.prank(operator);
        spaces.recordCredential(space, consumer, LICENCE, digest, uint40(validUntil));
    }

    function valid() private view returns (bytes32) {
        return spaces.validCredential(space, consumer, LICENCE);
    }

    function test_a_credential_is_recorded_for_one_wallet_and_type() external {
        vm.recordLogs();
        record("licence", START + DAY);
        emit ISpaceRegistry.CredentialRecorded(space, consumer, LICENCE, "licence", uint40(START + DAY));

        assertEmitted(address(spaces));
        ISpaceRegistry.Credential memory found = spaces.credentialOf(space, consumer, LICENCE);
        assertEq(found.digest, "licence", "digest");
        assertEq(found.validUntil, START + DAY, "valid until");
        assertTrue(!found.revoked, "not revoked");
        assertEq(valid(), "licence", "valid");
        assertEq(spaces.validCredential(space, consumer, LICENCE + 1), 0, "other type");
        assertEq(spaces.validCredential(space, provider, LICENCE), 0, "other wallet");
    }

    function test_a_credential_is_valid_on_its_last_second_and_not_after() external {
        record("licence", START + DAY);

        vm.warp(START + DAY);
        assertEq(valid(), "licence", "last second");
        vm.warp(START + DAY + 1);
        assertEq(valid(), 0, "after");
    }

    function test_a_revoked_credential_is_not_valid() external {
        record("licence", START + DAY);
        vm.recordLogs();
        vm.prank(operator);
        spaces.revokeCredential(space, consumer, LICENCE, 9);
        emit ISpaceRegistry.CredentialRevoked(space, consumer, LICENCE, 9);

        assertEmitted(address(spaces));
        assertEq(valid(), 0, "not valid");
        assertTrue(spaces.credentialOf(space, consumer, LICENCE).revoked, "revoked");
    }

    function test_a_credential_is_revoked_once() external {
        record("licence", START + DAY);
        vm.startPrank(operator);
        spaces.revokeCredential(space, consumer, LICENCE, 9);
        refuses(abi.encodeWithSelector(ISpaceRegistry.CredentialUnknown.selector, space, consumer, LICENCE));
        spaces.revokeCredential(space, consumer, LICENCE, 9);
        vm.stopPrank();
    }

    function test_a_credential_nobody_recorded_cannot_be_revoked() external {
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.CredentialUnknown.selector, space, consumer, LICENCE));
        spaces.revokeCredential(space, consumer, LICENCE, 9);
    }

    function test_a_credential_recorded_anew_replaces_the_one_before() external {
        record("old", START + DAY);
        record("new", START + 2 * DAY);

        assertEq(valid(), "new", "digest");
        vm.warp(START + 2 * DAY);
        assertEq(valid(), "new", "its own time");
    }

    function test_a_credential_recorded_after_a_revocation_is_valid() external {
        record("old", START + DAY);
        vm.prank(operator);
        spaces.revokeCredential(space, consumer, LICENCE, 9);
        record("new", START + DAY);

        assertEq(valid(), "new", "valid");
    }

    function test_a_credential_needs_a_digest() external {
        uint40 until = uint40(START + DAY);
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.CredentialInvalid.selector, bytes32(0), until));
        spaces.recordCredential(space, consumer, LICENCE, 0, until);
    }

    function test_a_credential_must_not_have_run_out_when_it_is_recorded() external {
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.CredentialInvalid.selector, bytes32("licence"), START));
        spaces.recordCredential(space, consumer, LICENCE, "licence", uint40(START));

        record("licence", START + 1);
        assertEq(valid(), "licence", "one second longer");
    }

    function test_who_was_never_admitted_gets_no_credential() external {
        vm.prank(operator);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ParticipantUnknown.selector, space, stranger));
        spaces.recordCredential(space, stranger, LICENCE, "licence", uint40(START + DAY));
    }
}

/// @title Products, versions, ceilings
contract ProductRegistryTest is Registries {
    function publishAs(
        IProductRegistry.Digest[] memory digests_,
        bytes32[] memory parents
    ) private returns (bytes32 made) {
        vm.prank(provider);
        made = products.publishVersion(product, digests_, "metadata", POLICY, parents);
    }

    function publishUnder(bytes memory content, bytes32[] memory parents) private returns (bytes32) {
        return publishAs(digestsOf(content), parents);
    }

    function root(bytes memory content) private returns (bytes32) {
        return publishUnder(content, new bytes32[](0));
    }

    function parentsOf(bytes32 a) private pure returns (bytes32[] memory list) {
        list = new bytes32[](1);
        list[0] = a;
    }

    /// @dev In ascending order.
    function parentsOf(bytes32 a, bytes32 b) private pure returns (bytes32[] memory list) {
        list = new bytes32[](2);
        (list[0], list[1]) = a < b ? (a, b) : (b, a);
    }

    /// @dev This many new versions, in ascending order.
    function many(uint256 count) private returns (bytes32[] memory list) {
        list = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            bytes32 made = root(abi.encode(i));
            uint256 place = i;
            for (; place > 0 && list[place - 1] > made; --place) list[place] = list[place - 1];
            list[place] = made;
        }
    }

    function refusesParents(bytes32[] memory parents, uint256 index) private {
        IProductRegistry.Digest[] memory list = digestsOf("child");
        vm.prank(provider);
        refuses(abi.encodeWithSelector(IProductRegistry.ParentInvalid.selector, index));
        products.publishVersion(product, list, "metadata", POLICY, parents);
    }

    // -------------------------------------------------------------------------------------------- products

    function test_a_product_is_named_by_chain_registry_provider_space_and_salt() external {
        bytes32 expected = keccak256(abi.encode(block.chainid, address(products), provider, space, bytes32("second")));
        vm.recordLogs();
        vm.prank(provider);
        bytes32 made = products.registerProduct(space, "second", "described");
        emit IProductRegistry.ProductRegistered(expected, space, provider, "described");

        assertEmitted(address(products));
        assertEq(made, expected, "id");
    }

    function test_a_new_product_has_neither_ceilings_nor_approvers() external view {
        IProductRegistry.Product memory found = products.productOf(product);

        assertEq(found.space, space, "space");
        assertEq(found.provider, provider, "provider");
        assertTrue(!found.capped && !found.approved, "neither");
        assertEq(products.productApproversOf(product).length, 0, "approvers");
        assertEq(address(products.spaces()), address(spaces), "spaces");
    }

    function test_a_product_is_registered_once() external {
        vm.prank(provider);
        refuses(abi.encodeWithSelector(IProductRegistry.ProductExists.selector, product));
        products.registerProduct(space, "product", "other");
    }

    function test_only_active_providers_register_products() external {
        address[3] memory others = [stranger, consumer, operator];
        bytes memory call = abi.encodeCall(products.registerProduct, (space, "mine", "m"));
        for (uint256 i = 0; i < others.length; ++i) {
            bytes memory refusal = abi.encodeWithSelector(
                IProductRegistry.ProductProviderNotActive.selector,
                space,
                others[i]
            );
            assertRefused(others[i], address(products), call, refusal);
        }
    }

    function test_a_suspended_provider_cannot_register() external {
        vm.prank(operator);
        spaces.suspend(space, provider, 1);

        vm.prank(provider);
        refuses(abi.encodeWithSelector(IProductRegistry.ProductProviderNotActive.selector, space, provider));
        products.registerProduct(space, "second", "metadata");
    }

    function test_a_product_cannot_be_registered_in_a_space_that_does_not_exist() external {
        vm.prank(provider);
        refuses(
            abi.encodeWithSelector(IProductRegistry.ProductProviderNotActive.selector, bytes32("nowhere"), provider)
        );
        products.registerProduct("nowhere", "second", "metadata");
    }

    // -------------------------------------------------------------------------------------------- versions

    function test_a_version_is_named_by_all_it_stands_for() external {
        IProductRegistry.Digest[] memory list = digestsOf("second");
        bytes32[] memory parents = parentsOf(version);
        bytes32 expected = keccak256(abi.encode(product, list, bytes32("metadata"), POLICY, parents));
        vm.recordLogs();
        bytes32 made = publishAs(list, parents);
        emit IProductRegistry.VersionPublished(product, expected, list, "metadata", POLICY, parents);

        assertEmitted(address(products));
        assertEq(made, expected, "id");
    }

    function test_a_new_version_is_listed() external view {
        IProductRegistry.Version memory found = products.versionOf(version);

        assertEq(found.product, product, "product");
        assertTrue(found.status == IProductRegistry.VersionStatus.LISTED, "listed");
        assertEq(found.depth, 0, "depth");
    }

    function test_a_version_is_published_once_even_after_it_was_retired_or_recalled() external {
        IProductRegistry.Digest[] memory list = digestsOf("content");
        bytes memory call = abi.encodeCall(
            products.publishVersion,
            (product, list, "metadata", POLICY, new bytes32[](0))
        );
        bytes memory refusal = abi.encodeWithSelector(IProductRegistry.VersionExists.selector, version);
        assertRefused(provider, address(products), call, refusal);
        vm.prank(provider);
        products.retireVersion(version, 1);
        assertRefused(provider, address(products), call, refusal);
        vm.prank(provider);
        products.recallVersion(version, 1);
        assertRefused(provider, address(products), call, refusal);
    }

    function test_other_metadata_policy_or_parents_make_another_version() external {
        IProductRegistry.Digest[] memory list = digestsOf("content");
        bytes32[] memory none = new bytes32[](0);
        vm.startPrank(provider);
        bytes32 a = products.publishVersion(product, list, "other", POLICY, none);
        bytes32 b = products.publishVersion(product, list, "metadata", "other", none);
        bytes32 c = products.publishVersion(product, list, "metadata", POLICY, parentsOf(version));
        vm.stopPrank();

        assertTrue(a != version && b != version && c != version && a != b && b != c && a != c, "all different");
    }

    function test_only_the_provider_publishes() external {
        address[3] memory others = [stranger, consumer, operator];
        bytes memory call = abi.encodeCall(
            products.publishVersion,
            (product, digestsOf("mine"), "m", POLICY, new bytes32[](0))
        );
        for (uint256 i = 0; i < others.length; ++i) {
            bytes memory refusal = abi.encodeWithSelector(
                IProductRegistry.ProductNotProvider.selector,
                product,
                others[i]
            );
            assertRefused(others[i], address(products), call, refusal);
        }
    }

    function test_an_unknown_product_has_no_versions_approvers_or_ceilings() external {
        bytes32 unknown = "unknown";
        uint128[4] memory ceilings = [uint128(1), 0, 0, 0];
        bytes[3] memory calls = [
            abi.encodeCall(products.publishVersion, (unknown, digestsOf("c"), "m", POLICY, new bytes32[](0))),
            abi.encodeCall(products.setProductApprovers, (unknown, approversOf(1))),
            abi.encodeCall(products.setPriceCeilings, (unknown, address(yuan), ceilings))
        ];
        bytes memory refusal = abi.encodeWithSelector(IProductRegistry.ProductUnknown.selector, unknown);
        for (uint256 i = 0; i < calls.length; ++i) {
            assertRefused(provider, address(products), calls[i], refusal);
            assertRefused(operator, address(products), calls[i], refusal);
        }
    }

    function test_a_suspended_provider_cannot_publish() external {
        vm.prank(operator);
        spaces.suspend(space, provider, 1);

        IProductRegistry.Digest[] memory list = digestsOf("second");
        vm.prank(provider);
        refuses(abi.encodeWithSelector(IProductRegistry.ProductProviderNotActive.selector, space, provider));
        products.publishVersion(product, list, "metadata", POLICY, new bytes32[](0));
    }

    function test_who_lost_the_providers_role_cannot_publish() external {
        vm.prank(operator);
        spaces.admit(space, provider, 2, "consumer now");

        IProductRegistry.Digest[] memory list = digestsOf("second");
        vm.prank(provider);
        refuses(abi.encodeWithSelector(IProductRegistry.ProductProviderNotActive.selector, space, provider));
        products.publishVersion(product, list, "metadata", POLICY, new bytes32[](0));
    }

    // --------------------------------------------------------------------------------------------- digests

    function digestsOf(uint32[] memory algorithms) private pure returns (IProductRegistry.Digest[] memory list) {
        list = new IProductRegistry.Digest[](algorithms.length);
        for (uint256 i = 0; i < list.length; ++i) list[i] = IProductRegistry.Digest(algorithms[i], bytes32(i + 1));
    }

    function algorithmsOf(uint256 count, uint32 a, uint32 b, uint32 c) private pure returns (uint32[] memory list) {
        uint32[3] memory all = [a, b, c];
        list = new uint32[](count);
        for (uint256 i = 0; i < count; ++i) list[i] = all[i];
    }

    function refusesDigests(IProductRegistry.Digest[] memory list, uint256 index) private {
        vm.prank(provider);
        refuses(abi.encodeWithSelector(IProductRegistry.DigestInvalid.selector, index));
        products.publishVersion(product, list, "metadata", POLICY, new bytes32[](0));
    }

    function test_each_known_algorithm_and_all_three_in_order_are_taken() external {
        bytes32[] memory none = new bytes32[](0);
        bytes32 a = publishAs(digestsOf(algorithmsOf(1, 0x12, 0, 0)), none);
        bytes32 b = publishAs(digestsOf(algorithmsOf(1, 0x1b, 0, 0)), none);
        bytes32 c = publishAs(digestsOf(algorithmsOf(1, 0x534d, 0, 0)), none);
        bytes32 d = publishAs(digestsOf(algorithmsOf(3, 0x12, 0x1b, 0x534d)), none);

        bytes32[4] memory made = [a, b, c, d];
        for (uint256 i = 0; i < 4; ++i) assertEq(products.versionOf(made[i]).product, product, "published");
    }

    function test_a_version_needs_a_digest() external {
        refusesDigests(new IProductRegistry.Digest[](0), 0);
    }

    function test_digests_stand_in_ascending_order_of_their_algorithms() external {
        refusesDigests(digestsOf(algorithmsOf(2, 0x1b, 0x12, 0)), 1);
        refusesDigests(digestsOf(algorithmsOf(3, 0x12, 0x534d, 0x1b)), 2);
    }

    function test_an_algorithm_is_named_once() external {
        refusesDigests(digestsOf(algorithmsOf(2, 0x12, 0x12, 0)), 1);
    }

    function test_an_unknown_algorithm_is_refused() external {
        refusesDigests(digestsOf(algorithmsOf(1, 0, 0, 0)), 0);
        refusesDigests(digestsOf(algorithmsOf(1, 0x13, 0, 0)), 0);
        refusesDigests(digestsOf(algorithmsOf(2, 0x12, 0x1a, 0)), 1);
        refusesDigests(digestsOf(algorithmsOf(2, 0x12, 0x534e, 0)), 1);
    }

    function test_no_digest_is_zero() external {
        IProductRegistry.Digest[] memory list = digestsOf(algorithmsOf(2, 0x12, 0x1b, 0));
        list[1].value = 0;
        refusesDigests(list, 1);
        list[0].value = 0;
        refusesDigests(list, 0);
    }

    // --------------------------------------------------------------------------------------------- parents

    function test_a_version_is_one_generation_below_its_parent() external {
        bytes32 first = publishUnder("first", parentsOf(version));
        bytes32 second = publishUnder("second", parentsOf(first));

        assertEq(products.versionOf(first).depth, 1, "first");
        assertEq(products.versionOf(second).depth, 2, "second");
    }

    function test_the_deepest_parent_counts_wherever_it_stands() external {
        bytes32 deep = publishUnder("deep", parentsOf(version));
        (bool first, bool last) = (false, false);
        for (uint256 i = 0; !first || !last; ++i) {
            bytes32 shallow = root(abi.encode(i));
            if (shallow > deep) first = true;
            else last = true;
            bytes32 child = publishUnder(abi.encode("child", i), parentsOf(deep, shallow));
            assertEq(products.versionOf(child).depth, 2, "depth");
        }
    }

    function test_parents_may_be_versions_of_other_products() external {
        (, bytes32 foreign) = publish("second product");
        bytes32 child = publishUnder("child", parentsOf(version, foreign));

        assertEq(products.versionOf(child).depth, 1, "depth");
    }

    function test_sixteen_generations_are_allowed_and_not_seventeen() external {
        bytes32 last = version;
        for (uint256 i = 1; i <= 16; ++i) {
            last = publishUnder(abi.encode(i), parentsOf(last));
            assertEq(products.versionOf(last).depth, i, "depth");
        }
        refusesParents(parentsOf(last), 0);
    }

    function test_the_generation_bound_holds_for_every_parent() external {
        bytes32 deep = version;
        for (uint256 i = 1; i <= 16; ++i) deep = publishUnder(abi.encode(i), parentsOf(deep));
        bytes32 shallow = root("shallow");
        bytes32[] memory parents = parentsOf(deep, shallow);
        refusesParents(parents, parents[0] == deep ? 0 : 1);
    }

    function test_sixteen_parents_are_allowed() external {
        bytes32 child = publishUnder("child", many(16));

        assertEq(products.versionOf(child).depth, 1, "depth");
    }

    function test_seventeen_parents_are_too_many() external {
        refusesParents(many(17), 16);
    }

    function test_a_parent_must_have_been_published() external {
        refusesParents(parentsOf("unknown"), 0);
        refusesParents(parentsOf(bytes32(0)), 0);
    }

    function test_a_recalled_parent_is_refused() external {
        bytes32 other = root("other");
        vm.prank(provider);
        products.recallVersion(other, 1);
        bytes32[] memory parents = parentsOf(version, other);
        refusesParents(parents, parents[0] == other ? 0 : 1);
    }

    function test_a_retired_parent_is_allowed() external {
        vm.prank(provider);
        products.retireVersion(version, 1);
        bytes32 child = publishUnder("child", parentsOf(version));

        assertEq(products.versionOf(child).depth, 1, "depth");
    }

    function test_parents_stand_in_ascending_order() external {
        bytes32[] memory parents = parentsOf(version, root("other"));
        (parents[0], parents[1]) = (parents[1], parents[0]);
        refusesParents(parents, 1);
    }

    function test_a_parent_is_named_once() external {
        refusesParents(parentsOf(version, version), 1);
    }

    // ----------------------------------------------------------------------------------- retire and recall

    function test_retiring_takes_a_version_off_the_list() external {
        vm.recordLogs();
        vm.prank(provider);
        products.retireVersion(version, 5);
        emit IProductRegistry.VersionRetired(product, version, 5);

        assertEmitted(address(products));
        assertTrue(products.versionOf(version).status == IProductRegistry.VersionStatus.RETIRED, "retired");
    }

    function test_only_the_provider_retires() external {
        address[3] memory others = [operator, consumer, stranger];
        for (uint256 i = 0; i < others.length; ++i) {
            assertRefused(
                others[i],
                address(products),
                abi.encodeCall(products.retireVersion, (version, 1)),
                abi.encodeWithSelector(IProductRegistry.ProductNotProvider.selector, product, others[i])
            );
        }
    }

    function test_a_version_is_recalled_by_its_provider() external {
        vm.recordLogs();
        vm.prank(provider);
        products.recallVersion(version, 6);
        emit IProductRegistry.VersionRecalled(product, version, provider, 6);

        assertEmitted(address(products));
        assertTrue(products.versionOf(version).status == IProductRegistry.VersionStatus.RECALLED, "recalled");
    }

    function test_a_version_is_recalled_by_the_operator() external {
        vm.recordLogs();
        vm.prank(operator);
        products.recallVersion(version, 6);
        emit IProductRegistry.VersionRecalled(product, version, operator, 6);

        assertEmitted(address(products));
        assertTrue(products.versionOf(version).status == IProductRegistry.VersionStatus.RECALLED, "recalled");
    }

    function test_nobody_else_recalls() external {
        vm.prank(stranger);
        spaces.createSpace("elsewhere", "rules", CODE_LISTS);
        address[2] memory others = [consumer, stranger];
        for (uint256 i = 0; i < others.length; ++i) {
            assertRefused(
                others[i],
                address(products),
                abi.encodeCall(products.recallVersion, (version, 1)),
                abi.encodeWithSelector(IProductRegistry.ProductNotProvider.selector, product, others[i])
            );
        }
    }

    function test_a_suspended_provider_can_still_recall() external {
        vm.prank(operator);
        spaces.suspend(space, provider, 1);
        vm.prank(provider);
        products.recallVersion(version, 6);

        assertTrue(products.versionOf(version).status == IProductRegistry.VersionStatus.RECALLED, "recalled");
    }

    function test_a_retired_version_can_be_recalled() external {
        vm.startPrank(provider);
        products.retireVersion(version, 5);
        products.recallVersion(version, 6);
        vm.stopPrank();

        assertTrue(products.versionOf(version).status == IProductRegistry.VersionStatus.RECALLED, "recalled");
    }

    function test_a_recalled_version_stays_recalled() external {
        vm.prank(operator);
        products.recallVersion(version, 6);

        bytes memory refusal = abi.encodeWithSelector(IProductRegistry.VersionIsRecalled.selector, version);
        bytes memory retire = abi.encodeCall(products.retireVersion, (version, 1));
        assertRefused(provider, address(products), retire, refusal);
        bytes memory recall = abi.encodeCall(products.recallVersion, (version, 1));
        assertRefused(provider, address(products), recall, refusal);
        assertRefused(operator, address(products), recall, refusal);
    }

    function test_an_unknown_version_can_be_neither_retired_nor_recalled() external {
        bytes32 unknown = "unknown";
        bytes memory refusal = abi.encodeWithSelector(IProductRegistry.VersionUnknown.selector, unknown);
        assertRefused(provider, address(products), abi.encodeCall(products.retireVersion, (unknown, 1)), refusal);
        assertRefused(operator, address(products), abi.encodeCall(products.recallVersion, (unknown, 1)), refusal);
    }

    // ------------------------------------------------------------------------------ approvers and ceilings

    function test_eight_approvers_of_a_product_are_allowed() external {
        Requirement[] memory list = approversOf(8);
        vm.recordLogs();
        vm.prank(provider);
        products.setProductApprovers(product, list);
        emit IProductRegistry.ProductApproversSet(product, list);

        assertEmitted(address(products));
        assertSame(abi.encode(products.productApproversOf(product)), abi.encode(list), "list");
        assertTrue(products.productOf(product).approved, "approved");
    }

    function test_a_products_approvers_can_be_emptied() external {
        vm.startPrank(provider);
        products.setProductApprovers(product, approversOf(8));
        products.setProductApprovers(product, approversOf(0));
        vm.stopPrank();

        assertEq(products.productApproversOf(product).length, 0, "empty");
        assertTrue(!products.productOf(product).approved, "none");
    }

    function test_nine_approvers_of_a_product_are_too_many() external {
        Requirement[] memory list = approversOf(9);
        vm.prank(provider);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ApproversInvalid.selector, 9));
        products.setProductApprovers(product, list);

        assertTrue(!products.productOf(product).approved, "unchanged");
    }

    function test_the_zero_address_is_no_approver_of_a_product() external {
        Requirement[] memory list = approversOf(1);
        list[0].approver = address(0);
        vm.prank(provider);
        refuses(abi.encodeWithSelector(ISpaceRegistry.ApproversInvalid.selector, 1));
        products.setProductApprovers(product, list);
    }

    function test_only_the_provider_names_a_products_approvers() external {
        address[3] memory others = [operator, consumer, stranger];
        bytes memory call = abi.encodeCall(products.setProductApprovers, (product, approversOf(1)));
        for (uint256 i = 0; i < others.length; ++i) {
            bytes memory refusal = abi.encodeWithSelector(
                IProductRegistry.ProductNotProvider.selector,
                product,
                others[i]
            );
            assertRefused(others[i], address(products), call, refusal);
        }
    }

    function test_the_operator_sets_ceilings_of_one_currency() external {
        uint128[4] memory ceilings = [uint128(1), 2, 3, type(uint128).max];
        vm.recordLogs();
        vm.prank(operator);
        products.setPriceCeilings(product, address(yuan), ceilings);
        emit IProductRegistry.PriceCeilingsSet(product, address(yuan), ceilings);

        assertEmitted(address(products));
        assertTrue(products.productOf(product).capped, "capped");
        assertSame(abi.encode(products.priceCeilingsOf(product, address(yuan))), abi.encode(ceilings), "set");
        uint128[4] memory none;
        assertSame(abi.encode(products.priceCeilingsOf(product, address(1))), abi.encode(none), "other currency");
    }

    function test_only_the_operator_sets_ceilings() external {
        uint128[4] memory ceilings = [uint128(1), 2, 3, 4];
        bytes memory call = abi.encodeCall(products.setPriceCeilings, (product, address(yuan), ceilings));
        address[3] memory others = [provider, consumer, stranger];
        for (uint256 i = 0; i < others.length; ++i) {
            bytes memory refusal = abi.encodeWithSelector(
                IProductRegistry.ProductNotOperator.selector,
                product,
                others[i]
            );
            assertRefused(others[i], address(products), call, refusal);
        }
        assertTrue(!products.productOf(product).capped, "unchanged");
    }

    function test_ceilings_are_in_the_hands_of_the_operator_of_today() external {
        vm.prank(operator);
        spaces.proposeOperator(space, stranger);
        vm.prank(stranger);
        spaces.acceptOperator(space);

        uint128[4] memory ceilings = [uint128(1), 2, 3, 4];
        vm.prank(stranger);
        products.setPriceCeilings(product, address(yuan), ceilings);
        vm.prank(operator);
        refuses(abi.encodeWithSelector(IProductRegistry.ProductNotOperator.selector, product, operator));
        products.setPriceCeilings(product, address(yuan), ceilings);
    }
}

/// @title Rate cards and splits
contract RateCardsTest is Registries {
    uint64 private constant LAST = type(uint64).max;

    /// @dev The Keccak-256 of the creation code that stores the bytes, spelled out.
    function idOfBytes(bytes memory encoded) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(hex"600b5981380380925939f300", encoded));
    }

    function encodedCard() private view returns (bytes memory) {
        bytes memory first = abi.encodePacked(uint64(1), uint64(10), uint8(2), uint64(100), uint128(10_000));
        bytes memory second = abi.encodePacked(uint64(1000), uint64(0), uint8(1), LAST, uint128(2_800_000));
        return abi.encodePacked(hex"01", address(yuan), uint8(6), uint8(2), first, LAST, uint128(6_000), second);
    }

    function test_a_rate_card_is_kept_as_the_documented_bytes() external view {
        assertSame(cards.read(card), encodedCard(), "bytes");
        assertEq(card, idOfBytes(encodedCard()), "id");
    }

    function test_registering_a_rate_card_emits_its_bytes() external {
        RateCard memory made = cardOf(address(1));
        vm.recordLogs();
        bytes32 id = cards.registerRateCard(made);
        emit IRateCards.RateCardRegistered(id, cards.read(id));

        assertEmitted(address(cards));
        assertTrue(id != card, "another card");
    }

    function test_registering_a_rate_card_again_changes_nothing() external {
        RateCard memory made = cardOf(address(yuan));
        vm.recordLogs();
        vm.prank(stranger);
        bytes32 again = cards.registerRateCard(made);
        emit IRateCards.RateCardRegistered(card, encodedCard());

        assertEmitted(address(cards));
        assertEq(again, card, "id");
        assertSame(cards.read(card), encodedCard(), "bytes");
    }

    function test_a_split_is_kept_as_the_documented_bytes() external {
        Share[] memory shares = sharesOf(provider, 5000, operator, 1500, agent, 3500);
        bytes memory expected = hex"0203";
        for (uint256 i = 0; i < 3; ++i) expected = abi.encodePacked(expected, shares[i].payee, shares[i].bps);
        vm.recordLogs();
        bytes32 again = cards.registerSplit(shares);
        emit IRateCards.SplitRegistered(splitId, expected);

        assertEmitted(address(cards));
        assertEq(again, splitId, "the same again");
        assertEq(splitId, idOfBytes(expected), "id");
        assertSame(cards.read(splitId), expected, "bytes");
    }

    function test_ids_are_the_same_on_every_deployment() external {
        RateCards other = new RateCards();
        assertEq(other.read(card).length, 0, "not there yet");

        assertEq(other.registerRateCard(cardOf(address(yuan))), card, "card");
        Share[] memory shares = sharesOf(provider, 5000, operator, 1500, agent, 3500);
        assertEq(other.registerSplit(shares), splitId, "split");
    }

    function test_what_was_never_registered_reads_as_nothing() external view {
        assertEq(cards.read("unknown").length, 0, "unknown");
        assertEq(cards.read(0).length, 0, "zero");
    }

    // ----------------------------------------------------------------------------------------------- cards

    function refusesCard(RateCard memory made, uint256 meter, uint256 tier) private {
        refuses(abi.encodeWithSelector(Pricing.RateCardInvalid.selector, meter, tier));
        cards.registerRateCard(made);
    }

    function withMeters(uint256 count) private view returns (RateCard memory made) {
        made = RateCard(address(yuan), 6, new Meter[](count));
        for (uint256 m = 0; m < count; ++m) made.meters[m] = meterOf(1);
    }

    /// @dev With tiers up to 1, 2, 3 and so on.
    function meterOf(uint256 tiers) private pure returns (Meter memory made) {
        made = Meter(1, 0, new Tier[](tiers));
        for (uint256 t = 0; t < tiers; ++t) made.tiers[t] = Tier(t + 1 == tiers ? LAST : uint64(t + 1), 1);
    }

    function test_a_rate_card_has_one_to_four_meters() external {
        refusesCard(withMeters(0), 0, 0);
        assertEq(cards.read(cards.registerRateCard(withMeters(1))).length, 23 + 41, "one");
        assertEq(cards.read(cards.registerRateCard(withMeters(4))).length, 23 + 4 * 41, "four");
        refusesCard(withMeters(5), 5, 0);
    }

    function test_a_meter_has_one_to_eight_tiers() external {
        RateCard memory made = withMeters(2);
        made.meters[1] = meterOf(0);
        refusesCard(made, 1, 0);
        made.meters[1] = meterOf(8);
        assertEq(cards.read(cards.registerRateCard(made)).length, 23 + 41 + 17 + 8 * 24, "eight");
        made.meters[1] = meterOf(9);
        refusesCard(made, 1, 9);
    }

    function test_a_unit_scale_is_not_zero() external {
        RateCard memory made = withMeters(2);
        made.meters[1] = meterOf(3);
        made.meters[1].unitScale = 0;
        refusesCard(made, 1, 3);
    }

    function test_tiers_rise_strictly() external {
        RateCard memory made = withMeters(2);
        made.meters[1] = meterOf(3);
        made.meters[1].tiers[0].upTo = 0;
        refusesCard(made, 1, 0);
        made.meters[1].tiers[0].upTo = 2; // as much as the next
        refusesCard(made, 1, 1);
        made.meters[1].tiers[0].upTo = 3;
        refusesCard(made, 1, 1);
    }

    function test_the_last_tier_and_no_other_has_no_bound() external {
        RateCard memory made = withMeters(2);
        made.meters[1] = meterOf(3);
        made.meters[1].tiers[2].upTo = LAST - 1;
        refusesCard(made, 1, 2);
        made.meters[1].tiers[2].upTo = LAST;
        made.meters[1].tiers[1].upTo = LAST;
        refusesCard(made, 1, 1);
    }

    // ---------------------------------------------------------------------------------------------- splits

    function refusesSplit(Share[] memory shares, uint256 index, uint256 sum) private {
        refuses(abi.encodeWithSelector(Splits.SplitInvalid.selector, index, sum));
        cards.registerSplit(shares);
    }

    /// @dev One basis point each, and the rest for the last.
    function payees(uint256 count) private pure returns (Share[] memory shares) {
        shares = new Share[](count);
        for (uint256 i = 0; i < count; ++i) shares[i] = Share(address(uint160(i + 1)), 1);
        if (count > 0) shares[count - 1].bps = uint16(10_001 - count);
    }

    function test_a_split_has_one_to_sixteen_payees() external {
        refusesSplit(payees(0), 0, 0);
        assertEq(cards.read(cards.registerSplit(payees(1))).length, 2 + 22, "one");
        assertEq(cards.read(cards.registerSplit(payees(16))).length, 2 + 16 * 22, "sixteen");
        refusesSplit(payees(17), 17, 0);
    }

    function test_a_splits_parts_add_up_to_the_whole() external {
        Share[] memory shares = payees(3);
        shares[1].bps = 2;
        refusesSplit(shares, 3, 10_001);
        shares[1].bps = 1;
        shares[2].bps -= 1;
        refusesSplit(shares, 3, 9_999);
        shares[2].bps = type(uint16).max;
        refusesSplit(shares, 3, 65_537);
    }

    function test_a_splits_payees_ascend_and_are_named_once() external {
        Share[] memory shares = payees(3);
        shares[1].payee = shares[0].payee;
        refusesSplit(shares, 1, 1);
        shares = payees(3);
        shares[2].payee = shares[0].payee;
        refusesSplit(shares, 2, 2);
    }

    function test_the_zero_address_is_no_payee() external {
        Share[] memory shares = payees(2);
        shares[0].payee = address(0);
        refusesSplit(shares, 0, 0);
    }

    function test_no_payee_has_no_part() external {
        Share[] memory shares = payees(3);
        shares[1].bps = 0;
        refusesSplit(shares, 1, 1);
    }
}

/// @title ERC-165
contract InterfacesTest is Registries {
    function has(address of_, bytes4 id, string memory what) private view {
        assertTrue(IERC165(of_).supportsInterface(id), what);
        assertTrue(IERC165(of_).supportsInterface(0x01ffc9a7), "ERC-165");
        assertTrue(!IERC165(of_).supportsInterface(0xffffffff), "the id that nothing has");
        assertTrue(!IERC165(of_).supportsInterface(0), "zero");
    }

    function test_each_contract_says_which_interface_it_has() external view {
        has(address(spaces), type(ISpaceRegistry).interfaceId, "spaces");
        has(address(products), type(IProductRegistry).interfaceId, "products");
        has(address(cards), type(IRateCards).interfaceId, "cards");
        has(address(admission), type(IAdmission).interfaceId, "admission");
        has(address(sessionKeys), type(ISessionKeys).interfaceId, "session keys");
        has(address(ledger), type(IUsageLedger).interfaceId, "ledger");
        has(address(ledger), type(IAuthorizations).interfaceId, "ledger's authorizations");
        has(address(invoices), type(IInvoiceLedger).interfaceId, "invoices");
        has(address(invoices), type(IAuthorizations).interfaceId, "invoices' authorizations");
        has(address(evidence), type(IUsageEvidence).interfaceId, "evidence");
        has(address(subsidies), type(ISubsidyPool).interfaceId, "subsidies");
    }

    function test_the_two_ledgers_do_not_take_themselves_for_each_other() external view {
        assertTrue(!ledger.supportsInterface(type(IInvoiceLedger).interfaceId), "escrow");
        assertTrue(!invoices.supportsInterface(type(IUsageLedger).interfaceId), "invoices");
    }

    function test_registries_do_not_take_themselves_for_each_other() external view {
        assertTrue(!spaces.supportsInterface(type(IProductRegistry).interfaceId), "spaces");
        assertTrue(!products.supportsInterface(type(ISpaceRegistry).interfaceId), "products");
        assertTrue(!cards.supportsInterface(type(ISpaceRegistry).interfaceId), "cards");
    }
}
