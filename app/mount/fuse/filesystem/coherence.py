"""What others do to the store, brought into the tree and told to the kernel.

The kernel trusts names and attributes for an hour, so every change that it did not ask for itself must be told to
it. A notification can wait for a request in the same directory that is still to be answered: it is sent by a thread
that nothing else needs, never by the reading one or the engine's.
"""

import errno
import heapq
import itertools
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from app.mount.door.entries import Change, Entry
from app.mount.fuse.filesystem.answering import failure
from app.mount.fuse.filesystem.naming import is_showable
from app.mount.fuse.filesystem.nodes import Directory, File, Place, Tree
from app.mount.fuse.filesystem.recent_refusals import KnownRefusals
from app.mount.fuse.kernel.device import Session
from app.mount.sync.engine import StoreEngine

log = logging.getLogger(__name__)

TRUSTED_SECONDS = 3600.0
UNSURE_SECONDS = 1.0
"""How long the kernel may trust what it knows while the feed is lost."""


class Housekeeper:
    """One thread for what must happen soon, but not now: notifications to the kernel, and work at a later time."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._run, name="fuse-housekeeper", daemon=True)

    def start(self) -> None:
        """Begin; what was asked for before is done first."""
        self._thread.start()

    def stop(self) -> None:
        """End after what was asked for so far; later work is dropped."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def soon(self, work: Callable[[], object]) -> None:
        """Do it as soon as the thread is free, in the order asked for."""
        self._queue.put(work)

    def barrier(self, timeout: float) -> bool:
        """Wait until what was asked for so far is done; False after `timeout` seconds."""
        done = threading.Event()
        self.soon(done.set)
        return done.wait(timeout)

    def after(self, seconds: float, work: Callable[[], object]) -> None:
        """Do it after that time. It must be short."""
        when = time.monotonic() + seconds
        self._queue.put(lambda: heapq.heappush(self._due, (when, next(self._order), work)))

    def _run(self) -> None:
        while True:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            try:
                work = self._queue.get(timeout=timeout)
            except queue.Empty:
                work = heapq.heappop(self._due)[2]
            if work is None:
                return
            try:
                work()
            except Exception:
                log.exception("housekeeping failed")


