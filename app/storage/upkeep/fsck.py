"""Checking that rows, contents and counters agree, even on a running service.

Kinds of findings:

- `missing_content`: a version or head whose content is neither staged nor in the blob store;
- `corrupt_blob`: a blob whose bytes do not have the digest in its name;
- `orphaned_blob`: a blob that no version has;
- `broken_head`: a memory whose head version is not there, or does not have the memory's path and digest;
- `wrong_counter`: a counter of a store or workspace that does not match its rows;
- `shared_blob_store`: another installation's blobs are in the same place, so orphans can't be told.

What a running service does meanwhile can look like any of them, so everything found is looked at again at the end,
and counters are compared under the store's lock.
"""

import asyncio
import hashlib
from dataclasses import dataclass

from app.contract import ids
from app.storage.contents.blobs import BlobInfo, BlobStore
from app.storage.contents.collector import LOCK_STORE, Collector
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.statements import Statement
from app.storage.upkeep.installation import SharedBlobStore
from app.storage.upkeep.orphans import Orphans

_BATCH = 500
_SECOND_LOOK_SECONDS = 0.5

_STORES = Statement(
    """
    SELECT id, last_seq FROM memory_stores
     WHERE deleted_at IS NULL AND id > :store_id AND id < :last_id ORDER BY id LIMIT :limit
    """
)
_CONTENTS = Statement(
    """
    SELECT v.seq, v.id, v.content_sha256, v.content_size, t.content
      FROM memory_versions v
      LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256
     WHERE v.store_id = :store_id AND v.seq > :seq AND v.seq <= :last_seq AND v.content_sha256 IS NOT NULL
     ORDER BY v.seq LIMIT :limit
    """
)
_BROKEN_HEADS = Statement(
    """
    SELECT m.id, m.path FROM memories m
     WHERE m.store_id = :store_id
       AND NOT EXISTS (SELECT 1 FROM memory_versions v
                        WHERE v.id = m.version_id AND v.store_id = m.store_id AND v.memory_id = m.id
                          AND v.path = m.path AND v.content_sha256 = m.content_sha256
                          AND v.content_size = m.content_size)
    """
)
_COUNTERS = Statement(
    """
    SELECT s.memory_count, s.total_bytes, s.last_seq,
           (SELECT count(*) FROM memories m WHERE m.store_id = s.id) AS real_count,
           (SELECT coalesce(sum(m.content_size), 0) FROM memories m WHERE m.store_id = s.id) AS real_bytes,
           (SELECT coalesce(max(v.seq), 0) FROM memory_versions v WHERE v.store_id = s.id) AS newest_seq
      FROM memory_stores s WHERE s.id = :store_id AND s.deleted_at IS NULL
    """
)
_SET_COUNTERS = Statement(
    """
    UPDATE memory_stores SET memory_count = :count, total_bytes = :bytes, last_seq = :seq WHERE id = :store_id
    """
)
_WORKSPACES = Statement(
    """
    SELECT w.id, w.store_count,
           (SELECT count(*) FROM memory_stores s
             WHERE s.workspace_id = w.id AND s.deleted_at IS NULL) AS real_count
      FROM workspaces w
     WHERE w.store_count <> (SELECT count(*) FROM memory_stores s
                              WHERE s.workspace_id = w.id AND s.deleted_at IS NULL)
    """
)
_SET_STORE_COUNT = Statement(
    """
    UPDATE workspaces SET store_count = (SELECT count(*) FROM memory_stores s
                                          WHERE s.workspace_id = workspaces.id AND s.deleted_at IS NULL)
     WHERE id = :workspace_id
    """
)


