"""Version retention: old versions go, but never a head, nor the newest few of a live memory (contract, 3.5).

A store under legal hold keeps them all.
"""

from app.contract import clock
from app.storage.contents.collector import condemn_unless_referenced
from app.storage.metrics import VERSIONS_EXPIRED
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

_BATCH = 200

_STORES = Statement(
    """
    SELECT id FROM memory_stores
     WHERE id > :store_id AND deleted_at IS NULL AND held_at IS NULL
       AND EXISTS (SELECT 1 FROM memory_versions v
                    WHERE v.store_id = memory_stores.id AND v.created_at < :before)
     ORDER BY id LIMIT :limit
    """
)
_LOCK_STORE = Statement("SELECT held_at FROM memory_stores WHERE id = :store_id FOR UPDATE")
_EXPIRED = Statement(
    """
    SELECT v.seq, v.content_sha256 FROM memory_versions v
     WHERE v.store_id = :store_id AND v.seq > :seq AND v.created_at < :before
       AND (NOT EXISTS (SELECT 1 FROM memories m WHERE m.id = v.memory_id)
            OR (SELECT count(*) FROM (SELECT 1 FROM memory_versions w
                                       WHERE w.memory_id = v.memory_id AND w.seq > v.seq
                                       LIMIT :keep) AS newer) >= :keep)
     ORDER BY v.seq LIMIT :limit
    """
)
_DELETE = Statement("DELETE FROM memory_versions WHERE store_id = :store_id AND seq = :seq")


class Retention:
    """Removes expired versions. `days` is the age in days, `keep` the number always kept of a live memory."""

    def __init__(self, database: Database, *, days: int, keep: int) -> None:
        self._database = database
        self._microseconds = days * clock.MICROSECONDS_PER_DAY
        self._keep = keep

    async def expire(self) -> int:
        """Remove every expired version, condemn content that nothing refers to now; return the number of versions."""
        before = clock.now() - self._microseconds
        expired, store_id = 0, ""
        while rows := await self._database.fetch_all(
            _STORES, {"store_id": store_id, "before": before, "limit": _BATCH}
        ):
            for row in rows:
                store_id = row["id"]
                expired += await self._expire_store(store_id, before)
        return expired

    async def _expire_store(self, store_id: str, before: int) -> int:
        expired, seq = 0, 0
        candidates = {"store_id": store_id, "seq": 0, "before": before, "keep": self._keep, "limit": 1}
        if not await self._database.fetch_all(_EXPIRED, candidates):
            return 0  # Seen without the store's lock, as is usual.

        async def work(transaction: Transaction) -> list[int]:
            # The store's row is held, so no memory can change, and no version become a head, in between.
            store = await transaction.fetch_one(_LOCK_STORE, {"store_id": store_id})
            if store is None or store["held_at"] is not None:
                return []
            rows = await transaction.fetch_all(
                _EXPIRED,
                {"store_id": store_id, "seq": seq, "before": before, "keep": self._keep, "limit": _BATCH},
            )
            for row in rows:
                await transaction.execute(_DELETE, {"store_id": store_id, "seq": row["seq"]})
            for sha256 in {bytes(row["content_sha256"]) for row in rows if row["content_sha256"] is not None}:
                await condemn_unless_referenced(transaction, store_id, sha256)
            return [row["seq"] for row in rows]

        while seqs := await self._database.transact(work, store_id=store_id):
            expired += len(seqs)
            seq = seqs[-1]
            VERSIONS_EXPIRED.inc(len(seqs))
        return expired
