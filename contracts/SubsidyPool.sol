// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IAuthorizations} from "./interfaces/IAuthorizations.sol";
import {ISpaceRegistry} from "./interfaces/ISpaceRegistry.sol";
import {ISubsidyPool} from "./interfaces/ISubsidyPool.sol";
import {IUsageLedger} from "./interfaces/IUsageLedger.sol";
import {AuthorizationTerms} from "./libraries/Terms.sol";

/// @title Subsidies
/// @notice The manual is ISubsidyPool.
contract SubsidyPool is ISubsidyPool, ERC2771Context, ERC165, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    uint256 private constant WHOLE = 10_000;
    uint256 private constant MAX_LISTED = 64;

    IUsageLedger public immutable ledger;
    ISpaceRegistry public immutable spaces;

    /// @dev Which lists a pool has: an empty list covers everything.
    struct Lists {
        bool products;
        bool splits;
        mapping(bytes32 id => bool) listed;
    }

    mapping(bytes32 pool => Pool) private pools;
    mapping(bytes32 pool => Lists) private lists;
    mapping(bytes32 pool => mapping(bytes32 credential => uint128)) private received;
    mapping(bytes32 pool => mapping(bytes32 authorizationId => bool)) private objected;
    mapping(bytes32 authorizationId => bytes32 pool) private subsidisedBy;

    constructor(IUsageLedger ledger_, ISpaceRegistry spaces_, address forwarder) ERC2771Context(forwarder) {
        ledger = ledger_;
        spaces = spaces_;
    }

    /// @inheritdoc ISubsidyPool
    function createPool(
        Rule calldata rule,
        bytes32[] calldata products,
        bytes32[] calldata splits,
        uint128 amount,
        bytes32 salt
    ) external nonReentrant returns (bytes32 pool) {
        address sponsor = _msgSender();
        pool = keccak256(abi.encode(block.chainid, address(this), sponsor, salt));
        require(pools[pool].sponsor == address(0), PoolExists(pool));
        checkRule(rule);
        require(products.length <= MAX_LISTED, RuleInvalid("products"));
        require(splits.length <= MAX_LISTED, RuleInvalid("splits"));

        pools[pool] = Pool({rule: rule, sponsor: sponsor, left: amount});
        lists[pool].products = products.length > 0;
        lists[pool].splits = splits.length > 0;
        // Ids of products and splits are hashes of different things: one set holds both.
        for (uint256 i = 0; i < products.length; ++i) lists[pool].listed[products[i]] = true;
        for (uint256 i = 0; i < splits.length; ++i) lists[pool].listed[splits[i]] = true;

        emit PoolCreated(pool, sponsor, rule, products, splits, amount);

        pull(rule.token, sponsor, amount);
    }

    function checkRule(Rule calldata rule) private view {
        require(rule.token.code.length > 0, RuleInvalid("token"));
        require(rule.shareBps > 0 && rule.shareBps <= WHOLE, RuleInvalid("shareBps"));
        require(rule.capPerConsumer > 0, RuleInvalid("capPerConsumer"));
        require(rule.validFrom <= rule.validUntil, RuleInvalid("validFrom"));
        require(rule.claimUntil > block.timestamp && rule.claimUntil >= rule.validUntil, RuleInvalid("claimUntil"));
    }

    /// @inheritdoc ISubsidyPool
    function fund(bytes32 pool, uint128 amount) external nonReentrant {
        Pool storage funded = known(pool);
        require(block.timestamp <= funded.rule.claimUntil, ClaimsOver(pool, funded.rule.claimUntil));

        funded.left += amount;

        emit PoolFunded(pool, _msgSender(), amount);

        pull(funded.rule.token, _msgSender(), amount);
    }

    /// @dev The whole call fails if the token delivers another amount, so it may be booked beforehand.
    function pull(address token, address from, uint256 amount) private {
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(from, address(this), amount);
        uint256 arrived = IERC20(token).balanceOf(address(this)) - before;
        require(arrived == amount, TransferInexact(token, amount, arrived));
    }

    /// @inheritdoc ISubsidyPool
    function claim(bytes32 pool, AuthorizationTerms calldata terms) external nonReentrant returns (uint128 amount) {
        Pool storage from = known(pool);
        Rule memory rule = from.rule;
        require(block.timestamp <= rule.claimUntil, ClaimsOver(pool, rule.claimUntil));
        bytes32 id = ledger.idOf(terms);
        // Which of several pools is asked, and when, is the consumer's choice: only one pays.
        require(_msgSender() == terms.consumer, ClaimNotYours(id, _msgSender()));
        require(subsidisedBy[id] == 0, AlreadySubsidised(id));
        require(!objected[pool][id], SponsorObjected(pool, id));
        checkCovered(pool, rule, terms);
        bytes32 credential = checkParties(rule, terms);
        uint128 base = checkClosed(id, rule, terms);
        amount = share(pool, rule, credential, base);
        require(amount > 0, NothingToClaim(pool, id));

        subsidisedBy[id] = pool;
        from.left -= amount;
        received[pool][credential] += amount;

        emit Subsidised(pool, id, terms.consumer, credential, base, amount);

        IERC20(rule.token).safeTransfer(terms.consumer, amount);
    }

    function checkCovered(bytes32 pool, Rule memory rule, AuthorizationTerms calldata terms) private view {
        Lists storage list = lists[pool];
        require(terms.token == rule.token, NotCovered("token"));
        require(terms.scope.space == rule.space, NotCovered("space"));
        require(!list.products || list.listed[terms.scope.product], NotCovered("product"));
        require(!list.splits || list.listed[terms.split], NotCovered("split"));
        bool inTime = terms.validFrom >= rule.validFrom && terms.validFrom <= rule.validUntil;
        require(inTime, NotCovered("validFrom"));
    }

    /// @dev The consumer's credential. The provider must have one too, and another.
    function checkParties(Rule memory rule, AuthorizationTerms calldata terms) private view returns (bytes32 consumer) {
        consumer = spaces.validCredential(rule.space, terms.consumer, rule.credentialType);
        require(consumer != 0, NotCovered("consumer"));
        bytes32 provider = spaces.validCredential(rule.space, terms.provider, rule.credentialType);
        require(provider != 0 && provider != consumer, NotCovered("provider"));
    }

    /// @dev What was paid and not refunded so far, once no more can be settled.
    function checkClosed(
        bytes32 id,
        Rule memory rule,
        AuthorizationTerms calldata terms
    ) private view returns (uint128 base) {
        IAuthorizations.Authorization memory found = ledger.authorizationOf(id);
        uint256 from = uint256(found.endedAt) + terms.thawSeconds + rule.objectionSeconds;
        bool closed = found.status == IAuthorizations.Status.CLOSED;
        require(closed && block.timestamp > from, ClaimTooEarly(id, from));
        bool seen = found.basis == IAuthorizations.Basis.CONSUMER || found.basis == IAuthorizations.Basis.AGENT;
        require(seen, NotCovered("basis"));
        IUsageLedger.Reservation memory reservation = ledger.reservationOf(id);
        return reservation.paid - reservation.refunded;
    }

    function share(bytes32 pool, Rule memory rule, bytes32 credential, uint128 base) private view returns (uint128) {
        uint256 amount = (uint256(base) * rule.shareBps) / WHOLE;
        uint256 room = rule.capPerConsumer - received[pool][credential];
        if (amount > room) amount = room;
        uint256 left = pools[pool].left;
        if (amount > left) amount = left;
        // Not more than `left`, which is a uint128.
        return uint128(amount);
    }

    /// @inheritdoc ISubsidyPool
    function objectTo(bytes32 pool, bytes32 authorizationId, uint16 reason) external {
        require(known(pool).sponsor == _msgSender(), PoolNotSponsor(pool, _msgSender()));
        require(subsidisedBy[authorizationId] == 0, AlreadySubsidised(authorizationId));

        objected[pool][authorizationId] = true;

        emit Objected(pool, authorizationId, reason);
    }

    /// @inheritdoc ISubsidyPool
    function refundPool(bytes32 pool) external nonReentrant returns (uint128 amount) {
        Pool storage from = known(pool);
        require(block.timestamp > from.rule.claimUntil, ClaimsOpen(pool, from.rule.claimUntil));
        amount = from.left;

        from.left = 0;

        emit PoolRefunded(pool, amount);

        IERC20(from.rule.token).safeTransfer(from.sponsor, amount);
    }

    function known(bytes32 pool) private view returns (Pool storage found) {
        found = pools[pool];
        require(found.sponsor != address(0), PoolUnknown(pool));
    }

    /// @inheritdoc ISubsidyPool
    function poolOf(bytes32 pool) external view returns (Pool memory) {
        return pools[pool];
    }

    /// @inheritdoc ISubsidyPool
    function receivedOf(bytes32 pool, bytes32 credential) external view returns (uint128) {
        return received[pool][credential];
    }

    /// @inheritdoc ISubsidyPool
    function poolFor(bytes32 authorizationId) external view returns (bytes32) {
        return subsidisedBy[authorizationId];
    }

    /// @inheritdoc ERC165
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(ISubsidyPool).interfaceId || super.supportsInterface(id);
    }
}
