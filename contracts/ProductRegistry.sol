// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProductRegistry} from "./interfaces/IProductRegistry.sol";
import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";

/// @title Data products
/// @notice The manual is IProductRegistry.
contract ProductRegistry is IProductRegistry {
    uint32 private constant PROVIDER_ROLE = 1;

    ISpaceRegistry public immutable spaces;

    mapping(bytes32 product => Product) private products;
    mapping(bytes32 version => Version) private versions;

    constructor(ISpaceRegistry spaces_) {
        spaces = spaces_;
    }

    modifier onlyProvider(bytes32 product) {
        require(products[product].provider != address(0), ProductUnknown(product));
        require(products[product].provider == msg.sender, ProductNotProvider(product, msg.sender));
        _;
    }

    /// @inheritdoc IProductRegistry
    function registerProduct(bytes32 space, bytes32 salt, bytes32 metadata) external returns (bytes32 product) {
        product = keccak256(abi.encode(block.chainid, address(this), msg.sender, space, salt));
        require(products[product].provider == address(0), ProductExists(product));
        require(spaces.isActive(space, msg.sender, PROVIDER_ROLE), ProductProviderNotActive(space, msg.sender));

        products[product] = Product(space, msg.sender);

        emit ProductRegistered(product, space, msg.sender, metadata);
    }

    /// @inheritdoc IProductRegistry
    function publishVersion(
        bytes32 product,
        Digest[] calldata digests,
        bytes32 metadata,
        bytes32 policyHash
    ) external onlyProvider(product) returns (bytes32 version) {
        require(digests.length > 0, DigestInvalid(0));
        uint32 previous = 0;
        for (uint256 i = 0; i < digests.length; ++i) {
            uint32 algorithm = digests[i].algorithm;
            bool known = algorithm == 0x12 || algorithm == 0x1b || algorithm == 0x534d;
            require(known && algorithm > previous && digests[i].value != 0, DigestInvalid(i));
            previous = algorithm;
        }
        version = keccak256(abi.encode(product, digests, metadata, policyHash));
        require(versions[version].status == VersionStatus.NONE, VersionExists(version));

        versions[version] = Version(product, VersionStatus.LISTED);

        emit VersionPublished(product, version, digests, metadata, policyHash);
    }

    /// @inheritdoc IProductRegistry
    function retireVersion(bytes32 version, uint16 reason) external {
        bytes32 product = checkOwnVersion(version);

        versions[version].status = VersionStatus.RETIRED;

        emit VersionRetired(product, version, reason);
    }

    /// @inheritdoc IProductRegistry
    function recallVersion(bytes32 version, uint16 reason) external {
        bytes32 product = checkOwnVersion(version);

        versions[version].status = VersionStatus.RECALLED;

        emit VersionRecalled(product, version, reason);
    }

    /// @inheritdoc IProductRegistry
    function productOf(bytes32 product) external view returns (Product memory) {
        return products[product];
    }

    /// @inheritdoc IProductRegistry
    function versionOf(bytes32 version) external view returns (Version memory) {
        return versions[version];
    }

    function checkOwnVersion(bytes32 version) private view returns (bytes32 product) {
        product = versions[version].product;
        require(product != 0, VersionUnknown(version));
        require(products[product].provider == msg.sender, ProductNotProvider(product, msg.sender));
        require(versions[version].status != VersionStatus.RECALLED, VersionIsRecalled(version));
    }
}
