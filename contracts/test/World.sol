// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {Admission} from "../Admission.sol";
import {Forwarder} from "../Forwarder.sol";
import {InvoiceLedger} from "../InvoiceLedger.sol";
import {ProductRegistry} from "../ProductRegistry.sol";
import {RateCards} from "../RateCards.sol";
import {SessionKeys} from "../SessionKeys.sol";
import {SpaceRegistry} from "../SpaceRegistry.sol";
import {SubsidyPool} from "../SubsidyPool.sol";
import {UsageEvidence} from "../UsageEvidence.sol";
import {UsageLedger} from "../UsageLedger.sol";
import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IProductRegistry} from "../interfaces/IProductRegistry.sol";
import {Meter, RateCard, Tier} from "../libraries/Pricing.sol";
import {Share} from "../libraries/Splits.sol";
import {
    Acceptance,
    Approval,
    AuthorizationTerms,
    Close,
    CompactTerms,
    Head,
    Offer,
    Requirement,
    Scope,
    Terms,
    UsageCeiling,
    UseReceipt
} from "../libraries/Terms.sol";
import {UsageLeaf, UsageLog} from "../libraries/UsageLog.sol";
import {DemoYuan} from "../mocks/DemoYuan.sol";
import {Tree} from "./Tree.sol";
import {Test} from "./Vm.sol";

/// @title The hashes of Terms and UsageLog for callers that have their values in memory
contract Digests {
    using Terms for *;

    function scope(AuthorizationTerms calldata terms) external pure returns (bytes32) {
        return terms.scope.hash();
    }

    function template(AuthorizationTerms calldata terms) external pure returns (bytes32) {
        return terms.templateHash();
    }

    function offer(address ledger, Offer calldata value) external view returns (bytes32) {
        return digest(ledger, value.hash());
    }

    function acceptance(address ledger, Acceptance calldata value) external view returns (bytes32) {
        return digest(ledger, value.hash());
    }

    function approval(
        address ledger,
        Approval calldata value,
        AuthorizationTerms calldata terms
    ) external view returns (bytes32) {
        return digest(ledger, value.hash(terms.scope.hash(), terms.provider, terms.consumer));
    }

    function approvers(Requirement[] calldata list) external pure returns (bytes32) {
        return list.hash();
    }

    function head(address ledger, bytes32 id, Head calldata value) external view returns (bytes32) {
        return digest(ledger, value.hash(id));
    }

    function receipt(address ledger, UseReceipt calldata value) external view returns (bytes32) {
        return digest(ledger, value.hash());
    }

    function ceiling(address ledger, UsageCeiling calldata value) external view returns (bytes32) {
        return digest(ledger, value.hash());
    }

    function close(address ledger, Close calldata value) external view returns (bytes32) {
        return digest(ledger, value.hash());
    }

    function leaf(bytes calldata value) external pure returns (bytes32) {
        return UsageLog.hash(value);
    }

    function digest(address ledger, bytes32 structHash) public view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(Terms.domainOf(ledger), structHash);
    }
}

