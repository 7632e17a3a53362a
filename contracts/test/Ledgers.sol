// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {Meter, RateCard, Tier} from "../libraries/Pricing.sol";
import {AuthorizationTerms, CompactTerms, Head, Requirement} from "../libraries/Terms.sol";
import {Checks} from "./Checks.sol";
import {Tree} from "./Tree.sol";
import {Vm} from "./Vm.sol";
import {World} from "./World.sol";

/// @title What the tests of the two ledgers share
/// @dev Times are named, never read from the block: the compiler may read the clock once for a whole test.
abstract contract Ledgers is World, Checks {
    uint128 internal constant PRICE = 2_460_000; // of 120 calls and 500 rows under `card`
    uint40 internal constant NOW = uint40(START);
    uint40 internal constant END = uint40(START + 10 * DAY); // validUntil of termsOf()
    uint40 internal constant WINDOW_END = uint40(END + DAY);
    uint256 internal constant SKEW = 15 minutes;
    uint256 internal constant MOST = type(uint96).max;

    // ----------------------------------------------------------------------------------------- authorizations

    function openedOn(bool invoiced, uint128 reserve) internal returns (AuthorizationTerms memory) {
        return invoiced ? opened(invoicedTermsOf(), 0) : opened(termsOf(), reserve);
    }

    /// @dev A card with one meter.
    function cardAt(uint64 scale, uint128 price, address token) internal returns (bytes32) {
        RateCard memory made = RateCard(token, 6, new Meter[](1));
        made.meters[0] = Meter(scale, 0, new Tier[](1));
        made.meters[0].tiers[0] = Tier(type(uint64).max, price);
        return cards.registerRateCard(made);
    }

    /// @dev One unit costs 1, 1,000, 1,000,000 and 1,000,000,000 on the four meters.
    function fourMeters(address token) internal returns (bytes32) {
        RateCard memory made = RateCard(token, 6, new Meter[](4));
        for (uint256 m = 0; m < 4; ++m) {
            made.meters[m] = Meter(1, 0, new Tier[](1));
            made.meters[m].tiers[0] = Tier(type(uint64).max, uint128(1000 ** m));
        }
        return cards.registerRateCard(made);
    }

    /// @dev Opened with a quota of 9 on each of four meters.
    function fourMeterTerms() internal returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.rateCard = fourMeters(terms.token);
        terms.maxUnits = [uint64(9), 9, 9, 9];
        opened(terms, 10_000_000_000);
    }

    // ------------------------------------------------------------------------------------------------- heads

    function headAt(
        uint64 size,
        uint64[4] memory units,
        uint128 credits,
        uint40 asOf
    ) internal pure returns (Head memory) {
        return Head(size, units, credits, asOf, Tree.root(logOf(size), size));
    }

    /// @dev Ten leaves at START: PRICE less the credits.
    function firstHead(uint128 credits) internal pure returns (Head memory) {
        return headAt(10, [uint64(120), 500, 0, 0], credits, NOW);
    }

    function copyOf(Head memory head) internal pure returns (Head memory copy) {
        return abi.decode(abi.encode(head), (Head));
    }

    function copyOf(CompactTerms memory terms) internal pure returns (CompactTerms memory copy) {
        return abi.decode(abi.encode(terms), (CompactTerms));
    }

    /// @dev The head with one of its eight words altered.
    function altered(Head memory head, uint256 word) internal pure returns (Head memory copy) {
        copy = copyOf(head);
        if (word == 0) copy.size += 1;
        else if (word < 5) copy.units[word - 1] += 1;
        else if (word == 5) copy.credits += 1;
        else if (word == 6) copy.asOf += 1;
        else copy.root = keccak256(abi.encode(copy.root));
    }

    function signedBy(
        uint256 providerKey,
        uint256 consumerKey,
        AuthorizationTerms memory terms,
        IAuthorizations.Settlement memory settlement
    ) internal view returns (IAuthorizations.Settlement memory) {
        bytes32 digest = digestOf(terms, settlement.head);
        settlement.providerSignature = providerKey == 0 ? bytes("") : sign(providerKey, digest);
        settlement.consumerSignature = consumerKey == 0 ? bytes("") : sign(consumerKey, digest);
        return settlement;
    }

    function digestOf(AuthorizationTerms memory terms, Head memory head) internal view returns (bytes32) {
        return digests.head(address(ledgerFor(terms)), idOf(terms), head);
    }

    // ------------------------------------------------------------------------------------------------ expect

    function assertSettleRefused(
        AuthorizationTerms memory terms,
        IAuthorizations.Settlement memory settlement,
        bytes memory problem
    ) internal {
        bytes memory data = abi.encodeCall(IAuthorizations.settle, (settlement));
        assertRefused(stranger, address(ledgerFor(terms)), data, problem);
    }

    /// @dev Settled by anyone; the event is exactly this, and so is the state.
    function assertSettles(
        AuthorizationTerms memory terms,
        IAuthorizations.Settlement memory settlement,
        address caller,
        uint128[3] memory amounts, // due, paid, arrears
        address[2] memory signers,
        IAuthorizations.Basis basis
    ) internal {
        bytes32 id = idOf(terms);
        IAuthorizations to = ledgerFor(terms);
        IAuthorizations.Authorization memory expected = to.authorizationOf(id);
        expected.headDigest = digestOf(terms, settlement.head);
        expected.basis = basis;
        vm.recordLogs();
        vm.prank(caller);
        to.settle(settlement);
        emit IAuthorizations.Settled(
            id,
            settlement.head,
            amounts[0],
            amounts[1],
            amounts[2],
            signers[0],
            signers[1],
            basis
        );
        assertEmitted(address(to));
        assertSame(abi.encode(to.authorizationOf(id)), abi.encode(expected), "authorization");
        assertEq(to.headDigestOf(id), expected.headDigest, "head digest");
        assertAmounts(terms, amounts);
    }

    /// @dev What the ledger holds after due, paid and arrears.
    function assertAmounts(AuthorizationTerms memory terms, uint128[3] memory amounts) internal view {
        bytes32 id = idOf(terms);
        if (address(ledgerFor(terms)) == address(ledger)) {
            assertEq(ledger.reservationOf(id).paid, amounts[1], "paid");
        } else {
            assertEq(invoices.invoicedOf(id).due, amounts[0], "due");
            assertEq(invoices.invoicedOf(id).paid, amounts[1], "paid");
        }
    }

    /// @dev Due, paid and arrears where there is enough in escrow, or nothing was paid by invoice.
    function amountsOf(bool invoiced, uint128 due) internal pure returns (uint128[3] memory) {
        return invoiced ? [due, 0, due] : [due, due, 0];
    }

    /// @dev Since vm.recordLogs, `emitter` and the test emitted the same; what others emitted does not matter.
    function assertEmittedAmongOthers(address emitter) internal {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        bytes memory found = eventsOf(logs, emitter);
        assertTrue(found.length > 0, "an event");
        assertSame(found, eventsOf(logs, address(this)), "events");
    }

    function eventsOf(Vm.Log[] memory logs, address emitter) private pure returns (bytes memory all) {
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == emitter) all = bytes.concat(all, abi.encode(logs[i].topics, logs[i].data));
        }
    }

    function assertEq(IAuthorizations.Status found, IAuthorizations.Status expected, string memory what) internal pure {
        assertEq(uint256(found), uint256(expected), what);
    }

    // ------------------------------------------------------------------------------------------------ errors

    function notInState(bytes32 id, IAuthorizations.Status status) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AuthorizationStatus.selector, id, status);
    }

    function notYours(bytes32 id, address caller) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AuthorizationNotYours.selector, id, caller);
    }

    function notSignedBy(address wallet) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.SignatureInvalid.selector, wallet);
    }

    function moved(bytes32 id, bytes32 headDigest) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadMoved.selector, id, headDigest);
    }

    function lower(bytes32 id) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadLower.selector, id);
    }

    function stale(bytes32 id, uint64 settledSize, uint64 size) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadStale.selector, id, settledSize, size);
    }

    function afterEnd(bytes32 id, uint256 asOf, uint256 endedAt) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadAfterEnd.selector, id, asOf, endedAt);
    }

    function inconsistent(bytes32 id, uint64 settledSize, uint64 size) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.HeadInconsistent.selector, id, settledSize, size);
    }

    function windowOver(bytes32 id, uint256 windowEnd, uint256 time) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.WindowOver.selector, id, windowEnd, time);
    }

    function tooLarge(uint256 amount) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.AmountTooLarge.selector, amount);
    }

    // ------------------------------------------------------------------------------------------------- ends

    function closedBy(address party, AuthorizationTerms memory terms) internal {
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations to = ledgerFor(terms);
        vm.prank(party);
        to.close(compact, 1);
    }

    function revokedBy(address caller, AuthorizationTerms memory terms) internal {
        IAuthorizations to = ledgerFor(terms);
        vm.prank(caller);
        to.revoke(terms, new Requirement[](0), 7);
    }

    function cancelledBy(address party, AuthorizationTerms memory terms) internal {
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations to = ledgerFor(terms);
        vm.prank(party);
        to.cancelTerms(compact);
    }

    /// @dev Finalized after the window of termsOf().
    function finalized(AuthorizationTerms memory terms) internal {
        CompactTerms memory compact = compactOf(terms);
        IAuthorizations to = ledgerFor(terms);
        vm.warp(WINDOW_END + 1);
        to.finalize(compact);
    }
}
