// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RateCards} from "../RateCards.sol";
import {CodeStore} from "../libraries/CodeStore.sol";
import {Meter, Pricing, RateCard, Tier} from "../libraries/Pricing.sol";
import {Share} from "../libraries/Splits.sol";
import {
    Acceptance,
    Approval,
    AuthorizationTerms,
    Close,
    Head,
    Offer,
    Requirement,
    Scope,
    Terms,
    UsageCeiling,
    UseReceipt
} from "../libraries/Terms.sol";
import {UsageLeaf, UsageLog} from "../libraries/UsageLog.sol";
import {Test} from "./Vm.sol";

/// @title Solidity against the golden vectors, which were derived from the protocol's text alone
contract VectorsTest is Test {
    using Terms for *;

    RateCards private cards = new RateCards();

    // Libraries take calldata: an external call to this contract makes it.
    function includes(
        bytes32 root,
        uint64 size,
        uint64 index,
        bytes32 leaf,
        bytes32[] calldata proof
    ) external view returns (bool) {
        return UsageLog.includes(root, size, index, leaf, proof);
    }

    function extends(
        uint64 size1,
        bytes32 root1,
        uint64 size2,
        bytes32 root2,
        bytes32[] calldata proof
    ) external view returns (bool) {
        return UsageLog.extends(size1, root1, size2, root2, proof);
    }

    function priceOf(bytes memory card, uint64[4] calldata units) external pure returns (uint256) {
        return Pricing.price(card, units);
    }

    function hashLeaf(bytes calldata leaf) external pure returns (bytes32) {
        return UsageLog.hash(leaf);
    }

    /// @dev The vectors' bytes begin with the 0x00 that goes before a leaf when it is hashed.
    function withoutPrefix(bytes calldata encoded) external pure returns (bytes memory) {
        return encoded[1:];
    }

    function decodeLeaf(bytes calldata leaf) external pure returns (UsageLeaf memory) {
        return UsageLog.decode(leaf);
    }

    function hashScope(Scope calldata scope) external pure returns (bytes32) {
        return scope.hash();
    }

    function hashTerms(AuthorizationTerms calldata terms) external pure returns (bytes32) {
        return terms.hash();
    }

    function hashOffer(Offer calldata offer) external pure returns (bytes32) {
        return offer.hash();
    }

    function hashAcceptance(Acceptance calldata acceptance) external pure returns (bytes32) {
        return acceptance.hash();
    }

    function hashReceipt(UseReceipt calldata receipt) external pure returns (bytes32) {
        return receipt.hash();
    }

    function hashHead(Head calldata head, bytes32 id) external pure returns (bytes32) {
        return head.hash(id);
    }

    function hashCeiling(UsageCeiling calldata ceiling) external pure returns (bytes32) {
        return ceiling.hash();
    }

    function hashClose(Close calldata close) external pure returns (bytes32) {
        return close.hash();
    }

    function hashApproval(
        Approval calldata approval,
        bytes32 scopeHash,
        address provider,
        address consumer
    ) external pure returns (bytes32) {
        return approval.hash(scopeHash, provider, consumer);
    }

    function hashApprovers(Requirement[] calldata list) external pure returns (bytes32) {
        return list.hash();
    }

    function test_leaves_hash_and_decode_to_the_vectors() external view {
        string memory json = vm.readFile("tests/vectors/usage_log.json");
        for (uint256 i = 0; i < 5; ++i) {
            string memory path = string.concat(".leaves[", vm.toString(i), "]");
            bytes memory leaf = this.withoutPrefix(vm.parseJsonBytes(json, string.concat(path, ".encoded")));
            assertEq(this.hashLeaf(leaf), vm.parseJsonBytes32(json, string.concat(path, ".hash")), path);
            UsageLeaf memory expected = this.leafAt(json, string.concat(path, ".leaf"));
            assertEq(keccak256(abi.encode(this.decodeLeaf(leaf))), keccak256(abi.encode(expected)), path);
        }
    }

    function test_inclusion_proofs_of_the_vectors_hold_and_their_mutations_do_not() external view {
        string memory json = vm.readFile("tests/vectors/usage_log.json");
        bytes32[] memory leaves = vm.parseJsonBytes32Array(json, ".treeLeafHashes");
        uint256 count = 0;
        for (uint256 i = 0; i < 55; ++i) {
            string memory path = string.concat(".inclusion[", vm.toString(i), "]");
            uint64 size = uint64(vm.parseJsonUint(json, string.concat(path, ".size")));
            uint64 index = uint64(vm.parseJsonUint(json, string.concat(path, ".index")));
            bytes32 root = vm.parseJsonBytes32(json, string.concat(path, ".root"));
            bytes32[] memory proof = vm.parseJsonBytes32Array(json, string.concat(path, ".proof"));
            assertTrue(this.includes(root, size, index, leaves[index], proof), path);
            assertTrue(!this.includes(root, size, index, ~leaves[index], proof), path);
            assertTrue(!this.includes(~root, size, index, leaves[index], proof), path);
            assertTrue(!this.includes(root, size, size, leaves[index], proof), path);
            if (proof.length > 0) {
                proof[i % proof.length] ^= bytes32(uint256(1));
                assertTrue(!this.includes(root, size, index, leaves[index], proof), path);
            }
            ++count;
        }
        assertEq(count, 55, "proofs");
    }

    function test_consistency_proofs_of_the_vectors_hold_and_their_mutations_do_not() external view {
        string memory json = vm.readFile("tests/vectors/usage_log.json");
        for (uint256 i = 0; i < 65; ++i) {
            string memory path = string.concat(".consistency[", vm.toString(i), "]");
            uint64 first = uint64(vm.parseJsonUint(json, string.concat(path, ".first")));
            uint64 second = uint64(vm.parseJsonUint(json, string.concat(path, ".second")));
            bytes32 root1 = vm.parseJsonBytes32(json, string.concat(path, ".firstRoot"));
            bytes32 root2 = vm.parseJsonBytes32(json, string.concat(path, ".secondRoot"));
            bytes32[] memory proof = vm.parseJsonBytes32Array(json, string.concat(path, ".proof"));
            assertTrue(this.extends(first, root1, second, root2, proof), path);
            assertTrue(!this.extends(first, ~root1, second, root2, proof), path);
            assertTrue(!this.extends(first, root1, second, ~root2, proof), path);
            if (first < second) assertTrue(!this.extends(second, root2, first, root1, proof), path);
            if (proof.length > 0) {
                proof[i % proof.length] ^= bytes32(uint256(1));
                assertTrue(!this.extends(first, root1, second, root2, proof), path);
            }
        }
    }

    function test_messages_hash_to_the_vectors() external view {
        string memory json = vm.readFile("tests/vectors/typed_data.json");
        uint256 seen = 0;
        for (uint256 i = 0; ; ++i) {
            string memory path = string.concat(".messages[", vm.toString(i), "]");
            if (!vm.keyExistsJson(json, path)) break;
            bytes32 kind = keccak256(bytes(vm.parseJsonString(json, string.concat(path, ".primaryType"))));
            // The SessionKeys and Forwarder contracts hash these two themselves, and their tests sign them.
            if (kind == keccak256("SessionKey") || kind == keccak256("ForwardRequest")) continue;
            bytes32 found = this.structHash(json, string.concat(path, ".message"), kind);
            assertEq(found, vm.parseJsonBytes32(json, string.concat(path, ".structHash")), path);
            ++seen;
        }
        assertEq(seen, 20, "messages");
    }

    // External, so that the compiler keeps it apart: one function would run out of stack.
    function structHash(string calldata json, string calldata m, bytes32 kind) external view returns (bytes32) {
        if (kind == keccak256("Scope")) return this.hashScope(scopeAt(json, m));
        if (kind == keccak256("AuthorizationTerms")) return this.hashTerms(this.termsAt(json, m));
        if (kind == keccak256("Offer")) return this.hashOffer(offerAt(json, m));
        if (kind == keccak256("Acceptance")) return this.hashAcceptance(acceptanceAt(json, m));
        if (kind == keccak256("UseReceipt")) return this.hashReceipt(receiptAt(json, m));
        if (kind == keccak256("UsageHead")) return this.hashHead(headAt(json, m), word(json, m, "authorizationId"));
        if (kind == keccak256("UsageCeiling")) return this.hashCeiling(ceilingAt(json, m));
        if (kind == keccak256("Close")) return this.hashClose(closeAt(json, m));
        assertEq(kind, keccak256("Approval"), "unknown type");
        return
            this.hashApproval(
                approvalAt(json, m),
                word(json, m, "scopeHash"),
                wallet(json, m, "provider"),
                wallet(json, m, "consumer")
            );
    }

    function test_lists_of_approvers_hash_to_the_vectors() external view {
        string memory json = vm.readFile("tests/vectors/typed_data.json");
        for (uint256 i = 0; i < 4; ++i) {
            string memory path = string.concat(".approverLists[", vm.toString(i), "]");
            uint256 count = 0;
            while (vm.keyExistsJson(json, string.concat(path, ".approvers[", vm.toString(count), "]"))) ++count;
            Requirement[] memory list = new Requirement[](count);
            for (uint256 n = 0; n < count; ++n) {
                string memory item = string.concat(path, ".approvers[", vm.toString(n), "]");
                list[n] = Requirement(wallet(json, item, "approver"), uint16(number(json, item, "approvalType")));
            }
            assertEq(this.hashApprovers(list), word(json, path, "approversHash"), path);
        }
    }

    function test_rate_cards_are_stored_and_priced_as_the_vectors_say() external {
        string memory json = vm.readFile("tests/vectors/ratecard.json");
        uint256 points = 0;
        for (uint256 i = 0; i < 6; ++i) {
            string memory path = string.concat(".cards[", vm.toString(i), "]");
            bytes32 id = cards.registerRateCard(this.cardAt(json, string.concat(path, ".card")));
            assertEq(id, vm.parseJsonBytes32(json, string.concat(path, ".id")), path);
            bytes memory encoded = cards.read(id);
            assertEq(keccak256(encoded), keccak256(vm.parseJsonBytes(json, string.concat(path, ".encoded"))), path);
            points += this.pricesHold(json, path, encoded);
        }
        assertEq(points, 143, "prices");
    }

    // External, so that the compiler keeps it apart: one function would run out of stack.
    function pricesHold(
        string calldata json,
        string calldata path,
        bytes memory card
    ) external view returns (uint256 points) {
        for (; ; ++points) {
            string memory point = string.concat(path, ".prices[", vm.toString(points), "]");
            if (!vm.keyExistsJson(json, point)) break;
            uint256 expected = vm.parseJsonUint(json, string.concat(point, ".price"));
            assertEq(this.priceOf(card, quadAt(json, string.concat(point, ".units"))), expected, point);
        }
    }

    function test_splits_are_stored_as_the_vectors_say() external {
        string memory json = vm.readFile("tests/vectors/ratecard.json");
        for (uint256 i = 0; i < 3; ++i) {
            string memory path = string.concat(".splits[", vm.toString(i), "]");
            uint256 count = 0;
            while (vm.keyExistsJson(json, string.concat(path, ".shares[", vm.toString(count), "]"))) ++count;
            Share[] memory shares = new Share[](count);
            for (uint256 s = 0; s < count; ++s) {
                string memory part = string.concat(path, ".shares[", vm.toString(s), "]");
                shares[s].payee = vm.parseJsonAddress(json, string.concat(part, ".payee"));
                shares[s].bps = uint16(vm.parseJsonUint(json, string.concat(part, ".bps")));
            }
            assertEq(cards.registerSplit(shares), vm.parseJsonBytes32(json, string.concat(path, ".id")), path);
        }
    }

    function test_an_unregistered_id_reads_as_nothing() external view {
        assertEq(CodeStore.read(address(cards), keccak256("nothing")).length, 0, "length");
    }

    // -------------------------------------------------------------------------------------------- reading

    function quadAt(string memory json, string memory path) private pure returns (uint64[4] memory quad) {
        uint256[] memory values = vm.parseJsonUintArray(json, path);
        for (uint256 i = 0; i < 4; ++i) quad[i] = uint64(values[i]);
    }

    function word(string memory json, string memory path, string memory name) private pure returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(path, ".", name));
    }

    function number(string memory json, string memory path, string memory name) private pure returns (uint256) {
        return vm.parseJsonUint(json, string.concat(path, ".", name));
    }

    function wallet(string memory json, string memory path, string memory name) private pure returns (address) {
        return vm.parseJsonAddress(json, string.concat(path, ".", name));
    }

    function leafAt(string memory json, string memory path) external pure returns (UsageLeaf memory leaf) {
        leaf.authorizationId = word(json, path, "authorizationId");
        leaf.index = uint64(number(json, path, "index"));
        leaf.useIdHash = word(json, path, "useIdHash");
        leaf.units = quadAt(json, string.concat(path, ".units"));
        leaf.cumUnits = quadAt(json, string.concat(path, ".cumUnits"));
        leaf.cumCredits = uint128(number(json, path, "cumCredits"));
        leaf.eventTime = uint40(number(json, path, "eventTime"));
        leaf.servedAt = uint40(number(json, path, "servedAt"));
        leaf.kind = uint8(number(json, path, "kind"));
        leaf.purpose = uint8(number(json, path, "purpose"));
        leaf.modality = uint8(number(json, path, "modality"));
        leaf.version = word(json, path, "version");
        leaf.payloadHash = word(json, path, "payloadHash");
    }

    function scopeAt(string memory json, string memory path) private pure returns (Scope memory scope) {
        scope.space = word(json, path, "space");
        scope.codeLists = word(json, path, "codeLists");
        scope.product = word(json, path, "product");
        scope.version = word(json, path, "version");
        scope.policyHash = word(json, path, "policyHash");
        scope.parent = word(json, path, "parent");
        scope.supersedes = word(json, path, "supersedes");
        scope.purposes = uint64(number(json, path, "purposes"));
        scope.modalities = uint32(number(json, path, "modalities"));
        scope.rights = uint32(number(json, path, "rights"));
        scope.creditUnits = quadAt(json, string.concat(path, ".creditUnits"));
        scope.approversHash = word(json, path, "approversHash");
    }

    function termsAt(string memory json, string memory path) external pure returns (AuthorizationTerms memory terms) {
        terms.scope = scopeAt(json, string.concat(path, ".scope"));
        terms.provider = wallet(json, path, "provider");
        terms.consumer = wallet(json, path, "consumer");
        terms.meteringAgent = wallet(json, path, "meteringAgent");
        terms.token = wallet(json, path, "token");
        terms.rateCard = word(json, path, "rateCard");
        terms.split = word(json, path, "split");
        terms.maxUnits = quadAt(json, string.concat(path, ".maxUnits"));
        terms.validFrom = uint40(number(json, path, "validFrom"));
        terms.validUntil = uint40(number(json, path, "validUntil"));
        terms.thawSeconds = uint32(number(json, path, "thawSeconds"));
        terms.revokeGrace = uint32(number(json, path, "revokeGrace"));
        terms.flags = uint8(number(json, path, "flags"));
        terms.salt = word(json, path, "salt");
    }

    function receiptAt(string memory json, string memory path) private pure returns (UseReceipt memory receipt) {
        receipt.authorizationId = word(json, path, "authorizationId");
        receipt.index = uint64(number(json, path, "index"));
        receipt.leafHash = word(json, path, "leafHash");
        receipt.cumUnits = quadAt(json, string.concat(path, ".cumUnits"));
        receipt.servedAt = uint40(number(json, path, "servedAt"));
    }

    function ceilingAt(string memory json, string memory path) private pure returns (UsageCeiling memory ceiling) {
        ceiling.authorizationId = word(json, path, "authorizationId");
        ceiling.maxUnits = quadAt(json, string.concat(path, ".maxUnits"));
        ceiling.minCredits = uint128(number(json, path, "minCredits"));
        ceiling.maxDue = uint128(number(json, path, "maxDue"));
        ceiling.expiry = uint40(number(json, path, "expiry"));
    }

    function closeAt(string memory json, string memory path) private pure returns (Close memory close) {
        close.authorizationId = word(json, path, "authorizationId");
        close.headDigest = word(json, path, "headDigest");
        close.finalPaid = uint128(number(json, path, "finalPaid"));
        close.deadline = uint40(number(json, path, "deadline"));
    }

    function approvalAt(string memory json, string memory path) private pure returns (Approval memory approval) {
        approval.by.approvalType = uint16(number(json, path, "approvalType"));
        approval.documentHash = word(json, path, "documentHash");
        approval.validUntil = uint40(number(json, path, "validUntil"));
    }

    function offerAt(string memory json, string memory path) private pure returns (Offer memory offer) {
        offer.termsTemplateHash = word(json, path, "termsTemplateHash");
        offer.maxAcceptances = uint32(number(json, path, "maxAcceptances"));
        offer.offerUntil = uint40(number(json, path, "offerUntil"));
    }

    function acceptanceAt(string memory json, string memory path) private pure returns (Acceptance memory acceptance) {
        acceptance.authorizationId = word(json, path, "authorizationId");
        acceptance.reserve = uint128(number(json, path, "reserve"));
        acceptance.deadline = uint40(number(json, path, "deadline"));
    }

    function headAt(string memory json, string memory path) private pure returns (Head memory head) {
        head.size = uint64(number(json, path, "size"));
        head.units = quadAt(json, string.concat(path, ".units"));
        head.credits = uint128(number(json, path, "credits"));
        head.asOf = uint40(number(json, path, "asOf"));
        head.root = word(json, path, "root");
    }

    function cardAt(string memory json, string memory path) external view returns (RateCard memory card) {
        card.token = wallet(json, path, "token");
        card.decimals = uint8(number(json, path, "decimals"));
        uint256 meters = 0;
        while (vm.keyExistsJson(json, string.concat(path, ".meters[", vm.toString(meters), "]"))) ++meters;
        card.meters = new Meter[](meters);
        for (uint256 m = 0; m < meters; ++m) {
            string memory meter = string.concat(path, ".meters[", vm.toString(m), "]");
            card.meters[m].unitScale = uint64(number(json, meter, "unitScale"));
            card.meters[m].freeUnits = uint64(number(json, meter, "freeUnits"));
            uint256 tiers = 0;
            while (vm.keyExistsJson(json, string.concat(meter, ".tiers[", vm.toString(tiers), "]"))) ++tiers;
            card.meters[m].tiers = new Tier[](tiers);
            for (uint256 t = 0; t < tiers; ++t) {
                string memory tier = string.concat(meter, ".tiers[", vm.toString(t), "]");
                card.meters[m].tiers[t].upTo = uint64(number(json, tier, "upTo"));
                card.meters[m].tiers[t].price = uint128(number(json, tier, "price"));
            }
        }
    }
}
