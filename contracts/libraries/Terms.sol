// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice What may be used, for what, and who had to approve it.
/// @dev Nested in the terms because settling needs only its hash: about 25,000 gas cheaper than flat terms.
struct Scope {
    bytes32 space;
    bytes32 codeLists; // digest of the space's code lists that give the bits below their meaning
    bytes32 product;
    bytes32 version; // 0: any version that is listed when it is served
    bytes32 policyHash; // ODRL policy, enforced by the gateway
    bytes32 parent; // authorization this one is derived from, 0: none
    bytes32 supersedes; // authorization this one follows, 0: none
    uint64 purposes; // bit n: purpose code n
    uint32 modalities; // bit n: modality code n
    uint32 rights; // bit n: right n of ledger.core.codes
    uint64[4] creditUnits; // units the provider serves before it wants a signed head, per meter
    bytes32 approversHash;
}

/// @notice What both wallets sign. The EIP-712 digest of this is the authorization's id.
struct AuthorizationTerms {
    Scope scope;
    address provider;
    address consumer;
    address meteringAgent;
    address token; // ERC-20; in invoiced mode the ISO 4217 code, right-aligned
    bytes32 rateCard;
    bytes32 split;
    uint64[4] maxUnits; // quota per meter
    uint40 validFrom; // seconds, inclusive
    uint40 validUntil; // seconds, exclusive
    uint32 thawSeconds;
    uint32 revokeGrace; // seconds
    uint8 flags;
    bytes32 salt;
}

/// @notice The same terms with the scope given by its hash: enough to recompute the id.
struct CompactTerms {
    bytes32 scopeHash;
    address provider;
    address consumer;
    address meteringAgent;
    address token;
    bytes32 rateCard;
    bytes32 split;
    uint64[4] maxUnits;
    uint40 validFrom;
    uint40 validUntil;
    uint32 thawSeconds;
    uint32 revokeGrace;
    uint8 flags;
    bytes32 salt;
}

/// @notice The provider's offer of terms in which consumer and salt are still zero.
struct Offer {
    bytes32 termsTemplateHash;
    uint32 maxAcceptances;
    uint40 offerUntil; // seconds, inclusive
}

/// @notice The consumer's consent to reserve exactly this much.
struct Acceptance {
    bytes32 authorizationId;
    uint128 reserve; // token units
    uint40 deadline; // seconds, inclusive
}

/// @notice The state of a usage log. With the authorization's id it is the UsageHead that both wallets sign; the id is
/// left out here because the ledger computes it from the terms.
struct Head {
    uint64 size; // leaves
    uint64[4] units; // total per meter
    uint128 credits; // total, token units
    uint40 asOf; // seconds
    bytes32 root; // RFC 9162
}

/// @notice The provider's word for one use, given with the response.
struct UseReceipt {
    bytes32 authorizationId;
    uint64 index;
    bytes32 leafHash;
    uint64[4] cumUnits;
    uint40 servedAt; // seconds
}

/// @notice The consumer's consent to heads it has not seen, up to these bounds.
struct UsageCeiling {
    bytes32 authorizationId;
    uint64[4] maxUnits;
    uint128 minCredits; // token units
    uint128 maxDue; // token units, over the authorization's lifetime
    uint40 expiry; // seconds, inclusive: the last moment a head may be settled under it
}

/// @notice Both wallets' consent to close for ever at this head and this price.
struct Close {
    bytes32 authorizationId;
    bytes32 headDigest; // of the final head; zero if nothing was ever acknowledged
    uint128 finalPaid; // escrowed: total paid in the end; invoiced: total due in the end
    uint40 deadline; // seconds, inclusive
}

/// @notice Who must approve, and in which capacity (code list `approvals`; 0: provider of the parent authorization).
struct Requirement {
    address approver;
    uint16 approvalType;
}

/// @notice One approver's consent to a scope between two parties. The price is not part of it.
struct Approval {
    Requirement by;
    bytes32 documentHash; // what the approver decided on
    uint40 validUntil; // seconds, inclusive
    bytes signature;
}

