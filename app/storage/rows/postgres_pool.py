"""A pool of asyncpg connections that costs little to take from.

asyncpg's own pool makes a task and two timers for each use, a fifth of the time of a read here, and lets a newcomer
overtake those who wait (docs/performance.md). This one hands a free connection over in a function call and serves
those who wait in turn. Its connections carry no session state, so nothing has to be reset between two uses.

Nobody makes a connection for himself: the pool makes as many as are waited for, and gives each to the next in turn. So
no turn is lost with somebody who gives up, and where the database (or a pooler in front of it) grants fewer
connections than the pool would like, those that exist are shared.

Behind a pooler a connection that is kept may be one that others wait for: in session mode it takes one of the pooler's
few for as long as it lives. There a connection ends when nobody needed it for a while, and at the latest after a few
seconds, so that each process, and each command of an administrator, has its turn.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from app.storage.background import happens

_BROKEN = (
    OSError,
    TimeoutError,
    asyncio.CancelledError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""After these something may still be under way on a connection, or its end is. Other answers leave it as it was."""
_PAUSE_SECONDS = 5.0
"""After a connection was refused, how long those that exist are to do."""
_AGAIN_SECONDS = 0.1
"""Between two attempts where the database is full and the pool has no connection at all."""
_RENEWAL_SECONDS = 1.0
_UNUSED_SECONDS = 1.0
"""Behind a pooler, how long a connection is kept that nobody uses."""
_LIFE_SECONDS = 3.0
"""Behind a pooler, how long a connection is kept at all; less than the time for which others wait for one."""


class PoolTimeout(Exception):
    """No connection was free in time."""


class PoolClosed(Exception):
    """The pool was closed."""


class PostgresPool:
    """Up to `size` connections, made by `connect` when they are waited for and again when they broke."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        size: int,
        timeout_seconds: float,
        is_shared: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_shared`: whether the connections are a pooler's, and others wait for them."""
        self._connect = connect
        self._is_shared = is_shared
        self._size = size
        self._timeout = timeout_seconds
        self._free: dict[Any, float] = {}
        """Connections, and since when each is free; the last is used first."""
        self._all: dict[Any, float] = {}
        """Connections that exist, free or in use, and when each was made."""
        self._timer: asyncio.TimerHandle | None = None
        """Runs while connections of a pooler are free."""
        self._stale: set[Any] = set()
        """Of those in use, the ones to end when they are given back."""
        self._waiting: OrderedDict[asyncio.Future[Any], None] = OrderedDict()
        self._making: set[asyncio.Task[None]] = set()
        self._full: Exception | None = None
        """What the database said when it took no more connections."""
        self._next_attempt = 0.0
        self._next_renewal = 0.0
        self._closed = False
        self._idle = asyncio.Event()
        """Set when a pool that is being closed has no connection left."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for one use.

        Raises:
            PoolClosed: `close` was called.
            PoolTimeout: none was free in time.
            OSError, asyncpg.PostgresError: none could be made.
        """
        connection = self._take() or await self._wait()
        try:
            yield connection
        except asyncpg.ReadOnlySQLTransactionError:
            connection.terminate()
            self.renew()
            raise
        except _BROKEN:
            connection.terminate()
            raise
        finally:
            self._give_back(connection)

    async def open(self) -> None:
        """Make the first connection, to see that it can be made."""
        async with self.connection():
            pass

    def renew(self) -> None:
        """End what was connected before now, as soon as it is free: the server is no longer the one to ask."""
        now = asyncio.get_running_loop().time()
        if now < self._next_renewal:
            return
        self._next_renewal = now + _RENEWAL_SECONDS
        for connection in list(self._free):
            self._end(connection)
        self._stale |= self._all.keys()

    async def close(self) -> None:
        """Turn away who waits, let those in use finish for a while, and end every connection."""
        self._closed = True
        making = list(self._making)
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        while self._waiting:
            self._refuse_next(PoolClosed())
        if self._timer is not None:
            self._timer.cancel()
        while self._free:
            connection, _ = self._free.popitem()
            self._all.pop(connection, None)
            try:
                await connection.close(timeout=self._timeout)
            except _BROKEN:
                connection.terminate()
        if self._all:
            await happens(self._idle, self._timeout)

    def _take(self) -> Any | None:
        """A free connection that the database has not closed meanwhile."""
        while self._free:
            connection, _ = self._free.popitem()
            if not connection.is_closed():
                return connection
            self._all.pop(connection, None)
        return None

    def _end(self, connection: Any) -> None:
        self._free.pop(connection, None)
        self._all.pop(connection, None)
        self._stale.discard(connection)
        if not connection.is_closed():
            connection.terminate()

    def _end_unused(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection, since in list(self._free.items()):
            if now >= since + _UNUSED_SECONDS:
                self._end(connection)
        self._timer = None
        self._watch_unused()

    def _watch_unused(self) -> None:
        if self._free and self._timer is None and self._is_shared():
            self._timer = asyncio.get_running_loop().call_later(_UNUSED_SECONDS, self._end_unused)

    async def _wait(self) -> Any:
        if self._closed:
            raise PoolClosed
        turn: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        self._make_more()
        try:
            async with asyncio.timeout(self._timeout) as clock:
                return await turn
        except BaseException:
            self._waiting.pop(turn, None)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())
            if clock.expired() and self._all:
                raise PoolTimeout from None
            if clock.expired() and self._full is not None:
                raise self._full from None
            raise

    def _make_more(self) -> None:
        """Begin as many connections as are waited for and allowed."""
        if self._closed or (self._all and asyncio.get_running_loop().time() < self._next_attempt):
            return
        while len(self._making) < len(self._waiting) and len(self._all) + len(self._making) < self._size:
            task = asyncio.create_task(self._make())
            self._making.add(task)
            task.add_done_callback(self._made)

    async def _make(self) -> None:
        try:
            connection = await self._connect_when_there_is_room()
        except Exception as error:
            self._next_attempt = asyncio.get_running_loop().time() + _PAUSE_SECONDS
            if not self._all:
                self._refuse_next(error)
            return
        self._full = None
        self._all[connection] = asyncio.get_running_loop().time()
        self._give_back(connection)

    async def _connect_when_there_is_room(self) -> Any:
        while True:
            try:
                return await self._connect()
            except asyncpg.TooManyConnectionsError as error:
                if self._all or not self._waiting:
                    raise
                self._full = error
            await asyncio.sleep(_AGAIN_SECONDS)

    def _made(self, task: asyncio.Task[None]) -> None:
        self._making.discard(task)
        if not task.cancelled():
            task.result()
        self._make_more()

    def _give_back(self, connection: Any) -> None:
        now = asyncio.get_running_loop().time()
        is_over = self._is_shared() and now >= self._all[connection] + _LIFE_SECONDS
        if connection.is_closed() or self._closed or is_over or connection in self._stale:
            self._end(connection)
            if self._closed and not self._all:
                self._idle.set()
            self._make_more()
            return
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(connection)
                return
        self._free[connection] = now
        self._watch_unused()

    def _refuse_next(self, error: Exception) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_exception(error)
                return
