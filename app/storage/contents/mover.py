"""Moving content from the stage, where its version's transaction put it, to the blob store, its home.

A content is moved by three steps: see that it is not condemned, put the blob, remove the very stage row that was
seen. A condemnation removes the stage row (`app.storage.contents.collector`), so if the row is still there at the third
step, the content was not condemned in between, and its blob is there to stay. If the row is gone, another mover
was faster, or the content was erased while its blob was put: then the blob is taken back.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from app.contract import clock
from app.contract.errors import for_log
from app.storage.background import Background, happens
from app.storage.contents.blobs import BlobStore
from app.storage.contents.collector import LOCK_STORE, condemn_unless_referenced
from app.storage.metrics import BLOBS_MOVED, MOVE_FAILURES
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.statements import Statement

_log = logging.getLogger(__name__)

_BATCH = 512
_HELD_BYTES = 64 * 1024 * 1024
_CROWDED = 2_000
"""Contents held for moving above which writers wait a little, so that the stage can't outgrow the blob store."""
_CROWDED_WAIT_SECONDS = 1.0
_GATHER_SECONDS = 0.05
"""Pause before a batch: what is written meanwhile shares its round trips, and nobody waits for a move."""
_LEFT_BEHIND_MICROSECONDS = 5 * clock.MICROSECONDS_PER_SECOND
_SHUTDOWN_SECONDS = 5.0

_CONDEMNED = Statement("SELECT store_id, content_sha256 FROM condemned_contents WHERE store_id IN_LIST(:store_ids)")
_LEFT_BEHIND = Statement(
    """
    SELECT s.version_id, s.store_id, s.content_sha256, s.content
      FROM staged_contents s
     WHERE s.staged_at < :before
       AND NOT EXISTS (SELECT 1 FROM condemned_contents c
                        WHERE c.store_id = s.store_id AND c.content_sha256 = s.content_sha256)
     ORDER BY s.version_id
     LIMIT :limit
    """
)
_UNSTAGE = Statement("DELETE FROM staged_contents WHERE version_id IN_LIST(:version_ids) RETURNING version_id")


@dataclass(frozen=True, slots=True)
class Staged:
    """One stage row: the version that staged it, and its content."""

    version_id: str
    store_id: str
    sha256: bytes
    content: bytes


def _from_row(row: Row) -> Staged:
    return Staged(row["version_id"], row["store_id"], bytes(row["content_sha256"]), bytes(row["content"]))


class Mover:
    """Moves what this process staged, right after the commit; and, when asked, what others left behind."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._held: list[Staged] = []
        self._held_bytes = 0
        self._moved = asyncio.Event()
        self._healthy = True
        self._moving: Counter[str] = Counter()
        self._loop = Background("moving to the blob store", self._step)

    def start(self) -> None:
        """Begin moving in the background."""
        self._loop.start()

    async def stop(self) -> None:
        """Move what is held, within a few seconds, and end."""
        if not self._loop.is_running:
            return
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while (self._held or self._moving.total()) and self._healthy and time.monotonic() < deadline:
            self._moved.clear()
            await happens(self._moved, deadline - time.monotonic())
        await self._loop.stop()

    def staged(self, item: Staged) -> None:
        """Tell of a content that a committed transaction staged."""
        if self._held_bytes + len(item.content) > _HELD_BYTES:
            return  # It stays in the stage, and is moved as left behind.
        self._held.append(item)
        self._held_bytes += len(item.content)
        self._loop.wake()

    def forget(self, store_ids: Collection[str]) -> None:
        """Drop what is held of these stores. Whatever a version still has is in the stage, and is moved later."""
        self._hold([item for item in self._held if item.store_id not in store_ids])

    def _hold(self, items: list[Staged]) -> None:
        self._held = items
        self._held_bytes = sum(len(item.content) for item in items)
        self._moved.set()

    def is_moving(self, store_ids: Collection[str]) -> bool:
        """Whether contents of these stores are on their way to the blob store at this moment."""
        return any(self._moving[store_id] for store_id in store_ids)

    async def make_room(self) -> None:
        """Wait a little before a write while many contents wait to be moved and the blob store works."""
        if len(self._held) < _CROWDED or not self._healthy:
            return
        deadline = time.monotonic() + _CROWDED_WAIT_SECONDS
        while len(self._held) >= _CROWDED and self._healthy and time.monotonic() < deadline:
            self._moved.clear()
            await happens(self._moved, deadline - time.monotonic())

    async def _step(self) -> float | None:
        """Move one batch of what is held."""
        if not self._held:
            return None
        if len(self._held) < _BATCH:
            await asyncio.sleep(_GATHER_SECONDS)
        batch = self._held[:_BATCH]
        try:
            await self.move(batch)
            self._healthy = True
        except Exception as error:
            # What is held also stays in the stage: drop it here, and leave it to `move_left_behind`.
            self._healthy = False
            MOVE_FAILURES.inc()
            _log.warning("could not move %d contents to the blob store: %s", len(self._held), for_log(error))
            batch = self._held
        done = {id(item) for item in batch}
        self._hold([item for item in self._held if id(item) not in done])
        return 0

    async def move_left_behind(self, *, all_ages: bool = False) -> int:
        """Move what stayed in the stage for some seconds: after a crash or an outage. How many it was.

        Raises:
            BlobStoreUnavailable: the rest stays staged.

        """
        before = clock.now() - (0 if all_ages else _LEFT_BEHIND_MICROSECONDS)
        moved = 0
        while rows := await self._database.fetch_all(_LEFT_BEHIND, {"before": before, "limit": _BATCH}):
            await self.move([_from_row(row) for row in rows])
            moved += len(rows)
        return moved

    async def move(self, batch: list[Staged]) -> None:
        """The three steps, for many contents at once."""
        store_ids = sorted({item.store_id for item in batch})
        rows = await self._database.fetch_all(_CONDEMNED, {"store_ids": store_ids})
        condemned = {(row["store_id"], bytes(row["content_sha256"])) for row in rows}
        free = [item for item in batch if (item.store_id, item.sha256) not in condemned]
        if not free:
            return
        under_way = Counter(item.store_id for item in free)
        self._moving += under_way
        try:
            await self._blobs.put_many([(item.store_id, item.sha256, item.content) for item in free])
            removed = await self._unstage(free)
            BLOBS_MOVED.inc(len(removed))
            for item in free:
                if item.version_id not in removed:
                    await self._take_back(item)
        finally:
            self._moving -= under_way

    async def _unstage(self, batch: list[Staged]) -> set[str]:
        version_ids = [item.version_id for item in batch]

        async def work(transaction: Transaction) -> set[str]:
            rows = await transaction.fetch_all(_UNSTAGE, {"version_ids": version_ids})
            return {row["version_id"] for row in rows}

        return await self._database.transact(work)

    async def _take_back(self, item: Staged) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.fetch_one(LOCK_STORE, {"store_id": item.store_id})
            await condemn_unless_referenced(transaction, item.store_id, item.sha256)

        await self._database.transact(work)
