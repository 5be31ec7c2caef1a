"""What was erased, told apart from what was deleted; and how far readers of the feed have come."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

Key = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "erased_ids",
        sa.Column("digest", Key, nullable=False, comment="in hex: app.storage.rows.erased"),
        sa.Column("workspace_id", Key, nullable=False, comment="the only one that is told"),
        sa.PrimaryKeyConstraint("digest", name="erased_ids_pkey"),
    )
    op.create_table(
        "feed_readers",
        sa.Column("store_id", Key, nullable=False),
        sa.Column("reader_type", Key, nullable=False, comment="session_token or api_key"),
        sa.Column("reader_id", Key, nullable=False, comment="ID of the token or the key"),
        sa.Column("seq", sa.BigInteger, nullable=False, comment="the newest change that it has certainly seen"),
        sa.Column("read_at", sa.BigInteger, nullable=False, comment="when it last read; 30 days later the row goes"),
        sa.PrimaryKeyConstraint("store_id", "reader_type", "reader_id", name="feed_readers_pkey"),
    )
    op.create_index("feed_readers_read_at_idx", "feed_readers", ["read_at"])


def downgrade() -> None:
    op.drop_table("feed_readers")
    op.drop_table("erased_ids")
