"""Opening /dev/fuse, making mounts of it, and finding and ending them.

Needs CAP_SYS_ADMIN in the user namespace it runs in; no libfuse and no helper program.
"""

import ctypes
import errno
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.mount.sync.errors import MountError

DEVICE = "/dev/fuse"
CONNECTIONS = "/sys/fs/fuse/connections"
"""Where the kernel's list of FUSE connections is, if the system mounts it."""
SUBTYPE = "memstore"
"""Mounts of ours have the type `fuse.memstore` in mount tables."""
ROOT_SOURCE = "memstore"
"""The source, in mount tables, of the read-only directory that holds the mount points."""

# mount(2) and umount2(2)
MS_RDONLY, MS_NOSUID, MS_NODEV = 1, 2, 4
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
# The mount API of Linux 5.2; these numbers are the same on every architecture but Alpha.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT, SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 429, 430, 431, 432
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CREATE, FSCONFIG_RECONFIGURE = 0, 1, 6, 7
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
MOVE_MOUNT_F_EMPTY_PATH = 4
OPEN_TREE_CLONE = 1
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_RECURSIVE = -100, 0x100, 0x8000

_libc = ctypes.CDLL(None, use_errno=True)
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Options:
    """How a mount shows itself."""

    name: str
    """Its source in mount tables; for people."""
    read_only: bool = False
    """The superblock's: every writing call fails with EROFS before it reaches us."""
    allow_other: bool = True
    """Other users may use the mount; file modes are still ours to enforce or not."""
    enforced: bool = False
    """The kernel lets nobody do what owners and modes do not allow (`default_permissions`)."""
    max_read: int | None = None
    """The largest READ in bytes; None leaves it to the kernel."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the mount table."""

    path: str
    fs_type: str
    source: str
    device_minor: int
    read_only: bool
    """Of the superblock, not of this mount of it."""


def open_device(path: str = DEVICE) -> int:
    """A descriptor for one mount, close-on-exec. Raises MountError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountError(f"{path} does not exist: load the fuse module, or use the mirror mode") from None
    except OSError as error:
        raise MountError(f"{path} can't be opened ({error.strerror}): run as root, or use the mirror mode") from None


def mount(fd: int, target: str, options: Options) -> None:
    """Mount the filesystem behind a /dev/fuse descriptor at a directory. Raises OSError."""
    try:
        tree = detached(fd, options)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _mount_by_the_old_call(fd, target, options)
        return
    try:
        attach(tree, target)
    finally:
        os.close(tree)


def detached(fd: int, options: Options) -> int:
    """A mount that is nowhere yet, as a descriptor; `attach` puts it somewhere. Raises OSError."""
    settings = [*_settings(fd, options).items(), ("source", options.name), ("subtype", SUBTYPE)]
    flags = (["allow_other"] if options.allow_other else []) + (["default_permissions"] if options.enforced else [])
    return _new_mount("fuse", settings, flags, read_only=options.read_only)


def directory(names: Iterable[str]) -> int:
    """A detached read-only mount that holds nothing but these empty directories, to mount on. Raises OSError."""
    with writable_directory() as tree:
        for name in names:
            os.mkdir(name, 0o755, dir_fd=tree)
        return os.dup(tree)


@contextmanager
def writable_directory(mode: int = 0o755) -> Iterator[int]:
    """A detached empty directory of its own; what is made of it in the meantime is read-only for ever after."""
    context = _fsopen("tmpfs")
    try:
        for key, value in (("source", ROOT_SOURCE), ("mode", f"{mode:o}"), ("size", "1m")):
            _fsconfig(context, FSCONFIG_SET_STRING, key, value)
        _fsconfig(context, FSCONFIG_CREATE)
        tree = _fsmount(context, read_only=False)
        try:
            yield tree
            _fsconfig(context, FSCONFIG_SET_FLAG, "ro")
            _fsconfig(context, FSCONFIG_RECONFIGURE)
        finally:
            os.close(tree)
    finally:
        os.close(context)


def attach(tree: int, target: str) -> None:
    """Put a detached mount at a directory of this process's mount namespace. Raises OSError."""
    _call("move_mount", target, _libc.syscall, SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target),
          MOVE_MOUNT_F_EMPTY_PATH)  # fmt: skip


def unmount(target: str, *, lazy: bool = False) -> None:
    """Unmount a directory. Raises OSError: EBUSY while it is in use, unless `lazy`; EINVAL if nothing is mounted.

    `lazy` takes it out of sight at once; it ends when the last program stops using it.
    """
    _call("umount2", target, _libc.umount2, os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0))


def copy_of(directory: int, name: str) -> int:
    """A detached mount of a file or directory, with all that is mounted below it. Raises OSError."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW
    return _call("open_tree", name, _libc.syscall, SYS_OPEN_TREE, directory, os.fsencode(name), flags)


def make_private() -> None:
    """Let no mount in this process's namespace reach another, nor the other way. Raises OSError."""
    _call("mount", "/", _libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)


def table(process: int | str = "self") -> list[Mounted]:
    """Everything mounted in a process's namespace, as that process sees it; the last at a path is on top."""
    with open(f"/proc/{process}/mountinfo", "rb") as lines:
        return parse_table(lines)


