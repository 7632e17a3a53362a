// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Acceptance, AuthorizationTerms, CompactTerms, Offer, UsageHead} from "../libraries/Terms.sol";

/// @title Authorizations and the heads of their usage logs
/// @notice What UsageLedger (escrowed money) and InvoiceLedger (money through banks) have in common.
/// An authorization's id is the EIP-712 digest of its terms, so it is bound to chain and ledger, and every function
/// takes the terms themselves: the ledger stores only what changes.
///
/// Life: NONE — open → OPEN — revoke, close or validUntil → ENDED — finalize after the settlement window → CLOSED.
/// A head may be settled until `endedAt + thawSeconds`, the end of the window.
interface IAuthorizations {
    enum Status {
        NONE,
        OPEN,
        ENDED, // nothing more is served; heads still settle until the window ends
        CLOSED, // for ever
        CANCELLED // the terms were withdrawn before they were opened
    }

    /// @notice Everything needed to open an authorization; anyone may submit it.
    struct Opening {
        AuthorizationTerms terms;
        Offer offer; // all zero if the provider signed these very terms
        Acceptance acceptance;
        bytes providerSignature; // over the offer, or over the terms
        bytes consumerSignature; // over the terms
        bytes acceptanceSignature; // over the acceptance
    }

    /// @notice One head to settle; anyone may submit it.
    struct Settlement {
        CompactTerms terms;
        UsageHead head;
        bytes providerSignature; // may be empty if the provider is the caller
        bytes consumerSignature;
        bytes32[] consistency; // RFC 9162 proof from the settled head; empty if there is none, or flag FAST
    }

    /// @notice What the ledger holds about an authorization.
    struct Authorization {
        bytes32 root;
        uint64[4] units;
        uint64 size;
        uint128 credits; // token units
        uint40 asOf; // seconds
        Status status; // as of the current block's time
        uint40 endedAt; // validUntil, or earlier
        uint16 reason; // why it ended early, 0 if it did not
    }

    /// @notice Opened, with all that was signed: events alone rebuild the state.
    /// @param offerDigest the offer that was accepted; zero if the provider signed the terms themselves
    event Opened(
        bytes32 indexed authorizationId,
        address indexed provider,
        address indexed consumer,
        AuthorizationTerms terms,
        uint128 reserved,
        bytes32 offerDigest
    );
    /// @param due price of the head's units less its credits, token units
    /// @param paid total paid (escrowed) or recorded as paid (invoiced) after this head
    /// @param arrears due and not paid
    /// @param by who submitted it; where that is the provider, calling was its signature
    event Settled(
        bytes32 indexed authorizationId,
        UsageHead head,
        uint128 due,
        uint128 paid,
        uint128 arrears,
        address by
    );
    /// @notice Row `row` of a batch was not settled; `problem` is the error settle would have reverted with.
    event SettlementSkipped(uint256 indexed row, bytes32 indexed authorizationId, bytes problem);
    event Revoked(bytes32 indexed authorizationId, address indexed by, uint40 endedAt, uint16 reason);
    event ClosedEarly(bytes32 indexed authorizationId, address indexed by, uint40 endedAt, uint16 reason);
    event Finalized(bytes32 indexed authorizationId, uint128 released);
    event OfferCancelled(bytes32 indexed offerDigest, address indexed provider);
    event TermsCancelled(bytes32 indexed authorizationId, address indexed by);