class Coherence:
    """Keeps the tree as the engine's view is, and the kernel as the tree."""

    def __init__(self, tree: Tree, engine: StoreEngine, housekeeper: Housekeeper) -> None:
        self.tree = tree
        self.engine = engine
        self.housekeeper = housekeeper
        self.session: Session | None = None
        self.parked: dict[str, File] = {}
        """Memories hidden here because they were renamed to a scratch name, by their path on the server."""
        self.hidden: set[str] = set()
        """Memories that can't be shown, because a local directory or file stands in their way."""
        self.feed = "live"
        self.archived = False
        """The store takes no texts now, only removals."""
        self.gone = False
        """The store was deleted, or may no longer be read."""
        self.refusals = KnownRefusals()
        self.on_replaced: Callable[[File], None] = lambda file: None
        """Called with the tree's lock when another node has taken a file's path."""
        self.on_text: Callable[[], None] = lambda: None
        """Called with the tree's lock when a path shows another text."""
        self._loaded = False
        self._held: Counter[str] = Counter()
        self._held_whole = 0
        self._postponed: set[str] = set()

    def load(self) -> None:
        """Fill the tree from the engine's view."""
        with self.tree.lock:
            view = self.engine.view()
            for file in list(self.tree.files()):  # those of an earlier worker
                if file.entry is not None and not file.dirty and self.tree.path(file) not in view:
                    self._vanish(file, Place.REPLACED)
            for path, entry in view.items():
                self._show(path, entry)
            self._loaded = True

    # The engine's changes.

    def on_change(self, changes: list[Change]) -> None:
        """Called by the engine, from a thread of its own."""
        with self.tree.lock:
            if not self._loaded:
                return  # `load` asks for the view after the engine has started
            if any(change.entry is None for change in changes):
                self.refusals.forget()
            for change in changes:
                if change.old_path is not None:
                    self._follow(change.old_path, change.path)
                    self._refresh(change.old_path)
                self._refresh(change.path)

    def _refresh(self, path: str) -> None:
        """Show what the engine has there now: a notice may be older than what was done here since. With the lock."""
        if self._held_whole or self._held[path]:
            self._postponed.add(path)
        else:
            self._show(path, self.engine.get(path))

    def _follow(self, old_path: str, path: str) -> None:
        """Keep the node of a memory that somebody renamed. With the lock."""
        if self._held_whole or self._held[old_path] or self._held[path]:
            return
        node, entry = self.tree.find(old_path), self.engine.get(path)
        if not isinstance(node, File) or node.entry is None or entry is None or self.engine.get(old_path) is not None:
            return
        if node.entry.sha256 != entry.sha256 or self.tree.find(path) is not None or not is_showable(path):
            return
        parent, old_parent = self._directory_for(path), node.parent
        if parent is None or old_parent is None:
            return
        old_name, node.entry = node.name, entry
        self.tree.move(node, parent, path.rpartition("/")[2].encode())
        self._tell(old_parent, old_name)
        self._tell(parent, node.name)
        self._prune(old_parent)

    def _show(self, path: str, entry: Entry | None) -> None:
        if not is_showable(path) or self._is_parked(path, entry):
            return
        node = self.tree.find(path)
        if entry is None:
            self.hidden.discard(path)
            if isinstance(node, File) and node.entry is not None and not node.dirty:
                self._vanish(node, Place.REPLACED)
            return
        if isinstance(node, File):
            if node.dirty:
                return  # the writer's own text shows here until it is saved, and merged then
            if node.entry is not None and node.entry.sha256 == entry.sha256:
                node.entry = entry
                return
            self.put(node, entry)
        elif node is not None and node.children:
            self.hidden.add(path)
        else:
            if node is not None:
                self.tree.detach(node, Place.REMOVED)
            parent = self._directory_for(path)
            if parent is None:
                self.hidden.add(path)
                return
            name = path.rpartition("/")[2].encode()
            self.tree.attach(parent, name, self.tree.new_file(entry))
            self._tell(parent, name)

    def _directory_for(self, path: str) -> Directory | None:
        made: list[Directory] = []
        directory = self.tree.directory_for(path, made)
        for new in made:
            assert new.parent is not None
            self._tell(new.parent, new.name)
        return directory

    def show(self, path: str) -> None:
        """Show what the engine has at the path. With the lock."""
        self._refresh(path)

    def put(self, old: File, entry: Entry) -> File:
        """Give the path of a file a new node with another text, which is returned. With the lock."""
        new = self.tree.new_file(entry)
        self.tree.replace(old, new)
        assert new.parent is not None
        self._tell(new.parent, new.name)
        self.on_replaced(old)
        self.on_text()
        return new

    def put_back(self, file: File, at: File) -> None:
        """Let a replaced node have its path again, instead of the node there. With the lock."""
        self.tree.replace(at, file)
        assert file.parent is not None
        self._tell(file.parent, file.name)

    def _vanish(self, node: File, place: Place) -> None:
        parent, name = node.parent, node.name
        assert parent is not None
        self.tree.detach(node, place)
        self._tell(parent, name)
        self._prune(parent)

    def drop(self, node: File) -> None:
        """Take away a file that no memory stands behind. With the lock."""
        parent = node.parent
        assert parent is not None
        self.tree.detach(node, Place.REMOVED)
        self._tell(parent, node.name)

    def give_up(self, file: File) -> None:
        """Take away a file that can't be saved; the memory that it hid shows again. With the lock."""
        path = self.tree.path(file)
        if file.parked is not None:
            path, file.parked = file.parked.path, None
            self.parked.pop(path, None)
        self.drop(file)
        self._refresh(path)

    def _prune(self, directory: Directory) -> None:
        """Directories are there for memories; one made here stays."""
        while not directory.children and not directory.made_here and directory.parent is not None:
            parent = directory.parent
            self.tree.detach(directory, Place.REMOVED)
            self._tell(parent, directory.name)
            directory = parent

    def _is_parked(self, path: str, entry: Entry | None) -> bool:
        file = self.parked.get(path)
        if file is None or file.parked is None:
            return False
        if entry is not None and entry.sha256 == file.parked.sha256:
            file.parked = entry
            return True
        # Somebody else changed or removed it: the file under the scratch name is on its own now.
        del self.parked[path]
        file.parked = None
        return entry is None

    def check_takes_texts(self, *, is_new: bool) -> None:
        """Raise the OSError with which saving a text would fail, as far as that is known: EROFS, ESTALE, or as above.

        is_new: the text of a new memory.
        """
        if self.archived or self.gone:
            raise failure(errno.EROFS if self.archived else errno.ESTALE)
        self.refusals.check(is_new=is_new)

    # While something is done here.

    @contextmanager
    def holding(self, *paths: str) -> Iterator[None]:
        """Keep what others do to these paths from the tree until the end; no path: whatever they do."""
        with self.tree.lock:
            self._held_whole += not paths
            self._held.update(paths)
        try:
            yield
        finally:
            with self.tree.lock:
                self._held_whole -= not paths
                self._held.subtract(paths)
                self._held += Counter()  # drops the zeros
                # Also what was held itself: the engine may have found it elsewhere, or another text there.
                self._postponed.update(paths)
                if not self._held_whole:
                    ready = {path for path in self._postponed if not self._held[path]}
                    self._postponed -= ready
                    for path in ready:
                        self._show(path, self.engine.get(path))

    # The kernel.

    def _tell(self, parent: Directory, name: bytes) -> None:
        """What the name stands for has changed, or whether it is there."""
        if not self._loaded:
            return
        parent_id = parent.id
        self.housekeeper.soon(lambda: self._invalidate_entry(parent_id, name))

    def tell_name(self, parent: Directory, name: bytes) -> None:
        """What the name stands for has changed by a call that named it otherwise."""
        self._tell(parent, name)

    def tell_text(self, file: File) -> None:
        """The text of a node that stays has changed."""
        node_id = file.id
        self.housekeeper.soon(lambda: self.session and self.session.invalidate_inode(node_id))

    def tell_longer_text(self, file: File) -> None:
        """Something was added to the text of a node: its pages must go before its new size is seen.

        Else a reader would get the zeros behind the old end of a page.
        """

        def tell() -> None:
            if self.session is not None:
                self.session.invalidate_inode(file.id)
            with self.tree.lock:
                self.tree.touch(file)
            if self.session is not None:
                self.session.invalidate_inode(file.id, -1)

        self.housekeeper.soon(tell)

    def _invalidate_entry(self, parent_id: int, name: bytes) -> None:
        if self.session is not None:
            # In this order: the first waits for listings that are just being read, the second drops what they read.
            self.session.invalidate_entry(parent_id, name)
            self.session.invalidate_inode(parent_id)

    def on_feed(self, mode: str) -> None:
        """Called by the engine when it begins or ceases to hear of changes, from a thread of its own."""
        self.housekeeper.soon(self.look_at_the_engine)

    def look_at_the_engine(self) -> None:
        """Whether the engine hears of changes, and the store takes texts. Not in the reading thread."""
        status = self.engine.status()
        feed, self.archived, self.gone = str(status["feed"]), bool(status["archived"]), bool(status["gone"])
        if (feed == "lost") != (self.feed == "lost"):
            with self.tree.lock:
                self.tree.trust(UNSURE_SECONDS if feed == "lost" else TRUSTED_SECONDS)
            self.expire_names()
        self.feed = feed

    def expire_names(self) -> None:
        """Have the kernel ask again for every name."""
        if self.session is None:
            return
        has_epoch = self.session.increment_epoch()
        for node in list(self.tree.nodes.values()):
            if not isinstance(node, Directory):
                continue
            if has_epoch:
                # Names alone have epochs: listings stay, and nobody looks up the root or a working directory again.
                self.session.invalidate_inode(node.id)
            else:
                self._expire(node.id, list(node.children))

    def _expire(self, parent_id: int, names: Iterable[bytes]) -> None:
        for name in names:
            self._invalidate_entry(parent_id, name)
