"""A request that a client sends again because its first answer was lost, and that had been carried out.

The official SDKs send a request again after a lost connection or a 5xx, and say so in `x-stainless-retry-count`. A
repeated create would meet its own memory as a conflict, a repeated delete a memory that is gone: both would fail
although they succeeded. So what the same author did a short while ago, exactly as it is asked for again, is the answer.
"""

from app.contract import clock
from app.contract.content import Content
from app.memories.writes import Parameters, Write
from app.storage.rows.database import Row, Transaction
from app.storage.rows.statements import Statement

WINDOW_MICROSECONDS = 15 * 60 * clock.MICROSECONDS_PER_SECOND
"""How long ago the first attempt may be: the SDKs wait ten minutes for an answer, and seconds between attempts."""

_CREATED = Statement(
    """
    SELECT m.id, m.store_id, m.version_id, m.path, m.content_sha256, m.content_size, m.created_at, m.updated_at
      FROM memories m JOIN memory_versions v ON v.id = m.version_id
     WHERE m.store_id = :store_id AND m.path = :path AND m.content_sha256 = :sha256
       AND v.operation = 1 AND v.actor_type = :actor_type AND v.actor_id = :actor_id AND v.created_at >= :before
    """
)
_DELETED = Statement(
    """
    SELECT v.id FROM memory_versions v
     WHERE v.store_id = :store_id AND v.memory_id = :memory_id
       AND v.operation = 3 AND v.actor_type = :actor_type AND v.actor_id = :actor_id AND v.created_at >= :before
    """
)


async def created_before(transaction: Transaction, write: Write, path: str, content: Content) -> Row | None:
    """The memory that the same author has just made with this path and content, and nobody changed since."""
    return await transaction.fetch_one(_CREATED, _sought(write) | {"path": path, "sha256": content.sha256})


async def was_deleted_before(transaction: Transaction, write: Write) -> bool:
    """Whether the same author has just deleted the memory."""
    return await transaction.fetch_one(_DELETED, _sought(write)) is not None


def _sought(write: Write) -> Parameters:
    return write.parameters() | {"before": write.now - WINDOW_MICROSECONDS}
