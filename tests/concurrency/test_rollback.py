"""Rollbacks and restores while many clients write: exact numbers, exact counters, and always one whole state."""

import asyncio
import random

from tests.concurrency.fleet import Agent, Crew, Fleet, Item, accepted, refusal, together
from tests.concurrency.history import check_history
from tests.contract.shapes import PATH_CONFLICT

WRITES = 25
ROLLBACKS = 6
MEMORIES = 12


async def write(agent: Agent, number: int, store_id: str) -> None:
    """Some of everything, on memories that everybody changes; what is gone or in the way is no defect."""
    chance = random.Random(number)
    for turn in range(WRITES):
        listed = await agent.memories(store_id)
        deed = chance.choice(("create", "content", "path", "delete", "restore")) if listed else "create"
        path = f"/{chance.randrange(30)}"
        memory_id = chance.choice(listed)["id"] if listed else ""
        if deed == "create":
            answer = await agent.create(store_id, path, f"{number}.{turn}")
        elif deed == "content":
            answer = await agent.update(store_id, memory_id, content=f"{number}.{turn}")
        elif deed == "path":
            answer = await agent.update(store_id, memory_id, path=path)
        elif deed == "delete":
            answer = await agent.delete(store_id, memory_id)
        else:
            versions = accepted(await agent.call("GET", f"/{store_id}/memory_versions", params={"limit": 50}))["data"]
            version = chance.choice([item for item in versions if item["operation"] != "deleted"])
            answer = await agent.call("POST", f"/{store_id}/memory_versions/{version['id']}/restore")
        assert refusal(answer) in (None, PATH_CONFLICT, "not_found_error"), answer.text


async def roll_back(agent: Agent, store_id: str, seq: int) -> Item:
    return accepted(await agent.call("POST", f"/{store_id}/rollback", json={"seq": seq}))


def state(versions: list[Item]) -> dict[str, tuple[str, str]]:
    """Path and digest by memory, after some versions in their order."""
    found: dict[str, tuple[str, str]] = {}
    for version in versions:
        if version["operation"] == "deleted":
            del found[version["memory_id"]]
        else:
            found[version["memory_id"]] = (version["path"], version["content_sha256"])
    return found


def test_a_rollback_under_writers_is_one_whole_step(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        *writers, undoer = crew.agents
        for number in range(MEMORIES):
            accepted(await undoer.create(crew.store_id, f"/{number}", str(number)))
        done = []

        async def undo() -> None:
            for _ in range(ROLLBACKS):
                done.append(await roll_back(undoer, crew.store_id, MEMORIES))
                await asyncio.sleep(0)

        work = [write(agent, number, crew.store_id) for number, agent in enumerate(writers)]
        await together([*work, undo()])
        await check_history(crew.rows, crew.store_id)
        versions = (await undoer.versions(crew.store_id))[::-1]
        begun = state(versions[:MEMORIES])
        assert any(rollback["changes"] for rollback in done), "the writers wrote meanwhile"
        for rollback in done:
            # Its versions follow each other, nobody's in between, and after the last the store is as it was.
            ids = [change["memory_version_id"] for change in rollback["changes"]]
            end = rollback["last_seq"]
            assert [version["id"] for version in versions[end - len(ids) : end]] == ids
            assert state(versions[:end]) == begun
        counters = await crew.rows.counters(crew.store_id)
        assert counters["last_seq"] == len(versions)
        assert counters["memory_count"] == counters["real_count"] == len(state(versions))
        assert counters["total_bytes"] == counters["real_bytes"]

    with fleet.without_complaints():
        fleet.run(story, agents=6)
    assert fleet.fsck_until_settled() == []


def test_rollbacks_of_several_clients_at_once_come_one_after_the_other(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        first, *_ = crew.agents
        for number in range(MEMORIES):
            accepted(await first.create(crew.store_id, f"/{number}", str(number)))
        answers = await together(roll_back(agent, crew.store_id, number) for number, agent in enumerate(crew.agents, 1))
        versions = (await first.versions(crew.store_id))[::-1]
        for answer in answers:
            assert state(versions[: answer["last_seq"]]) == state(versions[: answer["seq"]])
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=8)


def test_one_deleted_memory_comes_back_once(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        first, *_ = crew.agents
        for turn in range(5):
            memory = accepted(await first.create(crew.store_id, f"/{turn}", "text"))
            accepted(await first.delete(crew.store_id, memory["id"]))
            url = f"/{crew.store_id}/memory_versions/{memory['memory_version_id']}/restore"
            answers = await together(agent.call("POST", url) for agent in crew.agents)
            assert len({accepted(answer)["memory_version_id"] for answer in answers}) == 1
            assert {accepted(answer)["id"] for answer in answers} == {memory["id"]}
        assert (await crew.rows.counters(crew.store_id))["last_seq"] == 15
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=6)
