"""Whatever becomes of those who wait for a connection, every connection and every turn reaches somebody."""

import asyncio
import gc
import random
from typing import Any

import asyncpg
import pytest

from app.storage.rows.postgres_pool import PoolClosed, PoolTimeout, PostgresPool
from tests.support.amounts import amount, repeats

SIZE = 3
WAIT_SECONDS = 5.0
STEPS = 60


class Connection:
    """What the pool asks of a connection."""

    def __init__(self) -> None:
        self.closed = False
        self.users = 0

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - as asyncpg has it
        self.closed = True


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes when the test says so."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Model:
    """A pool, those who use it, and a database that answers when it is told to."""

    def __init__(self, seed: int, loop: Loop) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.pool = PostgresPool(self.connect, SIZE, WAIT_SECONDS, lambda: seed % 2 == 1)
        self.attempts: list[asyncio.Future[Connection]] = []
        self.connections: list[Connection] = []
        self.users: dict[asyncio.Task[None], asyncio.Future[None]] = {}

    async def connect(self) -> Connection:
        attempt: asyncio.Future[Connection] = self.loop.create_future()
        self.attempts.append(attempt)
        return await attempt

    async def use(self, end: asyncio.Future[None]) -> None:
        async with self.pool.connection() as connection:
            assert not connection.closed, "it was handed out although it had ended"
            connection.users += 1
            assert connection.users == 1, "two use it at once"
            try:
                await end
            finally:
                connection.users -= 1

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)
        self.attempts = [attempt for attempt in self.attempts if not attempt.done()]
        self.users = {task: end for task, end in self.users.items() if not task.done()}
        alive = sum(not connection.closed for connection in self.connections)
        assert alive + len(self.attempts) <= SIZE, "more connections than allowed"

    def take(self) -> None:
        end: asyncio.Future[None] = self.loop.create_future()
        task = asyncio.ensure_future(self.use(end))
        self.users[task] = end

    def cancel(self) -> None:
        if self.users:
            self.random.choice(list(self.users)).cancel()

    def give_back(self) -> None:
        self._end(None)

    def fail(self) -> None:
        self._end(self.random.choice([OSError(), asyncpg.DivisionByZeroError("/"), asyncpg.AdminShutdownError("!")]))

    def find_it_read_only(self) -> None:
        self._end(asyncpg.ReadOnlySQLTransactionError("standby"))

    def _end(self, error: Exception | None) -> None:
        if self.users:
            end = self.random.choice(list(self.users.values()))
            if not end.done():
                end.set_result(None) if error is None else end.set_exception(error)

    def end_one_on_the_server(self) -> None:
        if self.connections:
            self.random.choice(self.connections).closed = True

    def accept(self) -> None:
        if self.attempts:
            attempt = self.attempts.pop(self.random.randrange(len(self.attempts)))
            if not attempt.done():
                connection = Connection()
                self.connections.append(connection)
                attempt.set_result(connection)

    def refuse(self) -> None:
        if self.attempts:
            attempt = self.attempts.pop(self.random.randrange(len(self.attempts)))
            if not attempt.done():
                attempt.set_exception(
                    self.random.choice([OSError("refused"), asyncpg.TooManyConnectionsError("sorry")])
                )

    def pass_time(self) -> None:
        self.loop.now += self.random.choice([0.2, WAIT_SECONDS / 2, WAIT_SECONDS * 2])

    async def run(self) -> None:
        moves = [self.take] * 4 + [self.cancel, self.give_back, self.give_back, self.fail, self.find_it_read_only]
        moves += [self.end_one_on_the_server, self.accept, self.accept, self.refuse, self.pass_time]
        for _ in range(STEPS):
            for _ in range(self.random.choice([1, 1, 1, 2, 3])):  # Several in one tick of the loop, too.
                self.random.choice(moves)()
            await self.settle()
        await self.everybody_is_served()
        await self.closing_ends_everything()

    async def everybody_is_served(self) -> None:
        """The database accepts, everybody gives back: who still waits gets a connection, in no time."""
        newcomers = len(self.users) + 1
        self.take()
        for _ in range(newcomers * 3 + 3):
            for task, end in self.users.items():
                assert not task.done() or not isinstance(task.exception(), PoolTimeout)
                if not end.done():
                    end.set_result(None)
            while self.attempts:
                self.accept()
            await self.settle()
            if not self.users:
                break
            self.loop.now += 0.2  # Where the database was full, it is asked again.
        assert not self.users, "somebody waits for ever"

    async def closing_ends_everything(self) -> None:
        self.take()
        self.take()
        users = dict(self.users)
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(self.pool.close())
        await self.settle()
        for end in users.values():
            if not end.done():
                end.set_result(None)
        await self.settle()
        assert closing.done()
        assert all(connection.closed for connection in self.connections)
        with pytest.raises(PoolClosed):
            await self.use(self.loop.create_future())


@repeats
@pytest.mark.parametrize("seed", range(amount(30, 1_000)))
def test_no_turn_and_no_connection_is_lost_whatever_callers_and_the_database_do(seed: int) -> None:
    loop = Loop()
    unexpected: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unexpected.append(context))
    try:
        loop.run_until_complete(Model(seed, loop).run())
    finally:
        loop.close()
    gc.collect()  # A task that nobody asked tells its error when it goes.
    bad = [one for one in unexpected if isinstance(one.get("exception"), AssertionError)]
    assert not bad


@pytest.mark.parametrize(("is_poolers", "made"), [(True, 3), (False, 1)])
def test_behind_a_pooler_a_connection_ends_after_a_while_though_somebody_always_needs_it(
    is_poolers: bool, made: int
) -> None:
    loop, connections = Loop(), []

    async def connect() -> Connection:
        connections.append(Connection())
        return connections[-1]

    async def use_it_for_nine_seconds() -> None:
        pool = PostgresPool(connect, 1, WAIT_SECONDS, lambda: is_poolers)
        for _ in range(18):
            async with pool.connection():
                loop.now += 0.5  # A use; the next one comes at once, so it is never found unused.
        assert len(connections) == made
        assert [connection.closed for connection in connections[:-1]] == [True] * (made - 1)
        await pool.close()

    try:
        loop.run_until_complete(use_it_for_nine_seconds())
    finally:
        loop.close()
    assert all(connection.closed for connection in connections)


@pytest.mark.parametrize("is_poolers", [True, False])
def test_behind_a_pooler_a_connection_that_nobody_uses_is_given_back(is_poolers: bool) -> None:
    loop, connection = Loop(), Connection()

    async def connect() -> Connection:
        return connection

    async def pass_time(seconds: float) -> None:
        loop.now += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    async def use_it_and_leave_it() -> None:
        pool = PostgresPool(connect, 1, WAIT_SECONDS, lambda: is_poolers)
        async with pool.connection():
            await pass_time(2.0)
        await pass_time(0.9)
        assert not connection.closed
        await pass_time(0.2)
        assert connection.closed == is_poolers
        await pool.close()

    try:
        loop.run_until_complete(use_it_and_leave_it())
    finally:
        loop.close()