    /// @notice The node's clock counts milliseconds: terms in seconds would never end.
    error ClockNotInSeconds(uint256 timestamp);
    /// @notice The authorization is not in the state this needs.
    error AuthorizationStatus(bytes32 authorizationId, Status status);
    /// @notice It ends at that time or before already.
    error AuthorizationEnding(bytes32 authorizationId, uint40 endedAt);
    error AuthorizationNotYours(bytes32 authorizationId, address caller);
    error TermsExpired(uint40 validUntil, uint256 nowSeconds);
    /// @notice A field of the terms breaks a rule; `field` is its name.
    error TermsInvalid(string field);
    /// @notice The wallet is not admitted to the space in this role, or is suspended.
    error PartyNotActive(bytes32 space, address wallet, uint32 role);
    error VersionNotListed(bytes32 version);
    error OfferExhausted(bytes32 offerDigest, uint32 maxAcceptances);
    error OfferExpired(bytes32 offerDigest, uint40 offerUntil);
    /// @notice The offer is for other terms.
    error OfferMismatch(bytes32 termsTemplateHash, bytes32 expected);
    /// @notice The acceptance is for another authorization, or past its deadline.
    error AcceptanceInvalid(bytes32 authorizationId, uint40 deadline);
    /// @notice The signature is not the wallet's, over these bytes, on this chain and ledger.
    error SignatureInvalid(address wallet);

    /// @notice The head names another authorization than the terms.
    error HeadForeign(bytes32 authorizationId, bytes32 headAuthorizationId);
    /// @notice The head does not extend the one already settled.
    error HeadStale(bytes32 authorizationId, uint64 settledSize, uint64 size);
    /// @notice Units, credits or asOf are lower than in the settled head.
    error HeadLower(bytes32 authorizationId);
    error HeadInFuture(bytes32 authorizationId, uint40 asOf, uint256 nowSeconds);
    /// @notice Units rose more than CLOCK_SKEW (15 minutes) after the authorization had ended.
    error HeadAfterEnd(bytes32 authorizationId, uint40 asOf, uint40 endedAt);
    error HeadOverQuota(bytes32 authorizationId, uint256 meter, uint64 units, uint64 maxUnits);
    /// @notice The settled head is not a prefix of this one, or the proof does not show that it is.
    error HeadInconsistent(bytes32 authorizationId, uint64 settledSize, uint64 size);
    error WindowOver(bytes32 authorizationId, uint256 windowEnd, uint256 nowSeconds);
    error WindowNotOver(bytes32 authorizationId, uint256 windowEnd, uint256 nowSeconds);
    error AmountTooLarge(uint256 amount);

    /// @notice Opens an authorization that both wallets signed, and reserves exactly what the consumer accepted.
    /// Checked in this order: unused and in time; parties distinct and active in the space; product, version, space
    /// and code lists match; rate card and split registered; offer, terms and acceptance signed.
    function open(Opening calldata opening) external returns (bytes32 authorizationId);

    /// @notice Settles one head. Reverts with the reason if it cannot.
    function settle(Settlement calldata settlement) external;

    /// @notice Settles each row it can and skips the others with SettlementSkipped. No row's content makes the batch
    /// revert, if it is well-formed call data and the gas is enough: a contract wallet may use 150,000 to answer.
    function settleMany(Settlement[] calldata settlements) external;

    /// @notice Ends after the revocation grace. By the provider or the space's operator.
    function revoke(AuthorizationTerms calldata terms, uint16 reason) external;

    /// @notice Ends at once if the consumer calls, after the revocation grace if the provider does.
    function close(CompactTerms calldata terms, uint16 reason) external;

    /// @notice Closes for ever once the settlement window is over, and releases what is left. By anyone.
    function finalize(CompactTerms calldata terms) external;

    /// @notice Withdraws an offer: nobody can accept it any more. By the provider, even if it was never used.
    function cancelOffer(Offer calldata offer) external;

    /// @notice Withdraws signed terms before they are opened. By provider or consumer.
    function cancelTerms(CompactTerms calldata terms) external;

    function authorizationOf(bytes32 authorizationId) external view returns (Authorization memory);

    /// @notice The id of these terms on this chain and ledger.
    function idOf(AuthorizationTerms calldata terms) external view returns (bytes32 authorizationId);

    /// @notice Price of lifetime units under a registered rate card, in token units.
    function priceOf(bytes32 rateCard, uint64[4] calldata units) external view returns (uint256 price);
}
