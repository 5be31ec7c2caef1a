"""A TCP proxy between the service and a server it needs, which fails in the ways that networks do."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.support.processes import free_port

T = TypeVar("T")

_CHUNK = 65_536
_CALL_SECONDS = 30.0
_POSTGRES_PORT = 5432

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through the proxy. Bytes pass while `is_open` is set."""

    def __init__(self, client: asyncio.StreamWriter, task: asyncio.Task[Any]) -> None:
        self.is_open = asyncio.Event()
        self.is_stranded = False
        self.ends = [client]
        self.task = task
        """What passes its bytes."""


class Proxy:
    """Forwards from `port` on the loopback address to a TCP address (host, port) or a Unix socket.

    Use `running`. The methods may be called from any thread; each holds when it returns.
    """

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self.port = free_port()
        self.passed_bytes = 0
        """Bytes that went through in either direction."""
        self._target = target
        self._delay = 0.0
        self._hangs = False
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def forward(self) -> None:
        """Everything works; what hung goes on. Stranded connections stay stranded."""
        self._call(self._forward())

    def refuse(self) -> None:
        """As if the server were down: connections are cut, new ones refused."""
        self._call(self._refuse())

    def cut(self) -> None:
        """Cut every connection; new ones work."""
        self._call(self._cut())

    def hang(self) -> None:
        """As if the server were frozen: connections are taken, and nothing passes."""
        self._call(self._hang())

    def strand(self) -> None:
        """As if a firewall forgot them: nothing passes on existing connections, ever; new ones work."""
        self._call(self._strand())

    def slow(self, seconds: float) -> None:
        """Hold back each piece for so long, in both directions."""
        self._call(self._slow(seconds))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    @classmethod
    @contextlib.contextmanager
    def running(cls, target: tuple[str, int] | Path) -> Iterator["Proxy"]:
        """A proxy that forwards, and is gone at the end."""
        proxy = cls(target)
        proxy._thread.start()
        try:
            proxy.forward()
            yield proxy
        finally:
            proxy.refuse()
            proxy._call(proxy._end())
            proxy._loop.call_soon_threadsafe(proxy._loop.stop)
            proxy._thread.join()
            proxy._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_SECONDS)

    async def _forward(self) -> None:
        self._delay, self._hangs = 0.0, False
        for link in self._links:
            if not link.is_stranded:
                link.is_open.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._cut()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            for end in link.ends:
                end.transport.abort()
            link.task.cancel()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)

    async def _hang(self) -> None:
        self._hangs = True
        for link in self._links:
            link.is_open.clear()

    async def _strand(self) -> None:
        for link in self._links:
            link.is_stranded = True
            link.is_open.clear()

    async def _slow(self, seconds: float) -> None:
        self._delay = seconds

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listener is None:  # it was taken by the listener, and refused before it got here
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        link = _Link(writer, task)
        if not self._hangs:
            link.is_open.set()
        self._links.add(link)
        try:
            await link.is_open.wait()
            async with self._connected() as (far_reader, far_writer):
                link.ends.append(far_writer)
                await asyncio.gather(self._pump(reader, far_writer, link), self._pump(far_reader, writer, link))
        except (OSError, asyncio.CancelledError):
            pass  # One of the ends is gone, or both are cut; the other learns it below.
        finally:
            self._links.discard(link)
            writer.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Streams]:
        if isinstance(self._target, Path):
            reader, writer = await asyncio.open_unix_connection(self._target)
        else:
            reader, writer = await asyncio.open_connection(*self._target)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        while piece := await reader.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await link.is_open.wait()
            self.passed_bytes += len(piece)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


@contextlib.contextmanager
def before_database(environment: dict[str, str]) -> Iterator[Proxy]:
    """A proxy in front of the environment's PostgreSQL; the URL then leads through it."""
    url = urlsplit(environment["MEMSTORE_DATABASE_URL"])
    directory = parse_qs(url.query).get("host", [""])[0]
    port = url.port or _POSTGRES_PORT
    target = Path(directory) / f".s.PGSQL.{port}" if directory else (url.hostname or "127.0.0.1", port)
    with Proxy.running(target) as proxy:
        user, at, _ = url.netloc.rpartition("@")
        through = url._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}", query="")
        yield _rerouted(proxy, environment, "MEMSTORE_DATABASE_URL", through.geturl)


@contextlib.contextmanager
def before_s3(environment: dict[str, str]) -> Iterator[Proxy]:
    """A proxy in front of the environment's S3 server; the endpoint then leads through it."""
    url = urlsplit(environment["MEMSTORE_S3_ENDPOINT_URL"])
    with Proxy.running((url.hostname or "127.0.0.1", url.port or 80)) as proxy:
        through = url._replace(netloc=f"127.0.0.1:{proxy.port}")
        yield _rerouted(proxy, environment, "MEMSTORE_S3_ENDPOINT_URL", through.geturl)


def _rerouted(proxy: Proxy, environment: dict[str, str], name: str, url: Callable[[], str]) -> Proxy:
    environment[name] = url()
    return proxy
