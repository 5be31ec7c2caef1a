"""What people call an erasure."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column(
        "erasures",
        sa.Column("reference", sa.Text, comment="what the operator calls it, for the report; NULL: nothing"),
    )


def downgrade() -> None:
    op.drop_column("erasures", "reference")
