"""Every write by name ("space.create"): its arguments, the contract call they come to, and the words to show for it.

Nobody is asked: name and arguments alone give contract and call data. A client that does not trust the server that
prepared a transaction runs `encode` itself and compares.
"""

from collections.abc import Callable, Mapping, Sequence, Set
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
from ledger.core.terms import (
    NO_HEAD_ABI,
    Acceptance,
    AuthorizationTerms,
    Close,
    ForwardRequest,
    Offer,
    UsageCeiling,
    UsageHead,
    UseReceipt,
)
from ledger.core.usage_leaf import UsageLeaf

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
    "space.set-approvers": Operation(
        "SpaceRegistry",
        "setSpaceApprovers",
        {"space": "hash", "approvers": "requirements"},
        "设定空间 {space} 的必需审批方（{approvers_count} 个）",
        "Set the {approvers_count} approvers that authorizations in space {space} need",
    ),
    "credential.record": Operation(
        "SpaceRegistry",
        "recordCredential",
        {"space": "hash", "wallet": "address", "credentialType": "code16", "digest": "hash", "validUntil": "seconds"},
        "登记 {wallet} 的凭证（类型 {credentialType}）",
        "Record a credential of {wallet}, type {credentialType}",
    ),
    "credential.revoke": Operation(
        "SpaceRegistry",
        "revokeCredential",
        {"space": "hash", "wallet": "address", "credentialType": "code16", "reason": "reason"},
        "吊销 {wallet} 的凭证（类型 {credentialType}）：{reason_zh}",
        "Revoke a credential of {wallet}, type {credentialType}: {reason_en}",
    ),
    "session-key.register": Operation(
        "SessionKeys",
        "registerSessionKey",
        {"key": "address", "expiry": "seconds", "maxDue": "amount", "possession": "bytes"},
        "允许密钥 {key} 代为签署，每项授权至多 {maxDue}",
        "Let the key {key} sign for this wallet, up to {maxDue} on any authorization",
    ),
    "session-key.revoke": Operation(
        "SessionKeys",
        "revokeSessionKey",
        {"key": "address"},
        "停用密钥 {key}",
        "End the key {key}",
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
        {
            "product": "hash",
            "digests": "digests",
            "metadata": "hash",
            "policyHash": "hash",
            "parents": "hashes",
        },
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
    "product.set-approvers": Operation(
        "ProductRegistry",
        "setProductApprovers",
        {"product": "hash", "approvers": "requirements"},
        "设定产品 {product} 的必需审批方（{approvers_count} 个）",
        "Set the {approvers_count} approvers that authorizations for product {product} need",
    ),
    "product.set-ceilings": Operation(
        "ProductRegistry",
        "setPriceCeilings",
        {"product": "hash", "token": "address", "ceilings": "ceilings"},
        "设定产品 {product} 的价格上限",
        "Set the price ceilings of product {product}",
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
        {"spender": "address", "amount": "allowance"},
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
    "account.deposit-permit": Operation(
        "UsageLedger",
        "depositWithPermit",
        {
            "owner": "address",
            "token": "address",
            "amount": "amount",
            "deadline": "seconds",
            "signature": "vrs",
        },
        "凭许可签名为账户 {owner} 存入 {amount}",
        "Deposit {amount} into the account of {owner} with a permit",
    ),
    "account.deposit-authorized": Operation(
        "UsageLedger",
        "depositWithAuthorization",
        {
            "from": "address",
            "owner": "address",
            "token": "address",
            "amount": "amount",
            "validAfter": "seconds",
            "validBefore": "seconds",
            "salt": "hash",
            "signature": "vrs",
        },
        "凭 {from} 的转账授权为账户 {owner} 存入 {amount}",
        "Deposit {amount} into the account of {owner} with the transfer authorization of {from}",
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
        {"terms": "terms", "approvers": "requirements", "reason": "reason"},
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
    "authorization.end-by-parent": Operation(
        "",
        "endByParent",
        {"child": "terms"},
        "上级授权已终止，随之终止下级授权",
        "End a child authorization with its parent",
    ),
    "authorization.close-together": Operation(
        "",
        "closeTogether",
        {"closing": "closing"},
        "双方合意结清：{finalPaid}",
        "Close for good as both agreed, at {finalPaid}",
    ),
    "authorization.renew": Operation(
        "",
        "renew",
        {"closing": "closing", "opening": "opening"},
        "结清旧授权（{finalPaid}）并开通续期授权，预留 {reserve}",
        "Close an authorization at {finalPaid} and open its successor, reserving {reserve}",
    ),
    "authorization.refund": Operation(
        "UsageLedger",
        "refund",
        {"terms": "compact", "amount": "amount"},
        "向使用方退还 {amount}",
        "Refund {amount} to the consumer",
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
        {"terms": "compact", "settled": "head", "amount": "amount"},
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
    "evidence.use": Operation(
        "UsageEvidence",
        "proveUse",
        {"settled": "head", "leaf": "leaf", "proof": "hashes"},
        "证明第 {index} 条用量已结算",
        "Prove that use {index} is settled",
    ),
    "evidence.fork": Operation(
        "UsageEvidence",
        "proveFork",
        {"terms": "compact", "wallet": "address", "heads": "heads", "signatures": "signatures"},
        "证明 {wallet} 签署了两份不同的用量日志",
        "Prove that {wallet} signed two logs of one size",
    ),
    "evidence.receipt": Operation(
        "UsageEvidence",
        "proveReceiptMismatch",
        {
            "terms": "compact",
            "settled": "head",
            "receipt": "receipt",
            "signature": "bytes",
            "leaf": "leaf",
            "proof": "hashes",
        },
        "证明第 {index} 条用量与回执不符",
        "Prove that leaf {index} is not what the receipt says",
    ),
    "evidence.units": Operation(
        "UsageEvidence",
        "proveUnits",
        {"terms": "compact", "settled": "head", "last": "leaf", "proof": "hashes"},
        "证明用量头与最后一条用量不符",
        "Prove that the head's totals are not its last leaf's",
    ),
    "evidence.step": Operation(
        "UsageEvidence",
        "proveBadStep",
        {"terms": "compact", "settled": "head", "index": "index", "leaves": "leaves", "proofs": "proofs"},
        "证明第 {index} 条用量与前一条不衔接",
        "Prove that leaf {index} does not follow from the one before",
    ),
    "evidence.scope": Operation(
        "UsageEvidence",
        "proveOutOfScope",
        {"terms": "terms", "settled": "head", "index": "index", "leaf": "leaf", "proof": "hashes"},
        "证明第 {index} 条用量超出授权范围",
        "Prove that use {index} is outside the terms",
    ),
    "subsidy.create": Operation(
        "SubsidyPool",
        "createPool",
        {"rule": "rule", "products": "hashes", "splits": "hashes", "amount": "amount", "salt": "hash"},
        "设立补贴池并注资 {amount}",
        "Create a subsidy pool with {amount}",
    ),
    "subsidy.fund": Operation(
        "SubsidyPool",
        "fund",
        {"pool": "hash", "amount": "amount"},
        "向补贴池 {pool} 注资 {amount}",
        "Add {amount} to subsidy pool {pool}",
    ),
    "subsidy.claim": Operation(
        "SubsidyPool",
        "claim",
        {"pool": "hash", "terms": "terms"},
        "向补贴池 {pool} 申领补贴",
        "Claim a subsidy from pool {pool}",
    ),
    "subsidy.object": Operation(
        "SubsidyPool",
        "objectTo",
        {"pool": "hash", "authorizationId": "hash", "reason": "reason"},
        "对授权 {authorizationId} 的补贴提出异议：{reason_zh}",
        "Object to a subsidy for authorization {authorizationId}: {reason_en}",
    ),
    "subsidy.refund": Operation(
        "SubsidyPool",
        "refundPool",
        {"pool": "hash"},
        "将补贴池 {pool} 的余额退还出资方",
        "Return what is left in pool {pool} to its sponsor",
    ),
    "relay.execute": Operation(
        "Forwarder",
        "execute",
        {"request": "forward"},
        "代 {from} 提交其签名的调用",
        "Submit a call that {from} signed",
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


def version_id(
    product: str, digests: Sequence[Mapping[str, Any]], metadata: str, policy_hash: str, parents: Sequence[str]
) -> Hash32:
    """What ProductRegistry names a version: who knows the content can recompute the id."""
    pairs = [(int(d["algorithm"]), raw(d["value"])) for d in digests]
    kinds = ["bytes32", "(uint32,bytes32)[]", "bytes32", "bytes32", "bytes32[]"]
    values = [raw(product), pairs, raw(metadata), raw(policy_hash), [raw(parent) for parent in parents]]
    return hash_of(keccak256(abi_encode(kinds, values)))


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
        # A signature in one piece is three arguments to token-shaped functions.
        values.extend(value) if kind == "vrs" else values.append(value)
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


def _allowance(value: Any, what: str) -> _Parsed:
    """Up to 2^256 - 1, which tokens take for a standing allowance."""
    number = parse_uint(value, what, 256)
    return number, {what: "∞" if number == 2**256 - 1 else format_yuan(number)}, ""


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


def _hashes(value: Any, what: str) -> _Parsed:
    return [raw(parse_hash(item, what)) for item in _list(value, what)], {}, ""


def _proofs(value: Any, what: str) -> _Parsed:
    return [_hashes(item, what)[0] for item in _list(value, what)], {}, ""


def _bytes(value: Any, what: str) -> _Parsed:
    return parse_bytes(value, what), {}, ""


def _two_signatures(value: Any, what: str) -> _Parsed:
    return [parse_bytes(item, what) for item in _list(value, what, 2)], {}, ""


def _vrs(value: Any, what: str) -> _Parsed:
    signature = parse_bytes(value, what, 65)
    return (signature[64], signature[:32], signature[32:64]), {}, ""


def _seconds(value: Any, what: str) -> _Parsed:
    return parse_uint(value, what, 40), {}, ""


def _code16(value: Any, what: str) -> _Parsed:
    return parse_uint(value, what, 16), {}, ""


def _requirements(value: Any, what: str) -> _Parsed:
    found = []
    for item in _list(value, what):
        _exactly(item, what, {"approver", "approvalType"})
        found.append((parse_address(item["approver"], what), parse_uint(item["approvalType"], what, 16)))
    return found, {f"{what}_count": len(found)}, ""


def _four_ceilings(value: Any, what: str) -> _Parsed:
    return tuple(parse_uint(item, what, 128) for item in _list(value, what, 4)), {}, ""


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


def _head(value: Any, _: str) -> _Parsed:
    """A UsageHead, or null for the state before the first."""
    return (NO_HEAD_ABI if value is None else UsageHead.from_json(value).state_abi()), {}, ""


def _two_heads(value: Any, what: str) -> _Parsed:
    return [_head(item, what)[0] for item in _list(value, what, 2)], {}, ""


def _leaf(value: Any, _: str) -> _Parsed:
    leaf = UsageLeaf.from_json(value)
    return leaf.encode(), {"index": leaf.index}, ""


def _leaves(value: Any, what: str) -> _Parsed:
    return [UsageLeaf.from_json(item).encode() for item in _list(value, what)], {}, ""


def _index(value: Any, what: str) -> _Parsed:
    return parse_uint(value, what, 64), {}, ""


def _receipt(value: Any, _: str) -> _Parsed:
    return UseReceipt.from_json(value).as_abi(), {}, ""


def _approvals(value: Any, what: str) -> list[Any]:
    found = []
    for item in _list(value, what):
        _exactly(item, what, {"approver", "approvalType", "documentHash", "validUntil", "signature"})
        by = (parse_address(item["approver"], what), parse_uint(item["approvalType"], what, 16))
        document = raw(parse_hash(item["documentHash"], "documentHash"))
        until = parse_uint(item["validUntil"], "validUntil", 40)
        found.append((by, document, until, parse_bytes(item["signature"], "signature")))
    return found


def _opening(value: Any, what: str) -> _Parsed:
    signatures = ("providerSignature", "consumerSignature", "acceptanceSignature")
    _exactly(value, what, {"terms", "offer", "acceptance", *signatures}, {"approvers", "approvals", "parents"})
    terms = AuthorizationTerms.from_json(value["terms"])
    acceptance = Acceptance.from_json(value["acceptance"])
    offer = Offer.from_json(value["offer"]).as_abi() if value["offer"] else _NO_OFFER
    parts = [parse_bytes(value[s], s) for s in signatures]
    approvers = _requirements(value.get("approvers", []), "approvers")[0]
    approvals = _approvals(value.get("approvals", []), "approvals")
    parents = [AuthorizationTerms.from_json(p).as_abi() for p in _list(value.get("parents", []), "parents")]
    words = {"reserve": format_yuan(acceptance.reserve)}
    return (terms.as_abi(), offer, acceptance.as_abi(), *parts, approvers, approvals, parents), words, terms.ledger


def _settlement(value: Any, what: str) -> _Parsed:
    wanted = {"terms", "previous", "head", "providerSignature", "consumerSignature", "consistency"}
    _exactly(value, what, wanted, {"ceilings"})
    terms = AuthorizationTerms.from_json(value["terms"])
    head = UsageHead.from_json(value["head"])
    provider = parse_bytes(value["providerSignature"], "providerSignature")
    consumer = parse_bytes(value["consumerSignature"], "consumerSignature")
    ceilings = []
    for item in _list(value.get("ceilings", []), "ceilings"):
        _exactly(item, "ceilings", {"ceiling", "signature"})
        ceilings.append((UsageCeiling.from_json(item["ceiling"]).as_abi(), parse_bytes(item["signature"], "signature")))
    previous, proof = _head(value["previous"], "previous")[0], _hashes(value["consistency"], "consistency")[0]
    row = (terms.compact_abi(), previous, head.state_abi(), provider, consumer, ceilings, proof)
    return row, {"size": head.size}, terms.ledger


def _closing(value: Any, what: str) -> _Parsed:
    signatures = ("providerSignature", "consumerSignature")
    _exactly(value, what, {"terms", "previous", "head", "close", *signatures, "consistency"})
    terms = AuthorizationTerms.from_json(value["terms"])
    close = Close.from_json(value["close"])
    heads = [_head(value[name], name)[0] for name in ("previous", "head")]
    signed = [parse_bytes(value[name], name) for name in signatures]
    proof = _hashes(value["consistency"], "consistency")[0]
    words = {"finalPaid": format_yuan(close.final_paid)}
    return (terms.compact_abi(), *heads, close.as_abi(), *signed, proof), words, terms.ledger


_RULE = {
    "token": "address",
    "space": "hash",
    "shareBps": "code16",
    "credentialType": "code16",
    "capPerConsumer": "amount",
    "validFrom": "seconds",
    "validUntil": "seconds",
    "claimUntil": "seconds",
    "objectionSeconds": "seconds",
}


def _rule(value: Any, what: str) -> _Parsed:
    _exactly(value, what, set(_RULE))
    return tuple(_KINDS[kind](value[name], name)[0] for name, kind in _RULE.items()), {}, ""


def _forward(value: Any, what: str) -> _Parsed:
    """OpenZeppelin's ForwardRequestData: the request less its nonce, which the forwarder keeps, and the signature."""
    _exactly(value, what, {"request", "signature"})
    request = ForwardRequest.from_json(value["request"])
    signature = parse_bytes(value["signature"], "signature")
    fields = (request.from_, request.to, request.value, request.gas, request.deadline, request.data, signature)
    return fields, {"from": request.from_}, ""


def _settlements(value: Any, what: str) -> _Parsed:
    if not isinstance(value, list) or not value:
        raise InputInvalid(f"{what} must be a list of at least one settlement", field=what)
    rows = [_settlement(row, what) for row in value]
    if len({contract for _, _, contract in rows}) > 1:
        raise InputInvalid("a batch settles heads of one ledger: escrowed or invoiced, not both", field=what)
    return [row for row, _, _ in rows], {"count": len(rows)}, rows[0][2]


def _list(value: Any, what: str, count: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise InputInvalid(f"{what} must be a list{'' if count is None else f' of {count}'}", field=what)
    return value


def _exactly(value: Any, what: str, wanted: set[str], optional: Set[str] = frozenset()) -> None:
    if not isinstance(value, dict) or not wanted <= set(value) <= wanted | optional:
        more = f", and may have {', '.join(sorted(optional))}" if optional else ""
        raise InputInvalid(f"{what} must have exactly the members {', '.join(sorted(wanted))}{more}", field=what)


_KINDS: dict[str, Callable[[Any, str], _Parsed]] = {
    "hash": _hash,
    "address": _wallet,
    "amount": _amount,
    "allowance": _allowance,
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
    "head": _head,
    "heads": _two_heads,
    "leaf": _leaf,
    "leaves": _leaves,
    "index": _index,
    "receipt": _receipt,
    "hashes": _hashes,
    "proofs": _proofs,
    "bytes": _bytes,
    "signatures": _two_signatures,
    "vrs": _vrs,
    "seconds": _seconds,
    "code16": _code16,
    "requirements": _requirements,
    "ceilings": _four_ceilings,
    "closing": _closing,
    "rule": _rule,
    "forward": _forward,
}
