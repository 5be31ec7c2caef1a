"""The API's shapes, as far as the mount reads them, and the door for all that comes from a server.

Everything that a server says passes here once: nothing behind this module looks at paths, sizes, IDs, digests or
times again, and nothing here passes that the contract does not allow. A memory whose path or size breaks the rules is
`Odd`, and is left out and named; any other answer that is not of this API counts as none (`Away`).
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.client.failures import ID, Away
from app.contract import clock, paths
from app.contract.actors import ID_FIELDS
from app.contract.errors import InvalidRequest
from app.contract.limits import CONTENT_MAX_BYTES, SESSION_MAX_STORES
from app.contract.showing import escaped
from app.contract.slugs import is_slug
from app.contract.text import check_name
from app.mount.door.entries import Entry

MEMORIES_MAX = 200_000
"""Memories of one store that a mount holds; a store with more is not mounted."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(r"[!-~]{1,4096}")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""In JSON; nothing of it is looked at twice, whatever it holds."""
_STRUCTURE_MAX_BYTES = 1 << 20
"""Of an answer, outside of its strings, where three bytes (`{},`) take 72 of memory. A move of 10,000 has 0.6 MB."""
_SEQ_MAX = 2**63 - 1
_LATEST_NS = 2**63 - 1
_CURSOR_MAX_CHARACTERS = 8_192
_OPERATIONS = ("created", "modified", "deleted")


class Odd(Away):
    """A memory of the server that breaks the rules of the contract. Where one was asked for, it is no answer."""

    def __init__(self, memory_id: str, path: str, reason: str) -> None:
        super().__init__(200, f"the server has a memory that can't be shown: {path}: {reason}")
        self.memory_id = memory_id
        self.path = path
        """Escaped, and cut if it is long. To keep one, drop its traceback, which holds all that was read."""


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
    """How many memories follow, odd ones included; 0 where the server does not say."""
    memories: Iterator[Memory]
    odd: list["Odd"] = field(default_factory=list)
    """Memories that break the rules of the contract; they are among `count`, and here as soon as they came."""


@dataclass(frozen=True, slots=True)
class Event:
    """One version, as the change feed tells it."""

    seq: int
    memory_id: str
    version_id: str
    entry: Entry | None
    """What the memory is then; None if it was deleted or the version is redacted."""
    deleted: bool
    erased: bool = False
    """It was deleted because it was erased: nothing of it may be kept, or come back."""
    odd: "Odd | None" = None
    """Set where what the memory is then breaks the rules of the contract: it can't be shown."""


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


