"""Preconditions under fire: one winner, no lost update, and no version for a change that changed nothing."""

import itertools
from collections import Counter

from tests.concurrency.fleet import Agent, Crew, Fleet, accepted, refusal, together
from tests.concurrency.history import DELETED, MODIFIED, check_history
from tests.contract.shapes import PRECONDITION_FAILED, sha256

NOT_FOUND = "not_found_error"
ROUNDS = 15


def test_of_many_writers_with_one_precondition_exactly_one_wins_each_round(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        memory = accepted(await crew.agents[0].create(crew.store_id, "/contended", "round 0"))
        for turn in range(1, ROUNDS + 1):
            answers = await together(
                agent.update(
                    crew.store_id,
                    memory["id"],
                    content=f"round {turn} by {number}",
                    expected=memory["content_sha256"],
                )
                for number, agent in crew.numbered
            )
            outcomes = Counter(map(refusal, answers))
            assert outcomes == {None: 1, PRECONDITION_FAILED: len(crew.agents) - 1}
            winner = accepted(next(answer for answer in answers if refusal(answer) is None))
            memory = accepted(await crew.agents[turn % 2].retrieve(crew.store_id, memory["id"]))
            assert memory["memory_version_id"] == winner["memory_version_id"]
            assert memory["content_sha256"] == winner["content_sha256"]
        history = await check_history(crew.rows, crew.store_id)
        assert len(history.versions) == 1 + ROUNDS

    fleet.run(story, agents=10)


def test_an_update_and_a_deletion_with_one_precondition_never_both_happen(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        for turn in range(ROUNDS):
            memory = accepted(await crew.agents[0].create(crew.store_id, f"/{turn}", "as expected"))
            expected = memory["content_sha256"]
            answers = await together(
                agent.update(crew.store_id, memory["id"], content=f"by {number}", expected=expected)
                if number % 2
                else agent.delete(crew.store_id, memory["id"], expected=expected)
                for number, agent in crew.numbered
            )
            outcomes = Counter(map(refusal, answers))
            assert outcomes.pop(None) == 1
            assert set(outcomes) in ({NOT_FOUND}, {PRECONDITION_FAILED})
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=8)


def test_a_precondition_holds_for_the_very_content_that_a_version_replaced(fleet: Fleet) -> None:
    """Seen in the history afterwards, so however the requests came to overlap."""
    promised: dict[str, str] = {}

    async def write(agent: Agent, number: int, crew: Crew, memory_id: str) -> None:
        for turn in range(12):
            expected = accepted(await agent.retrieve(crew.store_id, memory_id))["content_sha256"]
            change = {"content": f"{number}.{turn}"} if turn % 3 else {"path": f"/{number}.{turn}"}
            answer = await agent.update(crew.store_id, memory_id, expected=expected, **change)
            if refusal(answer) is None:
                promised[accepted(answer)["memory_version_id"]] = expected
            else:
                assert refusal(answer) == PRECONDITION_FAILED

    async def story(crew: Crew) -> None:
        memory = accepted(await crew.agents[0].create(crew.store_id, "/start", "start"))
        await together(write(agent, number, crew, memory["id"]) for number, agent in crew.numbered)
        history = await check_history(crew.rows, crew.store_id)
        changes = [version for version in history.versions if version.operation == MODIFIED]
        assert {version.id: history.before(version).sha256 for version in changes} == promised

    fleet.run(story, agents=6)


def test_read_modify_update_with_retry_loses_no_update(fleet: Fleet) -> None:
    lines = 8

    async def append(agent: Agent, store_id: str, memory_id: str, line: str) -> None:
        while True:
            memory = accepted(await agent.retrieve(store_id, memory_id))
            answer = await agent.update(
                store_id, memory_id, content=memory["content"] + line + "\n", expected=memory["content_sha256"]
            )
            if refusal(answer) is None:
                return
            assert refusal(answer) == PRECONDITION_FAILED

    async def append_all(agent: Agent, number: int, store_id: str, memory_id: str) -> None:
        for turn in range(lines):
            await append(agent, store_id, memory_id, f"{number}.{turn}")

    async def story(crew: Crew) -> None:
        memory = accepted(await crew.agents[0].create(crew.store_id, "/log", ""))
        await together(append_all(agent, number, crew.store_id, memory["id"]) for number, agent in crew.numbered)
        log = accepted(await crew.agents[-1].retrieve(crew.store_id, memory["id"]))["content"]
        expected = sorted(f"{number}.{turn}" for number in range(len(crew.agents)) for turn in range(lines))
        assert sorted(log.splitlines()) == expected
        history = await check_history(crew.rows, crew.store_id)
        assert len(history.versions) == 1 + len(expected)
        versions = await crew.agents[0].versions(crew.store_id, view="full", limit=20)
        contents = [version["content"] for version in reversed(versions)]
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(contents))

    fleet.run(story, agents=6)


def test_the_same_change_sent_many_times_at_once_is_one_version(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        memory = accepted(await crew.agents[0].create(crew.store_id, "/start", "start"))
        digest = memory["content_sha256"]
        for turn in range(ROUNDS):
            content, path = f"content {turn}", f"/path {turn}"
            changes = ({"content": content}, {"path": path}, {"content": content, "path": path})[turn % 3]
            answers = await together(
                agent.update(crew.store_id, memory["id"], expected=digest, **changes) for agent in crew.agents
            )
            bodies = [accepted(answer) for answer in answers]
            assert len({body["memory_version_id"] for body in bodies}) == 1
            memory = accepted(await crew.agents[0].retrieve(crew.store_id, memory["id"]))
            digest = memory["content_sha256"]
            assert digest == sha256(memory["content"]) == bodies[0]["content_sha256"]
            assert changes.items() <= memory.items()
        history = await check_history(crew.rows, crew.store_id)
        assert len(history.versions) == 1 + ROUNDS

    fleet.run(story, agents=8)


def test_of_many_deletions_at_once_one_is_accepted_and_counted(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        for turn in range(ROUNDS):
            memory = accepted(await crew.agents[0].create(crew.store_id, f"/{turn}", "twelve bytes"))
            expected = memory["content_sha256"] if turn % 2 else None
            answers = await together(
                agent.delete(crew.store_id, memory["id"], expected=expected) for agent in crew.agents
            )
            assert Counter(map(refusal, answers)) == {None: 1, NOT_FOUND: len(crew.agents) - 1}
        history = await check_history(crew.rows, crew.store_id)
        assert len([version for version in history.versions if version.operation == DELETED]) == ROUNDS

    fleet.run(story, agents=8)
