// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC2771Forwarder} from "@openzeppelin/contracts/metatx/ERC2771Forwarder.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {UsageLedger} from "../UsageLedger.sol";
import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {ISubsidyPool} from "../interfaces/ISubsidyPool.sol";
import {IUsageEvidence} from "../interfaces/IUsageEvidence.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {CodeStore} from "../libraries/CodeStore.sol";
import {Meter, Pricing, RateCard, Tier} from "../libraries/Pricing.sol";
import {Share, Splits} from "../libraries/Splits.sol";
import {
    Approval,
    AuthorizationTerms,
    CompactTerms,
    Head,
    Offer,
    Requirement,
    Terms,
    UsageCeiling
} from "../libraries/Terms.sol";
import {UsageLeaf} from "../libraries/UsageLog.sol";
import {
    BlockingToken,
    FallbackToken,
    FalseToken,
    FeeToken,
    LyingToken,
    NoReturnToken,
    PausingToken,
    ReentrantToken,
    TestToken
} from "../mocks/Tokens.sol";
import {
    AgreeingWallet,
    BombWallet,
    BurningWallet,
    FickleWallet,
    LongWindedWallet,
    RefusingWallet
} from "../mocks/Wallets.sol";
import {Checks} from "./Checks.sol";
import {Tree} from "./Tree.sol";
import {Vm} from "./Vm.sol";
import {World} from "./World.sol";

/// @title What the tests of attacks share
abstract contract Attacks is World, Checks {
    uint256 internal constant END = START + 10 * DAY; // of termsOf
    uint256 internal constant WINDOW_END = END + DAY;
    uint128 internal constant RESERVE = 5_000_000;
    uint128 internal constant PRICE = 2_460_000; // of 120 calls and 500 rows

    // --------------------------------------------------------------------------------------- who holds what

    /// @dev All that an attack on an authorization could change: what the ledger holds, owes and has written down.
    function booksOf(AuthorizationTerms memory terms) internal view returns (bytes memory) {
        bytes32 id = idOf(terms);
        IERC20 token = IERC20(terms.token);
        address[7] memory all = [terms.provider, terms.consumer, provider, consumer, agent, operator, stranger];
        uint256[7] memory free;
        uint256[7] memory held;
        for (uint256 i = 0; i < 7; ++i) {
            (free[i], held[i]) = (ledger.freeOf(all[i], terms.token), token.balanceOf(all[i]));
        }
        uint256 accrued = ledger.accruedOf(terms.split, terms.token);
        uint256 holdings = token.balanceOf(address(ledger));
        return abi.encode(ledger.authorizationOf(id), ledger.reservationOf(id), accrued, holdings, free, held);
    }

    /// @dev The call fails with exactly this error, and nothing has moved.
    function fails(
        address attacker,
        AuthorizationTerms memory terms,
        bytes memory data,
        bytes memory refusal
    ) internal {
        bytes memory before = booksOf(terms);
        assertRefused(attacker, address(ledger), data, refusal);
        assertSame(booksOf(terms), before, "nothing moved");
    }

    function settlingFails(
        AuthorizationTerms memory terms,
        IAuthorizations.Settlement memory settlement,
        bytes memory refusal
    ) internal {
        fails(stranger, terms, abi.encodeCall(ledger.settle, (settlement)), refusal);
    }

    function closingFails(
        AuthorizationTerms memory terms,
        IAuthorizations.Closing memory closing,
        bytes memory refusal
    ) internal {
        fails(stranger, terms, abi.encodeCall(ledger.closeTogether, (closing)), refusal);
    }

    function openingFails(IAuthorizations.Opening memory opening, bytes memory refusal) internal {
        fails(stranger, opening.terms, abi.encodeCall(ledger.open, (opening)), refusal);
    }

    function assertPaid(AuthorizationTerms memory terms, uint256 reserved, uint256 paid) internal view {
        (uint256 foundReserved, uint256 foundPaid) = reservationOf(terms);
        assertEq(foundReserved, reserved, "reserved");
        assertEq(foundPaid, paid, "paid");
    }

    function assertFree(address owner, uint256 amount) internal view {
        assertEq(ledger.freeOf(owner, address(yuan)), amount, "free");
    }

    /// @dev Since vm.recordLogs, exactly these rows of a batch were skipped, for exactly this reason.
    function assertSkipped(uint256 first, uint256 count, bytes32 id, bytes memory problem) internal {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 found = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != IAuthorizations.SettlementSkipped.selector) continue;
            assertEq(uint256(logs[i].topics[1]), first + found, "row");
            assertEq(logs[i].topics[2], id, "authorization");
            assertSame(logs[i].data, abi.encode(problem), "problem");
            ++found;
        }
        assertEq(found, count, "rows skipped");
    }

    // ------------------------------------------------------------------------------------------- who signs

    function openingBy(
        uint256 providerKey,
        uint256 consumerKey,
        AuthorizationTerms memory terms,
        uint128 reserve
    ) internal view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(terms, reserve);
        opening.providerSignature = sign(providerKey, opening.acceptance.authorizationId);
        opening.consumerSignature = sign(consumerKey, opening.acceptance.authorizationId);
        opening.acceptanceSignature = sign(consumerKey, digests.acceptance(address(ledger), opening.acceptance));
    }

    function settlementBy(
        uint256 providerKey,
        uint256 consumerKey,
        AuthorizationTerms memory terms,
        Head memory previous,
        Head memory head
    ) internal view returns (IAuthorizations.Settlement memory settlement) {
        settlement = settlementOf(terms, previous, head);
        bytes32 digest = digestOf(terms, head);
        settlement.providerSignature = sign(providerKey, digest);
        settlement.consumerSignature = sign(consumerKey, digest);
    }

    function digestOf(AuthorizationTerms memory terms, Head memory head) internal view returns (bytes32) {
        return digests.head(address(ledger), idOf(terms), head);
    }

    /// @dev 120 calls and 500 rows, acknowledged at the start.
    function firstHead() internal pure returns (Head memory) {
        return headAt(START, 10, 120, 500);
    }

    function headAt(uint256 asOf, uint64 size, uint64 calls, uint64 rows) internal pure returns (Head memory) {
        return Head(size, [calls, rows, 0, 0], 0, uint40(asOf), Tree.root(logOf(size), size));
    }

    function acknowledged(AuthorizationTerms memory terms) internal view returns (IAuthorizations.Settlement memory) {
        return settlementOf(terms, noHead(), firstHead());
    }

    // -------------------------------------------------------------------------------------------- refusals

    function notBy(address wallet) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.SignatureInvalid.selector, wallet);
    }

    function inStatus(bytes32 id, IAuthorizations.Status status) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AuthorizationStatus.selector, id, status);
    }

    function notYours(bytes32 id, address caller) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AuthorizationNotYours.selector, id, caller);
    }

    function tooLow(address owner, address token, uint256 free, uint256 amount) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.BalanceTooLow.selector, owner, token, free, amount);
    }

    function moved(bytes32 id, bytes32 headDigest) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadMoved.selector, id, headDigest);
    }

    function stale(bytes32 id, uint64 settledSize, uint64 size) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadStale.selector, id, settledSize, size);
    }

    function afterEnd(bytes32 id, uint256 asOf, uint256 endedAt) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadAfterEnd.selector, id, asOf, endedAt);
    }
}

