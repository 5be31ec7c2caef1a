"""Telling a new file that descends from an erased memory, such as an editor's next save, from one that does not.

A writer that knew the memory names it; one that makes the file again names nothing. So the lines of what was erased are
remembered, as digests under a key that only this process has, in memory alone: no text stays, and nobody can try lines.
"""

import hashlib
import secrets
from collections import OrderedDict

_LINE_MIN_BYTES = 8
"""Shorter lines say nothing about whose they are."""
_PATHS = 1_000


class Erasures:
    """The lines of what was erased at each path. The caller holds a lock."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lines: OrderedDict[str, set[bytes]] = OrderedDict()

    def note(self, path: str, text: bytes) -> None:
        """A memory with this text was erased."""
        self._lines.setdefault(path, set()).update(self._digests(text))
        self._lines.move_to_end(path)
        if len(self._lines) > _PATHS:
            self._lines.popitem(last=False)

    def descends(self, path: str, text: bytes) -> bool:
        """Whether a text has a line of what was erased at the path."""
        lines = self._lines.get(path)
        return lines is not None and not lines.isdisjoint(self._digests(text))

    def _digests(self, text: bytes) -> set[bytes]:
        lines = {line.strip() for line in text.split(b"\n")}
        return {
            hashlib.blake2b(line, key=self._key, digest_size=16).digest()
            for line in lines
            if len(line) >= _LINE_MIN_BYTES
        }
