"""Jobs: there if and only if their transaction committed, run by one worker at a time, until done or given up."""

import asyncio
import json
import random
import signal
import sqlite3
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from app.contract import clock
from app.contract.errors import InvalidRequest, NotFound, Unavailable
from app.jobs import worker as worker_module
from app.jobs.kinds import GiveUp, Job, Kind, NotNow
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.storage.rows.database import Database, Transaction
from tests.storage.outside import Rows
from tests.storage.parts import Parts, options

pytestmark = pytest.mark.anyio

SOON = 0.05


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.01)


async def enqueue(database: Database, kind: str = "note", **more: Any) -> str:
    async def work(transaction: Transaction) -> str:
        return await Jobs(database).enqueue(transaction, kind, more.pop("payload", {"name": "a"}), **more)

    return await database.transact(work)


async def state(database: Database, job_id: str) -> str:
    found: str = (await Jobs(database).find(job_id))["state"]
    return found


@asynccontextmanager
async def working(database: Database, *kinds: Kind, **settings: Any) -> AsyncIterator[Worker]:
    worker = Worker(database, kinds, **settings)
    worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def noting(found: list[Job], **settings: Any) -> Kind:
    async def run(job: Job) -> dict[str, int]:
        found.append(job)
        return {"number": len(found)}

    return Kind("note", run, **settings)


async def test_a_job_is_there_only_if_its_transaction_commits(parts: Parts) -> None:
    database = parts.storage.database
    made = []

    async def work(transaction: Transaction) -> None:
        made.append(await Jobs(database).enqueue(transaction, "note", {}))
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        await database.transact(work)
    with pytest.raises(NotFound):
        await Jobs(database).find(made[0])


async def test_a_job_runs_and_its_result_stays(parts: Parts) -> None:
    database = parts.storage.database
    found: list[Job] = []
    job_id = await enqueue(database, payload={"name": "a", "number": 3})
    async with working(database, noting(found)):
        await until(lambda: is_in(database, job_id, "done"))
    assert [(job.id, job.payload, job.attempt) for job in found] == [(job_id, {"name": "a", "number": 3}, 1)]
    assert json.loads((await Jobs(database).find(job_id))["result"]) == {"number": 1}


async def is_in(database: Database, job_id: str, wanted: str) -> bool:
    return await state(database, job_id) == wanted


async def test_an_enqueuing_process_wakes_its_worker(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_POLL_SECONDS", 3600.0)
    database = parts.storage.database
    found: list[Job] = []
    reads = asyncio.Event()
    fetch = database.fetch_one

    async def fetch_one(*arguments: Any) -> Any:
        row = await fetch(*arguments)
        reads.set()
        return row

    monkeypatch.setattr(database, "fetch_one", fetch_one)
    async with working(database, noting(found)) as worker:
        await asyncio.wait_for(reads.wait(), 10)  # It has looked, found nothing, and sleeps for an hour.
        await enqueue(database)
        Jobs(database, worker.wake).wake()
        await until(lambda: asyncio.sleep(0, len(found) == 1))


async def test_a_job_that_is_due_later_waits(parts: Parts) -> None:
    database = parts.storage.database
    found: list[Job] = []
    later = await enqueue(database, payload={"name": "later"}, after=3600)
    now = await enqueue(database)
    async with working(database, noting(found)):
        await until(lambda: is_in(database, now, "done"))
        assert await state(database, later) == "waiting"


async def test_a_kind_that_this_process_does_not_know_waits_for_one_that_does(parts: Parts) -> None:
    database = parts.storage.database
    found: list[Job] = []
    foreign = await enqueue(database, "of a newer version")
    known = await enqueue(database)
    async with working(database, noting(found)):
        await until(lambda: is_in(database, known, "done"))
    assert await state(database, foreign) == "waiting"


async def test_a_failed_attempt_is_repeated_and_the_reason_shown(parts: Parts) -> None:
    database, attempts = parts.storage.database, []

    async def run(job: Job) -> None:
        attempts.append(job.attempt)
        if job.attempt < 3:
            raise Unavailable("the blob store does not answer")

    job_id = await enqueue(database)
    async with working(database, Kind("note", run, first_pause_seconds=0.01)):
        await until(lambda: is_in(database, job_id, "done"))
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "attempts", "reason"),
    [
        (GiveUp("the store is under legal hold"), 1, "the store is under legal hold"),
        (RuntimeError("text of a person"), 2, "RuntimeError"),
    ],
)
async def test_a_job_is_given_up_with_a_reason_that_holds_no_texts(
    parts: Parts, error: Exception, attempts: int, reason: str
) -> None:
    database, seen = parts.storage.database, []

    async def run(job: Job) -> None:
        seen.append(job.attempt)
        raise error

    job_id = await enqueue(database)
    async with working(database, Kind("note", run, attempts=2, first_pause_seconds=0.01)):
        await until(lambda: is_in(database, job_id, "given_up"))
    assert len(seen) == attempts
    assert (await Jobs(database).find(job_id))["error"] == reason


