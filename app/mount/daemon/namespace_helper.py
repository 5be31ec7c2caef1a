"""The process that enters a namespace for `namespaces`, mounts there, and sends back the descriptors.

Each function that `namespaces` starts gets [descriptor of the channel, job as JSON] and returns the exit status.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from app.mount.daemon.namespaces import MESSAGE_BYTES
from app.mount.fuse.kernel import mounting
from app.mount.sync.errors import MountError

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CAP_SYS_ADMIN = 21
CANNOT_EXECUTE, NOT_FOUND = 126, 127
"""The exit statuses that shells give for a command that can't be started."""

_libc = ctypes.CDLL(None, use_errno=True)


def _run_in_namespace(arguments: Sequence[str]) -> int:
    channel, job = _begin(arguments)
    with _reporting(channel):
        privileged = _may_mount()
        if privileged:
            _unshare(CLONE_NEWNS)
        else:
            _enter_own_user_namespace()
        mounting.make_private()
        directory = os.getcwd()
        trees, descriptors = _make_mounts(job["stores"])
        _put_in_place(job["root"], trees)
        with suppress(OSError):
            os.chdir(directory)  # what is mounted over it now, if anything
        _send(channel, {}, descriptors)
        for fd in descriptors:
            os.close(fd)
        if not channel.recv(MESSAGE_BYTES):
            return 1  # the caller gave up
        for store in job["stores"]:
            # The kernel starts a mount's root off as user 0's, and refuses to make files in a directory whose owner
            # this user namespace does not know, until somebody asked for its attributes.
            os.stat(os.path.join(job["root"], store["directory"]))
        if privileged:
            # Mounts that come from a namespace of other owners are locked: no program in this one can undo them.
            _unshare(CLONE_NEWUSER | CLONE_NEWNS)
        _send(channel, {"wants_ids": privileged})
        if privileged and not channel.recv(MESSAGE_BYTES):
            return 1
    channel.close()
    return _execute(job["command"])


def _attach_to_process(arguments: Sequence[str]) -> int:
    channel, job = _begin(arguments)
    with _reporting(channel):
        own = _own_proc()
        with _namespaces_of(job["pid"]) as enter:
            # The device must be opened in the user namespace that owns the mount, while its file is still in sight.
            trees, descriptors = _make_mounts(job["stores"])
            enter()
        _take_away(job["root"], own)
        try:
            _put_in_place(job["root"], trees)
        except BaseException:
            _take_away(job["root"], own)
            raise
        _send(channel, {}, descriptors)
        _send(channel, {})
    return 0


def _detach_from_process(arguments: Sequence[str]) -> int:
    channel, job = _begin(arguments)
    with _reporting(channel):
        own = _own_proc()
        with _namespaces_of(job["pid"]) as enter:
            enter()
        _take_away(job["root"], own)
        _send(channel, {})
    return 0


def _begin(arguments: Sequence[str]) -> tuple[socket.socket, dict[str, Any]]:
    fd, job = arguments
    channel = socket.socket(fileno=int(fd))
    channel.set_inheritable(False)
    return channel, json.loads(job)


