"""Request and answer over connections that stay open: urllib3 connects, and `http1` speaks the little it takes.

One call costs 80 µs of processor time this way and 290 µs through urllib3's own requests, which send header and body
in two packets and parse the answer's header as an e-mail. A mount makes one call for each file that is closed.
"""

import contextlib
import math
import os
import socket
import ssl
import threading
from collections.abc import Generator, Mapping
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import wait_for_read

from . import http1
from .failures import Away, lost

_LONGEST_ANSWERS = 10
"""Times the read timeout: how long an answer may take that comes drop by drop."""
_LOST = (HTTPError, OSError, ValueError)
_TIMED_OUT = (TimeoutError, urllib3.exceptions.TimeoutError)


class Connections:
    """At most so many connections to one server. Thread-safe."""

    def __init__(self, base_url: str, *, size: int, connect_seconds: float, read_seconds: float) -> None:
        """Nothing is opened yet. size: more calls at once wait for a connection."""
        url = urlsplit(base_url)
        self._is_secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port
        self._host_header = {"host": url.netloc.rpartition("@")[2]}
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._room = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._closings = 0
        self._process = os.getpid()

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
        request = http1.request(method, target, {**self._host_header, **headers}, body)
        with self._room:
            closings = self._closings
            connection = None
            try:
                connection = self._take()
                connection.sock.sendall(request)
                reader = http1.Reader(connection.sock.recv, most, _LONGEST_ANSWERS * self._read_seconds)
                status, fields, version = http1.read_head(reader)
                data = http1.whole(http1.pieces(reader, status, fields))
                is_reusable = reader.is_empty and http1.stays_open(version, fields)
            except BaseException as error:
                if connection is not None:
                    connection.close()
                if isinstance(error, _LOST):
                    raise _away(error, was_sent=connection is not None) from error
                raise
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
        request = http1.request("GET", target, {**self._host_header, **headers}, None)
        connection = None
        try:
            connection = self._connect()
            connection.sock.settimeout(seconds)
            connection.sock.sendall(request)
            reader = http1.Reader(connection.sock.recv, math.inf, math.inf)
            status, fields, _ = http1.read_head(reader)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, _LOST):
                raise _away(error, was_sent=connection is not None) from error
            raise
        return Stream(connection, reader, status, fields)

    def _take(self) -> HTTPConnection:
        while True:
            with self._lock:
                if self._process != os.getpid():  # a fork, whose parent goes on with these
                    self._process, self._idle = os.getpid(), []
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

    def __init__(self, connection: HTTPConnection, reader: http1.Reader, status: int, fields: dict[str, str]) -> None:
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
            yield from http1.pieces(self._reader, self.status, self.fields)
        except _LOST as error:
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


class Ending:
    """Set once, from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """From now on nothing is waited for."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether the end has come."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it is set."""
        self._event.wait(seconds)


def _away(error: Exception, *, was_sent: bool = True) -> Away:
    return lost(error, timed_out=isinstance(error, _TIMED_OUT), was_sent=was_sent)
