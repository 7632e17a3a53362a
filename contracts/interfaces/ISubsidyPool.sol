// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AuthorizationTerms} from "../libraries/Terms.sol";

/// @title Pools that give consumers back a share of what they paid
/// @notice A sponsor funds a pool and fixes its rule for good. After an authorization is closed and the objection time has
/// passed, its consumer gets its share of what was really paid: escrowed money only, less refunds, and only where a
/// consumer or metering agent had seen what it paid for. No authorization is funded twice, by any pool.
///
/// Two parties can still agree to use for the subsidy's sake. What bounds the loss: the lists of products and splits, a cap
/// for each organisation (not each wallet), parties of one organisation excluded, the sponsor's objection, the pool itself.
/// Organisations are told apart by the digest of a credential that the space's operator records: it must record the same
/// digest for all wallets of one, and keep it when the credential is renewed. A refund after the claim is not clawed back.
interface ISubsidyPool {
    struct Rule {
        address token;
        bytes32 space;
        uint16 shareBps; // of what was paid
        uint16 credentialType; // the credential that tells organisations apart, such as ORGANISATION
        uint128 capPerConsumer; // token units, per credential of that type, over the pool's life
        uint40 validFrom; // seconds: authorizations that become valid from here
        uint40 validUntil; // … to here, both inclusive
        uint40 claimUntil; // seconds, inclusive; afterwards the sponsor takes back what is left
        uint32 objectionSeconds; // after the settlement window
    }

    struct Pool {
        Rule rule;
        address sponsor;
        uint128 left; // token units
    }

    event PoolCreated(
        bytes32 indexed pool,
        address indexed sponsor,
        Rule rule,
        bytes32[] products,
        bytes32[] splits,
        uint128 amount
    );
    event PoolFunded(bytes32 indexed pool, address indexed from, uint128 amount);
    event Objected(bytes32 indexed pool, bytes32 indexed authorizationId, uint16 reason);
    event Subsidised(
        bytes32 indexed pool,
        bytes32 indexed authorizationId,
        address indexed consumer,
        bytes32 credential,
        uint128 base,
        uint128 amount
    );
    event PoolRefunded(bytes32 indexed pool, uint128 amount);

    error PoolExists(bytes32 pool);
    error PoolUnknown(bytes32 pool);
    /// @notice A field of the rule breaks a rule itself; `field` is its name.
    error RuleInvalid(string field);
    error PoolNotSponsor(bytes32 pool, address caller);
    /// @notice Claims are taken until then, so the sponsor's money stays.
    error ClaimsOpen(bytes32 pool, uint40 claimUntil);
    error ClaimsOver(bytes32 pool, uint40 claimUntil);
    /// @notice The authorization is not closed, or its objection time is not over.
    error ClaimTooEarly(bytes32 authorizationId, uint256 claimableFrom);
    error ClaimNotYours(bytes32 authorizationId, address caller);
    /// @notice This authorization was subsidised before, by this pool or another.
    error AlreadySubsidised(bytes32 authorizationId);
    error SponsorObjected(bytes32 pool, bytes32 authorizationId);
    /// @notice The rule does not cover the authorization; `field` says in what.
    error NotCovered(string field);
    /// @notice Pool, cap or base leave nothing to pay.
    error NothingToClaim(bytes32 pool, bytes32 authorizationId);
    error TransferInexact(address token, uint256 asked, uint256 received);

    /// @notice Creates and funds a pool with the caller's tokens.
    /// @param products the only products it covers; empty: all of the space
    /// @param splits the only splits it covers; empty: all
    /// @return pool keccak256(chain id, contract, sponsor, salt)
    function createPool(
        Rule calldata rule,
        bytes32[] calldata products,
        bytes32[] calldata splits,
        uint128 amount,
        bytes32 salt
    ) external returns (bytes32 pool);

    /// @notice Adds the caller's tokens to a pool.
    function fund(bytes32 pool, uint128 amount) external;

    /// @notice Pays the consumer its share for one authorization. Consumer only.
    function claim(bytes32 pool, AuthorizationTerms calldata terms) external returns (uint128 amount);

    /// @notice Withholds the subsidy from one authorization. Sponsor only, before it is claimed.
    function objectTo(bytes32 pool, bytes32 authorizationId, uint16 reason) external;

    /// @notice Returns what is left to the sponsor once claims are over. By anyone.
    function refundPool(bytes32 pool) external returns (uint128 amount);

    function poolOf(bytes32 pool) external view returns (Pool memory);

    /// @notice What one credential has received from a pool.
    function receivedOf(bytes32 pool, bytes32 credential) external view returns (uint128);

    /// @notice The pool that subsidised an authorization; zero if none.
    function poolFor(bytes32 authorizationId) external view returns (bytes32 pool);
}
