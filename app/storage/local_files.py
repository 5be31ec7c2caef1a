"""fsspec's local file system with writes that survive a power cut."""

import itertools
import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

_STAGING = ".staging"
_names = itertools.count()


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directories(directory: str) -> None:
    """`mkdir -p`, each new entry made durable in its parent."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for new in reversed(missing):
        Path(new).mkdir(exist_ok=True)
        _sync_directory(os.path.dirname(new))


class DurableLocalFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A file appears whole and on disk, or not at all.

    fsspec's own class never calls fsync. Files are made in one staging directory below `root`, because ext4
    places a new file's inode near its directory, and hundreds of fan-out directories cost twice the time.
    """

    cachable = False

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self._staging = os.path.join(root, _STAGING)
        _make_directories(self._staging)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a file: staging file, fsync, rename, fsync of the directory."""
        temporary = os.path.join(self._staging, f"{os.getpid()}-{next(_names)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                # A short write happens only when the disk fills up, and then the next one raises ENOSPC.
                view = memoryview(value)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._place(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @staticmethod
    def _place(temporary: str, path: str) -> None:
        directory = os.path.dirname(path)
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            _make_directories(directory)
            os.rename(temporary, path)
        _sync_directory(directory)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Read a file; a whole one without fsspec's file object."""
        if start is None and end is None:
            return Path(path).read_bytes()
        data: bytes = super().cat_file(path, start, end, **options)
        return data
