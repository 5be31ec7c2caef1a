"""Erasures as jobs: asked for over HTTP, run by a server, taken over when whoever ran one is gone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from app.erasure import tasks
from app.erasure.names import ERASE, VERIFY
from app.erasure.report import is_report
from app.erasure.service import Erasures, Unfinished
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.storage.rows.database import Transaction
from app.storage.rows.leases import Lease
from tests.erasure.conftest import OPERATOR
from tests.erasure.steps import checked, finish, planned
from tests.storage.outside import Outside, outside
from tests.storage.parts import Parts
from tests.support.backends import Backend
from tests.support.servers import Server, serve
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

Json = dict[str, object]


@pytest.fixture(scope="module")
def server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all of them."""
    with serve(backend.environment(tmp_path_factory.mktemp("erasures"))) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx2.Client]:
    """The API of the server, with its key."""
    with server.http() as client:
        yield client


@pytest.fixture
def view(server: Server) -> Iterator[Outside]:
    """Its database and blob store from outside."""
    with outside(server.environment) as view:
        yield view


def store_of(http: httpx2.Client, user: str) -> str:
    """A store with one memory; its ID."""
    made = http.post("/v1/memory_stores", json={"name": "notes", "metadata": {"user": user}}).json()
    memory = {"path": "/anna.md", "content": f"Anna of {user}"}
    assert http.post(f"/v1/memory_stores/{made['id']}/memories", json=memory).status_code == 200
    return str(made["id"])


def ended(http: httpx2.Client, erasure_id: object) -> dict[str, object]:
    """An erasure once it is finished and was verified."""
    found: dict[str, object] = {}

    def is_verified() -> bool:
        found.update(http.get(f"/v1/erasures/{erasure_id}").json())
        return found["verification"] is not None

    until(is_verified, "the erasure is verified")
    return found


def test_an_erasure_that_is_asked_for_over_http_is_run_proved_and_verified(http: httpx2.Client, view: Outside) -> None:
    gone, other = store_of(http, "u_1"), store_of(http, "u_2")
    asked = {"metadata": {"user": "u_1"}}
    shown = http.post("/v1/erasures", json={**asked, "dry_run": True}).json()
    assert (shown["type"], shown["counts"]) == ("erasure_plan", {"stores": 1, "memories": 0, "hits": 0})
    assert shown["stores"][0]["id"] == gone
    assert http.get(f"/v1/memory_stores/{gone}").status_code == 200, "a dry run changes nothing"

    begun = http.post("/v1/erasures", json=asked).json()
    assert begun["status"] == "in_progress"
    found = ended(http, begun["id"])
    assert (found["status"], found["error"]) == ("finished", None)
    assert found["verification"] == {
        "verified_at": found["verification"]["verified_at"],  # type: ignore[index]
        "nothing_left": True, "problems": [], "findings": [], "not_searched": [],
    }  # fmt: skip
    assert is_report(found["report"])
    assert found["report"]["counts"]["stores"] == 1  # type: ignore[index]
    assert found["actor"] == found["report"]["actor"]  # type: ignore[index]
    assert http.get(f"/v1/memory_stores/{gone}").json()["error"]["erased"] is True
    assert http.get(f"/v1/memory_stores/{other}").status_code == 200
    assert "Anna of u_1" not in "".join(text for (text,) in view.rows.execute("SELECT payload FROM jobs"))

    # A text is found in any spelling, and only the memory goes.
    hits = http.post("/v1/erasures", json={"contains": "ANNA", "dry_run": True}).json()
    assert [(hit["in"], hit["text"]) for hit in hits["hits"]] == [("path", "anna"), ("content", "Anna")]
    begun = http.post("/v1/erasures", json={"contains": "ANNA", "memory_store_ids": [other]}).json()
    assert ended(http, begun["id"])["report"]["counts"]["memories"] == 1  # type: ignore[index]
    assert http.get(f"/v1/memory_stores/{other}/memories").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "nothing is selected; say what to forget with memory_store_ids, metadata, path_prefix or contains"),
        ({"contains": " \u00ad"}, "contains: is empty"),
        ({"contains": "Anna", "memory_store_ids": []}, "memory_store_ids: is empty; leave it out"),
        ({"path_prefix": "/", "metadata": {}}, "metadata: is empty; leave it out to look in every store"),
        ({"contains": "An\0na", "path_prefix": "/"}, "contains: has a NUL character"),
        ({"path_prefix": "no/slash"}, "path_prefix: "),
        ({"memory_store_ids": ["memstore_unknown"]}, "memory_store_ids: memory store 'memstore_unknown' was not found"),
        ({"memory_store_ids": ["\0"]}, "memory_store_ids: memory store '\\x00' was not found"),
        ({"memory_store_ids": ["memstore_1"] * 1001}, "memory_store_ids: has 1,001 IDs; at most 1,000"),
        ({"contains": "x" * 4097}, "contains: is 4,097 characters; at most 4,096"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata: has 17 pairs; a store has at most 16"),
        ({"metadata": {f"k{n}": "v" for n in range(5000)}, "path_prefix": "/"}, "metadata: has 5,000 pairs"),
        ({"metadata": {f"k{n}": "v" for n in range(16)}}, "nothing matches"),
        ({"metadata": {"\0": "\0"}}, "nothing matches"),
        ({"metadata": {"user": "nobody"}}, "nothing matches, so nothing was erased"),
        ({"metadata": {"user": 1}}, "metadata.user"),
        ({"store": "x"}, "store"),
    ],
)
def test_what_selects_nothing_is_refused_in_words_of_the_api(http: httpx2.Client, body: Json, told: str) -> None:
    answer = http.post("/v1/erasures", json=body)
    assert answer.status_code in (400, 404), answer.text
    assert told in answer.json()["error"]["message"]


