"""SQL of memories.

Locks are always taken in one order: the memory's row, then its store's row. Holding the store's row serialises
all mutations of the store; whatever must be seen as it is *now* (path conflicts) is read in a later statement,
because a single statement's snapshot is older than the lock it waits for.
"""

from app.storage.rows.statements import Batch, Mutation, Statement

COLUMNS = "m.id, m.store_id, m.version_id, m.path, m.content_sha256, m.content_size, m.created_at, m.updated_at"
"""What is read of a memory, in the order in which `app.memories.wire.items` takes it apart."""

_IN_MY_STORE = "s.id = :store_id AND s.workspace_id = :workspace_id AND s.deleted_at IS NULL"
_STAGED = "staged_contents t ON t.store_id = m.store_id AND t.content_sha256 = m.content_sha256"

FIND = Statement(
    f"""
    SELECT {COLUMNS} FROM memories m JOIN memory_stores s ON s.id = m.store_id
     WHERE m.id = :memory_id AND {_IN_MY_STORE}
    """
)
FIND_WITH_CONTENT = Statement(
    f"""
    SELECT {COLUMNS}, t.content
      FROM memories m JOIN memory_stores s ON s.id = m.store_id LEFT JOIN {_STAGED}
     WHERE m.id = :memory_id AND {_IN_MY_STORE}
    """
)
STORE_EXISTS = Statement(f"SELECT 1 AS found FROM memory_stores s WHERE {_IN_MY_STORE}")

LOCK = Statement(f"SELECT {COLUMNS} FROM memories m WHERE m.id = :memory_id AND m.store_id = :store_id FOR UPDATE")
LOCK_STORE = Statement(
    f"""
    SELECT s.id, s.archived_at, s.held_at, s.last_seq, s.memory_count, s.total_bytes FROM memory_stores s
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

_CHANGE_CONTENT = """
    WITH asked AS (
        {asked}
    ), cur AS (
        SELECT {columns}, a.* FROM asked a JOIN memories m ON m.id = a.memory_id AND m.store_id = a.in_store
         ORDER BY a.in_store FOR UPDATE OF m
    ), st AS (
        UPDATE memory_stores s
           SET last_seq = s.last_seq + 1, total_bytes = s.total_bytes + cur.size - cur.content_size
          FROM cur
         WHERE s.id = cur.in_store AND s.workspace_id = cur.workspace_id AND s.deleted_at IS NULL
           AND s.archived_at IS NULL
           AND cur.content_sha256 <> cur.sha256
           AND (cur.expected_sha256 IS NULL OR cur.content_sha256 = cur.expected_sha256)
           AND (cur.size <= cur.content_size OR s.total_bytes + cur.size - cur.content_size <= cur.maximum)
     RETURNING s.last_seq, cur.*
    ), version AS (
        INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, content_sha256, content_size,
                                     created_at, actor_type, actor_id)
        SELECT in_store, last_seq, new_version, memory_id, 2, path, sha256, size, now, actor_type, actor_id FROM st
    ), staged AS (
        INSERT INTO staged_contents (version_id, store_id, content_sha256, content, staged_at)
        SELECT new_version, in_store, sha256, content, now FROM st
        ON CONFLICT (store_id, content_sha256) DO NOTHING
    )
    UPDATE memories m
       SET content_sha256 = st.sha256, content_size = st.size, version_id = st.new_version, updated_at = st.now
      FROM st
     WHERE m.id = st.memory_id
    RETURNING {columns}
"""
_DELETE_MEMORY = """
    WITH asked AS (
        {asked}
    ), cur AS (
        SELECT {columns}, a.* FROM asked a JOIN memories m ON m.id = a.memory_id AND m.store_id = a.in_store
         ORDER BY a.in_store FOR UPDATE OF m
    ), st AS (
        UPDATE memory_stores s
           SET last_seq = s.last_seq + 1, memory_count = s.memory_count - 1,
               total_bytes = s.total_bytes - cur.content_size
          FROM cur
         WHERE s.id = cur.in_store AND s.workspace_id = cur.workspace_id AND s.deleted_at IS NULL
           AND s.held_at IS NULL
           AND (cur.expected_sha256 IS NULL OR cur.content_sha256 = cur.expected_sha256)
     RETURNING s.last_seq, cur.*
    ), version AS (
        INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, created_at, actor_type, actor_id)
        SELECT in_store, last_seq, new_version, memory_id, 3, path, now, actor_type, actor_id FROM st
    )
    DELETE FROM memories m USING st WHERE m.id = st.memory_id RETURNING m.id
