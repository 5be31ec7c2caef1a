"""The directory that holds the stores' directories: not a store itself, and read-only where the host allows that.

With the right to mount, an empty (or missing) root becomes a small filesystem of ours, read-only for everybody: a
write to `/mnt/memory/x` fails with EROFS instead of landing where nobody looks. Without that right, or over a
directory that holds something, the stores' directories are made in it, and the status says that it is not closed.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.mount.fuse.kernel import mounting
from app.mount.sync.errors import MountError

_libc = ctypes.CDLL(None, use_errno=True)
_MS_REMOUNT = 32


class Root:
    """A prepared root, with a directory for each store."""

    def __init__(self, path: Path, *, closed: bool) -> None:
        self.path = path
        self.closed = closed
        """Whether nobody can write in it: it is a filesystem of ours."""
        self._made: list[Path] = []

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {"path": str(self.path), "closed": self.closed, "made": [str(path) for path in self._made]}

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> "Root":
        """A root that another process prepared."""
        root = cls(Path(item["path"]), closed=item["closed"])
        root._made = [Path(path) for path in item["made"]]
        return root

    def make(self, names: Iterable[str]) -> None:
        """Make the stores' directories that are missing.

        Raises:
            MountError: something else has the name, or a directory with something in it, which would be hidden.

        """
        missing = [name for name in names if not self._is_there(self.path / name)]
        if not missing:
            return
        if self.closed:
            _set_read_only(self.path, False)
        try:
            for name in missing:
                (self.path / name).mkdir(mode=0o700)
                self._made.append(self.path / name)
        finally:
            if self.closed:
                _set_read_only(self.path, True)

    def take_away(self) -> None:
        """Leave the root as it was found, when no store is shown there now."""
        if self.closed:
            # Lazily: a shell may still stand in it, and nothing can be written there.
            with contextlib.suppress(OSError):
                mounting.unmount(str(self.path), lazy=True)
            return
        for path in self._made:
            with contextlib.suppress(OSError):  # a mirror leaves what it could not save
                path.rmdir()

    @staticmethod
    def _is_there(path: Path) -> bool:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise MountError(f"{path} is not a directory, and a store is to be shown there")
        return True


def prepare(path: Path, names: Sequence[str], *, closed: bool) -> Root:
    """Make the root ready to hold stores with these directory names, after removing what a dead mount left there.

    closed: close it to writes, if the host allows that; a mirror's directories can't lie in a closed one.

    Raises:
        MountError: it can't be made, is no directory, or another daemon shows stores there.

    """
    clear(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
    except OSError as error:
        raise MountError(f"{path} can't be the root of mounts: {error.strerror or error}") from error
    root = Root(path, closed=closed and empty and _close(path, names))
    if not root.closed:
        root.make(names)
    return root


def clear(path: Path) -> None:
    """Detach what a daemon that died left mounted at or below a root.

    Raises:
        MountError: what is there is alive: another daemon's.

    """
    for mounted in reversed(mounting.ours()):
        if path not in Path(mounted.path).parents:
            continue
        if not mounting.is_dead(mounted.path):
            raise MountError(
                f"{mounted.path} is mounted by another daemon; unmount it with that daemon's MEMSTORE_RUN_DIR, "
                "or choose another --root"
            )
        mounting.unmount(mounted.path, lazy=True)
    while _is_closed_root(path):
        mounting.unmount(str(path), lazy=True)


def _close(path: Path, names: Iterable[str]) -> bool:
    try:
        tree = mounting.directory(names)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENODEV):
            return False
        raise MountError(f"{path}: the read-only filesystem of the root can't be made: {error.strerror}") from error
    try:
        mounting.attach(tree, str(path))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return False
        raise MountError(f"{path}: the read-only filesystem of the root can't be mounted: {error.strerror}") from error
    finally:
        os.close(tree)
    return True


def _is_closed_root(path: Path) -> bool:
    at_path = [mounted for mounted in mounting.table() if mounted.path == str(path)]
    return bool(at_path) and at_path[-1].source == mounting.ROOT_SOURCE and at_path[-1].fs_type == "tmpfs"


def _set_read_only(path: Path, read_only: bool) -> None:
    """Close the filesystem at a root, or open it for a moment. Raises OSError."""
    flags = _MS_REMOUNT | mounting.MS_NOSUID | mounting.MS_NODEV | (mounting.MS_RDONLY if read_only else 0)
    if _libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", str(path))
