// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IInvoiceLedger} from "../interfaces/IInvoiceLedger.sol";
import {AuthorizationTerms, CompactTerms} from "../libraries/Terms.sol";
import {Ledgers} from "./Ledgers.sol";

/// @title Payments recorded, reversed and claimed
contract InvoicesTest is Ledgers {
    uint128 private constant REVERSED = type(uint128).max;

    AuthorizationTerms private terms;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        terms = openedOn(true, 0);
        id = idOf(terms);
    }

    function recording(bytes32 ref, uint128 amount) private view returns (bytes memory) {
        return abi.encodeCall(invoices.recordPayment, (compactOf(terms), ref, amount));
    }

    function reversal(bytes32 ref) private view returns (bytes memory) {
        return abi.encodeCall(invoices.reversePayment, (compactOf(terms), ref));
    }

    function claim(bytes32 ref, uint128 amount) private view returns (bytes memory) {
        return abi.encodeCall(invoices.claimPayment, (compactOf(terms), ref, amount));
    }

    function call(address caller, bytes memory data) private {
        vm.prank(caller);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, ) = address(invoices).call(data);
        assertTrue(done, "done");
    }

    function records(bytes32 ref, uint128 amount, uint128 total) private {
        bytes memory data = recording(ref, amount);
        vm.recordLogs();
        call(provider, data);
        emit IInvoiceLedger.PaymentRecorded(id, ref, amount, total);
        assertEmitted(address(invoices));
        assertEq(invoices.invoicedOf(id).paid, total, "paid");
    }

    function reverses(bytes32 ref, uint128 amount, uint128 total) private {
        bytes memory data = reversal(ref);
        vm.recordLogs();
        call(provider, data);
        emit IInvoiceLedger.PaymentReversed(id, ref, amount, total);
        assertEmitted(address(invoices));
        assertEq(invoices.invoicedOf(id).paid, total, "paid");
    }

    function claims(bytes32 ref, uint128 amount, uint128 total) private {
        bytes memory data = claim(ref, amount);
        vm.recordLogs();
        call(consumer, data);
        emit IInvoiceLedger.PaymentClaimed(id, ref, amount, total);
        assertEmitted(address(invoices));
        assertEq(invoices.invoicedOf(id).claimed, total, "claimed");
    }

    function changesNothing(address caller, bytes memory data) private {
        bytes memory before = abi.encode(invoices.invoicedOf(id));
        vm.recordLogs();
        call(caller, data);
        assertEq(vm.getRecordedLogs().length, 0, "no event");
        assertSame(abi.encode(invoices.invoicedOf(id)), before, "no change");
    }

    function invalid(bytes32 ref, uint128 known, uint128 amount) private view returns (bytes memory) {
        return abi.encodeWithSelector(IInvoiceLedger.PaymentInvalid.selector, id, ref, known, amount);
    }

    function unknown(bytes32 ref) private view returns (bytes memory) {
        return abi.encodeWithSelector(IInvoiceLedger.PaymentUnknown.selector, id, ref);
    }

    function refuses(address caller, bytes memory data, bytes memory problem) private {
        bytes memory before = abi.encode(invoices.invoicedOf(id));
        assertRefused(caller, address(invoices), data, problem);
        assertSame(abi.encode(invoices.invoicedOf(id)), before, "no change");
    }

    /// @dev Recording, reversing and claiming, each by its own party.
    function refusesAll(bytes memory problem) private {
        refuses(provider, recording("new", 1), problem);
        refuses(provider, reversal("first"), problem);
        refuses(consumer, claim("new", 1), problem);
    }

    // ---------------------------------------------------------------------------------------------- recorded

    function test_recorded_payments_add_up() external {
        records("first", 100, 100);
        records("second", 1, 101);
        records("third", 100, 201);
        assertEq(invoices.invoicedOf(id).due, 0, "due");
        assertEq(invoices.invoicedOf(id).claimed, 0, "claimed");
    }

    function test_recording_the_same_payment_again_changes_nothing() external {
        records("first", 100, 100);
        changesNothing(provider, recording("first", 100));
        records("second", 5, 105);
        changesNothing(provider, recording("first", 100));
        changesNothing(provider, recording("second", 5));
    }

    function test_one_reference_has_one_amount() external {
        records("first", 100, 100);
        refuses(provider, recording("first", 101), invalid("first", 100, 101));
        refuses(provider, recording("first", 99), invalid("first", 100, 99));
        refuses(provider, recording("first", 0), invalid("first", 100, 0));
        refuses(provider, recording("first", REVERSED), invalid("first", 100, REVERSED));
    }

    function test_a_payment_has_an_amount_and_a_reference() external {
        refuses(provider, recording("first", 0), invalid("first", 0, 0));
        refuses(provider, recording(0, 1), invalid(0, 0, 1));
        refuses(provider, recording(0, 0), invalid(0, 0, 0));
        refuses(provider, recording("first", REVERSED), invalid("first", 0, REVERSED));
        records("first", 1, 1);
    }

    function test_what_is_recorded_fits_into_96_bits() external {
        refuses(provider, recording("first", 1 << 96), tooLarge(1 << 96));
        refuses(provider, recording("first", REVERSED - 1), tooLarge(REVERSED - 1));
        records("first", uint128(MOST), uint128(MOST));
        refuses(provider, recording("second", 1), tooLarge(1 << 96));
        reverses("first", uint128(MOST), 0);
        records("second", uint128(MOST - 1), uint128(MOST - 1));
        records("third", 1, uint128(MOST));
        refuses(provider, recording("fourth", REVERSED - 1), tooLarge(MOST + REVERSED - 1));
    }

    function test_payments_of_other_authorizations_are_others() external {
        records("first", 100, 100);
        bytes32 before = id;
        terms = openedOn(true, 0);
        id = idOf(terms);
        refuses(provider, reversal("first"), unknown("first"));
        records("first", 7, 7);
        assertEq(invoices.invoicedOf(before).paid, 100, "the first one's");
    }

    // ---------------------------------------------------------------------------------------------- reversed

    function test_a_reversed_payment_no_longer_counts() external {
        records("first", 100, 100);
        records("second", 50, 150);
        reverses("first", 100, 50);
        reverses("second", 50, 0);
    }

    function test_a_reversed_reference_stays_used() external {
        records("first", 100, 100);
        reverses("first", 100, 0);
        refuses(provider, recording("first", 100), invalid("first", REVERSED, 100));
        refuses(provider, recording("first", 1), invalid("first", REVERSED, 1));
        refuses(provider, recording("first", REVERSED), invalid("first", REVERSED, REVERSED));
        refuses(provider, reversal("first"), unknown("first"));
        records("sent again", 100, 100);
        refuses(provider, reversal("first"), unknown("first"));
    }

    function test_only_what_was_recorded_is_reversed() external {
        records("first", 100, 100);
        refuses(provider, reversal("second"), unknown("second"));
        refuses(provider, reversal(0), unknown(0));
        claims("claimed", 5, 5);
        refuses(provider, reversal("claimed"), unknown("claimed"));
    }

    // ----------------------------------------------------------------------------------------------- claimed

    function test_claims_add_up_beside_what_was_recorded() external {
        claims("first", 100, 100);
        claims("second", 1, 101);
        assertEq(invoices.invoicedOf(id).paid, 0, "nothing is recorded");
        records("first", 100, 100);
        records("second", 2, 102);
        reverses("second", 2, 100);
        assertEq(invoices.invoicedOf(id).claimed, 101, "claimed");
        claims("third", 3, 104);
        assertEq(invoices.invoicedOf(id).paid, 100, "paid");
    }

    function test_claiming_the_same_payment_again_changes_nothing() external {
        claims("first", 100, 100);
        changesNothing(consumer, claim("first", 100));
        refuses(consumer, claim("first", 101), invalid("first", 100, 101));
        refuses(consumer, claim("first", 99), invalid("first", 100, 99));
    }

    function test_a_claim_has_an_amount_and_a_reference() external {
        refuses(consumer, claim("first", 0), invalid("first", 0, 0));
        refuses(consumer, claim(0, 1), invalid(0, 0, 1));
        refuses(consumer, claim("first", REVERSED), invalid("first", 0, REVERSED));
    }

    function test_claims_do_not_overflow() external {
        uint128 most = type(uint96).max;
        claims("first", most - 1, most - 1);
        bytes memory tooLarge = abi.encodeWithSelector(IAuthorizations.AmountTooLarge.selector, uint256(most) + 1);
        refuses(consumer, claim("second", 2), tooLarge);
        claims("second", 1, most);
    }

    // ------------------------------------------------------------------------------------------------ parties

    function test_only_the_provider_records_and_reverses() external {
        records("first", 100, 100);
        address[4] memory others = [consumer, stranger, operator, agent];
        for (uint256 i = 0; i < 4; ++i) {
            refuses(others[i], recording("second", 1), notYours(id, others[i]));
            refuses(others[i], reversal("first"), notYours(id, others[i]));
        }
    }

    function test_only_the_consumer_claims() external {
        address[4] memory others = [provider, stranger, operator, agent];
        for (uint256 i = 0; i < 4; ++i) refuses(others[i], claim("first", 1), notYours(id, others[i]));
    }

    // ------------------------------------------------------------------------------------------------- status

    function test_what_was_never_opened_has_no_payments() external {
        terms = invoicedTermsOf();
        id = idOf(terms);
        refusesAll(notInState(id, IAuthorizations.Status.NONE));
        refuses(stranger, recording("first", 1), notInState(id, IAuthorizations.Status.NONE));
    }

    function test_what_was_cancelled_has_no_payments() external {
        terms = invoicedTermsOf();
        id = idOf(terms);
        cancelledBy(consumer, terms);
        refusesAll(notInState(id, IAuthorizations.Status.CANCELLED));
    }

    function test_payments_come_after_the_end_too() external {
        records("first", 100, 100);
        vm.warp(END);
        records("second", 100, 200);
        reverses("first", 100, 100);
        claims("first", 100, 100);
    }

    function test_payments_come_after_the_close_too() external {
        records("first", 100, 100);
        finalized(terms);
        assertEq(statusOf(terms), IAuthorizations.Status.CLOSED, "closed");
        records("second", 100, 200);
        reverses("first", 100, 100);
        claims("first", 100, 100);
        assertEq(statusOf(terms), IAuthorizations.Status.CLOSED, "closed still");
    }

    // --------------------------------------------------------------------------------------------------- views

    function test_what_is_due_is_not_what_is_paid() external {
        settle(terms, noHead(), firstHead(0));
        records("first", 100, 100);
        claims("first", 99, 99);
        IInvoiceLedger.Invoiced memory expected = IInvoiceLedger.Invoiced(PRICE, 100, 99);
        assertSame(abi.encode(invoices.invoicedOf(id)), abi.encode(expected), "invoiced");
        IInvoiceLedger.Invoiced memory none;
        assertSame(abi.encode(invoices.invoicedOf("unknown")), abi.encode(none), "unknown");
    }

    function test_the_record_of_an_authorization_keeps_its_head_when_payments_come() external {
        settle(terms, noHead(), firstHead(0));
        bytes memory before = abi.encode(invoices.authorizationOf(id));
        records("first", 100, 100);
        reverses("first", 100, 0);
        claims("first", 100, 100);
        assertSame(abi.encode(invoices.authorizationOf(id)), before, "authorization");
    }

    function testFuzz_paid_is_what_was_recorded_and_not_reversed(uint64[6] calldata amounts, uint8 reversed) external {
        CompactTerms memory compact = compactOf(terms);
        uint256 sum = 0;
        vm.startPrank(provider);
        for (uint256 i = 0; i < 6; ++i) {
            uint128 amount = uint128(amounts[i]) + 1;
            invoices.recordPayment(compact, bytes32(i + 1), amount);
            if ((reversed >> i) & 1 == 0) sum += amount;
        }
        for (uint256 i = 0; i < 6; ++i) {
            if ((reversed >> i) & 1 == 1) invoices.reversePayment(compact, bytes32(i + 1));
        }
        vm.stopPrank();
        assertEq(invoices.invoicedOf(id).paid, sum, "paid");
    }
}
