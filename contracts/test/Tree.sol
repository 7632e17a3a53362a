// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title RFC 9162 trees by their recursive definitions (section 2.1), for tests
/// @dev Slow on purpose: it shares nothing with the verifying code but SHA-256.
library Tree {
    function root(bytes32[] memory leaves, uint256 from, uint256 to) internal pure returns (bytes32) {
        if (to == from) return sha256("");
        if (to - from == 1) return leaves[from];
        uint256 middle = from + split(to - from);
        return sha256(abi.encodePacked(bytes1(0x01), root(leaves, from, middle), root(leaves, middle, to)));
    }

    function root(bytes32[] memory leaves, uint256 size) internal pure returns (bytes32) {
        return root(leaves, 0, size);
    }

    /// @dev PATH(m, D[n]), section 2.1.3.1.
    function inclusion(
        bytes32[] memory leaves,
        uint256 index,
        uint256 size
    ) internal pure returns (bytes32[] memory path) {
        path = inclusion(leaves, index, 0, size);
    }

    function inclusion(
        bytes32[] memory leaves,
        uint256 index,
        uint256 from,
        uint256 to
    ) private pure returns (bytes32[] memory) {
        if (to - from == 1) return new bytes32[](0);
        uint256 middle = from + split(to - from);
        return
            index < middle
                ? append(inclusion(leaves, index, from, middle), root(leaves, middle, to))
                : append(inclusion(leaves, index, middle, to), root(leaves, from, middle));
    }

    /// @dev PROOF(m, D[n]), section 2.1.4.1.
    function consistency(
        bytes32[] memory leaves,
        uint256 first,
        uint256 second
    ) internal pure returns (bytes32[] memory) {
        if (first == 0 || first == second) return new bytes32[](0);
        return subproof(leaves, first, 0, second, true);
    }

    function subproof(
        bytes32[] memory leaves,
        uint256 first,
        uint256 from,
        uint256 to,
        bool whole
    ) private pure returns (bytes32[] memory) {
        uint256 size = to - from;
        if (first == size) {
            bytes32[] memory none = new bytes32[](0);
            return whole ? none : append(none, root(leaves, from, to));
        }
        uint256 k = split(size);
        return
            first <= k
                ? append(subproof(leaves, first, from, from + k, whole), root(leaves, from + k, to))
                : append(subproof(leaves, first - k, from + k, to, false), root(leaves, from, from + k));
    }

    /// @dev The largest power of two smaller than `size`.
    function split(uint256 size) private pure returns (uint256 k) {
        k = 1;
        while (k * 2 < size) k *= 2;
    }

    function append(bytes32[] memory path, bytes32 last) private pure returns (bytes32[] memory longer) {
        longer = new bytes32[](path.length + 1);
        for (uint256 i = 0; i < path.length; ++i) longer[i] = path[i];
        longer[path.length] = last;
    }
}
