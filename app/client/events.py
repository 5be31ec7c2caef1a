"""Lines and server-sent events, out of bytes as they come: no I/O."""

from collections.abc import Iterator

from .failures import Away

_LINE_MAX_BYTES = 1 << 20
"""A memory with its content, every byte of it escaped, is 0.6 MB."""
_FIELDS = (b"event", b"data")


class Lines:
    """Lines without their ends."""

    def __init__(self) -> None:
        self._rest = bytearray()  # which grows in place: a line may come in a million pieces

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece. Raises Away if one is too long."""
        whole: list[bytes] = []
        self._rest += piece
        if b"\n" in piece:
            *whole, last = bytes(self._rest).split(b"\n")
            self._rest = bytearray(last)
        if len(self._rest) > _LINE_MAX_BYTES:
            raise Away(200, "the answer has a line that is too long")
        return whole

    def end(self) -> list[bytes]:
        """The line that the answer ended in, if it did."""
        return [bytes(self._rest)] if self._rest else []


class Events:
    """Server-sent events: kind and data of each; None for a comment, which says that the stream is alive."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._fields: dict[bytes, bytes] = {}

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bytes] | None]:
        """The events that end in this piece. Raises Away if a line is too long."""
        for text in self._lines.feed(piece):
            line = text.rstrip(b"\r")
            if line.startswith(b":"):
                yield None
            elif line:
                name, _, value = line.partition(b":")
                if name in _FIELDS:
                    self._fields[name] = value.removeprefix(b" ")
            elif self._fields:
                fields, self._fields = self._fields, {}
                yield fields.get(b"event", b"message"), fields.get(b"data", b"")
