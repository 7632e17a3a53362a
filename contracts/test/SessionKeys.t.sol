// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionKeys} from "../SessionKeys.sol";
import {IAdmission} from "../interfaces/IAdmission.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {ISessionKeys} from "../interfaces/ISessionKeys.sol";
import {
    Approval,
    AuthorizationTerms,
    CompactTerms,
    Head,
    Offer,
    Requirement,
    Terms,
    UsageCeiling
} from "../libraries/Terms.sol";
import {AgreeingWallet} from "../mocks/Wallets.sol";
import {Checks} from "./Checks.sol";
import {World} from "./World.sol";

/// @title What the tests of session keys share
abstract contract Keys is World, Checks {
    uint256 internal constant KEY = 0x5e55;
    uint256 internal constant OTHER_KEY = 0x5e56;
    uint256 internal constant SKEW = 15 minutes;
    uint256 internal constant KEY_THAW = 30 days;
    uint40 internal constant EXPIRY = uint40(START + 5 * DAY);
    uint128 internal constant CAP = 1_000_000;

    address internal key = vm.addr(KEY);

    /// @dev The key's own word, over a contract of my choice.
    function possessionOf(
        uint256 signer,
        address of_,
        address wallet,
        address named,
        uint40 expiry,
        uint128 maxDue
    ) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256("SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)");
        bytes32 structHash = keccak256(abi.encode(typeHash, wallet, named, expiry, maxDue));
        return sign(signer, digests.digest(of_, structHash));
    }

    function registered(address wallet, uint256 newKey, uint40 expiry, uint128 maxDue) internal {
        address named = vm.addr(newKey);
        bytes memory possession = possessionOf(newKey, address(sessionKeys), wallet, named, expiry, maxDue);
        vm.prank(wallet);
        sessionKeys.registerSessionKey(named, expiry, maxDue, possession);
    }

    function revoked(address wallet) internal {
        vm.prank(wallet);
        sessionKeys.revokeSessionKey(key);
    }
}

