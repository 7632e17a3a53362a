// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";
import {Requirements} from "./libraries/Requirements.sol";
import {Requirement} from "./libraries/Terms.sol";

/// @title Spaces and participants
/// @notice The manual is ISpaceRegistry.
contract SpaceRegistry is ISpaceRegistry, ERC2771Context, ERC165 {
    using Requirements for Requirement[];

    mapping(bytes32 space => Space) private spaces;
    mapping(bytes32 space => mapping(address wallet => Participant)) private participants;
    mapping(bytes32 space => Requirement[]) private approversOf;
    mapping(bytes32 space => mapping(address wallet => mapping(uint16 credentialType => Credential)))
        private credentials;

    constructor(address forwarder) ERC2771Context(forwarder) {}

    modifier onlyOperator(bytes32 space) {
        require(spaces[space].operator != address(0), SpaceUnknown(space));
        require(spaces[space].operator == _msgSender(), SpaceNotOperator(space, _msgSender()));
        _;
    }

    /// @inheritdoc ISpaceRegistry
    function createSpace(bytes32 salt, bytes32 policyDigest, bytes32 codeLists) external returns (bytes32 space) {
        space = keccak256(abi.encode(block.chainid, address(this), _msgSender(), salt));
        require(spaces[space].operator == address(0), SpaceExists(space));

        spaces[space] = Space(_msgSender(), address(0), policyDigest, codeLists);

        emit SpaceCreated(space, _msgSender(), policyDigest, codeLists);
    }

    /// @inheritdoc ISpaceRegistry
    function updateSpace(bytes32 space, bytes32 policyDigest, bytes32 codeLists) external onlyOperator(space) {
        spaces[space].policyDigest = policyDigest;
        spaces[space].codeLists = codeLists;

        emit SpaceUpdated(space, policyDigest, codeLists);
    }

    /// @inheritdoc ISpaceRegistry
    function proposeOperator(bytes32 space, address proposedOperator) external onlyOperator(space) {
        spaces[space].proposedOperator = proposedOperator;

        emit OperatorProposed(space, proposedOperator);
    }

    /// @inheritdoc ISpaceRegistry
    function acceptOperator(bytes32 space) external {
        require(spaces[space].operator != address(0), SpaceUnknown(space));
        require(spaces[space].proposedOperator == _msgSender(), SpaceNotProposed(space, _msgSender()));

        spaces[space].operator = _msgSender();
        spaces[space].proposedOperator = address(0);

        emit OperatorChanged(space, _msgSender());
    }

    /// @inheritdoc ISpaceRegistry
    function admit(bytes32 space, address wallet, uint32 roles, bytes32 digest) external onlyOperator(space) {
        require(wallet != address(0) && roles != 0, ParticipantInvalid(wallet, roles));

        participants[space][wallet].roles = roles;
        participants[space][wallet].digest = digest;

        emit ParticipantAdmitted(space, wallet, roles, digest);
    }

    /// @inheritdoc ISpaceRegistry
    function suspend(bytes32 space, address wallet, uint16 reason) external onlyOperator(space) {
        require(participants[space][wallet].roles != 0, ParticipantUnknown(space, wallet));

        participants[space][wallet].suspended = true;

        emit ParticipantSuspended(space, wallet, reason);
    }

    /// @inheritdoc ISpaceRegistry
    function reinstate(bytes32 space, address wallet) external onlyOperator(space) {
        require(participants[space][wallet].roles != 0, ParticipantUnknown(space, wallet));

        participants[space][wallet].suspended = false;

        emit ParticipantReinstated(space, wallet);
    }

    /// @inheritdoc ISpaceRegistry
    function setSpaceApprovers(bytes32 space, Requirement[] calldata approvers) external onlyOperator(space) {
        require(approvers.areSound(), ApproversInvalid(approvers.length));

        approversOf[space].replaceBy(approvers);

        emit SpaceApproversSet(space, approvers);
    }

    /// @inheritdoc ISpaceRegistry
    function recordCredential(
        bytes32 space,
        address wallet,
        uint16 credentialType,
        bytes32 digest,
        uint40 validUntil
    ) external onlyOperator(space) {
        require(participants[space][wallet].roles != 0, ParticipantUnknown(space, wallet));
        require(digest != 0 && validUntil > block.timestamp, CredentialInvalid(digest, validUntil));

        credentials[space][wallet][credentialType] = Credential(digest, validUntil, false);

        emit CredentialRecorded(space, wallet, credentialType, digest, validUntil);
    }

    /// @inheritdoc ISpaceRegistry
    function revokeCredential(
        bytes32 space,
        address wallet,
        uint16 credentialType,
        uint16 reason
    ) external onlyOperator(space) {
        Credential storage credential = credentials[space][wallet][credentialType];
        require(credential.digest != 0 && !credential.revoked, CredentialUnknown(space, wallet, credentialType));

        credential.revoked = true;

        emit CredentialRevoked(space, wallet, credentialType, reason);
    }

    /// @inheritdoc ISpaceRegistry
    function spaceOf(bytes32 space) external view returns (Space memory) {
        return spaces[space];
    }

    /// @inheritdoc ISpaceRegistry
    function participantOf(bytes32 space, address wallet) external view returns (Participant memory) {
        return participants[space][wallet];
    }

    /// @inheritdoc ISpaceRegistry
    function isActive(bytes32 space, address wallet, uint32 roles) external view returns (bool) {
        Participant storage participant = participants[space][wallet];
        uint32 held = participant.roles;
        return !participant.suspended && held != 0 && held & roles == roles;
    }

    /// @inheritdoc ISpaceRegistry
    function codeListsOf(bytes32 space) external view returns (bytes32) {
        return spaces[space].codeLists;
    }

    /// @inheritdoc ISpaceRegistry
    function operatorOf(bytes32 space) external view returns (address) {
        return spaces[space].operator;
    }

    /// @inheritdoc ISpaceRegistry
    function spaceApproversOf(bytes32 space) external view returns (Requirement[] memory) {
        return approversOf[space];
    }

    /// @inheritdoc ISpaceRegistry
    function credentialOf(
        bytes32 space,
        address wallet,
        uint16 credentialType
    ) external view returns (Credential memory) {
        return credentials[space][wallet][credentialType];
    }

    /// @inheritdoc ISpaceRegistry
    function validCredential(bytes32 space, address wallet, uint16 credentialType) external view returns (bytes32) {
        Credential storage credential = credentials[space][wallet][credentialType];
        bool valid = !credential.revoked && block.timestamp <= credential.validUntil;
        return valid ? credential.digest : bytes32(0);
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(ISpaceRegistry).interfaceId || super.supportsInterface(id);
    }
}
