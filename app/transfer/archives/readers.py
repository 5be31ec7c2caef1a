"""The files in a tar, a zip or a directory, one after the other, whatever somebody put in there.

Nothing is unpacked to disk and no name is used as one. An archive that unpacks to more than the bounds allow is
refused as soon as it does.
"""

import errno
import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from app.contract.errors import InvalidRequest

_BLOCK = 512
_EXTENDED_HEADER_BYTES = 65_536
"""A long name's header. A path has 1,024 bytes at most, and no other attribute is of interest."""
_WINDOW_BYTES = 2**27
_FLOOR_BYTES = 256 * 1024 * 1024
_CHUNK = 65_536

FILE, DIRECTORY, LINK, SPECIAL = "file", "directory", "link", "device or pipe"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is read of one source at most: files, bytes unpacked, and unpacked bytes for each packed one.

    The ratio counts above 256 MiB only: a small archive may hold one text a thousand times.
    """

    files: int = 1_000_000
    bytes: int = 8 * 1024 * 1024 * 1024
    ratio: int = 250


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a source. `read(n)` gives the content, but not more than n bytes of it; good until the next entry."""

    name: str
    kind: str
    size: int
    read: Callable[[int], bytes]


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def _damaged(error: Exception) -> InvalidRequest:
    return InvalidRequest(f"the archive is damaged or cut off: {error}")


def _is_tar(start: bytes) -> bool:
    if start == bytes(_BLOCK):
        return True
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def archive_entries(file: BinaryIO, bounds: Bounds) -> Iterator[Entry]:
    """The entries of an archive; what it is shows in its first bytes, not in its name. `file` can be sought in.

    Raises:
        InvalidRequest: no archive, a damaged one, or one beyond the bounds.

    """
    packed = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(_BLOCK)
    file.seek(0)
    if start[:2] == b"PK":
        return _zip_entries(file, _Meter(bounds, packed))
    if start[:2] == b"\x1f\x8b":
        opened: _Readable = gzip.GzipFile(fileobj=file, mode="rb")
    elif start[:4] == b"\x28\xb5\x2f\xfd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        opened = decompressor.stream_reader(file, read_across_frames=True)
    elif _is_tar(start):
        opened = file
    else:
        raise InvalidRequest("is no archive that can be read; give a .tar, .tar.gz, .tar.zst or .zip")
    return _tar_entries(_Metered(opened, _Meter(bounds, packed)), bounds)


class _Meter:
    """Counts what is unpacked."""

    def __init__(self, bounds: Bounds, packed: int) -> None:
        self._bounds = bounds
        self._packed = packed
        self._files = self._bytes = 0

    def file(self) -> None:
        """One more entry."""
        self._files += 1
        if self._files > self._bounds.files:
            raise InvalidRequest(f"the archive holds more than {self._bounds.files:,} entries, which is not unpacked")

    def bytes(self, number: int) -> None:
        """More unpacked bytes."""
        self._bytes += number
        if self._bytes > self._bounds.bytes:
            raise InvalidRequest(f"the archive unpacks to more than {self._bounds.bytes:,} bytes, which is not read")
        if self._bytes > max(_FLOOR_BYTES, self._packed * self._bounds.ratio):
            raise InvalidRequest(
                f"the archive unpacks to more than {self._bounds.ratio} times its size: it looks like a bomb"
            )


class _Metered:
    """A stream that is counted, and whose faults are refusals."""

    def __init__(self, stream: _Readable, meter: _Meter) -> None:
        self._stream = stream
        self.meter = meter

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        parts = []
        while size:
            try:
                part = self._stream.read(min(size, _CHUNK))
            except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
                raise _damaged(error) from error
            if not part:
                break
            self.meter.bytes(len(part))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read_whole(self, size: int) -> bytes:
        """`size` bytes, which must be there."""
        data = self.read(size)
        if len(data) < size:
            raise _damaged(EOFError("it ends in the middle"))
        return data

    def skip(self, size: int) -> None:
        """Leave out bytes, which must be there."""
        while size:
            size -= len(self.read_whole(min(size, _CHUNK)))


