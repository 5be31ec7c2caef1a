"""Routes of memory versions."""

from typing import Annotated

from fastapi import APIRouter

from app.contract import clock
from app.http.access import open_to_sessions
from app.http.documents import CallerParameter, NoBody, Query, StoreId, VersionId, answers
from app.http.pages import Page
from app.http.services import service
from app.memories.wire import FullViewQuery
from app.versions import wire
from app.versions.operations import OPERATION_CODES
from app.versions.service import FoundVersion, VersionFilters, Versions

router = APIRouter(prefix="/v1/memory_stores/{memory_store_id}/memory_versions", tags=["memory versions"])

VersionsService = Annotated[Versions, service(Versions)]


@router.get(
    "",
    response_model=Page[wire.MemoryVersion],
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def list_memory_versions(
    caller: CallerParameter,
    versions: VersionsService,
    memory_store_id: StoreId,
    query: Annotated[wire.ListVersions, Query()],
) -> Page[wire.MemoryVersion]:
    """List memory versions, newest first."""
    filters = VersionFilters(
        memory_id=query.memory_id,
        operation=OPERATION_CODES[query.operation] if query.operation else None,
        session_id=query.session_id,
        api_key_id=query.api_key_id,
        service_account_id=query.service_account_id,
        created_from=clock.microseconds_or_none(query.created_at_gte),
        created_to=clock.microseconds_or_none(query.created_at_lte),
    )
    found, next_page = await versions.list_page(
        caller,
        memory_store_id,
        filters,
        with_content=query.view == "full",
        limit=query.size,
        page=query.page,
    )
    return {"data": [wire.version(entry) for entry in found], "next_page": next_page}


@router.get(
    "/{memory_version_id}",
    response_model=wire.MemoryVersion,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_memory_version(
    caller: CallerParameter,
    versions: VersionsService,
    memory_store_id: StoreId,
    memory_version_id: VersionId,
    query: Annotated[FullViewQuery, Query()],
) -> wire.MemoryVersion:
    """Retrieve a memory version; a redacted one has nulls."""
    found = await versions.retrieve(caller, memory_store_id, memory_version_id, with_content=query.view == "full")
    return wire.version(found)


@router.post("/{memory_version_id}/redact", response_model=wire.MemoryVersion, responses=answers(413))
async def redact_memory_version(
    caller: CallerParameter,
    versions: VersionsService,
    memory_store_id: StoreId,
    memory_version_id: VersionId,
    body: NoBody = None,
) -> wire.MemoryVersion:
    """Erase a version's content, path, size and digest permanently."""
    return wire.version(FoundVersion(await versions.redact(caller, memory_store_id, memory_version_id), None))
