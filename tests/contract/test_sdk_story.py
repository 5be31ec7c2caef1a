"""The official SDK drives every route, synchronously and asynchronously."""

import asyncio

import anthropic
import pytest
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory

from tests.contract.shapes import sha256
from tests.support.servers import Server


def test_the_sdk_drives_all_fourteen_routes(client: anthropic.Anthropic) -> None:
    stores = client.beta.memory_stores

    store = stores.create(name="Field notes", description="What was seen", metadata={"team": "birds"})
    assert stores.retrieve(store.id) == store
    assert stores.update(store.id, description="What was heard").description == "What was heard"
    assert store.id in [listed.id for listed in stores.list()]

    memory = stores.memories.create(store.id, path="/owl.md", content="hoots", view="full")
    assert memory.content == "hoots"
    assert stores.memories.retrieve(memory.id, memory_store_id=store.id) == memory
    renamed = stores.memories.update(
        memory.id,
        memory_store_id=store.id,
        content="hoots at night",
        path="/birds/owl.md",
        precondition={"type": "content_sha256", "content_sha256": sha256("hoots")},
    )
    assert (renamed.id, renamed.path, renamed.content) == (memory.id, "/birds/owl.md", None)
    (rolled_up,) = stores.memories.list(store.id, depth=1).data
    assert (rolled_up.type, rolled_up.path) == ("memory_prefix", "/birds/")

    newest, oldest = stores.memory_versions.list(store.id, memory_id=memory.id).data
    assert (newest.operation, oldest.operation) == ("modified", "created")
    assert stores.memory_versions.retrieve(oldest.id, memory_store_id=store.id).content == "hoots"
    redacted = stores.memory_versions.redact(oldest.id, memory_store_id=store.id)
    assert redacted.redacted_at is not None

    deleted = stores.memories.delete(
        memory.id, memory_store_id=store.id, expected_content_sha256=sha256("hoots at night")
    )
    assert (deleted.id, deleted.type) == (memory.id, "memory_deleted")
    assert stores.archive(store.id).archived_at is not None
    gone = stores.delete(store.id)
    assert (gone.id, gone.type) == (store.id, "memory_store_deleted")
    with pytest.raises(anthropic.NotFoundError):
        stores.retrieve(store.id)


async def _async_story(base_url: str, api_key: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key=api_key, max_retries=0) as client:
        stores = client.beta.memory_stores
        store = await stores.create(name="Field notes")
        assert (await stores.retrieve(store.id)).id == store.id
        assert (await stores.update(store.id, metadata={"team": "birds"})).metadata == {"team": "birds"}
        assert store.id in [listed.id async for listed in stores.list(limit=100)]

        written = await asyncio.gather(
            *(stores.memories.create(store.id, path=f"/bird-{number}.md", content=str(number)) for number in range(5))
        )
        listed = [item.path async for item in stores.memories.list(store.id, limit=2)]
        assert listed == [f"/bird-{number}.md" for number in range(5)]

        memory = written[0]
        await stores.memories.update(memory.id, memory_store_id=store.id, content="changed")
        read = await stores.memories.retrieve(memory.id, memory_store_id=store.id)
        assert read.content == "changed"
        await stores.memory_versions.redact(memory.memory_version_id, memory_store_id=store.id)
        old = await stores.memory_versions.retrieve(memory.memory_version_id, memory_store_id=store.id)
        assert old.content is None
        assert len([v async for v in stores.memory_versions.list(store.id, limit=3)]) == 6
        await stores.memories.delete(memory.id, memory_store_id=store.id)
        assert (await stores.archive(store.id)).archived_at is not None
        assert (await stores.delete(store.id)).type == "memory_store_deleted"


def test_the_async_sdk_drives_all_fourteen_routes(server: Server) -> None:
    asyncio.run(_async_story(server.base_url, server.api_key))


def test_the_sdk_pages_through_a_listing_by_itself(client: anthropic.Anthropic) -> None:
    store = client.beta.memory_stores.create(name="Pages")
    memories = client.beta.memory_stores.memories
    paths = [f"/{number:02}.md" for number in range(7)]
    for path in paths:
        memories.create(store.id, path=path, content=path)

    listed = list(memories.list(store.id, limit=2, view="full"))

    assert [item.path for item in listed] == paths
    assert [item.content for item in listed if isinstance(item, Memory)] == paths
    client.beta.memory_stores.delete(store.id)
