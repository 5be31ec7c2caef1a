"""All memories of a store at one moment, to begin with before following its changes.

The rows and the store's sequence number are read in one statement, so they are one state of the store: exactly what
all changes up to `seq` add up to, and a reader that goes on with the changes after `seq` misses nothing and undoes
nothing. The rows are small and held as a whole; contents are read, and sent, a few at a time.

A content may be erased while the snapshot is on its way (its version expired or was redacted). That takes a newer
version of its memory, or its deletion, and so a change after `seq`. Such a memory stays in its place, with the content
null: the feed tells what became of it. Whether it is so is asked again for every few memories, just before they are
sent, so that nothing goes out that was erased before. A path can't be null: so a snapshot that is on its way when an
erasure (`app.erasure`) touches its store is broken off.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass

from app.contract.actors import Caller
from app.feed import queries
from app.feed.readers import FeedReaders
from app.memories.service import Found
from app.storage.contents.reading import with_fresh_rows
from app.storage.rows.database import Row
from app.storage.storage import Storage
from app.stores.service import not_found as store_not_found

_PIECE_ROWS = 250
_PIECE_BYTES = 1_048_576
"""Of content. One memory is at most a tenth of it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A store's state after its change number `seq`; `pieces` holds its `count` memories in the order of paths."""

    seq: int
    count: int
    archived_at: int | None
    pieces: AsyncGenerator[Sequence[Found], None]
    refuse_outdated: Callable[[], None]
    """Raises `Unavailable` if an erasure has touched the store since then: what was read of it must not go out."""


class Snapshots:
    """Snapshots of the stores of a caller's workspace."""

    def __init__(self, storage: Storage, readers: FeedReaders | None = None) -> None:
        """readers: to be told who has taken one; None for snapshots that nobody follows."""
        self._storage = storage
        self._readers = readers

    async def take(self, caller: Caller, store_id: str, *, with_content: bool) -> Snapshot:
        """The store as it is now.

        Raises:
            NotFound: there is no such store.

        """
        since = self._storage.contents.now()
        rows = await self._storage.database.fetch_all(
            queries.SNAPSHOT, {"store_id": store_id, "workspace_id": caller.workspace_id}
        )
        if not rows:
            if self._readers is not None:
                self._readers.note_end(caller, store_id)
            raise store_not_found(store_id)
        store = rows[0]
        memories = rows if store["id"] is not None else []

        def refuse_outdated() -> None:
            self._storage.contents.refuse_outdated(store_id, since)

        pieces = self._pieces(memories, refuse_outdated, with_content=with_content)
        if self._readers is not None:
            pieces = _noting(self._readers, caller, store_id, store["last_seq"], pieces)
        return Snapshot(store["last_seq"], len(memories), store["store_archived_at"], pieces, refuse_outdated)

    async def _pieces(
        self, rows: Sequence[Row], refuse_outdated: Callable[[], None], *, with_content: bool
    ) -> AsyncGenerator[Sequence[Found], None]:
        for piece in _divided(rows):
            found = await self._with_contents(piece) if with_content else [Found(row, None) for row in piece]
            refuse_outdated()
            yield found

    async def _with_contents(self, rows: Sequence[Row]) -> Sequence[Found]:
        async def read() -> Sequence[Found]:
            version_ids = [row["version_id"] for row in rows]
            there = await self._storage.database.fetch_all(queries.UNERASED, {"version_ids": version_ids})
            staged = {row["id"]: row["content"] for row in there}
            kept = [row for row in rows if row["version_id"] in staged]
            references = [(row["store_id"], bytes(row["content_sha256"]), staged[row["version_id"]]) for row in kept]
            texts = await self._storage.contents.read_many(references)
            contents = {row["version_id"]: text for row, text in zip(kept, texts, strict=True)}
            return [Found(row, contents.get(row["version_id"])) for row in rows]

        return await with_fresh_rows(self._storage.contents, read)


async def _noting(
    readers: FeedReaders, caller: Caller, store_id: str, seq: int, pieces: AsyncGenerator[Sequence[Found], None]
) -> AsyncGenerator[Sequence[Found], None]:
    """The pieces; the caller begins to read with the first, and has seen everything once the last was taken."""
    readers.note(caller, store_id, 0)
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            yield piece
    readers.note(caller, store_id, seq)


def _divided(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in pieces of bounded number and bytes of content."""
    start = size = 0
    for end, row in enumerate(rows):
        if end - start == _PIECE_ROWS or size + row["content_size"] > _PIECE_BYTES:
            yield rows[start:end]
            start, size = end, 0
        size += row["content_size"]
    if start < len(rows):
        yield rows[start:]
