"""SQL of sessions, the stores they attach, and their tokens."""

from collections.abc import Sequence

from app.storage.rows.statements import Statement

_COLUMNS = (
    "s.id, s.agent_id, s.agent_version, s.agent, s.environment_id, s.title, s.metadata, "
    "s.created_at, s.updated_at, s.archived_at"
)
_MINE = "s.workspace_id = :workspace_id"

# Sessions

INSERT = Statement(
    """
    INSERT INTO sessions (id, workspace_id, agent_id, agent_version, agent, environment_id, title, metadata,
                          created_at, updated_at)
    VALUES (:session_id, :workspace_id, :agent_id, :agent_version, :agent, :environment_id, :title, :metadata,
            :now, :now)
    """
)
FIND = Statement(f"SELECT {_COLUMNS} FROM sessions s WHERE s.id = :session_id AND {_MINE}")
LOCK = Statement(f"SELECT {_COLUMNS} FROM sessions s WHERE s.id = :session_id AND {_MINE} FOR UPDATE")
UPDATE = Statement(
    """
    UPDATE sessions SET title = :title, metadata = :metadata, agent = :agent, updated_at = :now WHERE id = :session_id
    """
)
ARCHIVE = Statement("UPDATE sessions SET archived_at = :now, updated_at = :now WHERE id = :session_id")
DELETE_TOKENS = Statement("DELETE FROM session_tokens WHERE session_id = :session_id")
DELETE_RESOURCES = Statement("DELETE FROM session_resources WHERE session_id = :session_id")
DELETE = Statement("DELETE FROM sessions WHERE id = :session_id")

FILTERS = {
    "agent_id": "s.agent_id = :agent_id",
    "agent_version": "s.agent_version = :agent_version",
    "created_from": "s.created_at >= :created_from",
    "created_after": "s.created_at > :created_after",
    "created_to": "s.created_at <= :created_to",
    "created_before": "s.created_at < :created_before",
    "store_id": "EXISTS (SELECT 1 FROM session_resources r WHERE r.session_id = s.id AND r.store_id = :store_id)",
    "live": "s.archived_at IS NULL",
    "archived": "s.archived_at IS NOT NULL",
}
"""The condition for each filter of a listing."""


def listing(filters: Sequence[str], *, ascending: bool, continued: bool) -> Statement:
    """A page of sessions in the order of their creation, by the filters that are set.

    continued: after (`before`, `before_id`) in that order.
    """
    comparison, order = (">", "ASC") if ascending else ("<", "DESC")
    conditions = [_MINE, *(FILTERS[name] for name in filters)]
    if continued:
        conditions.append(f"(s.created_at, s.id) {comparison} (:before, :before_id)")
    return Statement(
        f"""
        SELECT {_COLUMNS} FROM sessions s WHERE {" AND ".join(conditions)}
         ORDER BY s.created_at {order}, s.id {order} LIMIT :limit
        """
    )


LIST_ALL = Statement(
    f"""
    SELECT {_COLUMNS}, w.name AS workspace_name FROM sessions s JOIN workspaces w ON w.id = s.workspace_id
     ORDER BY s.created_at, s.id
    """
)
"""Of every workspace, for the administrator."""

# What they attach

FIND_STORES = Statement(
    """
    SELECT s.id, s.name, s.description, s.archived_at FROM memory_stores s
     WHERE s.id IN_LIST(:store_ids) AND s.workspace_id = :workspace_id AND s.deleted_at IS NULL
    """
)
INSERT_RESOURCE = Statement(
    """
    INSERT INTO session_resources (session_id, position, store_id, access, instructions, name, description,
                                   mount_path)
    VALUES (:session_id, :position, :store_id, :access, :instructions, :name, :description, :mount_path)
    """
)
FIND_RESOURCES = Statement(
    """
    SELECT s.id AS session_id, r.position, r.store_id, r.access, r.instructions, r.name, r.description, r.mount_path
      FROM sessions s LEFT JOIN session_resources r ON r.session_id = s.id
     WHERE s.id IN_LIST(:session_ids)
     ORDER BY s.id, r.position
    """
)
"""In the order of attachment; one row of NULLs for a session without any, and none for one that is gone."""

# Tokens

_SHOWN = "t.id, t.session_id, t.created_at, t.expires_at, t.revoked_at"
_OF_MY_SESSION = f"s.id = :session_id AND (:workspace_id IS NULL OR {_MINE})"

LOCK_SESSION = Statement(f"SELECT s.archived_at, s.workspace_id FROM sessions s WHERE {_OF_MY_SESSION} FOR UPDATE")
SESSION_EXISTS = Statement(f"SELECT 1 AS found FROM sessions s WHERE {_OF_MY_SESSION}")
INSERT_TOKEN = Statement(
    """
    INSERT INTO session_tokens (id, session_id, secret_sha256, created_at, expires_at)
    VALUES (:token_id, :session_id, :secret_sha256, :now, :expires_at)
    """
)
FIND_TOKEN = Statement(
    f"""
    SELECT {_SHOWN}, s.workspace_id FROM session_tokens t JOIN sessions s ON s.id = t.session_id
     WHERE t.id = :token_id AND {_OF_MY_SESSION}
    """
)
REVOKE_TOKEN = Statement("UPDATE session_tokens SET revoked_at = :now WHERE id = :token_id AND revoked_at IS NULL")


def tokens(*, continued: bool) -> Statement:
    """A page of a session's tokens, newest first."""
    after = "AND t.id < :before_id" if continued else ""
    return Statement(
        f"""
        SELECT {_SHOWN} FROM session_tokens t JOIN sessions s ON s.id = t.session_id
         WHERE {_OF_MY_SESSION} {after} ORDER BY t.id DESC LIMIT :limit
        """
    )


LIST_TOKENS = tokens(continued=False)
LIST_MORE_TOKENS = tokens(continued=True)
