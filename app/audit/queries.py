"""SQL of reading the audit log."""

from collections.abc import Sequence

from app.storage.rows.statements import Statement

_COLUMNS = "seq, at, workspace_id, actor_type, actor_id, action, subject, detail, request_id, sha256"

FILTERS = {
    "workspace_id": "workspace_id = :workspace_id",
    "action": "action = :action",
    "subject": "subject = :subject",
    "created_from": "at >= :created_from",
    "created_to": "at <= :created_to",
    "until": "seq <= :until",
}
"""The condition for each filter of a listing."""


def listing(filters: Sequence[str]) -> Statement:
    """A page of entries after one, oldest first, by the filters that are set."""
    conditions = "".join(f" AND {FILTERS[name]}" for name in filters)
    return Statement(f"SELECT {_COLUMNS} FROM audit_entries WHERE seq > :seq{conditions} ORDER BY seq LIMIT :limit")


HEAD = Statement("SELECT seq, sha256 FROM audit_head WHERE id = 1")
LAST = Statement("SELECT h.seq, (SELECT max(e.seq) FROM audit_entries e) AS last FROM audit_head h WHERE h.id = 1")
"""The head's number and that of the last entry, as of one moment."""
