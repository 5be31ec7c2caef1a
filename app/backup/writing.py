"""The backup of a whole deployment: every row of one moment, and every content that they refer to.

    backup.json                 first: that this is a backup, of which schema, made when
    contents/<store>/<sha256>   every content of every version
    tables/<name>.jsonl         every row, one JSON object per line; bytes are hexadecimal
    manifest.json               last: files, their numbers of lines and digests

Rows are read in one snapshot of the database. Contents that were in the stage come from the same snapshot; the others
are read from the blob store afterwards, and what was erased until the end is not in the backup: such versions are
redacted in it as they are by then, expired ones and the memories of deleted stores are not there.

Rows, contents and what is known of them lie in temporary files beside the target, which have no names: the memory
that a backup takes does not grow with the deployment, and its disk is the one that the operator chose.
"""

import hashlib
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import orjson

from app import __version__
from app.audit import log as audit
from app.backup.ledger import Content, Ledger
from app.backup.rows import (
    BACKUP_FORMAT,
    BACKUP_VERSION,
    HEADER,
    MANIFEST,
    PAGE,
    TABLES,
    Row,
    Rows,
    content_name,
    content_of,
    table_name,
)
from app.contract import clock
from app.contract.actors import Actor
from app.contract.errors import Unavailable
from app.storage.contents.disks import room_in
from app.storage.rows.database import Reader, Transaction
from app.storage.rows.migrations import head_revision
from app.storage.rows.statements import Statement
from app.storage.rows.tables import memories, memory_stores, memory_versions, workspaces
from app.storage.storage import Storage
from app.transfer.archives.bounds import NO_BOUNDS
from app.transfer.archives.files import new_file
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.writers import ArchiveFormat, ArchiveWriter, archive_writer

_CONTENTS = 100
_CHUNK = 262_144
_NAMED = 1_000
_ADVICE = (
    "nothing is left there. While it is written, a backup needs room for all contents and for all rows twice, and for "
    "itself: make room, or name a file on another disk"
)

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
    """Versions whose content is not there, though nobody erased it: the first 1,000. See `memstore fsck`."""
    missing_count: int = 0
    """Of all of them."""


