"""Every write by name ("space.create"): its arguments, the contract call they come to, and the words to show for it.

Nobody is asked: name and arguments alone give contract and call data. A client that does not trust the server that
prepared a transaction runs `encode` itself and compares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_abi.abi import encode as abi_encode

from ledger.chain import artifacts
from ledger.core.codes import names, reason
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.hashing import keccak256
from ledger.core.ids import Address, Hash32, hash_of, parse_address, parse_bytes, parse_hash, raw
from ledger.core.money import format_yuan
from ledger.core.parse import parse_uint
from ledger.core.ratecard import RateCard, Split
from ledger.core.terms import Acceptance, AuthorizationTerms, Offer, UsageHead

if TYPE_CHECKING:
    from ledger.chain.deploy import Deployment

_NO_OFFER = (b"\0" * 32, 0, 0)


@dataclass(frozen=True, slots=True)
class Operation:
    """A named write. `arguments` maps JSON names to kinds, in the function's order; contract "" follows the terms."""

    contract: str
    function: str
    arguments: Mapping[str, str]
    zh: str
    en: str


OPERATIONS: dict[str, Operation] = {
    "space.create": Operation(
        "SpaceRegistry",
        "createSpace",
        {"salt": "hash", "policyDigest": "hash", "codeLists": "hash"},
        "创建数据空间，规则摘要 {policyDigest}",
        "Create a space with the rule book {policyDigest}",
    ),
    "space.update": Operation(
        "SpaceRegistry",
        "updateSpace",
        {"space": "hash", "policyDigest": "hash", "codeLists": "hash"},
        "更新数据空间 {space} 的规则与代码表",
        "Replace rule book and code lists of space {space}",
    ),
    "space.propose-operator": Operation(
        "SpaceRegistry",
        "proposeOperator",
        {"space": "hash", "proposedOperator": "address"},
        "提议由 {proposedOperator} 接任空间 {space} 的运营方",
        "Propose {proposedOperator} as operator of space {space}",
    ),
    "space.accept-operator": Operation(
        "SpaceRegistry",
        "acceptOperator",
        {"space": "hash"},
        "接任空间 {space} 的运营方",
        "Take over as operator of space {space}",
    ),
    "participant.admit": Operation(
        "SpaceRegistry",
        "admit",
        {"space": "hash", "wallet": "address", "roles": "roles", "digest": "hash"},
        "准入参与方 {wallet}，角色 {roles}",
        "Admit {wallet} as {roles}",
    ),
    "participant.suspend": Operation(
        "SpaceRegistry",
        "suspend",
        {"space": "hash", "wallet": "address", "reason": "reason"},
        "暂停参与方 {wallet}：{reason_zh}",
        "Suspend {wallet}: {reason_en}",
    ),
    "participant.reinstate": Operation(
        "SpaceRegistry",
        "reinstate",
        {"space": "hash", "wallet": "address"},
        "恢复参与方 {wallet}",
        "Reinstate {wallet}",
    ),
    "product.register": Operation(
        "ProductRegistry",
        "registerProduct",
        {"space": "hash", "salt": "hash", "metadata": "hash"},
        "在空间 {space} 登记数据产品",
        "Register a data product in space {space}",
    ),
    "product.publish": Operation(
        "ProductRegistry",
        "publishVersion",
        {"product": "hash", "digests": "digests", "metadata": "hash", "policyHash": "hash"},
        "发布数据产品 {product} 的新版本",
        "Publish a version of product {product}",
    ),
    "product.retire": Operation(
        "ProductRegistry",
        "retireVersion",
        {"version": "hash", "reason": "reason"},
        "下架版本 {version}：{reason_zh}",
        "Retire version {version}: {reason_en}",
    ),
    "product.recall": Operation(
        "ProductRegistry",
        "recallVersion",
        {"version": "hash", "reason": "reason"},
        "召回版本 {version}：{reason_zh}",
        "Recall version {version}: {reason_en}",
    ),
    "price.register-card": Operation(
        "RateCards", "registerRateCard", {"card": "rateCard"}, "登记价目表", "Register a rate card"
    ),
    "price.register-split": Operation(
        "RateCards", "registerSplit", {"shares": "split"}, "登记分账方案", "Register a split"
    ),
    "token.mint": Operation(
        artifacts.DEMO_TOKEN,
        "mint",
        {"to": "address", "amount": "amount"},
        "（演示）为 {to} 增发 {amount} 元",
        "(demo) Mint {amount} CNY for {to}",
    ),
    "token.approve": Operation(
        artifacts.DEMO_TOKEN,
        "approve",
        {"spender": "address", "amount": "amount"},
        "允许 {spender} 支取 {amount} 元",
        "Allow {spender} to take {amount} CNY",
    ),
    "account.deposit": Operation(
        "UsageLedger",
        "depositFor",
        {"owner": "address", "token": "address", "amount": "amount"},
        "为账户 {owner} 存入 {amount}",
        "Deposit {amount} into the account of {owner}",
    ),
    "account.withdraw": Operation(
        "UsageLedger",
        "withdraw",
        {"token": "address", "amount": "amount", "to": "address"},
        "取出 {amount} 至 {to}",
        "Withdraw {amount} to {to}",
    ),
    "authorization.open": Operation(
        "",
        "open",
        {"opening": "opening"},
        "开通授权，预留 {reserve}",
        "Open an authorization and reserve {reserve}",
    ),
    "authorization.revoke": Operation(
        "",
        "revoke",
        {"terms": "terms", "reason": "reason"},
        "撤销授权：{reason_zh}",
        "Revoke the authorization: {reason_en}",
    ),
    "authorization.close": Operation(
        "",
        "close",
        {"terms": "compact", "reason": "reason"},
        "关闭授权：{reason_zh}",
        "Close the authorization: {reason_en}",
    ),
    "authorization.finalize": Operation(
        "",
        "finalize",
        {"terms": "compact"},
        "终结授权并释放余款",
        "Finalize the authorization and release what is left",
    ),
    "authorization.cancel": Operation(
        "", "cancelTerms", {"terms": "compact"}, "取消尚未开通的条款", "Withdraw terms that were not opened"
    ),
    "authorization.cancel-offer": Operation(
        "UsageLedger", "cancelOffer", {"offer": "offer"}, "撤回要约", "Withdraw an offer"
    ),
    "authorization.cancel-offer-invoiced": Operation(
        "InvoiceLedger", "cancelOffer", {"offer": "offer"}, "撤回要约（发票结算）", "Withdraw an offer (invoiced)"
    ),
    "authorization.top-up": Operation(
        "UsageLedger",
        "topUp",
        {"terms": "compact", "amount": "amount"},
        "追加预留 {amount}",
        "Add {amount} to the reservation",
    ),
    "authorization.thaw": Operation(
        "UsageLedger",
        "thaw",
        {"terms": "compact", "amount": "amount"},
        "解冻预留 {amount}",
        "Start to thaw {amount} of the reservation",
    ),
    "authorization.release": Operation(
        "UsageLedger", "releaseThawed", {"terms": "compact"}, "释放已解冻款项", "Release what has thawed"
    ),
    "settle.one": Operation(
        "",
        "settle",
        {"settlement": "settlement"},
        "结算用量头：{size} 条用量",
        "Settle a head of {size} leaves",
    ),
    "settle.many": Operation(
        "",
        "settleMany",
        {"settlements": "settlements"},
        "批量结算 {count} 个用量头",
        "Settle {count} heads",
    ),
    "share.pay": Operation(
        "UsageLedger",
        "payShare",
        {"split": "hash", "token": "address", "payee": "address"},
        "向 {payee} 支付其分账份额",
        "Pay {payee} its share",
    ),
    "payment.record": Operation(
        "InvoiceLedger",
        "recordPayment",
        {"terms": "compact", "referenceHash": "hash", "amount": "amount"},
        "登记银行收款 {amount} 元",
        "Record a bank payment of {amount} CNY",
    ),
    "payment.reverse": Operation(
        "InvoiceLedger",
        "reversePayment",
        {"terms": "compact", "referenceHash": "hash"},
        "冲销银行收款 {referenceHash}",
        "Reverse the bank payment {referenceHash}",
    ),
    "payment.claim": Operation(
        "InvoiceLedger",
        "claimPayment",
        {"terms": "compact", "referenceHash": "hash", "amount": "amount"},
        "声明已付款 {amount} 元",
        "Claim a bank payment of {amount} CNY",
    ),
}


