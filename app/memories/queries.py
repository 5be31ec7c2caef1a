"""SQL of memories.

Locks are always taken in one order: the memory's row, then its store's row. Holding the store's row serialises
all mutations of the store; whatever must be seen as it is *now* (path conflicts) is read in a later statement,
because a single statement's snapshot is older than the lock it waits for.
"""

from app.storage.statements import Batch, Statement

_COLUMNS = "m.id, m.store_id, m.version_id, m.path, m.content_sha256, m.content_size, m.created_at, m.updated_at"
_IN_MY_STORE = "s.id = :store_id AND s.workspace_id = :workspace_id AND s.deleted_at IS NULL"
_STAGED = "staged_contents t ON t.store_id = m.store_id AND t.content_sha256 = m.content_sha256"

FIND = Statement(
    f"""
    SELECT {_COLUMNS} FROM memories m JOIN memory_stores s ON s.id = m.store_id
     WHERE m.id = :memory_id AND {_IN_MY_STORE}
    """
)
FIND_WITH_CONTENT = Statement(
    f"""
    SELECT {_COLUMNS}, t.content
      FROM memories m JOIN memory_stores s ON s.id = m.store_id LEFT JOIN {_STAGED}
     WHERE m.id = :memory_id AND {_IN_MY_STORE}
    """
)
STORE_EXISTS = Statement(f"SELECT 1 AS found FROM memory_stores s WHERE {_IN_MY_STORE}")

LOCK = Statement(f"SELECT {_COLUMNS} FROM memories m WHERE m.id = :memory_id AND m.store_id = :store_id FOR UPDATE")
LOCK_STORE = Statement(
    f"""
    SELECT s.archived_at, s.last_seq, s.memory_count, s.total_bytes FROM memory_stores s
     WHERE {_IN_MY_STORE} FOR UPDATE
    """
)
FIND_CONFLICT = Statement(
    """
    SELECT id, path FROM memories
     WHERE store_id = :store_id AND path IN_LIST(:paths) AND id <> :memory_id
    UNION ALL
    SELECT d.id, d.path
      FROM (SELECT id, path FROM memories
             WHERE store_id = :store_id AND path > :below AND path < :below_end AND id <> :memory_id
             ORDER BY path LIMIT 1) AS d
     LIMIT 1
    """
)
"""A memory in the way of a path: at it or above it (`paths`), or below it."""

_COUNT = Statement(
    """
    UPDATE memory_stores
       SET last_seq = :seq, memory_count = memory_count + :count_change, total_bytes = total_bytes + :bytes_change
     WHERE id = :store_id
    """
)
_INSERT_VERSION = Statement(
    """
    INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, content_sha256, content_size,
                                 created_at, actor_type, actor_id)
    VALUES (:store_id, :seq, :version_id, :memory_id, :operation, :path, :sha256, :size,
            :now, :actor_type, :actor_id)
    """
)
_STAGE = Statement(
    """
    INSERT INTO staged_contents (version_id, store_id, content_sha256, content, staged_at)
    VALUES (:version_id, :store_id, :sha256, :content, :now)
    ON CONFLICT (store_id, content_sha256) DO NOTHING
    """
)
_INSERT = Statement(
    """
    INSERT INTO memories (id, store_id, path, content_sha256, content_size, version_id, created_at, updated_at)
    VALUES (:memory_id, :store_id, :path, :sha256, :size, :version_id, :now, :now)
    """
)
_UPDATE = Statement(
    """
    UPDATE memories
       SET path = :path, content_sha256 = :sha256, content_size = :size, version_id = :version_id, updated_at = :now
     WHERE id = :memory_id
    """
)
_DELETE = Statement("DELETE FROM memories WHERE id = :memory_id")

CREATE = Batch(_COUNT, _INSERT, _INSERT_VERSION, _STAGE)
CHANGE = Batch(_COUNT, _UPDATE, _INSERT_VERSION, _STAGE)
RENAME = Batch(_COUNT, _UPDATE, _INSERT_VERSION)
DELETE = Batch(_COUNT, _DELETE, _INSERT_VERSION)

