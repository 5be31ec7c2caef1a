"""Reading ordinary files and nothing else: a pipe, a device or a socket under a file's name blocks no start."""

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(OSError):
    """Something else than an ordinary file has the name. The text is a sentence with its path and kind."""


class TooLong(OSError):
    """The file holds more than may be in it. The text is a sentence."""


def require(path: Path | str) -> None:
    """See that there is an ordinary file, or a link to one.

    Raises:
        NotRegular: there is something else.
        OSError: as of stat(2).

    """
    _require(path, os.stat(path).st_mode)


def read(path: Path | str, most: int | None = None) -> bytes:
    """The content of an ordinary file. Nothing is waited for, whatever has the name.

    most: bytes that may be in it; None is no bound.

    Raises:
        NotRegular: as of `require`.
        TooLong: there are more bytes.
        OSError: as of open(2) and read(2).

    """
    require(path)  # Opening a device or a pipe can do something; what the name means may change until then.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        _require(path, os.fstat(file.fileno()).st_mode)
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise TooLong(f"{path} holds more than {most:,} bytes")
    return content


def _require(path: Path | str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegular(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}; an ordinary file belongs there")