/// @title Registration, revocation, bounds
contract SessionKeysTest is Keys {
    function refusesKey(
        address named,
        uint40 expiry,
        uint128 maxDue,
        bytes memory possession,
        bytes memory refusal
    ) private {
        assertRefused(
            consumer,
            address(sessionKeys),
            abi.encodeCall(sessionKeys.registerSessionKey, (named, expiry, maxDue, possession)),
            refusal
        );
    }

    /// @dev Everything is right but the bounds.
    function refusesBounds(uint256 newKey, uint40 expiry, uint128 maxDue) private {
        address named = vm.addr(newKey);
        refusesKey(
            named,
            expiry,
            maxDue,
            possessionOf(newKey, address(sessionKeys), consumer, named, expiry, maxDue),
            abi.encodeWithSelector(ISessionKeys.SessionKeyInvalid.selector, named, expiry, maxDue)
        );
    }

    /// @dev Everything is right but what the key has signed.
    function refusesPossession(bytes memory possession) private {
        bytes memory refusal = abi.encodeWithSelector(ISessionKeys.PossessionNotProven.selector, key);
        refusesKey(key, EXPIRY, CAP, possession, refusal);
        assertEq(sessionKeys.sessionKeyOf(consumer, key).since, 0, "not registered");
    }

    // ------------------------------------------------------------------------------------------- register

    function test_a_key_is_registered_with_its_bounds() external {
        bytes memory possession = possessionOf(KEY, address(sessionKeys), consumer, key, EXPIRY, CAP);
        vm.recordLogs();
        vm.prank(consumer);
        sessionKeys.registerSessionKey(key, EXPIRY, CAP, possession);
        emit ISessionKeys.SessionKeyRegistered(consumer, key, EXPIRY, CAP);

        assertEmitted(address(sessionKeys));
        ISessionKeys.SessionKey memory found = sessionKeys.sessionKeyOf(consumer, key);
        assertEq(found.since, START, "since");
        assertEq(found.expiry, EXPIRY, "expiry");
        assertEq(found.revokedAt, 0, "not revoked");
        assertEq(found.maxDue, CAP, "cap");
    }

    function test_a_cap_is_not_zero() external {
        refusesBounds(KEY, EXPIRY, 0);
        registered(consumer, KEY, EXPIRY, 1);
        assertEq(sessionKeys.capOf(consumer, key, uint40(START)), 1, "one is enough");
    }

    function test_a_key_has_not_expired_when_it_is_registered() external {
        refusesBounds(KEY, uint40(START), CAP);
        refusesBounds(KEY, 0, CAP);
        registered(consumer, KEY, uint40(START + 1), CAP);
        assertEq(sessionKeys.sessionKeyOf(consumer, key).expiry, START + 1, "a second is enough");
    }

    function test_a_wallet_is_no_session_key_of_its_own() external {
        refusesBounds(CONSUMER, EXPIRY, CAP);
    }

    function test_a_registration_is_never_changed() external {
        registered(consumer, KEY, EXPIRY, CAP);
        bytes memory again = possessionOf(KEY, address(sessionKeys), consumer, key, EXPIRY + 1, CAP + 1);
        bytes memory refusal = abi.encodeWithSelector(ISessionKeys.SessionKeyExists.selector, consumer, key);
        refusesKey(key, EXPIRY + 1, CAP + 1, again, refusal);
        revoked(consumer);
        refusesKey(key, EXPIRY + 1, CAP + 1, again, refusal);
        vm.warp(EXPIRY);
        refusesKey(key, EXPIRY + 1, CAP + 1, again, refusal);
        assertEq(sessionKeys.sessionKeyOf(consumer, key).maxDue, CAP, "cap");
        assertEq(sessionKeys.sessionKeyOf(consumer, key).expiry, EXPIRY, "expiry");
    }

    function test_the_key_itself_must_have_signed() external {
        refusesPossession("");
        refusesPossession(new bytes(65));
        refusesPossession(possessionOf(OTHER_KEY, address(sessionKeys), consumer, key, EXPIRY, CAP));
        refusesPossession(possessionOf(CONSUMER, address(sessionKeys), consumer, key, EXPIRY, CAP));
        refusesPossession(possessionOf(KEY, address(sessionKeys), consumer, vm.addr(OTHER_KEY), EXPIRY, CAP));
    }

    function test_a_key_signs_for_one_wallet_and_others_cannot_replay_it() external {
        registered(provider, KEY, EXPIRY, CAP);
        refusesPossession(possessionOf(KEY, address(sessionKeys), provider, key, EXPIRY, CAP));
    }

    function test_a_key_signs_for_its_bounds() external {
        refusesPossession(possessionOf(KEY, address(sessionKeys), consumer, key, EXPIRY - 1, CAP));
        refusesPossession(possessionOf(KEY, address(sessionKeys), consumer, key, EXPIRY, CAP - 1));
    }

    function test_a_key_signs_for_one_contract() external {
        SessionKeys other = new SessionKeys(address(forwarder));
        refusesPossession(possessionOf(KEY, address(other), consumer, key, EXPIRY, CAP));
    }

    function test_a_key_signs_for_one_chain() external {
        vm.chainId(2);
        bytes memory elsewhere = possessionOf(KEY, address(sessionKeys), consumer, key, EXPIRY, CAP);
        vm.chainId(1);
        refusesPossession(elsewhere);
        registered(consumer, KEY, EXPIRY, CAP);
        assertEq(sessionKeys.sessionKeyOf(consumer, key).maxDue, CAP, "its own chain");
    }

    function test_the_zero_address_is_no_key() external {
        bytes memory refusal = abi.encodeWithSelector(ISessionKeys.PossessionNotProven.selector, address(0));
        refusesKey(address(0), EXPIRY, CAP, new bytes(65), refusal);
        refusesKey(address(0), EXPIRY, CAP, "", refusal);
    }

    function test_a_contract_is_no_key() external {
        address wallet = address(new AgreeingWallet());
        bytes memory refusal = abi.encodeWithSelector(ISessionKeys.PossessionNotProven.selector, wallet);
        refusesKey(wallet, EXPIRY, CAP, "", refusal);
    }

    function test_one_key_may_serve_two_wallets_with_bounds_of_their_own() external {
        registered(consumer, KEY, EXPIRY, CAP);
        registered(agent, KEY, EXPIRY + 1, CAP + 1);
        assertEq(sessionKeys.capOf(consumer, key, uint40(START)), CAP, "consumer's");
        assertEq(sessionKeys.capOf(agent, key, uint40(START)), CAP + 1, "agent's");
    }

    // --------------------------------------------------------------------------------------------- revoke

    function test_a_revoked_key_keeps_its_registration() external {
        registered(consumer, KEY, EXPIRY, CAP);
        vm.warp(START + 100);
        vm.recordLogs();
        revoked(consumer);
        emit ISessionKeys.SessionKeyRevoked(consumer, key);

        assertEmitted(address(sessionKeys));
        ISessionKeys.SessionKey memory found = sessionKeys.sessionKeyOf(consumer, key);
        assertEq(found.since, START, "since");
        assertEq(found.expiry, EXPIRY, "expiry");
        assertEq(found.revokedAt, START + 100, "revoked");
        assertEq(found.maxDue, CAP, "cap");
    }

    function refusesRevoking(address wallet) private {
        assertRefused(
            wallet,
            address(sessionKeys),
            abi.encodeCall(sessionKeys.revokeSessionKey, (key)),
            abi.encodeWithSelector(ISessionKeys.SessionKeyUnknown.selector, wallet, key)
        );
    }

    function test_an_unknown_key_cannot_be_revoked() external {
        refusesRevoking(consumer);
    }

    function test_a_key_is_revoked_once() external {
        registered(consumer, KEY, EXPIRY, CAP);
        revoked(consumer);
        vm.warp(START + 100);
        refusesRevoking(consumer);
        assertEq(sessionKeys.sessionKeyOf(consumer, key).revokedAt, START, "as it was");
    }

    function test_only_the_wallet_revokes_its_key() external {
        registered(consumer, KEY, EXPIRY, CAP);
        refusesRevoking(stranger);
        refusesRevoking(key);
        registered(agent, KEY, EXPIRY, CAP);
        revoked(agent);
        assertEq(sessionKeys.sessionKeyOf(consumer, key).revokedAt, 0, "another wallet's is another");
    }

    // ---------------------------------------------------------------------------------------------- bounds

    function capAt(uint256 time, uint256 asOf) private returns (uint128) {
        vm.warp(time);
        return sessionKeys.capOf(consumer, key, uint40(asOf));
    }

    /// @dev A key whose life ends then.
    function endsAt(uint256 end) private {
        assertEq(capAt(end, end), CAP, "on its last second");
        assertEq(capAt(end, end + SKEW), CAP, "a clock that is fast");
        assertEq(capAt(end + SKEW, end + SKEW), CAP, "when that time has come");
        assertEq(capAt(end + SKEW, end + SKEW + 1), 0, "a clock that is too fast");
        assertEq(capAt(end + KEY_THAW, end), CAP, "the last second to settle");
        assertEq(capAt(end + KEY_THAW, end + SKEW), CAP, "the last second for the last head");
        assertEq(capAt(end + KEY_THAW + 1, end), 0, "too late to settle");
        assertEq(capAt(end + KEY_THAW + 1, START), 0, "too late for any head");
    }

    function test_an_unknown_key_may_sign_nothing() external {
        assertEq(capAt(START, 0), 0, "long ago");
        assertEq(capAt(START, START), 0, "now");
        vm.warp(1);
        assertEq(sessionKeys.capOf(consumer, key, 0), 0, "at the beginning of time");
    }

    function test_a_key_ends_when_it_expires() external {
        registered(consumer, KEY, EXPIRY, CAP);
        endsAt(EXPIRY);
    }

    function test_a_key_ends_when_it_is_revoked_before_it_expires() external {
        registered(consumer, KEY, EXPIRY, CAP);
        vm.warp(START + 100);
        revoked(consumer);
        endsAt(START + 100);
    }

    function test_revoking_an_expired_key_does_not_prolong_it() external {
        registered(consumer, KEY, EXPIRY, CAP);
        vm.warp(EXPIRY + 20 * DAY);
        revoked(consumer);
        endsAt(EXPIRY);
    }

    function test_a_cap_is_for_wallet_and_key_together() external {
        registered(consumer, KEY, EXPIRY, CAP);
        assertEq(sessionKeys.capOf(provider, key, uint40(START)), 0, "another wallet");
        assertEq(sessionKeys.capOf(consumer, vm.addr(OTHER_KEY), uint40(START)), 0, "another key");
        assertEq(sessionKeys.capOf(key, consumer, uint40(START)), 0, "the other way round");
    }
}