/// @title EIP-712 struct hashes of everything Sluice signs
/// @dev The same bytes as ledger/core/terms.py; tests/vectors/typed_data.json holds both to it.
/// All assembly here is memory-safe: it writes past the free pointer only, where nothing is kept, and reads call data
/// at the fixed offsets of static structs. Bits beyond a field's width change the hash, and are refused where the field
/// is read.
library Terms {
    uint8 internal constant FAST = 1; // heads settle without a consistency proof
    uint8 internal constant AGENT_CAPPED = 2; // a metering agent's heads need the consumer's ceiling too
    uint8 internal constant INVOICED = 4; // money moves through banks, not through the ledger

    /// @dev A gateway's clock may run ahead of the block that ends an authorization or a session key, and it learns of
    /// the end only when the block reaches it. What was signed in that gap must stay payable.
    uint256 internal constant CLOCK_SKEW = 15 minutes;

    bytes32 private constant DOMAIN_TYPEHASH = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );
    bytes32 internal constant SCOPE_TYPEHASH = keccak256(
        "Scope(bytes32 space,bytes32 codeLists,bytes32 product,bytes32 version,bytes32 policyHash,bytes32 parent,bytes32 supersedes,uint64 purposes,uint32 modalities,uint32 rights,uint64[4] creditUnits,bytes32 approversHash)"
    );
    bytes32 internal constant TERMS_TYPEHASH = keccak256(
        "AuthorizationTerms(Scope scope,address provider,address consumer,address meteringAgent,address token,bytes32 rateCard,bytes32 split,uint64[4] maxUnits,uint40 validFrom,uint40 validUntil,uint32 thawSeconds,uint32 revokeGrace,uint8 flags,bytes32 salt)Scope(bytes32 space,bytes32 codeLists,bytes32 product,bytes32 version,bytes32 policyHash,bytes32 parent,bytes32 supersedes,uint64 purposes,uint32 modalities,uint32 rights,uint64[4] creditUnits,bytes32 approversHash)"
    );
    bytes32 internal constant OFFER_TYPEHASH = keccak256(
        "Offer(bytes32 termsTemplateHash,uint32 maxAcceptances,uint40 offerUntil)"
    );
    bytes32 internal constant ACCEPTANCE_TYPEHASH = keccak256(
        "Acceptance(bytes32 authorizationId,uint128 reserve,uint40 deadline)"
    );
    bytes32 internal constant APPROVAL_TYPEHASH = keccak256(
        "Approval(bytes32 scopeHash,address provider,address consumer,uint16 approvalType,bytes32 documentHash,uint40 validUntil)"
    );
    bytes32 internal constant HEAD_TYPEHASH = keccak256(
        "UsageHead(bytes32 authorizationId,uint64 size,uint64[4] units,uint128 credits,uint40 asOf,bytes32 root)"
    );
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "UseReceipt(bytes32 authorizationId,uint64 index,bytes32 leafHash,uint64[4] cumUnits,uint40 servedAt)"
    );
    bytes32 internal constant CEILING_TYPEHASH = keccak256(
        "UsageCeiling(bytes32 authorizationId,uint64[4] maxUnits,uint128 minCredits,uint128 maxDue,uint40 expiry)"
    );
    bytes32 internal constant CLOSE_TYPEHASH = keccak256(
        "Close(bytes32 authorizationId,bytes32 headDigest,uint128 finalPaid,uint40 deadline)"
    );

    function hash(Scope calldata scope) internal pure returns (bytes32 result) {
        bytes32 typeHash = SCOPE_TYPEHASH;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, typeHash)
            calldatacopy(add(p, 0x20), scope, 0x140) // space … rights
            calldatacopy(add(p, 0x160), add(scope, 0x140), 0x80) // creditUnits
            mstore(add(p, 0x160), keccak256(add(p, 0x160), 0x80))
            mstore(add(p, 0x180), calldataload(add(scope, 0x1c0))) // approversHash
            result := keccak256(p, 0x1a0)
        }
    }

    function hash(AuthorizationTerms calldata terms) internal pure returns (bytes32) {
        return hashWith(hash(terms.scope), fields(terms), false);
    }

    /// @notice Hash of the terms as the provider offered them: consumer and salt still zero.
    function templateHash(AuthorizationTerms calldata terms) internal pure returns (bytes32) {
        return hashWith(hash(terms.scope), fields(terms), true);
    }

    function hash(CompactTerms calldata terms) internal pure returns (bytes32) {
        uint256 from;
        assembly ("memory-safe") {
            from := add(terms, 0x20)
        }
        return hashWith(terms.scopeHash, from, false);
    }

    /// @dev Where the fields after the scope begin: it is fifteen words.
    function fields(AuthorizationTerms calldata terms) private pure returns (uint256 from) {
        assembly ("memory-safe") {
            from := add(terms, 0x1e0)
        }
    }

    /// @dev `from` is where `provider … salt` lie in call data, the same sixteen words in both forms of the terms.
    function hashWith(bytes32 scopeHash, uint256 from, bool template) private pure returns (bytes32 result) {
        bytes32 typeHash = TERMS_TYPEHASH;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, typeHash)
            mstore(add(p, 0x20), scopeHash)
            calldatacopy(add(p, 0x40), from, 0xc0) // provider … split
            calldatacopy(add(p, 0x100), add(from, 0xc0), 0x80) // maxUnits
            mstore(add(p, 0x100), keccak256(add(p, 0x100), 0x80))
            calldatacopy(add(p, 0x120), add(from, 0x140), 0xc0) // validFrom … salt
            if template {
                mstore(add(p, 0x60), 0) // consumer
                mstore(add(p, 0x1c0), 0) // salt
            }
            result := keccak256(p, 0x1e0)
        }
    }

    function hash(Offer calldata offer) internal pure returns (bytes32) {
        return keccak256(abi.encode(OFFER_TYPEHASH, offer.termsTemplateHash, offer.maxAcceptances, offer.offerUntil));
    }

    function hash(Acceptance calldata acceptance) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(ACCEPTANCE_TYPEHASH, acceptance.authorizationId, acceptance.reserve, acceptance.deadline)
            );
    }

    function hash(
        Approval calldata approval,
        bytes32 scopeHash,
        address provider,
        address consumer
    ) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    APPROVAL_TYPEHASH,
                    scopeHash,
                    provider,
                    consumer,
                    approval.by.approvalType,
                    approval.documentHash,
                    approval.validUntil
                )
            );
    }

    /// @notice Struct hash of the UsageHead that this state is for an authorization.
    function hash(Head calldata head, bytes32 authorizationId) internal pure returns (bytes32 result) {
        bytes32 typeHash = HEAD_TYPEHASH;
        assembly ("memory-safe") {
            let p := mload(0x40)
            calldatacopy(p, add(head, 0x20), 0x80) // units
            let unitsHash := keccak256(p, 0x80)
            mstore(p, typeHash)
            mstore(add(p, 0x20), authorizationId)
            mstore(add(p, 0x40), calldataload(head)) // size
            mstore(add(p, 0x60), unitsHash)
            calldatacopy(add(p, 0x80), add(head, 0xa0), 0x60) // credits, asOf, root
            result := keccak256(p, 0xe0)
        }
    }

    /// @notice True for the state before the first head.
    function isEmpty(Head calldata head) internal pure returns (bool) {
        if (head.size != 0) return false;
        uint256 rest = head.units[0] | head.units[1] | head.units[2] | head.units[3] | head.credits | head.asOf;
        return rest | uint256(head.root) == 0;
    }

    function hash(UseReceipt calldata receipt) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    RECEIPT_TYPEHASH,
                    receipt.authorizationId,
                    receipt.index,
                    receipt.leafHash,
                    keccak256(abi.encode(receipt.cumUnits)),
                    receipt.servedAt
                )
            );
    }

    function hash(UsageCeiling calldata ceiling) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    CEILING_TYPEHASH,
                    ceiling.authorizationId,
                    keccak256(abi.encode(ceiling.maxUnits)),
                    ceiling.minCredits,
                    ceiling.maxDue,
                    ceiling.expiry
                )
            );
    }

    function hash(Close calldata close) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(CLOSE_TYPEHASH, close.authorizationId, close.headDigest, close.finalPaid, close.deadline)
            );
    }

    /// @notice The digest a scope's `approversHash` names its approvers by; an empty list has hash zero.
    function hash(Requirement[] calldata requirements) internal pure returns (bytes32) {
        return requirements.length == 0 ? bytes32(0) : keccak256(abi.encode(requirements));
    }

    /// @notice EIP-712 domain of a ledger, which everything about an authorization is signed for.
    function domainOf(address ledger) internal view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, keccak256("Sluice"), keccak256("1"), block.chainid, ledger));
    }
}
