"""Carrying out a plan in a transaction that holds the store's row and the rows of the memories it changes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from app.contract import clock, ids
from app.contract.errors import Overloaded
from app.history import queries
from app.history.plans import Plan
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.tables import CREATED, DELETED, MODIFIED

T = TypeVar("T")

_ATTEMPTS = 10


class Interrupted(Exception):
    """Somebody holds a memory that the plan changes, and waits for the store: begin again."""


async def transact(database: Database, work: Callable[[Transaction], Awaitable[T]], store_id: str) -> T:
    """Run `work` in a transaction, again when it was interrupted.

    Raises:
        Overloaded: it is interrupted again and again.

    """
    for _ in range(_ATTEMPTS):
        try:
            return await database.transact(work, store_id=store_id)
        except Interrupted:
            continue
    raise Overloaded("the memory store is written to too fast for this change just now; try again")


async def lock_rest(transaction: Transaction, scope: Mapping[str, Any], plan: Plan, locked: set[str]) -> None:
    """Lock the memories of the plan that are not locked yet, now that the store is.

    Raises:
        Interrupted: one of them is not free. Locks are taken memories first, so it can't be waited for.

    """
    rest = [memory_id for memory_id in plan.live if memory_id not in locked]
    if rest:
        rows = await transaction.fetch_all(queries.LOCK_FREE_MEMORIES, {**scope, "memory_ids": rest})
        if len(rows) != len(rest):
            raise Interrupted


async def apply(transaction: Transaction, scope: Mapping[str, Any], store: Row, plan: Plan) -> list[str]:
    """Write the versions and memories of a plan; the new versions' IDs in the order of its changes.

    scope: `store_id`, `actor_type`, `actor_id`. store: its locked row.
    """
    version_ids = [ids.new(ids.VERSION) for _ in plan.changes]
    seq: int = store["last_seq"]
    begun = 0
    for operation in (DELETED, MODIFIED, CREATED):
        changes = plan.of(operation)
        if not changes:
            continue
        assert list(plan.changes[begun : begun + len(changes)]) == changes
        parameters = {
            **scope,
            "operation": operation,
            "now": clock.now(),
            "last_seq": seq,
            "memory_ids": [change.memory_id for change in changes],
            "version_ids": version_ids[begun : begun + len(changes)],
            "source_ids": [change.source["id"] for change in changes if change.source is not None],
            "paths": [change.path for change in changes],
        }
        for statement in _STATEMENTS[operation]:
            await transaction.execute(statement, parameters)
        seq += len(changes)
        begun += len(changes)
    await transaction.execute(
        queries.COUNT,
        {**scope, "seq": seq, "count_change": plan.count_change, "bytes_change": plan.bytes_change},
    )
    return version_ids


_STATEMENTS = {
    DELETED: (queries.DELETE_VERSIONS, queries.DELETE_MEMORIES),
    MODIFIED: (queries.RESTORE_VERSIONS, queries.CHANGE_ASIDE, queries.CHANGE_MEMORIES),
    CREATED: (queries.RESTORE_VERSIONS, queries.CREATE_MEMORIES),
}
