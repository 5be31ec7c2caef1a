"""Contents on local disk and in memory, found by store and digest."""

import contextlib
import hashlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

_Key = tuple[str, str]


class ContentCache:
    """Contents that the server can give again. Thread-safe; many stores of one daemon share it.

    A content is found only under the store it was put for: what one store holds tells nothing about another.
    Beyond its bounds, what was used longest ago goes. Several processes may share the directory. What comes stays
    in memory first and goes to disk when memory is full, or with `flush`: a file costs more than all the rest.

    Users of a store say what they need. What nobody needs is not kept on disk: it may have been deleted because
    nobody is to have it now.
    """

    def __init__(self, directory: Path, *, max_bytes: int = 1 << 30, max_memory_bytes: int = 64 << 20) -> None:
        """Make the directory (0700) if it is missing.

        max_bytes: on disk. max_memory_bytes: in memory. Both count contents alone.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_memory_bytes = max_memory_bytes
        self._lock = threading.Lock()
        self._memory: OrderedDict[_Key, bytes] = OrderedDict()
        self._memory_bytes = 0
        self._unwritten: set[_Key] = set()
        self._disk: OrderedDict[_Key, int] = OrderedDict()
        self._disk_bytes = 0
        self._users: dict[str, list[Callable[[str], bool]]] = {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Reading needs no index, so nobody waits for this one; only evictions do.
        self._indexed = threading.Event()
        threading.Thread(target=self._index, name="memstore-cache-index", daemon=True).start()

    def get(self, store_id: str, sha256: str) -> bytes | None:
        """The content, checked against its digest (in hex); None if it is not here."""
        key = store_id, sha256
        with self._lock:
            data = self._memory.get(key)
            if data is not None:
                self._memory.move_to_end(key)
                return data
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            self._forget(key)
            return None
        with self._lock:
            self._note_on_disk(key, len(data))
            dropped = self._keep_in_memory(key, data)
        self._write_all(dropped)
        return data

    def has(self, store_id: str, sha256: str) -> bool:
        """Whether `get` will likely find it; reads nothing."""
        key = store_id, sha256
        with self._lock:
            if key in self._memory or key in self._disk:
                return True
        return self._path(key).exists()

    def put(self, store_id: str, sha256: str, data: bytes) -> None:
        """Keep a content. A disk that is full or gone is no error: it is a cache."""
        key = store_id, sha256
        with self._lock:
            if key not in self._disk:
                self._unwritten.add(key)
            dropped = self._keep_in_memory(key, data)
        self._write_all(dropped)

    def flush(self) -> None:
        """Write to disk what is needed and only in memory, for the next process."""
        with self._lock:
            unwritten = [(key, self._memory[key]) for key in self._unwritten if self._is_used(key)]
            self._unwritten.difference_update(key for key, _ in unwritten)
        self._write_all(unwritten)

    # What is needed

    def add_user(self, store_id: str, uses: Callable[[str], bool]) -> None:
        """From now on only what a user of the store needs is kept on disk. uses: asked from any thread."""
        with self._lock:
            self._users.setdefault(store_id, []).append(uses)

    def remove_user(self, store_id: str, uses: Callable[[str], bool], *, keep: bool = True) -> None:
        """The user ends. keep: what it needs stays on disk for the next one; else what nobody else needs goes."""
        if keep:
            self.flush()
        with self._lock:
            users = self._users.get(store_id, [])
            if uses in users:
                users.remove(uses)
            if not users:
                self._users.pop(store_id, None)
                for key in [key for key in self._unwritten if key[0] == store_id]:
                    self._leave_memory(key)
        if not keep:
            self.drop_needless(store_id)

    def drop_unused(self, store_id: str, digests: Iterable[str]) -> None:
        """Drop those of these contents that no user of the store needs."""
        for sha256 in digests:
            key = store_id, sha256
            if not self._is_used(key):
                self._drop(key)

    def drop_needless(self, store_id: str) -> None:
        """Drop everything of the store that no user needs now."""
        if self._users.get(store_id):
            self.sweep(store_id)
        else:
            self.drop_store(store_id)

    def sweep(self, store_id: str) -> None:
        """Drop everything of the store that no user needs: what became needless while there was none."""
        self._indexed.wait()
        with self._lock:
            digests = {sha256 for of, sha256 in (*self._memory, *self._disk) if of == store_id}
        self.drop_unused(store_id, digests)

    def drop_store(self, store_id: str) -> None:
        """Drop everything of the store."""
        with self._lock:
            keys = {key for key in (*self._memory, *self._disk) if key[0] == store_id}
        for key in keys:
            self._drop(key)
        shutil.rmtree(self._directory / store_id, ignore_errors=True)

    def _is_used(self, key: _Key) -> bool:
        store_id, sha256 = key
        users = self._users.get(store_id)
        return users is None or any(uses(sha256) for uses in tuple(users))

    def _drop(self, key: _Key) -> None:
        with self._lock:
            self._leave_memory(key)
            is_on_disk = key in self._disk or not self._indexed.is_set()
        if is_on_disk:
            self._forget(key)

    def _leave_memory(self, key: _Key) -> None:
        self._memory_bytes -= len(self._memory.pop(key, b""))
        self._unwritten.discard(key)

    def _path(self, key: _Key) -> Path:
        store_id, sha256 = key
        return self._directory / store_id / sha256[:2] / sha256

    def _keep_in_memory(self, key: _Key, data: bytes) -> list[tuple[_Key, bytes]]:
        """What has to leave memory for it and is not on disk."""
        if key not in self._memory:
            self._memory_bytes += len(data)
        self._memory[key] = data
        self._memory.move_to_end(key)
        dropped = []
        while self._memory_bytes > self._max_memory_bytes:
            old, content = self._memory.popitem(last=False)
            self._memory_bytes -= len(content)
            if old in self._unwritten:
                self._unwritten.remove(old)
                dropped.append((old, content))
        return dropped

    def _write_all(self, contents: list[tuple[_Key, bytes]]) -> None:
        for key, data in contents:
            if self._is_used(key) and self._write(key, data):
                with self._lock:
                    self._note_on_disk(key, len(data))
                if not self._is_used(key):  # since a moment ago: the thread that dropped it may not have seen the file
                    self._forget(key)
        if contents:
            self._evict()

    def _note_on_disk(self, key: _Key, size: int) -> None:
        self._disk_bytes += size - self._disk.get(key, 0)
        self._disk[key] = size
        self._disk.move_to_end(key)

    def _write(self, key: _Key, data: bytes) -> bool:
        """Whether the file is there now. One half written is found out by its digest."""
        path = self._path(key)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        for _ in range(2):
            try:
                descriptor = os.open(path, flags, 0o600)
            except FileExistsError:
                return True
            except FileNotFoundError:
                with contextlib.suppress(OSError):
                    path.parent.parent.mkdir(mode=0o700, exist_ok=True)
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                continue
            except OSError:
                return False
            try:
                with open(descriptor, "wb", buffering=0) as file:
                    complete = file.write(data) == len(data)
            except OSError:
                complete = False
            if not complete:
                self._forget(key)
            return complete
        return False

    def _forget(self, key: _Key) -> None:
        with contextlib.suppress(OSError):
            self._path(key).unlink()
        with self._lock:
            self._disk_bytes -= self._disk.pop(key, 0)

    def _evict(self) -> None:
        if not self._indexed.is_set():
            return
        while True:
            with self._lock:
                if self._disk_bytes <= self._max_bytes or not self._disk:
                    return
                key, size = self._disk.popitem(last=False)
                self._disk_bytes -= size
            with contextlib.suppress(OSError):
                self._path(key).unlink()

    def _index(self) -> None:
        """Learn what earlier processes left, oldest first."""
        found: list[tuple[int, _Key, int]] = []
        with contextlib.suppress(OSError):
            for store in os.scandir(self._directory):
                for part in os.scandir(store.path):
                    for file in os.scandir(part.path):
                        status = file.stat(follow_symlinks=False)
                        found.append((status.st_mtime_ns, (store.name, file.name), status.st_size))
        found.sort(reverse=True)
        with self._lock:
            for _, key, size in found:
                if key not in self._disk:
                    self._disk[key] = size
                    self._disk_bytes += size
                    self._disk.move_to_end(key, last=False)
        self._indexed.set()
        self._evict()
