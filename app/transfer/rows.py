"""The rows of an import, made of its plan."""

from dataclasses import dataclass, field
from typing import Any

from app.contract import ids
from app.contract.actors import Caller
from app.storage.rows.tables import CREATED
from app.transfer.archives.spool import Spooled
from app.transfer.plan import Plan


@dataclass(slots=True)
class Rows:
    """The rows to write, with the parameters of their statements."""

    memories: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    stagers: dict[bytes, tuple[str, Spooled]] = field(default_factory=dict)
    """For each content, the version that stages it."""


def as_new(plan: Plan, store_id: str, caller: Caller, now: int) -> Rows:
    """One version for each memory, by the caller, now."""
    rows = Rows()
    for memory in plan.memories:
        version_id = ids.new(ids.VERSION)
        row = {
            "store_id": store_id, "memory_id": ids.new(ids.MEMORY), "version_id": version_id, "path": memory.path,
            "sha256": memory.content.sha256, "size": memory.content.size, "created_at": now, "updated_at": now,
        }  # fmt: skip
        author = {"operation": CREATED, "actor_type": caller.actor.type, "actor_id": caller.actor.id}
        rows.memories.append(row)
        rows.versions.append({**row, **author, "redacted_at": None, "redacted_by_type": None, "redacted_by_id": None})
        rows.stagers.setdefault(memory.content.sha256, (version_id, memory.content))
    return rows


def with_history(plan: Plan, store_id: str) -> Rows:
    """The versions as they were, under new IDs, and the memories that are left of them."""
    rows, memory_ids, version_ids = Rows(), dict[str, str](), dict[str, str]()
    for version in plan.versions or ():
        version_id = version_ids[version.origin_version] = ids.new(ids.VERSION)
        content = version.content
        rows.versions.append(
            {
                "store_id": store_id,
                "memory_id": memory_ids.setdefault(version.origin, ids.new(ids.MEMORY)),
                "version_id": version_id,
                "operation": version.operation,
                "path": version.path,
                "sha256": content.sha256 if content else None,
                "size": content.size if content else None,
                "created_at": version.created_at,
                "actor_type": version.actor_type,
                "actor_id": version.actor_id,
                "redacted_at": version.redacted_at,
                "redacted_by_type": version.redacted_by_type,
                "redacted_by_id": version.redacted_by_id,
            }
        )
        if content is not None:
            rows.stagers.setdefault(content.sha256, (version_id, content))
    for memory in plan.memories:
        assert memory.origin is not None
        rows.memories.append(
            {
                "store_id": store_id,
                "memory_id": memory_ids[memory.origin],
                "version_id": version_ids[plan.heads[memory.origin]],
                "path": memory.path,
                "sha256": memory.content.sha256,
                "size": memory.content.size,
                "created_at": memory.created_at,
                "updated_at": memory.updated_at,
            }
        )
    return rows
