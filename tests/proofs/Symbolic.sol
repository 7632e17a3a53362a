// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RateCards} from "../../contracts/RateCards.sol";
import {UsageLedger} from "../../contracts/UsageLedger.sol";
import {IAdmission} from "../../contracts/interfaces/IAdmission.sol";
import {IAuthorizations} from "../../contracts/interfaces/IAuthorizations.sol";
import {ISessionKeys} from "../../contracts/interfaces/ISessionKeys.sol";
import {Meter, Pricing, RateCard, Tier} from "../../contracts/libraries/Pricing.sol";
import {Share} from "../../contracts/libraries/Splits.sol";
import {CompactTerms, Head, Terms} from "../../contracts/libraries/Terms.sol";
import {Test} from "../../contracts/test/Vm.sol";

/// @notice The cheat code of halmos that makes a contract's storage arbitrary.
// solhint-disable-next-line interface-starts-with-i
interface SVM {
    function enableSymbolicStorage(address account) external;
}

/// @title What a rate card costs, for every card of two tiers that can be registered
/// @dev A check_ function is proved by halmos for all of its arguments: see prove.py. A path that reverts is left out,
/// so `encode` also says which cards there are.
contract SymbolicPrice is Test {
    function encode(RateCard calldata card) external pure returns (bytes memory) {
        return Pricing.encode(card);
    }

    function priceOf(bytes memory card, uint64[4] calldata units) external pure returns (uint256) {
        return Pricing.price(card, units);
    }

    function check_price_is_the_formula(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2,
        uint64 units
    ) external view {
        uint256 found = this.priceOf(cardOf(scale, free, bound, price1, price2), [units, 0, 0, 0]);
        assert(found == formula(scale, free, bound, price1, price2, units));
    }

    function check_price_is_zero_within_the_free_units(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2,
        uint64 units
    ) external view {
        vm.assume(units <= free);
        assert(this.priceOf(cardOf(scale, free, bound, price1, price2), [units, 0, 0, 0]) == 0);
    }

    function check_price_never_falls_with_units(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2,
        uint64 less,
        uint64 more
    ) external view {
        vm.assume(less <= more);
        bytes memory card = cardOf(scale, free, bound, price1, price2);
        assert(this.priceOf(card, [less, 0, 0, 0]) <= this.priceOf(card, [more, 0, 0, 0]));
    }

    /// @dev The first meter has two tiers and the second one.
    function check_price_of_two_meters_is_the_sum(
        uint64[3] calldata first,
        uint128[2] calldata prices,
        uint64 scale,
        uint64 free,
        uint128 price,
        uint64[2] calldata units
    ) external view {
        RateCard memory card = RateCard(address(1), 6, new Meter[](2));
        card.meters[0] = twoTiers(first[0], first[1], first[2], prices[0], prices[1]);
        card.meters[1] = Meter(scale, free, new Tier[](1));
        card.meters[1].tiers[0] = Tier(type(uint64).max, price);
        uint256 found = this.priceOf(this.encode(card), [units[0], units[1], 0, 0]);
        unchecked {
            assert(
                found ==
                    formula(first[0], first[1], first[2], prices[0], prices[1], units[0]) +
                        formula(scale, free, type(uint64).max, price, 0, units[1])
            );
        }
    }

    /// @dev Unchecked: 2^64 · 2^128 · 2 is less than 2^256.
    function formula(
        uint256 scale,
        uint256 free,
        uint256 bound,
        uint256 price1,
        uint256 price2,
        uint256 units
    ) private pure returns (uint256) {
        unchecked {
            uint256 left = units > free ? units - free : 0;
            return (left > bound ? bound * price1 + (left - bound) * price2 : left * price1) / scale;
        }
    }

    function cardOf(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2
    ) private view returns (bytes memory) {
        RateCard memory card = RateCard(address(1), 6, new Meter[](1));
        card.meters[0] = twoTiers(scale, free, bound, price1, price2);
        return this.encode(card);
    }

    function twoTiers(
        uint64 scale,
        uint64 free,
        uint64 bound,
        uint128 price1,
        uint128 price2
    ) private pure returns (Meter memory meter) {
        meter = Meter(scale, free, new Tier[](2));
        meter.tiers[0] = Tier(bound, price1);
        meter.tiers[1] = Tier(type(uint64).max, price2);
    }
}

