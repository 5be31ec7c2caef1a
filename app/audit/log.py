"""Writing the audit log: an entry is appended in the transaction that does what it tells, or neither happens.

    entry = audit.entry(caller, "store.deleted", subject=store_id)   # in the request's own context
    async def work(transaction): ...; await audit.append(transaction, entry)   # last: it locks the chain's end

Entries hold IDs, counts and kinds. Never content, paths, names, metadata or secrets: nothing in the log shall ever have
to be erased, since removing a line breaks the chain.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from app.audit import chain
from app.contract import clock
from app.contract.actors import Caller
from app.contract.calls import REQUEST_ID
from app.storage.rows.database import Transaction
from app.storage.rows.statements import Batch, Statement

Detail = Mapping[str, str | int | bool | None]

_LOCK_HEAD = Statement("SELECT seq, sha256 FROM audit_head WHERE id = 1 FOR UPDATE")
_INSERT = Statement(
    """
    INSERT INTO audit_entries (seq, at, workspace_id, actor_type, actor_id, action, subject, detail, request_id, sha256)
    VALUES (:seq, :now, :workspace_id, :actor_type, :actor_id, :action, :subject, :detail, :request_id, :sha256)
    """
)
_MOVE_HEAD = Statement("UPDATE audit_head SET seq = :seq, sha256 = :sha256 WHERE id = 1")
_INSERT_LAST = Batch(_INSERT, _MOVE_HEAD)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written; the chain gives it its number, its time and its digest."""

    action: str
    workspace_id: str | None
    actor_type: str | None
    actor_id: str | None
    subject: str | None
    detail: str
    request_id: str | None


def entry(
    caller: Caller | None,
    action: str,
    *,
    subject: str | None = None,
    workspace_id: str | None = None,
    detail: Detail | None = None,
) -> Entry:
    """An entry of the request at hand. `workspace_id` is for actions without a caller of that workspace."""
    return Entry(
        action=action,
        workspace_id=workspace_id or (caller.workspace_id if caller else None),
        actor_type=caller.actor.type if caller else None,
        actor_id=caller.actor.id if caller else None,
        subject=subject,
        detail=json.dumps(dict(detail or {}), ensure_ascii=False, sort_keys=True, separators=(",", ":")),
        request_id=REQUEST_ID.get(),
    )


async def append(transaction: Transaction, *entries: Entry) -> None:
    """Append to the chain as part of `transaction`. Call it last: from here to the commit nobody else can append."""
    if not entries:
        return
    head = await transaction.fetch_one(_LOCK_HEAD, {})
    assert head is not None
    sha256 = bytes(head["sha256"])
    last = head["seq"] + len(entries)
    for seq, one in enumerate(entries, start=head["seq"] + 1):
        now = clock.now()
        row = {
            "seq": seq, "at": now, "workspace_id": one.workspace_id, "actor_type": one.actor_type,
            "actor_id": one.actor_id, "action": one.action, "subject": one.subject, "detail": one.detail,
            "request_id": one.request_id,
        }  # fmt: skip
        sha256 = chain.digest(sha256, row)
        statement = _INSERT_LAST if seq == last else _INSERT
        await transaction.execute(statement, {**row, "now": now, "sha256": sha256})
