"""PostgreSQL through asyncpg: a pool, prepared statements that stay cached, transactions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import asyncpg

from app.contract.errors import Overloaded, Unavailable
from app.storage.metrics import DATABASE_FAILURES, DATABASE_SECONDS
from app.storage.rows.database import Reader, Row, Work, tell_nobody
from app.storage.rows.leftovers import Scrubbed, kept_elsewhere, scrub_postgres
from app.storage.rows.postgres_batches import GroupCommit
from app.storage.rows.postgres_connect import IDLE, Connector, limit_idling
from app.storage.rows.postgres_errors import FORGOTTEN, POOLER_FORGETS, DatabaseRefused, is_transient, sentence
from app.storage.rows.postgres_pool import PoolClosed, PoolTimeout, PostgresPool
from app.storage.rows.postgres_url import PostgresTarget
from app.storage.rows.statements import Batch, Mutation, Parameters, Statement
from app.storage.rows.timing import timed

T = TypeVar("T")

_ATTEMPTS = 5
_ACQUIRE_SECONDS = 5.0
_IDLE_READER = "1d"
"""A snapshot holds no row's lock, and the reader of an export or the disk of a backup may be slow."""
_MUTATIONS_PER_STORE = 2
"""Two keep the store's row busy (one commits while the next arrives); more only queue inside the database."""

_CAN_BE_RUN_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_NOT_THERE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # The database ended the connection while it was free, and a request came first.
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalServerError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def _cant_be_used(error: Exception) -> Unavailable:
    kind = Unavailable if is_transient(error) else DatabaseRefused
    return kind(f"the database can't be used: {sentence(error)}")


class _StoreGates:
    """Lets a few mutations of one store through at a time, before they take a connection from the pool."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def __call__(self, store_id: str | None) -> AsyncIterator[None]:
        if store_id is None:
            yield
            return
        gate = self._gates.get(store_id)
        if gate is None:
            gate = self._gates[store_id] = asyncio.Semaphore(self._width)
        self._users[store_id] = self._users.get(store_id, 0) + 1
        try:
            async with gate:
                yield
        finally:
            self._users[store_id] -= 1
            if not self._users[store_id]:
                del self._users[store_id], self._gates[store_id]


class _CallersError(Exception):
    """Carries an error of the caller's own code past the handlers of the driver's errors, which may be of its kind."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _apart_from_the_callers() -> Iterator[None]:
    """Around everything that handles the driver's errors: what the caller's own code raised comes out as it is."""
    error = None
    try:
        yield
    except _CallersError as carried:
        error = carried.error
    if error is not None:
        raise error


