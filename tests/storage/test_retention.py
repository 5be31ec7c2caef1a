"""Version retention: what goes, what never goes, and that contents go with their versions (contract, 3.5)."""

import time
from typing import Any

import pytest

from app.storage.rows.database import Work
from app.stores.holds import Holds
from tests.storage.parts import Parts, Written

pytestmark = pytest.mark.anyio

DAY = 86_400 * 1_000_000
KEEP = 3


def age(parts: Parts, days: float, where: str = "true") -> None:
    """Let versions have been made so many days ago."""
    moment = int(time.time() * 1_000_000 - days * DAY)
    parts.outside.rows.execute(f"UPDATE memory_versions SET created_at = {moment} WHERE {where}")


async def expire(parts: Parts, *, days: int = 30, keep: int = KEEP) -> int:
    """One pass of retention and of what follows from it."""
    expired = await parts.retention(days=days, keep=keep).expire()
    await parts.collector().collect()
    assert await parts.check() == []
    return expired


def versions_of(parts: Parts, memory: Written) -> list[str]:
    """The versions that are left, oldest first."""
    rows = parts.outside.rows.execute(
        f"SELECT id FROM memory_versions WHERE memory_id = '{memory.memory_id}' ORDER BY seq"
    )
    return [row[0] for row in rows]


async def history(parts: Parts, store_id: str, number: int, path: str = "/memory.md") -> list[Written]:
    """A memory of so many versions, each with its own content, all moved."""
    versions = [await parts.create(store_id, f"{path} 1", path)]
    for count in range(2, number + 1):
        versions.append(await parts.update(versions[-1], f"{path} {count}"))
    await parts.move_all()
    return versions


async def test_of_a_live_memory_the_newest_few_versions_stay_whatever_their_age(parts: Parts) -> None:
    versions = await history(parts, await parts.store(), 8)
    age(parts, 1000)
    assert await expire(parts) == 8 - KEEP
    kept = versions[-KEEP:]
    assert versions_of(parts, versions[0]) == [version.version_id for version in kept]
    assert parts.outside.blobs_of(versions[0].store_id) == {version.sha256 for version in kept}
    assert await parts.read(versions[-1]) == versions[-1].content


async def test_a_head_stays_even_if_only_one_version_is_kept(parts: Parts) -> None:
    store_id = await parts.store()
    short, long = await history(parts, store_id, 1, "/short.md"), await history(parts, store_id, 4, "/long.md")
    age(parts, 1000)
    assert await expire(parts, keep=1) == 3
    for head in (short[-1], long[-1]):
        assert versions_of(parts, head) == [head.version_id]
        assert await parts.read(head) == head.content


async def test_a_store_under_legal_hold_keeps_everything_until_it_is_released(parts: Parts) -> None:
    held, free = await parts.store(), await parts.store()
    versions, others = await history(parts, held, 8), await history(parts, free, 8)
    holds = Holds(parts.storage)
    await holds.place(parts.caller, held, None)
    age(parts, 1000)
    assert await expire(parts) == 8 - KEEP
    assert len(versions_of(parts, versions[0])) == 8
    assert len(versions_of(parts, others[0])) == KEEP
    await holds.release(parts.caller, held)
    assert await expire(parts) == 8 - KEEP
    assert len(versions_of(parts, versions[0])) == KEEP


