"""Reading content: cache, then stage, then blob store. The put precedes the removal from the stage, so one has it."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextvars import ContextVar
from typing import TypeVar

from app.contract.errors import InternalError, Unavailable
from app.storage.contents.blobs import BlobStore
from app.storage.metrics import CACHE_LOOKUPS

T = TypeVar("T")

Reference = tuple[str, bytes, bytes | None]
"""Store ID, SHA-256, and the content itself if the row's query found it in the stage."""


class ContentGone(Exception):
    """A row's content was not where it should be: it was erased after the row was read. Read the row again."""


class ContentOutdated(ContentGone):
    """A content was read while its store's contents were dropped: it may be one of those that were erased."""


Moment = int
"""How often this cache was told to drop something."""

_ROWS_READ_SINCE: ContextVar[Moment | None] = ContextVar("rows_read_since", default=None)
"""The moment before the rows of the read under way were asked for."""


class ContentCache:
    """The most recently used contents, bounded by their bytes.

    What is dropped does not come back by a read or a write that began before: such a one names the moment at which
    it began, and nothing of an earlier moment than the last drop is kept.
    """

    def __init__(self, maximum_bytes: int) -> None:
        self._maximum = maximum_bytes
        self._moment: Moment = 0
        self._cleared: Moment = 0
        self._dropped: dict[str, Moment] = {}
        self._entries: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self.bytes = 0

    def get(self, store_id: str, sha256: bytes) -> bytes | None:
        """The content, if it is here."""
        entry = self._entries.get((store_id, sha256))
        if entry is not None:
            self._entries.move_to_end((store_id, sha256))
        return entry

    def now(self) -> Moment:
        """The moment to name later, taken before the rows are read or written that a content belongs to."""
        return self._moment

    def is_outdated(self, store_id: str, since: Moment) -> bool:
        """Whether contents of the store were dropped after this moment."""
        return since < max(self._cleared, self._dropped.get(store_id, 0))

    def put(self, store_id: str, sha256: bytes, content: bytes, since: Moment) -> None:
        """Keep a content that was read or written since a moment, and drop the least recently used ones."""
        if self.is_outdated(store_id, since):
            return
        key = (store_id, sha256)
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        self._entries[key] = content
        self.bytes += len(content)
        while self.bytes > self._maximum:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= len(oldest)

    def drop_stores(self, store_ids: Collection[str]) -> None:
        """Drop everything of these stores, and what is being read of them."""
        self._moment += 1
        self._dropped |= dict.fromkeys(store_ids, self._moment)
        for key in [key for key in self._entries if key[0] in store_ids]:
            self.bytes -= len(self._entries.pop(key))

    def clear(self) -> None:
        """Drop everything, and what is being read."""
        self._moment += 1
        self._cleared = self._moment
        self._dropped.clear()
        self._entries.clear()
        self.bytes = 0


class Contents:
    """What every reader of content goes through."""

    def __init__(self, blobs: BlobStore, cache: ContentCache) -> None:
        self._blobs = blobs
        self._cache = cache
        self._hit = CACHE_LOOKUPS.labels("hit")
        self._miss = CACHE_LOOKUPS.labels("miss")

    def now(self) -> Moment:
        """The moment to give to `remember`, taken before the transaction that writes the content."""
        return self._cache.now()

    def remember(self, store_id: str, sha256: bytes, content: bytes, since: Moment) -> None:
        """Keep a content that was just written, since it will likely be read."""
        self._cache.put(store_id, sha256, content, since)

    def is_outdated(self, store_id: str, since: Moment) -> bool:
        """Whether an erasure has touched the store after a moment: what was read before may be gone by now."""
        return self._cache.is_outdated(store_id, since)

    def refuse_outdated(self, store_id: str, since: Moment) -> None:
        """Refuse to go on with rows that were read since a moment, if an erasure has touched the store after it.

        Raises:
            Unavailable: it has.

        """
        if self.is_outdated(store_id, since):
            raise Unavailable(f"memories of {store_id!r} were erased while it was read; begin again")

    def _since(self) -> Moment:
        since = _ROWS_READ_SINCE.get()
        return self._cache.now() if since is None else since

    def _at_hand(self, reference: Reference, since: Moment) -> bytes | None:
        """The content if no request to the blob store is needed."""
        store_id, sha256, staged = reference
        content = self._cache.get(store_id, sha256)
        if content is None and staged is not None:
            if self._cache.is_outdated(store_id, since):
                raise ContentOutdated
            content = bytes(staged)
            self._cache.put(store_id, sha256, content, since)
        return content

    async def read(self, reference: Reference) -> bytes:
        """One content.

        Raises:
            ContentGone: it was erased meanwhile.
            BlobStoreUnavailable: it is neither cached nor staged, and the blob store does not answer.

        """
        content = self._at_hand(reference, self._since())
        if content is not None:
            self._hit.inc()
            return content
        return (await self.read_many([reference]))[0]

    async def read_many(self, references: Sequence[Reference]) -> list[bytes]:
        """Contents in the order asked; errors as `read`."""
        since = self._since()
        found = [self._at_hand(reference, since) for reference in references]
        missing = [index for index, content in enumerate(found) if content is None]
        self._hit.inc(len(found) - len(missing))
        if missing:
            self._miss.inc(len(missing))
            wanted = [references[index][:2] for index in missing]
            for index, content in zip(missing, await self._blobs.get_many(wanted), strict=True):
                store_id, sha256, _ = references[index]
                # A file that a mover is writing just now is there, but not whole: its content is still staged.
                if content is None or hashlib.sha256(content).digest() != sha256:
                    raise ContentGone
                if self._cache.is_outdated(store_id, since):
                    raise ContentOutdated
                found[index] = content
                self._cache.put(store_id, sha256, content, since)
        return [content for content in found if content is not None]


_ATTEMPTS = 5
"""Each failed one needs an erasure between a row's read and its content's; so many in one request is a fault."""


async def with_fresh_rows(contents: Contents, read: Callable[[], Awaitable[T]]) -> T:
    """Run a read of rows and their content; again if content was erased between the two, or while it was read.

    Raises:
        InternalError: the content is missing, however fresh the row.
        Unavailable: a server that has lost sight of the database drops everything faster than it can be read.

    """
    outdated = False
    for _ in range(_ATTEMPTS):
        token = _ROWS_READ_SINCE.set(contents.now())
        try:
            return await read()
        except ContentGone as error:
            outdated = isinstance(error, ContentOutdated)
        finally:
            _ROWS_READ_SINCE.reset(token)
    if outdated:
        raise Unavailable("contents are being erased, and could not be read meanwhile; try again")
    raise InternalError("a memory's content is missing or damaged in the blob store; run 'memstore fsck'")
