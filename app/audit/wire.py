"""Shapes of the audit log on the wire. Ours: the vendor has none."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from app.contract import actors, clock
from app.http.documents import ContentDigest, Omittable, Timestamp, shape
from app.http.pages import SEQUENCE_MAX, SEQUENCE_NUMBER, CreatedRange, PageQuery
from app.storage.rows.database import Row

LINES = "application/x-ndjson"

_FILTER_MAX_CHARACTERS = 255
_PIECE_BYTES = 65_536

Action = Annotated[str, shape(pattern=r"^[a-z_]+\.[a-z_]+$")]


@with_config(
    ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "audit_entry",
                    "seq": 17,
                    "at": "2026-11-20T09:00:00.000000Z",
                    "workspace_id": "wrkspc_011ChEGEtPoE7tx6bxV1kqVs",
                    "actor": {"type": "api_actor", "api_key_id": "apikey_011ChEGEtPoE7tx6bxWQ4Kxq"},
                    "action": "store.deleted",
                    "subject": "memstore_011ChEGEtPoE7tx6byHfPSXa",
                    "detail": {},
                    "request_id": "req_011ChEGEtPoE7tx6bye3MeHW",
                    "sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
                }
            ]
        }
    )
)
class AuditEntry(TypedDict):
    """What was done, by whom and when. Every key is always there."""

    type: Literal["audit_entry"]
    seq: Annotated[int, shape(minimum=1)]
    at: Timestamp
    workspace_id: str | None
    actor: dict[str, str] | None
    action: Action
    subject: str | None
    detail: dict[str, str | int | bool | None]
    request_id: str | None
    sha256: ContentDigest


class _Filters(CreatedRange):
    after: Annotated[int, Field(ge=0, le=SEQUENCE_MAX), SEQUENCE_NUMBER] = Field(
        0, description="Only entries with a `seq` above this."
    )
    action: Omittable[str] = Field(
        None, max_length=_FILTER_MAX_CHARACTERS, description="Only this action, such as `store.deleted`."
    )
    subject: Omittable[str] = Field(
        None, max_length=_FILTER_MAX_CHARACTERS, description="Only what was done to the thing with this ID."
    )


class ListAudit(_Filters, PageQuery):
    """Query of a listing."""


class ExportAudit(_Filters):
    """Query of an export."""


def entry(row: Row) -> AuditEntry:
    """A row as the wire shows it."""
    detail: dict[str, Any] = json.loads(row["detail"])
    return {
        "type": "audit_entry",
        "seq": row["seq"],
        "at": clock.rfc3339(row["at"]),
        "workspace_id": row["workspace_id"],
        "actor": actors.wire(row["actor_type"], row["actor_id"]),
        "action": row["action"],
        "subject": row["subject"],
        "detail": detail,
        "request_id": row["request_id"],
        "sha256": bytes(row["sha256"]).hex(),
    }


def line(row: Row) -> bytes:
    """An entry as one line of JSON, with its end."""
    return orjson.dumps(entry(row), option=orjson.OPT_APPEND_NEWLINE)


async def lines(rows: AsyncIterator[Row]) -> AsyncGenerator[bytes, None]:
    """An export in pieces of some size."""
    piece = bytearray()
    async for row in rows:
        piece += line(row)
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
