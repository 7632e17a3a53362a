"""From the chain's bytes to values and sentences: logs to events, return data to JSON, reverts to words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError

from ledger.chain import artifacts
from ledger.core.codes import codes
from ledger.core.errors import ChainError
from ledger.core.events import Event, Log
from ledger.core.ids import Address

STATUS = ("NONE", "OPEN", "ENDED", "CLOSED", "CANCELLED")
STATUS_WORDS = {
    "NONE": "was never opened",
    "OPEN": "is open",
    "ENDED": "has ended",
    "CLOSED": "is closed",
    "CANCELLED": "was cancelled before it opened",
}


class UndecodableLog(ChainError):
    """A log of one of our own contracts does not fit its ABI: the mirror stops rather than skip it."""

    code = "undecodable_log"


class Reverted(ChainError):
    """A contract refused. `details` hold the error's name and arguments."""

    code = "reverted"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A contract's error: its name, its arguments, and a sentence."""

    error: str
    args: dict[str, Any]
    sentence: str


def decode_log(log: Log, contracts: Mapping[Address, str]) -> Event:
    """`contracts` maps an address to its contract's name.

    Raises:
        UndecodableLog: an unknown topic, or bytes that do not fit.
    """
    contract = contracts[Address("0x" + log.address.hex())]
    item = artifacts.events(contract).get(log.topics[0]) if log.topics else None
    if item is None:
        raise UndecodableLog(f"{contract} emitted an event this version does not know", log=log.log_index)
    indexed = [i for i in item.inputs if i["indexed"]]
    plain = [i for i in item.inputs if not i["indexed"]]
    try:
        if len(indexed) != len(log.topics) - 1:
            raise DecodingError(f"{len(log.topics) - 1} topics, expected {len(indexed)}")
        values = dict(
            zip(
                (i["name"] for i in plain),
                abi_decode([artifacts.abi_type(i) for i in plain], log.data),
                strict=True,
            )
        )
        for entry, topic in zip(indexed, log.topics[1:], strict=True):
            (values[entry["name"]],) = abi_decode([artifacts.abi_type(entry)], topic)
    except (DecodingError, ValueError) as problem:
        raise UndecodableLog(f"{contract}.{item.name} does not fit its ABI: {problem}", log=log.log_index) from problem
    return Event(contract, item.name, {i["name"]: readable(i, values[i["name"]]) for i in item.inputs}, log)


def event_name(log: Log, contracts: Mapping[Address, str]) -> str:
    """`Contract.Event` of a log that was decoded before."""
    contract = contracts[Address("0x" + log.address.hex())]
    return f"{contract}.{artifacts.events(contract)[log.topics[0]].name}"


def readable(entry: Mapping[str, Any], value: Any) -> Any:
    """An ABI value as JSON has it: bytes as hex, structs as dicts, numbers as int."""
    kind: str = entry["type"]
    if kind.endswith("]"):
        inner = {**entry, "type": kind[: kind.rindex("[")]}
        return [readable(inner, item) for item in value]
    if kind == "tuple":
        return {c["name"]: readable(c, v) for c, v in zip(entry["components"], value, strict=True)}
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value.lower() if kind == "address" else value


def decode_output(item: artifacts.Item, data: bytes) -> Any:
    """A function's return data: one value, a dict of several, or None."""
    if not item.outputs:
        return None
    values = abi_decode([artifacts.abi_type(o) for o in item.outputs], data)
    if len(values) == 1:
        return readable(item.outputs[0], values[0])
    return {o["name"]: readable(o, v) for o, v in zip(item.outputs, values, strict=True)}


def decode_revert(data: bytes, note: Callable[[str], str] | None = None) -> Refusal:
    """Revert data as a refusal. `note` may add what the mirror knows of an authorization ("revoked at block 41")."""
    if data[:4] == b"\x08\xc3\x79\xa0":
        (text,) = abi_decode(["string"], data[4:])
        return Refusal("Error", {"message": text}, f"the contract refused: {text}")
    item = artifacts.errors().get(data[:4])
    if item is None:
        what = "without a reason" if not data else f"with data 0x{data[:36].hex()}"
        return Refusal("", {}, f"the contract refused {what}")
    values = abi_decode([artifacts.abi_type(i) for i in item.inputs], data[4:])
    args = {i["name"]: readable(i, v) for i, v in zip(item.inputs, values, strict=True)}
    return Refusal(item.name, args, _sentence(item.name, args, note))


