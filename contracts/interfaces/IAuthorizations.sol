// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {
    Acceptance,
    Approval,
    AuthorizationTerms,
    Close,
    CompactTerms,
    Head,
    Offer,
    Requirement,
    UsageCeiling
} from "../libraries/Terms.sol";

/// @title Authorizations and the heads of their usage logs
/// @notice What UsageLedger (escrowed money) and InvoiceLedger (money through banks) have in common.
/// An authorization's id is the EIP-712 digest of its terms, so it is bound to chain and ledger, and every function
/// takes the terms themselves. Of the settled head the ledger keeps the digest that both wallets signed, so whoever settles
/// the next one also shows the one before. The ledger stores only what changes.
///
/// Life: NONE — open → OPEN — revoke, close, endByParent or validUntil → ENDED — finalize after the settlement window →
/// CLOSED; or from OPEN or ENDED straight to CLOSED when both close together. A head may be settled until
/// `endedAt + thawSeconds`, the end of the window.
///
/// Whoever is named as the caller may also have signed a ForwardRequest that somebody else pays for (ERC-2771).
interface IAuthorizations {
    enum Status {
        NONE,
        OPEN,
        ENDED, // nothing more is served; heads still settle until the window ends
        CLOSED, // for ever
        CANCELLED // the terms were withdrawn before they were opened
    }

    /// @notice Who vouched for the settled head on the consumer's side.
    enum Basis {
        NONE, // nothing is settled
        CONSUMER,
        AGENT,
        AGENT_CAPPED, // the metering agent, under the consumer's ceiling
        CEILING // nobody saw it: the consumer had agreed to pay up to a ceiling
    }

    /// @notice Everything needed to open an authorization; anyone may submit it.
    struct Opening {
        AuthorizationTerms terms;
        Offer offer; // all zero if the provider signed these very terms
        Acceptance acceptance;
        bytes providerSignature; // over the offer, or over the terms
        bytes consumerSignature; // over the terms
        bytes acceptanceSignature; // over the acceptance
        Requirement[] approvers; // the list that scope.approversHash names
        Approval[] approvals;
        AuthorizationTerms[] parents; // the terms that scope.parent names; none or one
    }

    struct SignedCeiling {
        UsageCeiling ceiling;
        bytes signature;
    }

    /// @notice One head to settle; anyone may submit it.
    struct Settlement {
        CompactTerms terms;
        Head previous; // the settled head; all zero before the first
        Head head;
        bytes providerSignature; // may be empty if the provider is the caller
        bytes consumerSignature; // the consumer's or the metering agent's; empty under a ceiling alone
        SignedCeiling[] ceilings; // none or one
        bytes32[] consistency; // RFC 9162 proof from the settled head; empty if there is none, or flag FAST
    }

    /// @notice A last head and what both wallets agreed it comes to.
    struct Closing {
        CompactTerms terms;
        Head previous; // the settled head; all zero before the first
        Head head; // the final head; may be the settled one
        Close close;
        bytes providerSignature; // over the close, by the wallet itself
        bytes consumerSignature; // over the close, by the wallet itself
        bytes32[] consistency;
    }

    /// @notice What the ledger holds about an authorization, whatever its money.
    struct Authorization {
        bytes32 headDigest; // EIP-712 digest of the settled UsageHead; zero before the first
        Status status; // as of the current block's time
        Basis basis;
        uint8 depth; // generations of parents above it
        uint40 endedAt; // seconds; validUntil, or earlier
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
    /// @notice An approval given with the opening.
    event Approved(
        bytes32 indexed authorizationId,
        address indexed approver,
        uint16 indexed approvalType,
        bytes32 documentHash,
        uint40 validUntil
    );
    /// @param due price of the head's units less its credits, token units
    /// @param paid total paid (escrowed) or recorded as paid (invoiced) after this head
    /// @param arrears due and not paid
    /// @param providerSigner the key that signed for the provider; zero where the provider was the caller
    /// @param consumerSigner the key that signed for the consumer or its metering agent
    event Settled(
        bytes32 indexed authorizationId,
        Head head,
        uint128 due,
        uint128 paid,
        uint128 arrears,
        address providerSigner,
        address consumerSigner,
        Basis basis
    );
    /// @notice Row `row` of a batch was not settled; `problem` is the error settle would have reverted with.
    event SettlementSkipped(uint256 indexed row, bytes32 indexed authorizationId, bytes problem);
    event Revoked(bytes32 indexed authorizationId, address indexed by, uint40 endedAt, uint16 reason);
    event ClosedEarly(bytes32 indexed authorizationId, address indexed by, uint40 endedAt, uint16 reason);
    event EndedByParent(bytes32 indexed authorizationId, bytes32 indexed parent, uint40 endedAt);
    /// @notice Both wallets closed for ever; `due`, `paid` and `released` are final.
    /// @param endedAt seconds; now, or earlier if it had ended before
    event ClosedTogether(
        bytes32 indexed authorizationId,
        Head head,
        uint128 due,
        uint128 paid,
        uint128 released,
        uint40 endedAt
    );
    event Finalized(bytes32 indexed authorizationId, uint128 released);
    /// @notice `successor` took over from `authorizationId` in one transaction.
    event Renewed(bytes32 indexed authorizationId, bytes32 indexed successor);
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
    /// @notice The terms given as the parent's are not what `scope.parent` names, or the parent is not open, or it has
    /// four generations above it already.
    error ParentNotOpen(bytes32 parent, Status status, uint8 depth);
    /// @notice The parent does not end before the child does.
    error ParentNotEnded(bytes32 parent, uint40 endedAt);
    error OfferExhausted(bytes32 offerDigest, uint32 maxAcceptances);
    error OfferExpired(bytes32 offerDigest, uint40 offerUntil);
    /// @notice The offer is for other terms.
    error OfferMismatch(bytes32 termsTemplateHash, bytes32 expected);
    /// @notice The acceptance is for another authorization, or past its deadline.
    error AcceptanceInvalid(bytes32 authorizationId, uint40 deadline);
    /// @notice The signature is not the wallet's, over these bytes, on this chain and ledger.
    error SignatureInvalid(address wallet);

