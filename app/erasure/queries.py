"""SQL of erasures."""

from app.storage.rows.statements import Statement

# Selecting

STORES = Statement(
    """
    SELECT s.id, s.workspace_id, s.name, s.description, s.metadata, s.held_at, s.deleted_at,
           (SELECT count(*) FROM memories m WHERE m.store_id = s.id) AS memories,
           (SELECT count(*) FROM memory_versions v WHERE v.store_id = s.id) AS versions,
           (SELECT count(*) FROM session_resources r WHERE r.store_id = s.id) AS sessions
      FROM memory_stores s
     WHERE s.id > :store_id AND (:workspace_id IS NULL OR s.workspace_id = :workspace_id)
     ORDER BY s.id LIMIT :limit
    """
)
STORES_BY_ID = Statement(
    """
    SELECT s.id, s.workspace_id, s.name, s.description, s.metadata, s.held_at, s.deleted_at,
           (SELECT count(*) FROM memories m WHERE m.store_id = s.id) AS memories,
           (SELECT count(*) FROM memory_versions v WHERE v.store_id = s.id) AS versions,
           (SELECT count(*) FROM session_resources r WHERE r.store_id = s.id) AS sessions
      FROM memory_stores s
     WHERE s.id IN_LIST(:store_ids) AND (:workspace_id IS NULL OR s.workspace_id = :workspace_id)
     ORDER BY s.id
    """
)
WORKSPACE = Statement("SELECT id FROM workspaces WHERE name = :name")
ATTACHED = Statement("SELECT count(*) AS sessions FROM session_resources WHERE store_id = :store_id")
VERSIONS = Statement(
    """
    SELECT v.seq, v.id, v.memory_id, v.path, v.content_sha256, t.content
      FROM memory_versions v
      LEFT JOIN staged_contents t ON t.store_id = v.store_id AND t.content_sha256 = v.content_sha256
     WHERE v.store_id = :store_id AND v.seq > :seq AND v.redacted_at IS NULL
     ORDER BY v.seq LIMIT :limit
    """
)
STAGED = Statement("SELECT content FROM staged_contents WHERE store_id = :store_id AND content_sha256 = :sha256")
VERSION_IS_THERE = Statement(
    "SELECT 1 AS found FROM memory_versions WHERE store_id = :store_id AND content_sha256 = :sha256 LIMIT 1"
)
MEMORIES = Statement(
    """
    SELECT v.memory_id, count(*) AS versions, coalesce(sum(v.content_size), 0) AS bytes,
           (SELECT m.path FROM memories m WHERE m.id = v.memory_id) AS path
      FROM memory_versions v
     WHERE v.store_id = :store_id AND v.memory_id IN_LIST(:memory_ids)
     GROUP BY v.memory_id
    """
)

# The erasure's own record

