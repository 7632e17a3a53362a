// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Bytes kept as the code of a contract, found again by their hash
/// @dev Reading code is cheaper than reading storage, and CREATE2 makes the address follow from the content: a
/// reader needs neither a mapping nor a call to know where the bytes are, or that they were never registered.
library CodeStore {
    /// @dev Returns everything after these 11 bytes as the new contract's code.
    bytes11 internal constant COPY_REST = 0x600b5981380380925939f3;

    /// @notice The id of some bytes: the Keccak-256 of the creation code that stores them.
    function idOf(bytes memory data) internal pure returns (bytes32) {
        return keccak256(creationCode(data));
    }

    /// @notice Stores `data` under its id; storing the same again changes nothing.
    function write(bytes memory data) internal returns (bytes32 id) {
        bytes memory code = creationCode(data);
        id = keccak256(code);
        if (pointerOf(address(this), id).code.length > 0) return id;
        address pointer;
        // Memory-safe: reads `code` only.
        assembly ("memory-safe") {
            pointer := create2(0, add(code, 0x20), mload(code), 0)
        }
        assert(pointer == pointerOf(address(this), id));
    }

    /// @notice What `store` keeps under `id`; empty if nothing.
    function read(address store, bytes32 id) internal view returns (bytes memory data) {
        address pointer = pointerOf(store, id);
        uint256 size = pointer.code.length;
        if (size < 2) return "";
        // Memory-safe: allocates `data` at the free pointer and moves the pointer past it, in whole words.
        // The first byte is the STOP that keeps the stored bytes from being run.
        assembly ("memory-safe") {
            size := sub(size, 1)
            data := mload(0x40)
            mstore(0x40, and(add(add(data, size), 0x3f), not(0x1f)))
            mstore(data, size)
            extcodecopy(pointer, add(data, 0x20), 1, size)
        }
    }

    function creationCode(bytes memory data) private pure returns (bytes memory) {
        return bytes.concat(COPY_REST, bytes1(0x00), data);
    }

    /// @dev EIP-1014 with salt 0.
    function pointerOf(address store, bytes32 id) private pure returns (address pointer) {
        // Memory-safe: 85 bytes past the free pointer, which nothing has claimed.
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, shl(88, or(store, shl(160, 0xff)))) // 0xff ‖ store
            mstore(add(p, 21), 0)
            mstore(add(p, 53), id)
            pointer := and(keccak256(p, 85), 0xffffffffffffffffffffffffffffffffffffffff)
        }
    }
}
