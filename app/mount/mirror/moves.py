"""Files and directories that get another path, by programs or by others: the memories keep their IDs."""

import logging
import time
from dataclasses import replace

from app.mount.door.entries import Entry
from app.mount.mirror.agreements import Agreed, Agreements
from app.mount.mirror.applier import Applier, InTheWay
from app.mount.mirror.deletions import Deletions
from app.mount.mirror.notes import Notes
from app.mount.mirror.tree import Content, Tree
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Offline, Refused
from app.mount.sync.scratch import is_scratch

_log = logging.getLogger(__name__)


class Moves:
    """Renames in the store what was renamed on disk, and the reverse. Not thread-safe."""

    def __init__(
        self,
        engine: StoreEngine,
        tree: Tree,
        applier: Applier,
        agreements: Agreements,
        notes: Notes,
        deletions: Deletions,
        *,
        read_only: bool,
    ) -> None:
        self._engine = engine
        self._tree = tree
        self._applier = applier
        self._agreements = agreements
        self._notes = notes
        self._deletions = deletions
        self._read_only = read_only

    def found(self, path: str, content: Content, sha256: str) -> bool:
        """Whether the new file is one that is missing elsewhere; then the memory has moved, with its ID."""
        gone = [(old, self._agreements[old]) for old in self._deletions.paths() if old in self._agreements]
        same = [old for old, agreed in gone if agreed.stat.same_file(content.stat)]
        same += [old for old, agreed in gone if agreed.entry.sha256 == sha256]
        for old in same:
            if self._tree.stat(old) is None:
                self._rename(old, path)
                return True
        return False

    def by_program(self, old: str, new: str) -> None:
        """A program renamed a file."""
        self._notes.forget(old)
        self._notes.suspects.add(new)
        if self._read_only or old not in self._agreements:
            return
        known = new in self._agreements or self._engine.get(new) is not None
        if is_scratch(new.rpartition("/")[2]) and not known:
            self._notes.scratch[new] = time.monotonic(), self._agreements[old].stat
            self._deletions.seen(old)
            return
        try:
            new.encode()
            self._rename(old, new)
        except (Offline, Refused, UnicodeEncodeError):
            self._deletions.seen(old)  # the looks at both paths decide

    def of_directory(self, old: str, new: str) -> None:
        """A program renamed a directory: one transaction for all that is in it."""
        paths = self._agreements.below(old)
        self._notes.forget_below(old)
        if self._read_only or not paths:
            return
        try:
            new.encode()
            self._engine.rename_tree(old + "/", new + "/")
        except (Refused, UnicodeEncodeError):
            for path in paths:
                self._deletions.seen(path)
            return
        for path in paths:
            agreed, target = self._agreements[path], new + path[len(old) :]
            self._agreements.forget(path)
            self._deletions.back(path)
            entry = self._engine.get(target)
            if entry is None or entry.sha256 != agreed.entry.sha256:
                entry = replace(agreed.entry, path=target)
            self._agreements.agree(target, Agreed(entry, agreed.stat, ours=agreed.ours))

    def by_others(self, old: str, entry: Entry) -> None:
        """Let the file follow a memory that got another path, so that an edit of it also follows."""
        agreed = self._agreements.get(old)
        if agreed is None or entry.path in self._agreements or self._tree.stat(entry.path) is not None:
            return
        if self._tree.stat(old) is None:
            return
        try:
            self._applier.move(agreed.entry, entry)
        except (OSError, InTheWay) as error:
            _log.info("a file does not follow its memory to another path: %s", type(error).__name__)
            return
        self._agreements.forget(old)
        base = replace(agreed.entry, path=entry.path)
        self._agreements.agree(entry.path, Agreed(base, agreed.stat.to_be_read_again(), ours=agreed.ours))
        self._notes.suspects.add(entry.path)

    def _rename(self, old: str, new: str) -> None:
        agreed, target = self._agreements[old], self._agreements.get(new)
        now = self._engine.get(old)
        source = now if now and now.sha256 == agreed.entry.sha256 else agreed.entry
        onto = (self._engine.get(new) or target.entry) if target else None
        entry = self._engine.rename(source, new, onto=onto)
        self._agreements.forget(old)
        self._deletions.back(old)
        if entry.sha256 != agreed.entry.sha256:
            entry = replace(agreed.entry, path=new, memory_id=entry.memory_id)
        self._agreements.agree(new, Agreed(entry, agreed.stat.to_be_read_again(), ours=True))
        self._notes.suspects.add(new)
