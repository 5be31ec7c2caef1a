"""Durable work for later."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

Key = sa.String().with_variant(sa.String(collation="C"), "postgresql")

_TO_RUN = sa.text("state IN ('waiting', 'running')")
_ENDED = sa.text("state IN ('done', 'given_up')")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", Key, nullable=False),
        sa.Column("kind", Key, nullable=False, comment="names what runs it"),
        sa.Column("subject", Key, comment="ID of what it is about, with which it is removed"),
        sa.Column(
            "payload",
            sa.Text,
            nullable=False,
            comment="a JSON object of IDs and numbers; never content, paths or names",
        ),
        sa.Column("state", Key, nullable=False, comment="waiting, running, done or given_up"),
        sa.Column(
            "due_at",
            sa.BigInteger,
            nullable=False,
            comment="waiting: not before; running: the end of the lease; done and given up: when it is removed",
        ),
        sa.Column("holder", Key, comment="the worker that runs it; NULL unless running"),
        sa.Column("attempts", sa.Integer, nullable=False, comment="begun so far"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("result", sa.Text, comment="a JSON object of IDs and numbers"),
        sa.Column(
            "error", sa.Text, comment="why the last attempt failed: one of the service's sentences, or the error's kind"
        ),
        sa.PrimaryKeyConstraint("id", name="jobs_pkey"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("jobs_due_idx", "jobs", ["due_at"], postgresql_where=_TO_RUN, sqlite_where=_TO_RUN)
    op.create_index("jobs_ended_idx", "jobs", ["due_at"], postgresql_where=_ENDED, sqlite_where=_ENDED)
    op.create_index("jobs_subject_idx", "jobs", ["subject"])


def downgrade() -> None:
    op.drop_table("jobs")