/// @title Attacks on the reservation: taking it back, promising it twice, paying too little
contract ReservationAttacksTest is Attacks {
    function withdrawingFails(AuthorizationTerms memory terms, uint256 free, uint256 amount) private {
        fails(
            consumer,
            terms,
            abi.encodeCall(ledger.withdraw, (address(yuan), amount, consumer)),
            tooLow(consumer, address(yuan), free, amount)
        );
    }

    function releasingFails(AuthorizationTerms memory terms, uint256 thawEnd, uint256 time) private {
        vm.warp(time);
        fails(
            consumer,
            terms,
            abi.encodeCall(ledger.releaseThawed, (compactOf(terms))),
            abi.encodeWithSelector(IUsageLedger.ThawNotOver.selector, idOf(terms), thawEnd, time)
        );
    }

    function finalizingFails(AuthorizationTerms memory terms, uint256 windowEnd, uint256 time) private {
        vm.warp(time);
        fails(
            consumer,
            terms,
            abi.encodeCall(ledger.finalize, (compactOf(terms))),
            abi.encodeWithSelector(IAuthorizations.WindowNotOver.selector, idOf(terms), windowEnd, time)
        );
    }

    /// @dev Half, 15 and 35 of a hundred.
    function paysItsShares() private {
        assertEq(ledger.payShare(splitId, address(yuan), provider), 1_230_000, "provider");
        assertEq(ledger.payShare(splitId, address(yuan), operator), 369_000, "operator");
        assertEq(ledger.payShare(splitId, address(yuan), agent), 861_000, "agent");
    }

    /// @dev github.com/x402-foundation/x402/issues/3464: there the payer empties its escrow first, and what the payee
    /// claims afterwards is no longer there.
    function test_a_payer_cannot_withdraw_before_the_payee_settles_what_was_acknowledged() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations.Settlement memory owed = acknowledged(terms);

        withdrawingFails(terms, 0, 1);
        vm.prank(consumer);
        ledger.thaw(compact, RESERVE);
        withdrawingFails(terms, 0, 1);
        releasingFails(terms, START + DAY, START);
        releasingFails(terms, START + DAY, START + DAY - 1);
        withdrawingFails(terms, 0, 1);

        ledger.settle(owed);
        assertPaid(terms, RESERVE, PRICE);
        vm.warp(START + DAY);
        ledger.releaseThawed(compact);
        assertFree(consumer, RESERVE - PRICE);
        withdrawingFails(terms, RESERVE - PRICE, RESERVE - PRICE + 1);
        vm.prank(consumer);
        ledger.withdraw(address(yuan), RESERVE - PRICE, consumer);
        paysItsShares();
        assertEq(yuan.balanceOf(address(ledger)), 0, "everybody has what is his");
    }

    function test_a_payer_that_closes_cannot_take_its_escrow_before_the_window_is_over() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations.Settlement memory owed = acknowledged(terms);

        vm.prank(consumer);
        ledger.close(compact, 1);
        withdrawingFails(terms, 0, 1);
        finalizingFails(terms, START + DAY, START);
        finalizingFails(terms, START + DAY, START + DAY);

        ledger.settle(owed);
        assertPaid(terms, RESERVE, PRICE);
        vm.warp(START + DAY + 1);
        ledger.finalize(compact);
        assertFree(consumer, RESERVE - PRICE);
        paysItsShares();
    }

    function test_one_deposit_cannot_be_promised_twice() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations.Opening memory second = openingOf(termsOf(), 1);
        openingFails(second, tooLow(consumer, address(yuan), 0, 1));

        vm.prank(consumer);
        ledger.thaw(compact, RESERVE);
        openingFails(second, tooLow(consumer, address(yuan), 0, 1));
        fails(
            consumer,
            terms,
            abi.encodeCall(ledger.topUp, (compact, noHead(), 1)),
            tooLow(consumer, address(yuan), 0, 1)
        );
        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
        assertTrue(statusOf(second.terms) == IAuthorizations.Status.NONE, "never opened");
    }

    function test_a_reservation_too_small_leaves_arrears_that_nobody_can_burn() external {
        AuthorizationTerms memory terms = opened(termsOf(), 1_000_000);
        CompactTerms memory compact = compactOf(terms);
        Head memory head = firstHead();
        bytes32 id = idOf(terms);
        IAuthorizations.Settlement memory owed = acknowledged(terms);
        vm.recordLogs();
        ledger.settle(owed);
        emit IAuthorizations.Settled(
            id,
            head,
            PRICE,
            1_000_000,
            1_460_000,
            provider,
            consumer,
            IAuthorizations.Basis.CONSUMER
        );
        assertEmitted(address(ledger));

        fails(
            consumer,
            terms,
            abi.encodeCall(ledger.thaw, (compact, 1)),
            abi.encodeWithSelector(IUsageLedger.ThawTooLarge.selector, id, 1, 0)
        );
        give(stranger, 2_000_000);
        vm.prank(stranger);
        ledger.topUp(compact, head, 1_000_000);
        assertPaid(terms, 2_000_000, 2_000_000);
        vm.prank(stranger);
        ledger.topUp(compact, head, 1_000_000);
        assertPaid(terms, 3_000_000, PRICE);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function test_a_top_up_of_one_unit_in_front_disturbs_no_settlement_thaw_or_close() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations.Settlement memory owed = acknowledged(terms);
        vm.prank(consumer);
        ledger.thaw(compact, RESERVE);
        give(stranger, 2);
        vm.prank(stranger);
        ledger.topUp(compact, noHead(), 1);
        ledger.settle(owed);
        assertPaid(terms, RESERVE + 1, PRICE);
        vm.warp(START + DAY);

        IAuthorizations.Closing memory closing = closingOf(terms, firstHead(), firstHead(), PRICE);
        ledger.releaseThawed(compact);
        assertFree(consumer, RESERVE + 1 - PRICE);
        Head memory head = firstHead();
        vm.prank(stranger);
        ledger.topUp(compact, head, 1);
        ledger.closeTogether(closing);
        assertFree(consumer, RESERVE + 2 - PRICE);
        assertPaid(terms, PRICE, PRICE);
    }

    /// @dev Two units free, 10 for seven units to the 20th, then 3: almost no price is whole.
    function fractional() private returns (AuthorizationTerms memory terms) {
        RateCard memory fractions = RateCard(address(yuan), 6, new Meter[](1));
        fractions.meters[0] = Meter(7, 2, new Tier[](2));
        fractions.meters[0].tiers[0] = Tier(20, 10);
        fractions.meters[0].tiers[1] = Tier(type(uint64).max, 3);
        terms = termsOf();
        terms.rateCard = cards.registerRateCard(fractions);
        terms.maxUnits = [uint64(40), 0, 0, 0];
        opened(terms, 100);
    }

    function settleAt(AuthorizationTerms memory terms, uint64[5] memory units) private {
        Head memory previous = noHead();
        for (uint64 i = 0; i < 5; ++i) {
            if (units[i] == 0) continue;
            Head memory head = headAt(START, i + 1, units[i], 0);
            settle(terms, previous, head);
            previous = head;
        }
    }

    function test_settling_often_or_rarely_pays_the_same() external {
        AuthorizationTerms memory often = fractional();
        AuthorizationTerms memory rarely = fractional();
        settleAt(often, [uint64(3), 10, 25, 26, 40]);
        assertPaid(often, 100, 36);
        assertEq(ledger.accruedOf(splitId, address(yuan)), 36, "accrued");
        settleAt(rarely, [uint64(0), 0, 0, 0, 40]);
        assertPaid(rarely, 100, 36);
        assertEq(ledger.accruedOf(splitId, address(yuan)), 72, "accrued");
    }
}

/// @title Attacks by replaying what was signed
contract ReplayAttacksTest is Attacks {
    uint256 private constant CHAIN = 31337; // Hardhat's

    function test_an_old_head_cannot_be_settled_again() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes32 id = idOf(terms);
        Head memory second = headAt(START, 20, 130, 600);
        settle(terms, noHead(), firstHead());
        settle(terms, firstHead(), second);
        bytes32 settledDigest = digestOf(terms, second);

        settlingFails(terms, acknowledged(terms), moved(id, settledDigest));
        settlingFails(terms, settlementOf(terms, firstHead(), second), moved(id, settledDigest));
        settlingFails(terms, settlementOf(terms, second, firstHead()), stale(id, 20, 10));
        assertEq(ledger.headDigestOf(id), settledDigest, "the newest head");
    }

    function test_a_use_cannot_be_billed_again_in_a_head_of_equal_size() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes32 id = idOf(terms);
        settle(terms, noHead(), firstHead());
        settlingFails(terms, settlementOf(terms, firstHead(), firstHead()), stale(id, 10, 10));
        settlingFails(terms, settlementOf(terms, firstHead(), headAt(START, 10, 240, 1000)), stale(id, 10, 10));
        assertPaid(terms, RESERVE, PRICE);
    }

    function test_a_head_cannot_be_replayed_on_another_chain() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        IAuthorizations.Settlement memory signedHere = acknowledged(terms);
        IAuthorizations.Opening memory openedHere = openingOf(terms, RESERVE);
        vm.chainId(CHAIN + 1);
        bytes32 there = idOf(terms);
        settlingFails(terms, signedHere, inStatus(there, IAuthorizations.Status.NONE));
        give(consumer, RESERVE);
        openingFails(openedHere, notBy(provider));
        ledger.open(openingOf(terms, RESERVE));
        settlingFails(terms, signedHere, notBy(provider));

        vm.chainId(CHAIN);
        ledger.settle(signedHere);
        assertPaid(terms, RESERVE, PRICE);
    }

    /// @dev As World.openingOf, for a ledger of my choice.
    function openingOn(
        UsageLedger to,
        AuthorizationTerms memory terms
    ) private view returns (IAuthorizations.Opening memory opening) {
        bytes32 id = to.idOf(terms);
        opening = openingOf(terms, RESERVE);
        opening.acceptance.authorizationId = id;
        opening.providerSignature = sign(PROVIDER, id);
        opening.consumerSignature = sign(CONSUMER, id);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(to), opening.acceptance));
    }

    function test_a_head_cannot_be_replayed_on_another_deployment() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes memory replay = abi.encodeCall(ledger.settle, (acknowledged(terms)));
        UsageLedger second = UsageLedger(deploy("UsageLedger", abi.encode(admission, sessionKeys, forwarder)));
        bytes32 there = second.idOf(terms);
        assertRefused(stranger, address(second), replay, inStatus(there, IAuthorizations.Status.NONE));

        yuan.mint(address(this), RESERVE);
        yuan.approve(address(second), RESERVE);
        second.depositFor(consumer, address(yuan), RESERVE);
        bytes memory opening = abi.encodeCall(ledger.open, (openingOf(terms, RESERVE)));
        assertRefused(stranger, address(second), opening, notBy(provider));
        second.open(openingOn(second, terms));
        assertRefused(stranger, address(second), replay, notBy(provider));

        assertEq(second.reservationOf(there).paid, 0, "nothing paid there");
        assertEq(second.accruedOf(splitId, address(yuan)), 0, "nothing accrued there");
        assertEq(yuan.balanceOf(address(second)), RESERVE, "all still there");
        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
    }

    function staysClosed(AuthorizationTerms memory terms, Head memory last) private {
        bytes memory closed = inStatus(idOf(terms), IAuthorizations.Status.CLOSED);
        settlingFails(terms, acknowledged(terms), closed);
        settlingFails(terms, settlementOf(terms, last, headAt(START, 20, 130, 600)), closed);
        closingFails(terms, closingOf(terms, last, headAt(START, 20, 130, 600), PRICE), closed);
        give(consumer, RESERVE);
        openingFails(openingOf(terms, RESERVE), closed);
        fails(consumer, terms, abi.encodeCall(ledger.topUp, (compactOf(terms), last, 1)), closed);
        fails(consumer, terms, abi.encodeCall(ledger.finalize, (compactOf(terms))), closed);
        fails(consumer, terms, abi.encodeCall(ledger.thaw, (compactOf(terms), 0)), closed);
    }

    function test_nothing_is_settled_or_opened_again_once_both_have_closed() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        ledger.closeTogether(closingOf(terms, noHead(), firstHead(), PRICE));
        staysClosed(terms, firstHead());
        assertPaid(terms, PRICE, PRICE);
    }

    function test_nothing_is_settled_or_opened_again_once_it_is_finalized() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        settle(terms, noHead(), firstHead());
        CompactTerms memory compact = compactOf(terms);
        vm.warp(WINDOW_END + 1);
        ledger.finalize(compact);
        staysClosed(terms, firstHead());
        assertPaid(terms, PRICE, PRICE);
    }
}

