"""Routes that take stores out and in."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter

from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.http.documents import CallerParameter, Query, StoreId, answers
from app.http.forms import Form, read_form
from app.http.replies import Stream
from app.http.services import service
from app.http.uploads import UploadParameter
from app.transfer import wire
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.spool import Spool
from app.transfer.archives.writers import MEDIA_TYPES
from app.transfer.exporting import Exports
from app.transfer.importing import Imports
from app.transfer.plan import Plan
from app.transfer.sources import plan_of

router = APIRouter(prefix="/v1/memory_stores", tags=["in and out"])

ExportsService = Annotated[Exports, service(Exports)]
ImportsService = Annotated[Imports, service(Imports)]

_UNPACKED = 16
"""An archive that is sent may unpack to so many times the largest archive."""


def _archives() -> dict[int | str, dict[str, Any]]:
    described = answers()
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}
    described[200] = described[200] | {"content": content}
    return described


@router.get("/{memory_store_id}/export", response_model=None, responses=_archives())
async def export_memory_store(
    caller: CallerParameter,
    exports: ExportsService,
    memory_store_id: StoreId,
    query: Annotated[wire.ExportQuery, Query()],
) -> Stream:
    """Take out a memory store, as it is at one moment, as an archive with a manifest of digests."""
    exporter = await exports.begin(caller, memory_store_id, history=query.history, form=query.format)
    return Stream(exporter.pieces(query.format), MEDIA_TYPES[query.format])


@router.post(
    "/import", response_model=wire.ImportedStore, responses=answers(413), openapi_extra={"requestBody": wire.FORM}
)
async def import_memory_store(
    caller: CallerParameter, imports: ImportsService, upload: UploadParameter
) -> wire.ImportedStore:
    """Make a memory store from an export, or from any archive of texts: all of it, or nothing.

    Files that other tools keep beside their texts are skipped; with a file that is refused, nothing is imported
    unless `partial` is true.
    """
    with await read_form(upload, imports.max_upload, file=wire.FILE, fields=wire.FIELDS) as form, Spool() as spool:
        async with imports.reading:
            plan = await asyncio.to_thread(_read, form, spool, imports)
            return await _run(caller, imports, form, plan, spool)


def _read(form: Form, spool: Spool, imports: Imports) -> Plan:
    bounds = imports.bounds(imports.max_upload * _UNPACKED)
    entries = archive_entries(form.file, bounds, name_encoding=form.fields.get("name_encoding"))  # type: ignore[arg-type]
    return plan_of(entries, spool, default_name=form.file_name or "Imported", bounds=bounds)


async def _run(caller: Caller, imports: Imports, form: Form, plan: Plan, spool: Spool) -> wire.ImportedStore:
    into, name = form.fields.get("into"), form.fields.get("name")
    if into and name:
        raise InvalidRequest("name: goes with a new store; leave out 'into' or 'name'")
    plan.name = name or plan.name
    done = await imports.run(caller, plan, spool, into=into or None, partial=form.flag("partial"))
    result: wire.ImportedStore = done.wire()  # type: ignore[assignment]
    return result
