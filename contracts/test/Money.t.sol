// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {AuthorizationTerms, CompactTerms, Head} from "../libraries/Terms.sol";
import {Ledgers} from "./Ledgers.sol";

/// @title A token that delivers too little or too much, or calls back while it moves, and knows no permit
contract OddToken is ERC20 {
    int256 private extra;
    address private target;
    bytes private question;
    bytes public answer;

    constructor() ERC20("Odd", "ODD") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function deliverMore(int256 extra_) external {
        extra = extra_;
    }

    function callDuringTransfer(address target_, bytes calldata question_) external {
        (target, question, answer) = (target_, question_, "none");
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256,
        uint256,
        bytes32,
        uint8,
        bytes32,
        bytes32
    ) external {
        _transfer(from, to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from == address(0) || to == address(0)) return;
        if (extra > 0) _mint(to, uint256(extra));
        if (extra < 0) _burn(to, uint256(-extra));
        if (target != address(0)) {
            // solhint-disable-next-line avoid-low-level-calls
            (, answer) = target.call(question);
        }
    }
}

/// @title What the tests of money share
abstract contract MoneySteps is Ledgers {
    function free(address owner) internal view returns (uint256) {
        return ledger.freeOf(owner, address(yuan));
    }

    function refuses(address caller, bytes memory data, bytes memory problem) internal {
        assertRefused(caller, address(ledger), data, problem);
    }

    function amountZero() internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.AmountZero.selector);
    }

    function balanceTooLow(address owner, uint256 found, uint256 amount) internal view returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.BalanceTooLow.selector, owner, address(yuan), found, amount);
    }

    function assertReservation(
        AuthorizationTerms memory terms,
        uint128 reserved,
        uint128 paid,
        uint128 thawing
    ) internal view {
        IUsageLedger.Reservation memory found = ledger.reservationOf(idOf(terms));
        assertEq(found.reserved, reserved, "reserved");
        assertEq(found.paid, paid, "paid");
        assertEq(found.thawing, thawing, "thawing");
    }

    /// @dev Every state but OPEN refuses this call by this party.
    function refusesUnlessOpen(
        address caller,
        function(AuthorizationTerms memory) internal view returns (bytes memory) data
    ) internal {
        AuthorizationTerms memory terms = termsOf();
        refuses(caller, data(terms), notInState(idOf(terms), IAuthorizations.Status.NONE));
        cancelledBy(provider, terms);
        refuses(caller, data(terms), notInState(idOf(terms), IAuthorizations.Status.CANCELLED));
        terms = openedOn(false, 1_000);
        finalized(terms);
        refuses(caller, data(terms), notInState(idOf(terms), IAuthorizations.Status.CLOSED));
    }
}

