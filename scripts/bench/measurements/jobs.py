"""What it costs to leave work for later, and how fast a worker does it.

All figures are for a second of processor time of the process, which has SQLite inside and PostgreSQL outside: so they
do not move with what else the machine does, nor with its disk.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.contract.actors import API_KEY, Actor, Caller
from app.jobs.kinds import Job, Kind
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.memories.service import Memories
from app.storage.options import StorageOptions
from app.storage.rows.database import Database, Transaction
from app.storage.rows.statements import Statement
from app.storage.storage import Storage, make_database
from app.stores.quota import Limits
from scripts.bench import dataset
from scripts.bench.bench import CLIENTS, Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.load import Figure
from scripts.bench.product import Installation, install
from scripts.bench.report import Goal, Met, Row, rate, row_of_rates

_SHAPE = Shape(stores=256, memories_per_store=4)
_DONE_PER_SECOND = 1_000
_JOBS = 1_000
_AT_ONCE = 8
_POOL = 20
_KIND = "of the benchmark"
_TOUCH = Statement("UPDATE jobs SET finished_at = :now WHERE id = :job_id")
_EMPTY = Statement("DELETE FROM jobs WHERE kind = :kind")


async def _clear(database: Database) -> None:
    await database.transact(lambda transaction: transaction.execute(_EMPTY, {"kind": _KIND}))


def _leave_a_job(database: Database) -> None:
    """Have each transaction of this database also write a job."""
    transact, jobs = database.transact, Jobs(database)

    async def with_job(work: Callable[[Transaction], Awaitable[Any]], *, store_id: str | None = None) -> Any:
        async def both(transaction: Transaction) -> Any:
            found = await work(transaction)
            if store_id is not None:  # and not what the mover does meanwhile
                await jobs.enqueue(transaction, _KIND, {"memory_id": store_id}, subject=store_id)
            return found

        return await transact(both, store_id=store_id)

    database.transact = with_job  # type: ignore[method-assign]


async def _update(installation: Installation, url: str, seconds: float, *, leaves_job: bool) -> Figure:
    storage = Storage(
        StorageOptions(
            database_url=url,
            blob_url=f"file://{installation.blob_directory}",
            s3_endpoint_url=None,
            cache_bytes=0,
            pool_size=_POOL,
            retention_days=30,
            keep_recent_versions=10,
            sweep_interval_seconds=300,
            orphan_grace_seconds=3600,
        )
    )
    await storage.open()
    # One statement for a whole update has no place for a job: both sides take the ordinary transaction.
    storage.database.has_single_statement_mutations = False
    if leaves_job:
        _leave_a_job(storage.database)
    memories = Memories(storage, Limits(10_000, 100_000_000))
    caller = Caller(installation.workspace_id, Actor(API_KEY, "apikey_of_the_benchmark"))
    targets = list(dataset.targets(_SHAPE))
    until, mark = time.perf_counter() + seconds, secrets.token_hex(4)

    async def client(number: int) -> int:
        for count in itertools.count():
            if time.perf_counter() >= until:
                return count
            store, memory = targets[(number + CLIENTS * count) % len(targets)]
            await memories.update(
                caller,
                dataset.store_id(store),
                dataset.memory_id(_SHAPE, store, memory),
                text=f"{mark} {number} {count} ".ljust(_SHAPE.content_bytes, "x"),
                path=None,
                expected_sha256=None,
                with_content=False,
            )
        raise AssertionError

    began = time.process_time()
    done = sum(await asyncio.gather(*(client(number) for number in range(CLIENTS))))
    took = time.process_time() - began
    await storage.close()
    return Figure(done / took, count=done)


async def _with_database(url: str, work: Callable[[Database], Awaitable[Figure]]) -> Figure:
    database = make_database(url, _POOL)
    await database.open()
    try:
        await _clear(database)
        return await work(database)
    finally:
        await _clear(database)
        await database.close()


async def _write_jobs(database: Database) -> list[str]:
    jobs = Jobs(database)

    async def work(transaction: Transaction) -> list[str]:
        return [await jobs.enqueue(transaction, _KIND, {"number": number}) for number in range(_JOBS)]

    return await database.transact(work)


async def _do_jobs(database: Database) -> Figure:
    """Jobs that do nothing, by one worker as a server has it, for each second of processor time of its process."""
    left, over = await _write_jobs(database), asyncio.Event()

    async def run(job: Job) -> None:
        left.pop()
        if not left:
            over.set()

    worker = Worker(database, [Kind(_KIND, run)], at_once=_AT_ONCE)
    began = time.process_time()
    worker.start()
    await over.wait()
    took = time.process_time() - began
    await worker.stop()
    return Figure(_JOBS / took, count=_JOBS)


async def _touch_rows(database: Database) -> Figure:
    """The least, likewise: one transaction that changes one row for each job."""
    left = await _write_jobs(database)

    async def touch(job_id: str) -> None:
        await database.transact(lambda transaction: transaction.execute(_TOUCH, {"job_id": job_id, "now": 1}))

    async def toucher() -> None:
        while left:
            await touch(left.pop())

    began = time.process_time()
    await asyncio.gather(*(toucher() for _ in range(_AT_ONCE)))
    return Figure(_JOBS / (time.process_time() - began), count=_JOBS)


def jobs(bench: Bench) -> list[Row]:
    """Updates with and without a job, and the jobs themselves, on both databases; in this process, without HTTP."""
    return [*_rows(bench, "PostgreSQL", is_postgres=True), *_rows(bench, "SQLite", is_postgres=False)]


def _rows(bench: Bench, name: str, *, is_postgres: bool) -> list[Row]:
    database = bench.new_database("jobs") if is_postgres else None
    made = install(bench.new_path("jobs"), _SHAPE, database=database)
    url = f"sqlite:///{made.sqlite_file}" if database is None else database.url

    def updates(*, leaves_job: bool) -> Side:
        return Side(lambda: asyncio.run(_update(made, url, bench.options.seconds, leaves_job=leaves_job)))

    def work(what: Callable[[Database], Awaitable[Figure]]) -> Side:
        return Side(lambda: asyncio.run(_with_database(url, what)))

    outcome = bench.compete(updates(leaves_job=True), updates(leaves_job=False))
    what = f"processor time: updates of 1 KB that leave a job, {CLIENTS} tasks, {name}, no HTTP; the same updates alone"
    enqueued = row_of_rates(what, outcome, Goal(at_least=0.95))
    outcome = bench.compete(work(_do_jobs), work(_touch_rows))
    what = (
        f"processor time: jobs that do nothing, {_AT_ONCE} at a time, by one worker, {name}; one transaction a job "
        "that changes a row"
    )
    done = row_of_rates(what, outcome, Goal())
    met = Met.YES if outcome.product.value >= _DONE_PER_SECOND else Met.NO
    return [
        enqueued,
        Row(done.what, rate(outcome.product), done.bound, done.ratio, f"≥ {_DONE_PER_SECOND:,}/s", met),
    ]
