"""A process that is frozen in the middle of a transaction does not keep its locks for ever."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.storage.rows import migrations
from app.storage.rows.database import Transaction
from app.storage.rows.postgres import PostgresDatabase
from app.storage.rows.postgres_url import parse
from app.storage.rows.statements import Statement
from tests.support.pgbouncer import missing, pgbouncer
from tests.support.postgres import EmbeddedPostgres, execute
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

SETTING = Statement("SELECT current_setting('idle_in_transaction_session_timeout') AS value")
LOCK = "UPDATE workspaces SET store_count = store_count + 100 WHERE id IS NOT NULL"
COUNT = "SELECT sum(store_count) FROM workspaces"
POOLER = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@contextmanager
def reached(database: str, mode: str) -> Iterator[str]:
    """The database's URL, directly or through a pooler."""
    if not mode:
        yield database
        return
    with pgbouncer(database, mode=mode, size=2) as pooler:
        yield pooler.url


@pytest.mark.parametrize(
    "mode",
    ["", pytest.param("transaction", marks=POOLER), pytest.param("session", marks=POOLER)],
    ids=lambda m: m or "direct",
)
async def test_a_process_that_is_frozen_in_the_middle_of_a_transaction_loses_its_locks(
    mode: str, mortal_postgres: EmbeddedPostgres
) -> None:
    url = mortal_postgres.create_database()
    await asyncio.to_thread(migrations.upgrade, url)
    values = "VALUES ('wrkspc_x', 'x', 1, 0) ON CONFLICT DO NOTHING"
    execute(url, f"INSERT INTO workspaces (id, name, created_at, store_count) {values}")
    before = int(execute(url, COUNT))
    with reached(url, mode) as seen:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.frozen", seen, "1s", stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"locked\n"
            await eventually(lambda: is_stopped(process.pid), "the process is frozen")
            # Nobody wakes it: only the end of its session lets this through.
            await asyncio.to_thread(execute, url, f"SET lock_timeout = '60s'; {LOCK}")
            process.send_signal(signal.SIGCONT)
            assert await process.stdout.readline() == b"refused\n"
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert int(execute(url, COUNT)) == before + 100


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def settings(url: str) -> dict[str, str]:
    """How long each kind of transaction may idle."""
    database = PostgresDatabase(parse(url), pool_size=1)
    await database.open()
    try:
        async with database.snapshot() as reader:
            reading = (await reader.fetch_one(SETTING, {}) or {})["value"]

        async def work(transaction: Transaction) -> str:
            return str((await transaction.fetch_one(SETTING, {}) or {})["value"])

        return {"reading": reading, "writing": await database.transact(work)}
    finally:
        await database.close()


@pytest.mark.parametrize("mode", ["", pytest.param("transaction", marks=POOLER)], ids=["direct", "transaction"])
async def test_what_is_read_may_idle_for_a_day_and_what_an_administrator_has_set_stays(
    mode: str, mortal_postgres: EmbeddedPostgres
) -> None:
    url = mortal_postgres.create_database()
    with reached(url, mode) as seen:
        assert await settings(seen) == {"reading": "1d", "writing": "1min"}
    set_it = "ALTER DATABASE %I SET idle_in_transaction_session_timeout = ''7min''"
    execute(url, f"DO $$ BEGIN EXECUTE format('{set_it}', current_database()); END $$")
    with reached(url, mode) as seen:
        assert await settings(seen) == {"reading": "7min", "writing": "7min"}
