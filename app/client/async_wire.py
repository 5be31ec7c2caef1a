"""How a client reaches its server: calls that are sent again where that does no harm, and answers that come slowly.

`wire.py`, the same for threads, is made from this file by `scripts/sync_twins.py`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from . import calls, shapes
from .async_exchange import AsyncConnections, AsyncStream
from .credentials import Credentials
from .failures import Away, failure
from .shapes import Found

T = TypeVar("T")

_CONNECT_SECONDS = 5.0
_ANSWER_MAX_BYTES = 64 << 20
_REFUSAL_MAX_BYTES = 65_536


class AsyncWire:
    """The way to one server; see `AsyncMemstore` for what it raises and repeats."""

    def __init__(self, found: Credentials, *, timeout: float, retries: int, connections: int) -> None:
        """Nothing is sent yet. timeout: seconds without a byte; connections: kept open at most."""
        self.timeout = timeout
        self._prefix = urlsplit(found.base_url).path
        self._headers = {**calls.HEADERS, **found.headers()}
        self._retries = retries
        self._connections = AsyncConnections(
            found.base_url, size=connections, connect_seconds=min(timeout, _CONNECT_SECONDS), read_seconds=timeout
        )

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._connections.close()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Found:
        """The answer of any route as JSON. Raises ValueError if it can't be sent."""
        target, data = calls.target(path, query), None if body is None else calls.body_of(body)
        return shapes.document(await self.repeated(method, lambda: self._send(method, target, data)))

    async def pages(self, path: str, *, query: Mapping[str, Any] | None = None) -> AsyncGenerator[Found, None]:
        """The items of any listing as JSON, page after page. Raises as `request`."""
        asked = dict(query or {})
        seen: set[str] = set()
        while True:
            page = await self.request("GET", path, query=asked)
            for item in shapes.items(page):
                yield item
            cursor = shapes.next_page(page)
            if cursor is None:
                return
            if cursor in seen:
                raise shapes.malformed("a listing that repeats itself")
            seen.add(cursor)
            asked["page"] = cursor

    async def repeated(self, method: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What an attempt gives, made again after a pause where that does no harm."""
        failed = 0
        while True:
            try:
                return await attempt()
            except Away as away:
                if failed >= self._retries or not calls.may_be_repeated(method, away):
                    raise
                await asyncio.sleep(calls.pause_before(failed, away))
            failed += 1

    async def open(self, target: str, accept: str, seconds: float) -> AsyncStream:
        """An answer whose body is still to be read. seconds: the longest pause in it."""
        stream = await self._connections.open(f"{self._prefix}{target}", {**self._headers, "accept": accept}, seconds)
        if not 200 <= stream.status < 300:
            raise failure(stream.status, stream.fields, await stream.start(_REFUSAL_MAX_BYTES))
        return stream

    async def _send(self, method: str, target: str, data: bytes | None) -> bytes:
        status, headers, answer = await self._connections.call(
            method, f"{self._prefix}{target}", self._headers, data, most=_ANSWER_MAX_BYTES
        )
        if not 200 <= status < 300:
            raise failure(status, headers, answer)
        return answer
