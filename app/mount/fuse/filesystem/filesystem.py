"""The file system that shows one store through the kernel (docs/mount.md).

What is in memory is answered at once, in the thread that reads the kernel's requests. Whatever may wait for the
network goes to the session's pool and is answered from there, so that a slow server delays nobody else's call.

A request that is `resent` was in hand when an earlier worker died: it may have been carried out already.

Here is which handler answers which request, and the file system's life. The handlers are in `attributes`,
`directories`, `listing`, `opening` and `texts`.
"""

import errno
import os
import threading
from collections.abc import Mapping
from typing import Any

from app.mount.fuse.filesystem.attributes import Attributes
from app.mount.fuse.filesystem.coherence import Coherence, Housekeeper
from app.mount.fuse.filesystem.directories import Directories
from app.mount.fuse.filesystem.followers import Followers
from app.mount.fuse.filesystem.handles import Handles
from app.mount.fuse.filesystem.listing import Listings
from app.mount.fuse.filesystem.nodes import Tree
from app.mount.fuse.filesystem.opening import Opening
from app.mount.fuse.filesystem.renames import Renames
from app.mount.fuse.filesystem.saving import Saver
from app.mount.fuse.filesystem.scratch_files import ScratchFiles
from app.mount.fuse.filesystem.survival import Keeper, Survival, restore, settle_restored
from app.mount.fuse.filesystem.texts import Texts
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.negotiation import Negotiated, Wishes
from app.mount.fuse.kernel.protocol import Feature, Opcode
from app.mount.fuse.kernel.requests import Handler, Reply, Request
from app.mount.sync.engine import StoreEngine