"""


def _at_once(sql: str, *names: str) -> Mutation:
    """The mutation for one row and for many: they differ in where the parameters come from."""
    parameters = [":" + {"in_store": "store_id", "new_version": "version_id"}.get(name, name) for name in names]
    one = ", ".join(f"{parameter} AS {name}" for parameter, name in zip(parameters, names, strict=True))
    many = f"* FROM unnest({', '.join(parameters)}) AS a ({', '.join(names)})"
    return Mutation(
        sql.format(columns=COLUMNS, asked=f"SELECT {one}"), sql.format(columns=COLUMNS, asked=f"SELECT {many}")
    )


CHANGE_CONTENT_AT_ONCE = _at_once(
    _CHANGE_CONTENT,
    "memory_id", "in_store", "workspace_id", "new_version", "sha256", "size", "content", "expected_sha256", "maximum",
    "now", "actor_type", "actor_id",
)  # fmt: skip
"""PostgreSQL only: changes of content. No row for one: something is in its way; `LOCK` and look."""

DELETE_AT_ONCE = _at_once(
    _DELETE_MEMORY, "memory_id", "in_store", "workspace_id", "new_version", "expected_sha256", "now", "actor_type",
    "actor_id",
)  # fmt: skip
"""PostgreSQL only: deletions. No row for one: something is in its way; `LOCK` and look."""

_LISTING = """
    SELECT {columns} FROM memories m JOIN memory_stores s ON s.id = m.store_id {staged}
     WHERE m.store_id = :store_id AND {mine} AND m.path >= :start AND m.path < :end
     ORDER BY m.path LIMIT :limit
"""
LIST = Statement(_LISTING.format(columns=COLUMNS, staged="", mine=_IN_MY_STORE))
LIST_WITH_CONTENT = Statement(
    _LISTING.format(columns=f"{COLUMNS}, t.content", staged=f"LEFT JOIN {_STAGED}", mine=_IN_MY_STORE)
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
LIST_CHILDREN = Statement(_CHILDREN.format(columns=COLUMNS, staged="", mine=_IN_MY_STORE))
LIST_CHILDREN_WITH_CONTENT = Statement(
    _CHILDREN.format(columns=f"{COLUMNS}, t.content", staged=f"LEFT JOIN {_STAGED}", mine=_IN_MY_STORE)
)
"""The first memory of each direct child of a prefix, by skipping from one to the next: `'0'` follows `'/'`, so
`directory || '0'` is beyond all of a directory; and a path holds no character below the space, so `path || ' '` is
the least path that can follow a memory's."""

LOCK_BELOW = Statement(
    """
    SELECT m.id FROM memories m
     WHERE m.store_id = :store_id AND m.path >= :start AND m.path < :end
     ORDER BY m.path LIMIT :limit FOR UPDATE
    """
)
BELOW = Statement(
    f"""
    SELECT {COLUMNS} FROM memories m
     WHERE m.store_id = :store_id AND m.path >= :start AND m.path < :end
     ORDER BY m.path LIMIT :limit
    """
)
OTHERS_BELOW = Statement(
    """
    SELECT id, path FROM memories
     WHERE store_id = :store_id AND path >= :to_start AND path < :to_end
       AND NOT (path >= :start AND path < :end)
     ORDER BY path
    """
)
"""What is below one directory and not below another."""
AT = Statement(
    "SELECT id, path FROM memories WHERE store_id = :store_id AND path IN_LIST(:paths) ORDER BY path LIMIT 1"
)

MOVE_VERSIONS = Statement(
    """
    INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, content_sha256, content_size,
                                 created_at, actor_type, actor_id)
    SELECT m.store_id, :last_seq + e.position, v.value, m.id, :operation, p.value, m.content_sha256, m.content_size,
           :now, :actor_type, :actor_id
      FROM EACH(:memory_ids) AS e
      JOIN EACH(:version_ids) AS v ON v.position = e.position
      JOIN EACH(:paths) AS p ON p.position = e.position
      JOIN memories m ON m.id = e.value
    """
)
MOVE_ASIDE = Statement("UPDATE memories SET path = ' ' || path WHERE id IN_LIST(:memory_ids)")
"""To where no path can be, for a move whose old and new paths overlap."""
MOVE = Statement(
    """
    UPDATE memories SET path = v.path, version_id = v.id, updated_at = :now
      FROM memory_versions v
     WHERE v.store_id = :store_id AND v.seq > :last_seq AND memories.id = v.memory_id
    """
)
MOVE_COUNT = Statement("UPDATE memory_stores SET last_seq = :seq WHERE id = :store_id")
