"""Routes of the audit log: its own workspace's part, for API keys."""

from typing import Annotated, Any

from fastapi import APIRouter

from app.audit import wire
from app.audit.service import AuditFilters, AuditLog
from app.contract import clock
from app.contract.actors import Caller
from app.http.documents import CallerParameter, Query, answers
from app.http.pages import Page
from app.http.replies import Stream
from app.http.services import service

router = APIRouter(prefix="/v1/audit", tags=["audit log"])

AuditService = Annotated[AuditLog, service(AuditLog)]


def _lines(what: str) -> dict[int | str, dict[str, Any]]:
    described = answers()
    described[200] = described[200] | {"content": {wire.LINES: {"schema": {"type": "string", "description": what}}}}
    return described


@router.get("", response_model=Page[wire.AuditEntry], responses=answers())
async def list_audit_entries(
    caller: CallerParameter, audit: AuditService, query: Annotated[wire.ListAudit, Query()]
) -> Page[wire.AuditEntry]:
    """List what was done in the workspace, oldest first."""
    rows, next_page = await audit.list_page(_filters(caller, query), query.limit, after=query.after, page=query.page)
    return {"data": [wire.entry(row) for row in rows], "next_page": next_page}


@router.get("/export", response_model=None, responses=_lines("A line of JSON for each entry, oldest first."))
async def export_audit_log(
    caller: CallerParameter, audit: AuditService, query: Annotated[wire.ExportAudit, Query()]
) -> Stream:
    """Read all entries of the workspace that are there now, as lines of JSON."""
    rows = await audit.export(_filters(caller, query), after=query.after)
    return Stream(wire.lines(rows), wire.LINES)


def _filters(caller: Caller, query: wire.ListAudit | wire.ExportAudit) -> AuditFilters:
    return AuditFilters(
        caller.workspace_id,
        query.action,
        query.subject,
        clock.microseconds_or_none(query.created_at_gte),
        clock.microseconds_or_none(query.created_at_lte),
    )
