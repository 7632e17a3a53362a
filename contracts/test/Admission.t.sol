// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IProductRegistry} from "../interfaces/IProductRegistry.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {Meter, RateCard, Tier} from "../libraries/Pricing.sol";
import {Approval, AuthorizationTerms, CompactTerms, Requirement, Terms} from "../libraries/Terms.sol";
import {AgreeingWallet, RefusingWallet} from "../mocks/Wallets.sol";
import {Checks} from "./Checks.sol";
import {World} from "./World.sol";

/// @title What the tests of opening share
abstract contract Openings is World, Checks {
    function listOf(address wallet, uint16 approvalType) internal pure returns (Requirement[] memory list) {
        list = new Requirement[](1);
        list[0] = Requirement(wallet, approvalType);
    }

    function listOf(Approval memory a) internal pure returns (Approval[] memory list) {
        list = new Approval[](1);
        list[0] = a;
    }

    function listOf(Approval memory a, Approval memory b) internal pure returns (Approval[] memory list) {
        list = new Approval[](2);
        (list[0], list[1]) = (a, b);
    }

    function listOf(AuthorizationTerms memory parent) internal pure returns (AuthorizationTerms[] memory list) {
        list = new AuthorizationTerms[](1);
        list[0] = parent;
    }

    function invalid(string memory field) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAdmission.TermsInvalid.selector, field);
    }

    function refusesOpening(IAuthorizations.Opening memory opening, bytes memory refusal) internal {
        IAuthorizations to = ledgerFor(opening.terms);
        refuses(refusal);
        to.open(opening);
        assertTrue(statusOf(opening.terms) == IAuthorizations.Status.NONE, "not opened");
    }

    /// @dev Neither the ledger nor the check that anyone may ask beforehand lets the terms pass.
    function refusesTerms(AuthorizationTerms memory terms, bytes memory refusal) internal {
        refusesOpening(openingOf(terms, 0), refusal);
        address to = address(ledgerFor(terms));
        refuses(refusal);
        admission.check(to, terms, new Requirement[](0), new Approval[](0), new AuthorizationTerms[](0));
    }

    function opens(IAuthorizations.Opening memory opening) internal {
        ledgerFor(opening.terms).open(opening);
        assertTrue(statusOf(opening.terms) == IAuthorizations.Status.OPEN, "opened");
    }

    function opens(AuthorizationTerms memory terms) internal {
        opens(openingOf(terms, 0));
    }
}

