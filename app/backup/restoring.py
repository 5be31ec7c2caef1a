"""Restoring a backup into an empty deployment, of whichever database and blob store.

Contents are put first, each checked against its digest; then all rows in one transaction. Whatever stops it before
that commit leaves a deployment without rows, into which it can be restored again. A restore that does not hear how its
transaction ended asks, under the lock that it takes: what was committed stays, and is whole. The same command
again says that it is done.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import sqlalchemy as sa

from app.audit import log as audit
from app.backup.rows import (
    BACKUP_FORMAT,
    BACKUP_VERSION,
    HEADER,
    MANIFEST,
    TABLES,
    content_name,
    from_json,
    table_name,
)
from app.contract.actors import Actor
from app.contract.errors import InvalidRequest
from app.contract.limits import CONTENT_MAX_BYTES
from app.storage.contents.disks import room_in, roomiest
from app.storage.rows.database import Database, Transaction
from app.storage.rows.migrations import head_revision
from app.storage.rows.outcomes import look_after
from app.storage.rows.statements import Statement
from app.storage.rows.tables import audit_head, installation, metadata
from app.storage.storage import Storage
from app.transfer import queries
from app.transfer.archives.bounds import NO_BOUNDS, OWN_FILE_BYTES
from app.transfer.archives.entries import FILE, Entry
from app.transfer.archives.readers import archive_entries

_ROWS = 1_000
_CONTENTS = 1_000
_CHUNK = 262_144
_BATCH_BYTES = 4 * 1024 * 1024
"""Of contents."""
_ROWS_BYTES = 1024 * 1024
"""Of rows, which take some times as much while they are read."""
_MEMORY = 262_144
_LINE_BYTES = 8 * 1024 * 1024
"""Of one row. The largest are agents, with a prompt of 100,000 characters and 256 tools."""

_ACTION = "deployment.restored"
_LOCK = Statement("SELECT id FROM installation FOR UPDATE")
_NEWEST_ENTRY = Statement("SELECT action, detail FROM audit_entries ORDER BY seq DESC LIMIT 1")

_ADVICE = (
    "nothing is restored. The rows of a backup need room there for a while: make some, or name a directory on another "
    "disk in TMPDIR"
)

_STORE_ID = re.compile(r"[0-9A-Za-z_]+")
_OWN_ROWS = (installation, audit_head)
"""Tables whose one row is made with the schema."""
_TABLE_NAMES = frozenset(table_name(table) for table in TABLES)


@dataclass(slots=True)
class Restored:
    """What was restored."""

    rows: int = 0
    contents: int = 0
    bytes: int = 0
    was_there: bool = False
    """Whether the same backup had been restored already, so that nothing was to do."""


class Restore:
    """Restores into the deployment that a storage belongs to."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def refuse_unless_empty(self) -> None:
        """Refuse a deployment that has been used.

        Raises:
            InvalidRequest: it has rows, or its blob store has blobs.

        """
        await _refuse_unless_empty(self._storage.database)

    async def read(self, source: Path, actor: Actor) -> Restored:
        """Restore a backup. No server may run on the deployment meanwhile.

        Raises:
            InvalidRequest: the deployment is not empty, or the backup is damaged, or of another schema.
            NoRoom: there is no disk for its rows.
            Unavailable: database or blob store do not answer, or the former did not say whether the rows were written.

        """
        with ExitStack() as stack:
            entries = archive_entries(stack.enter_context(source.open("rb")), NO_BOUNDS)
            header = _header(entries)
            backup_id = hashlib.sha256(header).hexdigest()
            if (done := await _restored(self._storage.database, backup_id)) is not None:
                return done
            _check_header(_json(header))
            await self.refuse_unless_empty()
            await self._storage.ownership.check()
            # A disk that took the backup often has room for its rows; $TMPDIR is often a small one, or memory.
            place = roomiest(source.parent, Path(tempfile.gettempdir()))
            result = Restored()
            with room_in(place, _ADVICE):
                tables = await self._read(entries, stack, place, result)
            return await self._write(tables, actor, result, backup_id)

    async def _read(
        self, entries: Iterator[Entry], stack: ExitStack, place: Path, result: Restored
    ) -> dict[str, IO[bytes]]:
        """Put the contents and keep the rows of each table in `place`; everything is held to the manifest."""
        tables: dict[str, IO[bytes]] = {}
        digests: dict[str, str] = {}
        batch: list[tuple[str, bytes, bytes]] = []
        size = 0
        manifest: Any = None
        for entry in entries:
            if entry.kind is not FILE:
                continue
            if entry.name == MANIFEST:
                manifest = _json(_small(entry))
            elif entry.name.startswith("contents/"):
                batch.append(_content(entry.name, entry.read(CONTENT_MAX_BYTES + 1)))
                result.contents += 1
                result.bytes += len(batch[-1][2])
                size += len(batch[-1][2])
                if size >= _BATCH_BYTES or len(batch) == _CONTENTS:
                    await self._storage.blobs.put_many(batch)
                    batch, size = [], 0
            elif entry.name not in _TABLE_NAMES or entry.name in tables:
                raise InvalidRequest(f"the backup is damaged: {entry.name[:200]!r} is no file of it, or comes twice")
            else:
                hasher = hashlib.sha256()
                kept: IO[bytes] = stack.enter_context(tempfile.SpooledTemporaryFile(_MEMORY, dir=str(place)))  # noqa: SIM115 - closed by the stack
                while data := entry.read(_CHUNK):
                    hasher.update(data)
                    kept.write(data)
                tables[entry.name] = kept
                digests[entry.name] = hasher.hexdigest()
        if batch:
            await self._storage.blobs.put_many(batch)
        _check_manifest(manifest, digests, result)
        return tables

    async def _write(self, tables: dict[str, IO[bytes]], actor: Actor, result: Restored, backup_id: str) -> Restored:
        async def work(transaction: Transaction) -> int:
            await transaction.fetch_one(_LOCK, {})
            await _refuse_unless_empty(transaction)
            number = 0
            for table in TABLES:
                statement = queries.replace(table) if table in _OWN_ROWS else queries.insert(table)
                for rows in _rows(table, tables[table_name(table)]):
                    number += len(rows)
                    await transaction.execute_many(statement, rows)
            detail = {"backup": backup_id, "rows": number, "contents": result.contents, "bytes": result.bytes}
            text = json.dumps(detail, separators=(",", ":"))
            await audit.append(transaction, audit.Entry(_ACTION, None, actor.type, actor.id, None, text, None))
            return number

        try:
            result.rows = await self._storage.database.transact(work)
        except BaseException as error:
            done = await self._after(error, backup_id)
            if done is None or not isinstance(error, Exception):
                raise
            result.rows = done.rows
        return result

    async def _after(self, error: BaseException, backup_id: str) -> Restored | None:
        """What was restored, though writing it ended with an error; None: nothing was."""

        async def work(transaction: Transaction) -> Restored | None:
            # The transaction may still be under way in the database; it holds this row to its end.
            await transaction.fetch_one(_LOCK, {})
            return await _restored(transaction, backup_id)

        not_known = (
            "whether the backup was restored is not known. Run the same again: it restores the backup, or says that it "
            "is restored"
        )
        return await look_after(error, self._storage.database, work, not_known)


