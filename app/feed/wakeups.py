"""Which stores this process has readers for, and what happened in them last.

A reader is woken by a commit of this process at once (`Database.on_commit`), and by one of another process when the
poll sees it: one statement for all watched stores together, every few hundredths of a second while anybody watches,
and none while nobody does. A notification per commit would reach others sooner and halve what the database commits.

All who watch a store share one channel: a change costs one statement, and is put into bytes once, however many
read it. A channel keeps what it read for about a second. A reader that fell behind further reads the database by
itself, at its own pace, so a slow reader holds no memory. The second is also the longest that a change which was
redacted meanwhile can go out as it was.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import Context
from itertools import islice

from app.contract import clock
from app.contract.errors import MemstoreError, for_log
from app.feed import queries
from app.feed.pages import page_of
from app.storage.background import Background
from app.storage.metrics import FEED_LAG
from app.storage.rows.database import Database, Row

_log = logging.getLogger(__name__)

Encode = Callable[[Row, bool], bytes]
"""A change's row, and whether it is the deletion of an erased memory, as the bytes that go to every reader."""

_POLL_SECONDS = 0.05
_KEEP_SECONDS = 1.0
_KEEP_FRAMES = 1_000
_BATCH = 500
_REFRESHES_AT_ONCE = 4
"""Statements that channels have under way together, so that they leave connections to the requests."""
_PATIENCE_SECONDS = 5.0
"""How long the database may be away before readers are sent off, who would otherwise think that nothing happens."""


class Channel:
    """One watched store."""

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id
        self.readers: set[asyncio.Event] = set()
        self.position: int | None = None
        """The newest change that is known of; None before the first look."""
        self.gone = False
        """The store was deleted."""
        self.lost = False
        """What happens in the store can no longer be seen; readers are to come again."""
        self.is_refreshing = False
        self.is_stale = False
        self.drops = 0
        """How often its changes were dropped; what was read of them before the last time is read again."""
        self._frames: deque[tuple[float, bytes]] = deque()
        """The changes up to `position`, without a gap, each with the time it was read."""

    def after(self, seq: int) -> list[bytes] | None:
        """The changes after `seq`, as far as they are known; None if they begin before what is kept."""
        if self.position is None or seq >= self.position:
            return []
        missing = seq - (self.position - len(self._frames))
        return None if missing < 0 else [frame for _, frame in islice(self._frames, missing, None)]

    def begin(self, position: int) -> None:
        """Go on from here; what came before is read from the database by who needs it."""
        self._frames.clear()
        self.position = position
        self._wake()

    def append(self, frames: Sequence[bytes]) -> None:
        """Changes that follow `position` without a gap."""
        assert self.position is not None
        now = time.monotonic()
        self._frames.extend((now, frame) for frame in frames)
        while len(self._frames) > _KEEP_FRAMES:
            self._frames.popleft()
        self.position += len(frames)
        self._wake()

    def drop(self) -> None:
        """Drop all changes: they are read from the database again by every reader that still needs them."""
        self.drops += 1
        self._frames.clear()

    def forget_old(self) -> None:
        """Drop what every reader that keeps up has sent long ago."""
        before = time.monotonic() - _KEEP_SECONDS
        while self._frames and self._frames[0][0] < before:
            self._frames.popleft()

    def end(self, *, gone: bool) -> None:
        """Tell the readers that nothing more comes: the store is gone, or out of sight."""
        self.gone, self.lost = gone, not gone
        self._wake()

    def _wake(self) -> None:
        for reader in self.readers:
            reader.set()


