// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {Meter, RateCard, Tier} from "../libraries/Pricing.sol";
import {AuthorizationTerms, Head, Terms, UsageCeiling} from "../libraries/Terms.sol";
import {AgreeingWallet, BurningWallet, RefusingWallet} from "../mocks/Wallets.sol";
import {Ledgers} from "./Ledgers.sol";
import {Tree} from "./Tree.sol";

/// @title Settling heads: what it pays, and who vouched
contract SettleTest is Ledgers {
    function settlesFor(
        AuthorizationTerms memory terms,
        Head memory previous,
        Head memory head,
        uint128[3] memory amounts
    ) private {
        IAuthorizations.Settlement memory settlement = settlementOf(terms, previous, head);
        assertSettles(terms, settlement, stranger, amounts, [provider, consumer], IAuthorizations.Basis.CONSUMER);
    }

    function test_settling_pays_the_price_of_the_units() external {
        AuthorizationTerms memory terms = opened(termsOf(), 5_000_000);
        settled(terms, 120, 500);

        (uint256 reserved, uint256 paid) = reservationOf(terms);
        assertEq(reserved, 5_000_000, "reserved");
        assertEq(paid, priceOf(120, 500), "paid");
        assertEq(ledger.accruedOf(splitId, address(yuan)), paid, "accrued");
    }

    // ------------------------------------------------------------------------------------------ who vouched

    function test_a_head_that_both_signed_is_settled_by_anyone() external {
        settlesFor(openedOn(false, PRICE), noHead(), firstHead(0), amountsOf(false, PRICE));
        settlesFor(openedOn(true, 0), noHead(), firstHead(0), amountsOf(true, PRICE));
    }

    function settlesByProvider(bool invoiced, bytes memory signature) private {
        AuthorizationTerms memory terms = openedOn(invoiced, PRICE);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        settlement.providerSignature = signature;
        address[2] memory signers = [address(0), consumer];
        uint128[3] memory amounts = amountsOf(invoiced, PRICE);
        assertSettles(terms, settlement, provider, amounts, signers, IAuthorizations.Basis.CONSUMER);
    }

    function test_a_provider_that_calls_need_not_sign() external {
        settlesByProvider(false, "");
        settlesByProvider(true, "");
        settlesByProvider(false, "not looked at");
    }

    function agentTerms(bool invoiced, uint8 flags) private returns (AuthorizationTerms memory terms) {
        terms = invoiced ? invoicedTermsOf() : termsOf();
        terms.meteringAgent = agent;
        terms.flags |= flags;
        opened(terms, invoiced ? 0 : PRICE);
    }

    /// @dev `signed` by the consumer if there is a key.
    function ceilingOf(
        uint256 key,
        AuthorizationTerms memory terms
    ) private view returns (IAuthorizations.SignedCeiling[] memory) {
        UsageCeiling memory ceiling = UsageCeiling(0, [uint64(120), 500, 0, 0], 0, PRICE, NOW);
        return ceilingBy(key, terms, ceiling);
    }

    function settlesUnder(
        bool invoiced,
        uint8 flags,
        uint256 key,
        bool capped,
        address signer,
        IAuthorizations.Basis basis
    ) private {
        AuthorizationTerms memory terms = agentTerms(invoiced, flags);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        signedBy(PROVIDER, key, terms, settlement);
        if (capped) settlement.ceilings = ceilingOf(CONSUMER, terms);
        assertSettles(terms, settlement, stranger, amountsOf(invoiced, PRICE), [provider, signer], basis);
    }

    function test_a_metering_agent_vouches_for_the_consumer() external {
        settlesUnder(false, 0, AGENT, false, agent, IAuthorizations.Basis.AGENT);
        settlesUnder(true, 0, AGENT, false, agent, IAuthorizations.Basis.AGENT);
    }

    function test_a_ceiling_that_nobody_asks_for_changes_nothing() external {
        settlesUnder(false, 0, AGENT, true, agent, IAuthorizations.Basis.AGENT);
        settlesUnder(false, 0, CONSUMER, true, consumer, IAuthorizations.Basis.CONSUMER);
    }

    function test_a_capped_agent_vouches_under_the_consumers_ceiling() external {
        settlesUnder(false, Terms.AGENT_CAPPED, AGENT, true, agent, IAuthorizations.Basis.AGENT_CAPPED);
        settlesUnder(true, Terms.AGENT_CAPPED, AGENT, true, agent, IAuthorizations.Basis.AGENT_CAPPED);
    }

    function test_the_consumers_own_signature_needs_no_ceiling_where_the_agent_is_capped() external {
        settlesUnder(false, Terms.AGENT_CAPPED, CONSUMER, false, consumer, IAuthorizations.Basis.CONSUMER);
        settlesUnder(true, Terms.AGENT_CAPPED, CONSUMER, false, consumer, IAuthorizations.Basis.CONSUMER);
    }

    function test_a_ceiling_alone_vouches_for_a_head_the_consumer_never_saw() external {
        settlesUnder(false, 0, 0, true, consumer, IAuthorizations.Basis.CEILING);
        settlesUnder(true, 0, 0, true, consumer, IAuthorizations.Basis.CEILING);
        settlesUnder(false, Terms.AGENT_CAPPED, 0, true, consumer, IAuthorizations.Basis.CEILING);
    }

    function test_the_basis_is_that_of_the_last_head() external {
        AuthorizationTerms memory terms = agentTerms(false, 0);
        IAuthorizations.Settlement memory first = settlementOf(terms, noHead(), firstHead(0));
        ledger.settle(signedBy(PROVIDER, AGENT, terms, first));
        Head memory next = headAt(11, [uint64(120), 500, 0, 0], 0, NOW);
        settlesFor(terms, first.head, next, amountsOf(false, PRICE));
    }

    function test_contract_wallets_vouch_by_their_own_word() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        (settlement.providerSignature, settlement.consumerSignature) = (bytes("p"), bytes("c"));
        assertSettleRefused(terms, settlement, notSignedBy(provider));
        vm.etch(provider, type(RefusingWallet).runtimeCode);
        assertSettleRefused(terms, settlement, notSignedBy(provider));
        vm.etch(provider, type(AgreeingWallet).runtimeCode);
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
        vm.etch(consumer, type(RefusingWallet).runtimeCode);
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
        vm.etch(consumer, type(AgreeingWallet).runtimeCode);
        address[2] memory signers = [provider, consumer];
        uint128[3] memory amounts = amountsOf(false, PRICE);
        assertSettles(terms, settlement, stranger, amounts, signers, IAuthorizations.Basis.CONSUMER);
    }

    function test_a_contract_wallet_signs_a_ceiling_by_its_own_word() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        settlement.consumerSignature = "";
        settlement.ceilings = ceilingOf(STRANGER, terms);
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
        vm.etch(consumer, type(AgreeingWallet).runtimeCode);
        address[2] memory signers = [provider, consumer];
        uint128[3] memory amounts = amountsOf(false, PRICE);
        assertSettles(terms, settlement, stranger, amounts, signers, IAuthorizations.Basis.CEILING);
    }

    // ---------------------------------------------------------------------------------------------- signed

    /// @dev Refused with the provider's, then with the consumer's signature replaced by this.
    function refusesSignature(bool invoiced, bytes memory signature) private {
        AuthorizationTerms memory terms = openedOn(invoiced, PRICE);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        bytes memory own = settlement.providerSignature;
        settlement.providerSignature = signature;
        assertSettleRefused(terms, settlement, notSignedBy(provider));
        (settlement.providerSignature, settlement.consumerSignature) = (own, signature);
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
        assertEq(ledgerFor(terms).headDigestOf(idOf(terms)), 0, "nothing is settled");
    }

    function test_what_is_no_signature_vouches_for_nothing() external {
        refusesSignature(false, "");
        refusesSignature(true, "");
        refusesSignature(false, "junk");
        refusesSignature(false, new bytes(65));
    }

    function test_nobody_else_vouches_for_a_party() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        uint256[4] memory keys = [STRANGER, AGENT, OPERATOR, APPROVER];
        for (uint256 i = 0; i < 4; ++i) {
            assertSettleRefused(terms, signedBy(keys[i], CONSUMER, terms, settlement), notSignedBy(provider));
            assertSettleRefused(terms, signedBy(PROVIDER, keys[i], terms, settlement), notSignedBy(consumer));
        }
        assertSettleRefused(terms, signedBy(CONSUMER, CONSUMER, terms, settlement), notSignedBy(provider));
        assertSettleRefused(terms, signedBy(PROVIDER, PROVIDER, terms, settlement), notSignedBy(consumer));
        assertSettleRefused(terms, signedBy(CONSUMER, PROVIDER, terms, settlement), notSignedBy(provider));
    }

    function test_a_head_that_costs_nothing_is_signed_all_the_same() external {
        AuthorizationTerms memory terms = agentTerms(false, 0);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(PRICE));
        assertSettleRefused(terms, signedBy(STRANGER, CONSUMER, terms, settlement), notSignedBy(provider));
        assertSettleRefused(terms, signedBy(PROVIDER, STRANGER, terms, settlement), notSignedBy(consumer));
        assertSettleRefused(terms, signedBy(PROVIDER, 0, terms, settlement), notSignedBy(consumer));
        settlement.ceilings = ceilingOf(STRANGER, terms);
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
        settlesFor(terms, noHead(), firstHead(PRICE), [uint128(0), 0, 0]);
    }

    function test_a_metering_agent_vouches_only_for_the_consumer() external {
        AuthorizationTerms memory terms = agentTerms(false, 0);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        assertSettleRefused(terms, signedBy(AGENT, AGENT, terms, settlement), notSignedBy(provider));
        assertSettleRefused(terms, signedBy(PROVIDER, STRANGER, terms, settlement), notSignedBy(consumer));
        assertSettleRefused(terms, signedBy(PROVIDER, 0, terms, settlement), notSignedBy(consumer));
    }

    function test_a_consumer_that_calls_must_sign_all_the_same() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        settlement.consumerSignature = "";
        bytes memory data = abi.encodeCall(ledger.settle, (settlement));
        assertRefused(consumer, address(ledger), data, notSignedBy(consumer));
    }

    /// @dev Signed for `other`, shown for another.
    function refusesSignaturesFor(AuthorizationTerms memory terms, bytes32 digest) private {
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        bytes memory own = settlement.providerSignature;
        settlement.providerSignature = sign(PROVIDER, digest);
        assertSettleRefused(terms, settlement, notSignedBy(provider));
        settlement.providerSignature = own;
        settlement.consumerSignature = sign(CONSUMER, digest);
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
    }

    function test_a_signature_is_for_one_head_authorization_and_ledger() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE);
        AuthorizationTerms memory other = openedOn(false, PRICE);
        Head memory head = firstHead(0);
        for (uint256 word = 0; word < 8; ++word) refusesSignaturesFor(terms, digestOf(terms, altered(head, word)));
        refusesSignaturesFor(terms, digestOf(other, head));
        refusesSignaturesFor(terms, digests.head(address(invoices), idOf(terms), head));
    }

    function test_a_signature_is_for_one_chain() external {
        vm.chainId(1);
        AuthorizationTerms memory terms = termsOf();
        Head memory head = firstHead(0);
        opened(terms, PRICE);
        bytes32 id = idOf(terms);
        vm.chainId(2);
        bytes32 digest = digests.head(address(ledger), id, head);
        vm.chainId(1);
        refusesSignaturesFor(terms, digest);
        settlesFor(terms, noHead(), head, amountsOf(false, PRICE));
    }

    // ---------------------------------------------------------------------------------------------- amounts

    function pricesHead(uint64 calls, uint64 rows, uint128 due) private {
        Head memory head = headAt(10, [calls, rows, 0, 0], 0, NOW);
        settlesFor(openedOn(false, 1e9), noHead(), head, amountsOf(false, due));
        settlesFor(openedOn(true, 0), noHead(), head, amountsOf(true, due));
    }

    function test_free_units_and_tiers_are_priced_to_the_unit() external {
        pricesHead(0, 0, 0);
        pricesHead(10, 0, 0);
        pricesHead(11, 0, 10_000);
        pricesHead(110, 0, 1_000_000);
        pricesHead(111, 0, 1_006_000);
        pricesHead(0, 1, 2_800);
        pricesHead(112, 3, 1_020_400);
    }

    function test_the_price_of_units_can_be_asked() external view {
        uint256 expected = 0;
        for (uint64 calls = 1; calls < 130; ++calls) {
            if (calls > 10) expected += calls <= 110 ? 10_000 : 6_000;
            assertEq(ledger.priceOf(card, [calls, 0, 0, 0]), expected, "escrowed");
            assertEq(invoices.priceOf(card, [calls, 0, 0, 0]), expected, "invoiced");
        }
    }

    function test_there_is_no_price_of_units_beyond_64_bits() external {
        bytes memory data = abi.encodeCall(ledger.priceOf, (card, [uint64(1), 1, 0, 0]));
        for (uint256 m = 0; m < 2; ++m) {
            bytes memory dirty = bytes.concat(data);
            dirty[4 + 32 * (m + 1) + 23] = 0x01; // bit 64
            assertRefused(stranger, address(ledger), dirty, "");
        }
    }

    function test_each_meter_is_rounded_down_on_its_own() external {
        RateCard memory made = RateCard(address(yuan), 6, new Meter[](4));
        for (uint256 m = 0; m < 4; ++m) {
            made.meters[m] = Meter(3, uint64(m), new Tier[](1));
            made.meters[m].tiers[0] = Tier(type(uint64).max, 5);
        }
        bytes32 id = cards.registerRateCard(made);
        assertEq(ledger.priceOf(id, [uint64(1), 2, 3, 4]), 4, "one of each: 5/3");
        assertEq(ledger.priceOf(id, [uint64(2), 3, 4, 5]), 12, "two of each: 10/3");
        assertEq(ledger.priceOf(id, [uint64(3), 4, 5, 6]), 20, "three of each");
        assertEq(ledger.priceOf(id, [uint64(3), 1, 2, 3]), 5, "the first");
        assertEq(ledger.priceOf(id, [uint64(0), 0, 0, 6]), 5, "the last");
    }

    function test_the_largest_units_at_the_largest_price_are_priced_without_overflow() external {
        RateCard memory made = RateCard(address(yuan), 6, new Meter[](4));
        for (uint256 m = 0; m < 4; ++m) {
            made.meters[m] = Meter(1, 0, new Tier[](8));
            for (uint256 t = 0; t < 8; ++t) {
                made.meters[m].tiers[t] = Tier(t == 7 ? type(uint64).max : uint64(t + 1), type(uint128).max);
            }
        }
        bytes32 id = cards.registerRateCard(made);
        uint64 most = type(uint64).max;
        assertEq(ledger.priceOf(id, [most, most, most, most]), 4 * uint256(most) * type(uint128).max, "price");
    }

    function test_there_is_no_price_under_what_is_no_rate_card() external {
        bytes memory refusal = abi.encodeWithSelector(IAdmission.TermsInvalid.selector, "rateCard");
        uint64[4] memory units = [uint64(1), 0, 0, 0];
        assertRefused(stranger, address(ledger), abi.encodeCall(ledger.priceOf, (splitId, units)), refusal);
        assertRefused(stranger, address(ledger), abi.encodeCall(ledger.priceOf, (bytes32("none"), units)), refusal);
    }

    function test_a_later_head_pays_what_is_new() external {
        AuthorizationTerms memory terms = openedOn(false, 10_000_000);
        settled(terms, 120, 500);
        Head memory next = headAt(12, [uint64(121), 501, 0, 0], 0, NOW);
        settlesFor(terms, firstHead(0), next, amountsOf(false, PRICE + 6_000 + 2_800));
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE + 8_800, "accrued");
    }

    function test_a_head_that_adds_nothing_but_leaves_pays_nothing_more() external {
        AuthorizationTerms memory terms = openedOn(false, 10_000_000);
        settled(terms, 120, 500);
        Head memory next = headAt(11, [uint64(120), 500, 0, 0], 0, NOW);
        settlesFor(terms, firstHead(0), next, amountsOf(false, PRICE));
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function test_a_split_accrues_what_all_authorizations_pay() external {
        AuthorizationTerms memory first = openedOn(false, PRICE);
        AuthorizationTerms memory second = openedOn(false, PRICE + 5);
        bytes32 otherSplit = cards.registerSplit(sharesOf(provider, 9_998, operator, 1, agent, 1));
        AuthorizationTerms memory third = termsOf();
        third.split = otherSplit;
        opened(third, PRICE);
        uint256 held = yuan.balanceOf(address(ledger));
        settle(first, noHead(), firstHead(0));
        settle(second, noHead(), firstHead(7));
        settle(third, noHead(), firstHead(9));
        assertEq(ledger.accruedOf(splitId, address(yuan)), 2 * PRICE - 7, "accrued");
        assertEq(ledger.accruedOf(otherSplit, address(yuan)), PRICE - 9, "the other split");
        assertEq(ledger.accruedOf(splitId, address(this)), 0, "another token");
        assertEq(yuan.balanceOf(address(ledger)), held, "no token moves");
        assertEq(ledger.freeOf(consumer, address(yuan)), 0, "nothing comes free");
    }

    function test_an_escrowed_settlement_leaves_the_reservation_as_it_is() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE + 5);
        settled(terms, 120, 500);
        (uint256 reserved, ) = reservationOf(terms);
        assertEq(reserved, PRICE + 5, "reserved");
    }

    // ---------------------------------------------------------------------------------------------- credits

    function creditsHead(bool invoiced, uint128 credits, uint128 due) private {
        settlesFor(openedOn(invoiced, PRICE), noHead(), firstHead(credits), amountsOf(invoiced, due));
    }

    function test_credits_are_taken_off_the_price() external {
        creditsHead(false, 1, PRICE - 1);
        creditsHead(true, 1, PRICE - 1);
        creditsHead(false, PRICE - 1, 1);
        creditsHead(true, PRICE - 1, 1);
    }

    function test_credits_beyond_the_price_leave_nothing_due() external {
        creditsHead(false, PRICE, 0);
        creditsHead(true, PRICE, 0);
        creditsHead(false, PRICE + 1, 0);
        creditsHead(true, PRICE + 1, 0);
        creditsHead(false, type(uint128).max, 0);
        creditsHead(true, type(uint128).max, 0);
    }

    function test_what_is_paid_never_falls_when_credits_come_later() external {
        AuthorizationTerms memory terms = openedOn(false, 10_000_000);
        settled(terms, 120, 500);
        Head memory second = headAt(11, [uint64(120), 500, 0, 0], 100_000, NOW);
        settlesFor(terms, firstHead(0), second, [PRICE - 100_000, PRICE, 0]);
        Head memory third = headAt(12, [uint64(120), 535, 0, 0], 100_000, NOW); // 98,000 more
        settlesFor(terms, second, third, [PRICE - 2_000, PRICE, 0]);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "nothing more has accrued");
        Head memory fourth = headAt(13, [uint64(121), 535, 0, 0], 100_000, NOW); // 6,000 more
        settlesFor(terms, third, fourth, [PRICE + 4_000, PRICE + 4_000, 0]);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE + 4_000, "only what is more than was paid");
    }

    function test_what_is_due_by_invoice_falls_when_credits_come_later() external {
        AuthorizationTerms memory terms = openedOn(true, 0);
        settled(terms, 120, 500);
        Head memory second = headAt(11, [uint64(120), 500, 0, 0], 100_000, NOW);
        settlesFor(terms, firstHead(0), second, amountsOf(true, PRICE - 100_000));
    }

    // ---------------------------------------------------------------------------------------------- arrears

    function test_what_the_reservation_cannot_pay_is_in_arrears() external {
        settlesFor(openedOn(false, PRICE - 1), noHead(), firstHead(0), [PRICE, PRICE - 1, 1]);
        settlesFor(openedOn(false, PRICE), noHead(), firstHead(0), [PRICE, PRICE, 0]);
        settlesFor(openedOn(false, PRICE + 1), noHead(), firstHead(0), [PRICE, PRICE, 0]);
        settlesFor(openedOn(false, 0), noHead(), firstHead(0), [PRICE, 0, PRICE]);
        assertEq(ledger.accruedOf(splitId, address(yuan)), 3 * PRICE - 1, "no more accrues than is paid");
    }

    function test_arrears_grow_and_are_credited() external {
        AuthorizationTerms memory terms = openedOn(false, PRICE - 10);
        settled(terms, 120, 500);
        Head memory second = headAt(11, [uint64(121), 500, 0, 0], 0, NOW);
        settlesFor(terms, firstHead(0), second, [PRICE + 6_000, PRICE - 10, 6_010]);
        Head memory third = headAt(12, [uint64(121), 500, 0, 0], 6_009, NOW);
        settlesFor(terms, second, third, [PRICE - 9, PRICE - 10, 1]);
        Head memory fourth = headAt(13, [uint64(121), 500, 0, 0], 6_011, NOW);
        settlesFor(terms, third, fourth, [PRICE - 11, PRICE - 10, 0]);
    }

    function paidByInvoice(uint128 amount, uint128 arrears) private {
        AuthorizationTerms memory terms = openedOn(true, 0);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        vm.prank(provider);
        invoices.recordPayment(settlement.terms, "payment", amount);
        settlesFor(terms, noHead(), firstHead(0), [PRICE, amount, arrears]);
    }

    function test_an_invoices_arrears_are_what_no_recorded_payment_covers() external {
        paidByInvoice(1, PRICE - 1);
        paidByInvoice(PRICE - 1, 1);
        paidByInvoice(PRICE, 0);
        paidByInvoice(PRICE + 1, 0);
    }

    // ----------------------------------------------------------------------------------------- too much due

    function hugeTerms(bool invoiced) private returns (AuthorizationTerms memory terms) {
        terms = invoiced ? invoicedTermsOf() : termsOf();
        terms.rateCard = cardAt(1, 1 << 95, terms.token);
        terms.maxUnits = [type(uint64).max, 0, 0, 0];
        opened(terms, invoiced ? 0 : type(uint96).max);
    }

    function dueUpTo96Bits(bool invoiced) private {
        AuthorizationTerms memory terms = hugeTerms(invoiced);
        Head memory head = headAt(10, [uint64(2), 0, 0, 0], 0, NOW);
        assertSettleRefused(terms, settlementOf(terms, noHead(), head), tooLarge(1 << 96));
        head.units[0] = type(uint64).max;
        uint256 price = uint256(type(uint64).max) << 95;
        assertSettleRefused(terms, settlementOf(terms, noHead(), head), tooLarge(price));
        head = headAt(10, [uint64(2), 0, 0, 0], 1, NOW);
        settlesFor(terms, noHead(), head, amountsOf(invoiced, uint128(MOST)));
    }

    function test_no_more_is_due_than_fits_into_96_bits() external {
        dueUpTo96Bits(false);
        dueUpTo96Bits(true);
    }

    // ---------------------------------------------------------------------------------------------- cadence

    /// @dev Four heads that grow by the bits of `growth`, with credits as `earned` says.
    function randomHeads(uint128 growth, uint64 earned) private pure returns (Head[] memory heads) {
        heads = new Head[](4);
        uint64[4] memory units;
        uint128 credits = 0;
        for (uint64 i = 0; i < 4; ++i) {
            units[0] += uint8(growth >> (16 * i));
            units[1] += uint8(growth >> (16 * i + 8));
            credits += uint128(uint16(earned >> (16 * i))) * 10;
            heads[i] = headAt(i + 1, [units[0], units[1], 0, 0], credits, NOW);
        }
    }

    /// @dev Settles the heads that `cuts` names and the last, and returns the most that was due.
    function settlesCuts(AuthorizationTerms memory terms, Head[] memory heads, uint8 cuts) private returns (uint256) {
        Head memory previous;
        uint256 most = 0;
        for (uint256 i = 0; i < 4; ++i) {
            if (i < 3 && (cuts >> i) & 1 == 0) continue;
            settle(terms, previous, heads[i]);
            previous = heads[i];
            uint256 price = priceOf(previous.units[0], previous.units[1]);
            uint256 due = price > previous.credits ? price - previous.credits : 0;
            if (due > most) most = due;
        }
        return most;
    }

    function testFuzz_how_often_is_settled_never_matters(uint128 growth, uint24 reserve, uint8 cuts) external {
        Head[] memory heads = randomHeads(growth, 0);
        AuthorizationTerms memory once = openedOn(false, reserve);
        AuthorizationTerms memory often = openedOn(false, reserve);
        settlesCuts(once, heads, 0);
        settlesCuts(often, heads, cuts);
        (, uint256 paidOnce) = reservationOf(once);
        (, uint256 paidOften) = reservationOf(often);
        uint256 price = priceOf(heads[3].units[0], heads[3].units[1]);
        assertEq(paidOnce, price < reserve ? price : reserve, "paid");
        assertEq(paidOften, paidOnce, "the same");
        assertEq(ledger.accruedOf(splitId, address(yuan)), 2 * paidOnce, "accrued");
    }

    function testFuzz_paid_is_the_most_that_was_due_and_at_most_reserved(
        uint128 growth,
        uint64 earned,
        uint24 reserve,
        uint8 cuts
    ) external {
        AuthorizationTerms memory terms = openedOn(false, reserve);
        uint256 most = settlesCuts(terms, randomHeads(growth, earned), cuts);
        (uint256 reserved, uint256 paid) = reservationOf(terms);
        assertEq(reserved, reserve, "reserved");
        assertEq(paid, most < reserve ? most : reserve, "paid");
        assertEq(ledger.accruedOf(splitId, address(yuan)), paid, "accrued");
    }
}

