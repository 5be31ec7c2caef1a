"""What a mirror has to remember about its paths besides what was agreed on, until the next start."""

from dataclasses import dataclass, field

from app.mount.mirror.tree import Stat
from app.mount.sync.errors import Refused


@dataclass(frozen=True, slots=True)
class LocalOnly:
    """A file that is on disk and not in the store. Tried again when it or the memory at its path changes."""

    stat: Stat
    refused: Refused
    remote_sha256: str | None


@dataclass(slots=True)
class Notes:
    """By path; each path is in few of them."""

    refused: dict[str, LocalOnly] = field(default_factory=dict)
    unsaved: dict[str, str] = field(default_factory=dict)
    """Files whose save failed for a reason that may pass, and why."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Changes of others that can't be shown yet, and why."""
    reverted: dict[str, str] = field(default_factory=dict)
    """Local changes to a read-only tree that were taken back: path to time (RFC 3339)."""
    busy: set[str] = field(default_factory=set)
    """Files that a program has open for writing."""
    suspects: set[str] = field(default_factory=set)
    """Files to read at the next look, even if their status looks unchanged."""
    scratch: dict[str, tuple[float, Stat]] = field(default_factory=dict)
    """Files with scratch names: when they were first seen (monotonic clock), and what they were then."""

    def forget(self, path: str) -> None:
        """The local file is no longer at this path."""
        self.refused.pop(path, None)
        self.unsaved.pop(path, None)
        self.scratch.pop(path, None)
        self.suspects.discard(path)

    def forget_below(self, directory: str) -> None:
        """The same for all files below a directory."""
        for path in [*self.refused, *self.unsaved, *self.scratch]:
            if path.startswith(directory + "/"):
                self.forget(path)

    def forget_all_but(self, there: set[str]) -> None:
        """The same for all files that are not among these."""
        for path in [*self.refused, *self.unsaved, *self.scratch]:
            if path not in there:
                self.forget(path)

    def try_refused_again(self) -> list[str]:
        """Forget the refusals; the paths to look at."""
        paths = list(self.refused)
        self.refused.clear()
        self.suspects.update(paths)
        return paths
