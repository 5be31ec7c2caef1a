"""What a mount knows of its store, on disk at any moment: for a start without the server, also after a crash.

A file of lines: the store's ID, then the memories, each as a JSON array. A change appends the memory's new line and
overwrites the old one with blanks, so that nothing stays of a path or digest that is past. The file is not synced: it
outlives the process, and the server also knows what a power cut takes from it.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from app.mount.door import wire
from app.mount.door.entries import Entry

_NAME = "memories"
_BLANK_MAX_BYTES = 1 << 20
"""More, and more than half of the file: it is rewritten."""


class Remembered:
    """The memories of one store. For one thread at a time. An error of the disk is no matter: the file is then gone."""

    def __init__(self, directory: Path, store_id: str) -> None:
        """Nothing is read or written yet."""
        self._path = directory / _NAME
        self._store_id = store_id
        self._file = -1
        self._end = 0
        self._blank_bytes = 0
        self._lines: dict[str, tuple[int, int]] = {}
        """Where the line of each memory begins, and its length."""

    def load(self) -> list[Entry] | None:
        """What an earlier process knew; None if there is nothing of this store."""
        try:
            head, *lines, _ = self._path.read_bytes().split(b"\n")  # the last one is empty, or was cut off
        except (OSError, ValueError):
            return None
        if head != self._store_id.encode():
            return None
        entries: dict[str, Entry] = {}
        for line in lines:
            # A process that was killed while it blanked a line had appended the new one before.
            with contextlib.suppress(ValueError, TypeError):
                if line.strip():
                    entry = Entry(*json.loads(line))
                    assert entry.memory_id is not None
                    if wire.problem(entry) is None:
                        entries[entry.memory_id] = entry
        return list(entries.values())

    def begin(self, entries: Iterable[Entry]) -> None:
        """Write down what is known, and take changes from now on."""
        self.end()
        new = self._path.with_suffix(".new")
        data = bytearray(self._store_id.encode() + b"\n")
        self._lines.clear()
        for entry in entries:
            line = _line(entry)
            assert entry.memory_id is not None
            self._lines[entry.memory_id] = len(data), len(line)
            data += line
        self._end, self._blank_bytes = len(data), 0
        try:
            self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._write(bytes(data), 0)
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            self.forget()

    def note(self, memory_id: str, entry: Entry | None) -> None:
        """The memory has changed; None: it is gone."""
        if self._file < 0:
            return
        try:
            old = self._lines.pop(memory_id, None)
            if entry is not None:
                line = _line(entry)
                self._write(line, self._end)
                self._lines[memory_id] = self._end, len(line)
                self._end += len(line)
            if old is not None:
                start, size = old
                self._write(b" " * (size - 1), start)
                self._blank_bytes += size
        except OSError:
            self.forget()
            return
        if self._blank_bytes > _BLANK_MAX_BYTES and 2 * self._blank_bytes > self._end:
            known = self.load()
            if known is None:
                self.forget()
            else:
                self.begin(known)

    @property
    def is_open(self) -> bool:
        """Whether it takes changes."""
        return self._file >= 0

    def end(self) -> None:
        """Stop taking changes."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def forget(self) -> None:
        """Stop taking changes, and keep nothing."""
        self.end()
        self.remove(self._path.parent)

    @staticmethod
    def remove(directory: Path) -> None:
        """Keep nothing of what an earlier process knew."""
        with contextlib.suppress(OSError):
            (directory / _NAME).unlink(missing_ok=True)

    def _write(self, data: bytes, start: int) -> None:
        if os.pwrite(self._file, data, start) != len(data):
            raise OSError("short write")


def _line(entry: Entry) -> bytes:
    """ASCII, so that no byte of it can be taken for a line's end."""
    return json.dumps(astuple(entry), separators=(",", ":")).encode() + b"\n"
