"""Routes of memories."""

from typing import Annotated, Any

from fastapi import APIRouter, Response

from app.http.access import open_to_sessions
from app.http.documents import Body, CallerParameter, MemoryId, Query, RetryCount, StoreId, answers, ignoring, is_retry
from app.http.pages import Page
from app.http.replies import Reply
from app.http.services import service
from app.memories import wire
from app.memories.moves import Moves
from app.memories.service import Listing, Memories

router = APIRouter(prefix="/v1/memory_stores/{memory_store_id}/memories", tags=["memories"])

moves_router = APIRouter(prefix="/v1/memory_stores/{memory_store_id}/moves", tags=["memories"])

MemoriesService = Annotated[Memories, service(Memories)]
MovesService = Annotated[Moves, service(Moves)]

_ETAG = {
    "etag": {
        "description": "The content's SHA-256, in double quotes.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
    }
}


_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {
        "description": "The content is the one whose `etag` the request has in `If-None-Match`.",
        "headers": answers()[200]["headers"] | _ETAG,
    }
}


@router.post("", response_model=wire.Memory, responses=answers(409, 413), openapi_extra=open_to_sessions("write"))
async def create_memory(
    caller: CallerParameter,
    memories: MemoriesService,
    memory_store_id: StoreId,
    query: Annotated[wire.ViewQuery, Query()],
    body: Annotated[wire.CreateMemory, Body()],
    retry_count: RetryCount = None,
) -> wire.Memory:
    """Create a memory; never overwrites."""
    found = await memories.create(caller, memory_store_id, body.path, body.content, is_repeated=is_retry(retry_count))
    return wire.memory(found, query.view)


@router.get(
    "",
    response_model=Page[wire.Memory | wire.MemoryPrefix],
    responses=answers(),
    openapi_extra=ignoring("order", "order_by") | open_to_sessions("read"),
)
async def list_memories(
    caller: CallerParameter,
    memories: MemoriesService,
    memory_store_id: StoreId,
    query: Annotated[wire.ListMemories, Query()],
) -> Page[wire.Memory | wire.MemoryPrefix]:
    """List memories in byte order of their paths."""
    listing = Listing(query.path_prefix, query.depth, query.view == "full", query.size)
    entries, next_page = await memories.list_page(caller, memory_store_id, listing, query.page)
    return {"data": wire.items(entries, query.view), "next_page": next_page}


@router.get(
    "/{memory_id}",
    response_model=wire.Memory,
    responses=answers(headers=_ETAG) | _NOT_MODIFIED,
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_memory(
    caller: CallerParameter,
    memories: MemoriesService,
    memory_store_id: StoreId,
    memory_id: MemoryId,
    query: Annotated[wire.FullViewQuery, Query()],
) -> Reply:
    """Retrieve a memory."""
    with_content = query.view == "full"
    found = await memories.retrieve(caller, memory_store_id, memory_id, with_content=with_content)
    return Reply(wire.memory(found, query.view), wire.etag(found))


@router.head(
    "/{memory_id}",
    response_model=None,
    response_class=Response,
    responses=answers(headers=_ETAG, with_body=False) | _NOT_MODIFIED,
    openapi_extra=open_to_sessions("read"),
)
async def head_memory(
    caller: CallerParameter,
    memories: MemoriesService,
    memory_store_id: StoreId,
    memory_id: MemoryId,
    query: Annotated[wire.FullViewQuery, Query()],
) -> Reply:
    """The headers of a retrieve: the `etag` tells whether the content changed."""
    found = await memories.retrieve(caller, memory_store_id, memory_id, with_content=query.view == "full")
    return Reply(wire.memory(found, query.view), wire.etag(found))


@router.post(
    "/{memory_id}",
    response_model=wire.Memory,
    responses=answers(409, 413),
    openapi_extra=open_to_sessions("write"),
)
async def update_memory(
    caller: CallerParameter,
    memories: MemoriesService,
    memory_store_id: StoreId,
    memory_id: MemoryId,
    query: Annotated[wire.ViewQuery, Query()],
    body: Annotated[wire.UpdateMemory, Body()],
) -> wire.Memory:
    """Change a memory's content, its path, or both, as one version; what changes nothing makes none."""
    precondition = body.precondition
    found = await memories.update(
        caller,
        memory_store_id,
        memory_id,
        text=body.content,
        path=body.path,
        expected_sha256=precondition.content_sha256 if precondition else None,
        with_content=query.view == "full",
    )
    return wire.memory(found, query.view)


@router.delete(
    "/{memory_id}",
    response_model=wire.DeletedMemory,
    responses=answers(409),
    openapi_extra=open_to_sessions("write"),
)
async def delete_memory(
    caller: CallerParameter,
    memories: MemoriesService,
    memory_store_id: StoreId,
    memory_id: MemoryId,
    query: Annotated[wire.DeleteQuery, Query()],
    retry_count: RetryCount = None,
) -> wire.DeletedMemory:
    """Delete a memory; its versions stay until they are redacted or expire."""
    await memories.delete(
        caller,
        memory_store_id,
        memory_id,
        expected_sha256=query.expected_content_sha256,
        is_repeated=is_retry(retry_count),
    )
    return {"id": memory_id, "type": "memory_deleted"}


@moves_router.post(
    "", response_model=wire.MemoryMove, responses=answers(409, 413), openapi_extra=open_to_sessions("write")
)
async def move_memories(
    caller: CallerParameter,
    moves: MovesService,
    memory_store_id: StoreId,
    body: Annotated[wire.MoveMemories, Body()],
) -> wire.MemoryMove:
    """Move a directory: each memory below it keeps its ID and gets one version, all in one transaction or none."""
    moved = await moves.move(caller, memory_store_id, body.source, body.target)
    return {"type": "memory_move", "data": [wire.memory(found, "basic") for found in moved]}
