"""A read-only attachment shows changes of others, and takes none."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.mount.mirror import syscalls
from tests.mount.mirror_support import FakeStore, Mirror, eventually
from tests.mount.test_mirror_lifetime import is_mounted, may_mount

FILES = {"/plan.md": "one\n", "/deep/a.md": "a\n"}


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(FILES)


@pytest.fixture
def bound(store: FakeStore, tmp_path: Path) -> Iterator[Mirror]:
    if not may_mount(tmp_path):
        pytest.skip("bind mounts are not allowed here")
    with Mirror(store, tmp_path, read_only=True) as mirror:
        yield mirror
    assert not is_mounted(mirror.path)


def refuse_to_mount(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture
def by_modes(store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(syscalls, "mount", refuse_to_mount)
    with Mirror(store, tmp_path, read_only=True) as mirror:
        yield mirror


WRITES = ["echo x > plan.md", "echo x > new.md", "rm plan.md", "mv plan.md b.md", "mkdir d", "chmod 777 plan.md"]


@pytest.mark.parametrize("write", WRITES)
def test_the_kernel_refuses_every_write_to_a_read_only_bind_mount(store: FakeStore, bound: Mirror, write: str) -> None:
    with pytest.raises(OSError, match="Read-only") as refused:
        try_to_write(bound.path)
    assert refused.value.errno == errno.EROFS
    assert shell_error(bound, write).strip().endswith("Read-only file system")
    assert bound.files() == FILES
    assert bound.front.status()["protection"] == "bind"


def try_to_write(path: Path) -> None:
    (path / "new.md").write_text("x")


def shell_error(mirror: Mirror, command: str) -> str:
    import subprocess

    done = subprocess.run(["bash", "-c", command], cwd=mirror.path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    return done.stderr


def test_changes_of_others_appear_in_a_read_only_bind_mount(store: FakeStore, bound: Mirror) -> None:
    store.put("/plan.md", b"new")
    store.put("/x/y.md", b"y")
    store.drop("/deep/a.md")
    eventually(lambda: bound.files() == store.files())
    assert bound.stop() == []
    assert list(bound.path.iterdir()) == []


def test_a_dead_mirrors_bind_mount_does_not_block_the_next(store: FakeStore, bound: Mirror) -> None:
    from app.mount.mirror import binding

    source = bound.front._bound
    assert source is not None
    bound.die()
    assert binding.bind(source, bound.path, read_only=True)  # what a killed process leaves
    store.put("/plan.md", b"new")
    bound.live_again()
    eventually(lambda: bound.files() == store.files())


def test_modes_stop_others_where_mounting_is_not_allowed(store: FakeStore, by_modes: Mirror) -> None:
    assert (by_modes.path / "plan.md").stat().st_mode & 0o777 == 0o444
    assert (by_modes.path / "deep").stat().st_mode & 0o777 == 0o555
    assert by_modes.path.stat().st_mode & 0o777 == 0o555
    assert by_modes.front.status()["protection"] == "modes"


CHANGES = {
    "edit": ("echo x > plan.md", "/plan.md"),
    "atomic save": ("sed -i s/one/1/ plan.md", "/plan.md"),
    "new file": ("echo x > new.md", "/new.md"),
    "binary file": ("printf '\\xff' > new.md", "/new.md"),
    "link": ("ln -s plan.md new.md", "/new.md"),
    "moved over another": ("mv plan.md deep/a.md", "/deep/a.md"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_owner_changed_all_the_same_is_taken_back(store: FakeStore, by_modes: Mirror, change: str) -> None:
    command, path = CHANGES[change]
    by_modes.sh(command)
    eventually(lambda: path in [one["path"] for one in by_modes.front.status()["reverted"]])
    eventually(lambda: by_modes.files() == FILES)
    assert by_modes.settle() == []
    assert by_modes.engine.calls == []


def names_below(root: Path) -> list[str]:
    """All names; what goes away during the look may be among them or not."""
    return sorted(name for _, directories, files in os.walk(root) for name in (*directories, *files))


@pytest.mark.parametrize("command", ["rm plan.md", "rm -r deep || true", "mv deep moved", "mkdir -p x/y"])
def test_what_the_owner_took_away_comes_back(store: FakeStore, by_modes: Mirror, command: str) -> None:
    by_modes.sh(command)
    eventually(lambda: names_below(by_modes.path) == ["a.md", "deep", "plan.md"])
    assert by_modes.files() == FILES
    assert store.files() == FILES
    assert by_modes.engine.calls == []


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
@pytest.mark.parametrize("protection", ["bind", "modes"])
def test_a_directory_that_is_closed_to_others_stays_closed(
    store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protection: str, mode: int
) -> None:
    if protection == "modes":
        monkeypatch.setattr(syscalls, "mount", refuse_to_mount)
    elif not may_mount(tmp_path):
        pytest.skip("bind mounts are not allowed here")
    root = tmp_path / "notes"
    root.mkdir(mode=mode)
    with Mirror(store, tmp_path, read_only=True) as mirror:
        assert mirror.front.status()["protection"] == protection
        assert stat.S_IMODE(root.stat().st_mode) == mode & 0o555
        mirror.die()
        mirror.live_again()
        assert stat.S_IMODE(root.stat().st_mode) == mode & 0o555
    assert stat.S_IMODE(root.stat().st_mode) == mode
