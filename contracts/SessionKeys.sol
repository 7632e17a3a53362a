// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

import {ISessionKeys} from "./interfaces/ISessionKeys.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {Terms} from "./libraries/Terms.sol";

/// @title Session keys
/// @notice The manual is ISessionKeys.
contract SessionKeys is ISessionKeys, ERC2771Context, EIP712, ERC165 {
    bytes32 private constant SESSION_KEY_TYPEHASH = keccak256(
        "SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)"
    );
    /// @dev Not shorter than any thaw, so that whoever holds a head has the whole window to settle it.
    uint256 private constant KEY_THAW = 30 days;

    mapping(address wallet => mapping(address key => SessionKey)) private keys;

    constructor(address forwarder) ERC2771Context(forwarder) EIP712("Sluice", "1") {}

    /// @inheritdoc ISessionKeys
    function registerSessionKey(address key, uint40 expiry, uint128 maxDue, bytes calldata possession) external {
        address wallet = _msgSender();
        require(key != wallet && expiry > block.timestamp && maxDue > 0, SessionKeyInvalid(key, expiry, maxDue));
        require(keys[wallet][key].since == 0, SessionKeyExists(wallet, key));
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(SESSION_KEY_TYPEHASH, wallet, key, expiry, maxDue)));
        require(key != address(0) && Signatures.signerOf(digest, possession) == key, PossessionNotProven(key));

        keys[wallet][key] = SessionKey(uint40(block.timestamp), expiry, 0, maxDue);

        emit SessionKeyRegistered(wallet, key, expiry, maxDue);
    }

    /// @inheritdoc ISessionKeys
    function revokeSessionKey(address key) external {
        address wallet = _msgSender();
        SessionKey storage known = keys[wallet][key];
        require(known.since != 0 && known.revokedAt == 0, SessionKeyUnknown(wallet, key));

        known.revokedAt = uint40(block.timestamp);

        emit SessionKeyRevoked(wallet, key);
    }

    /// @inheritdoc ISessionKeys
    function capOf(address wallet, address key, uint40 asOf) external view returns (uint128) {
        SessionKey memory known = keys[wallet][key];
        uint256 end = known.expiry;
        if (known.revokedAt != 0 && known.revokedAt < end) end = known.revokedAt;
        bool live = asOf <= end + Terms.CLOCK_SKEW && block.timestamp <= end + KEY_THAW;
        return live ? known.maxDue : 0;
    }

    /// @inheritdoc ISessionKeys
    function sessionKeyOf(address wallet, address key) external view returns (SessionKey memory) {
        return keys[wallet][key];
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(ISessionKeys).interfaceId || super.supportsInterface(id);
    }
}