INSERT = Statement(
    """
    INSERT INTO erasures (id, workspace_id, actor_type, actor_id, started_at, salt, progress, reference)
    VALUES (:erasure_id, :workspace_id, :actor_type, :actor_id, :now, :salt, :progress, :reference)
    """
)
INSERT_SUBJECT = Statement(
    "INSERT INTO erasure_subjects (erasure_id, store_id, memory_id) VALUES (:erasure_id, :store_id, :memory_id)"
)
INSERT_DIGEST = Statement(
    """
    INSERT INTO erasure_digests (erasure_id, kind, digest) VALUES (:erasure_id, :kind, :digest)
    ON CONFLICT (erasure_id, kind, digest) DO NOTHING
    """
)
_COLUMNS = "id, workspace_id, actor_type, actor_id, started_at, finished_at, salt, progress, reference"
FIND = Statement(f"SELECT {_COLUMNS} FROM erasures WHERE id = :erasure_id")
UNFINISHED = Statement(
    f"""
    SELECT {_COLUMNS},
           EXISTS (SELECT 1 FROM erasure_subjects s JOIN memory_stores m ON m.id = s.store_id
                    WHERE s.erasure_id = erasures.id AND s.done_at IS NULL AND m.held_at IS NOT NULL) AS is_held
      FROM erasures
     WHERE finished_at IS NULL AND id <> :erasure_id
       AND (CAST(:workspace_id AS TEXT) IS NULL OR workspace_id IS NULL OR workspace_id = :workspace_id)
     ORDER BY is_held, started_at, id LIMIT 1
    """
)
"""Of a workspace, or of any: one without a workspace touches several. `erasure_id`: one that does not count.

Those that a legal hold keeps from their end come last.
"""
NEWEST_FINISHED = Statement(
    f"SELECT {_COLUMNS} FROM erasures WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT 1"
)
SUBJECTS = Statement("SELECT store_id, memory_id, done_at FROM erasure_subjects WHERE erasure_id = :erasure_id")
DONE = Statement(
    """
    UPDATE erasure_subjects SET done_at = :now
     WHERE erasure_id = :erasure_id AND store_id = :store_id AND memory_id IN_LIST(:memory_ids)
    """
)
DIGESTS = Statement("SELECT kind, digest FROM erasure_digests WHERE erasure_id = :erasure_id ORDER BY kind, digest")
FINISH = Statement("UPDATE erasures SET finished_at = :now, progress = :progress WHERE id = :erasure_id")
SET_PROGRESS = Statement("UPDATE erasures SET progress = :progress WHERE id = :erasure_id")
DELETE_SUBJECTS = Statement("DELETE FROM erasure_subjects WHERE erasure_id = :erasure_id")
DELETE_JOB = Statement("DELETE FROM jobs WHERE subject = :erasure_id AND kind = :kind AND state <> 'running'")
AUDIT_HEAD = Statement("SELECT seq, sha256 FROM audit_head WHERE id = 1")
AUDIT_ENTRY = Statement("SELECT sha256 FROM audit_entries WHERE seq = :seq")

# Erasing

