"""What POSIX and Linux promise of file systems: a call on a prepared directory, and what must come of it.

Each case gets an empty directory and ends with a value, or with an error, of which the errno's name counts.
`posix_expected.toml` says where the mount differs, and why.
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

Outcome = object


@dataclass(frozen=True)
class Case:
    """One promise. `expected`: a value, or the name of an errno; the value is that of `then`, if there is one."""

    name: str
    do: Callable[[Path], Outcome]
    expected: Outcome = "ok"
    then: Callable[[Path], Outcome] | None = None


def outcome(case: Case, directory: Path) -> Outcome:
    """What comes of it there."""
    try:
        result = case.do(directory)
        if case.then is not None:
            result = case.then(directory)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok" if result is None else result


def file(path: Path, text: str = "0123456789") -> Path:
    path.write_text(text)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def opened(path: Path, flags: int, mode: int = 0o644) -> None:
    os.close(os.open(path, flags, mode))


def with_open(path: Path, flags: int, call: Callable[[int], Outcome]) -> Outcome:
    descriptor = os.open(path, flags, 0o644)
    try:
        return call(descriptor)
    finally:
        os.close(descriptor)


def rename2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def with_umask(mask: int, call: Callable[[], object]) -> None:
    before = os.umask(mask)
    try:
        call()
    finally:
        os.umask(before)


def as_nobody(call: Callable[[], object]) -> Outcome:
    """Do it in a child that has no rights."""

    def without_rights() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        call()

    return in_child(without_rights)


def in_child(call: Callable[[], object]) -> Outcome:
    """Do it in a child, which this process does not keep waiting for an answer."""
    child = os.fork()
    if child == 0:
        status = 0
        try:
            call()
        except OSError as error:
            status = error.errno or 255
        os._exit(status)
    _, ended = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(ended)
    return errno.errorcode[number] if number else "ok"


def permissions(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


# What a case does in more than one line.


def _mkdir_links(d: Path) -> Outcome:
    before = d.stat().st_nlink
    folder(d / "a")
    folder(d / "b")
    os.rmdir(d / "a")
    return d.stat().st_nlink - before


def _mkdir_in_removed(d: Path) -> Outcome:
    descriptor = os.open(folder(d / "a"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rmdir(d / "a")
        os.mkdir("b", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return None


def _parent_times(d: Path) -> Outcome:
    before = d.stat()
    folder(d / "a")
    after = d.stat()
    return (after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns)


def _open_unlinked(d: Path) -> Outcome:
    def use(descriptor: int) -> Outcome:
        os.unlink(d / "f")
        os.pwrite(descriptor, b"ab", 0)
        return os.pread(descriptor, 20, 0).decode(), os.fstat(descriptor).st_nlink, names(d)

    return with_open(file(d / "f"), os.O_RDWR, use)


def _unlink_and_make_again(d: Path) -> Outcome:
    def use(descriptor: int) -> Outcome:
        os.unlink(d / "f")
        file(d / "f", "new")
        return os.pread(descriptor, 20, 0).decode(), (d / "f").read_text()

    return with_open(file(d / "f", "old"), os.O_RDONLY, use)


def _rename_over(d: Path) -> Outcome:
    source, target = file(d / "a", "source"), file(d / "b", "target")
    number = source.stat().st_ino
    os.rename(source, target)
    return names(d), target.read_text(), target.stat().st_ino == number


def _rename_over_open(d: Path) -> Outcome:
    def use(descriptor: int) -> Outcome:
        os.rename(d / "a", d / "b")
        return os.pread(descriptor, 20, 0).decode(), os.fstat(descriptor).st_nlink, (d / "b").read_text()

    file(d / "a", "source")
    return with_open(file(d / "b", "target"), os.O_RDONLY, use)


def _rename_open(d: Path) -> Outcome:
    def use(descriptor: int) -> Outcome:
        os.rename(d / "a", d / "b")
        return os.write(descriptor, b"more")

    written = with_open(file(d / "a", "text "), os.O_WRONLY | os.O_APPEND, use)
    return written, (d / "b").read_text()


def _rename_number(d: Path) -> Outcome:
    number = file(d / "a").stat().st_ino
    os.rename(d / "a", d / "b")
    return (d / "b").stat().st_ino == number


def _rename_tree(d: Path) -> Outcome:
    file(folder(folder(d / "a") / "b") / "f", "deep")
    os.rename(d / "a", d / "c")
    return names(d), (d / "c/b/f").read_text()


def _truncate_times(d: Path, call: Callable[[Path], object]) -> Outcome:
    os.utime(file(d / "f"), ns=(10**18, 10**18))
    before = (d / "f").stat().st_ctime_ns
    call(d / "f")
    after = (d / "f").stat()
    return after.st_mtime_ns > 10**18, after.st_ctime_ns > before


def _ftruncate_offset(descriptor: int) -> Outcome:
    os.lseek(descriptor, 8, os.SEEK_SET)
    os.ftruncate(descriptor, 4)
    os.write(descriptor, b"x")
    return os.pread(descriptor, 20, 0).decode()


def _ftruncate_and_read(descriptor: int) -> Outcome:
    os.ftruncate(descriptor, 2)
    return os.pread(descriptor, 20, 0)


def _utime_now(d: Path) -> Outcome:
    os.utime(file(d / "f"), ns=(0, 0))
    before = (d / "f").stat().st_ctime_ns
    os.utime(d / "f")
    after = (d / "f").stat()
    return after.st_mtime_ns > 0, after.st_atime_ns > 0, after.st_ctime_ns >= before


def _utime_exact(d: Path) -> Outcome:
    os.utime(file(d / "f"), ns=(1_234_567_891_123_456_789, 987_654_321_987_654_321))
    found = (d / "f").stat()
    return found.st_atime_ns, found.st_mtime_ns


def _chmod_keeps(d: Path) -> Outcome:
    path = file(d / "f")
    path.chmod(0o640)
    file(path, "other")
    os.rename(path, d / "g")
    return permissions(d / "g")


def _chown_clears(d: Path) -> Outcome:
    path = file(d / "f")
    path.chmod(0o6755)
    os.chown(path, 12, 34)
    return permissions(path), path.stat().st_uid, path.stat().st_gid


def _setgid_directory(d: Path) -> Outcome:
    above = folder(d / "a")
    os.chown(above, 12, 34)
    above.chmod(0o2755)
    return folder(above / "b").stat().st_gid, file(above / "f").stat().st_gid, permissions(above / "b")


def _locks(d: Path) -> Outcome:
    with (d / "f").open("w") as first, (d / "f").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return None


def _append_twice(d: Path) -> Outcome:
    first, second = (os.open(d / "f", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for _ in range(2))
    for number in range(4):
        os.write((first, second)[number % 2], b"%d" % number)
    os.close(first)
    os.close(second)
    return (d / "f").read_text()


def _hole(d: Path) -> Outcome:
    return with_open(d / "f", os.O_RDWR | os.O_CREAT, lambda f: (os.pwrite(f, b"x", 5), os.pread(f, 9, 0)))


def _socket(d: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(d / "s"))


def _unreadable(d: Path, mode: int, call: Callable[[Path], object]) -> Outcome:
    path = file(d / "f")
    path.chmod(mode)
    return as_nobody(lambda: call(path))


def _run(path: Path) -> Outcome:
    return in_child(lambda: os.execv(path, ["f"]))


W, R, RW, C, X, T = os.O_WRONLY, os.O_RDONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC
LONG, TOO_LONG = "n" * 255, "n" * 256

CASES = [
    # mkdir
    Case("mkdir", lambda d: os.mkdir(d / "a"), [], then=lambda d: names(d / "a")),
    Case("mkdir where a directory is", lambda d: os.mkdir(folder(d / "a")), "EEXIST"),
    Case("mkdir where a file is", lambda d: os.mkdir(file(d / "f")), "EEXIST"),
    Case("mkdir of the root of a tree", lambda d: os.mkdir(f"{d}/."), "EEXIST"),
    Case("mkdir below nothing", lambda d: os.mkdir(d / "a/b"), "ENOENT"),
    Case("mkdir below a file", lambda d: os.mkdir(file(d / "f") / "b"), "ENOTDIR"),
    Case("mkdir with a slash at the end", lambda d: os.mkdir(f"{d}/a/")),
    Case("mkdir of the longest name", lambda d: os.mkdir(d / LONG)),
    Case("mkdir of too long a name", lambda d: os.mkdir(d / TOO_LONG), "ENAMETOOLONG"),
    Case(
        "mkdir heeds umask",
        lambda d: with_umask(0o027, lambda: os.mkdir(d / "a")),
        "0o750",
        then=lambda d: permissions(d / "a"),
    ),
    Case("mkdir counts links", _mkdir_links, 1),
    Case("mkdir in a directory that is gone", _mkdir_in_removed, "ENOENT"),
    Case("mkdir changes the parent's times", _parent_times, (True, True)),
    # rmdir
    Case("rmdir", lambda d: os.rmdir(folder(d / "a")), [], then=lambda d: names(d)),
    Case("rmdir of nothing", lambda d: os.rmdir(d / "a"), "ENOENT"),
    Case("rmdir of a file", lambda d: os.rmdir(file(d / "f")), "ENOTDIR"),
    Case("rmdir below a file", lambda d: os.rmdir(file(d / "f") / "a"), "ENOTDIR"),
    Case(
        "rmdir with a file in it", lambda d: file(folder(d / "a") / "f"), "ENOTEMPTY", then=lambda d: os.rmdir(d / "a")
    ),
    Case(
        "rmdir with a directory in it",
        lambda d: folder(folder(d / "a") / "b"),
        "ENOTEMPTY",
        then=lambda d: os.rmdir(d / "a"),
    ),
    Case("rmdir of .", lambda d: os.rmdir(f"{folder(d / 'a')}/."), "EINVAL"),
    Case("rmdir of ..", lambda d: os.rmdir(f"{folder(d / 'a')}/.."), "ENOTEMPTY"),
    Case("rmdir of too long a name", lambda d: os.rmdir(d / TOO_LONG), "ENAMETOOLONG"),
    # open
    Case("open of nothing", lambda d: opened(d / "f", R), "ENOENT"),
    Case("open creates", lambda d: opened(d / "f", W | C), 0, then=lambda d: (d / "f").stat().st_size),
    Case("open creates below nothing", lambda d: opened(d / "a/f", W | C), "ENOENT"),
    Case("open below a file", lambda d: opened(file(d / "f") / "g", R), "ENOTDIR"),
    Case("open creates below a file", lambda d: opened(file(d / "f") / "g", W | C), "ENOTDIR"),
    Case("open creates too long a name", lambda d: opened(d / TOO_LONG, W | C), "ENAMETOOLONG"),
    Case("open creates the longest name", lambda d: opened(d / LONG, W | C)),
    Case("open creates what must be new", lambda d: opened(file(d / "f"), W | C | X), "EEXIST"),
    Case("open creates a directory's name", lambda d: opened(folder(d / "a"), W | C), "EISDIR"),
    Case("open creates a new directory's name", lambda d: opened(folder(d / "a"), W | C | X), "EEXIST"),
    Case("open of a directory to write", lambda d: opened(folder(d / "a"), W), "EISDIR"),
    Case("open of a directory to read", lambda d: opened(folder(d / "a"), R)),
    Case("open of a file as a directory", lambda d: opened(file(d / "f"), R | os.O_DIRECTORY), "ENOTDIR"),
    Case("open with a slash behind a file", lambda d: os.close(os.open(f"{file(d / 'f')}/", R)), "ENOTDIR"),
    Case("open truncates", lambda d: opened(file(d / "f"), W | T), 0, then=lambda d: (d / "f").stat().st_size),
    Case(
        "open without truncating", lambda d: opened(file(d / "f"), W | C), 10, then=lambda d: (d / "f").stat().st_size
    ),
    Case(
        "open heeds umask",
        lambda d: with_umask(0o027, lambda: opened(d / "f", W | C, 0o666)),
        "0o640",
        then=lambda d: permissions(d / "f"),
    ),
    Case(
        "open with a mode that forbids the writing", lambda d: with_open(d / "f", W | C, lambda f: os.write(f, b"x")), 1
    ),
    Case(
        "write where only reading is open", lambda d: with_open(file(d / "f"), R, lambda f: os.write(f, b"x")), "EBADF"
    ),
    Case("read where only writing is open", lambda d: with_open(file(d / "f"), W, lambda f: os.read(f, 1)), "EBADF"),
    Case("read of a directory", lambda d: with_open(d, R, lambda f: os.read(f, 1)), "EISDIR"),
    Case("read at the end", lambda d: with_open(file(d / "f"), R, lambda f: os.pread(f, 5, 10)), b""),
    Case("read over the end", lambda d: with_open(file(d / "f"), R, lambda f: os.pread(f, 5, 8)), b"89"),
    Case(
        "write at a negative place", lambda d: with_open(file(d / "f"), W, lambda f: os.pwrite(f, b"x", -1)), "EINVAL"
    ),
    Case("write beyond the end leaves a hole", _hole, (1, b"\0\0\0\0\0x")),
    Case("seek before the beginning", lambda d: with_open(file(d / "f"), R, lambda f: os.lseek(f, -1, 0)), "EINVAL"),
    Case("seek from the end", lambda d: with_open(file(d / "f"), R, lambda f: os.lseek(f, -3, 2)), 7),
    Case("appends of two descriptors follow one another", _append_twice, "0123"),
    Case("a temporary file without a name", lambda d: opened(d, W | os.O_TMPFILE)),
    Case("fallocate", lambda d: with_open(file(d / "f"), W, lambda f: os.posix_fallocate(f, 0, 100))),
    Case("locks exclude one another", _locks, "EAGAIN"),
    # unlink
    Case("unlink", lambda d: os.unlink(file(d / "f")), [], then=lambda d: names(d)),
    Case("unlink of nothing", lambda d: os.unlink(d / "f"), "ENOENT"),
    Case("unlink of a directory", lambda d: os.unlink(folder(d / "a")), "EISDIR"),
    Case("unlink below nothing", lambda d: os.unlink(d / "a/f"), "ENOENT"),
    Case("unlink below a file", lambda d: os.unlink(file(d / "f") / "g"), "ENOTDIR"),
    Case("unlink with a slash behind a file", lambda d: os.unlink(f"{file(d / 'f')}/"), "ENOTDIR"),
    Case("unlink of too long a name", lambda d: os.unlink(d / TOO_LONG), "ENAMETOOLONG"),
    Case("an unlinked file lives while it is open", _open_unlinked, ("ab23456789", 0, [])),
    Case("a new file under an unlinked name is another", _unlink_and_make_again, ("old", "new")),
    # rename
    Case("rename", lambda d: os.rename(file(d / "a"), d / "b"), ["b"], then=lambda d: names(d)),
    Case("rename to itself", lambda d: os.rename(file(d / "a"), d / "a"), ["a"], then=lambda d: names(d)),
    Case("rename keeps the number", _rename_number, True),
    Case("rename over a file", _rename_over, (["b"], "source", True)),
    Case("rename over an open file", _rename_over_open, ("target", 0, "source")),
    Case("rename of an open file", _rename_open, (4, "text more")),
    Case("rename of a tree", _rename_tree, (["c"], "deep")),
    Case("rename of nothing", lambda d: os.rename(d / "a", d / "b"), "ENOENT"),
    Case("rename to below nothing", lambda d: os.rename(file(d / "a"), d / "b/c"), "ENOENT"),
    Case("rename to below a file", lambda d: os.rename(file(d / "a"), file(d / "f") / "b"), "ENOTDIR"),
    Case("rename from below a file", lambda d: os.rename(file(d / "a") / "f", d / "b"), "ENOTDIR"),
    Case("rename of a file over a directory", lambda d: os.rename(file(d / "a"), folder(d / "b")), "EISDIR"),
    Case("rename of a directory over a file", lambda d: os.rename(folder(d / "a"), file(d / "b")), "ENOTDIR"),
    Case(
        "rename over an empty directory",
        lambda d: os.rename(folder(d / "a"), folder(d / "b")),
        ["b"],
        then=lambda d: names(d),
    ),
    Case(
        "rename over a full directory",
        lambda d: folder(folder(d / "b") / "c"),
        "ENOTEMPTY",
        then=lambda d: os.rename(folder(d / "a"), d / "b"),
    ),
    Case("rename into itself", lambda d: os.rename(folder(d / "a"), d / "a/b"), "EINVAL"),
    Case("rename over what is above", lambda d: os.rename(folder(folder(d / "a") / "b"), d / "a"), "ENOTEMPTY"),
    Case("rename of .", lambda d: os.rename(f"{folder(d / 'a')}/.", d / "b"), "EBUSY"),
    Case("rename to too long a name", lambda d: os.rename(file(d / "a"), d / TOO_LONG), "ENAMETOOLONG"),
    Case("rename to a slash behind a file", lambda d: os.rename(file(d / "a"), f"{d}/b/"), "ENOTDIR"),
    Case("rename that may not replace", lambda d: rename2(file(d / "a"), file(d / "b"), RENAME_NOREPLACE), "EEXIST"),
    Case("rename that need not replace", lambda d: rename2(file(d / "a"), d / "b", RENAME_NOREPLACE)),
    Case("rename that exchanges", lambda d: rename2(file(d / "a"), file(d / "b"), RENAME_EXCHANGE)),
    # truncate, ftruncate
    Case("truncate shortens", lambda d: os.truncate(file(d / "f"), 3), "012", then=lambda d: (d / "f").read_text()),
    Case(
        "truncate lengthens",
        lambda d: os.truncate(file(d / "f", "ab"), 4),
        "ab\0\0",
        then=lambda d: (d / "f").read_text(),
    ),
    Case("truncate of nothing", lambda d: os.truncate(d / "f", 0), "ENOENT"),
    Case("truncate of a directory", lambda d: os.truncate(folder(d / "a"), 0), "EISDIR"),
    Case("truncate below a file", lambda d: os.truncate(file(d / "f") / "g", 0), "ENOTDIR"),
    Case("truncate to less than nothing", lambda d: os.truncate(file(d / "f"), -1), "EINVAL"),
    Case("truncate changes the times", lambda d: _truncate_times(d, lambda f: os.truncate(f, 3)), (True, True)),
    Case("truncate to a mebibyte", lambda d: os.truncate(file(d / "f"), 1 << 20)),
    Case("ftruncate", lambda d: with_open(file(d / "f"), RW, _ftruncate_and_read), b"01"),
    Case(
        "ftruncate where only reading is open",
        lambda d: with_open(file(d / "f"), R, lambda f: os.ftruncate(f, 2)),
        "EINVAL",
    ),
    Case("ftruncate of a directory", lambda d: with_open(d, R, lambda f: os.ftruncate(f, 2)), "EINVAL"),
    Case("ftruncate leaves the offset", lambda d: with_open(file(d / "f"), RW, _ftruncate_offset), "0123\0\0\0\0x"),
    Case(
        "ftruncate to the same size changes the times",
        lambda d: _truncate_times(d, lambda path: with_open(path, RW, lambda f: os.ftruncate(f, 10))),
        (True, True),
    ),
    # utimensat
    Case("utimensat to the nanosecond", _utime_exact, (1_234_567_891_123_456_789, 987_654_321_987_654_321)),
    Case("utimensat to now", _utime_now, (True, True, True)),
    Case("utimensat of nothing", lambda d: os.utime(d / "f"), "ENOENT"),
    Case("utimensat below a file", lambda d: os.utime(file(d / "f") / "g"), "ENOTDIR"),
    Case(
        "utimensat of a directory",
        lambda d: os.utime(folder(d / "a"), (7, 9)),
        9.0,
        then=lambda d: (d / "a").stat().st_mtime,
    ),
    # chmod, chown
    Case("chmod", lambda d: os.chmod(file(d / "f"), 0o600), "0o600", then=lambda d: permissions(d / "f")),
    Case(
        "chmod of a directory",
        lambda d: os.chmod(folder(d / "a"), 0o1700),
        "0o1700",
        then=lambda d: permissions(d / "a"),
    ),
    Case("chmod is kept", _chmod_keeps, "0o640"),
    Case("chmod of nothing", lambda d: os.chmod(d / "f", 0o600), "ENOENT"),
    Case("chmod below a file", lambda d: os.chmod(file(d / "f") / "g", 0o600), "ENOTDIR"),
    Case("chown, which takes set-user-ID away", _chown_clears, ("0o755", 12, 34)),
    Case(
        "chown of nothing to change",
        lambda d: os.chown(file(d / "f"), -1, -1),
        0,
        then=lambda d: (d / "f").stat().st_uid,
    ),
    Case("chown of nothing", lambda d: os.chown(d / "f", 1, 1), "ENOENT"),
    Case("chown below a file", lambda d: os.chown(file(d / "f") / "g", 1, 1), "ENOTDIR"),
    Case("a set-group-ID directory gives its group on", _setgid_directory, (34, 34, "0o2755")),
    # who may
    Case("reading what only its owner may", lambda d: _unreadable(d, 0o600, lambda f: f.read_text()), "EACCES"),
    Case("writing what others may read", lambda d: _unreadable(d, 0o644, lambda f: opened(f, W)), "EACCES"),
    Case("chmod of another's file", lambda d: _unreadable(d, 0o644, lambda f: f.chmod(0o666)), "EPERM"),
    Case("chown of another's file", lambda d: _unreadable(d, 0o644, lambda f: os.chown(f, 65534, -1)), "EPERM"),
    Case("creating in another's directory", lambda d: as_nobody(lambda: opened(d / "f", W | C)), "EACCES"),
    Case("asking to run what is no program", lambda d: os.access(file(d / "f"), os.X_OK), False),
    Case("running what is no program", lambda d: _run(file(d / "f")), "EACCES"),
    # what a store has no place for
    Case("link", lambda d: os.link(file(d / "a"), d / "b")),
    Case("symlink", lambda d: os.symlink("a", d / "b")),
    Case("mkfifo", lambda d: os.mkfifo(d / "p")),
    Case("mknod of a device", lambda d: os.mknod(d / "n", stat.S_IFCHR | 0o600, os.makedev(1, 3))),
    Case(
        "mknod of a file",
        lambda d: os.mknod(d / "n", stat.S_IFREG | 0o600),
        "0o600",
        then=lambda d: permissions(d / "n"),
    ),
    Case("bind of a socket", _socket),
    Case("a name that is not UTF-8", lambda d: os.close(os.open(os.fsencode(d) + b"/\xff", W | C))),
    Case("a name with a line end", lambda d: opened(d / "a\nb", W | C)),
    Case("a name with a decomposed letter", lambda d: opened(d / "e\N{COMBINING ACUTE ACCENT}", W | C)),
    Case("bytes that are no text", lambda d: with_open(d / "f", W | C, lambda f: os.write(f, b"\xff")), 1),
    Case(
        "more than a memory holds", lambda d: with_open(d / "f", W | C, lambda f: os.write(f, b"x" * 102_401)), 102_401
    ),
]
