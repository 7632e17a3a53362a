// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Requirement} from "../libraries/Terms.sol";

/// @title Spaces and who takes part in them
/// @notice A space is a governed place where participants exchange data products. Its operator admits and suspends
/// participants, records their credentials and names the approvers every authorization in the space needs. Names and free
/// text stay off chain: the registry holds addresses, codes and digests.
interface ISpaceRegistry {
    struct Space {
        address operator;
        address proposedOperator; // zero unless a hand-over is under way
        bytes32 policyDigest; // the space's rule book
        bytes32 codeLists; // what purpose, modality and reason codes mean
    }

    struct Participant {
        uint32 roles; // bits: 1 provider, 2 consumer, 4 approver, 8 auditor, 16 metering agent, 32 rights holder
        bool suspended;
        bytes32 digest; // salted commitment to who this is
    }

    /// @notice Something an authority has established about a participant, such as its organisation, the security level
    /// of its connector, a cryptography assessment, its supply chain, or a licence (code list `credentials`).
    struct Credential {
        bytes32 digest; // salted commitment to the document
        uint40 validUntil; // seconds, inclusive
        bool revoked;
    }

    event SpaceCreated(bytes32 indexed space, address indexed operator, bytes32 policyDigest, bytes32 codeLists);
    event SpaceUpdated(bytes32 indexed space, bytes32 policyDigest, bytes32 codeLists);
    event OperatorProposed(bytes32 indexed space, address indexed proposedOperator);
    event OperatorChanged(bytes32 indexed space, address indexed operator);
    /// @notice Admitted, or admitted again with other roles.
    event ParticipantAdmitted(bytes32 indexed space, address indexed wallet, uint32 roles, bytes32 digest);
    event ParticipantSuspended(bytes32 indexed space, address indexed wallet, uint16 reason);
    event ParticipantReinstated(bytes32 indexed space, address indexed wallet);
    event SpaceApproversSet(bytes32 indexed space, Requirement[] approvers);
    /// @notice Recorded, or recorded anew: the last one counts.
    event CredentialRecorded(
        bytes32 indexed space,
        address indexed wallet,
        uint16 indexed credentialType,
        bytes32 digest,
        uint40 validUntil
    );
    event CredentialRevoked(
        bytes32 indexed space,
        address indexed wallet,
        uint16 indexed credentialType,
        uint16 reason
    );

    error SpaceExists(bytes32 space);
    error SpaceUnknown(bytes32 space);
    /// @notice Only the space's operator may do this.
    error SpaceNotOperator(bytes32 space, address caller);
    /// @notice The hand-over was not proposed to the caller.
    error SpaceNotProposed(bytes32 space, address caller);
    error ParticipantInvalid(address wallet, uint32 roles);
    error ParticipantUnknown(bytes32 space, address wallet);
    /// @notice More than eight approvers, or one that is the zero address.
    error ApproversInvalid(uint256 count);
    /// @notice The digest is zero, or the credential would have run out already.
    error CredentialInvalid(bytes32 digest, uint40 validUntil);
    error CredentialUnknown(bytes32 space, address wallet, uint16 credentialType);

    /// @notice Creates a space with the caller as operator.
    /// @param salt chosen by the operator, so that it can run more than one space
    /// @return space keccak256(chain id, registry, operator, salt)
    function createSpace(bytes32 salt, bytes32 policyDigest, bytes32 codeLists) external returns (bytes32 space);

    /// @notice Replaces rule book and code lists. Authorizations already open keep what they signed.
    function updateSpace(bytes32 space, bytes32 policyDigest, bytes32 codeLists) external;

    /// @notice First step of a hand-over; the zero address withdraws a proposal.
    function proposeOperator(bytes32 space, address proposedOperator) external;

    /// @notice Second step: the proposed operator takes over.
    function acceptOperator(bytes32 space) external;

    /// @notice Admits a wallet, or changes its roles; leaves a suspension as it is. Operator only.
    function admit(bytes32 space, address wallet, uint32 roles, bytes32 digest) external;

    /// @notice A suspended participant can open nothing and is served nothing, but is still paid. Operator only.
    function suspend(bytes32 space, address wallet, uint16 reason) external;

    /// @notice Ends a suspension. Operator only.
    function reinstate(bytes32 space, address wallet) external;

    /// @notice Replaces the approvers that every authorization in the space needs when it opens; at most eight.
    function setSpaceApprovers(bytes32 space, Requirement[] calldata approvers) external;

    /// @notice Records a credential of a participant, in place of any of that type. Operator only.
    function recordCredential(
        bytes32 space,
        address wallet,
        uint16 credentialType,
        bytes32 digest,
        uint40 validUntil
    ) external;

    /// @notice Ends a credential before its time. Operator only.
    function revokeCredential(bytes32 space, address wallet, uint16 credentialType, uint16 reason) external;

    function spaceOf(bytes32 space) external view returns (Space memory);

    function participantOf(bytes32 space, address wallet) external view returns (Participant memory);

    /// @notice True if the wallet is admitted, not suspended, and has every role bit of `roles`.
    function isActive(bytes32 space, address wallet, uint32 roles) external view returns (bool);

    function codeListsOf(bytes32 space) external view returns (bytes32 codeLists);

    function operatorOf(bytes32 space) external view returns (address operator);

    function spaceApproversOf(bytes32 space) external view returns (Requirement[] memory approvers);

    function credentialOf(
        bytes32 space,
        address wallet,
        uint16 credentialType
    ) external view returns (Credential memory);

    /// @notice The digest of a credential that is neither over nor revoked; zero if there is none.
    function validCredential(
        bytes32 space,
        address wallet,
        uint16 credentialType
    ) external view returns (bytes32 digest);
}
