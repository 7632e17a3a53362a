// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";

/// @title Spaces and participants
/// @notice The manual is ISpaceRegistry.
contract SpaceRegistry is ISpaceRegistry {
    mapping(bytes32 space => Space) private spaces;
    mapping(bytes32 space => mapping(address wallet => Participant)) private participants;

    modifier onlyOperator(bytes32 space) {
        require(spaces[space].operator != address(0), SpaceUnknown(space));
        require(spaces[space].operator == msg.sender, SpaceNotOperator(space, msg.sender));
        _;
    }

    /// @inheritdoc ISpaceRegistry
    function createSpace(bytes32 salt, bytes32 policyDigest, bytes32 codeLists) external returns (bytes32 space) {
        space = keccak256(abi.encode(block.chainid, address(this), msg.sender, salt));
        require(spaces[space].operator == address(0), SpaceExists(space));

        spaces[space] = Space(msg.sender, address(0), policyDigest, codeLists);

        emit SpaceCreated(space, msg.sender, policyDigest, codeLists);
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
        require(spaces[space].proposedOperator == msg.sender, SpaceNotProposed(space, msg.sender));

        spaces[space].operator = msg.sender;
        spaces[space].proposedOperator = address(0);

        emit OperatorChanged(space, msg.sender);
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
        return !participant.suspended && participant.roles & roles == roles;
    }
}
