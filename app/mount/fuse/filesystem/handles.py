"""Open files, and whether a close is the one at which a writer expects its text to be saved.

A FLUSH comes for every descriptor that is closed, also for the copies that a shell makes and throws away before it
writes, and for those that a child process inherited and loses when it ends. Saving at each would publish empty and
half-written texts.
"""

import os

from app.mount.fuse.filesystem.nodes import File
from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.requests import Request


class Handle:
    """One open file description."""

    __slots__ = ("file", "held", "opener", "request", "torn", "unsaved", "writable")

    def __init__(self, file: File, *, writable: bool, opener: int, request: int = 0) -> None:
        self.file = file
        self.writable = writable
        self.opener = opener
        """Thread ID of who opened it; 0: not visible from here."""
        self.request = request
        """The unique number of the request that opened it."""
        self.unsaved = False
        """Bytes came through this handle since the file was last saved."""
        self.held = b""
        """The beginning of a character at the end of what was appended: it goes into the text with the rest of it, so
        that what others append meanwhile does not tear it."""
        self.torn = False
        """What came through this handle may have left a part of a character in the text."""


class Handles:
    """The open files of one mount, by the number the kernel uses. For the reading thread."""

    def __init__(self) -> None:
        self.table: dict[int, Handle] = {}
        self.next_number = 1

    def open(self, file: File, *, writable: bool, request: Request) -> int:
        """A new handle's number; that of the one which an earlier worker opened for the same request, if it did."""
        unique = request.unique & ~protocol.RESENT
        if request.resent:
            for number, handle in self.table.items():
                if handle.request == unique and handle.file is file:
                    return number
        number = self.next_number
        self.next_number += 1
        self.table[number] = Handle(file, writable=writable, opener=request.pid, request=unique)
        file.handles += 1
        file.writers += writable
        return number

    def writers_of(self, file: File) -> list[Handle]:
        """The handles by which the file may be written. From any thread."""
        return [handle for handle in list(self.table.values()) if handle.file is file and handle.writable]

    def adopt(self, number: int, handle: Handle) -> None:
        """A handle of an earlier worker goes on."""
        self.table[number] = handle
        handle.file.handles += 1
        handle.file.writers += handle.writable
        self.next_number = max(self.next_number, number) + 1

    def close(self, number: int) -> Handle | None:
        """Take the handle out; None if there is none."""
        handle = self.table.pop(number, None)
        if handle is not None:
            handle.file.handles -= 1
            handle.file.writers -= handle.writable
        return handle


def ends_the_edit(handle: Handle, closer: int) -> bool:
    """Whether the text is to be saved when the thread `closer` closes a descriptor of the handle.

    Yes when something was written and the process that opened the file closes it. If that process is gone, or only
    its thread was known: when the one that wrote closes it. Else the last close will do it.
    """
    if not handle.unsaved:
        return False
    opener, writer = handle.opener, handle.file.writer
    if closer in (0, opener) or opener == 0 or _same_process(closer, opener):
        return True
    if _exists(opener):
        return False
    return writer in (0, closer) or _same_process(closer, writer) or not _exists(writer)


def _same_process(thread: int, other: int) -> bool:
    return os.path.exists(f"/proc/{thread}/task/{other}")


def _exists(thread: int) -> bool:
    return os.path.exists(f"/proc/{thread}")