def parse_table(lines: Iterable[bytes]) -> list[Mounted]:
    """The lines of a mountinfo file."""
    return [_parse(os.fsdecode(line)) for line in lines]


def ours(process: int | str = "self") -> list[Mounted]:
    """The stores that are mounted in a process's namespace, alive or dead."""
    return [mounted for mounted in table(process) if mounted.fs_type == f"fuse.{SUBTYPE}"]


def is_dead(target: str) -> bool:
    """Whether the program behind the mount at a directory is gone and will not return.

    Waits for an answer as long as a process, be it a supervisor or one that hangs, has the mount's descriptor.
    """
    try:
        os.statvfs(target)  # unlike stat, never answered from the kernel's cache
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def connection(fd: int) -> int | None:
    """The number of the connection behind a /dev/fuse descriptor, for `abort`; None if there is none."""
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("fuse_connection:")), None)


def abort(number: int) -> None:
    """End a mount's connection by force: a program that waits for it gets ECONNABORTED or ENOTCONN. Raises OSError.

    It also frees what can't be killed: a process that died with a file of its own mount open.

    number: of the connection, which is the minor number of the mount's device.
    """
    try:
        # Where the system has it mounted, also the user who made the mount may.
        with open(f"{CONNECTIONS}/{number}/abort", "wb") as file:
            file.write(b"1")
        return
    except FileNotFoundError:
        pass
    context = _fsopen("fusectl")
    try:
        _fsconfig(context, FSCONFIG_CREATE)
        connections = _fsmount(context, read_only=False)
    finally:
        os.close(context)
    try:
        fd = os.open(f"{number}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=connections)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
    finally:
        os.close(connections)


def clean_up(root: str, *, patience: float | None = None) -> list[str]:
    """Take away the mounts of ours at or below `root` that no process serves; their paths, highest first.

    With `patience`, one that has not answered after so many seconds is taken for dead and aborted: for callers who
    know that no daemon of theirs serves it. Without, this waits (see `is_dead`).
    """
    below = os.path.join(root, "")
    gone = []
    for mounted in reversed(ours()):
        if (mounted.path == root or mounted.path.startswith(below)) and _is_gone(mounted, patience):
            unmount(mounted.path, lazy=True)
            gone.append(mounted.path)
    return gone


def _is_gone(mounted: Mounted, patience: float | None) -> bool:
    if patience is None:
        return is_dead(mounted.path)
    found: list[bool] = []
    asking = threading.Thread(target=lambda: found.append(is_dead(mounted.path)), daemon=True)
    asking.start()
    asking.join(patience)
    if asking.is_alive():
        abort(mounted.device_minor)
        asking.join()
        return True
    return found[0]


def _settings(fd: int, options: Options) -> dict[str, str]:
    settings = {"fd": str(fd), "rootmode": "40700", "user_id": str(os.getuid()), "group_id": str(os.getgid())}
    if options.max_read is not None:
        settings["max_read"] = str(options.max_read)
    return settings


def _mount_by_the_old_call(fd: int, target: str, options: Options) -> None:
    words = ",".join(f"{key}={value}" for key, value in _settings(fd, options).items())
    if options.allow_other:
        words += ",allow_other"
    if options.enforced:
        words += ",default_permissions"
    flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if options.read_only else 0)
    kind = f"fuse.{SUBTYPE}".encode()
    _call("mount", target, _libc.mount, options.name.encode(), os.fsencode(target), kind, flags, words.encode())


def _new_mount(kind: str, settings: Iterable[tuple[str, str]], flags: Iterable[str], *, read_only: bool) -> int:
    context = _fsopen(kind)
    try:
        for key, value in settings:
            _fsconfig(context, FSCONFIG_SET_STRING, key, value)
        for flag in [*flags, *(["ro"] if read_only else [])]:
            _fsconfig(context, FSCONFIG_SET_FLAG, flag)
        _fsconfig(context, FSCONFIG_CREATE)
        return _fsmount(context, read_only=read_only)
    finally:
        os.close(context)


def _fsopen(kind: str) -> int:
    return _call("fsopen", kind, _libc.syscall, SYS_FSOPEN, kind.encode(), FSOPEN_CLOEXEC)


def _fsconfig(context: int, command: int, key: str | None = None, value: str | None = None) -> None:
    _call("fsconfig", key or "", _libc.syscall, SYS_FSCONFIG, context, command,
          None if key is None else key.encode(), None if value is None else value.encode(), 0)  # fmt: skip


def _fsmount(context: int, *, read_only: bool) -> int:
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0)
    return _call("fsmount", "", _libc.syscall, SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes)


def _parse(line: str) -> Mounted:
    before, _, after = line.rstrip("\n").partition(" - ")
    _, _, device, _, path, *_ = before.split(" ")
    fs_type, source, super_options = after.split(" ", 2)
    minor = int(device.partition(":")[2])
    return Mounted(_unescape(path), fs_type, _unescape(source), minor, "ro" in super_options.split(","))


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def _call(name: str, subject: str, function: "ctypes._NamedFuncPointer", *arguments: object) -> int:
    """Call the C library; a negative result is an OSError that names the call and its subject."""
    result: int = function(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", subject)
    return result
