"""Answers that arrive piece by piece: lines, and server-sent events."""

import contextlib
import json
from collections.abc import Iterator

import urllib3
from urllib3.exceptions import HTTPError

from app.client import wire
from app.client.failures import Away
from app.client.wire import Gone, Heartbeat, Message, Truncated


def lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The body's lines as they arrive, without their ends; the connection is free for others at the end.

    Raises:
        Away: the connection was lost.

    """
    rest = b""
    try:
        for chunk in answer.stream(65_536):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
    except (HTTPError, OSError, ValueError) as error:
        answer.close()
        raise Away(0, f"{type(error).__name__}: {error}") from error
    answer.release_conn()
    if rest:
        yield rest


class Watch:
    """A stream of changes. Iterate in one thread; `close` may be called from another."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
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
                fields[name] = value.removeprefix(b" ")
            elif fields:
                message = _message(fields)
                fields = {}
                if message is not None:
                    yield message

    def close(self) -> None:
        """End the stream at once, also under a reader that waits for it."""
        with contextlib.suppress(HTTPError, OSError, ValueError, AttributeError):
            self._answer.shutdown()
        with contextlib.suppress(HTTPError, OSError, ValueError):
            self._answer.close()


def _message(fields: dict[bytes, bytes]) -> Message | None:
    kind = fields.get(b"event", b"message")
    if kind == b"truncated":
        return Truncated()
    if kind == b"gone":
        return Gone()
    if kind == b"change":
        return wire.event(json.loads(fields[b"data"]))
    return None  # a kind of a later server