def _send(channel: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(channel, [json.dumps(message).encode()], list(descriptors))


@contextmanager
def _reporting(channel: socket.socket) -> Iterator[None]:
    """What goes wrong is the caller's to tell."""
    try:
        yield
    except (MountError, OSError) as error:
        with suppress(OSError):
            _send(channel, {"error": str(error)})
        sys.exit(1)


def _may_mount() -> bool:
    """Whether this process may mount where it is: CAP_SYS_ADMIN in effect."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


def _enter_own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(CLONE_NEWUSER | CLONE_NEWNS)
    except OSError as error:
        raise MountError(
            f"this system gives an ordinary user no namespace of its own ({error.strerror}): run as root"
        ) from None
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


@contextmanager
def _namespaces_of(pid: int) -> Iterator[Callable[[], None]]:
    """Join a process's user namespace if that is needed; calling what this yields joins its mounts and its root."""
    try:
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountError(f"there is no process {pid}") from None
    except PermissionError:
        raise MountError(f"process {pid} belongs to somebody else: run as root") from None
    if os.path.samestat(os.fstat(mounts), os.stat("/proc/self/ns/mnt")):
        raise MountError(f"process {pid} has no mounts of its own; what it is given, every program here would get")

    def enter() -> None:
        _setns(mounts, CLONE_NEWNS)
        # The process may see less than its namespace has, and a link in its files must not lead us out of that.
        os.fchdir(root)
        os.chroot(".")

    try:
        if not _may_mount():
            _setns(user, CLONE_NEWUSER)
        yield enter
    finally:
        for fd in (user, mounts, root):
            os.close(fd)


def _make_mounts(stores: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], list[int]]:
    """Detached mounts by directory, and the descriptors behind them in the same order."""
    trees, descriptors = {}, []
    for store in stores:
        fd = mounting.open_device()
        descriptors.append(fd)
        options = mounting.Options(store["name"] or store["directory"], read_only=store["read_only"])
        trees[store["directory"]] = mounting.detached(fd, options)
    return trees, descriptors


def _put_in_place(root: str, trees: Mapping[str, int]) -> None:
    if not os.path.isdir(root):
        _make_room(root)
    mounting.attach(mounting.directory(trees), root)
    for name, tree in trees.items():
        mounting.attach(tree, os.path.join(root, name))


def _own_proc() -> int:
    """The helper's directory in /proc. Open it before entering a namespace with another /proc or none."""
    return os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _take_away(root: str, proc: int) -> None:
    """Unmount the stores below `root`, their directory, and what made room for it, however many lie over another."""
    with open(os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc), "rb") as lines:
        mounts = mounting.parse_table(lines)
    for mounted in reversed(mounts):
        inside = os.path.join(mounted.path, "").startswith(os.path.join(root, ""))
        around = root.startswith(os.path.join(mounted.path, ""))
        store = inside and mounted.fs_type == f"fuse.{mounting.SUBTYPE}"
        directory = (inside or around) and (mounted.fs_type, mounted.source) == ("tmpfs", mounting.ROOT_SOURCE)
        if store or directory:
            with suppress(OSError):  # locked: the new ones lie over them
                mounting.unmount(mounted.path, lazy=True)


def _make_room(root: str) -> None:
    """Make `root` a directory, in this mount namespace only."""
    covered, missing = os.path.dirname(root), [os.path.basename(root)]
    while not os.path.isdir(covered):
        missing.insert(0, os.path.basename(covered))
        covered = os.path.dirname(covered)
    if covered == os.path.sep:
        raise MountError(f"{root}: make the directory /{missing[0]}, or name a root below a directory that exists")
    old = os.open(covered, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    entries = list(os.scandir(covered))
    with mounting.writable_directory(mode=os.stat(covered).st_mode & 0o7777) as tree:
        mounting.attach(tree, covered)
        for entry in entries:
            _show_again(old, entry, os.path.join(covered, entry.name))
        os.makedirs(root)
    os.close(old)


def _show_again(directory: int, entry: "os.DirEntry[str]", target: str) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry.name, dir_fd=directory), target)
        return
    if entry.is_dir():
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    tree = mounting.copy_of(directory, entry.name)
    mounting.attach(tree, target)
    os.close(tree)


def _execute(command: Sequence[str]) -> int:
    # A Python interpreter ignores these two, and its programs would ignore what it ignores.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the user's own command, without a shell
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - where the command would have said it
        return NOT_FOUND if error.errno == errno.ENOENT else CANNOT_EXECUTE


def _unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare(flags))


def _setns(fd: int, kind: int) -> None:
    _checked("setns", _libc.setns(fd, kind))


def _checked(name: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
