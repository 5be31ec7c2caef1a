"""A process that runs jobs until it is killed: `python -m tests.jobs.worker_process DATABASE_URL DIRECTORY LEASE`.

A job writes `started <attempt>` into the file of its name, and waits while the file `<name>.hold` is there; a job that
is cancelled meanwhile writes `cancelled <attempt>`.
"""

import asyncio
import sys
from pathlib import Path

from app.jobs.kinds import Job, Kind
from app.jobs.worker import Worker
from app.storage.storage import make_database


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

    database = make_database(url, 4)
    await database.open()
    worker = Worker(database, [Kind("note", run)], lease_seconds=lease_seconds)
    worker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
