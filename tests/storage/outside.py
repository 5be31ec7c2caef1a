"""Database and blob store seen from outside the service, to observe it and to plant defects."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from app.storage.rows.tables import audit_head, installation, metadata
from tests.support.postgres import execute
from tests.support.s3 import S3Endpoint
from tests.support.waiting import until

_OF_THE_SCHEMA = (installation.name, audit_head.name)
"""Tables whose one row is made with the schema."""


def digest(text: str) -> str:
    """The SHA-256 of a text in hex, as it stands in keys and on the wire."""
    return hashlib.sha256(text.encode()).hexdigest()


def key(store_id: str, sha256: str) -> str:
    """Where a content's blob is, below the root of `MEMSTORE_BLOB_URL`."""
    return f"{store_id}/{sha256}"


class Blobs(Protocol):
    """The blob store without the service; a key is what follows the root of `MEMSTORE_BLOB_URL`."""

    def all_keys(self) -> set[str]:
        """All keys, but for those that begin with a dot: they are the service's own notes."""
        ...

    def read(self, key: str) -> bytes:
        """The bytes of one blob."""
        ...

    def write(self, key: str, content: bytes) -> None:
        """Put a blob behind the service's back."""
        ...

    def remove(self, key: str) -> None:
        """Remove a blob behind the service's back."""
        ...


class _Directory:
    def __init__(self, root: Path) -> None:
        self.root = root

    def all_keys(self) -> set[str]:
        files = (Path(directory) / name for directory, _, names in os.walk(self.root) for name in names)
        keys = {str(file.relative_to(self.root)) for file in files}
        return {key for key in keys if not key.startswith(".")}

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(content)

    def remove(self, key: str) -> None:
        (self.root / key).unlink()


class _Bucket:
    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def all_keys(self) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        keys = {entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", ())}
        return {key for key in keys if not key.startswith(".")}

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        return content

    def write(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)


class Rows:
    """The database without the service. The SQL must mean the same on both databases."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._url = environment.get("MEMSTORE_DATABASE_URL")
        self.sqlite_file = None if self._url else Path(environment["MEMSTORE_DATA_DIR"]) / "memstore.db"

    def hex(self, column: str) -> str:
        """SQL for a digest's column in hex."""
        return f"encode({column}, 'hex')" if self._url else f"lower(hex({column}))"

    def literal(self, sha256: str) -> str:
        """SQL for a digest given in hex."""
        return f"'\\x{sha256}'" if self._url else f"x'{sha256}'"

    def execute(self, statement: str) -> list[tuple[str, ...]]:
        """Run one statement and commit; every value of the result as text."""
        if self._url:
            lines = execute(self._url, statement).splitlines()
            return [tuple(line.split("|")) for line in lines]
        assert self.sqlite_file is not None
        with closing(sqlite3.connect(self.sqlite_file, timeout=30, isolation_level=None)) as connection:
            return [tuple(map(str, row)) for row in connection.execute(statement).fetchall()]

    def execute_all(self, statements: Iterable[str]) -> None:
        """Run them in one transaction: a program or a connection for each would take longer than what they do."""
        if self._url:
            execute(self._url, "; ".join(statements))
            return
        assert self.sqlite_file is not None
        with closing(sqlite3.connect(self.sqlite_file, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")

    def count(self, table: str, where: str = "true") -> int:
        """How many rows of a table fulfil a condition."""
        ((number,),) = self.execute(f"SELECT count(*) FROM {table} WHERE {where}")
        return int(number)

    def empty(self) -> None:
        """Leave no row, as in a database that was just made; the audit log, which lets nobody delete, as well."""
        tables = [table.name for table in reversed(metadata.sorted_tables) if table.name not in _OF_THE_SCHEMA]
        if self.sqlite_file:
            triggers = self.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            unguarded, guarded = [f"DROP TRIGGER {name}" for name, _ in triggers], [guard for _, guard in triggers]
        else:
            unguarded = ["ALTER TABLE audit_entries DISABLE TRIGGER USER"]
            guarded = ["ALTER TABLE audit_entries ENABLE TRIGGER USER"]
        no_entries = f"UPDATE audit_head SET seq = 0, sha256 = {self.literal('00' * 32)}"
        self.execute_all([*unguarded, *(f"DELETE FROM {table}" for table in tables), no_entries, *guarded])


class Outside:
    """Both together."""

    def __init__(self, rows: Rows, blobs: Blobs) -> None:
        self.rows = rows
        self.blobs = blobs

    def blobs_of(self, store_id: str) -> set[str]:
        """The digests, in hex, of one memory store's blobs."""
        keys = {name for name in self.blobs.all_keys() if name.startswith(f"{store_id}/")}
        digests = {name.rpartition("/")[2] for name in keys}
        assert keys == {key(store_id, sha256) for sha256 in digests}
        return digests

    def staged(self) -> int:
        """How many contents wait in the database."""
        return self.rows.count("staged_contents")

    def wait_until_moved(self) -> None:
        """Return when nothing waits in the stage any more."""
        until(lambda: self.staged() == 0, "every content is moved to the blob store")


@contextmanager
def outside(environment: Mapping[str, str]) -> Iterator[Outside]:
    """The outside view on what a server with this environment uses."""
    rows = Rows(environment)
    url = environment.get("MEMSTORE_BLOB_URL")
    if url is None or url.startswith("file://"):
        default = Path(environment["MEMSTORE_DATA_DIR"]) / "blobs"
        yield Outside(rows, _Directory(Path(urlsplit(url).path) if url else default))
        return
    parts = urlsplit(url)
    s3 = S3Endpoint(
        environment["MEMSTORE_S3_ENDPOINT_URL"], environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    )
    with s3.client() as client:
        yield Outside(rows, _Bucket(client, parts.netloc, parts.path.strip("/") + "/"))