async def test_a_job_that_was_given_up_can_be_retried_and_discarded(parts: Parts) -> None:
    database, jobs = parts.storage.database, Jobs(parts.storage.database)
    broken = True

    async def run(job: Job) -> None:
        if broken:
            raise GiveUp("broken")

    job_id, other = await enqueue(database), await enqueue(database)
    async with working(database, Kind("note", run)):
        await until(lambda: is_in(database, job_id, "given_up"))
        await until(lambda: is_in(database, other, "given_up"))
        assert await jobs.counts() == {"waiting": 0, "running": 0, "given_up": 2}
        broken = False
        await jobs.retry(job_id)
        await until(lambda: is_in(database, job_id, "done"))
    await jobs.discard(other)
    with pytest.raises(NotFound):
        await jobs.find(other)
    with pytest.raises(InvalidRequest, match="is done"):
        await jobs.retry(job_id)
    with pytest.raises(NotFound):
        await jobs.discard("job_unknown")


async def test_many_workers_run_each_job_once(parts: Parts) -> None:
    database = parts.storage.database
    found: list[Job] = []
    made = [await enqueue(database) for _ in range(60)]
    workers = [Worker(database, [noting(found)], at_once=3) for _ in range(4)]
    for worker in workers:
        worker.start()

    await until(lambda: all_done(database))
    for worker in workers:
        await worker.stop()
    assert sorted(job.id for job in found) == sorted(made)


@asynccontextmanager
async def process(environment: dict[str, str], directory: Path) -> AsyncIterator[Process]:
    """A process of its own that works, with a lease of one second."""
    command = [sys.executable, "-m", "tests.jobs.worker_process", options(environment).database_url, directory, "1"]
    started = await asyncio.create_subprocess_exec(*map(str, command), cwd=Path(__file__).parents[2])
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def says(file: Path, line: str) -> Callable[[], Awaitable[bool]]:
    """Whether a job of such a process has written this line."""
    return lambda: asyncio.sleep(0, file.exists() and line in file.read_text().splitlines())


async def test_a_job_whose_worker_was_killed_is_taken_over(
    parts: Parts, environment: dict[str, str], tmp_path: Path
) -> None:
    database = parts.storage.database
    found: list[Job] = []
    (tmp_path / "a.hold").touch()
    job_id = await enqueue(database)
    async with process(environment, tmp_path):
        await until(says(tmp_path / "a", "started 1"))
    assert await state(database, job_id) == "running"
    async with working(database, noting(found), lease_seconds=1):
        await until(lambda: is_in(database, job_id, "done"))
    assert [job.attempt for job in found] == [2]


