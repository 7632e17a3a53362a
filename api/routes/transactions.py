"""Writes: the server prepares, a wallet elsewhere signs, the server passes the signed bytes on."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import schemas
from api.deps import After, HashText, State, StateDep
from api.problems import PROBLEMS, READ, WRITE
from api.reading import Format, Items, ReadDep, View, run
from ledger.chain.decode import Reverted
from ledger.chain.operations import OPERATIONS
from ledger.chain.prepared import prepare
from ledger.chain.send import broadcast, status_of
from ledger.core.errors import InputInvalid, NotFound
from ledger.core.ids import Hash32, parse_address
from ledger.core.terms import Acceptance, AuthorizationTerms, Offer, UsageHead
from ledger.mirror import queries
from ledger.webhooks.cloudevents import numbers_as_text

router = APIRouter(prefix="/v1", tags=["transactions"])

Blocks = Annotated[int, Query(ge=1, le=1000, description="blocks a page, all of one or nothing")]

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


@router.get("/operations", summary="The writes there are, with their arguments", responses=PROBLEMS)
async def operations() -> dict[str, schemas.OperationArguments]:
    return {
        name: schemas.OperationArguments(arguments=dict(o.arguments), zh=o.zh, en=o.en)
        for name, o in OPERATIONS.items()
    }


@router.get("/deployment", summary="Chain and contract addresses", responses=PROBLEMS)
async def deployment(here: StateDep) -> schemas.Deployment:
    return schemas.Deployment.model_validate(here.deployment.as_json())


@router.post("/transactions/prepare", summary="An unsigned transaction, explained and simulated", responses=WRITE)
async def prepare_transaction(here: StateDep, request: schemas.PrepareRequest) -> schemas.PreparedTransaction:
    return await run(here, lambda: _prepare(here, request))


def _prepare(here: State, request: schemas.PrepareRequest) -> schemas.PreparedTransaction:
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


def _with_end(here: State, problem: Reverted) -> Reverted:
    """Adds what the mirror knows: "authorization 0x… was revoked at block 41"."""
    args = problem.details.get("args", {})
    if problem.details.get("error") in ("AuthorizationStatus", "WindowOver", "HeadAfterEnd"):
        note = queries.end_note(here.mirror, args.get("authorizationId", ""))
        if note:
            sentence = f"authorization {args['authorizationId']} {note}"
            more = "" if problem.details["error"] == "AuthorizationStatus" else f"; {problem.message}"
            return Reverted(sentence + more, **problem.details)
    return problem


@router.post("/typed-data", summary="Typed data for a wallet to sign (EIP-712)", responses=WRITE)
async def typed_data(here: StateDep, request: schemas.TypedDataRequest) -> schemas.TypedData:
    kind = _MESSAGES.get(request.primary_type)
    if kind is None or request.ledger not in ("UsageLedger", "InvoiceLedger"):
        raise InputInvalid(f"primaryType must be one of {', '.join(_MESSAGES)}", field="primaryType")
    message = kind.from_json(request.message)
    domain = here.deployment.domain(request.ledger)
    return schemas.TypedData(
        typed_data=message.typed_data(domain), digest=message.digest(domain), summary=_words(message)
    )


@router.post("/transactions", summary="Send signed bytes", status_code=202, responses=WRITE)
async def send(here: StateDep, request: schemas.SendRequest) -> schemas.Sent:
    return schemas.Sent(transaction=await run(here, lambda: broadcast(here.chain, request.signed)))


@router.get(
    "/transactions",
    summary="Transactions that changed something here, newest first",
    response_model=schemas.Page[schemas.Transaction],
    responses=READ,
)
async def transactions(read: ReadDep, after: After = "", blocks: Blocks = 50, format: Format = None) -> Response:
    def fetch(view: View, after: str, limit: int) -> Items:
        newest = None if view.at_block is None else view.at_block + 1
        before = queries.number_after(after) - 1 if after else newest
        items = queries.transactions(view.db, before, limit)
        full = len({item["block"] for item in items}) == limit
        return items, str(items[-1]["block"]) if items and full else None

    return await read.page(fetch, schemas.Transaction, after=after, limit=blocks, format=format, brief=False)


@router.get(
    "/transactions/{transaction}",
    summary="What became of a transaction",
    response_model=schemas.TransactionStatus,
    response_model_exclude_none=True,
    responses=READ | WRITE,
)
async def transaction(read: ReadDep, here: StateDep, transaction: HashText) -> Response:
    def make(view: View) -> dict[str, Any]:
        found = status_of(here.chain, Hash32(transaction))
        if found["status"] == "unknown":
            raise NotFound(f"the node knows no transaction {transaction}")
        rows = queries.transaction_events(view.db, found["transaction"], found["block"]) if "block" in found else []
        mirrored = "blockHash" in found and queries.has_block(view.db, found["block"], found["blockHash"])
        events = [{"contract": r["contract"], "event": r["event"], "args": numbers_as_text(r["args"])} for r in rows]
        return found | {"mirrored": mirrored, "events": events}

    return await read.one(make, keep=False, brief=False)
