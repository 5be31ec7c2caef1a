"""When and how a file's text goes to the engine (docs/mount.md, "When a file is saved")."""

import contextlib
import dataclasses
import errno
import hashlib
import logging
from collections.abc import Callable

from app.mount.door.entries import Entry
from app.mount.fuse.filesystem.aside import Aside
from app.mount.fuse.filesystem.characters import fault_of, without_what_is_no_text
from app.mount.fuse.filesystem.coherence import Coherence
from app.mount.fuse.filesystem.gate import Gate
from app.mount.fuse.filesystem.handles import Handle, Handles
from app.mount.fuse.filesystem.naming import may_last
from app.mount.fuse.filesystem.nodes import File, Place, Tree
from app.mount.sync.delivery import KeptBeside
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Offline, Refused

log = logging.getLogger(__name__)

SERVER_SECONDS = 30.0
"""How long fsync waits for a server that does not answer."""


class Saver:
    """Saves files. Its methods wait for the network: not for the reading thread."""

    def __init__(self, tree: Tree, engine: StoreEngine, coherence: Coherence, handles: Handles) -> None:
        self.tree = tree
        self.handles = handles
        self.engine = engine
        self.coherence = coherence
        self.gate = Gate()
        self.aside = Aside(tree, engine.kept, self.fetched)
        self.on_saved: Callable[[File], None] = lambda file: None
        """Called with the tree's lock when what is known of a file's memory has changed."""

    def load(self, file: File) -> None:
        """Bring the file's text into memory. Raises Refused or Offline."""
        while file.text is None:
            entry = file.entry
            assert entry is not None, "a file without a memory has its text in memory"
            data = self.at_hand(file)
            if data is None:
                data = self.engine.fetch(entry)
            with self.tree.lock:
                if file.text is None and file.entry is entry:
                    file.text = data

    def fetched(self, file: File) -> bytes:
        """The file's text now, which nobody is to write. Raises Refused or Offline."""
        while True:
            text, entry = file.text, file.entry
            if text is not None:
                return bytes(text)
            assert entry is not None, "a file without a memory has its text in memory"
            data = self.at_hand(file)
            if data is None:
                data = self.engine.fetch(entry)
            if file.entry is entry:
                return data

    def at_hand(self, file: File) -> bytes | None:
        """The content of the file's entry, if no network is needed for it; nothing if there is no entry."""
        entry, base_text = file.entry, file.base_text
        if entry is None:
            return b""
        if base_text is not None and _is_content(base_text, entry):
            return base_text
        return self.engine.at_hand(entry)

    def keep_base(self, file: File) -> bool:
        """Keep the text that somebody begins with, if nobody else may have it later. With the lock.

        False: nobody has it now, it was merged with others' a moment ago; the path shows what came of it.
        """
        if file.dirty or file.entry is None or self.engine.is_stored(file.entry):
            return True
        path = self.tree.path(file)
        current = self.engine.get(path) if file.place is Place.LINKED else None
        if current is not None and current.sha256 == file.entry.sha256:
            file.entry = current  # on the server since it was saved here
            if self.engine.is_stored(current):
                return True
        text = self.at_hand(file) if file.text is None else bytes(file.text)
        if text is None:
            self.coherence.show(path)
            return False
        if text != file.base_text:
            file.base_text = text
            self.on_saved(file)
        return True

    def save(
        self, file: File, *, handle: Handle | None = None, durable: bool = False, ends: bool = True, keep: bool = True
    ) -> None:
        """Save the file's text, if there is something to save.

        handle: by which it was written, and whose caller waits to be told.
        ends: that edit is over, so that bytes which are no text will not become one.
        keep: put a text that is refused among the kept ones; else the caller takes back what it did.

        Raises:
            Refused: nothing was saved, or, of a text that is none, what others had written. The text stays in the
                mount until somebody rewrites or removes it; one that is none goes.
            Offline: as the engine says.

        """
        with self.gate.shared(), file.saving:
            with self.tree.lock:
                if file.place is Place.REMOVED or file.scratch:
                    return
                path, dirty = self.tree.path(file), file.dirty
            if not dirty:
                if durable:
                    self._wait_for_server(path)
                return
            with self.coherence.holding(path):
                if file.text is None:
                    self.load(file)
                self._save_or_keep(file, path, handle, durable=durable, ends=ends, keep=keep)

    def _save_or_keep(
        self, file: File, path: str, handle: Handle | None, *, durable: bool, ends: bool, keep: bool
    ) -> None:
        assert file.text is not None
        data = bytes(file.text)
        fault = fault_of(data)
        if fault is None:
            for writer in self.handles.writers_of(file):
                writer.torn = False
            self.save_at(file, path, durable=durable, keep=keep)
            return
        others = [writer for writer in self.handles.writers_of(file) if writer is not handle]
        if handle is not None and not handle.torn and (file.aside or any(other.torn for other in others)):
            self.save_at(file, path, durable=durable, keep=keep, is_part=True)  # not this writer's bytes
            return
        refusal = Refused(errno.EILSEQ, fault)
        if not ends or not keep:
            raise refusal
        if not self.aside.put(file, path, data, refusal):
            raise refusal  # it stays here alone
        if any(other.unsaved and not other.torn for other in others):
            with self.tree.lock:
                file.aside = True
            if handle is not None:
                handle.torn = False
            self.save_at(file, path, durable=durable, keep=keep, is_part=True)
        else:
            with self.tree.lock:
                self.put_back_text(file)
            if file.dirty:
                self.save_at(file, path, durable=durable, keep=False)
        raise refusal

    def put_back_text(self, file: File) -> None:
        """The file has the memory's text again, or is as empty as when it was made. With the lock."""
        file.aside, file.refused = False, None
        if file.place is Place.REMOVED:
            return
        file.text, file.dirty = (bytearray(), True) if file.entry is None else (None, False)
        file.edits += 1
        file.reply = None
        self.on_saved(file)
        self.coherence.tell_text(file)

    def _wait_for_server(self, path: str) -> None:
        """What an earlier close left in the journal must be on the server."""
        if path in self.engine.status()["pending"] and path in self.engine.flush(SERVER_SECONDS):
            raise Offline

    def save_at(
        self, file: File, path: str, *, durable: bool = False, keep: bool = True, is_part: bool = False
    ) -> None:
        """Save the text at this path, which the caller holds, as it does `file.saving`. Raises as `save`.

        is_part: without the bytes that are no text.
        """
        with self.tree.lock:
            assert file.text is not None
            data, base, edits = bytes(file.text), file.entry, file.edits
            base_text = file.base_text
        whole = data
        if is_part:
            data = without_what_is_no_text(data)
        try:
            result = self.checked_save(path, data, base, base_text=base_text, durable=durable)
        except Refused as refusal:
            if keep and not isinstance(refusal, KeptBeside):
                self.aside.put(file, path, data, refusal)
            with self.tree.lock:
                if file.refused is None or not file.refused.startswith(refusal.message):
                    file.refused = refusal.message
                if refusal.errno == errno.ESTALE:
                    self._give_way(file, path, data, edits)
            if refusal.errno == errno.EROFS:
                self.coherence.on_feed("")  # archived meanwhile?
            raise
        if file.kept is not None and not is_part:
            self.aside.discard_begun(file.kept, data)
            file.kept = None
        with self.tree.lock:
            self.settle(file, data, edits, result)
            if data != whole and file.edits == edits and file.text is not None:
                file.dirty = True  # its writer may still finish it
                self.on_saved(file)

    def checked_save(
        self, path: str, data: bytes, base: Entry | None, *, base_text: bytes | None = None, durable: bool = False
    ) -> Entry:
        """What the engine's `save` returns, for a text that is one. Raises Refused or Offline.

        base_text: passed on if it is the content of `base`.
        """
        if base_text is not None and (base is None or not _is_content(base_text, base)):
            base_text = None
        if (fault := fault_of(data)) is not None:
            raise Refused(errno.EILSEQ, fault)
        try:
            entry = self.engine.save(path, data, base, base_text=base_text, durable=durable)
        except Refused as refusal:
            self.coherence.refusals.note(refusal)
            raise
        self.coherence.refusals.forget()
        return entry

    def settle(self, file: File, data: bytes, edits: int, result: Entry) -> None:
        """The file's text of the time when it had had `edits` is saved as `result`. With the lock.

        The text of `result` is another one if the engine merged it with somebody else's.
        """
        file.refused = None
        file.scratch = False
        digest = hashlib.sha256(data).hexdigest()
        if result.path != self.tree.path(file):
            self.coherence.show(result.path)  # somebody renamed the memory meanwhile
        merged = result.sha256 != digest
        # What this node's text is based on stays its own: whatever is written on top of it is merged from there.
        file.entry = _own(result, digest, data) if merged else result
        file.base_text = None if self.engine.is_stored(file.entry) else data
        if file.edits == edits:
            file.dirty = False
            if merged:
                self._succeed(file, result)
            elif file.place is Place.REPLACED:
                self._take_back(file)
            if file.handles == 0:
                file.text = file.base_text = None
        self.on_saved(file)
        self.coherence.on_text()

    def _succeed(self, file: File, entry: Entry) -> None:
        """Show another text at the path than the one this node has. With the lock."""
        at = self._at_path(file)
        if at is not None and not at.dirty:
            self.coherence.put(at, entry)
            file.merged = True

    def _take_back(self, file: File) -> None:
        at = self._at_path(file)
        if at is not None and not at.dirty:
            self.coherence.put_back(file, at)

    def _at_path(self, file: File) -> File | None:
        """The file that has the path now. If there is none, this one gets it back."""
        if file.place is Place.LINKED:
            return file
        parent = file.parent
        assert parent is not None
        at = parent.children.get(file.name)
        if at is None and parent.place is Place.LINKED:
            self.tree.attach(parent, file.name, file)
            return file
        return at if isinstance(at, File) else None

    def _give_way(self, file: File, path: str, data: bytes, edits: int) -> None:
        """The server's text stays at the path; ours was kept beside, or refused. With the lock.

        What is written on top of ours is an edit of its own.
        """
        current = self.engine.get(path)
        if current is not None:
            file.entry, file.base_text = _own(current, hashlib.sha256(data).hexdigest(), data), data
        if file.edits == edits:
            file.dirty = False
        self.on_saved(file)
        if file.place is not Place.LINKED:
            return
        if current is None:
            self.coherence.drop(file)
        else:
            self.coherence.put(file, current)
            file.merged = True

    def catch_up(self, file: File) -> bool:
        """Take over what the path has now, if this file's text was merged into it; whether that is so. With the lock.

        Not for a writer that goes on where it was: its offsets are those of the old text. What it writes goes on top
        of that, and is merged again; so does everything if the new text is not at hand.
        """
        if not file.merged or file.dirty:
            return False
        at = file.parent.children.get(file.name) if file.parent is not None else None
        if not isinstance(at, File) or at is file or at.dirty or at.entry is None:
            return False
        text = at.text if at.text is not None else self.at_hand(at)
        if text is None:
            return False
        file.text, file.entry, file.base_text, file.merged = bytearray(text), at.entry, at.base_text, False
        self.coherence.put_back(file, at)
        self.coherence.tell_text(file)
        return True

    def keep(self, file: File) -> None:
        """Save a scratch file that stayed: it was no program's scratch file after all. Raises Refused or Offline."""
        with self.gate.shared(), file.saving:
            with self.tree.lock:
                if file.place is not Place.LINKED or not file.scratch or file.writers or not may_last(file.name):
                    return
                path = self.tree.path(file)
                parked = file.parked
            with self.coherence.holding(path, *([parked.path] if parked else [])):
                if parked is not None:
                    entry = self.engine.rename(parked, path)
                    with self.tree.lock:
                        self.unpark(file, entry)
                with self.tree.lock:
                    dirty = file.dirty
                if dirty:
                    assert file.text is not None
                    self.save_at(file, path)

    def unpark(self, file: File, entry: Entry) -> None:
        """The file is the memory `entry` again, which is no longer hidden. With the lock."""
        if file.parked is not None and self.coherence.parked.get(file.parked.path) is file:
            del self.coherence.parked[file.parked.path]
        file.parked, file.entry, file.scratch = None, entry, False
        assert file.text is not None
        file.dirty = hashlib.sha256(file.text).hexdigest() != entry.sha256
        self.on_saved(file)

    def save_all(self, *, open_files: bool, scratch: bool = True) -> list[str]:
        """Save everything that is unsaved; the paths that could not be.

        open_files: also what is still open for writing.
        scratch: also scratch files that may last.
        """
        failed = []
        for file in list(self.tree.files()):
            if not file.dirty or (file.writers and not open_files):
                continue
            if file.scratch and not (scratch and may_last(file.name)):
                continue
            try:
                if file.scratch:
                    self.keep(file)
                else:
                    self.save(file)
            except (Refused, Offline) as failure:
                with self.tree.lock, contextlib.suppress(UnicodeDecodeError):
                    failed.append(path := self.tree.path(file))
                if scratch and file.scratch and isinstance(failure, Refused) and file.text is not None:
                    self.aside.put(file, path, bytes(file.text), failure)  # the mount may be about to end
        return failed


def _is_content(text: bytes, entry: Entry) -> bool:
    return hashlib.sha256(text).hexdigest() == entry.sha256


def _own(entry: Entry, sha256: str, data: bytes) -> Entry:
    """The memory of an entry with a text that the server may never have had."""
    return dataclasses.replace(entry, sha256=sha256, size=len(data), version_id=None)