/// @title Checks of the terms themselves, of parties, products and prices
contract AdmissionTest is Openings {
    // ---------------------------------------------------------------------------------------------- fields

    function test_sound_terms_are_opened() external {
        opens(termsOf());
        opens(invoicedTermsOf());
    }

    function test_terms_are_valid_for_a_second_at_least() external {
        AuthorizationTerms memory terms = termsOf();
        terms.validFrom = terms.validUntil;
        refusesTerms(terms, invalid("validFrom"));
        terms.validFrom = terms.validUntil + 1;
        refusesTerms(terms, invalid("validFrom"));
        terms.validFrom = terms.validUntil - 1;
        opens(terms);
    }

    function test_the_settlement_window_is_a_day_to_thirty_days() external {
        AuthorizationTerms memory terms = termsOf();
        terms.thawSeconds = uint32(24 hours - 1);
        refusesTerms(terms, invalid("thawSeconds"));
        terms.thawSeconds = uint32(30 days + 1);
        refusesTerms(terms, invalid("thawSeconds"));
        terms.thawSeconds = uint32(24 hours);
        opens(terms);
        terms.thawSeconds = uint32(30 days);
        opens(terms);
    }

    function test_the_grace_of_a_revocation_is_thirty_days_at_most() external {
        AuthorizationTerms memory terms = termsOf();
        terms.revokeGrace = uint32(30 days + 1);
        refusesTerms(terms, invalid("revokeGrace"));
        terms.revokeGrace = uint32(30 days);
        opens(terms);
    }

    function test_unknown_flags_are_refused() external {
        AuthorizationTerms memory terms = termsOf();
        for (uint8 bit = 3; bit < 8; ++bit) {
            terms.flags = uint8(1 << bit);
            refusesTerms(terms, invalid("flags"));
        }
        terms.flags = 0xff;
        refusesTerms(terms, invalid("flags"));
    }

    function test_known_flags_are_taken_together() external {
        AuthorizationTerms memory terms = invoicedTermsOf();
        terms.meteringAgent = agent;
        terms.flags = Terms.FAST | Terms.AGENT_CAPPED | Terms.INVOICED;
        opens(terms);
    }

    function test_an_agent_that_is_not_there_cannot_be_capped() external {
        AuthorizationTerms memory terms = termsOf();
        terms.flags = Terms.AGENT_CAPPED;
        refusesTerms(terms, invalid("flags"));
        terms.meteringAgent = agent;
        opens(terms);
    }

    // --------------------------------------------------------------------------------------------- ledgers

    /// @dev As World.openingOf, for the ledger of my choice.
    function openingOn(
        IAuthorizations to,
        AuthorizationTerms memory terms,
        uint128 reserve
    ) private view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(terms, reserve);
        bytes32 id = to.idOf(terms);
        opening.acceptance.authorizationId = id;
        opening.providerSignature = sign(PROVIDER, id);
        opening.consumerSignature = sign(CONSUMER, id);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(to), opening.acceptance));
    }

    function refusesOn(
        IAuthorizations to,
        AuthorizationTerms memory terms,
        uint128 reserve,
        bytes memory refusal
    ) private {
        IAuthorizations.Opening memory opening = openingOn(to, terms, reserve);
        bytes32 id = to.idOf(terms);
        refuses(refusal);
        to.open(opening);
        assertTrue(to.authorizationOf(id).status == IAuthorizations.Status.NONE, "not opened");
    }

    function currency(AuthorizationTerms memory terms, address token) private returns (AuthorizationTerms memory) {
        terms.token = token;
        terms.rateCard = cards.registerRateCard(cardOf(token));
        return terms;
    }

    function test_invoiced_terms_are_not_opened_in_escrow() external {
        refusesOn(ledger, currency(invoicedTermsOf(), address(yuan)), 0, invalid("flags"));
    }

    function test_escrowed_terms_are_not_opened_for_invoices() external {
        AuthorizationTerms memory terms = invoicedTermsOf();
        terms.flags = 0;
        refusesOn(invoices, terms, 0, invalid("flags"));
    }

    function test_nothing_is_reserved_for_invoices() external {
        refusesOn(invoices, invoicedTermsOf(), 1, invalid("reserve"));
    }

    function test_an_invoiced_currency_is_a_code_of_three_bytes() external {
        address[5] memory wrong = [address(0), address(0x4e59), address(0xffff), address(0x1000000), address(yuan)];
        for (uint256 i = 0; i < wrong.length; ++i) {
            refusesOpening(openingOf(currency(invoicedTermsOf(), wrong[i]), 0), invalid("token"));
        }
        opens(currency(invoicedTermsOf(), address(0x434e59)));
        opens(currency(invoicedTermsOf(), address(0xffffff)));
    }

    function test_an_escrowed_currency_is_a_contract() external {
        AuthorizationTerms memory terms = currency(termsOf(), address(0x434e59));
        refusesOpening(
            openingOf(terms, 0),
            abi.encodeWithSelector(IUsageLedger.TokenNotContract.selector, address(0x434e59))
        );
    }

    // --------------------------------------------------------------------------------------------- parties

    function notActive(address wallet, uint32 role) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAdmission.PartyNotActive.selector, space, wallet, role);
    }

    function test_a_party_cannot_deal_with_itself() external {
        vm.prank(operator);
        spaces.admit(space, provider, 3, "both");
        AuthorizationTerms memory terms = termsOf();
        terms.consumer = provider;
        refusesTerms(terms, invalid("consumer"));
    }

    function test_a_party_is_not_its_own_metering_agent() external {
        vm.startPrank(operator);
        spaces.admit(space, provider, 17, "both");
        spaces.admit(space, consumer, 18, "both");
        vm.stopPrank();
        AuthorizationTerms memory terms = termsOf();
        terms.meteringAgent = provider;
        refusesTerms(terms, invalid("meteringAgent"));
        terms.meteringAgent = consumer;
        refusesTerms(terms, invalid("meteringAgent"));
    }

    function test_every_party_must_be_admitted() external {
        AuthorizationTerms memory terms = termsOf();
        terms.provider = stranger;
        refusesTerms(terms, notActive(stranger, 1));
        terms = termsOf();
        terms.consumer = stranger;
        refusesTerms(terms, notActive(stranger, 2));
        terms = termsOf();
        terms.meteringAgent = stranger;
        refusesTerms(terms, notActive(stranger, 16));
    }

    function test_no_party_may_be_suspended() external {
        AuthorizationTerms memory terms = termsOf();
        terms.meteringAgent = agent;
        address[3] memory parties = [provider, consumer, agent];
        uint32[3] memory roles = [uint32(1), 2, 16];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(operator);
            spaces.suspend(space, parties[i], 1);
            refusesTerms(terms, notActive(parties[i], roles[i]));
            vm.prank(operator);
            spaces.reinstate(space, parties[i]);
        }
        opens(terms);
    }

    function test_every_party_needs_its_own_role_and_no_other() external {
        AuthorizationTerms memory terms = termsOf();
        terms.meteringAgent = agent;
        address[3] memory parties = [provider, consumer, agent];
        uint32[3] memory roles = [uint32(1), 2, 16];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(operator);
            spaces.admit(space, parties[i], ~roles[i], "every other role");
            refusesTerms(terms, notActive(parties[i], roles[i]));
            vm.prank(operator);
            spaces.admit(space, parties[i], roles[i], "its own role");
        }
        opens(terms);
    }

    // --------------------------------------------------------------------------------------------- product

    function test_a_product_of_somebody_else_cannot_be_sold() external {
        vm.prank(operator);
        spaces.admit(space, stranger, 1, "stranger");
        vm.prank(stranger);
        bytes32 foreign = products.registerProduct(space, "foreign", "metadata");
        AuthorizationTerms memory terms = termsOf();
        terms.scope.product = foreign;
        terms.scope.version = 0;
        refusesTerms(terms, invalid("scope.product"));
    }

    function test_a_product_that_does_not_exist_cannot_be_sold() external {
        AuthorizationTerms memory terms = termsOf();
        terms.scope.product = "unknown";
        terms.scope.version = 0;
        refusesTerms(terms, invalid("scope.product"));
    }

    function test_a_product_of_another_space_cannot_be_sold_here() external {
        vm.startPrank(operator);
        bytes32 other = spaces.createSpace("other", "rules", CODE_LISTS);
        spaces.admit(other, provider, 1, "provider");
        vm.stopPrank();
        vm.prank(provider);
        bytes32 elsewhere = products.registerProduct(other, "elsewhere", "metadata");
        AuthorizationTerms memory terms = termsOf();
        terms.scope.product = elsewhere;
        terms.scope.version = 0;
        refusesTerms(terms, invalid("scope.space"));
    }

    function test_terms_speak_the_code_lists_of_the_space_of_today() external {
        AuthorizationTerms memory terms = termsOf();
        terms.scope.codeLists = "other";
        refusesTerms(terms, invalid("scope.codeLists"));

        terms = termsOf();
        vm.prank(operator);
        spaces.updateSpace(space, "rules", "new lists");
        refusesTerms(terms, invalid("scope.codeLists"));
        terms.scope.codeLists = "new lists";
        opens(terms);
    }

    function test_terms_may_name_no_version() external {
        AuthorizationTerms memory terms = termsOf();
        terms.scope.version = 0;
        opens(terms);
    }

    function test_a_version_must_be_one_of_the_product() external {
        (, bytes32 other) = publish("other product");
        AuthorizationTerms memory terms = termsOf();
        terms.scope.version = other;
        refusesTerms(terms, invalid("scope.version"));
        terms.scope.version = "unknown";
        refusesTerms(terms, invalid("scope.version"));
    }

    function test_a_retired_version_gets_no_new_authorizations() external {
        AuthorizationTerms memory before = termsOf();
        opens(before);
        vm.prank(provider);
        products.retireVersion(version, 1);

        refusesTerms(termsOf(), abi.encodeWithSelector(IAdmission.VersionNotListed.selector, version));
        assertTrue(statusOf(before) == IAuthorizations.Status.OPEN, "those open go on");
    }

    function test_a_recalled_version_gets_no_new_authorizations() external {
        vm.prank(operator);
        products.recallVersion(version, 1);

        refusesTerms(termsOf(), abi.encodeWithSelector(IAdmission.VersionNotListed.selector, version));
    }

    // ---------------------------------------------------------------------------------------------- prices

    function test_a_rate_card_must_be_registered() external {
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = "unknown";
        refusesTerms(terms, invalid("rateCard"));
    }

    function test_a_split_is_no_rate_card() external {
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = splitId;
        refusesTerms(terms, invalid("rateCard"));
    }

    function test_the_rate_card_is_in_the_currency_of_the_terms() external {
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = invoicedCard;
        refusesTerms(terms, invalid("token"));
    }

    function test_there_is_no_quota_on_a_meter_the_card_lacks() external {
        for (uint256 m = 2; m < 4; ++m) {
            AuthorizationTerms memory terms = termsOf();
            terms.maxUnits[m] = 1;
            refusesTerms(terms, invalid("maxUnits"));
        }
    }

    function test_a_split_must_be_registered() external {
        AuthorizationTerms memory terms = termsOf();
        terms.split = "unknown";
        refusesTerms(terms, invalid("split"));
    }

    function test_a_rate_card_is_no_split() external {
        AuthorizationTerms memory terms = termsOf();
        terms.split = card;
        refusesTerms(terms, invalid("split"));
    }

    function test_a_split_does_not_pay_the_ledger() external {
        AuthorizationTerms memory terms = termsOf();
        terms.split = cards.registerSplit(sharesOf(provider, 9998, address(ledger), 1, agent, 1));
        refusesTerms(terms, invalid("split"));
        terms = invoicedTermsOf();
        terms.split = cards.registerSplit(sharesOf(provider, 9998, address(invoices), 1, agent, 1));
        refusesTerms(terms, invalid("split"));
    }

    // -------------------------------------------------------------------------------------------- ceilings

    /// @dev What `card` costs per million units: 10,000 a call, then 6,000; 2,800,000 per thousand rows.
    uint128 private constant CALLS = 10_000e6;
    uint128 private constant ROWS = 2_800_000e3;

    function cap(address token, uint128 calls, uint128 rows) private {
        uint128[4] memory ceilings = [calls, rows, 0, 0];
        vm.prank(operator);
        products.setPriceCeilings(product, token, ceilings);
    }

    function above(uint256 meter, uint256 tier) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAdmission.PriceAboveCeiling.selector, product, meter, tier);
    }

    function test_a_price_may_equal_its_ceiling() external {
        cap(address(yuan), CALLS, ROWS);
        opens(termsOf());
    }

    function test_a_price_above_its_ceiling_is_refused_with_its_meter_and_tier() external {
        cap(address(yuan), CALLS - 1, ROWS);
        refusesTerms(termsOf(), above(0, 0));
        cap(address(yuan), CALLS, ROWS - 1);
        refusesTerms(termsOf(), above(1, 0));
        cap(address(yuan), CALLS - 1, ROWS - 1);
        refusesTerms(termsOf(), above(0, 0));

        RateCard memory rising = cardOf(address(yuan));
        rising.meters[0].tiers[0].price = 5_999;
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = cards.registerRateCard(rising);
        cap(address(yuan), 5_999e6, ROWS);
        refusesTerms(terms, above(0, 1));
        cap(address(yuan), 6_000e6, ROWS);
        opens(terms);
    }

    function test_a_ceiling_of_zero_is_none() external {
        cap(address(yuan), 0, ROWS);
        opens(termsOf());
        cap(address(yuan), CALLS, 0);
        opens(termsOf());
        cap(address(yuan), 0, ROWS - 1);
        refusesTerms(termsOf(), above(1, 0));
    }

    function test_a_ceiling_is_compared_without_rounding() external {
        // One token unit per three: 333,333 and a third per million.
        RateCard memory thirds = RateCard(address(yuan), 6, new Meter[](2));
        for (uint256 m = 0; m < 2; ++m) {
            thirds.meters[m] = Meter(3, 0, new Tier[](1));
            thirds.meters[m].tiers[0] = Tier(type(uint64).max, 1);
        }
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = cards.registerRateCard(thirds);
        cap(address(yuan), 333_333, 0);
        refusesTerms(terms, above(0, 0));
        cap(address(yuan), 333_334, 333_333);
        refusesTerms(terms, above(1, 0));
        cap(address(yuan), 333_334, 333_334);
        opens(terms);
    }

    function test_the_highest_price_and_the_highest_ceiling_are_compared_without_overflow() external {
        RateCard memory dear = cardOf(address(yuan));
        dear.meters[1].unitScale = type(uint64).max;
        dear.meters[1].tiers[0].price = type(uint128).max;
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = cards.registerRateCard(dear);
        cap(address(yuan), 0, type(uint128).max);
        opens(terms);
        cap(address(yuan), 0, 1);
        terms.salt = "another";
        refusesTerms(terms, above(1, 0));
    }

    function test_a_product_with_ceilings_is_sold_in_no_other_currency() external {
        bytes memory refusal = abi.encodeWithSelector(IAdmission.PriceCeilingMissing.selector, product, address(yuan));
        cap(invoicedTermsOf().token, CALLS, ROWS);
        refusesTerms(termsOf(), refusal);
        opens(invoicedTermsOf());
        cap(address(yuan), 0, 0);
        refusesTerms(termsOf(), refusal);
    }

    function test_ceilings_hold_for_one_product() external {
        cap(address(yuan), 1, 1);
        AuthorizationTerms memory terms = termsOf();
        (terms.scope.product, terms.scope.version) = publish("other product");
        opens(terms);
    }

    function test_the_check_knows_its_registries() external view {
        assertEq(address(admission.products()), address(products), "products");
        assertEq(address(admission.spaces()), address(spaces), "spaces");
        assertEq(admission.rateCards(), address(cards), "rate cards");
    }
}

