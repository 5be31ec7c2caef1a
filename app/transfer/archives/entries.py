"""What every reader of a source gives: names with their contents, one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.contract.errors import InvalidRequest

FILE, DIRECTORY, LINK, SPECIAL = "file", "directory", "link", "device or pipe"

_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a source, good until the next entry.

    `read(n)` gives the next bytes of its content, at most n, and fewer only at its end. `size` is what the source says
    of it. A name that could not be read as text has lone surrogates for its bytes.
    """

    name: str
    kind: str
    size: int
    read: Callable[[int], bytes]

    def pieces(self) -> Iterator[bytes]:
        """The content from here on."""
        while data := self.read(_PIECE):
            yield data


def damaged(error: Exception | str) -> InvalidRequest:
    """The refusal of an archive that is not whole."""
    return InvalidRequest(f"the archive is damaged or cut off: {error}")
