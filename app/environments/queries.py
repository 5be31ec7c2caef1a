"""SQL of environments."""

from app.storage.rows.statements import Statement

_COLUMNS = "id, name, description, config, metadata, created_at, updated_at, archived_at"
_MINE = "workspace_id = :workspace_id"

# Names are given out one at a time per workspace: the holder of this row sees every name that is taken.
LOCK_NAMES = Statement("SELECT id FROM workspaces WHERE id = :workspace_id FOR UPDATE")
# An archived environment has given its name back.
NAMED = Statement(f"SELECT id FROM environments WHERE {_MINE} AND name = :name AND archived_at IS NULL")
INSERT = Statement(
    """
    INSERT INTO environments (id, workspace_id, name, description, config, metadata, created_at, updated_at)
    VALUES (:environment_id, :workspace_id, :name, :description, :config, :metadata, :now, :now)
    """
)
FIND = Statement(f"SELECT {_COLUMNS} FROM environments WHERE id = :environment_id AND {_MINE}")
LOCK = Statement(f"SELECT {_COLUMNS} FROM environments WHERE id = :environment_id AND {_MINE} FOR UPDATE")
UPDATE = Statement(
    """
    UPDATE environments
       SET name = :name, description = :description, config = :config, metadata = :metadata, updated_at = :now
     WHERE id = :environment_id
    """
)
ARCHIVE = Statement("UPDATE environments SET archived_at = :now, updated_at = :now WHERE id = :environment_id")
USED = Statement(
    "SELECT id FROM sessions WHERE workspace_id = :workspace_id AND environment_id = :environment_id LIMIT 1"
)
DELETE = Statement("DELETE FROM environments WHERE id = :environment_id")


def listing(*, include_archived: bool, continued: bool) -> Statement:
    """A page of environments, newest first, by the parts that its filters need."""
    conditions = [_MINE]
    if not include_archived:
        conditions.append("archived_at IS NULL")
    if continued:
        conditions.append("(created_at, id) < (:before, :before_id)")
    return Statement(
        f"""
        SELECT {_COLUMNS} FROM environments WHERE {" AND ".join(conditions)}
         ORDER BY created_at DESC, id DESC LIMIT :limit
        """
    )