/// @title Approvals
contract ApprovalsTest is Openings {
    uint16 private constant ETHICS = 3;
    uint256 private constant SECOND = 0xa9a;
    uint256 private constant THIRD = 0xa9b;

    function missing(address by, uint16 approvalType) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAdmission.ApprovalMissing.selector, by, approvalType);
    }

    function bad(Approval memory approval) private pure returns (bytes memory) {
        return
            abi.encodeWithSelector(
                IAdmission.ApprovalInvalid.selector,
                approval.by.approver,
                approval.by.approvalType,
                approval.validUntil
            );
    }

    function openingWith(
        AuthorizationTerms memory terms,
        Approval[] memory approvals
    ) private view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(terms, 0);
        opening.approvals = approvals;
    }

    function openingWith(
        AuthorizationTerms memory terms,
        Approval memory approval
    ) private view returns (IAuthorizations.Opening memory) {
        return openingWith(terms, listOf(approval));
    }

    function spaceAsks(address by, uint16 approvalType) private {
        vm.prank(operator);
        spaces.setSpaceApprovers(space, listOf(by, approvalType));
    }

    function productAsks(address by, uint16 approvalType) private {
        vm.prank(provider);
        products.setProductApprovers(product, listOf(by, approvalType));
    }

    // --------------------------------------------------------------------------------------- who is asked

    function test_the_spaces_approver_is_asked() external {
        spaceAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        refusesTerms(terms, missing(approver, ETHICS));
        opens(openingWith(terms, approvalBy(APPROVER, ETHICS, terms)));
    }

    function test_the_products_approver_is_asked() external {
        productAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        refusesTerms(terms, missing(approver, ETHICS));
        opens(openingWith(terms, approvalBy(APPROVER, ETHICS, terms)));
    }

    function test_the_terms_own_approver_is_asked() external {
        AuthorizationTerms memory terms = termsOf();
        Requirement[] memory asked = listOf(approver, ETHICS);
        terms.scope.approversHash = digests.approvers(asked);
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.approvers = asked;
        refusesOpening(opening, missing(approver, ETHICS));
        opening.approvals = listOf(approvalBy(APPROVER, ETHICS, terms));
        opens(opening);
    }

    function test_the_approvers_of_space_product_and_terms_are_all_asked() external {
        spaceAsks(approver, 1);
        productAsks(vm.addr(SECOND), 2);
        AuthorizationTerms memory terms = termsOf();
        Requirement[] memory asked = listOf(vm.addr(THIRD), 3);
        terms.scope.approversHash = digests.approvers(asked);
        Approval[] memory all = new Approval[](3);
        all[0] = approvalBy(APPROVER, 1, terms);
        all[1] = approvalBy(SECOND, 2, terms);
        all[2] = approvalBy(THIRD, 3, terms);

        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.approvers = asked;
        opening.approvals = listOf(all[0], all[1]);
        refusesOpening(opening, missing(vm.addr(THIRD), 3));
        opening.approvals = listOf(all[0], all[2]);
        refusesOpening(opening, missing(vm.addr(SECOND), 2));
        opening.approvals = listOf(all[2], all[1]);
        refusesOpening(opening, missing(approver, 1));
        opening.approvals = all;
        opens(opening);
    }

    function test_one_approval_serves_all_who_ask_for_it() external {
        spaceAsks(approver, ETHICS);
        productAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        opens(openingWith(terms, approvalBy(APPROVER, ETHICS, terms)));
    }

    function test_every_approver_of_a_list_is_asked() external {
        Requirement[] memory asked = new Requirement[](8);
        Approval[] memory all = new Approval[](8);
        for (uint16 i = 0; i < 8; ++i) asked[i] = Requirement(vm.addr(0xa00 + i), i);
        vm.prank(operator);
        spaces.setSpaceApprovers(space, asked);
        AuthorizationTerms memory terms = termsOf();
        for (uint16 i = 0; i < 8; ++i) all[i] = approvalBy(0xa00 + i, i, terms);

        Approval memory last = all[7];
        all[7] = all[0];
        refusesOpening(openingWith(terms, all), missing(asked[7].approver, 7));
        all[7] = last;
        opens(openingWith(terms, all));
    }

    function test_approvers_are_asked_no_more_once_a_list_is_emptied() external {
        spaceAsks(approver, 1);
        productAsks(approver, 2);
        vm.prank(operator);
        spaces.setSpaceApprovers(space, new Requirement[](0));
        vm.prank(provider);
        products.setProductApprovers(product, new Requirement[](0));
        opens(termsOf());
    }

    function test_approvers_of_another_product_are_not_asked() external {
        productAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        (terms.scope.product, terms.scope.version) = publish("other product");
        opens(terms);
    }

    function test_the_list_shown_is_the_one_that_the_terms_name() external {
        AuthorizationTerms memory terms = termsOf();
        Requirement[] memory asked = listOf(approver, ETHICS);
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.approvers = asked; // the terms name none
        refusesOpening(opening, invalid("scope.approversHash"));

        terms.scope.approversHash = digests.approvers(asked);
        opening = openingOf(terms, 0);
        refusesOpening(opening, invalid("scope.approversHash")); // none is shown
        opening.approvers = listOf(approver, ETHICS + 1);
        refusesOpening(opening, invalid("scope.approversHash"));
        opening.approvers = listOf(vm.addr(SECOND), ETHICS);
        refusesOpening(opening, invalid("scope.approversHash"));
    }

    function test_terms_name_eight_approvers_at_most_and_not_the_zero_address() external {
        AuthorizationTerms memory terms = termsOf();
        Requirement[] memory asked = new Requirement[](9);
        for (uint16 i = 0; i < 9; ++i) asked[i] = Requirement(approver, ETHICS);
        terms.scope.approversHash = digests.approvers(asked);
        IAuthorizations.Opening memory opening = openingWith(terms, approvalBy(APPROVER, ETHICS, terms));
        opening.approvers = asked;
        refusesOpening(opening, invalid("scope.approversHash"));

        asked = listOf(address(0), ETHICS);
        terms.scope.approversHash = digests.approvers(asked);
        opening = openingOf(terms, 0);
        opening.approvers = asked;
        refusesOpening(opening, invalid("scope.approversHash"));

        asked = new Requirement[](8);
        for (uint16 i = 0; i < 8; ++i) asked[i] = Requirement(approver, ETHICS);
        terms.scope.approversHash = digests.approvers(asked);
        opening = openingWith(terms, approvalBy(APPROVER, ETHICS, terms));
        opening.approvers = asked;
        opens(opening);
    }

    // ------------------------------------------------------------------------------- what an approval says

    function test_an_approval_of_another_type_does_not_count() external {
        spaceAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        refusesOpening(openingWith(terms, approvalBy(APPROVER, 4, terms)), missing(approver, ETHICS));
    }

    function test_an_approval_by_somebody_else_does_not_count() external {
        spaceAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        refusesOpening(openingWith(terms, approvalBy(SECOND, ETHICS, terms)), missing(approver, ETHICS));
    }

    function test_an_approval_is_valid_on_its_last_second_and_not_after() external {
        spaceAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingWith(terms, approvalBy(APPROVER, ETHICS, terms));
        opening.acceptance.deadline += 1;
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(ledger), opening.acceptance));

        vm.warp(START + DAY + 1);
        refusesOpening(opening, bad(opening.approvals[0]));
        vm.warp(START + DAY);
        opens(opening);
    }

    function test_an_approval_signed_by_another_key_is_refused() external {
        AuthorizationTerms memory terms = termsOf();
        Approval memory forged = approvalBy(SECOND, ETHICS, terms);
        forged.by.approver = approver;
        refusesOpening(openingWith(terms, forged), bad(forged));
        forged.signature = "";
        refusesOpening(openingWith(terms, forged), bad(forged));
    }

    function test_an_approval_in_nobodys_name_is_refused() external {
        AuthorizationTerms memory terms = termsOf();
        Approval memory forged = approvalBy(SECOND, ETHICS, terms);
        forged.by.approver = address(0);
        forged.signature = new bytes(65);
        refusesOpening(openingWith(terms, forged), bad(forged));
    }

    function test_nothing_in_an_approval_can_be_altered() external {
        AuthorizationTerms memory terms = termsOf();
        Approval memory altered = approvalBy(APPROVER, ETHICS, terms);
        altered.by.approvalType = 4;
        refusesOpening(openingWith(terms, altered), bad(altered));
        altered = approvalBy(APPROVER, ETHICS, terms);
        altered.documentHash = "another document";
        refusesOpening(openingWith(terms, altered), bad(altered));
        altered = approvalBy(APPROVER, ETHICS, terms);
        altered.validUntil += 1;
        refusesOpening(openingWith(terms, altered), bad(altered));
    }

    function test_an_approval_is_for_one_scope() external {
        AuthorizationTerms memory terms = termsOf();
        AuthorizationTerms memory wider = termsOf();
        wider.scope.purposes = 7;
        Approval memory approval = approvalBy(APPROVER, ETHICS, terms);
        refusesOpening(openingWith(wider, approval), bad(approval));
        wider = termsOf();
        wider.scope.creditUnits[0] = 1;
        refusesOpening(openingWith(wider, approval), bad(approval));
        wider = termsOf();
        wider.scope.supersedes = "another";
        refusesOpening(openingWith(wider, approval), bad(approval));
    }

    function test_an_approval_is_for_one_provider_and_one_consumer() external {
        AuthorizationTerms memory terms = termsOf();
        AuthorizationTerms memory other = termsOf();
        other.provider = stranger;
        Approval memory approval = approvalBy(APPROVER, ETHICS, other);
        refusesOpening(openingWith(terms, approval), bad(approval));
        other = termsOf();
        other.consumer = stranger;
        approval = approvalBy(APPROVER, ETHICS, other);
        refusesOpening(openingWith(terms, approval), bad(approval));
    }

    function test_an_approval_is_for_one_ledger() external {
        AuthorizationTerms memory terms = termsOf();
        Approval memory approval = approvalBy(APPROVER, ETHICS, terms);
        approval.signature = sign(APPROVER, digests.approval(address(invoices), approval, terms));
        refusesOpening(openingWith(terms, approval), bad(approval));
    }

    function test_an_approval_is_for_one_chain() external {
        vm.chainId(1);
        AuthorizationTerms memory terms = termsOf();
        vm.chainId(2);
        Approval memory approval = approvalBy(APPROVER, ETHICS, terms);
        vm.chainId(1);
        refusesOpening(openingWith(terms, approval), bad(approval));
    }

    function test_an_approval_says_nothing_about_price_quota_and_time() external {
        spaceAsks(approver, ETHICS);
        Approval memory approval = approvalBy(APPROVER, ETHICS, termsOf());
        RateCard memory dear = cardOf(address(yuan));
        dear.meters[0].tiers[0].price = 1e18;
        AuthorizationTerms memory terms = termsOf();
        terms.rateCard = cards.registerRateCard(dear);
        terms.maxUnits[0] = type(uint64).max;
        terms.validUntil += 1;
        opens(openingWith(terms, approval));
    }

    function test_a_contract_wallet_can_approve() external {
        address wallet = address(new AgreeingWallet());
        spaceAsks(wallet, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        Approval memory approval = Approval(Requirement(wallet, ETHICS), "document", uint40(START), "");
        opens(openingWith(terms, approval));
    }

    function test_a_contract_wallet_can_refuse_to_have_approved() external {
        address wallet = address(new RefusingWallet());
        AuthorizationTerms memory terms = termsOf();
        Approval memory approval = Approval(Requirement(wallet, ETHICS), "document", uint40(START), "");
        refusesOpening(openingWith(terms, approval), bad(approval));
    }

    // ------------------------------------------------------------------------------------- what is recorded

    function test_every_approval_given_is_recorded_asked_for_or_not() external {
        spaceAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        Approval memory asked = approvalBy(APPROVER, ETHICS, terms);
        Approval memory extra = approvalBy(SECOND, 9, terms);
        bytes32 id = idOf(terms);
        IAuthorizations.Opening memory opening = openingWith(terms, listOf(asked, extra));

        vm.recordLogs();
        ledger.open(opening);
        emit IAuthorizations.Opened(id, provider, consumer, terms, 0, 0);
        emit IAuthorizations.Approved(id, approver, ETHICS, "document", uint40(START + DAY));
        emit IAuthorizations.Approved(id, vm.addr(SECOND), 9, "document", uint40(START + DAY));
        assertEmitted(address(ledger));
    }

    function test_a_superfluous_approval_that_is_invalid_refuses_the_opening() external {
        spaceAsks(approver, ETHICS);
        AuthorizationTerms memory terms = termsOf();
        Approval memory asked = approvalBy(APPROVER, ETHICS, terms);
        Approval memory extra = approvalBy(SECOND, 9, termsOf());
        extra.documentHash = "altered";
        refusesOpening(openingWith(terms, listOf(asked, extra)), bad(extra));
    }
}

