// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {UsageLedger} from "../UsageLedger.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {AuthorizationTerms, CompactTerms, Head, Terms, UsageCeiling} from "../libraries/Terms.sol";
import {Test} from "./Vm.sol";
import {World} from "./World.sol";

/// @title A crowd that does everything the ledger allows, in any order, and remembers what it saw
/// @dev Every action either succeeds and is checked against what was before, or is one the ledger must refuse. What holds
/// at all times stands in InvariantsTest below. One file: the runner knows only the contracts of test files it was given.
contract Handler is World {
    uint256 internal constant COUNT = 4; // authorizations

    /// @dev What the crowd remembers of one authorization.
    struct Seen {
        AuthorizationTerms terms;
        bytes32 id;
        Head head; // the settled one
        uint256 highestDue; // of any accepted head
        bool short; // a reservation was once too small for what was due
        uint256 thawDue; // acknowledged when a thaw began, and payable until it ends
        uint256 thawEnd;
    }

    Seen[COUNT] private seen;
    uint256[2] private keys = [uint256(0x5e55), 0x5e56]; // session keys of the consumer
    uint128[2] private caps = [uint128(3_000_000), 40_000_000];
    uint256 private signedAway; // the most that a head signed by the first key came to
    uint256 private minted;
    uint256 private withdrawn;
    mapping(address payee => uint256) private sent;

    error Broken(string what);

    // ------------------------------------------------------------------------------------------- beginning

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < COUNT; ++i) {
            AuthorizationTerms memory terms = termsOf();
            terms.flags = i == 0 ? 0 : Terms.FAST; // the first one proves that its log only grows
            terms.maxUnits = [uint64(1_000_000), 10_000_000, 0, 0];
            terms.validUntil = uint40(block.timestamp + (i + 2) * 3 * DAY);
            terms.revokeGrace = uint32(i * 1 hours);
            if (i == 2) terms.meteringAgent = agent;
            opened(terms, uint128(20_000_000 * (i + 1)));
            minted += 20_000_000 * (i + 1);
            seen[i].terms = terms;
            seen[i].id = idOf(terms);
        }
        for (uint256 k = 0; k < keys.length; ++k) register(keys[k], caps[k]);
        give(consumer, 100_000_000);
        give(provider, 10_000_000);
        minted += 110_000_000;
    }

    // --------------------------------------------------------------------------------------------- actions

    function deposit(uint256 who, uint96 amount) external {
        uint256 bounded = 1 + (amount % 50_000_000);
        address owner = party(who);
        uint256 before = ledger.freeOf(owner, address(yuan));
        give(owner, bounded);
        minted += bounded;
        must(ledger.freeOf(owner, address(yuan)) == before + bounded, "a deposit is credited in full");
    }

    function withdraw(uint256 who, uint256 amount) external {
        address owner = party(who);
        uint256 free = ledger.freeOf(owner, address(yuan));
        if (free == 0) return;
        uint256 bounded = 1 + (amount % free);
        vm.prank(owner);
        ledger.withdraw(address(yuan), bounded, owner);
        withdrawn += bounded;
        must(ledger.freeOf(owner, address(yuan)) == free - bounded, "a withdrawal is taken in full");
    }

    /// @dev A head that grows by some units and credits, vouched for in one of four ways.
    function settle(uint256 which, uint32 calls, uint32 rows, uint16 credit, uint8 how) external {
        Seen storage s = seen[which % COUNT];
        if (!settles(s)) return;
        Head memory head = grown(s, calls % 300, rows % 3_000, credit);
        bytes32 others = othersThan(which % COUNT);
        uint256 paidBefore = paidOf(s.id);
        IAuthorizations.Settlement memory row = signed(s, head, how % 4);
        ledger.settle(row);
        accept(s, head);
        must(paidOf(s.id) >= paidBefore, "paid never falls");
        must(othersThan(which % COUNT) == others, "no other authorization changed");
    }

    /// @dev A head signed by a session key: taken up to the key's cap on one authorization, and not beyond.
    function settleByKey(uint256 which, uint32 calls, uint32 rows, uint256 whichKey) external {
        Seen storage s = seen[which % COUNT];
        if (!settles(s)) return;
        uint256 k = whichKey % keys.length;
        Head memory head = grown(s, calls % 100, rows % 1_000, 0);
        uint256 due = dueOf(head);
        IAuthorizations.Settlement memory row = signed(s, head, 0);
        row.consumerSignature = sign(keys[k], digests.head(address(ledger), s.id, head));
        if (due <= caps[k]) {
            ledger.settle(row);
            accept(s, head);
            if (k == 0 && due > signedAway) signedAway = due;
            return;
        }
        bytes32 before = keccak256(abi.encode(ledger.reservationOf(s.id), ledger.headDigestOf(s.id)));
        try ledger.settle(row) {
            revert Broken("a session key signed away more than its cap");
        } catch {}
        must(before == keccak256(abi.encode(ledger.reservationOf(s.id), ledger.headDigestOf(s.id))), "nothing changed");
    }

    /// @dev Two heads at once, one of them bad: the good one settles, the bad one changes nothing.
    function settleMany(uint256 which, uint32 calls, uint8 wrong) external {
        Seen storage s = seen[which % COUNT];
        if (!settles(s)) return;
        Head memory head = grown(s, calls % 300, 0, 0);
        IAuthorizations.Settlement[] memory rows = new IAuthorizations.Settlement[](2);
        rows[wrong % 2] = signed(s, head, 0);
        rows[wrong % 2].consumerSignature = rows[wrong % 2].providerSignature;
        rows[1 - (wrong % 2)] = signed(s, head, 0);
        ledger.settleMany(rows);
        accept(s, head);
    }

    /// @dev What a newer head has replaced can never be settled again.
    function replay(uint256 which) external {
        Seen storage s = seen[which % COUNT];
        if (s.head.size == 0) return;
        IAuthorizations.Settlement memory row = signed(s, s.head, 0);
        row.previous = s.head;
        try ledger.settle(row) {
            revert Broken("a settled head settled again");
        } catch {}
    }

    function topUp(uint256 which, uint256 who, uint96 amount) external {
        Seen storage s = seen[which % COUNT];
        address from = party(who);
        uint256 free = ledger.freeOf(from, address(yuan));
        if (free == 0 || !settles(s)) return;
        CompactTerms memory terms = compactOf(s.terms);
        (uint256 reserved, ) = reservationOf(s.terms);
        uint128 bounded = uint128(1 + (amount % free));
        vm.prank(from);
        ledger.topUp(terms, s.head, bounded);
        (uint256 after_, uint256 paid) = reservationOf(s.terms);
        must(after_ == reserved + bounded, "a top-up is reserved in full");
        uint256 due = s.head.size == 0 ? 0 : dueOf(s.head);
        must(paid >= due || paid == after_, "owing and having never coexist");
    }

    function thaw(uint256 which, uint96 amount) external {
        Seen storage s = seen[which % COUNT];
        if (!standing(s)) return;
        (uint256 reserved, uint256 paid) = reservationOf(s.terms);
        uint128 bounded = uint128(amount % (reserved - paid + 1));
        CompactTerms memory terms = compactOf(s.terms);
        vm.prank(consumer);
        ledger.thaw(terms, bounded);
        // What is acknowledged now, whether settled or not, stays payable until the thaw ends.
        s.thawDue = reserved;
        s.thawEnd = block.timestamp + s.terms.thawSeconds;
    }

    function releaseThawed(uint256 which) external {
        Seen storage s = seen[which % COUNT];
        if (!standing(s)) return;
        UsageLedger.Reservation memory found = ledger.reservationOf(s.id);
        CompactTerms memory terms = compactOf(s.terms);
        if (found.thawing == 0) return;
        if (block.timestamp < found.thawEnd) {
            try ledger.releaseThawed(terms) {
                revert Broken("a thaw was released before its end");
            } catch {
                return;
            }
        }
        ledger.releaseThawed(terms);
        (uint256 reserved, ) = reservationOf(s.terms);
        must(reserved == found.reserved - found.thawing, "a release takes what thawed");
    }

    function refund(uint256 which, uint96 amount) external {
        Seen storage s = seen[which % COUNT];
        UsageLedger.Reservation memory found = ledger.reservationOf(s.id);
        uint256 most = found.paid - found.refunded;
        uint256 free = ledger.freeOf(provider, address(yuan));
        if (free < most) most = free;
        if (most == 0) return;
        CompactTerms memory terms = compactOf(s.terms);
        vm.prank(provider);
        ledger.refund(terms, uint128(1 + (amount % most)));
    }

    function payShare(uint256 who) external {
        address payee = [provider, operator, agent][who % 3];
        uint256 amount = ledger.shareOf(splitId, address(yuan), payee);
        if (amount == 0) return;
        uint256 before = yuan.balanceOf(payee);
        ledger.payShare(splitId, address(yuan), payee);
        must(yuan.balanceOf(payee) == before + amount, "a share is paid in full");
        sent[payee] += amount;
    }

    function close(uint256 which, bool byConsumer) external {
        Seen storage s = seen[which % COUNT];
        if (statusOf(s.terms) != IAuthorizations.Status.OPEN) return;
        uint40 endedAt = ledger.authorizationOf(s.id).endedAt;
        if (!byConsumer && block.timestamp + s.terms.revokeGrace >= endedAt) return;
        CompactTerms memory terms = compactOf(s.terms);
        vm.prank(byConsumer ? consumer : provider);
        ledger.close(terms, 1);
        must(ledger.authorizationOf(s.id).endedAt < endedAt, "an end only moves forward");
    }

    function closeTogether(uint256 which, uint32 calls, uint96 amount) external {
        Seen storage s = seen[which % COUNT];
        // Rarely: it is the end of all other stories.
        if (!settles(s) || calls % 16 != 0) return;
        Head memory head = calls % 32 == 0 ? s.head : grown(s, calls % 100, 0, 0);
        (uint256 reserved, uint256 paid) = reservationOf(s.terms);
        uint256 most = head.size == 0 ? 0 : dueOf(head);
        if (most < paid) most = paid;
        if (most > reserved) most = reserved;
        uint256 agreed = paid + (amount % (most - paid + 1));
        IAuthorizations.Closing memory closing = closingOf(s.terms, s.head, head, uint128(agreed));
        if (s.terms.flags & Terms.FAST != 0) closing.consistency = new bytes32[](0);
        ledger.closeTogether(closing);
        s.head = head;
        uint256 due = head.size == 0 ? 0 : dueOf(head);
        if (due > s.highestDue) s.highestDue = due;
        s.short = true; // both agreed to less
        must(paidOf(s.id) == agreed, "a close pays what both agreed");
    }

    function finalize(uint256 which) external {
        Seen storage s = seen[which % COUNT];
        if (!standing(s)) return;
        CompactTerms memory terms = compactOf(s.terms);
        uint256 windowEnd = uint256(ledger.authorizationOf(s.id).endedAt) + s.terms.thawSeconds;
        if (block.timestamp > windowEnd) {
            ledger.finalize(terms);
            return;
        }
        try ledger.finalize(terms) {
            revert Broken("finalized inside the settlement window");
        } catch {}
    }

    function passTime(uint32 by) external {
        vm.warp(block.timestamp + 1 + (by % (12 hours)));
    }

    // ------------------------------------------------------------------------------------ what must hold

    /// @dev Token units in the ledger, and those it owes: free, reserved and unpaid, accrued and unsent.
    function books() external view returns (uint256 held, uint256 owed) {
        held = yuan.balanceOf(address(ledger));
        owed = ledger.accruedOf(splitId, address(yuan));
        for (uint256 i = 0; i < 3; ++i) {
            owed += ledger.freeOf(party(i), address(yuan));
            owed -= sent[[provider, operator, agent][i]];
        }
        for (uint256 i = 0; i < COUNT; ++i) {
            (uint256 reserved, uint256 paid) = reservationOf(seen[i].terms);
            owed += reserved - paid;
        }
    }

    function checkKeys() external view {
        must(signedAway <= caps[0], "a session key stays under its cap");
    }

    function checkPaid() external view {
        for (uint256 i = 0; i < COUNT; ++i) {
            Seen storage s = seen[i];
            (uint256 reserved, uint256 paid) = reservationOf(s.terms);
            must(paid <= reserved, "paid is at most reserved");
            must(paid <= s.highestDue, "paid is at most the highest due of an accepted head");
            must(s.short || paid == s.highestDue, "paid follows from the heads, not from how often they settled");
            bytes32 digest = s.head.size == 0 ? bytes32(0) : digests.head(address(ledger), s.id, s.head);
            must(ledger.headDigestOf(s.id) == digest, "the ledger holds the last accepted head");
        }
    }

    function checkShares() external view {
        uint256 accrued = ledger.accruedOf(splitId, address(yuan));
        uint256 out = 0;
        uint256 paid = 0;
        for (uint256 i = 0; i < 3; ++i) {
            address payee = [provider, operator, agent][i];
            out += sent[payee] + ledger.shareOf(splitId, address(yuan), payee);
        }
        for (uint256 i = 0; i < COUNT; ++i) paid += paidOf(seen[i].id);
        must(accrued == paid, "what accrued is what was paid");
        must(out <= accrued && accrued - out < 3, "shares add up to what accrued, less dust");
    }

    /// @dev Ends everything, takes everything out, reports what is left, and undoes it all by reverting.
    function drain() external {
        uint256 nowSeconds = block.timestamp;
        vm.warp(nowSeconds + 400 * DAY);
        for (uint256 i = 0; i < COUNT; ++i) {
            if (standing(seen[i])) ledger.finalize(compactOf(seen[i].terms));
        }
        for (uint256 i = 0; i < 3; ++i) {
            address payee = [provider, operator, agent][i];
            if (ledger.shareOf(splitId, address(yuan), payee) > 0) ledger.payShare(splitId, address(yuan), payee);
            address owner = party(i);
            uint256 free = ledger.freeOf(owner, address(yuan));
            vm.prank(owner);
            if (free > 0) ledger.withdraw(address(yuan), free, owner);
        }
        vm.warp(nowSeconds);
        revert Left(yuan.balanceOf(address(ledger)));
    }

    error Left(uint256 balance);

    // --------------------------------------------------------------------------------------------- helpers

    /// @dev The owners of accounts.
    function party(uint256 who) private view returns (address) {
        return [consumer, provider, stranger][who % 3];
    }

    function standing(Seen storage s) private view returns (bool) {
        IAuthorizations.Status status = statusOf(s.terms);
        return status == IAuthorizations.Status.OPEN || status == IAuthorizations.Status.ENDED;
    }

    function settles(Seen storage s) private view returns (bool) {
        uint256 windowEnd = uint256(ledger.authorizationOf(s.id).endedAt) + s.terms.thawSeconds;
        return standing(s) && block.timestamp <= windowEnd;
    }

    function grown(Seen storage s, uint32 calls, uint32 rows, uint16 credit) private view returns (Head memory head) {
        head = s.head;
        head.size += 1 + (calls % 3);
        uint256 latest = uint256(ledger.authorizationOf(s.id).endedAt) + Terms.CLOCK_SKEW;
        if (block.timestamp <= latest) {
            // Within the time in which units may rise.
            head.units[0] += calls;
            head.units[1] += rows;
        }
        head.credits += credit;
        head.asOf = uint40(block.timestamp);
        head.root =
            s.terms.flags & Terms.FAST == 0
                ? headOf(head.size, 0, 0).root
                : keccak256(abi.encode(head.size, head.units));
    }

    function signed(
        Seen storage s,
        Head memory head,
        uint256 how
    ) private view returns (IAuthorizations.Settlement memory row) {
        row = settlementOf(s.terms, s.head, head);
        if (s.terms.flags & Terms.FAST != 0) row.consistency = new bytes32[](0);
        if (how == 1) {
            UsageCeiling memory ceiling;
            ceiling.maxUnits = head.units;
            ceiling.minCredits = head.credits;
            ceiling.maxDue = uint128(dueOf(head));
            ceiling.expiry = uint40(block.timestamp);
            row.ceilings = ceilingBy(CONSUMER, s.terms, ceiling);
            row.consumerSignature = "";
        } else if (how == 2 && s.terms.meteringAgent != address(0)) {
            row.consumerSignature = sign(AGENT, digests.head(address(ledger), s.id, head));
        }
    }

    function accept(Seen storage s, Head memory head) private {
        (uint256 reserved, uint256 paid) = reservationOf(s.terms);
        uint256 due = dueOf(head);
        if (due > s.highestDue) s.highestDue = due;
        must(paid == reserved || paid >= due, "a head is paid as far as the reservation goes");
        if (due > reserved) s.short = true;
        // Money that was reserved when a thaw began pays until the thaw is over.
        if (block.timestamp < s.thawEnd) {
            uint256 payable_ = due < s.thawDue ? due : s.thawDue;
            must(paid >= payable_, "a thaw takes nothing that was acknowledged before its end");
        }
        s.head = head;
    }

    function register(uint256 key, uint128 maxDue) private {
        uint40 expiry = uint40(START + 3_650 days);
        bytes32 typeHash = keccak256("SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)");
        bytes32 structHash = keccak256(abi.encode(typeHash, consumer, vm.addr(key), expiry, maxDue));
        bytes memory possession = sign(key, digests.digest(address(sessionKeys), structHash));
        vm.prank(consumer);
        sessionKeys.registerSessionKey(vm.addr(key), expiry, maxDue, possession);
    }

    function dueOf(Head memory head) private pure returns (uint256) {
        uint256 price = priceOf(head.units[0], head.units[1]);
        return price > head.credits ? price - head.credits : 0;
    }

    function paidOf(bytes32 id) private view returns (uint256) {
        return ledger.reservationOf(id).paid;
    }

    /// @dev Everything about the other authorizations, in one word.
    function othersThan(uint256 which) private view returns (bytes32 digest) {
        for (uint256 i = 0; i < COUNT; ++i) {
            if (i == which) continue;
            bytes32 id = seen[i].id;
            digest = keccak256(abi.encode(digest, ledger.reservationOf(id), ledger.headDigestOf(id)));
        }
    }

    function must(bool holds, string memory what) private pure {
        require(holds, Broken(what));
    }
}

