// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {ISubsidyPool} from "../interfaces/ISubsidyPool.sol";
import {Share} from "../libraries/Splits.sol";
import {AuthorizationTerms, CompactTerms, Head, Terms, UsageCeiling} from "../libraries/Terms.sol";
import {DemoYuan} from "../mocks/DemoYuan.sol";
import {AgreeingWallet} from "../mocks/Wallets.sol";
import {Vm} from "./Vm.sol";
import {World} from "./World.sol";

/// @title A token that keeps a part back, or calls somebody once while it moves
/// @dev It is also a wallet that agrees to everything.
contract TrickyToken is ERC20 {
    uint256 private fee;
    address private target;
    bytes private question;
    bool public succeeded;
    bytes public answer;

    constructor() ERC20("Tricky", "TRK") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function keepBack(uint256 fee_) external {
        fee = fee_;
    }

    function callDuringTransfer(address target_, bytes calldata question_) external {
        (target, question) = (target_, question_);
        (succeeded, answer) = (false, "");
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from == address(0) || to == address(0)) return;
        if (fee > 0) _burn(to, fee);
        if (target == address(0)) return;
        address called = target;
        target = address(0);
        // solhint-disable-next-line avoid-low-level-calls
        (succeeded, answer) = called.call(question);
    }

    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0x1626ba7e;
    }
}

