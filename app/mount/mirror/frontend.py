"""The mirror: a real directory kept in two-way sync with a store, for hosts without /dev/fuse.

One thread does everything that changes disk, agreements or view, and waits for events of either side. `flush` and
`stop` do the same work in the caller's thread, under the same lock.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import select
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.mount.door.entries import Change
from app.mount.mirror import binding
from app.mount.mirror.agreements import Agreements
from app.mount.mirror.applier import Applier
from app.mount.mirror.contents import Contents
from app.mount.mirror.reconciler import Reconciler
from app.mount.mirror.sync import Sync
from app.mount.mirror.tree import Tree
from app.mount.mirror.watcher import Watcher
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import MountError

_log = logging.getLogger(__name__)

_POPULATE_SECONDS = 60.0
"""`start` waits this long for contents; what comes later appears later."""
_LONGEST_WAIT = 30.0


class MirrorFrontEnd:
    """Shows the store of an engine at `target`."""

    def __init__(self, engine: StoreEngine, target: Path, *, state_dir: Path, read_only: bool) -> None:
        """Nothing is touched yet, but `engine.on_change` is set.

        state_dir: on local disk, for this store at this target alone.
        """
        self._engine = engine
        self._target = target
        self._state_dir = state_dir
        self._read_only = read_only
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._open = contextlib.ExitStack()
        self._bound: Path | None = None
        self._sync: Sync | None = None
        engine.on_change = self._others_changed

    def start(self) -> None:
        """Bring the directory to what the started engine shows, then keep it so.

        Edits that were made while nobody looked are saved. Returns when every file is there, or can't be fetched.

        Raises:
            MountError: the directory can't be used.

        """
        try:
            self._start()
        except OSError as error:
            self._open.close()
            raise MountError(f"{self._target} can't hold a mirror: {error}") from error
        except BaseException:
            self._open.close()
            raise

    def _start(self) -> None:
        self._prepare()
        sync = self._require_sync()
        with self._lock:
            deadline = time.monotonic() + _POPULATE_SECONDS
            sync.turn()
            sync.turn()  # hears of the directories that the first one made
            while (self._contents.fetching or not sync.settled) and time.monotonic() < deadline:
                self._wait(min(sync.next_turn() - time.monotonic(), 1.0))
                sync.turn()
        self._thread = threading.Thread(target=self._run, name=f"mirror {self._target.name}", daemon=True)
        self._thread.start()

    def flush(self, timeout: float | None) -> list[str]:
        """Save every local change made before this call, and wait until it is on the server.

        timeout: seconds; None waits for ever. Returns the paths that are not on the server.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            missing = self._require_sync().save_all(deadline, self._wait)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return sorted({*map(_showable, missing), *self._engine.flush(left)})

    def stop(self, timeout: float) -> list[str]:
        """Save what is to be saved and take the files away; what could not be saved stays on disk.

        timeout: seconds for what is on its way to the engine. Returns the paths that did not get there.
        """
        self._ending.set()
        self._wake()
        self._thread.join()
        with self._lock:
            sync = self._require_sync()
            missing = sync.save_all(time.monotonic() + timeout, self._wait)
            missing += sync.take_away(set(missing))
            self._open.close()
        return sorted(map(_showable, missing))

    def left_at(self, path: str) -> Path | None:
        """The file itself, which `stop` leaves where it is."""
        return (self._bound or self._target) / path.lstrip("/")

    def status(self) -> dict[str, Any]:
        """What the mirror knows beside the engine, ready for JSON; `refused` holds both's.

        `watching` ("inotify", or "polling" where no watch works), `protection` of a read-only tree ("bind" or
        "modes"), `refused` ([{path, reason, errno}]), `unsaved` and `waiting` ([{path, reason}]: own and others'
        changes that will be tried again), `reverted` ([{path, at}]), `restored_at`.
        """
        notes = self._reconciler.notes
        refused = [
            {"path": _showable(path), "reason": only.refused.message, "errno": only.refused.errno}
            for path, only in sorted(dict(notes.refused).items())
        ]
        known = {one["path"] for one in refused}
        return {
            "watching": "polling" if self._watcher.incomplete else "inotify",
            "protection": ("bind" if self._bound else "modes") if self._read_only else None,
            "refused": refused + [one for one in self._engine.status().get("refused", []) if one["path"] not in known],
            "unsaved": _with_reasons(notes.unsaved),
            "waiting": _with_reasons(notes.waiting),
            "reverted": [{"path": _showable(path), "at": at} for path, at in sorted(dict(notes.reverted).items())],
            "restored_at": self._require_sync().restored_at,
        }

    def _require_sync(self) -> Sync:
        if self._sync is None:
            raise RuntimeError("the mirror has not started")
        return self._sync

    def _prepare(self) -> None:
        """Open everything; what is opened is closed with `_open`."""
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._target.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(os.fsencode(self._target.absolute())).hexdigest()[:16]
        self._lock_state(name)
        root, aside, hidden = self._places(name)
        tree = Tree(root, hidden=hidden)
        self._open.callback(tree.close)
        agreements = Agreements(self._state_dir / f"{name}.db")
        self._open.callback(agreements.close)
        self._watcher = Watcher()
        self._open.callback(self._watcher.close)
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open.callback(self._close_pipe)
        applier = Applier(tree, aside, agreements, read_only=self._read_only)
        self._open.callback(applier.close)
        self._contents = Contents(self._engine, self._content_arrived)
        self._open.callback(self._contents.close)
        self._reconciler = Reconciler(
            self._engine, tree, applier, agreements, self._contents, read_only=self._read_only
        )
        self._sync = Sync(
            self._engine, tree, self._watcher, applier, agreements, self._reconciler,
            read_only=self._read_only, before_look=self._bind_again,
        )  # fmt: skip

    def _lock_state(self, name: str) -> None:
        descriptor = os.open(self._state_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MountError(f"{self._target} is mirrored by another process already") from None

    def _places(self, name: str) -> tuple[Path, Path, str]:
        """The tree, the directory beside it, and the latter's name if it has to be inside the tree."""
        source = self._state_dir / f"{name}.tree"
        if self._read_only or binding.is_bound(source, self._target) or binding.is_read_only(self._target):
            source.mkdir(mode=0o700, exist_ok=True)
            if not binding.is_bound(source, self._target):  # what is closed to others stays so under what covers it
                source.chmod(stat.S_IMODE(self._target.stat().st_mode) | stat.S_IRWXU)
            if binding.bind(source, self._target, read_only=self._read_only):
                self._bound = source
                self._open.callback(binding.unbind, source, self._target)
                return source, self._state_dir / f"{name}.aside", ""
            if not self._read_only:
                raise MountError(f"{self._target} is on a read-only filesystem, and we may not mount over it")
        hidden = f".{self._target.name}.mirror"
        above = self._target.parent
        if above.stat().st_dev == self._target.stat().st_dev and os.access(above, os.W_OK):
            return self._target, above / hidden, ""
        return self._target, self._target / hidden, hidden  # a rename can't leave a filesystem

    def _bind_again(self) -> None:
        if self._bound and not binding.is_bound(self._bound, self._target):
            self._target.mkdir(parents=True, exist_ok=True)
            binding.bind(self._bound, self._target, read_only=self._read_only)

    def _close_pipe(self) -> None:
        woken, waker, self._woken, self._waker = self._woken, self._waker, -1, -1
        os.close(woken)
        os.close(waker)

    def _run(self) -> None:
        sync = self._require_sync()
        while not self._ending.is_set():
            self._wait(sync.next_turn() - time.monotonic())
            with self._lock:
                if self._ending.is_set():
                    return
                try:
                    sync.turn()
                except Exception:  # the mirror goes on
                    _log.exception("the mirror of store %s", self._engine.status().get("memory_store_id"))
                    sync.failed()

    def _wait(self, seconds: float) -> None:
        """Sleep until something is heard, at most so long."""
        heard = [self._watcher.fileno(), self._woken]
        ready, _, _ = select.select(heard, [], [], max(0.0, min(seconds, _LONGEST_WAIT)))
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._woken, 4096):
                    pass

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it will wake; closed: nobody is there to
            os.write(self._waker, b"!")

    def _others_changed(self, changes: list[Change]) -> None:
        if self._sync is None:  # the first look sees it
            return
        for change in changes:
            self._sync.heard.put(change)
        self._wake()

    def _content_arrived(self, path: str) -> None:
        self._require_sync().heard.put(path)
        self._wake()


def _showable(path: str) -> str:
    """A path for JSON: what is not UTF-8 as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _with_reasons(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"path": _showable(path), "reason": reason} for path, reason in sorted(dict(reasons).items())]
