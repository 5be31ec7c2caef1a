"""Preconditions: the content that the caller expects, on update, rename and delete (parts 2.6 and 2.7)."""

import json
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory
from anthropic.types.beta.memory_stores import BetaManagedAgentsPreconditionParam as Precondition

from tests.contract.shapes import PATH_CONFLICT, PRECONDITION_FAILED, check_refusal, refused, sha256
from tests.support.servers import Server


@pytest.fixture
def memory(store: Store, memories: Memories) -> Memory:
    return memories.create(store.id, path="/a.md", content="first", view="full")


def _expecting(content: str) -> Precondition:
    return {"type": "content_sha256", "content_sha256": sha256(content)}


STALE = _expecting("something else")

MALFORMED: list[Any] = [
    {"type": "content_sha256"},
    {"type": "content_sha256", "content_sha256": None},
    {"type": "content_sha256", "content_sha256": ""},
    {"type": "content_sha256", "content_sha256": sha256("first").upper()},
    {"type": "content_sha256", "content_sha256": sha256("first")[:-1]},
    {"type": "content_sha256", "content_sha256": sha256("first") + "0"},
    {"type": "content_sha256", "content_sha256": sha256("first") + "\n"},
    {"type": "content_sha256", "content_sha256": "g" * 64},
    {"type": "content_sha256", "content_sha256": "\u0660" * 64},
    {"type": "content_sha256", "content_sha256": 5},
    {"type": "content_sha256", "content_sha256": sha256("first"), "path": "/a.md"},
    {"type": "etag", "content_sha256": sha256("first")},
    {"content_sha256": sha256("first")},
    {},
    "first",
    [],
]
MALFORMED_DIGESTS = ["", "x", sha256("first").upper(), sha256("first")[:-1], sha256("first") + "0", "g" * 64]


def test_an_update_with_the_right_precondition_applies(memory: Memory, memories: Memories) -> None:
    updated = memories.update(
        memory.id,
        memory_store_id=memory.memory_store_id,
        content="second",
        precondition=_expecting("first"),
        view="full",
    )
    assert updated.content == "second"


def test_a_precondition_may_expect_emptiness(store: Store, memories: Memories) -> None:
    memory = memories.create(store.id, path="/empty", content="")
    updated = memories.update(
        memory.id, memory_store_id=store.id, content="x", precondition=_expecting(""), view="full"
    )
    assert updated.content == "x"


@pytest.mark.parametrize(
    "change",
    [{"content": "second"}, {"path": "/b.md"}, {"content": "second", "path": "/b.md"}],
    ids=["update", "rename", "both"],
)
def test_a_failed_precondition_is_409_and_changes_nothing(
    memory: Memory, memories: Memories, versions: MemoryVersions, change: dict[str, Any]
) -> None:
    with refused(409, PRECONDITION_FAILED) as refusal:
        memories.update(memory.id, memory_store_id=memory.memory_store_id, precondition=STALE, **change)

    assert refusal.response.headers["x-should-retry"] == "false"
    assert memories.retrieve(memory.id, memory_store_id=memory.memory_store_id) == memory
    assert len(versions.list(memory.memory_store_id).data) == 1


def test_the_precondition_of_a_rename_is_about_the_content(memory: Memory, memories: Memories) -> None:
    moved = memories.update(
        memory.id, memory_store_id=memory.memory_store_id, path="/b.md", precondition=_expecting("first")
    )
    assert moved.path == "/b.md"


def test_a_precondition_refers_to_the_current_content_not_to_an_older_one(memory: Memory, memories: Memories) -> None:
    memories.update(memory.id, memory_store_id=memory.memory_store_id, content="second")
    with refused(409, PRECONDITION_FAILED):
        memories.update(
            memory.id,
            memory_store_id=memory.memory_store_id,
            content="third",
            precondition=_expecting("first"),
        )


@pytest.mark.parametrize(
    "change",
    [{"content": "first"}, {"path": "/a.md"}, {"content": "first", "path": "/a.md"}],
    ids=["content", "path", "both"],
)
def test_a_stale_precondition_on_an_update_that_changes_nothing_is_no_refusal(
    memory: Memory, memories: Memories, versions: MemoryVersions, change: dict[str, Any]
) -> None:
    unchanged = memories.update(
        memory.id, memory_store_id=memory.memory_store_id, precondition=STALE, view="full", **change
    )
    assert unchanged == memory
    assert len(versions.list(memory.memory_store_id).data) == 1


def test_repeating_a_conditional_update_is_safe(memory: Memory, memories: Memories) -> None:
    def update() -> Memory:
        return memories.update(
            memory.id,
            memory_store_id=memory.memory_store_id,
            content="second",
            path="/b.md",
            precondition=_expecting("first"),
        )

    assert update() == update() == update()


def test_the_precondition_is_checked_before_the_path(memory: Memory, memories: Memories) -> None:
    memories.create(memory.memory_store_id, path="/taken", content="x")
    with refused(409, PRECONDITION_FAILED):
        memories.update(memory.id, memory_store_id=memory.memory_store_id, path="/taken", precondition=STALE)
    with refused(409, PATH_CONFLICT):
        memories.update(
            memory.id,
            memory_store_id=memory.memory_store_id,
            path="/taken",
            precondition=_expecting("first"),
        )


@pytest.mark.parametrize("precondition", MALFORMED, ids=json.dumps)
def test_a_malformed_precondition_is_refused(
    memory: Memory, memories: Memories, http: httpx2.Client, precondition: object
) -> None:
    url = f"/v1/memory_stores/{memory.memory_store_id}/memories/{memory.id}"
    body = {"content": "second", "precondition": precondition}
    assert "precondition" in check_refusal(http.post(url, json=body), 400)["message"]
    check_refusal(http.post(url, json={**body, "content": "first"}), 400)
    assert memories.retrieve(memory.id, memory_store_id=memory.memory_store_id) == memory


def test_a_delete_with_the_right_digest_applies(memory: Memory, memories: Memories) -> None:
    deleted = memories.delete(
        memory.id, memory_store_id=memory.memory_store_id, expected_content_sha256=memory.content_sha256
    )
    assert deleted.id == memory.id


def test_a_delete_with_another_digest_is_409_and_deletes_nothing(
    memory: Memory, memories: Memories, versions: MemoryVersions
) -> None:
    with refused(409, PRECONDITION_FAILED) as refusal:
        memories.delete(memory.id, memory_store_id=memory.memory_store_id, expected_content_sha256=sha256("other"))
    assert refusal.response.headers["x-should-retry"] == "false"
    assert memories.retrieve(memory.id, memory_store_id=memory.memory_store_id) == memory
    assert len(versions.list(memory.memory_store_id).data) == 1


@pytest.mark.parametrize("digest", MALFORMED_DIGESTS)
def test_a_delete_with_a_malformed_digest_is_refused(
    memory: Memory, memories: Memories, http: httpx2.Client, digest: str
) -> None:
    url = f"/v1/memory_stores/{memory.memory_store_id}/memories/{memory.id}"
    response = http.delete(url, params={"expected_content_sha256": digest})
    assert "expected_content_sha256" in check_refusal(response, 400)["message"]
    assert memories.retrieve(memory.id, memory_store_id=memory.memory_store_id) == memory


def test_a_failed_precondition_costs_the_sdk_one_request(server: Server, memory: Memory) -> None:
    with server.client(max_retries=2) as retrying, pytest.raises(anthropic.ConflictError) as caught:
        retrying.beta.memory_stores.memories.update(
            memory.id, memory_store_id=memory.memory_store_id, content="second", precondition=STALE
        )
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"
