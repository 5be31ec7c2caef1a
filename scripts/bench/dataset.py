"""Databases filled directly, by the product's own table definitions: fast, and with IDs that SQL can make.

Only content that is read is there (staged, for the product's sweeper to move); every other version has its
digest and size, which is all that the database's own work needs.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Table

from app.contract import clock
from app.storage.rows import tables
from scripts.bench.postgres import Database

_ID_DIGITS = 22
_ACTOR_TYPE = "api_actor"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is in a database."""

    stores: int
    memories_per_store: int
    versions_per_memory: int = 1
    content_bytes: int = 1024
    readable_per_store: int | None = None
    """Memories of each store whose content exists; None: all."""
    directories: int = 4
    """Per store; its memories are spread over them."""

    @property
    def readable(self) -> int:
        """The same, as a number."""
        return self.memories_per_store if self.readable_per_store is None else self.readable_per_store


def tagged(tag: str, number: int) -> str:
    """An ID of the right form that a number determines. `sql_tagged` makes the same in PostgreSQL."""
    digits = f"{number:0{_ID_DIGITS}d}".replace("0", "A")
    return f"{tag}_01{digits}"


def sql_tagged(tag: str, expression: str) -> str:
    """The SQL expression for `tagged(tag, expression)`."""
    return f"'{tag}_01' || translate(lpad(({expression})::text, {_ID_DIGITS}, '0'), '0', 'A')"


def store_id(store: int) -> str:
    """Of the store with this number, counted from 0."""
    return tagged("memstore", store)


def store_path(store: int) -> str:
    """Its URL path."""
    return f"/v1/memory_stores/{store_id(store)}"


def memory_number(shape: Shape, store: int, memory: int) -> int:
    """Its number in the whole database, which its ID is made of."""
    return store * shape.memories_per_store + memory


def memory_id(shape: Shape, store: int, memory: int) -> str:
    """Of a memory by its place: the store's number, then its own within the store."""
    return tagged("mem", memory_number(shape, store, memory))


def path(shape: Shape, memory: int) -> str:
    """Of a memory by its number within the store."""
    per_directory = -(-shape.memories_per_store // shape.directories)
    return f"/area-{memory // per_directory:04d}/note-{memory:06d}.md"


def content(shape: Shape, number: int, version: int) -> bytes:
    """Text that looks like notes, and is different for every version of every memory."""
    line = f'- memory {number}, version {version}: staging answers on the second try, "quoted" \\ once.\n'
    return (line * (shape.content_bytes // len(line) + 1))[: shape.content_bytes].encode()


def targets(shape: Shape) -> list[tuple[int, int]]:
    """Readable memories as (store, memory); those that follow each other are of different stores."""
    return [(store, memory) for memory in range(shape.readable) for store in range(shape.stores)]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of every table, as generators: the large shape would not fit into memory comfortably."""

    shape: Shape
    workspace_id: str
    api_key_id: str
    now: int

    def stores(self) -> Iterator[tuple[Any, ...]]:
        memories = self.shape.memories_per_store
        for store in range(self.shape.stores):
            yield (
                *(store_id(store), self.workspace_id, f"Store {store}", "", "{}", self.now, self.now),
                *(memories * self.shape.versions_per_memory, memories, memories * self.shape.content_bytes),
            )

    def _heads(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Store, memory within it, number, and the content of its newest version."""
        newest = self.shape.versions_per_memory - 1
        for store in range(self.shape.stores):
            for memory in range(self.shape.memories_per_store):
                number = memory_number(self.shape, store, memory)
                yield store, memory, number, content(self.shape, number, newest)

    def memories(self) -> Iterator[tuple[Any, ...]]:
        newest = self.shape.versions_per_memory - 1
        for store, memory, number, head in self._heads():
            yield (
                *(tagged("mem", number), store_id(store), path(self.shape, memory)),
                *(
                    hashlib.sha256(head).digest(),
                    len(head),
                    self._version_id(number, newest),
                    self.now,
                    self.now,
                ),
            )

    def _version_id(self, number: int, version: int) -> str:
        return tagged("memver", number * self.shape.versions_per_memory + version)

    def _seq(self, memory: int, version: int) -> int:
        return memory * self.shape.versions_per_memory + version + 1

    def versions(self) -> Iterator[tuple[Any, ...]]:
        for store in range(self.shape.stores):
            for memory in range(self.shape.memories_per_store):
                number = memory_number(self.shape, store, memory)
                where = path(self.shape, memory)
                for version in range(self.shape.versions_per_memory):
                    text = content(self.shape, number, version)
                    yield (
                        *(store_id(store), self._seq(memory, version), self._version_id(number, version)),
                        *(tagged("mem", number), tables.MODIFIED if version else tables.CREATED, where),
                        *(hashlib.sha256(text).digest(), len(text), self.now, _ACTOR_TYPE, self.api_key_id),
                    )

    def staged(self) -> Iterator[tuple[Any, ...]]:
        newest = self.shape.versions_per_memory - 1
        for store, memory, _, head in self._heads():
            if memory < self.shape.readable:
                version_id = self._version_id(memory_number(self.shape, store, memory), newest)
                yield version_id, store_id(store), hashlib.sha256(head).digest(), head, self.now

    def of_every_table(self) -> Iterator[tuple[Table, list[str], Iterator[tuple[Any, ...]]]]:
        """Each table with its columns and its rows, parents before children."""
        stores = "id workspace_id name description metadata created_at updated_at"
        counters = "last_seq memory_count total_bytes"
        yield tables.memory_stores, f"{stores} {counters}".split(), self.stores()
        memories = "id store_id path content_sha256 content_size version_id created_at updated_at"
        yield tables.memories, memories.split(), self.memories()
        versions = "store_id seq id memory_id operation path content_sha256 content_size"
        author = "created_at actor_type actor_id"
        yield tables.memory_versions, f"{versions} {author}".split(), self.versions()
        staged = "version_id store_id content_sha256 content staged_at"
        yield tables.staged_contents, staged.split(), self.staged()


_COUNT_STORES = """
UPDATE workspaces
   SET store_count = (SELECT count(*) FROM memory_stores s WHERE s.workspace_id = workspaces.id)
"""


async def _fill_postgres(database: Database, rows: _Rows) -> None:
    connection = await asyncpg.connect(database.url)
    try:
        # The rows are consistent by construction; checking a million foreign keys would only take time.
        await connection.execute("SET session_replication_role = replica")
        for table, columns, records in rows.of_every_table():
            await connection.copy_records_to_table(table.name, records=records, columns=columns)
        await connection.execute("SET session_replication_role = DEFAULT")
        await connection.execute(_COUNT_STORES)
    finally:
        await connection.close()


def fill_postgres(database: Database, shape: Shape, *, workspace_id: str, api_key_id: str) -> None:
    """Fill a migrated, empty PostgreSQL database."""
    asyncio.run(_fill_postgres(database, _Rows(shape, workspace_id, api_key_id, clock.now())))


def fill_sqlite(file: Path, shape: Shape, *, workspace_id: str, api_key_id: str) -> None:
    """Fill a migrated, empty SQLite database."""
    connection = sqlite3.connect(file)
    try:
        for table, columns, records in _Rows(shape, workspace_id, api_key_id, clock.now()).of_every_table():
            places = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({places})", records)
        connection.execute(_COUNT_STORES)
        connection.commit()
    finally:
        connection.close()