class FileSystem:
    """One store behind one FUSE mount. Give it to a `Session` as its operations.

    ```python
    filesystem = FileSystem(engine, read_only=False)  # sets the engine's callbacks: before it starts
    engine.start()
    session = Session(fd, filesystem, pool=pool, wishes=filesystem.wishes)
    filesystem.restore(kept)                              # only to take over from a worker that died
    filesystem.start(session, keeper)                     # fills the tree and starts the session
    …
    unsaved = filesystem.flush(timeout=10)                # everything closed so far is with the engine
    filesystem.stop()                                     # when the mount is gone
    ```
    """

    def __init__(self, engine: StoreEngine, *, read_only: bool, uid: int | None = None, gid: int | None = None) -> None:
        """uid, gid: whom the files seem to belong to; None: the user of this process."""
        self.engine = engine
        self.read_only = read_only
        self.wishes = Wishes(features=Wishes().features | (Feature.NO_OPEN_SUPPORT if read_only else Feature(0)))
        self.tree = Tree(
            uid=os.getuid() if uid is None else uid, gid=os.getgid() if gid is None else gid, read_only=read_only
        )
        self.handles = Handles()
        self.housekeeper = Housekeeper()
        self.coherence = Coherence(self.tree, engine, self.housekeeper)
        self.saver = Saver(self.tree, engine, self.coherence, self.handles)
        self.followers = Followers(self.tree, self.saver, self.coherence)
        self.renames = Renames(self.tree, self.saver, self.coherence)
        self._survival = Survival(self.tree, self.handles)
        self.tree.on_placed = self._survival.node
        self.tree.on_forgotten = self._survival.forgotten
        self.saver.on_saved = self._survival.file
        self.followers.on_shown = self._survival.shown
        self._scratch_files = ScratchFiles(self.saver, self.housekeeper)
        self._texts = Texts(self.saver, self.handles, self._survival)
        self._attributes = Attributes(self._texts, self.handles, self._survival)
        self._listings = Listings(self.tree, self._survival)
        self._directories = Directories(self.renames, self._scratch_files, self._survival)
        self._opening = Opening(self.handles, self._texts, self._directories, self._scratch_files, self._survival)
        self._restored = False
        engine.on_change = self.coherence.on_change
        engine.on_feed = self.coherence.on_feed
        self.handlers: Mapping[int, Handler] = self._handlers()

    def _handlers(self) -> dict[int, Handler]:
        attributes, listings, directories = self._attributes, self._listings, self._directories
        opening, texts = self._opening, self._texts
        reading: dict[int, Handler] = {
            Opcode.LOOKUP: directories.lookup,
            Opcode.GETATTR: attributes.getattr,
            Opcode.OPEN: opening.open,
            Opcode.READ: texts.read,
            Opcode.OPENDIR: listings.opendir,
            Opcode.READDIR: listings.readdir,
            Opcode.READDIRPLUS: listings.readdirplus,
            Opcode.RELEASEDIR: _done,
            Opcode.FSYNCDIR: _done,
            Opcode.STATFS: attributes.statfs,
            Opcode.GETXATTR: attributes.getxattr,
            Opcode.LISTXATTR: attributes.listxattr,
            Opcode.DESTROY: _done,
        }
        writing: dict[int, Handler] = {
            Opcode.SETATTR: attributes.setattr,
            Opcode.CREATE: opening.create,
            Opcode.MKNOD: directories.mknod,
            Opcode.MKDIR: directories.mkdir,
            Opcode.UNLINK: directories.unlink,
            Opcode.RMDIR: directories.rmdir,
            Opcode.RENAME: directories.rename,
            Opcode.RENAME2: directories.rename2,
            Opcode.WRITE: texts.write,
            Opcode.FLUSH: opening.flush,
            Opcode.FSYNC: opening.fsync,
            Opcode.RELEASE: opening.release,
            Opcode.SYMLINK: _not_permitted,
            Opcode.LINK: _not_permitted,
            Opcode.SETXATTR: _not_supported,
            Opcode.REMOVEXATTR: _not_supported,
            Opcode.FALLOCATE: _not_supported,
            Opcode.TMPFILE: _not_supported,
        }
        if self.read_only:
            # Neither FLUSH nor FSYNC: the kernel then never asks again.
            del writing[Opcode.FLUSH], writing[Opcode.FSYNC]
            writing = {**dict.fromkeys(writing, _read_only), Opcode.RELEASE: opening.release}
        return {**reading, **writing}

    # Life.

    def start(self, session: Session, keeper: Keeper | None = None) -> None:
        """Fill the tree from the engine, which has started, and begin to answer the kernel.

        keeper: where to write down what a successor needs if this process dies; None: it could not go on.
        """
        self.coherence.session = session
        if self._restored:
            settle_restored(self.tree, self.engine.get)
        self.coherence.load()
        if self._restored:
            with self.tree.lock:
                self.followers.restored()
        if keeper is not None:
            self._survival.begin(keeper)
        self.housekeeper.start()
        self.housekeeper.soon(self.coherence.look_at_the_engine)
        session.start()
        if self._restored:
            # What changed meanwhile was not told to the kernel, and what was closed may not have been saved.
            self.housekeeper.soon(self.coherence.expire_names)
            threading.Thread(target=self._save_restored, name="fuse-resave", daemon=True).start()

    def _save_restored(self) -> None:
        """Save what was closed and had not got to the engine."""
        self.saver.save_all(open_files=False, scratch=False)
        for file in list(self.tree.files()):
            if file.scratch:
                self._scratch_files.keep_later(file)

    def state(self) -> bytes:
        """What `restore` needs, as it is now. A keeper has it at any moment, also after a crash."""
        return self._survival.state()

    def restore(self, state: bytes) -> None:
        """Go on where an earlier worker with this state ended: before `start`.

        Nodes and open files keep their numbers, unsaved texts are what they were.
        """
        restore(state, self.tree, self.handles, self.coherence)
        self._restored = True

    def end_for_good(self) -> None:
        """Write nothing more for a successor: there will be none."""
        self._survival.end()

    def stop(self) -> None:
        """End what runs beside the session, which has ended."""
        self.housekeeper.stop()

    def flush(self, timeout: float | None, *, open_files: bool = False) -> list[str]:
        """Hand everything that was closed before this call to the engine; also scratch files that may last.

        The close of a file whose last descriptor was just closed may still be on its way: call `statvfs` on the
        mount first, which is answered after it.

        open_files: also what is still open for writing, as it is now.
        timeout: seconds, for saves that are under way. Returns the paths that the engine did not take.
        """
        if open_files:
            for handle in list(self.handles.table.values()):
                self.saver.aside.put_held(handle)
        failed = self.saver.save_all(open_files=open_files)
        if not self.saver.gate.wait_until_empty(timeout):
            failed += [self.tree.path(file) for file in self.tree.files() if file.dirty and not file.scratch]
        return sorted(set(failed))

    def status(self) -> dict[str, Any]:
        """What is in the mount only, ready for JSON.

        `refused`: [{path, reason}] texts that could not be saved and are kept here; `local`: paths of scratch
        files; `hidden`: memories that a local file or directory stands in the way of; `open_for_writing`: paths.
        """
        with self.tree.lock:
            files = [(self.tree.path(file), file) for file in self.tree.files()]
            return {
                "refused": [{"path": path, "reason": file.refused} for path, file in files if file.refused],
                "local": [path for path, file in files if file.scratch],
                "hidden": sorted(self.coherence.hidden),
                "open_for_writing": [path for path, file in files if file.writers],
            }

    def opened(self, negotiated: Negotiated) -> None:
        """See Operations."""
        self._opening.features = self._listings.features = negotiated.features

    def closed(self) -> None:
        """See Operations."""

    def forget(self, nodeid: int, nlookup: int) -> None:
        """See Operations."""
        self.tree.forget(nodeid, nlookup)


def _done(request: Request) -> Reply:
    return None


def _not_permitted(request: Request) -> Reply:
    return errno.EPERM


def _not_supported(request: Request) -> Reply:
    return errno.EOPNOTSUPP


def _read_only(request: Request) -> Reply:
    return errno.EROFS
