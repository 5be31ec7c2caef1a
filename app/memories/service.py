"""The rules of memories and the transactions that keep them (contract, 2).

A change is first tried as one statement where the database can do that; whenever something is in its way, the
transaction below decides, and it alone knows why a change is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.contract import clock, cursors, ids, paths
from app.contract import content as contents
from app.contract.actors import Caller
from app.contract.content import Content
from app.contract.errors import InvalidRequest, NotFound, PathConflict, PreconditionFailed
from app.memories import queries, repeats
from app.storage.contents.mover import Staged
from app.storage.contents.reading import Moment, with_fresh_rows
from app.storage.rows.database import Row, Transaction
from app.storage.rows.statements import Statement
from app.storage.rows.tables import CREATED, DELETED, MODIFIED
from app.storage.storage import Storage
from app.stores.holds import refuse_if_held
from app.stores.service import not_found as store_not_found

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A memory's row, and its content where that was asked for."""

    row: Row
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Directory:
    """In a listing with depth 1: everything below one direct child. `path` ends with `/`."""

    path: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one store may hold."""

    max_memories: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What to list: `depth` 0 or 1 below `prefix` (`/` at both ends)."""

    prefix: str
    depth: int
    with_content: bool
    limit: int


@dataclass(frozen=True, slots=True)
class _Change:
    """An update, checked: what is None stays."""

    content: Content | None
    path: str | None
    expected_sha256: bytes | None


def not_found(memory_id: str, store_id: str) -> NotFound:
    """The refusal for a memory that its store does not have."""
    return NotFound(
        f"memory {memory_id!r} was not found in memory store {store_id!r}", store_id=store_id, memory_id=memory_id
    )


