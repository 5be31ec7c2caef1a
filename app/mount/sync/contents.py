"""The contents of a store's memories: at hand, fetched one by one, or all together after the start."""

import contextlib
import errno
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator

from app.client.failures import ApiError, Away, Forbidden, Missing, Unauthorized
from app.mount.door.api import StoreApi
from app.mount.door.entries import Entry
from app.mount.door.wire import Memory
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.errors import Offline, Refused

_FEW = 16
"""So many missing contents are read one by one: a snapshot would also bring all the others."""
_PREFETCH_MAX_BYTES = 256 << 20

_log = logging.getLogger(__name__)


class Contents:
    """Reads for one store. Thread-safe."""

    def __init__(self, api: StoreApi, cache: ContentCache, pending: Callable[[str], bytes | None]) -> None:
        """pending: the content of a digest that is not on the server yet."""
        self._api = api
        self._cache = cache
        self._pending = pending
        self._arrived = threading.Condition()
        self._coming: set[str] = set()

    def at_hand(self, sha256: str) -> bytes | None:
        """The content, if no network is needed for it."""
        data = self._cache.get(self._api.store_id, sha256)
        return self._pending(sha256) if data is None else data

    def fetch(self, entry: Entry) -> bytes:
        """The content; see `StoreEngine.fetch`."""
        data = self.at_hand(entry.sha256)
        if data is None and entry.sha256 in self._coming:
            with self._arrived:
                self._arrived.wait_for(lambda: entry.sha256 not in self._coming)
            data = self.at_hand(entry.sha256)
        if data is None:
            data = self._ask(entry)
            self._cache.put(self._api.store_id, entry.sha256, data)
        return data

    def author(self, entry: Entry) -> str | None:
        """See `StoreEngine.author`; the entry is one of the server's."""
        if entry.version_id is None:
            return None
        with _told(entry), contextlib.suppress(Missing):
            return self._api.version_author(entry.version_id)
        return None

    def _ask(self, entry: Entry) -> bytes:
        with _told(entry):
            for find in (self._head, self._version):
                data = find(entry)
                if data is not None and hashlib.sha256(data).hexdigest() == entry.sha256:
                    return data
        raise Refused(errno.ESTALE, f"{entry.path} has changed, and what it was is gone")

    def _head(self, entry: Entry) -> bytes | None:
        if entry.memory_id is None:
            return None
        try:
            return self._api.retrieve(entry.memory_id).content
        except Missing:
            return None

    def _version(self, entry: Entry) -> bytes | None:
        if entry.version_id is None:
            return None
        try:
            return self._api.version_content(entry.version_id)
        except Missing:
            return None

    def prefetch(self, entries: Iterable[Entry]) -> None:
        """Get what is not at hand, in a thread, so that it can be read when the server is away.

        `fetch` waits for what is on its way instead of asking for it again.
        """
        if self._coming:
            return
        missing = {entry.sha256: entry for entry in entries if not self._cache.has(self._api.store_id, entry.sha256)}
        if not missing or sum(entry.size for entry in missing.values()) > _PREFETCH_MAX_BYTES:
            return
        self._coming = set(missing)
        threading.Thread(target=self._prefetch, args=[missing], name="memstore-prefetch", daemon=True).start()

    def _prefetch(self, missing: dict[str, Entry]) -> None:
        try:
            few = len(missing) <= _FEW
            for memory in self._each(missing.values()) if few else self._api.snapshot(full=True).memories:
                if memory.content is not None and memory.entry.sha256 in self._coming:
                    self._cache.put(self._api.store_id, memory.entry.sha256, memory.content)
                    with self._arrived:
                        self._coming.discard(memory.entry.sha256)
                        self._arrived.notify_all()
        except ApiError as error:
            _log.info("contents are read one by one: %s", error.message)
        finally:
            with self._arrived:
                self._coming.clear()
                self._arrived.notify_all()

    def _each(self, entries: Iterable[Entry]) -> Iterator[Memory]:
        for entry in entries:
            if entry.memory_id is not None:
                with contextlib.suppress(Missing):  # deleted since; its content may still be asked for as a version
                    yield self._api.retrieve(entry.memory_id)


@contextlib.contextmanager
def _told(entry: Entry) -> Iterator[None]:
    """Have what the API raises reach a reader as it knows it: Offline or Refused."""
    try:
        yield
    except Away as error:
        raise Offline(f"{entry.path}: {error.message}") from error
    except (Unauthorized, Forbidden) as error:
        raise Refused(errno.EACCES, error.message) from error
    except ApiError as error:
        raise Refused(errno.EIO, error.message) from error
