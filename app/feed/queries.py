"""SQL of the change feed and of snapshots.

Each of these is one statement, and so sees one state of its store: `last_seq` and the rows beside it fit together.
"""

from app.storage.rows.statements import Statement

_MINE = "s.id = :store_id AND s.workspace_id = :workspace_id AND s.deleted_at IS NULL"
_CHANGE = (
    "v.seq, v.id, v.store_id, v.memory_id, v.operation, v.path, v.content_sha256, v.content_size, "
    "v.created_at, v.actor_type, v.actor_id, v.redacted_at"
)
_NEWER = f"""
    SELECT s.last_seq, {_CHANGE}
      FROM memory_stores s
      LEFT JOIN (SELECT * FROM memory_versions
                  WHERE store_id = :store_id AND seq > :seq ORDER BY seq LIMIT :limit) v ON v.store_id = s.id
     WHERE {{store}}
     ORDER BY v.seq
"""

PAGE = Statement(_NEWER.format(store=_MINE))
"""Changes after `:seq`, oldest first, each with the store's `last_seq`. One row with NULLs: none is there. No row:
there is no such store."""

NEWER = Statement(_NEWER.format(store="s.id = :store_id AND s.deleted_at IS NULL"))
"""The same for the process itself, which asks on behalf of readers that may read the store."""

LAST_SEQ = Statement(f"SELECT s.last_seq FROM memory_stores s WHERE {_MINE}")
LAST_SEQS = Statement("SELECT id, last_seq FROM memory_stores WHERE id IN_LIST(:store_ids) AND deleted_at IS NULL")

SNAPSHOT = Statement(
    f"""
    SELECT s.last_seq, s.archived_at AS store_archived_at, m.id, m.store_id, m.version_id, m.path,
           m.content_sha256, m.content_size, m.created_at, m.updated_at
      FROM memory_stores s LEFT JOIN memories m ON m.store_id = s.id
     WHERE {_MINE}
     ORDER BY m.path
    """
)
"""All memories of a store; one row with NULLs if it is empty."""

UNERASED = Statement(
    """
    SELECT v.id, t.content
      FROM memory_versions v
      LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256
     WHERE v.id IN_LIST(:version_ids) AND v.redacted_at IS NULL
    """
)
"""Those of some versions that still are, with their content where that is in the stage."""