def document(data: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Away: it is none.

    """
    if len(data) > _STRUCTURE_MAX_BYTES and _has_too_many_values(data):
        raise _malformed("more values than an answer can have")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed("no JSON") from error
    if not isinstance(found, dict):
        raise _malformed("no JSON object")
    return found


def _has_too_many_values(data: bytes) -> bool:
    """Whether a JSON text has more bytes outside of its strings than any answer."""
    inside = 0
    for string in _STRING.finditer(data):
        if string.start() - inside > _STRUCTURE_MAX_BYTES:
            return True
        inside += string.end() - string.start()
    return len(data) - inside > _STRUCTURE_MAX_BYTES


def memory(item: Any) -> Memory:
    """A memory object.

    Raises:
        Odd: its path or its size is none of the contract's.
        Away: it is no memory object.

    """
    entry = _entry(item, identifier(_member(item, "id")), "updated_at")
    content = text(item.get("content"))
    if content is not None and (len(content), hashlib.sha256(content).hexdigest()) != (entry.size, entry.sha256):
        raise _malformed(f"the content of {entry.memory_id} is not what its size and digest say")
    return Memory(entry, content)


def event(item: Any) -> Event:
    """A change of the feed. Raises Away if it is none."""
    memory_id, version_id = identifier(_member(item, "memory_id")), identifier(_member(item, "memory_version_id"))
    seq, operation = number(_member(item, "seq")), _member(item, "operation")
    if operation not in _OPERATIONS:
        raise _malformed("a change that is no creation, modification or deletion")
    deleted = operation == "deleted"
    entry, odd = None, None
    if not deleted and item.get("path") is not None:
        try:
            entry = _entry(item, memory_id, "created_at")
        except Odd as found:
            odd = found.with_traceback(None)
    return Event(seq, memory_id, version_id, entry, deleted, deleted and item.get("erased") is True, odd)


def events(answer: dict[str, Any], after: int, limit: int) -> Page:
    """A page of the change feed, asked for with these parameters. Raises Away if it is none."""
    found = [event(item) for item in items(answer, limit)]
    next_after, has_more = number(_member(answer, "next_after")), answer.get("has_more") is True
    if any(one.seq <= before for one, before in zip(found, [after, *(one.seq for one in found)], strict=False)):
        raise _malformed("changes that are out of order")
    if has_more and not found:
        raise _malformed("an empty page that is not the last one")
    return Page(found, next_after, has_more, answer.get("truncated") is True)


def snapshot_head(data: bytes) -> tuple[int, bool, int]:
    """Sequence number, whether the store is archived, and how many memories follow. Raises Away if it is none."""
    head = document(data)
    count = number(_member(head, "count"))
    if count > MEMORIES_MAX:
        raise Away(200, f"the store has {count:,} memories; a mount holds at most {MEMORIES_MAX:,}")
    return number(_member(head, "seq")), head.get("archived_at") is not None, count


def items(answer: dict[str, Any], most: int) -> list[Any]:
    """The items of a page that may hold so many. Raises Away if it is none."""
    found = answer.get("data")
    if not isinstance(found, list) or len(found) > most:
        raise _malformed(f"no page of at most {most:,} items")
    return found


def next_page(answer: dict[str, Any]) -> str | None:
    """The cursor of the next page; None if there is none. Raises Away if it is no cursor."""
    cursor = answer.get("next_page")
    if cursor is not None and (not isinstance(cursor, str) or len(cursor) > _CURSOR_MAX_CHARACTERS):
        raise _malformed("no cursor")
    return cursor or None


def version(item: Any) -> tuple[str, str | None]:
    """ID and digest of a version. Raises Away if it is none."""
    digest = item.get("content_sha256") if isinstance(item, dict) else None
    return identifier(_member(item, "id")), None if digest is None else _digest(digest)


def author(item: dict[str, Any]) -> str | None:
    """The author of a version: the actor's type, a colon, its ID; None if that is not said."""
    actor = item.get("created_by")
    if not isinstance(actor, dict) or not isinstance(kind := actor.get("type"), str) or kind not in ID_FIELDS:
        return None
    found = actor.get(ID_FIELDS[kind])
    return f"{kind}:{escaped(found, 255)}" if isinstance(found, str) else None


def text(content: Any) -> bytes | None:
    """A memory's content as UTF-8; None if it is not in the answer. Raises Away if it is no content."""
    if content is None:
        return None
    try:
        data: bytes = content.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise _malformed("a content that is no text") from error
    if len(data) > CONTENT_MAX_BYTES:
        raise _malformed(f"a content of {len(data):,} bytes")
    return data


def stores_of(session: dict[str, Any]) -> list[dict[str, Any]]:
    """The memory stores among a session's resources. Raises Away if they are no list, or too many."""
    resources = session.get("resources", [])
    if not isinstance(resources, list) or not all(isinstance(resource, dict) for resource in resources):
        raise _malformed("no list of resources")
    stores = [resource for resource in resources if resource.get("type") == "memory_store"]
    if len(stores) > SESSION_MAX_STORES:
        raise _malformed(f"a session with {len(stores):,} memory stores")
    return stores


def name(found: Any) -> str:
    """A store's name. Raises Away if it is none."""
    if not isinstance(found, str):
        raise _malformed("no name")
    try:
        return check_name(found)
    except InvalidRequest as error:
        raise _malformed(error.message) from error


def directory(mount_path: Any) -> str:
    """The directory's name in the mount path of a store: a slug. Raises Away if it is none."""
    found = mount_path.rstrip("/").rpartition("/")[2] if isinstance(mount_path, str) else ""
    if not is_slug(found):  # `..` among them, which would lead out of the root
        raise _malformed(f"the mount path {escaped(str(mount_path))!r} ends with no name of a directory")
    return found


def identifier(found: Any) -> str:
    """An ID: it can stand in a URL as it is. Raises Away if it is none."""
    if not isinstance(found, str) or not ID.fullmatch(found):
        raise _malformed("no ID")
    return found


def secret(found: Any) -> str:
    """A token: it can stand in a header as it is. Raises Away if it is none."""
    if not isinstance(found, str) or not _SECRET.fullmatch(found):
        raise _malformed("no token")
    return found


def number(found: Any) -> int:
    """A count or sequence number. Raises Away if it is none."""
    if type(found) is not int or not 0 <= found <= _SEQ_MAX:
        raise _malformed("no sequence number")
    return found


def nanoseconds(found: Any) -> int:
    """An RFC 3339 time as nanoseconds since the epoch, between 1970 and 2262. Raises Away if it is none."""
    try:
        return min(max(0, clock.microseconds(datetime.fromisoformat(found)) * 1_000), _LATEST_NS)
    except (TypeError, ValueError, OverflowError) as error:
        raise _malformed("no time") from error


def is_path(found: str) -> bool:
    """Whether it is the path of a memory that can be."""
    try:
        return paths.check(found) == found
    except InvalidRequest:
        return False


def problem(entry: Entry) -> str | None:
    """Why an entry can't be shown; None if it can."""
    try:
        paths.check(entry.path)
    except InvalidRequest as error:
        return error.message
    if not 0 <= entry.size <= CONTENT_MAX_BYTES:
        return f"a size of {entry.size:,} bytes; a memory holds at most {CONTENT_MAX_BYTES:,}"
    return None


def _entry(item: dict[str, Any], memory_id: str, time: str) -> Entry:
    path, size = _member(item, "path"), _member(item, "content_size_bytes")
    if not isinstance(path, str) or type(size) is not int:
        raise _malformed("a memory without a path and a size")
    version_id, digest = identifier(_member(item, "memory_version_id")), _digest(_member(item, "content_sha256"))
    entry = Entry(path, memory_id, version_id, digest, size, nanoseconds(_member(item, time)))
    if reason := problem(entry):
        raise Odd(memory_id, escaped(path), escaped(reason))
    return entry


def _member(item: Any, name: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise _malformed(f"{name} is missing")
    return item[name]


def _digest(found: Any) -> str:
    if not isinstance(found, str) or not _SHA256.fullmatch(found):
        raise _malformed("no SHA-256 digest")
    return found


def _malformed(what: str) -> Away:
    return Away(200, f"the answer is not one of this API: {what}")
