"""The client of the memory API.

Made by `scripts/sync_twins.py` from `async_client.py`: change that one.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from types import TracebackType
from typing import Any

from . import calls, shapes
from .credentials import Credentials
from .events import Lines
from .feed import Feed, expired
from .resources import Memories, Stores, Versions
from .shapes import Change, Found, Snapshot
from .wire import Wire

_CHANGES_PAGE = 1_000


class Memstore:
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
        self._wire = Wire(found, timeout=timeout, retries=retries, connections=connections)
        self.stores = Stores(self._wire)
        self.memories = Memories(self._wire)
        self.versions = Versions(self._wire)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    def __enter__(self) -> "Memstore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Feeds that are followed go on; a later call opens new connections."""
        self._wire.close()

    # Any route of the API

    def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Found:
        """The answer of any route of the API as JSON, with the same errors and repetitions.

        path: such as `/v1/sessions`; what comes from elsewhere in it must be quoted. query: None leaves a member out.

        Raises:
            ValueError: it can't be sent, since a text is no Unicode text, or the path is none.

        """
        return self._wire.request(method, path, query=query, body=body)

    def pages(self, path: str, *, query: Mapping[str, Any] | None = None) -> Generator[Found, None, None]:
        """The items of any listing as JSON, page after page. Raises as `request`."""
        with closing(self._wire.pages(path, query=query)) as pages:
            yield from pages

    # Following a store

    def changes(self, store_id: str, *, after: int = 0) -> Iterator[Change]:
        """The changes of a store that are there now, oldest first, after the one with that number.

        Raises:
            ChangesExpired: some of them are gone. The changes that were given until then are whole.

        """
        has_more = True
        while has_more:
            query = {"after": after, "limit": _CHANGES_PAGE}
            page = shapes.change_page(self._wire.request("GET", f"{calls.store(store_id)}/changes", query=query))
            if page.truncated:
                raise expired(page.last_seq)
            yield from page.changes
            has_more = page.has_more and page.next_after > after
            after = page.next_after

    def follow(self, store_id: str, *, after: int = 0, patience: float | None = None) -> "Feed":
        """The changes of a store after the one with that number, and then each as it comes, without an end.

        patience: seconds without a sign of life from the server, after which its `Away` is raised; None: never.
        """
        calls.store(store_id)
        return Feed(self._wire, store_id, after, patience)

    def snapshot(self, store_id: str, *, with_content: bool = False) -> Snapshot:
        """All memories of a store at one moment, in memory at once. The texts of a large store may be 100s of MB."""
        path = calls.target(f"{calls.store(store_id)}/snapshot", {"view": calls.view(with_content)})

        def read() -> Snapshot:
            stream = self._wire.open(path, "application/x-ndjson", self._wire.timeout)
            found, lines = Lines(), []
            with closing(stream.pieces()) as pieces:
                for piece in pieces:
                    lines += found.feed(piece)
            return shapes.snapshot(lines + found.end())

        return self._wire.repeated("GET", read)
