"""A file that stays open here while somebody else writes it: every save is merged, and builds on the one before."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.entries import Entry
from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.mounting import Options
from app.mount.sync.errors import Refused
from tests.faults.proxy import Proxy
from tests.mount.engines import Remote
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse
from tests.mount.test_filesystem_survival import Worker
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = needs_fuse


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    remote = Remote(server, client, store.id)
    remote.create("/notes.md", "one\n")
    return remote


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    with Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)) as proxy:
        yield proxy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.fixture
def worker(server: Server, network: Proxy, remote: Remote, path: Path, tmp_path: Path) -> Iterator[Worker]:
    device = mounting.open_device()
    command = [sys.executable, "-m", "tests.mount.surviving_worker", str(device), str(tmp_path)]
    mounting.mount(device, str(path), Options(name="memory"))
    worker = Worker([*command, f"http://127.0.0.1:{network.port}", remote.store_id, server.api_key], device)
    try:
        yield worker
    finally:
        mounting.unmount(str(path), lazy=True)
        worker.end()
        os.close(device)


def _save(descriptor: int) -> None:
    os.close(os.dup(descriptor))


def _others_write(remote: Remote, line: str) -> None:
    remote.update("/notes.md", line + remote.texts()["/notes.md"])


@pytest.mark.parametrize("dies", ["never", "before the merge", "after the merge", "with the second write"])
@pytest.mark.parametrize("how", ["at once", "later"])
def test_the_second_save_of_an_open_file_is_merged_too(
    worker: Worker, network: Proxy, remote: Remote, path: Path, how: str, dies: str
) -> None:
    descriptor = os.open(path / "notes.md", os.O_RDWR)
    if how == "later":
        network.refuse()
    _others_write(remote, "theirs 1\n")
    os.pwrite(descriptor, b"mine 1\n", 4)
    if dies == "before the merge" and how == "at once":
        worker.die_and_rise()
    _save(descriptor)
    if dies == "before the merge" and how == "later":
        worker.die_and_rise()
    network.forward()
    until(lambda: remote.texts() == {"/notes.md": "theirs 1\none\nmine 1\n"}, "the first save is merged")
    if dies == "after the merge":
        worker.die_and_rise()
    _others_write(remote, "theirs 2\n")
    until(lambda: (path / "notes.md").read_text().startswith("theirs 2\n"), "the second edit of the others shows")
    os.pwrite(descriptor, b"mine 2\n", 11)
    if dies == "with the second write":
        worker.die_and_rise()
    os.fsync(descriptor)
    everything = "theirs 2\ntheirs 1\none\nmine 1\nmine 2\n"
    assert remote.texts() == {"/notes.md": everything}
    os.close(descriptor)
    until(lambda: (path / "notes.md").read_text() == everything, "the file is what the store has")


@pytest.mark.parametrize("dies", [False, True])
def test_a_second_save_that_waits_for_the_server_too_is_merged(
    worker: Worker, network: Proxy, remote: Remote, path: Path, dies: bool
) -> None:
    descriptor = os.open(path / "notes.md", os.O_RDWR)
    network.refuse()
    _others_write(remote, "theirs 1\n")
    os.pwrite(descriptor, b"mine 1\n", 4)
    _save(descriptor)
    network.forward()
    until(lambda: remote.texts() == {"/notes.md": "theirs 1\none\nmine 1\n"}, "the first save is merged")
    network.refuse()
    _others_write(remote, "theirs 2\n")
    os.pwrite(descriptor, b"mine 2\n", 11)
    os.close(descriptor)
    if dies:
        worker.die_and_rise()
    network.forward()
    everything = "theirs 2\ntheirs 1\none\nmine 1\nmine 2\n"
    until(lambda: remote.texts() == {"/notes.md": everything}, "the second save is merged")


def test_what_follows_a_conflict_is_an_edit_of_its_own(worker: Worker, remote: Remote, path: Path) -> None:
    descriptor = os.open(path / "notes.md", os.O_RDWR)
    os.pwrite(descriptor, b"mine\n\nend\n", 0)
    remote.update("/notes.md", "theirs\n\nend\n")
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        os.fsync(descriptor)
    beside = next(name for name in remote.texts() if name != "/notes.md")
    os.pwrite(descriptor, b"more\n", 10)
    os.close(descriptor)
    assert remote.texts() == {"/notes.md": "theirs\n\nend\nmore\n", beside: "mine\n\nend\n"}


def test_the_next_program_begins_with_the_merged_text(worker: Worker, remote: Remote, path: Path) -> None:
    """Also while the kernel still names the node that had the path before the merge."""
    descriptor = os.open(path / "notes.md", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"mine\n")
    remote.update("/notes.md", "theirs\none\n")
    os.close(descriptor)
    assert (path / "notes.md").read_text() == "theirs\none\nmine\n"
    with (path / "notes.md").open("w") as file:
        file.write("anew\n")
    assert remote.texts() == {"/notes.md": "anew\n"}


class NothingStored(FakeEngine):
    """Every text is one that the server may never have."""

    def __init__(self) -> None:
        super().__init__()
        self.base_texts: list[bytes | None] = []

    def is_stored(self, entry: Entry) -> bool:
        return False

    def save(
        self, path: str, data: bytes, base: Entry | None, *, base_text: bytes | None = None, durable: bool = False
    ) -> Entry:
        if base is not None:
            self.base_texts.append(base_text)
        return super().save(path, data, base, durable=durable)


def _in_place(path: Path) -> None:
    with path.open("r+") as file:
        file.write("two")


def _anew(path: Path) -> None:
    path.write_text("two")


def _cut(path: Path) -> None:
    os.truncate(path, 2)


def _beside_and_over(path: Path) -> None:
    path.with_name(".notes.md.tmp1").write_text("two")
    path.with_name(".notes.md.tmp1").rename(path)


def _after_a_backup(path: Path) -> None:
    path.rename(path.with_name("notes.md~"))
    path.write_text("two")


def _over_a_backup(path: Path) -> None:
    path.with_name(".notes.md.tmp1").write_text("two")
    path.rename(path.with_name("notes.md~"))
    path.with_name(".notes.md.tmp1").rename(path)


@pytest.mark.parametrize("edit", [_in_place, _anew, _cut, _beside_and_over, _after_a_backup, _over_a_backup])
def test_a_save_brings_the_text_it_is_based_on(tmp_path: Path, edit: Callable[[Path], None]) -> None:
    engine = NothingStored()
    engine.other_writes("/notes.md", "one\n")
    with mounted(engine, tmp_path / "mnt") as mount:
        edit(mount.path / "notes.md")
        mount.settle()
    assert engine.base_texts == [b"one\n"]


class LateToTell(FakeEngine):
    """Its changes are told later; what a memory held before them is already gone."""

    def at_hand(self, entry: Entry) -> bytes | None:
        return self._stored.get(entry.sha256)

    def fetch(self, entry: Entry) -> bytes:
        if entry.sha256 not in self._stored:
            raise Refused(errno.ESTALE, "gone")
        return super().fetch(entry)

    def merges(self, path: str, text: str) -> None:
        with self._lock:
            del self._stored[self._entries[path].sha256]
            self._put(path, text.encode())


@pytest.mark.parametrize("mode", ["r", "r+", "a+"])
def test_a_text_that_was_merged_a_moment_ago_is_opened_as_what_it_is_now(tmp_path: Path, mode: str) -> None:
    engine = LateToTell()
    engine.other_writes("/notes.md", "mine\n")
    with mounted(engine, tmp_path / "mnt") as mount:
        assert (mount.path / "notes.md").stat().st_size == 5
        engine.merges("/notes.md", "theirs\nmine\n")
        with (mount.path / "notes.md").open(mode) as file:
            file.seek(0)
            assert file.read() == "theirs\nmine\n"


@pytest.mark.parametrize("read_only", [False, True])
def test_texts_that_were_fetched_are_not_kept_twice(tmp_path: Path, read_only: bool) -> None:
    """The engine's cache keeps them, and is bounded."""
    engine = FakeEngine()
    for number in range(50):
        engine.other_writes(f"/{number}.md", f"{number}\n")
    engine.forgets_content = True
    with mounted(engine, tmp_path / "mnt", read_only=read_only) as mount:
        for number in range(50):
            assert (mount.path / f"{number}.md").read_text() == f"{number}\n"
            assert _texts_in_memory(mount) == []
    assert len(engine.fetched) >= 50


def test_a_text_that_could_not_be_cut_does_not_stay_in_memory(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.other_writes("/notes.md", "one\n")
    with mounted(engine, tmp_path / "mnt") as mount:
        engine.refusal = Refused(errno.EDQUOT, "full")
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            os.truncate(mount.path / "notes.md", 2)
        assert _texts_in_memory(mount) == []
        assert (mount.path / "notes.md").read_text() == "one\n"


def _texts_in_memory(mount: Mounted) -> list[str]:
    with mount.filesystem.tree.lock:
        return [mount.filesystem.tree.path(file) for file in mount.filesystem.tree.files() if file.text is not None]
