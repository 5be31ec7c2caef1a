"""Brings one path at a time to where disk, agreement and view are the same.

Local, base (what was agreed on last) and remote (the view) decide: only the disk changed, it is saved; only the
view changed, the disk follows; both changed, the engine merges. See docs/mount.md.
"""

import contextlib
import errno
import hashlib
import logging
import re
import stat as modes
import time
from dataclasses import replace
from pathlib import Path

from app.mount.door.entries import Entry
from app.mount.mirror.agreements import Agreed, Agreements
from app.mount.mirror.applier import Applier, Edited, InTheWay
from app.mount.mirror.contents import Contents
from app.mount.mirror.deletions import Deletions, Verdict
from app.mount.mirror.moves import Moves
from app.mount.mirror.notes import LocalOnly, Notes
from app.mount.mirror.spellings import Spellings, composed
from app.mount.mirror.tree import Busy, Content, Stat, Tree, not_a_file
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Erased, Offline, Refused
from app.mount.sync.scratch import is_scratch

_log = logging.getLogger(__name__)

_NOW = 0.0
_SOON = 0.2
_BUSY_SECONDS = 0.5
_OFFLINE_SECONDS = 1.0
_SCRATCH_SECONDS = 5.0
_RACY_NS = 20_000_000
"""A file changed so shortly before we read it may change again without a new time."""

_FLEETING = re.compile(r"\..+\.sw[a-z]|4913|\.#.+|#.+#|\.nfs.+|\.goutputstream-.+", re.DOTALL)
"""Scratch names that nobody means to keep, however long they are there."""


