"""The client of the memory API, for asyncio.

`client.py`, the same for threads, is made from this file by `scripts/sync_twins.py`.
"""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from . import shapes
from .async_exchange import AsyncConnections, AsyncEnding, AsyncStream
from .credentials import Credentials
from .events import Events, Lines
from .failures import ID, ApiError, Away, ChangesExpired, Missing, PathTaken, Rejected, TimedOut, failure
from .shapes import Change, Found, Memory, MemoryStore, MemoryVersion, Snapshot
from .version import __version__

_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "anthropic-beta": "agent-memory-2026-07-22,managed-agents-2026-04-01",
    "anthropic-version": "2023-06-01",
    "content-type": "application/json",
    "user-agent": f"memstore-client/{__version__}",
}
_CONNECT_SECONDS = 5.0
_HEARTBEAT_SECONDS = 25.0
"""The server sends something at least every 10 seconds."""
_ANSWER_MAX_BYTES = 64 << 20
_REFUSAL_MAX_BYTES = 65_536
_PAGE, _FULL_PAGE, _CHANGES_PAGE = 100, 20, 1_000
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 30.0
_MOST_WRITES = 10
"""How often a memory may come and go between two calls of one `write`."""
_REFUSED_UNDONE = (429, 529)
"""Statuses that a server gives before it does anything."""


