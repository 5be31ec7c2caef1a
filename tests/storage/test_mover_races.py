"""Content that is erased, or comes back, while it is moved to the blob store or removed from it."""

import asyncio

import pytest

from app.storage.contents.blobs import BlobStoreUnavailable
from tests.storage.interrupted import InterruptedBlobs, fail
from tests.storage.outside import key
from tests.storage.parts import Parts, Written

pytestmark = pytest.mark.anyio


async def assert_erased(parts: Parts, version: Written) -> None:
    """Nothing of the content is left anywhere, and what is left is consistent."""
    await parts.collector().collect()
    assert version.sha256 not in parts.outside.blobs_of(version.store_id)
    assert not parts.is_condemned(version)
    digest = parts.outside.rows.literal(version.sha256)
    assert parts.outside.rows.count("staged_contents", f"content_sha256 = {digest}") == 0
    await parts.move_all()
    assert await parts.check() == []


async def assert_at_home(parts: Parts, memory: Written) -> None:
    """The content is in the blob store, and nowhere else."""
    await parts.move_all()
    await parts.collector().collect()
    assert parts.outside.staged() == 0
    assert memory.sha256 in parts.outside.blobs_of(memory.store_id)
    assert await parts.read(memory) == memory.content
    assert await parts.check() == []


