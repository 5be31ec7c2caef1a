"""Reading zips: the central directory entry by entry, and members that are stored or deflated.

It is read here and not by `zipfile`, which takes the whole directory into memory, whatever it claims, unpacks by
methods that a thousand bytes make gigabytes of, and takes every name that does not say otherwise for CP437.
"""

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Meter
from app.transfer.archives.entries import DIRECTORY, FILE, LINK, SPECIAL, Entry, damaged
from app.transfer.archives.names import decoded

_CHUNK = 65_536
_END = struct.Struct("<4s4H2LH")
_LOCATOR_64 = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 0x2041
"""Flag bits 0, 6 and 13: the member is, strongly, and so is the directory."""
_STORED, _DEFLATED = 0, 8
_METHODS = {1: "shrunk", 6: "imploded", 9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}
_ZIP64_FIELD, _UNICODE_PATH_FIELD = 0x0001, 0x7075
_DOS_DIRECTORY = 0x10


@dataclass(frozen=True, slots=True)
class _Member:
    """What the central directory says of a member."""

    raw: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    offset: int


def zip_entries(file: BinaryIO, meter: Meter, encoding: str | None) -> Iterator[Entry]:
    """The entries of a zip. `encoding`: of names that are not UTF-8."""
    for member in _members(file, meter, encoding):
        if member.flags & _ENCRYPTED:
            raise InvalidRequest(f"the archive is encrypted at {_shown(member)}; encrypted ones can't be read")
        yield Entry(member.name, _kind(member), member.size, _Content(file, member, meter).read)


def _shown(member: _Member) -> str:
    return repr(member.name[:200])


def _kind(member: _Member) -> str:
    mode = member.attributes >> 16
    if member.name.endswith("/") or stat.S_ISDIR(mode) or (not member.size and member.attributes & _DOS_DIRECTORY):
        return DIRECTORY
    if stat.S_ISLNK(mode):
        return LINK
    return FILE if stat.S_IFMT(mode) in (0, stat.S_IFREG) else SPECIAL


def _exactly(file: BinaryIO, size: int) -> bytes:
    try:
        data = file.read(size)
    except (OSError, ValueError) as error:
        raise damaged(error) from error
    if len(data) < size:
        raise damaged("it ends in the middle")
    return data


def _seek(file: BinaryIO, place: int) -> None:
    # The operating system takes no greater number.
    if not 0 <= place < 2**63:
        raise damaged(f"it refers to byte {place:,}")
    file.seek(place)


def _directory(file: BinaryIO) -> tuple[int, int, int]:
    """Where the central directory begins, its bytes, and what must be added to every offset in it."""
    length = file.seek(0, os.SEEK_END)
    tail_at = max(0, length - _END.size - _MOST_16)
    _seek(file, tail_at)
    tail = _exactly(file, length - tail_at)
    found = tail.rfind(b"PK\x05\x06", 0, len(tail) - _END.size + 4)
    if found < 0:
        raise damaged("it has no central directory")
    end_at = tail_at + found
    _, _, _, _, entries, size, offset, _ = _END.unpack_from(tail, found)
    if (entries == _MOST_16 or _MOST_32 in (size, offset)) and end_at >= _LOCATOR_64.size:
        _seek(file, end_at - _LOCATOR_64.size)
        sign, _, _, _ = _LOCATOR_64.unpack(_exactly(file, _LOCATOR_64.size))
        if sign == b"PK\x06\x07":
            end_at -= _LOCATOR_64.size + _END_64.size
            _seek(file, end_at)
            sign, *_, size, offset = _END_64.unpack(_exactly(file, _END_64.size))
            if sign != b"PK\x06\x06":
                raise damaged("its end can't be read")
    begin = end_at - size
    if begin < offset:
        raise damaged("its central directory is not where it says")
    return begin, size, begin - offset


def _members(file: BinaryIO, meter: Meter, encoding: str | None) -> Iterator[_Member]:
    place, left, moved = _directory(file)
    while left:
        _seek(file, place)
        (sign, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size, _, _, attributes,
         offset) = _CENTRAL.unpack(_exactly(file, _CENTRAL.size))  # fmt: skip
        whole = _CENTRAL.size + name_size + extra_size + comment_size
        if sign != b"PK\x01\x02" or whole > left:
            raise damaged("its central directory can't be read")
        meter.entry(name_size)
        raw = _exactly(file, name_size)
        fields = _fields(_exactly(file, extra_size))
        packed, size, offset = _long(fields.get(_ZIP64_FIELD, b""), packed, size, offset)
        name = _name(raw, fields.get(_UNICODE_PATH_FIELD, b""), encoding)
        yield _Member(raw, name, flags, method, crc, packed, size, attributes, offset + moved)
        place += whole
        left -= whole


