"""Shapes of the history on the wire. They are ours: the vendor's API has none of these routes."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.contract import actors, clock
from app.contract.limits import PAGE_LIMIT_MAX, PATH_MAX_BYTES
from app.history.as_of import StatePage as FoundPage
from app.history.blame import Blamed, BlamedLine
from app.history.comparing import Comparison
from app.history.limits import ROLLBACK_MAX_CHANGES
from app.history.lines import Hunk
from app.history.plans import Change
from app.history.points import Point
from app.history.rollback import RolledBack
from app.http.documents import (
    PREFIX_PATTERN,
    MemoryIdText,
    MemoryPath,
    Omittable,
    StoreIdText,
    Timestamp,
    VersionIdText,
    shape,
)
from app.http.pages import (
    CURSOR_PATTERN,
    SEQUENCE_MAX,
    SEQUENCE_NUMBER,
    Moment,
    QueryModel,
    View,
    ViewedPageQuery,
)
from app.memories.wire import ContentPrecondition
from app.versions import wire as version_wire
from app.versions.operations import OPERATION_NAMES, Operation
from app.versions.service import FoundVersion
from app.versions.wire import Actor, MemoryVersion

Number = Annotated[int, shape(minimum=0)]
LineNumber = Annotated[int, shape(minimum=1)]

# Queries and bodies


class Comparing(QueryModel):
    """What to compare."""

    to_id: Omittable[str] = Field(
        None,
        alias="to",
        description="ID of the version to get to; by default the newest of the memory of `from`, or of the store.",
    )
    from_id: Omittable[str] = Field(
        None,
        alias="from",
        description="ID of the version to start from; by default the one before `to` of the same memory.",
    )


class PointQuery(QueryModel):
    """A point in a store's history: exactly one of the two."""

    at: Omittable[Moment] = Field(None, description="The state at this time (RFC 3339).")
    seq: Omittable[Annotated[int, Field(ge=0, le=SEQUENCE_MAX), SEQUENCE_NUMBER]] = Field(
        None, description="The state after this change; 0 is before the first."
    )

    @property
    def point(self) -> Point:
        """The point; refused unless it is exactly one."""
        return Point(self.seq, clock.microseconds_or_none(self.at))


class ListAsOf(PointQuery, ViewedPageQuery):
    """Query of a listing of a past state."""

    path_prefix: str = Field(
        "/",
        description="Only memories that were below this directory; starts and ends with `/`, or empty. Redacted "
        "versions have lost their path and are listed last in any case.",
        json_schema_extra={"maxLength": PATH_MAX_BYTES + 1, "pattern": PREFIX_PATTERN},
    )


class RetrieveAsOf(PointQuery):
    """Query of one memory in a past state."""

    view: View = Field("full", description="`basic` leaves the content out.")


class Restore(BaseModel):
    """Body of a restore; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: MemoryPath | None = Field(None, examples=["/customers/lisboa-restored.md"])
    precondition: ContentPrecondition | None = None


class RollBack(BaseModel):
    """Body of a rollback: exactly one of `at` and `seq`."""

    model_config = ConfigDict(extra="forbid")

    at: Moment | None = Field(None, description="The state at this time (RFC 3339).")
    seq: Annotated[int, Field(ge=0, le=SEQUENCE_MAX, strict=True)] | None = Field(
        None, description="The state after this change; 0 is before the first."
    )
    dry_run: Annotated[bool, Field(strict=True)] = Field(False, description="Only tell what would change.")
    skip_redacted: Annotated[bool, Field(strict=True)] = Field(
        False, description="Leave memories as they are whose version of then is redacted, instead of refusing."
    )

    @property
    def point(self) -> Point:
        """The point; refused unless it is exactly one."""
        return Point(self.seq, clock.microseconds_or_none(self.at))


# Answers


class ComparisonLine(TypedDict):
    """One line of a hunk, without its line feed. Line numbers count from 1; null on the side that does not have it."""

    type: Literal["context", "removed", "added"]
    from_line: LineNumber | None
    to_line: LineNumber | None
    text: str
    has_line_feed: bool


class ComparisonHunk(TypedDict):
    """Changed lines and three around them. A side's start is the line before the hunk if its count is 0."""

    from_start: Number
    from_count: Number
    to_start: Number
    to_count: Number
    lines: list[ComparisonLine]


class MemoryVersionComparison(TypedDict):
    """How to get from one version to another. `from_version` is null where `to_version` is a memory's first.

    `unified` is what `diff -u` prints, empty if the texts are the same. Both versions are without content.
    """

    type: Literal["memory_version_comparison"]
    memory_store_id: StoreIdText
    from_version: MemoryVersion | None
    to_version: MemoryVersion
    path_changed: bool
    content_changed: bool
    added_lines: Number
    removed_lines: Number
    unified: str
    hunks: list[ComparisonHunk]


class StatePage(TypedDict):
    """The versions that were in force after change `seq`. `next_page` is null on the last page."""

    data: Annotated[list[MemoryVersion], shape(maxItems=PAGE_LIMIT_MAX)]
    seq: Number
    next_page: Annotated[str, shape(pattern=CURSOR_PATTERN)] | None


class RollbackChange(TypedDict):
    """One change of one memory, done or not. A memory that exchanges its place with others may be in two of them.

    `path`: where it is now, or was when it was deleted; `previous_path`: where it was before, null if it was deleted.
    `restored_version_id`: whose content it got; `memory_version_id`: its new version, null in a dry run.
    """

    operation: Operation
    memory_id: MemoryIdText
    path: MemoryPath
    previous_path: MemoryPath | None
    restored_version_id: VersionIdText | None
    memory_version_id: VersionIdText | None


