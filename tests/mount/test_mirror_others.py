"""Changes by others reach the files of a mirror whole, and never over an edit."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.mount.mirror import applier, syscalls
from app.mount.mirror.tree import Busy
from tests.mount.mirror_support import FakeStore, Mirror, eventually

OLD = "one\ntwo\n"


@pytest.fixture
def store() -> FakeStore:
    return FakeStore({"/plan.md": OLD, "/deep/a.md": "a\n", "/deep/b.md": "b\n"})


@pytest.fixture
def mirror(store: FakeStore, tmp_path: Path) -> Iterator[Mirror]:
    with Mirror(store, tmp_path) as mirror:
        yield mirror


def test_a_change_appears_with_its_time_and_the_files_mode(store: FakeStore, mirror: Mirror) -> None:
    (mirror.path / "plan.md").chmod(0o640)
    entry = store.put("/plan.md", b"new")
    eventually(lambda: (mirror.path / "plan.md").read_text() == "new")
    status = (mirror.path / "plan.md").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (entry.mtime_ns, 0o640)
    assert mirror.settle() == []
    assert len(store.history) == 1


def test_new_files_appear_and_deleted_ones_go_with_their_directories(store: FakeStore, mirror: Mirror) -> None:
    store.put("/x/y/new.md", b"new")
    store.drop("/deep/a.md")
    store.drop("/deep/b.md")
    eventually(lambda: mirror.files() == store.files())
    eventually(lambda: not (mirror.path / "deep").exists())
    assert mirror.settle() == []
    assert mirror.engine.calls == []


def test_a_move_by_others_moves_the_very_file(store: FakeStore, mirror: Mirror) -> None:
    inode = (mirror.path / "plan.md").stat().st_ino
    store.move("/plan.md", "/deep/plan.md")
    eventually(lambda: mirror.files() == store.files())
    assert (mirror.path / "deep/plan.md").stat().st_ino == inode


def test_an_edit_of_a_file_that_others_moved_follows_the_memory(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/plan.md"].memory_id
    with open(mirror.path / "plan.md", "a") as file:
        file.write("three\n")
        file.flush()
        store.move("/plan.md", "/new.md")
        eventually((mirror.path / "new.md").exists)
    eventually(lambda: store.text("/new.md") == OLD + "three\n")
    assert store.entries["/new.md"].memory_id == memory_id
    assert "/plan.md" not in store.entries


def test_contents_that_are_not_at_hand_are_fetched(store: FakeStore, tmp_path: Path) -> None:
    with Mirror(store, tmp_path, name="far") as mirror:
        mirror.engine.far = True
        store.put("/plan.md", b"from far")
        eventually(lambda: mirror.files() == store.files())


def test_a_change_that_nobody_told_of_is_found_by_looking(store: FakeStore, mirror: Mirror) -> None:
    mirror.engine.connected = False
    store.put("/plan.md", b"silent")
    mirror.sh("echo x > wakes.md")
    eventually(lambda: (mirror.path / "plan.md").read_text() == "silent")


def test_a_file_open_for_writing_is_left_alone_and_both_texts_are_kept(store: FakeStore, mirror: Mirror) -> None:
    with open(mirror.path / "plan.md", "a") as file:
        file.write("mine\n")
        file.flush()
        store.put("/plan.md", (OLD + "theirs\n").encode())
        eventually(lambda: "/plan.md" in mirror.front._reconciler.notes.busy)
        assert (mirror.path / "plan.md").read_text() == OLD + "mine\n"
    eventually(lambda: (mirror.path / "plan.md").read_text() == OLD + "theirs\nmine\n")
    assert store.text("/plan.md") == OLD + "theirs\nmine\n"


def test_a_conflict_shows_the_servers_text_and_ours_beside(store: FakeStore, mirror: Mirror) -> None:
    mirror.engine.connected = False
    store.put("/plan.md", b"theirs")
    mirror.engine.connected = True
    mirror.sh("echo ours > plan.md")
    eventually(lambda: mirror.files().get("/plan.md") == "theirs")
    eventually(lambda: mirror.files().get("/plan.md.conflict-test") == "ours\n")


def test_a_delete_by_others_spares_an_edited_file(store: FakeStore, mirror: Mirror) -> None:
    with mirror.front._lock:
        (mirror.path / "plan.md").write_text("edited")
        store.drop("/plan.md")
    eventually(lambda: store.text("/plan.md") == "edited")
    assert (mirror.path / "plan.md").read_text() == "edited"


@pytest.mark.parametrize("step", ["replace", "remove"])
def test_an_edit_just_before_a_change_is_applied_is_kept(
    store: FakeStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(applier.Applier, step)
    edited: list[str] = []

    def edit_first(self: applier.Applier, *arguments: object) -> object:
        if not edited:
            edited.append("once")
            (mirror.path / "plan.md").write_text(OLD + "mine\n")
        return real(self, *arguments)

    monkeypatch.setattr(applier.Applier, step, edit_first)
    if step == "replace":
        store.put("/plan.md", (OLD + "theirs\n").encode())
    else:
        store.drop("/plan.md")
    expected = OLD + ("theirs\nmine\n" if step == "replace" else "mine\n")
    eventually(lambda: store.text("/plan.md") == expected)
    eventually(lambda: mirror.files()["/plan.md"] == expected)


def test_an_edit_by_others_beats_a_local_delete(store: FakeStore, mirror: Mirror) -> None:
    with mirror.front._lock:
        (mirror.path / "plan.md").unlink()
        store.put("/plan.md", b"edited")
    eventually(lambda: mirror.files().get("/plan.md") == "edited")
    assert mirror.settle() == []
    assert store.text("/plan.md") == "edited"


@pytest.mark.parametrize("exchange", ["exchange", "without RENAME_EXCHANGE"])
def test_readers_never_see_a_torn_file(
    store: FakeStore, mirror: Mirror, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exchange != "exchange":
        forbid_rename_flags(monkeypatch)
    texts = [chr(65 + number) * 50_000 for number in range(10)]
    store.put("/plan.md", texts[0].encode())
    eventually(lambda: (mirror.path / "plan.md").read_text() == texts[0])
    torn: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with open(mirror.path / "plan.md") as file:
                text = file.read(20_000) + file.read()
            if text not in texts:
                torn.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 41):
        store.put("/plan.md", texts[number % 10].encode())
        eventually(lambda number=number: (mirror.path / "plan.md").read_text() == texts[number % 10])  # type: ignore[misc]
    done.set()
    reader.join()
    assert torn == []


def forbid_rename_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a filesystem that does not know them."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(syscalls, "renameat2", refuse)


def test_writers_and_others_changes_at_once_lose_no_line_and_double_none(store: FakeStore, mirror: Mirror) -> None:
    lines: list[str] = []

    def append() -> None:
        for number in range(100):
            with open(mirror.path / "plan.md", "a") as file:
                file.write(f"local {number}\n")
            lines.append(f"local {number}")

    writer = threading.Thread(target=append)
    writer.start()
    for number in range(100):
        with store.lock:
            store.put("/plan.md", f"{store.text('/plan.md')}remote {number}\n".encode())
        lines.append(f"remote {number}")
    writer.join()
    assert mirror.settle() == []
    eventually(lambda: mirror.files() == store.files())
    assert set(store.files()) == {"/plan.md", "/deep/a.md", "/deep/b.md"}
    assert sorted(mirror.files()["/plan.md"].splitlines()) == sorted([*OLD.splitlines(), *lines])


@pytest.mark.parametrize("between", ["nothing", "a crash"])
def test_an_edit_made_before_the_merged_text_is_shown_is_merged_too(
    store: FakeStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """It starts from a text that the server never had: the one before, which was merged on its way."""

    def cannot_yet(*_: object) -> None:
        raise Busy

    with monkeypatch.context() as patched:
        patched.setattr(applier.Applier, "replace", cannot_yet)
        with mirror.front._lock:
            (mirror.path / "plan.md").write_text(OLD + "mine\n")
            store.put("/plan.md", (OLD + "theirs\n").encode())
        eventually(lambda: store.text("/plan.md") == OLD + "theirs\nmine\n")
        if between == "a crash":
            mirror.die()
        (mirror.path / "plan.md").write_text(OLD + "mine\nmore\n")
        if between == "a crash":
            mirror.live_again()
        eventually(lambda: store.text("/plan.md") == OLD + "theirs\nmine\nmore\n")
    eventually(lambda: mirror.files() == store.files())
    assert set(store.files()) == {"/plan.md", "/deep/a.md", "/deep/b.md"}


def test_a_write_into_a_file_that_was_just_replaced_is_saved(
    store: FakeStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that found the file before the exchange, and opens it right after the lease is gone."""
    inode_before = (mirror.path / "plan.md").stat().st_ino
    found = os.open(mirror.path / "plan.md", os.O_PATH)
    store.put("/plan.md", (OLD + "theirs\n").encode())
    eventually(lambda: (mirror.path / "plan.md").stat().st_ino != inode_before)
    with open(f"/proc/self/fd/{found}", "a") as file:
        file.write("late\n")
    os.close(found)
    eventually(lambda: store.text("/plan.md") == OLD + "theirs\nlate\n")
    eventually(lambda: (mirror.path / "plan.md").read_text() == OLD + "theirs\nlate\n")


