"""Exports: a store as it is at one moment, as an archive or a directory, in bounded memory.

Rows and sequence number come from one statement, so what is exported is the store after its change `seq`, however
many writers go on. Contents are read a few at a time, and whether they are erased is asked again just before: what was
redacted before its turn is not in the export.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Container, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256 as digest_of
from pathlib import Path
from typing import BinaryIO

import orjson

from app.audit import log as audit
from app.contract import clock
from app.contract.actors import Caller
from app.feed.snapshots import Snapshot, Snapshots
from app.memories.service import Found
from app.storage.contents.disks import temporary_room
from app.storage.contents.reading import with_fresh_rows
from app.storage.rows.database import Row, Transaction
from app.storage.storage import Storage
from app.stores.service import not_found
from app.transfer import queries
from app.transfer.archives import layout
from app.transfer.archives.manifest import HistoryOfExport, Manifest, MemoryOfExport, StoreOfExport, version_line
from app.transfer.archives.writers import ArchiveFormat, ArchiveWriter, DirectoryWriter, NameNotHeld, archive_writer

_PAGE = 50
_PIECE_BYTES = 262_144
_SPOOL_BYTES = 4 * 1024 * 1024
_NO_NAME_IN_A_ZIP = "\\"
"""A program that unpacks a zip may take it for a separator; an import does."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of an export. Content is whole, or comes from `spool` and is `size` bytes long."""

    name: str
    modified: int
    content: bytes = b""
    spool: BinaryIO | None = None
    size: int = 0


@dataclass(slots=True)
class Exported:
    """What an export has become."""

    memory_store_id: str
    seq: int
    memories: int = 0
    versions: int | None = None
    left_out: list[str] = field(default_factory=list)
    """Paths of memories whose content was erased while the export was under way."""
    renamed: list[str] = field(default_factory=list)
    """Paths that the directory's file system, or a zip, can't hold; they are below `contents/`."""


