"""Making, finding and ending mounts."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.mounting import Options
from app.mount.fuse.kernel.protocol import Opcode
from app.mount.fuse.kernel.requests import Operations
from app.mount.sync.errors import MountError
from tests.mount.fuse_mounts import LIVE_SECONDS, Mounts
from tests.mount.tiny import TinyFilesystem

WAIT_SECONDS = 60.0


@pytest.fixture
def tiny() -> TinyFilesystem:
    return TinyFilesystem({"a.md": b"alpha\n"})


def entry_of(path: Path) -> mounting.Mounted:
    (entry,) = [mounted for mounted in mounting.ours() if mounted.path == str(path)]
    return entry


def test_a_mount_shows_its_name_and_kind(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    entry = entry_of(path)
    assert (entry.fs_type, entry.source, entry.read_only) == ("fuse.memstore", "test", False)
    assert entry.device_minor == os.minor(path.stat().st_dev)


def test_a_read_only_mount_refuses_every_change_before_it_reaches_us(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, session = mounts.mount(tiny, read_only=True)
    assert entry_of(path).read_only
    script = "echo x > a.md; echo x >> a.md; echo x > new.md; rm a.md; mv a.md b.md; mkdir d; truncate -s 0 a.md"
    for command in script.split("; "):
        shell = subprocess.run(
            ["sh", "-c", f"cd {path} && {command}"], check=False, capture_output=True, text=True, timeout=WAIT_SECONDS
        )
        assert shell.returncode != 0, command
        assert os.strerror(errno.EROFS) in shell.stderr, command
    assert not os.access(path / "a.md", os.W_OK)
    assert tiny["a.md"] == b"alpha\n"
    changing = (Opcode.WRITE, Opcode.CREATE, Opcode.UNLINK, Opcode.RENAME, Opcode.RENAME2, Opcode.MKDIR, Opcode.SETATTR)
    assert [session.messages[opcode] for opcode in changing] == [0] * len(changing)


def test_the_call_of_older_kernels_makes_the_same_mount(
    mounts: Mounts, tiny: TinyFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(fd: int, options: Options) -> int:
        raise OSError(errno.ENOSYS, "no fsopen")

    monkeypatch.setattr(mounting, "detached", unknown)
    path, _ = mounts.mount(tiny, read_only=True)
    entry = entry_of(path)
    assert (entry.fs_type, entry.source, entry.read_only) == ("fuse.memstore", "test", True)
    assert (path / "a.md").read_bytes() == b"alpha\n"


def test_other_users_may_use_a_mount_unless_it_is_private(mounts: Mounts, tiny: TinyFilesystem) -> None:
    other = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "cat"]
    for name, allow_other, status in (("shared", True, 0), ("private", False, 1)):
        path = mounts.place(name)
        path.parent.chmod(0o755)
        fd = mounting.open_device()
        mounting.mount(fd, str(path), Options(name, allow_other=allow_other))
        session = mounts.serve(fd, tiny)
        assert session.live.wait(LIVE_SECONDS)
        assert subprocess.run([*other, path / "a.md"], check=False, capture_output=True).returncode == status


@pytest.mark.parametrize("name", ["with space", "tab\there", "back\\slash", "ünïcode"])
def test_paths_come_out_of_the_mount_table_as_they_are(mounts: Mounts, tiny: TinyFilesystem, name: str) -> None:
    path, _ = mounts.mount(tiny, name=name)
    assert entry_of(path).path == str(path)


def test_a_missing_or_closed_device_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="does not exist"):
        mounting.open_device(str(tmp_path / "fuse"))
    (tmp_path / "directory").mkdir()
    with pytest.raises(MountError, match="can't be opened"):
        mounting.open_device(str(tmp_path / "directory"))


def test_mounting_on_nothing_is_an_error_and_leaves_nothing(fuse: None, tmp_path: Path) -> None:
    before = mounting.table()
    fd = mounting.open_device()
    try:
        with pytest.raises(FileNotFoundError):
            mounting.mount(fd, str(tmp_path / "missing"), Options("test"))
    finally:
        os.close(fd)
    assert mounting.table() == before


class TestDeadMounts:
    def die(self, mounts: Mounts, path: Path) -> None:
        """Mount something that nobody will ever serve."""
        fd = mounting.open_device()
        mounting.mount(fd, str(path), Options("test"))
        os.close(fd)

    def test_a_dead_mount_is_taken_away_and_a_living_one_stays(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        alive, _ = mounts.mount(tiny, name="alive")
        dead = mounts.place("dead")
        self.die(mounts, dead)
        with pytest.raises(OSError) as raised:  # noqa: PT011
            dead.stat()
        assert raised.value.errno == errno.ENOTCONN
        assert mounting.clean_up(str(alive.parent)) == [str(dead)]
        assert dead.is_dir()
        assert (alive / "a.md").read_bytes() == b"alpha\n"

    def test_several_over_one_another_go_at_once(self, mounts: Mounts) -> None:
        path = mounts.place("dead")
        fds = [mounting.open_device() for _ in range(3)]
        for fd in fds:  # all before one dies, since nothing can be mounted on a dead one
            under = mounting.detached(fd, Options("test"))
            mounting.attach(under, str(path))
            os.close(under)
        for fd in fds:
            os.close(fd)
        assert mounting.clean_up(str(path)) == [str(path)] * 3
        assert path.is_dir()

    def test_one_that_hangs_is_ended_by_force_and_frees_who_waits_for_it(
        self, mounts: Mounts, tiny: TinyFilesystem
    ) -> None:
        alive, _ = mounts.mount(tiny, name="alive")
        path = mounts.place("silent")
        fd = mounting.open_device()
        try:
            mounting.mount(fd, str(path), Options("test"))
            with subprocess.Popen(["stat", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as waiting:
                assert mounting.clean_up(str(path.parent), patience=1.0) == [str(path)]
                assert waiting.wait(WAIT_SECONDS) in (0, 1)  # the one is the mount's end, the other the bare directory
        finally:
            os.close(fd)
        assert os.listdir(path) == []
        assert (alive / "a.md").read_bytes() == b"alpha\n"

    def test_a_neighbour_with_a_longer_name_is_not_below(self, mounts: Mounts) -> None:
        path, longer = mounts.place("memory"), mounts.place("memory-of-another")
        self.die(mounts, longer)
        assert mounting.clean_up(str(path)) == []
        assert mounting.is_dead(str(longer))


def test_the_directory_of_mount_points_holds_them_and_takes_nothing(mounts: Mounts, tiny: TinyFilesystem) -> None:
    root = mounts.place("root")
    tree = mounting.directory(["notes", "reference"])
    mounting.attach(tree, str(root))
    os.close(tree)
    assert sorted(os.listdir(root)) == ["notes", "reference"]
    mounted = root / "notes"
    mount_here(mounts, tiny, mounted)
    try:
        assert (mounted / "a.md").read_bytes() == b"alpha\n"
        script = f"cd {root}; mount -o remount,bind,rw .; touch file; mkdir store; rmdir reference"
        subprocess.run(["sh", "-c", script], check=False, capture_output=True)
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            (root / "file").touch()
        assert sorted(os.listdir(root)) == ["notes", "reference"]
    finally:
        mounting.unmount(str(mounted), lazy=True)


def mount_here(mounts: Mounts, operations: Operations, path: Path) -> None:
    fd = mounting.open_device()
    mounting.mount(fd, str(path), Options("test"))
    session = mounts.serve(fd, operations)
    assert session.live.wait(LIVE_SECONDS)


def test_a_mount_in_use_is_busy_unless_let_go_lazily(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, session = mounts.mount(tiny)
    with (path / "a.md").open("rb"):
        with pytest.raises(OSError, match="umount2") as raised:
            mounting.unmount(str(path))
        assert raised.value.errno == errno.EBUSY
        mounting.unmount(str(path), lazy=True)
        assert not [mounted for mounted in mounting.ours() if mounted.path == str(path)]
    assert session.join(WAIT_SECONDS)
