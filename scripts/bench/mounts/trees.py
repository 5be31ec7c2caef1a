"""The 2,000 files that every side shows, and what else shows them: tmpfs, rclone's mount, mfusepy's smallest."""

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.processes import run, running

SHAPE = Shape(stores=1, memories_per_store=2_000, content_bytes=4_096, directories=20)
FILES = SHAPE.memories_per_store

_REPOSITORY = Path(__file__).parents[3]
_LIVE_SECONDS = 20.0
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def names() -> list[str]:
    """The paths of the files below the root of a side."""
    return [dataset.path(SHAPE, number).removeprefix("/") for number in range(FILES)]


@contextmanager
def tmpfs(at: Path) -> Iterator[Path]:
    """A tmpfs that holds the files, with the contents that the product's database has."""
    at.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=1g", "memstore-bench", str(at)], seconds=30)
    try:
        for number, name in enumerate(names()):
            file = at / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(dataset.content(SHAPE, number, 0))
        yield at
    finally:
        detach(at)


@contextmanager
def rclone(bench: Bench, source: Path, at: Path) -> Iterator[Path]:
    """A mount by rclone of a directory, with the kernel's caches on for an hour as the product has them."""
    command = [
        *("rclone", "mount", str(source), str(at), "--attr-timeout", "1h", "--dir-cache-time", "1h"),
        *("--poll-interval", "0", "--config", os.devnull, "--cache-dir", str(bench.new_path("rclone-cache"))),
    ]
    with _mounted_by(bench, command, at):
        yield at


@contextmanager
def mfusepy(bench: Bench, source: Path, at: Path) -> Iterator[Path]:
    """The smallest file system on mfusepy, with the same files in its memory."""
    with _mounted_by(bench, [sys.executable, "-m", "scripts.bench.mounts.smallest", str(source), str(at)], at):
        yield at


@contextmanager
def _mounted_by(bench: Bench, command: Sequence[str], at: Path) -> Iterator[None]:
    at.mkdir()
    log = bench.new_path("mount.log")
    try:
        with running(command, directory=_REPOSITORY, log=log, environment={}, cpus=bench.cores.every) as process:
            give_up = time.monotonic() + _LIVE_SECONDS
            while not os.path.ismount(at):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise MeasurementError(f"{command[0]} mounted nothing:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.02)
            yield
    finally:
        detach(at)


def detach(at: Path) -> None:
    """Take away what is mounted at a directory, and the directory; programs that still use it keep nobody waiting."""
    _libc.umount2(os.fsencode(at), _MNT_DETACH)
    with contextlib.suppress(OSError):
        at.rmdir()
