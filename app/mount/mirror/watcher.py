"""Hears of changes in a tree of directories by inotify(7).

Events are hints: they can be late, merged or dropped (overflow). What is on disk is found by looking at it
(`tree.py`); the one thing that only an event can tell is that somebody deleted a file.
"""

import errno
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from app.mount.mirror import syscalls as sys

_HEADER = struct.Struct("iIII")
_READ_BYTES = 1 << 16
_MOVE_SECONDS = 0.05
"""The two halves of a move within the tree follow each other in the queue; one alone left the tree."""

_MASK = (
    sys.IN_MODIFY
    | sys.IN_ATTRIB
    | sys.IN_CLOSE_WRITE
    | sys.IN_MOVED_FROM
    | sys.IN_MOVED_TO
    | sys.IN_CREATE
    | sys.IN_DELETE
    | sys.IN_DELETE_SELF
    | sys.IN_MOVE_SELF
    | sys.IN_ONLYDIR
    | sys.IN_EXCL_UNLINK
)


class Seen(Enum):
    """What happened to a path."""

    APPEARED = "appeared"
    """Made, or moved in from outside the tree."""
    MODIFIED = "modified"
    """Written to or its attributes changed; perhaps still open for writing."""
    CLOSED = "closed"
    """The last descriptor of one who could write was closed."""
    DELETED = "deleted"
    """Unlinked, or moved out of the tree."""
    MOVED = "moved"
    ROOT = "root"
    """The root directory itself was moved, deleted or unmounted."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. Paths start with `/` and are relative to the root."""

    seen: Seen
    path: str
    is_directory: bool = False
    old_path: str = ""
    """Where a moved thing was."""


class Watcher:
    """Watches directories one by one; not thread-safe.

    Add each directory with `watch` before listing it: then nothing that is made in it can go unseen.
    """

    def __init__(self) -> None:
        self._instance = sys.inotify_init()
        self._paths: dict[int, str] = {}
        self._left: dict[int, tuple[str, bool, float]] = {}
        self.overflowed = False
        """Events were dropped; a full scan sets it back."""
        self.incomplete = False
        """Some directory can't be watched: changes there are found by looking only."""

    def fileno(self) -> int:
        """Readable when there are events."""
        return self._instance

    def close(self) -> None:
        """End all watches."""
        os.close(self._instance)

    def watch(self, directory: int, path: str) -> None:
        """Watch an open directory; doing it again refreshes the path.

        path: "" for the root, else as in events.
        """
        try:
            watch = sys.inotify_add_watch(self._instance, f"/proc/self/fd/{directory}", _MASK)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOENT, errno.ENOMEM, errno.EACCES):
                raise
            self.incomplete = True
            return
        self._paths[watch] = path

    def forget_all(self) -> None:
        """End all watches, and drop what they have to say: the root is another directory now."""
        os.close(self._instance)
        self._instance = sys.inotify_init()
        self._paths.clear()
        self._left.clear()

    def read(self) -> list[Event]:
        """Everything that has happened since the last call; never waits."""
        events: list[Event] = []
        while True:
            try:
                buffer = os.read(self._instance, _READ_BYTES)
            except BlockingIOError:
                break
            for watch, mask, cookie, name in _records(buffer):
                events += self._understand(watch, mask, cookie, name)
        return [*events, *self._left_the_tree()]

    @property
    def waits_for_move(self) -> bool:
        """Whether the second half of a move may still come: call `read` again soon."""
        return bool(self._left)

    def _understand(self, watch: int, mask: int, cookie: int, name: str) -> Iterator[Event]:
        if mask & sys.IN_Q_OVERFLOW:
            self.overflowed = True
            return
        directory = self._paths.get(watch)
        if mask & sys.IN_IGNORED:
            self._paths.pop(watch, None)
            return
        if directory is None:
            return
        if mask & (sys.IN_DELETE_SELF | sys.IN_MOVE_SELF | sys.IN_UNMOUNT):
            if directory == "":
                yield Event(Seen.ROOT, "/", is_directory=True)
            return
        if not name:
            return
        path = f"{directory}/{name}"
        is_directory = bool(mask & sys.IN_ISDIR)
        if mask & sys.IN_MOVED_FROM:
            self._left[cookie] = (path, is_directory, time.monotonic())
        elif mask & sys.IN_MOVED_TO:
            yield self._arrived(path, is_directory, cookie)
        elif mask & sys.IN_CREATE:
            yield Event(Seen.APPEARED, path, is_directory)
        elif mask & sys.IN_DELETE:
            yield Event(Seen.DELETED, path, is_directory)
        elif mask & sys.IN_CLOSE_WRITE:
            yield Event(Seen.CLOSED, path, is_directory)
        elif not is_directory:
            yield Event(Seen.MODIFIED, path)

    def _arrived(self, path: str, is_directory: bool, cookie: int) -> Event:
        source = self._left.pop(cookie, None)
        if source is None:
            return Event(Seen.APPEARED, path, is_directory)
        if is_directory:
            self._moved(source[0], path)
        return Event(Seen.MOVED, path, is_directory, old_path=source[0])

    def _moved(self, old: str, new: str) -> None:
        """Watches follow their directories; so must their paths here."""
        for watch, path in self._paths.items():
            if path == old or path.startswith(old + "/"):
                self._paths[watch] = new + path[len(old) :]

    def _left_the_tree(self) -> Iterator[Event]:
        now = time.monotonic()
        for cookie, (path, is_directory, since) in list(self._left.items()):
            if now - since < _MOVE_SECONDS:
                continue
            del self._left[cookie]
            if is_directory:
                self._stop_below(path)
            yield Event(Seen.DELETED, path, is_directory)

    def _stop_below(self, directory: str) -> None:
        for watch, path in list(self._paths.items()):
            if path == directory or path.startswith(directory + "/"):
                del self._paths[watch]
                try:
                    sys.inotify_rm_watch(self._instance, watch)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # ended by itself meanwhile
                        raise


def _records(buffer: bytes) -> Iterator[tuple[int, int, int, str]]:
    offset = 0
    while offset < len(buffer):
        watch, mask, cookie, length = _HEADER.unpack_from(buffer, offset)
        offset += _HEADER.size
        name = os.fsdecode(buffer[offset : offset + length].rstrip(b"\0"))
        offset += length
        yield watch, mask, cookie, name
