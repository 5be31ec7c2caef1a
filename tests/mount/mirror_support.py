"""A store in memory behind the engine's interface, and mirrors of it: what the tests of the mirror stand on."""

import contextlib
import errno
import hashlib
import itertools
import os
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.mount.door.entries import Change, Entry
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.sync.errors import Offline, Refused
from tests.support.waiting import until


def eventually(is_so: Callable[[], object], what: str = "") -> None:
    """Wait until something is so; fail if it never gets so."""
    until(is_so, what or "it never happened")


@dataclass(frozen=True)
class Version:
    """One line of the store's history."""

    operation: str
    memory_id: str
    path: str
    text: str


class FakeStore:
    """One store, with its history; several engines may show it."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.texts: dict[str, bytes] = {}
        self.history: list[Version] = []
        self.engines: list[FakeEngine] = []
        self.numbers = itertools.count(1)
        for path, text in (files or {}).items():
            self.put(path, text.encode())
        self.history.clear()

    def text(self, path: str) -> str | None:
        with self.lock:
            entry = self.entries.get(path)
            return None if entry is None else self.texts[entry.sha256].decode()

    def files(self) -> dict[str, str]:
        with self.lock:
            return {path: self.texts[entry.sha256].decode() for path, entry in sorted(self.entries.items())}

    def put(self, path: str, data: bytes, by: "FakeEngine | None" = None) -> Entry:
        """Create or update, as `by` or as an API client."""
        with self.lock:
            now = self.entries.get(path)
            entry = self._entry(path, data, now.memory_id if now else f"mem_{next(self.numbers)}")
            self.entries[path] = entry
            self._record("modified" if now else "created", entry)
        self.tell([Change(path, entry)], by)
        return entry

    def drop(self, path: str, by: "FakeEngine | None" = None) -> None:
        with self.lock:
            self._record("deleted", self.entries.pop(path))
        self.tell([Change(path, None)], by)

    def move(self, old: str, new: str, by: "FakeEngine | None" = None) -> Entry:
        with self.lock:
            entry = replace(self.entries.pop(old), path=new, version_id=f"ver_{next(self.numbers)}")
            self.entries[new] = entry
            self._record("modified", entry)
        self.tell([Change(new, entry, old_path=old)], by)
        return entry

    def tell(self, changes: list[Change], but: "FakeEngine | None") -> None:
        for engine in self.engines:
            if engine is not but and engine.connected:
                engine.on_change(changes)

    def _entry(self, path: str, data: bytes, memory_id: str | None) -> Entry:
        sha256 = hashlib.sha256(data).hexdigest()
        self.texts[sha256] = data
        return Entry(path, memory_id, f"ver_{next(self.numbers)}", sha256, len(data), time.time_ns() - 10**9)

    def _record(self, operation: str, entry: Entry) -> None:
        text = self.texts[entry.sha256].decode()
        self.history.append(Version(operation, str(entry.memory_id), entry.path, text))


class FakeEngine:
    """What `StoreEngine` promises, without a network. Faults are put in by setting its fields."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.on_change: Callable[[list[Change]], None] = lambda changes: None
        self.calls: list[tuple[str, ...]] = []
        self.refusals: dict[str, int] = {}
        """Path to the errno that a save there gets."""
        self.refused_late: list[dict[str, Any]] = []
        self.conflicts: list[dict[str, str]] = []
        self.offline = False
        self.connected = True
        """Whether others' changes are heard."""
        self.far = False
        """Whether contents have to be fetched."""
        store.engines.append(self)

    def view(self) -> dict[str, Entry]:
        with self.store.lock:
            return dict(self.store.entries)

    def get(self, path: str) -> Entry | None:
        return self.store.entries.get(path)

    def at_hand(self, entry: Entry) -> bytes | None:
        return None if self.far else self.store.texts[entry.sha256]

    def fetch(self, entry: Entry) -> bytes:
        if self.offline:
            raise Offline("the server does not answer")
        return self.store.texts[entry.sha256]

    def save(
        self, path: str, data: bytes, base: Entry | None, *, base_text: bytes | None = None, durable: bool = False
    ) -> Entry:
        self.calls.append(("save", path))
        if path in self.refusals:
            raise Refused(self.refusals[path], "the test says so")
        if self.offline:
            raise Offline("the server does not answer")
        try:
            data.decode()
        except UnicodeDecodeError:
            raise Refused(errno.EILSEQ, "is not UTF-8") from None
        check_path(path)
        with self.store.lock:
            now = self.store.entries.get(path)
            if now is None or (base is not None and now.sha256 == base.sha256):
                return self.store.put(path, data, self)
            if base is not None and data.startswith(old := self._base_text(base, base_text)):
                return self.store.put(path, self.store.texts[now.sha256] + data[len(old) :], self)
            beside = self.store.put(f"{path}.conflict-test", data, self)
            self.conflicts.append({"path": path, "conflict_path": beside.path})
        self.on_change([Change(path, now), Change(beside.path, beside)])
        raise Refused(errno.ESTALE, "ours is kept beside")

    def _base_text(self, base: Entry, base_text: bytes | None) -> bytes:
        """What the writer started from. Only a version has it for sure: any other text must be given."""
        text = self.store.texts.get(base.sha256, base_text)
        assert text is not None, f"the text that the edit of {base.path} started from is nowhere"
        assert hashlib.sha256(text).hexdigest() == base.sha256
        return text

    def remove(self, entry: Entry) -> None:
        self.calls.append(("remove", entry.path))
        now = self.store.entries.get(entry.path)
        if now is not None and now.sha256 == entry.sha256:
            self.store.drop(entry.path, self)

    def rename(self, entry: Entry, new_path: str, *, onto: Entry | None = None) -> Entry:
        self.calls.append(("rename", entry.path, new_path))
        if new_path in self.refusals:
            raise Refused(self.refusals[new_path], "the test says so")
        check_path(new_path)
        with self.store.lock:
            if entry.path not in self.store.entries:
                raise Refused(errno.ENOENT, "is gone")
            if onto is not None:
                self.store.drop(entry.path, self)
                return self.store.put(new_path, self.store.texts[entry.sha256], self)
            if new_path in self.store.entries:
                raise Refused(errno.EEXIST, "is there already")
            return self.store.move(entry.path, new_path, self)

    def rename_tree(self, old: str, new: str) -> None:
        self.calls.append(("rename_tree", old, new))
        check_path(new)
        for path in [path for path in self.store.entries if path.startswith(old)]:
            self.store.move(path, new + path[len(old) :], self)

    def flush(self, timeout: float | None) -> list[str]:
        return []

    def status(self) -> dict[str, Any]:
        return {"refused": list(self.refused_late), "pending": [], "conflicts": list(self.conflicts)}


