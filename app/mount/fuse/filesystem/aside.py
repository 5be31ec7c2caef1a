"""What can't be saved is put among the texts that are kept on this host (`app.mount.sync.kept`)."""

import contextlib
import errno
import logging
from collections.abc import Callable

from app.mount.fuse.filesystem.characters import fault_of
from app.mount.fuse.filesystem.handles import Handle
from app.mount.fuse.filesystem.nodes import File, Place, Tree
from app.mount.sync.errors import MountError, Refused
from app.mount.sync.kept import KeptTexts

log = logging.getLogger(__name__)


class Aside:
    """Puts texts of files aside. Its methods write to the disk: not for the reading thread."""

    def __init__(self, tree: Tree, kept: KeptTexts, fetched: Callable[[File], bytes]) -> None:
        """fetched: gives a file's text, which may be on the server."""
        self._tree = tree
        self._kept = kept
        self._fetched = fetched

    def put(self, file: File, path: str, data: bytes, refusal: Refused) -> bool:
        """Put a text among the kept ones; whether the disk took it. What it goes on from need not be kept."""
        memory = file.entry or file.parked
        try:
            kept = self._kept.keep(
                path, data, refusal.message, memory_id=memory.memory_id if memory else None, errno=refusal.errno
            )
            # A text that is none leaves the file; what is refused for another reason may be saved later.
            before, file.kept = file.kept, None if refusal.errno == errno.EILSEQ else kept.id
            if before not in (None, kept.id):
                self.discard_begun(before, data)
        except OSError as error:
            log.error("a text that can't be saved can't be kept either: %s", error.strerror)
            with self._tree.lock:
                file.refused = f"{refusal.message}; it is in memory alone: {error.strerror}"
            return False
        return True

    def discard(self, file: File) -> None:
        """Keep the file's refused text no longer."""
        assert file.kept is not None
        with contextlib.suppress(MountError, OSError):  # somebody took it
            self._kept.discard(file.kept)
        file.kept = None

    def discard_begun(self, kept_id: str | None, by: bytes) -> None:
        """Keep a text no longer if `by` begins with it."""
        assert kept_id is not None
        with contextlib.suppress(MountError, OSError):
            if by.startswith(self._kept.show(kept_id)):
                self._kept.discard(kept_id)

    def put_held(self, handle: Handle) -> None:
        """Keep the beginning of a character whose rest will not come, with the text before it; then drop it."""
        file = handle.file
        with self._tree.lock:
            held, text = handle.held, file.text
            path = self._tree.path(file)
        if not held:
            return
        if text is None:
            text = self._fetched(file)
        whole = bytes(text) + held
        if file.place is not Place.REMOVED:
            self.put(file, path, whole, Refused(errno.EILSEQ, fault_of(whole) or "not UTF-8"))
        with self._tree.lock:
            handle.held = b""
