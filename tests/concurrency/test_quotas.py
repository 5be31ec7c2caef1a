"""Quotas hold exactly: to the last memory, byte and store, however many ask for it at once."""

import asyncio
import json
from collections import Counter

from tests.concurrency.fleet import Crew, Fleet, accepted, refusal, together, until
from tests.concurrency.history import check_history
from tests.concurrency.limits import MAX_MEMORIES, MAX_STORE_BYTES, MAX_STORES
from tests.contract.shapes import INVALID_REQUEST

ROUNDS = 6
ROOM = 3
"""What is left below a limit when more than that is asked for at once."""


def test_a_store_takes_memories_to_its_limit_and_not_one_more(fleet: Fleet) -> None:
    async def fill(crew: Crew, number: int) -> None:
        for index in range(number, MAX_MEMORIES - ROOM, len(crew.agents)):
            accepted(await crew.agents[number].create(crew.store_id, f"/filled/{index}", "x"))

    async def story(crew: Crew) -> None:
        await together(fill(crew, number) for number, _ in crew.numbered)
        for turn in range(ROUNDS):
            answers = await together(
                agent.create(crew.store_id, f"/more/{turn}/{number}", "x") for number, agent in crew.numbered
            )
            assert Counter(map(refusal, answers)) == {None: ROOM, INVALID_REQUEST: len(answers) - ROOM}
            assert (await crew.rows.counters(crew.store_id))["real_count"] == MAX_MEMORIES
            for memory in map(accepted, (answer for answer in answers if refusal(answer) is None)):
                accepted(await crew.agents[turn % 2].delete(crew.store_id, memory["id"]))
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=10)


def test_a_store_takes_bytes_to_its_limit_and_not_one_more(fleet: Fleet) -> None:
    """By creations and by updates that grow: both meet the one limit."""
    size = 1_000

    async def story(crew: Crew) -> None:
        filled = MAX_STORE_BYTES - (len(crew.agents) // 2) - ROOM * size
        first = accepted(await crew.agents[0].create(crew.store_id, "/filled", "x" * filled))
        small = [
            accepted(await crew.agents[0].create(crew.store_id, f"/small/{number}", "x"))
            for number in range(len(crew.agents) // 2)
        ]
        assert (await crew.rows.counters(crew.store_id))["real_bytes"] == MAX_STORE_BYTES - ROOM * size
        for turn in range(ROUNDS):
            answers = await together(
                agent.create(crew.store_id, f"/more/{turn}/{number}", "x" * size)
                if number % 2
                else agent.update(crew.store_id, small[number // 2]["id"], content=f"{turn}".ljust(size + 1, "x"))
                for number, agent in crew.numbered
            )
            assert Counter(map(refusal, answers)) == {None: ROOM, INVALID_REQUEST: len(answers) - ROOM}
            assert (await crew.rows.counters(crew.store_id))["real_bytes"] == MAX_STORE_BYTES
            await _give_back(crew, [memory["id"] for memory in small], keep=first["id"])
        await check_history(crew.rows, crew.store_id)

    async def _give_back(crew: Crew, small: list[str], *, keep: str) -> None:
        for memory in await crew.agents[1].memories(crew.store_id):
            if memory["id"] in small:
                accepted(await crew.agents[1].update(crew.store_id, memory["id"], content="x"))
            elif memory["id"] != keep:
                accepted(await crew.agents[1].delete(crew.store_id, memory["id"]))

    fleet.run(story, agents=10)


def test_a_workspace_takes_stores_to_its_limit_and_not_one_more(fleet: Fleet) -> None:
    printed = json.loads(fleet.servers[0].cli("keys", "create", "--workspace", "crowded", "--json").stdout)
    count = f"SELECT store_count FROM workspaces WHERE id = '{printed['workspace_id']}'"

    async def main() -> None:
        async with fleet.agents(10, api_key=printed["secret"]) as agents, fleet.rows() as rows:
            made = [accepted(await agents[0].make_store(f"filled {n}"))["id"] for n in range(MAX_STORES - ROOM)]
            for turn in range(ROUNDS):
                answers = await together(agent.make_store(f"round {turn}") for agent in agents)
                assert Counter(map(refusal, answers)) == {None: ROOM, INVALID_REQUEST: len(agents) - ROOM}
                assert await rows.value(count) == MAX_STORES
                new = [accepted(answer)["id"] for answer in answers if refusal(answer) is None]
                # Two clients delete each: only one deletion may give room back.
                deletions = [agent.delete_store(store_id) for agent in agents[:2] for store_id in new]
                assert Counter(map(refusal, await together(deletions))) == {None: ROOM, "not_found_error": ROOM}
                assert await rows.value(count) == MAX_STORES - ROOM
            await together(agents[0].delete_store(store_id) for store_id in made)
            assert await rows.value(count) == 0

    asyncio.run(main())


def test_archiving_at_once_with_writes_lets_none_in_afterwards(fleet: Fleet) -> None:
    """When the archiving is acknowledged, the store's history has ended."""

    async def write(crew: Crew, number: int, memory_id: str) -> None:
        turn = 0
        while True:
            turn += 1
            answer = await (
                crew.agents[number].update(crew.store_id, memory_id, content=f"{number}.{turn}")
                if turn % 2
                else crew.agents[number].create(crew.store_id, f"/{number}/{turn}", "x")
            )
            if refusal(answer) is not None:
                assert refusal(answer) == INVALID_REQUEST
                return

    async def archive(crew: Crew) -> int:
        async def is_busy() -> bool:
            return (await crew.rows.counters(crew.store_id))["last_seq"] > 20

        await until(is_busy)
        accepted(await crew.agents[0].archive_store(crew.store_id))
        return (await crew.rows.counters(crew.store_id))["last_seq"]

    async def story(crew: Crew) -> None:
        memory = accepted(await crew.agents[0].create(crew.store_id, "/m", "m"))
        writers = (write(crew, number, memory["id"]) for number in range(1, len(crew.agents)))
        last, *_ = await asyncio.gather(archive(crew), *writers)
        history = await check_history(crew.rows, crew.store_id)
        assert len(history.versions) == last

    fleet.run(story, agents=7)
