"""What others do to the store shows in the mount, and a slow server holds up nobody but who waits for it."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.mount.sync.errors import Refused
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import SECONDS, Mounted, mounted, needs_fuse

pytestmark = needs_fuse


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


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_change_by_somebody_else_is_seen_by_the_next_open(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    for number in range(100):
        text = f"{number}\n" * (number + 1)
        engine.other_writes("/notes.md", text)
        mount.told()
        assert path.read_text() == text
        assert path.stat().st_size == len(text)


def test_a_new_memory_appears_where_it_was_missed_before(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "new" / "deep" / "x.md"
    assert not path.exists()
    assert not path.parent.exists()
    assert names(mount.path) == ["d", "notes.md"]
    engine.other_writes("/new/deep/x.md", "hello")
    mount.told()
    assert names(mount.path) == ["d", "new", "notes.md"]
    assert path.read_text() == "hello"


def test_a_new_memory_appears_in_a_listing_that_the_kernel_had(engine: FakeEngine, mount: Mounted) -> None:
    for _ in range(3):
        assert names(mount.path / "d") == ["inside.md"]
    engine.other_writes("/d/never-asked-for.md", "x")
    mount.told()
    assert names(mount.path / "d") == ["inside.md", "never-asked-for.md"]


def test_a_removed_memory_is_gone_with_the_directories_it_alone_was_in(engine: FakeEngine, mount: Mounted) -> None:
    assert names(mount.path / "d") == ["inside.md"]
    engine.other_removes("/d/inside.md")
    mount.told()
    assert names(mount.path) == ["notes.md"]


def test_a_directory_made_here_stays_when_others_empty_it(engine: FakeEngine, mount: Mounted) -> None:
    (mount.path / "mine").mkdir()
    engine.other_writes("/mine/theirs.md", "x")
    mount.told()
    assert names(mount.path / "mine") == ["theirs.md"]
    engine.other_removes("/mine/theirs.md")
    mount.told()
    assert names(mount.path / "mine") == []


def test_a_memory_renamed_by_somebody_else_keeps_its_node(engine: FakeEngine, mount: Mounted) -> None:
    number = (mount.path / "notes.md").stat().st_ino
    engine.other_renames("/notes.md", "/d/moved.md")
    mount.told()
    assert names(mount.path) == ["d"]
    assert (mount.path / "d" / "moved.md").stat().st_ino == number


def test_a_file_that_becomes_a_directory_and_back(engine: FakeEngine, mount: Mounted) -> None:
    engine.other_removes("/notes.md")
    engine.other_writes("/notes.md/now/below.md", "x")
    mount.told()
    assert (mount.path / "notes.md" / "now" / "below.md").read_text() == "x"
    engine.other_removes("/notes.md/now/below.md")
    engine.other_writes("/notes.md", "again")
    mount.told()
    assert (mount.path / "notes.md").read_text() == "again"


def test_who_has_a_file_open_reads_the_old_text_to_its_end(engine: FakeEngine, mount: Mounted) -> None:
    old, new = "a" * 50_000, "b" * 90_000
    engine.other_writes("/notes.md", old)
    mount.told()
    with (mount.path / "notes.md").open() as file:
        assert file.read(10) == "a" * 10
        engine.other_writes("/notes.md", new)
        mount.told()
        assert file.read() == "a" * 49_990
    assert (mount.path / "notes.md").read_text() == new


def test_no_read_is_half_old_and_half_new(engine: FakeEngine, mount: Mounted) -> None:
    path, torn = mount.path / "notes.md", []
    texts = {letter * 60_000 for letter in "abcdef"}
    engine.other_writes("/notes.md", "a" * 60_000)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            text = path.read_text()
            if text not in texts and text != "one\n":
                torn.append(text[:1] + text[-1:])

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for _ in range(60):
            for letter in "abcdef":
                engine.other_writes("/notes.md", letter * 60_000)
            mount.told()
        stop.set()
        reading.result(SECONDS)
    assert torn == []


def test_own_writes_keep_the_node(mount: Mounted) -> None:
    path = mount.path / "notes.md"
    number = path.stat().st_ino
    path.write_text("mine")
    assert path.stat().st_ino == number


def test_an_edit_over_somebody_elses_is_merged_and_shown(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"mine\n")
    engine.other_writes("/notes.md", "one\ntheirs\n")
    mount.told()
    assert path.read_text() == "one\nmine\n"  # who writes here is seen here
    os.close(descriptor)
    mount.told()
    assert engine.texts()["/notes.md"] == "one\ntheirs\nmine\n"
    assert path.read_text() == "one\ntheirs\nmine\n"


def test_a_log_that_stays_open_goes_on_after_a_merge(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    expected = "one\n"
    for number in range(5):
        engine.other_writes("/notes.md", expected := expected + f"theirs {number}\n")
        mount.told()
        os.write(descriptor, line := f"mine {number}\n".encode())
        os.fsync(descriptor)
        expected += line.decode()
        assert engine.texts()["/notes.md"] == expected
        mount.told()
        assert path.read_text() == expected
    os.close(descriptor)
    mount.settle()
    assert engine.texts()["/notes.md"] == expected


def test_what_can_not_be_merged_is_kept_beside(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, b"mine\n")
    engine.other_writes("/notes.md", "theirs\n")
    os.close(descriptor)
    mount.told()
    assert path.read_text() == "theirs\n"
    assert (mount.path / "notes.conflict-fake.md").read_text() == "mine\n"


def test_a_write_that_comes_late_to_a_file_removed_elsewhere_is_saved(engine: FakeEngine, mount: Mounted) -> None:
    descriptor = os.open(mount.path / "notes.md", os.O_WRONLY | os.O_APPEND)
    engine.other_removes("/notes.md")
    mount.told()
    assert not (mount.path / "notes.md").exists()
    os.write(descriptor, b"more\n")
    os.close(descriptor)
    mount.told()
    assert engine.texts()["/notes.md"] == "one\nmore\n"
    assert (mount.path / "notes.md").read_text() == "one\nmore\n"


def test_a_conflict_that_is_refused_shows_the_servers_text(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, b"mine\n")
    engine.other_writes("/notes.md", "theirs\n")
    engine.refusal = Refused(errno.ESTALE, "kept beside")
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        os.fsync(descriptor)
    os.close(descriptor)
    mount.told()
    assert path.read_text() == "theirs\n"


def during(engine: FakeEngine, call: Callable[[], object], look: Callable[[], object]) -> None:
    """Do `look` to its end while `call` waits for the server."""
    engine.may_go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        try:
            waiting = pool.submit(call)
            look()
            assert not waiting.done()
        finally:
            engine.may_go_on.set()
        waiting.result(SECONDS)


def test_a_slow_server_holds_up_nobody_else(engine: FakeEngine, mount: Mounted) -> None:
    def save() -> None:
        (mount.path / "new.md").write_text("x")

    def look() -> None:
        assert (mount.path / "notes.md").read_text() == "one\n"
        assert not (mount.path / "missing").exists()
        assert names(mount.path / "d") == ["inside.md"]

    during(engine, save, look)
    during(engine, lambda: (mount.path / "d" / "inside.md").unlink(), lambda: (mount.path / "notes.md").stat())
    assert list(engine.texts()) == ["/new.md", "/notes.md"]


def test_text_that_is_not_at_hand_is_fetched(engine: FakeEngine, mount: Mounted) -> None:
    engine.forgets_content = True
    during(engine, lambda: (mount.path / "notes.md").read_text(), lambda: (mount.path / "d" / "inside.md").stat())
    assert engine.fetched == ["/notes.md"]
    with (mount.path / "d" / "inside.md").open("a") as file:
        file.write("three\n")
    assert engine.texts()["/d/inside.md"] == "two\nthree\n"


def test_a_change_that_comes_during_a_save_is_not_lost(engine: FakeEngine, mount: Mounted) -> None:
    def append() -> None:
        with (mount.path / "notes.md").open("a") as file:
            file.write("mine\n")

    during(engine, append, lambda: engine.other_writes("/notes.md", "one\ntheirs\n"))
    mount.told()
    assert engine.texts()["/notes.md"] == (mount.path / "notes.md").read_text() == "one\ntheirs\nmine\n"


def test_a_change_that_comes_during_a_rename_is_not_lost(engine: FakeEngine, mount: Mounted) -> None:
    def rename() -> None:
        (mount.path / "notes.md").rename(mount.path / "moved.md")

    during(engine, rename, lambda: engine.other_writes("/notes.md", "theirs\n"))
    mount.told()
    assert names(mount.path) == ["d", "moved.md"]
    assert (mount.path / "moved.md").read_text() == engine.texts()["/moved.md"]


def test_more_written_during_a_save_is_saved_too(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    os.write(first, b"two\n")
    # Not fsync: the kernel lets nobody write to a file meanwhile.
    during(engine, lambda: os.close(first), lambda: os.write(second, b"three\n"))
    os.close(second)
    mount.settle()
    assert engine.texts()["/notes.md"] == "one\ntwo\nthree\n"


def test_without_the_feed_names_are_asked_for_again(engine: FakeEngine, mount: Mounted) -> None:
    path = mount.path / "notes.md"
    path.stat()
    engine.feed = "lost"
    engine.on_feed("")
    mount.told()
    lookups = mount.session.messages[1]
    path.stat()
    assert mount.session.messages[1] == lookups + 1
    assert mount.filesystem.coherence.feed == "lost"
    engine.feed = "live"
    engine.on_feed("")
    mount.told()
    path.stat()
    lookups = mount.session.messages[1]
    path.stat()
    assert mount.session.messages[1] == lookups


def test_many_changes_and_many_users_at_once(engine: FakeEngine, mount: Mounted) -> None:
    """Nothing hangs and at the end all agree."""
    stop = threading.Event()
    texts = [f"{number}\n" for number in range(8)]

    def use(which: int) -> int:
        done = 0
        while not stop.is_set():
            path = mount.path / "d" / f"{(done + which) % 8}.md"
            try:
                if done % 4 == 0:
                    path.write_text(texts[done % 8])
                elif done % 4 == 1:
                    path.rename(path.with_suffix(".moved"))
                elif done % 4 == 2:
                    path.unlink()
                else:
                    names(path.parent)
                    path.read_text()
            except OSError as failure:
                if failure.errno not in (errno.ENOENT, errno.ESTALE, errno.EEXIST):
                    raise
            done += 1
        return done

    with ThreadPoolExecutor(3) as pool:
        users = [pool.submit(use, which) for which in range(3)]
        for number in range(600):
            path = f"/d/{number % 8}.md"
            if number % 5 == 4 and engine.get(path):
                try:
                    engine.other_removes(path)
                except KeyError:
                    continue  # a user was faster
            else:
                engine.other_writes(path, texts[number % 8])
        stop.set()
        assert all(user.result(SECONDS) > 0 for user in users)
    mount.settle()
    mount.told()
    shown = {f"/d/{name}": (mount.path / "d" / name).read_text() for name in names(mount.path / "d")}
    assert shown == {path: text for path, text in engine.texts().items() if path.startswith("/d/")}
