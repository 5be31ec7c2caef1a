"""Archives and directories that are written piece by piece, in bounded memory."""

import errno
import io
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, Protocol, get_args

import zstandard

from app.contract.errors import InvalidRequest

ArchiveFormat = Literal["tar", "tar.gz", "tar.zst", "zip"]
FORMATS: tuple[ArchiveFormat, ...] = get_args(ArchiveFormat)

MEDIA_TYPES: dict[ArchiveFormat, str] = {
    "tar": "application/x-tar",
    "tar.gz": "application/gzip",
    "tar.zst": "application/zstd",
    "zip": "application/zip",
}

_SUFFIXES: dict[str, ArchiveFormat] = {
    ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.zst": "tar.zst", ".zip": "zip",
}  # fmt: skip
_UNKNOWN_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".txz", ".tbz", ".tbz2")
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_BLOCK = 512
_OWN_MODE = 0o644
_EARLIEST_ZIP = (1980, 1, 1, 0, 0, 0)


def format_of(name: str) -> ArchiveFormat | None:
    """The archive that a file's name asks for; None is a directory.

    Raises:
        InvalidRequest: the name ends like an archive of a kind that is not written.

    """
    lower = name.lower()
    for suffix, archive_format in _SUFFIXES.items():
        if lower.endswith(suffix):
            return archive_format
    if lower.endswith(_UNKNOWN_SUFFIXES):
        raise InvalidRequest(f"{name!r} names no archive that can be written; end it with {', '.join(_SUFFIXES)}")
    return None


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _AsItIs:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class ArchiveWriter(ABC):
    """An archive in the making. What it is made of so far is taken with `take`, and with `finish` at the end."""

    @abstractmethod
    def begin(self, name: str, size: int, modified: int) -> None:
        """Begin a file of `size` bytes, last changed at `modified` (microseconds since 1970)."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """The next bytes of the file that was begun."""

    @abstractmethod
    def end(self) -> None:
        """End the file."""

    @abstractmethod
    def take(self) -> bytes:
        """The archive's next bytes; they are given once."""

    @abstractmethod
    def finish(self) -> bytes:
        """The last bytes."""

    def add(self, name: str, content: bytes, modified: int) -> None:
        """A whole file."""
        self.begin(name, len(content), modified)
        self.write(content)
        self.end()


class _TarWriter(ArchiveWriter):
    def __init__(self, compressor: _Compressor) -> None:
        self._compressor = compressor
        self._ready: list[bytes] = []
        self._size = 0

    def _put(self, data: bytes) -> None:
        self._ready.append(self._compressor.compress(data))

    def begin(self, name: str, size: int, modified: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = self._size = size
        info.mode = _OWN_MODE
        info.mtime = modified // 1_000_000
        self._put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))

    def write(self, data: bytes) -> None:
        self._put(data)

    def end(self) -> None:
        self._put(bytes(-self._size % _BLOCK))

    def take(self) -> bytes:
        ready, self._ready = b"".join(self._ready), []
        return ready

    def finish(self) -> bytes:
        self._put(bytes(2 * _BLOCK))
        self._ready.append(self._compressor.flush())
        return self.take()


class _Outlet(io.RawIOBase):
    """What `zipfile` writes to. It can't be sought in, so sizes follow their data."""

    def __init__(self) -> None:
        self.ready: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.ready.append(bytes(data))  # type: ignore[call-overload]
        return len(self.ready[-1])


class _ZipWriter(ArchiveWriter):
    def __init__(self) -> None:
        self._outlet = _Outlet()
        self._zip = zipfile.ZipFile(self._outlet, "w", zipfile.ZIP_DEFLATED)

    def begin(self, name: str, size: int, modified: int) -> None:
        info = zipfile.ZipInfo(name, _EARLIEST_ZIP)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = (0o100000 | _OWN_MODE) << 16
        info.file_size = size
        self._file = self._zip.open(info, "w")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def end(self) -> None:
        self._file.close()

    def take(self) -> bytes:
        ready, self._outlet.ready = b"".join(self._outlet.ready), []
        return ready

    def finish(self) -> bytes:
        self._zip.close()
        return self.take()


def archive_writer(archive_format: ArchiveFormat) -> ArchiveWriter:
    """A writer of this format."""
    if archive_format == "zip":
        return _ZipWriter()
    if archive_format == "tar.gz":
        return _TarWriter(zlib.compressobj(_GZIP_LEVEL, wbits=31))
    if archive_format == "tar.zst":
        return _TarWriter(zstandard.ZstdCompressor(_ZSTD_LEVEL).compressobj())
    return _TarWriter(_AsItIs())


class NameNotHeld(Exception):
    """The file system can't hold a file of this name."""


class DirectoryWriter:
    """Files below a new or empty directory.

    Raises:
        InvalidRequest: something is in the directory already, or it is none.

    """

    def __init__(self, directory: Path) -> None:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise InvalidRequest(f"{str(directory)!r} is there and is no empty directory; name another place")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def add(self, name: str, content: bytes, modified: int) -> None:
        """A whole file.

        Raises:
            NameNotHeld: the name is too long, or means a file that is there already.

        """
        file = self._directory / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as opened:
                opened.write(content)
        except OSError as error:
            if isinstance(error, FileExistsError | NotADirectoryError) or error.errno == errno.ENAMETOOLONG:
                raise NameNotHeld from None
            raise
        os.utime(file, ns=(modified * 1_000, modified * 1_000))
