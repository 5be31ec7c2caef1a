"""What disk and view last agreed on, kept over restarts.

It tells an edit from a change by somebody else, also when the edit was made while nobody looked.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.mount.door.entries import Entry
from app.mount.mirror.tree import Root, Stat

_SCHEMA = """
CREATE TABLE IF NOT EXISTS agreed (
  path TEXT PRIMARY KEY,
  entry TEXT NOT NULL,     -- JSON: the fields of Entry in their order
  stat TEXT NOT NULL,      -- JSON: the fields of Stat in their order; of the file on disk
  ours INTEGER NOT NULL    -- 1: the content came from the disk, 0: from the server
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS directory (path TEXT PRIMARY KEY, inode INTEGER NOT NULL) WITHOUT ROWID;  -- identity_of
CREATE TABLE IF NOT EXISTS displaced (  -- files that a remote change took out of the tree, until it is sure that
  name TEXT PRIMARY KEY,                -- nobody wrote to them at the last moment
  entry TEXT NOT NULL,                  -- what the file held then
  replacement TEXT NOT NULL             -- digest of the content that went in for it; empty: it was deleted
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS text (  -- what files show that no version may have: it was merged on its way
  sha256 TEXT PRIMARY KEY,
  content BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS root (device INTEGER NOT NULL, inode INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS boot (id TEXT NOT NULL);  -- of the machine: another one may follow a power cut
"""


@dataclass(frozen=True, slots=True)
class Agreed:
    """The last agreement on one path: the memory, and the file that shows it."""

    entry: Entry
    stat: Stat
    ours: bool
    """The content came from the disk: if the server turns out to refuse it, the disk keeps it."""


@dataclass(frozen=True, slots=True)
class Displaced:
    """A file that a remote change took out of the tree. `entry` is what it held then."""

    entry: Entry
    replacement: str


class Agreements(Mapping[str, Agreed]):
    """The agreements of one mirror, by path. Changes are on disk after `commit`; not thread-safe."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._has_leftovers = False
        self._database = sqlite3.connect(file, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA secure_delete=ON")  # nothing stays of a path or text that is past
        # A killed process loses nothing, and a power cut is dealt with as such (`is_another_boot`).
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        rows = self._database.execute("SELECT path, entry, stat, ours FROM agreed")
        self._agreed = {
            path: Agreed(Entry(*json.loads(entry)), Stat(*json.loads(stat)), bool(ours))
            for path, entry, stat, ours in rows
        }
        self._directories: dict[str, int] = dict(self._database.execute("SELECT path, inode FROM directory"))

    def close(self) -> None:
        """Commit and close. Nothing stays on disk if nothing is agreed on."""
        is_needed = bool(self._agreed or self.displaced())
        self.commit()
        self._database.close()  # this also empties the write-ahead log
        if not is_needed:
            self._file.unlink(missing_ok=True)

    def commit(self) -> None:
        """Keep what was changed."""
        self._database.commit()

    def let_go(self) -> None:
        """Have nothing on disk of what was forgotten: the write-ahead log has it until it is emptied."""
        if self._has_leftovers:
            self._database.commit()
            busy, *_ = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._has_leftovers = bool(busy)

    def _delete(self, statement: str, values: Iterable[str]) -> None:
        deleted = self._database.executemany(statement, [(value,) for value in values]).rowcount
        self._has_leftovers = self._has_leftovers or deleted > 0

    def __getitem__(self, path: str) -> Agreed:
        return self._agreed[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._agreed)

    def __len__(self) -> int:
        return len(self._agreed)

    def agree(self, path: str, agreed: Agreed) -> None:
        """Disk and view show the same at this path."""
        self._agreed[path] = agreed
        self._database.execute(
            "INSERT OR REPLACE INTO agreed VALUES (?, ?, ?, ?)",
            (path, _entry_json(agreed.entry), _stat_json(agreed.stat), agreed.ours),
        )

    def forget(self, path: str) -> None:
        """Nothing is agreed on this path now."""
        if self._agreed.pop(path, None) is not None:
            self._delete("DELETE FROM agreed WHERE path = ?", [path])

    def below(self, directory: str) -> list[str]:
        """The agreed paths below a directory."""
        return [path for path in self._agreed if path.startswith(directory + "/")]

    def keep_text(self, sha256: str, content: bytes) -> None:
        """Keep a text that the server may not have, as long as an agreement or a displaced file is about it.

        The next edit of the file starts from it: without it nobody could tell what is new in that edit.
        """
        self._database.execute("INSERT OR IGNORE INTO text VALUES (?, ?)", (sha256, content))

    def text(self, sha256: str) -> bytes | None:
        """A text that was kept."""
        row = self._database.execute("SELECT content FROM text WHERE sha256 = ?", (sha256,)).fetchone()
        return None if row is None else bytes(row[0])

    def drop_texts(self) -> None:
        """Drop the texts that nothing refers to, or that the server has."""
        kept = {sha256 for (sha256,) in self._database.execute("SELECT sha256 FROM text")}
        if not kept:
            return
        needed = {displaced.entry.sha256 for displaced in self.displaced().values()}
        needed |= {
            agreed.entry.sha256 for agreed in self._agreed.values() if agreed.ours or agreed.entry.version_id is None
        }
        self._delete("DELETE FROM text WHERE sha256 = ?", kept - needed)

    @property
    def root(self) -> Root | None:
        """The directory that the agreements are about; None before the first one."""
        row = self._database.execute("SELECT device, inode FROM root").fetchone()
        return None if row is None else Root(*row)

    @root.setter
    def root(self, root: Root) -> None:
        self._database.execute("DELETE FROM root")
        self._database.execute("INSERT INTO root VALUES (?, ?)", (root.device, root.identity))

    def is_another_boot(self, boot_id: str) -> bool:
        """Whether the machine was started again since the last call; this start is remembered."""
        row = self._database.execute("SELECT id FROM boot").fetchone()
        if row is None or row[0] != boot_id:
            self._database.execute("DELETE FROM boot")
            self._database.execute("INSERT INTO boot VALUES (?)", (boot_id,))
        return row is not None and row[0] != boot_id

    @property
    def directories(self) -> Mapping[str, int]:
        """The directories that were there when last looked at, each with what tells it from another (`identity_of`)."""
        return self._directories

    def add_directories(self, directories: Mapping[str, int]) -> None:
        """These are there."""
        new = {
            path: identity
            for path, identity in directories.items()
            if self._directories.get(path) != identity and not _has_surrogates(path)
        }
        self._directories.update(new)
        self._database.executemany("INSERT OR REPLACE INTO directory VALUES (?, ?)", new.items())

    def set_directories(self, directories: Mapping[str, int]) -> None:
        """These are there, and no others."""
        for path in [path for path in self._directories if path not in directories]:
            del self._directories[path]
            self._delete("DELETE FROM directory WHERE path = ?", [path])
        self.add_directories(directories)

    def displace(self, name: str, displaced: Displaced) -> None:
        """Remember, on disk at once, whose file is about to get this name beside the tree."""
        self._database.execute(
            "INSERT OR REPLACE INTO displaced VALUES (?, ?, ?)",
            (name, _entry_json(displaced.entry), displaced.replacement),
        )
        self.commit()

    def displaced(self) -> dict[str, Displaced]:
        """All files beside the tree, by name."""
        rows = self._database.execute("SELECT name, entry, replacement FROM displaced")
        return {name: Displaced(Entry(*json.loads(entry)), replacement) for name, entry, replacement in rows}

    def settle(self, name: str) -> None:
        """The file beside the tree is dealt with."""
        self._delete("DELETE FROM displaced WHERE name = ?", [name])


def _entry_json(entry: Entry) -> str:
    return json.dumps((entry.path, entry.memory_id, entry.version_id, entry.sha256, entry.size, entry.mtime_ns))


def _stat_json(stat: Stat) -> str:
    return json.dumps((stat.inode, stat.size, stat.mtime_ns, stat.ctime_ns))


def _has_surrogates(path: str) -> bool:
    with contextlib.suppress(UnicodeEncodeError):
        path.encode()
        return False
    return True
