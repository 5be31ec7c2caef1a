"""The storage of one process: database, blob store, cache, and what moves and removes content between them."""

from pathlib import Path

from sqlalchemy.engine import make_url

from app.storage.contents.blobs import BlobStore, open_blob_store
from app.storage.contents.collector import Collector
from app.storage.contents.mover import Mover
from app.storage.contents.reading import ContentCache, Contents
from app.storage.options import StorageOptions
from app.storage.rows import postgres_url
from app.storage.rows.database import Database
from app.storage.rows.postgres import PostgresDatabase
from app.storage.rows.sqlite import SqliteDatabase
from app.storage.upkeep.deleted_stores import Purger
from app.storage.upkeep.expired_versions import Retention
from app.storage.upkeep.installation import Ownership
from app.storage.upkeep.orphans import Orphans
from app.storage.upkeep.sweeper import Sweeper


def make_database(url: str, pool_size: int) -> Database:
    """The database port for a `sqlite:///…` or `postgresql://…` URL; not opened yet."""
    if postgres_url.is_postgres(url):
        return PostgresDatabase(postgres_url.parse(url), pool_size=pool_size)
    return SqliteDatabase(Path(make_url(url).database or ""))


class Storage:
    """Everything a service reads and writes through. `open` in the loop that serves; `close` drains."""

    def __init__(self, options: StorageOptions) -> None:
        self._options = options
        self.database: Database = make_database(options.database_url, options.pool_size)

    async def open(self, *, in_background: bool = True) -> None:
        """Connect. `in_background` starts the mover and the sweeper, as a server wants; a command does not.

        Raises:
            Unavailable: the database does not answer.

        """
        options = self._options
        await self.database.open()
        self.blobs: BlobStore = open_blob_store(options.blob_url, options.s3_endpoint_url)
        self.cache = ContentCache(options.cache_bytes)
        self.contents = Contents(self.blobs, self.cache)
        self.ownership = Ownership(self.database, self.blobs)
        self.mover = Mover(self.database, self.blobs)
        self.sweeper = Sweeper(
            self.database,
            mover=self.mover,
            collector=Collector(self.database, self.blobs),
            purger=Purger(self.database, self.blobs),
            retention=Retention(self.database, days=options.retention_days, keep=options.keep_recent_versions),
            orphans=Orphans(self.database, self.blobs, grace_seconds=options.orphan_grace_seconds),
            interval_seconds=options.sweep_interval_seconds,
        )
        if in_background:
            self.mover.start()
            self.sweeper.start()

    async def close(self) -> None:
        """Move what is still held to the blob store, then disconnect."""
        await self.sweeper.stop()
        await self.mover.stop()
        await self.blobs.close()
        await self.database.close()
