"""Several server processes on one database, and many clients that talk to all of them at once."""

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx2

from tests.support.servers import API_VERSION, Server, serve

STORES = "/v1/memory_stores"

SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.01

T = TypeVar("T")

Item = dict[str, Any]
"""A JSON object of an answer."""


class Agent:
    """One client on one connection. It never retries, and an answer of 500 and above ends its test."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request below the stores' URL; the answer may be a refusal (4xx)."""
        response = await self._http.request(method, STORES + path, **options)
        assert response.status_code < 500, f"{method} {path} was answered {response.status_code}: {response.text}"
        return response

    async def make_store(self, name: str) -> httpx2.Response:
        return await self.call("POST", "", json={"name": name})

    async def archive_store(self, store_id: str) -> httpx2.Response:
        return await self.call("POST", f"/{store_id}/archive")

    async def delete_store(self, store_id: str) -> httpx2.Response:
        return await self.call("DELETE", f"/{store_id}")

    async def create(self, store_id: str, path: str, content: str) -> httpx2.Response:
        return await self.call("POST", f"/{store_id}/memories", json={"path": path, "content": content})

    async def update(
        self, store_id: str, memory_id: str, *, expected: str | None = None, **changes: str
    ) -> httpx2.Response:
        """Change `content`, `path` or both; `expected` is the digest of the precondition."""
        body: dict[str, Any] = dict(changes)
        if expected is not None:
            body["precondition"] = {"type": "content_sha256", "content_sha256": expected}
        return await self.call("POST", f"/{store_id}/memories/{memory_id}", json=body)

    async def delete(self, store_id: str, memory_id: str, *, expected: str | None = None) -> httpx2.Response:
        query = {} if expected is None else {"expected_content_sha256": expected}
        return await self.call("DELETE", f"/{store_id}/memories/{memory_id}", params=query)

    async def retrieve(self, store_id: str, memory_id: str) -> httpx2.Response:
        return await self.call("GET", f"/{store_id}/memories/{memory_id}")

    async def retrieve_version(self, store_id: str, version_id: str) -> httpx2.Response:
        return await self.call("GET", f"/{store_id}/memory_versions/{version_id}")

    async def redact(self, store_id: str, version_id: str) -> httpx2.Response:
        return await self.call("POST", f"/{store_id}/memory_versions/{version_id}/redact")

    async def pages(self, store_id: str, kind: str, **query: Any) -> AsyncIterator[list[Item]]:
        """Every page of a listing; `kind` is "memories" or "memory_versions". A store that is gone has none."""
        cursor: dict[str, str] = {}
        while True:
            response = await self.call("GET", f"/{store_id}/{kind}", params={**query, **cursor})
            if response.status_code == 404:
                return
            page = accepted(response)
            yield page["data"]
            if page["next_page"] is None:
                return
            cursor = {"page": page["next_page"]}

    async def listing(self, store_id: str, kind: str, **query: Any) -> list[Item]:
        """A whole listing, page after page."""
        return [item async for page in self.pages(store_id, kind, **query) for item in page]

    async def memories(self, store_id: str, **query: Any) -> list[Item]:
        return await self.listing(store_id, "memories", **{"limit": 100, **query})

    async def versions(self, store_id: str, **query: Any) -> list[Item]:
        return await self.listing(store_id, "memory_versions", **{"limit": 100, **query})


def accepted(response: httpx2.Response) -> Item:
    """The body of a good answer."""
    assert response.status_code == 200, response.text
    body: Item = response.json()
    return body


async def together(requests: Iterable[Awaitable[T]]) -> list[T]:
    """The answers to requests that are all sent before the first is answered."""
    return await asyncio.gather(*requests)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again until `condition` holds."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - what is watched is in other processes
            await asyncio.sleep(POLL_SECONDS)


def refusal(response: httpx2.Response) -> str | None:
    """The `error.type` of a refusal, None if the request was accepted."""
    return None if response.status_code == 200 else response.json()["error"]["type"]


class Rows:
    """The database itself, read behind the servers' back; each read sees what is committed at that moment."""

    def __init__(self, fetch: Callable[[str], Awaitable[list[tuple[Any, ...]]]]) -> None:
        self.fetch = fetch

    async def value(self, query: str) -> Any:
        ((value,),) = await self.fetch(query)
        return value

    async def counters(self, store_id: str) -> dict[str, int]:
        """A store's own counters; `real_…` is what its rows add up to in the same snapshot."""
        names = ("last_seq", "memory_count", "total_bytes", "real_count", "real_bytes")
        ((*values,),) = await self.fetch(
            f"""
            SELECT last_seq, memory_count, total_bytes,
                   (SELECT count(*) FROM memories m WHERE m.store_id = s.id),
                   (SELECT coalesce(sum(m.content_size), 0) FROM memories m WHERE m.store_id = s.id)
              FROM memory_stores s WHERE id = '{store_id}'
            """
        )
        return {name: int(value) for name, value in zip(names, values, strict=True)}


