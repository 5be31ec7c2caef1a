"""The mount against what POSIX says of file systems: our own table, our own exerciser, and stress-ng's stressors.

No package of pjdfstest or fsx can be had here (docs/mount.md, "POSIX suites: last results"). Every case of the table
runs on an ordinary file system too, which shows that it is the table that is right.
"""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.api import StoreApi
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse
from tests.mount.posix_expected import CASES, Case, outcome
from tests.support.servers import Server

DEVIATIONS = tomllib.loads(Path(__file__).with_name("posix_expected.toml").read_text())

SECONDS = 120


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    above = tmp_path_factory.mktemp("posix")
    open_to_others(above)
    with mounted(FakeEngine(), above / "mnt") as mount:
        yield mount


def open_to_others(directory: Path) -> None:
    """Let users get there who may do nothing else."""
    for above in (directory, *directory.parents[:3]):  # as deep as pytest's own go
        if not above.stat().st_mode & 0o001:
            above.chmod(0o755)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@needs_fuse
def test_a_promise_of_posix_is_kept_or_its_breach_is_known(case: Case, mount: Mounted) -> None:
    directory = mount.path / str(CASES.index(case))
    directory.mkdir()
    known = DEVIATIONS.get(case.name)
    assert outcome(case, directory) == (known["finds"] if known else case.expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@needs_fuse  # it means root, as which some of the promises are made
def test_an_ordinary_file_system_keeps_the_promise(case: Case, tmp_path: Path) -> None:
    open_to_others(tmp_path)
    directory = tmp_path / "d"
    directory.mkdir()
    assert outcome(case, directory) == case.expected


def test_every_known_breach_is_of_a_promise_and_has_its_reason() -> None:
    promises = {case.name: case.expected for case in CASES}
    assert DEVIATIONS.keys() <= promises.keys()
    for name, known in DEVIATIONS.items():
        assert known["finds"] != promises[name]
        assert known["reason"]


@pytest.fixture
def store_mount(server: Server, store: Store, tmp_path: Path) -> Iterator[Mounted]:
    """A store of a real server."""
    with mounted(engine_of(server, store, tmp_path), tmp_path / "mnt") as mount:
        yield mount


def engine_of(server: Server, store: Store, directory: Path) -> StoreEngine:
    return StoreEngine(
        StoreApi(server.base_url, store.id, lambda: server.api_key),
        directory=directory / "state",
        content_cache=ContentCache(directory / "cache"),
        read_only=False,
        label="test",
    )


def saved(mount: Mounted) -> None:
    mount.settle()
    assert mount.filesystem.flush(SECONDS) == []
    assert mount.filesystem.engine.flush(SECONDS) == []


@needs_fuse
@pytest.mark.parametrize("seed", range(4))
def test_random_reads_writes_truncates_and_maps_of_one_file(
    seed: int, store_mount: Mounted, client: anthropic.Anthropic, store: Store
) -> None:
    path = store_mount.path / "exercised.md"
    text = exercise(path, seed)
    saved(store_mount)
    assert texts(client, store) == [text]
    assert path.read_text() == text


@pytest.mark.parametrize("seed", range(2))
def test_the_same_in_a_mirror(
    seed: int, server: Server, client: anthropic.Anthropic, store: Store, tmp_path: Path
) -> None:
    engine = engine_of(server, store, tmp_path)
    front = MirrorFrontEnd(engine, tmp_path / "mirror", state_dir=tmp_path / "mirror-state", read_only=False)
    engine.start()
    try:
        front.start()
        try:
            path = tmp_path / "mirror" / "exercised.md"
            text = exercise(path, seed)
            assert front.flush(SECONDS) == []
            assert texts(client, store) == [text]
            assert path.read_text() == text
        finally:
            front.stop(SECONDS)
    finally:
        engine.stop(SECONDS)


def exercise(path: Path, seed: int) -> str:
    """Put a file through it; the text that it must have."""
    command = [sys.executable, "-m", "tests.mount.posix_exerciser", str(path), str(seed), "600"]
    # Not in this process, which could not answer for the mount while it waits for a page of it.
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def texts(client: anthropic.Anthropic, store: Store) -> list[str | None]:
    """What the store holds."""
    memories = client.beta.memory_stores.memories.list(store.id, view="full")
    return [memory.content for memory in memories if memory.type == "memory"]


STRESSORS = {
    "chdir": "--chdir-ops 200 --chdir-dirs 64",
    "chmod": "--chmod-ops 20",
    "chown": "--chown-ops 200",
    "dentry": "--dentry-ops 100",
    "dir": "--dir-ops 200",
    "dirdeep": "--dirdeep-ops 100",
    "dirmany": "--dirmany-ops 200",
    "dnotify": "--dnotify-ops 20",
    "dup": "--dup-ops 20",
    "fcntl": "--fcntl-ops 100",
    "filename": "--filename-ops 50",
    "flock": "--flock-ops 100",
    "fstat": "--fstat-ops 100",
    "getdent": "--getdent-ops 50",
    "handle": "--handle-ops 20",
    "inotify": "--inotify-ops 4",
    "lease": "--lease-ops 100",
    "lockf": "--lockf-ops 20",
    "open": "--open-ops 200",
    "rename": "--rename-ops 200",
    "touch": "--touch-ops 200",
    "utime": "--utime-ops 200",
}
"""So much of each that all of it is done, however slow the machine.

The other stressors of files need what a store has no place for: links (link, symlink), devices (mknod), binary content
or files of a mebibyte (copy-file, fiemap, hdd, msync, readahead, seek, sync-file), extended attributes (xattr); or
modes that are enforced (access).
"""


@needs_fuse
@pytest.mark.parametrize("stressor", STRESSORS)
@pytest.mark.skipif(shutil.which("stress-ng") is None, reason="stress-ng is not installed (Debian: stress-ng)")
def test_a_stressor_finds_nothing_wrong(stressor: str, mount: Mounted) -> None:
    directory = mount.path / f"stress-{stressor}"
    directory.mkdir()
    instances = (
        1 if stressor == "chmod" else 2
    )  # a second one waits for the first one's file, which may be gone by then
    command = (
        f"stress-ng --{stressor} {instances} {STRESSORS[stressor]} --timeout 50 --verify --no-rand-seed --temp-path"
    )
    done = mount.run(f"{command} '{directory}' 2>&1", check=False)
    assert done.returncode == 0, done.stdout
    assert "successful run completed" in done.stdout, done.stdout
    assert list(directory.iterdir()) == []
