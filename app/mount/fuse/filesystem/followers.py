"""Programs that read a file to its end and wait for more, as `tail -f` does, while others change it.

A version by somebody else is a new node, and a program that has the old one open reads on in the old text, so
that no read is half old and half new. What is only added at the end tears nothing: those readers get it as well.
"""

import logging
import threading
from collections.abc import Callable

from app.contract.limits import CONTENT_MAX_BYTES
from app.mount.fuse.filesystem.coherence import Coherence
from app.mount.fuse.filesystem.nodes import Directory, File, Place, Tree
from app.mount.fuse.filesystem.saving import Saver
from app.mount.sync.errors import Offline, Refused

log = logging.getLogger(__name__)

FOLLOWED_MAX_BYTES = 10 * CONTENT_MAX_BYTES
"""What a reader may have got in all: a file that is rewritten again and again is followed no further."""


class Followers:
    """The replaced nodes of one mount that are open, and what each has shown of its path's texts."""

    def __init__(self, tree: Tree, saver: Saver, coherence: Coherence) -> None:
        self.tree = tree
        self.saver = saver
        self._seen: dict[File, bytes | None] = {}
        """The path's text up to which a node is in step; None: it is the node's own. With the tree's lock."""
        self.on_shown: Callable[[File], None] = lambda file: None
        """Called with the tree's lock when a node shows more than its version's text, before the kernel knows."""
        self._changed = False
        self._is_running = False
        coherence.on_replaced = self.replaced
        coherence.on_text = self.text_changed

    @property
    def is_settled(self) -> bool:
        """Whether every reader has what it will get of the changes so far."""
        return not self._is_running

    def replaced(self, file: File) -> None:
        """The node has lost its path to another. With the lock."""
        if self._is_open(file):
            self._seen[file] = None if file.text is None else bytes(file.text)

    def text_changed(self) -> None:
        """Some path has another text. With the lock."""
        if self._seen:
            self._changed = True
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="fuse-followers", daemon=True).start()

    def restored(self) -> None:
        """Go on after an earlier worker, with what its readers were shown. With the lock."""
        for node in list(self.tree.nodes.values()):
            if isinstance(node, File) and node.place is Place.REPLACED and not node.dirty:
                self.replaced(node)
                if node.text is not None:
                    self.saver.coherence.tell_longer_text(node)  # the earlier worker may not have got so far
        self.text_changed()

    def _is_open(self, file: File) -> bool:
        # The kernel tells nothing of opens in a read-only mount: there it is whatever it has not forgotten.
        return file.handles > 0 or (self.tree.read_only and file.lookups > 0 and file.id in self.tree.nodes)

    def _run(self) -> None:
        while True:
            with self.tree.lock:
                followers = [file for file in self._seen if self._is_open(file) and file.place is Place.REPLACED]
                self._seen = {file: self._seen[file] for file in followers}
                if not self._changed or not followers:
                    self._is_running = False
                    return
                self._changed = False
            for file in followers:
                try:
                    self._follow(file)
                except (Refused, Offline) as failure:
                    log.info("a reader can't be shown what was added: %s", type(failure).__name__)
                except Exception:
                    log.exception("following a file failed")

    def _follow(self, file: File) -> None:
        at = self._at_path(file)
        if at is None:
            return
        own, text = self.saver.fetched(file), self.saver.fetched(at)
        with self.tree.lock:
            if file not in self._seen or self._at_path(file) is not at:
                return
            seen, self._seen[file] = self._seen[file], text
            if seen is None:
                seen = own
            if file.dirty or file.writers or not text.startswith(seen) or len(text) == len(seen):
                return
            shown = own + text[len(seen) :]
            if len(shown) > FOLLOWED_MAX_BYTES:
                del self._seen[file]
                return
            self.tree.entry_of(file)  # the size that is told stays the old one for now
            file.text = shown
            file.edits += 1
            self.on_shown(file)
            self.saver.coherence.tell_longer_text(file)

    @staticmethod
    def _at_path(file: File) -> File | None:
        parent = file.parent
        at = parent.children.get(file.name) if isinstance(parent, Directory) else None
        return at if isinstance(at, File) and at is not file else None
