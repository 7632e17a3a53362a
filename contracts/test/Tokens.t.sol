// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {AuthorizationTerms, CompactTerms} from "../libraries/Terms.sol";
import {BlockingToken, FeeToken, NoReturnToken, PlainToken, ReentrantToken, ShrinkingToken} from "../mocks/Tokens.sol";
import {TokenWorld} from "./Attacks.t.sol";

/// @title What enters and leaves the ledger, in tokens good and bad
contract TokensTest is TokenWorld {
    // ---------------------------------------------------------------------------------------- in and out

    function test_an_account_holds_each_token_for_itself() external {
        PlainToken token = new PlainToken();
        AuthorizationTerms memory terms = termsIn(token);
        give(token, consumer, 1000);
        give(consumer, 500);
        fails(
            consumer,
            terms,
            abi.encodeCall(ledger.withdraw, (address(yuan), 501, consumer)),
            tooLow(consumer, address(yuan), 500, 501)
        );
        withdraws(token, consumer, 1000);
        assertFree(consumer, 500);
    }

    function test_the_largest_amount_goes_in_and_out() external {
        PlainToken token = new PlainToken();
        give(token, consumer, type(uint256).max);
        assertEq(ledger.freeOf(consumer, address(token)), type(uint256).max, "free");
        withdraws(token, consumer, type(uint256).max);
    }

    function test_a_token_that_returns_nothing_is_refunded_released_and_withdrawn() external {
        NoReturnToken token = new NoReturnToken();
        AuthorizationTerms memory terms = settledIn(token);
        CompactTerms memory compact = compactOf(terms);
        give(token, provider, 600);
        vm.prank(provider);
        ledger.refund(compact, 600);
        vm.warp(WINDOW_END + 1);
        ledger.finalize(compact);
        withdraws(token, consumer, RESERVE - PRICE + 1600);
        paysShare(token, agent, 861_000);
        assertEq(token.balanceOf(address(ledger)), PRICE - 861_000, "held");
    }

    // -------------------------------------------------------------------------------- what a token does later

    function test_a_fee_that_starts_later_is_the_receivers() external {
        FeeToken token = new FeeToken();
        settledIn(token);
        token.setFee(10);
        vm.prank(consumer);
        ledger.withdraw(address(token), 1000, consumer);
        assertEq(token.balanceOf(consumer), 990, "less the fee");
        assertEq(ledger.payShare(splitId, address(token), provider), HALF, "sent");
        assertEq(token.balanceOf(provider), HALF - 10, "less the fee");
        assertEq(token.balanceOf(address(ledger)), RESERVE - HALF, "the others' money is untouched");
    }

    function test_holdings_that_shrink_hurt_only_those_who_hold_that_token() external {
        ShrinkingToken token = new ShrinkingToken();
        AuthorizationTerms memory terms = settledIn(token);
        give(consumer, 500);
        token.shrink(address(ledger), RESERVE);
        paysShareOutOf(token, terms);
        withdraws(token, consumer, 1000);
        vm.prank(consumer);
        ledger.withdraw(address(yuan), 500, consumer);
        assertEq(yuan.balanceOf(consumer), 500, "the other token");

        token.mint(address(ledger), HALF);
        paysShare(token, provider, HALF);
    }

    /// @dev 1,000 are left for a share of HALF.
    function paysShareOutOf(ShrinkingToken token, AuthorizationTerms memory terms) private {
        bytes memory refusal = abi.encodeWithSelector(
            IERC20Errors.ERC20InsufficientBalance.selector,
            address(ledger),
            1000,
            HALF
        );
        fails(provider, terms, share(token, provider), refusal);
        assertEq(ledger.shareOf(splitId, address(token), provider), HALF, "still owed");
    }

    function test_whom_a_token_blocks_can_withdraw_to_another_wallet() external {
        BlockingToken token = new BlockingToken();
        AuthorizationTerms memory terms = settledIn(token);
        token.setBlocked(consumer);
        fails(
            consumer,
            terms,
            withdrawal(token, 1000, consumer),
            abi.encodeWithSelector(BlockingToken.Blocked.selector, consumer)
        );
        vm.prank(consumer);
        ledger.withdraw(address(token), 1000, stranger);
        assertEq(token.balanceOf(stranger), 1000, "withdrawn");
    }

    function test_a_token_that_blocks_the_ledger_stops_no_settlement_and_no_close() external {
        BlockingToken token = new BlockingToken();
        AuthorizationTerms memory terms = settledIn(token);
        bytes memory blocked = abi.encodeWithSelector(BlockingToken.Blocked.selector, address(ledger));
        token.setBlocked(address(ledger));
        fails(consumer, terms, withdrawal(token, 1000, consumer), blocked);
        fails(provider, terms, share(token, provider), blocked);
        ledger.settle(settlementOf(terms, firstHead(), headAt(START, 20, 130, 600)));
        ledger.closeTogether(closingOf(terms, headAt(START, 20, 130, 600), headAt(START, 20, 130, 600), 2_800_000));

        token.setBlocked(address(0));
        withdraws(token, consumer, RESERVE + 1000 - 2_800_000);
        paysShare(token, provider, 1_400_000);
        paysShare(token, operator, 420_000);
        paysShare(token, agent, 980_000);
        assertEq(token.balanceOf(address(ledger)), 0, "everybody has what is his");
    }

    // --------------------------------------------------------------------------------- calls within a transfer

    /// @dev The consumer withdraws 100, and meanwhile the token calls the ledger.
    function withdrawsWhile(ReentrantToken token, bytes memory inner) private {
        token.arm(address(ledger), inner);
        withdraws(token, consumer, 100);
        assertTrue(token.called(), "called");
    }

    function test_a_head_settled_within_a_transfer_pays_what_it_would_have_paid_after_it() external {
        ReentrantToken token = new ReentrantToken();
        AuthorizationTerms memory terms = settledIn(token);
        bytes memory settling = abi.encodeCall(
            ledger.settle,
            (settlementOf(terms, firstHead(), headAt(START, 20, 130, 600)))
        );
        withdrawsWhile(token, settling);
        assertTrue(token.succeeded(), "settled");
        assertPaid(terms, RESERVE, 2_800_000);
        assertEq(ledger.accruedOf(splitId, address(token)), 2_800_000, "accrued");
        assertEq(ledger.freeOf(consumer, address(token)), 900, "free");
        assertEq(token.balanceOf(address(ledger)), RESERVE + 900, "held");
    }

    function test_money_on_its_way_in_cannot_be_reserved_yet() external {
        ReentrantToken token = new ReentrantToken();
        AuthorizationTerms memory terms = termsIn(token);
        IAuthorizations.Opening memory opening = openingOf(terms, 1000);
        token.arm(address(ledger), abi.encodeCall(ledger.open, (opening)));
        give(token, consumer, 1000);
        assertTrue(token.called() && !token.succeeded(), "not yet");
        assertSame(token.answer(), tooLow(consumer, address(token), 0, 1000), "error");
        assertEq(ledger.freeOf(consumer, address(token)), 1000, "arrived");
        ledger.open(opening);
        assertPaid(terms, 1000, 0);
    }
}
