"""Imports: everything of a plan in one transaction, or nothing.

Contents go ahead into the stage (`app.transfer.staging`). The one transaction that counts writes rows only, so that it
holds the store's lock, and SQLite's one writer, for a short time: about a second for 10,000 memories. Afterwards the
contents are moved to the blob store. An import that does not hear how its transaction ended asks
(`app.transfer.outcome`).
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.audit import log as audit
from app.contract import clock, ids, paths, text
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.memories.conditions import lock_store, refuse_if_archived
from app.storage.rows.database import Transaction
from app.storage.storage import Storage
from app.stores import queries as store_queries
from app.stores.quota import Limits, refuse_over
from app.transfer import queries
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.spool import Spool, Spooled
from app.transfer.outcome import Outcomes
from app.transfer.plan import NewMemory, Plan, Rejection
from app.transfer.rows import Rows, as_new, with_history
from app.transfer.staging import Staging, stage_missing

T = TypeVar("T")

_AT_ONCE = 2
_ROWS = 1_000
_PATHS = 1_000


@dataclass(slots=True)
class Imported:
    """What became of an import. `memory_store_id` is None where nothing was imported because of `refused`."""

    memory_store_id: str | None
    created: int
    skipped: list[Rejection] = field(default_factory=list)
    refused: list[Rejection] = field(default_factory=list)

    def wire(self) -> dict[str, Any]:
        """As commands and routes show it: what is not imported, for whatever reason, is in `skipped`."""
        return {
            "memory_store_id": self.memory_store_id,
            "created": self.created,
            "skipped": [each.wire() for each in [*self.skipped, *self.refused]],
        }


class Imports:
    """Imports into the stores of a caller's workspace, or into new ones."""

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        *,
        max_stores: int,
        max_upload: int = 0,
        max_versions: int = Bounds().versions,
    ) -> None:
        """`max_upload`: bytes of the largest archive that may be sent over HTTP; `max_versions`: of one history."""
        self.max_upload = max_upload
        self.reading = asyncio.Semaphore(_AT_ONCE)
        """Of those whose archive is in: so many are held in memory at once in a process, others wait."""
        self._max_versions = max_versions
        self._storage = storage
        self._limits = limits
        self._max_stores = max_stores
        self._staging = Staging(storage)
        self._outcomes = Outcomes(storage, self._staging)

    def bounds(self, unpacked: int) -> Bounds:
        """Of what may be read of one source that unpacks to so many bytes at most."""
        return Bounds.of_store(self._limits.max_memories, self._max_versions, unpacked)

    async def run(
        self,
        caller: Caller,
        plan: Plan,
        spool: Spool,
        *,
        into: str | None = None,
        partial: bool = False,
        action: str = "store.imported",
        new_id: str | None = None,
    ) -> Imported:
        """Write a plan into the store `into`, or into a new one with the ID `new_id`.

        With anything refused and not `partial`, nothing is written.

        Raises:
            NotFound: there is no store `into`.
            InvalidRequest: it is archived or would be over its quota, or the workspace holds no further store.

        """
        store_id = into or new_id or ids.new(ids.STORE)
        if into is not None:
            plan = await self._beside_what_is_there(caller, plan, store_id)
        _refuse_headless(plan)
        if plan.refused and not partial:
            return Imported(None, 0, plan.skipped, plan.refused)
        now = clock.now()
        rows = with_history(plan, store_id) if plan.versions is not None else as_new(plan, store_id, caller, now)
        try:
            await self._staging.ahead(store_id, rows.stagers, spool)
            await self._write(caller, plan, spool, rows, store_id, is_new=into is None, action=action)
        except BaseException as error:
            if not await self._outcomes.was_written(caller, rows, store_id, is_new=into is None, error=error):
                raise
            if not isinstance(error, Exception):
                raise
        await self._staging.home(store_id, rows.stagers, spool)
        return Imported(store_id, len(rows.memories), plan.skipped, plan.refused)

    async def _beside_what_is_there(self, caller: Caller, plan: Plan, store_id: str) -> Plan:
        """The plan for a store that holds memories. Whether it still fits is asked again under the store's lock."""
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}

        async def work(transaction: Transaction) -> dict[str, bytes]:
            refuse_if_archived(await lock_store(transaction, scope), store_id)
            return await _every_path(transaction, store_id)

        there = await self._storage.database.transact(work)
        beside = Plan(skipped=plan.skipped, refused=plan.refused)
        if plan.versions is not None:
            beside.skipped.append(Rejection("versions.jsonl", "a history goes into a new store only"))
        rest = []
        for memory in plan.memories:
            if there.get(memory.path) == memory.content.sha256:
                beside.skipped.append(Rejection(memory.path, "is in the store already, with the same content"))
            else:
                rest.append(memory)
        clashing = _clashes_with(rest, there)
        beside.refused += [Rejection(memory.path, clashing[memory.path]) for memory in rest if memory.path in clashing]
        beside.memories = [NewMemory(memory.path, memory.content) for memory in rest if memory.path not in clashing]
        return beside

    async def complete(self, caller: Caller, store_id: str, plan: Plan, spool: Spool) -> int:
        """See `app.transfer.outcome.Outcomes.complete`."""
        return await self._outcomes.complete(caller, store_id, plan, spool)

    async def _write(
        self, caller: Caller, plan: Plan, spool: Spool, rows: Rows, store_id: str, *, is_new: bool, action: str
    ) -> None:
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        size = sum(row["size"] for row in rows.memories)
        detail = {"memories": len(rows.memories), "versions": len(rows.versions), "bytes": size, "new": is_new}
        entry = audit.entry(caller, action, subject=store_id, detail=detail)

        async def work(transaction: Transaction) -> None:
            if is_new:
                await self._make_store(transaction, plan, scope)
            store = await lock_store(transaction, scope)
            refuse_if_archived(store, store_id)
            if not is_new:
                _refuse_changed(rows, await _every_path(transaction, store_id))
            refuse_over(store, self._limits, count=len(rows.memories), size=size)
            now = clock.now()
            await stage_missing(transaction, store_id, rows.stagers, spool, now)
            first = store["last_seq"] + 1
            for start, chunk in enumerate(_chunks(rows.versions, _ROWS)):
                numbered = [{**row, "seq": first + start * _ROWS + index} for index, row in enumerate(chunk)]
                await transaction.execute_many(queries.INSERT_VERSION, numbered)
            for chunk in _chunks(rows.memories, _ROWS):
                await transaction.execute_many(queries.INSERT_MEMORY, chunk)
            counted = {"seq": store["last_seq"] + len(rows.versions), "count": len(rows.memories), "bytes": size}
            await transaction.execute(queries.COUNT, scope | counted)
            await audit.append(transaction, entry)

        await self._storage.database.transact(work, store_id=store_id)

    async def _make_store(self, transaction: Transaction, plan: Plan, scope: Mapping[str, str]) -> None:
        counted = await transaction.execute(
            store_queries.COUNT_ONE_MORE, {"workspace_id": scope["workspace_id"], "maximum": self._max_stores}
        )
        if not counted:
            raise InvalidRequest(f"the workspace already holds its maximum of {self._max_stores:,} memory stores")
        fields = {
            "name": text.check_name(plan.name or ""),
            "description": text.check_description(plan.description),
            "metadata": json.dumps(text.check_metadata(plan.metadata)),
            "now": clock.now(),
        }
        await transaction.execute(store_queries.INSERT, {**scope, **fields})