def reverted(refusal: Refusal) -> Reverted:
    return Reverted(refusal.sentence, error=refusal.error, args={k: _plain(v) for k, v in refusal.args.items()})


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, int) and value >> 48 else value


_SENTENCES = {
    "AuthorizationEnding": "authorization {authorizationId} ends at {endedAt} already",
    "ReceiverInvalid": "money sent to {receiver} could never be taken out again",
    "AuthorizationNotYours": "{caller} is not a party that may do this to authorization {authorizationId}",
    "TermsExpired": "the terms ran out at {validUntil} (now {nowSeconds}, seconds)",
    "TermsInvalid": "the terms' field {field!r} breaks a rule of the ledger",
    "PartyNotActive": "{wallet} is not an active {role} in space {space}: not admitted, suspended, or in another role",
    "VersionNotListed": "version {version} is retired or recalled",
    "OfferExhausted": "the offer was already accepted {maxAcceptances} times, or cancelled",
    "OfferExpired": "the offer ran out at {offerUntil}",
    "OfferMismatch": "the offer is for other terms",
    "AcceptanceInvalid": "the acceptance is for another authorization, or past its deadline",
    "SignatureInvalid": "the signature is not {wallet}'s over these bytes on this chain and ledger",
    "HeadMoved": "another head was settled in between (digest {headDigest}): look again and give it as `previous`",
    "CeilingExceeded": "the head comes to {due}, beyond the consumer's ceiling, or the ceiling is over",
    "CeilingMissing": "a metering agent's head needs the consumer's ceiling too",
    "CloseInvalid": "the close is for another head or authorization, too late, or {finalPaid} is out of bounds",
    "ParentNotOpen": "the parent {parent} is not open, is not what was shown, or has {depth} generations above it",
    "ParentNotEnded": "the parent {parent} does not end before the child",
    "ChildTooWide": "the child goes beyond its parent in {field!r}",
    "PriceCeilingMissing": "product {product} has price ceilings, and none in {token}",
    "PriceAboveCeiling": "the price of meter {meter}, tier {tier} is above the ceiling of product {product}",
    "ApprovalMissing": "{approver}'s approval of type {approvalType} is missing",
    "ApprovalInvalid": "{approver}'s approval of type {approvalType} ended at {validUntil}, or is not for these terms",
    "RefundTooLarge": "only {refundable} of what was paid can be refunded, not {amount}",
    "SessionKeyInvalid": "a session key is not the wallet, expires later than now and may sign for something",
    "SessionKeyExists": "{key} is a session key of {wallet} already; a key with other bounds is another key",
    "SessionKeyUnknown": "{key} is no session key of {wallet}, or is revoked already",
    "PossessionNotProven": "{key} did not sign that it belongs to this wallet",
    "ApproversInvalid": "{count} approvers: at most eight, none of them the zero address",
    "CredentialInvalid": "a credential needs a digest and must run out later than now",
    "CredentialUnknown": "{wallet} has no credential of type {credentialType} in space {space}, or it is revoked",
    "ProductNotOperator": "{caller} is not the operator of the space of product {product}",
    "ParentInvalid": "parent {index} is unknown, recalled, out of order, or too many generations deep",
    "LeafMalformed": "a leaf has 229 bytes, this has {length}",
    "HeadNotSettled": "the settled head of {authorizationId} is another, with digest {headDigest}",
    "LeafNotIncluded": "the proof does not lead from leaf {index} to the settled root",
    "NothingWrong": "the documents are genuine and agree with each other at {index}",
    "NotSignedBy": "{wallet} did not sign this, or is no party",
    "PoolExists": "pool {pool} exists already",
    "PoolUnknown": "there is no pool {pool}",
    "RuleInvalid": "the pool's {field!r} breaks a rule",
    "PoolNotSponsor": "{caller} is not the sponsor of pool {pool}",
    "ClaimsOpen": "claims on pool {pool} are taken until {claimUntil}",
    "ClaimsOver": "claims on pool {pool} ended at {claimUntil}",
    "ClaimTooEarly": "authorization {authorizationId} is not closed, or can be claimed for only after {claimableFrom}",
    "ClaimNotYours": "{caller} is not the consumer of authorization {authorizationId}",
    "AlreadySubsidised": "authorization {authorizationId} was subsidised before",
    "SponsorObjected": "the sponsor objected to subsidising authorization {authorizationId}",
    "NotCovered": "the pool does not cover this authorization's {field!r}",
    "NothingToClaim": "there is nothing to claim for authorization {authorizationId}",
    "TransferInexact": "the token delivered {received} instead of {asked}",
    "ERC2771ForwarderInvalidSigner": "the forwarded request is not {from}'s, was changed, or was used before",
    "ERC2771ForwarderExpiredRequest": "the forwarded request ran out at {deadline}",
    "HeadStale": "a head of {settledSize} leaves is already settled; this one has {size}",
    "HeadLower": "units, credits or time are lower than in the settled head",
    "HeadInFuture": "the head is dated {asOf}, after the block's time {nowSeconds}",
    "HeadAfterEnd": "the head adds units at {asOf}, after the authorization ended at {endedAt}",
    "HeadOverQuota": "meter {meter} stands at {units}, over its quota of {maxUnits}",
    "HeadInconsistent": "the settled head of {settledSize} leaves is not shown to be the start of this one of {size}",
    "WindowOver": "the settlement window ended at {windowEnd}",
    "WindowNotOver": "the settlement window is open until {windowEnd} (now {nowSeconds})",
    "BalanceTooLow": "{owner} has {free} free units of {token}, {amount} are needed",
    "TokenTransferInexact": "the token delivered {received} instead of {asked}",
    "TokenNotContract": "{token} is not a contract",
    "ThawTooLarge": "only {unpaid} are reserved and unpaid, {amount} cannot thaw",
    "ThawNotOver": "the thaw ends at {thawEnd} (now {nowSeconds})",
    "ShareUnknown": "{payee} has no part in split {split}",
    "AmountZero": "there is nothing to move: the amount is zero",
    "AmountTooLarge": "the amount {amount} is out of range",
    "SpaceExists": "space {space} exists already",
    "SpaceUnknown": "there is no space {space}",
    "SpaceNotOperator": "{caller} is not the operator of space {space}",
    "SpaceNotProposed": "the hand-over of space {space} was not proposed to {caller}",
    "ParticipantInvalid": "a participant needs a wallet and at least one role",
    "ParticipantUnknown": "{wallet} was never admitted to space {space}",
    "ProductExists": "product {product} exists already",
    "ProductUnknown": "there is no product {product}",
    "ProductNotProvider": "{caller} is not the provider of product {product}",
    "ProductProviderNotActive": "{caller} is not an active provider in space {space}",
    "VersionExists": "version {version} is published already",
    "VersionUnknown": "there is no version {version}",
    "VersionIsRecalled": "version {version} is recalled and stays so",
    "ReentrancyGuardReentrantCall": "a contract called back in the middle of this",
    "SafeERC20FailedOperation": "the token {token} did not do what it was asked to",
    "DigestInvalid": "digest {index} is missing, zero, of an unknown algorithm or out of order",
    "RateCardInvalid": "the rate card breaks a rule at meter {meter}, tier {tier}",
    "SplitInvalid": "the split breaks a rule at payee {index}, or its parts add up to {sum} instead of 10000",
    "PaymentInvalid": "amount or reference is zero, or the reference is recorded with another amount or was reversed",
    "PaymentUnknown": "no payment is recorded under reference {referenceHash}",
    "ERC20InsufficientBalance": "{sender} holds {balance} tokens, {needed} are needed",
    "ERC20InsufficientAllowance": "{spender} may take {allowance} tokens, {needed} are needed: approve first",
}


def _sentence(name: str, args: dict[str, Any], note: Callable[[str], str] | None) -> str:
    shown = dict(args)
    if name == "AuthorizationStatus":
        status = STATUS[args["status"]]
        more = note(args["authorizationId"]) if note else ""
        return f"authorization {args['authorizationId']} {more or STATUS_WORDS[status]}"
    if name == "PartyNotActive":
        shown["role"] = next((c.en for c in codes("roles") if c.bit == args["role"]), str(args["role"]))
    if name in _SENTENCES:
        return _SENTENCES[name].format(**shown)
    return f"the contract refused: {name}({', '.join(f'{k}={v}' for k, v in args.items())})"
