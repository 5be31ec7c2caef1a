"""SQL of memory stores. A store with `deleted_at` set does not exist for any of these."""

from app.storage.rows.statements import Statement

_COLUMNS = "id, name, description, metadata, created_at, updated_at, archived_at"
_MINE = "workspace_id = :workspace_id AND deleted_at IS NULL"

COUNT_ONE_MORE = Statement(
    """
    UPDATE workspaces SET store_count = store_count + 1
     WHERE id = :workspace_id AND (:maximum = 0 OR store_count < :maximum)
    """
)
COUNT_ONE_LESS = Statement("UPDATE workspaces SET store_count = store_count - 1 WHERE id = :workspace_id")

INSERT = Statement(
    """
    INSERT INTO memory_stores (id, workspace_id, name, description, metadata, created_at, updated_at,
                               last_seq, memory_count, total_bytes)
    VALUES (:store_id, :workspace_id, :name, :description, :metadata, :now, :now, 0, 0, 0)
    """
)
FIND = Statement(f"SELECT {_COLUMNS} FROM memory_stores WHERE id = :store_id AND {_MINE}")
LOCK = Statement(f"SELECT {_COLUMNS}, held_at FROM memory_stores WHERE id = :store_id AND {_MINE} FOR UPDATE")
UPDATE = Statement(
    """
    UPDATE memory_stores
       SET name = :name, description = :description, metadata = :metadata, updated_at = :now
     WHERE id = :store_id
    """
)
ARCHIVE = Statement("UPDATE memory_stores SET archived_at = :now, updated_at = :now WHERE id = :store_id")
DELETE = Statement("UPDATE memory_stores SET deleted_at = :now WHERE id = :store_id")

FIND_HOLD = Statement(f"SELECT id, held_at, hold_reason FROM memory_stores WHERE id = :store_id AND {_MINE}")
LOCK_HOLD = Statement(f"{FIND_HOLD.sql} FOR UPDATE")
HOLD = Statement("UPDATE memory_stores SET held_at = :held_at, hold_reason = :reason WHERE id = :store_id")


def listing(*, include_archived: bool, continued: bool, backwards_from: bool, forwards_to: bool) -> Statement:
    """A page of stores, newest first, by the parts that its filters need."""
    conditions = [_MINE]
    if not include_archived:
        conditions.append("archived_at IS NULL")
    if backwards_from:
        conditions.append("created_at >= :created_from")
    if forwards_to:
        conditions.append("created_at <= :created_to")
    if continued:
        conditions.append("(created_at, id) < (:before, :before_id)")
    return Statement(
        f"""
        SELECT {_COLUMNS} FROM memory_stores WHERE {" AND ".join(conditions)}
         ORDER BY created_at DESC, id DESC LIMIT :limit
        """
    )


NAMED = Statement(
    """
    SELECT s.id, s.name, s.workspace_id, w.name AS workspace_name
      FROM memory_stores s JOIN workspaces w ON w.id = s.workspace_id
     WHERE s.deleted_at IS NULL AND (:workspace_id IS NULL OR s.workspace_id = :workspace_id)
       AND (s.name = :name OR s.name = :composed OR s.name = :decomposed OR (s.id >= :start AND s.id < :end))
     ORDER BY s.id LIMIT :limit
    """
)
"""The stores of every workspace, or of one, that a person at a terminal may mean by a name or the start of an ID."""
