"""A write that is refused fails with the errno of docs/mount.md, at the earliest call, and leaves nothing behind."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.mount.sync.errors import Offline, Refused
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse

pytestmark = needs_fuse

LIMIT = 102_400


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/notes.md", "one\n")
    engine.other_writes("/d/inside.md", "two\n")
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def fails_with(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        call()


def make(path: str | bytes | Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def test_too_large_is_refused_by_the_write_that_crosses_and_what_fitted_stays(
    engine: FakeEngine, mount: Mounted
) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    assert os.write(descriptor, b"x" * LIMIT) == LIMIT
    fails_with(errno.EFBIG, lambda: os.write(descriptor, b"y"))
    os.fsync(descriptor)
    os.close(descriptor)
    assert path.read_text() == engine.texts()["/notes.md"] == "x" * LIMIT


def test_a_refusal_of_the_only_write_leaves_nothing_to_save(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "notes.md", os.O_WRONLY | os.O_APPEND)
    fails_with(errno.EILSEQ, lambda: os.write(descriptor, b"\xff"))
    os.fsync(descriptor)
    os.close(descriptor)
    mount.settle()
    assert (mount.path / "notes.md").read_text() == "one\n"
    assert engine.asked == []
    assert engine.kept.list() == []


def test_exactly_the_limit_is_taken(engine: FakeEngine, mount: Mounted) -> None:
    (mount.path / "big.md").write_bytes(b"x" * LIMIT)
    assert len(engine.texts()["/big.md"]) == LIMIT


def test_a_copy_whose_only_write_is_refused_leaves_the_file_that_open_made(engine: FakeEngine, mount: Mounted) -> None:
    result = mount.run("head -c 102401 /dev/zero | dd of=big.md bs=110000 iflag=fullblock", check=False)
    assert result.returncode == 1
    assert "File too large" in result.stderr
    mount.settle()
    assert (mount.path / "big.md").read_bytes() == b""
    assert engine.texts()["/big.md"] == ""


def test_truncating_over_the_limit(mount: Mounted) -> None:
    fails_with(errno.EFBIG, lambda: os.truncate(mount.path / "notes.md", LIMIT + 1))


def test_a_cut_character_goes_on_in_the_next_write(engine: FakeEngine, mount: Mounted) -> None:
    text = "a\u00e9\u20ac\U0001f600z"
    descriptor = os.open(mount.path / "new.md", os.O_WRONLY | os.O_CREAT)
    for byte in text.encode():
        os.write(descriptor, bytes([byte]))
    os.close(descriptor)
    assert engine.texts()["/new.md"] == text


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_engine_refuses_reaches_close(engine: FakeEngine, mount: Mounted, number: int) -> None:
    engine.refusal = Refused(number, "no")
    descriptor = os.open(mount.path / "new.md", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"text")
    fails_with(number, lambda: os.close(descriptor))
    mount.settle()
    assert len(engine.asked) == 1


def test_a_refused_text_is_kept_on_disk_until_the_store_has_it(engine: FakeEngine, mount: Mounted) -> None:
    engine.refusal = Refused(errno.EDQUOT, "the store is full")
    mount.run("echo text > new.md", check=False)
    mount.settle()
    (kept,) = engine.kept.list()
    assert (kept.path, kept.reason, kept.errno) == ("/new.md", "the store is full", errno.EDQUOT)
    assert engine.kept.show(kept.id) == b"text\n"
    assert mount.filesystem.status()["refused"] == [{"path": "/new.md", "reason": "the store is full"}]
    assert mount.filesystem.flush(10) == ["/new.md"]
    engine.refusal = None
    assert mount.filesystem.flush(10) == []
    assert engine.texts()["/new.md"] == "text\n"
    assert engine.kept.list() == []


def test_no_server_and_no_journal_is_an_input_output_error(engine: FakeEngine, mount: Mounted) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise Offline

    engine.save = offline  # type: ignore[method-assign, assignment]
    descriptor = os.open(mount.path / "new.md", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"text")
    fails_with(errno.EIO, lambda: os.fsync(descriptor))
    os.write(descriptor, b"more")
    fails_with(errno.EIO, lambda: os.close(descriptor))


def test_a_fault_of_ours_is_an_input_output_error_and_the_mount_goes_on(engine: FakeEngine, mount: Mounted) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    engine.remove = broken  # type: ignore[method-assign]
    fails_with(errno.EIO, lambda: os.unlink(mount.path / "notes.md"))
    assert (mount.path / "notes.md").read_text() == "one\n"


@pytest.mark.parametrize("call", [make, os.mkdir, lambda path: os.rename(os.path.dirname(path) + b"/notes.md", path)])
@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"caf\xe9", errno.EILSEQ),
        (b"bell\x07", errno.EINVAL),
    ],
    ids=["long", "not UTF-8", "control character"],
)
def test_names_the_store_can_not_hold(mount: Mounted, call: Callable[[bytes], None], name: bytes, number: int) -> None:
    fails_with(number, lambda: call(os.fsencode(mount.path) + b"/" + name))
    assert sorted(os.listdir(mount.path)) == ["d", "notes.md"]


def test_paths_the_store_can_not_hold(mount: Mounted) -> None:
    deep = mount.path
    for _ in range(4):
        deep = deep / ("x" * 250)
        deep.mkdir()
    fails_with(errno.ENAMETOOLONG, lambda: make(deep / "a-name-that-is-too-much"))
    deep = mount.path.joinpath(*["y"] * 19)
    deep.mkdir(parents=True)
    (deep / "z").mkdir()
    fails_with(errno.ENAMETOOLONG, lambda: (deep / "z" / "z").mkdir())


def test_links_and_devices_are_not_permitted(mount: Mounted) -> None:
    path = mount.path / "new"
    fails_with(errno.EPERM, lambda: os.symlink("notes.md", path))
    fails_with(errno.EPERM, lambda: os.link(mount.path / "notes.md", path))
    fails_with(errno.EPERM, lambda: os.mkfifo(path))
    fails_with(errno.EPERM, lambda: os.mknod(path, 0o020644, os.makedev(1, 3)))


def test_directories_and_files_are_told_apart(mount: Mounted) -> None:
    notes, directory = mount.path / "notes.md", mount.path / "d"
    fails_with(errno.ENOTEMPTY, directory.rmdir)
    fails_with(errno.ENOTDIR, notes.rmdir)
    fails_with(errno.EISDIR, directory.unlink)
    fails_with(errno.EISDIR, lambda: notes.rename(directory))
    fails_with(errno.ENOTDIR, lambda: directory.rename(notes))
    fails_with(errno.EEXIST, directory.mkdir)
    fails_with(errno.EISDIR, lambda: os.open(mount.path, os.O_WRONLY))


def test_extended_attributes_name_the_version(engine: FakeEngine, mount: Mounted) -> None:
    path, entry = mount.path / "notes.md", engine.get("/notes.md")
    assert entry is not None
    assert os.getxattr(path, "user.memstore.id").decode() == entry.memory_id
    assert os.getxattr(path, "user.memstore.version").decode() == entry.version_id
    assert os.getxattr(path, "user.memstore.sha256").decode() == entry.sha256
    assert sorted(os.listxattr(path)) == ["user.memstore.id", "user.memstore.sha256", "user.memstore.version"]
    assert os.listxattr(mount.path / "d") == []
    fails_with(errno.ENODATA, lambda: os.getxattr(path, "user.memstore.nothing"))
    fails_with(errno.ENOTSUP, lambda: os.getxattr(path, "user.other"))
    fails_with(errno.ENOTSUP, lambda: os.setxattr(path, "user.memstore.id", b"mine"))
    fails_with(errno.ENOTSUP, lambda: os.removexattr(path, "user.memstore.id"))


def test_an_archived_store_takes_removals_only(engine: FakeEngine, mount: Mounted) -> None:
    engine.archived = True
    engine.on_feed("")
    mount.told()
    fails_with(errno.EROFS, lambda: make(mount.path / "new.md"))
    fails_with(errno.EROFS, lambda: os.open(mount.path / "notes.md", os.O_WRONLY))
    os.unlink(mount.path / "notes.md")
    assert list(engine.texts()) == ["/d/inside.md"]


READ_ONLY_CALLS: dict[str, Callable[[Path], object]] = {
    "create": lambda root: make(root / "new.md"),
    "write": lambda root: write(root / "notes.md"),
    "truncate": lambda root: os.truncate(root / "notes.md", 0),
    "mkdir": lambda root: os.mkdir(root / "new"),
    "unlink": lambda root: os.unlink(root / "notes.md"),
    "rmdir": lambda root: os.rmdir(root / "d"),
    "rename": lambda root: os.rename(root / "notes.md", root / "new.md"),
    "chmod": lambda root: os.chmod(root / "notes.md", 0o600),
    "utime": lambda root: os.utime(root / "notes.md"),
    "symlink": lambda root: os.symlink("notes.md", root / "new"),
    "setxattr": lambda root: os.setxattr(root / "notes.md", "user.x", b""),
}


@pytest.fixture(params=[True, False], ids=["as mounted", "remounted for writing by root"])
def read_only(request: pytest.FixtureRequest, engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "ro", read_only=True) as mount:
        if not request.param:
            mount.run(f"mount -i -o remount,rw '{mount.path}'")  # -i: not by FUSE's own helper, if it is installed
        yield mount


@pytest.mark.parametrize("call", READ_ONLY_CALLS)
def test_a_read_only_mount_refuses_every_change(read_only: Mounted, call: str) -> None:
    fails_with(errno.EROFS, lambda: READ_ONLY_CALLS[call](read_only.path))


def test_reading_a_read_only_mount_again_needs_no_message(read_only: Mounted) -> None:
    def look() -> None:
        for path in (read_only.path / "notes.md", read_only.path / "d" / "inside.md"):
            descriptor = os.open(path, os.O_RDONLY)
            assert len(os.read(descriptor, 100)) == os.fstat(descriptor).st_size == 4
            os.close(descriptor)
        assert os.listdir(read_only.path / "d") == ["inside.md"]

    for _ in range(3):
        look()
        before = list(read_only.session.messages)
    look()
    assert read_only.session.messages == before


def test_a_path_that_is_no_name_is_left_out_of_its_listing(engine: FakeEngine, mount: Mounted) -> None:
    for path in ("/../out.md", "/d/..", "/d/.", "/d//x.md", "/d/a\0b", "/d/\ud800.md", "/d/" + "ä" * 128, "d.md", "/"):
        engine.other_writes(path, "bad\n")
    mount.told()
    assert sorted(os.listdir(mount.path)) == ["d", "notes.md"]
    assert os.listdir(mount.path / "d") == ["inside.md"]
    assert mount.run("ls -R", check=False).returncode == 0