    /// @notice The settled head is another than the one given as `previous`: somebody settled in between, so look again.
    error HeadMoved(bytes32 authorizationId, bytes32 headDigest);
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
    /// @notice The head is beyond the consumer's ceiling, or the ceiling is over or for another authorization.
    error CeilingExceeded(bytes32 authorizationId, uint256 due);
    /// @notice A metering agent's head needs the consumer's ceiling too (flag AGENT_CAPPED).
    error CeilingMissing(bytes32 authorizationId);
    error WindowOver(bytes32 authorizationId, uint256 windowEnd, uint256 nowSeconds);
    error WindowNotOver(bytes32 authorizationId, uint256 windowEnd, uint256 nowSeconds);
    /// @notice The close names another authorization or head, is past its deadline, or its amount is out of bounds.
    error CloseInvalid(bytes32 authorizationId, uint128 finalPaid, uint256 due);
    /// @notice More than 2^96 - 1 token units.
    error AmountTooLarge(uint256 amount);

    /// @notice Opens an authorization that both wallets signed, and reserves exactly what the consumer accepted.
    /// Checked in this order: unused and in time; parent open; all that IAdmission.check says; offer, terms and
    /// acceptance signed.
    function open(Opening calldata opening) external returns (bytes32 authorizationId);

    /// @notice Settles one head. Reverts with the reason if it cannot. Checked in this order: open; the settled head is
    /// `previous`; within the window; size, credits, time, units, quota and end; price; the provider's word (its
    /// signature, a session key's, or being the caller); the consumer's (its signature, a session key's, the metering
    /// agent's, or a ceiling); the consistency proof.
    function settle(Settlement calldata settlement) external;

    /// @notice Settles each row it can and skips the others with SettlementSkipped. No row's content makes the batch
    /// revert, if it is well-formed call data and the gas is enough: a contract wallet may use 150,000 to answer.
    function settleMany(Settlement[] calldata settlements) external;

    /// @notice Ends after the revocation grace. By the provider, the space's operator or a required approver.
    /// @param approvers the list that `terms.scope.approversHash` names, if the caller is on it; else empty
    function revoke(AuthorizationTerms calldata terms, Requirement[] calldata approvers, uint16 reason) external;

    /// @notice Ends at once if the consumer calls, after the revocation grace if the provider does.
    function close(CompactTerms calldata terms, uint16 reason) external;

    /// @notice Ends a child together with its parent, or at once if that has ended already. By anyone.
    function endByParent(AuthorizationTerms calldata child) external;

    /// @notice Closes for ever at a final head and amount that both wallets signed: pays, releases, and needs no window.
    /// Escrowed: what was paid ≤ finalPaid ≤ what is due and reserved. Invoiced: finalPaid is what is due, at most the
    /// head's price.
    function closeTogether(Closing calldata closing) external;

    /// @notice Closes one authorization together and opens the one that supersedes it: the reservation moves on.
    function renew(Closing calldata closing, Opening calldata opening) external returns (bytes32 successor);

    /// @notice Closes for ever once the settlement window is over, and releases what is left. By anyone.
    function finalize(CompactTerms calldata terms) external;

    /// @notice Withdraws an offer: nobody can accept it any more. By the provider, even if it was never used.
    function cancelOffer(Offer calldata offer) external;

    /// @notice Withdraws signed terms before they are opened. By provider or consumer.
    function cancelTerms(CompactTerms calldata terms) external;

    function authorizationOf(bytes32 authorizationId) external view returns (Authorization memory);

    /// @notice EIP-712 digest of the settled UsageHead; zero before the first.
    function headDigestOf(bytes32 authorizationId) external view returns (bytes32 headDigest);

    /// @notice The id of these terms on this chain and ledger.
    function idOf(AuthorizationTerms calldata terms) external view returns (bytes32 authorizationId);

    /// @notice Price of lifetime units under a registered rate card, in token units.
    function priceOf(bytes32 rateCard, uint64[4] calldata units) external view returns (uint256 price);
}