/// @title Subsidies
contract SubsidyTest is World {
    uint16 private constant ORGANISATION = 1;
    uint256 private constant FAR = START + 365 * DAY;
    uint256 private constant WINDOW_END = START + 11 * DAY; // of termsOf: ten days and a day's thaw
    uint256 private constant OBJECTION_END = START + 13 * DAY; // under ruleOf
    uint256 private constant CLAIM_UNTIL = START + 60 * DAY; // of ruleOf
    uint128 private constant FUNDS = 10_000_000;
    uint128 private constant PAID = 2_460_000; // for 120 calls and 500 rows
    uint128 private constant QUARTER = 615_000;

    address private sponsor = vm.addr(0x5b0);
    uint256 private pools;

    function setUp() public override {
        super.setUp();
        credential(consumer, "consumer org", FAR);
        credential(provider, "provider org", FAR);
        assertEq(priceOf(120, 500), PAID, "price");
    }

    function credential(address wallet, bytes32 digest, uint256 until) private {
        vm.prank(operator);
        spaces.recordCredential(space, wallet, ORGANISATION, digest, uint40(until));
    }

    // ------------------------------------------------------------------------------------- what is shared

    /// @dev A quarter of what was paid, more than anyone here could reach, two days to object.
    function ruleOf() private view returns (ISubsidyPool.Rule memory) {
        return
            ISubsidyPool.Rule({
                token: address(yuan),
                space: space,
                shareBps: 2500,
                credentialType: ORGANISATION,
                capPerConsumer: 1_000_000_000,
                validFrom: uint40(START - DAY),
                validUntil: uint40(START + 30 * DAY),
                claimUntil: uint40(CLAIM_UNTIL),
                objectionSeconds: uint32(2 * DAY)
            });
    }

    function none() private pure returns (bytes32[] memory) {
        return new bytes32[](0);
    }

    function only(bytes32 id) private pure returns (bytes32[] memory list) {
        list = new bytes32[](1);
        list[0] = id;
    }

    function fundsFor(address from, uint256 amount) private {
        yuan.mint(from, amount);
        vm.prank(from);
        yuan.approve(address(subsidies), amount);
    }

    function pooled(
        ISubsidyPool.Rule memory rule,
        bytes32[] memory products_,
        bytes32[] memory splits,
        uint128 amount
    ) private returns (bytes32) {
        fundsFor(sponsor, amount);
        vm.prank(sponsor);
        return subsidies.createPool(rule, products_, splits, amount, bytes32(++pools));
    }

    function pooled(ISubsidyPool.Rule memory rule) private returns (bytes32) {
        return pooled(rule, none(), none(), FUNDS);
    }

    function pooled() private returns (bytes32) {
        return pooled(ruleOf());
    }

    function leftOf(bytes32 pool) private view returns (uint256) {
        return subsidies.poolOf(pool).left;
    }

    /// @dev Opened at the start, with a settled head that comes to PAID.
    function spent(AuthorizationTerms memory terms) private returns (AuthorizationTerms memory) {
        opened(terms, 5_000_000);
        settled(terms, 120, 500);
        return terms;
    }

    /// @dev Closes after the window, and waits until nobody can object any more.
    function finish(AuthorizationTerms memory terms) private {
        CompactTerms memory compact = compactOf(terms);
        vm.warp(WINDOW_END + 1);
        ledger.finalize(compact);
        vm.warp(OBJECTION_END + 1);
    }

    function finished(AuthorizationTerms memory terms) private returns (AuthorizationTerms memory) {
        finish(spent(terms));
        return terms;
    }

    function finished() private returns (AuthorizationTerms memory) {
        return finished(termsOf());
    }

    function claim(bytes32 pool, AuthorizationTerms memory terms) private returns (uint128) {
        vm.prank(terms.consumer);
        return subsidies.claim(pool, terms);
    }

    /// @dev The consumer's claim fails with exactly this error, and no money moves.
    function requireRefused(bytes32 pool, AuthorizationTerms memory terms, bytes memory problem) private {
        uint256 left = leftOf(pool);
        uint256 balance = yuan.balanceOf(terms.consumer);
        refuses(problem);
        vm.prank(terms.consumer);
        subsidies.claim(pool, terms);
        assertEq(leftOf(pool), left, "left");
        assertEq(yuan.balanceOf(terms.consumer), balance, "balance");
    }

    function requireClaimed(bytes32 pool, AuthorizationTerms memory terms, uint256 amount) private {
        uint256 left = leftOf(pool);
        uint256 balance = yuan.balanceOf(terms.consumer);
        assertEq(claim(pool, terms), amount, "amount");
        assertEq(leftOf(pool), left - amount, "left");
        assertEq(yuan.balanceOf(terms.consumer), balance + amount, "balance");
    }

    /// @dev Exactly one event came from the pools since vm.recordLogs, and it is this one.
    function requireEvent(bytes32[] memory topics, bytes memory data) private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 count = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(subsidies)) continue;
            ++count;
            assertEq(keccak256(abi.encode(logs[i].topics)), keccak256(abi.encode(topics)), "topics");
            assertEq(keccak256(logs[i].data), keccak256(data), "data");
        }
        assertEq(count, 1, "events");
    }

    function topicsOf(bytes32 selector, bytes32 a, bytes32 b, bytes32 c) private pure returns (bytes32[] memory list) {
        uint256 count =
            c != 0
                ? 4
                : b != 0
                    ? 3
                    : 2;
        list = new bytes32[](count);
        (list[0], list[1]) = (selector, a);
        if (count > 2) list[2] = b;
        if (count > 3) list[3] = c;
    }

    function word(address wallet) private pure returns (bytes32) {
        return bytes32(uint256(uint160(wallet)));
    }

    function notCovered(string memory field) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ISubsidyPool.NotCovered.selector, field);
    }

    function tooEarly(bytes32 id, uint256 from) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ISubsidyPool.ClaimTooEarly.selector, id, from);
    }

    function nothingLeft(bytes32 pool, bytes32 id) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ISubsidyPool.NothingToClaim.selector, pool, id);
    }

    function already(bytes32 id) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ISubsidyPool.AlreadySubsidised.selector, id);
    }

    function unknownPool(bytes32 pool) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ISubsidyPool.PoolUnknown.selector, pool);
    }

    // ------------------------------------------------------------------------------------------- create

    function test_a_pool_has_the_documented_id_and_holds_what_its_sponsor_paid() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        fundsFor(sponsor, FUNDS);
        vm.recordLogs();
        vm.prank(sponsor);
        bytes32 pool = subsidies.createPool(rule, only(product), only(splitId), FUNDS, "salt");

        requireEvent(
            topicsOf(ISubsidyPool.PoolCreated.selector, pool, word(sponsor), 0),
            abi.encode(rule, only(product), only(splitId), FUNDS)
        );
        bytes32 id = keccak256(abi.encode(block.chainid, address(subsidies), sponsor, bytes32("salt")));
        assertEq(pool, id, "id");
        ISubsidyPool.Pool memory found = subsidies.poolOf(pool);
        assertEq(keccak256(abi.encode(found)), keccak256(abi.encode(rule, sponsor, FUNDS)), "pool");
        assertEq(yuan.balanceOf(address(subsidies)), FUNDS, "held");
        assertEq(yuan.balanceOf(sponsor), 0, "sponsor's");
    }

    function test_every_rule_that_breaks_a_rule_is_refused_and_no_money_moves() external {
        fundsFor(sponsor, FUNDS);
        string[8] memory fields = [
            "token",
            "token",
            "shareBps",
            "shareBps",
            "capPerConsumer",
            "validFrom",
            "claimUntil",
            "claimUntil"
        ];
        for (uint256 i = 0; i < fields.length; ++i) {
            ISubsidyPool.Rule memory rule = ruleOf();
            if (i == 0) rule.token = address(0);
            if (i == 1) rule.token = stranger;
            if (i == 2) rule.shareBps = 0;
            if (i == 3) rule.shareBps = 10_001;
            if (i == 4) rule.capPerConsumer = 0;
            if (i == 5) rule.validFrom = rule.validUntil + 1;
            if (i == 6) (rule.validFrom, rule.validUntil, rule.claimUntil) = (1, 2, uint40(START));
            if (i == 7) rule.claimUntil = rule.validUntil - 1;
            refuses(abi.encodeWithSelector(ISubsidyPool.RuleInvalid.selector, fields[i]));
            vm.prank(sponsor);
            subsidies.createPool(rule, none(), none(), FUNDS, "salt");
        }
        assertEq(yuan.balanceOf(sponsor), FUNDS, "sponsor's");
    }

    function test_a_rule_may_lie_on_every_bound() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        (rule.shareBps, rule.capPerConsumer, rule.objectionSeconds) = (10_000, 1, 0);
        (rule.validFrom, rule.validUntil, rule.claimUntil) = (uint40(START + 1), uint40(START + 1), uint40(START + 1));
        assertEq(leftOf(pooled(rule)), FUNDS, "left");
        (rule.shareBps, rule.capPerConsumer) = (1, type(uint128).max);
        (rule.objectionSeconds, rule.claimUntil) = (type(uint32).max, type(uint40).max);
        (rule.validFrom, rule.validUntil) = (0, type(uint40).max);
        assertEq(leftOf(pooled(rule)), FUNDS, "left");
    }

    function test_a_pool_cannot_be_created_twice_even_after_its_end() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        fundsFor(sponsor, FUNDS);
        vm.prank(sponsor);
        bytes32 pool = subsidies.createPool(rule, none(), none(), 0, "salt");
        bytes memory exists = abi.encodeWithSelector(ISubsidyPool.PoolExists.selector, pool);
        rule.shareBps = 1;
        refuses(exists);
        vm.prank(sponsor);
        subsidies.createPool(rule, none(), none(), FUNDS, "salt");

        vm.warp(CLAIM_UNTIL + 1);
        subsidies.refundPool(pool);
        rule.claimUntil += uint40(DAY);
        refuses(exists);
        vm.prank(sponsor);
        subsidies.createPool(rule, none(), none(), FUNDS, "salt");
        assertEq(yuan.balanceOf(sponsor), FUNDS, "sponsor's");
    }

    function test_two_sponsors_may_use_the_same_salt() external {
        vm.prank(sponsor);
        bytes32 first = subsidies.createPool(ruleOf(), none(), none(), 0, "salt");
        vm.prank(stranger);
        bytes32 second = subsidies.createPool(ruleOf(), none(), none(), 0, "salt");
        assertTrue(first != second, "ids");
        assertEq(word(subsidies.poolOf(first).sponsor), word(sponsor), "sponsor");
        assertEq(word(subsidies.poolOf(second).sponsor), word(stranger), "stranger");
    }

    function listOf(uint256 count, bytes32 last) private pure returns (bytes32[] memory list) {
        list = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) list[i] = bytes32(i + 1);
        list[count - 1] = last;
    }

    function test_sixty_four_products_and_splits_may_be_listed_and_the_last_one_counts() external {
        bytes32 pool = pooled(ruleOf(), listOf(64, product), listOf(64, splitId), FUNDS);
        requireClaimed(pool, finished(), QUARTER);
    }

    function test_sixty_five_products_or_splits_are_refused() external {
        fundsFor(sponsor, FUNDS);
        refuses(abi.encodeWithSelector(ISubsidyPool.RuleInvalid.selector, "products"));
        vm.prank(sponsor);
        subsidies.createPool(ruleOf(), listOf(65, product), none(), FUNDS, "salt");
        refuses(abi.encodeWithSelector(ISubsidyPool.RuleInvalid.selector, "splits"));
        vm.prank(sponsor);
        subsidies.createPool(ruleOf(), none(), listOf(65, splitId), FUNDS, "salt");
        assertEq(yuan.balanceOf(sponsor), FUNDS, "sponsor's");
    }

    function test_a_sponsor_cannot_create_a_pool_with_money_it_does_not_give() external {
        bytes memory short = abi.encodeWithSelector(
            IERC20Errors.ERC20InsufficientAllowance.selector,
            address(subsidies),
            0,
            1
        );
        refuses(short);
        vm.prank(sponsor);
        subsidies.createPool(ruleOf(), none(), none(), 1, "salt");
        bytes32 pool = pooled();
        refuses(short);
        vm.prank(sponsor);
        subsidies.fund(pool, 1);
        assertEq(leftOf(pool), FUNDS, "left");
    }

    function test_a_token_that_delivers_less_is_refused() external {
        TrickyToken token = new TrickyToken();
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.token = address(token);
        token.mint(sponsor, 3000);
        vm.prank(sponsor);
        token.approve(address(subsidies), 3000);
        vm.prank(sponsor);
        bytes32 pool = subsidies.createPool(rule, none(), none(), 1000, "exact");

        token.keepBack(1);
        bytes memory inexact = abi.encodeWithSelector(ISubsidyPool.TransferInexact.selector, address(token), 1000, 999);
        refuses(inexact);
        vm.prank(sponsor);
        subsidies.createPool(rule, none(), none(), 1000, "salt");
        refuses(inexact);
        vm.prank(sponsor);
        subsidies.fund(pool, 1000);
        assertEq(leftOf(pool), 1000, "left");
        assertEq(token.balanceOf(sponsor), 2000, "sponsor's");
    }

    // --------------------------------------------------------------------------------------------- fund

    function test_anyone_may_add_to_a_pool_until_claims_are_over() external {
        bytes32 pool = pooled(ruleOf(), none(), none(), 0);
        fundsFor(stranger, 700);
        vm.warp(CLAIM_UNTIL);
        vm.recordLogs();
        vm.prank(stranger);
        subsidies.fund(pool, 500);

        bytes32[] memory topics = topicsOf(ISubsidyPool.PoolFunded.selector, pool, word(stranger), 0);
        requireEvent(topics, abi.encode(uint128(500)));
        assertEq(leftOf(pool), 500, "left");
        assertEq(yuan.balanceOf(stranger), 200, "stranger's");

        vm.warp(CLAIM_UNTIL + 1);
        refuses(abi.encodeWithSelector(ISubsidyPool.ClaimsOver.selector, pool, uint40(CLAIM_UNTIL)));
        vm.prank(stranger);
        subsidies.fund(pool, 200);
        assertEq(yuan.balanceOf(stranger), 200, "stranger's");
    }

    function test_a_pool_that_does_not_exist_does_nothing() external {
        AuthorizationTerms memory terms = termsOf();
        refuses(unknownPool("pool"));
        subsidies.fund("pool", 1);
        refuses(unknownPool("pool"));
        subsidies.claim("pool", terms);
        refuses(unknownPool("pool"));
        subsidies.objectTo("pool", "id", 1);
        refuses(unknownPool("pool"));
        subsidies.refundPool("pool");
        assertEq(word(subsidies.poolOf("pool").sponsor), 0, "sponsor");
    }

    // --------------------------------------------------------------------------------------------- claim

    function test_a_consumer_gets_its_share_of_what_it_paid_to_the_unit() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        bytes32 id = idOf(terms);
        vm.recordLogs();
        assertEq(claim(pool, terms), QUARTER, "amount");

        requireEvent(
            topicsOf(ISubsidyPool.Subsidised.selector, pool, id, word(consumer)),
            abi.encode(bytes32("consumer org"), PAID, QUARTER)
        );
        assertEq(yuan.balanceOf(consumer), QUARTER, "consumer's");
        assertEq(yuan.balanceOf(address(subsidies)), FUNDS - QUARTER, "held");
        assertEq(leftOf(pool), FUNDS - QUARTER, "left");
        assertEq(subsidies.receivedOf(pool, "consumer org"), QUARTER, "received");
        assertEq(subsidies.receivedOf(pool, "provider org"), 0, "provider's");
        assertEq(subsidies.poolFor(id), pool, "pool");
    }

    function test_the_share_is_rounded_down() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.shareBps = 3333;
        bytes32 pool = pooled(rule);
        AuthorizationTerms memory terms = opened(termsOf(), 5_000_000);
        settled(terms, 11, 1); // one call and one row: 12,800
        finish(terms);
        requireClaimed(pool, terms, 4266); // of 4266.24
    }

    function test_what_was_refunded_is_not_subsidised() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        CompactTerms memory compact = compactOf(terms);
        give(provider, 460_000);
        vm.prank(provider);
        ledger.refund(compact, 460_000);
        bytes32 id = idOf(terms);
        vm.recordLogs();
        assertEq(claim(pool, terms), 500_000, "amount");
        requireEvent(
            topicsOf(ISubsidyPool.Subsidised.selector, pool, id, word(consumer)),
            abi.encode(bytes32("consumer org"), uint128(2_000_000), uint128(500_000))
        );
    }

    function test_what_was_due_and_not_paid_is_not_subsidised() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = opened(termsOf(), 1_000_000);
        settled(terms, 120, 500);
        finish(terms);
        requireClaimed(pool, terms, 250_000);
    }

    function test_a_share_of_nothing_is_nothing_to_claim() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.shareBps = 1;
        (bytes32 pool, bytes32 small) = (pooled(), pooled(rule));
        AuthorizationTerms memory unpaid = opened(termsOf(), 0);
        settled(unpaid, 120, 500);
        AuthorizationTerms memory little = opened(termsOf(), 5_000_000);
        settled(little, 0, 1); // 2,800, of which a ten-thousandth is none
        AuthorizationTerms memory refunded = finished();
        (CompactTerms memory first, CompactTerms memory second) = (compactOf(unpaid), compactOf(little));
        ledger.finalize(first);
        ledger.finalize(second);
        CompactTerms memory compact = compactOf(refunded);
        give(provider, PAID);
        vm.prank(provider);
        ledger.refund(compact, PAID);

        requireRefused(pool, unpaid, nothingLeft(pool, idOf(unpaid)));
        requireRefused(small, little, nothingLeft(small, idOf(little)));
        requireRefused(pool, refunded, nothingLeft(pool, idOf(refunded)));
        requireClaimed(pool, little, 700);
    }

    function test_nobody_but_the_consumer_claims() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        bytes32 id = idOf(terms);
        address[5] memory others = [provider, sponsor, operator, stranger, address(this)];
        for (uint256 i = 0; i < others.length; ++i) {
            refuses(abi.encodeWithSelector(ISubsidyPool.ClaimNotYours.selector, id, others[i]));
            vm.prank(others[i]);
            subsidies.claim(pool, terms);
        }
        assertEq(leftOf(pool), FUNDS, "left");
    }

    function test_a_claim_that_was_forwarded_is_the_consumers() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        bytes memory data = abi.encodePacked(abi.encodeCall(subsidies.claim, (pool, terms)), consumer);
        vm.prank(stranger);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, ) = address(subsidies).call(data);
        assertTrue(!done, "a stranger's word");
        vm.prank(address(forwarder));
        // solhint-disable-next-line avoid-low-level-calls
        (done, ) = address(subsidies).call(data);
        assertTrue(done, "the forwarder's");
        assertEq(yuan.balanceOf(consumer), QUARTER, "consumer's");
    }

    function test_a_claim_waits_until_the_objection_time_is_over() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        bytes32 id = idOf(terms);
        uint256[3] memory times = [WINDOW_END + 1, OBJECTION_END - 1, OBJECTION_END];
        for (uint256 i = 0; i < times.length; ++i) {
            vm.warp(times[i]);
            requireRefused(pool, terms, tooEarly(id, OBJECTION_END));
        }
        vm.warp(OBJECTION_END + 1);
        requireClaimed(pool, terms, QUARTER);
    }

    function test_a_claim_after_a_close_together_waits_for_window_and_objection_time_too() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = opened(termsOf(), 5_000_000);
        vm.warp(START + 100);
        Head memory head = headOf(10, 120, 500);
        ledger.closeTogether(closingOf(terms, noHead(), head, 2_000_000));
        bytes32 id = idOf(terms);
        uint256 from = START + 100 + 3 * DAY;
        requireRefused(pool, terms, tooEarly(id, from));
        vm.warp(from);
        requireRefused(pool, terms, tooEarly(id, from));
        vm.warp(from + 1);
        requireClaimed(pool, terms, 500_000);
    }

    function test_a_claim_after_an_early_end_waits_from_that_end() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = spent(termsOf());
        CompactTerms memory compact = compactOf(terms);
        vm.warp(START + 50);
        vm.prank(consumer);
        ledger.close(compact, 1);
        vm.warp(START + 50 + DAY + 1);
        ledger.finalize(compact);
        uint256 from = START + 50 + 3 * DAY;
        bytes32 id = idOf(terms);
        vm.warp(from);
        requireRefused(pool, terms, tooEarly(id, from));
        vm.warp(from + 1);
        requireClaimed(pool, terms, QUARTER);
    }

    function test_nothing_is_claimed_after_claims_are_over() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory late = spent(termsOf());
        AuthorizationTerms memory terms = finished();
        CompactTerms memory compact = compactOf(late);
        ledger.finalize(compact);
        vm.warp(CLAIM_UNTIL);
        requireClaimed(pool, terms, QUARTER);
        vm.warp(CLAIM_UNTIL + 1);
        bytes memory over = abi.encodeWithSelector(ISubsidyPool.ClaimsOver.selector, pool, uint40(CLAIM_UNTIL));
        requireRefused(pool, late, over);
    }

    function test_only_what_is_closed_is_subsidised() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory unopened = termsOf();
        AuthorizationTerms memory cancelled = termsOf();
        AuthorizationTerms memory open = spent(termsOf());
        (bytes32 id, bytes32 openId) = (idOf(unopened), idOf(open));
        CompactTerms memory compact = compactOf(cancelled);
        vm.prank(consumer);
        ledger.cancelTerms(compact);
        requireRefused(pool, open, tooEarly(openId, OBJECTION_END));
        vm.warp(CLAIM_UNTIL);
        assertTrue(statusOf(open) == IAuthorizations.Status.ENDED, "ended");
        requireRefused(pool, open, tooEarly(openId, OBJECTION_END));
        requireRefused(pool, unopened, tooEarly(id, 3 * DAY));
        requireRefused(pool, cancelled, tooEarly(idOf(cancelled), 3 * DAY));
        compact = compactOf(open);
        ledger.finalize(compact);
        requireClaimed(pool, open, QUARTER);
    }

    // ------------------------------------------------------------------------------------ what is covered

    function test_another_token_or_space_is_not_covered() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.space = "another";
        bytes32 otherSpace = pooled(rule);
        rule = ruleOf();
        rule.token = address(new DemoYuan());
        bytes32 otherToken = pooled(rule, none(), none(), 0);
        AuthorizationTerms memory terms = finished();
        requireRefused(otherSpace, terms, notCovered("space"));
        requireRefused(otherToken, terms, notCovered("token"));
    }

    function test_money_that_moves_through_banks_is_not_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = invoicedTermsOf();
        opened(terms, 0);
        settled(terms, 120, 500);
        CompactTerms memory compact = compactOf(terms);
        vm.warp(WINDOW_END + 1);
        invoices.finalize(compact);
        vm.warp(OBJECTION_END + 1);
        requireRefused(pool, terms, notCovered("token"));
    }

    function test_a_product_or_split_that_is_not_listed_is_not_covered() external {
        bytes32 byProduct = pooled(ruleOf(), only(product), none(), FUNDS);
        bytes32 bySplit = pooled(ruleOf(), none(), only(splitId), FUNDS);
        AuthorizationTerms memory other = termsOf();
        (other.scope.product, other.scope.version) = publish("other");
        other.split = cards.registerSplit(sharesOf(provider, 6000, operator, 1000, agent, 3000));
        spent(other);
        AuthorizationTerms memory terms = finished();
        CompactTerms memory compact = compactOf(other);
        ledger.finalize(compact);

        requireRefused(byProduct, other, notCovered("product"));
        requireRefused(bySplit, other, notCovered("split"));
        requireClaimed(bySplit, terms, QUARTER);
    }

    function test_a_list_of_one_kind_covers_everything_of_the_other() external {
        bytes32 byProduct = pooled(ruleOf(), only(product), none(), FUNDS);
        AuthorizationTerms memory other = termsOf();
        other.split = cards.registerSplit(sharesOf(provider, 6000, operator, 1000, agent, 3000));
        requireClaimed(byProduct, finished(other), QUARTER);
    }

    function test_an_authorization_is_covered_if_it_begins_within_the_rules_time() external {
        uint40 begin = uint40(START - 60); // of termsOf
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.validFrom = begin + 1;
        bytes32 after_ = pooled(rule);
        (rule.validFrom, rule.validUntil) = (0, begin - 1);
        bytes32 before = pooled(rule);
        (rule.validFrom, rule.validUntil) = (begin, begin);
        bytes32 exact = pooled(rule);
        AuthorizationTerms memory terms = finished();
        requireRefused(after_, terms, notCovered("validFrom"));
        requireRefused(before, terms, notCovered("validFrom"));
        requireClaimed(exact, terms, QUARTER);
    }

    function test_a_consumer_without_a_valid_credential_is_not_covered() external {
        bytes32 pool = pooled();
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.credentialType = 2;
        bytes32 otherType = pooled(rule);
        AuthorizationTerms memory terms = spent(termsOf());
        vm.warp(START + 1);
        credential(consumer, "consumer org", OBJECTION_END + 1);
        finish(terms);

        requireRefused(otherType, terms, notCovered("consumer"));
        vm.warp(OBJECTION_END + 2);
        requireRefused(pool, terms, notCovered("consumer"));
        credential(consumer, "consumer org", FAR);
        vm.prank(operator);
        spaces.revokeCredential(space, consumer, ORGANISATION, 1);
        requireRefused(pool, terms, notCovered("consumer"));
        credential(consumer, "consumer org", FAR);
        requireClaimed(pool, terms, QUARTER);
    }

    function test_a_credential_counts_to_its_last_second() external {
        bytes32 pool = pooled();
        credential(consumer, "consumer org", OBJECTION_END + 1);
        requireClaimed(pool, finished(), QUARTER);
    }

    function test_a_consumer_of_the_providers_organisation_is_not_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        credential(provider, "consumer org", FAR);
        requireRefused(pool, terms, notCovered("provider"));
    }

    function agentTerms(uint8 flags) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.meteringAgent = agent;
        terms.flags = flags;
    }

    /// @dev Settled by this key on the consumer's side, or by nobody, with the consumer's ceiling if asked.
    function spentBy(uint256 key, AuthorizationTerms memory terms, bool ceiling) private {
        opened(terms, 5_000_000);
        Head memory head = headOf(10, 120, 500);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), head);
        settlement.consumerSignature = "";
        if (key != 0) settlement.consumerSignature = sign(key, digests.head(address(ledger), idOf(terms), head));
        if (ceiling) {
            UsageCeiling memory most = UsageCeiling(0, terms.maxUnits, 0, 5_000_000, uint40(START + DAY));
            settlement.ceilings = ceilingBy(CONSUMER, terms, most);
        }
        ledger.settle(settlement);
    }

    function requireBasis(AuthorizationTerms memory terms, IAuthorizations.Basis basis) private view {
        assertEq(uint256(ledger.authorizationOf(idOf(terms)).basis), uint256(basis), "basis");
    }

    function test_what_nobody_saw_on_the_consumers_side_is_not_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory unseen = termsOf();
        spentBy(0, unseen, true);
        requireBasis(unseen, IAuthorizations.Basis.CEILING);
        finish(unseen);
        requireRefused(pool, unseen, notCovered("basis"));
    }

    function test_what_an_agent_saw_under_a_ceiling_is_not_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory capped = agentTerms(Terms.AGENT_CAPPED);
        spentBy(AGENT, capped, true);
        requireBasis(capped, IAuthorizations.Basis.AGENT_CAPPED);
        finish(capped);
        requireRefused(pool, capped, notCovered("basis"));
    }

    function test_what_was_never_settled_is_not_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = opened(termsOf(), 5_000_000);
        requireBasis(terms, IAuthorizations.Basis.NONE);
        finish(terms);
        requireRefused(pool, terms, notCovered("basis"));
    }

    function test_what_an_agent_saw_is_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = agentTerms(0);
        spentBy(AGENT, terms, false);
        requireBasis(terms, IAuthorizations.Basis.AGENT);
        finish(terms);
        requireClaimed(pool, terms, QUARTER);
    }

    function test_what_the_consumer_saw_is_covered() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = agentTerms(Terms.AGENT_CAPPED);
        spentBy(CONSUMER, terms, false);
        requireBasis(terms, IAuthorizations.Basis.CONSUMER);
        finish(terms);
        requireClaimed(pool, terms, QUARTER);
    }

    function test_what_nobody_saw_is_covered_once_both_have_closed_on_it() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = termsOf();
        spentBy(0, terms, true);
        Head memory head = headOf(10, 120, 500);
        ledger.closeTogether(closingOf(terms, head, head, PAID));
        vm.warp(START + 3 * DAY + 1);
        requireClaimed(pool, terms, QUARTER);
    }

    // --------------------------------------------------------------------------------------------- bounds

    /// @dev Another wallet of an organisation; it agrees to whatever is signed for it.
    function walletOf(bytes32 organisation) private returns (address wallet) {
        wallet = address(new AgreeingWallet());
        vm.prank(operator);
        spaces.admit(space, wallet, 2, "wallet");
        credential(wallet, organisation, FAR);
    }

    function termsFor(address wallet) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.consumer = wallet;
    }

    function test_the_cap_holds_over_several_authorizations() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.capPerConsumer = 1_000_000;
        bytes32 pool = pooled(rule);
        AuthorizationTerms[3] memory terms = [spent(termsOf()), spent(termsOf()), spent(termsOf())];
        for (uint256 i = 0; i < 3; ++i) finish(terms[i]);
        requireClaimed(pool, terms[0], QUARTER);
        requireClaimed(pool, terms[1], 1_000_000 - QUARTER);
        requireRefused(pool, terms[2], nothingLeft(pool, idOf(terms[2])));
        assertEq(subsidies.receivedOf(pool, "consumer org"), 1_000_000, "received");
        assertEq(subsidies.poolFor(idOf(terms[2])), 0, "pool");
    }

    function test_the_cap_is_the_organisations_and_not_the_wallets() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.capPerConsumer = 1_000_000;
        bytes32 pool = pooled(rule);
        AuthorizationTerms memory first = spent(termsOf());
        AuthorizationTerms memory second = spent(termsFor(walletOf("consumer org")));
        AuthorizationTerms memory third = spent(termsFor(walletOf("consumer org")));
        AuthorizationTerms memory other = spent(termsFor(walletOf("other org")));
        finish(first);
        finish(second);
        finish(third);
        finish(other);
        requireClaimed(pool, first, QUARTER);
        requireClaimed(pool, second, 1_000_000 - QUARTER);
        requireRefused(pool, third, nothingLeft(pool, idOf(third)));
        requireClaimed(pool, other, QUARTER);
    }

    function test_what_the_cap_of_one_pool_leaves_out_another_may_pay() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        rule.capPerConsumer = QUARTER;
        bytes32 full = pooled(rule);
        bytes32 other = pooled(rule);
        AuthorizationTerms memory first = spent(termsOf());
        AuthorizationTerms memory second = spent(termsOf());
        finish(first);
        finish(second);
        requireClaimed(full, first, QUARTER);
        requireRefused(full, second, nothingLeft(full, idOf(second)));
        requireClaimed(other, second, QUARTER);
    }

    function test_a_pool_that_is_nearly_empty_pays_what_is_left() external {
        bytes32 pool = pooled(ruleOf(), none(), none(), QUARTER + 7);
        AuthorizationTerms[3] memory terms = [spent(termsOf()), spent(termsOf()), spent(termsOf())];
        for (uint256 i = 0; i < 3; ++i) finish(terms[i]);
        requireClaimed(pool, terms[0], QUARTER);
        requireClaimed(pool, terms[1], 7);
        requireRefused(pool, terms[2], nothingLeft(pool, idOf(terms[2])));

        fundsFor(stranger, FUNDS);
        vm.prank(stranger);
        subsidies.fund(pool, FUNDS);
        requireClaimed(pool, terms[2], QUARTER);
        requireRefused(pool, terms[1], already(idOf(terms[1])));
    }

    function test_an_authorization_is_subsidised_once_by_one_pool() external {
        (bytes32 pool, bytes32 other) = (pooled(), pooled());
        AuthorizationTerms memory terms = finished();
        requireClaimed(pool, terms, QUARTER);
        requireRefused(pool, terms, already(idOf(terms)));
        requireRefused(other, terms, already(idOf(terms)));
        assertEq(subsidies.poolFor(idOf(terms)), pool, "pool");
    }

    function test_one_pool_cannot_pay_out_of_anothers_money() external {
        bytes32 poor = pooled(ruleOf(), none(), none(), 100);
        bytes32 rich = pooled();
        AuthorizationTerms memory terms = finished();
        requireClaimed(poor, terms, 100);
        assertEq(leftOf(rich), FUNDS, "rich");
        assertEq(yuan.balanceOf(address(subsidies)), FUNDS, "held");

        vm.warp(CLAIM_UNTIL + 1);
        assertEq(subsidies.refundPool(poor), 0, "nothing");
        assertEq(subsidies.refundPool(rich), FUNDS, "all");
        assertEq(yuan.balanceOf(sponsor), FUNDS, "sponsor's");
    }

    function test_money_sent_to_the_contract_belongs_to_no_pool() external {
        bytes32 pool = pooled(ruleOf(), none(), none(), 100);
        yuan.mint(address(subsidies), FUNDS);
        requireClaimed(pool, finished(), 100);
        vm.warp(CLAIM_UNTIL + 1);
        assertEq(subsidies.refundPool(pool), 0, "refund");
    }

    /// @dev All the money that provider and consumer have, in wallets and in accounts.
    function moneyOfThePair() private view returns (uint256) {
        return
            yuan.balanceOf(provider) +
            yuan.balanceOf(consumer) +
            ledger.freeOf(provider, address(yuan)) +
            ledger.freeOf(consumer, address(yuan));
    }

    function test_a_colluding_pair_takes_no_more_than_the_cap() external {
        ISubsidyPool.Rule memory rule = ruleOf();
        (rule.shareBps, rule.capPerConsumer) = (10_000, 3_000_000);
        bytes32 pool = pooled(rule);
        Share[] memory shares = new Share[](1);
        shares[0] = Share(provider, 10_000);
        bytes32 split = cards.registerSplit(shares);
        AuthorizationTerms[4] memory terms;
        for (uint256 i = 0; i < 4; ++i) {
            terms[i] = termsOf();
            terms[i].split = split;
            spent(terms[i]);
        }
        for (uint256 i = 0; i < 4; ++i) finish(terms[i]);

        // What the consumer paid comes back to the pair, before the claims or after.
        ledger.payShare(split, address(yuan), provider);
        uint256 before = moneyOfThePair();
        assertEq(before, 4 * 5_000_000, "all that they had");
        requireClaimed(pool, terms[0], PAID);
        requireClaimed(pool, terms[1], 3_000_000 - PAID);
        vm.startPrank(provider);
        yuan.approve(address(ledger), 4 * PAID);
        ledger.depositFor(provider, address(yuan), 4 * PAID);
        vm.stopPrank();
        for (uint256 i = 0; i < 4; ++i) {
            CompactTerms memory compact = compactOf(terms[i]);
            vm.prank(provider);
            ledger.refund(compact, PAID);
        }
        requireRefused(pool, terms[2], nothingLeft(pool, idOf(terms[2])));
        requireRefused(pool, terms[3], nothingLeft(pool, idOf(terms[3])));

        assertEq(moneyOfThePair() - before, rule.capPerConsumer, "gain");
        vm.warp(CLAIM_UNTIL + 1);
        subsidies.refundPool(pool);
        assertEq(yuan.balanceOf(sponsor), FUNDS - rule.capPerConsumer, "sponsor's");
    }

    // --------------------------------------------------------------------------------------------- object

    function test_an_objection_withholds_the_subsidy() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        bytes32 id = idOf(terms);
        vm.recordLogs();
        vm.prank(sponsor);
        subsidies.objectTo(pool, id, 7);
        requireEvent(topicsOf(ISubsidyPool.Objected.selector, pool, id, 0), abi.encode(uint16(7)));
        requireRefused(pool, terms, abi.encodeWithSelector(ISubsidyPool.SponsorObjected.selector, pool, id));
    }

    function test_an_objection_withholds_nothing_of_another_pool_or_authorization() external {
        (bytes32 pool, bytes32 other) = (pooled(), pooled());
        AuthorizationTerms memory objected = spent(termsOf());
        AuthorizationTerms memory terms = spent(termsOf());
        bytes32 id = idOf(objected);
        vm.prank(sponsor);
        subsidies.objectTo(pool, id, 7);
        finish(objected);
        finish(terms);
        requireClaimed(pool, terms, QUARTER);
        requireClaimed(other, objected, QUARTER);
    }

    function test_nobody_but_the_sponsor_objects() external {
        bytes32 pool = pooled();
        AuthorizationTerms memory terms = finished();
        bytes32 id = idOf(terms);
        vm.prank(stranger);
        subsidies.createPool(ruleOf(), none(), none(), 0, "sponsor of another");
        address[4] memory others = [provider, consumer, operator, stranger];
        for (uint256 i = 0; i < others.length; ++i) {
            refuses(abi.encodeWithSelector(ISubsidyPool.PoolNotSponsor.selector, pool, others[i]));
            vm.prank(others[i]);
            subsidies.objectTo(pool, id, 7);
        }
        requireClaimed(pool, terms, QUARTER);
    }

    function test_nobody_objects_after_the_claim() external {
        (bytes32 pool, bytes32 other) = (pooled(), pooled());
        AuthorizationTerms memory terms = finished();
        requireClaimed(pool, terms, QUARTER);
        bytes32 id = idOf(terms);
        refuses(already(id));
        vm.prank(sponsor);
        subsidies.objectTo(pool, id, 7);
        refuses(already(id));
        vm.prank(sponsor);
        subsidies.objectTo(other, id, 7);
    }

    // --------------------------------------------------------------------------------------------- refund

    function test_what_is_left_goes_back_to_the_sponsor_once_claims_are_over() external {
        bytes32 pool = pooled();
        requireClaimed(pool, finished(), QUARTER);
        bytes memory open = abi.encodeWithSelector(ISubsidyPool.ClaimsOpen.selector, pool, uint40(CLAIM_UNTIL));
        vm.warp(CLAIM_UNTIL);
        refuses(open);
        vm.prank(sponsor);
        subsidies.refundPool(pool);
        assertEq(leftOf(pool), FUNDS - QUARTER, "left");

        vm.warp(CLAIM_UNTIL + 1);
        vm.recordLogs();
        vm.prank(stranger);
        uint128 amount = subsidies.refundPool(pool);
        requireEvent(topicsOf(ISubsidyPool.PoolRefunded.selector, pool, 0, 0), abi.encode(FUNDS - QUARTER));
        assertEq(amount, FUNDS - QUARTER, "amount");
        assertEq(yuan.balanceOf(sponsor), FUNDS - QUARTER, "sponsor's");
        assertEq(yuan.balanceOf(stranger), 0, "stranger's");
        assertEq(leftOf(pool), 0, "left");
    }

    function test_a_second_refund_gives_nothing() external {
        bytes32 pool = pooled();
        bytes32 other = pooled();
        vm.warp(CLAIM_UNTIL + 1);
        assertEq(subsidies.refundPool(pool), FUNDS, "first");
        assertEq(subsidies.refundPool(pool), 0, "second");
        assertEq(yuan.balanceOf(sponsor), FUNDS, "sponsor's");
        assertEq(leftOf(other), FUNDS, "other");
    }

    // ----------------------------------------------------------------------------------- a token that calls

    function trickyRule(TrickyToken token) private returns (ISubsidyPool.Rule memory rule) {
        rule = ruleOf();
        rule.token = address(token);
        token.mint(sponsor, FUNDS);
        vm.prank(sponsor);
        token.approve(address(subsidies), FUNDS);
    }

    /// @dev The token is the consumer too, so that its calls come from who may make them.
    function spentOn(TrickyToken token) private returns (AuthorizationTerms memory terms) {
        terms = termsFor(address(token));
        terms.token = address(token);
        terms.rateCard = cards.registerRateCard(cardOf(address(token)));
        token.mint(address(this), 5_000_000);
        token.approve(address(ledger), 5_000_000);
        ledger.depositFor(address(token), address(token), 5_000_000);
        ledger.open(openingOf(terms, 5_000_000));
        settled(terms, 120, 500);
    }

    function requireGuarded(TrickyToken token, string memory what) private view {
        assertTrue(!token.succeeded(), what);
        bytes memory guard = abi.encodePacked(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        assertEq(keccak256(token.answer()), keccak256(guard), what);
    }

    function test_a_token_that_claims_again_while_it_is_paid_gains_nothing() external {
        TrickyToken token = new TrickyToken();
        vm.prank(operator);
        spaces.admit(space, address(token), 2, "token");
        credential(address(token), "token org", FAR);
        ISubsidyPool.Rule memory rule = trickyRule(token);
        vm.prank(sponsor);
        bytes32 pool = subsidies.createPool(rule, none(), none(), FUNDS / 2, "one");
        vm.prank(sponsor);
        bytes32 other = subsidies.createPool(rule, none(), none(), FUNDS / 2, "two");
        AuthorizationTerms memory terms = spentOn(token);
        AuthorizationTerms memory second = spentOn(token);
        finish(terms);
        finish(second);
        uint256 before = token.balanceOf(address(token));

        token.callDuringTransfer(address(subsidies), abi.encodeCall(subsidies.claim, (other, terms)));
        claim(pool, terms);
        requireGuarded(token, "the same authorization");
        assertEq(token.balanceOf(address(token)) - before, QUARTER, "once");
        token.callDuringTransfer(address(subsidies), abi.encodeCall(subsidies.claim, (pool, terms)));
        claim(other, second);
        requireGuarded(token, "another authorization");

        assertEq(token.balanceOf(address(token)) - before, 2 * QUARTER, "twice");
        assertEq(leftOf(pool), FUNDS / 2 - QUARTER, "one");
        assertEq(leftOf(other), FUNDS / 2 - QUARTER, "two");
    }

    function test_a_token_that_refunds_again_while_it_is_refunded_gains_nothing() external {
        TrickyToken token = new TrickyToken();
        ISubsidyPool.Rule memory rule = trickyRule(token);
        vm.prank(sponsor);
        bytes32 pool = subsidies.createPool(rule, none(), none(), FUNDS / 2, "one");
        vm.prank(sponsor);
        bytes32 other = subsidies.createPool(rule, none(), none(), FUNDS / 2, "two");
        vm.warp(CLAIM_UNTIL + 1);
        token.callDuringTransfer(address(subsidies), abi.encodeCall(subsidies.refundPool, (pool)));
        subsidies.refundPool(pool);
        requireGuarded(token, "refund");
        assertEq(token.balanceOf(sponsor), FUNDS / 2, "sponsor's");
        assertEq(leftOf(pool), 0, "one");
        assertEq(leftOf(other), FUNDS / 2, "two");
    }

    function test_a_token_cannot_have_one_payment_booked_twice() external {
        TrickyToken token = new TrickyToken();
        ISubsidyPool.Rule memory rule = trickyRule(token);
        bytes32 pool = keccak256(abi.encode(block.chainid, address(subsidies), sponsor, bytes32("one")));
        token.callDuringTransfer(address(subsidies), abi.encodeCall(subsidies.fund, (pool, 0)));
        vm.prank(sponsor);
        subsidies.createPool(rule, none(), none(), FUNDS / 2, "one");
        requireGuarded(token, "create");
        token.callDuringTransfer(
            address(subsidies),
            abi.encodeCall(subsidies.createPool, (rule, none(), none(), 0, "two"))
        );
        vm.prank(sponsor);
        subsidies.fund(pool, FUNDS / 2);
        requireGuarded(token, "fund");
        assertEq(leftOf(pool), FUNDS, "left");
        assertEq(token.balanceOf(address(subsidies)), FUNDS, "held");
    }

    // ------------------------------------------------------------------------------------------- the rest

    function test_subsidies_name_their_interface() external view {
        assertTrue(subsidies.supportsInterface(type(ISubsidyPool).interfaceId), "subsidies");
        assertTrue(subsidies.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        assertTrue(!subsidies.supportsInterface(0xffffffff), "none");
        assertTrue(address(subsidies.ledger()) == address(ledger), "ledger");
        assertTrue(address(subsidies.spaces()) == address(spaces), "spaces");
    }
}
