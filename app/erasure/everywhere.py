"""Looking for a text in everything that the service stores, whatever it is for: every text column, every object."""

import json
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import Column, LargeBinary, String, Table

from app.erasure.job import Finding
from app.storage.contents.blobs import iterate
from app.storage.rows.statements import Statement
from app.storage.rows.tables import metadata
from app.storage.storage import Storage

_BATCH = 100


async def find(storage: Storage, text: str) -> AsyncIterator[Finding]:
    """Where the text is: columns, blobs, object versions.

    Raises:
        VersionsOutOfReach: the bucket's object versions can't be listed.

    """
    for table in metadata.sorted_tables:
        async for finding in _in_table(storage, table, text):
            yield finding
    wanted = text.encode()
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
            if is_old and wanted in await storage.blobs.object_versions.read(version):
                yield Finding("object versions", f"{version.key} version {version.version_id}")


def _is_text(column: Column[object]) -> bool:
    return isinstance(column.type, String)


async def _in_table(storage: Storage, table: Table, text: str) -> AsyncIterator[Finding]:
    for column in table.columns:
        if isinstance(column.type, LargeBinary):
            if column.name != "content":
                continue  # Digests, salts and keys.
            statement = Statement(_binary(storage, table.name, column.name))
            forms: Sequence[str | bytes] = [text.encode()]
        elif _is_text(column):
            statement = Statement(
                f"SELECT count(*) AS number FROM {table.name} WHERE strpos(coalesce({column.name}, ''), :text) > 0"  # noqa: S608
            )
            # What is kept as JSON has its special characters escaped.
            forms = sorted({text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]})
        else:
            continue
        number = 0
        for form in forms:
            row = await storage.database.fetch_one(statement, {"text": form, "content": form})
            assert row is not None
            number = max(number, row["number"])
        if number:
            yield Finding("database", f"{table.name}.{column.name}: {number} rows")


def _binary(storage: Storage, table: str, column: str) -> str:
    position = "position(:content in {})" if storage.database.has_single_statement_mutations else "instr({}, :content)"
    return f"SELECT count(*) AS number FROM {table} WHERE {position.format(column)} > 0"  # noqa: S608


async def _in_blobs(storage: Storage, blobs: list[tuple[str, bytes]], wanted: bytes) -> list[Finding]:
    contents = await storage.blobs.get_many(blobs)
    return [
        Finding("blobs", f"{store_id}/{sha256.hex()}")
        for (store_id, sha256), content in zip(blobs, contents, strict=True)
        if content is not None and wanted in content
    ]
