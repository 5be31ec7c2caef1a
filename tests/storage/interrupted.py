"""Fault injection: the real blob store, with something happening right before or after one of its steps."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from app.storage.contents.blobs import BlobStore, BlobStoreUnavailable

Happening = Callable[[], Awaitable[object]]


class InterruptedBlobs(BlobStore):
    """Another view on a blob store. Each happening takes place once, at the next step of its kind."""

    def __init__(self, real: BlobStore) -> None:
        # Shares everything with the real one, its threads too: closing that one closes this one.
        self.__dict__.update(real.__dict__)
        self.before_put: Happening | None = None
        self.after_put: Happening | None = None
        self.before_get: Happening | None = None
        self.after_get: Happening | None = None
        self.before_remove: Happening | None = None
        self.after_remove: Happening | None = None
        self.after_remove_store: Happening | None = None

    async def _happens(self, name: str) -> None:
        happening: Happening | None = getattr(self, name)
        setattr(self, name, None)
        if happening is not None:
            await happening()

    async def put_many(self, blobs: Sequence[tuple[str, bytes, bytes]]) -> None:
        await self._happens("before_put")
        await super().put_many(blobs)
        await self._happens("after_put")

    async def get_many(self, blobs: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        await self._happens("before_get")
        contents = await super().get_many(blobs)
        await self._happens("after_get")
        return contents

    async def remove(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        await self._happens("before_remove")
        await super().remove(blobs)
        await self._happens("after_remove")

    async def remove_store(self, store_id: str) -> None:
        await super().remove_store(store_id)
        await self._happens("after_remove_store")


async def fail() -> None:
    """A happening: the blob store does not answer."""
    raise BlobStoreUnavailable("the blob store does not answer (planted by a test)")
