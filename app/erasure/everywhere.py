"""Looking for a text in everything that the service stores: every column that can hold one, every object.

The search is that of a selection (`app.erasure.folding`): what one finds, the other does.
"""

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Integer, LargeBinary, String, Table
from sqlalchemy.types import TypeEngine

from app.erasure.columns import NO_TEXT, is_in_column
from app.erasure.erasing import Finding
from app.erasure.folding import Folded
from app.storage.contents.blobs import iterate
from app.storage.rows.statements import Statement
from app.storage.rows.tables import metadata
from app.storage.storage import Storage

_BATCH = 100
"""Rows, or blobs, that are held at a time: 10 MB where each is as large as a content may be."""
_LOWEST: dict[type, object] = {int: -1, str: "", bytes: b""}


async def find(storage: Storage, text: str) -> AsyncIterator[Finding]:
    """Where the text is: columns, blobs, object versions.

    Raises:
        VersionsOutOfReach: the bucket's object versions can't be listed.

    """
    wanted = Folded(text)
    for table in metadata.sorted_tables:
        async for finding in _in_table(storage, table, wanted):
            yield finding
    batch: list[tuple[str, bytes]] = []
    async for blob in iterate(storage.blobs):
        batch.append((blob.store_id, blob.sha256))
        if len(batch) == _BATCH:
            for finding in await _in_blobs(storage, batch, wanted):
                yield finding
            batch = []
    for finding in await _in_blobs(storage, batch, wanted):
        yield finding
    if storage.blobs.object_versions is not None:
        for version in await storage.blobs.object_versions.of_all():
            is_old = not version.is_marker and not version.is_latest
            if is_old and wanted.is_in_bytes(await storage.blobs.object_versions.read(version)):
                yield Finding("object versions", f"{version.key} version {version.version_id}")


async def _in_table(storage: Storage, table: Table, text: Folded) -> AsyncIterator[Finding]:
    keys = [column.name for column in table.primary_key.columns]
    searched = [column.name for column in table.columns if _may_hold_text(table, column)]
    if not searched:
        return
    numbers = dict.fromkeys(searched, 0)
    statement = _page(table, tuple(sorted({*keys, *searched})))
    after = {column.name: _LOWEST[column.type.python_type] for column in table.primary_key.columns}
    while rows := await storage.database.fetch_all(statement, {**after, "page_limit": _BATCH}):
        after = {name: rows[-1][name] for name in keys}
        for row in rows:
            for name in searched:
                value = row[name]
                if value is not None and is_in_column(f"{table.name}.{name}", value, text):
                    numbers[name] += 1
    for name, number in numbers.items():
        if number:
            yield Finding("database", f"{table.name}.{name}: {number} rows")


def _may_hold_text(table: Table, column: Column[object]) -> bool:
    return isinstance(column.type, String | LargeBinary) and f"{table.name}.{column.name}" not in NO_TEXT


@lru_cache
def _page(table: Table, columns: tuple[str, ...]) -> Statement:
    keys = [column.name for column in table.primary_key.columns]
    types: dict[str, TypeEngine[Any]] = {column.name: column.type for column in table.primary_key.columns}
    ordered, named = ", ".join(keys), ", ".join(f":{key}" for key in keys)
    return Statement(
        f"SELECT {', '.join(columns)} FROM {table.name} WHERE ({ordered}) > ({named}) ORDER BY {ordered} LIMIT :page_limit",  # noqa: S608, E501
        {**types, "page_limit": Integer()},
    )


async def _in_blobs(storage: Storage, blobs: list[tuple[str, bytes]], wanted: Folded) -> list[Finding]:
    contents = await storage.blobs.get_many(blobs)
    return [
        Finding("blobs", f"{store_id}/{sha256.hex()}")
        for (store_id, sha256), content in zip(blobs, contents, strict=True)
        if content is not None and wanted.is_in_bytes(content)
    ]
