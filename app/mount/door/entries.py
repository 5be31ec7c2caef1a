"""What a mount shows of a store: its memories, and how they change under it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One memory as the mount shows it, what is pending included."""

    path: str
    """Inside the store, starting with `/`."""
    memory_id: str | None
    """None while the server does not have it yet."""
    version_id: str | None
    sha256: str
    """Of the content's UTF-8 bytes, in hex."""
    size: int
    """Bytes of UTF-8."""
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change to what a mount shows that its own front end did not ask for."""

    path: str
    entry: Entry | None
    """None: nothing is at the path now."""
    old_path: str | None = None
    """Set when the memory came here from there, with its ID."""
