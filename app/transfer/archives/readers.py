"""The files in a tar, a zip or a directory, one after the other, whatever somebody put in there.

Nothing is unpacked to disk and no name is used as one. An archive that unpacks to more than the bounds allow is
refused as soon as it does; nothing that it declares is believed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Bounds, Meter
from app.transfer.archives.entries import FILE, LINK, SPECIAL, Entry
from app.transfer.archives.names import check_encoding, decoded
from app.transfer.archives.tars import BLOCK, Gunzip, Readable, is_tar, tar_entries, unzstd
from app.transfer.archives.zips import zip_entries

_DEPTH = 64
"""Directories in each other. A path of a memory has 20 segments at most."""


def archive_entries(file: BinaryIO, bounds: Bounds, *, name_encoding: str | None = None) -> Iterator[Entry]:
    """The entries of an archive; what it is shows in its first bytes, not in its name. `file` can be sought in.

    `name_encoding`: of names that are not UTF-8, such as `cp932`.

    Raises:
        InvalidRequest: no archive, a damaged one, or one beyond the bounds; no such encoding.

    """
    encoding = None if name_encoding is None else check_encoding(name_encoding)
    meter = Meter(bounds, file.seek(0, os.SEEK_END))
    file.seek(0)
    start = file.read(BLOCK)
    file.seek(0)
    if start[:2] == b"PK":
        return zip_entries(file, meter, encoding)
    if start[:2] == b"\x1f\x8b":
        opened: Readable = Gunzip(file, meter)
    elif start[:4] == b"\x28\xb5\x2f\xfd":
        opened = unzstd(file)
    elif is_tar(start):
        opened = file
    else:
        raise InvalidRequest("the file is no archive that can be read; give a .tar, .tar.gz, .tar.zst or .zip")
    return tar_entries(opened, meter, encoding)


def directory_entries(root: Path, bounds: Bounds, *, name_encoding: str | None = None) -> Iterator[Entry]:
    """The files below a directory, by name; links are not followed, directories have no entry of their own.

    Raises:
        InvalidRequest: it holds more than the bounds allow, or is too deep; no such encoding.

    """
    encoding = None if name_encoding is None else check_encoding(name_encoding)
    meter = Meter(bounds, None)
    waiting = [(os.fsencode(root), b"", 0)]
    while waiting:
        directory, below, depth = waiting.pop()
        files: list[bytes] = []
        folders: list[bytes] = []
        with os.scandir(directory) as found:
            for each in found:
                name = below + each.name
                meter.entry(len(name))
                (folders if each.is_dir(follow_symlinks=False) else files).append(name)
        if folders and depth >= _DEPTH:
            raise InvalidRequest(
                f"{os.fsdecode(below)[:200]!r} holds directories more than {_DEPTH} deep, which are not read"
            )
        for name in sorted(files):
            yield _file_entry(os.path.join(os.fsencode(root), name), decoded(name, encoding), meter)
        waiting += [(os.path.join(os.fsencode(root), name), name + b"/", depth + 1) for name in sorted(folders)[::-1]]


def _file_entry(file: bytes, name: str, meter: Meter) -> Entry:
    seen = os.lstat(file)
    kind = FILE if stat.S_ISREG(seen.st_mode) else LINK if stat.S_ISLNK(seen.st_mode) else SPECIAL
    place = 0

    def read(most: int) -> bytes:
        nonlocal place
        try:
            # What became a pipe since must not wait for its other end.
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise InvalidRequest(f"{name!r} became a link while it was read") from None
        with os.fdopen(descriptor, "rb") as opened:
            opened.seek(place)
            data = opened.read(most)
        place += len(data)
        meter.bytes(len(data))
        return data

    return Entry(name, kind, seen.st_size, read)
