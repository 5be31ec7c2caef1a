"""What the API answers, with its own names. A member that a later server adds is left out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from .failures import Away
from .showing import escaped

Found = dict[str, Any]
"""A JSON object as it came."""
T = TypeVar("T")

_ACTOR_IDS = ("api_key_id", "session_id", "user_id", "service_account_id")


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """A named set of memories."""

    id: str
    name: str
    description: str
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None


@dataclass(frozen=True, slots=True)
class Memory:
    """A text at a path."""

    id: str
    memory_store_id: str
    memory_version_id: str
    path: str
    content: str | None
    """None where it was not asked for."""
    content_sha256: str
    """Of the content's UTF-8 bytes, in hex."""
    content_size_bytes: int
    """Bytes of UTF-8."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Actor:
    """An author."""

    type: str
    """`api_actor`, `session_actor`, `user_actor` or `service_account_actor`."""
    id: str


@dataclass(frozen=True, slots=True)
class MemoryVersion:
    """One change of a memory, as it is kept."""

    id: str
    memory_store_id: str
    memory_id: str
    operation: str
    """`created`, `modified` or `deleted`."""
    path: str | None
    """None after redaction."""
    content: str | None
    """None of a deletion, after redaction, and where it was not asked for."""
    content_sha256: str | None
    content_size_bytes: int | None
    created_at: datetime
    created_by: Actor | None
    redacted_at: datetime | None
    redacted_by: Actor | None


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a memory, as the change feed tells it; read the memory or the version for the content."""

    seq: int
    """1, 2, 3 … in the order of the store's commits."""
    operation: str
    """`created`, `modified` or `deleted`."""
    memory_store_id: str
    memory_id: str
    memory_version_id: str
    path: str | None
    """None after redaction."""
    content_sha256: str | None
    content_size_bytes: int | None
    created_at: datetime
    created_by: Actor | None
    redacted_at: datetime | None
    erased: bool
    """It is the deletion of a memory that was erased: drop your copy, and never make the memory again from it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All memories of a store at one moment."""

    memory_store_id: str
    seq: int
    """The memories are what all changes up to this one come to; follow the store after it."""
    archived_at: datetime | None
    memories: Sequence[Memory]
    """In byte order of their paths."""


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Some changes, and where the next ones are."""

    changes: Sequence[Change]
    next_after: int
    last_seq: int
    has_more: bool
    truncated: bool


def document(data: bytes) -> Found:
    """A JSON object. Raises Away if it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise malformed("no JSON") from error
    if not isinstance(found, dict):
        raise malformed("no JSON object")
    return found


def items(found: Found) -> list[Found]:
    """The items of a page. Raises Away if it is none."""
    data = _member(found, "data", list)
    if not all(isinstance(item, dict) for item in data):
        raise malformed("a page whose items are no objects")
    return data


def next_page(found: Found) -> str | None:
    """The cursor of the next page; None on the last one. Raises Away if it is none."""
    return _optional(found, "next_page", str)


def store(found: Found) -> MemoryStore:
    """A memory store. Raises Away if it is none."""
    return MemoryStore(
        id=_member(found, "id", str),
        name=_member(found, "name", str),
        description=_optional(found, "description", str) or "",
        metadata=_optional(found, "metadata", dict) or {},
        created_at=_time(found, "created_at"),
        updated_at=_time(found, "updated_at"),
        archived_at=_optional_time(found, "archived_at"),
    )


def memory(found: Found) -> Memory:
    """A memory. Raises Away if it is none."""
    return Memory(
        id=_member(found, "id", str),
        memory_store_id=_member(found, "memory_store_id", str),
        memory_version_id=_member(found, "memory_version_id", str),
        path=_member(found, "path", str),
        content=_optional(found, "content", str),
        content_sha256=_member(found, "content_sha256", str),
        content_size_bytes=_member(found, "content_size_bytes", int),
        created_at=_time(found, "created_at"),
        updated_at=_time(found, "updated_at"),
    )


def version(found: Found) -> MemoryVersion:
    """A version. Raises Away if it is none."""
    return MemoryVersion(
        id=_member(found, "id", str),
        memory_store_id=_member(found, "memory_store_id", str),
        memory_id=_member(found, "memory_id", str),
        operation=_member(found, "operation", str),
        path=_optional(found, "path", str),
        content=_optional(found, "content", str),
        content_sha256=_optional(found, "content_sha256", str),
        content_size_bytes=_optional(found, "content_size_bytes", int),
        created_at=_time(found, "created_at"),
        created_by=_actor(found, "created_by"),
        redacted_at=_optional_time(found, "redacted_at"),
        redacted_by=_actor(found, "redacted_by"),
    )


def change(found: Found) -> Change:
    """A change of the feed. Raises Away if it is none."""
    return Change(
        seq=_member(found, "seq", int),
        operation=_member(found, "operation", str),
        memory_store_id=_member(found, "memory_store_id", str),
        memory_id=_member(found, "memory_id", str),
        memory_version_id=_member(found, "memory_version_id", str),
        path=_optional(found, "path", str),
        content_sha256=_optional(found, "content_sha256", str),
        content_size_bytes=_optional(found, "content_size_bytes", int),
        created_at=_time(found, "created_at"),
        created_by=_actor(found, "created_by"),
        redacted_at=_optional_time(found, "redacted_at"),
        erased=found.get("erased") is True,
    )


def change_page(found: Found) -> ChangePage:
    """A page of the change feed. Raises Away if it is none."""
    return ChangePage(
        changes=[change(item) for item in items(found)],
        next_after=_member(found, "next_after", int),
        last_seq=last_seq(found),
        has_more=_member(found, "has_more", bool),
        truncated=_member(found, "truncated", bool),
    )


def last_seq(found: Found) -> int:
    """The number of a store's newest change. Raises Away if it is not said."""
    return _member(found, "last_seq", int)


def snapshot(lines: list[bytes]) -> Snapshot:
    """A snapshot, from its lines. Raises Away if it is none, or not the whole of one."""
    head, *rest = [document(line) for line in lines if line] or [{}]
    count = _member(head, "count", int)
    if len(rest) != count:
        raise malformed(f"a snapshot of {len(rest):,} memories that announced {count:,}")
    return Snapshot(
        memory_store_id=_member(head, "memory_store_id", str),
        seq=_member(head, "seq", int),
        archived_at=_optional_time(head, "archived_at"),
        memories=[memory(item) for item in rest],
    )


def malformed(what: str) -> Away:
    """The exception for an answer that this API does not give."""
    return Away(200, f"the answer is not one of this API: {what}")


def _member(found: Found, name: str, kind: type[T]) -> T:
    value = found.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise malformed(f"{name} is {escaped(repr(value), 80)}")
    return value


def _optional(found: Found, name: str, kind: type[T]) -> T | None:
    return None if found.get(name) is None else _member(found, name, kind)


def _time(found: Found, name: str) -> datetime:
    text = _member(found, name, str)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise malformed(f"{name} is {escaped(text, 80)!r}, which is no time")
    return time


def _optional_time(found: Found, name: str) -> datetime | None:
    return None if found.get(name) is None else _time(found, name)


def _actor(found: Found, name: str) -> Actor | None:
    actor = _optional(found, name, dict)
    if actor is None:
        return None
    ids = [identifier for key in _ACTOR_IDS if isinstance(identifier := actor.get(key), str)]
    return Actor(_member(actor, "type", str), ids[0] if ids else "")
