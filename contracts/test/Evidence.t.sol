// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IAuthorizations} from "../interfaces/IAuthorizations.sol";
import {IUsageEvidence} from "../interfaces/IUsageEvidence.sol";
import {AuthorizationTerms, CompactTerms, Head, Terms, UsageCeiling, UseReceipt} from "../libraries/Terms.sol";
import {UsageLeaf, UsageLog} from "../libraries/UsageLog.sol";
import {AgreeingWallet} from "../mocks/Wallets.sol";
import {Tree} from "./Tree.sol";
import {Vm} from "./Vm.sol";
import {World} from "./World.sol";

/// @title Facts about settled usage logs
contract EvidenceTest is World {
    uint8 private constant USE = 0;
    uint8 private constant CREDIT = 1;
    uint8 private constant PERIOD_FEE = 2;
    uint8 private constant NOTE = 3;
    uint8 private constant REFUSAL = 4;

    uint64 private constant LAST = 6; // of the leaves in leavesOf
    uint256 private constant LEAF_BYTES = 229;
    uint256 private constant HEAD_WORDS = 8;
    uint256 private constant CHAIN = 31337; // Hardhat's
    uint256 private constant SESSION = 0x5e55;
    uint64 private constant MOST = type(uint64).max;

    /// @dev An authorization, its log, and the head that is settled.
    struct Book {
        IAuthorizations ledger;
        AuthorizationTerms terms;
        CompactTerms compact;
        bytes32 id;
        UsageLeaf[] leaves;
        bytes[] raw; // the leaves as they went into the log
        bytes32[] hashes;
        bytes32[][] proofs; // made beforehand: SHA-256 is a call, and vm.expectRevert is for the next one
        Head head;
    }

    // ------------------------------------------------------------------------------------------- the log

    function copy(UsageLeaf memory leaf) private pure returns (UsageLeaf memory) {
        return abi.decode(abi.encode(leaf), (UsageLeaf));
    }

    function copy(Head memory head) private pure returns (Head memory) {
        return abi.decode(abi.encode(head), (Head));
    }

    /// @dev The lowest bit of one word of the encoding turned over.
    function flipped(bytes memory encoded, uint256 word) private pure returns (bytes memory) {
        encoded[word * 32 + 31] ^= 0x01;
        return encoded;
    }

    function mutated(Head memory head, uint256 word) private pure returns (Head memory) {
        return abi.decode(flipped(abi.encode(head), word), (Head));
    }

    function next(
        UsageLeaf memory last,
        uint8 kind,
        uint64 calls,
        uint64 rows,
        uint128 credit
    ) private pure returns (UsageLeaf memory leaf) {
        leaf = copy(last);
        leaf.index = last.index + 1;
        leaf.useIdHash = keccak256(abi.encode(leaf.index));
        leaf.units = [calls, rows, 0, 0];
        leaf.cumUnits[0] += calls;
        leaf.cumUnits[1] += rows;
        leaf.cumCredits += credit;
        leaf.eventTime += 1;
        leaf.servedAt += 1;
        leaf.kind = kind;
        leaf.payloadHash = sha256(abi.encode(leaf.index));
    }

    /// @dev 0 use, 1 use, 2 credit, 3 period fee, 4 note, 5 refusal, 6 use.
    function leavesOf(bytes32 id) private view returns (UsageLeaf[] memory leaves) {
        leaves = new UsageLeaf[](7);
        leaves[0] = UsageLeaf({
            authorizationId: id,
            index: 0,
            useIdHash: "first",
            units: [uint64(3), 100, 0, 0],
            cumUnits: [uint64(3), 100, 0, 0],
            cumCredits: 0,
            eventTime: uint40(START - 20),
            servedAt: uint40(START - 10),
            kind: USE,
            purpose: 1,
            modality: 1,
            version: version,
            payloadHash: "payload"
        });
        leaves[1] = next(leaves[0], USE, 2, 50, 0);
        leaves[2] = next(leaves[1], CREDIT, 0, 0, 500);
        leaves[3] = next(leaves[2], PERIOD_FEE, 5, 0, 0);
        leaves[4] = next(leaves[3], NOTE, 0, 0, 0);
        leaves[5] = next(leaves[4], REFUSAL, 0, 0, 0);
        leaves[6] = next(leaves[5], USE, 1, 20, 0);
    }

    /// @dev Open, with a good log of which nothing is settled yet.
    function fresh(AuthorizationTerms memory terms) private returns (Book memory book) {
        book.terms = opened(terms, 0);
        book.ledger = ledgerFor(terms);
        book.compact = compactOf(terms);
        book.id = idOf(terms);
        book.leaves = leavesOf(book.id);
        UsageLeaf memory last = book.leaves[book.leaves.length - 1];
        book.head.units = copy(last).cumUnits;
        book.head.credits = last.cumCredits;
        book.head.asOf = uint40(START);
    }

    /// @dev Writes down and hashes the leaves as they are now; the head's totals stay as they are.
    function hashLog(Book memory book) private view {
        uint256 size = book.leaves.length;
        (book.raw, book.hashes) = (new bytes[](size), new bytes32[](size));
        for (uint256 i = 0; i < size; ++i) {
            book.raw[i] = encode(book.leaves[i]);
            book.hashes[i] = digests.leaf(book.raw[i]);
        }
        plant(book);
    }

    /// @dev The tree over the hashes as they are now.
    function plant(Book memory book) private pure {
        uint256 size = book.hashes.length;
        book.head.size = uint64(size);
        book.head.root = Tree.root(book.hashes, size);
        book.proofs = new bytes32[][](size);
        for (uint256 i = 0; i < size; ++i) book.proofs[i] = Tree.inclusion(book.hashes, i, size);
    }

    function record(Book memory book) private {
        hashLog(book);
        settle(book.terms, noHead(), book.head);
    }

    function settledBook(AuthorizationTerms memory terms) private returns (Book memory book) {
        book = fresh(terms);
        record(book);
    }

    function settledBook() private returns (Book memory) {
        return settledBook(termsOf());
    }

    /// @dev Settles a head with one leaf more.
    function outgrow(Book memory book) private returns (Head memory head, bytes32[] memory hashes) {
        hashes = new bytes32[](8);
        for (uint256 i = 0; i < 7; ++i) hashes[i] = book.hashes[i];
        hashes[7] = digests.leaf(encode(next(book.leaves[LAST], NOTE, 0, 0, 0)));
        head = copy(book.head);
        (head.size, head.root) = (8, Tree.root(hashes, 8));
        IAuthorizations.Settlement memory settlement = settlementOf(book.terms, book.head, head);
        settlement.consistency = Tree.consistency(hashes, 7, 8);
        book.ledger.settle(settlement);
    }

    /// @dev Terms of one authorization on each ledger.
    function onBoth() private returns (AuthorizationTerms[2] memory) {
        return [termsOf(), invoicedTermsOf()];
    }

    /// @dev What was recorded since vm.recordLogs is this fact and nothing else.
    function requireFact(
        Book memory book,
        IUsageEvidence.Fact fact,
        address against,
        uint64 index,
        bytes32 hash
    ) private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1, "logs");
        assertEq(logs[0].topics.length, 4, "topics");
        assertTrue(logs[0].emitter == address(evidence), "emitter");
        assertEq(logs[0].topics[0], IUsageEvidence.FactProven.selector, "event");
        assertEq(logs[0].topics[1], book.id, "authorization");
        assertEq(logs[0].topics[2], bytes32(uint256(fact)), "fact");
        assertEq(logs[0].topics[3], bytes32(uint256(uint160(against))), "against");
        assertEq(keccak256(logs[0].data), keccak256(abi.encode(book.ledger, index, hash)), "data");
    }

    function malformed(uint256 length) private pure returns (bytes memory) {
        return abi.encodeWithSelector(UsageLog.LeafMalformed.selector, length);
    }

    function notSettled(bytes32 id, bytes32 held) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageEvidence.HeadNotSettled.selector, id, held);
    }

    function notIncluded(bytes32 id, uint64 index) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageEvidence.LeafNotIncluded.selector, id, index);
    }

    function nothing(bytes32 id, uint64 index) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageEvidence.NothingWrong.selector, id, index);
    }

    function notSigned(address wallet) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IUsageEvidence.NotSignedBy.selector, wallet);
    }

    // ------------------------------------------------------- what every function that shows a leaf refuses

    uint256 private constant FUNCTIONS = 5;
    uint256 private constant STEP = 3; // of the functions, proveBadStep

    /// @dev Shows one leaf at an index to one of the five functions that take them. A use is sought at the index that
    /// stands in the leaf, units at the last. Makes no other call.
    function show(
        uint256 which,
        Book memory book,
        Head memory head,
        uint64 index,
        bytes memory leaf,
        bytes32[] memory proof
    ) private {
        if (which == 0) {
            evidence.proveUse(head, leaf, proof);
        } else if (which == 1) {
            UseReceipt memory receipt;
            receipt.index = index;
            evidence.proveReceiptMismatch(book.compact, head, receipt, "", leaf, proof);
        } else if (which == 2) {
            evidence.proveUnits(book.compact, head, leaf, proof);
        } else if (which == 3) {
            uint256 count = index == 0 ? 1 : 2;
            bytes[] memory leaves = new bytes[](count);
            bytes32[][] memory proofs = new bytes32[][](count);
            if (count == 2) (leaves[0], proofs[0]) = (book.raw[LAST - 1], book.proofs[LAST - 1]);
            (leaves[count - 1], proofs[count - 1]) = (leaf, proof);
            showSteps(book, head, index, leaves, proofs);
        } else {
            evidence.proveOutOfScope(book.terms, head, index, leaf, proof);
        }
    }

    /// @dev The last leaf, which every function can be shown, under this head.
    function showLast(uint256 which, Book memory book, Head memory head) private {
        show(which, book, head, LAST, book.raw[LAST], book.proofs[LAST]);
    }

    function test_every_function_finds_the_leaf_in_the_log_on_both_ledgers() external {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) {
            Book memory book = settledBook(terms[i]);
            vm.recordLogs();
            showLast(0, book, book.head);
            requireFact(book, IUsageEvidence.Fact.USE, address(0), LAST, book.hashes[LAST]);
            for (uint256 f = 1; f < FUNCTIONS; ++f) {
                refuses(nothing(book.id, LAST));
                showLast(f, book, book.head);
            }
        }
    }

    function test_no_function_finds_an_authorization_at_the_other_ledger() external {
        requireUnknownAtTheOther(settledBook(termsOf()));
        requireUnknownAtTheOther(settledBook(invoicedTermsOf()));
    }

    /// @dev The terms' flags say which ledger it is. A use has no terms: its ledger is the one that knows the id.
    function requireUnknownAtTheOther(Book memory book) private {
        Head[2] memory heads = forkOf(book);
        bytes[2] memory signatures = signed(book, PROVIDER, heads);
        book.terms.flags ^= Terms.INVOICED;
        book.compact = compactOf(book.terms);
        bytes32 otherId = idOf(book.terms);
        for (uint256 f = 1; f < FUNCTIONS; ++f) {
            refuses(notSettled(otherId, 0));
            showLast(f, book, book.head);
        }
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, signatures);
    }

    function test_no_function_takes_a_head_that_was_never_settled() external {
        requireUnsettled(fresh(termsOf()));
        requireUnsettled(fresh(invoicedTermsOf()));
    }

    function requireUnsettled(Book memory book) private {
        bytes memory leaf = encode(book.leaves[0]);
        book.head.size = 1;
        book.head.root = digests.leaf(leaf);
        for (uint256 f = 0; f < FUNCTIONS; ++f) {
            refuses(notSettled(book.id, 0));
            show(f, book, book.head, 0, leaf, new bytes32[](0));
            refuses(notSettled(book.id, 0));
            show(f, book, noHead(), 0, leaf, new bytes32[](0));
        }
    }

    function test_no_function_takes_a_head_with_any_field_changed() external {
        Book memory book = settledBook();
        bytes32 held = ledger.authorizationOf(book.id).headDigest;
        for (uint256 word = 0; word < HEAD_WORDS; ++word) {
            Head memory junk = mutated(book.head, word);
            for (uint256 f = 0; f < FUNCTIONS; ++f) {
                refuses(notSettled(book.id, held));
                showLast(f, book, junk);
            }
        }
    }

    function test_no_function_takes_a_head_that_another_has_followed() external {
        Book memory book = settledBook();
        (Head memory head, bytes32[] memory hashes) = outgrow(book);
        bytes32 held = digests.head(address(ledger), book.id, head);
        for (uint256 f = 0; f < FUNCTIONS; ++f) {
            refuses(notSettled(book.id, held));
            showLast(f, book, book.head);
        }
        bytes32[] memory proof = Tree.inclusion(hashes, 0, 8);
        vm.recordLogs();
        evidence.proveUse(head, book.raw[0], proof);
        requireFact(book, IUsageEvidence.Fact.USE, address(0), 0, book.hashes[0]);
    }

    function test_no_function_takes_a_leaf_with_any_byte_changed() external {
        Book memory book = settledBook();
        bytes memory leaf = book.raw[LAST];
        for (uint256 i = 0; i < LEAF_BYTES; ++i) {
            leaf[i] ^= 0x01;
            for (uint256 f = 0; f < FUNCTIONS; ++f) {
                bytes memory problem = notIncluded(book.id, LAST);
                // A use is looked up by the id and the index that stand in the leaf.
                if (f == 0 && i < 32) problem = notSettled(book.id ^ bytes32(1 << (248 - 8 * i)), 0);
                else if (f == 0 && i < 40) problem = notIncluded(book.id, LAST ^ uint64(1 << (312 - 8 * i)));
                refuses(problem);
                showLast(f, book, book.head);
            }
            leaf[i] ^= 0x01;
        }
    }

    function test_no_function_takes_a_leaf_of_another_length() external {
        Book memory book = settledBook();
        bytes memory whole = book.raw[LAST];
        uint256[5] memory lengths = [uint256(0), 64, 228, 230, 458];
        for (uint256 i = 0; i < lengths.length; ++i) {
            book.raw[LAST] = sized(whole, lengths[i]);
            for (uint256 f = 0; f < FUNCTIONS; ++f) requireNoLeaf(book, f, malformed(lengths[i]));
        }
    }

    /// @dev What is in the log at all can be a bad step, whatever its length; but this is not in the log.
    function requireNoLeaf(Book memory book, uint256 f, bytes memory problem) private {
        refuses(f == STEP ? notIncluded(book.id, LAST) : problem);
        showLast(f, book, book.head);
    }

    function test_an_entry_of_another_length_in_the_log_is_a_bad_step() external {
        uint256[3] memory lengths = [uint256(0), 228, 230];
        for (uint256 i = 0; i < lengths.length; ++i) {
            Book memory book = bookWithLength(LAST, lengths[i]);
            vm.recordLogs();
            showStep(book, LAST);
            requireFact(book, IUsageEvidence.Fact.BAD_STEP, provider, LAST, book.hashes[LAST]);
        }
    }

    function test_no_other_function_takes_a_leaf_of_another_length_that_is_in_the_log() external {
        uint256[2] memory lengths = [uint256(228), 230];
        for (uint256 i = 0; i < lengths.length; ++i) {
            Book memory book = bookWithLength(LAST, lengths[i]);
            for (uint256 f = 0; f < FUNCTIONS; ++f) {
                if (f == STEP) continue;
                refuses(malformed(lengths[i]));
                showLast(f, book, book.head);
            }
            book = bookWithLength(LAST - 1, lengths[i]);
            refuses(malformed(lengths[i]));
            showStep(book, LAST);
        }
    }

    /// @dev Settled, with a leaf at `index` that is shorter or longer than a leaf.
    function bookWithLength(uint64 index, uint256 length) private returns (Book memory book) {
        book = fresh(termsOf());
        hashLog(book);
        book.raw[index] = sized(book.raw[index], length);
        book.hashes[index] = sha256(bytes.concat(bytes1(0x00), book.raw[index]));
        plant(book);
        settle(book.terms, noHead(), book.head);
    }

    function test_no_function_takes_a_leaf_at_another_index() external {
        Book memory book = settledBook();
        UsageLeaf memory lying = copy(book.leaves[LAST]);
        for (uint64 i = 0; i < 9; ++i) {
            if (i == LAST) continue;
            uint64 index = i == 8 ? MOST : i;
            lying.index = index;
            bytes32[][2] memory proofs = [book.proofs[i < 7 ? i : 0], book.proofs[LAST]];
            for (uint256 p = 0; p < 2; ++p) {
                for (uint256 f = 0; f < FUNCTIONS; ++f) {
                    if (f == 2) continue; // the last leaf, whatever it says
                    refuses(notIncluded(book.id, index));
                    show(f, book, book.head, index, f == 0 ? encode(lying) : book.raw[LAST], proofs[p]);
                }
            }
        }
    }

    function test_no_function_takes_a_proof_that_is_changed_or_shorter_or_longer() external {
        Book memory book = settledBook();
        requireProofs(book, 0);
        requireProofs(book, LAST);
    }

    function requireProofs(Book memory book, uint64 index) private {
        bytes32[] memory proof = book.proofs[index];
        uint256 length = proof.length;
        for (uint256 i = 0; i < length + 3; ++i) {
            bytes32[] memory wrong = sized(proof, length);
            if (i < length) wrong[i] ^= bytes32(uint256(1));
            if (i == length) wrong = book.proofs[1];
            if (i == length + 1) wrong = sized(proof, length - 1);
            if (i == length + 2) wrong = sized(proof, length + 1);
            for (uint256 f = 0; f < FUNCTIONS; ++f) {
                if (f == 2 && index != LAST) continue;
                refuses(notIncluded(book.id, index));
                show(f, book, book.head, index, book.raw[index], wrong);
            }
        }
    }

    function sized(bytes32[] memory proof, uint256 length) private pure returns (bytes32[] memory made) {
        made = new bytes32[](length);
        for (uint256 i = 0; i < length && i < proof.length; ++i) made[i] = proof[i];
    }

    function sized(bytes memory leaf, uint256 length) private pure returns (bytes memory made) {
        made = new bytes(length);
        for (uint256 i = 0; i < length && i < leaf.length; ++i) made[i] = leaf[i];
    }

    function test_on_another_chain_nothing_of_this_one_is_settled() external {
        Book memory book = settledBook();
        vm.chainId(CHAIN + 1);
        bytes32 otherId = ledger.idOf(book.terms);
        for (uint256 f = 1; f < FUNCTIONS; ++f) {
            refuses(notSettled(otherId, 0));
            showLast(f, book, book.head);
        }
        bytes32 held = ledger.authorizationOf(book.id).headDigest;
        refuses(notSettled(book.id, held));
        showLast(0, book, book.head);
    }

    // ------------------------------------------------------------------------------------------------ use

    function test_every_leaf_of_the_settled_log_is_proven() external {
        requireUses(settledBook());
    }

    function test_every_leaf_of_an_invoiced_authorization_is_proven() external {
        requireUses(settledBook(invoicedTermsOf()));
    }

    function requireUses(Book memory book) private {
        for (uint64 n = 0; n < 7; ++n) requireUse(book, n);
    }

    /// @dev By anybody.
    function requireUse(Book memory book, uint64 index) private {
        vm.recordLogs();
        vm.prank(stranger);
        evidence.proveUse(book.head, book.raw[index], book.proofs[index]);
        requireFact(book, IUsageEvidence.Fact.USE, address(0), index, book.hashes[index]);
    }

    function test_a_use_is_not_proven_under_another_authorizations_head() external {
        AuthorizationTerms[2] memory terms = onBoth();
        Book[3] memory books = [settledBook(terms[0]), settledBook(terms[1]), settledBook()];
        for (uint256 i = 0; i < 3; ++i) {
            Book memory book = books[i];
            bytes32 held = book.ledger.headDigestOf(book.id);
            for (uint256 j = 0; j < 3; ++j) {
                if (i == j) continue;
                refuses(notSettled(book.id, held));
                evidence.proveUse(books[j].head, book.raw[4], book.proofs[4]);
                refuses(notSettled(book.id, held));
                evidence.proveUse(books[j].head, book.raw[4], books[j].proofs[4]);
            }
        }
    }

    function test_a_use_stays_provable_after_the_authorization_is_closed() external {
        AuthorizationTerms[2] memory terms = onBoth();
        Book[2] memory books = [settledBook(terms[0]), settledBook(terms[1])];
        vm.warp(uint256(terms[0].validUntil) + terms[0].thawSeconds + 1);
        for (uint256 i = 0; i < 2; ++i) {
            books[i].ledger.finalize(books[i].compact);
            requireUse(books[i], 4);
        }
    }

    function test_the_only_leaf_of_a_log_needs_no_proof() external {
        Book memory book = fresh(termsOf());
        UsageLeaf memory only = book.leaves[0];
        book.leaves = new UsageLeaf[](1);
        book.leaves[0] = only;
        record(book);

        vm.recordLogs();
        evidence.proveUse(book.head, book.raw[0], new bytes32[](0));
        requireFact(book, IUsageEvidence.Fact.USE, address(0), 0, book.hashes[0]);
    }

    function test_a_leaf_that_lies_about_its_index_is_no_use() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].index = 5;
        record(book);
        for (uint256 n = 4; n < 6; ++n) {
            refuses(notIncluded(book.id, 5));
            evidence.proveUse(book.head, book.raw[4], book.proofs[n]);
        }
    }

    function test_a_leaf_of_another_authorization_is_a_use_of_neither() external {
        Book memory other = settledBook();
        Book memory book = fresh(termsOf());
        book.leaves[4].authorizationId = other.id;
        record(book);

        bytes32 held = ledger.headDigestOf(other.id);
        refuses(notSettled(other.id, held));
        evidence.proveUse(book.head, book.raw[4], book.proofs[4]);
        refuses(notIncluded(other.id, 4));
        evidence.proveUse(other.head, book.raw[4], book.proofs[4]);
    }

    // ----------------------------------------------------------------------------------------------- fork

    /// @dev The settled head and another of the same size.
    function forkOf(Book memory book) private pure returns (Head[2] memory heads) {
        heads = [copy(book.head), copy(book.head)];
        heads[1].root = "another log";
    }

    function signed(Book memory book, uint256 key, Head memory head) private view returns (bytes memory) {
        return sign(key, digests.head(address(book.ledger), book.id, head));
    }

    function signed(Book memory book, uint256 key, Head[2] memory heads) private view returns (bytes[2] memory) {
        return [signed(book, key, heads[0]), signed(book, key, heads[1])];
    }

    function registerSessionKey(address wallet) private {
        bytes32 typeHash = keccak256("SessionKey(address wallet,address key,uint40 expiry,uint128 maxDue)");
        uint40 expiry = uint40(START + DAY);
        address key = vm.addr(SESSION);
        bytes32 structHash = keccak256(abi.encode(typeHash, wallet, key, expiry, uint128(1000)));
        bytes memory possession = sign(SESSION, digests.digest(address(sessionKeys), structHash));
        vm.prank(wallet);
        sessionKeys.registerSessionKey(key, expiry, 1000, possession);
    }

    function test_a_fork_is_proven_against_each_party_that_signed_both_on_both_ledgers() external {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) {
            terms[i].meteringAgent = agent;
            Book memory book = settledBook(terms[i]);
            Head[2] memory heads = forkOf(book);
            requireFork(book, provider, heads, signed(book, PROVIDER, heads));
            requireFork(book, consumer, heads, signed(book, CONSUMER, heads));
            requireFork(book, agent, heads, signed(book, AGENT, heads));
        }
    }

    function requireFork(Book memory book, address wallet, Head[2] memory heads, bytes[2] memory signatures) private {
        bytes32 second = digests.head(address(book.ledger), book.id, heads[1]);
        vm.recordLogs();
        evidence.proveFork(book.compact, wallet, heads, signatures);
        requireFact(book, IUsageEvidence.Fact.FORK, wallet, heads[1].size, second);
    }

    function test_a_fork_needs_no_signature_under_the_settled_head_on_either_side() external {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) {
            Book memory book = settledBook(terms[i]);
            requireForkWithSettled(book, PROVIDER);
            requireForkWithSettled(book, CONSUMER);
        }
    }

    function requireForkWithSettled(Book memory book, uint256 key) private {
        Head[2] memory heads = forkOf(book);
        bytes memory signature = signed(book, key, heads[1]);
        requireFork(book, vm.addr(key), heads, [bytes(""), signature]);
        requireFork(book, vm.addr(key), [heads[1], heads[0]], [signature, bytes("")]);
    }

    function test_a_fork_of_two_heads_that_were_never_settled_is_a_fork() external {
        Book memory book = fresh(termsOf());
        (book.head.size, book.head.root) = (5, "one log");
        Head[2] memory heads = forkOf(book);
        heads[1].asOf -= 5;
        heads[1].units[0] += 1;
        requireFork(book, provider, heads, signed(book, PROVIDER, heads));
    }

    function test_a_fork_by_a_session_key_that_was_later_revoked_is_still_the_wallets() external {
        Book memory book = settledBook();
        registerSessionKey(provider);
        Head[2] memory heads = forkOf(book);
        bytes[2] memory signatures = signed(book, SESSION, heads);
        address key = vm.addr(SESSION);
        vm.prank(provider);
        sessionKeys.revokeSessionKey(key);
        vm.warp(START + 400 * DAY); // the key has expired, and its thaw is over

        requireFork(book, provider, heads, signatures);
    }

    function test_a_fork_by_a_session_key_of_another_wallet_is_refused() external {
        Book memory book = settledBook();
        registerSessionKey(consumer);
        Head[2] memory heads = forkOf(book);
        bytes[2] memory signatures = signed(book, SESSION, heads);
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, signatures);
    }

    function test_a_fork_by_a_contract_wallet_that_calls_both_signatures_its_own_is_proven() external {
        AuthorizationTerms memory terms = termsOf();
        terms.consumer = address(new AgreeingWallet());
        vm.prank(operator);
        spaces.admit(space, terms.consumer, 2, "contract");
        Book memory book = settledBook(terms);
        requireFork(book, terms.consumer, forkOf(book), [bytes("one"), bytes("two")]);
    }

    function test_two_heads_with_the_same_root_are_no_fork() external {
        Book memory book = settledBook();
        Head[2] memory heads = [copy(book.head), copy(book.head)];
        heads[1].asOf -= 1;
        heads[1].credits += 1;
        bytes[2] memory signatures = signed(book, PROVIDER, heads);
        refuses(nothing(book.id, 7));
        evidence.proveFork(book.compact, provider, heads, signatures);

        heads = [book.head, book.head];
        refuses(nothing(book.id, 7));
        evidence.proveFork(book.compact, provider, heads, [bytes(""), bytes("")]);
    }

    function test_two_heads_of_different_sizes_are_no_fork() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        heads[1].size = 8;
        bytes[2] memory signatures = signed(book, PROVIDER, heads);
        refuses(nothing(book.id, 7));
        evidence.proveFork(book.compact, provider, heads, signatures);

        (heads, signatures) = ([heads[1], heads[0]], [signatures[1], signatures[0]]);
        refuses(nothing(book.id, 8));
        evidence.proveFork(book.compact, provider, heads, signatures);
    }

    function test_only_the_settled_head_needs_no_signature() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        bytes memory signature = signed(book, PROVIDER, heads[0]);
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, [signature, bytes("")]);
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, [bytes(""), bytes("")]);
    }

    function test_a_fork_is_not_proven_against_somebody_who_is_no_party() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        uint256[3] memory keys = [STRANGER, OPERATOR, AGENT];
        for (uint256 k = 0; k < keys.length; ++k) {
            bytes[2] memory signatures = signed(book, keys[k], heads);
            refuses(notSigned(vm.addr(keys[k])));
            evidence.proveFork(book.compact, vm.addr(keys[k]), heads, signatures);
        }
    }

    function test_a_fork_is_not_proven_against_the_missing_metering_agent() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        refuses(notSigned(address(0)));
        evidence.proveFork(book.compact, address(0), heads, [bytes(""), bytes("junk")]);
        refuses(notSigned(address(0)));
        evidence.proveFork(book.compact, address(0), heads, [new bytes(65), new bytes(65)]);
    }

    function test_a_fork_signed_by_somebody_else_is_not_the_partys() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        bytes[2] memory good = signed(book, PROVIDER, heads);
        uint256[3] memory keys = [CONSUMER, STRANGER, SESSION];
        for (uint256 k = 0; k < keys.length; ++k) {
            bytes[2] memory wrong = signed(book, keys[k], heads);
            refuses(notSigned(provider));
            evidence.proveFork(book.compact, provider, heads, [good[0], wrong[1]]);
            refuses(notSigned(provider));
            evidence.proveFork(book.compact, provider, heads, [wrong[0], good[1]]);
        }
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, [good[1], good[0]]);
    }

    function test_a_signature_in_another_form_counts_for_nothing() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        bytes32 digest = digests.head(address(ledger), book.id, heads[1]);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PROVIDER, digest);
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        bytes32 high = bytes32(order - uint256(s));
        bytes[4] memory wrong = [
            abi.encodePacked(r, s),
            abi.encodePacked(r, s, v, uint8(0)),
            abi.encodePacked(r, high, 55 - v),
            abi.encodePacked(r, s, v - 27)
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            refuses(notSigned(provider));
            evidence.proveFork(book.compact, provider, heads, [bytes(""), wrong[i]]);
        }
    }

    function test_a_fork_signed_for_another_chain_or_ledger_or_authorization_is_refused() external {
        Book memory book = settledBook();
        Head[2] memory heads = forkOf(book);
        bytes[2] memory wrong = [bytes(""), ""];
        assertEq(block.chainid, CHAIN, "chain");
        vm.chainId(CHAIN + 1);
        wrong[1] = signed(book, PROVIDER, heads[1]);
        vm.chainId(CHAIN);
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, wrong);

        wrong[1] = sign(PROVIDER, digests.head(address(invoices), book.id, heads[1]));
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, wrong);

        wrong[1] = sign(PROVIDER, digests.head(address(ledger), "another", heads[1]));
        refuses(notSigned(provider));
        evidence.proveFork(book.compact, provider, heads, wrong);
    }

    // The ledger's word for a settled head is a word for those who vouched for it, which the basis tells.

    /// @dev Settled with what makes this the basis. There is a metering agent.
    function bookOn(IAuthorizations.Basis basis, AuthorizationTerms memory terms) private returns (Book memory book) {
        bool unseen = basis == IAuthorizations.Basis.CEILING;
        bool capped = basis == IAuthorizations.Basis.AGENT_CAPPED;
        terms.meteringAgent = agent;
        if (capped) terms.flags |= Terms.AGENT_CAPPED;
        book = fresh(terms);
        hashLog(book);
        IAuthorizations.Settlement memory settlement = settlementOf(terms, noHead(), book.head);
        if (unseen) settlement.consumerSignature = "";
        if (capped || basis == IAuthorizations.Basis.AGENT) {
            settlement.consumerSignature = signed(book, AGENT, book.head);
        }
        if (capped || unseen) {
            UsageCeiling memory ceiling = UsageCeiling(0, terms.maxUnits, 0, 10_000_000, uint40(START + DAY));
            settlement.ceilings = ceilingBy(CONSUMER, terms, ceiling);
        }
        book.ledger.settle(settlement);
        assertTrue(book.ledger.authorizationOf(book.id).basis == basis, "basis");
    }

    /// @dev On both ledgers the settled head needs no signature of this party.
    function requireVouched(IAuthorizations.Basis basis, uint256 key) private {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) requireForkWithSettled(bookOn(basis, terms[i]), key);
    }

    /// @dev On both ledgers the settled head needs this party's signature like any other.
    function requireNotVouched(IAuthorizations.Basis basis, uint256 key) private {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) refuseForkWithSettled(bookOn(basis, terms[i]), key);
    }

    function refuseForkWithSettled(Book memory book, uint256 key) private {
        Head[2] memory heads = forkOf(book);
        bytes[2] memory signatures = signed(book, key, heads);
        address wallet = vm.addr(key);
        refuses(notSigned(wallet));
        evidence.proveFork(book.compact, wallet, heads, [bytes(""), signatures[1]]);
        refuses(notSigned(wallet));
        evidence.proveFork(book.compact, wallet, [heads[1], heads[0]], [signatures[1], bytes("")]);
        requireFork(book, wallet, heads, signatures);
    }

    function test_a_provider_has_vouched_for_the_settled_head_on_every_basis() external {
        requireVouched(IAuthorizations.Basis.CONSUMER, PROVIDER);
        requireVouched(IAuthorizations.Basis.AGENT, PROVIDER);
        requireVouched(IAuthorizations.Basis.AGENT_CAPPED, PROVIDER);
        requireVouched(IAuthorizations.Basis.CEILING, PROVIDER);
    }

    function test_a_provider_that_settled_without_a_signature_has_vouched_for_the_head() external {
        Book memory book = fresh(termsOf());
        hashLog(book);
        IAuthorizations.Settlement memory settlement = settlementOf(book.terms, noHead(), book.head);
        settlement.providerSignature = "";
        vm.prank(provider);
        ledger.settle(settlement);
        requireForkWithSettled(book, PROVIDER);
    }

    function test_a_consumer_that_signed_the_settled_head_has_vouched_for_it() external {
        requireVouched(IAuthorizations.Basis.CONSUMER, CONSUMER);
    }

    function test_an_agent_that_signed_the_settled_head_has_vouched_for_it() external {
        requireVouched(IAuthorizations.Basis.AGENT, AGENT);
    }

    function test_an_agent_that_signed_the_settled_head_under_a_ceiling_has_vouched_for_it() external {
        requireVouched(IAuthorizations.Basis.AGENT_CAPPED, AGENT);
    }

    function test_a_consumer_whose_agent_signed_the_settled_head_has_not_forked_with_it() external {
        requireNotVouched(IAuthorizations.Basis.AGENT, CONSUMER);
    }

    function test_a_consumer_whose_agent_signed_under_its_ceiling_has_not_forked_with_the_settled_head() external {
        requireNotVouched(IAuthorizations.Basis.AGENT_CAPPED, CONSUMER);
    }

    function test_an_agent_whose_consumer_signed_the_settled_head_has_not_forked_with_it() external {
        requireNotVouched(IAuthorizations.Basis.CONSUMER, AGENT);
    }

    function test_a_consumer_that_only_signed_a_ceiling_has_not_forked_with_the_settled_head() external {
        requireNotVouched(IAuthorizations.Basis.CEILING, CONSUMER);
    }

    function test_an_agent_has_not_forked_with_a_head_that_was_settled_under_a_ceiling_alone() external {
        requireNotVouched(IAuthorizations.Basis.CEILING, AGENT);
    }

    function test_a_consumer_that_closed_together_at_a_head_has_vouched_for_it() external {
        Book memory book = bookOn(IAuthorizations.Basis.CEILING, termsOf());
        ledger.closeTogether(closingOf(book.terms, book.head, book.head, 0));
        requireForkWithSettled(book, PROVIDER);
        requireForkWithSettled(book, CONSUMER);
    }

    function test_a_settled_head_that_another_has_followed_needs_its_signature() external {
        Book memory book = settledBook();
        outgrow(book);
        refuseForkWithSettled(book, PROVIDER);
        refuseForkWithSettled(book, CONSUMER);
    }

    // -------------------------------------------------------------------------------------------- receipt

    /// @dev For another leaf than the log has at this index.
    function receiptOf(Book memory book, uint64 index) private pure returns (UseReceipt memory) {
        UsageLeaf memory leaf = book.leaves[index];
        return UseReceipt(book.id, index, "another leaf", leaf.cumUnits, leaf.servedAt);
    }

    function signed(Book memory book, uint256 key, UseReceipt memory receipt) private view returns (bytes memory) {
        return sign(key, digests.receipt(address(book.ledger), receipt));
    }

    /// @dev With the leaf at `index`, which need not be the receipt's.
    function showReceipt(Book memory book, UseReceipt memory receipt, bytes memory signature, uint64 index) private {
        bytes memory leaf = book.raw[index];
        bytes32[] memory proof = book.proofs[index];
        evidence.proveReceiptMismatch(book.compact, book.head, receipt, signature, leaf, proof);
    }

    function test_a_receipt_for_another_leaf_is_proven_against_the_provider_on_both_ledgers() external {
        requireReceipts(settledBook(termsOf()));
        requireReceipts(settledBook(invoicedTermsOf()));
    }

    function requireReceipts(Book memory book) private {
        for (uint64 n = 0; n < 7; ++n) {
            UseReceipt memory receipt = receiptOf(book, n);
            bytes memory signature = signed(book, PROVIDER, receipt);
            vm.recordLogs();
            showReceipt(book, receipt, signature, n);
            requireFact(book, IUsageEvidence.Fact.RECEIPT_MISMATCH, provider, n, book.hashes[n]);
        }
    }

    function test_a_receipt_by_a_session_key_that_was_later_revoked_is_the_providers() external {
        Book memory book = settledBook();
        registerSessionKey(provider);
        UseReceipt memory receipt = receiptOf(book, 1);
        bytes memory signature = signed(book, SESSION, receipt);
        address key = vm.addr(SESSION);
        vm.prank(provider);
        sessionKeys.revokeSessionKey(key);
        vm.warp(START + 400 * DAY);

        vm.recordLogs();
        showReceipt(book, receipt, signature, 1);
        requireFact(book, IUsageEvidence.Fact.RECEIPT_MISMATCH, provider, 1, book.hashes[1]);
    }

    function test_a_genuine_receipt_proves_nothing() external {
        Book memory book = settledBook();
        for (uint64 n = 0; n < 7; ++n) {
            UseReceipt memory receipt = receiptOf(book, n);
            receipt.leafHash = book.hashes[n];
            bytes memory signature = signed(book, PROVIDER, receipt);
            refuses(nothing(book.id, n));
            showReceipt(book, receipt, signature, n);
        }
    }

    function test_a_receipt_is_held_against_no_leaf_but_the_one_at_its_index() external {
        Book memory book = settledBook();
        UseReceipt memory receipt = receiptOf(book, 1);
        bytes memory signature = signed(book, PROVIDER, receipt);
        for (uint64 n = 0; n < 7; ++n) {
            if (n == 1) continue;
            refuses(notIncluded(book.id, 1));
            showReceipt(book, receipt, signature, n);
        }
    }

    function test_a_receipt_is_held_against_the_leaf_at_its_index_whatever_that_says_of_itself() external {
        Book memory book = fresh(termsOf());
        (book.leaves[1].index, book.leaves[4].authorizationId) = (2, "another");
        record(book);
        uint64[2] memory places = [uint64(1), 4];
        for (uint256 i = 0; i < 2; ++i) {
            UseReceipt memory receipt = receiptOf(book, places[i]);
            bytes memory signature = signed(book, PROVIDER, receipt);
            vm.recordLogs();
            showReceipt(book, receipt, signature, places[i]);
            requireFact(book, IUsageEvidence.Fact.RECEIPT_MISMATCH, provider, places[i], book.hashes[places[i]]);

            receipt.leafHash = book.hashes[places[i]];
            signature = signed(book, PROVIDER, receipt);
            refuses(nothing(book.id, places[i]));
            showReceipt(book, receipt, signature, places[i]);
        }
    }

    function test_a_receipt_for_another_authorization_proves_nothing() external {
        Book memory book = settledBook();
        UseReceipt memory receipt = receiptOf(book, 1);
        receipt.authorizationId = settledBook().id;
        bytes memory signature = signed(book, PROVIDER, receipt);
        refuses(nothing(book.id, 1));
        showReceipt(book, receipt, signature, 1);
    }

    function test_a_receipt_that_the_provider_did_not_sign_is_refused() external {
        Book memory book = settledBook();
        registerSessionKey(consumer);
        UseReceipt memory receipt = receiptOf(book, 1);
        uint256[3] memory keys = [CONSUMER, STRANGER, SESSION];
        for (uint256 k = 0; k < keys.length; ++k) {
            bytes memory signature = signed(book, keys[k], receipt);
            refuses(notSigned(provider));
            showReceipt(book, receipt, signature, 1);
        }
        refuses(notSigned(provider));
        showReceipt(book, receipt, "", 1);
    }

    function test_a_receipt_signed_for_another_chain_or_ledger_is_refused() external {
        Book memory book = settledBook();
        UseReceipt memory receipt = receiptOf(book, 1);
        vm.chainId(CHAIN + 1);
        bytes memory signature = signed(book, PROVIDER, receipt);
        vm.chainId(CHAIN);
        refuses(notSigned(provider));
        showReceipt(book, receipt, signature, 1);

        signature = sign(PROVIDER, digests.receipt(address(invoices), receipt));
        refuses(notSigned(provider));
        showReceipt(book, receipt, signature, 1);
    }

    function test_a_receipt_with_any_field_changed_after_signing_is_refused() external {
        Book memory book = settledBook();
        UseReceipt memory receipt = receiptOf(book, 1);
        bytes memory signature = signed(book, PROVIDER, receipt);
        for (uint256 word = 1; word < 8; ++word) {
            UseReceipt memory changed = abi.decode(flipped(abi.encode(receipt), word), (UseReceipt));
            refuses(notSigned(provider));
            showReceipt(book, changed, signature, changed.index);
        }
    }

    // ---------------------------------------------------------------------------------------------- units

    /// @dev With the leaf at `index`, which need not be the last.
    function showUnits(Book memory book, uint64 index) private {
        evidence.proveUnits(book.compact, book.head, book.raw[index], book.proofs[index]);
    }

    function test_totals_that_differ_on_any_meter_or_in_credits_are_proven_on_both_ledgers() external {
        for (uint256 m = 0; m < 5; ++m) {
            AuthorizationTerms[2] memory terms = onBoth();
            for (uint256 i = 0; i < 2; ++i) {
                Book memory book = fresh(terms[i]);
                if (m < 4) book.leaves[6].cumUnits[m] += 1;
                else book.leaves[6].cumCredits += 1;
                record(book);

                vm.recordLogs();
                showUnits(book, 6);
                requireFact(book, IUsageEvidence.Fact.UNITS_MISMATCH, provider, 6, book.hashes[6]);
            }
        }
    }

    function test_a_head_that_says_more_than_the_last_leaf_is_proven() external {
        for (uint256 m = 0; m < 3; ++m) {
            Book memory book = fresh(termsOf());
            if (m < 2) book.head.units[m] += 1;
            else book.head.credits += 1;
            record(book);

            vm.recordLogs();
            showUnits(book, 6);
            requireFact(book, IUsageEvidence.Fact.UNITS_MISMATCH, provider, 6, book.hashes[6]);
        }
    }

    function test_the_totals_of_the_last_leaf_prove_nothing_if_they_are_the_heads() external {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) {
            Book memory book = settledBook(terms[i]);
            refuses(nothing(book.id, 6));
            showUnits(book, 6);
        }
    }

    function test_the_totals_of_a_leaf_that_is_not_the_last_are_refused() external {
        Book memory book = fresh(termsOf());
        book.head.units[0] += 1;
        record(book);
        for (uint64 n = 0; n < 6; ++n) {
            refuses(notIncluded(book.id, 6));
            showUnits(book, n);
        }
    }

    function test_the_totals_of_the_last_leaf_count_whatever_it_says_of_itself() external {
        Book memory book = fresh(termsOf());
        (book.leaves[6].index, book.leaves[6].authorizationId) = (0, "another");
        record(book);
        refuses(nothing(book.id, 6));
        showUnits(book, 6);

        book = fresh(termsOf());
        (book.leaves[6].index, book.leaves[6].authorizationId, book.leaves[6].cumUnits[0]) = (0, "another", 12);
        record(book);
        vm.recordLogs();
        showUnits(book, 6);
        requireFact(book, IUsageEvidence.Fact.UNITS_MISMATCH, provider, 6, book.hashes[6]);
    }

    // ------------------------------------------------------------------------------------------- bad step

    function listed(
        Book memory book,
        uint256 first,
        uint256 second
    ) private pure returns (bytes[] memory leaves, bytes32[][] memory proofs) {
        leaves = new bytes[](2);
        proofs = new bytes32[][](2);
        (leaves[0], leaves[1]) = (book.raw[first], book.raw[second]);
        (proofs[0], proofs[1]) = (book.proofs[first], book.proofs[second]);
    }

    /// @dev The leaf at `index` with its neighbour, or alone if it is the first.
    function stepTo(
        Book memory book,
        uint64 index
    ) private pure returns (bytes[] memory leaves, bytes32[][] memory proofs) {
        if (index > 0) return listed(book, index - 1, index);
        leaves = new bytes[](1);
        proofs = new bytes32[][](1);
        (leaves[0], proofs[0]) = (book.raw[0], book.proofs[0]);
    }

    /// @dev Any leaves as the step to any index.
    function showSteps(
        Book memory book,
        Head memory head,
        uint64 index,
        bytes[] memory leaves,
        bytes32[][] memory proofs
    ) private {
        evidence.proveBadStep(book.compact, head, index, leaves, proofs);
    }

    function showStep(Book memory book, uint64 index) private {
        (bytes[] memory leaves, bytes32[][] memory proofs) = stepTo(book, index);
        showSteps(book, book.head, index, leaves, proofs);
    }

    /// @dev Settles the log as it is now, and the step to `index` is proven bad.
    function requireBad(Book memory book, uint64 index) private {
        record(book);
        vm.recordLogs();
        showStep(book, index);
        requireFact(book, IUsageEvidence.Fact.BAD_STEP, provider, index, book.hashes[index]);
    }

    function requireGood(Book memory book, uint64 index) private {
        record(book);
        refuses(nothing(book.id, index));
        showStep(book, index);
    }

    function test_no_step_of_a_good_log_is_bad_on_either_ledger() external {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) {
            Book memory book = settledBook(terms[i]);
            for (uint64 n = 0; n < 7; ++n) {
                refuses(nothing(book.id, n));
                showStep(book, n);
            }
        }
    }

    function test_a_total_that_is_too_high_on_any_meter_is_a_bad_step_on_both_ledgers() external {
        for (uint256 m = 0; m < 4; ++m) {
            AuthorizationTerms[2] memory terms = onBoth();
            for (uint256 i = 0; i < 2; ++i) {
                Book memory book = fresh(terms[i]);
                book.leaves[1].cumUnits[m] += 1;
                requireBad(book, 1);
            }
        }
    }

    function test_a_total_that_is_too_low_on_any_meter_is_a_bad_step() external {
        for (uint256 m = 0; m < 4; ++m) {
            Book memory book = fresh(termsOf());
            book.leaves[1].units[m] += 1;
            requireBad(book, 1);
        }
    }

    function test_a_total_that_falls_is_a_bad_step() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].cumUnits[0] -= 1;
        requireBad(book, 4);
    }

    function test_units_on_a_kind_that_has_none_are_a_bad_step_on_any_meter() external {
        uint64[3] memory places = [uint64(2), 4, 5]; // credit, note, refusal
        for (uint256 i = 0; i < places.length; ++i) {
            for (uint256 m = 0; m < 4; ++m) {
                Book memory book = fresh(termsOf());
                book.leaves[places[i]].units[m] = 1;
                book.leaves[places[i]].cumUnits[m] += 1;
                requireBad(book, places[i]);
            }
        }
    }

    function test_units_of_a_use_or_a_period_fee_are_no_bad_step_on_any_meter() external {
        uint64[2] memory places = [uint64(3), 6]; // period fee, use
        for (uint256 i = 0; i < places.length; ++i) {
            for (uint256 m = 0; m < 4; ++m) {
                Book memory book = fresh(termsOf());
                book.leaves[places[i]].units[m] += 1;
                book.leaves[places[i]].cumUnits[m] += 1;
                requireGood(book, places[i]);
            }
        }
    }

    function test_credits_that_fall_are_a_bad_step_on_every_kind() external {
        for (uint8 kind = 0; kind < 5; ++kind) {
            Book memory book = fresh(termsOf());
            book.leaves[4].kind = kind;
            book.leaves[4].cumCredits -= 1;
            requireBad(book, 4);
        }
    }

    function test_credits_that_rise_are_a_bad_step_on_every_kind_but_a_credit() external {
        for (uint8 kind = 0; kind < 5; ++kind) {
            Book memory book = fresh(termsOf());
            book.leaves[4].kind = kind;
            book.leaves[4].cumCredits += 1;
            if (kind == CREDIT) requireGood(book, 4);
            else requireBad(book, 4);
        }
    }

    function test_time_that_runs_backwards_is_a_bad_step() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].servedAt = book.leaves[3].servedAt - 1;
        requireBad(book, 4);
    }

    function test_time_that_stands_still_is_no_bad_step() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].servedAt = book.leaves[3].servedAt;
        requireGood(book, 4);
    }

    function test_an_unknown_kind_is_a_bad_step() external {
        uint8[2] memory kinds = [5, 255];
        for (uint256 i = 0; i < kinds.length; ++i) {
            Book memory book = fresh(termsOf());
            book.leaves[4].kind = kinds[i];
            requireBad(book, 4);
        }
    }

    function test_a_leaf_of_another_authorization_is_a_bad_step() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].authorizationId = settledBook().id;
        requireBad(book, 4);
    }

    function test_a_leaf_that_lies_about_its_index_is_a_bad_step_on_both_ledgers() external {
        uint64[5] memory claims = [uint64(0), 3, 5, 7, MOST];
        for (uint256 c = 0; c < claims.length; ++c) {
            AuthorizationTerms[2] memory terms = onBoth();
            for (uint256 i = 0; i < 2; ++i) {
                Book memory book = fresh(terms[i]);
                book.leaves[4].index = claims[c];
                requireBad(book, 4);
            }
        }
    }

    function test_a_leaf_that_stands_in_the_log_twice_is_a_bad_step() external {
        Book memory book = fresh(termsOf());
        book.leaves[5] = copy(book.leaves[4]); // a note: but for the index it follows from itself
        requireBad(book, 5);
    }

    function test_a_step_from_a_leaf_that_lies_about_its_index_is_judged_by_what_follows() external {
        Book memory book = fresh(termsOf());
        book.leaves[3].index = 4;
        requireGood(book, 4);
    }

    function test_a_step_from_another_authorizations_leaf_is_judged_by_what_follows() external {
        Book memory book = fresh(termsOf());
        book.leaves[3].authorizationId = "another";
        requireGood(book, 4);
    }

    function test_a_first_leaf_that_does_not_follow_from_nothing_is_a_bad_step() external {
        for (uint256 i = 0; i < 9; ++i) {
            Book memory book = fresh(termsOf());
            UsageLeaf memory first = book.leaves[0];
            if (i < 4) first.cumUnits[i] += 1;
            if (i == 4) first.cumCredits = 1;
            if (i == 5) first.kind = NOTE; // it has units
            if (i == 6) first.kind = 5;
            if (i == 7) first.authorizationId = "another";
            if (i == 8) first.index = 1;
            requireBad(book, 0);
        }
    }

    function test_a_first_leaf_that_is_a_credit_is_no_bad_step() external {
        Book memory book = fresh(termsOf());
        UsageLeaf memory first = book.leaves[0];
        (first.kind, first.cumCredits, first.servedAt) = (CREDIT, 500, 0);
        delete first.units;
        delete first.cumUnits;
        requireGood(book, 0);
    }

    function test_a_leaf_alone_that_is_not_the_first_is_refused() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].cumUnits[0] += 1;
        record(book);
        bytes[] memory leaves = new bytes[](1);
        bytes32[][] memory proofs = new bytes32[][](1);
        for (uint64 n = 1; n < 7; ++n) {
            (leaves[0], proofs[0]) = (book.raw[n], book.proofs[n]);
            refuses(notIncluded(book.id, n));
            showSteps(book, book.head, n, leaves, proofs);
            refuses(notIncluded(book.id, 0));
            showSteps(book, book.head, 0, leaves, proofs);
        }
    }

    function test_a_leaf_alone_that_says_it_is_the_first_and_is_not_is_refused() external {
        Book memory book = fresh(termsOf());
        book.leaves[4].index = 0;
        record(book);
        bytes[] memory leaves = new bytes[](1);
        bytes32[][] memory proofs = new bytes32[][](1);
        (leaves[0], proofs[0]) = (book.raw[4], book.proofs[4]);
        refuses(notIncluded(book.id, 0));
        showSteps(book, book.head, 0, leaves, proofs);
        refuses(notIncluded(book.id, 4));
        showSteps(book, book.head, 4, leaves, proofs);
    }

    function test_the_first_leaf_with_one_before_it_is_refused() external {
        Book memory book = fresh(termsOf());
        book.leaves[0].cumUnits[0] += 1;
        record(book);
        for (uint256 n = 0; n < 7; ++n) {
            (bytes[] memory leaves, bytes32[][] memory proofs) = listed(book, n, 0);
            refuses(notIncluded(book.id, 0));
            showSteps(book, book.head, 0, leaves, proofs);
        }
    }

    function test_leaves_that_are_not_neighbours_in_their_order_are_refused() external {
        Book memory book = settledBook();
        uint64[2][5] memory pairs = [[uint64(0), 2], [uint64(2), 1], [uint64(1), 1], [uint64(6), 1], [uint64(2), 6]];
        for (uint256 i = 0; i < pairs.length; ++i) {
            uint64 index = pairs[i][1];
            (bytes[] memory leaves, bytes32[][] memory proofs) = listed(book, pairs[i][0], index);
            refuses(notIncluded(book.id, index - 1));
            showSteps(book, book.head, index, leaves, proofs);
        }
    }

    function test_neighbours_at_another_index_are_refused() external {
        Book memory book = settledBook();
        (bytes[] memory leaves, bytes32[][] memory proofs) = stepTo(book, 4);
        for (uint64 n = 0; n < 9; ++n) {
            if (n == 4) continue;
            uint64 index = n == 8 ? MOST : n;
            refuses(notIncluded(book.id, index));
            showSteps(book, book.head, index, leaves, proofs);
        }
    }

    function test_a_step_from_a_leaf_that_is_not_in_the_log_is_refused() external {
        Book memory book = settledBook();
        (bytes[] memory leaves, bytes32[][] memory proofs) = stepTo(book, 4);
        for (uint256 i = 0; i < LEAF_BYTES; ++i) {
            leaves[0][i] ^= 0x01;
            refuses(notIncluded(book.id, 3));
            showSteps(book, book.head, 4, leaves, proofs);
            leaves[0][i] ^= 0x01;
        }
        proofs[0] = proofs[1];
        refuses(notIncluded(book.id, 3));
        showSteps(book, book.head, 4, leaves, proofs);
    }

    function test_a_step_from_a_leaf_of_another_length_is_refused() external {
        Book memory book = settledBook();
        uint256[4] memory lengths = [uint256(0), 228, 230, 458];
        for (uint256 i = 0; i < lengths.length; ++i) {
            (bytes[] memory leaves, bytes32[][] memory proofs) = stepTo(book, 4);
            leaves[0] = sized(leaves[0], lengths[i]);
            refuses(malformed(lengths[i]));
            showSteps(book, book.head, 4, leaves, proofs);
        }
    }

    function test_no_leaf_and_three_leaves_are_refused() external {
        Book memory book = settledBook();
        for (uint256 count = 0; count < 4; count += 3) {
            bytes[] memory leaves = new bytes[](count);
            bytes32[][] memory proofs = new bytes32[][](count);
            for (uint256 i = 0; i < count; ++i) (leaves[i], proofs[i]) = (book.raw[i], book.proofs[i]);
            for (uint64 index = 0; index < 3; ++index) {
                refuses(notIncluded(book.id, index));
                showSteps(book, book.head, index, leaves, proofs);
            }
        }
    }

    function test_another_number_of_proofs_than_of_leaves_is_refused() external {
        Book memory book = settledBook();
        (bytes[] memory one, bytes32[][] memory oneProof) = stepTo(book, 0);
        (bytes[] memory two, bytes32[][] memory twoProofs) = stepTo(book, 1);
        refuses(notIncluded(book.id, 0));
        showSteps(book, book.head, 0, one, twoProofs);
        refuses(notIncluded(book.id, 1));
        showSteps(book, book.head, 1, two, oneProof);
        refuses(notIncluded(book.id, 0));
        showSteps(book, book.head, 0, one, new bytes32[][](0));
    }

    function test_a_total_that_wraps_around_is_a_bad_step_on_any_meter() external {
        for (uint256 m = 0; m < 4; ++m) {
            Book memory book = fresh(termsOf());
            book.leaves[0].cumUnits[m] = MOST;
            book.leaves[1].units[m] = 1;
            book.leaves[1].cumUnits[m] = 0;
            requireBad(book, 1);
        }
        Book memory both = fresh(termsOf());
        both.leaves[0].cumUnits[0] = MOST;
        both.leaves[1].units[0] = MOST;
        both.leaves[1].cumUnits[0] = MOST - 1;
        requireBad(both, 1);
    }

    function test_a_total_at_the_very_top_is_no_bad_step() external {
        Book memory book = fresh(termsOf());
        for (uint256 m = 0; m < 4; ++m) {
            book.leaves[0].cumUnits[m] = MOST - 7;
            book.leaves[1].units[m] = 7;
            book.leaves[1].cumUnits[m] = MOST;
        }
        (book.leaves[1].cumCredits, book.leaves[0].cumCredits) = (type(uint128).max, type(uint128).max);
        requireGood(book, 1);
    }

    function test_a_bit_turned_over_anywhere_in_the_call_proves_no_bad_step() external {
        Book memory book = settledBook();
        (bytes[] memory leaves, bytes32[][] memory proofs) = stepTo(book, 1);
        bytes memory data = abi.encodeCall(evidence.proveBadStep, (book.compact, book.head, 1, leaves, proofs));
        // Most of it is narrower than a word, and the leaves are padded. Terms 17, head 8, index, two offsets; then a
        // list of two leaves of 1 + 8 words and one of two proofs of 1 + 3.
        assertEq(data.length, 4 + (28 + (3 + 2 * 9) + (3 + 2 * 4)) * 32, "layout");
        for (uint256 word = 4; word < data.length; word += 32) {
            bytes1[2] memory turned = [data[word] ^ 0x80, data[word + 31] ^ 0x01];
            for (uint256 i = 0; i < 2; ++i) {
                uint256 place = word + 31 * i;
                (data[place], turned[i]) = (turned[i], data[place]);
                // solhint-disable-next-line avoid-low-level-calls
                (bool done, ) = address(evidence).call(data);
                assertTrue(!done, "proven");
                data[place] = turned[i];
            }
        }
    }

    // ---------------------------------------------------------------------------------------- out of scope

    function showScope(Book memory book, uint64 index) private {
        evidence.proveOutOfScope(book.terms, book.head, index, book.raw[index], book.proofs[index]);
    }

    function requireOutside(Book memory book, uint64 index) private {
        record(book);
        vm.recordLogs();
        showScope(book, index);
        requireFact(book, IUsageEvidence.Fact.OUT_OF_SCOPE, provider, index, book.hashes[index]);
    }

    function requireWithin(Book memory book, uint64 index) private {
        record(book);
        refuses(nothing(book.id, index));
        showScope(book, index);
    }

    function test_a_use_for_another_purpose_is_out_of_scope_on_both_ledgers() external {
        uint8[5] memory purposes = [2, 63, 64, 65, 255];
        for (uint256 p = 0; p < purposes.length; ++p) {
            AuthorizationTerms[2] memory terms = onBoth();
            for (uint256 i = 0; i < 2; ++i) {
                Book memory book = fresh(terms[i]);
                book.leaves[6].purpose = purposes[p];
                requireOutside(book, 6);
            }
        }
    }

    function test_a_use_in_another_modality_is_out_of_scope() external {
        uint8[5] memory modalities = [2, 31, 32, 33, 255];
        for (uint256 p = 0; p < modalities.length; ++p) {
            Book memory book = fresh(termsOf());
            book.leaves[6].modality = modalities[p];
            requireOutside(book, 6);
        }
    }

    function test_every_code_that_has_a_bit_is_within_a_scope_of_all_bits_and_none_beyond() external {
        for (uint256 i = 0; i < 6; ++i) {
            AuthorizationTerms memory terms = termsOf();
            (terms.scope.purposes, terms.scope.modalities) = (type(uint64).max, type(uint32).max);
            Book memory book = fresh(terms);
            UsageLeaf memory leaf = book.leaves[0];
            (leaf.purpose, leaf.modality) = (63, 31);
            if (i == 1) (leaf.purpose, leaf.modality) = (0, 0);
            if (i == 2) leaf.purpose = 64;
            if (i == 3) leaf.purpose = 255;
            if (i == 4) leaf.modality = 32;
            if (i == 5) leaf.modality = 255;
            if (i < 2) requireWithin(book, 0);
            else requireOutside(book, 0);
        }
    }

    function test_a_use_of_another_version_is_out_of_scope() external {
        bytes32[2] memory versions = [bytes32("another"), 0];
        for (uint256 i = 0; i < versions.length; ++i) {
            Book memory book = fresh(termsOf());
            book.leaves[1].version = versions[i];
            requireOutside(book, 1);
        }
    }

    function test_terms_without_a_version_allow_any() external {
        AuthorizationTerms memory terms = termsOf();
        terms.scope.version = 0;
        Book memory book = fresh(terms);
        book.leaves[1].version = "another";
        requireWithin(book, 1);
    }

    function test_a_use_within_the_terms_is_not_out_of_scope() external {
        AuthorizationTerms[2] memory terms = onBoth();
        for (uint256 i = 0; i < 2; ++i) {
            Book memory book = settledBook(terms[i]);
            for (uint64 n = 0; n < 7; ++n) {
                refuses(nothing(book.id, n));
                showScope(book, n);
            }
        }
    }

    function test_a_leaf_that_is_no_use_is_never_out_of_scope() external {
        Book memory book = fresh(termsOf());
        for (uint256 n = 2; n < 6; ++n) {
            (book.leaves[n].purpose, book.leaves[n].modality, book.leaves[n].version) = (200, 200, "another");
        }
        record(book);
        for (uint64 n = 2; n < 6; ++n) {
            refuses(nothing(book.id, n));
            showScope(book, n);
        }
    }

    function test_a_use_out_of_scope_is_one_whatever_it_says_of_itself() external {
        Book memory book = fresh(termsOf());
        (book.leaves[6].index, book.leaves[6].authorizationId, book.leaves[6].purpose) = (0, "another", 2);
        requireOutside(book, 6);
    }

    // ------------------------------------------------------------------------------------------- the rest

    function test_evidence_names_its_interface() external view {
        assertTrue(evidence.supportsInterface(type(IUsageEvidence).interfaceId), "evidence");
        assertTrue(evidence.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        assertTrue(!evidence.supportsInterface(0xffffffff), "none");
        assertTrue(address(evidence.usageLedger()) == address(ledger), "ledger");
        assertTrue(address(evidence.invoiceLedger()) == address(invoices), "invoices");
        assertTrue(address(evidence.sessionKeys()) == address(sessionKeys), "session keys");
    }
}
