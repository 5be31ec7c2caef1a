"""The files of a mirror on disk: found, opened and read without ever following a link.

Paths start with `/` and are relative to the root; names that are not UTF-8 carry surrogates (PEP 383).
"""

import contextlib
import errno
import fcntl
import os
import signal
import stat as modes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.contract.limits import CONTENT_MAX_BYTES, PATH_MAX_SEGMENTS
from app.mount.mirror import syscalls
from app.mount.sync.errors import Refused

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


_has_openat2 = True


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open a path below a directory, by no link, and never outside of it.

    Where the kernel (before Linux 5.6) or a filter of system calls has no openat2, one segment after the other is
    opened without following links. That is as safe: no segment may be `..`.

    Raises:
        OSError: as open(2); ELOOP or ENOTDIR for a link, EXDEV if the path would lead out.

    """
    global _has_openat2
    *above, name = _check_names(path.split("/"))
    while _has_openat2:
        try:
            return syscalls.open_beneath(directory, path, flags)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                _has_openat2 = False
            elif error.errno != errno.EAGAIN:  # somebody renames directories at this very moment
                raise
    descriptor = os.dup(directory)
    try:
        for segment in above:
            below = os.open(segment, OPEN_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return os.open(name, flags, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _check_names(names: list[str]) -> list[str]:
    if any(name in ("", ".", "..") for name in names):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/".join(names))
    return names


class Busy(Exception):
    """Somebody has the file open for writing, or changed it while we looked. Try again later."""


@dataclass(frozen=True, slots=True)
class Stat:
    """Enough of a file's status to see that it has changed."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stat":
        """From the system's."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def same_file(self, other: "Stat") -> bool:
        """Whether both are one file with one content, perhaps under another name: a rename changes the ctime.

        A birth time would add little: another file that got the freed inode would need the same size and the same
        time to the nanosecond, as only a copy with its times has them.
        """
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)

    def to_be_read_again(self) -> "Stat":
        """One that no file has: a comparison with it leads to a read of the file."""
        return replace(self, ctime_ns=0)


def identity_of(descriptor: int) -> int:
    """Which directory this is, in 63 bits: its inode and its birth, for a later one may get the same inode."""
    return (syscalls.birth_ns(descriptor) * 31 ^ os.fstat(descriptor).st_ino) & (2**63 - 1)


@dataclass(frozen=True, slots=True)
class Root:
    """Which directory the root is, across renames and restarts."""

    device: int
    identity: int


@dataclass(slots=True)
class Listing:
    """What a look at a tree found."""

    files: dict[str, Stat] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)
    """Path to `identity_of`; the root is not among them."""
    odd: dict[str, tuple[Stat, Refused]] = field(default_factory=dict)
    """Links, devices and other things that no memory can be, and directories that can't be entered."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it was at one moment."""

    data: bytes
    stat: Stat
    mode: int


