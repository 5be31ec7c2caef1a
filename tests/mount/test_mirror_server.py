"""Mirrors on a real engine and a real server: what is written is in the history, by whom and once."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.api import StoreApi
from app.mount.mirror.applier import Applier
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.mirror.tree import Busy
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from tests.mount.engines import LABEL, Remote
from tests.mount.mirror_support import eventually, files_below
from tests.support.backends import Backend
from tests.support.servers import Server, serve

OLD = "one\ntwo\n"


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@dataclass
class Shown:
    """A mirror and its engine."""

    engine: StoreEngine
    front: MirrorFrontEnd
    path: Path

    def sh(self, command: str) -> None:
        subprocess.run(["bash", "-ec", command], cwd=self.path, check=True, timeout=60)

    def files(self) -> dict[str, str]:
        return files_below(self.path)


@contextmanager
def shown(remote: Remote, home: Path, name: str = "notes", *, read_only: bool = False) -> Iterator[Shown]:
    server = remote.server
    engine = StoreEngine(
        StoreApi(server.base_url, remote.store_id, lambda: server.api_key),
        directory=home / f"engine-{name}",
        content_cache=ContentCache(home / "cache"),
        read_only=read_only,
        label=LABEL,
    )
    front = MirrorFrontEnd(engine, home / name, state_dir=home / f"state-{name}", read_only=read_only)
    engine.start()
    try:
        front.start()
        try:
            yield Shown(engine, front, home / name)
        finally:
            assert front.stop(30) == []
    finally:
        assert engine.stop(30) == []


EDITS = {
    "shell >": "echo new > plan.md",
    "shell >>": "echo three >> plan.md",
    "sed -i": "sed -i s/new/1/ plan.md",
    "python, atomic": "python3 -c \"import os; open('p.tmp', 'w').write('new'); os.replace('p.tmp', 'plan.md')\"",
}


def test_each_edit_is_one_version_of_the_same_memory(remote: Remote, tmp_path: Path) -> None:
    memory_id = remote.create("/plan.md", OLD)
    with shown(remote, tmp_path) as mirror:
        for number, command in enumerate(EDITS.values(), start=2):
            mirror.sh(command)
            assert mirror.front.flush(30) == []
            assert len(remote.versions()) == number, command
            assert remote.texts() == mirror.files()
        assert remote.memories()["/plan.md"].id == memory_id
        mirror.sh("mkdir -p a/b; echo x > a/b/x.md; echo y > a/y.md")
        assert mirror.front.flush(30) == []
        ids = {path: memory.id for path, memory in remote.memories().items()}
        mirror.sh("mv a c; mv plan.md c/plan.md; rm c/y.md")
        assert mirror.front.flush(30) == []
        after = {path: memory.id for path, memory in remote.memories().items()}
        assert after == {"/c/b/x.md": ids["/a/b/x.md"], "/c/plan.md": memory_id}
    assert remote.texts() == {"/c/b/x.md": "x\n", "/c/plan.md": "new"}


def test_changes_by_api_clients_appear(remote: Remote, tmp_path: Path) -> None:
    remote.create("/plan.md", OLD)
    with shown(remote, tmp_path) as mirror:
        remote.update("/plan.md", "new\n")
        remote.create("/a/b.md", "b\n")
        eventually(lambda: mirror.files() == {"/plan.md": "new\n", "/a/b.md": "b\n"})
        remote.update("/a/b.md", new_path="/c/b.md")
        remote.delete("/plan.md")
        eventually(lambda: mirror.files() == {"/c/b.md": "b\n"})
        versions = remote.versions()
    assert remote.versions() == versions


def test_a_conflict_keeps_both_texts(remote: Remote, tmp_path: Path) -> None:
    remote.create("/plan.md", OLD)
    with shown(remote, tmp_path) as mirror:
        with open(mirror.path / "plan.md", "w") as file:
            file.write("one\nmine\n")
            file.flush()
            remote.update("/plan.md", "one\ntheirs\n")
            eventually(lambda: mirror.engine.get("/plan.md").size == len("one\ntheirs\n"))  # type: ignore[union-attr]
        eventually(lambda: mirror.files().get("/plan.md") == "one\ntheirs\n")
        assert mirror.front.flush(30) == []
        eventually(lambda: mirror.files() == remote.texts())
        assert sorted(remote.texts().values()) == ["one\nmine\n", "one\ntheirs\n"]


def test_two_mirrors_of_one_store_lose_no_line_and_double_none(remote: Remote, tmp_path: Path) -> None:
    remote.create("/log.md", "start\n")
    with shown(remote, tmp_path, "left") as left, shown(remote, tmp_path, "right") as right:

        def append(mirror: Shown, name: str) -> None:
            for number in range(25):
                with open(mirror.path / "log.md", "a") as file:
                    file.write(f"{name} {number}\n")

        writers = [threading.Thread(target=append, args=arguments) for arguments in ((left, "l"), (right, "r"))]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert left.front.flush(60) == right.front.flush(60) == []
        eventually(lambda: left.files() == right.files() == remote.texts())
        assert list(remote.texts()) == ["/log.md"]
        lines = remote.texts()["/log.md"].splitlines()
    assert sorted(lines) == sorted(["start", *(f"{name} {number}" for name in "lr" for number in range(25))])


def test_an_edit_made_before_the_merged_text_is_shown_is_merged_too(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts from a text that the server never had, and that no cache keeps."""

    def cannot_yet(*_: object) -> None:
        raise Busy

    remote.create("/plan.md", OLD)
    with shown(remote, tmp_path) as mirror:
        plan = mirror.path / "plan.md"
        with monkeypatch.context() as patched:
            patched.setattr(Applier, "replace", cannot_yet)
            with mirror.front._lock:
                plan.write_text(f"{OLD}mine\n")
                remote.update("/plan.md", f"theirs\n{OLD}")
            eventually(lambda: remote.texts()["/plan.md"] == f"theirs\n{OLD}mine\n")
            plan.write_text(f"{OLD}mine, and more\n")
            eventually(lambda: remote.texts()["/plan.md"] == f"theirs\n{OLD}mine, and more\n")
        eventually(lambda: mirror.files() == remote.texts())
        assert list(remote.texts()) == ["/plan.md"]


