"""SQL of the history: what a store was, and what brings it back."""

from app.storage.rows.statements import Statement

_MINE = "s.id = :store_id AND s.workspace_id = :workspace_id AND s.deleted_at IS NULL"
_COLUMNS = (
    "v.id, v.store_id, v.memory_id, v.operation, v.path, v.content_sha256, v.content_size, v.created_at, "
    "v.actor_type, v.actor_id, v.redacted_at, v.redacted_by_type, v.redacted_by_id, v.seq"
)
_STAGED = "LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256"

STORE = Statement(f"SELECT s.last_seq, s.created_at FROM memory_stores s WHERE {_MINE}")
AT_TIME = Statement(
    f"""
    SELECT s.last_seq, s.created_at,
           (SELECT v.seq FROM memory_versions v
             WHERE v.store_id = s.id AND v.created_at <= :until ORDER BY v.seq DESC LIMIT 1) AS seq
      FROM memory_stores s WHERE {_MINE}
    """
)
"""The number of the last change made at or before a time; NULL: no such change is left."""

# A memory that was changed after the point has a first change after it, which tells whether it was there before: all
# but a creation say so. A memory that was not changed since is live, and its head is what was in force.
_STATE = f"""
    WITH later AS (
        SELECT v.memory_id, min(v.seq) AS next_seq FROM memory_versions v
         WHERE v.store_id = :store_id AND v.seq > :seq GROUP BY v.memory_id
    ), changed AS (
        SELECT (SELECT max(w.seq) FROM memory_versions w
                 WHERE w.memory_id = l.memory_id AND w.store_id = :store_id AND w.seq <= :seq) AS seq
          FROM later l JOIN memory_versions n ON n.store_id = :store_id AND n.seq = l.next_seq
         WHERE n.operation <> 1
    ), in_force AS (
        SELECT seq FROM changed WHERE seq IS NOT NULL
         UNION ALL
        SELECT h.seq FROM memories m JOIN memory_versions h ON h.id = m.version_id
         WHERE m.store_id = :store_id AND h.seq <= :seq
    )
    SELECT s.last_seq,
           (SELECT count(*) FROM memory_versions v WHERE v.store_id = :store_id AND v.seq > :seq) AS later_count,
           (SELECT count(*) FROM changed c
              LEFT JOIN memory_versions p ON p.store_id = :store_id AND p.seq = c.seq
             WHERE p.seq IS NULL OR p.operation = 3) AS lost_count,
           {_COLUMNS}{{content}}
      FROM memory_stores s
      LEFT JOIN (SELECT v.* FROM in_force f JOIN memory_versions v ON v.store_id = :store_id AND v.seq = f.seq
                  WHERE v.operation <> 3 AND coalesce(v.path, v.memory_id) > :after
                    AND (v.path IS NULL OR (v.path >= :start AND v.path < :end))
                  ORDER BY coalesce(v.path, v.memory_id) LIMIT :limit) v ON v.store_id = s.id
      {{staged}}
     WHERE {_MINE}
     ORDER BY coalesce(v.path, v.memory_id)
"""
STATE = Statement(_STATE.format(content="", staged=""))
STATE_WITH_CONTENT = Statement(_STATE.format(content=", t.content", staged=_STAGED))
"""The versions that were in force after change `:seq`, by path, then redacted ones by memory (`/` sorts before `m`).

Each row has the store's `last_seq`, how many changes after `:seq` are left (`later_count`), and how many memories were
there then whose version has expired (`lost_count`). One row with NULLs: nothing was there. No row: no such store.
"""

COMPLETE_FROM = Statement(
    """
    SELECT (SELECT v.seq - 1 FROM memory_versions v
             WHERE v.store_id = :store_id AND v.seq > 1
               AND NOT EXISTS (SELECT 1 FROM memory_versions w WHERE w.store_id = :store_id AND w.seq = v.seq - 1)
             ORDER BY v.seq DESC LIMIT 1) AS last_gap,
           (SELECT max(v.seq) FROM memory_versions v WHERE v.store_id = :store_id) AS newest,
           (SELECT max(o.seq)
              FROM (SELECT min(v.seq) AS seq FROM memory_versions v
                     WHERE v.store_id = :store_id GROUP BY v.memory_id) o
              JOIN memory_versions f ON f.store_id = :store_id AND f.seq = o.seq
             WHERE f.operation <> 1) AS last_beginning
    """
)
"""The newest change that is gone below one that is there; the newest that is there; the newest change that begins what
is left of its memory's history and is no creation."""
TIME_OF = Statement(
    """
    SELECT v.created_at FROM memory_versions v WHERE v.store_id = :store_id AND v.seq >= :seq ORDER BY v.seq LIMIT 1
    """
)

MEMORY_AROUND = Statement(
    f"""
    SELECT {_COLUMNS}, t.content
      FROM memory_versions v {_STAGED}
     WHERE v.store_id = :store_id
       AND v.seq IN ((SELECT max(w.seq) FROM memory_versions w
                       WHERE w.memory_id = :memory_id AND w.store_id = :store_id AND w.seq <= :seq),
                     (SELECT min(w.seq) FROM memory_versions w
                       WHERE w.memory_id = :memory_id AND w.store_id = :store_id AND w.seq > :seq))
     ORDER BY v.seq
    """
)
"""The last version of a memory up to `:seq`, and the first one after it."""