/// @title Attacks with signatures in another form, and on accounts that have code
contract SignatureAttacksTest is Attacks {
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141; // secp256k1's

    function partsOf(bytes memory signature) private pure returns (bytes32 r, uint256 s, uint8 v) {
        // Memory-safe: reads only.
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
    }

    function highS(bytes memory signature) private pure returns (bytes memory) {
        (bytes32 r, uint256 s, uint8 v) = partsOf(signature);
        return abi.encodePacked(r, ORDER - s, 55 - v);
    }

    /// @dev EIP-2098.
    function compact(bytes memory signature) private pure returns (bytes memory) {
        (bytes32 r, uint256 s, uint8 v) = partsOf(signature);
        return abi.encodePacked(r, s | (uint256(v - 27) << 255));
    }

    function trailing(bytes memory signature) private pure returns (bytes memory) {
        return abi.encodePacked(signature, bytes1(0));
    }

    function refusesHeads(function(bytes memory) pure returns (bytes memory) form) private {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        IAuthorizations.Settlement memory settlement = acknowledged(terms);
        settlement.providerSignature = form(settlement.providerSignature);
        settlingFails(terms, settlement, notBy(provider));

        settlement = acknowledged(terms);
        settlement.consumerSignature = form(settlement.consumerSignature);
        settlingFails(terms, settlement, notBy(consumer));

        uint64[4] memory most = [uint64(120), 500, 0, 0];
        UsageCeiling memory ceiling = UsageCeiling(0, most, 0, PRICE, uint40(END));
        settlement = acknowledged(terms);
        settlement.consumerSignature = "";
        settlement.ceilings = ceilingBy(CONSUMER, terms, ceiling);
        settlement.ceilings[0].signature = form(settlement.ceilings[0].signature);
        settlingFails(terms, settlement, notBy(consumer));
        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
    }

    function refusesOpenings(function(bytes memory) pure returns (bytes memory) form) private {
        AuthorizationTerms memory terms = termsOf();
        give(consumer, RESERVE);
        IAuthorizations.Opening memory opening = openingOf(terms, RESERVE);
        opening.providerSignature = form(opening.providerSignature);
        openingFails(opening, notBy(provider));

        opening = openingOf(terms, RESERVE);
        opening.consumerSignature = form(opening.consumerSignature);
        openingFails(opening, notBy(consumer));

        opening = openingOf(terms, RESERVE);
        opening.acceptanceSignature = form(opening.acceptanceSignature);
        openingFails(opening, notBy(consumer));
        ledger.open(openingOf(terms, RESERVE));
        assertPaid(terms, RESERVE, 0);
    }

    function refusesClosings(function(bytes memory) pure returns (bytes memory) form) private {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), firstHead(), PRICE);
        closing.providerSignature = form(closing.providerSignature);
        closingFails(terms, closing, notBy(provider));

        closing = closingOf(terms, noHead(), firstHead(), PRICE);
        closing.consumerSignature = form(closing.consumerSignature);
        closingFails(terms, closing, notBy(consumer));
        ledger.closeTogether(closingOf(terms, noHead(), firstHead(), PRICE));
        assertPaid(terms, PRICE, PRICE);
    }

    function test_a_signature_with_high_s_is_nobodys() external {
        (bytes32 r, uint256 s, uint8 v) = partsOf(highS(sign(PROVIDER, "digest")));
        assertEq(ecrecover("digest", v, r, bytes32(s)), provider, "the same key's, to ecrecover");
        refusesHeads(highS);
        refusesOpenings(highS);
        refusesClosings(highS);
    }

    function test_a_signature_of_64_bytes_is_nobodys() external {
        assertEq(compact(sign(PROVIDER, "digest")).length, 64, "EIP-2098");
        refusesHeads(compact);
        refusesOpenings(compact);
        refusesClosings(compact);
    }

    function test_a_signature_with_a_trailing_byte_is_nobodys() external {
        assertEq(trailing(sign(PROVIDER, "digest")).length, 66, "one byte more");
        refusesHeads(trailing);
        refusesOpenings(trailing);
        refusesClosings(trailing);
    }

    /// @dev Whatever code the wallets have, their keys' word counts, and nobody else's.
    function keysCount(bytes memory code) private {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        vm.etch(consumer, code);
        vm.etch(provider, code);
        assertSame(consumer.code, code, "code");
        IAuthorizations.Settlement memory settlement = acknowledged(terms);
        settlement.consumerSignature = sign(STRANGER, digestOf(terms, firstHead()));
        settlingFails(terms, settlement, notBy(consumer));
        settlement = acknowledged(terms);
        settlement.providerSignature = sign(STRANGER, digestOf(terms, firstHead()));
        settlingFails(terms, settlement, notBy(provider));

        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
        ledger.closeTogether(closingOf(terms, firstHead(), firstHead(), PRICE));
        assertTrue(statusOf(terms) == IAuthorizations.Status.CLOSED, "closed by their keys");
        AuthorizationTerms memory next = termsOf();
        ledger.open(openingOf(next, 0));
        assertTrue(statusOf(next) == IAuthorizations.Status.OPEN, "opened by their keys");
    }

    function test_an_account_cannot_void_what_its_key_signed_by_delegating_to_code() external {
        keysCount(abi.encodePacked(hex"ef0100", address(new RefusingWallet())));
    }

    function test_an_account_cannot_void_what_its_key_signed_by_having_code() external {
        keysCount(address(new RefusingWallet()).code);
    }
}

/// @title Attacks by contract wallets
contract WalletAttacksTest is Attacks {
    /// @dev Opened by a wallet that agrees.
    function openedBy(address wallet) private returns (AuthorizationTerms memory terms) {
        vm.prank(operator);
        spaces.admit(space, wallet, 2, "wallet");
        terms = termsOf();
        terms.consumer = wallet;
        give(wallet, RESERVE);
        IAuthorizations.Opening memory opening = openingOf(terms, RESERVE);
        (opening.consumerSignature, opening.acceptanceSignature) = (bytes("yes"), bytes("yes"));
        ledger.open(opening);
    }

    function askingWallet(
        AuthorizationTerms memory terms,
        Head memory previous,
        Head memory head
    ) private view returns (IAuthorizations.Settlement memory settlement) {
        settlement = settlementOf(terms, previous, head);
        settlement.consumerSignature = "yes";
    }

    /// @dev A good row, eight of the wallet's and a good row, with gas for no more than 150,000 a wallet.
    function onlyItsRowsFail(AuthorizationTerms memory terms, IAuthorizations.Settlement memory settlement) private {
        AuthorizationTerms memory first = opened(termsOf(), RESERVE);
        AuthorizationTerms memory last = opened(termsOf(), RESERVE);
        IAuthorizations.Settlement[] memory rows = new IAuthorizations.Settlement[](10);
        rows[0] = acknowledged(first);
        for (uint256 i = 1; i < 9; ++i) rows[i] = settlement;
        rows[9] = acknowledged(last);
        (uint256 reserved, uint256 paid) = reservationOf(terms);

        vm.recordLogs();
        ledger.settleMany{gas: 3_000_000}(rows);
        assertSkipped(1, 8, idOf(terms), notBy(terms.consumer));
        assertPaid(first, RESERVE, PRICE);
        assertPaid(last, RESERVE, PRICE);
        assertPaid(terms, reserved, paid);
        settlingFails(terms, settlement, notBy(terms.consumer));
    }

    function test_a_wallet_that_changes_its_answer_stops_its_own_heads_only() external {
        FickleWallet wallet = new FickleWallet();
        AuthorizationTerms memory terms = openedBy(address(wallet));
        ledger.settle(askingWallet(terms, noHead(), firstHead()));
        assertPaid(terms, RESERVE, PRICE);
        Head memory second = headAt(START, 20, 130, 600);
        IAuthorizations.Settlement memory settlement = askingWallet(terms, firstHead(), second);

        wallet.changeMind();
        onlyItsRowsFail(terms, settlement);
        assertPaid(terms, RESERVE, PRICE);
        wallet.changeMind();
        ledger.settle(settlement);
        assertPaid(terms, RESERVE, priceOf(130, 600));
    }

    function test_a_wallet_that_burns_gas_stops_its_own_heads_only() external {
        address wallet = address(new AgreeingWallet());
        AuthorizationTerms memory terms = openedBy(wallet);
        vm.etch(wallet, address(new BurningWallet()).code);
        onlyItsRowsFail(terms, askingWallet(terms, noHead(), firstHead()));
    }

    function test_a_wallet_that_returns_a_bomb_stops_its_own_heads_only() external {
        address wallet = address(new AgreeingWallet());
        AuthorizationTerms memory terms = openedBy(wallet);
        vm.etch(wallet, address(new BombWallet()).code);
        onlyItsRowsFail(terms, askingWallet(terms, noHead(), firstHead()));
        vm.etch(wallet, address(new LongWindedWallet()).code);
        onlyItsRowsFail(terms, askingWallet(terms, noHead(), firstHead()));
    }
}