LOCK_STORES = Statement(
    "SELECT id, held_at, hold_reason FROM memory_stores WHERE id IN_LIST(:store_ids) ORDER BY id FOR UPDATE"
)
LOCK_STORE = Statement(
    """
    SELECT id, workspace_id, held_at, hold_reason, deleted_at, last_seq FROM memory_stores
     WHERE id = :store_id FOR UPDATE
    """
)
OWNER = Statement(
    """
    SELECT a.workspace_id FROM audit_entries a
     WHERE a.subject = :store_id AND a.action = 'store.deleted' AND a.workspace_id IS NOT NULL LIMIT 1
    """
)
"""The workspace of a store whose row is gone."""
VERSION_IDS = Statement("SELECT id, memory_id FROM memory_versions WHERE store_id = :store_id")
BLANK_STORE = Statement(
    """
    UPDATE memory_stores SET deleted_at = coalesce(deleted_at, :now), name = '', description = '', metadata = '{}'
     WHERE id = :store_id
    """
)
COUNT_ONE_LESS = Statement("UPDATE workspaces SET store_count = store_count - 1 WHERE id = :workspace_id")
LOCK_MEMORIES = Statement(
    """
    SELECT id, content_size FROM memories WHERE store_id = :store_id AND id IN_LIST(:memory_ids) ORDER BY id FOR UPDATE
    """
)
VERSIONS_OF = Statement(
    """
    SELECT id, content_sha256 FROM memory_versions WHERE store_id = :store_id AND memory_id IN_LIST(:memory_ids)
    """
)
INSERT_TOMBSTONES = Statement(
    """
    INSERT INTO memory_versions (store_id, seq, id, memory_id, operation, created_at, actor_type, actor_id,
                                 redacted_at, redacted_by_type, redacted_by_id)
    SELECT :store_id, :last_seq + e.position, v.value, e.value, :operation, :now, :actor_type, :actor_id,
           :now, :actor_type, :actor_id
      FROM EACH(:memory_ids) AS e JOIN EACH(:version_ids) AS v ON v.position = e.position
    """
)
"""Redacted from the start: they say that a memory was deleted, and never where it was."""
DELETE_MEMORIES = Statement("DELETE FROM memories WHERE store_id = :store_id AND id IN_LIST(:memory_ids)")
COUNT = Statement(
    """
    UPDATE memory_stores
       SET last_seq = last_seq + :count, memory_count = memory_count - :count, total_bytes = total_bytes - :bytes
     WHERE id = :store_id
    """
)
REDACT = Statement(
    """
    UPDATE memory_versions
       SET path = NULL, content_sha256 = NULL, content_size = NULL,
           redacted_at = :now, redacted_by_type = :actor_type, redacted_by_id = :actor_id
     WHERE store_id = :store_id AND memory_id IN_LIST(:memory_ids) AND redacted_at IS NULL
    """
)
BLANK_RESOURCES = Statement(
    """
    UPDATE session_resources SET name = :name, description = '', instructions = NULL, mount_path = :mount_path
     WHERE store_id = :store_id
    """
)
DELETE_JOBS_ABOUT = Statement(
    """
    DELETE FROM jobs
     WHERE subject IN (SELECT CASE WHEN s.memory_id = '' THEN s.store_id ELSE s.memory_id END
                         FROM erasure_subjects s WHERE s.erasure_id = :erasure_id)
    """
)
UNSTAGE_UNREFERENCED = Statement(
    """
    DELETE FROM staged_contents
     WHERE store_id = :store_id
       AND NOT EXISTS (SELECT 1 FROM memory_versions v
                        WHERE v.store_id = staged_contents.store_id
                          AND v.content_sha256 = staged_contents.content_sha256)
    """
)
REFERENCED = Statement(
    """
    SELECT DISTINCT content_sha256 FROM memory_versions WHERE store_id = :store_id AND content_sha256 IS NOT NULL
    """
)
LAST_OF = Statement(
    """
    SELECT coalesce(max(seq), 0) AS seq FROM memory_versions
     WHERE store_id = :store_id AND memory_id IN_LIST(:memory_ids)
    """
)
"""The deletion of those memories that was deleted last."""
CONDEMNED = Statement("SELECT content_sha256 FROM condemned_contents WHERE store_id = :store_id")

# The deployment's signing key

SIGNING_KEY = Statement("SELECT id, signing_key FROM installation")
SET_SIGNING_KEY = Statement("UPDATE installation SET signing_key = :signing_key WHERE signing_key IS NULL")

# Looking whether anything is left

ALL_STORE_IDS = Statement("SELECT id FROM memory_stores WHERE id > :after ORDER BY id LIMIT :limit")
ALL_MEMORIES = Statement("SELECT id, store_id FROM memories WHERE id > :after ORDER BY id LIMIT :limit")
ALL_VERSIONS = Statement(
    """
    SELECT id, store_id, memory_id,
           path IS NULL AND content_sha256 IS NULL AND content_size IS NULL AND redacted_at IS NOT NULL AS redacted
      FROM memory_versions WHERE id > :after ORDER BY id LIMIT :limit
    """
)
ALL_STAGED = Statement(
    """
    SELECT s.version_id AS id, s.store_id,
           EXISTS (SELECT 1 FROM memory_versions v
                    WHERE v.store_id = s.store_id AND v.content_sha256 = s.content_sha256) AS referenced
      FROM staged_contents s WHERE s.version_id > :after ORDER BY s.version_id LIMIT :limit
    """
)
ALL_JOBS = Statement("SELECT id, subject FROM jobs WHERE id > :after AND subject IS NOT NULL ORDER BY id LIMIT :limit")
ALL_RESOURCES = Statement("SELECT store_id, instructions, name, description, mount_path FROM session_resources")
