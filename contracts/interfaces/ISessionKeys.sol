// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Keys that may sign for a wallet
/// @notice A gateway, an agent or a metering service signs heads, ceilings and receipts with a key of its own, within
/// bounds: until it expires, and up to `maxDue` on any one authorization. It can never open, close or move money by
/// itself. A registration is never changed: a key with other bounds is another key.
interface ISessionKeys {
    struct SessionKey {
        uint40 since; // seconds
        uint40 expiry; // seconds, inclusive
        uint40 revokedAt; // seconds, 0: not revoked
        uint128 maxDue; // token units per authorization, over its lifetime
    }

    event SessionKeyRegistered(address indexed wallet, address indexed key, uint40 expiry, uint128 maxDue);
    event SessionKeyRevoked(address indexed wallet, address indexed key);

    /// @notice The key is the wallet itself, the cap is zero, or it would have expired already.
    error SessionKeyInvalid(address key, uint40 expiry, uint128 maxDue);
    error SessionKeyExists(address wallet, address key);
    error SessionKeyUnknown(address wallet, address key);
    /// @notice The key did not sign SessionKey(wallet, key, expiry, maxDue) itself.
    error PossessionNotProven(address key);

    /// @notice Lets `key` sign for the caller.
    /// @param possession the key's own EIP-712 signature over
    /// SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)
    function registerSessionKey(address key, uint40 expiry, uint128 maxDue, bytes calldata possession) external;

    /// @notice Ends a key of the caller. What it signed before settles for KEY_THAW (30 days) more, so that revoking a key
    /// cannot void heads that were signed with it.
    function revokeSessionKey(address key) external;

    /// @notice The most that heads dated `asOf` and signed by `key` may come to on one authorization of `wallet`, as of
    /// now; zero if it may sign none.
    function capOf(address wallet, address key, uint40 asOf) external view returns (uint128 maxDue);

    function sessionKeyOf(address wallet, address key) external view returns (SessionKey memory);
}
