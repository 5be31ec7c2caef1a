"""Shapes of memories on the wire (contract, 2)."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from app.contract import clock
from app.contract.limits import MOVE_MAX_MEMORIES, PATH_MAX_BYTES
from app.http.documents import (
    DIRECTORY_PATTERN,
    PREFIX_PATTERN,
    ContentDigest,
    ContentSize,
    ContentText,
    MemoryIdText,
    MemoryPath,
    Omittable,
    StoreIdText,
    Timestamp,
    VersionIdText,
    shape,
)
from app.http.pages import WHOLE_NUMBER, QueryModel, View, ViewedPageQuery
from app.memories.service import Directory, Found

_EXAMPLE_TEXT = "# Preferences\n\n- Answers in metric units.\n- Writes to the customer in Portuguese.\n"
_EXAMPLE_SHA256 = hashlib.sha256(_EXAMPLE_TEXT.encode()).hexdigest()
_EXAMPLE: JsonDict = {
    "id": "mem_011ChEGEtPoE7tx6byHfwJet",
    "type": "memory",
    "memory_store_id": "memstore_011ChEGEtPoE7tx6byHfPSXa",
    "memory_version_id": "memver_011ChEGEtPoE7tx6byTqJqXn",
    "path": "/customers/lisboa.md",
    "content": _EXAMPLE_TEXT,
    "content_size_bytes": len(_EXAMPLE_TEXT.encode()),
    "content_sha256": _EXAMPLE_SHA256,
    "created_at": "2026-11-20T09:00:00.000000Z",
    "updated_at": "2026-11-20T09:30:00.000000Z",
}


@with_config(ConfigDict(json_schema_extra={"examples": [_EXAMPLE]}))
class Memory(TypedDict):
    """A text at a path. `content` is null with `view=basic`; size and digest are of its UTF-8 bytes."""

    id: MemoryIdText
    type: Literal["memory"]
    memory_store_id: StoreIdText
    memory_version_id: VersionIdText
    path: MemoryPath
    content: ContentText | None
    content_size_bytes: ContentSize
    content_sha256: ContentDigest
    created_at: Timestamp
    updated_at: Timestamp


class MemoryPrefix(TypedDict):
    """A directory in a listing with `depth=1`; its `path` ends with `/` and can be listed as `path_prefix`."""

    type: Literal["memory_prefix"]
    path: Annotated[str, shape(pattern=DIRECTORY_PATTERN, examples=["/customers/"])]


class DeletedMemory(TypedDict):
    """What is left of a deleted memory; its versions stay."""

    id: MemoryIdText
    type: Literal["memory_deleted"]


class CreateMemory(BaseModel):
    """Body of a create."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: MemoryPath = Field(examples=["/customers/lisboa.md"])
    content: ContentText = Field(examples=[_EXAMPLE_TEXT])


class ContentPrecondition(BaseModel):
    """The update applies only if the memory's current content has this digest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["content_sha256"]
    content_sha256: ContentDigest = Field(
        description="64 lower-case hexadecimal characters.", examples=[_EXAMPLE_SHA256]
    )


class UpdateMemory(BaseModel):
    """Body of an update: at least one of `content` and `path`; null is as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "if": {"properties": {"content": {"type": "null"}}},
            "then": {"required": ["path"], "properties": {"path": {"type": "string"}}},
        },
    )

    content: ContentText | None = Field(None, examples=["# Preferences\n"])
    path: MemoryPath | None = Field(None, examples=["/customers/porto.md"])
    precondition: ContentPrecondition | None = None


class MoveMemories(BaseModel):
    """Body of a move: two directories, `/` at both ends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(
        alias="from",
        description="Everything below it is moved.",
        json_schema_extra={"maxLength": PATH_MAX_BYTES + 1, "pattern": DIRECTORY_PATTERN},
        examples=["/customers/"],
    )
    target: str = Field(
        alias="to",
        description="Where it goes; not inside `from`.",
        json_schema_extra={"maxLength": PATH_MAX_BYTES + 1, "pattern": DIRECTORY_PATTERN},
        examples=["/archive/customers/"],
    )


class MemoryMove(TypedDict):
    """The moved memories, without content, in byte order of their new paths."""

    type: Literal["memory_move"]
    data: Annotated[list[Memory], shape(maxItems=MOVE_MAX_MEMORIES)]


class ViewQuery(QueryModel):
    """Whether a written memory comes back with its content."""

    view: View = Field("basic", description="`full` adds the content.")


class FullViewQuery(QueryModel):
    """Whether a memory or version is read with its content."""

    view: View = Field("full", description="`basic` leaves the content out.")


class DeleteQuery(QueryModel):
    """Condition of a deletion."""

    expected_content_sha256: Omittable[ContentDigest] = Field(
        None,
        description="Delete only if the current content has this digest (64 lower-case hexadecimal characters).",
    )


class ListMemories(ViewedPageQuery):
    """Query of a listing."""

    path_prefix: str = Field(
        "/",
        description="Only memories below this directory; starts and ends with `/`, and follows the rules of paths; "
        "empty for the whole store.",
        json_schema_extra={"maxLength": PATH_MAX_BYTES + 1, "pattern": PREFIX_PATTERN},
    )
    depth: Annotated[int, Field(ge=0, le=1), WHOLE_NUMBER] = Field(
        0, description="0 lists everything below the prefix; 1 its direct children, deeper ones as prefixes."
    )


def memory(found: Found, view: View) -> Memory:
    """A memory as the wire shows it; with `basic`, without its content even where that is at hand."""
    row = found.row
    return _memory(
        row["id"], row["store_id"], row["version_id"], row["path"], row["content_sha256"], row["content_size"],
        row["created_at"], row["updated_at"], found.content, view,
    )  # fmt: skip


def items(entries: Sequence[Found | Directory], view: View) -> list[Memory | MemoryPrefix]:
    """The items of a listing: as `memory` shows them, at four fifths of its price.

    A listing's row has the columns in the order of `app.memories.queries.COLUMNS`, and is taken apart at once: SQLite's
    rows compare a name with that of each column.
    """
    return [
        {"type": "memory_prefix", "path": entry.path}
        if isinstance(entry, Directory)
        else _memory(*entry.row[:8], entry.content, view)  # type: ignore[call-arg, index]
        for entry in entries
    ]


def _memory(
    memory_id: str, store_id: str, version_id: str, path: str, sha256: bytes, size: int, created_at: int,
    updated_at: int, content: bytes | None, view: View,
) -> Memory:  # fmt: skip
    created = clock.rfc3339(created_at)
    return {
        "id": memory_id,
        "type": "memory",
        "memory_store_id": store_id,
        "memory_version_id": version_id,
        "path": path,
        "content": content.decode() if view == "full" and content is not None else None,
        "content_size_bytes": size,
        "content_sha256": sha256.hex(),
        "created_at": created,
        "updated_at": created if updated_at == created_at else clock.rfc3339(updated_at),
    }


def etag(found: Found) -> dict[str, str]:
    """The entity tag of one memory: the digest of its content."""
    digest: Any = found.row["content_sha256"]
    return {"etag": f'"{digest.hex()}"'}
