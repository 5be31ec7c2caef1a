"""The little HTTP/1.1 that the API takes: a request as bytes, an answer as it comes.

Made by `scripts/sync_twins.py` from `async_http1.py`: change that one.
"""

import time
from collections.abc import Callable, Iterator, Mapping

PIECE = 65_536
"""Bytes that are asked for at once."""
_HEAD_MAX_BYTES = 65_536
_MOST_HEADS = 16
"""Answers that only announce another one, and lines of a trailer."""
_END = b"\r\n"


def request(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A request. Raises ValueError if a header holds a line end, or a character that none can hold."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line end in a header")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


class Reader:
    """What has come on a connection and is not used yet."""

    def __init__(self, receive: Callable[[int], bytes], most: float, seconds: float) -> None:
        """receive: at most so many bytes of what comes next; nothing if the server has closed.

        most: bytes of the body. seconds: for all of it, also if it comes drop by drop.
        """
        self._receive = receive
        self._most = most
        self._until = time.monotonic() + seconds
        self._rest = b""

    def _next(self) -> bytes:
        piece = self._receive(PIECE)
        if time.monotonic() > self._until:
            raise TimeoutError("the answer takes too long")
        return piece

    def _more(self) -> bytes:
        piece = self._next()
        if not piece:
            raise ConnectionResetError("the connection ended within an answer")
        return piece

    def until(self, mark: bytes) -> bytes:
        """Everything before the mark, which is skipped."""
        while (end := self._rest.find(mark)) < 0:
            if len(self._rest) > _HEAD_MAX_BYTES:
                raise ValueError("the answer's header is too long")
            self._rest += self._more()
        found, self._rest = self._rest[:end], self._rest[end + len(mark) :]
        return found

    def exactly(self, size: int) -> Iterator[bytes]:
        """So many bytes of the body."""
        if size > self._most:
            raise ValueError("the answer is too long")
        self._most -= size
        while size > 0:
            piece = self._rest or self._more()
            piece, self._rest = piece[:size], piece[size:]
            size -= len(piece)
            yield piece

    def until_the_end(self) -> Iterator[bytes]:
        """Everything until the server closes."""
        piece, self._rest = self._rest, b""
        while piece or (piece := self._next()):
            self._most -= len(piece)
            if self._most < 0:
                raise ValueError("the answer is too long")
            yield piece
            piece = b""

    @property
    def is_empty(self) -> bool:
        """Whether everything that came is used."""
        return not self._rest


def read_head(reader: Reader) -> tuple[int, dict[str, str], str]:
    """Status, headers (lower case) and version of HTTP."""
    for _ in range(_MOST_HEADS):
        first, *others = (reader.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"no HTTP: {first[:80]!r}")
        status = _number(rest[:3], 10)
        if status >= 200:
            parts = (line.partition(":") for line in others)
            return status, {name.lower(): value.strip() for name, _, value in parts}, version
    raise ValueError("announcements of an answer, and no answer")


def stays_open(version: str, fields: Mapping[str, str]) -> bool:
    """Whether the connection takes another request after this answer."""
    return version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"


def pieces(reader: Reader, status: int, fields: Mapping[str, str]) -> Iterator[bytes]:
    """The body of an answer, as it comes."""
    if status in (204, 304):
        return
    if fields.get("transfer-encoding", "").lower() == "chunked":
        for piece in _chunks(reader):
            yield piece
    elif "content-length" in fields:
        for piece in reader.exactly(_number(fields["content-length"], 10)):
            yield piece
    else:  # and the connection with it
        for piece in reader.until_the_end():
            yield piece


def whole(found: Iterator[bytes]) -> bytes:
    """All pieces. As objects, millions of pieces of two bytes would take 25 times their size."""
    data = bytearray()
    for piece in found:
        data += piece
    return bytes(data)


def _chunks(reader: Reader) -> Iterator[bytes]:
    while size := _number((reader.until(_END)).partition(b";")[0].strip().decode("ascii"), 16):
        yield from reader.exactly(size)
        reader.until(_END)
    for _ in range(_MOST_HEADS):
        if not reader.until(_END):
            return
    raise ValueError("the answer's trailer is too long")


def _number(text: str, base: int) -> int:
    """A length, without the signs, spaces and underscores that Python allows."""
    if not text.isalnum() or not text.isascii():
        raise ValueError(f"no number: {text[:80]!r}")
    return int(text, base)
