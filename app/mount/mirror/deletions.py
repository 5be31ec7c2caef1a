"""When a file that is missing from the disk was deleted, and when it was only lost.

A delete reaches the server if a program did it (an event says so) and the root is still the same directory; or,
without an event, if the file is missing at two looks and the directory that held it is still there. Whatever else
is missing at two looks was wiped, and comes back.
"""

import time
from dataclasses import dataclass
from enum import Enum

from app.mount.mirror.agreements import Agreements
from app.mount.mirror.tree import Tree, identity_of

QUIET_SECONDS = 0.15
"""After the last delete: what makes `rm -rf` of the root itself seen before its files are taken for deleted."""
QUIET_SECONDS_ALL = 2.0
"""The same, when nothing would be left."""
_LONGEST_WAIT = 10.0
"""Deletes that never stop do not hold each other up for ever."""
_SECOND_LOOK_SECONDS = 1.0


class Verdict(Enum):
    """What to do about a missing file."""

    WAIT = "wait"
    DELETE = "delete"
    RESTORE = "restore"


@dataclass(slots=True)
class Gone:
    """A file that was agreed on and is not there. Times are of the monotonic clock."""

    since: float
    by_event: bool
    parent: int | None
    """Which directory held it (`identity_of`), as far as it is known."""
    looks: int = 0
    last_look: float = 0.0


class Deletions:
    """The files that are missing."""

    def __init__(self, tree: Tree, agreements: Agreements) -> None:
        self._tree = tree
        self._agreements = agreements
        self._gone: dict[str, Gone] = {}
        self._last_event = 0.0

    def __contains__(self, path: str) -> bool:
        return path in self._gone

    def paths(self) -> list[str]:
        """All of them, those missing longest first."""
        return list(self._gone)

    def seen(self, path: str) -> None:
        """An event says that the file was deleted."""
        self._last_event = time.monotonic()
        self._note(path).by_event = True

    def missed(self, path: str) -> None:
        """A look at everything did not find the file."""
        gone, now = self._note(path), time.monotonic()
        if now - gone.last_look >= _SECOND_LOOK_SECONDS:
            gone.looks += 1
            gone.last_look = now

    def back(self, path: str) -> None:
        """It is there again, or is no longer expected."""
        self._gone.pop(path, None)

    def clear(self) -> None:
        """Nothing that is missing was deleted."""
        self._gone.clear()

    def judge(self, path: str) -> tuple[Verdict, float]:
        """What to do now; with WAIT, in how many seconds to ask again."""
        gone = self._gone.get(path) or self._note(path)
        if not self._tree.is_there():
            return Verdict.WAIT, QUIET_SECONDS
        if gone.by_event:
            return self._after_event(gone)
        if gone.looks < 2:  # the event may still be on its way
            return Verdict.WAIT, _SECOND_LOOK_SECONDS
        if len(self._gone) >= len(self._agreements) or not self._parent_is_intact(path, gone):
            return Verdict.RESTORE, 0.0
        return Verdict.DELETE, 0.0

    def _after_event(self, gone: Gone) -> tuple[Verdict, float]:
        now = time.monotonic()
        quiet = QUIET_SECONDS_ALL if len(self._gone) >= len(self._agreements) > 1 else QUIET_SECONDS
        left = min(self._last_event + quiet, gone.since + _LONGEST_WAIT) - now
        return (Verdict.WAIT, left) if left > 0 else (Verdict.DELETE, 0.0)

    def _note(self, path: str) -> Gone:
        if path not in self._gone:
            parent = path.rpartition("/")[0]
            known = self._agreements.directories.get(parent)
            self._gone[path] = Gone(time.monotonic(), by_event=False, parent=known)
        return self._gone[path]

    def _parent_is_intact(self, path: str, gone: Gone) -> bool:
        parent = path.rpartition("/")[0]
        if parent == "":
            return True
        try:
            with self._tree.directory(parent) as descriptor:
                return identity_of(descriptor) == gone.parent
        except OSError:
            return False
