// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Did this wallet sign this digest?
/// @dev ECDSA first: an account with EIP-7702 code still signs with its key. Then EIP-1271, with a cap on gas and
/// on what is read back, so that a wallet can neither burn the caller's gas nor return a bomb.
library Signatures {
    uint256 internal constant WALLET_GAS = 150_000;
    bytes4 internal constant MAGIC = 0x1626ba7e; // EIP-1271

    /// @notice True if `wallet` signed `digest`. Never reverts for what the signature or the wallet does.
    function isBy(address wallet, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        address signer = signerOf(digest, signature);
        return (signer == wallet && signer != address(0)) || isAgreedBy(wallet, digest, signature);
    }

    /// @notice The key that signed `digest`; the zero address if the signature is no key's.
    /// @dev 65 bytes with low s only (EIP-2), so a signature has one form.
    function signerOf(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        ECDSA.RecoverError problem;
        (signer, problem, ) = ECDSA.tryRecoverCalldata(digest, signature);
        if (problem != ECDSA.RecoverError.NoError) return address(0);
    }

    /// @notice True if `wallet` is a contract that calls the signature its own (EIP-1271).
    function isAgreedBy(address wallet, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        if (wallet.code.length == 0) return false;

        bytes memory question = abi.encodeWithSelector(MAGIC, digest, signature);
        bool answered;
        bytes32 answer;
        // Memory-safe: reads `question`, writes only the scratch word 0, and never more than 32 bytes of it.
        assembly ("memory-safe") {
            answered := staticcall(WALLET_GAS, wallet, add(question, 0x20), mload(question), 0, 0x20)
            answered := and(answered, gt(returndatasize(), 0x1f))
            answer := mload(0)
        }
        return answered && answer == bytes32(MAGIC);
    }
}
