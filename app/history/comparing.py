"""Comparing two versions of a store: the texts by lines, and the paths."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound
from app.contract.lines import split
from app.history import lines, queries
from app.history.lines import Hunk
from app.storage.contents.reading import with_fresh_rows
from app.storage.rows.tables import CREATED
from app.storage.storage import Storage
from app.versions.service import FoundVersion, VersionFilters, Versions

_NOWHERE = "/dev/null"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions with their contents, `None` for nothing before the first; a deletion has no content."""

    before: FoundVersion | None
    after: FoundVersion
    hunks: Sequence[Hunk]
    unified: str

    @property
    def is_renamed(self) -> bool:
        """Whether the paths differ."""
        return self.before is not None and self.before.row["path"] != self.after.row["path"]


class Comparing:
    """Compares versions of the stores of a caller's workspace."""

    def __init__(self, storage: Storage, versions: Versions) -> None:
        self._storage = storage
        self._versions = versions

    async def compare(
        self, caller: Caller, store_id: str, to_id: str | None = None, from_id: str | None = None
    ) -> Comparison:
        """How to get from one version to another, by default from the one before it of the same memory.

        The other one is by default the newest of the memory that `from_id` is of, or of the store.

        Raises:
            NotFound: no such store or version.
            InvalidRequest: one of them is redacted, or the version before has expired.

        """
        for named in (from_id, to_id):
            # An ID is ASCII; anything else names nothing, and need not reach the database.
            if named is not None and not (named.isascii() and named.isprintable()):
                raise NotFound(f"memory version {named!r} was not found in memory store {store_id!r}")
        before: FoundVersion | None = None
        if from_id is not None:
            before = await self._versions.retrieve(caller, store_id, from_id, with_content=True)
        if to_id is None:
            to_id = await self._newest(caller, store_id, None if before is None else before.row["memory_id"])
        after = await self._versions.retrieve(caller, store_id, to_id, with_content=True)
        if before is None:
            before = await self._version_before(after)
        for version in (before, after):
            if version is not None and version.row["redacted_at"] is not None:
                raise InvalidRequest(
                    f"memory version {version.row['id']!r} is redacted: its content is gone and can't be compared"
                )
        # Long texts take a while.
        hunks = await asyncio.to_thread(lambda: lines.hunks(_lines(before), _lines(after)))
        return Comparison(before, after, hunks, lines.unified(hunks, _name("a", before), _name("b", after)))

    async def _newest(self, caller: Caller, store_id: str, memory_id: str | None) -> str:
        filters = VersionFilters(memory_id=memory_id)
        newest, _ = await self._versions.list_page(caller, store_id, filters, with_content=False, limit=1, page=None)
        if not newest:
            raise NotFound(f"memory store {store_id!r} has no versions to compare")
        return str(newest[0].row["id"])

    async def _version_before(self, after: FoundVersion) -> FoundVersion | None:
        async def read() -> FoundVersion | None:
            row = await self._storage.database.fetch_one(queries.BEFORE_VERSION, after.row)
            if row is None:
                return None
            if row["content_sha256"] is None:
                return FoundVersion(row, None)
            reference = (row["store_id"], bytes(row["content_sha256"]), row["content"])
            return FoundVersion(row, await self._storage.contents.read(reference))

        before = await with_fresh_rows(self._storage.contents, read)
        if before is None and after.row["operation"] != CREATED:
            raise InvalidRequest(
                f"from: the version before {after.row['id']!r} has expired; name another one to compare with"
            )
        return before


def _lines(version: FoundVersion | None) -> list[str]:
    return [] if version is None or version.content is None else split(version.content.decode())


def _name(side: str, version: FoundVersion | None) -> str:
    return _NOWHERE if version is None or version.content is None else side + version.row["path"]
