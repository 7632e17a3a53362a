"""What each event changes: the fold from contract events to rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.chain.decode import decode_log
from ledger.chain.settled import PAID, Settled, read_settled
from ledger.chain.settled import TOPIC as SETTLED_TOPIC
from ledger.core.events import Block, Event, Log
from ledger.core.ids import Address, raw
from ledger.core.terms import AuthorizationTerms
from ledger.mirror import schema
from ledger.mirror.schema import ARREARS, CLOSED, SETTLED
from ledger.mirror.work import Standing, Work

FACTS = ("USE", "FORK", "RECEIPT_MISMATCH", "UNITS_MISMATCH", "BAD_STEP", "OUT_OF_SCOPE")
LEDGERS = ("UsageLedger", "InvoiceLedger")


Reader = Callable[[Log], Settled]


@dataclass(frozen=True, slots=True)
class At:
    """The event at hand, and where."""

    work: Work
    block: Block
    event: Event

    @property
    def args(self) -> dict[str, Any]:
        return self.event.args

    @property
    def authorization(self) -> dict[str, Any]:
        """The row of the authorization the event names."""
        return self.work.existing(schema.authorizations, self.args["authorizationId"])

    def put(self, table: Any, row: dict[str, Any]) -> None:
        self.work.put(table, self.block.number, row)

    def change(self, table: Any, *key: Any, **changes: Any) -> None:
        self.work.change(table, self.block.number, key, **changes)

    def change_authorization(self, **changes: Any) -> None:
        self.change(schema.authorizations, self.args["authorizationId"], **changes)

    def fact(self, table: Any, **values: Any) -> None:
        self.work.fact(table, self.block, self.event.log, **values)


def apply_block(
    work: Work, block: Block, logs: Sequence[Log], names: Mapping[Address, str], read: Reader = read_settled
) -> None:
    """Folds one block's logs into the work. `names` maps an address to its contract, `read` reads settlements.

    Raises:
        UndecodableLog: a log does not fit its ABI; nothing may be written.
        EventOutOfPlace: an event changes what the mirror has never seen.
    """
    ledgers = {raw(address) for address, name in names.items() if name in LEDGERS}
    number, standings, settlements, places = block.number, work.standings, work.settlements, work.transactions
    for log in logs:
        topics = log.topics
        if topics and topics[0] == SETTLED_TOPIC and log.address in ledgers:
            # The one that is frequent: values straight from the log, ids as bytes.
            found = read(log)
            authorization, paid = topics[1], found[PAID]
            standing = standings.get(authorization) or work.standing(authorization)
            place = places.setdefault(log.transaction, len(places))
            settlements.append((number, log.log_index, place, standing.number, SETTLED, *found))
            if paid != standing.paid:
                _pay(work, standing, paid)
            continue
        event = decode_log(log, names)
        work.event(block, log, event.contract, event.name, event.args.get("authorizationId"))
        handler = _HANDLERS.get((event.contract, event.name)) or _HANDLERS.get(("", event.name))
        if handler is not None:
            handler(At(work, block, event))
    work.block(block, logs)


def authorizations_of(logs: Sequence[Log]) -> list[bytes]:
    """Of the settlements among these logs."""
    return [log.topics[1] for log in logs if len(log.topics) == 2 and log.topics[0] == SETTLED_TOPIC]


def _json(value: Any) -> Any:
    """Numbers wider than JavaScript takes as text."""
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value >> 48 else value


# ------------------------------------------------------------------------------------------------ registries


def _space_created(at: At) -> None:
    a = at.args
    row = {
        "space": a["space"],
        "operator": a["operator"],
        "proposed_operator": None,
        "policy_digest": a["policyDigest"],
        "code_lists": a["codeLists"],
        "approvers": [],
    }
    at.put(schema.spaces, row)


def _space_updated(at: At) -> None:
    a = at.args
    at.change(schema.spaces, a["space"], policy_digest=a["policyDigest"], code_lists=a["codeLists"])


def _operator_proposed(at: At) -> None:
    at.change(schema.spaces, at.args["space"], proposed_operator=at.args["proposedOperator"])


def _operator_changed(at: At) -> None:
    at.change(schema.spaces, at.args["space"], operator=at.args["operator"], proposed_operator=None)


def _participant_admitted(at: At) -> None:
    a = at.args
    before = at.work.get(schema.participants, a["space"], a["wallet"]) or {"suspended": 0, "reason": 0}
    row = {"space": a["space"], "wallet": a["wallet"], "roles": a["roles"], "digest": a["digest"]}
    at.put(schema.participants, before | row)


def _participant_suspended(at: At) -> None:
    a = at.args
    at.change(schema.participants, a["space"], a["wallet"], suspended=1, reason=a["reason"])


def _participant_reinstated(at: At) -> None:
    at.change(schema.participants, at.args["space"], at.args["wallet"], suspended=0, reason=0)


def _product_registered(at: At) -> None:
    at.put(schema.products, {**at.args, "approvers": []})


def _approvers_set(table: Any, key: str) -> Callable[[At], None]:
    def handler(at: At) -> None:
        at.change(table, at.args[key], approvers=at.args["approvers"])

    return handler


def _credential_recorded(at: At) -> None:
    a = at.args
    row = {
        "space": a["space"],
        "wallet": a["wallet"],
        "credential_type": a["credentialType"],
        "digest": a["digest"],
        "valid_until": a["validUntil"],
        "revoked": 0,
        "reason": 0,
    }
    at.put(schema.credentials, row)


def _credential_revoked(at: At) -> None:
    a = at.args
    at.change(schema.credentials, a["space"], a["wallet"], a["credentialType"], revoked=1, reason=a["reason"])


def _session_key_registered(at: At) -> None:
    a = at.args
    row = {
        "wallet": a["wallet"],
        "key": a["key"],
        "registered_at": at.block.timestamp,
        "expiry": a["expiry"],
        "revoked_at": 0,
        "max_due": a["maxDue"],
    }
    at.put(schema.session_keys, row)


def _session_key_revoked(at: At) -> None:
    at.change(schema.session_keys, at.args["wallet"], at.args["key"], revoked_at=at.block.timestamp)


def _ceilings_set(at: At) -> None:
    a = at.args
    row = {"product": a["product"], "token": a["token"], "ceilings": [str(n) for n in a["ceilings"]]}
    at.put(schema.price_ceilings, row)


def _version_published(at: At) -> None:
    a = at.args
    row = {
        "version": a["version"],
        "product": a["product"],
        "digests": a["digests"],
        "metadata": a["metadata"],
        "policy_hash": a["policyHash"],
        "parents": a["parents"],
        "status": "LISTED",
        "reason": 0,
        "published": at.block.number,
    }
    at.put(schema.versions, row)


def _version_withdrawn(status: str) -> Callable[[At], None]:
    def handler(at: At) -> None:
        at.change(schema.versions, at.args["version"], status=status, reason=at.args["reason"])

    return handler


def _rate_card_registered(at: At) -> None:
    at.put(schema.rate_cards, {"rate_card": at.args["rateCard"], "encoded": at.args["encoded"]})


def _split_registered(at: At) -> None:
    at.put(schema.splits, {"split": at.args["split"], "encoded": at.args["encoded"]})


# -------------------------------------------------------------------------------------------- authorizations


def _opened(at: At) -> None:
    a = at.args
    terms = AuthorizationTerms.from_json(a["terms"])
    row = {
        "authorization": a["authorizationId"],
        "number": at.work.next_number(),
        "ledger": at.event.contract,
        "space": terms.scope.space,
        "product": terms.scope.product,
        "version": terms.scope.version,
        "provider": terms.provider,
        "consumer": terms.consumer,
        "token": terms.token,
        "split": terms.split,
        "purposes": terms.scope.purposes,
        "modalities": terms.scope.modalities,
        "terms": terms.as_json(),
        "opened": at.block.number,
        "status": "OPEN",
        "ended_at": terms.valid_until,
        "ended_how": "",
        "ended_block": None,
        "reason": 0,
        "reserved": a["reserved"],
        "thaw": 0,
        "thaw_end": 0,
        "refunded": 0,
        "recorded": 0,
        "claimed": 0,
    }
    at.put(schema.authorizations, row)
    at.work.opened(raw(a["authorizationId"]), row)
    if int(a["offerDigest"], 16):
        offer = {"provider": terms.provider, "offer": a["offerDigest"]}
        before = at.work.get(schema.offers, *offer.values()) or {"accepted": 0, "cancelled": 0}
        at.put(schema.offers, {**before, **offer, "accepted": before["accepted"] + 1})
    if at.event.contract == "UsageLedger":
        _move_free(at, terms.consumer, terms.token, -a["reserved"])


def _approved(at: At) -> None:
    a = at.args
    at.fact(
        schema.approvals,
        authorization=a["authorizationId"],
        approver=a["approver"],
        approval_type=a["approvalType"],
        document_hash=a["documentHash"],
        valid_until=a["validUntil"],
    )


def _offer_cancelled(at: At) -> None:
    offer = {"provider": at.args["provider"], "offer": at.args["offerDigest"]}
    before = at.work.get(schema.offers, *offer.values()) or {"accepted": 0}
    at.put(schema.offers, {**before, **offer, "cancelled": 1})


def _terms_cancelled(at: At) -> None:
    at.put(schema.cancelled_terms, {"authorization": at.args["authorizationId"], "by": at.args["by"]})


def _closed_together(at: At) -> None:
    a = at.args
    before = at.authorization
    changes = {
        "status": "CLOSED",
        "thaw": 0,
        "ended_how": "closed together",
        "ended_block": at.block.number,
        "ended_at": a["endedAt"],
    }
    if at.event.contract == "UsageLedger":
        changes["reserved"] = before["reserved"] - a["released"]
        _move_free(at, before["consumer"], before["token"], a["released"])
    at.change_authorization(**changes)
    # A settlement like any other: of a head both signed, by signing the close over its digest.
    head = a["head"]
    _settled_again(
        at,
        CLOSED,
        (head["size"], *head["units"], head["credits"], head["asOf"], raw(head["root"])),
        a["due"],
        a["paid"],
        (raw(before["provider"]), raw(before["consumer"])),
        1 if head["size"] else 0,
    )


def _arrears_paid(at: At) -> None:
    """A top-up pays what was due: the head stays."""
    last = at.work.last_settlement(raw(at.args["authorizationId"]))
    head, signers, basis = last[5:13], last[15:17], last[17]
    _settled_again(at, ARREARS, head, at.args["due"], at.args["paid"], signers, basis)


def _settled_again(
    at: At,
    kind: int,
    head: tuple[Any, ...],
    due: int,
    paid: int,
    signers: tuple[bytes, bytes],
    basis: int,
) -> None:
    standing, log = at.work.standing(raw(at.args["authorizationId"])), at.event.log
    place = (at.block.number, log.log_index, at.work.place(log.transaction), standing.number, kind)
    at.work.settlements.append((*place, *head, due, paid, *signers, basis))
    _pay(at.work, standing, paid)


def _refunded(at: At) -> None:
    a, before = at.args, at.authorization
    at.change_authorization(refunded=a["refunded"])
    _move_free(at, before["provider"], before["token"], -a["amount"])
    _move_free(at, before["consumer"], before["token"], a["amount"])


def _fact_proven(at: At) -> None:
    a = at.args
    at.fact(
        schema.evidence,
        authorization=a["authorizationId"],
        fact=FACTS[a["fact"]],
        against=a["against"],
        index=a["index"],
        evidence=a["evidence"],
    )


def _ended(how: str) -> Callable[[At], None]:
    def handler(at: At) -> None:
        at.change_authorization(
            ended_at=at.args["endedAt"],
            ended_how=how,
            ended_block=at.block.number,
            reason=at.args.get("reason", 0),
        )

    return handler


def _finalized(at: At) -> None:
    before = at.authorization
    changes: dict[str, Any] = {"status": "CLOSED", "thaw": 0}
    if at.event.contract == "UsageLedger":
        changes["reserved"] = before["reserved"] - at.args["released"]
        _move_free(at, before["consumer"], before["token"], at.args["released"])
    at.change_authorization(**changes)


# ---------------------------------------------------------------------------------------------------- money


def _move_free(at: At, owner: str, token: str, amount: int) -> None:
    before = at.work.get(schema.accounts, owner, token) or {"free": 0}
    at.put(schema.accounts, {"owner": owner, "token": token, "free": before["free"] + amount})


def _pay(work: Work, standing: Standing, paid: int) -> None:
    """Invoiced, a settlement pays nothing: what is recorded as paid comes by other events."""
    if standing.escrowed:
        work.accrue(standing.split, standing.token, paid - standing.paid)
    standing.paid = paid


def _deposited(at: At) -> None:
    _move_free(at, at.args["owner"], at.args["token"], at.args["amount"])


def _withdrawn(at: At) -> None:
    _move_free(at, at.args["owner"], at.args["token"], -at.args["amount"])


def _topped_up(at: At) -> None:
    a, before = at.args, at.authorization
    # A thaw covers what was unpaid before this money came, not the new money.
    thaw = min(before["thaw"], before["reserved"] - at.work.standing(raw(a["authorizationId"])).paid)
    at.change_authorization(reserved=before["reserved"] + a["amount"], thaw=thaw)
    _move_free(at, a["from"], before["token"], -a["amount"])


def _thaw_started(at: At) -> None:
    at.change_authorization(thaw=at.args["amount"], thaw_end=at.args["thawEnd"])


def _thawed(at: At) -> None:
    before = at.authorization
    at.change_authorization(reserved=before["reserved"] - at.args["amount"], thaw=0)
    _move_free(at, before["consumer"], before["token"], at.args["amount"])


def _share_paid(at: At) -> None:
    a = at.args
    keys = {"split": a["split"], "token": a["token"], "payee": a["payee"]}
    before = at.work.get(schema.shares, *keys.values()) or {"sent": 0}
    at.put(schema.shares, keys | {"sent": before["sent"] + a["amount"]})
    at.fact(schema.share_payments, **keys, amount=a["amount"])


def _payment(kind: str) -> Callable[[At], None]:
    def handler(at: At) -> None:
        a = at.args
        total = a["claimed"] if kind == "claimed" else a["paid"]
        at.change_authorization(**{"claimed" if kind == "claimed" else "recorded": total})
        at.fact(
            schema.payments,
            authorization=a["authorizationId"],
            kind=kind,
            reference_hash=a["referenceHash"],
            amount=a["amount"],
            total=total,
        )

    return handler


# ------------------------------------------------------------------------------------------------- subsidies


def _pool_created(at: At) -> None:
    a = at.args
    row = {
        "pool": a["pool"],
        "sponsor": a["sponsor"],
        "rule": _json(a["rule"]),
        "products": a["products"],
        "splits": a["splits"],
        "remaining": a["amount"],
    }
    at.put(schema.pools, row)


def _pool_moved(sign: int) -> Callable[[At], None]:
    def handler(at: At) -> None:
        before = at.work.existing(schema.pools, at.args["pool"])
        at.put(schema.pools, before | {"remaining": before["remaining"] + sign * at.args["amount"]})

    return handler


def _objected(at: At) -> None:
    a = at.args
    row = {
        "pool": a["pool"],
        "authorization": a["authorizationId"],
        "status": "objected",
        "consumer": None,
        "credential": None,
        "base": 0,
        "amount": 0,
        "reason": a["reason"],
    }
    at.put(schema.subsidies, row)


def _subsidised(at: At) -> None:
    a = at.args
    row = {
        "pool": a["pool"],
        "authorization": a["authorizationId"],
        "status": "paid",
        "consumer": a["consumer"],
        "credential": a["credential"],
        "base": a["base"],
        "amount": a["amount"],
        "reason": 0,
    }
    at.put(schema.subsidies, row)
    _pool_moved(-1)(at)


# Events that change nothing here: what they say stands in the raw logs.
_NOTED = {
    ("Forwarder", "ExecutedForwardRequest"),
    ("Forwarder", "EIP712DomainChanged"),
    ("SessionKeys", "EIP712DomainChanged"),
    ("UsageLedger", "EIP712DomainChanged"),
    ("InvoiceLedger", "EIP712DomainChanged"),
    ("UsageLedger", "SettlementSkipped"),
    ("InvoiceLedger", "SettlementSkipped"),
    ("UsageLedger", "Renewed"),
    ("InvoiceLedger", "Renewed"),
}

_HANDLERS: dict[tuple[str, str], Callable[[At], None]] = {
    ("SpaceRegistry", "SpaceCreated"): _space_created,
    ("SpaceRegistry", "SpaceUpdated"): _space_updated,
    ("SpaceRegistry", "OperatorProposed"): _operator_proposed,
    ("SpaceRegistry", "OperatorChanged"): _operator_changed,
    ("SpaceRegistry", "ParticipantAdmitted"): _participant_admitted,
    ("SpaceRegistry", "ParticipantSuspended"): _participant_suspended,
    ("SpaceRegistry", "ParticipantReinstated"): _participant_reinstated,
    ("SpaceRegistry", "SpaceApproversSet"): _approvers_set(schema.spaces, "space"),
    ("SpaceRegistry", "CredentialRecorded"): _credential_recorded,
    ("SpaceRegistry", "CredentialRevoked"): _credential_revoked,
    ("SessionKeys", "SessionKeyRegistered"): _session_key_registered,
    ("SessionKeys", "SessionKeyRevoked"): _session_key_revoked,
    ("ProductRegistry", "ProductRegistered"): _product_registered,
    ("ProductRegistry", "ProductApproversSet"): _approvers_set(schema.products, "product"),
    ("ProductRegistry", "PriceCeilingsSet"): _ceilings_set,
    ("ProductRegistry", "VersionPublished"): _version_published,
    ("ProductRegistry", "VersionRetired"): _version_withdrawn("RETIRED"),
    ("ProductRegistry", "VersionRecalled"): _version_withdrawn("RECALLED"),
    ("RateCards", "RateCardRegistered"): _rate_card_registered,
    ("RateCards", "SplitRegistered"): _split_registered,
    ("UsageLedger", "Deposited"): _deposited,
    ("UsageLedger", "Withdrawn"): _withdrawn,
    ("UsageLedger", "ToppedUp"): _topped_up,
    ("UsageLedger", "ThawStarted"): _thaw_started,
    ("UsageLedger", "Thawed"): _thawed,
    ("UsageLedger", "ArrearsPaid"): _arrears_paid,
    ("UsageLedger", "SharePaid"): _share_paid,
    ("UsageLedger", "Refunded"): _refunded,
    ("InvoiceLedger", "PaymentRecorded"): _payment("recorded"),
    ("InvoiceLedger", "PaymentReversed"): _payment("reversed"),
    ("InvoiceLedger", "PaymentClaimed"): _payment("claimed"),
    # The same on both ledgers.
    ("", "Opened"): _opened,
    ("", "Approved"): _approved,
    ("", "OfferCancelled"): _offer_cancelled,
    ("", "TermsCancelled"): _terms_cancelled,
    ("", "Revoked"): _ended("revoked"),
    ("", "ClosedEarly"): _ended("closed"),
    ("", "EndedByParent"): _ended("ended by its parent"),
    ("", "ClosedTogether"): _closed_together,
    ("", "Finalized"): _finalized,
    ("UsageEvidence", "FactProven"): _fact_proven,
    ("SubsidyPool", "PoolCreated"): _pool_created,
    ("SubsidyPool", "PoolFunded"): _pool_moved(1),
    ("SubsidyPool", "PoolRefunded"): _pool_moved(-1),
    ("SubsidyPool", "Objected"): _objected,
    ("SubsidyPool", "Subsidised"): _subsidised,
}
