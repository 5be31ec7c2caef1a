"""Processes of others that something lasts as long as."""

import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from a later one with its number."""

    pid: int
    started: int
    """When, in the kernel's ticks since its own start."""

    @classmethod
    def find(cls, pid: int) -> "Process | None":
        """The process with this number; None if there is none."""
        try:
            # The name, in parentheses, may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return cls(pid, int(fields[19]))

    def when_ended(self, action: Callable[[], None]) -> None:
        """Call `action` in a thread of its own when the process has ended; at once if it has."""
        threading.Thread(target=self._wait, args=(action,), name=f"process {self.pid}", daemon=True).start()

    def _wait(self, action: Callable[[], None]) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            action()
            return
        try:
            if Process.find(self.pid) == self:
                ended = select.poll()
                ended.register(pidfd, select.POLLIN)
                ended.poll()
        finally:
            os.close(pidfd)
        action()
