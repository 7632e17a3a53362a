// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {Acceptance, AuthorizationTerms, CompactTerms, Head, Requirement, Terms} from "../libraries/Terms.sol";
import {AgreeingWallet} from "../mocks/Wallets.sol";
import {Ledgers} from "./Ledgers.sol";

/// @title Ends that one side brings about
contract EndTest is Ledgers {
    uint32 private constant GRACE = 3 hours;

    AuthorizationTerms private terms;
    bytes32 private id;

    function has(bool invoiced, uint32 grace) private {
        terms = invoiced ? invoicedTermsOf() : termsOf();
        terms.revokeGrace = grace;
        terms.meteringAgent = agent;
        opened(terms, 0);
        id = idOf(terms);
    }

    function revocation() private view returns (bytes memory) {
        return abi.encodeCall(IAuthorizations.revoke, (terms, new Requirement[](0), 7));
    }

    function closure() private view returns (bytes memory) {
        return abi.encodeCall(IAuthorizations.close, (compactOf(terms), 9));
    }

    function refuses(address caller, bytes memory data, bytes memory problem) private {
        assertRefused(caller, address(ledgerFor(terms)), data, problem);
    }

    function ending(uint256 endedAt) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AuthorizationEnding.selector, id, endedAt);
    }

    function call(address caller, bytes memory data) private {
        address to = address(ledgerFor(terms));
        vm.recordLogs();
        vm.prank(caller);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, ) = to.call(data);
        assertTrue(done, "done");
    }

    function assertEnds(uint40 endedAt, bool over) private {
        address to = address(ledgerFor(terms));
        assertEmitted(to);
        IAuthorizations.Authorization memory found = IAuthorizations(to).authorizationOf(id);
        assertEq(found.endedAt, endedAt, "ended at");
        assertEq(found.status, over ? IAuthorizations.Status.ENDED : IAuthorizations.Status.OPEN, "status");
        assertEq(found.headDigest, 0, "head");
    }

    function revokes(address by, uint40 endedAt, bool over) private {
        call(by, revocation());
        emit IAuthorizations.Revoked(id, by, endedAt, 7);
        assertEnds(endedAt, over);
    }

    function closes(address by, uint40 endedAt, bool over) private {
        call(by, closure());
        emit IAuthorizations.ClosedEarly(id, by, endedAt, 9);
        assertEnds(endedAt, over);
    }

    // ---------------------------------------------------------------------------------------------- revoked

    function test_a_revocation_ends_after_its_grace() external {
        for (uint256 i = 0; i < 2; ++i) {
            vm.warp(START);
            has(i == 1, GRACE);
            vm.warp(START + 5);
            revokes(provider, NOW + 5 + GRACE, false);
            vm.warp(START + 4 + GRACE);
            assertEq(statusOf(terms), IAuthorizations.Status.OPEN, "open within the grace");
            vm.warp(START + 5 + GRACE);
            assertEq(statusOf(terms), IAuthorizations.Status.ENDED, "ended after it");
        }
    }

    function test_a_revocation_without_grace_ends_at_once() external {
        has(false, 0);
        revokes(operator, NOW, true);
    }

    function test_a_revocation_prolongs_nothing() external {
        has(false, GRACE);
        vm.warp(END - GRACE);
        refuses(provider, revocation(), ending(END));
        vm.warp(END - 1);
        refuses(provider, revocation(), ending(END));
        vm.warp(END - GRACE - 1);
        revokes(provider, END - 1, false);
        refuses(operator, revocation(), ending(END - 1));
        vm.warp(END - GRACE);
        refuses(operator, revocation(), ending(END - 1));
    }

    function test_what_has_ended_is_not_revoked() external {
        has(false, GRACE);
        vm.warp(END);
        refuses(provider, revocation(), notInState(id, IAuthorizations.Status.ENDED));
        finalized(terms);
        refuses(provider, revocation(), notInState(id, IAuthorizations.Status.CLOSED));
    }

    function test_what_was_never_opened_is_not_ended() external {
        for (uint256 i = 0; i < 2; ++i) {
            terms = i == 0 ? termsOf() : invoicedTermsOf();
            id = idOf(terms);
            refuses(provider, revocation(), notInState(id, IAuthorizations.Status.NONE));
            refuses(consumer, closure(), notInState(id, IAuthorizations.Status.NONE));
            cancelledBy(provider, terms);
            refuses(provider, revocation(), notInState(id, IAuthorizations.Status.CANCELLED));
            refuses(consumer, closure(), notInState(id, IAuthorizations.Status.CANCELLED));
        }
    }

    function test_strangers_consumer_and_agent_revoke_nothing() external {
        has(false, GRACE);
        refuses(stranger, revocation(), notYours(id, stranger));
        refuses(consumer, revocation(), notYours(id, consumer));
        refuses(agent, revocation(), notYours(id, agent));
    }

    // ----------------------------------------------------------------------------------------------- closed

    function test_a_consumer_closes_at_once() external {
        for (uint256 i = 0; i < 2; ++i) {
            vm.warp(START);
            has(i == 1, GRACE);
            vm.warp(START + 5);
            closes(consumer, NOW + 5, true);
            refuses(consumer, closure(), notInState(id, IAuthorizations.Status.ENDED));
            refuses(provider, closure(), notInState(id, IAuthorizations.Status.ENDED));
            refuses(provider, revocation(), notInState(id, IAuthorizations.Status.ENDED));
        }
    }

    function test_a_provider_closes_after_the_grace() external {
        has(false, GRACE);
        closes(provider, NOW + GRACE, false);
        vm.warp(START + GRACE - 1);
        assertEq(statusOf(terms), IAuthorizations.Status.OPEN, "open within the grace");
        vm.warp(START + GRACE);
        assertEq(statusOf(terms), IAuthorizations.Status.ENDED, "ended after it");
    }

    function test_a_provider_closes_at_once_where_there_is_no_grace() external {
        has(true, 0);
        closes(provider, NOW, true);
    }

    function test_a_close_prolongs_nothing() external {
        has(false, GRACE);
        vm.warp(END - GRACE);
        refuses(provider, closure(), ending(END));
        vm.warp(END - GRACE - 1);
        closes(provider, END - 1, false);
        vm.warp(END - GRACE);
        refuses(provider, closure(), ending(END - 1));
    }

    function test_a_consumer_closes_within_the_grace_and_until_the_last_second() external {
        has(false, GRACE);
        closes(provider, NOW + GRACE, false);
        vm.warp(START + GRACE - 1);
        closes(consumer, NOW + GRACE - 1, true);
    }

    function test_the_last_second_can_be_closed_and_the_end_cannot() external {
        has(false, 0);
        vm.warp(END);
        refuses(consumer, closure(), notInState(id, IAuthorizations.Status.ENDED));
        vm.warp(END - 1);
        closes(consumer, END - 1, true);
        finalized(terms);
        refuses(consumer, closure(), notInState(id, IAuthorizations.Status.CLOSED));
    }

    function test_only_the_parties_close() external {
        has(false, GRACE);
        refuses(stranger, closure(), notYours(id, stranger));
        refuses(operator, closure(), notYours(id, operator));
        refuses(agent, closure(), notYours(id, agent));
    }

    function test_an_earlier_end_keeps_the_settled_head() external {
        has(false, 0);
        settle(terms, noHead(), firstHead(0));
        closedBy(consumer, terms);
        IAuthorizations.Authorization memory found = ledger.authorizationOf(id);
        assertEq(found.headDigest, digestOf(terms, firstHead(0)), "head");
        assertEq(uint256(found.basis), uint256(IAuthorizations.Basis.CONSUMER), "basis");
    }
}

