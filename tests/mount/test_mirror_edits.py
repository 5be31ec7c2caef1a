"""What programs do to the files of a mirror reaches the store: once, under the right ID."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.mount.mirror import sync
from tests.mount.mirror_support import FakeStore, Mirror, eventually

OLD = "one\ntwo\n"


@pytest.fixture(autouse=True)
def no_looks_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here everything is found by its event; a look at everything from time to time would hide one that is missed."""
    monkeypatch.setattr(sync, "_ACTIVE_LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(sync, "_IDLE_LOOK_SECONDS", 3600.0)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore({"/plan.md": OLD, "/deep/er/a.md": "a\n", "/deep/er/b.md": "b\n", "/deep/c.md": "c\n"})


@pytest.fixture
def mirror(store: FakeStore, tmp_path: Path) -> Iterator[Mirror]:
    with Mirror(store, tmp_path) as mirror:
        yield mirror


def test_the_directory_shows_the_store_when_start_returns(store: FakeStore, mirror: Mirror) -> None:
    assert mirror.files() == store.files()
    assert store.history == []


EDITS = {
    "shell >": ("echo new > plan.md", "new\n"),
    "shell >>": ("echo three >> plan.md", "one\ntwo\nthree\n"),
    "several writers of one redirection": ("(echo a; sleep 0.3; /bin/echo b) > plan.md", "a\nb\n"),
    "sed -i": ("sed -i s/one/1/ plan.md", "1\ntwo\n"),
    "perl -pi": ("perl -pi -e s/one/1/ plan.md", "1\ntwo\n"),
    "cp over it": ("echo new > ../new; cp ../new plan.md", "new\n"),
    "mv over it": ("echo new > ../new; mv ../new plan.md", "new\n"),
    "python": ("python3 -c \"open('plan.md', 'w').write('new')\"", "new"),
    "python, atomic, unknown name": (
        "python3 -c \"import os; open('.plan-x1', 'w').write('new'); os.replace('.plan-x1', 'plan.md')\"",
        "new",
    ),
    "truncate": ("truncate -s 4 plan.md", "one\n"),
    "truncate(2)": ("python3 -c \"import os; os.truncate('plan.md', 4)\"", "one\n"),
    "to a backup and written anew": ("mv plan.md plan.md~; echo new > plan.md; rm plan.md~", "new\n"),
    "deleted and written anew": ("rm plan.md; echo new > plan.md", "new\n"),
}


WITHIN_A_MOMENT = ("python, atomic, unknown name", "to a backup and written anew", "deleted and written anew")
"""Two steps are one edit because little time is between them. On a busy machine it is long: the mirror looks after."""


@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_is_one_version_of_the_same_memory(store: FakeStore, mirror: Mirror, edit: str) -> None:
    command, text = EDITS[edit]
    memory_id = store.entries["/plan.md"].memory_id
    with mirror.front._lock if edit in WITHIN_A_MOMENT else contextlib.nullcontext():
        mirror.sh(command)
    eventually(lambda: store.text("/plan.md") == text)
    assert mirror.settle() == []
    assert [(v.operation, v.memory_id, v.path, v.text) for v in store.history] == [
        ("modified", memory_id, "/plan.md", text)
    ]


@pytest.mark.skipif(not shutil.which("patch"), reason="patch is not installed")
def test_patch_makes_one_version(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("printf '%s\\n' '--- plan.md' '+++ plan.md' '@@ -1,2 +1,2 @@' '-one' '+1' ' two' | patch -p0")
    eventually(lambda: store.text("/plan.md") == "1\ntwo\n")
    mirror.settle()
    assert [v.operation for v in store.history] == ["modified"]


@pytest.mark.parametrize("command", ["touch plan.md", "cp plan.md ../x; cat ../x > plan.md", ": >> plan.md"])
def test_a_close_that_changed_nothing_is_no_version(store: FakeStore, mirror: Mirror, command: str) -> None:
    mirror.sh(command)
    assert mirror.settle() == []
    assert store.history == []


def test_a_new_file_in_new_directories_is_saved(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("mkdir -p x/y/z; echo hello > x/y/z/new.md")
    eventually(lambda: store.text("/x/y/z/new.md") == "hello\n")


def test_files_made_at_once_in_fresh_nested_directories_are_all_saved(store: FakeStore, mirror: Mirror) -> None:
    for number in range(150):
        directory = mirror.path / f"d{number % 5}" / f"e{number}"
        directory.mkdir(parents=True)
        (directory / "f.md").write_text(f"{number}\n")
    eventually(lambda: all(store.text(f"/d{n % 5}/e{n}/f.md") == f"{n}\n" for n in range(150)))
    assert [v.operation for v in store.history] == ["created"] * 150


def test_a_file_is_not_saved_while_a_program_writes_to_it(store: FakeStore, mirror: Mirror) -> None:
    with open(mirror.path / "plan.md", "w") as file:
        file.write("half")
        file.flush()
        eventually(lambda: "/plan.md" in mirror.front._reconciler.notes.busy)
        assert store.text("/plan.md") == OLD
        file.write(" done")
    eventually(lambda: store.text("/plan.md") == "half done")
    assert len(store.history) == 1


def test_a_flush_saves_also_what_is_still_open(store: FakeStore, mirror: Mirror) -> None:
    with open(mirror.path / "plan.md", "w") as file:
        file.write("so far")
        file.flush()
        assert mirror.settle() == []
        assert store.text("/plan.md") == "so far"


def test_mv_keeps_the_id(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/plan.md"].memory_id
    mirror.sh("mv plan.md deep/new.md")
    eventually(lambda: "/deep/new.md" in store.entries)
    mirror.settle()
    assert store.entries["/deep/new.md"].memory_id == memory_id
    assert len(store.history) == 1


def test_mv_and_an_edit_at_once_keep_the_id_and_the_text(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/plan.md"].memory_id
    mirror.sh("mv plan.md new.md; echo more >> new.md; echo other > plan.md")
    eventually(lambda: store.text("/new.md") == OLD + "more\n" and store.text("/plan.md") == "other\n")
    mirror.settle()
    assert store.entries["/new.md"].memory_id == memory_id
    assert [v.operation for v in store.history] == ["modified", "modified", "created"]


def test_mv_onto_a_file_keeps_the_targets_id(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/deep/c.md"].memory_id
    mirror.sh("mv plan.md deep/c.md")
    eventually(lambda: store.text("/deep/c.md") == OLD)
    mirror.settle()
    assert store.entries["/deep/c.md"].memory_id == memory_id
    assert "/plan.md" not in store.entries


def test_two_files_swapped_keep_their_ids(store: FakeStore, mirror: Mirror) -> None:
    plan, other = (store.entries[path].memory_id for path in ("/plan.md", "/deep/c.md"))
    mirror.sh("mv plan.md t")
    eventually(lambda: store.text("/t") == OLD)
    mirror.sh("mv deep/c.md plan.md")
    eventually(lambda: store.text("/plan.md") == "c\n")
    mirror.sh("mv t deep/c.md")
    eventually(lambda: store.text("/deep/c.md") == OLD)
    mirror.settle()
    assert (store.entries["/deep/c.md"].memory_id, store.entries["/plan.md"].memory_id) == (plan, other)


def test_a_copy_that_replaces_its_source_is_a_rename(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/plan.md"].memory_id
    with mirror.front._lock:  # however long the machine takes for it, it is one moment
        mirror.sh("rm plan.md; printf 'one\\ntwo\\n' > elsewhere.md")
    eventually(lambda: "/elsewhere.md" in store.entries)
    mirror.settle()
    assert store.entries["/elsewhere.md"].memory_id == memory_id
    assert "/plan.md" not in store.entries


def test_mv_of_a_directory_is_one_operation(store: FakeStore, mirror: Mirror) -> None:
    ids = {path: store.entries[path].memory_id for path in store.entries}
    mirror.sh("mv deep moved; echo more >> moved/er/a.md")
    eventually(lambda: store.text("/moved/er/a.md") == "a\nmore\n")
    assert mirror.settle() == []
    assert [call for call in mirror.engine.calls if call[0] != "save"] == [("rename_tree", "/deep/", "/moved/")]
    assert {path.replace("/moved", "/deep"): e.memory_id for path, e in store.entries.items()} == ids
    mirror.sh("echo later > moved/er/new.md")  # the watches moved along
    eventually(lambda: store.text("/moved/er/new.md") == "later\n")


def test_rm_deletes(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("rm plan.md; rm -r deep/er")
    eventually(lambda: list(store.entries) == ["/deep/c.md"])


def test_a_file_moved_out_of_the_tree_is_deleted(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("mv deep ../outside; mv plan.md ..")
    eventually(lambda: not store.entries)


def test_scratch_names_stay_local(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("echo x > 4913; echo x > .plan.md.swp; printf '\\xff' > work.tmp; echo x > '.#plan.md'")
    mirror.settle()
    assert mirror.engine.calls == []
    assert mirror.refused() == {}


def test_a_scratch_name_that_lasts_is_saved(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("echo kept > notes.tmp; echo x > .plan.md.swp; printf '\\xff' > bytes.tmp")
    eventually(lambda: store.text("/notes.tmp") == "kept\n")
    assert [v.path for v in store.history] == ["/notes.tmp"]


def test_a_file_parked_under_a_backup_name_for_good_moves_there(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/plan.md"].memory_id
    mirror.sh("mv plan.md plan.md~")
    eventually(lambda: "/plan.md~" in store.entries)
    mirror.settle()
    assert store.entries["/plan.md~"].memory_id == memory_id
    assert "/plan.md" not in store.entries


REFUSALS = {
    "bad UTF-8": ("printf '\\xff\\xfe' > f.md", "/f.md", errno.EILSEQ),
    "too large": ("head -c 102401 /dev/zero > f.md", "/f.md", errno.EFBIG),
    "control character": ("echo x > $'f\\x01'", "/f\x01", errno.EINVAL),
    "name not UTF-8": ("echo x > $'f\\xff'", "/f\\xff", errno.EILSEQ),
    "symbolic link": ("ln -s plan.md f.md", "/f.md", errno.EPERM),
    "hard link": ("echo x > ../x; ln ../x f.md", "/f.md", errno.EPERM),
    "named pipe": ("mkfifo f.md", "/f.md", errno.EPERM),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_file_stays_on_disk_and_is_listed(store: FakeStore, mirror: Mirror, refusal: str) -> None:
    command, path, number = REFUSALS[refusal]
    mirror.sh(command)
    eventually(lambda: mirror.refused().get(path) == number)
    assert mirror.settle() == [path]
    assert len(os.listdir(mirror.path)) == 3
    assert store.history == []


def test_a_refused_file_is_tried_again_when_it_changes(store: FakeStore, mirror: Mirror) -> None:
    mirror.engine.refusals["/new.md"] = errno.EDQUOT
    mirror.sh("echo x > new.md")
    eventually(lambda: mirror.refused() == {"/new.md": errno.EDQUOT})
    del mirror.engine.refusals["/new.md"]
    mirror.sh("echo y > new.md")
    eventually(lambda: store.text("/new.md") == "y\n")
    eventually(lambda: mirror.refused() == {})


def test_a_flush_tries_refused_files_again(store: FakeStore, mirror: Mirror) -> None:
    mirror.engine.refusals["/new.md"] = errno.EDQUOT
    mirror.sh("echo x > new.md")
    assert mirror.settle() == ["/new.md"]
    del mirror.engine.refusals["/new.md"]
    assert mirror.settle() == []
    assert store.text("/new.md") == "x\n"


def test_a_directory_renamed_to_a_name_no_memory_can_have_loses_nothing(store: FakeStore, mirror: Mirror) -> None:
    before = store.files()
    mirror.sh("mv deep $'de\\x01ep'")
    eventually(lambda: len(mirror.refused()) == 3)
    eventually(lambda: (mirror.path / "deep/c.md").exists())
    assert store.files() == before


def test_nothing_is_read_through_a_link_that_points_outside(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("mkdir ../secret; echo secret > ../secret/key; ln -s ../secret inside; ln -s ../secret/key key")
    eventually(lambda: set(mirror.refused()) == {"/inside", "/key"})
    store.put("/inside/key", b"from the server")
    eventually(lambda: mirror.front.status()["waiting"])
    assert (mirror.home / "secret/key").read_text() == "secret\n"
    assert [v.path for v in store.history] == ["/inside/key"]


def test_empty_directories_stay_local(store: FakeStore, mirror: Mirror) -> None:
    mirror.sh("mkdir -p empty/er")
    mirror.settle()
    assert (mirror.path / "empty/er").is_dir()
    assert mirror.engine.calls == []


def test_an_overflow_of_the_event_queue_loses_nothing(store: FakeStore, mirror: Mirror) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with mirror.front._lock:  # the reader is stalled
        for number in range(20):
            (mirror.path / f"early{number}.md").write_text("x")
        for _ in range(limit // 4):
            for name in ("p", "q"):  # different from its neighbour, so that the kernel does not merge them
                (mirror.path / f"noise-{name}.tmp").touch()
        os.unlink(mirror.path / "plan.md")
        (mirror.path / "late.md").write_text("late")
    eventually(lambda: store.text("/late.md") == "late" and "/plan.md" not in store.entries)
    assert all(store.text(f"/early{number}.md") == "x" for number in range(20))


def test_edits_wait_for_a_server_that_is_away(store: FakeStore, mirror: Mirror) -> None:
    mirror.engine.offline = True
    mirror.sh("echo new > plan.md")
    eventually(lambda: mirror.front.status()["unsaved"])
    mirror.engine.offline = False
    eventually(lambda: store.text("/plan.md") == "new\n")
    eventually(lambda: mirror.front.status()["unsaved"] == [])


def test_a_text_refused_after_it_was_accepted_stays_on_disk(store: FakeStore, mirror: Mirror, tmp_path: Path) -> None:
    mirror.sh("echo mine > plan.md")
    eventually(lambda: store.text("/plan.md") == "mine\n")
    kept = tmp_path / "kept.txt"
    kept.write_text("mine\n")
    record = {"path": "/plan.md", "reason": "no room", "errno": errno.EDQUOT, "place": str(kept)}
    mirror.engine.refused_late.append(record)
    store.put("/plan.md", OLD.encode())  # what the journal took is not in the view any more
    eventually(lambda: "/plan.md" in mirror.front._reconciler.notes.refused)
    assert (mirror.path / "plan.md").read_text() == "mine\n"
    assert mirror.refused() == {"/plan.md": errno.EDQUOT}


def test_a_policy_that_refuses_leaves_the_text_on_disk(store: FakeStore, mirror: Mirror) -> None:
    mirror.engine.refusals["/plan.md"] = errno.ESTALE
    mirror.sh("echo mine > plan.md")
    eventually(lambda: mirror.refused() == {"/plan.md": errno.ESTALE})
    assert (mirror.path / "plan.md").read_text() == "mine\n"


FREED = {
    "link": "ln -s x l",
    "fifo": "mkfifo l",
    "binary": r"printf '\xff\xfe\x00' > l",
    "too large": "head -c 200000 /dev/zero | tr '\\0' x > l",
    "bad name": "echo new > $'l\\nx'",
    "scratch": "echo swap > .c.md.swp",
    "directory": "mkdir l",
    "hard link": "ln a.md l; rm a.md; cat l > /dev/null",
}


@pytest.mark.parametrize("thing", FREED.values(), ids=FREED.keys())
def test_a_deleted_file_stays_deleted_whatever_gets_its_inode(tmp_path: Path, thing: str) -> None:
    store = FakeStore({"/keep.md": "keep\n"})
    with Mirror(store, tmp_path) as mirror:
        mirror.sh("echo t > a.md")
        eventually(lambda: store.text("/a.md") == "t\n")
        mirror.sh(thing if "rm a.md" in thing else f"rm a.md; {thing}")
        eventually(lambda: store.text("/a.md") is None, "the delete reaches the store")
        assert not (mirror.path / "a.md").exists()
        if thing == FREED["hard link"]:
            eventually(lambda: store.text("/l") == "t\n", "the other name is a file of its own")
            return
        mirror.settle()
        assert store.files() == {"/keep.md": "keep\n"}
        assert not (mirror.path / "a.md").exists()