/// @title Which heads are refused, and in which order the reasons are found
contract HeadsTest is Ledgers {
    AuthorizationTerms private terms;
    bytes32 private id;

    function has(AuthorizationTerms memory made) private {
        terms = made;
        id = idOf(made);
    }

    function refusesHead(Head memory previous, Head memory head, bytes memory problem) private {
        assertSettleRefused(terms, settlementOf(terms, previous, head), problem);
    }

    function settlesHead(Head memory previous, Head memory head) private {
        settle(terms, previous, head);
        assertEq(ledgerFor(terms).headDigestOf(id), digestOf(terms, head), "settled");
    }

    /// @dev Of a log of 11 leaves and as much as firstHead().
    function nextHead() private pure returns (Head memory) {
        return headAt(11, [uint64(120), 500, 0, 0], 0, NOW);
    }

    // ----------------------------------------------------------------------------------------------- status

    function test_what_was_never_opened_has_no_heads() external {
        has(termsOf());
        refusesHead(noHead(), firstHead(0), notInState(id, IAuthorizations.Status.NONE));
        has(invoicedTermsOf());
        refusesHead(noHead(), firstHead(0), notInState(id, IAuthorizations.Status.NONE));
    }

    function test_what_was_cancelled_has_no_heads() external {
        has(termsOf());
        cancelledBy(consumer, terms);
        refusesHead(noHead(), firstHead(0), notInState(id, IAuthorizations.Status.CANCELLED));
    }

    function test_what_is_closed_settles_no_more() external {
        has(openedOn(false, PRICE));
        AuthorizationTerms memory invoiced = openedOn(true, 0);
        finalized(terms);
        refusesHead(noHead(), firstHead(0), notInState(id, IAuthorizations.Status.CLOSED));
        has(invoiced);
        refusesHead(noHead(), firstHead(0), windowOver(id, WINDOW_END, WINDOW_END + 1));
        finalized(terms);
        refusesHead(noHead(), firstHead(0), notInState(id, IAuthorizations.Status.CLOSED));
    }

    function test_any_altered_term_names_another_authorization() external {
        has(openedOn(false, PRICE));
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        bytes memory data = abi.encodeCall(ledger.settle, (settlement));
        for (uint256 word = 1; word < 18; ++word) refusesUnknown(dirtied(data, word, 0));
        settlesHead(noHead(), firstHead(0));
    }

    // ---------------------------------------------------------------------------------------- what was before

    function test_the_first_head_has_none_before_it() external {
        has(openedOn(false, PRICE));
        refusesHead(firstHead(0), nextHead(), moved(id, 0));
        for (uint256 word = 0; word < 8; ++word) refusesHead(altered(noHead(), word), firstHead(0), moved(id, 0));
        settlesHead(noHead(), firstHead(0));
    }

    function test_the_settled_head_is_shown_to_the_last_bit() external {
        has(openedOn(false, PRICE));
        settlesHead(noHead(), firstHead(0));
        bytes memory problem = moved(id, digestOf(terms, firstHead(0)));
        for (uint256 word = 0; word < 8; ++word) refusesHead(altered(firstHead(0), word), nextHead(), problem);
        refusesHead(noHead(), nextHead(), problem);
        refusesHead(nextHead(), headAt(12, [uint64(120), 500, 0, 0], 0, NOW), problem);
        settlesHead(firstHead(0), nextHead());
    }

    function test_a_head_that_somebody_settled_in_between_is_named() external {
        has(openedOn(true, 0));
        Head memory third = headAt(12, [uint64(120), 500, 0, 0], 0, NOW);
        settlesHead(noHead(), firstHead(0));
        settlesHead(firstHead(0), nextHead());
        refusesHead(firstHead(0), third, moved(id, digestOf(terms, nextHead())));
        settlesHead(nextHead(), third);
    }

    function test_a_settlement_cannot_be_replayed() external {
        has(openedOn(false, PRICE));
        settlesHead(noHead(), firstHead(0));
        refusesHead(noHead(), firstHead(0), moved(id, digestOf(terms, firstHead(0))));
        refusesHead(firstHead(0), firstHead(0), stale(id, 10, 10));
    }

    // ------------------------------------------------------------------------------------------------- window

    function test_a_head_settles_until_the_last_second_of_the_window() external {
        has(openedOn(false, PRICE));
        vm.warp(WINDOW_END + 1);
        refusesHead(noHead(), firstHead(0), windowOver(id, WINDOW_END, WINDOW_END + 1));
        vm.warp(WINDOW_END);
        assertEq(statusOf(terms), IAuthorizations.Status.ENDED, "ended");
        settlesHead(noHead(), firstHead(0));
        assertEq(statusOf(terms), IAuthorizations.Status.ENDED, "ended still");
    }

    function test_the_window_counts_from_an_earlier_end_and_is_as_long_as_agreed() external {
        AuthorizationTerms memory made = termsOf();
        made.thawSeconds = uint32(3 * DAY + 7);
        has(opened(made, PRICE));
        vm.warp(START + 100);
        closedBy(consumer, terms);
        vm.warp(START + 3 * DAY + 108);
        refusesHead(noHead(), firstHead(0), windowOver(id, START + 3 * DAY + 107, START + 3 * DAY + 108));
        vm.warp(START + 3 * DAY + 107);
        settlesHead(noHead(), firstHead(0));
    }

    // --------------------------------------------------------------------------------------------------- size

    function test_a_head_has_more_leaves_than_the_one_before() external {
        has(openedOn(false, 10_000_000));
        refusesHead(noHead(), noHead(), stale(id, 0, 0));
        settlesHead(noHead(), firstHead(0));
        refusesHead(firstHead(0), headAt(9, [uint64(121), 500, 0, 0], 0, NOW), stale(id, 10, 9));
        refusesHead(firstHead(0), headAt(10, [uint64(121), 500, 0, 0], 0, NOW), stale(id, 10, 10));
        settlesHead(firstHead(0), headAt(11, [uint64(121), 500, 0, 0], 0, NOW));
    }

    function test_a_first_head_may_have_one_leaf() external {
        has(openedOn(false, 0));
        settlesHead(noHead(), headAt(1, [uint64(0), 0, 0, 0], 0, 0));
    }

    // ------------------------------------------------------------------------------------------- never lower

    function test_credits_never_fall() external {
        has(openedOn(false, PRICE));
        settlesHead(noHead(), firstHead(5));
        refusesHead(firstHead(5), headAt(11, [uint64(120), 500, 0, 0], 4, NOW), lower(id));
        settlesHead(firstHead(5), headAt(11, [uint64(120), 500, 0, 0], 5, NOW));
    }

    function test_the_time_of_heads_never_goes_back() external {
        has(openedOn(false, PRICE));
        settlesHead(noHead(), firstHead(0));
        refusesHead(firstHead(0), headAt(11, [uint64(120), 500, 0, 0], 0, NOW - 1), lower(id));
        settlesHead(firstHead(0), nextHead());
    }

    function test_no_meter_ever_falls() external {
        has(fourMeterTerms());
        Head memory first = headAt(10, [uint64(4), 5, 6, 7], 0, NOW);
        settlesHead(noHead(), first);
        for (uint256 m = 0; m < 4; ++m) {
            Head memory next = headAt(11, [uint64(8), 8, 8, 8], 0, NOW);
            next.units[m] = first.units[m] - 1;
            refusesHead(first, next, lower(id));
            next = headAt(11, [uint64(4), 5, 6, 7], 0, NOW);
            next.units[m] = first.units[m] - 1;
            refusesHead(first, next, lower(id));
        }
        settlesHead(first, headAt(11, [uint64(4), 5, 6, 7], 0, NOW));
    }

    function test_four_meters_are_priced_each_by_its_own() external {
        has(fourMeterTerms());
        settlesHead(noHead(), headAt(10, [uint64(4), 3, 2, 1], 0, NOW));
        (, uint256 paid) = reservationOf(terms);
        assertEq(paid, 1_002_003_004, "paid");
    }

    // --------------------------------------------------------------------------------------------------- time

    function test_a_head_is_not_of_the_future() external {
        has(openedOn(false, PRICE));
        bytes memory problem = abi.encodeWithSelector(IAuthorizations.HeadInFuture.selector, id, NOW + 1, START);
        refusesHead(noHead(), headAt(10, [uint64(120), 500, 0, 0], 0, NOW + 1), problem);
        settlesHead(noHead(), firstHead(0));
    }

    /// @dev Closed by the consumer 100 seconds after START; the meter alone rises.
    function risesAfterTheEnd(uint256 meter) private {
        uint40 end = NOW + 100;
        uint40 late = uint40(end + SKEW + 1);
        Head memory first = headAt(10, [uint64(4), 4, 4, 4], 0, NOW);
        has(fourMeterTerms());
        vm.warp(end);
        closedBy(consumer, terms);
        settlesHead(noHead(), first);
        vm.warp(late);
        Head memory next = headAt(11, [uint64(4), 4, 4, 4], 0, late);
        next.units[meter] = 5;
        refusesHead(first, next, afterEnd(id, late, end));
        next.asOf = late - 1;
        settlesHead(first, next);
        settlesHead(next, headAt(12, next.units, 0, late));
        vm.warp(START);
    }

    function test_units_rise_until_fifteen_minutes_after_the_end() external {
        for (uint256 m = 0; m < 4; ++m) risesAfterTheEnd(m);
    }

    function test_a_first_head_of_after_the_end_is_refused_if_it_has_units() external {
        has(openedOn(true, 0));
        uint40 late = uint40(END + SKEW + 1);
        vm.warp(late);
        refusesHead(noHead(), headAt(10, [uint64(1), 0, 0, 0], 0, late), afterEnd(id, late, END));
        settlesHead(noHead(), headAt(10, [uint64(1), 0, 0, 0], 0, late - 1));
    }

    function test_credits_and_refusals_may_come_until_the_window_ends() external {
        has(openedOn(false, PRICE));
        settlesHead(noHead(), firstHead(0));
        vm.warp(WINDOW_END);
        Head memory credited = headAt(11, [uint64(120), 500, 0, 0], 5, WINDOW_END - 1);
        settlesHead(firstHead(0), credited);
        settlesHead(credited, headAt(12, [uint64(120), 500, 0, 0], 5, WINDOW_END));
    }

    // -------------------------------------------------------------------------------------------------- quota

    function overQuota(uint256 meter, uint64 units, uint64 quota) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadOverQuota.selector, id, meter, units, quota);
    }

    function test_no_meter_goes_over_its_quota() external {
        has(fourMeterTerms());
        for (uint256 m = 0; m < 4; ++m) {
            Head memory head = headAt(10, [uint64(9), 9, 9, 9], 0, NOW);
            head.units[m] = 10;
            refusesHead(noHead(), head, overQuota(m, 10, 9));
            head = headAt(10, [uint64(0), 0, 0, 0], 0, NOW);
            head.units[m] = type(uint64).max;
            refusesHead(noHead(), head, overQuota(m, type(uint64).max, 9));
        }
        refusesHead(noHead(), headAt(10, [uint64(9), 11, 12, 13], 0, NOW), overQuota(1, 11, 9));
        refusesHead(noHead(), headAt(10, [uint64(9), 9, 12, 13], 0, NOW), overQuota(2, 12, 9));
        settlesHead(noHead(), headAt(10, [uint64(9), 9, 9, 9], 0, NOW));
    }

    function test_a_meter_that_the_card_lacks_has_no_units() external {
        has(openedOn(true, 0));
        refusesHead(noHead(), headAt(10, [uint64(120), 500, 1, 0], 0, NOW), overQuota(2, 1, 0));
        refusesHead(noHead(), headAt(10, [uint64(120), 500, 0, 1], 0, NOW), overQuota(3, 1, 0));
        settlesHead(noHead(), firstHead(0));
    }

    // -------------------------------------------------------------------------------------------- consistency

    function refusesProof(Head memory previous, Head memory head, bytes32[] memory proof) private {
        IAuthorizations.Settlement memory settlement = settlementOf(terms, previous, head);
        settlement.consistency = proof;
        assertSettleRefused(terms, settlement, inconsistent(id, previous.size, head.size));
    }

    function test_a_head_extends_the_log_of_the_one_before() external {
        has(openedOn(false, 10_000_000));
        settlesHead(noHead(), firstHead(0));
        Head memory next = nextHead();
        bytes32[] memory proof = Tree.consistency(logOf(11), 10, 11);
        refusesProof(firstHead(0), next, new bytes32[](0));
        refusesProof(firstHead(0), next, Tree.consistency(logOf(12), 10, 12));
        refusesProof(firstHead(0), next, Tree.consistency(logOf(11), 9, 11));
        for (uint256 i = 0; i < proof.length; ++i) {
            proof[i] = bytes32(uint256(proof[i]) ^ 1);
            refusesProof(firstHead(0), next, proof);
            proof[i] = bytes32(uint256(proof[i]) ^ 1);
        }
        settlesHead(firstHead(0), next);
    }

    function forkedHead() private pure returns (Head memory forked, bytes32[] memory proof) {
        bytes32[] memory leaves = logOf(11);
        leaves[3] = "another";
        forked = nextHead();
        forked.root = Tree.root(leaves, 11);
        proof = Tree.consistency(leaves, 10, 11);
    }

    function test_a_forked_log_is_refused_even_where_both_signed() external {
        has(openedOn(true, 0));
        settlesHead(noHead(), firstHead(0));
        (Head memory forked, bytes32[] memory proof) = forkedHead();
        refusesProof(firstHead(0), forked, proof);
        refusesHead(firstHead(0), forked, inconsistent(id, 10, 11));
    }

    function test_a_first_head_extends_nothing_and_takes_no_proof() external {
        has(openedOn(false, PRICE));
        refusesProof(noHead(), firstHead(0), new bytes32[](1));
        settlesHead(noHead(), firstHead(0));
    }

    function test_a_log_grows_by_any_number_of_leaves() external {
        has(openedOn(false, 0));
        uint64[12] memory sizes = [uint64(1), 2, 3, 4, 5, 6, 8, 9, 15, 16, 17, 33];
        Head memory previous;
        for (uint256 i = 0; i < sizes.length; ++i) {
            Head memory next = headAt(sizes[i], [uint64(0), 0, 0, 0], 0, NOW);
            settlesHead(previous, next);
            previous = next;
        }
    }

    function test_no_proof_is_asked_under_fast_terms() external {
        AuthorizationTerms memory made = termsOf();
        made.flags = Terms.FAST;
        has(opened(made, PRICE));
        settlesHead(noHead(), firstHead(0));
        (Head memory forked, ) = forkedHead();
        IAuthorizations.Settlement memory settlement = settlementOf(terms, firstHead(0), forked);
        settlement.consistency = new bytes32[](0);
        ledger.settle(settlement);
        assertEq(ledger.headDigestOf(id), digestOf(terms, forked), "settled");
    }

    function test_fast_terms_are_lax_about_nothing_else() external {
        AuthorizationTerms memory made = termsOf();
        made.flags = Terms.FAST;
        has(opened(made, PRICE));
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        assertSettleRefused(terms, signedBy(PROVIDER, STRANGER, terms, settlement), notSignedBy(consumer));
        settlesHead(noHead(), firstHead(0));
        refusesHead(noHead(), nextHead(), moved(id, digestOf(terms, firstHead(0))));
    }

    // -------------------------------------------------------------------------------------------------- order

    /// @dev Every reason is found before the next: what is wrong is put right one by one.
    function test_the_first_thing_wrong_is_what_is_told() external {
        AuthorizationTerms memory made = termsOf();
        RateCard memory two = RateCard(address(yuan), 6, new Meter[](2));
        two.meters[0] = Meter(1, 0, new Tier[](1));
        two.meters[0].tiers[0] = Tier(type(uint64).max, 1);
        two.meters[1] = Meter(1, 0, new Tier[](1));
        two.meters[1].tiers[0] = Tier(type(uint64).max, 1 << 95);
        made.rateCard = cards.registerRateCard(two);
        made.maxUnits = [uint64(9), 3, 0, 0];
        has(made);
        Head memory first = headAt(10, [uint64(5), 0, 0, 0], 5, NOW);
        Head memory head = headAt(10, [uint64(4), 4, 0, 0], 4, WINDOW_END + 2);
        vm.warp(WINDOW_END + 1);
        refusesWrong(nextHead(), head, notInState(id, IAuthorizations.Status.NONE));
        vm.warp(START);
        opened(made, PRICE);
        settlesHead(noHead(), first);
        vm.warp(WINDOW_END + 1);
        refusesWrong(nextHead(), head, moved(id, digestOf(terms, first)));
        refusesWrong(first, head, windowOver(id, WINDOW_END, WINDOW_END + 1));
        vm.warp(WINDOW_END);
        refusesWrong(first, head, stale(id, 10, 10));
        findsTheRest(first, head);
    }

    function findsTheRest(Head memory first, Head memory head) private {
        head.size = 11; // and still the root of 10
        refusesWrong(first, head, lower(id));
        head.credits = 5;
        bytes memory problem = abi.encodeWithSelector(
            IAuthorizations.HeadInFuture.selector,
            id,
            WINDOW_END + 2,
            WINDOW_END
        );
        refusesWrong(first, head, problem);
        head.asOf = WINDOW_END;
        refusesWrong(first, head, lower(id));
        head.units[0] = 5;
        refusesWrong(first, head, overQuota(1, 4, 3));
        head.units[1] = 3;
        refusesWrong(first, head, afterEnd(id, WINDOW_END, END));
        head.asOf = END;
        refusesWrong(first, head, tooLarge(3 << 95));
        head.units[1] = 1;
        refusesWrong(first, head, notSignedBy(provider));
        IAuthorizations.Settlement memory settlement = settlementOf(terms, first, head);
        assertSettleRefused(terms, signedBy(PROVIDER, STRANGER, terms, settlement), notSignedBy(consumer));
        assertSettleRefused(terms, signedBy(PROVIDER, CONSUMER, terms, settlement), inconsistent(id, 10, 11));
        head.root = nextHead().root;
        settlesHead(first, head);
    }

    /// @dev Signed by nobody who may.
    function refusesWrong(Head memory previous, Head memory head, bytes memory problem) private {
        IAuthorizations.Settlement memory settlement = settlementOf(terms, previous, head);
        assertSettleRefused(terms, signedBy(STRANGER, STRANGER, terms, settlement), problem);
    }

    // --------------------------------------------------------------------------------------------- dirty bits

    /// @dev The call data with one bit flipped in the n-th word after the selector.
    function dirtied(bytes memory data, uint256 word, uint256 bit) private pure returns (bytes memory copy) {
        copy = bytes.concat(data);
        assembly ("memory-safe") {
            let at := add(add(copy, 0x24), shl(5, word))
            mstore(at, xor(mload(at), shl(bit, 1)))
        }
    }

    /// @dev The digest of the head with the bit flipped, as a wallet would sign it.
    function dirtyDigest(Head memory head, uint256 word, uint256 bit) private returns (bytes32) {
        bytes memory question = abi.encodeCall(digests.head, (address(ledger), id, head));
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory answer) = address(digests).call(dirtied(question, 2 + word, bit));
        assertTrue(done, "a digest");
        return abi.decode(answer, (bytes32));
    }

    /// @dev Both have signed the very bits; the settlement's head begins at word 26.
    function refusesDirtyHead(uint256 word, uint256 bit) private {
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        bytes32 digest = dirtyDigest(settlement.head, word, bit);
        settlement.providerSignature = sign(PROVIDER, digest);
        settlement.consumerSignature = sign(CONSUMER, digest);
        bytes memory data = dirtied(abi.encodeCall(ledger.settle, (settlement)), 26 + word, bit);
        assertRefused(stranger, address(ledger), data, "");
        assertRefused(provider, address(ledger), data, "");
    }

    function test_bits_beyond_the_width_of_a_heads_words_are_refused() external {
        has(openedOn(false, PRICE));
        for (uint256 word = 0; word < 5; ++word) {
            refusesDirtyHead(word, 64);
            refusesDirtyHead(word, 255);
        }
        refusesDirtyHead(5, 128);
        refusesDirtyHead(5, 255);
        refusesDirtyHead(6, 40);
        refusesDirtyHead(6, 255);
        settlesHead(noHead(), firstHead(0));
    }

    function test_bits_beyond_the_width_of_the_empty_heads_words_are_refused() external {
        has(openedOn(false, PRICE));
        bytes memory data = abi.encodeCall(ledger.settle, (settlementOf(terms, noHead(), firstHead(0))));
        for (uint256 word = 18; word < 25; ++word) {
            assertRefused(stranger, address(ledger), dirtied(data, word, 255), "");
        }
        assertRefused(stranger, address(ledger), dirtied(data, 25, 255), moved(id, 0)); // the root is full
        settlesHead(noHead(), firstHead(0));
    }

    function test_bits_beyond_the_width_of_the_settled_heads_words_make_it_another() external {
        has(openedOn(false, PRICE));
        settlesHead(noHead(), firstHead(0));
        bytes memory data = abi.encodeCall(ledger.settle, (settlementOf(terms, firstHead(0), nextHead())));
        bytes memory problem = moved(id, digestOf(terms, firstHead(0)));
        for (uint256 word = 19; word < 26; ++word) {
            assertRefused(stranger, address(ledger), dirtied(data, word, 255), problem);
        }
        assertRefused(stranger, address(ledger), dirtied(data, 18, 255), ""); // the size
        settlesHead(firstHead(0), nextHead());
    }

    function test_bits_beyond_the_width_of_a_terms_words_make_them_others() external {
        has(openedOn(false, PRICE));
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), firstHead(0));
        bytes memory data = abi.encodeCall(ledger.settle, (settlement));
        for (uint256 word = 1; word < 18; ++word) refusesUnknown(dirtied(data, word, 255));
        settlesHead(noHead(), firstHead(0));
    }

    function refusesUnknown(bytes memory data) private {
        vm.prank(stranger);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory found) = address(ledger).call(data);
        assertTrue(!done && bytes4(found) == IAuthorizations.AuthorizationStatus.selector, "unknown");
    }
}

