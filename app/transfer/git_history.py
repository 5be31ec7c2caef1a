"""A store's history as a Git repository: one commit per version, through `git fast-import`.

The author and the time of a commit are the version's. A version whose text was redacted is a commit that says so and
changes nothing. Paths that Git can't hold, since a file system could take a part of them for `.git`, are left out and
reported.
"""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO

from app.contract import clock, paths
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.history.authors import names_of
from app.storage.rows.database import Database, Row
from app.storage.rows.tables import DELETED
from app.storage.storage import Storage
from app.transfer.archives.manifest import OPERATIONS
from app.transfer.exporting import Exported, Exporter, Exports

_BRANCH = "refs/heads/main"
_HOST = "memstore.invalid"


_IGNORED_BY_HFS = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
_GITS_OWN = (".git", "git~1")
"""`git~1` is the short name that NTFS gives to `.git`."""
_AS_THEY_ARE = "* -text !eol !filter !ident !working-tree-encoding\n"


def is_gits_own(segment: str) -> bool:
    """Whether Git refuses a part of a path, because HFS+ or NTFS could take it for `.git`.

    HFS+ ignores some code points and case. NTFS ignores case, and spaces and dots at the end; it takes what follows a
    colon for the name of a stream, and a backslash for a separator.
    """
    if segment.translate(_IGNORED_BY_HFS).lower() == ".git":
        return True
    parts = segment.partition(":")[0].split("\\")
    return any(part.rstrip(" .").lower() in _GITS_OWN for part in parts)


class GitHistory:
    """Writes repositories."""

    def __init__(self, storage: Storage) -> None:
        self._exports = Exports(storage)
        self._database = storage.database

    async def export(self, caller: Caller, store_id: str, directory: Path) -> Exported:
        """Make a repository of all versions in a new or empty directory.

        Raises:
            InvalidRequest: there is no Git, or something in the directory.
            NotFound: there is no such store.

        """
        git = _find_git(directory)
        exporter = await self._exports.begin(caller, store_id, history=True, form="git")
        process = await asyncio.to_thread(_begin, git, directory)
        assert process.stdin is not None
        stream = _Stream(process.stdin, exporter.result)
        try:
            await _write(exporter, stream, self._database)
        except BrokenPipeError:
            pass  # It ended early, and says why.
        finally:
            errors = await asyncio.to_thread(_end, process)
        if process.returncode:
            raise InvalidRequest(f"git fast-import failed: {errors}")
        if stream.commits:
            await asyncio.to_thread(_take_texts_as_they_are, directory)
            await asyncio.to_thread(_run, git, directory, "reset", "--quiet", "--hard")
        return exporter.result


def _find_git(directory: Path) -> str:
    git = shutil.which("git")
    if git is None:
        raise InvalidRequest("--git needs Git: install it (apt install git), or export with --history instead")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidRequest(f"{str(directory)!r} is there and is no empty directory; name another place")
    return git


def _take_texts_as_they_are(directory: Path) -> None:
    """A memory at `/.gitattributes` is a text: it must not change how the others are written to disk."""
    attributes = directory / ".git" / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text(_AS_THEY_ARE, encoding="ascii")


