"""The only writer of the mirror's tables: one block's events, in order, in the caller's transaction."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, insert

from ledger.core.errors import MirrorError
from ledger.core.events import Block, Event
from ledger.core.terms import AuthorizationTerms
from ledger.mirror import schema
from ledger.mirror.schema import current, put

BASIS = ("NONE", "CONSUMER", "AGENT", "AGENT_CAPPED", "CEILING")
FACTS = ("USE", "FORK", "RECEIPT_MISMATCH", "UNITS_MISMATCH", "BAD_STEP", "OUT_OF_SCOPE")


class EventOutOfPlace(MirrorError):
    """An event speaks of something the mirror has never seen: blocks are missing, or the deployment is another."""

    code = "event_out_of_place"


def apply_block(connection: Connection, block: Block, events: Sequence[Event]) -> None:
    """Stores the block, its logs, and what they change."""
    connection.execute(
        insert(schema.blocks).values(
            number=block.number, hash=block.hash, parent_hash=block.parent_hash, timestamp=block.timestamp
        )
    )
    for event in events:
        log = event.log
        connection.execute(
            insert(schema.logs).values(
                block_number=log.block_number,
                log_index=log.log_index,
                transaction_hash=log.transaction_hash,
                address=log.address,
                topics=list(log.topics),
                data=log.data,
                contract=event.contract,
                event=event.name,
                args=_json(event.args),
            )
        )
        timed = _TIMED.get((event.contract, event.name))
        handler = _HANDLERS.get((event.contract, event.name)) or _HANDLERS.get(("", event.name))
        if timed is not None:
            timed(connection, event, block.timestamp)
        elif handler is not None:
            handler(connection, event)


def _json(value: Any) -> Any:
    """Numbers wider than SQLite and JavaScript take as text."""
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value >> 48 else value


def _existing(connection: Connection, table: Any, **keys: str) -> dict[str, Any]:
    row = current(connection, table, **keys)
    if row is None:
        raise EventOutOfPlace(f"an event changes {table.name} {keys}, which the mirror does not have")
    return row


def _change(connection: Connection, event: Event, table: Any, keys: dict[str, str], **changes: Any) -> None:
    put(connection, table, event.log.block_number, _existing(connection, table, **keys) | changes)


def _fact(connection: Connection, event: Event, table: Any, **values: Any) -> None:
    log = event.log
    connection.execute(
        insert(table).values(
            block_number=log.block_number,
            log_index=log.log_index,
            transaction_hash=log.transaction_hash,
            **values,
        )
    )


# ------------------------------------------------------------------------------------------------ registries


def _space_created(connection: Connection, event: Event) -> None:
    a = event.args
    row = {
        "space": a["space"],
        "operator": a["operator"],
        "proposed_operator": None,
        "policy_digest": a["policyDigest"],
        "code_lists": a["codeLists"],
        "approvers": [],
    }
    put(connection, schema.spaces, event.log.block_number, row)


def _space_updated(connection: Connection, event: Event) -> None:
    a = event.args
    _change(
        connection,
        event,
        schema.spaces,
        {"space": a["space"]},
        policy_digest=a["policyDigest"],
        code_lists=a["codeLists"],
    )


def _operator_proposed(connection: Connection, event: Event) -> None:
    a = event.args
    _change(connection, event, schema.spaces, {"space": a["space"]}, proposed_operator=a["proposedOperator"])


def _operator_changed(connection: Connection, event: Event) -> None:
    a = event.args
    _change(connection, event, schema.spaces, {"space": a["space"]}, operator=a["operator"], proposed_operator=None)


def _participant_admitted(connection: Connection, event: Event) -> None:
    a = event.args
    keys = {"space": a["space"], "wallet": a["wallet"]}
    before = current(connection, schema.participants, **keys) or {"suspended": 0, "reason": 0}
    row = before | keys | {"roles": a["roles"], "digest": a["digest"]}
    put(connection, schema.participants, event.log.block_number, row)


def _participant_suspended(connection: Connection, event: Event) -> None:
    a = event.args
    keys = {"space": a["space"], "wallet": a["wallet"]}
    _change(connection, event, schema.participants, keys, suspended=1, reason=a["reason"])


def _participant_reinstated(connection: Connection, event: Event) -> None:
    a = event.args
    keys = {"space": a["space"], "wallet": a["wallet"]}
    _change(connection, event, schema.participants, keys, suspended=0, reason=0)


def _product_registered(connection: Connection, event: Event) -> None:
    put(connection, schema.products, event.log.block_number, {**event.args, "approvers": []})


def _approvers_set(table: Any, key: str) -> Callable[[Connection, Event], None]:
    def handler(connection: Connection, event: Event) -> None:
        _change(connection, event, table, {key: event.args[key]}, approvers=event.args["approvers"])

    return handler


def _credential_recorded(connection: Connection, event: Event) -> None:
    a = event.args
    row = _credential(event) | {
        "digest": a["digest"],
        "valid_until": a["validUntil"],
        "revoked": 0,
        "reason": 0,
    }
    put(connection, schema.credentials, event.log.block_number, row)


def _credential_revoked(connection: Connection, event: Event) -> None:
    _change(connection, event, schema.credentials, _credential(event), revoked=1, reason=event.args["reason"])


def _credential(event: Event) -> dict[str, Any]:
    a = event.args
    return {"space": a["space"], "wallet": a["wallet"], "credential_type": str(a["credentialType"])}


def _session_key_registered(connection: Connection, event: Event, time: int) -> None:
    a = event.args
    row = {
        "wallet": a["wallet"],
        "key": a["key"],
        "registered_at": time,
        "expiry": a["expiry"],
        "revoked_at": 0,
        "max_due": a["maxDue"],
    }
    put(connection, schema.session_keys, event.log.block_number, row)


def _session_key_revoked(connection: Connection, event: Event, time: int) -> None:
    keys = {"wallet": event.args["wallet"], "key": event.args["key"]}
    _change(connection, event, schema.session_keys, keys, revoked_at=time)


def _ceilings_set(connection: Connection, event: Event) -> None:
    a = event.args
    row = {"product": a["product"], "token": a["token"], "ceilings": [str(n) for n in a["ceilings"]]}
    put(connection, schema.price_ceilings, event.log.block_number, row)


def _version_published(connection: Connection, event: Event) -> None:
    a = event.args
    row = {
        "version": a["version"],
        "product": a["product"],
        "digests": a["digests"],
        "metadata": a["metadata"],
        "policy_hash": a["policyHash"],
        "parents": a["parents"],
        "status": "LISTED",
        "reason": 0,
        "published": event.log.block_number,
    }
    put(connection, schema.versions, event.log.block_number, row)


def _version_withdrawn(status: str) -> Callable[[Connection, Event], None]:
    def handler(connection: Connection, event: Event) -> None:
        a = event.args
        _change(connection, event, schema.versions, {"version": a["version"]}, status=status, reason=a["reason"])

    return handler


def _rate_card_registered(connection: Connection, event: Event) -> None:
    a = event.args
    row = {"rate_card": a["rateCard"], "encoded": a["encoded"]}
    put(connection, schema.rate_cards, event.log.block_number, row)


def _split_registered(connection: Connection, event: Event) -> None:
    a = event.args
    put(connection, schema.splits, event.log.block_number, {"split": a["split"], "encoded": a["encoded"]})


# -------------------------------------------------------------------------------------------- authorizations


def _opened(connection: Connection, event: Event) -> None:
    a = event.args
    terms = AuthorizationTerms.from_json(a["terms"])
    row = {
        "authorization": a["authorizationId"],
        "ledger": event.contract,
        "space": terms.scope.space,
        "product": terms.scope.product,
        "provider": terms.provider,
        "consumer": terms.consumer,
        "terms": terms.as_json(),
        "opened": event.log.block_number,
        "status": "OPEN",
        "ended_at": terms.valid_until,
        "ended_how": "",
        "ended_block": None,
        "reason": 0,
        "size": "0",
        "units": ["0", "0", "0", "0"],
        "credits": 0,
        "as_of": 0,
        "root": "0x" + "00" * 32,
        "basis": BASIS[0],
        "due": 0,
        "paid": 0,
        "reserved": a["reserved"],
        "thawing": 0,
        "thaw_end": 0,
        "refunded": 0,
        "claimed": 0,
    }
    put(connection, schema.authorizations, event.log.block_number, row)
    if int(a["offerDigest"], 16):
        offer = {"provider": terms.provider, "offer": a["offerDigest"]}
        before = current(connection, schema.offers, **offer) or {"accepted": 0, "cancelled": 0}
        taken = {**before, **offer, "accepted": before["accepted"] + 1}
        put(connection, schema.offers, event.log.block_number, taken)
    if event.contract == "UsageLedger":
        _move_free(connection, event, terms.consumer, terms.token, -a["reserved"])


def _approved(connection: Connection, event: Event) -> None:
    a = event.args
    _fact(
        connection,
        event,
        schema.approvals,
        authorization=a["authorizationId"],
        approver=a["approver"],
        approval_type=a["approvalType"],
        document_hash=a["documentHash"],
        valid_until=a["validUntil"],
    )


def _offer_cancelled(connection: Connection, event: Event) -> None:
    offer = {"provider": event.args["provider"], "offer": event.args["offerDigest"]}
    before = current(connection, schema.offers, **offer) or {"accepted": 0}
    put(connection, schema.offers, event.log.block_number, {**before, **offer, "cancelled": 1})


def _terms_cancelled(connection: Connection, event: Event) -> None:
    row = {"authorization": event.args["authorizationId"], "by": event.args["by"]}
    put(connection, schema.cancelled_terms, event.log.block_number, row)


def _settled(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    changes = _head_of(a["head"]) | {"basis": BASIS[a["basis"]], "due": a["due"], "paid": a["paid"]}
    if event.contract == "UsageLedger":
        # What a thaw would release shrinks as the reservation is used.
        changes["thawing"] = min(before["thawing"], before["reserved"] - a["paid"])
    put(connection, schema.authorizations, event.log.block_number, before | changes)
    _fact(
        connection,
        event,
        schema.settlements,
        authorization=a["authorizationId"],
        head=_json({"authorizationId": a["authorizationId"], **a["head"]}),
        due=a["due"],
        paid=a["paid"],
        arrears=a["arrears"],
        provider_signer=a["providerSigner"],
        consumer_signer=a["consumerSigner"],
        basis=BASIS[a["basis"]],
    )
    if event.contract == "UsageLedger":
        _accrue(connection, event, before["terms"], a["paid"] - before["paid"])


def _head_of(head: dict[str, Any]) -> dict[str, Any]:
    return {
        "size": str(head["size"]),
        "units": [str(n) for n in head["units"]],
        "credits": head["credits"],
        "as_of": head["asOf"],
        "root": head["root"],
    }


def _closed_together(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    changes = _head_of(a["head"]) | {
        "status": "CLOSED",
        "due": a["due"],
        "paid": a["paid"],
        "thawing": 0,
        "ended_how": "closed together",
        "ended_block": event.log.block_number,
        "ended_at": a["endedAt"],
    }
    if a["head"]["size"]:
        changes["basis"] = BASIS[1]
    if event.contract == "UsageLedger":
        changes["reserved"] = a["paid"]
        _accrue(connection, event, before["terms"], a["paid"] - before["paid"])
        _move_free(connection, event, before["consumer"], before["terms"]["token"], a["released"])
    put(connection, schema.authorizations, event.log.block_number, before | changes)
    if str(a["head"]["size"]) != before["size"]:
        # The close is a settlement like any other: of a head both signed, by signing the close over its digest.
        _fact(
            connection,
            event,
            schema.settlements,
            authorization=a["authorizationId"],
            head=_json({"authorizationId": a["authorizationId"], **a["head"]}),
            due=a["due"],
            paid=a["paid"],
            arrears=max(0, a["due"] - a["paid"]),
            provider_signer=before["provider"],
            consumer_signer=before["consumer"],
            basis=BASIS[1],
        )


def _refunded(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    put(connection, schema.authorizations, event.log.block_number, before | {"refunded": a["refunded"]})
    token = before["terms"]["token"]
    _move_free(connection, event, before["provider"], token, -a["amount"])
    _move_free(connection, event, before["consumer"], token, a["amount"])


def _fact_proven(connection: Connection, event: Event) -> None:
    a = event.args
    _fact(
        connection,
        event,
        schema.evidence,
        authorization=a["authorizationId"],
        fact=FACTS[a["fact"]],
        against=a["against"],
        index=str(a["index"]),
        evidence=a["evidence"],
    )


def _arrears_paid(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    put(connection, schema.authorizations, event.log.block_number, before | {"paid": a["paid"]})
    _accrue(connection, event, before["terms"], a["paid"] - before["paid"])


def _ended(how: str) -> Callable[[Connection, Event], None]:
    def handler(connection: Connection, event: Event) -> None:
        a = event.args
        _change(
            connection,
            event,
            schema.authorizations,
            {"authorization": a["authorizationId"]},
            ended_at=a["endedAt"],
            ended_how=how,
            ended_block=event.log.block_number,
            reason=a.get("reason", 0),
        )

    return handler


def _finalized(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    changes: dict[str, Any] = {"status": "CLOSED", "thawing": 0}
    if event.contract == "UsageLedger":
        changes["reserved"] = before["paid"]
        _move_free(connection, event, before["consumer"], before["terms"]["token"], a["released"])
    put(connection, schema.authorizations, event.log.block_number, before | changes)


# ---------------------------------------------------------------------------------------------------- money


def _move_free(connection: Connection, event: Event, owner: str, token: str, amount: int) -> None:
    before = current(connection, schema.accounts, owner=owner, token=token) or {"free": 0}
    row = {"owner": owner, "token": token, "free": before["free"] + amount}
    put(connection, schema.accounts, event.log.block_number, row)


def _accrue(connection: Connection, event: Event, terms: dict[str, Any], amount: int) -> None:
    if amount == 0:
        return
    keys = {"split": terms["split"], "token": terms["token"]}
    before = current(connection, schema.accruals, **keys) or {"accrued": 0}
    put(connection, schema.accruals, event.log.block_number, keys | {"accrued": before["accrued"] + amount})


def _deposited(connection: Connection, event: Event) -> None:
    _move_free(connection, event, event.args["owner"], event.args["token"], event.args["amount"])


def _withdrawn(connection: Connection, event: Event) -> None:
    _move_free(connection, event, event.args["owner"], event.args["token"], -event.args["amount"])


def _topped_up(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    changes = {"reserved": before["reserved"] + a["amount"]}
    put(connection, schema.authorizations, event.log.block_number, before | changes)
    _move_free(connection, event, a["from"], before["terms"]["token"], -a["amount"])


def _thaw_started(connection: Connection, event: Event) -> None:
    a = event.args
    key = {"authorization": a["authorizationId"]}
    _change(connection, event, schema.authorizations, key, thawing=a["amount"], thaw_end=a["thawEnd"])


def _thawed(connection: Connection, event: Event) -> None:
    a = event.args
    before = _existing(connection, schema.authorizations, authorization=a["authorizationId"])
    changes = {"reserved": before["reserved"] - a["amount"], "thawing": 0}
    put(connection, schema.authorizations, event.log.block_number, before | changes)
    _move_free(connection, event, before["consumer"], before["terms"]["token"], a["amount"])


def _share_paid(connection: Connection, event: Event) -> None:
    a = event.args
    keys = {"split": a["split"], "token": a["token"], "payee": a["payee"]}
    before = current(connection, schema.shares, **keys) or {"sent": 0}
    put(connection, schema.shares, event.log.block_number, keys | {"sent": before["sent"] + a["amount"]})


def _payment(kind: str) -> Callable[[Connection, Event], None]:
    def handler(connection: Connection, event: Event) -> None:
        a = event.args
        total = {"claimed": a["claimed"]} if kind == "claimed" else {"paid": a["paid"]}
        _change(connection, event, schema.authorizations, {"authorization": a["authorizationId"]}, **total)
        _fact(
            connection,
            event,
            schema.payments,
            authorization=a["authorizationId"],
            kind=kind,
            reference_hash=a["referenceHash"],
            amount=a["amount"],
        )

    return handler


# ------------------------------------------------------------------------------------------------- subsidies


def _pool_created(connection: Connection, event: Event) -> None:
    a = event.args
    row = {
        "pool": a["pool"],
        "sponsor": a["sponsor"],
        "rule": _json(a["rule"]),
        "products": a["products"],
        "splits": a["splits"],
        "remaining": a["amount"],
    }
    put(connection, schema.pools, event.log.block_number, row)


def _pool_moved(sign: int) -> Callable[[Connection, Event], None]:
    def handler(connection: Connection, event: Event) -> None:
        a = event.args
        before = _existing(connection, schema.pools, pool=a["pool"])
        after = before | {"remaining": before["remaining"] + sign * a["amount"]}
        put(connection, schema.pools, event.log.block_number, after)

    return handler


def _objected(connection: Connection, event: Event) -> None:
    a = event.args
    row = {
        "pool": a["pool"],
        "authorization": a["authorizationId"],
        "status": "objected",
        "consumer": "",
        "credential": "",
        "base": 0,
        "amount": 0,
        "reason": a["reason"],
    }
    put(connection, schema.subsidies, event.log.block_number, row)


def _subsidised(connection: Connection, event: Event) -> None:
    a = event.args
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
    put(connection, schema.subsidies, event.log.block_number, row)
    _pool_moved(-1)(connection, event)


# Handlers that also need the block's time.
_TIMED: dict[tuple[str, str], Callable[[Connection, Event, int], None]] = {
    ("SessionKeys", "SessionKeyRegistered"): _session_key_registered,
    ("SessionKeys", "SessionKeyRevoked"): _session_key_revoked,
}

# Events that change nothing here: what they say stands in the raw logs.
_NOTED = {
    ("Forwarder", "ExecutedForwardRequest"),
    ("Forwarder", "EIP712DomainChanged"),
    ("SessionKeys", "EIP712DomainChanged"),
    ("UsageLedger", "SettlementSkipped"),
    ("InvoiceLedger", "SettlementSkipped"),
    ("UsageLedger", "Renewed"),
    ("InvoiceLedger", "Renewed"),
}

_HANDLERS: dict[tuple[str, str], Callable[[Connection, Event], None]] = {
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
    ("", "Settled"): _settled,
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
