"""What the mount shows of a store: the server's memories, and pending writes over them. No I/O, no threads."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from itertools import count

from app.mount.door.entries import Change, Entry
from app.mount.door.wire import MEMORIES_MAX, Event
from app.mount.sync.heads import Heads
from app.mount.sync.intents import Intent

_REMEMBERED = 20_000
"""Versions and memories remembered to tell old news from new."""

_UNKNOWN = object()


class StoreState:
    """The caller holds one lock around every call.

    Three sources tell what the server has: answers to our own writes, the change feed, snapshots. An answer can
    overtake the feed or be overtaken by it. The rules: after an answer, the feed's events of that memory are older
    until the answered version comes by; an answer whose version the feed has told already is old; a snapshot
    does not touch what we wrote after it was asked for.

    Whatever changes for somebody who looks is noted in `changes`, unless a writer of ours knows it already.
    """

    def __init__(self) -> None:
        self.view: dict[str, Entry] = {}
        self.changes: list[Change] = []
        self.on_remote: Callable[[str, Entry | None], None] = lambda memory_id, entry: None
        """Called with the ID of a memory when what the server has of it changed; None: it is gone."""
        self.seq: int | None = None
        self.erased: OrderedDict[str, None] = OrderedDict()
        """IDs of memories that were erased, as far as it was told."""
        self.on_erased: Callable[[Entry], None] = lambda entry: None
        """Called with what the server had of an erased memory, before it is dropped."""
        self._past: OrderedDict[str, str] = OrderedDict()  # path → ID of the memory that was last seen there
        self._heads = Heads()
        self._uses: dict[str, int] = {}  # digest → how many memories and unfinished writes need the content
        self._unused: set[str] = set()
        self._pending: dict[str, OrderedDict[int, Entry | None]] = {}
        self._in_flight: dict[str, dict[int, Intent]] = {}
        self._clock = count(1)
        self._now = 0
        self._told: OrderedDict[str, None] = OrderedDict()  # versions that the feed is past
        self._answered: dict[str, tuple[str, int]] = {}  # memory → version the feed has yet to tell, since when
        self._written: OrderedDict[str, int] = OrderedDict()  # memory → when an answer last changed or removed it

    # The server's side

    def remote(self, path: str) -> Entry | None:
        """What the server has at the path, as far as it is known."""
        return self._heads.by_path.get(path)

    def remote_by_id(self, memory_id: str | None) -> Entry | None:
        """The same by ID."""
        return None if memory_id is None else self._heads.by_id.get(memory_id)

    def past(self, path: str) -> str | None:
        """The ID of the memory that was last seen at a path where none is now."""
        return self._past.get(path)

    def note_past(self, entry: Entry) -> None:
        """A memory was at a path once."""
        if entry.memory_id is not None:
            self._past[entry.path] = entry.memory_id
            self._past.move_to_end(entry.path)
            if len(self._past) > _REMEMBERED:
                self._past.popitem(last=False)

    def note_erased(self, memory_id: str) -> None:
        """The server says that a memory was erased."""
        self.erased[memory_id] = None
        if len(self.erased) > _REMEMBERED:
            self.erased.popitem(last=False)
        if (entry := self._heads.by_id.get(memory_id)) is not None:
            self.on_erased(entry)
        self.apply_gone(memory_id)

    def remote_below(self, directory: str) -> list[Entry]:
        """Everything below a directory, which ends with `/`."""
        return [entry for path, entry in self._heads.by_path.items() if path.startswith(directory)]

    def remote_entries(self) -> list[Entry]:
        """Everything the server has."""
        return list(self._heads.by_id.values())

    def tick(self) -> int:
        """A moment, to be given to `apply_listing`: take it before the listing is asked for."""
        self._now = next(self._clock)
        return self._now

    def apply_answer(self, entry: Entry, *, is_write: bool = True) -> None:
        """The server answered a call of ours with this memory. is_write: it is what our own write made."""
        memory_id, version_id = entry.memory_id, entry.version_id
        assert memory_id is not None
        assert version_id is not None
        known = self._heads.by_id.get(memory_id)
        if known is not None and known.version_id == version_id:
            return
        if version_id in self._told:
            return
        if is_write:
            self._note_written(memory_id)
        if self.seq is not None:
            self._answered[memory_id] = version_id, self.tick()
        self._put(entry)

    def apply_gone(self, memory_id: str) -> None:
        """The server answered that this memory is not there, or we deleted it."""
        self._note_written(memory_id)
        self._answered.pop(memory_id, None)
        self._drop(memory_id)

    def apply_event(self, event: Event) -> None:
        """The next change of the feed. A memory that would be one too many for a mount is left out."""
        self.seq = event.seq
        if len(self._heads.by_id) >= MEMORIES_MAX and event.memory_id not in self._heads.by_id:
            return
        self._remember_told(event.version_id)
        answered = self._answered.get(event.memory_id)
        if answered is not None and not event.deleted:
            if answered[0] == event.version_id:
                del self._answered[event.memory_id]
            return
        self._answered.pop(event.memory_id, None)
        known = self._heads.by_id.get(event.memory_id)
        if known is not None and known.version_id is not None:
            self._remember_told(known.version_id)
        if event.erased:
            self.note_erased(event.memory_id)
        elif event.deleted or event.odd is not None:
            self._drop(event.memory_id)
        elif event.entry is not None and not self._is_gone(event.memory_id):
            # What was answered and is yet to be told happened later.
            self._put(event.entry, yields_to=self._answered)

    def apply_listing(self, entries: Iterable[Entry], since: int, seq: int | None) -> None:
        """The whole store as the server listed it.

        since: the `tick` before it was asked for. seq: what the listing stands for, None without a feed.
        """
        listed = {entry.memory_id: entry for entry in entries if entry.memory_id is not None}
        for memory_id in list(self._heads.by_id):
            if memory_id not in listed and self._written.get(memory_id, 0) <= since:
                self._drop(memory_id)
        self._answered = {
            memory_id: mark for memory_id, mark in self._answered.items() if self._written.get(memory_id, 0) > since
        }
        for memory_id, entry in listed.items():
            if self._written.get(memory_id, 0) <= since:
                self._put(entry)
        self.seq = seq
        while self._written and next(iter(self._written.values())) <= since:
            self._written.popitem(last=False)

    def doubtful(self, before: int) -> list[str]:
        """Memories whose answered version the feed has not told since a `tick`: ask the server about them."""
        return [memory_id for memory_id, (_, since) in self._answered.items() if since <= before]

    def settle_doubt(self, memory_id: str, entry: Entry | None) -> None:
        """What the server says about a doubtful memory now."""
        answered = self._answered.pop(memory_id, None)
        if answered is None:
            return
        if entry is None:
            self._drop(memory_id)
        elif entry.version_id != answered[0]:
            if entry.version_id not in self._told:
                assert entry.version_id is not None
                self._answered[memory_id] = entry.version_id, self.tick()
            self._put(entry)

    def _is_gone(self, memory_id: str) -> bool:
        return memory_id in self._written and memory_id not in self._heads.by_id

    def _note_written(self, memory_id: str) -> None:
        self._written[memory_id] = self.tick()
        self._written.move_to_end(memory_id)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    def _remember_told(self, version_id: str) -> None:
        self._told[version_id] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _put(self, entry: Entry, *, yields_to: Collection[str] = ()) -> None:
        memory_id = entry.memory_id
        assert memory_id is not None
        old = self._heads.by_id.get(memory_id)
        if old is not None and old.sha256 == entry.sha256 and old.path == entry.path:
            entry = replace(entry, mtime_ns=old.mtime_ns)
        elif (at_hand := self._own_time(entry)) is not None:
            entry = replace(entry, mtime_ns=at_hand)
        moved_from = None
        if old is not None and old.path != entry.path and self._heads.by_path[old.path] is old:
            moved_from = old.path
        self._heads.put(entry, yields_to=yields_to)
        if entry != old:
            self._use(entry.sha256)
            if old is not None:
                self._disuse(old.sha256)
            self.on_remote(memory_id, entry)
        if self._heads.by_path[entry.path] is entry:
            self._refresh(entry.path, moved_from)
        elif moved_from is not None:
            self._refresh(moved_from)

    def _own_time(self, entry: Entry) -> int | None:
        """When our own writer wrote this, so that a file's time does not change behind an editor."""
        shown = self.view.get(entry.path)
        if shown is not None and shown.sha256 == entry.sha256:
            return shown.mtime_ns
        for intent in self._in_flight.get(entry.path, {}).values():
            if intent.sha256 == entry.sha256 and intent.mtime_ns:
                return intent.mtime_ns
        return None

    def _drop(self, memory_id: str) -> None:
        old = self._heads.take(memory_id)
        if old is not None:
            self._disuse(old.sha256)
            self.note_past(old)
            self.on_remote(memory_id, None)
            self._refresh(old.path)

    # Contents

    def uses(self, sha256: str) -> bool:
        """Whether a memory, or a write that is not finished, needs the content."""
        return sha256 in self._uses

    def take_unused(self) -> set[str]:
        """Digests of contents that came out of use since the last call."""
        unused, self._unused = self._unused, set()
        return {sha256 for sha256 in unused if sha256 not in self._uses}

    def _use(self, sha256: str) -> None:
        self._uses[sha256] = self._uses.get(sha256, 0) + 1

    def _disuse(self, sha256: str) -> None:
        self._uses[sha256] -= 1
        if not self._uses[sha256]:
            del self._uses[sha256]
            self._unused.add(sha256)

    # Our side

    def begin(self, intent: Intent) -> None:
        """A writer of ours waits for this: what it expects is no news to it."""
        for path in intent.paths:
            self._in_flight.setdefault(path, {})[intent.number] = intent
        for sha256 in intent.contents:
            self._use(sha256)

    def show(self, intent: Intent) -> None:
        """The intent is pending and its writer has gone on: show it as done."""
        for path, entry in intent.shown().items():
            shown = self._pending.setdefault(path, OrderedDict())
            shown[intent.number] = entry
            if len(shown) > 1:
                self._pending[path] = OrderedDict(sorted(shown.items()))
            current = self._current(path)
            if current is None:
                self.view.pop(path, None)
            else:
                self.view[path] = current

    def end(self, intent: Intent) -> None:
        """The intent is done or refused: the server's state counts again."""
        for path in intent.paths:
            waiting = self._in_flight.get(path)
            if waiting is not None and waiting.pop(intent.number, None) is not None and not waiting:
                del self._in_flight[path]
            shown = self._pending.get(path)
            if shown is not None and intent.number in shown:
                del shown[intent.number]
                if not shown:
                    del self._pending[path]
                self._refresh(path)
        for sha256 in intent.contents:
            self._disuse(sha256)

    def take_changes(self) -> list[Change]:
        """The changes noted since the last call."""
        changes, self.changes = self.changes, []
        return changes

    def copy(self) -> Mapping[str, Entry]:
        """The view as it is now."""
        return dict(self.view)

    def _current(self, path: str) -> Entry | None:
        shown = self._pending.get(path)
        return next(reversed(shown.values())) if shown else self._heads.by_path.get(path)

    def _refresh(self, path: str, moved_from: str | None = None) -> None:
        """Bring the view of a path up to date, and note the change."""
        left = moved_from is not None and moved_from in self.view and self._current(moved_from) is None
        before, after = self.view.get(path), self._current(path)
        if after is None:
            self.view.pop(path, None)
        else:
            self.view[path] = after
        is_news = _digest(before) != _digest(after) and not self._is_expected(path, _digest(after))
        if left:
            assert moved_from is not None
            del self.view[moved_from]
            if not self._is_expected(moved_from, None):
                self.changes.append(Change(path, after, moved_from))
                return
        elif moved_from is not None:
            self._refresh(moved_from)
        if is_news:
            self.changes.append(Change(path, after))

    def _is_expected(self, path: str, digest: str | None) -> bool:
        waiting = self._in_flight.get(path, {})
        return any(
            not intent.journaled and intent.expected.get(path, _UNKNOWN) == digest for intent in waiting.values()
        )


def _digest(entry: Entry | None) -> str | None:
    return None if entry is None else entry.sha256
