"""Write load that keeps account: what was acknowledged, what was refused, and what is in doubt."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx2

from app.storage.upkeep.fsck import Finding
from tests.storage.parts import opened
from tests.support.servers import Server
from tests.support.waiting import until

STORES = "/v1/memory_stores"
_MEMORIES_AT_MOST = 12
_PAGE = 20
_SECONDS = 60.0


@dataclass(frozen=True)
class Refusal:
    """An answer that is no 200."""

    status: int
    retry_after: str | None
    error_type: str
    message: str


class Writer:
    """A client that creates, updates and deletes memories of its own in one store.

    A request that got no answer, or one that says that the service did not work, may have been carried out or not:
    from then on its memory may be either of the two, until a later write of it is acknowledged.
    """

    def __init__(self, server: Server, store_id: str, name: str) -> None:
        self.name = name
        self.is_over = threading.Event()
        self.store_id = store_id
        self.versions: dict[str, str] = {}
        """Content by the ID of each acknowledged version."""
        self.possible: dict[str, set[str | None]] = {}
        """The contents that a memory may have by now; None: it is deleted."""
        self.refusals: list[Refusal] = []
        self.broken = 0
        """Connections that ended without an answer."""
        self.failure: BaseException | None = None
        self._http = server.http()
        self._http.timeout = httpx2.Timeout(_SECONDS)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more; returns when the last request is over."""
        self.is_over.set()
        self._thread.join()

    @property
    def acknowledged(self) -> int:
        """How many writes were answered with 200."""
        return len(self.versions)

    def _run(self) -> None:
        turn = 0
        try:
            while not self.is_over.is_set():
                turn += 1
                self._turn(turn)
        except BaseException as error:
            self.failure = error
        finally:
            self._http.close()

    def _turn(self, turn: int) -> None:
        content = f"{self.name}, turn {turn}: " + "text " * (turn % 7 * 100)
        sure = [memory_id for memory_id, contents in self.possible.items() if None not in contents]
        if len(sure) < _MEMORIES_AT_MOST:
            self._create(f"/{self.name}/{turn}.md", content)
        elif turn % 10 == 0:
            self._delete(sure[turn % len(sure)])
        else:
            self._update(sure[turn % len(sure)], content)

    def _create(self, path: str, content: str) -> None:
        body = self._answer("POST", "", {"path": path, "content": content})
        if body is not None:
            self.possible[body["id"]] = {content}
            self.versions[body["memory_version_id"]] = content

    def _update(self, memory_id: str, content: str) -> None:
        self.possible[memory_id].add(content)
        body = self._answer("POST", f"/{memory_id}", {"content": content})
        if body is not None:
            self.possible[memory_id] = {content}
            self.versions[body["memory_version_id"]] = content

    def _delete(self, memory_id: str) -> None:
        self.possible[memory_id].add(None)
        if self._answer("DELETE", f"/{memory_id}", None) is not None:
            self.possible[memory_id] = {None}

    def _answer(self, method: str, path: str, body: dict[str, str] | None) -> dict[str, str] | None:
        """The body of a 200; None if the request was refused or got no answer."""
        try:
            answer = self._http.request(method, f"{STORES}/{self.store_id}/memories{path}", json=body)
        except httpx2.TransportError:
            self.broken += 1
            self.is_over.wait(0.02)  # gentle with a server that is away
            return None
        if answer.status_code == 200:
            result: dict[str, str] = answer.json()
            return result
        error = answer.json()["error"]
        self.refusals.append(
            Refusal(answer.status_code, answer.headers.get("retry-after"), error["type"], error["message"])
        )
        self.is_over.wait(0.02)
        return None


class Load:
    """Several writers on several stores."""

    def __init__(self, server: Server, writers: int = 4, stores: int = 2) -> None:
        with server.client() as client:
            ids = [client.beta.memory_stores.create(name="under load").id for _ in range(stores)]
        self.writers = [Writer(server, ids[count % stores], f"writer-{count}") for count in range(writers)]
        self.store_ids = ids

    @property
    def refusals(self) -> list[Refusal]:
        """Every refusal so far."""
        return [refusal for writer in self.writers for refusal in writer.refusals]

    def wait_for_acknowledged(self, number: int) -> None:
        """Return when every writer had so many more writes acknowledged."""
        goals = [writer.acknowledged + number for writer in self.writers]

        def reached() -> bool:
            return all(writer.acknowledged >= goal for writer, goal in zip(self.writers, goals, strict=True))

        until(reached, f"every writer has {number} more writes acknowledged")

    def wait_for_trouble(self) -> None:
        """Return when every writer was refused something, or got no answer, since now."""
        before = [len(writer.refusals) + writer.broken for writer in self.writers]

        def happened() -> bool:
            now = [len(writer.refusals) + writer.broken for writer in self.writers]
            return all(later > earlier for later, earlier in zip(now, before, strict=True))

        until(happened, "every writer notices that something is wrong")

    def assert_refusals_are_clear(self) -> None:
        """Whatever was refused is the service's own fault, says so, and says when to try again."""
        for refusal in self.refusals:
            assert (refusal.status, refusal.error_type) in ((503, "api_error"), (529, "overloaded_error")), refusal
            assert refusal.retry_after is not None, refusal
            assert int(refusal.retry_after) >= 1, refusal
            assert "try again" in refusal.message, refusal

    def assert_nothing_is_lost(self, server: Server) -> None:
        """Every acknowledged version has its content, and every memory is as its writer left it."""
        with server.http() as http:
            http.timeout = httpx2.Timeout(_SECONDS)
            kept = {store_id: _all_versions(http, store_id) for store_id in self.store_ids}
            for writer in self.writers:
                assert writer.failure is None
                lost = {
                    version_id: content
                    for version_id, content in writer.versions.items()
                    if kept[writer.store_id].get(version_id) != content
                }
                assert lost == {}
                for memory_id, contents in writer.possible.items():
                    now = _content(http, writer.store_id, memory_id)
                    assert now in contents, f"{memory_id} is {now!r}"


@contextlib.contextmanager
def load(server: Server, *, writers: int = 4) -> Iterator[Load]:
    """Write until the end of the context; then every writer has ended."""
    running = Load(server, writers)
    for writer in running.writers:
        writer.start()
    try:
        yield running
    finally:
        for writer in running.writers:
            writer.is_over.set()
        for writer in running.writers:
            writer.stop()


def _all_versions(http: httpx2.Client, store_id: str) -> dict[str, str | None]:
    """Content by version ID, over all pages."""
    versions: dict[str, str | None] = {}
    query: dict[str, str | int] = {"view": "full", "limit": _PAGE}
    while True:
        answer = http.get(f"{STORES}/{store_id}/memory_versions", params=query)
        answer.raise_for_status()
        page = answer.json()
        versions |= {item["id"]: item["content"] for item in page["data"]}
        if page["next_page"] is None:
            return versions
        query["page"] = page["next_page"]


def _content(http: httpx2.Client, store_id: str, memory_id: str) -> str | None:
    answer = http.get(f"{STORES}/{store_id}/memories/{memory_id}")
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    content: str = answer.json()["content"]
    return content


def assert_clean(environment: Mapping[str, str]) -> None:
    """fsck finds nothing in what a server with this environment keeps."""

    async def check() -> list[Finding]:
        async with opened(environment) as parts:
            return await parts.check()

    assert asyncio.run(check()) == []
