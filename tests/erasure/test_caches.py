"""No server keeps in memory what an erasure has taken from the database."""

import asyncio
import time

import pytest

from app.contract.errors import NotFound, Unavailable
from app.erasure.service import Erasures
from app.erasure.watch import Answer, ErasureWatch, wait_until_forgotten
from app.storage.contents.reading import ContentCache, Contents
from app.storage.rows.database import Row
from app.storage.rows.statements import Parameters, Statement
from tests.erasure.steps import erase, planned
from tests.storage.interrupted import InterruptedBlobs
from tests.storage.parts import Parts
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


class Unreachable:
    """A database that does not answer."""

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> list[Row]:
        raise Unavailable("the database does not answer (planted by a test)")

    async def transact(self, work: object) -> None:
        """It answered when the server started."""


class Idle:
    """A mover that holds nothing."""


async def test_a_server_lets_go_of_what_an_erasure_under_way_touches(parts: Parts, erasures: Erasures) -> None:
    memory, other = await parts.create(await parts.store(), "Anna"), await parts.create(await parts.store(), "else")
    cache = ContentCache(1_000)
    watch = ErasureWatch(parts.storage.database, cache, parts.storage.mover)
    for written in (memory, other):
        cache.put(*written.reference, written.content.encode(), cache.now())
    await watch.look()
    assert cache.get(*memory.reference) == b"Anna", "nothing is being erased yet"
    erasure_id = await erasures.begin(await planned(parts, contains="Anna"))
    await watch.start()
    try:
        await eventually(lambda: cache.get(*memory.reference) is None, "the server has looked")
    finally:
        await watch.stop()
    assert cache.get(*other.reference) == b"else"
    assert cache.bytes == len(b"else")
    await erasures.run(erasure_id, lambda line: None)


async def test_a_server_that_can_not_look_lets_go_of_everything() -> None:
    cache = ContentCache(1_000)
    cache.put("memstore_01", b"digest", b"Anna", cache.now())
    watch = ErasureWatch(Unreachable(), cache, Idle())  # type: ignore[arg-type]
    await watch.start()
    try:
        await eventually(lambda: cache.bytes == 0, "the cache is trusted no more")
    finally:
        await watch.stop()
    assert cache.get("memstore_01", b"digest") is None


async def test_whoever_erases_waits_for_those_who_run_and_for_nobody_else(parts: Parts) -> None:
    database = parts.storage.database
    now = time.monotonic()
    assert await wait_until_forgotten(database, "erasure_1", 1, now) is Answer.ALL, "nobody runs"
    watch = ErasureWatch(database, ContentCache(1_000), parts.storage.mover)
    await watch.start()
    assert await wait_until_forgotten(database, "erasure_1", 1, now) is Answer.SILENT, "it has not let go"
    await watch.stop()
    assert await wait_until_forgotten(database, "erasure_1", 1, now) is Answer.ALL, "it has ended"


async def test_a_server_says_that_it_has_let_go(parts: Parts, erasures: Erasures) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    caches = [ContentCache(1_000) for _ in range(3)]
    watches = [ErasureWatch(parts.storage.database, cache, parts.storage.mover) for cache in caches]
    for watch in watches:
        await watch.start()
    try:
        for cache in caches:
            cache.put(*memory.reference, b"Anna", cache.now())
        notes: list[str] = []
        await erasures.run(await erasures.begin(await planned(parts, contains="Anna")), notes.append)
        assert [cache.bytes for cache in caches] == [0, 0, 0]
        assert not [note for note in notes if "did not answer" in note]
    finally:
        for watch in watches:
            await watch.stop()


# What was under way


class Held:
    """Holds up a step of the blob store until it is let go."""

    def __init__(self) -> None:
        self.reached, self.free = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        """The step."""
        self.reached.set()
        await self.free.wait()


def interrupted(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> InterruptedBlobs:
    """Reads go through these blobs, and a cache that is empty."""
    blobs, cache = InterruptedBlobs(parts.blobs), ContentCache(1_000)
    monkeypatch.setattr(parts.storage, "cache", cache)
    monkeypatch.setattr(parts.storage, "contents", Contents(blobs, cache))
    return blobs


async def test_a_slow_read_neither_answers_nor_keeps_what_was_erased_meanwhile(
    parts: Parts, erasures: Erasures, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    await parts.move_all()
    blobs, held = interrupted(parts, monkeypatch), Held()
    watch = ErasureWatch(parts.storage.database, parts.storage.cache, parts.storage.mover)
    await watch.start()
    try:
        blobs.after_get = held
        reading = asyncio.create_task(parts.read(memory))
        await held.reached.wait()
        await erase(parts, erasures, contains="Anna")
        held.free.set()
        with pytest.raises(NotFound):
            await reading
    finally:
        await watch.stop()
    assert parts.storage.cache.get(*memory.reference) is None
    assert parts.storage.cache.bytes == 0


@pytest.mark.parametrize("of_everything", [False, True])
async def test_a_read_that_began_before_the_letting_go_is_done_again_and_kept_only_then(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, of_everything: bool
) -> None:
    memory = await parts.create(await parts.store(), "Bob")
    await parts.move_all()
    blobs, cache = interrupted(parts, monkeypatch), parts.storage.cache
    reads: list[int] = []

    async def happens() -> None:
        reads.append(cache.bytes)
        if len(reads) == 1:
            cache.clear() if of_everything else cache.drop_stores({memory.store_id})
            blobs.after_get = happens

    blobs.after_get = happens
    assert await parts.read(memory) == "Bob"
    assert reads == [0, 0], "the first result was not kept"
    assert cache.get(*memory.reference) == b"Bob", "the second is"


async def test_what_was_written_before_the_letting_go_is_not_remembered_after_it(parts: Parts) -> None:
    cache = ContentCache(1_000)
    contents = Contents(parts.blobs, cache)
    since = contents.now()
    cache.drop_stores({"memstore_1"})
    contents.remember("memstore_1", b"digest", b"Anna", since)
    contents.remember("memstore_2", b"digest", b"Bob", since)
    assert cache.get("memstore_1", b"digest") is None
    assert cache.get("memstore_2", b"digest") == b"Bob"
    contents.remember("memstore_1", b"digest", b"new", contents.now())
    assert cache.get("memstore_1", b"digest") == b"new"


async def test_an_erasure_waits_for_what_a_server_is_putting_into_the_blob_store(
    parts: Parts, erasures: Erasures, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    blobs, held = InterruptedBlobs(parts.blobs), Held()
    blobs.before_put = held
    mover = parts.mover(blobs)
    mover.start()
    watch = ErasureWatch(parts.storage.database, parts.storage.cache, mover)
    await watch.start()
    try:
        mover.staged(memory.staged)
        await held.reached.wait()
        mover.staged(memory.staged)
        erasing = asyncio.create_task(erase(parts, erasures, contains="Anna"))
        said = "SELECT count(*) FROM leases WHERE holder LIKE 'moving %'"
        await eventually(lambda: parts.outside.rows.execute(said) == [("1",)], "the server says that it is moving")
        assert not mover._held, "what waits to be moved is held no more"
        assert not erasing.done()
        held.free.set()
        report = await erasing
    finally:
        await watch.stop()
        await mover.stop()
    assert all(place["complete"] for place in report["places"])
    assert parts.outside.blobs.all_keys() == set()
