"""Erasing what the database holds, and looking whether it is gone."""

import itertools
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from app.contract import clock, ids
from app.erasure import digests, queries
from app.erasure.erasing import Erasing, Finding, Search
from app.erasure.labels import neutral_mount_path
from app.erasure.written import NEUTRAL_NAME
from app.storage.contents.collector import condemn_unless_referenced
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.erased import note_erased
from app.storage.rows.statements import Statement
from app.storage.rows.tables import DELETED
from app.storage.upkeep.deleted_stores import Purger
from app.stores.holds import refuse_if_held

_MEMORIES_AT_ONCE = 50
_BATCH = 5_000

KEPT_TEXTS = "kept_texts"
"""In the progress of an erasure: the records that hold the text and stay as they are."""


async def insert_digests(
    transaction: Transaction, job_id: str, salt: bytes, kind: str, identifiers: Iterable[str]
) -> None:
    """Note the digests of what is erased, in the transaction that erases it."""
    rows = [{"erasure_id": job_id, "kind": kind, "digest": one} for one in digests.digests(salt, identifiers)]
    if rows:
        await transaction.execute_many(queries.INSERT_DIGEST, rows)


# Memories and their versions


async def erase_rows(erasing: Erasing) -> list[str]:
    """Delete the live memories, redact every version, make the stores that go whole not exist for callers."""
    total, done = len(erasing.open_stores) + sum(map(len, erasing.open_memories.values())), 0
    for store_id in erasing.open_stores:
        await _end_store(erasing, store_id)
        done += 1
        erasing.note(f"rows: {done} of {total}")
    for store_id, memory_ids in erasing.open_memories.items():
        for start in range(0, len(memory_ids), _MEMORIES_AT_ONCE):
            part = memory_ids[start : start + _MEMORIES_AT_ONCE]
            await _erase_memories(erasing, store_id, part)
            done += len(part)
            erasing.note(f"rows: {done} of {total}")
    erasing.rows_gone = time.monotonic()
    return []


async def _end_store(erasing: Erasing, store_id: str) -> None:
    """From here on the store does not exist for callers, and its row says nothing of what it was."""

    async def work(transaction: Transaction) -> None:
        now = clock.now()
        store = await transaction.fetch_one(queries.LOCK_STORE, {"store_id": store_id})
        if store is not None:
            refuse_if_held(store)
            rows = await transaction.fetch_all(queries.VERSION_IDS, {"store_id": store_id})
            memory_ids, version_ids = {row["memory_id"] for row in rows}, [row["id"] for row in rows]
            await insert_digests(transaction, erasing.id, erasing.salt, digests.MEMORY, memory_ids)
            await insert_digests(transaction, erasing.id, erasing.salt, digests.VERSION, version_ids)
            await note_erased(transaction, store["workspace_id"], [(store_id, "")])
            await transaction.execute(queries.BLANK_STORE, {"store_id": store_id, "now": now})
            if store["deleted_at"] is None:
                await transaction.execute(queries.COUNT_ONE_LESS, {"workspace_id": store["workspace_id"]})
        elif (owner := await transaction.fetch_one(queries.OWNER, {"store_id": store_id})) is not None:
            await note_erased(transaction, owner["workspace_id"], [(store_id, "")])
        await transaction.execute(
            queries.DONE, {"erasure_id": erasing.id, "store_id": store_id, "memory_ids": [""], "now": now}
        )

    await erasing.storage.database.transact(work, store_id=store_id)


async def _erase_memories(erasing: Erasing, store_id: str, memory_ids: list[str]) -> None:
    async def work(transaction: Transaction) -> None:
        asked: dict[str, Any] = {
            "erasure_id": erasing.id,
            "store_id": store_id,
            "memory_ids": memory_ids,
            "now": clock.now(),
            "actor_type": erasing.actor.type,
            "actor_id": erasing.actor.id,
        }
        live = await transaction.fetch_all(queries.LOCK_MEMORIES, asked)
        store = await transaction.fetch_one(queries.LOCK_STORE, asked)
        if store is not None:
            refuse_if_held(store)
            await _delete_live(transaction, asked, store, live)
            versions = await transaction.fetch_all(queries.VERSIONS_OF, asked)
            await insert_digests(transaction, erasing.id, erasing.salt, digests.MEMORY, memory_ids)
            await insert_digests(
                transaction, erasing.id, erasing.salt, digests.VERSION, (row["id"] for row in versions)
            )
            await note_erased(transaction, store["workspace_id"], [(store_id, one) for one in memory_ids])
            await transaction.execute(queries.REDACT, asked)
            for sha256 in sorted({bytes(row["content_sha256"]) for row in versions if row["content_sha256"]}):
                await condemn_unless_referenced(transaction, store_id, sha256)
        await transaction.execute(queries.DONE, asked)

    await erasing.storage.database.transact(work, store_id=store_id)


