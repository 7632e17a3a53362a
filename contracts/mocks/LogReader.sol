// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Pricing} from "../libraries/Pricing.sol";
import {UsageLog} from "../libraries/UsageLog.sol";

/// @title The proof and price functions of the libraries, many questions a call, for tests that compare them with Python
contract LogReader {
    struct Inclusion {
        bytes32 root;
        uint64 size;
        uint64 index;
        bytes32 leafHash;
        bytes32[] proof;
    }

    struct Consistency {
        uint64 first;
        bytes32 firstRoot;
        uint64 second;
        bytes32 secondRoot;
        bytes32[] proof;
    }

    function include(Inclusion[] calldata questions) external view returns (bool[] memory answers) {
        answers = new bool[](questions.length);
        for (uint256 i = 0; i < questions.length; ++i) {
            Inclusion calldata q = questions[i];
            answers[i] = UsageLog.includes(q.root, q.size, q.index, q.leafHash, q.proof);
        }
    }

    function extend(Consistency[] calldata questions) external view returns (bool[] memory answers) {
        answers = new bool[](questions.length);
        for (uint256 i = 0; i < questions.length; ++i) {
            Consistency calldata q = questions[i];
            answers[i] = UsageLog.extends(q.first, q.firstRoot, q.second, q.secondRoot, q.proof);
        }
    }

    function price(bytes[] calldata cards, uint64[4][] calldata units) external pure returns (uint256[] memory prices) {
        prices = new uint256[](cards.length);
        for (uint256 i = 0; i < cards.length; ++i) prices[i] = Pricing.price(cards[i], units[i]);
    }
}
