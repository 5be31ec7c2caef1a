"""A reader never meets a row without its content, whatever is moved, erased or evicted meanwhile."""

import pytest

from app.contract.errors import InternalError
from app.storage.contents.reading import ContentCache
from tests.storage.interrupted import InterruptedBlobs
from tests.storage.outside import key
from tests.storage.parts import Parts
from tests.support.backends import SQLITE_DISK, Backend

pytestmark = pytest.mark.anyio


def interrupt(parts: Parts) -> InterruptedBlobs:
    """Put the interruptions into the way of every reader."""
    blobs = InterruptedBlobs(parts.blobs)
    parts.storage.contents._blobs = blobs
    return blobs


async def test_a_memory_whose_old_content_is_erased_between_row_and_blob_is_read_as_it_is_now(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "old")
    await parts.move_all()

    async def update_and_erase_the_old() -> None:
        await parts.update(memory, "new")
        await parts.redact(memory)
        assert await parts.collector().collect() == 1

    interrupt(parts).before_get = update_and_erase_the_old
    assert await parts.read(memory) == "new"


async def test_a_listing_whose_rows_age_while_it_fetches_content_shows_what_is_there_now(parts: Parts) -> None:
    store_id = await parts.store()
    memory = await parts.create(store_id, "old", "/changed.md")
    await parts.create(store_id, "same", "/kept.md")
    await parts.move_all()

    async def update_and_erase_the_old() -> None:
        await parts.update(memory, "new")
        await parts.redact(memory)
        assert await parts.collector().collect() == 1

    interrupt(parts).before_get = update_and_erase_the_old
    assert await parts.list_contents(store_id) == ["new", "same"]


async def test_a_version_redacted_between_row_and_blob_is_read_as_redacted(parts: Parts) -> None:
    past = await parts.create_past("secret")
    await parts.move_all()

    async def erase() -> None:
        await parts.redact(past)
        assert await parts.collector().collect() == 1

    interrupt(parts).before_get = erase
    found = await parts.versions.retrieve(parts.caller, past.store_id, past.version_id, with_content=True)
    assert found.content is None
    assert found.row["redacted_at"] is not None


async def test_content_that_is_moved_between_row_and_answer_is_read(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    fetch_one = parts.storage.database.fetch_one

    async def move_behind_the_row(*arguments: object) -> object:
        row = await fetch_one(*arguments)  # type: ignore[arg-type]
        await parts.mover().move([memory.staged])
        return row

    parts.storage.database.fetch_one = move_behind_the_row  # type: ignore[method-assign, assignment]
    assert await parts.read(memory) == "content"


async def test_a_reader_with_an_old_row_never_takes_a_half_written_blob_for_its_content(
    parts: Parts, backend: Backend
) -> None:
    if backend.name != SQLITE_DISK:
        pytest.skip("S3 takes an object whole or not at all")
    memory = await parts.create(await parts.store(), "some text")
    await parts.move_all()

    async def erase_the_old_and_bring_it_back_elsewhere() -> None:
        await parts.update(memory, "new text")
        await parts.redact(memory)
        assert await parts.collector().collect() == 1
        await parts.create(memory.store_id, "some text", "/elsewhere.md")
        parts.outside.blobs.write(key(memory.store_id, memory.sha256), b"some")  # as a mover that is half through

    interrupt(parts).before_get = erase_the_old_and_bring_it_back_elsewhere
    assert await parts.read(memory) == "new text"


async def test_content_that_is_really_lost_is_an_error_that_names_fsck(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    await parts.move_all()
    parts.outside.blobs.remove(key(memory.store_id, memory.sha256))
    with pytest.raises(InternalError, match="memstore fsck"):
        await parts.read(memory)


def test_the_cache_never_holds_more_bytes_than_it_may() -> None:
    cache = ContentCache(10)
    for number in range(50):
        cache.put("store", bytes([number]), b"x" * (number % 12), cache.now())
        assert cache.bytes <= 10
    held = [cache.get("store", bytes([number])) for number in range(50)]
    assert sum(len(content) for content in held if content is not None) == cache.bytes


def test_the_cache_lets_go_of_what_was_used_longest_ago() -> None:
    cache = ContentCache(3)
    for name in (b"a", b"b", b"c"):
        cache.put("store", name, b"1", cache.now())
    assert cache.get("store", b"a") == b"1"
    cache.put("store", b"d", b"1", cache.now())
    assert [cache.get("store", name) for name in (b"a", b"b", b"c", b"d")] == [b"1", None, b"1", b"1"]


def test_the_cache_tells_the_contents_of_stores_apart() -> None:
    cache = ContentCache(10)
    cache.put("one", b"a", b"1", cache.now())
    assert cache.get("other", b"a") is None


def test_a_cache_of_no_bytes_holds_nothing() -> None:
    cache = ContentCache(0)
    cache.put("store", b"a", b"1", cache.now())
    assert cache.get("store", b"a") is None


async def test_content_that_was_damaged_is_never_answered(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    await parts.move_all()
    parts.outside.blobs.write(key(memory.store_id, memory.sha256), b"CONTENT")
    with pytest.raises(InternalError, match="memstore fsck"):
        await parts.read(memory)
