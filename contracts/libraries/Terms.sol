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

/// @notice The state of a usage log that both wallets sign.
struct UsageHead {
    bytes32 authorizationId;
    uint64 size; // leaves
    uint64[4] units; // total per meter
    uint128 credits; // total, token units
    uint40 asOf; // seconds
    bytes32 root; // RFC 9162
}

/// @title EIP-712 struct hashes of everything Sluice signs
/// @dev The same bytes as ledger/core/typed_data.py; tests/vectors/typed_data.json holds both to it.
library Terms {
    uint8 internal constant FAST = 1; // heads settle without a consistency proof
    uint8 internal constant AGENT_CAPPED = 2; // a metering agent's heads need the consumer's ceiling too
    uint8 internal constant INVOICED = 4; // money moves through banks, not through the ledger

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
    bytes32 internal constant HEAD_TYPEHASH = keccak256(
        "UsageHead(bytes32 authorizationId,uint64 size,uint64[4] units,uint128 credits,uint40 asOf,bytes32 root)"
    );

    function hash(Scope memory scope) internal pure returns (bytes32) {
        // In two parts: one abi.encode of thirteen values runs out of stack slots. Both parts are whole words,
        // so their concatenation is what one encode would have given.
        return
            keccak256(
                bytes.concat(
                    abi.encode(
                        SCOPE_TYPEHASH,
                        scope.space,
                        scope.codeLists,
                        scope.product,
                        scope.version,
                        scope.policyHash,
                        scope.parent,
                        scope.supersedes
                    ),
                    abi.encode(
                        scope.purposes,
                        scope.modalities,
                        scope.rights,
                        keccak256(abi.encode(scope.creditUnits)),
                        scope.approversHash
                    )
                )
            );
    }

    function hash(CompactTerms memory terms) internal pure returns (bytes32) {
        return
            keccak256(
                bytes.concat(
                    abi.encode(
                        TERMS_TYPEHASH,
                        terms.scopeHash,
                        terms.provider,
                        terms.consumer,
                        terms.meteringAgent,
                        terms.token,
                        terms.rateCard,
                        terms.split
                    ),
                    abi.encode(
                        keccak256(abi.encode(terms.maxUnits)),
                        terms.validFrom,
                        terms.validUntil,
                        terms.thawSeconds,
                        terms.revokeGrace,
                        terms.flags,
                        terms.salt
                    )
                )
            );
    }

    function hash(Offer memory offer) internal pure returns (bytes32) {
        return keccak256(abi.encode(OFFER_TYPEHASH, offer.termsTemplateHash, offer.maxAcceptances, offer.offerUntil));
    }

    function hash(Acceptance memory acceptance) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(ACCEPTANCE_TYPEHASH, acceptance.authorizationId, acceptance.reserve, acceptance.deadline)
            );
    }

    function hash(UsageHead memory head) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    HEAD_TYPEHASH,
                    head.authorizationId,
                    head.size,
                    keccak256(abi.encode(head.units)),
                    head.credits,
                    head.asOf,
                    head.root
                )
            );
    }

    function compact(AuthorizationTerms calldata terms) internal pure returns (CompactTerms memory) {
        return
            CompactTerms({
                scopeHash: hash(terms.scope),
                provider: terms.provider,
                consumer: terms.consumer,
                meteringAgent: terms.meteringAgent,
                token: terms.token,
                rateCard: terms.rateCard,
                split: terms.split,
                maxUnits: terms.maxUnits,
                validFrom: terms.validFrom,
                validUntil: terms.validUntil,
                thawSeconds: terms.thawSeconds,
                revokeGrace: terms.revokeGrace,
                flags: terms.flags,
                salt: terms.salt
            });
    }

    /// @notice Hash of the terms as the provider offered them: consumer and salt still zero.
    function templateHash(CompactTerms memory terms) internal pure returns (bytes32 result) {
        address consumer = terms.consumer;
        bytes32 salt = terms.salt;
        terms.consumer = address(0);
        terms.salt = 0;

        result = hash(terms);

        terms.consumer = consumer;
        terms.salt = salt;
    }
}
