"""A mount that ends while somebody uses it, and one that has ended without anybody's doing."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.mount.daemon.frontends import FuseFrontEnd
from app.mount.daemon.supervisor import Custody
from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.mounting import Options
from tests.mount.fake_engine import FakeEngine
from tests.mount.fuse_mounts import Mounts
from tests.mount.mounted import SECONDS, needs_fuse
from tests.mount.tiny import TinyFilesystem

pytestmark = needs_fuse


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    while any(mounted.path == str(path) for mounted in mounting.ours()):
        mounting.unmount(str(path), lazy=True)


@pytest.fixture(params=["listed", "not listed"])
def connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Systems that mount the list of connections, and systems that don't."""
    listed = tmp_path / "connections"
    listed.mkdir()
    monkeypatch.setattr(mounting, "CONNECTIONS", str(listed))
    if request.param == "not listed":
        yield
        return
    subprocess.run(["mount", "-t", "fusectl", "fusectl", listed], check=True)
    try:
        yield
    finally:
        mounting.unmount(str(listed))


@pytest.mark.usefixtures("connections")
def test_who_still_uses_a_mount_that_ends_is_told(path: Path) -> None:
    engine = FakeEngine()
    engine.other_writes("/notes.md", "one\n")
    device = mounting.open_device()
    mounting.mount(device, str(path), Options("memory"))
    front = FuseFrontEnd(engine, device, Custody(None, {}, {}, 0), "memory", read_only=False, path=None)
    front.start()
    # The user waits in the mount: a process that this one starts can't be there before it.
    user = subprocess.Popen(
        ["bash", "-c", f"cd '{path}' && echo there && read -r _ && cat notes.md"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={"LC_ALL": "C"},
    )  # fmt: skip
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == "there\n"
        mounting.unmount(str(path), lazy=True)
        assert front.stop(SECONDS) == []
        with pytest.raises(OSError, match="Bad file descriptor"):  # it was closed: nobody reads from it any more
            os.fstat(device)
        told, _ = user.communicate("\n", SECONDS)
    assert "Transport endpoint is not connected" in told or "Software caused connection abort" in told


def test_a_mount_whose_attributes_the_kernel_knows_is_found_dead_all_the_same(mounts: Mounts) -> None:
    path, session = mounts.mount(TinyFilesystem({"a.md": b"alpha"}))
    assert path.stat().st_nlink
    assert not mounting.is_dead(str(path))
    number = mounting.connection(session.fd)
    assert number == os.minor(path.stat().st_dev)
    mounting.abort(number)
    session.join(SECONDS)
    assert mounting.is_dead(str(path))
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.statvfs(path)
