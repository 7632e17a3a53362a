// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InvoiceLedger} from "../InvoiceLedger.sol";
import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IInvoiceLedger} from "../interfaces/IInvoiceLedger.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {Acceptance, AuthorizationTerms, CompactTerms, Offer} from "../libraries/Terms.sol";
import {AgreeingWallet, RefusingWallet} from "../mocks/Wallets.sol";
import {Ledgers} from "./Ledgers.sol";

/// @title What the tests of openings share
abstract contract OpeningSteps is Ledgers {
    function refusesOpening(IAuthorizations.Opening memory opening, bytes memory problem) internal {
        bytes memory data = abi.encodeCall(IAuthorizations.open, (opening));
        assertRefused(stranger, address(ledgerFor(opening.terms)), data, problem);
    }

    /// @dev Opened by anyone; the event says all, and the record is new.
    function opens(IAuthorizations.Opening memory opening, bytes32 offerDigest) internal {
        AuthorizationTerms memory terms = opening.terms;
        IAuthorizations to = ledgerFor(terms);
        bytes32 id = idOf(terms);
        uint128 reserve = opening.acceptance.reserve;
        vm.recordLogs();
        vm.prank(stranger);
        bytes32 found = to.open(opening);
        emit IAuthorizations.Opened(id, terms.provider, terms.consumer, terms, reserve, offerDigest);
        assertEmitted(address(to));
        assertEq(found, id, "id");
        IAuthorizations.Authorization memory expected = IAuthorizations.Authorization({
            headDigest: 0,
            status: IAuthorizations.Status.OPEN,
            basis: IAuthorizations.Basis.NONE,
            depth: 0,
            endedAt: terms.validUntil
        });
        assertSame(abi.encode(to.authorizationOf(id)), abi.encode(expected), "authorization");
    }

    /// @dev Signed by these keys, good until the deadline.
    function openingBy(
        uint256[3] memory keys, // provider's, consumer's over the terms, consumer's over the acceptance
        AuthorizationTerms memory terms,
        Acceptance memory acceptance
    ) internal view returns (IAuthorizations.Opening memory opening) {
        bytes32 id = idOf(terms);
        opening.terms = terms;
        opening.acceptance = acceptance;
        opening.providerSignature = signedWith(keys[0], id);
        opening.consumerSignature = signedWith(keys[1], id);
        opening.acceptanceSignature = signedWith(
            keys[2],
            digests.acceptance(address(ledgerFor(terms)), opening.acceptance)
        );
    }

    function signedWith(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        return key == 0 ? bytes("") : sign(key, digest);
    }

    function offeredOpening(
        AuthorizationTerms memory terms,
        Offer memory offer
    ) internal view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(terms, 0);
        opening.offer = offer;
        opening.providerSignature = sign(PROVIDER, digests.offer(address(ledgerFor(terms)), offer));
    }

    function invalidAcceptance(bytes32 id, uint256 deadline) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AcceptanceInvalid.selector, id, deadline);
    }

    function balanceTooLow(uint256 free, uint256 amount) internal view returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.BalanceTooLow.selector, consumer, address(yuan), free, amount);
    }

    function exhausted(bytes32 digest, uint256 most) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.OfferExhausted.selector, digest, most);
    }
}

