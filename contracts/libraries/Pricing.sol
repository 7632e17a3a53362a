// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Units up to and including `upTo` cost `price` per `unitScale` units.
struct Tier {
    uint64 upTo;
    uint128 price; // smallest token units
}

struct Meter {
    uint64 unitScale; // units one price stands for; not zero
    uint64 freeUnits; // not charged, before the first tier
    Tier[] tiers; // 1 to 8; upTo strictly rising, the last 2^64 - 1
}

struct RateCard {
    address token; // ERC-20; in invoiced mode the ISO 4217 code, right-aligned
    uint8 decimals;
    Meter[] meters; // 1 to 4
}

/// @title A rate card as bytes, and the price of units under it
/// @dev Layout: 0x01 ‖ token 20 ‖ decimals 1 ‖ meters 1 ‖ { unitScale 8 ‖ freeUnits 8 ‖ tiers 1 ‖ { upTo 8 ‖ price 16 } }.
/// The same bytes as ledger/core/ratecard.py; tests/vectors/ratecard.json holds both to it.
library Pricing {
    uint256 internal constant MAX_METERS = 4;
    uint256 internal constant MAX_TIERS = 8;

    /// @notice The rate card breaks a rule; `meter` and `tier` say where.
    error RateCardInvalid(uint256 meter, uint256 tier);

    function encode(RateCard calldata card) internal pure returns (bytes memory encoded) {
        uint256 count = card.meters.length;
        require(count > 0 && count <= MAX_METERS, RateCardInvalid(count, 0));
        encoded = abi.encodePacked(bytes1(0x01), card.token, card.decimals, uint8(count));
        for (uint256 m = 0; m < count; ++m) {
            Meter calldata meter = card.meters[m];
            uint256 tiers = meter.tiers.length;
            require(meter.unitScale > 0 && tiers > 0 && tiers <= MAX_TIERS, RateCardInvalid(m, tiers));
            encoded = abi.encodePacked(encoded, meter.unitScale, meter.freeUnits, uint8(tiers));
            for (uint256 t = 0; t < tiers; ++t) {
                bool last = t + 1 == tiers;
                uint64 upTo = meter.tiers[t].upTo;
                require(upTo > (t == 0 ? 0 : meter.tiers[t - 1].upTo), RateCardInvalid(m, t));
                require((upTo == type(uint64).max) == last, RateCardInvalid(m, t));
                encoded = abi.encodePacked(encoded, upTo, meter.tiers[t].price);
            }
        }
    }

    function meterCount(bytes memory card) internal pure returns (uint256) {
        return read(card, 22, 1);
    }

    function token(bytes memory card) internal pure returns (address) {
        return address(uint160(read(card, 1, 20)));
    }

    /// @notice C(units): graduated price of the lifetime totals, floored once per meter. In token units.
    /// @dev Units on a meter the card does not have are not priced: opening refuses a quota for them.
    /// Unchecked: a tier costs less than 2^64 · 2^128 and there are at most 32; units are taken away only where they are
    /// not more than what is left; tiers rise strictly, and a scale is never zero (`encode` sees to both).
    function price(bytes memory card, uint64[4] calldata units) internal pure returns (uint256 total) {
        unchecked {
            uint256 meters = meterCount(card);
            uint256 offset = 23;
            for (uint256 m = 0; m < meters; ++m) {
                uint256 used;
                // Memory-safe: reads the m-th of four words; m < 4. Refuses bits beyond 64, as the compiler would.
                assembly ("memory-safe") {
                    used := calldataload(add(units, shl(5, m)))
                    if shr(64, used) {
                        revert(0, 0)
                    }
                }
                uint256 meter = read(card, offset, 17); // unitScale 8 ‖ freeUnits 8 ‖ tiers 1
                uint256 tierAt = offset + 17;
                offset = tierAt + (meter & 0xff) * 24;
                uint256 free = (meter >> 8) & type(uint64).max;
                if (used <= free) continue;
                uint256 left = used - free;
                uint256 from = 0;
                uint256 cost = 0;
                while (left > 0) {
                    uint256 tier = read(card, tierAt, 24); // upTo 8 ‖ price 16
                    uint256 upTo = tier >> 128;
                    uint256 inTier = upTo - from;
                    if (left < inTier) inTier = left;
                    cost += inTier * (tier & type(uint128).max);
                    left -= inTier;
                    from = upTo;
                    tierAt += 24;
                }
                total += cost / (meter >> 72);
            }
        }
    }

    /// @notice The first tier whose price is above the ceiling of its meter; ceilings are token units per million units,
    /// zero for none.
    function tierAbove(
        bytes memory card,
        uint128[4] memory ceilings
    ) internal pure returns (bool found, uint256 meter, uint256 tier) {
        uint256 meters = meterCount(card);
        uint256 offset = 23;
        for (uint256 m = 0; m < meters; ++m) {
            uint256 unitScale = read(card, offset, 8);
            uint256 tiers = read(card, offset + 16, 1);
            offset += 17;
            for (uint256 t = 0; t < tiers; ++t) {
                uint256 tierPrice = read(card, offset + t * 24 + 8, 16);
                if (ceilings[m] != 0 && tierPrice * 1e6 > ceilings[m] * unitScale) return (true, m, t);
            }
            offset += tiers * 24;
        }
    }

    /// @notice Big-endian integer of `size` bytes at `offset`.
    function read(bytes memory data, uint256 offset, uint256 size) internal pure returns (uint256 value) {
        // Memory-safe: reads only. The caller stays inside `data`, whose layout `encode` wrote.
        assembly ("memory-safe") {
            value := shr(sub(256, shl(3, size)), mload(add(add(data, 0x20), offset)))
        }
    }
}
