"""Renaming and removing: what becomes of the memories behind the names.

Programs save by writing a temporary file and renaming it over the real one, or by renaming the real one away first.
Either way the memory at the real name is meant to go on, with one new version.
"""

import contextlib
import dataclasses
import errno
from collections.abc import Iterator
from contextlib import contextmanager

from app.mount.door.entries import Entry
from app.mount.fuse.filesystem.answering import failure
from app.mount.fuse.filesystem.coherence import Coherence
from app.mount.fuse.filesystem.naming import check_name
from app.mount.fuse.filesystem.nodes import AnyNode, Directory, File, Place, Tree
from app.mount.fuse.filesystem.saving import Saver
from app.mount.sync.scratch import is_scratch

RENAME_NOREPLACE = 1


class Renames:
    """Renames and removals of one mount."""

    def __init__(self, tree: Tree, saver: Saver, coherence: Coherence) -> None:
        self.tree = tree
        self.saver = saver
        self.coherence = coherence
        self.engine = saver.engine

    # Before: what the call names.

    def child(self, parent: Directory, name: bytes) -> AnyNode:
        """Raises OSError ENOENT."""
        child = parent.children.get(name)
        if child is None:
            raise failure(errno.ENOENT)
        return child

    def check(self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes, flags: int) -> bool:
        """Whether the rename may be done, and there is something to do; raises OSError as rename(2) fails."""
        if flags & ~RENAME_NOREPLACE:
            raise failure(errno.EINVAL)  # no exchange, no whiteout
        source, target = self.child(parent, name), new_parent.children.get(new_name)
        check_name(self.tree, new_parent, new_name)
        if target is None:
            return True
        if flags & RENAME_NOREPLACE:
            raise failure(errno.EEXIST)
        if target is source:
            return False
        if isinstance(target, Directory):
            if not isinstance(source, Directory):
                raise failure(errno.EISDIR)
            if target.children:
                raise failure(errno.ENOTEMPTY)
        elif isinstance(source, Directory):
            raise failure(errno.ENOTDIR)
        return True

    def is_local(self, node: AnyNode | None) -> bool:
        """Whether removing the node, or giving it a scratch name, is no business of the engine's."""
        if isinstance(node, Directory):
            return not node.children
        return node is None or (node.entry is None and node.parked is None and not node.saving.locked())

    # Removing.

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove a file, and its memory. Raises OSError, Refused or Offline."""
        file = self.child(parent, name)
        if not isinstance(file, File):
            raise failure(errno.EISDIR)
        with self.saver.gate.shared(), file.saving:
            with self.tree.lock:
                if parent.children.get(name) is not file:
                    raise failure(errno.ENOENT)
                path = self.tree.path(file)
            with self.coherence.holding(path):
                self._remove_memory(file)
                with self.tree.lock:
                    self.unlink(file)

    def _remove_memory(self, file: File) -> None:
        parked = file.parked
        if parked is not None:
            with self.coherence.holding(parked.path):
                self.engine.remove(parked)
                with self.tree.lock:
                    if self.coherence.parked.get(parked.path) is file:
                        del self.coherence.parked[parked.path]
                    file.parked = None
        elif file.entry is not None:
            self.engine.remove(file.entry)
        self.coherence.refusals.forget()

    def unlink(self, file: File) -> None:
        """Take the file from its name. With the lock."""
        if file.dirty and file.kept is not None:
            self.saver.aside.discard(file)  # a removed file's text is not wanted
        self.tree.detach(file, Place.REMOVED)
        file.ctime_ns = file.parent.ctime_ns if file.parent else file.ctime_ns

    # Renaming a file.

    def rename_file(self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes) -> None:
        """Rename a file, over another if there is one. Raises OSError, Refused or Offline."""
        source, target = self.child(parent, name), new_parent.children.get(new_name)
        if not isinstance(source, File) or isinstance(target, Directory):
            raise failure(errno.EISDIR)
        with self.saver.gate.shared(), self._no_saves(source, target):
            with self.tree.lock:
                if parent.children.get(name) is not source or new_parent.children.get(new_name) is not target:
                    raise failure(errno.ESTALE)
                old_path, new_path = self.tree.path(source), check_name(self.tree, new_parent, new_name)
            with self.coherence.holding(old_path, new_path):
                if is_scratch(new_name.decode()):
                    self._to_scratch(source, target)
                    self._move(source, target, new_parent, new_name)
                elif source.entry is not None:
                    entry = self.engine.rename(source.entry, new_path, onto=self._replaced(target, new_path))
                    self._claim(new_path)
                    self._move(source, target, new_parent, new_name)
                    with self.tree.lock:
                        self.now_is(source, entry)
                elif source.parked is not None:
                    self._from_backup(source, target, new_parent, new_name, new_path)
                else:
                    self._to_real(source, target, new_parent, new_name, new_path)

    @contextmanager
    def _no_saves(self, *files: File | None) -> Iterator[None]:
        with contextlib.ExitStack() as locks:
            for file in sorted(filter(None, files), key=lambda file: file.id):
                locks.enter_context(file.saving)
            yield

    def _replaced(self, target: File | None, path: str) -> Entry | None:
        """The memory at the path whose ID goes on."""
        if target is not None:
            return target.entry
        hidden = self.coherence.parked.get(path)
        return hidden.parked if hidden is not None else None

    def _replaced_text(self, target: File | None, path: str) -> bytes | None:
        """The text of that memory where the server may never have it. With the lock."""
        if target is not None:
            self.saver.keep_base(target)
        file = target if target is not None else self.coherence.parked.get(path)
        return file.base_text if file is not None else None

    def _claim(self, path: str) -> None:
        """The memory that was hidden at the path has its name again; the backup of it is on its own."""
        with self.tree.lock:
            hidden = self.coherence.parked.pop(path, None)
            if hidden is not None:
                hidden.parked = None

    def _to_scratch(self, source: File, target: File | None) -> None:
        """A backup is made: the memory stays where it is, until the backup is removed or stays."""
        if target is not None:
            self._remove_memory(target)
        if source.entry is None:
            source.scratch = True
            return
        self.saver.load(source)
        with self.tree.lock:
            assert source.text is not None
            self.saver.keep_base(source)
            source.parked, source.entry = source.entry, None
            source.scratch = source.dirty = True
            self.coherence.parked[source.parked.path] = source
            self.saver.on_saved(source)

    def _from_backup(
        self, source: File, target: File | None, new_parent: Directory, new_name: bytes, new_path: str
    ) -> None:
        parked = source.parked
        assert parked is not None
        with self.coherence.holding(parked.path):
            # Back to where it came from and nothing is there: nothing has happened, as the server sees it.
            entry = parked
            if parked.path != new_path or target is not None:
                entry = self.engine.rename(parked, new_path, onto=self._replaced(target, new_path))
                if parked.path != new_path:
                    self._claim(new_path)
            with self.tree.lock:
                self.saver.unpark(source, entry)
            self._move(source, target, new_parent, new_name)
            if source.dirty:
                self.saver.save_at(source, new_path)

    def _to_real(
        self, source: File, target: File | None, new_parent: Directory, new_name: bytes, new_path: str
    ) -> None:
        """A temporary or brand-new file becomes real: one version of the memory that is or was there."""
        with self.tree.lock:
            assert source.text is not None
            data, edits = bytes(source.text), source.edits
            base_text = self._replaced_text(target, new_path)
        entry = self.saver.checked_save(new_path, data, self._replaced(target, new_path), base_text=base_text)
        self._claim(new_path)
        with self.tree.lock:
            # First: a successor that finds it under its new name must know that it is a memory.
            source.entry, source.scratch = entry, False
            self.move(source, target, new_parent, new_name)
            self.saver.settle(source, data, edits, entry)

    def now_is(self, file: File, entry: Entry) -> None:
        """The file's memory was renamed, and is `entry` now. With the lock."""
        before = file.entry
        if before is None or before.sha256 == entry.sha256:
            file.entry = entry
        elif file.dirty:
            file.entry = dataclasses.replace(before, path=entry.path)
        else:
            self.coherence.put(file, entry)  # somebody else had changed it
            file.merged = True
        self.saver.on_saved(file)

    def _move(self, node: AnyNode, target: AnyNode | None, parent: Directory, name: bytes) -> None:
        with self.tree.lock:
            self.move(node, target, parent, name)

    def move(self, node: AnyNode, target: AnyNode | None, parent: Directory, name: bytes) -> None:
        """Move a node in the tree. With the lock."""
        in_the_way = parent.children.get(name)
        if in_the_way is not None and in_the_way is not node:
            self.tree.detach(in_the_way, Place.REMOVED)
        if target is not None and target is not in_the_way:
            self.tree.detach(target, Place.REMOVED)
        self.tree.move(node, parent, name)

    # Renaming a directory.

    def has_memories(self, directory: Directory) -> bool:
        """Whether the engine knows anything below the directory."""
        prefix = self.tree.path(directory) + "/"
        return any(file.entry is not None or file.saving.locked() for file in self.tree.files(directory)) or any(
            path.startswith(prefix) for path in list(self.coherence.parked)
        )

    def rename_directory(self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes) -> None:
        """Rename a directory and everything below it in one step. Raises OSError, Refused or Offline."""
        source, target = self.child(parent, name), new_parent.children.get(new_name)
        if not isinstance(source, Directory):
            raise failure(errno.ENOTDIR)
        with self.saver.gate.alone(), self.coherence.holding():
            old, new = self.tree.path(source) + "/", check_name(self.tree, new_parent, new_name) + "/"
            if self.has_memories(source):
                self.engine.rename_tree(old, new)
            with self.tree.lock:
                self.move(source, target, new_parent, new_name)
                self._follow(source, old, new)

    def _follow(self, directory: Directory, old: str, new: str) -> None:
        for file in list(self.tree.files(directory)):
            entry = self.engine.get(self.tree.path(file)) if file.entry is not None else None
            if entry is not None:
                self.now_is(file, entry)
        for path, hidden in list(self.coherence.parked.items()):
            if path.startswith(old):
                del self.coherence.parked[path]
                moved = self.engine.get(new + path[len(old) :])
                hidden.parked = moved
                if moved is not None:
                    self.coherence.parked[moved.path] = hidden

    def settle_hidden(self, path: str) -> None:
        """Something that is no file is to be made where a memory is hidden: the backup becomes the memory."""
        hidden = self.coherence.parked.get(path)
        if hidden is None or hidden.parked is None:
            return
        with self.saver.gate.shared(), hidden.saving:
            new_path = self.tree.path(hidden)
            with self.coherence.holding(path, new_path):
                entry = self.engine.rename(hidden.parked, new_path)
                with self.tree.lock:
                    self.saver.unpark(hidden, entry)
