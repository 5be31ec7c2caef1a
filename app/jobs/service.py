"""Durable work for later.

    async def work(transaction): ...; job_id = await jobs.enqueue(transaction, "erasure", {"erasure_id": …})
    await database.transact(work); jobs.wake()

A job is a row that is written in the transaction that wants it: it is there if and only if that transaction committed.
A worker of any replica runs it (`app.jobs.worker`), at least once, until it is done or given up.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from app.contract import clock, ids
from app.contract.errors import InvalidRequest, NotFound
from app.jobs import queries
from app.jobs.kinds import Payload
from app.storage.metrics import JOBS
from app.storage.rows.database import Database, Row, Transaction

_TAG = "job"
_PAGE = 500


def dumps(values: Payload) -> str:
    """A payload or a result as the column keeps it."""
    return json.dumps(dict(values), separators=(",", ":"), sort_keys=True)


class Jobs:
    """The jobs of one deployment."""

    def __init__(self, database: Database, wake: Callable[[], None] = lambda: None) -> None:
        """`wake`: tells this process's worker that there is something to do."""
        self._database = database
        self.wake = wake

    async def enqueue(
        self, transaction: Transaction, kind: str, payload: Payload, *, subject: str | None = None, after: float = 0
    ) -> str:
        """Write a job in the caller's transaction; its ID. Call `wake` once that has committed.

        `subject` is the ID of what the job is about: it is removed with it. `after`: seconds until it is due.
        """
        job_id, now = ids.new(_TAG), clock.now()
        until = now + int(after * clock.MICROSECONDS_PER_SECOND)
        values = {"job_id": job_id, "kind": kind, "subject": subject, "payload": dumps(payload)}
        await transaction.execute(queries.INSERT, {**values, "now": now, "until": until})
        return job_id

    async def find(self, job_id: str) -> Row:
        """The row of a job.

        Raises:
            NotFound: there is none: it never was, or ended too long ago.
        """
        row = await self._database.fetch_one(queries.FIND, {"job_id": job_id})
        if row is None:
            raise NotFound(f"job {job_id!r} was not found")
        return row

    async def about(self, subject: str) -> list[Row]:
        """The jobs about this ID that are still kept, newest first."""
        return [*await self._database.fetch_all(queries.ABOUT, {"subject": subject})]

    async def list(self, state: str | None = None) -> AsyncIterator[Row]:
        """Every job, or those of one state, oldest first."""
        after = ""
        while rows := await self._database.fetch_all(queries.LIST, {"state": state, "after": after, "limit": _PAGE}):
            for row in rows:
                yield row
            after = rows[-1]["id"]

    async def counts(self) -> dict[str, int]:
        """How many jobs wait, run and were given up."""
        found = {row["state"]: row["number"] for row in await self._database.fetch_all(queries.COUNTS, {})}
        return {state: found.get(state, 0) for state in (queries.WAITING, queries.RUNNING, queries.GIVEN_UP)}

    async def overdue(self, seconds: float) -> int:
        """How many jobs have waited for a worker for longer than this."""
        before = clock.now() - int(seconds * clock.MICROSECONDS_PER_SECOND)
        row = await self._database.fetch_one(queries.OVERDUE, {"before": before})
        assert row is not None
        number: int = row["number"]
        return number

    async def retry(self, job_id: str) -> None:
        """Have a job that was given up, or that waits for its next attempt, run now, with all its attempts before it.

        Raises:
            NotFound: there is no such job.
            InvalidRequest: it runs, or is done.
        """
        await self._change(queries.RETRY, job_id, "only a job that waits or was given up can be retried")
        self.wake()

    async def discard(self, job_id: str) -> None:
        """Remove a job that waits or was given up; errors as `retry`."""
        await self._change(queries.DISCARD, job_id, "only a job that waits or was given up can be discarded")

    async def _change(self, statement: Any, job_id: str, refusal: str) -> None:
        async def work(transaction: Transaction) -> int:
            return await transaction.execute(statement, {"job_id": job_id, "now": clock.now()})

        if not await self._database.transact(work):
            row = await self.find(job_id)
            raise InvalidRequest(f"job {job_id} is {row['state'].replace('_', ' ')}: {refusal}")


async def measure_jobs(database: Database) -> None:
    """Set the gauge of jobs."""
    for state, number in (await Jobs(database).counts()).items():
        JOBS.labels(state).set(number)
