"""Following what others do to a store: by the change feed, or by listing it again and again where there is none."""

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from app.client.failures import ApiError, Away, Forbidden, Missing, Rejected, TimedOut, Unauthorized
from app.mount.door.api import StoreApi
from app.mount.door.entries import Entry
from app.mount.door.stream import Watch
from app.mount.door.wire import Event, Gone, Odd, Truncated
from app.mount.sync.state import StoreState

LIVE, POLLING, LOST = "live", "polling", "lost"

_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
_SILENT_FEED_SECONDS = 60.0
"""After a stream that said nothing in its time, pages are asked for so long before a stream is tried again."""
_CUT_FEED_SECONDS = 0.5
"""The same after a stream that ended before it said anything; twice as long after each further one in a row."""
_FEW = 100
_ODD_NAMED = 1_000
"""Memories that can't be shown which the status names."""

_log = logging.getLogger(__name__)


class Follower:
    """Keeps a state current in a thread of its own."""

    def __init__(
        self,
        api: StoreApi,
        state: StoreState,
        lock: threading.RLock,
        *,
        announce: Callable[[], None],
        on_mode: Callable[[str], None],
        on_gone: Callable[[], None],
        on_refused: Callable[[], None],
        poll_seconds: float,
    ) -> None:
        """Follow nothing yet.

        announce: called after the state changed, without the lock. on_mode: called with "live", "polling" or
        "lost" when it changes. on_gone: called when the server says that the store is gone.
        on_refused: called when it says that the token no longer opens the store.
        poll_seconds: the least time between two listings.
        """
        self._api = api
        self._state = state
        self._lock = lock
        self._announce = announce
        self._on_mode = on_mode
        self._on_gone = on_gone
        self._on_refused = on_refused
        self._poll_seconds = poll_seconds
        self._ending = threading.Event()
        self._changed_mode = threading.Condition()
        self._watch: Watch | None = None
        self._retry_seconds = self._pages_seconds = 0.0
        self._marks = (0, 0)
        self._thread = threading.Thread(target=self._run, name="memstore-feed", daemon=True)
        self.mode = LOST
        self.is_gone = False
        """The store is deleted, or may no longer be read."""
        self.is_refused = False
        """The token opens the store no longer."""
        self.archived = False
        self.odd: OrderedDict[str, str] = OrderedDict()
        """Memories of the server that break the rules of the contract: their paths, escaped, by ID; the last ones."""

    def start(self) -> None:
        """Follow from the state's sequence number."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread."""
        self._ending.set()
        watch = self._watch
        if watch is not None:
            watch.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_until_following(self, timeout: float) -> bool:
        """Whether it follows within so many seconds."""
        with self._changed_mode:
            return self._changed_mode.wait_for(lambda: self.mode != LOST, timeout)

    def take_snapshot(self) -> None:
        """Bring the state to what the server has now; raises as the API does."""
        with self._lock:
            since = self._state.tick()
        snapshot = self._api.snapshot()
        entries = {memory.entry.memory_id: memory.entry for memory in snapshot.memories}
        odd = snapshot.odd
        if snapshot.seq is None:
            self._look_for_missing(entries)
        with self._lock:
            self.archived = snapshot.archived
            self.odd.clear()
            for item in odd:
                self._note_odd(item.memory_id, item)
            self._state.apply_listing(entries.values(), since, snapshot.seq)
        self._announce()

    def _look_for_missing(self, entries: dict[str | None, Entry]) -> None:
        """A memory that was renamed while the pages came can be on none of them."""
        with self._lock:
            missing = [entry.memory_id for entry in self._state.remote_entries() if entry.memory_id not in entries]
        if len(missing) > _FEW:
            entries |= {memory.entry.memory_id: memory.entry for memory in self._api.snapshot().memories}
            return
        for memory_id in missing:
            assert memory_id is not None
            try:
                entries[memory_id] = self._api.retrieve(memory_id, full=False).entry
            except Missing:
                continue

    # The thread

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._follow()
            except Missing:
                self._check_store()
            except (Unauthorized, Forbidden) as error:
                _log.info("the token is refused: %s", error.message)
                self._check_store()
            except Rejected:
                self._try_snapshot()  # the server's history is not the one that was followed
            except ApiError as error:
                _log.info("the change feed is lost: %s", error.message)
            except Exception:
                _log.exception("the change feed failed")
            self._set_mode(LOST)
            self._retry_seconds = max(_FIRST_RETRY_SECONDS, min(2 * self._retry_seconds, _LAST_RETRY_SECONDS))
            self._ending.wait(self._retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the clients

    def _follow(self) -> None:
        if self._state.seq is None:
            self.take_snapshot()
        while self._state.seq is None and not self._ending.is_set():
            self._set_mode(POLLING)
            started = time.monotonic()
            self._ending.wait(self._poll_seconds)
            if not self._ending.is_set():
                self.take_snapshot()
                self._poll_seconds = max(self._poll_seconds, 5 * (time.monotonic() - started - self._poll_seconds))
        if not self._ending.is_set() and not self._stream() and not self._ending.is_set():
            self._read_pages(time.monotonic() + self._pages_seconds)

    def _stream(self) -> bool:
        """Follow the stream until it ends; whether it said anything. If not, `_pages_seconds` is set."""
        assert self._state.seq is not None
        try:
            self._watch = watch = self._api.watch(self._state.seq)
        except TimedOut:
            self._pages_seconds = _SILENT_FEED_SECONDS
            return False
        spoke = False
        try:
            for message in watch:
                if not spoke:
                    spoke = True
                    self._pages_seconds = 0.0
                    self._set_mode(LIVE)
                if isinstance(message, Event):
                    with self._lock:
                        self._apply(message)
                    self._announce()
                elif isinstance(message, Truncated):
                    self.take_snapshot()
                elif isinstance(message, Gone):
                    self._check_store()
                    return True
                else:
                    self._settle_doubts()
        except TimedOut:
            if spoke:
                raise
            self._pages_seconds = _SILENT_FEED_SECONDS
            return False
        except Away:
            if spoke:
                raise
        finally:
            self._watch = None
            watch.close()
        if not spoke:
            self._pages_seconds = min(max(_CUT_FEED_SECONDS, 2 * self._pages_seconds), _SILENT_FEED_SECONDS)
        return spoke

    def _read_pages(self, until: float) -> None:
        """Follow page by page, where something between us and the server holds streams back."""
        while not self._ending.is_set() and time.monotonic() < until:
            assert self._state.seq is not None
            page = self._api.changes(self._state.seq)
            self._set_mode(POLLING)
            if page.truncated:
                self.take_snapshot()
                self._ending.wait(self._poll_seconds)
                continue
            with self._lock:
                for event in page.events:
                    self._apply(event)
            self._announce()
            if not page.has_more:
                self._settle_doubts()
                self._ending.wait(self._poll_seconds)

    def _apply(self, event: Event) -> None:
        self._state.apply_event(event)
        self._note_odd(event.memory_id, event.odd)

    def _note_odd(self, memory_id: str, odd: Odd | None) -> None:
        self.odd.pop(memory_id, None)
        if odd is not None:
            self.odd[memory_id] = odd.path
            while len(self.odd) > _ODD_NAMED:
                self.odd.popitem(last=False)

    def _settle_doubts(self) -> None:
        """Ask about what the feed should have told by now: an answer and the feed can cross each other."""
        with self._lock:
            before, mark = self._marks
            doubtful = self._state.doubtful(before)
            self._marks = mark, self._state.tick()
        for memory_id in doubtful:
            entry: Entry | None = None
            is_erased = False
            try:
                entry = self._api.retrieve(memory_id, full=False).entry
            except Missing as error:
                is_erased = error.erased
            with self._lock:
                if is_erased:
                    self._state.note_erased(memory_id)
                self._state.settle_doubt(memory_id, entry)
            self._announce()

    def _try_snapshot(self) -> None:
        try:
            self.take_snapshot()
        except ApiError as error:
            _log.info("no snapshot: %s", error.message)

    def _check_store(self) -> None:
        try:
            self._api.store()
        except Missing:
            if not self.is_gone:
                self._on_gone()
            self.is_gone = True
        except (Unauthorized, Forbidden):
            if not self.is_refused:
                self._on_refused()
            self.is_refused = True
        except ApiError:
            return

    def _set_mode(self, mode: str) -> None:
        if mode != LOST:
            self._retry_seconds = 0.0
            self.is_gone = self.is_refused = False
        with self._changed_mode:
            is_new = mode != self.mode
            self.mode = mode
            self._changed_mode.notify_all()
        if is_new and not self._ending.is_set():
            self._on_mode(mode)
