"""Removing what is left of deleted stores: stage, blobs, versions, memories, and at last the store's row.

The row, with `deleted_at` set, is the note that this is still to do; every step can be done again.
"""

from app.storage.contents.blobs import BlobStore
from app.storage.metrics import STORES_PURGED
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

_BATCH = 1_000

_DELETED_STORES = Statement(
    "SELECT id FROM memory_stores WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT :limit"
)
_PARTS = (
    Statement(
        """
        DELETE FROM memories WHERE id IN (SELECT id FROM memories WHERE store_id = :store_id LIMIT :limit)
        """
    ),
    Statement(
        """
        DELETE FROM memory_versions
         WHERE store_id = :store_id
           AND seq IN (SELECT seq FROM memory_versions WHERE store_id = :store_id ORDER BY seq LIMIT :limit)
        """
    ),
)
_UNSTAGE = Statement("DELETE FROM staged_contents WHERE store_id = :store_id")
_FORGET = Statement("DELETE FROM memory_stores WHERE id = :store_id AND deleted_at IS NOT NULL")


class Purger:
    """Purges deleted stores."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def purge(self) -> int:
        """Purge every deleted store; how many it was.

        Raises:
            BlobStoreUnavailable: the rest waits for a later call.

        """
        purged = 0
        while rows := await self._database.fetch_all(_DELETED_STORES, {"limit": 100}):
            for row in rows:
                await self.purge_store(row["id"])
                purged += 1
                STORES_PURGED.inc()
        return purged

    async def purge_store(self, store_id: str) -> None:
        """Purge one deleted store; also what is left of one whose row is gone. Errors as `purge`."""
        # Stage and versions go before the blobs: a mover that puts a blob after these are removed then finds its
        # stage row and every version gone, and condemns it.
        await self._execute(_UNSTAGE, store_id)
        for part in _PARTS:
            while await self._execute(part, store_id) == _BATCH:
                pass
        await self._blobs.remove_store(store_id)
        await self._execute(_FORGET, store_id)

    async def _execute(self, statement: Statement, store_id: str) -> int:
        async def work(transaction: Transaction) -> int:
            return await transaction.execute(statement, {"store_id": store_id, "limit": _BATCH})

        return await self._database.transact(work)
