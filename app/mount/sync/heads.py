"""What the server has of a store, as far as it is known: each memory by its ID, and by its path."""

from collections.abc import Collection, Mapping

from app.mount.door.entries import Entry


class Heads:
    """The caller holds one lock around every call.

    News comes by several ways and not always in its order, so two memories can claim one path for a moment. One of
    them has it then; the other one stands behind, and gets it when the first one leaves.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Entry] = {}
        self._by_path: dict[str, Entry] = {}
        self._behind: dict[str, dict[str, Entry]] = {}

    @property
    def by_id(self) -> Mapping[str, Entry]:
        """Every memory."""
        return self._by_id

    @property
    def by_path(self) -> Mapping[str, Entry]:
        """The one that has the path."""
        return self._by_path

    def put(self, entry: Entry, *, yields_to: Collection[str] = ()) -> None:
        """Add a memory, or change the one with this ID. yields_to: memories before which it does not take a path."""
        assert entry.memory_id is not None
        self.take(entry.memory_id)
        self._by_id[entry.memory_id] = entry
        holder = self._by_path.get(entry.path)
        if holder is not None:
            assert holder.memory_id is not None
            if holder.memory_id in yields_to:
                self._behind.setdefault(entry.path, {})[entry.memory_id] = entry
                return
            self._behind.setdefault(entry.path, {})[holder.memory_id] = holder
        self._by_path[entry.path] = entry

    def take(self, memory_id: str) -> Entry | None:
        """Remove a memory, and return what it was."""
        entry = self._by_id.pop(memory_id, None)
        if entry is None:
            return None
        behind = self._behind.get(entry.path, {})
        if self._by_path[entry.path] is not entry:
            del behind[memory_id]
        elif behind:
            self._by_path[entry.path] = behind.popitem()[1]
        else:
            del self._by_path[entry.path]
        if not behind:
            self._behind.pop(entry.path, None)
        return entry