/// @title Attacks with session keys
contract SessionKeyAttacksTest is Attacks {
    uint256 private constant KEY = 0x5e55;
    address private key = vm.addr(KEY);

    /// @dev The key may sign for the wallet up to PRICE.
    function registered(address wallet) private {
        uint40 expiry = uint40(START + 30 * DAY);
        bytes32 typeHash = keccak256("SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)");
        bytes32 structHash = keccak256(abi.encode(typeHash, wallet, key, expiry, PRICE));
        bytes memory possession = sign(KEY, digests.digest(address(sessionKeys), structHash));
        vm.prank(wallet);
        sessionKeys.registerSessionKey(key, expiry, PRICE, possession);
    }

    function test_a_stolen_session_key_cannot_exceed_its_cap() external {
        registered(consumer);
        registered(provider);
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        Head memory above = headAt(START, 10, 120, 501);
        settlingFails(terms, settlementBy(PROVIDER, KEY, terms, noHead(), above), notBy(consumer));
        settlingFails(terms, settlementBy(KEY, CONSUMER, terms, noHead(), above), notBy(provider));

        ledger.settle(settlementBy(KEY, KEY, terms, noHead(), firstHead()));
        assertPaid(terms, RESERVE, PRICE);
        Head memory more = headAt(START, 20, 121, 500);
        settlingFails(terms, settlementBy(PROVIDER, KEY, terms, firstHead(), more), notBy(consumer));
        settlingFails(terms, settlementBy(KEY, CONSUMER, terms, firstHead(), more), notBy(provider));
        assertPaid(terms, RESERVE, PRICE);
    }

    function test_a_stolen_session_key_cannot_close() external {
        registered(consumer);
        registered(provider);
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes32 id = idOf(terms);
        CompactTerms memory compact = compactOf(terms);
        fails(key, terms, abi.encodeCall(ledger.close, (compact, 1)), notYours(id, key));
        Requirement[] memory none = new Requirement[](0);
        fails(key, terms, abi.encodeCall(ledger.revoke, (terms, none, 1)), notYours(id, key));

        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), firstHead(), PRICE);
        bytes memory byKey = sign(KEY, digests.close(address(ledger), closing.close));
        closing.consumerSignature = byKey;
        closingFails(terms, closing, notBy(consumer));
        closing = closingOf(terms, noHead(), firstHead(), PRICE);
        closing.providerSignature = byKey;
        closingFails(terms, closing, notBy(provider));
    }

    function test_a_stolen_session_key_cannot_open() external {
        registered(consumer);
        registered(provider);
        AuthorizationTerms memory terms = termsOf();
        give(consumer, RESERVE);
        openingFails(openingBy(KEY, CONSUMER, terms, RESERVE), notBy(provider));
        openingFails(openingBy(PROVIDER, KEY, terms, RESERVE), notBy(consumer));
        IAuthorizations.Opening memory opening = openingOf(terms, 1);
        opening.acceptance.reserve = RESERVE;
        opening.acceptanceSignature = sign(KEY, digests.acceptance(address(ledger), opening.acceptance));
        openingFails(opening, notBy(consumer));
        fails(key, terms, abi.encodeCall(ledger.cancelTerms, (compactOf(terms))), notYours(idOf(terms), key));
    }

    function test_a_stolen_session_key_cannot_withdraw_or_move_money() external {
        registered(consumer);
        registered(provider);
        give(consumer, RESERVE);
        give(provider, RESERVE);
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        settle(terms, noHead(), firstHead());
        CompactTerms memory compact = compactOf(terms);
        bytes32 id = idOf(terms);
        bytes memory broke = tooLow(key, address(yuan), 0, 1);
        fails(key, terms, abi.encodeCall(ledger.withdraw, (address(yuan), 1, key)), broke);
        fails(key, terms, abi.encodeCall(ledger.topUp, (compact, firstHead(), 1)), broke);
        fails(key, terms, abi.encodeCall(ledger.thaw, (compact, 1)), notYours(id, key));
        fails(key, terms, abi.encodeCall(ledger.refund, (compact, 1)), notYours(id, key));
    }

    function test_revoking_a_key_does_not_void_the_heads_it_signed() external {
        registered(consumer);
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        IAuthorizations.Settlement memory signed = settlementBy(PROVIDER, KEY, terms, noHead(), firstHead());
        vm.prank(consumer);
        sessionKeys.revokeSessionKey(key);

        vm.warp(WINDOW_END);
        Head memory later = headAt(START + 15 minutes + 1, 10, 120, 500);
        settlingFails(terms, settlementBy(PROVIDER, KEY, terms, noHead(), later), notBy(consumer));
        ledger.settle(signed);
        assertPaid(terms, RESERVE, PRICE);
    }
}

/// @title Attacks with heads that one party made up
contract HeadAttacksTest is Attacks {
    function settlingFailsFor(
        address caller,
        AuthorizationTerms memory terms,
        IAuthorizations.Settlement memory settlement,
        bytes memory refusal
    ) private {
        fails(caller, terms, abi.encodeCall(ledger.settle, (settlement)), refusal);
    }

    function test_a_consumer_alone_cannot_settle_a_junk_root() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        Head memory junk = headAt(START, 1000, 1, 1);
        junk.root = "junk";
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), junk);
        settlement.providerSignature = "";
        settlingFailsFor(consumer, terms, settlement, notBy(provider));
        settlement.providerSignature = settlement.consumerSignature;
        settlingFailsFor(consumer, terms, settlement, notBy(provider));
        assertEq(ledger.headDigestOf(idOf(terms)), 0, "no head");
        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
    }

    /// @dev 500,000 are owed back.
    function credited(uint64 size) private pure returns (Head memory head) {
        head = headAt(START, size, 120, 500);
        head.credits = 500_000;
    }

    function ceilingLeaving(uint128 minCredits) private pure returns (UsageCeiling memory) {
        return UsageCeiling(0, [uint64(1000), 1000, 0, 0], minCredits, RESERVE, uint40(END));
    }

    function test_a_provider_alone_cannot_hide_a_credit() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes32 id = idOf(terms);
        IAuthorizations.Settlement memory settlement = acknowledged(terms);
        settlement.consumerSignature = "";
        settlingFailsFor(provider, terms, settlement, notBy(consumer));
        settlement.consumerSignature = settlement.providerSignature;
        settlingFailsFor(provider, terms, settlement, notBy(consumer));
        settlement.consumerSignature = "";
        settlement.ceilings = ceilingBy(CONSUMER, terms, ceilingLeaving(500_000));
        bytes memory refusal = abi.encodeWithSelector(IAuthorizations.CeilingExceeded.selector, id, PRICE);
        settlingFailsFor(provider, terms, settlement, refusal);

        settle(terms, noHead(), credited(10));
        assertPaid(terms, RESERVE, PRICE - 500_000);
        Head memory hiding = headAt(START, 20, 120, 500);
        settlement = settlementOf(terms, credited(10), hiding);
        settlement.consumerSignature = "";
        settlement.ceilings = ceilingBy(CONSUMER, terms, ceilingLeaving(0));
        refusal = abi.encodeWithSelector(IAuthorizations.HeadLower.selector, id);
        settlingFailsFor(provider, terms, settlement, refusal);
        settlingFailsFor(provider, terms, settlementOf(terms, credited(10), hiding), refusal);
    }

    function test_an_agent_and_a_provider_cannot_spend_beyond_the_consumers_ceiling() external {
        AuthorizationTerms memory terms = termsOf();
        terms.meteringAgent = agent;
        terms.flags = Terms.AGENT_CAPPED;
        opened(terms, RESERVE);
        bytes32 id = idOf(terms);
        IAuthorizations.Settlement memory settlement = settlementBy(PROVIDER, AGENT, terms, noHead(), firstHead());
        settlingFails(terms, settlement, abi.encodeWithSelector(IAuthorizations.CeilingMissing.selector, id));
        UsageCeiling memory ceiling = ceilingLeaving(0);
        ceiling.maxDue = PRICE - 1;
        settlement.ceilings = ceilingBy(CONSUMER, terms, ceiling);
        settlingFails(terms, settlement, abi.encodeWithSelector(IAuthorizations.CeilingExceeded.selector, id, PRICE));
        settlement.ceilings = ceilingBy(AGENT, terms, ceilingLeaving(0));
        settlingFails(terms, settlement, notBy(consumer));
        settlement.ceilings = ceilingBy(CONSUMER, terms, ceilingLeaving(0));
        ledger.settle(settlement);
        assertPaid(terms, RESERVE, PRICE);
    }

    function onlyLeaf(bytes32 id, uint64 calls, uint64 rows) private view returns (bytes memory) {
        return
            encode(
                UsageLeaf({
                    authorizationId: id,
                    index: 0,
                    useIdHash: "use",
                    units: [calls, rows, 0, 0],
                    cumUnits: [calls, rows, 0, 0],
                    cumCredits: 0,
                    eventTime: uint40(START),
                    servedAt: uint40(START),
                    kind: 0,
                    purpose: 1,
                    modality: 1,
                    version: version,
                    payloadHash: "payload"
                })
            );
    }

    function test_a_head_whose_units_differ_from_its_leaves_is_shown_to_everybody() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        CompactTerms memory compact = compactOf(terms);
        bytes32 id = idOf(terms);
        bytes memory leaf = onlyLeaf(id, 12, 5);
        bytes32 leafHash = digests.leaf(leaf);
        Head memory head = Head(1, [uint64(120), 500, 0, 0], 0, uint40(START), leafHash);
        settle(terms, noHead(), head);
        bytes memory before = booksOf(terms);

        vm.recordLogs();
        vm.prank(stranger);
        evidence.proveUnits(compact, head, leaf, new bytes32[](0));
        emit IUsageEvidence.FactProven(id, IUsageEvidence.Fact.UNITS_MISMATCH, provider, address(ledger), 0, leafHash);
        assertEmitted(address(evidence));
        assertSame(booksOf(terms), before, "nothing moved");
    }

    function test_a_head_whose_units_are_its_leaves_cannot_be_slandered() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes32 id = idOf(terms);
        bytes memory leaf = onlyLeaf(id, 120, 500);
        Head memory head = Head(1, [uint64(120), 500, 0, 0], 0, uint40(START), digests.leaf(leaf));
        settle(terms, noHead(), head);
        bytes memory data = abi.encodeCall(evidence.proveUnits, (compactOf(terms), head, leaf, new bytes32[](0)));
        bytes memory refusal = abi.encodeWithSelector(IUsageEvidence.NothingWrong.selector, id, 0);
        assertRefused(stranger, address(evidence), data, refusal);
        assertPaid(terms, RESERVE, PRICE);
    }

    function test_uses_that_are_settled_cannot_be_rewritten() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        settle(terms, noHead(), firstHead());
        bytes32[] memory rewritten = logOf(20);
        rewritten[3] = "another use";
        Head memory head = headAt(START, 20, 130, 600);
        head.root = Tree.root(rewritten, 20);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, firstHead(), head);
        bytes memory refusal = abi.encodeWithSelector(IAuthorizations.HeadInconsistent.selector, idOf(terms), 10, 20);
        settlingFails(terms, settlement, refusal);
        settlement.consistency = Tree.consistency(rewritten, 10, 20);
        settlingFails(terms, settlement, refusal);
    }
}