class SkippedMemory(TypedDict):
    """A memory that stays as it is, since its version of then is redacted."""

    memory_id: MemoryIdText
    memory_version_id: VersionIdText
    reason: Literal["redacted"]


class MemoryStoreRollback(TypedDict):
    """A store is back at the state after change `seq`; its newest change is `last_seq`. In a dry run it would be."""

    type: Literal["memory_store_rollback"]
    memory_store_id: StoreIdText
    seq: Number
    last_seq: Number
    dry_run: bool
    changes: Annotated[list[RollbackChange], shape(maxItems=ROLLBACK_MAX_CHANGES)]
    skipped: list[SkippedMemory]


class BlamedRange(TypedDict):
    """Neighbouring lines of one origin, numbered from 1, both ends included.

    `doubt` is null where the version is known to have brought them. `expired`: it is the oldest one that is left, and
    an earlier one may have. `redacted`: the version before it is redacted, and may have.
    """

    first_line: LineNumber
    last_line: LineNumber
    memory_version_id: VersionIdText
    created_at: Timestamp
    created_by: Actor | None
    doubt: Literal["expired", "redacted"] | None
    text: str


class MemoryBlame(TypedDict):
    """The author of each line of a memory's newest content, that of `memory_version_id`."""

    type: Literal["memory_blame"]
    memory_store_id: StoreIdText
    memory_id: MemoryIdText
    memory_version_id: VersionIdText
    path: MemoryPath
    ranges: list[BlamedRange]


def comparison(found: Comparison) -> MemoryVersionComparison:
    """A comparison as the wire shows it."""
    before, after = found.before, found.after
    lines = [line for hunk in found.hunks for line in hunk.lines]
    return {
        "type": "memory_version_comparison",
        "memory_store_id": after.row["store_id"],
        "from_version": None if before is None else _without_content(before),
        "to_version": _without_content(after),
        "path_changed": found.is_renamed,
        "content_changed": (None if before is None else before.content) != after.content,
        "added_lines": sum(line.from_line is None for line in lines),
        "removed_lines": sum(line.to_line is None for line in lines),
        "unified": found.unified,
        "hunks": [_hunk(hunk) for hunk in found.hunks],
    }


def _without_content(found: FoundVersion) -> MemoryVersion:
    return version_wire.version(FoundVersion(found.row, None))


def _hunk(hunk: Hunk) -> ComparisonHunk:
    return {
        "from_start": hunk.from_start,
        "from_count": hunk.from_count,
        "to_start": hunk.to_start,
        "to_count": hunk.to_count,
        "lines": [
            {
                "type": "added" if line.from_line is None else "removed" if line.to_line is None else "context",
                "from_line": line.from_line,
                "to_line": line.to_line,
                "text": line.text.removesuffix("\n"),
                "has_line_feed": line.text.endswith("\n"),
            }
            for line in hunk.lines
        ],
    }


def state_page(found: FoundPage) -> StatePage:
    """A page of a past state as the wire shows it."""
    return {
        "data": [version_wire.version(version) for version in found.found],
        "seq": found.seq,
        "next_page": found.next_page,
    }


def rollback(store_id: str, done: RolledBack) -> MemoryStoreRollback:
    """A rollback as the wire shows it."""
    changes = done.plan.changes
    version_ids: Sequence[str | None] = done.version_ids if done.version_ids is not None else [None] * len(changes)
    return {
        "type": "memory_store_rollback",
        "memory_store_id": store_id,
        "seq": done.seq,
        "last_seq": done.last_seq,
        "dry_run": done.version_ids is None,
        "changes": [_change(change, made) for change, made in zip(changes, version_ids, strict=True)],
        "skipped": [
            {"memory_id": row["memory_id"], "memory_version_id": row["id"], "reason": "redacted"}
            for row in done.plan.skipped
        ],
    }


def _change(change: Change, version_id: str | None) -> RollbackChange:
    return {
        "operation": OPERATION_NAMES[change.operation],
        "memory_id": change.memory_id,
        "path": change.path,
        "previous_path": None if change.memory is None else change.memory["path"],
        "restored_version_id": None if change.source is None else change.source["id"],
        "memory_version_id": version_id,
    }


def blame(found: Blamed) -> MemoryBlame:
    """A blame as the wire shows it."""
    version = found.version
    return {
        "type": "memory_blame",
        "memory_store_id": version["store_id"],
        "memory_id": version["memory_id"],
        "memory_version_id": version["id"],
        "path": version["path"],
        "ranges": list(_ranges(found.lines)),
    }


def _ranges(lines: Sequence[BlamedLine]) -> Iterator[BlamedRange]:
    number = 0
    for _, group in groupby(lines, key=lambda line: (line.origin.version["id"], line.origin.doubt)):
        ranged = list(group)
        origin = ranged[0].origin
        yield {
            "first_line": number + 1,
            "last_line": number + len(ranged),
            "memory_version_id": origin.version["id"],
            "created_at": clock.rfc3339(origin.version["created_at"]),
            "created_by": actors.wire(  # type: ignore[typeddict-item]
                origin.version["actor_type"], origin.version["actor_id"]
            ),
            "doubt": origin.doubt,  # type: ignore[typeddict-item]
            "text": "".join(line.text for line in ranged),
        }
        number += len(ranged)