/// @title Opening: reservation, time, acceptance and signatures
contract OpenTest is OpeningSteps {
    // ---------------------------------------------------------------------------------------------- reserve

    function test_opening_reserves_exactly_what_the_consumer_accepted() external {
        give(consumer, 1_000);
        give(provider, 50);
        AuthorizationTerms memory terms = termsOf();
        uint256 held = yuan.balanceOf(address(ledger));
        opens(openingOf(terms, 700), 0);
        IUsageLedger.Reservation memory expected = IUsageLedger.Reservation(700, 0, 0, 0, 0);
        assertSame(abi.encode(ledger.reservationOf(idOf(terms))), abi.encode(expected), "reservation");
        assertEq(ledger.freeOf(consumer, address(yuan)), 300, "left");
        assertEq(ledger.freeOf(provider, address(yuan)), 50, "the provider's");
        assertEq(yuan.balanceOf(address(ledger)), held, "no token moves");
        assertEq(ledger.accruedOf(splitId, address(yuan)), 0, "nothing is paid");
    }

    function test_opening_by_invoice_reserves_nothing() external {
        AuthorizationTerms memory terms = invoicedTermsOf();
        opens(openingOf(terms, 0), 0);
        IInvoiceLedger.Invoiced memory expected = IInvoiceLedger.Invoiced(0, 0, 0);
        assertSame(abi.encode(invoices.invoicedOf(idOf(terms))), abi.encode(expected), "invoiced");
    }

    function test_nothing_may_be_reserved_in_escrow_too() external {
        opens(openingOf(termsOf(), 0), 0);
    }

    function test_a_reservation_is_not_larger_than_the_consumers_free_money() external {
        give(consumer, 700);
        give(provider, 700);
        AuthorizationTerms memory terms = termsOf();
        refusesOpening(openingOf(terms, 701), balanceTooLow(700, 701));
        opens(openingOf(terms, 700), 0);
        assertEq(ledger.freeOf(consumer, address(yuan)), 0, "all of it");
        refusesOpening(openingOf(termsOf(), 1), balanceTooLow(0, 1));
    }

    function test_a_reservation_fits_into_96_bits() external {
        give(consumer, 1 << 100);
        AuthorizationTerms memory terms = termsOf();
        refusesOpening(openingOf(terms, type(uint128).max), tooLarge(type(uint128).max));
        refusesOpening(openingOf(terms, 1 << 96), tooLarge(1 << 96));
        opens(openingOf(terms, type(uint96).max), 0);
        (uint256 reserved, ) = reservationOf(terms);
        assertEq(reserved, MOST, "reserved");
    }

    function test_nothing_is_reserved_of_an_invoice() external {
        AuthorizationTerms memory terms = invoicedTermsOf();
        refusesOpening(openingOf(terms, 1), abi.encodeWithSelector(IAdmission.TermsInvalid.selector, "reserve"));
    }

    function test_money_is_reserved_in_a_token_that_is_there() external {
        AuthorizationTerms memory terms = termsOf();
        terms.token = address(0xdead);
        terms.rateCard = cardAt(1, 1, terms.token);
        terms.maxUnits = [uint64(1), 0, 0, 0];
        bytes memory problem = abi.encodeWithSelector(IUsageLedger.TokenNotContract.selector, terms.token);
        refusesOpening(openingOf(terms, 0), problem);
    }

    // ------------------------------------------------------------------------------------------------- once

    function test_an_authorization_is_opened_once() external {
        for (uint256 i = 0; i < 2; ++i) {
            AuthorizationTerms memory terms = openedOn(i == 1, 1_000);
            bytes32 id = idOf(terms);
            IAuthorizations.Opening memory again = openingOf(terms, 0);
            refusesOpening(again, notInState(id, IAuthorizations.Status.OPEN));
            vm.warp(END);
            refusesOpening(again, notInState(id, IAuthorizations.Status.ENDED));
            finalized(terms);
            refusesOpening(again, notInState(id, IAuthorizations.Status.CLOSED));
            vm.warp(START);
        }
    }

    function test_terms_are_opened_until_the_last_second_of_their_time() external {
        AuthorizationTerms memory terms = termsOf();
        bytes32 id = idOf(terms);
        uint256[3] memory keys = [PROVIDER, CONSUMER, CONSUMER];
        IAuthorizations.Opening memory opening = openingBy(keys, terms, Acceptance(id, 0, END + 1));
        vm.warp(END);
        refusesOpening(opening, abi.encodeWithSelector(IAuthorizations.TermsExpired.selector, END, END));
        vm.warp(END - 1);
        opens(opening, 0);
    }

    function test_terms_may_be_opened_before_their_time_begins() external {
        AuthorizationTerms memory terms = termsOf();
        terms.validFrom = NOW + 5;
        opens(openingOf(terms, 0), 0);
    }

    // ------------------------------------------------------------------------------------------- acceptance

    function test_an_acceptance_is_good_until_its_last_second() external {
        AuthorizationTerms memory terms = termsOf();
        bytes32 id = idOf(terms);
        uint256[3] memory keys = [PROVIDER, CONSUMER, CONSUMER];
        IAuthorizations.Opening memory opening = openingBy(keys, terms, Acceptance(id, 0, NOW + 9));
        vm.warp(NOW + 10);
        refusesOpening(opening, invalidAcceptance(id, NOW + 9));
        vm.warp(NOW + 9);
        opens(opening, 0);
    }

    function test_an_acceptance_is_of_one_authorization() external {
        AuthorizationTerms memory terms = termsOf();
        bytes32 other = idOf(termsOf());
        uint256[3] memory keys = [PROVIDER, CONSUMER, CONSUMER];
        refusesOpening(openingBy(keys, terms, Acceptance(other, 0, END)), invalidAcceptance(other, END));
        refusesOpening(openingBy(keys, terms, Acceptance(0, 0, END)), invalidAcceptance(0, END));
    }

    function test_a_relayer_can_change_nothing_in_an_acceptance() external {
        give(consumer, 1_000);
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingOf(terms, 700);
        opening.acceptance.reserve = 701;
        refusesOpening(opening, notSignedBy(consumer));
        opening.acceptance.reserve = 699;
        refusesOpening(opening, notSignedBy(consumer));
        opening.acceptance.reserve = 700;
        opening.acceptance.deadline += 1;
        refusesOpening(opening, notSignedBy(consumer));
        opening.acceptance.deadline -= 1;
        opens(opening, 0);
    }

    // ------------------------------------------------------------------------------------------- signatures

    /// @dev With each of the three signatures made by this key in turn; 0 leaves it out.
    function refusesKey(AuthorizationTerms memory terms, uint256 key) private {
        Acceptance memory acceptance = Acceptance(idOf(terms), 0, END);
        refusesOpening(openingBy([key, CONSUMER, CONSUMER], terms, acceptance), notSignedBy(provider));
        refusesOpening(openingBy([PROVIDER, key, CONSUMER], terms, acceptance), notSignedBy(consumer));
        refusesOpening(openingBy([PROVIDER, CONSUMER, key], terms, acceptance), notSignedBy(consumer));
    }

    function test_provider_and_consumer_sign_all_three() external {
        for (uint256 i = 0; i < 2; ++i) {
            AuthorizationTerms memory terms = i == 0 ? termsOf() : invoicedTermsOf();
            refusesKey(terms, 0);
            refusesKey(terms, STRANGER);
            refusesKey(terms, AGENT);
            refusesKey(terms, OPERATOR);
            Acceptance memory acceptance = Acceptance(idOf(terms), 0, END);
            refusesOpening(openingBy([CONSUMER, PROVIDER, PROVIDER], terms, acceptance), notSignedBy(provider));
            refusesOpening(openingBy([PROVIDER, PROVIDER, CONSUMER], terms, acceptance), notSignedBy(consumer));
            refusesOpening(openingBy([PROVIDER, CONSUMER, PROVIDER], terms, acceptance), notSignedBy(consumer));
            opens(openingBy([PROVIDER, CONSUMER, CONSUMER], terms, acceptance), 0);
        }
    }

    function test_who_calls_must_have_signed_all_the_same() external {
        AuthorizationTerms memory terms = termsOf();
        Acceptance memory acceptance = Acceptance(idOf(terms), 0, END);
        bytes memory data = abi.encodeCall(ledger.open, (openingBy([0, CONSUMER, CONSUMER], terms, acceptance)));
        assertRefused(provider, address(ledger), data, notSignedBy(provider));
        data = abi.encodeCall(ledger.open, (openingBy([PROVIDER, 0, 0], terms, acceptance)));
        assertRefused(consumer, address(ledger), data, notSignedBy(consumer));
    }

    function test_signatures_are_for_one_ledger() external {
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        bytes32 elsewhere = invoices.idOf(terms);
        opening.providerSignature = sign(PROVIDER, elsewhere);
        refusesOpening(opening, notSignedBy(provider));
        opening = openingOf(terms, 0);
        opening.consumerSignature = sign(CONSUMER, elsewhere);
        refusesOpening(opening, notSignedBy(consumer));
        opening = openingOf(terms, 0);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(invoices), opening.acceptance));
        refusesOpening(opening, notSignedBy(consumer));
    }

    function test_contract_wallets_sign_by_their_own_word() external {
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingBy([uint256(0), 0, 0], terms, Acceptance(idOf(terms), 0, END));
        vm.etch(provider, type(RefusingWallet).runtimeCode);
        refusesOpening(opening, notSignedBy(provider));
        vm.etch(provider, type(AgreeingWallet).runtimeCode);
        refusesOpening(opening, notSignedBy(consumer));
        vm.etch(consumer, type(AgreeingWallet).runtimeCode);
        opens(opening, 0);
    }

    // ------------------------------------------------------------------------------------------------ order

    /// @dev What is wrong is put right one by one.
    function test_the_first_thing_wrong_is_what_is_told() external {
        AuthorizationTerms memory terms = termsOf();
        terms.validUntil = NOW;
        terms.scope.parent = "parent";
        terms.thawSeconds = 0;
        Offer memory offer = Offer("template", 0, NOW - 1);
        refusesWrong(terms, offer, abi.encodeWithSelector(IAuthorizations.TermsExpired.selector, NOW, NOW));
        terms.validUntil = END;
        refusesWrong(
            terms,
            offer,
            abi.encodeWithSelector(
                IAuthorizations.ParentNotOpen.selector,
                bytes32("parent"),
                IAuthorizations.Status.NONE,
                0
            )
        );
        terms.scope.parent = 0;
        refusesWrong(terms, offer, abi.encodeWithSelector(IAdmission.TermsInvalid.selector, "thawSeconds"));
        terms.thawSeconds = uint32(DAY);
        bytes32 template = digests.template(terms);
        refusesWrong(
            terms,
            offer,
            abi.encodeWithSelector(IAuthorizations.OfferMismatch.selector, bytes32("template"), template)
        );
        findsTheRest(terms, Offer(template, 0, NOW - 1));
    }

    function findsTheRest(AuthorizationTerms memory terms, Offer memory offer) private {
        bytes32 digest = digests.offer(address(ledger), offer);
        refusesWrong(terms, offer, abi.encodeWithSelector(IAuthorizations.OfferExpired.selector, digest, NOW - 1));
        offer.offerUntil = NOW;
        refusesWrong(terms, offer, exhausted(digests.offer(address(ledger), offer), 0));
        offer.maxAcceptances = 1;
        refusesWrong(terms, offer, notSignedBy(provider));
        bytes32 id = idOf(terms);
        Acceptance memory late = Acceptance(id, 1 << 96, NOW - 1);
        refusesOpening(openingBy([PROVIDER, 0, 0], terms, late), invalidAcceptance(id, NOW - 1));
        Acceptance memory acceptance = Acceptance(id, 1 << 96, NOW);
        refusesOpening(openingBy([PROVIDER, 0, 0], terms, acceptance), notSignedBy(consumer));
        refusesOpening(openingBy([PROVIDER, CONSUMER, CONSUMER], terms, acceptance), tooLarge(1 << 96));
        acceptance.reserve = 1;
        refusesOpening(openingBy([PROVIDER, CONSUMER, CONSUMER], terms, acceptance), balanceTooLow(0, 1));
    }

    /// @dev Signed by nobody, with an acceptance that is over, of more than can be.
    function refusesWrong(AuthorizationTerms memory terms, Offer memory offer, bytes memory problem) private {
        Acceptance memory acceptance = Acceptance("other", 1 << 96, NOW - 1);
        IAuthorizations.Opening memory opening = openingBy([uint256(0), 0, 0], terms, acceptance);
        opening.offer = offer;
        refusesOpening(opening, problem);
    }

    // ------------------------------------------------------------------------------------------- dirty bits

    function dirtied(bytes memory data, uint256 word, uint256 bit) private pure returns (bytes memory copy) {
        copy = bytes.concat(data);
        assembly ("memory-safe") {
            let at := add(add(copy, 0x24), shl(5, word))
            mstore(at, xor(mload(at), shl(bit, 1)))
        }
    }

    /// @dev Both have signed the very bits.
    function refusesDirty(AuthorizationTerms memory terms, uint256 word, uint256 bit) private {
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory answer) = address(ledger).call(
            dirtied(abi.encodeCall(ledger.idOf, (terms)), word, bit)
        );
        assertTrue(done, "an id");
        bytes32 id = abi.decode(answer, (bytes32));
        assertTrue(id != idOf(terms), "another id");
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.acceptance.authorizationId = id;
        opening.providerSignature = sign(PROVIDER, id);
        opening.consumerSignature = sign(CONSUMER, id);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(ledger), opening.acceptance));
        bytes memory data = dirtied(abi.encodeCall(ledger.open, (opening)), word + 1, bit);
        assertRefused(stranger, address(ledger), data, "");
        assertEq(ledger.authorizationOf(id).status, IAuthorizations.Status.NONE, "not opened");
    }

    function test_bits_beyond_the_width_of_a_terms_words_are_refused() external {
        AuthorizationTerms memory terms = termsOf();
        uint8[20] memory words = [7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 21, 22, 23, 24, 25, 26, 27, 28, 29];
        uint8[20] memory bits = [64, 32, 32, 64, 64, 64, 64, 160, 160, 160, 160, 64, 64, 64, 64, 40, 40, 32, 32, 8];
        for (uint256 i = 0; i < 20; ++i) {
            refusesDirty(terms, words[i], bits[i]);
            refusesDirty(terms, words[i], 255);
        }
    }

    function test_bits_beyond_the_width_of_an_acceptances_words_are_refused() external {
        bytes memory data = abi.encodeCall(ledger.open, (openingOf(termsOf(), 0)));
        assertRefused(stranger, address(ledger), dirtied(data, 36, 128), ""); // reserve
        assertRefused(stranger, address(ledger), dirtied(data, 37, 40), ""); // deadline
    }

    // ----------------------------------------------------------------------------------------------- ledgers

    function test_a_ledger_knows_its_registries() external view {
        assertEq(address(ledger.admission()), address(admission), "admission");
        assertEq(address(ledger.sessionKeys()), address(sessionKeys), "session keys");
        assertEq(ledger.rateCards(), address(cards), "rate cards");
        assertEq(address(invoices.admission()), address(admission), "admission");
        assertEq(address(invoices.sessionKeys()), address(sessionKeys), "session keys");
        assertEq(invoices.rateCards(), address(cards), "rate cards");
    }

    function assertRefusesClock(uint256 timestamp) private {
        bytes memory expected = abi.encodeWithSelector(IAuthorizations.ClockNotInSeconds.selector, timestamp);
        bytes memory common = abi.encode(admission, sessionKeys, forwarder);
        vm.warp(timestamp);
        (, bytes memory problem) = tryDeploy("UsageLedger", common);
        assertSame(problem, expected, "escrowed");
        (, problem) = tryDeploy("InvoiceLedger", common);
        assertSame(problem, expected, "invoiced");
    }

    function test_a_ledger_is_not_deployed_where_the_clock_counts_milliseconds() external {
        assertRefusesClock(1e11);
        assertRefusesClock(START * 1000);
        vm.warp(1e11 - 1);
        address made = deploy("InvoiceLedger", abi.encode(admission, sessionKeys, forwarder));
        assertEq(InvoiceLedger(made).rateCards(), address(cards), "deployed");
    }
}

