"""Blobs that no version refers to: what a crash between a put and its bookkeeping can leave."""

import time
from collections.abc import Iterable

from app.storage.contents.blobs import BlobInfo, BlobStore
from app.storage.contents.collector import LOCK_STORE, condemn_unless_referenced
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement
from app.storage.upkeep.installation import Ownership

_KNOWN = Statement(
    """
    SELECT content_sha256 FROM memory_versions WHERE store_id = :store_id AND content_sha256 IS NOT NULL
     UNION
    SELECT content_sha256 FROM staged_contents WHERE store_id = :store_id
     UNION
    SELECT content_sha256 FROM condemned_contents WHERE store_id = :store_id
    """
)


class Orphans:
    """Finds orphaned blobs older than `grace_seconds` and condemns them."""

    def __init__(self, database: Database, blobs: BlobStore, *, grace_seconds: float) -> None:
        self._database = database
        self._blobs = blobs
        self._ownership = Ownership(database, blobs)
        self._grace_seconds = grace_seconds

    async def condemn_all(self) -> int:
        """Condemn the orphans of every store; how many it was."""
        return sum([await self.condemn(blob) for blob in await self.find()])

    async def find(self, store_ids: Iterable[str] | None = None) -> list[BlobInfo]:
        """The blobs that nothing knew when they were looked up, past the grace period; of these stores, or of all.

        Raises:
            SharedBlobStore: another installation uses the same place.
        """
        await self._ownership.check()
        found = []
        for store_id in await self._blobs.list_store_ids() if store_ids is None else store_ids:
            blobs = [blob for blob in await self._blobs.list_store(store_id) if self._is_old(blob)]
            if not blobs:
                continue
            rows = await self._database.fetch_all(_KNOWN, {"store_id": store_id})
            known = {bytes(row["content_sha256"]) for row in rows}
            found += [blob for blob in blobs if blob.sha256 not in known]
        return found

    async def condemn(self, blob: BlobInfo) -> bool:
        """Condemn one, unless something refers to it by now."""

        async def work(transaction: Transaction) -> bool:
            await transaction.fetch_one(LOCK_STORE, {"store_id": blob.store_id})
            return await condemn_unless_referenced(transaction, blob.store_id, blob.sha256)

        return await self._database.transact(work, store_id=blob.store_id)

    def _is_old(self, blob: BlobInfo) -> bool:
        return blob.modified is None or time.time() - blob.modified >= self._grace_seconds
