"""What was erased, by its ID: so that a caller whose memory is not there learns that it must not bring it back.

An ID is kept as its digest alone. IDs have 80 random bits, so nobody finds one by trying, and a caller learns only
about an ID that it names, in its own workspace.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence

from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.statements import Statement
from app.storage.rows.tables import DELETED

_INSERT = Statement(
    """
    INSERT INTO erased_ids (digest, workspace_id) VALUES (:digest, :workspace_id) ON CONFLICT (digest) DO NOTHING
    """
)
_AMONG = Statement("SELECT digest, workspace_id FROM erased_ids WHERE digest IN_LIST(:digests)")

Subject = tuple[str, str]
"""A store's ID and a memory's; the second is empty for the store itself."""


def _digest(subject: Subject) -> str:
    return hashlib.sha256("erased\0{}\0{}".format(*subject).encode()).hexdigest()


async def note_erased(transaction: Transaction, workspace_id: str, subjects: Iterable[Subject]) -> None:
    """Keep, in the transaction that erases them, that these were erased."""
    rows = [{"digest": _digest(subject), "workspace_id": workspace_id} for subject in subjects]
    if rows:
        await transaction.execute_many(_INSERT, rows)


async def was_erased(database: Database, workspace_id: str, subjects: Sequence[Subject]) -> bool:
    """Whether any of these was erased from this workspace."""
    rows = await database.fetch_all(_AMONG, {"digests": [_digest(subject) for subject in subjects]})
    return any(row["workspace_id"] == workspace_id for row in rows)


async def erased_deletions(database: Database, changes: Collection[Row]) -> frozenset[str]:
    """The IDs of those versions that are the deletion of an erased memory.

    Only a redacted deletion can be one, so the database is asked where a redacted deletion is among the changes.
    """
    digests = {
        row["id"]: _digest((row["store_id"], row["memory_id"]))
        for row in changes
        if row["operation"] == DELETED and row["redacted_at"] is not None
    }
    if not digests:
        return frozenset()
    found = {row["digest"] for row in await database.fetch_all(_AMONG, {"digests": sorted(set(digests.values()))})}
    return frozenset(version_id for version_id, digest in digests.items() if digest in found)