class Backup:
    """Backups of the deployment that a storage belongs to."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def write(self, target: Path, archive_format: ArchiveFormat, actor: Actor) -> BackedUp:
        """Write a backup; the service may go on meanwhile.

        Raises:
            InvalidRequest: something has the name of `target` already.
            NoRoom: its disk is full.
            Unavailable: the database or the blob store do not answer; nothing is left at `target`, unless it is said.

        """
        result = BackedUp()
        with ExitStack() as stack:
            file = stack.enter_context(new_file(target))
            stack.enter_context(room_in(target, _ADVICE))
            plain = stack.enter_context(tempfile.TemporaryFile(dir=target.parent))
            ledger = stack.enter_context(Ledger(target.parent))
            rows = Rows(stack, target.parent)
            # First a plain archive of the contents: what is erased meanwhile is left out of the one that stays.
            inner = archive_writer("tar")
            async with self._storage.database.snapshot() as reader:
                await rows.read(reader)
                await self._copy_staged(reader, inner, plain, ledger)
            await self._copy_blobs(rows, inner, plain, ledger)
            plain.write(inner.finish())
            await self._apply_erasures(rows, ledger)
            missing = ledger.missing()
            result.missing = list(islice(missing, _NAMED))
            result.missing_count = len(result.missing) + sum(1 for _ in missing)
            self._assemble(archive_writer(archive_format), file, plain, rows, ledger, result)
        try:
            await self._note(actor, result)
        except Unavailable as error:
            raise Unavailable(
                f"{str(target)!r} is written and whole, but the audit log could not be told of it: {error}"
            ) from error
        return result

    async def _copy_staged(self, reader: Reader, writer: ArchiveWriter, file: IO[bytes], ledger: Ledger) -> None:
        after = ""
        while page := await reader.fetch_all(_STAGED, {"version_id": after, "limit": _CONTENTS}):
            for row in page:
                key = (row["store_id"], bytes(row["content_sha256"]))
                ledger.keep(key)
                writer.add(content_name(*key), bytes(row["content"]), 0)
                file.write(writer.take())
            after = page[-1]["version_id"]

    async def _copy_blobs(self, rows: Rows, writer: ArchiveWriter, file: IO[bytes], ledger: Ledger) -> None:
        for batch in _batches(rows, ledger):
            contents = await self._storage.blobs.get_many(batch)
            for (store_id, sha256), content in zip(batch, contents, strict=True):
                if content is not None and hashlib.sha256(content).digest() == sha256:
                    ledger.keep((store_id, sha256))
                    writer.add(content_name(store_id, sha256), content, 0)
            file.write(writer.take())

    async def _apply_erasures(self, rows: Rows, ledger: Ledger) -> None:
        """Do to the rows what was erased since the snapshot, and note the contents that are left."""
        ledger.expect_heads(row["version_id"] for row in rows.of(memories))
        with rows.replacing(memory_versions) as put:
            for batch in _of_one_store(rows.of(memory_versions)):
                for row in await self._as_they_are(batch):
                    put(row)
                    if row["content_sha256"] is not None:
                        ledger.know((row["store_id"], row["content_sha256"]), row["id"])
                        ledger.see_head(row["id"])
        with rows.replacing(memories) as put:
            for row in rows.of(memories):
                if ledger.is_head_lost(row["version_id"]):
                    ledger.lose(row["store_id"], row["content_size"])
                else:
                    put(row)
        await self._note_live_stores(ledger)
        gone: dict[str, int] = {}
        with rows.replacing(memory_stores) as put:
            for row in rows.of(memory_stores):
                number, size = ledger.lost(row["id"])
                row["memory_count"] -= number
                row["total_bytes"] -= size
                if row["deleted_at"] is None and not ledger.is_live(row["id"]):
                    row |= {"deleted_at": clock.now(), "name": "", "description": "", "metadata": "{}"}
                    gone[row["workspace_id"]] = gone.get(row["workspace_id"], 0) + 1
                put(row)
        with rows.replacing(workspaces) as put:
            for row in rows.of(workspaces):
                put(row | {"store_count": row["store_count"] - gone.get(row["id"], 0)})

    async def _note_live_stores(self, ledger: Ledger) -> None:
        after = ""
        while page := await self._storage.database.fetch_all(_LIVE_STORES, {"after": after, "limit": PAGE}):
            ledger.live(row["id"] for row in page)
            after = page[-1]["id"]

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
        rows: Rows,
        ledger: Ledger,
        result: BackedUp,
    ) -> None:
        header = {
            "format": BACKUP_FORMAT,
            "format_version": BACKUP_VERSION,
            "id": secrets.token_hex(16),  # so that a restore can tell whether it was this one that was restored
            "schema": head_revision(),
            "program": __version__,
            "made_at": clock.rfc3339(clock.now()),
        }
        now = clock.now()
        writer.add(HEADER, orjson.dumps(header, option=orjson.OPT_INDENT_2) + b"\n", now)
        for entry in archive_entries(plain, NO_BOUNDS):  # type: ignore[arg-type]
            if ledger.is_known(content_of(entry.name)):
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


def _batches(rows: Rows, ledger: Ledger) -> Iterator[list[Content]]:
    """The contents that are to be copied from the blob store, some at a time."""
    batch: list[Content] = []
    for row in rows.of(memory_versions):
        sha256 = row["content_sha256"]
        if sha256 is not None and ledger.ask((row["store_id"], sha256)):
            batch.append((row["store_id"], sha256))
        if len(batch) == _CONTENTS:
            yield batch
            batch = []
    if batch:
        yield batch


def _of_one_store(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows that follow each other and are of one store, some at a time."""
    batch: list[Row] = []
    for row in rows:
        if batch and (batch[0]["store_id"] != row["store_id"] or len(batch) == PAGE):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
