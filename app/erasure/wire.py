"""Shapes of erasures on the wire. Ours: the vendor has none."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.contract import actors, clock, ids
from app.contract.limits import METADATA_MAX_PAIRS
from app.erasure.names import ERASE, VERIFY
from app.erasure.plan import Hit, Plan, PlannedMemory, PlannedStore
from app.http.documents import (
    NO_NULLS,
    PATH_PATTERN,
    MemoryIdText,
    StoreIdText,
    Timestamp,
    VersionIdText,
    shape,
)
from app.jobs.queries import DONE, GIVEN_UP
from app.storage.rows.database import Row

MOST_STORES = 1_000
"""Stores that one request can name."""
MOST_SHOWN = 1_000
"""Of each kind of thing that a dry run finds, so many are shown."""
TEXT_MAX_CHARACTERS = 4_096

Status = Literal["in_progress", "finished", "given_up"]
_Count = Annotated[int, shape(minimum=0)]
ERASURE_PATTERN = rf"^{ids.ERASURE}_01[1-9A-HJ-NP-Za-km-z]{{22}}$"
ErasureIdText = Annotated[str, shape(pattern=ERASURE_PATTERN)]
_Prefix = Annotated[str, shape(pattern=rf"^(/|{PATH_PATTERN[1:-1]}/?)$")]
_Text = Annotated[str, shape(minLength=1, maxLength=TEXT_MAX_CHARACTERS, pattern=NO_NULLS)]

# Requests


class CreateErasure(BaseModel):
    """What to erase. Stores alone go whole; with `path_prefix` or `contains`, those memories of them go."""

    model_config = ConfigDict(extra="forbid", strict=True)

    memory_store_ids: Annotated[list[StoreIdText], shape(minItems=1, maxItems=MOST_STORES)] | None = Field(
        None, description="These stores. One that was deleted before is taken if traces of it are left."
    )
    metadata: Annotated[dict[str, str], shape(minProperties=1, maxProperties=METADATA_MAX_PAIRS)] | None = Field(
        None,
        description="Stores whose metadata has all these pairs, exact but for the canonical form of Unicode.",
        examples=[{"user": "u_123"}],
    )
    path_prefix: _Prefix | None = Field(
        None,
        description="Not whole stores but the memories that are or were at this path or below it.",
        examples=["/customers/anna/"],
    )
    contains: _Text | None = Field(
        None,
        description="Not whole stores but the memories with this text, in whatever spelling, in a path or content, of "
        "any version. The text is kept nowhere, so it is looked for while you wait.",
        examples=["Anna Berg"],
    )
    dry_run: bool = Field(False, description="Only show what would go.")


# Answers


class ErasurePlanStore(TypedDict):
    """A store that would go whole. `name` is null where only traces of it are left.

    `found_in` tells what of it has the text that was looked for.
    """

    id: StoreIdText
    workspace_id: str | None
    name: str | None
    memories: _Count
    versions: _Count
    sessions: _Count
    held_at: Timestamp | None
    found_in: list[str]


class ErasurePlanMemory(TypedDict):
    """A memory that would go with all its versions; `bytes` are those of all of them."""

    id: MemoryIdText
    memory_store_id: StoreIdText
    path: str
    live: bool
    versions: _Count
    bytes: _Count


ErasurePlanHit = TypedDict(
    "ErasurePlanHit",
    {
        "memory_store_id": StoreIdText,
        "memory_id": MemoryIdText,
        "memory_version_id": VersionIdText,
        "path": str,
        "in": Literal["path", "content"],
        "before": str,
        "text": str,
        "after": str,
    },
)
"""A place where the text was found, as it is spelled there, with a few words around it."""


class ErasurePlan(TypedDict):
    """What an erasure would do. Of stores, memories and hits the first 1,000 of each are shown, and all counted.

    `texts` are sessions, agents, environments and keys that would lose the text, `kept_texts` those that keep it, since
    it is in use: `kind`, `id` and the names of the fields.
    """

    type: Literal["erasure_plan"]
    counts: dict[str, int]
    stores: list[ErasurePlanStore]
    memories: list[ErasurePlanMemory]
    hits: list[ErasurePlanHit]
    texts: list[dict[str, Any]]
    kept_texts: list[dict[str, Any]]
    held: list[StoreIdText]
    unreadable_contents: _Count


class ErasureFinding(TypedDict):
    """Something that is left. `what` names a row, an object or a column, never a content."""

    place: str
    what: str


class ErasureVerification(TypedDict):
    """What the search for leftovers found after the erasure; of findings the first 1,000."""

    verified_at: Timestamp
    nothing_left: bool
    problems: list[str]
    findings: list[ErasureFinding]
    not_searched: list[str]


class Erasure(TypedDict):
    """An erasure. `report` is there when it is finished, `verification` some time later, for a week.

    `error` says why the last attempt failed.
    """

    type: Literal["erasure"]
    id: ErasureIdText
    status: Status
    created_at: Timestamp
    finished_at: Timestamp | None
    actor: dict[str, str] | None
    error: str | None
    report: dict[str, Any] | None
    verification: ErasureVerification | None


def planned(plan: Plan, most: int | None = None) -> dict[str, Any]:
    """A plan as JSON; of stores, memories and hits `most` each."""
    return {
        "stores": [_store(one) for one in plan.stores[:most]],
        "memories": [_memory(one) for one in plan.memories[:most]],
        "hits": [_hit(one) for one in plan.hits[:most]],
        "texts": plan.changed_texts[:most],
        "kept_texts": plan.kept_texts[:most],
        "held": sorted(
            {one.id for one in plan.stores if one.held_at} | {k for k, v in plan.touched.items() if v["held_at"]}
        ),
        "unreadable_contents": plan.unreadable,
    }


def _store(one: PlannedStore) -> ErasurePlanStore:
    return {
        "id": one.id,
        "workspace_id": one.workspace_id,
        "name": one.name,
        "memories": one.memories,
        "versions": one.versions,
        "sessions": one.sessions,
        "held_at": clock.rfc3339_or_none(one.held_at),
        "found_in": list(one.found_in),
    }


def _memory(one: PlannedMemory) -> ErasurePlanMemory:
    return {
        "id": one.id,
        "memory_store_id": one.store_id,
        "path": one.path,
        "live": one.live,
        "versions": one.versions,
        "bytes": one.bytes,
    }


def _hit(one: Hit) -> dict[str, str]:
    return {
        "memory_store_id": one.store_id,
        "memory_id": one.memory_id,
        "memory_version_id": one.version_id,
        "path": one.path,
        "in": one.place,
        "before": one.before,
        "text": one.text,
        "after": one.after,
    }


def plan(made: Plan) -> ErasurePlan:
    """A plan as the wire shows it."""
    counts = {"stores": len(made.stores), "memories": len(made.memories), "hits": len(made.hits)}
    shown: ErasurePlan = {"type": "erasure_plan", "counts": counts, **planned(made, MOST_SHOWN)}  # type: ignore[typeddict-item]
    return shown


def erasure(row: Row, jobs: Sequence[Row], report: dict[str, Any] | None) -> Erasure:
    """An erasure's row as the wire shows it. jobs: those about it, newest first."""
    erasing = next((job for job in jobs if job["kind"] == ERASE), None)
    verifying = next((job for job in jobs if job["kind"] == VERIFY), None)
    is_finished = row["finished_at"] is not None
    status: Status = "finished" if is_finished else "in_progress"
    error: str | None = None
    if not is_finished and (erasing is None or erasing["state"] == GIVEN_UP):
        status = "given_up"
    if not is_finished and erasing is not None:
        error = erasing["error"]
    elif is_finished and verifying is not None:
        error = verifying["error"]
    return {
        "type": "erasure",
        "id": row["id"],
        "status": status,
        "created_at": clock.rfc3339(row["started_at"]),
        "finished_at": clock.rfc3339_or_none(row["finished_at"]),
        "actor": actors.wire(row["actor_type"], row["actor_id"]),
        "error": error,
        "report": report,
        "verification": _verification(verifying),
    }


def _verification(job: Row | None) -> ErasureVerification | None:
    if job is None or job["state"] != DONE:
        return None
    found: dict[str, Any] = json.loads(job["result"])
    return {
        "verified_at": clock.rfc3339(job["finished_at"]),
        "nothing_left": found["nothing_left"],
        "problems": found["problems"],
        "findings": found["findings"],
        "not_searched": found["not_searched"],
    }