_TAR_KINDS = {
    tarfile.REGTYPE: FILE, tarfile.AREGTYPE: FILE, tarfile.CONTTYPE: FILE, tarfile.DIRTYPE: DIRECTORY,
    tarfile.LNKTYPE: LINK, tarfile.SYMTYPE: LINK,
}  # fmt: skip


def _tar_entries(stream: _Metered, bounds: Bounds) -> Iterator[Entry]:
    """Headers are read here and not by `tarfile`, which takes an extended header of any size into memory."""
    long_name: str | None = None
    while True:
        block = stream.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _damaged(error) from error
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise InvalidRequest("the archive holds a sparse file, which is not read; make it without --sparse")
        if info.size < 0:
            raise _damaged(ValueError("a size is below zero"))
        stream.meter.file()
        padding = -info.size % _BLOCK
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            if info.size > _EXTENDED_HEADER_BYTES:
                raise InvalidRequest(f"the archive has a header of {info.size:,} bytes, which is not read")
            data = stream.read_whole(info.size)
            stream.skip(padding)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            else:
                long_name = _pax_path(data) or long_name
            continue
        if info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            stream.skip(info.size + padding)
            continue
        name, long_name = long_name or info.name, None
        kind = _TAR_KINDS.get(info.type, SPECIAL)
        # Only files have data; what a link or a device says of its size means nothing, but for unknown kinds.
        size = info.size if kind is FILE or info.type not in tarfile.SUPPORTED_TYPES else 0
        left = size

        def read(most: int) -> bytes:
            nonlocal left
            data = stream.read_whole(min(most, left))
            left -= len(data)
            return data

        yield Entry(name, kind, size, read)
        stream.skip(left + (-size % _BLOCK))


def _pax_path(data: bytes) -> str | None:
    """The path in the records of an extended header: `<length> <keyword>=<value>` and a newline, each."""
    path = None
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            raise _damaged(ValueError("an extended header can't be read"))
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        keyword, _, value = record.partition(b"=")
        if keyword == b"path":
            path = value.decode("utf-8", "surrogateescape")
        elif keyword == b"size":
            raise InvalidRequest("the archive has a file whose size is in an extended header, which is not read")
    return path


def _zip_entries(file: BinaryIO, meter: _Meter) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(error) from error
    with archive:
        for info in archive.infolist():
            meter.file()
            mode = info.external_attr >> 16
            kind = DIRECTORY if info.is_dir() else LINK if stat.S_ISLNK(mode) else FILE
            if kind is FILE and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                kind = SPECIAL
            if info.flag_bits & 1:
                raise InvalidRequest(f"the archive is encrypted at {info.filename!r}; encrypted ones can't be read")

            def read(most: int, info: zipfile.ZipInfo = info) -> bytes:
                try:
                    with archive.open(info) as opened:
                        data = opened.read(most)
                except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError) as error:
                    raise _damaged(error) from error
                meter.bytes(len(data))
                return data

            yield Entry(info.filename, kind, info.file_size, read)


def directory_entries(root: Path, bounds: Bounds) -> Iterator[Entry]:
    """The files below a directory, by name; links are not followed, directories have no entry of their own."""
    found = 0
    for directory, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        here = Path(directory)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted(files + links):
            found += 1
            if found > bounds.files:
                raise InvalidRequest(f"the directory holds more than {bounds.files:,} files, which are not read")
            file = here / name
            seen = file.lstat()
            kind = FILE if stat.S_ISREG(seen.st_mode) else LINK if stat.S_ISLNK(seen.st_mode) else SPECIAL

            def read(most: int, file: Path = file) -> bytes:
                try:
                    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    raise InvalidRequest(f"{str(file)!r} became a link while it was read") from None
                with os.fdopen(descriptor, "rb") as opened:
                    return opened.read(most)

            yield Entry(file.relative_to(root).as_posix(), kind, seen.st_size, read)


def _raise(error: OSError) -> None:
    raise error
