"""Blobs that no version refers to: found only past the grace period, and never by mistake."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from app.storage.contents.blobs import BlobInfo
from app.storage.upkeep.installation import SharedBlobStore
from tests.storage.outside import Rows, digest, key
from tests.storage.parts import Parts, opened
from tests.support.backends import SQLITE_DISK, Backend
from tests.support.servers import run_cli

pytestmark = pytest.mark.anyio

ORPHAN = digest("orphan")


def plant(parts: Parts, store_id: str) -> str:
    """A blob that nothing refers to; its key."""
    where = key(store_id, ORPHAN)
    parts.outside.blobs.write(where, b"orphan")
    return where


async def test_an_orphan_is_removed_and_the_blobs_of_versions_stay(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    await parts.move_all()
    plant(parts, memory.store_id)
    assert await parts.orphans(grace_seconds=0).condemn_all() == 1
    assert await parts.collector().collect() == 1
    assert parts.outside.blobs_of(memory.store_id) == {memory.sha256}
    assert await parts.read(memory) == "content"


async def test_an_orphan_of_a_store_that_is_not_there_is_removed(parts: Parts) -> None:
    plant(parts, "memstore_gone")
    assert await parts.orphans(grace_seconds=0).condemn_all() == 1
    assert await parts.collector().collect() == 1
    assert parts.outside.blobs.all_keys() == set()


async def test_an_orphan_stays_within_its_grace_period(parts: Parts) -> None:
    where = plant(parts, await parts.store())
    assert await parts.orphans(grace_seconds=3600).condemn_all() == 0
    assert parts.outside.blobs.all_keys() == {where}


async def test_the_grace_period_counts_from_the_blobs_last_write(parts: Parts, backend: Backend) -> None:
    where = plant(parts, await parts.store())
    if backend.name != SQLITE_DISK:
        (orphan,) = await parts.orphans(grace_seconds=0).find()
        assert orphan.modified is not None
        assert abs(orphan.modified - time.time()) < 3600
        return  # nobody can date an S3 object back
    root = Path(parts.storage.blobs.root)
    for seconds, expected in ((3000, 0), (4000, 1)):
        os.utime(root / where, (time.time() - seconds, time.time() - seconds))
        assert len(await parts.orphans(grace_seconds=3600).find()) == expected


async def test_staged_and_condemned_contents_are_no_orphans(parts: Parts) -> None:
    staged = await parts.create(await parts.store(), "staged")
    condemned = await parts.create_past("condemned")
    await parts.redact(condemned)
    # As if a mover had put them and not come any further.
    await parts.blobs.put_many([(*version.reference, version.content.encode()) for version in (staged, condemned)])
    assert await parts.orphans(grace_seconds=0).find() == []


async def test_an_orphan_whose_content_is_written_meanwhile_stays(parts: Parts) -> None:
    store_id = await parts.store()
    plant(parts, store_id)
    (orphan,) = await parts.orphans(grace_seconds=0).find()
    memory = await parts.create(store_id, "orphan")
    await parts.move_all()
    assert not await parts.orphans(grace_seconds=0).condemn(orphan)
    assert await parts.collector().collect() == 0
    assert await parts.read(memory) == "orphan"


async def test_an_orphan_condemned_by_two_is_removed_once(parts: Parts) -> None:
    store_id = await parts.store()
    plant(parts, store_id)
    orphan = BlobInfo(store_id, bytes.fromhex(ORPHAN), 6, None)
    orphans = parts.orphans(grace_seconds=0)
    assert [await orphans.condemn(orphan), await orphans.condemn(orphan)] == [True, True]
    assert await parts.collector().collect() == 1
    assert parts.outside.blobs.all_keys() == set()


async def test_the_blobs_of_another_installation_in_the_same_place_are_never_taken_for_orphans(
    parts: Parts, environment: dict[str, str]
) -> None:
    memory = await parts.create(await parts.store(), "content")
    await parts.move_all()
    assert await parts.orphans(grace_seconds=0).condemn_all() == 0
    # A second installation: another database, the same blobs.
    (installation,) = parts.outside.rows.execute("SELECT id FROM installation")
    parts.outside.rows.execute("UPDATE installation SET id = 'another'")
    try:
        with pytest.raises(SharedBlobStore, match="of its own"):
            await parts.orphans(grace_seconds=0).condemn_all()
        assert [finding.kind for finding in await parts.check(repair=True)] == ["shared_blob_store"]
    finally:
        parts.outside.rows.execute(f"UPDATE installation SET id = '{installation[0]}'")
    assert parts.outside.blobs_of(memory.store_id) == {memory.sha256}


def test_a_sweep_does_everything_once_and_a_second_one_nothing(environment: dict[str, str]) -> None:
    async def leave_work_behind() -> None:
        async with opened(environment) as parts:
            store_id = await parts.store()
            await parts.create(store_id, "staged")
            past = await parts.create_past("past", path="/past.md", store_id=store_id)
            await parts.redact(past)
            deleted = await parts.create(await parts.store(), "of a deleted store")
            await parts.stores.delete(parts.caller, deleted.store_id)
            plant(parts, store_id)
            old = await parts.create(store_id, "old", "/old.md")
            await parts.delete(old)
            old_time = f"created_at = 0 WHERE memory_id = '{old.memory_id}'"
            parts.outside.rows.execute(f"UPDATE memory_versions SET {old_time}")

    asyncio.run(leave_work_behind())
    settings = environment | {"MEMSTORE_ORPHAN_GRACE_SECONDS": "0"}
    did = run_cli(settings, "sweep").stdout
    numbers = dict(line.split(": ") for line in did.splitlines())
    assert numbers == {
        "moved": "4",
        "stores purged": "1",
        "versions expired": "2",
        "orphans condemned": "1",
        "blobs removed": "3",
    }
    again = run_cli(settings, "sweep").stdout
    assert {line.partition(": ")[2] for line in again.splitlines()} == {"0"}
    assert json.loads(run_cli(settings, "fsck", "--json").stdout) == {"ok": True, "findings": []}
    assert Rows(environment).count("staged_contents") == 0


@pytest.mark.any_backend
async def test_many_stores_are_looked_at_by_a_few_statements_and_each_orphan_is_its_own_stores(parts: Parts) -> None:
    memories = [await parts.create(await parts.store(), "content of many stores") for _ in range(30)]
    await parts.move_all()
    # What is a version's content in the other stores is an orphan in a store that is not there.
    parts.outside.blobs.write(key("memstore_gone", memories[0].sha256), b"content of many stores")
    plant(parts, memories[7].store_id)
    read, statements = parts.storage.database.fetch_all, 0

    async def counted(*arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        return await read(*arguments)

    parts.storage.database.fetch_all = counted  # type: ignore[method-assign, assignment]
    found = await parts.orphans(grace_seconds=0).find()
    parts.storage.database.fetch_all = read  # type: ignore[method-assign]
    assert {(blob.store_id, blob.sha256.hex()) for blob in found} == {
        ("memstore_gone", memories[0].sha256),
        (memories[7].store_id, ORPHAN),
    }
    assert statements <= 3
    assert await parts.orphans(grace_seconds=0).condemn_all() == 2
    await parts.collector().collect()
    assert [await parts.read(memory) for memory in memories] == ["content of many stores"] * 30
