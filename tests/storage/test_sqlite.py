"""SQLite in a server: no read holds up the others or goes on for ever, no transaction fails for another's sake."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.contract.errors import Overloaded, Unavailable
from app.storage.rows import sqlite, sqlite_reads
from app.storage.rows.database import Transaction
from app.storage.rows.sqlite import SqliteDatabase
from app.storage.rows.statements import Statement

pytestmark = pytest.mark.anyio

ENDLESS = Statement(
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n WHERE x < 0 AND x < :count"
)
LARGE = Statement(
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300000) SELECT x FROM n WHERE x > :count"
)
ONE = Statement("SELECT 1 AS one")
INSERT = Statement("INSERT INTO kept (name) VALUES (:name)")
NAMES = Statement("SELECT name FROM kept ORDER BY name")
NOTHING = {"count": 0}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """A database with one table."""
    connection = sqlite.connect(tmp_path / "test.db")
    connection.execute("CREATE TABLE kept (name TEXT)")
    connection.close()
    database = SqliteDatabase(tmp_path / "test.db")
    await database.open()
    yield database
    await database.close()


def insert(name: str, then: Callable[[Transaction], Any] | None = None) -> Any:
    async def work(transaction: Transaction) -> None:
        await transaction.execute(INSERT, {"name": name})
        if then is not None:
            await then(transaction)

    return work


async def names(database: SqliteDatabase) -> list[str]:
    return [row["name"] for row in await database.fetch_all(NAMES, {})]


async def test_a_read_without_an_end_is_stopped_with_a_sentence_that_names_the_limit(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_reads, "READ_SECONDS", 1.0)
    with pytest.raises(Overloaded, match=r"longer than 1 seconds.*limit"):
        await database.fetch_all(ENDLESS, NOTHING)
    assert await database.fetch_one(ONE, {}) is not None


async def test_a_read_of_a_snapshot_without_an_end_is_stopped_as_well(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_reads, "SNAPSHOT_READ_SECONDS", 1.0)
    async with database.snapshot() as snapshot:
        with pytest.raises(Overloaded, match="longer than 1 seconds"):
            await snapshot.fetch_all(ENDLESS, NOTHING)
        assert await snapshot.fetch_one(ONE, {}) is not None


async def test_short_reads_and_writes_go_on_beside_more_long_reads_than_there_are_threads(
    database: SqliteDatabase,
) -> None:
    reading = [asyncio.ensure_future(database.fetch_all(ENDLESS, NOTHING)) for _ in range(6)]
    for number in range(20):
        assert await database.fetch_one(ONE, {}) is not None
        await database.transact(insert(f"{number:02d}"))
    assert len(await names(database)) == 20
    assert not any(read.done() for read in reading)
    for read in reading:
        read.cancel()  # Each stops its thread, or the end of this test would wait for the limit.
    results = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


def test_a_short_read_that_other_work_puts_off_is_not_read_again_on_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_reads, "_LOOP_WAIT_SECONDS", 60.0)
    connection = sqlite_reads.TimedConnection(sqlite.connect(tmp_path / "test.db"))
    connection.connection.create_function("put_off", 0, lambda: time.sleep(2 * sqlite_reads._LOOP_SECONDS))
    read = Statement(
        "WITH RECURSIVE n(x) AS (SELECT put_off() IS NULL UNION ALL SELECT x + 1 FROM n LIMIT 3000) "
        "SELECT x FROM n WHERE x > :count"
    )
    rows = connection.fetch_all(read, NOTHING, sqlite_reads._loops_limit())
    assert rows is not None
    assert len(rows) == 3000
    connection.connection.close()


async def test_a_large_read_is_whole(database: SqliteDatabase) -> None:
    rows = await database.fetch_all(LARGE, NOTHING)
    assert [rows[0]["x"], rows[-1]["x"], len(rows)] == [1, 300_000, 300_000]


async def test_a_snapshot_that_is_left_while_it_reads_ends_the_read(database: SqliteDatabase) -> None:
    async def read() -> None:
        async with database.snapshot() as snapshot:
            await snapshot.fetch_all(ENDLESS, NOTHING)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def raise_operational_error(transaction: Transaction) -> None:
    raise sqlite3.OperationalError("too many SQL variables")


async def run_bad_statement(transaction: Transaction) -> None:
    await transaction.fetch_all(Statement("SELECT json_extract(:name, '$')"), {"name": "{"})


async def be_cancelled(transaction: Transaction) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (raise_operational_error, Unavailable),
        (run_bad_statement, Unavailable),
        (be_cancelled, asyncio.CancelledError),
    ],
)
async def test_an_error_of_one_transaction_is_its_own_in_a_group_of_many(
    database: SqliteDatabase, bad: Callable[[Transaction], Any], told: type[BaseException]
) -> None:
    works = [insert(f"{number:02d}", bad if number == 5 else None) for number in range(10)]
    results = await asyncio.gather(*(database.transact(work) for work in works), return_exceptions=True)
    assert isinstance(results.pop(5), told)
    assert results == [None] * 9
    assert await names(database) == [f"{number:02d}" for number in range(10) if number != 5]


async def test_a_transaction_that_sqlite_ended_fails_all_that_shared_it_and_none_after(
    database: SqliteDatabase,
) -> None:
    async def end_it(transaction: Transaction) -> None:
        await transaction.fetch_all(Statement("ROLLBACK"), {})
        raise sqlite3.OperationalError("disk I/O error")

    works = [insert(f"{number:02d}", end_it if number == 5 else None) for number in range(10)]
    results = await asyncio.gather(*(database.transact(work) for work in works), return_exceptions=True)
    failed = {f"{number:02d}" for number, result in enumerate(results) if isinstance(result, Unavailable)}
    assert "05" in failed
    assert set(await names(database)) == {f"{number:02d}" for number in range(10)} - failed
    await database.transact(insert("after"))
    assert "after" in await names(database)


async def test_a_writer_that_can_not_connect_says_so_and_connects_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = SqliteDatabase(tmp_path / "test.db")
    await database.open()
    real, refusals = sqlite.connect, [sqlite3.OperationalError("unable to open database file")]

    def connect(path: Path) -> sqlite3.Connection:
        if refusals:
            raise refusals.pop()
        return real(path)

    monkeypatch.setattr(sqlite, "connect", connect)
    create = partial(lambda statement, transaction: transaction.execute(statement, {}), Statement("CREATE TABLE t (x)"))
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable, match="unable to open"):
            await database.transact(create)
        await database.transact(create)
        await database.close()