CHANGE_CONTENT_AT_ONCE = Statement(
    f"""
    WITH cur AS (
        SELECT {_COLUMNS} FROM memories m WHERE m.id = :memory_id AND m.store_id = :store_id FOR UPDATE
    ), st AS (
        UPDATE memory_stores s
           SET last_seq = s.last_seq + 1, total_bytes = s.total_bytes + :size - cur.content_size
          FROM cur
         WHERE {_IN_MY_STORE} AND s.archived_at IS NULL
           AND cur.content_sha256 <> :sha256
           AND (:expected_sha256 IS NULL OR cur.content_sha256 = :expected_sha256)
           AND (:size <= cur.content_size OR s.total_bytes + :size - cur.content_size <= :maximum)
     RETURNING s.last_seq
    ), version AS (
        INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, content_sha256, content_size,
                                     created_at, actor_type, actor_id)
        SELECT :store_id, st.last_seq, :version_id, cur.id, 2, cur.path, :sha256, :size,
               :now, :actor_type, :actor_id
          FROM cur, st
    ), staged AS (
        INSERT INTO staged_contents (version_id, store_id, content_sha256, content, staged_at)
        SELECT :version_id, :store_id, :sha256, :content, :now FROM st
        ON CONFLICT (store_id, content_sha256) DO NOTHING
    )
    UPDATE memories m
       SET content_sha256 = :sha256, content_size = :size, version_id = :version_id, updated_at = :now
      FROM cur, st
     WHERE m.id = cur.id
    RETURNING {_COLUMNS}
    """
)
"""PostgreSQL only: a change of content as one statement. No row: something is in the way; `LOCK` and look."""

DELETE_AT_ONCE = Statement(
    f"""
    WITH cur AS (
        SELECT {_COLUMNS} FROM memories m WHERE m.id = :memory_id AND m.store_id = :store_id FOR UPDATE
    ), st AS (
        UPDATE memory_stores s
           SET last_seq = s.last_seq + 1, memory_count = s.memory_count - 1,
               total_bytes = s.total_bytes - cur.content_size
          FROM cur
         WHERE {_IN_MY_STORE} AND (:expected_sha256 IS NULL OR cur.content_sha256 = :expected_sha256)
     RETURNING s.last_seq
    ), version AS (
        INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, created_at, actor_type, actor_id)
        SELECT :store_id, st.last_seq, :version_id, cur.id, 3, cur.path, :now, :actor_type, :actor_id
          FROM cur, st
    )
    DELETE FROM memories m USING cur, st WHERE m.id = cur.id RETURNING m.id
    """
)
"""PostgreSQL only: a deletion as one statement. No row: something is in the way; `LOCK` and look."""

_LISTING = """
    SELECT {columns} FROM memories m JOIN memory_stores s ON s.id = m.store_id {staged}
     WHERE m.store_id = :store_id AND {mine} AND m.path >= :start AND m.path < :end
     ORDER BY m.path LIMIT :limit
"""
LIST = Statement(_LISTING.format(columns=_COLUMNS, staged="", mine=_IN_MY_STORE))
LIST_WITH_CONTENT = Statement(
    _LISTING.format(columns=f"{_COLUMNS}, t.content", staged=f"LEFT JOIN {_STAGED}", mine=_IN_MY_STORE)
)

_CHILDREN = """
    WITH RECURSIVE probe (path, number) AS (
        SELECT (SELECT min(m.path) FROM memories m
                 WHERE m.store_id = :store_id AND m.path >= :start AND m.path < :end), 1
         UNION ALL
        SELECT (SELECT min(m.path) FROM memories m
                 WHERE m.store_id = :store_id AND m.path < :end
                   AND m.path >= CASE
                       WHEN strpos(substr(probe.path, :prefix_length + 1), '/') > 0
                       THEN substr(probe.path, 1, :prefix_length
                                   + strpos(substr(probe.path, :prefix_length + 1), '/') - 1) || '0'
                       ELSE probe.path || ' ' END), probe.number + 1
          FROM probe
         WHERE probe.path IS NOT NULL AND probe.number < :limit
    )
    SELECT {columns}
      FROM probe JOIN memories m ON m.store_id = :store_id AND m.path = probe.path
      JOIN memory_stores s ON s.id = m.store_id {staged}
     WHERE {mine}
     ORDER BY m.path
"""
LIST_CHILDREN = Statement(_CHILDREN.format(columns=_COLUMNS, staged="", mine=_IN_MY_STORE))
LIST_CHILDREN_WITH_CONTENT = Statement(
    _CHILDREN.format(columns=f"{_COLUMNS}, t.content", staged=f"LEFT JOIN {_STAGED}", mine=_IN_MY_STORE)
)
"""The first memory of each direct child of a prefix, by skipping from one to the next: `'0'` follows `'/'`, so
`directory || '0'` is beyond all of a directory; and a path holds no character below the space, so `path || ' '` is
the least path that can follow a memory's."""
