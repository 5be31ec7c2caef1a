"""Routes of the history: comparing, restoring, past states, rolling back, blame. All are ours."""

from typing import Annotated

from fastapi import APIRouter

from app.history import wire
from app.history.as_of import AsOf
from app.history.blame import Blame
from app.history.comparing import Comparing
from app.history.restoring import Restoring
from app.history.rollback import Rollback
from app.http.access import open_to_sessions
from app.http.documents import Body, CallerParameter, MemoryId, Omittable, Query, StoreId, VersionId, answers
from app.http.services import service
from app.memories import wire as memory_wire
from app.versions import wire as version_wire

router = APIRouter(prefix="/v1/memory_stores/{memory_store_id}", tags=["history"])

ComparingService = Annotated[Comparing, service(Comparing)]
RestoringService = Annotated[Restoring, service(Restoring)]
AsOfService = Annotated[AsOf, service(AsOf)]
RollbackService = Annotated[Rollback, service(Rollback)]
BlameService = Annotated[Blame, service(Blame)]


@router.get(
    "/comparisons",
    response_model=wire.MemoryVersionComparison,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def compare_memory_versions(
    caller: CallerParameter,
    comparing: ComparingService,
    memory_store_id: StoreId,
    query: Annotated[wire.Comparing, Query()],
) -> wire.MemoryVersionComparison:
    """Compare two memory versions by lines; without `from`, a version with the one before it."""
    return wire.comparison(await comparing.compare(caller, memory_store_id, query.to_id, query.from_id))


@router.post(
    "/memory_versions/{memory_version_id}/restore",
    response_model=memory_wire.Memory,
    responses=answers(409, 413),
    openapi_extra=open_to_sessions("write"),
)
async def restore_memory_version(
    caller: CallerParameter,
    restoring: RestoringService,
    memory_store_id: StoreId,
    memory_version_id: VersionId,
    query: Annotated[memory_wire.ViewQuery, Query()],
    body: Annotated[Omittable[wire.Restore], Body()] = None,
) -> memory_wire.Memory:
    """Give a memory the content and path of one of its versions, as a new version; a deleted memory comes back."""
    precondition = body.precondition if body else None
    found = await restoring.restore(
        caller,
        memory_store_id,
        memory_version_id,
        path=body.path if body else None,
        expected_sha256=precondition.content_sha256 if precondition else None,
        with_content=query.view == "full",
    )
    return memory_wire.memory(found, query.view)


@router.get(
    "/as_of/memories",
    response_model=wire.StatePage,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def list_memories_as_of(
    caller: CallerParameter,
    as_of: AsOfService,
    memory_store_id: StoreId,
    query: Annotated[wire.ListAsOf, Query()],
) -> wire.StatePage:
    """List the versions that were in force at a time or after a change, in byte order of their paths."""
    found = await as_of.list_page(
        caller,
        memory_store_id,
        query.point,
        query.path_prefix,
        with_content=query.view == "full",
        limit=query.size,
        page=query.page,
    )
    return wire.state_page(found)


@router.get(
    "/as_of/memories/{memory_id}",
    response_model=version_wire.MemoryVersion,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_memory_as_of(
    caller: CallerParameter,
    as_of: AsOfService,
    memory_store_id: StoreId,
    memory_id: MemoryId,
    query: Annotated[wire.RetrieveAsOf, Query()],
) -> version_wire.MemoryVersion:
    """Retrieve the version of a memory that was in force at a time or after a change."""
    found = await as_of.retrieve(caller, memory_store_id, memory_id, query.point, with_content=query.view == "full")
    return version_wire.version(found)


@router.post("/rollback", response_model=wire.MemoryStoreRollback, responses=answers(409, 413))
async def roll_back_memory_store(
    caller: CallerParameter,
    rollback: RollbackService,
    memory_store_id: StoreId,
    body: Annotated[wire.RollBack, Body()],
) -> wire.MemoryStoreRollback:
    """Roll a whole store back to a time or a change, in one transaction; each memory that changes gets one version."""
    done = await rollback.roll_back(
        caller, memory_store_id, body.point, skip_redacted=body.skip_redacted, dry_run=body.dry_run
    )
    return wire.rollback(memory_store_id, done)


@router.get(
    "/memories/{memory_id}/blame",
    response_model=wire.MemoryBlame,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def blame_memory(
    caller: CallerParameter, blame: BlameService, memory_store_id: StoreId, memory_id: MemoryId
) -> wire.MemoryBlame:
    """Tell which version brought each line of a memory; of a deleted one, of what it was last."""
    return wire.blame(await blame.blame(caller, memory_store_id, memory_id))
