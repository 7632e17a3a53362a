// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AuthorizationTerms, CompactTerms, Head, UseReceipt} from "../libraries/Terms.sol";

/// @title Facts about settled usage logs, proven to anybody
/// @notice Anyone may call, nobody is asked, nothing is kept but the event, and no money moves: what follows from a fact
/// is for the parties, the space and the courts. `settled` is the head that the authorization's ledger holds now, and a
/// leaf its 229 bytes, as they went into the log.
interface IUsageEvidence {
    enum Fact {
        USE, // the leaf is in the settled log
        FORK, // one party signed two logs of the same size
        RECEIPT_MISMATCH, // the provider's receipt names another leaf than the log has at its index
        UNITS_MISMATCH, // the last leaf's totals are not the head's
        BAD_STEP, // a leaf is not at the index it names, or does not follow from the one before it
        OUT_OF_SCOPE // a use outside the purposes, modalities or version of the terms
    }

    /// @param ledger the one that holds the authorization
    /// @param index where the leaf is in the log; for a fork the size of both logs
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

    /// @notice The ledger's settled head is another.
    error HeadNotSettled(bytes32 authorizationId, bytes32 headDigest);
    /// @notice The proof does not lead from the leaf to the settled root.
    error LeafNotIncluded(bytes32 authorizationId, uint64 index);
    /// @notice The documents are genuine and agree with each other: there is nothing to prove.
    error NothingWrong(bytes32 authorizationId, uint64 index);
    /// @notice Neither the wallet, nor a key that was ever its session key, signed this; or it is no party.
    error NotSignedBy(address wallet);

    /// @notice The leaf is in the settled log of the authorization it names.
    function proveUse(Head calldata settled, bytes calldata leaf, bytes32[] calldata proof) external;

    /// @notice `wallet`, a party to the terms, signed two heads of one size with different roots. For the settled head the
    /// signature may be left empty if the ledger knows that this party vouched for it: the provider always did, consumer
    /// and metering agent as its basis says.
    function proveFork(
        CompactTerms calldata terms,
        address wallet,
        Head[2] calldata heads,
        bytes[2] calldata signatures
    ) external;

    /// @notice The provider gave a receipt for one leaf and has another in the settled log at that index.
    function proveReceiptMismatch(
        CompactTerms calldata terms,
        Head calldata settled,
        UseReceipt calldata receipt,
        bytes calldata signature,
        bytes calldata leaf,
        bytes32[] calldata proof
    ) external;

    /// @notice The totals in the last leaf of the settled log are not those of the head.
    function proveUnits(
        CompactTerms calldata terms,
        Head calldata settled,
        bytes calldata last,
        bytes32[] calldata proof
    ) external;

    /// @notice The leaf at `index` is none (not 229 bytes), names another index or authorization, or does not follow from the one before: totals do
    /// not add up, units where the kind has none, credits that fall or rise without a credit leaf, time that runs
    /// backwards, an unknown kind.
    /// @param leaves the leaf before and the leaf; or only the leaf at index 0, which must follow from nothing
    function proveBadStep(
        CompactTerms calldata terms,
        Head calldata settled,
        uint64 index,
        bytes[] calldata leaves,
        bytes32[][] calldata proofs
    ) external;

    /// @notice The leaf at `index` is a use outside the terms.
    function proveOutOfScope(
        AuthorizationTerms calldata terms,
        Head calldata settled,
        uint64 index,
        bytes calldata leaf,
        bytes32[] calldata proof
    ) external;
}
