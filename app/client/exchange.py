"""Request and answer over connections that stay open: urllib3 connects, and this speaks the little HTTP/1.1 it takes.

One call costs 80 µs of processor time this way and 290 µs through urllib3's own requests, which send header and body
in two packets and parse the answer's header as an e-mail. A mount makes one call for each file that is closed.
"""

import contextlib
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import wait_for_read

from app.client.failures import Away, TimedOut

_PIECE = 65_536
_HEAD_MAX_BYTES = 65_536
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
        """Close what is idle now, and what is in use when it is not any more; a later call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closings += 1
        for connection in idle:
            connection.close()

    def call(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of the answer. It is sent once, whatever happens.

        Raises:
            Away: no whole answer came; the server may have done the work.

        """
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._host_header}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line end in a header")
        request = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
        with self._room:
            closings = self._closings
            connection = None
            try:
                connection = self._take()
                connection.sock.sendall(request)
                status, fields, data, is_reusable = _read_answer(connection)
            except (HTTPError, OSError, ValueError) as error:
                if connection is not None:
                    connection.close()
                kind = TimedOut if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError) else Away
                raise kind(0, f"{type(error).__name__}: {error}") from error
            with self._lock:
                is_kept = is_reusable and closings == self._closings
                if is_kept:
                    self._idle.append(connection)
            if not is_kept:
                connection.close()
        return status, fields, data

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


class _Reader:
    """What has come on a connection and is not used yet."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._receive = connection.sock.recv
        self._rest = b""

    def _more(self) -> bytes:
        piece = self._receive(_PIECE)
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

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        pieces, missing = [self._rest], size - len(self._rest)
        while missing > 0:
            pieces.append(self._more())
            missing -= len(pieces[-1])
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]

    def until_the_end(self) -> bytes:
        """Everything until the server closes."""
        pieces = [self._rest]
        while piece := self._receive(_PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    @property
    def is_empty(self) -> bool:
        """Whether everything that came is used."""
        return not self._rest


def _read_answer(connection: HTTPConnection) -> tuple[int, dict[str, str], bytes, bool]:
    reader = _Reader(connection)
    status = 100
    fields: dict[str, str] = {}
    while status < 200:  # answers that only announce another one
        first, *others = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"no HTTP: {first[:80]!r}")
        status = int(rest[:3])
        fields = {}
        for line in others:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
    is_reusable = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
    if status in (204, 304):
        data = b""
    elif fields.get("transfer-encoding", "").lower() == "chunked":
        data = _read_chunks(reader)
    elif "content-length" in fields:
        data = reader.exactly(int(fields["content-length"]))
    else:
        data, is_reusable = reader.until_the_end(), False
    return status, fields, data, is_reusable and reader.is_empty


def _read_chunks(reader: _Reader) -> bytes:
    pieces = []
    while size := int(reader.until(_END).partition(b";")[0], 16):
        pieces.append(reader.exactly(size))
        reader.until(_END)
    while reader.until(_END):  # trailers
        continue
    return b"".join(pieces)