def test_what_was_written_while_the_server_was_away_is_saved_later(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with serve(backend.environment(tmp_path_factory.mktemp("away"))) as server, server.client() as client:
        store = client.beta.memory_stores.create(name="away")
        remote = Remote(server, client, store.id)
        remote.create("/plan.md", OLD)
        with shown(remote, tmp_path) as mirror:
            server.kill()
            mirror.sh("echo three >> plan.md; echo new > new.md")
            eventually(lambda: set(mirror.engine.status()["pending"]) == {"/plan.md", "/new.md"})
            server.start()
            assert mirror.front.flush(60) == []
        assert remote.texts() == {"/plan.md": OLD + "three\n", "/new.md": "new\n"}
        assert len(remote.versions()) == 3


def test_a_killed_mirror_saves_at_the_next_start_what_was_typed_meanwhile(remote: Remote, tmp_path: Path) -> None:
    memory_id = remote.create("/plan.md", OLD)
    remote.create("/old.md", "old\n")
    path = tmp_path / "notes"
    host = start_host(remote, tmp_path)
    (path / "before.md").write_text("before\n")
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    subprocess.run(
        ["bash", "-ec", "echo mine >> plan.md; mv old.md moved.md; echo after > after.md"], cwd=path, check=True
    )
    remote.update("/plan.md", f"theirs\n{OLD}")
    with shown(remote, tmp_path) as mirror:
        assert mirror.front.flush(30) == []
        expected = {
            "/plan.md": f"theirs\n{OLD}mine\n", "/moved.md": "old\n", "/before.md": "before\n", "/after.md": "after\n",
        }  # fmt: skip
        eventually(lambda: mirror.files() == expected)
        assert remote.texts() == expected
        assert remote.memories()["/plan.md"].id == memory_id
        assert len(remote.versions()) == 7


def start_host(remote: Remote, home: Path) -> subprocess.Popen[str]:
    """A process with a live mirror, as `shown` makes it."""
    arguments = [remote.server.base_url, remote.server.api_key, remote.store_id, str(home), "notes"]
    root = Path(__file__).parents[2]
    host = subprocess.Popen(
        [sys.executable, "-m", "tests.mount.mirror_host", *arguments], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert host.stdout is not None
    assert host.stdout.readline() == "live\n", shlex.join(host.args)  # type: ignore[arg-type]
    host.stdout.close()
    return host


def test_refusals_of_the_server_reach_the_status(remote: Remote, tmp_path: Path) -> None:
    with shown(remote, tmp_path) as mirror:
        mirror.sh("mkdir 'a b'; echo x > $'a b/n\\x07'; head -c 200000 /dev/zero > big.md; printf '\\xff' > raw.md")
        assert mirror.front.flush(30) == ["/a b/n\x07", "/big.md", "/raw.md"]
        refused: list[dict[str, Any]] = mirror.front.status()["refused"]
        assert [one["path"] for one in refused] == ["/a b/n\x07", "/big.md", "/raw.md"]
        mirror.sh("rm big.md raw.md 'a b'/*")
        eventually(lambda: mirror.front.status()["refused"] == [])
        assert remote.versions() == []


def test_a_read_only_mirror_shows_and_takes_nothing(remote: Remote, tmp_path: Path) -> None:
    remote.create("/plan.md", OLD)
    with shown(remote, tmp_path, read_only=True) as mirror:
        remote.update("/plan.md", "new\n")
        eventually(lambda: mirror.files() == {"/plan.md": "new\n"})
        versions = remote.versions()
    assert remote.versions() == versions
