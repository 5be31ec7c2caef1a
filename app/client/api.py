"""The memory API over HTTP, for one store."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from app import __version__
from app.client import wire
from app.client.exchange import Connections
from app.client.failures import ApiError, Away, Missing, TimedOut, failure
from app.client.stream import Watch, lines
from app.client.wire import Memory, Page, Snapshot
from app.contract.actors import ID_FIELDS

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
        # A stream holds its connection until it ends.
        kind = urllib3.HTTPSConnectionPool if url.scheme == "https" else urllib3.HTTPConnectionPool
        self._streams = kind(url.hostname or "", url.port, maxsize=2, block=False, retries=False)
        self._stream_seconds = seconds or _READ_SECONDS

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._connections.close()
        self._streams.close()

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
        return Snapshot(None, archived, 0, self._listing(view))

    def _stream_snapshot(self, view: str) -> Snapshot:
        answer = self._open(f"{self._prefix}/snapshot?view={view}", self._stream_seconds)
        texts = lines(answer)
        try:
            head = json.loads(next(texts))
        except (StopIteration, ValueError):
            raise Away(answer.status, "the snapshot ended early") from None
        return Snapshot(head["seq"], head["archived_at"] is not None, head["count"], _counted(texts, head["count"]))

    def _listing(self, view: str) -> Iterator[Memory]:
        limit = 20 if view == "full" else 100
        page: str | None = None
        while True:
            query = f"?view={view}&limit={limit}" + (f"&page={quote(page, safe='')}" if page else "")
            answer = self._call("GET", self._memories + query)
            for item in answer["data"]:
                yield wire.memory(item)
            page = answer["next_page"]
            if not page:
                return

    def retrieve(self, memory_id: str, *, full: bool = True) -> Memory:
        """One memory."""
        return wire.memory(self._call("GET", f"{self._memories}/{memory_id}?view={'full' if full else 'basic'}"))

    def version_content(self, version_id: str) -> bytes | None:
        """The content of a version; None if it has none any more."""
        content = self._call("GET", f"{self._prefix}/memory_versions/{version_id}")["content"]
        return None if content is None else str(content).encode()

    def version_author(self, version_id: str) -> str | None:
        """Who made a version: the actor's type, a colon, its ID; None if that was not recorded."""
        actor: dict[str, str] = (
            self._call("GET", f"{self._prefix}/memory_versions/{version_id}").get("created_by") or {}
        )
        kind = actor.get("type", "")
        return f"{kind}:{actor[ID_FIELDS[kind]]}" if kind in ID_FIELDS else None

    def latest_versions(self, memory_id: str) -> list[tuple[str, str | None]]:
        """ID and digest of the memory's last versions (up to 100), newest first."""
        answer = self._call("GET", f"{self._prefix}/memory_versions?memory_id={memory_id}&limit=100")
        return [(version["id"], version["content_sha256"]) for version in answer["data"]]

    def changes(self, after: int, limit: int = 1_000) -> Page:
        """The changes that follow the sequence number."""
        answer = self._call("GET", f"{self._prefix}/changes?after={after}&limit={limit}")
        events = [wire.event(item) for item in answer["data"]]
        return Page(events, answer["next_after"], answer["has_more"], answer["truncated"])

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
        answer = self._call("POST", f"{self._prefix}/moves", {"from": old, "to": new})
        return [wire.memory(item) for item in answer["data"]]

    # The wire

    def _headers(self) -> dict[str, str]:
        return {**_HEADERS, **authorization(self._token())}

    def _call(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        sent = self._headers()  # once: what keeps a token from coming is not tried again and again here
        if method == "GET":
            status, headers, answer = self._read(url, sent)
        else:
            status, headers, answer = self._connections.call(method, url, sent, data)
        if not 200 <= status < 300:
            raise failure(status, headers, answer)
        try:
            parsed = json.loads(answer)
        except ValueError as error:
            raise Away(status, "the answer is no JSON") from error
        if not isinstance(parsed, dict):
            raise ApiError(status, "the answer is no JSON object")
        return parsed

    def _read(self, url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """A read does no harm twice: a connection that was cut is no reason to fail it."""
        for pause in _READ_AGAIN_SECONDS:
            try:
                return self._connections.call("GET", url, headers, None)
            except TimedOut:
                raise
            except Away:
                time.sleep(pause)
        return self._connections.call("GET", url, headers, None)

    def _open(self, url: str, seconds: float, more: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """An answer whose body is still to be read. seconds: the longest pause in it."""
        try:
            answer = self._streams.urlopen(
                "GET",
                url,
                headers={**self._headers(), **(more or {})},
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds),
                preload_content=False,
            )
            if not 200 <= answer.status < 300:
                raise failure(answer.status, answer.headers, answer.read(65_536))
        except (HTTPError, OSError) as error:
            raise Away(0, f"{type(error).__name__}: {error}") from error
        return answer


def authorization(secret: str) -> dict[str, str]:
    """The header that carries a credential: the vendor takes its API keys in `x-api-key` alone."""
    if secret.startswith("sk-ant-api"):
        return {"x-api-key": secret}
    return {"authorization": f"Bearer {secret}"}


def _counted(texts: Iterator[bytes], count: int) -> Iterator[Memory]:
    """The memories of a snapshot; one that ends early is an error, never a store with fewer memories."""
    found = 0
    for text in texts:
        if text:
            found += 1
            try:
                yield wire.memory(json.loads(text))
            except ValueError:
                raise Away(200, "the snapshot broke off") from None
    if found != count:
        raise Away(200, f"the snapshot ended after {found} of {count} memories")
