"""SQLite: reads as `app.storage.rows.sqlite_reads` says, writes on one thread with group commit.

Writes queue for the writer thread, which takes all that wait, runs each in a savepoint of one `BEGIN IMMEDIATE`
transaction, and commits them together: the price of the disk's fsync is shared, and `synchronous=FULL` costs little
under load.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from app.storage.metrics import DATABASE_SECONDS
from app.storage.rows.database import Reader, Row, Work, tell_nobody
from app.storage.rows.leftovers import Scrubbed, scrub_sqlite
from app.storage.rows.sqlite_reads import Reader as SqliteReader
from app.storage.rows.sqlite_reads import Snapshot, closed, translate
from app.storage.rows.statements import Batch, Mutation, Parameters, Statement
from app.storage.rows.timing import timed

T = TypeVar("T")

_BUSY_MILLISECONDS = 10_000
_ONE = Statement("SELECT 1 AS one")
_GROUP = 256
"""Writes that share one commit at most."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings every part of the service relies on; transactions are begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=512, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "cache_size = -32768",
        "temp_store = MEMORY",
        # Zeros over what is deleted inside a page, which costs nothing; whole free pages are left to an erasure
        # (`app.storage.rows.leftovers`): zeroing them at once takes a third of the time of writes of 20 kB.
        "secure_delete = FAST",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.create_function("strpos", 2, lambda text, part: text.find(part) + 1, deterministic=True)
    return connection


class _Transaction:
    """Runs on the writer thread: its methods are coroutines only to fit the port, and never suspend."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        compiled = statement.sqlite
        rows = self._connection.execute(compiled.sql, compiled.json_arguments(parameters)).fetchall()
        return cast("Row", rows[0]) if rows else None

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        compiled = statement.sqlite
        rows = self._connection.execute(compiled.sql, compiled.json_arguments(parameters)).fetchall()
        return cast("Sequence[Row]", rows)

    async def execute(self, statement: Statement | Batch, parameters: Parameters) -> int:
        parts = statement.sqlite if isinstance(statement, Batch) else (statement.sqlite,)
        count = 0
        for part in parts:
            count = self._connection.execute(part.sql, part.json_arguments(parameters)).rowcount
        return count

    async def execute_many(self, statement: Statement, rows: Sequence[Parameters]) -> None:
        compiled = statement.sqlite
        self._connection.executemany(compiled.sql, map(compiled.json_arguments, rows))


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def run(self, transaction: _Transaction) -> None:
        """Drive the work's coroutine to its end. It can't suspend, since its transaction never does."""
        self.result = None
        coroutine = cast("Coroutine[Any, Any, Any]", self.work(transaction))
        try:
            coroutine.send(None)
        except StopIteration as end:
            self.result = end.value
        else:
            coroutine.close()
            raise RuntimeError("a transaction awaited something other than its database")

    def deliver(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _as_sqlites(error: BaseException) -> sqlite3.Error:
    """The error that ended a transaction; work may have wrapped or swallowed SQLite's own."""
    return (
        error if isinstance(error, sqlite3.Error) else sqlite3.OperationalError(f"the transaction was ended: {error}")
    )


class _Writer:
    """The one thread of this process that writes."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return future

    def stop(self) -> None:
        """Finish what was submitted and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _take(self) -> tuple[list[_Job], bool]:
        group, last = [], False
        job = self._jobs.get()
        while True:
            if job is None:
                last = True
                break
            group.append(job)
            if len(group) == _GROUP:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        return group, last

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        last = False
        while not last:
            group, last = self._take()
            if not group:
                break
            try:
                connection = connection or connect(self._path)
                self._commit_group(connection, group)
            except sqlite3.Error as error:
                # Nothing of the group was committed, so nothing of it happened.
                if connection is not None and connection.in_transaction:
                    connection.rollback()
                for job in group:
                    job.error = translate(error)
            self._deliver(group)
        if connection is not None:
            connection.close()

    def _commit_group(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        transaction = _Transaction(connection)
        connection.execute("BEGIN IMMEDIATE")
        for job in group:
            connection.execute("SAVEPOINT job")
            try:
                job.run(transaction)
            except BaseException as error:
                if not connection.in_transaction:
                    # The disk is full or fails, and SQLite has ended the whole transaction: nobody's work is done.
                    raise _as_sqlites(error) from error
                job.error = translate(error) if isinstance(error, sqlite3.OperationalError) else error
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
        connection.execute("COMMIT")

    def _deliver(self, group: list[_Job]) -> None:
        def deliver_all() -> None:
            for job in group:
                job.deliver()

        try:
            self._loop.call_soon_threadsafe(deliver_all)
        except RuntimeError:
            # The loop is closed: nobody waits for these answers now.
            return


class SqliteDatabase:
    """The `Database` port on SQLite."""

    has_single_statement_mutations = False
    system = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: SqliteReader | None = None
        self._writer: _Writer | None = None
        self._closed = False
        self.on_commit: Callable[[str], None] = tell_nobody

    async def open(self) -> None:
        try:
            self._reader = SqliteReader(partial(connect, self._path))
        except sqlite3.Error as error:
            raise translate(error) from error
        self._writer = _Writer(self._path, asyncio.get_running_loop())
        self._writer.start()

    async def require_writable(self) -> None:
        await self.fetch_one(_ONE, {})

    async def close(self) -> None:
        self._closed = True
        if self._writer is not None:
            await asyncio.to_thread(self._writer.stop)
        if self._reader is not None:
            self._reader.close()

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        rows = await self.fetch_all(statement, parameters)
        return rows[0] if rows else None

    @timed(DATABASE_SECONDS, "read", every=8)
    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        self._require_open()
        assert self._reader is not None
        try:
            return await self._reader.fetch_all(statement, parameters)
        except sqlite3.OperationalError as error:
            raise translate(error) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        self._require_open()
        try:
            connection = connect(self._path)
        except sqlite3.Error as error:
            raise translate(error) from error
        try:
            yield Snapshot(connection)
        finally:
            connection.close()

    async def scrub(self, tables: Sequence[str]) -> tuple[list[Scrubbed], list[str]]:
        self._require_open()
        return await asyncio.to_thread(scrub_sqlite, self._path), []

    async def mutate(self, mutation: Mutation, parameters: Parameters, *, store_id: str, row_id: str) -> Row | None:
        return await self.transact(lambda transaction: transaction.fetch_one(mutation, parameters), store_id=store_id)

    @timed(DATABASE_SECONDS, "write")
    async def transact(self, work: Work[T], *, store_id: str | None = None) -> T:
        self._require_open()
        assert self._writer is not None
        result = await self._writer.submit(work)
        if store_id is not None:
            self.on_commit(store_id)
        return result

    def _require_open(self) -> None:
        if self._closed:
            raise closed()