/// @title Deposits and withdrawals
contract AccountsTest is MoneySteps {
    OddToken private odd = new OddToken();

    function deposit(address owner, address token, uint256 amount) private view returns (bytes memory) {
        return abi.encodeCall(ledger.depositFor, (owner, token, amount));
    }

    function mayTake(address owner, uint256 amount) private {
        yuan.mint(owner, amount);
        vm.prank(owner);
        yuan.approve(address(ledger), amount);
    }

    function assertDeposited(address owner, address from, uint256 amount) private {
        emit IUsageLedger.Deposited(owner, address(yuan), from, amount);
        assertEmittedAmongOthers(address(ledger));
    }

    // ---------------------------------------------------------------------------------------------- deposits

    function test_a_deposit_is_credited_to_the_account_it_is_for() external {
        mayTake(stranger, 1_000);
        vm.recordLogs();
        vm.prank(stranger);
        ledger.depositFor(consumer, address(yuan), 700);
        assertDeposited(consumer, stranger, 700);
        assertEq(free(consumer), 700, "free");
        assertEq(free(stranger), 0, "not the payer's");
        assertEq(yuan.balanceOf(stranger), 300, "left");
        assertEq(yuan.balanceOf(address(ledger)), 700, "held");
        vm.prank(stranger);
        ledger.depositFor(consumer, address(yuan), 1);
        assertEq(free(consumer), 701, "more");
        assertEq(ledger.freeOf(consumer, address(odd)), 0, "another token");
    }

    function test_nothing_is_no_deposit() external {
        mayTake(consumer, 1);
        refuses(consumer, deposit(consumer, address(yuan), 0), amountZero());
        vm.prank(consumer);
        ledger.depositFor(consumer, address(yuan), 1);
        assertEq(free(consumer), 1, "one is enough");
    }

    function test_a_deposit_is_in_a_token_that_is_there() external {
        bytes memory problem = abi.encodeWithSelector(IUsageLedger.TokenNotContract.selector, address(0xdead));
        refuses(consumer, deposit(consumer, address(0xdead), 1), problem);
        bytes memory data = abi.encodeCall(
            ledger.depositWithAuthorization,
            (consumer, consumer, address(0xdead), 1, 0, START + 1, 0, 27, 0, 0)
        );
        refuses(consumer, data, problem);
    }

    function test_a_deposit_by_permit_is_in_a_token_that_is_there() external {
        bytes memory problem = abi.encodeWithSelector(IUsageLedger.TokenNotContract.selector, address(0xdead));
        bytes memory data = abi.encodeCall(
            ledger.depositWithPermit,
            (consumer, address(0xdead), 1, START + 1, 27, 0, 0)
        );
        refuses(consumer, data, problem);
    }

    function test_a_deposit_is_for_an_account_that_somebody_can_use() external {
        mayTake(consumer, 2);
        bytes memory problem = abi.encodeWithSelector(IUsageLedger.ReceiverInvalid.selector, address(0));
        refuses(consumer, deposit(address(0), address(yuan), 1), problem);
        problem = abi.encodeWithSelector(IUsageLedger.ReceiverInvalid.selector, address(ledger));
        refuses(consumer, deposit(address(ledger), address(yuan), 1), problem);
    }

    function test_a_deposit_is_what_arrives() external {
        odd.mint(address(this), 300);
        odd.approve(address(ledger), 300);
        odd.deliverMore(-1);
        bytes4 inexact = IUsageLedger.TokenTransferInexact.selector;
        bytes memory data = deposit(consumer, address(odd), 100);
        refuses(address(this), data, abi.encodeWithSelector(inexact, address(odd), 100, 99));
        odd.deliverMore(1);
        refuses(address(this), data, abi.encodeWithSelector(inexact, address(odd), 100, 101));
        odd.deliverMore(0);
        ledger.depositFor(consumer, address(odd), 100);
        odd.deliverMore(-1);
        refuses(address(this), data, abi.encodeWithSelector(inexact, address(odd), 100, 99));
        assertEq(ledger.freeOf(consumer, address(odd)), 100, "free");
    }

    function test_a_deposit_by_authorization_is_what_arrives() external {
        odd.mint(consumer, 100);
        odd.deliverMore(-1);
        bytes memory data = abi.encodeCall(
            ledger.depositWithAuthorization,
            (consumer, consumer, address(odd), 100, 0, START + 1, 0, 27, 0, 0)
        );
        refuses(
            stranger,
            data,
            abi.encodeWithSelector(IUsageLedger.TokenTransferInexact.selector, address(odd), 100, 99)
        );
        odd.deliverMore(0);
        vm.prank(stranger);
        ledger.depositWithAuthorization(consumer, consumer, address(odd), 100, 0, START + 1, 0, 27, 0, 0);
        assertEq(ledger.freeOf(consumer, address(odd)), 100, "free");
    }

    function noAllowance(uint256 allowed, uint256 asked) private view returns (bytes memory) {
        return
            abi.encodeWithSignature(
                "ERC20InsufficientAllowance(address,uint256,uint256)",
                address(ledger),
                allowed,
                asked
            );
    }

    function test_an_allowance_is_no_permission_for_others_to_use_it() external {
        mayTake(consumer, 1_000);
        refuses(stranger, deposit(stranger, address(yuan), 1), noAllowance(0, 1));
        refuses(consumer, deposit(consumer, address(yuan), 1_001), noAllowance(1_000, 1_001));
    }

    // ------------------------------------------------------------------------------------------------ permits

    function permitOf(uint256 key, uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 typeHash = keccak256(
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        );
        bytes32 structHash = keccak256(abi.encode(typeHash, vm.addr(key), address(ledger), amount, 0, START + 9));
        return vm.sign(key, MessageHashUtils.toTypedDataHash(yuan.DOMAIN_SEPARATOR(), structHash));
    }

    /// @dev As the consumer, with a permit signed by this key.
    function permitted(uint256 key, address owner, uint256 amount) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = permitOf(key, amount);
        return abi.encodeCall(ledger.depositWithPermit, (owner, address(yuan), amount, START + 9, v, r, s));
    }

    function deposits(bytes memory data, address owner, uint256 amount) private {
        vm.recordLogs();
        vm.prank(consumer);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, ) = address(ledger).call(data);
        assertTrue(done, "deposited");
        assertDeposited(owner, consumer, amount);
        assertEq(free(owner), amount, "free");
    }

    function test_a_permit_takes_the_place_of_an_approval() external {
        yuan.mint(consumer, 1_000);
        deposits(permitted(CONSUMER, provider, 700), provider, 700);
        assertEq(yuan.balanceOf(consumer), 300, "left");
        assertEq(yuan.allowance(consumer, address(ledger)), 0, "used up");
    }

    function test_a_permit_that_somebody_submitted_first_still_deposits() external {
        yuan.mint(consumer, 1_000);
        bytes memory data = permitted(CONSUMER, consumer, 700);
        (uint8 v, bytes32 r, bytes32 s) = permitOf(CONSUMER, 700);
        vm.prank(stranger);
        yuan.permit(consumer, address(ledger), 700, START + 9, v, r, s);
        deposits(data, consumer, 700);
        refuses(consumer, data, noAllowance(0, 700));
    }

    function test_a_wrong_permit_deposits_nothing_without_an_allowance() external {
        yuan.mint(consumer, 1_000);
        refuses(consumer, permitted(STRANGER, consumer, 700), noAllowance(0, 700));
        refuses(stranger, permitted(CONSUMER, stranger, 700), noAllowance(0, 700));
        bytes memory data = permitted(CONSUMER, consumer, 700);
        vm.warp(START + 10);
        refuses(consumer, data, noAllowance(0, 700));
    }

    function test_a_wrong_permit_does_no_harm_where_there_is_an_allowance() external {
        mayTake(consumer, 700);
        deposits(permitted(STRANGER, consumer, 700), consumer, 700);
    }

    function test_a_token_without_permits_needs_an_allowance() external {
        odd.mint(consumer, 700);
        vm.prank(consumer);
        odd.approve(address(ledger), 700);
        vm.prank(consumer);
        ledger.depositWithPermit(consumer, address(odd), 700, START, 27, 0, 0);
        assertEq(ledger.freeOf(consumer, address(odd)), 700, "free");
    }

    // ----------------------------------------------------------------------------------------- authorizations

    function authorized(
        address owner,
        bytes32 season,
        uint256 amount
    ) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 typeHash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,"
            "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 nonce = keccak256(abi.encode(owner, season));
        bytes32 structHash = keccak256(
            abi.encode(typeHash, consumer, address(ledger), amount, START - 1, START + 9, nonce)
        );
        return vm.sign(CONSUMER, MessageHashUtils.toTypedDataHash(yuan.DOMAIN_SEPARATOR(), structHash));
    }

    /// @dev Authorized for provider's account, under the salt "salt", and asked for so.
    function authorizedFor(address owner, bytes32 season, uint256 amount) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = authorized(provider, "salt", 700);
        return
            abi.encodeCall(
                ledger.depositWithAuthorization,
                (consumer, owner, address(yuan), amount, START - 1, START + 9, season, v, r, s)
            );
    }

    function test_anyone_may_submit_a_deposit_that_was_authorized() external {
        yuan.mint(consumer, 1_000);
        (uint8 v, bytes32 r, bytes32 s) = authorized(provider, "salt", 700);
        vm.recordLogs();
        vm.prank(stranger);
        ledger.depositWithAuthorization(consumer, provider, address(yuan), 700, START - 1, START + 9, "salt", v, r, s);
        assertDeposited(provider, consumer, 700);
        assertEq(free(provider), 700, "free");
        assertEq(free(consumer), 0, "not the payer's");
        assertEq(yuan.balanceOf(consumer), 300, "left");
    }

    function test_a_deposit_that_was_authorized_is_for_one_account_salt_and_amount() external {
        yuan.mint(consumer, 1_000);
        bytes memory problem = abi.encodeWithSignature("ERC3009InvalidSignature()");
        refuses(stranger, authorizedFor(stranger, "salt", 700), problem);
        refuses(consumer, authorizedFor(consumer, "salt", 700), problem);
        refuses(stranger, authorizedFor(provider, "other", 700), problem);
        refuses(stranger, authorizedFor(provider, "salt", 701), problem);
        assertEq(yuan.balanceOf(consumer), 1_000, "untouched");
    }

    function test_a_deposit_that_was_authorized_is_made_once() external {
        yuan.mint(consumer, 2_000);
        bytes memory data = authorizedFor(provider, "salt", 700);
        vm.prank(stranger);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, ) = address(ledger).call(data);
        assertTrue(done, "once");
        bytes32 nonce = keccak256(abi.encode(provider, bytes32("salt")));
        refuses(stranger, data, abi.encodeWithSignature("ERC3009UsedAuthorization(address,bytes32)", consumer, nonce));
    }

    function test_a_deposit_that_was_authorized_is_checked_like_any_other() external {
        refuses(stranger, authorizedFor(provider, "salt", 0), amountZero());
        bytes4 invalid = IUsageLedger.ReceiverInvalid.selector;
        refuses(stranger, authorizedFor(address(0), "salt", 700), abi.encodeWithSelector(invalid, address(0)));
        bytes memory problem = abi.encodeWithSelector(invalid, address(ledger));
        refuses(stranger, authorizedFor(address(ledger), "salt", 700), problem);
    }

    function test_a_deposit_by_permit_is_checked_like_any_other() external {
        refuses(consumer, permitted(CONSUMER, consumer, 0), amountZero());
        bytes4 invalid = IUsageLedger.ReceiverInvalid.selector;
        refuses(consumer, permitted(CONSUMER, address(0), 1), abi.encodeWithSelector(invalid, address(0)));
    }

    // -------------------------------------------------------------------------------------------- withdrawals

    function withdrawal(uint256 amount, address to) private view returns (bytes memory) {
        return abi.encodeCall(ledger.withdraw, (address(yuan), amount, to));
    }

    function test_free_money_is_withdrawn_to_any_wallet() external {
        give(consumer, 700);
        give(provider, 50);
        vm.recordLogs();
        vm.prank(consumer);
        ledger.withdraw(address(yuan), 300, stranger);
        emit IUsageLedger.Withdrawn(consumer, address(yuan), stranger, 300);
        assertEmittedAmongOthers(address(ledger));
        assertEq(free(consumer), 400, "free");
        assertEq(yuan.balanceOf(stranger), 300, "sent");
        assertEq(yuan.balanceOf(address(ledger)), 450, "held");
        assertEq(free(provider), 50, "the provider's");
    }

    function test_no_more_is_withdrawn_than_is_free() external {
        give(consumer, 700);
        give(provider, 700);
        refuses(consumer, withdrawal(701, consumer), balanceTooLow(consumer, 700, 701));
        refuses(stranger, withdrawal(1, stranger), balanceTooLow(stranger, 0, 1));
        vm.prank(consumer);
        ledger.withdraw(address(yuan), 700, consumer);
        assertEq(free(consumer), 0, "all of it");
        refuses(consumer, withdrawal(1, consumer), balanceTooLow(consumer, 0, 1));
    }

    function test_reserved_money_is_not_withdrawn() external {
        openedOn(false, 700);
        refuses(consumer, withdrawal(1, consumer), balanceTooLow(consumer, 0, 1));
    }

    function test_nothing_is_withdrawn_to_where_it_is_lost() external {
        give(consumer, 700);
        refuses(consumer, withdrawal(0, consumer), amountZero());
        bytes memory problem = abi.encodeWithSelector(IUsageLedger.ReceiverInvalid.selector, address(ledger));
        refuses(consumer, withdrawal(1, address(ledger)), problem);
        problem = abi.encodeWithSignature("ERC20InvalidReceiver(address)", address(0));
        refuses(consumer, withdrawal(1, address(0)), problem);
    }

    // -------------------------------------------------------------------------------------------- re-entrance

    function assertNotEntered(bytes memory question) private {
        odd.callDuringTransfer(address(ledger), question);
        ledger.depositFor(address(this), address(odd), 10);
        assertSame(odd.answer(), abi.encodeWithSignature("ReentrancyGuardReentrantCall()"), "while depositing");
        odd.callDuringTransfer(address(ledger), question);
        ledger.withdraw(address(odd), 5, address(this));
        assertSame(odd.answer(), abi.encodeWithSignature("ReentrancyGuardReentrantCall()"), "while withdrawing");
    }

    function test_no_function_that_moves_money_is_entered_while_a_token_moves() external {
        odd.mint(address(this), 1_000);
        odd.approve(address(ledger), 1_000);
        CompactTerms memory compact = compactOf(termsOf());
        assertNotEntered(deposit(consumer, address(odd), 1));
        assertNotEntered(withdrawal(1, consumer));
        assertNotEntered(abi.encodeCall(ledger.depositWithPermit, (consumer, address(odd), 1, 0, 0, 0, 0)));
        assertNotEntered(authorizedFor(provider, "salt", 1));
        assertNotEntered(abi.encodeCall(ledger.topUp, (compact, noHead(), 1)));
        assertNotEntered(abi.encodeCall(ledger.thaw, (compact, 1)));
        assertNotEntered(abi.encodeCall(ledger.releaseThawed, (compact)));
        assertNotEntered(abi.encodeCall(ledger.refund, (compact, 1)));
        assertNotEntered(abi.encodeCall(ledger.payShare, (splitId, address(odd), provider)));
        assertEq(ledger.freeOf(address(this), address(odd)), 45, "nothing else moved");
    }

    /// @dev Opened, settled and shared in the odd token.
    function test_nothing_is_entered_while_a_share_is_paid() external {
        odd.mint(address(this), 10_000);
        odd.approve(address(ledger), 10_000);
        ledger.depositFor(consumer, address(odd), 10_000);
        AuthorizationTerms memory terms = termsOf();
        terms.token = address(odd);
        terms.rateCard = cardAt(1, 1, address(odd));
        terms.maxUnits = [uint64(10_000), 0, 0, 0];
        ledger.open(openingOf(terms, 10_000));
        settle(terms, noHead(), headAt(10, [uint64(10_000), 0, 0, 0], 0, NOW));
        odd.callDuringTransfer(address(ledger), abi.encodeCall(ledger.payShare, (splitId, address(odd), operator)));
        ledger.payShare(splitId, address(odd), provider);
        assertSame(odd.answer(), abi.encodeWithSignature("ReentrancyGuardReentrantCall()"), "guarded");
        assertEq(odd.balanceOf(operator), 0, "not paid");
    }
}