class AsyncMemstore:
    """One server of the memory API, as one API key or session token sees it.

    One client serves any number of threads, or the tasks of one event loop at a time. Use it as a context, or call
    `close` at the end.

    Every method raises `ApiError` or one of its kinds. A call is sent again where that does no harm, at most
    `retries` times and after a growing pause, or the one that the server asks for: a read that got no answer or
    one that says "later"; a write only if nothing was sent, or if the server refused it before doing anything (429,
    529). After any other `Away` it is not known whether a write was done: read, and decide.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        workspace_id: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        connections: int = 8,
    ) -> None:
        """Nothing is sent yet.

        base_url: the server's, without `/v1`; if not given, `MEMSTORE_BASE_URL` of the environment.
        api_key: an API key, or the token of a session; if not given, `MEMSTORE_TOKEN` or `MEMSTORE_API_KEY`.
        workspace_id: the server refuses every call (403) if the key is one of another workspace; if not given,
            `MEMSTORE_WORKSPACE_ID`, and without that nothing is checked.
        timeout: seconds without a byte of an answer after which it is given up; a whole one may take ten times that.
        connections: kept open at most; more calls at once wait for one of them.

        Raises:
            ValueError: something is missing or can't be what it should be.

        """
        if timeout <= 0 or retries < 0 or connections < 1:
            raise ValueError("timeout must be more than 0, retries at least 0, connections at least 1")
        found = Credentials.found(base_url, api_key, workspace_id)
        self.base_url = found.base_url
        self.stores = AsyncStores(self)
        self.memories = AsyncMemories(self)
        self.versions = AsyncVersions(self)
        self._prefix = urlsplit(found.base_url).path
        self._headers = {**_HEADERS, **found.headers()}
        self._timeout = timeout
        self._retries = retries
        self._connections = AsyncConnections(
            found.base_url, size=connections, connect_seconds=min(timeout, _CONNECT_SECONDS), read_seconds=timeout
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    async def __aenter__(self) -> "AsyncMemstore":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Feeds that are followed go on; a later call opens new connections."""
        await self._connections.close()

    # Any route of the API

    async def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Found:
        """The answer of any route of the API as JSON, with the same errors and repetitions.

        path: such as `/v1/sessions`; what comes from elsewhere in it must be quoted. query: None leaves a member out.

        Raises:
            ValueError: it can't be sent, since a text is no Unicode text, or the path is none.

        """
        return shapes.document(await self._send(method, _target(path, query), body))

    async def pages(self, path: str, *, query: Mapping[str, Any] | None = None) -> AsyncGenerator[Found, None]:
        """The items of any listing as JSON, page after page. Raises as `request`."""
        asked = dict(query or {})
        seen: set[str] = set()
        while True:
            page = await self.request("GET", path, query=asked)
            for item in shapes.items(page):
                yield item
            cursor = shapes.next_page(page)
            if cursor is None:
                return
            if cursor in seen:
                raise shapes.malformed("a listing that repeats itself")
            seen.add(cursor)
            asked["page"] = cursor

    # Following a store

    async def changes(self, store_id: str, *, after: int = 0) -> AsyncIterator[Change]:
        """The changes of a store that are there now, oldest first, after the one with that number.

        Raises:
            ChangesExpired: some of them are gone. The changes that were given until then are whole.

        """
        has_more = True
        while has_more:
            query = {"after": after, "limit": _CHANGES_PAGE}
            page = shapes.change_page(await self.request("GET", f"{_store(store_id)}/changes", query=query))
            if page.truncated:
                raise _expired(page.last_seq)
            for change in page.changes:
                yield change
            has_more = page.has_more and page.next_after > after
            after = page.next_after

    def follow(self, store_id: str, *, after: int = 0, patience: float | None = None) -> "AsyncFeed":
        """The changes of a store after the one with that number, and then each as it comes, without an end.

        patience: seconds without a sign of life from the server, after which its `Away` is raised; None: never.
        """
        _store(store_id)
        return AsyncFeed(self, store_id, after, patience)

    async def snapshot(self, store_id: str, *, with_content: bool = False) -> Snapshot:
        """All memories of a store at one moment, in memory at once. The texts of a large store may be 100s of MB."""
        path = _target(f"{_store(store_id)}/snapshot", {"view": _view(with_content)})
        for attempt in range(self._retries + 1):
            try:
                stream = await self._open(path, "application/x-ndjson", self._timeout)
                found, lines = Lines(), []
                async with aclosing(stream.pieces()) as pieces:
                    async for piece in pieces:
                        lines += found.feed(piece)
                return shapes.snapshot(lines + found.end())
            except Away as away:
                if attempt == self._retries or not _may_be_repeated("GET", away):
                    raise
                await asyncio.sleep(_pause(attempt, away))
        raise AssertionError("every attempt returns or raises")

    # The wire

    async def _send(self, method: str, target: str, body: Mapping[str, Any] | None) -> bytes:
        data = None if body is None else _json(body)
        attempt = 0
        while True:
            try:
                status, headers, answer = await self._connections.call(
                    method, f"{self._prefix}{target}", self._headers, data, most=_ANSWER_MAX_BYTES
                )
                if 200 <= status < 300:
                    return answer
                raise failure(status, headers, answer)
            except Away as away:
                if attempt >= self._retries or not _may_be_repeated(method, away):
                    raise
                await asyncio.sleep(_pause(attempt, away))
            attempt += 1

    async def _open(self, target: str, accept: str, seconds: float) -> AsyncStream:
        """An answer whose body is still to be read. seconds: the longest pause in it."""
        stream = await self._connections.open(f"{self._prefix}{target}", {**self._headers, "accept": accept}, seconds)
        if not 200 <= stream.status < 300:
            raise failure(stream.status, stream.fields, await stream.start(_REFUSAL_MAX_BYTES))
        return stream


