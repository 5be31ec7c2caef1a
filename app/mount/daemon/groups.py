"""What was opened together and ends together: the stores at one root, of one command, or in one sandbox."""

import errno
import logging
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.mount.daemon.open_stores import OpenStore
from app.mount.daemon.orders import FUSE, Order
from app.mount.daemon.processes import Process
from app.mount.daemon.roots import Root
from app.mount.fuse.kernel import mounting

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Group:
    """Stores that are shown side by side."""

    name: str
    """By which the daemon knows it: the root's path, `run:<n>` or `pid:<n>`."""
    root: Path
    """The directory above the stores' directories, as those see it who use them."""
    order: Order
    """The first one."""
    stores: dict[str, OpenStore] = field(default_factory=dict)
    """By the name of their directory."""
    on_host: Root | None = None
    """Where the root is a directory of this host."""
    holder: Process | None = None
    """It ends when this process does: a command that holds it, or the sandbox it was attached to."""
    awaited: dict[str, Any] | None = None
    """What an earlier worker wrote down of it, while it is being taken over: this one may die before it has it all."""
    changing: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread that opens or ends it."""

    def status(self) -> dict[str, Any]:
        """What is known of it, ready for JSON."""
        return {
            "root": str(self.root),
            "root_read_only": self.on_host is None or self.on_host.closed,
            "session_id": self.order.session_id,
            "held_by": self.holder.pid if self.holder else None,
            "stores": [
                {"root": str(self.root), "session_id": self.order.session_id, **store.status()}
                for store in list(self.stores.values())
            ],
        }

    def flush(self, timeout: float | None) -> list[dict[str, Any]]:
        """Wait until all that was accepted is on the server; what is not, as `unsaved` gives it.

        timeout: seconds for all stores together; None waits as long as it takes.
        """
        until = None if timeout is None else time.monotonic() + timeout
        missing = []
        for store in list(self.stores.values()):
            left = None if until is None else max(0.0, until - time.monotonic())
            missing += unsaved(store, store.flush(left))
        return missing

    def unmount(self, *, force: bool) -> list[Path]:
        """Unmount the FUSE stores of a root on this host; the directories that are in use and stay.

        force: these too, lazily.
        """
        busy = []
        for store in self.stores.values():
            if store.mode != FUSE:
                continue
            try:
                mounting.unmount(str(store.path), lazy=force)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    busy.append(store.path)
                # Else it is no longer mounted: somebody did it by hand.
        return busy

    def to_json(self) -> dict[str, Any]:
        """What a successor of this worker must know. It holds secrets."""
        if self.awaited is not None:
            return self.awaited
        return {
            "name": self.name,
            "root": str(self.root),
            "order": self.order.to_json(),
            "holder": asdict(self.holder) if self.holder else None,
            "on_host": self.on_host.to_json() if self.on_host else None,
            "stores": [
                {"attachment": asdict(store.attachment), "mode": store.mode, "order": store.order.to_json()}
                for store in self.stores.values()
            ],
        }


class Changing:
    """A group that is being opened: it is in the table afterwards if it has a store, and locked meanwhile."""

    def __init__(self, groups: dict[str, Group], lock: threading.Lock, name: str, root: Path, order: Order) -> None:
        self._groups = groups
        self._lock = lock
        self._new = Group(name, root, order)

    def __enter__(self) -> Group:
        while True:
            with self._lock:
                self._group = self._groups.setdefault(self._new.name, self._new)
            self._group.changing.acquire()
            with self._lock:
                if self._groups.get(self._new.name) is self._group:
                    return self._group
            self._group.changing.release()  # it ended while we waited for it

    def __exit__(self, *exception: object) -> None:
        if not self._group.stores:
            if self._group.on_host is not None:
                self._group.on_host.take_away()
            with self._lock:
                self._groups.pop(self._group.name, None)
        self._group.changing.release()


def log_unsaved(left: list[dict[str, Any]]) -> None:
    """Tell the log how much is not on the server, and where it is. Paths are in no log."""
    for journal, number in Counter(item["journal"] for item in left if item["where"] == "pending").items():
        log.error("not on the server yet: %d files; they are kept in %s", number, journal)
    for item in left:
        if item["where"] == "kept":
            log.error("a text of %s could not be saved; it is kept in %s", item["memory_store_id"], item["place"])
    if number := sum(item["where"] == "file" for item in left):
        log.error("could not be saved, and stay where they are: %d files of mirrors", number)


def unsaved(store: OpenStore, paths: list[str]) -> list[dict[str, Any]]:
    """Paths of a store that are not on the server, for people and JSON: what, and where its text is.

    `where` is `pending` (in the `journal`: the next mount saves it), `kept` (on this host until a person takes or
    discards it: `kept` is its ID, `place` the file with the text, `reason` why) or `file` (at `place`, as it is).
    """
    status = store.engine.status()
    kept = {item["path"]: item for item in status["kept"]}
    found = []
    for path in paths:
        item: dict[str, Any] = {
            "path": f"{store.path}{path}",
            "memory_store_id": store.attachment.store_id,
            "journal": str(store.directory),
            "where": "pending",
            "kept": None,
            "place": None,
            "reason": None,
        }
        left = store.front.left_at(path)
        if path not in status["pending"] and path in kept:
            item |= {"where": "kept", "kept": kept[path]["id"]}
            item |= {name: kept[path][name] for name in ("place", "reason")}
        elif path not in status["pending"] and left is not None:
            item |= {"where": "file", "place": str(left)}
        found.append(item)
    return found