BEFORE_VERSION = Statement(
    f"""
    SELECT {_COLUMNS}, t.content
      FROM memory_versions v {_STAGED}
     WHERE v.store_id = :store_id
       AND v.seq = (SELECT max(w.seq) FROM memory_versions w
                     WHERE w.memory_id = :memory_id AND w.store_id = :store_id AND w.seq < :seq)
    """
)
"""The version of a memory before another one."""

HISTORY = Statement(
    f"""
    SELECT {_COLUMNS}
      FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id
     WHERE v.memory_id = :memory_id AND v.store_id = :store_id AND {_MINE}
     ORDER BY v.seq DESC LIMIT :limit
    """
)
"""The newest versions of a memory, newest first."""
STAGED_OF = Statement(
    """
    SELECT v.id, v.content_sha256, t.content
      FROM memory_versions v
      LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256
     WHERE v.id IN_LIST(:version_ids)
    """
)
"""Versions as they are now, with the contents that are staged."""

MEMORY_AT_PATH = Statement(
    f"""
    SELECT m.id FROM memories m JOIN memory_stores s ON s.id = m.store_id
     WHERE m.store_id = :store_id AND m.path = :path AND {_MINE}
    """
)
LAST_AT_PATH = Statement(
    f"""
    SELECT v.memory_id FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id
     WHERE v.store_id = :store_id AND v.path = :path AND {_MINE} ORDER BY v.seq DESC LIMIT 1
    """
)
"""The memory that was at a path most recently."""
VERSION_BY_SEQ = Statement(
    f"""
    SELECT v.id FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id
     WHERE v.store_id = :store_id AND v.seq = :seq AND {_MINE}
    """
)
VERSIONS_BY_ID = Statement(
    f"""
    SELECT v.id FROM memory_versions v JOIN memory_stores s ON s.id = v.store_id
     WHERE v.store_id = :store_id AND v.id >= :start AND v.id < :end AND {_MINE} ORDER BY v.id LIMIT :limit
    """
)

CURRENT = Statement(
    """
    SELECT m.id, m.store_id, m.version_id, m.path, m.content_sha256, m.content_size, m.created_at, m.updated_at
      FROM memories m WHERE m.store_id = :store_id
    """
)
LOCK_MEMORIES = Statement(
    """
    SELECT m.id FROM memories m
     WHERE m.store_id = :store_id AND m.id IN_LIST(:memory_ids) ORDER BY m.path FOR UPDATE
    """
)
LOCK_FREE_MEMORIES = Statement(
    """
    SELECT m.id FROM memories m
     WHERE m.store_id = :store_id AND m.id IN_LIST(:memory_ids) ORDER BY m.path FOR UPDATE SKIP LOCKED
    """
)
"""Those of some memories that nobody else holds: a transaction that has the store's row must not wait for one."""

DELETE_VERSIONS = Statement(
    """
    INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, created_at, actor_type, actor_id)
    SELECT m.store_id, :last_seq + e.position, v.value, m.id, 3, m.path, :now, :actor_type, :actor_id
      FROM EACH(:memory_ids) AS e
      JOIN EACH(:version_ids) AS v ON v.position = e.position
      JOIN memories m ON m.id = e.value
    """
)
DELETE_MEMORIES = Statement("DELETE FROM memories WHERE store_id = :store_id AND id IN_LIST(:memory_ids)")
RESTORE_VERSIONS = Statement(
    """
    INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, content_sha256, content_size,
                                 created_at, actor_type, actor_id)
    SELECT o.store_id, :last_seq + e.position, v.value, o.memory_id, :operation, p.value, o.content_sha256,
           o.content_size, :now, :actor_type, :actor_id
      FROM EACH(:source_ids) AS e
      JOIN EACH(:version_ids) AS v ON v.position = e.position
      JOIN EACH(:paths) AS p ON p.position = e.position
      JOIN memory_versions o ON o.id = e.value
    """
)
"""New versions with the contents of old ones. A content that a version refers to is never removed, and the store's
lock is held, so nobody can redact the old version in between."""
CHANGE_ASIDE = Statement("UPDATE memories SET path = ' ' || path WHERE id IN_LIST(:memory_ids)")
"""To where no path can be: memories may take each other's places."""
CHANGE_MEMORIES = Statement(
    """
    UPDATE memories
       SET path = v.path, content_sha256 = v.content_sha256, content_size = v.content_size, version_id = v.id,
           updated_at = :now
      FROM memory_versions v
     WHERE v.store_id = :store_id AND v.seq > :last_seq AND memories.id = v.memory_id
    """
)
CREATE_MEMORIES = Statement(
    """
    INSERT INTO memories (id, store_id, path, content_sha256, content_size, version_id, created_at, updated_at)
    SELECT v.memory_id, v.store_id, v.path, v.content_sha256, v.content_size, v.id, :now, :now
      FROM memory_versions v WHERE v.store_id = :store_id AND v.seq > :last_seq
    """
)
COUNT = Statement(
    """
    UPDATE memory_stores
       SET last_seq = :seq, memory_count = memory_count + :count_change, total_bytes = total_bytes + :bytes_change
     WHERE id = :store_id
    """
)

KEY_NAMES = Statement("SELECT id, name FROM api_keys WHERE id IN_LIST(:key_ids)")
SESSION_TITLES = Statement("SELECT id, title AS name FROM sessions WHERE id IN_LIST(:session_ids)")
