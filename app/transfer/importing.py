"""Imports: everything of a plan in one transaction, or nothing.

Contents go ahead into the stage, in small transactions, under the versions that are to come; the mover lets them lie
for a while (`_AHEAD`). The one transaction that counts writes rows only, so that it holds the store's lock, and
SQLite's one writer, for a short time: about a second for 10,000 memories. Afterwards the contents are moved to the
blob store. What is missing in the stage when the transaction comes it stages itself: an erasure or a slow import can
take contents out of it, and the transaction, which holds the store's lock, is the first to know. After a crash the
contents that went ahead are moved, found to be orphans and removed, as any other orphan.

An import that does not hear how its transaction ended asks: under the lock that the transaction holds as long as it
lasts, so that the answer is the last word. Contents leave the stage again only where that transaction is seen not to
have been committed, and only those that no version has.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.audit import log as audit
from app.contract import clock, ids, paths, text
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, Overloaded, Unavailable
from app.memories.service import Limits, lock_store, refuse_if_archived
from app.storage.contents.collector import LOCK_STORE
from app.storage.contents.mover import Staged
from app.storage.rows.database import Row, Transaction
from app.storage.rows.tables import CREATED
from app.storage.storage import Storage
from app.stores import queries as store_queries
from app.transfer import queries
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.spool import Spool, Spooled
from app.transfer.plan import NewMemory, Plan, Rejection

T = TypeVar("T")

_AT_ONCE = 2
_AHEAD = 15 * 60 * clock.MICROSECONDS_PER_SECOND
_CHUNK_BYTES = 2 * 1024 * 1024
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


@dataclass(slots=True)
class _Rows:
    """The rows to write, with the parameters of their statements."""

    memories: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    stagers: dict[bytes, tuple[str, Spooled]] = field(default_factory=dict)
    """For each content, the version that stages it."""


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
        rows = _with_history(plan, store_id) if plan.versions is not None else _anew(plan, store_id, caller, now)
        try:
            await self._stage_ahead(store_id, rows.stagers, spool)
            await self._write(caller, plan, spool, rows, store_id, is_new=into is None, action=action)
        except BaseException as error:
            if not await self._is_there(caller, rows, store_id, is_new=into is None, error=error):
                raise
            if not isinstance(error, Exception):
                raise
        await self._move(store_id, rows.stagers, spool)
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

    async def _stage_ahead(self, store_id: str, stagers: Mapping[bytes, tuple[str, Spooled]], spool: Spool) -> None:
        for chunk in _by_bytes(stagers.values()):
            await self._storage.mover.make_room()
            staged_at = clock.now() + _AHEAD

            async def work(
                transaction: Transaction,
                chunk: Sequence[tuple[str, Spooled]] = chunk,
                staged_at: int = staged_at,
            ) -> None:
                await transaction.execute_many(queries.STAGE, _stage_rows(store_id, chunk, spool, staged_at))

            await self._storage.database.transact(work)

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
            await _stage_missing(transaction, store_id, stagers, spool, clock.now())
            return store["memory_count"], stagers

        count, stagers = await self._storage.database.transact(work, store_id=store_id)
        await self._move(store_id, stagers, spool)
        return count

    async def _is_there(
        self, caller: Caller, rows: _Rows, store_id: str, *, is_new: bool, error: BaseException
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

        try:
            return await self._storage.database.transact(work)
        except (Unavailable, Overloaded):
            if not isinstance(error, Unavailable | Overloaded):
                raise error from None
            raise Unavailable(
                f"the database does not answer: whether memory store {store_id!r} was written is not known. "
                "Look for it there before you import again"
            ) from error

    async def _write(
        self, caller: Caller, plan: Plan, spool: Spool, rows: _Rows, store_id: str, *, is_new: bool, action: str
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
            self._refuse_over_quota(store, len(rows.memories), size)
            now = clock.now()
            await _stage_missing(transaction, store_id, rows.stagers, spool, now)
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

    def _refuse_over_quota(self, store: Row, count: int, size: int) -> None:
        if store["memory_count"] + count > self._limits.max_memories:
            raise InvalidRequest(
                f"the memory store would hold {store['memory_count'] + count:,} memories; "
                f"at most {self._limits.max_memories:,} are allowed"
            )
        if store["total_bytes"] + size > self._limits.max_bytes:
            raise InvalidRequest(
                f"the memory store's contents would be {store['total_bytes'] + size:,} bytes together; "
                f"at most {self._limits.max_bytes:,} are allowed"
            )

    async def _move(self, store_id: str, stagers: Mapping[bytes, tuple[str, Spooled]], spool: Spool) -> None:
        """Bring the contents home. What the blob store does not take now stays in the stage, and is moved later."""
        for chunk in _by_bytes(stagers.values()):
            staged = [
                Staged(version_id, store_id, content.sha256, spool.read(content)) for version_id, content in chunk
            ]
            try:
                await self._storage.mover.move(staged)
            except Unavailable:
                return


def _anew(plan: Plan, store_id: str, caller: Caller, now: int) -> _Rows:
    """One version for each memory, by the caller, now."""
    rows = _Rows()
    for memory in plan.memories:
        version_id = ids.new(ids.VERSION)
        row = {
            "store_id": store_id, "memory_id": ids.new(ids.MEMORY), "version_id": version_id, "path": memory.path,
            "sha256": memory.content.sha256, "size": memory.content.size, "created_at": now, "updated_at": now,
        }  # fmt: skip
        author = {"operation": CREATED, "actor_type": caller.actor.type, "actor_id": caller.actor.id}
        rows.memories.append(row)
        rows.versions.append({**row, **author, "before": None, "redacted_by_type": None, "redacted_by_id": None})
        rows.stagers.setdefault(memory.content.sha256, (version_id, memory.content))
    return rows


def _with_history(plan: Plan, store_id: str) -> _Rows:
    """The versions as they were, under new IDs, and the memories that are left of them."""
    rows, memory_ids, version_ids = _Rows(), dict[str, str](), dict[str, str]()
    for version in plan.versions or ():
        version_id = version_ids[version.origin_version] = ids.new(ids.VERSION)
        content = version.content
        rows.versions.append(
            {
                "store_id": store_id,
                "memory_id": memory_ids.setdefault(version.origin, ids.new(ids.MEMORY)),
                "version_id": version_id,
                "operation": version.operation,
                "path": version.path,
                "sha256": content.sha256 if content else None,
                "size": content.size if content else None,
                "created_at": version.created_at,
                "actor_type": version.actor_type,
                "actor_id": version.actor_id,
                "before": version.redacted_at,
                "redacted_by_type": version.redacted_by_type,
                "redacted_by_id": version.redacted_by_id,
            }
        )
        if content is not None:
            rows.stagers.setdefault(content.sha256, (version_id, content))
    for memory in plan.memories:
        assert memory.origin is not None
        rows.memories.append(
            {
                "store_id": store_id,
                "memory_id": memory_ids[memory.origin],
                "version_id": version_ids[plan.heads[memory.origin]],
                "path": memory.path,
                "sha256": memory.content.sha256,
                "size": memory.content.size,
                "created_at": memory.created_at,
                "updated_at": memory.updated_at,
            }
        )
    return rows


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


def _refuse_changed(rows: _Rows, there: Mapping[str, bytes]) -> None:
    """Somebody wrote into the store since the plan was made for it."""
    new = [NewMemory(row["path"], Spooled(row["sha256"], row["size"], 0)) for row in rows.memories]
    for path, reason in _clashes_with(new, there).items():
        raise InvalidRequest(f"{path!r} {reason}: it was written while the import was under way; import again")


def _stage_rows(
    store_id: str, chunk: Iterable[tuple[str, Spooled]], spool: Spool, staged_at: int
) -> list[dict[str, Any]]:
    return [
        {
            "version_id": version_id, "store_id": store_id, "sha256": content.sha256, "content": spool.read(content),
            "now": staged_at,
        }
        for version_id, content in chunk
    ]  # fmt: skip


async def _stage_missing(
    transaction: Transaction, store_id: str, stagers: Mapping[bytes, tuple[str, Spooled]], spool: Spool, now: int
) -> None:
    staged = {
        bytes(row["content_sha256"]) for row in await transaction.fetch_all(queries.STAGED, {"store_id": store_id})
    }
    missing = [stager for sha256, stager in stagers.items() if sha256 not in staged]
    for chunk in _by_bytes(missing):
        await transaction.execute_many(queries.STAGE, _stage_rows(store_id, chunk, spool, now))


def _by_bytes(stagers: Iterable[tuple[str, Spooled]]) -> Iterable[list[tuple[str, Spooled]]]:
    """In pieces of bounded size."""
    chunk: list[tuple[str, Spooled]] = []
    size = 0
    for stager in stagers:
        if chunk and size + stager[1].size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(stager)
        size += stager[1].size
    if chunk:
        yield chunk


def _chunks(rows: Sequence[T], number: int) -> Iterable[Sequence[T]]:
    for start in range(0, len(rows), number):
        yield rows[start : start + number]
