"""The SQL of jobs.

One column, `due_at`, says when a job needs somebody: a waiting one to be run, a running one to be taken over since its
lease has run out, an ended one to be removed. So one index finds whatever there is to do.
"""

from app.storage.rows.statements import Statement

WAITING, RUNNING, DONE, GIVEN_UP = "waiting", "running", "done", "given_up"
STATES = (WAITING, RUNNING, DONE, GIVEN_UP)

INSERT = Statement(
    """
    INSERT INTO jobs (id, kind, subject, payload, state, due_at, attempts, created_at)
    VALUES (:job_id, :kind, :subject, :payload, 'waiting', :until, 0, :now)
    """
)
NEXT = Statement(
    "SELECT min(due_at) AS due_at FROM jobs WHERE state IN ('waiting', 'running') AND kind IN_LIST(:kinds)"
)
CLAIM = Statement(
    """
    WITH due AS (
        SELECT id FROM jobs
         WHERE state IN ('waiting', 'running') AND due_at <= :now AND kind IN_LIST(:kinds)
         ORDER BY due_at, id LIMIT :limit
           FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET state = 'running', holder = :holder, due_at = :until, attempts = attempts + 1
      FROM due WHERE jobs.id = due.id
    RETURNING jobs.id, jobs.kind, jobs.payload, jobs.attempts
    """
)
EXTEND = Statement(
    """
    UPDATE jobs SET due_at = :until WHERE id IN_LIST(:job_ids) AND state = 'running' AND holder = :holder
    RETURNING id
    """
)
FINISH = Statement(
    """
    UPDATE jobs SET state = 'done', holder = NULL, finished_at = :now, due_at = :until, result = :result, error = NULL
     WHERE id = :job_id AND state = 'running' AND holder = :holder
    """
)
TRY_AGAIN = Statement(
    """
    UPDATE jobs SET state = 'waiting', holder = NULL, due_at = :until, error = :error
     WHERE id = :job_id AND state = 'running' AND holder = :holder
    """
)
PUT_BACK = Statement(
    """
    UPDATE jobs SET state = 'waiting', holder = NULL, due_at = :now, attempts = attempts - 1
     WHERE state = 'running' AND holder = :holder
    """
)
PUT_OFF = Statement(
    """
    UPDATE jobs SET state = 'waiting', holder = NULL, due_at = :until, attempts = attempts - 1
     WHERE id = :job_id AND state = 'running' AND holder = :holder
    """
)
GIVE_UP = Statement(
    """
    UPDATE jobs SET state = 'given_up', holder = NULL, finished_at = :now, due_at = :until, error = :error
     WHERE id = :job_id AND state = 'running' AND holder = :holder
    """
)
RETRY = Statement(
    """
    UPDATE jobs SET state = 'waiting', due_at = :now, attempts = 0, finished_at = NULL
     WHERE id = :job_id AND state IN ('waiting', 'given_up')
    """
)
DISCARD = Statement("DELETE FROM jobs WHERE id = :job_id AND state IN ('waiting', 'given_up')")
FIND = Statement("SELECT * FROM jobs WHERE id = :job_id")
LIST = Statement(
    """
    SELECT * FROM jobs WHERE (CAST(:state AS TEXT) IS NULL OR state = :state) AND id > :after
     ORDER BY id LIMIT :limit
    """
)
ABOUT = Statement("SELECT * FROM jobs WHERE subject = :subject ORDER BY created_at DESC, id DESC")
COUNTS = Statement("SELECT state, count(*) AS number FROM jobs WHERE state <> 'done' GROUP BY state")
OVERDUE = Statement("SELECT count(*) AS number FROM jobs WHERE state IN ('waiting', 'running') AND due_at < :before")
REMOVE_ENDED = Statement("DELETE FROM jobs WHERE state IN ('done', 'given_up') AND due_at <= :now")