@dataclass(frozen=True)
class Crew:
    """Clients, each with a connection that is already open, a fresh store for them, and the database."""

    agents: list[Agent]
    store_id: str
    rows: Rows

    @property
    def numbered(self) -> Iterator[tuple[int, Agent]]:
        """The clients, counted from 0."""
        return enumerate(self.agents)


@dataclass(frozen=True)
class Fleet:
    """Servers that share one database and one blob store."""

    servers: tuple[Server, ...]

    @property
    def environment(self) -> dict[str, str]:
        return self.servers[0].environment

    def fsck(self) -> list[Item]:
        """Everything `memstore fsck` finds."""
        done = self.servers[0].cli("fsck", "--json", check=False)
        findings: list[Item] = json.loads(done.stdout)["findings"]
        assert done.returncode == (1 if findings else 0), (done.returncode, findings, done.stderr)
        return findings

    def fsck_until_settled(self) -> list[Item]:
        """What `memstore fsck` finds when what was under way has come to its end.

        A blob that is just being put or removed can look like an orphan. Nothing else may be found even once.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            findings = self.fsck()
            assert all(finding["kind"] == "orphaned_blob" for finding in findings), findings
            if not findings or time.monotonic() > deadline:
                return findings

    @contextmanager
    def without_complaints(self) -> Iterator[None]:
        """Assert that meanwhile no server logged a fault of its own, in an answer or in the background."""
        sizes = {server.log: server.log.stat().st_size for server in self.servers}
        yield
        for log, size in sizes.items():
            new = log.read_bytes()[size:].decode()
            assert "Traceback" not in new, new
            assert "could not move" not in new, new

    def run(self, story: Callable[[Crew], Awaitable[None]], *, agents: int) -> None:
        """Play `story` with a crew of this many clients, spread evenly over the servers."""

        async def main() -> None:
            async with self.agents(agents) as crew, self.rows() as rows:
                store_id = accepted(await crew[0].make_store(story.__name__))["id"]
                await story(Crew(crew, store_id, rows))
                await crew[0].delete_store(store_id)

        asyncio.run(main())

    @asynccontextmanager
    async def agents(self, number: int, api_key: str | None = None) -> AsyncIterator[list[Agent]]:
        """Clients with open connections; `api_key` is another one than the servers' own."""
        async with AsyncExitStack() as open_clients:
            agents = []
            for server in itertools.islice(itertools.cycle(self.servers), number):
                http = httpx2.AsyncClient(
                    base_url=server.base_url,
                    headers={"x-api-key": api_key or server.api_key, "anthropic-version": API_VERSION},
                    timeout=60,
                    trust_env=False,
                )
                agents.append(Agent(await open_clients.enter_async_context(http)))
            await asyncio.gather(*(agent.call("GET", "") for agent in agents))
            yield agents

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[Rows]:
        url = self.environment.get("MEMSTORE_DATABASE_URL")
        if url is None:
            file = Path(self.environment["MEMSTORE_DATA_DIR"]) / "memstore.db"
            with closing(sqlite3.connect(file, isolation_level=None)) as database:

                async def fetch_sqlite(query: str) -> list[tuple[Any, ...]]:
                    await asyncio.sleep(0)  # so that the clients of this process go on
                    return database.execute(query).fetchall()

                yield Rows(fetch_sqlite)
            return
        connection = await asyncpg.connect(url)
        try:

            async def fetch_postgres(query: str) -> list[tuple[Any, ...]]:
                return [tuple(row) for row in await connection.fetch(query)]

            yield Rows(fetch_postgres)
        finally:
            await connection.close()

    def metric(self, name: str, *servers: Server) -> float:
        """A counter, summed over these servers, or all."""
        total = 0.0
        for server in servers or self.servers:
            with server.http() as http:
                lines = http.get("/metrics").text.splitlines()
            total += sum(float(line.split()[-1]) for line in lines if line.split(" ")[0] == name)
        return total


@contextmanager
def start_fleet(environment: Mapping[str, str], *workers: int, **settings: str) -> Iterator[Fleet]:
    """A server for each number of workers, all on the database and blob store of `environment`."""
    with ExitStack() as running:
        servers: list[Server] = []
        for number in workers:
            key = {"MEMSTORE_BOOTSTRAP_API_KEY": servers[0].api_key} if servers else {}
            servers.append(running.enter_context(serve({**environment, **settings, **key}, workers=number)))
        yield Fleet(tuple(servers))
