"""Writers, movers, collectors and readers of the same few contents, in many orders.

What servers do at once is here done by actors that stand still around each of their steps at the blob store, so
that anything can happen in between. The order comes from a seed: a failure names its seed and tells its story.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from app.contract.errors import NotFound
from app.storage.contents.blobs import BlobStore
from app.storage.contents.reading import ContentCache, Contents
from app.storage.rows.statements import Statement
from app.versions.service import VersionFilters, Versions
from tests.concurrency.actors import Actor
from tests.storage.parts import Parts, Written, opened
from tests.support.amounts import amount, repeats
from tests.support.backends import SQLITE_DISK, Backend

STEPS = 60
STORIES = {SQLITE_DISK: amount(60, 600)}
STORIES_ELSEWHERE = amount(12, 250)
ACTORS = 4

UNSTAGED = Statement(
    """
    SELECT DISTINCT v.store_id, v.content_sha256 FROM memory_versions v
     WHERE v.store_id = :store_id AND v.content_sha256 IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM staged_contents t
                        WHERE t.store_id = v.store_id AND t.content_sha256 = v.content_sha256)
    """
)
END_CLAIMS = Statement("UPDATE condemned_contents SET claimed_until = 0")
REMAINS = Statement(
    """
    SELECT (SELECT count(*) FROM staged_contents) AS staged, (SELECT count(*) FROM condemned_contents) AS condemned
    """
)


class Story:
    """One store; requests that come one after the other, and actors that are at work meanwhile."""

    def __init__(self, parts: Parts, store_id: str, seed: int) -> None:
        self.parts = parts
        self.store_id = store_id
        self.chance = random.Random(seed)
        self.told: list[str] = []
        self.is_deleted = False
        self.heads: dict[str, Written] = {}
        self.past: list[Written] = []
        self.written: list[Written] = []
        self.actors: list[Actor] = []
        self.deeds: dict[Callable[[], Awaitable[None]], int] = {
            self.step: 30,
            self.write: 16,
            self.erase: 16,
            self.start_collector: 9,
            self.start_mover: 7,
            self.start_late_mover: 4,
            self.start_reader: 4,
            self.move_all: 7,
            self.collect_all: 7,
            self.delete: 1,
            self.expire: 1,
        }

    async def tell(self) -> None:
        """A whole story, to the end of all that was begun."""
        await self.write()
        for _ in range(STEPS):
            (deed,) = self.chance.choices(list(self.deeds), list(self.deeds.values()))
            await deed()
            await self._check_that_nothing_is_missing()
        if self.chance.random() < 0.3:
            await self.delete_store()
        while self.actors:
            await self.step()
            await self._check_that_nothing_is_missing()
        if not self.is_deleted:
            await self.move_all()
            assert await self.parts.check() == []
            await self.delete_store()
            await self.actors[0].finish()
        await self.parts.storage.database.transact(lambda transaction: transaction.execute(END_CLAIMS, {}))
        await self.parts.collector().collect()
        assert await self._remains() == (0, 0, 0), "what was erased is still somewhere"

    # Requests. The database serialises them, so each is done before the next begins.

    async def write(self) -> None:
        path = self.chance.choice(("/1", "/2"))
        content = self.chance.choice(("same", "same", "same", "same", "other", f"only once {len(self.written)}"))
        await self._write(path, content)

    async def _write(self, path: str, content: str) -> None:
        head = self.heads.get(path)
        if head is not None and head.content == content:
            return
        self.told.append(f"write {content!r} to {path}")
        if head is None:
            self.heads[path] = await self.parts.create(self.store_id, content, path)
        else:
            self.past.append(head)
            self.heads[path] = await self.parts.update(head, content)
        self.written.append(self.heads[path])

    async def erase(self) -> None:
        """Redact every version of one content, after something else was written over it."""
        content = self.chance.choice(("same", "same", self.chance.choice(self.written).content))
        for path, head in list(self.heads.items()):
            if head.content == content:
                await self._write(path, f"after version {len(self.written)}")
        self.told.append(f"redact every {content!r}")
        for version in [version for version in self.past if version.content == content]:
            self.past.remove(version)
            await self.parts.redact(version)

    async def delete(self) -> None:
        if self.heads:
            path = self.chance.choice(sorted(self.heads))
            self.told.append(f"delete {path}")
            await self.parts.delete(self.heads[path])
            self.past.append(self.heads.pop(path))

    async def expire(self) -> None:
        self.told.append("expire")
        await self.parts.retention(days=0, keep=1).expire()
        self.past.clear()

    async def delete_store(self) -> None:
        self.is_deleted = True
        self.told.append("delete the store")
        await self.parts.stores.delete(self.parts.caller, self.store_id)
        self._start("purger", lambda blobs: self.parts.purger(blobs).purge())

    async def move_all(self) -> None:
        self.told.append("move all")
        await self.parts.move_all()

    async def collect_all(self) -> None:
        self.told.append("collect all")
        await self.parts.collector().collect()

    # What is at work meanwhile

    def _start(self, name: str, work: Callable[[BlobStore], Awaitable[Any]]) -> None:
        name = f"{name} {len(self.told)}"
        self.told.append(f"start {name}")
        self.actors.append(Actor(name, work, self.parts.blobs))

    async def start_mover(self) -> None:
        """The mover of the process that wrote it, perhaps much later."""
        if len(self.actors) < ACTORS:
            version = self.chance.choice(self.written[-4:])
            self._start(f"mover of {version.content!r}", lambda blobs: self.parts.mover(blobs).move([version.staged]))

    async def start_late_mover(self) -> None:
        if len(self.actors) < ACTORS:
            self._start("mover", lambda blobs: self.parts.mover(blobs).move_left_behind(all_ages=True))

    async def start_collector(self) -> None:
        if len(self.actors) < ACTORS:
            self._start("collector", lambda blobs: self.parts.collector(blobs).collect())

    async def start_reader(self) -> None:
        if len(self.actors) < ACTORS:
            self._start("reader", self._read)

    async def _read(self, blobs: BlobStore) -> None:
        filters = VersionFilters()
        versions = Versions(_Reading(self.parts, blobs))  # type: ignore[arg-type]
        try:
            await versions.list_page(self.parts.caller, self.store_id, filters, with_content=True, limit=20, page=None)
        except NotFound:
            assert self.is_deleted, "the store is there, and so are its versions"

    async def step(self) -> None:
        if self.actors:
            actor = self.chance.choice(self.actors)
            self.told.append(f"  {actor.name} goes on")
            if not await actor.step():
                self.told.append(f"  {actor.name} is done")
                self.actors.remove(actor)

    # What must hold

    async def _check_that_nothing_is_missing(self) -> None:
        if self.is_deleted:
            return
        rows = await self.parts.storage.database.fetch_all(UNSTAGED, {"store_id": self.store_id})
        if rows:
            contents = [(self.store_id, bytes(row["content_sha256"])) for row in rows]
            assert None not in await self.parts.blobs.get_many(contents), "content is neither staged nor a blob"

    async def _remains(self) -> tuple[int, int, int]:
        """How many contents are staged, condemned, in the blob store."""
        row = await self.parts.storage.database.fetch_one(REMAINS, {})
        assert row is not None
        return row["staged"], row["condemned"], len(await self.parts.blobs.list_store(self.store_id))


class _Reading:
    """The part of a `Storage` that a reader needs, with its own view on the blob store and nothing cached."""

    def __init__(self, parts: Parts, blobs: BlobStore) -> None:
        self.database = parts.storage.database
        self.contents = Contents(blobs, ContentCache(0))


@repeats
def test_no_order_of_writing_moving_erasing_and_reading_loses_content_or_keeps_what_was_erased(
    backend: Backend, environment: dict[str, str]
) -> None:
    async def tell(seed: int) -> None:
        async with opened(environment) as parts:
            story = Story(parts, await parts.store(), seed)
            try:
                await story.tell()
            except Exception as error:
                error.add_note("\n".join([f"The story of seed {seed}:", *story.told]))
                raise

    for seed in range(STORIES.get(backend.name, STORIES_ELSEWHERE)):
        asyncio.run(tell(seed))


def test_a_removal_that_comes_late_takes_no_content_that_came_back(environment: dict[str, str]) -> None:
    """Two collectors, of which the first is slow: its removal was decided before the content came back twice."""

    async def main() -> None:
        async with opened(environment) as parts:
            past = await parts.create_past("secret")
            await parts.move_all()
            await parts.redact(past)
            slow = Actor("slow collector", lambda blobs: parts.collector(blobs).collect(), parts.blobs)
            await slow.step()
            await slow.step()
            again = await parts.create_past("secret", path="/again.md", store_id=past.store_id)
            await parts.redact(again)
            await parts.collector().collect()
            kept = await parts.create(past.store_id, "secret", "/kept.md")
            await parts.move_all()
            await slow.finish()
            assert await parts.read(kept) == "secret"
            await parts.move_all()
            assert await parts.check() == []

    asyncio.run(main())


def test_a_reader_outruns_every_erasure_that_overtakes_it(environment: dict[str, str]) -> None:
    """Each time it fetches the contents, one of them has just been erased: it reads the rows again, and succeeds."""

    async def main() -> None:
        async with opened(environment) as parts:
            store_id = await parts.store()
            doomed = [await parts.create_past(f"secret {n}", path=f"/{n}", store_id=store_id) for n in range(4)]
            await parts.move_all()

            async def read(blobs: BlobStore) -> None:
                versions = Versions(_Reading(parts, blobs))  # type: ignore[arg-type]
                found, _ = await versions.list_page(
                    parts.caller, store_id, VersionFilters(), with_content=True, limit=20, page=None
                )
                assert len(found) == 2 * len(doomed)

            reader = Actor("reader", read, parts.blobs)
            await reader.step()
            for version in doomed:
                await reader.step()
                await parts.redact(version)
                await parts.collector().collect()
                await reader.step()
            await reader.finish()

    asyncio.run(main())


def test_a_store_purged_while_its_contents_are_collected_leaves_nothing(environment: dict[str, str]) -> None:
    """Two processes remove the same blobs: what one finds gone must not end its work on the others."""

    async def main() -> None:
        async with opened(environment) as parts:
            for _ in range(10):
                store_id = await parts.store()
                past = [await parts.create_past(f"secret {n}", path=f"/{n}", store_id=store_id) for n in range(25)]
                await parts.move_all()
                for version in past:
                    await parts.redact(version)
                await parts.stores.delete(parts.caller, store_id)
                await asyncio.gather(parts.collector().collect(), parts.purger().purge(), parts.purger().purge())
                assert await parts.blobs.list_store(store_id) == []
                assert await parts.check() == []

    asyncio.run(main())
