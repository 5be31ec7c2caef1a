"""What is in a backup, and its rows: each a line, on disk and in memory a page at a time."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import orjson
import sqlalchemy as sa

from app.backup.ledger import Content
from app.storage.rows.database import Reader
from app.storage.rows.tables import (
    agent_versions,
    condemned_contents,
    environments,
    leases,
    memory_stores,
    metadata,
    sessions,
    staged_contents,
)
from app.transfer import queries

BACKUP_FORMAT = "memstore-backup"
BACKUP_VERSION = 1
HEADER, MANIFEST = "backup.json", "manifest.json"

TRANSIENT = {staged_contents.name, condemned_contents.name, leases.name}
"""Tables of what is under way. Staged contents are in the backup as contents."""
TABLES = [table for table in metadata.sorted_tables if table.name not in TRANSIENT]

PAGE = 1_000
_WIDE_PAGES = {agent_versions.name: 4, sessions.name: 4, memory_stores.name: 100, environments.name: 100}
"""Of tables whose rows may be large: an agent has some megabytes, what has metadata some ten kilobytes."""
_MEMORY = 262_144
"""Of each table's rows; what is more lies on disk."""

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


class Rows:
    """The rows of the snapshot, table by table, in temporary files of `directory`."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._files = {table.name: self._new() for table in TABLES}

    def _new(self) -> IO[bytes]:
        return self._stack.enter_context(tempfile.SpooledTemporaryFile(_MEMORY, dir=str(self._directory)))

    async def read(self, reader: Reader) -> None:
        """Take every row of the snapshot."""
        for table in TABLES:
            statement, key = queries.select_page(table), first_key(table)
            page = {"page_limit": _WIDE_PAGES.get(table.name, PAGE)}
            while rows := await reader.fetch_all(statement, key | page):
                for row in rows:
                    self._files[table.name].write(to_json(dict(row)))
                key = {column.name: rows[-1][column.name] for column in table.primary_key.columns}

    def of(self, table: sa.Table) -> Iterator[Row]:
        """The rows of a table, one at a time."""
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
        """The lines of a table."""
        self._files[table.name].seek(0)
        return self._files[table.name]


def content_name(store_id: str, sha256: bytes) -> str:
    """Where a content is in the backup."""
    return f"contents/{store_id}/{sha256.hex()}"


def content_of(name: str) -> Content:
    """The content that `content_name` named so."""
    _, store_id, digest = name.split("/")
    return store_id, bytes.fromhex(digest)


def table_name(table: sa.Table) -> str:
    """Where a table's rows are in the backup."""
    return f"tables/{table.name}.jsonl"
