"""Routes of erasures: of a key's own workspace, for API keys."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from app.contract.errors import Conflict, InvalidRequest, NotFound
from app.erasure import wire
from app.erasure.plan import Planner
from app.erasure.report import report
from app.erasure.selection import Selection, Spelling
from app.erasure.service import Erasures, Unfinished, waits_text
from app.http.documents import Body, CallerParameter, answers
from app.http.services import service
from app.jobs.service import Jobs
from app.storage.rows.database import Row
from app.storage.storage import Storage

router = APIRouter(prefix="/v1/erasures", tags=["erasures"])

_FIELDS = Spelling("memory_store_ids", "metadata", "path_prefix", "contains")

JobsService = Annotated[Jobs, service(Jobs)]
StorageService = Annotated[Storage, service(Storage)]
ErasureId = Annotated[str, Path(description="ID of the erasure.", json_schema_extra={"pattern": wire.ERASURE_PATTERN})]


@router.post("", response_model=wire.Erasure | wire.ErasurePlan, responses=answers(409, 413))
async def create_erasure(
    caller: CallerParameter,
    storage: StorageService,
    jobs: JobsService,
    body: Annotated[wire.CreateErasure, Body()],
) -> wire.Erasure | wire.ErasurePlan:
    """Erase stores or memories wherever they are kept, with a signed report; or show what would go."""
    # A program that has found no store must not erase in all of them.
    for name in ("memory_store_ids", "metadata"):
        if getattr(body, name) in ([], {}):
            raise InvalidRequest(f"{name}: is empty; leave it out to look in every store")
    if len(body.memory_store_ids or ()) > wire.MOST_STORES:
        raise InvalidRequest(
            f"memory_store_ids: has {len(body.memory_store_ids or ()):,} IDs; at most {wire.MOST_STORES:,}"
        )
    if len(body.contains or "") > wire.TEXT_MAX_CHARACTERS:
        raise InvalidRequest(
            f"contains: is {len(body.contains or ''):,} characters; at most {wire.TEXT_MAX_CHARACTERS:,}"
        )
    if "\0" in (body.contains or ""):
        raise InvalidRequest("contains: has a NUL character, which no text in a store has")
    selection = Selection(
        body.memory_store_ids or (), body.metadata or {}, body.path_prefix, body.contains, spelling=_FIELDS
    )
    plan = await Planner(storage, caller.workspace_id).plan(selection)
    if body.dry_run:
        return wire.plan(plan)
    if plan.is_empty:
        raise InvalidRequest("nothing matches, so nothing was erased")
    erasures = Erasures(storage, caller.actor, jobs)
    try:
        erasure_id = await erasures.begin(plan, runs_here=False)
    except Unfinished as error:
        raise Conflict(waits_text(error.earlier, caller.workspace_id)) from None
    return await _shown(storage, jobs, await erasures.find(erasure_id))


@router.get("/{erasure_id}", response_model=wire.Erasure, responses=answers())
async def retrieve_erasure(
    caller: CallerParameter, storage: StorageService, jobs: JobsService, erasure_id: ErasureId
) -> wire.Erasure:
    """Retrieve an erasure: how far it is, its report, and what a search for leftovers found."""
    erasure = await Erasures(storage, caller.actor).find(erasure_id)
    if erasure["workspace_id"] != caller.workspace_id:
        raise NotFound(f"erasure {erasure_id!r} was not found")
    return await _shown(storage, jobs, erasure)


async def _shown(storage: Storage, jobs: Jobs, erasure: Row) -> wire.Erasure:
    made: dict[str, Any] | None = None
    if erasure["finished_at"] is not None:
        made = await report(storage.database, erasure)
    return wire.erasure(erasure, await jobs.about(erasure["id"]), made)