/// @title What session keys may sign at the ledger
contract SessionKeysAtTheLedgerTest is Keys {
    /// @dev 120 calls and 500 rows.
    uint128 private constant PRICE = 2_460_000;

    function longTerms() private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.validUntil = uint40(START + 90 * DAY);
        opened(terms, 10_000_000);
    }

    function headAt(uint256 asOf) private view returns (Head memory head) {
        head = headOf(10, 120, 500);
        head.asOf = uint40(asOf);
    }

    function settlementAt(
        AuthorizationTerms memory terms,
        uint256 asOf
    ) private view returns (IAuthorizations.Settlement memory) {
        return settlementOf(terms, noHead(), headAt(asOf));
    }

    function byKey(IAuthorizations.Settlement memory settlement, bytes32 id) private view returns (bytes memory) {
        return sign(KEY, digests.head(address(ledger), id, settlement.head));
    }

    /// @dev The consumer's signature is the session key's.
    function signedByKey(
        AuthorizationTerms memory terms,
        uint256 asOf
    ) private view returns (IAuthorizations.Settlement memory settlement) {
        settlement = settlementAt(terms, asOf);
        settlement.consumerSignature = byKey(settlement, idOf(terms));
    }

    function notBy(address wallet) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAuthorizations.SignatureInvalid.selector, wallet);
    }

    function refusesSettlement(IAuthorizations.Settlement memory settlement, bytes memory refusal) private {
        refuses(refusal);
        ledger.settle(settlement);
    }

    function settles(AuthorizationTerms memory terms, IAuthorizations.Settlement memory settlement) private {
        ledger.settle(settlement);
        bytes32 expected = digests.head(address(ledger), idOf(terms), settlement.head);
        assertEq(ledger.authorizationOf(idOf(terms)).headDigest, expected, "settled");
    }

    function test_a_consumers_key_settles_up_to_exactly_its_cap() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        bytes32 id = idOf(terms);
        IAuthorizations.Settlement memory settlement = signedByKey(terms, START);
        vm.recordLogs();
        ledger.settle(settlement);
        emit IAuthorizations.Settled(
            id,
            settlement.head,
            PRICE,
            PRICE,
            0,
            provider,
            key,
            IAuthorizations.Basis.CONSUMER
        );
        assertEmitted(address(ledger));
    }

    function test_a_consumers_key_settles_not_one_unit_more_than_its_cap() external {
        registered(consumer, KEY, EXPIRY, PRICE - 1);
        AuthorizationTerms memory terms = longTerms();
        refusesSettlement(signedByKey(terms, START), notBy(consumer));

        IAuthorizations.Settlement memory settlement = settlementAt(terms, START);
        settlement.head.credits = 1; // and so one unit less
        bytes32 digest = digests.head(address(ledger), idOf(terms), settlement.head);
        settlement.providerSignature = sign(PROVIDER, digest);
        settlement.consumerSignature = sign(KEY, digest);
        settles(terms, settlement);
    }

    function test_a_cap_is_over_the_lifetime_of_an_authorization() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory first = signedByKey(terms, START);
        settles(terms, first);

        Head memory next = headOf(11, 121, 500); // one call more
        IAuthorizations.Settlement memory second = settlementOf(terms, first.head, next);
        bytes memory own = second.consumerSignature;
        second.consumerSignature = byKey(second, idOf(terms));
        refusesSettlement(second, notBy(consumer));
        second.consumerSignature = own;
        settles(terms, second);
    }

    function test_a_cap_is_for_each_authorization() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory first = longTerms();
        AuthorizationTerms memory second = longTerms();
        settles(first, signedByKey(first, START));
        settles(second, signedByKey(second, START));
    }

    function test_a_providers_key_settles_up_to_its_cap() external {
        registered(provider, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        bytes32 id = idOf(terms);
        IAuthorizations.Settlement memory settlement = settlementAt(terms, START);
        settlement.providerSignature = byKey(settlement, id);
        vm.recordLogs();
        ledger.settle(settlement);
        emit IAuthorizations.Settled(
            id,
            settlement.head,
            PRICE,
            PRICE,
            0,
            key,
            consumer,
            IAuthorizations.Basis.CONSUMER
        );
        assertEmitted(address(ledger));
    }

    function test_a_providers_key_settles_not_one_unit_more_than_its_cap() external {
        registered(provider, KEY, EXPIRY, PRICE - 1);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory settlement = settlementAt(terms, START);
        settlement.providerSignature = byKey(settlement, idOf(terms));
        refusesSettlement(settlement, notBy(provider));
    }

    function agentTerms(uint8 flags) private returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.meteringAgent = agent;
        terms.flags = flags;
        opened(terms, 10_000_000);
    }

    function test_a_metering_agents_key_settles_up_to_its_cap() external {
        registered(agent, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = agentTerms(0);
        bytes32 id = idOf(terms);
        IAuthorizations.Settlement memory settlement = signedByKey(terms, START);
        vm.recordLogs();
        ledger.settle(settlement);
        emit IAuthorizations.Settled(id, settlement.head, PRICE, PRICE, 0, provider, key, IAuthorizations.Basis.AGENT);
        assertEmitted(address(ledger));
    }

    function test_a_metering_agents_key_settles_not_one_unit_more_than_its_cap() external {
        registered(agent, KEY, EXPIRY, PRICE - 1);
        refusesSettlement(signedByKey(agentTerms(0), START), notBy(consumer));
    }

    function test_a_capped_agents_key_needs_the_consumers_ceiling_all_the_same() external {
        registered(agent, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = agentTerms(Terms.AGENT_CAPPED);
        IAuthorizations.Settlement memory settlement = signedByKey(terms, START);
        refusesSettlement(settlement, abi.encodeWithSelector(IAuthorizations.CeilingMissing.selector, idOf(terms)));
        UsageCeiling memory ceiling = UsageCeiling(0, [uint64(120), 500, 0, 0], 0, PRICE, EXPIRY);
        settlement.ceilings = ceilingBy(CONSUMER, terms, ceiling);
        settles(terms, settlement);
    }

    function test_a_consumers_key_may_sign_a_ceiling_up_to_its_cap() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        registered(consumer, OTHER_KEY, EXPIRY, PRICE - 1);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory settlement = settlementAt(terms, START);
        settlement.consumerSignature = "";
        UsageCeiling memory ceiling = UsageCeiling(0, [uint64(200), 600, 0, 0], 0, 2 * PRICE, EXPIRY);
        settlement.ceilings = ceilingBy(OTHER_KEY, terms, ceiling);
        refusesSettlement(settlement, notBy(consumer));
        settlement.ceilings = ceilingBy(KEY, terms, ceiling);
        settles(terms, settlement);
    }

    function test_a_key_signs_for_no_wallet_but_its_own() external {
        registered(stranger, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        refusesSettlement(signedByKey(terms, START), notBy(consumer));
        registered(consumer, KEY, EXPIRY, PRICE);
        IAuthorizations.Settlement memory settlement = settlementAt(terms, START);
        settlement.providerSignature = byKey(settlement, idOf(terms));
        refusesSettlement(settlement, notBy(provider));
    }

    function test_a_providers_key_as_the_caller_does_not_stand_in_for_its_signature() external {
        registered(provider, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory settlement = settlementAt(terms, START);
        settlement.providerSignature = "";
        vm.prank(key);
        refusesSettlement(settlement, notBy(provider));
        vm.prank(provider);
        settles(terms, settlement);
    }

    // ----------------------------------------------------------------------------------------------- time

    function test_a_head_signed_before_the_revocation_settles_after_it() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory settlement = signedByKey(terms, START);
        vm.warp(START + 100);
        revoked(consumer);
        vm.warp(START + 200);
        settles(terms, settlement);
    }

    function test_a_head_dated_after_the_revocation_and_the_skew_does_not_settle() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        vm.warp(START + 100);
        revoked(consumer);
        vm.warp(START + 100 + SKEW + 1);
        refusesSettlement(signedByKey(terms, START + 100 + SKEW + 1), notBy(consumer));
        settles(terms, signedByKey(terms, START + 100 + SKEW));
    }

    function test_a_head_dated_after_the_expiry_and_the_skew_does_not_settle() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        vm.warp(EXPIRY + SKEW + 1);
        refusesSettlement(signedByKey(terms, EXPIRY + SKEW + 1), notBy(consumer));
        settles(terms, signedByKey(terms, EXPIRY + SKEW));
    }

    function test_thirty_days_after_its_revocation_a_keys_heads_settle_no_more() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory settlement = signedByKey(terms, START);
        vm.warp(START + 100);
        revoked(consumer);
        vm.warp(START + 100 + KEY_THAW + 1);
        refusesSettlement(settlement, notBy(consumer));
        vm.warp(START + 100 + KEY_THAW);
        settles(terms, settlement);
    }

    function test_thirty_days_after_its_expiry_a_keys_heads_settle_no_more() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = longTerms();
        IAuthorizations.Settlement memory settlement = signedByKey(terms, START);
        vm.warp(EXPIRY + KEY_THAW + 1);
        refusesSettlement(settlement, notBy(consumer));
        vm.warp(EXPIRY + KEY_THAW);
        settles(terms, settlement);
    }

    function test_a_key_lives_as_long_as_the_longest_settlement_window() external {
        registered(consumer, KEY, EXPIRY, PRICE);
        AuthorizationTerms memory terms = termsOf();
        terms.validUntil = EXPIRY;
        terms.thawSeconds = uint32(30 days);
        opened(terms, 10_000_000);
        IAuthorizations.Settlement memory settlement = signedByKey(terms, EXPIRY);
        vm.warp(EXPIRY + 30 days);
        settles(terms, settlement);
    }

    // ---------------------------------------------------------------------------- what a key may not sign

    /// @dev A key of both parties with bounds that would cover anything.
    function almighty() private {
        registered(provider, KEY, EXPIRY, type(uint128).max);
        registered(consumer, KEY, EXPIRY, type(uint128).max);
        registered(approver, KEY, EXPIRY, type(uint128).max);
    }

    function refusesOpening(IAuthorizations.Opening memory opening, bytes memory refusal) private {
        refuses(refusal);
        ledger.open(opening);
        assertTrue(statusOf(opening.terms) == IAuthorizations.Status.NONE, "not opened");
    }

    function test_a_key_cannot_sign_terms() external {
        almighty();
        AuthorizationTerms memory terms = termsOf();
        bytes memory forged = sign(KEY, idOf(terms));
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.providerSignature = forged;
        refusesOpening(opening, notBy(provider));
        opening = openingOf(terms, 0);
        opening.consumerSignature = forged;
        refusesOpening(opening, notBy(consumer));
    }

    function test_a_key_cannot_sign_an_acceptance() external {
        almighty();
        IAuthorizations.Opening memory opening = openingOf(termsOf(), 0);
        opening.acceptanceSignature = sign(KEY, digests.acceptance(address(ledger), opening.acceptance));
        refusesOpening(opening, notBy(consumer));
    }

    function test_a_key_cannot_sign_an_offer() external {
        almighty();
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.offer = Offer(digests.template(terms), 1, EXPIRY);
        bytes32 digest = digests.offer(address(ledger), opening.offer);
        opening.providerSignature = sign(KEY, digest);
        refusesOpening(opening, notBy(provider));
        opening.providerSignature = sign(PROVIDER, digest);
        ledger.open(opening);
        assertTrue(statusOf(terms) == IAuthorizations.Status.OPEN, "the provider can");
    }

    function test_a_key_cannot_sign_an_approval() external {
        almighty();
        AuthorizationTerms memory terms = termsOf();
        IAuthorizations.Opening memory opening = openingOf(terms, 0);
        opening.approvals = new Approval[](1);
        opening.approvals[0] = approvalBy(KEY, 3, terms);
        opening.approvals[0].by = Requirement(approver, 3);
        refusesOpening(opening, abi.encodeWithSelector(IAdmission.ApprovalInvalid.selector, approver, 3, START + DAY));
    }

    function test_a_key_cannot_sign_a_close() external {
        almighty();
        AuthorizationTerms memory terms = longTerms();
        Head memory head = headAt(START);
        IAuthorizations.Closing memory closing = closingOf(terms, noHead(), head, PRICE);
        bytes memory forged = sign(KEY, digests.close(address(ledger), closing.close));
        (bytes memory byProvider, bytes memory byConsumer) = (closing.providerSignature, closing.consumerSignature);

        closing.providerSignature = forged;
        refuses(notBy(provider));
        ledger.closeTogether(closing);
        (closing.providerSignature, closing.consumerSignature) = (byProvider, forged);
        refuses(notBy(consumer));
        ledger.closeTogether(closing);
        assertTrue(statusOf(terms) == IAuthorizations.Status.OPEN, "still open");
        closing.consumerSignature = byConsumer;
        ledger.closeTogether(closing);
        assertTrue(statusOf(terms) == IAuthorizations.Status.CLOSED, "the wallets can");
    }

    function test_a_key_cannot_end_or_take_money_by_calling() external {
        almighty();
        AuthorizationTerms memory terms = longTerms();
        give(consumer, 1);
        bytes32 id = idOf(terms);
        CompactTerms memory compact = compactOf(terms);
        bytes memory refusal = abi.encodeWithSelector(IAuthorizations.AuthorizationNotYours.selector, id, key);
        Requirement[] memory none = new Requirement[](0);
        assertRefused(key, address(ledger), abi.encodeCall(ledger.close, (compact, 1)), refusal);
        assertRefused(key, address(ledger), abi.encodeCall(ledger.revoke, (terms, none, 1)), refusal);
        assertRefused(key, address(ledger), abi.encodeCall(ledger.thaw, (compact, 1)), refusal);
        assertRefused(key, address(ledger), abi.encodeCall(ledger.cancelTerms, (compact)), refusal);
        assertRefused(
            key,
            address(ledger),
            abi.encodeCall(ledger.withdraw, (address(yuan), 1, key)),
            abi.encodeWithSignature("BalanceTooLow(address,address,uint256,uint256)", key, address(yuan), 0, 1)
        );
    }
}