/// @title What holds whatever anybody does, in any order (protocol section 10)
/// @dev Some of it the Handler checks after each of its actions: a failing action fails the run.
contract InvariantsTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private handler;

    function setUp() external {
        handler = new Handler();
        handler.setUp();
    }

    /// @dev Asked by the test runner.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0].addr = address(handler);
        bytes4[] memory selectors = new bytes4[](15);
        selectors[0] = Handler.deposit.selector;
        selectors[1] = Handler.withdraw.selector;
        selectors[2] = Handler.settle.selector;
        selectors[3] = Handler.settleMany.selector;
        selectors[4] = Handler.replay.selector;
        selectors[5] = Handler.topUp.selector;
        selectors[6] = Handler.thaw.selector;
        selectors[7] = Handler.releaseThawed.selector;
        selectors[8] = Handler.refund.selector;
        selectors[9] = Handler.payShare.selector;
        selectors[10] = Handler.close.selector;
        selectors[11] = Handler.closeTogether.selector;
        selectors[12] = Handler.finalize.selector;
        selectors[13] = Handler.passTime.selector;
        selectors[14] = Handler.settleByKey.selector;
        targets[0].selectors = selectors;
    }

    /// @dev Asked by the test runner.
    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_the_ledger_holds_exactly_what_it_owes() external view {
        (uint256 held, uint256 owed) = handler.books();
        assertEq(held, owed, "token units");
    }

    function invariant_paid_follows_from_the_accepted_heads() external view {
        handler.checkPaid();
    }

    function invariant_a_session_key_signs_away_no_more_than_its_cap() external view {
        handler.checkKeys();
    }

    function invariant_shares_add_up_to_what_accrued() external view {
        handler.checkShares();
    }

    function invariant_nothing_is_stuck_but_dust() external {
        uint256 left = type(uint256).max;
        try handler.drain() {} catch (bytes memory problem) {
            if (bytes4(problem) == Handler.Left.selector) (left) = abi.decode(rest(problem), (uint256));
        }
        assertTrue(left < 3, "dust");
    }

    function rest(bytes memory problem) private pure returns (bytes memory data) {
        data = new bytes(problem.length - 4);
        for (uint256 i = 0; i < data.length; ++i) data[i] = problem[i + 4];
    }
}
