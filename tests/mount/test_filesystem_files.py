"""Files and directories of a mount behave as programs expect of any file system."""

import os
import queue
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.mount.fuse.filesystem import scratch_files
from app.mount.fuse.filesystem.naming import is_temporary, may_last
from app.mount.fuse.filesystem.nodes import Directory, Tree
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import SECONDS, Mounted, mounted, needs_fuse

pytestmark = needs_fuse

BEFORE = "one\ntwo\n"


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/notes.md", BEFORE)
    engine.other_writes("/d/inside.md", "two\n")
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_two_appending_descriptors_interleave(engine: FakeEngine, mount: Mounted) -> None:
    first, second = (os.open(mount.path / "notes.md", os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for number in range(10):
        os.write((first, second)[number % 2], b"%d\n" % number)
    os.close(first)
    os.close(second)
    mount.settle()
    assert engine.texts()["/notes.md"] == BEFORE + "".join(f"{number}\n" for number in range(10))


def test_a_removed_file_lives_while_it_is_open(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "notes.md", os.O_RDWR)
    os.unlink(mount.path / "notes.md")
    assert os.read(descriptor, 100) == BEFORE.encode()
    os.write(descriptor, b"more")
    assert os.fstat(descriptor).st_nlink == 0
    os.fsync(descriptor)
    os.close(descriptor)
    mount.settle()
    assert engine.asked == [("remove", "/notes.md")]


def test_a_file_removed_by_others_can_be_read_to_its_end(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "notes.md", os.O_RDONLY)
    engine.other_removes("/notes.md")
    mount.told()
    assert os.read(descriptor, 100) == BEFORE.encode()
    os.close(descriptor)


def test_writing_in_the_middle_beyond_the_end_and_truncating(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, b"ONE", 0)
    os.pwrite(descriptor, b"far", 12)
    os.ftruncate(descriptor, 14)
    assert os.pread(descriptor, 100, 0) == b"ONE\ntwo\n\0\0\0\0fa"
    os.close(descriptor)
    assert engine.texts()["/notes.md"] == "ONE\ntwo\n\0\0\0\0fa"
    os.truncate(path, 3)
    assert engine.texts()["/notes.md"] == path.read_text() == "ONE"
    os.truncate(path, 5)
    assert engine.texts()["/notes.md"] == "ONE\0\0"
    assert len(engine.asked) == 3


def test_removing_a_directory_while_it_is_listed_misses_nothing(engine: FakeEngine, mount: Mounted) -> None:
    (mount.path / "many").mkdir()
    for number in range(1500):
        engine.other_writes(f"/many/{number:04}-{'x' * 60}.md", "x")
    mount.told()
    with os.scandir(mount.path / "many") as entries:
        seen = []
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert len(set(seen)) == len(seen) == 1500
    os.rmdir(mount.path / "many")


def test_listings_have_dots_and_numbers(mount: Mounted) -> None:
    listing = mount.run("ls -ai").stdout.split()
    shown = dict(zip(listing[1::2], map(int, listing[::2]), strict=True))
    assert set(shown) == {".", "..", "d", "notes.md"}
    assert shown["notes.md"] == (mount.path / "notes.md").stat().st_ino


def test_empty_directories_live_here_and_move(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("mkdir -p a/b/c && mv a/b a/e && rmdir a/e/c && mv d x && rm x/inside.md && test -d x && rmdir x")
    assert names(mount.path) == ["a", "notes.md"]
    assert names(mount.path / "a") == ["e"]
    assert [operation for operation, *_ in engine.asked] == ["rename_tree", "remove"]


def test_a_directory_moves_over_an_empty_one_with_unsaved_files(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "d" / "open.md", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    (mount.path / "target").mkdir()
    os.rename(mount.path / "d", mount.path / "target")
    os.close(descriptor)
    mount.settle()
    assert engine.texts() == {"/notes.md": BEFORE, "/target/inside.md": "two\n", "/target/open.md": "x"}


def test_mode_owner_and_times_are_kept(mount: Mounted) -> None:
    path = mount.path / "notes.md"
    path.chmod(0o640)
    os.chown(path, 12, 34)
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert (found.st_uid, found.st_gid, found.st_atime_ns, found.st_mtime_ns) == (12, 34, 1_000_000_001, 2_000_000_002)
    with path.open("a") as file:
        file.write("three\n")
    assert path.stat().st_mtime_ns > 2_000_000_002
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_time_of_a_write_does_not_change_when_it_is_saved(mount: Mounted) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"x")
    written = os.fstat(descriptor).st_mtime_ns
    os.close(descriptor)
    mount.told()
    assert path.stat().st_mtime_ns == written  # else editors warn that the file changed under them


def test_the_size_of_the_store(mount: Mounted) -> None:
    before = os.statvfs(mount.path)
    assert before.f_namemax == 255
    assert before.f_blocks * before.f_frsize == 100 << 20
    (mount.path / "new.md").write_text("x" * 50_000)
    after = os.statvfs(mount.path)
    assert before.f_ffree - after.f_ffree == 1
    assert 0 < (before.f_bfree - after.f_bfree) * after.f_frsize < 60_000


def test_a_memory_with_a_name_too_long_is_not_shown(engine: FakeEngine, mount: Mounted) -> None:
    engine.other_writes("/" + "x" * 256, "x")
    engine.other_writes("/long/" + "é" * 128, "x")
    mount.told()
    assert names(mount.path) == ["d", "notes.md"]


# Scratch files and backups.


def test_a_scratch_file_that_stays_is_saved(
    engine: FakeEngine, mount: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_files, "PARKED_SECONDS", 0.0)
    saved = _next_asked(engine)
    mount.run("echo text > report.tmp")
    assert saved() == ("save", "/report.tmp")
    assert engine.texts()["/report.tmp"] == "text\n"
    mount.run("echo more >> report.tmp")
    assert engine.texts()["/report.tmp"] == "text\nmore\n"


def test_a_backup_that_stays_is_a_rename(engine: FakeEngine, mount: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_files, "PARKED_SECONDS", 0.0)
    saved, before = _next_asked(engine), engine.get("/notes.md")
    mount.run("mv notes.md notes.md~")
    assert saved() == ("rename", "/notes.md", "/notes.md~")
    after = engine.get("/notes.md~")
    assert before is not None
    assert after is not None
    assert after.memory_id == before.memory_id


def _next_asked(engine: FakeEngine) -> Callable[[], tuple[str, ...]]:
    """A function that waits for the next thing that the engine is asked to do."""
    asked: queue.Queue[tuple[str, ...]] = queue.Queue()
    original = engine._ask

    def ask(*what: str) -> None:
        original(*what)
        asked.put(what)

    engine._ask = ask  # type: ignore[method-assign]
    return lambda: asked.get(timeout=SECONDS)


def test_the_barrier_saves_scratch_files_that_may_last(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("echo text > report.tmp; echo x > .notes.md.swp; mv notes.md notes.md~; printf '\\377' > bad.tmp")
    mount.settle()
    assert engine.asked == []
    assert mount.filesystem.flush(SECONDS) == ["/bad.tmp"]
    assert engine.texts() == {"/d/inside.md": "two\n", "/notes.md~": BEFORE, "/report.tmp": "text\n"}
    assert mount.filesystem.status()["local"] == ["/.notes.md.swp", "/bad.tmp"]


def test_a_backup_and_its_original_go_separate_ways(engine: FakeEngine, mount: Mounted) -> None:
    memory = engine.get("/notes.md")
    mount.run("mv notes.md notes.md~; test ! -e notes.md; echo new > notes.md; mv notes.md~ old.md")
    mount.settle()
    assert engine.asked == [("save", "/notes.md"), ("save", "/old.md")]
    after = engine.get("/notes.md")
    assert memory is not None
    assert after is not None
    assert after.memory_id == memory.memory_id
    assert engine.texts() == {"/d/inside.md": "two\n", "/notes.md": "new\n", "/old.md": BEFORE}


def test_a_backup_moved_to_another_name_is_the_memory(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("mv notes.md notes.md~; mv notes.md~ d/elsewhere.md")
    assert engine.asked == [("rename", "/notes.md", "/d/elsewhere.md")]


def test_a_removed_backup_removes_the_memory(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("mv notes.md notes.md~; rm notes.md~")
    assert engine.asked == [("remove", "/notes.md")]


def test_a_backup_of_what_somebody_else_changes_is_a_copy(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("mv notes.md notes.md~")
    engine.other_writes("/notes.md", "theirs\n")
    mount.told()
    assert (mount.path / "notes.md").read_text() == "theirs\n"
    mount.run("rm notes.md~")
    assert engine.asked == []


def test_a_directory_is_made_where_a_backup_was_taken_from(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("mv notes.md notes.md~; mkdir notes.md; echo x > notes.md/x.md")
    mount.settle()
    assert engine.texts() == {"/d/inside.md": "two\n", "/notes.md/x.md": "x\n", "/notes.md~": BEFORE}


def test_a_directory_with_a_backup_moves(engine: FakeEngine, mount: Mounted) -> None:
    mount.run("mv d/inside.md d/inside.md~; mv d e; mv e/inside.md~ e/inside.md")
    assert engine.asked == [("rename_tree", "/d/", "/e/")]
    assert engine.texts() == {"/e/inside.md": "two\n", "/notes.md": BEFORE}
    assert (mount.path / "e" / "inside.md").read_text() == "two\n"


def test_renaming_an_open_file_saves_it_under_its_new_name(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "notes.md", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"three\n")
    os.rename(mount.path / "notes.md", mount.path / "moved.md")
    os.write(descriptor, b"four\n")
    os.close(descriptor)
    mount.settle()
    assert engine.texts() == {"/d/inside.md": "two\n", "/moved.md": BEFORE + "three\nfour\n"}


@pytest.mark.parametrize(
    ("name", "flags", "mode", "expected"),
    [
        (".notes.md.X7b2kQ", os.O_EXCL, 0o600, True),  # rsync
        ("notes.md.oX7b2kQ", os.O_EXCL, 0o644, True),  # patch
        (".new.md.NDBOPV", os.O_EXCL, 0o600, True),
        (".notes.md.abcdef", os.O_EXCL, 0o600, True),
        ("notes.md.oabcdef", os.O_EXCL, 0o644, True),
        ("XXlGENL6", os.O_EXCL, 0o600, True),  # perl -i
        ("README", os.O_EXCL, 0o600, False),
        ("sedz2NonV", 0, 0o666, True),
        ("notes.md.backup", os.O_EXCL, 0o644, False),
        ("chapter.2", os.O_EXCL, 0o600, False),
        ("meeting20261120", os.O_EXCL, 0o644, False),
        ("XXlGENL6", 0, 0o600, False),
        ("20261120", os.O_EXCL, 0o600, False),
        ("README.md", os.O_EXCL, 0o600, False),
    ],
)
def test_temporary_files_are_known_by_how_they_are_made(name: str, flags: int, mode: int, expected: bool) -> None:
    tree = Tree(uid=0, gid=0, read_only=False)
    tree.attach(tree.root, b"notes.md", tree.new_file())
    assert isinstance(tree.root, Directory)
    assert is_temporary(tree.root, name.encode(), flags, mode) is expected


def test_editors_own_files_never_last() -> None:
    assert not any(may_last(name) for name in (b".f.swp", b"4913", b".#f", b"#f#", b".goutputstream-X", b".nfs01"))
    assert all(may_last(name) for name in (b"f~", b"x.tmp", b"tmpabcdefgh", b"sedAbCdEf", b".notes.md.X7b2kQ"))
