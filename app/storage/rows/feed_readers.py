"""How far each session token and API key has certainly read each store's changes: kept for 30 days after it last read.

So an erasure can tell how many readers may still hold a copy of what it erased.
"""

from app.contract import clock
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

SESSION_TOKEN, API_KEY = "session_token", "api_key"

LEARNED_OF_THE_END = (1 << 63) - 1
"""The number of a reader that was told that the store is gone; greater than that of every change."""

KEPT_MICROSECONDS = 30 * 24 * 3600 * clock.MICROSECONDS_PER_SECOND

NOTE = Statement(
    """
    INSERT INTO feed_readers (store_id, reader_type, reader_id, seq, read_at)
    VALUES (:store_id, :reader_type, :reader_id, :seq, :now)
    ON CONFLICT (store_id, reader_type, reader_id) DO UPDATE
       SET read_at = :now, seq = CASE WHEN feed_readers.seq < :seq THEN :seq ELSE feed_readers.seq END
    """
)
NOTE_END = Statement(
    """
    UPDATE feed_readers SET read_at = :now, seq = :seq
     WHERE store_id = :store_id AND reader_type = :reader_type AND reader_id = :reader_id
    """
)
"""For a store that is not there, which anybody may ask for: only one that the reader has read is noted."""
_FORGET = Statement("DELETE FROM feed_readers WHERE read_at < :before")
READERS = Statement(
    """
    SELECT r.store_id, r.reader_type, r.seq,
           CASE WHEN r.reader_type = 'api_key' THEN k.id IS NULL OR k.revoked_at IS NOT NULL
                ELSE s.id IS NULL OR s.archived_at IS NOT NULL OR t.revoked_at IS NOT NULL OR t.expires_at <= :now
           END AS has_ended
      FROM feed_readers r
      LEFT JOIN api_keys k ON k.id = r.reader_id
      LEFT JOIN session_tokens t ON t.id = r.reader_id
      LEFT JOIN sessions s ON s.id = t.session_id
     WHERE r.read_at >= :before
    """
)
"""The readers of the last 30 days; `has_ended`: one can read no more, since it was revoked or has expired."""


async def forget_old_readers(database: Database) -> None:
    """Drop those that have not read for 30 days."""
    before = clock.now() - KEPT_MICROSECONDS

    async def work(transaction: Transaction) -> None:
        await transaction.execute(_FORGET, {"before": before})

    await database.transact(work)