/// @title The consumer's ceilings
contract CeilingsTest is Ledgers {
    AuthorizationTerms private terms;
    bytes32 private id;

    /// @dev Four meters, nine units of each at most in the ceiling: 9,009,009,009.
    function ceiling() private pure returns (UsageCeiling memory) {
        return UsageCeiling(0, [uint64(9), 9, 9, 9], 4, 9_009_009_005, NOW + 100);
    }

    /// @dev Exactly at every bound.
    function boundHead() private pure returns (Head memory) {
        return headAt(10, [uint64(9), 9, 9, 9], 4, NOW);
    }

    function has(uint8 flags) private {
        terms = termsOf();
        terms.rateCard = fourMeters(terms.token);
        terms.maxUnits = [uint64(99), 99, 99, 99];
        terms.flags = flags;
        terms.meteringAgent = agent;
        opened(terms, 20_000_000_000);
        id = idOf(terms);
    }

    function exceeded(uint256 due) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.CeilingExceeded.selector, id, due);
    }

    function under(
        uint256 key,
        UsageCeiling memory bounds,
        uint256 headKey,
        Head memory head
    ) private view returns (IAuthorizations.Settlement memory settlement) {
        settlement = signedBy(PROVIDER, headKey, terms, settlementOf(terms, noHead(), head));
        settlement.ceilings = ceilingBy(key, terms, bounds);
    }

    /// @dev Alone, and beside the capped agent.
    function refusesUnder(UsageCeiling memory bounds, Head memory head, bytes memory problem) private {
        assertSettleRefused(terms, under(CONSUMER, bounds, 0, head), problem);
        assertSettleRefused(terms, under(CONSUMER, bounds, AGENT, head), problem);
    }

    function settlesUnder(IAuthorizations.Settlement memory settlement) private {
        ledger.settle(settlement);
        assertEq(ledger.headDigestOf(id), digestOf(terms, settlement.head), "settled");
    }

    function test_a_ceiling_covers_a_head_at_all_its_bounds() external {
        has(Terms.AGENT_CAPPED);
        vm.warp(NOW + 100);
        settlesUnder(under(CONSUMER, ceiling(), 0, boundHead()));
        (, uint256 paid) = reservationOf(terms);
        assertEq(paid, 9_009_009_005, "paid");
        has(Terms.AGENT_CAPPED);
        settlesUnder(under(CONSUMER, ceiling(), AGENT, boundHead()));
    }

    function test_a_ceiling_bounds_every_meter() external {
        has(Terms.AGENT_CAPPED);
        UsageCeiling memory bounds = ceiling();
        bounds.maxDue = type(uint128).max;
        for (uint256 m = 0; m < 4; ++m) {
            Head memory head = boundHead();
            head.units[m] = 10;
            refusesUnder(bounds, head, exceeded(9_009_009_005 + 1000 ** m));
            head = headAt(10, [uint64(0), 0, 0, 0], 4, NOW);
            head.units[m] = 10;
            uint256 price = 10 * 1000 ** m;
            refusesUnder(bounds, head, exceeded(price > 4 ? price - 4 : 0));
        }
        settlesUnder(under(CONSUMER, bounds, 0, boundHead()));
    }

    function test_a_ceiling_asks_for_the_credits_that_were_agreed() external {
        has(Terms.AGENT_CAPPED);
        UsageCeiling memory bounds = ceiling();
        bounds.minCredits = 5;
        refusesUnder(bounds, boundHead(), exceeded(9_009_009_005));
        bounds.minCredits = 3;
        settlesUnder(under(CONSUMER, bounds, 0, boundHead()));
    }

    function test_a_ceiling_bounds_what_is_due() external {
        has(Terms.AGENT_CAPPED);
        UsageCeiling memory bounds = ceiling();
        bounds.maxDue -= 1;
        refusesUnder(bounds, boundHead(), exceeded(9_009_009_005));
        bounds.maxDue += 2;
        settlesUnder(under(CONSUMER, bounds, 0, boundHead()));
    }

    function test_a_ceiling_is_good_until_its_last_second() external {
        has(Terms.AGENT_CAPPED);
        vm.warp(NOW + 101);
        refusesUnder(ceiling(), boundHead(), exceeded(9_009_009_005));
        vm.warp(NOW + 100);
        settlesUnder(under(CONSUMER, ceiling(), 0, boundHead()));
    }

    function test_a_ceiling_is_for_one_authorization() external {
        has(0);
        AuthorizationTerms memory other = terms;
        has(Terms.AGENT_CAPPED);
        IAuthorizations.Settlement memory settlement = under(CONSUMER, ceiling(), 0, boundHead());
        settlement.ceilings = ceilingBy(CONSUMER, other, ceiling());
        assertSettleRefused(terms, settlement, exceeded(9_009_009_005));
        settlement = under(CONSUMER, ceiling(), AGENT, boundHead());
        settlement.ceilings = ceilingBy(CONSUMER, other, ceiling());
        assertSettleRefused(terms, settlement, exceeded(9_009_009_005));
    }

    function test_only_the_consumer_sets_a_ceiling() external {
        has(Terms.AGENT_CAPPED);
        uint256[3] memory keys = [STRANGER, PROVIDER, AGENT];
        for (uint256 i = 0; i < 3; ++i) {
            assertSettleRefused(terms, under(keys[i], ceiling(), 0, boundHead()), notSignedBy(consumer));
            assertSettleRefused(terms, under(keys[i], ceiling(), AGENT, boundHead()), notSignedBy(consumer));
        }
    }

    function test_nothing_in_a_ceiling_can_be_altered() external {
        has(Terms.AGENT_CAPPED);
        for (uint256 word = 0; word < 8; ++word) {
            IAuthorizations.Settlement memory settlement = under(CONSUMER, ceiling(), 0, boundHead());
            UsageCeiling memory bounds = settlement.ceilings[0].ceiling;
            if (word < 4) bounds.maxUnits[word] += 1;
            else if (word == 4) bounds.minCredits -= 1;
            else if (word == 5) bounds.maxDue += 1;
            else if (word == 6) bounds.expiry += 1;
            else settlement.ceilings[0].signature = "";
            assertSettleRefused(terms, settlement, notSignedBy(consumer));
        }
    }

    function test_one_ceiling_is_shown_and_not_two() external {
        has(Terms.AGENT_CAPPED);
        IAuthorizations.SignedCeiling[] memory two = new IAuthorizations.SignedCeiling[](2);
        IAuthorizations.Settlement memory settlement = under(CONSUMER, ceiling(), 0, boundHead());
        (two[0], two[1]) = (settlement.ceilings[0], settlement.ceilings[0]);
        settlement.ceilings = two;
        assertSettleRefused(terms, settlement, notSignedBy(consumer));
        settlement = signedBy(PROVIDER, AGENT, terms, settlement);
        bytes memory missing = abi.encodeWithSelector(IAuthorizations.CeilingMissing.selector, id);
        assertSettleRefused(terms, settlement, missing);
    }

    function test_a_capped_agents_head_needs_a_ceiling() external {
        has(Terms.AGENT_CAPPED);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), boundHead());
        bytes memory missing = abi.encodeWithSelector(IAuthorizations.CeilingMissing.selector, id);
        assertSettleRefused(terms, signedBy(PROVIDER, AGENT, terms, settlement), missing);
        assertSettleRefused(terms, signedBy(PROVIDER, 0, terms, settlement), notSignedBy(consumer));
    }

    function test_a_ceiling_needs_the_agent_to_sign_or_nobody() external {
        has(Terms.AGENT_CAPPED);
        assertSettleRefused(terms, under(CONSUMER, ceiling(), STRANGER, boundHead()), notSignedBy(consumer));
        settlesUnder(under(CONSUMER, ceiling(), 0, boundHead()));
    }

    function test_a_ceiling_covers_head_after_head() external {
        has(0);
        Head memory first = headAt(10, [uint64(1), 1, 1, 1], 4, NOW);
        settlesUnder(under(CONSUMER, ceiling(), 0, first));
        IAuthorizations.Settlement memory next;
        next = settlementOf(terms, first, headAt(11, [uint64(9), 9, 9, 9], 4, NOW));
        next.consumerSignature = "";
        next.ceilings = ceilingBy(CONSUMER, terms, ceiling());
        settlesUnder(next);
    }

    function test_a_head_under_a_ceiling_must_be_consistent_too() external {
        has(0);
        IAuthorizations.Settlement memory settlement = under(CONSUMER, ceiling(), 0, boundHead());
        settlement.consistency = new bytes32[](1);
        assertSettleRefused(terms, settlement, inconsistent(id, 0, 10));
    }
}

