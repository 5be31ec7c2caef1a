"""What following a store costs, and what a reader that is slow, or late, still gets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from app.contract.errors import InvalidRequest, NotFound, Overloaded, Unavailable
from app.feed import queries, wakeups
from app.feed import service as feed_service
from app.feed.service import Changes, Feed, Gone, Item, Quiet, Truncated
from app.feed.snapshots import Snapshots
from app.feed.wire import change_event
from app.memories import conditions, moves
from app.memories.moves import Moves
from app.storage.rows.database import Row
from app.storage.rows.statements import Parameters, Statement
from tests.storage.parts import Parts

pytestmark = pytest.mark.anyio

READERS = 50


class Counting:
    """Counts what a database is asked by statement, and can have it fail."""

    def __init__(self, fetch_all: Callable[[Statement, Parameters], Awaitable[Sequence[Row]]]) -> None:
        self.asked: dict[Statement, int] = {}
        self.error: Exception | None = None
        self._fetch_all = fetch_all

    async def __call__(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        self.asked[statement] = self.asked.get(statement, 0) + 1
        if self.error is not None:
            raise self.error
        return await self._fetch_all(statement, parameters)


@pytest.fixture
def counting(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Counting:
    database = parts.storage.database
    counting = Counting(database.fetch_all)
    monkeypatch.setattr(database, "fetch_all", counting)
    return counting


@pytest.fixture
async def feed(parts: Parts) -> AsyncIterator[Feed]:
    feed = Feed(parts.storage, change_event)
    yield feed
    await feed.close()


@asynccontextmanager
async def reader(feed: Feed, parts: Parts, store_id: str, after: int = 0) -> AsyncIterator[AsyncIterator[Item]]:
    async with aclosing(await feed.follow(parts.caller, store_id, after)) as items:
        yield items


async def take(items: AsyncIterator[Item], number: int) -> list[bytes]:
    """The next so many changes."""
    found: list[bytes] = []
    while len(found) < number:
        item = await anext(items)
        assert isinstance(item, Changes | Quiet), item
        found += item.frames if isinstance(item, Changes) else ()
    assert len(found) == number
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it is so."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is watched is the innermost of the code
            await asyncio.sleep(0.001)


def position(feed: Feed, store_id: str) -> int | None:
    """How far the process has seen what happens in a store."""
    channel = feed._wakeups._channels.get(store_id)
    return None if channel is None else channel.position


def seq_of(frame: bytes) -> int:
    return int(frame.partition(b"\n")[0].removeprefix(b"id: "))


async def test_a_change_costs_one_statement_however_many_read_it(
    parts: Parts, feed: Feed, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_POLL_SECONDS", 3_600)  # this process's own commits need no poll
    encoded: list[int] = []

    def encode(row: Row, is_erased: bool) -> bytes:
        encoded.append(row["seq"])
        return change_event(row, is_erased)

    monkeypatch.setattr(feed._wakeups, "_encode", encode)
    store_id = await parts.store()
    memory = await parts.create(store_id, "1")
    streams = [await feed.follow(parts.caller, store_id, 1) for _ in range(READERS)]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await until(lambda: position(feed, store_id) is not None)
    counting.asked.clear()
    for number in range(2, 12):
        memory = await parts.update(memory, str(number))
        for item in await asyncio.gather(*waiting):
            assert isinstance(item, Changes)
            assert [seq_of(frame) for frame in item.frames] == [number]
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
    assert counting.asked == {queries.NEWER: 10}
    assert encoded == list(range(2, 12))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_nothing_is_asked_while_nobody_watches(
    parts: Parts, feed: Feed, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_POLL_SECONDS", 0.001)
    store_id = await parts.store()
    async with reader(feed, parts, store_id) as items:
        memory = await parts.create(store_id, "1")
        await take(items, 1)
        await until(lambda: queries.LAST_SEQS in counting.asked)
    poll = feed._wakeups._poll
    await poll.stop()  # a look may be under way
    poll.start()
    counting.asked.clear()
    await parts.update(memory, "2")
    for _ in range(20):
        await asyncio.sleep(0.002)  # twenty times as long as between two looks
    assert counting.asked == {}
    assert not feed._wakeups._channels


async def test_one_poll_is_for_all_stores_and_sees_what_other_processes_commit(
    parts: Parts, feed: Feed, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.storage.database.on_commit = lambda store_id: None  # as if another process had committed
    stores = [await parts.store() for _ in range(5)]
    streams = [await feed.follow(parts.caller, store_id, 0) for store_id in stores]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await until(lambda: all(position(feed, store_id) == 0 for store_id in stores))
    for store_id in stores:
        await parts.create(store_id, store_id)
    for store_id, item in zip(stores, await asyncio.gather(*waiting), strict=True):
        assert isinstance(item, Changes)
        assert store_id.encode() in item.frames[0]
    assert counting.asked[queries.NEWER] <= len(stores)
    for stream in streams:
        await stream.aclose()


async def test_a_reader_that_does_not_read_holds_no_memory_and_misses_nothing(
    parts: Parts, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_KEEP_FRAMES", 20)
    store_id = await parts.store()
    memory = await parts.create(store_id, "0")
    async with reader(feed, parts, store_id) as slow, reader(feed, parts, store_id) as quick:
        await take(slow, 1)
        await take(quick, 1)
        for number in range(100):
            memory = await parts.update(memory, str(number + 1))
            await take(quick, 1)
            channel = feed._wakeups._channels[store_id]
            assert len(channel._frames) <= 20
        assert [seq_of(frame) for frame in await take(slow, 100)] == list(range(2, 102))


async def test_what_was_sent_is_let_go_of_soon(parts: Parts, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a version that is redacted is not shown by a server that read it before."""
    monkeypatch.setattr(wakeups, "_KEEP_SECONDS", 0.0)
    store_id = await parts.store()
    await parts.create(store_id, "first", "/first.md")
    async with reader(feed, parts, store_id) as items:
        await take(items, 1)
        past = await parts.create(store_id, "secret", "/secret.md")
        await parts.update(past, "harmless")
        await take(items, 2)
        await until(lambda: not feed._wakeups._channels[store_id]._frames)
        await parts.redact(past)
        async with reader(feed, parts, store_id, after=1) as late:
            first, _ = await take(late, 2)
    assert b"/secret.md" not in first
    assert b'"path":null' in first