def test_erasures_stay_in_their_workspace(server: Server, http: httpx2.Client) -> None:
    store_id = store_of(http, "u_1")
    made = json.loads(server.cli("keys", "create", "--workspace", "elsewhere", "--json").stdout)
    with server.http() as stranger:
        stranger.headers["x-api-key"] = made["secret"]
        for body in ({"memory_store_ids": [store_id]}, {"memory_store_ids": [store_id], "contains": "Anna"}):
            assert stranger.post("/v1/erasures", json=body).status_code == 404
        assert stranger.post("/v1/erasures", json={"metadata": {"user": "u_1"}}).status_code == 400
        begun = http.post("/v1/erasures", json={"memory_store_ids": [store_id]}).json()
        assert stranger.get(f"/v1/erasures/{begun['id']}").status_code == 404
        ended(http, begun["id"])
        # Its traces are its workspace's, too.
        assert stranger.post("/v1/erasures", json={"memory_store_ids": [store_id]}).status_code == 404


def test_a_hold_refuses_an_erasure(http: httpx2.Client, view: Outside) -> None:
    store_id = store_of(http, "u_1")
    http.post(f"/v1/memory_stores/{store_id}/hold", json={})
    answer = http.post("/v1/erasures", json={"memory_store_ids": [store_id]})
    assert answer.json()["error"]["details"] == {"error_code": "legal_hold"}
    assert view.rows.count("jobs", "state IN ('waiting', 'running')") == 0


def test_a_killed_server_goes_on_with_its_erasures_when_it_starts_again(
    server: Server, http: httpx2.Client, view: Outside
) -> None:
    store_id = store_of(http, "u_1")
    # Another process seems to erase, so this one waits, until it is killed.
    view.rows.execute("INSERT INTO leases (name, holder, expires_at) VALUES ('erasure', 'dead', 9000000000000000)")
    begun = http.post("/v1/erasures", json={"memory_store_ids": [store_id]}).json()
    again = http.post("/v1/erasures", json={"memory_store_ids": [store_id]})
    assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
    assert begun["id"] in again.json()["error"]["message"]
    server.kill()
    view.rows.execute("DELETE FROM leases WHERE name = 'erasure'")
    view.rows.execute("UPDATE jobs SET due_at = 0")  # Its lease, or the pause before its next attempt, is over.
    server.start()
    assert ended(http, begun["id"])["status"] == "finished"


@asynccontextmanager
async def working(parts: Parts) -> AsyncIterator[Jobs]:
    """The worker of a process that serves, inside the test."""
    worker = Worker(parts.storage.database)
    jobs = Jobs(parts.storage.database, worker.wake)
    worker.does(*tasks.kinds(parts.storage, jobs))
    worker.start()
    try:
        yield jobs
    finally:
        await worker.stop()


