"""A process that runs jobs until it is killed: `python -m tests.jobs.worker_process DATABASE_URL DIRECTORY LEASE`.

It makes the file `ready` once it works. A job writes `started <attempt>` into the file of its name, and waits while the
file `<name>.hold` is there; a job that is cancelled meanwhile writes `cancelled <attempt>`.

On SIGUSR1 it stops itself as SIGSTOP would, but in a moment in which it asks nothing of the database: a process that is
stopped in the middle of a transaction keeps its locks, and on SQLite there is one lock for everybody.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from app.jobs.kinds import Job, Kind
from app.jobs.worker import Worker
from app.storage.rows.database import Database, Row, Work
from app.storage.rows.statements import Parameters, Statement
from app.storage.storage import make_database

T = TypeVar("T")


class InTurn:
    """What a worker needs of a database. Each call holds `turn` to its end, also if its caller has gone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.turn = asyncio.Lock()

    async def fetch_one(self, statement: Statement, parameters: Parameters) -> Row | None:
        return await self._whole(self._database.fetch_one(statement, parameters))

    async def transact(self, work: Work[T]) -> T:
        return await self._whole(self._database.transact(work))

    async def _whole(self, call: Coroutine[Any, Any, T]) -> T:
        async with self.turn:
            under_way = asyncio.create_task(call)
            try:
                return await asyncio.shield(under_way)
            finally:
                await asyncio.wait([under_way])


async def main(url: str, directory: Path, lease_seconds: float) -> None:
    """Run jobs for ever."""

    def note(job: Job, what: str) -> None:
        with (directory / job.payload["name"]).open("a") as file:
            file.write(f"{what} {job.attempt}\n")

    async def run(job: Job) -> None:
        note(job, "started")
        try:
            while (directory / f"{job.payload['name']}.hold").exists():  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            note(job, "cancelled")
            raise

    async def freeze() -> None:
        async with database.turn:
            os.kill(os.getpid(), signal.SIGSTOP)

    freezing = set[asyncio.Task[None]]()
    opened = make_database(url, 4)
    await opened.open()
    database = InTurn(opened)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: freezing.add(asyncio.create_task(freeze(), name="freeze"))
    )
    # On a busy machine an attempt may be lost as often as it likes.
    worker = Worker(cast("Database", database), [Kind("note", run, attempts=1_000_000)], lease_seconds=lease_seconds)
    worker.start()
    (directory / "ready").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
