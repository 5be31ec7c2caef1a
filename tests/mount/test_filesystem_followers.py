"""A program that has a file open and waits for more, as `tail -f` does, while others change the file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse
from tests.support.waiting import until

pytestmark = needs_fuse


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/log.md", "one\n")
    return engine


@pytest.fixture(params=["read and write", "read-only"])
def mount(request: pytest.FixtureRequest, engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt", read_only=request.param == "read-only") as mount:
        yield mount


@pytest.fixture
def writable(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


class Reader:
    """Reads what is new, as often as it is asked."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        self.text = ""

    def more(self) -> str:
        """Everything so far."""
        if os.fstat(self.descriptor).st_size > len(self.text):
            self.text += os.read(self.descriptor, 1 << 20).decode()
        return self.text

    def gets(self, text: str) -> None:
        with contextlib.suppress(AssertionError):
            until(lambda: self.more() == text, f"the reader gets {text!r}")
        assert self.more() == text


@pytest.fixture
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    mounted_at = request.getfixturevalue("mount" if "mount" in request.fixturenames else "writable")
    reader = Reader(mounted_at.path / "log.md")
    reader.gets("one\n")
    yield reader
    os.close(reader.descriptor)


def test_a_reader_gets_what_others_append(engine: FakeEngine, mount: Mounted, reader: Reader) -> None:
    for text in ("one\ntwo\n", "one\ntwo\nthree\n", "one\ntwo\nthree\nfour\n"):
        engine.other_writes("/log.md", text)
        reader.gets(text)
    assert (mount.path / "log.md").read_text() == reader.text


def test_a_reader_gets_what_is_appended_here_after_others_appended(
    engine: FakeEngine, writable: Mounted, reader: Reader
) -> None:
    engine.other_writes("/log.md", "one\ntheirs\n")
    writable.told()
    with (writable.path / "log.md").open("a") as file:
        file.write("ours\n")
    reader.gets("one\ntheirs\nours\n")
    engine.other_writes("/log.md", "one\ntheirs\nours\nlast\n")
    reader.gets("one\ntheirs\nours\nlast\n")


def test_a_reader_of_an_old_text_gets_only_what_is_added_to_the_new_one(
    engine: FakeEngine, writable: Mounted, reader: Reader
) -> None:
    engine.other_writes("/log.md", "begun anew\n")
    until(lambda: writable.filesystem.followers.is_settled, "the change is seen")
    assert reader.more() == "one\n"
    engine.other_writes("/log.md", "begun anew\nand on\n")
    reader.gets("one\nand on\n")
    with (writable.path / "log.md").open("a") as file:
        file.write("and on\n")
    reader.gets("one\nand on\nand on\n")


def test_a_reader_goes_on_after_an_append_here_that_was_merged(
    engine: FakeEngine, writable: Mounted, reader: Reader
) -> None:
    with (writable.path / "log.md").open("a") as file:
        file.write("ours\n")
        file.flush()
        engine.other_writes("/log.md", "one\ntheirs\n")
    writable.settle()
    writable.told()
    assert engine.texts()["/log.md"] == "one\ntheirs\nours\n"
    until(lambda: writable.filesystem.followers.is_settled, "the merge is seen")
    reader.gets("one\nours\n")
    engine.other_writes("/log.md", "one\ntheirs\nours\nlater\n")
    reader.gets("one\nours\nlater\n")


def test_a_reader_waits_for_no_network(engine: FakeEngine, mount: Mounted, reader: Reader) -> None:
    engine.forgets_content = True
    engine.may_go_on.clear()
    engine.other_writes("/log.md", "one\ntwo\n")
    mount.told()
    assert reader.more() == "one\n"
    assert (mount.path / "log.md").stat().st_size == 8
    engine.may_go_on.set()
    reader.gets("one\ntwo\n")


def test_a_file_opened_for_reading_is_truncated_when_that_is_asked_for(engine: FakeEngine, writable: Mounted) -> None:
    os.close(os.open(writable.path / "log.md", os.O_RDONLY | os.O_TRUNC))
    writable.settle()
    assert (writable.path / "log.md").read_bytes() == b""
    assert engine.texts()["/log.md"] == ""


def test_a_file_of_a_read_only_store_is_not_truncated(engine: FakeEngine, tmp_path: Path) -> None:
    with mounted(engine, tmp_path / "mnt", read_only=True) as mount:
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(mount.path / "log.md", os.O_RDONLY | os.O_TRUNC)
        assert (mount.path / "log.md").read_text() == "one\n"
