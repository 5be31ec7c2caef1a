"""Sessions, the stores they attach, their tokens, and an index of the versions that sessions wrote."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Key = sa.String().with_variant(sa.String(collation="C"), "postgresql")
BY_A_SESSION = sa.text("actor_type = 'session_actor'")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", Key, nullable=False),
        sa.Column("workspace_id", Key, nullable=False),
        sa.Column("agent_id", Key, nullable=False),
        sa.Column("agent_version", sa.Integer, nullable=False),
        sa.Column("agent", sa.Text, nullable=False, comment="the agent as the wire shows it in this session, JSON"),
        sa.Column("environment_id", Key, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False, comment="a JSON object of strings"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("archived_at", sa.BigInteger, comment="the end of the session and of its tokens"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="sessions_workspace_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="sessions_pkey"),
    )
    op.create_index("sessions_listing_idx", "sessions", ["workspace_id", "created_at", "id"])
    op.create_table(
        "session_resources",
        sa.Column("session_id", Key, nullable=False),
        sa.Column(
            "position", sa.Integer, autoincrement=False, nullable=False, comment="0, 1 … in the order of attachment"
        ),
        sa.Column("store_id", Key, nullable=False, comment="stays after the store is deleted, so no foreign key"),
        sa.Column("access", sa.Text, nullable=False, comment="read_write or read_only"),
        sa.Column("instructions", sa.Text),
        sa.Column(
            "name", sa.Text, nullable=False, comment="the store's when it was attached, as description and mount_path"
        ),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("mount_path", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="session_resources_session_id_fkey"),
        sa.PrimaryKeyConstraint("session_id", "position", name="session_resources_pkey"),
    )
    op.create_index("session_resources_store_idx", "session_resources", ["store_id", "session_id"])
    op.create_table(
        "session_tokens",
        sa.Column("id", Key, nullable=False),
        sa.Column("session_id", Key, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the secret"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="session_tokens_session_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="session_tokens_pkey"),
        sa.UniqueConstraint("secret_sha256", name="session_tokens_secret_sha256_key"),
    )
    op.create_index("session_tokens_session_idx", "session_tokens", ["session_id", "id"])
    op.create_index(
        "memory_versions_session_idx",
        "memory_versions",
        ["store_id", "actor_id", "seq"],
        sqlite_where=BY_A_SESSION,
        postgresql_where=BY_A_SESSION,
    )


def downgrade() -> None:
    op.drop_index("memory_versions_session_idx", "memory_versions")
    for table in ("session_tokens", "session_resources", "sessions"):
        op.drop_table(table)