class Memories:
    """Memories of the stores of a caller's workspace.

    Every method raises `NotFound` for a store or memory that is not there.
    """

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage = storage
        self._limits = limits

    # Reading

    async def retrieve(self, caller: Caller, store_id: str, memory_id: str, *, with_content: bool) -> Found:
        """One memory."""
        scope = _scope(caller, store_id, memory_id)
        if not with_content:
            return Found(await self._find(queries.FIND, scope), None)
        return await with_fresh_rows(self._storage.contents, lambda: self._retrieve_full(scope))

    async def _retrieve_full(self, scope: Parameters) -> Found:
        row = await self._find(queries.FIND_WITH_CONTENT, scope)
        content = await self._storage.contents.read((row["store_id"], bytes(row["content_sha256"]), row["content"]))
        return Found(row, content)

    async def _find(self, statement: Statement, scope: Parameters) -> Row:
        row = await self._storage.database.fetch_one(statement, scope)
        if row is None:
            await self._require_store(scope)
            raise not_found(scope["memory_id"], scope["store_id"])
        return row

    async def _require_store(self, scope: Parameters) -> None:
        if await self._storage.database.fetch_one(queries.STORE_EXISTS, scope) is None:
            raise store_not_found(scope["store_id"])

    async def list_page(
        self, caller: Caller, store_id: str, listing: Listing, page: str | None
    ) -> tuple[list[Found | Directory], str | None]:
        """A page in byte order of paths, and the cursor of the next one.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        listing = replace(listing, prefix=paths.check_prefix(listing.prefix))
        return await with_fresh_rows(self._storage.contents, lambda: self._list(caller, store_id, listing, page))

    async def _list(
        self, caller: Caller, store_id: str, listing: Listing, page: str | None
    ) -> tuple[list[Found | Directory], str | None]:
        cursor_scope = ("memories", store_id, listing.prefix, listing.depth)
        start, end = paths.subtree(listing.prefix)
        if page is not None:
            (last,) = cursors.decode(cursor_scope, page, (str,))
            start = _after(last)
        parameters: Parameters = {
            "store_id": store_id,
            "workspace_id": caller.workspace_id,
            "start": start,
            "end": end,
            "limit": listing.limit + 1,
        }
        if listing.depth == 1:
            parameters["prefix_length"] = len(listing.prefix)
        rows = await self._storage.database.fetch_all(_list_statement(listing), parameters)
        if not rows:
            await self._require_store(parameters)
        entries = await self._entries(rows[: listing.limit], listing)
        if len(rows) <= listing.limit:
            return entries, None
        final = entries[-1]
        key = final.path if isinstance(final, Directory) else final.row["path"]
        return entries, cursors.encode(cursor_scope, (key,))

    async def _entries(self, rows: Sequence[Row], listing: Listing) -> list[Found | Directory]:
        entries: list[Found | Directory] = []
        for row in rows:
            child, slash, _ = row["path"][len(listing.prefix) :].partition("/")
            if listing.depth == 1 and slash:
                entries.append(Directory(listing.prefix + child + slash))
            else:
                entries.append(Found(row, None))
        if not listing.with_content:
            return entries
        found = [entry for entry in entries if isinstance(entry, Found)]
        references = [(f.row["store_id"], bytes(f.row["content_sha256"]), f.row["content"]) for f in found]
        texts = iter(await self._storage.contents.read_many(references))
        return [replace(entry, content=next(texts)) if isinstance(entry, Found) else entry for entry in entries]

    # Writing

    async def create(self, caller: Caller, store_id: str, path: str, text: str, *, is_repeated: bool = False) -> Found:
        """Make a memory. `is_repeated`: the caller may have made it already (`app.memories.repeats`).

        Raises:
            InvalidRequest: path or content break a rule, the store is archived or full.
            PathConflict: a memory is at the path, above it or below it.

        """
        paths.check(path)
        content = contents.check(text)
        await self._storage.mover.make_room()
        since = self._storage.contents.now()
        parameters = _writing(caller, store_id, ids.new(ids.MEMORY), CREATED) | _storing(content)

        async def work(transaction: Transaction) -> Row:
            store = await lock_store(transaction, parameters)
            refuse_if_archived(store, store_id)
            try:
                await _refuse_conflict(transaction, parameters, path)
            except PathConflict:
                made = await repeats.created_before(transaction, parameters, path) if is_repeated else None
                if made is None:
                    raise
                return made
            self._refuse_over_quota(store, 1, content.size)
            parameters.update(path=path, seq=store["last_seq"] + 1, count_change=1, bytes_change=content.size)
            await transaction.execute(queries.CREATE, parameters)
            return _row(parameters, created_at=parameters["now"])

        row = await self._storage.database.transact(work, store_id=store_id)
        if row["version_id"] == parameters["version_id"]:
            self._after_commit(parameters, content, since)
        return Found(row, content.data)

    async def update(
        self,
        caller: Caller,
        store_id: str,
        memory_id: str,
        *,
        text: str | None,
        path: str | None,
        expected_sha256: str | None,
        with_content: bool,
    ) -> Found:
        """Change content, path, or both, as one version; none if nothing changes.

        Raises:
            InvalidRequest: nothing was given, something breaks a rule, the store is archived or full.
            PreconditionFailed: the current content is not the expected one.
            PathConflict: another memory is at the new path, above it or below it.

        """
        if text is None and path is None:
            raise InvalidRequest("content, path: at least one of the two must be given")
        change = _Change(
            None if text is None else contents.check(text),
            None if path is None else paths.check(path),
            None if expected_sha256 is None else contents.parse_sha256(expected_sha256, "precondition.content_sha256"),
        )
        parameters = _writing(caller, store_id, memory_id, MODIFIED)
        if change.content is not None:
            await self._storage.mover.make_room()
            parameters |= _storing(change.content)
        since = self._storage.contents.now()
        row = await self._change_at_once(parameters, change) or await self._change(parameters, change)
        if change.content is None:
            # A rename has no content at hand; the memory is read again where it is wanted.
            if with_content:
                return await self.retrieve(caller, store_id, memory_id, with_content=True)
            return Found(row, None)
        if row["version_id"] == parameters["version_id"]:
            self._after_commit(parameters, change.content, since)
        return Found(row, change.content.data)

    async def _change_at_once(self, parameters: Parameters, change: _Change) -> Row | None:
        """A change of content alone as one statement, where the database can; None if it did not apply."""
        database = self._storage.database
        if change.content is None or change.path is not None or not database.has_single_statement_mutations:
            return None
        return await database.mutate(
            queries.CHANGE_CONTENT_AT_ONCE,
            parameters | {"expected_sha256": change.expected_sha256, "maximum": self._limits.max_bytes},
            store_id=parameters["store_id"],
            row_id=parameters["memory_id"],
        )

    async def _change(self, parameters: Parameters, change: _Change) -> Row:
        async def work(transaction: Transaction) -> Row:
            memory, store = await _lock(transaction, parameters)
            refuse_if_archived(store, parameters["store_id"])
            sha256 = bytes(memory["content_sha256"])
            new_sha256 = change.content.sha256 if change.content else sha256
            size = change.content.size if change.content else memory["content_size"]
            path = change.path or memory["path"]
            if new_sha256 == sha256 and path == memory["path"]:
                return memory
            _refuse_unexpected(sha256, change.expected_sha256)
            if path != memory["path"]:
                await _refuse_conflict(transaction, parameters, path)
            bytes_change = size - memory["content_size"]
            self._refuse_over_quota(store, 0, bytes_change)
            parameters.update(
                path=path, sha256=new_sha256, size=size, seq=store["last_seq"] + 1,
                count_change=0, bytes_change=bytes_change,
            )  # fmt: skip
            await transaction.execute(queries.CHANGE if change.content else queries.RENAME, parameters)
            return _row(parameters, created_at=memory["created_at"])

        return await self._storage.database.transact(work, store_id=parameters["store_id"])

    async def delete(
        self, caller: Caller, store_id: str, memory_id: str, *, expected_sha256: str | None, is_repeated: bool = False
    ) -> None:
        """Delete a memory; its versions stay. Allowed on archived stores.

        `is_repeated`: the caller may have deleted it already (`app.memories.repeats`).

        Raises:
            PreconditionFailed: the current content is not the expected one.
            UnderLegalHold: the store is.

        """
        expected = (
            None if expected_sha256 is None else contents.parse_sha256(expected_sha256, "expected_content_sha256")
        )
        parameters = _writing(caller, store_id, memory_id, DELETED)
        parameters |= {"sha256": None, "size": None, "expected_sha256": expected}
        database = self._storage.database
        if database.has_single_statement_mutations and await database.mutate(
            queries.DELETE_AT_ONCE, parameters, store_id=store_id, row_id=memory_id
        ):
            return

        async def work(transaction: Transaction) -> None:
            try:
                memory, store = await _lock(transaction, parameters)
            except NotFound:
                if is_repeated and await repeats.was_deleted_before(transaction, parameters):
                    return
                raise
            refuse_if_held(store)
            _refuse_unexpected(bytes(memory["content_sha256"]), expected)
            parameters.update(
                path=memory["path"], seq=store["last_seq"] + 1,
                count_change=-1, bytes_change=-memory["content_size"],
            )  # fmt: skip
            await transaction.execute(queries.DELETE, parameters)

        await database.transact(work, store_id=store_id)

    def _refuse_over_quota(self, store: Row, count_change: int, bytes_change: int) -> None:
        if count_change > 0 and store["memory_count"] + count_change > self._limits.max_memories:
            raise InvalidRequest(
                f"the memory store already holds its maximum of {self._limits.max_memories:,} memories"
            )
        if bytes_change > 0 and store["total_bytes"] + bytes_change > self._limits.max_bytes:
            raise InvalidRequest(
                f"the memory store's contents would be {store['total_bytes'] + bytes_change:,} bytes together; "
                f"at most {self._limits.max_bytes:,} are allowed"
            )

    def _after_commit(self, parameters: Parameters, content: Content, since: Moment) -> None:
        store_id = parameters["store_id"]
        self._storage.contents.remember(store_id, content.sha256, content.data, since)
        self._storage.mover.staged(Staged(parameters["version_id"], store_id, content.sha256, content.data))


def _scope(caller: Caller, store_id: str, memory_id: str) -> Parameters:
    return {"store_id": store_id, "workspace_id": caller.workspace_id, "memory_id": memory_id}


def _writing(caller: Caller, store_id: str, memory_id: str, operation: int) -> Parameters:
    return _scope(caller, store_id, memory_id) | {
        "version_id": ids.new(ids.VERSION),
        "operation": operation,
        "now": clock.now(),
        "actor_type": caller.actor.type,
        "actor_id": caller.actor.id,
    }


def _storing(content: Content) -> Parameters:
    return {"content": content.data, "sha256": content.sha256, "size": content.size}


def _row(parameters: Parameters, *, created_at: int) -> Row:
    """The memory's row as the transaction left it."""
    return {
        "id": parameters["memory_id"],
        "store_id": parameters["store_id"],
        "version_id": parameters["version_id"],
        "path": parameters["path"],
        "content_sha256": parameters["sha256"],
        "content_size": parameters["size"],
        "created_at": created_at,
        "updated_at": parameters["now"],
    }


