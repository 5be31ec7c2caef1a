"""What a server was reading or holds for its streams when an erasure came does not go out afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.contract.errors import Unavailable
from app.erasure.service import Erasures
from app.erasure.watch import ErasureWatch
from app.feed import snapshots, wakeups
from app.feed.pages import ChangePage, page_of
from app.feed.service import Changes, Feed
from app.feed.snapshots import Snapshots
from app.feed.wire import change_event
from app.transfer.exporting import Exports
from tests.erasure.steps import erase
from tests.storage.parts import Parts
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def feed(parts: Parts) -> AsyncIterator[Feed]:
    """The feed of a process that watches for erasures."""
    feed = Feed(parts.storage, change_event)
    watch = ErasureWatch(parts.storage.database, parts.storage.cache, parts.storage.mover, feed.drop_stores)
    await watch.start()
    yield feed
    await watch.stop()
    await feed.close()


async def planted(parts: Parts) -> str:
    """A store with three memories, the second of which is about somebody, by its path; its ID."""
    store_id = await parts.store()
    for path in ("/a.md", "/anna.md", "/z.md"):
        await parts.create(store_id, f"content of {path}", path)
    await parts.move_all()
    return store_id


@pytest.mark.usefixtures("feed")
@pytest.mark.parametrize("with_content", [True, False])
async def test_a_snapshot_on_its_way_names_no_memory_that_was_erased_meanwhile(
    parts: Parts, erasures: Erasures, with_content: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_PIECE_ROWS", 1)
    store_id = await planted(parts)
    taken = await Snapshots(parts.storage).take(parts.caller, store_id, with_content=with_content)
    (first,) = await anext(taken.pieces)
    assert first.row["path"] == "/a.md"
    await erase(parts, erasures, path_prefix="/anna.md")
    with pytest.raises(Unavailable, match="begin again"):
        await anext(taken.pieces)
    anew = await Snapshots(parts.storage).take(parts.caller, store_id, with_content=with_content)
    assert [found.row["path"] async for piece in anew.pieces for found in piece] == ["/a.md", "/z.md"]


@pytest.mark.usefixtures("feed")
@pytest.mark.parametrize("history", [True, False])
async def test_an_export_on_its_way_ends_when_a_memory_is_erased(
    parts: Parts, erasures: Erasures, history: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.transfer.exporting._PIECE_BYTES", 1)
    store_id = await planted(parts)
    exporter = await Exports(parts.storage).begin(parts.caller, store_id, history=history, form="tar")
    pieces = exporter.pieces("tar")
    # Everything but the list of paths at the end has been read by then.
    for _ in range(4):
        await anext(pieces)
    await erase(parts, erasures, path_prefix="/anna.md")
    with pytest.raises(Unavailable, match="begin again"):
        async for _ in pieces:
            pass


@pytest.mark.usefixtures("feed")
async def test_an_export_ends_within_its_history_when_a_memory_is_erased(
    parts: Parts, erasures: Erasures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.transfer.exporting._PIECE_BYTES", 1)
    store_id = await planted(parts)
    exporter = await Exports(parts.storage).begin(parts.caller, store_id, history=True, form="tar")
    pieces, sent = exporter.pieces("tar"), b""
    while b"versions.jsonl" not in sent:  # the head of the file that has all paths, which follows byte by byte
        sent += await anext(pieces)
    await erase(parts, erasures, path_prefix="/anna.md")
    with pytest.raises(Unavailable, match="begin again"):
        await anext(pieces)


@pytest.mark.usefixtures("feed")
async def test_an_export_into_a_directory_ends_when_a_memory_is_erased_behind_the_last_of_them(
    parts: Parts, erasures: Erasures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = await planted(parts)
    exporter = await Exports(parts.storage).begin(parts.caller, store_id, history=True, form="directory")
    versions = exporter.versions

    async def late(*given: Any) -> AsyncIterator[Any]:
        await erase(parts, erasures, path_prefix="/anna.md")
        async for page in versions(*given):
            yield page

    monkeypatch.setattr(exporter, "versions", late)
    with pytest.raises(Unavailable, match="begin again"):
        await exporter.into_directory(tmp_path / "out")
    written = {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert {"a.md", "anna.md", "z.md"} <= written, "it had come so far"
    assert not {"versions.jsonl", "manifest.json"} & written


async def test_a_stream_gets_no_change_out_of_memory_that_was_erased_meanwhile(
    parts: Parts, erasures: Erasures, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "_KEEP_SECONDS", 3_600.0)
    store_id = await parts.store()
    stream = await feed.follow(parts.caller, store_id, 0)
    task = asyncio.ensure_future(anext(stream))
    await eventually(lambda: feed._wakeups._channels, "it is watched")
    channel = feed._wakeups._channels[store_id]
    await eventually(lambda: channel.position is not None, "the first look")
    await parts.create(store_id, "x", "/anna.md")
    first = await task
    assert isinstance(first, Changes)
    assert b"anna" in first.frames[0]
    assert channel.after(0), "kept for those who come next"
    await erase(parts, erasures, path_prefix="/anna.md")
    other = await feed.follow(parts.caller, store_id, 0)
    item = await anext(other)
    assert isinstance(item, Changes)
    assert b"anna" not in b"".join(item.frames)
    await stream.aclose()
    await other.aclose()


async def test_changes_that_were_being_read_when_an_erasure_came_are_read_again(
    parts: Parts, erasures: Erasures, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = await planted(parts)
    erased = asyncio.Event()

    async def slow(*given: object) -> ChangePage:
        page = await page_of(*given)  # type: ignore[arg-type]
        if not erased.is_set():
            erased.set()
            await erase(parts, erasures, path_prefix="/anna.md")
        return page

    monkeypatch.setattr("app.feed.service.page_of", slow)
    with pytest.raises(Unavailable, match="begin again"):
        await feed.page(parts.caller, store_id, 0, 100)
    page = await feed.page(parts.caller, store_id, 0, 100)
    assert "/anna.md" not in {row["path"] for row in page.rows}
