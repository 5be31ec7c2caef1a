"""The API's shapes, as far as the mount reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.client.entries import Entry
from app.contract import clock


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory as the server answered it."""

    entry: Entry
    content: bytes | None
    """UTF-8; None where the answer does not hold it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole store. `memories` can be gone through once, while the answer arrives."""

    seq: int | None
    """The store's sequence number that the snapshot stands for; None where the server has no change feed."""
    archived: bool
    count: int
    """How many memories follow; 0 where the server does not say."""
    memories: Iterator[Memory]


@dataclass(frozen=True, slots=True)
class Event:
    """One version, as the change feed tells it."""

    seq: int
    memory_id: str
    version_id: str
    entry: Entry | None
    """What the memory is then; None if it was deleted or the version is redacted."""
    deleted: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the change feed."""

    events: list[Event]
    next_after: int
    has_more: bool
    truncated: bool
    """Versions before these are gone: only a snapshot can tell the rest."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The feed is alive."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """The feed can't tell everything since the asked sequence number: a snapshot must."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The store is deleted, or may no longer be read."""


Message = Event | Heartbeat | Truncated | Gone


def nanoseconds(text: str) -> int:
    """An RFC 3339 time as nanoseconds since the epoch."""
    return clock.microseconds(datetime.fromisoformat(text)) * 1_000


def memory(item: dict[str, Any]) -> Memory:
    """Parse a memory object."""
    content = item.get("content")
    entry = Entry(
        path=item["path"],
        memory_id=item["id"],
        version_id=item["memory_version_id"],
        sha256=item["content_sha256"],
        size=item["content_size_bytes"],
        mtime_ns=nanoseconds(item["updated_at"]),
    )
    return Memory(entry, None if content is None else content.encode())


def event(item: dict[str, Any]) -> Event:
    """Parse a change."""
    memory_id, version_id = item["memory_id"], item["memory_version_id"]
    deleted = item["operation"] == "deleted"
    entry = None
    if not deleted and item["path"] is not None:
        entry = Entry(
            path=item["path"],
            memory_id=memory_id,
            version_id=version_id,
            sha256=item["content_sha256"],
            size=item["content_size_bytes"],
            mtime_ns=nanoseconds(item["created_at"]),
        )
    return Event(item["seq"], memory_id, version_id, entry, deleted)
