"""Updates that wait together share a commit, and nothing else: each is done or refused as if it were alone."""

import asyncio

import pytest

from app.contract.errors import InternalError, InvalidRequest, MemstoreError, Overloaded, PreconditionFailed
from app.memories import queries
from app.storage.rows.postgres import PostgresDatabase
from app.storage.rows.postgres_batches import GroupCommit
from tests.storage.parts import Parts, Written
from tests.support.backends import SQLITE_DISK, Backend

pytestmark = pytest.mark.anyio

NUMBER = 40


async def written(parts: Parts, number: int = NUMBER) -> list[Written]:
    """As many memories, each in a store of its own."""
    return [await parts.create(await parts.store(), f"before {count}") for count in range(number)]


def transactions(parts: Parts, version_ids: list[str]) -> int:
    """How many transactions of PostgreSQL wrote these versions."""
    wanted = ", ".join(f"'{version_id}'" for version_id in version_ids)
    return int(
        parts.outside.rows.execute(f"SELECT count(DISTINCT xmin::text) FROM memory_versions WHERE id IN ({wanted})")[0][
            0
        ]
    )


async def contents(parts: Parts, memories: list[Written]) -> list[str]:
    return [await parts.read(memory) for memory in memories]


async def test_updates_at_once_are_all_done(parts: Parts) -> None:
    memories = await written(parts)
    done = await asyncio.gather(*(parts.update(memory, f"after {n}") for n, memory in enumerate(memories)))
    assert await contents(parts, memories) == [f"after {n}" for n in range(NUMBER)]
    assert [memory.version_id for memory in done] == [
        row[0] for memory in memories for row in parts.outside.rows.execute(
            f"SELECT id FROM memory_versions WHERE store_id = '{memory.store_id}' AND seq = 2"
        )
    ]  # fmt: skip


async def test_updates_that_wait_share_transactions(parts: Parts, backend: Backend) -> None:
    if backend.name == SQLITE_DISK:
        pytest.skip("SQLite shares commits in its writer thread, and leaves no mark of it in the rows")
    memories = await written(parts)
    done = await asyncio.gather(*(parts.update(memory, f"after {n}") for n, memory in enumerate(memories)))
    assert transactions(parts, [memory.version_id for memory in done]) < NUMBER / 2


async def test_one_that_is_refused_takes_no_other_along(parts: Parts) -> None:
    memories = await written(parts)
    archived, deleted = memories[5], memories[11]
    await parts.stores.archive(parts.caller, archived.store_id)
    await parts.stores.delete(parts.caller, deleted.store_id)

    async def update(number: int, memory: Written) -> None:
        expected = "0" * 64 if number % 7 == 0 else memory.sha256
        await parts.memories.update(
            parts.caller, memory.store_id, memory.memory_id, text=f"after {number}", path=None,
            expected_sha256=expected, with_content=False,
        )  # fmt: skip

    results = await asyncio.gather(*(update(n, m) for n, m in enumerate(memories)), return_exceptions=True)
    for number, (memory, result) in enumerate(zip(memories, results, strict=True)):
        if memory is archived:
            assert isinstance(result, InvalidRequest)
        elif memory is deleted:
            assert isinstance(result, MemstoreError)
            assert result.status == 404
        elif number % 7 == 0:
            assert isinstance(result, PreconditionFailed)
            assert await parts.read(memory) == f"before {number}"
        else:
            assert result is None
            assert await parts.read(memory) == f"after {number}"


async def test_one_that_the_database_fails_on_takes_no_other_along(parts: Parts, backend: Backend) -> None:
    if backend.name == SQLITE_DISK:
        pytest.skip("the trigger that fails is written for PostgreSQL")
    memories = await written(parts)
    bad = memories[20].store_id
    parts.outside.rows.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NEW.store_id = '{bad}' THEN RAISE 'broken'; END IF; RETURN NEW; END $$"
    )
    parts.outside.rows.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON memory_versions FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        results = await asyncio.gather(
            *(parts.update(memory, f"after {n}") for n, memory in enumerate(memories)), return_exceptions=True
        )
    finally:
        parts.outside.rows.execute("DROP FUNCTION refuse CASCADE")
    failed = [number for number, result in enumerate(results) if isinstance(result, BaseException)]
    assert failed == [20]
    expected = [f"{'before' if number == 20 else 'after'} {number}" for number in range(NUMBER)]
    assert await contents(parts, memories) == expected


async def test_updates_of_one_store_at_once_are_counted_without_gaps(parts: Parts) -> None:
    store_id = await parts.store()
    memories = [await parts.create(store_id, "before", f"/{number}.md") for number in range(NUMBER)]
    await asyncio.gather(*(parts.update(memory, f"after {n}") for n, memory in enumerate(memories)))
    rows = parts.outside.rows.execute(f"SELECT seq FROM memory_versions WHERE store_id = '{store_id}' ORDER BY seq")
    assert [int(row[0]) for row in rows] == list(range(1, 2 * NUMBER + 1))
    assert await contents(parts, memories) == [f"after {n}" for n in range(NUMBER)]


async def test_updates_and_deletions_of_the_same_memories_at_once_leave_each_in_one_state(parts: Parts) -> None:
    memories = await written(parts)

    async def delete(memory: Written) -> None:
        await parts.memories.delete(parts.caller, memory.store_id, memory.memory_id, expected_sha256=None)

    writers = [work for memory in memories for work in (parts.update(memory, "after"), delete(memory))]
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert results[1::2] == [None] * NUMBER
    assert parts.outside.rows.count("memories") == 0
    for update, memory in zip(results[::2], memories, strict=True):
        versions = 3 if not isinstance(update, BaseException) else 2
        count = f"SELECT count(*) FROM memory_versions WHERE store_id = '{memory.store_id}'"
        assert int(parts.outside.rows.execute(count)[0][0]) == versions


async def test_a_caller_that_gives_up_takes_no_other_along(parts: Parts) -> None:
    memories = await written(parts)
    tasks = [asyncio.create_task(parts.update(memory, f"after {n}")) for n, memory in enumerate(memories)]
    await asyncio.sleep(0)
    for task in tasks[3::4]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, (memory, result) in enumerate(zip(memories, results, strict=True)):
        if not isinstance(result, BaseException):
            assert await parts.read(memory) == f"after {number}"
    assert sum(isinstance(result, BaseException) for result in results) == len(tasks[3::4])
    await parts.update(memories[0], "later")


async def test_whose_turn_does_not_come_in_time_is_told_so(parts: Parts, backend: Backend) -> None:
    database = parts.storage.database
    if backend.name == SQLITE_DISK:
        pytest.skip("groups are formed for PostgreSQL only")
    assert isinstance(database, PostgresDatabase)
    release, begun = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> None:
        begun.set()
        await release.wait()

    def never() -> None:
        raise InternalError("nothing of a group that nobody waits for is run")

    commits = GroupCommit(queries.CHANGE_CONTENT_AT_ONCE.many, never, slow, wait_seconds=-1)  # type: ignore[arg-type]
    running = [asyncio.create_task(commits.run({}, store_id=str(n), row_id="")) for n in range(2)]
    await begun.wait()
    waiting = [asyncio.create_task(commits.run({}, store_id=str(n), row_id="")) for n in range(3)]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*running) == [None, None]
    for task in waiting:
        with pytest.raises(Overloaded):
            await task
