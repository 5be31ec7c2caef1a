"""Writers, movers, collectors and readers of the same few contents, in every order that Hypothesis thinks of.

What servers do at once is here done by actors that stand still around each of their steps at the blob store, so
that anything can happen in between; the order is drawn, and a failure can be told again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from app.contract.errors import NotFound
from app.storage.blobs import BlobStore
from app.storage.contents import ContentCache, Contents
from app.storage.statements import Statement
from app.versions.service import VersionFilters, Versions
from tests.concurrency.actors import Actor
from tests.storage.parts import Parts, Written, opened

T = TypeVar("T")

CONTENTS = st.sampled_from(["same", "other"])
SLOTS = st.sampled_from(["/1", "/2"])

# A failure is told as it was found: making it shorter can take longer than a test may.
SETTINGS = settings(max_examples=30, stateful_step_count=30, phases=(Phase.generate,))

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


class ErasureStory(RuleBasedStateMachine):
    """One store. `run` drives the event loop in which everything lives."""

    environment: dict[str, str]
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def __init__(self) -> None:
        super().__init__()
        self.opened = opened(self.environment)
        self.parts: Parts = self.run(self.opened.__aenter__())
        self.store_id: str | None = self.run(self.parts.store())
        self.heads: dict[str, Written] = {}
        self.past: list[Written] = []
        self.written: list[Written] = []
        self.actors: list[Actor] = []

    # Requests: each is done before the next begins, since the database serialises them anyway.

    @precondition(lambda self: self.store_id)
    @rule(slot=SLOTS, content=CONTENTS)
    def write(self, slot: str, content: str) -> None:
        assert self.store_id is not None
        head = self.heads.get(slot)
        if head is not None and head.content == content:
            return
        if head is None:
            self.heads[slot] = self.run(self.parts.create(self.store_id, content, slot))
        else:
            self.past.append(head)
            self.heads[slot] = self.run(self.parts.update(head, content))
        self.written.append(self.heads[slot])

    @precondition(lambda self: self.store_id and self.heads)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        head = self.heads.pop(data.draw(st.sampled_from(sorted(self.heads))))
        self.run(self.parts.delete(head))
        self.past.append(head)

    @precondition(lambda self: self.store_id and self.written)
    @rule(content=CONTENTS)
    def erase(self, content: str) -> None:
        """Of every version that has this content."""
        for slot, head in list(self.heads.items()):
            if head.content == content:
                self.write(slot, f"what came after version {len(self.written)}")
        for version in [version for version in self.past if version.content == content]:
            self.past.remove(version)
            self.run(self.parts.redact(version))

    @precondition(lambda self: self.store_id and self.past)
    @rule()
    def expire(self) -> None:
        self.run(self.parts.retention(days=0, keep=1).expire())
        self.past.clear()

    @precondition(lambda self: self.store_id and len(self.written) > 5)
    @rule()
    def delete_store(self) -> None:
        self.run(self.parts.stores.delete(self.parts.caller, self.store_id))
        self.store_id = None
        self._start("purger", lambda blobs: self.parts.purger(blobs).purge())

    # What goes on meanwhile

    def _start(self, name: str, work: Callable[[BlobStore], Coroutine[Any, Any, object]]) -> None:
        async def start() -> Actor:
            return Actor(f"{name} {len(self.written)}", work, self.parts.blobs)

        self.actors.append(self.run(start()))

    @precondition(lambda self: self.written and len(self.actors) < 4)
    @rule(data=st.data())
    def start_mover(self, data: st.DataObject) -> None:
        """The mover of the process that wrote it, perhaps much later."""
        version = data.draw(st.sampled_from(self.written[-3:]))
        self._start("mover", lambda blobs: self.parts.mover(blobs).move([version.staged]))

    @precondition(lambda self: self.written and len(self.actors) < 4)
    @rule()
    def start_mover_of_what_was_left_behind(self) -> None:
        self._start("late mover", lambda blobs: self.parts.mover(blobs).move_left_behind(all_ages=True))

    @precondition(lambda self: self.written and len(self.actors) < 4)
    @rule()
    def start_collector(self) -> None:
        self._start("collector", lambda blobs: self.parts.collector(blobs).collect())

    @precondition(lambda self: self.written)
    @rule()
    def move_all(self) -> None:
        self.run(self.parts.move_all())
        self._check_that_nothing_is_missing()

    @precondition(lambda self: self.written)
    @rule()
    def collect_all(self) -> None:
        self.run(self.parts.collector().collect())
        self._check_that_nothing_is_missing()

    @precondition(lambda self: self.store_id and self.written and len(self.actors) < 4)
    @rule()
    def start_reader(self) -> None:
        store_id = self.store_id
        assert store_id is not None

        async def read(blobs: BlobStore) -> None:
            storage = _Reading(self.parts, blobs)
            try:
                await Versions(storage).list_page(  # type: ignore[arg-type]
                    self.parts.caller, store_id, VersionFilters(), with_content=True, limit=20, page=None
                )
            except NotFound:
                assert self.store_id is None, "the store is there, and so are its versions"

        self._start("reader", read)

    @precondition(lambda self: self.actors)
    @rule(data=st.data(), steps=st.integers(1, 6))
    def step(self, data: st.DataObject, steps: int) -> None:
        actor = data.draw(st.sampled_from(self.actors))
        for _ in range(steps):
            if not self.run(actor.step()):
                self.actors.remove(actor)
                break
        self._check_that_nothing_is_missing()

    async def _missing(self) -> list[bytes]:
        """The digests of what a version has, the stage has not, and the blob store has not either."""
        rows = await self.parts.storage.database.fetch_all(UNSTAGED, {"store_id": self.store_id})
        if not rows:
            return []
        unstaged = [(row["store_id"], bytes(row["content_sha256"])) for row in rows]
        found = await self.parts.blobs.get_many(unstaged)
        return [digest for (_, digest), content in zip(unstaged, found, strict=True) if content is None]

    def _check_that_nothing_is_missing(self) -> None:
        if self.store_id is not None:
            assert self.run(self._missing()) == []

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            self.run(self.opened.__aexit__(None, None, None))

    def _end(self) -> None:
        """All is done that was begun: then content is where it should be, and nothing else is anywhere."""
        for actor in self.actors:
            self.run(actor.finish())
        self._check_that_nothing_is_missing()
        if self.store_id is not None:
            self.run(self.parts.move_all())
            assert self.run(self.parts.check()) == []
            self.run(self.parts.stores.delete(self.parts.caller, self.store_id))
        self.run(self.parts.purger().purge())
        self.run(self._end_claims())
        self.run(self.parts.collector().collect())
        assert self.run(self._remains()) == (0, 0, 0)

    async def _end_claims(self) -> None:
        """As if so much time had passed that a collector that claimed something must be gone."""
        await self.parts.storage.database.transact(lambda transaction: transaction.execute(END_CLAIMS, {}))

    async def _remains(self) -> tuple[int, int, int]:
        """How many contents are staged, condemned, in the blob store."""
        row = await self.parts.storage.database.fetch_one(REMAINS, {})
        assert row is not None
        store_ids = await self.parts.blobs.list_store_ids()
        blobs = [blob for store_id in store_ids for blob in await self.parts.blobs.list_store(store_id)]
        return row["staged"], row["condemned"], len(blobs)


class _Reading:
    """The part of a `Storage` that a reader needs, with its own view on the blob store and nothing cached."""

    def __init__(self, parts: Parts, blobs: BlobStore) -> None:
        self.database = parts.storage.database
        self.contents = Contents(blobs, ContentCache(0))


def test_a_removal_that_comes_late_takes_no_content_that_came_back(environment: dict[str, str]) -> None:
    """Two collectors, of which the first is slow: its removal was decided before the content came back twice."""

    async def main() -> None:
        async with opened(environment) as parts:
            past = await parts.create_past("secret")
            await parts.move_all()
            await parts.redact(past)
            slow = Actor("slow collector", lambda blobs: parts.collector(blobs).collect(), parts.blobs)
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


def test_no_order_of_writing_moving_erasing_and_reading_loses_content_or_keeps_erased_content(
    environment: dict[str, str],
) -> None:
    settings_of_environment = environment
    with asyncio.Runner() as runner:

        class Story(ErasureStory):
            environment = settings_of_environment
            run = staticmethod(runner.run)

        run_state_machine_as_test(Story, settings=SETTINGS)
