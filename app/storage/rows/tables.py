"""The schema, once for both databases. Alembic's migrations are checked against it.

Conventions: times are whole microseconds since 1970 UTC (`app.contract.clock`); digests are the 32 raw bytes of
SHA-256; text keys compare as bytes on both databases (`COLLATE "C"` on PostgreSQL, SQLite's default).
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

Key = String().with_variant(String(collation="C"), "postgresql")
"""Text that is looked up, compared or sorted: IDs and paths."""

Micros = BigInteger
"""A time: microseconds since 1970-01-01 UTC."""

installation = Table(
    "installation",
    metadata,
    Column("id", Key, primary_key=True, comment="the one row's: made with the schema, and marked on the blob store"),
    Column("signing_key", LargeBinary, comment="32 raw bytes of an Ed25519 private key, made when first needed"),
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", Key, nullable=False, unique=True),
    Column("created_at", Micros, nullable=False),
    Column("store_count", Integer, nullable=False, comment="stores that are not deleted"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Key, primary_key=True),
    Column("workspace_id", Key, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column(
        "secret_sha256",
        LargeBinary(32),
        unique=True,
        comment="SHA-256 of the secret; NULL for the bootstrap key, whose secret lives in the settings",
    ),
    Column("created_at", Micros, nullable=False),
    Column("revoked_at", Micros, comment="NULL while the key is good"),
)

memory_stores = Table(
    "memory_stores",
    metadata,
    Column("id", Key, primary_key=True),
    Column("workspace_id", Key, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata", Text, nullable=False, comment="a JSON object of strings"),
    Column("created_at", Micros, nullable=False),
    Column("updated_at", Micros, nullable=False, comment="moved by the store's own fields and by archiving only"),
    Column("archived_at", Micros),
    Column(
        "deleted_at",
        Micros,
        comment="set once; from then on the store does not exist for callers, and its rows and blobs are purged",
    ),
    Column("held_at", Micros, comment="since when a legal hold keeps everything in it; NULL: none does"),
    Column("hold_reason", Text),
    Column("last_seq", BigInteger, nullable=False, comment="sequence number of the newest version, 0 before any"),
    Column("memory_count", Integer, nullable=False),
    Column("total_bytes", BigInteger, nullable=False, comment="UTF-8 bytes of all current contents"),
    Index("memory_stores_listing_idx", "workspace_id", "created_at", "id"),
    # Every mutation rewrites this row: room in the page keeps the rewrite in place (HOT).
    postgresql_with={"fillfactor": 50},
)

memories = Table(
    "memories",
    metadata,
    Column("id", Key, primary_key=True),
    Column("store_id", Key, ForeignKey("memory_stores.id"), nullable=False),
    Column("path", Key, nullable=False),
    Column("content_sha256", LargeBinary(32), nullable=False),
    Column("content_size", Integer, nullable=False, comment="UTF-8 bytes"),
    Column("version_id", Key, nullable=False, comment="the head: the version that holds the current content"),
    Column("created_at", Micros, nullable=False),
    Column("updated_at", Micros, nullable=False),
    UniqueConstraint("store_id", "path"),
    postgresql_with={"fillfactor": 80},
)

CREATED, MODIFIED, DELETED = 1, 2, 3

memory_versions = Table(
    "memory_versions",
    metadata,
    # No foreign key: a version is only written by a transaction that holds its store's row.
    Column("store_id", Key, primary_key=True),
    Column(
        "seq",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="1, 2, 3 … per store, without gaps, in commit order; old ones go with retention",
    ),
    Column("id", Key, nullable=False, unique=True),
    Column("memory_id", Key, nullable=False, comment="stays after the memory is deleted, so no foreign key"),
    Column("operation", SmallInteger, nullable=False, comment="1 created, 2 modified, 3 deleted"),
    Column("path", Key, comment="NULL only when redacted"),
    Column("content_sha256", LargeBinary(32), comment="NULL when redacted or a deletion"),
    Column("content_size", Integer, comment="UTF-8 bytes; NULL as content_sha256"),
    Column("created_at", Micros, nullable=False),
    Column("actor_type", Text),
    Column("actor_id", Text),
    Column("redacted_at", Micros),
    Column("redacted_by_type", Text),
    Column("redacted_by_id", Text),
    Index("memory_versions_memory_idx", "memory_id", "seq"),
    # Answers whether any version still has a content, before its blob is removed.
    Index("memory_versions_content_idx", "store_id", "content_sha256"),
    # Answers what a session wrote; nearly free for stores that only programs write to.
    Index(
        "memory_versions_session_idx",
        "store_id",
        "actor_id",
        "seq",
        sqlite_where=text("actor_type = 'session_actor'"),
        postgresql_where=text("actor_type = 'session_actor'"),
    ),
)

staged_contents = Table(
    "staged_contents",
    metadata,
    Column(
        "version_id",
        Key,
        primary_key=True,
        comment="the version that staged it: tells this row from a later one of the same content, and sorts by age",
    ),
    Column("store_id", Key, nullable=False),
    Column("content_sha256", LargeBinary(32), nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("staged_at", Micros, nullable=False),
    UniqueConstraint("store_id", "content_sha256"),
    # Rows come and go at the pace of writes: clean up by their number, not by a share of a table that is empty.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 2000},
)

condemned_contents = Table(
    "condemned_contents",
    metadata,
    Column("store_id", Key, primary_key=True),
    Column("content_sha256", LargeBinary(32), primary_key=True),
    Column("token", BigInteger, nullable=False, comment="changes when the content is condemned again"),
    Column("condemned_at", Micros, nullable=False),
    Column("claimed_until", Micros, nullable=False, comment="nobody else removes the blob before this time"),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Key, primary_key=True),
    Column("workspace_id", Key, ForeignKey("workspaces.id"), nullable=False),
    Column("version", Integer, nullable=False, comment="the newest: 1, then one more with each change"),
    Column("created_at", Micros, nullable=False),
    Column("updated_at", Micros, nullable=False),
    Column("archived_at", Micros),
    Index("agents_listing_idx", "workspace_id", "created_at", "id"),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    Column("agent_id", Key, ForeignKey("agents.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Text, nullable=False, comment="a JSON object (app.agents.definition); never changed"),
    Column("created_at", Micros, nullable=False),
)

environments = Table(
    "environments",
    metadata,
    Column("id", Key, primary_key=True),
    Column("workspace_id", Key, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Key, nullable=False),
    Column("description", Text),
    Column("config", Text, nullable=False, comment="a JSON object, as the wire shows it"),
    Column("metadata", Text, nullable=False, comment="a JSON object of strings"),
    Column("created_at", Micros, nullable=False),
    Column("updated_at", Micros, nullable=False),
    Column("archived_at", Micros),
    Index(
        "environments_name_idx",
        "workspace_id",
        "name",
        unique=True,
        postgresql_where=text("archived_at IS NULL"),
        sqlite_where=text("archived_at IS NULL"),
    ),
    Index("environments_listing_idx", "workspace_id", "created_at", "id"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Key, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Micros, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("workspace_id", Key, ForeignKey("workspaces.id"), nullable=False),
    # No foreign keys to what a session was made from: it keeps what it needs of them.
    Column("agent_id", Key, nullable=False),
    Column("agent_version", Integer, nullable=False),
    Column("agent", Text, nullable=False, comment="the agent as the wire shows it in this session, JSON"),
    Column("environment_id", Key, nullable=False),
    Column("title", Text),
    Column("metadata", Text, nullable=False, comment="a JSON object of strings"),
    Column("created_at", Micros, nullable=False),
    Column("updated_at", Micros, nullable=False),
    Column("archived_at", Micros, comment="the end of the session and of its tokens"),
    Index("sessions_listing_idx", "workspace_id", "created_at", "id"),
)

session_resources = Table(
    "session_resources",
    metadata,
    Column("session_id", Key, ForeignKey("sessions.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="0, 1 … in the order of attachment"),
    Column("store_id", Key, nullable=False, comment="stays after the store is deleted, so no foreign key"),
    Column("access", Text, nullable=False, comment="read_write or read_only"),
    Column("instructions", Text),
    Column("name", Text, nullable=False, comment="the store's when it was attached, as description and mount_path"),
    Column("description", Text, nullable=False),
    Column("mount_path", Text, nullable=False),
    Index("session_resources_store_idx", "store_id", "session_id"),
)

session_tokens = Table(
    "session_tokens",
    metadata,
    Column("id", Key, primary_key=True),
    Column("session_id", Key, ForeignKey("sessions.id"), nullable=False),
    Column("secret_sha256", LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the secret"),
    Column("created_at", Micros, nullable=False),
    Column("expires_at", Micros, nullable=False),
    Column("revoked_at", Micros),
    Index("session_tokens_session_idx", "session_id", "id"),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3 … in commit order, no gaps"),
    Column("at", Micros, nullable=False),
    Column("workspace_id", Key, comment="NULL: of no workspace, as a request with a wrong key is"),
    Column("actor_type", Text),
    Column("actor_id", Text),
    Column("action", Key, nullable=False, comment="what was done, as `store.deleted`"),
    Column("subject", Key, comment="ID of what it was done to"),
    Column("detail", Text, nullable=False, comment="a JSON object; never content, paths, names or secrets"),
    Column("request_id", Text),
    Column("sha256", LargeBinary(32), nullable=False, comment="of this entry and the one before: app.audit.chain"),
    Index("audit_entries_listing_idx", "workspace_id", "seq"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False, comment="1: there is one row"),
    Column("seq", BigInteger, nullable=False, comment="of the newest entry, 0 before any"),
    Column("sha256", LargeBinary(32), nullable=False, comment="of the newest entry, zeros before any"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", Key, primary_key=True),
    Column("workspace_id", Key, comment="NULL: of every workspace"),
    Column("actor_type", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("started_at", Micros, nullable=False),
    Column("finished_at", Micros, comment="NULL: under way, or to be resumed after a crash"),
    Column("salt", LargeBinary(32), nullable=False, comment="of the digests of IDs in the report"),
    Column("progress", Text, nullable=False, comment="a JSON object: steps done and counts, never what was erased"),
    Column("reference", Text, comment="what the operator calls it, for the report; NULL: nothing"),
)

erasure_subjects = Table(
    "erasure_subjects",
    metadata,
    Column("erasure_id", Key, ForeignKey("erasures.id"), primary_key=True),
    Column("store_id", Key, primary_key=True),
    Column("memory_id", Key, primary_key=True, comment="empty: the whole store"),
    Column("done_at", Micros),
)
"""What an erasure under way removes. Gone when it is finished: then no list says what was erased."""

erasure_digests = Table(
    "erasure_digests",
    metadata,
    Column("erasure_id", Key, ForeignKey("erasures.id"), primary_key=True),
    Column("kind", Key, primary_key=True, comment="store, memory or version; within: a store that lost memories"),
    Column("digest", Key, primary_key=True, comment="SHA-256 of salt and ID, in hex: what the report shows"),
)

erased_ids = Table(
    "erased_ids",
    metadata,
    Column("digest", Key, primary_key=True, comment="in hex: app.storage.rows.erased"),
    Column("workspace_id", Key, nullable=False, comment="the only one that is told"),
)
"""Stores that were erased whole, and memories that were erased from stores that stayed."""

feed_readers = Table(
    "feed_readers",
    metadata,
    Column("store_id", Key, primary_key=True),
    Column("reader_type", Key, primary_key=True, comment="session_token or api_key"),
    Column("reader_id", Key, primary_key=True, comment="ID of the token or the key"),
    Column("seq", BigInteger, nullable=False, comment="the newest change that it has certainly seen"),
    Column("read_at", Micros, nullable=False, comment="when it last read; 30 days later the row goes"),
    Index("feed_readers_read_at_idx", "read_at"),
)
"""How far readers of the feed have come."""

_TO_RUN, _ENDED = "state IN ('waiting', 'running')", "state IN ('done', 'given_up')"

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("kind", Key, nullable=False, comment="names what runs it"),
    Column("subject", Key, comment="ID of what it is about, with which it is removed"),
    Column("payload", Text, nullable=False, comment="a JSON object of IDs and numbers; never content, paths or names"),
    Column("state", Key, nullable=False, comment="waiting, running, done or given_up"),
    Column(
        "due_at",
        Micros,
        nullable=False,
        comment="waiting: not before; running: the end of the lease; done and given up: when it is removed",
    ),
    Column("holder", Key, comment="the worker that runs it; NULL unless running"),
    Column("attempts", Integer, nullable=False, comment="begun so far"),
    Column("created_at", Micros, nullable=False),
    Column("finished_at", Micros),
    Column("result", Text, comment="a JSON object of IDs and numbers"),
    Column("error", Text, comment="why the last attempt failed: one of the service's sentences, or the error's kind"),
    Index("jobs_due_idx", "due_at", postgresql_where=text(_TO_RUN), sqlite_where=text(_TO_RUN)),
    Index("jobs_ended_idx", "due_at", postgresql_where=text(_ENDED), sqlite_where=text(_ENDED)),
    Index("jobs_subject_idx", "subject"),
    # A job's row is written a few times: room in the page keeps it in place (HOT).
    postgresql_with={"fillfactor": 70},
)