/// @title What the tests of closes by both share
abstract contract ClosingSteps is Ledgers {
    function closeSigned(
        uint256 providerKey,
        uint256 consumerKey,
        AuthorizationTerms memory terms,
        IAuthorizations.Closing memory closing
    ) internal view returns (IAuthorizations.Closing memory) {
        bytes32 digest = digests.close(address(ledgerFor(terms)), closing.close);
        closing.providerSignature = providerKey == 0 ? bytes("") : sign(providerKey, digest);
        closing.consumerSignature = consumerKey == 0 ? bytes("") : sign(consumerKey, digest);
        return closing;
    }

    function refusesClosing(
        AuthorizationTerms memory terms,
        IAuthorizations.Closing memory closing,
        bytes memory problem
    ) internal {
        bytes memory data = abi.encodeCall(IAuthorizations.closeTogether, (closing));
        assertRefused(stranger, address(ledgerFor(terms)), data, problem);
    }

    function closeInvalid(bytes32 id, uint128 finalPaid, uint256 due) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.CloseInvalid.selector, id, finalPaid, due);
    }

    /// @dev Closed by anyone; the event is exactly this, and so is the state.
    function closesTogether(
        AuthorizationTerms memory terms,
        IAuthorizations.Closing memory closing,
        uint128[3] memory amounts, // due, paid, released
        uint40 endedAt
    ) internal {
        bytes32 id = idOf(terms);
        IAuthorizations to = ledgerFor(terms);
        uint256 before = ledger.freeOf(consumer, address(yuan));
        vm.recordLogs();
        vm.prank(stranger);
        to.closeTogether(closing);
        emit IAuthorizations.ClosedTogether(id, closing.head, amounts[0], amounts[1], amounts[2], endedAt);
        assertEmitted(address(to));
        bool none = closing.head.size == 0;
        IAuthorizations.Authorization memory expected = IAuthorizations.Authorization({
            headDigest: none ? bytes32(0) : digestOf(terms, closing.head),
            status: IAuthorizations.Status.CLOSED,
            basis: none ? IAuthorizations.Basis.NONE : IAuthorizations.Basis.CONSUMER,
            depth: 0,
            endedAt: endedAt
        });
        assertSame(abi.encode(to.authorizationOf(id)), abi.encode(expected), "authorization");
        assertEq(ledger.freeOf(consumer, address(yuan)), before + amounts[2], "free");
        if (address(to) == address(invoices)) return;
        IUsageLedger.Reservation memory left = ledger.reservationOf(id);
        assertEq(left.reserved, amounts[1], "reserved");
        assertEq(left.paid, amounts[1], "paid");
        assertEq(left.thawing, 0, "thawing");
    }

    /// @dev One call more than firstHead(): 6,000 units of money.
    function nextHead() internal pure returns (Head memory) {
        return headAt(11, [uint64(121), 500, 0, 0], 0, NOW);
    }
}