async def test_changes_that_expire_before_they_are_read_are_told_as_missing(
    parts: Parts, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_POLL_SECONDS", 3_600)
    store_id = await parts.store()
    memory = await parts.create(store_id, "1")
    async with reader(feed, parts, store_id) as items:
        await take(items, 1)
        parts.storage.database.on_commit = lambda store_id: None
        await parts.update(memory, "2")
        await parts.update(memory, "3")
        parts.outside.rows.execute(f"DELETE FROM memory_versions WHERE store_id = '{store_id}' AND seq = 2")
        parts.storage.database.on_commit = feed._wakeups.wake
        feed._wakeups.wake(store_id)
        assert await anext(items) == Truncated(3)
        await parts.update(memory, "4")
        assert [seq_of(frame) for frame in await take(items, 1)] == [4]


async def test_gaps_over_many_pieces_are_told_once(parts: Parts, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_service, "_PIECE", 2)
    store_id = await parts.store()
    memory = await parts.create(store_id, "1")
    for number in range(2, 11):
        memory = await parts.update(memory, str(number))
    parts.outside.rows.execute(f"DELETE FROM memory_versions WHERE store_id = '{store_id}' AND seq IN (2, 5, 8)")
    async with reader(feed, parts, store_id) as items:
        assert [seq_of(frame) for frame in await take(items, 1)] == [1]
        assert await anext(items) == Truncated(10)
        await parts.update(memory, "11")
        assert [seq_of(frame) for frame in await take(items, 1)] == [11]


async def test_a_long_backlog_comes_in_pieces(parts: Parts, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_service, "_PIECE", 4)
    store_id = await parts.store()
    memory = await parts.create(store_id, "1")
    async with reader(feed, parts, store_id, after=1) as behind:
        for number in range(2, 12):
            memory = await parts.update(memory, str(number))
        pieces = [await anext(behind) for _ in range(3)]
    assert [len(piece.frames) for piece in pieces if isinstance(piece, Changes)] == [4, 4, 2]


async def test_readers_are_sent_off_when_the_database_stays_away_and_not_before(
    parts: Parts, feed: Feed, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_POLL_SECONDS", 0.001)
    store_id = await parts.store()
    async with reader(feed, parts, store_id) as items:
        await parts.create(store_id, "1")
        await take(items, 1)
        counting.error = Overloaded("busy")
        counting.asked.clear()
        await until(lambda: counting.asked.get(queries.LAST_SEQS, 0) >= 3)
        counting.error = None
        memory = await parts.create(store_id, "2", "/2.md")
        assert [seq_of(frame) for frame in await take(items, 1)] == [2]
        monkeypatch.setattr(wakeups, "_PATIENCE_SECONDS", 0.0)
        counting.error = Unavailable("away")
        with pytest.raises(StopAsyncIteration):
            await anext(items)
    counting.error = None
    async with reader(feed, parts, store_id, after=2) as again:
        await parts.update(memory, "3")
        assert [seq_of(frame) for frame in await take(again, 1)] == [3]


async def test_a_deleted_store_and_a_feed_that_is_closed_end_their_readers(parts: Parts, feed: Feed) -> None:
    deleted, kept = await parts.store(), await parts.store()
    async with reader(feed, parts, deleted) as first, reader(feed, parts, kept) as second:
        await parts.create(deleted, "1")
        await parts.create(kept, "1")
        await take(first, 1)
        await take(second, 1)
        await parts.stores.delete(parts.caller, deleted)
        assert await anext(first) == Gone()
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        await feed.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
    with pytest.raises(NotFound):
        await feed.follow(parts.caller, deleted, 0)
    with pytest.raises(InvalidRequest):
        await feed.follow(parts.caller, kept, 2)


async def test_a_content_that_is_erased_on_the_way_is_null_and_the_rest_is_there(parts: Parts) -> None:
    store_id = await parts.store()
    erased = await parts.create(store_id, "erased", "/a.md")
    kept = await parts.create(store_id, "kept", "/b.md")
    taken = await Snapshots(parts.storage).take(parts.caller, store_id, with_content=True)
    await parts.update(erased, "newer")
    await parts.redact(erased)
    await parts.move_all()
    await parts.collector().collect()
    (piece,) = [piece async for piece in taken.pieces]
    assert taken.seq == 2
    assert [(found.row["version_id"], found.content) for found in piece] == [
        (erased.version_id, None),
        (kept.version_id, b"kept"),
    ]


async def test_a_snapshot_holds_few_contents_at_a_time(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    store_id = await parts.store()
    for number in range(25):
        await parts.create(store_id, f"{number:100000}", f"/{number:02}.md")
    taken = await Snapshots(parts.storage).take(parts.caller, store_id, with_content=True)
    sizes = [sum(len(found.content or b"") for found in piece) async for piece in taken.pieces]
    assert sum(sizes) == 25 * 100_000
    assert max(sizes) <= 1_048_576


async def test_a_move_of_too_many_memories_is_refused(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MOVE_MAX_MEMORIES", 3)
    store_id = await parts.store()
    for number in range(4):
        await parts.create(store_id, "text", f"/a/{number}")
    with pytest.raises(InvalidRequest, match="more than 3 memories"):
        await Moves(parts.storage).move(parts.caller, store_id, "/a/", "/b/")
    assert parts.outside.rows.count("memories", "path LIKE '/a/%'") == 4


async def test_a_memory_that_comes_between_the_locks_of_a_move_is_moved_too(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not parts.storage.database.has_single_statement_mutations:
        return  # On SQLite nothing comes between: a transaction is alone from its beginning.
    store_id = await parts.store()
    await parts.create(store_id, "text", "/a/1")
    real: Any = conditions.lock_store
    created: list[str] = []

    async def lock_later(transaction: Any, parameters: Any) -> Row:
        if len(created) < 2:
            created.append((await parts.create(store_id, "text", f"/a/new-{len(created)}")).memory_id)
        row: Row = await real(transaction, parameters)
        return row

    monkeypatch.setattr(moves, "lock_store", lock_later)
    moved = await Moves(parts.storage).move(parts.caller, store_id, "/a/", "/b/")
    assert [found.row["path"] for found in moved] == ["/b/1", "/b/new-0", "/b/new-1"]
