"""How a write through a mount fails."""

from errno import ESTALE


class Refused(Exception):
    """The server or a rule refused a write. Trying again the same way will fail again."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno
        """What the writer's system call fails with (docs/mount.md, errno table)."""
        self.message = message


class Erased(Refused):
    """What was to be written descends from a memory that was erased: it is never sent, under no name."""

    def __init__(self, path: str) -> None:
        super().__init__(ESTALE, f"erased: what {path} descends from was erased, so it is never sent to the store")


class Offline(Exception):
    """The server is away, and the write could not be kept in the journal either."""


class MountError(Exception):
    """A mount can't be opened; the text says what would help."""