def _begin(git: str, directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    _run(git, directory, "init", "--quiet", f"--initial-branch={_BRANCH.rpartition('/')[2]}")
    command = [git, "-C", str(directory), "fast-import", "--quiet", "--done"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - found by which


def _end(process: subprocess.Popen[bytes]) -> str:
    _, errors = process.communicate()
    return errors.decode("utf-8", "replace").strip()


async def _write(exporter: Exporter, stream: "_Stream", database: Database) -> None:
    number = 0
    async with aclosing(exporter.versions()) as pages:
        async for page in pages:
            stream.names = await names_of(database, (row for row, _ in page))
            for row, content in page:
                stream.commit(row, content)
                number += 1
    stream.finish()
    exporter.result.versions = number
    exporter.result.memories = stream.files


class _Stream:
    """The commands for `git fast-import`, and the tree as they leave it."""

    def __init__(self, out: IO[bytes], result: Exported) -> None:
        self._out = out
        self._result = result
        self._path_of: dict[str, str] = {}
        self._memory_at: dict[str, str] = {}
        self._directories = Counter[str]()
        """How many files are below each directory."""
        self._marks: dict[bytes, int] = {}
        self.commits = 0
        self.names: Mapping[str, str] = {}
        """Of authors, by ID."""

    @property
    def files(self) -> int:
        """Files in the tree."""
        return len(self._memory_at)

    def finish(self) -> None:
        """Say that it is whole."""
        self._out.write(b"done\n")

    def commit(self, row: Row, content: bytes | None) -> None:
        """One version."""
        changes = self._changes(row, content)
        author = _author(row, self.names)
        said = "redacted" if row["redacted_at"] is not None else row["path"]
        message = (
            f"{OPERATIONS[row['operation']]} {said}\n\n"
            f"Memory: {row['memory_id']}\nVersion: {row['id']}\nSequence: {row['seq']}\n"
        ).encode()
        self.commits += 1
        header = f"commit {_BRANCH}\nauthor {author}\ncommitter {author}\ndata {len(message)}\n".encode()
        self._out.write(header + message + b"\n" + b"".join(changes) + b"\n")

    def _changes(self, row: Row, content: bytes | None) -> Sequence[bytes]:
        memory_id, path = row["memory_id"], row["path"]
        if row["operation"] == DELETED:
            return self._leave(memory_id)
        if path is None or content is None:
            return []
        if any(is_gits_own(segment) for segment in path.split("/")):
            if path not in self._result.left_out:
                self._result.left_out.append(path)
            return self._leave(memory_id)
        mark = self._mark(bytes(row["content_sha256"]), content)
        changes = []
        if self._path_of.get(memory_id) != path:
            changes += self._leave(memory_id)
        # The memory in the way has left by a version that is redacted or expired.
        for other in [*paths.ancestors(path), path, *self._below(path)]:
            if self._memory_at.get(other, memory_id) != memory_id:
                changes += self._leave(self._memory_at[other])
        if path not in self._memory_at:
            self._path_of[memory_id], self._memory_at[path] = path, memory_id
            self._directories.update(paths.ancestors(path))
        return [*changes, b"M 100644 :%d %s\n" % (mark, _quoted(path))]

    def _below(self, path: str) -> list[str]:
        if not self._directories[path]:
            return []
        return [other for other in self._memory_at if other.startswith(path + "/")]

    def _leave(self, memory_id: str) -> list[bytes]:
        path = self._path_of.pop(memory_id, None)
        if path is None:
            return []
        del self._memory_at[path]
        self._directories.subtract(paths.ancestors(path))
        return [b"D " + _quoted(path) + b"\n"]

    def _mark(self, sha256: bytes, content: bytes) -> int:
        mark = self._marks.get(sha256)
        if mark is None:
            mark = self._marks[sha256] = len(self._marks) + 1
            self._out.write(b"blob\nmark :%d\ndata %d\n" % (mark, len(content)) + content + b"\n")
        return mark


def _author(row: Row, names: Mapping[str, str]) -> str:
    """The author's name, or ID where there is none, before an address that has the ID."""
    kind, actor_id = row["actor_type"] or "unknown", row["actor_id"] or "unknown"
    address = f"{_clean(actor_id).replace(' ', '_')}@{kind}.{_HOST}"
    name = _clean(names.get(row["actor_id"] or "", "")) or _clean(actor_id)
    return f"{name} <{address}> {row['created_at'] // clock.MICROSECONDS_PER_SECOND} +0000"


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable() and character not in "<>").strip()


def _quoted(path: str) -> bytes:
    return b'"' + path[1:].encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _run(git: str, directory: Path, *arguments: str) -> None:
    done = subprocess.run([git, "-C", str(directory), *arguments], capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise InvalidRequest(f"git {arguments[0]} failed: {done.stderr.decode('utf-8', 'replace').strip()}")
