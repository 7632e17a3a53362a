// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice One entry of a usage log, decoded.
struct UsageLeaf {
    bytes32 authorizationId;
    uint64 index;
    bytes32 useIdHash;
    uint64[4] units;
    uint64[4] cumUnits; // this leaf included
    uint128 cumCredits; // this leaf included
    uint40 eventTime;
    uint40 servedAt;
    uint8 kind; // 0 use, 1 credit, 2 period fee, 3 note, 4 refusal
    uint8 purpose;
    uint8 modality;
    bytes32 version;
    bytes32 payloadHash;
}

/// @title The usage log: an RFC 9162 Merkle tree over SHA-256
/// @dev The same bytes as ledger/core/usage_leaf.py and merkle.py; tests/vectors/usage_log.json holds both to it.
library UsageLog {
    uint256 internal constant LEAF_BYTES = 229;

    /// @notice The bytes are no leaf: there must be 229.
    error LeafMalformed(uint256 length);

    /// @notice Leaf hash, RFC 9162 section 2.1.1: SHA-256(0x00 ‖ leaf), 230 bytes in all.
    function hash(bytes calldata leaf) internal pure returns (bytes32) {
        require(isWellFormed(leaf), LeafMalformed(leaf.length));
        return hashOfAny(leaf);
    }

    /// @notice The same for an entry of any length: a log that holds one is bad, and that must be provable.
    function hashOfAny(bytes calldata entry) internal pure returns (bytes32) {
        return sha256(bytes.concat(bytes1(0x00), entry));
    }

    function isWellFormed(bytes calldata leaf) internal pure returns (bool) {
        return leaf.length == LEAF_BYTES;
    }

    /// @notice The authorization a leaf says it is of, and the index it says it has.
    function placeOf(bytes calldata leaf) internal pure returns (bytes32 authorizationId, uint64 index) {
        require(isWellFormed(leaf), LeafMalformed(leaf.length));
        return (bytes32(leaf[0:32]), uint64(bytes8(leaf[32:40])));
    }

    function decode(bytes calldata leaf) internal pure returns (UsageLeaf memory decoded) {
        (decoded.authorizationId, decoded.index) = placeOf(leaf);
        decoded.useIdHash = bytes32(leaf[40:72]);
        for (uint256 m = 0; m < 4; ++m) {
            decoded.units[m] = uint64(bytes8(leaf[72 + 8 * m:80 + 8 * m]));
            decoded.cumUnits[m] = uint64(bytes8(leaf[104 + 8 * m:112 + 8 * m]));
        }
        decoded.cumCredits = uint128(bytes16(leaf[136:152]));
        decoded.eventTime = uint40(bytes5(leaf[152:157]));
        decoded.servedAt = uint40(bytes5(leaf[157:162]));
        decoded.kind = uint8(leaf[162]);
        decoded.purpose = uint8(leaf[163]);
        decoded.modality = uint8(leaf[164]);
        decoded.version = bytes32(leaf[165:197]);
        decoded.payloadHash = bytes32(leaf[197:229]);
    }

    /// @notice Node hash, RFC 9162 section 2.1.1: SHA-256(0x01 ‖ left ‖ right).
    function node(bytes32 left, bytes32 right) internal view returns (bytes32 result) {
        // Memory-safe: writes 65 bytes past the free pointer, which nothing has claimed, and the scratch word 0.
        // The precompile cannot fail on 65 bytes but for want of gas, and then the whole call fails with it.
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore8(p, 1)
            mstore(add(p, 1), left)
            mstore(add(p, 33), right)
            if iszero(staticcall(gas(), 2, p, 65, 0, 32)) {
                revert(0, 0)
            }
            result := mload(0)
        }
    }

    /// @notice RFC 9162 section 2.1.3.2: is the leaf at `index` in the tree of `size` leaves?
    function includes(
        bytes32 root,
        uint64 size,
        uint64 index,
        bytes32 leafHash,
        bytes32[] calldata proof
    ) internal view returns (bool) {
        if (index >= size) return false;
        uint256 fn = index;
        uint256 sn = size - 1;
        bytes32 r = leafHash;

        // Unchecked: `i` is bounded by the length of call data.
        unchecked {
            for (uint256 i = 0; i < proof.length; ++i) {
                if (sn == 0) return false;
                if (fn & 1 == 1 || fn == sn) {
                    r = node(proof[i], r);
                    while (fn & 1 == 0 && fn != 0) {
                        fn >>= 1;
                        sn >>= 1;
                    }
                } else {
                    r = node(r, proof[i]);
                }
                fn >>= 1;
                sn >>= 1;
            }
        }

        return sn == 0 && r == root;
    }

    /// @notice RFC 9162 section 2.1.4.2: does the tree (size2, root2) extend the tree (size1, root1)?
    /// @dev Every tree extends the empty one.
    function extends(
        uint64 size1,
        bytes32 root1,
        uint64 size2,
        bytes32 root2,
        bytes32[] calldata proof
    ) internal view returns (bool) {
        if (size1 > size2) return false;
        if (size1 == size2) return root1 == root2 && proof.length == 0;
        if (size1 == 0) return proof.length == 0;

        // A first tree of 2^k leaves is itself a node of the second: the proof leaves it out.
        bool whole = size1 & (size1 - 1) == 0;
        if (proof.length == 0) return false;
        uint256 fn = size1 - 1;
        uint256 sn = size2 - 1;
        while (fn & 1 == 1) {
            fn >>= 1;
            sn >>= 1;
        }
        bytes32 fr = whole ? root1 : proof[0];
        bytes32 sr = fr;

        // Unchecked: `i` is bounded by the length of call data.
        unchecked {
            for (uint256 i = whole ? 0 : 1; i < proof.length; ++i) {
                if (sn == 0) return false;
                if (fn & 1 == 1 || fn == sn) {
                    fr = node(proof[i], fr);
                    sr = node(proof[i], sr);
                    while (fn & 1 == 0 && fn != 0) {
                        fn >>= 1;
                        sn >>= 1;
                    }
                } else {
                    sr = node(sr, proof[i]);
                }
                fn >>= 1;
                sn >>= 1;
            }
        }

        return sn == 0 && fr == root1 && sr == root2;
    }
}
