"""Work that is held before and after each of its steps at the blob store, and goes on when told to."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from app.storage.contents.blobs import BlobStore

STEP_SECONDS = 60.0
"""Nobody waits for a lock that a held actor has: an actor that gets nowhere in this time is a defect."""


class HeldBlobs(BlobStore):
    """Another view on a blob store, which waits for `turn` around whatever is put, read or removed."""

    def __init__(self, real: BlobStore, turn: Callable[[], Awaitable[None]]) -> None:
        # Shares everything with the real one, its threads too: closing that one closes this one.
        self.__dict__.update(real.__dict__)
        self._turn = turn

    async def put_many(self, blobs: Sequence[tuple[str, bytes, bytes]]) -> None:
        await self._turn()
        await super().put_many(blobs)
        await self._turn()

    async def get_many(self, blobs: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        await self._turn()
        found = await super().get_many(blobs)
        await self._turn()
        return found

    async def remove(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        await self._turn()
        await super().remove(blobs)
        await self._turn()

    async def remove_store(self, store_id: str) -> None:
        await self._turn()
        await super().remove_store(store_id)
        await self._turn()


class Actor:
    """One piece of work in a task of its own; it stands still between two calls of `step`."""

    def __init__(self, name: str, work: Callable[[BlobStore], Awaitable[object]], blobs: BlobStore) -> None:
        self.name = name
        self._may_go = asyncio.Semaphore(0)
        self._stands = asyncio.Event()

        async def begin() -> None:
            await self._may_go.acquire()
            await work(HeldBlobs(blobs, self._wait_for_turn))

        self._task = asyncio.create_task(begin(), name=name)

    def __repr__(self) -> str:
        return self.name

    async def _wait_for_turn(self) -> None:
        self._stands.set()
        await self._may_go.acquire()

    async def step(self) -> bool:
        """Go on to the next step; False when the work is done. What it raised is raised here."""
        self._stands.clear()
        self._may_go.release()
        stands = asyncio.create_task(self._stands.wait())
        await asyncio.wait({self._task, stands}, timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert self._task.done() or stands.done(), f"{self.name} gets nowhere"
        stands.cancel()
        if self._task.done():
            self._task.result()
            return False
        return True

    async def finish(self) -> None:
        """Take all steps that are left."""
        while await self.step():
            pass
