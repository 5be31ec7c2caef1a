"""What mounting needs of the machine."""

import os
import shutil
import sys
from pathlib import Path

from scripts.bench.errors import MeasurementError
from scripts.bench.processes import run

_DEVICE = Path("/dev/fuse")


def need_fuse() -> None:
    """Stop before anything is started.

    Raises:
        MeasurementError: nothing can be mounted here.
    """
    if not _DEVICE.exists():
        raise MeasurementError(f"this machine has no {_DEVICE}")
    if os.geteuid() != 0 or not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise MeasurementError(f"mounting needs root and the right to use {_DEVICE}")


def need_rclone() -> None:
    """The same for rclone's mount."""
    if shutil.which("rclone") is None:
        raise MeasurementError("rclone is not installed (apt-get install rclone fuse3)")
    if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        raise MeasurementError("rclone mounts by fusermount3, which is not installed (apt-get install fuse3)")


def need_mfusepy() -> None:
    """The same for the smallest file system on mfusepy."""
    try:
        run([sys.executable, "-W", "ignore", "-c", "import mfusepy"], seconds=30)
    except MeasurementError:
        raise MeasurementError("mfusepy can't be imported (pip install mfusepy; apt-get install libfuse3-3)") from None
