"""Request and answer over connections that stay open, for asyncio: what `exchange` is for threads."""

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncGenerator, Mapping
from urllib.parse import urlsplit

from urllib3.util import wait_for_read

from . import async_http1
from .failures import Away, lost

_LONGEST_ANSWERS = 10
"""As in `exchange`."""
_LOST = (OSError, ValueError)


class _Connection:
    """One connection. seconds: the longest pause in what comes, and in what is sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = seconds

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(self._seconds):
            await self._writer.drain()

    async def receive(self, most: int) -> bytes:
        async with asyncio.timeout(self._seconds):
            return await self._reader.read(most)

    @property
    def is_open(self) -> bool:
        """Nothing makes an idle connection readable but the server's end of it."""
        there = self._writer.get_extra_info("socket")
        return not self._writer.is_closing() and not self._reader.at_eof() and not wait_for_read(there, 0)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed, and the connection with it
            self._writer.transport.abort()


class AsyncConnections:
    """At most so many connections to one server, for the tasks of one event loop at a time."""

    def __init__(self, base_url: str, *, size: int, connect_seconds: float, read_seconds: float) -> None:
        """Nothing is opened yet. size: more calls at once wait for a connection."""
        url = urlsplit(base_url)
        self._is_secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._is_secure else 80)
        self._host_header = {"host": url.netloc.rpartition("@")[2]}
        self._size = size
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._room = asyncio.Semaphore(size)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[_Connection] = []
        self._closings = 0

    async def close(self) -> None:
        """Close what is idle now, and what is in use as soon as it is idle; a later call opens new ones."""
        self._enter_loop()
        idle, self._idle = self._idle, []
        self._closings += 1
        for connection in idle:
            connection.close()
        await asyncio.sleep(0)  # in which the loop closes them

    async def call(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, most: int = 1 << 20
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of the answer. It is sent once, whatever happens.

        most: bytes of a body; a longer one is no answer, and is not read.

        Raises:
            Away: no whole answer came; the server may have done the work.

        """
        request = async_http1.request(method, target, {**self._host_header, **headers}, body)
        self._enter_loop()
        async with self._room:
            closings = self._closings
            connection = None
            try:
                connection = await self._take()
                await connection.send(request)
                reader = async_http1.AsyncReader(connection.receive, most, _LONGEST_ANSWERS * self._read_seconds)
                status, fields, version = await async_http1.read_head(reader)
                data = await async_http1.whole(async_http1.pieces(reader, status, fields))
                is_reusable = reader.is_empty and async_http1.stays_open(version, fields)
            except BaseException as error:  # a cancelled task's answer may still come: its connection is of no use
                if connection is not None:
                    connection.close()
                if isinstance(error, _LOST):
                    raise _away(error, was_sent=connection is not None) from error
                raise
            if is_reusable and closings == self._closings:
                self._idle.append(connection)
            else:
                connection.close()
        return status, fields, data

    async def open(self, target: str, headers: Mapping[str, str], seconds: float) -> "AsyncStream":
        """Ask for an answer that is read as it comes, on a connection of its own.

        seconds: the longest pause in it.

        Raises:
            Away: no answer came.

        """
        request = async_http1.request("GET", target, {**self._host_header, **headers}, None)
        connection = None
        try:
            connection = await self._connect(seconds)
            await connection.send(request)
            reader = async_http1.AsyncReader(connection.receive, math.inf, math.inf)
            status, fields, _ = await async_http1.read_head(reader)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, _LOST):
                raise _away(error, was_sent=connection is not None) from error
            raise
        return AsyncStream(connection, reader, status, fields)

    def _enter_loop(self) -> None:
        """A program may call `asyncio.run` more than once: what belongs to a loop ends with it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            for connection in self._idle:
                connection.close()
            self._loop, self._room, self._idle = loop, asyncio.Semaphore(self._size), []

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return await self._connect(self._read_seconds)

    async def _connect(self, seconds: float) -> _Connection:
        context = ssl.create_default_context() if self._is_secure else None
        async with asyncio.timeout(self._connect_seconds):
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        return _Connection(reader, writer, seconds)


class AsyncStream:
    """An answer whose body comes bit by bit. Read it in one task; `close` may be called from another."""

    def __init__(
        self, connection: _Connection, reader: async_http1.AsyncReader, status: int, fields: dict[str, str]
    ) -> None:
        self.status = status
        self.fields = fields
        """The headers, their names in lower case."""
        self._connection = connection
        self._reader = reader

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, in pieces of at most 64 KiB; the connection is closed at the end.

        Raises:
            Away: it was lost.

        """
        try:
            async for piece in async_http1.pieces(self._reader, self.status, self.fields):
                yield piece
        except _LOST as error:
            raise _away(error) from error
        finally:
            self._connection.close()

    async def start(self, most: int) -> bytes:
        """The beginning of the body, so many bytes or a few more, or what comes of it; then it is closed."""
        found = b""
        with contextlib.suppress(Away):
            async with contextlib.aclosing(self.pieces()) as pieces:
                async for piece in pieces:
                    found += piece
                    if len(found) >= most:
                        break
        return found

    def close(self) -> None:
        """End the answer at once, also under a reader that waits for it."""
        self._connection.close()


class AsyncEnding:
    """Set once, from a task of the loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """From now on nothing is waited for."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether the end has come."""
        return self._event.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until it is set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


def _away(error: Exception, *, was_sent: bool = True) -> Away:
    return lost(error, timed_out=isinstance(error, TimeoutError), was_sent=was_sent)
