"""What a worker writes down for its successor, while several of its threads do so at once."""

import threading
from collections.abc import Callable

import pytest

from app.mount.door.entries import Entry
from app.mount.fuse.filesystem import survival
from app.mount.fuse.filesystem.coherence import Coherence, Housekeeper
from app.mount.fuse.filesystem.handles import Handle, Handles
from app.mount.fuse.filesystem.nodes import File, Tree
from app.mount.fuse.filesystem.survival import Survival, restore
from tests.mount.fake_engine import FakeEngine

SOON_SECONDS = 0.2
"""Enough for a thread that nothing keeps waiting."""


class Keeper:
    """Memory, and what happens while it is being replaced."""

    def __init__(self) -> None:
        self.kept = b""
        self.saves = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def save(self, state: bytes) -> None:
        self.meanwhile()
        self.kept = state
        self.saves += 1

    def append(self, piece: bytes) -> None:
        self.kept += piece


class Worker:
    """A tree with one unsaved file, and its notes."""

    def __init__(self) -> None:
        self.tree, self.handles, self.keeper = Tree(uid=0, gid=0, read_only=False), Handles(), Keeper()
        self.survival = Survival(self.tree, self.handles)
        self.file = self.tree.new_file()
        self.file.dirty, self.file.text = True, bytearray(b"text")
        self.tree.attach(self.tree.root, b"x.md", self.file)
        self.survival.begin(self.keeper)

    def successor(self) -> tuple[Tree, Handles]:
        tree, handles = Tree(uid=0, gid=0, read_only=False), Handles()
        restore(self.keeper.kept, tree, handles, Coherence(tree, FakeEngine(), Housekeeper()))
        return tree, handles

    def rewrite(self) -> None:
        """Go on until everything is written anew."""
        before = self.keeper.saves
        while self.keeper.saves == before:
            self.survival.node(self.file)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(survival, "COMPACT_BYTES", 0)  # everything is written anew every few records
    return Worker()


def test_what_happens_while_everything_is_written_anew_is_not_lost(worker: Worker) -> None:
    def write() -> None:
        assert isinstance(worker.file.text, bytearray)
        worker.file.text += b"!"
        worker.survival.written(worker.file, 4, b"!")

    def begin() -> None:
        worker.keeper.meanwhile = lambda: None
        thread.start()
        thread.join(SOON_SECONDS)

    thread = threading.Thread(target=write)
    worker.keeper.meanwhile = begin
    worker.rewrite()
    thread.join()
    tree, _ = worker.successor()
    found = tree.find("/x.md")
    assert isinstance(found, File)
    assert found.text == b"text!"


def test_a_file_may_be_opened_while_everything_is_written_anew(worker: Worker) -> None:
    class Opening(Handle):
        """Another thread opens a file while this one is being written down."""

        @property
        def file(self) -> File:
            worker.handles.table[8] = Handle(worker.file, writable=False, opener=1)
            return worker.file

        @file.setter
        def file(self, file: File) -> None:
            pass

    worker.handles.table[7] = Opening(worker.file, writable=True, opener=1)
    worker.rewrite()
    worker.survival.opened(8, worker.handles.table[8])
    _, handles = worker.successor()
    assert sorted(handles.table) == [7, 8]


def test_a_text_that_is_saved_meanwhile_is_no_fault(worker: Worker) -> None:
    class Saved(File):
        """Another thread saves it between two looks."""

        __slots__ = ("looks",)

        @property
        def text(self) -> bytes | bytearray | None:
            self.looks = getattr(self, "looks", 0) + 1
            return bytearray(b"text") if self.looks == 1 else None

        @text.setter
        def text(self, text: bytes | bytearray | None) -> None:
            pass

    file = Saved(99, 0, 0, 0)
    file.dirty = True
    worker.tree.nodes[99] = file
    worker.rewrite()
    tree, _ = worker.successor()
    assert 99 in tree.nodes


def test_after_the_end_nothing_is_written_down(worker: Worker) -> None:
    kept = worker.keeper.kept
    worker.survival.end()
    worker.survival.node(worker.file)
    worker.survival.closed(7)
    assert worker.keeper.kept == kept


def test_a_file_that_was_just_becoming_unsaved_is_as_it_was_before(worker: Worker) -> None:
    worker.file.entry = Entry("/x.md", "mem_1", "memver_1", "00" * 32, 4, 0)
    worker.file.dirty, worker.file.text = False, None
    worker.file.lookups = 1
    worker.rewrite()
    worker.file.dirty, worker.file.text = True, bytearray(b"text!")  # and is not written down yet
    worker.survival.node(worker.file)
    tree, _ = worker.successor()
    found = tree.find("/x.md")
    assert isinstance(found, File)
    assert (found.dirty, found.text, found.entry) == (False, None, worker.file.entry)
