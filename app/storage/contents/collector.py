"""Removing content that nothing refers to.

The protocol, for one content X of one store:

1. *Condemn*: a transaction that holds the store's row lock, and has seen that no version has X, removes X's
   stage row and writes a row into `condemned_contents`.
2. *Collect*: the process that claims that row removes the blob, then the row.
3. Nothing is moved to the blob store while its content is condemned (`app.storage.contents.mover`), so a writer that
   brings X back meanwhile keeps it in the stage until the removal is through.

So no lock is held while the blob store works, and a content that came back can't be removed by an old decision.
A claim outlives every request that its holder may still have under way at the blob store.
"""

from dataclasses import asdict, dataclass

from app.contract import clock
from app.storage.contents.blobs import BlobStore
from app.storage.metrics import BLOBS_REMOVED
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement

_CLAIM_MICROSECONDS = 120 * clock.MICROSECONDS_PER_SECOND
_BATCH = 500

LOCK_STORE = Statement("SELECT id, deleted_at FROM memory_stores WHERE id = :store_id FOR UPDATE")
"""Serialises with every mutation of the store."""

_IS_REFERENCED = Statement(
    """
    SELECT 1 AS found FROM memory_versions WHERE store_id = :store_id AND content_sha256 = :sha256 LIMIT 1
    """
)
_UNSTAGE = Statement("DELETE FROM staged_contents WHERE store_id = :store_id AND content_sha256 = :sha256")
_CONDEMN = Statement(
    """
    INSERT INTO condemned_contents (store_id, content_sha256, token, condemned_at, claimed_until)
    VALUES (:store_id, :sha256, 1, :now, 0)
    ON CONFLICT (store_id, content_sha256) DO UPDATE SET token = condemned_contents.token + 1
    """
)
"""A claim on it stays: while its holder may still remove the blob, nobody else may call the content removed."""

_CLAIMABLE = Statement("SELECT 1 AS found FROM condemned_contents WHERE claimed_until < :now LIMIT 1")
_CLAIM = Statement(
    """
    UPDATE condemned_contents SET claimed_until = :until
     WHERE (store_id, content_sha256) IN (
           SELECT store_id, content_sha256 FROM condemned_contents
            WHERE claimed_until < :now ORDER BY condemned_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING store_id, content_sha256, token
    """
)
_FORGET = Statement(
    """
    DELETE FROM condemned_contents
     WHERE store_id = :store_id AND content_sha256 = :sha256 AND token = :token AND claimed_until = :until
    """
)
_GIVE_UP_CLAIM = Statement(
    """
    UPDATE condemned_contents SET claimed_until = 0
     WHERE store_id = :store_id AND content_sha256 = :sha256 AND claimed_until = :until
    """
)


async def condemn_unless_referenced(transaction: Transaction, store_id: str, sha256: bytes) -> bool:
    """Step 1, inside a transaction that holds the store's row lock. False if some version still has it."""
    parameters = {"store_id": store_id, "sha256": sha256, "now": clock.now()}
    if await transaction.fetch_one(_IS_REFERENCED, parameters):
        return False
    await transaction.execute(_UNSTAGE, parameters)
    await transaction.execute(_CONDEMN, parameters)
    return True


@dataclass(frozen=True, slots=True)
class _Claim:
    """One content that this process alone may remove until a time; `token` is that of its condemnation."""

    store_id: str
    sha256: bytes
    token: int
    until: int


class Collector:
    """Step 2: removes what is condemned."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def collect(self) -> int:
        """Remove condemned blobs until none is left to claim; how many it was.

        Raises:
            BlobStoreUnavailable: the rest stays condemned, for a later call.

        """
        removed = 0
        while batch := await self._claim():
            await self._blobs.remove([(claim.store_id, claim.sha256) for claim in batch])
            await self._forget(batch)
            removed += len(batch)
            BLOBS_REMOVED.inc(len(batch))
        return removed

    async def _claim(self) -> list["_Claim"]:
        if await self._database.fetch_one(_CLAIMABLE, {"now": clock.now()}) is None:
            return []

        async def work(transaction: Transaction) -> list[_Claim]:
            now = clock.now()
            until = now + _CLAIM_MICROSECONDS
            rows = await transaction.fetch_all(_CLAIM, {"now": now, "until": until, "limit": _BATCH})
            return [_Claim(row["store_id"], bytes(row["content_sha256"]), row["token"], until) for row in rows]

        return await self._database.transact(work)

    async def _forget(self, batch: list["_Claim"]) -> None:
        async def work(transaction: Transaction) -> None:
            for claim in batch:
                # Condemned again meanwhile: a blob may have been put since, so it is removed once more.
                if not await transaction.execute(_FORGET, asdict(claim)):
                    await transaction.execute(_GIVE_UP_CLAIM, asdict(claim))

        await self._database.transact(work)
