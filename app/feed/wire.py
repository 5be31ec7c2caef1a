"""Shapes of the change feed and of snapshots on the wire. They are ours: the vendor's API has neither."""

import re
from collections.abc import AsyncGenerator
from typing import Annotated, Literal, NotRequired

import orjson
from pydantic import Field
from typing_extensions import TypedDict

from app.contract import actors, clock
from app.contract.errors import InvalidRequest
from app.contract.limits import CHANGES_LIMIT_DEFAULT, CHANGES_LIMIT_MAX
from app.feed.pages import ChangePage as FoundPage
from app.feed.service import Changes, Gone, Item, Truncated
from app.feed.snapshots import Snapshot
from app.http.documents import (
    ContentDigest,
    ContentSize,
    MemoryIdText,
    MemoryPath,
    StoreIdText,
    Timestamp,
    VersionIdText,
    shape,
)
from app.http.pages import SEQUENCE_MAX, SEQUENCE_NUMBER, WHOLE_NUMBER, QueryModel, View
from app.memories import wire as memory_wire
from app.storage.rows.database import Row
from app.versions.operations import OPERATION_NAMES, Operation
from app.versions.wire import Actor

Sequence = Annotated[int, shape(minimum=0)]

EVENT_STREAM = "text/event-stream"
LINES = "application/x-ndjson"

ALIVE = b": alive\n\n"
"""The first thing in a stream of events, so that a client knows that it is live."""
HEARTBEAT = b": heartbeat\n\n"

_LINE_ENDS = [(mark.encode(), b"\\u%04x" % ord(mark)) for mark in ("\x85", "\u2028", "\u2029")]
"""Beside the control characters, which JSON always escapes."""

_EVENT_ID = re.compile(r"[0-9]{1,18}")


class MemoryChange(TypedDict):
    """One change of a memory: a version, as the feed tells it.

    `content_sha256` and `content_size_bytes` are null for a deletion; with `path` also after redaction. `erased` comes
    with the deletion of a memory that was erased (`memstore forget`), and so must not be made again from a copy.
    """

    type: Literal["memory_change"]
    seq: Annotated[int, shape(minimum=1)]
    operation: Operation
    memory_store_id: StoreIdText
    memory_id: MemoryIdText
    memory_version_id: VersionIdText
    path: MemoryPath | None
    content_sha256: ContentDigest | None
    content_size_bytes: ContentSize | None
    created_at: Timestamp
    created_by: Actor | None
    redacted_at: Timestamp | None
    erased: NotRequired[Literal[True]]


class ChangePage(TypedDict):
    """Changes in the order of their commits: `seq` ascends by one from each to the next.

    `last_seq` is the store's newest change, `next_after` the `after` of the next page. `truncated`: some changes
    between `after` and `next_after` have expired; take a snapshot and go on from its `seq`.
    """

    data: Annotated[list[MemoryChange], shape(maxItems=CHANGES_LIMIT_MAX)]
    last_seq: Sequence
    next_after: Sequence
    has_more: bool
    truncated: bool


class ChangesQuery(QueryModel):
    """Where to begin."""

    after: Annotated[int, Field(ge=0, le=SEQUENCE_MAX), SEQUENCE_NUMBER] = Field(
        0, description="Changes after this number; at most the store's `last_seq`."
    )
    limit: Annotated[int, Field(ge=1, le=CHANGES_LIMIT_MAX), WHOLE_NUMBER] = Field(
        CHANGES_LIMIT_DEFAULT, description="Changes per page; a stream of events has no end."
    )


class SnapshotQuery(QueryModel):
    """What of each memory."""

    view: View = Field("basic", description="`full` adds the content.")


def change(row: Row, *, is_erased: bool) -> MemoryChange:
    """A change as the wire shows it. `is_erased`: it is the deletion of an erased memory."""
    sha256 = row["content_sha256"]
    shown: MemoryChange = {
        "type": "memory_change",
        "seq": row["seq"],
        "operation": OPERATION_NAMES[row["operation"]],
        "memory_store_id": row["store_id"],
        "memory_id": row["memory_id"],
        "memory_version_id": row["id"],
        "path": row["path"],
        "content_sha256": None if sha256 is None else sha256.hex(),
        "content_size_bytes": row["content_size"],
        "created_at": clock.rfc3339(row["created_at"]),
        "created_by": actors.wire(row["actor_type"], row["actor_id"]),  # type: ignore[typeddict-item]
        "redacted_at": clock.rfc3339_or_none(row["redacted_at"]),
    }
    if is_erased:
        shown["erased"] = True
    return shown


def page(found: FoundPage) -> ChangePage:
    """A page as the wire shows it."""
    return {
        "data": [change(row, is_erased=row["id"] in found.erased) for row in found.rows],
        "last_seq": found.last_seq,
        "next_after": found.next_after,
        "has_more": found.has_more,
        "truncated": found.truncated,
    }


def event_id(text: str) -> int:
    """The number in a `Last-Event-ID`.

    Raises:
        InvalidRequest: it is none of ours.

    """
    if not _EVENT_ID.fullmatch(text):
        raise InvalidRequest(f"Last-Event-ID: is {text!r}; it must be the id of an event of this stream, a number")
    return int(text)


def change_event(row: Row, is_erased: bool) -> bytes:
    """A change as a server-sent event."""
    return b"id: %d\nevent: change\ndata: %b\n\n" % (row["seq"], orjson.dumps(change(row, is_erased=is_erased)))


def _event(name: bytes, data: dict[str, str | int]) -> bytes:
    # Without an id: what a client was told last with one is still where it has to resume.
    return b"event: %b\ndata: %b\n\n" % (name, orjson.dumps(data))


def gone_event(store_id: str) -> bytes:
    """The last event of a stream: the store was deleted, or the caller may no longer read it."""
    return _event(b"gone", {"memory_store_id": store_id})


async def events(store_id: str, items: AsyncGenerator[Item, None]) -> AsyncGenerator[bytes, None]:
    """A stream as server-sent events."""
    yield ALIVE
    try:
        async for item in items:
            match item:
                case Changes(frames):
                    yield b"".join(frames)
                case Truncated(last_seq):
                    yield _event(b"truncated", {"last_seq": last_seq})
                case Gone():
                    yield gone_event(store_id)
                case _:
                    yield HEARTBEAT
    finally:
        await items.aclose()


def _one_line_each(lines: bytes) -> bytes:
    """The same JSON with what some readers take for the end of a line, though it is text, written as an escape."""
    if not lines.isascii():
        for character, escape in _LINE_ENDS:
            lines = lines.replace(character, escape)
    return lines


async def snapshot_lines(store_id: str, snapshot: Snapshot, view: View) -> AsyncGenerator[bytes, None]:
    """A snapshot as lines of JSON: what it is of, then each memory."""
    head = {
        "type": "memory_snapshot",
        "memory_store_id": store_id,
        "seq": snapshot.seq,
        "count": snapshot.count,
        "archived_at": clock.rfc3339_or_none(snapshot.archived_at),
    }
    yield orjson.dumps(head) + b"\n"
    try:
        async for piece in snapshot.pieces:
            yield _one_line_each(b"".join(orjson.dumps(memory_wire.memory(found, view)) + b"\n" for found in piece))
    finally:
        await snapshot.pieces.aclose()
