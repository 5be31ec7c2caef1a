"""The two ways to show a store as a directory, behind one interface."""

import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from app.mount.daemon.supervisor import Custody
from app.mount.fuse.filesystem.filesystem import FileSystem
from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.negotiation import Negotiated
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import MountError

log = logging.getLogger(__name__)

_SPIN_SECONDS = 80e-6
"""How long a session looks for the next request before it sleeps: to be woken takes longer than most answers."""
_POOL_THREADS = 16
"""Calls of one store that wait for the network at once. The threads are made as they are needed."""
_LIVE_SECONDS = 10.0


class FrontEnd(Protocol):
    """One store, shown as a directory. `start` and `stop` are called once; the rest from any thread between."""

    def start(self) -> None:
        """Show the store; the engine has started. Returns when the directory answers.

        Raises:
            MountError: it can't be shown on this host.

        """

    def flush(self, timeout: float | None) -> list[str]:
        """Wait until everything written and closed before this call is on the server; the paths that are not.

        timeout: seconds; None waits for ever.
        """

    def stop(self, timeout: float) -> list[str]:
        """Take the directory away, even in use. The engine is still there; it is stopped after this.

        timeout: seconds for what is on its way to the engine. Returns the paths that did not get there.
        """

    def left_at(self, path: str) -> Path | None:
        """Where the file is on disk whose path `flush` or `stop` returned; None: nowhere that lasts."""

    def status(self) -> dict[str, Any]:
        """What the front end knows besides the engine, ready for JSON."""


class FuseFrontEnd:
    """Answers the kernel for one mount. The caller decides who makes the mount, and where."""

    def __init__(
        self, engine: StoreEngine, fd: int, custody: Custody, name: str, *, read_only: bool, path: Path | None,
        open_to_others: bool = False, label: str = "a mount",
    ) -> None:  # fmt: skip
        """The engine has not started.

        fd: of /dev/fuse, with a mount; it is closed at the end.
        name: under which the supervisor keeps the descriptor. If it has kept it already, the mount is taken over.
        path: where the mount is in this process's namespace, if it is.
        open_to_others: other users of its host get in, as its owner wants.
        label: in the log, which holds no store's name.
        """
        self._engine = engine
        self._fd = fd
        self._custody = custody
        self._name = name
        self._path = path
        self._label = label
        state = custody.state(name)
        self._filesystem = FileSystem(engine, read_only=read_only)
        if path is not None and not open_to_others:  # on the host: others get in when its owner opens it with chmod
            self._filesystem.tree.root.mode = stat.S_IFDIR | 0o700
        self._pool = ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix=label)
        self._session = Session(
            fd,
            self._filesystem,
            pool=self._pool,
            wishes=self._filesystem.wishes,
            taken_over=name in custody.kept(),
            negotiated=Negotiated.from_json(state) if state else None,
            spin_seconds=_SPIN_SECONDS if len(os.sched_getaffinity(0)) > 1 else 0.0,
            name=label,
        )

    def start(self) -> None:
        """Answer the kernel."""
        self._custody.keep(self._name, self._fd)
        notes = _Notes(self._custody, f"{self._name} notes")
        if (state := notes.load()) is not None:
            self._filesystem.restore(state)
        self._filesystem.start(self._session, notes if self._custody.supervised else None)
        if not self._session.live.wait(_LIVE_SECONDS):
            raise MountError(f"the kernel did not open the mount {self._name} within {_LIVE_SECONDS:g} s")
        negotiated = self._session.negotiated
        assert negotiated is not None
        self._custody.save(self._name, negotiated.to_json())

    def flush(self, timeout: float | None) -> list[str]:
        """Wait until everything written and closed before this call is on the server; the paths that are not."""
        until = None if timeout is None else time.monotonic() + timeout
        self._settle()
        failed = self._filesystem.flush(timeout)
        left = None if until is None else max(0.0, until - time.monotonic())
        return sorted({*failed, *self._engine.flush(left)})

    def stop(self, timeout: float) -> list[str]:
        """End the session; what is open for writing is saved as it is."""
        self._settle()
        failed = self._filesystem.flush(timeout, open_files=True)
        self._filesystem.end_for_good()
        self._custody.release(self._name)
        self._custody.release(f"{self._name} notes")
        # If the mount is gone everywhere, the session has ended or is about to; else it is still in use.
        if not self._session.join(0.5 if self._path else 0.0):
            self._abort()
            if not self._session.join(timeout):
                log.warning("%s: somebody still uses the mount; it answers with errors from now on", self._label)
        self._filesystem.stop()
        self._pool.shutdown(wait=False)
        if self._session.join(0):
            os.close(self._fd)
        return failed

    def status(self) -> dict[str, Any]:
        """What the file system knows; `refused` also holds the engine's."""
        known = self._filesystem.status()
        refused = self._engine.status()["refused"]
        on_disk = {(one["path"], one["reason"]) for one in refused}
        in_memory = [one for one in known["refused"] if (one["path"], one["reason"]) not in on_disk]
        return {**known, "refused": [*refused, *in_memory]}

    def left_at(self, path: str) -> Path | None:
        """Nowhere: what can't be saved is put among the kept texts at once."""
        return None

    def _settle(self) -> None:
        """Let the closes that programs have returned from arrive: this call is answered after them."""
        if self._path is not None:
            with suppress(OSError):
                os.statvfs(self._path)

    def _abort(self) -> None:
        """Have the kernel end the connection: programs that still use it get ENOTCONN."""
        try:
            number = mounting.connection(self._fd)
            if number is not None:
                mounting.abort(number)
        except OSError as error:
            log.info("%s: the mount can't be aborted: %s", self._label, error)


class _Notes:
    """What a file system writes down for its successor, in the supervisor's memory."""

    def __init__(self, custody: Custody, name: str) -> None:
        self._custody = custody
        self._name = name

    def load(self) -> bytes | None:
        """What a predecessor wrote; None if there was none."""
        return self._custody.state(self._name)

    def save(self, state: bytes) -> None:
        """Replace everything."""
        self._custody.save(self._name, state)

    def append(self, piece: bytes) -> None:
        """Add to it."""
        self._custody.append(self._name, piece)
