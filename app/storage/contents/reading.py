"""Reading content: cache, then stage, then blob store. The put precedes the removal from the stage, so one has it."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from app.contract.errors import InternalError
from app.storage.contents.blobs import BlobStore
from app.storage.metrics import CACHE_LOOKUPS

T = TypeVar("T")

Reference = tuple[str, bytes, bytes | None]
"""Store ID, SHA-256, and the content itself if the row's query found it in the stage."""


class ContentGone(Exception):
    """A row's content was not where it should be: it was erased after the row was read. Read the row again."""


class ContentCache:
    """The most recently used contents, bounded by their bytes."""

    def __init__(self, maximum_bytes: int) -> None:
        self._maximum = maximum_bytes
        self._entries: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self.bytes = 0

    def get(self, store_id: str, sha256: bytes) -> bytes | None:
        """The content, if it is here."""
        entry = self._entries.get((store_id, sha256))
        if entry is not None:
            self._entries.move_to_end((store_id, sha256))
        return entry

    def put(self, store_id: str, sha256: bytes, content: bytes) -> None:
        """Keep a content and let go of the least recently used ones."""
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
        """Let go of everything of these stores."""
        for key in [key for key in self._entries if key[0] in store_ids]:
            self.bytes -= len(self._entries.pop(key))

    def clear(self) -> None:
        """Let go of everything."""
        self._entries.clear()
        self.bytes = 0


class Contents:
    """What every reader of content goes through."""

    def __init__(self, blobs: BlobStore, cache: ContentCache) -> None:
        self._blobs = blobs
        self._cache = cache
        self._hit = CACHE_LOOKUPS.labels("hit")
        self._miss = CACHE_LOOKUPS.labels("miss")

    def remember(self, store_id: str, sha256: bytes, content: bytes) -> None:
        """Keep a content that was just written, since it will likely be read."""
        self._cache.put(store_id, sha256, content)

    def at_hand(self, reference: Reference) -> bytes | None:
        """The content if no request to the blob store is needed."""
        store_id, sha256, staged = reference
        content = self._cache.get(store_id, sha256)
        if content is None and staged is not None:
            content = bytes(staged)
            self._cache.put(store_id, sha256, content)
        return content

    async def read(self, reference: Reference) -> bytes:
        """One content.

        Raises:
            ContentGone: it was erased meanwhile.
            BlobStoreUnavailable: it is neither cached nor staged, and the blob store does not answer.

        """
        content = self.at_hand(reference)
        if content is not None:
            self._hit.inc()
            return content
        return (await self.read_many([reference]))[0]

    async def read_many(self, references: Sequence[Reference]) -> list[bytes]:
        """Contents in the order asked; errors as `read`."""
        found = [self.at_hand(reference) for reference in references]
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
                found[index] = content
                self._cache.put(store_id, sha256, content)
        return [content for content in found if content is not None]


_ATTEMPTS = 5
"""Each failed one needs an erasure between a row's read and its content's; so many in one request is a fault."""


async def with_fresh_rows(read: Callable[[], Awaitable[T]]) -> T:
    """Run a read of rows and their content; again if content was erased between the two.

    Raises:
        InternalError: the content is missing, however fresh the row.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await read()
        except ContentGone:
            continue
    raise InternalError("a memory's content is missing or damaged in the blob store; run 'memstore fsck'")
