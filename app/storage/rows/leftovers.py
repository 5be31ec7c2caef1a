"""What a database keeps of deleted rows: free pages, dead tuples, statistics; and how it is made to remove them.

SQLite: `VACUUM` copies the live rows into fresh pages and cuts the file, a checkpoint empties the write-ahead log.

PostgreSQL: a plain `VACUUM` leaves the old bytes in the holes of the pages until something else is written there, so
a table is rewritten (`VACUUM FULL`) where that is allowed and quick enough, its indexes with it. `ANALYZE` keeps
frequent values and histogram bounds, paths among them, in `pg_statistic`; that is remade and rewritten as well.
"""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

_SQLITE_ATTEMPTS = 5
_LOCK_SECONDS = 5
_LOCK_ATTEMPTS = 3
_POOLED_ATTEMPTS = 50
_POOLED_PAUSE_SECONDS = 0.1
_REWRITE_BYTES = 1 << 30
"""A larger table is not rewritten: nobody can read it meanwhile."""
_VACUUM_SECONDS = 3600.0
_OLD_READERS_SECONDS = 20.0
_STATISTICS = "pg_catalog.pg_statistic"


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What became of one table's leftovers, or of a whole database file's.

    `why_not` is None where old bytes are gone from the file, and says what is in the way where they may not be.
    """

    name: str
    why_not: str | None


def scrub_sqlite(path: Path) -> list[Scrubbed]:
    """Rewrite the database file and empty its write-ahead log, beside servers that use it. Blocks."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        return [
            Scrubbed("memstore.db", _vacuum_sqlite(connection)),
            Scrubbed("memstore.db-wal", _empty_log(connection)),
        ]
    finally:
        connection.close()


def _vacuum_sqlite(connection: sqlite3.Connection) -> str | None:
    for attempt in range(_SQLITE_ATTEMPTS):
        try:
            connection.execute("VACUUM")
            return None
        except sqlite3.OperationalError as error:
            problem = str(error)
            time.sleep(0.1 * 2**attempt)
    return f"VACUUM failed: {problem}"


def _empty_log(connection: sqlite3.Connection) -> str | None:
    for attempt in range(_SQLITE_ATTEMPTS):
        try:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            busy = 1
        if not busy:
            return None
        time.sleep(0.1 * 2**attempt)
    return "a reader held the write-ahead log; it is emptied when that reader ends"


async def scrub_postgres(connection: Any, tables: Sequence[str], *, is_pooled: bool = False) -> list[Scrubbed]:
    """Rewrite tables, their indexes and the statistics of them, on a connection of its own.

    is_pooled: the connection leads to a pooler, which may send each statement to another server's session.
    """
    if not is_pooled:
        await connection.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'")
    # A dead tuple that an older transaction may still read survives every vacuum.
    reader = await _wait_for_old_readers(connection)
    scrubbed = [Scrubbed(table, await _rewrite(connection, f'"{table}"', is_pooled) or reader) for table in tables]
    await connection.execute("ANALYZE " + ", ".join(f'"{table}"' for table in tables), timeout=_VACUUM_SECONDS)
    reader = await _wait_for_old_readers(connection)
    return [*scrubbed, Scrubbed("pg_statistic", await _rewrite(connection, _STATISTICS, is_pooled) or reader)]


async def _rewrite(connection: Any, table: str, is_pooled: bool) -> str | None:
    """Why the table's file may still hold old bytes, None if it does not."""
    size = await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table)
    why_not = f"it is larger than {_REWRITE_BYTES >> 30} GiB; run VACUUM FULL in a quiet hour"
    if size <= _REWRITE_BYTES:
        # Through a pooler no time limit can be set for a lock: it is tried again and again instead.
        full, attempts = ("FULL, SKIP_LOCKED", _POOLED_ATTEMPTS) if is_pooled else ("FULL", _LOCK_ATTEMPTS)
        for _ in range(attempts):
            before = await _file_of(connection, table)
            try:
                await connection.execute(f"VACUUM ({full}) {table}", timeout=_VACUUM_SECONDS)
            except asyncpg.LockNotAvailableError:
                why_not = "it was in use all the time; run VACUUM FULL in a quiet hour"
                continue
            except (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError) as error:
                why_not = f"VACUUM FULL is refused: {error}"
                break
            # A table that the role may not vacuum is passed over with a mere warning.
            if await _file_of(connection, table) != before:
                return None
            why_not = "VACUUM FULL is not permitted to this role; let the table's owner run it"
            if not is_pooled:
                break
            why_not = f"it was in use all the time, or {why_not}"
            await asyncio.sleep(_POOLED_PAUSE_SECONDS)
    try:
        await connection.execute(f"VACUUM {table}", timeout=_VACUUM_SECONDS)
    except asyncpg.PostgresError as error:
        return f"{why_not}; VACUUM failed too: {error}"
    return why_not


async def _file_of(connection: Any, table: str) -> int:
    number: int = await connection.fetchval("SELECT pg_relation_filenode($1::text::regclass)", table)
    return number


_OLD_READERS = """
    SELECT count(*) FROM (
        SELECT backend_xmin AS xmin FROM pg_stat_activity WHERE pid <> pg_backend_pid()
         UNION ALL SELECT backend_xmin FROM pg_stat_replication
         UNION ALL SELECT xmin FROM pg_replication_slots
         UNION ALL SELECT transaction FROM pg_prepared_xacts) AS held
     WHERE xmin IS NOT NULL AND age(xmin) > age($1::text::xid)
"""


async def _wait_for_old_readers(connection: Any) -> str | None:
    """Wait until no transaction is open that began before now; what to say if one stays."""
    now = await connection.fetchval("SELECT pg_current_xact_id()::xid::text")
    deadline = time.monotonic() + _OLD_READERS_SECONDS
    while await connection.fetchval(_OLD_READERS, now):
        if time.monotonic() > deadline:
            return "an older transaction may still read deleted rows; end it and run VACUUM FULL"
        await asyncio.sleep(0.1)
    return None


async def kept_elsewhere(connection: Any) -> list[str]:
    """What PostgreSQL keeps outside its tables, as far as it tells: log, archive, replicas."""
    kept = ["pg_wal: write-ahead log segments keep old rows until PostgreSQL recycles and overwrites them"]
    if await connection.fetchval("SELECT current_setting('archive_mode')") != "off":
        kept.append("archived write-ahead log: archive_mode is on; expire the archive")
    replicas = await connection.fetchval("SELECT count(*) FROM pg_stat_replication")
    if replicas:
        kept.append(f"replicas: {replicas} follow; they repeat the removal, and keep log segments of their own")
    return kept