/// @title Reservations: more, less, back
contract ReservationsTest is MoneySteps {
    AuthorizationTerms private terms;
    bytes32 private id;

    function has(uint128 reserve) private {
        terms = openedOn(false, reserve);
        id = idOf(terms);
    }

    // ---------------------------------------------------------------------------------------------- topping up

    function topUp(Head memory settledHead, uint128 amount) private view returns (bytes memory) {
        return abi.encodeCall(ledger.topUp, (compactOf(terms), settledHead, amount));
    }

    /// @dev By the stranger, out of its own account.
    function topsUp(Head memory settledHead, uint128 amount) private {
        give(stranger, amount);
        CompactTerms memory compact = compactOf(terms);
        vm.recordLogs();
        vm.prank(stranger);
        ledger.topUp(compact, settledHead, amount);
        emit IUsageLedger.ToppedUp(id, stranger, amount);
        assertEq(free(stranger), 0, "out of its own account");
    }

    function test_anyone_adds_to_a_reservation_out_of_its_own_account() external {
        has(700);
        give(stranger, 9);
        give(consumer, 5);
        topsUpLeaving(300, 9);
        assertReservation(terms, 1_000, 0, 0);
        assertEq(free(consumer), 5, "not the consumer's money");
        assertEq(ledger.accruedOf(splitId, address(yuan)), 0, "nothing is paid");
    }

    function topsUpLeaving(uint128 amount, uint256 left) private {
        give(stranger, amount);
        CompactTerms memory compact = compactOf(terms);
        vm.recordLogs();
        vm.prank(stranger);
        ledger.topUp(compact, noHead(), amount);
        emit IUsageLedger.ToppedUp(id, stranger, amount);
        assertEmitted(address(ledger));
        assertEq(free(stranger), left, "left");
    }

    function test_arrears_are_paid_from_new_money_at_once() external {
        has(PRICE - 10);
        settle(terms, noHead(), firstHead(0));
        topsUp(firstHead(0), 4);
        emit IUsageLedger.ArrearsPaid(id, PRICE, PRICE - 6);
        assertEmitted(address(ledger));
        assertReservation(terms, PRICE - 6, PRICE - 6, 0);
        topsUp(firstHead(0), 6);
        emit IUsageLedger.ArrearsPaid(id, PRICE, PRICE);
        assertEmitted(address(ledger));
        assertReservation(terms, PRICE, PRICE, 0);
        topsUp(firstHead(0), 5);
        assertEmitted(address(ledger));
        assertReservation(terms, PRICE + 5, PRICE, 0);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function test_new_money_pays_no_more_than_the_arrears() external {
        has(PRICE - 10);
        settle(terms, noHead(), firstHead(0));
        topsUp(firstHead(0), 15);
        emit IUsageLedger.ArrearsPaid(id, PRICE, PRICE);
        assertEmitted(address(ledger));
        assertReservation(terms, PRICE + 5, PRICE, 0);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
        assertEq(ledger.headDigestOf(id), digestOf(terms, firstHead(0)), "the head stays");
    }

    function test_where_credits_came_later_new_money_pays_nothing() external {
        has(PRICE);
        settle(terms, noHead(), firstHead(0));
        Head memory next = headAt(11, [uint64(120), 500, 0, 0], 100, NOW);
        settle(terms, firstHead(0), next);
        topsUp(next, 50);
        assertEmitted(address(ledger));
        assertReservation(terms, PRICE + 50, PRICE, 0);
    }

    function test_new_money_is_added_until_the_last_second_of_the_window() external {
        has(700);
        give(stranger, 10);
        vm.warp(WINDOW_END + 1);
        refuses(stranger, topUp(noHead(), 10), windowOver(id, WINDOW_END, WINDOW_END + 1));
        vm.warp(WINDOW_END);
        topsUp2(10);
        assertReservation(terms, 710, 0, 0);
    }

    function topsUp2(uint128 amount) private {
        CompactTerms memory compact = compactOf(terms);
        vm.prank(stranger);
        ledger.topUp(compact, noHead(), amount);
    }

    function test_the_window_for_new_money_counts_from_an_earlier_end() external {
        has(700);
        give(stranger, 10);
        vm.warp(START + 100);
        closedBy(consumer, terms);
        vm.warp(START + 101 + DAY);
        refuses(stranger, topUp(noHead(), 10), windowOver(id, START + 100 + DAY, START + 101 + DAY));
    }

    function test_who_adds_money_shows_the_settled_head() external {
        has(PRICE);
        give(stranger, 10);
        refuses(stranger, topUp(firstHead(0), 10), moved(id, 0));
        settle(terms, noHead(), firstHead(0));
        bytes memory problem = moved(id, digestOf(terms, firstHead(0)));
        refuses(stranger, topUp(noHead(), 10), problem);
        for (uint256 word = 0; word < 8; ++word) refuses(stranger, topUp(altered(firstHead(0), word), 10), problem);
        assertEq(free(stranger), 10, "untouched");
    }

    function test_nothing_is_no_new_money_and_nobody_adds_what_it_has_not() external {
        has(700);
        give(stranger, 10);
        refuses(stranger, topUp(noHead(), 0), amountZero());
        refuses(stranger, topUp(noHead(), 11), balanceTooLow(stranger, 10, 11));
        topsUp2(10);
        refuses(stranger, topUp(noHead(), 1), balanceTooLow(stranger, 0, 1));
    }

    function test_a_reservation_with_new_money_fits_into_96_bits() external {
        has(700);
        give(stranger, 1 << 128);
        refuses(stranger, topUp(noHead(), uint128(MOST - 699)), tooLarge(1 << 96));
        refuses(stranger, topUp(noHead(), type(uint128).max), tooLarge(700 + uint256(type(uint128).max)));
        topsUp2(uint128(MOST - 700));
        (uint256 reserved, ) = reservationOf(terms);
        assertEq(reserved, MOST, "reserved");
    }

    function topUpOf(AuthorizationTerms memory of_) private view returns (bytes memory) {
        return abi.encodeCall(ledger.topUp, (compactOf(of_), noHead(), 0)); // and of nothing
    }

    function test_new_money_is_for_what_is_open() external {
        refusesUnlessOpen(stranger, topUpOf);
    }

    function test_new_money_does_not_feed_a_thaw() external {
        has(PRICE + 100);
        thaws(PRICE + 100);
        settle(terms, noHead(), firstHead(0));
        assertReservation(terms, PRICE + 100, PRICE, 100);
        topsUp(firstHead(0), 50);
        assertReservation(terms, PRICE + 150, PRICE, 100);
        vm.warp(START + DAY);
        releases(100);
        assertReservation(terms, PRICE + 50, PRICE, 0);
    }

    function test_new_money_leaves_a_thaw_of_less_than_is_unpaid_alone() external {
        has(700);
        thaws(200);
        topsUp(noHead(), 50);
        assertReservation(terms, 750, 0, 200);
        IUsageLedger.Reservation memory found = ledger.reservationOf(id);
        assertEq(found.thawEnd, START + DAY, "thaw end");
    }

    // ------------------------------------------------------------------------------------------------ thawing

    function thaw(uint128 amount) private view returns (bytes memory) {
        return thawOf(terms, amount);
    }

    function thawOf(AuthorizationTerms memory of_, uint128 amount) private view returns (bytes memory) {
        return abi.encodeCall(ledger.thaw, (compactOf(of_), amount));
    }

    function thawsAt(uint128 amount, uint256 end) private {
        CompactTerms memory compact = compactOf(terms);
        vm.recordLogs();
        vm.prank(consumer);
        ledger.thaw(compact, amount);
        emit IUsageLedger.ThawStarted(id, amount, uint40(end));
        assertEmitted(address(ledger));
        IUsageLedger.Reservation memory found = ledger.reservationOf(id);
        assertEq(found.thawing, amount, "thawing");
        assertEq(found.thawEnd, end, "thaw end");
    }

    function thaws(uint128 amount) private {
        thawsAt(amount, START + DAY);
    }

    /// @dev By anyone, to the consumer.
    function releases(uint128 amount) private {
        CompactTerms memory compact = compactOf(terms);
        uint256 before = free(consumer);
        vm.recordLogs();
        vm.prank(stranger);
        ledger.releaseThawed(compact);
        emit IUsageLedger.Thawed(id, amount);
        assertEmitted(address(ledger));
        assertEq(free(consumer), before + amount, "free");
    }

    function release() private view returns (bytes memory) {
        return releaseOf(terms);
    }

    function releaseOf(AuthorizationTerms memory of_) private view returns (bytes memory) {
        return abi.encodeCall(ledger.releaseThawed, (compactOf(of_)));
    }

    function thawTooLarge(uint128 amount, uint128 unpaid) private view returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.ThawTooLarge.selector, id, amount, unpaid);
    }

    function test_a_thaw_that_is_over_is_released_to_the_consumer() external {
        has(700);
        thaws(200);
        vm.warp(START + DAY - 1);
        bytes memory problem = abi.encodeWithSelector(
            IUsageLedger.ThawNotOver.selector,
            id,
            START + DAY,
            START + DAY - 1
        );
        refuses(stranger, release(), problem);
        vm.warp(START + DAY);
        releases(200);
        assertReservation(terms, 500, 0, 0);
        refuses(stranger, release(), amountZero());
        assertEq(free(stranger), 0, "not the caller's");
    }

    function test_a_thaw_takes_as_long_as_agreed() external {
        terms = termsOf();
        terms.thawSeconds = uint32(2 * DAY + 3);
        opened(terms, 700);
        id = idOf(terms);
        vm.warp(START + 5);
        thawsAt(700, START + 2 * DAY + 8);
    }

    function test_only_the_consumer_thaws() external {
        has(700);
        refuses(provider, thaw(1), notYours(id, provider));
        refuses(stranger, thaw(1), notYours(id, stranger));
        refuses(operator, thaw(0), notYours(id, operator));
    }

    function thawOne(AuthorizationTerms memory of_) private view returns (bytes memory) {
        return thawOf(of_, 1);
    }

    function test_only_what_is_open_is_thawed_and_released() external {
        refusesUnlessOpen(stranger, thawOne);
        vm.warp(START);
        refusesUnlessOpen(stranger, releaseOf);
    }

    function test_no_more_is_thawed_than_is_unpaid() external {
        has(PRICE + 100);
        refuses(consumer, thaw(PRICE + 101), thawTooLarge(PRICE + 101, PRICE + 100));
        refuses(consumer, thaw(type(uint128).max), thawTooLarge(type(uint128).max, PRICE + 100));
        thaws(PRICE + 100);
        settle(terms, noHead(), firstHead(0));
        refuses(consumer, thaw(101), thawTooLarge(101, 100));
        thaws(100);
    }

    function test_nothing_is_thawed_where_all_is_paid() external {
        has(PRICE);
        settle(terms, noHead(), firstHead(0));
        refuses(consumer, thaw(1), thawTooLarge(1, 0));
        thaws(0);
    }

    function test_a_thaw_replaces_the_one_before() external {
        has(700);
        thaws(200);
        vm.warp(START + 50);
        thawsAt(300, START + 50 + DAY);
        vm.warp(START + DAY + 49);
        bytes memory problem = abi.encodeWithSelector(
            IUsageLedger.ThawNotOver.selector,
            id,
            START + DAY + 50,
            START + DAY + 49
        );
        refuses(stranger, release(), problem);
        vm.warp(START + DAY + 50);
        releases(300);
        assertReservation(terms, 400, 0, 0);
    }

    function test_a_thaw_of_nothing_stops_the_one_before() external {
        has(700);
        thaws(200);
        thaws(0);
        vm.warp(START + DAY);
        refuses(stranger, release(), amountZero());
        assertReservation(terms, 700, 0, 0);
    }

    function test_what_thaws_is_still_collected() external {
        has(PRICE);
        thaws(PRICE);
        settle(terms, noHead(), firstHead(0));
        assertReservation(terms, PRICE, PRICE, 0);
        vm.warp(START + DAY);
        refuses(stranger, release(), amountZero());
    }

    function test_what_is_left_of_a_thaw_is_released() external {
        has(PRICE + 1);
        thaws(PRICE);
        settle(terms, noHead(), firstHead(0));
        assertReservation(terms, PRICE + 1, PRICE, 1);
        vm.warp(START + DAY);
        releases(1);
        assertReservation(terms, PRICE, PRICE, 0);
    }

    function test_a_thaw_shrinks_only_where_the_unpaid_part_gets_smaller() external {
        has(PRICE + 100);
        thaws(99);
        settle(terms, noHead(), firstHead(0));
        assertReservation(terms, PRICE + 100, PRICE, 99);
        vm.warp(START + DAY);
        releases(99);
        assertReservation(terms, PRICE + 1, PRICE, 0);
    }

    function test_what_was_released_pays_no_more() external {
        has(PRICE);
        thaws(PRICE);
        vm.warp(START + DAY);
        releases(PRICE);
        settle(terms, noHead(), firstHead(0));
        assertReservation(terms, 0, 0, 0);
        topsUp(firstHead(0), PRICE);
        assertReservation(terms, PRICE, PRICE, 0);
    }

    function test_thaws_are_started_and_released_after_the_end() external {
        has(700);
        vm.warp(END);
        thawsAt(700, WINDOW_END);
        vm.warp(WINDOW_END);
        releases(700);
    }

    // ------------------------------------------------------------------------------------------------ refunds

    function refund(uint128 amount) private view returns (bytes memory) {
        return abi.encodeCall(ledger.refund, (compactOf(terms), amount));
    }

    function refunds(uint128 amount, uint128 total) private {
        CompactTerms memory compact = compactOf(terms);
        uint256 before = free(consumer);
        vm.recordLogs();
        vm.prank(provider);
        ledger.refund(compact, amount);
        emit IUsageLedger.Refunded(id, amount, total);
        assertEmitted(address(ledger));
        assertEq(free(consumer), before + amount, "the consumer's");
        assertEq(ledger.reservationOf(id).refunded, total, "refunded");
    }

    function refundTooLarge(uint128 amount, uint128 refundable) private view returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.RefundTooLarge.selector, id, amount, refundable);
    }

    function test_a_provider_gives_back_at_most_what_was_paid() external {
        has(PRICE + 5);
        settle(terms, noHead(), firstHead(0));
        give(provider, 2 * PRICE);
        refuses(provider, refund(PRICE + 1), refundTooLarge(PRICE + 1, PRICE));
        refuses(provider, refund(type(uint128).max), refundTooLarge(type(uint128).max, PRICE));
        refunds(100, 100);
        refuses(provider, refund(PRICE - 99), refundTooLarge(PRICE - 99, PRICE - 100));
        refunds(PRICE - 100, PRICE);
        refuses(provider, refund(1), refundTooLarge(1, 0));
        assertEq(free(provider), PRICE, "out of the provider's account");
        assertReservation(terms, PRICE + 5, PRICE, 0);
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function test_a_refund_is_out_of_the_providers_free_money() external {
        has(PRICE);
        settle(terms, noHead(), firstHead(0));
        give(provider, 10);
        refuses(provider, refund(11), balanceTooLow(provider, 10, 11));
        refunds(10, 10);
        assertEq(free(provider), 0, "all of it");
    }

    function test_only_the_provider_refunds_and_not_nothing() external {
        has(PRICE);
        settle(terms, noHead(), firstHead(0));
        refuses(consumer, refund(1), notYours(id, consumer));
        refuses(stranger, refund(1), notYours(id, stranger));
        refuses(operator, refund(0), notYours(id, operator));
        refuses(provider, refund(0), amountZero());
    }

    function test_nothing_is_refunded_before_anything_is_paid() external {
        has(PRICE);
        give(provider, 10);
        refuses(provider, refund(1), refundTooLarge(1, 0));
        terms = termsOf();
        id = idOf(terms);
        refuses(provider, refund(1), refundTooLarge(1, 0));
    }

    function test_refunds_come_after_the_close_too() external {
        has(PRICE);
        settle(terms, noHead(), firstHead(0));
        finalized(terms);
        give(provider, PRICE);
        refunds(PRICE, PRICE);
        assertEq(statusOf(terms), IAuthorizations.Status.CLOSED, "closed still");
    }

    function test_a_refund_leaves_a_thaw_alone_and_a_thaw_the_refund() external {
        has(PRICE + 100);
        settle(terms, noHead(), firstHead(0));
        give(provider, PRICE);
        thaws(60);
        refunds(7, 7);
        assertReservation(terms, PRICE + 100, PRICE, 60);
        assertEq(ledger.reservationOf(id).thawEnd, START + DAY, "thaw end");
        thaws(50);
        vm.warp(START + DAY);
        releases(50);
        assertEq(ledger.reservationOf(id).refunded, 7, "refunded");
    }

    // --------------------------------------------------------------------------------------------- finalizing

    function finalizeOf(AuthorizationTerms memory of_) private view returns (bytes memory) {
        return abi.encodeCall(IAuthorizations.finalize, (compactOf(of_)));
    }

    function finalizes(uint128 released) private {
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations to = ledgerFor(terms);
        uint256 before = free(consumer);
        vm.recordLogs();
        vm.prank(stranger);
        to.finalize(compact);
        emit IAuthorizations.Finalized(id, released);
        assertEmitted(address(to));
        assertEq(free(consumer), before + released, "free");
        assertEq(statusOf(terms), IAuthorizations.Status.CLOSED, "closed");
        assertRefused(stranger, address(to), finalizeOf(terms), notInState(id, IAuthorizations.Status.CLOSED));
    }

    function windowNotOver(uint256 windowEnd, uint256 time) private view returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.WindowNotOver.selector, id, windowEnd, time);
    }

    function test_after_the_window_anyone_closes_and_the_rest_comes_free() external {
        has(PRICE + 100);
        settle(terms, noHead(), firstHead(0));
        bytes memory before = abi.encode(ledger.authorizationOf(id));
        assertTrue(before.length > 0, "known");
        refuses(stranger, finalizeOf(terms), windowNotOver(WINDOW_END, START));
        vm.warp(WINDOW_END);
        refuses(stranger, finalizeOf(terms), windowNotOver(WINDOW_END, WINDOW_END));
        vm.warp(WINDOW_END + 1);
        finalizes(100);
        assertReservation(terms, PRICE, PRICE, 0);
        IAuthorizations.Authorization memory found = ledger.authorizationOf(id);
        assertEq(found.endedAt, END, "ended");
        assertEq(found.headDigest, digestOf(terms, firstHead(0)), "head");
        assertEq(uint256(found.basis), uint256(IAuthorizations.Basis.CONSUMER), "basis");
        assertEq(ledger.accruedOf(splitId, address(yuan)), PRICE, "accrued");
    }

    function test_the_window_counts_from_an_earlier_end() external {
        has(700);
        vm.warp(START + 100);
        closedBy(consumer, terms);
        vm.warp(START + 100 + DAY);
        refuses(stranger, finalizeOf(terms), windowNotOver(START + 100 + DAY, START + 100 + DAY));
        vm.warp(START + 101 + DAY);
        finalizes(700);
    }

    function test_what_thaws_comes_free_with_the_rest() external {
        has(700);
        vm.warp(END);
        thawsAt(300, WINDOW_END);
        vm.warp(WINDOW_END + 1);
        finalizes(700);
        assertReservation(terms, 0, 0, 0);
        refuses(stranger, release(), notInState(id, IAuthorizations.Status.CLOSED));
    }

    function test_an_invoice_is_finalized_and_stays_due() external {
        terms = openedOn(true, 0);
        id = idOf(terms);
        settle(terms, noHead(), firstHead(0));
        vm.warp(WINDOW_END);
        bytes memory problem = windowNotOver(WINDOW_END, WINDOW_END);
        assertRefused(stranger, address(invoices), finalizeOf(terms), problem);
        vm.warp(WINDOW_END + 1);
        finalizes(0);
        assertEq(invoices.invoicedOf(id).due, PRICE, "due");
    }

    function test_only_what_was_opened_is_finalized_and_once() external {
        refusesUnlessOpen(stranger, finalizeOf);
    }
}