/// @title A small world for tests: every contract, parties with keys, and the steps of an exchange
// solhint-disable-next-line max-states-count
abstract contract World is Test {
    uint256 internal constant START = 1_800_000_000;
    uint256 internal constant DAY = 1 days;
    bytes32 internal constant CODE_LISTS = keccak256("code lists");
    bytes32 internal constant POLICY = keccak256("policy");

    uint256 internal constant OPERATOR = 0x0b;
    uint256 internal constant PROVIDER = 0xa11ce;
    uint256 internal constant CONSUMER = 0xb0b;
    uint256 internal constant AGENT = 0xa6e47;
    uint256 internal constant APPROVER = 0xa99;
    uint256 internal constant STRANGER = 0x57a;

    address internal operator = vm.addr(OPERATOR);
    address internal provider = vm.addr(PROVIDER);
    address internal consumer = vm.addr(CONSUMER);
    address internal agent = vm.addr(AGENT);
    address internal approver = vm.addr(APPROVER);
    address internal stranger = vm.addr(STRANGER);

    Digests internal digests = new Digests();
    Forwarder internal forwarder;
    SpaceRegistry internal spaces;
    ProductRegistry internal products;
    RateCards internal cards;
    Admission internal admission;
    SessionKeys internal sessionKeys;
    UsageLedger internal ledger;
    InvoiceLedger internal invoices;
    UsageEvidence internal evidence;
    SubsidyPool internal subsidies;
    DemoYuan internal yuan;

    bytes32 internal space;
    bytes32 internal product;
    bytes32 internal version;
    bytes32 internal card; // 10 calls free, 10,000 to the 100th, then 6,000; 2,800,000 per 1,000 rows
    bytes32 internal invoicedCard;
    bytes32 internal splitId; // provider 5000, operator 1500, agent 3500 bps
    uint256 internal salt;

    function setUp() public virtual {
        vm.warp(START);
        forwarder = Forwarder(deploy("Forwarder", ""));
        bytes memory relayed = abi.encode(forwarder);
        spaces = SpaceRegistry(deploy("SpaceRegistry", relayed));
        products = ProductRegistry(deploy("ProductRegistry", abi.encode(spaces, forwarder)));
        cards = RateCards(deploy("RateCards", ""));
        admission = Admission(deploy("Admission", abi.encode(products, cards)));
        sessionKeys = SessionKeys(deploy("SessionKeys", relayed));
        bytes memory common = abi.encode(admission, sessionKeys, forwarder);
        ledger = UsageLedger(deploy("UsageLedger", common));
        invoices = InvoiceLedger(deploy("InvoiceLedger", common));
        evidence = UsageEvidence(deploy("UsageEvidence", abi.encode(ledger, invoices, sessionKeys)));
        subsidies = SubsidyPool(deploy("SubsidyPool", abi.encode(ledger, spaces, forwarder)));
        yuan = DemoYuan(deploy("DemoYuan", ""));

        vm.startPrank(operator);
        space = spaces.createSpace("space", "rules", CODE_LISTS);
        spaces.admit(space, provider, 1, "provider");
        spaces.admit(space, consumer, 2, "consumer");
        spaces.admit(space, agent, 16, "agent");
        vm.stopPrank();
        (product, version) = publish("product");
        card = cards.registerRateCard(cardOf(address(yuan)));
        invoicedCard = cards.registerRateCard(cardOf(address(bytes20(bytes3("CNY")) >> 136)));
        splitId = cards.registerSplit(sharesOf(provider, 5000, operator, 1500, agent, 3500));
    }

    function deploy(string memory name, bytes memory arguments) internal returns (address made) {
        (made, ) = tryDeploy(name, arguments);
        assertTrue(made != address(0), name);
    }

    /// @dev From the compiled artifact: with `new` the compiler would build every contract again for every test.
    function tryDeploy(
        string memory name,
        bytes memory arguments
    ) internal returns (address made, bytes memory problem) {
        string memory folder = keccak256(bytes(name)) == keccak256("DemoYuan") ? "mocks/" : "";
        string memory path = string.concat("build/hardhat/artifacts/contracts/", folder, name, ".sol/", name, ".json");
        bytes memory code = bytes.concat(vm.parseJsonBytes(vm.readFile(path), ".bytecode"), arguments);
        assembly ("memory-safe") {
            made := create(0, add(code, 0x20), mload(code))
            problem := mload(0x40)
            mstore(problem, returndatasize())
            returndatacopy(add(problem, 0x20), 0, returndatasize())
            mstore(0x40, add(add(problem, 0x20), returndatasize()))
        }
    }

    // -------------------------------------------------------------------------------------- what is agreed

    function publish(bytes32 name) internal returns (bytes32 productId, bytes32 versionId) {
        vm.startPrank(provider);
        productId = products.registerProduct(space, name, "metadata");
        versionId = products.publishVersion(productId, digestsOf("content"), "metadata", POLICY, new bytes32[](0));
        vm.stopPrank();
    }

    function digestsOf(bytes memory content) internal pure returns (IProductRegistry.Digest[] memory list) {
        list = new IProductRegistry.Digest[](1);
        list[0] = IProductRegistry.Digest(0x12, sha256(content));
    }

    function cardOf(address token) internal pure returns (RateCard memory made) {
        made = RateCard(token, 6, new Meter[](2));
        made.meters[0] = Meter(1, 10, new Tier[](2));
        made.meters[0].tiers[0] = Tier(100, 10_000);
        made.meters[0].tiers[1] = Tier(type(uint64).max, 6_000);
        made.meters[1] = Meter(1000, 0, new Tier[](1));
        made.meters[1].tiers[0] = Tier(type(uint64).max, 2_800_000);
    }

    /// @dev In ascending order, as a split wants its payees.
    function sharesOf(
        address a,
        uint16 bpsOfA,
        address b,
        uint16 bpsOfB,
        address c,
        uint16 bpsOfC
    ) internal pure returns (Share[] memory shares) {
        shares = new Share[](3);
        (shares[0], shares[1], shares[2]) = (Share(a, bpsOfA), Share(b, bpsOfB), Share(c, bpsOfC));
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = 0; j < 2; ++j) {
                if (shares[j].payee > shares[j + 1].payee) (shares[j], shares[j + 1]) = (shares[j + 1], shares[j]);
            }
        }
    }

    /// @dev Escrowed, open to everything, ten days, a new salt each time.
    function termsOf() internal returns (AuthorizationTerms memory terms) {
        terms.scope = Scope({
            space: space,
            codeLists: CODE_LISTS,
            product: product,
            version: version,
            policyHash: POLICY,
            parent: 0,
            supersedes: 0,
            purposes: 3,
            modalities: 3,
            rights: 1,
            creditUnits: [uint64(0), 0, 0, 0],
            approversHash: 0
        });
        terms.provider = provider;
        terms.consumer = consumer;
        terms.token = address(yuan);
        terms.rateCard = card;
        terms.split = splitId;
        terms.maxUnits = [uint64(10_000), 1_000_000, 0, 0];
        terms.validFrom = uint40(block.timestamp - 60);
        terms.validUntil = uint40(block.timestamp + 10 * DAY);
        terms.thawSeconds = uint32(DAY);
        terms.salt = bytes32(++salt);
    }

    function invoicedTermsOf() internal returns (AuthorizationTerms memory terms) {
        terms = termsOf();
        terms.token = address(bytes20(bytes3("CNY")) >> 136);
        terms.rateCard = invoicedCard;
        terms.flags = Terms.INVOICED;
    }

    function ledgerFor(AuthorizationTerms memory terms) internal view returns (IAuthorizations) {
        return terms.flags & Terms.INVOICED == 0 ? IAuthorizations(ledger) : IAuthorizations(invoices);
    }

    function idOf(AuthorizationTerms memory terms) internal view returns (bytes32) {
        return ledgerFor(terms).idOf(terms);
    }

    function compactOf(AuthorizationTerms memory t) internal view returns (CompactTerms memory) {
        return
            CompactTerms({
                scopeHash: digests.scope(t),
                provider: t.provider,
                consumer: t.consumer,
                meteringAgent: t.meteringAgent,
                token: t.token,
                rateCard: t.rateCard,
                split: t.split,
                maxUnits: t.maxUnits,
                validFrom: t.validFrom,
                validUntil: t.validUntil,
                thawSeconds: t.thawSeconds,
                revokeGrace: t.revokeGrace,
                flags: t.flags,
                salt: t.salt
            });
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    // ------------------------------------------------------------------------------------------------ open

    /// @dev Free money in an account of the ledger.
    function give(address owner, uint256 amount) internal {
        yuan.mint(address(this), amount);
        yuan.approve(address(ledger), amount);
        ledger.depositFor(owner, address(yuan), amount);
    }

    /// @dev Signed by provider and consumer, without approvals and parents.
    function openingOf(
        AuthorizationTerms memory terms,
        uint128 reserve
    ) internal view returns (IAuthorizations.Opening memory opening) {
        address to = address(ledgerFor(terms));
        bytes32 id = idOf(terms);
        opening.terms = terms;
        opening.acceptance = Acceptance(id, reserve, uint40(block.timestamp + DAY));
        opening.providerSignature = sign(PROVIDER, id);
        opening.consumerSignature = sign(CONSUMER, id);
        opening.acceptanceSignature = sign(CONSUMER, digests.acceptance(to, opening.acceptance));
    }

    /// @dev Opened with this much reserved, out of new money.
    function opened(AuthorizationTerms memory terms, uint128 reserve) internal returns (AuthorizationTerms memory) {
        if (reserve > 0) give(terms.consumer, reserve);
        ledgerFor(terms).open(openingOf(terms, reserve));
        return terms;
    }

    function approvalBy(
        uint256 key,
        uint16 approvalType,
        AuthorizationTerms memory terms
    ) internal view returns (Approval memory approval) {
        approval.by = Requirement(vm.addr(key), approvalType);
        approval.documentHash = "document";
        approval.validUntil = uint40(block.timestamp + DAY);
        approval.signature = sign(key, digests.approval(address(ledgerFor(terms)), approval, terms));
    }

    // --------------------------------------------------------------------------------------------- settle

    /// @dev The 229 bytes of a leaf, written here a second time.
    function encode(UsageLeaf memory leaf) internal pure returns (bytes memory) {
        return
            bytes.concat(
                abi.encodePacked(leaf.authorizationId, leaf.index, leaf.useIdHash),
                abi.encodePacked(leaf.units[0], leaf.units[1], leaf.units[2], leaf.units[3]),
                abi.encodePacked(leaf.cumUnits[0], leaf.cumUnits[1], leaf.cumUnits[2], leaf.cumUnits[3]),
                abi.encodePacked(leaf.cumCredits, leaf.eventTime, leaf.servedAt),
                abi.encodePacked(leaf.kind, leaf.purpose, leaf.modality, leaf.version, leaf.payloadHash)
            );
    }

    /// @dev The test log: leaf n is SHA-256 of its number.
    function logOf(uint256 size) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) leaves[i] = sha256(abi.encode(i));
    }

    function headOf(uint64 size, uint64 calls, uint64 rows) internal view returns (Head memory) {
        return
            Head({
                size: size,
                units: [calls, rows, 0, 0],
                credits: 0,
                asOf: uint40(block.timestamp),
                root: Tree.root(logOf(size), size)
            });
    }

    function noHead() internal pure returns (Head memory) {}

    /// @dev Signed by both, with the proof that the log grew.
    function settlementOf(
        AuthorizationTerms memory terms,
        Head memory previous,
        Head memory head
    ) internal view returns (IAuthorizations.Settlement memory settlement) {
        bytes32 digest = digests.head(address(ledgerFor(terms)), idOf(terms), head);
        settlement.terms = compactOf(terms);
        settlement.previous = previous;
        settlement.head = head;
        settlement.providerSignature = sign(PROVIDER, digest);
        settlement.consumerSignature = sign(CONSUMER, digest);
        settlement.ceilings = new IAuthorizations.SignedCeiling[](0);
        if (previous.size < head.size) {
            settlement.consistency = Tree.consistency(logOf(head.size), previous.size, head.size);
        }
    }

    function settle(AuthorizationTerms memory terms, Head memory previous, Head memory head) internal {
        ledgerFor(terms).settle(settlementOf(terms, previous, head));
    }

    /// @dev A settled first head of ten leaves.
    function settled(AuthorizationTerms memory terms, uint64 calls, uint64 rows) internal returns (Head memory head) {
        head = headOf(10, calls, rows);
        settle(terms, noHead(), head);
    }

    function ceilingBy(
        uint256 key,
        AuthorizationTerms memory terms,
        UsageCeiling memory ceiling
    ) internal view returns (IAuthorizations.SignedCeiling[] memory list) {
        list = new IAuthorizations.SignedCeiling[](1);
        ceiling.authorizationId = idOf(terms);
        list[0].ceiling = ceiling;
        list[0].signature = sign(key, digests.ceiling(address(ledgerFor(terms)), ceiling));
    }

    function closingOf(
        AuthorizationTerms memory terms,
        Head memory previous,
        Head memory head,
        uint128 finalPaid
    ) internal view returns (IAuthorizations.Closing memory closing) {
        address to = address(ledgerFor(terms));
        bytes32 id = idOf(terms);
        closing.terms = compactOf(terms);
        closing.previous = previous;
        closing.head = head;
        bytes32 headDigest = head.size == 0 ? bytes32(0) : digests.head(to, id, head);
        closing.close = Close(id, headDigest, finalPaid, uint40(block.timestamp + DAY));
        bytes32 digest = digests.close(to, closing.close);
        closing.providerSignature = sign(PROVIDER, digest);
        closing.consumerSignature = sign(CONSUMER, digest);
        if (previous.size < head.size) {
            closing.consistency = Tree.consistency(logOf(head.size), previous.size, head.size);
        }
    }

    /// @dev The price of calls and rows under `card`, by its words rather than its bytes.
    function priceOf(uint256 calls, uint256 rows) internal pure returns (uint256 price) {
        uint256 charged = calls > 10 ? calls - 10 : 0;
        uint256 low = charged < 100 ? charged : 100;
        return low * 10_000 + (charged - low) * 6_000 + (rows * 2_800_000) / 1000;
    }

    // --------------------------------------------------------------------------------------------- expect

    /// @dev The next call must fail with exactly this error.
    function refuses(bytes memory revertData) internal {
        vm.expectRevert(revertData);
    }

    function reservationOf(AuthorizationTerms memory terms) internal view returns (uint256 reserved, uint256 paid) {
        UsageLedger.Reservation memory found = ledger.reservationOf(idOf(terms));
        return (found.reserved, found.paid);
    }

    function statusOf(AuthorizationTerms memory terms) internal view returns (IAuthorizations.Status) {
        return ledgerFor(terms).authorizationOf(idOf(terms)).status;
    }
}
