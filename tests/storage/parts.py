"""The storage of a process, opened inside the test: real databases, real blob stores, no background work."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from app.contract.actors import API_KEY, Actor, Caller
from app.keys.service import DEFAULT_WORKSPACE, Keys
from app.memories.service import Found, Listing, Memories
from app.storage.contents.blobs import BlobStore
from app.storage.contents.collector import Collector
from app.storage.contents.mover import Mover, Staged
from app.storage.options import StorageOptions
from app.storage.storage import Storage
from app.storage.upkeep.deleted_stores import Purger
from app.storage.upkeep.expired_versions import Retention
from app.storage.upkeep.fsck import Finding, Fsck
from app.storage.upkeep.orphans import Orphans
from app.stores.quota import Limits
from app.stores.service import Stores
from app.versions.service import Versions
from tests.storage.outside import Outside, digest, outside


def options(environment: Mapping[str, str]) -> StorageOptions:
    """What a server with this environment would use, but without a cache: every read goes to the stage or a blob."""
    data = Path(environment["MEMSTORE_DATA_DIR"])
    return StorageOptions(
        database_url=environment.get("MEMSTORE_DATABASE_URL", f"sqlite:///{data / 'memstore.db'}"),
        blob_url=environment.get("MEMSTORE_BLOB_URL", f"file://{data / 'blobs'}"),
        s3_endpoint_url=environment.get("MEMSTORE_S3_ENDPOINT_URL"),
        cache_bytes=0,
        pool_size=8,
        retention_days=30,
        keep_recent_versions=10,
        sweep_interval_seconds=300,
        orphan_grace_seconds=3600,
    )


@dataclass(frozen=True)
class Written:
    """One version as its writer knows it."""

    store_id: str
    memory_id: str
    version_id: str
    content: str

    @property
    def sha256(self) -> str:
        """The content's digest in hex."""
        return digest(self.content)

    @property
    def reference(self) -> tuple[str, bytes]:
        """The content as the blob store names it."""
        return self.store_id, bytes.fromhex(self.sha256)

    @property
    def staged(self) -> Staged:
        """What the mover is told of it."""
        return Staged(self.version_id, *self.reference, self.content.encode())


@dataclass(frozen=True)
class Parts:
    """An opened storage, the services on top of it, and the outside view on the same data."""

    storage: Storage
    outside: Outside
    caller: Caller

    @property
    def blobs(self) -> BlobStore:
        """The blob store."""
        return self.storage.blobs

    @property
    def memories(self) -> Memories:
        """The service that writes what the tests need."""
        return Memories(self.storage, Limits(10_000, 100_000_000))

    @property
    def stores(self) -> Stores:
        """The service that makes and deletes stores."""
        return Stores(self.storage, max_stores=0)

    @property
    def versions(self) -> Versions:
        """The service that redacts."""
        return Versions(self.storage)

    def mover(self, blobs: BlobStore | None = None) -> Mover:
        """A mover, perhaps with a blob store that fails."""
        return Mover(self.storage.database, blobs or self.blobs)

    def collector(self, blobs: BlobStore | None = None) -> Collector:
        """A collector, likewise."""
        return Collector(self.storage.database, blobs or self.blobs)

    def purger(self, blobs: BlobStore | None = None) -> Purger:
        """A purger, likewise."""
        return Purger(self.storage.database, blobs or self.blobs)

    def orphans(self, grace_seconds: float) -> Orphans:
        """A finder of orphans."""
        return Orphans(self.storage.database, self.blobs, grace_seconds=grace_seconds)

    def retention(self, *, days: int = 30, keep: int = 10) -> Retention:
        """A retention."""
        return Retention(self.storage.database, days=days, keep=keep)

    async def store(self) -> str:
        """A new memory store's ID."""
        row = await self.stores.create(self.caller, "store", "", {})
        store_id: str = row["id"]
        return store_id

    async def create(self, store_id: str, content: str, path: str = "/memory.md") -> Written:
        """A new memory."""
        found = await self.memories.create(self.caller, store_id, path, content)
        return Written(store_id, found.row["id"], found.row["version_id"], content)

    async def update(self, memory: Written, content: str) -> Written:
        """A new version."""
        found = await self.memories.update(
            self.caller,
            memory.store_id,
            memory.memory_id,
            text=content,
            path=None,
            expected_sha256=None,
            with_content=False,
        )
        return replace(memory, version_id=found.row["version_id"], content=content)

    async def rename(self, memory: Written, path: str) -> None:
        """A new version of the same content."""
        await self.memories.update(
            self.caller,
            memory.store_id,
            memory.memory_id,
            text=None,
            path=path,
            expected_sha256=None,
            with_content=False,
        )

    async def delete(self, memory: Written) -> None:
        """Delete a memory; its versions stay."""
        await self.memories.delete(self.caller, memory.store_id, memory.memory_id, expected_sha256=None)

    async def redact(self, version: Written) -> None:
        """Erase a version that is no head."""
        await self.versions.redact(self.caller, version.store_id, version.version_id)

    async def read(self, memory: Written) -> str:
        """The memory's current content, from the stage or the blob store."""
        found = await self.memories.retrieve(self.caller, memory.store_id, memory.memory_id, with_content=True)
        assert found.content is not None
        return found.content.decode()

    async def list_contents(self, store_id: str) -> list[str]:
        """The contents of all memories, by path."""
        listing = Listing("/", 0, with_content=True, limit=20)
        found, _ = await self.memories.list_page(self.caller, store_id, listing, None)
        contents = [entry.content for entry in found if isinstance(entry, Found)]
        return [content.decode() for content in contents if content is not None]

    async def create_past(self, content: str, *, path: str = "/memory.md", store_id: str | None = None) -> Written:
        """A version that may be redacted: its memory has a newer one by now."""
        past = await self.create(store_id or await self.store(), content, path)
        await self.update(past, f"what came after {content}")
        return past

    async def move_all(self) -> int:
        """Move everything that is staged and not condemned."""
        return await self.mover().move_left_behind(all_ages=True)

    async def check(self, *, repair: bool = False) -> list[Finding]:
        """What fsck finds."""
        return await Fsck(self.storage.database, self.blobs).run(repair=repair)

    def is_condemned(self, version: Written) -> bool:
        """Whether the version's content waits for its removal."""
        where = f"content_sha256 = {self.outside.rows.literal(version.sha256)}"
        return self.outside.rows.count("condemned_contents", f"store_id = '{version.store_id}' AND {where}") == 1

    def end_claims(self) -> None:
        """Let time pass until whoever claimed condemned contents has lost the claim."""
        self.outside.rows.execute("UPDATE condemned_contents SET claimed_until = 0")


@asynccontextmanager
async def opened(environment: Mapping[str, str]) -> AsyncIterator[Parts]:
    """Open the storage of a migrated environment."""
    storage = Storage(options(environment))
    await storage.open(in_background=False)
    try:
        key = await Keys(storage.database).create(DEFAULT_WORKSPACE)
        with outside(environment) as view:
            yield Parts(storage, view, Caller(key.workspace_id, Actor(API_KEY, key.id)))
    finally:
        await storage.close()
