"""Legal holds: while a store has one, nothing that is in it, or was, can be lost. Ours: the vendor has none.

Writing and archiving go on: the old text of what is changed stays, as versions. Code that would remove something asks
`refuse_if_held` in the transaction that would, once it has the store's row locked; so a hold that was granted holds.
"""

from app.audit import log as audit
from app.contract import clock, text
from app.contract.actors import Caller
from app.contract.errors import NotFound, UnderLegalHold
from app.storage.rows.database import Row, Transaction
from app.storage.storage import Storage
from app.stores import queries
from app.stores.missing import not_found


def refuse_if_held(store: Row) -> None:
    """Refuse to remove anything of a store whose row (`id`, `held_at`) the transaction has locked.

    Raises:
        UnderLegalHold: it has a hold.

    """
    if store["held_at"] is not None:
        raise UnderLegalHold(store["id"], clock.rfc3339(store["held_at"]))


class Holds:
    """Holds on the stores of a caller's workspace. Every method raises `NotFound` for a store that is not there.

    A hold's row has `id`, `held_at` (microseconds) and `hold_reason` (or None).
    """

    def __init__(self, storage: Storage) -> None:
        self._database = storage.database

    async def place(self, caller: Caller, store_id: str, reason: str | None) -> Row:
        """Put a store under hold. Doing it twice keeps the time, and the reason unless one is given.

        Raises:
            InvalidRequest: the reason breaks its rule.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        if reason is not None:
            text.check_hold_reason(reason)
        entry = audit.entry(caller, "store.held", subject=store_id)

        async def work(transaction: Transaction) -> Row:
            row = await transaction.fetch_one(queries.LOCK_HOLD, scope)
            if row is None:
                raise not_found(store_id)
            held = {
                "id": store_id,
                "held_at": clock.now() if row["held_at"] is None else row["held_at"],
                "hold_reason": row["hold_reason"] if reason is None else reason,
            }
            if (row["held_at"], row["hold_reason"]) != (held["held_at"], held["hold_reason"]):
                await transaction.execute(
                    queries.HOLD, {**scope, "held_at": held["held_at"], "reason": held["hold_reason"]}
                )
                await audit.append(transaction, entry)
            return held

        return await self._database.transact(work, store_id=store_id)

    async def retrieve(self, caller: Caller, store_id: str) -> Row:
        """The hold of a store.

        Raises:
            NotFound: it has none.

        """
        row = await self._database.fetch_one(
            queries.FIND_HOLD, {"store_id": store_id, "workspace_id": caller.workspace_id}
        )
        if row is None:
            raise not_found(store_id)
        if row["held_at"] is None:
            raise _no_hold(store_id)
        return row

    async def release(self, caller: Caller, store_id: str) -> None:
        """End the hold of a store.

        Raises:
            NotFound: it has none.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "store.released", subject=store_id)

        async def work(transaction: Transaction) -> None:
            row = await transaction.fetch_one(queries.LOCK_HOLD, scope)
            if row is None:
                raise not_found(store_id)
            if row["held_at"] is None:
                raise _no_hold(store_id)
            await transaction.execute(queries.HOLD, {**scope, "held_at": None, "reason": None})
            await audit.append(transaction, entry)

        await self._database.transact(work, store_id=store_id)


def _no_hold(store_id: str) -> NotFound:
    return NotFound(f"memory store {store_id!r} is under no legal hold")
