"""The pool never hands out a connection that the database has ended or that something is still under way on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.contract.errors import Unavailable
from app.storage.rows.postgres import PostgresDatabase
from app.storage.rows.postgres_pool import PostgresPool
from app.storage.rows.postgres_url import parse
from app.storage.rows.statements import Statement
from tests.support.backends import Services

pytestmark = pytest.mark.anyio

ONE = Statement("SELECT 1 AS one")


@pytest.fixture
async def pool(services: Services) -> AsyncIterator[PostgresPool]:
    """A pool of one connection."""
    url = services.postgres.create_database()
    pool = PostgresPool(lambda: asyncpg.connect(url), 1, 5.0)
    yield pool
    await pool.close()


async def backend_of(pool: PostgresPool) -> int:
    async with pool.connection() as connection:
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
        return pid


async def test_an_answer_of_the_database_leaves_the_connection_in_use(pool: PostgresPool) -> None:
    before = await backend_of(pool)
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with pool.connection() as connection:
            await connection.execute("SELECT 1 / 0")
    assert await backend_of(pool) == before


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.InterfaceError("another operation is in progress"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_connection_that_failed_is_replaced(pool: PostgresPool, error: Exception) -> None:
    before = await backend_of(pool)
    with pytest.raises(type(error)):
        async with pool.connection():
            raise error
    assert await backend_of(pool) != before


async def test_a_connection_that_the_database_ended_in_use_is_replaced(pool: PostgresPool) -> None:
    before = await backend_of(pool)
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await backend_of(pool) != before


async def test_closing_waits_for_a_connection_in_use_even_when_it_breaks(services: Services) -> None:
    pool = PostgresPool(lambda: asyncpg.connect(url), 1, 60.0)
    url = services.postgres.create_database()
    async with asyncio.timeout(60):
        async with pool.connection() as connection:
            closing = asyncio.create_task(pool.close())
            await asyncio.sleep(0)
            connection.terminate()
        await closing


async def test_a_request_that_meets_an_ended_connection_is_told_to_try_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = PostgresDatabase(parse(services.postgres.create_database()), pool_size=1)
    await database.open()

    async def fetchrow(*_: Any) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    with monkeypatch.context() as broken:
        broken.setattr(asyncpg.Connection, "fetchrow", fetchrow)
        with pytest.raises(Unavailable):
            await database.fetch_one(ONE, {})
    row = await database.fetch_one(ONE, {})
    assert row is not None
    assert row["one"] == 1
    await database.close()
