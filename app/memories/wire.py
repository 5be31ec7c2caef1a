"""Shapes of memories on the wire (contract, 2)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.contract import clock
from app.contract.limits import CONTENT_MAX_BYTES, PATH_MAX_BYTES
from app.http.pages import QueryModel, View, ViewedPageQuery, WholeNumber
from app.memories.service import Directory, Found


class Memory(TypedDict):
    """A text at a path. `content` is null with `view=basic`; size and digest are of its UTF-8 bytes."""

    id: str
    type: Literal["memory"]
    memory_store_id: str
    memory_version_id: str
    path: str
    content: str | None
    content_size_bytes: int
    content_sha256: str
    created_at: str
    updated_at: str


class MemoryPrefix(TypedDict):
    """A directory in a listing with `depth=1`; its `path` ends with `/` and can be listed as `path_prefix`."""

    type: Literal["memory_prefix"]
    path: str


class DeletedMemory(TypedDict):
    """What is left of a deleted memory; its versions stay."""

    id: str
    type: Literal["memory_deleted"]


_Path = Annotated[
    str,
    Field(
        description="Starts with `/`; 1 to 20 segments, none empty, `.` or `..`; no control or format characters; "
        "Unicode NFC; at most 1,024 bytes of UTF-8.",
        json_schema_extra={"minLength": 2, "maxLength": PATH_MAX_BYTES},
    ),
]
_Text = Annotated[
    str,
    Field(
        description="Any UTF-8 text of at most 102,400 bytes.",
        json_schema_extra={"maxLength": CONTENT_MAX_BYTES},
    ),
]


class CreateMemory(BaseModel):
    """Body of a create."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: _Path
    content: _Text


class ContentPrecondition(BaseModel):
    """The update applies only if the memory's current content has this digest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["content_sha256"]
    content_sha256: str = Field(
        description="64 lower-case hexadecimal characters.", json_schema_extra={"pattern": "^[0-9a-f]{64}$"}
    )


class UpdateMemory(BaseModel):
    """Body of an update: at least one of `content` and `path`; null is as absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    content: _Text | None = None
    path: _Path | None = None
    precondition: ContentPrecondition | None = None


class ViewQuery(QueryModel):
    """Whether a written memory comes back with its content."""

    view: View = Field("basic", description="`full` adds the content.")


class FullViewQuery(QueryModel):
    """Whether a memory or version is read with its content."""

    view: View = Field("full", description="`basic` leaves the content out.")


class DeleteQuery(QueryModel):
    """Condition of a deletion."""

    expected_content_sha256: str | None = Field(
        None,
        description="Delete only if the current content has this digest (64 lower-case hexadecimal characters).",
        json_schema_extra={"pattern": "^[0-9a-f]{64}$"},
    )


class ListMemories(ViewedPageQuery):
    """Query of a listing."""

    path_prefix: str = Field("/", description="Only memories below this directory; starts and ends with `/`.")
    depth: Annotated[WholeNumber, Field(ge=0, le=1)] = Field(
        0, description="0 lists everything below the prefix; 1 its direct children, deeper ones as prefixes."
    )


def memory(found: Found, view: View) -> Memory:
    """A memory as the wire shows it; with `basic`, without its content even where that is at hand."""
    row, content = found.row, found.content if view == "full" else None
    return {
        "id": row["id"],
        "type": "memory",
        "memory_store_id": row["store_id"],
        "memory_version_id": row["version_id"],
        "path": row["path"],
        "content": None if content is None else content.decode(),
        "content_size_bytes": row["content_size"],
        "content_sha256": row["content_sha256"].hex(),
        "created_at": clock.rfc3339(row["created_at"]),
        "updated_at": clock.rfc3339(row["updated_at"]),
    }


def item(entry: Found | Directory, view: View) -> Memory | MemoryPrefix:
    """One item of a listing."""
    if isinstance(entry, Directory):
        return {"type": "memory_prefix", "path": entry.path}
    return memory(entry, view)


def etag(found: Found) -> dict[str, str]:
    """The entity tag of one memory: the digest of its content."""
    digest: Any = found.row["content_sha256"]
    return {"etag": f'"{digest.hex()}"'}
