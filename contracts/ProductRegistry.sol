// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

import {IProductRegistry} from "./interfaces/IProductRegistry.sol";
import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";
import {Requirements} from "./libraries/Requirements.sol";
import {Requirement} from "./libraries/Terms.sol";

/// @title Data products
/// @notice The manual is IProductRegistry.
contract ProductRegistry is IProductRegistry, ERC2771Context, ERC165 {
    using Requirements for Requirement[];

    uint32 private constant PROVIDER_ROLE = 1;
    uint256 private constant MAX_PARENTS = 16;
    uint8 private constant MAX_DEPTH = 16;

    ISpaceRegistry public immutable spaces;

    mapping(bytes32 product => Product) private products;
    mapping(bytes32 version => Version) private versions;
    mapping(bytes32 product => Requirement[]) private approversOf;
    mapping(bytes32 product => mapping(address token => uint128[4])) private ceilingsOf;

    constructor(ISpaceRegistry spaces_, address forwarder) ERC2771Context(forwarder) {
        spaces = spaces_;
    }

    modifier onlyProvider(bytes32 product) {
        require(products[product].provider != address(0), ProductUnknown(product));
        require(products[product].provider == _msgSender(), ProductNotProvider(product, _msgSender()));
        _;
    }

    /// @inheritdoc IProductRegistry
    function registerProduct(bytes32 space, bytes32 salt, bytes32 metadata) external returns (bytes32 product) {
        address provider = _msgSender();
        product = keccak256(abi.encode(block.chainid, address(this), provider, space, salt));
        require(products[product].provider == address(0), ProductExists(product));
        requireActive(space, provider);

        products[product] = Product(space, provider, false, false);

        emit ProductRegistered(product, space, provider, metadata);
    }

    /// @inheritdoc IProductRegistry
    function publishVersion(
        bytes32 product,
        Digest[] calldata digests,
        bytes32 metadata,
        bytes32 policyHash,
        bytes32[] calldata parents
    ) external onlyProvider(product) returns (bytes32 version) {
        requireActive(products[product].space, _msgSender());
        checkDigests(digests);
        version = keccak256(abi.encode(product, digests, metadata, policyHash, parents));
        require(versions[version].status == VersionStatus.NONE, VersionExists(version));

        versions[version] = Version(product, VersionStatus.LISTED, depthUnder(parents));

        emit VersionPublished(product, version, digests, metadata, policyHash, parents);
    }

    function checkDigests(Digest[] calldata digests) private pure {
        require(digests.length > 0, DigestInvalid(0));
        uint32 previous = 0;
        for (uint256 i = 0; i < digests.length; ++i) {
            uint32 algorithm = digests[i].algorithm;
            bool known = algorithm == 0x12 || algorithm == 0x1b || algorithm == 0x534d;
            require(known && algorithm > previous && digests[i].value != 0, DigestInvalid(i));
            previous = algorithm;
        }
    }

    /// @dev One more than the deepest parent.
    function depthUnder(bytes32[] calldata parents) private view returns (uint8 depth) {
        require(parents.length <= MAX_PARENTS, ParentInvalid(MAX_PARENTS));
        bytes32 previous = 0;
        for (uint256 i = 0; i < parents.length; ++i) {
            Version storage parent = versions[parents[i]];
            VersionStatus status = parent.status;
            bool known = status == VersionStatus.LISTED || status == VersionStatus.RETIRED;
            require(known && parents[i] > previous && parent.depth < MAX_DEPTH, ParentInvalid(i));
            if (parent.depth >= depth) depth = parent.depth + 1;
            previous = parents[i];
        }
    }

    /// @inheritdoc IProductRegistry
    function retireVersion(bytes32 version, uint16 reason) external {
        bytes32 product = standing(version);
        require(products[product].provider == _msgSender(), ProductNotProvider(product, _msgSender()));

        versions[version].status = VersionStatus.RETIRED;

        emit VersionRetired(product, version, reason);
    }

    /// @inheritdoc IProductRegistry
    function recallVersion(bytes32 version, uint16 reason) external {
        bytes32 product = standing(version);
        Product storage owned = products[product];
        require(
            owned.provider == _msgSender() || spaces.operatorOf(owned.space) == _msgSender(),
            ProductNotProvider(product, _msgSender())
        );

        versions[version].status = VersionStatus.RECALLED;

        emit VersionRecalled(product, version, _msgSender(), reason);
    }

    /// @inheritdoc IProductRegistry
    function setProductApprovers(bytes32 product, Requirement[] calldata approvers) external onlyProvider(product) {
        require(approvers.areSound(), ISpaceRegistry.ApproversInvalid(approvers.length));

        approversOf[product].replaceBy(approvers);
        products[product].approved = approvers.length > 0;

        emit ProductApproversSet(product, approvers);
    }

    /// @inheritdoc IProductRegistry
    function setPriceCeilings(bytes32 product, address token, uint128[4] calldata ceilings) external {
        Product storage capped = products[product];
        require(capped.provider != address(0), ProductUnknown(product));
        require(spaces.operatorOf(capped.space) == _msgSender(), ProductNotOperator(product, _msgSender()));

        ceilingsOf[product][token] = ceilings;
        capped.capped = true;

        emit PriceCeilingsSet(product, token, ceilings);
    }

    function requireActive(bytes32 space, address provider) private view {
        require(spaces.isActive(space, provider, PROVIDER_ROLE), ProductProviderNotActive(space, provider));
    }

    /// @dev The product of a version that is not recalled.
    function standing(bytes32 version) private view returns (bytes32 product) {
        product = versions[version].product;
        require(product != 0, VersionUnknown(version));
        require(versions[version].status != VersionStatus.RECALLED, VersionIsRecalled(version));
    }

    /// @inheritdoc IProductRegistry
    function productOf(bytes32 product) external view returns (Product memory) {
        return products[product];
    }

    /// @inheritdoc IProductRegistry
    function versionOf(bytes32 version) external view returns (Version memory) {
        return versions[version];
    }

    /// @inheritdoc IProductRegistry
    function productApproversOf(bytes32 product) external view returns (Requirement[] memory) {
        return approversOf[product];
    }

    /// @inheritdoc IProductRegistry
    function priceCeilingsOf(bytes32 product, address token) external view returns (uint128[4] memory) {
        return ceilingsOf[product][token];
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IProductRegistry).interfaceId || super.supportsInterface(id);
    }
}
