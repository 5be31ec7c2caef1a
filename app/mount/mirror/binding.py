"""Shows a directory of ours at another place by a bind mount, read-only where it has to be.

Made from outside a sandbox, a read-only bind mount is the one protection that its root can't undo: we write through
the source, which nobody else may see. Where mounting is not allowed, modes must do (0444 and 0555); they stop
everybody but the files' owner and root.
"""

import errno
import os
from pathlib import Path

from app.mount.mirror import syscalls
from app.mount.sync.errors import MountError


def is_read_only(directory: Path) -> bool:
    """Whether the filesystem at the directory refuses every write."""
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def bind(source: Path, target: Path, *, read_only: bool) -> bool:
    """Show `source` at the existing directory `target`; False where we may not mount.

    Doing it again is harmless: what a dead mount left is used.

    Raises:
        MountError: it fails for another reason.

    """
    flags = syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV | (syscalls.MS_RDONLY if read_only else 0)
    try:
        if not is_bound(source, target):
            syscalls.mount(str(source), str(target), syscalls.MS_BIND)
        syscalls.mount("none", str(target), flags | syscalls.MS_REMOUNT)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            return False
        raise MountError(f"{source} can't be shown at {target}: {error.strerror}") from error
    return True


def is_bound(source: Path, target: Path) -> bool:
    """Whether `target` shows `source`."""
    try:
        return os.path.samestat(source.stat(), target.stat())
    except OSError:
        return False


def unbind(source: Path, target: Path) -> None:
    """Take it away again, even in use."""
    while is_bound(source, target):
        syscalls.umount(str(target))
