"""A path is used once, and is a memory or a directory: whatever is created or renamed at the same time."""

import random
from collections import Counter

import httpx2

from tests.concurrency.fleet import Crew, Fleet, Item, accepted, refusal, together
from tests.concurrency.history import check_history, conflicts
from tests.contract.shapes import PATH_CONFLICT

ROUNDS = 12
CLASHING = ("", "", "/b", "/b", "/b/c", "/b/c", "/b/d", "/e")
"""Paths below one directory of which most can't be beside each other."""


def check_round(wanted: list[str], answers: list[httpx2.Response], existing: list[str]) -> None:
    """Of the paths wanted at once, those that exist now are those accepted; the others met one of them."""
    won = [path for path, answer in zip(wanted, answers, strict=True) if refusal(answer) is None]
    assert sorted(won) == sorted(existing)
    assert won, "at least the first one had nothing in its way"
    for path, answer in zip(wanted, answers, strict=True):
        if refusal(answer) is None:
            continue
        assert refusal(answer) == PATH_CONFLICT
        in_the_way = answer.json()["error"]["conflicting_path"]
        assert in_the_way in won
        assert conflicts(path, in_the_way)


async def paths_below(crew: Crew, prefix: str) -> list[str]:
    return [memory["path"] for memory in await crew.agents[0].memories(crew.store_id, path_prefix=prefix)]


def test_of_clashing_paths_created_at_once_only_lawful_ones_come_to_exist(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        order = random.Random(1)
        for turn in range(ROUNDS):
            wanted = [f"/{turn}/a{end}" for end in CLASHING]
            order.shuffle(wanted)
            answers = await together(
                agent.create(crew.store_id, wanted[number], "x" * number) for number, agent in crew.numbered
            )
            check_round(wanted, answers, await paths_below(crew, f"/{turn}/"))
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=len(CLASHING))


def test_of_clashing_paths_taken_by_renames_at_once_only_lawful_ones_come_to_exist(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        order = random.Random(2)
        sources: list[Item] = [
            accepted(await crew.agents[0].create(crew.store_id, f"/source/{number}", str(number)))
            for number in range(len(CLASHING))
        ]
        for turn in range(ROUNDS):
            wanted = [f"/{turn}/a{end}" for end in CLASHING]
            order.shuffle(wanted)
            answers = await together(
                agent.update(
                    crew.store_id,
                    sources[number]["id"],
                    path=wanted[number],
                    **({"content": f"{number} in round {turn}"} if number % 2 else {}),
                )
                for number, agent in crew.numbered
            )
            check_round(wanted, answers, await paths_below(crew, f"/{turn}/"))
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=len(CLASHING))


def test_creations_renames_and_deletions_at_once_never_let_a_file_be_a_directory(fleet: Fleet) -> None:
    """Deletions make room while others ask for it, so what is in the way comes and goes."""

    async def churn(crew: Crew, number: int) -> None:
        chance = random.Random(number)
        agent = crew.agents[number]
        mine: list[str] = []
        for turn in range(30):
            path = "/" + "/".join(chance.choices("ab", k=chance.randint(1, 3)))
            if mine and chance.random() < 0.4:
                await agent.delete(crew.store_id, mine.pop())
            elif mine and chance.random() < 0.4:
                answer = await agent.update(crew.store_id, mine[-1], path=path)
                assert refusal(answer) in (None, PATH_CONFLICT)
            else:
                answer = await agent.create(crew.store_id, path, f"{number}.{turn}")
                assert refusal(answer) in (None, PATH_CONFLICT)
                if refusal(answer) is None:
                    mine.append(accepted(answer)["id"])

    async def story(crew: Crew) -> None:
        await together(churn(crew, number) for number, _ in crew.numbered)
        history = await check_history(crew.rows, crew.store_id)
        assert len(history.versions) > len(crew.agents), "the clients got in each other's way, but not always"

    fleet.run(story, agents=10)


def test_memories_that_swap_their_paths_at_once_are_all_refused(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        made = [
            accepted(await agent.create(crew.store_id, f"/{number}", str(number))) for number, agent in crew.numbered
        ]
        for distance in range(1, len(made)):
            answers = await together(
                agent.update(crew.store_id, made[number]["id"], path=f"/{(number + distance) % len(made)}")
                for number, agent in crew.numbered
            )
            assert Counter(map(refusal, answers)) == {PATH_CONFLICT: len(made)}
        assert len((await check_history(crew.rows, crew.store_id)).versions) == len(made)

    fleet.run(story, agents=6)