/// @title Children: authorizations under a parent
contract ChildrenTest is Openings {
    uint32 private constant DERIVE = 2;
    uint32 private constant SUBLICENSE = 4;

    /// @dev A chain of wallets that may each be consumer of the one before and provider for the next.
    mapping(address wallet => uint256 key) private keyOf;
    address private reseller; // World's consumer, with the provider's role too
    address private buyer;

    function setUp() public override {
        super.setUp();
        reseller = consumer;
        keyOf[provider] = PROVIDER;
        keyOf[consumer] = CONSUMER;
        for (uint256 i = 0; i < 6; ++i) keyOf[link(i)] = 0xc0 + i;
        buyer = link(0);
        vm.startPrank(operator);
        spaces.admit(space, consumer, 3, "consumer and provider");
        for (uint256 i = 0; i < 6; ++i) spaces.admit(space, link(i), 3, "link");
        vm.stopPrank();
    }

    function link(uint256 i) private pure returns (address) {
        return vm.addr(0xc0 + i);
    }

    function parentOf(uint32 rights) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.scope.rights = 1 | rights;
    }

    /// @dev Exactly as wide as its parent.
    function childOf(AuthorizationTerms memory parent, address to) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.scope.parent = idOf(parent);
        terms.scope.product = parent.scope.product;
        terms.scope.version = parent.scope.version;
        terms.scope.rights = parent.scope.rights;
        terms.provider = parent.consumer;
        terms.consumer = to;
        terms.validFrom = parent.validFrom;
        terms.validUntil = parent.validUntil;
    }

    /// @dev Signed by whoever the terms name, and approved by the parent's provider.
    function openingUnder(
        AuthorizationTerms memory parent,
        AuthorizationTerms memory child
    ) private view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(child, 0);
        bytes32 id = idOf(child);
        opening.providerSignature = sign(keyOf[child.provider], id);
        opening.consumerSignature = sign(keyOf[child.consumer], id);
        bytes32 acceptance = digests.acceptance(address(ledgerFor(child)), opening.acceptance);
        opening.acceptanceSignature = sign(keyOf[child.consumer], acceptance);
        opening.parents = listOf(parent);
        opening.approvals = listOf(approvalBy(keyOf[parent.provider], 0, child));
    }

    function opensUnder(
        AuthorizationTerms memory parent,
        AuthorizationTerms memory child
    ) private returns (AuthorizationTerms memory) {
        opens(openingUnder(parent, child));
        return child;
    }

    /// @dev A parent and a child of it, both open.
    function family() private returns (AuthorizationTerms memory parent, AuthorizationTerms memory child) {
        parent = opened(parentOf(SUBLICENSE), 0);
        child = opensUnder(parent, childOf(parent, buyer));
    }

    function depthOf(AuthorizationTerms memory terms) private view returns (uint8) {
        return ledger.authorizationOf(idOf(terms)).depth;
    }

    function endOf(AuthorizationTerms memory terms) private view returns (uint40) {
        return ledger.authorizationOf(idOf(terms)).endedAt;
    }

    // ---------------------------------------------------------------------------------------------- success

    function test_a_sublicense_passes_the_same_product_on() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        bytes32 id = idOf(child);
        IAuthorizations.Opening memory opening = openingUnder(parent, child);

        vm.recordLogs();
        ledger.open(opening);
        emit IAuthorizations.Opened(id, reseller, buyer, child, 0, 0);
        emit IAuthorizations.Approved(id, provider, 0, "document", uint40(START + DAY));
        assertEmitted(address(ledger));
        assertTrue(statusOf(child) == IAuthorizations.Status.OPEN, "open");
        assertEq(depthOf(parent), 0, "depth of the parent");
        assertEq(depthOf(child), 1, "depth of the child");
    }

    function test_a_sublicense_may_pin_a_version_where_its_parent_does_not() external {
        AuthorizationTerms memory parent = parentOf(SUBLICENSE);
        parent.scope.version = 0;
        opened(parent, 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.scope.version = version;
        opensUnder(parent, child);
    }

    function test_a_sublicense_may_be_narrower_in_everything() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.scope.rights = 1;
        child.scope.purposes = 2;
        child.scope.modalities = 1;
        child.validFrom += 1;
        child.validUntil -= 1;
        opensUnder(parent, child);
    }

    /// @dev A product of the reseller's own.
    function ownProduct() private returns (bytes32 own, bytes32 ownVersion) {
        bytes32[] memory parents = new bytes32[](1);
        parents[0] = version;
        vm.startPrank(reseller);
        own = products.registerProduct(space, "derived", "metadata");
        ownVersion = products.publishVersion(own, digestsOf("derived"), "metadata", POLICY, parents);
        vm.stopPrank();
    }

    function test_the_right_to_derive_lets_a_consumer_sell_its_own_product_under_the_parent() external {
        AuthorizationTerms memory parent = opened(parentOf(DERIVE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        (child.scope.product, child.scope.version) = ownProduct();
        opensUnder(parent, child);
    }

    function test_the_right_to_sublicense_is_no_right_to_derive() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        (child.scope.product, child.scope.version) = ownProduct();
        refusesOpening(openingUnder(parent, child), tooWide("product"));
    }

    function test_the_right_to_derive_is_no_right_to_sublicense() external {
        AuthorizationTerms memory parent = opened(parentOf(DERIVE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        refusesOpening(openingUnder(parent, child), invalid("scope.product"));
    }

    function test_a_right_to_sublicense_one_product_passes_no_other_on() external {
        (bytes32 other, bytes32 otherVersion) = publish("other product");
        AuthorizationTerms memory parent = opened(parentOf(DERIVE | SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        (child.scope.product, child.scope.version) = (other, otherVersion);
        refusesOpening(openingUnder(parent, child), invalid("scope.product"));
    }

    function test_a_reseller_needs_the_providers_role() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        vm.prank(operator);
        spaces.admit(space, reseller, 2, "consumer only");
        refusesOpening(
            openingUnder(parent, child),
            abi.encodeWithSelector(IAdmission.PartyNotActive.selector, space, reseller, 1)
        );
    }

    // ---------------------------------------------------------------------------------------------- too wide

    function tooWide(string memory field) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAdmission.ChildTooWide.selector, field);
    }

    function test_only_the_parents_consumer_passes_on() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.provider = link(1);
        refusesOpening(openingUnder(parent, child), tooWide("provider"));
    }

    function test_a_child_stays_in_the_space() external {
        vm.startPrank(operator);
        bytes32 other = spaces.createSpace("other", "rules", CODE_LISTS);
        spaces.admit(other, reseller, 1, "provider");
        spaces.admit(other, buyer, 2, "consumer");
        vm.stopPrank();
        vm.prank(reseller);
        bytes32 elsewhere = products.registerProduct(other, "elsewhere", "metadata");
        AuthorizationTerms memory parent = opened(parentOf(DERIVE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        (child.scope.space, child.scope.product, child.scope.version) = (other, elsewhere, 0);
        refusesOpening(openingUnder(parent, child), tooWide("space"));
    }

    function test_a_child_keeps_the_code_lists() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        vm.prank(operator);
        spaces.updateSpace(space, "rules", "new lists");
        refusesOpening(openingUnder(parent, child), invalid("scope.codeLists"));
        child.scope.codeLists = "new lists";
        refusesOpening(openingUnder(parent, child), tooWide("space"));
    }

    function test_a_child_has_no_right_its_parent_lacks() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        for (uint256 bit = 0; bit < 32; ++bit) {
            if (bit == 0 || bit == 2) continue;
            AuthorizationTerms memory child = childOf(parent, buyer);
            child.scope.rights = uint32(1 << bit);
            refusesOpening(openingUnder(parent, child), tooWide("rights"));
        }
    }

    function test_a_child_has_no_purpose_its_parent_lacks() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.scope.purposes = 4;
        refusesOpening(openingUnder(parent, child), tooWide("purposes"));
        child.scope.purposes = 3 | (1 << 63);
        refusesOpening(openingUnder(parent, child), tooWide("purposes"));
    }

    function test_a_child_has_no_modality_its_parent_lacks() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.scope.modalities = 4;
        refusesOpening(openingUnder(parent, child), tooWide("modalities"));
        child.scope.modalities = 3 | (1 << 31);
        refusesOpening(openingUnder(parent, child), tooWide("modalities"));
    }

    function test_a_child_is_valid_within_its_parents_time() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.validFrom -= 1;
        refusesOpening(openingUnder(parent, child), tooWide("validity"));
        child = childOf(parent, buyer);
        child.validUntil += 1;
        refusesOpening(openingUnder(parent, child), tooWide("validity"));
    }

    function test_a_sublicense_keeps_the_version_its_parent_pins() external {
        IProductRegistry.Digest[] memory content = digestsOf("other");
        vm.prank(provider);
        bytes32 other = products.publishVersion(product, content, "m", POLICY, new bytes32[](0));
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.scope.version = other;
        refusesOpening(openingUnder(parent, child), tooWide("version"));
        child.scope.version = 0;
        refusesOpening(openingUnder(parent, child), tooWide("version"));
    }

    // ------------------------------------------------------------------------------------------- the parent

    function notOpen(
        AuthorizationTerms memory parent,
        IAuthorizations.Status status,
        uint8 depth
    ) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.ParentNotOpen.selector, idOf(parent), status, depth);
    }

    function test_the_parents_terms_must_be_shown() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        opening.parents = new AuthorizationTerms[](0);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.OPEN, 0));
    }

    function test_other_terms_are_not_taken_for_the_parents() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory other = opened(parentOf(SUBLICENSE), 0);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        opening.parents = listOf(other);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.OPEN, 0));
    }

    function test_one_parent_is_shown_and_not_two() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        opening.parents = new AuthorizationTerms[](2);
        (opening.parents[0], opening.parents[1]) = (parent, parent);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.OPEN, 0));
    }

    function test_a_parent_that_the_terms_do_not_name_is_refused() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.scope.parent = 0;
        refusesOpening(
            openingUnder(parent, child),
            abi.encodeWithSelector(IAuthorizations.ParentNotOpen.selector, bytes32(0), IAuthorizations.Status.NONE, 0)
        );
    }

    function test_a_parent_must_have_been_opened() external {
        AuthorizationTerms memory parent = parentOf(SUBLICENSE);
        AuthorizationTerms memory child = childOf(parent, buyer);
        refusesOpening(openingUnder(parent, child), notOpen(parent, IAuthorizations.Status.NONE, 0));
    }

    function test_a_parent_on_the_other_ledger_is_none() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        (child.token, child.rateCard, child.flags) = (address(0x434e59), invoicedCard, Terms.INVOICED);
        refusesOpening(openingUnder(parent, child), notOpen(parent, IAuthorizations.Status.NONE, 0));
    }

    function test_a_parent_that_its_consumer_closed_has_no_more_children() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        CompactTerms memory compact = compactOf(parent);
        vm.prank(reseller);
        ledger.close(compact, 1);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.ENDED, 0));
    }

    function test_a_parent_whose_time_is_over_has_no_more_children() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.validUntil += uint40(DAY);
        IAuthorizations.Opening memory opening = openingUnder(parent, child);
        vm.warp(parent.validUntil);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.ENDED, 0));
    }

    function test_a_revoked_parent_has_no_more_children() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        vm.prank(provider);
        ledger.revoke(parent, new Requirement[](0), 1);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.ENDED, 0));
    }

    function test_a_parent_closed_for_ever_has_no_more_children() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        ledger.closeTogether(closingOf(parent, noHead(), noHead(), 0));
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.CLOSED, 0));
    }

    function test_cancelled_terms_have_no_children() external {
        AuthorizationTerms memory parent = parentOf(SUBLICENSE);
        IAuthorizations.Opening memory opening = openingUnder(parent, childOf(parent, buyer));
        CompactTerms memory compact = compactOf(parent);
        vm.prank(provider);
        ledger.cancelTerms(compact);
        refusesOpening(opening, notOpen(parent, IAuthorizations.Status.CANCELLED, 0));
    }

    function test_four_generations_of_parents_are_allowed_and_not_five() external {
        AuthorizationTerms memory last = opened(parentOf(SUBLICENSE), 0);
        for (uint256 i = 0; i < 4; ++i) {
            last = opensUnder(last, childOf(last, link(i)));
            assertEq(depthOf(last), i + 1, "depth");
        }
        AuthorizationTerms memory fifth = childOf(last, link(4));
        refusesOpening(openingUnder(last, fifth), notOpen(last, IAuthorizations.Status.OPEN, 4));
    }

    function test_the_parents_provider_must_approve() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        IAuthorizations.Opening memory opening = openingUnder(parent, child);
        bytes memory refusal = abi.encodeWithSelector(IAdmission.ApprovalMissing.selector, provider, 0);
        opening.approvals = new Approval[](0);
        refusesOpening(opening, refusal);
        opening.approvals = listOf(approvalBy(PROVIDER, 1, child)); // in another capacity
        refusesOpening(opening, refusal);
        opening.approvals = listOf(approvalBy(CONSUMER, 0, child)); // by the child's own provider
        refusesOpening(opening, refusal);
    }

    function test_a_grandchild_needs_the_approval_of_its_own_parents_provider() external {
        (, AuthorizationTerms memory child) = family();
        AuthorizationTerms memory grandchild = childOf(child, link(1));
        IAuthorizations.Opening memory opening = openingUnder(child, grandchild);
        opening.approvals = listOf(approvalBy(PROVIDER, 0, grandchild));
        refusesOpening(opening, abi.encodeWithSelector(IAdmission.ApprovalMissing.selector, reseller, 0));
        opening.approvals = listOf(approvalBy(CONSUMER, 0, grandchild));
        opens(opening);
    }

    function test_approvals_of_the_space_are_asked_of_children_too() external {
        AuthorizationTerms memory parent = opened(parentOf(SUBLICENSE), 0);
        vm.prank(operator);
        spaces.setSpaceApprovers(space, listOf(approver, 5));
        AuthorizationTerms memory child = childOf(parent, buyer);
        IAuthorizations.Opening memory opening = openingUnder(parent, child);
        refusesOpening(opening, abi.encodeWithSelector(IAdmission.ApprovalMissing.selector, approver, 5));
        opening.approvals = listOf(opening.approvals[0], approvalBy(APPROVER, 5, child));
        opens(opening);
    }

    // -------------------------------------------------------------------------------------------- the end

    function notEnded(AuthorizationTerms memory parent) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.ParentNotEnded.selector, idOf(parent), endOf(parent));
    }

    function refusesEnd(AuthorizationTerms memory child, bytes memory refusal) private {
        uint40 before = endOf(child);
        refuses(refusal);
        ledger.endByParent(child);
        assertEq(endOf(child), before, "unchanged");
    }

    function revoke(AuthorizationTerms memory terms) private {
        vm.prank(terms.provider);
        ledger.revoke(terms, new Requirement[](0), 1);
    }

    function test_a_child_is_not_ended_while_its_parents_end_is_as_agreed() external {
        (AuthorizationTerms memory parent, AuthorizationTerms memory child) = family();
        refusesEnd(child, notEnded(parent));
    }

    function test_a_child_that_ends_before_its_parent_is_left_alone() external {
        AuthorizationTerms memory parent = parentOf(SUBLICENSE);
        parent.revokeGrace = uint32(5 * DAY);
        opened(parent, 0);
        AuthorizationTerms memory child = childOf(parent, buyer);
        child.validUntil = uint40(START + 5 * DAY);
        opensUnder(parent, child);
        revoke(parent);
        refusesEnd(child, notEnded(parent));
    }

    function test_an_authorization_without_parent_is_not_ended_by_one() external {
        AuthorizationTerms memory terms = opened(termsOf(), 0);
        refusesEnd(terms, abi.encodeWithSelector(IAuthorizations.ParentNotEnded.selector, bytes32(0), 0));
    }

    function test_a_childs_end_is_set_to_its_parents_grace_by_anyone() external {
        AuthorizationTerms memory parent = parentOf(SUBLICENSE);
        parent.revokeGrace = uint32(2 * DAY);
        opened(parent, 0);
        AuthorizationTerms memory child = opensUnder(parent, childOf(parent, buyer));
        bytes32 id = idOf(child);
        bytes32 parentId = idOf(parent);
        revoke(parent);

        vm.recordLogs();
        vm.prank(stranger);
        ledger.endByParent(child);
        emit IAuthorizations.EndedByParent(id, parentId, uint40(START + 2 * DAY));
        assertEmitted(address(ledger));
        assertEq(endOf(child), START + 2 * DAY, "together with the parent");
        assertTrue(statusOf(child) == IAuthorizations.Status.OPEN, "open until then");
        vm.warp(START + 2 * DAY);
        assertTrue(statusOf(child) == IAuthorizations.Status.ENDED, "ended then");
    }

    function test_a_child_ends_at_once_where_its_parent_has_ended() external {
        (AuthorizationTerms memory parent, AuthorizationTerms memory child) = family();
        bytes32 id = idOf(child);
        bytes32 parentId = idOf(parent);
        revoke(parent);
        vm.warp(START + 500);

        vm.recordLogs();
        vm.prank(stranger);
        ledger.endByParent(child);
        emit IAuthorizations.EndedByParent(id, parentId, uint40(START + 500));
        assertEmitted(address(ledger));
        assertTrue(statusOf(child) == IAuthorizations.Status.ENDED, "ended");
    }

    function test_a_child_ends_where_its_parent_is_closed_for_ever() external {
        (AuthorizationTerms memory parent, AuthorizationTerms memory child) = family();
        ledger.closeTogether(closingOf(parent, noHead(), noHead(), 0));
        ledger.endByParent(child);
        assertEq(endOf(child), START, "at once");
    }

    function test_a_childs_window_counts_from_its_own_end() external {
        (AuthorizationTerms memory parent, AuthorizationTerms memory child) = family();
        IAuthorizations.Closing memory closing = closingOf(child, noHead(), noHead(), 0);
        bytes32 id = idOf(child);
        revoke(parent);
        uint256 ended = START + 3 * DAY; // later than the parent's own window
        vm.warp(ended);
        ledger.endByParent(child);

        vm.warp(ended + DAY);
        refuses(abi.encodeWithSelector(IAuthorizations.WindowNotOver.selector, id, ended + DAY, ended + DAY));
        ledger.finalize(closing.terms);
        vm.warp(ended + DAY + 1);
        ledger.finalize(closing.terms);
        assertTrue(statusOf(child) == IAuthorizations.Status.CLOSED, "closed");
    }

    function test_a_child_is_ended_by_its_parent_once() external {
        AuthorizationTerms memory parent = parentOf(SUBLICENSE);
        parent.revokeGrace = uint32(2 * DAY);
        opened(parent, 0);
        AuthorizationTerms memory child = opensUnder(parent, childOf(parent, buyer));
        revoke(parent);
        ledger.endByParent(child);
        refusesEnd(child, notEnded(parent));
        vm.warp(START + 3 * DAY);
        refusesEnd(child, notEnded(parent));
    }

    function test_a_child_that_was_ended_late_is_not_ended_again() external {
        (AuthorizationTerms memory parent, AuthorizationTerms memory child) = family();
        bytes memory refusal = abi.encodeWithSelector(
            IAuthorizations.AuthorizationStatus.selector,
            idOf(child),
            IAuthorizations.Status.ENDED
        );
        revoke(parent);
        vm.warp(START + 500);
        ledger.endByParent(child);
        refusesEnd(child, refusal);
        vm.warp(START + 600);
        refusesEnd(child, refusal);
    }

    function test_an_end_passes_down_generation_by_generation() external {
        (AuthorizationTerms memory parent, AuthorizationTerms memory child) = family();
        AuthorizationTerms memory grandchild = opensUnder(child, childOf(child, link(1)));
        revoke(parent);
        refusesEnd(grandchild, notEnded(child));
        ledger.endByParent(child);
        ledger.endByParent(grandchild);
        assertTrue(statusOf(grandchild) == IAuthorizations.Status.ENDED, "ended");
    }

    function test_a_parents_provider_ends_a_child_through_the_parent_only() external {
        (, AuthorizationTerms memory child) = family();
        assertTrue(!admission.mayRevoke(provider, child, new Requirement[](0)), "it is no party to the child");
    }
}

