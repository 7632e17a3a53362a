// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice One entry of a usage log. `authorizationId` and `index` complete it.
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
    /// @notice Leaf hash, RFC 9162 section 2.1.1: SHA-256(0x00 ‖ leaf), 230 bytes in all.
    function hash(UsageLeaf calldata leaf) internal view returns (bytes32 result) {
        // Memory-safe: writes 255 bytes past the free pointer, which nothing has claimed, and the scratch word 0. Each
        // store puts a field at the left of a word and the next one overwrites what is too much. The precompile cannot
        // fail on 230 bytes but for want of gas, and then the whole call fails with it.
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore8(p, 0)
            calldatacopy(add(p, 1), leaf, 32) // authorizationId
            mstore(add(p, 33), shl(192, calldataload(add(leaf, 0x20)))) // index
            calldatacopy(add(p, 41), add(leaf, 0x40), 32) // useIdHash
            mstore(add(p, 73), shl(192, calldataload(add(leaf, 0x60)))) // units
            mstore(add(p, 81), shl(192, calldataload(add(leaf, 0x80))))
            mstore(add(p, 89), shl(192, calldataload(add(leaf, 0xa0))))
            mstore(add(p, 97), shl(192, calldataload(add(leaf, 0xc0))))
            mstore(add(p, 105), shl(192, calldataload(add(leaf, 0xe0)))) // cumUnits
            mstore(add(p, 113), shl(192, calldataload(add(leaf, 0x100))))
            mstore(add(p, 121), shl(192, calldataload(add(leaf, 0x120))))
            mstore(add(p, 129), shl(192, calldataload(add(leaf, 0x140))))
            mstore(add(p, 137), shl(128, calldataload(add(leaf, 0x160)))) // cumCredits
            mstore(add(p, 153), shl(216, calldataload(add(leaf, 0x180)))) // eventTime
            mstore(add(p, 158), shl(216, calldataload(add(leaf, 0x1a0)))) // servedAt
            mstore8(add(p, 163), calldataload(add(leaf, 0x1c0))) // kind
            mstore8(add(p, 164), calldataload(add(leaf, 0x1e0))) // purpose
            mstore8(add(p, 165), calldataload(add(leaf, 0x200))) // modality
            calldatacopy(add(p, 166), add(leaf, 0x220), 64) // version, payloadHash
            if iszero(staticcall(gas(), 2, p, 230, 0, 32)) {
                revert(0, 0)
            }
            result := mload(0)
        }
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
        uint64 fn = index;
        uint64 sn = size - 1;
        bytes32 r = leafHash;

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
        uint64 fn = size1 - 1;
        uint64 sn = size2 - 1;
        while (fn & 1 == 1) {
            fn >>= 1;
            sn >>= 1;
        }
        bytes32 fr = whole ? root1 : proof[0];
        bytes32 sr = fr;

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

        return sn == 0 && fr == root1 && sr == root2;
    }
}