class Reconciler:
    """Keeps the state of every path of one mirror. Not thread-safe."""

    def __init__(
        self,
        engine: StoreEngine,
        tree: Tree,
        applier: Applier,
        agreements: Agreements,
        contents: Contents,
        *,
        read_only: bool,
    ) -> None:
        self._engine = engine
        self._tree = tree
        self._applier = applier
        self._agreements = agreements
        self._contents = contents
        self._read_only = read_only
        self.notes = Notes()
        self.deletions = Deletions(tree, agreements)
        self.spellings = Spellings(engine, tree, applier, agreements)
        self.moves = Moves(engine, tree, applier, agreements, self.notes, self.deletions, read_only=read_only)

    def look(self, path: str, *, final: bool = False) -> float | None:
        """Compare disk, agreement and view at one path, and do what is to be done.

        final: the last chance to save: also what somebody has open for writing.
        Returns in how many seconds to look again; None: when something happens.
        """
        self.notes.busy.discard(path)
        try:
            return self._look(path, final=final)
        except Busy:
            self.notes.busy.add(path)
            return _BUSY_SECONDS
        except (Edited, FileNotFoundError, NotADirectoryError):  # not what it was a moment ago
            self.notes.suspects.add(path)
            return _NOW
        except InTheWay as error:
            self.notes.waiting[path] = str(error)
            return None
        except Offline as error:
            self.notes.unsaved[path] = str(error)
            return _OFFLINE_SECONDS

    def _look(self, path: str, *, final: bool) -> float | None:
        status = self._tree.stat(path)
        agreed, remote = self._agreements.get(path), self._engine.get(path)
        if status is None or modes.S_ISDIR(status.st_mode):
            return self._missing(path, agreed, remote)
        self.deletions.back(path)
        if not modes.S_ISREG(status.st_mode):
            if self._read_only:
                return self._revert(path, None, remote)
            return self.refuse(path, Stat.of(status), not_a_file(status.st_mode))
        stat = Stat.of(status)
        if agreed is None or agreed.stat != stat or path in self.notes.suspects:
            done, again = self._look_at_content(path, stat, agreed, remote, final=final)
            if done:
                return again
            agreed = self._agreements[path]
        self.notes.refused.pop(path, None)
        self.notes.unsaved.pop(path, None)
        return self._disk_is_as_agreed(path, agreed, remote)

    def _look_at_content(
        self, path: str, stat: Stat, agreed: Agreed | None, remote: Entry | None, *, final: bool
    ) -> tuple[bool, float | None]:
        """Whether the path is dealt with, and then when to look again."""
        refusal = self.notes.refused.get(path)
        if refusal and (refusal.stat, refusal.remote_sha256) == (stat, remote.sha256 if remote else None):
            return True, None
        if agreed is None and remote is None and (left := self._stays_local(path, stat)) is not None:
            return True, left or None
        try:
            content = self._tree.read(path, even_if_open=final)
        except (Refused, PermissionError) as error:
            if self._read_only:
                return True, self._revert(path, None, remote)
            reason = error if isinstance(error, Refused) else Refused(errno.EACCES, "can't be read")
            return True, self.refuse(path, stat, reason, remote)
        self.notes.suspects.discard(path)
        sha256 = hashlib.sha256(content.data).hexdigest()
        if path != composed(path) and not self._read_only:
            return True, self._compose(_shown(path, content, sha256), content, final=final)
        if agreed and agreed.entry.sha256 == sha256:
            self._agree(path, agreed.entry, content.stat, ours=agreed.ours)
        elif remote and remote.sha256 == sha256:
            self._agree(path, remote, content.stat, ours=False)
        elif self._read_only:
            return True, self._revert(path, _shown(path, content, sha256), remote)
        else:
            return True, self._save(path, content, sha256, agreed, remote)
        return False, None

    def _stays_local(self, path: str, stat: Stat) -> float | None:
        """For how many seconds a scratch name is left alone, 0 for ever; None if it is none, or no longer."""
        name = path.rpartition("/")[2]
        if self._read_only or not is_scratch(name):
            return None
        since, first = self.notes.scratch.get(path, (time.monotonic(), stat))
        # A backup that its program goes on writing is the same file, until another one has its name.
        self.notes.scratch[path] = since, first if first.inode == stat.inode else stat
        if _FLEETING.fullmatch(name):
            return _NOW
        left = since + _SCRATCH_SECONDS - time.monotonic()
        if left > 0:
            return left
        try:
            self._tree.read(path).data.decode()
        except (UnicodeDecodeError, Refused):
            return _NOW
        return None

    def _disk_is_as_agreed(self, path: str, agreed: Agreed, remote: Entry | None) -> float | None:
        if remote is not None and remote.sha256 == agreed.entry.sha256:
            self.notes.waiting.pop(path, None)
            if remote != agreed.entry:
                self._agree(path, remote, agreed.stat, ours=agreed.ours and remote.version_id is None)
            return None
        if agreed.ours and (refused := self._refused_late(agreed.entry)):
            return self.refuse(path, agreed.stat, refused, remote)
        try:
            if remote is None:
                self._applier.remove(agreed.entry)
                self._agreements.forget(path)
            elif (data := self._take(remote)) is not None:
                self._agree(path, remote, self._applier.replace(agreed.entry, remote, data), ours=False)
            else:
                return None
        except Busy:
            self.notes.waiting[path] = "a program has the file open for writing"
            raise
        except Refused as refused:  # another name of the file (a hard link) would not follow
            return self.refuse(path, agreed.stat, refused, remote)
        self.notes.waiting.pop(path, None)
        return None

    def _refused_late(self, entry: Entry) -> Refused | None:
        """Why the server refused a text of ours after the journal had taken it; the disk still has it then."""
        for record in self._engine.status().get("refused", []):
            if record["path"] != entry.path or record["reason"] == Erased(entry.path).message:
                continue  # the text of an erased memory is kept, and leaves the tree
            with contextlib.suppress(OSError):
                if hashlib.sha256(Path(record["place"]).read_bytes()).hexdigest() == entry.sha256:
                    return Refused(record["errno"], record["reason"])
        return None

    def _take(self, remote: Entry) -> bytes | None:
        if (failure := self._contents.failure(remote)) is not None:
            self.notes.waiting[remote.path] = failure
            return None
        data = self._contents.take(remote)
        if data is None:
            self.notes.waiting[remote.path] = "its content is being fetched"
        return data

    def _missing(self, path: str, agreed: Agreed | None, remote: Entry | None) -> float | None:
        self.notes.forget(path)
        if agreed is None:
            self.deletions.back(path)
            if remote is not None:
                return self._create(remote)
            self.notes.waiting.pop(path, None)
            return None
        if remote is None:  # gone on both sides
            self._agreements.forget(path)
            self.deletions.back(path)
            return None
        if self._read_only or remote.sha256 != agreed.entry.sha256:  # an edit by somebody else beats a delete
            return self._restore(path)
        return self._perhaps_delete(path, agreed)

    def _restore(self, path: str) -> float:
        self._agreements.forget(path)
        self.deletions.back(path)
        return _NOW

    def _create(self, remote: Entry) -> float | None:
        if (data := self._take(remote)) is None:
            return None
        try:
            stat = self._applier.create(remote, data)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise InTheWay("its name is longer than this filesystem allows") from None
        self._agree(remote.path, remote, stat, ours=False)
        self.notes.waiting.pop(remote.path, None)
        return None

    def _perhaps_delete(self, path: str, agreed: Agreed) -> float | None:
        # A freed inode's number is the next file's: only with the size and the time is it the same file. In doubt it
        # was deleted, for what a program deleted shall not come back.
        latest = time.monotonic() - 2 * _SCRATCH_SECONDS
        if any(first.same_file(agreed.stat) and since > latest for since, first in self.notes.scratch.values()):
            return _SOON  # moved to a backup name: the new text comes soon, or the backup gets to be the file
        if any(only.refused.errno != errno.EPERM and only.stat.same_file(agreed.stat) for only in self._refused()):
            return self._restore(path)  # moved to a name that no memory can have: the store keeps the old one
        verdict, seconds = self.deletions.judge(path)
        if verdict is Verdict.RESTORE:
            return self._restore(path)
        if verdict is Verdict.WAIT:
            return seconds
        try:
            self._engine.remove(agreed.entry)
        except Refused as refused:
            _log.warning("a delete was refused: errno %d", refused.errno)
            return self._restore(path)
        self._agreements.forget(path)
        self.deletions.back(path)
        return _NOW  # if the engine kept it for another's edit, it is there to be shown

    def _refused(self) -> list[LocalOnly]:
        return list(self.notes.refused.values())

    def _save(
        self, path: str, content: Content, sha256: str, agreed: Agreed | None, remote: Entry | None
    ) -> float | None:
        try:
            path.encode()
            if agreed is None and remote is None and self.moves.found(path, content, sha256):
                return _NOW
            base = agreed.entry if agreed else None
            if base and remote and remote.sha256 == base.sha256:
                base = remote  # the same, and it knows the memory's ID by now
            base_text = self._agreements.text(base.sha256) if base else None
            entry = self._engine.save(path, content.data, base, base_text=base_text)
        except UnicodeEncodeError:
            return self.refuse(path, content.stat, Refused(errno.EILSEQ, "the name is not UTF-8"))
        except Erased as erased:
            return self._set_aside(path, content, sha256, agreed, erased)
        except Refused as refused:
            if not self._is_kept_beside(path, sha256):
                return self.refuse(path, content.stat, refused, remote)
            self._agree_on_what_is_shown(path, content, _shown(path, content, sha256), ours=False)
            return _NOW  # the server's text takes its place
        self.notes.forget(path)
        merged = entry.sha256 != sha256 or entry.path != path
        if merged:
            shown = _shown(path, content, sha256)
            entry = replace(shown, memory_id=entry.memory_id, version_id=entry.version_id)
        if merged or _is_pending(entry, base):
            self._agree_on_what_is_shown(path, content, entry, ours=True)
        else:
            self._agree(path, entry, content.stat, ours=True)
        return _NOW if merged else None

    def _compose(self, shown: Entry, content: Content, *, final: bool) -> float | None:
        """Give the composed name to the file, or its text to the file that has that name."""

        def look(name: str) -> None:
            self.look(name, final=final)  # an event tells of the name as well, so that it is looked at again

        name = composed(shown.path)
        try:
            if self.spellings.rename(shown):
                look(name)
            else:
                self.spellings.merge(shown, content, look)
        except Erased as erased:
            return self._set_aside(shown.path, content, shown.sha256, None, erased)
        except Refused as refused:
            if not self._is_kept_beside(name, shown.sha256):
                return self.refuse(shown.path, content.stat, refused)
            self._applier.remove(shown)
            look(name)
        self.notes.forget(shown.path)
        return None

    def _set_aside(
        self, path: str, content: Content, sha256: str, agreed: Agreed | None, erased: Erased
    ) -> float | None:
        """Take what descends from an erased memory out of the tree, where a rename would make it a new memory."""
        memory_id = agreed.entry.memory_id if agreed else None
        try:
            self._engine.kept.keep(path, content.data, erased.message, memory_id=memory_id, errno=erased.errno)
            self._applier.remove(_shown(path, content, sha256))
        except OSError:
            return self.refuse(path, content.stat, erased)
        self._agreements.forget(path)
        self.notes.forget(path)
        return None

    def _is_kept_beside(self, path: str, sha256: str) -> bool:
        """Whether our text is in a conflict file, so that the path can show the server's."""
        for conflict in self._engine.status().get("conflicts", []):
            beside = self._engine.get(conflict["conflict_path"])
            if conflict["path"] == path and beside is not None and beside.sha256 == sha256:
                return True
        return False

    def refuse(self, path: str, stat: Stat, refused: Refused, remote: Entry | None = None) -> float | None:
        """The file stays on disk and does not go to the store until it changes: no look is planned."""
        if path not in self.notes.refused:
            _log.warning("a file is not saved: errno %d; the status names it", refused.errno)
        self.notes.suspects.discard(path)
        self.notes.unsaved.pop(path, None)
        self.notes.refused[path] = LocalOnly(stat, refused, remote.sha256 if remote else None)
        return None

    def _revert(self, path: str, shown: Entry | None, remote: Entry | None) -> float | None:
        """Take back a change to a read-only tree."""
        self.notes.reverted[path] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._agreements.forget(path)
        if remote is None or shown is None:
            self._applier.discard(path)
            return _NOW if remote else None
        if (data := self._take(remote)) is not None:
            self._agree(path, remote, self._applier.replace(shown, remote, data), ours=False)
            self.notes.waiting.pop(path, None)
        return None

    def _agree_on_what_is_shown(self, path: str, content: Content, entry: Entry, *, ours: bool) -> None:
        """The disk shows a text that no version may ever have. The next edit starts from it all the same.

        A program may make that edit before the server's text is on the disk, and even if we die meanwhile.
        """
        self._agreements.keep_text(entry.sha256, content.data)
        self._agree(path, entry, content.stat, ours=ours)
        self._agreements.commit()

    def _agree(self, path: str, entry: Entry, stat: Stat, *, ours: bool) -> None:
        if time.time_ns() - stat.mtime_ns < _RACY_NS:
            stat = stat.to_be_read_again()
        self._agreements.agree(path, Agreed(entry, stat, ours))


def _is_pending(entry: Entry, base: Entry | None) -> bool:
    """Whether a save that started from `base` is in the journal: it may be merged before the server has it."""
    return entry.version_id is None or (base is not None and entry.version_id == base.version_id)


def _shown(path: str, content: Content, sha256: str) -> Entry:
    """What a file shows, as an entry without a memory."""
    return Entry(path, None, None, sha256, len(content.data), content.stat.mtime_ns)
