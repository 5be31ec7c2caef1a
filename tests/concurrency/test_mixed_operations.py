"""Everything at once, by many clients: no fault is answered, and what is left agrees with itself."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx2

from tests.concurrency.fleet import Agent, Crew, Fleet, accepted, refusal, together
from tests.concurrency.history import check_history

CLIENTS = 12
REQUESTS = 60
STORES = 3
NAMES = ("a", "b", "c")

Deed = Callable[[], Awaitable[httpx2.Response]]


@dataclass
class Shared:
    """What the clients know of the stores they share; much of it is out of date when they use it."""

    stores: list[str]
    memories: dict[str, str] = field(default_factory=dict)
    """The store of each memory that was ever made."""


class Client:
    def __init__(self, agent: Agent, shared: Shared, seed: int) -> None:
        self.agent = agent
        self.shared = shared
        self.chance = random.Random(seed)
        self.deeds: dict[Deed, int] = {
            self.create: 30,
            self.update: 25,
            self.rename: 20,
            self.delete: 15,
            self.redact: 15,
            self.read: 10,
            self.rename_store: 3,
            self.archive: 1,
            self.replace_store: 2,
        }

    async def act(self) -> None:
        for _ in range(REQUESTS):
            (deed,) = self.chance.choices(list(self.deeds), list(self.deeds.values()))
            answer = await deed()
            assert answer.status_code in (200, 400, 404, 409), answer.text

    def _path(self) -> str:
        return "/" + "/".join(self.chance.choices(NAMES, k=self.chance.randint(1, 3)))

    def _content(self) -> str:
        return self.chance.choice(NAMES) * self.chance.randrange(300)

    def _store(self) -> str:
        return self.chance.choice(self.shared.stores)

    def _memory(self) -> tuple[str, str]:
        """The store and the ID of one that was made, or nearly: the first clients have none to choose from."""
        known = list(self.shared.memories.items())[-20:]
        memory_id, store_id = self.chance.choice(known) if known else ("mem_none", self._store())
        return store_id, memory_id

    async def create(self) -> httpx2.Response:
        store_id = self._store()
        answer = await self.agent.create(store_id, self._path(), self._content())
        if refusal(answer) is None:
            self.shared.memories[accepted(answer)["id"]] = store_id
        return answer

    async def update(self) -> httpx2.Response:
        return await self.agent.update(*self._memory(), content=self._content())

    async def rename(self) -> httpx2.Response:
        content = {"content": self._content()} if self.chance.random() < 0.3 else {}
        return await self.agent.update(*self._memory(), path=self._path(), **content)

    async def delete(self) -> httpx2.Response:
        return await self.agent.delete(*self._memory())

    async def redact(self) -> httpx2.Response:
        store_id = self._store()
        answer = await self.agent.call("GET", f"/{store_id}/memory_versions", params={"limit": 10})
        if refusal(answer) is None and (versions := accepted(answer)["data"]):
            return await self.agent.redact(store_id, self.chance.choice(versions)["id"])
        return answer

    async def read(self) -> httpx2.Response:
        kind = self.chance.choice(("memories", "memory_versions"))
        return await self.agent.call("GET", f"/{self._store()}/{kind}", params={"view": "full"})

    async def rename_store(self) -> httpx2.Response:
        return await self.agent.call("POST", f"/{self._store()}", json={"metadata": {self._path(): self._content()}})

    async def archive(self) -> httpx2.Response:
        return await self.agent.archive_store(self._store())

    async def replace_store(self) -> httpx2.Response:
        """Delete a store under the others' hands and put a new one in its place."""
        place = self.chance.randrange(STORES)
        deletion = self.agent.delete_store(self.shared.stores[place])
        answer, new = await asyncio.gather(deletion, self.agent.make_store("another"))
        if refusal(answer) is None:
            self.shared.stores[place] = accepted(new)["id"]
        elif refusal(new) is None:
            await self.agent.delete_store(accepted(new)["id"])
        return answer


def test_random_operations_by_many_clients_leave_everything_consistent(fleet: Fleet) -> None:
    async def story(crew: Crew) -> None:
        stores = [accepted(await crew.agents[0].make_store(f"mixed {n}"))["id"] for n in range(STORES)]
        shared = Shared(stores)
        await together(Client(agent, shared, seed).act() for seed, agent in crew.numbered)
        assert await asyncio.to_thread(fleet.fsck_until_settled) == []
        for store_id in stores:
            counters = await crew.rows.counters(store_id)
            assert counters["memory_count"] == counters["real_count"] == len(await crew.agents[1].memories(store_id))
            assert counters["total_bytes"] == counters["real_bytes"]
            await crew.agents[0].delete_store(store_id)

    with fleet.without_complaints():
        fleet.run(story, agents=CLIENTS)


def test_random_changes_by_many_clients_are_one_lawful_history(fleet: Fleet) -> None:
    """Without erasure, so that the database still has every step and each can be judged."""

    async def story(crew: Crew) -> None:
        shared = Shared([crew.store_id])
        clients = [Client(agent, shared, seed) for seed, agent in crew.numbered]
        for client in clients:
            client.deeds = {client.create: 4, client.update: 3, client.rename: 3, client.delete: 2}
        await together(client.act() for client in clients)
        await check_history(crew.rows, crew.store_id)

    fleet.run(story, agents=CLIENTS)
