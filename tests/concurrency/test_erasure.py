"""Servers under load that erase all the time: readers get every content that is there, and nothing is left over."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.concurrency.fleet import Agent, Crew, Fleet, Item, accepted, refusal, together
from tests.contract.shapes import INVALID_REQUEST, PATH_CONFLICT, sha256

WRITES = 60
CONTENTS = [f"content {number}" for number in range(4)]
PATHS = ("/1", "/2", "/3")

Deed = Callable[[Crew, Agent, random.Random], Awaitable[None]]

NOT_FOUND = "not_found_error"


async def write(crew: Crew, agent: Agent, chance: random.Random) -> None:
    """The same few contents at the same few paths, again and again: what is erased comes back at once."""
    for _ in range(WRITES):
        content = chance.choice(CONTENTS)
        memories = await agent.memories(crew.store_id)
        if len(memories) < len(PATHS) and chance.random() < 0.5:
            answer = await agent.create(crew.store_id, chance.choice(PATHS), content)
            assert refusal(answer) in (None, PATH_CONFLICT)
        elif memories:
            answer = await agent.update(crew.store_id, chance.choice(memories)["id"], content=content)
            assert refusal(answer) in (None, NOT_FOUND)


async def delete(crew: Crew, agent: Agent, chance: random.Random) -> None:
    for memory in await agent.memories(crew.store_id):
        if chance.random() < 0.2:
            assert refusal(await agent.delete(crew.store_id, memory["id"])) in (None, NOT_FOUND)


async def redact(crew: Crew, agent: Agent, chance: random.Random) -> None:
    versions = await agent.versions(crew.store_id, limit=20)
    for version in chance.sample(versions, min(5, len(versions))):
        answer = await agent.redact(crew.store_id, version["id"])
        assert refusal(answer) in (None, NOT_FOUND, INVALID_REQUEST), "expired, or the head of a memory"


async def read(crew: Crew, agent: Agent, chance: random.Random) -> None:
    memories = await agent.memories(crew.store_id, limit=20, view="full")
    versions = await agent.versions(crew.store_id, limit=20, view="full")
    for memory in memories[:2]:
        answer = await agent.retrieve(crew.store_id, memory["id"])
        if refusal(answer) is None:
            memories.append(accepted(answer))
    for version in chance.sample(versions, min(3, len(versions))):
        answer = await agent.retrieve_version(crew.store_id, version["id"])
        if refusal(answer) is None:
            versions.append(accepted(answer))
    check_contents(memories)
    check_contents([version for version in versions if version["content_sha256"] is not None])
    assert all(version["content"] is None for version in versions if version["content_sha256"] is None)


def check_contents(items: list[Item]) -> None:
    for item in items:
        assert item["content"] in CONTENTS
        assert sha256(item["content"]) == item["content_sha256"]


def test_content_written_while_it_is_erased_is_never_missed_and_nothing_erased_stays(erasing_fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        done = asyncio.Event()

        async def write_all() -> None:
            try:
                await together(write(crew, agent, random.Random(n)) for n, agent in enumerate(crew.agents[:4]))
            finally:
                done.set()

        async def meanwhile(agent: Agent, deed: Deed, chance: random.Random) -> None:
            while not done.is_set():
                await deed(crew, agent, chance)

        others = zip(crew.agents[4:], (delete, redact, redact, read, read, read), strict=True)
        deeds = (meanwhile(agent, deed, random.Random(number)) for number, (agent, deed) in enumerate(others))
        await asyncio.gather(write_all(), *deeds)
        await read(crew, crew.agents[0], random.Random())
        assert await asyncio.to_thread(erasing_fleet.fsck_until_settled) == []

    with erasing_fleet.without_complaints():
        erasing_fleet.run(story, agents=10)
