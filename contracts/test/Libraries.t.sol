// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RateCards} from "../RateCards.sol";
import {Meter, Pricing, RateCard, Tier} from "../libraries/Pricing.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {Share, Splits} from "../libraries/Splits.sol";
import {UsageLog} from "../libraries/UsageLog.sol";
import {AgreeingWallet, BombWallet, BurningWallet, RefusingWallet, ShortWallet} from "../mocks/Wallets.sol";
import {Test} from "./Vm.sol";

/// @title Facts about the libraries, on random values
contract LibrariesTest is Test {
    RateCards private cards = new RateCards();

    function priceOf(bytes memory card, uint64[4] calldata units) public pure returns (uint256) {
        return Pricing.price(card, units);
    }

    function isBy(address wallet, bytes32 digest, bytes calldata signature) external view returns (bool) {
        return Signatures.isBy(wallet, digest, signature);
    }

    function extends(
        uint64 size1,
        bytes32 root1,
        uint64 size2,
        bytes32 root2,
        bytes32[] calldata proof
    ) external view returns (bool) {
        return UsageLog.extends(size1, root1, size2, root2, proof);
    }

    // ---------------------------------------------------------------------------------------------- price

    function testFuzz_price_is_that_of_counting_unit_by_unit(
        uint8 free,
        uint8 bound,
        uint32 price1,
        uint32 price2,
        uint16 scale,
        uint16 units
    ) external {
        vm.assume(scale > 0 && bound > 0);
        uint64 used = units % 1024;
        bytes memory card = twoTiers(scale, free, bound, price1, price2);
        uint256 sum = 0;
        for (uint256 n = 1; n <= used; ++n) {
            if (n <= free) continue;
            sum += n - free <= bound ? price1 : price2;
        }
        assertEq(this.priceOf(card, [used, 0, 0, 0]), sum / scale, "price");
    }

    function testFuzz_price_never_falls_with_units(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2,
        uint64 a,
        uint64 b
    ) external {
        vm.assume(scale > 0 && bound > 0 && bound < type(uint64).max);
        bytes memory card = twoTiers(scale, free, bound, price1, price2);
        (uint64 less, uint64 more) = a < b ? (a, b) : (b, a);
        assertTrue(this.priceOf(card, [less, 0, 0, 0]) <= this.priceOf(card, [more, 0, 0, 0]), "monotone");
    }

    function test_cards_that_break_a_rule_are_refused() external {
        RateCard memory card = RateCard(address(1), 6, new Meter[](0));
        vm.expectRevert(abi.encodeWithSelector(Pricing.RateCardInvalid.selector, 0, 0));
        cards.registerRateCard(card);

        card.meters = new Meter[](5);
        vm.expectRevert(abi.encodeWithSelector(Pricing.RateCardInvalid.selector, 5, 0));
        cards.registerRateCard(card);

        card.meters = new Meter[](1);
        card.meters[0] = Meter(0, 0, new Tier[](1));
        card.meters[0].tiers[0] = Tier(type(uint64).max, 1);
        vm.expectRevert(abi.encodeWithSelector(Pricing.RateCardInvalid.selector, 0, 1));
        cards.registerRateCard(card);

        card.meters[0].unitScale = 1;
        card.meters[0].tiers[0].upTo = 100;
        vm.expectRevert(abi.encodeWithSelector(Pricing.RateCardInvalid.selector, 0, 0));
        cards.registerRateCard(card);

        card.meters[0].tiers = new Tier[](2);
        card.meters[0].tiers[0] = Tier(type(uint64).max, 1);
        card.meters[0].tiers[1] = Tier(type(uint64).max, 1);
        vm.expectRevert(abi.encodeWithSelector(Pricing.RateCardInvalid.selector, 0, 0));
        cards.registerRateCard(card);
    }

    function test_registering_again_changes_nothing() external {
        Share[] memory shares = new Share[](1);
        shares[0] = Share(address(7), 10_000);
        assertEq(cards.registerSplit(shares), cards.registerSplit(shares), "id");
    }

    // ---------------------------------------------------------------------------------------------- split

    function testFuzz_split_pays_no_more_than_accrued_and_leaves_less_dust_than_payees(
        uint16 a,
        uint16 b,
        uint128 accrued
    ) external {
        uint256 first = 1 + (a % 9_998);
        uint256 second = 1 + (b % (9_999 - first));
        Share[] memory shares = new Share[](3);
        shares[0] = Share(address(1), uint16(first));
        shares[1] = Share(address(2), uint16(second));
        shares[2] = Share(address(3), uint16(10_000 - first - second));
        bytes memory split = cards.read(cards.registerSplit(shares));
        uint256 sum = 0;
        for (uint160 i = 1; i <= 3; ++i) {
            sum += (uint256(accrued) * Splits.bpsOf(split, address(i))) / 10_000;
        }
        assertTrue(sum <= accrued && accrued - sum < 3, "dust");
        assertEq(Splits.bpsOf(split, address(4)), 0, "stranger");
    }

    function test_splits_that_break_a_rule_are_refused() external {
        Share[] memory shares = new Share[](2);
        shares[0] = Share(address(2), 5_000);
        shares[1] = Share(address(2), 5_000);
        vm.expectRevert(abi.encodeWithSelector(Splits.SplitInvalid.selector, 1, 5_000));
        cards.registerSplit(shares);

        shares[0] = Share(address(0), 5_000);
        vm.expectRevert(abi.encodeWithSelector(Splits.SplitInvalid.selector, 0, 0));
        cards.registerSplit(shares);

        shares[0] = Share(address(1), 4_999);
        vm.expectRevert(abi.encodeWithSelector(Splits.SplitInvalid.selector, 2, 9_999));
        cards.registerSplit(shares);

        vm.expectRevert(abi.encodeWithSelector(Splits.SplitInvalid.selector, 17, 0));
        cards.registerSplit(new Share[](17));
    }

    // ----------------------------------------------------------------------------------------- signatures

    function testFuzz_a_signature_is_its_signers_alone(uint128 key, bytes32 digest, bytes32 other) external view {
        vm.assume(key > 0 && digest != other);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        bytes memory signature = abi.encodePacked(r, s, v);
        assertTrue(this.isBy(vm.addr(key), digest, signature), "signer");
        assertTrue(!this.isBy(vm.addr(key), other, signature), "digest");
        assertTrue(!this.isBy(vm.addr(uint256(key) + 1), digest, signature), "another");
    }

    function test_an_account_with_code_still_signs_with_its_key() external {
        address account = vm.addr(11);
        vm.etch(account, type(RefusingWallet).runtimeCode); // as EIP-7702 gives it
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(11, keccak256("digest"));
        assertTrue(this.isBy(account, keccak256("digest"), abi.encodePacked(r, s, v)), "key");
    }

    function test_contract_wallets_are_asked_and_cannot_do_harm() external {
        assertTrue(this.isBy(address(new AgreeingWallet()), 0, ""), "agreeing");
        assertTrue(!this.isBy(address(new RefusingWallet()), 0, ""), "refusing");
        assertTrue(!this.isBy(address(new ShortWallet()), 0, ""), "short");
        assertTrue(!this.isBy(address(0xdead), 0, ""), "no code");

        address bomb = address(new BombWallet());
        uint256 before = gasleft();
        assertTrue(!this.isBy(bomb, 0, ""), "bomb");
        assertTrue(before - gasleft() < 200_000, "the bomb's answer was read");

        address burner = address(new BurningWallet());
        before = gasleft();
        assertTrue(!this.isBy(burner, 0, ""), "burning");
        assertTrue(before - gasleft() < 200_000, "the cap on gas did not hold");
    }

    // ------------------------------------------------------------------------------------------- usage log

    function testFuzz_a_tree_extends_itself_and_the_empty_one_only(
        uint64 size,
        bytes32 root,
        bytes32 other
    ) external view {
        vm.assume(size > 0 && root != other);
        bytes32[] memory none = new bytes32[](0);
        assertTrue(this.extends(size, root, size, root, none), "itself");
        assertTrue(this.extends(0, other, size, root, none), "empty");
        assertTrue(!this.extends(size, other, size, root, none), "another root");
        assertTrue(!this.extends(size, root, 0, other, none), "shrinks");
        assertTrue(!this.extends(0, other, size, root, new bytes32[](1)), "a proof of nothing");
    }

    function twoTiers(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2
    ) private returns (bytes memory) {
        RateCard memory card = RateCard(address(1), 6, new Meter[](1));
        card.meters[0] = Meter(scale, free, new Tier[](2));
        card.meters[0].tiers[0] = Tier(bound, price1);
        card.meters[0].tiers[1] = Tier(type(uint64).max, price2);
        return cards.read(cards.registerRateCard(card));
    }
}
