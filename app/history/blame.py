"""The author of each line of a memory: its versions, compared one after the other.

A line that two neighbouring versions have in common keeps its author; any other line is by the newer one. A whole
text that is brought back, after a deletion or after other texts, keeps the authors of its lines. Where versions are
gone, nobody can say for sure:

- "expired": the line shows first in the oldest version that is left, or that is read;
- "redacted": it shows first after a redacted version, which may have had it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.contract import lines
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.history import queries
from app.history.limits import BLAME_MAX_VERSIONS
from app.memories.conditions import not_found as memory_not_found
from app.storage.contents.reading import ContentGone, with_fresh_rows
from app.storage.rows.database import Row
from app.storage.rows.tables import CREATED, DELETED
from app.storage.storage import Storage
from app.stores.service import not_found as store_not_found

_BATCH = 50
"""Versions whose contents are held at a time: 5 MB at most."""
_REMEMBERED_LINES = 500_000
"""Lines of earlier texts that are kept, to know a text that comes back."""

EXPIRED = "expired"
REDACTED = "redacted"


@dataclass(frozen=True, slots=True)
class Origin:
    """The version in which a line shows first; `doubt` says why an earlier one may have had it, None if none had."""

    version: Row
    doubt: str | None


@dataclass(frozen=True, slots=True)
class BlamedLine:
    """One line with its line feed, and where it is from."""

    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Blamed:
    """The lines of one version, the newest with content."""

    version: Row
    lines: Sequence[BlamedLine]


@dataclass(frozen=True, slots=True)
class _Walk:
    """What is known after some versions: the lines, and whether something unknown came since."""

    lines: Sequence[BlamedLine]
    doubt: str | None
    known: dict[bytes, Sequence[BlamedLine]]
    """Earlier texts, by digest."""

    def after(self, version: Row, text: str) -> "_Walk":
        """The same after one more version."""
        digest = bytes(version["content_sha256"])
        blamed = self.known.get(digest)
        if blamed is None:
            blamed = self._compared(version, text)
            if sum(map(len, self.known.values())) + len(blamed) <= _REMEMBERED_LINES:
                self.known[digest] = blamed
        return _Walk(blamed, None, self.known)

    def _compared(self, version: Row, text: str) -> Sequence[BlamedLine]:
        origin = Origin(version, self.doubt)
        new = lines.split(text)
        blamed = [BlamedLine(line, origin) for line in new]
        for a, b, size in lines.matches([line.text for line in self.lines], new):
            blamed[b : b + size] = self.lines[a : a + size]
        return blamed


class Blame:
    """Blames lines of memories of the stores of a caller's workspace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def blame(self, caller: Caller, store_id: str, memory_id: str) -> Blamed:
        """The lines of a memory as it is, or as it was last if it is deleted.

        Raises:
            NotFound: no such store, or no version of such a memory.
            InvalidRequest: the newest version with content is redacted.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id, "memory_id": memory_id}
        return await with_fresh_rows(self._storage.contents, lambda: self._blame(scope))

    async def _blame(self, scope: dict[str, str]) -> Blamed:
        database = self._storage.database
        rows = await database.fetch_all(queries.HISTORY, {**scope, "limit": BLAME_MAX_VERSIONS + 1})
        if not rows:
            if await database.fetch_one(queries.STORE, scope) is None:
                raise store_not_found(scope["store_id"])
            raise memory_not_found(scope["memory_id"], scope["store_id"])
        versions = [row for row in reversed(rows[:BLAME_MAX_VERSIONS]) if row["operation"] != DELETED]
        if not versions or versions[-1]["redacted_at"] is not None:
            raise InvalidRequest(
                f"the newest version with content of memory {scope['memory_id']!r} has expired or is redacted: there "
                "is no text to show"
            )
        is_whole = len(rows) <= BLAME_MAX_VERSIONS and versions[0]["operation"] == CREATED
        walk = _Walk([], None if is_whole else EXPIRED, {})
        for start in range(0, len(versions), _BATCH):
            walk = await self._walk(walk, versions[start : start + _BATCH])
        return Blamed(versions[-1], walk.lines)

    async def _walk(self, walk: _Walk, versions: Sequence[Row]) -> _Walk:
        texts = await self._texts(versions)

        def run() -> _Walk:
            walked, last = walk, None
            for version in versions:
                if version["redacted_at"] is not None:
                    walked = replace(walked, doubt=walked.doubt or REDACTED)
                elif (digest := bytes(version["content_sha256"])) != last or walked.doubt:
                    walked, last = walked.after(version, texts[digest]), digest
            return walked

        return await asyncio.to_thread(run)

    async def _texts(self, versions: Sequence[Row]) -> dict[bytes, str]:
        """The contents by digest.

        Raises:
            ContentGone: a version was erased since it was read.

        """
        kept = [row["id"] for row in versions if row["redacted_at"] is None]
        rows = await self._storage.database.fetch_all(queries.STAGED_OF, {"version_ids": kept})
        if any(row["content_sha256"] is None for row in rows) or len(rows) < len(kept):
            raise ContentGone
        staged = {bytes(row["content_sha256"]): row["content"] for row in rows}
        store_id = versions[0]["store_id"]
        contents = await self._storage.contents.read_many([(store_id, *item) for item in staged.items()])
        return {digest: content.decode() for digest, content in zip(staged, contents, strict=True)}
