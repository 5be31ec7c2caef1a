"""The change feed: what happened in a store, in the order of its commits.

A store numbers its versions 1, 2, 3 … under its row's lock, so a reader that has seen every number up to N has seen
everything that was committed up to then, whichever server committed it and whichever it reads from.

Old versions expire, though: of a live memory all but the newest few, of a deleted one all, with the record of the
deletion among them. So a reader that starts far back meets gaps, and a gap may hold a deletion that nothing else
tells of. What is promised is this: between `after` and `next_after` of a page nothing is missing unless the page says
`truncated`. A reader that is told so can't get the missing changes from anywhere. It takes a snapshot
(`app.feed.snapshots`), which is the sum of all changes up to its `seq`, and reads on from there. A truncated page
still carries what is left and goes on, so that a reader which only wants to look at history gets to its end.

Redacted versions stay in their place, with nulls. They never were the last word on a memory: a newer version follows.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass

from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.feed import queries
from app.feed.pages import ChangePage, page_of
from app.feed.readers import FeedReaders
from app.feed.wakeups import Encode, Wakeups
from app.storage.storage import Storage
from app.stores.service import not_found as store_not_found

_HEARTBEAT_SECONDS = 5.0
_PIECE = 200
"""Changes that go out at a time: about 100 kB, all that a reader which does not read can hold of them."""


@dataclass(frozen=True, slots=True)
class Changes:
    """In a stream: changes that follow what came before without a gap, each as the bytes for the wire."""

    frames: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Truncated:
    """In a stream: changes are missing; it goes on after `last_seq`, and a snapshot is needed up to there."""

    last_seq: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """In a stream: nothing happened for some seconds."""


@dataclass(frozen=True, slots=True)
class Gone:
    """In a stream, at its end: the store was deleted."""


Item = Changes | Truncated | Quiet | Gone


class Feed:
    """Changes of the stores of a caller's workspace.

    Every method raises `NotFound` for a store that is not there, and `InvalidRequest` for a position that the store
    has not reached.
    """

    def __init__(self, storage: Storage, encode: Encode) -> None:
        """`encode` makes the bytes of a change in a stream, once for all who read it."""
        self._database = storage.database
        self._storage = storage
        self._encode = encode
        self._wakeups = Wakeups(storage.database, encode)
        self.readers = FeedReaders(storage.database)
        storage.database.on_commit = self._wakeups.wake

    def drop_stores(self, store_ids: Collection[str]) -> None:
        """Drop what is held of the changes of these stores: an erasure has touched them."""
        self._wakeups.drop_stores(store_ids)

    async def close(self) -> None:
        """End every stream."""
        await self._wakeups.close()
        await self.readers.close()

    async def page(self, caller: Caller, store_id: str, after: int, limit: int) -> ChangePage:
        """At most `limit` changes after the number `after`."""
        since = self._storage.contents.now()
        rows = await self._database.fetch_all(
            queries.PAGE,
            {"store_id": store_id, "workspace_id": caller.workspace_id, "seq": after, "limit": limit + 1},
        )
        if not rows:
            self.readers.note_end(caller, store_id)
            raise store_not_found(store_id)
        _refuse_future(after, rows[0]["last_seq"])
        self.readers.note(caller, store_id, after)
        page = await page_of(self._database, rows, after, limit)
        self._storage.contents.refuse_outdated(store_id, since)
        return page

    async def follow(self, caller: Caller, store_id: str, after: int) -> AsyncGenerator[Item, None]:
        """What happens after the number `after`, and goes on happening.

        The stream ends by itself after `Gone`, and without a word when this process loses sight of the database or
        is closed: then a reader comes again with the last number it got.
        """
        row = await self._database.fetch_one(
            queries.LAST_SEQ, {"store_id": store_id, "workspace_id": caller.workspace_id}
        )
        if row is None:
            self.readers.note_end(caller, store_id)
            raise store_not_found(store_id)
        _refuse_future(after, row["last_seq"])
        self.readers.note(caller, store_id, after)
        return self._noting(caller, store_id, after, self._stream(store_id, after))

    async def _noting(
        self, caller: Caller, store_id: str, after: int, stream: AsyncGenerator[tuple[Item, int], None]
    ) -> AsyncGenerator[Item, None]:
        """The stream. What was taken counts as seen once the next thing is taken, if only a heartbeat."""
        taken, gap = after, 0
        async with contextlib.aclosing(stream):
            async for item, position in stream:
                if taken > after and self.readers.seen(caller, store_id) >= gap:
                    self.readers.note(caller, store_id, taken)
                yield item
                taken = position
                if isinstance(item, Truncated):
                    # Only a snapshot tells the reader what became of everything up to there.
                    gap = item.last_seq
                elif isinstance(item, Gone):
                    self.readers.note_end(caller, store_id)

    async def _stream(self, store_id: str, after: int) -> AsyncGenerator[tuple[Item, int], None]:
        """Each item with the number of the last change that it reaches to."""
        with self._wakeups.watch(store_id) as (channel, woken):
            while not channel.lost:
                woken.clear()
                if channel.gone:
                    yield Gone(), after
                    return
                frames = channel.after(after)
                if frames is None:
                    # Only here, by a reader of its own, is history read: at the pace at which it is taken.
                    since = self._storage.contents.now()
                    rows = await self._database.fetch_all(
                        queries.NEWER, {"store_id": store_id, "seq": after, "limit": _PIECE + 1}
                    )
                    if not rows:
                        yield Gone(), after
                        return
                    page = await page_of(self._database, rows, after, _PIECE)
                    if self._storage.contents.is_outdated(store_id, since):
                        continue
                    if page.next_after <= after:
                        return  # The database was put back to an older state; a new request is told so.
                    if first := page.first(after):
                        yield (
                            Changes([self._encode(row, row["id"] in page.erased) for row in first]),
                            after + len(first),
                        )
                    after = page.next_after
                    if page.truncated:
                        after = page.last_seq
                        yield Truncated(page.last_seq), after
                elif frames:
                    piece = frames[:_PIECE]
                    after += len(piece)
                    yield Changes(piece), after
                else:
                    try:
                        async with asyncio.timeout(_HEARTBEAT_SECONDS):
                            await woken.wait()
                    except TimeoutError:
                        yield Quiet(), after


def _refuse_future(after: int, last_seq: int) -> None:
    if after > last_seq:
        raise InvalidRequest(
            f"after: is {after}, but the newest change of the memory store is {last_seq}; begin with a snapshot"
        )