/// @title Attacks with time
contract TimeAttacksTest is Attacks {
    uint256 private constant SKEW = 15 minutes;

    function test_a_head_cannot_be_backdated_below_the_settled_one() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        settle(terms, noHead(), firstHead());
        bytes memory refusal = abi.encodeWithSelector(IAuthorizations.HeadLower.selector, idOf(terms));
        Head memory backdated = headAt(START - 1, 20, 130, 600);
        settlingFails(terms, settlementOf(terms, firstHead(), backdated), refusal);
        settle(terms, firstHead(), headAt(START, 20, 130, 600));
        assertPaid(terms, RESERVE, priceOf(130, 600));
    }

    function test_a_head_cannot_be_dated_in_the_future() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes memory refusal = abi.encodeWithSelector(
            IAuthorizations.HeadInFuture.selector,
            idOf(terms),
            START + 1,
            START
        );
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), headAt(START + 1, 10, 120, 500));
        settlingFails(terms, settlement, refusal);
        vm.warp(START + 1);
        ledger.settle(settlement);
        assertPaid(terms, RESERVE, PRICE);
    }

    /// @dev It ended then. Use since cannot be billed; what was served until then can, with the skew of a clock.
    function nothingIsBilledAfter(AuthorizationTerms memory terms, uint256 endedAt) private {
        vm.warp(endedAt + 1 hours);
        Head memory late = headAt(endedAt + SKEW + 1, 10, 120, 500);
        settlingFails(terms, settlementOf(terms, noHead(), late), afterEnd(idOf(terms), late.asOf, endedAt));
        settle(terms, noHead(), headAt(endedAt + SKEW, 10, 120, 500));
        assertPaid(terms, RESERVE, PRICE);

        Head memory more = headAt(endedAt + 1 hours, 20, 121, 500);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, headAt(endedAt + SKEW, 10, 120, 500), more);
        settlingFails(terms, settlement, afterEnd(idOf(terms), more.asOf, endedAt));
    }

    function test_use_after_expiry_cannot_be_billed() external {
        nothingIsBilledAfter(opened(termsOf(), RESERVE), END);
    }

    function test_use_after_a_revocation_cannot_be_billed() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        vm.warp(START + DAY);
        vm.prank(provider);
        ledger.revoke(terms, new Requirement[](0), 1);
        nothingIsBilledAfter(terms, START + DAY);
    }

    function test_use_after_a_close_cannot_be_billed() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        CompactTerms memory compact = compactOf(terms);
        vm.warp(START + DAY);
        vm.prank(consumer);
        ledger.close(compact, 1);
        nothingIsBilledAfter(terms, START + DAY);
    }

    function test_nothing_is_billed_once_the_window_is_over() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        IAuthorizations.Settlement memory settlement = acknowledged(terms);
        vm.warp(WINDOW_END + 1);
        bytes memory refusal = abi.encodeWithSelector(
            IAuthorizations.WindowOver.selector,
            idOf(terms),
            WINDOW_END,
            WINDOW_END + 1
        );
        settlingFails(terms, settlement, refusal);
        vm.warp(WINDOW_END);
        ledger.settle(settlement);
        assertPaid(terms, RESERVE, PRICE);
    }
}

/// @title Attacks by coming first, and by spoiling a batch
contract RaceAttacksTest is Attacks {
    function test_a_stale_head_cannot_close_what_a_third_party_settled_since() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        bytes32 id = idOf(terms);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), firstHead(), PRICE);
        Head memory newer = headAt(START, 20, 130, 600);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), newer);
        vm.prank(stranger);
        ledger.settle(settlement);

        closingFails(terms, closing, moved(id, digestOf(terms, newer)));
        closing.previous = newer;
        closingFails(terms, closing, stale(id, 20, 10));
        uint128 due = uint128(priceOf(130, 600));
        closing = closingOf(terms, newer, newer, PRICE);
        closingFails(terms, closing, abi.encodeWithSelector(IAuthorizations.CloseInvalid.selector, id, PRICE, due));
        assertPaid(terms, RESERVE, due);
        ledger.closeTogether(closingOf(terms, newer, newer, due));
        assertPaid(terms, due, due);
    }

    function test_an_intermediate_head_in_front_only_delays() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        Head memory newer = headAt(START, 20, 130, 600);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), newer);
        vm.prank(stranger);
        ledger.settle(acknowledged(terms));
        settlingFails(terms, settlement, moved(idOf(terms), digestOf(terms, firstHead())));

        settlement.previous = firstHead();
        settlement.consistency = Tree.consistency(logOf(20), 10, 20);
        ledger.settle(settlement);
        assertPaid(terms, RESERVE, priceOf(130, 600));
        assertEq(ledger.headDigestOf(idOf(terms)), digestOf(terms, newer), "the very head that was signed");
    }

    function rowsOf(AuthorizationTerms[] memory all) private view returns (IAuthorizations.Settlement[] memory rows) {
        rows = new IAuthorizations.Settlement[](all.length);
        for (uint256 i = 0; i < all.length; ++i) rows[i] = acknowledged(all[i]);
    }

    function test_one_bad_row_in_a_batch_of_25_stops_no_other() external {
        AuthorizationTerms[] memory all = new AuthorizationTerms[](25);
        for (uint256 i = 0; i < 25; ++i) all[i] = opened(termsOf(), RESERVE);
        IAuthorizations.Settlement[] memory rows = rowsOf(all);
        rows[12].providerSignature = sign(STRANGER, digestOf(all[12], firstHead()));

        vm.recordLogs();
        vm.prank(stranger);
        ledger.settleMany(rows);
        assertSkipped(12, 1, idOf(all[12]), notBy(provider));
        for (uint256 i = 0; i < 25; ++i) assertPaid(all[i], RESERVE, i == 12 ? 0 : PRICE);
        assertEq(ledger.accruedOf(splitId, address(yuan)), 24 * uint256(PRICE), "accrued");
        assertEq(ledger.headDigestOf(idOf(all[12])), 0, "no head");
        assertEq(yuan.balanceOf(address(ledger)), 25 * uint256(RESERVE), "held");
    }
}

/// @title Attacks on what is opened, and by whom
contract OpeningAttacksTest is Attacks {
    uint16 private constant ETHICS = 7;

    function invalid(string memory field) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAdmission.TermsInvalid.selector, field);
    }

    // ------------------------------------------------------------------------------------- the acceptance

    function test_a_relayer_cannot_reserve_more_or_less_than_was_accepted() external {
        give(consumer, 2 * RESERVE);
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingOf(terms, RESERVE);
        opening.acceptance.reserve = RESERVE + 1;
        openingFails(opening, notBy(consumer));
        opening.acceptance.reserve = RESERVE - 1;
        openingFails(opening, notBy(consumer));

        opening = openingOf(terms, RESERVE);
        AuthorizationTerms memory other = termsOf();
        IAuthorizations.Opening memory larger = openingOf(other, RESERVE + 1);
        (opening.acceptance, opening.acceptanceSignature) = (larger.acceptance, larger.acceptanceSignature);
        bytes memory refusal = abi.encodeWithSelector(
            IAuthorizations.AcceptanceInvalid.selector,
            idOf(other),
            START + DAY
        );
        openingFails(opening, refusal);
        ledger.open(openingOf(terms, RESERVE));
        assertPaid(terms, RESERVE, 0);
        assertFree(consumer, RESERVE);
    }

    function test_a_relayer_cannot_reserve_after_the_deadline() external {
        give(consumer, RESERVE);
        IAuthorizations.Opening memory opening = openingOf(termsOf(), RESERVE);
        bytes32 id = opening.acceptance.authorizationId;
        vm.warp(START + DAY + 1);
        openingFails(opening, abi.encodeWithSelector(IAuthorizations.AcceptanceInvalid.selector, id, START + DAY));
        vm.warp(START + DAY);
        ledger.open(opening);
        assertPaid(opening.terms, RESERVE, 0);
    }

    // ------------------------------------------------------------------------------------------ the offer

    /// @dev In Ocean one signature over the fees serves any number of orders.
    function test_a_providers_signature_serves_for_one_order() external {
        give(consumer, 2 * RESERVE);
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory first = openingOf(terms, RESERVE);
        ledger.open(first);
        openingFails(first, inStatus(idOf(terms), IAuthorizations.Status.OPEN));

        IAuthorizations.Opening memory second = openingOf(termsOf(), RESERVE);
        second.providerSignature = first.providerSignature;
        openingFails(second, notBy(provider));
        assertFree(consumer, RESERVE);
    }

    function accepting(
        Offer memory offer,
        AuthorizationTerms memory terms
    ) private view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(terms, RESERVE);
        opening.offer = offer;
        opening.providerSignature = sign(PROVIDER, digests.offer(address(ledger), offer));
    }

    function test_an_offer_for_one_is_not_accepted_twice() external {
        give(consumer, 2 * RESERVE);
        AuthorizationTerms memory terms = termsOf();
        Offer memory offer = Offer(digests.template(terms), 1, uint40(START + DAY));
        ledger.open(accepting(offer, terms));
        IAuthorizations.Opening memory second = accepting(offer, termsOf());
        bytes32 digest = digests.offer(address(ledger), offer);
        openingFails(second, abi.encodeWithSelector(IAuthorizations.OfferExhausted.selector, digest, 1));
        second.offer.maxAcceptances = 2;
        openingFails(second, notBy(provider));
        assertFree(consumer, RESERVE);
    }

    function test_an_offer_is_not_taken_for_a_cheaper_card() external {
        give(consumer, RESERVE);
        AuthorizationTerms memory terms = termsOf();
        bytes32 template = digests.template(terms);
        RateCard memory cheap = cardOf(address(yuan));
        cheap.meters[1].tiers[0].price = 1;
        terms.rateCard = cards.registerRateCard(cheap);
        bytes32 other = digests.template(terms);
        IAuthorizations.Opening memory opening = accepting(Offer(template, 1, uint40(START + DAY)), terms);
        openingFails(opening, abi.encodeWithSelector(IAuthorizations.OfferMismatch.selector, template, other));
    }

    // --------------------------------------------------------------------------------------- card and split

    function test_a_card_with_zero_scale_is_never_opened() external {
        RateCard memory zero = cardOf(address(yuan));
        zero.meters[1].unitScale = 0;
        assertRefused(
            stranger,
            address(cards),
            abi.encodeCall(cards.registerRateCard, (zero)),
            abi.encodeWithSelector(Pricing.RateCardInvalid.selector, 1, 1)
        );
        give(consumer, RESERVE);
        AuthorizationTerms memory terms = termsOf();
        bytes memory meters = abi.encodePacked(uint8(1), uint64(0), uint64(0), uint8(1), type(uint64).max, uint128(7));
        terms.rateCard = CodeStore.idOf(abi.encodePacked(uint8(1), address(yuan), uint8(6), meters));
        terms.maxUnits = [uint64(1), 0, 0, 0];
        openingFails(openingOf(terms, RESERVE), invalid("rateCard"));
    }

    function test_a_split_with_a_duplicate_payee_is_never_opened() external {
        Share[] memory shares = new Share[](2);
        (shares[0], shares[1]) = (Share(provider, 5000), Share(provider, 5000));
        assertRefused(
            stranger,
            address(cards),
            abi.encodeCall(cards.registerSplit, (shares)),
            abi.encodeWithSelector(Splits.SplitInvalid.selector, 1, 5000)
        );
        give(consumer, RESERVE);
        AuthorizationTerms memory terms = termsOf();
        bytes memory twice = abi.encodePacked(uint8(2), uint8(2), provider, uint16(5000), provider, uint16(5000));
        terms.split = CodeStore.idOf(twice);
        openingFails(openingOf(terms, RESERVE), invalid("split"));
    }

    // ------------------------------------------------------------------------------------------- approvals

    function asked() private {
        Requirement[] memory list = new Requirement[](1);
        list[0] = Requirement(approver, ETHICS);
        vm.prank(operator);
        spaces.setSpaceApprovers(space, list);
        give(consumer, RESERVE);
    }

    function openingWith(
        AuthorizationTerms memory terms,
        Approval memory approval
    ) private view returns (IAuthorizations.Opening memory opening) {
        opening = openingOf(terms, RESERVE);
        opening.approvals = new Approval[](1);
        opening.approvals[0] = approval;
    }

    function approvalFails(AuthorizationTerms memory terms, Approval memory approval) private {
        bytes memory refusal = abi.encodeWithSelector(
            IAdmission.ApprovalInvalid.selector,
            approver,
            ETHICS,
            approval.validUntil
        );
        openingFails(openingWith(terms, approval), refusal);
    }

    function opensWith(AuthorizationTerms memory terms, Approval memory approval) private {
        ledger.open(openingWith(terms, approval));
        assertPaid(terms, RESERVE, 0);
    }

    function test_nothing_opens_without_the_approval_that_is_asked() external {
        asked();
        AuthorizationTerms memory terms = termsOf();
        bytes memory refusal = abi.encodeWithSelector(IAdmission.ApprovalMissing.selector, approver, ETHICS);
        openingFails(openingOf(terms, RESERVE), refusal);
        openingFails(openingWith(terms, approvalBy(APPROVER, ETHICS + 1, terms)), refusal);
        openingFails(openingWith(terms, approvalBy(STRANGER, ETHICS, terms)), refusal);
        opensWith(terms, approvalBy(APPROVER, ETHICS, terms));
    }

    function test_nothing_opens_with_an_approval_that_is_over() external {
        asked();
        AuthorizationTerms memory terms = termsOf();
        Approval memory approval = approvalBy(APPROVER, ETHICS, terms);
        vm.warp(START + DAY + 1);
        IAuthorizations.Opening memory opening = openingWith(terms, approval);
        opening.acceptance.deadline = uint40(START + 2 * DAY);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(address(ledger), opening.acceptance));
        openingFails(
            opening,
            abi.encodeWithSelector(IAdmission.ApprovalInvalid.selector, approver, ETHICS, START + DAY)
        );
        vm.warp(START + DAY);
        ledger.open(opening);
        assertPaid(terms, RESERVE, 0);
    }

    function test_nothing_opens_with_an_approval_for_something_else() external {
        asked();
        AuthorizationTerms memory terms = termsOf();
        Approval memory forged = approvalBy(STRANGER, ETHICS, terms);
        forged.by.approver = approver;
        approvalFails(terms, forged);

        AuthorizationTerms memory other = termsOf();
        other.scope.purposes = 1;
        approvalFails(terms, approvalBy(APPROVER, ETHICS, other));
        other = termsOf();
        other.consumer = stranger;
        approvalFails(terms, approvalBy(APPROVER, ETHICS, other));
        other = termsOf();
        other.provider = stranger;
        approvalFails(terms, approvalBy(APPROVER, ETHICS, other));
        other = termsOf();
        other.flags = Terms.INVOICED;
        approvalFails(terms, approvalBy(APPROVER, ETHICS, other));

        Approval memory altered = approvalBy(APPROVER, ETHICS, terms);
        altered.documentHash = "another document";
        approvalFails(terms, altered);
        opensWith(terms, approvalBy(APPROVER, ETHICS, terms));
    }

    // ------------------------------------------------------------------------------------------ suspension

    function test_a_suspended_participant_opens_nothing_yet_is_paid_for_what_was_acknowledged() external {
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        give(consumer, RESERVE);
        IAuthorizations.Opening memory next = openingOf(termsOf(), RESERVE);
        vm.startPrank(operator);
        spaces.suspend(space, provider, 1);
        spaces.suspend(space, consumer, 1);
        vm.stopPrank();
        openingFails(next, abi.encodeWithSelector(IAdmission.PartyNotActive.selector, space, provider, 1));
        vm.prank(operator);
        spaces.reinstate(space, provider);
        openingFails(next, abi.encodeWithSelector(IAdmission.PartyNotActive.selector, space, consumer, 2));
        vm.prank(operator);
        spaces.suspend(space, provider, 1);

        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
        ledger.payShare(splitId, address(yuan), provider);
        assertEq(yuan.balanceOf(provider), 1_230_000, "paid");
        vm.prank(consumer);
        ledger.withdraw(address(yuan), RESERVE, consumer);
        assertEq(yuan.balanceOf(consumer), RESERVE, "withdrawn");
    }
}

