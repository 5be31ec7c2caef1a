"""Jobs: there if and only if their transaction committed, run by one worker at a time, until done or given up."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.contract import clock
from app.contract.errors import InvalidRequest, NotFound, Unavailable
from app.jobs import worker as worker_module
from app.jobs.kinds import GiveUp, Job, Kind, NotNow
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.storage import background
from app.storage.rows.database import Database, Transaction
from tests.storage.parts import Parts, options
from tests.support.processes import Daemon

pytestmark = pytest.mark.anyio

SOON = 0.05
SECONDS = 60.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SECONDS):
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
        async with asyncio.timeout(SECONDS):
            await reads.wait()  # It has looked, found nothing, and sleeps for an hour.
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


@contextmanager
def process(environment: dict[str, str], directory: Path, name: str = "worker") -> Iterator[Daemon]:
    """A process of its own that works, with a lease of one second. Killed at the end, before anything waits for it."""
    own = directory / name
    own.mkdir()
    command = [sys.executable, "-m", "tests.jobs.worker_process", options(environment).database_url, str(own), "1"]
    daemon = Daemon(name, command, log=own / "log", ready=(own / "ready").exists, directory=Path(__file__).parents[2])
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


def says(file: Path, line: str) -> Callable[[], Awaitable[bool]]:
    """Whether a job of such a process has written this line."""
    return lambda: asyncio.sleep(0, file.exists() and line in file.read_text().splitlines())


def started(file: Path) -> int:
    """How many attempts of a job such a process has begun: more than one if it lost its lease on a busy machine."""
    return sum(line.startswith("started") for line in file.read_text().splitlines())


async def test_a_job_whose_worker_was_killed_is_taken_over(
    parts: Parts, environment: dict[str, str], tmp_path: Path
) -> None:
    database = parts.storage.database
    found: list[Job] = []
    with process(environment, tmp_path) as killed:
        own = tmp_path / killed.name
        (own / "a.hold").touch()
        job_id = await enqueue(database)
        await until(says(own / "a", "started 1"))
        killed.kill()
    assert await state(database, job_id) == "running"
    async with working(database, noting(found, attempts=1_000_000)):
        await until(lambda: is_in(database, job_id, "done"))
    # It may also have been killed between a claim and the line.
    assert [job.attempt - started(own / "a") for job in found] in ([1], [2])


async def test_a_worker_that_was_frozen_finds_its_job_taken_over_and_cancels_it(
    parts: Parts, environment: dict[str, str], tmp_path: Path
) -> None:
    database = parts.storage.database
    found: list[Job] = []
    with process(environment, tmp_path) as frozen:
        own = tmp_path / frozen.name
        (own / "a.hold").touch()
        job_id = await enqueue(database)
        await until(says(own / "a", "started 1"))
        await freeze(frozen)
        async with working(database, noting(found, attempts=1_000_000)):
            await until(lambda: is_in(database, job_id, "done"))
        frozen.process.send_signal(signal.SIGCONT)
        last = started(own / "a")
        await until(says(own / "a", f"cancelled {last}"))
    assert json.loads((await Jobs(database).find(job_id))["result"]) == {"number": 1}


@pytest.mark.parametrize("seed", [1])
async def test_whatever_happens_to_the_processes_every_job_is_done(
    parts: Parts, environment: dict[str, str], tmp_path: Path, seed: int
) -> None:
    database, chance = parts.storage.database, random.Random(seed)
    names = [f"job{number}" for number in range(12)]
    with process(environment, tmp_path, "one") as one, process(environment, tmp_path, "other") as other:
        places = [tmp_path / running.name for running in (one, other)]
        for name in names:
            if chance.random() < 0.5:
                for place in places:
                    (place / f"{name}.hold").touch()
        made = [await enqueue(database, payload={"name": name}) for name in names]
        await until(lambda: asyncio.sleep(0, any((place / name).exists() for name in names for place in places)))
        for victim in chance.choices([one, other], k=3):
            for place in places:
                (place / f"{chance.choice(names)}.hold").unlink(missing_ok=True)
            if victim.process.poll() is None and not is_stopped(victim):
                await chance.choice([freeze, kill])(victim)
        for place in places:
            for name in names:
                (place / f"{name}.hold").unlink(missing_ok=True)
        async with working(database, noting([], attempts=1_000_000)):
            await until(lambda: all_done(database))
        for running in (one, other):
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGCONT)
    assert {await state(database, job_id) for job_id in made} == {"done"}


async def freeze(worker: Daemon) -> None:
    """Have a process stop, which it does while it holds no lock of the database."""
    worker.process.send_signal(signal.SIGUSR1)
    await until(lambda: asyncio.sleep(0, is_stopped(worker)))


def is_stopped(worker: Daemon) -> bool:
    """Whether a process, which must be there, was stopped."""
    state = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state not in "ZX", worker.log_tail()
    return state == "T"


async def kill(worker: Daemon) -> None:
    """Kill a process, and wait for its end."""
    worker.kill()


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
    database, begun, ended = parts.storage.database, list[int](), list[int]()

    async def hang(job: Job) -> None:
        begun.append(job.attempt)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(job.attempt)
            raise

    job_id = await enqueue(database)
    async with working(database, Kind("note", hang, attempts=1_000_000), lease_seconds=2):
        await until(lambda: asyncio.sleep(0, len(begun) > 0))
        # As after a pause longer than the lease: another worker has taken the job over.
        await asyncio.to_thread(
            parts.outside.rows.execute, "UPDATE jobs SET holder = 'another', due_at = due_at + 3600000000"
        )
        await until(lambda: asyncio.sleep(0, ended == begun))
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
    kind = Kind("note", run, attempts=1_000_000)
    async with working(database, kind, lease_seconds=2), working(database, kind):
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


class Time:
    """Time for loops that rest: it goes on to the next that is due whenever all of them do."""

    def __init__(self, loops: int, end: float) -> None:
        self.now = 0.0
        self.is_over = asyncio.Event()
        self._loops, self._end = loops, end
        self._resting: dict[asyncio.Future[None], float] = {}

    async def happens(self, event: asyncio.Event, within_seconds: float) -> bool:
        """In the place of `app.storage.background.happens`."""
        rest = asyncio.get_running_loop().create_future()
        self._resting[rest] = self.now + within_seconds
        if len(self._resting) == self._loops:
            first = min(self._resting, key=lambda rest: self._resting[rest])
            self.now = self._resting.pop(first)
            if self.now >= self._end:
                self.is_over.set()
            else:
                first.set_result(None)
        await rest
        return event.is_set()


@pytest.mark.any_backend
async def test_a_worker_without_work_asks_the_database_at_most_once_a_second(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, asked = parts.storage.database, list[str]()
    minutes = Time(loops=2, end=3600)

    def counted(name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(database, name)

        async def call(*arguments: Any) -> Any:
            asked.append(name)
            return await method(*arguments)

        return call

    for name in ("fetch_one", "transact"):  # which is all that a worker calls
        monkeypatch.setattr(database, name, counted(name))
    monkeypatch.setattr(background, "happens", minutes.happens)
    async with working(database, noting([])):
        async with asyncio.timeout(SECONDS):
            await minutes.is_over.wait()
    assert 0 < len(asked) <= 3600
