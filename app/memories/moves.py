"""Moving a directory: every memory below one prefix gets its place below another, all or none.

Locks are taken as everywhere, memories first and their store last. A memory created below the prefix between the two
is not locked, and its holder may be waiting for the store. Then the move begins again instead of waiting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.contract import clock, ids, paths
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound, Overloaded, PathConflict
from app.contract.limits import MOVE_MAX_MEMORIES
from app.memories import queries
from app.memories.conditions import lock_store, refuse_if_archived
from app.memories.service import Found
from app.storage.rows.database import Row, Transaction
from app.storage.rows.tables import MODIFIED
from app.storage.storage import Storage

_ATTEMPTS = 10


class _Interrupted(Exception):
    """What is below the directory changed between the two locks."""


@dataclass(frozen=True, slots=True)
class _Move:
    """Both directories, `/` at both ends."""

    source: str
    target: str

    def path_of(self, row: Row) -> str:
        """Where a memory goes."""
        path: str = row["path"]
        return self.target + path[len(self.source) :]

    @property
    def upwards(self) -> bool:
        """Whether memories may take the old paths of others that are also moved."""
        return self.source.startswith(self.target)


class Moves:
    """Moves of directories in the stores of a caller's workspace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def move(self, caller: Caller, store_id: str, source: str, target: str) -> list[Found]:
        """Move everything below `source` to below `target`; the memories as they are then, in the order of paths.

        Each keeps its ID and gets one version; their numbers follow each other. To the same place makes none.

        Raises:
            InvalidRequest: a path would break a rule, the target is inside the source, it is too many memories at
                once, or the store is archived.
            NotFound: there is no such store, or nothing below `source`.
            PathConflict: a memory that is not moved is at a new path, above it or below it.

        """
        move = _Move(paths.check_directory(source, "from"), paths.check_directory(target, "to"))
        if move.target != move.source and move.target.startswith(move.source):
            raise InvalidRequest(f"to: {target!r} is inside {source!r}; a directory can't be moved into itself")
        start, end = paths.subtree(move.source)
        to_start, to_end = paths.subtree(move.target)
        parameters: dict[str, Any] = {
            "store_id": store_id,
            "workspace_id": caller.workspace_id,
            "start": start,
            "end": end,
            "to_start": to_start,
            "to_end": to_end,
            "limit": MOVE_MAX_MEMORIES + 1,
            "operation": MODIFIED,
            "actor_type": caller.actor.type,
            "actor_id": caller.actor.id,
        }

        async def work(transaction: Transaction) -> list[Found]:
            locked = await transaction.fetch_all(queries.LOCK_BELOW, parameters)
            store = await lock_store(transaction, parameters)
            refuse_if_archived(store, store_id)
            rows = await transaction.fetch_all(queries.BELOW, parameters)
            _refuse_number(rows, move, store_id)
            if {row["id"] for row in locked} != {row["id"] for row in rows}:
                raise _Interrupted
            if move.source == move.target:
                return [Found(row, None) for row in rows]
            new_paths = [paths.check(move.path_of(row), "to") for row in rows]
            await _refuse_conflict(transaction, parameters, move, new_paths)
            moved = parameters | {
                "memory_ids": [row["id"] for row in rows],
                "version_ids": [ids.new(ids.VERSION) for _ in rows],
                "paths": new_paths,
                "last_seq": store["last_seq"],
                "seq": store["last_seq"] + len(rows),
                "now": clock.now(),
            }
            await transaction.execute(queries.MOVE_VERSIONS, moved)
            if move.upwards:
                await transaction.execute(queries.MOVE_ASIDE, moved)
            await transaction.execute(queries.MOVE, moved)
            await transaction.execute(queries.MOVE_COUNT, moved)
            changed = zip(rows, new_paths, moved["version_ids"], strict=True)
            return [
                Found({**row, "path": path, "version_id": version_id, "updated_at": moved["now"]}, None)
                for row, path, version_id in changed
            ]

        for _ in range(_ATTEMPTS):
            try:
                return await self._storage.database.transact(work, store_id=store_id)
            except _Interrupted:
                continue
        raise Overloaded(f"memories below {source!r} come and go too fast to move them together; try again")


def _refuse_number(rows: Sequence[Row], move: _Move, store_id: str) -> None:
    if not rows:
        raise NotFound(f"nothing is below {move.source!r} in memory store {store_id!r}")
    if len(rows) > MOVE_MAX_MEMORIES:
        raise InvalidRequest(
            f"from: more than {MOVE_MAX_MEMORIES:,} memories are below {move.source!r}; move its directories one by one"
        )


async def _refuse_conflict(
    transaction: Transaction, parameters: dict[str, Any], move: _Move, new_paths: Sequence[str]
) -> None:
    """Refuse if a memory that stays is in the way. Those that move keep their places to each other."""
    above = paths.ancestors(move.target)
    if above and (other := await transaction.fetch_one(queries.AT, parameters | {"paths": above})) is not None:
        raise PathConflict(new_paths[0], other["id"], other["path"])
    others = await transaction.fetch_all(queries.OTHERS_BELOW, parameters)
    if not others:
        return
    at = {other["path"]: other for other in others}
    below: dict[str, Row] = {}
    for other in others:
        for directory in paths.ancestors(other["path"]):
            below.setdefault(directory, other)
    for path in new_paths:
        in_the_way = at.get(path) or below.get(path)
        in_the_way = in_the_way or next((at[up] for up in paths.ancestors(path) if up in at), None)
        if in_the_way is not None:
            raise PathConflict(path, in_the_way["id"], in_the_way["path"])