/// @title Attacks by those who pass on what they got
contract ChildAttacksTest is Attacks {
    uint32 private constant USE_AND_SUBLICENSE = 5;

    function setUp() public override {
        super.setUp();
        vm.startPrank(operator);
        spaces.admit(space, consumer, 3, "consumer");
        spaces.admit(space, stranger, 2, "stranger");
        spaces.admit(space, agent, 17, "agent");
        vm.stopPrank();
    }

    function parentOf() private returns (AuthorizationTerms memory parent) {
        parent = termsOf();
        parent.scope.rights = USE_AND_SUBLICENSE;
        opened(parent, 0);
    }

    /// @dev As wide as its parent allows.
    function childOf(AuthorizationTerms memory parent) private returns (AuthorizationTerms memory child) {
        child = termsOf();
        child.scope.rights = USE_AND_SUBLICENSE;
        child.scope.parent = idOf(parent);
        child.provider = consumer;
        child.consumer = stranger;
        child.validFrom = parent.validFrom;
        child.validUntil = parent.validUntil;
    }

    function openingUnder(
        AuthorizationTerms memory parent,
        AuthorizationTerms memory child,
        uint256 providerKey
    ) private view returns (IAuthorizations.Opening memory opening) {
        opening = openingBy(providerKey, STRANGER, child, RESERVE);
        opening.parents = new AuthorizationTerms[](1);
        opening.parents[0] = parent;
        opening.approvals = new Approval[](1);
        opening.approvals[0] = approvalBy(PROVIDER, 0, child);
    }

    function childFails(
        AuthorizationTerms memory parent,
        AuthorizationTerms memory child,
        string memory field
    ) private {
        uint256 providerKey = child.provider == consumer ? CONSUMER : AGENT;
        openingFails(
            openingUnder(parent, child, providerKey),
            abi.encodeWithSelector(IAdmission.ChildTooWide.selector, field)
        );
    }

    function test_a_child_cannot_be_wider_than_its_parent() external {
        AuthorizationTerms memory parent = parentOf();
        give(stranger, RESERVE);
        AuthorizationTerms memory child = childOf(parent);
        child.scope.rights |= 8;
        childFails(parent, child, "rights");
        child = childOf(parent);
        child.scope.purposes |= 4;
        childFails(parent, child, "purposes");
        child = childOf(parent);
        child.scope.modalities |= 4;
        childFails(parent, child, "modalities");
        child = childOf(parent);
        child.validFrom -= 1;
        childFails(parent, child, "validity");
        child = childOf(parent);
        child.validUntil += 1;
        childFails(parent, child, "validity");
        child = childOf(parent);
        child.scope.version = 0;
        childFails(parent, child, "version");
        child = childOf(parent);
        child.provider = agent;
        childFails(parent, child, "provider");

        child = childOf(parent);
        ledger.open(openingUnder(parent, child, CONSUMER));
        assertPaid(child, RESERVE, 0);
    }

    function test_a_child_cannot_live_on_after_its_parent() external {
        AuthorizationTerms memory parent = parentOf();
        AuthorizationTerms memory child = childOf(parent);
        AuthorizationTerms memory tooLate = childOf(parent);
        give(stranger, 2 * RESERVE);
        ledger.open(openingUnder(parent, child, CONSUMER));
        fails(
            stranger,
            child,
            abi.encodeCall(ledger.endByParent, (child)),
            abi.encodeWithSelector(IAuthorizations.ParentNotEnded.selector, idOf(parent), END)
        );

        vm.prank(provider);
        ledger.revoke(parent, new Requirement[](0), 1);
        openingFails(
            openingUnder(parent, tooLate, CONSUMER),
            abi.encodeWithSelector(
                IAuthorizations.ParentNotOpen.selector,
                idOf(parent),
                IAuthorizations.Status.ENDED,
                0
            )
        );
        ledger.endByParent(child);
        assertTrue(statusOf(child) == IAuthorizations.Status.ENDED, "ended by anyone");
        vm.warp(START + 1 hours);
        Head memory late = headAt(START + 1 hours, 10, 120, 500);
        IAuthorizations.Settlement memory settlement = settlementBy(CONSUMER, STRANGER, child, noHead(), late);
        settlingFails(child, settlement, afterEnd(idOf(child), START + 1 hours, START));
        ledger.settle(settlementBy(CONSUMER, STRANGER, child, noHead(), firstHead()));
        assertPaid(child, RESERVE, PRICE);
    }
}

