"""The memory API over HTTP, for one store."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from app import __version__
from app.client.credentials import authorization
from app.client.exchange import Connections, Stream
from app.client.failures import ApiError, Away, Missing, PathTaken, Rejected, TimedOut, failure
from app.contract.limits import CHANGES_LIMIT_MAX, MOVE_MAX_MEMORIES
from app.mount.door import wire
from app.mount.door.stream import Watch, lines
from app.mount.door.wire import MEMORIES_MAX, Memory, Odd, Page, Snapshot

CONNECTIONS = 8
"""Kept alive for each store; more calls at once wait for one of them."""

_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "anthropic-beta": "agent-memory-2026-07-22",
    "anthropic-version": "2023-06-01",
    "content-type": "application/json",
    "user-agent": f"memstore-mount/{__version__}",
}
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_READ_AGAIN_SECONDS = (0.0, 0.1)
_HEARTBEAT_SECONDS = 25.0
"""The server sends something at least every 10 seconds."""
_ANSWER_MAX_BYTES = 2 << 20
"""Of an answer with one memory and its content, or with many without."""
_LARGE_ANSWER_MAX_BYTES = 16 << 20
"""Of a page with contents, and of a move of 10,000 memories."""
_LISTED = {"basic": 100, "full": 20}
"""Memories on a page, by view."""
_VERSIONS = 100


class StoreApi:
    """One store. Thread-safe.

    Every method raises the exceptions of `app.client.failures`, and never sends a write twice by itself: after
    `Away` it is not known whether the server did it.
    """

    def __init__(
        self, base_url: str, store_id: str, token: Callable[[], str], *, extensions: bool = True, seconds: float = 0
    ) -> None:
        """Nothing is sent yet.

        token: asked for before each call, so that it may be renewed.
        extensions: False uses only what the vendor's own API has.
        seconds: how long an answer may take; 0: 30 seconds.
        """
        self.store_id = store_id
        self.extensions = extensions
        self._token = token
        url = urlsplit(base_url)
        self._prefix = f"{url.path.rstrip('/')}/v1/memory_stores/{quote(store_id, safe='')}"
        self._memories = f"{self._prefix}/memories"
        self._connections = Connections(
            base_url, size=CONNECTIONS, connect_seconds=_CONNECT_SECONDS, read_seconds=seconds or _READ_SECONDS
        )
        self._stream_seconds = seconds or _READ_SECONDS

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._connections.close()

    # Reading

    def store(self) -> dict[str, Any]:
        """The store itself."""
        return self._call("GET", self._prefix)

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """Every memory; with their contents if `full`."""
        view = "full" if full else "basic"
        if self.extensions:
            try:
                return self._stream_snapshot(view)
            except Missing:
                self.store()  # raises Missing if it is the store that is not there
                self.extensions = False
        archived = self.store().get("archived_at") is not None
        odd: list[Odd] = []
        return Snapshot(None, archived, 0, self._listing(view, odd), odd)

    def _stream_snapshot(self, view: str) -> Snapshot:
        answer = self._open(f"{self._prefix}/snapshot?view={view}", self._stream_seconds)
        texts = lines(answer)
        seq, archived, count = wire.snapshot_head(next(texts, b""))
        odd: list[Odd] = []
        return Snapshot(seq, archived, count, _counted(texts, count, odd), odd)

    def _listing(self, view: str, odd: list[Odd]) -> Iterator[Memory]:
        limit = _LISTED[view]
        page: str | None = None
        for _ in range(MEMORIES_MAX // limit):
            query = f"?view={view}&limit={limit}" + (f"&page={quote(page, safe='')}" if page else "")
            answer = self._call("GET", self._memories + query, most=_LARGE_ANSWER_MAX_BYTES)
            for item in wire.items(answer, limit):
                try:
                    yield wire.memory(item)
                except Odd as found:
                    odd.append(found.with_traceback(None))
            page = wire.next_page(answer)
            if not page:
                return
        raise Away(200, f"the store has more than {MEMORIES_MAX:,} memories, or a listing without an end")

    def retrieve(self, memory_id: str, *, full: bool = True) -> Memory:
        """One memory."""
        return wire.memory(self._call("GET", f"{self._memories}/{memory_id}?view={'full' if full else 'basic'}"))

    def version_content(self, version_id: str) -> bytes | None:
        """The content of a version; None if that is gone."""
        return wire.text(self._call("GET", f"{self._prefix}/memory_versions/{version_id}").get("content"))

    def version_author(self, version_id: str) -> str | None:
        """The author of a version: the actor's type, a colon, its ID; None if that was not recorded."""
        return wire.author(self._call("GET", f"{self._prefix}/memory_versions/{version_id}"))

    def latest_versions(self, memory_id: str) -> list[tuple[str, str | None]]:
        """ID and digest of the memory's last versions (up to 100), newest first."""
        answer = self._call("GET", f"{self._prefix}/memory_versions?memory_id={memory_id}&limit={_VERSIONS}")
        return [wire.version(item) for item in wire.items(answer, _VERSIONS)]

    def changes(self, after: int, limit: int = CHANGES_LIMIT_MAX) -> Page:
        """The changes that follow the sequence number."""
        answer = self._call("GET", f"{self._prefix}/changes?after={after}&limit={limit}", most=_LARGE_ANSWER_MAX_BYTES)
        return wire.events(answer, after, limit)

    def watch(self, after: int) -> Watch:
        """The changes that follow the sequence number, as they come, until the stream is closed or lost."""
        headers = {"accept": "text/event-stream", "last-event-id": str(after), "cache-control": "no-store"}
        return Watch(self._open(f"{self._prefix}/changes?after={after}", _HEARTBEAT_SECONDS, headers))

    # Writing

    def create(self, path: str, data: bytes) -> Memory:
        """Make a memory; never overwrites. data: UTF-8."""
        return wire.memory(self._call("POST", self._memories, {"path": path, "content": data.decode()}))

    def update(
        self, memory_id: str, *, data: bytes | None = None, path: str | None = None, expected_sha256: str | None = None
    ) -> Memory:
        """Change content, path or both, as one version. expected_sha256: in hex, of the content it has now."""
        body: dict[str, Any] = {}
        if data is not None:
            body["content"] = data.decode()
        if path is not None:
            body["path"] = path
        if expected_sha256 is not None:
            body["precondition"] = {"type": "content_sha256", "content_sha256": expected_sha256}
        return wire.memory(self._call("POST", f"{self._memories}/{memory_id}", body))

    def delete(self, memory_id: str, *, expected_sha256: str | None = None) -> None:
        """Delete a memory, only if its content has the digest where one is given."""
        query = f"?expected_content_sha256={expected_sha256}" if expected_sha256 else ""
        self._call("DELETE", f"{self._memories}/{memory_id}{query}")

    def move(self, old: str, new: str) -> list[Memory] | None:
        """Rename everything below a directory in one transaction; None where the server can't.

        old, new: both start and end with `/`.
        """
        if not self.extensions:
            return None
        body = {"from": old, "to": new}
        answer = self._call("POST", f"{self._prefix}/moves", body, most=_LARGE_ANSWER_MAX_BYTES)
        return [wire.memory(item) for item in wire.items(answer, MOVE_MAX_MEMORIES)]

    # The wire

    def _headers(self) -> dict[str, str]:
        return {**_HEADERS, **authorization(self._token())}

    def _call(
        self, method: str, url: str, body: dict[str, Any] | None = None, *, most: int = _ANSWER_MAX_BYTES
    ) -> dict[str, Any]:
        """most: bytes of the answer; a longer one is none."""
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        sent = self._headers()  # once: what keeps a token from coming is not tried again and again here
        if method == "GET":
            status, headers, answer = self._read(url, sent, most)
        else:
            status, headers, answer = self._connections.call(method, url, sent, data, most=most)
        if not 200 <= status < 300:
            raise refusal(status, headers, answer)
        return wire.document(answer)

    def _read(self, url: str, headers: dict[str, str], most: int) -> tuple[int, dict[str, str], bytes]:
        """A read does no harm twice: a connection that was cut is no reason to fail it."""
        for pause in _READ_AGAIN_SECONDS:
            try:
                return self._connections.call("GET", url, headers, None, most=most)
            except TimedOut:
                raise
            except Away:
                time.sleep(pause)
        return self._connections.call("GET", url, headers, None, most=most)

    def _open(self, url: str, seconds: float, more: dict[str, str] | None = None) -> Stream:
        """An answer whose body is still to be read. seconds: the longest pause in it."""
        answer = self._connections.open(url, {**self._headers(), **(more or {})}, seconds)
        if not 200 <= answer.status < 300:
            raise refusal(answer.status, answer.fields, answer.start(65_536))
        return answer


def refusal(status: int, headers: Mapping[str, str], answer: bytes) -> ApiError:
    """The exception for an answer that is no success; it names no path that no memory can have."""
    error = failure(status, headers, answer)
    if isinstance(error, PathTaken) and not wire.is_path(error.conflicting_path):
        return Rejected(status, error.message)
    return error


def _counted(texts: Iterator[bytes], count: int, odd: list[Odd]) -> Iterator[Memory]:
    """The memories of a snapshot; one that ends early is an error, never a store with fewer memories."""
    found = 0
    for text in texts:
        if text:
            found += 1
            if found > count:
                break
            try:
                yield wire.memory(wire.document(text))
            except Odd as item:
                odd.append(item.with_traceback(None))
    if found != count:
        raise Away(200, f"the snapshot has not the {count:,} memories that it announced")
