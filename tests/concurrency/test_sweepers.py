"""Two servers that both keep house, on one database: nothing is done twice, and nothing is left undone."""

import asyncio
import itertools
from uuid import uuid4

from tests.concurrency.fleet import Crew, Fleet, Rows, accepted, together, until

EXPIRED = "memstore_versions_expired_total"
REMOVED = "memstore_blobs_removed_total"


async def housekeeping_left(rows: Rows, store_id: str) -> tuple[int, ...]:
    """How many versions are not heads, how many contents are condemned, how many staged; of one store."""
    ((*numbers,),) = await rows.fetch(
        f"""
        SELECT (SELECT count(*) FROM memory_versions v WHERE v.store_id = s.id) - s.memory_count,
               (SELECT count(*) FROM condemned_contents c WHERE c.store_id = s.id),
               (SELECT count(*) FROM staged_contents t WHERE t.store_id = s.id)
          FROM memory_stores s WHERE s.id = '{store_id}'
        """
    )
    return tuple(numbers)


async def wake(crew: Crew) -> None:
    """Have every server's sweeper look for work now: each is told of a store's deletion."""
    for agent in crew.agents:
        store_id = accepted(await agent.make_store("to wake the sweepers"))["id"]
        accepted(await agent.delete_store(store_id))


async def until_clean(crew: Crew) -> None:
    """Wait for the sweepers. A wake can come while there is nothing to do yet, so there is more than one."""
    polls = itertools.count()

    async def is_clean() -> bool:
        if next(polls) % 40 == 0:
            await wake(crew)
        return not any(await housekeeping_left(crew.rows, crew.store_id))

    await until(is_clean)


async def make_memories(crew: Crew, number: int) -> list[str]:
    """Memories of which each has a content of its own, already in the blob store; their IDs."""
    requests = (
        crew.agents[n % len(crew.agents)].create(crew.store_id, f"/{uuid4()}", str(uuid4())) for n in range(number)
    )
    ids = [accepted(answer)["id"] for answer in await together(requests)]

    async def are_moved() -> bool:
        return not any(await housekeeping_left(crew.rows, crew.store_id))

    await until(are_moved)
    return ids


async def delete_memories(crew: Crew, memory_ids: list[str]) -> int:
    """Delete memories, which makes all their versions old; how many versions that is."""
    requests = (crew.agents[n % len(crew.agents)].delete(crew.store_id, id_) for n, id_ in enumerate(memory_ids))
    for answer in await together(requests):
        accepted(answer)
    return 2 * len(memory_ids)


def test_two_sweepers_expire_each_version_and_remove_each_blob_once(erasing_fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        memory_ids = await make_memories(crew, 80)
        expired, removed = map(erasing_fleet.metric, (EXPIRED, REMOVED))
        old, *_ = await asyncio.gather(delete_memories(crew, memory_ids), *(wake(crew) for _ in range(5)))
        await until_clean(crew)
        assert erasing_fleet.metric(EXPIRED) - expired == old
        assert erasing_fleet.metric(REMOVED) - removed == len(memory_ids)

    with erasing_fleet.without_complaints():
        erasing_fleet.run(story, agents=4)


async def holder(rows: Rows) -> str:
    """Who has the lease; a server tries for it every few seconds."""
    holders: list[tuple[str]] = []

    async def is_held() -> bool:
        holders[:] = await rows.fetch("SELECT holder FROM leases WHERE name = 'sweeper'")
        return bool(holders)

    await until(is_held)
    ((name,),) = holders
    return name


def test_one_server_keeps_house_at_a_time_and_another_takes_over_when_it_stops(erasing_fleet: Fleet) -> None:
    async def expire_some(crew: Crew) -> int:
        old = await delete_memories(crew, await make_memories(crew, 4))
        await until_clean(crew)
        return old

    async def story(crew: Crew) -> None:
        first = await holder(crew.rows)
        before = [erasing_fleet.metric(EXPIRED, server) for server in erasing_fleet.servers]
        old = await expire_some(crew)
        assert await holder(crew.rows) == first
        # Who removed versions is who keeps house, as each server's own counter tells.
        after = [erasing_fleet.metric(EXPIRED, server) for server in erasing_fleet.servers]
        expired = [there - here for here, there in zip(before, after, strict=True)]
        assert sorted(expired) == [0, old]
        keeper, other = expired.index(old), expired.index(0)
        await asyncio.to_thread(erasing_fleet.servers[keeper].stop)
        try:
            assert await holder(crew.rows) != first
            old = await expire_some(Crew([crew.agents[other]], crew.store_id, crew.rows))
            assert erasing_fleet.metric(EXPIRED, erasing_fleet.servers[other]) - after[other] == old
        finally:
            await asyncio.to_thread(erasing_fleet.servers[keeper].start)

    erasing_fleet.run(story, agents=2)
