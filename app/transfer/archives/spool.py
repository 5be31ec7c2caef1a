"""Contents on their way in, in a temporary file: as many as come, in bounded memory."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from app.storage.contents.disks import temporary_room

_IN_MEMORY = 8 * 1024 * 1024
_PIECE = 262_144
_WHAT = "what comes in"


@dataclass(frozen=True, slots=True)
class Spooled:
    """A content that lies in the spool: its SHA-256 (32 bytes), its size in bytes, and where it is."""

    sha256: bytes
    size: int
    offset: int


class Spool:
    """Put once, read at will, gone with the context. The same content is kept once.

    Raises:
        NoRoom: by what puts, where the disk of temporary files is full.

    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by the context
        self._known: dict[bytes, Spooled] = {}
        self._end = 0

    def put(self, content: bytes) -> Spooled:
        """Keep a content."""
        sha256 = hashlib.sha256(content).digest()
        known = self._known.get(sha256)
        if known is None:
            with temporary_room(_WHAT):
                self._file.seek(self._end)
                self._file.write(content)
            known = self._known[sha256] = Spooled(sha256, len(content), self._end)
            self._end += len(content)
        return known

    def put_pieces(self, pieces: Iterable[bytes], most: int) -> Spooled | None:
        """Keep a content that comes in pieces; None, and it is not kept, if it has more than `most` bytes."""
        hasher, size = hashlib.sha256(), 0
        for piece in pieces:
            self._file.seek(self._end + size)
            size += len(piece)
            if size > most:
                return None
            hasher.update(piece)
            with temporary_room(_WHAT):
                self._file.write(piece)
        kept = Spooled(hasher.digest(), size, self._end)
        known = self._known.setdefault(kept.sha256, kept)
        if known is kept:
            self._end += size
        return known

    def pieces(self, spooled: Spooled) -> Iterator[bytes]:
        """The bytes of a content, some at a time."""
        place, end = spooled.offset, spooled.offset + spooled.size
        while place < end:
            self._file.seek(place)
            piece = self._file.read(min(_PIECE, end - place))
            place += len(piece)
            yield piece

    def find(self, sha256: bytes) -> Spooled | None:
        """The content with a digest, if it was put."""
        return self._known.get(sha256)

    def read(self, spooled: Spooled) -> bytes:
        """The bytes of a content."""
        self._file.seek(spooled.offset)
        return self._file.read(spooled.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
