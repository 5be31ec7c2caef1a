"""Reading a store as it was: the versions that were in force at a point of its history."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.contract import cursors, paths
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound
from app.history import queries
from app.history.points import Point, resolve, state
from app.storage.contents.reading import with_fresh_rows
from app.storage.rows.database import Row
from app.storage.rows.tables import CREATED, DELETED
from app.storage.storage import Storage
from app.versions.service import FoundVersion


@dataclass(frozen=True, slots=True)
class StatePage:
    """Versions in force after change `seq`, and the cursor of the next page."""

    seq: int
    found: Sequence[FoundVersion]
    next_page: str | None


class AsOf:
    """Past states of the stores of a caller's workspace.

    Every method raises `NotFound` for a store that is not there, and `InvalidRequest` for a point that is in the
    future, before the store was made, or whose versions have expired.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._fetch_all = storage.database.fetch_all

    async def list_page(
        self,
        caller: Caller,
        store_id: str,
        point: Point,
        prefix: str,
        *,
        with_content: bool,
        limit: int,
        page: str | None,
    ) -> StatePage:
        """A page in byte order of paths. All pages are of one state, whatever happens between them.

        Redacted versions have lost their path, so they come after the others, whatever the prefix.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        prefix = paths.check_prefix(prefix)
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        cursor_scope = ("as_of", store_id, prefix, point.seq, point.at)
        if page is None:
            seq, after = await resolve(self._fetch_all, scope, point), ""
        else:
            seq, after = cursors.decode(cursor_scope, page, (int, str))
        start, end = paths.subtree(prefix)
        part = {"after": after, "start": start, "end": end, "limit": limit + 1}

        async def read() -> tuple[Sequence[Row], list[FoundVersion]]:
            rows = await state(self._fetch_all, scope, point, seq, part, with_content=with_content)
            return rows, await self._with_contents(rows[:limit], with_content=with_content)

        rows, found = await with_fresh_rows(self._storage.contents, read)
        if len(rows) <= limit:
            return StatePage(seq, found, None)
        last = found[-1].row
        return StatePage(seq, found, cursors.encode(cursor_scope, (seq, last["path"] or last["memory_id"])))

    async def retrieve(
        self, caller: Caller, store_id: str, memory_id: str, point: Point, *, with_content: bool
    ) -> FoundVersion:
        """The version of a memory that was in force; a redacted one too, with nulls.

        Raises:
            NotFound: the memory was not there then.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        seq = await resolve(self._fetch_all, scope, point)

        async def read() -> FoundVersion:
            rows = await self._fetch_all(queries.MEMORY_AROUND, {**scope, "memory_id": memory_id, "seq": seq})
            before = next((row for row in rows if row["seq"] <= seq), None)
            after = next((row for row in rows if row["seq"] > seq), None)
            if before is None and after is not None and after["operation"] != CREATED:
                raise InvalidRequest(
                    f"memory {memory_id!r} was there after change {seq}, but its version of then has expired; "
                    f"the oldest that is left is {after['id']!r}, change {after['seq']}"
                )
            deleted = before is not None and before["operation"] == DELETED
            if before is None or deleted or (after is not None and after["operation"] == CREATED):
                raise NotFound(
                    f"memory {memory_id!r} was not found in memory store {store_id!r} as it was after change {seq}",
                    store_id=store_id,
                    memory_id=memory_id,
                )
            return (await self._with_contents([before], with_content=with_content))[0]

        return await with_fresh_rows(self._storage.contents, read)

    async def _with_contents(self, rows: Sequence[Row], *, with_content: bool) -> list[FoundVersion]:
        if not with_content:
            return [FoundVersion(row, None) for row in rows]
        references = [
            (row["store_id"], bytes(row["content_sha256"]), row["content"])
            for row in rows
            if row["content_sha256"] is not None
        ]
        texts = iter(await self._storage.contents.read_many(references))
        return [FoundVersion(row, None if row["content_sha256"] is None else next(texts)) for row in rows]
