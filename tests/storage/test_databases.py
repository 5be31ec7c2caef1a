"""What the services rely on of both databases: whole transactions, in order, with clear errors."""

import asyncio
import errno
import sqlite3
from collections.abc import Awaitable

import pytest

from app.contract.errors import InvalidRequest, Unavailable
from app.storage.rows.database import Transaction
from app.storage.rows.leases import Lease
from app.storage.rows.sqlite import connect
from app.storage.rows.statements import Statement
from tests.storage.parts import Parts
from tests.support.backends import SQLITE_DISK, Backend

pytestmark = pytest.mark.anyio

INSERT = Statement("INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, 0)")
COUNT_UP = Statement("UPDATE leases SET expires_at = expires_at + 1 WHERE name = :name")
READ = Statement("SELECT expires_at FROM leases WHERE name = :name")


async def insert(parts: Parts, name: str) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.execute(INSERT, {"name": name, "holder": "test"})

    await parts.storage.database.transact(work)


async def test_a_transaction_that_raises_leaves_nothing_behind(parts: Parts) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.execute(INSERT, {"name": "refused", "holder": "test"})
        raise InvalidRequest("refused")

    with pytest.raises(InvalidRequest):
        await parts.storage.database.transact(work)
    assert await parts.storage.database.fetch_one(READ, {"name": "refused"}) is None


async def test_of_many_transactions_at_once_those_that_raise_take_none_of_the_others_along(parts: Parts) -> None:
    async def work(number: int) -> int:
        async def insert_and_perhaps_raise(transaction: Transaction) -> int:
            await transaction.execute(INSERT, {"name": f"lease {number}", "holder": "test"})
            if number % 3 == 0:
                raise InvalidRequest("refused")
            return number

        return await parts.storage.database.transact(insert_and_perhaps_raise)

    results = await asyncio.gather(*(work(number) for number in range(60)), return_exceptions=True)
    kept = {number for number, result in enumerate(results) if result == number}
    assert kept == {number for number in range(60) if number % 3}
    assert all(isinstance(results[number], InvalidRequest) for number in range(60) if number not in kept)
    rows = parts.outside.rows.execute("SELECT name FROM leases")
    assert {row[0] for row in rows} == {f"lease {number}" for number in kept}


async def test_a_statement_the_database_refuses_fails_its_own_transaction_only(parts: Parts) -> None:
    await insert(parts, "there already")
    results = await asyncio.gather(
        insert(parts, "one"), insert(parts, "there already"), insert(parts, "other"), return_exceptions=True
    )
    assert [result is None for result in results] == [True, False, True]
    assert parts.outside.rows.count("leases") == 3


CONNECTION = Statement("SELECT pg_backend_pid() AS number")


async def fail_in_a_snapshot(parts: Parts, error: Exception) -> None:
    async with parts.storage.database.snapshot() as reader:
        assert await reader.fetch_one(READ, {"name": "refused"}) is None
        raise error


@pytest.mark.parametrize("own", [OSError(errno.ENOSPC, "the caller's disk is full"), TimeoutError("the caller's own")])
async def test_an_error_of_the_callers_own_is_not_told_as_one_of_the_database(
    parts: Parts, backend: Backend, own: Exception
) -> None:
    database = parts.storage.database

    async def connection() -> object:
        row = None if backend.name == SQLITE_DISK else await database.fetch_one(CONNECTION, {})
        return row and row["number"]

    async def work(transaction: Transaction) -> None:
        await transaction.execute(INSERT, {"name": "refused", "holder": "test"})
        raise own

    before = await connection()
    with pytest.raises(type(own)) as in_transaction:
        await database.transact(work)
    assert in_transaction.value is own
    with pytest.raises(type(own)) as in_snapshot:
        await fail_in_a_snapshot(parts, own)
    assert in_snapshot.value is own
    assert await connection() == before, "the connection was ended"


async def test_a_file_of_the_callers_that_fails_in_a_snapshot_is_not_the_database(parts: Parts) -> None:
    own = sqlite3.OperationalError("database or disk is full")
    with pytest.raises(sqlite3.OperationalError):
        await fail_in_a_snapshot(parts, own)


