"""What a backup must remember of every content and memory: on disk, since a deployment may hold any number of them."""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

Content = tuple[str, bytes]
"""A store's ID, and the 32 bytes of a content's SHA-256."""

_CACHE_KIB = 4_096
_SCHEMA = f"""
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -{_CACHE_KIB};
    CREATE TABLE contents (
        store_id TEXT, sha256 BLOB, is_kept INTEGER NOT NULL, version_id TEXT, PRIMARY KEY (store_id, sha256)
    ) WITHOUT ROWID;
    CREATE TABLE heads (version_id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE losses (store_id TEXT PRIMARY KEY, memories INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE live_stores (store_id TEXT PRIMARY KEY) WITHOUT ROWID;
    BEGIN;
"""


class Ledger:
    """IDs and digests, no text. It lies in a file without a name, so that not even a kill leaves it behind.

    Every method raises OSError when the disk is full or fails.
    """

    def __init__(self, directory: Path) -> None:
        """directory: where the file takes its room."""
        descriptor, name = tempfile.mkstemp(prefix=".memstore-ledger.", dir=directory)
        os.close(descriptor)
        try:
            with _as_of_the_disk():
                self._database = sqlite3.connect(name, isolation_level=None)
                self._database.executescript(_SCHEMA)
        finally:
            os.unlink(name)

    def keep(self, content: Content) -> None:
        """Note that a content was copied."""
        self._do("INSERT INTO contents VALUES (?, ?, 1, NULL) ON CONFLICT DO UPDATE SET is_kept = 1", content)

    def ask(self, content: Content) -> bool:
        """Whether a content was neither copied nor asked for before."""
        return self._do("INSERT OR IGNORE INTO contents VALUES (?, ?, 0, NULL)", content).rowcount == 1

    def know(self, content: Content, version_id: str) -> None:
        """Note that a version of the backup has a content."""
        self._do(
            "INSERT INTO contents VALUES (?, ?, 0, ?) "
            "ON CONFLICT DO UPDATE SET version_id = coalesce(version_id, excluded.version_id)",
            (*content, version_id),
        )

    def is_known(self, content: Content) -> bool:
        """Whether a version of the backup has a content."""
        asked = "SELECT 1 FROM contents WHERE store_id = ? AND sha256 = ? AND version_id IS NOT NULL"
        return self._do(asked, content).fetchone() is not None

    def missing(self) -> Iterator[str]:
        """A version of each content that the backup has not, though it should."""
        asked = "SELECT version_id FROM contents WHERE version_id IS NOT NULL AND NOT is_kept"
        return (version_id for (version_id,) in self._do(asked, ()))

    def expect_heads(self, version_ids: Iterable[str]) -> None:
        """Note the versions that hold what the memories have now."""
        with _as_of_the_disk():
            self._database.executemany("INSERT OR IGNORE INTO heads VALUES (?)", ((one,) for one in version_ids))

    def see_head(self, version_id: str) -> None:
        """Note that a version is there, with a content."""
        self._do("DELETE FROM heads WHERE version_id = ?", (version_id,))

    def is_head_lost(self, version_id: str) -> bool:
        """Whether a version that was expected was not seen."""
        return self._do("SELECT 1 FROM heads WHERE version_id = ?", (version_id,)).fetchone() is not None

    def lose(self, store_id: str, size: int) -> None:
        """Note that a store has lost a memory of `size` bytes."""
        self._do(
            "INSERT INTO losses VALUES (?, 1, ?) "
            "ON CONFLICT DO UPDATE SET memories = memories + 1, bytes = bytes + excluded.bytes",
            (store_id, size),
        )

    def lost(self, store_id: str) -> tuple[int, int]:
        """The memories that a store has lost, and their bytes."""
        found = self._do("SELECT memories, bytes FROM losses WHERE store_id = ?", (store_id,)).fetchone()
        return (found[0], found[1]) if found else (0, 0)

    def live(self, store_ids: Iterable[str]) -> None:
        """Note stores that are not deleted."""
        with _as_of_the_disk():
            self._database.executemany("INSERT OR IGNORE INTO live_stores VALUES (?)", ((one,) for one in store_ids))

    def is_live(self, store_id: str) -> bool:
        """Whether a store was noted so."""
        return self._do("SELECT 1 FROM live_stores WHERE store_id = ?", (store_id,)).fetchone() is not None

    def _do(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        with _as_of_the_disk():
            return self._database.execute(statement, values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()


@contextmanager
def _as_of_the_disk() -> Iterator[None]:
    """A full disk is told as the operating system tells it, and so is never taken for the deployment's database."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(number, f"{os.strerror(number)}: {error}") from error
