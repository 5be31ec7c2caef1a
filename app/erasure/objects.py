"""Erasing what the blob store holds, and looking whether it is gone."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

from app.erasure import queries
from app.erasure.erasing import Erasing, Finding, Search
from app.storage.contents.blobs import BlobStore
from app.storage.contents.collector import Collector
from app.storage.contents.object_versions import ObjectVersion, VersionsOutOfReach
from app.storage.rows.database import Database
from app.storage.upkeep.installation import SharedBlobStore
from app.storage.upkeep.orphans import Orphans

_CLAIM_SECONDS = 150.0
"""Longer than another process's claim on a condemned content lasts."""
_LOOK_SECONDS = 0.2


async def erase_blobs(erasing: Erasing) -> list[str]:
    """Remove every blob of the stores that go whole, and in the others every blob that no version has."""
    storage = erasing.storage
    for store_id in erasing.stores:
        await storage.blobs.remove_store(store_id)
    orphans = Orphans(storage.database, storage.blobs, grace_seconds=0)
    unreached = []
    try:
        for blob in await orphans.find(erasing.within):
            await orphans.condemn(blob)
    except SharedBlobStore as error:
        unreached.append(str(error))
    collector = Collector(storage.database, storage.blobs)
    deadline = time.monotonic() + _CLAIM_SECONDS
    await collector.collect()
    while await _condemned(erasing):
        # Another process has said that it removes them. Only it may, until its claim runs out.
        if time.monotonic() > deadline:
            unreached.append("blobs that another process has claimed and not removed; a server's sweeper removes them")
            break
        erasing.note("blobs: waiting for another process that is removing some")
        await asyncio.sleep(_LOOK_SECONDS)
        await collector.collect()
    return unreached


async def _condemned(erasing: Erasing) -> bool:
    for store_id in itertools.chain(erasing.within, erasing.stores):
        if await erasing.storage.database.fetch_one(queries.CONDEMNED, {"store_id": store_id}):
            return True
    return False


async def find_blobs(search: Search) -> AsyncIterator[Finding]:
    """Blobs of erased stores; blobs without a version in stores that lost memories."""
    storage = search.storage
    touched = []
    for store_id in await storage.blobs.list_store_ids():
        if search.is_erased_store(store_id):
            for blob in await storage.blobs.list_store(store_id):
                yield Finding("blobs", f"{store_id}/{blob.sha256.hex()}")
        elif search.is_touched_store(store_id):
            touched.append(store_id)
    for blob in await Orphans(storage.database, storage.blobs, grace_seconds=0).find(touched):
        yield Finding("blobs", f"{blob.store_id}/{blob.sha256.hex()}")


async def erase_object_versions(erasing: Erasing) -> list[str]:
    """Remove old object versions and delete markers, on S3.

    In a store that lost memories only those of contents that no version has now: which ones were of the erased
    memories, nothing refers to. The others hold what a version has.
    """
    versions = erasing.storage.blobs.object_versions
    if versions is None:
        return []
    try:
        for store_id in erasing.stores:
            await versions.remove(await versions.of_store(store_id))
        for store_id in erasing.within:
            await versions.remove(await _unreferenced(erasing.storage.database, erasing.storage.blobs, store_id))
    except VersionsOutOfReach as error:
        return [f"object versions: {error}"]
    return []


async def find_object_versions(search: Search) -> AsyncIterator[Finding]:
    """Object versions and delete markers of what was erased."""
    storage = search.storage
    if storage.blobs.object_versions is None:
        return
    for store_id in sorted({version.store_id for version in await storage.blobs.object_versions.of_all()}):
        if search.is_erased_store(store_id):
            found = await storage.blobs.object_versions.of_store(store_id)
        elif search.is_touched_store(store_id):
            found = await _unreferenced(storage.database, storage.blobs, store_id)
        else:
            continue
        for version in found:
            yield Finding("object versions", f"{version.key} version {version.version_id}")


async def _unreferenced(database: Database, blobs: BlobStore, store_id: str) -> list[ObjectVersion]:
    """What is old, and of a content that no version has.

    The latest version of an object is left to those who collect blobs: without versioning its ID does not change when
    somebody brings the content back.
    """
    assert blobs.object_versions is not None
    versions = await blobs.object_versions.of_store(store_id)
    rows = await database.fetch_all(queries.REFERENCED, {"store_id": store_id})
    known = {bytes(row["content_sha256"]).hex() for row in rows}
    return [v for v in versions if v.name not in known and (v.is_marker or not v.is_latest)]