class Wakeups:
    """The channels of one process."""

    def __init__(self, database: Database, encode: Encode) -> None:
        self._database = database
        self._encode = encode
        self._channels: dict[str, Channel] = {}
        self._width = asyncio.Semaphore(_REFRESHES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._poll = Background("the poll of feeds", self._look, longest_pause_seconds=_PATIENCE_SECONDS)
        self._answered_at = 0.0
        """When the poll last had an answer, on the monotonic clock."""

    async def close(self) -> None:
        """Send the readers off and end what runs in the background."""
        for channel in self._channels.values():
            channel.end(gone=False)
        await self._poll.stop()
        refreshing = [*self._tasks]
        for task in refreshing:
            task.cancel()
        await asyncio.gather(*refreshing, return_exceptions=True)

    @contextlib.contextmanager
    def watch(self, store_id: str) -> Iterator[tuple[Channel, asyncio.Event]]:
        """The store's channel, and a new event that is set when the channel has something new."""
        channel = self._channels.get(store_id)
        if channel is None or channel.gone or channel.lost:
            if not self._channels:
                self._answered_at = time.monotonic()
            channel = self._channels[store_id] = Channel(store_id)
            self._refresh_soon(channel)
            self._poll.start()
            self._poll.wake()
        event = asyncio.Event()
        channel.readers.add(event)
        try:
            yield channel, event
        finally:
            channel.readers.discard(event)
            if not channel.readers and self._channels.get(store_id) is channel:
                del self._channels[store_id]

    def drop_stores(self, store_ids: Collection[str]) -> None:
        """Drop the changes of these stores."""
        for store_id in store_ids:
            if (channel := self._channels.get(store_id)) is not None:
                channel.drop()

    def wake(self, store_id: str) -> None:
        """Something was committed in a store."""
        channel = self._channels.get(store_id)
        if channel is not None:
            self._refresh_soon(channel)

    def _refresh_soon(self, channel: Channel) -> None:
        channel.is_stale = True
        if channel.is_refreshing:
            return
        channel.is_refreshing = True
        # In a context of its own: it works for all readers, not for the request that happened to begin it.
        task = asyncio.create_task(self._refresh(channel), name="feed-refresh", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refresh(self, channel: Channel) -> None:
        try:
            while channel.is_stale:
                async with self._width:
                    channel.is_stale = False
                    await self._read(channel)
        except MemstoreError as error:
            # The poll finds the store's position changed and comes here again, or sees that the database is away.
            _log.info("the changes of %s could not be read: %s", channel.store_id, for_log(error))
        except Exception:
            _log.exception("the changes of %s could not be read", channel.store_id)
            channel.end(gone=False)
        finally:
            channel.is_refreshing = False

    async def _read(self, channel: Channel) -> None:
        if channel.position is None:
            rows = await self._database.fetch_all(queries.LAST_SEQS, {"store_ids": [channel.store_id]})
            if rows:
                channel.begin(rows[0]["last_seq"])
            else:
                channel.end(gone=True)
            return
        position, drops = channel.position, channel.drops
        rows = await self._database.fetch_all(
            queries.NEWER, {"store_id": channel.store_id, "seq": position, "limit": _BATCH + 1}
        )
        if not rows:
            channel.end(gone=True)
            return
        page = await page_of(self._database, rows, position, _BATCH)
        if channel.drops != drops:
            channel.is_stale = True
        elif page.next_after < position:
            channel.end(gone=False)  # The database was put back to an older state.
        elif page.truncated:
            channel.begin(page.last_seq)  # Each reader finds the gap, and says so.
        elif page.rows:
            channel.append([self._encode(row, row["id"] in page.erased) for row in page.rows])
            FEED_LAG.observe(max(0, clock.now() - page.rows[0]["created_at"]) / clock.MICROSECONDS_PER_SECOND)
            channel.is_stale = channel.is_stale or page.has_more

    async def _look(self) -> float | None:
        if not self._channels:
            return None
        await asyncio.sleep(_POLL_SECONDS)
        asked = dict(self._channels)
        for channel in asked.values():
            channel.forget_old()
        try:
            rows = await self._database.fetch_all(queries.LAST_SEQS, {"store_ids": list(asked)})
        except MemstoreError as error:
            if time.monotonic() - self._answered_at > _PATIENCE_SECONDS:
                _log.warning("readers of changes are sent off: %s", for_log(error))
                self._send_off(asked.values())
            return 0
        except Exception:
            self._send_off(asked.values())
            raise
        self._answered_at = time.monotonic()
        newest = {row["id"]: row["last_seq"] for row in rows}
        for store_id, channel in asked.items():
            if store_id not in newest:
                channel.end(gone=True)
            elif newest[store_id] != channel.position and not channel.is_refreshing:
                self._refresh_soon(channel)
        return 0

    def _send_off(self, channels: Iterable[Channel]) -> None:
        self._answered_at = time.monotonic()
        for channel in channels:
            channel.end(gone=False)