def check_path(path: str) -> None:
    if any(ord(letter) < 32 for letter in path):
        raise Refused(errno.EINVAL, "has a control character")
    if not unicodedata.is_normalized("NFC", path):
        raise Refused(errno.EINVAL, "is not composed")


def files_below(root: Path) -> dict[str, str]:
    """Every file's text by its path in the store. What comes or goes during the look may be in it or not."""
    found: dict[str, str] = {}
    for directory, _, names in os.walk(root):  # a directory that is gone when its turn comes is empty
        for name in names:
            file = Path(directory, name)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                if not file.is_symlink() and file.is_file():
                    found[f"/{file.relative_to(root)}"] = file.read_text(errors="replace")
    return dict(sorted(found.items()))


class Mirror:
    """A running mirror of a fake store."""

    def __init__(self, store: FakeStore, home: Path, *, read_only: bool = False, name: str = "notes") -> None:
        self.store = store
        self.engine = FakeEngine(store)
        self.home = home
        self.path = home / name
        self.read_only = read_only
        self.is_running = False
        self.front = self._front()

    def _front(self) -> MirrorFrontEnd:
        state = self.home / f"state-{self.path.name}"
        return MirrorFrontEnd(self.engine, self.path, state_dir=state, read_only=self.read_only)  # type: ignore[arg-type]

    def __enter__(self) -> "Mirror":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.stop()

    def start(self) -> None:
        self.front.start()
        self.is_running = True

    def stop(self) -> list[str]:
        self.is_running = False
        return self.front.stop(10)

    def die(self) -> None:
        """End as after SIGKILL: nothing is saved, nothing is taken away."""
        self.is_running = False
        self.front._ending.set()
        self.front._wake()
        self.front._thread.join()
        self.front._open.close()
        self.engine.connected = False

    def live_again(self) -> None:
        """Start as after a crash, with the state on disk."""
        self.engine.connected = True
        self.front = self._front()
        self.start()

    def sh(self, command: str) -> None:
        """Run a shell command in the mirror."""
        subprocess.run(["bash", "-ec", command], cwd=self.path, check=True, timeout=60)

    def files(self) -> dict[str, str]:
        """Every file's text by its path in the store."""
        return files_below(self.path)

    def settle(self) -> list[str]:
        return self.front.flush(30)

    def refused(self) -> dict[str, int]:
        return {one["path"]: one["errno"] for one in self.front.status()["refused"]}
