"""What brings memories back to earlier versions: which are deleted, changed and made again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.contract import paths
from app.contract.errors import InvalidRequest, PathConflict
from app.history.ordering import lawful_order
from app.storage.rows.database import Row
from app.storage.rows.tables import CREATED, DELETED, MODIFIED


@dataclass(frozen=True, slots=True)
class Change:
    """One memory's change, and so one version.

    `memory`: its row as it is, None if it is deleted. `source`: the version whose content it gets, None for a
    deletion. `path`: where it will be, or was when it is deleted.
    """

    memory: Row | None
    source: Row | None
    path: str

    @property
    def operation(self) -> int:
        """What the version will say."""
        if self.source is None:
            return DELETED
        return CREATED if self.memory is None else MODIFIED

    @property
    def memory_id(self) -> str:
        """The memory, which keeps its ID in any case."""
        memory_id: str
        if self.memory is not None:
            memory_id = self.memory["id"]
        else:
            assert self.source is not None
            memory_id = self.source["memory_id"]
        return memory_id

    @property
    def bytes_change(self) -> int:
        """By how many bytes of UTF-8 the store's contents grow."""
        before: int = 0 if self.memory is None else self.memory["content_size"]
        after: int = 0 if self.source is None else self.source["content_size"]
        return after - before


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes in the order of their versions: deletions, then the live memories, then those made again.

    `skipped`: redacted versions that were in force; their memories stay as they are.
    """

    changes: Sequence[Change]
    skipped: Sequence[Row] = ()

    def of(self, operation: int) -> list[Change]:
        """The changes of one kind."""
        return [change for change in self.changes if change.operation == operation]

    @property
    def count_change(self) -> int:
        """By how many memories the store grows."""
        return len(self.of(CREATED)) - len(self.of(DELETED))

    @property
    def bytes_change(self) -> int:
        """By how many bytes of UTF-8 the store's contents grow."""
        return sum(change.bytes_change for change in self.changes)

    @property
    def live(self) -> list[str]:
        """The IDs of the live memories that it changes."""
        return [change.memory_id for change in self.changes if change.memory is not None]

    @property
    def loses(self) -> bool:
        """Whether a memory is deleted and not replaced."""
        made = {change.memory_id for change in self.of(CREATED)}
        return any(change.memory_id not in made for change in self.of(DELETED))


def restoring(memory: Row | None, source: Row, path: str) -> Plan:
    """One memory back to a version of it, at a path; an empty plan if it is so already."""
    if memory is not None and _is_so(memory, source, path):
        return Plan([])
    return Plan([Change(memory, source, path)])


def rolling_back(current: Iterable[Row], target: Sequence[Row]) -> Plan:
    """All memories of a store (`current`) back to the versions of an earlier state (`target`).

    Of memories that exchange their places, one is deleted first and made again last, since no two may be at one path.
    """
    live = {memory["id"]: memory for memory in current}
    skipped = [version for version in target if version["redacted_at"] is not None]
    wanted = {version["memory_id"] for version in target}
    deleted = {
        memory["id"]: Change(memory, None, memory["path"]) for memory in live.values() if memory["id"] not in wanted
    }
    restored = [
        change
        for version in target
        if version["redacted_at"] is None
        for change in restoring(live.get(version["memory_id"]), version, version["path"]).changes
    ]
    changed = {change.memory_id: change for change in restored if change.memory is not None}
    moves = {memory_id: (live[memory_id]["path"], change.path) for memory_id, change in changed.items()}
    places = {memory["id"]: memory["path"] for memory in live.values() if memory["id"] not in deleted}
    order, aside = lawful_order(places, moves)
    created = [change for change in restored if change.memory is None]
    for memory_id in aside:
        memory = live[memory_id]
        deleted[memory_id] = Change(memory, None, memory["path"])
        created.append(Change(None, changed[memory_id].source, changed[memory_id].path))
    return Plan(
        [
            *sorted(deleted.values(), key=lambda change: change.path.encode()),
            *(changed[memory_id] for memory_id in order),
            *sorted(created, key=lambda change: change.path.encode()),
        ],
        skipped,
    )


def _is_so(memory: Row, source: Row, path: str) -> bool:
    return memory["path"] == path and bytes(memory["content_sha256"]) == bytes(source["content_sha256"])


def refuse_conflicts(plan: Plan, current: Iterable[Row], seq: int) -> None:
    """Refuse a rollback to change `seq` after which two memories would be in each other's way.

    Raises:
        PathConflict: it is a memory that is left as it is.
        InvalidRequest: both were so then: `seq` is in the middle of a move of a directory.

    """
    gone = {change.memory_id for change in plan.of(DELETED)}
    final = {memory["id"]: memory["path"] for memory in current if memory["id"] not in gone}
    final |= {change.memory_id: change.path for change in plan.changes if change.operation != DELETED}
    skipped = {version["memory_id"] for version in plan.skipped}
    at: dict[str, str] = {}
    for memory_id, path in final.items():
        other = at.setdefault(path, memory_id)
        if other != memory_id:
            raise _conflict(memory_id, path, other, path, skipped, seq)
    for memory_id, path in final.items():
        for directory in paths.ancestors(path):
            if directory in at:
                raise _conflict(memory_id, path, at[directory], directory, skipped, seq)


def _conflict(memory_id: str, path: str, other: str, place: str, skipped: set[str], seq: int) -> Exception:
    if other in skipped:
        return PathConflict(path, other, place)
    if memory_id in skipped:
        return PathConflict(place, memory_id, path)
    return InvalidRequest(
        f"change {seq} is in the middle of a move: after it, {path!r} and {place!r} were in each other's way; "
        "choose a change before the move, or its last one"
    )
