"""Programs as people use them, in a mounted store of a real server: what they leave is in the store, and its history.

The versions are read through the official SDK, as another user of the store would.
"""

import os
import pty
import select
import shutil
import subprocess
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.api import StoreApi
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse
from tests.mount.test_versions_per_edit import BEFORE, CREATIONS, EDITS, NO_EDITS, skip_without_tools
from tests.support.servers import Server

pytestmark = needs_fuse

SECONDS = 60


class Remote:
    """The store as others see it."""

    def __init__(self, client: anthropic.Anthropic, store: Store) -> None:
        self.store_id = store.id
        self.memories = client.beta.memory_stores.memories
        self._versions = client.beta.memory_stores.memory_versions

    def texts(self) -> dict[str, str | None]:
        listing = self.memories.list(memory_store_id=self.store_id, view="full", limit=20)
        return {item.path: item.content for item in listing if item.type == "memory"}

    def history(self) -> list[tuple[str, str | None]]:
        """Operation and path of every version, the oldest first."""
        versions = list(self._versions.list(memory_store_id=self.store_id))
        return [(version.operation, version.path) for version in reversed(versions)]

    def create(self, path: str, text: str) -> str:
        return self.memories.create(self.store_id, path=path, content=text).id

    def memory_id(self, path: str) -> str:
        listing = self.memories.list(memory_store_id=self.store_id, limit=20)
        return next(item.id for item in listing if item.type == "memory" and item.path == path)


