"""The audit log stays one chain when several processes append to it at once, and a hold comes before or after."""

import json

from tests.concurrency.fleet import Crew, Fleet, accepted, refusal, together
from tests.support.amounts import amount, repeats

ROUNDS = amount(6, 60)


@repeats
def test_what_several_processes_append_at_once_is_one_chain(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        before = int(await crew.rows.value("SELECT seq FROM audit_head"))
        everything: list[str] = []
        for number in range(ROUNDS):
            made = await together(agent.make_store(f"{number}") for agent in crew.agents)
            stores = [accepted(answer)["id"] for answer in made]
            pairs = list(zip(crew.agents, stores, strict=True))
            await together(agent.archive_store(store) for agent, store in pairs)
            await together(agent.delete_store(store) for agent, store in pairs)
            everything += stores
        rows = await crew.rows.fetch(
            f"SELECT seq, action, subject FROM audit_entries WHERE seq > {before} ORDER BY seq"
        )
        assert [int(seq) for seq, *_ in rows] == list(range(before + 1, before + 1 + len(rows)))
        acts = {(str(action), str(subject)) for _, action, subject in rows}
        assert acts == {(f"store.{act}", store) for store in everything for act in ("created", "archived", "deleted")}
        assert len(acts) == len(rows)

    fleet.run(story, agents=9)
    done = fleet.servers[0].cli("audit", "verify", "--json", check=False)
    assert json.loads(done.stdout)["ok"], done.stdout


@repeats
def test_a_deletion_comes_before_a_hold_or_is_refused(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        store_id = crew.store_id
        holder, *others = crew.agents
        for number in range(ROUNDS):
            created = await together(
                agent.create(store_id, f"/{number}/{place}", "x") for place, agent in enumerate(others)
            )
            pairs = [(agent, accepted(answer)["id"]) for agent, answer in zip(others, created, strict=True)]
            hold, *answers = await together(
                [
                    holder.call("POST", f"/{store_id}/hold", json={}),
                    *(agent.delete(store_id, memory) for agent, memory in pairs),
                ]
            )
            accepted(hold)
            left = {memory["id"] for memory in await holder.memories(store_id)}
            for (_, memory), answer in zip(pairs, answers, strict=True):
                assert refusal(answer) == ("invalid_request_error" if memory in left else None)
            again = await together(agent.delete(store_id, memory) for agent, memory in pairs)
            for (_, memory), answer in zip(pairs, again, strict=True):
                assert refusal(answer) == ("invalid_request_error" if memory in left else "not_found_error")
            assert {memory["id"] for memory in await holder.memories(store_id)} == left
            accepted(await holder.call("DELETE", f"/{store_id}/hold"))
            await together(agent.delete(store_id, memory) for agent, memory in pairs if memory in left)

    fleet.run(story, agents=9)
