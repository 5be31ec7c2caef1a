"""Answers that arrive piece by piece: lines, and the change feed's messages."""

import contextlib
from collections.abc import Iterator

from app.client.events import Events, Lines
from app.client.exchange import Stream
from app.mount.door import wire
from app.mount.door.wire import Gone, Heartbeat, Message, Truncated


def lines(answer: Stream) -> Iterator[bytes]:
    """The body's lines as they arrive, without their ends.

    Raises:
        Away: the connection was lost, or the answer is none of lines.

    """
    found = Lines()
    with contextlib.closing(answer.pieces()) as pieces:
        for piece in pieces:
            yield from found.feed(piece)
    yield from found.end()


class Watch:
    """A stream of changes. Iterate in one thread; `close` may be called from another."""

    def __init__(self, answer: Stream) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[Message]:
        """Ends when the server ends the stream; raises `Away` when it is lost."""
        events = Events()
        with contextlib.closing(self._answer.pieces()) as pieces:
            for piece in pieces:
                for event in events.feed(piece):
                    message = Heartbeat() if event is None else _message(*event)
                    if message is not None:
                        yield message

    def close(self) -> None:
        """End the stream at once, also under a reader that waits for it."""
        self._answer.close()


def _message(kind: bytes, data: bytes) -> Message | None:
    if kind == b"truncated":
        return Truncated()
    if kind == b"gone":
        return Gone()
    if kind == b"change":
        return wire.event(wire.document(data))
    return None  # a kind of a later server