def test_a_write_into_a_file_whose_merged_text_has_just_replaced_it_is_saved(store: FakeStore, mirror: Mirror) -> None:
    with mirror.front._lock:
        (mirror.path / "plan.md").write_text(OLD + "mine\n")
        found = os.open(mirror.path / "plan.md", os.O_PATH)
        store.put("/plan.md", (OLD + "theirs\n").encode())
    eventually(lambda: (mirror.path / "plan.md").read_text() == OLD + "theirs\nmine\n")
    with open(f"/proc/self/fd/{found}", "a") as file:
        file.write("late\n")
    os.close(found)
    eventually(lambda: store.text("/plan.md") == OLD + "theirs\nmine\nlate\n")
    eventually(lambda: (mirror.path / "plan.md").read_text() == OLD + "theirs\nmine\nlate\n")


def test_a_writer_who_waits_for_the_lease_is_let_in_before_the_change(
    store: FakeStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open for writing that comes between our lease and the exchange ends up in the file that stays."""
    exchange = applier.Applier._exchange
    threads: list[threading.Thread] = []

    same: list[bool] = []

    def write() -> None:
        with open(mirror.path / "plan.md", "a") as file:
            same.append(os.path.samestat(os.fstat(file.fileno()), (mirror.path / "plan.md").stat()))
            file.write("waited\n")

    def exchange_late(self: applier.Applier, name: str, directory: int, target: str) -> None:
        if not threads:
            threads.append(threading.Thread(target=write))
            threads[0].start()
            eventually(lambda: waiting_in_open(threads[0]) != "")
        exchange(self, name, directory, target)

    monkeypatch.setattr(applier.Applier, "_exchange", exchange_late)
    store.put("/plan.md", (OLD + "theirs\n").encode())
    eventually(lambda: store.text("/plan.md") == OLD + "theirs\nwaited\n")
    threads[0].join()
    assert same == [True]


def waiting_in_open(thread: threading.Thread) -> str:
    """The kernel function a thread waits in, if it breaks a lease."""
    where = Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()
    return where if "lease" in where or "break" in where else ""


def test_a_directory_in_the_way_of_a_file_is_reported(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("mkdir taken; ln -s nowhere taken/link")
    store.put("/taken", b"file")
    eventually(lambda: [one["path"] for one in mirror.front.status()["waiting"]] == ["/taken"])
    with mirror.front._lock:  # else the mirror could take the directory as soon as it is empty, before rm does
        mirror.sh("rm -r taken")
    eventually(lambda: mirror.files().get("/taken") == "file")
    eventually(lambda: mirror.front.status()["waiting"] == [])


def test_an_empty_directory_gives_way_to_a_file(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("mkdir taken")
    store.put("/taken", b"file")
    eventually(lambda: mirror.files().get("/taken") == "file")


def test_a_name_too_long_for_the_filesystem_is_reported_and_not_deleted(store: FakeStore, mirror: Mirror) -> None:
    path = "/" + "n" * 300
    store.put(path, b"unshowable")
    eventually(lambda: [one["path"] for one in mirror.front.status()["waiting"]] == [path])
    assert mirror.settle() == []
    assert store.text(path) == "unshowable"


def test_one_store_mirrored_twice(store: FakeStore, tmp_path: Path) -> None:
    with Mirror(store, tmp_path, name="left") as left, Mirror(store, tmp_path, name="right") as right:
        left.sh("echo left > left.md; echo more >> plan.md")
        right.sh("rm deep/a.md; mv deep/b.md deep/c.md")
        eventually(lambda: left.files() == right.files() == store.files() and "/left.md" in store.entries)
        assert left.settle() == right.settle() == []
        assert set(store.entries) == {"/plan.md", "/left.md", "/deep/c.md"}
        assert hashlib.sha256((OLD + "more\n").encode()).hexdigest() == store.entries["/plan.md"].sha256