/// @title The escrow ledger with its inner steps made callable
contract OpenLedger is UsageLedger {
    using Terms for CompactTerms;
    using Terms for Head;

    constructor(IAdmission admission) UsageLedger(admission, ISessionKeys(address(0)), address(0)) {}

    function put(bytes32 id, uint96 amount, uint96 paid) external {
        records[id].amount = amount;
        records[id].paid = paid;
        records[id].status = Status.OPEN;
    }

    function putHead(bytes32 id, Head calldata head) external {
        records[id].headDigest = _hashTypedDataV4(head.hash(id));
    }

    function amountsOf(bytes32 id) external view returns (uint96 amount, uint96 paid) {
        return (records[id].amount, records[id].paid);
    }

    function statusAt(bytes32 id) external view returns (Status) {
        return records[id].status;
    }

    function idOfCompact(CompactTerms calldata terms) external view returns (bytes32) {
        return _hashTypedDataV4(terms.hash());
    }

    /// @dev Writes back what `settle` writes back.
    function pay(bytes32 id, CompactTerms calldata terms, uint256 due) external {
        Record storage record = records[id];
        (uint256 amount, uint256 paid) = _pay(record, terms, due);
        record.amount = uint96(amount);
        record.paid = uint96(paid);
    }

    function payFinally(bytes32 id, CompactTerms calldata terms, uint128 finalPaid, uint256 due) external {
        _payFinally(id, records[id], terms, finalPaid, due);
    }

    function release(bytes32 id, CompactTerms calldata terms) external returns (uint128) {
        return _release(id, records[id], terms);
    }
}

/// @dev The admission whose rate cards the ledger reads, and the token it holds.
abstract contract LedgerWorld is Test {
    address internal constant PROVIDER = address(0xb0);
    address internal constant CONSUMER = address(0xc0);

    RateCards internal cards;
    OpenLedger internal ledger;
    CompactTerms internal terms;
    bytes32 internal id;

    function setUp() public virtual {
        cards = new RateCards();
        ledger = new OpenLedger(IAdmission(address(this)));
        terms.provider = PROVIDER;
        terms.consumer = CONSUMER;
        terms.token = address(this);
        terms.split = keccak256("split");
        terms.thawSeconds = 100;
        id = ledger.idOfCompact(terms);
    }

    function rateCards() external view returns (address) {
        return address(cards);
    }

    function transfer(address, uint256) external pure returns (bool) {
        return true;
    }

    function freeOf(address owner) internal view returns (uint256) {
        return ledger.freeOf(owner, terms.token);
    }

    function accrued() internal view returns (uint256) {
        return ledger.accruedOf(terms.split, terms.token);
    }
}

