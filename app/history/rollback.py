"""Rolling a whole store back to a point of its history, in one transaction.

The rows of the memories that change are locked first and the store's last, as everywhere. What changes is only known
for sure once the store is locked, so it is planned twice. A memory that came up between the two is locked only if that
is free to have; if somebody holds it, and so waits for the store, everything begins again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.history import plans, queries
from app.history.applying import apply, lock_rest, transact
from app.history.limits import ROLLBACK_MAX_CHANGES
from app.history.plans import Plan
from app.history.points import Point, resolve, state
from app.memories.conditions import lock_store, refuse_if_archived
from app.storage.rows.database import Row, Transaction
from app.storage.storage import Storage
from app.stores.holds import refuse_if_held
from app.stores.quota import Limits, refuse_over


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What was done, or would be: `version_ids` go with the plan's changes, and are None if nothing was done.

    `seq`: the change that the store went back to. `last_seq`: its newest change, after the rollback.
    """

    seq: int
    last_seq: int
    plan: Plan
    version_ids: Sequence[str] | None


class Rollback:
    """Rolls back stores of a caller's workspace."""

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._database = storage.database
        self._limits = limits

    async def roll_back(
        self, caller: Caller, store_id: str, point: Point, *, skip_redacted: bool = False, dry_run: bool = False
    ) -> RolledBack:
        """Give every memory the content and path it had, make deleted ones again, delete those made since.

        All in one transaction, or nothing. Each memory that changes gets one version, by the caller, and keeps its
        ID; where memories exchange their places, one of them gets two. `dry_run` only tells what would be done, and
        refuses what would be refused.

        Raises:
            NotFound: no such store.
            InvalidRequest: the point can't be told; the store is archived, would be too full, or it is too many
                changes; a version of then is redacted, without `skip_redacted`, which leaves such memories as they are.
            UnderLegalHold: memories would be deleted.
            PathConflict: with `skip_redacted`: a memory left as it is is in the way of another.

        """
        scope = {
            "store_id": store_id,
            "workspace_id": caller.workspace_id,
            "actor_type": caller.actor.type,
            "actor_id": caller.actor.id,
        }

        async def work(transaction: Transaction) -> RolledBack:
            _, plan, _ = await _plan(transaction, scope, point)
            rows = await transaction.fetch_all(queries.LOCK_MEMORIES, {**scope, "memory_ids": plan.live})
            store = await lock_store(transaction, scope)
            seq, plan, current = await _plan(transaction, scope, point)
            refuse_if_archived(store, store_id)
            _refuse_number(plan, seq)
            if plan.skipped and not skip_redacted:
                raise _redacted(plan.skipped, seq)
            plans.refuse_conflicts(plan, current, seq)
            if plan.loses:
                refuse_if_held(store)
            refuse_over(store, self._limits, count=plan.count_change, size=plan.bytes_change)
            if dry_run or not plan.changes:
                return RolledBack(seq, store["last_seq"], plan, None if dry_run else [])
            await lock_rest(transaction, scope, plan, {row["id"] for row in rows})
            version_ids = await apply(transaction, scope, store, plan)
            return RolledBack(seq, store["last_seq"] + len(version_ids), plan, version_ids)

        return await transact(self._database, work, store_id)


async def _plan(transaction: Transaction, scope: Mapping[str, Any], point: Point) -> tuple[int, Plan, Sequence[Row]]:
    """The change to go back to, what it takes, and the memories as they are."""
    seq = await resolve(transaction.fetch_all, scope, point)
    target = await state(transaction.fetch_all, scope, point, seq)
    current = await transaction.fetch_all(queries.CURRENT, scope)
    return seq, plans.rolling_back(current, target), current


def _refuse_number(plan: Plan, seq: int) -> None:
    if len(plan.changes) > ROLLBACK_MAX_CHANGES:
        raise InvalidRequest(
            f"rolling back to change {seq} would change {len(plan.changes):,} memories; "
            f"at most {ROLLBACK_MAX_CHANGES:,} are allowed at once"
        )


def _redacted(versions: Sequence[Row], seq: int) -> InvalidRequest:
    named = ", ".join(repr(version["memory_id"]) for version in versions[:5])
    more = f" and {len(versions) - 5} more" if len(versions) > 5 else ""
    return InvalidRequest(
        f"the versions that were in force after change {seq} are redacted for {named}{more}; "
        "with skip_redacted these memories stay as they are"
    )
