"""The contents of an import on their way: from its spool through the stage to the blob store, some at a time.

They go ahead into the stage, in small transactions, under the versions that are to come; the mover lets them lie for a
while (`_AHEAD`). What is missing there when the transaction comes that counts, that one stages itself: an erasure or a
slow import can take contents out of the stage. After a crash the contents that went ahead are moved, found to be
orphans and removed, as any other orphan.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.contract import clock
from app.contract.errors import Unavailable
from app.storage.contents.mover import Staged
from app.storage.rows.database import Transaction
from app.storage.storage import Storage
from app.transfer import queries
from app.transfer.archives.spool import Spool, Spooled

_AHEAD = 15 * 60 * clock.MICROSECONDS_PER_SECOND
_CHUNK_BYTES = 2 * 1024 * 1024

Stagers = Mapping[bytes, tuple[str, Spooled]]
"""For each content, the version that stages it."""


class Staging:
    """Brings the contents of imports into a deployment."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def ahead(self, store_id: str, stagers: Stagers, spool: Spool) -> None:
        """Stage contents before the transaction that counts."""
        for chunk in _by_bytes(stagers.values()):
            await self._storage.mover.make_room()
            staged_at = clock.now() + _AHEAD

            async def work(
                transaction: Transaction,
                chunk: Sequence[tuple[str, Spooled]] = chunk,
                staged_at: int = staged_at,
            ) -> None:
                await transaction.execute_many(queries.STAGE, _stage_rows(store_id, chunk, spool, staged_at))

            await self._storage.database.transact(work)

    async def home(self, store_id: str, stagers: Stagers, spool: Spool) -> None:
        """Bring the contents home. What the blob store does not take now stays in the stage, and is moved later."""
        for chunk in _by_bytes(stagers.values()):
            staged = [
                Staged(version_id, store_id, content.sha256, spool.read(content)) for version_id, content in chunk
            ]
            try:
                await self._storage.mover.move(staged)
            except Unavailable:
                return


def _stage_rows(
    store_id: str, chunk: Iterable[tuple[str, Spooled]], spool: Spool, staged_at: int
) -> list[dict[str, Any]]:
    return [
        {
            "version_id": version_id, "store_id": store_id, "sha256": content.sha256, "content": spool.read(content),
            "now": staged_at,
        }
        for version_id, content in chunk
    ]  # fmt: skip


async def stage_missing(transaction: Transaction, store_id: str, stagers: Stagers, spool: Spool, now: int) -> None:
    """Stage, in the transaction that counts, what is not in the stage of the store."""
    staged = {
        bytes(row["content_sha256"]) for row in await transaction.fetch_all(queries.STAGED, {"store_id": store_id})
    }
    missing = [stager for sha256, stager in stagers.items() if sha256 not in staged]
    for chunk in _by_bytes(missing):
        await transaction.execute_many(queries.STAGE, _stage_rows(store_id, chunk, spool, now))


def _by_bytes(stagers: Iterable[tuple[str, Spooled]]) -> Iterable[list[tuple[str, Spooled]]]:
    """In pieces of bounded size."""
    chunk: list[tuple[str, Spooled]] = []
    size = 0
    for stager in stagers:
        if chunk and size + stager[1].size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(stager)
        size += stager[1].size
    if chunk:
        yield chunk