/// @title Where the ledger's money goes, from every state in which no more is paid than is reserved
contract SymbolicLedger is LedgerWorld {
    // solhint-disable-next-line const-name-snakecase
    SVM private constant svm = SVM(address(uint160(uint256(keccak256("svm cheat code")))));

    function setUp() public override {
        super.setUp();
        RateCard memory card = RateCard(address(1), 6, new Meter[](1));
        card.meters[0] = Meter(1_000, 0, new Tier[](1));
        card.meters[0].tiers[0] = Tier(type(uint64).max, 7);
        terms.rateCard = cards.registerRateCard(card);
        id = ledger.idOfCompact(terms);
    }

    function check_pay(uint96 reserved, uint96 paid, uint256 due) external {
        begin(reserved, paid);
        uint256 accruedBefore = accrued();

        ledger.pay(id, terms, due);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        assert(reservedAfter == reserved && paidAfter >= paid && paidAfter <= reserved);
        assert(paidAfter == paidUnder(due, paid, reserved));
        assert(accrued() - accruedBefore == paidAfter - paid);
    }

    function check_pay_finally(uint96 reserved, uint96 paid, uint128 finalPaid, uint256 due) external {
        begin(reserved, paid);
        uint256 accruedBefore = accrued();

        ledger.payFinally(id, terms, finalPaid, due);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        assert(reservedAfter == reserved && paidAfter == finalPaid);
        assert(paidAfter >= paid && paidAfter <= paidUnder(due, paid, reserved));
        assert(accrued() - accruedBefore == paidAfter - paid);
    }

    function check_release(uint96 reserved, uint96 paid) external {
        begin(reserved, paid);
        uint256 before = freeOf(CONSUMER);

        uint128 released = ledger.release(id, terms);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        assert(released == reserved - paid && reservedAfter == paid && paidAfter == paid);
        assert(freeOf(CONSUMER) - before == released);
    }

    function check_finalize(uint96 reserved, uint96 paid) external {
        begin(reserved, paid);
        uint256 before = freeOf(CONSUMER);

        ledger.finalize(terms);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        assert(reservedAfter == paid && paidAfter == paid);
        assert(freeOf(CONSUMER) - before == reserved - paid);
        assert(ledger.statusAt(id) == IAuthorizations.Status.CLOSED);
    }

    /// @dev A settlement comes between thaw and release.
    function check_thaw_and_release(uint96 reserved, uint96 paid, uint128 amount, uint256 due, uint40 later) external {
        begin(reserved, paid);
        uint256 before = freeOf(CONSUMER);
        uint256 thawEnd = block.timestamp + terms.thawSeconds;

        vm.prank(CONSUMER);
        ledger.thaw(terms, amount);
        ledger.pay(id, terms, due);
        vm.warp(later);
        ledger.releaseThawed(terms);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        uint256 released = freeOf(CONSUMER) - before;
        assert(later >= thawEnd && released > 0 && released <= amount);
        assert(reservedAfter + released == reserved);
        assert(paidAfter == paidUnder(due, paid, reserved) && paidAfter <= reservedAfter);
    }

    function check_refund(uint96 reserved, uint96 paid, uint128 amount) external {
        begin(reserved, paid);
        uint256 providers = freeOf(PROVIDER);
        uint256 consumers = freeOf(CONSUMER);

        vm.prank(PROVIDER);
        ledger.refund(terms, amount);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        assert(reservedAfter == reserved && paidAfter == paid);
        assert(providers - freeOf(PROVIDER) == amount && freeOf(CONSUMER) - consumers == amount);
        assert(ledger.reservationOf(id).refunded <= paid);
    }

    /// @dev Somebody else's money; what is due follows from the settled head and the card.
    function check_top_up(uint96 reserved, uint96 paid, uint128 amount, uint64 units, uint128 credits) external {
        begin(reserved, paid);
        Head memory head = Head(1, [units, 0, 0, 0], credits, 0, keccak256("root"));
        ledger.putHead(id, head);
        uint256 price = (uint256(units) * 7) / 1_000;
        uint256 due = price > credits ? price - credits : 0;
        uint256 before = freeOf(PROVIDER);
        uint256 accruedBefore = accrued();

        vm.prank(PROVIDER);
        ledger.topUp(terms, head, amount);

        (uint96 reservedAfter, uint96 paidAfter) = ledger.amountsOf(id);
        assert(before - freeOf(PROVIDER) == amount && reservedAfter - reserved == amount);
        assert(paidAfter == paidUnder(due, paid, reservedAfter));
        assert(accrued() - accruedBefore == paidAfter - paid);
        assert(ledger.reservationOf(id).thawing <= reserved - paid);
    }

    /// @dev All else in the ledger is arbitrary.
    function begin(uint96 reserved, uint96 paid) private {
        vm.assume(paid <= reserved);
        svm.enableSymbolicStorage(address(ledger));
        ledger.put(id, reserved, paid);
        vm.warp(1_000);
    }

    /// @dev min(max(due, paid), reserved)
    function paidUnder(uint256 due, uint256 paid, uint256 reserved) private pure returns (uint256) {
        uint256 most = due > paid ? due : paid;
        return most < reserved ? most : reserved;
    }
}

/// @title What three payees get, for every split between them
contract SymbolicSplit is LedgerWorld {
    function check_shares(uint16 a, uint16 b, uint16 c, uint96 amount) external {
        begin(a, b, c);
        earn(amount);

        uint256 sum = shareOf(1) + shareOf(2) + shareOf(3);
        assert(sum <= amount);
        assert(amount - sum < 3);
    }

    /// @dev Rounding does not add up: a payee that takes its share in between gets what it would have got at the end.
    function check_shares_taken_in_between(uint16 a, uint16 b, uint16 c, uint64 first, uint64 second) external {
        begin(a, b, c);
        earn(first);
        uint256 taken = ledger.payShare(terms.split, terms.token, address(1));
        earn(uint96(first) + second);

        uint256 sum = taken + shareOf(1) + shareOf(2) + shareOf(3);
        uint256 amount = uint256(first) + second;
        assert(sum <= amount);
        assert(amount - sum < 3);
    }

    function begin(uint16 a, uint16 b, uint16 c) private {
        Share[] memory shares = new Share[](3);
        shares[0] = Share(address(1), a);
        shares[1] = Share(address(2), b);
        shares[2] = Share(address(3), c);
        terms.split = cards.registerSplit(shares);
        ledger.put(id, type(uint96).max, 0);
    }

    function earn(uint96 due) private {
        ledger.pay(id, terms, due);
    }

    function shareOf(uint160 payee) private view returns (uint256) {
        return ledger.shareOf(terms.split, terms.token, address(payee));
    }
}
