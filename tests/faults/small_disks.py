"""Disks that a test can fill up and make room on again."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import short_directory
from tests.support.servers import Server

_FILLER = "filler"
_PIECE = bytes(65_536)


class SmallDisk:
    """A disk of some megabytes; `directory` is on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self) -> None:
        """Leave no room at all."""
        with contextlib.suppress(OSError), (self.directory / _FILLER).open("ab", buffering=0) as filler:
            while filler.write(_PIECE):
                pass

    def free(self) -> None:
        """Make room again."""
        (self.directory / _FILLER).unlink()


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[SmallDisk]:
    """A real file system of its own that is really full; `size` as for mount, such as `16m`.

    Skips the test where none can be mounted.
    """
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None or sys.platform != "linux":
        pytest.skip("a small disk can be mounted by root on Linux only")
    with short_directory() as directory:
        directory.chmod(0o755)  # the database server's user comes by
        command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
        try:
            yield SmallDisk(directory)
        finally:
            # Lazily: a server that the test failed to stop must not keep it.
            subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextlib.contextmanager
def no_file_may_grow(server: Server) -> Iterator[None]:
    """For want of a small disk: every write of the server to a file fails, as on a full one (EFBIG for ENOSPC)."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("the limits of a running process can be changed on Linux only")
    process = server.process.pid
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)