@pytest.fixture
def remote(client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(client, store)


@pytest.fixture
def memory_id(remote: Remote) -> str:
    return remote.create("/notes.md", BEFORE)


@pytest.fixture
def mount(server: Server, store: Store, memory_id: str, tmp_path: Path) -> Iterator[Mounted]:
    engine = StoreEngine(
        StoreApi(server.base_url, store.id, lambda: server.api_key),
        directory=tmp_path / "state",
        content_cache=ContentCache(tmp_path / "cache"),
        read_only=False,
        label="test",
    )
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def saved(mount: Mounted) -> None:
    """Wait until everything closed so far is on the server."""
    mount.settle()
    assert mount.filesystem.flush(SECONDS) == []
    assert mount.filesystem.engine.flush(SECONDS) == []


FIRST = ("created", "/notes.md")


@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_is_one_version(mount: Mounted, remote: Remote, memory_id: str, edit: str) -> None:
    skip_without_tools(EDITS[edit])
    mount.run(EDITS[edit])
    saved(mount)
    assert remote.history() == [FIRST, ("modified", "/notes.md")]
    assert remote.memory_id("/notes.md") == memory_id
    assert remote.texts() == {"/notes.md": (mount.path / "notes.md").read_text()}


@pytest.mark.parametrize("script", NO_EDITS)
def test_what_changes_nothing_makes_no_version(mount: Mounted, remote: Remote, script: str) -> None:
    skip_without_tools(NO_EDITS[script])
    mount.run(NO_EDITS[script])
    saved(mount)
    assert remote.history() == [FIRST]


@pytest.mark.parametrize("how", CREATIONS)
def test_a_new_file_is_one_version(mount: Mounted, remote: Remote, how: str) -> None:
    skip_without_tools(CREATIONS[how])
    mount.run(CREATIONS[how])
    saved(mount)
    assert remote.history() == [FIRST, ("created", "/new.md")]


def test_moves_keep_the_id(mount: Mounted, remote: Remote, memory_id: str) -> None:
    mount.run("mkdir -p a/b && mv notes.md a/b/renamed.md && mv a c")
    saved(mount)
    assert remote.memory_id("/c/b/renamed.md") == memory_id
    assert remote.history() == [FIRST, ("modified", "/a/b/renamed.md"), ("modified", "/c/b/renamed.md")]


def test_a_tree_is_copied_packed_and_removed(mount: Mounted, remote: Remote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    expected: dict[str, str | None] = {"/notes.md": BEFORE}
    for number in range(40):
        path = source / f"d{number % 4}" / f"e{number % 3}" / f"f{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {number}\n")
        expected[f"/copy/{path.relative_to(source)}"] = f"text {number}\n"
    mount.run(f"cp -a '{source}' copy && diff -r '{source}' copy")
    saved(mount)
    assert remote.texts() == expected
    assert len(remote.history()) == len(expected)
    mount.run(f"tar cf '{tmp_path}/packed.tar' copy && mkdir unpacked && tar xf '{tmp_path}/packed.tar' -C unpacked")
    mount.run(f"diff -r '{source}' unpacked/copy && test $(find unpacked -type f | wc -l) = 40")
    mount.run("rm -rf copy unpacked && test ! -e copy")
    saved(mount)
    assert remote.texts() == {"/notes.md": BEFORE}


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_again_and_again(mount: Mounted, remote: Remote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        (source / f"{number}.md").write_text(f"text {number}\n")
    for _ in range(2):
        mount.run(f"rsync -a --delete '{source}/' synced/")
        saved(mount)
        assert remote.history()[1:] == [("created", f"/synced/{number}.md") for number in range(10)]
    (source / "3.md").write_text("changed\n")
    (source / "4.md").unlink()
    mount.run(f"rsync -a --delete '{source}/' synced/")
    saved(mount)
    assert sorted(remote.history()[11:]) == [("deleted", "/synced/4.md"), ("modified", "/synced/3.md")]


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_of_decomposed_names_is_one_memory_each(mount: Mounted, remote: Remote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("Müller", "größe"):
        (source / f"{unicodedata.normalize('NFD', name)}.md").write_text(f"{name}\n")
    for _ in range(2):
        mount.run(f"rsync -a '{source}/' synced/")
        saved(mount)
        assert sorted(remote.history()[1:]) == [("created", "/synced/Müller.md"), ("created", "/synced/größe.md")]


def test_git_says_that_it_can_not_live_here(mount: Mounted, remote: Remote) -> None:
    """Its objects are binary. `git init` writes text alone, and works; the first object is refused, and git says so."""
    mount.run("git init -q repository")
    result = mount.run("cd repository && git hash-object -w ../notes.md", check=False)
    assert result.returncode != 0
    assert "Invalid or incomplete multibyte" in result.stderr
    mount.run("rm -rf repository")
    saved(mount)
    assert remote.texts() == {"/notes.md": BEFORE}


def type_into(command: list[str], directory: Path, keys: list[bytes]) -> None:
    """Run a program in a terminal and press keys, each when the program waits for the next."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm", LC_ALL="C.UTF-8", HOME=str(directory.parent))
        os.chdir(directory)
        os.execvp(command[0], command)
    end = time.monotonic() + SECONDS
    try:
        for key in [*keys, b""]:
            # It waits for a key when it has stopped printing.
            while select.select([terminal], [], [], 0.3)[0]:
                assert time.monotonic() < end, f"{command} prints without end"
                if not os.read(terminal, 65536):
                    break
            if key:
                os.write(terminal, key)
    except OSError:
        pass  # it has ended
    finally:
        _, status = os.waitpid(process, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_vim_in_a_terminal(mount: Mounted, remote: Remote, memory_id: str) -> None:
    for number in range(2):
        type_into(["vim", "-u", "NONE", "notes.md"], mount.path, [b"Gohello\x1b", b":w\r", b"oagain\x1b", b":wq\r"])
        saved(mount)
        assert remote.history() == [FIRST, *[("modified", "/notes.md")] * (2 * number + 2)]
    assert remote.texts() == {"/notes.md": BEFORE + "hello\nagain\n" * 2}
    assert remote.memory_id("/notes.md") == memory_id
    assert os.listdir(mount.path) == ["notes.md"]


@pytest.mark.skipif(shutil.which("nano") is None, reason="nano is not installed")
@pytest.mark.parametrize("options", [[], ["-B"]], ids=["plain", "with a backup"])
def test_nano_in_a_terminal(mount: Mounted, remote: Remote, memory_id: str, options: list[str]) -> None:
    type_into(["nano", "-I", *options, "notes.md"], mount.path, [b"hello ", b"\x0f", b"\r", b"\x18"])
    mount.settle()
    if options:
        assert remote.texts()["/notes.md"] == "hello " + BEFORE
        mount.run("rm notes.md~")
    saved(mount)
    assert remote.history() == [FIRST, ("modified", "/notes.md")]
    assert remote.texts() == {"/notes.md": "hello " + BEFORE}
    assert remote.memory_id("/notes.md") == memory_id


def test_others_see_what_the_mount_wrote_and_the_mount_what_others_wrote(
    mount: Mounted, remote: Remote, memory_id: str
) -> None:
    path = mount.path / "notes.md"
    for number in range(20):
        mount.run(f"echo {number} > notes.md")
        assert remote.texts() == {"/notes.md": f"{number}\n"}
    remote.create("/theirs.md", "hello")
    end = time.monotonic() + SECONDS
    while not (mount.path / "theirs.md").exists():
        assert time.monotonic() < end
    assert (mount.path / "theirs.md").read_text() == "hello"
    assert path.read_text() == "19\n"
    assert os.getxattr(path, "user.memstore.id").decode() == memory_id


def test_programs_that_hold_a_descriptor(mount: Mounted, remote: Remote) -> None:
    script = """
import os
descriptor = os.open("notes.md", os.O_RDWR)
os.unlink("notes.md")
assert os.fstat(descriptor).st_nlink == 0
assert os.read(descriptor, 3) == b"one"
os.write(descriptor, b"lost")
os.close(descriptor)
first, second = (os.open("log.md", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2))
for number in range(20):
    os.write((first, second)[number % 2], b"%d\\n" % number)
os.close(first)
os.close(second)
"""
    subprocess.run(["python3", "-c", f"import os\nos.chdir({str(mount.path)!r})\n{script}"], check=True)
    saved(mount)
    assert remote.texts() == {"/log.md": "".join(f"{number}\n" for number in range(20))}
