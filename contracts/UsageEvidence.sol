// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

import {IAuthorizations} from "./interfaces/IAuthorizations.sol";
import {ISessionKeys} from "./interfaces/ISessionKeys.sol";
import {IUsageEvidence} from "./interfaces/IUsageEvidence.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {AuthorizationTerms, CompactTerms, Head, Scope, Terms, UseReceipt} from "./libraries/Terms.sol";
import {UsageLeaf, UsageLog} from "./libraries/UsageLog.sol";

/// @title Evidence
/// @notice The manual is IUsageEvidence.
contract UsageEvidence is IUsageEvidence, ERC165 {
    using Terms for *;
    using UsageLog for UsageLeaf;

    uint8 private constant USE = 0;
    uint8 private constant CREDIT = 1;
    uint8 private constant PERIOD_FEE = 2;
    uint8 private constant LAST_KIND = 4;

    IAuthorizations public immutable usageLedger;
    IAuthorizations public immutable invoiceLedger;
    ISessionKeys public immutable sessionKeys;

    constructor(IAuthorizations usageLedger_, IAuthorizations invoiceLedger_, ISessionKeys sessionKeys_) {
        usageLedger = usageLedger_;
        invoiceLedger = invoiceLedger_;
        sessionKeys = sessionKeys_;
    }

    /// @inheritdoc IUsageEvidence
    function proveUse(
        IAuthorizations ledger,
        Head calldata settled,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) external {
        requireSettled(ledger, leaf.authorizationId, settled);
        bytes32 leafHash = requireIncluded(leaf.authorizationId, settled, leaf, proof);

        emit FactProven(leaf.authorizationId, Fact.USE, address(0), address(ledger), leaf.index, leafHash);
    }

    /// @inheritdoc IUsageEvidence
    function proveFork(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        address wallet,
        Head[2] calldata heads,
        bytes[2] calldata signatures
    ) external {
        bytes32 separator = domainOf(ledger);
        bytes32 id = MessageHashUtils.toTypedDataHash(separator, terms.hash());
        bool party = wallet == terms.provider || wallet == terms.consumer || wallet == terms.meteringAgent;
        require(party && wallet != address(0), NotSignedBy(wallet));
        require(heads[0].size == heads[1].size && heads[0].root != heads[1].root, NothingWrong(id, heads[0].size));
        bytes32 settled = ledger.authorizationOf(id).headDigest;
        bytes32 digest;
        for (uint256 i = 0; i < 2; ++i) {
            digest = MessageHashUtils.toTypedDataHash(separator, heads[i].hash(id));
            bool known = digest == settled && signatures[i].length == 0;
            require(known || isSignedBy(wallet, digest, signatures[i]), NotSignedBy(wallet));
        }

        emit FactProven(id, Fact.FORK, wallet, address(ledger), heads[0].size, digest);
    }

    /// @inheritdoc IUsageEvidence
    function proveReceiptMismatch(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled,
        UseReceipt calldata receipt,
        bytes calldata signature,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) external {
        bytes32 separator = domainOf(ledger);
        bytes32 id = MessageHashUtils.toTypedDataHash(separator, terms.hash());
        requireSettled(ledger, id, settled);
        bytes32 leafHash = requireIncluded(id, settled, leaf, proof);
        require(
            receipt.authorizationId == id && receipt.index == leaf.index && receipt.leafHash != leafHash,
            NothingWrong(id, leaf.index)
        );
        bytes32 digest = MessageHashUtils.toTypedDataHash(separator, receipt.hash());
        require(isSignedBy(terms.provider, digest, signature), NotSignedBy(terms.provider));

        emit FactProven(id, Fact.RECEIPT_MISMATCH, terms.provider, address(ledger), leaf.index, leafHash);
    }

    /// @inheritdoc IUsageEvidence
    function proveUnits(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled,
        UsageLeaf calldata last,
        bytes32[] calldata proof
    ) external {
        bytes32 id = idOf(ledger, terms);
        requireSettled(ledger, id, settled);
        bytes32 leafHash = requireIncluded(id, settled, last, proof);
        bool differs = last.cumCredits != settled.credits;
        for (uint256 m = 0; m < 4; ++m) differs = differs || last.cumUnits[m] != settled.units[m];
        require(differs && last.index == settled.size - 1, NothingWrong(id, last.index));

        emit FactProven(id, Fact.UNITS_MISMATCH, terms.provider, address(ledger), last.index, leafHash);
    }

    /// @inheritdoc IUsageEvidence
    function proveBadStep(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled,
        UsageLeaf[] calldata leaves,
        bytes32[][] calldata proofs
    ) external {
        bytes32 id = idOf(ledger, terms);
        requireSettled(ledger, id, settled);
        uint256 count = leaves.length;
        require((count == 1 || count == 2) && proofs.length == count, LeafNotIncluded(id, 0));
        UsageLeaf calldata leaf = leaves[count - 1];
        bytes32 leafHash = requireIncluded(id, settled, leaf, proofs[count - 1]);
        bool bad;
        if (count == 1) {
            require(leaf.index == 0, LeafNotIncluded(id, leaf.index));
            bad = isBad(id, leaf, [uint64(0), 0, 0, 0], 0, 0);
        } else {
            requireIncluded(id, settled, leaves[0], proofs[0]);
            require(leaf.index == uint256(leaves[0].index) + 1, LeafNotIncluded(id, leaf.index));
            bad = isBad(id, leaf, leaves[0].cumUnits, leaves[0].cumCredits, leaves[0].servedAt);
        }
        require(bad, NothingWrong(id, leaf.index));

        emit FactProven(id, Fact.BAD_STEP, terms.provider, address(ledger), leaf.index, leafHash);
    }

    /// @dev Does the leaf not follow from these totals and this time?
    function isBad(
        bytes32 id,
        UsageLeaf calldata leaf,
        uint64[4] memory units,
        uint128 credits,
        uint40 servedAt
    ) private pure returns (bool) {
        uint8 kind = leaf.kind;
        if (kind > LAST_KIND || leaf.authorizationId != id || leaf.servedAt < servedAt) return true;
        if (leaf.cumCredits < credits || (leaf.cumCredits > credits && kind != CREDIT)) return true;
        bool counts = kind == USE || kind == PERIOD_FEE;
        for (uint256 m = 0; m < 4; ++m) {
            if (uint256(units[m]) + leaf.units[m] != leaf.cumUnits[m]) return true;
            if (leaf.units[m] != 0 && !counts) return true;
        }
        return false;
    }

    /// @inheritdoc IUsageEvidence
    function proveOutOfScope(
        IAuthorizations ledger,
        AuthorizationTerms calldata terms,
        Head calldata settled,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) external {
        bytes32 id = MessageHashUtils.toTypedDataHash(domainOf(ledger), terms.hash());
        requireSettled(ledger, id, settled);
        bytes32 leafHash = requireIncluded(id, settled, leaf, proof);
        Scope calldata scope = terms.scope;
        // Shifts beyond a field's width leave zero: a code that has no bit is outside.
        bool within =
            (uint256(scope.purposes) >> leaf.purpose) & 1 == 1 &&
                (uint256(scope.modalities) >> leaf.modality) & 1 == 1 &&
                (scope.version == 0 || scope.version == leaf.version);
        require(leaf.kind == USE && !within, NothingWrong(id, leaf.index));

        emit FactProven(id, Fact.OUT_OF_SCOPE, terms.provider, address(ledger), leaf.index, leafHash);
    }

    // ------------------------------------------------------------------------------------------ what is shown

    function domainOf(IAuthorizations ledger) private view returns (bytes32) {
        address given = address(ledger);
        require(given == address(usageLedger) || given == address(invoiceLedger), LedgerUnknown(given));
        return Terms.domainOf(address(ledger));
    }

    function idOf(IAuthorizations ledger, CompactTerms calldata terms) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(domainOf(ledger), terms.hash());
    }

    function requireSettled(IAuthorizations ledger, bytes32 id, Head calldata settled) private view {
        bytes32 digest = MessageHashUtils.toTypedDataHash(domainOf(ledger), settled.hash(id));
        bytes32 held = ledger.authorizationOf(id).headDigest;
        require(held == digest, HeadNotSettled(id, held));
    }

    function requireIncluded(
        bytes32 id,
        Head calldata settled,
        UsageLeaf calldata leaf,
        bytes32[] calldata proof
    ) private view returns (bytes32 leafHash) {
        leafHash = leaf.hash();
        require(
            UsageLog.includes(settled.root, settled.size, leaf.index, leafHash, proof),
            LeafNotIncluded(id, leaf.index)
        );
    }

    /// @dev By the wallet, or by a key that was its session key at any time: revoking a key does not unsay its words.
    function isSignedBy(address wallet, bytes32 digest, bytes calldata signature) private view returns (bool) {
        address signer = Signatures.signerOf(digest, signature);
        if (signer != address(0)) {
            if (signer == wallet || sessionKeys.sessionKeyOf(wallet, signer).since != 0) return true;
        }
        return Signatures.isAgreedBy(wallet, digest, signature);
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IUsageEvidence).interfaceId || super.supportsInterface(id);
    }
}