async def becomes(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something in the database."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.02)


async def verdict(parts: Parts, erasure_id: str) -> Json | None:
    """What the job that looks for leftovers has found."""
    for job in await Jobs(parts.storage.database).about(erasure_id):
        if job["kind"] == VERIFY and job["state"] == "done":
            found: Json = json.loads(job["result"])
            return found
    return None


async def test_a_command_that_was_killed_is_finished_by_a_server(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    erasure_id = await Erasures(parts.storage, OPERATOR).begin(await planned(parts, store_ids=[memory.store_id]))
    # The command is gone. For a while its job waits for it; this time is over.
    (job,) = await Jobs(parts.storage.database).about(erasure_id)
    assert (job["state"], job["kind"], job["due_at"] > job["created_at"]) == ("waiting", ERASE, True)
    await asyncio.to_thread(parts.outside.rows.execute, "UPDATE jobs SET due_at = 0")

    async def is_verified() -> bool:
        return await verdict(parts, erasure_id) is not None

    async with working(parts):
        await becomes(is_verified)
    found = await verdict(parts, erasure_id)
    assert found is not None
    assert found["nothing_left"] is True


async def test_an_erasure_that_its_command_runs_is_left_to_it(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    erasures = Erasures(parts.storage, OPERATOR)
    erasure_id = await erasures.begin(await planned(parts, store_ids=[memory.store_id]))
    command = Lease(parts.storage.database, "erasure", 3600)
    assert await command.take()
    await asyncio.to_thread(parts.outside.rows.execute, "UPDATE jobs SET due_at = 0")

    async def was_put_off() -> bool:
        (job,) = await Jobs(parts.storage.database).about(erasure_id)
        return (job["state"], job["due_at"] > 0, job["attempts"]) == ("waiting", True, 0)

    async with working(parts):
        await becomes(was_put_off)
        await command.release()
        made = await finish(parts, erasures, erasure_id)
    assert (await checked(parts, made)).nothing_left
    kinds = {job["kind"] for job in await Jobs(parts.storage.database).about(erasure_id)}
    assert kinds == {VERIFY}, "the job that would have erased is gone with its reason"


async def test_of_erasures_that_are_asked_for_at_once_one_begins(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    plan = await planned(parts, store_ids=[memory.store_id])
    erasures = Erasures(parts.storage, OPERATOR)
    begun = await asyncio.gather(*(erasures.begin(plan, runs_here=False) for _ in range(4)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in begun) == ["Unfinished", "Unfinished", "Unfinished", "str"]
    (erasure_id,) = (one for one in begun if isinstance(one, str))
    assert {one.earlier["id"] for one in begun if isinstance(one, Unfinished)} == {erasure_id}
    written = [await asyncio.to_thread(parts.outside.rows.count, table) for table in ("erasures", "jobs")]
    assert written == [1, 1], "the others left nothing"


async def test_a_hold_that_came_meanwhile_is_the_reason_that_an_operator_reads(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "Anna")
    plan = await planned(parts, store_ids=[memory.store_id])
    erasure_id = await Erasures(parts.storage, OPERATOR).begin(plan, runs_here=False)
    await asyncio.to_thread(parts.outside.rows.execute, "UPDATE memory_stores SET held_at = 1")

    async def is_given_up() -> bool:
        (job,) = await Jobs(parts.storage.database).about(erasure_id)
        return job["state"] == "given_up" and "legal hold" in str(job["error"])

    async with working(parts) as jobs:
        await becomes(is_given_up)
        # It keeps nobody else's erasure from beginning and ending.
        other = await parts.create(await parts.store(), "Bo")
        others = Erasures(parts.storage, OPERATOR, jobs)
        begun = await others.begin(await planned(parts, store_ids=[other.store_id]), runs_here=False)

        async def is_finished() -> bool:
            return (await others.find(begun))["finished_at"] is not None

        await becomes(is_finished)
        waiting = await others.unfinished()
        assert waiting is not None
        assert (waiting["id"], bool(waiting["is_held"])) == (erasure_id, True)
        await asyncio.to_thread(parts.outside.rows.execute, "UPDATE memory_stores SET held_at = NULL")
        (job,) = await jobs.about(erasure_id)
        await jobs.retry(job["id"])

        async def is_verified() -> bool:
            return await verdict(parts, erasure_id) is not None

        await becomes(is_verified)


async def test_jobs_go_with_what_they_are_about(parts: Parts) -> None:
    shared = await parts.store()
    whole, part = await parts.create(await parts.store(), "Anna"), await parts.create(shared, "Anna")
    other = await parts.create(shared, "Otto", "/otto.md")
    jobs = Jobs(parts.storage.database)

    async def work(transaction: Transaction) -> None:
        for about in (whole.store_id, part.memory_id, other.memory_id, shared, None):
            await jobs.enqueue(transaction, "index", {"about": about}, subject=about)

    await parts.storage.database.transact(work)
    plan = await planned(parts, store_ids=[whole.store_id])
    memories = await planned(parts, contains="Anna", store_ids=[shared])
    plan.memories, plan.touched = memories.memories, memories.touched
    erasures = Erasures(parts.storage, OPERATOR)
    made = await finish(parts, erasures, await erasures.begin(plan))
    left = {row["subject"] async for row in jobs.list() if row["kind"] == "index"}
    assert left == {other.memory_id, shared, None}
    assert (await checked(parts, made)).nothing_left

    async def restored(transaction: Transaction) -> str:
        return await jobs.enqueue(transaction, "index", {}, subject=part.memory_id)

    job_id = await parts.storage.database.transact(restored)
    assert [(found.place, found.what) for found in (await checked(parts, made)).findings] == [("jobs", job_id)]
