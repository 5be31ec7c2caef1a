"""What is read of one source at most, and the count of what was read: as it comes, not as declared."""

from dataclasses import dataclass

from app.contract.errors import InvalidRequest

NAME_BYTES = 4_096
"""Of one name: PATH_MAX of Linux. A path of a memory has 1,024 bytes at most."""
OWN_FILE_BYTES = 65_536
"""Of `export.json`, and of a backup's small files."""
LINE_BYTES = 16_384
"""Of one version's line and of one memory in a manifest: two times a path whose every byte is escaped, and the rest."""
RATIO_FLOOR_BYTES = 16 * 1024 * 1024
_MARGIN_FILES = 100_000
_MARGIN_NAME_BYTES = 16 * 1024 * 1024
_HEADERS = 4
_CONTENT_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one source.

    `memories` and `versions` are what a store may take; `files` and `name_bytes` (of all names together) leave room
    beside them for what is skipped. `ratio`: unpacked bytes for each packed one, from 16 MiB unpacked on.
    """

    memories: int = 10_000
    versions: int = 100_000
    files: int = 10_000 + 100_000 + _MARGIN_FILES
    name_bytes: int = 10_000 * 1_100 + 100_000 * _CONTENT_NAME_BYTES + _MARGIN_NAME_BYTES
    bytes: int = 8 * 1024 * 1024 * 1024
    ratio: int = 250

    @classmethod
    def of_store(cls, memories: int, versions: int, unpacked: int = 8 * 1024 * 1024 * 1024) -> "Bounds":
        """For stores of so many memories, imports of so many versions, archives of so many bytes unpacked, at most."""
        return cls(
            memories=memories,
            versions=versions,
            files=memories + versions + _MARGIN_FILES,
            name_bytes=memories * 1_100 + versions * _CONTENT_NAME_BYTES + _MARGIN_NAME_BYTES,
            bytes=unpacked,
        )


NO_BOUNDS = Bounds(files=10**12, name_bytes=10**18, bytes=10**18, ratio=10**9)
"""For what an administrator made: a backup may be of any size. Its reader bounds what is held in memory."""


class Meter:
    """Counts what comes out of a source and refuses what is too much.

    `packed`: bytes of the archive; None: a directory, which can't be a bomb.
    """

    def __init__(self, bounds: Bounds, packed: int | None) -> None:
        self._bounds = bounds
        self._packed = packed
        self._files = self._headers = self._names = self._bytes = 0

    def entry(self, name_bytes: int) -> None:
        """One more entry, with a name of so many bytes."""
        self._files += 1
        self._names += name_bytes
        if self._files > self._bounds.files:
            what = "directory" if self._packed is None else "archive"
            raise InvalidRequest(
                f"the {what} holds more than {self._bounds.files:,} entries, which are not read; "
                "leave out what are no texts, or import it in parts"
            )
        if name_bytes > NAME_BYTES:
            raise InvalidRequest(f"there is a name of {name_bytes:,} bytes; at most {NAME_BYTES:,} are read")
        if self._names > self._bounds.name_bytes:
            raise InvalidRequest(
                f"the names are more than {self._bounds.name_bytes:,} bytes together, which are not read; "
                "import it in parts"
            )

    def header(self) -> None:
        """One more block that stands before entries or between them."""
        self._headers += 1
        if self._headers > self._bounds.files * _HEADERS:
            raise InvalidRequest(f"the archive holds more than {self._bounds.files * _HEADERS:,} headers")

    def bytes(self, number: int) -> None:
        """More unpacked bytes."""
        self._bytes += number
        if self._bytes > self._bounds.bytes:
            raise InvalidRequest(f"the archive unpacks to more than {self._bounds.bytes:,} bytes, which is not read")
        if self._packed is not None and self._bytes > max(RATIO_FLOOR_BYTES, self._packed * self._bounds.ratio):
            raise InvalidRequest(
                f"the archive unpacks to more than {self._bounds.ratio} times its size: it looks like a bomb; "
                "if it is none, give it as a .tar that is not compressed"
            )
