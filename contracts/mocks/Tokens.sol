// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Pausable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Pausable.sol";

/// @title What the misbehaving tokens have in common: anyone may mint them
/// @dev None of them is for use outside tests.
abstract contract TestToken is ERC20 {
    constructor() ERC20("Test Token", "TEST") {}

    /// @notice Creates `amount` out of nothing.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @title A token that behaves
contract PlainToken is TestToken {}

/// @title A token that keeps back a fee of every transfer
contract FeeToken is TestToken {
    uint256 private fee;

    function setFee(uint256 fee_) external {
        fee = fee_;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (fee > 0 && from != address(0) && to != address(0)) _burn(to, fee);
    }
}

/// @title A token whose transfers return nothing, as USDT's do
contract NoReturnToken is TestToken {
    function transfer(address to, uint256 value) public override returns (bool) {
        super.transfer(to, value);
        // Memory-safe: touches no memory, and ends the call.
        assembly ("memory-safe") {
            return(0, 0)
        }
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        super.transferFrom(from, to, value);
        // Memory-safe: touches no memory, and ends the call.
        assembly ("memory-safe") {
            return(0, 0)
        }
    }
}

/// @title A token whose transfers, once it is broken, move nothing and say so instead of reverting
contract FalseToken is TestToken {
    bool private broken;

    function setBroken(bool broken_) external {
        broken = broken_;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return broken ? false : super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return broken ? false : super.transferFrom(from, to, value);
    }
}

/// @title A token that makes one call of somebody's choice before it moves
contract ReentrantToken is TestToken {
    address private target;
    bytes private question;
    bool public called;
    bool public succeeded;
    bytes public answer;

    /// @notice The next transfer first calls `target_` with `question_`, and keeps the answer.
    function arm(address target_, bytes calldata question_) external {
        (target, question) = (target_, question_);
        (called, succeeded, answer) = (false, false, "");
    }

    /// @notice Lets `spender` take what the token holds of itself.
    function allow(address spender, uint256 value) external {
        _approve(address(this), spender, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        address callee = target;
        if (callee != address(0) && from != address(0) && to != address(0)) {
            (target, called) = (address(0), true);
            // solhint-disable-next-line avoid-low-level-calls
            (succeeded, answer) = callee.call(question);
        }
        super._update(from, to, value);
    }
}

/// @title A token that moves neither from nor to one address
contract BlockingToken is TestToken {
    address private blocked;

    error Blocked(address account);

    function setBlocked(address account) external {
        blocked = account;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(blocked == address(0) || (from != blocked && to != blocked), Blocked(blocked));
        super._update(from, to, value);
    }
}

/// @title A token that anyone may stop and start
contract PausingToken is TestToken, ERC20Pausable {
    function pause() external {
        _pause();
    }

    function unpause() external {
        _unpause();
    }

    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Pausable) {
        super._update(from, to, value);
    }
}

/// @title A token that, from its next transfer on, says that everybody holds more or less than they do
contract LyingToken is TestToken {
    int256 private lie;
    int256 private nextLie;
    bool private still;

    /// @param still_ whether transfers claim to succeed and move nothing
    function setLie(int256 lie_, bool still_) external {
        (nextLie, still) = (lie_, still_);
    }

    function balanceOf(address account) public view override returns (uint256) {
        return uint256(int256(super.balanceOf(account)) + lie);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        lie = nextLie;
        return still || super.transferFrom(from, to, value);
    }
}

/// @title A token that takes every call it does not know for a success, as WETH does
contract FallbackToken is TestToken {
    fallback() external {}
}

/// @title A token whose holdings somebody can burn, as a falling rebase does
contract ShrinkingToken is TestToken {
    function shrink(address account, uint256 amount) external {
        _burn(account, amount);
    }
}
