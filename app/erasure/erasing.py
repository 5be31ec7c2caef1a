"""One erasure under way, as its steps see it; and the search for what one has left, as its looks see it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.contract.actors import Actor
from app.erasure.digests import digest
from app.storage.storage import Storage


@dataclass(slots=True)
class Erasing:
    """What is to be erased, and by whom. Every step of it can be done again."""

    storage: Storage
    id: str
    actor: Actor
    salt: bytes
    stores: Sequence[str]
    """Stores that go whole."""
    within: Sequence[str]
    """Stores that lose memories and stay."""
    open_stores: Sequence[str]
    """Of `stores`, those whose rows have not been marked yet."""
    open_memories: dict[str, list[str]]
    """Memories by store, whose rows have not been erased yet."""
    note: Callable[[str], None]
    """Report progress; takes a line without content, paths or names."""
    rows_gone: float = 0.0
    """When the last row was erased, on the monotonic clock."""
    kept_elsewhere: list[str] = field(default_factory=list)
    """What the storage itself keeps where nothing reaches."""
    progress: dict[str, Any] = field(default_factory=dict)
    """What the record says of how far it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an erasure should have left nowhere. `what` names a row, an object or a column, no content."""

    place: str
    what: str


@dataclass(frozen=True, slots=True)
class Search:
    """The digests that a report names, and the means to compare what is there with them."""

    storage: Storage
    salt: bytes
    stores: Collection[str]
    memories: Collection[str]
    versions: Collection[str]
    within: Collection[str]

    def is_erased_store(self, store_id: str) -> bool:
        """Whether the report says that this store went whole."""
        return digest(self.salt, store_id) in self.stores

    def is_erased_memory(self, memory_id: str) -> bool:
        """Whether the report says that this memory went."""
        return digest(self.salt, memory_id) in self.memories

    def is_erased_version(self, version_id: str) -> bool:
        """Whether the report says that this version went."""
        return digest(self.salt, version_id) in self.versions

    def is_touched_store(self, store_id: str) -> bool:
        """Whether the report says that something in this store went."""
        return digest(self.salt, store_id) in self.within
