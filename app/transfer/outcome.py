"""What became of an import whose end nobody heard of, and what it still lacks.

An import that does not hear how its transaction ended asks: under the lock that the transaction holds as long as it
lasts, so that the answer is the last word. Contents leave the stage again only where that transaction is seen not to
have been committed, and only those that no version has.
"""

from app.contract import clock
from app.contract.actors import Caller
from app.contract.errors import Unavailable
from app.memories.conditions import lock_store
from app.storage.contents.collector import LOCK_STORE
from app.storage.rows.database import Transaction
from app.storage.rows.outcomes import look_after
from app.storage.storage import Storage
from app.transfer import queries
from app.transfer.archives.spool import Spool, Spooled
from app.transfer.plan import Plan
from app.transfer.rows import Rows
from app.transfer.staging import Staging, stage_missing


class Outcomes:
    """Asks for the outcomes of imports, and completes them."""

    def __init__(self, storage: Storage, staging: Staging) -> None:
        self._storage = storage
        self._staging = staging

    async def complete(self, caller: Caller, store_id: str, plan: Plan, spool: Spool) -> int:
        """See that everything of a plan that was written before is there; the number of the store's memories.

        Contents that versions of the store have are brought again, whether they are missing or not.

        Raises:
            NotFound: there is no such store in the caller's workspace.
            Unavailable: it holds fewer versions than the plan: it is not this plan's.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        planned = {each.content.sha256: each.content for each in plan.memories}
        planned |= {each.content.sha256: each.content for each in plan.versions or () if each.content is not None}
        number = len(plan.memories if plan.versions is None else plan.versions)

        async def work(transaction: Transaction) -> tuple[int, dict[bytes, tuple[str, Spooled]]]:
            store = await lock_store(transaction, scope)
            if store["last_seq"] < number:
                raise Unavailable(f"memory store {store_id!r} holds {store['last_seq']:,} of {number:,} versions")
            holders = {
                bytes(row["content_sha256"]): row["version_id"]
                for row in await transaction.fetch_all(queries.HOLDERS, scope)
            }
            stagers = {each: (holders[each], content) for each, content in planned.items() if each in holders}
            await stage_missing(transaction, store_id, stagers, spool, clock.now())
            return store["memory_count"], stagers

        count, stagers = await self._storage.database.transact(work, store_id=store_id)
        await self._staging.home(store_id, stagers, spool)
        return count

    async def was_written(
        self, caller: Caller, rows: Rows, store_id: str, *, is_new: bool, error: BaseException
    ) -> bool:
        """Whether an import that ended with an error was written after all. If not, its contents leave the stage."""
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        first = rows.versions[0]["version_id"] if rows.versions else ""
        version_ids = [version_id for version_id, _ in rows.stagers.values()]

        async def work(transaction: Transaction) -> bool:
            # The import's own transaction may still be under way in the database; it holds this row to its end.
            await transaction.fetch_one(queries.LOCK_WORKSPACE if is_new else LOCK_STORE, scope)
            if is_new:
                found = await transaction.fetch_one(queries.STORE_EXISTS, scope)
            else:
                found = await transaction.fetch_one(queries.VERSION_EXISTS, {**scope, "version_id": first})
            if found is not None:
                return True
            await transaction.execute(queries.UNSTAGE_UNREFERENCED, {**scope, "version_ids": version_ids})
            return False

        not_known = (
            f"whether memory store {store_id!r} was written is not known. Look for it there before you import again"
        )
        return await look_after(error, self._storage.database, work, not_known)
