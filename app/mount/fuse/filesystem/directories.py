"""The names in a directory: looked up, made, removed and renamed."""

import errno
import os
import stat

from app.mount.fuse.filesystem.answering import find_directory, later
from app.mount.fuse.filesystem.naming import NAME_MAX, check_name, composed, is_temporary
from app.mount.fuse.filesystem.nodes import AnyNode, Directory, File, Place
from app.mount.fuse.filesystem.renames import Renames
from app.mount.fuse.filesystem.scratch_files import ScratchFiles
from app.mount.fuse.filesystem.survival import Survival
from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.requests import Reply, Request
from app.mount.sync.errors import Offline, Refused


class Directories:
    """LOOKUP, MKNOD, MKDIR, UNLINK, RMDIR, RENAME and RENAME2 of one mount."""

    def __init__(self, renames: Renames, scratch_files: ScratchFiles, survival: Survival) -> None:
        self.renames = renames
        self.tree = renames.tree
        self.saver = renames.saver
        self.coherence = renames.coherence
        self.scratch_files = scratch_files
        self.survival = survival

    # Looking up.

    def lookup(self, request: Request) -> Reply:
        """Which node a name stands for. The most frequent request: it calls nothing that it can do itself."""
        parent = self.tree.nodes.get(request.nodeid)
        name = request.body[:-1]
        try:
            node = parent.children[name]  # type: ignore[union-attr]
        except KeyError:
            return self._by_another_spelling(parent, name)
        except AttributeError:
            return errno.ESTALE if parent is None else errno.ENOTDIR
        node.lookups += 1
        if node.lookups == 1:
            self.survival.node(node)
        return node.reply or self.tree.entry_of(node)

    def _by_another_spelling(self, parent: AnyNode | None, name: bytes) -> Reply:
        """What has the composed name. The kernel is not told of changes under any other: it must ask each time."""
        if len(name) > NAME_MAX:
            return errno.ENAMETOOLONG
        spelled = composed(name)
        if spelled == name:
            return protocol.negative_entry_out(self.tree.entry_valid)
        node = parent.children.get(spelled) if isinstance(parent, Directory) else None
        return errno.ENOENT if node is None else self.entry_out(node, name)

    def entry_out(self, node: AnyNode, given: bytes | None = None) -> bytes:
        """The node as an answer that gives the kernel a reference to it, as a lookup does.

        given: the name that the caller used; if it is not the node's own, the kernel does not remember it.
        """
        node.lookups += 1
        if node.lookups == 1:
            self.survival.node(node)
        entry = self.tree.entry_of(node)
        return entry if given in (None, node.name) else protocol.not_to_be_trusted(entry)

    def tell_spellings(self, parent: Directory, given: bytes, name: bytes) -> None:
        """The name was made or lost under another spelling, of which alone the kernel knows by itself."""
        if given != name:
            self.coherence.tell_name(parent, name)
            self.coherence.tell_name(parent, given)

    # Making.

    def new_file(self, request: Request, parent: Directory, name: bytes, mode: int, flags: int) -> File:
        """Make an empty file, for the mount alone so far. Raises OSError: as `check_name`, or if it can't be saved."""
        path = check_name(self.tree, parent, name)
        if not is_temporary(parent, name, flags, mode):
            self.coherence.check_takes_texts(is_new=path not in self.coherence.parked)
        with self.tree.lock:
            hidden = self.coherence.parked.pop(path, None)
            file = self.tree.new_file()
            if hidden is not None:
                # The real name after a backup was made of it: the memory goes on here.
                file.entry, hidden.parked = hidden.parked, None
                file.base_text = hidden.base_text
            file.text = bytearray()
            file.dirty = True
            file.edits = 1
            file.scratch = hidden is None and is_temporary(parent, name, flags, mode)
            _own(file, request, mode, parent)
            self.tree.attach(parent, name, file)
            if hidden is not None:
                self.survival.file(file)  # its text is empty, and not the memory's
        return file

    def mknod(self, request: Request) -> Reply:
        """A file that nobody has open: it is saved at once, or not made."""
        mode, *_ = protocol.MKNOD_IN.unpack_from(request.body)
        parent, given = find_directory(self.tree, request.nodeid), request.body[protocol.MKNOD_IN.size : -1]
        name = composed(given)
        if not stat.S_ISREG(mode):
            return errno.EPERM
        done = parent.children.get(name)
        if done is not None:
            return self.entry_out(done, given) if request.resent and isinstance(done, File) else errno.EEXIST
        file = self.new_file(request, parent, name, mode, os.O_EXCL)
        self.tell_spellings(parent, given, name)
        if file.scratch:
            return self.entry_out(file, given)

        def save() -> Reply:
            try:
                self.saver.save(file, keep=False)  # no close will
            except (Refused, Offline):
                with self.tree.lock:
                    if file.place is Place.LINKED and not file.writers:
                        self.coherence.give_up(file)
                raise
            return self.entry_out(file, given)

        return later(request, save)

    def mkdir(self, request: Request) -> Reply:
        """A directory that is in the mount alone until there is a memory below it."""
        if self.coherence.archived:
            return errno.EROFS
        mode, _ = protocol.MKDIR_IN.unpack_from(request.body)
        parent, given = find_directory(self.tree, request.nodeid), request.body[protocol.MKDIR_IN.size : -1]
        name = composed(given)
        path = check_name(self.tree, parent, name)

        def make() -> Reply:
            with self.tree.lock:
                done = parent.children.get(name)
                if done is not None:
                    is_done = request.resent and isinstance(done, Directory)
                    return self.entry_out(done, given) if is_done else errno.EEXIST
                directory = self.tree.new_directory()
                directory.made_here = True
                _own(directory, request, mode, parent)
                self.tree.attach(parent, name, directory)
            self.tell_spellings(parent, given, name)
            return self.entry_out(directory, given)

        if path not in self.coherence.parked:
            return make()

        def settle_and_make() -> Reply:
            self.renames.settle_hidden(path)
            return make()

        return later(request, settle_and_make)

    # Removing.

    def unlink(self, request: Request) -> Reply:
        """Remove a file, and its memory."""
        parent, given = find_directory(self.tree, request.nodeid), request.body[:-1]
        name = composed(given)
        if request.resent and name not in parent.children:
            return None
        file = self.renames.child(parent, name)
        if not isinstance(file, File):
            return errno.EISDIR
        if self.renames.is_local(file):
            with self.tree.lock:
                self.renames.unlink(file)
            self.tell_spellings(parent, given, name)
            return None

        def remove() -> Reply:
            self.renames.remove(parent, name)
            self.tell_spellings(parent, given, name)
            return None

        return later(request, remove)

    def rmdir(self, request: Request) -> Reply:
        """Remove an empty directory, which no memory stands behind."""
        parent, given = find_directory(self.tree, request.nodeid), request.body[:-1]
        name = composed(given)
        if request.resent and name not in parent.children:
            return None
        directory = self.renames.child(parent, name)
        if not isinstance(directory, Directory):
            return errno.ENOTDIR
        with self.tree.lock:
            if directory.children:
                return errno.ENOTEMPTY
            self.tree.detach(directory, Place.REMOVED)
        self.tell_spellings(parent, given, name)
        return None

    # Renaming.

    def rename(self, request: Request) -> Reply:
        """Give a file or directory another name; what has that name is replaced."""
        (new_parent,) = protocol.RENAME_IN.unpack_from(request.body)
        old, new = protocol.names(request.body, protocol.RENAME_IN.size)
        return self._rename(request, old, new_parent, new, 0)

    def rename2(self, request: Request) -> Reply:
        """The same, where RENAME_NOREPLACE may forbid the replacing."""
        new_parent, flags, _ = protocol.RENAME2_IN.unpack_from(request.body)
        old, new = protocol.names(request.body, protocol.RENAME2_IN.size)
        return self._rename(request, old, new_parent, new, flags)

    def _rename(self, request: Request, given: bytes, new_parent_id: int, new_given: bytes, flags: int) -> Reply:
        name, new_name = composed(given), composed(new_given)
        parent, new_parent = find_directory(self.tree, request.nodeid), find_directory(self.tree, new_parent_id)
        if request.resent and name not in parent.children and new_name in new_parent.children:
            return None
        if not self.renames.check(parent, name, new_parent, new_name, flags):
            self.tell_spellings(parent, given, name)
            self.tell_spellings(new_parent, new_given, new_name)
            return None
        source = self.renames.child(parent, name)

        def rename() -> Reply:
            if isinstance(source, Directory):
                self.renames.rename_directory(parent, name, new_parent, new_name)
            else:
                self.renames.rename_file(parent, name, new_parent, new_name)
                if source.scratch:
                    self.scratch_files.keep_later(source)
            self.tell_spellings(parent, given, name)
            self.tell_spellings(new_parent, new_given, new_name)
            return None

        return later(request, rename)


def _own(node: AnyNode, request: Request, mode: int, parent: Directory) -> None:
    """A new node belongs to its maker."""
    node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
    node.uid, node.gid = request.uid, request.gid
    if parent.mode & stat.S_ISGID:
        node.gid = parent.gid
        if isinstance(node, Directory):
            node.mode |= stat.S_ISGID