/// @title What the tests of tokens share
abstract contract TokenWorld is Attacks {
    uint128 internal constant HALF = PRICE / 2; // the provider's share

    function give(TestToken token, address owner, uint256 amount) internal {
        token.mint(address(this), amount);
        token.approve(address(ledger), amount);
        ledger.depositFor(owner, address(token), amount);
    }

    function termsIn(TestToken token) internal returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.token = address(token);
        terms.rateCard = cards.registerRateCard(cardOf(address(token)));
    }

    /// @dev Settled up to PRICE, with 1,000 more free.
    function settledIn(TestToken token) internal returns (AuthorizationTerms memory terms) {
        terms = termsIn(token);
        give(token, consumer, RESERVE + 1000);
        ledger.open(openingOf(terms, RESERVE));
        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
    }

    function withdrawal(TestToken token, uint256 amount, address to) internal view returns (bytes memory) {
        return abi.encodeCall(ledger.withdraw, (address(token), amount, to));
    }

    function withdraws(TestToken token, address owner, uint256 amount) internal {
        uint256 before = token.balanceOf(owner);
        vm.prank(owner);
        ledger.withdraw(address(token), amount, owner);
        assertEq(token.balanceOf(owner), before + amount, "withdrawn");
    }

    function share(TestToken token, address payee) internal view returns (bytes memory) {
        return abi.encodeCall(ledger.payShare, (splitId, address(token), payee));
    }

    function paysShare(TestToken token, address payee, uint256 amount) internal {
        assertEq(ledger.payShare(splitId, address(token), payee), amount, "share");
        assertEq(token.balanceOf(payee), amount, "paid");
    }
}

/// @title Attacks by tokens
contract TokenAttacksTest is TokenWorld {
    /// @dev The consumer has 1,000 in its wallet, and the ledger may take them.
    function depositFails(TestToken token, bytes memory refusal) private {
        AuthorizationTerms memory terms = termsIn(token);
        token.mint(consumer, 1000);
        vm.prank(consumer);
        token.approve(address(ledger), 1000);
        fails(consumer, terms, abi.encodeCall(ledger.depositFor, (consumer, address(token), 1000)), refusal);
    }

    function inexact(TestToken token, uint256 received) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.TokenTransferInexact.selector, token, 1000, received);
    }

    function test_a_token_that_keeps_a_fee_cannot_be_deposited() external {
        FeeToken token = new FeeToken();
        token.setFee(10);
        depositFails(token, inexact(token, 990));
    }

    function test_a_token_that_returns_nothing_works_throughout() external {
        NoReturnToken token = new NoReturnToken();
        settledIn(token);
        withdraws(token, consumer, 1000);
        paysShare(token, provider, HALF);
        assertEq(token.balanceOf(address(ledger)), RESERVE - HALF, "held");
    }

    function test_a_token_that_returns_false_moves_nothing_in_the_books() external {
        FalseToken token = new FalseToken();
        AuthorizationTerms memory terms = settledIn(token);
        bytes memory failed = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token);
        token.setBroken(true);
        depositFails(token, failed);
        fails(consumer, terms, withdrawal(token, 1000, consumer), failed);
        fails(provider, terms, share(token, provider), failed);
        assertEq(ledger.shareOf(splitId, address(token), provider), HALF, "still owed");

        token.setBroken(false);
        withdraws(token, consumer, 1000);
        paysShare(token, provider, HALF);
    }

    // -------------------------------------------------------------------------------------------- reentrancy

    /// @dev A token that has 1,000 in an account of its own and 1,000 to deposit: all it calls would be its right.
    function reentrant() private returns (ReentrantToken token) {
        token = new ReentrantToken();
        settledIn(token);
        give(token, address(token), 1000);
        token.mint(address(token), 1000);
        token.allow(address(ledger), 1000);
        token.mint(consumer, 1000);
        vm.prank(consumer);
        token.approve(address(ledger), 1000);
    }

    /// @dev The outer call goes on, the inner one is refused, and the ledger holds `change` more.
    function refusesWithin(ReentrantToken token, bytes memory outer, bytes memory inner, int256 change) private {
        int256 before = int256(token.balanceOf(address(ledger)));
        token.arm(address(ledger), inner);
        vm.prank(consumer);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, ) = address(ledger).call(outer);
        assertTrue(done && token.called() && !token.succeeded(), "outside done, inside refused");
        bytes memory refusal = abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        assertSame(token.answer(), refusal, "error");
        assertEq(uint256(int256(token.balanceOf(address(ledger))) - before), uint256(change), "held");
        assertEq(ledger.freeOf(address(token), address(token)), 1000, "its own account");
        assertEq(token.balanceOf(address(token)), 1000, "its own wallet");
    }

    function refusesAllWithin(ReentrantToken token, bytes memory outer, int256 change) private {
        address self = address(token);
        refusesWithin(token, outer, abi.encodeCall(ledger.depositFor, (self, self, 1000)), change);
        refusesWithin(token, outer, withdrawal(token, 1000, self), change);
        refusesWithin(token, outer, share(token, agent), change);
        assertEq(ledger.shareOf(splitId, self, agent), 861_000, "the other payee's");
    }

    function test_a_token_cannot_come_back_during_a_deposit() external {
        ReentrantToken token = reentrant();
        refusesAllWithin(token, abi.encodeCall(ledger.depositFor, (consumer, address(token), 100)), 100);
        assertEq(ledger.freeOf(consumer, address(token)), 1300, "free");
        assertEq(token.balanceOf(consumer), 700, "wallet");
    }

    function test_a_token_cannot_come_back_during_a_withdrawal() external {
        ReentrantToken token = reentrant();
        refusesAllWithin(token, withdrawal(token, 100, consumer), -100);
        assertEq(ledger.freeOf(consumer, address(token)), 700, "free");
        assertEq(token.balanceOf(consumer), 1300, "wallet");
    }

    function test_a_token_cannot_come_back_while_a_share_is_paid() external {
        ReentrantToken token = reentrant();
        address self = address(token);
        refusesWithin(token, share(token, provider), share(token, provider), -int256(uint256(HALF)));
        assertEq(token.balanceOf(provider), HALF, "once");
        refusesWithin(token, share(token, operator), withdrawal(token, 1000, self), -369_000);
        refusesWithin(token, share(token, agent), abi.encodeCall(ledger.depositFor, (self, self, 1000)), -861_000);
        assertEq(ledger.accruedOf(splitId, self), PRICE, "accrued");
    }

    // ----------------------------------------------------------------------------- blocking, pausing, lying

    function test_a_payee_that_a_token_blocks_stops_nobody_else() external {
        BlockingToken token = new BlockingToken();
        AuthorizationTerms memory terms = settledIn(token);
        bytes memory blocked = abi.encodeWithSelector(BlockingToken.Blocked.selector, agent);
        token.setBlocked(agent);
        fails(agent, terms, share(token, agent), blocked);
        paysShare(token, provider, HALF);
        paysShare(token, operator, 369_000);
        withdraws(token, consumer, 1000);
        ledger.settle(settlementOf(terms, firstHead(), headAt(START, 20, 130, 600)));
        ledger.closeTogether(closingOf(terms, headAt(START, 20, 130, 600), headAt(START, 20, 130, 600), 2_800_000));
        fails(agent, terms, share(token, agent), blocked);

        token.setBlocked(address(0));
        paysShare(token, agent, 980_000);
    }

    function test_a_token_that_pauses_loses_nobody_anything() external {
        PausingToken token = new PausingToken();
        AuthorizationTerms memory terms = termsIn(token);
        give(token, consumer, RESERVE + 1000);
        ledger.open(openingOf(terms, RESERVE));
        bytes memory paused = abi.encodeWithSelector(Pausable.EnforcedPause.selector);
        token.pause();
        fails(consumer, terms, withdrawal(token, 1000, consumer), paused);
        ledger.settle(acknowledged(terms));
        assertPaid(terms, RESERVE, PRICE);
        fails(provider, terms, share(token, provider), paused);

        token.unpause();
        withdraws(token, consumer, 1000);
        paysShare(token, provider, HALF);
        assertEq(token.balanceOf(address(ledger)), RESERVE - HALF, "held");
    }

    function test_a_token_that_lies_about_balances_cannot_be_deposited() external {
        LyingToken token = new LyingToken();
        token.setLie(500, false);
        depositFails(token, inexact(token, 1500));
        token = new LyingToken();
        token.setLie(-500, false);
        depositFails(token, inexact(token, 500));
        token = new LyingToken();
        token.setLie(0, true);
        depositFails(token, inexact(token, 0));
    }

    function test_a_token_that_invents_a_deposit_takes_nothing_of_another_token() external {
        LyingToken token = new LyingToken();
        AuthorizationTerms memory terms = opened(termsOf(), RESERVE);
        give(consumer, 1000);
        bytes memory before = booksOf(terms);
        token.setLie(1000, true);
        vm.prank(stranger);
        ledger.depositFor(stranger, address(token), 1000);
        assertEq(ledger.freeOf(stranger, address(token)), 1000, "a thousand of nothing");
        fails(
            stranger,
            terms,
            abi.encodeCall(ledger.withdraw, (address(yuan), 1000, stranger)),
            tooLow(stranger, address(yuan), 0, 1000)
        );
        assertSame(booksOf(terms), before, "nothing moved");
    }
}