async def test_a_worker_that_was_frozen_finds_its_job_taken_over_and_cancels_it(
    parts: Parts, environment: dict[str, str], tmp_path: Path
) -> None:
    database = parts.storage.database
    found: list[Job] = []
    (tmp_path / "a.hold").touch()
    job_id = await enqueue(database)
    async with process(environment, tmp_path) as frozen:
        await until(says(tmp_path / "a", "started 1"))
        await freeze(frozen, parts)
        async with working(database, noting(found)):
            await until(lambda: is_in(database, job_id, "done"))
        frozen.send_signal(signal.SIGCONT)
        await until(says(tmp_path / "a", "cancelled 1"))
    assert json.loads((await Jobs(database).find(job_id))["result"]) == {"number": 1}


@pytest.mark.parametrize("seed", [1])
async def test_whatever_happens_to_the_processes_every_job_is_done(
    parts: Parts, environment: dict[str, str], tmp_path: Path, seed: int
) -> None:
    database, chance = parts.storage.database, random.Random(seed)
    names = [f"job{number}" for number in range(12)]
    for name in names:
        if chance.random() < 0.5:
            (tmp_path / f"{name}.hold").touch()
    made = [await enqueue(database, payload={"name": name}) for name in names]
    async with process(environment, tmp_path) as one, process(environment, tmp_path) as other:
        await until(lambda: asyncio.sleep(0, any((tmp_path / name).exists() for name in names)))
        for victim in chance.choices([one, other], k=3):
            (tmp_path / f"{chance.choice(names)}.hold").unlink(missing_ok=True)
            if victim.returncode is None:
                await chance.choice([freeze, kill])(victim, parts)
        for name in names:
            (tmp_path / f"{name}.hold").unlink(missing_ok=True)
        async with working(database, noting([]), lease_seconds=1):
            await until(lambda: all_done(database))
        for running in (one, other):
            if running.returncode is None:
                running.send_signal(signal.SIGCONT)
    assert {await state(database, job_id) for job_id in made} == {"done"}


