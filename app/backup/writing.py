"""The backup of a whole deployment: every row of one moment, and every content that they refer to.

    backup.json                 first: that this is a backup, of which schema, made when
    contents/<store>/<sha256>   every content of every version
    tables/<name>.jsonl         every row, one JSON object per line; bytes are hexadecimal
    manifest.json               last: files, their numbers of lines and digests

Rows are read in one snapshot of the database. Contents that were in the stage come from the same snapshot; the others
are read from the blob store afterwards, and what was erased until the end is not in the backup: such versions are
redacted in it as they are by then, expired ones and the memories of deleted stores are not there.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import sqlalchemy as sa

from app import __version__
from app.audit import log as audit
from app.contract import clock
from app.contract.actors import Actor
from app.storage.rows.database import Reader, Transaction
from app.storage.rows.migrations import head_revision
from app.storage.rows.statements import Statement
from app.storage.rows.tables import (
    condemned_contents,
    leases,
    memories,
    memory_stores,
    memory_versions,
    metadata,
    staged_contents,
    workspaces,
)
from app.storage.storage import Storage
from app.transfer import queries
from app.transfer.archives.bounds import NO_BOUNDS
from app.transfer.archives.files import new_file
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.writers import ArchiveFormat, ArchiveWriter, archive_writer

BACKUP_FORMAT = "memstore-backup"
BACKUP_VERSION = 1
HEADER, MANIFEST = "backup.json", "manifest.json"

TRANSIENT = {staged_contents.name, condemned_contents.name, leases.name}
"""Tables of what is under way. Staged contents are in the backup as contents."""
TABLES = [table for table in metadata.sorted_tables if table.name not in TRANSIENT]

_PAGE = 1_000
_CONTENTS = 100
_CHUNK = 262_144
_MEMORY = 4 * 1024 * 1024

_STAGED = Statement(
    """
    SELECT version_id, store_id, content_sha256, content FROM staged_contents
     WHERE version_id > :version_id ORDER BY version_id LIMIT :limit
    """
)
_KEPT_VERSIONS = Statement(
    """
    SELECT v.seq, v.path, v.content_sha256, v.content_size, v.redacted_at, v.redacted_by_type, v.redacted_by_id
      FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id AND s.deleted_at IS NULL
     WHERE v.store_id = :store_id AND v.seq > :seq AND v.seq <= :last_seq ORDER BY v.seq
    """
)
_LIVE_STORES = Statement(
    "SELECT id FROM memory_stores WHERE deleted_at IS NULL AND id > :after ORDER BY id LIMIT :limit"
)


@dataclass(slots=True)
class BackedUp:
    """What is in a backup."""

    rows: int = 0
    contents: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)
    """Versions whose content is not in the deployment, though nobody erased it; see `memstore fsck`."""


Row = dict[str, Any]


def first_key(table: sa.Table) -> Row:
    """A key before every other."""
    lowest = {int: -1, str: "", bytes: b""}
    return {column.name: lowest[column.type.python_type] for column in table.primary_key.columns}


def to_json(row: Row) -> bytes:
    """A row as a line: bytes in hexadecimal."""
    return orjson.dumps({key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}) + b"\n"


def from_json(table: sa.Table, line: bytes) -> Row:
    """A line as a row of its table. Raises KeyError, TypeError or ValueError if it is none."""
    read = orjson.loads(line)
    if not isinstance(read, dict):
        raise TypeError("a row is no object")
    return {f"{column.name}": _value(column, read[column.name]) for column in table.columns}


def _value(column: sa.Column[Any], value: Any) -> Any:
    kind = column.type.python_type
    if value is None:
        return None
    if not isinstance(value, str if kind is bytes else kind) or (isinstance(value, str) and "\0" in value):
        raise TypeError(f"{column.name} can't be {value!r}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{column.name} can't be {value}")
    return bytes.fromhex(value) if kind is bytes else value


class _Rows:
    """The rows of the snapshot, table by table, in temporary files."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files = {table.name: self._new() for table in TABLES}

    def _new(self) -> IO[bytes]:
        return self._stack.enter_context(tempfile.SpooledTemporaryFile(_MEMORY))

    async def read(self, reader: Reader) -> None:
        for table in TABLES:
            statement, key = queries.select_page(table), first_key(table)
            while rows := await reader.fetch_all(statement, key | {"page_limit": _PAGE}):
                for row in rows:
                    self._files[table.name].write(to_json(dict(row)))
                key = {column.name: rows[-1][column.name] for column in table.primary_key.columns}

    def of(self, table: sa.Table) -> Iterator[Row]:
        file = self._files[table.name]
        file.seek(0)
        for line in file:
            yield from_json(table, line)

    @contextmanager
    def replacing(self, table: sa.Table) -> Iterator[Callable[[Row], None]]:
        """Put the rows that shall be there instead, while the old ones can be read."""
        file = self._new()

        def put(row: Row) -> None:
            file.write(to_json(row))

        yield put
        self._files[table.name].close()
        self._files[table.name] = file

    def file(self, table: sa.Table) -> IO[bytes]:
        self._files[table.name].seek(0)
        return self._files[table.name]