async def _refuse_unless_empty(reader: Database | Transaction) -> None:
    for table in metadata.sorted_tables:
        if table in _OWN_ROWS or table.name == "leases":
            continue
        if await reader.fetch_one(queries.any_row(table), {}):
            raise InvalidRequest(
                f"the deployment is not empty: there are rows in {table.name}; a backup is restored into a new "
                "database, whose server was not started yet"
            )


async def _restored(reader: Database | Transaction, backup_id: str) -> Restored | None:
    """What was restored of this backup, where that is the last thing that the audit log knows of."""
    newest = await reader.fetch_one(_NEWEST_ENTRY, {})
    if newest is None or newest["action"] != _ACTION:
        return None
    detail = json.loads(newest["detail"])
    if detail.get("backup") != backup_id:
        return None
    return Restored(detail["rows"], detail["contents"], detail["bytes"], was_there=True)


def _header(entries: Iterator[Entry]) -> bytes:
    """The first file of a backup, as it stands there."""
    entry = next((each for each in entries if each.kind is FILE), None)
    if entry is None:
        raise InvalidRequest("is no backup: there is no file in it")
    if entry.name != HEADER:
        raise InvalidRequest(f"is no backup: its first file is {entry.name[:200]!r}, not {HEADER!r}")
    return _small(entry)


