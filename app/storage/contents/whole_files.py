"""Small files that are there whole and durable, or not at all: no reader, crash or full disk ever sees a part."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file for its owner alone; it is on disk when this returns, and whatever fails leaves what was before.

    replace: False leaves a file alone that is there already.

    Raises:
        FileExistsError: something has this name, and it is not to be replaced.
        OSError: as of open(2), write(2) and rename(2).

    """
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(beside, path)
        else:
            _place_new(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _place_new(beside: Path, path: Path) -> None:
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:
        # This file system has no hard links: between the look and the move somebody else may be as quick.
        if path.exists():
            raise FileExistsError(17, os.strerror(17), str(path)) from None
        os.replace(beside, path)
    else:
        beside.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