/// @title Offers, and what is withdrawn before it is opened
contract OffersTest is OpeningSteps {
    function digestOf(Offer memory offer) private view returns (bytes32) {
        return digests.offer(address(ledger), offer);
    }

    function offerOf(AuthorizationTerms memory terms, uint32 most) private view returns (Offer memory) {
        return Offer(digests.template(terms), most, END);
    }

    function test_an_accepted_offer_opens_and_is_named() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 1);
        opens(offeredOpening(terms, offer), digestOf(offer));
        AuthorizationTerms memory invoiced = invoicedTermsOf();
        offer = offerOf(invoiced, 1);
        opens(offeredOpening(invoiced, offer), digests.offer(address(invoices), offer));
    }

    function test_without_a_template_there_is_no_offer() external {
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.offer = Offer(0, 0, 0);
        opens(opening, 0);
        terms = termsOf();
        opening = openingOf(terms, 0);
        opening.offer = Offer(0, 1, END);
        opens(opening, 0);
        refusesOpening(offeredOpening(termsOf(), Offer(0, 1, END)), notSignedBy(provider));
    }

    function test_any_consumer_may_accept_an_offer() external {
        vm.prank(operator);
        spaces.admit(space, stranger, 2, "another consumer");
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 2);
        opens(offeredOpening(terms, offer), digestOf(offer));
        terms = termsOf();
        terms.consumer = stranger;
        IAuthorizations.Opening memory opening = offeredOpening(terms, offer);
        refusesOpening(opening, notSignedBy(stranger));
        opening.consumerSignature = sign(STRANGER, idOf(terms));
        opening.acceptanceSignature = sign(STRANGER, digests.acceptance(address(ledger), opening.acceptance));
        opens(opening, digestOf(offer));
    }

    function test_an_offer_fixes_every_term_but_consumer_and_salt() external {
        AuthorizationTerms memory terms = termsOf();
        bytes32 template = digests.template(terms);
        for (uint256 word = 0; word < 31; ++word) {
            Offer memory offer = Offer(templateAltered(terms, word), 1, END);
            if (word == 16 || word == 30) {
                assertEq(offer.termsTemplateHash, template, "consumer and salt");
                continue;
            }
            bytes memory problem = abi.encodeWithSelector(
                IAuthorizations.OfferMismatch.selector,
                offer.termsTemplateHash,
                template
            );
            refusesOpening(offeredOpening(terms, offer), problem);
        }
    }

    /// @dev Of the terms with the last bit of one of their 31 words flipped.
    function templateAltered(AuthorizationTerms memory terms, uint256 word) private view returns (bytes32) {
        bytes memory encoded = abi.encode(terms);
        assembly ("memory-safe") {
            let at := add(add(encoded, 0x20), shl(5, word))
            mstore(at, xor(mload(at), 1))
        }
        return digests.template(abi.decode(encoded, (AuthorizationTerms)));
    }

    function test_the_provider_signs_the_offer_and_nothing_else_will_do() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 1);
        IAuthorizations.Opening memory opening = offeredOpening(terms, offer);
        bytes memory own = opening.providerSignature;
        opening.providerSignature = sign(PROVIDER, idOf(terms));
        refusesOpening(opening, notSignedBy(provider));
        opening.providerSignature = sign(STRANGER, digestOf(offer));
        refusesOpening(opening, notSignedBy(provider));
        opening.providerSignature = sign(CONSUMER, digestOf(offer));
        refusesOpening(opening, notSignedBy(provider));
        opening.providerSignature = sign(PROVIDER, digests.offer(address(invoices), offer));
        refusesOpening(opening, notSignedBy(provider));
        opening.providerSignature = "";
        refusesOpening(opening, notSignedBy(provider));
        opening.providerSignature = own;
        opening.offer.maxAcceptances = 2;
        refusesOpening(opening, notSignedBy(provider));
        opening.offer.maxAcceptances = 1;
        opening.offer.offerUntil -= 1;
        refusesOpening(opening, notSignedBy(provider));
        opening.offer.offerUntil += 1;
        opens(opening, digestOf(offer));
    }

    function test_an_offer_is_accepted_as_often_as_it_says() external {
        Offer memory offer = offerOf(termsOf(), 2);
        bytes32 digest = digestOf(offer);
        for (uint256 i = 0; i < 2; ++i) {
            opens(offeredOpening(termsOf(), offer), digest);
        }
        refusesOpening(offeredOpening(termsOf(), offer), exhausted(digest, 2));
        refusesOpening(offeredOpening(termsOf(), offer), exhausted(digest, 2));
        Offer memory larger = offerOf(termsOf(), 3);
        opens(offeredOpening(termsOf(), larger), digestOf(larger)); // another offer
        Offer memory none = offerOf(termsOf(), 0);
        refusesOpening(offeredOpening(termsOf(), none), exhausted(digestOf(none), 0));
    }

    function test_an_opening_that_fails_uses_no_acceptance_up() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 1);
        IAuthorizations.Opening memory opening = offeredOpening(terms, offer);
        opening.acceptanceSignature = "";
        refusesOpening(opening, notSignedBy(consumer));
        opens(offeredOpening(terms, offer), digestOf(offer));
    }

    function test_an_offer_is_good_until_its_last_second() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = Offer(digests.template(terms), 1, NOW + 9);
        IAuthorizations.Opening memory opening = offeredOpening(terms, offer);
        bytes memory problem = abi.encodeWithSelector(IAuthorizations.OfferExpired.selector, digestOf(offer), NOW + 9);
        vm.warp(NOW + 10);
        refusesOpening(opening, problem);
        vm.warp(NOW + 9);
        opens(opening, digestOf(offer));
    }

    // -------------------------------------------------------------------------------------------- withdrawn

    function cancels(address caller, Offer memory offer) private {
        vm.recordLogs();
        vm.prank(caller);
        ledger.cancelOffer(offer);
        emit IAuthorizations.OfferCancelled(digestOf(offer), caller);
        assertEmitted(address(ledger));
    }

    function test_a_cancelled_offer_cannot_be_accepted() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 1);
        cancels(provider, offer);
        refusesOpening(offeredOpening(terms, offer), exhausted(digestOf(offer), 1));
        offer = offerOf(terms, type(uint32).max);
        cancels(provider, offer);
        cancels(provider, offer);
        refusesOpening(offeredOpening(terms, offer), exhausted(digestOf(offer), type(uint32).max));
        opens(offeredOpening(terms, offerOf(terms, 2)), digestOf(offerOf(terms, 2)));
    }

    function test_an_offer_that_was_accepted_can_be_cancelled_for_the_future() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, type(uint32).max);
        opens(offeredOpening(terms, offer), digestOf(offer));
        cancels(provider, offer);
        refusesOpening(offeredOpening(termsOf(), offer), exhausted(digestOf(offer), type(uint32).max));
        assertEq(statusOf(terms), IAuthorizations.Status.OPEN, "what was opened stays open");
    }

    function test_cancelling_somebody_elses_offer_does_nothing_to_it() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 1);
        cancels(stranger, offer);
        cancels(consumer, offer);
        cancels(operator, offer);
        opens(offeredOpening(terms, offer), digestOf(offer));
    }

    function test_an_offer_is_cancelled_on_one_ledger() external {
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = offerOf(terms, 1);
        vm.prank(provider);
        invoices.cancelOffer(offer);
        opens(offeredOpening(terms, offer), digestOf(offer));
    }

    function cancelsTerms(AuthorizationTerms memory terms, address party) private {
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations to = ledgerFor(terms);
        bytes32 id = idOf(terms);
        vm.recordLogs();
        vm.prank(party);
        to.cancelTerms(compact);
        emit IAuthorizations.TermsCancelled(id, party);
        assertEmitted(address(to));
        assertEq(statusOf(terms), IAuthorizations.Status.CANCELLED, "cancelled");
        refusesOpening(openingOf(terms, 0), notInState(id, IAuthorizations.Status.CANCELLED));
        refusesCancelling(terms, party, notInState(id, IAuthorizations.Status.CANCELLED));
    }

    function refusesCancelling(AuthorizationTerms memory terms, address caller, bytes memory problem) private {
        bytes memory data = abi.encodeCall(IAuthorizations.cancelTerms, (compactOf(terms)));
        assertRefused(caller, address(ledgerFor(terms)), data, problem);
    }

    function test_either_party_may_withdraw_signed_terms() external {
        cancelsTerms(termsOf(), provider);
        cancelsTerms(termsOf(), consumer);
        cancelsTerms(invoicedTermsOf(), provider);
        cancelsTerms(invoicedTermsOf(), consumer);
    }

    function test_nobody_else_withdraws_terms() external {
        AuthorizationTerms memory terms = termsOf();
        terms.meteringAgent = agent;
        bytes32 id = idOf(terms);
        refusesCancelling(terms, stranger, notYours(id, stranger));
        refusesCancelling(terms, operator, notYours(id, operator));
        refusesCancelling(terms, agent, notYours(id, agent));
        opens(openingOf(terms, 0), 0);
    }

    function test_terms_are_not_withdrawn_once_opened() external {
        AuthorizationTerms memory terms = openedOn(false, 0);
        bytes32 id = idOf(terms);
        refusesCancelling(terms, provider, notInState(id, IAuthorizations.Status.OPEN));
        refusesCancelling(terms, consumer, notInState(id, IAuthorizations.Status.OPEN));
        vm.warp(END);
        refusesCancelling(terms, provider, notInState(id, IAuthorizations.Status.ENDED));
        finalized(terms);
        refusesCancelling(terms, provider, notInState(id, IAuthorizations.Status.CLOSED));
        refusesCancelling(terms, stranger, notYours(id, stranger));
    }

    function test_withdrawn_terms_can_be_offered_anew_under_another_salt() external {
        AuthorizationTerms memory terms = termsOf();
        cancelsTerms(terms, consumer);
        terms.salt = "another";
        opens(openingOf(terms, 0), 0);
    }

    function test_what_was_never_seen_has_no_state() external view {
        IAuthorizations.Authorization memory none;
        assertSame(abi.encode(ledger.authorizationOf("unknown")), abi.encode(none), "authorization");
        assertEq(ledger.headDigestOf("unknown"), 0, "head");
        IUsageLedger.Reservation memory nothing;
        assertSame(abi.encode(ledger.reservationOf("unknown")), abi.encode(nothing), "reservation");
    }
}
