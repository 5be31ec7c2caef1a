"""An archived environment gives its name back."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_CONSTRAINT = "environments_workspace_id_name_key"
_INDEX = "environments_name_idx"


def upgrade() -> None:
    with op.batch_alter_table("environments") as table:
        table.drop_constraint(_CONSTRAINT, type_="unique")
    live = sa.text("archived_at IS NULL")
    op.create_index(
        _INDEX, "environments", ["workspace_id", "name"], unique=True, postgresql_where=live, sqlite_where=live
    )


def downgrade() -> None:
    op.drop_index(_INDEX, "environments")
    # Of several with one name the archived ones get another, as their IDs differ.
    op.execute(
        """
        UPDATE environments SET name = name || ' ' || id
         WHERE archived_at IS NOT NULL AND EXISTS (
             SELECT 1 FROM environments other
              WHERE other.workspace_id = environments.workspace_id AND other.name = environments.name
                AND other.id <> environments.id)
        """
    )
    with op.batch_alter_table("environments") as table:
        table.create_unique_constraint(_CONSTRAINT, ["workspace_id", "name"])