async def freeze(process: Process, parts: Parts) -> None:
    """Stop a process, but not while it holds a lock of the database: SQLite has one for everybody."""
    async with asyncio.timeout(60):
        while True:
            process.send_signal(signal.SIGSTOP)
            await until(lambda: asyncio.sleep(0, is_stopped(process.pid)))
            if not await asyncio.to_thread(is_locked, parts.outside.rows):
                return
            process.send_signal(signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether every thread has come to a halt: what is asked before may still take a lock."""
    states = {
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
    }
    return states == {"T"}


def is_locked(rows: Rows) -> bool:
    """Whether somebody is in the middle of a transaction that writes."""
    if rows.sqlite_file is None:
        free = "SELECT count(*) FROM (SELECT id FROM jobs FOR UPDATE SKIP LOCKED) AS free"
        return int(rows.execute(free)[0][0]) < rows.count("jobs")
    with closing(sqlite3.connect(rows.sqlite_file, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


async def kill(process: Process, _: Parts) -> None:
    """Kill a process, and wait for its end."""
    process.kill()
    await process.wait()


async def all_done(database: Database) -> bool:
    """Whether no job waits, runs or was given up."""
    return sum((await Jobs(database).counts()).values()) == 0


async def test_a_job_that_ends_its_process_each_time_is_given_up(parts: Parts) -> None:
    database, found = parts.storage.database, list[Job]()
    job_id = await enqueue(database)
    # As it is when the process that ran it was killed twice.
    await asyncio.to_thread(
        parts.outside.rows.execute, "UPDATE jobs SET state = 'running', holder = 'dead', attempts = 2, due_at = 0"
    )
    async with working(database, noting(found, attempts=2)):
        await until(lambda: is_in(database, job_id, "given_up"))
    assert found == []
    assert (await Jobs(database).find(job_id))["error"] == "the process that ran it ended or hung 2 times"


async def test_a_job_that_has_to_wait_for_something_loses_no_attempt(parts: Parts) -> None:
    database, attempts = parts.storage.database, list[int]()

    async def run(job: Job) -> None:
        attempts.append(job.attempt)
        if len(attempts) < 4:
            raise NotNow(0.01)

    job_id = await enqueue(database)
    async with working(database, Kind("note", run, attempts=2)):
        await until(lambda: is_in(database, job_id, "done"))
    assert attempts == [1, 1, 1, 1]


async def test_a_worker_that_lost_its_lease_stops_the_job_and_writes_nothing(parts: Parts) -> None:
    database, ended = parts.storage.database, []
    release = asyncio.Event()

    async def hang(job: Job) -> None:
        try:
            await release.wait()
        except asyncio.CancelledError:
            ended.append(job.attempt)
            raise

    job_id = await enqueue(database)
    async with working(database, Kind("note", hang), lease_seconds=0.4):
        await until(lambda: is_in(database, job_id, "running"))
        # As after a pause longer than the lease: another worker has taken the job over.
        await asyncio.to_thread(
            parts.outside.rows.execute, "UPDATE jobs SET holder = 'another', due_at = due_at + 3600000000"
        )
        await until(lambda: asyncio.sleep(0, ended == [1]))
    row = await Jobs(database).find(job_id)
    assert (row["state"], row["holder"]) == ("running", "another")


async def test_a_worker_that_stops_lets_jobs_end_and_puts_back_the_rest(parts: Parts) -> None:
    database, release, ended = parts.storage.database, asyncio.Event(), []

    async def run(job: Job) -> None:
        if job.payload["name"] == "long":
            await asyncio.Event().wait()
        await release.wait()
        ended.append(job.id)

    short = await enqueue(database, payload={"name": "short"})
    long = await enqueue(database, payload={"name": "long"})
    worker = Worker(database, [Kind("note", run)], drain_seconds=1)
    worker.start()
    await until(lambda: is_in(database, short, "running"))
    await until(lambda: is_in(database, long, "running"))
    stopping = asyncio.create_task(worker.stop())
    release.set()
    await stopping
    assert ended == [short]
    assert await state(database, short) == "done"
    row = await Jobs(database).find(long)
    assert (row["state"], row["attempts"], row["holder"]) == ("waiting", 0, None)


@pytest.mark.parametrize("jump", [-3_600, 3_600])
async def test_a_clock_that_jumps_loses_no_job_and_ends_each_once(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    database, release, begun = parts.storage.database, asyncio.Event(), []

    async def run(job: Job) -> dict[str, int]:
        begun.append(job.attempt)
        await release.wait()
        return {"attempt": job.attempt}

    job_id = await enqueue(database)
    now = clock.now
    offset = 0
    monkeypatch.setattr(clock, "now", lambda: now() + offset)
    async with working(database, Kind("note", run), lease_seconds=0.4), working(database, Kind("note", run)):
        await until(lambda: asyncio.sleep(0, begun == [1]))
        offset = jump * clock.MICROSECONDS_PER_SECOND
        await enqueue(database, payload={"name": "after the jump"})
        await until(lambda: asyncio.sleep(0, len(begun) >= 2))
        release.set()
        await until(lambda: is_in(database, job_id, "done"))
        await until(lambda: all_done(database))


async def test_ended_jobs_are_removed_when_their_time_is_over(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_CLEAN_SECONDS", 0.0)
    database = parts.storage.database
    found: list[Job] = []
    job_id = await enqueue(database)

    async def is_gone() -> bool:
        try:
            await Jobs(database).find(job_id)
        except NotFound:
            return True
        return False

    async with working(database, noting(found), kept_seconds=SOON):
        await until(is_gone)
    assert len(found) == 1


async def test_an_idle_worker_asks_the_database_at_most_once_a_second(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = parts.storage.database
    sleeps: list[float] = []
    enough = asyncio.Event()
    wait_for = asyncio.wait_for

    async def noted(awaitable: Any, seconds: float) -> Any:
        sleeps.append(seconds)
        if len(sleeps) == 5:
            enough.set()
        return await wait_for(awaitable, 0)

    monkeypatch.setattr(asyncio, "wait_for", noted)
    async with working(database, noting([])):
        await enough.wait()
    assert min(sleeps) >= 1