/// @title Shares
contract SharesTest is MoneySteps {
    /// @dev Settled, so that this much has accrued to the split of termsOf().
    function accrues(uint64 amount) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.rateCard = cardAt(1, 1, terms.token);
        terms.maxUnits = [type(uint64).max, 0, 0, 0];
        opened(terms, amount);
        settle(terms, noHead(), headAt(1, [amount, 0, 0, 0], 0, NOW));
    }

    function pays(address payee, uint256 amount) private {
        uint256 before = yuan.balanceOf(payee);
        uint256 held = yuan.balanceOf(address(ledger));
        assertEq(ledger.shareOf(splitId, address(yuan), payee), amount, "share");
        vm.recordLogs();
        vm.prank(stranger);
        uint256 found = ledger.payShare(splitId, address(yuan), payee);
        emit IUsageLedger.SharePaid(splitId, address(yuan), payee, amount);
        assertEmittedAmongOthers(address(ledger));
        assertEq(found, amount, "returned");
        assertEq(yuan.balanceOf(payee), before + amount, "received");
        assertEq(yuan.balanceOf(address(ledger)), held - amount, "held");
        refuses(stranger, payment(splitId, address(yuan), payee), amountZero());
        assertEq(ledger.shareOf(splitId, address(yuan), payee), 0, "nothing is left");
    }

    function payment(bytes32 split, address token, address payee) private view returns (bytes memory) {
        return abi.encodeCall(ledger.payShare, (split, token, payee));
    }

    function test_every_payee_takes_its_part() external {
        accrues(10_001);
        pays(provider, 5_000);
        pays(operator, 1_500);
        pays(agent, 3_500);
        assertEq(yuan.balanceOf(address(ledger)), 1, "dust");
        assertEq(ledger.accruedOf(splitId, address(yuan)), 10_001, "what accrued stays on record");
    }

    function test_the_order_of_payees_does_not_matter() external {
        accrues(10_001);
        pays(agent, 3_500);
        pays(operator, 1_500);
        pays(provider, 5_000);
    }

    function test_later_settlements_are_shared_as_if_all_had_come_at_once() external {
        accrues(1);
        refuses(stranger, payment(splitId, address(yuan), provider), amountZero());
        accrues(2);
        pays(provider, 1); // half of 3
        accrues(3);
        pays(provider, 2); // half of 6, less 1
        pays(agent, 2); // 2.1
        refuses(stranger, payment(splitId, address(yuan), operator), amountZero()); // 0.9
        accrues(1);
        pays(operator, 1); // 1.05
        accrues(3);
        pays(provider, 2); // half of 10, less 3
    }

    function test_each_token_is_shared_by_itself() external {
        accrues(10_000);
        bytes memory data = payment(splitId, address(this), provider);
        refuses(stranger, data, amountZero());
        assertEq(ledger.shareOf(splitId, address(this), provider), 0, "another token");
    }

    function unknown(bytes32 split, address payee) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageLedger.ShareUnknown.selector, split, payee);
    }

    function test_only_a_splits_payees_have_a_share() external {
        accrues(10_000);
        refuses(stranger, payment(splitId, address(yuan), consumer), unknown(splitId, consumer));
        refuses(consumer, payment(splitId, address(yuan), address(0)), unknown(splitId, address(0)));
        refuses(stranger, payment("none", address(yuan), provider), unknown("none", provider));
        refuses(stranger, payment(card, address(yuan), provider), unknown(card, provider));
    }

    function test_a_rate_card_is_no_split_though_its_bytes_could_be_read_so() external {
        // Bytes 2 to 21 of the card: all of the token but its first byte, which would be the number of payees.
        address payee = address(uint160(uint160(address(0x0101)) << 8) | uint160(6));
        bytes32 made = cardAt(1, 1, address((uint160(1) << 152) | 0x0101));
        bytes memory data = abi.encodeCall(ledger.shareOf, (made, address(yuan), payee));
        refuses(stranger, data, unknown(made, payee));
    }

    function test_shares_are_views_of_one_account() external {
        accrues(10_000);
        assertEq(ledger.shareOf(splitId, address(yuan), provider), 5_000, "provider");
        assertEq(ledger.shareOf(splitId, address(yuan), operator), 1_500, "operator");
        assertEq(ledger.shareOf(splitId, address(yuan), agent), 3_500, "agent");
        assertEq(free(provider), 0, "not in its account");
    }

    function takes(address payee) private returns (uint256) {
        uint256 amount = ledger.shareOf(splitId, address(yuan), payee);
        if (amount > 0) assertEq(ledger.payShare(splitId, address(yuan), payee), amount, "paid");
        return yuan.balanceOf(payee);
    }

    function testFuzz_when_payees_take_their_parts_never_matters(
        uint64 first,
        uint64 second,
        uint64 third,
        uint8 early
    ) external {
        uint256 sum = uint256(first) + second + third;
        address[3] memory payees = [provider, operator, agent];
        accrues(first);
        for (uint256 i = 0; i < 3; ++i) if ((early >> i) & 1 == 1) takes(payees[i]);
        accrues(second);
        for (uint256 i = 0; i < 3; ++i) if ((early >> (i + 3)) & 1 == 1) takes(payees[i]);
        accrues(third);
        assertEq(takes(provider), (sum * 5_000) / 10_000, "provider");
        assertEq(takes(operator), (sum * 1_500) / 10_000, "operator");
        assertEq(takes(agent), (sum * 3_500) / 10_000, "agent");
        assertTrue(yuan.balanceOf(address(ledger)) < 3, "less dust than payees");
    }

    /// @dev Two authorizations, one closed together and one finalized; all that is free is withdrawn.
    function test_when_everything_has_ended_the_ledger_holds_nothing_but_dust() external {
        AuthorizationTerms memory first = openedOn(false, PRICE + 777);
        AuthorizationTerms memory second = openedOn(false, PRICE + 999);
        settle(first, noHead(), firstHead(13));
        settle(second, noHead(), firstHead(0));
        ledger.closeTogether(closingOf(first, firstHead(13), firstHead(13), PRICE - 13));
        give(provider, 50);
        CompactTerms memory compact = compactOf(second);
        vm.prank(provider);
        ledger.refund(compact, 50);
        finalized(second);
        uint256 rest = free(consumer);
        assertEq(rest, 777 + 13 + 999 + 50, "free");
        vm.prank(consumer);
        ledger.withdraw(address(yuan), rest, consumer);
        assertEq(yuan.balanceOf(address(ledger)), 2 * PRICE - 13, "what accrued");
        uint256 sum = takes(provider) + takes(operator) + takes(agent);
        uint256 dust = 2 * PRICE - 13 - sum;
        assertTrue(dust < 3, "less dust than payees");
        assertEq(yuan.balanceOf(address(ledger)), dust, "dust");
    }
}