class AsyncFeed:
    """The changes of one store, in order, none left out and none twice, whatever becomes of connections and servers.

    It connects again by itself. Iterate in one place; use it as a context, or call `close`, which ends the iteration.
    """

    def __init__(self, client: AsyncMemstore, store_id: str, after: int, patience: float | None) -> None:
        """Made by `AsyncMemstore.follow`."""
        self.seq = after
        """The number of the last change that was given. Keep it with what you made of the change, to go on there."""
        self._client = client
        self._store_id = store_id
        self._patience = patience
        self._coming: deque[Change | ApiError] = deque()
        self._newest = after
        self._stream: AsyncStream | None = None
        self._pieces: AsyncIterator[bytes] | None = None
        self._events = Events()
        self._ending = AsyncEnding()
        self._failures = 0
        self._alive_at = time.monotonic()

    async def __aenter__(self) -> "AsyncFeed":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration at once, also from a task of the same loop that does not iterate."""
        self._ending.set()
        if (stream := self._stream) is not None:
            stream.close()

    def __aiter__(self) -> "AsyncFeed":
        return self

    async def __anext__(self) -> Change:
        """The next change, as soon as there is one.

        Raises:
            ChangesExpired: changes are gone: take a snapshot. If it is asked again, the feed goes on after `last_seq`.
            Missing: the store is deleted, or the key or token may no longer read it.
            Unauthorized, Forbidden, Rejected: as for every call.
            Away: the server has been silent for longer than `patience`.

        """
        while not self._ending.is_set():
            try:
                if not self._coming:
                    await self._receive()
                    continue
                coming = self._coming.popleft()
                if isinstance(coming, ApiError):
                    self.seq = coming.last_seq if isinstance(coming, ChangesExpired) else self.seq
                    raise coming
                self.seq = coming.seq
                return coming
            except Away as away:
                self._drop()
                if self._ending.is_set():
                    break
                if self._patience is not None and time.monotonic() - self._alive_at > self._patience:
                    raise
                self._failures += 1
                await self._ending.wait(_pause(self._failures - 1, away))
            except BaseException:
                self._drop()
                raise
        self._drop()
        raise StopAsyncIteration

    async def _receive(self) -> None:
        """What the server sends next. Raises as `__anext__`."""
        if self._pieces is None:
            target = _target(f"{_store(self._store_id)}/changes", {"after": self.seq})
            self._stream = await self._client._open(target, "text/event-stream", _HEARTBEAT_SECONDS)
            if not self._stream.fields.get("content-type", "").startswith("text/event-stream"):
                raise Rejected(self._stream.status, "the server answers with something that is no stream of changes")
            self._events, self._pieces, self._newest = Events(), self._stream.pieces(), self.seq
            if self._ending.is_set():  # while it connected
                return
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            raise Away(0, "the stream of changes ended") from None
        for event in self._events.feed(piece):
            self._failures, self._alive_at = 0, time.monotonic()
            if event is not None:
                self._take(*event)

    def _take(self, kind: bytes, data: bytes) -> None:
        if kind == b"change":
            change = shapes.change(shapes.document(data))
            if change.seq > self._newest:
                self._newest = change.seq
                self._coming.append(change)
        elif kind == b"truncated":
            self._coming.append(_expired(shapes.last_seq(shapes.document(data))))
        elif kind == b"gone":
            gone = "the memory store is deleted, or this key or token may no longer read it"
            self._coming.append(Missing(404, gone))

    def _drop(self) -> None:
        stream, self._stream, self._pieces = self._stream, None, None
        self._coming.clear()
        if stream is not None:
            stream.close()


class AsyncStores:
    """The memory stores of the key's workspace."""

    def __init__(self, client: AsyncMemstore) -> None:
        self._client = client

    async def create(
        self, name: str, *, description: str = "", metadata: Mapping[str, str] | None = None
    ) -> MemoryStore:
        """Make a store. Names need not differ."""
        body = {"name": name, "description": description, "metadata": dict(metadata or {})}
        return shapes.store(await self._client.request("POST", "/v1/memory_stores", body=body))

    async def retrieve(self, store_id: str) -> MemoryStore:
        """One store. Raises Missing if there is none."""
        return shapes.store(await self._client.request("GET", _store(store_id)))

    async def update(
        self,
        store_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, str | None] | None = None,
    ) -> MemoryStore:
        """Change what is given. metadata: a text sets a pair, None removes it, an absent key stays."""
        given = {"name": name, "description": description, "metadata": None if metadata is None else dict(metadata)}
        body = {key: value for key, value in given.items() if value is not None}
        return shapes.store(await self._client.request("POST", _store(store_id), body=body))

    async def list(self, *, include_archived: bool = False) -> AsyncIterator[MemoryStore]:
        """Every store, newest first."""
        query = {"limit": _PAGE, "include_archived": "true" if include_archived else "false"}
        async with aclosing(self._client.pages("/v1/memory_stores", query=query)) as pages:
            async for found in pages:
                yield shapes.store(found)

    async def archive(self, store_id: str) -> MemoryStore:
        """Close a store to changes, without a way back; deletions stay possible."""
        return shapes.store(await self._client.request("POST", f"{_store(store_id)}/archive"))

    async def delete(self, store_id: str) -> None:
        """Delete a store with all its memories. Raises Held if it is under legal hold."""
        await self._client.request("DELETE", _store(store_id))


