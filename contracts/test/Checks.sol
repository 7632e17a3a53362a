// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test, Vm} from "./Vm.sol";

/// @title What tests of many facts of one kind compare
abstract contract Checks is Test {
    function assertEq(address found, address expected, string memory what) internal pure {
        assertEq(uint256(uint160(found)), uint256(uint160(expected)), what);
    }

    function assertSame(bytes memory found, bytes memory expected, string memory what) internal pure {
        assertEq(keccak256(found), keccak256(expected), what);
    }

    /// @dev Since vm.recordLogs, `emitter` emitted some events and then the test emitted the very same.
    function assertEmitted(address emitter) internal {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 half = logs.length / 2;
        assertTrue(half > 0 && logs.length == 2 * half, "as many events as expected");
        for (uint256 i = 0; i < half; ++i) {
            assertEq(logs[i].emitter, emitter, "emitter");
            assertSame(abi.encode(logs[i].topics), abi.encode(logs[half + i].topics), "topics");
            assertSame(logs[i].data, logs[half + i].data, "data");
        }
    }

    /// @dev This call, by `caller`, fails with exactly this error.
    function assertRefused(address caller, address to, bytes memory data, bytes memory revertData) internal {
        vm.prank(caller);
        // solhint-disable-next-line avoid-low-level-calls
        (bool done, bytes memory found) = to.call(data);
        assertTrue(!done, "refused");
        assertSame(found, revertData, "error");
    }
}