/// @title Batches
contract BatchesTest is Ledgers {
    /// @dev Another provider, whose key is STRANGER's.
    function othersTerms() private returns (AuthorizationTerms memory terms) {
        vm.prank(operator);
        spaces.admit(space, stranger, 1, "another provider");
        vm.prank(stranger);
        bytes32 made = products.registerProduct(space, "other", "metadata");
        terms = termsOf();
        (terms.provider, terms.scope.product, terms.scope.version) = (stranger, made, 0);
        give(consumer, PRICE);
        IAuthorizations.Opening memory opening = openingOf(terms, PRICE);
        opening.providerSignature = sign(STRANGER, idOf(terms));
        ledger.open(opening);
    }

    function rowsOf(
        IAuthorizations.Settlement memory a,
        IAuthorizations.Settlement memory b,
        IAuthorizations.Settlement memory c
    ) private pure returns (IAuthorizations.Settlement[] memory rows) {
        rows = new IAuthorizations.Settlement[](3);
        (rows[0], rows[1], rows[2]) = (a, b, c);
    }

    function emitSettled(AuthorizationTerms memory terms, Head memory head, uint128 due, address signer) private {
        bytes32 id = idOf(terms);
        emit IAuthorizations.Settled(id, head, due, due, 0, signer, consumer, IAuthorizations.Basis.CONSUMER);
    }

    function emitSkipped(uint256 row, AuthorizationTerms memory terms, bytes memory problem) private {
        emit IAuthorizations.SettlementSkipped(row, idOf(terms), problem);
    }

    /// @dev Of a log of 11 leaves, one call and 6,000 more than firstHead().
    function nextHead() private pure returns (Head memory) {
        return headAt(11, [uint64(121), 500, 0, 0], 0, NOW);
    }

    function assertSettledAt(AuthorizationTerms memory terms, Head memory head, uint128 paid) private view {
        assertEq(ledger.headDigestOf(idOf(terms)), digestOf(terms, head), "head");
        (, uint256 found) = reservationOf(terms);
        assertEq(found, paid, "paid");
    }

    function test_a_batch_of_nothing_changes_nothing() external {
        vm.recordLogs();
        ledger.settleMany(new IAuthorizations.Settlement[](0));
        invoices.settleMany(new IAuthorizations.Settlement[](0));
        assertEq(vm.getRecordedLogs().length, 0, "events");
    }

    function test_a_batch_settles_every_row_as_it_would_be_settled_alone() external {
        AuthorizationTerms memory a = openedOn(false, 10_000_000);
        AuthorizationTerms memory b = openedOn(false, 10_000_000);
        AuthorizationTerms memory c = openedOn(false, 10_000_000);
        IAuthorizations.Settlement[] memory rows = rowsOf(
            settlementOf(a, noHead(), firstHead(0)),
            settlementOf(b, noHead(), firstHead(7)),
            settlementOf(c, noHead(), nextHead())
        );
        vm.recordLogs();
        vm.prank(stranger);
        ledger.settleMany(rows);
        emitSettled(a, firstHead(0), PRICE, provider);
        emitSettled(b, firstHead(7), PRICE - 7, provider);
        emitSettled(c, nextHead(), PRICE + 6_000, provider);
        assertEmitted(address(ledger));
        assertSettledAt(a, firstHead(0), PRICE);
        assertSettledAt(b, firstHead(7), PRICE - 7);
        assertSettledAt(c, nextHead(), PRICE + 6_000);
        assertEq(ledger.accruedOf(splitId, address(yuan)), 3 * PRICE + 5_993, "accrued");
    }

    function test_a_batch_settles_invoices() external {
        AuthorizationTerms memory a = openedOn(true, 0);
        AuthorizationTerms memory b = openedOn(true, 0);
        AuthorizationTerms memory c = openedOn(true, 0);
        invoices.settleMany(
            rowsOf(
                settlementOf(a, noHead(), firstHead(0)),
                signedBy(PROVIDER, STRANGER, b, settlementOf(b, noHead(), firstHead(0))),
                settlementOf(c, noHead(), nextHead())
            )
        );
        assertEq(invoices.invoicedOf(idOf(a)).due, PRICE, "first");
        assertEq(invoices.invoicedOf(idOf(b)).due, 0, "skipped");
        assertEq(invoices.invoicedOf(idOf(c)).due, PRICE + 6_000, "third");
    }

    function test_a_batch_settles_head_after_head_of_one_authorization() external {
        AuthorizationTerms memory terms = openedOn(false, 10_000_000);
        Head memory third = headAt(20, [uint64(122), 500, 0, 0], 0, NOW);
        IAuthorizations.Settlement[] memory rows = rowsOf(
            settlementOf(terms, noHead(), firstHead(0)),
            settlementOf(terms, firstHead(0), nextHead()),
            settlementOf(terms, nextHead(), third)
        );
        vm.recordLogs();
        ledger.settleMany(rows);
        emitSettled(terms, firstHead(0), PRICE, provider);
        emitSettled(terms, nextHead(), PRICE + 6_000, provider);
        emitSettled(terms, third, PRICE + 12_000, provider);
        assertEmitted(address(ledger));
        assertSettledAt(terms, third, PRICE + 12_000);
    }

    function test_a_head_that_is_in_a_batch_twice_is_settled_once() external {
        AuthorizationTerms memory terms = openedOn(false, 10_000_000);
        IAuthorizations.Settlement memory row = settlementOf(terms, noHead(), firstHead(0));
        IAuthorizations.Settlement[] memory rows = rowsOf(row, row, settlementOf(terms, firstHead(0), nextHead()));
        vm.recordLogs();
        ledger.settleMany(rows);
        emitSettled(terms, firstHead(0), PRICE, provider);
        emitSkipped(1, terms, moved(idOf(terms), digestOf(terms, firstHead(0))));
        emitSettled(terms, nextHead(), PRICE + 6_000, provider);
        assertEmitted(address(ledger));
    }

    /// @dev One of each reason, from the first check to the last.
    function badRows(
        AuthorizationTerms memory a
    ) private returns (IAuthorizations.Settlement[] memory rows, bytes[] memory problems) {
        rows = new IAuthorizations.Settlement[](8);
        problems = new bytes[](8);
        bytes32 id = idOf(a);
        AuthorizationTerms memory unknown = termsOf();
        Head memory first = firstHead(0);
        rows[0] = settlementOf(unknown, noHead(), first);
        problems[0] = notInState(idOf(unknown), IAuthorizations.Status.NONE);
        rows[1] = settlementOf(a, first, nextHead());
        problems[1] = moved(id, 0);
        rows[2] = settlementOf(a, noHead(), headAt(10, [uint64(120), 500, 0, 0], 0, NOW + 1));
        problems[2] = abi.encodeWithSelector(IAuthorizations.HeadInFuture.selector, id, NOW + 1, NOW);
        rows[3] = settlementOf(a, noHead(), headAt(10, [uint64(10_001), 500, 0, 0], 0, NOW));
        problems[3] = abi.encodeWithSelector(IAuthorizations.HeadOverQuota.selector, id, 0, 10_001, 10_000);
        rows[4] = signedBy(STRANGER, CONSUMER, a, settlementOf(a, noHead(), first));
        problems[4] = notSignedBy(provider);
        rows[5] = signedBy(PROVIDER, STRANGER, a, settlementOf(a, noHead(), first));
        problems[5] = notSignedBy(consumer);
        rows[6] = settlementOf(a, noHead(), first);
        rows[6].consistency = new bytes32[](2);
        problems[6] = inconsistent(id, 0, 10);
        rows[7] = settlementOf(a, noHead(), first);
    }

    function test_a_batch_skips_what_it_cannot_settle_and_says_why() external {
        AuthorizationTerms memory a = openedOn(false, 10_000_000);
        (IAuthorizations.Settlement[] memory rows, bytes[] memory problems) = badRows(a);
        for (uint256 i = 0; i < 7; ++i) {
            assertRefused(stranger, address(ledger), abi.encodeCall(ledger.settle, (rows[i])), problems[i]);
        }
        bytes32 unknown = bytes32(bytesAt(problems[0], 4));
        bytes32 id = idOf(a);
        vm.recordLogs();
        ledger.settleMany(rows);
        for (uint256 i = 0; i < 7; ++i) emit IAuthorizations.SettlementSkipped(i, i == 0 ? unknown : id, problems[i]);
        emitSettled(a, firstHead(0), PRICE, provider);
        assertEmitted(address(ledger));
        assertSettledAt(a, firstHead(0), PRICE);
    }

    function bytesAt(bytes memory data, uint256 offset) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := mload(add(add(data, 0x20), offset))
        }
    }

    function test_a_skipped_row_leaves_no_trace_in_the_rows_after_it() external {
        AuthorizationTerms memory a = openedOn(false, 10_000_000);
        AuthorizationTerms memory cheap = termsOf();
        cheap.rateCard = cardAt(1, 1, cheap.token);
        cheap.maxUnits = [uint64(1_000), 0, 0, 0];
        opened(cheap, 1_000);
        Head memory head = headAt(10, [uint64(120), 0, 0, 0], 0, NOW);
        ledger.settleMany(
            rowsOf(
                signedBy(STRANGER, CONSUMER, cheap, settlementOf(cheap, noHead(), head)),
                settlementOf(a, noHead(), firstHead(0)),
                settlementOf(cheap, noHead(), head)
            )
        );
        assertSettledAt(a, firstHead(0), PRICE);
        assertSettledAt(cheap, head, 120);
    }

    function test_every_row_is_priced_by_its_own_rate_card() external {
        AuthorizationTerms memory cheap = termsOf();
        cheap.rateCard = cardAt(1, 3, cheap.token);
        cheap.maxUnits = [uint64(1_000), 0, 0, 0];
        opened(cheap, 1_000);
        AuthorizationTerms memory a = openedOn(false, 10_000_000);
        AuthorizationTerms memory c = openedOn(false, 10_000_000);
        Head memory head = headAt(10, [uint64(120), 0, 0, 0], 0, NOW);
        ledger.settleMany(
            rowsOf(
                settlementOf(a, noHead(), firstHead(0)),
                settlementOf(cheap, noHead(), head),
                settlementOf(c, noHead(), firstHead(0))
            )
        );
        assertSettledAt(a, firstHead(0), PRICE);
        assertSettledAt(cheap, head, 360);
        assertSettledAt(c, firstHead(0), PRICE);
    }

    function test_a_provider_that_calls_signs_none_of_its_rows_but_those_of_others() external {
        AuthorizationTerms memory a = openedOn(false, 10_000_000);
        AuthorizationTerms memory others = othersTerms();
        IAuthorizations.Settlement[] memory rows = rowsOf(
            signedBy(0, CONSUMER, a, settlementOf(a, noHead(), firstHead(0))),
            signedBy(0, CONSUMER, others, settlementOf(others, noHead(), firstHead(0))),
            signedBy(STRANGER, CONSUMER, others, settlementOf(others, noHead(), firstHead(0)))
        );
        vm.recordLogs();
        vm.prank(provider);
        ledger.settleMany(rows);
        emitSettled(a, firstHead(0), PRICE, address(0));
        emitSkipped(1, others, notSignedBy(stranger));
        emitSettled(others, firstHead(0), PRICE, stranger);
        assertEmitted(address(ledger));
    }

    function test_a_wallet_that_burns_its_gas_stops_no_batch() external {
        AuthorizationTerms memory a = openedOn(false, 10_000_000);
        AuthorizationTerms memory b = openedOn(false, 10_000_000);
        IAuthorizations.Settlement memory bad = signedBy(
            PROVIDER,
            STRANGER,
            a,
            settlementOf(a, noHead(), firstHead(0))
        );
        IAuthorizations.Settlement[] memory rows = rowsOf(bad, bad, settlementOf(b, noHead(), firstHead(0)));
        vm.etch(consumer, type(BurningWallet).runtimeCode);
        ledger.settleMany{gas: 1_000_000}(rows);
        assertSettledAt(b, firstHead(0), PRICE);
        assertEq(ledger.headDigestOf(idOf(a)), 0, "skipped");
    }
}
