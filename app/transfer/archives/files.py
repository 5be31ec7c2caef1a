"""A file that appears under its name when it is whole, or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.contract.errors import InvalidRequest
from app.storage.contents.disks import room_in

_MODE = 0o600
"""It holds everything that is in a store: for its owner alone, until the owner says otherwise."""

_ADVICE = "nothing new is left there: make room, or name a file on another disk"


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """Write a file that is not there yet; durable at the end of the context.

    Raises:
        InvalidRequest: something has this name already.
        NoRoom: its disk is full.

    """
    if target.exists():
        raise InvalidRequest(f"{str(target)!r} is there already; remove it first, or name another file")
    with room_in(target, _ADVICE), _written_beside(target) as (file, name):
        yield file
        _finish(file, name)
        try:
            os.link(name, target)
        except FileExistsError:
            raise InvalidRequest(f"{str(target)!r} came to be meanwhile and is not overwritten") from None


@contextlib.contextmanager
def replaced_file(target: Path) -> Iterator[BinaryIO]:
    """Write a file in the place of whatever has its name; durable at the end of the context.

    Raises:
        NoRoom: its disk is full.

    """
    if not (target.is_file() or not target.exists()):
        with target.open("wb") as device:  # such as /dev/stdout
            yield device
        return
    with room_in(target, _ADVICE), _written_beside(target) as (file, name):
        yield file
        _finish(file, name)
        os.replace(name, target)


@contextlib.contextmanager
def _written_beside(target: Path) -> Iterator[tuple[BinaryIO, str]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:200]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file, name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _finish(file: BinaryIO, name: str) -> None:
    file.flush()
    os.fsync(file.fileno())
    os.chmod(name, _MODE)
