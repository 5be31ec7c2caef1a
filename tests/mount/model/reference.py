"""What a directory of files does, in memory: the plain model that mounts are compared with."""

import errno
import itertools
import os
from dataclasses import dataclass, field


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class File:
    """A file, which stays the same one under another name."""

    text: str
    identity: int


@dataclass
class Expected:
    """One version that the store's history must have."""

    operation: str
    path: str
    text: str | None
    """None where the version has no text (a delete) or it is not looked at."""
    identity: int


@dataclass
class Reference:
    """Files and directories. Paths start with `/`; the root is the empty string.

    `versions` grows by what each call must leave in the history: one step for each call, in which the order of the
    versions is free.
    """

    files: dict[str, File] = field(default_factory=dict)
    directories: set[str] = field(default_factory=lambda: {""})
    versions: list[list[Expected]] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def texts(self) -> dict[str, str]:
        return {path: file.text for path, file in self.files.items()}

    def names(self, directory: str) -> set[str]:
        """What a listing shows."""
        below = [*self.files, *self.directories - {""}]
        return {path.rpartition("/")[2] for path in below if path.rpartition("/")[0] == directory}

    def _check_parent(self, path: str) -> None:
        above = path.rpartition("/")[0]
        for end in range(1, above.count("/") + 1):
            directory = "/".join(above.split("/")[: end + 1])
            if directory in self.files:
                raise failure(errno.ENOTDIR)
            if directory not in self.directories:
                raise failure(errno.ENOENT)

    def _file(self, path: str) -> File:
        self._check_parent(path)
        if path in self.directories:
            raise failure(errno.EISDIR)
        if path not in self.files:
            raise failure(errno.ENOENT)
        return self.files[path]

    def _note(self, operation: str, path: str, file: File) -> Expected:
        return Expected(operation, path, None if operation == "deleted" else file.text, file.identity)

    def write(self, path: str, text: str) -> None:
        """Create or overwrite."""
        self._check_parent(path)
        if path in self.directories:
            raise failure(errno.EISDIR)
        if path in self.files:
            self._put(path, text)
        else:
            self.files[path] = File(text, next(self.numbers))
            self.versions.append([self._note("created", path, self.files[path])])

    def _put(self, path: str, text: str) -> None:
        file = self.files[path]
        if file.text != text:
            file.text = text
            self.versions.append([self._note("modified", path, file)])

    def append(self, path: str, text: str) -> None:
        self._put(path, self._file(path).text + text)

    def truncate(self, path: str, size: int) -> None:
        """The text is ASCII."""
        text = self._file(path).text
        self._put(path, text[:size] + "\0" * (size - len(text)))

    def read(self, path: str) -> str:
        return self._file(path).text

    def unlink(self, path: str) -> None:
        file = self._file(path)
        del self.files[path]
        self.versions.append([self._note("deleted", path, file)])

    def mkdir(self, path: str) -> None:
        self._check_parent(path)
        if path in self.files or path in self.directories:
            raise failure(errno.EEXIST)
        self.directories.add(path)

    def rmdir(self, path: str) -> None:
        self._check_parent(path)
        if path in self.files:
            raise failure(errno.ENOTDIR)
        if path not in self.directories:
            raise failure(errno.ENOENT)
        if self.names(path):
            raise failure(errno.ENOTEMPTY)
        self.directories.remove(path)

    def rename(self, old: str, new: str) -> None:
        """A file or a directory, over what is there as rename(2) has it."""
        self._check_parent(old)
        self._check_parent(new)
        if old not in self.files and old not in self.directories:
            raise failure(errno.ENOENT)
        if new.startswith(f"{old}/"):
            raise failure(errno.EINVAL)
        if old.startswith(f"{new}/"):
            raise failure(errno.ENOTEMPTY)
        if old == new:
            return
        if old in self.directories:
            self._rename_directory(old, new)
        else:
            self._rename_file(old, new)

    def _rename_file(self, old: str, new: str) -> None:
        if new in self.directories:
            raise failure(errno.EISDIR)
        file = self.files.pop(old)
        target = self.files.get(new)
        if target is None:
            self.files[new] = file
            self.versions.append([self._note("modified", new, file)])
            return
        step = [self._note("deleted", old, file)]
        if target.text != file.text:
            target.text = file.text
            step.append(self._note("modified", new, target))
        self.versions.append(step)

    def _rename_directory(self, old: str, new: str) -> None:
        if new in self.files:
            raise failure(errno.ENOTDIR)
        if new in self.directories and self.names(new):
            raise failure(errno.ENOTEMPTY)
        self.directories = {
            new + path[len(old) :] if (path + "/").startswith(f"{old}/") else path for path in self.directories
        }
        moved = [path for path in self.files if path.startswith(f"{old}/")]
        step = []
        for path in moved:
            file = self.files.pop(path)
            self.files[new + path[len(old) :]] = file
            step.append(self._note("modified", new + path[len(old) :], file))
        if step:
            self.versions.append(step)

    def save_atomically(self, path: str, text: str) -> None:
        """A temporary file beside it, renamed over it."""
        self.write(path, text)

    def adopt(self, directories: set[str]) -> None:
        """Another mount's directories: the empty ones are each mount's own."""
        needed = {"/".join(path.split("/")[:end]) for path in self.files for end in range(1, path.count("/") + 1)}
        assert needed <= directories, f"directories are missing: {sorted(needed - directories)}"
        self.directories = set(directories)
