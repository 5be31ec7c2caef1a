"""The columns of the database, as a search for a text sees them: what a person may have written, and what nobody did.

Every text and bytes column is in exactly one of three lists: the columns of a place (`app.erasure.places`), which an
erasure empties; `SEARCHED_ONLY`, which it can't; and `NO_TEXT`, where a text is not even looked for.
"""

import json
from collections.abc import Mapping

from app.erasure.folding import Folded
from app.erasure.written import blanked, is_left_behind, is_made

_ID = "an ID, made by the server at random: chance puts every short name into one of many"
_DIGEST = "a digest, or the salt of one"
_WORD = "a word from a fixed list of the server's own"
_AUTHOR = "names the account that ran a command; the audit log's chain would break without it"

NO_TEXT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "installation.id", "workspaces.id", "api_keys.id", "api_keys.workspace_id", "memory_stores.id",
            "memory_stores.workspace_id", "memories.id", "memories.store_id", "memories.version_id",
            "memory_versions.store_id", "memory_versions.id", "memory_versions.memory_id", "staged_contents.version_id",
            "staged_contents.store_id", "condemned_contents.store_id", "agents.id", "agents.workspace_id",
            "agent_versions.agent_id", "environments.id", "environments.workspace_id", "sessions.id",
            "sessions.workspace_id", "sessions.agent_id", "sessions.environment_id", "session_resources.session_id",
            "session_resources.store_id", "session_tokens.id", "session_tokens.session_id",
            "audit_entries.workspace_id", "audit_entries.subject", "audit_entries.request_id", "erasures.id",
            "erasures.workspace_id", "erasure_subjects.erasure_id", "erasure_subjects.store_id",
            "erasure_subjects.memory_id", "erasure_digests.erasure_id", "erased_ids.workspace_id",
            "feed_readers.store_id", "feed_readers.reader_id", "jobs.id", "jobs.subject",
        ),
        _ID,
    ),
    **dict.fromkeys(
        (
            "api_keys.secret_sha256", "memories.content_sha256", "memory_versions.content_sha256",
            "staged_contents.content_sha256", "condemned_contents.content_sha256", "session_tokens.secret_sha256",
            "audit_entries.sha256", "audit_head.sha256", "erasures.salt", "erasure_digests.digest", "erased_ids.digest",
        ),
        _DIGEST,
    ),
    **dict.fromkeys(
        (
            "memory_versions.actor_type", "memory_versions.redacted_by_type", "session_resources.access",
            "audit_entries.actor_type", "audit_entries.action", "erasures.actor_type", "erasure_digests.kind",
            "feed_readers.reader_type", "jobs.kind", "jobs.state",
        ),
        _WORD,
    ),
    "installation.signing_key": "32 bytes of chance",
    "leases.name": "what is leased, and a server's number",
    "leases.holder": "a server's number, or an erasure's ID and a time",
    "audit_entries.detail": "IDs, numbers, words and routes of the server's own; never what a person wrote",
    "jobs.holder": "a server's number",
    "jobs.payload": "IDs and numbers",
    "jobs.result": "IDs, numbers and the server's own sentences",
    "jobs.error": "the server's own sentences, which name IDs at most; of other errors their kind",
    "erasures.progress": "counts, digests, IDs and the server's own sentences",
}  # fmt: skip
"""Columns in which no text of a person can be, by `table.column`, each with the reason."""

SEARCHED_ONLY: Mapping[str, str] = {
    "audit_entries.actor_id": _AUTHOR,
    "erasures.actor_id": _AUTHOR,
    "workspaces.name": "commands and keys name the workspace by it",
    "memory_stores.hold_reason": "it belongs to the legal hold; it goes when the hold is released",
}
"""Columns in which a text is looked for and not replaced, each with the reason."""

JSON_OBJECTS: Mapping[str, bool] = {
    "agent_versions.definition": False,
    "environments.config": False,
    "environments.metadata": True,
    "memory_stores.metadata": True,
    "sessions.agent": False,
    "sessions.metadata": True,
}
"""Columns of JSON objects; True: all names and values in them are the caller's own."""


def is_in_column(column: str, value: str | bytes, wanted: Folded) -> bool:
    """Whether a person's text is in the value of a column (`table.column`) that is not in `NO_TEXT`."""
    if not isinstance(value, str):
        return wanted.is_in_bytes(value)
    is_free = JSON_OBJECTS.get(column)
    if is_free is not None:
        try:
            held = json.loads(value)
        except ValueError:
            return wanted.is_in(value)
        return bool(blanked(held, wanted, is_free=is_free) != held)
    if column not in _PATHS and (is_left_behind(value) or (column in _SOMETIMES_MADE and is_made(value))):
        return False
    return wanted.is_in(value)


_PATHS = frozenset({"memories.path", "memory_versions.path"})
_SOMETIMES_MADE = frozenset(
    {
        "memory_versions.actor_id", "memory_versions.redacted_by_id", "audit_entries.actor_id", "erasures.actor_id",
        "session_resources.mount_path",
    }
)  # fmt: skip
