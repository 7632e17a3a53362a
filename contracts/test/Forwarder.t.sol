// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {ERC2771Forwarder} from "@openzeppelin/contracts/metatx/ERC2771Forwarder.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Errors} from "@openzeppelin/contracts/utils/Errors.sol";

import {Forwarder} from "../Forwarder.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IInvoiceLedger} from "../interfaces/IInvoiceLedger.sol";
import {IProductRegistry} from "../interfaces/IProductRegistry.sol";
import {ISessionKeys} from "../interfaces/ISessionKeys.sol";
import {ISpaceRegistry} from "../interfaces/ISpaceRegistry.sol";
import {IUsageLedger} from "../interfaces/IUsageLedger.sol";
import {AuthorizationTerms, CompactTerms, Requirement} from "../libraries/Terms.sol";
import {Checks} from "./Checks.sol";
import {World} from "./World.sol";

/// @title Wallets without native coin, whose calls somebody else submits
contract ForwarderTest is World, Checks {
    uint256 private constant POOR = 0x900;
    address private poor = vm.addr(POOR);
    address private relayer = vm.addr(0x4e1);

    bytes32 private constant REQUEST_TYPEHASH = keccak256(
        "ForwardRequest(address from,address to,uint256 value,uint256 gas,uint256 nonce,uint48 deadline,bytes data)"
    );

    function digestOf(
        ERC2771Forwarder.ForwardRequestData memory request,
        uint256 nonce
    ) private view returns (bytes32) {
        bytes32 structHash = keccak256(
            abi.encode(
                REQUEST_TYPEHASH,
                request.from,
                request.to,
                request.value,
                request.gas,
                nonce,
                request.deadline,
                keccak256(request.data)
            )
        );
        return digests.digest(address(forwarder), structHash);
    }

    function requestOf(
        uint256 key,
        address to,
        bytes memory data
    ) private view returns (ERC2771Forwarder.ForwardRequestData memory request) {
        request.from = vm.addr(key);
        request.to = to;
        request.gas = 2_000_000;
        request.deadline = uint48(START + DAY);
        request.data = data;
        request.signature = sign(key, digestOf(request, forwarder.nonces(request.from)));
    }

    /// @dev Signed by a wallet that has no coin, and submitted by somebody who has.
    function relay(uint256 key, address to, bytes memory data) private {
        ERC2771Forwarder.ForwardRequestData memory request = requestOf(key, to, data);
        assertEq(request.from.balance, 0, "no coin");
        vm.prank(relayer);
        forwarder.execute(request);
    }

    // ---------------------------------------------------------------------------------------- what it does

    function test_a_wallet_without_coin_creates_a_space_and_admits() external {
        relay(POOR, address(spaces), abi.encodeCall(spaces.createSpace, ("poor", "rules", CODE_LISTS)));
        bytes32 made = keccak256(abi.encode(block.chainid, address(spaces), poor, bytes32("poor")));
        assertEq(spaces.operatorOf(made), poor, "operator");

        relay(POOR, address(spaces), abi.encodeCall(spaces.admit, (made, provider, 1, "provider")));
        assertTrue(spaces.isActive(made, provider, 1), "admitted");
    }

    function test_a_wallet_without_coin_takes_a_space_over() external {
        vm.prank(operator);
        spaces.proposeOperator(space, poor);
        relay(POOR, address(spaces), abi.encodeCall(spaces.acceptOperator, (space)));
        assertEq(spaces.operatorOf(space), poor, "operator");
    }

    function test_a_wallet_without_coin_registers_and_publishes_a_product() external {
        vm.prank(operator);
        spaces.admit(space, poor, 1, "poor");
        relay(POOR, address(products), abi.encodeCall(products.registerProduct, (space, "poor", "metadata")));
        bytes32 made = keccak256(abi.encode(block.chainid, address(products), poor, space, bytes32("poor")));
        assertEq(products.productOf(made).provider, poor, "provider");

        IProductRegistry.Digest[] memory list = digestsOf("content");
        bytes32[] memory none = new bytes32[](0);
        relay(POOR, address(products), abi.encodeCall(products.publishVersion, (made, list, "m", POLICY, none)));
        bytes32 published = keccak256(abi.encode(made, list, bytes32("m"), POLICY, none));
        assertEq(products.versionOf(published).product, made, "published");
    }

    function test_the_operator_sets_ceilings_through_the_forwarder() external {
        uint128[4] memory ceilings = [uint128(1), 0, 0, 0];
        relay(
            OPERATOR,
            address(products),
            abi.encodeCall(products.setPriceCeilings, (product, address(yuan), ceilings))
        );
        assertTrue(products.productOf(product).capped, "capped");
    }

    function permit(uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 typeHash = keccak256(
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        );
        bytes32 structHash = keccak256(abi.encode(typeHash, poor, address(ledger), amount, 0, START + DAY));
        return vm.sign(POOR, MessageHashUtils.toTypedDataHash(yuan.DOMAIN_SEPARATOR(), structHash));
    }

    function test_a_wallet_without_coin_deposits_by_permit() external {
        yuan.mint(poor, 1000);
        (uint8 v, bytes32 r, bytes32 s) = permit(700);
        relay(
            POOR,
            address(ledger),
            abi.encodeCall(ledger.depositWithPermit, (poor, address(yuan), 700, START + DAY, v, r, s))
        );
        assertEq(ledger.freeOf(poor, address(yuan)), 700, "free");
        assertEq(yuan.balanceOf(poor), 300, "left");
    }

    function test_a_relayer_cannot_use_a_permit_for_an_account_of_its_own() external {
        yuan.mint(poor, 1000);
        (uint8 v, bytes32 r, bytes32 s) = permit(700);
        yuan.permit(poor, address(ledger), 700, START + DAY, v, r, s); // anyone may
        assertRefused(
            relayer,
            address(ledger),
            abi.encodeCall(ledger.depositWithPermit, (relayer, address(yuan), 700, START + DAY, v, r, s)),
            abi.encodeWithSignature("ERC20InsufficientAllowance(address,uint256,uint256)", address(ledger), 0, 700)
        );
        assertEq(yuan.balanceOf(poor), 1000, "untouched");
    }

    function authorize(address owner, bytes32 seasoning) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 typeHash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,"
            "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 nonce = keccak256(abi.encode(owner, seasoning));
        bytes32 structHash = keccak256(abi.encode(typeHash, poor, address(ledger), 700, 0, START + DAY, nonce));
        return vm.sign(POOR, MessageHashUtils.toTypedDataHash(yuan.DOMAIN_SEPARATOR(), structHash));
    }

    function test_a_deposit_by_authorization_needs_no_forwarding() external {
        yuan.mint(poor, 1000);
        (uint8 v, bytes32 r, bytes32 s) = authorize(poor, "salt");
        vm.recordLogs();
        vm.prank(relayer);
        ledger.depositWithAuthorization(poor, poor, address(yuan), 700, 0, START + DAY, "salt", v, r, s);
        assertEq(vm.getRecordedLogs().length, 3, "authorization used, transfer, deposit");
        assertEq(ledger.freeOf(poor, address(yuan)), 700, "free");
        assertEq(yuan.balanceOf(poor), 300, "left");
    }

    function test_a_deposit_by_authorization_goes_to_the_account_it_names() external {
        yuan.mint(poor, 1000);
        (uint8 v, bytes32 r, bytes32 s) = authorize(poor, "salt");
        assertRefused(
            relayer,
            address(ledger),
            abi.encodeCall(
                ledger.depositWithAuthorization,
                (poor, relayer, address(yuan), 700, 0, START + DAY, "salt", v, r, s)
            ),
            abi.encodeWithSignature("ERC3009InvalidSignature()")
        );
        assertEq(yuan.balanceOf(poor), 1000, "untouched");
    }

    function test_a_wallet_without_coin_withdraws() external {
        give(poor, 1000);
        bytes memory data = abi.encodeCall(ledger.withdraw, (address(yuan), 400, poor));
        relay(POOR, address(ledger), data);
        assertEq(yuan.balanceOf(poor), 400, "in the wallet");
        assertEq(ledger.freeOf(poor, address(yuan)), 600, "free");
    }

    function test_a_consumer_without_coin_closes() external {
        AuthorizationTerms memory terms = opened(termsOf(), 1000);
        relay(CONSUMER, address(ledger), abi.encodeCall(ledger.close, (compactOf(terms), 7)));
        assertTrue(statusOf(terms) == IAuthorizations.Status.ENDED, "ended at once, as the consumer's close does");
    }

    function test_a_consumer_without_coin_thaws_and_tops_up() external {
        AuthorizationTerms memory terms = opened(termsOf(), 1000);
        relay(CONSUMER, address(ledger), abi.encodeCall(ledger.thaw, (compactOf(terms), 300)));
        assertEq(ledger.reservationOf(idOf(terms)).thawing, 300, "thawing");

        give(consumer, 50);
        relay(CONSUMER, address(ledger), abi.encodeCall(ledger.topUp, (compactOf(terms), noHead(), 50)));
        assertEq(ledger.reservationOf(idOf(terms)).reserved, 1050, "reserved");
    }

    function test_a_provider_without_coin_revokes() external {
        AuthorizationTerms memory terms = opened(termsOf(), 0);
        relay(PROVIDER, address(ledger), abi.encodeCall(ledger.revoke, (terms, new Requirement[](0), 7)));
        assertTrue(statusOf(terms) == IAuthorizations.Status.ENDED, "ended");
    }

    function test_the_event_of_a_forwarded_call_names_the_signer() external {
        AuthorizationTerms memory terms = opened(termsOf(), 0);
        bytes32 id = idOf(terms);
        CompactTerms memory compact = compactOf(terms);
        ERC2771Forwarder.ForwardRequestData memory request = requestOf(
            CONSUMER,
            address(ledger),
            abi.encodeCall(ledger.close, (compact, 7))
        );
        vm.recordLogs();
        forwarder.execute(request);
        bytes32 topic = vm.getRecordedLogs()[0].topics[2];
        assertEq(topic, bytes32(uint256(uint160(consumer))), "by");
        assertEq(ledger.authorizationOf(id).endedAt, START, "ended");
    }

    function test_a_provider_without_coin_settles_as_the_caller_that_needs_no_signature() external {
        AuthorizationTerms memory terms = opened(termsOf(), 5_000_000);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), headOf(10, 120, 500));
        settlement.providerSignature = "";
        relay(PROVIDER, address(ledger), abi.encodeCall(ledger.settle, (settlement)));
        (, uint256 paid) = reservationOf(terms);
        assertEq(paid, priceOf(120, 500), "paid");
    }

    function test_a_provider_without_coin_records_a_payment() external {
        AuthorizationTerms memory terms = opened(invoicedTermsOf(), 0);
        relay(PROVIDER, address(invoices), abi.encodeCall(invoices.recordPayment, (compactOf(terms), "ref", 5)));
        assertEq(invoices.invoicedOf(idOf(terms)).paid, 5, "recorded");
    }

    function test_a_wallet_without_coin_registers_and_revokes_a_session_key() external {
        address key = vm.addr(0x5e55);
        uint40 expiry = uint40(START + DAY);
        bytes32 typeHash = keccak256("SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)");
        bytes32 structHash = keccak256(abi.encode(typeHash, poor, key, expiry, uint128(9)));
        bytes memory possession = sign(0x5e55, digests.digest(address(sessionKeys), structHash));
        relay(POOR, address(sessionKeys), abi.encodeCall(sessionKeys.registerSessionKey, (key, expiry, 9, possession)));
        assertEq(sessionKeys.capOf(poor, key, uint40(START)), 9, "cap");
        relay(POOR, address(sessionKeys), abi.encodeCall(sessionKeys.revokeSessionKey, (key)));
        assertEq(sessionKeys.sessionKeyOf(poor, key).revokedAt, START, "revoked");
    }

    // -------------------------------------------------------------------------------- what it does not do

    function refusesRequest(ERC2771Forwarder.ForwardRequestData memory request, bytes memory refusal) private {
        vm.prank(relayer);
        refuses(refusal);
        forwarder.execute(request);
    }

    /// @dev Whoever would have signed this, it was not the wallet.
    function refusesSigner(ERC2771Forwarder.ForwardRequestData memory request, uint256 nonce) private {
        (bytes32 r, bytes32 s, uint8 v) = partsOf(request.signature);
        address signer = ecrecover(digestOf(request, nonce), v, r, s);
        refusesRequest(
            request,
            abi.encodeWithSelector(ERC2771Forwarder.ERC2771ForwarderInvalidSigner.selector, signer, request.from)
        );
    }

    function partsOf(bytes memory signature) private pure returns (bytes32 r, bytes32 s, uint8 v) {
        // Memory-safe: reads only.
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
    }

    function withdrawal() private returns (ERC2771Forwarder.ForwardRequestData memory) {
        give(poor, 1000);
        return requestOf(POOR, address(ledger), abi.encodeCall(ledger.withdraw, (address(yuan), 400, poor)));
    }

    function test_a_request_cannot_be_replayed() external {
        ERC2771Forwarder.ForwardRequestData memory request = withdrawal();
        forwarder.execute(request);
        refusesSigner(request, 1);
        assertEq(yuan.balanceOf(poor), 400, "once");
    }

    function test_a_relayer_cannot_alter_a_request() external {
        ERC2771Forwarder.ForwardRequestData memory request = withdrawal();
        bytes memory data = request.data;
        request.data = abi.encodeCall(ledger.withdraw, (address(yuan), 400, relayer));
        refusesSigner(request, 0);
        request.data = data;
        request.to = address(invoices);
        refusesSigner(request, 0);
        request.to = address(ledger);
        request.gas -= 1;
        refusesSigner(request, 0);
        request.gas += 1;
        request.deadline += 1;
        refusesSigner(request, 0);
        request.deadline -= 1;
        request.from = consumer;
        refusesSigner(request, 0);
        request.from = poor;
        forwarder.execute(request);
        assertEq(yuan.balanceOf(poor), 400, "as it was signed");
    }

    function test_a_request_is_good_until_its_deadline_and_not_after() external {
        ERC2771Forwarder.ForwardRequestData memory request = withdrawal();
        vm.warp(START + DAY + 1);
        refusesRequest(
            request,
            abi.encodeWithSelector(ERC2771Forwarder.ERC2771ForwarderExpiredRequest.selector, request.deadline)
        );
        vm.warp(START + DAY);
        forwarder.execute(request);
        assertEq(yuan.balanceOf(poor), 400, "on its last second");
    }

    function test_a_call_that_fails_uses_no_nonce_up() external {
        ERC2771Forwarder.ForwardRequestData memory request = requestOf(
            POOR,
            address(ledger),
            abi.encodeCall(ledger.withdraw, (address(yuan), 400, poor))
        );
        refusesRequest(request, abi.encodeWithSelector(Errors.FailedCall.selector));
        assertEq(forwarder.nonces(poor), 0, "nonce");
        give(poor, 400);
        forwarder.execute(request);
        assertEq(yuan.balanceOf(poor), 400, "later");
    }

    function test_only_contracts_that_trust_the_forwarder_are_called() external {
        address[4] memory others = [address(yuan), address(cards), address(admission), address(evidence)];
        for (uint256 i = 0; i < others.length; ++i) {
            refusesRequest(
                requestOf(POOR, others[i], abi.encodeCall(yuan.transfer, (relayer, 1))),
                abi.encodeWithSelector(ERC2771Forwarder.ERC2771UntrustfulTarget.selector, others[i], address(forwarder))
            );
        }
    }

    function test_every_contract_with_callers_trusts_this_forwarder_and_no_other() external {
        address other = address(new Forwarder());
        address[6] memory all = [
            address(spaces),
            address(products),
            address(sessionKeys),
            address(ledger),
            address(invoices),
            address(subsidies)
        ];
        for (uint256 i = 0; i < all.length; ++i) {
            assertTrue(ERC2771Context(all[i]).isTrustedForwarder(address(forwarder)), "this one");
            assertTrue(!ERC2771Context(all[i]).isTrustedForwarder(other), "no other");
            assertTrue(!ERC2771Context(all[i]).isTrustedForwarder(relayer), "no wallet");
        }
    }

    /// @dev The call as the forwarder would make it for `victim`, made by the relayer itself.
    function refusesAppended(address to, bytes memory data, address victim, bytes memory refusal) private {
        assertRefused(relayer, to, abi.encodePacked(data, victim), refusal);
    }

    function test_who_appends_an_address_himself_is_not_taken_for_it() external {
        AuthorizationTerms memory terms = opened(termsOf(), 1000);
        AuthorizationTerms memory invoiced = opened(invoicedTermsOf(), 0);
        give(consumer, 1000);
        CompactTerms memory compact = compactOf(terms);
        bytes memory notYours = abi.encodeWithSelector(
            IAuthorizations.AuthorizationNotYours.selector,
            idOf(terms),
            relayer
        );
        refusesAppended(address(ledger), abi.encodeCall(ledger.close, (compact, 1)), consumer, notYours);
        refusesAppended(address(ledger), abi.encodeCall(ledger.thaw, (compact, 1)), consumer, notYours);
        refusesAppended(
            address(ledger),
            abi.encodeCall(ledger.revoke, (terms, new Requirement[](0), 1)),
            provider,
            notYours
        );
        refusesAppended(
            address(ledger),
            abi.encodeCall(ledger.withdraw, (address(yuan), 1, relayer)),
            consumer,
            abi.encodeWithSelector(IUsageLedger.BalanceTooLow.selector, relayer, address(yuan), 0, 1)
        );
        refusesAppended(
            address(invoices),
            abi.encodeCall(IInvoiceLedger.recordPayment, (compactOf(invoiced), "ref", 1)),
            provider,
            abi.encodeWithSelector(IAuthorizations.AuthorizationNotYours.selector, idOf(invoiced), relayer)
        );
        refusesAppended(
            address(spaces),
            abi.encodeCall(spaces.suspend, (space, provider, 1)),
            operator,
            abi.encodeWithSelector(ISpaceRegistry.SpaceNotOperator.selector, space, relayer)
        );
        refusesAppended(
            address(products),
            abi.encodeCall(products.recallVersion, (version, 1)),
            provider,
            abi.encodeWithSelector(IProductRegistry.ProductNotProvider.selector, product, relayer)
        );
        refusesAppended(
            address(sessionKeys),
            abi.encodeCall(sessionKeys.revokeSessionKey, (agent)),
            consumer,
            abi.encodeWithSelector(ISessionKeys.SessionKeyUnknown.selector, relayer, agent)
        );
    }

    function test_a_request_for_another_forwarder_is_good_for_nothing() external {
        ERC2771Forwarder.ForwardRequestData memory request = withdrawal();
        Forwarder other = new Forwarder();
        vm.prank(relayer);
        refuses(
            abi.encodeWithSelector(ERC2771Forwarder.ERC2771UntrustfulTarget.selector, address(ledger), address(other))
        );
        other.execute(request);
        assertEq(yuan.balanceOf(poor), 0, "nothing");
    }
}