async def test_a_moved_content_is_in_the_blob_store_and_no_longer_staged(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    assert parts.outside.staged() == 1
    assert parts.outside.blobs.all_keys() == set()
    await parts.mover().move([memory.staged])
    assert parts.outside.staged() == 0
    home = key(memory.store_id, memory.sha256)
    assert parts.outside.blobs.all_keys() == {home}
    assert parts.outside.blobs.read(home) == b"content"
    assert await parts.read(memory) == "content"


async def test_two_movers_of_one_content_leave_it_in_the_blob_store(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    slow = InterruptedBlobs(parts.blobs)
    slow.after_put = lambda: parts.mover().move([memory.staged])
    await parts.mover(slow).move([memory.staged])
    await assert_at_home(parts, memory)


async def test_content_erased_before_it_is_put_is_taken_back(parts: Parts) -> None:
    past = await parts.create_past("secret")
    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.before_put = lambda: parts.redact(past)
    await parts.mover(interrupted).move([past.staged])
    assert parts.is_condemned(past)
    await assert_erased(parts, past)


async def test_content_erased_after_it_is_put_is_taken_back(parts: Parts) -> None:
    past = await parts.create_past("secret")
    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.after_put = lambda: parts.redact(past)
    await parts.mover(interrupted).move([past.staged])
    await assert_erased(parts, past)


@pytest.mark.parametrize("step", ["before_put", "after_put"])
async def test_content_erased_and_collected_while_it_is_put_is_taken_back(parts: Parts, step: str) -> None:
    past = await parts.create_past("secret")

    async def erase_and_collect() -> None:
        await parts.redact(past)
        assert await parts.collector().collect() == 1

    interrupted = InterruptedBlobs(parts.blobs)
    setattr(interrupted, step, erase_and_collect)
    await parts.mover(interrupted).move([past.staged])
    await assert_erased(parts, past)


async def test_content_that_came_back_while_a_mover_put_its_erased_twin_stays(parts: Parts) -> None:
    past = await parts.create_past("text")
    again: list[Written] = []

    async def erase_collect_and_write_again() -> None:
        await parts.redact(past)
        await parts.collector().collect()
        again.append(await parts.create(past.store_id, "text", "/again.md"))

    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.before_put = erase_collect_and_write_again
    await parts.mover(interrupted).move([past.staged])
    assert not parts.is_condemned(past)
    assert await parts.read(again[0]) == "text"
    await assert_at_home(parts, again[0])


async def test_content_that_comes_back_while_condemned_stays_staged_until_the_removal_is_through(
    parts: Parts,
) -> None:
    past = await parts.create_past("text")
    await parts.move_all()
    await parts.redact(past)
    again = await parts.create(past.store_id, "text", "/again.md")

    await parts.mover().move([again.staged])
    assert await parts.move_all() == 0
    assert parts.outside.staged() == 1
    assert await parts.read(again) == "text"

    assert await parts.collector().collect() == 1
    assert past.sha256 not in parts.outside.blobs_of(past.store_id)
    assert await parts.read(again) == "text"
    await assert_at_home(parts, again)


@pytest.mark.parametrize("step", ["before_remove", "after_remove"])
async def test_content_that_comes_back_during_its_removal_is_not_lost(parts: Parts, step: str) -> None:
    past = await parts.create_past("text")
    await parts.move_all()
    await parts.redact(past)
    again: list[Written] = []

    async def write_again_and_try_to_move() -> None:
        again.append(await parts.create(past.store_id, "text", "/again.md"))
        await parts.mover().move([again[0].staged])
        await parts.move_all()
        assert parts.outside.staged() == 1

    interrupted = InterruptedBlobs(parts.blobs)
    setattr(interrupted, step, write_again_and_try_to_move)
    await parts.collector(interrupted).collect()
    assert await parts.read(again[0]) == "text"
    await assert_at_home(parts, again[0])


async def test_a_mover_that_put_an_erased_content_leaves_alone_the_stage_row_of_the_one_that_came_back(
    parts: Parts,
) -> None:
    past = await parts.create_past("text")
    claimed, moved = asyncio.Event(), asyncio.Event()
    again: list[Written] = []
    collector_blobs, mover_blobs = InterruptedBlobs(parts.blobs), InterruptedBlobs(parts.blobs)
    collecting: list[asyncio.Task[int]] = []

    async def write_again_and_be_slow() -> None:
        again.append(await parts.create(past.store_id, "text", "/again.md"))
        claimed.set()
        await moved.wait()

    async def erase_and_begin_to_collect() -> None:
        await parts.redact(past)
        collecting.append(asyncio.create_task(parts.collector(collector_blobs).collect()))
        await claimed.wait()

    collector_blobs.before_remove = write_again_and_be_slow
    mover_blobs.before_put = erase_and_begin_to_collect
    await parts.mover(mover_blobs).move([past.staged])
    moved.set()
    await collecting[0]
    # The removal came last, so only the stage has the content now.
    assert await parts.read(again[0]) == "text"
    await assert_at_home(parts, again[0])


async def test_content_that_comes_back_and_is_erased_again_during_its_removal_is_removed_again(parts: Parts) -> None:
    past = await parts.create_past("secret")
    await parts.move_all()
    await parts.redact(past)
    again: list[Written] = []

    async def write_and_erase_again() -> None:
        again.append(await parts.create_past("secret", path="/again.md", store_id=past.store_id))
        await parts.redact(again[0])

    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.before_remove = write_and_erase_again
    # The first decision may not stand for the second: that one needs a removal of its own.
    assert await parts.collector(interrupted).collect() == 2
    await assert_erased(parts, past)


async def test_a_blob_put_late_by_a_stopped_mover_is_found_again_as_an_orphan(parts: Parts) -> None:
    past = await parts.create_past("secret")

    async def erase_and_die() -> None:
        await parts.redact(past)
        await parts.collector().collect()
        raise asyncio.CancelledError

    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.after_put = erase_and_die
    with pytest.raises(asyncio.CancelledError):
        await parts.mover(interrupted).move([past.staged])
    # The process died between its put and its bookkeeping.
    await parts.blobs.put_many([(*past.reference, b"secret")])
    assert await parts.orphans(grace_seconds=0).condemn_all() == 1
    await assert_erased(parts, past)


async def test_content_shared_by_another_version_survives_the_erasure_of_one(parts: Parts) -> None:
    past = await parts.create_past("shared")
    other = await parts.create(past.store_id, "shared", "/other.md")
    await parts.move_all()
    await parts.redact(past)
    assert not parts.is_condemned(past)
    await assert_at_home(parts, other)


async def test_in_a_batch_the_condemned_content_waits_and_the_others_are_moved(parts: Parts) -> None:
    past = await parts.create_past("condemned")
    await parts.redact(past)
    again = await parts.create(past.store_id, "condemned", "/again.md")
    other = await parts.create(past.store_id, "free", "/free.md")
    await parts.mover().move([again.staged, other.staged])
    assert parts.outside.blobs_of(past.store_id) == {other.sha256}
    assert await parts.read(again) == "condemned"


async def test_condemned_content_of_one_store_does_not_hold_up_the_same_content_of_another(parts: Parts) -> None:
    past = await parts.create_past("text")
    await parts.redact(past)
    other = await parts.create(await parts.store(), "text")
    await parts.mover().move([other.staged])
    assert parts.outside.blobs_of(other.store_id) == {other.sha256}


@pytest.mark.parametrize("step", ["before_put", "after_put"])
async def test_content_of_a_store_deleted_while_it_is_moved_does_not_stay(parts: Parts, step: str) -> None:
    memory = await parts.create(await parts.store(), "secret")

    async def delete_store() -> None:
        await parts.stores.delete(parts.caller, memory.store_id)
        await parts.purger().purge()

    interrupted = InterruptedBlobs(parts.blobs)
    setattr(interrupted, step, delete_store)
    await parts.mover(interrupted).move([memory.staged])
    await assert_erased(parts, memory)


async def test_content_moved_between_the_steps_of_its_stores_purge_does_not_stay(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "secret")
    await parts.stores.delete(parts.caller, memory.store_id)
    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.after_remove_store = lambda: parts.mover().move([memory.staged])
    await parts.purger(interrupted).purge()
    await assert_erased(parts, memory)


async def test_content_stays_staged_and_readable_when_its_put_fails(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    failing = InterruptedBlobs(parts.blobs)
    failing.before_put = fail
    with pytest.raises(BlobStoreUnavailable):
        await parts.mover(failing).move([memory.staged])
    assert parts.outside.staged() == 1
    assert await parts.read(memory) == "content"
    await assert_at_home(parts, memory)


async def test_content_that_was_put_but_not_unstaged_is_moved_again(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    failing = InterruptedBlobs(parts.blobs)
    failing.after_put = fail
    with pytest.raises(BlobStoreUnavailable):
        await parts.mover(failing).move([memory.staged])
    assert parts.outside.staged() == 1
    assert await parts.check() == []
    await assert_at_home(parts, memory)


@pytest.mark.parametrize("step", ["before_remove", "after_remove"])
async def test_a_removal_that_fails_is_done_again_once_the_claim_has_run_out(parts: Parts, step: str) -> None:
    past = await parts.create_past("secret")
    await parts.move_all()
    await parts.redact(past)
    failing = InterruptedBlobs(parts.blobs)
    setattr(failing, step, fail)
    with pytest.raises(BlobStoreUnavailable):
        await parts.collector(failing).collect()
    assert parts.is_condemned(past)
    assert await parts.collector().collect() == 0, "somebody may still be at it"
    parts.end_claims()
    assert await parts.collector().collect() == 1
    await assert_erased(parts, past)


async def test_two_collectors_never_remove_the_same_content(parts: Parts) -> None:
    past = await parts.create_past("secret")
    await parts.move_all()
    await parts.redact(past)
    second: list[int] = []

    async def collect_too() -> None:
        second.append(await parts.collector().collect())

    interrupted = InterruptedBlobs(parts.blobs)
    interrupted.before_remove = collect_too
    assert await parts.collector(interrupted).collect() == 1
    assert second == [0]


async def test_a_purge_that_fails_is_done_again(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "secret")
    await parts.move_all()
    await parts.stores.delete(parts.caller, memory.store_id)
    failing = InterruptedBlobs(parts.blobs)
    failing.after_remove_store = fail
    with pytest.raises(BlobStoreUnavailable):
        await parts.purger(failing).purge()
    assert await parts.purger().purge() == 1
    assert parts.outside.rows.count("memory_stores") == 0
    await assert_erased(parts, memory)