class Backup:
    """Backups of the deployment that a storage belongs to."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def write(self, target: Path, archive_format: ArchiveFormat, actor: Actor) -> BackedUp:
        """Write a backup; the service may go on meanwhile.

        Raises:
            InvalidRequest: something has the name of `target` already.

        """
        result = BackedUp()
        with ExitStack() as stack:
            file = stack.enter_context(new_file(target))
            plain = stack.enter_context(tempfile.TemporaryFile(dir=target.parent))
            rows = _Rows(stack)
            # First a plain archive of the contents: what is erased meanwhile is left out of the one that stays.
            inner = archive_writer("tar")
            async with self._storage.database.snapshot() as reader:
                await rows.read(reader)
                kept = await self._copy_staged(reader, inner, plain)
            await self._copy_blobs(rows, inner, plain, kept)
            plain.write(inner.finish())
            known = await self._apply_erasures(rows)
            result.missing = [version_id for key, version_id in known.items() if key not in kept]
            self._assemble(archive_writer(archive_format), file, plain, rows, known, result)
        await self._note(actor, result)
        return result

    async def _copy_staged(self, reader: Reader, writer: ArchiveWriter, file: IO[bytes]) -> set[tuple[str, bytes]]:
        kept = set()
        after = ""
        while page := await reader.fetch_all(_STAGED, {"version_id": after, "limit": _CONTENTS}):
            for row in page:
                key = (row["store_id"], bytes(row["content_sha256"]))
                kept.add(key)
                writer.add(content_name(*key), bytes(row["content"]), 0)
                file.write(writer.take())
            after = page[-1]["version_id"]
        return kept

    async def _copy_blobs(
        self, rows: _Rows, writer: ArchiveWriter, file: IO[bytes], kept: set[tuple[str, bytes]]
    ) -> None:
        for batch in _batches(rows, kept):
            contents = await self._storage.blobs.get_many(batch)
            for (store_id, sha256), content in zip(batch, contents, strict=True):
                if content is not None and hashlib.sha256(content).digest() == sha256:
                    kept.add((store_id, sha256))
                    writer.add(content_name(store_id, sha256), content, 0)
            file.write(writer.take())

    async def _apply_erasures(self, rows: _Rows) -> dict[tuple[str, bytes], str]:
        """Do to the rows what was erased since the snapshot; the contents that are left, each with a version."""
        known: dict[tuple[str, bytes], str] = {}
        heads = {row["version_id"] for row in rows.of(memories)}
        erased = set(heads)
        with rows.replacing(memory_versions) as put:
            for batch in _of_one_store(rows.of(memory_versions)):
                for row in await self._as_they_are(batch):
                    put(row)
                    if row["content_sha256"] is not None:
                        known.setdefault((row["store_id"], row["content_sha256"]), row["id"])
                        erased.discard(row["id"])
        lost: dict[str, list[int]] = {}
        with rows.replacing(memories) as put:
            for row in rows.of(memories):
                if row["version_id"] in erased:
                    lost.setdefault(row["store_id"], []).append(row["content_size"])
                else:
                    put(row)
        live = await self._live_stores()
        gone: dict[str, int] = {}
        with rows.replacing(memory_stores) as put:
            for row in rows.of(memory_stores):
                sizes = lost.get(row["id"], [])
                row["memory_count"] -= len(sizes)
                row["total_bytes"] -= sum(sizes)
                if row["id"] not in live and row["deleted_at"] is None:
                    row |= {"deleted_at": clock.now(), "name": "", "description": "", "metadata": "{}"}
                    gone[row["workspace_id"]] = gone.get(row["workspace_id"], 0) + 1
                put(row)
        with rows.replacing(workspaces) as put:
            for row in rows.of(workspaces):
                put(row | {"store_count": row["store_count"] - gone.get(row["id"], 0)})
        return known

    async def _live_stores(self) -> set[str]:
        live: set[str] = set()
        after = ""
        while page := await self._storage.database.fetch_all(_LIVE_STORES, {"after": after, "limit": _PAGE}):
            live |= {row["id"] for row in page}
            after = page[-1]["id"]
        return live

    async def _as_they_are(self, batch: list[Row]) -> list[Row]:
        """The versions with what was redacted meanwhile, and without those that are gone."""
        asked = {"store_id": batch[0]["store_id"], "seq": batch[0]["seq"] - 1, "last_seq": batch[-1]["seq"]}
        now = {row["seq"]: dict(row) for row in await self._storage.database.fetch_all(_KEPT_VERSIONS, asked)}
        return [row | now[row["seq"]] for row in batch if row["seq"] in now]

    def _assemble(
        self,
        writer: ArchiveWriter,
        file: IO[bytes],
        plain: IO[bytes],
        rows: _Rows,
        known: dict[tuple[str, bytes], str],
        result: BackedUp,
    ) -> None:
        header = {
            "format": BACKUP_FORMAT,
            "format_version": BACKUP_VERSION,
            "schema": head_revision(),
            "program": __version__,
            "made_at": clock.rfc3339(clock.now()),
        }
        now = clock.now()
        writer.add(HEADER, orjson.dumps(header, option=orjson.OPT_INDENT_2) + b"\n", now)
        names = {content_name(*key) for key in known}
        for entry in archive_entries(plain, NO_BOUNDS):  # type: ignore[arg-type]
            if entry.name in names:
                writer.add(entry.name, entry.read(entry.size), now)
                file.write(writer.take())
                result.contents += 1
                result.bytes += entry.size
        tables: dict[str, Any] = {}
        for table in TABLES:
            lines = rows.file(table)
            hasher, size, count = hashlib.sha256(), 0, 0
            for line in lines:
                hasher.update(line)
                size += len(line)
                count += 1
            lines.seek(0)
            writer.begin(table_name(table), size, now)
            while data := lines.read(_CHUNK):
                writer.write(data)
                file.write(writer.take())
            writer.end()
            tables[f"{table.name}"] = {"rows": count, "sha256": hasher.hexdigest()}
            result.rows += count
        manifest = {"tables": tables, "contents": {"count": result.contents, "bytes": result.bytes}}
        writer.add(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n", now)
        file.write(writer.finish())

    async def _note(self, actor: Actor, result: BackedUp) -> None:
        entry = audit.Entry(
            action="deployment.backed_up",
            workspace_id=None,
            actor_type=actor.type,
            actor_id=actor.id,
            subject=None,
            detail=orjson.dumps({"contents": result.contents, "rows": result.rows}).decode(),
            request_id=None,
        )

        async def work(transaction: Transaction) -> None:
            await audit.append(transaction, entry)

        await self._storage.database.transact(work)


def content_name(store_id: str, sha256: bytes) -> str:
    """Where a content is in the backup."""
    return f"contents/{store_id}/{sha256.hex()}"


def table_name(table: sa.Table) -> str:
    """Where a table's rows are in the backup."""
    return f"tables/{table.name}.jsonl"


def _batches(rows: _Rows, kept: set[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """The contents that are to be copied from the blob store, some at a time."""
    batch, seen, last = list[tuple[str, bytes]](), set[bytes](), ""
    for row in rows.of(memory_versions):
        if row["store_id"] != last:
            last, seen = row["store_id"], set()
        sha256 = row["content_sha256"]
        if sha256 is None or sha256 in seen or (last, sha256) in kept:
            continue
        seen.add(sha256)
        batch.append((last, sha256))
        if len(batch) == _CONTENTS:
            yield batch
            batch = []
    if batch:
        yield batch


def _of_one_store(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows that follow each other and are of one store, some at a time."""
    batch: list[Row] = []
    for row in rows:
        if batch and (batch[0]["store_id"] != row["store_id"] or len(batch) == _PAGE):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