class _Transaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._failure: BaseException | None = None

    @contextmanager
    def body(self) -> Iterator[None]:
        """Around the caller's code: a full disk of the caller's is no fault of the database."""
        try:
            yield
        except Exception as error:
            if error is self._failure:
                raise
            raise _CallersError(error) from error

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Around a call of the driver."""
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        compiled = statement.postgresql
        arguments = compiled.arguments(parameters)
        with self._call():
            row: Row | None = await self._connection.fetchrow(compiled.sql, *arguments)
            return row

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        compiled = statement.postgresql
        arguments = compiled.arguments(parameters)
        with self._call():
            rows: Sequence[Row] = await self._connection.fetch(compiled.sql, *arguments)
            return rows

    async def execute(self, statement: Statement | Batch, parameters: Parameters) -> int:
        compiled = statement.postgresql
        arguments = compiled.arguments(parameters)
        with self._call():
            status: str = await self._connection.execute(compiled.sql, *arguments)
            return int(status.rpartition(" ")[2])

    async def execute_many(self, statement: Statement, rows: Sequence[Parameters]) -> None:
        compiled = statement.postgresql
        arguments = list(map(compiled.arguments, rows))
        with self._call():
            await self._connection.executemany(compiled.sql, arguments)


class PostgresDatabase:
    """The `Database` port on PostgreSQL."""

    has_single_statement_mutations = True
    system = "postgresql"

    def __init__(self, target: PostgresTarget, *, pool_size: int = 20) -> None:
        self._connect = Connector(target)
        self._gates = _StoreGates(_MUTATIONS_PER_STORE)
        self._pool = PostgresPool(self._connect, pool_size, _ACQUIRE_SECONDS, lambda: self._connect.is_pooled)
        self.on_commit: Callable[[str], None] = tell_nobody
        self._commits: dict[Mutation, GroupCommit] = {}

    async def open(self) -> None:
        try:
            await self._pool.open()
        except (*_NOT_THERE, asyncpg.PostgresError) as error:
            raise _cant_be_used(error) from error
        except PoolTimeout as error:
            raise Overloaded("the database takes no further connections; try again") from error

    async def require_writable(self) -> None:
        # In a transaction, since that is what the service needs: some poolers grant none.
        async with self._connection() as connection, connection.transaction():
            if await connection.fetchval("SELECT current_setting('transaction_read_only')") == "on":
                raise asyncpg.ReadOnlySQLTransactionError("the server is read-only")

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection from the pool; what goes wrong with it comes out as the service's own errors."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolClosed as error:
            raise Unavailable("the database is closed: this process is ending") from error
        except PoolTimeout as error:
            DATABASE_FAILURES.labels("busy").inc()
            raise Overloaded("no database connection was free in time; try again") from error
        except asyncpg.TooManyConnectionsError as error:
            DATABASE_FAILURES.labels("busy").inc()
            raise Overloaded("the database takes no further connections; try again") from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            DATABASE_FAILURES.labels("away").inc()
            raise Unavailable("the database is read-only (a standby, or a failover under way); try again") from error
        except asyncpg.InsufficientPrivilegeError as error:
            DATABASE_FAILURES.labels("away").inc()
            raise DatabaseRefused("the database's role may not do what the service needs (42501)") from error
        except FORGOTTEN as error:
            DATABASE_FAILURES.labels("away").inc()
            raise DatabaseRefused(f"the database can't be used: {POOLER_FORGETS}") from error
        except _NOT_THERE as error:
            DATABASE_FAILURES.labels("away").inc()
            raise Unavailable("the database does not answer or can't store; try again") from error

    @timed(DATABASE_SECONDS, "read", every=8)
    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        return await self._fetch_one(statement, parameters)

    async def _fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        compiled = statement.postgresql
        async with self._connection() as connection:
            row: Row | None = await connection.fetchrow(compiled.sql, *compiled.arguments(parameters))
            return row

    @timed(DATABASE_SECONDS, "read", every=8)
    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        compiled = statement.postgresql
        async with self._connection() as connection:
            rows: Sequence[Row] = await connection.fetch(compiled.sql, *compiled.arguments(parameters))
            return rows

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        with _apart_from_the_callers():
            async with (
                self._connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await limit_idling(connection, _IDLE_READER)
                reader = _Transaction(connection)
                with reader.body():
                    yield reader

    async def scrub(self, tables: Sequence[str]) -> tuple[list[Scrubbed], list[str]]:
        try:
            connection = await self._connect()
        except (*_NOT_THERE, asyncpg.PostgresError) as error:
            raise _cant_be_used(error) from error
        try:
            scrubbed = await scrub_postgres(connection, tables, is_pooled=self._connect.is_pooled)
            return scrubbed, await kept_elsewhere(connection)
        finally:
            await connection.close()

    @timed(DATABASE_SECONDS, "write")
    async def mutate(self, mutation: Mutation, parameters: Parameters, *, store_id: str, row_id: str) -> Row | None:
        commits = self._commits.get(mutation)
        if commits is None:
            alone = partial(self._mutate_alone, mutation)
            commits = GroupCommit(mutation.many, self._connection, alone, _ACQUIRE_SECONDS)
            self._commits[mutation] = commits
        row = await commits.run(parameters, store_id=store_id, row_id=row_id)
        if row is not None:
            self.on_commit(store_id)
        return row

    async def _mutate_alone(self, mutation: Mutation, parameters: Parameters) -> Row | None:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._fetch_one(mutation, parameters)
            except _CAN_BE_RUN_AGAIN as error:
                await self._before_next(attempt, error)
        raise AssertionError

    @timed(DATABASE_SECONDS, "write")
    async def transact(self, work: Work[T], *, store_id: str | None = None) -> T:
        async with self._gates(store_id):
            for attempt in range(_ATTEMPTS):
                try:
                    with _apart_from_the_callers():
                        async with self._connection() as connection, connection.transaction():
                            if self._connect.is_pooled:
                                await limit_idling(connection, IDLE)
                            transaction = _Transaction(connection)
                            with transaction.body():
                                result = await work(transaction)
                    if store_id is not None:
                        self.on_commit(store_id)
                    return result
                except _CAN_BE_RUN_AGAIN as error:
                    await self._before_next(attempt, error)
        raise AssertionError

    @staticmethod
    async def _before_next(attempt: int, error: Exception) -> None:
        if attempt + 1 == _ATTEMPTS:
            DATABASE_FAILURES.labels("busy").inc()
            raise Overloaded("too many changes at once to the same rows; try again") from error
        await asyncio.sleep(0.005 * 2**attempt)