def _fields(extra: bytes) -> dict[int, bytes]:
    """The extra fields by their numbers. What is cut off is left out: old tools write such."""
    fields: dict[int, bytes] = {}
    start = 0
    while start + 4 <= len(extra):
        number, size = struct.unpack_from("<HH", extra, start)
        if start + 4 + size > len(extra):
            break
        fields.setdefault(number, extra[start + 4 : start + 4 + size])
        start += 4 + size
    return fields


def _long(field: bytes, *numbers: int) -> tuple[int, int, int]:
    """Packed size, size and offset, where they are too large for their places: from the field that holds such."""
    packed, size, offset = numbers
    places = [8 * index for index in range(3)]
    found = []
    for value in (size, packed, offset):
        if value == _MOST_32 and places[0] + 8 <= len(field):
            (value,) = struct.unpack_from("<Q", field, places.pop(0))
        found.append(value)
    size, packed, offset = found
    return packed, size, offset


def _name(raw: bytes, unicode_path: bytes, encoding: str | None) -> str:
    """The name as text: what Info-ZIP adds in UTF-8, if it is of this name; else its bytes.

    Old tools of Windows separate by backslashes. Those are looked for in the text: in CP932 one is half a character.
    """
    name = decoded(raw, encoding)
    if unicode_path[:5] == b"\x01" + struct.pack("<L", zlib.crc32(raw)):
        name = decoded(unicode_path[5:], None)
    return name.replace("\\", "/")


class _Content:
    """The content of a member, read on and on. It is held to what the directory says of it."""

    def __init__(self, file: BinaryIO, member: _Member, meter: Meter) -> None:
        self._file = file
        self._member = member
        self._meter = meter
        self._place = -1
        self._packed_left = member.packed
        self._done = self._crc = 0
        self._unpack: Callable[[int], bytes] = self._stored
        self._deflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = b""

    def read(self, most: int) -> bytes:
        """The next bytes, at most `most`; fewer only at the end."""
        if self._place < 0:
            self._begin()
        parts, left = [], most
        while left:
            try:
                part = self._unpack(min(left, _CHUNK))
            except zlib.error as error:
                raise damaged(f"{_shown(self._member)}: {error}") from error
            if not part:
                self._check_end()
                break
            self._meter.bytes(len(part))
            self._crc = zlib.crc32(part, self._crc)
            self._done += len(part)
            left -= len(part)
            if self._done > self._member.size:
                raise damaged(f"{_shown(self._member)} is larger than it says")
            parts.append(part)
        return b"".join(parts)

    def _begin(self) -> None:
        member = self._member
        if member.method not in (_STORED, _DEFLATED):
            method = _METHODS.get(member.method, "unknown")
            raise InvalidRequest(
                f"{_shown(member)} is packed by the method {member.method} ({method}), which is not read; make the zip "
                "with members that are stored or deflated, as 'zip -r' does"
            )
        _seek(self._file, member.offset)
        sign, *_, name_size, extra_size = _LOCAL.unpack(_exactly(self._file, _LOCAL.size))
        if sign != b"PK\x03\x04" or _exactly(self._file, name_size) != member.raw:
            raise damaged(f"{_shown(member)} is not where the central directory says")
        self._place = member.offset + _LOCAL.size + name_size + extra_size
        self._unpack = self._stored if member.method == _STORED else self._deflated

    def _stored(self, most: int) -> bytes:
        size = min(most, self._packed_left)
        if not size:
            return b""
        _seek(self._file, self._place)
        data = _exactly(self._file, size)
        self._place += size
        self._packed_left -= size
        return data

    def _deflated(self, most: int) -> bytes:
        while not self._deflate.eof:
            if not self._waiting:
                self._waiting = self._stored(_CHUNK)
                if not self._waiting:
                    raise damaged(f"{_shown(self._member)} ends in the middle")
            data = self._deflate.decompress(self._waiting, most)
            self._waiting = self._deflate.unconsumed_tail
            if data:
                return data
        return b""

    def _check_end(self) -> None:
        if self._done != self._member.size or self._crc != self._member.crc:
            raise damaged(f"{_shown(self._member)} is not what its checksum says")
