"""The client against a real server: what it writes, reads and follows, and what it is refused."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator

import pytest

from app.client import (
    AsyncMemstore,
    Changed,
    Forbidden,
    Held,
    Memstore,
    Missing,
    PathTaken,
    Rejected,
    Unauthorized,
)
from tests.support.servers import Server
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.any_backend

PATH, TEXT = "/büro/日本 语?#%2F&=+.md", "naïve ☕ \U0001f600\n\0" + "é" * 40_000


@pytest.fixture
def client(server: Server) -> Iterator[Memstore]:
    with Memstore(server.base_url, server.api_key) as client:
        yield client


@pytest.fixture
def store(client: Memstore) -> str:
    return client.stores.create("Café ☕", description="d", metadata={"k": "v"}).id


def test_what_is_written_is_read_whatever_its_letters(client: Memstore, store: str) -> None:
    made = client.memories.create(store, PATH, TEXT)
    found = client.memories.retrieve(store, made.id)
    assert (found.path, found.content) == (PATH, TEXT)
    assert found.content_sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert found.content_size_bytes == len(TEXT.encode())
    assert found.created_at.utcoffset() is not None
    assert [memory.content for memory in client.memories.list(store, path_prefix="/büro/", with_content=True)] == [TEXT]
    assert list(client.memories.list(store, path_prefix="/other/")) == []


def test_a_memory_is_overwritten_renamed_deleted_and_every_version_kept(client: Memstore, store: str) -> None:
    made = client.memories.write(store, "/a.md", "one")
    assert client.memories.write(store, "/a.md", "two").id == made.id
    client.memories.update(store, made.id, path="/d/b.md")
    assert client.memories.move(store, "/d/", "/e/") == 1
    client.memories.delete(store, made.id, expected_sha256=hashlib.sha256(b"two").hexdigest())
    versions = list(client.versions.list(store, memory_id=made.id, with_content=True))
    told = [(version.operation, version.path, version.content) for version in versions]
    assert told == [
        ("deleted", "/e/b.md", None), ("modified", "/e/b.md", "two"), ("modified", "/d/b.md", "two"),
        ("modified", "/a.md", "two"), ("created", "/a.md", "one"),
    ]  # fmt: skip
    assert versions[0].created_by is not None
    assert versions[0].created_by.type == "api_actor"
    redacted = client.versions.redact(store, versions[-1].id)
    assert (redacted.path, redacted.redacted_at is not None) == (None, True)
    assert client.versions.retrieve(store, versions[1].id).content == "two"


def test_stores_are_changed_listed_page_after_page_archived_and_deleted(client: Memstore, store: str) -> None:
    changed = client.stores.update(store, name="New", metadata={"k": None, "l": "w"})
    assert (changed.name, changed.description, dict(changed.metadata)) == ("New", "d", {"l": "w"})
    more = {client.stores.create("one of many").id for _ in range(101)}
    assert more | {store} <= {found.id for found in client.stores.list()}
    assert client.stores.archive(store).archived_at is not None
    assert store not in {found.id for found in client.stores.list()}
    assert store in {found.id for found in client.stores.list(include_archived=True)}
    for found in more | {store}:
        client.stores.delete(found)
    with pytest.raises(Missing):
        client.stores.retrieve(store)


def test_each_refusal_has_its_exception(client: Memstore, store: str, server: Server) -> None:
    made = client.memories.create(store, "/a/b.md", "x")
    with pytest.raises(PathTaken) as taken:
        client.memories.write(store, "/a", "y")
    assert (taken.value.conflicting_path, taken.value.conflicting_memory_id) == ("/a/b.md", made.id)
    with pytest.raises(Changed):
        client.memories.update(store, made.id, content="y", expected_sha256="0" * 64)
    with pytest.raises(Rejected, match="must start with"):
        client.memories.create(store, "no-slash", "x")
    with pytest.raises(Missing):
        client.memories.retrieve(store, "mem_nothing")
    with Memstore(server.base_url, "wrong") as other, pytest.raises(Unauthorized):
        other.stores.retrieve(store)
    with Memstore(server.base_url, server.api_key, workspace_id="wrkspc_1") as other, pytest.raises(Forbidden):
        other.stores.retrieve(store)
    client.request("POST", f"/v1/memory_stores/{store}/hold", body={"reason": "a case"})
    with pytest.raises(Held):
        client.stores.delete(store)
    client.request("DELETE", f"/v1/memory_stores/{store}/hold")


def test_a_feed_tells_everything_and_ends_when_another_thread_closes_it(client: Memstore, store: str) -> None:
    seen: list[int] = []
    feed = client.follow(store)

    def watch() -> None:
        for change in feed:
            seen.append(change.seq)  # noqa: PERF401 - it is looked at meanwhile

    thread = threading.Thread(target=watch)
    thread.start()
    snapshot = client.snapshot(store)
    assert (snapshot.seq, list(snapshot.memories)) == (0, [])
    for number in range(5):
        client.memories.create(store, f"/{number}.md", "x")
    until(lambda: seen == [1, 2, 3, 4, 5], "the feed told of all")
    feed.close()
    thread.join(60)
    assert not thread.is_alive()
    assert list(feed) == []
    assert [change.seq for change in client.changes(store, after=2)] == [3, 4, 5]
    assert [memory.content for memory in client.snapshot(store, with_content=True).memories] == ["x"] * 5


def test_a_feed_tells_that_its_store_is_deleted(client: Memstore, store: str) -> None:
    client.memories.create(store, "/a.md", "x")
    with client.follow(store) as feed:
        assert next(feed).path == "/a.md"
        client.stores.delete(store)
        with pytest.raises(Missing, match="deleted"):
            next(feed)


def test_tasks_share_a_client(server: Server, store: str) -> None:
    async def run() -> None:
        async with AsyncMemstore(server.base_url, server.api_key, connections=3) as client:
            paths = [f"/{number:02}.md" for number in range(30)]
            made = await asyncio.gather(*(client.memories.write(store, path, TEXT) for path in paths))
            assert [memory.path for memory in made] == paths
            seen: list[str | None] = []
            feed = client.follow(store)

            async def watch() -> None:
                async for change in feed:
                    seen.append(change.path)  # noqa: PERF401

            watching = asyncio.create_task(watch())
            await eventually(lambda: sorted(filter(None, seen)) == paths, "the feed told of all")
            feed.close()
            await watching
            assert [memory.path async for memory in client.memories.list(store)] == paths
            assert len([change async for change in client.changes(store)]) == 30
            with pytest.raises(PathTaken):
                await client.memories.create(store, paths[0], "x")

    asyncio.run(run())