class Tree:
    """The directory at `root`. Made if it is missing."""

    def __init__(self, root: Path, *, hidden: str = "") -> None:
        """hidden: a name directly in the root that is not part of the tree."""
        self.root = root
        self._hidden = hidden
        root.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(root, OPEN_DIRECTORY)
        self.identity = self._identity()

    def _identity(self) -> Root:
        return Root(os.fstat(self._fd).st_dev, identity_of(self._fd))

    def close(self) -> None:
        """Close the directory."""
        os.close(self._fd)

    def is_there(self) -> bool:
        """Whether the path still leads to the directory that was opened."""
        try:
            return os.path.samestat(os.stat(self.root, follow_symlinks=False), os.fstat(self._fd))
        except OSError:
            return False

    def reopen(self) -> None:
        """Go on with the directory that is at the path now; it is made if nothing is there."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, OPEN_DIRECTORY)
        os.close(self._fd)
        self._fd = descriptor
        self.identity = self._identity()

    @contextlib.contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """A descriptor of the directory ("" is the root), reached without following a link.

        Raises:
            OSError: ENOENT, ENOTDIR or ELOOP when there is no such directory.

        """
        descriptor = os.dup(self._fd) if path == "" else open_beneath(self._fd, path[1:], OPEN_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that holds the path, and the path's last segment.

        Raises:
            OSError: as `directory`; EXDEV if the path would lead out of the tree.

        """
        above, _, name = path.rpartition("/")
        _check_names([name])
        with self.directory(above) as descriptor:
            yield descriptor, name

    def stat(self, path: str) -> os.stat_result | None:
        """What is at the path, a link itself; None if nothing is, or its directory is not there."""
        try:
            with self.parent(path) as (directory, name):
                return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise

    def walk(self, path: str, watch: Callable[[int, str], None]) -> Listing:
        """Everything at and below a directory ("" is the root).

        watch: called with each directory before it is listed.
        """
        listing = Listing()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.directory(path) as descriptor:
            if path:
                listing.directories[path] = identity_of(descriptor)
            self._walk(descriptor, path, watch, listing)
        return listing

    def _walk(self, descriptor: int, path: str, watch: Callable[[int, str], None], listing: Listing) -> None:
        watch(descriptor, path)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if path == "" and entry.name == self._hidden:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                child = f"{path}/{entry.name}"
                if modes.S_ISREG(status.st_mode):
                    listing.files[child] = Stat.of(status)
                elif modes.S_ISDIR(status.st_mode):
                    self._walk_below(descriptor, child, status, watch, listing)
                else:
                    listing.odd[child] = (Stat.of(status), not_a_file(status.st_mode))

    def _walk_below(
        self,
        above: int,
        path: str,
        status: os.stat_result,
        watch: Callable[[int, str], None],
        listing: Listing,
    ) -> None:
        if status.st_dev != self.identity.device:
            listing.odd[path] = Stat.of(status), Refused(errno.EXDEV, "another filesystem is mounted here")
            return
        if path.count("/") > PATH_MAX_SEGMENTS:
            reason = f"a path has at most {PATH_MAX_SEGMENTS} segments"
            listing.odd[path] = Stat.of(status), Refused(errno.ENAMETOOLONG, reason)
            return
        try:
            below = open_beneath(above, path.rpartition("/")[2], OPEN_DIRECTORY)
        except FileNotFoundError:
            return
        except OSError as error:
            listing.odd[path] = Stat.of(status), Refused(error.errno or errno.EIO, "the directory can't be read")
            return
        try:
            listing.directories[path] = identity_of(below)
            self._walk(below, path, watch, listing)
        finally:
            os.close(below)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[int]:
        """A descriptor of the regular file at the path, for reading.

        Raises:
            Refused: EPERM for what is no regular file, or has a second name: that name could be anywhere.
            OSError: as open(2).

        """
        with self.parent(path) as (directory, name):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not modes.S_ISREG(status.st_mode):
                raise not_a_file(status.st_mode)
            descriptor = open_beneath(directory, name, _OPEN_FILE)
        try:
            status = os.fstat(descriptor)
            if not modes.S_ISREG(status.st_mode):
                raise not_a_file(status.st_mode)
            if status.st_nlink > 1:
                raise Refused(errno.EPERM, "has a second name (a hard link); a memory has one")
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, path: str, *, even_if_open: bool = False) -> Content:
        """The file's content at one moment.

        even_if_open: also when somebody has it open for writing.

        Raises:
            Busy: somebody writes to it.
            Refused: EFBIG, or as `open`.
            OSError: as open(2).

        """
        with self.open(path) as descriptor:
            before = os.fstat(descriptor)
            if before.st_size > CONTENT_MAX_BYTES:
                raise Refused(errno.EFBIG, f"is {before.st_size:,} bytes; a memory holds at most {CONTENT_MAX_BYTES:,}")
            with contextlib.nullcontext() if even_if_open else lease(descriptor):
                data = read_all(descriptor)
                after = os.fstat(descriptor)
            if Stat.of(before) != Stat.of(after) or len(data) != after.st_size:
                raise Busy(path)
            return Content(data, Stat.of(after), modes.S_IMODE(after.st_mode))


def not_a_file(mode: int) -> Refused:
    """Why something that is no regular file can't be a memory."""
    what = {
        modes.S_IFLNK: "a symbolic link",
        modes.S_IFDIR: "a directory",
        modes.S_IFIFO: "a named pipe",
        modes.S_IFSOCK: "a socket",
    }.get(modes.S_IFMT(mode), "a device")
    number = errno.EISDIR if modes.S_ISDIR(mode) else errno.EPERM
    return Refused(number, f"is {what}; a memory is a regular file")


def read_all(descriptor: int) -> bytes:
    """The file's bytes from its start; one more than a memory may hold at most."""
    parts: list[bytes] = []
    offset = 0
    while offset <= CONTENT_MAX_BYTES and (part := os.pread(descriptor, CONTENT_MAX_BYTES + 1 - offset, offset)):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class Lease:
    """A read lease on an open file: while it is held, an open for writing waits (fcntl(2), F_SETLEASE)."""

    def __init__(self, descriptor: int, held: bool) -> None:
        self._descriptor = descriptor
        self._held = held

    def somebody_waits(self) -> bool:
        """Whether a writer is waiting to open the file. False where leases do not work."""
        return self._held and fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK


@contextlib.contextmanager
def lease(descriptor: int) -> Iterator[Lease]:
    """Hold a read lease, where the filesystem and our rights allow one: only the owner or CAP_LEASE may.

    Raises:
        Busy: somebody has the file open for writing.

    """
    try:
        # A break is announced by a signal; SIGIO, the default, would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise Busy from None
        yield Lease(descriptor, held=False)
        return
    try:
        yield Lease(descriptor, held=True)
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
