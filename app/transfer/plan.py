"""What an import is going to write, once everything that comes in has been looked at."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from app.contract import paths
from app.transfer.archives.spool import Spooled


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something that is not imported, and why. `path` is as the source names it."""

    path: str
    reason: str

    def wire(self) -> dict[str, str]:
        """As commands and routes show it."""
        return {"path": self.path, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to come. `origin` is its ID where it comes from; times are microseconds, None is now."""

    path: str
    content: Spooled
    origin: str | None = None
    created_at: int | None = None
    updated_at: int | None = None


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to come; fields as the table's. `origin` is the ID of its memory where it comes from."""

    origin: str
    origin_version: str
    operation: int
    path: str | None
    content: Spooled | None
    created_at: int
    actor_type: str | None
    actor_id: str | None
    redacted_at: int | None = None
    redacted_by_type: str | None = None
    redacted_by_id: str | None = None


@dataclass(slots=True)
class Plan:
    """All of it. `skipped` is left out by convention, `refused` because something is wrong with it."""

    memories: list[NewMemory] = field(default_factory=list)
    versions: list[NewVersion] | None = None
    """The history, oldest first; None: there is none, and each memory begins with one version."""
    heads: dict[str, str] = field(default_factory=dict)
    """With a history, the version that is the head of each memory, both by their IDs where they come from."""
    skipped: list[Rejection] = field(default_factory=list)
    refused: list[Rejection] = field(default_factory=list)
    name: str | None = None
    description: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def refuse_clashes(
    items: Iterable[Any], path_of: Callable[[Any], str], taken: Callable[[str], bool]
) -> Iterable[tuple[Any, str]]:
    """Those of `items` that can't be beside the others, each with the reason. `taken`: in the store already."""
    items = list(items)
    everything = {path_of(item) for item in items}
    directories = {directory for path in everything for directory in paths.ancestors(path)}
    seen: set[str] = set()
    for item in items:
        path = path_of(item)
        if path in seen:
            yield item, "clashes with another file of the same path"
        elif path in directories:
            yield item, "clashes with a directory of the same name: a path can't be both"
        elif taken(path):
            yield item, "clashes with a memory that is in the store"
        seen.add(path)
