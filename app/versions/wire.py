"""Shapes of memory versions on the wire (contract, 3)."""

from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from app.contract import actors, clock
from app.http.documents import (
    ContentDigest,
    ContentSize,
    ContentText,
    MemoryIdText,
    MemoryPath,
    Omittable,
    StoreIdText,
    Timestamp,
    VersionIdText,
)
from app.http.pages import CreatedRange, ViewedPageQuery
from app.versions.operations import OPERATION_NAMES, Operation
from app.versions.service import FoundVersion


class SessionActor(TypedDict):
    """An agent, through a session's mount or token."""

    type: Literal["session_actor"]
    session_id: str


class ApiActor(TypedDict):
    """A program with an API key."""

    type: Literal["api_actor"]
    api_key_id: str


class UserActor(TypedDict):
    """A person."""

    type: Literal["user_actor"]
    user_id: str


class ServiceAccountActor(TypedDict):
    """A service account."""

    type: Literal["service_account_actor"]
    service_account_id: str


Actor = SessionActor | ApiActor | UserActor | ServiceAccountActor


class MemoryVersion(TypedDict):
    """One change of a memory, immutable but for redaction.

    `content`, `content_sha256` and `content_size_bytes` are null for a deletion and after redaction; `content` also
    with `view=basic`; `path` only after redaction.
    """

    id: VersionIdText
    type: Literal["memory_version"]
    memory_store_id: StoreIdText
    memory_id: MemoryIdText
    operation: Operation
    path: MemoryPath | None
    content: ContentText | None
    content_size_bytes: ContentSize | None
    content_sha256: ContentDigest | None
    created_at: Timestamp
    created_by: Actor | None
    redacted_at: Timestamp | None
    redacted_by: Actor | None


class ListVersions(ViewedPageQuery, CreatedRange):
    """Query of a listing; filters are combined with AND."""

    memory_id: Omittable[str] = Field(None, description="Only versions of this memory, deleted or not.")
    operation: Omittable[Operation] = Field(None, description="Only this kind of change.")
    session_id: Omittable[str] = Field(None, description="Only versions written by this session.")
    api_key_id: Omittable[str] = Field(None, description="Only versions written with this API key.")
    service_account_id: Omittable[str] = Field(None, description="Only versions written by this service account.")


def version(found: FoundVersion) -> MemoryVersion:
    """A version as the wire shows it."""
    row = found.row
    sha256 = row["content_sha256"]
    return {
        "id": row["id"],
        "type": "memory_version",
        "memory_store_id": row["store_id"],
        "memory_id": row["memory_id"],
        "operation": OPERATION_NAMES[row["operation"]],
        "path": row["path"],
        "content": None if found.content is None else found.content.decode(),
        "content_size_bytes": row["content_size"],
        "content_sha256": None if sha256 is None else sha256.hex(),
        "created_at": clock.rfc3339(row["created_at"]),
        "created_by": actors.wire(row["actor_type"], row["actor_id"]),  # type: ignore[typeddict-item]
        "redacted_at": clock.rfc3339_or_none(row["redacted_at"]),
        "redacted_by": actors.wire(row["redacted_by_type"], row["redacted_by_id"]),  # type: ignore[typeddict-item]
    }