class AsyncMemories:
    """The memories of a store."""

    def __init__(self, client: AsyncMemstore) -> None:
        self._client = client

    async def create(self, store_id: str, path: str, content: str) -> Memory:
        """Make a memory; never overwrites.

        Raises:
            PathTaken: a memory is at the path, above it or below it; the exception names it.
            Rejected: the path or the content breaks a rule, the store is archived, or a limit is reached.

        """
        body = {"path": path, "content": content}
        return shapes.memory(await self._client.request("POST", f"{_store(store_id)}/memories", body=body))

    async def write(self, store_id: str, path: str, content: str) -> Memory:
        """Make a memory, or replace the content of the one at the path, whatever it is.

        It loses what somebody else wrote there meanwhile; `update` with `expected_sha256` does not.

        Raises:
            PathTaken: a memory is above the path or below it.
            Rejected: as `create`.

        """
        for _ in range(_MOST_WRITES):
            try:
                return await self.create(store_id, path, content)
            except PathTaken as taken:
                if taken.conflicting_path != path:
                    raise
                memory_id, last = taken.conflicting_memory_id, taken
            try:
                return await self.update(store_id, memory_id, content=content, path=path)
            except Missing as gone:  # deleted meanwhile: the path may be free
                if gone.erased:
                    raise
        raise last

    async def retrieve(self, store_id: str, memory_id: str) -> Memory:
        """One memory with its content. Raises Missing if there is none; `erased` if it was erased."""
        return shapes.memory(await self._client.request("GET", _memory(store_id, memory_id), query={"view": "full"}))

    async def update(
        self,
        store_id: str,
        memory_id: str,
        *,
        content: str | None = None,
        path: str | None = None,
        expected_sha256: str | None = None,
    ) -> Memory:
        """Change content, path or both, as one version.

        expected_sha256: in hex, of the content that you read; the memory is changed only if it still has that.

        Raises:
            Changed: it has another content by now: read it, and decide again.
            PathTaken: the new path is taken.
            Missing: the memory is gone.
            Rejected: as `create`.

        """
        given = {"content": content, "path": path}
        body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if expected_sha256 is not None:
            body["precondition"] = {"type": "content_sha256", "content_sha256": expected_sha256}
        return shapes.memory(await self._client.request("POST", _memory(store_id, memory_id), body=body))

    async def delete(self, store_id: str, memory_id: str, *, expected_sha256: str | None = None) -> None:
        """Delete a memory. expected_sha256: as for `update`.

        Raises:
            Changed: it has another content by now.
            Missing: it is gone.
            Held: the store is under legal hold.

        """
        query = {"expected_content_sha256": expected_sha256}
        await self._client.request("DELETE", _memory(store_id, memory_id), query=query)

    async def list(self, store_id: str, *, path_prefix: str = "/", with_content: bool = False) -> AsyncIterator[Memory]:
        """Every memory below a directory, in byte order of their paths.

        path_prefix: a directory, with a `/` at both ends.
        """
        limit = _FULL_PAGE if with_content else _PAGE
        query = {"path_prefix": path_prefix, "view": _view(with_content), "limit": limit}
        async with aclosing(self._client.pages(f"{_store(store_id)}/memories", query=query)) as pages:
            async for found in pages:
                yield shapes.memory(found)

    async def move(self, store_id: str, old: str, new: str) -> int:
        """Rename everything below a directory in one transaction; how many memories that were.

        old, new: directories, with a `/` at both ends.

        Raises:
            Missing: nothing is below the old one, or the server is the vendor's, which has no such route.
            PathTaken: a memory is in the way.
            Rejected: a path would break a rule, or it is more than 10,000 memories.

        """
        body = {"from": old, "to": new}
        return len(shapes.items(await self._client.request("POST", f"{_store(store_id)}/moves", body=body)))


