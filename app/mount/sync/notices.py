"""Telling a front end what changed: in order, one call at a time, without a lock held."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from app.mount.door.entries import Change
from app.mount.sync.state import StoreState

_log = logging.getLogger(__name__)


class Notices:
    """Passes a state's changes on. `announce` never waits: a thread that is in a call already tells the later changes.

    So a front end that takes its time holds up one thread at most, and what it waits for can go on in the others.
    """

    def __init__(self, state: StoreState, lock: threading.RLock, listener: Callable[[list[Change]], None]) -> None:
        self._state = state
        self._lock = lock
        self._listener = listener
        self._calling = threading.Lock()
        self._waiting: deque[Change] = deque()
        self.is_open = False
        """False while the front end has not seen the first view: there is nothing to tell yet."""

    def announce(self) -> None:
        """Tell what changed. Call it without the lock."""
        with self._lock:
            changes = self._state.take_changes()
            if self.is_open:
                self._waiting.extend(changes)
        while self._waiting and self._calling.acquire(blocking=False):
            try:
                with self._lock:
                    changes = list(self._waiting)
                    self._waiting.clear()
                if changes:
                    self._listener(changes)
            except Exception:
                _log.exception("the front end failed on a change")
            finally:
                self._calling.release()
