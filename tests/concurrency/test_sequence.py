"""The per-store sequence number, as a follower of the database sees it: no gap, and committed in order."""

import asyncio
import random

from tests.concurrency.fleet import Agent, Crew, Fleet, Rows, accepted, refusal, together
from tests.concurrency.history import check_history
from tests.contract.shapes import PATH_CONFLICT

WRITES = 40


async def follow(rows: Rows, store_id: str, done: asyncio.Event) -> tuple[int, int]:
    """Poll for what is newer than the last seen, as a change feed does; what was seen, in how many steps."""
    last = steps = 0
    while True:
        was_done = done.is_set()
        new = await rows.fetch(
            f"SELECT seq FROM memory_versions WHERE store_id = '{store_id}' AND seq > {last} ORDER BY seq"
        )
        assert [seq for (seq,) in new] == list(range(last + 1, last + 1 + len(new)))
        last += len(new)
        steps += bool(new)
        if was_done:
            return last, steps
        await asyncio.sleep(0)


async def write(agent: Agent, number: int, store_id: str, versions: list[str]) -> None:
    """Some of everything that makes versions; `versions` gets the ID of each as it is acknowledged."""
    chance = random.Random(number)
    mine: list[str] = []
    for turn in range(WRITES):
        deed = chance.choice(("create", "content", "path", "both", "delete")) if mine else "create"
        changes = {"content": f"{number}.{turn}", "path": f"/{chance.randrange(30)}/{number}"}
        if deed == "create":
            answer = await agent.create(store_id, changes["path"], changes["content"])
        elif deed == "delete":
            accepted(await agent.delete(store_id, mine.pop()))
            continue
        else:
            wanted = {key: value for key, value in changes.items() if deed in (key, "both")}
            answer = await agent.update(store_id, mine[-1], **wanted)
        if refusal(answer) is None:
            memory = accepted(answer)
            versions.append(memory["memory_version_id"])
            if deed == "create":
                mine.append(memory["id"])
        else:
            assert refusal(answer) == PATH_CONFLICT


def test_a_follower_of_the_sequence_sees_every_version_once_and_in_order(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        done = asyncio.Event()
        versions: list[list[str]] = [[] for _ in crew.agents]

        async def write_all() -> None:
            await together(write(agent, number, crew.store_id, versions[number]) for number, agent in crew.numbered)
            done.set()

        async with fleet.rows() as second:
            followers = (follow(rows, crew.store_id, done) for rows in (crew.rows, second))
            _, seen = await asyncio.gather(write_all(), together(followers))
        history = await check_history(crew.rows, crew.store_id)
        assert [last for last, _ in seen] == [len(history.versions)] * 2
        assert all(steps > 5 for _, steps in seen), "the followers read while the writers wrote"
        # A client's versions come in the order in which it was answered.
        seq_of = {version.id: version.seq for version in history.versions}
        for mine in versions:
            numbers = [seq_of[version_id] for version_id in dict.fromkeys(mine)]
            assert numbers == sorted(numbers)

    fleet.run(story, agents=8)


def test_what_was_acknowledged_by_one_server_is_read_from_another_at_once(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        writer, *readers = crew.agents
        memory = accepted(await writer.create(crew.store_id, "/m", "0"))
        for turn in range(1, 25):
            written = accepted(await writer.update(crew.store_id, memory["id"], content=str(turn)))
            answers = await together(reader.retrieve(crew.store_id, memory["id"]) for reader in readers)
            assert [accepted(answer)["content"] for answer in answers] == [str(turn)] * len(readers)
            (newest,) = [page[0] async for page in readers[0].pages(crew.store_id, "memory_versions", limit=100)]
            assert newest["id"] == written["memory_version_id"]

    fleet.run(story, agents=6)