async def test_a_hold_that_comes_while_retention_is_at_work_is_seen(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = await parts.store()
    versions = await history(parts, store_id, 8)
    age(parts, 1000)
    database, holds = parts.storage.database, Holds(parts.storage)
    transact = database.transact

    async def held_just_before(work: Work[Any], *, store_id: str | None = None) -> Any:
        monkeypatch.setattr(database, "transact", transact)
        await holds.place(parts.caller, versions[0].store_id, None)
        return await transact(work, store_id=store_id)

    monkeypatch.setattr(database, "transact", held_just_before)
    assert await expire(parts) == 0
    assert len(versions_of(parts, versions[0])) == 8


async def test_a_memory_with_few_versions_loses_none(parts: Parts) -> None:
    versions = await history(parts, await parts.store(), KEEP)
    age(parts, 1000)
    assert await expire(parts) == 0
    assert len(versions_of(parts, versions[0])) == KEEP


async def test_versions_younger_than_the_limit_stay(parts: Parts) -> None:
    versions = await history(parts, await parts.store(), 8)
    age(parts, 29.9)
    age(parts, 30.1, f"id IN ('{versions[0].version_id}', '{versions[2].version_id}')")
    assert await expire(parts) == 2
    left = [versions[1], *versions[3:]]
    assert versions_of(parts, versions[0]) == [version.version_id for version in left]


async def test_every_old_version_of_a_deleted_memory_goes_with_its_content(parts: Parts) -> None:
    store_id = await parts.store()
    gone, live = await history(parts, store_id, 4, "/gone.md"), await history(parts, store_id, 2, "/live.md")
    await parts.delete(gone[-1])
    age(parts, 31)
    assert await expire(parts) == 5  # four contents and the record of the deletion
    assert versions_of(parts, gone[0]) == []
    assert parts.outside.blobs_of(store_id) == {version.sha256 for version in live}


async def test_a_fresh_version_of_a_deleted_memory_stays(parts: Parts) -> None:
    (memory,) = await history(parts, await parts.store(), 1)
    await parts.delete(memory)
    age(parts, 31, f"id = '{memory.version_id}'")
    assert await expire(parts) == 1
    assert len(versions_of(parts, memory)) == 1  # the record of the deletion
    assert parts.outside.blobs_of(memory.store_id) == set()


async def test_content_that_a_kept_version_has_too_stays(parts: Parts) -> None:
    store_id = await parts.store()
    memory = await parts.create(store_id, "recurring")
    for content in ("between", "recurring", "last"):
        memory = await parts.update(memory, content)
    other = await parts.create(store_id, "between", "/other.md")
    await parts.move_all()
    age(parts, 31)
    assert await expire(parts, keep=2) == 2
    assert await parts.read(other) == "between"
    assert len(parts.outside.blobs_of(store_id)) == 3


async def test_renames_count_as_versions(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    for number in range(5):
        await parts.rename(memory, f"/renamed-{number}.md")
    await parts.move_all()
    age(parts, 31)
    assert await expire(parts) == 6 - KEEP
    assert await parts.read(memory) == "content"


async def test_content_that_is_still_staged_goes_too(parts: Parts) -> None:
    versions = [await parts.create(await parts.store(), "1")]
    for count in range(2, 6):
        versions.append(await parts.update(versions[-1], str(count)))
    age(parts, 31)
    assert await expire(parts) == 2
    assert parts.outside.staged() == KEEP
    assert await parts.move_all() == KEEP
    assert len(parts.outside.blobs_of(versions[0].store_id)) == KEEP


async def test_a_redacted_version_goes_like_any_other(parts: Parts) -> None:
    versions = await history(parts, await parts.store(), 5)
    await parts.redact(versions[0])
    age(parts, 31)
    assert await expire(parts) == 2


async def test_sequence_numbers_are_not_used_again_after_the_newest_versions_went(parts: Parts) -> None:
    (memory,) = await history(parts, await parts.store(), 1)
    await parts.delete(memory)
    age(parts, 31)
    assert await expire(parts) == 2
    later = await parts.create(memory.store_id, "later")
    assert parts.outside.rows.execute(f"SELECT seq FROM memory_versions WHERE id = '{later.version_id}'") == [("3",)]


async def test_expiring_again_changes_nothing(parts: Parts) -> None:
    await history(parts, await parts.store(), 8)
    age(parts, 31)
    assert await expire(parts) == 8 - KEEP
    assert await expire(parts) == 0


async def test_more_than_a_batch_is_expired_in_many_stores(parts: Parts) -> None:
    numbers = (450, 3, 5)
    for number in numbers:
        memory = await parts.create(await parts.store(), "0")
        for count in range(1, number):
            memory = await parts.update(memory, str(count % 7))
    age(parts, 31)
    assert await expire(parts, keep=1) == sum(numbers) - len(numbers)
    assert parts.outside.rows.count("memory_versions") == len(numbers)
