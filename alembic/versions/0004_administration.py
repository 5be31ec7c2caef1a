"""Legal holds, the audit log, and erasures that can be resumed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

Key = sa.String().with_variant(sa.String(collation="C"), "postgresql")


_REFUSAL = "the audit log is append-only"

_APPEND_ONLY = {
    "postgresql": (
        f"""
        CREATE FUNCTION audit_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
        """,
        """
        CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
        FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_append_only()
        """,
    ),
    "sqlite": (
        f"""
        CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
        """,
        f"""
        CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
        """,
        # INSERT OR REPLACE removes the row in its way without calling the trigger above.
        f"""
        CREATE TRIGGER audit_entries_no_replace BEFORE INSERT ON audit_entries
        WHEN EXISTS (SELECT 1 FROM audit_entries WHERE seq = NEW.seq)
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
        """,
    ),
}


def upgrade() -> None:
    op.add_column(
        "installation",
        sa.Column(
            "signing_key", sa.LargeBinary, comment="32 raw bytes of an Ed25519 private key, made when first needed"
        ),
    )
    op.add_column(
        "memory_stores",
        sa.Column("held_at", sa.BigInteger, comment="since when a legal hold keeps everything in it; NULL: none does"),
    )
    op.add_column("memory_stores", sa.Column("hold_reason", sa.Text))
    op.create_table(
        "audit_entries",
        sa.Column(
            "seq", sa.BigInteger, autoincrement=False, nullable=False, comment="1, 2, 3 … in commit order, no gaps"
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("workspace_id", Key, comment="NULL: of no workspace, as a request with a wrong key is"),
        sa.Column("actor_type", sa.Text),
        sa.Column("actor_id", sa.Text),
        sa.Column("action", Key, nullable=False, comment="what was done, as `store.deleted`"),
        sa.Column("subject", Key, comment="ID of what it was done to"),
        sa.Column("detail", sa.Text, nullable=False, comment="a JSON object; never content, paths, names or secrets"),
        sa.Column("request_id", sa.Text),
        sa.Column(
            "sha256", sa.LargeBinary(32), nullable=False, comment="of this entry and the one before: app.audit.chain"
        ),
        sa.PrimaryKeyConstraint("seq", name="audit_entries_pkey"),
    )
    op.create_index("audit_entries_listing_idx", "audit_entries", ["workspace_id", "seq"])
    for trigger in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(trigger)
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.SmallInteger, autoincrement=False, nullable=False, comment="1: there is one row"),
        sa.Column("seq", sa.BigInteger, nullable=False, comment="of the newest entry, 0 before any"),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False, comment="of the newest entry, zeros before any"),
        sa.PrimaryKeyConstraint("id", name="audit_head_pkey"),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "sha256": bytes(32)}])
    op.create_table(
        "erasures",
        sa.Column("id", Key, nullable=False),
        sa.Column("workspace_id", Key, comment="NULL: of every workspace"),
        sa.Column("actor_type", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, comment="NULL: under way, or to be resumed after a crash"),
        sa.Column("salt", sa.LargeBinary(32), nullable=False, comment="of the digests of IDs in the report"),
        sa.Column(
            "progress",
            sa.Text,
            nullable=False,
            comment="a JSON object: steps done and counts, never what was erased",
        ),
        sa.PrimaryKeyConstraint("id", name="erasures_pkey"),
    )
    op.create_table(
        "erasure_subjects",
        sa.Column("erasure_id", Key, nullable=False),
        sa.Column("store_id", Key, nullable=False),
        sa.Column("memory_id", Key, nullable=False, comment="empty: the whole store"),
        sa.Column("done_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name="erasure_subjects_erasure_id_fkey"),
        sa.PrimaryKeyConstraint("erasure_id", "store_id", "memory_id", name="erasure_subjects_pkey"),
    )
    op.create_table(
        "erasure_digests",
        sa.Column("erasure_id", Key, nullable=False),
        sa.Column("kind", Key, nullable=False, comment="store, memory or version; within: a store that lost memories"),
        sa.Column("digest", Key, nullable=False, comment="SHA-256 of salt and ID, in hex: what the report shows"),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name="erasure_digests_erasure_id_fkey"),
        sa.PrimaryKeyConstraint("erasure_id", "kind", "digest", name="erasure_digests_pkey"),
    )


def downgrade() -> None:
    for table in ("erasure_digests", "erasure_subjects", "erasures", "audit_head", "audit_entries"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_entries_append_only()")
    op.drop_column("memory_stores", "hold_reason")
    op.drop_column("memory_stores", "held_at")
    op.drop_column("installation", "signing_key")