/// @title Attacks on deposits that somebody else submits
contract DepositAttacksTest is Attacks {
    uint256 private constant DEADLINE = START + DAY;

    struct Signed {
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    function signed(bytes32 structHash) private view returns (Signed memory by) {
        (by.v, by.r, by.s) = vm.sign(CONSUMER, MessageHashUtils.toTypedDataHash(yuan.DOMAIN_SEPARATOR(), structHash));
    }

    /// @dev The consumer's, for the ledger, of 700.
    function permit() private view returns (Signed memory) {
        bytes32 typeHash = keccak256(
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        );
        return signed(keccak256(abi.encode(typeHash, consumer, address(ledger), 700, 0, DEADLINE)));
    }

    function withPermit(address owner, Signed memory by) private view returns (bytes memory) {
        return abi.encodeCall(ledger.depositWithPermit, (owner, address(yuan), 700, DEADLINE, by.v, by.r, by.s));
    }

    /// @dev The consumer's EIP-3009 authorization to the ledger, of 700, for `owner`'s account.
    function authorized(address owner) private view returns (Signed memory) {
        bytes32 typeHash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,"
            "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 nonce = keccak256(abi.encode(owner, bytes32("salt")));
        return signed(keccak256(abi.encode(typeHash, consumer, address(ledger), 700, 0, DEADLINE, nonce)));
    }

    function withAuthorization(address owner, Signed memory by) private view returns (bytes memory) {
        return
            abi.encodeCall(
                ledger.depositWithAuthorization,
                (consumer, owner, address(yuan), 700, 0, DEADLINE, "salt", by.v, by.r, by.s)
            );
    }

    function noAllowance(uint256 amount) private view returns (bytes memory) {
        return abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(ledger), 0, amount);
    }

    function test_a_permit_submitted_by_somebody_else_first_is_as_good() external {
        yuan.mint(consumer, 1000);
        Signed memory by = permit();
        vm.prank(stranger);
        yuan.permit(consumer, address(ledger), 700, DEADLINE, by.v, by.r, by.s);
        vm.prank(consumer);
        ledger.depositWithPermit(consumer, address(yuan), 700, DEADLINE, by.v, by.r, by.s);
        assertFree(consumer, 700);
        assertEq(yuan.balanceOf(consumer), 300, "wallet");
        fails(consumer, termsOf(), withPermit(consumer, by), noAllowance(700));
    }

    function test_a_permit_is_no_use_to_anybody_else() external {
        yuan.mint(consumer, 1000);
        AuthorizationTerms memory terms = termsOf();
        fails(stranger, terms, withPermit(stranger, permit()), noAllowance(700));
        fails(stranger, terms, withPermit(consumer, permit()), noAllowance(700));
        assertEq(yuan.balanceOf(consumer), 1000, "wallet");
    }

    /// @dev What emptied wallets that had approved Multichain's router: a permit that does nothing and does not fail.
    function test_a_permit_that_a_token_ignores_opens_nobodys_wallet() external {
        FallbackToken token = new FallbackToken();
        AuthorizationTerms memory terms = termsOf();
        terms.token = address(token);
        token.mint(consumer, 1000);
        vm.prank(consumer);
        token.approve(address(ledger), type(uint256).max);
        bytes memory data = abi.encodeCall(
            ledger.depositWithPermit,
            (stranger, address(token), 700, DEADLINE, 27, "r", "s")
        );
        fails(stranger, terms, data, noAllowance(700));
        data = abi.encodeCall(
            ledger.depositWithAuthorization,
            (consumer, stranger, address(token), 700, 0, DEADLINE, "salt", 27, "r", "s")
        );
        bytes memory refusal = abi.encodeWithSelector(IUsageLedger.TokenTransferInexact.selector, token, 700, 0);
        fails(stranger, terms, data, refusal);
    }

    function test_a_deposit_authorization_cannot_be_redirected() external {
        yuan.mint(consumer, 1000);
        AuthorizationTerms memory terms = termsOf();
        Signed memory by = authorized(consumer);
        bytes memory refusal = abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector);
        fails(stranger, terms, withAuthorization(stranger, by), refusal);

        bytes32 nonce = keccak256(abi.encode(consumer, bytes32("salt")));
        bytes memory atTheToken = abi.encodeCall(
            yuan.receiveWithAuthorization,
            (consumer, address(ledger), 700, 0, DEADLINE, nonce, by.v, by.r, by.s)
        );
        refusal = abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(ledger));
        assertRefused(stranger, address(yuan), atTheToken, refusal);
        assertEq(yuan.balanceOf(address(ledger)), 0, "nothing that belongs to nobody");

        vm.prank(stranger);
        ledger.depositWithAuthorization(consumer, consumer, address(yuan), 700, 0, DEADLINE, "salt", by.v, by.r, by.s);
        assertFree(consumer, 700);
        refusal = abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, consumer, nonce);
        fails(stranger, terms, withAuthorization(consumer, by), refusal);
    }

    function test_a_standing_allowance_is_of_no_use_to_anybody_else() external {
        yuan.mint(consumer, 1000);
        vm.prank(consumer);
        yuan.approve(address(ledger), type(uint256).max);
        AuthorizationTerms memory terms = termsOf();
        address token = address(yuan);
        fails(stranger, terms, abi.encodeCall(ledger.depositFor, (stranger, token, 700)), noAllowance(700));
        fails(stranger, terms, abi.encodeCall(ledger.depositFor, (consumer, token, 700)), noAllowance(700));
        fails(stranger, terms, withPermit(stranger, Signed(27, "r", "s")), noAllowance(700));
        vm.prank(consumer);
        ledger.depositFor(consumer, token, 700);
        assertFree(consumer, 700);
    }

    // ------------------------------------------------------------------------------------- forwarded calls

    function requestDigest(
        ERC2771Forwarder.ForwardRequestData memory request,
        uint256 nonce
    ) private view returns (bytes32) {
        bytes32 typeHash = keccak256(
            "ForwardRequest(address from,address to,uint256 value,uint256 gas,uint256 nonce,uint48 deadline,bytes data)"
        );
        bytes32 dataHash = keccak256(request.data);
        bytes32 structHash = keccak256(
            abi.encode(typeHash, request.from, request.to, 0, request.gas, nonce, request.deadline, dataHash)
        );
        return digests.digest(address(forwarder), structHash);
    }

    function test_a_forwarded_withdrawal_cannot_be_replayed() external {
        give(consumer, 1000);
        ERC2771Forwarder.ForwardRequestData memory request;
        (request.from, request.to, request.gas) = (consumer, address(ledger), 500_000);
        request.deadline = uint48(DEADLINE);
        request.data = abi.encodeCall(ledger.withdraw, (address(yuan), 400, consumer));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(CONSUMER, requestDigest(request, 0));
        request.signature = abi.encodePacked(r, s, v);
        vm.prank(stranger);
        forwarder.execute(request);
        assertFree(consumer, 600);

        address somebody = ecrecover(requestDigest(request, 1), v, r, s);
        AuthorizationTerms memory terms = termsOf();
        bytes memory before = booksOf(terms);
        assertRefused(
            stranger,
            address(forwarder),
            abi.encodeCall(forwarder.execute, (request)),
            abi.encodeWithSelector(ERC2771Forwarder.ERC2771ForwarderInvalidSigner.selector, somebody, consumer)
        );
        assertSame(booksOf(terms), before, "nothing moved");
        assertEq(yuan.balanceOf(consumer), 400, "once");
    }

    function test_who_appends_an_address_himself_is_not_taken_for_it() external {
        give(consumer, 1000);
        bytes memory data = abi.encodeCall(ledger.withdraw, (address(yuan), 400, stranger));
        fails(stranger, termsOf(), abi.encodePacked(data, consumer), tooLow(stranger, address(yuan), 0, 400));
    }
}

/// @title Attacks on a sponsor
contract SubsidyAttacksTest is Attacks {
    uint16 private constant ORGANISATION = 1;
    uint128 private constant FUNDS = 10_000_000;
    uint128 private constant CAP = 700_000; // a quarter of PRICE is 615,000

    address private sponsor = vm.addr(0x5b0);

    function credential(address wallet, bytes32 digest) private {
        vm.prank(operator);
        spaces.recordCredential(space, wallet, ORGANISATION, digest, uint40(START + 365 * DAY));
    }

    function pooled() private returns (bytes32) {
        ISubsidyPool.Rule memory rule = ISubsidyPool.Rule({
            token: address(yuan),
            space: space,
            shareBps: 2500,
            credentialType: ORGANISATION,
            capPerConsumer: CAP,
            validFrom: uint40(START - DAY),
            validUntil: uint40(START + 30 * DAY),
            claimUntil: uint40(START + 60 * DAY),
            objectionSeconds: uint32(2 * DAY)
        });
        bytes32[] memory none = new bytes32[](0);
        yuan.mint(sponsor, FUNDS);
        vm.startPrank(sponsor);
        yuan.approve(address(subsidies), FUNDS);
        bytes32 pool = subsidies.createPool(rule, none, none, FUNDS, "salt");
        vm.stopPrank();
        return pool;
    }

    /// @dev Use that was agreed for the subsidy's sake, closed at once.
    function washed(uint256 consumerKey) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.consumer = vm.addr(consumerKey);
        give(terms.consumer, RESERVE);
        ledger.open(openingBy(PROVIDER, consumerKey, terms, RESERVE));
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), firstHead(), PRICE);
        closing.consumerSignature = sign(consumerKey, digests.close(address(ledger), closing.close));
        ledger.closeTogether(closing);
        assertPaid(terms, PRICE, PRICE);
    }

    function claimFails(bytes32 pool, AuthorizationTerms memory terms, bytes memory refusal) private {
        uint256 left = subsidies.poolOf(pool).left;
        bytes memory before = booksOf(terms);
        assertRefused(terms.consumer, address(subsidies), abi.encodeCall(subsidies.claim, (pool, terms)), refusal);
        assertSame(booksOf(terms), before, "nothing moved");
        assertEq(subsidies.poolOf(pool).left, left, "left");
    }

    function claims(bytes32 pool, AuthorizationTerms memory terms, uint256 amount) private {
        vm.prank(terms.consumer);
        assertEq(subsidies.claim(pool, terms), amount, "amount");
    }

    function nothingFor(bytes32 pool, AuthorizationTerms memory terms) private view returns (bytes memory) {
        return abi.encodeWithSelector(ISubsidyPool.NothingToClaim.selector, pool, idOf(terms));
    }

    function test_a_colluding_pair_cannot_take_more_than_the_cap_of_its_organisation() external {
        vm.prank(operator);
        spaces.admit(space, stranger, 2, "second wallet");
        credential(provider, "provider's");
        credential(consumer, "consumer's");
        credential(stranger, "consumer's");
        bytes32 pool = pooled();
        AuthorizationTerms memory first = washed(CONSUMER);
        AuthorizationTerms memory second = washed(CONSUMER);
        AuthorizationTerms memory third = washed(CONSUMER);
        AuthorizationTerms memory otherWallet = washed(STRANGER);

        vm.warp(START + 3 * DAY + 1);
        claims(pool, first, 615_000);
        claimFails(pool, first, abi.encodeWithSelector(ISubsidyPool.AlreadySubsidised.selector, idOf(first)));
        claims(pool, second, CAP - 615_000);
        claimFails(pool, third, nothingFor(pool, third));
        claimFails(pool, otherWallet, nothingFor(pool, otherWallet));
        assertEq(subsidies.poolOf(pool).left, FUNDS - CAP, "left");
        assertEq(yuan.balanceOf(address(subsidies)), FUNDS - CAP, "held");
        assertEq(yuan.balanceOf(consumer), CAP, "taken");
    }

    function test_an_organisation_cannot_be_subsidised_for_buying_from_itself() external {
        credential(provider, "the same");
        credential(consumer, "the same");
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = washed(CONSUMER);
        vm.warp(START + 3 * DAY + 1);
        claimFails(pool, terms, abi.encodeWithSelector(ISubsidyPool.NotCovered.selector, "provider"));
    }
}
