"""Where a text, or a memory, goes that can't go to its own path: a conflict file beside it."""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

from app.client.failures import PathTaken
from app.contract import clock
from app.mount.door.api import StoreApi
from app.mount.door.entries import Entry
from app.mount.sync.conflicts import conflict_path
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.intents import Intent
from app.mount.sync.state import StoreState


class Beside:
    """Finds paths beside others, and remembers which were taken. Thread-safe."""

    def __init__(
        self,
        api: StoreApi,
        state: StoreState,
        lock: threading.RLock,
        cache: ContentCache,
        *,
        label: str,
        read_again: Callable[[str], Entry | None],
    ) -> None:
        """label: for the names. read_again: brings the state of a memory, by its ID, to what the server has."""
        self._api = api
        self._state = state
        self._lock = lock
        self._cache = cache
        self._label = label
        self._read_again = read_again
        self.conflicts: list[dict[str, Any]] = []
        """For the status: `path`, `conflict_path`, `at`."""

    def keep(self, intent: Intent, path: str, data: bytes) -> str:
        """Save a text in a conflict file; its path. Raises what the API raises."""
        sha256 = hashlib.sha256(data).hexdigest()
        taken: set[str] = set()
        while True:
            with self._lock:
                beside = conflict_path(path, self._label, lambda name: name in taken or self._is_other(name, sha256))
                current = self._state.remote(beside)
            if current is None:
                try:
                    memory = self._api.create(beside, data)
                except PathTaken as error:
                    if error.conflicting_path == beside:
                        self._read_again(error.conflicting_memory_id)
                    else:
                        taken.add(beside)
                    continue
                self._cache.put(self._api.store_id, sha256, data)
                with self._lock:
                    self._state.apply_answer(memory.entry)
            intent.expected.clear()
            self.note(path, beside)
            return beside

    def free(self, path: str, taken: set[str]) -> str:
        """The nearest path where nothing is, and that is not among `taken`. With the lock."""
        return conflict_path(path, self._label, lambda name: name in taken or self._is_taken(name))

    def note(self, path: str, beside: str) -> None:
        """Tell the status of a conflict."""
        self.conflicts.append({"path": path, "conflict_path": beside, "at": clock.rfc3339(clock.now())})

    def _is_other(self, path: str, sha256: str) -> bool:
        """Whether the path is taken by another text; the same one is ours, from an attempt without an answer."""
        shown, there = self._state.view.get(path), self._state.remote(path)
        return any(entry is not None and entry.sha256 != sha256 for entry in (shown, there))

    def _is_taken(self, path: str) -> bool:
        return path in self._state.view or self._state.remote(path) is not None