def _rows(table: sa.Table, file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """Rows to write at once: neither too many nor too large together."""
    file.seek(0)
    rows: list[dict[str, Any]] = []
    size = 0
    while line := file.readline(_LINE_BYTES + 1):
        if len(line) > _LINE_BYTES:
            raise _unreadable(table, f"one has more than {_LINE_BYTES:,} bytes")
        try:
            rows.append(from_json(table, line))
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(table, repr(str(error)[:200])) from None
        size += len(line)
        if len(rows) == _ROWS or size >= _ROWS_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _unreadable(table: sa.Table, why: str) -> InvalidRequest:
    return InvalidRequest(f"the backup's rows of {table.name} can't be read: {why}")


def _small(entry: Entry) -> bytes:
    """A small file."""
    data = entry.read(OWN_FILE_BYTES + 1)
    if len(data) > OWN_FILE_BYTES:
        raise InvalidRequest(f"the backup is damaged: {entry.name} has more than {OWN_FILE_BYTES:,} bytes")
    return data


def _json(data: bytes) -> Any:
    """The JSON in a small file; None if it is none."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _content(name: str, content: bytes) -> tuple[str, bytes, bytes]:
    store_id, _, digest = name.removeprefix("contents/").partition("/")
    sha256 = hashlib.sha256(content).digest()
    if sha256.hex() != digest or content_name(store_id, sha256) != name or not _STORE_ID.fullmatch(store_id):
        raise InvalidRequest(f"the backup is damaged: {name!r} does not hold the content of that digest")
    return store_id, sha256, content


def _check_header(header: Any) -> None:
    if not isinstance(header, dict) or header.get("format") != BACKUP_FORMAT:
        raise InvalidRequest("is no backup of this program")
    if header.get("format_version") != BACKUP_VERSION:
        raise InvalidRequest(
            f"is a backup of format {header.get('format_version')!r}; this program reads {BACKUP_VERSION}"
        )
    if header.get("schema") != head_revision():
        raise InvalidRequest(
            f"the backup has the schema {header.get('schema')!r}, this program needs {head_revision()}: "
            f"restore it with version {header.get('program')!r}, then run 'memstore migrate' with this one"
        )


def _check_manifest(manifest: Any, digests: dict[str, str], result: Restored) -> None:
    if not isinstance(manifest, dict):
        raise InvalidRequest("the backup has no manifest.json: it was cut off before its end")
    files, contents = manifest.get("tables"), manifest.get("contents")
    if not isinstance(files, dict) or not isinstance(contents, dict):
        raise InvalidRequest("the backup is damaged: its manifest.json can't be read")
    for table in TABLES:
        listed = files.get(table.name)
        digest = digests.get(table_name(table))
        if not isinstance(listed, dict) or digest is None or digest != listed.get("sha256"):
            raise InvalidRequest(f"the backup is damaged: the rows of {table.name} do not have the manifest's digest")
    if contents.get("count") != result.contents:
        raise InvalidRequest(
            f"the backup is damaged: it holds {result.contents:,} contents of {str(contents.get('count'))[:20]!r}"
        )
