"""The rules of memories and the transactions that keep them (contract, 2).

A change is first tried as one statement where the database can do that; whenever something is in its way, the
transaction below decides, and it alone knows why a change is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from app.contract import content as contents
from app.contract import cursors, ids, paths
from app.contract.actors import Caller
from app.contract.content import Content
from app.contract.errors import InvalidRequest, NotFound, PathConflict
from app.memories import queries, repeats
from app.memories.conditions import (
    lock,
    lock_store,
    not_found,
    refuse_conflict,
    refuse_if_archived,
    refuse_unexpected,
)
from app.memories.writes import Parameters, Placed, Write
from app.storage.contents.mover import Staged
from app.storage.contents.reading import Moment, with_fresh_rows
from app.storage.rows.database import Row, Transaction
from app.storage.rows.statements import Statement
from app.storage.rows.tables import CREATED, DELETED, MODIFIED
from app.storage.storage import Storage
from app.stores.holds import refuse_if_held
from app.stores.quota import Limits, refuse_over
from app.stores.service import not_found as store_not_found


class Found(NamedTuple):
    """A memory's row, and its content where that was asked for. A page makes hundreds: a tuple is made at once."""

    row: Row
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Directory:
    """In a listing with depth 1: everything below one direct child. `path` ends with `/`."""

    path: str


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
        entries: list[Found | Directory] = [Found(row, None) for row in rows]
        if listing.depth == 1:
            for position, row in enumerate(rows):
                child, slash, _ = row["path"][len(listing.prefix) :].partition("/")
                if slash:
                    entries[position] = Directory(listing.prefix + child + slash)
        if not listing.with_content:
            return entries
        found = [entry for entry in entries if isinstance(entry, Found)]
        references = [(f.row["store_id"], bytes(f.row["content_sha256"]), f.row["content"]) for f in found]
        texts = iter(await self._storage.contents.read_many(references))
        return [entry._replace(content=next(texts)) if isinstance(entry, Found) else entry for entry in entries]

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
        write = Write.begin(caller, store_id, ids.new(ids.MEMORY), CREATED)
        scope = write.parameters()

        async def work(transaction: Transaction) -> Row:
            store = await lock_store(transaction, scope)
            refuse_if_archived(store, store_id)
            try:
                await refuse_conflict(transaction, store_id, write.memory_id, path)
            except PathConflict:
                made = await repeats.created_before(transaction, write, path, content) if is_repeated else None
                if made is None:
                    raise
                return made
            refuse_over(store, self._limits, count=1, size=content.size)
            placed = Placed(
                write, path, content.sha256, content.size, store["last_seq"] + 1,
                created_at=write.now, count_change=1, bytes_change=content.size,
            )  # fmt: skip
            await transaction.execute(queries.CREATE, placed.parameters(content))
            return placed.row()

        row = await self._storage.database.transact(work, store_id=store_id)
        if row["version_id"] == write.version_id:
            self._after_commit(write, content, since)
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
        if change.content is not None:
            await self._storage.mover.make_room()
        since = self._storage.contents.now()
        write = Write.begin(caller, store_id, memory_id, MODIFIED)
        row = await self._change_at_once(write, change) or await self._change(write, change)
        if change.content is None:
            # A rename has no content at hand; the memory is read again where it is wanted.
            if with_content:
                return await self.retrieve(caller, store_id, memory_id, with_content=True)
            return Found(row, None)
        if row["version_id"] == write.version_id:
            self._after_commit(write, change.content, since)
        return Found(row, change.content.data)

    async def _change_at_once(self, write: Write, change: _Change) -> Row | None:
        """A change of content alone as one statement, where the database can; None if it did not apply."""
        database, content = self._storage.database, change.content
        if content is None or change.path is not None or not database.has_single_statement_mutations:
            return None
        return await database.mutate(
            queries.CHANGE_CONTENT_AT_ONCE,
            write.parameters()
            | {
                "content": content.data,
                "sha256": content.sha256,
                "size": content.size,
                "expected_sha256": change.expected_sha256,
                "maximum": self._limits.max_bytes,
            },
            store_id=write.store_id,
            row_id=write.memory_id,
        )

    async def _change(self, write: Write, change: _Change) -> Row:
        scope = write.parameters()

        async def work(transaction: Transaction) -> Row:
            memory, store = await lock(transaction, scope)
            refuse_if_archived(store, write.store_id)
            sha256 = bytes(memory["content_sha256"])
            new_sha256 = change.content.sha256 if change.content else sha256
            size = change.content.size if change.content else memory["content_size"]
            path = change.path or memory["path"]
            if new_sha256 == sha256 and path == memory["path"]:
                return memory
            refuse_unexpected(memory, change.expected_sha256)
            if path != memory["path"]:
                await refuse_conflict(transaction, write.store_id, write.memory_id, path)
            bytes_change = size - memory["content_size"]
            refuse_over(store, self._limits, count=0, size=bytes_change)
            placed = Placed(
                write, path, new_sha256, size, store["last_seq"] + 1,
                created_at=memory["created_at"], count_change=0, bytes_change=bytes_change,
            )  # fmt: skip
            statement = queries.CHANGE if change.content else queries.RENAME
            await transaction.execute(statement, placed.parameters(change.content))
            return placed.row()

        return await self._storage.database.transact(work, store_id=write.store_id)

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
        write = Write.begin(caller, store_id, memory_id, DELETED)
        scope = write.parameters()
        database = self._storage.database
        if database.has_single_statement_mutations and await database.mutate(
            queries.DELETE_AT_ONCE,
            scope | {"sha256": None, "size": None, "expected_sha256": expected},
            store_id=store_id,
            row_id=memory_id,
        ):
            return

        async def work(transaction: Transaction) -> None:
            try:
                memory, store = await lock(transaction, scope)
            except NotFound:
                if is_repeated and await repeats.was_deleted_before(transaction, write):
                    return
                raise
            refuse_if_held(store)
            refuse_unexpected(memory, expected)
            await transaction.execute(queries.DELETE, write.deletes(memory, store))

        await database.transact(work, store_id=store_id)

    def _after_commit(self, write: Write, content: Content, since: Moment) -> None:
        self._storage.contents.remember(write.store_id, content.sha256, content.data, since)
        self._storage.mover.staged(Staged(write.version_id, write.store_id, content.sha256, content.data))


def _scope(caller: Caller, store_id: str, memory_id: str) -> Parameters:
    return {"store_id": store_id, "workspace_id": caller.workspace_id, "memory_id": memory_id}


def _after(last: str) -> str:
    """The least path that can follow a listing's last item, which is a memory's path or a directory with its `/`."""
    return paths.subtree(last)[1] if last.endswith("/") else last + " "


def _list_statement(listing: Listing) -> Statement:
    if listing.depth == 1:
        return queries.LIST_CHILDREN_WITH_CONTENT if listing.with_content else queries.LIST_CHILDREN
    return queries.LIST_WITH_CONTENT if listing.with_content else queries.LIST
