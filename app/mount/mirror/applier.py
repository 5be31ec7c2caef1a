"""Brings the server's changes to the disk: whole files, under a lease, never over an edit.

New content is written beside the tree and swapped in with one rename. What comes out is kept beside the tree
until it is sure that it was what we thought: a program may have opened it just before, and write to it later.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import stat as modes
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.mount.door.entries import Entry
from app.mount.mirror import syscalls
from app.mount.mirror.agreements import Agreements, Displaced
from app.mount.mirror.tree import OPEN_DIRECTORY, Busy, Stat, Tree, lease, open_beneath, read_all

_SETTLED_SECONDS = 1.0
"""So long a file that was taken out stays: a program that found it by name just before has opened it by then."""
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class InTheWay(Exception):
    """Something local has the place that a memory needs; the text says what."""


class Edited(Exception):
    """The file on disk is not what was agreed on: somebody edited it."""


class Applier:
    """Changes files of one tree for the server."""

    def __init__(self, tree: Tree, aside: Path, agreements: Agreements, *, read_only: bool) -> None:
        """Make the directory `aside` if needed; it must be on the tree's filesystem."""
        self._tree = tree
        self._aside = aside
        self._agreements = agreements
        self._read_only = read_only
        self._numbers = itertools.count()
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = agreements.displaced()
        for left in aside.iterdir():  # from before a crash
            if left.name not in known:
                left.unlink()

        self.protect_root()

    def close(self) -> None:
        """Remove the directory beside the tree, unless something has to stay in it."""
        with contextlib.suppress(OSError):
            self._aside.rmdir()
        if self._read_only:
            self._change_root_mode(lambda mode: mode | 0o200)

    def protect_root(self) -> None:
        """Take away the right to write in the root of a read-only tree; the root is new, or was made again."""
        if self._read_only:
            self._change_root_mode(lambda mode: mode & ~0o222)

    def _change_root_mode(self, change: Callable[[int], int]) -> None:
        """The right to read stays as its owner has set it: a directory that is closed to others stays so."""
        with self._tree.directory("") as root:
            os.fchmod(root, change(modes.S_IMODE(os.fstat(root).st_mode)))

    def create(self, entry: Entry, data: bytes) -> Stat:
        """Make the file of a memory where nothing is.

        Raises:
            Edited: something is there meanwhile.
            InTheWay: a directory is there, or something else than a directory above.

        """
        with self._directory_for(entry.path) as (directory, name):
            fresh, descriptor = self._write_aside(data, entry, like=None)
            try:
                self._move_in(fresh, directory, name)
                return _agreed_stat(descriptor, entry, len(data))
            except FileExistsError:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if modes.S_ISREG(status.st_mode):
                    raise Edited(entry.path) from None
                if modes.S_ISDIR(status.st_mode):
                    return self._over_empty_directory(entry, data, directory, name)
                raise InTheWay("something that is no file has its name") from None
            finally:
                os.close(descriptor)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._aside / fresh)

    def _over_empty_directory(self, entry: Entry, data: bytes, directory: int, name: str) -> Stat:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise  # gone meanwhile, or another thing by now: the next look sees what
            raise InTheWay("a directory that is not empty has its name") from None
        return self.create(entry, data)

    def replace(self, was: Entry, entry: Entry, data: bytes) -> Stat:
        """Give a file new content in one step.

        was: what the file shows now.

        Raises:
            Edited: it holds something else.
            Busy: somebody has it open for writing.

        """
        with self._still_agreed(was) as (somebody_waits, directory, name, descriptor):
            fresh, fresh_descriptor = self._write_aside(data, entry, like=os.fstat(descriptor))
            self._agreements.displace(fresh, Displaced(was, entry.sha256))
            try:
                self._exchange(fresh, directory, name)
                if somebody_waits():
                    self._exchange(fresh, directory, name)  # the one who waits opens this very file: take it back
                    self._drop(fresh)
                    raise Busy(entry.path)
                return _agreed_stat(fresh_descriptor, entry, len(data))
            finally:
                os.close(fresh_descriptor)

    def remove(self, was: Entry, *, prune: bool = True) -> None:
        """Take away the file of a memory that is gone.

        prune: remove the directories this leaves empty.

        Raises:
            Edited, Busy: as `replace`.

        """
        with self._still_agreed(was) as (somebody_waits, directory, name, _):
            out = self._name(was, "")
            self._agreements.displace(out, Displaced(was, ""))
            with self._writable(directory):
                os.rename(name, self._aside / out, src_dir_fd=directory)
            if somebody_waits():
                self._move_in(out, directory, name)
                self._agreements.settle(out)
                raise Busy(was.path)
        self.prune(was.path)

    def move(self, was: Entry, entry: Entry, *, prune: bool = True) -> None:
        """A memory got another path: so does its file, whatever it holds, open or not.

        prune: remove the directories this leaves empty.

        Raises:
            FileExistsError: something is at the new path.
            InTheWay: as `create`.

        """
        with (
            self._tree.parent(was.path) as (old_directory, old_name),
            self._directory_for(entry.path) as (directory, name),
            self._writable(directory),
            self._writable(old_directory),
        ):
            _rename_to_nothing(old_directory, old_name, directory, name)
        if prune:
            self.prune(was.path)

    def discard(self, path: str) -> None:
        """Take away what somebody put into a read-only tree: a file, a link or an empty directory."""
        with self._tree.parent(path) as (directory, name), self._writable(directory):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if modes.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)

    def prune(self, path: str) -> None:
        """Remove the directories above a path that are empty."""
        above = path.rpartition("/")[0]
        while above:
            try:
                with self._tree.parent(above) as (directory, name), self._writable(directory):
                    os.rmdir(name, dir_fd=directory)
            except OSError:
                return
            above = above.rpartition("/")[0]

    def late_edits(self, save: Callable[[Displaced, bytes], bool], *, wait: bool) -> None:
        """Look for edits that went into files after they had been taken out of the tree.

        save: called with each; the file is dropped if it says True.
        wait: leave files alone that somebody still has open for writing, or may just be opening.
        """
        for name, displaced in self._agreements.displaced().items():
            data = self._late_content(name, wait=wait)
            if data is None:
                continue
            known = (displaced.entry.sha256, displaced.replacement)
            if hashlib.sha256(data).hexdigest() in known or save(displaced, data):
                self._drop(name)

    def _late_content(self, name: str, *, wait: bool) -> bytes | None:
        try:
            descriptor = os.open(self._aside / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self._agreements.settle(name)
            return None
        try:
            if wait and time.time() - os.fstat(descriptor).st_ctime < _SETTLED_SECONDS:
                return None
            with lease(descriptor) if wait else contextlib.nullcontext():
                return read_all(descriptor)
        except Busy:
            return None
        finally:
            os.close(descriptor)

    def _drop(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._aside / name)
        self._agreements.settle(name)

    @contextlib.contextmanager
    def _still_agreed(self, was: Entry) -> Iterator[tuple[Callable[[], bool], int, str, int]]:
        with (
            self._tree.parent(was.path) as (directory, name),
            self._tree.open(was.path) as descriptor,
            lease(descriptor) as held,
        ):
            if hashlib.sha256(read_all(descriptor)).hexdigest() != was.sha256:
                raise Edited(was.path)
            yield held.somebody_waits, directory, name, descriptor

    @contextlib.contextmanager
    def _directory_for(self, path: str) -> Iterator[tuple[int, str]]:
        above, _, name = path.rpartition("/")
        made = ""
        for segment in above.split("/")[1:]:
            with self._tree.directory(made) as descriptor:
                self._make_directory(descriptor, segment)
            made = f"{made}/{segment}"
        with self._tree.directory(above) as descriptor:
            yield descriptor, name

    def _make_directory(self, above: int, name: str) -> None:
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            with self._writable(above):
                os.mkdir(name, 0o755, dir_fd=above)
            self._like_the_root(above, name, 0o555 if self._read_only else 0o755)
            return
        if not modes.S_ISDIR(status.st_mode):
            raise InTheWay("something that is no directory is above it")

    def _like_the_root(self, above: int, name: str, mode: int) -> None:
        """A new directory belongs to whom the root belongs to: an agent may be another user than we are."""
        descriptor = open_beneath(above, name, OPEN_DIRECTORY)
        try:
            self._give_to_owner(descriptor)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def _give_to_owner(self, descriptor: int, like: os.stat_result | None = None) -> None:
        if os.geteuid() == 0:
            with self._tree.directory("") as root:
                status = like or os.fstat(root)
            os.fchown(descriptor, status.st_uid, status.st_gid)

    def _name(self, entry: Entry, new_sha: str) -> str:
        return f"{os.getpid()}-{next(self._numbers)}-{entry.sha256[:12]}-{new_sha[:12]}"

    def _write_aside(self, data: bytes, entry: Entry, *, like: os.stat_result | None) -> tuple[str, int]:
        """A new file beside the tree with the content, the memory's time, and the owner and mode of `like`.

        It is not synced, which would take longer than all the rest: the server has the content, and what a power
        cut does to the file is told from an edit at the next start.
        """
        name = self._name(entry, entry.sha256)
        descriptor = os.open(self._aside / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            mode = modes.S_IMODE(like.st_mode) if like else 0o644
            if self._read_only:
                mode = 0o444
            self._give_to_owner(descriptor, like)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)
        return name, os.open(self._aside / name, os.O_RDONLY | os.O_CLOEXEC)

    def _move_in(self, name: str, directory: int, target: str) -> None:
        with self._aside_directory() as aside, self._writable(directory):
            _rename_to_nothing(aside, name, directory, target)

    def _exchange(self, name: str, directory: int, target: str) -> None:
        with self._aside_directory() as aside, self._writable(directory):
            try:
                syscalls.renameat2(aside, name, directory, target, syscalls.RENAME_EXCHANGE)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                spare = f"{name}-out"  # a name keeps the old file while the new one goes over it
                os.link(target, spare, src_dir_fd=directory, dst_dir_fd=aside, follow_symlinks=False)
                os.rename(name, target, src_dir_fd=aside, dst_dir_fd=directory)
                os.rename(spare, name, src_dir_fd=aside, dst_dir_fd=aside)

    @contextlib.contextmanager
    def _aside_directory(self) -> Iterator[int]:
        descriptor = os.open(self._aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _writable(self, directory: int) -> Iterator[None]:
        """A directory of a read-only tree, which even its owner may not change, can be changed meanwhile."""
        mode = modes.S_IMODE(os.fstat(directory).st_mode)
        if not self._read_only or mode & 0o200:
            yield
            return
        os.fchmod(directory, mode | 0o200)
        try:
            yield
        finally:
            os.fchmod(directory, mode)


def _agreed_stat(descriptor: int, entry: Entry, size: int) -> Stat:
    """The new file's status. If somebody has written to it already, one that no file has: it will be read again."""
    stat = Stat.of(os.fstat(descriptor))
    untouched = (stat.size, stat.mtime_ns) == (size, entry.mtime_ns)
    return stat if untouched else stat.to_be_read_again()


def _rename_to_nothing(old_directory: int, old: str, new_directory: int, new: str) -> None:
    """Rename, unless something has the new name: FileExistsError."""
    try:
        syscalls.renameat2(old_directory, old, new_directory, new, syscalls.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        os.link(old, new, src_dir_fd=old_directory, dst_dir_fd=new_directory, follow_symlinks=False)
        os.unlink(old, dir_fd=old_directory)
