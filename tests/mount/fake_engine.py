"""An engine in memory, with the interface of the real one: it shows what a file system asks of it."""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.mount.door.entries import Change, Entry
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Refused
from app.mount.sync.kept import KeptTexts


class FakeEngine(StoreEngine):
    """One store. What others do to it is done with `other_…`; what the file system asked for stands in `asked`."""

    def __init__(self) -> None:
        self.on_change: Callable[[list[Change]], None] = lambda changes: None
        self.on_feed: Callable[[str], None] = lambda mode: None
        self.delay = 0.0
        """Seconds that every call takes which would ask the server."""
        self.refusal: Refused | None = None
        """What saves and renames fail with."""
        self.feed = "live"
        self.archived = False
        self.gone = False
        self.forgets_content = False
        """Nothing is at hand: every read must fetch."""
        self.asked: list[tuple[str, ...]] = []
        self.fetched: list[str] = []
        self.may_go_on = threading.Event()
        """Cleared by a test: calls that would ask the server wait for it."""
        self.may_go_on.set()
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._stored: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self.kept = KeptTexts(Path("/dev/null/nowhere"))
        """Takes nothing, until a test says where."""

    # What tests look at and do.

    def texts(self) -> dict[str, str]:
        """Path and text of every memory."""
        with self._lock:
            return {path: self._stored[entry.sha256].decode() for path, entry in sorted(self._entries.items())}

    def other_writes(self, path: str, text: str) -> Entry:
        """Somebody else creates or changes a memory."""
        with self._lock:
            entry = self._put(path, text.encode())
        self.on_change([Change(path, entry)])
        return entry

    def other_removes(self, path: str) -> None:
        """Somebody else deletes a memory."""
        with self._lock:
            del self._entries[path]
        self.on_change([Change(path, None)])

    def other_renames(self, path: str, new_path: str) -> None:
        """Somebody else renames a memory."""
        with self._lock:
            entry = self._move(path, new_path)
        self.on_change([Change(new_path, entry, path)])

    def _put(self, path: str, data: bytes) -> Entry:
        digest = hashlib.sha256(data).hexdigest()
        self._stored[digest] = data
        old = self._entries.get(path)
        memory_id = old.memory_id if old else f"mem_{next(self._numbers):04}"
        entry = Entry(path, memory_id, f"memver_{next(self._numbers):04}", digest, len(data), time.time_ns())
        self._entries[path] = entry
        return entry

    def _move(self, path: str, new_path: str) -> Entry:
        old = self._entries.pop(path)
        version = f"memver_{next(self._numbers):04}"
        entry = Entry(new_path, old.memory_id, version, old.sha256, old.size, old.mtime_ns)
        self._entries[new_path] = entry
        return entry

    def _ask(self, *what: str) -> None:
        self.may_go_on.wait()
        time.sleep(self.delay)
        self.asked.append(what)
        if self.refusal is not None:
            raise self.refusal

    # The engine's interface.

    def start(self) -> None:
        pass

    def stop(self, timeout: float, *, keep: bool = True) -> list[str]:
        return []

    def view(self) -> Mapping[str, Entry]:
        with self._lock:
            return dict(self._entries)

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def at_hand(self, entry: Entry) -> bytes | None:
        return None if self.forgets_content else self._stored[entry.sha256]

    def fetch(self, entry: Entry) -> bytes:
        self.may_go_on.wait()
        time.sleep(self.delay)
        self.fetched.append(entry.path)
        return self._stored[entry.sha256]

    def is_stored(self, entry: Entry) -> bool:
        there = self._entries.get(entry.path)
        return there is not None and there.version_id == entry.version_id

    def author(self, entry: Entry) -> str | None:
        self.may_go_on.wait()
        if self.refusal is not None:
            raise self.refusal
        return f"user_actor:author of {entry.version_id}"

    def save(
        self, path: str, data: bytes, base: Entry | None, *, base_text: bytes | None = None, durable: bool = False
    ) -> Entry:
        digest = hashlib.sha256(data).hexdigest()
        current = self._entries.get(path)
        if current is not None and current.sha256 == digest:
            return current
        self._ask("save", path, *(["durable"] if durable else []))
        told: list[Change] = []
        with self._lock:
            current = self._entries.get(path)
            if current is None or (base is not None and base.sha256 == current.sha256):
                return self._put(path, data)
            before = self._stored.get(base.sha256, b"") if base is not None else b""
            theirs = self._stored[current.sha256]
            if data.startswith(before) and theirs.startswith(before):
                return self._put(path, theirs + data[len(before) :])
            stem, dot, extension = path.rpartition(".")
            beside = f"{stem}.conflict-fake{dot}{extension}"
            told.append(Change(beside, self._put(beside, data)))
        self.on_change(told)
        return current

    def remove(self, entry: Entry) -> None:
        self._ask("remove", entry.path)
        with self._lock:
            current = self._entries.get(entry.path)
            if current is not None and current.sha256 == entry.sha256:
                del self._entries[entry.path]

    def rename(self, entry: Entry, new_path: str, *, onto: Entry | None = None) -> Entry:
        self._ask("rename", entry.path, new_path, *(["onto"] if onto else []))
        with self._lock:
            if onto is None:
                return self._move(entry.path, new_path)
            source = self._entries.pop(entry.path)
            return self._put(new_path, self._stored[source.sha256])

    def rename_tree(self, old: str, new: str) -> None:
        self._ask("rename_tree", old, new)
        with self._lock:
            for path in [path for path in self._entries if path.startswith(old)]:
                self._move(path, new + path[len(old) :])

    def flush(self, timeout: float | None) -> list[str]:
        return []

    def status(self) -> dict[str, Any]:
        known = {"feed": self.feed, "archived": self.archived, "gone": self.gone}
        return {
            **known,
            "connected": True,
            "pending": [],
            "refused": [],
            "kept": [one.to_json() for one in self.kept.list()],
        }
