"""The stores of a workspace, their memories and versions.

`resources.py`, the same for threads, is made from this file by `scripts/sync_twins.py`.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from . import calls, shapes
from .async_wire import AsyncWire
from .failures import Missing, PathTaken
from .shapes import Memory, MemoryStore, MemoryVersion

_PAGE, _FULL_PAGE = 100, 20
_MOST_WRITES = 10
"""How often a memory may come and go between two calls of one `write`."""


class AsyncStores:
    """The memory stores of the key's workspace."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def create(
        self, name: str, *, description: str = "", metadata: Mapping[str, str] | None = None
    ) -> MemoryStore:
        """Make a store. Names need not differ."""
        body = {"name": name, "description": description, "metadata": dict(metadata or {})}
        return shapes.store(await self._wire.request("POST", "/v1/memory_stores", body=body))

    async def retrieve(self, store_id: str) -> MemoryStore:
        """One store. Raises Missing if there is none."""
        return shapes.store(await self._wire.request("GET", calls.store(store_id)))

    async def update(
        self,
        store_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, str | None] | None = None,
    ) -> MemoryStore:
        """Change what is given. metadata: a text sets a pair, None removes it, an absent key stays."""
        given = {"name": name, "description": description, "metadata": None if metadata is None else dict(metadata)}
        body = {key: value for key, value in given.items() if value is not None}
        return shapes.store(await self._wire.request("POST", calls.store(store_id), body=body))

    async def list(self, *, include_archived: bool = False) -> AsyncIterator[MemoryStore]:
        """Every store, newest first."""
        query = {"limit": _PAGE, "include_archived": "true" if include_archived else "false"}
        async with aclosing(self._wire.pages("/v1/memory_stores", query=query)) as pages:
            async for found in pages:
                yield shapes.store(found)

    async def archive(self, store_id: str) -> MemoryStore:
        """Close a store to changes, without a way back; deletions stay possible."""
        return shapes.store(await self._wire.request("POST", f"{calls.store(store_id)}/archive"))

    async def delete(self, store_id: str) -> None:
        """Delete a store with all its memories. Raises Held if it is under legal hold."""
        await self._wire.request("DELETE", calls.store(store_id))


class AsyncMemories:
    """The memories of a store."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def create(self, store_id: str, path: str, content: str) -> Memory:
        """Make a memory; never overwrites.

        Raises:
            PathTaken: a memory is at the path, above it or below it; the exception names it.
            Rejected: the path or the content breaks a rule, the store is archived, or a limit is reached.

        """
        body = {"path": path, "content": content}
        return shapes.memory(await self._wire.request("POST", f"{calls.store(store_id)}/memories", body=body))

    async def write(self, store_id: str, path: str, content: str) -> Memory:
        """Make a memory, or replace the content of the one at the path, whatever it is.

        It loses what somebody else wrote there meanwhile; `update` with `expected_sha256` does not.

        Raises:
            PathTaken: a memory is above the path or below it.
            Rejected: as `create`.

        """
        for _ in range(_MOST_WRITES):
            try:
                return await self.create(store_id, path, content)
            except PathTaken as taken:
                if taken.conflicting_path != path:
                    raise
                memory_id, last = taken.conflicting_memory_id, taken
            try:
                return await self.update(store_id, memory_id, content=content, path=path)
            except Missing as gone:  # deleted meanwhile: the path may be free
                if gone.erased:
                    raise
        raise last

    async def retrieve(self, store_id: str, memory_id: str) -> Memory:
        """One memory with its content. Raises Missing if there is none; `erased` if it was erased."""
        return shapes.memory(await self._wire.request("GET", calls.memory(store_id, memory_id), query={"view": "full"}))

    async def update(
        self,
        store_id: str,
        memory_id: str,
        *,
        content: str | None = None,
        path: str | None = None,
        expected_sha256: str | None = None,
    ) -> Memory:
        """Change content, path or both, as one version.

        expected_sha256: in hex, of the content that you read; the memory is changed only if it still has that.

        Raises:
            Changed: it has another content by now: read it, and decide again.
            PathTaken: the new path is taken.
            Missing: the memory is gone.
            Rejected: as `create`.

        """
        given = {"content": content, "path": path}
        body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if expected_sha256 is not None:
            body["precondition"] = {"type": "content_sha256", "content_sha256": expected_sha256}
        return shapes.memory(await self._wire.request("POST", calls.memory(store_id, memory_id), body=body))

    async def delete(self, store_id: str, memory_id: str, *, expected_sha256: str | None = None) -> None:
        """Delete a memory. expected_sha256: as for `update`.

        Raises:
            Changed: it has another content by now.
            Missing: it is gone.
            Held: the store is under legal hold.

        """
        query = {"expected_content_sha256": expected_sha256}
        await self._wire.request("DELETE", calls.memory(store_id, memory_id), query=query)

    async def list(self, store_id: str, *, path_prefix: str = "/", with_content: bool = False) -> AsyncIterator[Memory]:
        """Every memory below a directory, in byte order of their paths.

        path_prefix: a directory, with a `/` at both ends.
        """
        limit = _FULL_PAGE if with_content else _PAGE
        query = {"path_prefix": path_prefix, "view": calls.view(with_content), "limit": limit}
        async with aclosing(self._wire.pages(f"{calls.store(store_id)}/memories", query=query)) as pages:
            async for found in pages:
                yield shapes.memory(found)

    async def move(self, store_id: str, old: str, new: str) -> int:
        """Rename everything below a directory in one transaction; how many memories that were.

        old, new: directories, with a `/` at both ends.

        Raises:
            Missing: nothing is below the old one, or the server is the vendor's, which has no such route.
            PathTaken: a memory is in the way.
            Rejected: a path would break a rule, or it is more than 10,000 memories.

        """
        body = {"from": old, "to": new}
        return len(shapes.items(await self._wire.request("POST", f"{calls.store(store_id)}/moves", body=body)))


class AsyncVersions:
    """The history of a store."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def list(
        self, store_id: str, *, memory_id: str | None = None, with_content: bool = False
    ) -> AsyncIterator[MemoryVersion]:
        """Every version of the store, or of one memory, newest first."""
        limit = _FULL_PAGE if with_content else _PAGE
        query = {"memory_id": memory_id, "view": calls.view(with_content), "limit": limit}
        async with aclosing(self._wire.pages(f"{calls.store(store_id)}/memory_versions", query=query)) as pages:
            async for found in pages:
                yield shapes.version(found)

    async def retrieve(self, store_id: str, version_id: str) -> MemoryVersion:
        """One version with its content. Raises Missing if there is none."""
        path = f"{calls.store(store_id)}/memory_versions/{calls.quoted_id(version_id)}"
        return shapes.version(await self._wire.request("GET", path, query={"view": "full"}))

    async def redact(self, store_id: str, version_id: str) -> MemoryVersion:
        """Remove content and path of a version, without a way back.

        Raises:
            Rejected: the memory has this version now; change or delete the memory first.
            Held: the store is under legal hold.

        """
        path = f"{calls.store(store_id)}/memory_versions/{calls.quoted_id(version_id)}/redact"
        return shapes.version(await self._wire.request("POST", path))
