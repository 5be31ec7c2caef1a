"""Answers that arrive piece by piece: lines, and server-sent events."""

import contextlib
from collections.abc import Iterator

from app.client import wire
from app.client.exchange import Stream
from app.client.failures import Away
from app.client.wire import Gone, Heartbeat, Message, Truncated

_LINE_MAX_BYTES = 1 << 20
"""A memory with its content, every byte of it escaped, is 0.6 MB."""
_FIELDS = (b"event", b"data")


def lines(answer: Stream) -> Iterator[bytes]:
    """The body's lines as they arrive, without their ends.

    Raises:
        Away: the connection was lost, or the answer is none of lines.

    """
    rest = bytearray()  # which grows in place: a line may come in a million pieces
    with contextlib.closing(answer.pieces()) as pieces:
        for piece in pieces:
            rest += piece
            if b"\n" in piece:
                *whole, last = bytes(rest).split(b"\n")
                yield from whole
                rest = bytearray(last)
            if len(rest) > _LINE_MAX_BYTES:
                raise Away(answer.status, "the answer has a line that is too long")
    if rest:
        yield bytes(rest)


class Watch:
    """A stream of changes. Iterate in one thread; `close` may be called from another."""

    def __init__(self, answer: Stream) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[Message]:
        """Ends when the server ends the stream; raises `Away` when it is lost."""
        fields: dict[bytes, bytes] = {}
        for text in lines(self._answer):
            line = text.rstrip(b"\r")
            if line.startswith(b":"):
                yield Heartbeat()
            elif line:
                name, _, value = line.partition(b":")
                if name in _FIELDS:
                    fields[name] = value.removeprefix(b" ")
            elif fields:
                message = _message(fields)
                fields = {}
                if message is not None:
                    yield message

    def close(self) -> None:
        """End the stream at once, also under a reader that waits for it."""
        self._answer.close()


def _message(fields: dict[bytes, bytes]) -> Message | None:
    kind = fields.get(b"event", b"message")
    if kind == b"truncated":
        return Truncated()
    if kind == b"gone":
        return Gone()
    if kind == b"change":
        return wire.event(wire.document(fields.get(b"data", b"")))
    return None  # a kind of a later server