def _refuse_headless(plan: Plan) -> None:
    """A memory of a history must be what its head version says."""
    if plan.versions is None:
        return
    said = {
        version.origin_version: (version.origin, version.path, version.content and version.content.sha256)
        for version in plan.versions
    }
    last = {version.origin: version.origin_version for version in plan.versions}
    kept = []
    for memory in plan.memories:
        head = plan.heads.get(memory.origin or "")
        if (
            head
            and said.get(head) == (memory.origin, memory.path, memory.content.sha256)
            and last[memory.origin or ""] == head
        ):
            kept.append(memory)
        else:
            plan.refused.append(Rejection(memory.path, "is not what its newest version in the history says"))
    plan.memories = kept


async def _every_path(transaction: Transaction, store_id: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    after = ""
    while rows := await transaction.fetch_all(
        queries.EVERY_PATH, {"store_id": store_id, "after": after, "limit": _PATHS}
    ):
        found |= {row["path"]: bytes(row["content_sha256"]) for row in rows}
        after = rows[-1]["path"]
    return found


def _clashes_with(memories: Sequence[NewMemory], there: Mapping[str, bytes]) -> dict[str, str]:
    """Why a memory can't be beside those that are there, by its path."""
    directories = {directory for path in there for directory in paths.ancestors(path)}
    found = {}
    for memory in memories:
        if memory.path in there:
            found[memory.path] = "clashes with a memory of the store that has another content"
        elif memory.path in directories:
            found[memory.path] = "clashes with a directory of the store: a path can't be both"
        elif any(above in there for above in paths.ancestors(memory.path)):
            found[memory.path] = "is below a path that is a memory of the store"
    return found


def _refuse_changed(rows: Rows, there: Mapping[str, bytes]) -> None:
    """Somebody wrote into the store since the plan was made for it."""
    new = [NewMemory(row["path"], Spooled(row["sha256"], row["size"], 0)) for row in rows.memories]
    for path, reason in _clashes_with(new, there).items():
        raise InvalidRequest(f"{path!r} {reason}: it was written while the import was under way; import again")


def _chunks(rows: Sequence[T], number: int) -> Iterable[Sequence[T]]:
    for start in range(0, len(rows), number):
        yield rows[start : start + number]
