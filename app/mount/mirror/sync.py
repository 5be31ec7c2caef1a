"""Turns what is heard of a tree and of a store into looks at paths (`reconciler.py`), and now and then at all.

Events of both sides are hints; the look at everything is the truth.
"""

import contextlib
import hashlib
import logging
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from app.mount.door.entries import Change, Entry
from app.mount.mirror.agreements import Agreed, Agreements, Displaced
from app.mount.mirror.applier import Applier, Edited
from app.mount.mirror.reconciler import Reconciler
from app.mount.mirror.schedule import Schedule
from app.mount.mirror.spellings import composed
from app.mount.mirror.tree import Busy, Listing, Stat, Tree
from app.mount.mirror.watcher import Event, Seen, Watcher
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Offline, Refused

_log = logging.getLogger(__name__)

_NEW_FILE_SECONDS = 0.05
"""A new file may be renamed over another at once: many programs save so, under names nobody knows."""
_MODIFIED_SECONDS = 1.0
"""A file written to is looked at when it is closed; this long after, if no close was heard."""
_ACTIVE_LOOK_SECONDS = 2.0
_IDLE_LOOK_SECONDS = 30.0
_UNWATCHED_LOOK_SECONDS = 0.2
_ACTIVE_SECONDS = 10.0
"""After the last change a mirror counts as active for this long."""
_FAILED_SECONDS = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Sync:
    """The two-way sync of one tree. Not thread-safe, but for `heard`."""

    def __init__(
        self,
        engine: StoreEngine,
        tree: Tree,
        watcher: Watcher,
        applier: Applier,
        agreements: Agreements,
        reconciler: Reconciler,
        *,
        read_only: bool,
        before_look: Callable[[], None],
    ) -> None:
        """before_look: called before each look at everything."""
        self._engine = engine
        self._tree = tree
        self._watcher = watcher
        self._applier = applier
        self._agreements = agreements
        self._reconciler = reconciler
        self._read_only = read_only
        self._before_look = before_look
        self._schedule = Schedule()
        self._next_look = 0.0
        self._last_activity = 0.0
        self.heard: queue.SimpleQueue[Change | str] = queue.SimpleQueue()
        """Put in a change by others, or a path to look at; then call `turn`."""
        self.restored_at: str | None = None
        """When the root last was found gone and made again (RFC 3339)."""
        if agreements.root not in (None, tree.identity):
            self._root_is_another()
        agreements.root = tree.identity
        if agreements.is_another_boot(_BOOT_ID.read_text()):
            self._machine_was_restarted()

    def next_turn(self) -> float:
        """When `turn` has something to do, even if nothing is heard; on the monotonic clock."""
        due = min(self._next_look, self._schedule.next())
        return min(due, time.monotonic() + _NEW_FILE_SECONDS) if self._watcher.waits_for_move else due

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done within the next moment."""
        return self.heard.empty() and self._schedule.next() > time.monotonic() + _NEW_FILE_SECONDS

    def failed(self) -> None:
        """A turn raised an error: what it left undone is found at a look at everything."""
        self._next_look = time.monotonic() + _FAILED_SECONDS

    def turn(self) -> None:
        """Take in what was heard, look at everything if it is time, and at each path that is due."""
        self._hear()
        if self._watcher.overflowed or time.monotonic() >= self._next_look:
            self._look_at_everything(final=False)
        self._look_at(self._schedule.take(), final=False)
        self._agreements.commit()

    def save_all(self, deadline: float | None, wait: Callable[[float], None]) -> list[str]:
        """Save every change on disk.

        deadline: on the monotonic clock; None: never.
        wait: called with seconds to sleep, or less when something is heard.
        Returns the paths that could not be saved.
        """
        if self._read_only:
            return []
        self._hear()
        for path in self._reconciler.notes.try_refused_again():
            self._schedule.add(path)
        self._look_at_everything(final=True)
        self._look_at(self._schedule.take(everything=True), final=True)
        while (pending := self._pending()) and (deadline is None or time.monotonic() < deadline):
            wait(min(self._schedule.next() - time.monotonic(), _NEW_FILE_SECONDS))
            self._hear()
            if any(path in self._reconciler.deletions for path in pending):
                self._look_at_everything(final=True)
            self._look_at(self._schedule.take(), final=True)
        self._agreements.commit()
        return sorted({*self._pending(), *self._reconciler.notes.refused, *self._reconciler.notes.unsaved})

    def take_away(self, keep: set[str]) -> list[str]:
        """Remove the files of memories and the empty directories; those that must stay are returned."""
        stay: list[str] = []
        for path, agreed in list(self._agreements.items()):
            if path in keep:
                continue
            try:
                self._applier.remove(agreed.entry)
            except FileNotFoundError:
                pass
            except (Busy, Edited, Refused, OSError):
                if not self._read_only:
                    stay.append(path)
                continue
            self._agreements.forget(path)
        self._applier.late_edits(self._save_late, wait=False)
        self._remove_directories(self._tree.walk("", lambda directory, path: None).directories)
        self._agreements.commit()
        return stay

    def _pending(self) -> list[str]:
        """Paths with a change that is not saved yet, but soon may be."""
        reconciler = self._reconciler
        return [
            path
            for path in self._schedule.paths()
            if path in reconciler.deletions or path in reconciler.notes.unsaved or path in reconciler.notes.busy
        ]

    def _hear(self) -> None:
        for event in self._watcher.read():
            self._active()
            self._note(event)
        with contextlib.suppress(queue.Empty):
            while True:
                heard = self.heard.get_nowait()
                self._active()
                if isinstance(heard, Change):
                    self._note_others(heard)
                else:
                    self._schedule.add(heard)

    def _active(self) -> None:
        self._last_activity = time.monotonic()
        self._next_look = min(self._next_look, self._last_activity + _ACTIVE_LOOK_SECONDS)

    def _look_at(self, paths: list[str], *, final: bool) -> None:
        for path in paths:
            try:
                again = self._reconciler.look(path, final=final)
            except Exception as error:  # one path that can't be dealt with keeps no other
                _log.exception("a path can't be dealt with yet; the status names it")
                self._reconciler.notes.unsaved[path] = str(error) or repr(error)
                again = _FAILED_SECONDS
            self._schedule.again(path, again)

    def _note_others(self, change: Change) -> None:
        if change.old_path is not None:
            if change.entry is not None:
                self._reconciler.moves.by_others(change.old_path, change.entry)
            self._schedule.add(change.old_path)
        self._schedule.add(change.path)

    def _note(self, event: Event) -> None:
        path = event.path
        if event.seen is Seen.ROOT:
            self._next_look = 0.0
        elif event.seen is Seen.DELETED:
            self._note_deleted(path, is_directory=event.is_directory)
        elif event.is_directory:
            if event.seen is Seen.MOVED:
                self._note_moved_directory(event.old_path, path)
            self._take_in(self._tree.walk(path, self._watcher.watch))
        elif event.seen is Seen.MOVED:
            self._reconciler.moves.by_program(event.old_path, path)
            self._schedule.replace(event.old_path, path)
            self._schedule.add(event.old_path)
        else:
            self._reconciler.notes.suspects.add(path)
            if event.seen is Seen.MODIFIED:
                self._schedule.add(path, _MODIFIED_SECONDS)
            else:
                self._schedule.add(path, 0.0 if path in self._agreements else _NEW_FILE_SECONDS)

    def _note_deleted(self, path: str, *, is_directory: bool) -> None:
        for gone in [path, *self._agreements.below(path)] if is_directory else [path]:
            if gone in self._agreements and self._tree.stat(gone) is None:
                self._reconciler.deletions.seen(gone)
            self._schedule.add(gone)

    def _note_moved_directory(self, old: str, new: str) -> None:
        self._reconciler.moves.of_directory(old, new)
        for path in [path for path in self._schedule.paths() if path.startswith(old + "/")]:
            self._schedule.replace(path, new + path[len(old) :])
        for path in self._agreements.below(old):
            self._schedule.add(path)

    def _take_in(self, listing: Listing) -> None:
        """Look at what was found below a directory."""
        self._agreements.add_directories(listing.directories)
        for path in listing.files:
            self._reconciler.notes.suspects.add(path)
            self._schedule.add(path, _NEW_FILE_SECONDS)
        self._note_odd(listing.odd)

    def _note_odd(self, odd: Mapping[str, tuple[Stat, Refused]]) -> None:
        for path, (stat, refused) in odd.items():
            if self._read_only:
                self._schedule.add(path)
            else:
                self._reconciler.refuse(path, stat, refused)

    def _look_at_everything(self, *, final: bool) -> None:
        self._before_look()
        if not self._tree.is_there():
            self._tree.reopen()
            self._root_is_another()
            self._agreements.root = self._tree.identity
        self._watcher.overflowed = False
        listing = self._tree.walk("", self._watcher.watch)
        view = self._engine.view()
        self._reconciler.notes.forget_all_but({*listing.files, *listing.odd})
        self._follow_moves_of_others(view)
        self._note_odd(listing.odd)
        for path in self._agreements:
            if path not in listing.files and path not in listing.odd:
                self._reconciler.deletions.missed(path)
                self._schedule.add(path)
        for path, stat in listing.files.items():
            agreed = self._agreements.get(path)
            if agreed is None or agreed.stat != stat or agreed.entry != view.get(path):
                self._schedule.add(path, 0.0 if agreed else _NEW_FILE_SECONDS)
        for path in view:
            if path not in listing.files:
                self._schedule.add(path)
        if self._read_only:
            needed = {above for path in view for above in _directories_above(path)}
            self._remove_directories(path for path in listing.directories if path not in needed)
        elif self._engine.status().get("gone"):
            self._remove_directories(listing.directories)
        else:
            self._reconciler.spellings.remove_directories(listing.directories)
        self._agreements.set_directories(listing.directories)
        self._applier.late_edits(self._save_late, wait=not final)
        self._agreements.drop_texts()
        self._agreements.let_go()
        self._plan_next_look()

    def _plan_next_look(self) -> None:
        now = time.monotonic()
        active = now - self._last_activity < _ACTIVE_SECONDS or self._schedule.paths() or self._agreements.displaced()
        seconds = _ACTIVE_LOOK_SECONDS if active else _IDLE_LOOK_SECONDS
        self._next_look = now + (_UNWATCHED_LOOK_SECONDS if self._watcher.incomplete else seconds)

    def _root_is_another(self) -> None:
        """The directory was wiped, moved or covered: what is missing was not deleted, and comes back."""
        _log.warning("the mirror's root is another directory than before: restoring what is missing")
        self._reconciler.deletions.clear()
        self._watcher.forget_all()
        self._applier.protect_root()
        for path in list(self._agreements):
            if self._tree.stat(path) is None:
                self._agreements.forget(path)
        self.restored_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def _machine_was_restarted(self) -> None:
        """A power cut can take away files that were not synced, or their content: neither was a person's doing."""
        for path, agreed in list(self._agreements.items()):
            status = self._tree.stat(path)
            if status is None:
                self._agreements.forget(path)
            elif agreed.entry.size and Stat.of(status) != agreed.stat:
                self._forget_lost_content(path, agreed)

    def _forget_lost_content(self, path: str, agreed: Agreed) -> None:
        with contextlib.suppress(Busy, Refused, OSError):
            content = self._tree.read(path)
            if not content.data.strip(b"\0"):
                sha256 = hashlib.sha256(content.data).hexdigest()
                shown = replace(agreed.entry, version_id=None, sha256=sha256, size=len(content.data))
                self._agreements.keep_text(sha256, content.data)
                self._agreements.agree(path, Agreed(shown, content.stat, ours=False))

    def _follow_moves_of_others(self, view: Mapping[str, Entry]) -> None:
        strayed = [(path, agreed.entry) for path, agreed in self._agreements.items() if path not in view]
        if not strayed:
            return
        now_at = {entry.memory_id: entry for entry in view.values() if entry.memory_id is not None}
        for path, entry in strayed:
            if entry.memory_id in now_at:
                self._reconciler.moves.by_others(path, now_at[entry.memory_id])

    def _remove_directories(self, paths: Iterable[str]) -> None:
        for path in sorted(paths, key=len, reverse=True):
            with contextlib.suppress(OSError):  # not empty
                self._applier.discard(path)

    def _save_late(self, displaced: Displaced, data: bytes) -> bool:
        """Save an edit that went into a file after it had been replaced."""
        entry = displaced.entry
        try:
            self._engine.save(composed(entry.path), data, entry, base_text=self._agreements.text(entry.sha256))
        except (Refused, Offline) as error:
            _log.warning("an edit made while its file was replaced is not saved yet: %s", type(error).__name__)
            return False
        self._schedule.add(entry.path)
        return True


def _directories_above(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:end]) for end in range(2, len(segments))]
