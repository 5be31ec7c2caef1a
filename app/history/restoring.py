"""Restoring one memory to one of its versions: a new version with the old content, at the old path."""

from collections.abc import Mapping
from typing import Any

from app.contract import content as contents
from app.contract import paths
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound
from app.history import plans
from app.history.applying import Interrupted, apply, transact
from app.memories import queries as memory_queries
from app.memories.conditions import lock_store, refuse_conflict, refuse_if_archived, refuse_unexpected
from app.memories.service import Found, Memories
from app.storage.rows.database import Row, Transaction
from app.storage.rows.tables import DELETED
from app.storage.storage import Storage
from app.stores.quota import Limits, refuse_over
from app.versions import queries as version_queries


class Restoring:
    """Restores memories of the stores of a caller's workspace."""

    def __init__(self, storage: Storage, memories: Memories, limits: Limits) -> None:
        self._storage = storage
        self._memories = memories
        self._limits = limits

    async def restore(
        self,
        caller: Caller,
        store_id: str,
        version_id: str,
        *,
        path: str | None = None,
        expected_sha256: str | None = None,
        with_content: bool = False,
    ) -> Found:
        """Give a memory the content and the path of one of its versions, or another `path`.

        A live memory gets a `modified` version, none if it is so already. A deleted one comes back with its ID, by a
        `created` version.

        Raises:
            NotFound: no such store or version.
            InvalidRequest: the version is redacted or a deletion; the store is archived or would be too full.
            PreconditionFailed: the current content is not the expected one, or there is none.
            PathConflict: another memory is at the path, above it or below it.

        """
        if path is not None:
            paths.check(path)
        expected = (
            None if expected_sha256 is None else contents.parse_sha256(expected_sha256, "precondition.content_sha256")
        )
        scope = {
            "store_id": store_id,
            "workspace_id": caller.workspace_id,
            "version_id": version_id,
            "actor_type": caller.actor.type,
            "actor_id": caller.actor.id,
        }

        async def work(transaction: Transaction) -> str:
            version = await transaction.fetch_one(version_queries.FIND, scope)
            memory = None
            if version is not None:
                memory = await transaction.fetch_one(memory_queries.LOCK, _of(scope, version))
            store = await lock_store(transaction, scope)
            # Only now does it stay as it is: it may have been redacted, or the memory be back.
            version = await transaction.fetch_one(version_queries.FIND, scope)
            if version is None:
                raise NotFound(f"memory version {version_id!r} was not found in memory store {store_id!r}")
            parameters = _of(scope, version)
            if memory is None and await transaction.fetch_one(memory_queries.FIND, parameters) is not None:
                raise Interrupted
            refuse_if_archived(store, store_id)
            _refuse_without_content(version)
            target = path or version["path"]
            plan = plans.restoring(memory, version, target)
            if plan.changes:
                refuse_unexpected(memory, expected)
                if memory is None or memory["path"] != target:
                    await refuse_conflict(transaction, store_id, version["memory_id"], target)
                refuse_over(store, self._limits, count=plan.count_change, size=plan.bytes_change)
                await apply(transaction, scope, store, plan)
            memory_id: str = version["memory_id"]
            return memory_id

        memory_id = await transact(self._storage.database, work, store_id)
        return await self._memories.retrieve(caller, store_id, memory_id, with_content=with_content)


def _of(scope: Mapping[str, Any], version: Row) -> dict[str, Any]:
    return {**scope, "memory_id": version["memory_id"]}


def _refuse_without_content(version: Row) -> None:
    if version["redacted_at"] is not None:
        raise InvalidRequest(f"memory version {version['id']!r} is redacted: its content is gone and can't be restored")
    if version["operation"] == DELETED:
        raise InvalidRequest(
            f"memory version {version['id']!r} is a deletion and has no content; restore the version before it, or "
            "delete the memory"
        )
