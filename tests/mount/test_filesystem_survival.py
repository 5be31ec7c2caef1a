"""A worker that is killed is replaced by another one, and programs that use the mount do not notice."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.entries import Entry
from app.mount.fuse.filesystem.coherence import Coherence, Housekeeper
from app.mount.fuse.filesystem.handles import Handles
from app.mount.fuse.filesystem.nodes import File, Place, Tree
from app.mount.fuse.filesystem.survival import Survival, restore
from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.mounting import Options
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import SECONDS, needs_fuse
from tests.mount.test_real_tools import Remote
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = needs_fuse


class Worker:
    """The process that answers for the mount, and one that waits to succeed it.

    The successor is there before its predecessor dies: a process that is started closes the files that this one has
    open, and waits for the mount while it does.
    """

    def __init__(self, command: list[str], device: int) -> None:
        self._command = command
        self._device = device
        self.process = self._started()
        self._next = self._started()
        self._begin("new")

    def _started(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._command, pass_fds=[self._device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _begin(self, how: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{how}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "live\n"

    def die(self) -> None:
        _end(self.process)

    def rise(self) -> None:
        self.process = self._next
        self._begin("take-over")
        self._next = self._started()

    def die_and_rise(self) -> None:
        self.die()
        self.rise()

    def status(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("status\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self) -> None:
        _end(self.process)
        _end(self._next)


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait(SECONDS)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


@pytest.fixture
def remote(client: anthropic.Anthropic, store: Store) -> Remote:
    remote = Remote(client, store)
    remote.create("/notes.md", "one\n")
    remote.create("/d/inside.md", "two\n")
    return remote


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.fixture
def worker(server: Server, store: Store, remote: Remote, path: Path, tmp_path: Path) -> Iterator[Worker]:
    device = mounting.open_device()
    command = [sys.executable, "-m", "tests.mount.surviving_worker", str(device), str(tmp_path)]
    mounting.mount(device, str(path), Options(name="memory"))
    worker = Worker([*command, server.base_url, store.id, server.api_key], device)
    try:
        yield worker
    finally:
        mounting.unmount(str(path), lazy=True)
        worker.end()
        os.close(device)


def test_open_descriptors_go_on(worker: Worker, remote: Remote, path: Path) -> None:
    reading = os.open(path / "notes.md", os.O_RDONLY)
    writing = os.open(path / "new.md", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writing, b"before\n")
    where = os.open(path / "d", os.O_RDONLY | os.O_DIRECTORY)
    number = os.fstat(writing).st_ino
    worker.die_and_rise()
    assert os.read(reading, 100) == b"one\n"
    os.write(writing, b"after\n")
    assert os.fstat(writing).st_ino == os.stat(path / "new.md").st_ino == number
    os.close(writing)
    os.close(reading)
    assert remote.texts()["/new.md"] == "before\nafter\n"
    inside = os.open("inside.md", os.O_RDONLY, dir_fd=where)
    assert os.read(inside, 100) == b"two\n"
    os.close(inside)
    os.close(where)


def test_an_edit_in_the_middle_goes_on(worker: Worker, remote: Remote, path: Path) -> None:
    descriptor = os.open(path / "notes.md", os.O_RDWR)
    os.pwrite(descriptor, b"ONE", 0)
    worker.die_and_rise()
    os.pwrite(descriptor, b"!", 3)
    os.close(descriptor)
    assert remote.texts()["/notes.md"] == "ONE!"
    assert remote.history()[-1] == ("modified", "/notes.md")
    assert len(remote.history()) == 3


def test_what_lives_here_alone_is_still_there(worker: Worker, remote: Remote, path: Path) -> None:
    (path / "empty").mkdir()
    (path / ".notes.md.swp").write_bytes(b"\xff\xfe")
    (path / "notes.md").rename(path / "#notes.md#")
    os.chmod(path / "d" / "inside.md", 0o600)
    for _ in range(2):
        worker.die_and_rise()
        assert sorted(os.listdir(path)) == ["#notes.md#", ".notes.md.swp", "d", "empty"]
        assert (path / ".notes.md.swp").read_bytes() == b"\xff\xfe"
        assert (path / "d" / "inside.md").stat().st_mode & 0o777 == 0o600
    (path / "#notes.md#").rename(path / "notes.md")
    assert len(remote.history()) == 2


def test_what_others_did_meanwhile_shows(worker: Worker, remote: Remote, path: Path) -> None:
    assert (path / "notes.md").read_text() == "one\n"
    worker.die()
    identity = remote.memory_id("/notes.md")
    remote.memories.update(identity, memory_store_id=remote.store_id, content="theirs\n")
    remote.create("/theirs.md", "x")
    worker.rise()
    until(lambda: (path / "notes.md").read_text() == "theirs\n", "the new text shows")
    until(lambda: sorted(os.listdir(path)) == ["d", "notes.md", "theirs.md"], "the new file shows")


def test_calls_in_flight_are_answered(worker: Worker, remote: Remote, path: Path) -> None:
    """Programs work on while the worker is killed again and again; at the end nothing is missing or twice."""

    def work(which: int) -> None:
        for number in range(60):
            place = path / f"w{which}" / f"{number}.md"
            place.parent.mkdir(exist_ok=True)
            temporary = place.with_suffix(".tmp")
            temporary.write_text(f"{which} {number}\n")
            temporary.rename(place)
            with place.open("a") as file:
                file.write("more\n")

    with ThreadPoolExecutor(3) as pool:
        users = [pool.submit(work, which) for which in range(3)]
        for _ in range(4):
            worker.die_and_rise()
        for user in users:
            user.result(SECONDS)
    expected = {f"/w{which}/{n}.md": f"{which} {n}\nmore\n" for which in range(3) for n in range(60)}
    shown = {
        f"/w{which}/{name}": (path / f"w{which}" / name).read_text()
        for which in range(3)
        for name in os.listdir(path / f"w{which}")
    }
    assert shown == expected
    whole = {**expected, "/notes.md": "one\n", "/d/inside.md": "two\n"}
    until(
        lambda: remote.texts() == whole,
        lambda: f"{set(whole.items()) ^ set(remote.texts().items())}, {worker.status()}",
    )


@pytest.mark.parametrize("rewritten", [False, True], ids=["appended", "rewritten"])
def test_a_successor_shows_a_reader_no_less_than_the_kernel_knows_of(rewritten: bool) -> None:
    """Else the reader gets zeros where the kernel has the size of a text that the successor has not fetched yet."""
    tree, handles, keeper = Tree(uid=0, gid=0, read_only=False), Handles(), Keeper()
    survival = Survival(tree, handles)
    survival.begin(keeper)
    tree.on_placed = survival.node
    entry = Entry("/x.md", "mem_1", "memver_1", "0" * 64, 4, 0)
    file = tree.new_file(entry)
    tree.attach(tree.root, b"x.md", file)
    file.lookups = 1
    tree.replace(file, tree.new_file(dataclasses.replace(entry, version_id="memver_2", size=8)))
    file.text = b"one\ntwo\n"
    survival.shown(file)
    state = survival.state() if rewritten else keeper.kept
    other = Tree(uid=0, gid=0, read_only=False)
    restore(state, other, Handles(), Coherence(other, FakeEngine(), Housekeeper()))
    found = other.nodes[file.id]
    assert isinstance(found, File)
    assert (found.place, found.text, found.dirty) == (Place.REPLACED, b"one\ntwo\n", False)


class Keeper:
    """What outlives a worker."""

    kept = b""

    def save(self, state: bytes) -> None:
        self.kept = state

    def append(self, piece: bytes) -> None:
        self.kept += piece


def test_a_state_that_was_cut_off_is_read_to_its_last_whole_piece() -> None:
    def new() -> tuple[Tree, Handles]:
        return Tree(uid=0, gid=0, read_only=False), Handles()

    tree, handles = new()
    keeper, survival = Keeper(), Survival(tree, handles)
    survival.begin(keeper)
    tree.on_placed = survival.node
    file = tree.new_file()
    file.dirty, file.text = True, bytearray(b"text")
    tree.attach(tree.root, b"x.md", file)
    survival.file(file)
    survival.written(file, 2, b"st!")
    whole = keeper.kept
    survival.written(file, 0, b"lost")
    for state, expected in ((whole, b"test!"), (keeper.kept[:-1], b"test!"), (keeper.kept, b"lost!")):
        other, other_handles = new()
        restore(state, other, other_handles, Coherence(other, FakeEngine(), Housekeeper()))
        found = other.find("/x.md")
        assert isinstance(found, File)
        assert (found.id, found.text, found.dirty) == (file.id, expected, True)
        assert other.new_file().id > file.id


def test_listings_that_the_kernel_had_show_what_others_did_meanwhile(
    worker: Worker, remote: Remote, path: Path
) -> None:
    before = {path: ["d", "notes.md"], path / "d": ["inside.md"]}
    for directory, names in before.items():
        for _ in range(3):
            assert sorted(os.listdir(directory)) == names
    worker.die()
    remote.create("/late.md", "x")
    remote.create("/d/late.md", "x")
    worker.rise()
    for directory, names in before.items():
        expected = sorted([*names, "late.md"])
        until(lambda: sorted(os.listdir(directory)) == expected, f"{directory} shows the new file")  # noqa: B023


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_APPEND, os.O_RDWR], ids=["append", "at an offset"])
def test_half_a_character_waits_for_its_rest_after_a_crash_too(
    worker: Worker, remote: Remote, path: Path, flags: int
) -> None:
    descriptor = os.open(path / "notes.md", flags)
    os.lseek(descriptor, 0, os.SEEK_END)
    os.write(descriptor, b"caf\xc3")
    worker.die_and_rise()
    os.write(descriptor, b"\xa9\n")
    os.close(descriptor)
    assert remote.texts()["/notes.md"] == "one\ncafé\n"


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_APPEND, os.O_RDWR], ids=["append", "at an offset"])
def test_half_a_character_is_told_to_its_writer_after_a_crash_too(
    worker: Worker, remote: Remote, path: Path, tmp_path: Path, flags: int
) -> None:
    descriptor = os.open(path / "notes.md", flags)
    os.lseek(descriptor, 0, os.SEEK_END)
    os.write(descriptor, b"caf\xc3")
    worker.die_and_rise()
    with (path / "notes.md").open("ab") as other:
        other.write(b"two\n")
    assert remote.texts()["/notes.md"] == "one\ncaftwo\n"
    with pytest.raises(OSError, match="Invalid or incomplete"):
        os.close(descriptor)
    assert remote.texts()["/notes.md"] == "one\ncaftwo\n"
    (kept,) = tmp_path.rglob("kept/*/text")
    assert b"\xc3" in kept.read_bytes()


def test_a_reader_gets_what_others_append_after_a_crash_too(worker: Worker, remote: Remote, path: Path) -> None:
    identity = remote.memory_id("/notes.md")
    reading = os.open(path / "notes.md", os.O_RDONLY)
    assert os.read(reading, 100) == b"one\n"
    for text in ("one\ntwo\n", "one\ntwo\nthree\n"):
        remote.memories.update(identity, memory_store_id=remote.store_id, content=text)
        until(lambda text=text: os.fstat(reading).st_size == len(text), "the new size shows")  # type: ignore[misc]
        worker.die_and_rise()
    until(lambda: os.fstat(reading).st_size == 14, "the size is shown after the crash")
    assert os.read(reading, 100) == b"two\nthree\n"
    os.close(reading)
