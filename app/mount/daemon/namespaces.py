"""Giving stores to one command or one sandbox alone: mounts in a private or foreign mount namespace.

Everything that changes a process's namespaces happens in a helper process of its own, never in the caller's: a
process with threads can't, and a daemon must not. The helper sends back one /dev/fuse descriptor for each store, and
the caller serves them where it is: the namespace needs neither /dev/fuse nor a capability nor any file of ours.

Nothing is written to a file system to make room for the mounts. If the directory does not exist, an existing one
above it is covered, in that namespace, by a read-only one that shows the same entries and ours.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from app.mount.daemon.supervisor import lean_command
from app.mount.fuse.kernel import mounting
from app.mount.sync.errors import MountError

ROOT = "/mnt/memory"

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CAP_SYS_ADMIN = 21
MAX_STORES = 64
"""More than a session may attach, and fewer than the descriptors one message can carry."""
MESSAGE_BYTES = 65536
CANNOT_EXECUTE, NOT_FOUND = 126, 127
"""The exit statuses that shells give for a command that can't be started."""
# SIGCHLD stays ours; SIGKILL and SIGSTOP can't be caught; SIGTSTP and its kin stop both processes by themselves.
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Store:
    """One store to show in a namespace."""

    directory: str
    """Its directory's name below the root: the attachment's slug."""
    read_only: bool = False
    name: str = ""
    """Its source in mount tables; empty: the directory."""


def run(
    command: Sequence[str],
    stores: Sequence[Store],
    serve: Callable[[dict[str, int]], None],
    *,
    root: str = ROOT,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command in a private user and mount namespace that has the stores at `root`; return its exit status.

    `serve` gets each store's /dev/fuse descriptor by directory, and returns when sessions answer on them; only then
    does the command start. The descriptors are the caller's. Signals that ask a program to end or to do something
    (SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2) go on to the command; call this from the main thread.
    The status is 128 + the number if a signal ended the command, 127 if it was not found, 126 if it can't be started.

    As root the command keeps its user and group IDs, and its capabilities in the new user namespace, where it can
    neither unmount the stores nor make a read-only one writable. Without root the mounts are made in the user
    namespace itself, where the system allows one; /dev/fuse must be open to the user. Raises MountError.
    """
    with _helper("_run_in_namespace", {"command": list(command), **_job(stores, root)}, environment) as helper:
        descriptors = helper.receive_descriptors(stores)
        try:
            serve(descriptors)
        except BaseException:
            for fd in descriptors.values():
                with suppress(OSError):
                    os.close(fd)
            raise
        helper.confine()
        return helper.wait_for_command()


def attach(pid: int, stores: Sequence[Store], *, root: str = ROOT) -> dict[str, int]:
    """Give the stores to a process that is already running, and to all that share its mount namespace.

    Returns the /dev/fuse descriptors by directory; programs that use the mounts wait until they are served. What was
    attached at `root` before is replaced. As root, or as the owner of the process's user namespace. Raises MountError.
    """
    with _helper("_attach_to_process", {"pid": pid, **_job(stores, root)}) as helper:
        descriptors = helper.receive_descriptors(stores)
        helper.wait_for_end()
        return descriptors


def detach(pid: int, *, root: str = ROOT) -> None:
    """Take away what `attach` gave to a process; programs that still use it keep it until they close it."""
    with _helper("_detach_from_process", {"pid": pid, "root": root}) as helper:
        helper.wait_for_end()


def _job(stores: Sequence[Store], root: str) -> dict[str, Any]:
    if len(stores) > MAX_STORES:
        raise MountError(f"{len(stores)} stores; at most {MAX_STORES} can be attached at once")
    return {"root": root, "stores": [asdict(store) for store in stores]}


# The caller's side.


class _Helper:
    """The helper process, and the socket on which it reports."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process = process
        self._channel = channel

    def receive_descriptors(self, stores: Sequence[Store]) -> dict[str, int]:
        """One descriptor for each store, by directory."""
        _, descriptors = self._receive()
        return dict(zip((store.directory for store in stores), descriptors, strict=True))

    def confine(self) -> None:
        """Let the command start, in a user namespace whose IDs are those outside."""
        self._channel.sendall(b"{}")
        message, _ = self._receive()
        if message.get("wants_ids"):
            # The whole range, from outside: only a privileged process of the parent namespace may.
            for table in ("uid_map", "gid_map"):
                with open(f"/proc/{self.process.pid}/{table}", "w", encoding="ascii") as file:
                    file.write(f"0 0 {2**32 - 1}")
            self._channel.sendall(b"{}")

    def wait_for_end(self) -> None:
        """Wait for the helper to have done its job. Raises MountError with its reason if it could not."""
        self._receive()
        self.process.wait()

    def wait_for_command(self) -> int:
        """Wait for the command, passing signals on; its exit status as a shell gives it."""

        def pass_on(number: int, frame: FrameType | None) -> None:
            if number in FROM_TERMINAL and _in_foreground():
                return  # the terminal sent it to the command too
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

        previous = {number: signal.signal(number, pass_on) for number in PASSED_ON}
        try:
            status = self.process.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return status if status >= 0 else 128 - status

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        data, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, MAX_STORES)
        if not data:
            raise MountError(f"the process that makes the mounts ended with status {self.process.wait()}")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise MountError(message["error"])
        return message, descriptors


@contextmanager
def _helper(function: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Iterator[_Helper]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            arguments = [str(theirs.fileno()), json.dumps(job)]
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
                lean_command("app.mount.daemon.namespaces", function, arguments),
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        try:
            yield _Helper(process, ours)
        except BaseException:
            process.kill()
            process.wait()
            raise


def _in_foreground() -> bool:
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


# The helper's side. Each function gets [descriptor of the channel, job as JSON] and returns the exit status.


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
