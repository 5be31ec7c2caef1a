"""Agents with their versions, and environments."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Key = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("id", Key, nullable=False),
        sa.Column("workspace_id", Key, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, comment="the newest: 1, then one more with each change"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("archived_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="agents_workspace_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="agents_pkey"),
    )
    op.create_index("agents_listing_idx", "agents", ["workspace_id", "created_at", "id"])
    op.create_table(
        "agent_versions",
        sa.Column("agent_id", Key, nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column(
            "definition",
            sa.Text,
            nullable=False,
            comment="a JSON object (app.agents.definition); never changed",
        ),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="agent_versions_agent_id_fkey"),
        sa.PrimaryKeyConstraint("agent_id", "version", name="agent_versions_pkey"),
    )
    op.create_table(
        "environments",
        sa.Column("id", Key, nullable=False),
        sa.Column("workspace_id", Key, nullable=False),
        sa.Column("name", Key, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("config", sa.Text, nullable=False, comment="a JSON object, as the wire shows it"),
        sa.Column("metadata", sa.Text, nullable=False, comment="a JSON object of strings"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("archived_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="environments_workspace_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="environments_pkey"),
        sa.UniqueConstraint("workspace_id", "name", name="environments_workspace_id_name_key"),
    )
    op.create_index("environments_listing_idx", "environments", ["workspace_id", "created_at", "id"])


def downgrade() -> None:
    for table in ("environments", "agent_versions", "agents"):
        op.drop_table(table)
