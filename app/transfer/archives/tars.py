"""Reading tars. Headers are read here and not by `tarfile`, which takes an extended header of any size into memory."""

import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import zstandard

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Meter
from app.transfer.archives.entries import DIRECTORY, FILE, LINK, SPECIAL, Entry, damaged
from app.transfer.archives.names import decoded

BLOCK = 512
_EXTENDED_HEADER_BYTES = 65_536
"""A long name's header. A path has 1,024 bytes at most, and no other attribute is of interest."""
_EXTENDED_TOGETHER_BYTES = 64 * 1024 * 1024
_RECORDS = 256
"""Attributes in one extended header."""
_LENGTH_DIGITS = 6
_WINDOW_BYTES = 2**25
"""Of memory that unpacking zstd may take. Enough for levels up to 20."""
_CHUNK = 65_536
_GZIP = 16 + zlib.MAX_WBITS


class Readable(Protocol):
    """A stream of the bytes of a tar."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Gunzip:
    """A gzip file, unpacked. Unlike `gzip.GzipFile` it takes headers of any length, and any number of members, in C."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter
        self._member = zlib.decompressobj(_GZIP)
        self._packed = b""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, which are at least 1."""
        while True:
            if not self._packed:
                self._packed = self._file.read(_CHUNK)
            if self._member.eof:
                # Zeros pad the last member on tapes.
                self._packed = self._packed.lstrip(b"\0")
                if self._packed:
                    self._meter.header()
                    self._member = zlib.decompressobj(_GZIP)
                elif not (more := self._file.read(_CHUNK)):
                    return b""
                else:
                    self._packed = more
                continue
            if not self._packed:
                raise EOFError("it ends in the middle")
            data = self._member.decompress(self._packed, size)
            self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if data:
                return data


def unzstd(file: BinaryIO) -> Readable:
    """A zstd file, unpacked."""
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).stream_reader(file, read_across_frames=True)


def is_tar(start: bytes) -> bool:
    """Whether the first 512 bytes are those of a tar."""
    if start == bytes(BLOCK):
        return True
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Metered:
    """A stream that is counted, and whose faults are refusals."""

    def __init__(self, stream: Readable, meter: Meter) -> None:
        self._stream = stream
        self.meter = meter

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        parts = []
        while size:
            try:
                part = self._stream.read(min(size, _CHUNK))
            except zstandard.ZstdError as error:
                if "too much memory" in str(error):
                    raise InvalidRequest(
                        f"the archive needs more than {_WINDOW_BYTES:,} bytes of memory to unpack; compress it "
                        "without --long and --ultra"
                    ) from error
                raise damaged(error) from error
            except (OSError, EOFError, zlib.error) as error:
                raise damaged(error) from error
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
            raise damaged("it ends in the middle")
        return data

    def skip(self, size: int) -> None:
        """Leave out bytes, which must be there."""
        while size:
            size -= len(self.read_whole(min(size, _CHUNK)))


_KINDS = {
    tarfile.REGTYPE: FILE, tarfile.AREGTYPE: FILE, tarfile.CONTTYPE: FILE, tarfile.DIRTYPE: DIRECTORY,
    tarfile.LNKTYPE: LINK, tarfile.SYMTYPE: LINK,
}  # fmt: skip


def tar_entries(opened: Readable, meter: Meter, encoding: str | None) -> Iterator[Entry]:
    """The entries of a tar. `encoding`: of names that are not UTF-8."""
    stream = _Metered(opened, meter)
    long_name: bytes | None = None
    extended = 0
    while True:
        block = stream.read(BLOCK)
        if block == bytes(BLOCK):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise damaged(error) from error
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse()
        if info.size < 0:
            raise damaged("a size is below zero")
        padding = -info.size % BLOCK
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            meter.header()
            extended += info.size
            if info.size > _EXTENDED_HEADER_BYTES:
                raise InvalidRequest(f"the archive has a header of {info.size:,} bytes, which is not read")
            if extended > _EXTENDED_TOGETHER_BYTES:
                raise InvalidRequest(
                    f"the archive's extended headers have more than {_EXTENDED_TOGETHER_BYTES:,} bytes together"
                )
            data = stream.read_whole(info.size)
            stream.skip(padding)
            is_name = info.type == tarfile.GNUTYPE_LONGNAME
            long_name = data.rstrip(b"\0") if is_name else _pax_path(data) or long_name
            continue
        if info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            meter.header()
            stream.skip(info.size + padding)
            continue
        name, long_name = long_name or info.name.encode("utf-8", "surrogateescape"), None
        meter.entry(len(name))
        kind = _KINDS.get(info.type, SPECIAL)
        # Only files have data; what a link or a device says of its size means nothing, but for unknown kinds.
        size = info.size if kind is FILE or info.type not in tarfile.SUPPORTED_TYPES else 0
        left = size

        def read(most: int) -> bytes:
            nonlocal left
            data = stream.read_whole(min(most, left))
            left -= len(data)
            return data

        yield Entry(decoded(name, encoding), kind, size, read)
        stream.skip(left + (-size % BLOCK))


def _sparse() -> InvalidRequest:
    return InvalidRequest("the archive holds a sparse file, which is not read; make it without --sparse")


def _pax_path(data: bytes) -> bytes | None:
    """The path in the records of an extended header: `<length> <keyword>=<value>` and a newline, each."""
    path, start, records = None, 0, 0
    while start < len(data):
        records += 1
        space = data.find(b" ", start, start + _LENGTH_DIGITS + 1)
        length = data[start:space] if space >= 0 else b""
        end = start + int(length) if length.isdigit() else 0
        if not space < end <= len(data) or records > _RECORDS:
            raise damaged("an extended header can't be read")
        keyword, _, value = data[space + 1 : end - 1].partition(b"=")
        start = end
        if keyword == b"path":
            path = value
        elif keyword == b"size":
            raise InvalidRequest("the archive has a file whose size is in an extended header, which is not read")
        elif keyword.startswith(b"GNU.sparse"):
            raise _sparse()
    return path
