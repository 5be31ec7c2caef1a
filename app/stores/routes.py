"""Routes of memory stores."""

from typing import Annotated

from fastapi import APIRouter

from app.contract import clock
from app.http.access import open_to_sessions
from app.http.documents import Body, CallerParameter, NoBody, Omittable, Query, StoreId, answers
from app.http.pages import Page
from app.http.services import service
from app.stores import wire
from app.stores.holds import Holds
from app.stores.service import StoreFilters, Stores

router = APIRouter(prefix="/v1/memory_stores", tags=["memory stores"])

StoresService = Annotated[Stores, service(Stores)]
HoldsService = Annotated[Holds, service(Holds)]


@router.post("", response_model=wire.MemoryStore, responses=answers(413))
async def create_memory_store(
    caller: CallerParameter, stores: StoresService, body: Annotated[wire.CreateStore, Body()]
) -> wire.MemoryStore:
    """Create a memory store."""
    return wire.store(await stores.create(caller, body.name, body.description, body.metadata))


@router.get("", response_model=Page[wire.MemoryStore], responses=answers())
async def list_memory_stores(
    caller: CallerParameter, stores: StoresService, query: Annotated[wire.ListStores, Query()]
) -> Page[wire.MemoryStore]:
    """List memory stores, newest first."""
    filters = StoreFilters(
        query.include_archived,
        clock.microseconds_or_none(query.created_at_gte),
        clock.microseconds_or_none(query.created_at_lte),
    )
    rows, next_page = await stores.list_page(caller, filters, query.limit, query.page)
    return {"data": [wire.store(row) for row in rows], "next_page": next_page}


@router.get(
    "/{memory_store_id}",
    response_model=wire.MemoryStore,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_memory_store(
    caller: CallerParameter, stores: StoresService, memory_store_id: StoreId
) -> wire.MemoryStore:
    """Retrieve a memory store, archived or not."""
    return wire.store(await stores.retrieve(caller, memory_store_id))


@router.post("/{memory_store_id}", response_model=wire.MemoryStore, responses=answers(413))
async def update_memory_store(
    caller: CallerParameter,
    stores: StoresService,
    memory_store_id: StoreId,
    body: Annotated[wire.UpdateStore, Body()],
) -> wire.MemoryStore:
    """Change a memory store's name, description or metadata."""
    is_cleared = body.description is None and "description" in body.model_fields_set
    description = "" if is_cleared else body.description
    row = await stores.update(caller, memory_store_id, body.name, description, body.metadata)
    return wire.store(row)


@router.delete("/{memory_store_id}", response_model=wire.DeletedMemoryStore, responses=answers())
async def delete_memory_store(
    caller: CallerParameter, stores: StoresService, memory_store_id: StoreId
) -> wire.DeletedMemoryStore:
    """Delete a memory store permanently, with its memories and their versions."""
    await stores.delete(caller, memory_store_id)
    return {"id": memory_store_id, "type": "memory_store_deleted"}


@router.post("/{memory_store_id}/archive", response_model=wire.MemoryStore, responses=answers(413))
async def archive_memory_store(
    caller: CallerParameter,
    stores: StoresService,
    memory_store_id: StoreId,
    body: NoBody = None,
) -> wire.MemoryStore:
    """Archive a memory store permanently: its memories can then be read and deleted, not created or updated."""
    return wire.store(await stores.archive(caller, memory_store_id))


@router.post("/{memory_store_id}/hold", response_model=wire.MemoryStoreHold, responses=answers(413))
async def place_memory_store_hold(
    caller: CallerParameter,
    holds: HoldsService,
    memory_store_id: StoreId,
    body: Annotated[Omittable[wire.PlaceHold], Body()] = None,
) -> wire.MemoryStoreHold:
    """Put a memory store under legal hold: until it is released, nothing of it can be deleted, redacted or erased."""
    return wire.hold(await holds.place(caller, memory_store_id, body.reason if body else None))


@router.get("/{memory_store_id}/hold", response_model=wire.MemoryStoreHold, responses=answers())
async def retrieve_memory_store_hold(
    caller: CallerParameter, holds: HoldsService, memory_store_id: StoreId
) -> wire.MemoryStoreHold:
    """Retrieve a memory store's legal hold; 404 if it has none."""
    return wire.hold(await holds.retrieve(caller, memory_store_id))


@router.delete("/{memory_store_id}/hold", response_model=wire.ReleasedHold, responses=answers())
async def release_memory_store_hold(
    caller: CallerParameter, holds: HoldsService, memory_store_id: StoreId
) -> wire.ReleasedHold:
    """Release a memory store from its legal hold; 404 if it has none."""
    await holds.release(caller, memory_store_id)
    return {"type": "memory_store_hold_released", "memory_store_id": memory_store_id}
