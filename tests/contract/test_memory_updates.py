"""Updates, renames, no-ops and deletes of one memory (parts 2.2, 2.6, 2.7, 3.3)."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemoryVersion as Version

from tests.contract.shapes import check_refusal, refused, sha256


@pytest.fixture
def memory(store: Store, memories: Memories) -> Memory:
    return memories.create(store.id, path="/a.md", content="first", view="full")


def _operations(versions: MemoryVersions, memory: Memory) -> Sequence[str]:
    listed = versions.list(memory.memory_store_id, memory_id=memory.id)
    return [version.operation for version in listed][::-1]


def test_create_writes_a_created_version(memory: Memory, versions: MemoryVersions) -> None:
    head = versions.retrieve(memory.memory_version_id, memory_store_id=memory.memory_store_id)
    assert (head.operation, head.path, head.content) == ("created", "/a.md", "first")
    assert head.created_at == memory.created_at
    assert _operations(versions, memory) == ["created"]


def test_new_content_is_a_modified_version(memory: Memory, memories: Memories, versions: MemoryVersions) -> None:
    updated = memories.update(memory.id, memory_store_id=memory.memory_store_id, content="second", view="full")

    assert (updated.id, updated.path, updated.content) == (memory.id, "/a.md", "second")
    assert updated.memory_version_id != memory.memory_version_id
    assert updated.created_at == memory.created_at
    assert updated.updated_at > memory.updated_at
    assert updated.content_sha256 == sha256("second")
    head = versions.retrieve(updated.memory_version_id, memory_store_id=memory.memory_store_id)
    assert (head.operation, head.content, head.created_at) == ("modified", "second", updated.updated_at)
    assert _operations(versions, memory) == ["created", "modified"]


def test_a_new_path_is_a_modified_version_with_the_same_id_and_content(
    memory: Memory, memories: Memories, versions: MemoryVersions
) -> None:
    moved = memories.update(memory.id, memory_store_id=memory.memory_store_id, path="/dir/b.md", view="full")

    assert (moved.id, moved.path, moved.content) == (memory.id, "/dir/b.md", "first")
    assert moved.created_at == memory.created_at
    assert moved.updated_at > memory.updated_at
    head = versions.retrieve(moved.memory_version_id, memory_store_id=memory.memory_store_id)
    assert (head.operation, head.path, head.content) == ("modified", "/dir/b.md", "first")
    old = versions.retrieve(memory.memory_version_id, memory_store_id=memory.memory_store_id)
    assert old.path == "/a.md"
    assert _operations(versions, memory) == ["created", "modified"]


def test_content_and_path_change_together_in_one_version(
    memory: Memory, memories: Memories, versions: MemoryVersions
) -> None:
    memories.update(memory.id, memory_store_id=memory.memory_store_id, path="/b.md", content="second")
    newest, _ = versions.list(memory.memory_store_id, view="full").data
    assert (newest.operation, newest.path, newest.content) == ("modified", "/b.md", "second")


@pytest.mark.parametrize(
    "change",
    [{"content": "first"}, {"path": "/a.md"}, {"content": "first", "path": "/a.md"}],
    ids=["content", "path", "both"],
)
def test_an_update_that_changes_nothing_writes_no_version(
    memory: Memory, memories: Memories, versions: MemoryVersions, change: dict[str, Any]
) -> None:
    unchanged = memories.update(memory.id, memory_store_id=memory.memory_store_id, view="full", **change)
    assert unchanged == memory
    assert _operations(versions, memory) == ["created"]


def test_half_a_change_is_a_change(memory: Memory, memories: Memories, versions: MemoryVersions) -> None:
    moved = memories.update(memory.id, memory_store_id=memory.memory_store_id, content="first", path="/b.md")
    assert moved.memory_version_id != memory.memory_version_id
    memories.update(memory.id, memory_store_id=memory.memory_store_id, content="second", path="/b.md")
    assert _operations(versions, memory) == ["created", "modified", "modified"]


def test_changing_back_is_a_change(memory: Memory, memories: Memories, versions: MemoryVersions) -> None:
    memories.update(memory.id, memory_store_id=memory.memory_store_id, content="second")
    back = memories.update(memory.id, memory_store_id=memory.memory_store_id, content="first")
    assert back.memory_version_id != memory.memory_version_id
    assert _operations(versions, memory) == ["created", "modified", "modified"]


@pytest.mark.parametrize(
    "body", [{}, {"content": None}, {"path": None}, {"content": None, "path": None}], ids=json.dumps
)
def test_an_update_without_content_and_path_is_refused(
    memory: Memory, http: httpx2.Client, body: dict[str, Any]
) -> None:
    url = f"/v1/memory_stores/{memory.memory_store_id}/memories/{memory.id}"
    check_refusal(http.post(url, json=body), 400)


def test_a_precondition_alone_is_no_update(memory: Memory, memories: Memories) -> None:
    with refused(400):
        memories.update(
            memory.id,
            memory_store_id=memory.memory_store_id,
            precondition={"type": "content_sha256", "content_sha256": memory.content_sha256},
        )


def test_null_beside_a_change_means_absent(memory: Memory, memories: Memories) -> None:
    store_id = memory.memory_store_id
    moved = memories.update(memory.id, memory_store_id=store_id, content=None, path="/b.md", view="full")
    assert (moved.path, moved.content) == ("/b.md", "first")
    updated = memories.update(memory.id, memory_store_id=store_id, content="2", path=None, view="full")
    assert (updated.path, updated.content) == ("/b.md", "2")


@pytest.mark.parametrize("view", ["basic", "full"])
def test_view_is_a_query_parameter_on_every_route_that_shows_content(
    memory: Memory, memories: Memories, versions: MemoryVersions, view: Literal["basic", "full"]
) -> None:
    store_id = memory.memory_store_id
    created = memories.create(store_id, path="/new", content="text", view=view)
    updated = memories.update(created.id, memory_store_id=store_id, content="more", view=view)
    retrieved = memories.retrieve(created.id, memory_store_id=store_id, view=view)
    listed = memories.list(store_id, view=view).data[1]
    version = versions.retrieve(updated.memory_version_id, memory_store_id=store_id, view=view)
    in_history = versions.list(store_id, view=view).data[0]

    assert isinstance(listed, Memory)
    expected = ["text"] + ["more"] * 5 if view == "full" else [None] * 6
    seen: list[Memory | Version] = [created, updated, retrieved, listed, version, in_history]
    assert [item.content for item in seen] == expected
    assert all(item.content_size_bytes == 4 for item in seen)


def test_view_is_full_on_retrieve_and_basic_elsewhere_by_default(
    memory: Memory, memories: Memories, versions: MemoryVersions
) -> None:
    store_id = memory.memory_store_id
    assert memories.retrieve(memory.id, memory_store_id=store_id).content == "first"
    assert versions.retrieve(memory.memory_version_id, memory_store_id=store_id).content == "first"
    assert memories.create(store_id, path="/new", content="x").content is None
    assert memories.update(memory.id, memory_store_id=store_id, content="x").content is None
    assert [item.content for item in memories.list(store_id) if isinstance(item, Memory)] == [None, None]
    assert {version.content for version in versions.list(store_id)} == {None}


@pytest.mark.parametrize("view", ["", "FULL", "all", "basic,full"])
def test_another_view_is_refused(memory: Memory, memories: Memories, http: httpx2.Client, view: str) -> None:
    store = f"/v1/memory_stores/{memory.memory_store_id}"
    one = f"{store}/memories/{memory.id}"
    for response in (
        http.post(f"{store}/memories", params={"view": view}, json={"path": "/new", "content": "x"}),
        http.get(f"{store}/memories", params={"view": view}),
        http.get(one, params={"view": view}),
        http.post(one, params={"view": view}, json={"content": "changed"}),
        http.get(f"{store}/memory_versions", params={"view": view}),
        http.get(f"{store}/memory_versions/{memory.memory_version_id}", params={"view": view}),
    ):
        assert "view" in check_refusal(response, 400)["message"]
    assert memories.list(memory.memory_store_id, view="full").data == [memory]


def test_view_is_no_field_of_a_body(memory: Memory, http: httpx2.Client) -> None:
    url = f"/v1/memory_stores/{memory.memory_store_id}/memories/{memory.id}"
    error = check_refusal(http.post(url, json={"content": "x", "view": "full"}), 400)
    assert error["message"].startswith("view: Extra inputs are not permitted")


def test_delete_writes_a_deleted_version(memory: Memory, memories: Memories, versions: MemoryVersions) -> None:
    deleted = memories.delete(memory.id, memory_store_id=memory.memory_store_id)
    assert (deleted.id, deleted.type) == (memory.id, "memory_deleted")
    assert memories.list(memory.memory_store_id).data == []
    assert _operations(versions, memory) == ["created", "deleted"]


def test_a_deleted_memory_is_404_everywhere(memory: Memory, memories: Memories) -> None:
    memories.delete(memory.id, memory_store_id=memory.memory_store_id)
    with refused(404):
        memories.retrieve(memory.id, memory_store_id=memory.memory_store_id)
    with refused(404):
        memories.update(memory.id, memory_store_id=memory.memory_store_id, content="x")
    with refused(404):
        memories.delete(memory.id, memory_store_id=memory.memory_store_id)
    with refused(404):
        memories.delete(
            memory.id, memory_store_id=memory.memory_store_id, expected_content_sha256=memory.content_sha256
        )


def test_the_path_of_a_deleted_memory_gets_a_new_id(
    memory: Memory, memories: Memories, versions: MemoryVersions
) -> None:
    store_id = memory.memory_store_id
    memories.delete(memory.id, memory_store_id=store_id)
    again = memories.create(store_id, path=memory.path, content="first", view="full")

    assert again.id != memory.id
    assert again.content == "first"
    assert _operations(versions, memory) == ["created", "deleted"]
    assert _operations(versions, again) == ["created"]
