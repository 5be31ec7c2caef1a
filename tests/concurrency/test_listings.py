"""A listing that pages while others write: what nobody touches is in it, once, in its place."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.concurrency.fleet import Agent, Crew, Fleet, Item, accepted, refusal, together
from tests.concurrency.history import check_history
from tests.contract.shapes import PATH_CONFLICT, sha256

DIRECTORIES = ("/a/", "/a!/", "/a/b/", "/a0/", "/b/c/d/", "/z/")
"""In byte order `!` < `/` < `0`: names that a careless end of a directory would take in or leave out."""
LISTINGS = 4


def path_order(paths: Sequence[str]) -> list[str]:
    return sorted(paths, key=str.encode)


UNTOUCHED = path_order([f"{directory}untouched {n}" for directory in DIRECTORIES for n in range(5)] + ["/m", "/~"])
"""Each directory has some, so every roll-up is untouched too."""


def rolled_up(prefix: str) -> list[str]:
    """What a listing with depth 1 shows of the untouched memories."""
    below = [path.removeprefix(prefix).partition("/") for path in UNTOUCHED if path.startswith(prefix)]
    return path_order(list({prefix + name + slash for name, slash, _ in below}))


async def churn(crew: Crew, number: int, done: asyncio.Event) -> int:
    """Create, update, rename and delete, all around the untouched memories; how many changes there were."""
    agent, chance, mine, changes = crew.agents[number], random.Random(number), list[str](), 0
    while not done.is_set():
        path = f"{chance.choice(DIRECTORIES)}{chance.choice('0tuv')} {number} {chance.randrange(4)}"
        path += chance.choice(("", "", "/below"))
        deed = chance.choice(("create", "content", "rename", "delete")) if len(mine) > 2 else "create"
        if deed == "create" and len(mine) < 8:
            answer = await agent.create(crew.store_id, path, f"{changes}")
            if refusal(answer) is None:
                mine.append(accepted(answer)["id"])
        elif deed == "delete":
            answer = await agent.delete(crew.store_id, mine.pop(chance.randrange(len(mine))))
        elif deed == "rename":
            answer = await agent.update(crew.store_id, chance.choice(mine), path=path)
        else:
            answer = await agent.update(crew.store_id, chance.choice(mine), content=f"{changes}")
        assert refusal(answer) in (None, PATH_CONFLICT)
        changes += 1
    return changes


def list_while_others_write(fleet: Fleet, check: Callable[[Agent, str], Awaitable[None]]) -> None:
    """Run `check` on a store whose untouched memories are there, and whose others never rest."""

    async def story(crew: Crew) -> None:
        for path in UNTOUCHED:
            accepted(await crew.agents[0].create(crew.store_id, path, f"content of {path}"))
        done = asyncio.Event()
        readers, first_writer = crew.agents[:2], 2

        async def check_all() -> None:
            try:
                await together(check(reader, crew.store_id) for reader in readers)
            finally:
                done.set()

        writers = range(first_writer, len(crew.agents))
        _, *changes = await asyncio.gather(check_all(), *(churn(crew, number, done) for number in writers))
        assert all(changes), "every writer wrote meanwhile"
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=6)


def check_ascending(items: list[Item]) -> None:
    paths = [item["path"] for item in items]
    assert all(first.encode() < second.encode() for first, second in itertools.pairwise(paths)), paths


@pytest.mark.parametrize("limit", [1, 3, 20, 100])
def test_a_listing_neither_repeats_nor_drops_an_untouched_memory_while_others_write(fleet: Fleet, limit: int) -> None:
    async def check(agent: Agent, store_id: str) -> None:
        for _ in range(1 if limit == 1 else LISTINGS):
            items = await agent.memories(store_id, limit=limit)
            check_ascending(items)
            assert [item["path"] for item in items if item["path"] in UNTOUCHED] == UNTOUCHED

    list_while_others_write(fleet, check)


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_a_rolled_up_listing_neither_repeats_nor_drops_an_untouched_entry_while_others_write(
    fleet: Fleet, limit: int
) -> None:
    async def check(agent: Agent, store_id: str) -> None:
        for prefix in ("/", "/a/", "/a/b/", "/b/", "/z/") * (1 if limit == 1 else LISTINGS // 2):
            items = await agent.memories(store_id, limit=limit, depth=1, path_prefix=prefix)
            check_ascending(items)
            expected = rolled_up(prefix)
            assert [item["path"] for item in items if item["path"] in expected] == expected
            for item in items:
                assert item["type"] == ("memory_prefix" if item["path"].endswith("/") else "memory")

    list_while_others_write(fleet, check)


def test_a_full_listing_gives_each_memory_with_its_own_content_while_others_write(fleet: Fleet) -> None:
    async def check(agent: Agent, store_id: str) -> None:
        for _ in range(LISTINGS):
            items = await agent.memories(store_id, limit=20, view="full")
            check_ascending(items)
            for item in items:
                assert sha256(item["content"]) == item["content_sha256"]
            untouched = [(item["path"], item["content"]) for item in items if item["path"] in UNTOUCHED]
            assert untouched == [(path, f"content of {path}") for path in UNTOUCHED]

    list_while_others_write(fleet, check)


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_listing_of_versions_neither_repeats_nor_drops_one_that_was_there_before(fleet: Fleet, limit: int) -> None:
    async def check(agent: Agent, store_id: str) -> None:
        before = [version["id"] for version in await agent.versions(store_id)]
        for _ in range(1 if limit == 1 else LISTINGS):
            after = [version["id"] for version in await agent.versions(store_id, limit=limit)]
            assert len(after) == len(set(after))
            assert after[-len(before) :] == before, "newest first, so what came meanwhile comes before"
            before = after

    list_while_others_write(fleet, check)
