"""A process that stops in the middle of a transaction: `python -m tests.faults.frozen DATABASE_URL IDLE`.

It holds the row of the default workspace locked, says so, and freezes itself. When it goes on it says what came of it.
"""

import asyncio
import os
import signal
import sys

from app.contract.errors import Unavailable
from app.storage.rows import postgres, postgres_connect
from app.storage.rows.database import Transaction
from app.storage.rows.postgres_url import parse
from app.storage.rows.statements import Statement

_LOCK = Statement("UPDATE workspaces SET store_count = store_count + 1 WHERE id IS NOT NULL")


def say(word: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main(url: str, idle: str) -> None:
    """Freeze, and go on."""
    postgres_connect.IDLE = postgres.IDLE = idle  # type: ignore[attr-defined]
    database = postgres.PostgresDatabase(parse(url), pool_size=1)
    await database.open()

    async def work(transaction: Transaction) -> None:
        assert await transaction.execute(_LOCK, {})
        say("locked")
        os.kill(os.getpid(), signal.SIGSTOP)
        await transaction.execute(_LOCK, {})

    try:
        await database.transact(work)
    except Unavailable:
        say("refused")
    else:
        say("committed")
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
