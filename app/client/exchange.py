"""Request and answer over connections that stay open: urllib3 connects, and this speaks the little HTTP/1.1 it takes.

One call costs 80 µs of processor time this way and 290 µs through urllib3's own requests, which send header and body
in two packets and parse the answer's header as an e-mail. A mount makes one call for each file that is closed.
"""

import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import wait_for_read

from app.client.failures import Away, TimedOut
from app.contract.showing import escaped

_PIECE = 65_536
_HEAD_MAX_BYTES = 65_536
_MOST_HEADS = 16
"""Answers that only announce another one, and lines of a trailer."""
_LONGEST_ANSWERS = 10
"""Times the read timeout: how long an answer may take that comes drop by drop."""
_END = b"\r\n"


class Connections:
    """At most so many connections to one server. Thread-safe."""

    def __init__(self, base_url: str, *, size: int, connect_seconds: float, read_seconds: float) -> None:
        """Nothing is opened yet. size: more calls at once wait for a connection."""
        url = urlsplit(base_url)
        self._is_secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port
        self._host_header = url.netloc.rpartition("@")[2]
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._room = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._closings = 0

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as it is idle; a later call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closings += 1
        for connection in idle:
            connection.close()

    def call(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, most: int = 1 << 20
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of the answer. It is sent once, whatever happens.

        most: bytes of a body; a longer one is no answer, and is not read.

        Raises:
            Away: no whole answer came; the server may have done the work.

        """
        request = self._request(method, target, headers, body)
        with self._room:
            closings = self._closings
            connection = None
            try:
                connection = self._take()
                connection.sock.sendall(request)
                reader = _Reader(connection, most, _LONGEST_ANSWERS * self._read_seconds)
                status, fields, version = _read_head(reader)
                data = _whole(_pieces(reader, status, fields))
                is_reusable = reader.is_empty and _stays_open(version, fields)
            except (HTTPError, OSError, ValueError) as error:
                if connection is not None:
                    connection.close()
                raise _away(error) from error
            with self._lock:
                is_kept = is_reusable and closings == self._closings
                if is_kept:
                    self._idle.append(connection)
            if not is_kept:
                connection.close()
        return status, fields, data

    def open(self, target: str, headers: Mapping[str, str], seconds: float) -> "Stream":
        """Ask for an answer that is read as it comes, on a connection of its own.

        seconds: the longest pause in it.

        Raises:
            Away: no answer came.

        """
        request = self._request("GET", target, headers, None)
        connection = None
        try:
            connection = self._connect()
            connection.sock.settimeout(seconds)
            connection.sock.sendall(request)
            reader = _Reader(connection, math.inf, math.inf)
            status, fields, _ = _read_head(reader)
        except (HTTPError, OSError, ValueError) as error:
            if connection is not None:
                connection.close()
            raise _away(error) from error
        return Stream(connection, reader, status, fields)

    def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._host_header}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line end in a header")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")

    def _take(self) -> HTTPConnection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            if not wait_for_read(connection.sock, 0):
                return connection
            connection.close()  # the server ended it; nothing else makes it readable now

    def _connect(self) -> HTTPConnection:
        if self._is_secure:
            context = ssl.create_default_context()
            connection: HTTPConnection = HTTPSConnection(
                self._host, self._port, timeout=self._connect_seconds, ssl_context=context, cert_reqs="CERT_REQUIRED"
            )
        else:
            connection = HTTPConnection(self._host, self._port, timeout=self._connect_seconds)
        try:
            connection.connect()
            connection.sock.settimeout(self._read_seconds)
        except BaseException:
            with contextlib.suppress(OSError):
                connection.close()
            raise
        return connection


class Stream:
    """An answer whose body comes bit by bit. Read it in one thread; `close` may be called from another."""

    def __init__(self, connection: HTTPConnection, reader: "_Reader", status: int, fields: dict[str, str]) -> None:
        self.status = status
        self.fields = fields
        """The headers, their names in lower case."""
        self._connection = connection
        self._socket = connection.sock
        self._reader = reader

    def pieces(self) -> Generator[bytes, None, None]:
        """The body, in pieces of at most 64 KiB; the connection is closed at the end.

        Raises:
            Away: it was lost.

        """
        try:
            yield from _pieces(self._reader, self.status, self.fields)
        except (HTTPError, OSError, ValueError) as error:
            raise _away(error) from error
        finally:
            self._connection.close()

    def start(self, most: int) -> bytes:
        """The beginning of the body, so many bytes or a few more, or what comes of it; then it is closed."""
        found = b""
        with contextlib.suppress(Away), contextlib.closing(self.pieces()) as pieces:
            for piece in pieces:
                found += piece
                if len(found) >= most:
                    break
        return found

    def close(self) -> None:
        """End the answer at once, also under a reader that waits for it."""
        with contextlib.suppress(OSError):
            # Not the method of a TLS socket, which would take the session away from under the reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with contextlib.suppress(HTTPError, OSError, ValueError):
            self._connection.close()


def _away(error: Exception) -> Away:
    kind = TimedOut if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError) else Away
    return kind(0, escaped(f"{type(error).__name__}: {error}"))


class _Reader:
    """What has come on a connection and is not used yet."""

    def __init__(self, connection: HTTPConnection, most: float, seconds: float) -> None:
        """most: bytes of the body. seconds: for all of it, also if it comes drop by drop."""
        self._receive = connection.sock.recv
        self._most = most
        self._until = time.monotonic() + seconds
        self._rest = b""

    def _next(self) -> bytes:
        """What comes next; nothing if the server has closed."""
        piece = self._receive(_PIECE)
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


def _read_head(reader: _Reader) -> tuple[int, dict[str, str], str]:
    """Status, headers and version of HTTP."""
    for _ in range(_MOST_HEADS):
        first, *others = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"no HTTP: {first[:80]!r}")
        status = _number(rest[:3], 10)
        if status >= 200:
            parts = (line.partition(":") for line in others)
            return status, {name.lower(): value.strip() for name, _, value in parts}, version
    raise ValueError("announcements of an answer, and no answer")


def _stays_open(version: str, fields: Mapping[str, str]) -> bool:
    return version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"


def _pieces(reader: _Reader, status: int, fields: Mapping[str, str]) -> Iterator[bytes]:
    """The body of an answer, as it comes."""
    if status in (204, 304):
        return
    if fields.get("transfer-encoding", "").lower() == "chunked":
        yield from _chunks(reader)
    elif "content-length" in fields:
        yield from reader.exactly(_number(fields["content-length"], 10))
    else:  # and the connection with it
        yield from reader.until_the_end()


def _whole(pieces: Iterator[bytes]) -> bytes:
    """All of them. As objects, millions of pieces of two bytes would take 25 times their size."""
    found = bytearray()
    for piece in pieces:
        found += piece
    return bytes(found)


def _chunks(reader: _Reader) -> Iterator[bytes]:
    while size := _number(reader.until(_END).partition(b";")[0].strip().decode("ascii"), 16):
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
