"""The smallest file system that mfusepy can make of a directory: everything in dictionaries, no network, no rules.

Run as `python -m scripts.bench.mounts.smallest SOURCE MOUNTPOINT`; it needs mfusepy and libfuse 3.
"""

import errno
import importlib
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Not a dependency of the project: install it for the comparison.
mfusepy: Any = importlib.import_module("mfusepy")


class Smallest(mfusepy.Operations):  # type: ignore[misc] # the package is unknown to the type checker
    """Files and one level of directories after another, by path."""

    use_ns = True

    def __init__(self, source: Path) -> None:
        """Take over the files of a directory."""
        self._files: dict[str, bytearray] = {}
        self._directories: dict[str, set[str]] = {"/": set()}
        for file in sorted(source.rglob("*")):
            path = f"/{file.relative_to(source)}"
            self._enter(path)
            if file.is_dir():
                self._directories[path] = set()
            else:
                self._files[path] = bytearray(file.read_bytes())

    def _enter(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self._directories[parent or "/"].add(name)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Mode, links and size."""
        if path in self._directories:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path not in self._files:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": len(self._files[path])}

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        """The names."""
        return [".", "..", *self._directories[path]]

    def open(self, path: str, flags: int) -> int:
        """No handle is needed."""
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        """An empty file."""
        self._files[path] = bytearray()
        self._enter(path)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """A part of a file."""
        return bytes(self._files[path][offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Put a part in."""
        self._files[path][offset : offset + len(data)] = data
        return len(data)

    def unlink(self, path: str) -> int:
        """Forget a file."""
        parent, _, name = path.rpartition("/")
        self._directories[parent or "/"].discard(name)
        del self._files[path]
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(
        Smallest(Path(sys.argv[1])), os.path.abspath(sys.argv[2]), foreground=True, nothreads=True, kernel_cache=True,
        entry_timeout=3600, attr_timeout=3600,
    )  # fmt: skip
