"""No server keeps in memory what an erasure has taken from the database."""

import time

import pytest

from app.contract.errors import Unavailable
from app.erasure.service import Erasures
from app.erasure.watch import ErasureWatch, wait_until_forgotten
from app.storage.contents.reading import ContentCache
from app.storage.rows.database import Row
from app.storage.rows.statements import Parameters, Statement
from tests.erasure.steps import planned
from tests.storage.parts import Parts
from tests.storage.test_background import eventually

pytestmark = pytest.mark.anyio


class Unreachable:
    """A database that does not answer."""

    async def fetch_all(self, statement: Statement, parameters: Parameters) -> list[Row]:
        raise Unavailable("the database does not answer (planted by a test)")

    async def transact(self, work: object) -> None:
        """It answered when the server started."""


async def test_a_server_lets_go_of_what_an_erasure_under_way_touches(parts: Parts, erasures: Erasures) -> None:
    memory, other = await parts.create(await parts.store(), "Anna"), await parts.create(await parts.store(), "else")
    cache = ContentCache(1_000)
    watch = ErasureWatch(parts.storage.database, cache)
    for written in (memory, other):
        cache.put(*written.reference, written.content.encode())
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
    cache.put("memstore_01", b"digest", b"Anna")
    watch = ErasureWatch(Unreachable(), cache)  # type: ignore[arg-type]
    await watch.start()
    try:
        await eventually(lambda: cache.bytes == 0, "the cache is trusted no more")
    finally:
        await watch.stop()
    assert cache.get("memstore_01", b"digest") is None


async def test_whoever_erases_waits_for_those_who_run_and_for_nobody_else(parts: Parts) -> None:
    database = parts.storage.database
    now = time.monotonic()
    assert await wait_until_forgotten(database, "erasure_1", 1, now), "nobody runs"
    watch = ErasureWatch(database, ContentCache(1_000))
    await watch.start()
    assert not await wait_until_forgotten(database, "erasure_1", 1, now), "it has not let go"
    await watch.stop()
    assert await wait_until_forgotten(database, "erasure_1", 1, now), "it has ended"


async def test_a_server_says_that_it_has_let_go(parts: Parts, erasures: Erasures) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    caches = [ContentCache(1_000) for _ in range(3)]
    watches = [ErasureWatch(parts.storage.database, cache) for cache in caches]
    for watch in watches:
        await watch.start()
    try:
        for cache in caches:
            cache.put(*memory.reference, b"Anna")
        notes: list[str] = []
        await erasures.run(await erasures.begin(await planned(parts, contains="Anna")), notes.append)
        assert [cache.bytes for cache in caches] == [0, 0, 0]
        assert not [note for note in notes if "did not answer" in note]
    finally:
        for watch in watches:
            await watch.stop()
