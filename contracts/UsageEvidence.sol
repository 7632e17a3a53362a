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
    using UsageLog for bytes;

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
    function proveUse(Head calldata settled, bytes calldata leaf, bytes32[] calldata proof) external {
        (bytes32 id, uint64 index) = leaf.placeOf();
        // No terms say which ledger holds it; it can be only one.
        bytes32 digest = usageLedger.headDigestOf(id);
        IAuthorizations ledger = usageLedger;
        if (digest == 0) (ledger, digest) = (invoiceLedger, invoiceLedger.headDigestOf(id));
        requireSettled(ledger, id, settled, digest);
        bytes32 leafHash = requireIncluded(id, settled, index, leaf, proof);

        emit FactProven(id, Fact.USE, address(0), address(ledger), index, leafHash);
    }

    /// @inheritdoc IUsageEvidence
    function proveFork(
        CompactTerms calldata terms,
        address wallet,
        Head[2] calldata heads,
        bytes[2] calldata signatures
    ) external {
        IAuthorizations ledger = ledgerOf(terms.flags);
        bytes32 id = digestOn(ledger, terms.hash());
        bool party = wallet == terms.provider || wallet == terms.consumer || wallet == terms.meteringAgent;
        require(party && wallet != address(0), NotSignedBy(wallet));
        require(heads[0].size == heads[1].size && heads[0].root != heads[1].root, NothingWrong(id, heads[0].size));
        bytes32 vouched = vouchedFor(ledger, id, terms, wallet);
        bytes32 digest;
        for (uint256 i = 0; i < 2; ++i) {
            digest = digestOn(ledger, heads[i].hash(id));
            bool known = digest == vouched && signatures[i].length == 0;
            require(known || isSignedBy(wallet, digest, signatures[i]), NotSignedBy(wallet));
        }

        emit FactProven(id, Fact.FORK, wallet, address(ledger), heads[0].size, digest);
    }

    /// @dev Digest of the settled head if the ledger saw this party vouch for it; else zero.
    function vouchedFor(
        IAuthorizations ledger,
        bytes32 id,
        CompactTerms calldata terms,
        address wallet
    ) private view returns (bytes32) {
        IAuthorizations.Authorization memory found = ledger.authorizationOf(id);
        bool agent = found.basis == IAuthorizations.Basis.AGENT || found.basis == IAuthorizations.Basis.AGENT_CAPPED;
        bool vouched =
            wallet == terms.provider ||
                (wallet == terms.consumer && found.basis == IAuthorizations.Basis.CONSUMER) ||
                (wallet == terms.meteringAgent && agent);
        return vouched ? found.headDigest : bytes32(0);
    }

    /// @inheritdoc IUsageEvidence
    function proveReceiptMismatch(
        CompactTerms calldata terms,
        Head calldata settled,
        UseReceipt calldata receipt,
        bytes calldata signature,
        bytes calldata leaf,
        bytes32[] calldata proof
    ) external {
        IAuthorizations ledger = ledgerOf(terms.flags);
        bytes32 id = requireSettledTerms(ledger, terms, settled);
        bytes32 leafHash = requireIncluded(id, settled, receipt.index, leaf, proof);
        require(receipt.authorizationId == id && receipt.leafHash != leafHash, NothingWrong(id, receipt.index));
        bytes32 digest = digestOn(ledger, receipt.hash());
        require(isSignedBy(terms.provider, digest, signature), NotSignedBy(terms.provider));

        emit FactProven(id, Fact.RECEIPT_MISMATCH, terms.provider, address(ledger), receipt.index, leafHash);
    }

    /// @inheritdoc IUsageEvidence
    function proveUnits(
        CompactTerms calldata terms,
        Head calldata settled,
        bytes calldata last,
        bytes32[] calldata proof
    ) external {
        IAuthorizations ledger = ledgerOf(terms.flags);
        bytes32 id = requireSettledTerms(ledger, terms, settled);
        uint64 index = settled.size - 1;
        bytes32 leafHash = requireIncluded(id, settled, index, last, proof);
        UsageLeaf memory leaf = last.decode();
        bool differs = leaf.cumCredits != settled.credits;
        for (uint256 m = 0; m < 4; ++m) differs = differs || leaf.cumUnits[m] != settled.units[m];
        require(differs, NothingWrong(id, index));

        emit FactProven(id, Fact.UNITS_MISMATCH, terms.provider, address(ledger), index, leafHash);
    }

    /// @inheritdoc IUsageEvidence
    function proveBadStep(
        CompactTerms calldata terms,
        Head calldata settled,
        uint64 index,
        bytes[] calldata leaves,
        bytes32[][] calldata proofs
    ) external {
        IAuthorizations ledger = ledgerOf(terms.flags);
        bytes32 id = requireSettledTerms(ledger, terms, settled);
        uint256 count = leaves.length;
        require(count == (index == 0 ? 1 : 2) && proofs.length == count, LeafNotIncluded(id, index));
        bytes calldata last = leaves[count - 1];
        bytes32 leafHash = last.hashOfAny();
        requireHash(id, settled, index, leafHash, proofs[count - 1]);
        // What is no leaf at all is bad, whatever was before it.
        if (last.isWellFormed()) {
            UsageLeaf memory before; // all zero before the first
            if (count == 2) {
                requireIncluded(id, settled, index - 1, leaves[0], proofs[0]);
                before = leaves[0].decode();
            }
            require(isBad(id, index, last.decode(), before), NothingWrong(id, index));
        }

        emit FactProven(id, Fact.BAD_STEP, terms.provider, address(ledger), index, leafHash);
    }

    /// @dev Is the leaf not one that can stand at `index` after `before`?
    function isBad(
        bytes32 id,
        uint64 index,
        UsageLeaf memory leaf,
        UsageLeaf memory before
    ) private pure returns (bool) {
        uint8 kind = leaf.kind;
        if (leaf.index != index || leaf.authorizationId != id) return true;
        if (kind > LAST_KIND || leaf.servedAt < before.servedAt) return true;
        if (leaf.cumCredits < before.cumCredits) return true;
        if (leaf.cumCredits > before.cumCredits && kind != CREDIT) return true;
        bool counts = kind == USE || kind == PERIOD_FEE;
        for (uint256 m = 0; m < 4; ++m) {
            if (uint256(before.cumUnits[m]) + leaf.units[m] != leaf.cumUnits[m]) return true;
            if (leaf.units[m] != 0 && !counts) return true;
        }
        return false;
    }

    /// @inheritdoc IUsageEvidence
    function proveOutOfScope(
        AuthorizationTerms calldata terms,
        Head calldata settled,
        uint64 index,
        bytes calldata leaf,
        bytes32[] calldata proof
    ) external {
        IAuthorizations ledger = ledgerOf(terms.flags);
        bytes32 id = digestOn(ledger, terms.hash());
        requireSettled(ledger, id, settled, ledger.headDigestOf(id));
        bytes32 leafHash = requireIncluded(id, settled, index, leaf, proof);
        UsageLeaf memory used = leaf.decode();
        Scope calldata scope = terms.scope;
        // Shifts beyond a field's width leave zero: a code that has no bit is outside.
        bool within =
            (uint256(scope.purposes) >> used.purpose) & 1 == 1 &&
                (uint256(scope.modalities) >> used.modality) & 1 == 1 &&
                (scope.version == 0 || scope.version == used.version);
        require(used.kind == USE && !within, NothingWrong(id, index));

        emit FactProven(id, Fact.OUT_OF_SCOPE, terms.provider, address(ledger), index, leafHash);
    }

    // ------------------------------------------------------------------------------------------ what is shown

    function ledgerOf(uint8 flags) private view returns (IAuthorizations) {
        return flags & Terms.INVOICED == 0 ? usageLedger : invoiceLedger;
    }

    function digestOn(IAuthorizations ledger, bytes32 structHash) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(Terms.domainOf(address(ledger)), structHash);
    }

    function requireSettledTerms(
        IAuthorizations ledger,
        CompactTerms calldata terms,
        Head calldata settled
    ) private view returns (bytes32 id) {
        id = digestOn(ledger, terms.hash());
        requireSettled(ledger, id, settled, ledger.headDigestOf(id));
    }

    function requireSettled(IAuthorizations ledger, bytes32 id, Head calldata settled, bytes32 held) private view {
        require(digestOn(ledger, settled.hash(id)) == held, HeadNotSettled(id, held));
    }

    function requireIncluded(
        bytes32 id,
        Head calldata settled,
        uint64 index,
        bytes calldata leaf,
        bytes32[] calldata proof
    ) private view returns (bytes32 leafHash) {
        leafHash = leaf.hash();
        requireHash(id, settled, index, leafHash, proof);
    }

    function requireHash(
        bytes32 id,
        Head calldata settled,
        uint64 index,
        bytes32 leafHash,
        bytes32[] calldata proof
    ) private view {
        bool included = UsageLog.includes(settled.root, settled.size, index, leafHash, proof);
        require(included, LeafNotIncluded(id, index));
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