@dataclass(frozen=True, slots=True)
class Call:
    """What an operation comes to: a contract, its function, call data, and the sentence to show before signing."""

    contract: str
    function: str
    to: Address
    data: bytes
    summary: dict[str, str]


def version_id(product: str, digests: Sequence[Mapping[str, Any]], metadata: str, policy_hash: str) -> Hash32:
    """What ProductRegistry names a version: who knows the content can recompute the id."""
    pairs = [(int(d["algorithm"]), raw(d["value"])) for d in digests]
    kinds = ["bytes32", "(uint32,bytes32)[]", "bytes32", "bytes32"]
    return hash_of(keccak256(abi_encode(kinds, [raw(product), pairs, raw(metadata), raw(policy_hash)])))


def encode(deployment: "Deployment", name: str, arguments: Mapping[str, Any]) -> Call:
    """Raises NotFound for an unknown operation, InputInvalid for a missing, unknown or malformed argument."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise NotFound(f"there is no operation {name!r}; there are: {', '.join(OPERATIONS)}")
    unknown = set(arguments) - set(operation.arguments)
    if unknown:
        raise InputInvalid(f"{name} has no argument {sorted(unknown)[0]!r}", field=sorted(unknown)[0])
    values: list[Any] = []
    words: dict[str, Any] = {}
    contract = operation.contract
    for key, kind in operation.arguments.items():
        if key not in arguments:
            raise InputInvalid(f"{name} needs the argument {key!r}", field=key)
        value, shown, chosen = _KINDS[kind](arguments[key], key)
        values.append(value)
        words |= {key: arguments[key]} | shown
        contract = contract or chosen
    item = artifacts.items(contract, "function")[operation.function]
    data = item.hash[:4] + abi_encode([artifacts.abi_type(i) for i in item.inputs], values)
    to = deployment.address(contract)
    summary = {"zh": operation.zh.format(**words), "en": operation.en.format(**words)}
    return Call(contract, operation.function, to, data, summary)


# --------------------------------------------------------------------------------------------------- arguments

_Parsed = tuple[Any, dict[str, Any], str]  # ABI value, words for the summary, contract that follows from it


def _hash(value: Any, what: str) -> _Parsed:
    return raw(parse_hash(value, what)), {}, ""


def _wallet(value: Any, what: str) -> _Parsed:
    return parse_address(value, what), {}, ""


def _amount(value: Any, what: str) -> _Parsed:
    number = parse_uint(value, what, 128)
    return number, {what: format_yuan(number)}, ""


def _roles(value: Any, what: str) -> _Parsed:
    number = parse_uint(value, what, 32)
    return number, {what: ", ".join(names("roles", number))}, ""


def _reason(value: Any, what: str) -> _Parsed:
    number = parse_uint(value, what, 16)
    return number, {"reason_zh": reason(number).zh, "reason_en": reason(number).en}, ""


def _digests(value: Any, what: str) -> _Parsed:
    try:
        pairs = sorted((parse_uint(d["algorithm"], what, 32), raw(parse_hash(d["value"], what))) for d in value)
    except (KeyError, TypeError):
        raise InputInvalid(f"{what} must be a list of {{algorithm, value}}", field=what) from None
    return pairs, {}, ""


def _card(value: Any, _: str) -> _Parsed:
    return RateCard.from_json(value).as_abi(), {}, ""


def _split(value: Any, _: str) -> _Parsed:
    return Split.from_json(value).as_abi(), {}, ""


def _terms(value: Any, _: str) -> _Parsed:
    terms = AuthorizationTerms.from_json(value)
    return terms.as_abi(), {}, terms.ledger


def _compact(value: Any, _: str) -> _Parsed:
    terms = AuthorizationTerms.from_json(value)
    return terms.compact_abi(), {}, terms.ledger


def _offer(value: Any, _: str) -> _Parsed:
    return Offer.from_json(value).as_abi(), {}, ""


def _opening(value: Any, what: str) -> _Parsed:
    signatures = ("providerSignature", "consumerSignature", "acceptanceSignature")
    _exactly(value, what, {"terms", "offer", "acceptance", *signatures})
    terms = AuthorizationTerms.from_json(value["terms"])
    acceptance = Acceptance.from_json(value["acceptance"])
    offer = Offer.from_json(value["offer"]).as_abi() if value["offer"] else _NO_OFFER
    parts = [parse_bytes(value[s], s) for s in signatures]
    words = {"reserve": format_yuan(acceptance.reserve)}
    return (terms.as_abi(), offer, acceptance.as_abi(), *parts), words, terms.ledger


def _settlement(value: Any, what: str) -> _Parsed:
    _exactly(value, what, {"terms", "head", "providerSignature", "consumerSignature", "consistency"})
    terms = AuthorizationTerms.from_json(value["terms"])
    head = UsageHead.from_json(value["head"])
    provider = parse_bytes(value["providerSignature"], "providerSignature")
    consumer = parse_bytes(value["consumerSignature"], "consumerSignature")
    if not isinstance(value["consistency"], list):
        raise InputInvalid("consistency must be a list of hashes", field="consistency")
    proof = [raw(parse_hash(p, "consistency")) for p in value["consistency"]]
    return (terms.compact_abi(), head.as_abi(), provider, consumer, proof), {"size": head.size}, terms.ledger


def _settlements(value: Any, what: str) -> _Parsed:
    if not isinstance(value, list) or not value:
        raise InputInvalid(f"{what} must be a list of at least one settlement", field=what)
    rows = [_settlement(row, what) for row in value]
    if len({contract for _, _, contract in rows}) > 1:
        raise InputInvalid("a batch settles heads of one ledger: escrowed or invoiced, not both", field=what)
    return [row for row, _, _ in rows], {"count": len(rows)}, rows[0][2]


def _exactly(value: Any, what: str, wanted: set[str]) -> None:
    if not isinstance(value, dict) or set(value) != wanted:
        raise InputInvalid(f"{what} must have exactly the members {', '.join(sorted(wanted))}", field=what)


_KINDS: dict[str, Callable[[Any, str], _Parsed]] = {
    "hash": _hash,
    "address": _wallet,
    "amount": _amount,
    "roles": _roles,
    "reason": _reason,
    "digests": _digests,
    "rateCard": _card,
    "split": _split,
    "terms": _terms,
    "compact": _compact,
    "offer": _offer,
    "opening": _opening,
    "settlement": _settlement,
    "settlements": _settlements,
}
