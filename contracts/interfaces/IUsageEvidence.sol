// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AuthorizationTerms, CompactTerms, Head, UseReceipt} from "../libraries/Terms.sol";
import {UsageLeaf} from "../libraries/UsageLog.sol";
import {IAuthorizations} from "./IAuthorizations.sol";

/// @title Facts about settled usage logs, proven to anybody
/// @notice Anyone may call, nobody is asked, nothing is kept but the event, and no money moves: what follows from a fact
/// is for the parties, the space and the courts. `ledger` is the one that holds the authorization, and `settled` the head
/// it holds now.
interface IUsageEvidence {
    enum Fact {
        USE, // the leaf is in the settled log
        FORK, // one party signed two logs of the same size
        RECEIPT_MISMATCH, // the provider's receipt names another leaf than the log has at its index
        UNITS_MISMATCH, // the last leaf's totals are not the head's
        BAD_STEP, // a leaf does not follow from the one before it
        OUT_OF_SCOPE // a use outside the purposes, modalities or version of the terms
    }

    /// @param index the leaf's; for a fork the size of both logs
    /// @param evidence the leaf's hash; for a fork the digest of the second head
    /// @param against whose word the fact is against; zero for a use
    event FactProven(
        bytes32 indexed authorizationId,
        Fact indexed fact,
        address indexed against,
        address ledger,
        uint64 index,
        bytes32 evidence
    );

    error LedgerUnknown(address ledger);
    /// @notice The ledger's settled head is another.
    error HeadNotSettled(bytes32 authorizationId, bytes32 headDigest);
    /// @notice The proof does not lead from the leaf to the settled root.
    error LeafNotIncluded(bytes32 authorizationId, uint64 index);
    /// @notice The documents are genuine and agree with each other: there is nothing to prove.
    error NothingWrong(bytes32 authorizationId, uint64 index);
    /// @notice Neither the wallet, nor a key that was ever its session key, signed this; or it is no party.
    error NotSignedBy(address wallet);

    /// @notice The leaf is in the settled log of the authorization it names.
    function proveUse(
        IAuthorizations ledger,
        Head calldata settled,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) external;

    /// @notice `wallet`, a party to the terms, signed two heads of one size with different roots. In place of a signature
    /// the ledger's word counts: leave it empty for the settled head.
    function proveFork(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        address wallet,
        Head[2] calldata heads,
        bytes[2] calldata signatures
    ) external;

    /// @notice The provider gave a receipt for one leaf and has another in the settled log at that index.
    function proveReceiptMismatch(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled,
        UseReceipt calldata receipt,
        bytes calldata signature,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) external;

    /// @notice The totals in the last leaf of the settled log are not those of the head.
    function proveUnits(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled,
        UsageLeaf calldata last,
        bytes32[] calldata proof
    ) external;

    /// @notice A leaf does not follow from the one before: totals do not add up, units where the kind has none, credits
    /// that fall or rise without a credit leaf, time that runs backwards, an unknown kind, another authorization.
    /// @param leaves two neighbours; or only the log's first leaf, which must follow from nothing
    function proveBadStep(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled,
        UsageLeaf[] calldata leaves,
        bytes32[][] calldata proofs
    ) external;

    /// @notice A use in the settled log is outside the terms.
    function proveOutOfScope(
        IAuthorizations ledger,
        AuthorizationTerms calldata terms,
        Head calldata settled,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) external;
}
