"""A store mounted by this process, and programs that use it."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from app.mount.fuse.filesystem.filesystem import FileSystem
from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.mounting import Options
from app.mount.sync.engine import StoreEngine
from app.mount.sync.kept import KeptTexts
from tests.mount.fake_engine import FakeEngine

E = TypeVar("E", bound=StoreEngine)

SECONDS = 60


def missing() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if not os.path.exists(mounting.DEVICE):
        return "there is no /dev/fuse"
    if os.geteuid() != 0 or not os.access(mounting.DEVICE, os.R_OK | os.W_OK):
        return "mounting needs root and access to /dev/fuse"
    return None


needs_fuse = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Mounted:
    """A mounted store."""

    def __init__(self, path: Path, filesystem: FileSystem, session: Session) -> None:
        self.path = path
        self.filesystem = filesystem
        self.session = session

    def run(self, script: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a bash script in the mount."""
        # It goes there itself: this process would hold its interpreter's lock while it waited for its own answer.
        result = subprocess.run(
            ["bash", "-c", f"cd '{self.path}' && {{\n{script}\n}}"],
            capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert not check or result.returncode == 0, (script, result)
        return result

    def settle(self) -> None:
        """Wait until every close so far has reached the engine."""
        os.statvfs(self.path)
        assert self.filesystem.saver.gate.wait_until_empty(SECONDS)
        os.statvfs(self.path)
        assert self.filesystem.saver.gate.wait_until_empty(SECONDS)

    def told(self) -> None:
        """Wait until the kernel knows of every change so far."""
        self.filesystem.housekeeper.barrier(SECONDS)


@contextmanager
def mounted(engine: StoreEngine, path: Path, *, read_only: bool = False) -> Iterator[Mounted]:
    """Mount the store of an engine at a directory that is made for it; the engine is started and stopped."""
    path.mkdir(exist_ok=True)
    if isinstance(engine, FakeEngine):
        engine.kept = KeptTexts(path.parent / "kept")
    descriptor = mounting.open_device()
    with ThreadPoolExecutor(16) as pool:
        try:
            filesystem = FileSystem(engine, read_only=read_only)
            engine.start()
            session = Session(descriptor, filesystem, pool=pool, wishes=filesystem.wishes)
            mounting.mount(descriptor, str(path), Options(name="memory", read_only=read_only))
            try:
                filesystem.start(session)
                yield Mounted(path, filesystem, session)
            finally:
                mounting.unmount(str(path), lazy=True)
                session.join(SECONDS)
                filesystem.stop()
                engine.stop(SECONDS)
        finally:
            os.close(descriptor)
