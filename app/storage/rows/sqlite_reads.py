"""Reads of SQLite: short ones where they are asked for, long ones on a thread, none for ever.

A read of one memory takes about 10 µs, less than a hop to another thread, so every read begins on the event loop. One
that takes longer than a few milliseconds is stopped by SQLite's progress handler and run again on a thread, with a
limit. SQLite counts its own steps, so the handler costs a short read nothing.
"""

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import cast

from app.contract.errors import MemstoreError, Overloaded, Unavailable
from app.storage.metrics import DATABASE_FAILURES
from app.storage.rows.database import Row
from app.storage.rows.statements import Parameters, Statement

READ_SECONDS = 10.0
"""The longest that one read may take, its wait for a thread included."""
SNAPSHOT_READ_SECONDS = 120.0
"""The same of a read of a snapshot, which exports and backups take."""
_LOOP_SECONDS = 0.010
"""The longest that a read may hold up the event loop, in processor time of its own: a short read whose thread is put
off by other work would take longer still where it waits for the interpreter after each row."""
_LOOP_WAIT_SECONDS = 0.200
"""The same with its waits, as for a slow disk."""
_THREADS = 4
"""Long reads at a time, of one process."""
_STEPS = 1_000
"""Of SQLite's machine between two looks at the clock: about 10 µs."""


def error_name(error: sqlite3.Error) -> str:
    """SQLite's name of its error; empty where Python's module made it."""
    return getattr(error, "sqlite_errorname", "")


def translate(error: sqlite3.Error) -> MemstoreError:
    """The service's own error for one of SQLite's."""
    if error_name(error).startswith("SQLITE_BUSY"):
        DATABASE_FAILURES.labels("busy").inc()
        return Overloaded("the database is busy with other writers; try again")
    DATABASE_FAILURES.labels("away").inc()
    return Unavailable(f"the database does not answer or can't store ({error}); try again")


def closed() -> MemstoreError:
    """What every call is told after `close`."""
    return Unavailable("the database is closed: this process is ending")


@dataclass(slots=True)
class Limit:
    """When a read ends at the latest, by `time.monotonic`; another thread may bring that forward."""

    until: float
    work_until: float = math.inf
    """By the reading thread's processor time (`time.thread_time`)."""

    def stop(self) -> None:
        """End the read now."""
        self.until = 0.0

    def is_over(self) -> bool:
        """Asked by the reading thread."""
        return time.monotonic() > self.until or time.thread_time() > self.work_until


def _loops_limit() -> Limit:
    """The limit of a read that begins on the event loop now."""
    return Limit(time.monotonic() + _LOOP_WAIT_SECONDS, time.thread_time() + _LOOP_SECONDS)


class TimedConnection:
    """A connection whose reads end in time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """connection: made with `check_same_thread=False`; one thread uses it at a time."""
        self.connection = connection
        self._limit = Limit(0.0)
        connection.set_progress_handler(self._is_over, _STEPS)

    def _is_over(self) -> bool:
        return self._limit.is_over()

    def fetch_all(self, statement: Statement, parameters: Parameters, limit: Limit) -> Sequence[Row] | None:
        """Every row, or None if the limit came before they were read.

        All rows are taken, since a half-read cursor would hold its snapshot and age the next read.
        """
        compiled = statement.sqlite
        self._limit = limit
        try:
            rows = self.connection.execute(compiled.sql, compiled.json_arguments(parameters)).fetchall()
        except sqlite3.OperationalError as error:
            if error_name(error) == "SQLITE_INTERRUPT":
                return None
            raise
        return cast("Sequence[Row]", rows)


async def _on_thread(read: Callable[[Limit], Sequence[Row] | None], limit: Limit, seconds: float) -> Sequence[Row]:
    """Run a read on a thread; when nobody waits for it any longer, it is stopped, and has ended when this returns.

    Raises:
        Overloaded: it was stopped; seconds: what it had.
    """
    reading = asyncio.ensure_future(asyncio.to_thread(read, limit))
    try:
        rows = await asyncio.shield(reading)
    except asyncio.CancelledError:
        limit.stop()
        await asyncio.wait([reading])
        raise
    if rows is None:
        DATABASE_FAILURES.labels("busy").inc()
        raise Overloaded(
            f"the database took longer than {seconds:.0f} seconds to read this, which is the limit; ask for less at "
            "once, or try again"
        )
    return rows


class Reader:
    """The reads of a process outside of transactions and snapshots."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._loops = TimedConnection(connect())
        # A read that waits for somebody else's lock does so on a thread.
        self._loops.connection.execute("PRAGMA busy_timeout = 0").fetchall()
        self._room = asyncio.Semaphore(_THREADS)

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        """Every row of a statement.

        Raises:
            Overloaded: it took too long.
            sqlite3.Error: as SQLite says.
        """
        started = time.monotonic()
        try:
            rows = self._loops.fetch_all(statement, parameters, _loops_limit())
        except sqlite3.OperationalError as error:
            if not error_name(error).startswith("SQLITE_BUSY"):
                raise
            rows = None
        if rows is not None:
            return rows

        def read(limit: Limit) -> Sequence[Row] | None:
            with closing(self._connect()) as connection:
                return TimedConnection(connection).fetch_all(statement, parameters, limit)

        async with self._room:
            return await _on_thread(read, Limit(started + READ_SECONDS), READ_SECONDS)

    def close(self) -> None:
        """Disconnect; reads on threads have connections of their own."""
        self._loops.connection.close()


class Snapshot:
    """Reads of one moment. Errors of SQLite's are translated here: the caller may have other files that fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._timed = TimedConnection(connection)

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        """The first row, or None."""
        rows = await self.fetch_all(statement, parameters)
        return rows[0] if rows else None

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        """Every row, as it was when the first statement of the snapshot ran."""
        started = time.monotonic()
        try:
            if not self._timed.connection.in_transaction:
                self._timed.connection.execute("BEGIN")
            rows = self._timed.fetch_all(statement, parameters, _loops_limit())
            if rows is None:
                read = partial(self._timed.fetch_all, statement, parameters)
                rows = await _on_thread(read, Limit(started + SNAPSHOT_READ_SECONDS), SNAPSHOT_READ_SECONDS)
        except sqlite3.Error as error:
            raise translate(error) from error
        return rows