@dataclass(slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    store_id: str
    detail: str
    repaired: bool = False


class Fsck:
    """One check of everything. `run` may be called on a service that is being used."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._orphans = Orphans(database, blobs, grace_seconds=0)

    async def run(self, *, repair: bool) -> list[Finding]:
        """Everything that is wrong; with `repair`, repaired where that is possible.

        Counters are recounted and orphaned blobs removed. Content that is gone can't be brought back.
        """
        findings: list[Finding] = []
        # What comes while the check runs is not its business; otherwise it might never end.
        store_id, last_id = "", ids.new(ids.STORE)
        while rows := await self._database.fetch_all(
            _STORES, {"store_id": store_id, "last_id": last_id, "limit": _BATCH}
        ):
            for row in rows:
                store_id = row["id"]
                findings += await self._check_store(store_id, row["last_seq"], repair=repair)
        findings += await self._check_workspaces(repair=repair)
        findings += await self._check_orphans(repair=repair)
        return findings

    async def _check_store(self, store_id: str, last_seq: int, *, repair: bool) -> list[Finding]:
        found = await self._check_rows(store_id, last_seq)
        if found:
            # Only what both looks found is wrong: each alone may have met a version that was being erased.
            await asyncio.sleep(_SECOND_LOOK_SECONDS)
            again = await self._check_rows(store_id, last_seq)
            found = [finding for finding in again if finding in found]
        return found + await self._check_counters(store_id, repair=repair)

    async def _check_rows(self, store_id: str, last_seq: int) -> list[Finding]:
        broken_heads = [
            Finding("broken_head", store_id, f"memory {row['id']} at {row['path']!r} does not match its head version")
            for row in await self._broken_heads(store_id)
        ]
        return await self._check_contents(store_id, last_seq) + broken_heads

    async def _check_contents(self, store_id: str, last_seq: int) -> list[Finding]:
        findings: list[Finding] = []
        seen: dict[bytes, str | None] = {}
        seq = 0
        while rows := await self._database.fetch_all(
            _CONTENTS, {"store_id": store_id, "seq": seq, "last_seq": last_seq, "limit": _BATCH}
        ):
            seq = rows[-1]["seq"]
            await self._judge([row for row in rows if bytes(row["content_sha256"]) not in seen], store_id, seen)
            for row in rows:
                kind = seen[bytes(row["content_sha256"])]
                if kind is not None:
                    digest = row["content_sha256"].hex()
                    findings.append(Finding(kind, store_id, f"version {row['id']}: content {digest}"))
        return findings

    async def _judge(self, rows: list[Row], store_id: str, verdicts: dict[bytes, str | None]) -> None:
        """Note for each content what is wrong with it, or None."""
        unstaged = []
        for row in rows:
            sha256 = bytes(row["content_sha256"])
            if row["content"] is None:
                unstaged.append(sha256)
            else:
                verdicts[sha256] = _verdict(sha256, bytes(row["content"]))
        wanted = [(store_id, sha256) for sha256 in dict.fromkeys(unstaged)]
        for (_, sha256), content in zip(wanted, await self._blobs.get_many(wanted), strict=True):
            verdicts[sha256] = _verdict(sha256, content)

    async def _broken_heads(self, store_id: str) -> list[Row]:
        return list(await self._database.fetch_all(_BROKEN_HEADS, {"store_id": store_id}))

    async def _check_counters(self, store_id: str, *, repair: bool) -> list[Finding]:
        async def work(transaction: Transaction) -> list[Finding]:
            await transaction.fetch_one(LOCK_STORE, {"store_id": store_id})
            row = await transaction.fetch_one(_COUNTERS, {"store_id": store_id})
            if row is None:
                return []
            wrong = [
                f"{name} is {row[name]}, counted {row[real]}"
                for name, real in (("memory_count", "real_count"), ("total_bytes", "real_bytes"))
                if row[name] != row[real]
            ]
            # Retention may have removed the newest versions of deleted memories, so only too small is wrong.
            if row["last_seq"] < row["newest_seq"]:
                wrong.append(f"last_seq is {row['last_seq']}, the newest version has {row['newest_seq']}")
            if wrong and repair:
                await transaction.execute(
                    _SET_COUNTERS,
                    {
                        "store_id": store_id,
                        "count": row["real_count"],
                        "bytes": int(row["real_bytes"]),
                        "seq": max(row["last_seq"], row["newest_seq"]),
                    },
                )
            return [Finding("wrong_counter", store_id, detail, repair) for detail in wrong]

        return await self._database.transact(work, store_id=store_id)

    async def _check_workspaces(self, *, repair: bool) -> list[Finding]:
        findings = []
        for row in await self._database.fetch_all(_WORKSPACES, {}):
            workspace_id = row["id"]
            detail = f"workspace {workspace_id}: store_count is {row['store_count']}, counted {row['real_count']}"
            findings.append(Finding("wrong_counter", "", detail, repair))
            if repair:
                await self._recount_stores(workspace_id)
        return findings

    async def _recount_stores(self, workspace_id: str) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.execute(_SET_STORE_COUNT, {"workspace_id": workspace_id})

        await self._database.transact(work)

    async def _check_orphans(self, *, repair: bool) -> list[Finding]:
        try:
            orphans = await self._orphans.find()
        except SharedBlobStore as error:
            return [Finding("shared_blob_store", "", error.message)]
        if orphans:
            await asyncio.sleep(_SECOND_LOOK_SECONDS)
            still = {(blob.store_id, blob.sha256) for blob in await self._orphans.find()}
            orphans = [blob for blob in orphans if (blob.store_id, blob.sha256) in still]
        findings = [_orphaned(blob, repair) for blob in orphans]
        if repair and orphans:
            for blob in orphans:
                await self._orphans.condemn(blob)
            await Collector(self._database, self._blobs).collect()
        return findings


def _verdict(sha256: bytes, content: bytes | None) -> str | None:
    if content is None:
        return "missing_content"
    return None if hashlib.sha256(content).digest() == sha256 else "corrupt_blob"


def _orphaned(blob: BlobInfo, repaired: bool) -> Finding:
    return Finding(
        "orphaned_blob",
        blob.store_id,
        f"blob {blob.sha256.hex()} of {blob.size} bytes has no version",
        repaired,
    )
