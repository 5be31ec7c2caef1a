"""Real FUSE mounts for tests, none of which outlives its test.

A session served in the test's own process needs the interpreter lock to answer. So a test must not start a program
with its working directory in such a mount, nor hold one of its files open while it starts any program: the start
holds the lock until the program runs. Reading and writing such files in the test's process is fine.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from app.mount.fuse.kernel import mounting
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.negotiation import Negotiated, Wishes
from app.mount.fuse.kernel.requests import Operations

LIVE_SECONDS = 60.0
END_SECONDS = 60.0


def missing_for_fuse() -> str | None:
    """Why no FUSE file system can be mounted here, in words; None if one can."""
    if not os.path.exists(mounting.DEVICE):
        return "this machine has no /dev/fuse (a container needs --device /dev/fuse --cap-add SYS_ADMIN)"
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        fd = mounting.open_device()
        try:
            os.close(mounting.detached(fd, mounting.Options("probe")))
        finally:
            os.close(fd)
    except Exception as error:  # whatever it is, it is the reason
        return f"mounting is not allowed here: {error}"
    return None


class Mounts:
    """Mounts served by this process, and directories on which other processes mount something."""

    def __init__(self, directory: Path, pool: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._pool = pool
        self._sessions: list[Session] = []
        self._paths: list[Path] = []

    def place(self, name: str = "mount") -> Path:
        """A new directory; whatever is mounted on it is unmounted after the test."""
        path = self._directory / name
        path.mkdir()
        self._paths.append(path)
        return path

    def serve(
        self, fd: int, operations: Operations, *, wishes: Wishes | None = None, spin: float = 0.0,
        taken_over: bool = False, negotiated: Negotiated | None = None,
    ) -> Session:  # fmt: skip
        """A session on a descriptor that is mounted, here or elsewhere."""
        session = Session(
            fd, operations, pool=self._pool, wishes=wishes, spin_seconds=spin, taken_over=taken_over,
            negotiated=negotiated,
        )  # fmt: skip
        session.start()
        self._sessions.append(session)
        return session

    def mount(
        self, operations: Operations, *, name: str = "mount", read_only: bool = False, wishes: Wishes | None = None,
        spin: float = 0.0,
    ) -> tuple[Path, Session]:  # fmt: skip
        """Mount a file system of this process and wait until it answers."""
        path = self.place(name)
        fd = mounting.open_device()
        mounting.mount(fd, str(path), mounting.Options("test", read_only=read_only))
        session = self.serve(fd, operations, wishes=wishes, spin=spin)
        assert session.live.wait(LIVE_SECONDS)
        return path, session

    def close(self) -> None:
        for path in self._paths:
            with suppress(OSError):
                while True:  # as many as lie there over one another
                    mounting.unmount(str(path), lazy=True)
            path.rmdir()  # and no more: whatever were still mounted would lose its files
        for session in self._sessions:
            ended = session.join(END_SECONDS)
            os.close(session.fd)
            assert ended, "something still uses a mount"
