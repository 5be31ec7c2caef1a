"""Workspaces, keys, memory stores, memories, versions, and the stage in front of the blob store."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Key = sa.String().with_variant(sa.String(collation="C"), "postgresql")
Digest = sa.LargeBinary(32)


def upgrade() -> None:
    installation = op.create_table(
        "installation",
        sa.Column(
            "id",
            Key,
            nullable=False,
            comment="the one row's: made with the schema, and marked on the blob store",
        ),
        sa.PrimaryKeyConstraint("id", name="installation_pkey"),
    )
    op.bulk_insert(installation, [{"id": secrets.token_hex(16)}])
    op.create_table(
        "workspaces",
        sa.Column("id", Key, nullable=False),
        sa.Column("name", Key, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("store_count", sa.Integer, nullable=False, comment="stores that are not deleted"),
        sa.PrimaryKeyConstraint("id", name="workspaces_pkey"),
        sa.UniqueConstraint("name", name="workspaces_name_key"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", Key, nullable=False),
        sa.Column("workspace_id", Key, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column(
            "secret_sha256",
            Digest,
            comment="SHA-256 of the secret; NULL for the bootstrap key, whose secret lives in the settings",
        ),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger, comment="NULL while the key is good"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="api_keys_workspace_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
        sa.UniqueConstraint("secret_sha256", name="api_keys_secret_sha256_key"),
    )
    op.create_table(
        "memory_stores",
        sa.Column("id", Key, nullable=False),
        sa.Column("workspace_id", Key, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False, comment="a JSON object of strings"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column(
            "updated_at",
            sa.BigInteger,
            nullable=False,
            comment="moved by the store's own fields and by archiving only",
        ),
        sa.Column("archived_at", sa.BigInteger),
        sa.Column(
            "deleted_at",
            sa.BigInteger,
            comment="set once; from then on the store does not exist for callers, and its rows and blobs are purged",
        ),
        sa.Column(
            "last_seq",
            sa.BigInteger,
            nullable=False,
            comment="sequence number of the newest version, 0 before any",
        ),
        sa.Column("memory_count", sa.Integer, nullable=False),
        sa.Column("total_bytes", sa.BigInteger, nullable=False, comment="UTF-8 bytes of all current contents"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="memory_stores_workspace_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="memory_stores_pkey"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("memory_stores_listing_idx", "memory_stores", ["workspace_id", "created_at", "id"])
    op.create_table(
        "memories",
        sa.Column("id", Key, nullable=False),
        sa.Column("store_id", Key, nullable=False),
        sa.Column("path", Key, nullable=False),
        sa.Column("content_sha256", Digest, nullable=False),
        sa.Column("content_size", sa.Integer, nullable=False, comment="UTF-8 bytes"),
        sa.Column(
            "version_id",
            Key,
            nullable=False,
            comment="the head: the version that holds the current content",
        ),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["memory_stores.id"], name="memories_store_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="memories_pkey"),
        sa.UniqueConstraint("store_id", "path", name="memories_store_id_path_key"),
        postgresql_with={"fillfactor": 80},
    )
    op.create_table(
        "memory_versions",
        sa.Column("store_id", Key, nullable=False),
        sa.Column(
            "seq",
            sa.BigInteger,
            autoincrement=False,
            nullable=False,
            comment="1, 2, 3 … per store, without gaps, in commit order; old ones go with retention",
        ),
        sa.Column("id", Key, nullable=False),
        sa.Column("memory_id", Key, nullable=False, comment="stays after the memory is deleted, so no foreign key"),
        sa.Column("operation", sa.SmallInteger, nullable=False, comment="1 created, 2 modified, 3 deleted"),
        sa.Column("path", Key, comment="NULL only when redacted"),
        sa.Column("content_sha256", Digest, comment="NULL when redacted or a deletion"),
        sa.Column("content_size", sa.Integer, comment="UTF-8 bytes; NULL as content_sha256"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("actor_type", sa.Text),
        sa.Column("actor_id", sa.Text),
        sa.Column("redacted_at", sa.BigInteger),
        sa.Column("redacted_by_type", sa.Text),
        sa.Column("redacted_by_id", sa.Text),
        sa.PrimaryKeyConstraint("store_id", "seq", name="memory_versions_pkey"),
        sa.UniqueConstraint("id", name="memory_versions_id_key"),
    )
    op.create_index("memory_versions_memory_idx", "memory_versions", ["memory_id", "seq"])
    op.create_index("memory_versions_content_idx", "memory_versions", ["store_id", "content_sha256"])
    op.create_table(
        "staged_contents",
        sa.Column(
            "version_id",
            Key,
            nullable=False,
            comment="the version that staged it: tells this row from a later one of the same content, and sorts by age",
        ),
        sa.Column("store_id", Key, nullable=False),
        sa.Column("content_sha256", Digest, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("staged_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("version_id", name="staged_contents_pkey"),
        sa.UniqueConstraint("store_id", "content_sha256", name="staged_contents_store_id_content_sha256_key"),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 2000},
    )
    if op.get_bind().dialect.name == "postgresql":
        # The rows live for milliseconds: compressing them would only cost.
        op.execute("ALTER TABLE staged_contents ALTER COLUMN content SET STORAGE EXTERNAL")
    op.create_table(
        "condemned_contents",
        sa.Column("store_id", Key, nullable=False),
        sa.Column("content_sha256", Digest, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False, comment="changes when the content is condemned again"),
        sa.Column("condemned_at", sa.BigInteger, nullable=False),
        sa.Column(
            "claimed_until",
            sa.BigInteger,
            nullable=False,
            comment="nobody else removes the blob before this time",
        ),
        sa.PrimaryKeyConstraint("store_id", "content_sha256", name="condemned_contents_pkey"),
    )
    op.create_table(
        "leases",
        sa.Column("name", Key, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="leases_pkey"),
    )


def downgrade() -> None:
    for table in (
        "leases",
        "condemned_contents",
        "staged_contents",
        "memory_versions",
        "memories",
        "memory_stores",
        "api_keys",
        "workspaces",
        "installation",
    ):
        op.drop_table(table)
