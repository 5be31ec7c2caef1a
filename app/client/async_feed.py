"""Following the changes of a store.

`feed.py`, the same for threads, is made from this file by `scripts/sync_twins.py`.
"""

import time
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType

from . import calls, shapes
from .async_exchange import AsyncEnding, AsyncStream
from .async_wire import AsyncWire
from .events import Events
from .failures import ApiError, Away, ChangesExpired, Missing, Rejected
from .shapes import Change

_HEARTBEAT_SECONDS = 25.0
"""The server sends something at least every 10 seconds."""


class AsyncFeed:
    """The changes of one store, in order, none left out and none twice, whatever becomes of connections and servers.

    It connects again by itself. Iterate in one place; use it as a context, or call `close`, which ends the iteration.
    """

    def __init__(self, wire: AsyncWire, store_id: str, after: int, patience: float | None) -> None:
        """Made by `AsyncMemstore.follow`."""
        self.seq = after
        """The number of the last change that was given. Keep it with what you made of the change, to go on there."""
        self._wire = wire
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
                await self._ending.wait(calls.pause_before(self._failures - 1, away))
            except BaseException:
                self._drop()
                raise
        self._drop()
        raise StopAsyncIteration

    async def _receive(self) -> None:
        """What the server sends next. Raises as `__anext__`."""
        if self._pieces is None:
            target = calls.target(f"{calls.store(self._store_id)}/changes", {"after": self.seq})
            self._stream = await self._wire.open(target, "text/event-stream", _HEARTBEAT_SECONDS)
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
            self._coming.append(expired(shapes.last_seq(shapes.document(data))))
        elif kind == b"gone":
            gone = "the memory store is deleted, or this key or token may no longer read it"
            self._coming.append(Missing(404, gone))

    def _drop(self) -> None:
        stream, self._stream, self._pieces = self._stream, None, None
        self._coming.clear()
        if stream is not None:
            stream.close()


def expired(last_seq: int) -> ChangesExpired:
    """What a reader is told when changes up to this number are gone."""
    return ChangesExpired(
        200, f"changes have expired: take a snapshot, and follow the store after {last_seq}", last_seq
    )
