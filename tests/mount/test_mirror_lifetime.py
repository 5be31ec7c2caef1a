"""A mirror that ends, dies or loses its directory: nothing that was saved or typed is lost."""

import errno
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.mount.door.entries import Entry
from app.mount.mirror.agreements import Agreed, Agreements, Displaced
from app.mount.mirror.deletions import QUIET_SECONDS, Deletions, Verdict
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.mirror.tree import Stat, Tree
from app.mount.sync.errors import MountError
from tests.mount.mirror_support import FakeEngine, FakeStore, Mirror, eventually

OLD = "one\ntwo\n"
FILES = {"/plan.md": OLD, "/deep/a.md": "a\n", "/deep/b.md": "b\n"}


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(FILES)


@pytest.fixture
def mirror(store: FakeStore, tmp_path: Path) -> Iterator[Mirror]:
    with Mirror(store, tmp_path) as mirror:
        yield mirror


def wipe(path: Path) -> None:
    shutil.rmtree(path)


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_by_another(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir(exist_ok=True)  # A mirror that was faster has put one there.


def wipe_slowly(path: Path) -> None:
    """As `rm -rf` on a busy machine: a while passes between the files and the directory itself."""
    for file in [file for file in path.rglob("*") if file.is_file()]:
        file.unlink()
        time.sleep(0.05)
    wipe(path)


@pytest.mark.parametrize("harm", [wipe, wipe_slowly, move_away, replace_by_another])
def test_a_directory_that_vanishes_comes_back_and_deletes_nothing(store: FakeStore, mirror: Mirror, harm) -> None:  # type: ignore[no-untyped-def]
    harm(mirror.path)
    eventually(lambda: mirror.path.is_dir() and mirror.files() == FILES)
    assert mirror.settle() == []
    assert store.files() == FILES
    assert mirror.engine.calls == []
    assert mirror.front.status()["restored_at"] is not None
    mirror.sh("echo works > again.md")
    eventually(lambda: store.text("/again.md") == "works\n")


def test_no_file_is_taken_for_deleted_while_the_root_is_gone(tmp_path: Path) -> None:
    agreements = Agreements(tmp_path / "state.db")
    tree = Tree(tmp_path / "tree")
    entry = Entry("/a", "mem_1", "ver_1", "", 0, 0)
    agreements.agree("/a", Agreed(entry, Stat(1, 0, 0, 0), ours=False))
    deletions = Deletions(tree, agreements)
    deletions.seen("/a")
    wipe(tmp_path / "tree")
    time.sleep(QUIET_SECONDS)  # the very thing: however long it has been quiet
    assert deletions.judge("/a")[0] is Verdict.WAIT
    tree.close()
    agreements.close()


def test_a_text_is_kept_as_long_as_the_server_may_not_have_it(tmp_path: Path) -> None:
    pending = Entry("/a", "mem_1", None, "digest", 4, 0)
    agreements = Agreements(tmp_path / "state.db")
    agreements.keep_text("digest", b"text")
    agreements.agree("/a", Agreed(pending, Stat(1, 4, 0, 0), ours=True))
    agreements.drop_texts()
    agreements.close()
    agreements = Agreements(tmp_path / "state.db")
    assert agreements.text("digest") == b"text"
    agreements.displace("taken out", Displaced(pending, "merged"))
    agreements.agree("/a", Agreed(replace(pending, version_id="ver_1"), Stat(1, 4, 0, 0), ours=False))
    agreements.drop_texts()
    assert agreements.text("digest") == b"text"
    agreements.settle("taken out")
    agreements.drop_texts()
    assert agreements.text("digest") is None
    agreements.close()


def test_deleting_everything_by_name_is_deleting(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("rm -rf -- *")
    eventually(lambda: not store.entries)
    assert mirror.path.is_dir()


def test_stop_saves_what_was_written_a_moment_before_and_takes_the_files_away(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("echo last > plan.md; echo new > new.md; mkdir empty; rm deep/a.md")
    assert mirror.stop() == []
    assert store.files() == {"/plan.md": "last\n", "/new.md": "new\n", "/deep/b.md": "b\n"}
    assert list(mirror.path.iterdir()) == []
    assert not [left for left in mirror.home.iterdir() if left.name.startswith(".")]


def test_stop_leaves_what_could_not_be_saved(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("printf '\\xff' > bytes.md; echo x > full.md")
    eventually(lambda: "/full.md" in store.entries)
    mirror.engine.refusals["/full.md"] = errno.EDQUOT
    mirror.sh("echo y > full.md")
    assert mirror.stop() == ["/bytes.md", "/full.md"]
    assert sorted(os.listdir(mirror.path)) == ["bytes.md", "full.md"]


def test_a_mount_after_a_clean_stop_shows_everything_again(store: FakeStore, mirror: Mirror) -> None:
    mirror.stop()
    mirror.live_again()
    assert mirror.files() == FILES
    assert store.history == []


def test_edits_made_while_the_mirror_was_dead_are_saved_as_edits_of_what_they_edited(
    store: FakeStore, mirror: Mirror
) -> None:
    ids = {path: entry.memory_id for path, entry in store.entries.items()}
    mirror.die()
    mirror.sh("echo mine >> plan.md; echo new > new.md; mv deep/a.md deep/c.md")
    store.put("/plan.md", (OLD + "theirs\n").encode())
    store.put("/deep/b.md", b"theirs\n")
    mirror.live_again()
    expected = {
        "/plan.md": OLD + "theirs\nmine\n", "/new.md": "new\n", "/deep/b.md": "theirs\n", "/deep/c.md": "a\n",
    }  # fmt: skip
    eventually(lambda: store.files() == expected and mirror.files() == expected)
    assert store.entries["/plan.md"].memory_id == ids["/plan.md"]
    assert store.entries["/deep/c.md"].memory_id == ids["/deep/a.md"]


def test_a_file_deleted_while_the_mirror_was_dead_is_deleted_after_a_second_look(
    store: FakeStore, mirror: Mirror
) -> None:
    mirror.die()
    mirror.sh("rm deep/a.md")
    mirror.live_again()
    assert "/deep/a.md" in store.entries
    eventually(lambda: "/deep/a.md" not in store.entries)
    assert set(store.entries) == {"/plan.md", "/deep/b.md"}


@pytest.mark.parametrize("harm", ["rm -rf deep plan.md", "rm -rf deep", "rm -rf deep; mkdir deep"])
def test_what_was_wiped_while_the_mirror_was_dead_comes_back(store: FakeStore, mirror: Mirror, harm: str) -> None:
    mirror.die()
    mirror.sh(harm)  # a new directory may get the inode of the old one
    mirror.live_again()
    eventually(lambda: mirror.files() == FILES)
    assert mirror.settle() == []
    assert store.files() == FILES


def test_a_root_that_was_replaced_while_the_mirror_was_dead_comes_back(store: FakeStore, mirror: Mirror) -> None:
    mirror.die()
    replace_by_another(mirror.path)
    mirror.live_again()
    assert mirror.files() == FILES
    assert mirror.settle() == []
    assert store.files() == FILES


def test_what_a_power_cut_took_comes_back(store: FakeStore, mirror: Mirror) -> None:
    mirror.die()
    mirror.sh("echo edited >> deep/b.md; : > plan.md; rm deep/a.md")  # the last two: blocks and names never written
    (state,) = (mirror.home / "state-notes").glob("*.db")
    with sqlite3.connect(state) as database:
        database.execute("UPDATE boot SET id = 'another'")
    database.close()
    mirror.live_again()
    assert mirror.settle() == []
    expected = {**FILES, "/deep/b.md": "b\nedited\n"}
    assert mirror.files() == expected
    assert store.files() == expected
    assert [version.path for version in store.history] == ["/deep/b.md"]


def test_without_its_state_a_directory_is_taken_as_it_is(store: FakeStore, mirror: Mirror) -> None:
    mirror.die()
    mirror.sh("echo new > new.md; echo mine > plan.md; rm deep/a.md")
    shutil.rmtree(mirror.home / "state-notes")
    mirror.live_again()
    eventually(lambda: mirror.files() == store.files() and "/new.md" in store.entries)
    assert store.text("/plan.md") == OLD
    assert store.text("/plan.md.conflict-test") == "mine\n"
    assert store.text("/deep/a.md") == "a\n"


def test_one_directory_has_one_mirror(store: FakeStore, mirror: Mirror) -> None:
    with pytest.raises(MountError, match="already"):
        MirrorFrontEnd(
            FakeEngine(store),  # type: ignore[arg-type]
            mirror.path,
            state_dir=mirror.home / "state-notes",
            read_only=False,
        ).start()


def test_an_edit_in_a_replaced_file_survives_a_crash(store: FakeStore, mirror: Mirror) -> None:
    with mirror.front._lock:
        found = os.open(mirror.path / "plan.md", os.O_PATH)
    inode = os.fstat(found).st_ino
    store.put("/plan.md", (OLD + "theirs\n").encode())
    eventually(lambda: (mirror.path / "plan.md").stat().st_ino != inode)
    with open(f"/proc/self/fd/{found}", "a") as file:
        mirror.die()
        file.write("late\n")
    os.close(found)
    mirror.live_again()
    eventually(lambda: store.text("/plan.md") == OLD + "theirs\nlate\n")


def test_two_thousand_memories_are_shown(tmp_path: Path) -> None:
    store = FakeStore({f"/d{n % 20}/f{n}.md": f"{n}\n" for n in range(2000)})
    with Mirror(store, tmp_path) as mirror:
        assert mirror.files() == store.files()
        assert mirror.settle() == []
        assert mirror.engine.calls == []


def test_flush_from_several_threads_at_once(store: FakeStore, mirror: Mirror) -> None:
    def work(number: int) -> None:
        (mirror.path / f"t{number}.md").write_text("x")
        assert mirror.settle() == []
        assert store.text(f"/t{number}.md") == "x"
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(8))


def test_no_descriptor_is_left_open(store: FakeStore, tmp_path: Path) -> None:
    with Mirror(store, tmp_path, name="first"):
        pass
    before = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd))
    with Mirror(store, tmp_path, name="second") as mirror:
        store.put("/plan.md", b"x")
        mirror.sh("echo x > new.md; mv deep moved")
        mirror.settle()
    after = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd))
    assert after == before


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def is_mounted(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def may_mount(directory: Path) -> bool:
    """Whether a bind mount can be made here."""
    (directory / "probe").mkdir()
    done = subprocess.run(["mount", "--bind", directory / "probe", directory / "probe"], capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", directory / "probe"], check=True)
    return done.returncode == 0
