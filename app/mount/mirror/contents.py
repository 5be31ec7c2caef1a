"""Contents of memories for the disk: what is not at hand is fetched beside everything else."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.mount.door.entries import Entry
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Offline, Refused

_FETCHES_AT_ONCE = 8


class Contents:
    """Gives contents without waiting; thread-safe."""

    def __init__(self, engine: StoreEngine, arrived: Callable[[str], None]) -> None:
        """arrived: called with the path, from another thread, when a content that was asked for has arrived."""
        self._engine = engine
        self._arrived = arrived
        self._pool = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="mirror-fetch")
        self._lock = threading.Lock()
        self._fetched: dict[str, bytes] = {}
        self._asked: set[str] = set()
        self._failed: dict[str, str] = {}

    def close(self) -> None:
        """Fetch nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def fetching(self) -> bool:
        """Whether something is on its way."""
        with self._lock:
            return bool(self._asked)

    def take(self, entry: Entry) -> bytes | None:
        """The content, once; None: it is being fetched, or `failure` says why it can't be."""
        with self._lock:
            if (data := self._fetched.pop(entry.sha256, None)) is not None:
                return data
        if (data := self._engine.at_hand(entry)) is not None:
            return data
        with self._lock:
            if entry.sha256 not in self._asked:
                self._asked.add(entry.sha256)
                self._pool.submit(self._fetch, entry)
        return None

    def failure(self, entry: Entry) -> str | None:
        """Why the last fetch of this content failed."""
        with self._lock:
            return self._failed.pop(entry.sha256, None)

    def _fetch(self, entry: Entry) -> None:
        data, failure = None, ""
        try:
            data = self._engine.fetch(entry)
        except (Offline, Refused) as error:
            failure = str(error) or "the server does not answer"
        except Exception as error:  # whatever it is: one path is late, the others go on
            failure = repr(error)
        with self._lock:
            self._asked.discard(entry.sha256)
            if data is None:
                self._failed[entry.sha256] = failure
            else:
                self._fetched[entry.sha256] = data
        self._arrived(entry.path)
