"""The one door for what another server answers: JSON in, checked values out, or a refusal in one sentence.

Whatever is not asked for is left out here. The same shapes are kept in a pull's work directory and read back through
the same door.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.contract.errors import Unavailable
from app.contract.limits import CONTENT_MAX_BYTES
from app.transfer.archives.manifest import Digest, Path, Size, Time, why

_WHY_CHARACTERS = 200

Id = Annotated[str, Field(min_length=1, max_length=255)]
Text = Annotated[str, Field(max_length=4096)]
Author = Annotated[dict[Annotated[str, Field(max_length=64)], Text | None], Field(max_length=8)]
Cursor = Annotated[str, Field(min_length=1, max_length=8192)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class RemoteStore(_Answer):
    """A store's own fields."""

    name: Text
    description: Text | None = None
    metadata: Annotated[dict[str, str], Field(max_length=1000)] | None = None


class RemoteVersion(_Answer):
    """A version with its content, which is null where there is none."""

    id: Id
    memory_id: Id
    operation: Literal["created", "modified", "deleted"]
    path: Path | None = None
    content: Annotated[str, Field(max_length=CONTENT_MAX_BYTES)] | None = None
    content_sha256: Digest | None = None
    content_size_bytes: Size | None = None
    created_at: Time
    created_by: Author | None = None
    redacted_at: Time | None = None
    redacted_by: Author | None = None


class RemoteHead(_Answer):
    """A memory without its content: its version has that."""

    id: Id
    path: Path
    memory_version_id: Id
    content_sha256: Digest
    created_at: Time
    updated_at: Time


class RemoteName(_Answer):
    """A store among others: its ID and its name."""

    id: Id
    name: Text


class NamePage(_Answer):
    """A page of stores, and the cursor of the next."""

    data: Annotated[list[RemoteName], Field(max_length=1000)]
    next_page: Cursor | None = None


class VersionPage(_Answer):
    """A page of versions, and the cursor of the next."""

    data: Annotated[list[RemoteVersion], Field(max_length=1000)]
    next_page: Cursor | None = None


class HeadPage(_Answer):
    """A page of memories, and the cursor of the next."""

    data: Annotated[list[RemoteHead], Field(max_length=1000)]
    next_page: Cursor | None = None


class _Error(_Answer):
    message: str


class _Refusal(_Answer):
    error: _Error


A = TypeVar("A", bound=BaseModel)


def read(shape: type[A], data: bytes, what: str) -> A:
    """An answer as what it must be. `what` names it, as "list of memories".

    Raises:
        Unavailable: it is something else.

    """
    try:
        return shape.model_validate_json(data)
    except ValidationError as error:
        raise Unavailable(f"the server's {what} can't be understood: {short(why(error))}") from None


def message_of(data: bytes) -> str:
    """What a refusal says, or the beginning of whatever came instead."""
    try:
        return short(_Refusal.model_validate_json(data).error.message)
    except ValidationError:
        return short(data[: 4 * _WHY_CHARACTERS].decode("utf-8", "replace"))


def short(text: Any) -> str:
    """The beginning of a text from elsewhere, as much as a sentence can hold."""
    whole = str(text)
    return whole if len(whole) <= _WHY_CHARACTERS else f"{whole[:_WHY_CHARACTERS]}…"
