"""SQL of exports, imports and backups."""

from typing import Any

import sqlalchemy as sa

from app.storage.rows.statements import Statement

_VERSION = (
    "v.seq, v.id, v.memory_id, v.operation, v.path, v.content_sha256, v.content_size, v.created_at, "
    "v.actor_type, v.actor_id, v.redacted_at, v.redacted_by_type, v.redacted_by_id"
)

STORE = Statement(
    """
    SELECT id, name, description, metadata, archived_at FROM memory_stores
     WHERE id = :store_id AND workspace_id = :workspace_id AND deleted_at IS NULL
    """
)
VERSIONS = Statement(
    f"""
    SELECT {_VERSION}, v.store_id, t.content
      FROM memory_versions v
      LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256
     WHERE v.store_id = :store_id AND v.seq > :seq AND v.seq <= :last_seq
     ORDER BY v.seq LIMIT :limit
    """
)
"""A page of a store's versions, oldest first, with what is staged of their contents."""

WORKSPACE_BY_NAME = Statement("SELECT id FROM workspaces WHERE name = :name")
WORKSPACES = Statement("SELECT id FROM workspaces ORDER BY created_at LIMIT :limit")
STORE_EXISTS = Statement("SELECT deleted_at FROM memory_stores WHERE id = :store_id")
LOCK_WORKSPACE = Statement("SELECT id FROM workspaces WHERE id = :workspace_id FOR UPDATE")
VERSION_EXISTS = Statement("SELECT seq FROM memory_versions WHERE store_id = :store_id AND id = :version_id")

EVERY_PATH = Statement(
    """
    SELECT path, content_sha256 FROM memories
     WHERE store_id = :store_id AND path > :after ORDER BY path LIMIT :limit
    """
)

STAGE = Statement(
    """
    INSERT INTO staged_contents (version_id, store_id, content_sha256, content, staged_at)
    VALUES (:version_id, :store_id, :sha256, :content, :now)
    ON CONFLICT (store_id, content_sha256) DO NOTHING
    """
)
STAGED = Statement("SELECT content_sha256 FROM staged_contents WHERE store_id = :store_id")
UNSTAGE_UNREFERENCED = Statement(
    """
    DELETE FROM staged_contents
     WHERE store_id = :store_id AND version_id IN_LIST(:version_ids)
       AND NOT EXISTS (SELECT 1 FROM memory_versions v
                        WHERE v.store_id = staged_contents.store_id
                          AND v.content_sha256 = staged_contents.content_sha256)
    """
)
"""For a transaction that holds the store's row, or that of the workspace in which the store would be made."""
HOLDERS = Statement(
    """
    SELECT content_sha256, min(id) AS version_id FROM memory_versions
     WHERE store_id = :store_id AND content_sha256 IS NOT NULL GROUP BY content_sha256
    """
)
"""Each content that a store's versions have, and one of them."""

INSERT_MEMORY = Statement(
    """
    INSERT INTO memories (id, store_id, path, content_sha256, content_size, version_id, created_at, updated_at)
    VALUES (:memory_id, :store_id, :path, :sha256, :size, :version_id, :created_at, :updated_at)
    """
)
INSERT_VERSION = Statement(
    """
    INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, path, content_sha256, content_size,
                                 created_at, actor_type, actor_id, redacted_at, redacted_by_type, redacted_by_id)
    VALUES (:store_id, :seq, :version_id, :memory_id, :operation, :path, :sha256, :size,
            :created_at, :actor_type, :actor_id, :redacted_at, :redacted_by_type, :redacted_by_id)
    """
)
COUNT = Statement(
    """
    UPDATE memory_stores
       SET last_seq = :seq, memory_count = memory_count + :count, total_bytes = total_bytes + :bytes
     WHERE id = :store_id
    """
)


# Of any table, made from its columns


def _types(table: sa.Table) -> dict[str, Any]:
    return {column.name: column.type for column in table.columns}


def select_page(table: sa.Table) -> Statement:
    """The rows of a table after a key, in the order of its primary key."""
    keys = list(table.primary_key.columns)
    names = ", ".join(column.name for column in table.columns)
    order = ", ".join(column.name for column in keys)
    after = ", ".join(f":{column.name}" for column in keys)
    types = _types(table) | {"page_limit": sa.Integer()}
    return Statement(
        f"SELECT {names} FROM {table.name} WHERE ({order}) > ({after}) ORDER BY {order} LIMIT :page_limit", types
    )


def any_row(table: sa.Table) -> Statement:
    """A row of a table, if there is one."""
    return Statement(f"SELECT 1 AS found FROM {table.name} LIMIT 1")


def insert(table: sa.Table) -> Statement:
    """A whole row, its parameters named like the columns."""
    names = [column.name for column in table.columns]
    values = ", ".join(f":{name}" for name in names)
    return Statement(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})", _types(table))


def replace(table: sa.Table) -> Statement:
    """For a table of one row: what is beside its key."""
    names = [column.name for column in table.columns if not column.primary_key]
    return Statement(f"UPDATE {table.name} SET {', '.join(f'{name} = :{name}' for name in names)}", _types(table))
