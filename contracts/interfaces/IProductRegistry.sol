// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Requirement} from "../libraries/Terms.sol";
import {ISpaceRegistry} from "./ISpaceRegistry.sol";

/// @title Data products, by the digest of their content
/// @notice A product belongs to a provider in a space. Each of its versions is named by what it contains and never
/// changes: a correction is a new version. A version may name the versions it was derived from. Names and descriptions stay off chain, held by their digests.
interface IProductRegistry {
    enum VersionStatus {
        NONE,
        LISTED,
        RETIRED, // no new authorizations
        RECALLED // withdrawn for cause: nothing may be served from it
    }

    struct Product {
        bytes32 space;
        address provider;
        bool capped; // sold only in currencies that have price ceilings
        bool approved; // has required approvers of its own
    }

    /// @notice A digest and the algorithm it was made with.
    struct Digest {
        uint32 algorithm; // multihash code: sha-256 0x12, sm3-256 0x534d, keccak-256 0x1b
        bytes32 value;
    }

    struct Version {
        bytes32 product;
        VersionStatus status;
        uint8 depth; // generations above it: 0 without parents
    }

    event ProductRegistered(bytes32 indexed product, bytes32 indexed space, address indexed provider, bytes32 metadata);
    /// @param metadata SHA-256 of the RFC 8785 canonical metadata
    /// @param policyHash digest of the ODRL policy
    event VersionPublished(
        bytes32 indexed product,
        bytes32 indexed version,
        Digest[] digests,
        bytes32 metadata,
        bytes32 policyHash,
        bytes32[] parents
    );
    event VersionRetired(bytes32 indexed product, bytes32 indexed version, uint16 reason);
    event VersionRecalled(bytes32 indexed product, bytes32 indexed version, address indexed by, uint16 reason);
    event ProductApproversSet(bytes32 indexed product, Requirement[] approvers);
    /// @param ceilings token units per million units of each meter; 0: none
    event PriceCeilingsSet(bytes32 indexed product, address indexed token, uint128[4] ceilings);

    error ProductExists(bytes32 product);
    error ProductUnknown(bytes32 product);
    /// @notice Only the product's provider may do this.
    error ProductNotProvider(bytes32 product, address caller);
    /// @notice The caller is not an active provider in the space.
    error ProductProviderNotActive(bytes32 space, address caller);
    error ProductNotOperator(bytes32 product, address caller);
    error VersionExists(bytes32 version);
    error VersionUnknown(bytes32 version);
    /// @notice A recalled version stays recalled.
    error VersionIsRecalled(bytes32 version);
    /// @notice Digests: at least one, algorithms known and strictly ascending, no value zero.
    error DigestInvalid(uint256 index);
    /// @notice Parents: at most sixteen, strictly ascending, each published and not recalled, at most sixteen generations.
    error ParentInvalid(uint256 index);

    /// @notice Registers a product of the caller in a space where it is an active provider.
    /// @return product keccak256(chain id, registry, provider, space, salt)
    function registerProduct(bytes32 space, bytes32 salt, bytes32 metadata) external returns (bytes32 product);

    /// @notice Publishes content under its digests. Provider only, while it is active in the space.
    /// @dev Parents must exist before their children and an id is the hash of all it stands for: there are no cycles.
    /// @param parents the versions this one was derived from, of any product; ascending
    /// @return version keccak256(product, digests, metadata, policyHash, parents)
    function publishVersion(
        bytes32 product,
        Digest[] calldata digests,
        bytes32 metadata,
        bytes32 policyHash,
        bytes32[] calldata parents
    ) external returns (bytes32 version);

    /// @notice Takes a version off the list: no new authorizations, those open go on. Provider only.
    function retireVersion(bytes32 version, uint16 reason) external;

    /// @notice Withdraws a version for cause: gateways refuse to serve it. By the provider or the space's operator.
    function recallVersion(bytes32 version, uint16 reason) external;

    /// @notice Replaces the approvers that every authorization for the product needs when it opens; at most eight.
    /// Provider only.
    function setProductApprovers(bytes32 product, Requirement[] calldata approvers) external;

    /// @notice Sets the ceiling prices of one currency, in token units per million units of each meter; 0: none.
    /// From then on the product is sold only in currencies that have one. By the space's operator: a ceiling that the
    /// seller sets is none.
    /// @param token ERC-20; in invoiced mode the ISO 4217 code, right-aligned
    function setPriceCeilings(bytes32 product, address token, uint128[4] calldata ceilings) external;

    function spaces() external view returns (ISpaceRegistry);

    function productOf(bytes32 product) external view returns (Product memory);

    function versionOf(bytes32 version) external view returns (Version memory);

    function productApproversOf(bytes32 product) external view returns (Requirement[] memory approvers);

    function priceCeilingsOf(bytes32 product, address token) external view returns (uint128[4] memory ceilings);
}