/// @title Closing together, in escrow and by invoice
contract CloseTogetherTest is ClosingSteps {
    AuthorizationTerms private terms;
    bytes32 private id;

    function has(bool invoiced, uint128 reserve) private {
        terms = openedOn(invoiced, reserve);
        id = idOf(terms);
    }

    function closingAt(
        Head memory previous,
        Head memory head,
        uint128 finalPaid
    ) private view returns (IAuthorizations.Closing memory) {
        return closingOf(terms, previous, head, finalPaid);
    }

    function refusesAmount(Head memory previous, Head memory head, uint128 finalPaid, uint256 due) private {
        refusesClosing(terms, closingAt(previous, head, finalPaid), closeInvalid(id, finalPaid, due));
    }

    // ------------------------------------------------------------------------------------ escrowed: amounts

    function test_the_settled_head_is_closed_at_what_was_paid() external {
        has(false, PRICE + 50);
        settle(terms, noHead(), firstHead(0));
        refusesAmount(noHead(), firstHead(0), PRICE - 1, PRICE);
        refusesAmount(noHead(), firstHead(0), PRICE + 1, PRICE);
        refusesAmount(noHead(), firstHead(0), 0, PRICE);
        refusesAmount(noHead(), firstHead(0), type(uint128).max, PRICE);
        vm.warp(START + 5);
        closesTogether(terms, closingAt(noHead(), firstHead(0), PRICE), [PRICE, PRICE, 50], NOW + 5);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function closesNewer(uint128 reserve, uint128 finalPaid) private {
        has(false, reserve);
        settle(terms, noHead(), firstHead(0));
        uint256 before = ledger.accruedOf(splitId, address(yuan));
        uint128[3] memory amounts = [PRICE + 6_000, finalPaid, reserve - finalPaid];
        closesTogether(terms, closingAt(firstHead(0), nextHead(), finalPaid), amounts, NOW);
        assertEq(ledger.accruedOf(splitId, address(yuan)), before + finalPaid - PRICE, "accrued");
    }

    function test_a_newer_head_is_closed_between_what_was_paid_and_what_is_due() external {
        has(false, 10_000_000);
        settle(terms, noHead(), firstHead(0));
        refusesAmount(firstHead(0), nextHead(), PRICE - 1, PRICE + 6_000);
        refusesAmount(firstHead(0), nextHead(), PRICE + 6_001, PRICE + 6_000);
        closesNewer(10_000_000, PRICE);
        closesNewer(10_000_000, PRICE + 1);
        closesNewer(10_000_000, PRICE + 5_999);
        closesNewer(10_000_000, PRICE + 6_000);
    }

    function test_no_more_is_paid_in_the_end_than_is_reserved() external {
        has(false, PRICE + 5);
        settle(terms, noHead(), firstHead(0));
        refusesAmount(firstHead(0), nextHead(), PRICE + 6, PRICE + 6_000);
        closesNewer(PRICE + 5, PRICE + 5);
    }

    function test_a_first_head_is_closed_without_having_been_settled() external {
        has(false, PRICE + 7);
        refusesAmount(noHead(), firstHead(0), PRICE + 1, PRICE);
        closesTogether(terms, closingAt(noHead(), firstHead(0), PRICE), [PRICE, PRICE, 7], NOW);
        has(false, PRICE + 7);
        closesTogether(terms, closingAt(noHead(), firstHead(0), 0), [PRICE, 0, PRICE + 7], NOW);
    }

    function test_what_was_never_used_is_closed_for_nothing() external {
        has(false, 700);
        refusesAmount(noHead(), noHead(), 1, 0);
        vm.warp(START + 5);
        closesTogether(terms, closingAt(noHead(), noHead(), 0), [uint128(0), 0, 700], NOW + 5);
    }

    function test_arrears_are_forgiven_where_the_reservation_is_too_small() external {
        has(false, PRICE - 10);
        settle(terms, noHead(), firstHead(0));
        refusesAmount(noHead(), firstHead(0), PRICE - 11, PRICE);
        refusesAmount(noHead(), firstHead(0), PRICE - 9, PRICE);
        refusesAmount(noHead(), firstHead(0), PRICE, PRICE);
        closesTogether(terms, closingAt(noHead(), firstHead(0), PRICE - 10), [PRICE, PRICE - 10, 0], NOW);
    }

    function test_credits_take_back_nothing_that_was_paid() external {
        has(false, PRICE + 50);
        settle(terms, noHead(), firstHead(0));
        Head memory credited = headAt(11, [uint64(120), 500, 0, 0], 100, NOW);
        refusesAmount(firstHead(0), credited, PRICE - 100, PRICE - 100);
        refusesAmount(firstHead(0), credited, PRICE + 1, PRICE - 100);
        closesTogether(terms, closingAt(firstHead(0), credited, PRICE), [PRICE - 100, PRICE, 50], NOW);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function test_what_thaws_is_released_or_paid() external {
        has(false, 10_000_000);
        CompactTerms memory compact = compactOf(terms);
        vm.prank(consumer);
        ledger.thaw(compact, 10_000_000);
        uint128[3] memory amounts = [PRICE, PRICE, 10_000_000 - PRICE];
        closesTogether(terms, closingAt(noHead(), firstHead(0), PRICE), amounts, NOW);
    }

    /// @dev Both sign a head that would be priced at 2^129.
    function test_what_is_due_in_the_end_is_never_told_wrong() external {
        terms = termsOf();
        terms.rateCard = cardAt(1, 1 << 127, terms.token);
        terms.maxUnits = [uint64(9), 0, 0, 0];
        opened(terms, 100);
        id = idOf(terms);
        Head memory head = headAt(10, [uint64(4), 0, 0, 0], 0, NOW);
        refusesClosing(terms, closingAt(noHead(), head, 100), tooLarge(1 << 129));
    }

    // ---------------------------------------------------------------------------------------------- invoiced

    function test_an_invoice_is_closed_at_the_price_or_less() external {
        has(true, 0);
        settle(terms, noHead(), firstHead(0));
        refusesAmount(noHead(), firstHead(0), PRICE + 1, PRICE);
        closesTogether(terms, closingAt(noHead(), firstHead(0), PRICE), [PRICE, 0, 0], NOW);
        assertEq(invoices.invoicedOf(id).due, PRICE, "due");
    }

    function test_an_invoice_may_be_forgiven() external {
        has(true, 0);
        settle(terms, noHead(), firstHead(0));
        closesTogether(terms, closingAt(noHead(), firstHead(0), 0), [uint128(0), 0, 0], NOW);
        assertEq(invoices.invoicedOf(id).due, 0, "due");
    }

    function test_an_invoice_is_closed_at_a_newer_head_whatever_was_paid() external {
        has(true, 0);
        settle(terms, noHead(), firstHead(0));
        CompactTerms memory compact = compactOf(terms);
        vm.prank(provider);
        invoices.recordPayment(compact, "payment", 77);
        refusesAmount(firstHead(0), nextHead(), PRICE + 6_001, PRICE + 6_000);
        closesTogether(terms, closingAt(firstHead(0), nextHead(), 5), [uint128(5), 77, 0], NOW);
        assertEq(invoices.invoicedOf(id).due, 5, "due");
        assertEq(invoices.invoicedOf(id).paid, 77, "paid");
    }

    function test_an_invoice_that_was_never_used_is_closed_for_nothing() external {
        has(true, 0);
        refusesAmount(noHead(), noHead(), 1, 0);
        closesTogether(terms, closingAt(noHead(), noHead(), 0), [uint128(0), 0, 0], NOW);
    }

    function test_an_invoices_end_fits_into_96_bits() external {
        terms = invoicedTermsOf();
        terms.rateCard = cardAt(1, 1 << 127, terms.token);
        terms.maxUnits = [uint64(9), 0, 0, 0];
        opened(terms, 0);
        id = idOf(terms);
        Head memory head = headAt(10, [uint64(4), 0, 0, 0], 0, NOW);
        refusesClosing(terms, closingAt(noHead(), head, 1 << 96), tooLarge(1 << 96));
    }

    // -------------------------------------------------------------------------------------------------- ends

    function test_a_close_keeps_an_earlier_end() external {
        for (uint256 i = 0; i < 2; ++i) {
            vm.warp(START);
            has(i == 1, 0);
            vm.warp(START + 5);
            closedBy(consumer, terms);
            vm.warp(START + 9);
            closesTogether(terms, closingAt(noHead(), noHead(), 0), [uint128(0), 0, 0], NOW + 5);
        }
    }

    function test_a_close_brings_a_later_end_forward() external {
        terms = termsOf();
        terms.revokeGrace = 100;
        opened(terms, 0);
        id = idOf(terms);
        revokedBy(provider, terms);
        vm.warp(START + 99);
        closesTogether(terms, closingAt(noHead(), noHead(), 0), [uint128(0), 0, 0], NOW + 99);
    }

    function test_the_settled_head_is_closed_even_after_the_window() external {
        has(false, PRICE);
        settle(terms, noHead(), firstHead(0));
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE);
        closing.close.deadline = WINDOW_END + 9;
        closeSigned(PROVIDER, CONSUMER, terms, closing);
        IAuthorizations.Closing memory newer = closingAt(firstHead(0), nextHead(), PRICE);
        newer.close.deadline = WINDOW_END + 9;
        closeSigned(PROVIDER, CONSUMER, terms, newer);
        vm.warp(WINDOW_END + 9);
        refusesClosing(terms, newer, windowOver(id, WINDOW_END, WINDOW_END + 9));
        closesTogether(terms, closing, [PRICE, PRICE, 0], END);
    }

    function test_a_close_is_good_until_its_last_second() external {
        has(false, PRICE);
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE);
        closing.close.deadline = NOW + 9;
        closeSigned(PROVIDER, CONSUMER, terms, closing);
        vm.warp(START + 10);
        refusesClosing(terms, closing, closeInvalid(id, PRICE, PRICE));
        vm.warp(START + 9);
        closesTogether(terms, closing, [PRICE, PRICE, 0], NOW + 9);
    }

    // ------------------------------------------------------------------------------------------------ agreed

    function test_a_close_names_its_head() external {
        has(false, PRICE + 10_000);
        settle(terms, noHead(), firstHead(0));
        IAuthorizations.Closing memory closing = closingAt(firstHead(0), nextHead(), PRICE);
        closing.close.headDigest = digestOf(terms, firstHead(0));
        refusesClosing(terms, closeSigned(PROVIDER, CONSUMER, terms, closing), closeInvalid(id, PRICE, PRICE + 6_000));
        closing = closingAt(noHead(), firstHead(0), PRICE);
        closing.close.headDigest = 0;
        refusesClosing(terms, closeSigned(PROVIDER, CONSUMER, terms, closing), closeInvalid(id, PRICE, PRICE));
        closing.close.headDigest = digestOf(terms, nextHead());
        refusesClosing(terms, closeSigned(PROVIDER, CONSUMER, terms, closing), closeInvalid(id, PRICE, PRICE));
    }

    function test_a_close_names_its_authorization() external {
        has(false, PRICE);
        bytes32 other = idOf(openedOn(false, PRICE));
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE);
        closing.close.authorizationId = other;
        refusesClosing(terms, closeSigned(PROVIDER, CONSUMER, terms, closing), closeInvalid(id, PRICE, PRICE));
        closing = closingAt(noHead(), noHead(), 0);
        closing.close.authorizationId = other;
        refusesClosing(terms, closeSigned(PROVIDER, CONSUMER, terms, closing), closeInvalid(id, 0, 0));
    }

    function refusesKeys(uint256 providerKey, uint256 consumerKey, address missing) private {
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE);
        bytes memory problem = notSignedBy(missing);
        refusesClosing(terms, closeSigned(providerKey, consumerKey, terms, closing), problem);
        assertRefused(
            missing,
            address(ledgerFor(terms)),
            abi.encodeCall(IAuthorizations.closeTogether, (closing)),
            problem
        );
    }

    function test_both_wallets_sign_a_close() external {
        for (uint256 i = 0; i < 2; ++i) {
            has(i == 1, PRICE);
            refusesKeys(0, CONSUMER, provider);
            refusesKeys(PROVIDER, 0, consumer);
            refusesKeys(STRANGER, CONSUMER, provider);
            refusesKeys(PROVIDER, STRANGER, consumer);
            refusesKeys(CONSUMER, CONSUMER, provider);
            refusesKeys(PROVIDER, PROVIDER, consumer);
            refusesKeys(CONSUMER, PROVIDER, provider);
            assertEq(statusOf(terms), IAuthorizations.Status.OPEN, "open");
        }
    }

    function test_a_metering_agent_closes_nothing() external {
        terms = termsOf();
        terms.meteringAgent = agent;
        opened(terms, PRICE);
        refusesKeys(PROVIDER, AGENT, consumer);
        refusesKeys(AGENT, CONSUMER, provider);
    }

    function test_contract_wallets_sign_a_close_by_their_own_word() external {
        has(false, PRICE);
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE);
        closeSigned(0, 0, terms, closing);
        vm.etch(provider, type(AgreeingWallet).runtimeCode);
        refusesClosing(terms, closing, notSignedBy(consumer));
        vm.etch(consumer, type(AgreeingWallet).runtimeCode);
        closesTogether(terms, closing, [PRICE, PRICE, 0], NOW);
    }

    function test_nothing_in_a_close_can_be_altered() external {
        has(false, PRICE);
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE - 5);
        closing.close.finalPaid += 1;
        refusesClosing(terms, closing, notSignedBy(provider));
        closing.close.finalPaid -= 1;
        closing.close.deadline += 1;
        refusesClosing(terms, closing, notSignedBy(provider));
        closing.close.deadline -= 1;
        closing.providerSignature = sign(PROVIDER, digests.close(address(invoices), closing.close));
        refusesClosing(terms, closing, notSignedBy(provider));
        closeSigned(PROVIDER, CONSUMER, terms, closing);
        closesTogether(terms, closing, [PRICE, PRICE - 5, 5], NOW);
    }

    // ---------------------------------------------------------------------------------------- newer heads

    function test_a_newer_head_is_checked_like_any_other() external {
        has(false, PRICE + 10_000);
        settle(terms, noHead(), firstHead(5));
        bytes memory problem = moved(id, digestOf(terms, firstHead(5)));
        refusesClosing(terms, closingAt(noHead(), nextHead(), PRICE), problem);
        refusesClosing(terms, closingAt(noHead(), noHead(), PRICE), problem);
        refusesClosing(terms, closingAt(firstHead(5), noHead(), PRICE), stale(id, 10, 0));
        refusesClosing(terms, closingAt(firstHead(5), firstHead(6), PRICE), stale(id, 10, 10));
        refusesClosing(terms, closingAt(firstHead(5), nextHead(), PRICE), lower(id));
        refusesClosing(
            terms,
            closingAt(firstHead(5), headAt(11, [uint64(120), 500, 1, 0], 5, NOW), PRICE),
            abi.encodeWithSelector(IAuthorizations.HeadOverQuota.selector, id, 2, 1, 0)
        );
        refusesClosing(
            terms,
            closingAt(firstHead(5), headAt(11, [uint64(120), 500, 0, 0], 5, NOW + 1), PRICE),
            abi.encodeWithSelector(IAuthorizations.HeadInFuture.selector, id, NOW + 1, NOW)
        );
    }

    function test_a_newer_head_of_long_after_the_end_has_no_new_units() external {
        has(false, PRICE + 10_000);
        settle(terms, noHead(), firstHead(0));
        closedBy(consumer, terms);
        uint40 late = uint40(NOW + SKEW + 1);
        vm.warp(late);
        Head memory head = headAt(11, [uint64(121), 500, 0, 0], 0, late);
        refusesClosing(terms, closingAt(firstHead(0), head, PRICE), afterEnd(id, late, NOW));
        head.asOf = late - 1;
        closesTogether(terms, closingAt(firstHead(0), head, PRICE), [PRICE + 6_000, PRICE, 10_000], NOW);
    }

    function test_a_newer_head_extends_the_settled_log() external {
        has(false, PRICE + 10_000);
        settle(terms, noHead(), firstHead(0));
        IAuthorizations.Closing memory closing = closingAt(firstHead(0), nextHead(), PRICE);
        bytes32[] memory proof = closing.consistency;
        closing.consistency = new bytes32[](0);
        refusesClosing(terms, closing, inconsistent(id, 10, 11));
        closing.consistency = proof;
        closesTogether(terms, closing, [PRICE + 6_000, PRICE, 10_000], NOW);
    }

    function test_fast_terms_close_without_a_proof() external {
        terms = termsOf();
        terms.flags = Terms.FAST;
        opened(terms, PRICE + 10_000);
        id = idOf(terms);
        settle(terms, noHead(), firstHead(0));
        IAuthorizations.Closing memory closing = closingAt(firstHead(0), nextHead(), PRICE);
        closing.consistency = new bytes32[](0);
        closesTogether(terms, closing, [PRICE + 6_000, PRICE, 10_000], NOW);
    }

    function test_an_agents_head_becomes_the_consumers_by_a_close() external {
        terms = termsOf();
        terms.meteringAgent = agent;
        opened(terms, PRICE);
        id = idOf(terms);
        ledger.settle(signedBy(PROVIDER, AGENT, terms, settlementOf(terms, noHead(), firstHead(0))));
        closesTogether(terms, closingAt(noHead(), firstHead(0), PRICE), [PRICE, PRICE, 0], NOW);
    }

    // ----------------------------------------------------------------------------------------- afterwards

    function test_only_what_is_open_is_closed_together() external {
        terms = termsOf();
        id = idOf(terms);
        IAuthorizations.Closing memory closing = closingAt(noHead(), noHead(), 0);
        refusesClosing(terms, closing, notInState(id, IAuthorizations.Status.NONE));
        cancelledBy(consumer, terms);
        refusesClosing(terms, closing, notInState(id, IAuthorizations.Status.CANCELLED));
        has(true, 0);
        finalized(terms);
        refusesClosing(terms, closingAt(noHead(), noHead(), 0), notInState(id, IAuthorizations.Status.CLOSED));
    }

    function refusesAll(address to) private {
        bytes memory problem = notInState(id, IAuthorizations.Status.CLOSED);
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations.Closing memory closing = closingAt(noHead(), firstHead(0), PRICE);
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        Requirement[] memory none = new Requirement[](0);
        IAuthorizations.Settlement memory row = settlementOf(terms, firstHead(0), nextHead());
        assertRefused(stranger, to, abi.encodeCall(IAuthorizations.settle, (row)), problem);
        assertRefused(stranger, to, abi.encodeCall(IAuthorizations.closeTogether, (closing)), problem);
        assertRefused(stranger, to, abi.encodeCall(IAuthorizations.renew, (closing, opening)), problem);
        assertRefused(stranger, to, abi.encodeCall(IAuthorizations.open, (opening)), problem);
        assertRefused(consumer, to, abi.encodeCall(IAuthorizations.close, (compact, 1)), problem);
        assertRefused(provider, to, abi.encodeCall(IAuthorizations.revoke, (terms, none, 1)), problem);
        assertRefused(stranger, to, abi.encodeCall(IAuthorizations.finalize, (compact)), problem);
        assertRefused(consumer, to, abi.encodeCall(IAuthorizations.cancelTerms, (compact)), problem);
        IAuthorizations.Settlement[] memory rows = new IAuthorizations.Settlement[](1);
        rows[0] = row;
        vm.recordLogs();
        IAuthorizations(to).settleMany(rows);
        emit IAuthorizations.SettlementSkipped(0, id, problem);
        assertEmitted(to);
    }

    function test_what_both_closed_stays_closed_for_ever() external {
        has(false, PRICE);
        ledger.closeTogether(closingAt(noHead(), firstHead(0), PRICE));
        refusesAll(address(ledger));
        bytes memory problem = notInState(id, IAuthorizations.Status.CLOSED);
        CompactTerms memory compact = compactOf(terms);
        assertRefused(consumer, address(ledger), abi.encodeCall(ledger.thaw, (compact, 0)), problem);
        assertRefused(stranger, address(ledger), abi.encodeCall(ledger.releaseThawed, (compact)), problem);
        assertRefused(stranger, address(ledger), abi.encodeCall(ledger.topUp, (compact, firstHead(0), 1)), problem);
        vm.warp(WINDOW_END + 1);
        assertRefused(stranger, address(ledger), abi.encodeCall(IAuthorizations.finalize, (compact)), problem);
    }

    function test_an_invoice_that_both_closed_stays_closed_for_ever() external {
        has(true, 0);
        invoices.closeTogether(closingAt(noHead(), firstHead(0), PRICE));
        refusesAll(address(invoices));
    }
}

