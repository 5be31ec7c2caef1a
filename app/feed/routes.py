"""Routes of the change feed and of snapshots."""

from typing import Annotated, Any

from fastapi import APIRouter, Header

from app.feed import wire
from app.feed.service import Feed
from app.feed.snapshots import Snapshots
from app.http.access import open_to_sessions
from app.http.documents import CallerParameter, Omittable, Query, StoreId, answers
from app.http.headers import weights
from app.http.replies import Stream
from app.http.services import service

router = APIRouter(prefix="/v1/memory_stores/{memory_store_id}", tags=["changes"])

_JSON = "application/json"

FeedService = Annotated[Feed, service(Feed)]
SnapshotsService = Annotated[Snapshots, service(Snapshots)]


def _answers(media_type: str, what: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that also, or only, answers with a stream of this type."""
    described = answers()
    described[200] = described[200] | {"content": {media_type: {"schema": {"type": "string", "description": what}}}}
    return described


@router.get(
    "/changes",
    response_model=wire.ChangePage,
    responses=_answers(
        wire.EVENT_STREAM,
        "Server-sent events that go on: `change` with its `seq` as id and a `MemoryChange` as data; `truncated` with "
        "`last_seq`; `gone` at the end. Comments are heartbeats.",
    ),
    openapi_extra=open_to_sessions("read"),
)
async def list_changes(
    caller: CallerParameter,
    feed: FeedService,
    memory_store_id: StoreId,
    query: Annotated[wire.ChangesQuery, Query()],
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    last_event_id: Annotated[
        Omittable[str],
        Header(
            alias="last-event-id",
            description="In a stream of events: begin after this number; it wins over `after`. Ignored for a page.",
        ),
    ] = None,
) -> wire.ChangePage | Stream:
    """List what changed in a memory store, in the order of the commits; with `Accept: text/event-stream`, go on."""
    wanted = weights(accept or "")
    stream = wanted.get(wire.EVENT_STREAM, 0.0)
    if not stream or stream < wanted.get(_JSON, 0.0):
        return wire.page(await feed.page(caller, memory_store_id, query.after, query.limit))
    after = query.after if last_event_id is None else wire.event_id(last_event_id)
    items = await feed.follow(caller, memory_store_id, after)
    return Stream(wire.events(memory_store_id, items), wire.EVENT_STREAM, farewell=wire.gone_event(memory_store_id))


@router.get(
    "/snapshot",
    response_model=None,
    responses=_answers(
        wire.LINES,
        "A line of JSON for the snapshot (`type`, `memory_store_id`, `seq`, `count`, `archived_at`), then one for each "
        "memory in byte order of their paths.",
    ),
    openapi_extra=open_to_sessions("read"),
)
async def take_snapshot(
    caller: CallerParameter,
    snapshots: SnapshotsService,
    memory_store_id: StoreId,
    query: Annotated[wire.SnapshotQuery, Query()],
) -> Stream:
    """Read all memories as they are at one moment; the changes after its `seq` tell what happens next."""
    taken = await snapshots.take(caller, memory_store_id, with_content=query.view == "full")
    return Stream(wire.snapshot_lines(memory_store_id, taken, query.view), wire.LINES)
