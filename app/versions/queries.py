"""SQL of memory versions."""

from collections.abc import Sequence

from app.storage.rows.statements import Statement

_COLUMNS = (
    "v.id, v.store_id, v.memory_id, v.operation, v.path, v.content_sha256, v.content_size, v.created_at, "
    "v.actor_type, v.actor_id, v.redacted_at, v.redacted_by_type, v.redacted_by_id, v.seq"
)
_IN_MY_STORE = "s.id = :store_id AND s.workspace_id = :workspace_id AND s.deleted_at IS NULL"
_STAGED = "LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256"

FILTERS = {
    "memory_id": "v.memory_id = :memory_id",
    "operation": "v.operation = :operation",
    # With the literal, the partial index of the versions that sessions wrote can serve.
    "session_id": "v.actor_type = 'session_actor' AND v.actor_id = :session_id",
    "actor_type": "v.actor_type = :actor_type",
    "actor_id": "v.actor_id = :actor_id",
    "created_from": "v.created_at >= :created_from",
    "created_to": "v.created_at <= :created_to",
    "seq": "v.seq < :seq",
}
"""The condition for each filter of a listing; `seq` continues after a page."""


def listing(filters: Sequence[str], *, with_content: bool) -> Statement:
    """A page of versions, newest first, by the filters that are set."""
    conditions = "".join(f" AND {FILTERS[name]}" for name in filters)
    return Statement(
        f"""
        SELECT {_COLUMNS}{", t.content" if with_content else ""}
          FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id {_STAGED if with_content else ""}
         WHERE {_IN_MY_STORE} AND v.store_id = :store_id{conditions}
         ORDER BY v.seq DESC LIMIT :limit
        """
    )


STORE_EXISTS = Statement(f"SELECT 1 AS found FROM memory_stores s WHERE {_IN_MY_STORE}")
FIND = Statement(
    f"""
    SELECT {_COLUMNS}, t.content
      FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id {_STAGED}
     WHERE v.id = :version_id AND {_IN_MY_STORE}
    """
)
LOCK_STORE = Statement(f"SELECT s.id, s.held_at FROM memory_stores s WHERE {_IN_MY_STORE} FOR UPDATE")
FIND_HEAD = Statement("SELECT version_id FROM memories WHERE id = :memory_id AND store_id = :store_id")
REDACT = Statement(
    """
    UPDATE memory_versions
       SET path = NULL, content_sha256 = NULL, content_size = NULL,
           redacted_at = :now, redacted_by_type = :actor_type, redacted_by_id = :actor_id
     WHERE store_id = :store_id AND seq = :seq
    """
)
