"""Disks that are full are told as that, with their place, and never taken for a database that does not answer."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.contract.errors import Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(Unavailable):
    """A disk of this process's own, not of its database or blob store, has no room left."""


@contextmanager
def room_in(place: Path | str, advice: str) -> Iterator[None]:
    """Say in a sentence that the disk of `place` is full, should it be. `advice`: what is left there, what to do.

    Raises:
        NoRoom: it is.

    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoRoom(f"the disk of {str(place)!r} is full; {advice}") from error


@contextmanager
def temporary_room(what: str) -> Iterator[None]:
    """The same for `what` passes through temporary files."""
    place = tempfile.gettempdir()
    with room_in(place, f"{what} needs room there for a while: make some, or name another directory in TMPDIR"):
        yield


def roomiest(*directories: Path) -> Path:
    """Of the directories that can be written to, the one whose disk has the most room; else the first."""
    usable = [directory for directory in directories if os.access(directory, os.W_OK)]
    return max(usable, key=lambda directory: shutil.disk_usage(directory).free, default=directories[0])
