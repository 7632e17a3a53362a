// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Data products, by the digest of their content
/// @notice A product belongs to a provider in a space. Each of its versions is named by what it contains and never
/// changes: a correction is a new version. Names and descriptions stay off chain, held by their digests.
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
    }

    /// @notice A digest and the algorithm it was made with.
    struct Digest {
        uint32 algorithm; // multihash code: sha-256 0x12, sm3-256 0x534d, keccak-256 0x1b
        bytes32 value;
    }

    struct Version {
        bytes32 product;
        VersionStatus status;
    }

    event ProductRegistered(bytes32 indexed product, bytes32 indexed space, address indexed provider, bytes32 metadata);
    /// @param metadata SHA-256 of the RFC 8785 canonical metadata
    /// @param policyHash digest of the ODRL policy
    event VersionPublished(
        bytes32 indexed product,
        bytes32 indexed version,
        Digest[] digests,
        bytes32 metadata,
        bytes32 policyHash
    );
    event VersionRetired(bytes32 indexed product, bytes32 indexed version, uint16 reason);
    event VersionRecalled(bytes32 indexed product, bytes32 indexed version, uint16 reason);

    error ProductExists(bytes32 product);
    error ProductUnknown(bytes32 product);
    /// @notice Only the product's provider may do this.
    error ProductNotProvider(bytes32 product, address caller);
    /// @notice The caller is not an active provider in the space.
    error ProductProviderNotActive(bytes32 space, address caller);
    error VersionExists(bytes32 version);
    error VersionUnknown(bytes32 version);
    /// @notice A recalled version stays recalled.
    error VersionIsRecalled(bytes32 version);
    /// @notice Digests: at least one, algorithms known and strictly ascending, no value zero.
    error DigestInvalid(uint256 index);

    /// @notice Registers a product of the caller in a space where it is an active provider.
    /// @return product keccak256(chain id, registry, provider, space, salt)
    function registerProduct(bytes32 space, bytes32 salt, bytes32 metadata) external returns (bytes32 product);

    /// @notice Publishes content under its digests. Provider only.
    /// @return version keccak256(product, digests, metadata, policyHash)
    function publishVersion(
        bytes32 product,
        Digest[] calldata digests,
        bytes32 metadata,
        bytes32 policyHash
    ) external returns (bytes32 version);

    /// @notice Takes a version off the list: no new authorizations, those open go on. Provider only.
    function retireVersion(bytes32 version, uint16 reason) external;

    /// @notice Withdraws a version for cause: gateways refuse to serve it. Provider only.
    function recallVersion(bytes32 version, uint16 reason) external;

    function productOf(bytes32 product) external view returns (Product memory);

    function versionOf(bytes32 version) external view returns (Version memory);
}
