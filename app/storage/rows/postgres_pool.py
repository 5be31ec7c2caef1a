"""A pool of asyncpg connections that costs little to take from.

asyncpg's own pool makes a task and two timers for each use, a fifth of the time of a read here, and lets a newcomer
overtake those who wait (docs/performance.md). This one hands a free connection over in a function call and serves
those who wait in turn. Its connections carry no session state, so nothing has to be reset between two uses.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

_BROKEN = (
    OSError,
    TimeoutError,
    asyncio.CancelledError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
"""After these something may still be under way on a connection, or its end is. Other answers leave it as it was."""


class PoolTimeout(Exception):
    """No connection was free in time."""


class PostgresPool:
    """Up to `size` connections, made by `connect` when they are needed and again when they broke."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], size: int, timeout_seconds: float) -> None:
        self._connect = connect
        self._size = size
        self._timeout = timeout_seconds
        self._free: list[Any] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._count = 0
        """Connections that exist or are being made."""
        self._idle = asyncio.Event()
        """Set when a pool that is being closed has no connection left."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for one use.

        Raises:
            PoolTimeout: none was free in time.
            OSError, asyncpg.PostgresError: none could be made.
        """
        connection = self._take() or await self._wait_or_make()
        try:
            yield connection
        except _BROKEN:
            connection.terminate()
            raise
        finally:
            self._give_back(connection)

    async def open(self) -> None:
        """Make the first connection, to see that it can be made."""
        async with self.connection():
            pass

    async def close(self) -> None:
        """Turn away who waits, let those in use finish for a while, and end every connection."""
        self._size = 0
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(PoolTimeout())
        while self._free:
            connection = self._free.pop()
            self._count -= 1
            await connection.close()
        if self._count > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), self._timeout)

    def _take(self) -> Any | None:
        """A free connection that the database has not closed meanwhile."""
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
            self._count -= 1
        return None

    async def _wait_or_make(self) -> Any:
        if self._count < self._size:
            return await self._make()
        if self._size == 0:
            raise PoolTimeout
        turn: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._timeout):
                connection = await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None and turn.result() is not None:
                self._give_back(turn.result())
            if isinstance(error, TimeoutError):
                raise PoolTimeout from None
            raise
        return connection if connection is not None else await self._make()

    async def _make(self) -> Any:
        self._count += 1
        try:
            return await self._connect()
        except BaseException:
            self._count -= 1
            self._call_next(None)
            raise

    def _give_back(self, connection: Any) -> None:
        if connection.is_closed() or self._count > self._size:
            if not connection.is_closed():
                connection.terminate()
            self._count -= 1
            self._call_next(None)
            if self._count == 0:
                self._idle.set()
        elif not self._call_next(connection):
            self._free.append(connection)

    def _call_next(self, connection: Any | None) -> bool:
        """Give the next in turn a connection, or with None the right to make one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False
