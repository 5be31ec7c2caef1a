"""Getting accepted writes to the server: at once where it is quick, through the journal where it is not."""

import contextlib
import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from app.client.failures import Away
from app.contract import clock
from app.mount.door.entries import Entry
from app.mount.sync.delivery import Delivery, KeptBeside
from app.mount.sync.errors import Offline, Refused
from app.mount.sync.intents import Intent, Kind
from app.mount.sync.journal import Journal, JournalFull
from app.mount.sync.kept import KeptTexts
from app.mount.sync.schedule import Schedule
from app.mount.sync.state import StoreState

PATIENCE_SECONDS = 0.05
"""How long a writer waits for the server before the journal takes its write."""
DURABLE_SECONDS = 60.0
"""How long `fsync` waits at most."""

_WORKERS = 8
_IDLE_SECONDS = 10.0
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
_WEIGHT = 0.2  # of the newest answer in the average time of an answer

_log = logging.getLogger(__name__)


class Uploader:
    """Runs deliveries in threads that come and go. `lock` guards the state; nothing waits while it is held."""

    def __init__(
        self,
        delivery: Delivery,
        state: StoreState,
        lock: threading.RLock,
        journal: Journal,
        *,
        kept: KeptTexts,
        announce: Callable[[], None],
    ) -> None:
        """Nothing is sent yet.

        kept: gets what is refused after it was accepted. announce: called after the state changed, without the lock.
        """
        self._delivery = delivery
        self._state = state
        self._journal = journal
        self._announce = announce
        self._work = threading.Condition(lock)
        self._finished = threading.Condition(lock)
        self._schedule = Schedule()
        self._unfinished: dict[int, Intent] = {}
        self._ready: deque[Intent] = deque()
        self._delivering: set[int] = set()
        self._last_number = journal.last_number
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._is_stopping = False
        self._is_away = False
        self._is_probing = False
        self._retry_at = 0.0
        self._retry_seconds = 0.0
        self._answer_seconds = 0.0
        self._kept = kept
        self.last_sync: str | None = None

    # Accepting

    def submit(self, intent: Intent, *, durable: bool = False) -> Entry | None:
        """Accept a write; what it leaves at its last path. It gets its number here.

        durable: wait for the server. Else the journal has it when this returns and the server has not.

        Raises:
            Refused: nothing was accepted; or, with ESTALE, the text is in a conflict file.
            Offline: `durable`, and there is no answer; the journal has it all the same.

        """
        with self._work:
            if self._is_stopping:
                raise Offline("the mount is ending")
            self._last_number += 1
            intent.number = self._last_number
            if intent.mtime_ns == 0:
                intent.mtime_ns = time.time_ns()
            intent.expected = {path: entry.sha256 if entry else None for path, entry in intent.shown().items()}
            self._state.begin(intent)
            self._enqueue(intent)
            has_patience = not self._is_away and self._answer_seconds < PATIENCE_SECONDS
        if durable:
            intent.news.wait(DURABLE_SECONDS)
        elif has_patience:
            intent.news.wait(PATIENCE_SECONDS)
        if intent.is_finished:
            return _outcome(intent)
        if not self._take_into_journal(intent):
            return _outcome(intent)
        if durable:
            raise Offline(f"{intent.name}: the server does not answer; the write is kept until it does")
        return intent.shown()[intent.name] if intent.kind is not Kind.TREE else None

    def replay(self, intents: Iterable[Intent], *, is_away: bool) -> None:
        """Accept what an earlier process left in the journal. is_away: wait for `server_answers` with it."""
        with self._work:
            self._is_away = is_away
            self._retry_at = float("inf") if is_away else 0.0
            for intent in intents:
                self._state.begin(intent)
                self._state.show(intent)
                self._enqueue(intent)

    def _enqueue(self, intent: Intent) -> None:
        self._unfinished[intent.number] = intent
        if self._schedule.add(intent.number, intent.paths, is_barrier=intent.kind is Kind.TREE):
            self._make_ready(intent)

    def _make_ready(self, intent: Intent) -> None:
        self._ready.append(intent)
        if self._idle < len(self._ready) and len(self._threads) < _WORKERS:
            self._start_thread()
        else:
            self._work.notify()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="memstore-upload", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _take_into_journal(self, intent: Intent) -> bool:
        """Whether the journal has it now; else it is finished."""
        noted = len(intent.sent)
        try:
            self._journal.append(intent)
        except JournalFull as error:
            self._give_up(intent, Refused(errno.ENOSPC, f"{intent.name}: {error}"))
            return False
        with self._work:
            if not intent.is_finished and not intent.is_refused:
                intent.journaled = True
                intent.content = None
                self._state.show(intent)
                for digest in intent.sent[noted:]:
                    self._journal.sent(intent.number, digest)
                self._finished.notify_all()
                return True
            self._finished.wait_for(lambda: intent.is_finished)
        self._journal.done(intent.number)
        return False

    def _give_up(self, intent: Intent, refusal: Refused) -> None:
        """End an intent that nobody keeps, unless the server gets it after all."""
        with self._finished:
            intent.given_up = refusal
            if intent.number in self._delivering:
                self._finished.wait_for(lambda: intent.is_finished)
                return
            if intent not in self._ready:
                return  # others are before it; when its turn comes it is dropped
            self._ready.remove(intent)
        self._finish(intent, None, refusal)

    # Delivering

    def _run(self) -> None:
        try:
            while (intent := self._take()) is not None:
                self._deliver(intent)
        finally:
            with self._work:
                self._threads.discard(threading.current_thread())

    def _take(self) -> Intent | None:
        """The next to deliver; None: this thread may end. Where the server is away, one thread asks for it."""
        with self._work:
            idle_until = time.monotonic() + _IDLE_SECONDS
            while True:
                now = time.monotonic()
                if self._is_stopping or (now >= idle_until and not self._ready):
                    # No longer counted as a thread that a new write could wake.
                    self._threads.discard(threading.current_thread())
                    return None
                if self._ready and (not self._is_away or (now >= self._retry_at and not self._is_probing)):
                    self._is_probing = self._is_away
                    intent = self._ready.popleft()
                    self._delivering.add(intent.number)
                    return intent
                is_next_probe = self._ready and self._is_away and not self._is_probing
                self._idle += 1
                self._work.wait(
                    min(max(0.001, self._retry_at - now), _IDLE_SECONDS) if is_next_probe else _IDLE_SECONDS
                )
                self._idle -= 1

    def _deliver(self, intent: Intent) -> None:
        if intent.given_up is not None:
            self._finish(intent, None, intent.given_up)
            return
        was_journaled = intent.journaled
        started = time.monotonic()
        result, error = None, None
        try:
            result = self._delivery.deliver(intent)
        except Away as away:
            self._put_back(intent, away)
            return
        except Refused as refusal:
            error = refusal
        except Exception as bug:
            _log.exception("write %d (%s) can't be delivered", intent.number, intent.kind.value)
            error = Refused(errno.EIO, f"{type(bug).__name__}: {bug}")
        self._answer_seconds += _WEIGHT * (time.monotonic() - started - self._answer_seconds)
        is_lost = error is not None and not isinstance(error, KeptBeside)
        if is_lost and not was_journaled and self._must_try_again(intent):
            return
        self._finish(intent, result, error)

    def _must_try_again(self, intent: Intent) -> bool:
        """Whether its writer, to whom it was to be refused, was told meanwhile that it is accepted.

        Then more is done to save it (see `Delivery`), and the next delivery knows that.
        """
        with self._work:
            if intent.journaled:
                self._delivering.discard(intent.number)
                self._is_answered()
                self._is_probing = False
                self._make_ready(intent)
                return True
            intent.is_refused = True
            return False

    def _put_back(self, intent: Intent, away: Away) -> None:
        with self._work:
            self._delivering.discard(intent.number)
            self._is_away, self._is_probing = True, False
            doubled = max(_FIRST_RETRY_SECONDS, min(2 * self._retry_seconds, _LAST_RETRY_SECONDS))
            self._retry_seconds = min(max(doubled, away.retry_after), _LAST_RETRY_SECONDS)
            self._retry_at = time.monotonic() + self._retry_seconds
            if intent.given_up is None:
                self._ready.appendleft(intent)
            for waiting in self._unfinished.values():
                waiting.news.set()
            self._work.notify()
        if intent.given_up is not None:
            self._finish(intent, None, intent.given_up)

    def _finish(self, intent: Intent, result: Entry | None, error: Refused | None) -> None:
        with self._work:
            self._delivering.discard(intent.number)
            if error is not intent.given_up or error is None:
                self._is_answered()
            is_lost = error is not None and not isinstance(error, KeptBeside)
            if intent.journaled and is_lost:
                assert error is not None
                if not self._keep_refused(intent, error):
                    self._ready.append(intent)  # the disk is full: the journal keeps it meanwhile
                    self._is_away, self._retry_at = True, time.monotonic() + _LAST_RETRY_SECONDS
                    return
            intent.result, intent.error, intent.is_finished = result, error, True
            self._state.end(intent)
            del self._unfinished[intent.number]
            for number in self._schedule.finish(intent.number):
                self._make_ready(self._unfinished[number])
            if error is None:
                self.last_sync = clock.rfc3339(clock.now())
            was_journaled = intent.journaled
            intent.news.set()
            self._finished.notify_all()
        if was_journaled:
            self._journal.done(intent.number)
        self._announce()

    def _keep_refused(self, intent: Intent, error: Refused) -> bool:
        base = intent.target if intent.kind is Kind.REPLACE else intent.base
        try:
            self._kept.keep(
                intent.name,
                self.content(intent) if intent.sha256 and intent.kind in (Kind.SAVE, Kind.REPLACE) else None,
                error.message,
                memory_id=None if base is None else base.memory_id,
                operation=intent.kind.value,
                errno=error.errno,
            )
        except OSError:
            _log.exception("refused write %d can't be kept", intent.number)
            return False
        return True

    def content(self, intent: Intent) -> bytes:
        """The content of a SAVE or REPLACE, from wherever it is."""
        content = intent.content
        return self._journal.content(intent.number) if content is None else content

    def note_sent(self, intent: Intent, sha256: str) -> None:
        """A merged text goes to the server in place of the intent's own."""
        with self._work:
            intent.sent.append(sha256)
            if intent.journaled:
                self._journal.sent(intent.number, sha256)

    # The server

    def server_answers(self) -> None:
        """Somebody else heard from the server: what waits need not wait longer."""
        with self._work:
            if self._is_away and not self._is_probing:
                self._is_answered()

    def _is_answered(self) -> None:
        if self._is_away:
            self._is_away = self._is_probing = False
            self._retry_seconds = 0.0
            for _ in range(min(len(self._ready), _WORKERS - len(self._threads))):
                self._start_thread()
            self._work.notify_all()

    @property
    def is_away(self) -> bool:
        """Whether the last attempt had no answer."""
        return self._is_away

    def pending(self) -> list[str]:
        """The paths of what is not on the server, in the order of the writes."""
        with self._work:
            return list(dict.fromkeys(intent.name for intent in self._unfinished.values()))

    def find(self, sha256: str) -> bytes | None:
        """A content that is pending."""
        with self._work:
            for intent in reversed(self._unfinished.values()):
                if intent.sha256 == sha256 and intent.kind in (Kind.SAVE, Kind.REPLACE):
                    with contextlib.suppress(KeyError):  # it is over by now
                        return self.content(intent)
        return None

    # Ending

    def flush(self, timeout: float | None) -> list[str]:
        """Wait for what was accepted before; the paths not on the server, those refused and still kept included."""
        with self._finished:
            waited_for = set(self._unfinished)
            if self._is_away and self._retry_at != float("inf"):
                self._retry_at = 0.0  # somebody waits: ask the server now, not after the pause
                self._work.notify_all()
            self._finished.wait_for(lambda: waited_for.isdisjoint(self._unfinished), timeout)
            left = [self._unfinished[number].name for number in sorted(waited_for & set(self._unfinished))]
        refused = [kept.path for kept in self._kept.kept_here()]
        return list(dict.fromkeys(left + refused))

    def stop(self, timeout: float) -> list[str]:
        """Flush for so long; then take nothing more and end the threads."""
        left = self.flush(timeout)
        with self._work:
            self._is_stopping = True
            threads = list(self._threads)
            waiting = [intent for intent in self._unfinished.values() if not intent.journaled]
            for intent in waiting:
                intent.news.set()
            self._work.notify_all()
            self._finished.wait_for(lambda: all(intent.journaled or intent.is_finished for intent in waiting), 5.0)
        for thread in threads:
            thread.join(timeout=1.0)
        return left


def _outcome(intent: Intent) -> Entry | None:
    if intent.is_finished and intent.error is None:
        return intent.result
    error = intent.error or intent.given_up
    assert error is not None
    raise error
