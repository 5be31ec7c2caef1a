"""Runs the jobs of one process: claims what is due, keeps the claims, and writes how each ended.

A claim is a lease on the job's row. It is extended while the job runs; a worker that is no longer sure of a claim,
since its host was frozen or the database away for longer than the lease, cancels that job: another worker may have it
by then. Whatever the end of a job writes names the holder, so the late one of two writes nothing.

An idle worker reads one row every two seconds. The process that writes a job wakes its own worker.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Iterable
from typing import Any

from app.contract import clock
from app.contract.errors import MemstoreError, Overloaded, Unavailable, for_log
from app.jobs import queries
from app.jobs.kinds import GiveUp, Job, Kind, NotNow, Payload
from app.jobs.service import dumps
from app.storage.background import Background
from app.storage.metrics import JOBS_ENDED, JOBS_SECONDS
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.statements import Statement

_log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_CONTENDED_SECONDS = 0.05
_CLEAN_SECONDS = 600.0
_REASON_CHARACTERS = 500


class Worker:
    """The worker of one process."""

    def __init__(
        self,
        database: Database,
        kinds: Iterable[Kind] = (),
        *,
        at_once: int = 8,
        lease_seconds: float = 30.0,
        kept_seconds: float = 7 * 86_400.0,
        drain_seconds: float = 5.0,
    ) -> None:
        """at_once: jobs that run side by side. kept_seconds: how long an ended job stays, with its result.

        drain_seconds: how long `stop` waits for the jobs that run before it cancels them and puts them back.
        """
        self._database = database
        self._kinds: dict[str, Kind] = {}
        self.does(*kinds)
        self._at_once = at_once
        self._lease = lease_seconds
        self._kept = int(kept_seconds * clock.MICROSECONDS_PER_SECOND)
        self._drain = drain_seconds
        self._holder = secrets.token_hex(8)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._claims: dict[str, asyncio.Timeout] = {}
        """Of what runs: each ends its job when this worker is no longer sure of it."""
        self._claiming = Background("the search for jobs", self._look)
        self._keeping = Background("the keeping of jobs", self._keep_leases, longest_pause_seconds=lease_seconds / 4)
        self._clean_at = 0.0

    def does(self, *kinds: Kind) -> None:
        """Do jobs of these kinds also. Others wait for a process that knows them."""
        self._kinds |= {kind.name: kind for kind in kinds}

    def start(self) -> None:
        """Begin in the background."""
        self._claiming.start()
        self._keeping.start()

    def wake(self) -> None:
        """Look for work now."""
        self._claiming.wake()

    async def stop(self) -> None:
        """Claim nothing more, let what runs come to its end for a while, put the rest back, and end."""
        await self._claiming.stop()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._drain)
        unfinished = [*self._running.values()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await self._keeping.stop()
        with contextlib.suppress(Unavailable, Overloaded):  # Else their leases run out.
            # Also what was claimed in the moment of the end, and never begun.
            await self._write(queries.PUT_BACK, now=clock.now())

    async def run_due(self) -> int:
        """Claim what is due, as far as there is room, and start it; how many jobs were started.

        Raises:
            Unavailable: the database does not answer.
        """
        room = self._at_once - len(self._running)
        if room <= 0 or not self._kinds:
            return 0
        sure_until = asyncio.get_running_loop().time() + self._lease
        # After a pause longer than a lease, what this worker runs already may be due as well: then it is only extended.
        rows = [row for row in await self._claim(room) if row["id"] not in self._running]
        for row in rows:
            task = asyncio.create_task(self._run_one(row, sure_until), name=f"job {row['id']}")
            self._running[row["id"]] = task
            task.add_done_callback(lambda _, job_id=row["id"]: self._ended(job_id))  # type: ignore[misc]
        return len(rows)

    def _ended(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._claiming.wake()

    async def _claim(self, limit: int) -> list[Row]:
        now = clock.now()
        parameters = {
            "now": now,
            "until": now + self._lease_micros,
            "kinds": [*self._kinds],
            "limit": limit,
            "holder": self._holder,
        }

        async def work(transaction: Transaction) -> list[Row]:
            return [*await transaction.fetch_all(queries.CLAIM, parameters)]

        return await self._database.transact(work)

    @property
    def _lease_micros(self) -> int:
        return int(self._lease * clock.MICROSECONDS_PER_SECOND)

    async def _look(self) -> float:
        """Claim what is due; in how many seconds to look again."""
        wait = await self._seconds_until_due()
        if wait <= 0:
            # Nothing claimed means that another worker is claiming it just now.
            wait = 0.0 if await self.run_due() else _CONTENDED_SECONDS
        if time.monotonic() >= self._clean_at:
            self._clean_at = time.monotonic() + _CLEAN_SECONDS
            await self._write(queries.REMOVE_ENDED, now=clock.now())
        return min(wait, _POLL_SECONDS)

    async def _seconds_until_due(self) -> float:
        if not self._kinds or len(self._running) >= self._at_once:
            return _POLL_SECONDS
        row = await self._database.fetch_one(queries.NEXT, {"kinds": [*self._kinds]})
        due_at = None if row is None else row["due_at"]
        if due_at is None:
            return _POLL_SECONDS
        seconds: float = (due_at - clock.now()) / clock.MICROSECONDS_PER_SECOND
        return seconds

    async def _run_one(self, row: Row, sure_until: float) -> None:
        kind = self._kinds[row["kind"]]
        job = Job(row["id"], row["kind"], json.loads(row["payload"]), row["attempts"])
        claim = asyncio.timeout_at(sure_until)
        started = time.monotonic()
        try:
            if job.attempt > kind.attempts:
                raise GiveUp(f"the process that ran it ended or hung {kind.attempts} times")
            async with claim:
                self._claims[job.id] = claim
                try:
                    result = await kind.run(job)
                finally:
                    del self._claims[job.id]
        except Exception as error:
            outcome = self._lost(job) if claim.expired() else await self._failed(kind, job, error)
        else:
            outcome = "done"
            await self._done(job, result or {})
        JOBS_ENDED.labels(kind.name, outcome).inc()
        JOBS_SECONDS.labels(kind.name).observe(time.monotonic() - started)

    def _lost(self, job: Job) -> str:
        _log.warning("job %s (%s) was cancelled: its lease was lost", job.id, job.kind)
        return "lost"

    async def _done(self, job: Job, result: Payload) -> None:
        now = clock.now()
        await self._settle(job, queries.FINISH, now=now, until=now + self._kept, result=dumps(result))

    async def _failed(self, kind: Kind, job: Job, error: Exception) -> str:
        """Write what came of a failed attempt: another one later, or the end; its name in the metrics."""
        now, reason = clock.now(), _reason(error)
        if isinstance(error, NotNow):
            until = now + int(error.seconds * clock.MICROSECONDS_PER_SECOND)
            await self._settle(job, queries.PUT_OFF, until=until)
            return "put_off"
        if isinstance(error, GiveUp) or job.attempt >= kind.attempts:
            _log.error("job %s (%s) is given up after attempt %d: %s", job.id, job.kind, job.attempt, reason)
            await self._settle(job, queries.GIVE_UP, now=now, until=now + self._kept, error=reason)
            return "given_up"
        pause = kind.pause(job.attempt)
        _log.warning("job %s (%s) failed and runs again in %.1f s: %s", job.id, job.kind, pause, reason)
        until = now + int(pause * clock.MICROSECONDS_PER_SECOND)
        await self._settle(job, queries.TRY_AGAIN, until=until, error=reason)
        return "failed"

    async def _settle(self, job: Job, statement: Statement, **values: Any) -> None:
        """Write the end of an attempt. If the database is away, the lease runs out and the job runs again."""
        try:
            if not await self._write(statement, job_id=job.id, **values):
                _log.warning("job %s (%s) ended after its lease was lost", job.id, job.kind)
        except (Unavailable, Overloaded) as error:
            _log.warning("the end of job %s can't be written, so it will run again: %s", job.id, for_log(error))

    async def _write(self, statement: Statement, **values: Any) -> int:
        parameters = {"holder": self._holder, **values}

        async def work(transaction: Transaction) -> int:
            return await transaction.execute(statement, parameters)

        return await self._database.transact(work)

    async def _keep_leases(self) -> float:
        """Extend the claims of what runs. One that can't be extended ends by itself, one that is lost at once."""
        pause = self._lease / 4
        if not (asked := [*self._claims]):
            return pause
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(pause):
                kept = await self._extend(asked)
        except (Unavailable, Overloaded, TimeoutError):
            return pause
        for job_id in asked:
            if (claim := self._claims.get(job_id)) is not None and not claim.expired():
                claim.reschedule(asked_at + self._lease if job_id in kept else asked_at)
        return pause

    async def _extend(self, job_ids: list[str]) -> set[str]:
        parameters = {"job_ids": job_ids, "holder": self._holder, "until": clock.now() + self._lease_micros}

        async def work(transaction: Transaction) -> set[str]:
            return {row["id"] for row in await transaction.fetch_all(queries.EXTEND, parameters)}

        return await self._database.transact(work)


def _reason(error: Exception) -> str:
    """What an operator is told of a failure: the service's own sentences; of other errors their kind alone."""
    is_ours = isinstance(error, GiveUp | MemstoreError)
    return (str(error) if is_ours else type(error).__name__)[:_REASON_CHARACTERS]
