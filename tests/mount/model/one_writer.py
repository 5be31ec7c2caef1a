"""One program writes at a time: everything is as in a plain directory."""

import copy
import itertools
import re
import threading
from collections import defaultdict
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from app.mount.daemon.orders import FUSE, MIRROR
from tests.mount.model.machine import (
    NEED_CONTENT,
    Machine,
    check_fold,
    directories,
    everything,
    files,
    lines,
    outcome_of,
    sizes,
    specials,
)
from tests.mount.model.reference import Expected, Reference
from tests.mount.model.world import ApiWriter, MountWriter, Place, Version, Writer

LINE = re.compile(r"line [0-9]{4}\n")


class OneWriterAtATime(Machine):
    """While one writes and the others look on, everything is as in a plain directory, whatever fails meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.reference = Reference()
        self.writer: Writer = self.scene.mounts[0]
        self.settled_versions = 0
        self.ids: dict[int, str] = {}
        """The memory of each file."""

    def do(self, name: str, *arguments: Any) -> None:
        """The writer does it, and it comes to the same as in the reference."""
        if isinstance(self.writer, ApiWriter):
            if self.is_down or not self._api_can(name, arguments[0], arguments[-1]):
                return
            self._make_parents(arguments[-1] if name == "rename" else arguments[0])
        before, path_is_there = copy.deepcopy(self.reference), arguments[0] in self.reference.files
        expected = outcome_of(lambda: getattr(self.reference, name)(*arguments))
        self.told(f"{self.writer} {name}{arguments} → {expected}")
        found = outcome_of(lambda: getattr(self.writer, name)(*arguments))
        if found == "EIO" and name in NEED_CONTENT and path_is_there and self.may_lack_contents(self.writer):
            self.told("  its content is not at hand")
            self.reference = before
            return
        assert found == expected, f"{self.writer} {name}{arguments}: {found}, and it should be {expected}"

    def _api_can(self, name: str, path: str, target: str) -> bool:
        """Whether it means the same for the API, which has no directories."""
        if name in ("mkdir", "rmdir", "names"):
            return False
        for reached in (path, target) if name == "rename" else (path,):
            if any(reached.startswith(f"{file}/") for file in self.reference.files):
                return False
        is_directory = any(file.startswith(f"{path}/") for file in self.reference.files)
        if name == "rename":
            return (
                (is_directory or path in self.reference.files)
                and path != target
                and not f"{target}/".startswith(f"{path}/")
                and not any(f"{file}/".startswith(f"{target}/") for file in self.reference.files)
            )
        return not is_directory

    def _make_parents(self, path: str) -> None:
        above = path.split("/")[:-1]
        needed = {*self.reference.files, path}
        self.reference.directories = {
            "/".join(one.split("/")[:end]) for one in needed for end in range(1, one.count("/") + 1)
        } | {"/".join(above[:end]) for end in range(1, len(above) + 1)}

    # What a program does.

    @rule(path=files, count=lines, makes_parents=st.booleans())
    def write(self, path: str, count: int, makes_parents: bool) -> None:
        if makes_parents:
            self._mkdir_parents(path)
        self.do("write", path, self.text(count))

    def _mkdir_parents(self, path: str) -> None:
        above = path.split("/")[1:-1]
        for end in range(1, len(above) + 1):
            self.do("mkdir", "/" + "/".join(above[:end]))

    @rule(path=files, count=lines)
    def append(self, path: str, count: int) -> None:
        self.do("append", path, self.text(count))

    @rule(path=files, size=sizes)
    def truncate(self, path: str, size: int) -> None:
        self.do("truncate", path, size)

    @rule(path=files, count=lines, makes_parents=st.booleans())
    def save_atomically(self, path: str, count: int, makes_parents: bool) -> None:
        if makes_parents:
            self._mkdir_parents(path)
        self.do("save_atomically", path, self.text(count))

    @rule(old=files, new=files)
    def rename(self, old: str, new: str) -> None:
        self.do("rename", old, new)

    @rule(old=everything, new=everything)
    def rename_anything(self, old: str, new: str) -> None:
        self.do("rename", old, new)

    @rule(old=directories, new=directories)
    def rename_directory(self, old: str, new: str) -> None:
        self.do("rename", old, new)

    @rule(path=everything)
    def unlink(self, path: str) -> None:
        self.do("unlink", path)

    @rule(path=directories)
    def mkdir(self, path: str) -> None:
        self.do("mkdir", path)

    @rule(path=everything)
    def rmdir(self, path: str) -> None:
        self.do("rmdir", path)

    @rule(path=files, kind=specials, frees_an_inode=st.booleans())
    def something_special(self, path: str, kind: str, frees_an_inode: bool) -> None:
        if frees_an_inode:
            self.do("unlink", path)
        self.make_special(self.writer, path, kind)

    @rule(path=everything)
    def read(self, path: str) -> None:
        self.do("read", path)

    @rule()
    def look_at_everything(self) -> None:
        if self.is_down and isinstance(self.writer, ApiWriter):
            return
        self._check_texts()
        if isinstance(self.writer, MountWriter):
            assert self.writer.directories() == self.reference.directories
            for directory in self.reference.directories:
                assert self.writer.names(directory) == self.reference.names(directory)

    def _check_texts(self) -> None:
        texts = outcome_of(self.writer.texts)
        assert texts == self.reference.texts() or (texts == "EIO" and self.may_lack_contents(self.writer)), texts

    # Who writes.

    @rule(number=st.integers(0, 3))
    def another_writes(self, number: int) -> None:
        self.agree()
        self.writer = self.scene.writers[number % len(self.scene.writers)]
        if isinstance(self.writer, MountWriter):
            self.reference.adopt(self.writer.directories())
        self.told(f"{self.writer} writes from here")

    @rule()
    def agree(self) -> None:
        """Everybody shows what the reference has, and the history is what happened, once."""
        self.mend()
        self.told("everybody agrees")
        self.world.settle(self.reference.texts())
        self._check_history()
        self.reference.versions.clear()
        self.forgetful.clear()

    def _check_history(self) -> None:
        versions = self.api.versions()
        new, self.settled_versions = versions[self.settled_versions :], len(versions)
        check_fold(versions, self.api.texts())
        now = {path: memory.id for path, memory in self.api._all().items()}
        if self.writer.mode != MIRROR:  # which may not have seen every step
            expected: dict[int, list[tuple[str, str, str | None]]] = defaultdict(list)
            for version in itertools.chain(*self.reference.versions):
                expected[version.identity].append(_line(version))
            found: dict[str, list[tuple[str, str, str | None]]] = defaultdict(list)
            for one in new:
                found[one.memory_id].append(_line(one))
            assert sorted(expected.values(), key=str) == sorted(found.values(), key=str)
            for path, file in self.reference.files.items():
                assert self.ids.get(file.identity, now[path]) == now[path], f"{path} has another ID than before"
        self.ids = {file.identity: now[path] for path, file in self.reference.files.items()}

    # Faults in the middle of something.

    @rule(path=files, count=lines, milliseconds=st.integers(0, 6))
    def write_while_the_worker_dies(self, path: str, count: int, milliseconds: int) -> None:
        if not isinstance(self.writer, MountWriter) or not self.may_die(self.writer.place) or self.faults_left <= 0:
            return
        self.faults_left -= 1
        place = self.writer.place
        killer = threading.Timer(milliseconds / 1000, self.kill_worker, [place])
        killer.start()
        try:
            self.do("write", path, self.text(count))
        finally:
            killer.join()

    @rule(number=st.integers(0, 7), count=st.integers(1, 4), dies=st.booleans())
    def memory_is_erased_while_its_writer_is_away(self, number: int, count: int, dies: bool) -> None:
        """Nothing of it comes back, and what its writer added is kept on the host."""
        with_a_line = {path: line for path, file in self.reference.files.items() if (line := LINE.search(file.text))}
        if self.faults_left <= 1 or not with_a_line:
            return
        if not isinstance(self.writer, MountWriter):
            self.another_writes(number % len(self.scene.mounts))
        writer = self.writer
        assert isinstance(writer, MountWriter)
        path = sorted(with_a_line)[number % len(with_a_line)]
        line = with_a_line[path]
        self.agree()
        self.faults_left -= 2
        memory_id = self.api._all()[path].id
        unsent = self.text(count)
        writer.place.cut("refuse")
        self.do("append", path, unsent)
        if dies and all(mount.mode == FUSE for mount in writer.place.mounts):
            self.told("  its daemon dies")
            self.forgetful.append(writer.place)
            writer.place.crash()
            self.after_crash(writer.place)
        self.world.erase(line[0])
        writer.place.mend()
        for kept in writer.take_kept(path):
            assert kept.endswith(unsent), kept
        self.told(f"  {path} is erased")
        del self.reference.files[path]
        self.world.settle(self.reference.texts())
        self.reference.adopt(writer.directories())
        versions = self.api.versions()
        assert memory_id not in {version.memory_id for version in versions}
        self.settled_versions = len(versions)
        self.reference.versions.clear()

    def after_crash(self, place: Place) -> None:
        if isinstance(self.writer, MountWriter) and self.writer in place.mounts:
            self._check_texts()
            if self.writer.mode == FUSE:
                self.reference.adopt(self.writer.directories())

    def finish(self) -> None:
        self.agree()


def _line(version: Version | Expected) -> tuple[str, str, str | None]:
    return version.operation, version.path, None if version.operation == "deleted" else version.text