def _after(last: str) -> str:
    """The least path that can follow a listing's last item, which is a memory's path or a directory with its `/`."""
    return paths.subtree(last)[1] if last.endswith("/") else last + " "


def _list_statement(listing: Listing) -> Statement:
    if listing.depth == 1:
        return queries.LIST_CHILDREN_WITH_CONTENT if listing.with_content else queries.LIST_CHILDREN
    return queries.LIST_WITH_CONTENT if listing.with_content else queries.LIST


async def _lock(transaction: Transaction, parameters: Parameters) -> tuple[Row, Row]:
    """The memory's and the store's row, locked in this order."""
    memory = await transaction.fetch_one(queries.LOCK, parameters)
    store = await lock_store(transaction, parameters)
    if memory is None:
        raise not_found(parameters["memory_id"], parameters["store_id"])
    return memory, store


async def lock_store(transaction: Transaction, parameters: Parameters) -> Row:
    """The row of the caller's store, locked; `NotFound` if there is none."""
    store = await transaction.fetch_one(queries.LOCK_STORE, parameters)
    if store is None:
        raise store_not_found(parameters["store_id"])
    return store


async def _refuse_conflict(transaction: Transaction, parameters: Parameters, path: str) -> None:
    below, below_end = paths.subtree(path + "/")
    conflict = await transaction.fetch_one(
        queries.FIND_CONFLICT,
        {
            "store_id": parameters["store_id"],
            "memory_id": parameters["memory_id"],
            "paths": [path, *paths.ancestors(path)],
            "below": below,
            "below_end": below_end,
        },
    )
    if conflict is not None:
        raise PathConflict(path, conflict["id"], conflict["path"])


def refuse_if_archived(store: Row, store_id: str) -> None:
    """An archived store takes deletions only."""
    if store["archived_at"] is not None:
        raise InvalidRequest(
            f"memory store {store_id!r} is archived: its memories can be read and deleted, not created or updated"
        )


def _refuse_unexpected(sha256: bytes, expected: bytes | None) -> None:
    if expected is not None and sha256 != expected:
        raise PreconditionFailed(
            f"the memory's content has the SHA-256 digest {sha256.hex()}, not the expected {expected.hex()}: "
            "it was changed meanwhile; read it again and decide"
        )
