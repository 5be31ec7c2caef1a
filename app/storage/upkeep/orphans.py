"""Blobs that no version refers to: what a crash between a put and its bookkeeping can leave."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

from app.storage.contents.blobs import BlobInfo, BlobStore
from app.storage.contents.collector import LOCK_STORE, condemn_unless_referenced
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement
from app.storage.upkeep.installation import Ownership

_KNOWN = Statement(
    """
    SELECT store_id, content_sha256 FROM memory_versions
     WHERE store_id IN_LIST(:store_ids) AND content_sha256 IS NOT NULL
     UNION
    SELECT store_id, content_sha256 FROM staged_contents WHERE store_id IN_LIST(:store_ids)
     UNION
    SELECT store_id, content_sha256 FROM condemned_contents WHERE store_id IN_LIST(:store_ids)
    """
)
_STORES = 200
"""Whose blobs are listed at once."""
_BLOBS = 1_000
"""Of how many, at least, the rows are read at once: a store has about as many contents as blobs."""


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
        wanted = list(await self._blobs.list_store_ids() if store_ids is None else store_ids)
        found = []
        for start in range(0, len(wanted), _STORES):
            listed = await self._blobs.list_stores(wanted[start : start + _STORES])
            for blobs in _together(blob for blob in listed if self._is_old(blob)):
                found += await self._unknown(blobs)
        return found

    async def _unknown(self, blobs: Sequence[BlobInfo]) -> list[BlobInfo]:
        stores = list(dict.fromkeys(blob.store_id for blob in blobs))
        rows = await self._database.fetch_all(_KNOWN, {"store_ids": stores})
        known = {(row["store_id"], bytes(row["content_sha256"])) for row in rows}
        return [blob for blob in blobs if (blob.store_id, blob.sha256) not in known]

    async def condemn(self, blob: BlobInfo) -> bool:
        """Condemn one, unless something refers to it by now."""

        async def work(transaction: Transaction) -> bool:
            await transaction.fetch_one(LOCK_STORE, {"store_id": blob.store_id})
            return await condemn_unless_referenced(transaction, blob.store_id, blob.sha256)

        return await self._database.transact(work, store_id=blob.store_id)

    def _is_old(self, blob: BlobInfo) -> bool:
        return blob.modified is None or time.time() - blob.modified >= self._grace_seconds


def _together(blobs: Iterable[BlobInfo]) -> Iterator[list[BlobInfo]]:
    """Blobs in pieces that each have whole stores, and end with the store that fills them."""
    piece: list[BlobInfo] = []
    for _, of_store in itertools.groupby(blobs, key=lambda blob: blob.store_id):
        piece += of_store
        if len(piece) >= _BLOBS:
            yield piece
            piece = []
    if piece:
        yield piece
