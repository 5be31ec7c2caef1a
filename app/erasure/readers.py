"""The readers of a store's feed that have not come to the deletion of what was erased, and so may still hold a copy."""

from collections.abc import Iterable, Mapping

from app.contract import clock
from app.erasure import queries
from app.erasure.digests import digest
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.feed_readers import API_KEY, KEPT_MICROSECONDS, LEARNED_OF_THE_END, READERS


async def numbers(transaction: Transaction, salt: bytes, subjects: Iterable[Row]) -> dict[str, int]:
    """The number of the change that a reader must have passed, by the digest of the store.

    subjects: `store_id` and `memory_id` of what is erased. A store that went whole has a greater one than any change.
    """
    found: dict[str, int] = {}
    memories: dict[str, list[str]] = {}
    for row in subjects:
        if row["memory_id"]:
            memories.setdefault(row["store_id"], []).append(row["memory_id"])
        else:
            found[digest(salt, row["store_id"])] = LEARNED_OF_THE_END
    for store_id, memory_ids in memories.items():
        last = await transaction.fetch_one(queries.LAST_OF, {"store_id": store_id, "memory_ids": memory_ids})
        assert last is not None
        found.setdefault(digest(salt, store_id), last["seq"])
    return found


async def not_passed(database: Database, salt: bytes, needed: Mapping[str, int]) -> dict[str, int]:
    """How many readers of the last 30 days have not passed those numbers, as far as the database knows by now.

    `session_tokens` and `api_keys` still read; `ended` can't, since they were revoked or have expired: of mounts that
    were unmounted, have a newer token, or are away.
    """
    counts = {"session_tokens": 0, "api_keys": 0, "ended": 0}
    now = clock.now()
    digests: dict[str, str] = {}
    for row in await database.fetch_all(READERS, {"now": now, "before": now - KEPT_MICROSECONDS}):
        store_id = row["store_id"]
        if store_id not in digests:
            digests[store_id] = digest(salt, store_id)
        if row["seq"] < needed.get(digests[store_id], 0):
            is_key = row["reader_type"] == API_KEY
            counts["ended" if row["has_ended"] else "api_keys" if is_key else "session_tokens"] += 1
    return counts