async def _delete_live(transaction: Transaction, asked: dict[str, Any], store: Row, live: Sequence[Row]) -> None:
    """Delete memories as a caller would, so that readers of the store's feed hear of it."""
    if not live:
        return
    await transaction.execute(
        queries.INSERT_TOMBSTONES,
        {
            **asked,
            "last_seq": store["last_seq"],
            "memory_ids": [row["id"] for row in live],
            "version_ids": [ids.new(ids.VERSION) for _ in live],
            "operation": DELETED,
        },
    )
    await transaction.execute(queries.DELETE_MEMORIES, asked)
    size = sum(row["content_size"] for row in live)
    await transaction.execute(queries.COUNT, {**asked, "count": len(live), "bytes": size})


async def find_rows(search: Search) -> AsyncIterator[Finding]:
    """Memories that are still there, and versions that still say something."""
    database = search.storage.database
    async for row in _walk(database, queries.ALL_MEMORIES):
        if search.is_erased_store(row["store_id"]) or search.is_erased_memory(row["id"]):
            yield Finding("memories", row["id"])
    async for row in _walk(database, queries.ALL_VERSIONS):
        erased = search.is_erased_memory(row["memory_id"]) or search.is_erased_version(row["id"])
        if search.is_erased_store(row["store_id"]) or (erased and not row["redacted"]):
            yield Finding("versions", row["id"])


# Stores


async def erase_stores(erasing: Erasing) -> list[str]:
    """Remove the stores that go whole: stage, memories, versions, blobs, and at last the row."""
    purger = Purger(erasing.storage.database, erasing.storage.blobs)
    for number, store_id in enumerate(erasing.stores, start=1):
        await purger.purge_store(store_id)
        erasing.note(f"stores: {number} of {len(erasing.stores)}")
    return []


async def find_stores(search: Search) -> AsyncIterator[Finding]:
    """Rows of erased stores."""
    async for row in _walk(search.storage.database, queries.ALL_STORE_IDS):
        if search.is_erased_store(row["id"]):
            yield Finding("stores", row["id"])


# Jobs


async def erase_jobs(erasing: Erasing) -> list[str]:
    """Remove what waits to be done, or is kept as done, about what is erased."""

    async def work(transaction: Transaction) -> None:
        await transaction.execute(queries.DELETE_JOBS_ABOUT, {"erasure_id": erasing.id})

    await erasing.storage.database.transact(work)
    return []


async def find_jobs(search: Search) -> AsyncIterator[Finding]:
    """Jobs that name an erased store, memory or version."""
    async for row in _walk(search.storage.database, queries.ALL_JOBS):
        about = row["subject"]
        if search.is_erased_store(about) or search.is_erased_memory(about) or search.is_erased_version(about):
            yield Finding("jobs", row["id"])


# Sessions


async def erase_session_details(erasing: Erasing) -> list[str]:
    """Replace what sessions remember of an erased store; that it was attached stays."""
    for store_id in erasing.stores:

        async def work(transaction: Transaction, store_id: str = store_id) -> None:
            neutral = {"store_id": store_id, "name": NEUTRAL_NAME, "mount_path": neutral_mount_path(store_id)}
            await transaction.execute(queries.BLANK_RESOURCES, neutral)

        await erasing.storage.database.transact(work)
    return []


async def find_session_details(search: Search) -> AsyncIterator[Finding]:
    """Sessions that still know what an erased store was called."""
    for row in await search.storage.database.fetch_all(queries.ALL_RESOURCES, {}):
        store_id = row["store_id"]
        shown = (row["name"], row["description"], row["instructions"], row["mount_path"])
        if search.is_erased_store(store_id) and shown != (NEUTRAL_NAME, "", None, neutral_mount_path(store_id)):
            yield Finding("sessions", f"what a session keeps of {store_id}")


# What stands around the memories


async def name_kept_texts(erasing: Erasing) -> list[str]:
    """Nothing is left to do: these texts went with the beginning. What holds the text and is in use is named."""
    return [
        f"{one['kind']} {one['id']} is in use and keeps the text: {', '.join(one['kept'])}; change it and erase again"
        for one in erasing.progress.get(KEPT_TEXTS, ())
    ]


# The stage


async def erase_stage(erasing: Erasing) -> list[str]:
    """Remove staged contents that no version has. Those of erased versions went with the rows."""
    for store_id in itertools.chain(erasing.within, erasing.stores):

        async def work(transaction: Transaction, store_id: str = store_id) -> None:
            await transaction.fetch_one(queries.LOCK_STORE, {"store_id": store_id})
            await transaction.execute(queries.UNSTAGE_UNREFERENCED, {"store_id": store_id})

        await erasing.storage.database.transact(work)
    return []


async def find_staged(search: Search) -> AsyncIterator[Finding]:
    """Staged contents of erased stores, and of erased versions unless another version has the same content."""
    async for row in _walk(search.storage.database, queries.ALL_STAGED):
        gone = search.is_erased_version(row["id"]) and not row["referenced"]
        if gone or search.is_erased_store(row["store_id"]):
            yield Finding("stage", row["id"])


async def _walk(database: Database, statement: Statement) -> AsyncIterator[Row]:
    """Every row of a statement that continues after an ID."""
    after = ""
    while rows := await database.fetch_all(statement, {"after": after, "limit": _BATCH}):
        after = rows[-1]["id"]
        for row in rows:
            yield row