class AsyncVersions:
    """The history of a store."""

    def __init__(self, client: AsyncMemstore) -> None:
        self._client = client

    async def list(
        self, store_id: str, *, memory_id: str | None = None, with_content: bool = False
    ) -> AsyncIterator[MemoryVersion]:
        """Every version of the store, or of one memory, newest first."""
        limit = _FULL_PAGE if with_content else _PAGE
        query = {"memory_id": memory_id, "view": _view(with_content), "limit": limit}
        async with aclosing(self._client.pages(f"{_store(store_id)}/memory_versions", query=query)) as pages:
            async for found in pages:
                yield shapes.version(found)

    async def retrieve(self, store_id: str, version_id: str) -> MemoryVersion:
        """One version with its content. Raises Missing if there is none."""
        path = f"{_store(store_id)}/memory_versions/{_id(version_id)}"
        return shapes.version(await self._client.request("GET", path, query={"view": "full"}))

    async def redact(self, store_id: str, version_id: str) -> MemoryVersion:
        """Remove content and path of a version, without a way back.

        Raises:
            Rejected: the memory has this version now; change or delete the memory first.
            Held: the store is under legal hold.

        """
        path = f"{_store(store_id)}/memory_versions/{_id(version_id)}/redact"
        return shapes.version(await self._client.request("POST", path))


def _may_be_repeated(method: str, away: Away) -> bool:
    """Whether sending a call again does no harm, and may do good."""
    if not away.was_sent or away.status in _REFUSED_UNDONE:
        return True
    return method in ("GET", "HEAD") and not isinstance(away, TimedOut) and away.status != 200


def _pause(attempt: int, away: Away) -> float:
    """Seconds before the next attempt; not the same for all clients of a server that comes back."""
    pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10) * random.uniform(0.5, 1.0)  # noqa: S311
    return min(max(pause, away.retry_after), _LONGEST_PAUSE_SECONDS)


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" ?#"):
        raise ValueError(f"no path of the API: {path!r}; it starts with / and is quoted")
    given = {key: value for key, value in (query or {}).items() if value is not None}
    try:
        return f"{path}?{urlencode(given)}" if given else path
    except UnicodeEncodeError:
        raise ValueError("a text with a lone surrogate can't be sent: it is no Unicode text") from None


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ValueError("a text with a lone surrogate can't be sent: it is no Unicode text") from None


def _id(found: str) -> str:
    if not ID.fullmatch(found):
        raise ValueError(f"no ID: {found!r}")
    return quote(found, safe="")


def _store(store_id: str) -> str:
    return f"/v1/memory_stores/{_id(store_id)}"


def _memory(store_id: str, memory_id: str) -> str:
    return f"{_store(store_id)}/memories/{_id(memory_id)}"


def _view(with_content: bool) -> str:
    return "full" if with_content else "basic"


def _expired(last_seq: int) -> ChangesExpired:
    return ChangesExpired(
        200, f"changes have expired: take a snapshot, and follow the store after {last_seq}", last_seq
    )
