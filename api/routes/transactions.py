"""Writes: the server prepares, a wallet elsewhere signs, the server passes the signed bytes on."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api import schemas
from api.deps import MirrorDep, StateDep
from api.routes.registries import Limit
from ledger.chain.decode import Reverted
from ledger.chain.operations import OPERATIONS
from ledger.chain.prepared import prepare
from ledger.chain.send import broadcast, status_of
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.ids import parse_address, parse_hash
from ledger.core.terms import Acceptance, AuthorizationTerms, Offer, UsageHead
from ledger.mirror import queries

router = APIRouter(prefix="/v1", tags=["transactions"])

Before = Annotated[int | None, Query(ge=0, lt=2**62, description="`next` of the page before")]

_MESSAGES = {m.__name__: m for m in (AuthorizationTerms, Offer, Acceptance, UsageHead)}


def _words(message: AuthorizationTerms | Offer | Acceptance | UsageHead) -> dict[str, str]:
    """What a wallet should show before it signs."""
    match message:
        case AuthorizationTerms():
            return {
                "zh": f"签署授权条款：{message.provider} 授权 {message.consumer} 使用产品 {message.scope.product}",
                "en": f"Sign terms: {message.provider} lets {message.consumer} use product {message.scope.product}",
            }
        case Offer():
            return {
                "zh": f"签署要约：最多接受 {message.max_acceptances} 次",
                "en": f"Sign an offer that may be accepted {message.max_acceptances} times",
            }
        case Acceptance():
            return {
                "zh": f"同意为授权 {message.authorization_id} 预留 {message.reserve} 个最小单位",
                "en": f"Reserve exactly {message.reserve} token units for authorization {message.authorization_id}",
            }
        case UsageHead():
            return {
                "zh": f"签认用量：{message.size} 条，累计 {list(message.units)}",
                "en": f"Acknowledge {message.size} leaves, units {list(message.units)} in all",
            }


@router.get("/operations", summary="The writes there are, with their arguments")
def operations() -> dict[str, Any]:
    return {name: {"arguments": dict(o.arguments), "zh": o.zh, "en": o.en} for name, o in OPERATIONS.items()}


@router.get("/deployment", summary="Chain and contract addresses")
def deployment(here: StateDep) -> dict[str, Any]:
    return here.deployment.as_json()


@router.post("/transactions/prepare", summary="An unsigned transaction, explained and simulated")
def prepare_transaction(here: StateDep, request: schemas.PrepareRequest) -> schemas.PreparedTransaction:
    sender = parse_address(request.sender, "sender")
    try:
        made = prepare(here.chain, here.deployment, request.operation, request.arguments, sender)
    except Reverted as problem:
        raise _with_end(here, problem) from None
    unsigned = {k: str(v) if isinstance(v, int) and k != "type" else v for k, v in made.unsigned().items()}
    result = str(made.result) if isinstance(made.result, int) else made.result
    return schemas.PreparedTransaction(
        operation=made.operation, summary=made.summary, transaction=unsigned, result=result, gas=str(made.gas)
    )


def _with_end(here: StateDep, problem: Reverted) -> Reverted:
    """Adds what the mirror knows: "authorization 0x… was revoked at block 41"."""
    args = problem.details.get("args", {})
    if problem.details.get("error") in ("AuthorizationStatus", "WindowOver", "HeadAfterEnd"):
        note = queries.end_note(here.mirror, args.get("authorizationId", ""))
        if note:
            sentence = f"authorization {args['authorizationId']} {note}"
            more = "" if problem.details["error"] == "AuthorizationStatus" else f"; {problem.message}"
            return Reverted(sentence + more, **problem.details)
    return problem


@router.post("/typed-data", summary="Typed data for a wallet to sign (EIP-712)")
def typed_data(here: StateDep, request: schemas.TypedDataRequest) -> dict[str, Any]:
    kind = _MESSAGES.get(request.primary_type)
    if kind is None or request.ledger not in ("UsageLedger", "InvoiceLedger"):
        raise InputInvalid(f"primaryType must be one of {', '.join(_MESSAGES)}", field="primaryType")
    message = kind.from_json(request.message)
    domain = here.deployment.domain(request.ledger)
    return {"typedData": message.typed_data(domain), "digest": message.digest(domain), "summary": _words(message)}


@router.post("/transactions", summary="Send signed bytes", status_code=202)
def send(here: StateDep, request: schemas.SendRequest) -> dict[str, str]:
    return {"transaction": broadcast(here.chain, request.signed)}


@router.get("/transactions", summary="Transactions that changed something here, newest first")
def transactions(db: MirrorDep, before: Before = None, blocks: Limit = 50) -> dict[str, Any]:
    items = queries.transactions(db, before, blocks)
    full = len({item["block"] for item in items}) == blocks
    return {"items": items, "next": items[-1]["block"] if items and full else None}


@router.get("/transactions/{transaction}", summary="What became of a transaction")
def transaction(here: StateDep, db: MirrorDep, transaction: str) -> schemas.TransactionStatus:
    found = status_of(here.chain, parse_hash(transaction, "transaction"))
    if found["status"] == "unknown":
        raise NotFound(f"the node knows no transaction {transaction}")
    rows = queries.transaction_events(db, found["transaction"], found["block"]) if "block" in found else []
    return schemas.TransactionStatus(
        **found,
        mirrored="blockHash" in found and queries.has_block(db, found["block"], found["blockHash"]),
        events=[{"contract": r["contract"], "event": r["event"], "args": r["args"]} for r in rows],
    )
