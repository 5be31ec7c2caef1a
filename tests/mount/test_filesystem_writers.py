"""A write that fails changes nothing, what succeeded stays; and nobody pays for what somebody else wrote."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.mount.sync.errors import Refused
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse

pytestmark = needs_fuse

APPEND = os.O_WRONLY | os.O_APPEND


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/n.md", "one\n")
    engine.other_writes("/café.md", "café und tee\n")
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def fails_with(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        call()


def kept(engine: FakeEngine) -> list[tuple[str, bytes]]:
    return [(one.path, engine.kept.show(one.id)) for one in engine.kept.list()]


def append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, APPEND)
    try:
        assert os.write(descriptor, data) == len(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


MAPS = """
import mmap, os
descriptor = os.open("n.md", os.O_RDWR)
with mmap.mmap(descriptor, 4) as mapped:
    mapped[0:1] = b"\\xff"
    mapped.flush()
"""

BAD = {
    "no text": b"\xff",
    "latin-1": b"caf\xe9\n",
    "utf-16": "text".encode("utf-16"),
    "a surrogate": b"\xed\xa0\x80",
    "too long a form": b"\xc0\xaf",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("flags", [APPEND, os.O_RDWR], ids=["append", "at an offset"])
def test_a_refused_write_takes_nothing_of_others_back(
    engine: FakeEngine, mount: Mounted, bad: bytes, flags: int
) -> None:
    path = mount.path / "n.md"
    one = os.open(path, flags)
    os.lseek(one, 0, os.SEEK_END)
    fails_with(errno.EILSEQ, lambda: os.write(one, bad))
    append(path, b"two\n")
    assert engine.texts()["/n.md"] == "one\ntwo\n"
    os.fsync(one)
    os.close(one)
    mount.settle()
    assert path.read_text() == engine.texts()["/n.md"] == "one\ntwo\n"
    assert kept(engine) == []


def test_what_one_process_wrote_before_and_after_a_refused_write_stays(engine: FakeEngine, mount: Mounted) -> None:
    said = mount.run(r"{ echo log2; printf 'caf\xe9\n'; echo log3; } >> n.md", check=False)
    assert "write error" in said.stderr
    mount.settle()
    assert engine.texts()["/n.md"] == "one\nlog2\nlog3\n"
    assert (mount.path / "n.md").read_text() == "one\nlog2\nlog3\n"


def test_appends_around_half_a_character_stay_and_the_half_is_kept_aside(engine: FakeEngine, mount: Mounted) -> None:
    said = mount.run(r"{ echo log2; printf 'caf\xe9'; printf '\n'; echo log3; } >> n.md", check=False)
    assert "write error" in said.stderr
    mount.settle()
    assert engine.texts()["/n.md"] == "one\nlog2\ncaflog3\n"
    assert kept(engine) == [("/n.md", b"one\nlog2\ncaf\xe9")]


def test_a_new_file_whose_only_write_is_refused_is_there_and_empty(engine: FakeEngine, mount: Mounted) -> None:
    assert mount.run(r"printf '\xff' > new.md", check=False).returncode == 1
    mount.settle()
    assert (mount.path / "new.md").read_bytes() == b""
    assert engine.texts()["/new.md"] == ""


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["at an offset", "append"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 4096])
def test_a_stream_whose_buffer_splits_characters_is_saved_whole(
    engine: FakeEngine, mount: Mounted, size: int, flags: int
) -> None:
    text = "é€😀a" * (10 if size < 10 else 3000)
    data = text.encode()
    descriptor = os.open(mount.path / "new.md", os.O_WRONLY | os.O_CREAT | flags)
    for at in range(0, len(data), size):
        assert os.write(descriptor, data[at : at + size]) == len(data[at : at + size])
    os.close(descriptor)
    assert engine.texts()["/new.md"] == text
    assert (mount.path / "new.md").read_text() == text


def test_two_streams_of_appends_do_not_tear_each_others_characters(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "n.md"
    one, two = os.open(path, APPEND), os.open(path, APPEND)
    for first, second in zip("é€é", "😀éü", strict=True):
        ours, theirs = first.encode(), second.encode()
        os.write(one, ours[:1])
        os.write(two, theirs[:1])
        os.write(one, ours[1:])
        os.write(two, theirs[1:])
    for descriptor in (one, two):
        os.close(descriptor)
    assert engine.texts()["/n.md"] == "one\né😀€ééü"
    assert path.read_text() == engine.texts()["/n.md"]
    assert kept(engine) == []


@pytest.mark.parametrize("flags", [APPEND, os.O_RDWR], ids=["append", "at an offset"])
def test_half_a_character_of_one_writer_is_told_to_that_one(engine: FakeEngine, mount: Mounted, flags: int) -> None:
    path = mount.path / "n.md"
    one = os.open(path, flags)
    os.lseek(one, 0, os.SEEK_END)
    os.write(one, b"caf\xc3")
    append(path, b"two\n")
    assert engine.texts()["/n.md"] == "one\ncaftwo\n"
    fails_with(errno.EILSEQ, lambda: os.close(one))
    mount.settle()
    mount.told()
    assert path.read_text() == engine.texts()["/n.md"] == "one\ncaftwo\n"
    ((name, text),) = kept(engine)
    assert name == "/n.md"
    assert b"caf" in text
    assert b"\xc3" in text
    assert b"two\n" in text
    append(path, b"three\n")
    assert engine.texts()["/n.md"] == "one\ncaftwo\nthree\n"


def test_a_text_that_turns_out_to_be_none_is_kept_aside_as_a_whole(engine: FakeEngine, mount: Mounted) -> None:
    mount.run(r"printf 'long text caf\xc3' > n.md")  # bash does not look at what close says
    mount.settle()
    mount.told()
    assert kept(engine) == [("/n.md", b"long text caf\xc3")]
    assert "not UTF-8 at byte 13" in engine.kept.list()[0].reason
    assert (mount.path / "n.md").read_text() == engine.texts()["/n.md"] == "one\n"
    append(mount.path / "n.md", b"two\n")
    assert engine.texts()["/n.md"] == "one\ntwo\n"
    assert mount.filesystem.flush(10) == []


def test_a_new_file_that_turns_out_to_be_no_text_is_kept_aside_and_stays_empty(
    engine: FakeEngine, mount: Mounted
) -> None:
    descriptor = os.open(mount.path / "new.md", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"caf\xc3")
    fails_with(errno.EILSEQ, lambda: os.close(descriptor))
    mount.settle()
    mount.told()
    assert kept(engine) == [("/new.md", b"caf\xc3")]
    assert (mount.path / "new.md").read_bytes() == b""
    assert engine.texts()["/new.md"] == ""


def test_a_readers_fsync_does_not_fail_for_what_others_wrote(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "n.md"
    reader, writer = os.open(path, os.O_RDONLY), os.open(path, APPEND)
    fails_with(errno.EILSEQ, lambda: os.write(writer, b"\xff"))
    os.fsync(reader)
    os.write(writer, b"caf\xc3")
    os.fsync(reader)
    engine.refusal = Refused(errno.EDQUOT, "the store is full")
    os.write(writer, b"\xa9")
    os.fsync(reader)
    fails_with(errno.EDQUOT, lambda: os.fsync(writer))
    os.fsync(reader)
    os.close(reader)
    engine.refusal = None
    os.close(writer)
    assert engine.texts()["/n.md"] == "one\ncaf\u00e9"


def test_fsync_in_the_middle_of_a_character_says_so_and_the_rest_may_still_come(
    engine: FakeEngine, mount: Mounted
) -> None:
    for flags in (APPEND, os.O_RDWR):
        descriptor = os.open(mount.path / "n.md", flags)
        os.lseek(descriptor, 0, os.SEEK_END)
        os.write(descriptor, b"\xc3")
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.EILSEQ))):
            os.fsync(descriptor)
        os.write(descriptor, b"\xa9")
        os.fsync(descriptor)
        os.close(descriptor)
    assert engine.texts()["/n.md"] == "one\néé"
    assert kept(engine) == []


def test_a_character_broken_in_the_middle_is_told_to_the_one_that_broke_it(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "café.md"
    one = os.open(path, os.O_RDWR)
    os.pwrite(one, b"x", 4)  # the second byte of é
    append(path, b"two\n")
    assert engine.texts()["/café.md"] == "cafx und tee\ntwo\n"
    fails_with(errno.EILSEQ, lambda: os.close(one))
    mount.settle()
    mount.told()
    assert kept(engine) == [("/café.md", b"caf\xc3x und tee\ntwo\n")]
    assert path.read_text() == engine.texts()["/café.md"] == "cafx und tee\ntwo\n"


def test_a_character_written_from_behind_is_a_text_in_the_end(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "n.md", os.O_RDWR | os.O_TRUNC)
    os.pwrite(descriptor, b"\xa9!", 1)
    os.pwrite(descriptor, b"\xc3", 0)
    os.close(descriptor)
    assert engine.texts()["/n.md"] == "é!"


def test_a_refused_overwrite_changes_nothing(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "n.md"
    with path.open("r+b", buffering=0) as file:
        fails_with(errno.EILSEQ, lambda: file.write(b"x\xffy"))
        assert path.read_bytes() == b"one\n"
        file.write(b"ONE")
    assert path.read_text() == engine.texts()["/n.md"] == "ONE\n"


def test_too_much_is_refused_and_others_go_on(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "n.md"
    one = os.open(path, os.O_WRONLY)
    fails_with(errno.EFBIG, lambda: os.pwrite(one, b"x", 102_400))
    append(path, b"two\n")
    os.pwrite(one, b"three\n", 8)
    os.close(one)
    assert engine.texts()["/n.md"] == "one\ntwo\nthree\n"


def test_a_refused_truncate_changes_nothing(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "n.md"
    with path.open("r+b", buffering=0) as file:
        fails_with(errno.EFBIG, lambda: os.ftruncate(file.fileno(), 102_401))
        fails_with(errno.EFBIG, lambda: os.truncate(path, 102_401))
        file.write(b"ONE")
        os.fsync(file.fileno())
    assert path.read_text() == engine.texts()["/n.md"] == "ONE\n"


def test_who_cuts_a_character_is_told_and_not_who_has_the_file_open(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "café.md"
    other = os.open(path, APPEND)
    fails_with(errno.EILSEQ, lambda: os.truncate(path, 4))
    one = os.open(path, os.O_WRONLY)
    os.ftruncate(one, 4)
    fails_with(errno.EILSEQ, lambda: os.close(one))
    os.write(other, b"two\n")
    os.close(other)
    assert engine.texts()["/café.md"].endswith("two\n")
    assert kept(engine) == [("/café.md", b"caf\xc3")]


def test_a_mapped_write_of_no_text_is_told_by_msync_and_kept_aside(engine: FakeEngine, mount: Mounted) -> None:
    # In a process of its own: a fault in a mapped page would wait for this one's interpreter.
    said = mount.run(f"{sys.executable} -c '{MAPS}'", check=False)
    assert os.strerror(errno.EILSEQ) in said.stderr
    mount.settle()
    mount.told()
    assert kept(engine) == [("/n.md", b"\xffne\n")]
    assert (mount.path / "n.md").read_text() == engine.texts()["/n.md"] == "one\n"


def test_a_refused_text_and_what_is_appended_to_it_are_kept_once(engine: FakeEngine, mount: Mounted) -> None:
    engine.refusal = Refused(errno.EDQUOT, "the store is full")
    for line in ("two", "three", "four"):
        mount.run(f"echo {line} >> n.md", check=False)
    mount.settle()
    assert kept(engine) == [("/n.md", b"one\ntwo\nthree\nfour\n")]
    assert (mount.path / "n.md").read_text() == "one\ntwo\nthree\nfour\n"


def test_a_refused_text_whose_file_is_removed_is_kept_no_longer(engine: FakeEngine, mount: Mounted) -> None:
    engine.refusal = Refused(errno.EDQUOT, "the store is full")
    mount.run("echo new > new.md; echo more >> n.md", check=False)
    mount.settle()
    assert len(kept(engine)) == 2
    engine.refusal = None
    mount.run("rm new.md n.md")
    assert kept(engine) == []


def test_a_scratch_file_that_is_no_text_is_kept_when_the_mount_ends(engine: FakeEngine, mount: Mounted) -> None:
    (mount.path / "tmpabcd1234").write_bytes(b"\x89PNG")
    (mount.path / ".notes.md.swp").write_bytes(b"\x89vim")
    mount.settle()
    assert mount.filesystem.flush(10, open_files=True) == ["/tmpabcd1234"]
    assert kept(engine) == [("/tmpabcd1234", b"\x89PNG")]


@pytest.mark.parametrize("flags", [APPEND, os.O_RDWR], ids=["append", "at an offset"])
def test_what_is_open_and_no_text_is_kept_when_the_mount_ends(engine: FakeEngine, mount: Mounted, flags: int) -> None:
    descriptor = os.open(mount.path / "n.md", flags)
    os.lseek(descriptor, 0, os.SEEK_END)
    os.write(descriptor, b"caf\xc3")
    mount.filesystem.flush(10, open_files=True)
    assert kept(engine) == [("/n.md", b"one\ncaf\xc3")]
    os.close(descriptor)


def test_a_text_that_no_disk_takes_stays_in_the_mount_and_the_status_says_so(
    engine: FakeEngine, mount: Mounted, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("in the way")
    mount.run(r"printf 'caf\xc3' > n.md")
    mount.settle()
    assert (mount.path / "n.md").read_bytes() == b"caf\xc3"
    (refused,) = mount.filesystem.status()["refused"]
    assert "in memory alone" in refused["reason"]
    assert mount.filesystem.flush(10) == ["/n.md"]