async def test_transactions_on_one_row_follow_each_other(parts: Parts) -> None:
    await insert(parts, "counter")

    async def count(transaction: Transaction) -> None:
        await transaction.execute(COUNT_UP, {"name": "counter"})

    await asyncio.gather(*(parts.storage.database.transact(count, store_id="store") for _ in range(100)))
    row = await parts.storage.database.fetch_one(READ, {"name": "counter"})
    assert row is not None
    assert row["expires_at"] == 100


async def test_transactions_that_lock_each_other_out_are_run_again(parts: Parts, backend: Backend) -> None:
    for name in ("a", "b"):
        await insert(parts, name)
    both_began = asyncio.Barrier(2)
    runs = 0

    def count_up(first: str, second: str) -> Awaitable[None]:
        async def work(transaction: Transaction) -> None:
            nonlocal runs
            runs += 1
            await transaction.execute(COUNT_UP, {"name": first})
            if runs <= 2 and backend.name != SQLITE_DISK:  # where writers follow each other anyway
                await both_began.wait()
            await transaction.execute(COUNT_UP, {"name": second})

        return parts.storage.database.transact(work)

    await asyncio.gather(count_up("a", "b"), count_up("b", "a"))
    assert runs == (2 if backend.name == SQLITE_DISK else 3)
    assert parts.outside.rows.execute("SELECT expires_at FROM leases") == [("2",), ("2",)]


async def test_a_transaction_cut_off_by_the_end_of_the_process_is_whole_or_did_not_happen(
    parts: Parts, backend: Backend
) -> None:
    submitted = [asyncio.ensure_future(insert(parts, f"lease {number}")) for number in range(20)]
    await asyncio.sleep(0)  # each is begun
    closing = asyncio.ensure_future(parts.storage.database.close())
    results = await asyncio.gather(*submitted, return_exceptions=True)
    await closing
    done = {f"lease {number}" for number, result in enumerate(results) if result is None}
    assert {row[0] for row in parts.outside.rows.execute("SELECT name FROM leases")} == done
    if backend.name == SQLITE_DISK:
        assert len(done) == 20
    assert all(isinstance(result, Unavailable) for result in results if result is not None)


async def test_a_lease_has_one_holder_at_a_time(parts: Parts) -> None:
    one, other = (Lease(parts.storage.database, "sweeper", seconds=60) for _ in range(2))
    assert await one.take()
    assert await one.take(), "its holder may extend it"
    assert not await other.take()
    await other.release()
    assert not await other.take(), "only its holder gives it back"
    await one.release()
    assert await other.take()
    assert not await one.take()


async def test_of_many_who_want_a_free_lease_one_gets_it(parts: Parts) -> None:
    leases = [Lease(parts.storage.database, "sweeper", seconds=60) for _ in range(10)]
    assert sum(await asyncio.gather(*(lease.take() for lease in leases))) == 1


async def test_the_lease_of_a_holder_that_died_can_be_taken_when_it_has_run_out(parts: Parts) -> None:
    dead, other = (Lease(parts.storage.database, "sweeper", seconds=60) for _ in range(2))
    assert await dead.take()
    parts.outside.rows.execute("UPDATE leases SET expires_at = 1")
    assert await other.take()
    assert not await dead.take()


async def test_sqlite_syncs_each_commit_to_disk(parts: Parts, backend: Backend) -> None:
    if backend.name != SQLITE_DISK:
        assert parts.outside.rows.execute("SHOW synchronous_commit") == [("on",)]
        return
    assert parts.outside.rows.sqlite_file is not None
    connection = connect(parts.outside.rows.sqlite_file)
    values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    connection.close()
    assert values == ["wal", 2]  # FULL


async def test_after_its_end_a_database_refuses_at_once_and_says_why(parts: Parts) -> None:
    database = parts.storage.database
    await database.close()
    async with asyncio.timeout(60):
        for _ in range(2):
            with pytest.raises(Unavailable, match="closed"):
                await insert(parts, "late")
            with pytest.raises(Unavailable, match="closed"):
                await database.fetch_one(READ, {"name": "late"})
            with pytest.raises(Unavailable, match="closed"):
                async with database.snapshot() as snapshot:
                    await snapshot.fetch_one(READ, {"name": "late"})
    assert parts.outside.rows.count("leases") == 0
