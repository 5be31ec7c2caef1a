"""SQL of workspaces and API keys."""

from app.storage.rows.statements import Statement

ENSURE_WORKSPACE = Statement(
    """
    INSERT INTO workspaces (id, name, created_at, store_count) VALUES (:workspace_id, :name, :now, 0)
    ON CONFLICT (name) DO NOTHING
    """
)
FIND_WORKSPACE = Statement("SELECT id FROM workspaces WHERE name = :name")

INSERT_KEY = Statement(
    """
    INSERT INTO api_keys (id, workspace_id, name, secret_sha256, created_at)
    VALUES (:key_id, :workspace_id, :name, :secret_sha256, :now)
    ON CONFLICT DO NOTHING
    """
)
FIND_KEY = Statement(
    """
    SELECT id, workspace_id, secret_sha256, revoked_at FROM api_keys WHERE secret_sha256 = :secret_sha256
    """
)
FIND_KEY_BY_ID = Statement("SELECT id, workspace_id, revoked_at FROM api_keys WHERE id = :key_id")
LIST_KEYS = Statement(
    """
    SELECT k.id, k.name, k.workspace_id, w.name AS workspace_name, k.created_at, k.revoked_at
      FROM api_keys k JOIN workspaces w ON w.id = k.workspace_id
     ORDER BY k.created_at, k.id
    """
)
REVOKE_KEY = Statement("UPDATE api_keys SET revoked_at = :now WHERE id = :key_id AND revoked_at IS NULL")

FIND_SESSION_TOKEN = Statement(
    """
    SELECT t.id, t.session_id, t.expires_at, t.revoked_at, s.workspace_id, s.archived_at, r.store_id, r.access
      FROM session_tokens t JOIN sessions s ON s.id = t.session_id
      LEFT JOIN session_resources r ON r.session_id = s.id
     WHERE t.secret_sha256 = :secret_sha256
    """
)
"""A row for each store that the token's session has attached; one with `store_id` NULL if it has none."""
