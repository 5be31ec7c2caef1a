"""What servers do by themselves: moving, and the sweeper's rounds; in one process, and in two that share the data."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from app.storage.contents.mover import Mover
from tests.storage.interrupted import InterruptedBlobs, fail
from tests.storage.outside import Outside, digest, key, outside
from tests.storage.parts import Parts, opened
from tests.support.backends import Backend
from tests.support.servers import Server, serve
from tests.support.waiting import eventually, until

QUICK = {"MEMSTORE_SWEEP_INTERVAL_SECONDS": "0.2", "MEMSTORE_ORPHAN_GRACE_SECONDS": "0"}


@contextlib.asynccontextmanager
async def running(mover: Mover) -> AsyncIterator[Mover]:
    mover.start()
    try:
        yield mover
    finally:
        await mover.stop()


@pytest.mark.anyio
async def test_a_running_mover_moves_what_it_is_told_of(parts: Parts) -> None:
    memories = [await parts.create(await parts.store(), f"content {number}") for number in range(10)]
    async with running(parts.mover()) as mover:
        for memory in memories:
            mover.staged(memory.staged)
        await eventually(lambda: parts.outside.staged() == 0, "everything is moved")
    assert len(parts.outside.blobs.all_keys()) == 10


@pytest.mark.anyio
async def test_a_mover_goes_on_after_the_blob_store_failed_and_loses_nothing(parts: Parts) -> None:
    failing = InterruptedBlobs(parts.blobs)
    failing.before_put = fail
    one, other = [await parts.create(await parts.store(), content) for content in ("one", "other")]
    async with running(parts.mover(failing)) as mover:
        mover.staged(one.staged)
        await eventually(lambda: failing.before_put is None, "the blob store failed")
        mover.staged(other.staged)
        await eventually(lambda: parts.outside.staged() == 1, "the other is moved")
    assert await parts.read(one) == "one"
    assert await parts.read(other) == "other"
    assert await parts.move_all() == 1


@pytest.mark.anyio
async def test_a_mover_that_is_stopped_moves_what_it_holds(parts: Parts) -> None:
    memories = [await parts.create(await parts.store(), f"content {number}") for number in range(5)]
    mover = parts.mover()
    mover.start()
    for memory in memories:
        mover.staged(memory.staged)
    await mover.stop()
    assert parts.outside.staged() == 0


@pytest.mark.anyio
async def test_what_another_process_has_just_staged_is_left_to_it_for_some_seconds(parts: Parts) -> None:
    fresh = await parts.create(await parts.store(), "fresh")
    left = await parts.create(await parts.store(), "left behind")
    long_ago = int((time.time() - 60) * 1_000_000)
    parts.outside.rows.execute(
        f"UPDATE staged_contents SET staged_at = {long_ago} WHERE version_id = '{left.version_id}'"
    )
    assert await parts.mover().move_left_behind() == 1
    assert parts.outside.blobs.all_keys() == {key(left.store_id, left.sha256)}
    assert await parts.read(fresh) == "fresh"


@pytest.fixture(scope="module")
def sweeping(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that sweeps all the time."""
    with serve(backend.environment(tmp_path_factory.mktemp("sweeping")), settings=QUICK) as server:
        yield server


@pytest.fixture
def view(sweeping: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    for name, value in sweeping.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    with outside(sweeping.environment) as view:
        yield view


def test_a_server_expires_old_versions_and_removes_orphans_by_itself(sweeping: Server, view: Outside) -> None:
    with sweeping.client() as client:
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="swept")
        memory = memories.create(store.id, path="/memory.md", content="old")
        for number in range(10):
            memories.update(memory.id, memory_store_id=store.id, content=f"version {number}")
        view.wait_until_moved()
        view.blobs.write(key(store.id, digest("orphan")), b"orphan")
        view.rows.execute(f"UPDATE memory_versions SET created_at = 0 WHERE store_id = '{store.id}'")
        expected = {digest(f"version {number}") for number in range(10)}
        until(lambda: view.blobs_of(store.id) == expected, "orphan and oldest version are gone, the newest ten are not")
        left = client.beta.memory_stores.memory_versions.list(store.id, memory_id=memory.id).data
        assert len(left) == 10


def test_a_server_moves_what_another_process_left_staged(sweeping: Server, view: Outside) -> None:
    async def write_and_go() -> str:
        async with opened(sweeping.environment) as parts:
            memory = await parts.create(await parts.store(), "left behind")
            parts.outside.rows.execute("UPDATE staged_contents SET staged_at = 0")
            return key(memory.store_id, memory.sha256)

    home = asyncio.run(write_and_go())
    until(lambda: home in view.blobs.all_keys(), "the content is moved")
    view.wait_until_moved()


def number(http: httpx2.Client, metric: str) -> float:
    """One of the metrics a server counts for itself."""
    found = re.search(rf"^{metric} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None, metric
    return float(found[1])


def test_two_servers_on_the_same_data_never_do_the_same_housekeeping(backend: Backend, tmp_path: Path) -> None:
    environment = backend.environment(tmp_path)
    with (
        serve(environment, settings=QUICK) as one,
        serve(one.environment) as other,
        one.http() as one_http,
        other.http() as other_http,
        one.client() as client,
        outside(environment) as view,
    ):
        stores = [client.beta.memory_stores.create(name="swept") for _ in range(4)]
        for store in stores:
            for count in range(8):
                content = f"content {count}"
                memory = client.beta.memory_stores.memories.create(store.id, path=f"/{count}.md", content=content)
                client.beta.memory_stores.memories.delete(memory.id, memory_store_id=store.id)
        view.wait_until_moved()
        view.rows.execute("UPDATE memory_versions SET created_at = 0")
        until(lambda: view.blobs.all_keys() == set(), "every content of the deleted memories is gone")
        until(lambda: view.rows.count("condemned_contents") == 0, "every removal is through")

        def both(metric: str) -> float:
            return number(one_http, metric) + number(other_http, metric)

        until(lambda: both("memstore_blobs_removed_total") >= 32, "each removal is counted")
        assert both("memstore_blobs_removed_total") == 32
        assert both("memstore_versions_expired_total") == 64