class Exporter:
    """One export under way. `pieces` or `into_directory` may be called, once."""

    def __init__(self, storage: Storage, store: Row, snapshot: Snapshot, *, history: bool) -> None:
        self._storage = storage
        self._store = store
        self._snapshot = snapshot
        self._history = history
        self._now = clock.now()
        self._listed: list[MemoryOfExport] = []
        self._contents: set[bytes] = set()
        self.result = Exported(store["id"], snapshot.seq)

    async def pieces(self, archive_format: ArchiveFormat) -> AsyncGenerator[bytes, None]:
        """The archive, piece by piece."""
        writer = archive_writer(archive_format)
        ready: list[bytes] = []
        size = 0
        async with aclosing(self._files()) as files:
            async for file in files:
                self._snapshot.refuse_outdated()
                if archive_format == "zip" and _NO_NAME_IN_A_ZIP in file.name:
                    self._rename(writer, file)
                elif file.spool is None:
                    writer.add(file.name, file.content, file.modified)
                else:
                    writer.begin(file.name, file.size, file.modified)
                    while data := file.spool.read(_PIECE_BYTES):
                        writer.write(data)
                        self._snapshot.refuse_outdated()
                        yield b"".join([*ready, writer.take()])
                        ready, size = [], 0
                    writer.end()
                ready.append(writer.take())
                size += len(ready[-1])
                if size >= _PIECE_BYTES:
                    yield b"".join(ready)
                    ready, size = [], 0
                # Compressing takes the processor for a while: let others in between.
                await asyncio.sleep(0)
        yield b"".join(ready) + writer.finish()

    async def into_directory(self, directory: Path) -> None:
        """The same as files below a new or empty directory.

        Raises:
            InvalidRequest: something is there already.

        """
        writer = DirectoryWriter(directory)
        async with aclosing(self._files()) as files:
            async for file in files:
                self._snapshot.refuse_outdated()
                content = file.content if file.spool is None else file.spool.read()
                try:
                    writer.add(file.name, content, file.modified)
                except NameNotHeld:
                    self._rename(writer, file)

    def _rename(self, writer: DirectoryWriter | ArchiveWriter, file: File) -> None:
        """Keep a memory under its digest, for its own name is none for this file system, or in a zip."""
        sha256 = digest_of(file.content).digest()
        name = layout.content_file(sha256)
        memory = self._listed[-1]
        assert layout.memory_file(memory.path) == file.name
        if sha256 not in self._contents:
            writer.add(name, file.content, file.modified)
            self._contents.add(sha256)
        self._listed[-1] = memory.model_copy(update={"file": name})
        self.result.renamed.append(memory.path)

    async def _files(self) -> AsyncGenerator[File, None]:
        header = {
            "format": layout.FORMAT,
            "format_version": layout.FORMAT_VERSION,
            "memory_store_id": self._store["id"],
            "seq": self._snapshot.seq,
            "exported_at": clock.rfc3339(self._now),
        }
        yield File(layout.HEADER, self._now, orjson.dumps(header, option=orjson.OPT_INDENT_2) + b"\n")
        written: set[bytes] = set()
        async with aclosing(self._snapshot.pieces) as pieces:
            async for piece in pieces:
                for found in piece:
                    if (file := self._memory(found)) is not None:
                        written.add(bytes(found.row["content_sha256"]))
                        yield file
        history = None
        if self._history:
            with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as lines:
                hasher, count = digest_of(), 0
                async for page in self.versions(written):
                    for row, content in page:
                        line = version_line(row)
                        with temporary_room("a history that goes out"):
                            lines.write(line)
                        hasher.update(line)
                        count += 1
                        if content is not None and (sha256 := bytes(row["content_sha256"])) not in written:
                            written.add(sha256)
                            yield File(layout.content_file(sha256), row["created_at"], content)
                size = lines.tell()
                lines.seek(0)
                yield File(layout.VERSIONS, self._now, spool=lines, size=size)  # type: ignore[arg-type]
            history = HistoryOfExport(count=count, sha256=hasher.hexdigest())
            self.result.versions = count
        yield File(layout.MANIFEST, self._now, self._manifest(history).text())

    def _memory(self, found: Found) -> File | None:
        row = found.row
        if found.content is None:
            self.result.left_out.append(row["path"])
            return None
        name = layout.memory_file(row["path"])
        self._listed.append(
            MemoryOfExport.model_construct(
                path=row["path"],
                file=name,
                sha256=bytes(row["content_sha256"]).hex(),
                size=row["content_size"],
                id=row["id"],
                version_id=row["version_id"],
                created_at=clock.rfc3339(row["created_at"]),
                updated_at=clock.rfc3339(row["updated_at"]),
            )
        )
        self.result.memories += 1
        return File(name, row["updated_at"], found.content)

    async def versions(
        self, known: Container[bytes] = frozenset()
    ) -> AsyncGenerator[Sequence[tuple[Row, bytes | None]], None]:
        """All versions up to the snapshot's number, oldest first, with their contents but for those that are known."""
        seq = 0
        while page := await with_fresh_rows(self._storage.contents, lambda seq=seq: self._page(seq, known)):  # type: ignore[misc]
            yield page
            seq = page[-1][0]["seq"]

    async def _page(self, seq: int, known: Container[bytes]) -> Sequence[tuple[Row, bytes | None]]:
        parameters = {
            "store_id": self._store["id"], "seq": seq, "last_seq": self._snapshot.seq, "limit": _PAGE,
        }  # fmt: skip
        rows = await self._storage.database.fetch_all(queries.VERSIONS, parameters)
        wanted = [
            row for row in rows if row["content_sha256"] is not None and bytes(row["content_sha256"]) not in known
        ]
        references = [(row["store_id"], bytes(row["content_sha256"]), row["content"]) for row in wanted]
        texts = await self._storage.contents.read_many(references)
        by_seq = {row["seq"]: text for row, text in zip(wanted, texts, strict=True)}
        return [(row, by_seq.get(row["seq"])) for row in rows]

    def _manifest(self, history: HistoryOfExport | None) -> Manifest:
        store = StoreOfExport(
            id=self._store["id"],
            name=self._store["name"],
            description=self._store["description"],
            metadata=orjson.loads(self._store["metadata"]),
        )
        return Manifest(
            exported_at=clock.rfc3339(self._now),
            memory_store=store,
            seq=self._snapshot.seq,
            memories=self._listed,
            history=history,
        )


class Exports:
    """Exports of the stores of a caller's workspace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._snapshots = Snapshots(storage)

    async def begin(self, caller: Caller, store_id: str, *, history: bool, form: str) -> Exporter:
        """Take the snapshot and note in the audit log that it goes out. `form`: the format, for that note.

        Raises:
            NotFound: there is no such store.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "store.exported", subject=store_id, detail={"format": form, "history": history})

        async def work(transaction: Transaction) -> Row:
            store = await transaction.fetch_one(queries.STORE, scope)
            if store is None:
                raise not_found(store_id)
            await audit.append(transaction, entry)
            return store

        store = await self._storage.database.transact(work)
        snapshot = await self._snapshots.take(caller, store_id, with_content=True)
        return Exporter(self._storage, store, snapshot, history=history)
