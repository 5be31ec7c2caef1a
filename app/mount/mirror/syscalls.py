"""Linux calls that the mirror needs and Python's standard library has no function for."""

import ctypes
import errno
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MNT_DETACH = 2

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_EXCL_UNLINK = 0x4000000
IN_ISDIR = 0x40000000


def _call(name: str, *arguments: Any) -> int:
    function = getattr(_libc, name, None)
    if function is None:  # an older C library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


_SYS_OPENAT2 = 437  # on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 2, 4, 8


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open what lies below a directory, by openat2(2): by no link, and not through `..` or a leading slash.

    Raises:
        OSError: ENOSYS before Linux 5.6, EPERM where a filter of system calls does not know it; else as open(2),
            and EXDEV if it would lead out.

    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    number = ctypes.c_long(_SYS_OPENAT2)
    return _call(
        "syscall", number, directory, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )


_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_char * 76),
        ("born_seconds", ctypes.c_int64),
        ("born_nanoseconds", ctypes.c_uint32),
        ("after", ctypes.c_char * 164),
    )


def birth_ns(descriptor: int) -> int:
    """When the file or directory was made (statx(2)), in nanoseconds; 0 where kernel or file system do not tell."""
    found = _Statx()
    flags, mask = ctypes.c_int(_AT_EMPTY_PATH), ctypes.c_uint(_STATX_BTIME)
    try:
        _call("statx", descriptor, b"", flags, mask, ctypes.byref(found))
    except OSError:
        return 0
    known = found.mask & _STATX_BTIME
    return int(found.born_seconds * 10**9 + found.born_nanoseconds) if known else 0


def renameat2(old_dir: int, old: str, new_dir: int, new: str, flags: int) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE (rename(2)); names relative to directory descriptors.

    Raises:
        OSError: EINVAL or ENOSYS where the filesystem or the C library does not know the flag.

    """
    _call("renameat2", old_dir, os.fsencode(old), new_dir, os.fsencode(new), ctypes.c_uint(flags))


def syncfs(descriptor: int) -> None:
    """Write everything of the descriptor's filesystem to its disk."""
    _call("syncfs", descriptor)


def inotify_init() -> int:
    """A new inotify instance: its descriptor, non-blocking, closed by exec."""
    return _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)


def inotify_add_watch(instance: int, path: str, mask: int) -> int:
    """Watch what `path` names; its watch descriptor, the same one if it is watched already.

    Raises:
        OSError: ENOSPC when the user has no watches left (fs.inotify.max_user_watches).

    """
    return _call("inotify_add_watch", instance, os.fsencode(path), ctypes.c_uint32(mask))


def inotify_rm_watch(instance: int, watch: int) -> None:
    """End a watch."""
    _call("inotify_rm_watch", instance, watch)


def mount(source: str, target: str, flags: int) -> None:
    """Mount without a filesystem type: bind mounts and their remounts.

    Raises:
        OSError: EPERM without the right to mount.

    """
    _call("mount", os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None)


def umount(target: str) -> None:
    """Take a mount out of sight; programs that use it keep it until they end."""
    _call("umount2", os.fsencode(target), MNT_DETACH)
