"""What happened on the ledger, in order: as a list, as a stream, and delivered to webhooks."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response, StreamingResponse

from api import schemas
from api.deps import IdText, Limit, State, StateDep, Viewer
from api.problems import PRIVATE, PROBLEMS, READ, WRITE, described
from api.reading import ReadDep, View, run
from api.sessions import Busy
from ledger.core.ids import parse_address, parse_hash
from ledger.mirror import journal
from ledger.mirror.journal import BEGINNING, Offset, Wanted
from ledger.webhooks import store
from ledger.webhooks.cloudevents import event_json

router = APIRouter(prefix="/v1", tags=["events"])

HEARTBEAT = 15.0  # seconds
STREAMS = 200  # at a time
READ_AT_ONCE = 200  # events

AfterOffset = Annotated[str | None, Query(max_length=60, description="an event's offset: what comes after it")]
LastEventId = Annotated[str | None, Header(max_length=60, description="as a browser sends it when it connects again")]
FromBlock = Annotated[int | None, Query(ge=0, lt=2**62, description="or: from this block on")]
Contract = Annotated[str | None, Query(max_length=64, examples=["UsageLedger"])]
EventName = Annotated[str | None, Query(max_length=64, examples=["Settled"])]
About = Annotated[
    IdText | None, Query(description="names this id or wallet, or an authorization of this space, product or party")
]
Final = Annotated[bool, Query(description="only what is final; nothing of it is taken back")]
WebhookId = Annotated[str, Path(max_length=32, examples=["wh_2f6c0b1a9d3e4f55"])]
GONE = described({410: "the offset is of a block that this mirror never had"})


@router.get(
    "/events",
    summary="Events in the order in which they became known, with those that were taken back; at_block: up to it",
    response_model=schemas.EventPage,
    responses=READ | GONE,
)
async def events(
    read: ReadDep,
    after: AfterOffset = None,
    from_block: FromBlock = None,
    contract: Contract = None,
    event: EventName = None,
    about: About = None,
    final: Final = False,
    limit: Limit = 100,
) -> Response:
    wanted = Wanted(contract, event, about)

    def make(view: View) -> dict[str, Any]:
        begin = _begin(view, after, from_block)
        found = journal.read(view.db, begin, limit, wanted, final=final)
        last = view.tip.number if view.at_block is None else view.at_block
        items = [event_json(told) for told in found.events if told.row["block_number"] <= last]
        return {"items": items, "next": str(found.reached), "more": found.more}

    return await read.one(make, keep=False, brief=False)


def _begin(view: View, after: str | None, from_block: int | None) -> Offset:
    if after is not None:
        return Offset.parse(after)
    return BEGINNING if from_block is None else journal.before_block(view.db, from_block)


@router.get(
    "/events/stream",
    summary="Events as they become known (Server-Sent Events); resumes after `Last-Event-ID`",
    response_class=StreamingResponse,
    responses=PROBLEMS
    | GONE
    | {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "event or retraction"}},
)
async def stream(
    here: StateDep,
    last_event_id: LastEventId = None,
    after: AfterOffset = None,
    from_block: FromBlock = None,
    contract: Contract = None,
    event: EventName = None,
    about: About = None,
    final: Final = False,
) -> Response:
    """Without an offset or a block it begins with what comes now.

    `event: event` is one that happened, `event: retraction` one that is not so any more; `id` is its offset.
    """
    wanted = Wanted(contract, event, about)

    def begin() -> Offset:
        with here.mirror.connect() as db:
            given = last_event_id or after
            if given is not None:
                offset = Offset.parse(given)
            else:
                offset = journal.end(db) if from_block is None else journal.before_block(db, from_block)
            journal.read(db, offset, 0, wanted)  # an offset that is of no use is refused now
            return offset

    if _Streams.open >= STREAMS:
        raise Busy(f"{STREAMS} streams are open; ask /v1/events instead")
    offset = await run(here, begin)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_told(here, offset, wanted, final), media_type="text/event-stream", headers=headers)


class _Streams:
    open = 0


async def _told(here: State, offset: Offset, wanted: Wanted, final: bool) -> AsyncIterator[bytes]:
    """Events as they come, and a sign of life where there are none."""

    def read(offset: Offset) -> journal.Reading:
        with here.mirror.connect() as db:
            return journal.read(db, offset, READ_AT_ONCE, wanted, final=final)

    _Streams.open += 1
    try:
        yield b": sluice\n\n"
        while True:
            tip = await here.tips.now()
            found = await run(here, lambda offset=offset: read(offset))  # type: ignore[misc]
            for told in found.events:
                kind = "retraction" if told.retracted else "event"
                data = json.dumps(event_json(told), ensure_ascii=False)
                yield f"event: {kind}\nid: {told.offset}\ndata: {data}\n\n".encode()
            if found.reached != (found.events[-1].offset if found.events else offset):
                yield f"id: {found.reached}\n\n".encode()  # nothing wanted there: whoever resumes need not look again
            offset = found.reached
            if found.more:
                continue
            seen = (tip.digest, tip.final)
            later = await here.tips.until(lambda tip: (tip.digest, tip.final) != seen, HEARTBEAT)  # noqa: B023
            if (later.digest, later.final) == seen:
                yield b": here\n\n"
    finally:
        _Streams.open -= 1


# ------------------------------------------------------------------------------------------------ webhooks


def _webhook(row: dict[str, Any]) -> schemas.Webhook:
    return schemas.Webhook(**{name: row[name] for name in schemas.Webhook.model_fields})


@router.post(
    "/webhooks",
    summary="Have events delivered: CloudEvents, signed, at least once, in order",
    status_code=201,
    responses=WRITE | PRIVATE | GONE,
)
async def register(here: StateDep, viewer: Viewer, request: schemas.WebhookRequest) -> schemas.NewWebhook:
    about = request.about
    if about is not None:
        about = parse_hash(about, "about") if len(about) > 42 else parse_address(about, "about")
    wanted = store.Registration(
        owner=viewer,
        url=request.url,
        contract=request.contract,
        event=request.event,
        about=about,
        final=request.final,
    )

    def make() -> dict[str, Any]:
        with here.mirror.connect() as db:
            begin = journal.end(db) if request.after is None else Offset.parse(request.after)
            journal.read(db, begin, 0)
        return store.register(here.webhooks, wanted, begin, int(here.clock()), private=here.private_webhooks)

    row = await run(here, make)
    return schemas.NewWebhook(**_webhook(row).model_dump(), secret=row["secret"])


@router.get("/webhooks", summary="Your webhooks", responses=PROBLEMS | PRIVATE)
async def webhooks(here: StateDep, viewer: Viewer) -> list[schemas.Webhook]:
    def read() -> list[schemas.Webhook]:
        with here.webhooks.connect() as db:
            return [_webhook(row) for row in store.listed(db, viewer)]

    return await run(here, read)


@router.get("/webhooks/{webhook}", summary="How far one of them has come", responses=READ | PRIVATE)
async def webhook(here: StateDep, viewer: Viewer, webhook: WebhookId) -> schemas.Webhook:
    def read() -> schemas.Webhook:
        with here.webhooks.connect() as db:
            return _webhook(store.one(db, viewer, webhook))

    return await run(here, read)


@router.delete("/webhooks/{webhook}", summary="Take one away", status_code=204, responses=READ | PRIVATE)
async def remove(here: StateDep, viewer: Viewer, webhook: WebhookId) -> Response:
    await run(here, lambda: store.remove(here.webhooks, viewer, webhook))
    return Response(status_code=204)


@router.post(
    "/webhooks/{webhook}/replay",
    summary="Deliver everything after an offset again, and wake a webhook that was paused",
    responses=WRITE | PRIVATE | GONE,
)
async def replay(here: StateDep, viewer: Viewer, webhook: WebhookId, request: schemas.ReplayRequest) -> schemas.Webhook:
    def make() -> schemas.Webhook:
        after = BEGINNING if request.after is None else Offset.parse(request.after)
        with here.mirror.connect() as db:
            journal.read(db, after, 0)
        return _webhook(store.replay(here.webhooks, viewer, webhook, after, int(here.clock())))

    return await run(here, make)


@router.get(
    "/webhooks/{webhook}/dead-letters",
    summary="Events the receiver refused, oldest first",
    responses=READ | PRIVATE,
)
async def dead_letters(here: StateDep, viewer: Viewer, webhook: WebhookId) -> list[schemas.DeadLetter]:
    def read() -> list[schemas.DeadLetter]:
        with here.webhooks.connect() as db:
            rows = store.dead_letters(db, viewer, webhook)
        return [schemas.DeadLetter(**{name: row[name] for name in schemas.DeadLetter.model_fields}) for row in rows]

    return await run(here, read)