/// @title Who may revoke
contract RevokersTest is Openings {
    Requirement[] private none;
    address private spaceApprover = vm.addr(0x5a);
    address private productApprover = vm.addr(0x9a);

    /// @dev Opened with an approver of the space, one of the product and one of the terms.
    function approvedTerms() private returns (AuthorizationTerms memory terms, Requirement[] memory asked) {
        vm.prank(operator);
        spaces.setSpaceApprovers(space, listOf(spaceApprover, 1));
        vm.prank(provider);
        products.setProductApprovers(product, listOf(productApprover, 2));
        asked = listOf(approver, 3);
        terms = termsOf();
        terms.revokeGrace = uint32(DAY);
        terms.scope.approversHash = digests.approvers(asked);
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.approvers = asked;
        opening.approvals = new Approval[](3);
        opening.approvals[0] = approvalBy(0x5a, 1, terms);
        opening.approvals[1] = approvalBy(0x9a, 2, terms);
        opening.approvals[2] = approvalBy(APPROVER, 3, terms);
        ledger.open(opening);
    }

    function revokesAs(address caller, AuthorizationTerms memory terms, Requirement[] memory shown) private {
        bytes32 id = idOf(terms);
        assertTrue(admission.mayRevoke(caller, terms, shown), "may");
        vm.recordLogs();
        vm.prank(caller);
        ledger.revoke(terms, shown, 12);
        emit IAuthorizations.Revoked(id, caller, uint40(START + DAY), 12);
        assertEmitted(address(ledger));
        assertEq(ledger.authorizationOf(id).endedAt, START + DAY, "after the grace");
    }

    function mayNot(address caller, AuthorizationTerms memory terms, Requirement[] memory shown) private {
        bytes32 id = idOf(terms);
        assertTrue(!admission.mayRevoke(caller, terms, shown), "may not");
        assertRefused(
            caller,
            address(ledger),
            abi.encodeCall(ledger.revoke, (terms, shown, 12)),
            abi.encodeWithSelector(IAuthorizations.AuthorizationNotYours.selector, id, caller)
        );
        assertEq(ledger.authorizationOf(id).endedAt, START + 10 * DAY, "unchanged");
    }

    function test_the_provider_may_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        revokesAs(provider, terms, none);
    }

    function test_the_operator_may_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        revokesAs(operator, terms, none);
    }

    function test_the_spaces_approver_may_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        revokesAs(spaceApprover, terms, none);
    }

    function test_the_products_approver_may_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        revokesAs(productApprover, terms, none);
    }

    function test_the_terms_own_approver_may_revoke() external {
        (AuthorizationTerms memory terms, Requirement[] memory asked) = approvedTerms();
        revokesAs(approver, terms, asked);
    }

    function test_showing_the_list_takes_nothing_from_those_who_are_not_on_it() external {
        (AuthorizationTerms memory terms, Requirement[] memory asked) = approvedTerms();
        revokesAs(spaceApprover, terms, asked);
    }

    function test_the_terms_own_approver_must_show_the_list() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        mayNot(approver, terms, none);
    }

    function test_a_list_that_the_terms_do_not_name_helps_nobody() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        mayNot(stranger, terms, listOf(stranger, 3));
        mayNot(approver, terms, listOf(approver, 4));
        mayNot(stranger, withoutApprovers(), listOf(stranger, 3));
    }

    /// @dev Opened without any approver.
    function withoutApprovers() private returns (AuthorizationTerms memory terms) {
        vm.prank(operator);
        spaces.setSpaceApprovers(space, none);
        vm.prank(provider);
        products.setProductApprovers(product, none);
        return opened(termsOf(), 0);
    }

    function test_consumer_agent_and_strangers_may_not_revoke() external {
        (AuthorizationTerms memory terms, Requirement[] memory asked) = approvedTerms();
        address[4] memory others = [consumer, agent, stranger, address(this)];
        for (uint256 i = 0; i < others.length; ++i) {
            mayNot(others[i], terms, none);
            mayNot(others[i], terms, asked);
        }
    }

    function test_the_operator_of_today_may_revoke_and_the_one_before_may_not() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        vm.prank(operator);
        spaces.proposeOperator(space, stranger);
        mayNot(stranger, terms, none);
        vm.prank(stranger);
        spaces.acceptOperator(space);
        mayNot(operator, terms, none);
        revokesAs(stranger, terms, none);
    }

    function test_approvers_of_another_space_or_product_may_not_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        vm.startPrank(stranger);
        bytes32 other = spaces.createSpace("other", "rules", CODE_LISTS);
        spaces.setSpaceApprovers(other, listOf(stranger, 1));
        vm.stopPrank();
        (bytes32 otherProduct, ) = publish("other product");
        vm.prank(provider);
        products.setProductApprovers(otherProduct, listOf(stranger, 2));
        mayNot(stranger, terms, none);
    }

    function test_another_scope_cannot_be_shown_to_gain_the_right_to_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        bytes32 id = idOf(terms);
        Requirement[] memory mine = listOf(stranger, 3);
        terms.scope.approversHash = digests.approvers(mine);
        assertTrue(admission.mayRevoke(stranger, terms, mine), "the check takes the terms as they are");
        bytes memory refusal = abi.encodeWithSelector(
            IAuthorizations.AuthorizationStatus.selector,
            idOf(terms),
            IAuthorizations.Status.NONE
        );
        assertRefused(stranger, address(ledger), abi.encodeCall(ledger.revoke, (terms, mine, 12)), refusal);
        assertEq(ledger.authorizationOf(id).endedAt, START + 10 * DAY, "unchanged");
    }

    function test_an_approver_named_after_the_opening_may_revoke() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        vm.prank(operator);
        spaces.setSpaceApprovers(space, listOf(stranger, 1));
        revokesAs(stranger, terms, none);
    }

    function test_an_approver_that_was_replaced_may_revoke_no_more() external {
        (AuthorizationTerms memory terms, ) = approvedTerms();
        vm.prank(operator);
        spaces.setSpaceApprovers(space, listOf(stranger, 1));
        assertTrue(!admission.mayRevoke(spaceApprover, terms, none), "its successor may");
    }
}
