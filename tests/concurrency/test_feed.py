"""The change feed across processes: every reader sees 1, 2, 3 …, whichever server it reads from and loses."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from tests.concurrency.fleet import (
    STORES,
    Agent,
    Crew,
    Fleet,
    Item,
    accepted,
    refusal,
    start_fleet,
    together,
)
from tests.concurrency.history import check_history
from tests.contract.shapes import PATH_CONFLICT
from tests.support.backends import Backend
from tests.support.events import EVENT_STREAM, async_events
from tests.support.servers import API_VERSION, Server

WRITES = 40
DIRECTORIES = "abc"

State = dict[str, tuple[str, str]]
"""What a reader knows: path and digest by the memory's ID."""


@asynccontextmanager
async def listener(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of one server; nothing is sent for longer than its heartbeats are apart."""
    headers = {"x-api-key": server.api_key, "anthropic-version": API_VERSION, "accept": EVENT_STREAM}
    async with httpx2.AsyncClient(base_url=server.base_url, headers=headers, timeout=60, trust_env=False) as http:
        yield http


async def follow(
    http: httpx2.AsyncClient, store_id: str, seen: list[Item], done: Callable[[], bool], *, leave_after: int = 0
) -> None:
    """Read on from what was seen until `done`; connections that break, or are left, are followed by others."""
    while not done():
        last = str(seen[-1]["seq"]) if seen else "0"
        try:
            async with http.stream("GET", f"{STORES}/{store_id}/changes", headers={"last-event-id": last}) as response:
                assert response.status_code == 200, await response.aread()
                read = 0
                async for event in async_events(response):
                    assert event.name == "change", event
                    seen.append(event.data)
                    read += 1
                    if done() or read == leave_after:
                        break
        except httpx2.TransportError:
            await asyncio.sleep(0.05)  # the server is down; it is asked again


def check_seen(seen: list[Item], last: int) -> None:
    """Everything, once, in order."""
    assert [change["seq"] for change in seen] == list(range(1, last + 1))


def apply(state: State, changes: list[Item]) -> State:
    """What a reader knows after these changes."""
    for change in changes:
        if change["operation"] == "deleted":
            state.pop(change["memory_id"], None)
        else:
            state[change["memory_id"]] = (change["path"], change["content_sha256"])
    return state


async def heads(agent: Agent, store_id: str) -> State:
    """What a listing shows when nobody writes."""
    return {memory["id"]: (memory["path"], memory["content_sha256"]) for memory in await agent.memories(store_id)}


async def write(agent: Agent, number: int, store_id: str) -> None:
    """Some of everything that makes versions, moves of whole directories among it."""
    chance = random.Random(number)
    mine: list[str] = []
    for turn in range(WRITES):
        deed = chance.choice(("create", "content", "path", "delete", "move")) if mine else "create"
        path = f"/{chance.choice(DIRECTORIES)}/{chance.randrange(10)}-{number}"
        if deed == "create":
            answer = await agent.create(store_id, path, f"{number}.{turn}")
            if refusal(answer) is None:
                mine.append(accepted(answer)["id"])
        elif deed == "content":
            answer = await agent.update(store_id, mine[-1], content=f"{number}.{turn}")
        elif deed == "path":
            answer = await agent.update(store_id, mine[-1], path=path)
        elif deed == "delete":
            answer = await agent.delete(store_id, mine.pop())
        else:
            source, target = chance.sample(DIRECTORIES, 2)
            answer = await agent.call("POST", f"/{store_id}/moves", json={"from": f"/{source}/", "to": f"/{target}/"})
            assert refusal(answer) in (None, PATH_CONFLICT, "not_found_error"), answer.text
            continue
        assert refusal(answer) in (None, PATH_CONFLICT), answer.text


async def last_seq(agent: Agent, store_id: str) -> int:
    number: int = accepted(await agent.call("GET", f"/{store_id}/changes"))["last_seq"]
    return number


def test_every_reader_of_every_server_sees_every_change_once_and_in_order(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        seen: list[list[Item]] = [[] for _ in fleet.servers for _ in range(3)]
        written = asyncio.Event()
        last = 0

        async def read(number: int, server: Server) -> None:
            mine = seen[number]
            # One stays for the whole time; the others leave again and again, and come back.
            stay = (0, 1, 7)[number % 3]
            async with listener(server) as http:
                await follow(
                    http,
                    crew.store_id,
                    mine,
                    lambda: written.is_set() and len(mine) >= last,
                    leave_after=stay,
                )

        async def write_all() -> None:
            nonlocal last
            await together(write(agent, number, crew.store_id) for number, agent in crew.numbered)
            # One more, so that every reader has something to wake up for when it is over.
            last = await last_seq(crew.agents[0], crew.store_id) + 1
            written.set()
            accepted(await crew.agents[0].create(crew.store_id, "/the end", "the end"))

        readers = [read(number * 3 + kind, server) for number, server in enumerate(fleet.servers) for kind in range(3)]
        async with asyncio.timeout(120):
            await asyncio.gather(write_all(), *readers)
        for mine in seen:
            check_seen(mine, last)
            assert mine == seen[0]
        assert apply({}, seen[0]) == await heads(crew.agents[0], crew.store_id)
        await check_history(crew.rows, crew.store_id)

    with fleet.without_complaints():
        fleet.run(story, agents=6)


def test_a_snapshot_and_the_changes_after_it_are_the_store(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        done = asyncio.Event()
        taken: list[tuple[int, State]] = []

        async def take(agent: Agent) -> None:
            while not done.is_set():
                response = await agent.call("GET", f"/{crew.store_id}/snapshot", params={"view": "full"})
                assert response.status_code == 200
                head, *lines = [httpx2.Response(200, content=line).json() for line in response.text.splitlines()]
                assert head["count"] == len(lines)
                assert all(line["content"] is not None for line in lines), "nothing was erased"
                taken.append((head["seq"], {line["id"]: (line["path"], line["content_sha256"]) for line in lines}))

        async def write_all() -> None:
            await together(write(agent, number, crew.store_id) for number, agent in crew.numbered)
            done.set()

        await asyncio.gather(write_all(), *(take(agent) for agent in crew.agents[:3]))
        changes: list[Item] = []
        while True:
            page = accepted(
                await crew.agents[0].call(
                    "GET", f"/{crew.store_id}/changes", params={"after": len(changes), "limit": 1000}
                )
            )
            changes += page["data"]
            if not page["has_more"]:
                break
        check_seen(changes, page["last_seq"])
        assert len({seq for seq, _ in taken}) > 5, "snapshots were taken while the writers wrote"
        for seq, state in taken:
            assert state == apply({}, changes[:seq]), "a snapshot is the sum of the changes up to its number"
            assert apply(dict(state), changes[seq:]) == await heads(crew.agents[0], crew.store_id)

    fleet.run(story, agents=6)


def test_a_reader_goes_on_after_its_server_was_killed(backend: Backend, tmp_path: Path) -> None:
    with start_fleet(backend.environment(tmp_path), 1, 1) as fleet:
        doomed, safe = fleet.servers

        async def story(crew: Crew) -> None:
            writer = crew.agents[1]
            seen: list[list[Item]] = [[], []]
            last = 60

            async def read(number: int) -> None:
                async with listener(fleet.servers[number]) as http:
                    await follow(http, crew.store_id, seen[number], lambda: len(seen[number]) >= last)

            async def work() -> None:
                memory = accepted(await writer.create(crew.store_id, "/m", "1"))["id"]
                for turn in range(2, last + 1):
                    if turn == 20:
                        while not seen[0]:  # noqa: ASYNC110 - the other reader's list
                            await asyncio.sleep(0.01)
                        await asyncio.to_thread(doomed.kill)
                    if turn == 40:
                        await asyncio.to_thread(doomed.start)
                    accepted(await writer.update(crew.store_id, memory, content=str(turn)))

            async with asyncio.timeout(120):
                await asyncio.gather(work(), read(0), read(1))
            for mine in seen:
                check_seen(mine, last)
            # The store is deleted by the first client, whose connection broke with its server.
            async with listener(safe) as http:
                assert (await http.delete(f"{STORES}/{crew.store_id}")).status_code == 200
                recreated = await http.post(STORES, json={"name": "for the end of the story"})
                assert recreated.status_code == 200

        async def main() -> None:
            async with fleet.agents(2) as agents, fleet.rows() as rows:
                store_id = accepted(await agents[1].make_store("killed"))["id"]
                await story(Crew(agents, store_id, rows))

        asyncio.run(main())


def test_moves_and_changes_of_the_same_memories_never_wait_for_each_other_in_a_circle(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        made = [accepted(await crew.agents[0].create(crew.store_id, f"/a/{number}", "0"))["id"] for number in range(20)]

        async def change(agent: Agent, number: int) -> None:
            for turn in range(30):
                accepted(await agent.update(crew.store_id, made[(number + turn) % 20], content=f"{number} {turn}"))
                if turn % 3 == 0:
                    added = await agent.create(crew.store_id, f"/{DIRECTORIES[turn % 2]}/{number}-{turn}", "new")
                    assert refusal(added) is None

        async def shift(agent: Agent, number: int) -> None:
            for turn in range(20):
                source, target = DIRECTORIES[(number + turn) % 3], DIRECTORIES[(number + turn + 1) % 3]
                answer = await agent.call(
                    "POST", f"/{crew.store_id}/moves", json={"from": f"/{source}/", "to": f"/{target}/"}
                )
                assert refusal(answer) in (None, PATH_CONFLICT, "not_found_error"), answer.text

        await together(shift(agent, number) if number < 3 else change(agent, number) for number, agent in crew.numbered)
        history = await check_history(crew.rows, crew.store_id)
        assert set(made) <= set(history.live), "none was lost on the way"

    with fleet.without_complaints():
        fleet.run(story, agents=7)