/// @title Renewals
contract RenewTest is ClosingSteps {
    AuthorizationTerms private terms;
    bytes32 private id;

    function has(bool invoiced, uint128 reserve) private {
        terms = openedOn(invoiced, reserve);
        id = idOf(terms);
    }

    function successorOf(AuthorizationTerms memory before) private returns (AuthorizationTerms memory next) {
        next = before.flags & Terms.INVOICED == 0 ? termsOf() : invoicedTermsOf();
        next.scope.supersedes = idOf(before);
    }

    function refusesRenewal(
        IAuthorizations.Closing memory closing,
        IAuthorizations.Opening memory opening,
        bytes memory problem
    ) private {
        address to = address(ledgerFor(terms));
        bytes memory before = abi.encode(ledgerFor(terms).authorizationOf(id), ledger.reservationOf(id));
        uint256 free = ledger.freeOf(consumer, address(yuan));
        assertRefused(stranger, to, abi.encodeCall(IAuthorizations.renew, (closing, opening)), problem);
        bytes memory found = abi.encode(ledgerFor(terms).authorizationOf(id), ledger.reservationOf(id));
        assertSame(found, before, "as it was");
        assertEq(ledger.freeOf(consumer, address(yuan)), free, "free");
        assertEq(statusOf(opening.terms), IAuthorizations.Status.NONE, "not opened");
    }

    /// @dev By anyone; the two events of the parts, then that of the whole.
    function renews(
        IAuthorizations.Closing memory closing,
        IAuthorizations.Opening memory opening,
        uint128[3] memory amounts, // due, paid, released
        uint40 endedAt
    ) private returns (bytes32 successor) {
        IAuthorizations to = ledgerFor(terms);
        AuthorizationTerms memory next = opening.terms;
        successor = idOf(next);
        vm.recordLogs();
        vm.prank(stranger);
        bytes32 found = to.renew(closing, opening);
        emit IAuthorizations.ClosedTogether(id, closing.head, amounts[0], amounts[1], amounts[2], endedAt);
        emit IAuthorizations.Opened(successor, provider, consumer, next, opening.acceptance.reserve, 0);
        emit IAuthorizations.Renewed(id, successor);
        assertEmitted(address(to));
        assertEq(found, successor, "successor");
        assertEq(to.authorizationOf(id).status, IAuthorizations.Status.CLOSED, "closed");
        assertEq(to.authorizationOf(successor).status, IAuthorizations.Status.OPEN, "open");
    }

    function test_the_reservation_moves_on_to_the_successor() external {
        has(false, PRICE + 700);
        settle(terms, noHead(), firstHead(0));
        AuthorizationTerms memory next = successorOf(terms);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), firstHead(0), PRICE);
        renews(closing, openingOf(next, 700), [PRICE, PRICE, 700], NOW);
        (uint256 reserved, uint256 paid) = reservationOf(next);
        assertEq(reserved, 700, "reserved");
        assertEq(paid, 0, "paid");
        assertEq(ledger.freeOf(consumer, address(yuan)), 0, "all of it moved");
        settle(next, noHead(), headAt(3, [uint64(0), 0, 0, 0], 0, NOW));
    }

    function test_an_invoice_is_renewed() external {
        has(true, 0);
        AuthorizationTerms memory next = successorOf(terms);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), firstHead(0), PRICE);
        renews(closing, openingOf(next, 0), [PRICE, 0, 0], NOW);
    }

    function test_a_renewal_is_to_terms_that_supersede_what_is_closed() external {
        has(false, 700);
        bytes memory problem = abi.encodeWithSelector(IAdmission.TermsInvalid.selector, "scope.supersedes");
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), noHead(), 0);
        AuthorizationTerms memory next = termsOf();
        refusesRenewal(closing, openingOf(next, 700), problem);
        next.scope.supersedes = idOf(openedOn(false, 0));
        refusesRenewal(closing, openingOf(next, 700), problem);
        next.scope.supersedes = bytes32(uint256(id) ^ 1);
        refusesRenewal(closing, openingOf(next, 700), problem);
        next.scope.supersedes = id;
        renews(closing, openingOf(next, 700), [uint128(0), 0, 700], NOW);
    }

    function test_nothing_is_closed_where_the_successor_cannot_be_opened() external {
        has(false, 700);
        AuthorizationTerms memory next = successorOf(terms);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), noHead(), 0);
        bytes4 tooLow = IUsageLedger.BalanceTooLow.selector;
        refusesRenewal(
            closing,
            openingOf(next, 701),
            abi.encodeWithSelector(tooLow, consumer, address(yuan), 700, 701)
        );
        IAuthorizations.Opening memory opening = openingOf(next, 700);
        opening.consumerSignature = "";
        refusesRenewal(closing, opening, notSignedBy(consumer));
    }

    function test_nothing_is_opened_where_the_predecessor_cannot_be_closed() external {
        has(false, 700);
        give(consumer, 700);
        AuthorizationTerms memory next = successorOf(terms);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), noHead(), 1);
        refusesRenewal(closing, openingOf(next, 700), closeInvalid(id, 1, 0));
        closing = closingOf(terms, noHead(), noHead(), 0);
        closing.providerSignature = "";
        refusesRenewal(closing, openingOf(next, 700), notSignedBy(provider));
    }

    function test_terms_that_supersede_may_be_opened_beside_what_they_follow() external {
        has(false, 0);
        AuthorizationTerms memory next = successorOf(terms);
        ledger.open(openingOf(next, 0));
        assertEq(statusOf(terms), IAuthorizations.Status.OPEN, "open still");
        assertEq(statusOf(next), IAuthorizations.Status.OPEN, "open too");
    }

    /// @dev Signed at START for the n-th period of ten days.
    function signedAhead(bytes32 predecessor, uint40 period) private returns (IAuthorizations.Opening memory opening) {
        AuthorizationTerms memory next = termsOf();
        next.scope.supersedes = predecessor;
        next.validFrom = uint40(NOW + period * 10 * DAY);
        next.validUntil = uint40(next.validFrom + 10 * DAY);
        bytes32 nextId = idOf(next);
        opening.terms = next;
        opening.acceptance = Acceptance(nextId, 3_000_000, next.validFrom);
        opening.providerSignature = sign(PROVIDER, nextId);
        opening.consumerSignature = sign(CONSUMER, nextId);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(ledger), opening.acceptance));
    }

    /// @dev One period's use is settled at its end, and the successor opened in time.
    function test_three_renewals_signed_ahead_follow_each_other() external {
        give(consumer, 3 * PRICE);
        has(false, 3_000_000);
        IAuthorizations.Opening[3] memory series;
        bytes32 last = id;
        for (uint40 n = 0; n < 3; ++n) {
            series[n] = signedAhead(last, n + 1);
            last = idOf(series[n].terms);
        }
        for (uint40 n = 0; n < 3; ++n) passesPeriod(series[n], uint40(NOW + (n + 1) * 10 * DAY));
        assertEq(id, last, "the last one");
        (uint256 reserved, uint256 paid) = reservationOf(terms);
        assertEq(reserved, 3_000_000, "reserved");
        assertEq(paid, 0, "paid");
        assertEq(ledger.freeOf(consumer, address(yuan)), 0, "three times the price");
        assertEq(ledger.accruedOf(splitId, address(yuan)), 3 * PRICE, "accrued");
    }

    function passesPeriod(IAuthorizations.Opening memory next, uint40 end) private {
        Head memory head = headAt(10, [uint64(120), 500, 0, 0], 0, end);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), head, PRICE);
        closing.close.deadline = end;
        closeSigned(PROVIDER, CONSUMER, terms, closing);
        vm.warp(end + 1);
        refusesRenewal(closing, next, closeInvalid(id, PRICE, PRICE));
        vm.warp(end);
        id = renews(closing, next, [PRICE, PRICE, 3_000_000 - PRICE], end);
        terms = next.terms;
    }
}
