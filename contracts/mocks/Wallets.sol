// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title A contract wallet that says yes to every signature
contract AgreeingWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0x1626ba7e;
    }
}

/// @title A contract wallet that says no
contract RefusingWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0xffffffff;
    }
}

/// @title A contract wallet that burns all the gas it is given
contract BurningWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        while (true) {}
        return 0x1626ba7e;
    }
}

/// @title A contract wallet whose answer is half a megabyte
contract BombWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        assembly ("memory-safe") {
            mstore(0, shl(224, 0xffffffff))
            return(0, 500000)
        }
    }
}

/// @title A contract wallet that answers with fewer than 32 bytes
contract ShortWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        assembly ("memory-safe") {
            mstore(0, shl(224, 0x1626ba7e))
            return(0, 4)
        }
    }
}

/// @title A contract wallet that says yes until it changes its mind
contract FickleWallet {
    bool private refusing;

    function changeMind() external {
        refusing = !refusing;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        return refusing ? bytes4(0xffffffff) : bytes4(0x1626ba7e);
    }
}

/// @title A contract wallet that says no at length: 200,000 bytes, which 150,000 gas can pay for
contract LongWindedWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        assembly ("memory-safe") {
            mstore(0, shl(224, 0xffffffff))
            return(0, 200000)
        }
    }
}
