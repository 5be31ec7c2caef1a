"""Several programs write the same files at once: nothing that was accepted is lost."""

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
    files,
    lines,
    outcome_of,
    sizes,
    specials,
)
from tests.mount.model.world import ApiWriter, MountWriter, Writer


class EverybodyAtOnce(Machine):
    """Several programs write the same files without waiting for one another: nothing accepted is lost."""

    ACCEPTABLE = ("ENOENT", "EEXIST", "ENOTDIR", "EISDIR", "ENOTEMPTY", "EINVAL")

    def __init__(self) -> None:
        super().__init__()
        self.accepted: set[str] = set()
        """Lines that must be in the history."""
        self.unseen: dict[Writer, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """The same, if the mirror has time to see them before its own program takes them away: by path."""

    def do(self, writer: Writer, name: str, *arguments: Any) -> None:
        if isinstance(writer, ApiWriter) and (self.is_down or not hasattr(writer, name)):
            return
        outcome = outcome_of(lambda: getattr(writer, name)(*arguments))
        self.told(f"{writer} {name}{arguments} → {outcome}")
        self._record(writer, name, arguments, outcome)

    def _record(self, writer: Writer, name: str, arguments: tuple[Any, ...], outcome: Any) -> None:
        is_kept_beside = outcome == "ESTALE"
        is_away = outcome == "EIO" and name in NEED_CONTENT and writer.mode == FUSE
        assert (
            not isinstance(outcome, str)
            or outcome in self.ACCEPTABLE
            or is_kept_beside
            or is_away
            or name in ("read", "texts")
        ), f"{writer} {name}{arguments} failed with {outcome}"
        has_failed = isinstance(outcome, str) and not is_kept_beside and name != "read"
        if has_failed:
            return
        if name in ("write", "append", "save_atomically"):
            self._note_lines(writer, name, *arguments)
        elif writer.mode == MIRROR:
            self._note_loss(writer, name, *arguments)

    def _note_lines(self, writer: Writer, name: str, path: str, text: str) -> None:
        if writer.mode != MIRROR:
            self.accepted |= set(text.splitlines())
            return
        unseen = self.unseen[writer]
        if name != "append":
            unseen[path] = set()
        unseen[path] |= set(text.splitlines())

    def _note_loss(self, writer: Writer, name: str, path: str, *others: Any) -> None:
        unseen = self.unseen[writer]
        if name in ("truncate", "unlink"):
            unseen.pop(path, None)
        elif name == "rename":
            (new,) = others
            if new == path:
                return
            moved = {old: unseen.pop(old) for old in list(unseen) if f"{old}/".startswith(f"{path}/")}
            unseen |= {new + old[len(path) :]: found for old, found in moved.items()}
            if not moved:
                unseen.pop(new, None)

    writer_numbers = st.integers(0, 3)
    bad_bytes = st.sampled_from([b"\xff", b"caf\xe9\n", b"\xc3", b"\xe2\x82"])

    def who(self, number: int) -> Writer:
        return self.scene.writers[number % len(self.scene.writers)]

    @rule(number=writer_numbers, path=files, count=lines)
    def write(self, number: int, path: str, count: int) -> None:
        writer = self.who(number)
        self._make_parents(writer, path)
        self.do(writer, "write", path, self.text(count))

    def _make_parents(self, writer: Writer, path: str) -> None:
        above = path.split("/")[1:-1]
        for end in range(1, len(above) + 1):
            self.do(writer, "mkdir", "/" + "/".join(above[:end]))

    @rule(number=writer_numbers, path=files, count=lines)
    def append(self, number: int, path: str, count: int) -> None:
        self.do(self.who(number), "append", path, self.text(count))

    @rule(number=writer_numbers, other=writer_numbers, path=files, counts=st.tuples(lines, lines))
    def append_twice_while_another_writes(self, number: int, other: int, path: str, counts: tuple[int, int]) -> None:
        writer = self.who(number)
        if not isinstance(writer, MountWriter) or writer.mode != FUSE:
            return  # what a mirror replaced while it was open is another file
        first, second = map(self.text, counts)
        others = self.text(1)
        outcome = outcome_of(
            lambda: writer.append_twice(path, first, second, lambda: self.do(self.who(other), "append", path, others))
        )
        self.told(f"{writer} append_twice {path, first, second} → {outcome}")
        self._record(writer, "append", (path, first + second), outcome)

    @rule(number=writer_numbers, other=writer_numbers, path=files, bad=bad_bytes)
    def append_bad_bytes_while_another_writes(self, number: int, other: int, path: str, bad: bytes) -> None:
        writer = self.who(number)
        if not isinstance(writer, MountWriter) or writer.mode != FUSE:
            return  # a mirror refuses the whole file, which stays as it is
        ours, others = self.text(1), self.text(1)
        outcome = outcome_of(
            lambda: writer.append_after_bad_bytes(
                path, bad, ours, lambda: self.do(self.who(other), "append", path, others)
            )
        )
        self.told(f"{writer} append_after_bad_bytes {path, bad, ours} → {outcome}")
        self._record(writer, "append", (path, ours), outcome)

    @rule(number=writer_numbers, path=files, size=sizes)
    def truncate(self, number: int, path: str, size: int) -> None:
        self.do(self.who(number), "truncate", path, size)

    @rule(number=writer_numbers, path=files, count=lines)
    def save_atomically(self, number: int, path: str, count: int) -> None:
        writer = self.who(number)
        self._make_parents(writer, path)
        self.do(writer, "save_atomically", path, self.text(count))

    @rule(number=writer_numbers, old=files, new=files)
    def rename(self, number: int, old: str, new: str) -> None:
        self.do(self.who(number), "rename", old, new)

    @rule(number=writer_numbers, old=directories, new=directories)
    def rename_directory(self, number: int, old: str, new: str) -> None:
        self.do(self.who(number), "rename", old, new)

    @rule(number=writer_numbers, path=files)
    def unlink(self, number: int, path: str) -> None:
        self.do(self.who(number), "unlink", path)

    @rule(number=writer_numbers, path=files, kind=specials)
    def something_special_gets_a_freed_inode(self, number: int, path: str, kind: str) -> None:
        writer = self.who(number)
        self.do(writer, "unlink", path)
        self.make_special(writer, path, kind)

    @rule(number=writer_numbers, path=directories)
    def rmdir(self, number: int, path: str) -> None:
        self.do(self.who(number), "rmdir", path)

    @rule(number=writer_numbers, path=files)
    def read(self, number: int, path: str) -> None:
        self.do(self.who(number), "read", path)

    @rule(path=files, counts=st.lists(lines, min_size=4, max_size=4))
    def all_append_at_the_same_time(self, path: str, counts: list[int]) -> None:
        texts = [self.text(count) for count in counts]
        threads = [
            threading.Thread(target=self.do, args=(writer, "append", path, text))
            for writer, text in zip(self.scene.writers, texts, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @rule()
    def everybody_saves(self) -> None:
        self.mend()
        self.told("everybody saves")
        stored = self.world.settle()
        for paths in self.unseen.values():
            for found in paths.values():
                self.accepted |= found
        self.unseen.clear()
        versions = self.api.versions()
        check_fold(versions, stored)
        # Not as lines of their own: what is appended to a text that was cut short goes on in its last line.
        history = "".join(version.text or "" for version in versions)
        lost = sorted(line for line in self.accepted if line not in history)
        assert not lost, f"lost: {lost}"
        for mount in self.scene.mounts:
            status = mount.status()
            known = {name: status.get(name) for name in ("pending", "refused", "unsaved", "hidden", "local")}
            assert not any(known.values()), f"{mount}: {known}"

    def finish(self) -> None:
        self.everybody_saves()
